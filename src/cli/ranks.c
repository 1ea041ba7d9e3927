/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of ranks that share a host. */
#include "cli/ranks.h"

#include <unistd.h>

int cli_share_threads(const tess_comm *comm)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    const int n = tess_comm_local_size(comm), mine = tess_cpu_count();
    const int each = online / n > 0 ? (int)(online / n) : 1;
    const int threads = n > 1 && mine > each ? each : mine;
    tess_compute_threads(threads);
    return threads;
}
