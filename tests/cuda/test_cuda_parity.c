/* SPDX-License-Identifier: Apache-2.0 */
/* Two-tower steps on a card against PyTorch's: the fixtures and tolerances of the processor
 * (tests/fusion/dual_parity.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/dual_parity.h"

static const tess_device *card(void)
{
    const tess_device *d;
    ok(tess_device_cuda(&d));
    return d;
}

static void test_step_in_f32(void **state)
{
    (void)state;
    fixture_batch b;
    fixture_open(&b);
    for (int64_t i = 0; i < TESS_COUNT(parity_cases); i++) {
        step_case(&b, parity_cases[i], card());
    }
    tess_tensors_free(b.file);
}

static void test_features_in_bf16(void **state)
{
    (void)state;
    fixture_batch b;
    fixture_open(&b);
    for (int64_t i = 0; i < TESS_COUNT(parity_cases); i++) {
        features_case(&b, parity_cases[i], card());
    }
    tess_tensors_free(b.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step_in_f32),
        cmocka_unit_test(test_features_in_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
