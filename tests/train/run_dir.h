/* SPDX-License-Identifier: Apache-2.0 */
/* A scratch run directory, and checks that Python scripts make on its files. */
#ifndef TESTS_TRAIN_RUN_DIR_H
#define TESTS_TRAIN_RUN_DIR_H

#include "tessera/metrics.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char run_dir[256];

static int run_dir_make(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(run_dir, sizeof(run_dir), "%s/tessera_run_XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(run_dir) == NULL;
}

static int run_dir_remove(void **state)
{
    (void)state;
    return tess_dir_remove(run_dir) != TESS_OK;
}

/* A path inside the run directory; valid until the fourth later call. */
__attribute__((unused)) static const char *run_path(const char *name)
{
    static char paths[4][512];
    static int turn;
    char *out = paths[turn++ % 4];
    snprintf(out, sizeof(paths[0]), "%s/%s", run_dir, name);
    return out;
}

__attribute__((unused)) static tess_metrics *open_metrics(bool resume, int64_t step)
{
    tess_metrics *m = NULL;
    const tess_metrics_options options = {.dir = run_dir, .resume = resume, .resume_step = step};
    assert_int_equal(tess_metrics_open(&options, &m), TESS_OK);
    return m;
}

__attribute__((unused)) static void add_point(tess_metrics *m, int64_t step, double loss)
{
    const tess_train_point p = {
        .step = step,
        .epoch = step / 100,
        .n_samples = step % 100 * 64,
        .samples_per_epoch = 6400,
        .n_devices = 2,
        .loss = loss,
        .mean_loss = loss + 0.1,
        .lr = 5e-4,
        .logit_scale = 14.3,
        .data_time = 0.002,
        .batch_time = 0.1,
        .samples_per_second = 640,
    };
    const tess_scalar more[] = {{"train/contrastive_loss", loss / 2}};
    assert_int_equal(tess_metrics_add_train(m, &p, more, 1), TESS_OK);
}

/* The whole of a file, NUL-terminated; the caller frees it. */
__attribute__((unused)) static char *slurp(const char *path, size_t *out_bytes)
{
    uint8_t *data = NULL;
    size_t n;
    assert_int_equal(tess_file_read(path, 1 << 26, &data, &n), TESS_OK);
    if (out_bytes != NULL) {
        *out_bytes = n;
    }
    return (char *)data;
}

/* Runs a script of tests/train on a path; its exit status. */
__attribute__((unused)) static int run_script(const char *script, const char *path)
{
    char command[1024];
    snprintf(command, sizeof(command), "python3 tests/train/%s '%s'", script, path);
    return system(command);
}

#endif
