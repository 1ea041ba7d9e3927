/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format: varint keys (number << 3 | type), then a varint, 4 or 8 bytes, or a length and
 * that many bytes.  Groups (types 3 and 4), long deprecated, are refused: they would be the only
 * construct that needs nesting to skip. */
#include "text/proto.h"

#include <string.h>

static tess_status read_varint(tess__proto *p, uint64_t *out)
{
    uint64_t v = 0;
    size_t start = p->pos;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (p->pos == p->n_bytes) {
            return TESS_FAIL(TESS_FORMAT, "truncated: a number at byte %zu has no end",
                             p->at + start);
        }
        uint8_t b = p->data[p->pos++];
        if (shift == 63 && b > 1) {
            break;
        }
        v |= (uint64_t)(b & 127) << shift;
        if (b < 128) {
            *out = v;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_FORMAT, "a number at byte %zu is longer than 64 bits", p->at + start);
}

static tess_status take(tess__proto *p, uint64_t n, tess_bytes *out)
{
    if (n > p->n_bytes - p->pos) {
        return TESS_FAIL(TESS_FORMAT, "truncated: %llu bytes are announced at byte %zu, %zu left",
                         (unsigned long long)n, p->at + p->pos, p->n_bytes - p->pos);
    }
    *out = (tess_bytes){p->data + p->pos, (size_t)n};
    p->pos += (size_t)n;
    return TESS_OK;
}

static uint64_t little_endian(tess_bytes b)
{
    uint64_t v = 0;
    for (size_t i = b.n_bytes; i > 0; i--) {
        v = v << 8 | b.data[i - 1];
    }
    return v;
}

static tess_status read_payload(tess__proto *p, tess__proto_field *out)
{
    uint64_t n;
    out->at = p->at + p->pos;
    switch ((int)out->wire) {
    case TESS__WIRE_VARINT:
        return read_varint(p, &out->value);
    case TESS__WIRE_BYTES:
        TESS_TRY(read_varint(p, &n));
        out->at = p->at + p->pos;
        return take(p, n, &out->bytes);
    case TESS__WIRE_FIXED32:
    case TESS__WIRE_FIXED64:
        TESS_TRY(take(p, out->wire == TESS__WIRE_FIXED32 ? 4 : 8, &out->bytes));
        out->value = little_endian(out->bytes);
        return TESS_OK;
    default:
        return TESS_FAIL(TESS_FORMAT, "wire type %d at byte %zu is not one that is known",
                         (int)out->wire, out->at);
    }
}

tess_status tess__proto_next(tess__proto *p, tess__proto_field *out, bool *out_more)
{
    *out = (tess__proto_field){0};
    *out_more = p->pos < p->n_bytes;
    if (!*out_more) {
        return TESS_OK;
    }
    uint64_t key;
    size_t at = p->at + p->pos;
    TESS_TRY(read_varint(p, &key));
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff) {
        return TESS_FAIL(TESS_FORMAT, "field number %llu at byte %zu is not possible",
                         (unsigned long long)(key >> 3), at);
    }
    out->number = (uint32_t)(key >> 3);
    out->wire = (tess__wire)(key & 7);
    return read_payload(p, out);
}

tess__proto tess__proto_inside(const tess__proto_field *f)
{
    return (tess__proto){.data = f->bytes.data, .n_bytes = f->bytes.n_bytes, .at = f->at};
}

tess_status tess__proto_expect(const tess__proto_field *f, tess__wire wire, const char *what)
{
    if (f->wire != wire) {
        return TESS_FAIL(TESS_FORMAT, "%s (field %u at byte %zu): expected wire type %d, found %d",
                         what, f->number, f->at, (int)wire, (int)f->wire);
    }
    return TESS_OK;
}

float tess__proto_float(const tess__proto_field *f)
{
    uint32_t bits = (uint32_t)f->value;
    float v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}
