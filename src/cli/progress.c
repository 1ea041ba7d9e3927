/* SPDX-License-Identifier: Apache-2.0 */
/* The progress bar.  At most one is up at a time; a lock keeps log lines of other threads out of
 * it.  The rate is an exponential mean over windows of at least half a second, so that the time
 * left follows a change of speed within a few seconds.
 */
#include "cli/progress.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t bar_lock = PTHREAD_MUTEX_INITIALIZER;
static cli_progress *bar; /* the one on the terminal */

enum { MIN_BAR = 10 };
static const double draw_every_s = 0.1, rate_window_s = 0.5, rate_keep = 0.7;

const char *cli_duration(double seconds, char out[32])
{
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(out, 32, "?");
        return out;
    }
    long long s = (long long)(seconds + 0.5);
    if (s >= 3600) {
        snprintf(out, 32, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    } else {
        snprintf(out, 32, "%02lld:%02lld", s / 60, s % 60);
    }
    return out;
}

static void add_rate(const cli_progress *p, tess_buf *out)
{
    if (p->rate <= 0) {
        tess_buf_addf(out, "?%s/s", p->unit);
    } else if (p->rate >= 1) {
        tess_buf_addf(out, p->rate < 100 ? "%.1f%s/s" : "%.0f%s/s", p->rate, p->unit);
    } else {
        tess_buf_addf(out, "%.1fs/%s", 1 / p->rate, p->unit);
    }
}

static void add_counts(const cli_progress *p, double elapsed_s, tess_buf *out)
{
    char spent[32], left[32];
    cli_duration(elapsed_s, spent);
    if (p->total <= 0) {
        tess_buf_addf(out, "%lld%s [%s, ", (long long)p->n_done, p->unit, spent);
    } else {
        double remaining = p->rate > 0 ? (double)(p->total - p->n_done) / p->rate : -1;
        tess_buf_addf(out, " %lld/%lld [%s<%s, ", (long long)p->n_done, (long long)p->total, spent,
                      cli_duration(remaining, left));
    }
    add_rate(p, out);
    tess_buf_adds(out, "]");
    if (p->note[0] != '\0') {
        tess_buf_addf(out, " %s", p->note);
    }
}

void cli_progress_format(const cli_progress *p, double elapsed_s, int width, tess_buf *out)
{
    tess_buf tail = {0};
    add_counts(p, elapsed_s, &tail);
    tess_buf_addf(out, "%s ", p->label);
    if (p->total > 0) {
        double part = (double)p->n_done / (double)p->total;
        part = part < 0 ? 0 : part > 1 ? 1 : part;
        tess_buf_addf(out, "%3.0f%%", floor(part * 100));
        int room =
            width - cli_columns(out->data, out->n_bytes) - cli_columns(tail.data, tail.n_bytes) - 2;
        for (int i = 0; room >= MIN_BAR && i < room + 2; i++) {
            bool edge = i == 0 || i == room + 1;
            tess_buf_adds(out, edge ? "|" : i <= (int)(part * room) ? "#" : " ");
        }
    }
    tess_buf_add(out, tail.data, tail.n_bytes);
    out->failed |= tail.failed;
    if (width > 0 && !out->failed && out->n_bytes > (size_t)width) {
        size_t n = (size_t)width;
        while (n > 0 && ((unsigned char)out->data[n] & 0xC0) == 0x80) {
            n--;
        }
        out->n_bytes = n;
        out->data[n] = '\0';
    }
    tess_buf_deinit(&tail);
}

static void draw(cli_progress *p, double now)
{
    tess_buf line = {0};
    cli_progress_format(p, now - p->start_s, p->term.width - 1, &line);
    if (!line.failed) {
        fprintf(stderr, "\r%s\033[K", line.data);
        fflush(stderr);
    }
    tess_buf_deinit(&line);
    p->shown_s = now;
}

static void log_line(cli_progress *p, double now)
{
    tess_buf line = {0};
    cli_progress_format(p, now - p->start_s, 0, &line);
    if (!line.failed) {
        tess_log(TESS_LOG_INFO, "%s", line.data);
    }
    tess_buf_deinit(&line);
    p->shown_s = now;
}

cli_progress cli_progress_new(const cli_common *c, const char *label, const char *unit)
{
    return (cli_progress){
        .label = label, .unit = unit, .term = cli_term_of(stderr, c->color), .quiet = c->quiet};
}

bool cli_progress_begun(const cli_progress *p)
{
    return p->start_s > 0;
}

void cli_progress_begin(cli_progress *p, int64_t n_at_start)
{
    p->start_s = p->mark_s = p->shown_s = tess_seconds();
    p->n_done = p->n_at_start = p->n_at_mark = n_at_start;
    p->rate = 0;
    if (p->log_every_s <= 0) {
        p->log_every_s = 10;
    }
    if (p->term.tty && !p->quiet) {
        pthread_mutex_lock(&bar_lock);
        bar = p;
        draw(p, p->start_s);
        pthread_mutex_unlock(&bar_lock);
    }
}

static void measure(cli_progress *p, double now)
{
    double span = now - p->mark_s;
    if (span < rate_window_s) {
        return;
    }
    double rate = (double)(p->n_done - p->n_at_mark) / span;
    p->rate = p->rate > 0 ? rate_keep * p->rate + (1 - rate_keep) * rate : rate;
    p->mark_s = now;
    p->n_at_mark = p->n_done;
}

void cli_progress_update(cli_progress *p, int64_t n_done, const char *note)
{
    double now = tess_seconds();
    pthread_mutex_lock(&bar_lock);
    p->n_done = n_done;
    if (note != NULL) {
        snprintf(p->note, sizeof(p->note), "%s", note);
    }
    measure(p, now);
    if (bar == p && now - p->shown_s >= draw_every_s) {
        draw(p, now);
    }
    bool log = bar != p && !p->quiet && now - p->shown_s >= p->log_every_s;
    pthread_mutex_unlock(&bar_lock);
    if (log) {
        log_line(p, now);
    }
}

void cli_progress_follow(cli_progress *p, int64_t n_done, int64_t n_total)
{
    if (!cli_progress_begun(p) || p->total != n_total || n_done < p->n_done) {
        cli_progress_end(p);
        p->total = n_total;
        cli_progress_begin(p, 0);
    }
    cli_progress_update(p, n_done, "");
}

/* The last line gives the mean rate of the whole. */
void cli_progress_end(cli_progress *p)
{
    if (!cli_progress_begun(p)) {
        return;
    }
    double now = tess_seconds(), span = now - p->start_s;
    pthread_mutex_lock(&bar_lock);
    bool was_up = bar == p;
    p->rate = span > 0 ? (double)(p->n_done - p->n_at_start) / span : 0;
    if (was_up) {
        draw(p, now);
        fputs("\n", stderr);
        bar = NULL;
    }
    pthread_mutex_unlock(&bar_lock);
    if (!was_up && !p->quiet) {
        log_line(p, now);
    }
}

void cli_progress_clear(void)
{
    pthread_mutex_lock(&bar_lock);
    if (bar != NULL) {
        fputs("\r\033[K", stderr);
    }
}

void cli_progress_redraw(void)
{
    if (bar != NULL) {
        draw(bar, tess_seconds());
    }
    pthread_mutex_unlock(&bar_lock);
}
