/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels attention runs.
 *
 * Both are run a few times on the operands themselves, one after the other as a replayed graph
 * would, and timed together, so that the host's work hides behind the card's.  The results are
 * those of the one that is kept, which runs last.  The choice is kept on disk, by card, driver and
 * library, since a run can only be repeated bit for bit by the kernels that it had. */
#include "tensor/cuda_attention.h"
#include "tensor/cuda_cache.h"
#include "tensor/cuda_cudnn.h"
#include "tensor/ops/sdpa.h"

#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <string.h>

#define TIMED_RUNS      4
#define WORKSPACE_ALIGN 256

/* ---- what cuDNN may serve ---------------------------------------------------------------------
 */

static bool dense_rows(const tess_operand *in, const sdpa_geometry *g)
{
    return in[SDPA_QKV].dtype == TESS_BF16 && !g->packed && g->head_dim % 8 == 0 &&
           g->head_dim <= 128 && g->n_segments > 0 && g->max_q > 0 && g->max_k > 0;
}

static tess_attention_use use;

void tess__cuda_attention_use(tess_attention_use which)
{
    use = which;
}

static tess_attention_spec spec_of(const sdpa_geometry *g, bool grad)
{
    return (tess_attention_spec){
        .n_segments = g->n_segments,
        .heads = g->heads,
        .n_q = g->max_q,
        .n_k = g->max_k,
        .head_dim = g->head_dim,
        .q_row = g->q_row,
        .kv_row = g->kv_row,
        .y_row = g->width,
        .causal = g->causal,
        .grad = grad,
    };
}

/* ---- choices ----------------------------------------------------------------------------------
 */

typedef enum verdict { UNKNOWN, OURS, CUDNN } verdict;

static tess_cache cache;

static tess_status check_cuda(cudaError_t e, const char *what)
{
    return e == cudaSuccess ? TESS_OK
                            : TESS_FAIL(TESS_DEVICE, "%s: %s", what, cudaGetErrorString(e));
}

static tess_status describe_place(tess_buf *out)
{
    struct cudaDeviceProp card;
    int device = 0, driver = 0;
    TESS_TRY(check_cuda(cudaGetDevice(&device), "asking the card"));
    TESS_TRY(check_cuda(cudaGetDeviceProperties(&card, device), "asking the card"));
    TESS_TRY(check_cuda(cudaDriverGetVersion(&driver), "asking the driver"));
    tess_buf_addf(out, "%s %d.%d %d multiprocessors driver %d cudnn %zu", card.name, card.major,
                  card.minor, card.multiProcessorCount, driver, tess__cudnn_version());
    return tess_buf_check(out);
}

static tess_status open_cache(void)
{
    tess_buf place = {0};
    if (cache.place) {
        return TESS_OK;
    }
    tess_status st = describe_place(&place);
    st = st ? st : tess__cache_open(&cache, place.data);
    tess_buf_deinit(&place);
    return st;
}

static tess_status print_key(const tess_attention_spec *s, tess_buf *out)
{
    tess_buf_addf(out,
                  "attention %" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64
                  " rows %" PRId64 " %" PRId64 " %" PRId64 "%s%s",
                  s->n_segments, s->heads, s->n_q, s->n_k, s->head_dim, s->q_row, s->kv_row,
                  s->y_row, s->causal ? " causal" : "", s->grad ? " gradient" : "");
    return tess_buf_check(out);
}

static tess_status find_choice(const tess_attention_spec *s, verdict *out)
{
    tess_buf key = {0};
    *out = use == TESS_ATTENTION_CUDNN ? CUDNN : UNKNOWN;
    if (use == TESS_ATTENTION_CUDNN) {
        return TESS_OK;
    }
    TESS_TRY(open_cache());
    const tess_status st = print_key(s, &key);
    const char *kept = st ? NULL : tess__cache_find(&cache, key.data);
    if (kept) {
        *out = strcmp(kept, "cudnn") == 0 ? CUDNN : strcmp(kept, "ours") == 0 ? OURS : UNKNOWN;
    }
    tess_buf_deinit(&key);
    return st;
}

static tess_status keep_choice(const tess_attention_spec *s, bool cudnn)
{
    tess_buf key = {0};
    TESS_TRY(open_cache());
    tess_status st = print_key(s, &key);
    st = st ? st : tess__cache_keep(&cache, key.data, cudnn ? "cudnn" : "ours");
    tess_buf_deinit(&key);
    return st;
}

/* cuDNN's plan where it may run, and what is known of the choice.  Where ours was chosen no plan is
 * compiled.  Scratch is asked for when a plan is built and used when it runs, so what once was not
 * to be had, for want of memory or in deterministic mode, is not had later either. */
static tess_cudnn_plan *find_plan(const tess_attention_spec *s, const tess_operand *in,
                                  const sdpa_geometry *g, verdict *known)
{
    static bool gave_up;
    gave_up = gave_up || (use == TESS_ATTENTION_FASTER && tess__is_deterministic());
    *known = OURS;
    if (use == TESS_ATTENTION_OURS || gave_up || !dense_rows(in, g) || tess__cudnn_version() == 0) {
        return NULL;
    }
    gave_up = find_choice(s, known) != TESS_OK;
    return gave_up || *known == OURS ? NULL : tess__cudnn_plan(s);
}

/* ---- running ----------------------------------------------------------------------------------
 */

static size_t own_scratch(const sdpa_geometry *g, bool grad)
{
    return grad ? (size_t)(g->heads * g->n_q) * sizeof(float) : 0;
}

static void *align_up(void *p)
{
    return (void *)(((uintptr_t)p + WORKSPACE_ALIGN - 1) / WORKSPACE_ALIGN * WORKSPACE_ALIGN);
}

static const char *at_element(const void *rows, int64_t i)
{
    return (const char *)rows + i * (int64_t)sizeof(uint16_t);
}

static tess_status run_cudnn(const tess_exec *e, const sdpa_geometry *g, bool grad,
                             const tess_cudnn_plan *p)
{
    const void *kv = g->cross ? e->in[SDPA_KV].data : e->in[SDPA_QKV].data;
    tess_cudnn_args a = {
        .q = e->in[SDPA_QKV].data,
        .k = at_element(kv, g->k_at),
        .v = at_element(kv, g->v_at),
        .workspace = align_up((char *)e->scratch + own_scratch(g, grad)),
    };
    if (grad) {
        void *dkv = e->out[g->cross].data;
        a.y = e->in[SDPA_Y].data;
        a.lse = e->in[SDPA_LSE].data;
        a.dy = e->in[SDPA_DY].data;
        a.dq = e->out[0].data;
        a.dk = (void *)at_element(dkv, g->k_at);
        a.dv = (void *)at_element(dkv, g->v_at);
        a.delta = e->scratch;
        if (!g->cross) {
            TESS_TRY(tess__cuda_zero(e->out[1].data, sizeof(uint16_t), e->stream));
        }
    } else {
        a.y = e->out[0].data;
        a.lse = e->out[1].data;
    }
    return tess__cudnn_run(p, &a, e->stream);
}

typedef struct contest {
    const tess_exec *e;
    const sdpa_geometry *g;
    bool grad;
    tess_own_attention *own;
    const tess_cudnn_plan *plan;
} contest;

static tess_status run_one(const contest *c, bool cudnn)
{
    return cudnn ? run_cudnn(c->e, c->g, c->grad, c->plan) : c->own(c->e);
}

/* ---- timing -----------------------------------------------------------------------------------
 */

/* Milliseconds of TIMED_RUNS runs, after one that is not timed. */
static tess_status time_one(const contest *c, bool cudnn, const cudaEvent_t *events, float *out)
{
    TESS_TRY(run_one(c, cudnn));
    TESS_TRY(check_cuda(cudaEventRecord(events[0], c->e->stream), "timing attention"));
    for (int i = 0; i < TIMED_RUNS; i++) {
        TESS_TRY(run_one(c, cudnn));
    }
    TESS_TRY(check_cuda(cudaEventRecord(events[1], c->e->stream), "timing attention"));
    TESS_TRY(check_cuda(cudaEventSynchronize(events[1]), "timing attention"));
    return check_cuda(cudaEventElapsedTime(out, events[0], events[1]), "timing attention");
}

static tess_status time_both(const contest *c, const cudaEvent_t *events, bool *cudnn)
{
    float theirs = 0, ours = 0;
    *cudnn = time_one(c, true, events, &theirs) == TESS_OK;
    if (!*cudnn) {
        tess_log(TESS_LOG_WARN, "%s: attention runs in this program's own kernels", tess_error());
        return TESS_OK;
    }
    TESS_TRY(time_one(c, false, events, &ours));
    *cudnn = theirs < ours;
    tess_log(TESS_LOG_DEBUG, "attention: ours %.4f ms, cuDNN's %.4f ms",
             (double)(ours / TIMED_RUNS), (double)(theirs / TIMED_RUNS));
    return TESS_OK;
}

static tess_status choose(const contest *c, const tess_attention_spec *s, bool *cudnn)
{
    cudaEvent_t events[2] = {0};
    tess_status st = check_cuda(cudaEventCreateWithFlags(&events[0], 0), "timing attention");
    st = st ? st : check_cuda(cudaEventCreateWithFlags(&events[1], 0), "timing attention");
    st = st ? st : time_both(c, events, cudnn);
    for (int i = 0; i < 2; i++) {
        if (events[i]) {
            cudaEventDestroy(events[i]);
        }
    }
    return st ? st : keep_choice(s, *cudnn);
}

tess_status tess__cuda_attention(const tess_exec *e, bool grad, tess_own_attention *own)
{
    const sdpa_geometry g = tess__sdpa_describe(e->in, e->attrs);
    const tess_attention_spec s = spec_of(&g, grad);
    verdict known;
    contest c = {.e = e, .g = &g, .grad = grad, .own = own};
    c.plan = find_plan(&s, e->in, &g, &known);
    bool cudnn = c.plan && known == CUDNN;
    if (c.plan && known == UNKNOWN) {
        TESS_TRY(choose(&c, &s, &cudnn));
    }
    return run_one(&c, cudnn);
}

size_t tess__cuda_attention_scratch(const tess_prepare *c, bool grad)
{
    const sdpa_geometry g = tess__sdpa_describe(c->in, c->attrs);
    const tess_attention_spec s = spec_of(&g, grad);
    verdict known;
    const tess_cudnn_plan *p = find_plan(&s, c->in, &g, &known);
    return own_scratch(&g, grad) + (p ? tess__cudnn_workspace(p) + WORKSPACE_ALIGN : 0);
}
