/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks hold of a training's states, by the store's own allocations, and what they send in a
 * step, for each ZeRO stage; started by mpirun.
 *
 *   zero CONFIG TOKENIZER BATCH TOKENS STEPS OVERLAP_MB
 *
 * Weights in bf16 with f32 masters, gradients in bf16.  Pictures and captions are noise.  One JSON
 * line a stage, by rank 0. */
#include <stdlib.h>
#include <string.h>

#include "tessera/fusion.h"

enum { STAGES = 4, MAX_STEPS = 16, MAX_RANKS = 64 };

/* Of one rank. */
typedef struct figures {
    int64_t weights, gradients, masters, moments, states; /* bytes */
    int64_t wire;                                         /* bytes of a step */
    int64_t workspace;                                    /* bytes of the plans' memory */
} figures;

typedef struct setting {
    const char *config, *tokenizer;
    int64_t batch, tokens, steps, overlap;
    tess_comm *comm;
    tess_micro_batch b;
} setting;

static tess_status fill(setting *s, const tess_model *m)
{
    const int64_t side = tess_model_image_size(m), n = s->batch * s->tokens;
    uint8_t *pictures = tess_alloc((size_t)(s->batch * side * side * 3));
    int32_t *ids = tess_alloc_array((size_t)(2 * n), sizeof *ids);
    int32_t *offsets = tess_alloc_array((size_t)s->batch + 1, sizeof *offsets);
    if (!pictures || !ids || !offsets) {
        return TESS_NOMEM;
    }
    tess_rng r = tess_rng_at(1, (uint64_t)tess_comm_rank(s->comm));
    for (int64_t i = 0; i < s->batch * side * side * 3; i++) {
        pictures[i] = (uint8_t)tess_rng_below(&r, 256);
    }
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(4 + tess_rng_below(&r, 1000));
        ids[n + i] = (int32_t)(i % s->tokens);
        offsets[i / s->tokens + 1] = (int32_t)((i / s->tokens + 1) * s->tokens);
    }
    s->b = (tess_micro_batch){.pictures = pictures,
                              .n_tokens = n,
                              .tokens = ids,
                              .positions = ids + n,
                              .offsets = offsets};
    return TESS_OK;
}

static tess_status steps(const setting *s, tess_trainer *t, figures *out, double *seconds)
{
    for (int64_t i = 0; i < s->steps; i++) {
        const int64_t before = tess_comm_wire_bytes(s->comm);
        const double start = tess_seconds();
        TESS_TRY(tess_trainer_micro_step(t, &s->b, NULL));
        TESS_TRY(tess_trainer_update(t, 1e-4, i + 1, &(float){0}));
        seconds[i] = tess_seconds() - start;
        out->wire = tess_comm_wire_bytes(s->comm) - before;
    }
    out->workspace = (int64_t)tess_trainer_memory(t);
    return TESS_OK;
}

static void print_sides(const char *name, const figures *all, int ranks, size_t at)
{
    int64_t sum = 0, most = 0;
    for (int r = 0; r < ranks; r++) {
        int64_t x;
        memcpy(&x, (const char *)&all[r] + at, sizeof x);
        sum += x;
        most = x > most ? x : most;
    }
    printf(", \"%s\": {\"mean\": %lld, \"most\": %lld}", name, (long long)(sum / ranks),
           (long long)most);
}

static void print_figures(const setting *s, int stage, const tess_model *m, const figures *all,
                          const double *seconds)
{
    const int ranks = tess_comm_size(s->comm);
    printf("{\"ranks\": %d, \"stage\": %d, \"parameters\": %lld", ranks, stage,
           (long long)tess_model_n_params(m));
    print_sides("weights", all, ranks, offsetof(figures, weights));
    print_sides("gradients", all, ranks, offsetof(figures, gradients));
    print_sides("masters", all, ranks, offsetof(figures, masters));
    print_sides("moments", all, ranks, offsetof(figures, moments));
    print_sides("states", all, ranks, offsetof(figures, states));
    print_sides("wire", all, ranks, offsetof(figures, wire));
    print_sides("workspace", all, ranks, offsetof(figures, workspace));
    printf(", \"step_s\": [");
    for (int64_t i = 0; i < s->steps; i++) {
        printf("%s%.4f", i ? ", " : "", seconds[i]);
    }
    printf("]}\n");
    fflush(stdout);
}

static tess_status measure(setting *s, tess_model *m, tess_trainer *t, int stage)
{
    figures mine = {0}, all[MAX_RANKS];
    int64_t counts[MAX_RANKS];
    double seconds[MAX_STEPS];
    tess_trainer_account a = {0};
    TESS_TRY(fill(s, m));
    TESS_TRY(steps(s, t, &mine, seconds));
    tess_trainer_count_states(t, &a);
    mine.weights = (int64_t)a.weights;
    mine.gradients = (int64_t)a.gradients;
    mine.masters = (int64_t)a.masters;
    mine.moments = (int64_t)a.moments;
    mine.states = mine.weights + mine.gradients + mine.masters + mine.moments;
    for (int r = 0; r < tess_comm_size(s->comm); r++) {
        counts[r] = sizeof mine;
    }
    TESS_TRY(tess_comm_all_gather(s->comm, &mine, counts, all));
    if (tess_comm_rank(s->comm) == 0) {
        print_figures(s, stage, m, all, seconds);
    }
    tess_free((void *)(uintptr_t)s->b.pictures);
    tess_free((void *)(uintptr_t)s->b.tokens);
    tess_free((void *)(uintptr_t)s->b.offsets);
    return TESS_OK;
}

static tess_status run_stage(setting *s, int stage)
{
    tess_model *m = NULL;
    tess_trainer *t = NULL;
    TESS_TRY(tess_model_new(s->config, s->tokenizer, 1, TESS_PRECISION_BF16, &m));
    tess_status st =
        tess_trainer_new(m,
                         &(tess_trainer_options){.batch = s->batch,
                                                 .captions_per_image = 1,
                                                 .accumulate = 1,
                                                 .beta1 = 0.9f,
                                                 .beta2 = 0.98f,
                                                 .eps = 1e-6f,
                                                 .comm = s->comm,
                                                 .zero = stage,
                                                 .overlap_bytes = (size_t)s->overlap << 20,
                                                 .grad_dtype = TESS_BF16},
                         &t);
    st = st ? st : measure(s, m, t, stage);
    tess_trainer_free(t);
    tess_model_free(m);
    return st;
}

static tess_status run(char **a)
{
    setting s = {.config = a[1],
                 .tokenizer = a[2],
                 .batch = atoll(a[3]),
                 .tokens = atoll(a[4]),
                 .steps = atoll(a[5]),
                 .overlap = atoll(a[6])};
    TESS_TRY(s.steps >= 1 && s.steps <= MAX_STEPS ? TESS_OK : TESS_INVALID);
    TESS_TRY(tess_comm_open(NULL, &s.comm));
    tess_status st = tess_comm_size(s.comm) <= MAX_RANKS ? TESS_OK : TESS_INVALID;
    for (int stage = 0; st == TESS_OK && stage < (tess_comm_size(s.comm) > 1 ? STAGES : 1);
         stage++) {
        st = run_stage(&s, stage);
    }
    tess_comm_close(s.comm);
    return st;
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "zero CONFIG TOKENIZER BATCH TOKENS STEPS OVERLAP_MB\n");
        return 2;
    }
    tess_compute_threads(1);
    if (run(argv) != TESS_OK) {
        fprintf(stderr, "zero: %s\n", tess_error());
        return 1;
    }
    return 0;
}
