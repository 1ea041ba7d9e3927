/* SPDX-License-Identifier: Apache-2.0 */
/* Files that survive a crash: the whole-or-absent writer and the append-only log.
 *
 * A failed write or fsync kills the object: after a failed fsync the kernel may call lost pages
 * clean, so a second fsync that succeeds proves nothing.  The one failure that is mended is an
 * append that stopped half-way: the log is cut back to its last whole record.
 */
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024 };

struct tess_writer {
    char *path, *temporary, *parent;
    uint8_t *buffer;
    size_t n_buffered;
    int fd; /* -1: none */
    bool failed;
};

struct tess_appender {
    char *path;
    int64_t n_bytes;
    int fd;
    bool failed, created;
};

static void free_writer(tess_writer *w)
{
    if (w->fd >= 0) {
        close(w->fd);
    }
    tess_free(w->buffer);
    tess_free(w->parent);
    tess_free(w->temporary);
    tess_free(w->path);
    tess_free(w);
}

/* A name beside the final one, unlike that of any other writer of any process. */
static char *temporary_name(const char *path, const char *parent)
{
    static _Atomic uint64_t serial;
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    return tess_format("%s/.%s.%ld-%llu.tmp", parent, base, (long)getpid(),
                       (unsigned long long)atomic_fetch_add(&serial, 1));
}

tess_status tess_writer_open(const char *path, tess_writer **out)
{
    *out = NULL;
    size_t n = strlen(path);
    if (n == 0 || path[n - 1] == '/') {
        return TESS_FAIL(TESS_INVALID, "cannot write: \"%s\" names no file", path);
    }
    tess_writer *w = tess_alloc(sizeof *w);
    if (w == NULL) {
        return TESS_NOMEM;
    }
    w->fd = -1;
    w->path = tess_strdup(path);
    w->parent = tess__path_parent(path);
    w->buffer = tess_alloc(BUFFER_BYTES);
    w->temporary = w->parent != NULL ? temporary_name(path, w->parent) : NULL;
    if (w->path == NULL || w->buffer == NULL || w->temporary == NULL) {
        free_writer(w);
        return TESS_NOMEM;
    }
    /* The pid may return after a crash, so a leftover of the same name is overwritten. */
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) {
        tess_status st = tess__fail_errno("cannot create", path);
        free_writer(w);
        return st;
    }
    *out = w;
    return TESS_OK;
}

static tess_status write_through(tess_writer *w, const void *data, size_t n_bytes)
{
    if (w->failed) {
        return TESS_FAIL(TESS_IO, "cannot write: %s: an earlier write failed", w->path);
    }
    if (!tess__os_write(w->fd, data, n_bytes)) {
        w->failed = true;
        return tess__fail_errno("cannot write", w->path);
    }
    return TESS_OK;
}

static tess_status flush(tess_writer *w)
{
    size_t n = w->n_buffered;
    w->n_buffered = 0;
    return n > 0 || w->failed ? write_through(w, w->buffer, n) : TESS_OK;
}

tess_status tess_writer_write(tess_writer *w, const void *data, size_t n_bytes)
{
    if (n_bytes > BUFFER_BYTES - w->n_buffered) {
        TESS_TRY(flush(w));
    }
    if (n_bytes >= BUFFER_BYTES) {
        return write_through(w, data, n_bytes);
    }
    if (n_bytes > 0) {
        memcpy(w->buffer + w->n_buffered, data, n_bytes);
        w->n_buffered += n_bytes;
    }
    return TESS_OK;
}

/* Everything up to the rename, in the order that makes the file whole before it has its name. */
static tess_status publish(tess_writer *w)
{
    TESS_TRY(flush(w));
    if (!tess__os_fsync(w->fd)) {
        return tess__fail_errno("cannot sync", w->path);
    }
    int rc = close(w->fd);
    w->fd = -1;
    if (rc != 0) {
        return tess__fail_errno("cannot close", w->path);
    }
    if (!tess__os_rename(w->temporary, w->path)) {
        return tess__fail_errno("cannot rename into place", w->path);
    }
    return TESS_OK;
}

tess_status tess_writer_commit(tess_writer *w)
{
    tess_status st = publish(w);
    if (st != TESS_OK) {
        tess_writer_abort(w);
        return st;
    }
    st = tess_dir_sync(w->parent);
    free_writer(w);
    return st;
}

void tess_writer_abort(tess_writer *w)
{
    if (w != NULL) {
        unlink(w->temporary);
        free_writer(w);
    }
}

tess_status tess_file_write(const char *path, const void *data, size_t n_bytes)
{
    tess_writer *w = NULL;
    TESS_TRY(tess_writer_open(path, &w));
    tess_status st = tess_writer_write(w, data, n_bytes);
    if (st != TESS_OK) {
        tess_writer_abort(w);
        return st;
    }
    return tess_writer_commit(w);
}

/* ---- the append-only log ---- */

static tess_status cut_to(tess_appender *a, int64_t keep_bytes)
{
    struct stat info;
    if (fstat(a->fd, &info) != 0) {
        return tess__fail_errno("cannot read", a->path);
    }
    a->n_bytes = info.st_size;
    if (keep_bytes < 0 || keep_bytes == info.st_size) {
        return TESS_OK;
    }
    if (keep_bytes > info.st_size) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected at least %lld bytes to go on from, found %lld",
                         a->path, (long long)keep_bytes, (long long)info.st_size);
    }
    if (ftruncate(a->fd, keep_bytes) != 0) {
        return tess__fail_errno("cannot cut back", a->path);
    }
    a->n_bytes = keep_bytes;
    return TESS_OK;
}

tess_status tess_appender_open(const char *path, int64_t keep_bytes, tess_appender **out)
{
    *out = NULL;
    tess_appender *a = tess_alloc(sizeof *a);
    if (a == NULL) {
        return TESS_NOMEM;
    }
    a->fd = -1;
    a->path = tess_strdup(path);
    if (a->path == NULL) {
        tess_appender_close(a);
        return TESS_NOMEM;
    }
    a->created = !tess_path_exists(path);
    a->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    tess_status st = a->fd >= 0 ? cut_to(a, keep_bytes) : tess__fail_errno("cannot open", path);
    if (st != TESS_OK) {
        tess_appender_close(a);
        return st;
    }
    *out = a;
    return TESS_OK;
}

static tess_status refuse_dead(const tess_appender *a)
{
    return a->failed ? TESS_FAIL(TESS_IO, "cannot append: %s: an earlier write failed", a->path)
                     : TESS_OK;
}

tess_status tess_appender_write(tess_appender *a, const void *data, size_t n_bytes)
{
    TESS_TRY(refuse_dead(a));
    if (!tess__os_write(a->fd, data, n_bytes)) {
        tess_status st = tess__fail_errno("cannot append", a->path);
        a->failed = ftruncate(a->fd, a->n_bytes) != 0;
        return st;
    }
    a->n_bytes += (int64_t)n_bytes;
    return TESS_OK;
}

tess_status tess_appender_sync(tess_appender *a)
{
    TESS_TRY(refuse_dead(a));
    if (!tess__os_fsync(a->fd)) {
        a->failed = true;
        return tess__fail_errno("cannot sync", a->path);
    }
    if (!a->created) {
        return TESS_OK;
    }
    char *parent = tess__path_parent(a->path);
    tess_status st = parent != NULL ? tess_dir_sync(parent) : TESS_NOMEM;
    a->created = st != TESS_OK;
    tess_free(parent);
    return st;
}

int64_t tess_appender_bytes(const tess_appender *a)
{
    return a->n_bytes;
}

void tess_appender_close(tess_appender *a)
{
    if (a == NULL) {
        return;
    }
    if (a->fd >= 0) {
        close(a->fd);
    }
    tess_free(a->path);
    tess_free(a);
}
