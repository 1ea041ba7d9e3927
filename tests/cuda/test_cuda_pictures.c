/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures resized on a CUDA device, beside the processor's transform: patches equal to the byte,
 * for pictures of every kind of size, every way of resizing and the views of training; tables that
 * lead elsewhere are filled.  Then a model that embeds them and is trained on them, beside itself
 * with the same pictures finished. */
#include "vision/raw_fixture.h"

#include "fusion/decoded_fixture.h"

static const tess_device *card(void)
{
    const tess_device *d;
    RAW_OK(tess_device_cuda(&d));
    return d;
}

static void check_f32(void **state)
{
    (void)state;
    raw_set s;
    raw_open(&s);
    raw_check_all(&s, TESS_F32, card());
    raw_close(&s);
}

/* The numbers are rounded where patchify rounds them; a second and a third run are replays. */
static void check_bf16(void **state)
{
    (void)state;
    raw_set s;
    raw_open(&s);
    raw_bench b = raw_bench_open(&s, TESS_BF16, card());
    for (int run = 0; run < 4; run++) {
        b.p.resize_mode = run % 2 ? TESS_RESIZE_SQUASH : TESS_RESIZE_SHORTEST;
        raw_check(&b, &s, NULL, 0, "bf16");
    }
    raw_bench_close(&b);
    raw_close(&s);
}

/* The empty place, the second of the two, is filled; so is what was spoiled of the first. */
static void is_filled(tess_plan *p, tess_value y, int fault, void *ctx)
{
    (void)ctx;
    RAW_OK(tess_plan_run(p));
    const float *x = tess_plan_output(p, y);
    assert_non_null(x);
    const int side = RAW_SIZE / RAW_PATCH;
    if (x[0] != x[side * side * 3 * RAW_PATCH * RAW_PATCH]) {
        fail_msg("fault %d: the first pixel is not filled", fault);
    }
}

static void check_hostile(void **state)
{
    (void)state;
    raw_spoil(card(), is_filled, NULL);
}

static void check_embedding(void **state)
{
    (void)state;
    decoded_check_embedding(card());
}

static void check_training(void **state)
{
    (void)state;
    fixture_batch batch;
    fixture_open(&batch);
    decoded_check_training(card(), &batch);
    tess_tensors_free(batch.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_f32),      cmocka_unit_test(check_bf16),
        cmocka_unit_test(check_hostile),  cmocka_unit_test(check_embedding),
        cmocka_unit_test(check_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
