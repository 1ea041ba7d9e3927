/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to cuDNN, through its C backend interface.
 *
 * Every object is a descriptor: created, given attributes, finalized.  Tensors and operations make
 * an operation graph, whose heuristics propose engine configurations; one of them becomes an
 * execution plan, and a variant pack says where the tensors lie in one run.
 *
 * The graphs are attention_graph.h's; cuDNN recognizes them and runs each as one or two kernels.
 * The gradient takes a workspace of the scores' gradients in bf16, with queries and keys filled up
 * to whole tiles.
 *
 * The library is opened when the first plan is asked for, so that the program runs where it is not
 * installed; and where its headers are not either, the program builds. */
#include "tensor/cuda_cudnn.h"

#if __has_include(<cudnn_graph.h>)
#include <cudnn_graph.h>
#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <string.h>

#define LEAST_VERSION   91301              /* attention as one operation, with statistics */
#define MOST_WORKSPACE  ((int64_t)2 << 30) /* above it our kernels are as good a use of memory */
#define MAX_DESCRIPTORS 128
#define MAX_CONFIGS     8
#define RANK            TESS_ATTENTION_RANK

/* ---- the library ---------------------------------------------------------------------------- */

#define FUNCTIONS(X)                                                                               \
    X(cudnnGetVersion)                                                                             \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnCreate)                                                                                 \
    X(cudnnSetStream)                                                                              \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendExecute)

static struct {
#define X(name) __typeof__(&name) name;
    FUNCTIONS(X)
#undef X
    cudnnHandle_t handle;
    bool tried;
} dnn;

static tess_status check(cudnnStatus_t s, const char *what)
{
    return s == CUDNN_STATUS_SUCCESS
               ? TESS_OK
               : TESS_FAIL(TESS_DEVICE, "cuDNN: %s: %s", what, dnn.cudnnGetErrorString(s));
}

static tess_status find_functions(void *library)
{
    static const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define X(name) {#name, offsetof(__typeof__(dnn), name)},
        FUNCTIONS(X)
#undef X
    };
    for (int64_t i = 0; i < TESS_COUNT(functions); i++) {
        void *found = dlsym(library, functions[i].name);
        if (!found) {
            return TESS_FAIL(TESS_UNSUPPORTED, "this cuDNN has no %s", functions[i].name);
        }
        memcpy((char *)&dnn + functions[i].at, &found, sizeof found);
    }
    return TESS_OK;
}

static tess_status open_library(void)
{
    void *library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_LOCAL);
    cudnnHandle_t handle = NULL;
    if (!library) {
        return TESS_FAIL(TESS_UNSUPPORTED, "cuDNN does not open (%s)", dlerror());
    }
    TESS_TRY(find_functions(library));
    if (dnn.cudnnGetVersion() < LEAST_VERSION) {
        return TESS_FAIL(TESS_UNSUPPORTED, "cuDNN %zu.%zu.%zu is too old",
                         dnn.cudnnGetVersion() / 10000, dnn.cudnnGetVersion() / 100 % 100,
                         dnn.cudnnGetVersion() % 100);
    }
    TESS_TRY(check(dnn.cudnnCreate(&handle), "opening the card"));
    dnn.handle = handle;
    return TESS_OK;
}

static bool is_open(void)
{
    if (!dnn.tried) {
        dnn.tried = true;
        if (open_library() != TESS_OK) {
            tess_log(TESS_LOG_INFO,
                     "%s: attention runs in this program's own kernels; with cuDNN %d.%d or newer "
                     "of CUDA 13 (libcudnn9-cuda-13) the faster of both would run",
                     tess_error(), LEAST_VERSION / 10000, LEAST_VERSION / 100 % 100);
        }
    }
    return dnn.handle != NULL;
}

/* ---- descriptors ------------------------------------------------------------------------------
 */

typedef cudnnBackendDescriptor_t descriptor;

struct tess_cudnn_plan {
    tess_attention_spec spec;
    descriptor made[MAX_DESCRIPTORS]; /* in this order; freed in the other */
    int n_made;
    descriptor tensor[AT_N_TENSORS]; /* NULL: not of this graph */
    descriptor run;                  /* the execution plan; NULL: cuDNN serves no such shapes */
    int64_t workspace_bytes;
};

static tess_status create(tess_cudnn_plan *p, cudnnBackendDescriptorType_t type, descriptor *out)
{
    if (p->n_made == MAX_DESCRIPTORS) {
        return TESS_FAIL(TESS_UNSUPPORTED, "cuDNN: more than %d descriptors", MAX_DESCRIPTORS);
    }
    TESS_TRY(check(dnn.cudnnBackendCreateDescriptor(type, out), "descriptor"));
    p->made[p->n_made++] = *out;
    return TESS_OK;
}

static void destroy_from(tess_cudnn_plan *p, int first)
{
    while (p->n_made > first) {
        dnn.cudnnBackendDestroyDescriptor(p->made[--p->n_made]);
    }
}

static tess_status set(descriptor d, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    return check(dnn.cudnnBackendSetAttribute(d, name, type, n, values), "attribute");
}

static tess_status set_descriptor(descriptor d, cudnnBackendAttributeName_t name, descriptor value)
{
    return set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static tess_status set_type(descriptor d, cudnnBackendAttributeName_t name, cudnnDataType_t value)
{
    return set(d, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

static tess_status set_i64(descriptor d, cudnnBackendAttributeName_t name, int64_t value)
{
    return set(d, name, CUDNN_TYPE_INT64, 1, &value);
}

static tess_status set_true(descriptor d, cudnnBackendAttributeName_t name)
{
    const bool yes = true;
    return set(d, name, CUDNN_TYPE_BOOLEAN, 1, &yes);
}

static tess_status finalize(descriptor d, const char *what)
{
    return check(dnn.cudnnBackendFinalize(d), what);
}

/* The tensor's descriptor, made where it is first used; its unique id is its number. */
static tess_status describe_tensor(tess_cudnn_plan *p, attention_tensor t, descriptor *out)
{
    static const cudnnDataType_t types[] = {
        [AT_BF16] = CUDNN_DATA_BFLOAT16,
        [AT_F32] = CUDNN_DATA_FLOAT,
        [AT_BOOL] = CUDNN_DATA_BOOLEAN,
    };
    const attention_tensor_info i = tess__attention_info(&p->spec, t);
    descriptor *d = &p->tensor[t];
    if (!*d) {
        TESS_TRY(create(p, CUDNN_BACKEND_TENSOR_DESCRIPTOR, d));
        TESS_TRY(set_i64(*d, CUDNN_ATTR_TENSOR_UNIQUE_ID, t));
        TESS_TRY(set_type(*d, CUDNN_ATTR_TENSOR_DATA_TYPE, types[i.type]));
        TESS_TRY(set(*d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, RANK, i.dim));
        TESS_TRY(set(*d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, RANK, i.stride));
        TESS_TRY(set_i64(*d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, i.scalar ? sizeof(float) : 16));
        TESS_TRY(i.scalar    ? set_true(*d, CUDNN_ATTR_TENSOR_IS_BY_VALUE)
                 : i.between ? set_true(*d, CUDNN_ATTR_TENSOR_IS_VIRTUAL)
                             : TESS_OK);
        TESS_TRY(finalize(*d, "tensor"));
    }
    *out = *d;
    return TESS_OK;
}

static tess_status set_tensor(tess_cudnn_plan *p, descriptor d, cudnnBackendAttributeName_t name,
                              attention_tensor t)
{
    descriptor x;
    if (t == AT_NONE) {
        return TESS_OK;
    }
    TESS_TRY(describe_tensor(p, tess__attention_tensor(&p->spec, t), &x));
    return set_descriptor(d, name, x);
}

static tess_status describe_attention(tess_cudnn_plan *p, const attention_op *o, descriptor d)
{
    (void)o;
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, AT_Q));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, AT_K));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, AT_V));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, AT_Y));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC, AT_LSE));
    return set_tensor(p, d, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, AT_SCALE);
}

static tess_status describe_product(tess_cudnn_plan *p, const attention_op *o, descriptor d)
{
    descriptor how;
    TESS_TRY(create(p, CUDNN_BACKEND_MATMUL_DESCRIPTOR, &how));
    TESS_TRY(set_type(how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_DATA_FLOAT));
    TESS_TRY(finalize(how, "product"));
    TESS_TRY(set_descriptor(d, CUDNN_ATTR_OPERATION_MATMUL_DESC, how));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, o->x));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, o->b));
    return set_tensor(p, d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, o->y);
}

static tess_status describe_reduction(tess_cudnn_plan *p, const attention_op *o, descriptor d)
{
    const cudnnReduceTensorOp_t mode =
        o->mode == AT_LARGEST ? CUDNN_REDUCE_TENSOR_MAX : CUDNN_REDUCE_TENSOR_ADD;
    descriptor how;
    TESS_TRY(create(p, CUDNN_BACKEND_REDUCTION_DESCRIPTOR, &how));
    TESS_TRY(set(how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &mode));
    TESS_TRY(set_type(how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_DATA_FLOAT));
    TESS_TRY(finalize(how, "reduction"));
    TESS_TRY(set_descriptor(d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, o->x));
    return set_tensor(p, d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, o->y);
}

static tess_status describe_reshape(tess_cudnn_plan *p, const attention_op *o, descriptor d)
{
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, o->x));
    return set_tensor(p, d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, o->y);
}

static tess_status describe_pointwise(tess_cudnn_plan *p, const attention_op *o, descriptor d)
{
    static const cudnnPointwiseMode_t modes[AT_N_MODES] = {
        [AT_ADD] = CUDNN_POINTWISE_ADD,         [AT_SUBTRACT] = CUDNN_POINTWISE_SUB,
        [AT_MULTIPLY] = CUDNN_POINTWISE_MUL,    [AT_DIVIDE] = CUDNN_POINTWISE_DIV,
        [AT_EXPONENTIAL] = CUDNN_POINTWISE_EXP, [AT_LOGARITHM] = CUDNN_POINTWISE_LOG,
        [AT_LARGEST] = CUDNN_POINTWISE_MAX,     [AT_INDEX] = CUDNN_POINTWISE_GEN_INDEX,
        [AT_NOT_LESS] = CUDNN_POINTWISE_CMP_GE, [AT_SELECT] = CUDNN_POINTWISE_BINARY_SELECT,
    };
    descriptor how;
    TESS_TRY(create(p, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &how));
    TESS_TRY(set(how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &modes[o->mode]));
    TESS_TRY(set_type(how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT));
    if (o->mode == AT_INDEX) {
        TESS_TRY(set_i64(how, CUDNN_ATTR_POINTWISE_AXIS, o->axis));
    }
    TESS_TRY(finalize(how, "pointwise"));
    TESS_TRY(set_descriptor(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, o->x));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, o->b));
    TESS_TRY(set_tensor(p, d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, o->t));
    return set_tensor(p, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, o->y);
}

static tess_status describe_op(tess_cudnn_plan *p, const attention_op *o, descriptor *out)
{
    static const struct {
        cudnnBackendDescriptorType_t type;
        tess_status (*describe)(tess_cudnn_plan *p, const attention_op *o, descriptor d);
    } kinds[] = {
        [AT_ATTENTION] = {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, describe_attention},
        [AT_PRODUCT] = {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, describe_product},
        [AT_REDUCTION] = {CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR, describe_reduction},
        [AT_RESHAPE] = {CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR, describe_reshape},
        [AT_POINTWISE] = {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, describe_pointwise},
    };
    TESS_TRY(create(p, kinds[o->kind].type, out));
    TESS_TRY(kinds[o->kind].describe(p, o, *out));
    return finalize(*out, "operation");
}

static tess_status describe_graph(tess_cudnn_plan *p, descriptor *out)
{
    int64_t n_ops, n = 0;
    const attention_op *ops = tess__attention_graph(&p->spec, &n_ops);
    descriptor nodes[MAX_DESCRIPTORS];
    for (int64_t i = 0; i < n_ops; i++) {
        if (!ops[i].masks || p->spec.causal) {
            TESS_TRY(describe_op(p, &ops[i], &nodes[n++]));
        }
    }
    TESS_TRY(create(p, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, out));
    TESS_TRY(set(*out, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, n, nodes));
    TESS_TRY(set(*out, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn.handle));
    return finalize(*out, "graph");
}

/* ---- plans -----------------------------------------------------------------------------------
 */

/* cuDNN's own word on it. */
static bool repeats(tess_cudnn_plan *p, descriptor config)
{
    cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    descriptor engine;
    int64_t n = 0;
    if (create(p, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != TESS_OK ||
        dnn.cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) ||
        dnn.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                     CUDNN_TYPE_NUMERICAL_NOTE, TESS_COUNT(notes), &n, notes)) {
        return false;
    }
    bool always = true;
    for (int64_t i = 0; i < n; i++) {
        always = always && notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    }
    return always;
}

static tess_status try_config(tess_cudnn_plan *p, descriptor config)
{
    descriptor run;
    int64_t n_bytes = 0, n = 0;
    if (!repeats(p, config)) {
        return TESS_FAIL(TESS_UNSUPPORTED, "cuDNN: an engine that does not repeat bit for bit");
    }
    TESS_TRY(create(p, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &run));
    TESS_TRY(set(run, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn.handle));
    TESS_TRY(set_descriptor(run, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config));
    TESS_TRY(finalize(run, "execution plan"));
    TESS_TRY(check(dnn.cudnnBackendGetAttribute(run, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                                CUDNN_TYPE_INT64, 1, &n, &n_bytes),
                   "workspace"));
    if (n_bytes > MOST_WORKSPACE) {
        return TESS_FAIL(TESS_UNSUPPORTED, "cuDNN: a workspace of %lld bytes", (long long)n_bytes);
    }
    p->run = run;
    p->workspace_bytes = n_bytes;
    return TESS_OK;
}

/* The first of the proposed configurations, best first by cuDNN's heuristics, that will do. */
static tess_status choose_engine(tess_cudnn_plan *p, descriptor graph)
{
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    descriptor heuristics, configs[MAX_CONFIGS];
    int64_t n = 0;
    TESS_TRY(create(p, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics));
    TESS_TRY(set_descriptor(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph));
    TESS_TRY(set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode));
    TESS_TRY(finalize(heuristics, "heuristics"));
    for (int i = 0; i < MAX_CONFIGS; i++) {
        TESS_TRY(create(p, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]));
    }
    TESS_TRY(
        check(dnn.cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                           CUDNN_TYPE_BACKEND_DESCRIPTOR, MAX_CONFIGS, &n, configs),
              "heuristics"));
    tess_status st = TESS_FAIL(TESS_UNSUPPORTED, "cuDNN: no engine");
    for (int64_t i = 0; i < n && i < MAX_CONFIGS && st; i++) {
        st = try_config(p, configs[i]);
    }
    return st;
}

static tess_cudnn_plan *add_plan(const tess_attention_spec *spec)
{
    descriptor graph;
    tess_cudnn_plan *p = tess_alloc(sizeof *p);
    if (!p) {
        return NULL;
    }
    *p = (tess_cudnn_plan){.spec = *spec};
    tess_status st = describe_graph(p, &graph);
    st = st ? st : choose_engine(p, graph);
    if (st) {
        tess_log(TESS_LOG_DEBUG, "attention of %lld x %lld x %lld x %lld: %s",
                 (long long)spec->n_segments, (long long)spec->heads, (long long)spec->n_q,
                 (long long)spec->head_dim, tess_error());
        destroy_from(p, 0);
    }
    return p;
}

tess_cudnn_plan *tess__cudnn_plan(const tess_attention_spec *spec)
{
    static tess_cudnn_plan **plans;
    static size_t n_plans, cap_plans;
    tess_cudnn_plan *p = NULL;
    if (!is_open()) {
        return NULL;
    }
    for (size_t i = 0; i < n_plans && !p; i++) {
        p = tess__attention_same(&plans[i]->spec, spec) ? plans[i] : NULL;
    }
    if (!p) {
        p = tess_grow(&plans, &cap_plans, n_plans + 1, sizeof *plans) ? NULL : add_plan(spec);
        if (!p) {
            dnn.handle = NULL; /* for good: who has got no plan has asked for no workspace */
            return NULL;
        }
        plans[n_plans++] = p;
    }
    return p->run ? p : NULL;
}

size_t tess__cudnn_workspace(const tess_cudnn_plan *p)
{
    return (size_t)p->workspace_bytes;
}

size_t tess__cudnn_version(void)
{
    return is_open() ? dnn.cudnnGetVersion() : 0;
}

/* ---- running ----------------------------------------------------------------------------------
 */

static tess_status execute(const tess_cudnn_plan *p, descriptor pack, const tess_cudnn_args *a)
{
    const float scale = 1.0f / sqrtf((float)p->spec.head_dim), lowest = -FLT_MAX, one = 1;
    const void *const of[AT_N_TENSORS] = {
        [AT_Q] = a->q,       [AT_K] = a->k,         [AT_KT] = a->k,    [AT_V] = a->v,
        [AT_VT] = a->v,      [AT_Y] = a->y,         [AT_LSE] = a->lse, [AT_DY] = a->dy,
        [AT_DQ] = a->dq,     [AT_DK] = a->dk,       [AT_DV] = a->dv,   [AT_DELTA] = a->delta,
        [AT_SCALE] = &scale, [AT_LOWEST] = &lowest, [AT_ONE] = &one,
    };
    const void *data[AT_N_TENSORS];
    int64_t ids[AT_N_TENSORS], n = 0;
    for (int64_t t = 0; t < AT_N_TENSORS; t++) {
        if (p->tensor[t] && of[t]) {
            ids[n] = t;
            data[n++] = of[t];
        }
    }
    TESS_TRY(set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids));
    TESS_TRY(set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, data));
    TESS_TRY(set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &a->workspace));
    TESS_TRY(finalize(pack, "variant pack"));
    return check(dnn.cudnnBackendExecute(dnn.handle, p->run, pack), "attention on the card");
}

tess_status tess__cudnn_run(const tess_cudnn_plan *p, const tess_cudnn_args *args, void *stream)
{
    descriptor pack;
    TESS_TRY(check(dnn.cudnnSetStream(dnn.handle, stream), "stream"));
    TESS_TRY(check(dnn.cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack),
                   "memory"));
    const tess_status st = execute(p, pack, args);
    dnn.cudnnBackendDestroyDescriptor(pack);
    return st;
}

#else

tess_cudnn_plan *tess__cudnn_plan(const tess_attention_spec *spec)
{
    (void)spec;
    return NULL;
}

size_t tess__cudnn_workspace(const tess_cudnn_plan *p)
{
    (void)p;
    return 0;
}

size_t tess__cudnn_version(void)
{
    return 0;
}

tess_status tess__cudnn_run(const tess_cudnn_plan *p, const tess_cudnn_args *args, void *stream)
{
    (void)p;
    (void)args;
    (void)stream;
    return TESS_FAIL(TESS_UNSUPPORTED, "this program was built without cuDNN's headers");
}

#endif
