/* SPDX-License-Identifier: Apache-2.0 */
/* A progress bar in tqdm's shape on a terminal, a log line now and then anywhere else.
 *
 *   train  42%|########          | 84/200 [00:10<00:14, 8.1img/s] loss 2.31
 */
#ifndef TESSERA_CLI_PROGRESS_H
#define TESSERA_CLI_PROGRESS_H

#include "cli/option.h"
#include "cli/term.h"

typedef struct cli_progress {
    const char *label, *unit; /* "train", "img" */
    int64_t total;            /* 0: unknown */
    double log_every_s;       /* between log lines without a terminal; 0: 10 s */
    cli_term term;
    bool quiet;

    double start_s, shown_s, mark_s; /* tess_seconds; mark: where the rate's window begins */
    int64_t n_done, n_at_start, n_at_mark;
    double rate; /* smoothed, per second; 0: none yet */
    char note[128];
} cli_progress;

/* A bar on standard error, as the command's options want it. */
cli_progress cli_progress_new(const cli_common *c, const char *label, const char *unit);
/* `n_at_start`: already done by an earlier run, not counted in the rate.  The fields below `quiet`
 * are its own. */
void cli_progress_begin(cli_progress *p, int64_t n_at_start);
bool cli_progress_begun(const cli_progress *p);
/* Begins with the first call, and anew where another total or a smaller count shows that another
 * piece of work has begun; then as cli_progress_update. */
void cli_progress_follow(cli_progress *p, int64_t n_done, int64_t n_total);
/* Cheap enough for every sample: draws at most ten times a second.  `note` NULL: as it was.  One
 * thread only. */
void cli_progress_update(cli_progress *p, int64_t n_done, const char *note);
/* The last state, and the end of the line; nothing where it never began. */
void cli_progress_end(cli_progress *p);

/* The line at `elapsed_s`, at most `width` columns (0: without a bar). */
void cli_progress_format(const cli_progress *p, double elapsed_s, int width, tess_buf *out);
/* "01:02", "1:02:03"; "?" when negative. */
const char *cli_duration(double seconds, char out[32]);

/* The log sink must not write into a bar: between these two the bar's line is cleared, and drawn
 * again.  Do nothing when no bar is up. */
void cli_progress_clear(void);
void cli_progress_redraw(void);

#endif
