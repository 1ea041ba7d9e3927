/* SPDX-License-Identifier: Apache-2.0 */
/* update_gate on a CUDA device: one block, a thread for each of the recent steps.  A median is the
 * number that as many others are below as its rank says, counted by its own thread. */
#include "tensor/kernel.cuh"
#include "tensor/ops/update_gate.h"

namespace
{

constexpr int THREADS = RECENT_STEPS;

__device__ __forceinline__ bool is_finite(float x)
{
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/* The median of x (n) to every thread; x is left alone. */
__device__ __forceinline__ float median_of(const float *x, int n, float *found)
{
    const int i = static_cast<int>(threadIdx.x);
    int below = 0;
    for (int k = 0; i < n && k < n; k++) {
        below += x[k] < x[i] || (x[k] == x[i] && k < i);
    }
    if (i < n && below == (n - 1) / 2) {
        *found = x[i];
    }
    __syncthreads();
    const float median = *found;
    __syncthreads();
    return median;
}

__device__ __forceinline__ float limit_of(const float *kept, int n, float deviations,
                                          float *distance, float *found)
{
    const int i = static_cast<int>(threadIdx.x);
    const float middle = median_of(kept, n, found);
    if (i < n) {
        distance[i] = fabsf(kept[i] - middle);
    }
    __syncthreads();
    const float usual = GATE_MAD_TO_DEVIATION * median_of(distance, n, found);
    const float least = GATE_LEAST_DEVIATION * fabsf(middle);
    return middle + deviations * (usual > least ? usual : least);
}

__global__ void __launch_bounds__(THREADS)
    gate_kernel(float *gated, float *why, float *out_loss, const float *sumsq, const float *loss,
                const float *recent, float deviations)
{
    TESS_SHARED(float, distance, THREADS);
    TESS_SHARED(float, found, 1);
    const int n = recent ? static_cast<int>(recent[RECENT_COUNT]) : 0;
    float loss_limit = 0, norm_limit = 0;
    if (n >= RECENT_FROM) {
        loss_limit = limit_of(recent + RECENT_LOSSES, n, deviations, distance, found);
        norm_limit = limit_of(recent + RECENT_NORMS, n, deviations, distance, found);
    }
    if (threadIdx.x == 0) {
        const tess_skip verdict = !is_finite(*sumsq)           ? TESS_SKIP_GRADIENT
                                  : !is_finite(*loss)          ? TESS_SKIP_LOSS
                                  : n < RECENT_FROM            ? TESS_SKIP_NOT
                                  : *loss > loss_limit         ? TESS_SKIP_HIGH_LOSS
                                  : sqrtf(*sumsq) > norm_limit ? TESS_SKIP_HIGH_NORM
                                                               : TESS_SKIP_NOT;
        *gated = verdict == TESS_SKIP_NOT ? *sumsq : __uint_as_float(0x7fc00000u);
        *why = static_cast<float>(verdict);
        *out_loss = *loss;
    }
}

__global__ void note_kernel(const float *sumsq, float *loss, float *recent)
{
    const float norm = sqrtf(*sumsq);
    if (recent && is_finite(norm) && is_finite(*loss)) {
        const int at = static_cast<int>(recent[RECENT_NEXT]);
        const int n = static_cast<int>(recent[RECENT_COUNT]);
        recent[RECENT_LOSSES + at] = *loss;
        recent[RECENT_NORMS + at] = norm;
        recent[RECENT_NEXT] = static_cast<float>((at + 1) % RECENT_STEPS);
        recent[RECENT_COUNT] = static_cast<float>(n < RECENT_STEPS ? n + 1 : n);
    }
    *loss = 0;
}

float *recent_of(const tess_exec *e)
{
    return e->n_in > GATE_IN_RECENT ? static_cast<float *>(e->in[GATE_IN_RECENT].data) : NULL;
}

} // namespace

extern "C" tess_status tess__cuda_update_gate(const tess_exec *e)
{
    TESS_LAUNCH(gate_kernel, 1, THREADS, 0, e->stream,
                static_cast<float *>(e->out[GATE_OUT_SUMSQ].data),
                static_cast<float *>(e->out[GATE_OUT_WHY].data),
                static_cast<float *>(e->out[GATE_OUT_LOSS].data),
                static_cast<const float *>(e->in[GATE_IN_SUMSQ].data),
                static_cast<const float *>(e->in[GATE_IN_LOSS].data),
                static_cast<const float *>(recent_of(e)),
                static_cast<const update_gate_attrs *>(e->attrs)->deviations);
    return tess__cuda_launched("update_gate");
}

extern "C" tess_status tess__cuda_update_note(const tess_exec *e)
{
    TESS_LAUNCH(note_kernel, 1, 1, 0, e->stream,
                static_cast<const float *>(e->in[NOTE_IN_SUMSQ].data),
                static_cast<float *>(e->in[NOTE_IN_LOSS].data), recent_of(e));
    return tess__cuda_launched("update_note");
}
