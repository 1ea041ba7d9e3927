/* SPDX-License-Identifier: Apache-2.0 */
/* The tar reader against Python's tarfile, on archives of every dialect, hostile and cut ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "train/tar.h"

#define FIXTURES    "tests/fixtures/train/tar/"
#define MEMBERS_MAX 16

typedef struct found {
    char name[2 * TESS__TAR_NAME + 1]; /* in hex */
    size_t data_at, n_bytes;
} found;

typedef struct walk {
    found members[MEMBERS_MAX];
    size_t n;
    const char *end;
} walk;

static const char *end_name(tess_bad bad)
{
    return bad == TESS_BAD_NONE ? "ok" : tess_bad_name(bad);
}

/* Walks an archive; every member must lie inside of it. */
static void read_all(const uint8_t *data, size_t n_bytes, walk *out)
{
    static tess__tar_member m;
    tess__tar t = {.map = {data, n_bytes}};
    tess_bad bad = TESS_BAD_NONE;
    bool is_end = false;
    out->n = 0;
    while (tess__tar_next(&t, &m, &is_end, &bad) == TESS_OK && !is_end) {
        assert_true(m.data_at <= n_bytes && m.n_bytes <= n_bytes - m.data_at);
        assert_true(m.begin < m.data_at && m.begin % 512 == 0 && m.data_at % 512 == 0);
        if (m.is_file) {
            assert_true(out->n < MEMBERS_MAX);
            found *f = &out->members[out->n++];
            f->data_at = m.data_at, f->n_bytes = m.n_bytes;
            for (size_t i = 0; i < m.name_bytes; i++) {
                snprintf(f->name + 2 * i, 3, "%02x", (unsigned char)m.name[i]);
            }
        }
    }
    if (bad != TESS_BAD_NONE) {
        assert_non_null(strstr(tess_error(), "at byte"));
    }
    out->end = end_name(bad);
}

static void check_file(const char *name, const char *end, const walk *want)
{
    static walk have;
    char path[300];
    uint8_t *data;
    size_t n_bytes;
    snprintf(path, sizeof path, FIXTURES "%s", name);
    assert_int_equal(tess_file_read(path, 1 << 20, &data, &n_bytes), TESS_OK);
    read_all(data, n_bytes, &have);
    if (have.n != want->n || strcmp(have.end, end) != 0) {
        fail_msg("%s: %zu members and %s, expected %zu and %s", name, have.n, have.end, want->n,
                 end);
    }
    for (size_t i = 0; i < have.n; i++) {
        assert_string_equal(have.members[i].name, want->members[i].name);
        assert_int_equal(have.members[i].data_at, want->members[i].data_at);
        assert_int_equal(have.members[i].n_bytes, want->members[i].n_bytes);
    }
    tess_free(data);
}

static void test_members_as_tarfile_finds_them(void **state)
{
    static walk want;
    static char line[2 * TESS__TAR_NAME + 100];
    char name[100] = "", end[20] = "";
    int n_files = 0;
    FILE *listing = fopen(FIXTURES "members.txt", "r");
    (void)state;
    assert_non_null(listing);
    while (fgets(line, sizeof line, listing)) {
        if (line[0] != ' ') {
            if (n_files++ > 0) {
                check_file(name, end, &want);
            }
            want.n = 0;
            assert_int_equal(sscanf(line, "%99s %19s", name, end), 2);
        } else {
            found *f = &want.members[want.n++];
            assert_int_equal(sscanf(line, " %8192s %zu %zu", f->name, &f->data_at, &f->n_bytes), 3);
        }
    }
    check_file(name, end, &want);
    assert_true(n_files >= 35);
    fclose(listing);
}

/* Cut anywhere, an archive gives exactly the members that are whole, and says that it is cut. */
static void test_cut_anywhere(void **state)
{
    static const char *const names[] = {"ustar.tar", "long_gnu.tar", "long_pax.tar",
                                        "kinds_pax.tar", "sparse_gnu.tar"};
    static walk whole, cut;
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        char path[300];
        uint8_t *data;
        size_t n_bytes;
        snprintf(path, sizeof path, FIXTURES "%s", names[i]);
        assert_int_equal(tess_file_read(path, 1 << 20, &data, &n_bytes), TESS_OK);
        read_all(data, n_bytes, &whole);
        for (size_t at = 0; at + 1024 < n_bytes; at += 37) {
            uint8_t *exact = tess_alloc(at); /* so that a sanitizer sees a read behind the end */
            size_t n = 0;
            memcpy(exact, data, at);
            read_all(exact, at, &cut);
            while (n < whole.n && whole.members[n].data_at + whole.members[n].n_bytes <= at) {
                n++;
            }
            assert_int_equal(cut.n, n);
            assert_string_equal(cut.end, "truncated");
            tess_free(exact);
        }
        tess_free(data);
    }
}

/* Every single byte of the headers damaged: never a member outside the archive. */
static void test_damaged_anywhere(void **state)
{
    static walk w;
    uint8_t *data;
    size_t n_bytes;
    (void)state;
    assert_int_equal(tess_file_read(FIXTURES "long_pax.tar", 1 << 20, &data, &n_bytes), TESS_OK);
    for (size_t at = 0; at < n_bytes; at++) {
        data[at] ^= 0x41;
        read_all(data, n_bytes, &w);
        data[at] ^= 0x41;
    }
    tess_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_as_tarfile_finds_them),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_damaged_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
