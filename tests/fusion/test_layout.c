/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts: one table reads and writes; everything that does not fit is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fusion_fixture.h"

#include "fusion/layout.h"
#include "tensor/floats.h"

static const tess_layout_rule rules[] = {
    {"blocks.#.in_proj", "layers.#.q", TESS_LAYOUT_ROWS, 0, 3},
    {"blocks.#.in_proj", "layers.#.k", TESS_LAYOUT_ROWS, 1, 3},
    {"blocks.#.in_proj", "layers.#.v", TESS_LAYOUT_ROWS, 2, 3},
    {"proj", "projection.weight", TESS_LAYOUT_TRANSPOSE, 0, 0},
    {"query", "probe", TESS_LAYOUT_LEADING, 0, 2},
    {"key_value", "stack", TESS_LAYOUT_STACKED, 1, 3, 2},
    {"asks", "stack", TESS_LAYOUT_STACKED, 0, 3, 1},
    {"scale", "scale", TESS_LAYOUT_SAME, 0, 0},
    {NULL, "position_ids", TESS_LAYOUT_IGNORED, 0, 0},
};

static tess_layout toy_layout(void)
{
    tess_layout l = {.name = "toys"};
    TESS_LAYOUT_ADD(&l, rules, "ours.", "theirs.");
    return l;
}

static tess_store *toy_store(void)
{
    tess_store *s = tess_store_new();
    ok(tess_store_add(s, "param", "ours.blocks.0.in_proj", TESS_SHAPE_OF(6, 4)));
    ok(tess_store_add(s, "param", "ours.blocks.11.in_proj", TESS_SHAPE_OF(6, 4)));
    ok(tess_store_add(s, "param", "ours.proj", TESS_SHAPE_OF(4, 3)));
    ok(tess_store_add(s, "param", "ours.key_value", TESS_SHAPE_OF(4, 5)));
    ok(tess_store_add(s, "param", "ours.asks", TESS_SHAPE_OF(2, 5)));
    ok(tess_store_add(s, "param", "ours.query", TESS_SHAPE_OF(4)));
    ok(tess_store_add(s, "param", "ours.scale", tess_shape_make(0, NULL)));
    ok(tess_store_allocate(s));
    return s;
}

static float *fill_store(tess_store *s)
{
    int64_t n;
    float *x = tess_store_group(s, "param", &n);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)i - 7;
    }
    return x;
}

/* The toys in a file of one type. */
static void save_toys(const char *path, const char *type)
{
    tess_store *s = toy_store();
    tess_layout l = toy_layout();
    tess_arena arena = {0};
    const char *types[7] = {type, type, type, type, type, type, type};
    tess_layout_types t = {types, 7};
    tess_tensor *tensors;
    int64_t n;
    fill_store(s);
    ok(tess__layout_tensors(&l, s, "param", &t, &arena, &tensors, &n));
    assert_int_equal(n, 10);
    ok(tess_tensors_save(path, tensors, n, NULL, 0));
    tess_arena_deinit(&arena);
    tess_store_free(s);
}

static float value_at(const tess_tensors *t, const char *name, int64_t i)
{
    const tess_tensor *x = tess_tensors_find(t, name);
    float out[64];
    assert_non_null(x);
    assert_true(tess_shape_count(&x->shape) <= 64);
    tess__floats_read(x->dtype, x->data, out, tess_shape_count(&x->shape));
    return out[i];
}

static void test_round_trip(void **state)
{
    (void)state;
    const char *const all[] = {"F32", "BF16", "F16"};
    for (int k = 0; k < 3; k++) {
        const char *path = fixture_at("toys.safetensors");
        save_toys(path, all[k]);
        tess_tensors *t;
        ok(tess_tensors_open(path, &t));
        tess_store *s = toy_store(), *same = toy_store();
        tess_layout l = toy_layout();
        tess_layout_types types = {0};
        ok(tess__layout_load(&l, s, "param", t, &types));
        const float *want = fill_store(same);
        int64_t n;
        const float *have = tess_store_group(s, "param", &n);
        for (int64_t i = 0; i < tess_store_n_entries(same, "param"); i++) {
            float *entry;
            tess_shape shape;
            tess_store_entry(same, "param", i, &entry, &shape);
            assert_memory_equal(entry, have + (entry - want),
                                (size_t)tess_shape_count(&shape) * sizeof *entry);
            assert_string_equal(types.types[i], all[k]);
        }
        /* Where the numbers lie: k of layer 11 is rows 2 and 3, the projection is turned. */
        tess_shape shape;
        const float *in_proj = tess_store_find(s, "param", "ours.blocks.11.in_proj", NULL);
        const float *proj = tess_store_find(s, "param", "ours.proj", &shape);
        assert_float_equal(value_at(t, "theirs.layers.11.k", 5), in_proj[2 * 4 + 5], 0);
        assert_float_equal(value_at(t, "theirs.projection.weight", 1 * 4 + 3), proj[3 * 3 + 1], 0);
        assert_float_equal(value_at(t, "theirs.stack", 2 * 5 + 7),
                           tess_store_find(s, "param", "ours.key_value", NULL)[7], 0);
        const tess_tensor *probe = tess_tensors_find(t, "theirs.probe");
        assert_int_equal(probe->shape.rank, 3);
        tess__layout_types_deinit(&types);
        tess_store_free(s);
        tess_store_free(same);
        tess_tensors_free(t);
    }
}

static void assert_load_fails(const char *path, const char *what)
{
    tess_tensors *t;
    ok(tess_tensors_open(path, &t));
    tess_store *s = toy_store();
    tess_layout l = toy_layout();
    assert_fails(tess__layout_load(&l, s, "param", t, NULL), TESS_FORMAT, what);
    tess_store_free(s);
    tess_tensors_free(t);
}

static void test_misfits_are_named(void **state)
{
    (void)state;
    float x[64] = {0};
    const tess_tensor bad[] = {
        {"theirs.layers.0.q", "F32", TESS_SHAPE_OF(2, 4), (uint8_t *)x, 32},
        {"theirs.layers.0.k", "F32", TESS_SHAPE_OF(3, 4), (uint8_t *)x, 48},
        {"theirs.layers.x.v", "F32", TESS_SHAPE_OF(2, 4), (uint8_t *)x, 32},
        {"theirs.projection.weight", "F32", TESS_SHAPE_OF(4, 3), (uint8_t *)x, 48},
        {"theirs.probe", "I32", TESS_SHAPE_OF(1, 1, 4), (uint8_t *)x, 16},
        {"theirs.position_ids", "I64", TESS_SHAPE_OF(1), (uint8_t *)x, 8},
    };
    const char *path = fixture_at("bad.safetensors");
    ok(tess_tensors_save(path, bad, TESS_COUNT(bad), NULL, 0));
    assert_load_fails(path, "misshapen theirs.layers.0.k (expected (2,4), found (3,4))");
    assert_load_fails(path, "missing theirs.layers.0.v");
    assert_load_fails(path, "missing theirs.layers.11.q");
    assert_load_fails(path, "unexpected theirs.layers.x.v");
    assert_load_fails(path, "transposed theirs.projection.weight (expected (3,4), found (4,3))");
    assert_load_fails(path, "no float type in theirs.probe");
    tess_tensors *t;
    ok(tess_tensors_open(path, &t));
    tess_layout l = toy_layout();
    assert_true(tess__layout_ignores(&l, "theirs.position_ids"));
    assert_false(tess__layout_ignores(&l, "position_ids"));
    tess_tensors_free(t);
}

static void test_nan_is_named(void **state)
{
    (void)state;
    const char *path = fixture_at("toys.safetensors");
    for (int k = 0; k < 2; k++) {
        save_toys(path, "F32");
        tess_tensors *t;
        ok(tess_tensors_open(path, &t));
        const tess_tensor *x = tess_tensors_find(t, "theirs.layers.11.v");
        tess_tensor copy[16];
        float bad[8];
        int64_t n = tess_tensors_count(t);
        for (int64_t i = 0; i < n; i++) {
            copy[i] = *tess_tensors_at(t, i);
            if (strcmp(copy[i].name, x->name) == 0) {
                memcpy(bad, x->data, sizeof bad);
                bad[7] = k ? NAN : -INFINITY;
                copy[i].data = (const uint8_t *)bad;
            }
        }
        ok(tess_tensors_save(fixture_at("nan.safetensors"), copy, n, NULL, 0));
        tess_tensors_free(t);
        assert_load_fails(fixture_at("nan.safetensors"), "NaN or infinity in theirs.layers.11.v");
    }
}

static void test_no_place(void **state)
{
    (void)state;
    tess_store *s = tess_store_new();
    tess_layout l = toy_layout();
    tess_arena arena = {0};
    tess_tensor *tensors;
    int64_t n;
    ok(tess_store_add(s, "param", "ours.other", TESS_SHAPE_OF(4)));
    ok(tess_store_add(s, "param", "scale", TESS_SHAPE_OF(4)));
    ok(tess_store_allocate(s));
    assert_fails(tess__layout_tensors(&l, s, "param", NULL, &arena, &tensors, &n), TESS_UNSUPPORTED,
                 "toys: no place for ours.other, no place for scale");
    tess_arena_deinit(&arena);
    tess_store_free(s);
}

/* Every 16-bit pattern becomes f32 and comes back; NaN stays some NaN. */
static void test_halves_come_back(void **state)
{
    (void)state;
    const char *const types[] = {"BF16", "F16"};
    for (int k = 0; k < 2; k++) {
        for (uint32_t u = 0; u < 65536; u++) {
            uint16_t half = (uint16_t)u, back;
            float x;
            bool finite = tess__floats_read(types[k], &half, &x, 1);
            tess__floats_write(types[k], &x, &back, 1);
            assert_int_equal(finite, isfinite(x) != 0);
            assert_true(isnan(x) || back == half);
        }
    }
    const float odd[] = {65519.9f, 65520.0f, 0x1.ffcp-15f, 0x1p-25f, 0x1.8p-25f, 1.00048828125f};
    const uint16_t want[] = {0x7bff, 0x7c00, 0x0400, 0x0000, 0x0001, 0x3c00};
    uint16_t have[6];
    tess__floats_write("F16", odd, have, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(have[i], want[i]);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make_root, fixture_remove_root)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip), TEST(test_misfits_are_named), TEST(test_nan_is_named),
        TEST(test_no_place),   TEST(test_halves_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
