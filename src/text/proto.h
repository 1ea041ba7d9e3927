/* SPDX-License-Identifier: Apache-2.0 */
/* A reader of the protocol buffer wire format: one flat loop per message, no schema, no copies.
 *
 * A message is a run of fields; a nested message is a field whose bytes the caller reads with a
 * second reader, so depth is the depth of the caller's code and never the input's. */
#ifndef TESS_TEXT_PROTO_H
#define TESS_TEXT_PROTO_H

#include "tessera/base.h"

typedef struct tess__proto {
    const uint8_t *data;
    size_t n_bytes, pos;
    size_t at; /* where `data` begins in the file, for messages */
} tess__proto;

typedef enum tess__wire {
    TESS__WIRE_VARINT = 0,
    TESS__WIRE_FIXED64 = 1,
    TESS__WIRE_BYTES = 2,
    TESS__WIRE_FIXED32 = 5,
} tess__wire;

typedef struct tess__proto_field {
    uint32_t number;
    tess__wire wire;
    uint64_t value;   /* VARINT, FIXED32, FIXED64 */
    tess_bytes bytes; /* BYTES: borrowed from the message */
    size_t at;        /* where the field's payload begins in the file */
} tess__proto_field;

/* Reads the next field.  *out_more is false at the end of the message.  TESS_FORMAT: a truncated or
 * overlong varint, a length beyond the message, field number 0, a group or an unknown wire type. */
TESS_MUST_USE tess_status tess__proto_next(tess__proto *p, tess__proto_field *out, bool *out_more);

/* A reader of the message inside a BYTES field. */
tess__proto tess__proto_inside(const tess__proto_field *f);

/* TESS_FORMAT unless the field has this wire type. */
TESS_MUST_USE tess_status tess__proto_expect(const tess__proto_field *f, tess__wire wire,
                                             const char *what);
float tess__proto_float(const tess__proto_field *f);

#endif
