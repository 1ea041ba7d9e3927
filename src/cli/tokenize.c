/* SPDX-License-Identifier: Apache-2.0 */
/* tessera tokenize: the ids and pieces of texts, one text a line. */
#include "cli/verbs.h"

#include "tessera/text.h"

#include <string.h>

typedef struct tokenize_values {
    const char *model, *format;
    bool bos, eos, special, clean;
    int64_t max_length;
} tokenize_values;

static const cli_option tokenize_options[] = {
    {.name = "model",
     .short_name = 'm',
     .kind = CLI_PATH,
     CLI_AT(tokenize_values, model),
     .help =
         "Tokenizer file (.model, tokenizer.json, vocab.txt, CLIP's vocabulary) or the directory "
         "of a model"},
    {.name = "format",
     .kind = CLI_CHOICE,
     .choices = "both|ids|pieces",
     .fallback = "both",
     CLI_AT(tokenize_values, format),
     .help = "What to print for a text: its pieces on one line and its ids on the next, or one of "
             "them"},
    {.name = "bos", CLI_AT(tokenize_values, bos), .help = "Begin with the begin-of-text id"},
    {.name = "eos", CLI_AT(tokenize_values, eos), .help = "End with the end-of-text id"},
    {.name = "special",
     CLI_AT(tokenize_values, special),
     .help = "Put the model's own special ids around the text: [CLS] and [SEP], <s> and </s>, ..."},
    {.name = "clean",
     CLI_AT(tokenize_values, clean),
     .help = "Clean the text first, as training and search do"},
    {.name = "max-length",
     .kind = CLI_INT,
     .fallback = "0",
     .min = 0,
     .max = 1 << 20,
     CLI_AT(tokenize_values, max_length),
     .help = "Cut to this many ids; 0: no limit"},
};

enum { INPUT_MAX = 64 << 20 };

/* What one run works with. */
typedef struct work {
    const tokenize_values *values;
    bool json;
    tess_tokenizer *tokenizer;
    tess_tokenizer_scratch *scratch;
    tess_ids ids;
    tess_buf cleaned, piece, out;
} work;

static const char *piece_text(work *w, int32_t id)
{
    tess_bytes piece = tess_tokenizer_piece(w->tokenizer, id);
    tess_buf_clear(&w->piece);
    tess_buf_add(&w->piece, piece.data, piece.n_bytes);
    return w->piece.data != NULL ? w->piece.data : "";
}

static void print_text(work *w)
{
    const char *format = w->values->format;
    for (size_t i = 0; strcmp(format, "ids") != 0 && i < w->ids.n_ids; i++) {
        tess_buf_addf(&w->out, "%s%s", i > 0 ? " " : "", piece_text(w, w->ids.ids[i]));
    }
    tess_buf_adds(&w->out, strcmp(format, "both") == 0 ? "\n" : "");
    for (size_t i = 0; strcmp(format, "pieces") != 0 && i < w->ids.n_ids; i++) {
        tess_buf_addf(&w->out, "%s%d", i > 0 ? " " : "", w->ids.ids[i]);
    }
    tess_buf_adds(&w->out, "\n");
}

static void print_json(work *w)
{
    tess_json_writer json = {.buf = &w->out};
    tess_json_begin_object(&json);
    tess_json_key(&json, "ids");
    tess_json_begin_array(&json);
    for (size_t i = 0; i < w->ids.n_ids; i++) {
        tess_json_add_int(&json, w->ids.ids[i]);
    }
    tess_json_end_array(&json);
    tess_json_key(&json, "pieces");
    tess_json_begin_array(&json);
    for (size_t i = 0; i < w->ids.n_ids; i++) {
        tess_json_add_string(&json, piece_text(w, w->ids.ids[i]));
    }
    tess_json_end_array(&json);
    tess_json_end_object(&json);
    tess_buf_adds(&w->out, "\n");
}

static tess_status tokenize_one(work *w, const char *text, size_t n_bytes)
{
    const tess_encode_options options = {
        .add_bos = w->values->bos,
        .add_eos = w->values->eos,
        .add_special = w->values->special,
        .max_ids = (size_t)w->values->max_length,
        .scratch = w->scratch,
    };
    if (w->values->clean) {
        TESS_TRY(tess_text_clean(text, n_bytes, 0, &w->cleaned));
        text = w->cleaned.data;
        n_bytes = w->cleaned.n_bytes;
    }
    w->ids.n_ids = 0;
    TESS_TRY(tess_tokenizer_encode(w->tokenizer, &w->ids, text, n_bytes, &options));
    tess_buf_clear(&w->out);
    if (w->json) {
        print_json(w);
    } else {
        print_text(w);
    }
    return cli_print(&w->out);
}

static tess_status tokenize_lines(work *w, const char *text, size_t n_bytes)
{
    int64_t line = 1;
    for (size_t i = 0; i < n_bytes; line++) {
        const char *end = memchr(text + i, '\n', n_bytes - i);
        size_t n = end != NULL ? (size_t)(end - (text + i)) : n_bytes - i;
        tess_status st = tokenize_one(w, text + i, n);
        if (st != TESS_OK) {
            return tess_error_prefix(st, "standard input:%lld", (long long)line);
        }
        i += n + 1;
    }
    return TESS_OK;
}

static tess_status tokenize_stdin(work *w)
{
    tess_buf input = {0};
    char block[1 << 14];
    size_t n;
    tess_status st = TESS_OK;
    while (input.n_bytes <= INPUT_MAX && (n = fread(block, 1, sizeof(block), stdin)) > 0) {
        tess_buf_add(&input, block, n);
    }
    if (ferror(stdin)) {
        st = tess__fail_errno("read", "standard input");
    } else if (input.n_bytes > INPUT_MAX) {
        st = TESS_FAIL(TESS_INVALID, "standard input: more than %d bytes; split it", INPUT_MAX);
    }
    if (st == TESS_OK) {
        st = tess_buf_check(&input);
    }
    if (st == TESS_OK) {
        st = tokenize_lines(w, input.data, input.n_bytes);
    }
    tess_buf_deinit(&input);
    return st;
}

static tess_status tokenize_all(work *w, const cli_command *cmd)
{
    bool from_stdin = cmd->n_args == 0 || (cmd->n_args == 1 && strcmp(cmd->args[0], "-") == 0);
    TESS_TRY(tess_tokenizer_open(w->values->model, &w->tokenizer));
    w->scratch = tess_tokenizer_scratch_new();
    if (w->scratch == NULL) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; !from_stdin && i < cmd->n_args; i++) {
        TESS_TRY(tokenize_one(w, cmd->args[i], strlen(cmd->args[i])));
    }
    return from_stdin ? tokenize_stdin(w) : TESS_OK;
}

static tess_status run_tokenize(cli_command *cmd)
{
    work w = {.values = cmd->values, .json = cmd->common.json};
    if (w.values->model == NULL) {
        return cli_usage_error(cmd, "tokenize needs --model FILE or DIRECTORY");
    }
    tess_status st = tokenize_all(&w, cmd);
    tess_tokenizer_scratch_free(w.scratch);
    tess_tokenizer_close(w.tokenizer);
    tess_ids_deinit(&w.ids);
    tess_buf_deinit(&w.cleaned);
    tess_buf_deinit(&w.piece);
    tess_buf_deinit(&w.out);
    return st;
}

const cli_verb cli_verb_tokenize = {
    .name = "tokenize",
    .summary = "Show the ids and pieces of texts",
    .options = tokenize_options,
    .n_options = TESS_COUNT(tokenize_options),
    .values_bytes = sizeof(tokenize_values),
    .positional = "[TEXT...]",
    .max_args = -1,
    .examples = "One text:\n$ tessera tokenize --model spm.model \"a red car\"\n"
                "As a model of Hugging Face gets it:\n"
                "$ tessera tokenize --model models/bert-base --special \"a red car\"\n"
                "The lines of a file, as JSON:\n"
                "$ tessera tokenize --model spm.model --json - < captions.txt",
    .about = "Without TEXT, or with -, the lines of standard input are read.",
    .run = run_tokenize,
};
