/* SPDX-License-Identifier: Apache-2.0 */
/* A pass in pieces over paged states, reading ahead as far as memory is left. */
#include "tensor/pager.h"

static tess_status ask_ahead(tess_pager *p, const tess_pass *x, int64_t k, int64_t *asked)
{
    tess_pages pages[TESS_PASS_PAGES];
    for (; *asked < x->n; ++*asked) {
        const int n = x->pages(x->ctx, *asked, pages);
        if (*asked <= k) {
            TESS_TRY(tess__pager_ask(p, pages, n));
        } else if (!tess__pager_try(p, pages, n)) {
            break;
        }
    }
    return TESS_OK;
}

tess_status tess__pager_pass(tess_pager *p, const tess_pass *x)
{
    tess_pages pages[TESS_PASS_PAGES];
    tess_status st = TESS_OK;
    int64_t asked = 0, k = 0;
    for (; st == TESS_OK && k < x->n; k++) {
        const int n = x->pages(x->ctx, k, pages);
        st = ask_ahead(p, x, k, &asked);
        st = st ? st : tess__pager_wait(p, pages, n);
        if (st) {
            break;
        }
        x->run(x->ctx, k);
        tess__pager_done(p, pages, n);
    }
    for (; k < asked; k++) { /* after an error */
        tess__pager_done(p, pages, x->pages(x->ctx, k, pages));
    }
    return st;
}

enum { PIECES_AT_ONCE = 4, MAX_PIECE_BYTES = 16 << 20 };

int64_t tess__pager_piece(const tess_pager *p, int n_runs)
{
    const size_t room = tess__pager_budget(p) / PIECES_AT_ONCE / (size_t)n_runs;
    const size_t n = (room < MAX_PIECE_BYTES ? room : MAX_PIECE_BYTES) / tess__pager_block(p);
    return n > 0 ? (int64_t)n : 1;
}
