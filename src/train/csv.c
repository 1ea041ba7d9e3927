/* SPDX-License-Identifier: Apache-2.0 */
/* csv: RFC 4180 with the leniency of Python's csv module (its "excel" dialect), which wrote most of
 * the files: a line ends with LF, CR or both; a quote opens a field only as its first byte; behind
 * the closing quote further bytes are taken as they are; within quotes a doubled quote is one.
 */
#include "train/csv.h"

#include <string.h>

static tess_status end_field(tess__csv *c)
{
    tess_buf_add(&c->text, "", 1);
    TESS_TRY(tess_grow(&c->starts, &c->cap_starts, c->n_fields + 2, sizeof *c->starts));
    c->starts[++c->n_fields] = c->text.n_bytes;
    return tess_buf_check(&c->text);
}

/* Copies the quoted part that begins behind its quote at *at; false: it does not close. */
static bool read_quoted(tess__csv *c, size_t *at, size_t end)
{
    size_t i = *at;
    for (;;) {
        const uint8_t *p = c->map.data + i, *quote = i < end ? memchr(p, '"', end - i) : NULL;
        if (!quote) {
            return false;
        }
        size_t n = (size_t)(quote - p);
        tess_buf_add(&c->text, p, n);
        i += n + 1;
        if (i >= c->map.n_bytes || c->map.data[i] != '"') {
            *at = i;
            return true;
        }
        tess_buf_add(&c->text, "\"", 1);
        i++;
    }
}

/* Copies bytes as they are up to the separator or line end. */
static void read_plain(tess__csv *c, size_t *at, size_t end)
{
    const uint8_t *d = c->map.data;
    size_t i = *at;
    while (i < end && d[i] != (uint8_t)c->separator && d[i] != '\n' && d[i] != '\r') {
        i++;
    }
    tess_buf_add(&c->text, d + *at, i - *at);
    *at = i;
}

static void skip_line(tess__csv *c, size_t from)
{
    const uint8_t *p = c->map.data + from;
    const uint8_t *lf = from < c->map.n_bytes ? memchr(p, '\n', c->map.n_bytes - from) : NULL;
    c->at = lf ? from + (size_t)(lf - p) + 1 : c->map.n_bytes;
}

/* One row at c->at, which is no line end. */
static tess_status read_row(tess__csv *c, bool *out_ok)
{
    size_t at = c->at, left = c->map.n_bytes - at;
    size_t end = at + (left < TESS__CSV_ROW_MAX ? left : TESS__CSV_ROW_MAX);
    tess_buf_clear(&c->text);
    c->n_fields = 0;
    TESS_TRY(tess_grow(&c->starts, &c->cap_starts, 1, sizeof *c->starts));
    c->starts[0] = 0;
    *out_ok = true;
    for (;;) {
        if (at < end && c->map.data[at] == '"') {
            at++;
            if (!read_quoted(c, &at, end)) {
                *out_ok = false;
                skip_line(c, c->row_at);
                return TESS_OK;
            }
        }
        read_plain(c, &at, end);
        TESS_TRY(end_field(c));
        if (at >= c->map.n_bytes || c->map.data[at] != (uint8_t)c->separator) {
            break;
        }
        at++;
    }
    if (at < c->map.n_bytes && at >= end && c->map.data[at] != '\n' && c->map.data[at] != '\r') {
        *out_ok = false;
        skip_line(c, at);
        return TESS_OK;
    }
    c->at = at < c->map.n_bytes ? at + 1 : at;
    return TESS_OK;
}

tess_status tess__csv_next(tess__csv *c, bool *out_end, bool *out_ok)
{
    while (c->at < c->map.n_bytes && (c->map.data[c->at] == '\n' || c->map.data[c->at] == '\r')) {
        c->at++;
    }
    *out_end = c->at >= c->map.n_bytes;
    *out_ok = true;
    if (*out_end) {
        return TESS_OK;
    }
    c->row_at = c->at;
    TESS_TRY(read_row(c, out_ok));
    c->row_bytes = c->at - c->row_at;
    return TESS_OK;
}

const char *tess__csv_field(const tess__csv *c, size_t i, size_t *out_bytes)
{
    *out_bytes = c->starts[i + 1] - c->starts[i] - 1;
    return c->text.data + c->starts[i];
}

void tess__csv_deinit(tess__csv *c)
{
    tess_buf_deinit(&c->text);
    tess_free(c->starts);
    *c = (tess__csv){0};
}
