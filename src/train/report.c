/* SPDX-License-Identifier: Apache-2.0 */
/* report.html: one page without scripts or other files, written whole at each evaluation.  It is
 * well-formed XML as well as HTML, so that any tool can read it back.
 */
#include "tessera/metrics.h"

#include "train/report_svg.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char page_head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
    "<meta charset=\"utf-8\"/>\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
    "<meta name=\"color-scheme\" content=\"light dark\"/>\n"
    "<style>\n"
    ":root{--page:#f6f5f2;--card:#fff;--ink:#1d1f24;--soft:#5d6370;--rule:#e3e1db;"
    "--c0:#1f62c9;--c1:#b4560a;--c2:#1b7f5c;--c3:#8a3fa8;--b0:#1f62c9;--b1:#7fa8e6;--b2:#c9dbf6}\n"
    "@media (prefers-color-scheme:dark){:root{--page:#15171b;--card:#1e2127;--ink:#eceae4;"
    "--soft:#a3a9b5;--rule:#343841;--c0:#7db0ff;--c1:#f0a35c;--c2:#5fd0a4;--c3:#d49bf0;"
    "--b0:#8fbcff;--b1:#3f6eb3;--b2:#2a4166}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--page);color:var(--ink);"
    "font:16px/1.5 system-ui,-apple-system,\"Segoe UI\",\"Noto Sans\",sans-serif}\n"
    "main{max-width:1240px;margin:0 auto;padding:2rem 1.25rem 4rem}\n"
    "h1{font-size:1.7rem;line-height:1.2;margin:0;overflow-wrap:anywhere}\n"
    "h2{font-size:1.15rem;margin:2.2rem 0 .8rem}\n"
    "p{margin:.3rem 0;color:var(--soft)}\n"
    ".tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:.8rem;"
    "margin:1.4rem 0 0;padding:0}\n"
    ".tiles div{background:var(--card);border:1px solid var(--rule);border-radius:10px;"
    "padding:.7rem .9rem}\n"
    ".tiles dt{color:var(--soft);font-size:.85rem}\n"
    ".tiles dd{margin:0;font-size:1.45rem;font-weight:600;font-variant-numeric:tabular-nums}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));"
    "gap:1rem;align-items:start}\n"
    "figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:10px;"
    "padding:.8rem .9rem;min-width:0}\n"
    "figcaption{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:baseline;"
    "margin-bottom:.4rem}\n"
    "figcaption b{margin-right:auto}\n"
    ".key{color:var(--soft);font-size:.9rem;white-space:nowrap}\n"
    ".key strong{color:var(--ink);font-variant-numeric:tabular-nums}\n"
    "svg{display:block;width:100%;height:auto}\n"
    ".swatch{display:inline-block;width:22px;height:9px;margin-right:.35rem}\n"
    ".axis line{stroke:var(--rule);stroke-width:1}\n"
    ".axis text{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums;"
    "white-space:pre}\n"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\n"
    ".band{opacity:.18;stroke:none}\n"
    ".line.c0{stroke:var(--c0)}.line.c1{stroke:var(--c1);stroke-dasharray:7 4}"
    ".line.c2{stroke:var(--c2);stroke-dasharray:2 4}"
    ".line.c3{stroke:var(--c3);stroke-dasharray:10 4 2 4}\n"
    ".band.c0,.dot.c0{fill:var(--c0)}.band.c1,.dot.c1{fill:var(--c1)}"
    ".band.c2,.dot.c2{fill:var(--c2)}.band.c3,.dot.c3{fill:var(--c3)}\n"
    ".bar.b0{fill:var(--b0)}.bar.b1{fill:var(--b1)}.bar.b2,.bar.b3{fill:var(--b2)}\n"
    "details{margin-top:.4rem}\n"
    "summary{color:var(--soft);font-size:.9rem;cursor:pointer}\n"
    "summary:focus-visible{outline:2px solid var(--c0);outline-offset:2px}\n"
    ".columns{display:flex;flex-wrap:wrap;gap:1.5rem;overflow-x:auto}\n"
    "table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;"
    "margin-top:.4rem}\n"
    "caption{text-align:left;color:var(--soft)}\n"
    "th,td{text-align:left;padding:.1rem .9rem .1rem 0;vertical-align:top;"
    "overflow-wrap:anywhere}\n"
    "@media print{body{background:#fff}figure{break-inside:avoid}}\n"
    "</style>\n";

/* ---- the charts --------------------------------------------------------------------------- */

/* Charts with a place of their own; every other scalar gets one chart under its name. */
static const struct {
    const char *title, *unit;
    const char *names[TESS__CHART_SERIES], *labels[TESS__CHART_SERIES];
    bool from_zero;
} known_charts[] = {
    {"Loss", "", {"train/loss"}, {"loss"}, false},
    {"Learning rate", "", {"train/lr"}, {"learning rate"}, true},
    {"Pictures per second", "/s", {"train/samples_per_second"}, {"rate"}, true},
    {"Logit scale", "", {"train/logit_scale"}, {"logit scale"}, false},
    {"Seconds a step",
     "s",
     {"train/batch_time", "train/data_time"},
     {"whole step", "waiting for data"},
     true},
    {"Text to image recall",
     "",
     {"val/text_to_image_R@1", "val/text_to_image_R@5", "val/text_to_image_R@10"},
     {"R@1", "R@5", "R@10"},
     true},
    {"Image to text recall",
     "",
     {"val/image_to_text_R@1", "val/image_to_text_R@5", "val/image_to_text_R@10"},
     {"R@1", "R@5", "R@10"},
     true},
    {"Validation loss", "", {"val/clip_val_loss"}, {"loss"}, false},
};

/* Not shown on their own: the rate again, divided by the devices. */
static const char *const left_out[] = {"train/samples_per_second_per_gpu"};

static bool is_known(const char *name)
{
    bool known = false;
    for (int64_t i = 0; i < TESS_COUNT(left_out); i++) {
        known |= strcmp(name, left_out[i]) == 0;
    }
    for (int64_t i = 0; i < TESS_COUNT(known_charts); i++) {
        for (int j = 0; j < TESS__CHART_SERIES && known_charts[i].names[j] != NULL; j++) {
            known |= strcmp(name, known_charts[i].names[j]) == 0;
        }
    }
    return known;
}

static void write_known(tess_buf *out, const tess__run *run, int *id)
{
    for (int64_t i = 0; i < TESS_COUNT(known_charts); i++) {
        tess__chart chart = {.title = known_charts[i].title,
                             .unit = known_charts[i].unit,
                             .from_zero = known_charts[i].from_zero};
        for (int j = 0; j < TESS__CHART_SERIES && known_charts[i].names[j] != NULL; j++) {
            const tess__series *s = tess__run_find(run, known_charts[i].names[j]);
            if (s != NULL) {
                chart.series[chart.n_series] = s;
                chart.labels[chart.n_series++] = known_charts[i].labels[j];
            }
        }
        if (chart.n_series > 0) {
            tess__chart_write(out, &chart, (*id)++);
        }
    }
}

static void write_others(tess_buf *out, const tess__run *run, int *id)
{
    for (size_t i = 0; i < run->n_series; i++) {
        const tess__series *s = &run->series[i];
        if (is_known(s->name) || tess__series_language(s->name) != NULL) {
            continue;
        }
        tess__chart chart = {
            .title = s->name, .unit = "", .series = {s}, .labels = {s->name}, .n_series = 1};
        tess__chart_write(out, &chart, (*id)++);
    }
}

/* ---- languages ---------------------------------------------------------------------------- */

static const struct {
    const char *title;
    const char *names[TESS__CHART_SERIES], *labels[TESS__CHART_SERIES];
    size_t n;
} known_bars[] = {
    {"Text to image recall by language",
     {"val/text_to_image_R@1", "val/text_to_image_R@10"},
     {"R@1", "R@10"},
     2},
    {"Image to text recall by language",
     {"val/image_to_text_R@1", "val/image_to_text_R@10"},
     {"R@1", "R@10"},
     2},
};

/* Best first; rows without a value last. */
static int by_value(const void *a, const void *b)
{
    const tess__bars_row *x = a, *y = b;
    for (int i = TESS__CHART_SERIES - 1; i >= 0; i--) {
        double u = isfinite(x->values[i]) ? x->values[i] : -1;
        double v = isfinite(y->values[i]) ? y->values[i] : -1;
        if (u != v) {
            return u < v ? 1 : -1;
        }
    }
    return strcmp(x->label, y->label);
}

static tess__bars_row *find_row(tess__bars_row *rows, size_t *n, const char *label)
{
    for (size_t i = 0; i < *n; i++) {
        if (strcmp(rows[i].label, label) == 0) {
            return &rows[i];
        }
    }
    tess__bars_row *row = &rows[(*n)++];
    row->label = label;
    for (int i = 0; i < TESS__CHART_SERIES; i++) {
        row->values[i] = NAN;
    }
    return row;
}

static size_t collect_rows(const tess__run *run, int64_t which, tess__bars_row *rows)
{
    size_t n = 0;
    for (size_t i = 0; i < run->n_series; i++) {
        const char *name = run->series[i].name, *language = tess__series_language(name);
        for (size_t j = 0; language != NULL && j < known_bars[which].n; j++) {
            size_t n_metric = (size_t)(language - name) - 1;
            const char *metric = known_bars[which].names[j];
            if (strlen(metric) == n_metric && memcmp(metric, name, n_metric) == 0) {
                find_row(rows, &n, language)->values[j] = tess__series_last(&run->series[i]);
            }
        }
    }
    return n;
}

/* Moves the metrics that some language has to the front; returns how many, and their labels. */
static size_t drop_empty(int64_t which, tess__bars_row *rows, size_t n, const char **out_labels)
{
    size_t n_kept = 0;
    for (size_t j = 0; j < known_bars[which].n; j++) {
        bool any = false;
        for (size_t i = 0; i < n; i++) {
            any |= isfinite(rows[i].values[j]);
            rows[i].values[n_kept] = rows[i].values[j];
        }
        if (any) {
            out_labels[n_kept++] = known_bars[which].labels[j];
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = n_kept; j < TESS__CHART_SERIES; j++) {
            rows[i].values[j] = NAN;
        }
    }
    return n_kept;
}

static void write_languages(tess_buf *out, const tess__run *run, int *id)
{
    tess__bars_row *rows = tess_alloc_array(run->n_series + 1, sizeof(*rows));
    bool begun = false;
    if (rows == NULL) {
        out->failed = true;
        return;
    }
    for (int64_t i = 0; i < TESS_COUNT(known_bars); i++) {
        size_t n = collect_rows(run, i, rows);
        if (n == 0) {
            continue;
        }
        const char *labels[TESS__CHART_SERIES];
        size_t n_labels = drop_empty(i, rows, n, labels);
        qsort(rows, n, sizeof(*rows), by_value);
        tess_buf_adds(out, begun ? "" : "<h2>Languages</h2>\n<div class=\"grid\">\n");
        begun = true;
        tess__bars_write(out, known_bars[i].title, labels, n_labels, rows, n, (*id)++);
    }
    tess_buf_adds(out, begun ? "</div>\n" : "");
    tess_free(rows);
}

/* ---- the page ----------------------------------------------------------------------------- */

static void add_tile(tess_buf *out, const char *name, double v)
{
    if (isfinite(v)) {
        tess_buf_addf(out, "<div><dt>%s</dt><dd>", name);
        tess__html_add_number(out, v);
        tess_buf_adds(out, "</dd></div>\n");
    }
}

static void add_duration(tess_buf *out, double seconds)
{
    long long s = (long long)seconds;
    tess_buf_addf(out, "<div><dt>First to last record</dt><dd>%lld:%02lld:%02lld</dd></div>\n",
                  s / 3600, s / 60 % 60, s % 60);
}

static void write_tiles(tess_buf *out, const tess__run *run)
{
    static const struct {
        const char *title, *name;
    } tiles[] = {
        {"Loss", "train/loss"},
        {"Pictures per second", "train/samples_per_second"},
        {"Text to image R@1", "val/text_to_image_R@1"},
        {"Text to image R@10", "val/text_to_image_R@10"},
    };
    tess_buf_adds(out, "<dl class=\"tiles\">\n");
    add_tile(out, "Steps", (double)run->last_step);
    for (int64_t i = 0; i < TESS_COUNT(tiles); i++) {
        add_tile(out, tiles[i].title, tess__series_last(tess__run_find(run, tiles[i].name)));
    }
    add_duration(out, run->last_s - run->first_s);
    tess_buf_adds(out, "</dl>\n");
}

static tess_status write_params(tess_buf *out, const char *dir)
{
    uint8_t *text = NULL;
    size_t n_bytes;
    char *path = tess_format("%s/params.txt", dir);
    tess_status st = path == NULL ? TESS_NOMEM : TESS_OK;
    if (st == TESS_OK && tess_path_exists(path)) {
        st = tess_file_read(path, 1 << 20, &text, &n_bytes);
    }
    tess_free(path);
    if (st != TESS_OK || text == NULL) {
        return st;
    }
    tess_buf_adds(out, "<h2>Parameters</h2>\n<details><summary>All options of the run</summary>"
                       "<table><tbody>\n");
    char *next = NULL;
    for (char *line = strtok_r((char *)text, "\n", &next); line != NULL;
         line = strtok_r(NULL, "\n", &next)) {
        char *colon = strstr(line, ": ");
        if (colon != NULL) {
            *colon = '\0';
        }
        tess_buf_adds(out, "<tr><th scope=\"row\">");
        tess__html_add(out, line);
        tess_buf_adds(out, "</th><td>");
        tess__html_add(out, colon != NULL ? colon + 2 : "");
        tess_buf_adds(out, "</td></tr>\n");
    }
    tess_buf_adds(out, "</tbody></table></details>\n");
    tess_free(text);
    return TESS_OK;
}

/* The last component of the path, "." and ".." resolved. */
static char *name_of(const char *dir)
{
    char full[PATH_MAX];
    const char *slash = realpath(dir, full) != NULL ? strrchr(full, '/') : NULL;
    return tess_strdup(slash != NULL && slash[1] != '\0' ? slash + 1 : dir);
}

static tess_status write_page(tess_buf *out, const tess__run *run, const char *dir,
                              const char *name)
{
    int id = 0;
    tess_buf_adds(out, page_head);
    tess_buf_adds(out, "<title>");
    tess__html_add(out, name);
    tess_buf_adds(out, "</title>\n</head>\n<body>\n<main>\n<h1>");
    tess__html_add(out, name);
    tess_buf_addf(out, "</h1>\n<p>Training run, %lld records", (long long)run->n_train);
    if (run->n_bad > 0) {
        tess_buf_addf(out, "; %lld lines could not be read", (long long)run->n_bad);
    }
    tess_buf_adds(out, "</p>\n");
    write_tiles(out, run);
    tess_buf_adds(out, "<h2>Curves</h2>\n");
    tess_buf_adds(out, run->n_series > 0 ? "<div class=\"grid\">\n" : "<p>No records yet.</p>\n");
    write_known(out, run, &id);
    write_others(out, run, &id);
    tess_buf_adds(out, run->n_series > 0 ? "</div>\n" : "");
    write_languages(out, run, &id);
    TESS_TRY(write_params(out, dir));
    tess_buf_adds(out, "<p>Written by Tessera " TESS_VERSION
                       ". Pale bands reach from the least to the greatest value of a stretch of "
                       "steps; lines are its mean.</p>\n</main>\n</body>\n</html>\n");
    return tess_buf_check(out);
}

tess_status tess_report_write(const char *dir)
{
    tess__run run;
    tess_buf out = {0};
    char *path = tess_format("%s/report.html", dir), *name = name_of(dir);
    tess_status st = tess__run_load(dir, &run);
    if (st == TESS_OK && (path == NULL || name == NULL)) {
        st = TESS_NOMEM;
    }
    if (st == TESS_OK) {
        st = write_page(&out, &run, dir, name);
    }
    if (st == TESS_OK) {
        st = tess_file_write(path, out.data, out.n_bytes);
    }
    tess_buf_deinit(&out);
    tess__run_deinit(&run);
    tess_free(path);
    tess_free(name);
    return st;
}
