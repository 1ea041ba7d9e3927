/* SPDX-License-Identifier: Apache-2.0 */
/* tessera embed: vectors of a corpus in clip-retrieval's layout, or of one text or picture.
 *
 *   OUT/img_emb/img_emb_0.npy         (N,Z) f32, row order is the join key; of texts
 *                                     OUT/text_emb/text_emb_0.npy
 *   OUT/metadata/metadata_0.jsonl     {"key","path","offset","bytes"} a row; of texts the key
 */
#include "cli/open_model.h"
#include "cli/progress.h"
#include "cli/verbs.h"

#include <string.h>

typedef struct embed_values {
    cli_embedder embedder;
    const char *data, *dataset_type, *out, *text, *image;
    const char *texts, *text_key, *id_key, *prompt;
    int64_t workers;
} embed_values;

static const cli_option embed_options[] = {
    CLI_EMBEDDER(embed_values),
    {.name = "text",
     .short_name = 't',
     .kind = CLI_STRING,
     CLI_AT(embed_values, text),
     .help = "Print the vector of this text"},
    {.name = "image",
     .kind = CLI_PATH,
     CLI_AT(embed_values, image),
     .value = "FILE",
     .help = "Print the vector of this picture"},
    {.name = "data",
     .short_name = 'd',
     .kind = CLI_PATH,
     CLI_AT(embed_values, data),
     .value = "SOURCES",
     .help = "Embed every picture of these"},
    CLI_DATASET_TYPE(embed_values),
    {.name = "texts",
     .kind = CLI_PATH,
     CLI_AT(embed_values, texts),
     .value = "FILE",
     .help = "Embed every text of this: JSON lines, CSV or TSV"},
    CLI_TEXT_KEYS(embed_values),
    {.name = "prompt",
     .kind = CLI_STRING,
     CLI_AT(embed_values, prompt),
     .value = "NAME",
     .help = "The model's prompt to put before the texts: query, document"},
    {.name = "out",
     .short_name = 'o',
     .kind = CLI_PATH,
     CLI_AT(embed_values, out),
     .value = "DIR",
     .help = "Directory for the vectors of --data or --texts"},
    CLI_WORKERS(embed_values, "Loader threads"),
    CLI_COMPUTES(embed_values),
};

/* ---- one vector ---------------------------------------------------------------------------- */

static tess_status print_vector(const float *x, int64_t n)
{
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out};
    tess_json_begin_array(&w);
    for (int64_t i = 0; i < n; i++) {
        tess_json_add_real(&w, (double)x[i]);
    }
    tess_json_end_array(&w);
    tess_buf_adds(&out, "\n");
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

static tess_status embed_one(const embed_values *v, tess_model *m)
{
    int64_t n = tess_model_embed_dim(m);
    float *x = tess_alloc_array((size_t)n, sizeof *x);
    tess_status st = !x        ? TESS_NOMEM
                     : v->text ? tess_model_embed_text(m, v->text, strlen(v->text), x)
                               : cli_embed_file(m, v->image, x);
    st = st ? st : print_vector(x, n);
    tess_free(x);
    return st;
}

/* ---- a corpus ------------------------------------------------------------------------------ */

typedef struct dump {
    cli_progress progress; /* first: see cli_show_corpus */
    tess_buf vectors, rows;
    int64_t dim, n;
    bool texts;
} dump;

/* A vector, and its row; `s` NULL: of a text, which has a key alone. */
static tess_status add(dump *d, const char *key, const tess_sample *s, const float *vector)
{
    tess_json_writer w = {.buf = &d->rows};
    tess_buf_add(&d->vectors, vector, (size_t)d->dim * sizeof *vector);
    tess_json_begin_object(&w);
    tess_json_key(&w, "key");
    tess_json_add_string(&w, key);
    if (s) {
        tess_json_key(&w, "path");
        tess_json_add_string(&w, s->path);
        tess_json_key(&w, "offset");
        tess_json_add_int(&w, s->offset);
        tess_json_key(&w, "bytes");
        tess_json_add_int(&w, (int64_t)s->picture.n_bytes);
    }
    tess_json_end_object(&w);
    tess_buf_adds(&d->rows, "\n");
    d->n++;
    TESS_TRY(tess_buf_check(&d->vectors));
    return tess_buf_check(&d->rows);
}

static tess_status add_picture(void *ctx, const tess_dataset *ds, const tess_sample *s,
                               const float *vector)
{
    (void)ds;
    return add(ctx, s->key, s, vector);
}

static tess_status add_text(void *ctx, const char *key, const char *text, const float *vector)
{
    (void)text;
    return add(ctx, key, NULL, vector);
}

/* NumPy's format 1.0: magic, version, header length, a Python literal padded to 64 bytes. */
static tess_status write_npy(const char *path, const dump *d)
{
    char header[128];
    int n = snprintf(header, sizeof header,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld), }",
                     (long long)d->n, (long long)d->dim);
    memset(header + n, ' ', sizeof header - (size_t)n);
    uint16_t length = (uint16_t)(118);
    header[length - 1] = '\n';
    tess_writer *w = NULL;
    TESS_TRY(tess_writer_open(path, &w));
    const uint8_t magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)length, 0};
    tess_status st = tess_writer_write(w, magic, sizeof magic);
    st = st ? st : tess_writer_write(w, header, length);
    st = st ? st : tess_writer_write(w, d->vectors.data ? d->vectors.data : "", d->vectors.n_bytes);
    if (st) {
        tess_writer_abort(w);
        return st;
    }
    return tess_writer_commit(w);
}

static tess_status write_dump(const char *out, const dump *d)
{
    tess_arena a = {0};
    const char *kind = d->texts ? "text_emb" : "img_emb";
    const char *vectors = tess_arena_format(&a, "%s/%s", out, kind);
    const char *rows = tess_arena_format(&a, "%s/metadata", out);
    const char *npy = tess_arena_format(&a, "%s/%s/%s_0.npy", out, kind, kind);
    const char *jsonl = tess_arena_format(&a, "%s/metadata/metadata_0.jsonl", out);
    tess_status st = vectors && rows && npy && jsonl ? tess_dir_make(vectors) : TESS_NOMEM;
    st = st ? st : tess_dir_make(rows);
    st = st ? st : write_npy(npy, d);
    st = st ? st : tess_file_write(jsonl, d->rows.data ? d->rows.data : "", d->rows.n_bytes);
    tess_arena_deinit(&a);
    return st;
}

static tess_status print_dumped(const char *out, const tess_corpus_report *r, bool json)
{
    tess_buf b = {0};
    if (json) {
        tess_buf_addf(&b, "{\"vectors\":%lld,\"left_out\":%lld}\n", (long long)r->n_embedded,
                      (long long)tess_bad_list_total(&r->bad));
    } else {
        tess_buf_addf(&b, "%s: %lld vectors", out, (long long)r->n_embedded);
        cli_add_left_out(r, &b);
        tess_buf_adds(&b, "\n");
    }
    tess_status st = cli_print(&b);
    tess_buf_deinit(&b);
    return st;
}

static tess_status embed_corpus(cli_command *cmd, tess_model *m)
{
    const embed_values *v = cmd->values;
    dump d = {.dim = tess_model_embed_dim(m),
              .progress = cli_progress_new(&cmd->common, "embed", v->texts ? "B" : "img"),
              .texts = v->texts != NULL};
    tess_corpus_report r = {0};
    tess_corpus_options o = {.data = v->data,
                             .dataset_type = v->dataset_type,
                             .workers = (int)v->workers,
                             .on_progress = cli_show_corpus};
    const tess_text_corpus_options texts = {.path = v->texts,
                                            .text_key = v->text_key,
                                            .id_key = v->id_key,
                                            .on_progress = cli_show_corpus};
    tess_status st = v->texts ? tess_text_corpus_embed(m, &texts, add_text, &d, &r)
                              : tess_corpus_embed(m, &o, add_picture, &d, &r);
    cli_progress_end(&d.progress);
    st = st ? st : write_dump(v->out, &d);
    st = st ? st : print_dumped(v->out, &r, cmd->common.json);
    tess_corpus_report_deinit(&r);
    tess_buf_deinit(&d.vectors);
    tess_buf_deinit(&d.rows);
    return st;
}

static tess_status run_embed(cli_command *cmd)
{
    const embed_values *v = cmd->values;
    const bool many = v->data || v->texts;
    int what = (v->text != NULL) + (v->image != NULL) + (v->data != NULL) + (v->texts != NULL);
    if (!v->embedder.model || what != 1 || (many && !v->out)) {
        return cli_usage_error(cmd, "embed needs --model and one of --text, --image, and --data or "
                                    "--texts with --out");
    }
    tess_model *m = NULL;
    tess_compute_threads(0);
    tess_status st = cli_open_embedder(&v->embedder, v->embedder.model, &m);
    st = st ? st : v->prompt ? tess_model_set_prompt(m, v->prompt) : TESS_OK;
    st = st ? st : many ? embed_corpus(cmd, m) : embed_one(v, m);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_embed = {
    .name = "embed",
    .summary = "Turn pictures or texts into vectors",
    .options = embed_options,
    .n_options = TESS_COUNT(embed_options),
    .values_bytes = sizeof(embed_values),
    .computes = true,
    .about = "--data writes img_emb/img_emb_0.npy and metadata/metadata_0.jsonl, rows in the same "
             "order; the layout of clip-retrieval, with JSON lines in place of Parquet. --texts "
             "writes text_emb/text_emb_0.npy.",
    .examples = "$ tessera embed --model logs/first/model --text \"a red car\"\n"
                "$ tessera embed --model logs/first/model --data ~/Pictures --out vectors",
    .run = run_embed,
};
