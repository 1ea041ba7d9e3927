/* SPDX-License-Identifier: Apache-2.0 */
/* Where the libraries' log lines go: standard error, as text or as JSON. */
#ifndef TESSERA_CLI_LOG_SINK_H
#define TESSERA_CLI_LOG_SINK_H

#include "cli/option.h"
#include "cli/term.h"

/* Sets the process's sink: --quiet shows warnings and errors, --verbose everything. */
void cli_log_open(const cli_common *common);
/* One line of that form: `level` "error: ...", or {"time":...,"level":"error","message":"..."}. */
void cli_log_format(tess_buf *out, bool json, cli_term term, tess_log_level level, const char *line,
                    double wall_s);
/* The program's own last word about a failure: "tessera: message". */
void cli_log_failure(const char *message);

#endif
