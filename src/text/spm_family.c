/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece models as Hugging Face's classes use them, which is not as SentencePiece does:
 * XLMRobertaTokenizer takes the pieces and rules out of the file, renumbers them and runs
 * `tokenizers`' own unigram; SiglipTokenizer keeps SentencePiece, but cleans the text and finds
 * special tokens before. */
#include "text/open.h"
#include "text/pipe_json.h"
#include "text/scratch.h"

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

/* SiglipTokenizer puts the space before the whole text itself, so that a stretch behind a special
 * token gets none; lest SentencePiece drop a leading space it encodes "<unk>" + stretch and cuts
 * off what "<unk>" alone gives. */
tess_status tess__siglip_word_encode(const tess__pipe *p, tess__run *r, const char *word, size_t n)
{
    tess__span_buf *text = &r->s->pipe.temp;
    size_t start = r->out->n_ids, n_cut = p->n_lead_ids;
    text->n_bytes = 0;
    TESS_TRY(tess__span_put(text, p->prefix.data, p->prefix.n_bytes));
    TESS_TRY(tess__span_put(text, word, n));
    size_t most = r->max_ids;
    r->max_ids = most < SIZE_MAX - n_cut ? most + n_cut : most;
    r->score = 0;
    r->after_unk = false;
    TESS_TRY(tess__spm_encode(&p->spm, r, text->data, text->n_bytes));
    r->max_ids = most;
    size_t n_made = r->out->n_ids - start;
    if (n_made >= n_cut) {
        memmove(r->out->ids + start, r->out->ids + start + n_cut,
                (n_made - n_cut) * sizeof(*r->out->ids));
        r->out->n_ids -= n_cut;
    }
    return TESS_OK;
}

static tess_status count_lead(tess__pipe *p)
{
    tess_tokenizer_scratch *s = tess_tokenizer_scratch_new();
    tess_ids ids = {0};
    tess__run r = {.s = s, .out = &ids, .max_ids = SIZE_MAX};
    tess_status st =
        s != NULL ? tess__spm_encode(&p->spm, &r, (const char *)p->prefix.data, p->prefix.n_bytes)
                  : TESS_NOMEM;
    st = st == TESS_OK && r.no_memory ? TESS_NOMEM : st;
    p->n_lead_ids = ids.n_ids;
    tess_ids_deinit(&ids);
    tess_tokenizer_scratch_free(s);
    return st;
}

static void add_siglip_steps(tess__pipe *p, bool lower)
{
    const tess_bytes space = {(const uint8_t *)TESS__SPACE, TESS__SPACE_BYTES};
    tess__step *plain = tess__pipe_add_normal(p, tess__normal_replace, "Replace");
    tess__step *clean = tess__pipe_add_normal(p, tess__normal_siglip, "Siglip");
    tess__step *prefix = tess__pipe_add_split(p, tess__split_prefix_first, "PrefixFirst");
    plain->from = prefix->from = space;
    plain->to = (tess_bytes){(const uint8_t *)" ", 1};
    clean->flags = lower ? TESS__SIGLIP_LOWER : 0;
    p->spm.norm.add_dummy_prefix = false;
}

static tess_status build_siglip(tess__pipe *p, tess_tokenizer *t, const tess__open_options *o)
{
    bool lower;
    TESS_TRY(tess__spm_init(&p->spm, t->files[0].bytes, t->files[0].n_bytes));
    p->encode = tess__siglip_word_encode;
    TESS_TRY(tess__json_flag(o->config, "do_lower_case", true, &lower));
    add_siglip_steps(p, lower);
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
    p->prefix = tess__pipe_copy(p, unk, strlen(unk));
    TESS_TRY(p->prefix.data != NULL ? count_lead(p) : TESS_NOMEM);
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
