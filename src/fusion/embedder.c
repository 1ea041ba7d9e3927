/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model that only embeds: from its packed file in milliseconds, or from its weights.
 *
 * A packed file counts when its stamp is that of the directory.  A directory that was copied has
 * other times: then the weights are read once more and their fingerprint decides. */
#include "fusion/packs.h"

#include <math.h>
#include <string.h>

tess_status tess__model_set_mode(tess_model *m, const tess_pack_mode *mode)
{
    tess_packs *packs = tess__packs_new(m->store, *mode);
    if (!packs) {
        return TESS_NOMEM;
    }
    tess__model_free_plans(m);
    tess__packs_free(m->packs);
    m->packs = packs;
    const bool fast_bf16 = tess_isa_get() >= TESS_ISA_AVX512BF16;
    m->dtype = mode->kind != TESS_F32 && fast_bf16 ? TESS_BF16 : TESS_F32;
    return TESS_OK;
}

/* ---- from the weights ---------------------------------------------------------------------- */

/* Whether every parameter is the file's own memory and the file holds nothing else. */
static bool all_mapped(const tess_model *m, const tess_tensors *t)
{
    const int64_t n = tess_store_n_entries(m->store, "param");
    for (int64_t i = 0; i < n; i++) {
        float *data;
        tess_shape shape;
        tess_store_entry(m->store, "param", i, &data, &shape);
        if (!data) {
            return false;
        }
    }
    return n == tess_tensors_count(t);
}

/* Vectors and tables are few and small: a number that is none shows at once.  Matrices show when
 * they are packed. */
static bool small_ones_finite(const tess_model *m)
{
    for (int64_t i = 0; i < tess_store_n_entries(m->store, "param"); i++) {
        float *data;
        tess_shape shape;
        tess_store_entry(m->store, "param", i, &data, &shape);
        for (int64_t k = 0; shape.rank <= 1 && k < tess_shape_count(&shape); k++) {
            if (!isfinite(data[k])) {
                return false;
            }
        }
    }
    return true;
}

static tess_status map_weights(tess_model *m, const char *dir, tess_tensors *t)
{
    TESS_TRY(tess_store_map(m->store, "param", t));
    if (!all_mapped(m, t) || !small_ones_finite(m)) {
        return TESS_FAIL(TESS_UNSUPPORTED, "the weights cannot be used where they lie");
    }
    return tess__model_check_summary(m, dir);
}

/* A native f32 checkpoint is used where it lies: nothing is copied, and of what is packed only the
 * tower that is asked.  Whatever does not fit is left to tess_model_open and its messages. */
static tess_model *open_mapped(const char *dir, tess_precision precision)
{
    tess_model *m = NULL;
    tess_tensors *t = NULL;
    char *path = tess_format("%s/" TESS_WEIGHTS_FILE, dir);
    tess_status st = path && tess_path_exists(path) ? TESS_OK : TESS_UNSUPPORTED;
    st = st ? st : tess__model_open_config(dir, precision, &m);
    st = st ? st : tess_tensors_open(path, &t);
    st = st ? st : map_weights(m, dir, t);
    tess_free(path);
    if (st) {
        tess_model_free(m);
        tess_tensors_free(t);
        return NULL;
    }
    m->mapped = t;
    return m;
}

static void tell_fallback(const char *dir, const tess_pack_report *r)
{
    for (int i = 0; i < r->n_candidates; i++) {
        const tess_pack_candidate *c = &r->candidates[i];
        const bool kept = i + 1 == r->n_candidates;
        char pictures[40] = "";
        if (r->n_pictures > 0) {
            snprintf(pictures, sizeof pictures, "%.5f (pictures), ", c->image_cosine);
        }
        tess_log(kept ? TESS_LOG_INFO : TESS_LOG_WARN,
                 "%s: %s: cosine to f32 at least %s%.5f (texts)%s", dir, c->mode, pictures,
                 c->text_cosine, kept ? "" : ": too far, trying the next");
    }
}

/* Without a packed file 8 bits are measured on the spot, on two pictures. */
static tess_status pack_in_memory(tess_model *m, const char *dir, tess_precision precision)
{
    if (precision == TESS_PRECISION_INT8) {
        tess_pack_report r;
        TESS_TRY(tess__pack_choose(m, precision, 2, &r));
        tell_fallback(dir, &r);
        return TESS_OK;
    }
    const tess_pack_mode mode = {m->dtype, TESS_SPARED_NONE};
    return tess__model_set_mode(m, &mode);
}

/* ---- from the packed file ------------------------------------------------------------------ */

static bool precision_fits(tess_precision asked, tess_pack_mode mode)
{
    const tess_precision have = mode.kind == TESS_I8     ? TESS_PRECISION_INT8
                                : mode.kind == TESS_BF16 ? TESS_PRECISION_BF16
                                                         : TESS_PRECISION_F32;
    return asked == TESS_PRECISION_AUTO || asked == have;
}

/* Gives the packs to a model without weights. */
static tess_status attach(tess_model *m, tess_packs *packs, const char *fingerprint)
{
    const tess_pack_mode mode = tess__packs_mode(packs);
    TESS_TRY(tess_store_map(m->store, "param", tess__packs_file(packs)));
    const bool fast_bf16 = tess_isa_get() >= TESS_ISA_AVX512BF16;
    m->dtype = mode.kind != TESS_F32 && fast_bf16 ? TESS_BF16 : TESS_F32;
    m->packs = packs;
    memcpy(m->fingerprint, fingerprint, sizeof m->fingerprint);
    return TESS_OK;
}

static tess_status open_packed(const char *dir, tess_packs *packs, const char *fingerprint,
                               tess_model **out)
{
    tess_model *m = NULL;
    tess_status st = tess__model_open_config(dir, TESS_PRECISION_AUTO, &m);
    st = st ? st : attach(m, packs, fingerprint);
    if (st) {
        tess_model_free(m);
        tess__packs_free(packs);
        return st;
    }
    *out = m;
    return TESS_OK;
}

/* What the weights themselves say, when the stamp says nothing. */
static tess_status fingerprint_of(const char *dir, char out[33])
{
    tess_model *m = NULL;
    tess_status st = tess_model_open(dir, TESS_PRECISION_F32, &m);
    st = st ? st : tess_model_fingerprint(m, out);
    tess_model_free(m);
    return st;
}

static tess_status find_packs(const char *dir, const char *path, tess_precision precision,
                              tess_pack_match *match, tess_packs **out)
{
    char *stamp = NULL, now[33];
    TESS_TRY(tess__pack_stamp(dir, &stamp));
    tess_status st = tess__pack_open(path, stamp, match, out);
    tess_free(stamp);
    if (st) {
        tess_log(TESS_LOG_WARN, "%s: not used; tessera pack makes it anew", tess_error());
        return TESS_OK;
    }
    bool usable = precision_fits(precision, tess__packs_mode(*out));
    if (usable && !match->stamped) {
        st = fingerprint_of(dir, now);
        usable = st == TESS_OK && strcmp(now, match->fingerprint) == 0;
        tess_log(TESS_LOG_WARN,
                 usable ? "%s: its files' times changed, their content did not; "
                          "tessera pack makes it open at once again"
                        : "%s: made from other weights: not used; tessera pack "
                          "makes it anew",
                 path);
    }
    if (!usable) {
        tess__packs_free(*out);
        *out = NULL;
    }
    return st;
}

tess_status tess_model_open_embedder(const char *dir, tess_precision precision, tess_model **out)
{
    *out = NULL;
    dir = strncmp(dir, "local-dir:", 10) == 0 ? dir + 10 : dir;
    char *path = tess_format("%s/" TESS_PACK_FILE, dir);
    tess_packs *packs = NULL;
    tess_pack_match match = {0};
    tess_status st = path ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && tess_path_exists(path)) {
        st = find_packs(dir, path, precision, &match, &packs);
    }
    tess_free(path);
    TESS_TRY(st);
    if (packs) {
        return open_packed(dir, packs, match.fingerprint, out);
    }
    *out = open_mapped(dir, precision);
    if (!*out) {
        TESS_TRY(tess_model_open(dir, precision, out));
    }
    st = pack_in_memory(*out, dir, precision);
    if (st) {
        tess_model_free(*out);
        *out = NULL;
    }
    return st;
}

/* ---- on a card ----------------------------------------------------------------------------- */

/* In bf16 each run would read the f32 matrices and write bf16 ones: more bytes than a run of few
 * pictures or texts moves otherwise. */
tess_status tess_model_embed_on(tess_model *m, const tess_device *device)
{
    if (m->packs) {
        return TESS_FAIL(TESS_INVALID,
                         "the model's weights are packed for the processor: open it with "
                         "tess_model_open to embed elsewhere");
    }
    tess_model_use(m, device);
    if (m->dtype != TESS_BF16 || m->narrow || tess__model_device(m) == tess_device_cpu()) {
        return TESS_OK;
    }
    TESS_TRY(tess_model_fingerprint(m, m->fingerprint));
    return tess__model_narrow(m);
}

/* ---- making the packed file ---------------------------------------------------------------- */

/* A ViT-L/14 takes a second a picture in f32. */
enum { PICTURES = 8 };

tess_status tess_model_pack(const char *dir, tess_precision precision, tess_pack_report *out)
{
    *out = (tess_pack_report){0};
    dir = strncmp(dir, "local-dir:", 10) == 0 ? dir + 10 : dir;
    char *path = tess_format("%s/" TESS_PACK_FILE, dir), *stamp = NULL;
    tess_model *m = NULL;
    tess_status st = path ? tess__pack_stamp(dir, &stamp) : TESS_NOMEM;
    st = st ? st : tess_model_open(dir, TESS_PRECISION_F32, &m);
    st = st ? st : tess__pack_choose(m, precision, PICTURES, out);
    st = st ? st : tess__pack_save(m, stamp, path);
    tess_model_free(m);
    tess_free(stamp);
    tess_free(path);
    return st;
}

tess_status tess_model_check_pack(const char *dir)
{
    dir = strncmp(dir, "local-dir:", 10) == 0 ? dir + 10 : dir;
    char *path = tess_format("%s/" TESS_PACK_FILE, dir), *stamp = NULL;
    tess_packs *packs = NULL;
    tess_pack_match match;
    char now[33];
    tess_status st = path ? tess__pack_stamp(dir, &stamp) : TESS_NOMEM;
    st = st ? st : tess__pack_open(path, stamp, &match, &packs);
    if (st == TESS_OK) {
        st = tess__pack_verify(packs);
        st = st ? st : fingerprint_of(dir, now);
        if (st == TESS_OK && strcmp(now, match.fingerprint) != 0) {
            st = TESS_FAIL(TESS_FORMAT, "made from other weights; run tessera pack again");
        }
        st = st ? tess_error_prefix(st, "%s", path) : TESS_OK;
    }
    tess__packs_free(packs);
    tess_free(stamp);
    tess_free(path);
    return st;
}
