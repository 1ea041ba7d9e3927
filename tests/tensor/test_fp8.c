/* SPDX-License-Identifier: Apache-2.0 */
/* FP8: every code against exact arithmetic, rounding against a search among all codes, scales;
 * which products a graph multiplies so, what their gradients are worth, and what NaN and infinity
 * leave. The operator's values are in its cases (test_ops). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "tensor/fp8.h"
#include "tensor/graph.h"
#include "tessera/tensor.h"

static const struct format {
    tess_dtype type;
    uint32_t bits;
    int bias;
    double most;
} formats[] = {{TESS_F8E4M3, 3, 7, 448}, {TESS_F8E5M2, 2, 15, 57344}};

/* What the code stands for by OCP's definition, in double; E4M3 has no infinity. */
static double meaning(const struct format *f, int code)
{
    const int exponent = (code & 0x7f) >> f->bits, mantissa = code & ((1 << f->bits) - 1);
    const double sign = code & 0x80 ? -1 : 1;
    if (f->type == TESS_F8E4M3 ? (code & 0x7f) == 0x7f : exponent == 31 && mantissa) {
        return (double)NAN;
    }
    if (f->type == TESS_F8E5M2 && exponent == 31) {
        return sign * (double)INFINITY;
    }
    const int whole = exponent ? (1 << f->bits) + mantissa : mantissa;
    return sign * ldexp(whole, (exponent ? exponent : 1) - f->bias - (int)f->bits);
}

static void check_codes(void **state)
{
    (void)state;
    for (int k = 0; k < TESS_COUNT(formats); k++) {
        const struct format *f = &formats[k];
        double largest = 0;
        for (int code = 0; code < 256; code++) {
            const float x = tess_f32_from_f8(f->type, (uint8_t)code);
            const double want = meaning(f, code);
            assert_true(isnan(want) ? isnan(x) : (double)x == want && !signbit(x) == !(code >> 7));
            if (isfinite(want)) {
                largest = fmax(largest, want);
                assert_int_equal(tess_f8_from_f32(f->type, x), code);
                /* bf16 has every one of them, which the processor's products rest on. */
                assert_true(tess_f32_from_bf16(tess_bf16_from_f32(x)) == x);
            }
        }
        assert_true(largest == f->most);
    }
}

/* The nearest finite code, of two the even one; beyond them the largest. */
static int nearest(const struct format *f, double x)
{
    const double size = fmin(fabs(x), f->most);
    double least = INFINITY;
    int best = 0;
    for (int code = 0; code < 128; code++) {
        const double far = fabs(meaning(f, code) - size);
        if (far < least || (far == least && code % 2 == 0)) {
            least = far;
            best = code;
        }
    }
    return best | (signbit(x) ? 0x80 : 0);
}

static void assert_nearest(const struct format *f, float x)
{
    const int have = tess_f8_from_f32(f->type, x), want = nearest(f, (double)x);
    if (have != want) {
        fail_msg("%s of %a is %02x, expected %02x", tess_dtype_name(f->type), (double)x, have,
                 want);
    }
}

static void check_rounding(void **state)
{
    (void)state;
    for (int k = 0; k < TESS_COUNT(formats); k++) {
        const struct format *f = &formats[k];
        for (int code = 0; meaning(f, code + 1) <= f->most; code++) {
            const float tie = (float)((meaning(f, code) + meaning(f, code + 1)) / 2);
            for (int sign = -1; sign <= 1; sign += 2) {
                assert_nearest(f, (float)sign * tie);
                assert_nearest(f, (float)sign * nextafterf(tie, 0));
                assert_nearest(f, (float)sign * nextafterf(tie, INFINITY));
            }
        }
        for (uint32_t u = 0; u < 0x7f800000u; u += 65521) { /* all magnitudes */
            assert_nearest(f, tess__f32_of(u));
            assert_nearest(f, tess__f32_of(u | 0x80000000u));
        }
        const int most = f->type == TESS_F8E4M3 ? 0x7e : 0x7b;
        assert_int_equal(tess_f8_from_f32(f->type, INFINITY), most);
        assert_int_equal(tess_f8_from_f32(f->type, -INFINITY), most | 0x80);
        assert_int_equal(tess_f8_from_f32(f->type, NAN), 0x7f);
        assert_int_equal(tess_f8_from_f32(f->type, -NAN), 0x7f);
    }
}

static void check_scales(void **state)
{
    (void)state;
    for (int k = 0; k < TESS_COUNT(formats); k++) {
        const struct format *f = &formats[k];
        for (uint32_t u = 0; u < 0x7f800000u; u += 65521) {
            const double amax = (double)tess__f32_of(u);
            const float s = tess__f8_scale((float)amax, f->bits);
            int exponent;
            assert_true(frexpf(s, &exponent) == 0.5f && exponent >= -125);
            assert_true(amax <= (double)s * f->most);
            assert_true(exponent == -125 || amax > (double)s / 2 * f->most * (1 - 0x1p-23));
        }
        assert_true(isfinite(1 / tess__f8_scale(0, f->bits)));
        assert_true(isinf(tess__f8_scale(INFINITY, f->bits)));
    }
}

/* ---- which products ------------------------------------------------------------------------ */

enum { ROWS = 70, IN = 64, OUT = 96 };

static tess_value weight_of(tess_graph *g, int64_t out, int64_t in)
{
    return tess_input(g, "w", TESS_BF16, TESS_SHAPE_OF(out, in));
}

static bool is_taken(int64_t width, const char *scope, tess_dtype dtype, int64_t out, int64_t in)
{
    tess_graph *g = tess_graph_new();
    tess_graph_fp8(g, width);
    tess_scope_push(g, "%s", scope);
    const tess_value w = tess_cast(g, weight_of(g, out, in), dtype);
    const tess_value x = tess_input(g, "x", dtype, TESS_SHAPE_OF(ROWS, in));
    const tess_value y = tess_linear(g, x, w, (tess_linear_options){0});
    assert_int_equal(tess_graph_check(g), TESS_OK);
    const bool taken = strcmp(tess__value_node(g, y)->op->name, "linear_fp8") == 0;
    tess_graph_free(g);
    return taken;
}

static void check_choice(void **state)
{
    (void)state;
    const char *block = "visual.transformer.resblocks.3.mlp";
    assert_true(is_taken(64, block, TESS_BF16, 96, 64));
    assert_false(is_taken(0, block, TESS_BF16, 96, 64));
    assert_false(is_taken(80, block, TESS_BF16, 96, 64));
    assert_false(is_taken(80, block, TESS_BF16, 64, 96));
    assert_false(is_taken(16, block, TESS_BF16, 96, 72));
    assert_false(is_taken(16, block, TESS_BF16, 72, 96));
    assert_false(is_taken(64, block, TESS_F32, 96, 64));
    assert_false(is_taken(64, "visual.proj", TESS_BF16, 96, 64));
}

/* ---- gradients: the graph's own, in FP8 and in bf16 ------------------------------------------ */

enum { X, W, BIAS, RESIDUAL, DY, LEAVES };
enum { Y, DX, DW, DBIAS, DRESIDUAL, RESULTS };

typedef struct world {
    float x[ROWS * IN], w[OUT * IN], bias[OUT], residual[ROWS * OUT], dy[ROWS * OUT];
    float y[ROWS * OUT], dx[ROWS * IN], dw[OUT * IN], dbias[OUT], dresidual[ROWS * OUT];
} world;

static void fill(float *x, int64_t n, uint64_t seed, float scale)
{
    tess_rng r = tess_rng_at(seed, 3);
    for (int64_t i = 0; i < n; i++) {
        x[i] = scale * (float)tess_rng_normal(&r);
    }
}

/* Leaves are f32; what the product sees is their cast.  relu: without the residual. */
static void run_graph(world *a, int64_t fp8_width, bool relu)
{
    tess_graph *g = tess_graph_new();
    tess_plan *plan = NULL;
    tess_workspace *workspace = tess_workspace_new();
    const tess_shape shapes[LEAVES] = {TESS_SHAPE_OF(ROWS, IN), TESS_SHAPE_OF(OUT, IN),
                                       TESS_SHAPE_OF(OUT), TESS_SHAPE_OF(ROWS, OUT),
                                       TESS_SHAPE_OF(ROWS, OUT)};
    static const char *const names[LEAVES] = {"x", "w", "bias", "residual", "dy"};
    float *leaves[LEAVES] = {a->x, a->w, a->bias, a->residual, a->dy};
    float *results[RESULTS] = {a->y, a->dx, a->dw, a->dbias, a->dresidual};
    tess_value v[LEAVES], half[LEAVES], out[RESULTS] = {0};
    tess_graph_fp8(g, fp8_width);
    tess_scope_push(g, "resblocks.0");
    for (int i = 0; i < LEAVES; i++) {
        v[i] = tess_input(g, names[i], TESS_F32, shapes[i]);
        half[i] = i == BIAS ? v[i] : tess_cast(g, v[i], TESS_BF16);
    }
    const tess_value y =
        tess_linear(g, half[X], half[W],
                    (tess_linear_options){
                        .bias = v[BIAS], .residual = relu ? 0 : half[RESIDUAL], .relu = relu});
    assert_int_equal(tess_graph_grad(g, &y, &half[DY], 1, v, relu ? 3 : 4, out + 1), TESS_OK);
    out[Y] = tess_cast(g, y, TESS_F32);
    const int n_out = relu ? 4 : 5;
    assert_int_equal(tess_plan_build(g, out, n_out, tess_device_cpu(), NULL, workspace, &plan),
                     TESS_OK);
    for (int i = 0; i < LEAVES; i++) {
        if (!(relu && i == RESIDUAL)) {
            assert_int_equal(tess_plan_bind(plan, names[i], leaves[i]), TESS_OK);
        }
    }
    assert_int_equal(tess_plan_run(plan), TESS_OK);
    for (int i = 0; i < n_out; i++) {
        const tess_shape s = tess_value_shape(g, out[i]);
        memcpy(results[i], tess_plan_output(plan, out[i]),
               (size_t)tess_shape_count(&s) * sizeof(float));
    }
    tess_plan_free(plan);
    tess_workspace_free(workspace);
    tess_graph_free(g);
}

static double far_apart(const float *a, const float *b, int64_t n)
{
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}

static void begin(world *a)
{
    fill(a->x, ROWS * IN, 1, 1);
    fill(a->w, OUT * IN, 2, 0.1f);
    fill(a->bias, OUT, 3, 0.1f);
    fill(a->residual, ROWS * OUT, 4, 0.1f);
    fill(a->dy, ROWS * OUT, 5, 1e-6f);
}

/* A rounding to E4M3 has a relative error uniform within 2^-4 at most, root mean square 2^-4 / sqrt
 * 3; E5M2 twice that.  Errors of independent factors add in squares: sqrt(2) 0.0361 = 0.051
 * forwards and sqrt(5) 0.0361 = 0.081 backwards, and the sum's relative error is a term's. */
static void check_gradients(void **state)
{
    (void)state;
    static world fp8, half;
    for (int relu = 0; relu < 2; relu++) {
        begin(&fp8);
        begin(&half);
        run_graph(&fp8, 64, relu);
        run_graph(&half, 0, relu);
        const double y = far_apart(fp8.y, half.y, ROWS * OUT);
        const double dx = far_apart(fp8.dx, half.dx, ROWS * IN);
        const double dw = far_apart(fp8.dw, half.dw, OUT * IN);
        print_message("y %.4f, dx %.4f, dw %.4f apart\n", y, dx, dw);
        assert_true(y > 0.01 && y < 0.051);
        /* relu's mask follows y: a result within y's error of 0 may lose its gradient. */
        const double limit = relu ? 0.3 : 0.081;
        assert_true(dx > 0.02 && dx < limit);
        assert_true(dw > 0.02 && dw < limit);
        assert_true(far_apart(fp8.dbias, half.dbias, OUT) < (relu ? 0.3 : 1e-6));
        assert_true(relu || far_apart(fp8.dresidual, half.dresidual, ROWS * OUT) < 1e-6);
    }
}

/* What is not finite is not finite in the row that it is in, and in every gradient's sum. */
static void check_not_finite(void **state)
{
    (void)state;
    static world a;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < TESS_COUNT(bad); k++) {
        begin(&a);
        a.x[5 * IN + 7] = bad[k];
        run_graph(&a, 64, false);
        assert_false(isfinite(a.y[5 * OUT]));
        assert_false(isfinite(a.dw[7]));
        begin(&a);
        a.dy[5 * OUT + 7] = bad[k];
        run_graph(&a, 64, false);
        assert_true(isfinite(a.y[5 * OUT]));
        assert_false(isfinite(a.dx[5 * IN]));
        assert_false(isfinite(a.dw[7 * IN]));
    }
}

/* Nothing but zeros: the scale is no division by 0. */
static void check_zeros(void **state)
{
    (void)state;
    static world a;
    begin(&a);
    memset(a.x, 0, sizeof a.x);
    memset(a.dy, 0, sizeof a.dy);
    memset(a.residual, 0, sizeof a.residual);
    memset(a.bias, 0, sizeof a.bias);
    run_graph(&a, 64, false);
    for (int64_t i = 0; i < ROWS * OUT; i++) {
        assert_true(a.y[i] == 0);
    }
    for (int64_t i = 0; i < OUT * IN; i++) {
        assert_true(a.dw[i] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_codes),     cmocka_unit_test(check_rounding),
        cmocka_unit_test(check_scales),    cmocka_unit_test(check_choice),
        cmocka_unit_test(check_gradients), cmocka_unit_test(check_not_finite),
        cmocka_unit_test(check_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
