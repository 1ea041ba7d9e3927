/* SPDX-License-Identifier: Apache-2.0 */
/* What a resumed run reads of its own files: event records, and JSONL through the report's charts.
 * The first byte chooses. */
#include "train/metrics_read.h"
#include "train/report_svg.h"
#include "train/tfevents.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void try_events(const uint8_t *data, size_t n_bytes)
{
    int64_t n = 0;
    size_t kept = tess__tfevents_keep_bytes(data, n_bytes, 100, &n);
    if (kept > n_bytes || (n == 0) != (kept == 0)) {
        abort();
    }
}

/* A directory of its own for the process: writing the page itself would be one fsync a run. */
static const char *directory(void)
{
    static char dir[64];
    if (dir[0] == '\0') {
        snprintf(dir, sizeof(dir), "/tmp/fuzz_records_XXXXXX");
        if (mkdtemp(dir) == NULL) {
            abort();
        }
    }
    return dir;
}

static void try_lines(const uint8_t *data, size_t n_bytes)
{
    char path[128];
    int64_t keep;
    snprintf(path, sizeof(path), "%s/metrics.jsonl", directory());
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(data, 1, n_bytes, file) != n_bytes || fclose(file) != 0) {
        abort();
    }
    tess__run run;
    tess_buf out = {0};
    if (tess__metrics_keep_bytes(path, 10, &keep) != TESS_OK || keep > (int64_t)n_bytes ||
        tess__run_load(directory(), &run) != TESS_OK) {
        abort();
    }
    for (size_t i = 0; i < run.n_series && i < 8; i++) {
        const tess__series *s = &run.series[i];
        const tess__chart chart = {
            .title = s->name, .unit = "", .series = {s}, .labels = {s->name}, .n_series = 1};
        tess__chart_write(&out, &chart, (int)i);
    }
    if (out.data != NULL && (strstr(out.data, "nan") != NULL || strstr(out.data, "inf") != NULL) &&
        memmem(data, n_bytes, "n", 1) == NULL) {
        abort();
    }
    tess_buf_deinit(&out);
    tess__run_deinit(&run);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes > 0 && data[0] == 'e') {
        try_events(data + 1, n_bytes - 1);
    } else if (n_bytes > 0) {
        try_lines(data + 1, n_bytes - 1);
    }
    return 0;
}
