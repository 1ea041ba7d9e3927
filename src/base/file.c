/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and mapping files.
 *
 * Reading does not trust the size that the system reports: pipes and /proc report none, and a file
 * may grow meanwhile; the limit counts what was read.  A mapping is for our own large files that
 * are replaced by rename and never shortened in place (a shortened mapping would raise SIGBUS).
 */
#include "tessera/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static tess_status open_for_reading(const char *path, int flags, int *out_fd, struct stat *out_stat)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | flags);
    if (fd < 0) {
        return tess__fail_errno("cannot open", path);
    }
    tess_status st = TESS_OK;
    if (fstat(fd, out_stat) != 0) {
        st = tess__fail_errno("cannot read", path);
    } else if (S_ISDIR(out_stat->st_mode)) {
        st = TESS_FAIL(TESS_IO, "cannot read: %s: expected a file, found a directory", path);
    }
    if (st != TESS_OK) {
        close(fd);
        return st;
    }
    *out_fd = fd;
    return TESS_OK;
}

static tess_status too_large(const char *path, size_t max_bytes)
{
    return TESS_FAIL(TESS_NOMEM, "%s: expected at most %zu bytes, found more", path, max_bytes);
}

/* Reads to the end; `*buf` of `*cap` bytes grows as needed and always has one byte to spare. */
static tess_status read_all(int fd, const char *path, size_t max_bytes, uint8_t **buf, size_t *cap,
                            size_t *out_bytes)
{
    size_t n = 0;
    for (;;) {
        TESS_TRY(tess_grow(buf, cap, n + 2, 1));
        ssize_t got = read(fd, *buf + n, *cap - n - 1);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return tess__fail_errno("cannot read", path);
        }
        if (got == 0) {
            break;
        }
        n += (size_t)got;
        if (n > max_bytes) {
            return too_large(path, max_bytes);
        }
    }
    (*buf)[n] = 0;
    *out_bytes = n;
    return TESS_OK;
}

tess_status tess_file_read(const char *path, size_t max_bytes, uint8_t **out, size_t *out_bytes)
{
    int fd = -1;
    struct stat info = {0};
    *out = NULL;
    *out_bytes = 0;
    TESS_TRY(open_for_reading(path, 0, &fd, &info));
    uint8_t *buf = NULL;
    size_t cap = 0;
    tess_status st = TESS_OK;
    if (S_ISREG(info.st_mode) && (uintmax_t)info.st_size > max_bytes) {
        TESS_TRY_GOTO(st, too_large(path, max_bytes), done);
    }
    if (S_ISREG(info.st_mode) && info.st_size > 0) {
        cap = (size_t)info.st_size + 2;
        buf = tess_alloc(cap);
        TESS_TRY_GOTO(st, buf != NULL ? TESS_OK : TESS_NOMEM, done);
    }
    st = read_all(fd, path, max_bytes, &buf, &cap, out_bytes);
done:
    close(fd);
    if (st != TESS_OK) {
        tess_free(buf);
        return st;
    }
    *out = buf;
    return TESS_OK;
}

tess_status tess_file_map(const char *path, tess_bytes *out)
{
    int fd = -1;
    struct stat info = {0};
    *out = (tess_bytes){0};
    /* A pipe is refused, not waited for. */
    TESS_TRY(open_for_reading(path, O_NONBLOCK, &fd, &info));
    tess_status st = TESS_OK;
    if (!S_ISREG(info.st_mode)) {
        st = TESS_FAIL(TESS_IO, "cannot map: %s: expected a regular file", path);
    } else if (info.st_size > 0) {
        void *p = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            st = tess__fail_errno("cannot map", path);
        } else {
            *out = (tess_bytes){p, (size_t)info.st_size};
        }
    }
    close(fd);
    return st;
}

void tess_file_unmap(tess_bytes *map)
{
    if (map == NULL) {
        return;
    }
    if (map->data != NULL) {
        munmap((void *)(uintptr_t)map->data, map->n_bytes);
    }
    *map = (tess_bytes){0};
}

/* The same call gives back anonymous memory, which then reads as zeros. */
void tess_memory_forget(void *data, size_t n_bytes)
{
    tess_file_forget(data, n_bytes);
}

void tess_file_forget(const void *data, size_t n_bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t begin = ((uintptr_t)data + page - 1) / page * page;
    const uintptr_t end = ((uintptr_t)data + n_bytes) / page * page;
    if (begin < end) {
        madvise((void *)begin, end - begin, MADV_DONTNEED); /* advice: may fail */
    }
}

enum { SUM_SLICE_BYTES = 8 << 20 };

uint64_t tess_file_crc64(tess_bytes map)
{
    uint64_t crc = 0;
    for (size_t i = 0, n; i < map.n_bytes; i += n) {
        n = map.n_bytes - i < SUM_SLICE_BYTES ? map.n_bytes - i : SUM_SLICE_BYTES;
        crc = tess_crc64(crc, map.data + i, n);
        tess_file_forget(map.data + i, n);
    }
    return crc;
}
