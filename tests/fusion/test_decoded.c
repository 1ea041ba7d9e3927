/* SPDX-License-Identifier: Apache-2.0 */
/* Decoded pictures in place of finished ones, on the processor: the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/decoded_fixture.h"

static void embeds_what_it_embeds_finished(void **state)
{
    (void)state;
    decoded_check_embedding(NULL);
}

static void trains_as_it_trains_on_finished(void **state)
{
    (void)state;
    fixture_batch batch;
    fixture_open(&batch);
    decoded_check_training(NULL, &batch);
    tess_tensors_free(batch.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeds_what_it_embeds_finished),
        cmocka_unit_test(trains_as_it_trains_on_finished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
