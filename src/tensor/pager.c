/* SPDX-License-Identifier: Apache-2.0 */
/* The pager: blocks, their states and the lanes that move them.
 *
 * A block that is there and not in use is gone at once, or after it was written; so what is there
 * is what was asked for, what is on its way out, and what is kept.  One mutex guards the states; a
 * lane holds it only between two transfers.  Giving memory back is the kernel's work
 * (MADV_DONTNEED), as is making it: a block that is read into is fresh memory. */
#include "tensor/pager.h"
#include "tensor/pager_file.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_BYTES = 2 << 20, N_LANES = 4, DIRECT_BYTES = 4096 };

typedef enum state { ZERO, AWAY, READING, THERE, WRITING } state;

typedef struct block {
    state state;
    bool dirty; /* the file has something else */
    bool zero;  /* it holds zeros, whatever the file has */
    bool kept;
    int32_t n_uses;
} block;

typedef struct region {
    struct region *next;
    uint8_t *base;
    void *mapping; /* what base was cut from */
    size_t n_mapped;
    tess_pager_file file;
    int64_t n;
    block *blocks;
} region;

typedef struct job {
    region *r;
    int64_t i;
} job;

struct tess_pager {
    char *dir;
    size_t block, budget;
    region *regions;
    pthread_mutex_t lock;
    pthread_cond_t work, moved;
    pthread_t lanes[N_LANES];
    int n_lanes;
    job *jobs; /* a ring: every block is in it at most once */
    size_t cap_jobs, n_jobs, first_job, n_blocks;
    int64_t n_writing;
    bool stopping;
    int error; /* errno of the first transfer that failed */
    tess_pager_stats stats;
};

/* ---- transfers ------------------------------------------------------------------------------- */

static uint8_t *address(const tess_pager *p, const region *r, int64_t i)
{
    return r->base + (size_t)i * p->block;
}

static void open_block(const tess_pager *p, const region *r, int64_t i)
{
    /* A range of addresses that is mapped already: it does not fail but for want of memory, and
     * then the transfer does. */
    (void)mprotect(address(p, r, i), p->block, PROT_READ | PROT_WRITE);
}

static void drop(tess_pager *p, region *r, int64_t i)
{
    uint8_t *at = address(p, r, i);
    (void)madvise(at, p->block, MADV_DONTNEED);
    (void)mprotect(at, p->block, PROT_NONE);
    r->blocks[i].state = r->blocks[i].zero ? ZERO : AWAY;
    p->stats.there_bytes -= p->block;
}

static void push(tess_pager *p, region *r, int64_t i, state s)
{
    r->blocks[i].state = s;
    p->n_writing += s == WRITING;
    p->jobs[(p->first_job + p->n_jobs++) % p->cap_jobs] = (job){r, i};
    pthread_cond_signal(&p->work);
}

/* What becomes of a block that is there. */
static void settle(tess_pager *p, region *r, int64_t i)
{
    block *b = &r->blocks[i];
    if (b->n_uses > 0 || b->kept) {
        b->state = THERE;
    } else if (b->dirty && !b->zero) {
        b->dirty = false;
        push(p, r, i, WRITING);
    } else {
        b->dirty = false;
        drop(p, r, i);
    }
}

static void *lane(void *ctx)
{
    tess_pager *p = ctx;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (p->n_jobs == 0 && !p->stopping) {
            pthread_cond_wait(&p->work, &p->lock);
        }
        if (p->n_jobs == 0) {
            break;
        }
        const job j = p->jobs[p->first_job];
        p->first_job = (p->first_job + 1) % p->cap_jobs;
        p->n_jobs--;
        const bool out = j.r->blocks[j.i].state == WRITING;
        const off_t at = (off_t)((size_t)j.i * p->block);
        pthread_mutex_unlock(&p->lock);
        const bool well =
            tess__pager_file_move(&j.r->file, address(p, j.r, j.i), p->block, at, out);
        const int error = well ? 0 : errno;
        pthread_mutex_lock(&p->lock);
        p->error = p->error ? p->error : error;
        p->n_writing -= out;
        *(out ? &p->stats.written_bytes : &p->stats.read_bytes) += p->block;
        settle(p, j.r, j.i);
        pthread_cond_broadcast(&p->moved);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- life ------------------------------------------------------------------------------------ */

static tess_status start(tess_pager *p, const tess_pager_options *o)
{
    const size_t n_bytes = o->block_bytes ? o->block_bytes : HUGE_BYTES;
    if (n_bytes % DIRECT_BYTES != 0) {
        return TESS_FAIL(TESS_INVALID, "pager: expected blocks of whole pages, found %zu bytes",
                         n_bytes);
    }
    p->block = p->stats.block_bytes = n_bytes;
    p->budget = SIZE_MAX;
    p->dir = tess_strdup(o->dir);
    TESS_TRY(p->dir ? tess_dir_make(p->dir) : TESS_NOMEM);
    while (p->n_lanes < N_LANES) {
        if (pthread_create(&p->lanes[p->n_lanes], NULL, lane, p) != 0) {
            return TESS_FAIL(TESS_NOMEM, "pager: no more threads can be started");
        }
        p->n_lanes++;
    }
    return TESS_OK;
}

tess_status tess_pager_new(const tess_pager_options *o, tess_pager **out)
{
    *out = NULL;
    tess_pager *p = tess_alloc(sizeof *p);
    if (!p) {
        return TESS_NOMEM;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->moved, NULL);
    const tess_status st = start(p, o);
    if (st) {
        tess_pager_free(p);
        return st;
    }
    *out = p;
    return TESS_OK;
}

static void free_region(region *r)
{
    if (r->mapping) {
        munmap(r->mapping, r->n_mapped);
    }
    tess__pager_file_close(&r->file);
    tess_free(r->blocks);
    tess_free(r);
}

void tess_pager_free(tess_pager *p)
{
    if (!p) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_lanes; i++) {
        pthread_join(p->lanes[i], NULL);
    }
    while (p->regions) {
        region *r = p->regions;
        p->regions = r->next;
        free_region(r);
    }
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->moved);
    tess_free(p->jobs);
    tess_free(p->dir);
    tess_free(p);
}

static tess_status fill_region(tess_pager *p, region *r, size_t n_bytes)
{
    const size_t n = (n_bytes + p->block - 1) / p->block;
    r->blocks = tess_alloc_array(n, sizeof *r->blocks);
    TESS_TRY(r->blocks ? TESS_OK : TESS_NOMEM);
    TESS_TRY(tess__pager_file_open(&r->file, p->dir, n * p->block));
    void *mapping = mmap(NULL, n * p->block + HUGE_BYTES, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        return TESS_FAIL(TESS_NOMEM, "no addresses for %.1f MB", (double)n_bytes * 1e-6);
    }
    r->mapping = mapping;
    r->n_mapped = n * p->block + HUGE_BYTES;
    r->base = (uint8_t *)mapping + (-(uintptr_t)mapping & (HUGE_BYTES - 1));
    if (p->block % HUGE_BYTES == 0) {
        (void)madvise(r->base, n * p->block, MADV_HUGEPAGE);
    }
    for (size_t i = 0; i < n; i++) {
        r->blocks[i] = (block){.state = ZERO, .zero = true};
    }
    r->n = (int64_t)n;
    return TESS_OK;
}

/* Called while no lane works. */
static tess_status grow_jobs(tess_pager *p, size_t n)
{
    if (n <= p->cap_jobs) {
        return TESS_OK;
    }
    job *jobs = tess_alloc_array(n, sizeof *jobs);
    if (!jobs) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < p->n_jobs; i++) {
        jobs[i] = p->jobs[(p->first_job + i) % p->cap_jobs];
    }
    tess_free(p->jobs);
    p->jobs = jobs;
    p->cap_jobs = n;
    p->first_job = 0;
    return TESS_OK;
}

tess_status tess__pager_map(tess_pager *p, size_t n_bytes, void **out)
{
    region *r = tess_alloc(sizeof *r);
    if (!r) {
        return TESS_NOMEM;
    }
    r->file.fd = -1;
    tess_status st = fill_region(p, r, n_bytes);
    pthread_mutex_lock(&p->lock);
    st = st ? st : grow_jobs(p, p->n_blocks + (size_t)r->n);
    if (st == TESS_OK) {
        p->n_blocks += (size_t)r->n;
        r->next = p->regions;
        p->regions = r;
    }
    pthread_mutex_unlock(&p->lock);
    if (st) {
        free_region(r);
        return st;
    }
    *out = r->base;
    return TESS_OK;
}

void tess__pager_unmap(tess_pager *p, void *base)
{
    pthread_mutex_lock(&p->lock);
    region **at = &p->regions;
    while (*at && (*at)->base != base) {
        at = &(*at)->next;
    }
    region *r = *at;
    for (int64_t i = 0; r && i < r->n; i++) {
        while (r->blocks[i].state == READING || r->blocks[i].state == WRITING) {
            pthread_cond_wait(&p->moved, &p->lock);
        }
        p->stats.there_bytes -= r->blocks[i].state == THERE ? p->block : 0;
    }
    if (r) {
        *at = r->next;
        p->n_blocks -= (size_t)r->n;
    }
    pthread_mutex_unlock(&p->lock);
    if (r) {
        free_region(r);
    }
}

void tess_pager_set_budget(tess_pager *p, size_t n_bytes)
{
    p->budget = n_bytes;
}

tess_pager_stats tess_pager_get_stats(tess_pager *p)
{
    pthread_mutex_lock(&p->lock);
    const tess_pager_stats stats = p->stats;
    pthread_mutex_unlock(&p->lock);
    return stats;
}

/* ---- ranges ---------------------------------------------------------------------------------- */

typedef struct range {
    region *r;
    int64_t begin, end; /* blocks */
} range;

static range find(const tess_pager *p, const void *at, size_t n_bytes)
{
    const uint8_t *x = at;
    for (region *r = p ? p->regions : NULL; r; r = r->next) {
        if (x >= r->base && x < r->base + (size_t)r->n * p->block) {
            const size_t offset = (size_t)(x - r->base);
            return (range){r, (int64_t)(offset / p->block),
                           (int64_t)((offset + n_bytes + p->block - 1) / p->block)};
        }
    }
    return (range){0};
}

bool tess__pager_has(const tess_pager *p, const void *at)
{
    return find(p, at, 1).r != NULL;
}

size_t tess__pager_budget(const tess_pager *p)
{
    return p->budget;
}

size_t tess__pager_block(const tess_pager *p)
{
    return p->block;
}

size_t tess__pager_span(const tess_pager *p, const void *at, size_t n_bytes)
{
    const range x = find(p, at, n_bytes);
    return (size_t)(x.end - x.begin) * p->block;
}

/* Bytes of memory that ranges need beyond what is there; where they share a block, too many. */
static size_t missing(const tess_pager *p, const tess_pages *pages, int n)
{
    size_t n_bytes = 0;
    for (int k = 0; k < n; k++) {
        const range x = find(p, pages[k].at, pages[k].n_bytes);
        for (int64_t i = x.begin; x.r && i < x.end; i++) {
            const state s = x.r->blocks[i].state;
            n_bytes += s == ZERO || s == AWAY ? p->block : 0;
        }
    }
    return n_bytes;
}

static bool has_room(const tess_pager *p, const tess_pages *pages, int n)
{
    const size_t need = missing(p, pages, n);
    return need == 0 || p->stats.there_bytes - p->stats.kept_bytes + need <= p->budget;
}

static void take(tess_pager *p, const range *x)
{
    for (int64_t i = x->begin; i < x->end; i++) {
        block *b = &x->r->blocks[i];
        b->n_uses++;
        if (b->state != ZERO && b->state != AWAY) {
            continue;
        }
        open_block(p, x->r, i);
        p->stats.there_bytes += p->block;
        if (p->stats.there_bytes > p->stats.peak_bytes) {
            p->stats.peak_bytes = p->stats.there_bytes;
        }
        if (b->state == AWAY) {
            push(p, x->r, i, READING);
        } else {
            b->state = THERE;
        }
    }
}

static void take_all(tess_pager *p, const tess_pages *pages, int n)
{
    for (int k = 0; k < n; k++) {
        const range x = find(p, pages[k].at, pages[k].n_bytes);
        if (x.r) {
            take(p, &x);
        }
    }
}

bool tess__pager_try(tess_pager *p, const tess_pages *x, int n)
{
    if (!p) {
        return true;
    }
    pthread_mutex_lock(&p->lock);
    const bool room = has_room(p, x, n);
    if (room) {
        take_all(p, x, n);
    }
    pthread_mutex_unlock(&p->lock);
    return room;
}

static tess_status check(const tess_pager *p)
{
    return p->error
               ? TESS_FAIL(TESS_IO, "offloading to a file in %s: %s", p->dir, strerror(p->error))
               : TESS_OK;
}

tess_status tess__pager_ask(tess_pager *p, const tess_pages *x, int n)
{
    if (!p) {
        return TESS_OK;
    }
    pthread_mutex_lock(&p->lock);
    const double start = tess_seconds();
    while (!has_room(p, x, n) && p->n_writing > 0 && !p->error) {
        pthread_cond_wait(&p->moved, &p->lock);
    }
    p->stats.waited_seconds += tess_seconds() - start;
    tess_status st = check(p);
    if (st == TESS_OK && !has_room(p, x, n)) {
        st = TESS_FAIL(
            TESS_NOMEM,
            "%.1f MB of offloaded states are needed at once, beside %.1f MB, and %.1f MB "
            "may be: raise the memory limit",
            (double)missing(p, x, n) * 1e-6,
            (double)(p->stats.there_bytes - p->stats.kept_bytes) * 1e-6, (double)p->budget * 1e-6);
    }
    if (st == TESS_OK) {
        take_all(p, x, n);
    }
    pthread_mutex_unlock(&p->lock);
    return st;
}

static void wait_range(tess_pager *p, const range *x)
{
    for (int64_t i = x->begin; x->r && i < x->end; i++) {
        while (x->r->blocks[i].state == READING && !p->error) {
            pthread_cond_wait(&p->moved, &p->lock);
        }
    }
}

tess_status tess__pager_wait(tess_pager *p, const tess_pages *pages, int n)
{
    if (!p) {
        return TESS_OK;
    }
    pthread_mutex_lock(&p->lock);
    const double start = tess_seconds();
    for (int k = 0; k < n; k++) {
        const range x = find(p, pages[k].at, pages[k].n_bytes);
        wait_range(p, &x);
    }
    p->stats.waited_seconds += tess_seconds() - start;
    const tess_status st = check(p);
    pthread_mutex_unlock(&p->lock);
    return st;
}

static void leave(tess_pager *p, region *r, int64_t i, bool whole, tess_paged how)
{
    block *b = &r->blocks[i];
    b->n_uses--;
    if (how == TESS_PAGED_ZEROED && whole) {
        b->zero = true;
    } else if (how != TESS_PAGED_READ) {
        b->zero = false;
        b->dirty = true;
    }
    if (b->state == THERE) {
        settle(p, r, i);
    }
}

static void leave_range(tess_pager *p, const tess_pages *pages)
{
    const range x = find(p, pages->at, pages->n_bytes);
    const size_t begin = x.r ? (size_t)((const uint8_t *)pages->at - x.r->base) : 0;
    for (int64_t i = x.begin; x.r && i < x.end; i++) {
        const size_t first = (size_t)i * p->block;
        const bool whole = begin <= first && begin + pages->n_bytes >= first + p->block;
        leave(p, x.r, i, whole, pages->how);
    }
}

void tess__pager_done(tess_pager *p, const tess_pages *x, int n)
{
    if (!p) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    for (int k = 0; k < n; k++) {
        leave_range(p, &x[k]);
    }
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->lock);
}

tess_status tess__pager_gather(tess_pager *p, const void *at, size_t n_bytes)
{
    const tess_pages x = {.at = at, .n_bytes = n_bytes};
    TESS_TRY(tess__pager_ask(p, &x, 1));
    const tess_status st = tess__pager_wait(p, &x, 1);
    if (st) {
        tess__pager_done(p, &x, 1);
    }
    return st;
}

void tess__pager_release(tess_pager *p, const void *at, size_t n_bytes, tess_paged how)
{
    tess__pager_done(p, &(tess_pages){.at = at, .n_bytes = n_bytes, .how = how}, 1);
}

/* ---- keeping --------------------------------------------------------------------------------- */

tess_status tess__pager_keep(tess_pager *p, const void *base, size_t n_bytes, size_t *budget)
{
    const range x = find(p, base, n_bytes);
    for (int64_t i = x.begin; x.r && i < x.end && *budget >= p->block; i++) {
        uint8_t *at = address(p, x.r, i);
        if (x.r->blocks[i].kept) {
            continue;
        }
        TESS_TRY(tess__pager_gather(p, at, p->block));
        pthread_mutex_lock(&p->lock);
        x.r->blocks[i].kept = true;
        p->stats.kept_bytes += p->block;
        pthread_mutex_unlock(&p->lock);
        tess__pager_release(p, at, p->block, TESS_PAGED_READ);
        *budget -= p->block;
    }
    return TESS_OK;
}
