/* SPDX-License-Identifier: Apache-2.0 */
/* Two-tower steps on the processor against PyTorch's; dual_parity.h has the tolerances. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/dual_parity.h"

static void test_step_in_f32(void **state)
{
    (void)state;
    fixture_batch b;
    fixture_open(&b);
    for (int64_t i = 0; i < TESS_COUNT(parity_cases); i++) {
        step_case(&b, parity_cases[i], NULL);
    }
    tess_tensors_free(b.file);
}

static void test_features_in_bf16(void **state)
{
    (void)state;
    fixture_batch b;
    fixture_open(&b);
    for (int64_t i = 0; i < TESS_COUNT(parity_cases); i++) {
        features_case(&b, parity_cases[i], NULL);
    }
    tess_tensors_free(b.file);
}

/* The fixture's captions have different lengths, so a wrong mask shows: a token moved across a
 * caption's border changes its features. */
static void test_captions_do_not_see_each_other(void **state)
{
    (void)state;
    fixture_batch b;
    fixture_open(&b);
    tess_model *m = fixture_model("avg_mean", TESS_PRECISION_F32);
    float before[2 * 16], after[2 * 16];
    ok(tess_model_embed_tokens(m, b.tokens, b.offsets64, 2, before));
    b.tokens[b.offsets[1]] = (b.tokens[b.offsets[1]] + 1) % 64;
    ok(tess_model_embed_tokens(m, b.tokens, b.offsets64, 2, after));
    assert_memory_equal(before, after, 16 * sizeof *before);
    assert_memory_not_equal(before + 16, after + 16, 16 * sizeof *before);
    tess_model_free(m);
    tess_tensors_free(b.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_in_f32),
        cmocka_unit_test(test_features_in_bf16),
        cmocka_unit_test(test_captions_do_not_see_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
