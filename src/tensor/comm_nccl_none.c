/* SPDX-License-Identifier: Apache-2.0 */
/* Without NCCL's header: ranks on cards send by way of the host. */
#include "tensor/comm.h"

tess_status tess__cards_open(tess_comm *c, const tess_remote *r, tess_cards **out)
{
    (void)c, (void)r;
    *out = NULL;
    return TESS_OK;
}

tess_status tess__cards_all_reduce(tess_cards *k, float *x, int64_t n)
{
    (void)k, (void)x, (void)n;
    return TESS_FAIL(TESS_UNSUPPORTED, "this program was built without NCCL");
}

tess_status tess__cards_settle(tess_cards *k)
{
    (void)k;
    return TESS_OK;
}

void tess__cards_close(tess_cards *k)
{
    (void)k;
}
