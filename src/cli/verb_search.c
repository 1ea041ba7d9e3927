/* SPDX-License-Identifier: Apache-2.0 */
/* tessera search: pictures by words, by a picture, or by both. */
#include "cli/query.h"
#include "cli/verbs.h"

#include <math.h>
#include <string.h>

typedef struct search_values {
    cli_embedder embedder;
    const char *index, *text, *image;
    double text_weight, image_weight;
    int64_t k;
} search_values;

static const cli_option search_options[] = {
    {.name = "index",
     .short_name = 'i',
     .kind = CLI_PATH,
     CLI_AT(search_values, index),
     .value = "DIR",
     .help = "Index directory"},
    CLI_EMBEDDER_OF_INDEX(search_values),
    {.name = "text",
     .short_name = 't',
     .kind = CLI_STRING,
     CLI_AT(search_values, text),
     .help = "Words, in any language the model knows"},
    {.name = "image",
     .kind = CLI_PATH,
     CLI_AT(search_values, image),
     .value = "FILE",
     .help = "A JPEG, PNG or WebP file"},
    {.name = "text-weight",
     .kind = CLI_REAL,
     .fallback = "1",
     .min = -100,
     .max = 100,
     CLI_AT(search_values, text_weight),
     .value = "W",
     .help = "Of the words, beside a picture"},
    {.name = "image-weight",
     .kind = CLI_REAL,
     .fallback = "1",
     .min = -100,
     .max = 100,
     CLI_AT(search_values, image_weight),
     .value = "W",
     .help = "Of the picture, beside words"},
    {.name = "k",
     .short_name = 'k',
     .kind = CLI_INT,
     .fallback = "10",
     .min = 1,
     .max = TESS_INDEX_MAX_K,
     CLI_AT(search_values, k),
     .value = "N",
     .help = "How many results"},
    CLI_COMPUTES(search_values),
};

static void add_scaled(float *sum, const float *x, double weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] += (float)weight * x[i];
    }
}

static tess_status embed_query(tess_model *m, const search_values *v, const char *text, float *sum)
{
    int64_t n = tess_model_embed_dim(m);
    float *x = tess_alloc_array((size_t)n, sizeof *x);
    tess_status st = x ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK && text) {
        st = tess_model_embed_text(m, text, strlen(text), x);
        add_scaled(sum, x, v->text_weight, st ? 0 : n);
    }
    if (st == TESS_OK && v->image) {
        st = cli_embed_file(m, v->image, x);
        add_scaled(sum, x, v->image_weight, st ? 0 : n);
    }
    tess_free(x);
    return st;
}

/* The caption shown for a row: English where there is one, else the first; of a long one the first
 * line is printed. */
static const char *headline(const tess_json *root)
{
    const tess_json *v = tess_json_get(root, "en");
    const char *key;
    v = v                                             ? v
        : tess_json_kind_of(root) == TESS_JSON_OBJECT ? tess_json_member(root, 0, &key)
                                                      : root;
    v = tess_json_kind_of(v) == TESS_JSON_ARRAY ? tess_json_at(v, 0) : v;
    return tess_json_string(v, "");
}

static void add_json(tess_json_writer *w, const tess_row *row, const tess_json *captions,
                     float score)
{
    tess_json_begin_object(w);
    tess_json_key(w, "row");
    tess_json_add_int(w, row->id);
    tess_json_key(w, "key");
    tess_json_add_string(w, row->key);
    tess_json_key(w, "kind");
    tess_json_add_string(w, tess_row_kind_name(row->kind));
    tess_json_key(w, "score");
    tess_json_add_real(w, (double)score);
    tess_json_key(w, "path");
    tess_json_add_string(w, row->path);
    tess_json_key(w, "offset");
    tess_json_add_int(w, row->offset);
    tess_json_key(w, "bytes");
    tess_json_add_int(w, row->n_bytes);
    tess_json_key(w, "captions");
    if (captions) {
        tess_json_add_value(w, captions);
    } else {
        tess_json_add_null(w);
    }
    tess_json_end_object(w);
}

static tess_status print_hits(tess_index *ix, const tess_hit *hits, int64_t n, bool json,
                              double seconds)
{
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out};
    tess_arena arena = {0};
    tess_status st = TESS_OK;
    if (json) {
        tess_json_begin_object(&w);
        tess_json_key(&w, "took_ms");
        tess_json_add_real(&w, round(seconds * 1e4) / 10);
        tess_json_key(&w, "results");
        tess_json_begin_array(&w);
    }
    for (int64_t i = 0; st == TESS_OK && i < n; i++) {
        tess_row row;
        tess_json_doc *doc = NULL;
        st = tess_index_row(ix, hits[i].row, &arena, &row);
        if (st == TESS_OK && row.captions) {
            st = tess_json_parse(row.captions, strlen(row.captions), "captions", &doc);
        }
        const tess_json *captions = doc ? tess_json_root(doc) : NULL;
        if (st == TESS_OK && json) {
            add_json(&w, &row, captions, hits[i].score);
        } else if (st == TESS_OK) {
            const char *words = headline(captions);
            tess_buf_addf(&out, "%2lld. %.4f  %-24s %.*s\n", (long long)i + 1,
                          (double)hits[i].score, row.key, (int)strcspn(words, "\n"), words);
        }
        tess_json_free(doc);
    }
    if (json) {
        tess_json_end_array(&w);
        tess_json_end_object(&w);
        tess_buf_adds(&out, "\n");
    }
    st = st ? st : cli_print(&out);
    tess_buf_deinit(&out);
    tess_arena_deinit(&arena);
    return st;
}

static tess_status search(cli_command *cmd, const char *text)
{
    const search_values *v = cmd->values;
    double start = tess_seconds();
    tess_model *m = NULL;
    tess_index *ix = NULL;
    tess_status st = cli_open_index(v->index, &v->embedder, &ix, &m);
    float *query = NULL;
    tess_hit *hits = NULL;
    int64_t n_hits = 0;
    if (st == TESS_OK) {
        query = tess_alloc_array((size_t)tess_model_embed_dim(m), sizeof *query);
        hits = tess_alloc_array((size_t)v->k, sizeof *hits);
        st = query && hits ? embed_query(m, v, text, query) : TESS_NOMEM;
    }
    st = st ? st : tess_index_search(ix, query, 1, v->k, hits, &n_hits);
    st = st ? st : print_hits(ix, hits, n_hits, cmd->common.json, tess_seconds() - start);
    tess_free(query);
    tess_free(hits);
    tess_index_close(ix);
    tess_model_free(m);
    return st;
}

static tess_status run_search(cli_command *cmd)
{
    const search_values *v = cmd->values;
    tess_buf words = {0};
    for (size_t i = 0; i < cmd->n_args; i++) {
        tess_buf_addf(&words, "%s%s", i ? " " : "", cmd->args[i]);
    }
    const char *text = v->text ? v->text : words.data;
    tess_status st;
    if (!v->index) {
        st = cli_usage_error(cmd, "search needs --index DIR");
    } else if (!text && !v->image) {
        st = cli_usage_error(cmd, "search needs words, --image FILE, or both");
    } else if (v->text && words.data) {
        st = cli_usage_error(cmd, "give the words once: with --text or without");
    } else {
        st = search(cmd, text);
    }
    tess_buf_deinit(&words);
    return st;
}

const cli_verb cli_verb_search = {
    .name = "search",
    .summary = "Find pictures by words, by a picture, or by both",
    .options = search_options,
    .n_options = TESS_COUNT(search_options),
    .values_bytes = sizeof(search_values),
    .positional = "[WORDS...]",
    .max_args = -1,
    .computes = true,
    .examples = "$ tessera search --index demo/index --text \"ein lachendes Gesicht\"\n"
                "$ tessera search --index demo/index --image holiday.jpg\n"
                "A picture, but at night:\n"
                "$ tessera search -i demo/index --image beach.jpg --text night --text-weight 0.5",
    .run = run_search,
};
