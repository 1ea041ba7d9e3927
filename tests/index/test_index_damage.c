/* SPDX-License-Identifier: Apache-2.0 */
/* A damaged, foreign or hostile index directory is refused with a message, whatever was done to it.
 */
#include "index/index_fixture.h"

#include <stdio.h>
#include <sys/stat.h>

#include "index/manifest.h"

static const char *const files[] = {"manifest.json", "vectors.faiss", "rows.sqlite"};

static void make(char **dir, char **path)
{
    float *x = random_vectors(40, 16, 1);
    *dir = temp_dir();
    *path = tess_format("%s/ix", *dir);
    assert_ok(build_index(*path, x, 40, 16, "HNSW8,Flat", false));
    tess_free(x);
}

static void assert_open_refused(const char *path, const char *file, const char *what, size_t at)
{
    tess_index *ix = NULL;
    tess_status st = tess_index_open(path, NULL, &ix);
    if (st == TESS_OK) {
        fail_msg("%s: %s at %zu went unseen", file, what, at);
    }
    assert_null(ix);
    assert_true(st == TESS_FORMAT || st == TESS_INVALID || st == TESS_UNSUPPORTED);
    assert_true(strlen(tess_error()) > 20);
    assert_non_null(strstr(tess_error(), path)); /* says which index */
}

/* About 200 positions of a file, both ends among them. */
static size_t next_position(size_t at, size_t n_bytes)
{
    size_t step = n_bytes / 200 + 1;
    return at < 16 || at + 16 >= n_bytes ? at + 1
           : at + step < n_bytes - 16    ? at + step
                                         : n_bytes - 16;
}

static void test_every_flip_and_cut_is_seen(void **state)
{
    (void)state;
    char *dir, *path;
    make(&dir, &path);
    for (int64_t f = 0; f < TESS_COUNT(files); f++) {
        char *name = tess_format("%s/%s", path, files[f]);
        uint8_t *bytes = NULL;
        size_t n = 0;
        assert_ok(tess_file_read(name, 1 << 24, &bytes, &n));
        /* The manifest is small: every byte of it, and every bit of the first ones. */
        for (size_t at = 0; at < n; at = f == 0 ? at + 1 : next_position(at, n)) {
            for (int bit = 0; bit < (at < 8 ? 8 : 1); bit++) {
                bytes[at] ^= (uint8_t)(1u << bit);
                assert_ok(tess_file_write(name, bytes, n));
                assert_open_refused(path, files[f], "a flip", at);
                bytes[at] ^= (uint8_t)(1u << bit);
            }
            assert_ok(tess_file_write(name, bytes, at));
            assert_open_refused(path, files[f], "a cut", at);
        }
        assert_ok(tess_file_write(name, bytes, n));
        tess_index *ix = NULL;
        assert_ok(tess_index_open(path, FINGERPRINT, &ix)); /* whole again: opens again */
        tess_index_close(ix);
        assert_int_equal(remove(name), 0);
        assert_int_not_equal(tess_index_open(path, NULL, &ix), TESS_OK);
        assert_ok(tess_file_write(name, bytes, n));
        tess_free(bytes);
        tess_free(name);
    }
    tess_free(path);
    remove_temp(dir);
}

static void test_another_model_is_refused(void **state)
{
    (void)state;
    char *dir, *path;
    make(&dir, &path);
    tess_index *ix = NULL;
    assert_refused(tess_index_open(path, "tessera:other", &ix), TESS_INVALID, FINGERPRINT);
    assert_refused(tess_index_open(path, "tessera:other", &ix), TESS_INVALID, "tessera:other");
    assert_refused(tess_index_open(dir, NULL, &ix), TESS_INVALID, "no index here");
    assert_refused(tess_index_open("/nonexistent", NULL, &ix), TESS_INVALID, "no index here");
    tess_free(path);
    remove_temp(dir);
}

/* Files of two indexes, each sound in itself. */
static void test_mixed_files_are_refused(void **state)
{
    (void)state;
    char *dir, *path;
    make(&dir, &path);
    char *other = tess_format("%s/other", dir);
    float *x = random_vectors(40, 16, 9);
    assert_ok(build_index(other, x, 40, 16, "HNSW8,Flat", false));
    char *from = tess_format("%s/vectors.faiss", other),
         *to = tess_format("%s/vectors.faiss", path);
    assert_ok(tess_path_rename(from, to));
    assert_open_refused(path, "vectors.faiss", "another index's file", 0);
    tess_free(x);
    tess_free(from);
    tess_free(to);
    tess_free(other);
    tess_free(path);
    remove_temp(dir);
}

#define FACTS  "{\"file\":\"f\",\"bytes\":1,\"xxh3\":\"00112233445566778899aabbccddeeff\"}"
#define COMMON "\"fingerprint\":\"f\",\"dim\":4,\"factory\":\"Flat\",\"n_rows\":2,\"metric\":\"ip\""
#define HEAD   "{\"format\":\"tessera-index\",\"version\":1,"
#define TAIL   ",\"vectors\":" FACTS ",\"rows\":" FACTS "}"

static void test_hostile_manifests_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "m"},
        {"[]", "expected a JSON object"},
        {"null", "expected a JSON object"},
        {"{}", "\"format\""},
        {"{\"format\":\"other\"}", "other"},
        {"{\"format\":3}", "format"},
        {"{\"format\":\"tessera-index\",\"version\":2}", "version 2"},
        {HEAD COMMON ",\"vectors\":" FACTS "}", "\"rows\" is missing"},
        {HEAD COMMON ",\"unknown\":1" TAIL, "unknown"},
        {HEAD
         "\"fingerprint\":\"\",\"dim\":4,\"factory\":\"Flat\",\"n_rows\":2,\"metric\":\"ip\"" TAIL,
         "fingerprint"},
        {HEAD
         "\"fingerprint\":\"f\",\"dim\":0,\"factory\":\"Flat\",\"n_rows\":2,\"metric\":\"ip\"" TAIL,
         "dim"},
        {HEAD "\"fingerprint\":\"f\",\"dim\":65537,\"factory\":\"Flat\",\"n_rows\":2,\"metric\":"
              "\"ip\"" TAIL,
         "dim"},
        {HEAD "\"fingerprint\":\"f\",\"dim\":4,\"factory\":\"Flat\",\"n_rows\":-2,\"metric\":"
              "\"ip\"" TAIL,
         "n_rows"},
        {HEAD "\"fingerprint\":\"f\",\"dim\":4.5,\"factory\":\"Flat\",\"n_rows\":2,\"metric\":"
              "\"ip\"" TAIL,
         "dim"},
        {HEAD
         "\"fingerprint\":\"f\",\"dim\":4,\"factory\":\"Flat\",\"n_rows\":2,\"metric\":\"l2\"" TAIL,
         "metric"},
        {HEAD COMMON ",\"vectors\":{\"file\":\"../f\",\"bytes\":1,\"xxh3\":\""
                     "00112233445566778899aabbccddeeff\"},\"rows\":" FACTS "}",
         "a name in the directory"},
        {HEAD COMMON ",\"vectors\":{\"file\":\"/etc/passwd\",\"bytes\":1,\"xxh3\":\""
                     "00112233445566778899aabbccddeeff\"},\"rows\":" FACTS "}",
         "a name in the directory"},
        {HEAD COMMON ",\"vectors\":{\"file\":\"f\",\"bytes\":1,\"xxh3\":\"0\"},\"rows\":" FACTS "}",
         "32 hex digits"},
        {HEAD COMMON ",\"vectors\":{\"file\":\"f\",\"bytes\":1e30,\"xxh3\":\""
                     "00112233445566778899aabbccddeeff\"},\"rows\":" FACTS "}",
         "bytes"},
        {HEAD COMMON ",\"dim\":4" TAIL, "dim"}, /* twice */
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_arena arena = {0};
        tess__manifest m;
        tess_status st =
            tess__manifest_parse(cases[i].text, strlen(cases[i].text), "m", &arena, &m);
        if (st == TESS_OK || !strstr(tess_error(), cases[i].part)) {
            fail_msg("case %lld: status %d, \"%s\"", (long long)i, st, tess_error());
        }
        tess_arena_deinit(&arena);
    }
    tess_arena arena = {0};
    tess__manifest m;
    const char *good = HEAD COMMON TAIL;
    assert_ok(tess__manifest_parse(good, strlen(good), "m", &arena, &m));
    assert_int_equal(m.dim, 4);
    tess_arena_deinit(&arena);
}

/* A directory whose checksums are right but whose files are something else. */
static void test_wrong_content_under_right_checksums(void **state)
{
    (void)state;
    char *dir, *path;
    make(&dir, &path);
    tess_arena arena = {0};
    tess__manifest m;
    assert_ok(tess__manifest_load(path, &arena, &m));
    char hex[33];
    const char *junk = "not an index, and rather short";
    for (int64_t f = 1; f < TESS_COUNT(files); f++) {
        char *name = tess_format("%s/%s", path, files[f]);
        uint8_t *bytes = NULL;
        size_t n = 0;
        assert_ok(tess_file_read(name, 1 << 24, &bytes, &n));
        tess__manifest lie = m;
        tess__file_facts *facts = f == 1 ? &lie.vectors : &lie.rows;
        facts->n_bytes = (int64_t)strlen(junk);
        facts->xxh3 = hex;
        assert_ok(tess__xxh3_hex(junk, strlen(junk), hex));
        assert_ok(tess_file_write(name, junk, strlen(junk)));
        assert_ok(tess__manifest_save(&lie, path));
        assert_open_refused(path, files[f], "junk", 0);
        assert_ok(tess_file_write(name, bytes, n));
        tess_free(bytes);
        tess_free(name);
    }
    tess__manifest lie = m;
    lie.n_rows = 41;
    assert_ok(tess__manifest_save(&lie, path));
    assert_open_refused(path, "manifest.json", "a wrong count", 0);
    lie = m;
    lie.dim = 17;
    assert_ok(tess__manifest_save(&lie, path));
    assert_open_refused(path, "manifest.json", "a wrong dimension", 0);
    tess_arena_deinit(&arena);
    tess_free(path);
    remove_temp(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_flip_and_cut_is_seen),
        cmocka_unit_test(test_another_model_is_refused),
        cmocka_unit_test(test_mixed_files_are_refused),
        cmocka_unit_test(test_hostile_manifests_are_refused),
        cmocka_unit_test(test_wrong_content_under_right_checksums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
