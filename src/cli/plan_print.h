/* SPDX-License-Identifier: Apache-2.0 */
/* A plan of training, for people and for programs. */
#ifndef TESSERA_CLI_PLAN_PRINT_H
#define TESSERA_CLI_PLAN_PRINT_H

#include "tessera/planning.h"

void cli_plan_print(const tess_planning_options *o, const tess_planning *p, tess_buf *out);
void cli_plan_write(const tess_planning_options *o, const tess_planning *p, tess_buf *out);
/* Why nothing fits and what would, on one line. */
void cli_plan_advise(const tess_planning_options *o, const tess_planning_advice *a, tess_buf *out);

#endif
