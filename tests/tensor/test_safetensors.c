/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: what is written reads back; every way in which a file can lie is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "tessera/tensor.h"

static char path[64];

static int make_path(void **state)
{
    (void)state;
    strcpy(path, P_tmpdir "/tessera-test-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    return unlink(path);
}

/* A file of this header and so many bytes of data. */
static tess_buf file_of(const char *header, size_t n_data)
{
    tess_buf b = {0};
    uint64_t n = strlen(header);
    tess_buf_add(&b, &n, 8);
    tess_buf_adds(&b, header);
    for (size_t i = 0; i < n_data; i++) {
        tess_buf_add(&b, "\1", 1);
    }
    return b;
}

static tess_status parse(const void *data, size_t n_bytes)
{
    tess_tensors *t = (tess_tensors *)&t;
    tess_status st = tess_tensors_parse((tess_bytes){data, n_bytes}, "f", &t);
    if (st) {
        assert_null(t);
    } else {
        tess_tensors_free(t);
    }
    return st;
}

/* ---- round trip ---------------------------------------------------------------------------- */

static const float floats[6] = {1, -2, 3.5f, 0, 1e-30f, 65504};
static const uint8_t line[64] = {1, 2};
static const uint8_t bytes[3] = {7, 8, 9};
static const uint16_t halves[2] = {0x3c00, 0xc000};

static void test_round_trip(void **state)
{
    (void)state;
    const tess_tensor tensors[] = {
        {"z.bytes", "U8", {1, {3}}, bytes, 3},
        {"b", "F32", {2, {2, 3}}, (const uint8_t *)floats, 24},
        {"h", "F16", {1, {2}}, (const uint8_t *)halves, 4},
        {"a \"quoted\" \xc3\xa9", "F32", {0}, (const uint8_t *)floats, 4},
        {"empty", "F32", {2, {0, 5}}, NULL, 0},
        {"z.line", "U8", {1, {64}}, line, 64},
    };
    static const char *const order[] = {"z.line", "a \"quoted\" \xc3\xa9", "b", "empty", "h",
                                        "z.bytes"};
    const tess_pair meta[] = {{"step", "12"}};
    tess_tensors *t;
    assert_int_equal(tess_tensors_save(path, tensors, 6, meta, 1), TESS_OK);
    assert_int_equal(tess_tensors_open(path, &t), TESS_OK);
    assert_int_equal(tess_tensors_count(t), 6);
    assert_string_equal(tess_tensors_metadata(t, "step"), "12");
    assert_string_equal(tess_tensors_metadata(t, "format"), "pt");
    assert_null(tess_tensors_metadata(t, "other"));
    assert_null(tess_tensors_find(t, "c"));
    assert_null(tess_tensors_find(t, "__metadata__"));
    assert_null(tess_tensors_at(t, 6));
    assert_null(tess_tensors_at(t, -1));
    for (int i = 0; i < 6; i++) {
        const tess_tensor *want = &tensors[i], *have = tess_tensors_find(t, want->name);
        assert_string_equal(tess_tensors_at(t, i)->name, order[i]);
        assert_non_null(have);
        assert_string_equal(have->dtype, want->dtype);
        assert_true(tess_shape_equal(&have->shape, &want->shape));
        assert_int_equal(have->n_bytes, want->n_bytes);
        assert_true(want->n_bytes == 0 || memcmp(have->data, want->data, want->n_bytes) == 0);
        assert_int_equal((uintptr_t)have->data % (i == 5 ? 64 : i == 1 || i == 3 ? 4 : 1), 0);
    }
    tess_tensors_free(t);
}

/* ---- hostile headers ------------------------------------------------------------------------ */

#define T(name, dtype, shape, begin, end)                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end   \
    "]}"

static const struct {
    const char *header;
    size_t n_data;
    const char *message;
} hostile[] = {
    {"{" T("a", "F32", "[2]", "0", "8") "," T("b", "F32", "[1]", "4", "8") "}", 8,
     "b: begins at byte 4 of the data, expected 8"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("b", "F32", "[1]", "8", "12") "}", 12,
     "b: begins at byte 8 of the data, expected 4"},
    {"{" T("a", "F32", "[1]", "4", "8") "}", 8, "a: begins at byte 4"},
    {"{" T("a", "F32", "[1]", "0", "4") "}", 5, "the tensors end at byte 4 of 5"},
    {"{" T("a", "F32", "[2]", "0", "8") "}", 4, "a: data_offsets lie outside the file's 4"},
    {"{" T("a", "F32", "[1]", "8", "4") "}", 8, "a: data_offsets lie outside"},
    {"{" T("a", "F32", "[1]", "-4", "0") "}", 0, "a: data_offsets lie outside"},
    {"{" T("a", "F32", "[1]", "0", "9223372036854775807") "}", 4, "a: data_offsets lie outside"},
    {"{" T("a", "F32", "[1]", "0", "18446744073709551620") "}", 4, "header"},
    {"{" T("a", "F32", "[1]", "0.0", "4.0") "}", 4, "a: data_offsets lie outside"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "a: data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "a: data_offsets"},
    {"{" T("a", "F32", "[3]", "0", "8") "}", 8, "a: 8 bytes do not hold its shape"},
    {"{" T("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0, "a: a dimension is"},
    {"{" T("a", "F32", "[4611686018427387904]", "0", "0") "}", 0, "a: 0 bytes do not hold"},
    {"{" T("a", "F32", "[2305843009213693953,8]", "0", "32") "}", 32, "a: a dimension is"},
    {"{" T("a", "F32", "[-1]", "0", "4") "}", 4, "a: a dimension is negative"},
    {"{" T("a", "F32", "[1.5]", "0", "4") "}", 4, "a: a dimension is negative"},
    {"{" T("a", "F32", "[1,1,1,1,1,1,1]", "0", "4") "}", 4, "a: expected a shape of at most 6"},
    {"{" T("a", "F32", "4", "0", "4") "}", 4, "a: expected a shape"},
    {"{" T("a", "F31", "[1]", "0", "4") "}", 4, "a: unknown dtype \"F31\""},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "a: unknown dtype \"\""},
    {"{" T("a", "F4", "[3]", "0", "1") "}", 1, "a: 1 bytes do not hold"},
    {"{" T("a", "F32", "[1]", "0", "4") "," T("a", "F32", "[1]", "0", "4") "}", 4, "header"},
    {"{\"a\":4}", 0, "a: unknown dtype"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__: a is no string"},
    {"{\"__metadata__\":[]}", 0, "__metadata__: expected an object"},
    {"{\"a\\u0000b\":{}}", 0, "header"},
    {"{\"a\":{}", 0, "header"},
    {"[]", 0, "no safetensors header"},
    {" {}", 0, "no safetensors header"},
    {"", 0, "no safetensors header"},
};

/* The layout needs no data; whole pages come first and begin at one. */
static void test_plan(void **state)
{
    (void)state;
    static const char *const order[] = {"b", "d", "c", "a"};
    tess_tensor t[] = {{"a", "F32", {1, {3}}, NULL, 12},
                       {"b", "F32", {1, {2048}}, NULL, 8192},
                       {"c", "U8", {1, {64}}, NULL, 64},
                       {"d", "U8", {1, {4096}}, NULL, 4096}};
    tess_tensors_layout l;
    assert_int_equal(tess_tensors_plan(t, TESS_COUNT(t), NULL, 0, &l), TESS_OK);
    assert_int_equal(l.header.n_bytes % 4096, 0);
    int64_t at = (int64_t)l.header.n_bytes;
    for (int64_t i = 0; i < TESS_COUNT(t); i++) {
        assert_string_equal(l.order[i]->name, order[i]);
        assert_int_equal(l.begin[l.order[i] - t], at);
        at += (int64_t)l.order[i]->n_bytes;
    }
    assert_int_equal(l.n_bytes, at);
    tess_tensors_layout_deinit(&l);
}

static void test_hostile_headers(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(hostile); i++) {
        tess_buf b = file_of(hostile[i].header, hostile[i].n_data);
        assert_int_equal(parse(b.data, b.n_bytes), TESS_FORMAT);
        if (!strstr(tess_error(), hostile[i].message) || strncmp(tess_error(), "f: ", 3) != 0) {
            fail_msg("%s\nexpected \"%s\" in \"%s\"", hostile[i].header, hostile[i].message,
                     tess_error());
        }
        tess_buf_deinit(&b);
    }
}

static void test_harmless_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
    } fine[] = {
        {"{}", 0},
        {"{}   ", 0},
        {"{\"__metadata__\":{}}", 0},
        {"{" T("a", "F32", "[]", "0", "4") "}", 4},
        {"{" T("b", "F32", "[1]", "4", "8") "," T("a", "F32", "[1]", "0", "4") "}", 8},
        {"{" T("a", "F32", "[0,9223372036854775807]", "0", "0") "}", 0},
        {"{" T("a", "I8", "[2]", "0", "2") "," T("e", "F32", "[0]", "2", "2") "}", 2},
        {"{" T("a", "F4", "[2]", "0", "1") "}", 1},
    };
    for (int64_t i = 0; i < TESS_COUNT(fine); i++) {
        tess_buf b = file_of(fine[i].header, fine[i].n_data);
        if (parse(b.data, b.n_bytes) != TESS_OK) {
            fail_msg("%s: %s", fine[i].header, tess_error());
        }
        tess_buf_deinit(&b);
    }
}

static void test_header_lengths(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {
        0, 1, 3, 99000000, 100000000, 100000001, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    tess_buf b = file_of("{}", 0);
    for (int64_t i = 0; i < TESS_COUNT(lengths); i++) {
        memcpy(b.data, &lengths[i], 8);
        assert_int_equal(parse(b.data, b.n_bytes), TESS_FORMAT);
        assert_non_null(strstr(tess_error(), "no safetensors header"));
    }
    tess_buf_deinit(&b);
    /* 99 MB that are there, and are no JSON. */
    assert_int_equal(truncate(path, 99000016), 0);
    tess_bytes map;
    assert_int_equal(tess_file_map(path, &map), TESS_OK);
    tess_file_unmap(&map);
    FILE *f = fopen(path, "r+");
    uint64_t n = 99000000;
    assert_true(fwrite(&n, 8, 1, f) == 1 && fwrite("{", 1, 1, f) == 1);
    fclose(f);
    tess_tensors *t;
    double start = tess_seconds();
    assert_int_equal(tess_tensors_open(path, &t), TESS_FORMAT);
    assert_true(tess_seconds() - start < 20);
}

static void test_truncations(void **state)
{
    (void)state;
    tess_buf b =
        file_of("{" T("a", "F32", "[2]", "0", "8") "," T("b", "U8", "[3]", "8", "11") "}", 11);
    assert_int_equal(parse(b.data, b.n_bytes), TESS_OK);
    for (size_t n = 0; n < b.n_bytes; n++) {
        uint8_t *exact = malloc(n + 1); /* so that a sanitizer sees a read beyond it */
        memcpy(exact, b.data, n);
        uint8_t *shrunk = realloc(exact, n ? n : 1);
        assert_int_equal(parse(shrunk, n), TESS_FORMAT);
        free(shrunk);
    }
    tess_buf_add(&b, "x", 1);
    assert_int_equal(parse(b.data, b.n_bytes), TESS_FORMAT);
    tess_buf_deinit(&b);
}

static void test_many_tiny_tensors(void **state)
{
    (void)state;
    enum { MANY = 100000 };
    tess_tensor *tensors = tess_alloc_array(MANY, sizeof *tensors);
    char(*names)[16] = tess_alloc_array(MANY, sizeof *names);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i * 7919 % MANY);
        tensors[i] = (tess_tensor){names[i], "F32", {1, {1}}, (const uint8_t *)floats, 4};
    }
    double start = tess_seconds();
    assert_int_equal(tess_tensors_save(path, tensors, MANY, NULL, 0), TESS_OK);
    tess_tensors *t;
    assert_int_equal(tess_tensors_open(path, &t), TESS_OK);
    assert_int_equal(tess_tensors_count(t), MANY);
    for (int i = 0; i < MANY; i++) {
        assert_non_null(tess_tensors_find(t, names[i]));
    }
    double seconds = tess_seconds() - start;
    print_message("%d tensors: %.2f s\n", MANY, seconds);
    assert_true(seconds < 20);
    tess_tensors_free(t);
    tess_free(names);
    tess_free(tensors);
}

static void test_failed_allocations(void **state)
{
    (void)state;
    const tess_tensor one = {"a", "F32", {1, {6}}, (const uint8_t *)floats, 24};
    tess_status st = TESS_NOMEM;
    for (int64_t nth = 1; st; nth++) {
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_tensors_save(path, &one, 1, NULL, 0);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
    }
    st = TESS_NOMEM;
    for (int64_t nth = 1; st; nth++) {
        tess_tensors *t = NULL;
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        st = tess_tensors_open(path, &t);
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true((st == TESS_OK) == (t != NULL));
        tess_tensors_free(t);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_path, remove_path)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),        TEST(test_plan),
        TEST(test_hostile_headers),   TEST(test_harmless_headers),
        TEST(test_header_lengths),    TEST(test_truncations),
        TEST(test_many_tiny_tensors), TEST(test_failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
