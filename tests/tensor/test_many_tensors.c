/* SPDX-License-Identifier: Apache-2.0 */
/* Files at the format's edges open in time that grows with their size: 100,000 tiny tensors, and a
 * header of 99 MB. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <endian.h>
#include <string.h>

#include "tessera/tensor.h"

/* A file of n one-float tensors whose names fill up to name_bytes. */
static void make_file(int64_t n, int name_bytes, tess_buf *out)
{
    tess_buf header = {0};
    char name[1024];
    memset(name, 'x', sizeof name);
    tess_buf_adds(&header, "{");
    for (int64_t i = 0; i < n; i++) {
        int k = snprintf(name, sizeof name, "%lld.", (long long)i);
        name[k] = 'x';
        tess_buf_addf(&header,
                      "%s\"%.*s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":"
                      "[%lld,%lld]}",
                      i ? "," : "", name_bytes, name, (long long)(4 * i), (long long)(4 * i + 4));
    }
    tess_buf_adds(&header, "}");
    uint64_t length = htole64(header.n_bytes);
    tess_buf_add(out, &length, 8);
    tess_buf_add(out, header.data, header.n_bytes);
    const float zero = 0;
    for (int64_t i = 0; i < n; i++) {
        tess_buf_add(out, &zero, 4);
    }
    assert_int_equal(tess_buf_check(out), TESS_OK);
    tess_buf_deinit(&header);
}

static void open_file(int64_t n, int name_bytes, size_t least_bytes)
{
    tess_buf file = {0};
    tess_tensors *t = NULL;
    make_file(n, name_bytes, &file);
    assert_true(file.n_bytes >= least_bytes);
    double start = tess_seconds();
    tess_status st =
        tess_tensors_parse((tess_bytes){(uint8_t *)file.data, file.n_bytes}, "many", &t);
    double seconds = tess_seconds() - start;
    if (st) {
        fail_msg("%s", tess_error());
    }
    assert_int_equal(tess_tensors_count(t), n);
    for (int64_t i = 0; i < n; i++) {
        const tess_tensor *x = tess_tensors_at(t, i);
        assert_ptr_equal(tess_tensors_find(t, x->name), x);
    }
    print_message("%lld tensors, %zu bytes: %.2f s\n", (long long)n, file.n_bytes, seconds);
    assert_true(seconds < 60); /* a walk for every name would take hours */
    tess_tensors_free(t);
    tess_buf_deinit(&file);
}

static void test_many(void **state)
{
    (void)state;
    open_file(100000, 12, 100000);
}

static void test_long_header(void **state)
{
    (void)state;
    open_file(99000, 938, 98900000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_long_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
