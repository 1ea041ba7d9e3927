/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs that ask an index share. */
#ifndef TESSERA_CLI_QUERY_H
#define TESSERA_CLI_QUERY_H

#include "tessera/fusion.h"
#include "tessera/index.h"

/* Opens an index and the model that belongs to it: `model_dir`, or NULL for the one that the index
 * names (a relative path starts in the index).  A model with another
 * fingerprint is refused.  On failure both are NULL. */
TESS_MUST_USE tess_status cli_open_index(const char *index_dir, const char *model_dir,
                                         tess_precision precision, tess_index **out_index,
                                         tess_model **out_model);

#endif
