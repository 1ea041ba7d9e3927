/* SPDX-License-Identifier: Apache-2.0 */
/* Our files and stock FAISS's are the same: theirs open here and answer as they said, ours open
 * there (with python3-faiss, where it is installed). */
#include "index/index_fixture.h"

#include <math.h>
#include <stdio.h>

#include "index/vectors.h"

enum { DIM = 12, ROWS = 200, QUERIES = 8, K = 5 };

static tess__vectors *load_stock(const char *path)
{
    char hex[33];
    uint8_t *bytes = NULL;
    size_t n = 0;
    tess__vectors *v = NULL;
    assert_ok(tess_file_read(path, 1 << 20, &bytes, &n));
    assert_ok(tess__xxh3_hex(bytes, n, hex));
    tess__file_facts facts = {.n_bytes = (int64_t)n, .xxh3 = hex};
    assert_ok(tess__vectors_load(path, &facts, ROWS, DIM, &v));
    tess_free(bytes);
    return v;
}

static void read_numbers(FILE *f, double *out, int n)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(fscanf(f, "%lf", &out[i]), 1);
    }
}

static void check_stock(const char *path, const char *factory)
{
    tess__vectors *v = load_stock(path);
    assert_ok(tess__vectors_set_search(v, factory, 200, 0));
    FILE *f = fopen("tests/fixtures/index/stock_expected.txt", "r");
    assert_non_null(f);
    for (int i = 0; i < QUERIES; i++) {
        double numbers[DIM], rows[K], scores[K];
        read_numbers(f, numbers, DIM);
        read_numbers(f, rows, K);
        read_numbers(f, scores, K);
        float q[DIM];
        for (int j = 0; j < DIM; j++) {
            q[j] = (float)numbers[j];
        }
        tess_hit hits[K];
        int64_t n_hits = 0;
        assert_ok(tess__vectors_search(v, q, 1, K, hits, &n_hits));
        assert_int_equal(n_hits, K);
        for (int r = 0; r < K; r++) {
            assert_int_equal(hits[r].row, (int64_t)rows[r]);
            assert_true(fabs(hits[r].score - scores[r]) < 1e-6);
        }
    }
    fclose(f);
    tess__vectors_free(v);
}

static void test_stock_files_open_here(void **state)
{
    (void)state;
    check_stock("tests/fixtures/index/stock_flat.faiss", "Flat");
    check_stock("tests/fixtures/index/stock_hnsw.faiss", "HNSW8,Flat");
}

static void test_our_files_open_in_stock_faiss(void **state)
{
    (void)state;
    if (system("/usr/bin/python3 -c 'import faiss' 2>/dev/null") != 0) {
        skip();
    }
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(300, DIM, 1);
    assert_ok(build_index(path, x, 300, DIM, "HNSW8,Flat", false));
    char *command =
        tess_format("/usr/bin/python3 -c \"import faiss; ix = faiss.read_index('%s/vectors.faiss');"
                    "assert ix.ntotal == 300 and ix.d == 12 and ix.metric_type == 0\"",
                    path);
    assert_int_equal(system(command), 0);
    tess_free(command);
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stock_files_open_here),
        cmocka_unit_test(test_our_files_open_in_stock_faiss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
