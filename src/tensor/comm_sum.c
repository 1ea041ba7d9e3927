/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over ranks in a fixed order: that of ranks, in f32, rounded once.
 *
 * Each rank owns a part of the sum.  In rounds of bounded size all send each other what they have
 * of the others' parts, and the owner adds the pieces up from rank 0 on; an all_reduce then gathers
 * the parts.  So the bits depend on how many ranks there are and on nothing else, neither on the
 * parts nor on which of the two collectives was asked for, as they would with a library's own
 * reductions.  As many bytes travel as in a ring. */
#include "tensor/comm.h"
#include "tensor/parallel.h"

#include <string.h>

#define ROUND_BYTES ((size_t)4 << 20) /* that all others send to this rank in a round */

enum { BLOCK = 4096 }; /* numbers that are added while they lie in L1 */

typedef struct sum {
    tess_comm *comm;
    const uint8_t *from;
    uint8_t *to; /* this rank's part */
    tess_dtype dtype;
    const int64_t *counts; /* (R) */
    int64_t round;         /* most numbers of a part in a round */
    tess_span *sends, *receives;
} sum;

static int64_t numbers_in_round(const sum *s, int rank, int64_t at)
{
    const int64_t left = s->counts[rank] - at;
    return left < 0 ? 0 : left < s->round ? left : s->round;
}

/* What each rank sends to each in the round that begins at element `at` of every part. */
static void set_spans(const sum *s, uint8_t *arrived, int64_t at)
{
    const int64_t width = (int64_t)tess_dtype_bytes(s->dtype);
    int64_t begin = 0;
    for (int r = 0; r < s->comm->size; r++) {
        s->sends[r] = (tess_span){(uint8_t *)(uintptr_t)s->from + (begin + at) * width,
                                  numbers_in_round(s, r, at) * width};
        s->receives[r] = (tess_span){arrived + r * s->round * width,
                                     numbers_in_round(s, s->comm->rank, at) * width};
        begin += s->counts[r];
    }
    /* Its own piece stays where it is. */
    s->receives[s->comm->rank].data = s->sends[s->comm->rank].data;
}

static void add_pieces(const sum *s, int64_t at)
{
    const tess_kernels *k = tess__kernels();
    const int64_t n = numbers_in_round(s, s->comm->rank, at);
    float total[BLOCK];
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t some = n - i < BLOCK ? n - i : BLOCK;
        k->convert(TESS_F32, total, s->dtype, tess__at(s->receives[0].data, s->dtype, i), some);
        for (int r = 1; r < s->comm->size; r++) {
            k->axpy(s->dtype, total, tess__at(s->receives[r].data, s->dtype, i), 1.0f, some);
        }
        k->convert(s->dtype, tess__at_mut(s->to, s->dtype, at + i), TESS_F32, total, some);
    }
}

static tess_status run_rounds(const sum *s, uint8_t *arrived, bool *out_done)
{
    int64_t longest = 0;
    for (int r = 0; r < s->comm->size; r++) {
        longest = s->counts[r] > longest ? s->counts[r] : longest;
    }
    *out_done = true;
    for (int64_t at = 0; *out_done && at < longest; at += s->round) {
        set_spans(s, arrived, at);
        TESS_TRY(tess__comm_carry(
            s->comm,
            &(tess_call){.kind = TESS_EXCHANGE, .sends = s->sends, .receives = s->receives},
            out_done));
        if (*out_done) {
            add_pieces(s, at);
        }
    }
    return TESS_OK;
}

/* Room for the spans and for what arrives in a round. */
static tess_status scatter(tess_comm *c, const tess_call *call, const void *from,
                           const int64_t *counts, void *to, bool *out_done)
{
    const size_t ranks = (size_t)c->size, width = tess_dtype_bytes(call->dtype);
    const size_t spans = 2 * ranks * sizeof(tess_span);
    const size_t most = ROUND_BYTES / width / ranks, all = (size_t)call->n;
    const size_t round = all < most ? all : most;
    TESS_TRY(tess_grow(&c->scratch, &c->cap_scratch, spans + ranks * round * width, 1));
    tess_span *sends = (tess_span *)(void *)c->scratch;
    const sum s = {.comm = c,
                   .from = from,
                   .to = to,
                   .dtype = call->dtype,
                   .counts = counts,
                   .round = (int64_t)round,
                   .sends = sends,
                   .receives = sends + ranks};
    return run_rounds(&s, c->scratch + spans, out_done);
}

size_t tess_comm_bytes(const tess_comm *c)
{
    /* What tess_grow makes of a whole round and its spans. */
    return c->carrier || c->size == 1 ? c->cap_scratch : 2 * ROUND_BYTES;
}

static tess_status all_reduce(tess_comm *c, const tess_call *call, int64_t *counts, bool *out_done)
{
    const int64_t width = (int64_t)tess_dtype_bytes(call->dtype);
    int64_t begin = 0, mine = 0;
    for (int r = 0; r < c->size; r++) {
        const int64_t end = call->n / c->size * (r + 1) + call->n % c->size * (r + 1) / c->size;
        counts[r] = end - begin;
        mine = r == c->rank ? begin : mine;
        begin = end;
    }
    uint8_t *part = (uint8_t *)call->to + mine * width;
    TESS_TRY(scatter(c, call, call->to, counts, part, out_done));
    for (int r = 0; r < c->size; r++) {
        counts[r] *= width;
    }
    const tess_call gather = {.kind = TESS_ALL_GATHER,
                              .n = call->n * width,
                              .counts = counts,
                              .from = part,
                              .to = call->to};
    return *out_done ? tess__comm_carry(c, &gather, out_done) : TESS_OK;
}

tess_status tess__comm_sum(tess_comm *c, const tess_call *call, bool *out_done)
{
    if (call->kind == TESS_REDUCE_SCATTER) {
        return scatter(c, call, call->from, call->counts, call->to, out_done);
    }
    int64_t *counts = tess_alloc_array((size_t)c->size, sizeof *counts);
    const tess_status st = counts ? all_reduce(c, call, counts, out_done) : TESS_NOMEM;
    tess_free(counts);
    return st;
}
