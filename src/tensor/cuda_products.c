/* SPDX-License-Identifier: Apache-2.0 */
/* The operators that are a matrix product, on a CUDA device. */
#include "tensor/cuda_matmul.h"
#include "tensor/fuse.h"
#include "tensor/products.h"
#include "tensor/ops/linear_gelu.h"

static tess_status multiply(const tess_exec *e, const tess_cuda_product *p, const tess_cuda_args *x)
{
    const tess_matmul_spec *s = &p->matmul;
    if (s->m == 0 || s->n == 0) {
        return TESS_OK;
    }
    if (s->k == 0) {
        const size_t n_bytes = (size_t)(s->m * s->n) * tess_dtype_bytes(s->out);
        return tess__cuda_zero(x->matmul.c, n_bytes, e->stream);
    }
    return tess__cuda_product(p, x, e->stream);
}

/* Of the first two inputs to the first output. */
static tess_cuda_args operands(const tess_exec *e)
{
    return (tess_cuda_args){
        .matmul = {.a = e->in[0].data, .b = e->in[1].data, .c = e->out[0].data}};
}

tess_status tess__cuda_linear(const tess_exec *e)
{
    const tess_cuda_product p = {.matmul = tess__linear_spec(e->in, e->attrs)};
    tess_cuda_args x = operands(e);
    x.matmul.bias = e->in[2].data;
    x.matmul.residual = e->in[3].data;
    return multiply(e, &p, &x);
}

tess_status tess__cuda_project(const tess_exec *e)
{
    const tess_cuda_product p = {.matmul = tess__project_spec(e->in)};
    const tess_cuda_args x = operands(e);
    return multiply(e, &p, &x);
}

tess_status tess__cuda_outer(const tess_exec *e)
{
    const tess_cuda_product p = {.matmul = tess__outer_spec(e->in)};
    const tess_cuda_args x = operands(e);
    return multiply(e, &p, &x);
}

tess_status tess__cuda_linear_gelu(const tess_exec *e)
{
    const bool keeps = ((const linear_gelu_attrs *)e->attrs)->keeps;
    const tess_cuda_product p = {
        .matmul = tess__linear_gelu_spec(e->in), .epilogue = TESS_EPILOGUE_GELU, .aux = keeps};
    tess_cuda_args x = operands(e);
    x.matmul.bias = e->in[2].data;
    x.aux = keeps ? e->out[1].data : NULL;
    return multiply(e, &p, &x);
}

tess_status tess__cuda_project_gelu_grad(const tess_exec *e)
{
    const tess_cuda_product p = {.matmul = tess__project_spec(e->in),
                                 .epilogue = TESS_EPILOGUE_GELU_GRAD};
    tess_cuda_args x = operands(e);
    x.aux = e->in[2].data;
    return multiply(e, &p, &x);
}

size_t tess__cuda_outer_add_scratch(const tess_prepare *c)
{
    return (size_t)tess__last(&c->in[1].shape) * sizeof(float);
}

/* The epilogue gives the sums of this product; a kernel adds them to what there was. */
tess_status tess__cuda_outer_add(const tess_exec *e)
{
    const bool sums = e->n_in > 3;
    const tess_cuda_product p = {.matmul = tess__outer_add_spec(e->in),
                                 .epilogue = sums ? TESS_EPILOGUE_SUMS : TESS_EPILOGUE_NONE};
    const tess_cuda_args x = {
        .matmul = {.a = e->in[1].data, .b = e->in[2].data, .c = e->in[0].data}, .sums = e->scratch};
    if (p.matmul.k == 0 || p.matmul.m == 0 || p.matmul.n == 0) {
        return TESS_OK; /* nothing to add, for no weight has a side of 0 */
    }
    TESS_TRY(tess__cuda_product(&p, &x, e->stream));
    if (!sums) {
        return TESS_OK;
    }
    const tess_operand in[] = {e->in[3], {e->scratch, TESS_F32, e->in[3].shape}};
    return tess__cuda_accumulate(&(tess_exec){.in = in, .n_in = 2, .stream = e->stream});
}
