/* SPDX-License-Identifier: Apache-2.0 */
/* tar: a reader for ustar, GNU (long names, base-256 numbers, sparse) and pax (path, size).
 *
 * Sources: POSIX.1-2017 pax "ustar interchange format" and "pax header block"; the GNU tar manual,
 * "Basic Tar Format" and "Extensions".  Where the two leave room the choice is Python tarfile's,
 * which most shards were written with and tests/train compares against:
 *   - data follows plain files and unknown types; directories, links, devices have none, whatever
 *     their size field says;
 *   - of several extension headers before one member the first wins;
 *   - the first zero block ends the archive.
 * Stricter than tarfile: a bad header in the middle is an error and not the end, an archive without
 * its end marker counts as cut, a global pax header may not give sizes or names (a second opinion
 * on where members lie is how archives are made to read differently in two programs), and an
 * extension is at most 1 MiB.
 */
#include "train/tar.h"

#include <string.h>

#define EXTENSION_MAX (1u << 20)

/* The ustar header: (offset, width) of the fields that are read. */
enum { NAME = 0, SIZE = 124, SUM = 148, TYPE = 156, MAGIC = 257, PREFIX = 345 };
enum { NAME_BYTES = 100, SIZE_BYTES = 12, SUM_BYTES = 8, PREFIX_BYTES = 155 };
enum { SPARSE_MORE = 482, SPARSE_MORE_NEXT = 504 }; /* "another sparse block follows" */

/* What extension headers said about the member behind them. */
typedef struct extension {
    const uint8_t *name;
    size_t name_bytes, size;
    bool has_name, has_size, sparse, any;
} extension;

static tess_status bad_header(tess_bad *out_bad, size_t at, const char *what)
{
    *out_bad = TESS_BAD_TAR_HEADER;
    return TESS_FAIL(TESS_FORMAT, "tar header at byte %zu: %s", at, what);
}

static tess_status cut(tess_bad *out_bad, size_t at, size_t n_bytes, const char *what)
{
    *out_bad = TESS_BAD_TRUNCATED;
    return TESS_FAIL(TESS_FORMAT, "tar: %s at byte %zu, but the file ends at byte %zu", what, at,
                     n_bytes);
}

/* Octal with blanks around it, or GNU base-256 when the first byte is 0x80. */
static bool parse_number(const uint8_t *field, size_t n, size_t *out)
{
    size_t v = 0, i = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80) {
            return false; /* negative, or no number */
        }
        for (i = 1; i < n; i++) {
            if (v >> (8 * sizeof v - 8)) {
                return false;
            }
            v = v << 8 | field[i];
        }
        *out = v;
        return true;
    }
    for (; i < n && field[i] == ' '; i++) {
    }
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++) {
        v = v * 8 + (size_t)(field[i] - '0'); /* 12 digits: at most 36 bits */
    }
    for (; i < n && field[i] == ' '; i++) {
    }
    *out = v;
    return i == n || field[i] == 0;
}

/* The sum of all bytes with the sum's own field taken as blanks; some old writers summed signed. */
static bool checksum_matches(const uint8_t *h)
{
    size_t want;
    int64_t plain = 0, with_sign = 0;
    if (!parse_number(h + SUM, SUM_BYTES, &want)) {
        return false;
    }
    for (size_t i = 0; i < TESS__TAR_BLOCK; i++) {
        uint8_t c = i >= SUM && i < SUM + SUM_BYTES ? ' ' : h[i];
        plain += c;
        with_sign += (int8_t)c;
    }
    return (int64_t)want == plain || (int64_t)want == with_sign;
}

static bool is_zero_block(const uint8_t *h)
{
    static const uint8_t zeros[TESS__TAR_BLOCK];
    return memcmp(h, zeros, TESS__TAR_BLOCK) == 0;
}

static void set_pax_record(extension *e, const uint8_t *key, size_t n_key, const uint8_t *value,
                           size_t n_value, bool *out_ok)
{
    if (n_key == 4 && memcmp(key, "path", 4) == 0 && !e->has_name) {
        while (n_value > 0 && value[n_value - 1] == '/') {
            n_value--;
        }
        e->name = value, e->name_bytes = n_value, e->has_name = true;
    } else if (n_key == 4 && memcmp(key, "size", 4) == 0 && !e->has_size) {
        size_t v = 0;
        for (size_t i = 0; i < n_value; i++) {
            *out_ok = *out_ok && value[i] >= '0' && value[i] <= '9' &&
                      !tess_mul_overflows(v, 10, &v) &&
                      !tess_add_overflows(v, (size_t)(value[i] - '0'), &v);
        }
        *out_ok = *out_ok && n_value > 0;
        e->size = v, e->has_size = true;
    } else if (n_key > 11 && memcmp(key, "GNU.sparse.", 11) == 0) {
        e->sparse = true;
    }
}

/* Records "LENGTH KEY=VALUE\n", LENGTH in decimal counting all of it.  Zero bytes may fill up the
 * end.  The last record of a key counts, but an earlier header's wins over this one. */
static bool parse_pax(const uint8_t *p, size_t n, extension *e)
{
    extension own = {0};
    bool ok = true;
    size_t at = 0;
    while (at < n && p[at] != 0) {
        size_t length = 0, i = at;
        for (; i < n && i < at + 8 && p[i] >= '0' && p[i] <= '9'; i++) {
            length = length * 10 + (size_t)(p[i] - '0');
        }
        if (i == at || i >= n || p[i] != ' ' || length > n - at || length < i - at + 3 ||
            p[at + length - 1] != '\n') {
            return false;
        }
        const uint8_t *key = p + i + 1, *end = p + at + length - 1;
        const uint8_t *equals = memchr(key, '=', (size_t)(end - key));
        if (!equals) {
            return false;
        }
        extension one = {0};
        set_pax_record(&one, key, (size_t)(equals - key), equals + 1, (size_t)(end - equals - 1),
                       &ok);
        if (one.has_name) {
            own.name = one.name, own.name_bytes = one.name_bytes, own.has_name = true;
        }
        if (one.has_size) {
            own.size = one.size, own.has_size = true;
        }
        own.sparse = own.sparse || one.sparse;
        at += length;
    }
    if (own.has_name && !e->has_name) {
        e->name = own.name, e->name_bytes = own.name_bytes, e->has_name = true;
    }
    if (own.has_size && !e->has_size) {
        e->size = own.size, e->has_size = true;
    }
    e->sparse = e->sparse || own.sparse;
    return ok;
}

/* Reads the extension header of `type` at t->at (its size known) and steps over it. */
static tess_status read_extension(tess__tar *t, uint8_t type, size_t size, extension *e,
                                  tess_bad *out_bad)
{
    size_t at = t->at, left = t->map.n_bytes - at - TESS__TAR_BLOCK;
    const uint8_t *data = t->map.data + at + TESS__TAR_BLOCK;
    if (size > EXTENSION_MAX) {
        return bad_header(out_bad, at, "an extension header claims more than 1 MiB");
    }
    if (size > left) {
        return cut(out_bad, at, t->map.n_bytes, "an extension header begins");
    }
    if (type == 'L' && !e->has_name) {
        e->name = data, e->name_bytes = strnlen((const char *)data, size), e->has_name = true;
    } else if (type == 'x' || type == 'X') {
        if (!parse_pax(data, size, e)) {
            return bad_header(out_bad, at, "a pax header holds malformed records");
        }
    } else if (type == 'g') {
        extension all = {0};
        if (!parse_pax(data, size, &all) || all.has_size || all.has_name) {
            return bad_header(out_bad, at, "a global pax header is malformed or sets size or path");
        }
    }
    size_t padded = (size + TESS__TAR_BLOCK - 1) / TESS__TAR_BLOCK * TESS__TAR_BLOCK;
    t->at = at + TESS__TAR_BLOCK + (padded < left ? padded : left);
    e->any = e->any || type != 'g';
    return TESS_OK;
}

static bool set_name(tess__tar_member *m, const uint8_t *h, const extension *e)
{
    size_t n = 0, n_name = strnlen((const char *)h + NAME, NAME_BYTES);
    size_t n_prefix = strnlen((const char *)h + PREFIX, PREFIX_BYTES);
    if (e->has_name) {
        if (e->name_bytes > TESS__TAR_NAME || memchr(e->name, 0, e->name_bytes)) {
            return false;
        }
        memcpy(m->name, e->name, e->name_bytes);
        n = e->name_bytes;
    } else {
        if (n_prefix > 0 && memcmp(h + MAGIC, "ustar", 6) == 0) { /* with its NUL: not GNU's */
            memcpy(m->name, h + PREFIX, n_prefix);
            n = n_prefix;
            m->name[n++] = '/';
        }
        memcpy(m->name + n, h + NAME, n_name);
        n += n_name;
    }
    m->name[n] = 0;
    m->name_bytes = n;
    return true;
}

/* Old GNU sparse files carry further blocks of their map between header and data. */
static tess_status skip_sparse_map(tess__tar *t, const uint8_t *h, tess_bad *out_bad)
{
    for (bool more = h[SPARSE_MORE] != 0; more; t->at += TESS__TAR_BLOCK) {
        if (t->map.n_bytes - t->at < TESS__TAR_BLOCK) {
            return cut(out_bad, t->at, t->map.n_bytes, "a sparse map goes on");
        }
        more = t->map.data[t->at + SPARSE_MORE_NEXT] != 0;
    }
    return TESS_OK;
}

/* The member whose own header is at t->at; steps over its data. */
static tess_status read_member(tess__tar *t, uint8_t type, size_t size, const extension *e,
                               tess__tar_member *m, tess_bad *out_bad)
{
    const uint8_t *h = t->map.data + t->at;
    size_t header_at = t->at;
    if (!set_name(m, h, e)) {
        m->name_bytes = 0;
        return bad_header(out_bad, header_at, "a name above 4096 bytes or with a NUL in it");
    }
    bool plain = type == '0' || type == 0 || type == '7';
    size_t n_own = strnlen((const char *)h + NAME, NAME_BYTES);
    bool directory = type == 0 && n_own > 0 && h[NAME + n_own - 1] == '/'; /* before POSIX */
    bool no_data = directory || (type >= '1' && type <= '6');
    t->at += TESS__TAR_BLOCK;
    if (type == 'S') {
        TESS_TRY(skip_sparse_map(t, h, out_bad));
    }
    m->n_bytes = no_data ? 0 : e->has_size ? e->size : size;
    m->data_at = t->at;
    m->is_file = plain && !directory && !e->sparse;
    size_t left = t->map.n_bytes - t->at;
    if (m->n_bytes > left) {
        return cut(out_bad, header_at, t->map.n_bytes, "a member's data does not end; it begins");
    }
    size_t pad = (TESS__TAR_BLOCK - m->n_bytes % TESS__TAR_BLOCK) % TESS__TAR_BLOCK;
    t->at += m->n_bytes;
    t->at += pad < t->map.n_bytes - t->at ? pad : t->map.n_bytes - t->at;
    return TESS_OK;
}

tess_status tess__tar_next(tess__tar *t, tess__tar_member *member, bool *out_end, tess_bad *out_bad)
{
    extension e = {0};
    member->name_bytes = 0;
    member->name[0] = 0;
    member->begin = t->at;
    *out_end = false;
    for (;;) {
        size_t at = t->at, size;
        if (at >= t->map.n_bytes) {
            return cut(out_bad, at, t->map.n_bytes, "the end-of-archive marker is expected");
        }
        if (t->map.n_bytes - at < TESS__TAR_BLOCK) {
            return cut(out_bad, at, t->map.n_bytes, "a header begins");
        }
        const uint8_t *h = t->map.data + at;
        if (is_zero_block(h)) {
            if (e.any) {
                return bad_header(out_bad, at, "an extension header without a member behind it");
            }
            *out_end = true;
            return TESS_OK;
        }
        if (!checksum_matches(h)) {
            return bad_header(out_bad, at, "the checksum does not match");
        }
        if (!parse_number(h + SIZE, SIZE_BYTES, &size)) {
            return bad_header(out_bad, at, "the size is not a number, negative or too large");
        }
        uint8_t type = h[TYPE];
        if (!type || !strchr("xXgLK", type)) {
            return read_member(t, type, size, &e, member, out_bad);
        }
        TESS_TRY(read_extension(t, type, size, &e, out_bad));
    }
}
