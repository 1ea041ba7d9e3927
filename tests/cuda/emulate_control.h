/* SPDX-License-Identifier: Apache-2.0 */
/* What a test says to the emulated card; with TESS_REAL_CARD there is none.  EMULATE_DRIVER in the
 * environment: "none" no card, "missing" no driver, "old" one that is too old, "sm_70" a card of
 * another generation, "no_image" one that the program has no code for, "no_pinned" a host without
 * pinned memory. */
#ifndef TESSERA_TESTS_EMULATE_CONTROL_H
#define TESSERA_TESTS_EMULATE_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Who of a block's threads goes first, between any two barriers. */
typedef enum emulate_order { EMULATE_FORWARD, EMULATE_BACKWARD, EMULATE_SHUFFLED } emulate_order;
/* What the runtime was asked for since the program's start. */
typedef struct emulate_counts {
    int64_t allocations; /* memory, events and graphs, made or given back */
    int64_t waits;       /* of the host: for a stream or an event, and copies that make it wait */
    int64_t launches;    /* of kernels, one by one */
    int64_t graphs;      /* launches of graphs */
} emulate_counts;

#ifndef TESS_REAL_CARD
void emulate_set_order(emulate_order order);
/* The first fault since the last reset, "" when there was none. */
const char *emulate_fault(void);
void emulate_reset(void);

/* The emulated cuBLASLt. */
#define EMULATE_ALGORITHMS 8
typedef struct emulate_library {
    bool missing;        /* it does not open */
    bool wide_bias;      /* takes an f32 bias beside a bf16 result, which is not documented */
    bool no_bias, plain; /* has no bias; no other epilogue than bias and relu */
    bool wide_gelu;      /* has GELU for f32 results, as inexact as for bf16 */
    bool no_fp8;         /* a card before Ada */
    int n_algorithms;    /* that it proposes; 0: one */
    float ms[EMULATE_ALGORITHMS]; /* that one takes; negative: it does not run */
    float rare_ms;                /* that other epilogues than bias and relu take in addition */
    size_t workspace_bytes;       /* that a check of an algorithm reports */
    /* What was asked of it. */
    int64_t n_heuristics, n_products;
    int last, last_epilogue;
} emulate_library;
extern emulate_library emulate_lt;
/* Bit k: the k-th stream's work is done only when something waits for it.  Clear: at once. */
void emulate_set_lanes(unsigned late_lanes);
emulate_counts emulate_get_counts(void);
/* Runs of the emulated cuDNN's plans, and broken contracts of its interface; emulate_cudnn.h. */
int emulate_cudnn_runs(void);
int emulate_cudnn_complaints(void);
#else
static inline void emulate_set_order(emulate_order order)
{
    (void)order; /* a card goes its own way */
}
static inline void emulate_reset(void)
{
}
static inline void emulate_set_lanes(unsigned late_lanes)
{
    (void)late_lanes;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
