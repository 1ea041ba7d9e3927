/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding around a model kind: limits, working memory, begin and end ids, unknown pieces.
 *
 * Ids go straight into the caller's array.  The array running full (at max_ids) and memory running
 * out are flags of the run that the searches look at, so emitting an id needs no error path. */
#include "text/spm.h"

#define MAX_TEXT_BYTES ((size_t)64 << 20)

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
    tess_free(s->text.data);
    tess_free(s->best);
    tess_free(s->symbols);
    tess_free(s->heap);
    tess_free(s->spans);
    tess_free(s->ends);
    tess_free(s->split);
}

void tess_tokenizer_scratch_free(tess_tokenizer_scratch *s)
{
    if (s != NULL) {
        scratch_deinit(s);
        tess_free(s);
    }
}

static void add_id(tess__run *r, int32_t id)
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

void tess__run_emit(const tess_tokenizer *t, tess__run *r, int32_t id, const char *text,
                    size_t n_bytes)
{
    bool unknown = id == t->model.unk_id;
    if (unknown && t->model.byte_fallback) {
        for (size_t i = 0; i < n_bytes; i++) {
            add_id(r, t->model.byte_ids[(uint8_t)text[i]]);
        }
    } else if (!unknown || !r->after_unk) {
        add_id(r, id);
    }
    r->after_unk = unknown;
}

static tess_status check_options(const tess_tokenizer *t, const tess_encode_options *o,
                                 size_t n_bytes)
{
    if (n_bytes > MAX_TEXT_BYTES) {
        return TESS_FAIL(TESS_INVALID, "a text of %zu bytes, the limit is %zu", n_bytes,
                         MAX_TEXT_BYTES);
    }
    if ((o->add_bos && t->bos_id < 0) || (o->add_eos && t->eos_id < 0)) {
        return TESS_FAIL(TESS_INVALID, "the tokenizer has no %s id",
                         o->add_bos && t->bos_id < 0 ? "begin-of-sentence" : "end-of-sentence");
    }
    if (o->max_ids != 0 && o->max_ids < (size_t)o->add_bos + o->add_eos) {
        return TESS_FAIL(TESS_INVALID, "max_ids %zu has no room for the begin and end ids",
                         o->max_ids);
    }
    return TESS_OK;
}

static tess_status encode(const tess_tokenizer *t, tess__run *r, const char *text, size_t n_bytes,
                          const tess_encode_options *o)
{
    if (o->add_bos) {
        add_id(r, t->bos_id);
    }
    TESS_TRY(tess__spm_norm_run(&t->norm, text, n_bytes, &r->s->text));
    TESS_TRY(t->encode(t, r, r->s->text.data, r->s->text.n_bytes));
    if (o->add_eos && !r->no_memory) {
        r->full = false;
        r->max_ids = SIZE_MAX;
        add_id(r, t->eos_id);
    }
    return r->no_memory ? TESS_NOMEM : TESS_OK;
}

tess_status tess_tokenizer_encode(const tess_tokenizer *t, tess_ids *out, const char *text,
                                  size_t n_bytes, const tess_encode_options *opts)
{
    static const tess_encode_options defaults = {0};
    const tess_encode_options *o = opts != NULL ? opts : &defaults;
    TESS_TRY(check_options(t, o, n_bytes));
    tess_tokenizer_scratch own = {0};
    tess__run r = {.s = o->scratch != NULL ? o->scratch : &own, .out = out, .max_ids = SIZE_MAX};
    if (o->max_ids != 0 && o->max_ids - o->add_eos <= SIZE_MAX - out->n_ids) {
        r.max_ids = out->n_ids + o->max_ids - o->add_eos;
    }
    size_t n_before = out->n_ids;
    tess_status st = encode(t, &r, text, n_bytes, o);
    scratch_deinit(&own);
    if (st != TESS_OK) {
        out->n_ids = n_before;
    }
    return st;
}
