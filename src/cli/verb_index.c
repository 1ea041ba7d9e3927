/* SPDX-License-Identifier: Apache-2.0 */
/* tessera index build, index info. */
#include "cli/progress.h"
#include "cli/query.h"
#include "cli/verbs.h"

#include <stdlib.h>
#include <string.h>

typedef struct build_values {
    cli_embedder embedder;
    const char *data, *dataset_type, *caption_key, *out, *factory;
    const char *text, *text_key, *id_key;
    int64_t workers;
    bool replace;
} build_values;

static const cli_option build_options[] = {
    CLI_EMBEDDER(build_values),
    {.name = "data",
     .short_name = 'd',
     .kind = CLI_PATH,
     CLI_AT(build_values, data),
     .value = "SOURCES",
     .help = "WebDataset shards, a CSV, TSV or JSONL file, or a folder of pictures"},
    CLI_DATASET_TYPE(build_values),
    {.name = "caption-key",
     .kind = CLI_STRING,
     CLI_AT(build_values, caption_key),
     .value = "KEY",
     .help = "Captions to keep with the pictures: a JSON field, or txt"},
    {.name = "text",
     .short_name = 't',
     .kind = CLI_PATH,
     CLI_AT(build_values, text),
     .value = "FILE",
     .help = "Texts to index, alone or beside pictures: JSON lines, CSV or TSV"},
    CLI_TEXT_KEYS(build_values),
    {.name = "out",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(build_values, out),
     .value = "DIR",
     .help = "The index directory to make"},
    {.name = "index-key",
     .kind = CLI_STRING,
     .fallback = "auto",
     CLI_AT(build_values, factory),
     .value = "STRING",
     .help = "FAISS factory string, or auto"},
    {.name = "replace",
     CLI_AT(build_values, replace),
     .help = "Take the place of an index that is there"},
    CLI_WORKERS(build_values, "Loader threads"),
    CLI_COMPUTES(build_values),
};

typedef struct build {
    cli_progress progress; /* first: see cli_show_corpus */
    tess_index_builder *builder;
    tess_buf captions;
    const cli_common *common;
} build;

/* {"language": "text", ...}; several texts of one language become an array. */
static void write_captions(const tess_dataset *ds, const tess_sample *s, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_buf_clear(out);
    tess_json_begin_object(&w);
    for (int64_t i = 0; i < s->n_captions; i++) {
        bool first = true;
        for (int64_t k = 0; k < i; k++) {
            first &= s->captions[k].language != s->captions[i].language;
        }
        if (!first) {
            continue;
        }
        int64_t n = 0;
        for (int64_t k = i; k < s->n_captions; k++) {
            n += s->captions[k].language == s->captions[i].language;
        }
        tess_json_key(&w, tess_dataset_language(ds, s->captions[i].language));
        if (n > 1) {
            tess_json_begin_array(&w);
        }
        for (int64_t k = i; k < s->n_captions; k++) {
            if (s->captions[k].language == s->captions[i].language) {
                tess_json_add_string(&w, s->captions[k].text);
            }
        }
        if (n > 1) {
            tess_json_end_array(&w);
        }
    }
    tess_json_end_object(&w);
}

static tess_status add_row(void *ctx, const tess_dataset *ds, const tess_sample *s,
                           const float *vector)
{
    build *b = ctx;
    tess_picture_info info = {0};
    TESS_TRY(tess_picture_probe(s->picture.data, s->picture.n_bytes, &info));
    tess_row row = {.key = s->key,
                    .kind = TESS_ROW_IMAGE,
                    .path = s->path[0] ? s->path : NULL,
                    .offset = s->offset,
                    .n_bytes = (int64_t)s->picture.n_bytes,
                    .width = info.width,
                    .height = info.height};
    if (s->n_captions > 0) {
        write_captions(ds, s, &b->captions);
        TESS_TRY(tess_buf_check(&b->captions));
        row.captions = b->captions.data;
    }
    return tess_index_builder_add(b->builder, vector, &row, 1);
}

/* The text is the row's caption: shown with a hit, and what a lexical search reads. */
static tess_status add_text(void *ctx, const char *key, const char *text, const float *vector)
{
    build *b = ctx;
    tess_json_writer w = {.buf = &b->captions};
    tess_buf_clear(&b->captions);
    tess_json_add_string(&w, text);
    TESS_TRY(tess_buf_check(&b->captions));
    tess_row row = {.key = key, .kind = TESS_ROW_TEXT, .captions = b->captions.data};
    return tess_index_builder_add(b->builder, vector, &row, 1);
}

/* What was built: of the pictures and of the texts. */
typedef struct built {
    tess_corpus_report pictures, texts;
} built;

static tess_status print_built(const cli_command *cmd, const built *r)
{
    const build_values *v = cmd->values;
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out};
    if (cmd->common.json) {
        tess_json_begin_object(&w);
        tess_json_key(&w, "index");
        tess_json_add_string(&w, v->out);
        tess_json_key(&w, "rows");
        tess_json_add_int(&w, r->pictures.n_embedded + r->texts.n_embedded);
        tess_json_key(&w, "left_out");
        tess_json_add_int(&w, tess_bad_list_total(&r->pictures.bad) +
                                  tess_bad_list_total(&r->texts.bad));
        tess_json_end_object(&w);
    } else {
        tess_buf_addf(&out, "%s: ", v->out);
        if (v->data) {
            tess_buf_addf(&out, "%lld pictures", (long long)r->pictures.n_embedded);
            cli_add_left_out(&r->pictures, &out);
        }
        if (v->text) {
            tess_buf_addf(&out, "%s%lld texts", v->data ? "; " : "",
                          (long long)r->texts.n_embedded);
            cli_add_left_out(&r->texts, &out);
        }
    }
    tess_buf_adds(&out, "\n");
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

/* The model's path from inside the index: both may then move together.  Models elsewhere than below
 * the index's own folder are recorded by their absolute path. */
static char *path_from_index(const char *index, const char *model)
{
    const char *slash = strrchr(index, '/');
    char *parent = tess_format("%.*s", slash ? (int)(slash - index) + 1 : 2, slash ? index : "./");
    char *from = parent ? realpath(parent, NULL) : NULL, *to = realpath(model, NULL);
    size_t n = from ? strlen(from) : 0;
    char *out = NULL;
    if (from && to && strncmp(from, to, n) == 0 && to[n] == '/') {
        out = tess_format("..%s", to + n);
    } else {
        out = tess_strdup(to ? to : model);
    }
    free(from); /* libc */
    free(to);   /* libc */
    tess_free(parent);
    return out;
}

static tess_status embed_pictures(const build_values *v, tess_model *m, build *b,
                                  tess_corpus_report *r)
{
    const tess_corpus_options o = {.data = v->data,
                                   .dataset_type = v->dataset_type,
                                   .caption_key = v->caption_key,
                                   .workers = (int)v->workers,
                                   .on_progress = cli_show_corpus};
    b->progress = cli_progress_new(b->common, "embed", "img");
    const tess_status st = tess_corpus_embed(m, &o, add_row, b, r);
    cli_progress_end(&b->progress);
    return st;
}

static tess_status embed_texts(const build_values *v, tess_model *m, build *b,
                               tess_corpus_report *r)
{
    const tess_text_corpus_options o = {.path = v->text,
                                        .text_key = v->text_key,
                                        .id_key = v->id_key,
                                        .on_progress = cli_show_corpus};
    TESS_TRY(cli_use_document_prompt(m));
    b->progress = cli_progress_new(b->common, "embed", "B");
    const tess_status st = tess_text_corpus_embed(m, &o, add_text, b, r);
    cli_progress_end(&b->progress);
    return st;
}

static tess_status build_index(cli_command *cmd, tess_model *m, build *b)
{
    const build_values *v = cmd->values;
    char fingerprint[33];
    TESS_TRY(tess_model_fingerprint(m, fingerprint));
    char *model = path_from_index(v->out, v->embedder.model);
    if (!model) {
        return TESS_NOMEM;
    }
    tess_index_options io = {.dim = tess_model_embed_dim(m),
                             .fingerprint = fingerprint,
                             .model = model,
                             .factory = v->factory,
                             .replace = v->replace};
    tess_status st = tess_index_builder_open(v->out, &io, &b->builder);
    tess_free(model);
    TESS_TRY(st);
    built r = {0};
    st = v->data ? embed_pictures(v, m, b, &r.pictures) : TESS_OK;
    st = st ? st : v->text ? embed_texts(v, m, b, &r.texts) : TESS_OK;
    if (st) {
        tess_index_builder_abort(b->builder);
    } else {
        st = tess_index_builder_commit(b->builder);
        st = st ? st : print_built(cmd, &r);
    }
    tess_corpus_report_deinit(&r.pictures);
    tess_corpus_report_deinit(&r.texts);
    return st;
}

static tess_status run_build(cli_command *cmd)
{
    const build_values *v = cmd->values;
    if (!v->embedder.model || (!v->data && !v->text) || !v->out) {
        return cli_usage_error(cmd, "index build needs --model, --out, and --data or --text, or "
                                    "both");
    }
    tess_model *m = NULL;
    build b = {.common = &cmd->common};
    tess_compute_threads(0);
    tess_status st = cli_open_embedder(&v->embedder, v->embedder.model, &m);
    st = st ? st : build_index(cmd, m, &b);
    tess_buf_deinit(&b.captions);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_index_build = {
    .name = "index build",
    .summary = "Embed pictures or texts and make them searchable",
    .options = build_options,
    .n_options = TESS_COUNT(build_options),
    .values_bytes = sizeof(build_values),
    .computes = true,
    .about = "The index records the model's fingerprint and where every picture's bytes are; it "
             "appears whole or not at all. Pictures and texts that cannot be read are counted and "
             "named. --text takes a record a line, {\"key\": ..., \"text\": ...}, with any text "
             "model; the text is kept in the index.",
    .examples = "$ tessera index build --model logs/first/model --data ~/Pictures --out photos\n"
                "$ tessera index build -m model -d 'shards/{000..099}.tar' -o big --index-key "
                "IVF4096,SQ8\n"
                "$ tessera index build -m all-MiniLM-L6-v2 --text packages.jsonl -o packages",
    .run = run_build,
};

/* ---- info ---------------------------------------------------------------------------------- */

typedef struct info_values {
    char unused;
} info_values;

static tess_status run_info(cli_command *cmd)
{
    tess_index *ix = NULL;
    tess_buf json = {0}, out = {0};
    tess_json_doc *doc = NULL;
    tess_status st = tess_index_open(cmd->args[0], NULL, &ix);
    st = st ? st : tess_index_info(ix, &json);
    if (st == TESS_OK && cmd->common.json) {
        tess_buf_add(&out, json.data, json.n_bytes);
        tess_buf_adds(&out, "\n");
    } else if (st == TESS_OK) {
        st = tess_json_parse(json.data, json.n_bytes, "info", &doc);
        const tess_json *root = st ? NULL : tess_json_root(doc);
        for (size_t i = 0; i < tess_json_count(root); i++) {
            const char *key;
            tess_buf value = {0};
            tess_json_writer w = {.buf = &value};
            const tess_json *member = tess_json_member(root, i, &key);
            tess_json_add_value(&w, member);
            tess_buf_addf(&out, "%-12s %s\n", key,
                          tess_json_string(member, value.data ? value.data : ""));
            tess_buf_deinit(&value);
        }
    }
    st = st ? st : cli_print(&out);
    tess_json_free(doc);
    tess_buf_deinit(&json);
    tess_buf_deinit(&out);
    tess_index_close(ix);
    return st;
}

const cli_verb cli_verb_index_info = {
    .name = "index info",
    .summary = "Show what an index holds",
    .values_bytes = sizeof(info_values),
    .positional = "DIR",
    .min_args = 1,
    .max_args = 1,
    .args_are_files = true,
    .examples = "$ tessera index info photos",
    .run = run_info,
};
