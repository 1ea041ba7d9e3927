/* SPDX-License-Identifier: Apache-2.0 */
/* The directory that an index is built in, and its move into place. */
#ifndef TESSERA_INDEX_INDEX_DIR_H
#define TESSERA_INDEX_INDEX_DIR_H

#include "tessera/base.h"

typedef struct tess__place {
    char *dir;     /* where the index will be, without a trailing slash */
    char *parent;  /* the directory that holds it */
    char *work;    /* "DIR.building" */
    int lock_fd;   /* locks what is at `work`, while the build lives */
    bool has_lock; /* lock_fd is open */
    bool replace;
} tess__place;

/* Checks what is at `dir`, makes and locks an empty work directory. */
TESS_MUST_USE tess_status tess__place_open(const char *dir, bool replace, tess__place *out);
/* Gives the work directory the final name, in one step also where an index was, and syncs.  What is
 * inside is on the disk already: writing the manifest last synced the directory.  When only the
 * sync after the move fails, the new index is in place although TESS_IO is returned. */
TESS_MUST_USE tess_status tess__place_commit(tess__place *p);
/* Removes the work directory, or the older index that the commit put there, and frees. */
void tess__place_deinit(tess__place *p);

#endif
