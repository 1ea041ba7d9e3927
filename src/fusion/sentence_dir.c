/* SPDX-License-Identifier: Apache-2.0 */
/* Walks a text-only model's directory: which files there are, and the order of its modules. */
#include "fusion/sentence_config.h"

#include <string.h>

/* One file of the directory. */
typedef struct place {
    const char *dir;
    tess_arena *arena;
    tess_sentence_config *out;
} place;

/* Parses DIR/FOLDER/NAME; *doc NULL when it is absent and may be. */
static tess_status load(const place *p, const char *folder, const char *name, bool optional,
                        const char **path, tess_json_doc **doc)
{
    *doc = NULL;
    *path = tess_arena_format(p->arena, "%s/%s%s%s", p->dir, folder, *folder ? "/" : "", name);
    if (!*path) {
        return TESS_NOMEM;
    }
    return optional && !tess_path_exists(*path) ? TESS_OK : tess_json_load(*path, doc);
}

/* ---- the modules --------------------------------------------------------------------------- */

static tess_status take_transformer(const place *p, const char *folder)
{
    const char *path;
    tess_json_doc *doc;
    TESS_TRY(load(p, folder, "config.json", false, &path, &doc));
    tess_status st =
        tess__bert_config_read(tess_json_root(doc), path, p->arena, &p->out->text, &p->out->bert);
    tess_json_free(doc);
    p->out->encoder = folder;
    return st;
}

static tess_status take_pooling(const place *p, const char *folder)
{
    const char *path;
    tess_json_doc *doc;
    TESS_TRY(load(p, folder, "config.json", false, &path, &doc));
    tess_status st = tess__sentence_read_pooling(tess_json_root(doc), path, p->out);
    tess_json_free(doc);
    return st;
}

static tess_status take_dense(const place *p, const char *folder)
{
    const char *path;
    tess_json_doc *doc;
    TESS_TRY(load(p, folder, "config.json", false, &path, &doc));
    tess_status st = tess__sentence_read_dense(tess_json_root(doc), path, p->arena, p->out);
    tess_json_free(doc);
    if (st == TESS_OK) {
        p->out->folders[p->out->bert.n_heads - 1] = folder;
    }
    return st;
}

/* Embeddings are of unit length in any case, and the folder holds nothing of use. */
static tess_status take_normalize(const place *p, const char *folder)
{
    (void)p, (void)folder;
    return TESS_OK;
}

/* `after`: the kinds that may come before, as bits. */
enum { START = 1, TRANSFORMER = 2, POOLING = 4, DENSE = 8, NORMALIZE = 16 };
static const struct {
    const char *type;
    unsigned bit, after;
    tess_status (*take)(const place *p, const char *folder);
} kinds[] = {
    {"Transformer", TRANSFORMER, START, take_transformer},
    {"Pooling", POOLING, TRANSFORMER, take_pooling},
    {"Dense", DENSE, POOLING | DENSE, take_dense},
    {"Normalize", NORMALIZE, POOLING | DENSE, take_normalize},
};

static tess_status check_folder(const char *folder, const char *path, size_t i)
{
    if (folder[0] == '/' || strstr(folder, "..")) {
        return TESS_FAIL(TESS_INVALID, "%s: module %zu: path \"%s\" leads out of the directory",
                         path, i, folder);
    }
    return TESS_OK;
}

static tess_status take_module(const place *p, const tess_json *module, const char *path, size_t i,
                               unsigned *state)
{
    const char *type = tess_json_string(tess_json_get(module, "type"), "");
    const char *dot = strrchr(type, '.'), *word = dot ? dot + 1 : type;
    const char *folder = tess_json_string(tess_json_get(module, "path"), "");
    int64_t k = 0;
    while (k < TESS_COUNT(kinds) && strcmp(kinds[k].type, word) != 0) {
        k++;
    }
    if (k == TESS_COUNT(kinds)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: module %zu: expected Transformer, Pooling, Dense or Normalize, found "
                         "\"%s\"",
                         path, i, type);
    }
    if (!(kinds[k].after & *state)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: module %zu: %s: expected Transformer, Pooling, any Dense and one "
                         "Normalize, in this order",
                         path, i, word);
    }
    TESS_TRY(check_folder(folder, path, i));
    *state = kinds[k].bit;
    folder = tess_arena_strndup(p->arena, folder, strlen(folder));
    tess_status st = folder ? kinds[k].take(p, folder) : TESS_NOMEM;
    return st ? tess_error_prefix(st, "%s: module %zu (%s)", path, i, word) : TESS_OK;
}

static tess_status read_modules(const place *p)
{
    const char *path;
    tess_json_doc *doc;
    unsigned state = START;
    TESS_TRY(load(p, "", "modules.json", false, &path, &doc));
    const tess_json *root = tess_json_root(doc);
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < tess_json_count(root); i++) {
        st = take_module(p, tess_json_at(root, i), path, i, &state);
    }
    if (st == TESS_OK && state <= TRANSFORMER) {
        st = TESS_FAIL(TESS_INVALID, "%s: expected a list of modules with Transformer and Pooling",
                       path);
    }
    tess_json_free(doc);
    return st;
}

/* ---- lengths and prompts ------------------------------------------------------------------- */

/* The names that sentence-transformers has given this file. */
static const char *const length_files[] = {
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_camembert_config.json",
    "sentence_xlm-roberta_config.json",
};

/* The first that says a length wins; what it says is cut to the positions that there are. */
static tess_status read_length(const place *p, const char *file, const char *key, bool *found)
{
    const char *path;
    tess_json_doc *doc;
    TESS_TRY(load(p, p->out->encoder, file, true, &path, &doc));
    const tess_json *root = doc ? tess_json_root(doc) : NULL;
    const tess_json *v = tess_json_get(root, key);
    const double length = tess_json_real(v, 0);
    int64_t *context = &p->out->text.context_length;
    tess_status st = TESS_OK;
    if (tess_json_bool(tess_json_get(root, "do_lower_case"), false) &&
        strcmp(key, "max_seq_length") == 0) {
        st = TESS_FAIL(TESS_UNSUPPORTED,
                       "%s: do_lower_case: expected false: lower-casing is the "
                       "tokenizer's business here",
                       path);
    }
    if (v && length >= 3) {
        *found = true;
        *context = length < (double)*context ? (int64_t)length : *context;
    } else if (v && tess_json_kind_of(v) != TESS_JSON_NULL) {
        st =
            st ? st : TESS_FAIL(TESS_INVALID, "%s: %s: expected a length of at least 3", path, key);
    }
    tess_json_free(doc);
    return st;
}

static tess_status read_lengths(const place *p)
{
    bool found = false;
    for (int64_t i = 0; !found && i < TESS_COUNT(length_files); i++) {
        TESS_TRY(read_length(p, length_files[i], "max_seq_length", &found));
    }
    return found ? TESS_OK : read_length(p, "tokenizer_config.json", "model_max_length", &found);
}

static tess_status read_prompts(const place *p)
{
    const char *path;
    tess_json_doc *doc;
    TESS_TRY(load(p, "", "config_sentence_transformers.json", true, &path, &doc));
    tess_status st =
        doc ? tess__sentence_read_prompts(tess_json_root(doc), path, p->arena, p->out) : TESS_OK;
    tess_json_free(doc);
    return st;
}

/* Where a prompt is left out of the mean, its tokens would have to be counted. */
static tess_status check_prompts(const place *p)
{
    for (int64_t i = 0; !p->out->include_prompt && i < p->out->n_prompts; i++) {
        if (*p->out->prompts[i].text) {
            return TESS_FAIL(TESS_UNSUPPORTED,
                             "%s: pooling leaves the prompt \"%s\" out of the mean "
                             "(include_prompt false), which is not offered",
                             p->dir, p->out->prompts[i].name);
        }
    }
    return TESS_OK;
}

tess_status tess__sentence_read(const char *dir, tess_arena *arena, tess_sentence_config *out)
{
    *out = (tess_sentence_config){.include_prompt = true, .encoder = ""};
    const place p = {dir, arena, out};
    const char *modules = tess_arena_format(arena, "%s/modules.json", dir);
    if (!modules) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess_path_exists(modules) ? read_modules(&p) : take_transformer(&p, ""));
    TESS_TRY(read_lengths(&p));
    TESS_TRY(read_prompts(&p));
    return check_prompts(&p);
}

/* A config.json that cannot be read is left to whoever opens the directory, and says what is wrong.
 */
static tess_status has_bert_config(const char *path, bool *out)
{
    tess_json_doc *doc = NULL;
    const tess_status st = tess_path_exists(path) ? tess_json_load(path, &doc) : TESS_OK;
    *out = doc && tess__bert_is_type(
                      tess_json_string(tess_json_get(tess_json_root(doc), "model_type"), ""));
    tess_json_free(doc);
    return st == TESS_NOMEM ? st : TESS_OK;
}

tess_status tess__sentence_is_dir(const char *dir, bool *out)
{
    char *modules = tess_format("%s/modules.json", dir),
         *config = tess_format("%s/config.json", dir),
         *two_towers = tess_format("%s/open_clip_config.json", dir);
    tess_status st = modules && config && two_towers ? TESS_OK : TESS_NOMEM;
    *out = modules && tess_path_exists(modules);
    if (st == TESS_OK && !*out && !tess_path_exists(two_towers)) {
        st = has_bert_config(config, out);
    }
    tess_free(modules);
    tess_free(config);
    tess_free(two_towers);
    return st;
}
