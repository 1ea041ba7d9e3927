/* SPDX-License-Identifier: Apache-2.0 */
/* Files that nobody can find: opened with O_TMPFILE, or unlinked as soon as they are there, so that
 * whatever ends the process frees them.  With O_DIRECT their bytes are in no page cache, which a
 * control group would count; where the file system lacks it, the cache's pages are given back. */
#include "tensor/pager_file.h"

#include "base/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A file without a name: with O_TMPFILE it never has one. */
static int open_nameless(const char *dir, int flags)
{
    const int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) {
        return fd;
    }
    char *path = tess_format("%s/offload.XXXXXX", dir);
    const int named = path ? mkostemp(path, O_CLOEXEC | flags) : -1;
    if (named >= 0) {
        unlink(path);
    }
    tess_free(path);
    return named;
}

tess_status tess__pager_file_open(tess_pager_file *f, const char *dir, size_t n_bytes)
{
    f->fd = open_nameless(dir, O_DIRECT);
    f->direct = f->fd >= 0;
    if (f->fd < 0 && errno == EINVAL) {
        f->fd = open_nameless(dir, 0);
    }
    if (f->fd < 0) {
        return tess__fail_errno("no file can be made for offloading in", dir);
    }
    int rc;
    do {
        rc = fallocate(f->fd, 0, 0, (off_t)n_bytes);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno == EOPNOTSUPP) {
        rc = ftruncate(f->fd, (off_t)n_bytes);
    }
    if (rc != 0) {
        return TESS_FAIL(TESS_IO, "offloading needs %.1f MB in %s: %s", (double)n_bytes * 1e-6, dir,
                         strerror(errno));
    }
    return TESS_OK;
}

void tess__pager_file_close(tess_pager_file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
}

static bool move(const tess_pager_file *f, uint8_t *data, size_t n_bytes, off_t at, bool out)
{
    if (out && tess__fault_hit(TESS_FAULT_WRITE)) {
        errno = ENOSPC;
        return false;
    }
    while (n_bytes > 0) {
        const ssize_t n = out ? pwrite(f->fd, data, n_bytes, at) : pread(f->fd, data, n_bytes, at);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            errno = n == 0 ? EIO : errno;
            return false;
        }
        if (n > 0) {
            data += n;
            at += n;
            n_bytes -= (size_t)n;
        }
    }
    return true;
}

/* The cache's copy is nobody's use: it is given back, as soon as it is on the disk. */
static void forget_cached(const tess_pager_file *f, off_t at, size_t n_bytes, bool out)
{
    if (!f->direct) {
        if (out) {
            (void)sync_file_range(f->fd, at, (off_t)n_bytes,
                                  SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                      SYNC_FILE_RANGE_WAIT_AFTER);
        }
        (void)posix_fadvise(f->fd, at, (off_t)n_bytes, POSIX_FADV_DONTNEED);
    }
}

bool tess__pager_file_move(const tess_pager_file *f, void *data, size_t n_bytes, off_t at, bool out)
{
    const bool well = move(f, data, n_bytes, at, out);
    const int error = errno;
    forget_cached(f, at, n_bytes, out);
    errno = error;
    return well;
}
