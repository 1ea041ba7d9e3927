/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks, what is made of them, and the linear probe, against numpy and scikit-learn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/probe.h"
#include "train/ranking.h"

#define FIXTURE "tests/fixtures/train/eval/"

static void ok(tess_status st)
{
    if (st) {
        fail_msg("%s", tess_error());
    }
}

static float *floats(const tess_json *v)
{
    float *out = tess_alloc_array(tess_json_count(v), sizeof *out);
    for (size_t i = 0; i < tess_json_count(v); i++) {
        out[i] = (float)tess_json_real(tess_json_at(v, i), NAN);
    }
    return out;
}

static int64_t *ints(const tess_json *v)
{
    int64_t *out = tess_alloc_array(tess_json_count(v), sizeof *out);
    for (size_t i = 0; i < tess_json_count(v); i++) {
        out[i] = tess_json_int(tess_json_at(v, i), -1);
    }
    return out;
}

static double real_at(const tess_json *obj, const char *key, size_t i)
{
    return tess_json_real(tess_json_at(tess_json_get(obj, key), i), NAN);
}

static void assert_near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) {
        fail_msg("%.12g, expected %.12g", a, b);
    }
}

/* ---- ranking ------------------------------------------------------------------------------- */

static void check_ranking(const tess_json *c)
{
    tess__pairs p = {.n_questions = tess_json_int(tess_json_get(c, "n"), 0),
                     .n_answers = tess_json_int(tess_json_get(c, "m"), 0),
                     .dim = tess_json_int(tess_json_get(c, "z"), 0)};
    float *questions = floats(tess_json_get(c, "questions"));
    float *answers = floats(tess_json_get(c, "answers"));
    int64_t *right = ints(tess_json_get(c, "right")), *ks = ints(tess_json_get(c, "ks"));
    int64_t *forward = tess_alloc_array((size_t)p.n_questions, sizeof *forward);
    int64_t *back = tess_alloc_array((size_t)p.n_answers, sizeof *back);
    double class_recall;
    p.questions = questions, p.answers = answers, p.right = right;
    ok(tess__rank_pairs(&p, forward, back));
    for (size_t i = 0; i < 3; i++) {
        assert_near(tess__recall_at(forward, p.n_questions, ks[i]), real_at(c, "forward", i),
                    1e-12);
        assert_near(tess__recall_at(back, p.n_answers, ks[i]), real_at(c, "back", i), 1e-12);
    }
    for (size_t i = 0; i < tess_json_count(tess_json_get(c, "accuracy")); i++) {
        assert_near(tess__recall_at(forward, p.n_questions, ks[i]), real_at(c, "accuracy", i),
                    1e-12);
    }
    ok(tess__mean_class_recall(forward, right, p.n_questions, p.n_answers, &class_recall));
    assert_near(class_recall, tess_json_real(tess_json_get(c, "class_recall"), NAN), 1e-12);
    void *const arrays[] = {questions, answers, right, ks, forward, back};
    for (int64_t i = 0; i < TESS_COUNT(arrays); i++) {
        tess_free(arrays[i]);
    }
}

static void test_ranking_against_numpy(void **state)
{
    (void)state;
    tess_json_doc *doc;
    ok(tess_json_load(FIXTURE "ranking.json", &doc));
    const tess_json *cases = tess_json_root(doc);
    assert_int_equal(tess_json_count(cases), 4);
    for (size_t i = 0; i < tess_json_count(cases); i++) {
        check_ranking(tess_json_at(cases, i));
    }
    tess_json_free(doc);
}

/* Beyond one tile in both directions; integers, so that every score is exact. */
static void test_ranking_of_many(void **state)
{
    (void)state;
    enum { N = 1111, M = 2500, Z = 7 };
    static float questions[N * Z], answers[M * Z];
    static int64_t right[N], forward[N], back[M], best[M];
    static double scores[N][M];
    tess_rng rng = tess_rng_at(5, 1);
    for (int64_t i = 0; i < N * Z; i++) {
        questions[i] = (float)tess_rng_below(&rng, 9) - 4;
    }
    for (int64_t i = 0; i < M * Z; i++) {
        answers[i] = (float)tess_rng_below(&rng, 9) - 4;
    }
    for (int64_t i = 0; i < N; i++) {
        right[i] = tess_rng_below(&rng, M);
        for (int64_t k = 0; k < M; k++) {
            for (int64_t z = 0; z < Z; z++) {
                scores[i][k] += (double)questions[i * Z + z] * (double)answers[k * Z + z];
            }
        }
    }
    tess__pairs p = {questions, answers, right, N, M, Z};
    ok(tess__rank_pairs(&p, forward, back));
    memset(best, -1, sizeof best);
    for (int64_t i = 0; i < N; i++) {
        int64_t rank = 1, r = right[i];
        for (int64_t k = 0; k < M; k++) {
            rank += scores[i][k] > scores[i][r] || (scores[i][k] == scores[i][r] && k < r);
        }
        assert_int_equal(forward[i], rank);
        best[r] = best[r] < 0 || scores[i][r] > scores[best[r]][r] ? i : best[r];
    }
    for (int64_t k = 0; k < M; k++) {
        int64_t rank = best[k] >= 0;
        for (int64_t i = 0; best[k] >= 0 && i < N; i++) {
            rank += scores[i][k] > scores[best[k]][k] ||
                    (scores[i][k] == scores[best[k]][k] && i < best[k]);
        }
        assert_int_equal(back[k], rank);
    }
}

static void test_not_a_number(void **state)
{
    (void)state;
    const float questions[] = {NAN, 1, 1, 0}, answers[] = {1, 0, 0, 1, NAN, NAN};
    const int64_t right[] = {2, 2};
    int64_t forward[2], back[3];
    tess__pairs p = {questions, answers, right, 2, 3, 2};
    ok(tess__rank_pairs(&p, forward, back));
    assert_int_equal(forward[0], 3);
    assert_int_equal(forward[1], 3); /* its answer is no number, the others are */
    assert_int_equal(back[0], 0);
    assert_int_equal(back[2], 1);
    assert_true(isnan(tess__recall_at(back, 2, 1))); /* no rank at all */
}

/* ---- the probe ----------------------------------------------------------------------------- */

static tess__features features_of(const tess_json *c)
{
    int64_t n = tess_json_int(tess_json_get(c, "n"), 0),
            z = tess_json_int(tess_json_get(c, "z"), 0);
    tess__features f = {.n = n, .labels = ints(tess_json_get(c, "labels"))};
    f.x = tess_alloc_array((size_t)(n * (z + 1)), sizeof *f.x);
    for (int64_t i = 0; i < n * z; i++) {
        f.x[i / z * (z + 1) + i % z] = (float)real_at(c, "x", (size_t)i);
    }
    for (int64_t i = 0; i < n; i++) {
        f.x[i * (z + 1) + z] = 1;
    }
    return f;
}

static void features_deinit(tess__features *f)
{
    tess_free(f->x);
    tess_free(f->labels);
}

/* With the weight decay w the optimum is sharp to about the gradient's 1e-6 / w. */
static void check_probe(const tess_json *c)
{
    tess__features f = features_of(c);
    double decay = tess_json_real(tess_json_get(c, "weight_decay"), NAN), mean = 0;
    double tolerance = fmax(1e-4, 2e-6 / decay);
    tess__probe p = {.dim = tess_json_int(tess_json_get(c, "z"), 0),
                     .n_classes = tess_json_int(tess_json_get(c, "classes"), 0)};
    int64_t *ranks = tess_alloc_array((size_t)f.n, sizeof *ranks), wide = p.dim + 1;
    ok(tess__probe_fit(&p, &f, decay));
    assert_true(p.gradient < 2e-6);
    assert_near(p.loss, tess_json_real(tess_json_get(c, "loss"), NAN), 1e-6);
    for (int64_t k = 0; k < p.n_classes; k++) {
        mean += (double)p.weights[k * wide + p.dim] / (double)p.n_classes;
    }
    for (int64_t k = 0; k < p.n_classes; k++) {
        for (int64_t z = 0; z < p.dim; z++) {
            assert_near((double)p.weights[k * wide + z],
                        real_at(c, "weights", (size_t)(k * p.dim + z)), tolerance);
        }
        assert_near((double)p.weights[k * wide + p.dim] - mean, real_at(c, "bias", (size_t)k),
                    tolerance);
    }
    ok(tess__probe_rank(&p, &f, ranks));
    assert_near(tess__recall_at(ranks, f.n, 1), tess_json_real(tess_json_get(c, "accuracy"), NAN),
                1e-12);
    tess_free(ranks);
    tess__probe_deinit(&p);
    features_deinit(&f);
}

static void test_probe_against_scikit_learn(void **state)
{
    (void)state;
    tess_json_doc *doc;
    ok(tess_json_load(FIXTURE "probe.json", &doc));
    const tess_json *cases = tess_json_root(doc);
    assert_int_equal(tess_json_count(cases), 3);
    for (size_t i = 0; i < tess_json_count(cases); i++) {
        check_probe(tess_json_at(cases, i));
    }
    tess_json_free(doc);
}

/* More rows than a block, more classes than are met, and twice the same bytes. */
static void test_probe_repeats(void **state)
{
    (void)state;
    enum { N = 1300, Z = 3, C = 6 };
    tess__features f = {.n = N,
                        .x = tess_alloc_array(N, (Z + 1) * sizeof(float)),
                        .labels = tess_alloc_array(N, sizeof(int64_t))};
    int64_t ranks[N];
    float first[C * (Z + 1)];
    double decay, again;
    tess_rng rng = tess_rng_at(3, 9);
    for (int64_t i = 0; i < N; i++) {
        f.labels[i] = i % 3;
        for (int64_t z = 0; z <= Z; z++) {
            f.x[i * (Z + 1) + z] = z == Z ? 1 : (float)((z == i % 3) + 0.3 * tess_rng_normal(&rng));
        }
    }
    tess__probe p = {.dim = Z, .n_classes = C};
    ok(tess__probe_search(&p, &f, &f, &decay));
    ok(tess__probe_search(&p, &f, &f, &again));
    assert_true(decay == again && decay >= 1e-6 && decay <= 100);
    ok(tess__probe_fit(&p, &f, decay));
    memcpy(first, p.weights, sizeof first);
    ok(tess__probe_rank(&p, &f, ranks));
    assert_true(tess__recall_at(ranks, N, 1) > 0.9);
    ok(tess__probe_fit(&p, &f, decay));
    assert_memory_equal(first, p.weights, sizeof first);
    tess__probe_deinit(&p);
    features_deinit(&f);
}

enum { SPURIOUS_ROWS = 40 };

/* Two classes.  The first number, large, says which, though a fifth of the trained rows lie; the
 * second, small, says it of all trained rows, and of those held back the opposite. */
static tess__features spurious(bool trained)
{
    tess__features f = {.n = SPURIOUS_ROWS,
                        .x = tess_alloc_array(SPURIOUS_ROWS, 3 * sizeof(float)),
                        .labels = tess_alloc_array(SPURIOUS_ROWS, sizeof(int64_t))};
    for (int64_t i = 0; i < SPURIOUS_ROWS; i++) {
        const float side = i % 2 ? 1 : -1;
        f.x[i * 3] = trained && i % 5 == 0 ? -3 * side : 3 * side;
        f.x[i * 3 + 1] = trained ? 0.3f * side : -0.3f * side;
        f.x[i * 3 + 2] = 1;
        f.labels[i] = i % 2;
    }
    return f;
}

static double accuracy_of(tess__probe *p, const tess__features *train, const tess__features *on,
                          double decay)
{
    int64_t ranks[SPURIOUS_ROWS];
    ok(tess__probe_fit(p, train, decay));
    ok(tess__probe_rank(p, on, ranks));
    return tess__recall_at(ranks, on->n, 1);
}

/* The rows held back decide: those trained on would have no decay at all. */
static void test_probe_search_validates(void **state)
{
    (void)state;
    tess__features train = spurious(true), val = spurious(false);
    tess__probe p = {.dim = 2, .n_classes = 2};
    double decay;
    ok(tess__probe_search(&p, &train, &val, &decay));
    assert_near(accuracy_of(&p, &train, &train, 1e-6), 1, 0);
    assert_near(accuracy_of(&p, &train, &val, 1e-6), 0, 0);
    assert_near(accuracy_of(&p, &train, &train, decay), 0.8, 1e-9);
    assert_near(accuracy_of(&p, &train, &val, decay), 1, 0);
    tess__probe_deinit(&p);
    features_deinit(&train);
    features_deinit(&val);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranking_against_numpy),
        cmocka_unit_test(test_ranking_of_many),
        cmocka_unit_test(test_not_a_number),
        cmocka_unit_test(test_probe_against_scikit_learn),
        cmocka_unit_test(test_probe_repeats),
        cmocka_unit_test(test_probe_search_validates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
