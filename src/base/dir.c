/* SPDX-License-Identifier: Apache-2.0 */
/* Directories: making, removing, listing, and making renames durable. */
#include "base/fault.h"
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REMOVE_OPEN_DIRS = 16 };

bool tess_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool tess_path_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* True when what is at `path` (still) is the directory that fd has open. */
static bool is_at(const char *path, int fd)
{
    struct stat a, b;
    return stat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino &&
           a.st_dev == b.st_dev;
}

tess_status tess_dir_lock(const char *path, const char *what, int *out_lock)
{
    *out_lock = -1;
    TESS_TRY(tess_dir_make(path));
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return tess__fail_errno("cannot open", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_at(path, fd)) {
        *out_lock = fd;
        return TESS_OK;
    }
    close(fd);
    return TESS_FAIL(TESS_INVALID, "%s: %s", path, what);
}

void tess_dir_unlock(int *lock)
{
    if (*lock > 0) {
        close(*lock);
    }
    *lock = -1;
}

tess_status tess_path_rename(const char *from, const char *to)
{
    return tess__os_rename(from, to) ? TESS_OK : tess__fail_errno("cannot rename", from);
}

/* 1: exchanged, 0: this file system or kernel cannot (Linux 3.15), -1: failed with errno. */
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

static tess_status take_place(const char *fresh, const char *dir)
{
    if (!tess_path_exists(dir)) {
        return tess_path_rename(fresh, dir);
    }
    if (!tess_path_is_dir(dir)) {
        return TESS_FAIL(TESS_INVALID, "cannot replace: %s: not a directory", dir);
    }
    int rc = exchange(fresh, dir);
    if (rc < 0) {
        return tess__fail_errno("cannot replace", dir);
    }
    if (rc == 0) {
        TESS_TRY(tess_dir_remove(dir));
        return tess_path_rename(fresh, dir);
    }
    return TESS_OK;
}

tess_status tess_dir_replace(const char *fresh, const char *dir)
{
    TESS_TRY(take_place(fresh, dir));
    char *parent = tess__path_parent(dir);
    tess_status st = parent != NULL ? tess_dir_sync(parent) : TESS_NOMEM;
    tess_free(parent);
    return st == TESS_OK ? tess_dir_remove(fresh) : st;
}

static tess_status make_one(const char *path)
{
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && tess_path_is_dir(path))) {
        return TESS_OK;
    }
    return tess__fail_errno("cannot make directory", path);
}

tess_status tess_dir_make(const char *path)
{
    if (*path == 0) {
        return TESS_FAIL(TESS_INVALID, "cannot make a directory with an empty name");
    }
    char *part = tess_strdup(path);
    if (part == NULL) {
        return TESS_NOMEM;
    }
    tess_status st = TESS_OK;
    for (char *p = part + 1; *p != 0 && st == TESS_OK; p++) {
        if (*p == '/') {
            *p = 0;
            st = make_one(part);
            *p = '/';
        }
    }
    if (st == TESS_OK) {
        st = make_one(part);
    }
    tess_free(part);
    return st;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

tess_status tess_dir_remove(const char *path)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        return errno == ENOENT ? TESS_OK : tess__fail_errno("cannot remove", path);
    }
    if (!S_ISDIR(info.st_mode)) {
        return TESS_FAIL(TESS_INVALID, "cannot remove: %s: expected a directory", path);
    }
    if (nftw(path, remove_entry, REMOVE_OPEN_DIRS, FTW_DEPTH | FTW_PHYS) != 0) {
        return tess__fail_errno("cannot remove", path);
    }
    return TESS_OK;
}

tess_status tess_dir_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return tess__fail_errno("cannot open directory", path);
    }
    tess_status st = tess__os_fsync(fd) ? TESS_OK : tess__fail_errno("cannot sync directory", path);
    close(fd);
    return st;
}

/* ---- listing ---- */

static tess_status add_owned(tess_names *names, char *name)
{
    if (name == NULL) {
        return TESS_NOMEM;
    }
    tess_status st = tess_grow(&names->names, &names->n_cap, names->n_names + 1, sizeof(char *));
    if (st != TESS_OK) {
        tess_free(name);
        return st;
    }
    names->names[names->n_names++] = name;
    return TESS_OK;
}

tess_status tess_names_add(tess_names *names, const char *name)
{
    return add_owned(names, tess_strdup(name));
}

void tess_names_deinit(tess_names *names)
{
    if (names == NULL) {
        return;
    }
    for (size_t i = 0; i < names->n_names; i++) {
        tess_free(names->names[i]);
    }
    tess_free(names->names);
    *names = (tess_names){0};
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds a walk's entry to the files, or to the directories still to visit. */
static tess_status add_found(int dir_fd, const char *below, const char *name, tess_names *files,
                             tess_names *dirs)
{
    struct stat info;
    if (fstatat(dir_fd, name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? TESS_OK : tess__fail_errno("cannot read", name);
    }
    bool is_dir = S_ISDIR(info.st_mode);
    if (S_ISLNK(info.st_mode) && fstatat(dir_fd, name, &info, 0) != 0) {
        return TESS_OK; /* a link to nothing is no file */
    }
    if (!is_dir && !S_ISREG(info.st_mode)) {
        return TESS_OK;
    }
    char *path = *below == 0 ? tess_strdup(name) : tess_format("%s/%s", below, name);
    return add_owned(is_dir ? dirs : files, path);
}

/* One directory's entries, `below` the root ("" for itself); with `dirs` a step of a walk. */
static tess_status list_one(const char *root, const char *below, tess_names *out, tess_names *dirs)
{
    char *path = *below == 0 ? tess_strdup(root) : tess_format("%s/%s", root, below);
    if (path == NULL) {
        return TESS_NOMEM;
    }
    DIR *dir = opendir(path);
    tess_status st = dir != NULL ? TESS_OK : tess__fail_errno("cannot open directory", path);
    while (st == TESS_OK) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL) {
            st = errno == 0 ? TESS_OK : tess__fail_errno("cannot read directory", path);
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        st = dirs != NULL ? add_found(dirfd(dir), below, entry->d_name, out, dirs)
                          : tess_names_add(out, entry->d_name);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    tess_free(path);
    return st;
}

tess_status tess_dir_list(const char *path, bool recursive, tess_names *out)
{
    tess_names dirs = {0};
    *out = (tess_names){0};
    tess_status st = list_one(path, "", out, recursive ? &dirs : NULL);
    while (st == TESS_OK && dirs.n_names > 0) {
        char *below = dirs.names[--dirs.n_names];
        st = list_one(path, below, out, &dirs);
        tess_free(below);
    }
    tess_names_deinit(&dirs);
    if (st != TESS_OK) {
        tess_names_deinit(out);
    } else if (out->n_names > 0) {
        qsort(out->names, out->n_names, sizeof(char *), compare_names);
    }
    return st;
}
