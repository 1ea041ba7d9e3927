/* SPDX-License-Identifier: Apache-2.0 */
/* A packed file of any bytes, behind the two linear layers of a small tower: it is refused with a
 * message, or every byte that it lends can be read, and the tower runs on it. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fusion/packs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { ROWS = 3, K = 5, HIDDEN = 70, OUT = 4 };

static tess_status check(tess_status st)
{
    if (st && !*tess_error()) {
        abort();
    }
    return st;
}

static tess_value linear(tess_graph *g, tess_value x, const char *name, int64_t n, int64_t k)
{
    tess_scope_push(g, "%s", name);
    const tess_value w = tess_state(g, "param", "weight", TESS_F32, TESS_SHAPE_OF(n, k));
    const tess_value bias = tess_state(g, "param", "bias", TESS_F32, TESS_SHAPE_OF(n));
    tess_scope_pop(g);
    return tess_linear(g, x, w, (tess_linear_options){.bias = bias});
}

static tess_store *make_store(void)
{
    tess_store *s = tess_store_new();
    if (!s || tess_store_add(s, "param", "a.weight", TESS_SHAPE_OF(HIDDEN, K)) ||
        tess_store_add(s, "param", "a.bias", TESS_SHAPE_OF(HIDDEN)) ||
        tess_store_add(s, "param", "b.weight", TESS_SHAPE_OF(OUT, HIDDEN)) ||
        tess_store_add(s, "param", "b.bias", TESS_SHAPE_OF(OUT))) {
        abort();
    }
    return s;
}

static tess_status run(const tess_graph *g, tess_value out, tess_store *s)
{
    static const float x[ROWS * K] = {1, -2, 0.5f, 3, 0, -1};
    tess_plan *plan = NULL;
    tess_workspace *room = tess_workspace_new();
    tess_status st =
        room ? tess_plan_build(g, &out, 1, tess_device_cpu(), s, room, &plan) : TESS_NOMEM;
    st = st ? st : tess_plan_bind(plan, "x", x);
    st = st ? st : tess_plan_run(plan);
    tess_plan_free(plan);
    tess_workspace_free(room);
    return st;
}

static tess_status compute(tess_packs *packs)
{
    tess_store *s = make_store();
    tess_graph *g = tess_graph_new();
    if (!g) {
        abort();
    }
    const tess_value x = tess_input(g, "x", TESS_F32, TESS_SHAPE_OF(ROWS, K));
    tess_value out = linear(g, linear(g, x, "a", HIDDEN, K), "b", OUT, HIDDEN);
    tess_status st = tess_store_map(s, "param", tess__packs_file(packs));
    st = st ? st : tess__packs_lower(packs, &g, &out);
    st = st ? st : run(g, out, s);
    tess_graph_free(g);
    tess_store_free(s);
    return st;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    char path[64];
    tess_packs *packs = NULL;
    tess_pack_match match;
    const int fd = memfd_create("pack", 0);
    if (fd < 0 || write(fd, data, n_bytes) != (ssize_t)n_bytes) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!check(tess__pack_open(path, "stamp", &match, &packs))) {
        if (strlen(match.fingerprint) != 32) {
            abort();
        }
        (void)check(tess__pack_verify(packs));
        (void)check(compute(packs));
    }
    tess__packs_free(packs);
    close(fd);
    return 0;
}
