/* SPDX-License-Identifier: Apache-2.0 */
/* source: what the kinds of sources share, and the data set they fill.
 *
 * A source kind is one row of tess__sources: how to index a file into records, and how to read a
 * record.  A record is 48 bytes; everything else about a sample stays in its file.
 */
#ifndef TESSERA_TRAIN_SOURCE_H
#define TESSERA_TRAIN_SOURCE_H

#include "tessera/data.h"

#define TESS__NOT_THERE UINT32_MAX

/* Where a sample lies.  The meaning of the members is its source's:
 *   webdataset  begin: the first header; x_at: data of the member, in 512-byte blocks from begin
 *   csv, jsonl  begin, text_bytes: the row or line
 *   xtd10, crossmodal3600  begin, text_bytes: the line of the JSON lines made of them
 *   folder      begin: its picture's path in ds->names; text_at, json_at: NOT_THERE or 0 */
typedef struct tess__record {
    uint64_t begin, id;
    uint32_t file;
    uint32_t picture_at, picture_bytes, text_at, text_bytes, json_at, json_bytes;
} tess__record;

struct tess__source;
typedef struct tess__file {
    char *path;
    tess_bytes map;
    char *text; /* NULL, or what `map` shows, made in memory */
    const struct tess__source *source;
    char separator;                     /* csv */
    uint32_t image_column, text_column; /* csv */
    const char **languages; /* csv without pictures: of each column, NULL where it is no caption */
    size_t n_languages;     /* columns of it */
} tess__file;

typedef struct tess__source {
    const char *type;
    const char *suffixes;  /* of files of this kind, split by '|' */
    const char *sign;      /* the file that marks a directory of this kind; NULL: none does */
    const char *sign_word; /* that stands in its first 64 KiB; NULL: anything does */
    bool is_mapped;
    tess_status (*index)(tess_dataset *ds, uint32_t file);
    tess_status (*read)(const tess_dataset *ds, const tess__record *r, int parts, tess_sample *s);
    /* Sets the key before `read`; NULL: `read` does. */
    tess_status (*read_key)(const tess_dataset *ds, const tess__record *r, tess_sample *s);
} tess__source;
extern const tess__source tess__source_tar, tess__source_csv, tess__source_jsonl,
    tess__source_folder, tess__source_xtd10, tess__source_crossmodal;

typedef struct tess__languages {
    char **names; /* sorted */
    int64_t *counts;
    size_t n, cap_names, cap_counts;
} tess__languages;

struct tess_dataset {
    tess_arena arena; /* paths, option strings */
    tess_dataset_options options;
    tess_names image_keys, caption_keys, suffixes; /* the options, split */
    tess__file *files;
    size_t n_files, cap_files;
    tess__record *records;
    size_t n_records, cap_records;
    tess_buf names; /* folder: paths, each with its NUL */
    tess__languages languages;
    bool has_json;     /* some captions may name languages */
    bool has_own_keys; /* caption_key is not the default */
    tess_bad_list bad;
};

/* ---- names -------------------------------------------------------------------------------- */

/* Expands "::" and braces: "{000..012}" counts, keeping the width; "{a,b}" lists; both nest and
 * repeat.  At most a million names. */
TESS_MUST_USE tess_status tess__source_expand(const char *pattern, tess_names *out);
/* Splits at any of `separators`; empty parts are left out. */
TESS_MUST_USE tess_status tess__names_split(const char *s, const char *separators, tess_names *out);
/* Does `name` end in "." and one of the suffixes (ASCII case aside)?  Its place, else -1. */
int64_t tess__suffix_find(const tess_names *suffixes, const char *name, size_t n_bytes);

/* ---- records ------------------------------------------------------------------------------ */

TESS_MUST_USE tess_status tess__record_add(tess_dataset *ds, const tess__record *r);
/* Counts something bad met while indexing, "path: key: what". */
TESS_MUST_USE tess_status tess__index_bad(tess_dataset *ds, uint32_t file, tess_bad reason,
                                          const char *key, size_t key_bytes, const char *what);

/* ---- samples ------------------------------------------------------------------------------ */

/* Marks the sample unusable; the first mark stays. */
void tess__sample_spoil(tess_sample *s, tess_bad reason, const char *fmt, ...) TESS_PRINTF(3, 4);
TESS_MUST_USE tess_status tess__sample_set_key(tess_sample *s, const char *key, size_t n_bytes);
/* Reads a picture of its own file into s->file; what is wrong with it spoils the sample. */
TESS_MUST_USE tess_status tess__sample_read_file(const tess_dataset *ds, tess_sample *s,
                                                 const char *path);
/* The same for a path from a table: under image_root, the table's folder, or as it is. */
TESS_MUST_USE tess_status tess__sample_read_linked(const tess_dataset *ds, tess_sample *s,
                                                   const tess__file *table, const char *path);
/* A small text file beside a picture; *out NULL when it is unreadable or above the limit, which
 * spoils the sample. */
TESS_MUST_USE tess_status tess__sample_read_text(tess_sample *s, const char *path, uint8_t **out,
                                                 size_t *out_bytes);

#endif
