/* SPDX-License-Identifier: Apache-2.0 */
/* --precision of the verbs that embed. */
#ifndef TESSERA_CLI_PRECISION_H
#define TESSERA_CLI_PRECISION_H

#include "cli/option.h"

#include "tessera/fusion.h"

#define CLI_PRECISION(values, field)                                                               \
    {                                                                                              \
        .name = "precision", .kind = CLI_CHOICE, .choices = "auto|f32|bf16|int8",                  \
        .fallback = "auto", CLI_AT(values, field),                                                 \
        .help = "Numbers to compute with; auto: as `tessera pack` chose, else bf16 or f32; on a "  \
                "card bf16"                                                                        \
    }

tess_precision cli_precision_of(const char *name);

#endif
