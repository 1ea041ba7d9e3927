/* SPDX-License-Identifier: Apache-2.0 */
/* Two passes over the tiles of the score matrix: the first finds the score of every right answer,
 * the second counts what stands above it.  A score comes from the same product at the same place
 * of a tile in both passes, so equal is equal, and ties need no tolerance.
 *
 * Peers sort each row and look where the right answer went, which leaves ties to the sorting; here
 * they go by index, as a stable descending sort would have it. */
#include "train/ranking.h"

#include "tensor/matmul.h"

#include <math.h>
#include <string.h>

#define ROWS    512
#define COLUMNS 2048

typedef struct ranking {
    const tess__pairs *p;
    int64_t *right_rank, *back_rank;
    float *own;     /* (N) the right answer's score */
    float *best;    /* (M) the best score among the questions that the answer is right for */
    int64_t *first; /* (M) the question that has it; -1: none */
} ranking;

/* A block of scores: row i is question row + i, column k answer column + k. */
typedef struct tile {
    const float *scores;
    int64_t row, n_rows, column, n_columns;
} tile;

static void find_own(ranking *r, const tile *t)
{
    for (int64_t i = 0; i < t->n_rows; i++) {
        int64_t question = t->row + i, right = r->p->right[question];
        if (right < t->column || right >= t->column + t->n_columns) {
            continue;
        }
        float s = t->scores[i * COLUMNS + right - t->column];
        r->own[question] = s;
        if (r->first[right] < 0 || s > r->best[right]) {
            r->best[right] = s;
            r->first[right] = question;
        }
    }
}

static void count_above(ranking *r, const tile *t)
{
    for (int64_t i = 0; i < t->n_rows; i++) {
        const float *s = t->scores + i * COLUMNS, own = r->own[t->row + i];
        int64_t before = r->p->right[t->row + i] - t->column, n = 0;
        for (int64_t k = 0; k < t->n_columns; k++) {
            n += (s[k] > own) | ((s[k] == own) & (k < before));
        }
        r->right_rank[t->row + i] += n;
    }
}

static void count_back(ranking *r, const tile *t)
{
    for (int64_t i = 0; r->back_rank && i < t->n_rows; i++) {
        const float *s = t->scores + i * COLUMNS;
        int64_t question = t->row + i;
        for (int64_t k = 0; k < t->n_columns; k++) {
            int64_t a = t->column + k;
            r->back_rank[a] +=
                (s[k] > r->best[a]) | ((s[k] == r->best[a]) & (question < r->first[a]));
        }
    }
}

static void visit_second(ranking *r, const tile *t)
{
    count_above(r, t);
    count_back(r, t);
}

/* ---- tiles --------------------------------------------------------------------------------- */

typedef struct tiler {
    tess_matmul *product;
    float *a, *b, *scores;
    void *scratch;
} tiler;

static tess_status tiler_init(tiler *t, int64_t dim)
{
    tess_matmul_spec spec = {
        .m = ROWS, .n = COLUMNS, .k = dim, .in = TESS_F32, .out = TESS_F32, .b_trans = true};
    t->a = tess_alloc_array(ROWS, (size_t)dim * sizeof *t->a);
    t->b = tess_alloc_array(COLUMNS, (size_t)dim * sizeof *t->b);
    t->scores = tess_alloc_array(ROWS, COLUMNS * sizeof *t->scores);
    if (!t->a || !t->b || !t->scores) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__matmul_new(&spec, &t->product));
    t->scratch = tess_alloc(tess__matmul_scratch(t->product));
    return t->scratch ? TESS_OK : TESS_NOMEM;
}

static void tiler_deinit(tiler *t)
{
    tess__matmul_free(t->product);
    tess_free(t->a);
    tess_free(t->b);
    tess_free(t->scores);
    tess_free(t->scratch);
}

/* What a partial block leaves of the earlier one is computed too and not looked at. */
static tess_status multiply(tiler *t, const tess__pairs *p, tile *out)
{
    memcpy(t->b, p->answers + out->column * p->dim,
           (size_t)(out->n_columns * p->dim) * sizeof *t->b);
    TESS_TRY(tess__matmul_run(
        t->product,
        &(tess_matmul_args){.a = t->a, .b = t->b, .c = t->scores, .scratch = t->scratch}));
    for (int64_t i = 0; i < (int64_t)ROWS * COLUMNS; i++) {
        t->scores[i] = isnan(t->scores[i]) ? -INFINITY : t->scores[i];
    }
    out->scores = t->scores;
    return TESS_OK;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static tess_status for_tiles(ranking *r, tiler *t, void (*visit)(ranking *, const tile *))
{
    const tess__pairs *p = r->p;
    for (int64_t i = 0; i < p->n_questions; i += ROWS) {
        tile x = {.row = i, .n_rows = least(ROWS, p->n_questions - i)};
        memcpy(t->a, p->questions + i * p->dim, (size_t)(x.n_rows * p->dim) * sizeof *t->a);
        for (x.column = 0; x.column < p->n_answers; x.column += COLUMNS) {
            x.n_columns = least(COLUMNS, p->n_answers - x.column);
            TESS_TRY(multiply(t, p, &x));
            visit(r, &x);
        }
        if (tess_cancelled) {
            return TESS_FAIL(TESS_CANCELLED, "stopped while ranking");
        }
    }
    return TESS_OK;
}

tess_status tess__rank_pairs(const tess__pairs *p, int64_t *out_right, int64_t *out_back)
{
    ranking r = {.p = p, .right_rank = out_right, .back_rank = out_back};
    tiler t = {0};
    r.own = tess_alloc_array((size_t)p->n_questions, sizeof *r.own);
    r.best = tess_alloc_array((size_t)p->n_answers, sizeof *r.best);
    r.first = tess_alloc_array((size_t)p->n_answers, sizeof *r.first);
    tess_status st = r.own && r.best && r.first ? tiler_init(&t, p->dim) : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < p->n_questions; i++) {
        out_right[i] = 1;
    }
    for (int64_t k = 0; st == TESS_OK && k < p->n_answers; k++) {
        r.first[k] = -1;
    }
    st = st ? st : for_tiles(&r, &t, find_own);
    for (int64_t k = 0; out_back && st == TESS_OK && k < p->n_answers; k++) {
        out_back[k] = 1;
    }
    st = st ? st : for_tiles(&r, &t, visit_second);
    for (int64_t k = 0; out_back && st == TESS_OK && k < p->n_answers; k++) {
        out_back[k] = r.first[k] < 0 ? 0 : out_back[k];
    }
    tiler_deinit(&t);
    tess_free(r.own);
    tess_free(r.best);
    tess_free(r.first);
    return st;
}

/* ---- what is made of ranks ----------------------------------------------------------------- */

double tess__recall_at(const int64_t *ranks, int64_t n, int64_t k)
{
    int64_t n_all = 0, n_good = 0;
    for (int64_t i = 0; i < n; i++) {
        n_all += ranks[i] > 0;
        n_good += ranks[i] > 0 && ranks[i] <= k;
    }
    return n_all > 0 ? (double)n_good / (double)n_all : NAN;
}

tess_status tess__mean_class_recall(const int64_t *ranks, const int64_t *labels, int64_t n,
                                    int64_t n_classes, double *out)
{
    int64_t *all = tess_alloc_array((size_t)n_classes, sizeof *all);
    int64_t *good = tess_alloc_array((size_t)n_classes, sizeof *good);
    double sum = 0;
    int64_t n_met = 0;
    tess_status st = all && good ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < n; i++) {
        all[labels[i]]++;
        good[labels[i]] += ranks[i] == 1;
    }
    for (int64_t c = 0; st == TESS_OK && c < n_classes; c++) {
        n_met += all[c] > 0;
        sum += all[c] > 0 ? (double)good[c] / (double)all[c] : 0;
    }
    *out = n_met > 0 ? sum / (double)n_met : NAN;
    tess_free(all);
    tess_free(good);
    return st;
}
