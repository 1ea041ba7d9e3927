/* SPDX-License-Identifier: Apache-2.0 */
/* The model of a verb that embeds: its option rows, how it is opened, and what such verbs do with
 * it. */
#ifndef TESSERA_CLI_OPEN_MODEL_H
#define TESSERA_CLI_OPEN_MODEL_H

#include "cli/common_rows.h"
#include "cli/precision.h"

#include "tessera/train.h"

/* What the rows fill: a field `embedder` of the verb's struct. */
typedef struct cli_embedder {
    const char *model;     /* directory */
    const char *precision; /* NULL: a verb without --precision, auto */
    const char *device;
    cli_list adapters; /* "DIR" or "DIR:WEIGHT" */
} cli_embedder;

/* Two rows each: --model and --adapter; of an index, which names its model. */
#define CLI_EMBEDDER(values)                                                                       \
    CLI_MODEL_OF(values, embedder.model, "Model directory"), CLI_ADAPTER(values, embedder.adapters)
#define CLI_EMBEDDER_OF_INDEX(values)                                                              \
    CLI_MODEL_OF(values, embedder.model,                                                           \
                 "Model directory; default: the one that the index was built with"),               \
        CLI_ADAPTER(values, embedder.adapters)
/* Two rows: --precision and --device. */
#define CLI_COMPUTES(values)                                                                       \
    CLI_PRECISION(values, embedder.precision), CLI_DEVICE(values, embedder.device)

/* Opens the model in `dir` (e->model, where the verb has no index) for embedding. */
TESS_MUST_USE tess_status cli_open_embedder(const cli_embedder *e, const char *dir,
                                            tess_model **out);
/* The same with weights that are not packed; a model without an image tower is refused. */
TESS_MUST_USE tess_status cli_open_two_towers(const cli_embedder *e, tess_model **out);

/* The vector of a picture file; errors name the file. */
TESS_MUST_USE tess_status cli_embed_file(tess_model *m, const char *path, float *out);

/* A corpus's progress on a bar: for on_progress, where the context begins with a cli_progress. */
void cli_show_corpus(void *ctx, int64_t n_done, int64_t n_total);
/* "; left out: ..." where something was. */
void cli_add_left_out(const tess_corpus_report *r, tess_buf *out);

#endif
