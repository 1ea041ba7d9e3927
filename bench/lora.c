/* SPDX-License-Identifier: Apache-2.0 */
/* What a training step of a model holds in memory and takes, with all weights trained or with an
 * adapter.
 *
 *   lora MODEL_DIR BATCH TOKENS RANK TARGET RECOMPUTE STEPS bf16|f32
 *
 * RANK 0: all weights.  RECOMPUTE: a tess_recompute (1: blocks, 2: activations).
 *
 * Pictures and captions are noise: they decide neither.  One JSON line. */
#include "tessera/fusion.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Of group "param": what a frozen base holds in group "half" alone.  Where all weights are trained
 * their f32 masters stay beside it. */
static double given_up(const tess_model *m)
{
    int64_t n = 0;
    if (tess_model_has_adapters(m)) {
        tess_store_group(tess_model_store(m), "half", &n);
    }
    return (double)n * sizeof(float);
}

static double states_bytes(const tess_model *m)
{
    static const char *const groups[] = {"param", "half", "lora", "grad", "m", "v"};
    double sum = 0;
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        int64_t n;
        tess_store_group(tess_model_store(m), groups[i], &n);
        sum +=
            (double)n * (double)tess_dtype_bytes(tess_store_dtype(tess_model_store(m), groups[i]));
    }
    return sum - given_up(m);
}

static void fill(tess_micro_batch *b, int64_t batch, int64_t tokens, int64_t side)
{
    const size_t n_pixels = (size_t)(batch * side * side * 3);
    uint8_t *pictures = tess_alloc(n_pixels);
    int32_t *ids = tess_alloc_array((size_t)(2 * batch * tokens), sizeof *ids);
    int32_t *offsets = tess_alloc_array((size_t)batch + 1, sizeof *offsets);
    tess_rng r = tess_rng_at(1, 0);
    for (size_t i = 0; pictures && i < n_pixels; i++) {
        pictures[i] = (uint8_t)tess_rng_u32(&r);
    }
    for (int64_t i = 0; ids && offsets && i < batch * tokens; i++) {
        ids[i] = (int32_t)(4 + tess_rng_below(&r, 1000));
        ids[batch * tokens + i] = (int32_t)(i % tokens);
        offsets[i / tokens + 1] = (int32_t)((i / tokens + 1) * tokens);
    }
    *b = (tess_micro_batch){.pictures = pictures,
                            .n_tokens = batch * tokens,
                            .tokens = ids,
                            .positions = ids + batch * tokens,
                            .offsets = offsets};
}

static tess_status measure(char **a)
{
    const int64_t batch = atoll(a[2]), tokens = atoll(a[3]), rank = atoll(a[4]);
    const int64_t steps = atoll(a[7]);
    const tess_precision precision =
        strcmp(a[8], "bf16") == 0 ? TESS_PRECISION_BF16 : TESS_PRECISION_F32;
    tess_model *m = NULL;
    tess_trainer *t = NULL;
    TESS_TRY(tess_model_open(a[1], precision, &m));
    if (rank > 0) {
        TESS_TRY(tess_model_add_lora(m, &(tess_lora_options){.rank = rank, .target = a[5]}, 1));
        TESS_TRY(tess_model_narrow(m));
    }
    TESS_TRY(tess_trainer_new(m,
                              &(tess_trainer_options){.batch = batch,
                                                      .captions_per_image = 1,
                                                      .accumulate = 1,
                                                      .beta1 = 0.9f,
                                                      .beta2 = 0.98f,
                                                      .eps = 1e-6f,
                                                      .recompute = (tess_recompute)atoi(a[6])},
                              &t));
    tess_micro_batch b;
    fill(&b, batch, tokens, tess_model_image_size(m));
    float loss = 0, norm = 0;
    double best = 1e9;
    for (int64_t i = 1; i <= steps; i++) {
        const double start = tess_seconds();
        TESS_TRY(tess_trainer_micro_step(t, &b, &loss));
        TESS_TRY(tess_trainer_update(t, 1e-5, i, &norm));
        const double seconds = tess_seconds() - start;
        best = seconds < best ? seconds : best;
    }
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    printf("{\"parameters\": %lld, \"states_mb\": %.1f, \"workspace_mb\": %.1f, \"peak_rss_mb\": "
           "%.1f, \"step_s\": %.3f, \"precision\": \"%s\"}\n",
           (long long)tess_model_n_params(m), states_bytes(m) / 1e6,
           (double)tess_trainer_memory(t) / 1e6, (double)use.ru_maxrss * 1024 / 1e6, best,
           tess_dtype_name(tess_model_dtype(m)));
    return TESS_OK; /* the process ends here */
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr, "lora MODEL_DIR BATCH TOKENS RANK TARGET RECOMPUTE STEPS bf16|f32\n");
        return 2;
    }
    tess_compute_threads(0);
    if (measure(argv) != TESS_OK) {
        fprintf(stderr, "lora: %s\n", tess_error());
        return 1;
    }
    return 0;
}
