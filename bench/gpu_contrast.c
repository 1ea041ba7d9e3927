/* SPDX-License-Identifier: Apache-2.0 */
/* The softmax contrastive objective and its gradient, asked for piece by piece.
 *
 *     gpu_contrast DEVICE BATCH WIDTH DATA
 *
 * DATA/features.f32 holds (2,B,Z) unit rows.  They, their gradients and the scale stay on the
 * device, and a call hands back the loss alone: what a step has of it.  "contrast N" answers N
 * calls' mean time; the first line says what memory a call needs beside features and gradients. */
#include "gpu_side.h"

typedef struct side {
    tess_store *store;
    tess_graph *graph;
    tess_workspace *workspace;
    tess_plan *plan;
    tess_value loss;
} side;

static void add(tess_graph *g, const char *name, tess_value x, tess_value gradient)
{
    tess_accumulate(g, tess_state(g, "grad", name, TESS_F32, tess_value_shape(g, x)), gradient);
}

static tess_status build(side *s, const tess_device *device, int64_t batch, int64_t width,
                         const float *features)
{
    static const char *const names[] = {"image", "text", "logit_scale"};
    tess_value x[3], dx[3];
    tess_graph *g = s->graph = tess_graph_new();
    s->store = tess_store_new();
    s->workspace = tess_workspace_new();
    if (!g || !s->store || !s->workspace) {
        return TESS_NOMEM;
    }
    for (int i = 0; i < 3; i++) {
        const tess_shape shape = i < 2 ? TESS_SHAPE_OF(batch, width) : tess_shape_make(0, NULL);
        x[i] = tess_state(g, "param", names[i], TESS_F32, shape);
    }
    s->loss = tess_contrast_softmax(g, x[0], x[1], x[2]);
    TESS_TRY(tess_graph_grad(g, &s->loss, NULL, 1, x, 3, dx));
    for (int i = 0; i < 3; i++) {
        add(g, names[i], x[i], dx[i]);
    }
    TESS_TRY(tess_graph_check(g));
    TESS_TRY(tess_store_add_graph(s->store, g, "param"));
    TESS_TRY(tess_store_mirror(s->store, "grad", "param"));
    TESS_TRY(tess_store_allocate(s->store));
    for (int i = 0; i < 3; i++) {
        float *to = tess_store_find(s->store, "param", names[i], NULL);
        if (i < 2) {
            memcpy(to, features + i * batch * width, (size_t)(batch * width) * sizeof *to);
        } else {
            *to = 2.6592f;
        }
    }
    return tess_plan_build(g, &s->loss, 1, device, s->store, s->workspace, &s->plan);
}

static tess_status answer(void *ctx, const char *name, int64_t n)
{
    side *s = ctx;
    const float *loss = NULL;
    if (strcmp(name, "contrast") != 0) {
        return TESS_FAIL(TESS_INVALID, "no case is called %.20s", name);
    }
    const double begin = tess_seconds();
    for (int64_t i = 0; i < n; i++) {
        TESS_TRY(tess_plan_run(s->plan));
        loss = tess_plan_output(s->plan, s->loss); /* waits */
        if (!loss) {
            return TESS_DEVICE;
        }
    }
    printf("{\"ms\": %.4f, \"loss\": %.6f}", 1e3 * (tess_seconds() - begin) / (double)n,
           (double)*loss);
    return TESS_OK;
}

static tess_status run(side *s, char **a, int64_t batch, int64_t width)
{
    const tess_device *device;
    const void *features;
    TESS_TRY(tess_device_open(a[1], &device));
    TESS_TRY(
        side_map(a[4], "features.f32", (size_t)(2 * batch * width) * sizeof(float), &features));
    TESS_TRY(build(s, device, batch, width, features));
    printf("{\"workspace_mb\": %.3f}\n", (double)tess_workspace_bytes(s->workspace) / 1e6);
    fflush(stdout);
    return side_serve(s, answer);
}

int main(int argc, char **argv)
{
    side s = {0};
    const int64_t batch = argc == 5 ? side_count(argv[2]) : 0;
    const int64_t width = argc == 5 ? side_count(argv[3]) : 0;
    if (!batch || !width) {
        fprintf(stderr, "usage: gpu_contrast DEVICE BATCH WIDTH DATA\n");
        return 2;
    }
    tess_compute_threads(0);
    const tess_status st = run(&s, argv, batch, width);
    tess_plan_free(s.plan);
    tess_graph_free(s.graph);
    tess_workspace_free(s.workspace);
    tess_store_free(s.store);
    return side_end("gpu_contrast", st);
}
