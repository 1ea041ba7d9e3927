/* SPDX-License-Identifier: Apache-2.0 */
/* Attention through cuDNN: on the emulated card with a cuDNN that holds every descriptor to its
 * contract and computes graphs on the processor; on a real one with the real one.  The library is
 * opened, and choices are made, once a process, so each check is a child's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "cuda/emulate_control.h"
#include "tensor/cuda_attention.h"
#include "tensor/op_driver.h"
#include "tensor/plan.h"

static const tess_device *card(void)
{
    const tess_device *d;
    return tess_device_cuda(&d) == TESS_OK ? d : NULL;
}

static char logged[4000];
static const char *folder = ""; /* where choices are kept; "": nowhere */

static void keep_log(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    const size_t n = strlen(logged);
    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

/* sdpa's cases that cuDNN may serve, on the card; false: one fails. */
static bool cases_pass(void)
{
    bool pass = true;
    tess__cuda_attention_use(TESS_ATTENTION_CUDNN);
    for (int k = 0; k < tess__op_sdpa.n_cases; k++) {
        const tess_case *c = &tess__op_sdpa.cases[k];
        if (c->in[0].dtype != TESS_BF16 || c->in[0].shape.rank != 3) {
            continue;
        }
        driver d = {.op = &tess__op_sdpa, .c = c, .remote = card()->remote};
        const char *fault = driver_check(&d);
        if (fault) {
            fprintf(stderr, "%s: %s\n", c->name, fault);
            pass = false;
        }
        driver_free(&d);
        emulate_reset();
    }
    tess__cuda_attention_use(TESS_ATTENTION_FASTER);
    return pass;
}

/* The child's check is true. */
static void check_child(const char *cudnn, bool (*check)(const char *says), const char *says)
{
    const pid_t child = fork();
    if (child == 0) {
        setenv("EMULATE_CUDNN", cudnn, 1);
        setenv("TESSERA_CACHE", folder, 1);
        tess_log_set_sink(keep_log, NULL, TESS_LOG_DEBUG);
        const bool right = check(says);
        if (!right) {
            fprintf(stderr, "%s: %s", cudnn, logged);
        }
        _exit(right ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#ifndef TESS_REAL_CARD

static bool served(const char *says)
{
    (void)says;
    return cases_pass() && emulate_cudnn_runs() > 0 && emulate_cudnn_complaints() == 0;
}

/* ---- a plan ---------------------------------------------------------------------------------- */

enum { SEGMENTS = 2, TOKENS = 19, WIDTH = 32, ROWS = SEGMENTS * TOKENS };

typedef struct world {
    tess_graph *g;
    tess_store *store;
    tess_workspace *workspace;
    tess_plan *plan;
    tess_value out[2];
    uint16_t qkv[ROWS * 3 * WIDTH], dy[ROWS * WIDTH];
} world;

/* y and dqkv of causal attention. */
static bool begin(world *w, const tess_device *device)
{
    w->g = tess_graph_new();
    w->store = tess_store_new();
    w->workspace = tess_workspace_new();
    const tess_value x =
        tess_input(w->g, "x", TESS_BF16, TESS_SHAPE_OF(SEGMENTS, TOKENS, 3 * WIDTH));
    const tess_value dy = tess_input(w->g, "dy", TESS_BF16, TESS_SHAPE_OF(SEGMENTS, TOKENS, WIDTH));
    w->out[0] = tess_sdpa(w->g, x, (tess_sdpa_options){.heads = 4, .causal = true});
    tess_rng r = tess_rng_at(3, 7);
    for (int i = 0; i < ROWS * 3 * WIDTH; i++) {
        w->qkv[i] = tess_bf16_from_f32((float)tess_rng_normal(&r));
        w->dy[i % (ROWS * WIDTH)] = tess_bf16_from_f32((float)tess_rng_normal(&r));
    }
    return tess_graph_grad(w->g, w->out, &dy, 1, &x, 1, &w->out[1]) == TESS_OK &&
           tess_plan_build(w->g, w->out, 2, device, w->store, w->workspace, &w->plan) == TESS_OK &&
           tess_plan_bind(w->plan, "x", w->qkv) == TESS_OK &&
           tess_plan_bind(w->plan, "dy", w->dy) == TESS_OK;
}

static void end(world *w)
{
    tess_plan_free(w->plan);
    tess_workspace_free(w->workspace);
    tess_store_free(w->store);
    tess_graph_free(w->g);
}

/* Timed, recorded, replayed: the same bytes. */
static bool runs_repeat(world *w)
{
    uint16_t y[ROWS * WIDTH], dqkv[ROWS * 3 * WIDTH];
    bool same = true;
    for (int run = 0; run < 4 && same; run++) {
        same = tess_plan_run(w->plan) == TESS_OK;
        const void *have_y = same ? tess_plan_output(w->plan, w->out[0]) : NULL;
        const void *have_d = same ? tess_plan_output(w->plan, w->out[1]) : NULL;
        same = have_y && have_d &&
               (run == 0 ||
                (memcmp(y, have_y, sizeof y) == 0 && memcmp(dqkv, have_d, sizeof dqkv) == 0));
        if (same) {
            memcpy(y, have_y, sizeof y);
            memcpy(dqkv, have_d, sizeof dqkv);
        }
    }
    return same;
}

/* Within what roundings to bf16 make of numbers of about 1. */
static bool as_on_processor(world *w)
{
    world here = {0};
    bool near = begin(&here, tess_device_cpu()) && tess_plan_run(here.plan) == TESS_OK;
    for (int k = 0; k < 2 && near; k++) {
        const uint16_t *a = tess_plan_output(w->plan, w->out[k]);
        const uint16_t *b = tess_plan_output(here.plan, here.out[k]);
        for (int i = 0; i < ROWS * WIDTH * (k == 0 ? 1 : 3); i++) {
            near = near && fabsf(tess_f32_from_bf16(a[i]) - tess_f32_from_bf16(b[i])) < 0.03f;
        }
    }
    end(&here);
    return near;
}

/* Our kernels, and why. */
static bool fallen_back(const char *says)
{
    world w = {0};
    const bool right = begin(&w, card()) && runs_repeat(&w) && as_on_processor(&w);
    end(&w);
    return right && emulate_cudnn_runs() == 0 && emulate_cudnn_complaints() == 0 &&
           strstr(logged, says);
}

static void check_served(void **state)
{
    (void)state;
    check_child("fast", served, "");
}

static void check_fallbacks(void **state)
{
    (void)state;
    static const struct {
        const char *cudnn, *says;
    } ways[] = {
        {"", "attention runs in this program's own kernels; with cuDNN 9.13 or newer of CUDA 13 "
             "(libcudnn9-cuda-13) the faster of both would run"},
        {"old", "cuDNN 9.1.0 is too old: attention runs in this program's own kernels"},
        {"incomplete", "this cuDNN has no cudnnGetVersion"},
        {"closed", "cuDNN: opening the card: "},
        {"unfinished", "cuDNN: graph: CUDNN_STATUS_NOT_SUPPORTED"},
        {"no_engine", "cuDNN: no engine"},
        {"random", "cuDNN: an engine that does not repeat bit for bit"},
        {"large", "cuDNN: a workspace of 1099511627776 bytes"},
        {"fails", "cuDNN: attention on the card: CUDNN_STATUS_EXECUTION_FAILED: attention runs in"},
    };
    for (int64_t i = 0; i < TESS_COUNT(ways); i++) {
        check_child(ways[i].cudnn, fallen_back, ways[i].says);
    }
}

/* says: "fast" or "slow".  A second plan of the same shapes times nothing; where ours won it asks
 * for no workspace. */
static bool choice_is_kept(const char *says)
{
    const bool fast = strcmp(says, "fast") == 0;
    world w = {0}, again = {0};
    bool right = begin(&w, card()) && runs_repeat(&w) && as_on_processor(&w);
    const int timed = emulate_cudnn_runs();
    right = right && begin(&again, card());
    const tess_plan_stats first = tess_plan_get_stats(w.plan);
    const tess_plan_stats second = tess_plan_get_stats(again.plan);
    right = right && (fast ? second.scratch_bytes == first.scratch_bytes
                           : second.scratch_bytes < first.scratch_bytes);
    right = right && tess_plan_run(again.plan) == TESS_OK;
    right = right && emulate_cudnn_runs() == timed + (fast ? 2 : 0) && timed > 0;
    right = right && emulate_cudnn_complaints() == 0;
    end(&w);
    end(&again);
    return right;
}

/* A choice that another process has made: both kernels run once, and nothing is timed. */
static bool chosen_before(const char *says)
{
    (void)says;
    world w = {0};
    const bool right = begin(&w, card()) && tess_plan_run(w.plan) == TESS_OK;
    end(&w);
    return right && emulate_cudnn_runs() == 2 && emulate_cudnn_complaints() == 0;
}

static void check_kept_on_disk(void **state)
{
    (void)state;
    char path[] = "/tmp/tessera_cudnn_XXXXXX", command[100];
    assert_non_null(mkdtemp(path));
    folder = path;
    check_child("fast", choice_is_kept, "fast");
    check_child("slow", chosen_before, "");
    folder = "";
    snprintf(command, sizeof command, "rm -r %s", path);
    assert_int_equal(system(command), 0);
}

/* Ours, whichever is faster, and for good: the plan has no workspace for cuDNN's. */
static bool rule_decides(const char *says)
{
    (void)says;
    world w = {0};
    tess_compute_deterministic(true);
    bool right = begin(&w, card()) && runs_repeat(&w);
    tess_compute_deterministic(false);
    right = right && runs_repeat(&w) && emulate_cudnn_runs() == 0;
    end(&w);
    return right;
}

static void check_choice(void **state)
{
    (void)state;
    check_child("fast", rule_decides, "");
    check_child("fast", choice_is_kept, "fast");
    check_child("slow", choice_is_kept, "slow");
}

#else

static bool served(const char *says)
{
    (void)says;
    return cases_pass();
}

static void check_served(void **state)
{
    (void)state;
    check_child("", served, "");
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_served),
#ifndef TESS_REAL_CARD
        cmocka_unit_test(check_fallbacks),
        cmocka_unit_test(check_choice),
        cmocka_unit_test(check_kept_on_disk),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
