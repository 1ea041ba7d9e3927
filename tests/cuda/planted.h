/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels with planted faults: y = 2 x of 100 numbers or fewer, done wrong. */
#ifndef TESSERA_TESTS_PLANTED_H
#define TESSERA_TESTS_PLANTED_H

typedef enum planted {
    PLANTED_NONE,
    PLANTED_RACE,     /* reads shared memory that another thread writes, without a barrier */
    PLANTED_BEYOND,   /* writes one number beyond y */
    PLANTED_SHARED,   /* writes one number beyond its shared memory */
    PLANTED_DIVERGED, /* a barrier that only some threads reach */
    PLANTED_LANES,    /* a shuffle that only some lanes of its mask reach */
    PLANTED_UNSET,    /* reads shared memory that nobody wrote */
} planted;

#ifdef __cplusplus
extern "C"
#endif
    void
    planted_launch(planted what, float *y, const float *x, long n, void *stream);

#endif
