/* SPDX-License-Identifier: Apache-2.0 */
/* From a description to a tokenizer: tables built, ids checked, the fingerprint taken. */
#include "text/open.h"
#include "text/pipe.h"

#include <stdio.h>
#include <string.h>

/* ---- special tokens --------------------------------------------------------------------- */

typedef struct special_name {
    tess__special which;
    const char *key;
    const char *known[5]; /* in the families that are read here, the first one found counts */
} special_name;
static const special_name special_names[] = {
    {TESS__UNK, "unk_token", {"[UNK]", "<unk>"}},
    {TESS__BOS, "bos_token", {"<s>", "<bos>", "<|startoftext|>", "<start_of_text>"}},
    {TESS__EOS, "eos_token", {"</s>", "<eos>", "<|endoftext|>", "<end_of_text>"}},
    {TESS__PAD, "pad_token", {"[PAD]", "<pad>"}},
    {TESS__CLS, "cls_token", {"[CLS]", "<s>"}},
    {TESS__SEP, "sep_token", {"[SEP]", "</s>"}},
    {TESS__MASK, "mask_token", {"[MASK]", "<mask>"}},
};

/* A string, or an object with "content". */
static const char *content(const tess_json *v)
{
    const char *s = tess_json_string(v, NULL);
    return s != NULL ? s : tess_json_string(tess_json_get(v, "content"), NULL);
}

const char *tess__config_token(const tess__open_options *o, const char *key)
{
    const char *s = content(tess_json_get(o->config, key));
    return s != NULL ? s : content(tess_json_get(o->special_map, key));
}

void tess__fill_special(tess_tokenizer *t, const tess__open_options *o,
                        int32_t (*find)(const void *self, const char *piece, size_t n_bytes),
                        const void *self)
{
    for (int64_t i = 0; i < TESS_COUNT(special_names); i++) {
        const special_name *s = &special_names[i];
        const char *said = tess__config_token(o, s->key);
        int32_t id = said != NULL ? find(self, said, strlen(said)) : -1;
        for (int k = 0; said == NULL && id < 0 && k < 5 && s->known[k] != NULL; k++) {
            id = find(self, s->known[k], strlen(s->known[k]));
        }
        if (t->special[s->which] < 0) {
            t->special[s->which] = id;
        }
    }
}

tess_status tess__pipe_add_specials(tess__pipe *p, const tess_tokenizer *t)
{
    for (int i = 0; i < TESS__SPECIALS; i++) {
        int32_t id = t->special[i];
        bool again = id < 0;
        for (int k = 0; k < i; k++) {
            again = again || t->special[k] == id;
        }
        if (!again) {
            tess__added a = {.text = p->vocab.pieces[id], .id = id, .special = true};
            TESS_TRY(tess__pipe_add_token(p, a));
        }
    }
    return TESS_OK;
}

/* ---- checking --------------------------------------------------------------------------- */

static void find_bytes(tess__pipe *p)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        (void)snprintf(name, sizeof(name), "<0x%02X>", b);
        p->byte_ids[b] = tess__vocab_find(&p->vocab, name, 6);
    }
}

/* An added token stands in a hole, behind the vocabulary, or on its own piece. */
static tess_status check_added(tess__pipe *p, int32_t *n_vocab)
{
    for (size_t i = 0; i < p->n_added; i++) {
        const tess__added *a = &p->added[i];
        const tess_bytes *piece =
            (size_t)a->id < p->vocab.n ? &p->vocab.pieces[a->id] : &(tess_bytes){0};
        int32_t known = tess__vocab_find(&p->vocab, (const char *)a->text.data, a->text.n_bytes);
        if ((known >= 0 && known != a->id) || (known < 0 && piece->data != NULL)) {
            return TESS_FAIL(TESS_FORMAT,
                             "the added token \"%.40s\" has id %d, which the vocabulary gives to "
                             "\"%.40s\"; expected %d",
                             (const char *)a->text.data, (int)a->id,
                             piece->data != NULL ? (const char *)piece->data : "nothing",
                             (int)known);
        }
        if (a->id >= *n_vocab) {
            *n_vocab = a->id + 1;
        }
    }
    return TESS_OK;
}

/* ---- fingerprint ------------------------------------------------------------------------ */

static void hash_piece(tess_hash128_state *h, tess_bytes b)
{
    tess__hash_bytes(h, b.data, b.n_bytes);
}

static void hash_steps(tess_hash128_state *h, const tess__step *steps, size_t n)
{
    tess__hash_u32(h, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        tess__hash_bytes(h, steps[i].type, strlen(steps[i].type));
        hash_piece(h, steps[i].from);
        hash_piece(h, steps[i].to);
        tess__hash_u32(h, steps[i].flags);
        if (steps[i].charsmap != NULL) {
            tess__hash_bytes(h, steps[i].charsmap->units, steps[i].charsmap->n_units * 4);
            tess__hash_bytes(h, steps[i].charsmap->out, steps[i].charsmap->out_bytes);
        }
    }
}

static void hash_added(tess_hash128_state *h, const tess__pipe *p)
{
    tess__hash_u32(h, (uint32_t)p->n_added);
    for (size_t i = 0; i < p->n_added; i++) {
        const tess__added *a = &p->added[i];
        hash_piece(h, a->text);
        tess__hash_u32(h, (uint32_t)a->id);
        tess__hash_u32(
            h, (uint32_t)(a->single_word | a->lstrip << 1 | a->rstrip << 2 | a->normalized << 3));
    }
}

static void hash_model(tess_hash128_state *h, const tess__pipe *p)
{
    hash_piece(h, p->prefix);
    hash_piece(h, p->suffix);
    tess__hash_u32(h, (uint32_t)p->unk_id);
    tess__hash_u32(h, (uint32_t)p->max_word_chars);
    tess__hash_u32(h, (uint32_t)(p->fuse_unk | p->byte_fallback << 1));
    tess__hash_u32(h, (uint32_t)p->whole_from);
    tess__hash_u32(h, (uint32_t)p->vocab.n);
    for (size_t i = 0; i < p->vocab.n; i++) {
        hash_piece(h, p->vocab.pieces[i]);
    }
    if (p->scores != NULL) {
        tess_hash128_add(h, p->scores, p->vocab.n * sizeof(*p->scores));
    }
    /* A table's order is its keys', so equal tables hash equally. */
    tess__hash_u32(h, (uint32_t)p->pairs.n);
    uint64_t sum = 0;
    for (size_t i = 0; i < p->pairs.n_slots; i++) {
        if (p->pairs.slots[i].left >= 0) {
            sum += tess_hash64(&p->pairs.slots[i], sizeof(p->pairs.slots[i]), 0);
        }
    }
    tess_hash128_add(h, &sum, sizeof(sum));
}

static tess_status hash_all(const tess__pipe *p, tess_tokenizer *t)
{
    tess_hash128_state *h = tess_hash128_new();
    if (h == NULL) {
        return TESS_NOMEM;
    }
    tess__hash_bytes(h, t->name, strlen(t->name));
    tess__hash_u32(h, (uint32_t)p->clean);
    hash_steps(h, p->normal, p->n_normal);
    hash_steps(h, p->split, p->n_split);
    hash_added(h, p);
    hash_model(h, p);
    if (tess__pipe_is_spm(p)) {
        tess__spm_hash(&p->spm, h);
    }
    tess__hash_bytes(h, t->prefix, t->n_prefix * sizeof(t->prefix[0]));
    tess__hash_bytes(h, t->suffix, t->n_suffix * sizeof(t->suffix[0]));
    tess__hash_bytes(h, t->special, sizeof(t->special));
    tess_hash128_finish(h, t->hash);
    return TESS_OK;
}

tess_status tess__pipe_finish(tess__pipe *p, tess_tokenizer *t, const char *name)
{
    t->name = name;
    t->kind = &tess__pipe_kind;
    t->self = p;
    t->n_vocab = tess__pipe_is_spm(p) ? (int32_t)p->spm.model.n_pieces : (int32_t)p->vocab.n;
    if (!tess__pipe_is_spm(p)) {
        find_bytes(p);
        TESS_TRY(check_added(p, &t->n_vocab));
    }
    TESS_TRY(tess__added_build(p));
    for (size_t i = 0; i < t->n_prefix + t->n_suffix; i++) {
        int32_t id = i < t->n_prefix ? t->prefix[i] : t->suffix[i - t->n_prefix];
        if (id < 0 || id >= t->n_vocab) {
            return TESS_FAIL(TESS_FORMAT, "the template's id %d: expected 0 to %d", (int)id,
                             (int)t->n_vocab - 1);
        }
    }
    return hash_all(p, t);
}
