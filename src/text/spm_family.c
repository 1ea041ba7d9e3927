/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece models as Hugging Face's classes use them, which is not as SentencePiece does:
 * XLMRobertaTokenizer takes the pieces and rules out of the file, renumbers them and runs
 * `tokenizers`' own unigram; SiglipTokenizer keeps SentencePiece, but cleans the text and finds
 * special tokens before. */
#include "text/open.h"
#include "text/pipe_json.h"

#include <string.h>

static int32_t find(const void *self, const char *piece, size_t n_bytes)
{
    return tess__pipe_find(self, piece, n_bytes);
}

static tess_status finish(tess__pipe *p, tess_tokenizer *t, tess_status st)
{
    if (st != TESS_OK) {
        t->kind = NULL;
        tess__pipe_free(p);
    }
    return st;
}

static tess__pipe *begin(const tess__open_options *o)
{
    tess__pipe *p = tess__pipe_new();
    if (p != NULL) {
        p->clean = o->user.clean;
    }
    return p;
}

/* ---- the model itself, cleaned before --------------------------------------------------- */

static tess_status build_plain(tess__pipe *p, tess_tokenizer *t)
{
    TESS_TRY(tess__spm_init(&p->spm, t->files[0].bytes, t->files[0].n_bytes));
    p->encode = tess__spm_word_encode;
    tess__spm_special(&p->spm, t);
    return tess__pipe_finish(p, t, tess__spm_type(&p->spm));
}

tess_status tess__plain_open(tess_tokenizer *t, const tess__open_options *o)
{
    if (o->user.clean == TESS_CLIP_CLEAN_NONE) {
        return tess__spm_open(t);
    }
    tess__pipe *p = begin(o);
    return finish(p, t, p != NULL ? build_plain(p, t) : TESS_NOMEM);
}

/* ---- SigLIP ----------------------------------------------------------------------------- */

static tess_status add_token(tess__pipe *p, const char *name, int32_t id, bool lstrip, bool rstrip)
{
    tess_bytes text = tess__pipe_copy(p, name, strlen(name));
    if (text.data == NULL) {
        return TESS_NOMEM;
    }
    tess__added a = {.text = text, .id = id, .lstrip = lstrip, .rstrip = rstrip, .special = true};
    return tess__pipe_add_token(p, a);
}

static tess_status build_siglip(tess__pipe *p, tess_tokenizer *t, const tess__open_options *o)
{
    bool lower;
    TESS_TRY(tess__spm_init(&p->spm, t->files[0].bytes, t->files[0].n_bytes));
    p->encode = tess__spm_word_encode;
    TESS_TRY(tess__json_flag(o->config, "do_lower_case", true, &lower));
    tess__step *step = tess__pipe_add_normal(p, tess__normal_siglip, "Siglip");
    step->flags = lower ? TESS__SIGLIP_LOWER : 0;
    const char *eos = tess__config_token(o, "eos_token"), *pad = tess__config_token(o, "pad_token");
    const char *unk = tess__config_token(o, "unk_token");
    eos = eos != NULL ? eos : "</s>";
    pad = pad != NULL ? pad : "</s>";
    unk = unk != NULL ? unk : "<unk>";
    t->special[TESS__EOS] = tess__spm_find(&p->spm, eos, strlen(eos));
    t->special[TESS__PAD] = tess__spm_find(&p->spm, pad, strlen(pad));
    t->special[TESS__UNK] = p->spm.model.unk_id;
    if (t->special[TESS__EOS] < 0) {
        return TESS_FAIL(TESS_FORMAT, "the end token \"%.40s\" is not in the model", eos);
    }
    TESS_TRY(add_token(p, eos, t->special[TESS__EOS], true, true));
    if (strcmp(unk, eos) != 0) {
        TESS_TRY(add_token(p, unk, t->special[TESS__UNK], true, true));
    }
    if (t->special[TESS__PAD] >= 0 && strcmp(pad, eos) != 0 && strcmp(pad, unk) != 0) {
        TESS_TRY(add_token(p, pad, t->special[TESS__PAD], true, true));
    }
    t->suffix[t->n_suffix++] = t->special[TESS__EOS];
    t->suffix_once = true;
    return tess__pipe_finish(p, t, tess__spm_type(&p->spm));
}

/* OpenCLIP reads these models with T5's tokenizer and its own cleaning, which `clean` asks for. */
tess_status tess__siglip_open(tess_tokenizer *t, const tess__open_options *o)
{
    if (o->user.clean != TESS_CLIP_CLEAN_NONE) {
        return tess__plain_open(t, o);
    }
    tess__pipe *p = begin(o);
    return finish(p, t, p != NULL ? build_siglip(p, t, o) : TESS_NOMEM);
}

/* ---- XLM-R ------------------------------------------------------------------------------ */

enum { N_OWN = 4, N_SKIPPED = 3 }; /* <s> <pad> </s> <unk>; the model's <unk> <s> </s> */

static tess_status put_piece(tess__pipe *p, size_t id, const char *text, size_t n_bytes,
                             double score)
{
    tess_bytes copy = tess__pipe_copy(p, text, n_bytes);
    if (copy.data == NULL) {
        return TESS_NOMEM;
    }
    p->scores[id] = score;
    return tess__vocab_put(&p->vocab, (int64_t)id, copy);
}

static tess_status renumber(tess__pipe *p, const tess__spm_model *m)
{
    static const char *const own[N_OWN] = {"<s>", "<pad>", "</s>", "<unk>"};
    if (m->model_type != 1 || m->n_pieces < N_SKIPPED + 1 || m->unk_id >= N_SKIPPED) {
        return TESS_FAIL(TESS_UNSUPPORTED, "XLM-R's layout: expected a unigram model that begins "
                                           "with <unk>, <s> and </s>");
    }
    size_t n = m->n_pieces - N_SKIPPED;
    p->scores = tess_alloc_array(n + N_OWN + 1, sizeof(*p->scores));
    if (p->scores == NULL) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < N_OWN; i++) {
        TESS_TRY(put_piece(p, i, own[i], strlen(own[i]), 0));
    }
    for (size_t i = 0; i < n; i++) {
        const tess__piece *piece = &m->pieces[i + N_SKIPPED];
        TESS_TRY(put_piece(p, i + N_OWN, piece->text, piece->n_bytes, piece->score));
    }
    TESS_TRY(put_piece(p, n + N_OWN, "<mask>", 6, 0));
    return tess__vocab_build(&p->vocab);
}

static tess_status build_xlmr(tess__pipe *p, tess_tokenizer *t, const tess__open_options *o)
{
    TESS_TRY(tess__spm_init(&p->spm, t->files[0].bytes, t->files[0].n_bytes));
    TESS_TRY(renumber(p, &p->spm.model));
    if (p->spm.model.charsmap.n_bytes > 0) {
        tess__step *map = tess__pipe_add_normal(p, tess__normal_precompiled, "Precompiled");
        TESS_TRY(tess__pipe_set_charsmap(p, map, p->spm.model.charsmap));
    }
    tess__step *space = tess__pipe_add_split(p, tess__split_space, "WhitespaceSplit");
    tess__step *meta = tess__pipe_add_split(p, tess__split_metaspace, "Metaspace");
    space->flags = 0;
    meta->from = (tess_bytes){(const uint8_t *)TESS__SPACE, TESS__SPACE_BYTES};
    meta->flags = TESS__METASPACE_SPLIT | TESS__METASPACE_ALWAYS;
    TESS_TRY(tess__pipe_set_unigram(p, N_OWN - 1));
    tess__fill_special(t, o, find, p);
    for (int32_t i = 0; i < N_OWN; i++) {
        TESS_TRY(add_token(p, (const char *)p->vocab.pieces[i].data, i, false, false));
    }
    TESS_TRY(add_token(p, "<mask>", (int32_t)p->vocab.n - 1, false, false));
    t->prefix[t->n_prefix++] = 0;
    t->suffix[t->n_suffix++] = 2;
    return tess__pipe_finish(p, t, "unigram");
}

tess_status tess__xlmr_open(tess_tokenizer *t, const tess__open_options *o)
{
    tess__pipe *p = begin(o);
    return finish(p, t, p != NULL ? build_xlmr(p, t, o) : TESS_NOMEM);
}
