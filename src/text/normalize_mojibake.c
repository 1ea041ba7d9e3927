/* SPDX-License-Identifier: Apache-2.0 */
/* Captions that went through a wrong decoding.
 *
 * UTF-8 read as an 8-bit code page leaves a fingerprint: letters of the page that stand for a lead
 * byte, each followed by signs that stand for continuation bytes, which taken back are well-formed
 * UTF-8 again.  Honest text does that by accident only where a capital meets a closing quotation
 * mark or the like, so hits are weighed by what stands around them.  Text of another 8-bit encoding
 * read as Latin-1 cannot be taken back; it shows as signs among letters and capitals behind small
 * letters, in a text with hardly an ASCII letter.  The weights were set on the 59 TSCII captions of
 * tuxpaint-stamps and on all of CLDR's names and
 * keywords (871,908 texts), of which none may be reported. */
#include "text/spm.h"

static const char *const names[TESS_MOJIBAKE_KINDS] = {
    "none", "not-utf8", "replaced", "c1-controls", "utf8-as-latin1", "utf8-as-cp1251", "8bit",
};

/* Windows-1252's bytes 0x80-0x9f; 0: unassigned, and then as in Latin-1. */
static const uint16_t cp1252[32] = {
    0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
    0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178,
};

/* Windows-1251's bytes 0x80-0xbf. */
static const uint16_t cp1251[64] = {
    0x0402, 0x0403, 0x201a, 0x0453, 0x201e, 0x2026, 0x2020, 0x2021, 0x20ac, 0x2030, 0x0409,
    0x2039, 0x040a, 0x040c, 0x040b, 0x040f, 0x0452, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x0098, 0x2122, 0x0459, 0x203a, 0x045a, 0x045c, 0x045b, 0x045f, 0x00a0,
    0x040e, 0x045e, 0x0408, 0x00a4, 0x0490, 0x00a6, 0x00a7, 0x0401, 0x00a9, 0x0404, 0x00ab,
    0x00ac, 0x00ad, 0x00ae, 0x0407, 0x00b0, 0x00b1, 0x0406, 0x0456, 0x0491, 0x00b5, 0x00b6,
    0x00b7, 0x0451, 0x2116, 0x0454, 0x00bb, 0x0458, 0x0405, 0x0455, 0x0457,
};

typedef struct text {
    const char *s;
    size_t n_bytes;
} text;

/* The code point at *i, which moves on; 0 at the end.  The text is known to be well formed. */
static uint32_t next(text t, size_t *i)
{
    if (*i >= t.n_bytes) {
        return 0;
    }
    size_t n = tess__char_bytes(t.s + *i, t.n_bytes - *i);
    uint32_t c = (uint8_t)t.s[*i] & (n == 1 ? 0x7fU : 0x7fU >> n);
    for (size_t k = 1; k < n; k++) {
        c = c << 6 | ((uint8_t)t.s[*i + k] & 0x3f);
    }
    *i += n;
    return c;
}

/* The byte >= 0x80 that this character was, if the text was decoded as Windows-1252; 0: none. */
static unsigned byte_1252(uint32_t c)
{
    if (c >= 0x80 && c <= 0xff) {
        return c;
    }
    for (unsigned i = 0; c > 0xff && i < 32; i++) {
        if (cp1252[i] == c) {
            return 0x80 + i;
        }
    }
    return 0;
}

static bool is_ascii_letter(uint32_t c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}
static bool is_latin1_lower(uint32_t c)
{
    return c >= 0xdf && c <= 0xff && c != 0xf7;
}
static bool is_latin1_upper(uint32_t c)
{
    return c >= 0xc0 && c <= 0xde && c != 0xd7;
}
static bool is_latin1_letter(uint32_t c)
{
    return is_latin1_lower(c) || is_latin1_upper(c);
}
static bool is_lower(uint32_t c)
{
    return (c >= 'a' && c <= 'z') || is_latin1_lower(c);
}

/* Signs that honest text puts right behind a word. */
static bool is_closing(uint32_t c)
{
    static const uint16_t signs[] = {0xa0,   0xab,   0xb2,   0xb3,   0xbb,   0x2013, 0x2014,
                                     0x2018, 0x2019, 0x201c, 0x201d, 0x2026, 0x203a, 0x2122};
    for (int64_t i = 0; i < TESS_COUNT(signs); i++) {
        if (signs[i] == c) {
            return true;
        }
    }
    return false;
}

/* A stretch of characters that taken back to bytes is one UTF-8 character. */
typedef struct garble {
    size_t n_points;
    bool closing; /* all but the first are closing signs */
    size_t end;
} garble;

static bool take_back(text t, uint32_t lead, size_t i, garble *out)
{
    unsigned first = byte_1252(lead);
    if (first < 0xc2 || first > 0xf4) {
        return false;
    }
    char bytes[4] = {(char)first};
    size_t n = tess__char_bytes(bytes, 4);
    *out = (garble){.n_points = n, .closing = true};
    for (size_t k = 1; k < n; k++) {
        uint32_t c = next(t, &i);
        unsigned b = byte_1252(c);
        if (b < 0x80 || b > 0xbf) {
            return false;
        }
        bytes[k] = (char)b;
        out->closing = out->closing && is_closing(c);
    }
    out->end = i;
    return tess__utf8_char(bytes, n) == n;
}

/* How much a garble says: 2 is enough by itself. */
static int weigh(text t, uint32_t before, uint32_t lead, const garble *g)
{
    size_t i = g->end;
    uint32_t after = next(t, &i);
    bool inside = is_ascii_letter(after) || is_latin1_letter(after);
    bool usual = lead == 0xc2 || lead == 0xc3; /* what the letters of Latin-1 themselves become */
    if (is_lower(before) && is_latin1_upper(lead)) {
        return g->closing && !usual && !inside ? 0 : 2;
    }
    if (g->closing && !inside) {
        return usual ? 1 : 0;
    }
    return usual || inside || g->n_points > 2 ? 2 : 1;
}

static bool looks_latin1(text t)
{
    int64_t weight = 0, n_high = 0, n_taken = 0;
    uint32_t before = 0, c;
    for (size_t i = 0; (c = next(t, &i)) != 0 || i < t.n_bytes; before = c) {
        garble g;
        n_high += byte_1252(c) != 0;
        if (take_back(t, c, i, &g)) {
            weight += weigh(t, before, c, &g);
            n_high += (int64_t)g.n_points - 1;
            n_taken += (int64_t)g.n_points;
            i = g.end;
        }
    }
    return weight >= 2 && n_taken * 2 >= n_high;
}

/* Three Cyrillic letters in a row, each as a capital Er or Es and a sign. */
static bool looks_cp1251(text t)
{
    int run = 0;
    uint32_t c;
    for (size_t i = 0; run < 3 && ((c = next(t, &i)) != 0 || i < t.n_bytes);) {
        size_t k = 0, j = i;
        uint32_t sign = next(t, &j);
        while (k < 64 && cp1251[k] != sign) {
            k++;
        }
        bool pair = (c == 0x420 || c == 0x421) && k < 64;
        run = pair ? run + 1 : 0;
        i = pair ? j : i;
    }
    return run >= 3;
}

/* Broken bar, not sign and spacing accents: in no orthography. */
static bool is_stray(uint32_t c)
{
    return c == 0xa6 || c == 0xa8 || c == 0xac || c == 0xaf || c == 0xb8;
}

/* Two neighbours that no orthography puts together. */
static bool is_odd_pair(uint32_t a, uint32_t b)
{
    static const char honest[] = "\xa7\xa9\xaa\xab\xae\xb0\xb7\xba\xbb";
    if (is_latin1_lower(a) && is_latin1_upper(b)) {
        return true;
    }
    bool high = a >= 0xa1 && a <= 0xff && b >= 0xa1 && b <= 0xff;
    if (high && (is_stray(a) || is_stray(b))) {
        return true;
    }
    uint32_t sign = is_latin1_letter(a) ? b : is_latin1_letter(b) ? a : 0;
    if (sign < 0xa1 || (sign > 0xbf && sign != 0xd7 && sign != 0xf7)) {
        return false;
    }
    if (sign == 0xa1 || sign == 0xbf) { /* the Spanish marks stand before a word only */
        return sign == b;
    }
    for (const char *h = honest; *h != 0; h++) {
        if ((uint8_t)*h == sign) {
            return false;
        }
    }
    return true;
}

static bool looks_8bit(text t)
{
    int64_t n_odd = 0, n_high = 0, n_ascii = 0, n_other = 0;
    uint32_t before = 0, c;
    for (size_t i = 0; (c = next(t, &i)) != 0 || i < t.n_bytes; before = c) {
        n_odd += is_odd_pair(before, c);
        n_high += c >= 0xa1 && c <= 0xff;
        n_ascii += is_ascii_letter(c);
        n_other += c >= 0x100;
    }
    bool alone = n_ascii == 0 && n_other == 0 && n_high >= 2;
    return (alone && n_odd >= 1) || (n_odd >= 3 && n_high > n_ascii && n_high > n_other);
}

static bool holds(text t, uint32_t lo, uint32_t hi)
{
    uint32_t c;
    for (size_t i = 0; (c = next(t, &i)) != 0 || i < t.n_bytes;) {
        if (c >= lo && c <= hi) {
            return true;
        }
    }
    return false;
}

tess_mojibake tess_text_mojibake(const char *s, size_t n_bytes)
{
    text t = {s, n_bytes};
    bool ascii = true;
    for (size_t i = 0; i < n_bytes; i++) {
        ascii = ascii && (uint8_t)s[i] < 0x80;
    }
    if (ascii) {
        return TESS_MOJIBAKE_NONE;
    }
    if (!tess_utf8_valid(s, n_bytes, false)) {
        return TESS_MOJIBAKE_NOT_UTF8;
    }
    return looks_latin1(t)            ? TESS_MOJIBAKE_LATIN1
           : looks_cp1251(t)          ? TESS_MOJIBAKE_CP1251
           : holds(t, 0xfffd, 0xfffd) ? TESS_MOJIBAKE_REPLACED
           : holds(t, 0x80, 0x9f)     ? TESS_MOJIBAKE_C1
           : looks_8bit(t)            ? TESS_MOJIBAKE_8BIT
                                      : TESS_MOJIBAKE_NONE;
}

const char *tess_mojibake_name(tess_mojibake reason)
{
    return (unsigned)reason < TESS_MOJIBAKE_KINDS ? names[reason] : "unknown";
}
