/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding around a kind of tokenizer: limits, working memory, begin and end ids.
 *
 * Ids go straight into the caller's array.  The array running full (at max_ids) and memory running
 * out are flags of the run that the searches look at, so emitting an id needs no error path. */
#include "text/scratch.h"

void tess_ids_deinit(tess_ids *ids)
{
    tess_free(ids->ids);
    *ids = (tess_ids){0};
}

tess_tokenizer_scratch *tess_tokenizer_scratch_new(void)
{
    return tess_alloc(sizeof(tess_tokenizer_scratch));
}

static void scratch_deinit(tess_tokenizer_scratch *s)
{
    tess__spm_scratch_deinit(&s->spm);
    tess__pipe_scratch_deinit(&s->pipe);
}

void tess_tokenizer_scratch_free(tess_tokenizer_scratch *s)
{
    if (s != NULL) {
        scratch_deinit(s);
        tess_free(s);
    }
}

void tess__run_add(tess__run *r, int32_t id)
{
    tess_ids *out = r->out;
    if (r->full || out->n_ids == r->max_ids) {
        r->full = true;
    } else if (out->n_ids == out->cap_ids &&
               tess_grow(&out->ids, &out->cap_ids, out->n_ids + 16, sizeof(*out->ids)) != TESS_OK) {
        r->full = r->no_memory = true;
    } else {
        out->ids[out->n_ids++] = id;
    }
}

/* What stands around a text. */
typedef struct frame {
    const int32_t *prefix, *suffix;
    size_t n_prefix, n_suffix;
    bool suffix_once;
} frame;

static frame frame_of(const tess_tokenizer *t, const tess_encode_options *o)
{
    if (o->add_special) {
        return (frame){t->prefix, t->suffix, t->n_prefix, t->n_suffix, t->suffix_once};
    }
    return (frame){&t->special[TESS__BOS], &t->special[TESS__EOS], o->add_bos, o->add_eos, false};
}

static tess_status check_options(const tess_tokenizer *t, const tess_encode_options *o,
                                 const frame *f, size_t n_bytes)
{
    if (n_bytes > t->kind->max_text_bytes) {
        return TESS_FAIL(TESS_INVALID, "a text of %zu bytes, the limit is %zu", n_bytes,
                         t->kind->max_text_bytes);
    }
    if (o->add_special && (o->add_bos || o->add_eos)) {
        return TESS_FAIL(TESS_INVALID, "add_special and add_bos or add_eos: expected one of them");
    }
    bool no_bos = o->add_bos && t->special[TESS__BOS] < 0;
    if (no_bos || (o->add_eos && t->special[TESS__EOS] < 0)) {
        return TESS_FAIL(TESS_INVALID, "the tokenizer has no %s id",
                         no_bos ? "begin-of-sentence" : "end-of-sentence");
    }
    if (o->max_ids != 0 && o->max_ids < f->n_prefix + f->n_suffix) {
        return TESS_FAIL(TESS_INVALID, "max_ids %zu has no room for the begin and end ids",
                         o->max_ids);
    }
    return TESS_OK;
}

static void add_ids(tess__run *r, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tess__run_add(r, ids[i]);
    }
}

static tess_status encode(const tess_tokenizer *t, tess__run *r, const char *text, size_t n_bytes,
                          const frame *f)
{
    size_t start = r->out->n_ids;
    add_ids(r, f->prefix, f->n_prefix);
    TESS_TRY(t->kind->encode(t->self, r, text, n_bytes));
    if (!r->no_memory) {
        bool there = f->suffix_once && !r->full && r->out->n_ids > start &&
                     r->out->ids[r->out->n_ids - 1] == f->suffix[0];
        r->full = false;
        r->max_ids = SIZE_MAX;
        add_ids(r, f->suffix, there ? 0 : f->n_suffix);
    }
    return r->no_memory ? TESS_NOMEM : TESS_OK;
}

tess_status tess_tokenizer_encode(const tess_tokenizer *t, tess_ids *out, const char *text,
                                  size_t n_bytes, const tess_encode_options *opts)
{
    static const tess_encode_options defaults = {0};
    const tess_encode_options *o = opts != NULL ? opts : &defaults;
    frame f = frame_of(t, o);
    TESS_TRY(check_options(t, o, &f, n_bytes));
    tess_tokenizer_scratch own = {0};
    tess__run r = {.s = o->scratch != NULL ? o->scratch : &own, .out = out, .max_ids = SIZE_MAX};
    if (o->max_ids != 0 && o->max_ids - f.n_suffix <= SIZE_MAX - out->n_ids) {
        r.max_ids = out->n_ids + o->max_ids - f.n_suffix;
    }
    size_t n_before = out->n_ids;
    tess_status st = encode(t, &r, text, n_bytes, &f);
    scratch_deinit(&own);
    if (st != TESS_OK) {
        out->n_ids = n_before;
    }
    return st;
}

tess_status tess_tokenizer_decode(const tess_tokenizer *t, tess_buf *out, const int32_t *ids,
                                  size_t n_ids)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= t->n_vocab) {
            return TESS_FAIL(TESS_INVALID, "id %d at position %zu: expected 0 to %d", (int)ids[i],
                             i, (int)t->n_vocab - 1);
        }
    }
    t->kind->decode(t->self, out, ids, n_ids);
    return tess_buf_check(out);
}
