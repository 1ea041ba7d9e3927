/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding pictures, asked for piece by piece.
 *
 *     gpu_embed CONFIG PRECISION DEVICE BATCH DATA
 *
 * "pictures N" embeds DATA/pictures.u8 (B,S,S,3) N times, from the host's memory to vectors there;
 * "jpeg N" every picture of the folder DATA/jpeg N times, from files to vectors: read, decode,
 * resize, embed, as `tessera index build` does.  "vectors 1" answers with the first numbers of the
 * vectors of `pictures`, for a comparison. */
#include "gpu_model.h"
#include "gpu_side.h"

#include "train/eval_pictures.h"

enum { SHOWN = 16 };

typedef struct side {
    tess_model *model;
    const uint8_t *pictures;
    const char *data;
    int64_t batch;
    float *out;
} side;

static tess_status embed_folder(const side *s, int64_t *out_n)
{
    char path[4096];
    tess_pipeline p = tess_model_pipeline(s->model);
    const tess_hooks hooks = tess_pipeline_hooks(&p);
    const int workers = tess_cpu_count();
    const tess_dataset_options d = {.captions_optional = true, .hooks = &hooks};
    tess_dataset *ds = NULL;
    snprintf(path, sizeof path, "%s/jpeg", s->data);
    TESS_TRY(tess_dataset_open(path, &d, &ds));
    const int64_t n = tess_dataset_size(ds);
    float *out = tess_alloc_array((size_t)(n * tess_model_embed_dim(s->model)), sizeof *out);
    bool *ok = tess_alloc_array((size_t)n, sizeof *ok);
    tess_status st = out && ok ? TESS_OK : TESS_NOMEM;
    st = st ? st : tess__eval_pictures(s->model, ds, &hooks, workers, NULL, NULL, out, ok, NULL);
    for (int64_t i = 0; st == TESS_OK && i < n; i++) {
        st = ok[i] ? TESS_OK : TESS_FAIL(TESS_FORMAT, "%s: a picture could not be read", path);
    }
    tess_free(out);
    tess_free(ok);
    tess_dataset_close(ds);
    *out_n = n;
    return st;
}

static tess_status answer(void *ctx, const char *name, int64_t n)
{
    const side *s = ctx;
    const bool folder = strcmp(name, "jpeg") == 0;
    int64_t n_pictures = s->batch;
    if (strcmp(name, "vectors") == 0) {
        TESS_TRY(tess_model_embed_pictures(s->model, s->pictures, s->batch, s->out));
        for (int i = 0; i < SHOWN; i++) {
            printf("%s%.6f", i ? ", " : "[", (double)s->out[i]);
        }
        printf("]");
        return TESS_OK;
    }
    if (!folder && strcmp(name, "pictures") != 0) {
        return TESS_FAIL(TESS_INVALID, "no case is called %.20s", name);
    }
    const double begin = tess_seconds();
    for (int64_t i = 0; i < n; i++) {
        TESS_TRY(folder ? embed_folder(s, &n_pictures)
                        : tess_model_embed_pictures(s->model, s->pictures, s->batch, s->out));
    }
    printf("{\"ms\": %.4f, \"pictures\": %lld}", 1e3 * (tess_seconds() - begin) / (double)n,
           (long long)n_pictures);
    return TESS_OK;
}

static tess_status run(side *s, char **a)
{
    tess_precision precision = TESS_PRECISION_AUTO;
    const tess_device *device;
    const void *pictures;
    TESS_TRY(side_precision(a[2], &precision));
    TESS_TRY(tess_device_open(a[3], &device));
    TESS_TRY(side_model(a[1], precision, &s->model));
    TESS_TRY(tess_model_embed_on(s->model, device));
    const size_t size = (size_t)tess_model_image_size(s->model);
    TESS_TRY(side_map(s->data, "pictures.u8", (size_t)s->batch * size * size * 3, &pictures));
    s->pictures = pictures;
    s->out = tess_alloc_array((size_t)(s->batch * tess_model_embed_dim(s->model)), sizeof(float));
    if (!s->out) {
        return TESS_NOMEM;
    }
    printf("{\"mode\": \"%s\"}\n", tess_model_mode(s->model));
    fflush(stdout);
    return side_serve(s, answer);
}

int main(int argc, char **argv)
{
    side s = {0};
    if (argc != 6 || !(s.batch = side_count(argv[4]))) {
        fprintf(stderr, "usage: gpu_embed CONFIG PRECISION DEVICE BATCH DATA\n");
        return 2;
    }
    s.data = argv[5];
    tess_compute_threads(0);
    const tess_status st = run(&s, argv);
    tess_model_free(s.model);
    tess_free(s.out);
    return side_end("gpu_embed", st);
}
