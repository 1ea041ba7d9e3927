/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding files of texts, asked for piece by piece so that it can take turns with other programs.
 *
 *     bench/sentence run DIR PRECISION FOLDER       reads numbers N, answers each with the
 *                                                   milliseconds of embedding FOLDER/N.jsonl
 *     bench/sentence cosine DIR PRECISION FILE      the cosines to f32, as a JSON object
 *
 * A file is read, its texts tokenized and embedded, as `tessera embed --texts` does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tessera/train.h"

static tess_status open_model(const char *dir, const char *precision, tess_model **out)
{
    const tess_precision p = strcmp(precision, "int8") == 0   ? TESS_PRECISION_INT8
                             : strcmp(precision, "bf16") == 0 ? TESS_PRECISION_BF16
                                                              : TESS_PRECISION_F32;
    return tess_model_open_embedder(dir, p, out);
}

typedef struct rows {
    tess_buf vectors;
    size_t row_bytes;
} rows;

static tess_status keep(void *ctx, const char *key, const char *text, const float *vector)
{
    rows *r = ctx;
    (void)key, (void)text;
    tess_buf_add(&r->vectors, vector, r->row_bytes);
    return tess_buf_check(&r->vectors);
}

static tess_status embed(tess_model *m, const char *path, rows *out)
{
    const tess_text_corpus_options o = {.path = path};
    tess_corpus_report report = {0};
    tess_buf_clear(&out->vectors);
    out->row_bytes = (size_t)tess_model_embed_dim(m) * sizeof(float);
    TESS_TRY(tess_text_corpus_embed(m, &o, keep, out, &report));
    tess_corpus_report_deinit(&report);
    return TESS_OK;
}

static tess_status run(tess_model *m, const char *folder)
{
    rows r = {0};
    char path[4096];
    int n;
    printf("\"%s\"\n", tess_model_mode(m));
    fflush(stdout);
    while (scanf("%d", &n) == 1) {
        snprintf(path, sizeof path, "%s/%d.jsonl", folder, n);
        const double start = tess_seconds();
        TESS_TRY(embed(m, path, &r));
        printf("%.4f\n", 1e3 * (tess_seconds() - start));
        fflush(stdout);
    }
    tess_buf_deinit(&r.vectors);
    return TESS_OK;
}

static void print_cosines(const tess_model *m, const rows *a, const rows *b)
{
    const int64_t width = tess_model_embed_dim(m);
    const int64_t n = (int64_t)(a->vectors.n_bytes / a->row_bytes);
    const float *x = (const float *)(const void *)a->vectors.data;
    const float *y = (const float *)(const void *)b->vectors.data;
    double least = 1, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double dot = 0;
        for (int64_t j = 0; j < width; j++) {
            dot += (double)x[i * width + j] * (double)y[i * width + j];
        }
        least = dot < least ? dot : least;
        sum += dot;
    }
    printf("{\"mode\": \"%s\", \"texts\": %lld, \"least\": %.6f, \"mean\": %.6f}\n",
           tess_model_mode(m), (long long)n, least, sum / (double)n);
}

static tess_status compare(tess_model *m, const char *dir, const char *path)
{
    tess_model *exact = NULL;
    rows a = {0}, b = {0};
    tess_status st = open_model(dir, "f32", &exact);
    st = st ? st : embed(exact, path, &a);
    st = st ? st : embed(m, path, &b);
    if (st == TESS_OK) {
        print_cosines(m, &a, &b);
    }
    tess_model_free(exact);
    tess_buf_deinit(&a.vectors);
    tess_buf_deinit(&b.vectors);
    return st;
}

int main(int argc, char **argv)
{
    const bool runs = argc == 5 && strcmp(argv[1], "run") == 0;
    if (!runs && (argc != 5 || strcmp(argv[1], "cosine") != 0)) {
        fprintf(stderr, "usage: sentence run DIR PRECISION FOLDER | cosine DIR PRECISION FILE\n");
        return 2;
    }
    tess_compute_threads(0);
    tess_model *m = NULL;
    tess_status st = open_model(argv[2], argv[3], &m);
    st = st ? st : runs ? run(m, argv[4]) : compare(m, argv[2], argv[4]);
    if (st) {
        fprintf(stderr, "sentence: %s\n", tess_error());
    }
    tess_model_free(m);
    return st ? 1 : 0;
}
