/* SPDX-License-Identifier: Apache-2.0 */
/* Text towers of transformers inside OpenCLIP's models: the encoder of BERT with OpenCLIP's poolers
 * and projections on the pooled row, which are heads here.
 *
 * OpenCLIP's max_pooler puts minus infinity where the text is instead of where it is not, and fails
 * on the type of its mask before that; no model can have been trained with it. */
#include "fusion/hf_text.h"

#include <string.h>

/* ---- well-known names ---------------------------------------------------------------------- */

#define SIZE_BASE  .hidden_size = 768, .layers = 12, .heads = 12, .intermediate_size = 3072
#define SIZE_LARGE .hidden_size = 1024, .layers = 24, .heads = 16, .intermediate_size = 4096
#define COMMON     .act = "gelu", .position_type = "absolute"
#define BERT       COMMON, .model_type = "bert", .positions = 512, .types = 2, .eps = 1e-12, .pad = 0
#define ROBERTA(type)                                                                              \
    COMMON, .model_type = (type), .positions = 514, .types = 1, .eps = 1e-5, .pad = 1

static const struct {
    const char *name;
    tess_bert_keys keys;
} known[] = {
    {"xlm-roberta-base", {SIZE_BASE, ROBERTA("xlm-roberta"), .vocab = 250002}},
    {"xlm-roberta-large", {SIZE_LARGE, ROBERTA("xlm-roberta"), .vocab = 250002}},
    {"roberta-base", {SIZE_BASE, ROBERTA("roberta"), .vocab = 50265}},
    {"roberta-large", {SIZE_LARGE, ROBERTA("roberta"), .vocab = 50265}},
    {"bert-base-uncased", {SIZE_BASE, BERT, .vocab = 30522}},
    {"bert-base-cased", {SIZE_BASE, BERT, .vocab = 28996}},
    {"bert-base-chinese", {SIZE_BASE, BERT, .vocab = 21128}},
    {"bert-base-multilingual-uncased", {SIZE_BASE, BERT, .vocab = 105879}},
    {"bert-base-multilingual-cased", {SIZE_BASE, BERT, .vocab = 119547}},
    {"bert-large-uncased", {SIZE_LARGE, BERT, .vocab = 30522}},
    {"bert-large-cased", {SIZE_LARGE, BERT, .vocab = 28996}},
};

/* The name without the owner that the hub puts before it. */
static const tess_bert_keys *find_known(const char *name)
{
    static const char *const owners[] = {"FacebookAI/", "google-bert/"};
    for (int64_t i = 0; i < TESS_COUNT(owners); i++) {
        const size_t n = strlen(owners[i]);
        name += strncmp(name, owners[i], n) == 0 ? n : 0;
    }
    for (int64_t i = 0; i < TESS_COUNT(known); i++) {
        if (strcmp(known[i].name, name) == 0) {
            return &known[i].keys;
        }
    }
    return NULL;
}

static bool same_tower(const tess_text_config *c, const tess_bert_keys *k)
{
    const tess_bert_config *b = c->bert;
    const bool offset = strcmp(k->model_type, "bert") != 0;
    return c->width == k->hidden_size && c->layers == k->layers && c->heads == k->heads &&
           c->vocab_size == k->vocab && c->eps == k->eps && strcmp(c->act, k->act) == 0 &&
           b->hidden == k->intermediate_size && b->n_types == k->types &&
           b->n_positions == k->positions && b->first_position == (offset ? k->pad + 1 : 0);
}

static const char *name_of(const tess_text_config *c)
{
    for (int64_t i = 0; i < TESS_COUNT(known); i++) {
        if (same_tower(c, &known[i].keys)) {
            return known[i].name;
        }
    }
    return NULL;
}

/* ---- the encoder --------------------------------------------------------------------------- */

/* DIR/FILE as an encoder's config; *found false: absent, or another kind of model's. */
static tess_status read_file(const char *dir, const char *file, tess_arena *arena,
                             tess_text_config *text, tess_bert_config *bert, bool *found)
{
    tess_json_doc *doc = NULL;
    const char *path = tess_arena_format(arena, "%s/%s", dir, file);
    TESS_TRY(path ? TESS_OK : TESS_NOMEM);
    if (!tess_path_exists(path)) {
        return TESS_OK;
    }
    TESS_TRY(tess_json_load(path, &doc));
    const tess_json *root = tess_json_root(doc);
    *found = tess__bert_is_type(tess_json_string(tess_json_get(root, "model_type"), ""));
    tess_status st = *found ? tess__bert_config_read(root, path, arena, text, bert) : TESS_OK;
    tess_json_free(doc);
    return st;
}

static bool leads_out(const char *name)
{
    return name[0] == '/' || strstr(name, "..");
}

static tess_status find_encoder(const tess_hf_text *k, const char *dir, const char *name,
                                tess_arena *arena, tess_text_config *text, tess_bert_config *bert,
                                const char **out_file)
{
    const char *files[] = {"config.json", TESS_HF_TEXT_FOLDER "/config.json",
                           tess_arena_format(arena, "%s/config.json", k->model)};
    bool found = false;
    TESS_TRY(files[2] ? TESS_OK : TESS_NOMEM);
    for (int i = 0; dir && i < (leads_out(k->model) ? 2 : 3); i++) {
        TESS_TRY(read_file(dir, files[i], arena, text, bert, &found));
        if (found) {
            *out_file = files[i];
            return TESS_OK;
        }
    }
    const tess_bert_keys *keys = find_known(k->model);
    if (!keys) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s.hf_model_name: the sizes of \"%s\" are not known, and nothing is "
                         "fetched: put that model's config.json (bert, roberta, xlm-roberta or "
                         "camembert) into the model directory as " TESS_HF_TEXT_FOLDER
                         "/config.json",
                         name, k->model);
    }
    return tess__bert_config_make(keys, name, text, bert);
}

/* ---- poolers and projections --------------------------------------------------------------- */

static const struct {
    const char *name, *pool_type;
    bool has_head; /* BERT's own pooler on the pooled row */
} poolers[] = {
    {"mean_pooler", "mean", false},
    {"cls_pooler", "first", true},
    {"cls_last_hidden_state_pooler", "first", false},
};

static void add_head(tess_bert_config *b, int64_t width, bool bias, const char *act)
{
    b->heads[b->n_heads++] = (tess_bert_head){.width = width, .bias = bias, .act = act};
}

static tess_status read_pooler(const char *pooler, const char *name, tess_text_config *text,
                               tess_bert_config *bert)
{
    int64_t i = 0;
    /* OpenCLIP's choice for the model type where it is null. */
    pooler = pooler ? pooler : bert->first_position > 0 ? "mean_pooler" : "cls_pooler";
    while (i < TESS_COUNT(poolers) && strcmp(poolers[i].name, pooler) != 0) {
        i++;
    }
    if (i == TESS_COUNT(poolers)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s.hf_pooler_type: expected mean_pooler, cls_pooler or "
                         "cls_last_hidden_state_pooler, found \"%s\"",
                         name, pooler);
    }
    text->pool_type = poolers[i].pool_type;
    if (poolers[i].has_head) {
        add_head(bert, text->width, true, "tanh");
    }
    return TESS_OK;
}

static tess_status read_proj(const char *proj, const char *name, int64_t embed_dim,
                             const tess_text_config *text, tess_bert_config *bert)
{
    if (proj && strcmp(proj, "linear") == 0) {
        add_head(bert, embed_dim, false, NULL);
        return TESS_OK;
    }
    if (proj && strcmp(proj, "mlp") == 0) {
        add_head(bert, (text->width + embed_dim) / 2, false, "gelu");
        add_head(bert, embed_dim, false, NULL);
        return TESS_OK;
    }
    if (proj && strcmp(proj, "none") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s.hf_proj_type: expected linear, mlp, none or null, found \"%s\"", name,
                         proj);
    }
    if (text->width != embed_dim) {
        return TESS_FAIL(TESS_INVALID,
                         "%s.hf_proj_type: without a projection the text tower gives %lld, but "
                         "embed_dim is %lld",
                         name, (long long)text->width, (long long)embed_dim);
    }
    return TESS_OK;
}

tess_status tess__hf_text_read(const tess_hf_text *k, const char *dir, const char *name,
                               int64_t embed_dim, tess_arena *arena, tess_text_config *out,
                               const char **out_file)
{
    tess_text_config text = {0};
    tess_bert_config *bert = tess_arena_alloc(arena, sizeof *bert);
    *out_file = NULL;
    TESS_TRY(bert ? TESS_OK : TESS_NOMEM);
    tess_status st = find_encoder(k, dir, name, arena, &text, bert, out_file);
    if (st) {
        return st;
    }
    TESS_TRY(read_pooler(k->pooler, name, &text, bert));
    TESS_TRY(read_proj(k->proj, name, embed_dim, &text, bert));
    if (k->context_length < text.context_length) {
        text.context_length = k->context_length;
    }
    text.text_mode = out->text_mode;
    text.tokenizer = out->tokenizer;
    *out = text;
    return TESS_OK;
}

/* ---- OpenCLIP's form of the heads ---------------------------------------------------------- */

/* How OpenCLIP says them; pooler -1: it cannot. */
typedef struct form {
    int64_t pooler;     /* of the table */
    const char *proj;   /* NULL: none */
    int64_t first_proj; /* the head that it begins with */
} form;

static bool is_head(const tess_bert_head *h, int64_t width, bool bias, const char *act)
{
    const bool same_act = h->act && act ? strcmp(h->act, act) == 0 : h->act == act;
    return h->width == width && h->bias == bias && same_act;
}

static form form_of(const tess_text_config *c)
{
    const tess_bert_config *b = c->bert;
    form f = {.pooler = -1};
    const bool has_pooler = b->n_heads > 0 && strcmp(c->pool_type, "first") == 0 &&
                            is_head(&b->heads[0], c->width, true, "tanh");
    const int64_t n = b->n_heads - has_pooler;
    const tess_bert_head *h = &b->heads[has_pooler];
    f.first_proj = has_pooler;
    if (n == 1 && is_head(h, h->width, false, NULL)) {
        f.proj = "linear";
    } else if (n == 2 && is_head(h, (c->width + h[1].width) / 2, false, "gelu") &&
               is_head(h + 1, h[1].width, false, NULL)) {
        f.proj = "mlp";
    } else if (n != 0) {
        return f;
    }
    for (int64_t i = 0; i < TESS_COUNT(poolers); i++) {
        if (strcmp(poolers[i].pool_type, c->pool_type) == 0 && poolers[i].has_head == has_pooler) {
            f.pooler = i;
        }
    }
    return f;
}

#define SAME TESS_LAYOUT_SAME, 0, 0, 0
static const tess_layout_rule pooler_rules[] = {{"head.0.dense.*", "pooler.dense.*", SAME}};
static const tess_layout_rule linear_rules[] = {{"head.#.dense.weight", "proj.weight", SAME}};
static const tess_layout_rule mlp_rules[] = {{"head.0.dense.weight", "proj.0.weight", SAME},
                                             {"head.1.dense.weight", "proj.2.weight", SAME}};
static const tess_layout_rule late_mlp_rules[] = {{"head.1.dense.weight", "proj.0.weight", SAME},
                                                  {"head.2.dense.weight", "proj.2.weight", SAME}};

void tess__layout_add_hf_text(tess_layout *l, const tess_text_config *c)
{
    const form f = form_of(c);
    tess__layout_add_bert(l, "", "text.transformer.");
    if (f.pooler < 0) {
        return;
    }
    if (f.first_proj) {
        TESS_LAYOUT_ADD(l, pooler_rules, "", "text.transformer.");
    }
    if (f.proj && strcmp(f.proj, "linear") == 0) {
        TESS_LAYOUT_ADD(l, linear_rules, "", "text.");
    } else if (f.proj && f.first_proj) {
        TESS_LAYOUT_ADD(l, late_mlp_rules, "", "text.");
    } else if (f.proj) {
        TESS_LAYOUT_ADD(l, mlp_rules, "", "text.");
    }
}

/* ---- writing ------------------------------------------------------------------------------- */

static void add_int(tess_json_writer *w, const char *key, int64_t v)
{
    tess_json_key(w, key);
    tess_json_add_int(w, v);
}

static void add_string(tess_json_writer *w, const char *key, const char *v)
{
    tess_json_key(w, key);
    if (v) {
        tess_json_add_string(w, v);
    } else {
        tess_json_add_null(w);
    }
}

tess_status tess__hf_text_write(const tess_text_config *c, tess_json_writer *w)
{
    const form f = form_of(c);
    const char *name = name_of(c);
    if (f.pooler < 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "OpenCLIP's layout cannot say this text tower: a pooling or layers behind "
                         "it that OpenCLIP does not have");
    }
    if (c->pad_to_context) {
        return TESS_FAIL(TESS_UNSUPPORTED, "OpenCLIP's layout cannot say this text tower: a BERT "
                                           "that attends to its padding");
    }
    add_int(w, "context_length", c->context_length);
    add_string(w, "hf_model_name", name ? name : TESS_HF_TEXT_FOLDER);
    add_string(w, "hf_pooler_type", poolers[f.pooler].name);
    add_string(w, "hf_proj_type", f.proj);
    return TESS_OK;
}

/* transformers' names of the activations that its encoder is written with here. */
static const char *act_name(const char *ours)
{
    return strcmp(ours, "gelu_tanh") == 0 ? "gelu_pytorch_tanh" : ours;
}

static void write_encoder(const tess_text_config *c, tess_json_writer *w)
{
    const tess_bert_config *b = c->bert;
    tess_json_begin_object(w);
    add_string(w, "model_type", b->first_position > 0 ? "xlm-roberta" : "bert");
    add_int(w, "hidden_size", c->width);
    add_int(w, "num_hidden_layers", c->layers);
    add_int(w, "num_attention_heads", c->heads);
    add_int(w, "intermediate_size", b->hidden);
    add_int(w, "max_position_embeddings", b->n_positions);
    add_int(w, "type_vocab_size", b->n_types);
    add_int(w, "vocab_size", c->vocab_size);
    add_int(w, "pad_token_id", b->first_position > 0 ? b->first_position - 1 : c->pad_id);
    tess_json_key(w, "layer_norm_eps");
    tess_json_add_real(w, c->eps);
    add_string(w, "hidden_act", act_name(c->act));
    tess_json_end_object(w);
}

tess_status tess__hf_text_write_config(const tess_text_config *c, const char *dir)
{
    tess_buf text = {0};
    tess_json_writer w = {.buf = &text, .pretty = true};
    if (!c->bert || name_of(c)) {
        return TESS_OK;
    }
    char *folder = tess_format("%s/" TESS_HF_TEXT_FOLDER, dir);
    char *path = tess_format("%s/" TESS_HF_TEXT_FOLDER "/config.json", dir);
    write_encoder(c, &w);
    tess_buf_adds(&text, "\n");
    tess_status st = folder && path ? tess_buf_check(&text) : TESS_NOMEM;
    st = st ? st : tess_dir_make(folder);
    st = st ? st : tess_file_write(path, text.data, text.n_bytes);
    tess_buf_deinit(&text);
    tess_free(folder);
    tess_free(path);
    return st;
}
