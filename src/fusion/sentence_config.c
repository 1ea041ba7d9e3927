/* SPDX-License-Identifier: Apache-2.0 */
/* The files that sentence-transformers keeps beside an encoder, in the forms of its versions 2 to
 * 6: a module's type is told by the last part of its class name, pooling by one word or by flags.
 */
#include "fusion/sentence_config.h"

#include <string.h>

static const char *last_part(const char *class_name)
{
    const char *dot = strrchr(class_name, '.');
    return dot ? dot + 1 : class_name;
}

/* ---- pooling ------------------------------------------------------------------------------- */

static const struct {
    const char *word, *flag, *pool_type; /* NULL: known, and not computed here */
} poolings[] = {
    {"cls", "pooling_mode_cls_token", "first"},
    {"mean", "pooling_mode_mean_tokens", "mean"},
    {"max", "pooling_mode_max_tokens", NULL},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len"},
    {"weightedmean", "pooling_mode_weightedmean_tokens", NULL},
    {"lasttoken", "pooling_mode_lasttoken", "last"},
};

static tess_status add_pooling(const char *where, const char *word, int64_t i, int64_t *found)
{
    if (i >= TESS_COUNT(poolings) || !poolings[i].pool_type) {
        return TESS_FAIL(
            TESS_UNSUPPORTED,
            "%s: pooling: expected cls, mean, mean_sqrt_len_tokens or lasttoken, found "
            "\"%s\"",
            where, word);
    }
    if (*found >= 0 && *found != i) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: two poolings at once, %s and %s: vectors that are joined end to end "
                         "are not offered",
                         where, poolings[*found].word, poolings[i].word);
    }
    *found = i;
    return TESS_OK;
}

static tess_status add_word(const char *where, const tess_json *v, int64_t *found)
{
    const char *word = tess_json_string(v, "?");
    int64_t i = 0;
    while (i < TESS_COUNT(poolings) && strcmp(poolings[i].word, word) != 0) {
        i++;
    }
    return add_pooling(where, word, i, found);
}

static tess_status add_words(const char *where, const tess_json *v, int64_t *found)
{
    if (tess_json_kind_of(v) != TESS_JSON_ARRAY) {
        return add_word(where, v, found);
    }
    for (size_t i = 0; i < tess_json_count(v); i++) {
        TESS_TRY(add_word(where, tess_json_at(v, i), found));
    }
    return TESS_OK;
}

/* Any member pooling_mode_* that is true; one that is not known too. */
static tess_status add_flags(const char *where, const tess_json *root, int64_t *found)
{
    for (size_t k = 0; k < tess_json_count(root); k++) {
        const char *key;
        const tess_json *v = tess_json_member(root, k, &key);
        int64_t i = 0;
        if (strncmp(key, "pooling_mode_", 13) != 0 || !tess_json_bool(v, false)) {
            continue;
        }
        while (i < TESS_COUNT(poolings) && strcmp(poolings[i].flag, key) != 0) {
            i++;
        }
        TESS_TRY(add_pooling(where, key + 13, i, found));
    }
    return TESS_OK;
}

static tess_status check_width(const tess_json *root, const char *where, const char *key,
                               int64_t width)
{
    const int64_t theirs = tess_json_int(tess_json_get(root, key), width);
    if (theirs != width) {
        return TESS_FAIL(TESS_INVALID, "%s: %s is %lld, but what comes in is %lld wide", where, key,
                         (long long)theirs, (long long)width);
    }
    return TESS_OK;
}

tess_status tess__sentence_read_pooling(const tess_json *root, const char *where,
                                        tess_sentence_config *out)
{
    int64_t found = -1;
    const tess_json *word = tess_json_get(root, "pooling_mode");
    if (word) {
        TESS_TRY(add_words(where, word, &found));
    }
    TESS_TRY(add_flags(where, root, &found));
    if (found < 0) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a pooling_mode, found none", where);
    }
    TESS_TRY(check_width(root, where, "word_embedding_dimension", out->text.width));
    TESS_TRY(check_width(root, where, "embedding_dimension", out->text.width));
    out->text.pool_type = poolings[found].pool_type;
    out->include_prompt = tess_json_bool(tess_json_get(root, "include_prompt"), true);
    return TESS_OK;
}

/* ---- dense --------------------------------------------------------------------------------- */

typedef struct dense {
    int64_t in, out;
    bool bias;
    const char *act;
} dense;

static const tess_field dense_fields[] = {
    {"in_features", TESS_FIELD_INT, offsetof(dense, in), 1, 65536},
    {"out_features", TESS_FIELD_INT, offsetof(dense, out), 1, 65536},
    {"bias", TESS_FIELD_BOOL, offsetof(dense, bias), 0, 0},
    {"activation_function", TESS_FIELD_STRING, offsetof(dense, act), 0, 0},
};

static const struct {
    const char *theirs, *ours;
} dense_acts[] = {
    {"Tanh", "tanh"}, {"Identity", NULL}, {"ReLU", "relu"}, {"GELU", "gelu"}, {"SiLU", "silu"}};

tess_status tess__sentence_read_dense(const tess_json *root, const char *where, tess_arena *arena,
                                      tess_sentence_config *out)
{
    dense d = {.bias = true, .act = "torch.nn.modules.activation.Tanh"};
    tess_bert_config *b = &out->bert;
    TESS_TRY(tess_json_pick_fields(root, where, dense_fields, TESS_COUNT(dense_fields), arena, &d));
    int64_t i = 0;
    while (i < TESS_COUNT(dense_acts) && strcmp(dense_acts[i].theirs, last_part(d.act)) != 0) {
        i++;
    }
    if (i == TESS_COUNT(dense_acts)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: activation_function: expected Tanh, Identity, ReLU, GELU or SiLU, "
                         "found \"%s\"",
                         where, d.act);
    }
    if (b->n_heads == TESS_BERT_HEADS) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: expected at most %d Dense modules", where,
                         TESS_BERT_HEADS);
    }
    if (d.in < 1 || d.out < 1) {
        return TESS_FAIL(TESS_INVALID, "%s: expected in_features and out_features", where);
    }
    TESS_TRY(check_width(root, where, "in_features", tess__bert_width(&out->text)));
    b->heads[b->n_heads++] =
        (tess_bert_head){.width = d.out, .bias = d.bias, .act = dense_acts[i].ours};
    return TESS_OK;
}

/* ---- prompts ------------------------------------------------------------------------------- */

const char *tess__sentence_prompt(const tess_sentence_config *c, const char *name)
{
    for (int64_t i = 0; i < c->n_prompts; i++) {
        if (strcmp(c->prompts[i].name, name) == 0) {
            return c->prompts[i].text;
        }
    }
    return NULL;
}

static const char *copy(tess_arena *arena, const char *s)
{
    return tess_arena_strndup(arena, s, strlen(s));
}

static tess_status add_prompt(tess_sentence_config *out, const char *where, tess_arena *arena,
                              const char *name, const tess_json *v)
{
    const char *text = tess_json_string(v, NULL);
    if (!text || out->n_prompts == TESS_SENTENCE_PROMPTS) {
        return TESS_FAIL(TESS_INVALID, "%s: prompts: %s: expected %s", where, name,
                         text ? "at most 64 prompts" : "a string");
    }
    tess_prompt *p = &out->prompts[out->n_prompts++];
    *p = (tess_prompt){copy(arena, name), copy(arena, text)};
    return p->name && p->text ? TESS_OK : TESS_NOMEM;
}

tess_status tess__sentence_read_prompts(const tess_json *root, const char *where, tess_arena *arena,
                                        tess_sentence_config *out)
{
    const tess_json *prompts = tess_json_get(root, "prompts");
    for (size_t i = 0; i < tess_json_count(prompts); i++) {
        const char *name;
        const tess_json *v = tess_json_member(prompts, i, &name);
        TESS_TRY(add_prompt(out, where, arena, name ? name : "?", v));
    }
    const char *chosen = tess_json_string(tess_json_get(root, "default_prompt_name"), NULL);
    if (chosen && !tess__sentence_prompt(out, chosen)) {
        return TESS_FAIL(TESS_INVALID, "%s: default_prompt_name: \"%s\" is none of the prompts",
                         where, chosen);
    }
    out->default_prompt = chosen ? copy(arena, chosen) : NULL;
    return chosen && !out->default_prompt ? TESS_NOMEM : TESS_OK;
}
