/* SPDX-License-Identifier: Apache-2.0 */
/* The file of a pager's region: scratch without a name, past the page cache where that is possible.
 */
#ifndef TESSERA_TENSOR_PAGER_FILE_H
#define TESSERA_TENSOR_PAGER_FILE_H

#include <sys/types.h>

#include "tessera/base.h"

typedef struct tess_pager_file {
    int fd;      /* -1: none */
    bool direct; /* past the page cache */
} tess_pager_file;

/* In a directory; all its bytes are allotted.  TESS_IO: there is no room. */
tess_status tess__pager_file_open(tess_pager_file *f, const char *dir, size_t n_bytes);
void tess__pager_file_close(tess_pager_file *f);
/* n_bytes, whole pages from a page's beginning on, to or `out` of memory; false with errno set. */
bool tess__pager_file_move(const tess_pager_file *f, void *data, size_t n_bytes, off_t at,
                           bool out);

#endif
