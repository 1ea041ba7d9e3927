/* SPDX-License-Identifier: Apache-2.0 */
/* oneDNN's matmul primitive behind one object.
 *
 * Many rows of bf16 against a small B go to a kernel of the engine (kernels/rows_pairs.c), which
 * fetches rows while it multiplies.  Every other product is a `matmul`: on the shapes of training
 * it is as fast as or faster than inner_product forward, backward-data and backward-weights
 * (430-460, 420-455, 380-430 GF/s bf16 on two Zen 4 cores, against 430-450, 385-415, 340-400), so
 * there is one way.
 *
 * Departures from the obvious: weights are brought into the library's blocked layout in every run
 * (`pack`), since they change in every step and the copy costs 1 % of what it gains; below AVX-512
 * BF16, where the library refuses bf16 or emulates it at a third of its f32 speed, bf16 operands
 * are widened to f32 scratch and the result is narrowed, which differs from the fast path only in
 * rounding the residual sum once. */
#include "tensor/matmul.h"

#include <dnnl.h>
#include <pthread.h>
#include <string.h>

#include "tensor/kernels.h"
#include "tensor/op.h"
#include "tensor/parallel.h"

enum { A, B, PACKED, BIAS, RESIDUAL, C, PAD, N_MEMORY };

struct tess_matmul {
    tess_matmul_spec spec;
    bool own;           /* by the engine's kernel, without the library */
    tess_dtype in, out; /* as the library sees them */
    dnnl_primitive_t product, reorder;
    dnnl_memory_t memory[N_MEMORY];
    size_t packed_bytes, pad_bytes;
};

/* ---- the library -------------------------------------------------------------------------- */

static struct {
    pthread_once_t once;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_status_t status;
} library = {.once = PTHREAD_ONCE_INIT};

static tess_status fail(dnnl_status_t s, const char *what)
{
    static const char *const names[] = {"success",         "out of memory",   "invalid arguments",
                                        "not implemented", "end of iterator", "runtime error",
                                        "features missing"};
    const char *name = (size_t)s < sizeof names / sizeof names[0] ? names[s] : "unknown error";
    return TESS_FAIL(s == dnnl_out_of_memory ? TESS_NOMEM : TESS_DEVICE, "oneDNN: %s: %s", what,
                     name);
}

#define DNNL(expr)                                                                                 \
    do {                                                                                           \
        const dnnl_status_t dnnl_status_ = (expr);                                                 \
        if (dnnl_status_ != dnnl_success) {                                                        \
            return fail(dnnl_status_, #expr);                                                      \
        }                                                                                          \
    } while (0)

/* The cap can only be set before the library's first use.  Baseline x86-64 is SSE4.1 to it. */
static void start(void)
{
    static const dnnl_cpu_isa_t caps[TESS_ISA_COUNT] = {
        [TESS_ISA_BASE] = dnnl_cpu_isa_sse41,
        [TESS_ISA_AVX2] = dnnl_cpu_isa_avx2,
        [TESS_ISA_AVX512] = dnnl_cpu_isa_avx512_core,
        [TESS_ISA_AVX512VNNI] = dnnl_cpu_isa_avx512_core_vnni,
        [TESS_ISA_AVX512BF16] = dnnl_cpu_isa_all,
    };
    dnnl_set_max_cpu_isa(caps[tess_isa_get()]); /* refused off x86, which is fine */
    library.status = dnnl_engine_create(&library.engine, dnnl_cpu, 0);
    if (library.status == dnnl_success) {
        library.status =
            dnnl_stream_create(&library.stream, library.engine, dnnl_stream_default_flags);
    }
}

const char *tess__matmul_version(void)
{
    static char text[32];
    const dnnl_version_t *v = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", v->major, v->minor, v->patch);
    return text;
}

/* ---- set-up ------------------------------------------------------------------------------- */

static dnnl_data_type_t type_of(tess_dtype t)
{
    return t == TESS_BF16 ? dnnl_bf16 : dnnl_f32;
}

static tess_status describe(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, tess_dtype t,
                            bool transposed)
{
    const dnnl_dims_t dims = {rows, cols};
    const dnnl_dims_t strides = {transposed ? 1 : cols, transposed ? rows : 1};
    DNNL(dnnl_memory_desc_init_by_strides(md, 2, dims, type_of(t), strides));
    return TESS_OK;
}

static tess_status make_attributes(const tess_matmul *m, const dnnl_memory_desc_t *c,
                                   dnnl_primitive_attr_t attr)
{
    DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
    dnnl_post_ops_t ops;
    DNNL(dnnl_post_ops_create(&ops));
    dnnl_status_t s = dnnl_success;
    if (m->spec.accumulate) {
        s = dnnl_post_ops_append_sum(ops, 1.0f);
    }
    if (m->spec.relu) {
        s = dnnl_post_ops_append_eltwise(ops, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f);
    }
    if (s == dnnl_success && m->spec.residual) {
        s = dnnl_post_ops_append_binary(ops, dnnl_binary_add, c);
    }
    if (s == dnnl_success) {
        s = dnnl_primitive_attr_set_post_ops(attr, ops);
    }
    dnnl_post_ops_destroy(ops);
    return s == dnnl_success ? TESS_OK : fail(s, "post-ops");
}

/* The reorder that packs B, when the product wants another layout than B's own. */
static tess_status make_reorder(tess_matmul *m, const dnnl_memory_desc_t *plain,
                                const dnnl_memory_desc_t *packed)
{
    if (dnnl_memory_desc_equal(plain, packed)) {
        return TESS_OK;
    }
    dnnl_primitive_attr_t attr;
    DNNL(dnnl_primitive_attr_create(&attr));
    dnnl_primitive_desc_t pd = NULL;
    dnnl_status_t s = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (s == dnnl_success) {
        s = dnnl_reorder_primitive_desc_create(&pd, plain, library.engine, packed, library.engine,
                                               attr);
    }
    dnnl_primitive_attr_destroy(attr);
    DNNL(s);
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    m->pad_bytes = dnnl_memory_desc_get_size(pad);
    s = dnnl_primitive_create(&m->reorder, pd);
    dnnl_primitive_desc_destroy(pd);
    DNNL(s);
    m->packed_bytes = dnnl_memory_desc_get_size(packed);
    return TESS_OK;
}

static tess_status add_memory(tess_matmul *m, int which, const dnnl_memory_desc_t *md)
{
    DNNL(dnnl_memory_create(&m->memory[which], md, library.engine, DNNL_MEMORY_NONE));
    return TESS_OK;
}

static tess_status make_memories(tess_matmul *m, const dnnl_memory_desc_t md[N_MEMORY],
                                 dnnl_primitive_desc_t pd)
{
    const dnnl_memory_desc_t *packed = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    const dnnl_memory_desc_t *pad = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    TESS_TRY(make_reorder(m, &md[B], packed));
    const size_t pad_bytes = dnnl_memory_desc_get_size(pad);
    m->pad_bytes = pad_bytes > m->pad_bytes ? pad_bytes : m->pad_bytes;
    const dnnl_dims_t pad_dims = {(dnnl_dim_t)m->pad_bytes};
    dnnl_memory_desc_t pads;
    DNNL(dnnl_memory_desc_init_by_tag(&pads, 1, pad_dims, dnnl_u8, dnnl_a));
    TESS_TRY(add_memory(m, PAD, &pads));
    TESS_TRY(add_memory(m, PACKED, packed));
    for (int i = 0; i < PAD; i++) {
        if (i != PACKED) {
            TESS_TRY(add_memory(m, i, &md[i]));
        }
    }
    return TESS_OK;
}

static tess_status make_product(tess_matmul *m, const dnnl_memory_desc_t md[N_MEMORY],
                                dnnl_primitive_attr_t attr)
{
    dnnl_matmul_desc_t desc;
    const dnnl_memory_desc_t *bias = m->spec.bias ? &md[BIAS] : NULL;
    DNNL(dnnl_matmul_desc_init(&desc, &md[A], m->spec.pack ? &md[PACKED] : &md[B], bias, &md[C]));
    dnnl_primitive_desc_t pd;
    DNNL(dnnl_primitive_desc_create(&pd, &desc, attr, library.engine, NULL));
    tess_status st = make_memories(m, md, pd);
    if (st == TESS_OK) {
        const dnnl_status_t s = dnnl_primitive_create(&m->product, pd);
        st = s == dnnl_success ? TESS_OK : fail(s, "primitive");
    }
    dnnl_primitive_desc_destroy(pd);
    return st;
}

static tess_status set_up(tess_matmul *m)
{
    const tess_matmul_spec *s = &m->spec;
    const dnnl_dims_t dims = {s->k, s->n}, bias = {1, s->n}, bias_strides = {s->n, 1};
    dnnl_memory_desc_t md[N_MEMORY];
    memset(md, 0, sizeof md);
    TESS_TRY(describe(&md[A], s->m, s->k, m->in, s->a_trans));
    TESS_TRY(describe(&md[B], s->k, s->n, m->in, s->b_trans));
    TESS_TRY(describe(&md[C], s->m, s->n, m->out, false));
    md[RESIDUAL] = md[C];
    DNNL(dnnl_memory_desc_init_by_strides(&md[BIAS], 2, bias, dnnl_f32, bias_strides));
    DNNL(dnnl_memory_desc_init_by_tag(&md[PACKED], 2, dims, type_of(m->in), dnnl_format_tag_any));
    dnnl_primitive_attr_t attr;
    DNNL(dnnl_primitive_attr_create(&attr));
    tess_status st = make_attributes(m, &md[C], attr);
    st = st ? st : make_product(m, md, attr);
    dnnl_primitive_attr_destroy(attr);
    return st;
}

/* Many rows of bf16 against a small B, which is packed in every run anyway: the library is slower
 * when the rows are not in cache, as in training they never are. */
static bool is_own(const tess_matmul_spec *s)
{
    return tess__kernels()->rows_product && s->in == TESS_BF16 && s->out == TESS_BF16 && s->pack &&
           !s->a_trans && !s->accumulate && !s->single && s->m > 0 && s->k > 0 && s->k % 2 == 0 &&
           s->n > 0 && s->n % 16 == 0;
}

tess_status tess__matmul_new(const tess_matmul_spec *spec, tess_matmul **out)
{
    pthread_once(&library.once, start);
    if (library.status != dnnl_success) {
        return fail(library.status, "engine");
    }
    tess_matmul *m = tess_alloc(sizeof *m);
    if (!m) {
        return TESS_NOMEM;
    }
    const bool widen = tess_isa_get() < TESS_ISA_AVX512BF16;
    m->spec = *spec;
    m->own = is_own(spec);
    m->in = widen ? TESS_F32 : spec->in;
    m->out = widen ? TESS_F32 : spec->out;
    const bool empty = spec->m == 0 || spec->n == 0 || spec->k == 0;
    /* The library wants a primitive to run on as many threads as there were when it was made. */
    const int threads = omp_get_max_threads();
    if (spec->single) {
        omp_set_num_threads(1);
    }
    tess_status st = empty || m->own ? TESS_OK : set_up(m);
    omp_set_num_threads(threads);
    if (st != TESS_OK) {
        tess__matmul_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

void tess__matmul_free(void *object)
{
    tess_matmul *m = object;
    if (!m) {
        return;
    }
    for (int i = 0; i < N_MEMORY; i++) {
        if (m->memory[i]) {
            dnnl_memory_destroy(m->memory[i]);
        }
    }
    if (m->product) {
        dnnl_primitive_destroy(m->product);
    }
    if (m->reorder) {
        dnnl_primitive_destroy(m->reorder);
    }
    tess_free(m);
}

/* ---- runs --------------------------------------------------------------------------------- */

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Elements of A, B, C. */
static int64_t n_items(const tess_matmul *m, int which)
{
    const tess_matmul_spec *s = &m->spec;
    return which == A ? s->m * s->k : which == B ? s->k * s->n : s->m * s->n;
}

static size_t wide_bytes(const tess_matmul *m, int which, tess_dtype have, tess_dtype want)
{
    return have == want ? 0 : round_up((size_t)n_items(m, which) * sizeof(float));
}

static int64_t n_panels(const tess_matmul *m)
{
    return (m->spec.n + TESS_PANEL - 1) / TESS_PANEL;
}

size_t tess__matmul_scratch(const tess_matmul *m)
{
    if (m->own) {
        return (size_t)(n_panels(m) * (m->spec.k / 2) * TESS_PANEL) * sizeof(float);
    }
    return round_up(m->packed_bytes) + round_up(m->pad_bytes) +
           wide_bytes(m, A, m->spec.in, m->in) + wide_bytes(m, B, m->spec.in, m->in) +
           wide_bytes(m, C, m->spec.out, m->out) * (m->spec.residual ? 2 : 1);
}

/* x itself, or its values as f32 in scratch, which moves on. */
static const void *widened(const tess_matmul *m, int which, const void *x, tess_dtype have,
                           tess_dtype want, char **scratch)
{
    const size_t bytes = wide_bytes(m, which, have, want);
    if (!bytes || !x) {
        return x;
    }
    void *to = *scratch;
    *scratch += bytes;
    tess__convert(want, to, have, x, n_items(m, which));
    return to;
}

static void bind(tess_matmul *m, int which, const void *data)
{
    dnnl_memory_set_data_handle(m->memory[which], (void *)(uintptr_t)data);
}

static tess_status execute(tess_matmul *m, const tess_matmul_args *a, void *c, char *scratch)
{
    bind(m, A, a->a);
    bind(m, B, a->b);
    bind(m, C, c);
    bind(m, PAD, scratch + round_up(m->packed_bytes));
    if (m->reorder) {
        bind(m, PACKED, scratch);
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, m->memory[B]},
                                        {DNNL_ARG_TO, m->memory[PACKED]},
                                        {DNNL_ARG_SCRATCHPAD, m->memory[PAD]}};
        DNNL(dnnl_primitive_execute(m->reorder, library.stream, 3, args));
    }
    dnnl_exec_arg_t args[6] = {
        {DNNL_ARG_SRC, m->memory[A]},
        {DNNL_ARG_WEIGHTS, m->memory[m->reorder ? PACKED : B]},
        {DNNL_ARG_DST, m->memory[C]},
        {DNNL_ARG_SCRATCHPAD, m->memory[PAD]},
    };
    int n = 4;
    if (m->spec.bias) {
        bind(m, BIAS, a->bias);
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, m->memory[BIAS]};
    }
    if (m->spec.residual) {
        bind(m, RESIDUAL, a->residual);
        const int position = m->spec.relu ? 1 : 0;
        args[n++] = (dnnl_exec_arg_t){DNNL_ARG_ATTR_MULTIPLE_POST_OP(position) | DNNL_ARG_SRC_1,
                                      m->memory[RESIDUAL]};
    }
    DNNL(dnnl_primitive_execute(m->product, library.stream, n, args));
    DNNL(dnnl_stream_wait(library.stream));
    return TESS_OK;
}

/* Without a product (m, n or k is 0) C is what the sum over nothing leaves. */
static void run_empty(const tess_matmul *m, const tess_matmul_args *a)
{
    if (!m->spec.accumulate) {
        memset(a->c, 0, (size_t)n_items(m, C) * tess_dtype_bytes(m->spec.out));
    }
}

/* Rows in as many runs as there are threads, of whole tiles. */
static void run_own(const tess_matmul *m, const tess_matmul_args *a)
{
    enum { TILE = 6 };
    const tess_kernels *kernels = tess__kernels();
    const tess_matmul_spec *s = &m->spec;
    const int64_t slots = tess__slots(), per = (s->m + slots * TILE - 1) / (slots * TILE) * TILE;
#pragma omp parallel num_threads((int)slots)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n_panels(m); i++) {
            kernels->rows_pack(a->scratch, a->b, s->k, s->n, s->b_trans, i);
        }
#pragma omp for schedule(static, 1)
        for (int64_t i = 0; i < slots; i++) {
            const int64_t first = i * per, left = s->m - first;
            if (left > 0) {
                kernels->rows_product(&(tess_rows_args){
                    .a = tess__at(a->a, TESS_BF16, first * s->k),
                    .residual = s->residual ? tess__at(a->residual, TESS_BF16, first * s->n) : NULL,
                    .panels = a->scratch,
                    .bias = s->bias ? a->bias : NULL,
                    .c = tess__at_mut(a->c, TESS_BF16, first * s->n),
                    .rows = left < per ? left : per,
                    .k = s->k,
                    .n = s->n,
                    .relu = s->relu,
                });
            }
        }
    }
}

tess_status tess__matmul_run(tess_matmul *m, const tess_matmul_args *a)
{
    if (m->own) {
        run_own(m, a);
        return TESS_OK;
    }
    if (!m->product) {
        run_empty(m, a);
        return TESS_OK;
    }
    const tess_matmul_spec *s = &m->spec;
    char *scratch = a->scratch;
    tess_matmul_args wide = *a;
    wide.a = widened(m, A, a->a, s->in, m->in, &scratch);
    wide.b = widened(m, B, a->b, s->in, m->in, &scratch);
    if (s->residual) {
        wide.residual = widened(m, C, a->residual, s->out, m->out, &scratch);
    }
    const size_t c_bytes = wide_bytes(m, C, s->out, m->out);
    void *c = c_bytes ? scratch : a->c;
    scratch += c_bytes;
    TESS_TRY(execute(m, &wide, c, scratch));
    if (c_bytes) {
        tess__convert(s->out, a->c, m->out, c, n_items(m, C));
    }
    return TESS_OK;
}
