/* SPDX-License-Identifier: Apache-2.0 */
/* Encodes every line of a file again and again, one thread, and prints captions per second.
 *
 *   bench/tokenize MODEL LINES [SECONDS]
 *
 * bench/tokenize_spm.py runs this and SentencePiece on the same lines in turn and prints the ratio.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"

static int complain(void)
{
    fprintf(stderr, "tokenize: %s\n", tess_error());
    return 1;
}

/* Encodes all lines once; the number of lines, or -1. */
static int64_t pass(const tess_tokenizer *t, const char *text, size_t n, tess_ids *ids,
                    const tess_encode_options *o)
{
    int64_t n_lines = 0;
    for (const char *at = text, *end = text + n; at < end; n_lines++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop != NULL ? stop : end;
        if (tess_tokenizer_encode(t, ids, at, (size_t)(stop - at), o) != TESS_OK) {
            return -1;
        }
        at = stop + 1;
    }
    return n_lines;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: tokenize MODEL LINES [SECONDS]\n");
        return 2;
    }
    double limit = argc > 3 ? atof(argv[3]) : 2;
    tess_tokenizer *t;
    uint8_t *text;
    size_t n_bytes;
    if (tess_tokenizer_open(argv[1], &t) != TESS_OK ||
        tess_file_read(argv[2], (size_t)1 << 30, &text, &n_bytes) != TESS_OK) {
        return complain();
    }
    tess_encode_options o = {.scratch = tess_tokenizer_scratch_new()};
    tess_ids ids = {0};
    int64_t n_lines = 0, n_ids = 0;
    double start = tess_seconds(), seconds = 0;
    while (seconds < limit) {
        ids.n_ids = 0;
        int64_t n = pass(t, (const char *)text, n_bytes, &ids, &o);
        if (n < 0) {
            return complain();
        }
        n_lines += n;
        n_ids += (int64_t)ids.n_ids;
        seconds = tess_seconds() - start;
    }
    printf("{\"captions_per_s\": %.0f, \"ids_per_s\": %.0f}\n", (double)n_lines / seconds,
           (double)n_ids / seconds);
    tess_ids_deinit(&ids);
    tess_tokenizer_scratch_free(o.scratch);
    tess_free(text);
    tess_tokenizer_close(t);
    return 0;
}
