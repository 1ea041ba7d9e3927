/* SPDX-License-Identifier: Apache-2.0 */
/* The plan's insides: a flat list of steps over buffers at fixed offsets of one arena. */
#ifndef TESSERA_TENSOR_PLAN_H
#define TESSERA_TENSOR_PLAN_H

#include "tensor/graph.h"
#include "tensor/pager.h"
#include "tensor/remote.h"

#define TESS_ARENA_ALIGNMENT 64 /* of every buffer: a cache line, and an AVX-512 register */

/* Where a value's bytes are. */
typedef enum tess_place {
    TESS_PLACE_ARENA,
    TESS_PLACE_INPUT, /* a bound pointer */
    TESS_PLACE_STATE, /* in the store */
} tess_place;

/* One run of bytes with a lifetime, in steps (both inclusive).  Views and in-place outputs share
 * the buffer of their source. */
typedef struct tess_buffer {
    tess_place place;
    size_t n_bytes, offset; /* of the arena; of a device's inputs */
    int64_t first, last;    /* last INT64_MAX: an output of the plan */
    void *data;             /* inputs and states, in the host's memory */
    size_t n_set;           /* of an input's bytes, those from the first on that data has */
    void *remote;           /* a state's copy on a device that has its own */
    const char *name;       /* inputs */
} tess_buffer;

typedef struct tess_step {
    const tess_op *op;
    const void *attrs;
    const char *scope;
    int n_in;
    int32_t in_buffer[TESS_MAX_IN]; /* -1: absent */
    int32_t out_buffer[TESS_MAX_OUT];
    tess_value in_value[TESS_MAX_IN], out_value[TESS_MAX_OUT];
    tess_operand in[TESS_MAX_IN], out[TESS_MAX_OUT];
    const tess_cuda_op *cuda; /* on a CUDA device; NULL: the step meets other ranks */
    void *prepared;
    size_t scratch_bytes;
    double flops, seconds;
} tess_step;

/* The steps first to last use a paged state: see plan_pages.c. */
typedef struct tess_window {
    void *data;
    size_t n_bytes;
    int64_t first, last;
    bool written;
} tess_window;

struct tess_device {
    const char *name;
    bool computes;
    bool prepares;             /* operators say what scratch they need */
    bool fuses;                /* an operator's epilogue costs less than a pass: see fuse.h */
    const tess_remote *remote; /* NULL: its memory is the host's */
};

struct tess_workspace {
    const tess_remote *remote; /* whose memory data is; NULL: the host's */
    uint8_t *data;
    size_t n_bytes;
    int64_t generation; /* counts moves of data */
    tess_feed feed;
};

struct tess_plan {
    tess_arena arena;
    const tess_device *device;
    tess_workspace *workspace;
    int64_t generation; /* of the workspace when the operands were resolved */
    bool resolved;
    tess_step *steps;
    int64_t n_steps;
    tess_buffer *buffers;
    int64_t n_buffers;
    int32_t *buffer_of; /* by value, -1: none; n_values */
    int64_t n_values;
    tess_value *outputs;
    int64_t n_outputs;
    tess_plan_stats stats;
    bool profile;
    int64_t n_runs;
    /* Of states that are paged, in the order of `first`; those asked for, and of these the first
     * ones that are all closed. */
    tess_pager *pager;
    tess_window *windows;
    int64_t n_windows, n_asked, n_closed;
    /* On a device with memory of its own. */
    void **recordings; /* of the steps before, between and behind those that meet other ranks */
    int64_t n_meets;   /* such steps; the others make n_meets + 1 recordings */
    uint8_t *met;      /* the host's copy of such a step's operands, and its scratch */
    size_t cap_met;
    bool ran;           /* since the operands were resolved */
    size_t input_bytes; /* of all inputs, side by side */
    tess_piece *pieces; /* what of them there was in the last run */
    int64_t n_pieces;
    void **host_copies; /* of outputs, by buffer */
};

/* Replays the steps with byte-range ownership, from the step list and offsets alone: every input
 * must still hold the value its step reads, and no two live values may overlap. */
tess_status tess__plan_check(const tess_plan *p);
/* Finds the windows of paged states, when all steps are there. */
tess_status tess__plan_find_windows(tess_plan *p);
/* Around every step of a run, and where a step failed in place of leave. */
void tess__plan_pages_begin(tess_plan *p);
tess_status tess__plan_pages_enter(tess_plan *p, int64_t step);
void tess__plan_pages_leave(tess_plan *p, int64_t step);
void tess__plan_pages_abandon(tess_plan *p, int64_t step);
/* Sizes the arena: gives each arena buffer an offset so that overlapping lifetimes never overlap in
 * bytes.  Returns the arena's size. */
size_t tess__plan_place(tess_buffer *buffers, int64_t n, tess_status *st);
/* The arena, the largest scratch, and on a device with memory of its own the inputs: in this order
 * in the workspace. */
size_t tess__plan_inputs_at(const tess_plan *p);
size_t tess__plan_bytes(const tess_plan *p);
/* Where the buffer's bytes are on the plan's device; NULL for -1. */
void *tess__plan_address(const tess_plan *p, int32_t buffer);
tess_status tess__workspace_reserve(tess_workspace *w, const tess_remote *remote, size_t n_bytes);
/* Fills the steps' data pointers; fails when an input is not bound. */
tess_status tess__plan_resolve(tess_plan *p);
/* Fails at the first output, or written state, that is not finite; all are in the host's memory. */
tess_status tess__step_check(const tess_step *st);

#endif
