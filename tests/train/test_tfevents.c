/* SPDX-License-Identifier: Apache-2.0 */
/* Event files: bytes known from the format's definition, and cutting back. */
#include "run_dir.h"

#include "train/tfevents.h"

static void version_record_is_known(void **state)
{
    (void)state;
    /* length 24, its checksum, wall_time 1.0, file_version, checksum of the 24 bytes */
    static const uint8_t head[] = {24, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22};
    static const uint8_t body[] = {9,   0,   0,   0,   0,   0,   0,   0xf0, 0x3f, 0x1a, 13,  'b',
                                   'r', 'a', 'i', 'n', '.', 'E', 'v', 'e',  'n',  't',  ':', '2'};
    tess_buf out = {0};
    tess__tfevents_add_version(&out, 1.0);
    assert_int_equal(out.n_bytes, 12 + 24 + 4);
    assert_memory_equal(out.data, head, sizeof(head));
    assert_memory_equal(out.data + 12, body, sizeof(body));
    tess_buf_deinit(&out);
}

/* A version and steps 0..4; where[i] is where record i begins. */
static void make_records(tess_buf *out, size_t where[6])
{
    where[0] = 0;
    tess__tfevents_add_version(out, 1.0);
    for (int64_t step = 0; step < 5; step++) {
        const tess_scalar scalars[] = {{"train/loss", 1.5}, {"train/lr", 1e-3}};
        where[step + 1] = out->n_bytes;
        tess__tfevents_add_scalars(out, 2.0, step, scalars, 2);
    }
}

static void keeps_up_to_a_step(void **state)
{
    (void)state;
    tess_buf out = {0};
    size_t where[6];
    int64_t n;
    make_records(&out, where);
    for (int64_t step = 0; step < 5; step++) {
        size_t end = step < 4 ? where[step + 2] : out.n_bytes;
        assert_int_equal(tess__tfevents_keep_bytes(out.data, out.n_bytes, step, &n), end);
        assert_int_equal(n, step + 2);
    }
    tess_buf_deinit(&out);
}

static void keeps_whole_records_of_any_prefix(void **state)
{
    (void)state;
    tess_buf out = {0};
    size_t where[6];
    int64_t n;
    make_records(&out, where);
    for (size_t cut = 0; cut < out.n_bytes; cut++) {
        size_t expected = 0;
        for (int i = 0; i < 6; i++) {
            expected = where[i] <= cut ? where[i] : expected;
        }
        uint8_t *copy = tess_alloc(cut);
        memcpy(copy, out.data, cut);
        assert_int_equal(tess__tfevents_keep_bytes(copy, cut, 100, &n), expected);
        tess_free(copy);
    }
    tess_buf_deinit(&out);
}

static void stops_at_any_flipped_bit(void **state)
{
    (void)state;
    tess_buf out = {0};
    size_t where[6];
    int64_t n;
    make_records(&out, where);
    for (size_t at = where[1]; at < where[2]; at++) {
        out.data[at] = (char)(out.data[at] ^ 16);
        assert_int_equal(tess__tfevents_keep_bytes(out.data, out.n_bytes, 100, &n), where[1]);
        out.data[at] = (char)(out.data[at] ^ 16);
    }
    tess_buf_deinit(&out);
}

static void independent_reader_agrees(void **state)
{
    (void)state;
    tess_metrics *m = open_metrics(false, 0);
    for (int64_t step = 1; step < 300; step += 7) {
        add_point(m, step, 1.0 / (double)step);
    }
    tess_metrics_close(m);
    assert_int_equal(run_script("check_tfevents.py", run_path("tensorboard")), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, run_dir_make, run_dir_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(version_record_is_known),           TEST(keeps_up_to_a_step),
        TEST(keeps_whole_records_of_any_prefix), TEST(stops_at_any_flipped_bit),
        TEST(independent_reader_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
