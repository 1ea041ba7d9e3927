/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a model directory's tokenizer: a table of file names in order of preference.
 * tokenizer.json comes first because it says everything; the others need what their class of
 * tokenizer adds, which tokenizer_config.json and special_tokens_map.json adjust. */
#include "text/open.h"

#include <string.h>

typedef struct candidate {
    const char *name, *with; /* `with`: a second file that must be there too */
    tess__open_fn *open;
    bool uses_config;       /* the configuration decides ids, so it is saved along */
    const char *classes[3]; /* of tokenizer_config.json's tokenizer_class, which may be absent; none
                               here: any */
} candidate;
static const candidate candidates[] = {
    {"tokenizer.json", NULL, tess__pipe_json_open, false},
    {"sentencepiece.bpe.model",
     NULL,
     tess__xlmr_open,
     true,
     {"XLMRobertaTokenizer", "XLMRobertaTokenizerFast"}},
    {"spiece.model", NULL, tess__siglip_open, true, {"SiglipTokenizer"}},
    {"tokenizer.model", NULL, tess__plain_open, false},
    {"spm.model", NULL, tess__plain_open, false},
    {"vocab.txt", NULL, tess__bert_open, true, {"BertTokenizer", "BertTokenizerFast"}},
    {"vocab.json", "merges.txt", tess__clip_open, true, {"CLIPTokenizer", "CLIPTokenizerFast"}},
    {"bpe_simple_vocab_16e6.txt.gz", NULL, tess__clip_open, false},
    {"bpe_simple_vocab_16e6.txt", NULL, tess__clip_open, false},
};

static const char *const config_names[] = {"tokenizer_config.json", "special_tokens_map.json"};

static bool has_file(const char *dir, const char *name)
{
    char *path = tess_format("%s/%s", dir, name);
    bool there = path != NULL && tess_path_exists(path) && !tess_path_is_dir(path);
    tess_free(path);
    return there;
}

static tess_status load(tess_tokenizer *t, const char *dir, const char *name)
{
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = path != NULL ? tess__tokenizer_load(t, path) : TESS_NOMEM;
    tess_free(path);
    return st;
}

static const candidate *choose(const char *dir)
{
    for (int64_t i = 0; i < TESS_COUNT(candidates); i++) {
        const candidate *c = &candidates[i];
        if (has_file(dir, c->name) && (c->with == NULL || has_file(dir, c->with))) {
            return c;
        }
    }
    return NULL;
}

static tess_status no_tokenizer(const char *dir)
{
    tess_buf names = {0};
    for (int64_t i = 0; i < TESS_COUNT(candidates); i++) {
        tess_buf_addf(&names, "%s%s", i > 0 ? ", " : "", candidates[i].name);
    }
    tess_status st = TESS_FAIL(TESS_IO, "%s: no tokenizer here: looked for %s", dir,
                               names.data != NULL ? names.data : "");
    tess_buf_deinit(&names);
    return st;
}

/* Parses a configuration file where there is one. */
static tess_status read_config(const char *dir, const char *name, tess_json_doc **out)
{
    if (!has_file(dir, name)) {
        return TESS_OK;
    }
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = path != NULL ? tess_json_load(path, out) : TESS_NOMEM;
    tess_free(path);
    if (st == TESS_OK && tess_json_kind_of(tess_json_root(*out)) != TESS_JSON_OBJECT) {
        st = TESS_FAIL(TESS_FORMAT, "%s/%s: expected an object", dir, name);
    }
    return st;
}

/* The same file means other ids to another class. */
static tess_status check_class(const candidate *c, const tess__open_options *o)
{
    const char *class = tess_json_string(tess_json_get(o->config, "tokenizer_class"), NULL);
    if (class == NULL || c->classes[0] == NULL || o->user.clean != TESS_CLIP_CLEAN_NONE) {
        return TESS_OK;
    }
    for (int i = 0; i < 3 && c->classes[i] != NULL; i++) {
        if (strcmp(c->classes[i], class) == 0) {
            return TESS_OK;
        }
    }
    return TESS_FAIL(
        TESS_UNSUPPORTED,
        "tokenizer_config.json names the class %s, whose %s is not known (%s is): save "
        "the tokenizer as tokenizer.json",
        class, c->name, c->classes[0]);
}

static tess_status open_with(const candidate *c, const char *dir, tess__open_options *o,
                             tess_tokenizer *t)
{
    TESS_TRY(load(t, dir, c->name));
    if (c->with != NULL) {
        TESS_TRY(load(t, dir, c->with));
    }
    for (int64_t i = 0; i < TESS_COUNT(config_names); i++) {
        if (c->uses_config && has_file(dir, config_names[i])) {
            TESS_TRY(load(t, dir, config_names[i]));
        }
    }
    tess_status st = check_class(c, o);
    st = st ? st : c->open(t, o);
    return st != TESS_OK ? tess_error_prefix(st, "%s/%s", dir, c->name) : TESS_OK;
}

tess_status tess_tokenizer_open_dir(const char *dir, const tess_tokenizer_options *opts,
                                    tess_tokenizer **out)
{
    *out = NULL;
    const candidate *c = choose(dir);
    if (c == NULL) {
        return no_tokenizer(dir);
    }
    tess_json_doc *docs[TESS_COUNT(config_names)] = {0};
    tess_tokenizer *t = NULL;
    tess_status st = TESS_OK;
    for (int64_t i = 0; st == TESS_OK && i < TESS_COUNT(config_names); i++) {
        st = read_config(dir, config_names[i], &docs[i]);
    }
    tess__open_options o = {.config = tess_json_root(docs[0]),
                            .special_map = tess_json_root(docs[1])};
    o.user = opts != NULL ? *opts : (tess_tokenizer_options){0};
    st = st ? st : tess__tokenizer_begin(&t);
    st = st ? st : open_with(c, dir, &o, t);
    for (int64_t i = 0; i < TESS_COUNT(config_names); i++) {
        tess_json_free(docs[i]);
    }
    if (st != TESS_OK) {
        tess_tokenizer_close(t);
        return st;
    }
    *out = t;
    return TESS_OK;
}
