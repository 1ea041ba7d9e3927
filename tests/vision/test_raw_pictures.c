/* SPDX-License-Identifier: Apache-2.0 */
/* Decoded pictures for a device that resizes: the patches are the transform's and the
 * augmentation's to the byte, whatever had room as it was decoded; what cannot be said so is
 * refused. */
#include <pthread.h>

#include "vision/raw_fixture.h"

static void are_what_the_transform_makes(void **state)
{
    (void)state;
    raw_set s;
    raw_open(&s);
    raw_check_all(&s, TESS_F32, tess_device_cpu());
    raw_check_all(&s, TESS_BF16, tess_device_cpu());
    raw_close(&s);
}

/* Bytes that a batch of one picture takes. */
static size_t bytes_taken(int32_t width, int32_t height, tess_resize_mode mode)
{
    raw_set s = {0};
    tess_raw_pictures *raw;
    tess_resizer *resizer = tess_resizer_new();
    tess_preprocess p = tess_preprocess_default();
    p.width = p.height = RAW_SIZE;
    p.resize_mode = mode;
    raw_add(&s, width, height);
    RAW_OK(tess_raw_pictures_new(8, RAW_SIZE, &raw));
    RAW_OK(
        tess_raw_pictures_set(raw, 3, resizer, &(tess_raw_view){.preprocess = &p}, &s.picture[0]));
    const tess_raw_memory m = tess_raw_pictures_get(raw);
    assert_true(m.n_bytes <= m.max_bytes && m.n_taps <= m.max_taps);
    const size_t n = m.n_bytes;
    tess_raw_pictures_free(raw);
    tess_resizer_free(resizer);
    raw_close(&s);
    return n;
}

static size_t whole(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Of 300 x 100 pixels a centre crop reads some 100 x 100 and the filter's reach; large ones lie
 * finished. */
static void take_what_the_crop_reads(void **state)
{
    (void)state;
    const size_t crop = bytes_taken(300, 100, TESS_RESIZE_SHORTEST);
    assert_true(crop >= 3 * 100 * 100 && crop <= whole(3 * 100 * 112));
    assert_int_equal(bytes_taken(150, 100, TESS_RESIZE_SQUASH), whole(3 * 150 * 100));
    assert_int_equal(bytes_taken(170, 170, TESS_RESIZE_SQUASH), whole(RAW_ONE));
    assert_int_equal(bytes_taken(40, 40, TESS_RESIZE_SHORTEST), whole(RAW_ONE));
    assert_int_equal(bytes_taken(10, 10, TESS_RESIZE_SHORTEST), whole(300));
}

/* More decoded pixels than the batch has room for: the rest is finished on the processor, and
 * nothing but speed tells. */
static void a_full_batch_loses_nothing(void **state)
{
    (void)state;
    raw_set s = {0};
    for (int i = 0; i < 20; i++) {
        raw_add(&s, 140 + i, 130);
    }
    raw_bench b = raw_bench_open(&s, TESS_F32, tess_device_cpu());
    b.p.resize_mode = TESS_RESIZE_SQUASH;
    raw_check(&b, &s, NULL, 0, "a full batch");
    const tess_raw_memory m = tess_raw_pictures_get(b.raw);
    int n_finished = 0;
    for (int i = 0; i < s.n; i++) {
        const int32_t width = ((const tess_resize_place *)m.places)[i].width;
        assert_true(width == RAW_SIZE || width == s.picture[i].width);
        n_finished += width == RAW_SIZE;
    }
    assert_true(n_finished > 5 && n_finished < 15);
    assert_true(m.n_bytes > (size_t)s.n * 5 * RAW_ONE && m.n_bytes <= m.max_bytes);
    raw_bench_close(&b);
    raw_close(&s);
}

static void refuse_what_they_cannot_say(void **state)
{
    (void)state;
    raw_set s = {0};
    raw_add(&s, 50, 50);
    tess_raw_pictures *raw;
    tess_resizer *r = tess_resizer_new();
    tess_preprocess p = tess_preprocess_default(), other = p;
    p.width = p.height = RAW_SIZE;
    const tess_augment dark = {.brightness = .1}, grey = {.contrast = .1}, moved = {.shift = 3};
    const tess_raw_view good = {&p, &moved, 1, 1}, sized = {&other, NULL, 1, 1},
                        darker = {&p, &dark, 1, 1}, greyer = {&p, &grey, 1, 1};
    assert_false(tess_augment_is_geometric(&dark) || tess_augment_is_geometric(&grey));
    assert_true(tess_augment_is_geometric(&moved));
    assert_int_equal(tess_raw_pictures_new(0, RAW_SIZE, &raw), TESS_INVALID);
    assert_int_equal(tess_raw_pictures_new(1 << 24, 8192, &raw), TESS_INVALID);
    assert_null(raw);
    RAW_OK(tess_raw_pictures_new(2, RAW_SIZE, &raw));
    assert_int_equal(tess_raw_pictures_set(raw, 2, r, &good, &s.picture[0]), TESS_INVALID);
    assert_int_equal(tess_raw_pictures_set(raw, -1, r, &good, &s.picture[0]), TESS_INVALID);
    assert_int_equal(tess_raw_pictures_set(raw, 0, r, &sized, &s.picture[0]), TESS_INVALID);
    assert_int_equal(tess_raw_pictures_set(raw, 0, r, &darker, &s.picture[0]), TESS_INVALID);
    assert_int_equal(tess_raw_pictures_set(raw, 0, r, &greyer, &s.picture[0]), TESS_INVALID);
    assert_int_equal(tess_raw_pictures_set(raw, 0, r, &good, &(tess_picture){0}), TESS_INVALID);
    RAW_OK(tess_raw_pictures_set(raw, 0, r, &good, &s.picture[0]));
    assert_int_equal(tess_raw_pictures_set(raw, 0, r, &good, &s.picture[0]), TESS_INVALID);
    assert_non_null(strstr(tess_error(), "taken"));
    tess_raw_pictures_clear(raw);
    RAW_OK(tess_raw_pictures_set(raw, 0, r, &good, &s.picture[0]));
    tess_raw_pictures_free(raw);
    tess_resizer_free(r);
    raw_close(&s);
}

/* ---- threads ------------------------------------------------------------------------------- */

typedef struct worker {
    pthread_t thread;
    raw_bench *b;
    const raw_set *s;
    int first;
} worker;

static void *set_half(void *argument)
{
    worker *w = argument;
    tess_resizer *r = tess_resizer_new();
    for (int i = w->first; i < w->s->n; i += 2) {
        RAW_OK(tess_raw_pictures_set(w->b->raw, i, r, &(tess_raw_view){.preprocess = &w->b->p},
                                     &w->s->picture[i]));
    }
    tess_resizer_free(r);
    return NULL;
}

/* Two threads set a batch that has room for some of its pictures only. */
static void threads_share_a_batch(void **state)
{
    (void)state;
    raw_set s = {0};
    for (int i = 0; i < 20; i++) {
        raw_add(&s, 100 + i, 110);
    }
    raw_bench b = raw_bench_open(&s, TESS_F32, tess_device_cpu());
    raw_check(&b, &s, NULL, 0, "one thread");
    const size_t n_bytes = (size_t)s.n * RAW_ONE * 3;
    float *alone = tess_alloc_array(n_bytes, sizeof *alone);
    const tess_shape shape = tess_value_shape(b.resizing.g, b.resizing.y);
    const size_t n = (size_t)tess_shape_count(&shape);
    assert_true(n <= n_bytes);
    memcpy(alone, tess_plan_output(b.resizing.p, b.resizing.y), n * sizeof *alone);
    tess_raw_pictures_clear(b.raw);
    worker workers[2] = {{.b = &b, .s = &s, .first = 0}, {.b = &b, .s = &s, .first = 1}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, set_half, &workers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    RAW_OK(tess__raw_bind(b.resizing.p, b.raw));
    RAW_OK(tess_plan_run(b.resizing.p));
    assert_memory_equal(alone, tess_plan_output(b.resizing.p, b.resizing.y), n * sizeof *alone);
    tess_free(alone);
    raw_bench_close(&b);
    raw_close(&s);
}

/* ---- hostile tables ------------------------------------------------------------------------ */

static void are_refused(tess_plan *p, tess_value y, int fault, void *ctx)
{
    (void)y, (void)ctx;
    if (tess_plan_run(p) != TESS_INVALID || !strstr(tess_error(), "resize_patches: ")) {
        fail_msg("fault %d: %s", fault, tess_error());
    }
}

static void hostile_tables_are_refused(void **state)
{
    (void)state;
    raw_spoil(tess_device_cpu(), are_refused, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(are_what_the_transform_makes),
        cmocka_unit_test(take_what_the_crop_reads),
        cmocka_unit_test(a_full_batch_loses_nothing),
        cmocka_unit_test(refuse_what_they_cannot_say),
        cmocka_unit_test(threads_share_a_batch),
        cmocka_unit_test(hostile_tables_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
