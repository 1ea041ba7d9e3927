/* SPDX-License-Identifier: Apache-2.0 */
/* The store: layout, mirrors, and loading from safetensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tessera/tensor.h"

static const struct {
    const char *name;
    tess_shape shape;
} entries[] = {
    {"bias", {1, {3}}},
    {"w", {2, {3, 5}}},
    {"scale", {0}},
    {"conv", {4, {2, 3, 1, 1}}},
};

static tess_store *make(void)
{
    tess_store *s = tess_store_new();
    for (int64_t i = 0; i < TESS_COUNT(entries); i++) {
        assert_int_equal(tess_store_add(s, "param", entries[i].name, entries[i].shape), TESS_OK);
    }
    assert_int_equal(tess_store_allocate(s), TESS_OK);
    return s;
}

static void test_layout(void **state)
{
    (void)state;
    tess_store *s = make();
    int64_t n;
    const float *flat = tess_store_group(s, "param", &n);
    assert_int_equal(n, 16 + 16 + 16 + 16);
    assert_int_equal(tess_store_n_decayed(s, "param"), 32);
    assert_int_equal((uintptr_t)flat % 64, 0);
    static const struct {
        const char *name;
        int64_t at;
    } places[] = {{"w", 0}, {"conv", 16}, {"bias", 32}, {"scale", 48}};
    for (int64_t i = 0; i < TESS_COUNT(places); i++) {
        tess_shape shape;
        assert_ptr_equal(tess_store_find(s, "param", places[i].name, &shape), flat + places[i].at);
    }
    for (int64_t i = 0; i < n; i++) {
        assert_true(flat[i] == 0);
    }
    for (int64_t i = 0; i < TESS_COUNT(entries); i++) { /* in the order of addition */
        float *x;
        tess_shape shape;
        assert_string_equal(tess_store_entry(s, "param", i, &x, &shape), entries[i].name);
        assert_true(tess_shape_equal(&shape, &entries[i].shape));
    }
    assert_null(tess_store_find(s, "param", "other", NULL));
    assert_null(tess_store_find(s, "grad", "w", NULL));
    assert_null(tess_store_group(s, "grad", &n));
    assert_int_equal(n, 0);
    tess_store_free(s);
}

static bool splits_matrices(const char *name, const tess_shape *shape)
{
    (void)name;
    return shape->rank > 1;
}

/* Ranges of all ranks, one after the other, are the tensor, whatever the number of ranks. */
static void test_shards(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 15, 16, 17, 100, 12345};
    for (int64_t i = 0; i < TESS_COUNT(sizes); i++) {
        for (int ranks = 1; ranks <= 9; ranks++) {
            int64_t least = INT64_MAX, most = 0;
            assert_int_equal(tess_shard_begin(sizes[i], 0, ranks), 0);
            assert_int_equal(tess_shard_begin(sizes[i], ranks, ranks), sizes[i]);
            for (int r = 0; r < ranks; r++) {
                const int64_t begin = tess_shard_begin(sizes[i], r, ranks);
                const int64_t n = tess_shard_begin(sizes[i], r + 1, ranks) - begin;
                assert_true(n >= 0 && (begin % 16 == 0 || begin == sizes[i]));
                least = n < least ? n : least;
                most = n > most ? n : most;
            }
            assert_true(most - least <= 32);
        }
    }
}

/* Splitting a group keeps its numbers, and what is split loads its range of a file. */
static void test_split(void **state)
{
    (void)state;
    for (int rank = 0; rank < 3; rank++) {
        tess_store *s = tess_store_new();
        tess_shape shape = TESS_SHAPE_OF(7, 11), got;
        assert_int_equal(tess_store_add(s, "param", "bias", TESS_SHAPE_OF(3)), TESS_OK);
        assert_int_equal(tess_store_add(s, "param", "w", shape), TESS_OK);
        assert_int_equal(tess_store_allocate(s), TESS_OK);
        float *w = tess_store_find(s, "param", "w", NULL);
        for (int i = 0; i < 77; i++) {
            w[i] = (float)i;
        }
        tess_store_find(s, "param", "bias", NULL)[2] = 5;
        const size_t whole = tess_store_bytes(s, "param");
        assert_int_equal(tess_store_split(s, "param", rank, 3, splits_matrices), TESS_OK);
        const tess_held h = tess_store_held(s, "param", "w");
        assert_true(h.split && !tess_store_held(s, "param", "bias").split);
        assert_int_equal(h.begin, tess_shard_begin(77, rank, 3));
        assert_int_equal(h.end, tess_shard_begin(77, rank + 1, 3));
        assert_true(tess_store_bytes(s, "param") < whole);
        w = tess_store_find(s, "param", "w", &got);
        assert_true(tess_shape_equal(&got, &shape));
        for (int64_t i = h.begin; i < h.end; i++) {
            assert_true(w[i - h.begin] == (float)i);
        }
        assert_true(tess_store_find(s, "param", "bias", NULL)[2] == 5);
        assert_int_equal(tess_store_split(s, "param", rank, 3, splits_matrices), TESS_INVALID);
        tess_store_free(s);
    }
}

static void test_mirror(void **state)
{
    (void)state;
    tess_store *s = make();
    int64_t n;
    assert_int_equal(tess_store_mirror(s, "m", "param"), TESS_OK);
    const float *p = tess_store_group(s, "param", &n), *m = tess_store_group(s, "m", &n);
    assert_int_equal(n, 64);
    assert_int_equal(tess_store_n_decayed(s, "m"), 32);
    for (int64_t i = 0; i < TESS_COUNT(entries); i++) {
        tess_shape shape;
        assert_int_equal(tess_store_find(s, "m", entries[i].name, &shape) - m,
                         tess_store_find(s, "param", entries[i].name, &shape) - p);
    }
    assert_int_equal(tess_store_mirror(s, "m", "param"), TESS_INVALID);
    assert_int_equal(tess_store_mirror(s, "v", "none"), TESS_INVALID);
    for (int64_t nth = 1; nth < 6; nth++) { /* a failed mirror leaves nothing behind */
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        assert_int_equal(tess_store_mirror(s, "v", "param"), TESS_NOMEM);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_int_equal(tess_store_n_entries(s, "v"), 0);
    }
    assert_int_equal(tess_store_mirror(s, "v", "param"), TESS_OK);
    tess_store_free(s);
}

static void test_additions_must_agree(void **state)
{
    (void)state;
    tess_store *s = tess_store_new();
    assert_int_equal(tess_store_add(s, "param", "w", TESS_SHAPE_OF(2, 3)), TESS_OK);
    assert_int_equal(tess_store_add(s, "param", "w", TESS_SHAPE_OF(2, 3)), TESS_OK);
    assert_int_equal(tess_store_n_entries(s, "param"), 1);
    assert_int_equal(tess_store_add(s, "param", "w", TESS_SHAPE_OF(3, 2)), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "(2,3)"));
    assert_non_null(strstr(tess_error(), "(3,2)"));
    assert_int_equal(tess_store_allocate(s), TESS_OK);
    assert_int_equal(tess_store_add(s, "param", "late", TESS_SHAPE_OF(1)), TESS_INVALID);
    int64_t n;
    assert_int_equal(tess_store_add(s, "group", "w", TESS_SHAPE_OF(1)), TESS_OK);
    assert_null(tess_store_group(s, "group", &n));
    float *before = tess_store_group(s, "param", &n);
    assert_int_equal(tess_store_allocate(s), TESS_OK);
    assert_non_null(tess_store_group(s, "group", &n));
    assert_ptr_equal(tess_store_group(s, "param", &n), before);
    assert_int_equal(tess_store_add(s, "group", "late", TESS_SHAPE_OF(1)), TESS_INVALID);
    tess_store_free(s);
}

/* ---- loading ------------------------------------------------------------------------------- */

static tess_status load(tess_store *s, const tess_tensor *tensors, int64_t n, const char *prefix)
{
    const char *path = P_tmpdir "/tessera-test-store.safetensors";
    tess_tensors *t;
    assert_int_equal(tess_tensors_save(path, tensors, n, NULL, 0), TESS_OK);
    assert_int_equal(tess_tensors_open(path, &t), TESS_OK);
    remove(path);
    tess_status st = tess_store_load(s, "param", t, prefix);
    tess_tensors_free(t);
    return st;
}

static const float weights[15] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static void test_load(void **state)
{
    (void)state;
    tess_store *s = make();
    const tess_tensor good[] = {
        {"p.w", "F32", {2, {3, 5}}, (const uint8_t *)weights, 60},
        {"p.bias", "F32", {1, {3}}, (const uint8_t *)weights, 12},
        {"p.scale", "F32", {0}, (const uint8_t *)(weights + 4), 4},
        {"p.conv", "F32", {4, {2, 3, 1, 1}}, (const uint8_t *)weights, 24},
        {"q.other", "F32", {1, {3}}, (const uint8_t *)weights, 12}, /* not under the prefix */
    };
    assert_int_equal(load(s, good, 5, "p."), TESS_OK);
    assert_memory_equal(tess_store_find(s, "param", "w", NULL), weights, 60);
    assert_true(*tess_store_find(s, "param", "scale", NULL) == 5);
    int64_t n;
    assert_true(tess_store_group(s, "param", &n)[15] == 0); /* padding */
    assert_int_equal(tess_store_load(s, "none", NULL, ""), TESS_INVALID);
    tess_store_free(s);
}

static void test_misfits_are_all_listed(void **state)
{
    (void)state;
    tess_store *s = make();
    const tess_tensor bad[] = {
        {"w", "F32", {2, {5, 3}}, (const uint8_t *)weights, 60},
        {"bias", "F32", {1, {3}}, (const uint8_t *)weights, 12},
        {"scale", "I32", {0}, (const uint8_t *)weights, 4},
        {"bonus", "F32", {1, {3}}, (const uint8_t *)weights, 12},
    };
    static const char *const said[] = {"transposed w (expected (3,5), found (5,3))",
                                       "no float type in scale", "missing conv",
                                       "unexpected bonus"};
    assert_int_equal(load(s, bad, 4, ""), TESS_FORMAT);
    for (int64_t i = 0; i < TESS_COUNT(said); i++) {
        assert_non_null(strstr(tess_error(), said[i]));
    }
    float *bias = tess_store_find(s, "param", "bias", NULL);
    assert_true(bias[0] == 0 && bias[1] == 0); /* nothing was loaded */
    tess_store_free(s);
}

static void test_long_lists_end_in_a_number(void **state)
{
    (void)state;
    tess_store *s = make();
    tess_tensor extra[500];
    static char names[500][32];
    for (int i = 0; i < 500; i++) {
        snprintf(names[i], sizeof names[i], "surplus.%d.weight", i);
        extra[i] = (tess_tensor){names[i], "F32", {1, {1}}, (const uint8_t *)weights, 4};
    }
    assert_int_equal(load(s, extra, 500, ""), TESS_FORMAT);
    const char *more = strstr(tess_error(), " and ");
    assert_non_null(more);
    int64_t listed = 0, left_out = strtoll(more + 5, NULL, 10);
    for (const char *c = tess_error(); (c = strstr(c, "unexpected ")); c++) {
        listed++;
    }
    for (const char *c = tess_error(); (c = strstr(c, "missing ")); c++) {
        listed++;
    }
    assert_int_equal(listed + left_out, 504);
    tess_store_free(s);
}

static void test_half_types(void **state)
{
    (void)state;
    static const struct {
        uint16_t f16, bf16;
        float value;
    } known[] = {
        {0x3c00, 0x3f80, 1.0f},          {0xc000, 0xc000, -2.0f},
        {0x0000, 0x0000, 0.0f},          {0x8000, 0x8000, -0.0f},
        {0x7c00, 0x7f80, INFINITY},      {0xfc00, 0xff80, -INFINITY},
        {0x7bff, 0x4780, 65504.0f},      {0x0001, 0x3380, 5.9604645e-8f},
        {0x03ff, 0x387f, 6.0975552e-5f}, {0x0400, 0x3880, 6.1035156e-5f},
        {0x3555, 0x3eab, 0.33325195f},
    };
    enum { N = TESS_COUNT(known) };
    for (int bf16 = 0; bf16 < 2; bf16++) {
        uint16_t data[N];
        tess_store *s = tess_store_new();
        assert_int_equal(tess_store_add(s, "param", "x", TESS_SHAPE_OF(N)), TESS_OK);
        assert_int_equal(tess_store_allocate(s), TESS_OK);
        for (int i = 0; i < N; i++) {
            data[i] = bf16 ? known[i].bf16 : known[i].f16;
        }
        const tess_tensor t = {"x", bf16 ? "BF16" : "F16", {1, {N}}, (uint8_t *)data, sizeof data};
        assert_int_equal(load(s, &t, 1, ""), TESS_OK);
        const float *x = tess_store_find(s, "param", "x", NULL);
        for (int i = 0; i < N; i++) {
            float want = known[i].value;
            if (bf16) { /* the upper half is the value */
                uint32_t u = (uint32_t)data[i] << 16;
                memcpy(&want, &u, 4);
            }
            assert_memory_equal(&x[i], &want, 4);
        }
        tess_store_free(s);
    }
    assert_int_equal(tess_bf16_from_f32(1.00390625f), 0x3f80); /* a tie goes to even */
    assert_int_equal(tess_bf16_from_f32(1.01171875f), 0x3f82);
    assert_int_equal(tess_bf16_from_f32(3.4e38f), 0x7f80);
    assert_true(isnan(tess_f32_from_bf16(tess_bf16_from_f32(nanf("")))));
    uint32_t quiet = 0x7f800001; /* a NaN whose upper half looks like infinity */
    float payload;
    memcpy(&payload, &quiet, 4);
    assert_true(isnan(tess_f32_from_bf16(tess_bf16_from_f32(payload))));
}

/* Mapped entries are the file's bytes, and what a copy of it holds. */
static void test_mapped(void **state)
{
    (void)state;
    float w[15], bias[3] = {1, 2, 3};
    for (int i = 0; i < 15; i++) {
        w[i] = (float)i / 7;
    }
    const tess_tensor tensors[] = {
        {"w", "F32", {2, {3, 5}}, (const uint8_t *)w, sizeof w},
        {"bias", "F32", {1, {3}}, (const uint8_t *)bias, sizeof bias},
    };
    char path[] = "/tmp/tessera-mapped-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(tess_tensors_save(path, tensors, 2, NULL, 0), TESS_OK);
    tess_tensors *t = NULL;
    assert_int_equal(tess_tensors_open(path, &t), TESS_OK);
    tess_store *s = tess_store_new();
    int64_t n;
    tess_shape shape;
    assert_int_equal(tess_store_map(s, "param", t), TESS_INVALID);
    for (int64_t i = 0; i < TESS_COUNT(entries); i++) {
        assert_int_equal(tess_store_add(s, "param", entries[i].name, entries[i].shape), TESS_OK);
    }
    assert_int_equal(tess_store_map(s, "param", t), TESS_OK);
    assert_ptr_equal(tess_store_find(s, "param", "w", &shape), tess_tensors_find(t, "w")->data);
    assert_memory_equal(tess_store_find(s, "param", "w", NULL), w, sizeof w);
    assert_memory_equal(tess_store_find(s, "param", "bias", NULL), bias, sizeof bias);
    assert_null(tess_store_find(s, "param", "conv", &shape));
    assert_int_equal(shape.rank, 4);
    assert_null(tess_store_group(s, "param", &n));
    assert_int_equal((uintptr_t)tess_tensors_at(t, 0)->data % 64, 0);
    tess_store_free(s);

    s = tess_store_new();
    assert_int_equal(tess_store_add(s, "param", "w", TESS_SHAPE_OF(5, 3)), TESS_OK);
    assert_int_equal(tess_store_map(s, "param", t), TESS_FORMAT);
    tess_store_free(s);
    tess_tensors_free(t);
    assert_int_equal(unlink(path), 0);
}

/* A layout of a terabyte, which takes addresses and no memory; its plan is what the same store with
 * memory would have. */
static void test_described(void **state)
{
    (void)state;
    size_t arena[2] = {0};
    for (int described = 0; described < 2; described++) {
        tess_store *far = tess_store_new();
        if (described) {
            tess_store_describe(far);
        }
        const int64_t rows = described ? (int64_t)1 << 28 : 3;
        assert_true(tess_store_is_described(far) == described);
        assert_int_equal(tess_store_add(far, "param", "w", TESS_SHAPE_OF(rows, 1024)), TESS_OK);
        assert_int_equal(tess_store_add(far, "param", "b", TESS_SHAPE_OF(4)), TESS_OK);
        assert_int_equal(tess_store_mirror(far, "m", "param"), TESS_OK);
        assert_int_equal(tess_store_allocate(far), TESS_OK);
        int64_t n;
        const float *flat = tess_store_group(far, "m", &n);
        assert_int_equal(n, rows * 1024 + 16);
        assert_ptr_equal(tess_store_find(far, "m", "b", NULL), flat + rows * 1024);
        tess_graph *g = tess_graph_new();
        tess_value w = tess_state(g, "param", "b", TESS_F32, TESS_SHAPE_OF(4));
        tess_value y = tess_add(g, w, w);
        tess_workspace *workspace = tess_workspace_new();
        tess_plan *p;
        assert_int_equal(tess_plan_build(g, &y, 1, tess_device_describe("cpu"), far, workspace, &p),
                         TESS_OK);
        arena[described] = tess_plan_get_stats(p).arena_bytes;
        assert_int_equal(tess_plan_run(p), TESS_OK); /* does nothing */
        tess_op_cost *costs;
        assert_int_equal(tess_plan_costs(p, &costs, &n), TESS_OK);
        assert_int_equal(n, 1);
        assert_string_equal(costs[0].op, "add");
        assert_true(costs[0].n == 1 && costs[0].bytes == 3 * 4 * sizeof(float));
        assert_true(costs[0].seconds == 0);
        tess_free(costs);
        tess_plan_free(p);
        tess_workspace_free(workspace);
        tess_graph_free(g);
        tess_store_free(far);
    }
    assert_true(arena[0] == arena[1] && arena[0] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_mirror),
        cmocka_unit_test(test_additions_must_agree),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_misfits_are_all_listed),
        cmocka_unit_test(test_long_lists_end_in_a_number),
        cmocka_unit_test(test_half_types),
        cmocka_unit_test(test_mapped),
        cmocka_unit_test(test_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
