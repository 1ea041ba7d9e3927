/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors of the emulated cuDNN.  They hold what NVIDIA's documentation and its 9.19 demand
 * of them: an attribute belongs to its descriptor, in type and number; what is required is there
 * when a descriptor is finalized; what it refers to is finalized before; nothing is set after.
 * Graphs are checked as wholes, a run has every tensor of its graph and no other. */
#include "emulate_cudnn.h"

#include "emulate.h"
#include "emulate_control.h"

#include <memory>
#include <set>
#include <stdlib.h>
#include <string.h>

using emulate_cudnn::attribute;
using emulate_cudnn::descriptor;

/* ---- the contract -----------------------------------------------------------------------------
 */

struct rule {
    int of, name;
    cudnnBackendAttributeType_t type;
    int64_t most;
    bool required;
};

static constexpr auto REFERS = CUDNN_TYPE_BACKEND_DESCRIPTOR;
#define NEEDS(of, name, type, most)                                                                \
    {                                                                                              \
        CUDNN_BACKEND_##of##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_##type, most, true          \
    }
#define TAKES(of, name, type, most)                                                                \
    {                                                                                              \
        CUDNN_BACKEND_##of##_DESCRIPTOR, CUDNN_ATTR_##name, CUDNN_TYPE_##type, most, false         \
    }
static const rule rules[] = {
    NEEDS(TENSOR, TENSOR_DATA_TYPE, DATA_TYPE, 1),
    NEEDS(TENSOR, TENSOR_DIMENSIONS, INT64, 8),
    NEEDS(TENSOR, TENSOR_STRIDES, INT64, 8),
    NEEDS(TENSOR, TENSOR_UNIQUE_ID, INT64, 1),
    NEEDS(TENSOR, TENSOR_BYTE_ALIGNMENT, INT64, 1),
    TAKES(TENSOR, TENSOR_IS_VIRTUAL, BOOLEAN, 1),
    TAKES(TENSOR, TENSOR_IS_BY_VALUE, BOOLEAN, 1),
    NEEDS(POINTWISE, POINTWISE_MODE, POINTWISE_MODE, 1),
    NEEDS(POINTWISE, POINTWISE_MATH_PREC, DATA_TYPE, 1),
    TAKES(POINTWISE, POINTWISE_AXIS, INT64, 1),
    NEEDS(OPERATION_POINTWISE, OPERATION_POINTWISE_PW_DESCRIPTOR, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_POINTWISE, OPERATION_POINTWISE_XDESC, BACKEND_DESCRIPTOR, 1),
    TAKES(OPERATION_POINTWISE, OPERATION_POINTWISE_BDESC, BACKEND_DESCRIPTOR, 1),
    TAKES(OPERATION_POINTWISE, OPERATION_POINTWISE_TDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_POINTWISE, OPERATION_POINTWISE_YDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(MATMUL, MATMUL_COMP_TYPE, DATA_TYPE, 1),
    NEEDS(OPERATION_MATMUL, OPERATION_MATMUL_DESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_MATMUL, OPERATION_MATMUL_ADESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_MATMUL, OPERATION_MATMUL_BDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_MATMUL, OPERATION_MATMUL_CDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(REDUCTION, REDUCTION_OPERATOR, REDUCTION_OPERATOR_TYPE, 1),
    NEEDS(REDUCTION, REDUCTION_COMP_TYPE, DATA_TYPE, 1),
    NEEDS(OPERATION_REDUCTION, OPERATION_REDUCTION_DESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_REDUCTION, OPERATION_REDUCTION_XDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_REDUCTION, OPERATION_REDUCTION_YDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_RESHAPE, OPERATION_RESHAPE_XDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_RESHAPE, OPERATION_RESHAPE_YDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_QDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_KDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_VDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_ODESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_STATSDESC, BACKEND_DESCRIPTOR, 1),
    TAKES(OPERATION_SDPA_FWD, OPERATION_SDPA_FWD_SCALEDESC, BACKEND_DESCRIPTOR, 1),
    NEEDS(OPERATIONGRAPH, OPERATIONGRAPH_HANDLE, HANDLE, 1),
    NEEDS(OPERATIONGRAPH, OPERATIONGRAPH_OPS, BACKEND_DESCRIPTOR, 64),
    NEEDS(ENGINEHEUR, ENGINEHEUR_OPERATION_GRAPH, BACKEND_DESCRIPTOR, 1),
    NEEDS(ENGINEHEUR, ENGINEHEUR_MODE, HEUR_MODE, 1),
    NEEDS(EXECUTION_PLAN, EXECUTION_PLAN_HANDLE, HANDLE, 1),
    NEEDS(EXECUTION_PLAN, EXECUTION_PLAN_ENGINE_CONFIG, BACKEND_DESCRIPTOR, 1),
    NEEDS(VARIANT_PACK, VARIANT_PACK_UNIQUE_IDS, INT64, 64),
    NEEDS(VARIANT_PACK, VARIANT_PACK_DATA_POINTERS, VOID_PTR, 64),
    NEEDS(VARIANT_PACK, VARIANT_PACK_WORKSPACE, VOID_PTR, 1),
};

static const rule *rule_of(int of, int name)
{
    for (const rule &r : rules) {
        if (r.of == of && r.name == name) {
            return &r;
        }
    }
    return nullptr;
}

static size_t size_of(cudnnBackendAttributeType_t t)
{
    return t == CUDNN_TYPE_BOOLEAN ? sizeof(bool)
           : t == CUDNN_TYPE_HANDLE || t == CUDNN_TYPE_INT64 || t == REFERS ||
                   t == CUDNN_TYPE_VOID_PTR
               ? 8
               : 4;
}

/* ---- state ------------------------------------------------------------------------------------
 */

static constexpr int64_t WORKSPACE = 3000;

static struct {
    std::string mode;
    cudaStream_t stream;
    std::set<descriptor *> alive;
    int runs, complaints;
} fake;

static bool is(const char *mode)
{
    return fake.mode == mode;
}

/* A broken contract: counted, so that a door which falls back on it is found out. */
static cudnnStatus_t refuse(const char *why, int what)
{
    fprintf(stderr, "emulated cuDNN: %s (%d)\n", why, what);
    fake.complaints++;
    return CUDNN_STATUS_BAD_PARAM;
}

extern "C" int emulate_cudnn_runs(void)
{
    return fake.runs;
}

extern "C" int emulate_cudnn_complaints(void)
{
    return fake.complaints;
}

/* ---- checks -----------------------------------------------------------------------------------
 */

static int64_t dim_of(const descriptor *t, int i)
{
    return t->get<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, i);
}

static bool flag(const descriptor *t, int name)
{
    return t->has(name) && t->get<bool>(name);
}

static cudnnStatus_t check_tensor(const descriptor &t)
{
    const int64_t align = t.get<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT);
    if (t.count(CUDNN_ATTR_TENSOR_DIMENSIONS) != 4 || t.count(CUDNN_ATTR_TENSOR_STRIDES) != 4) {
        return refuse("attention's tensors have four dimensions", t.type);
    }
    for (int i = 0; i < 4; i++) {
        if (dim_of(&t, i) < 1 || t.get<int64_t>(CUDNN_ATTR_TENSOR_STRIDES, i) < 1) {
            return refuse("a dimension or a stride below 1", i);
        }
    }
    if (align < 1 || (align & (align - 1)) ||
        (flag(&t, CUDNN_ATTR_TENSOR_IS_VIRTUAL) && flag(&t, CUDNN_ATTR_TENSOR_IS_BY_VALUE))) {
        return refuse("alignment, or both virtual and by value", static_cast<int>(align));
    }
    return CUDNN_STATUS_SUCCESS;
}

/* Every dimension of x is y's, or 1. */
static bool broadcasts(const descriptor *x, const descriptor *y)
{
    bool fits = true;
    for (int i = 0; i < 4; i++) {
        fits = fits && (dim_of(x, i) == dim_of(y, i) || dim_of(x, i) == 1);
    }
    return fits;
}

static cudnnStatus_t check_pointwise(const descriptor &op)
{
    const descriptor *how = op.ref(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const auto mode = how->get<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    const bool alone = mode == CUDNN_POINTWISE_EXP || mode == CUDNN_POINTWISE_LOG ||
                       mode == CUDNN_POINTWISE_GEN_INDEX;
    const bool index = mode == CUDNN_POINTWISE_GEN_INDEX;
    if (op.has(CUDNN_ATTR_OPERATION_POINTWISE_BDESC) == alone ||
        op.has(CUDNN_ATTR_OPERATION_POINTWISE_TDESC) != (mode == CUDNN_POINTWISE_BINARY_SELECT) ||
        how->has(CUDNN_ATTR_POINTWISE_AXIS) != index) {
        return refuse("a pointwise operation with operands that it has not", mode);
    }
    for (int name : {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
                     CUDNN_ATTR_OPERATION_POINTWISE_TDESC}) {
        if (op.has(name) && !broadcasts(op.ref(name), y)) {
            return refuse("operands that do not broadcast", name);
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_matmul(const descriptor &op)
{
    const descriptor *a = op.ref(CUDNN_ATTR_OPERATION_MATMUL_ADESC);
    const descriptor *b = op.ref(CUDNN_ATTR_OPERATION_MATMUL_BDESC);
    const descriptor *c = op.ref(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
    bool fits = dim_of(a, 2) == dim_of(c, 2) && dim_of(a, 3) == dim_of(b, 2) &&
                dim_of(b, 3) == dim_of(c, 3);
    for (int i = 0; i < 2; i++) {
        fits = fits && dim_of(a, i) == dim_of(c, i) && dim_of(b, i) == dim_of(c, i);
    }
    return fits ? CUDNN_STATUS_SUCCESS : refuse("a product's shapes", op.type);
}

static cudnnStatus_t check_attention(const descriptor &op)
{
    const descriptor *q = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC);
    const descriptor *k = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC);
    const descriptor *v = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC);
    const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
    const descriptor *stats = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC);
    const descriptor *scale = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC);
    const bool fits = broadcasts(y, q) && broadcasts(q, y) && broadcasts(k, v) &&
                      dim_of(k, 3) == dim_of(q, 3) && broadcasts(stats, q) &&
                      dim_of(stats, 2) == dim_of(q, 2) && dim_of(stats, 3) == 1 &&
                      (!scale || flag(scale, CUDNN_ATTR_TENSOR_IS_BY_VALUE));
    return fits ? CUDNN_STATUS_SUCCESS : refuse("attention's shapes", op.type);
}

/* What an operation writes comes last. */
static std::vector<const descriptor *> tensors_of(const descriptor *op)
{
    std::vector<const descriptor *> found;
    const int result = op->type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR
                           ? CUDNN_ATTR_OPERATION_POINTWISE_YDESC
                       : op->type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR
                           ? CUDNN_ATTR_OPERATION_MATMUL_CDESC
                       : op->type == CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR
                           ? CUDNN_ATTR_OPERATION_REDUCTION_YDESC
                       : op->type == CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR
                           ? CUDNN_ATTR_OPERATION_RESHAPE_YDESC
                           : CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC;
    for (const auto &a : op->attributes) {
        const descriptor *t = a.second.type == REFERS ? op->ref(a.first) : nullptr;
        if (t && t->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR && a.first != result) {
            found.push_back(t);
        }
    }
    found.push_back(op->ref(result));
    return found;
}

static int64_t id_of(const descriptor *t)
{
    return t->get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID);
}

/* A virtual tensor is made before it is read, and an id is one tensor's. */
static cudnnStatus_t check_graph(const descriptor &graph)
{
    std::set<const descriptor *> made;
    std::map<int64_t, const descriptor *> ids;
    for (int64_t i = 0; i < graph.count(CUDNN_ATTR_OPERATIONGRAPH_OPS); i++) {
        const auto all = tensors_of(graph.ref(CUDNN_ATTR_OPERATIONGRAPH_OPS, i));
        for (const descriptor *t : all) {
            if (ids.emplace(id_of(t), t).first->second != t) {
                return refuse("two tensors of one id", static_cast<int>(id_of(t)));
            }
            if (t != all.back() && flag(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL) && !made.count(t)) {
                return refuse("a tensor is read before it is made", static_cast<int>(id_of(t)));
            }
        }
        made.insert(all.back());
    }
    return is("unfinished") ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_pack(const descriptor &pack)
{
    const int64_t n = pack.count(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    return pack.count(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS) == n
               ? CUDNN_STATUS_SUCCESS
               : refuse("ids and pointers differ in number", static_cast<int>(n));
}

static cudnnStatus_t check_whole(const descriptor &d)
{
    static const struct {
        int type;
        cudnnStatus_t (*check)(const descriptor &d);
    } checks[] = {
        {CUDNN_BACKEND_TENSOR_DESCRIPTOR, check_tensor},
        {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, check_pointwise},
        {CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR, check_matmul},
        {CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, check_attention},
        {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, check_graph},
        {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, check_pack},
    };
    for (const auto &c : checks) {
        if (c.type == d.type) {
            return c.check(d);
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- the interface ----------------------------------------------------------------------------
 */

size_t cudnnGetVersion(void)
{
    return is("old") ? 90100 : 91900;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    return status == CUDNN_STATUS_EXECUTION_FAILED ? "CUDNN_STATUS_EXECUTION_FAILED"
           : status == CUDNN_STATUS_NOT_SUPPORTED  ? "CUDNN_STATUS_NOT_SUPPORTED"
                                                   : "CUDNN_STATUS_BAD_PARAM";
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    *handle = reinterpret_cast<cudnnHandle_t>(&fake);
    return is("closed") ? CUDNN_STATUS_NOT_INITIALIZED : CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t, cudaStream_t stream)
{
    fake.stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out)
{
    auto *d = new descriptor;
    d->type = type;
    fake.alive.insert(d);
    *out = d;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t it)
{
    auto *d = static_cast<descriptor *>(it);
    if (fake.alive.erase(d) == 0) {
        return refuse("a descriptor is destroyed that is none", 0);
    }
    delete d;
    return CUDNN_STATUS_SUCCESS;
}

static void put(descriptor *d, int name, cudnnBackendAttributeType_t type, int64_t n,
                const void *elements)
{
    const auto *from = static_cast<const char *>(elements);
    d->attributes[name] =
        attribute{type, n, std::vector<char>(from, from + static_cast<size_t>(n) * size_of(type))};
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t it,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n,
                                       const void *elements)
{
    auto *d = static_cast<descriptor *>(it);
    const rule *r = rule_of(d->type, name);
    if (d->finalized) {
        return refuse("an attribute is set after finalizing", name);
    }
    if (!r || r->type != type || n < 1 || n > r->most) {
        return refuse("an attribute that this descriptor has not", name);
    }
    for (int64_t i = 0; type == REFERS && i < n; i++) {
        auto *to =
            static_cast<descriptor *>(static_cast<const cudnnBackendDescriptor_t *>(elements)[i]);
        if (!fake.alive.count(to) || !to->finalized) {
            return refuse("an attribute refers to what is not finalized", name);
        }
    }
    put(d, name, type, n, elements);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t it)
{
    auto *d = static_cast<descriptor *>(it);
    for (const rule &r : rules) {
        if (r.of == d->type && r.required && !d->has(r.name)) {
            return refuse("a required attribute is missing", r.name);
        }
    }
    if (d->finalized) {
        return refuse("finalized twice", d->type);
    }
    const cudnnStatus_t st = check_whole(*d);
    d->finalized = st == CUDNN_STATUS_SUCCESS;
    return st;
}

/* The one configuration of a graph's heuristics goes into the caller's descriptor. */
static void propose(const descriptor *heuristics, descriptor *config)
{
    const cudnnBackendDescriptor_t graph =
        heuristics->get<cudnnBackendDescriptor_t>(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    put(config, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, REFERS, 1, &graph);
    config->finalized = true;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t it,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n_wanted,
                                       int64_t *n, void *elements)
{
    auto *d = static_cast<descriptor *>(it);
    if (!d->finalized || n_wanted < 1) {
        return refuse("asked before finalizing", name);
    }
    *n = 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == REFERS) {
        *n = is("no_engine") ? 0 : 1;
        propose(d, *static_cast<descriptor **>(elements));
    } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE && type == REFERS) {
        (*static_cast<descriptor **>(elements))->finalized = true;
    } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && type == CUDNN_TYPE_NUMERICAL_NOTE) {
        *static_cast<cudnnBackendNumericalNote_t *>(elements) =
            is("random") ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC : CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64) {
        *static_cast<int64_t *>(elements) = is("large") ? int64_t{1} << 40 : WORKSPACE;
    } else {
        return refuse("an attribute that cannot be asked", name);
    }
    return CUDNN_STATUS_SUCCESS;
}

/* The graph's tensors in memory, each with its pointer; empty where the pack is not right. */
static std::map<int64_t, void *> bind(const descriptor *graph, const descriptor *pack)
{
    std::map<int64_t, void *> data;
    std::set<int64_t> wanted;
    for (int64_t i = 0; i < pack->count(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS); i++) {
        data[pack->get<int64_t>(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, i)] =
            pack->get<void *>(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, i);
    }
    for (int64_t i = 0; i < graph->count(CUDNN_ATTR_OPERATIONGRAPH_OPS); i++) {
        for (const descriptor *t : tensors_of(graph->ref(CUDNN_ATTR_OPERATIONGRAPH_OPS, i))) {
            const auto found = data.find(id_of(t));
            if (flag(t, CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
                continue;
            }
            wanted.insert(id_of(t));
            if (found == data.end() ||
                reinterpret_cast<uintptr_t>(found->second) %
                    static_cast<uintptr_t>(t->get<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))) {
                return {};
            }
        }
    }
    return wanted.size() == data.size() ? data : std::map<int64_t, void *>();
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t, cudnnBackendDescriptor_t plan_of,
                                  cudnnBackendDescriptor_t pack_of)
{
    const auto *plan = static_cast<descriptor *>(plan_of);
    const auto *pack = static_cast<descriptor *>(pack_of);
    if (!plan->finalized || !pack->finalized) {
        return refuse("a run of what is not finalized", 0);
    }
    const descriptor *graph = plan->ref(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
                                  ->ref(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    auto data = bind(graph, pack);
    void *workspace = pack->get<void *>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    if (data.empty() || reinterpret_cast<uintptr_t>(workspace) % 256 || !workspace) {
        return refuse("a variant pack that is not the graph's", static_cast<int>(data.size()));
    }
    if (is("fails")) {
        return CUDNN_STATUS_EXECUTION_FAILED;
    }
    fake.runs++;
    /* Values are read when the run is queued. */
    auto values = std::make_shared<std::map<int64_t, float>>();
    for (int64_t i = 0; i < graph->count(CUDNN_ATTR_OPERATIONGRAPH_OPS); i++) {
        for (const descriptor *t : tensors_of(graph->ref(CUDNN_ATTR_OPERATIONGRAPH_OPS, i))) {
            if (flag(t, CUDNN_ATTR_TENSOR_IS_BY_VALUE)) {
                (*values)[id_of(t)] = *static_cast<float *>(data[id_of(t)]);
                data[id_of(t)] = &(*values)[id_of(t)];
            }
        }
    }
    emulate::spend(is("slow") ? 9 : -0.5e-3);
    emulate::run({"cudnn", dim3(), dim3(), 0,
                  [graph, data, values, workspace] {
                      memset(workspace, 0x5a, WORKSPACE);
                      emulate_cudnn::run_graph(*graph, data);
                  }},
                 fake.stream);
    return CUDNN_STATUS_SUCCESS;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

/* What is opened in place of cuDNN; NULL: this program, which exports the functions above. */
extern "C" const char *emulate_cudnn_file(void)
{
    const char *mode = getenv("EMULATE_CUDNN");
    fake.mode = mode ? mode : "";
    return is("") ? "libcudnn.so.none" : is("incomplete") ? "libm.so.6" : nullptr;
}
