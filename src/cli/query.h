/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs that ask an index share. */
#ifndef TESSERA_CLI_QUERY_H
#define TESSERA_CLI_QUERY_H

#include "cli/open_model.h"

#include "tessera/index.h"

/* Opens an index and the model that belongs to it, with adapters applied: e->model, or where it is
 * NULL the one that the index names (a relative path starts in the index).  A model with another
 * fingerprint is refused.  On failure both are NULL. */
TESS_MUST_USE tess_status cli_open_index(const char *index_dir, const cli_embedder *e,
                                         tess_index **out_index, tess_model **out_model);

/* Put the model's own prompt for such texts before each of them, where it has one: "query"; and
 * "document", "passage" or "corpus".  Else its default stays. */
TESS_MUST_USE tess_status cli_use_query_prompt(tess_model *m);
TESS_MUST_USE tess_status cli_use_document_prompt(tess_model *m);

#endif
