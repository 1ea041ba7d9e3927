/* SPDX-License-Identifier: Apache-2.0 */
/* Signals, and starting over with the variables that libraries read as they are loaded. */
#include "cli/process.h"

#include "tessera/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const char *program;

/* Exit status of a child that catches signals and gets `n` of them. */
static int status_after(int n, int number)
{
    pid_t child = fork();
    if (child == 0) {
        cli_process_catch_signals();
        for (int i = 0; i < n; i++) {
            raise(number);
        }
        _exit(tess_cancelled ? 7 : 8);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void first_signal_cancels(void **state)
{
    (void)state;
    assert_int_equal(status_after(0, SIGINT), 8);
    assert_int_equal(status_after(1, SIGINT), 7);
    assert_int_equal(status_after(1, SIGTERM), 7);
    assert_int_equal(status_after(1, SIGPIPE), 8);
}

static void second_signal_ends(void **state)
{
    (void)state;
    assert_int_equal(status_after(2, SIGINT), 130);
    assert_int_equal(status_after(2, SIGTERM), 130);
}

/* What the child prints after cli_process_prepare, with `env` before the command. */
static const char *prepared(const char *env)
{
    static char out[256];
    char command[1024];
    snprintf(command, sizeof(command),
             "env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT -u OMP_NUM_THREADS %s '%s' child 'a b'", env,
             program);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t n = fread(out, 1, sizeof(out) - 1, pipe);
    out[n] = '\0';
    assert_int_equal(pclose(pipe), 0);
    return out;
}

static void starts_over_once(void **state)
{
    (void)state;
    char expected[64];
    snprintf(expected, sizeof(expected), "passive 10000 %d none a b\n", tess_cpu_count());
    assert_string_equal(prepared(""), expected);
    assert_string_equal(prepared("OMP_WAIT_POLICY=active GOMP_SPINCOUNT=1 OMP_NUM_THREADS=3"),
                        "active 1 3 none a b\n");
    assert_string_equal(prepared("TESSERA_RESTARTED=1"), "none none none none a b\n");
}

static const char *shown(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "none";
}

static int child(char **argv)
{
    cli_process_prepare(argv);
    printf("%s %s %s %s %s\n", shown("OMP_WAIT_POLICY"), shown("GOMP_SPINCOUNT"),
           shown("OMP_NUM_THREADS"), shown("TESSERA_RESTARTED"), argv[2]);
    return 0;
}

int main(int argc, char **argv)
{
    program = argv[0];
    if (argc == 3 && strcmp(argv[1], "child") == 0) {
        return child(argv);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_signal_cancels),
        cmocka_unit_test(second_signal_ends),
        cmocka_unit_test(starts_over_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
