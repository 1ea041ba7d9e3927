/* SPDX-License-Identifier: Apache-2.0 */
/* Training steps of two towers, asked for piece by piece so that PyTorch can take turns.
 *
 *     gpu_train make CONFIG FILE       seeded weights, as safetensors: what both sides start from
 *     gpu_train run CONFIG PRECISION DEVICE BATCH DATA
 *
 * DATA holds pictures.u8 (B,S,S,3) and, for each CASE, CASE.tokens (B,T) i32 and CASE.lengths (B)
 * i32: captions and how many of their T tokens there are.  A token behind the end is never made.
 * "CASE N" answers N steps' mean time and their losses; "start-CASE N" the same from the seeded
 * weights on.  A step is towers, loss, gradients and AdamW; the batch is copied to the device in
 * each, and nobody waits but for the last. */
#include "gpu_model.h"
#include "gpu_side.h"

typedef struct side {
    const char *config, *data;
    tess_precision precision;
    const tess_device *device;
    int64_t batch;
    tess_model *model;
    tess_trainer *trainer;
    int64_t step, n_losses;
    const uint8_t *pictures;
    int32_t *tokens, *positions, *offsets;
} side;

static void stop(side *s)
{
    tess_trainer_free(s->trainer);
    tess_model_free(s->model);
    s->trainer = NULL;
    s->model = NULL;
}

static tess_status start(side *s)
{
    stop(s);
    s->step = 0;
    TESS_TRY(side_model(s->config, s->precision, &s->model));
    tess_model_use(s->model, s->device);
    const tess_trainer_options o = {.batch = s->batch,
                                    .captions_per_image = 1,
                                    .accumulate = 1,
                                    .beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-6f,
                                    .weight_decay = 0.2f};
    return tess_trainer_new(s->model, &o, &s->trainer);
}

/* The captions of a case, end to end. */
static tess_status load(side *s, const char *name)
{
    const int64_t b = s->batch, t = tess_model_context_length(s->model);
    const void *tokens, *lengths;
    char file[64];
    snprintf(file, sizeof file, "%.31s.tokens", name);
    TESS_TRY(side_map(s->data, file, (size_t)(b * t) * sizeof(int32_t), &tokens));
    snprintf(file, sizeof file, "%.31s.lengths", name);
    TESS_TRY(side_map(s->data, file, (size_t)b * sizeof(int32_t), &lengths));
    int64_t at = 0;
    for (int64_t i = 0; i < b; i++) {
        const int64_t n = ((const int32_t *)lengths)[i];
        if (n < 1 || n > t) {
            return TESS_FAIL(TESS_FORMAT, "%s: expected lengths of 1 to %lld, found %lld", file,
                             (long long)t, (long long)n);
        }
        memcpy(s->tokens + at, (const int32_t *)tokens + i * t, (size_t)n * sizeof(int32_t));
        for (int64_t k = 0; k < n; k++) {
            s->positions[at + k] = (int32_t)k;
        }
        at += n;
        s->offsets[i + 1] = (int32_t)at;
    }
    return TESS_OK;
}

/* Prints the losses that have arrived; with `wait` all. */
static tess_status take_losses(side *s, bool wait)
{
    tess_step_result r;
    do {
        TESS_TRY(tess_trainer_read(s->trainer, wait, &r));
        if (r.step > 0) {
            printf("%s%.6f", s->n_losses++ > 0 ? ", " : "", (double)r.loss);
        }
    } while (r.step > 0);
    return TESS_OK;
}

static tess_status answer(void *ctx, const char *name, int64_t n)
{
    side *s = ctx;
    const bool from_start = strncmp(name, "start-", 6) == 0;
    if (from_start) {
        TESS_TRY(start(s));
    }
    TESS_TRY(load(s, name + (from_start ? 6 : 0)));
    const tess_micro_batch b = {.pictures = s->pictures,
                                .n_tokens = s->offsets[s->batch],
                                .tokens = s->tokens,
                                .positions = s->positions,
                                .offsets = s->offsets};
    const double begin = tess_seconds();
    s->n_losses = 0;
    printf("{\"losses\": [");
    for (int64_t i = 0; i < n; i++) {
        TESS_TRY(tess_trainer_micro_step(s->trainer, &b, NULL));
        TESS_TRY(tess_trainer_update(s->trainer, 1e-4, ++s->step, NULL));
        TESS_TRY(take_losses(s, false));
    }
    TESS_TRY(take_losses(s, true));
    printf("], \"ms\": %.4f, \"gflop\": %.3f, \"workspace_mb\": %.1f}",
           1e3 * (tess_seconds() - begin) / (double)n, tess_trainer_flops(s->trainer) / 1e9,
           (double)tess_trainer_memory(s->trainer) / 1e6);
    return TESS_OK;
}

static tess_status run(side *s, char **a)
{
    TESS_TRY(side_precision(a[1], &s->precision));
    TESS_TRY(tess_device_open(a[2], &s->device));
    TESS_TRY(start(s));
    const int64_t size = tess_model_image_size(s->model), t = tess_model_context_length(s->model);
    const void *pictures;
    TESS_TRY(side_map(s->data, "pictures.u8", (size_t)(s->batch * size * size * 3), &pictures));
    s->pictures = pictures;
    s->tokens = tess_alloc_array((size_t)(s->batch * t), sizeof *s->tokens);
    s->positions = tess_alloc_array((size_t)(s->batch * t), sizeof *s->positions);
    s->offsets = tess_alloc_array((size_t)s->batch + 1, sizeof *s->offsets);
    if (!s->tokens || !s->positions || !s->offsets) {
        return TESS_NOMEM;
    }
    s->offsets[0] = 0;
    printf("{\"parameters\": %lld, \"precision\": \"%s\"}\n",
           (long long)tess_model_n_params(s->model), a[1]);
    fflush(stdout);
    return side_serve(s, answer);
}

static tess_status make(const char *config, const char *path)
{
    tess_model *m = NULL;
    TESS_TRY(side_model(config, TESS_PRECISION_F32, &m));
    const tess_store *s = tess_model_store(m);
    const int64_t n = tess_store_n_entries(s, "param");
    tess_tensor *tensors = tess_alloc_array((size_t)n, sizeof *tensors);
    tess_status st = tensors ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < n; i++) {
        float *x;
        tensors[i].name = tess_store_entry(s, "param", i, &x, &tensors[i].shape);
        tensors[i].dtype = "F32";
        tensors[i].data = (const uint8_t *)x;
        tensors[i].n_bytes = (size_t)tess_shape_count(&tensors[i].shape) * sizeof *x;
    }
    st = st ? st : tess_tensors_save(path, tensors, n, NULL, 0);
    tess_free(tensors);
    tess_model_free(m);
    return st;
}

int main(int argc, char **argv)
{
    side s = {0};
    tess_compute_threads(0);
    if (argc == 4 && strcmp(argv[1], "make") == 0) {
        return side_end("gpu_train", make(argv[2], argv[3]));
    }
    if (argc != 7 || strcmp(argv[1], "run") != 0 || !(s.batch = side_count(argv[5]))) {
        fprintf(stderr, "usage: gpu_train make CONFIG FILE | run CONFIG PRECISION DEVICE BATCH "
                        "DATA\n");
        return 2;
    }
    s.config = argv[2];
    s.data = argv[6];
    const tess_status st = run(&s, argv + 2);
    stop(&s);
    tess_free(s.tokens);
    tess_free(s.positions);
    tess_free(s.offsets);
    return side_end("gpu_train", st);
}
