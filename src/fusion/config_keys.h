/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the configs of other programs: keys that decide numbers are read, keys that do not are
 * known by name, and every other key is refused, since it may change the maths. */
#ifndef TESSERA_FUSION_CONFIG_KEYS_H
#define TESSERA_FUSION_CONFIG_KEYS_H

#include "tessera/base.h"

/* A key that is not read.  `values`: those that leave the numbers as they are, as JSON words with
 * '|' between ("null|false", "0", "learnable", "{}" for anything empty); NULL: all of them. */
typedef struct tess_inert_key {
    const char *key, *values;
} tess_inert_key;

typedef struct tess_config_table {
    const tess_field *fields;
    int64_t n_fields;
    const tess_inert_key *inert;
    int64_t n_inert;
} tess_config_table;
#define TESS_CONFIG_TABLE(fields, inert)                                                           \
    (tess_config_table)                                                                            \
    {                                                                                              \
        (fields), TESS_COUNT(fields), (inert), TESS_COUNT(inert)                                   \
    }
/* TESS_UNSUPPORTED "name.key: ..." for an unknown key or a value that is not inert; else as
 * tess_json_read_fields. */
TESS_MUST_USE tess_status tess__config_read(const tess_json *obj, const char *name,
                                            tess_config_table table, tess_arena *arena, void *out);

#endif
