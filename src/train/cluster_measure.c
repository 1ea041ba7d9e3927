/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine does, for plans of training on it.
 *
 * Operators are timed where they will run: in the steps of a training of the model's first blocks,
 * with its widths and batch.  Alone and again and again on the same operands they would find these
 * in the cache, and be 1.5 times as fast for what is short of operations.  All ranks train at
 * once, so what they take from each other is in the figures. */
#include "tessera/planning.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SECONDS = 2,
    LEAST_RUNS = 3,
    LINK_FLOATS = 1 << 22,
    LINK_RUNS = 4,
    DISK_BYTES = 64 << 20,
    CACHE_BYTES = 32 << 20,
};

/* ---- operators ------------------------------------------------------------------------------ */

typedef struct sample {
    tess_micro_batch batch;
    uint8_t *pictures;
    int32_t *tokens, *positions, *offsets;
} sample;

static void free_sample(sample *s)
{
    tess_free(s->pictures);
    tess_free(s->tokens);
    tess_free(s->positions);
    tess_free(s->offsets);
}

static tess_status make_sample(const tess_measure_options *o, const tess_model *m, int64_t captions,
                               int64_t tokens, sample *s)
{
    const int64_t side = tess_model_image_size(m), n = captions * o->batch;
    const size_t n_bytes = (size_t)(o->batch * side * side * 3), n_tokens = (size_t)(n * tokens);
    *s = (sample){.pictures = tess_alloc(n_bytes),
                  .tokens = tess_alloc_array(n_tokens, sizeof *s->tokens),
                  .positions = tess_alloc_array(n_tokens, sizeof *s->positions),
                  .offsets = tess_alloc_array((size_t)n + 1, sizeof *s->offsets)};
    if (!s->pictures || !s->tokens || !s->positions || !s->offsets) {
        free_sample(s);
        return TESS_NOMEM;
    }
    tess_rng rng = tess_rng_at(1, 1);
    for (size_t i = 0; i < n_bytes; i++) {
        s->pictures[i] = (uint8_t)tess_rng_u32(&rng);
    }
    for (size_t i = 0; i < n_tokens; i++) {
        s->tokens[i] = (int32_t)tess_rng_below(&rng, (uint32_t)tess_model_n_vocab(m));
        s->positions[i] = (int32_t)(i % (size_t)tokens);
    }
    for (int64_t i = 0; i <= n; i++) {
        s->offsets[i] = (int32_t)(i * tokens);
    }
    s->batch = (tess_micro_batch){.pictures = s->pictures,
                                  .n_tokens = (int64_t)n_tokens,
                                  .tokens = s->tokens,
                                  .positions = s->positions,
                                  .offsets = s->offsets};
    return TESS_OK;
}

static tess_status one_step(tess_trainer *t, const sample *s, int64_t step)
{
    float x;
    TESS_TRY(tess_trainer_micro_step(t, &s->batch, &x));
    return tess_trainer_update(t, 1e-6, step, &x);
}

/* All ranks make as many steps as rank 0 finds time for. */
static tess_status repeat(tess_trainer *t, const sample *s, const tess_measure_options *o)
{
    const double begin = tess_seconds(), limit = o->seconds > 0 ? o->seconds : SECONDS;
    uint8_t more = 1;
    TESS_TRY(one_step(t, s, 1));
    tess_trainer_profile(t, true);
    for (int64_t i = 0; more; i++) {
        TESS_TRY(one_step(t, s, i + 2));
        more = (i + 1 < LEAST_RUNS || tess_seconds() - begin < limit) && !tess_cancelled;
        TESS_TRY(o->comm ? tess_comm_broadcast(o->comm, &more, 1, 0) : TESS_OK);
    }
    return tess_cancelled ? TESS_FAIL(TESS_CANCELLED, "stopped") : TESS_OK;
}

static tess_status keep(const tess_op_cost *x, int64_t n, tess_cluster *c)
{
    TESS_TRY(tess_grow(&c->rates, &c->cap_rates, (size_t)(c->n_rates + n), sizeof *c->rates));
    for (int64_t i = 0; i < n; i++) {
        if (x[i].seconds <= 0) {
            continue;
        }
        tess_rate *r = &c->rates[c->n_rates++];
        *r = (tess_rate){.flops = x[i].flops, .bytes = x[i].bytes, .seconds = x[i].seconds};
        snprintf(r->op, sizeof r->op, "%s", x[i].op);
        snprintf(r->dtype, sizeof r->dtype, "%s", tess_dtype_name(x[i].dtype));
    }
    return TESS_OK;
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* The best that was seen: of what computes, and of memory by what hardly does and moves so much
 * that no cache holds it; in a model so small that there is none, by anything. */
static void find_figures(tess_cluster *c)
{
    double any = 0;
    for (int64_t i = 0; i < c->n_rates; i++) {
        const tess_rate *r = &c->rates[i];
        const bool half = strcmp(r->dtype, "f32") != 0;
        const double bytes = r->bytes / r->seconds;
        c->flops[half] = larger(c->flops[half], r->flops / r->seconds);
        any = larger(any, bytes);
        if (r->flops < r->bytes && r->bytes > CACHE_BYTES) {
            c->bandwidth = larger(c->bandwidth, bytes);
        }
    }
    c->bandwidth = c->bandwidth > 0 ? c->bandwidth : any;
    for (int half = 0; half < 2; half++) { /* the type that was not asked for */
        c->flops[half] = c->flops[half] > 0 ? c->flops[half] : c->flops[!half];
    }
}

static tess_status measure_trainer(tess_trainer *t, const tess_model *m,
                                   const tess_measure_options *o, int64_t captions,
                                   tess_cluster *out)
{
    sample s;
    tess_trainer_account a = {0};
    const int64_t longest = tess_model_context_length(m);
    const bool shorter = o->tokens > 0 && o->tokens < (double)longest;
    const int64_t tokens = shorter ? (int64_t)ceil(o->tokens) : longest;
    TESS_TRY(make_sample(o, m, captions, tokens, &s));
    tess_status st = repeat(t, &s, o);
    st = st ? st : tess_trainer_account_for(t, 0, &a);
    st = st ? st : keep(a.step, a.n_step, out);
    st = st ? st : keep(a.update, a.n_update, out);
    tess_trainer_account_deinit(&a);
    free_sample(&s);
    find_figures(out);
    return st;
}

static tess_status measure_operators(const tess_measure_options *o, tess_cluster *out)
{
    tess_model *m = NULL;
    tess_trainer *t = NULL;
    tess_model_outline outline = o->model;
    outline.sample_layers = outline.sample_layers > 0 ? outline.sample_layers : 2;
    TESS_TRY(tess_model_describe(&outline, &m));
    const bool texts = tess_model_objectives(m).text_text.weight > 0;
    const int64_t captions = o->captions_per_image ? o->captions_per_image : texts ? 2 : 1;
    const tess_trainer_options options = {.batch = o->batch,
                                          .captions_per_image = captions,
                                          .accumulate = 1,
                                          .beta1 = 0.9F,
                                          .beta2 = 0.98F,
                                          .eps = 1e-6F,
                                          .comm = o->comm};
    tess_status st = tess_trainer_new(m, &options, &t);
    st = st ? st : measure_trainer(t, m, o, captions, out);
    tess_trainer_free(t);
    tess_model_free(m);
    return st;
}

/* ---- link ----------------------------------------------------------------------------------- */

static tess_status time_all_reduce(tess_comm *comm, float *x, int64_t n, double *out)
{
    TESS_TRY(tess_comm_all_reduce(comm, x, TESS_F32, n));
    TESS_TRY(tess_comm_barrier(comm));
    const double begin = tess_seconds();
    for (int i = 0; i < LINK_RUNS; i++) {
        TESS_TRY(tess_comm_all_reduce(comm, x, TESS_F32, n));
    }
    *out = (tess_seconds() - begin) / LINK_RUNS;
    return TESS_OK;
}

/* By all_reduces of a few and of many numbers; what adds them up is in it. */
static tess_status measure_link(tess_comm *comm, tess_cluster *out)
{
    const double n = (double)tess_comm_size(comm);
    double few = 0, many = 0;
    float *x = tess_alloc_array(LINK_FLOATS, sizeof *x);
    if (!x) {
        return TESS_NOMEM;
    }
    tess_status st = time_all_reduce(comm, x, 1, &few);
    st = st ? st : time_all_reduce(comm, x, LINK_FLOATS, &many);
    tess_free(x);
    const double bytes = 2 * (n - 1) / n * LINK_FLOATS * sizeof(float);
    out->link = out->net = many > few ? bytes / (many - few) : 1e12;
    out->link_s = out->net_s = few;
    return st;
}

/* ---- disk ----------------------------------------------------------------------------------- */

static tess_status write_and_read(int fd, char *data, tess_cluster *out)
{
    double begin = tess_seconds();
    if (write(fd, data, DISK_BYTES) != DISK_BYTES || fdatasync(fd) != 0) {
        return TESS_FAIL(TESS_IO, "trying the disk: %d MB could not be written", DISK_BYTES >> 20);
    }
    out->disk_write = DISK_BYTES / (tess_seconds() - begin);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    begin = tess_seconds();
    if (pread(fd, data, DISK_BYTES, 0) != DISK_BYTES) {
        return TESS_FAIL(TESS_IO, "trying the disk: what was written could not be read");
    }
    out->disk_read = DISK_BYTES / (tess_seconds() - begin);
    return TESS_OK;
}

static tess_status measure_disk(const char *dir, tess_cluster *out)
{
    char *path = tess_format("%s/tessera_disk_XXXXXX", dir), *data = tess_alloc(DISK_BYTES);
    const int fd = path && data ? mkstemp(path) : -1;
    tess_status st = !path || !data ? TESS_NOMEM
                     : fd < 0       ? TESS_FAIL(TESS_IO, "%s: no file can be made here", dir)
                                    : TESS_OK;
    if (fd >= 0) {
        unlink(path);
        memset(data, 1, DISK_BYTES);
        st = write_and_read(fd, data, out);
        close(fd);
    }
    tess_free(path);
    tess_free(data);
    return st;
}

/* ---- all of it ------------------------------------------------------------------------------ */

tess_status tess_cluster_measure(const tess_measure_options *o, tess_cluster *out)
{
    const int ranks = o->comm ? tess_comm_size(o->comm) : 1;
    const int here = o->comm ? tess_comm_local_size(o->comm) : 1;
    const double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    *out = (tess_cluster){.ranks = ranks, .ranks_per_host = here, .memory = memory / here};
    snprintf(out->name, sizeof out->name, "%s", tess_cpu_model());
    tess_status st = measure_operators(o, out);
    st = st || ranks == 1 ? st : measure_link(o->comm, out);
    const bool disk = o->dir && (!o->comm || tess_comm_rank(o->comm) == 0);
    st = st || !disk ? st : measure_disk(o->dir, out);
    if (st) {
        tess_cluster_deinit(out);
    }
    return st;
}
