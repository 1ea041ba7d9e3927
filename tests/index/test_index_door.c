/* SPDX-License-Identifier: Apache-2.0 */
/* TESSERA_FAISS_C: a library that cannot be used is an error that names it, never a silent return
 * to the one built in.  The choice is made once in a process, so each case is a child. */
#include "index/index_fixture.h"

#include <sys/wait.h>

#include "index/faiss.h"

/* 0: usable; 1: refused with `part` in the message; 2: refused with another message. */
static int outcome(const char *library, const char *part)
{
    pid_t child = fork();
    if (child == 0) {
        setenv("TESSERA_FAISS_C", library, 1);
        const tess__faiss_api *api = NULL;
        tess_status st = tess__faiss_get(&api);
        _exit(st == TESS_OK ? 0 : st == TESS_UNSUPPORTED && strstr(tess_error(), part) ? 1 : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_named_libraries(void **state)
{
    (void)state;
    assert_int_equal(outcome("", ""), 0);
    assert_int_equal(outcome("/nonexistent/libfaiss_c.so", "/nonexistent/libfaiss_c.so"), 1);
    assert_int_equal(outcome("Makefile", "Makefile"), 1);
    assert_int_equal(outcome("libm.so.6", "libm.so.6 has no faiss_index_factory"), 1);
}

static void test_bad_library_fails_the_open(void **state)
{
    (void)state;
    char *dir = temp_dir();
    char *path = tess_format("%s/ix", dir);
    float *x = random_vectors(3, 4, 1);
    setenv("TESSERA_FAISS_C", "/nonexistent/libfaiss_c.so", 1);
    assert_refused(build_index(path, x, 3, 4, "Flat", false), TESS_UNSUPPORTED, "TESSERA_FAISS_C");
    assert_string_equal(tess__faiss_origin(), "none");
    assert_false(tess_path_exists(path));
    tess_free(x);
    tess_free(path);
    remove_temp(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_named_libraries),
        cmocka_unit_test(test_bad_library_fails_the_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
