/* SPDX-License-Identifier: Apache-2.0 */
/* Protocol-buffer fields (Protocol Buffers Encoding): a tag, field number and wire type, and then a
 * varint, four bytes, or a length and as many bytes.  A failed append is latched by the buffer. */
#include "tensor/onnx_wire.h"

#include <string.h>

enum { WIRE_VARINT = 0, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

void tess__wire_varint(tess_buf *b, uint64_t x)
{
    uint8_t bytes[10];
    size_t n = 0;
    do {
        bytes[n++] = (uint8_t)(x | 0x80);
        x >>= 7;
    } while (x > 0);
    bytes[n - 1] &= 0x7f;
    tess_buf_add(b, bytes, n);
}

int tess__wire_varint_bytes(uint64_t x)
{
    int n = 1;
    while (x >>= 7) {
        n++;
    }
    return n;
}

static void add_tag(tess_buf *b, int field, int wire)
{
    tess__wire_varint(b, (uint64_t)field << 3 | (uint64_t)wire);
}

void tess__wire_int(tess_buf *b, int field, int64_t x)
{
    add_tag(b, field, WIRE_VARINT);
    tess__wire_varint(b, (uint64_t)x);
}

void tess__wire_float(tess_buf *b, int field, float x)
{
    add_tag(b, field, WIRE_FIXED32);
    tess_buf_add(b, &x, sizeof x);
}

void tess__wire_begin(tess_buf *b, int field, uint64_t n_bytes)
{
    add_tag(b, field, WIRE_BYTES);
    tess__wire_varint(b, n_bytes);
}

void tess__wire_string(tess_buf *b, int field, const char *s)
{
    tess__wire_begin(b, field, strlen(s));
    tess_buf_add(b, s, strlen(s));
}

void tess__wire_message(tess_buf *b, int field, const tess_buf *inner)
{
    tess__wire_begin(b, field, inner->n_bytes);
    tess_buf_add(b, inner->data ? inner->data : "", inner->n_bytes);
    b->failed |= inner->failed;
}
