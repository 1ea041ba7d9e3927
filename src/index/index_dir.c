/* SPDX-License-Identifier: Apache-2.0 */
/* The directory that an index is built in, and its move into place.
 *
 * The work directory has one fixed name, so that killed builds leave at most one behind; whether a
 * builder is alive is asked of a lock on the directory, which dies with its process, and not of a
 * process id.  An older index is exchanged for the new one by one system call (Linux 3.15); file
 * systems that cannot get two renames, the first undone if the second fails.
 */
#include "index/index_dir.h"

#include "base/fault.h"
#include "index/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Only an index, or nothing, may be replaced: a mistyped path must not cost someone's pictures. */
static tess_status check_target(const char *dir, bool replace)
{
    if (!tess_path_exists(dir)) {
        return TESS_OK;
    }
    tess_names names = {0};
    TESS_TRY(tess_dir_list(dir, false, &names));
    bool empty = names.n_names == 0, is_index = false;
    for (size_t i = 0; i < names.n_names; i++) {
        is_index |= strcmp(names.names[i], TESS__MANIFEST_NAME) == 0;
    }
    tess_names_deinit(&names);
    if (empty || (is_index && replace)) {
        return TESS_OK;
    }
    return TESS_FAIL(TESS_INVALID,
                     is_index ? "%s: there is an index here already; ask to replace it, or choose "
                                "another directory"
                              : "%s: the directory exists and is no index; choose another one",
                     dir);
}

/* True when `work` is (still) the directory that fd has open. */
static bool is_same(const char *work, int fd)
{
    struct stat a, b;
    return stat(work, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

static tess_status lock(tess__place *p)
{
    TESS_TRY(tess_dir_lock(p->work, "another build of this index is running", &p->lock_fd));
    p->has_lock = true;
    return TESS_OK;
}

static void unlock(tess__place *p)
{
    if (p->has_lock) {
        close(p->lock_fd);
        p->has_lock = false;
    }
}

/* Locks an empty directory: what a killed build left is removed under its lock. */
static tess_status lock_empty(tess__place *p)
{
    TESS_TRY(lock(p));
    tess_names names = {0};
    TESS_TRY(tess_dir_list(p->work, false, &names));
    bool empty = names.n_names == 0;
    tess_names_deinit(&names);
    if (empty) {
        return TESS_OK;
    }
    TESS_TRY(tess_dir_remove(p->work));
    unlock(p);
    return lock(p);
}

static char *parent_of(const char *dir)
{
    const char *slash = strrchr(dir, '/');
    return slash ? tess_strndup(dir, slash == dir ? 1 : (size_t)(slash - dir)) : tess_strdup(".");
}

tess_status tess__place_open(const char *dir, bool replace, tess__place *out)
{
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') {
        n--;
    }
    *out = (tess__place){.replace = replace};
    if (n == 0) {
        return TESS_FAIL(TESS_INVALID, "the index directory has an empty name");
    }
    out->dir = tess_strndup(dir, n);
    out->parent = out->dir ? parent_of(out->dir) : NULL;
    out->work = out->parent ? tess_format("%s.building", out->dir) : NULL;
    tess_status st = out->work ? check_target(out->dir, replace) : TESS_NOMEM;
    if (st == TESS_OK) {
        st = lock_empty(out);
    }
    if (st != TESS_OK) {
        tess__place_deinit(out);
    }
    return st;
}

/* 1: exchanged, 0: this file system or kernel cannot, -1: failed with errno. */
static int exchange(const char *a, const char *b)
{
    if (tess__fault_hit(TESS_FAULT_RENAME)) {
        errno = EIO;
        return -1;
    }
    if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0) {
        return 1;
    }
    return errno == EINVAL || errno == ENOSYS ? 0 : -1;
}

static tess_status swap_in_two(tess__place *p)
{
    char *old = tess_format("%s.old", p->dir);
    if (!old) {
        return TESS_NOMEM;
    }
    tess_status st = tess_dir_remove(old);
    if (st == TESS_OK) {
        st = tess_path_rename(p->dir, old);
    }
    if (st == TESS_OK) {
        st = tess_path_rename(p->work, p->dir);
        /* Forward, the old index goes where deinit removes it; else back where it was. */
        tess_status undone = tess_path_rename(old, st == TESS_OK ? p->work : p->dir);
        st = st == TESS_OK ? undone : st;
    }
    tess_free(old);
    return st;
}

/* The old index ends up at the work directory's name, locked, so that deinit may remove it. */
static tess_status swap(tess__place *p)
{
    int old_fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (old_fd < 0 || flock(old_fd, LOCK_EX | LOCK_NB) != 0) {
        tess_status st = tess__fail_errno("cannot lock", p->dir);
        if (old_fd >= 0) {
            close(old_fd);
        }
        return st;
    }
    int rc = exchange(p->work, p->dir);
    tess_status st = rc > 0   ? TESS_OK
                     : rc < 0 ? tess__fail_errno("cannot replace", p->dir)
                              : swap_in_two(p);
    close(st == TESS_OK ? p->lock_fd : old_fd);
    p->lock_fd = st == TESS_OK ? old_fd : p->lock_fd;
    return st;
}

static tess_status move_into_place(tess__place *p)
{
    TESS_TRY(check_target(p->dir, p->replace));
    char *manifest = tess_format("%s/%s", p->dir, TESS__MANIFEST_NAME);
    if (!manifest) {
        return TESS_NOMEM;
    }
    bool occupied = tess_path_exists(manifest);
    tess_free(manifest);
    if (!occupied) {
        return tess_path_rename(p->work, p->dir);
    }
    return swap(p);
}

tess_status tess__place_commit(tess__place *p)
{
    TESS_TRY(move_into_place(p));
    return tess_dir_sync(p->parent);
}

void tess__place_deinit(tess__place *p)
{
    if (p->has_lock && is_same(p->work, p->lock_fd)) {
        /* Nobody is told: the caller's own message matters more, and the next build clears it. */
        tess_status ignored = tess_dir_remove(p->work);
        (void)ignored;
    }
    unlock(p);
    tess_free(p->dir);
    tess_free(p->parent);
    tess_free(p->work);
    *p = (tess__place){0};
}
