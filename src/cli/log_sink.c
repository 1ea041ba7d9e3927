/* SPDX-License-Identifier: Apache-2.0 */
/* The log sink, and the one line that says why the program failed. */
#include "cli/log_sink.h"
#include "cli/progress.h"

#include <string.h>

static struct {
    bool json;
    cli_term term;
} sink;

static const struct {
    const char *name, *prefix;
    cli_style style;
} levels[] = {
    [TESS_LOG_ERROR] = {"error", "error: ", CLI_STYLE_ERROR},
    [TESS_LOG_WARN] = {"warning", "warning: ", CLI_STYLE_WARN},
    [TESS_LOG_INFO] = {"info", "", CLI_STYLE_PLAIN},
    [TESS_LOG_DEBUG] = {"debug", "", CLI_STYLE_FAINT},
};

void cli_log_format(tess_buf *out, bool json, cli_term term, tess_log_level level, const char *line,
                    double wall_s)
{
    if (!json) {
        bool styled = levels[level].style != CLI_STYLE_PLAIN;
        tess_buf_addf(out, "%s%s%s%s%s\n", styled ? cli_style_begin(term, levels[level].style) : "",
                      levels[level].prefix,
                      level <= TESS_LOG_WARN ? cli_style_begin(term, CLI_STYLE_PLAIN) : "", line,
                      level == TESS_LOG_DEBUG ? cli_style_begin(term, CLI_STYLE_PLAIN) : "");
        return;
    }
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess_json_key(&w, "time");
    tess_json_add_real(&w, wall_s);
    tess_json_key(&w, "level");
    tess_json_add_string(&w, levels[level].name);
    tess_json_key(&w, "message");
    tess_json_add_string(&w, line);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
}

static void write_line(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx;
    tess_buf out = {0};
    cli_log_format(&out, sink.json, sink.term, level, line, tess_wall_seconds());
    cli_progress_clear();
    fputs(out.failed ? line : out.data, stderr);
    cli_progress_redraw();
    tess_buf_deinit(&out);
}

void cli_log_open(const cli_common *common)
{
    sink.json = common->log_format != NULL && strcmp(common->log_format, "json") == 0;
    sink.term = cli_term_of(stderr, common->color);
    tess_log_set_sink(write_line, NULL,
                      common->quiet     ? TESS_LOG_WARN
                      : common->verbose ? TESS_LOG_DEBUG
                                        : TESS_LOG_INFO);
}

void cli_log_failure(const char *message)
{
    if (sink.json) {
        write_line(NULL, TESS_LOG_ERROR, message);
        return;
    }
    cli_progress_clear();
    fprintf(stderr, "%stessera:%s %s\n", cli_style_begin(sink.term, CLI_STYLE_ERROR),
            cli_style_begin(sink.term, CLI_STYLE_PLAIN), message);
    cli_progress_redraw();
}
