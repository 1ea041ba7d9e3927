/* SPDX-License-Identifier: Apache-2.0 */
/* Environment and signals of the process.
 *
 * libgomp reads its variables in its constructor, before main, so the only way to set them for
 * ourselves is to start over.  Loading the libraries a second time costs about 5 ms, which is why
 * only verbs that compute ask for it.  What the user has set is left alone.
 *
 *   OMP_WAIT_POLICY    a thread that spins at the end of a parallel region takes its core from the
 *   GOMP_SPINCOUNT     loader's threads and from other processes: 326 ms instead of 21 ms for one
 *                      batch of FAISS searches beside one busy core.  A short spin stays, since
 *                      regions of one model follow each other within microseconds.
 *   OMP_NUM_THREADS    cores by affinity and control group; libgomp knows only the first.
 *   OPENBLAS_CORETYPE  OpenBLAS 0.3.21 takes Zen 4 and 5 for Haswell: 124 instead of 236 GFLOPS.
 */
#include "cli/process.h"

#include "tessera/base.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char restarted[] = "TESSERA_RESTARTED";

static const char *spin_count(char out[32])
{
    (void)out;
    return "10000";
}

static const char *wait_policy(char out[32])
{
    (void)out;
    return "passive";
}

static const char *thread_count(char out[32])
{
    snprintf(out, 32, "%d", tess_cpu_count());
    return out;
}

static const char *blas_core(char out[32])
{
    (void)out;
    bool unknown = strncmp(tess_cpu_model(), "AMD", 3) == 0 && tess_isa_get() >= TESS_ISA_AVX512;
    return unknown ? "SkylakeX" : NULL;
}

static const struct {
    const char *name;
    const char *(*value)(char out[32]); /* NULL: leave unset */
} variables[] = {
    {"OMP_WAIT_POLICY", wait_policy},
    {"GOMP_SPINCOUNT", spin_count},
    {"OMP_NUM_THREADS", thread_count},
    {"OPENBLAS_CORETYPE", blas_core},
};

void cli_process_prepare(char **argv)
{
    bool again = getenv(restarted) != NULL;
    int n_set = 0;
    (void)unsetenv(restarted);
    for (int64_t i = 0; i < TESS_COUNT(variables) && !again; i++) {
        char text[32];
        const char *value = getenv(variables[i].name) == NULL ? variables[i].value(text) : NULL;
        n_set += value != NULL && setenv(variables[i].name, value, 0) == 0;
    }
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n_set > 0 && n > 0 && setenv(restarted, "1", 1) == 0) {
        self[n] = '\0';
        (void)execv(self, argv);
        (void)unsetenv(restarted);
    }
}

static void on_signal(int number)
{
    (void)number;
    if (tess_cancelled) {
        _exit(130);
    }
    tess_cancelled = 1;
}

void cli_process_catch_signals(void)
{
    struct sigaction catch = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&catch.sa_mask);
    (void)sigaction(SIGINT, &catch, NULL);
    (void)sigaction(SIGTERM, &catch, NULL);
    (void)sigaction(SIGPIPE, &ignore, NULL);
}
