/* SPDX-License-Identifier: Apache-2.0 */
/* The two clocks: one for durations, one for dates. */
#include "tessera/base.h"

#include <time.h>

static double read_clock(clockid_t id)
{
    struct timespec t = {0};
    clock_gettime(id, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double tess_seconds(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double tess_wall_seconds(void)
{
    return read_clock(CLOCK_REALTIME);
}
