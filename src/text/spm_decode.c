/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding: ids back to text, as SentencePiece's DecodeIds does it, with its rule for the dummy
 * prefix: a first piece loses one leading space, and where extra spaces are removed every piece
 * does until there is text. */
#include "text/spm.h"

#include <string.h>

/* Adds a run of byte pieces as characters; an ill-formed byte is U+FFFD. */
static void add_bytes(tess_buf *out, const tess__spm *t, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n;) {
        char c[4];
        size_t n_c = 0;
        while (n_c < sizeof(c) && i + n_c < n) {
            c[n_c] = (char)t->model.pieces[ids[i + n_c]].byte;
            n_c++;
        }
        size_t used = tess__utf8_char(c, n_c);
        tess_buf_add(out, used > 0 ? c : "\xef\xbf\xbd", used > 0 ? used : 3);
        i += used > 0 ? used : 1;
    }
}

/* Adds a piece with its spaces; true when a leading space was dropped as the dummy prefix. */
static bool add_piece(tess_buf *out, const tess__spm *t, const tess__piece *p, bool at_start)
{
    size_t i = 0;
    bool dropped = false;
    if (at_start && (t->model.add_dummy_prefix || t->model.remove_extra_spaces) &&
        p->n_bytes >= TESS__SPACE_BYTES && memcmp(p->text, TESS__SPACE, TESS__SPACE_BYTES) == 0) {
        i = TESS__SPACE_BYTES;
        dropped = !t->model.remove_extra_spaces;
    }
    while (i < p->n_bytes) {
        bool space = p->n_bytes - i >= TESS__SPACE_BYTES &&
                     memcmp(p->text + i, TESS__SPACE, TESS__SPACE_BYTES) == 0;
        tess_buf_add(out, space ? " " : p->text + i, 1);
        i += space ? TESS__SPACE_BYTES : 1;
    }
    return dropped;
}

static void add_unknown(tess_buf *out, const tess__spm *t)
{
    tess_bytes s = t->model.unk_surface;
    if (s.data != NULL) {
        tess_buf_add(out, s.data, strnlen((const char *)s.data, s.n_bytes));
    } else {
        tess_buf_adds(out, " \xe2\x81\x87 "); /* the format's default */
    }
}

void tess__spm_decode(const void *self, tess_buf *out, const int32_t *ids, size_t n_ids)
{
    const tess__spm *t = self;
    size_t n_before = out->n_bytes, run = 0;
    bool at_start = true, dropped = false;
    for (size_t i = 0; i < n_ids; i++) {
        const tess__piece *p = &t->model.pieces[ids[i]];
        if (p->type == TESS__PIECE_BYTE) {
            continue;
        }
        add_bytes(out, t, ids + run, i - run);
        run = i + 1;
        at_start = at_start && !dropped && out->n_bytes == n_before;
        dropped = false;
        if (p->type == TESS__PIECE_UNKNOWN) {
            add_unknown(out, t);
        } else if (p->type != TESS__PIECE_CONTROL) {
            dropped = add_piece(out, t, p, at_start);
        }
    }
    add_bytes(out, t, ids + run, n_ids - run);
}
