/* SPDX-License-Identifier: Apache-2.0 */
/* Packed models: they compute what the unpacked ones do, a packed file opens the same model without
 * its weights and shares its memory, and one that does not belong is not used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "fusion_fixture.h"

enum { Z = 16, SIDE = 16, N_TEXTS = PICTURES * SLOTS };
#define ALL ((PICTURES + N_TEXTS) * Z)

static char said[4096];

static void listen(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx, (void)level;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

static void expect_said(const char *text)
{
    if (!strstr(said, text)) {
        fail_msg("expected \"%s\" in \"%s\"", text, said);
    }
    said[0] = '\0';
}

/* A directory of the fixture's model, with its tokenizer. */
static const char *make_dir(const char *name)
{
    const char *dir = fixture_at(name);
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    ok(tess_model_save(m, dir));
    tess_model_free(m);
    return dir;
}

static const char *packed_of(const char *dir)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/tessera_packed.bin", dir);
    return path;
}

static void embed_all(tess_model *m, float *out)
{
    fixture_batch b;
    fixture_open(&b);
    ok(tess_model_embed_pictures(m, b.pictures, PICTURES, out));
    ok(tess_model_embed_tokens(m, b.tokens, b.offsets64, N_TEXTS, out + PICTURES * Z));
    tess_tensors_free(b.file);
}

static void embed_dir(const char *dir, tess_precision precision, const char *mode, float *out)
{
    tess_model *m = NULL;
    ok(tess_model_open_embedder(dir, precision, &m));
    if (mode) {
        assert_string_equal(tess_model_mode(m), mode);
    }
    embed_all(m, out);
    tess_model_free(m);
}

static double least_cosine(const float *a, const float *b)
{
    double least = 1;
    for (int i = 0; i < ALL; i += Z) {
        double dot = 0;
        for (int j = 0; j < Z; j++) {
            dot += (double)a[i + j] * (double)b[i + j];
        }
        least = dot < least ? dot : least;
    }
    return least;
}

/* ---- numbers ------------------------------------------------------------------------------- */

static void test_precisions_keep_their_cosine(void **state)
{
    (void)state;
    const char *dir = make_dir("cosine");
    static float exact[ALL], x[ALL];
    tess_model *m = NULL;
    ok(tess_model_open(dir, TESS_PRECISION_F32, &m));
    embed_all(m, exact);
    tess_model_free(m);
    embed_dir(dir, TESS_PRECISION_F32, "f32", x);
    assert_true(least_cosine(exact, x) > 1 - 1e-6);
    embed_dir(dir, TESS_PRECISION_BF16, "bf16", x);
    assert_true(least_cosine(exact, x) > 0.999);
    said[0] = '\0';
    embed_dir(dir, TESS_PRECISION_INT8, NULL, x);
    expect_said("cosine to f32 at least");
    assert_true(least_cosine(exact, x) > 0.99);
}

/* A file of packed weights gives the bytes that packing in memory gives, whatever the mode. */
static void test_mapped_is_as_copied(void **state)
{
    (void)state;
    const char *dir = make_dir("mapped");
    static float copied[ALL], mapped[ALL];
    const tess_precision precisions[] = {TESS_PRECISION_F32, TESS_PRECISION_BF16};
    for (int i = 0; i < 2; i++) {
        tess_pack_report r;
        (void)unlink(packed_of(dir));
        embed_dir(dir, precisions[i], NULL, copied);
        ok(tess_model_pack(dir, precisions[i], &r));
        const char *mode = r.candidates[r.n_candidates - 1].mode;
        assert_string_equal(mode, i ? "bf16" : "f32");
        assert_true(r.candidates[r.n_candidates - 1].image_cosine >= (i ? 0.999 : 0.999999));
        embed_dir(dir, TESS_PRECISION_AUTO, mode, mapped);
        assert_memory_equal(copied, mapped, sizeof copied);
    }
}

/* With the file, the weights themselves are not read: here they are gone. */
static void test_weights_are_not_read(void **state)
{
    (void)state;
    const char *dir = make_dir("unread");
    static float before[ALL], after[ALL];
    tess_pack_report r;
    ok(tess_model_pack(dir, TESS_PRECISION_AUTO, &r));
    embed_dir(dir, TESS_PRECISION_AUTO, NULL, before);
    tess_model *m = NULL;
    char fingerprint[33], recorded[33];
    ok(tess_model_open(dir, TESS_PRECISION_F32, &m));
    ok(tess_model_fingerprint(m, fingerprint));
    tess_model_free(m);

    const char *weights = tess_format("%s/open_clip_model.safetensors", dir);
    struct stat info;
    assert_int_equal(stat(weights, &info), 0);
    const int fd = open(weights, O_WRONLY); /* other bytes under the same stamp */
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "garbage!", 8, 0), 8);
    const struct timespec times[2] = {info.st_atim, info.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    close(fd);
    ok(tess_model_open_embedder(dir, TESS_PRECISION_AUTO, &m));
    ok(tess_model_fingerprint(m, recorded));
    assert_string_equal(recorded, fingerprint);
    embed_all(m, after);
    assert_memory_equal(before, after, sizeof before);
    /* It embeds and does nothing else. */
    tess_trainer *t = NULL;
    const tess_trainer_options o = fixture_options();
    assert_fails(tess_trainer_new(m, &o, &t), TESS_INVALID, "embedding alone");
    assert_fails(tess_model_save(m, fixture_at("elsewhere")), TESS_INVALID, "embedding alone");
    tess_model_free(m);
    tess_free((void *)(uintptr_t)weights);
}

/* Without a packed file a checkpoint is used where it lies: the bytes that a copy gives. */
static void test_weights_where_they_lie(void **state)
{
    (void)state;
    const char *dir = make_dir("lying");
    static float copied[ALL], lying[ALL];
    tess_model *m = NULL;
    int64_t n;
    ok(tess_model_open_embedder(dir, TESS_PRECISION_F32, &m));
    assert_null(tess_store_group(tess_model_store(m), "param", &n));
    embed_all(m, lying);
    tess_model_free(m);
    char *weights = tess_format("%s/open_clip_model.safetensors", dir);
    tess_tensors *t = NULL; /* one vector as bf16 without loss: it must be copied */
    ok(tess_tensors_open(weights, &t));
    tess_tensor *all = tess_alloc_array((size_t)tess_tensors_count(t), sizeof *all);
    uint16_t halves[256];
    for (int64_t i = 0; i < tess_tensors_count(t); i++) {
        all[i] = *tess_tensors_at(t, i);
        if (strcmp(all[i].name, "logit_scale") == 0) {
            float x;
            memcpy(&x, all[i].data, 4);
            halves[0] = tess_bf16_from_f32(x);
            assert_true(tess_f32_from_bf16(halves[0]) == x);
            all[i].dtype = "BF16";
            all[i].data = (const uint8_t *)halves;
            all[i].n_bytes = 2;
        }
    }
    char *again = tess_format("%s.again", weights);
    ok(tess_tensors_save(again, all, tess_tensors_count(t), NULL, 0));
    assert_int_equal(rename(again, weights), 0);
    ok(tess_model_open_embedder(dir, TESS_PRECISION_F32, &m));
    assert_non_null(tess_store_group(tess_model_store(m), "param", &n));
    embed_all(m, copied);
    assert_memory_equal(copied, lying, sizeof copied);
    tess_model_free(m);
    tess_tensors_free(t);
    tess_free(all);
    tess_free(again);
    tess_free(weights);
}

/* ---- what does not belong ------------------------------------------------------------------ */

static void test_other_weights_are_noticed(void **state)
{
    (void)state;
    const char *dir = make_dir("other");
    static float right[ALL], x[ALL];
    tess_pack_report r;
    ok(tess_model_pack(dir, TESS_PRECISION_F32, &r));
    ok(tess_model_check_pack(dir));
    tess_model *m = NULL; /* the same config, other numbers */
    ok(tess_model_new(FIXTURE "tok_last.json", NULL, 5, TESS_PRECISION_F32, &m));
    embed_all(m, right);
    uint8_t *packed;
    size_t n;
    ok(tess_file_read(packed_of(dir), 1 << 26, &packed, &n));
    ok(tess_model_save(m, dir));
    tess_model_free(m);
    ok(tess_file_write(packed_of(dir), packed, n));
    said[0] = '\0';
    embed_dir(dir, TESS_PRECISION_F32, NULL, x);
    expect_said("made from other weights");
    assert_true(least_cosine(right, x) > 1 - 1e-6);
    assert_fails(tess_model_check_pack(dir), TESS_FORMAT, "other weights");
    tess_free(packed);
}

static void test_a_copied_directory(void **state)
{
    (void)state;
    const char *dir = make_dir("touched");
    static float before[ALL], after[ALL];
    tess_pack_report r;
    ok(tess_model_pack(dir, TESS_PRECISION_BF16, &r));
    embed_dir(dir, TESS_PRECISION_AUTO, "bf16", before);
    char *config = tess_format("%s/open_clip_config.json", dir);
    const struct timespec times[2] = {{.tv_sec = 12345}, {.tv_sec = 12345}};
    assert_int_equal(utimensat(AT_FDCWD, config, times, 0), 0);
    said[0] = '\0';
    embed_dir(dir, TESS_PRECISION_AUTO, "bf16", after);
    expect_said("their content did not");
    assert_memory_equal(before, after, sizeof before);
    tess_free(config);
}

static void test_damage_is_not_used(void **state)
{
    (void)state;
    const char *dir = make_dir("damaged");
    static float right[ALL], x[ALL];
    tess_pack_report r;
    embed_dir(dir, TESS_PRECISION_F32, "f32", right);
    ok(tess_model_pack(dir, TESS_PRECISION_F32, &r));
    uint8_t *packed;
    size_t n;
    ok(tess_file_read(packed_of(dir), 1 << 26, &packed, &n));
    const size_t lengths[] = {0, 7, 100, n / 2, n - 1};
    for (int64_t i = 0; i < TESS_COUNT(lengths); i++) {
        ok(tess_file_write(packed_of(dir), packed, lengths[i]));
        said[0] = '\0';
        embed_dir(dir, TESS_PRECISION_F32, "f32", x);
        expect_said("tessera pack makes it anew");
        assert_memory_equal(right, x, sizeof x);
    }
    uint8_t *aside =
        tess_alloc(n + 1); /* a header of an odd length: no word lies where it should */
    assert_non_null(aside);
    memcpy(aside, packed, n);
    uint64_t header;
    memcpy(&header, packed, sizeof header);
    memcpy(aside + 8 + header + 1, packed + 8 + header, n - 8 - header);
    aside[8 + header++] = ' ';
    memcpy(aside, &header, sizeof header);
    ok(tess_file_write(packed_of(dir), aside, n + 1));
    said[0] = '\0';
    embed_dir(dir, TESS_PRECISION_F32, "f32", x);
    expect_said("expected to begin at a multiple of 4 bytes");
    assert_memory_equal(right, x, sizeof x);
    tess_free(aside);
    char *at = memmem(packed, n, "\"tessera_pack\":\"1\"", 18); /* a later format */
    assert_non_null(at);
    at[16] = '7';
    ok(tess_file_write(packed_of(dir), packed, n));
    said[0] = '\0';
    embed_dir(dir, TESS_PRECISION_F32, "f32", x);
    expect_said("expected packed weights of format 1");
    at[16] = '1';
    packed[n - 1] ^= 1; /* in the data: found by the check alone */
    ok(tess_file_write(packed_of(dir), packed, n));
    assert_fails(tess_model_check_pack(dir), TESS_FORMAT, "not what was written");
    tess_free(packed);
}

/* A tensor that is missing or of another size is named when the plan asks for it. */
static void test_holes_are_named(void **state)
{
    (void)state;
    const char *dir = make_dir("holes");
    static float x[ALL];
    tess_pack_report r;
    ok(tess_model_pack(dir, TESS_PRECISION_F32, &r));
    uint8_t *packed;
    size_t n;
    ok(tess_file_read(packed_of(dir), 1 << 26, &packed, &n));
    char *at = memmem(packed, n, "panels:visual.proj", 18);
    assert_non_null(at);
    at[7] = 'V';
    ok(tess_file_write(packed_of(dir), packed, n));
    tess_model *m = NULL;
    ok(tess_model_open_embedder(dir, TESS_PRECISION_AUTO, &m));
    fixture_batch b;
    fixture_open(&b);
    assert_fails(tess_model_embed_pictures(m, b.pictures, PICTURES, x), TESS_FORMAT,
                 "visual.proj: the packed file does not hold it");
    ok(tess_model_embed_tokens(m, b.tokens, b.offsets64, N_TEXTS, x));
    tess_tensors_free(b.file);
    tess_model_free(m);
    tess_free(packed);
}

/* ---- processes ----------------------------------------------------------------------------- */

static void test_packers_at_once(void **state)
{
    (void)state;
    const char *dir = make_dir("at_once");
    static float x[ALL];
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            tess_pack_report r;
            _exit(tess_model_pack(dir, TESS_PRECISION_F32, &r) == TESS_OK ? 0 : 1);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status = -1;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    ok(tess_model_check_pack(dir));
    embed_dir(dir, TESS_PRECISION_AUTO, "f32", x);
    tess_names names = {0};
    ok(tess_dir_list(dir, false, &names));
    assert_int_equal(names.n_names, 5); /* and no leftovers */
    tess_names_deinit(&names);
}

static void test_read_only_directory(void **state)
{
    (void)state;
    const char *dir = make_dir("read_only");
    static float x[ALL];
    tess_pack_report r;
    assert_int_equal(chmod(dir, 0555), 0);
    if (access(dir, W_OK) != 0) { /* root writes anyway */
        assert_fails(tess_model_pack(dir, TESS_PRECISION_F32, &r), TESS_IO, "cannot create");
    }
    embed_dir(dir, TESS_PRECISION_F32, "f32", x);
    assert_int_equal(chmod(dir, 0755), 0);
}

/* Bytes of /proc/self/smaps_rollup's line. */
static int64_t rollup(const char *key)
{
    char line[256];
    long long kb = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) == 0) {
            (void)sscanf(line + strlen(key), "%lld", &kb);
        }
    }
    if (f) {
        fclose(f);
    }
    return kb * 1024;
}

/* A second process that maps the same file adds its page tables, not its pages. */
static void test_pages_are_shared(void **state)
{
    (void)state;
    enum { BYTES = 64 << 20 };
    const char *path = fixture_at("large.safetensors");
    uint8_t *data = tess_alloc(BYTES);
    memset(data, 1, BYTES);
    const tess_tensor t = {"w", "F32", {1, {BYTES / 4}}, data, BYTES};
    ok(tess_tensors_save(path, &t, 1, NULL, 0));
    tess_free(data);
    int ready[2], done[2];
    assert_int_equal(pipe(ready) | pipe(done), 0);
    const pid_t child = fork();
    tess_tensors *file = NULL;
    ok(tess_tensors_open(path, &file));
    tess_store *s = tess_store_new();
    ok(tess_store_add(s, "param", "w", TESS_SHAPE_OF(BYTES / 4)));
    const int64_t before = rollup("Pss:");
    ok(tess_store_map(s, "param", file));
    const float *w = tess_store_find(s, "param", "w", NULL);
    double sum = 0;
    for (int64_t i = 0; i < BYTES / 4; i += 1024) {
        sum += (double)w[i];
    }
    assert_true(sum > 0);
    char byte = 0;
    if (child == 0) {
        _exit(write(ready[1], &byte, 1) == 1 && read(done[0], &byte, 1) == 1 ? 0 : 1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    const int64_t pss = rollup("Pss:") - before, private = rollup("Private_Dirty:");
    assert_int_equal(write(done[1], &byte, 1), 1);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    if (before > 0) { /* the kernel keeps count */
        assert_true(pss < (int64_t)(BYTES * 0.6));
        assert_true(private < BYTES / 2);
    }
    tess_store_free(s);
    tess_tensors_free(file);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(done[i]);
    }
}

static int listen_and_make_root(void **state)
{
    tess_log_set_sink(listen, NULL, TESS_LOG_INFO);
    return fixture_make_root(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packers_at_once), /* before threads are made: it forks */
        cmocka_unit_test(test_pages_are_shared),
        cmocka_unit_test(test_precisions_keep_their_cosine),
        cmocka_unit_test(test_mapped_is_as_copied),
        cmocka_unit_test(test_weights_are_not_read),
        cmocka_unit_test(test_weights_where_they_lie),
        cmocka_unit_test(test_other_weights_are_noticed),
        cmocka_unit_test(test_a_copied_directory),
        cmocka_unit_test(test_damage_is_not_used),
        cmocka_unit_test(test_holes_are_named),
        cmocka_unit_test(test_read_only_directory),
    };
    return cmocka_run_group_tests(tests, listen_and_make_root, fixture_remove_root);
}
