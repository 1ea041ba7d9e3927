/* SPDX-License-Identifier: Apache-2.0 */
/* One table of kernels per instruction set, filled once. */
#include "tensor/kernels.h"

#include <pthread.h>

#define GROUPS(X, isa)                                                                             \
    X(fill_pointwise, isa)                                                                         \
    X(fill_unary, isa)                                                                             \
    X(fill_norm, isa)                                                                              \
    X(fill_attention, isa)                                                                         \
    X(fill_softmax, isa)                                                                           \
    X(fill_optimizer, isa)                                                                         \
    X(fill_panel, isa)                                                                             \
    X(fill_outer, isa)                                                                             \
    X(fill_rows, isa)
#define DECLARE(group, isa) void tess__##group##_##isa(tess_kernels *k);
#define FILL(group, isa)    tess__##group##_##isa(k);
#define SET(isa)                                                                                   \
    GROUPS(DECLARE, isa)                                                                           \
    static void set_##isa(tess_kernels *k)                                                         \
    {                                                                                              \
        GROUPS(FILL, isa)                                                                          \
    }
SET(base)
SET(avx2)
SET(avx512)
SET(avx512vnni)
SET(avx512bf16)

static tess_kernels tables[TESS_ISA_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_all(void)
{
    set_base(&tables[TESS_ISA_BASE]);
    set_avx2(&tables[TESS_ISA_AVX2]);
    set_avx512(&tables[TESS_ISA_AVX512]);
    set_avx512vnni(&tables[TESS_ISA_AVX512VNNI]);
    set_avx512bf16(&tables[TESS_ISA_AVX512BF16]);
}

const tess_kernels *tess__kernels(void)
{
    pthread_once(&once, set_all);
    return &tables[tess_isa_get()];
}
