/* SPDX-License-Identifier: Apache-2.0 */
/* Names of precisions. */
#include "cli/precision.h"

#include <string.h>

tess_precision cli_precision_of(const char *name)
{
    static const char *const names[] = {[TESS_PRECISION_AUTO] = "auto",
                                        [TESS_PRECISION_F32] = "f32",
                                        [TESS_PRECISION_BF16] = "bf16",
                                        [TESS_PRECISION_INT8] = "int8"};
    for (int i = 0; i < TESS_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return (tess_precision)i;
        }
    }
    return TESS_PRECISION_AUTO;
}
