/* SPDX-License-Identifier: Apache-2.0 */
/* source_names: lists of files written as one string.
 *
 * The notation is the shell's, as WebDataset uses it: braces are expanded left to right,
 * alternatives before what follows them, so names come out in the order in which they are read.
 */
#include "train/source.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 1000000
#define DEPTH_MAX 64

tess_status tess__names_split(const char *s, const char *separators, tess_names *out)
{
    while (*s) {
        size_t n = strcspn(s, separators);
        if (n > 0) {
            char *part = tess_strndup(s, n);
            tess_status st = part ? tess_names_add(out, part) : TESS_NOMEM;
            tess_free(part);
            TESS_TRY(st);
        }
        s += n + (s[n] != 0);
    }
    return TESS_OK;
}

int64_t tess__suffix_find(const tess_names *suffixes, const char *name, size_t n_bytes)
{
    for (size_t i = 0; i < suffixes->n_names; i++) {
        const char *suffix = suffixes->names[i];
        size_t n = strlen(suffix);
        if (n_bytes > n + 1 && name[n_bytes - n - 1] == '.' &&
            strncasecmp(name + n_bytes - n, suffix, n) == 0) {
            return (int64_t)i;
        }
    }
    return -1;
}

/* The brace that closes the one at `open`; NULL: none. */
static const char *find_close(const char *open)
{
    int depth = 0;
    for (const char *p = open; *p; p++) {
        depth += (*p == '{') - (*p == '}');
        if (depth == 0) {
            return p;
        }
    }
    return NULL;
}

/* "A..B" between the braces, both numbers. */
static bool parse_range(const char *p, const char *end, int64_t *first, int64_t *last, int *width)
{
    char text[48], *stop;
    size_t n = (size_t)(end - p);
    if (n >= sizeof text) {
        return false;
    }
    memcpy(text, p, n);
    text[n] = 0;
    char *dots = strstr(text, "..");
    if (!dots || !isdigit((unsigned char)text[0]) || !isdigit((unsigned char)dots[2]) ||
        dots - text > 18 || strlen(dots + 2) > 18) {
        return false;
    }
    *first = strtoll(text, &stop, 10);
    if (stop != dots) {
        return false;
    }
    *last = strtoll(dots + 2, &stop, 10);
    int wide = (int)strlen(dots + 2);
    *width = (int)(dots - text);
    bool is_padded = (text[0] == '0' && *width > 1) || (dots[2] == '0' && wide > 1);
    *width = !is_padded ? 1 : wide > *width ? wide : *width;
    return *stop == 0;
}

/* The comma that ends the alternative at p, or `end`. */
static const char *find_comma(const char *p, const char *end)
{
    int depth = 0;
    for (; p < end; p++) {
        depth += (*p == '{') - (*p == '}');
        if (*p == ',' && depth == 0) {
            break;
        }
    }
    return p;
}

static tess_status expand(const char *done, const char *rest, int depth, tess_names *out);

/* done + part + tail, with part itself to be expanded when it may hold braces. */
static tess_status expand_part(const char *done, const char *part, size_t n_part, const char *tail,
                               int depth, tess_names *out)
{
    char *rest = tess_format("%.*s%s", (int)n_part, part, tail);
    tess_status st = rest ? expand(done, rest, depth + 1, out) : TESS_NOMEM;
    tess_free(rest);
    return st;
}

static tess_status expand_range(const char *done, int64_t first, int64_t last, int width,
                                const char *tail, int depth, tess_names *out)
{
    int64_t step = first <= last ? 1 : -1;
    for (int64_t i = first;; i += step) {
        char *longer = tess_format("%s%0*lld", done, width, (long long)i);
        tess_status st = longer ? expand(longer, tail, depth + 1, out) : TESS_NOMEM;
        tess_free(longer);
        if (st != TESS_OK || i == last) {
            return st;
        }
    }
}

/* All names done + (what rest expands to). */
static tess_status expand(const char *done, const char *rest, int depth, tess_names *out)
{
    const char *open = strchr(rest, '{'), *close = open ? find_close(open) : NULL;
    if (depth > DEPTH_MAX || out->n_names >= NAMES_MAX) {
        return TESS_FAIL(TESS_INVALID, "'%s%s' expands to more than %d names or nests too deeply",
                         done, rest, NAMES_MAX);
    }
    if (!close) {
        char *name = tess_format("%s%s", done, rest);
        tess_status st = name ? tess_names_add(out, name) : TESS_NOMEM;
        tess_free(name);
        return st;
    }
    int64_t first, last;
    int width;
    char *before = NULL;
    tess_status st = TESS_OK;
    const char *comma = find_comma(open + 1, close);
    bool is_range = parse_range(open + 1, close, &first, &last, &width);
    bool is_literal = comma == close && !is_range;
    /* Braces around neither a range nor a list stay. */
    const char *until = is_literal ? open + 1 : open;
    before = tess_format("%s%.*s", done, (int)(until - rest), rest);
    if (!before) {
        return TESS_NOMEM;
    }
    if (is_literal) {
        st = expand(before, until, depth + 1, out);
    } else if (is_range) {
        st = expand_range(before, first, last, width, close + 1, depth, out);
    } else {
        for (const char *p = open + 1; st == TESS_OK; p = comma + 1) {
            comma = find_comma(p, close);
            st = expand_part(before, p, (size_t)(comma - p), close + 1, depth, out);
            if (comma == close) {
                break;
            }
        }
    }
    tess_free(before);
    return st;
}

tess_status tess__source_expand(const char *pattern, tess_names *out)
{
    while (*pattern) {
        const char *joint = strstr(pattern, "::");
        size_t n = joint ? (size_t)(joint - pattern) : strlen(pattern);
        if (n > 0) {
            TESS_TRY(expand_part("", pattern, n, "", 0, out));
        }
        pattern += n + (joint ? 2 : 0);
    }
    return TESS_OK;
}
