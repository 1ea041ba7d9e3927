/* SPDX-License-Identifier: Apache-2.0 */
/* Charts as inline SVG, and text made safe for HTML. */
#ifndef TRAIN_REPORT_SVG_H
#define TRAIN_REPORT_SVG_H

#include "train/report_data.h"

enum { TESS__CHART_SERIES = 4 };

typedef struct tess__chart {
    const char *title, *unit; /* unit "": none */
    const tess__series *series[TESS__CHART_SERIES];
    const char *labels[TESS__CHART_SERIES];
    size_t n_series;
    bool from_zero; /* the axis begins at 0 */
} tess__chart;

/* Text for an element or a quoted attribute; bytes that are not UTF-8 become '?'. */
void tess__html_add(tess_buf *out, const char *text);
/* A number as people read it: 0.000123, 4.31, 12 400. */
void tess__html_add_number(tess_buf *out, double v);

/* A figure with a caption, the curves, and a table of the same values behind a fold.  `id` is
 * unique on the page. */
void tess__chart_write(tess_buf *out, const tess__chart *chart, int id);

/* One row of bars for each language: values in 0..1, largest in the background. */
typedef struct tess__bars_row {
    const char *label;
    double values[TESS__CHART_SERIES];
} tess__bars_row;
void tess__bars_write(tess_buf *out, const char *title, const char *const *labels, size_t n_labels,
                      const tess__bars_row *rows, size_t n_rows, int id);

#endif
