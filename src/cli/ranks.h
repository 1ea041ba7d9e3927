/* SPDX-License-Identifier: Apache-2.0 */
/* What verbs that run as several ranks share. */
#ifndef TESSERA_CLI_RANKS_H
#define TESSERA_CLI_RANKS_H

#include "tessera/tensor.h"

/* Ranks on one host share its cores, unless the launcher has bound each to its own.  Returns how
 * many threads this rank computes with. */
int cli_share_threads(const tess_comm *comm);

#endif
