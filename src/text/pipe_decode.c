/* SPDX-License-Identifier: Apache-2.0 */
/* Ids back to readable text, by what the pieces look like: bytes written as letters become bytes,
 * <0xNN> and U+2581 become bytes and spaces, "##" joins, "</w>" ends a word. */
#include "text/char_class.h"
#include "text/pipe.h"

#include <string.h>

static bool is_special(const tess__pipe *p, int32_t id)
{
    for (size_t i = 0; i < p->n_added; i++) {
        if (p->added[i].id == id) {
            return p->added[i].special;
        }
    }
    return false;
}

static int byte_of_letter(uint32_t c)
{
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 255 && c != 173)) {
        return (int)c;
    }
    if (c < 256 || c > 256 + 67) {
        return -1;
    }
    c -= 256;
    return c < 33 ? (int)c : c < 67 ? (int)(c - 33 + 127) : 173;
}

/* A piece of letters that stand for bytes. */
static void add_letters(tess_buf *out, tess_bytes piece)
{
    const char *s = (const char *)piece.data;
    for (size_t i = 0, used; i < piece.n_bytes; i += used) {
        int b = byte_of_letter(tess__char_at(s + i, piece.n_bytes - i, &used));
        if (b >= 0) {
            char c = (char)b;
            tess_buf_add(out, &c, 1);
        } else {
            tess_buf_add(out, s + i, used);
        }
    }
}

static void add_spaced(tess_buf *out, tess_bytes piece)
{
    for (size_t i = 0; i < piece.n_bytes;) {
        bool space = piece.n_bytes - i >= TESS__SPACE_BYTES &&
                     memcmp(piece.data + i, TESS__SPACE, TESS__SPACE_BYTES) == 0;
        tess_buf_add(out, space ? " " : (const char *)piece.data + i, 1);
        i += space ? TESS__SPACE_BYTES : 1;
    }
}

static int byte_of(const tess__pipe *p, int32_t id)
{
    for (int b = 0; p->byte_fallback && b < 256; b++) {
        if (p->byte_ids[b] == id) {
            return b;
        }
    }
    return -1;
}

static bool ends_with(tess_bytes s, tess_bytes tail)
{
    return tail.n_bytes > 0 && s.n_bytes >= tail.n_bytes &&
           memcmp(s.data + s.n_bytes - tail.n_bytes, tail.data, tail.n_bytes) == 0;
}

static bool writes_bytes(const tess__pipe *p)
{
    return p->n_split > 0 && p->split[p->n_split - 1].run == tess__split_bytes;
}

static void add_piece(const tess__pipe *p, tess_buf *out, tess_bytes piece, bool at_start)
{
    bool word = p->encode == tess__wordpiece_encode;
    if (word && p->prefix.n_bytes > 0 && piece.n_bytes > p->prefix.n_bytes &&
        memcmp(piece.data, p->prefix.data, p->prefix.n_bytes) == 0) {
        piece.data += p->prefix.n_bytes;
        piece.n_bytes -= p->prefix.n_bytes;
    } else if (word && !at_start) {
        tess_buf_add(out, " ", 1);
    }
    bool ends = !word && ends_with(piece, p->suffix);
    piece.n_bytes -= ends ? p->suffix.n_bytes : 0;
    if (writes_bytes(p)) {
        add_letters(out, piece);
    } else {
        add_spaced(out, piece);
    }
    if (ends) {
        tess_buf_add(out, " ", 1);
    }
}

/* What was added from `from` on as well-formed UTF-8, without the space that a word begins or ends
 * with. */
static void tidy(tess_buf *out, size_t from)
{
    tess_buf raw = {0};
    tess_buf_add(&raw, out->data + from, out->n_bytes - from);
    out->n_bytes = from;
    size_t start = raw.n_bytes > 0 && raw.data[0] == ' ' ? 1 : 0;
    for (size_t i = start; i < raw.n_bytes;) {
        size_t used = tess__utf8_char(raw.data + i, raw.n_bytes - i);
        tess_buf_add(out, used > 0 ? raw.data + i : "\xef\xbf\xbd", used > 0 ? used : 3);
        i += used > 0 ? used : 1;
    }
    if (out->n_bytes > from && out->data[out->n_bytes - 1] == ' ') {
        out->n_bytes--;
    }
    tess_buf_add(out, "", 0);
    out->failed = out->failed || raw.failed;
    tess_buf_deinit(&raw);
}

void tess__pipe_decode(const void *self, tess_buf *out, const int32_t *ids, size_t n_ids)
{
    const tess__pipe *p = self;
    if (tess__pipe_is_spm(p)) {
        tess__spm_decode(&p->spm, out, ids, n_ids);
        return;
    }
    tess_buf_add(out, "", 0);
    size_t from = out->n_bytes;
    for (size_t i = 0; i < n_ids && !out->failed; i++) {
        tess_bytes piece = tess__pipe_kind.piece(p, ids[i]);
        int byte = byte_of(p, ids[i]);
        if (byte >= 0) {
            char c = (char)byte;
            tess_buf_add(out, &c, 1);
        } else if (piece.data != NULL && !is_special(p, ids[i])) {
            add_piece(p, out, piece, out->n_bytes == from);
        }
    }
    if (!out->failed) {
        tidy(out, from);
    }
}
