/* SPDX-License-Identifier: Apache-2.0 */
/* What ftfy.fix_text (6.3) does to a text but its repair of mojibake: references with a semicolon
 * replaced, unless the line or one before it has "<"; C1 controls read as Windows-1252, ligatures
 * and other widths taken apart, curly quotes straightened, terminal escapes and controls removed,
 * NFC; all that until nothing changes.
 *
 * Departure: at most MAX_ROUNDS, since every round may peel off one "amp;"; names in capitals that
 * HTML does not know (&EACUTE;) stay; line breaks stay, which are white space to what follows. */
#include "text/char_class.h"
#include "text/html_unescape.h"
#include "text/normalize.h"

#include <string.h>

enum { MAX_ROUNDS = 16, FIRST_WIDE = 0xff01, FIRST_HALF = 0xff5f, LAST_WIDTH = 0xffee };

/* NFKC of U+FF5F and what follows; U+FFE3, which becomes two, is below. */
static const uint16_t other_width[LAST_WIDTH - FIRST_HALF + 1] = {
    0x2985, 0x2986, 0x3002, 0x300c, 0x300d, 0x3001, 0x30fb, 0x30f2, 0x30a1, 0x30a3, 0x30a5, 0x30a7,
    0x30a9, 0x30e3, 0x30e5, 0x30e7, 0x30c3, 0x30fc, 0x30a2, 0x30a4, 0x30a6, 0x30a8, 0x30aa, 0x30ab,
    0x30ad, 0x30af, 0x30b1, 0x30b3, 0x30b5, 0x30b7, 0x30b9, 0x30bb, 0x30bd, 0x30bf, 0x30c1, 0x30c4,
    0x30c6, 0x30c8, 0x30ca, 0x30cb, 0x30cc, 0x30cd, 0x30ce, 0x30cf, 0x30d2, 0x30d5, 0x30d8, 0x30db,
    0x30de, 0x30df, 0x30e0, 0x30e1, 0x30e2, 0x30e4, 0x30e6, 0x30e8, 0x30e9, 0x30ea, 0x30eb, 0x30ec,
    0x30ed, 0x30ef, 0x30f3, 0x3099, 0x309a, 0x1160, 0x1100, 0x1101, 0x11aa, 0x1102, 0x11ac, 0x11ad,
    0x1103, 0x1104, 0x1105, 0x11b0, 0x11b1, 0x11b2, 0x11b3, 0x11b4, 0x11b5, 0x111a, 0x1106, 0x1107,
    0x1108, 0x1121, 0x1109, 0x110a, 0x110b, 0x110c, 0x110d, 0x110e, 0x110f, 0x1110, 0x1111, 0x1112,
    0,      0,      0,      0x1161, 0x1162, 0x1163, 0x1164, 0x1165, 0x1166, 0,      0,      0x1167,
    0x1168, 0x1169, 0x116a, 0x116b, 0x116c, 0,      0,      0x116d, 0x116e, 0x116f, 0x1170, 0x1171,
    0x1172, 0,      0,      0x1173, 0x1174, 0x1175, 0,      0,      0,      0x00a2, 0x00a3, 0x00ac,
    0,      0x00a6, 0x00a5, 0x20a9, 0,      0x2502, 0x2190, 0x2191, 0x2192, 0x2193, 0x25a0, 0x25cb,
};

static const struct {
    uint32_t from;
    const char *to;
} taken_apart[] = {
    {0x132, "IJ"},         {0x133, "ij"},        {0x149, "'n"},         {0x1c4, "D\xc5\xbd"},
    {0x1c5, "D\xc5\xbe"},  {0x1c6, "d\xc5\xbe"}, {0x1c7, "LJ"},         {0x1c8, "Lj"},
    {0x1c9, "lj"},         {0x1ca, "NJ"},        {0x1cb, "Nj"},         {0x1cc, "nj"},
    {0x1f1, "DZ"},         {0x1f2, "Dz"},        {0x1f3, "dz"},         {0xfb00, "ff"},
    {0xfb01, "fi"},        {0xfb02, "fl"},       {0xfb03, "ffi"},       {0xfb04, "ffl"},
    {0xfb05, "\xc5\xbft"}, {0xfb06, "st"},       {0xffe3, " \xcc\x84"},
};

static const char *find_parts(uint32_t c)
{
    for (int64_t i = 0; i < TESS_COUNT(taken_apart); i++) {
        if (taken_apart[i].from == c) {
            return taken_apart[i].to;
        }
    }
    return NULL;
}

static uint32_t in_usual_width(uint32_t c)
{
    if (c == 0x3000) {
        return ' ';
    }
    if (c >= FIRST_WIDE && c < FIRST_HALF) {
        return c - FIRST_WIDE + '!';
    }
    bool other = c >= FIRST_HALF && c <= LAST_WIDTH && other_width[c - FIRST_HALF] != 0;
    return other ? other_width[c - FIRST_HALF] : c;
}

static uint32_t straight(uint32_t c)
{
    if (c == 0x2bc || (c >= 0x2018 && c <= 0x201b)) {
        return '\'';
    }
    return c >= 0x201c && c <= 0x201f ? '"' : c;
}

static bool is_removed(uint32_t c)
{
    return c <= 8 || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f ||
           (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

static void swap(tess__pipe_scratch *s)
{
    tess__span_buf in = s->in;
    s->in = s->out;
    s->out = in;
    s->out.n_bytes = 0;
}

/* Each character by itself.  None becomes more bytes than twice its own. */
static tess_status map(tess__pipe_scratch *s)
{
    TESS_TRY(tess__span_reserve(&s->out, s->in.n_bytes * 2));
    for (size_t i = 0, used; i < s->in.n_bytes; i += used) {
        uint32_t c = tess__char_at(s->in.data + i, s->in.n_bytes - i, &used);
        c = c >= 0x80 && c <= 0x9f ? tess__windows_1252(c) : c;
        const char *parts = c >= 0x132 ? find_parts(c) : NULL;
        if (parts != NULL) {
            TESS_TRY(tess__span_put(&s->out, parts, strlen(parts)));
        } else {
            s->out.n_bytes +=
                tess__char_put(straight(in_usual_width(c)), s->out.data + s->out.n_bytes);
        }
    }
    swap(s);
    return TESS_OK;
}

/* ESC [ 1 ; 31 m: its bytes, 0 when it is none. */
static size_t escape_bytes(const char *s, size_t n)
{
    size_t i = 2;
    if (n < 3 || s[0] != 0x1b || s[1] != '[') {
        return 0;
    }
    while (i < n && ((s[i] >= '0' && s[i] <= '9') || s[i] == ';')) {
        i++;
    }
    return i < n && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'z' ? i + 1 : 0;
}

static tess_status remove_controls(tess__pipe_scratch *s)
{
    TESS_TRY(tess__span_reserve(&s->out, s->in.n_bytes));
    for (size_t i = 0, used; i < s->in.n_bytes; i += used) {
        uint32_t c = tess__char_at(s->in.data + i, s->in.n_bytes - i, &used);
        size_t escape = c == 0x1b ? escape_bytes(s->in.data + i, s->in.n_bytes - i) : 0;
        if (escape > 0) {
            used = escape;
        } else if (!is_removed(c)) {
            memcpy(s->out.data + s->out.n_bytes, s->in.data + i, used);
            s->out.n_bytes += used;
        }
    }
    swap(s);
    return TESS_OK;
}

/* ASCII without controls: the most of all captions. */
static bool is_plain(const tess__span_buf *b)
{
    for (size_t i = 0; i < b->n_bytes; i++) {
        uint8_t c = (uint8_t)b->data[i];
        if (c >= 0x7f || (c < ' ' && is_removed(c))) {
            return false;
        }
    }
    return true;
}

static bool has_reference(const tess__span_buf *b)
{
    return b->n_bytes > 0 && memchr(b->data, '&', b->n_bytes) != NULL;
}

static tess_status round_of_fixes(tess__pipe_scratch *s, bool unescape)
{
    if (unescape && has_reference(&s->in)) {
        TESS_TRY(tess__html_unescape_strict(&s->in, &s->out));
        swap(s);
    }
    if (is_plain(&s->in)) {
        return TESS_OK;
    }
    TESS_TRY(map(s));
    TESS_TRY(remove_controls(s));
    TESS_TRY(tess__normal_form(s, true, false));
    swap(s);
    return TESS_OK;
}

/* Until nothing changes. */
static tess_status fix_part(tess__pipe_scratch *s, bool unescape)
{
    tess__span_buf *before = &s->before;
    for (int i = 0; i < MAX_ROUNDS && ((unescape && has_reference(&s->in)) || !is_plain(&s->in));
         i++) {
        before->n_bytes = 0;
        TESS_TRY(tess__span_put(before, s->in.data, s->in.n_bytes));
        TESS_TRY(round_of_fixes(s, unescape));
        if (before->n_bytes == s->in.n_bytes &&
            memcmp(before->data, s->in.data, s->in.n_bytes) == 0) {
            break;
        }
    }
    return TESS_OK;
}

/* Where the line begins that has the first "<". */
static size_t first_tag_line(const tess__span_buf *b)
{
    const char *at = b->n_bytes > 0 ? memchr(b->data, '<', b->n_bytes) : NULL;
    size_t i = at != NULL ? (size_t)(at - b->data) : b->n_bytes;
    while (at != NULL && i > 0 && b->data[i - 1] != '\n') {
        i--;
    }
    return i;
}

static tess_status fix_parts(tess__pipe_scratch *s, size_t n_head)
{
    tess__span_buf *tail = &s->tail;
    tail->n_bytes = 0;
    TESS_TRY(tess__span_put(tail, s->in.data + n_head, s->in.n_bytes - n_head));
    s->in.n_bytes = n_head;
    TESS_TRY(fix_part(s, true));
    tess__span_buf head = s->in;
    s->in = *tail;
    *tail = head;
    TESS_TRY(fix_part(s, false));
    TESS_TRY(tess__span_put(tail, s->in.data, s->in.n_bytes));
    head = s->in;
    s->in = *tail;
    *tail = head;
    return TESS_OK;
}

tess_status tess__text_fix(tess__pipe_scratch *s)
{
    s->out.n_bytes = 0;
    if (is_plain(&s->in) && !has_reference(&s->in)) {
        return TESS_OK;
    }
    size_t n_head = first_tag_line(&s->in);
    return n_head == s->in.n_bytes ? fix_part(s, true) : fix_parts(s, n_head);
}
