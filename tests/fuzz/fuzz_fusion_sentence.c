/* SPDX-License-Identifier: Apache-2.0 */
/* The configs of a text-only model, of any bytes: the members encoder, pooling, dense and prompts
 * of one object stand for the files.  What is taken must be usable: a width, a pooling by name. */
#include <stdlib.h>

#include "fusion/sentence_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static tess_status read_all(const tess_json *root, tess_arena *arena, tess_sentence_config *c)
{
    TESS_TRY(tess__bert_config_read(tess_json_get(root, "encoder"), "encoder", arena, &c->text,
                                    &c->bert));
    TESS_TRY(tess__sentence_read_pooling(tess_json_get(root, "pooling"), "pooling", c));
    for (size_t i = 0; i < tess_json_count(tess_json_get(root, "dense")); i++) {
        TESS_TRY(tess__sentence_read_dense(tess_json_at(tess_json_get(root, "dense"), i), "dense",
                                           arena, c));
    }
    return tess__sentence_read_prompts(tess_json_get(root, "prompts"), "prompts", arena, c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    tess_json_doc *doc = NULL;
    tess_arena arena = {0};
    tess_sentence_config c = {0};
    tess_status st = tess_json_parse((const char *)data, n_bytes, "fuzz", &doc);
    st = st ? st : read_all(tess_json_root(doc), &arena, &c);
    if (st && !*tess_error()) {
        abort();
    }
    if (!st && (tess__bert_width(&c.text) < 1 || c.text.context_length < 2 || !c.text.pool_type)) {
        abort();
    }
    tess_arena_deinit(&arena);
    tess_json_free(doc);
    return 0;
}
