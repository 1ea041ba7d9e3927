/* SPDX-License-Identifier: Apache-2.0 */
/* Reading tokenizer.json: its steps by tables of names, its added tokens and its template.  The
 * model is read in pipe_model.c.
 *
 * What is not in a table is refused by name, and so is a key inside a known step that would change
 * ids; `truncation`, `padding` and `decoder` are left to the caller, as `transformers` does. */
#include "text/open.h"
#include "text/pipe_json.h"

#include <string.h>

static const char *type_of(const tess_json *v)
{
    return tess_json_string(tess_json_get(v, "type"), "(no type)");
}

/* ---- values ----------------------------------------------------------------------------- */

tess_status tess__json_flag(const tess_json *obj, const char *key, bool fallback, bool *out)
{
    const tess_json *v = tess_json_get(obj, key);
    tess_json_kind kind = tess_json_kind_of(v);
    if (kind != TESS_JSON_BOOL && kind != TESS_JSON_NULL) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected true or false", key);
    }
    *out = tess_json_bool(v, fallback);
    return TESS_OK;
}

tess_status tess__json_text(tess__pipe *p, const tess_json *obj, const char *key, tess_bytes *out)
{
    const tess_json *v = tess_json_get(obj, key);
    const char *s = tess_json_string(v, NULL);
    if (s == NULL) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected a string", key);
    }
    *out = tess__pipe_copy(p, s, strlen(s));
    return out->data != NULL ? TESS_OK : TESS_NOMEM;
}

/* {"String": "..."} or {"Regex": "..."}. */
static tess_status read_pattern(const tess_json *obj, const char **out_string,
                                const char **out_regex)
{
    const tess_json *v = tess_json_get(obj, "pattern");
    *out_string = tess_json_string(tess_json_get(v, "String"), NULL);
    *out_regex = tess_json_string(tess_json_get(v, "Regex"), NULL);
    if (*out_string == NULL && *out_regex == NULL) {
        return TESS_FAIL(TESS_FORMAT, "pattern: expected {\"String\": ...} or {\"Regex\": ...}");
    }
    return TESS_OK;
}

static tess_status add_flag(const tess_json *obj, const char *key, bool fallback, unsigned bit,
                            unsigned *flags)
{
    bool on;
    TESS_TRY(tess__json_flag(obj, key, fallback, &on));
    *flags |= on ? bit : 0;
    return TESS_OK;
}

/* ---- normalisers ------------------------------------------------------------------------ */

typedef tess_status read_fn(tess__pipe *p, tess__step *step, const tess_json *v);
typedef struct step_type {
    const char *name;
    tess__step_fn *run;
    read_fn *read; /* NULL: nothing to read */
} step_type;

static tess_status read_bert(tess__pipe *p, tess__step *step, const tess_json *v)
{
    (void)p;
    bool lower;
    TESS_TRY(add_flag(v, "clean_text", true, TESS__BERT_CLEAN, &step->flags));
    TESS_TRY(add_flag(v, "handle_chinese_chars", true, TESS__BERT_CHINESE, &step->flags));
    TESS_TRY(tess__json_flag(v, "lowercase", true, &lower));
    step->flags |= lower ? TESS__BERT_LOWER : 0;
    return add_flag(v, "strip_accents", lower, TESS__BERT_STRIP, &step->flags);
}

static tess_status read_strip(tess__pipe *p, tess__step *step, const tess_json *v)
{
    (void)p;
    TESS_TRY(add_flag(v, "strip_left", true, TESS__STRIP_LEFT, &step->flags));
    return add_flag(v, "strip_right", true, TESS__STRIP_RIGHT, &step->flags);
}

static tess_status read_prepend(tess__pipe *p, tess__step *step, const tess_json *v)
{
    return tess__json_text(p, v, "prepend", &step->to);
}

typedef struct known_regex {
    const char *regex;
    unsigned least;  /* this many at least ... */
    const char *one; /* ... of this character; "" any white space */
} known_regex;
static const known_regex known_regexes[] = {
    {"\\s+", 1, ""},  {"[\\s]+", 1, ""},  {" {2,}", 2, " "},   {" +", 1, " "},
    {"[ ]+", 1, " "}, {"\\s{2,}", 2, ""}, {"[ ]{2,}", 2, " "}, {"\\s", 0, ""},
};

static tess_status read_replace(tess__pipe *p, tess__step *step, const tess_json *v)
{
    const char *string, *regex;
    TESS_TRY(read_pattern(v, &string, &regex));
    TESS_TRY(tess__json_text(p, v, "content", &step->to));
    if (string != NULL) {
        step->from = tess__pipe_copy(p, string, strlen(string));
        return step->from.n_bytes > 0 ? TESS_OK
                                      : TESS_FAIL(TESS_FORMAT, "pattern: an empty string");
    }
    for (int64_t i = 0; i < TESS_COUNT(known_regexes); i++) {
        if (known_regexes[i].least > 0 && strcmp(regex, known_regexes[i].regex) == 0) {
            step->run = tess__normal_replace_spaces;
            step->flags = known_regexes[i].least;
            step->from =
                (tess_bytes){(const uint8_t *)known_regexes[i].one, strlen(known_regexes[i].one)};
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_UNSUPPORTED, "the regular expression %s is not known", regex);
}

static int base64_value(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != 0 ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

static tess_status read_base64(tess__pipe *p, const char *s, tess_bytes *out)
{
    size_t n = strlen(s), k = 0;
    uint8_t *data = tess_arena_alloc(&p->arena, n / 4 * 3 + 3);
    if (data == NULL) {
        return TESS_NOMEM;
    }
    uint32_t bits = 0;
    unsigned n_bits = 0;
    for (size_t i = 0; i < n && s[i] != '='; i++) {
        int v = base64_value(s[i]);
        if (v < 0) {
            return TESS_FAIL(TESS_FORMAT, "precompiled_charsmap: not base64 at character %zu", i);
        }
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            data[k++] = (uint8_t)(bits >> n_bits);
        }
    }
    *out = (tess_bytes){data, k};
    return TESS_OK;
}

tess_status tess__pipe_set_charsmap(tess__pipe *p, tess__step *step, tess_bytes map)
{
    if (p->charsmap.units != NULL) {
        return TESS_FAIL(TESS_UNSUPPORTED, "two precompiled maps");
    }
    TESS_TRY(tess__spm_norm_rules(&p->charsmap, map));
    step->charsmap = &p->charsmap;
    return TESS_OK;
}

static tess_status read_precompiled(tess__pipe *p, tess__step *step, const tess_json *v)
{
    const tess_json *map = tess_json_get(v, "precompiled_charsmap");
    const char *s = tess_json_string(map, NULL);
    tess_bytes bytes = {0};
    if (s == NULL && tess_json_kind_of(map) != TESS_JSON_NULL) {
        return TESS_FAIL(TESS_FORMAT, "precompiled_charsmap: expected a string of base64");
    }
    if (s != NULL) {
        TESS_TRY(read_base64(p, s, &bytes));
    }
    return tess__pipe_set_charsmap(p, step, bytes);
}

static const step_type normals[] = {
    {"NFC", tess__normal_nfc, NULL},
    {"NFD", tess__normal_nfd, NULL},
    {"NFKC", tess__normal_nfkc, NULL},
    {"NFKD", tess__normal_nfkd, NULL},
    {"Lowercase", tess__normal_lower, NULL},
    {"StripAccents", tess__normal_strip_accents, NULL},
    {"Strip", tess__normal_strip, read_strip},
    {"Replace", tess__normal_replace, read_replace},
    {"Prepend", tess__normal_prepend, read_prepend},
    {"Precompiled", tess__normal_precompiled, read_precompiled},
    {"BertNormalizer", tess__normal_bert, read_bert},
};

/* ---- pre-tokenizers --------------------------------------------------------------------- */

static tess_status read_metaspace(tess__pipe *p, tess__step *step, const tess_json *v)
{
    TESS_TRY(tess__json_text(p, v, "replacement", &step->from));
    const tess_json *scheme = tess_json_get(v, "prepend_scheme");
    const char *name = tess_json_string(scheme, NULL);
    bool prefix;
    TESS_TRY(tess__json_flag(v, "add_prefix_space", true, &prefix)); /* the old spelling */
    TESS_TRY(add_flag(v, "split", true, TESS__METASPACE_SPLIT, &step->flags));
    if (name == NULL && tess_json_kind_of(scheme) != TESS_JSON_NULL) {
        return TESS_FAIL(TESS_FORMAT, "prepend_scheme: expected a string");
    }
    name = name != NULL ? name : prefix ? "always" : "never";
    if (strcmp(name, "always") == 0) {
        step->flags |= TESS__METASPACE_ALWAYS;
    } else if (strcmp(name, "first") == 0) {
        step->flags |= TESS__METASPACE_FIRST;
    } else if (strcmp(name, "never") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "the prepend_scheme %s is not known", name);
    }
    return step->from.n_bytes > 0 ? TESS_OK : TESS_FAIL(TESS_FORMAT, "replacement: empty");
}

static tess_status read_bytes(tess__pipe *p, tess__step *step, const tess_json *v)
{
    (void)p;
    TESS_TRY(add_flag(v, "add_prefix_space", true, TESS__BYTES_PREFIX, &step->flags));
    return add_flag(v, "use_regex", true, TESS__BYTES_REGEX, &step->flags);
}

#define CLIP_WORDS "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"

static bool same_name(const char *a, const char *b)
{
    return strcasecmp(a, b) == 0; /* files say Removed or removed */
}

static tess_status read_split(tess__pipe *p, tess__step *step, const tess_json *v)
{
    const char *string, *regex;
    const char *behavior = tess_json_string(tess_json_get(v, "behavior"), "(none)");
    bool invert;
    TESS_TRY(read_pattern(v, &string, &regex));
    TESS_TRY(tess__json_flag(v, "invert", false, &invert));
    if (string != NULL) {
        if (!same_name(behavior, "MergedWithPrevious") || invert || *string == 0) {
            return TESS_FAIL(TESS_UNSUPPORTED,
                             "a string pattern with behavior %s%s is not known: expected "
                             "MergedWithPrevious",
                             behavior, invert ? " inverted" : "");
        }
        step->run = tess__split_merged_with_previous;
        step->from = tess__pipe_copy(p, string, strlen(string));
        return step->from.data != NULL ? TESS_OK : TESS_NOMEM;
    }
    bool specials = strcmp(regex, "<\\|startoftext\\|>|<\\|endoftext\\|>|" CLIP_WORDS) == 0;
    if (!specials && strcmp(regex, CLIP_WORDS) != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "the regular expression %s is not known", regex);
    }
    if (!same_name(behavior, "Removed") || !invert) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "CLIP's expression with behavior %s%s: expected Removed "
                         "and inverted",
                         behavior, invert ? "" : " not inverted");
    }
    step->flags = specials ? TESS__CLIP_SPECIALS : 0;
    return TESS_OK;
}

static const step_type splits[] = {
    {"WhitespaceSplit", tess__split_space, NULL},
    {"BertPreTokenizer", tess__split_bert, NULL},
    {"Metaspace", tess__split_metaspace, read_metaspace},
    {"ByteLevel", tess__split_bytes, read_bytes},
    {"Split", tess__split_clip, read_split},
};

/* ---- lists of steps --------------------------------------------------------------------- */

typedef struct step_list {
    const char *what, *members; /* the key in the file, that of a Sequence's members */
    const step_type *types;
    int64_t n_types;
    tess__step *(*add)(tess__pipe *p, tess__step_fn *run, const char *type);
} step_list;
static const step_list normal_list = {"normalizer", "normalizers", normals, TESS_COUNT(normals),
                                      tess__pipe_add_normal};
static const step_list split_list = {"pre_tokenizer", "pretokenizers", splits, TESS_COUNT(splits),
                                     tess__pipe_add_split};

static tess_status read_step(tess__pipe *p, const step_list *list, const tess_json *v)
{
    const char *type = type_of(v);
    for (int64_t i = 0; i < list->n_types; i++) {
        const step_type *t = &list->types[i];
        if (strcmp(t->name, type) != 0) {
            continue;
        }
        tess__step *step = list->add(p, t->run, t->name);
        if (step == NULL) {
            return TESS_UNSUPPORTED;
        }
        tess_status st = t->read != NULL ? t->read(p, step, v) : TESS_OK;
        return st != TESS_OK ? tess_error_prefix(st, "%s %s", list->what, type) : TESS_OK;
    }
    return TESS_FAIL(TESS_UNSUPPORTED, "%s %s is not known", list->what, type);
}

static tess_status read_steps(tess__pipe *p, const step_list *list, const tess_json *v, int depth)
{
    if (tess_json_kind_of(v) == TESS_JSON_NULL) {
        return TESS_OK;
    }
    if (strcmp(type_of(v), "Sequence") != 0) {
        return read_step(p, list, v);
    }
    const tess_json *members = tess_json_get(v, list->members);
    if (tess_json_kind_of(members) != TESS_JSON_ARRAY || depth > 4) {
        return TESS_FAIL(TESS_FORMAT, "%s Sequence: expected a list %s, not nested deeply",
                         list->what, list->members);
    }
    for (size_t i = 0; i < tess_json_count(members); i++) {
        TESS_TRY(read_steps(p, list, tess_json_at(members, i), depth + 1));
    }
    return TESS_OK;
}

/* ---- added tokens ----------------------------------------------------------------------- */

static tess_status read_added(tess__pipe *p, const tess_json *v)
{
    tess__added a = {0};
    int64_t id = tess_json_int(tess_json_get(v, "id"), -1);
    TESS_TRY(tess__json_text(p, v, "content", &a.text));
    TESS_TRY(tess__json_flag(v, "single_word", false, &a.single_word));
    TESS_TRY(tess__json_flag(v, "lstrip", false, &a.lstrip));
    TESS_TRY(tess__json_flag(v, "rstrip", false, &a.rstrip));
    TESS_TRY(tess__json_flag(v, "special", false, &a.special));
    TESS_TRY(tess__json_flag(v, "normalized", !a.special, &a.normalized));
    if (id < 0 || id >= TESS__MAX_VOCAB || a.text.n_bytes == 0 ||
        a.text.n_bytes > TESS__MAX_PIECE_BYTES) {
        return TESS_FAIL(TESS_FORMAT, "\"%.40s\" with id %lld: expected a text and an id from 0",
                         (const char *)a.text.data, (long long)id);
    }
    a.id = (int32_t)id;
    return tess__pipe_add_token(p, a);
}

static tess_status read_all_added(tess__pipe *p, const tess_json *list)
{
    tess_json_kind kind = tess_json_kind_of(list);
    if (kind != TESS_JSON_ARRAY && kind != TESS_JSON_NULL) {
        return TESS_FAIL(TESS_FORMAT, "added_tokens: expected a list");
    }
    for (size_t i = 0; i < tess_json_count(list); i++) {
        tess_status st = read_added(p, tess_json_at(list, i));
        if (st != TESS_OK) {
            return tess_error_prefix(st, "added_tokens[%zu]", i);
        }
    }
    return TESS_OK;
}

/* ---- template --------------------------------------------------------------------------- */

typedef struct frame {
    tess_tokenizer *t;
    bool after_text; /* the text has been seen */
} frame;

static tess_status frame_add(frame *f, const tess_json *id)
{
    int64_t v = tess_json_int(id, -1);
    size_t *n = f->after_text ? &f->t->n_suffix : &f->t->n_prefix;
    if (v < 0 || v >= TESS__MAX_VOCAB) {
        return TESS_FAIL(TESS_FORMAT, "a special token's id: expected a whole number from 0");
    }
    if (*n == TESS__MAX_TEMPLATE) {
        return TESS_FAIL(TESS_UNSUPPORTED, "more than %d special tokens on one side",
                         TESS__MAX_TEMPLATE);
    }
    (f->after_text ? f->t->suffix : f->t->prefix)[(*n)++] = (int32_t)v;
    return TESS_OK;
}

static tess_status read_template_special(frame *f, const tess_json *post, const char *name)
{
    const tess_json *ids =
        tess_json_get(tess_json_get(tess_json_get(post, "special_tokens"), name), "ids");
    if (tess_json_count(ids) == 0) {
        return TESS_FAIL(TESS_FORMAT, "special_tokens has no ids for \"%.40s\"", name);
    }
    for (size_t i = 0; i < tess_json_count(ids); i++) {
        TESS_TRY(frame_add(f, tess_json_at(ids, i)));
    }
    return TESS_OK;
}

static tess_status read_template(tess_tokenizer *t, const tess_json *post)
{
    frame f = {.t = t};
    const tess_json *single = tess_json_get(post, "single");
    for (size_t i = 0; i < tess_json_count(single); i++) {
        const tess_json *item = tess_json_at(single, i);
        const char *name =
            tess_json_string(tess_json_get(tess_json_get(item, "SpecialToken"), "id"), NULL);
        if (name != NULL) {
            TESS_TRY(read_template_special(&f, post, name));
        } else if (tess_json_get(item, "Sequence") != NULL && !f.after_text) {
            f.after_text = true;
        } else {
            return TESS_FAIL(TESS_UNSUPPORTED,
                             "single: item %zu: expected one Sequence and special "
                             "tokens around it",
                             i);
        }
    }
    return f.after_text ? TESS_OK : TESS_FAIL(TESS_FORMAT, "single: no Sequence in it");
}

/* "cls": ["<s>", 0], "sep": ["</s>", 2]. */
static tess_status read_cls_sep(tess_tokenizer *t, const tess_json *post)
{
    frame f = {.t = t};
    TESS_TRY(frame_add(&f, tess_json_at(tess_json_get(post, "cls"), 1)));
    f.after_text = true;
    return frame_add(&f, tess_json_at(tess_json_get(post, "sep"), 1));
}

static tess_status read_offsets_only(tess_tokenizer *t, const tess_json *post)
{
    (void)t;
    (void)post;
    return TESS_OK;
}

typedef struct post_type {
    const char *name;
    tess_status (*read)(tess_tokenizer *t, const tess_json *post);
} post_type;
static const post_type posts[] = {
    {"TemplateProcessing", read_template},
    {"RobertaProcessing", read_cls_sep},
    {"BertProcessing", read_cls_sep},
    {"ByteLevel", read_offsets_only},
};

static tess_status read_post(tess_tokenizer *t, const tess_json *v, int depth)
{
    if (tess_json_kind_of(v) == TESS_JSON_NULL) {
        return TESS_OK;
    }
    const char *type = type_of(v);
    const tess_json *members = tess_json_get(v, "processors");
    if (strcmp(type, "Sequence") == 0) {
        if (tess_json_kind_of(members) != TESS_JSON_ARRAY || depth >= 4) {
            return TESS_FAIL(TESS_FORMAT, "post_processor Sequence: expected a list processors, "
                                          "not nested deeply");
        }
        for (size_t i = 0; i < tess_json_count(members); i++) {
            TESS_TRY(read_post(t, tess_json_at(members, i), depth + 1));
        }
        return TESS_OK;
    }
    for (int64_t i = 0; i < TESS_COUNT(posts); i++) {
        if (strcmp(posts[i].name, type) == 0) {
            tess_status st = posts[i].read(t, v);
            return st != TESS_OK ? tess_error_prefix(st, "post_processor %s", type) : TESS_OK;
        }
    }
    return TESS_FAIL(TESS_UNSUPPORTED, "post_processor %s is not known", type);
}

/* ---- the file --------------------------------------------------------------------------- */

static int32_t find_piece(const void *self, const char *piece, size_t n_bytes)
{
    return tess__pipe_find(self, piece, n_bytes);
}

static tess_status read_root(tess__pipe *p, tess_tokenizer *t, const tess_json *root,
                             const tess__open_options *o)
{
    const tess_json *model = tess_json_get(root, "model");
    if (tess_json_kind_of(model) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_FORMAT, "this JSON is no tokenizer.json: expected \"model\"");
    }
    const char *name;
    if (o->user.open_clip) {
        TESS_TRY(tess__pipe_read_model(p, model, &name));
        return tess__clip_make_open(p, t);
    }
    TESS_TRY(read_all_added(p, tess_json_get(root, "added_tokens")));
    TESS_TRY(tess__pipe_read_model(p, model, &name));
    TESS_TRY(read_steps(p, &normal_list, tess_json_get(root, "normalizer"), 0));
    TESS_TRY(read_steps(p, &split_list, tess_json_get(root, "pre_tokenizer"), 0));
    TESS_TRY(read_post(t, tess_json_get(root, "post_processor"), 0));
    tess__fill_special(t, o, find_piece, p);
    if (t->special[TESS__UNK] < 0) {
        t->special[TESS__UNK] = p->unk_id;
    }
    return tess__pipe_finish(p, t, name);
}

tess_status tess__pipe_json_open(tess_tokenizer *t, const tess__open_options *o)
{
    tess_json_doc *doc;
    TESS_TRY(tess_json_parse((const char *)t->files[0].bytes, t->files[0].n_bytes, "tokenizer.json",
                             &doc));
    tess__pipe *p = tess__pipe_new();
    if (p != NULL) {
        p->clean = o->user.clean;
    }
    tess_status st = p != NULL ? read_root(p, t, tess_json_root(doc), o) : TESS_NOMEM;
    tess_json_free(doc);
    if (st != TESS_OK) {
        t->kind = NULL;
        tess__pipe_free(p);
    }
    return st;
}
