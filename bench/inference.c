/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding's speed, asked for piece by piece so that it can take turns with other programs.
 *
 *     bench/inference make CONFIG TOKENIZER DIR     a model with seeded random weights
 *     bench/inference run DIR PRECISION
 *     bench/inference profile DIR PRECISION CASE
 *
 * `run` reads lines "CASE N" and answers each with the milliseconds of N calls, as a JSON list.
 * Cases: picture1 and picture32 (decoded pixels in, vectors out), text16 (16 tokens). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fusion/model.h"
#include "fusion/packs.h"

enum { MAX_CALLS = 1000, MOST_PICTURES = 32, TOKENS = 16 };

typedef struct state {
    tess_model *model;
    uint8_t *pixels;
    float *out;
    int32_t tokens[TOKENS];
} state;

static tess_status call(const state *s, const char *name)
{
    const int64_t offsets[2] = {0, TOKENS};
    if (strcmp(name, "text16") == 0) {
        return tess_model_embed_tokens(s->model, s->tokens, offsets, 1, s->out);
    }
    const int64_t n = strcmp(name, "picture32") == 0 ? 32 : strcmp(name, "picture1") == 0 ? 1 : 0;
    return n ? tess_model_embed_pictures(s->model, s->pixels, n, s->out)
             : TESS_FAIL(TESS_INVALID, "no case is called %.20s", name);
}

static tess_status open_state(const char *dir, const char *precision, state *s)
{
    const tess_precision p = strcmp(precision, "int8") == 0   ? TESS_PRECISION_INT8
                             : strcmp(precision, "bf16") == 0 ? TESS_PRECISION_BF16
                             : strcmp(precision, "f32") == 0  ? TESS_PRECISION_F32
                                                              : TESS_PRECISION_AUTO;
    TESS_TRY(tess_model_open_embedder(dir, p, &s->model));
    const size_t side = (size_t)tess_model_image_size(s->model);
    s->pixels = tess_alloc_array(side * side * 3, MOST_PICTURES);
    s->out = tess_alloc_array((size_t)tess_model_embed_dim(s->model) * MOST_PICTURES, 4);
    if (!s->pixels || !s->out) {
        return TESS_NOMEM;
    }
    uint32_t x = 1;
    for (size_t i = 0; i < side * side * 3 * MOST_PICTURES; i++) {
        x = x * 1664525u + 1013904223u;
        s->pixels[i] = (uint8_t)(x >> 24);
    }
    for (int i = 0; i < TOKENS; i++) {
        s->tokens[i] = 3 + 7 * i;
    }
    return TESS_OK;
}

static tess_status run_cases(const state *s)
{
    char name[32];
    int n = 0;
    while (scanf("%31s %d", name, &n) == 2) {
        for (int i = 0; i < n && i < MAX_CALLS; i++) {
            const double start = tess_seconds();
            TESS_TRY(call(s, name));
            printf("%s%.4f", i ? ", " : "[", 1e3 * (tess_seconds() - start));
        }
        printf("]\n");
        fflush(stdout);
    }
    return TESS_OK;
}

static tess_status profile(const state *s, const char *name)
{
    tess_buf out = {0};
    TESS_TRY(call(s, name));
    tess_embed_plan *p =
        strcmp(name, "text16") == 0 ? s->model->text_plans : s->model->picture_plans;
    tess_plan_profile(p->plan, true);
    for (int i = 0; i < 10; i++) {
        TESS_TRY(call(s, name));
    }
    tess_plan_print_profile(p->plan, &out);
    printf("%s\n%s", tess_model_mode(s->model), out.data);
    tess_buf_deinit(&out);
    return TESS_OK;
}

static tess_status make(const char *config, const char *tokenizer, const char *dir)
{
    tess_model *m = NULL;
    TESS_TRY(tess_model_new(config, tokenizer, 1, TESS_PRECISION_F32, &m));
    const tess_status st = tess_model_save(m, dir);
    tess_model_free(m);
    return st;
}

int main(int argc, char **argv)
{
    state s = {0};
    tess_status st = TESS_INVALID;
    tess_compute_threads(0);
    if (argc == 5 && strcmp(argv[1], "make") == 0) {
        st = make(argv[2], argv[3], argv[4]);
    } else if (argc == 4 && strcmp(argv[1], "run") == 0) {
        st = open_state(argv[2], argv[3], &s);
        st = st ? st : run_cases(&s);
    } else if (argc == 5 && strcmp(argv[1], "profile") == 0) {
        st = open_state(argv[2], argv[3], &s);
        st = st ? st : profile(&s, argv[4]);
    } else {
        fprintf(stderr, "usage: inference make CONFIG TOKENIZER DIR | run DIR PRECISION | profile "
                        "DIR PRECISION CASE\n");
        return 2;
    }
    if (st) {
        fprintf(stderr, "inference: %s\n", tess_error());
    }
    tess_model_free(s.model);
    tess_free(s.pixels);
    tess_free(s.out);
    return st ? 1 : 0;
}
