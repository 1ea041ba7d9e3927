/* SPDX-License-Identifier: Apache-2.0 */
/* BERT's vocab.txt, a piece a line, as Hugging Face's BertTokenizer uses it: lower case unless
 * tokenizer_config.json says otherwise, [CLS] and [SEP] around a text. */
#include "text/open.h"
#include "text/pipe_json.h"

#include <string.h>

static tess_status read_lines(tess__pipe *p, const uint8_t *data, size_t n)
{
    if (!tess_utf8_valid((const char *)data, n, true)) {
        return TESS_FAIL(TESS_FORMAT, "vocab.txt: expected UTF-8 text, a piece a line");
    }
    int64_t id = 0;
    for (size_t i = 0; i < n; id++) {
        const uint8_t *stop = memchr(data + i, '\n', n - i);
        size_t end = stop != NULL ? (size_t)(stop - data) : n, bare = end;
        bare -= bare > i && data[bare - 1] == '\r'; /* Python reads with universal newlines */
        if (bare > i) {
            tess_bytes piece = tess__pipe_copy(p, (const char *)data + i, bare - i);
            tess_status st =
                piece.data != NULL ? tess__vocab_put(&p->vocab, id, piece) : TESS_NOMEM;
            if (st != TESS_OK) {
                return tess_error_prefix(st, "vocab.txt:%lld", (long long)id + 1);
            }
        }
        i = end + 1;
    }
    return tess__vocab_build(&p->vocab);
}

static tess_status add_steps(tess__pipe *p, const tess_json *config)
{
    bool lower, chinese, strip;
    TESS_TRY(tess__json_flag(config, "do_lower_case", true, &lower));
    TESS_TRY(tess__json_flag(config, "tokenize_chinese_chars", true, &chinese));
    TESS_TRY(tess__json_flag(config, "strip_accents", lower, &strip));
    tess__step *normal = tess__pipe_add_normal(p, tess__normal_bert, "BertNormalizer");
    tess__step *split = tess__pipe_add_split(p, tess__split_bert, "BertPreTokenizer");
    if (normal == NULL || split == NULL) {
        return TESS_UNSUPPORTED;
    }
    normal->flags = TESS__BERT_CLEAN | (chinese ? TESS__BERT_CHINESE : 0) |
                    (strip ? TESS__BERT_STRIP : 0) | (lower ? TESS__BERT_LOWER : 0);
    return TESS_OK;
}

static int32_t find(const void *self, const char *piece, size_t n_bytes)
{
    return tess__pipe_find(self, piece, n_bytes);
}

static tess_status build(tess__pipe *p, tess_tokenizer *t, const tess__open_options *o)
{
    p->clean = o->user.clean;
    TESS_TRY(read_lines(p, t->files[0].bytes, t->files[0].n_bytes));
    p->prefix = (tess_bytes){(const uint8_t *)"##", 2};
    const char *unknown = tess__config_token(o, "unk_token");
    TESS_TRY(tess__pipe_set_wordpiece(p, unknown != NULL ? unknown : "[UNK]"));
    TESS_TRY(add_steps(p, o->config));
    tess__fill_special(t, o, find, p);
    if (t->special[TESS__CLS] < 0 || t->special[TESS__SEP] < 0) {
        return TESS_FAIL(TESS_FORMAT, "vocab.txt has no [CLS] or no [SEP]");
    }
    TESS_TRY(tess__pipe_add_specials(p, t));
    t->prefix[t->n_prefix++] = t->special[TESS__CLS];
    t->suffix[t->n_suffix++] = t->special[TESS__SEP];
    return tess__pipe_finish(p, t, "wordpiece");
}

tess_status tess__bert_open(tess_tokenizer *t, const tess__open_options *o)
{
    tess__pipe *p = tess__pipe_new();
    tess_status st = p != NULL ? build(p, t, o) : TESS_NOMEM;
    if (st != TESS_OK) {
        t->kind = NULL;
        tess__pipe_free(p);
    }
    return st;
}
