/* SPDX-License-Identifier: Apache-2.0 */
/* tensor: a graph of coarse operators, passes over it, a plan, and a device that runs the plan.
 *
 * A model is a function that appends operators to a graph.  Builders return value ids and latch the
 * first error in the graph, as FILE does: later calls are no-ops and tess_graph_check reports once,
 * with the module path and the shapes.
 *
 * Shape letters: B batch, T text tokens, P patches, N rows (any packing of the former), C width,
 * H heads, D head dimension, F hidden, V vocabulary, L layers, Z joint embedding, S segments,
 * K captions per picture.  Row-major, outermost first, always contiguous.
 */
#ifndef TESSERA_TENSOR_H
#define TESSERA_TENSOR_H

#include "tessera/base.h"

/* ---- types -------------------------------------------------------------------------------- */

typedef enum tess_dtype {
    TESS_F32,
    TESS_BF16,
    TESS_F16,
    TESS_I32,
    TESS_U8,
    TESS_I8,
    TESS_F8E4M3, /* OCP FP8: 448 at most, no infinity; operands of products alone */
    TESS_F8E5M2, /* 57,344 at most */
    TESS_DTYPE_COUNT,
} tess_dtype;
size_t tess_dtype_bytes(tess_dtype t);
const char *tess_dtype_name(tess_dtype t); /* "f32", "bf16", ... */

#define TESS_MAX_RANK 6
typedef struct tess_shape {
    int32_t rank;
    int64_t dim[TESS_MAX_RANK];
} tess_shape;
#define TESS_SHAPE_OF(...)                                                                         \
    tess_shape_make((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                     \
                    (const int64_t[]){__VA_ARGS__})
tess_shape tess_shape_make(int rank, const int64_t *dims);
int64_t tess_shape_count(const tess_shape *s); /* elements; 1 for rank 0 */
bool tess_shape_equal(const tess_shape *a, const tess_shape *b);
/* "(512,36,192)"; for messages and dumps. */
void tess_shape_print(const tess_shape *s, tess_buf *out);

/* bf16 is the upper half of an f32, rounded to nearest even; NaN stays NaN. */
uint16_t tess_bf16_from_f32(float x);
float tess_f32_from_bf16(uint16_t x);
/* FP8 (t: TESS_F8E4M3 or TESS_F8E5M2) rounded to nearest even; beyond the largest number, infinity
 * too, it is that one; NaN is 0x7f. */
uint8_t tess_f8_from_f32(tess_dtype t, float x);
float tess_f32_from_f8(tess_dtype t, uint8_t x);

/* ---- graph -------------------------------------------------------------------------------- */

typedef struct tess_graph tess_graph;
typedef int32_t tess_value; /* 0: none */

tess_graph *tess_graph_new(void);
void tess_graph_free(tess_graph *g);
/* The first error latched by a builder, or TESS_OK. */
TESS_MUST_USE tess_status tess_graph_check(const tess_graph *g);
/* One line per node: "%12 = layernorm %9, %3, %4 {eps=1e-05} -> f32 (64,192) ... @visual.ln_pre".
 */
void tess_graph_print(const tess_graph *g, tess_buf *out);

/* Module path: scopes join with dots; operators are named by the scope they are built in. */
void tess_scope_push(tess_graph *g, const char *fmt, ...) TESS_PRINTF(2, 3);
void tess_scope_pop(tess_graph *g);
/* Values made in this scope (until its pop) may be computed again for the backward pass rather than
 * kept: tess_graph_recompute says which of them. */
void tess_scope_recompute(tess_graph *g);

tess_dtype tess_value_dtype(const tess_graph *g, tess_value v);
tess_shape tess_value_shape(const tess_graph *g, tess_value v);
/* Fails the graph unless v has this shape: an executable shape comment. */
#define TESS_SHAPE(g, v, ...) tess_shape_require((g), (v), TESS_SHAPE_OF(__VA_ARGS__))
void tess_shape_require(tess_graph *g, tess_value v, tess_shape shape);

/* A leaf bound to a buffer at each run. */
tess_value tess_input(tess_graph *g, const char *name, tess_dtype dtype, tess_shape shape);
/* A leaf that lives in a store: group/name under the current scope ("visual.ln_pre" + "weight").
 * The empty name in the empty scope means the whole group as one flat f32 run. */
tess_value tess_state(tess_graph *g, const char *group, const char *name, tess_dtype dtype,
                      tess_shape shape);
/* The first value with this name (inputs) or path (states), 0 when there is none. */
tess_value tess_graph_find(const tess_graph *g, const char *name);
/* All states of a group in creation order; returns how many, fills at most max. */
int64_t tess_graph_states(const tess_graph *g, const char *group, tess_value *out, int64_t max);
const char *tess_value_name(const tess_graph *g, tess_value v); /* leaf's name or node's path */

/* ---- operators: data movement ------------------------------------------------------------- */

tess_value tess_cast(tess_graph *g, tess_value x, tess_dtype dtype);
tess_value tess_reshape(tess_graph *g, tess_value x, tess_shape shape);
/* Rows of table (V,C) f32, on processors also bf16, by ids (N) i32 -> (N,C) dtype.  Ids outside
 * 0..V-1 give zero rows. */
tess_value tess_embedding(tess_graph *g, tess_value table, tess_value ids, tess_dtype dtype);
/* Pictures (B,S,S,3) u8 -> rows (B*P, 3*p*p) dtype, (x/255 - mean)/std, column order (channel, row,
 * column) so that a convolution weight (C,3,p,p) is a linear weight (C,3*p*p). No gradient. */
typedef struct tess_patchify_options {
    int64_t patch;
    float mean[3], std[3];
    tess_dtype dtype;
} tess_patchify_options;
tess_value tess_patchify(tess_graph *g, tess_value pictures, tess_patchify_options o);
/* Where a decoded picture is and how it is resized: a row of (B,8) i32.  An axis's table is S times
 * three numbers of `taps`: the first pixel that an output reads, how many (0: the output is
 * filled), and where in `taps` its coefficients begin, which are `step` apart and have 22 fraction
 * bits.  So a crop, a flip or a shift is a matter of the tables. */
typedef struct tess_resize_place {
    int32_t at;            /* of the first row in `bytes`, in units of 64 bytes */
    int32_t stride;        /* bytes from row to row */
    int32_t width, height; /* in pixels; 0: no picture, all is filled */
    int32_t x, x_step;     /* columns: where in `taps` their table begins, and the step */
    int32_t y, y_step;     /* rows */
} tess_resize_place;
enum { TESS_RESIZE_PLACE = 8, TESS_RESIZE_UNIT = 64, TESS_RESIZE_BITS = 22 };
/* What tess_patchify gives of pictures (B,S,S,3), from their decoded pixels: bytes (N) u8, places
 * (B,8) i32, taps (M) i32.  Columns first, then rows, each sum rounded to 8 bits, as Pillow
 * resizes; `fill` stands where a table names nothing.  A place or table that leads out of its
 * tensor is refused (INVALID); where there is no refusing, on a card, it is filled.  No gradient.
 */
typedef struct tess_resize_patches_options {
    int64_t size, patch;
    float mean[3], std[3];
    uint8_t fill[3];
    tess_dtype dtype;
} tess_resize_patches_options;
tess_value tess_resize_patches(tess_graph *g, tess_value bytes, tess_value places, tess_value taps,
                               tess_resize_patches_options o);
/* x (1,C) f32 -> (n,C) dtype, the row repeated. */
tess_value tess_repeat_rows(tess_graph *g, tess_value x, int64_t n, tess_dtype dtype);
/* Rows begin..begin+n of x (N,C). */
tess_value tess_slice_rows(tess_graph *g, tess_value x, int64_t begin, int64_t n);
/* x (B,P,C), ids (B,K) i32 -> (B,K,C): chosen rows of each entry; zeros for an id beyond them. */
tess_value tess_gather_rows(tess_graph *g, tess_value x, tess_value ids);
/* x (B,P,C) and token (C) f32 -> (B,P+1,C), token first. */
tess_value tess_prepend_token(tess_graph *g, tess_value x, tess_value token);

/* ---- operators: pointwise ----------------------------------------------------------------- */

tess_value tess_add(tess_graph *g, tess_value a, tess_value b); /* same shape and dtype */
/* x (B,T,C) + table (T,C) f32, over the batch. */
tess_value tess_add_rows(tess_graph *g, tess_value x, tess_value table);
tess_value tess_scale(tess_graph *g, tess_value x, float factor);

typedef enum tess_unary_kind {
    TESS_RELU,
    TESS_GELU,       /* x * Phi(x), by erf */
    TESS_GELU_TANH,  /* tanh approximation */
    TESS_QUICK_GELU, /* x * sigmoid(1.702 x) */
    TESS_SILU,
    TESS_TANH,
    TESS_UNARY_COUNT,
} tess_unary_kind;
const char *tess_unary_name(tess_unary_kind k);
tess_value tess_unary(tess_graph *g, tess_value x, tess_unary_kind kind);

/* ---- operators: rows ---------------------------------------------------------------------- */

/* y = (x - mean) * rstd * weight + bias over the last axis; weight, bias (C) f32.  Outputs y like
 * x, and mean, rstd (N) f32 for the gradient. */
tess_value tess_layernorm(tess_graph *g, tess_value x, tess_value weight, tess_value bias,
                          float eps);
/* y = x / max(|x|, eps) over the last axis, f32 out. */
tess_value tess_l2norm(tess_graph *g, tess_value x);

/* y (...,M) = x (...,K) w(M,K)^T + bias (M) f32 or 0, then activation (relu only; others are a
 * tess_unary), then + residual (...,M) or 0.  x, w, residual of one dtype; y of that dtype. */
typedef struct tess_linear_options {
    tess_value bias, residual;
    bool relu;
} tess_linear_options;
tess_value tess_linear(tess_graph *g, tess_value x, tess_value w, tess_linear_options o);
/* y (...,M) = x (...,K) w(K,M): weights stored input x output, as CLIP's projections are. */
tess_value tess_project(tess_graph *g, tess_value x, tess_value w);

/* w (M,R) f32 -> (M,R): scale * w inside the blocks, 0 outside; so is its gradient, which keeps the
 * zeros of a block matrix at zero in training.  Blocks do not overlap. */
#define TESS_BLOCKS 8 /* of one operator */
typedef struct tess_blocks_options {
    float scale;
    int64_t n_blocks;
    struct {
        int64_t row, n_rows, col, n_cols;
    } block[TESS_BLOCKS];
} tess_blocks_options;
tess_value tess_blocks(tess_graph *g, tess_value w, const tess_blocks_options *o);

/* Low-rank adapters (Hu et al. 2021): from here on, tess_linear and tess_project of a weight that
 * the table names give y = x w + (x A^T) B'^T, with leaves A (R,K) "WEIGHT.lora_A" and B (M,R)
 * "WEIGHT.lora_B" f32 of group "lora" and B' = tess_blocks(B).  Through a cast or none the weight
 * is a state of group "param"; table and names are borrowed by the graph's builders. */
typedef struct tess_adapted {
    const char *weight;         /* full path */
    int64_t rank;               /* R */
    tess_blocks_options blocks; /* n_blocks 0: B is used as it is */
} tess_adapted;
/* From here on, weights that are computed with in bf16 are states of group "half", in bf16, in
 * place of casts of those of "param". */
void tess_graph_narrow(tess_graph *g);
/* From here on, a bf16 linear in a block (a scope resblocks.N) whose weight (M,K) has M and K of at
 * least `width` and in multiples of 16 multiplies in FP8, forwards and backwards:
 *   y = s_x s_w Q(x / s_x) Q(w / s_w)^T + bias + residual, the sums in f32,
 * where Q rounds to E4M3, or E5M2 for a cotangent, and s is the least power of two that keeps the
 * tensor's largest number within the type (current scaling).  The gradient is that of the product
 * without Q. */
void tess_graph_fp8(tess_graph *g, int64_t width);
void tess_graph_adapt(tess_graph *g, const tess_adapted *table, int64_t n);

/* Softmax attention inside segments of packed rows.
 *   self: qkv (N,3C) or (B,T,3C), rows [q;k;v] each C = H*D wide;
 *   cross: q (Nq,C) and kv (N,2C).
 * Segments: `offsets` (S+1) i32, rows offsets[s]..offsets[s+1] attend to each other; 0: each of the
 * leading B entries is a segment (rank 3) .  Rows at and after offsets[S] give zeros.
 * For cross attention each segment has Nq/S queries.  Scores are scaled by 1/sqrt(D).
 * Outputs y (N,C) like qkv without the 3, and lse (H,N) f32. */
typedef struct tess_sdpa_options {
    int64_t heads;
    bool causal;
    tess_value offsets;
    tess_value kv;
    int64_t max_segment; /* longest segment, with offsets; sizes the scratch */
} tess_sdpa_options;
tess_value tess_sdpa(tess_graph *g, tess_value qkv, tess_sdpa_options o);

typedef enum tess_pool_kind {
    TESS_POOL_MEAN,
    TESS_POOL_FIRST,
    TESS_POOL_LAST,
    TESS_POOL_MEAN_SQRT, /* the sum divided by the root of the number of rows */
    TESS_POOL_MEAN_REST, /* the mean of all rows but the first */
    TESS_POOL_COUNT,
} tess_pool_kind;
/* x (N,C) with offsets (S+1) i32, or x (B,T,C) with offsets 0 -> (S or B, C) like x.  An empty
 * segment gives zeros. */
tess_value tess_pool(tess_graph *g, tess_value x, tess_value offsets, tess_pool_kind kind);

/* ---- operators: objectives ---------------------------------------------------------------- */

/* Symmetric softmax contrastive loss (Radford et al. 2021), tiled: never a B x B matrix.
 * a (B,Z) f32, b (K*B,Z) f32 unit rows; slot k of b is rows k*B..(k+1)*B-1 and forms its own B x B
 * problem with a; row i of a matches row i of each slot.  log_scale () or (1) f32.
 * loss () f32 = mean over slots of (CE(rows) + CE(columns)) / 2.  Also lse of rows and columns. */
tess_value tess_contrast_softmax(tess_graph *g, tess_value a, tess_value b, tess_value log_scale);
/* Sigmoid loss (Zhai et al. 2023): sum of -log sigmoid(+-(scale*a.b + bias)) / B, mean over slots.
 */
tess_value tess_contrast_sigmoid(tess_graph *g, tess_value a, tess_value b, tess_value log_scale,
                                 tess_value bias);
/* sum_i weight[i] * x[i] of scalars -> () f32; n <= 8. */
tess_value tess_weighted_sum(tess_graph *g, const tess_value *x, const float *weight, int n);

/* ---- operators: state --------------------------------------------------------------------- */

/* state += x, at the end of x's life (gradient accumulation).  An effect: always part of a plan. */
void tess_accumulate(tess_graph *g, tess_value state, tess_value x);
/* Sum of squares of a flat f32 or bf16 state -> (1) f32, in double, in a fixed order. */
tess_value tess_sumsq(tess_graph *g, tess_value x);
/* state = min(max(state, least), most); NaN stays.  An effect. */
void tess_clamp(tess_graph *g, tess_value state, float least, float most);
/* Whether a step's gradient may change weights: sumsq (1) f32 of the gradient, loss (1) f32 ->
 * sumsq where it may, else NaN, by which tess_adam_time and the optimizers skip the step; *out_why
 * (1) f32, a tess_skip; *out_loss (1) f32, the loss.  With the state recent (TESS_RECENT_SIZE) f32,
 * or 0, also what lies more than `deviations` above the median of the last 128 steps is skipped; a
 * deviation is 1.4826 times the median one, and at least 1 % of the median. */
typedef enum tess_skip {
    TESS_SKIP_NOT,
    TESS_SKIP_GRADIENT, /* not finite */
    TESS_SKIP_LOSS,     /* not finite */
    TESS_SKIP_HIGH_LOSS,
    TESS_SKIP_HIGH_NORM
} tess_skip;
#define TESS_RECENT_SIZE 258
/* Whether memory that was read from somewhere can be such a state. */
bool tess_recent_is_valid(const float *recent);
tess_value tess_update_gate(tess_graph *g, tess_value sumsq, tess_value loss, tess_value recent,
                            float deviations, tess_value *out_why, tess_value *out_loss);
/* Enters finite losses and norms in `recent` (or 0), then sets the state loss to 0.  An effect. */
void tess_update_note(tess_graph *g, tess_value sumsq, tess_value loss, tess_value recent);
/* What an update reads that changes from step to step.  rates (3) f32 input: lr, step (from 1,
 * those that were skipped among them), grad_scale; skipped (1) f32: steps before this one whose
 * gradient was not finite -> hyper (5) of the optimizers; *out_is_skipped (1) f32: 1 when sumsq is
 * not finite, to be accumulated in `skipped`. */
tess_value tess_adam_time(tess_graph *g, tess_value rates, tess_value skipped, tess_value sumsq,
                          float beta1, float beta2, tess_value *out_is_skipped);
/* AdamW (Loshchilov & Hutter 2019) in one pass over flat states param, m, v f32 and grad (f32, on
 * processors also bf16).
 * hyper (5) f32 input: lr, 1/(1-beta1^t), 1/(1-beta2^t), grad_scale, t.  Gradient used is
 * grad * grad_scale * min(1, clip / (norm * grad_scale)), norm = sqrt(sumsq); clip 0: none.  Decay
 * only for the first n_decayed elements.  grad is zeroed in the same pass.  When sumsq is not
 * finite nothing but grad changes.  The first `begin` elements, grad among them, are left alone.
 * Effect.
 *
 * Frozen parameters have no grad, m, v: parts say where in param the others lie.  Elements from
 * part[k].grad to part[k+1].grad are those of param from part[k].param on; the first part is at
 * grad 0.  No parts: param is as long, and in the same order.
 *
 * narrow, a state like param in bf16, or 0: param's copy for the next step's products, rounded to
 * nearest; with `stochastic` down or up, each the more
 * probable the nearer it is, by Philox of (seed, t, element of param): the same on any device. */
/* ranges, borrowed, in place of begin, n_decayed and parts: n elements of param, grad, m and v
 * (moment) and narrow from these on, each run being laid out in its own way; `element` is the first
 * one's number for the rounding by chance.  On processors. */
typedef struct tess_adamw_range {
    int64_t param, grad, moment, narrow, element, n;
    bool decayed;
} tess_adamw_range;
#define TESS_ADAMW_PARTS 8
typedef struct tess_adamw_part {
    int64_t grad, param;
} tess_adamw_part;
typedef struct tess_adamw_options {
    float beta1, beta2, eps, weight_decay, clip;
    int64_t begin, n_decayed;
    int64_t n_parts;
    tess_adamw_part part[TESS_ADAMW_PARTS];
    const tess_adamw_range *ranges;
    int64_t n_ranges;
    tess_value narrow;
    bool stochastic;
    uint64_t seed;
} tess_adamw_options;
void tess_adamw(tess_graph *g, tess_value param, tess_value grad, tess_value m, tess_value v,
                tess_value hyper, tess_value sumsq, tess_adamw_options o);
/* Muon (Jordan 2024) for matrices (rows,cols) that lie in flat f32 states param, grad, m (n); what
 * is outside of them is left alone.  hyper, sumsq and the gradient used as above, d.
 * m = momentum m + d, u = d + momentum m; u is made nearly orthogonal (singular values 0.68
 * to 1.21) and subtracted times lr lr_factor 0.2 sqrt(max(rows, cols)), after decay by 1 - lr
 * lr_factor weight_decay.  grad is zeroed.  dtype: of the products' operands.  Effect. */
#define TESS_MUON_MATRICES 64 /* of one operator */
typedef struct tess_muon_options {
    float momentum, weight_decay, lr_factor, clip;
    tess_dtype dtype; /* TESS_F32 or TESS_BF16 */
    int64_t n_matrices;
    struct {
        int64_t begin, rows, cols;
    } matrix[TESS_MUON_MATRICES];
} tess_muon_options;
void tess_muon(tess_graph *g, tess_value param, tess_value grad, tess_value m, tess_value hyper,
               tess_value sumsq, const tess_muon_options *o);

/* ---- passes ------------------------------------------------------------------------------- */

/* Reverse-mode gradients: appends the nodes that compute d(sum_i <y[i], dy[i]>)/d wrt[j] to g and
 * returns them in out (0 where wrt[j] does not matter to y).  dy[i] 0 means ones, for scalars.
 * Only paths from wrt to y are walked. */
TESS_MUST_USE tess_status tess_graph_grad(tess_graph *g, const tess_value *y, const tess_value *dy,
                                          int64_t n_y, const tess_value *wrt, int64_t n_wrt,
                                          tess_value *out);
/* What of a recompute scope is computed again (Chen et al. 2016; selective: Korthikanti et al.
 * 2022). */
typedef enum tess_recompute {
    TESS_RECOMPUTE_OFF,
    TESS_RECOMPUTE_FULL,      /* all that does not leave it: about a third more FLOPs */
    TESS_RECOMPUTE_SELECTIVE, /* what takes one pass over memory: LayerNorms, activations */
} tess_recompute;
/* A new graph in which such values are cloned beside their first backward use.
 * map (old value -> new value, tess_graph_n_values entries) may be NULL. */
TESS_MUST_USE tess_status tess_graph_recompute(const tess_graph *g, tess_recompute what,
                                               tess_graph **out, tess_value *map);
int64_t tess_graph_n_values(const tess_graph *g); /* ids are below this */

/* ---- pager -------------------------------------------------------------------------------- */

/* States that are in memory only while they are used, and the rest of the time in files: what a
 * plan's steps use is read ahead of them, and written back when it has changed, by threads of the
 * pager's own.  Results are those of memory, bit for bit. */
typedef struct tess_pager tess_pager;
typedef struct tess_pager_options {
    const char *dir;    /* made where it is missing; the files have no names, and end with the
                         * process */
    size_t block_bytes; /* what is read and written at once, a multiple of 4096; 0: 2 MiB */
} tess_pager_options;
TESS_MUST_USE tess_status tess_pager_new(const tess_pager_options *o, tess_pager **out);
/* After the stores that it holds. */
void tess_pager_free(tess_pager *p);
/* How much of the states may be in memory at once, beside what is kept: at least the largest
 * plan's paged_bytes (tess_plan_stats), and room to read ahead and to write behind. */
void tess_pager_set_budget(tess_pager *p, size_t n_bytes);
typedef struct tess_pager_stats {
    size_t there_bytes, kept_bytes, peak_bytes; /* in memory: now, of these for good, at most */
    size_t read_bytes, written_bytes;
    size_t block_bytes;
    double waited_seconds; /* while a step's states were on their way, or room for them */
} tess_pager_stats;
tess_pager_stats tess_pager_get_stats(tess_pager *p);

/* ---- store -------------------------------------------------------------------------------- */

/* Named states in groups; each group is one flat, zeroed, 64-byte aligned f32 run in which every
 * entry starts at a multiple of 16 elements.  Entries with rank > 1 come first in their group, in
 * the order of their addition, then those of rank <= 1: weight decay is a prefix; and among those
 * of rank > 1 the ones that tess_store_lead names. */
typedef struct tess_store tess_store;
tess_store *tess_store_new(void);
void tess_store_free(tess_store *s);
/* Adds what the graph's states of `group` need (those already there must agree in shape). */
TESS_MUST_USE tess_status tess_store_add_graph(tess_store *s, const tess_graph *g,
                                               const char *group);
TESS_MUST_USE tess_status tess_store_add(tess_store *s, const char *group, const char *name,
                                         tess_shape shape);
/* A group of the same layout as another: moments, gradients.  May come after tess_store_allocate.
 */
TESS_MUST_USE tess_status tess_store_mirror(tess_store *s, const char *group, const char *like);
/* Before the layout: entries of rank > 1 for which `leads` is true come before all others, so that
 * what an optimizer of their own handles is a prefix too. */
void tess_store_lead(tess_store *s, bool (*leads)(const char *name));
/* Before the layout: groups get their layout and addresses, but no memory: enough for plans on the
 * null device, of models far above memory.  Nothing may be read from it or written to it. */
void tess_store_describe(tess_store *s);
bool tess_store_is_described(const tess_store *s);
/* Lays out and allocates what is not yet.  Later additions are mirrors and new groups, which a
 * second call lays out; a group that has its layout takes no more entries. */
TESS_MUST_USE tess_status tess_store_allocate(tess_store *s);
/* Before the layout: numbers of another type than f32, which the pointers below then point to. */
TESS_MUST_USE tess_status tess_store_set_dtype(tess_store *s, const char *group, tess_dtype dtype);
tess_dtype tess_store_dtype(const tess_store *s, const char *group);
/* From here on this rank's run holds one range of each flattened entry of the group for which
 * `splits` is true: elements tess_shard_begin(n, rank, n_ranks) to those of the next rank, which
 * may be none.  A graph's leaf of such an entry is that range, of rank 1, and the pointers below
 * point to its first element; their shapes stay the tensors'.  A group that is laid out, which no
 * plan uses yet, gives back the memory of the rest. */
TESS_MUST_USE tess_status tess_store_split(tess_store *s, const char *group, int rank, int n_ranks,
                                           bool (*splits)(const char *name,
                                                          const tess_shape *shape));
/* In whole units of 16 elements; `n` for rank n_ranks. */
int64_t tess_shard_begin(int64_t n, int rank, int n_ranks);
typedef struct tess_held {
    int64_t begin, end; /* of the flattened entry: what the run holds */
    int64_t offset;     /* where that is in the run */
    int64_t at;         /* where the entry is in the run of a store that splits nothing */
    bool split;
} tess_held;
/* All 0 where there is no such entry. */
tess_held tess_store_held(const tess_store *s, const char *group, const char *name);
/* Of the group's run; 0 where there is none. */
size_t tess_store_bytes(const tess_store *s, const char *group);
/* Before the layout: groups of a block and more that are laid out from now on are paged.  Their
 * pointers can be read and written only between gather and release; plans do that themselves. */
void tess_store_set_pager(tess_store *s, tess_pager *p);
tess_pager *tess_store_pager(const tess_store *s); /* NULL: none; s may be NULL */
/* An entry, or with the empty name the group, is brought to memory, and given back.  Nothing
 * happens to what is not paged. */
TESS_MUST_USE tess_status tess_store_gather(tess_store *s, const char *group, const char *name);
void tess_store_release(tess_store *s, const char *group, const char *name, bool written);
/* From here on, the first blocks of the group stay in memory, as many as *budget has bytes for;
 * what they take is taken from it.  Between runs of plans. */
TESS_MUST_USE tess_status tess_store_keep(tess_store *s, const char *group, size_t *budget);
float *tess_store_group(const tess_store *s, const char *group,
                        int64_t *out_n); /* flat run; NULL when mapped */
int64_t tess_store_n_leading(const tess_store *s, const char *group);
int64_t tess_store_n_decayed(const tess_store *s, const char *group);
float *tess_store_find(const tess_store *s, const char *group, const char *name,
                       tess_shape *out_shape); /* NULL when absent */
int64_t tess_store_n_entries(const tess_store *s, const char *group);
const char *tess_store_entry(const tess_store *s, const char *group, int64_t i, float **out_data,
                             tess_shape *out_shape);

/* On a device with memory of its own a plan works on copies of the groups, made when it is built:
 * what the host wrote since then goes there, and what the device wrote comes back, only by these;
 * an entry, or with the empty name the whole group.  Nothing happens where there is no copy. */
TESS_MUST_USE tess_status tess_store_upload(tess_store *s, const char *group, const char *name);
TESS_MUST_USE tess_status tess_store_download(tess_store *s, const char *group, const char *name);

/* ---- safetensors -------------------------------------------------------------------------- */

/* Opens and checks a file: header <= 100 MB, no duplicates, offsets contiguous without holes, last
 * end = file end, sizes without overflow, at most 1e6 tensors.  Data stays mapped. */
typedef struct tess_tensors tess_tensors;
typedef struct tess_tensor {
    const char *name;
    const char *dtype; /* the file's own word: "F32", "BF16", ... */
    tess_shape shape;
    const uint8_t *data;
    size_t n_bytes;
    tess_pager *pager; /* to be written: data is a paged state's; else NULL */
} tess_tensor;
TESS_MUST_USE tess_status tess_tensors_open(const char *path, tess_tensors **out);
TESS_MUST_USE tess_status tess_tensors_parse(tess_bytes bytes, const char *name,
                                             tess_tensors **out); /* borrows bytes */
/* Opens all the shards that a "....safetensors.index.json" names, as one.  A shard that is missing,
 * a tensor in another shard than the index says, in two, or in none: TESS_FORMAT by name. */
TESS_MUST_USE tess_status tess_tensors_open_index(const char *path, tess_tensors **out);
void tess_tensors_free(tess_tensors *t);
/* The data of x will not be needed soon: its memory goes back where the file is mapped. */
void tess_tensors_forget(const tess_tensors *t, const tess_tensor *x);
/* Adds the tensors of `more`, `prefix` before their names, to t, which owns `more` from then on:
 * the files of one model.  A name that is in both: TESS_FORMAT, and both are as before. */
TESS_MUST_USE tess_status tess_tensors_join(tess_tensors *t, tess_tensors *more,
                                            const char *prefix);
int64_t tess_tensors_count(const tess_tensors *t);
const tess_tensor *tess_tensors_at(const tess_tensors *t, int64_t i); /* in the file's order */
const tess_tensor *tess_tensors_find(const tess_tensors *t, const char *name);
const char *tess_tensors_metadata(const tess_tensors *t, const char *key); /* NULL: absent */
typedef struct tess_pair {
    const char *key, *value;
} tess_pair;
/* Where everything lies in a file of these tensors, whose data may be NULL: the same on all ranks
 * that know names, types and shapes.  Tensors of whole pages (4096 bytes) come first and begin at
 * one, then those of whole cache lines, then by their elements' size; within these by name.
 * Metadata pairs besides {"format":"pt"}. */
typedef struct tess_tensors_layout {
    tess_buf header;           /* the file's first bytes */
    int64_t *begin;            /* (n): of tensor i in the file */
    const tess_tensor **order; /* (n): as they lie in the file; the caller's */
    int64_t n_bytes;           /* of the file */
} tess_tensors_layout;
TESS_MUST_USE tess_status tess_tensors_plan(const tess_tensor *tensors, int64_t n,
                                            const tess_pair *metadata, int64_t n_metadata,
                                            tess_tensors_layout *out);
void tess_tensors_layout_deinit(tess_tensors_layout *l);
/* Writes such a file, whole or absent. */
TESS_MUST_USE tess_status tess_tensors_save(const char *path, const tess_tensor *tensors, int64_t n,
                                            const tess_pair *metadata, int64_t n_metadata);
/* In place of tess_store_allocate: `group` entries are the file's own memory, which is read-only
 * and must outlive the store.  Entries that the file lacks have no data; others must be F32 of
 * their shape, at a multiple of 4 bytes (a file may have them elsewhere: TESS_UNSUPPORTED). */
TESS_MUST_USE tess_status tess_store_map(tess_store *s, const char *group, const tess_tensors *t);
/* Loads `group` entries from a file by name (F32, BF16, F16 converted); a name missing, extra or of
 * another shape fails with the list of all of them (as many as a message holds, and the number of
 * the rest), and the store is as before.  Prefix is put before each entry's name. */
TESS_MUST_USE tess_status tess_store_load(tess_store *s, const char *group, const tess_tensors *t,
                                          const char *prefix);

/* ---- plan and device ---------------------------------------------------------------------- */

typedef struct tess_device tess_device;
/* The null device plans and never computes; the cpu device computes. */
const tess_device *tess_device_null(void);
const tess_device *tess_device_cpu(void);
/* Plans as "cpu" or "cuda" would, with their operators and the scratch that these ask for, and
 * never computes: no card need be there. */
const tess_device *tess_device_describe(const char *name);
/* The first NVIDIA card (CUDA_VISIBLE_DEVICES says which), opened once a process.  TESS_DEVICE says
 * what is missing and what to do: no card, a driver that is too old, a card of another generation;
 * TESS_UNSUPPORTED: a program that was built without nvcc. */
TESS_MUST_USE tess_status tess_device_cuda(const tess_device **out);

/* "cpu" or "cuda"; another name is TESS_INVALID. */
TESS_MUST_USE tess_status tess_device_open(const char *name, const tess_device **out);

/* Memory shared by plans that never run at the same time; grows to the largest. */
typedef struct tess_workspace tess_workspace;
tess_workspace *tess_workspace_new(void);
void tess_workspace_free(tess_workspace *w);
size_t tess_workspace_bytes(const tess_workspace *w);

typedef struct tess_plan tess_plan;
/* Plans the nodes that `outputs` and the graph's effects need.  Checks itself: a replay with
 * byte-range ownership; a fault is TESS_INVALID "plan: ...".  The plan keeps its own copy of what
 * it needs of g; store and workspace must outlive it. */
TESS_MUST_USE tess_status tess_plan_build(const tess_graph *g, const tess_value *outputs,
                                          int64_t n_outputs, const tess_device *device,
                                          tess_store *store, tess_workspace *workspace,
                                          tess_plan **out);
void tess_plan_free(tess_plan *p);
/* Binds an input leaf; the pointer must stay valid while the plan runs. */
TESS_MUST_USE tess_status tess_plan_bind(tess_plan *p, const char *input, const void *data);
/* The same for data of which only the first n_bytes are there, and are copied to a device with
 * memory of its own: the input's shape is what there may be at most, and what the graph reads of it
 * is said by another input. */
TESS_MUST_USE tess_status tess_plan_bind_part(tess_plan *p, const char *input, const void *data,
                                              size_t n_bytes);
TESS_MUST_USE tess_status tess_plan_run(tess_plan *p);
/* Step by step: poisons released memory, checks every output, and fails at the first NaN or
 * infinity with the module path. */
TESS_MUST_USE tess_status tess_plan_run_debug(tess_plan *p);
/* An output's data, valid until another plan of the workspace runs.  NULL, with the message set,
 * where a device with memory of its own cannot hand it over: the plan's work failed there. */
const void *tess_plan_output(const tess_plan *p, tess_value v);

/* f32 scalars of plans, in the order in which they were asked for: a device with memory of its own
 * is not waited for until they are read.  At most `capacity` are on their way. */
typedef struct tess_readback tess_readback;
TESS_MUST_USE tess_status tess_readback_new(const tess_device *device, int64_t capacity,
                                            tess_readback **out);
void tess_readback_free(tess_readback *r);
/* v as the runs so far have left it; the tag comes back with it.  TESS_INVALID: v is no f32 scalar,
 * or too many were not read. */
TESS_MUST_USE tess_status tess_readback_add(tess_readback *r, const tess_plan *p, tess_value v,
                                            int64_t tag);
/* The oldest.  *out_there false: none was asked for or, without `wait`, it has not arrived. */
TESS_MUST_USE tess_status tess_readback_read(tess_readback *r, bool wait, float *out,
                                             int64_t *out_tag, bool *out_there);

typedef struct tess_plan_stats {
    int64_t n_steps;
    size_t arena_bytes, scratch_bytes,
        live_bytes;     /* placed; largest operator scratch; sum of live */
    size_t input_bytes; /* bound, not placed */
    size_t paged_bytes; /* of paged states that steps use at once, at most */
    double flops;       /* of one run, by the operators' own counts */
} tess_plan_stats;
tess_plan_stats tess_plan_get_stats(const tess_plan *p);
/* Steps that are alike: of one operator, with as many operations and bytes. */
typedef struct tess_op_cost {
    const char *op;      /* its name in the table */
    tess_dtype dtype;    /* bf16 or f16 where an input is, else f32 */
    int64_t n;           /* so many steps */
    double flops, bytes; /* of one: by its own count; read and written, each operand once */
    double seconds;      /* of one, a mean over profiled runs; 0: there were none */
} tess_op_cost;
/* In the order of their first steps; the caller frees *out with tess_free. */
TESS_MUST_USE tess_status tess_plan_costs(const tess_plan *p, tess_op_cost **out, int64_t *out_n);
void tess_plan_print(const tess_plan *p, tess_buf *out);
/* Seconds and FLOPs per operator name over all runs since profiling was switched on. */
void tess_plan_profile(tess_plan *p, bool on);
void tess_plan_print_profile(const tess_plan *p, tess_buf *out);

/* What is chosen by its speed, which differs from run to run, is chosen by rule instead: on a CUDA
 * device, the algorithms of matrix products, and our kernels for attention.  All else repeats bit
 * for bit as it is.  Set before the first plan runs. */
void tess_compute_deterministic(bool on);
/* Threads that operators use; 0: all of tess_cpu_count(). */
void tess_compute_threads(int n);

/* ---- ranks -------------------------------------------------------------------------------- */

/* The processes of one job, numbered 0..R-1.  All call the same collectives with the same counts in
 * the same order; each call is numbered and compared across ranks before it begins, so that ranks
 * that disagree, and one that does not come within the time limit, are an error that names them
 * (TESS_COMM) on every rank that is there.  After an error nothing but tess_comm_abort and
 * tess_comm_close may follow.  Called by one thread. */
typedef struct tess_comm tess_comm;
typedef struct tess_comm_options {
    double seconds; /* limit of every wait; 0: 600 */
} tess_comm_options;
/* By MPI where a launcher started more than one process (mpirun, srun), else alone: rank 0 of 1.
 * TESS_COMM, with what to install, where MPI is missing. */
TESS_MUST_USE tess_status tess_comm_open(const tess_comm_options *o, tess_comm **out);
/* Waits until all ranks have come; after an error it does not wait. */
void tess_comm_close(tess_comm *c);
/* Rank 0 of `ranks` that are not there: for plans on the null device.  Nothing is carried. */
TESS_MUST_USE tess_status tess_comm_describe(int ranks, tess_comm **out);
/* Ends all processes of the job, this one with `code`; alone it does nothing. */
void tess_comm_abort(tess_comm *c, int code);
int tess_comm_rank(const tess_comm *c);
int tess_comm_size(const tess_comm *c);
int tess_comm_local_size(const tess_comm *c); /* ranks on this host */
/* Payload bytes that this rank has sent to others in collectives, by the least that an algorithm
 * can do: 2 n (R-1)/R for n bytes all-reduced, n (R-1)/R for n reduced and scattered or gathered.
 */
int64_t tess_comm_wire_bytes(const tess_comm *c);

/* Buffers of its sums; of a described job, as those over more than a few numbers make them. */
size_t tess_comm_bytes(const tess_comm *c);

TESS_MUST_USE tess_status tess_comm_barrier(tess_comm *c);
TESS_MUST_USE tess_status tess_comm_broadcast(tess_comm *c, void *data, size_t n_bytes, int root);
/* x = the sum of all ranks' x, f32 or bf16: added in f32 in the order of ranks and, for bf16,
 * rounded once.  So an all_reduce has the bits of a reduce_scatter and an all_gather, and every run
 * the same. */
TESS_MUST_USE tess_status tess_comm_all_reduce(tess_comm *c, void *x, tess_dtype dtype, int64_t n);
/* mine (counts[rank]) = this rank's part of the sum of all ranks' x (sum of counts).  `mine` may
 * lie in its place in x, the rest of which stays as it is. */
TESS_MUST_USE tess_status tess_comm_reduce_scatter(tess_comm *c, const void *x, tess_dtype dtype,
                                                   const int64_t *counts, void *mine);
/* all = every rank's n_bytes[rank] bytes, in the order of ranks.  `mine` may lie in its place. */
TESS_MUST_USE tess_status tess_comm_all_gather(tess_comm *c, const void *mine,
                                               const int64_t *n_bytes, void *all);
/* Whether `hash` is the same everywhere; else an error that says which ranks' `what` differs from
 * rank 0's. */
TESS_MUST_USE tess_status tess_comm_agree(tess_comm *c, const char *what, uint64_t hash);

/* x (K*B,Z) f32 of K slots on each rank -> (K*R*B,Z): slot k is the rows of rank 0, 1, .. in slot
 * k.  Its gradient is the sum over ranks for this rank's rows.  Alone, or with NULL, x itself. comm
 * must outlive the graph's plans. */
tess_value tess_all_gather(tess_graph *g, tess_comm *comm, tess_value x, int64_t slots);
/* The objectives over all ranks' pairs, each rank doing 1/R of the work: a (R*B,Z) of all ranks, as
 * tess_all_gather gives it, b (K*B,Z) of this rank.  The loss is the job's, on every rank;
 * gradients are this rank's part, whose sum over ranks is the whole (b's is whole).  Softmax: lse
 * of rows is (K,R*B).  comm NULL or
 * alone: the objective of a and b. */
tess_value tess_contrast_softmax_over(tess_graph *g, tess_comm *comm, tess_value a, tess_value b,
                                      tess_value log_scale);
tess_value tess_contrast_sigmoid_over(tess_graph *g, tess_comm *comm, tess_value a, tess_value b,
                                      tess_value log_scale, tess_value bias);

#endif
