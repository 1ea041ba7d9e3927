/* SPDX-License-Identifier: Apache-2.0 */
/* In place of the CUDA device where the program is built without nvcc. */
#include "tensor/cuda.h"
#include "tensor/nearest.h"

static tess_status refuse(void)
{
    return TESS_FAIL(TESS_UNSUPPORTED, "this program was built without CUDA: build it where nvcc "
                                       "is, or use --device cpu");
}

tess_status tess_device_cuda(const tess_device **out)
{
    *out = NULL;
    return refuse();
}

tess_status tess__nearest_new(const tess_device *device, int64_t n, int64_t dim, int64_t capacity,
                              tess__nearest **out)
{
    (void)device, (void)n, (void)dim, (void)capacity;
    *out = NULL;
    return refuse();
}

tess_status tess__nearest_add(tess__nearest *s, const float *x, int64_t n)
{
    (void)s, (void)x, (void)n;
    return refuse();
}

tess_status tess__nearest_search(tess__nearest *s, const float *queries, int64_t n_queries,
                                 int64_t k, tess__near_hit *out_hits, int64_t *out_n_hits)
{
    (void)s, (void)queries, (void)n_queries, (void)k, (void)out_hits, (void)out_n_hits;
    return refuse();
}

int64_t tess__nearest_n_full(const tess__nearest *s)
{
    (void)s;
    return 0;
}

void tess__nearest_free(tess__nearest *s)
{
    (void)s;
}

const tess_cuda_op *tess__cuda_find(const tess_op *op)
{
    (void)op;
    return NULL;
}
