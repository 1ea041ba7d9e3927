/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt's part on the emulated card: the same specification, by plain loops. */
extern "C" {
#include "tensor/cuda_matmul.h"
}

#include "emulate.h"

static double at(const void *x, tess_dtype t, int64_t i)
{
    return t == TESS_BF16 ? tess_f32_from_bf16(static_cast<const uint16_t *>(x)[i])
                          : static_cast<const float *>(x)[i];
}

static void put(void *x, tess_dtype t, int64_t i, double v)
{
    if (t == TESS_BF16) {
        static_cast<uint16_t *>(x)[i] = tess_bf16_from_f32(static_cast<float>(v));
    } else {
        static_cast<float *>(x)[i] = static_cast<float>(v);
    }
}

static void multiply(tess_matmul_spec s, tess_matmul_args x)
{
    for (int64_t i = 0; i < s.m; i++) {
        for (int64_t j = 0; j < s.n; j++) {
            double sum = s.bias ? x.bias[j] : 0;
            for (int64_t k = 0; k < s.k; k++) {
                sum += at(x.a, s.in, s.a_trans ? k * s.m + i : i * s.k + k) *
                       at(x.b, s.in, s.b_trans ? j * s.k + k : k * s.n + j);
            }
            const int64_t to = i * s.n + j;
            sum += s.accumulate ? at(x.c, s.out, to) : s.residual ? at(x.residual, s.out, to) : 0;
            put(x.c, s.out, to, s.relu && sum < 0 ? 0 : sum);
        }
    }
}

extern "C" tess_status tess__cuda_matmul(const tess_matmul_spec *spec, const tess_matmul_args *args,
                                         void *stream)
{
    const tess_matmul_spec s = *spec;
    const tess_matmul_args x = *args;
    emulate::run({"matmul", dim3(), dim3(), 0, [s, x] { multiply(s, x); }},
                 static_cast<cudaStream_t>(stream));
    return tess__cuda_launched("matmul");
}
