/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax contrastive objective and its gradients on processors, asked for piece by piece.
 *
 *     contrast BATCH WIDTH THREADS DATA
 *
 * DATA/features.f32 holds (2,B,Z) unit rows.  The first line says the loss and the memory of a call
 * beside features and gradients: of the workspace, and as the growth of the process while the first
 * call ran.  Then "contrast N" is answered with N calls' mean time. */
#include "gpu_side.h"

#include <sys/resource.h>

typedef struct side {
    tess_graph *graph;
    tess_workspace *workspace;
    tess_plan *plan;
    tess_value out[4]; /* loss, gradients of image, text, scale */
} side;

static const float log_scale = 2.6592f;

static tess_status build(side *s, int64_t batch, int64_t width, const float *features)
{
    tess_graph *g = s->graph = tess_graph_new();
    s->workspace = tess_workspace_new();
    if (!g || !s->workspace) {
        return TESS_NOMEM;
    }
    const tess_value x[3] = {tess_input(g, "image", TESS_F32, TESS_SHAPE_OF(batch, width)),
                             tess_input(g, "text", TESS_F32, TESS_SHAPE_OF(batch, width)),
                             tess_input(g, "log_scale", TESS_F32, TESS_SHAPE_OF(1))};
    s->out[0] = tess_contrast_softmax(g, x[0], x[1], x[2]);
    TESS_TRY(tess_graph_grad(g, s->out, NULL, 1, x, 3, s->out + 1));
    TESS_TRY(tess_graph_check(g));
    TESS_TRY(tess_plan_build(g, s->out, 4, tess_device_cpu(), NULL, s->workspace, &s->plan));
    TESS_TRY(tess_plan_bind(s->plan, "image", features));
    TESS_TRY(tess_plan_bind(s->plan, "text", features + batch * width));
    return tess_plan_bind(s->plan, "log_scale", &log_scale);
}

static double resident(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)use.ru_maxrss * 1024;
}

static tess_status answer(void *ctx, const char *name, int64_t n)
{
    const side *s = ctx;
    if (strcmp(name, "contrast") != 0) {
        return TESS_FAIL(TESS_INVALID, "no case is called %.20s", name);
    }
    const double begin = tess_seconds();
    for (int64_t i = 0; i < n; i++) {
        TESS_TRY(tess_plan_run(s->plan));
    }
    printf("{\"ms\": %.4f, \"loss\": %.6f}", 1e3 * (tess_seconds() - begin) / (double)n,
           (double)*(const float *)tess_plan_output(s->plan, s->out[0]));
    return TESS_OK;
}

static tess_status run(side *s, char **a, int64_t batch, int64_t width)
{
    const size_t n_bytes = (size_t)(2 * batch * width) * sizeof(float);
    const void *features;
    volatile float sum = 0;
    TESS_TRY(side_map(a[4], "features.f32", n_bytes, &features));
    for (int64_t i = 0; i < 2 * batch * width; i += 1024) {
        sum += ((const float *)features)[i]; /* they are in memory before we look */
    }
    const double before = resident();
    TESS_TRY(build(s, batch, width, features));
    TESS_TRY(tess_plan_run(s->plan));
    printf("{\"loss\": %.6f, \"workspace_mb\": %.2f, \"memory_mb\": %.2f}\n",
           (double)*(const float *)tess_plan_output(s->plan, s->out[0]),
           ((double)tess_workspace_bytes(s->workspace) - (double)n_bytes) / 1e6,
           (resident() - before - (double)n_bytes) / 1e6);
    fflush(stdout);
    return side_serve(s, answer);
}

int main(int argc, char **argv)
{
    side s = {0};
    const int64_t batch = argc == 5 ? side_count(argv[1]) : 0;
    const int64_t width = argc == 5 ? side_count(argv[2]) : 0;
    const int64_t threads = argc == 5 ? side_count(argv[3]) : 0;
    if (!batch || !width || !threads) {
        fprintf(stderr, "usage: contrast BATCH WIDTH THREADS DATA\n");
        return 2;
    }
    tess_compute_threads((int)threads);
    const tess_status st = run(&s, argv, batch, width);
    tess_plan_free(s.plan);
    tess_graph_free(s.graph);
    tess_workspace_free(s.workspace);
    return side_end("contrast", st);
}
