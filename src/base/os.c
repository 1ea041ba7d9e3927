/* SPDX-License-Identifier: Apache-2.0 */
/* write, fsync and rename with retries after signals and with fault injection. */
#include "base/os.h"
#include "base/fault.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool write_all(int fd, const uint8_t *data, size_t n_bytes)
{
    while (n_bytes > 0) {
        ssize_t n = write(fd, data, n_bytes);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        if (n > 0) {
            data += n;
            n_bytes -= (size_t)n;
        }
    }
    return true;
}

bool tess__os_write(int fd, const void *data, size_t n_bytes)
{
    if (!tess__fault_hit(TESS_FAULT_WRITE)) {
        return write_all(fd, data, n_bytes);
    }
    (void)write_all(fd, data, n_bytes / 2);
    errno = ENOSPC;
    return false;
}

static bool write_all_at(int fd, const uint8_t *data, size_t n_bytes, int64_t at)
{
    while (n_bytes > 0) {
        ssize_t n = pwrite(fd, data, n_bytes, at);
        if (n < 0 && errno != EINTR) {
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

bool tess__os_write_at(int fd, const void *data, size_t n_bytes, int64_t at)
{
    if (!tess__fault_hit(TESS_FAULT_WRITE)) {
        return write_all_at(fd, data, n_bytes, at);
    }
    (void)write_all_at(fd, data, n_bytes / 2, at);
    errno = ENOSPC;
    return false;
}

bool tess__os_fsync(int fd)
{
    if (tess__fault_hit(TESS_FAULT_FSYNC)) {
        errno = EIO;
        return false;
    }
    int rc = 0;
    do {
        rc = fsync(fd);
    } while (rc != 0 && errno == EINTR);
    return rc == 0;
}

bool tess__os_rename(const char *from, const char *to)
{
    if (tess__fault_hit(TESS_FAULT_RENAME)) {
        errno = EIO;
        return false;
    }
    return rename(from, to) == 0;
}

char *tess__path_parent(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    while (n > 0 && path[n - 1] != '/') {
        n--;
    }
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    return n > 0 ? tess_strndup(path, n) : tess_strdup(".");
}
