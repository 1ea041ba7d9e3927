/* SPDX-License-Identifier: Apache-2.0 */
/* The order of samples and the choice of captions, as pure functions. */
#include "train/data_fakes.h"

#include <math.h>

static void test_an_epoch_visits_each_sample_once(void **state)
{
    const tess_order o = {.seed = 7, .n = 103, .batch = 10};
    int seen[103] = {0}, n_seen = 0, n_same = 0;
    (void)state;
    for (int64_t counter = 0; counter < 100; counter += 10) {
        assert_int_equal(tess_order_epoch(&o, counter), 0);
        for (int64_t slot = 0; slot < 10; slot++) {
            int64_t i = tess_order_get(&o, counter, slot, 0);
            assert_true(i >= 0 && i < 103 && !seen[i]);
            n_seen += ++seen[i];
            n_same += i == tess_order_get(&o, counter + 100, slot, 0);
        }
    }
    assert_int_equal(n_seen, 100);
    assert_int_equal(tess_order_epoch(&o, 100), 1);
    assert_true(n_same < 10);
}

/* Attempts of one slot go through all samples, each once; slots do not meet before they must. */
static void test_replacements(void **state)
{
    static const struct {
        int64_t n, batch;
    } cases[] = {{103, 10}, {20, 10}, {10, 10}, {19, 10}, {5, 1}, {7, 3}};
    (void)state;
    for (int64_t c = 0; c < TESS_COUNT(cases); c++) {
        const tess_order o = {.seed = 3, .n = cases[c].n, .batch = cases[c].batch};
        int64_t n_batches = o.n / o.batch;
        int taken[103] = {0};
        for (int64_t slot = 0; slot < o.batch; slot++) {
            int seen[103] = {0};
            for (int64_t attempt = 0; attempt < o.n; attempt++) {
                int64_t i = tess_order_get(&o, (n_batches - 1) * o.batch, slot, attempt);
                assert_true(i >= 0 && i < o.n && !seen[i]);
                seen[i] = 1;
                taken[i] += attempt < n_batches;
            }
            assert_int_equal(tess_order_get(&o, 0, slot, o.n), -1);
        }
        for (int64_t i = 0; i < o.n; i++) {
            assert_true(taken[i] <= 1);
        }
    }
}

/* Languages a (80 captions), b (16), c (4), one of each in every picture that has it. */
static tess_dataset *open_languages(void)
{
    tess_buf tar = {0};
    for (int i = 0; i < 80; i++) {
        char name[32], json[200];
        snprintf(name, sizeof name, "%d.jpg", i);
        tar_adds(&tar, name, "PIC 1");
        snprintf(name, sizeof name, "%d.json", i);
        snprintf(json, sizeof json, "{\"captions\":{\"a\":\"x\"%s%s}}",
                 i < 16 ? ",\"b\":\"y\"" : "", i < 4 ? ",\"c\":\"z\"" : "");
        tar_adds(&tar, name, json);
    }
    tar_write(&tar, "languages.tar");
    return open_data(run_path("languages.tar"), (tess_dataset_options){0});
}

/* How often a, b, c come first, of 3000 draws from a picture that has all three. */
static void count_first(const tess_dataset *ds, double temperature, double out[3])
{
    static const int32_t languages[] = {0, 1, 2};
    tess_caption_draw *d;
    assert_int_equal(tess_caption_draw_new(ds, temperature, &d), TESS_OK);
    memset(out, 0, 3 * sizeof *out);
    for (uint64_t id = 0; id < 3000; id++) {
        const tess_view_key key = {.seed = 5, .epoch = 1, .id = id};
        assert_int_equal(tess_caption_draw_set(d, key, languages, 3), TESS_OK);
        out[tess_caption_draw_next(d)] += 1. / 3000;
    }
    tess_caption_draw_free(d);
}

static void check_shares(const double have[3], double a, double b, double c)
{
    const double weights[] = {a, b, c};
    for (int i = 0; i < 3; i++) {
        double want = weights[i] / (a + b + c); /* four deviations of a share of 3000 draws */
        assert_true(fabs(have[i] - want) < 4 * sqrt(want * (1 - want) / 3000));
    }
}

static void test_temperature(void **state)
{
    double have[3];
    (void)state;
    tess_dataset *ds = open_languages();
    count_first(ds, 1, have);
    check_shares(have, 1, 1, 1);
    count_first(ds, INFINITY, have);
    check_shares(have, 1. / 80, 1. / 16, 1. / 4);
    count_first(ds, 2, have);
    check_shares(have, 1 / sqrt(80), 1 / sqrt(16), 1 / sqrt(4));
    tess_caption_draw *d;
    assert_int_equal(tess_caption_draw_new(ds, -1, &d), TESS_INVALID);
    assert_int_equal(tess_caption_draw_new(ds, NAN, &d), TESS_INVALID);
    tess_dataset_close(ds);
}

static void test_rounds_of_different_languages(void **state)
{
    static const int32_t languages[] = {0, 0, 0, 1, 1, 2};
    (void)state;
    tess_dataset *ds = open_languages();
    tess_caption_draw *d;
    assert_int_equal(tess_caption_draw_new(ds, 2, &d), TESS_OK);
    for (uint64_t id = 0; id < 200; id++) {
        const tess_view_key key = {.seed = 1, .epoch = 2, .id = id};
        int64_t order[7], again[7];
        int seen[6] = {0};
        for (int turn = 0; turn < 2; turn++) {
            assert_int_equal(tess_caption_draw_set(d, key, languages, 6), TESS_OK);
            for (int i = 0; i < 7; i++) {
                (turn ? again : order)[i] = tess_caption_draw_next(d);
            }
        }
        assert_memory_equal(order, again, sizeof order);
        for (int i = 0; i < 6; i++) {
            seen[order[i]]++;
        }
        for (int i = 0; i < 6; i++) {
            assert_int_equal(seen[i], 1);
        }
        assert_int_equal(order[6], -1);
        /* rounds: a b c in any order, a b, a */
        assert_int_equal(languages[order[0]] + languages[order[1]] + languages[order[2]], 3);
        assert_true(languages[order[0]] != languages[order[1]]);
        assert_int_equal(languages[order[3]] + languages[order[4]], 1);
        assert_int_equal(languages[order[5]], 0);
    }
    assert_int_equal(tess_caption_draw_set(d, (tess_view_key){0}, languages, 0), TESS_OK);
    assert_int_equal(tess_caption_draw_next(d), -1);
    tess_caption_draw_free(d);
    tess_dataset_close(ds);
}

/* Seed, epoch and sample each change what is drawn. */
static void test_every_part_of_the_key_counts(void **state)
{
    static const int32_t languages[20] = {0};
    static const tess_view_key keys[] = {{1, 1, 1}, {2, 1, 1}, {1, 2, 1}, {1, 1, 2}};
    int64_t orders[4][20];
    (void)state;
    tess_dataset *ds = open_languages();
    tess_caption_draw *d;
    assert_int_equal(tess_caption_draw_new(ds, 1, &d), TESS_OK);
    for (int k = 0; k < 4; k++) {
        assert_int_equal(tess_caption_draw_set(d, keys[k], languages, 20), TESS_OK);
        for (int i = 0; i < 20; i++) {
            orders[k][i] = tess_caption_draw_next(d);
        }
        for (int other = 0; other < k; other++) {
            assert_memory_not_equal(orders[k], orders[other], sizeof orders[k]);
        }
    }
    tess_caption_draw_free(d);
    tess_dataset_close(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_epoch_visits_each_sample_once),
        cmocka_unit_test(test_replacements),
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_rounds_of_different_languages),
        cmocka_unit_test(test_every_part_of_the_key_counts),
    };
    return cmocka_run_group_tests(tests, run_dir_make, run_dir_remove);
}
