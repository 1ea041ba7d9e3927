/* SPDX-License-Identifier: Apache-2.0 */
/* A model: config, parameters, tokenizer; and the directory that holds it. */
#include "fusion/lora.h"
#include "fusion/model.h"
#include "fusion/sentence_model.h"

#include "fusion/foreign.h"
#include "fusion/layout.h"
#include "fusion/packs.h"

#include <string.h>

#define CONFIG_FILE  "open_clip_config.json"
#define WEIGHTS_FILE TESS_WEIGHTS_FILE

/* ---- parameters ---------------------------------------------------------------------------- */

tess_value tess__picture_tower(tess_graph *g, const tess_model *m, tess_vit_pictures pictures,
                               bool recompute)
{
    const tess_model_config *c = &m->config;
    tess_vit_options o = {.embed_dim = c->embed_dim, .dtype = m->dtype, .recompute = recompute};
    for (int i = 0; i < 3; i++) {
        o.mean[i] = (float)c->preprocess.mean[i];
        o.std[i] = (float)c->preprocess.std[i];
        o.fill[i] = c->preprocess.fill[i];
    }
    tess__lora_apply(g, m);
    tess_scope_push(g, "visual");
    tess_value z = tess__vit(g, &c->vision, pictures, &o);
    tess_scope_pop(g);
    return tess_l2norm(g, z);
}

tess_value tess__caption_tower(tess_graph *g, const tess_model *m, tess_text_input in,
                               bool recompute)
{
    tess__lora_apply(g, m);
    return tess_l2norm(
        g, tess__text_tower(g, &m->config.text, in, m->config.embed_dim, m->dtype, recompute));
}

void tess__model_leaves(tess_graph *g, const tess_model *m)
{
    const tess_model_config *c = &m->config;
    int64_t s = c->vision.image_size;
    if (!c->sentence) {
        tess__picture_tower(g, m, tess__finished_pictures(g, 1, s), false);
    }
    tess__caption_tower(g, m,
                        (tess_text_input){
                            .tokens = tess_input(g, "tokens", TESS_I32, TESS_SHAPE_OF(1)),
                            .positions = tess_input(g, "positions", TESS_I32, TESS_SHAPE_OF(1)),
                            .offsets = tess_input(g, "offsets", TESS_I32, TESS_SHAPE_OF(2)),
                        },
                        false);
    if (c->sentence) {
        return;
    }
    tess_state(g, "param", "logit_scale", TESS_F32, tess_shape_make(0, NULL));
    if (c->has_logit_bias) {
        tess_state(g, "param", "logit_bias", TESS_F32, tess_shape_make(0, NULL));
    }
    if (c->objectives.text_text.weight > 0) {
        tess_state(g, "param", "logit_scale_text", TESS_F32, tess_shape_make(0, NULL));
    }
}

tess_status tess__model_make_store(tess_model *m)
{
    tess_graph *g = tess_graph_new();
    m->store = tess_store_new();
    if (!g || !m->store) {
        tess_graph_free(g);
        return TESS_NOMEM;
    }
    tess__model_leaves(g, m);
    tess_status st = tess_graph_check(g);
    st = st ? st : tess_store_add_graph(m->store, g, "param");
    tess_graph_free(g);
    tess_store_lead(m->store, tess__is_hidden);
    return st;
}

static tess_dtype choose_dtype(tess_precision precision)
{
    bool fast_bf16 = tess_isa_get() >= TESS_ISA_AVX512BF16;
    bool chosen = precision == TESS_PRECISION_AUTO || precision == TESS_PRECISION_INT8;
    bool asked = precision == TESS_PRECISION_BF16 || precision == TESS_PRECISION_FP8;
    bool bf16 = asked || (chosen && fast_bf16);
    return bf16 ? TESS_BF16 : TESS_F32;
}

/* ---- life ---------------------------------------------------------------------------------- */

static tess_status check_tokenizer(const tess_model *m, const char *path)
{
    const tess_text_config *c = &m->config.text;
    int32_t n = tess_tokenizer_n_vocab(m->tokenizer), eos = tess_tokenizer_eos_id(m->tokenizer);
    if (n != c->vocab_size) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: %d pieces, but text_cfg.vocab_size is %lld: they belong to different "
                         "models",
                         path, n, (long long)c->vocab_size);
    }
    if (eos != c->eos_id) {
        return TESS_FAIL(TESS_INVALID, "%s: its end id is %d, but text_cfg.eos_id is %lld", path,
                         eos, (long long)c->eos_id);
    }
    return TESS_OK;
}

tess_status tess__model_alloc(tess_precision precision, tess_model **out)
{
    tess_model *m = *out = tess_alloc(sizeof *m);
    if (!m) {
        return TESS_NOMEM;
    }
    m->dtype = choose_dtype(precision);
    m->workspace = tess_workspace_new();
    m->resizer = tess_resizer_new();
    return m->workspace && m->resizer ? TESS_OK : TESS_NOMEM;
}

/* The tokenizer at `path` (NULL: beside the config) for the config that was read. */
static tess_status open_tokenizer(tess_model *m, const char *config_path, const char *path)
{
    const char *slash = strrchr(config_path, '/');
    int n_dir = slash ? (int)(slash - config_path) + 1 : 0;
    bool clean = tess__text_is_clean(&m->config.text);
    char *beside = tess_format("%.*s%s", n_dir, config_path,
                               clean   ? m->config.text.tokenizer
                               : n_dir ? ""
                                       : ".");
    if (!beside) {
        return TESS_NOMEM;
    }
    path = path ? path : beside;
    tess_status st;
    if (clean) {
        st = tess_tokenizer_open(path, &m->tokenizer);
        st = st ? st : check_tokenizer(m, path);
    } else {
        st = tess__foreign_tokenizer(m, path);
    }
    tess_free(beside);
    return st;
}

static tess_status make(const char *config_path, const char *tokenizer_path,
                        tess_precision precision, tess_model **out)
{
    TESS_TRY(tess__model_alloc(precision, out));
    tess_model *m = *out;
    TESS_TRY(tess__model_config_load(config_path, &m->arena, &m->config));
    TESS_TRY(open_tokenizer(m, config_path, tokenizer_path));
    return tess__model_make_store(m);
}

tess_status tess_model_new_paged(const char *config_path, const char *tokenizer_path, uint64_t seed,
                                 tess_precision precision, tess_pager *pager, tess_model **out)
{
    *out = NULL;
    tess_model *m = NULL;
    tess_status st = make(config_path, tokenizer_path, precision, &m);
    if (st == TESS_OK) {
        tess_store_set_pager(m->store, pager);
        st = tess_store_allocate(m->store);
    }
    st = st ? st : tess__model_init_params(m, seed);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

tess_status tess_model_new(const char *config_path, const char *tokenizer_path, uint64_t seed,
                           tess_precision precision, tess_model **out)
{
    return tess_model_new_paged(config_path, tokenizer_path, seed, precision, NULL, out);
}

void tess_model_free(tess_model *m)
{
    if (!m) {
        return;
    }
    tess__model_free_plans(m);
    tess__lora_free(m->lora);
    tess_workspace_free(m->workspace);
    tess_store_free(m->store);
    tess__packs_free(m->packs);
    tess_tensors_free(m->mapped);
    tess_tokenizer_close(m->tokenizer);
    tess_resizer_free(m->resizer);
    tess_raw_pictures_free(m->raw);
    tess_picture_deinit(&m->picture);
    tess_ids_deinit(&m->ids);
    tess__layout_types_deinit(&m->types);
    tess_free(m->tokens);
    tess_free(m->positions);
    tess_free(m->offsets);
    tess_free(m->pixels);
    tess_arena_deinit(&m->arena);
    tess_free(m);
}

/* ---- fingerprint --------------------------------------------------------------------------- */

static tess_status hash_group(const tess_model *m, const char *group, tess_hash128_state *s)
{
    int64_t n = tess_store_n_entries(m->store, group);
    for (int64_t i = 0; i < n; i++) {
        float *data;
        tess_shape shape;
        const char *name = tess_store_entry(m->store, group, i, &data, &shape);
        tess_hash128_add(s, name, strlen(name) + 1);
        tess_hash128_add(s, shape.dim, (size_t)shape.rank * sizeof shape.dim[0]);
        TESS_TRY(tess_store_gather(m->store, group, name));
        tess_hash128_add(s, data, (size_t)tess_shape_count(&shape) * sizeof *data);
        tess_store_release(m->store, group, name, false);
    }
    return TESS_OK;
}

static tess_status hash_weights(const tess_model *m, char out[33])
{
    if (m->narrow) {
        return TESS_FAIL(TESS_INVALID, "the model has given up its f32 weights: open it again");
    }
    tess_hash128_state *s = tess_hash128_new();
    if (!s) {
        return TESS_NOMEM;
    }
    tess_status st = hash_group(m, "param", s);
    st = st || !m->lora ? st : hash_group(m, "lora", s);
    tess_hash128_finish(s, out);
    return st;
}

/* What the weights alone do not say: heads, activations, pooling, masks, pixels. */
static void describe_towers(const tess_model *m, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_json_begin_array(&w);
    if (!m->config.sentence) {
        tess__vit_config_write(&m->config.vision, &w);
    }
    tess__text_config_write(&m->config.text, &w);
    tess_json_end_array(&w);
    if (!m->config.sentence) {
        tess_preprocess_write(&m->config.preprocess, out);
    }
}

tess_status tess_model_fingerprint(tess_model *m, char out[33])
{
    if (m->fingerprint[0]) {
        memcpy(out, m->fingerprint, sizeof m->fingerprint);
        return TESS_OK;
    }
    char weights[33];
    TESS_TRY(hash_weights(m, weights));
    tess_buf towers = {0};
    describe_towers(m, &towers);
    tess_hash128_state *s = tess_hash128_new();
    tess_status st = s ? tess_buf_check(&towers) : TESS_NOMEM;
    if (s) {
        const char *tokens = tess_tokenizer_hash(m->tokenizer);
        tess_hash128_add(s, weights, 32);
        tess_hash128_add(s, towers.data ? towers.data : "", towers.n_bytes);
        tess_hash128_add(s, tokens, strlen(tokens));
        tess_hash128_finish(s, out);
    }
    tess_buf_deinit(&towers);
    return st;
}

/* ---- directory ----------------------------------------------------------------------------- */

static tess_status load_weights(tess_model *m, const char *path)
{
    tess_tensors *t = NULL;
    TESS_TRY(tess_tensors_open(path, &t));
    tess_layout layout = tess__layout_openclip(false);
    tess_status st = tess__layout_load(&layout, m->store, "param", t, NULL);
    tess_tensors_free(t);
    return st ? tess_error_prefix(st, "%s", path) : TESS_OK;
}

tess_status tess__model_open_config(const char *dir, tess_precision precision, tess_model **out)
{
    *out = NULL;
    bool is_sentence;
    TESS_TRY(tess__sentence_is_dir(dir, &is_sentence));
    if (is_sentence) {
        return tess__sentence_open_config(dir, precision, out);
    }
    const tess_family *family;
    TESS_TRY(tess__family_find(dir, &family));
    if (family) {
        return tess__foreign_open_config(family, dir, precision, out);
    }
    char *config = tess_format("%s/" CONFIG_FILE, dir);
    tess_model *m = NULL;
    tess_status st = config ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        st = tess_path_exists(config) ? make(config, NULL, precision, &m) : tess__family_none(dir);
    }
    tess_free(config);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

static tess_status open_own(const char *dir, tess_precision precision, tess_pager *pager,
                            tess_model **out)
{
    tess_model *m = NULL;
    tess_arena paths = {0};
    const char *weights = tess_arena_format(&paths, "%s/" WEIGHTS_FILE, dir);
    tess_status st = weights ? TESS_OK : TESS_NOMEM;
    st = st ? st : tess__model_open_config(dir, precision, &m);
    if (st == TESS_OK) {
        tess_store_set_pager(m->store, pager);
        st = tess_store_allocate(m->store);
    }
    st = st ? st : load_weights(m, weights);
    st = st ? st : tess__model_check_summary(m, dir);
    tess_arena_deinit(&paths);
    if (st) {
        tess_model_free(m);
        return st;
    }
    *out = m;
    return TESS_OK;
}

tess_status tess_model_open_paged(const char *dir, tess_precision precision, tess_pager *pager,
                                  tess_model **out)
{
    *out = NULL;
    if (strncmp(dir, "local-dir:", 10) == 0) {
        dir += 10;
    }
    bool is_sentence;
    TESS_TRY(tess__sentence_is_dir(dir, &is_sentence));
    const tess_family *family = NULL;
    TESS_TRY(is_sentence ? TESS_OK : tess__family_find(dir, &family));
    if (pager && (is_sentence || family)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: another program's model cannot be offloaded as it lies: make it a "
                         "model directory of Tessera first (tessera convert)",
                         dir);
    }
    return is_sentence ? tess__sentence_open(dir, precision, out)
           : family    ? tess__foreign_open(family, dir, precision, out)
                       : open_own(dir, precision, pager, out);
}

tess_status tess_model_open(const char *dir, tess_precision precision, tess_model **out)
{
    return tess_model_open_paged(dir, precision, NULL, out);
}

/* ---- looking ------------------------------------------------------------------------------- */

int64_t tess_model_embed_dim(const tess_model *m)
{
    return m->config.embed_dim;
}

int64_t tess_model_image_size(const tess_model *m)
{
    return m->config.vision.image_size;
}

int64_t tess_model_context_length(const tess_model *m)
{
    return m->config.text.context_length;
}

int64_t tess_model_n_params(const tess_model *m)
{
    int64_t n = tess_store_n_entries(m->store, "param"), sum = 0;
    for (int64_t i = 0; i < n; i++) {
        float *data;
        tess_shape shape;
        tess_store_entry(m->store, "param", i, &data, &shape);
        sum += tess_shape_count(&shape);
    }
    return sum;
}

const tess_preprocess *tess_model_preprocess(const tess_model *m)
{
    return &m->config.preprocess;
}

const tess_tokenizer *tess_model_tokenizer(const tess_model *m)
{
    return m->tokenizer;
}

bool tess_model_has_own_texts(const tess_model *m)
{
    return !tess__text_is_clean(&m->config.text);
}

void tess_model_use(tess_model *m, const tess_device *device)
{
    m->device = device;
}

bool tess_model_resizes(const tess_model *m)
{
    return tess__model_device(m) != tess_device_cpu();
}

const tess_device *tess__model_device(const tess_model *m)
{
    return m->device ? m->device : tess_device_cpu();
}

static const char *const trained_groups[] = {"param", "lora", "m", "v"};

tess_status tess_model_fetch(tess_model *m)
{
    for (int64_t i = 0; i < TESS_COUNT(trained_groups); i++) {
        TESS_TRY(tess_store_download(m->store, trained_groups[i], ""));
    }
    return TESS_OK;
}

tess_status tess_model_send(tess_model *m)
{
    for (int64_t i = 0; i < TESS_COUNT(trained_groups); i++) {
        TESS_TRY(tess_store_upload(m->store, trained_groups[i], ""));
    }
    return TESS_OK;
}

tess_store *tess_model_store(const tess_model *m)
{
    return m->store;
}

const char *tess_model_mode(const tess_model *m)
{
    return m->packs ? tess__pack_mode_name(tess__packs_mode(m->packs)) : tess_dtype_name(m->dtype);
}

tess_dtype tess_model_dtype(const tess_model *m)
{
    return m->dtype;
}

tess_objectives tess_model_objectives(const tess_model *m)
{
    return m->config.objectives;
}

void tess_model_write_config(const tess_model *m, tess_buf *out)
{
    tess__model_config_write(&m->config, out);
}
