/* SPDX-License-Identifier: Apache-2.0 */
/* multipart/form-data from a body in memory.
 *
 * Stricter than RFC 2046: no preamble, CRLF only, no nested parts; that is what browsers and curl
 * send.  One pass, no recursion, every length bounded.
 */
#include "serve/multipart.h"

#include <string.h>
#include <strings.h>

enum { MAX_BOUNDARY = 70, MAX_HEADERS = 16, MAX_HEADER_BYTES = 2048 };

/* What is left to read. */
typedef struct cursor {
    const char *p, *end;
} cursor;

bool tess__is_media_type(const char *content_type, const char *type)
{
    size_t n = strlen(type);
    return content_type && strncasecmp(content_type, type, n) == 0 &&
           (content_type[n] == 0 || strchr("; \t", content_type[n]));
}

static bool is_token_char(char c)
{
    return c > ' ' && c < 127 && !strchr("()<>@,;:\\\"/[]?=", c);
}

static void skip_spaces(cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t')) {
        c->p++;
    }
}

/* A token or a quoted string into out (cap bytes with the NUL); false when it is neither. */
static bool read_value(cursor *c, char *out, size_t cap)
{
    size_t n = 0;
    bool quoted = c->p < c->end && *c->p == '"';
    c->p += quoted;
    while (c->p < c->end && (quoted ? *c->p != '"' : is_token_char(*c->p))) {
        if (quoted && *c->p == '\\' && c->p + 1 < c->end) {
            c->p++;
        }
        if (n + 1 < cap) {
            out[n] = *c->p;
        }
        n++;
        c->p++;
    }
    if (quoted && (c->p >= c->end || *c->p++ != '"')) {
        return false;
    }
    out[n < cap ? n : 0] = 0; /* what is too long counts as empty */
    return n > 0 || quoted;
}

/* Finds parameter `wanted` in "; a=b; c=\"d\"". 1: found, 0: not there, -1: malformed. */
static int find_parameter(cursor c, const char *wanted, char *out, size_t cap)
{
    char key[32], value[2 * MAX_HEADER_BYTES];
    int found = 0;
    for (skip_spaces(&c); c.p < c.end; skip_spaces(&c)) {
        if (*c.p++ != ';') {
            return -1;
        }
        skip_spaces(&c);
        bool ok = read_value(&c, key, sizeof(key)) && c.p < c.end && *c.p++ == '=';
        if (!ok || !read_value(&c, value, sizeof(value))) {
            return -1;
        }
        if (strcasecmp(key, wanted) == 0) {
            if (found || strlen(value) >= cap || !value[0]) {
                return -1;
            }
            strcpy(out, value);
            found = 1;
        }
    }
    return found;
}

static tess_status read_boundary(const char *content_type, char out[MAX_BOUNDARY + 1])
{
    const char *semicolon = content_type ? strchr(content_type, ';') : NULL;
    if (semicolon && strlen(semicolon) <= MAX_HEADER_BYTES) {
        cursor c = {semicolon, semicolon + strlen(semicolon)};
        if (find_parameter(c, "boundary", out, MAX_BOUNDARY + 1) == 1) {
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_FORMAT, "multipart/form-data without a boundary of 1 to %d bytes",
                     MAX_BOUNDARY);
}

/* Takes `text` off the front. */
static bool take(cursor *c, const char *text)
{
    size_t n = strlen(text);
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, text, n) != 0) {
        return false;
    }
    c->p += n;
    return true;
}

/* Takes one line without its CRLF; false when there is none within the limit. */
static bool take_line(cursor *c, cursor *line)
{
    size_t n = (size_t)(c->end - c->p);
    n = n < MAX_HEADER_BYTES ? n : MAX_HEADER_BYTES;
    const char *end = memmem(c->p, n, "\r\n", 2);
    if (!end) {
        return false;
    }
    *line = (cursor){c->p, end};
    c->p = end + 2;
    return !memchr(line->p, 0, (size_t)(line->end - line->p));
}

/* The name out of a Content-Disposition line; other headers leave it as it is. */
static bool read_header(cursor line, char name[TESS__MAX_PART_NAME])
{
    const char *header = "content-disposition:", *kind = "form-data";
    size_t n_header = strlen(header), n_kind = strlen(kind);
    if ((size_t)(line.end - line.p) < n_header || strncasecmp(line.p, header, n_header) != 0) {
        return true;
    }
    line.p += n_header;
    skip_spaces(&line);
    if ((size_t)(line.end - line.p) < n_kind || strncasecmp(line.p, kind, n_kind) != 0) {
        return false;
    }
    line.p += n_kind;
    return !name[0] && find_parameter(line, "name", name, TESS__MAX_PART_NAME) == 1;
}

static tess_status read_headers(cursor *c, char name[TESS__MAX_PART_NAME])
{
    cursor line;
    name[0] = 0;
    for (int i = 0; i < MAX_HEADERS; i++) {
        if (!take_line(c, &line)) {
            return TESS_FAIL(TESS_FORMAT, "a part's header is cut off or longer than %d bytes",
                             MAX_HEADER_BYTES);
        }
        if (line.p == line.end) {
            return name[0] ? TESS_OK : TESS_FAIL(TESS_FORMAT, "a part has no name");
        }
        if (!read_header(line, name)) {
            return TESS_FAIL(TESS_FORMAT, "a part's Content-Disposition is malformed");
        }
    }
    return TESS_FAIL(TESS_FORMAT, "a part has more than %d headers", MAX_HEADERS);
}

static tess_status read_part(cursor *c, const char *delimiter, tess__parts *out)
{
    if (out->n == TESS__MAX_PARTS) {
        return TESS_FAIL(TESS_FORMAT, "more than %d parts", TESS__MAX_PARTS);
    }
    tess__part *part = &out->parts[out->n];
    TESS_TRY(read_headers(c, part->name));
    /* An empty part's delimiter may begin with the CRLF that ended its headers. */
    const char *from = c->p - 2;
    const char *end = memmem(from, (size_t)(c->end - from), delimiter, strlen(delimiter));
    if (!end) {
        return TESS_FAIL(TESS_FORMAT, "part \"%s\" is cut off: its closing boundary is missing",
                         part->name);
    }
    size_t n = end > c->p ? (size_t)(end - c->p) : 0;
    part->data = (tess_bytes){.data = (const uint8_t *)c->p, .n_bytes = n};
    c->p = end + strlen(delimiter);
    out->n++;
    return TESS_OK;
}

tess_status tess__multipart_parse(const char *content_type, tess_bytes body, tess__parts *out)
{
    char delimiter[MAX_BOUNDARY + 5] = "\r\n--";
    TESS_TRY(read_boundary(content_type, delimiter + 4));
    const char *begin = body.data ? (const char *)body.data : "";
    cursor c = {begin, begin + body.n_bytes};
    out->n = 0;
    if (!take(&c, delimiter + 2)) {
        return TESS_FAIL(TESS_FORMAT, "the body does not begin with its boundary");
    }
    while (!take(&c, "--")) {
        if (!take(&c, "\r\n")) {
            return TESS_FAIL(TESS_FORMAT, "the body is cut off after a boundary");
        }
        TESS_TRY(read_part(&c, delimiter, out));
    }
    return TESS_OK;
}
