/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of this folder share: the fixture's formula for parameters, its sketches, a
 * scratch directory, and a batch; for cmocka tests. */
#ifndef TESSERA_TESTS_FUSION_FIXTURE_H
#define TESSERA_TESTS_FUSION_FIXTURE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tessera/fusion.h"

#define FIXTURE "tests/fixtures/fusion/"

enum { PICTURES = 6, SLOTS = 3, CONTEXT = 12, BINS = 64 };

#define ok(expr)                                                                                   \
    do {                                                                                           \
        if ((expr) != TESS_OK) {                                                                   \
            fail_msg("%s: %s", #expr, tess_error());                                               \
        }                                                                                          \
    } while (0)

#define assert_fails(expr, status, text)                                                           \
    do {                                                                                           \
        assert_int_equal((expr), (status));                                                        \
        if (!strstr(tess_error(), (text))) {                                                       \
            fail_msg("expected \"%s\" in \"%s\"", (text), tess_error());                           \
        }                                                                                          \
    } while (0)

/* ---- numbers that are a formula; see make.py ---- */

static inline uint64_t fixture_mixed(const char *name, int64_t i)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *c = name; *c; c++) {
        h = (h ^ (uint8_t)*c) * 0x100000001b3u;
    }
    uint64_t z = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u + h;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline double fixture_initial(const char *name, const tess_shape *s, int64_t i)
{
    double u = (double)(fixture_mixed(name, i) >> 40) / 8388608 - 1;
    size_t n = strlen(name);
    if (s->rank == 0) {
        return strcmp(name, "logit_scale") == 0        ? 2.0
               : strcmp(name, "logit_scale_text") == 0 ? 1.5
                                                       : -1.5;
    }
    if (s->rank == 1 && n >= 15 && strcmp(name + n - 15, "class_embedding") == 0) {
        return u * 0.5;
    }
    if (s->rank == 1) {
        return n >= 6 && strcmp(name + n - 6, "weight") == 0 ? 1 + u * 0.25 : u * 0.125;
    }
    return u * (s->rank == 4 ? 0.125 : 0.25);
}

static inline void fixture_init(tess_model *m)
{
    tess_store *s = tess_model_store(m);
    for (int64_t i = 0; i < tess_store_n_entries(s, "param"); i++) {
        float *x;
        tess_shape shape;
        const char *name = tess_store_entry(s, "param", i, &x, &shape);
        for (int64_t k = 0; k < tess_shape_count(&shape); k++) {
            x[k] = (float)fixture_initial(name, &shape, k);
        }
    }
}

static inline tess_model *fixture_model(const char *name, tess_precision precision)
{
    tess_model *m = NULL;
    char *path = tess_format(FIXTURE "%s.json", name);
    ok(tess_model_new(path, NULL, 1, precision, &m));
    tess_free(path);
    fixture_init(m);
    return m;
}

/* ---- the batch ---- */

typedef struct fixture_batch {
    tess_tensors *file;
    const uint8_t *pictures;
    int64_t offsets64[PICTURES * SLOTS + 1];
    int32_t offsets[PICTURES * SLOTS + 1];
    int32_t tokens[PICTURES * SLOTS * CONTEXT], positions[PICTURES * SLOTS * CONTEXT];
} fixture_batch;

static inline const void *fixture_tensor(const fixture_batch *b, const char *name, int64_t *out_n)
{
    const tess_tensor *t = tess_tensors_find(b->file, name);
    if (!t) {
        fail_msg("the fixture has no %s", name);
    }
    *out_n = tess_shape_count(&t->shape);
    return t->data;
}

static inline void fixture_open(fixture_batch *b)
{
    int64_t n;
    memset(b, 0, sizeof *b);
    ok(tess_tensors_open(FIXTURE "parity.safetensors", &b->file));
    b->pictures = fixture_tensor(b, "pictures", &n);
    const uint8_t *tokens = fixture_tensor(b, "tokens", &n);
    const uint8_t *lengths = fixture_tensor(b, "lengths", &n);
    int32_t at = 0;
    for (int s = 0; s < PICTURES * SLOTS; s++) {
        int32_t length;
        memcpy(&length, lengths + 4 * s, 4);
        for (int32_t i = 0; i < length; i++, at++) {
            memcpy(&b->tokens[at], tokens + 4 * (s * CONTEXT + i), 4);
            b->positions[at] = i;
        }
        b->offsets[s + 1] = at;
        b->offsets64[s + 1] = at;
    }
}

static inline tess_micro_batch fixture_micro_batch(const fixture_batch *b)
{
    return (tess_micro_batch){.pictures = b->pictures,
                              .n_tokens = b->offsets[PICTURES * SLOTS],
                              .tokens = b->tokens,
                              .positions = b->positions,
                              .offsets = b->offsets};
}

static inline tess_trainer_options fixture_options(void)
{
    return (tess_trainer_options){.batch = PICTURES,
                                  .captions_per_image = SLOTS,
                                  .accumulate = 1,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.98f,
                                  .eps = 1e-4f,
                                  .weight_decay = 0.2f,
                                  .clip = 1.0f};
}

/* ---- a scratch directory ---- */

static char fixture_root[64];

static inline int fixture_make_root(void **state)
{
    (void)state;
    /* In memory where there is such a place: a save makes nine fsyncs. */
    snprintf(fixture_root, sizeof fixture_root, "%s/tessera-test-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : P_tmpdir);
    return mkdtemp(fixture_root) ? 0 : -1;
}

static inline int fixture_remove_root(void **state)
{
    (void)state;
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        tess_fault_set((tess_fault)kind, 0, false);
    }
    return tess_dir_remove(fixture_root) == TESS_OK ? 0 : -1;
}

/* A path in it; 64 live at a time. */
static inline const char *fixture_at(const char *name)
{
    static char paths[64][256];
    static int next;
    char *path = paths[next++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", fixture_root, name);
    return path;
}

#endif
