/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the body of a search request: the first byte picks the content type. What is
 * accepted lies within the limits and within the body or the arena. */
#include "serve/search_query.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink; /* makes every byte of a picture be read */

static void check(const tess__query *q)
{
    if ((!q->text && !q->picture.data) || q->k < 1 || q->k > 100 || q->text_bytes > 1000 ||
        !isfinite(q->text_weight) || !isfinite(q->picture_weight) ||
        (q->text && !tess_utf8_valid(q->text, q->text_bytes, true))) {
        abort();
    }
    for (size_t i = 0; i < q->picture.n_bytes; i++) {
        sink ^= q->picture.data[i];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    tess__request request = {
        .content_type = data[0] == 'J' ? "application/json" : "multipart/form-data; boundary=B",
        .body = {.data = data + 1, .n_bytes = size - 1},
    };
    tess__query_limits limits = {.max_text_bytes = 1000, .max_k = 100};
    tess_arena arena = {0};
    tess__query q;
    if (tess__query_read(&request, &limits, &arena, &q) == TESS_OK) {
        check(&q);
    } else if (!tess_error()[0]) {
        abort();
    }
    tess_arena_deinit(&arena);
    return 0;
}
