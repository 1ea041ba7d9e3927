/* SPDX-License-Identifier: Apache-2.0 */
/* What a test says to the emulated card; with TESS_REAL_CARD there is none.  EMULATE_DRIVER in the
 * environment: "none" no card, "missing" no driver, "old" one that is too old, "sm_70" a card of
 * another generation. */
#ifndef TESSERA_TESTS_EMULATE_CONTROL_H
#define TESSERA_TESTS_EMULATE_CONTROL_H

#ifdef __cplusplus
extern "C" {
#endif

/* Who of a block's threads goes first, between any two barriers. */
typedef enum emulate_order { EMULATE_FORWARD, EMULATE_BACKWARD, EMULATE_SHUFFLED } emulate_order;
#ifndef TESS_REAL_CARD
void emulate_set_order(emulate_order order);
/* The first fault since the last reset, "" when there was none. */
const char *emulate_fault(void);
void emulate_reset(void);
#else
static inline void emulate_set_order(emulate_order order)
{
    (void)order; /* a card goes its own way */
}
static inline void emulate_reset(void)
{
}
#endif

#ifdef __cplusplus
}
#endif

#endif
