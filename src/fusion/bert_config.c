/* SPDX-License-Identifier: Apache-2.0 */
/* config.json of the BERT family.  Other programs put many keys there that do not change what the
 * encoder computes; those that do are read, and a value that this program does not compute is
 * refused by its key. */
#include "fusion/sentence_config.h"

#include <string.h>

typedef tess_bert_keys hf_config;

static const tess_field fields[] = {
    {"hidden_size", TESS_FIELD_INT, offsetof(hf_config, hidden_size), 1, 65536},
    {"num_hidden_layers", TESS_FIELD_INT, offsetof(hf_config, layers), 0, 1024},
    {"num_attention_heads", TESS_FIELD_INT, offsetof(hf_config, heads), 1, 1024},
    {"intermediate_size", TESS_FIELD_INT, offsetof(hf_config, intermediate_size), 1, 1048576},
    {"max_position_embeddings", TESS_FIELD_INT, offsetof(hf_config, positions), 3, 1048576},
    {"type_vocab_size", TESS_FIELD_INT, offsetof(hf_config, types), 0, 1024},
    {"vocab_size", TESS_FIELD_INT, offsetof(hf_config, vocab), 1, 16777216},
    {"pad_token_id", TESS_FIELD_INT, offsetof(hf_config, pad), 0, 16777216},
    {"layer_norm_eps", TESS_FIELD_REAL, offsetof(hf_config, eps), 1e-14, 1},
    {"model_type", TESS_FIELD_STRING, offsetof(hf_config, model_type), 0, 0},
    {"hidden_act", TESS_FIELD_STRING, offsetof(hf_config, act), 0, 0},
    {"position_embedding_type", TESS_FIELD_STRING, offsetof(hf_config, position_type), 0, 0},
    {"is_decoder", TESS_FIELD_BOOL, offsetof(hf_config, is_decoder), 0, 0},
    {"add_cross_attention", TESS_FIELD_BOOL, offsetof(hf_config, cross_attention), 0, 0},
};

/* The model types, and whether positions are counted from behind the padding id. */
static const struct {
    const char *type;
    bool offset_positions;
} types[] = {{"bert", false}, {"xlm-roberta", true}, {"roberta", true}, {"camembert", true}};

static const struct {
    const char *theirs, *ours;
} acts[] = {
    {"gelu", "gelu"},           {"gelu_new", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"},
    {"gelu_tanh", "gelu_tanh"}, {"relu", "relu"},          {"silu", "silu"},
    {"swish", "silu"},          {"tanh", "tanh"},          {"quick_gelu", "quick_gelu"},
};

static int64_t find_type(const char *type)
{
    for (int64_t i = 0; i < TESS_COUNT(types); i++) {
        if (strcmp(types[i].type, type) == 0) {
            return i;
        }
    }
    return -1;
}

bool tess__bert_is_type(const char *model_type)
{
    return find_type(model_type) >= 0;
}

static const char *find_act(const char *theirs)
{
    for (int64_t i = 0; i < TESS_COUNT(acts); i++) {
        if (strcmp(acts[i].theirs, theirs) == 0) {
            return acts[i].ours;
        }
    }
    return NULL;
}

/* Keys without which the shapes would be guesses. */
static tess_status check_present(const tess_json *root, const char *where)
{
    for (int64_t i = 0; i < TESS_COUNT(fields); i++) {
        const bool needed =
            strcmp(fields[i].key, "model_type") == 0 ||
            (fields[i].kind == TESS_FIELD_INT && strcmp(fields[i].key, "pad_token_id") != 0 &&
             strcmp(fields[i].key, "type_vocab_size") != 0);
        if (needed && tess_json_kind_of(tess_json_get(root, fields[i].key)) == TESS_JSON_NULL) {
            return TESS_FAIL(TESS_INVALID, "%s: %s: missing", where, fields[i].key);
        }
    }
    return TESS_OK;
}

static tess_status check_values(const hf_config *c, const char *where)
{
    if (find_type(c->model_type) < 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: model_type: expected bert, xlm-roberta, roberta or camembert, found "
                         "\"%s\"",
                         where, c->model_type);
    }
    if (!find_act(c->act)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: hidden_act: expected gelu, gelu_new, relu, silu, tanh or quick_gelu, "
                         "found \"%s\"",
                         where, c->act);
    }
    if (strcmp(c->position_type, "absolute") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: position_embedding_type: expected absolute, found \"%s\"", where,
                         c->position_type);
    }
    if (c->is_decoder || c->cross_attention) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: %s: expected an encoder, found a decoder", where,
                         c->is_decoder ? "is_decoder" : "add_cross_attention");
    }
    if (c->hidden_size % c->heads != 0) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: hidden_size %lld is no multiple of num_attention_heads %lld", where,
                         (long long)c->hidden_size, (long long)c->heads);
    }
    return TESS_OK;
}

tess_status tess__bert_config_read(const tess_json *root, const char *where, tess_arena *arena,
                                   tess_text_config *text, tess_bert_config *bert)
{
    hf_config c = {.types = 2, .eps = 1e-12, .act = "gelu", .position_type = "absolute", .pad = -1};
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_INVALID, "%s: expected an object", where);
    }
    TESS_TRY(check_present(root, where));
    TESS_TRY(tess_json_pick_fields(root, where, fields, TESS_COUNT(fields), arena, &c));
    return tess__bert_config_make(&c, where, text, bert);
}

tess_status tess__bert_config_make(const tess_bert_keys *keys, const char *where,
                                   tess_text_config *text, tess_bert_config *bert)
{
    hf_config c = *keys;
    TESS_TRY(check_values(&c, where));
    const bool offset = types[find_type(c.model_type)].offset_positions;
    c.pad = c.pad >= 0 ? c.pad : offset;
    const int64_t first = offset ? c.pad + 1 : 0;
    if (first >= c.positions - 1) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: max_position_embeddings %lld leaves no position behind pad_token_id "
                         "%lld",
                         where, (long long)c.positions, (long long)c.pad);
    }
    *bert = (tess_bert_config){.hidden = c.intermediate_size,
                               .n_types = c.types,
                               .n_positions = c.positions,
                               .first_position = first};
    *text = (tess_text_config){.context_length = c.positions - first,
                               .vocab_size = c.vocab,
                               .width = c.hidden_size,
                               .heads = c.heads,
                               .layers = c.layers,
                               .mlp_ratio = (double)c.intermediate_size / (double)c.hidden_size,
                               .pool_type = "mean",
                               .act = find_act(c.act),
                               .no_causal_mask = true,
                               .text_mode = "raw",
                               .pad_id = c.pad,
                               .tokenizer = "tokenizer.json",
                               .eps = c.eps,
                               .bert = bert};
    return TESS_OK;
}
