/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece's normaliser: at each position the longest rule of the precompiled character map
 * applies (user-defined symbols first, which pass untouched), spaces are collapsed and written as
 * U+2581, and a dummy space is put before or behind.
 *
 * The map is a darts-clone double array in the file: units of 32 little-endian bits (bit 31: leaf
 * with a value; else bits 0-7 label, bit 8 "has a leaf", bits 9-31 offset) whose values are offsets
 * into NUL-delimited replacements.  SentencePiece trusts it.  Here every unit is checked once, when
 * the model is loaded, so that no walk can leave the array whatever the input: an offset must stay
 * inside for all 256 labels, and a promised leaf must be one and point into the replacements.
 * Departure: a rule's left side is at most MAX_RULE bytes (real maps: 18), which keeps a cyclic
 * hostile map linear. */
#include "text/spm.h"

#include <string.h>

enum { MAX_RULE = 256 };
enum { ASCII_LOOK, ASCII_COPY, ASCII_COPY_BEFORE_ASCII };
#define LEAF 0x80000000U

static uint32_t unit_label(uint32_t u)
{
    return u & (LEAF | 0xff);
}

static bool unit_has_leaf(uint32_t u)
{
    return (u >> 8 & 1) != 0;
}

static uint32_t unit_offset(uint32_t u)
{
    return (u >> 10) << ((u & (1U << 9)) >> 6);
}

static tess_status check_units(const tess__spm_norm *n)
{
    for (size_t i = 0; i < n->n_units; i++) {
        uint32_t u = n->units[i];
        if ((u & LEAF) != 0) {
            continue;
        }
        size_t to = i ^ unit_offset(u);
        if ((to | 0xff) >= n->n_units) {
            return TESS_FAIL(TESS_FORMAT,
                             "normalisation rules: unit %zu points to %zu of %zu units", i, to,
                             n->n_units);
        }
        if (unit_has_leaf(u) &&
            ((n->units[to] & LEAF) == 0 || (n->units[to] & ~LEAF) >= n->out_bytes)) {
            return TESS_FAIL(TESS_FORMAT,
                             "normalisation rules: unit %zu promises a replacement "
                             "that is not there",
                             i);
        }
    }
    return TESS_OK;
}

/* Reads <u32 bytes of the trie><trie><replacements>. */
static tess_status read_rules(tess__spm_norm *n, tess_bytes map)
{
    if (map.n_bytes == 0) {
        return TESS_OK;
    }
    uint32_t trie_bytes = 0;
    if (map.n_bytes > 4) {
        trie_bytes = map.data[0] | (uint32_t)map.data[1] << 8 | (uint32_t)map.data[2] << 16 |
                     (uint32_t)map.data[3] << 24;
    }
    if (trie_bytes < 1024 || trie_bytes % 4 != 0 || trie_bytes >= map.n_bytes - 4) {
        return TESS_FAIL(TESS_FORMAT, "normalisation rules: a trie of %u bytes in a map of %zu",
                         trie_bytes, map.n_bytes);
    }
    n->n_units = trie_bytes / 4;
    n->units = tess_alloc_array(n->n_units, sizeof(*n->units));
    if (n->units == NULL) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < n->n_units; i++) {
        const uint8_t *b = map.data + 4 + i * 4;
        n->units[i] = b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    }
    n->out = (const char *)map.data + 4 + trie_bytes;
    n->out_bytes = map.n_bytes - 4 - trie_bytes;
    return check_units(n);
}

/* Whether the rules or symbols can begin with this byte, and if so, whether one can go on with an
 * ASCII byte.  In the NFKC maps letters begin rules only before combining marks. */
static uint8_t classify(const tess__spm_norm *n, unsigned c)
{
    if (n->symbols->units != NULL && tess__trie_step(n->symbols, 0, (uint8_t)c) != 0) {
        return ASCII_LOOK;
    }
    if (n->units == NULL) {
        return ASCII_COPY;
    }
    uint32_t at = unit_offset(n->units[0]) ^ c, u = n->units[at];
    if (unit_label(u) != c) {
        return ASCII_COPY;
    }
    for (uint32_t next = 0; next < 128; next++) {
        if (unit_label(n->units[at ^ unit_offset(u) ^ next]) == next) {
            return ASCII_LOOK;
        }
    }
    return unit_has_leaf(u) ? ASCII_LOOK : ASCII_COPY_BEFORE_ASCII;
}

tess_status tess__spm_norm_init(tess__spm_norm *n, const tess__spm_model *m, tess__trie *symbols)
{
    *n = (tess__spm_norm){.symbols = symbols,
                          .add_dummy_prefix = m->add_dummy_prefix,
                          .remove_extra_spaces = m->remove_extra_spaces,
                          .escape_spaces = m->escape_spaces,
                          .suffix_space = m->suffix_space};
    TESS_TRY(read_rules(n, m->charsmap));
    for (unsigned c = 0; c < 128; c++) {
        n->ascii[c] = c == ' ' ? ASCII_LOOK : classify(n, c);
    }
    return TESS_OK;
}

void tess__spm_norm_deinit(tess__spm_norm *n)
{
    tess_free(n->units);
    *n = (tess__spm_norm){0};
}

size_t tess__utf8_char(const char *text, size_t n_left)
{
    const uint8_t *s = (const uint8_t *)text;
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (n <= 1) {
        return n;
    }
    if (n > n_left || s[0] > 0xf4) {
        return 0;
    }
    uint32_t c = s[0] & (0x7fU >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
        c = c << 6 | (s[i] & 0x3f);
    }
    bool ok = c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
    return ok ? n : 0;
}

/* The replacement of the longest rule at s; returns the bytes it consumes, 0 when none applies. */
static size_t match_rule(const tess__spm_norm *n, const char *s, size_t n_left,
                         const char **out_text, size_t *out_bytes)
{
    size_t longest = 0, limit = n_left < MAX_RULE ? n_left : MAX_RULE;
    uint32_t value = 0, at = unit_offset(n->units[0]);
    for (size_t i = 0; i < limit; i++) {
        at ^= (uint8_t)s[i];
        uint32_t u = n->units[at];
        if (unit_label(u) != (uint8_t)s[i]) {
            break;
        }
        at ^= unit_offset(u);
        if (unit_has_leaf(u)) {
            value = n->units[at] & ~LEAF;
            longest = i + 1;
        }
    }
    if (longest > 0) {
        *out_text = n->out + value;
        *out_bytes = strnlen(*out_text, n->out_bytes - value);
    }
    return longest;
}

bool tess__spm_norm_first(const tess__spm_norm *n, const char *s, size_t n_bytes,
                          const char **out_text, size_t *out_bytes)
{
    if (n->units == NULL) {
        return false;
    }
    uint32_t at = unit_offset(n->units[0]);
    for (size_t i = 0; i < n_bytes; i++) {
        at ^= (uint8_t)s[i];
        uint32_t u = n->units[at];
        if (unit_label(u) != (uint8_t)s[i]) {
            return false;
        }
        at ^= unit_offset(u);
        if (unit_has_leaf(u)) {
            uint32_t value = n->units[at] & ~LEAF;
            *out_text = n->out + value;
            *out_bytes = strnlen(*out_text, n->out_bytes - value);
            return true;
        }
    }
    return false;
}

tess_status tess__spm_norm_rules(tess__spm_norm *n, tess_bytes map)
{
    *n = (tess__spm_norm){0};
    return read_rules(n, map);
}

/* What the next characters become; returns the bytes consumed (at least 1). */
static size_t take_prefix(const tess__spm_norm *n, const char *s, size_t n_left,
                          const char **out_text, size_t *out_bytes)
{
    size_t used = tess__trie_longest(n->symbols, s, n_left);
    if (used == 0 && n->units != NULL) {
        used = match_rule(n, s, n_left, out_text, out_bytes);
        if (used > 0) {
            return used;
        }
    }
    if (used == 0) {
        used = tess__utf8_char(s, n_left);
    }
    if (used == 0) {
        *out_text = "\xef\xbf\xbd";
        *out_bytes = 3;
        return 1;
    }
    *out_text = s;
    *out_bytes = used;
    return used;
}

/* Room for n more bytes. */
static tess_status reserve(tess__span_buf *b, size_t n)
{
    if (n > TESS__NORMAL_MAX || b->n_bytes > TESS__NORMAL_MAX - n) {
        return TESS_FAIL(TESS_INVALID, "the text is longer than %zu bytes once normalised",
                         TESS__NORMAL_MAX);
    }
    return b->n_bytes + n <= b->cap_bytes ? TESS_OK
                                          : tess_grow(&b->data, &b->cap_bytes, b->n_bytes + n, 1);
}

static void put_space(const tess__spm_norm *n, tess__span_buf *b)
{
    const char *space = n->escape_spaces ? TESS__SPACE : " ";
    size_t space_bytes = n->escape_spaces ? TESS__SPACE_BYTES : 1;
    memcpy(b->data + b->n_bytes, space, space_bytes);
    b->n_bytes += space_bytes;
}

static void put(const tess__spm_norm *n, tess__span_buf *b, const char *s, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (s[i] == ' ') {
            put_space(n, b);
        } else {
            b->data[b->n_bytes++] = s[i];
        }
    }
}

/* Copies ASCII that no rule can touch; returns the bytes consumed. */
static size_t copy_ascii(const tess__spm_norm *n, tess__span_buf *b, const char *s, size_t n_left)
{
    size_t i = 0;
    for (; i < n_left && (uint8_t)s[i] < 128; i++) {
        uint8_t how = n->ascii[(uint8_t)s[i]];
        bool next_ascii = i + 1 == n_left || (uint8_t)s[i + 1] < 128;
        if (how == ASCII_LOOK || (how == ASCII_COPY_BEFORE_ASCII && !next_ascii)) {
            break;
        }
        b->data[b->n_bytes++] = s[i];
    }
    return i;
}

static tess_status put_body(const tess__spm_norm *n, const char *s, size_t n_left,
                            tess__span_buf *out)
{
    bool after_space = n->remove_extra_spaces;
    while (n_left > 0) {
        TESS_TRY(reserve(out, n_left));
        size_t used = copy_ascii(n, out, s, n_left);
        if (used > 0) {
            after_space = false;
        } else {
            const char *text;
            size_t n_text;
            used = take_prefix(n, s, n_left, &text, &n_text);
            while (after_space && n_text > 0 && *text == ' ') {
                text++;
                n_text--;
            }
            TESS_TRY(reserve(out, n_text * TESS__SPACE_BYTES));
            put(n, out, text, n_text);
            if (n_text > 0) {
                after_space = n->remove_extra_spaces && text[n_text - 1] == ' ';
            }
        }
        s += used;
        n_left -= used;
    }
    return TESS_OK;
}

static void strip_end(const tess__spm_norm *n, tess__span_buf *b)
{
    const char *space = n->escape_spaces ? TESS__SPACE : " ";
    size_t space_bytes = n->escape_spaces ? TESS__SPACE_BYTES : 1;
    while (b->n_bytes >= space_bytes &&
           memcmp(b->data + b->n_bytes - space_bytes, space, space_bytes) == 0) {
        b->n_bytes -= space_bytes;
    }
}

tess_status tess__spm_norm_run(const tess__spm_norm *n, const char *text, size_t n_bytes,
                               tess__span_buf *out)
{
    out->n_bytes = 0;
    while (n->remove_extra_spaces && n_bytes > 0) {
        const char *first;
        size_t n_first, used = take_prefix(n, text, n_bytes, &first, &n_first);
        if (n_first != 1 || *first != ' ') {
            break;
        }
        text += used;
        n_bytes -= used;
    }
    if (n_bytes == 0) {
        return TESS_OK;
    }
    TESS_TRY(reserve(out, TESS__SPACE_BYTES));
    if (n->add_dummy_prefix && !n->suffix_space) {
        put_space(n, out);
    }
    TESS_TRY(put_body(n, text, n_bytes, out));
    if (n->remove_extra_spaces) {
        strip_end(n, out);
    }
    TESS_TRY(reserve(out, TESS__SPACE_BYTES));
    if (n->add_dummy_prefix && n->suffix_space) {
        put_space(n, out);
    }
    return TESS_OK;
}
