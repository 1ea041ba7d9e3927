/* SPDX-License-Identifier: Apache-2.0 */
/* The operators that are a matrix product, on a CUDA device. */
#include "tensor/cuda_matmul.h"
#include "tensor/products.h"

static tess_status multiply(const tess_exec *e, const tess_matmul_spec *spec, const float *bias,
                            const void *residual)
{
    if (spec->m == 0 || spec->n == 0) {
        return TESS_OK;
    }
    if (spec->k == 0) {
        const size_t n_bytes = (size_t)(spec->m * spec->n) * tess_dtype_bytes(spec->out);
        return tess__cuda_zero(e->out[0].data, n_bytes, e->stream);
    }
    const tess_matmul_args args = {.a = e->in[0].data,
                                   .b = e->in[1].data,
                                   .bias = bias,
                                   .residual = residual,
                                   .c = e->out[0].data};
    return tess__cuda_matmul(spec, &args, e->stream);
}

tess_status tess__cuda_linear(const tess_exec *e)
{
    const tess_matmul_spec spec = tess__linear_spec(e->in, e->attrs);
    return multiply(e, &spec, e->in[2].data, e->in[3].data);
}

tess_status tess__cuda_project(const tess_exec *e)
{
    const tess_matmul_spec spec = tess__project_spec(e->in);
    return multiply(e, &spec, NULL, NULL);
}

tess_status tess__cuda_outer(const tess_exec *e)
{
    const tess_matmul_spec spec = tess__outer_spec(e->in);
    return multiply(e, &spec, NULL, NULL);
}
