/* SPDX-License-Identifier: Apache-2.0 */
/* Environment and signals of the process.
 *
 * libgomp reads its variables in its constructor, before main, so the only way to set them for
 * ourselves is to start over.  Loading the libraries a second time costs about 5 ms, which is why
 * only verbs that compute ask for it.  What the user has set is left alone.
 *
 *   OMP_WAIT_POLICY  a thread that spins at the end of a parallel region takes its core from the
 *   GOMP_SPINCOUNT   loader's threads and from other processes: 326 ms instead of 21 ms for one
 *                    batch of FAISS searches beside one busy core.  A short spin stays, since the
 *                    regions of a model follow each other within microseconds.
 *   OMP_NUM_THREADS  cores by affinity and control group; libgomp knows only the first, and
 *                    OpenBLAS neither.
 *
 * OPENBLAS_CORETYPE is not among them: OpenBLAS 0.3.21 takes its Cooper Lake kernels on Zen 5 by
 * itself, and those of SkylakeX and Haswell were within 8 % of them.
 */
#include "cli/process.h"

#include "tessera/base.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char restarted[] = "TESSERA_RESTARTED";

static const char *thread_count(char out[16])
{
    snprintf(out, 16, "%d", tess_cpu_count());
    return out;
}

void cli_process_prepare(char **argv)
{
    char threads[16];
    const struct {
        const char *name, *value;
    } variables[] = {
        {"OMP_WAIT_POLICY", "passive"},
        {"GOMP_SPINCOUNT", "10000"},
        {"OMP_NUM_THREADS", thread_count(threads)},
    };
    bool again = getenv(restarted) != NULL;
    int n_set = 0;
    (void)unsetenv(restarted);
    for (int64_t i = 0; i < TESS_COUNT(variables) && !again; i++) {
        bool unset = getenv(variables[i].name) == NULL;
        n_set += unset && setenv(variables[i].name, variables[i].value, 0) == 0;
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
    (void)sigaction(SIGXFSZ, &ignore, NULL); /* a limit on file sizes: write says EFBIG */
}
