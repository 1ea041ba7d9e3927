/* SPDX-License-Identifier: Apache-2.0 */
/* adam_time on a CUDA device: a launch's time. */
#include "tensor/kernel.cuh"
#include "tensor/ops/adam_time.h"

namespace
{

__device__ __forceinline__ float fix(float beta, double t)
{
    return static_cast<float>(1 / (1 - pow(static_cast<double>(beta), t)));
}

__global__ void adam_time_kernel(float *hyper, float *is_skipped, const float *rates,
                                 const float *skipped, const float *sumsq, adam_time_attrs a)
{
    const double passed =
        static_cast<double>(rates[ADAM_TIME_STEP]) - static_cast<double>(*skipped);
    const double t = passed > 1 ? passed : 1;
    hyper[TESS_HYPER_LR] = rates[ADAM_TIME_LR];
    hyper[TESS_HYPER_FIX1] = fix(a.beta1, t);
    hyper[TESS_HYPER_FIX2] = fix(a.beta2, t);
    hyper[TESS_HYPER_SCALE] = rates[ADAM_TIME_SCALE];
    hyper[TESS_HYPER_STEP] = static_cast<float>(t);
    *is_skipped = (__float_as_uint(*sumsq) & 0x7f800000u) == 0x7f800000u ? 1.0f : 0.0f;
}

} // namespace

extern "C" tess_status tess__cuda_adam_time(const tess_exec *e)
{
    TESS_LAUNCH(adam_time_kernel, 1, 1, 0, e->stream, static_cast<float *>(e->out[0].data),
                static_cast<float *>(e->out[1].data),
                static_cast<const float *>(e->in[ADAM_TIME_IN_RATES].data),
                static_cast<const float *>(e->in[ADAM_TIME_IN_SKIPPED].data),
                static_cast<const float *>(e->in[ADAM_TIME_IN_SUMSQ].data),
                *static_cast<const adam_time_attrs *>(e->attrs));
    return tess__cuda_launched("adam_time");
}
