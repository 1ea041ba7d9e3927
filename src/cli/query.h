/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs that ask an index share. */
#ifndef TESSERA_CLI_QUERY_H
#define TESSERA_CLI_QUERY_H

#include "cli/option.h"

#include "tessera/fusion.h"
#include "tessera/index.h"

/* Opens an index and the model that belongs to it, with adapters applied: `model_dir`, or NULL for
 * the one that the index names (a relative path starts in the index).  A model with another
 * fingerprint is refused.  On failure both are NULL. */
TESS_MUST_USE tess_status cli_open_index(const char *index_dir, const char *model_dir,
                                         const cli_list *adapters, tess_precision precision,
                                         tess_index **out_index, tess_model **out_model);
/* A model directory for embedding, with adapters ("DIR" or "DIR:WEIGHT") applied where there are.
 */
TESS_MUST_USE tess_status cli_open_model(const char *dir, const cli_list *adapters,
                                         tess_precision precision, tess_model **out);

/* A model with both towers, and its adapters; a text-only model is refused. */
TESS_MUST_USE tess_status cli_open_two_towers(const char *dir, const cli_list *adapters,
                                              tess_model **out);

/* The row for --adapter, whose values are in `field`, a cli_list. */
#define CLI_ADAPTER(type, field)                                                                   \
    {                                                                                              \
        .name = "adapter", .kind = CLI_LIST, CLI_AT(type, field), .value = "DIR[:WEIGHT]",         \
        .help = "Low-rank adapter to apply, times a weight; may be repeated"                       \
    }

/* Put the model's own prompt for such texts before each of them, where it has one: "query"; and
 * "document", "passage" or "corpus".  Else its default stays. */
TESS_MUST_USE tess_status cli_use_query_prompt(tess_model *m);
TESS_MUST_USE tess_status cli_use_document_prompt(tess_model *m);

#endif
