/* SPDX-License-Identifier: Apache-2.0 */
/* sdpa: softmax(q k^T / sqrt(D)) v per head, inside segments of packed rows.
 *
 *   self:  qkv (N,3C) or (B,T,3C), rows [q;k;v];
 *   cross: q (N,C) or (B,T,C) with kv (M,2C) or (B,M,2C), rows [k;v]; segment s of q has N/S rows;
 *   offsets (S+1) i32 cut the packed rows (of kv, when there is one) into segments; without them
 *   each of the B leading entries is one.  Causal (self only): query i sees keys 0..i.
 *   -> y like q (...,C), lse (H,N) f32, the logarithm of each query's sum of exponentials.
 *   An empty segment and rows at and behind offsets[S] give zeros.
 *   Gradient (docs/attention_backward.md): scores are recomputed from lse; y is for devices to
 *   which it is cheaper than a sum over the scores; rows without a segment get zeros.  f32
 * accumulation throughout; on bf16 rows, a processor that multiplies pairs of bf16 gets the
 * probabilities and the gradients of the scores rounded to bf16.  No aliasing. Deterministic: a
 * (segment, head) is one piece of work.  4 Nq Nk D FLOPs per segment and head forward, 10 backward.
 */
#include "tensor/ops/sdpa.h"
#include "tensor/onnx.h"
#include "tensor/parallel.h"

#include <math.h>
#include <string.h>

enum {
    QKV = SDPA_QKV,
    OFFSETS = SDPA_OFFSETS,
    KV = SDPA_KV,
    LSE = SDPA_LSE,
    DY = SDPA_DY,
    Y = SDPA_Y
};
typedef sdpa_geometry geometry;
static const tess_op grad_op;

tess_value tess_sdpa(tess_graph *g, tess_value qkv, tess_sdpa_options o)
{
    sdpa_attrs a;
    memset(&a, 0, sizeof a); /* padding too: attributes are compared as bytes */
    a.heads = o.heads;
    a.max_segment = o.max_segment;
    a.causal = o.causal;
    return TESS_NODE(g, &tess__op_sdpa, &a, qkv, o.offsets, o.kv);
}

/* ---- geometry ------------------------------------------------------------------------------ */

sdpa_geometry tess__sdpa_describe(const tess_operand *in, const sdpa_attrs *a)
{
    const bool cross = in[KV].shape.rank >= 0, packed = in[OFFSETS].shape.rank >= 0;
    geometry s = {.heads = a->heads, .cross = cross, .packed = packed, .causal = a->causal};
    s.q_row = tess__last(&in[QKV].shape);
    s.width = cross ? s.q_row : s.q_row / 3;
    s.head_dim = s.width / a->heads;
    s.scale = 1.0f / sqrtf((float)s.head_dim);
    s.kv_row = cross ? 2 * s.width : s.q_row;
    s.k_at = cross ? 0 : s.width;
    s.v_at = s.k_at + s.width;
    s.n_q = tess__rows(&in[QKV].shape);
    s.n_k = cross ? tess__rows(&in[KV].shape) : s.n_q;
    s.n_segments = packed ? in[OFFSETS].shape.dim[0] - 1 : in[QKV].shape.dim[0];
    const int64_t per = s.n_segments > 0 ? s.n_segments : 1;
    s.max_k = packed ? a->max_segment : s.n_k / per;
    s.max_q = cross ? s.n_q / per : s.max_k;
    return s;
}

typedef struct segment {
    int64_t q, n_q, k, n_k; /* first row and rows */
} segment;

static segment find(const geometry *s, const int32_t *offsets, int64_t i)
{
    const int64_t k = s->packed ? offsets[i] : i * s->max_k;
    const int64_t n_k = s->packed ? offsets[i + 1] - k : s->max_k;
    return (segment){
        .q = s->cross ? i * s->max_q : k, .n_q = s->cross ? s->max_q : n_k, .k = k, .n_k = n_k};
}

/* Offsets are data: they are checked before rows are touched. */
static tess_status check_offsets(const geometry *s, const int32_t *offsets)
{
    for (int64_t i = 0; s->packed && i < s->n_segments; i++) {
        const int64_t n = (int64_t)offsets[i + 1] - offsets[i];
        if (offsets[i] < 0 || n < 0 || n > s->max_k || offsets[i + 1] > s->n_k) {
            return TESS_FAIL(
                TESS_INVALID, "sdpa: segment %lld is rows %d..%d; expected at most %lld of %lld",
                (long long)i, offsets[i], offsets[i + 1], (long long)s->max_k, (long long)s->n_k);
        }
    }
    return TESS_OK;
}

/* ---- inference ----------------------------------------------------------------------------- */

static tess_status check_shapes(const tess_operand *in, const sdpa_attrs *a)
{
    const tess_operand *q = &in[QKV];
    const bool cross = in[KV].shape.rank >= 0, packed = in[OFFSETS].shape.rank >= 0;
    const int64_t parts = cross ? 1 : 3, width = q->shape.rank < 1 ? 0 : tess__last(&q->shape);
    if (q->shape.rank != 3 && (q->shape.rank != 2 || !packed)) {
        return TESS_FAIL(TESS_INVALID,
                         "sdpa: expected (B,T,C) or packed (N,C) with offsets, found "
                         "rank %d",
                         q->shape.rank);
    }
    if (a->heads < 1 || width == 0 || width % (parts * a->heads) != 0) {
        return TESS_FAIL(TESS_INVALID, "sdpa: width %lld does not divide into %lld x %lld heads",
                         (long long)width, (long long)parts, (long long)a->heads);
    }
    if (packed) {
        TESS_TRY(tess__expect("offsets", &in[OFFSETS], TESS_I32, 1));
        if (a->max_segment < 1 || in[OFFSETS].shape.dim[0] < 1) {
            return TESS_FAIL(TESS_INVALID, "sdpa: offsets need max_segment and at least one entry");
        }
    }
    if (cross) {
        TESS_TRY(tess__expect("kv", &in[KV], q->dtype, packed ? 2 : 3));
        const int64_t n = packed ? in[OFFSETS].shape.dim[0] - 1 : in[KV].shape.dim[0];
        if (tess__last(&in[KV].shape) != 2 * width || a->causal ||
            (packed ? n > 0 && tess__rows(&q->shape) % n : n != q->shape.dim[0])) {
            return TESS_FAIL(TESS_INVALID,
                             "sdpa: expected kv of width %lld, as many segments as q "
                             "divides into, and no causal mask",
                             (long long)(2 * width));
        }
    }
    return TESS_OK;
}

static tess_status infer(tess_infer *c)
{
    const sdpa_attrs *a = c->attrs;
    TESS_TRY(check_shapes(c->in, a));
    const geometry s = tess__sdpa_describe(c->in, a);
    c->out[0] = c->in[QKV];
    c->out[0].shape.dim[c->in[QKV].shape.rank - 1] = s.width;
    c->out[1] = (tess_operand){.dtype = TESS_F32, .shape = TESS_SHAPE_OF(s.heads, s.n_q)};
    return TESS_OK;
}

static tess_status grad_infer(tess_infer *c)
{
    TESS_TRY(tess__expect("dy", &c->in[DY], c->in[QKV].dtype, c->in[QKV].shape.rank));
    TESS_TRY(tess__expect_like("y", &c->in[Y], &c->in[DY]));
    c->out[0] = c->in[QKV];
    /* Without kv there is no second gradient: it is one element. */
    c->out[1] = c->in[KV].shape.rank >= 0
                    ? c->in[KV]
                    : (tess_operand){.dtype = c->in[QKV].dtype, .shape = TESS_SHAPE_OF(1)};
    return TESS_OK;
}

static void vjp(tess_vjp *c)
{
    tess_value d = TESS_NODE(c->g, &grad_op, c->attrs, c->in[QKV], c->in[OFFSETS], c->in[KV],
                             c->out[1], c->dout[0], c->out[0]);
    c->din[QKV] = d;
    c->din[KV] = d && c->in[KV] ? d + 1 : 0;
}

/* ---- execution ----------------------------------------------------------------------------- */

static int64_t slot_floats(const geometry *s)
{
    const int64_t n = tess__kernels()->attention_scratch(s->max_q, s->max_k, s->head_dim);
    return (n + 15) / 16 * 16;
}

static tess_status prepare(tess_prepare *c)
{
    const geometry s = tess__sdpa_describe(c->in, c->attrs);
    c->scratch_bytes = (size_t)(slot_floats(&s) * tess__slots_max()) * sizeof(float);
    return TESS_OK;
}

static void zero_tail(tess_operand *x, int64_t first, int64_t rows)
{
    const int64_t width = tess__last(&x->shape);
    memset(tess__at_mut(x->data, x->dtype, first * width), 0,
           (size_t)((rows - first) * width) * tess_dtype_bytes(x->dtype));
}

/* Rows behind the last segment.  A first segment that does not start at row 0 leaves a head too. */
static void zero_unused(const geometry *s, const int32_t *offsets, tess_operand *x, bool is_q)
{
    if (!s->packed || (is_q && s->cross)) {
        return;
    }
    const int64_t rows = is_q ? s->n_q : s->n_k;
    zero_tail(x, s->n_segments > 0 ? offsets[s->n_segments] : 0, rows);
    if (s->n_segments > 0 && offsets[0] > 0) {
        zero_tail(x, 0, offsets[0]);
    }
}

/* Pointers of head h of a segment. */
static tess_attention_args piece(const tess_exec *e, const geometry *s, segment g, int64_t h)
{
    const tess_dtype t = e->in[QKV].dtype;
    const tess_operand *kv = s->cross ? &e->in[KV] : &e->in[QKV];
    const int64_t d = h * s->head_dim;
    return (tess_attention_args){
        .dtype = t,
        .q = tess__at(e->in[QKV].data, t, g.q * s->q_row + d),
        .k = tess__at(kv->data, t, g.k * s->kv_row + s->k_at + d),
        .v = tess__at(kv->data, t, g.k * s->kv_row + s->v_at + d),
        .q_stride = s->q_row,
        .k_stride = s->kv_row,
        .v_stride = s->kv_row,
        .n_q = g.n_q,
        .n_k = g.n_k,
        .head_dim = s->head_dim,
        .causal = s->causal,
        .scale = s->scale,
        .y_stride = s->width,
    };
}

static void fetch_rows(const void *x, tess_dtype t, int64_t stride, int64_t n, int64_t width)
{
    const size_t item = tess_dtype_bytes(t);
    for (int64_t r = 0; r < n; r++) {
        const char *row = (const char *)x + (size_t)(r * stride) * item;
        for (size_t b = 0; b < (size_t)width * item; b += 64) {
            __builtin_prefetch(row + b, 0, 2);
        }
    }
}

/* A head's rows are short runs far apart, which no hardware prefetcher follows: the rows of the
 * next piece are asked for before this one is computed. */
static void fetch_next(const tess_exec *e, const geometry *s, int64_t i)
{
    if (i + 1 >= s->n_segments * s->heads) {
        return;
    }
    const segment g = find(s, e->in[OFFSETS].data, (i + 1) / s->heads);
    const tess_attention_args a = piece(e, s, g, (i + 1) % s->heads);
    fetch_rows(a.q, a.dtype, a.q_stride, a.n_q, a.head_dim);
    fetch_rows(a.k, a.dtype, a.k_stride, a.n_k, a.head_dim);
    fetch_rows(a.v, a.dtype, a.v_stride, a.n_k, a.head_dim);
    if (e->n_in > DY) {
        const int64_t first = g.q * s->width + (i + 1) % s->heads * s->head_dim;
        fetch_rows(tess__at(e->in[DY].data, a.dtype, first), a.dtype, a.y_stride, a.n_q,
                   a.head_dim);
    }
}

static tess_status cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const geometry s = tess__sdpa_describe(e->in, e->attrs);
    const int32_t *offsets = e->in[OFFSETS].data;
    TESS_TRY(check_offsets(&s, offsets));
    tess_operand y = e->out[0], lse = e->out[1];
    zero_unused(&s, offsets, &y, true);
    if (s.packed && !s.cross) {
        memset(lse.data, 0, (size_t)(s.heads * s.n_q) * sizeof(float));
    }
    const int64_t floats = slot_floats(&s);
#pragma omp parallel for schedule(static, 4) num_threads(tess__slots())
    for (int64_t i = 0; i < s.n_segments * s.heads; i++) {
        const segment g = find(&s, offsets, i / s.heads);
        const int64_t h = i % s.heads;
        tess_attention_args a = piece(e, &s, g, h);
        fetch_next(e, &s, i);
        a.y = tess__at_mut(y.data, y.dtype, g.q * s.width + h * s.head_dim);
        a.lse = (float *)lse.data + h * s.n_q + g.q;
        a.scratch = (float *)e->scratch + floats * omp_get_thread_num();
        k->attention(&a);
    }
    return TESS_OK;
}

static tess_status grad_cpu(const tess_exec *e)
{
    const tess_kernels *k = tess__kernels();
    const geometry s = tess__sdpa_describe(e->in, e->attrs);
    const int32_t *offsets = e->in[OFFSETS].data;
    const tess_dtype t = e->in[QKV].dtype;
    TESS_TRY(check_offsets(&s, offsets));
    tess_operand dq = e->out[0], dkv = s.cross ? e->out[1] : e->out[0];
    zero_unused(&s, offsets, &dq, true);
    if (s.cross) {
        zero_unused(&s, offsets, &dkv, false);
    } else {
        memset(e->out[1].data, 0, tess_dtype_bytes(t));
    }
    const int64_t floats = slot_floats(&s);
#pragma omp parallel for schedule(static, 4) num_threads(tess__slots())
    for (int64_t i = 0; i < s.n_segments * s.heads; i++) {
        const segment g = find(&s, offsets, i / s.heads);
        const int64_t h = i % s.heads, d = h * s.head_dim;
        tess_attention_args a = piece(e, &s, g, h);
        fetch_next(e, &s, i);
        a.dy = tess__at(e->in[DY].data, t, g.q * s.width + d);
        a.lse = (float *)e->in[LSE].data + h * s.n_q + g.q;
        a.dq = tess__at_mut(dq.data, t, g.q * s.q_row + d);
        a.dk = tess__at_mut(dkv.data, t, g.k * s.kv_row + s.k_at + d);
        a.dv = tess__at_mut(dkv.data, t, g.k * s.kv_row + s.v_at + d);
        a.scratch = (float *)e->scratch + floats * omp_get_thread_num();
        k->attention_grad(&a);
    }
    return TESS_OK;
}

/* ---- reference ----------------------------------------------------------------------------- */

static double dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

/* Probabilities of query i of a piece; returns the log of their unnormalised sum. */
static double probabilities(const tess_attention_args *a, int64_t i, double *p)
{
    const int64_t n = a->causal ? i + 1 : a->n_k;
    double top = -1e300, sum = 0;
    for (int64_t j = 0; j < a->n_k; j++) {
        p[j] = dot((const float *)a->q + i * a->q_stride, (const float *)a->k + j * a->k_stride,
                   a->head_dim) *
               (double)a->scale;
        top = j < n && p[j] > top ? p[j] : top;
    }
    for (int64_t j = 0; j < a->n_k; j++) {
        p[j] = j < n ? exp(p[j] - top) : 0;
        sum += p[j];
    }
    for (int64_t j = 0; j < a->n_k; j++) {
        p[j] /= sum;
    }
    return top + log(sum);
}

static void ref_piece(const tess_attention_args *a, double *p)
{
    for (int64_t i = 0; a->n_k > 0 && i < a->n_q; i++) {
        a->lse[i] = (float)probabilities(a, i, p);
        for (int64_t d = 0; d < a->head_dim; d++) {
            double sum = 0;
            for (int64_t j = 0; j < a->n_k; j++) {
                sum += p[j] * (double)((const float *)a->v)[j * a->v_stride + d];
            }
            ((float *)a->y)[i * a->y_stride + d] = (float)sum;
        }
    }
}

static void ref_grad_piece(const tess_attention_args *a, double *p)
{
    for (int64_t i = 0; a->n_k > 0 && i < a->n_q; i++) {
        probabilities(a, i, p);
        const float *dy = (const float *)a->dy + i * a->y_stride;
        const float *q = (const float *)a->q + i * a->q_stride;
        double delta = 0;
        for (int64_t j = 0; j < a->n_k; j++) {
            delta += p[j] * dot(dy, (const float *)a->v + j * a->v_stride, a->head_dim);
        }
        for (int64_t j = 0; j < a->n_k; j++) {
            const float *k = (const float *)a->k + j * a->k_stride;
            const double dp = dot(dy, (const float *)a->v + j * a->v_stride, a->head_dim);
            const double ds = p[j] * (dp - delta) * (double)a->scale;
            for (int64_t d = 0; d < a->head_dim; d++) {
                ((float *)a->dq)[i * a->q_stride + d] += (float)(ds * (double)k[d]);
                ((float *)a->dk)[j * a->k_stride + d] += (float)(ds * (double)q[d]);
                ((float *)a->dv)[j * a->v_stride + d] += (float)(p[j] * (double)dy[d]);
            }
        }
    }
}

static void zero_operand(const tess_operand *x)
{
    memset(x->data, 0, (size_t)tess_shape_count(&x->shape) * tess_dtype_bytes(x->dtype));
}

static tess_status ref_run(const tess_exec *e, bool backward)
{
    const geometry s = tess__sdpa_describe(e->in, e->attrs);
    double *p = tess_alloc_array((size_t)s.max_k + 1, sizeof(double));
    if (!p) {
        return TESS_NOMEM;
    }
    zero_operand(&e->out[0]);
    zero_operand(&e->out[1]);
    for (int64_t i = 0; i < s.n_segments * s.heads; i++) {
        const segment g = find(&s, e->in[OFFSETS].data, i / s.heads);
        const int64_t h = i % s.heads, d = h * s.head_dim;
        tess_attention_args a = piece(e, &s, g, h);
        if (backward) {
            float *dkv = e->out[s.cross].data;
            a.dy = (const float *)e->in[DY].data + g.q * s.width + d;
            a.dq = (float *)e->out[0].data + g.q * s.q_row + d;
            a.dk = dkv + g.k * s.kv_row + s.k_at + d;
            a.dv = dkv + g.k * s.kv_row + s.v_at + d;
            ref_grad_piece(&a, p);
        } else {
            a.y = (float *)e->out[0].data + g.q * s.width + d;
            a.lse = (float *)e->out[1].data + h * s.n_q + g.q;
            ref_piece(&a, p);
        }
    }
    tess_free(p);
    return TESS_OK;
}

static tess_status ref(const tess_exec *e)
{
    return ref_run(e, false);
}

static tess_status grad_ref(const tess_exec *e)
{
    return ref_run(e, true);
}

/* Packed segments are counted as if all were of the mean length. */
static double pair_flops(const tess_operand *in, const void *attrs, double per_pair)
{
    const geometry s = tess__sdpa_describe(in, attrs);
    const double n = s.n_segments > 0 ? (double)s.n_segments : 1;
    return per_pair * (double)s.n_q * (double)s.n_k / n * (double)s.width;
}

static double flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out;
    return pair_flops(in, attrs, 4);
}

static double grad_flops(const tess_operand *in, const tess_operand *out, const void *attrs)
{
    (void)out;
    return pair_flops(in, attrs, 10);
}

static void print(const void *attrs, tess_buf *out)
{
    const sdpa_attrs *a = attrs;
    tess_buf_addf(out, "heads=%lld%s", (long long)a->heads, a->causal ? " causal" : "");
}

/* ---- ONNX ----------------------------------------------------------------------------------- */

/* (B,T,C) -> (B,H,T,D), or (B,H,D,T) for keys. */
static const char *onnx_heads(tess_onnx *o, const geometry *s, const char *x, bool keys)
{
    const char *dims = TESS_ONNX_LIST(o, 0, 0, s->heads, s->head_dim);
    const char *y = TESS_ONNX(o, "Reshape", x, dims);
    const tess_onnx_attr perm =
        keys ? TESS_ONNX_INTS("perm", 0, 2, 3, 1) : TESS_ONNX_INTS("perm", 0, 2, 1, 3);
    return tess__onnx_add(o, (tess_onnx_node){.op = "Transpose", .in = {y}, .attr = {perm}}, NULL);
}

static void onnx_split(tess_onnx *o, const char *x, int parts, const char **out)
{
    tess__onnx_add(o,
                   (tess_onnx_node){
                       .op = "Split", .in = {x}, .attr = {TESS_ONNX_I("axis", -1)}, .n_out = parts},
                   out);
}

/* Packed rows are padded ones here: a mask stands for the segments.  A causal query sees no token
 * behind itself, so padding behind a text needs no mask of its own. */
static const char *onnx(const tess_onnx_emit *c)
{
    tess_onnx *o = c->to;
    const geometry s = tess__sdpa_describe(c->in, c->attrs);
    const char *part[3] = {tess__onnx_in(c, QKV)}, *y;
    if (s.packed && c->in_values[OFFSETS] != o->segments) {
        return tess__onnx_refuse(c, "these segments have no ONNX form");
    }
    if (s.cross && s.packed) {
        const tess_shape q = TESS_SHAPE_OF(s.n_q / s.max_q, s.max_q, s.width);
        part[0] = tess__onnx_reshape(o, part[0], &q);
    }
    if (s.cross) {
        onnx_split(o, tess__onnx_in(c, KV), 2, part + 1);
    } else {
        onnx_split(o, tess__onnx_in(c, QKV), 3, part);
    }
    const char *scores =
        TESS_ONNX(o, "MatMul", onnx_heads(o, &s, part[0], false), onnx_heads(o, &s, part[1], true));
    scores = TESS_ONNX(o, "Mul", scores, tess__onnx_float(o, s.scale));
    const char *mask = s.causal   ? tess__onnx_causal(o, tess__onnx_in(c, QKV))
                       : s.packed ? tess__onnx_keys(o)
                                  : "";
    scores = mask[0] ? TESS_ONNX(o, "Add", scores, mask) : scores;
    scores = tess__onnx_add(
        o, (tess_onnx_node){.op = "Softmax", .in = {scores}, .attr = {TESS_ONNX_I("axis", -1)}},
        NULL);
    y = TESS_ONNX(o, "MatMul", scores, onnx_heads(o, &s, part[2], false)); /* (B,H,T,D) */
    y = tess__onnx_add(o,
                       (tess_onnx_node){.op = "Transpose",
                                        .in = {y},
                                        .attr = {TESS_ONNX_INTS("perm", 0, 2, 1, 3)}},
                       NULL);
    y = TESS_ONNX(o, "Reshape", y, TESS_ONNX_LIST(o, 0, 0, s.width));
    return s.cross && s.packed ? tess__onnx_reshape(o, y, &c->out[0].shape) : y;
}

/* ---- cases --------------------------------------------------------------------------------- */

static tess_value build_self(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(g, in[0], (tess_sdpa_options){.heads = 2});
}

static tess_value build_causal(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(
        g, in[0],
        (tess_sdpa_options){.heads = 2, .causal = true, .offsets = in[1], .max_segment = 64});
}

static tess_value build_long_causal(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(g, in[0], (tess_sdpa_options){.heads = 2, .causal = true});
}

static tess_value build_packed(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(g, in[0],
                     (tess_sdpa_options){.heads = 3, .offsets = in[1], .max_segment = 64});
}

static tess_value build_cross(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(g, in[0], (tess_sdpa_options){.heads = 2, .kv = in[1]});
}

static tess_value build_cross_packed(tess_graph *g, const tess_value *in)
{
    return tess_sdpa(
        g, in[0],
        (tess_sdpa_options){.heads = 1, .kv = in[1], .offsets = in[2], .max_segment = 64});
}

static const tess_case cases[] = {
    {.name = "self",
     .n_in = 1,
     .in = {{TESS_F32, {3, {3, 7, 96}}}},
     .build = build_self,
     .reduction = 16},
    {.name = "one_row",
     .n_in = 1,
     .in = {{TESS_F32, {3, {2, 1, 60}}}},
     .build = build_self,
     .reduction = 10},
    {.name = "wide",
     .n_in = 1,
     .in = {{TESS_F32, {3, {2, 37, 384}}}},
     .build = build_self,
     .reduction = 64},
    {.name = "causal",
     .n_in = 2,
     .in = {{TESS_F32, {2, {60, 96}}}, {TESS_I32, {1, {7}}, TESS_FILL_OFFSETS, 55, true}},
     .build = build_causal,
     .reduction = 50},
    {.name = "packed",
     .n_in = 2,
     .in = {{TESS_F32, {2, {64, 216}}}, {TESS_I32, {1, {6}}, TESS_FILL_OFFSETS, 64, true}},
     .build = build_packed,
     .reduction = 50},
    {.name = "cross",
     .n_in = 2,
     .in = {{TESS_F32, {3, {3, 2, 40}}}, {TESS_F32, {3, {3, 19, 80}}}},
     .build = build_cross,
     .reduction = 20},
    {.name = "cross_packed",
     .n_in = 3,
     .in = {{TESS_F32, {2, {8, 16}}},
            {TESS_F32, {2, {50, 32}}},
            {TESS_I32, {1, {5}}, TESS_FILL_OFFSETS, 50, true}},
     .build = build_cross_packed,
     .reduction = 50},
    {.name = "bf16",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {64, 288}}}, {TESS_I32, {1, {6}}, TESS_FILL_OFFSETS, 60, true}},
     .build = build_packed,
     .reduction = 64},
    {.name = "bf16_causal",
     .n_in = 2,
     .in = {{TESS_BF16, {2, {60, 96}}}, {TESS_I32, {1, {7}}, TESS_FILL_OFFSETS, 55, true}},
     .build = build_causal,
     .reduction = 50},
    {.name = "bf16_cross",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {3, 3, 40}}}, {TESS_BF16, {3, {3, 19, 80}}}},
     .build = build_cross,
     .reduction = 20},
    {.name = "bf16_cross_heads_of_8",
     .n_in = 2,
     .in = {{TESS_BF16, {3, {3, 3, 16}}}, {TESS_BF16, {3, {3, 19, 32}}}},
     .build = build_cross,
     .reduction = 20},
    {.name = "bf16_tiles",
     .n_in = 1,
     .in = {{TESS_BF16, {3, {1, 90, 384}}}},
     .build = build_long_causal,
     .reduction = 90},
    {.name = "bf16_tile_of_80",
     .n_in = 1,
     .in = {{TESS_BF16, {3, {1, 66, 384}}}},
     .build = build_self,
     .reduction = 66},
    {.name = "bf16_head_72",
     .n_in = 1,
     .in = {{TESS_BF16, {3, {1, 66, 432}}}},
     .build = build_self,
     .reduction = 72},
    {.name = "bf16_head_128",
     .n_in = 1,
     .in = {{TESS_BF16, {3, {1, 33, 768}}}},
     .build = build_long_causal,
     .reduction = 128},
    {.name = "bf16_cross_packed",
     .n_in = 3,
     .in = {{TESS_BF16, {2, {8, 16}}},
            {TESS_BF16, {2, {50, 32}}},
            {TESS_I32, {1, {5}}, TESS_FILL_OFFSETS, 46, true}},
     .build = build_cross_packed,
     .reduction = 50},
};

static const tess_op grad_op = {
    .name = "sdpa_grad",
    .n_in_min = 1,
    .n_in_max = 6,
    .n_out = 2,
    .attrs_bytes = sizeof(sdpa_attrs),
    .flags = TESS_OP_ROUNDS,
    .infer = grad_infer,
    .prepare = prepare,
    .cpu = grad_cpu,
    .ref = grad_ref,
    .flops = grad_flops,
    .print = print,
};
static const tess_op *const extra[] = {&grad_op, NULL};

const tess_op tess__op_sdpa = {
    .name = "sdpa",
    .n_in_min = 1,
    .n_in_max = 3,
    .n_out = 2,
    .attrs_bytes = sizeof(sdpa_attrs),
    .flags = TESS_OP_ROUNDS,
    .infer = infer,
    .vjp = vjp,
    .prepare = prepare,
    .cpu = cpu,
    .ref = ref,
    .flops = flops,
    .print = print,
    .onnx = onnx,
    .extra = extra,
    .cases = cases,
    .n_cases = TESS_COUNT(cases),
};
