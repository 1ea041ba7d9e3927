/* SPDX-License-Identifier: Apache-2.0 */
/* System calls that change files: complete or failed, and able to fail on demand. */
#ifndef BASE_OS_H
#define BASE_OS_H

#include "tessera/base.h"

/* Writes all bytes; false with errno set.  A failed call may have written a part, as a full disk
 * does; an injected failure writes half. */
bool tess__os_write(int fd, const void *data, size_t n_bytes);
/* The same at a place of the file. */
bool tess__os_write_at(int fd, const void *data, size_t n_bytes, int64_t at);
bool tess__os_fsync(int fd);
bool tess__os_rename(const char *from, const char *to);
/* The directory that holds `path`, in fresh memory; "." when it names none. */
char *tess__path_parent(const char *path);

#endif
