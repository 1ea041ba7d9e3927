/* SPDX-License-Identifier: Apache-2.0 */
/* tar: walks the members of a tar archive that lies in memory. */
#ifndef TESSERA_TRAIN_TAR_H
#define TESSERA_TRAIN_TAR_H

#include "tessera/data.h"

#define TESS__TAR_BLOCK 512u
#define TESS__TAR_NAME  4096u

typedef struct tess__tar {
    tess_bytes map;
    size_t at; /* where the next header is looked for; a multiple of 512 from the start */
} tess__tar;

typedef struct tess__tar_member {
    char name[TESS__TAR_NAME + 1]; /* as stored: any bytes but NUL; never a path to open */
    size_t name_bytes;
    size_t begin;   /* of the first header that belongs to it, extensions included */
    size_t data_at; /* data is [data_at, data_at + n_bytes) of the map when is_file */
    size_t n_bytes;
    bool is_file; /* a plain file, not sparse; everything else is to be passed over */
} tess__tar_member;

/* The next member.  *out_end at the end-of-archive marker.  TESS_FORMAT with *out_bad
 * TESS_BAD_TRUNCATED (the archive stops early; member->name_bytes > 0 when it stops inside that
 * member's data, 0 when between or in headers) or TESS_BAD_TAR_HEADER (bytes that are no header);
 * the message names the offset.  Nothing can be read behind either. */
TESS_MUST_USE tess_status tess__tar_next(tess__tar *t, tess__tar_member *member, bool *out_end,
                                         tess_bad *out_bad);

#endif
