/* SPDX-License-Identifier: Apache-2.0 */
/* A large file that threads and processes fill by ranges.
 *
 * Whole pages of the file go past the page cache (O_DIRECT) where the file system can: straight
 * from the caller's memory where that lies as the disk wants it, else through a small aligned
 * buffer.  On a virtual machine whose page cache had to grow, 1 GiB took 0.7 s this way and 5 to 17
 * s through the cache; and memory that training needs stays its own.  What is left of a range at
 * its two ends goes through the cache: no page has both, unless two writers share it, who then both
 * use the cache.
 *
 * Each range is summed as it is written, a piece at a time, while it is in the processor's cache.
 * The sums of ranges that follow each other are joined, so what is kept is short. */
#include "base/fault.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PAGE = 4096,             /* of the file: what direct writing keeps to */
    MEMORY_BOUND = 512,      /* where the disk's memory may begin */
    PIECE_BYTES = 4 << 20,   /* a call */
    DIRECT_BYTES = 64 << 10, /* at least: below it a call costs more than the copy */
};

struct tess_range_writer {
    char *path;
    int64_t n_bytes;
    int fd, direct; /* direct -1: there is none */
    pthread_mutex_t lock;
    tess_range_sum *sums;
    size_t n_sums, cap_sums;
};

/* ---- sums ---------------------------------------------------------------------------------- */

static int by_begin(const void *a, const void *b)
{
    const tess_range_sum *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

size_t tess_range_sums_merge(tess_range_sum *sums, size_t n)
{
    if (n == 0) {
        return 0;
    }
    qsort(sums, n, sizeof *sums, by_begin);
    size_t last = 0;
    for (size_t i = 1; i < n; i++) {
        tess_range_sum *a = &sums[last];
        const tess_range_sum *b = &sums[i];
        if (b->begin == a->begin + a->n_bytes) {
            a->crc = tess_crc64_join(a->crc, b->crc, (uint64_t)b->n_bytes);
            a->n_bytes += b->n_bytes;
        } else {
            sums[++last] = *b;
        }
    }
    return last + 1;
}

tess_status tess_range_sums_whole(tess_range_sum *sums, size_t n, int64_t n_bytes,
                                  uint64_t *out_crc)
{
    n = tess_range_sums_merge(sums, n);
    if (n != 1 || sums[0].begin != 0 || sums[0].n_bytes != n_bytes) {
        return TESS_FAIL(TESS_INVALID,
                         "the ranges written do not fill the file's %lld bytes once each: %zu runs,"
                         " the first of %lld bytes",
                         (long long)n_bytes, n, n > 0 ? (long long)sums[0].n_bytes : 0);
    }
    *out_crc = sums[0].crc;
    return TESS_OK;
}

/* ---- life ---------------------------------------------------------------------------------- */

static void free_writer(tess_range_writer *w)
{
    if (w->fd >= 0) {
        close(w->fd);
    }
    if (w->direct >= 0) {
        close(w->direct);
    }
    pthread_mutex_destroy(&w->lock);
    tess_free(w->sums);
    tess_free(w->path);
    tess_free(w);
}

/* The blocks of the whole file at once, so that a full disk is known before anything is written. */
static tess_status reserve(const tess_range_writer *w)
{
    int rc = ftruncate(w->fd, w->n_bytes);
    if (rc != 0 || w->n_bytes == 0) {
        return rc == 0 ? TESS_OK : tess__fail_errno("cannot write", w->path);
    }
    do {
        rc = fallocate(w->fd, 0, 0, w->n_bytes);
    } while (rc != 0 && errno == EINTR);
    return rc == 0 || errno == EOPNOTSUPP || errno == ENOSYS
               ? TESS_OK
               : tess__fail_errno("cannot write", w->path);
}

tess_status tess_range_writer_open(const char *path, int64_t n_bytes, bool create,
                                   tess_range_writer **out)
{
    *out = NULL;
    tess_range_writer *w = tess_alloc(sizeof *w);
    if (w == NULL) {
        return TESS_NOMEM;
    }
    w->fd = w->direct = -1;
    w->n_bytes = n_bytes;
    pthread_mutex_init(&w->lock, NULL);
    w->path = tess_strdup(path);
    tess_status st = w->path != NULL ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        w->fd = open(path, O_WRONLY | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0666);
        st = w->fd >= 0 ? TESS_OK : tess__fail_errno("cannot create", path);
    }
    st = st || !create ? st : reserve(w);
    if (st != TESS_OK) {
        free_writer(w);
        return st;
    }
    w->direct = n_bytes >= DIRECT_BYTES ? open(path, O_WRONLY | O_CLOEXEC | O_DIRECT) : -1;
    *out = w;
    return TESS_OK;
}

/* ---- writing ------------------------------------------------------------------------------- */

static tess_status add_sum(tess_range_writer *w, int64_t begin, size_t n_bytes, uint64_t crc)
{
    pthread_mutex_lock(&w->lock);
    if (w->n_sums == w->cap_sums && w->n_sums >= 1024) {
        w->n_sums = tess_range_sums_merge(w->sums, w->n_sums);
    }
    tess_status st = tess_grow(&w->sums, &w->cap_sums, w->n_sums + 1, sizeof *w->sums);
    if (st == TESS_OK) {
        w->sums[w->n_sums++] = (tess_range_sum){begin, (int64_t)n_bytes, crc};
    }
    pthread_mutex_unlock(&w->lock);
    return st;
}

static tess_status put(tess_range_writer *w, bool direct, const uint8_t *data, size_t n_bytes,
                       int64_t at)
{
    bool done = tess__os_write_at(direct ? w->direct : w->fd, data, n_bytes, at);
    if (!done && direct && errno == EINVAL) { /* a file system that wants other places or lengths */
        done = tess__os_write_at(w->fd, data, n_bytes, at);
    }
    return done ? TESS_OK : tess__fail_errno("cannot write", w->path);
}

/* Whole pages, past the cache; by way of `aligned` where the memory is not as the disk wants it. */
static tess_status put_pages(tess_range_writer *w, const uint8_t *data, size_t n_bytes, int64_t at,
                             uint8_t *aligned, uint64_t *crc)
{
    for (size_t i = 0, n; i < n_bytes; i += n) {
        n = n_bytes - i < PIECE_BYTES ? n_bytes - i : PIECE_BYTES;
        const uint8_t *piece = data + i;
        if (aligned) {
            piece = memcpy(aligned, piece, n);
        }
        *crc = tess_crc64(*crc, piece, n);
        TESS_TRY(put(w, true, piece, n, at + (int64_t)i));
    }
    return TESS_OK;
}

static tess_status put_cached(tess_range_writer *w, const uint8_t *data, size_t n_bytes, int64_t at,
                              uint64_t *crc)
{
    for (size_t i = 0, n; i < n_bytes; i += n) {
        n = n_bytes - i < PIECE_BYTES ? n_bytes - i : PIECE_BYTES;
        *crc = tess_crc64(*crc, data + i, n);
        TESS_TRY(put(w, false, data + i, n, at + (int64_t)i));
    }
    return TESS_OK;
}

static tess_status put_range(tess_range_writer *w, const uint8_t *data, size_t n_bytes, int64_t at,
                             uint64_t *crc)
{
    const size_t head = (size_t)(-at & (PAGE - 1));
    if (w->direct < 0 || n_bytes < head + DIRECT_BYTES) {
        return put_cached(w, data, n_bytes, at, crc);
    }
    const size_t pages = (n_bytes - head) / PAGE * PAGE;
    uint8_t *memory = NULL, *aligned = NULL;
    if ((uintptr_t)(data + head) % MEMORY_BOUND != 0) {
        memory = tess_alloc_unset(PIECE_BYTES + PAGE);
        TESS_TRY(memory != NULL ? TESS_OK : TESS_NOMEM);
        aligned = memory + (-(uintptr_t)memory & (PAGE - 1));
    }
    tess_status st = put_cached(w, data, head, at, crc);
    st = st ? st : put_pages(w, data + head, pages, at + (int64_t)head, aligned, crc);
    tess_free(memory);
    const size_t done = head + pages;
    return st ? st : put_cached(w, data + done, n_bytes - done, at + (int64_t)done, crc);
}

tess_status tess_range_writer_write(tess_range_writer *w, int64_t at, const void *data,
                                    size_t n_bytes)
{
    uint64_t crc = 0;
    if (at < 0 || at > w->n_bytes || n_bytes > (uint64_t)(w->n_bytes - at)) {
        return TESS_FAIL(TESS_INVALID, "%s: a range of %zu bytes at %lld lies outside its %lld",
                         w->path, n_bytes, (long long)at, (long long)w->n_bytes);
    }
    if (n_bytes == 0) {
        return TESS_OK;
    }
    TESS_TRY(put_range(w, data, n_bytes, at, &crc));
    return add_sum(w, at, n_bytes, crc);
}

tess_status tess_range_writer_close(tess_range_writer *w, tess_range_sum **out_sums, size_t *out_n)
{
    tess_status st = tess__os_fsync(w->fd) ? TESS_OK : tess__fail_errno("cannot sync", w->path);
    int rc = close(w->fd);
    w->fd = -1;
    st = st || rc == 0 ? st : tess__fail_errno("cannot close", w->path);
    if (st == TESS_OK) {
        *out_n = tess_range_sums_merge(w->sums, w->n_sums);
        *out_sums = w->sums;
        w->sums = NULL;
    }
    free_writer(w);
    return st;
}

void tess_range_writer_abort(tess_range_writer *w)
{
    if (w != NULL) {
        free_writer(w);
    }
}
