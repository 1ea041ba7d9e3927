/* SPDX-License-Identifier: Apache-2.0 */
/* Whole training runs on a tiny data set, compared byte by byte.
 *
 * make_tiny.py writes 40 pictures; batches of 8 make epochs of 5 updates.  A run is named by its
 * directory below the test's own.
 *
 * Runs are in memory where that is possible and on one thread: what is tested are the bytes, and
 * neither the disk's fsync nor the wait for a busy core decides them.
 */
#ifndef TESTS_TRAIN_TINY_RUN_H
#define TESTS_TRAIN_TINY_RUN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "train/run_dir.h"
#include "train/train.h"

static int tiny_make(void **state)
{
    char command[400];
    tess_compute_threads(1);
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0) {
        setenv("TMPDIR", "/dev/shm", 1);
    }
    if (run_dir_make(state) != 0) {
        return -1;
    }
    snprintf(command, sizeof command, "python3 tests/fixtures/train/make_tiny.py '%s'", run_dir);
    return system(command);
}

/* Twelve updates, two epochs and two fifths.  What it points to is valid until the fourth later
 * call. */
static tess_train_options tiny_options(const char *name)
{
    static char paths[4][3][512];
    static int turn;
    char(*path)[512] = paths[turn++ % 4];
    snprintf(path[0], sizeof path[0], "%s/tiny.tar", run_dir);
    snprintf(path[1], sizeof path[1], "%s/model.json", run_dir);
    snprintf(path[2], sizeof path[2], "%s/%s", run_dir, name);
    return (tess_train_options){
        .train_data = path[0],
        .model = path[1],
        .run_dir = path[2],
        .batch_size = 8,
        .steps = 12,
        .lr = 2e-3,
        .weight_decay = 0.05,
        .lr_scheduler = "const",
        .seed = 1,
        .log_every_n_steps = 1,
        .save_every_n_steps = 4,
    };
}

static void assert_trains(const tess_train_options *o)
{
    if (tess_train(o) != TESS_OK) {
        fail_msg("%s: %s", o->run_dir, tess_error());
    }
}

/* Stops as Ctrl-C does once `step` updates are done. */
static void stop_at(void *ctx, const tess_train_progress *p)
{
    if (p->step == *(const int64_t *)ctx) {
        tess_cancelled = 1;
    }
}

__attribute__((unused)) static void train_until(tess_train_options o, int64_t step)
{
    o.on_progress = stop_at;
    o.ctx = &step;
    assert_int_equal(tess_train(&o), TESS_CANCELLED);
    assert_non_null(strstr(tess_error(), "--resume latest"));
    tess_cancelled = 0;
}

/* A hash over the names and bytes of all files below a directory of a run. */
static uint64_t tree_hash(const char *run, const char *below)
{
    char name[256];
    uint64_t hash = 1;
    tess_names names = {0};
    snprintf(name, sizeof name, "%s/%s", run, below);
    if (tess_dir_list(run_path(name), true, &names) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    assert_true(names.n_names > 0);
    for (size_t i = 0; i < names.n_names; i++) {
        size_t n;
        snprintf(name, sizeof name, "%s/%s/%s", run, below, names.names[i]);
        char *data = slurp(run_path(name), &n);
        hash = tess_hash64(names.names[i], strlen(names.names[i]), hash);
        hash = tess_hash64(data, n, hash);
        tess_free(data);
    }
    tess_names_deinit(&names);
    return hash;
}

/* The last checkpoint and the model: what two runs that are the same agree on. */
__attribute__((unused)) static uint64_t result_hash(const char *run)
{
    return tree_hash(run, "checkpoints/step_00000012") ^ tree_hash(run, "model");
}

__attribute__((unused)) static void assert_same_result(const char *a, const char *b)
{
    assert_true(tree_hash(a, "checkpoints/step_00000012") ==
                tree_hash(b, "checkpoints/step_00000012"));
    assert_true(tree_hash(a, "model") == tree_hash(b, "model"));
}

__attribute__((unused)) static tess_model *open_model(const char *path)
{
    tess_model *m = NULL;
    if (tess_model_open(run_path(path), TESS_PRECISION_AUTO, &m) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return m;
}

__attribute__((unused)) static void copy_run(const char *from, const char *to)
{
    char command[1200];
    snprintf(command, sizeof command, "rm -rf '%s/%s' && cp -r '%s/%s' '%s/%s'", run_dir, to,
             run_dir, from, run_dir, to);
    assert_int_equal(system(command), 0);
}

#endif
