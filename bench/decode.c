/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures per second from bytes to a normalised (3,S,S) f32 array: decode, resize, crop,
 * normalise.
 *
 *     bench/decode FOLDER [THREADS [SECONDS [SIZE]]]
 *
 * All files of the folder are read into memory first.  Each thread takes every THREADS-th picture,
 * round and round, for SECONDS; rates are summed.  Prints one line of JSON, with the sum of one
 * (untimed) pass's outputs, so that a rival can be held to the same result.  bench/decode_pillow.py
 * makes the pictures and runs both sides.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tessera/vision.h"

enum { MAX_THREADS = 256, MAX_FILE_BYTES = 1 << 28 };

typedef struct corpus {
    tess_bytes *files;
    size_t n_files;
    size_t n_bytes;
} corpus;

typedef struct worker {
    pthread_t thread;
    const corpus *corpus;
    const tess_preprocess *preprocess;
    size_t first, step;
    double seconds, rate, sum;
    int64_t n_pixels;
    pthread_barrier_t *barrier;
    tess_status status;
} worker;

static tess_status load(const char *folder, corpus *out)
{
    tess_names names = {0};
    TESS_TRY(tess_dir_list(folder, true, &names));
    out->files = tess_alloc_array(names.n_names, sizeof *out->files);
    for (size_t i = 0; i < names.n_names; i++) {
        char *path = tess_format("%s/%s", folder, names.names[i]);
        uint8_t *data = NULL;
        TESS_TRY(tess_file_read(path, MAX_FILE_BYTES, &data, &out->files[i].n_bytes));
        out->files[i].data = data;
        out->n_bytes += out->files[i].n_bytes;
        tess_free(path);
    }
    out->n_files = names.n_names;
    tess_names_deinit(&names);
    return out->n_files ? TESS_OK : TESS_FAIL(TESS_INVALID, "%s: no files", folder);
}

typedef struct scratch {
    tess_resizer *resizer;
    tess_picture picture;
    uint8_t *bytes;
    float *out;
} scratch;

static tess_status one(const worker *w, size_t i, scratch *s)
{
    tess_bytes file = w->corpus->files[i % w->corpus->n_files];
    TESS_TRY(tess_picture_decode(file.data, file.n_bytes, NULL, &s->picture));
    TESS_TRY(tess_transform_apply(s->resizer, w->preprocess, &s->picture, s->bytes));
    tess_transform_normalize(w->preprocess, s->bytes, s->out);
    return TESS_OK;
}

/* One pass that is summed and not timed, then the loop that is timed. */
static tess_status loop(worker *w, scratch *s, size_t n)
{
    for (size_t i = w->first; i < w->corpus->n_files; i += w->step) {
        TESS_TRY(one(w, i, s));
        w->n_pixels += (int64_t)s->picture.width * s->picture.height;
        for (size_t k = 0; k < n; k++) {
            w->sum += s->out[k];
        }
    }
    pthread_barrier_wait(w->barrier);
    int64_t n_done = 0;
    double start = tess_seconds(), now = start;
    for (size_t i = w->first; now - start < w->seconds; i += w->step, n_done++) {
        TESS_TRY(one(w, i, s));
        now = tess_seconds();
    }
    w->rate = (double)n_done / (now - start);
    return TESS_OK;
}

static void *run(void *ctx)
{
    worker *w = ctx;
    size_t n = 3 * (size_t)w->preprocess->width * (size_t)w->preprocess->height;
    scratch s = {.resizer = tess_resizer_new(),
                 .bytes = tess_alloc(n),
                 .out = tess_alloc_array(n, sizeof *s.out)};
    w->status = s.resizer && s.bytes && s.out ? loop(w, &s, n) : TESS_NOMEM;
    if (w->status != TESS_OK) { /* the others would wait at the barrier for ever */
        fprintf(stderr, "decode: %s\n", tess_error());
        exit(1);
    }
    tess_picture_deinit(&s.picture);
    tess_free(s.bytes);
    tess_free(s.out);
    tess_resizer_free(s.resizer);
    return NULL;
}

static void report(const corpus *c, const worker *workers, int n_threads, int size)
{
    double rate = 0, sum = 0;
    int64_t n_pixels = 0;
    for (int i = 0; i < n_threads; i++) {
        rate += workers[i].rate;
        sum += workers[i].sum;
        n_pixels += workers[i].n_pixels;
    }
    printf("{\"what\": \"decode\", \"isa\": \"%s\", \"size\": %d, \"threads\": %d, "
           "\"pictures\": %zu, \"mean_bytes\": %.0f, \"mean_pixels\": %.0f, "
           "\"output_sum\": %.3f, \"pictures_per_s\": %.1f}\n",
           tess_isa_name(tess_isa_get()), size, n_threads, c->n_files,
           (double)c->n_bytes / (double)c->n_files, (double)n_pixels / (double)c->n_files, sum,
           rate);
}

int main(int argc, char **argv)
{
    static worker workers[MAX_THREADS];
    pthread_barrier_t barrier;
    corpus c = {0};
    int n_threads = argc > 2 ? atoi(argv[2]) : tess_cpu_count();
    double seconds = argc > 3 ? atof(argv[3]) : 3;
    tess_preprocess p = tess_preprocess_default();
    p.width = p.height = argc > 4 ? atoi(argv[4]) : p.width;
    if (argc < 2 || n_threads < 1 || n_threads > MAX_THREADS || p.width < 1) {
        fprintf(stderr, "usage: decode FOLDER [THREADS [SECONDS [SIZE]]]\n");
        return 2;
    }
    if (load(argv[1], &c) != TESS_OK) {
        fprintf(stderr, "decode: %s\n", tess_error());
        return 1;
    }
    pthread_barrier_init(&barrier, NULL, (unsigned)n_threads);
    for (int i = 0; i < n_threads; i++) {
        workers[i] = (worker){.corpus = &c,
                              .preprocess = &p,
                              .first = (size_t)i,
                              .step = (size_t)n_threads,
                              .seconds = seconds,
                              .barrier = &barrier};
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0) {
            fprintf(stderr, "decode: cannot start thread %d\n", i);
            return 1;
        }
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    report(&c, workers, n_threads, p.width);
    return 0;
}
