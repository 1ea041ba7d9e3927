/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer.json, vocab.txt or CLIP vocabulary and a text, both hostile:
 * <u16 bytes of text><text><file>.  Whatever opens must encode to ids of its vocabulary and decode
 * them again; a cut encoding begins like the whole. */
#include <stdlib.h>
#include <string.h>

#include "tessera/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void use(const tess_tokenizer *t, const char *text, size_t n)
{
    tess_ids ids = {0}, cut = {0};
    tess_buf back = {0};
    tess_encode_options o = {.add_special = true};
    if (tess_tokenizer_encode(t, &ids, text, n, &o) == TESS_OK) {
        for (size_t i = 0; i < ids.n_ids; i++) {
            check(ids.ids[i] >= 0 && ids.ids[i] < tess_tokenizer_n_vocab(t));
        }
        check(tess_tokenizer_decode(t, &back, ids.ids, ids.n_ids) == TESS_OK);
        size_t n_special = tess_tokenizer_n_special(t);
        o.max_ids = n_special + 2;
        check(tess_tokenizer_encode(t, &cut, text, n, &o) == TESS_OK);
        check(cut.n_ids <= o.max_ids && cut.n_ids <= ids.n_ids);
        for (size_t i = 0; i + n_special < cut.n_ids; i++) {
            check(cut.ids[i] == ids.ids[i]);
        }
    }
    tess_ids_deinit(&ids);
    tess_ids_deinit(&cut);
    tess_buf_deinit(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes < 2) {
        return 0;
    }
    size_t n_text = data[0] | (size_t)data[1] << 8;
    data += 2;
    n_bytes -= 2;
    n_text = n_text < n_bytes ? n_text : n_bytes;
    tess_tokenizer *t;
    if (tess_tokenizer_open_bytes(data + n_text, n_bytes - n_text, "fuzz", &t) == TESS_OK) {
        use(t, (const char *)data, n_text);
        tess_tokenizer_close(t);
    }
    return 0;
}
