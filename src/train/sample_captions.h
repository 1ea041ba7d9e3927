/* SPDX-License-Identifier: Apache-2.0 */
/* sample_captions: from text and JSON to the captions of a sample. */
#ifndef TESSERA_TRAIN_SAMPLE_CAPTIONS_H
#define TESSERA_TRAIN_SAMPLE_CAPTIONS_H

#include "train/source.h"

/* The largest .json beside a picture: 4096 captions of 4 KiB. */
#define TESS__JSON_MAX ((size_t)16 << 20)

/* Everything a sample has that may hold captions; NULL data: absent. */
typedef struct tess__caption_source {
    tess_bytes text, json;
    const tess_json *object;      /* instead of json: already parsed */
    bool is_column;               /* text is the caption, whatever the caption keys */
    const struct tess__csv *row;  /* instead of all: a row with a column for each language, */
    const char *const *languages; /* and those of its columns, NULL where it is no caption */
} tess__caption_source;

/* Fills s->captions by ds's caption keys, in the order of the source.  Captions that are unusable
 * are counted in s->n_dropped; JSON that is not spoils the sample, and so does having no caption
 * unless captions are optional. */
TESS_MUST_USE tess_status tess__captions_read(const tess_dataset *ds,
                                              const tess__caption_source *from, tess_sample *s);

/* Index of a language, added when it is not there yet and `add`; -1: not there. */
int64_t tess__language_find(const tess__languages *l, const char *name);
TESS_MUST_USE tess_status tess__language_add(tess__languages *l, const char *name, int64_t n);
/* Reads all JSON captions once, to know languages and their counts. */
TESS_MUST_USE tess_status tess__languages_scan(tess_dataset *ds);

#endif
