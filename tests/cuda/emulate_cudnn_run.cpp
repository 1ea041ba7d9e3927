/* SPDX-License-Identifier: Apache-2.0 */
/* A graph of cuDNN's operations, in double precision, each result rounded to its tensor's type. */
#include "emulate_cudnn.h"

extern "C" {
#include "tessera/tensor.h"
}

#include <math.h>
#include <stdlib.h>
#include <string.h>

namespace emulate_cudnn
{

typedef std::map<const descriptor *, tensor_value> values;
typedef std::map<int64_t, void *> memory;

static int64_t dim_of(const descriptor &t, int i)
{
    return t.get<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS, i);
}

int64_t address(const descriptor &t, const int64_t *index)
{
    int64_t at = 0;
    for (int i = 0; i < 4; i++) {
        at += index[i] * t.get<int64_t>(CUDNN_ATTR_TENSOR_STRIDES, i);
    }
    return at;
}

static tensor_value shaped(const descriptor &t)
{
    tensor_value v;
    int64_t n = 1;
    for (int i = 0; i < 4; i++) {
        v.dim[i] = dim_of(t, i);
        n *= v.dim[i];
    }
    v.x.resize(static_cast<size_t>(n));
    return v;
}

/* f(element, its index) over all elements. */
template <class F> static void each(tensor_value *v, F f)
{
    int64_t i[4];
    size_t at = 0;
    for (i[0] = 0; i[0] < v->dim[0]; i[0]++) {
        for (i[1] = 0; i[1] < v->dim[1]; i[1]++) {
            for (i[2] = 0; i[2] < v->dim[2]; i[2]++) {
                for (i[3] = 0; i[3] < v->dim[3]; i[3]++) {
                    f(&v->x[at++], i);
                }
            }
        }
    }
}

/* The element at an index, in which a dimension of 1 stands for all. */
static double at(const tensor_value &v, const int64_t *index)
{
    int64_t i = 0;
    for (int d = 0; d < 4; d++) {
        i = i * v.dim[d] + (v.dim[d] == 1 ? 0 : index[d]);
    }
    return v.x[static_cast<size_t>(i)];
}

static cudnnDataType_t type_of(const descriptor &t)
{
    return t.get<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE);
}

static double rounded(const descriptor &t, double x)
{
    const float f = static_cast<float>(x);
    return type_of(t) == CUDNN_DATA_BFLOAT16 ? tess_f32_from_bf16(tess_bf16_from_f32(f)) : f;
}

static void *memory_of(const descriptor &t, const memory &data)
{
    const auto found = data.find(t.get<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID));
    return found == data.end() ? nullptr : found->second;
}

static const tensor_value &read(values *all, const descriptor *t, const memory &data)
{
    auto found = all->find(t);
    if (found == all->end()) {
        const void *from = memory_of(*t, data);
        tensor_value v = shaped(*t);
        each(&v, [&](double *x, const int64_t *i) {
            const int64_t a = address(*t, i);
            *x = type_of(*t) == CUDNN_DATA_BFLOAT16
                     ? tess_f32_from_bf16(static_cast<const uint16_t *>(from)[a])
                     : static_cast<const float *>(from)[a];
        });
        found = all->emplace(t, v).first;
    }
    return found->second;
}

static void write(values *all, const descriptor *t, tensor_value v, const memory &data)
{
    void *to = memory_of(*t, data);
    each(&v, [&](double *x, const int64_t *i) {
        *x = rounded(*t, *x);
        const int64_t a = address(*t, i);
        if (to && type_of(*t) == CUDNN_DATA_BFLOAT16) {
            static_cast<uint16_t *>(to)[a] = tess_bf16_from_f32(static_cast<float>(*x));
        } else if (to) {
            static_cast<float *>(to)[a] = static_cast<float>(*x);
        }
    });
    (*all)[t] = v;
}

static tensor_value product(const descriptor *y, const tensor_value &a, const tensor_value &b)
{
    tensor_value v = shaped(*y);
    each(&v, [&](double *x, const int64_t *i) {
        *x = 0;
        for (int64_t k = 0; k < a.dim[3]; k++) {
            const int64_t left[] = {i[0], i[1], i[2], k}, right[] = {i[0], i[1], k, i[3]};
            *x += at(a, left) * at(b, right);
        }
    });
    return v;
}

static tensor_value reduction(const descriptor *y, cudnnReduceTensorOp_t mode, tensor_value a)
{
    tensor_value v = shaped(*y);
    const bool largest = mode == CUDNN_REDUCE_TENSOR_MAX;
    each(&v, [&](double *x, const int64_t *) { *x = largest ? -INFINITY : 0; });
    each(&a, [&](double *x, const int64_t *i) {
        int64_t to = 0;
        for (int d = 0; d < 4; d++) {
            to = to * v.dim[d] + (v.dim[d] == 1 ? 0 : i[d]);
        }
        double *sum = &v.x[static_cast<size_t>(to)];
        *sum = largest ? fmax(*sum, *x) : *sum + *x;
    });
    return v;
}

/* The same memory under other strides. */
static tensor_value reshape(const descriptor *y, const descriptor *x, tensor_value a)
{
    std::map<int64_t, double> cells;
    each(&a, [&](double *e, const int64_t *i) { cells[address(*x, i)] = *e; });
    tensor_value v = shaped(*y);
    each(&v, [&](double *e, const int64_t *i) { *e = cells.at(address(*y, i)); });
    return v;
}

static double apply(cudnnPointwiseMode_t mode, double x, double b, double t)
{
    switch (mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_DIV:
        return x / b;
    case CUDNN_POINTWISE_MAX:
        return fmax(x, b);
    case CUDNN_POINTWISE_EXP:
        return exp(x);
    case CUDNN_POINTWISE_LOG:
        return log(x);
    case CUDNN_POINTWISE_CMP_GE:
        return x >= b ? 1 : 0;
    case CUDNN_POINTWISE_BINARY_SELECT:
        return t > 0 ? x : b;
    default:
        abort();
    }
}

static void run_pointwise(values *all, const descriptor &op, const memory &data)
{
    const descriptor *how = op.ref(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    const auto mode = how->get<cudnnPointwiseMode_t>(CUDNN_ATTR_POINTWISE_MODE);
    const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    const descriptor *bt = op.ref(CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    const descriptor *tt = op.ref(CUDNN_ATTR_OPERATION_POINTWISE_TDESC);
    const tensor_value a = read(all, op.ref(CUDNN_ATTR_OPERATION_POINTWISE_XDESC), data);
    const tensor_value b = bt ? read(all, bt, data) : a, t = tt ? read(all, tt, data) : a;
    tensor_value v = shaped(*y);
    const bool index = mode == CUDNN_POINTWISE_GEN_INDEX;
    const int64_t axis = index ? how->get<int64_t>(CUDNN_ATTR_POINTWISE_AXIS) : 0;
    each(&v, [&](double *x, const int64_t *i) {
        *x = index ? static_cast<double>(i[axis]) : apply(mode, at(a, i), at(b, i), at(t, i));
    });
    write(all, y, v, data);
}

/* softmax(scale q k^T) v, and the logarithm of the sum of exponentials. */
static void run_attention(values *all, const descriptor &op, const memory &data)
{
    const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC);
    const descriptor *stats = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC);
    const descriptor *st = op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC);
    const tensor_value q = read(all, op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC), data);
    const tensor_value k = read(all, op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC), data);
    const tensor_value v = read(all, op.ref(CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC), data);
    const double scale = st ? read(all, st, data).x[0] : 1;
    tensor_value out = shaped(*y), lse = shaped(*stats);
    each(&lse, [&](double *sum, const int64_t *i) {
        std::vector<double> p(static_cast<size_t>(k.dim[2]));
        *sum = 0;
        for (int64_t j = 0; j < k.dim[2]; j++) {
            double dot = 0;
            for (int64_t d = 0; d < q.dim[3]; d++) {
                const int64_t left[] = {i[0], i[1], i[2], d}, right[] = {i[0], i[1], j, d};
                dot += at(q, left) * at(k, right);
            }
            *sum += p[static_cast<size_t>(j)] = exp(scale * dot);
        }
        for (int64_t d = 0; d < v.dim[3]; d++) {
            double mean = 0;
            for (int64_t j = 0; j < k.dim[2]; j++) {
                const int64_t right[] = {i[0], i[1], j, d};
                mean += p[static_cast<size_t>(j)] / *sum * at(v, right);
            }
            out.x[static_cast<size_t>(((i[0] * q.dim[1] + i[1]) * q.dim[2] + i[2]) * v.dim[3] +
                                      d)] = mean;
        }
        *sum = log(*sum);
    });
    write(all, y, out, data);
    write(all, stats, lse, data);
}

static void run_op(values *all, const descriptor &op, const memory &data)
{
    if (op.type == CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR) {
        run_attention(all, op, data);
    } else if (op.type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) {
        run_pointwise(all, op, data);
    } else if (op.type == CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR) {
        const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_MATMUL_CDESC);
        const tensor_value a = read(all, op.ref(CUDNN_ATTR_OPERATION_MATMUL_ADESC), data);
        write(all, y, product(y, a, read(all, op.ref(CUDNN_ATTR_OPERATION_MATMUL_BDESC), data)),
              data);
    } else if (op.type == CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR) {
        const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_REDUCTION_YDESC);
        const auto mode = op.ref(CUDNN_ATTR_OPERATION_REDUCTION_DESC)
                              ->get<cudnnReduceTensorOp_t>(CUDNN_ATTR_REDUCTION_OPERATOR);
        write(all, y,
              reduction(y, mode, read(all, op.ref(CUDNN_ATTR_OPERATION_REDUCTION_XDESC), data)),
              data);
    } else {
        const descriptor *y = op.ref(CUDNN_ATTR_OPERATION_RESHAPE_YDESC);
        const descriptor *x = op.ref(CUDNN_ATTR_OPERATION_RESHAPE_XDESC);
        write(all, y, reshape(y, x, read(all, x, data)), data);
    }
}

void run_graph(const descriptor &graph, const memory &data)
{
    values all;
    for (int64_t i = 0; i < graph.count(CUDNN_ATTR_OPERATIONGRAPH_OPS); i++) {
        run_op(&all, *graph.ref(CUDNN_ATTR_OPERATIONGRAPH_OPS, i), data);
    }
}

} // namespace emulate_cudnn
