/* SPDX-License-Identifier: Apache-2.0 */
/* ZeRO between processes that mpirun starts: every stage has the losses, weights and moments of
 * stage 0 to the bit, and a rank's states the bytes that they should.  The program is its own
 * ranks: test_zero SCENARIO. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "fusion/trainer_fixture.h"

enum { STEPS = 2, STAGES = 4 };

/* ---- as a rank ----------------------------------------------------------------------------- */

typedef struct setting {
    const char *name, *model;
    tess_precision precision;
    tess_dtype grad_dtype;
    tess_recompute recompute;
    int64_t accumulate;
    size_t overlap_bytes;
    bool lock_text, stochastic;
} setting;

static const setting settings[] = {
    {.name = "f32", .model = "tok_last", .precision = TESS_PRECISION_F32},
    {.name = "f32, recompute, everything at once",
     .model = "tok_last",
     .precision = TESS_PRECISION_F32,
     .overlap_bytes = (size_t)1 << 30,
     .recompute = TESS_RECOMPUTE_FULL},
    {.name = "bf16", .model = "avg_mean", .precision = TESS_PRECISION_BF16},
    {.name = "bf16 with bf16 gradients, selective recompute",
     .model = "tok_last",
     .precision = TESS_PRECISION_BF16,
     .grad_dtype = TESS_BF16,
     .overlap_bytes = 40000,
     .recompute = TESS_RECOMPUTE_SELECTIVE},
    {.name = "bf16, rounded by chance, a frozen tower",
     .model = "tok_mean_sigmoid",
     .precision = TESS_PRECISION_BF16,
     .grad_dtype = TESS_BF16,
     .recompute = TESS_RECOMPUTE_FULL,
     .overlap_bytes = 9000,
     .lock_text = true,
     .stochastic = true},
    {.name = "accumulated", .model = "tok_last", .precision = TESS_PRECISION_BF16, .accumulate = 2},
};

/* What a stage came to. */
typedef struct result {
    float loss[STEPS], norm[STEPS];
    uint64_t hash; /* of all weights, masters and moments, whole */
    tess_trainer_account bytes;
    int64_t n_split, n_whole; /* elements */
    int64_t wire;             /* bytes that a step sends */
} result;

/* An entry, gathered from all ranks. */
static uint64_t hash_entry(tess_comm *c, const tess_store *s, const char *group, int64_t i,
                           uint64_t hash)
{
    float *data;
    tess_shape shape;
    const char *name = tess_store_entry(s, group, i, &data, &shape);
    const tess_held held = tess_store_held(s, group, name);
    const int64_t n = tess_shape_count(&shape);
    const int64_t width = (int64_t)tess_dtype_bytes(tess_store_dtype(s, group));
    if (!held.split) {
        return tess_hash64(data, (size_t)(n * width), hash);
    }
    int64_t counts[8];
    const int ranks = tess_comm_size(c);
    for (int r = 0; r < ranks; r++) {
        counts[r] = (tess_shard_begin(n, r + 1, ranks) - tess_shard_begin(n, r, ranks)) * width;
    }
    void *whole = tess_alloc((size_t)(n * width) + 1);
    assert_non_null(whole);
    ok(tess_comm_all_gather(c, data, counts, whole));
    hash = tess_hash64(whole, (size_t)(n * width), hash);
    tess_free(whole);
    return hash;
}

static void hash_states(tess_comm *c, const tess_store *s, result *out)
{
    static const char *const groups[] = {"param", "half", "m", "v"};
    for (int64_t g = 0; g < TESS_COUNT(groups); g++) {
        for (int64_t i = 0; i < tess_store_n_entries(s, groups[g]); i++) {
            out->hash = hash_entry(c, s, groups[g], i, out->hash);
        }
    }
    for (int64_t i = 0; i < tess_store_n_entries(s, "m"); i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(s, "m", i, &data, &shape);
        const bool split = tess_store_held(s, "m", name).split;
        *(split ? &out->n_split : &out->n_whole) += tess_shape_count(&shape);
    }
}

/* Each rank's pictures are its own. */
static uint8_t *own_pictures(tess_comm *c, const tess_model *m)
{
    const size_t n = (size_t)(PICTURES * 3 * tess_model_image_size(m) * tess_model_image_size(m));
    uint8_t *own = tess_alloc(n);
    assert_non_null(own);
    for (size_t i = 0; i < n; i++) {
        own[i] = (uint8_t)(batch.pictures[i] + 41 * tess_comm_rank(c));
    }
    return own;
}

static void train(tess_comm *c, const setting *w, int stage, result *out)
{
    tess_trainer_options o = fixture_options();
    o.comm = c;
    o.zero = stage;
    o.overlap_bytes = w->overlap_bytes;
    o.grad_dtype = w->grad_dtype;
    o.recompute = w->recompute;
    o.accumulate = w->accumulate ? w->accumulate : 1;
    o.lock_text = w->lock_text;
    o.stochastic_rounding = w->stochastic;
    run r = run_start(w->model, &o, w->precision, NULL);
    uint8_t *pictures = own_pictures(c, r.m);
    tess_micro_batch b = fixture_micro_batch(&batch);
    b.pictures = pictures;
    for (int step = 0; step < STEPS; step++) {
        const int64_t before = tess_comm_wire_bytes(c);
        for (int64_t i = 0; i < o.accumulate; i++) {
            ok(tess_trainer_micro_step(r.t, &b, &out->loss[step]));
        }
        ok(tess_trainer_update(r.t, 1e-3, step + 1, &out->norm[step]));
        out->wire = tess_comm_wire_bytes(c) - before;
    }
    hash_states(c, tess_model_store(r.m), out);
    tess_trainer_count_states(r.t, &out->bytes);
    run_stop(&r);
    tess_free(pictures);
}

static bool near_to(size_t have, int64_t want)
{
    /* Ranges are in units of 16 elements, and so are entries: a tiny model's are short. */
    return (double)have > 0.98 * (double)want - 1e4 && (double)have < 1.02 * (double)want + 1e4;
}

/* 16 (12 + 4) bytes a weight, of what is split a part. */
static bool bytes_are_right(const setting *w, int stage, int ranks, const result *r)
{
    const bool narrow = w->precision == TESS_PRECISION_BF16;
    const int64_t grad = (int64_t)tess_dtype_bytes(w->grad_dtype), n = r->n_split, k = r->n_whole;
    const int64_t weight = narrow ? 2 : 4;
    return w->lock_text ||
           (near_to(r->bytes.weights, k * weight + n * weight / (stage >= 3 ? ranks : 1)) &&
            near_to(r->bytes.gradients, k * grad + n * grad / (stage >= 2 ? ranks : 1)) &&
            near_to(r->bytes.moments, 8 * (k + n / (stage >= 1 ? ranks : 1))) &&
            near_to(r->bytes.masters, narrow ? 4 * (k + n / (stage >= 1 ? ranks : 1)) : 0));
}

/* Where weights and gradients are of one type, stages send alike, and stage 3 half as much again:
 * it gathers weights once more, but for tables, which the backward pass does not read. */
static bool wire_is_right(const setting *w, int stage, const result *first, const result *r)
{
    const bool one_type = (w->precision == TESS_PRECISION_BF16) == (w->grad_dtype == TESS_BF16);
    const double ratio = (double)r->wire / (double)first->wire;
    return !one_type || w->lock_text ||
           (stage < 3 ? ratio > 0.95 && ratio < 1.05 : ratio > 1.2 && ratio < 1.52);
}

static bool near_enough(const result *a, const result *b)
{
    bool near = true;
    for (int i = 0; i < STEPS; i++) {
        near = near && fabsf(a->loss[i] - b->loss[i]) <= 2e-3f * fabsf(a->loss[i]) &&
               fabsf(a->norm[i] - b->norm[i]) <= 2e-2f * fabsf(a->norm[i]);
    }
    return near;
}

static int check_setting(tess_comm *c, const setting *w)
{
    result all[STAGES] = {0};
    int failed = 0;
    for (int stage = 0; stage < STAGES; stage++) {
        result *r = &all[stage];
        train(c, w, stage, r);
        /* Sums over ranks and micro-steps: 0 and 1 add up micro-steps first, 2 and 3 ranks. */
        const result *like = w->accumulate > 1 && stage >= 2 ? &all[2] : &all[0];
        const bool same = r->hash == like->hash &&
                          memcmp(r->loss, like->loss, sizeof r->loss) == 0 &&
                          memcmp(r->norm, like->norm, sizeof r->norm) == 0;
        if (!same || !near_enough(&all[0], r) || !wire_is_right(w, stage, &all[0], r) ||
            !bytes_are_right(w, stage, tess_comm_size(c), r)) {
            printf("%s: stage %d sends %lld of %lld: loss %a norm %a hash %016llx; %zu %zu %zu %zu "
                   "bytes of %lld and "
                   "%lld\n",
                   w->name, stage, (long long)r->wire, (long long)all[0].wire,
                   (double)r->loss[STEPS - 1], (double)r->norm[STEPS - 1],
                   (unsigned long long)r->hash, r->bytes.weights, r->bytes.gradients,
                   r->bytes.masters, r->bytes.moments, (long long)r->n_split,
                   (long long)r->n_whole);
            failed++;
        }
    }
    return failed;
}

/* All settings, or the first and each fourth after it. */
static int run_rank(bool few)
{
    tess_comm *c = NULL;
    int failed = 0;
    tess_compute_threads(1);
    ok(tess_comm_open(NULL, &c));
    fixture_open(&batch);
    for (int64_t i = 0; i < TESS_COUNT(settings); i += few ? 4 : 1) {
        failed += check_setting(c, &settings[i]);
    }
    if (!failed) {
        printf("rank %d of %d: ok\n", tess_comm_rank(c), tess_comm_size(c));
    }
    tess_tensors_free(batch.file);
    tess_comm_close(c);
    return failed > 0;
}

/* ---- as the test --------------------------------------------------------------------------- */

static void check_ranks(int n, const char *what)
{
    char command[1024], self[512] = "", said[16384] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(command, sizeof command,
             "exec timeout -s KILL 250 mpirun --oversubscribe --bind-to none -n %d '%s' %s 2>&1", n,
             self, what);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = '\0';
    const int status = pclose(f);
    int n_ok = 0;
    for (const char *at = strstr(said, ": ok\n"); at; at = strstr(at + 1, ": ok\n")) {
        n_ok++;
    }
    if (status != 0 || n_ok != n) {
        fail_msg("%d ranks: status %d: %s", n, status, said);
    }
}

static void test_two_ranks(void **state)
{
    (void)state;
    check_ranks(2, "all");
}

static void test_three_ranks(void **state)
{
    (void)state;
    check_ranks(3, "few");
}

static void test_refusals(void **state)
{
    (void)state;
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_F32);
    tess_trainer_options o = fixture_options();
    tess_trainer *t = NULL;
    o.zero = 4;
    assert_int_equal(tess_trainer_new(m, &o, &t), TESS_INVALID);
    o.zero = 1;
    o.muon = true;
    assert_int_equal(tess_trainer_new(m, &o, &t), TESS_UNSUPPORTED);
    assert_non_null(strstr(tess_error(), "with Muon use --zero 0"));
    o.muon = false;
    o.zero = 0;
    o.grad_dtype = TESS_I32;
    assert_int_equal(tess_trainer_new(m, &o, &t), TESS_INVALID);
    tess_model_free(m);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        return run_rank(strcmp(argv[1], "few") == 0);
    }
    setenv("OMPI_MCA_plm", "isolated", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_two_ranks),
        cmocka_unit_test(test_three_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
