/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting many texts into runs of about as many tokens as a plan has rows.  In the order of the
 * texts the next one rarely fits what is left of a run: of 576 rows a tenth stays empty with
 * descriptions of 89 tokens.  So the longest that fits is taken first, then the longest that fits
 * the rest, and so on: short texts fill what long ones leave. */
#include "fusion/text_runs.h"

tess_status tess__text_runs_init(const int64_t *offsets, int64_t n, int64_t longest,
                                 tess__text_runs *out)
{
    *out = (tess__text_runs){.offsets = offsets, .n_left = n, .longest = longest};
    out->first = tess_alloc_array((size_t)longest + 1, sizeof *out->first);
    out->after = tess_alloc_array((size_t)n + 1, sizeof *out->after);
    if (!out->first || !out->after) {
        tess__text_runs_deinit(out);
        return TESS_NOMEM;
    }
    for (int64_t k = 0; k <= longest; k++) {
        out->first[k] = -1;
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        const int64_t k = offsets[i + 1] - offsets[i];
        out->after[i] = out->first[k];
        out->first[k] = i;
    }
    return TESS_OK;
}

int64_t tess__text_runs_next(tess__text_runs *r, int64_t rows, int64_t most, int64_t *texts)
{
    int64_t n = 0, length;
    while (r->longest > 0 && r->first[r->longest] < 0) {
        r->longest--;
    }
    rows = rows > r->longest ? rows : r->longest;
    for (length = r->longest; length > 0 && n < most && r->n_left > 0;) {
        const int64_t i = r->first[length];
        if (i < 0 || length > rows) {
            length--;
            continue;
        }
        texts[n++] = i;
        r->first[length] = r->after[i];
        r->n_left--;
        rows -= length;
    }
    return n;
}

void tess__text_runs_deinit(tess__text_runs *r)
{
    tess_free(r->first);
    tess_free(r->after);
    *r = (tess__text_runs){0};
}
