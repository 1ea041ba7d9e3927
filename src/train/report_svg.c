/* SPDX-License-Identifier: Apache-2.0 */
/* Charts.  A curve of thousands of points is drawn as the mean of each of at most 240 stretches,
 * over a pale band from the least to the greatest value, so that a spike one step long still shows.
 * Curves differ by dashes as well as by colour; every figure carries a description and a table.
 */
#include "train/report_svg.h"

#include <math.h>
#include <string.h>

enum {
    WIDTH = 560,
    HEIGHT = 250,
    LEFT = 56,
    RIGHT = 20,
    TOP = 10,
    BOTTOM = 28,
    BUCKETS = 240,
    TABLE_ROWS = 24,
    ROW_HEIGHT = 20,
    MAX_TICKS = 12,
};

/* ---- text --------------------------------------------------------------------------------- */

void tess__html_add(tess_buf *out, const char *text)
{
    static const struct {
        char c;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
    bool utf8 = tess_utf8_valid(text, strlen(text), true);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        const char *entity = NULL;
        for (int64_t i = 0; i < TESS_COUNT(entities); i++) {
            entity = entities[i].c == *text ? entities[i].entity : entity;
        }
        bool control = (c < 32 && c != '\n' && c != '\t') || c == 127;
        if (entity != NULL) {
            tess_buf_adds(out, entity);
        } else {
            tess_buf_add(out, control || (c >= 128 && !utf8) ? "?" : text, 1);
        }
    }
}

void tess__html_add_number(tess_buf *out, double v)
{
    double size = fabs(v);
    if (!isfinite(v)) {
        tess_buf_adds(out, "not finite");
    } else if (size >= 1e15 || (size > 0 && size < 1e-3)) {
        tess_buf_addf(out, "%.3g", v);
    } else if (size >= 10000) {
        char digits[32];
        int n = snprintf(digits, sizeof(digits), "%.0f", v);
        for (int i = 0; i < n; i++) {
            bool gap = i > 0 && digits[i - 1] != '-' && (n - i) % 3 == 0;
            tess_buf_addf(out, "%s%c", gap ? "\u202f" : "", digits[i]);
        }
    } else if (v == rint(v)) {
        tess_buf_addf(out, "%.0f", v);
    } else {
        tess_buf_addf(out, "%.4g", v);
    }
}

/* Tick labels: 20k, 1.5M. */
static void add_tick(tess_buf *out, double v)
{
    double size = fabs(v);
    if (size >= 1e6) {
        tess_buf_addf(out, "%gM", v / 1e6);
    } else if (size >= 1e4) {
        tess_buf_addf(out, "%gk", v / 1e3);
    } else {
        tess_buf_addf(out, "%g", v);
    }
}

/* ---- scales ------------------------------------------------------------------------------- */

typedef struct scale {
    double from, to, step; /* step: between ticks */
} scale;

/* Ticks at 1, 2 or 5 times a power of ten, about `n` of them. */
static double nice_step(double span, int n)
{
    double raw = span / n, unit = pow(10, floor(log10(raw))), part = raw / unit;
    return unit * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

static scale make_scale(double low, double high, int n_ticks, bool round_out)
{
    if (!(high > low)) {
        double pad = low != 0 ? fabs(low) * 0.05 : 1;
        low -= pad;
        high += pad;
    }
    double step = nice_step(high - low, n_ticks);
    if (round_out) {
        low = floor(low / step + 1e-9) * step;
        high = ceil(high / step - 1e-9) * step;
    }
    return (scale){low, high, step};
}

static double place(scale s, double v, double at_from, double at_to)
{
    return at_from + (v - s.from) / (s.to - s.from) * (at_to - at_from);
}

static double x_of(scale s, double v)
{
    return place(s, v, LEFT, WIDTH - RIGHT);
}

static double y_of(scale s, double v)
{
    return place(s, v, HEIGHT - BOTTOM, TOP);
}

/* ---- curves ------------------------------------------------------------------------------- */

typedef struct curve {
    tess__bucket buckets[BUCKETS];
    size_t n;
} curve;

typedef struct plot {
    const tess__chart *chart;
    curve *curves;
    scale x, y;
} plot;

/* Tick i of a scale; false behind the last.  Counted, since adding a small step to a large number
 * may not change it. */
static bool tick_at(scale s, int i, double *out)
{
    *out = ceil(s.from / s.step - 1e-9) * s.step + i * s.step;
    if (fabs(*out) < s.step * 1e-6) {
        *out = 0;
    }
    return i < MAX_TICKS && *out <= s.to + s.step * 1e-6;
}

static void write_axes(tess_buf *out, const plot *p)
{
    double v;
    tess_buf_adds(out, "<g class=\"axis\">");
    for (int i = 0; tick_at(p->y, i, &v); i++) {
        double y = y_of(p->y, v);
        tess_buf_addf(out, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT,
                      WIDTH - RIGHT, y, y);
        tess_buf_addf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LEFT - 8, y + 4);
        add_tick(out, v);
        tess_buf_adds(out, "</text>");
    }
    for (int i = 0; tick_at(p->x, i, &v); i++) {
        tess_buf_addf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", x_of(p->x, v),
                      HEIGHT - 8);
        add_tick(out, v);
        tess_buf_adds(out, "</text>");
    }
    tess_buf_addf(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">step</text></g>", LEFT - 8,
                  HEIGHT - 8);
}

static void write_band(tess_buf *out, const plot *p, size_t i)
{
    const curve *c = &p->curves[i];
    if (p->chart->series[i]->n_points <= BUCKETS || c->n < 2) {
        return;
    }
    tess_buf_addf(out, "<path class=\"band c%zu\" d=\"M", i);
    for (size_t k = 0; k < c->n; k++) {
        tess_buf_addf(out, "%.1f %.1f ", x_of(p->x, c->buckets[k].step),
                      y_of(p->y, c->buckets[k].high));
    }
    for (size_t k = c->n; k-- > 0;) {
        tess_buf_addf(out, "%.1f %.1f ", x_of(p->x, c->buckets[k].step),
                      y_of(p->y, c->buckets[k].low));
    }
    tess_buf_adds(out, "Z\"/>");
}

static void write_curve(tess_buf *out, const plot *p, size_t i)
{
    const curve *c = &p->curves[i];
    if (c->n == 0) {
        return;
    }
    tess_buf_addf(out, "<path class=\"line c%zu\" d=\"M", i);
    for (size_t k = 0; k < c->n; k++) {
        tess_buf_addf(out, "%.1f %.1f ", x_of(p->x, c->buckets[k].step),
                      y_of(p->y, c->buckets[k].mean));
    }
    const tess__bucket *last = &c->buckets[c->n - 1];
    tess_buf_addf(out, "\"/><circle class=\"dot c%zu\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", i,
                  x_of(p->x, last->step), y_of(p->y, last->mean));
}

/* The extent of everything drawn; false when nothing is. */
static bool find_extent(plot *p)
{
    double x0 = INFINITY, x1 = -INFINITY, y0 = INFINITY, y1 = -INFINITY;
    for (size_t i = 0; i < p->chart->n_series; i++) {
        for (size_t k = 0; k < p->curves[i].n; k++) {
            const tess__bucket *b = &p->curves[i].buckets[k];
            x0 = fmin(x0, b->step);
            x1 = fmax(x1, b->step);
            y0 = fmin(y0, b->low);
            y1 = fmax(y1, b->high);
        }
    }
    if (!isfinite(y0)) {
        return false;
    }
    if (p->chart->from_zero && y0 > 0) {
        y0 = 0;
    }
    p->x = make_scale(x0, x1, 5, false);
    p->y = make_scale(y0, y1, 4, true);
    return true;
}

static void write_summary(tess_buf *out, const tess__chart *chart)
{
    for (size_t i = 0; i < chart->n_series; i++) {
        const tess__series *s = chart->series[i];
        tess_buf_addf(out, "%s", i > 0 ? "; " : "");
        tess__html_add(out, chart->labels[i]);
        tess_buf_adds(out, ": ");
        tess__html_add_number(out, tess__series_last(s));
        tess_buf_addf(out, " at step %.0f", s->points[s->n_points - 1].step);
    }
}

static void write_svg(tess_buf *out, const plot *p, int id)
{
    tess_buf_addf(out,
                  "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-labelledby=\"t%d d%d\">"
                  "<title id=\"t%d\">",
                  WIDTH, HEIGHT, id, id, id);
    tess__html_add(out, p->chart->title);
    tess_buf_addf(out, "</title><desc id=\"d%d\">", id);
    write_summary(out, p->chart);
    tess_buf_adds(out, "</desc>");
    write_axes(out, p);
    for (size_t i = 0; i < p->chart->n_series; i++) {
        write_band(out, p, i);
    }
    for (size_t i = 0; i < p->chart->n_series; i++) {
        write_curve(out, p, i);
    }
    tess_buf_adds(out, "</svg>\n");
}

static void write_legend(tess_buf *out, const tess__chart *chart)
{
    tess_buf_adds(out, "<figcaption><b>");
    tess__html_add(out, chart->title);
    tess_buf_adds(out, "</b>");
    for (size_t i = 0; i < chart->n_series; i++) {
        tess_buf_addf(out,
                      " <span class=\"key\"><svg viewBox=\"0 0 22 8\" class=\"swatch\" "
                      "aria-hidden=\"true\"><path class=\"line c%zu\" d=\"M1 4 21 4\"/></svg>",
                      i);
        if (chart->n_series > 1) {
            tess__html_add(out, chart->labels[i]);
            tess_buf_adds(out, " ");
        }
        tess_buf_adds(out, "<strong>");
        tess__html_add_number(out, tess__series_last(chart->series[i]));
        tess_buf_addf(out, "</strong>%s%s</span>", chart->unit[0] != '\0' ? " " : "", chart->unit);
    }
    tess_buf_adds(out, "</figcaption>\n");
}

static void write_table(tess_buf *out, const tess__chart *chart)
{
    tess__bucket rows[TABLE_ROWS];
    tess_buf_adds(out, "<details><summary>Values</summary><div class=\"columns\">");
    for (size_t i = 0; i < chart->n_series; i++) {
        size_t n = tess__series_decimate(chart->series[i], TABLE_ROWS, rows);
        tess_buf_adds(out, "<table><caption>");
        tess__html_add(out, chart->series[i]->name);
        tess_buf_adds(out, "</caption><thead><tr><th scope=\"col\">Step</th>"
                           "<th scope=\"col\">Mean</th></tr></thead><tbody>");
        for (size_t k = 0; k < n; k++) {
            tess_buf_addf(out, "<tr><td>%.0f</td><td>", rows[k].step);
            tess__html_add_number(out, rows[k].mean);
            tess_buf_adds(out, "</td></tr>");
        }
        tess_buf_adds(out, "</tbody></table>");
    }
    tess_buf_adds(out, "</div></details>");
}

void tess__chart_write(tess_buf *out, const tess__chart *chart, int id)
{
    plot p = {.chart = chart};
    p.curves = tess_alloc_array(chart->n_series, sizeof(p.curves[0]));
    if (p.curves == NULL) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < chart->n_series; i++) {
        p.curves[i].n = tess__series_decimate(chart->series[i], BUCKETS, p.curves[i].buckets);
    }
    if (find_extent(&p)) {
        tess_buf_adds(out, "<figure>");
        write_legend(out, chart);
        write_svg(out, &p, id);
        write_table(out, chart);
        tess_buf_adds(out, "</figure>\n");
    }
    tess_free(p.curves);
}

/* ---- bars --------------------------------------------------------------------------------- */

enum { BAR_LEFT = 120, BAR_RIGHT = 120 };

static void write_row(tess_buf *out, const tess__bars_row *row, size_t n_labels, double y)
{
    tess_buf_addf(out, "<text x=\"%d\" y=\"%.0f\" text-anchor=\"end\">", BAR_LEFT - 8, y + 13);
    tess__html_add(out, row->label);
    tess_buf_adds(out, "</text>");
    for (size_t i = n_labels; i-- > 0;) {
        double v = fmin(fmax(row->values[i], 0), 1);
        if (isfinite(row->values[i])) {
            tess_buf_addf(out,
                          "<rect class=\"bar b%zu\" x=\"%d\" y=\"%.0f\" width=\"%.1f\" "
                          "height=\"%d\"/>",
                          i, BAR_LEFT, y + 2, v * (WIDTH - BAR_LEFT - BAR_RIGHT), ROW_HEIGHT - 5);
        }
    }
    tess_buf_addf(out, "<text x=\"%d\" y=\"%.0f\">", WIDTH - BAR_RIGHT + 8, y + 13);
    for (size_t i = 0; i < n_labels; i++) {
        tess_buf_adds(out, i > 0 ? "  " : "");
        if (isfinite(row->values[i])) {
            tess_buf_addf(out, "%.3f", row->values[i]);
        } else {
            tess_buf_adds(out, "-");
        }
    }
    tess_buf_adds(out, "</text>");
}

void tess__bars_write(tess_buf *out, const char *title, const char *const *labels, size_t n_labels,
                      const tess__bars_row *rows, size_t n_rows, int id)
{
    tess_buf_adds(out, "<figure class=\"bars\"><figcaption><b>");
    tess__html_add(out, title);
    tess_buf_adds(out, "</b>");
    for (size_t i = 0; i < n_labels; i++) {
        tess_buf_addf(out,
                      " <span class=\"key\"><svg viewBox=\"0 0 22 10\" class=\"swatch\" "
                      "aria-hidden=\"true\"><rect class=\"bar b%zu\" width=\"22\" height=\"10\"/>"
                      "</svg>",
                      i);
        tess__html_add(out, labels[i]);
        tess_buf_adds(out, "</span>");
    }
    tess_buf_addf(out,
                  "</figcaption>\n<svg viewBox=\"0 0 %d %zu\" role=\"img\" "
                  "aria-labelledby=\"t%d\"><title id=\"t%d\">",
                  WIDTH, n_rows * ROW_HEIGHT, id, id);
    tess__html_add(out, title);
    tess_buf_adds(out, "</title><g class=\"axis\">");
    for (size_t i = 0; i < n_rows; i++) {
        write_row(out, &rows[i], n_labels, (double)(i * ROW_HEIGHT));
    }
    tess_buf_adds(out, "</g></svg></figure>\n");
}
