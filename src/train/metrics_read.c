/* SPDX-License-Identifier: Apache-2.0 */
/* JSONL records, a line at a time from a mapping.  A line without its newline is torn. */
#include "train/metrics_read.h"

#include <string.h>

static bool read_line(const char *line, size_t n, const char *path, tess_json_doc **out,
                      int64_t *out_step)
{
    if (tess_json_parse(line, n, path, out) != TESS_OK) {
        *out = NULL;
        return false;
    }
    *out_step = tess_json_int(tess_json_get(tess_json_root(*out), "step"), -1);
    return *out_step >= 0;
}

/* Returns false to stop. */
static bool visit_line(const char *line, size_t n, size_t offset, const char *path,
                       tess__metrics_visit *visit, void *ctx, tess__metrics_walk *walk)
{
    tess_json_doc *doc = NULL;
    int64_t step = -1;
    bool go_on = true;
    if (!read_line(line, n, path, &doc, &step)) {
        walk->n_bad++;
    } else {
        walk->n_records++;
        walk->whole_bytes = walk->n_bad == 0 ? (int64_t)(offset + n + 1) : walk->whole_bytes;
        go_on = visit(ctx, tess_json_root(doc), step, (int64_t)offset);
    }
    tess_json_free(doc);
    return go_on;
}

tess_status tess__metrics_read(const char *path, tess__metrics_visit *visit, void *ctx,
                               tess__metrics_walk *out)
{
    *out = (tess__metrics_walk){0};
    tess_bytes map;
    if (!tess_path_exists(path)) {
        return TESS_OK;
    }
    TESS_TRY(tess_file_map(path, &map));
    const char *text = (const char *)map.data;
    for (size_t i = 0; i < map.n_bytes;) {
        const char *end = memchr(text + i, '\n', map.n_bytes - i);
        size_t n = end != NULL ? (size_t)(end - text) - i : map.n_bytes - i;
        if (end == NULL) {
            out->n_bad++;
        } else if (!visit_line(text + i, n, i, path, visit, ctx, out)) {
            break;
        }
        i += n + 1;
    }
    tess_file_unmap(&map);
    return TESS_OK;
}

typedef struct cut {
    int64_t step, offset; /* offset -1: none beyond the step yet */
} cut;

static bool find_cut(void *ctx, const tess_json *record, int64_t step, int64_t offset)
{
    cut *c = ctx;
    (void)record;
    if (step > c->step) {
        c->offset = offset;
        return false;
    }
    return true;
}

tess_status tess__metrics_keep_bytes(const char *path, int64_t step, int64_t *out)
{
    cut c = {step, -1};
    tess__metrics_walk walk;
    TESS_TRY(tess__metrics_read(path, find_cut, &c, &walk));
    *out = c.offset >= 0 && c.offset < walk.whole_bytes ? c.offset : walk.whole_bytes;
    return TESS_OK;
}
