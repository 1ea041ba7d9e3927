/* SPDX-License-Identifier: Apache-2.0 */
/* Memory whose blocks are there only while they are used; the rest of the time they lie in a file
 * (Rajbhandari et al. 2021, ZeRO-Infinity).
 *
 * A region is a range of addresses, of which every block is in one of these states: zero (neither
 * memory nor bytes in the file), away (in the file), there.  What is not there cannot be read or
 * written: a use that nobody announced is a fault of the processor, not a zero in a weight.  So
 * operators, kernels and plans know nothing of files: an address is an address, and whoever knows
 * when it is used says so, ahead of time.
 *
 * Files are scratch without a name: whatever ends the process frees them.  Reading and writing is
 * the work of threads of the pager's own, the lanes, past the page cache (O_DIRECT) where the file
 * system has that, else with the cache's pages given back.
 *
 * Called by one thread at a time; the lanes are its own affair. */
#ifndef TESSERA_TENSOR_PAGER_H
#define TESSERA_TENSOR_PAGER_H

#include "tessera/tensor.h"

/* What has become of a range that is used no longer. */
typedef enum tess_paged {
    TESS_PAGED_READ,    /* as it was */
    TESS_PAGED_WRITTEN, /* to be written back */
    TESS_PAGED_ZEROED,  /* all zeros: neither written back nor read again */
} tess_paged;

/* n_bytes of zeros.  TESS_IO: the file system has no room for them. */
tess_status tess__pager_map(tess_pager *p, size_t n_bytes, void **out);
void tess__pager_unmap(tess_pager *p, void *base);
/* Whether `at` lies in one of the pager's regions; p may be NULL. */
bool tess__pager_has(const tess_pager *p, const void *at);
size_t tess__pager_block(const tess_pager *p);
size_t tess__pager_budget(const tess_pager *p);
/* Bytes of the blocks that a range touches. */
size_t tess__pager_span(const tess_pager *p, const void *at, size_t n_bytes);

/* Ranges that are used together; what is no region's is there always. */
typedef struct tess_pages {
    const void *at;
    size_t n_bytes;
    tess_paged how; /* when it is used no longer */
} tess_pages;
/* They are to be used: what of them is away is read meanwhile.  try: only where memory is left for
 * all of them, which it tells.  ask: waits until memory is left; TESS_NOMEM where no write is on
 * its way that would free some. */
bool tess__pager_try(tess_pager *p, const tess_pages *x, int n);
tess_status tess__pager_ask(tess_pager *p, const tess_pages *x, int n);
/* Waits until what was asked for is there. */
tess_status tess__pager_wait(tess_pager *p, const tess_pages *x, int n);
/* The end of a use that was asked for. */
void tess__pager_done(tess_pager *p, const tess_pages *x, int n);
/* Ask and wait for one range; its end. */
tess_status tess__pager_gather(tess_pager *p, const void *at, size_t n_bytes);
void tess__pager_release(tess_pager *p, const void *at, size_t n_bytes, tess_paged how);
/* Blocks of the range stay there from now on, as long as *budget has bytes for them. */
tess_status tess__pager_keep(tess_pager *p, const void *at, size_t n_bytes, size_t *budget);

/* A pass over more than there is room for: in pieces, the next ones on their way and the last ones
 * being written while one is worked on. */
enum { TESS_PASS_PAGES = 24 };
typedef struct tess_pass {
    int64_t n;                                                 /* pieces */
    int (*pages)(const void *ctx, int64_t k, tess_pages *out); /* of piece k, how many */
    void (*run)(const void *ctx, int64_t k);
    const void *ctx;
} tess_pass;
tess_status tess__pager_pass(tess_pager *p, const tess_pass *x);
/* How many blocks a piece of a pass over `n_runs` ranges may have of each, so that some pieces have
 * room at once: from 1 on. */
int64_t tess__pager_piece(const tess_pager *p, int n_runs);

#endif
