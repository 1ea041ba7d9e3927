/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: how fast one is written, beside plain writers of as many bytes, and what the steps
 * cost during which one is written.
 *
 *   checkpoint CONFIG TOKENIZER DIR BATCH ACCUMULATE TOKENS ROUNDS bf16|f32
 *
 * Sides take turns within each round.  Plain writers: files of the checkpoint's sizes, of random
 * bytes, 8 MiB a call, blocks reserved, one fsync each; through the page cache, past it, and past
 * it from two threads.  Then steps, alone and from the moment at which a save begins; of these the
 * ones that began before it was over count, against as many of those alone in the same round.
 *
 * Pictures and captions are noise.  One JSON line a round. */
#include "train/train.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { CALL_BYTES = 8 << 20, NOISE_BYTES = 64 << 20, N_FILES = 2, MAX_STEPS = 12, CACHED_PART = 8 };

typedef struct setting {
    const char *dir;
    int64_t batch, accumulate, tokens, rounds;
    tess_model *model;
    tess_trainer *trainer;
    tess_micro_batch b;
    uint8_t *noise;
    int64_t file_bytes[N_FILES], bytes, step;
} setting;

/* ---- plain writers ------------------------------------------------------------------------- */

typedef struct plain {
    const uint8_t *noise;
    char path[512];
    int64_t n_bytes;
    int flags;
    bool failed;
} plain;

static void *write_plain(void *ctx)
{
    plain *p = ctx;
    const int fd = open(p->path, O_WRONLY | O_CREAT | O_TRUNC | p->flags, 0666);
    const int64_t whole = (p->n_bytes + 4095) / 4096 * 4096;
    p->failed = fd < 0 || fallocate(fd, 0, 0, whole) != 0;
    for (int64_t at = 0; !p->failed && at < whole; at += CALL_BYTES) {
        const int64_t n = whole - at < CALL_BYTES ? whole - at : CALL_BYTES;
        p->failed = pwrite(fd, p->noise + at % NOISE_BYTES, (size_t)n, at) != n;
    }
    p->failed = p->failed || fsync(fd) != 0;
    close(fd);
    return NULL;
}

/* Bytes a second of both files, or a `part` of each; 0: they could not be written this way. */
static double plain_rate(const setting *s, int flags, int n_threads, int64_t part)
{
    plain p[N_FILES];
    pthread_t threads[N_FILES];
    const double start = tess_seconds();
    for (int i = 0; i < N_FILES; i++) {
        p[i] = (plain){.noise = s->noise, .n_bytes = s->file_bytes[i] / part, .flags = flags};
        snprintf(p[i].path, sizeof p[i].path, "%s/plain%d", s->dir, i);
        if (n_threads == 1) {
            write_plain(&p[i]);
        } else {
            pthread_create(&threads[i], NULL, write_plain, &p[i]);
        }
    }
    for (int i = 0; n_threads > 1 && i < N_FILES; i++) {
        pthread_join(threads[i], NULL);
    }
    const double seconds = tess_seconds() - start;
    for (int i = 0; i < N_FILES; i++) {
        unlink(p[i].path);
    }
    return p[0].failed || p[1].failed ? 0 : (double)(s->bytes / part) / seconds;
}

/* ---- saves --------------------------------------------------------------------------------- */

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static tess_status remove_save(const setting *s)
{
    char path[512];
    snprintf(path, sizeof path, "%s/step_1", s->dir);
    return tess_dir_remove(path);
}

static tess_status sync_rate(setting *s, double *out, double *out_cpu)
{
    const double start = tess_seconds(), cpu = cpu_seconds();
    TESS_TRY(tess_checkpoint_save(s->model, &(tess_train_state){0}, s->dir, "step_1"));
    *out = (double)s->bytes / (tess_seconds() - start);
    *out_cpu = cpu_seconds() - cpu;
    return remove_save(s);
}

/* ---- steps --------------------------------------------------------------------------------- */

static tess_status step(setting *s, tess_saver *saver)
{
    float loss, norm;
    for (int64_t i = 0; i < s->accumulate; i++) {
        TESS_TRY(tess_trainer_micro_step(s->trainer, &s->b, &loss));
    }
    if (saver) {
        tess__saver_settle(saver);
    }
    return tess_trainer_update(s->trainer, 1e-5, ++s->step, &norm);
}

static tess_status steps_alone(setting *s, int64_t n, double *out, double *out_cpu)
{
    const double cpu = cpu_seconds();
    for (int64_t i = 0; i < n; i++) {
        const double start = tess_seconds();
        TESS_TRY(step(s, NULL));
        out[i] = tess_seconds() - start;
    }
    *out_cpu = (cpu_seconds() - cpu) / (double)n;
    return TESS_OK;
}

/* Steps from a save's beginning until it is over; how many. */
static tess_status steps_saving(setting *s, tess_saver *saver, double *out, int64_t *out_n,
                                double *out_cpu)
{
    const double cpu = cpu_seconds();
    int64_t n = 0;
    double start = tess_seconds();
    TESS_TRY(
        tess__checkpoint_start(saver, s->model, &(tess_train_state){0}, s->dir, "step_1", NULL));
    for (bool over = false; !over && n < MAX_STEPS; n++) {
        TESS_TRY(step(s, saver));
        out[n] = tess_seconds() - start;
        start = tess_seconds();
        over = !tess__saver_stats(saver).running;
    }
    *out_cpu = (cpu_seconds() - cpu) / (double)n;
    *out_n = n;
    TESS_TRY(tess__saver_end(saver, true));
    return remove_save(s);
}

static double sum(const double *x, int64_t n)
{
    double total = 0;
    for (int64_t i = 0; i < n; i++) {
        total += x[i];
    }
    return total;
}

/* As many steps alone before and after as were saved in: a drift of the machine's speed does not
 * count. */
static tess_status round_of_steps(setting *s, tess_saver *saver)
{
    double saving[MAX_STEPS], before[MAX_STEPS], after[MAX_STEPS], cpu[3];
    static int64_t n_last = 1;
    int64_t n;
    TESS_TRY(steps_alone(s, n_last, before, &cpu[0]));
    TESS_TRY(steps_saving(s, saver, saving, &n, &cpu[1]));
    TESS_TRY(steps_alone(s, n, after, &cpu[2]));
    const double alone = (sum(before, n_last) + sum(after, n)) / (double)(n_last + n);
    const tess_saver_stats stats = tess__saver_stats(saver);
    printf("\"steps_overlapped\": %lld, \"step_alone_s\": %.4f, \"step_saving_s\": %.4f, "
           "\"cpu_alone_s\": %.3f, \"cpu_saving_s\": %.3f, \"save_s\": %.3f, \"pieces_copied\": "
           "%lld, \"settle_s\": %.4f",
           (long long)n, alone, sum(saving, n) / (double)n, (cpu[0] + cpu[2]) / 2, cpu[1],
           stats.job_seconds, (long long)stats.n_copied, stats.settle_seconds);
    n_last = n;
    return TESS_OK;
}

/* ---- set up -------------------------------------------------------------------------------- */

static tess_status fill(setting *s)
{
    const int64_t side = tess_model_image_size(s->model), batch = s->batch, tokens = s->tokens;
    const size_t n_pixels = (size_t)(batch * side * side * 3);
    uint8_t *pictures = tess_alloc(n_pixels);
    int32_t *ids = tess_alloc_array((size_t)(2 * batch * tokens), sizeof *ids);
    int32_t *offsets = tess_alloc_array((size_t)batch + 1, sizeof *offsets);
    uint8_t *noise = tess_alloc(NOISE_BYTES);
    if (!pictures || !ids || !offsets || !noise) {
        return TESS_NOMEM;
    }
    tess_rng r = tess_rng_at(1, 0);
    for (size_t i = 0; i < NOISE_BYTES; i += 4) {
        const uint32_t x = tess_rng_u32(&r);
        memcpy(noise + i, &x, 4);
    }
    memcpy(pictures, noise, n_pixels < NOISE_BYTES ? n_pixels : NOISE_BYTES);
    for (int64_t i = 0; i < batch * tokens; i++) {
        ids[i] = (int32_t)(4 + tess_rng_below(&r, 1000));
        ids[batch * tokens + i] = (int32_t)(i % tokens);
        offsets[i / tokens + 1] = (int32_t)((i / tokens + 1) * tokens);
    }
    s->noise = noise;
    s->b = (tess_micro_batch){.pictures = pictures,
                              .n_tokens = batch * tokens,
                              .tokens = ids,
                              .positions = ids + batch * tokens,
                              .offsets = offsets};
    return TESS_OK;
}

static tess_status measure(setting *s)
{
    tess_saver *saver = NULL;
    double unused[1], cpu;
    TESS_TRY(fill(s));
    s->file_bytes[0] = tess_model_n_params(s->model) * 4;
    s->file_bytes[1] = 2 * s->file_bytes[0];
    s->bytes = 3 * s->file_bytes[0];
    TESS_TRY(tess__saver_new(&(tess_saver_options){.copy_bytes = (size_t)1 << 30}, &saver));
    TESS_TRY(steps_alone(s, 1, unused, &cpu)); /* makes plans and memory */
    for (int64_t i = 0; i < s->rounds; i++) {
        double sync, sync_cpu;
        printf("{\"bytes\": %lld, \"parameters\": %lld, ", (long long)s->bytes,
               (long long)tess_model_n_params(s->model));
        printf("\"cached_mb_s\": %.1f, ", 1e-6 * plain_rate(s, 0, 1, CACHED_PART));
        printf("\"direct_mb_s\": %.1f, ", 1e-6 * plain_rate(s, O_DIRECT, 1, 1));
        TESS_TRY(sync_rate(s, &sync, &sync_cpu));
        printf("\"direct_two_mb_s\": %.1f, ", 1e-6 * plain_rate(s, O_DIRECT, 2, 1));
        printf("\"sync_mb_s\": %.1f, \"sync_cpu_s\": %.3f, ", 1e-6 * sync, sync_cpu);
        fflush(stdout);
        TESS_TRY(round_of_steps(s, saver));
        printf("}\n");
        fflush(stdout);
    }
    tess__saver_free(saver);
    return TESS_OK; /* the process ends here */
}

static tess_status open_and_measure(char **a)
{
    setting s = {.dir = a[3],
                 .batch = atoll(a[4]),
                 .accumulate = atoll(a[5]),
                 .tokens = atoll(a[6]),
                 .rounds = atoll(a[7])};
    const tess_precision precision =
        strcmp(a[8], "bf16") == 0 ? TESS_PRECISION_BF16 : TESS_PRECISION_F32;
    TESS_TRY(tess_dir_make(s.dir));
    TESS_TRY(tess_model_new(a[1], a[2], 1, precision, &s.model));
    TESS_TRY(tess_trainer_new(s.model,
                              &(tess_trainer_options){.batch = s.batch,
                                                      .captions_per_image = 1,
                                                      .accumulate = s.accumulate,
                                                      .beta1 = 0.9f,
                                                      .beta2 = 0.98f,
                                                      .eps = 1e-6f},
                              &s.trainer));
    return measure(&s);
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr,
                "checkpoint CONFIG TOKENIZER DIR BATCH ACCUMULATE TOKENS ROUNDS bf16|f32\n");
        return 2;
    }
    tess_compute_threads(0);
    if (open_and_measure(argv) != TESS_OK) {
        fprintf(stderr, "checkpoint: %s\n", tess_error());
        return 1;
    }
    return 0;
}
