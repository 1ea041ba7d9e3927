/* SPDX-License-Identifier: Apache-2.0 */
/* Packed text-only models: the packed file opens without the weights, embeds what the model embeds,
 * and is not used when a file of the model, also of a module's folder, is another one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "fusion_fixture.h"

#define SENTENCE "tests/fixtures/sentence/"

enum { MOST_WIDTH = 64, N_TEXTS = 4 };
static const char *const texts[N_TEXTS] = {"a black dog sits", "red cat", "house and garden", "x"};

static char said[4096];

static void listen(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx, (void)level;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

static void copy_file(const char *from, const char *to)
{
    uint8_t *data;
    size_t n;
    ok(tess_file_read(from, (size_t)1 << 24, &data, &n));
    ok(tess_file_write(to, data, n));
    tess_free(data);
}

/* A copy of a fixture's directory. */
static const char *copy_dir(const char *name)
{
    const char *dir = fixture_at(name);
    tess_names names = {0};
    char from[512], to[512];
    ok(tess_dir_remove(dir));
    ok(tess_dir_make(dir));
    snprintf(from, sizeof from, SENTENCE "%s", name);
    ok(tess_dir_list(from, true, &names));
    for (size_t i = 0; i < names.n_names; i++) {
        snprintf(from, sizeof from, SENTENCE "%s/%s", name, names.names[i]);
        snprintf(to, sizeof to, "%s/%s", dir, names.names[i]);
        char *slash = strrchr(to, '/');
        *slash = 0;
        ok(tess_dir_make(to));
        *slash = '/';
        copy_file(from, to);
    }
    tess_names_deinit(&names);
    return dir;
}

typedef struct vectors {
    float x[N_TEXTS][MOST_WIDTH];
} vectors;

static void embed_model(tess_model *m, vectors *out)
{
    memset(out, 0, sizeof *out);
    assert_true(tess_model_embed_dim(m) <= MOST_WIDTH);
    for (int i = 0; i < N_TEXTS; i++) {
        ok(tess_model_embed_text(m, texts[i], strlen(texts[i]), out->x[i]));
    }
}

static void embed_dir(const char *dir, tess_precision precision, const char *mode, vectors *out)
{
    tess_model *m = NULL;
    ok(tess_model_open_embedder(dir, precision, &m));
    if (mode) {
        assert_string_equal(tess_model_mode(m), mode);
    }
    embed_model(m, out);
    tess_model_free(m);
}

static double least_cosine(const vectors *a, const vectors *b)
{
    double least = 1;
    for (int i = 0; i < N_TEXTS; i++) {
        double dot = 0;
        for (int j = 0; j < MOST_WIDTH; j++) {
            dot += (double)a->x[i][j] * (double)b->x[i][j];
        }
        least = dot < least ? dot : least;
    }
    return least;
}

static const char *const models[] = {"bert",     "bert_prefixed", "st_cls",
                                     "st_dense", "st_mean",       "xlmr"};

/* Every precision that is packed keeps the cosine that it promises, and is found again. */
static void test_all_kinds_are_packed(void **state)
{
    (void)state;
    static const struct {
        tess_precision precision;
        double least;
    } cases[] = {
        {TESS_PRECISION_F32, 1 - 1e-6}, {TESS_PRECISION_BF16, 0.999}, {TESS_PRECISION_AUTO, 0.99}};
    for (int64_t i = 0; i < TESS_COUNT(models); i++) {
        const char *dir = copy_dir(models[i]);
        vectors exact, packed;
        tess_model *m = NULL;
        ok(tess_model_open(dir, TESS_PRECISION_F32, &m));
        embed_model(m, &exact);
        tess_model_free(m);
        for (int64_t k = 0; k < TESS_COUNT(cases); k++) {
            tess_pack_report r;
            ok(tess_model_pack(dir, cases[k].precision, &r));
            assert_int_equal(r.n_pictures, 0);
            assert_true(r.n_texts > 0 && r.candidates[0].text_cosine < 1.000001);
            ok(tess_model_check_pack(dir));
            said[0] = '\0';
            embed_dir(dir, TESS_PRECISION_AUTO, r.candidates[r.n_candidates - 1].mode, &packed);
            assert_string_equal(said, "");
            if (!(least_cosine(&exact, &packed) > cases[k].least)) {
                fail_msg("%s: cosine %.6f", models[i], least_cosine(&exact, &packed));
            }
        }
    }
}

/* The numbers of 8 bits are not those of f32: the packed file is what computes. */
static void test_the_packed_file_is_what_computes(void **state)
{
    (void)state;
    const char *dir = copy_dir("st_dense");
    vectors exact, packed;
    tess_pack_report r;
    embed_dir(dir, TESS_PRECISION_F32, "f32", &exact);
    ok(tess_model_pack(dir, TESS_PRECISION_BF16, &r));
    assert_string_equal(r.candidates[r.n_candidates - 1].mode, "bf16");
    embed_dir(dir, TESS_PRECISION_AUTO, "bf16", &packed);
    assert_true(least_cosine(&exact, &packed) < 1 - 1e-9);
}

/* With the file, weights are not read, neither the encoder's nor a module's: here they are gone. */
static void test_weights_are_not_read(void **state)
{
    (void)state;
    const char *dir = copy_dir("st_dense");
    static const char *const weights[] = {"model.safetensors", "2_Dense/model.safetensors"};
    vectors before, after;
    tess_pack_report r;
    tess_model *m = NULL;
    char fingerprint[33], recorded[33];
    ok(tess_model_open(dir, TESS_PRECISION_F32, &m));
    ok(tess_model_fingerprint(m, fingerprint));
    tess_model_free(m);
    ok(tess_model_pack(dir, TESS_PRECISION_AUTO, &r));
    embed_dir(dir, TESS_PRECISION_AUTO, NULL, &before);
    for (int64_t i = 0; i < TESS_COUNT(weights); i++) {
        char path[512];
        struct stat info;
        snprintf(path, sizeof path, "%s/%s", dir, weights[i]);
        assert_int_equal(stat(path, &info), 0);
        const int fd = open(path, O_WRONLY); /* other bytes under the same stamp */
        assert_true(fd >= 0);
        assert_int_equal(pwrite(fd, "garbage!", 8, 0), 8);
        const struct timespec times[2] = {info.st_atim, info.st_mtim};
        assert_int_equal(futimens(fd, times), 0);
        close(fd);
    }
    ok(tess_model_open_embedder(dir, TESS_PRECISION_AUTO, &m));
    ok(tess_model_fingerprint(m, recorded));
    assert_string_equal(recorded, fingerprint);
    assert_false(tess_model_has_image(m));
    embed_model(m, &after);
    assert_memory_equal(&before, &after, sizeof before);
    uint8_t picture[4] = {0};
    assert_fails(tess_model_embed_pictures(m, picture, 1, after.x[0]), TESS_UNSUPPORTED,
                 "a text tower alone");
    tess_model_free(m);
}

/* A module's folder belongs to the model: its files decide too. */
static void test_a_changed_module_is_noticed(void **state)
{
    (void)state;
    const char *dir = copy_dir("st_dense");
    vectors x;
    tess_pack_report r;
    char path[512];
    ok(tess_model_pack(dir, TESS_PRECISION_F32, &r));
    snprintf(path, sizeof path, "%s/2_Dense/model.safetensors", dir);
    uint8_t *data;
    size_t n;
    ok(tess_file_read(path, (size_t)1 << 24, &data, &n));
    data[n - 2] ^= 1; /* of the last weight */
    ok(tess_file_write(path, data, n));
    tess_free(data);
    said[0] = '\0';
    embed_dir(dir, TESS_PRECISION_F32, "f32", &x);
    if (!strstr(said, "made from other weights")) {
        fail_msg("expected a warning, found \"%s\"", said);
    }
    assert_fails(tess_model_check_pack(dir), TESS_FORMAT, "other weights");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_kinds_are_packed),
        cmocka_unit_test(test_the_packed_file_is_what_computes),
        cmocka_unit_test(test_weights_are_not_read),
        cmocka_unit_test(test_a_changed_module_is_noticed),
    };
    tess_log_set_sink(listen, NULL, TESS_LOG_WARN);
    return cmocka_run_group_tests(tests, fixture_make_root, fixture_remove_root);
}
