/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a struct by the table that reads it. */
#include "tessera/base.h"

static void add_value(tess_json_writer *w, tess_field_kind kind, const void *at)
{
    switch (kind) {
    case TESS_FIELD_INT:
        tess_json_add_int(w, *(const int64_t *)at);
        break;
    case TESS_FIELD_REAL:
        tess_json_add_real(w, *(const double *)at);
        break;
    case TESS_FIELD_BOOL:
        tess_json_add_bool(w, *(const bool *)at);
        break;
    case TESS_FIELD_STRING:
        tess_json_add_string(w, *(char *const *)at);
        break;
    case TESS_FIELD_REALS3:
        tess_json_begin_array(w);
        for (int i = 0; i < 3; i++) {
            tess_json_add_real(w, ((const double *)at)[i]);
        }
        tess_json_end_array(w);
        break;
    default:
        tess_json_add_value(w, *(const tess_json *const *)at);
    }
}

void tess_json_add_fields(tess_json_writer *w, const tess_field *fields, size_t n_fields,
                          const void *from)
{
    for (size_t i = 0; i < n_fields; i++) {
        const void *at = (const char *)from + fields[i].offset;
        bool pointer = fields[i].kind != TESS_FIELD_INT && fields[i].kind != TESS_FIELD_REAL &&
                       fields[i].kind != TESS_FIELD_BOOL && fields[i].kind != TESS_FIELD_REALS3;
        if (!pointer || *(const void *const *)at) {
            tess_json_key(w, fields[i].key);
            add_value(w, fields[i].kind, at);
        }
    }
}
