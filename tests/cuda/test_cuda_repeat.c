/* SPDX-License-Identifier: Apache-2.0 */
/* The deterministic mode: two trainings, each in a process of its own, which chooses its algorithms
 * anew, give the same losses in every step and the same weights and moments, to the byte; and what
 * the mode costs.  On a card 1,000 steps of towers of ViT-B/32 in bf16, on the emulated one a few
 * of a tiny model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "cuda/emulate_control.h"
#include "fusion/fusion_fixture.h"

#ifdef TESS_REAL_CARD
enum { N_STEPS = 1000, WARM_STEPS = 20, BATCH = 64, SIDE = 224, PATCH = 32, LAYERS = 12 };
enum { IMAGE_WIDTH = 768, TEXT_WIDTH = 512, EMBED = 512, TEXT_TOKENS = 77 };
#else
enum { N_STEPS = 4, WARM_STEPS = 2, BATCH = 4, SIDE = 16, PATCH = 8, LAYERS = 1 };
enum { IMAGE_WIDTH = 64, TEXT_WIDTH = 64, EMBED = 16, TEXT_TOKENS = 6 };
#endif

enum { N_BATCHES = WARM_STEPS / 2 }; /* whose plans are all recorded by then */

/* What a training leaves: equal bytes, equal hashes. */
typedef struct trained {
    char hash[33];
    float first_loss, last_loss;
    double step_seconds; /* of the steps after the first WARM_STEPS */
    int algorithm;       /* of the last product, where that is known */
    bool done;
} trained;

static tess_model *new_model(void)
{
    static const char format[] =
        "{\"model_cfg\": {\"embed_dim\": %d, \"vision_cfg\": {\"image_size\": %d, \"patch_size\": "
        "%d, \"width\": %d, \"layers\": %d, \"head_width\": 64}, \"text_cfg\": "
        "{\"context_length\": "
        "%d, \"vocab_size\": 64, \"width\": %d, \"heads\": %d, \"layers\": %d, \"eos_id\": 2, "
        "\"tokenizer\": \"tiny.model\"}}}";
    tess_model *m = NULL;
    const char *path = fixture_at("config.json");
    char *text = tess_format(format, EMBED, SIDE, PATCH, IMAGE_WIDTH, LAYERS, TEXT_TOKENS,
                             TEXT_WIDTH, TEXT_WIDTH / 64, LAYERS);
    ok(tess_file_write(path, text, strlen(text)));
    ok(tess_model_new(path, FIXTURE "tiny.model", 1, TESS_PRECISION_BF16, &m));
    tess_free(text);
    return m;
}

typedef struct random_batch {
    uint8_t *pictures;
    int32_t tokens[BATCH * TEXT_TOKENS], positions[BATCH * TEXT_TOKENS], offsets[BATCH + 1];
} random_batch;

/* Captions of 1..TEXT_TOKENS tokens. */
static void draw(random_batch *b, uint64_t seed)
{
    tess_rng rng = tess_rng_at(1, seed);
    int32_t n = 0;
    b->pictures = tess_alloc_array(BATCH, (size_t)SIDE * SIDE * 3);
    for (int64_t i = 0; i < (int64_t)BATCH * SIDE * SIDE * 3; i += 4) {
        const uint32_t four = tess_rng_u32(&rng);
        memcpy(b->pictures + i, &four, sizeof four);
    }
    for (int i = 0; i < BATCH; i++) {
        const int32_t length = 1 + (int32_t)tess_rng_below(&rng, TEXT_TOKENS);
        for (int32_t k = 0; k < length; k++, n++) {
            b->tokens[n] = (int32_t)tess_rng_below(&rng, 64);
            b->positions[n] = k;
        }
        b->offsets[i + 1] = n;
    }
}

static tess_micro_batch micro_batch(const random_batch *b)
{
    return (tess_micro_batch){.pictures = b->pictures,
                              .n_tokens = b->offsets[BATCH],
                              .tokens = b->tokens,
                              .positions = b->positions,
                              .offsets = b->offsets};
}

static void take_results(tess_trainer *t, bool wait, tess_hash128_state *h, trained *out)
{
    tess_step_result s;
    for (;;) {
        ok(tess_trainer_read(t, wait, &s));
        if (s.step == 0) {
            return;
        }
        tess_hash128_add(h, &s.loss, sizeof s.loss);
        tess_hash128_add(h, &s.norm, sizeof s.norm);
        out->first_loss = s.step == 1 ? s.loss : out->first_loss;
        out->last_loss = s.loss;
    }
}

static void take_states(tess_model *m, tess_hash128_state *h)
{
    static const char *const groups[] = {"param", "m", "v"};
    tess_store *s = tess_model_store(m);
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        int64_t n;
        ok(tess_store_download(s, groups[i], ""));
        const float *x = tess_store_group(s, groups[i], &n);
        tess_hash128_add(h, x, (size_t)n * sizeof *x);
    }
}

/* The library proposes three algorithms, and one is faster than the first, another in each run. */
static void make_fastest(int algorithm)
{
#ifndef TESS_REAL_CARD
    emulate_lt.n_algorithms = 3;
    for (int i = 0; i < 3; i++) {
        emulate_lt.ms[i] = i == algorithm ? 1 : 2;
    }
#else
    (void)algorithm;
#endif
}

static int last_algorithm(void)
{
#ifndef TESS_REAL_CARD
    return emulate_lt.last;
#else
    return 0;
#endif
}

static void train(bool deterministic, trained *out)
{
    const tess_trainer_options o = {.batch = BATCH,
                                    .captions_per_image = 1,
                                    .accumulate = 1,
                                    .beta1 = 0.9f,
                                    .beta2 = 0.98f,
                                    .eps = 1e-6f,
                                    .weight_decay = 0.2f,
                                    .clip = 1};
    const tess_device *card;
    tess_trainer *t;
    static random_batch batches[N_BATCHES];
    for (uint64_t i = 0; i < N_BATCHES; i++) {
        draw(&batches[i], i);
    }
    tess_hash128_state *h = tess_hash128_new();
    tess_compute_deterministic(deterministic);
    ok(tess_device_cuda(&card));
    tess_model *m = new_model();
    tess_model_use(m, card);
    ok(tess_trainer_new(m, &o, &t));
    double start = 0;
    for (int64_t step = 1; step <= N_STEPS; step++) {
        const tess_micro_batch mb = micro_batch(&batches[step % N_BATCHES]);
        ok(tess_trainer_micro_step(t, &mb, NULL));
        ok(tess_trainer_update(t, 1e-4, step, NULL));
        take_results(t, step == WARM_STEPS, h, out);
        start = step == WARM_STEPS ? tess_seconds() : start;
    }
    take_results(t, true, h, out);
    out->step_seconds = (tess_seconds() - start) / (N_STEPS - WARM_STEPS);
    out->algorithm = last_algorithm();
    take_states(m, h);
    tess_hash128_finish(h, out->hash);
    tess_trainer_free(t);
    tess_model_free(m);
    for (int i = 0; i < N_BATCHES; i++) {
        tess_free(batches[i].pictures);
    }
    out->done = true;
}

/* In a child: the card is opened, and algorithms are chosen, once a process. */
static trained train_apart(bool deterministic, int fastest)
{
    int ends[2], status = -1;
    trained t = {0};
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        setenv("TESSERA_CACHE", "", 1); /* what is chosen is measured */
        make_fastest(fastest);
        train(deterministic, &t);
        _exit(write(ends[1], &t, sizeof t) == (ssize_t)sizeof t ? 0 : 1);
    }
    close(ends[1]);
    const bool there = read(ends[0], &t, sizeof t) == (ssize_t)sizeof t;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(there && status == 0 && t.done);
    return t;
}

static void check_repeats(void **state)
{
    (void)state;
    const trained a = train_apart(true, 1), b = train_apart(true, 2), timed = train_apart(false, 2);
    print_message("%d steps, loss %.6f to %.6f: %s\n", N_STEPS, (double)a.first_loss,
                  (double)a.last_loss, a.hash);
    print_message("ms a step: deterministic %.2f and %.2f, algorithms timed %.2f; its bytes are "
                  "%s\n",
                  1e3 * a.step_seconds, 1e3 * b.step_seconds, 1e3 * timed.step_seconds,
                  strcmp(a.hash, timed.hash) == 0 ? "the same" : "others");
    assert_true(isfinite(a.first_loss) && isfinite(a.last_loss) && a.first_loss > 0);
    assert_string_equal(a.hash, b.hash);
#ifndef TESS_REAL_CARD
    assert_true(a.algorithm == 0 && b.algorithm == 0 && timed.algorithm == 2);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(check_repeats, fixture_make_root, fixture_remove_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
