/* SPDX-License-Identifier: Apache-2.0 */
/* What the emulated card's two halves share: the kernels' (emulate.cpp: blocks, warps and threads)
 * and the runtime's (emulate_runtime.cpp: memory, streams, events, graphs). */
#ifndef TESSERA_TESTS_EMULATE_CARD_H
#define TESSERA_TESTS_EMULATE_CARD_H

#include <string>

#include "emulate.h"

namespace card
{

constexpr size_t GUARD_BYTES = 64;
constexpr unsigned char GUARD = 0xa5, POISON = 0xff; /* all ones: NaN in every float type */

/* The first fault (a divergent barrier, a write beyond shared or device memory) is kept as CUDA
 * keeps its own: every later call says so too, until emulate_reset. */
extern cudaError_t sticky;
void fail(cudaError_t code, const std::string &text);

/* GUARD_BYTES on both sides of p (bytes) are as they were. */
bool guards_intact(const char *p, size_t bytes);
/* Faults when a guard of device memory is not. */
void check_heap(const char *after);
/* Device memory can be touched while one lives. */
struct heap_door {
    heap_door();
    ~heap_door();
};

/* What is touched while one lives is the emulation's own, and no kernel's race. */
struct quiet {
    quiet();
    ~quiet();
};

/* All blocks of a launch, now. */
void run_grid(const emulate::launch &l);

} // namespace card

#endif
