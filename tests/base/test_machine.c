/* SPDX-License-Identifier: Apache-2.0 */
/* The processor, its share, and the clocks. */
#include <math.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/cpu_count.h"
#include "tessera/base.h"

static void test_isa_cap(void **state)
{
    (void)state;
    tess_isa best = tess_isa_get();
    for (int cap = 0; cap < TESS_ISA_COUNT; cap++) {
        tess_isa_cap((tess_isa)cap);
        assert_int_equal(tess_isa_get(), cap < (int)best ? cap : (int)best);
    }
    assert_string_equal(tess_isa_name(TESS_ISA_AVX512VNNI), "avx512vnni");
    assert_string_equal(tess_isa_name(TESS_ISA_AVX512BF16), "avx512bf16");
    assert_string_equal(tess_isa_name(TESS_ISA_COUNT), "unknown");
}

/* Linux prints a flag only when both processor and system offer it. */
static void test_isa_agrees_with_the_system(void **state)
{
    (void)state;
    static const struct {
        const char *flag;
        tess_isa isa;
    } flags[] = {{" avx2 ", TESS_ISA_AVX2},
                 {" avx512bw ", TESS_ISA_AVX512},
                 {" avx512_vnni ", TESS_ISA_AVX512VNNI},
                 {" avx512_bf16 ", TESS_ISA_AVX512BF16}};
    uint8_t *text = NULL;
    size_t n = 0;
    if (getenv("TESSERA_ISA") != NULL ||
        tess_file_read("/proc/cpuinfo", 64 << 20, &text, &n) != TESS_OK ||
        strstr((char *)text, "\nflags") == NULL) {
        tess_free(text);
        skip();
    }
    for (int64_t i = 0; i < TESS_COUNT(flags); i++) {
        bool listed = strstr((char *)text, flags[i].flag) != NULL;
        if (flags[i].isa == TESS_ISA_AVX512BF16 && strstr((char *)text, "GenuineIntel") != NULL) {
            listed = listed && strstr((char *)text, " amx_bf16 ") != NULL;
        }
        assert_int_equal(tess_isa_get() >= flags[i].isa, listed);
    }
    assert_non_null(strstr((char *)text, tess_cpu_model()));
    tess_free(text);
}

static int run_self(const char *setting)
{
    char program[512] = "", command[1024];
    assert_true(readlink("/proc/self/exe", program, sizeof program - 1) > 0);
    snprintf(command, sizeof command, "%s '%s' isa", setting, program);
    int rc = system(command);
    assert_true(WIFEXITED(rc));
    return WEXITSTATUS(rc);
}

static void test_isa_from_environment(void **state)
{
    (void)state;
    int best = run_self("TESSERA_ISA=");
    assert_int_equal(run_self("TESSERA_ISA=base"), TESS_ISA_BASE);
    assert_int_equal(run_self("TESSERA_ISA=avx2"), best < TESS_ISA_AVX2 ? best : TESS_ISA_AVX2);
    assert_int_equal(run_self("TESSERA_ISA=sse9"), best);
    /* Pairs of bf16 may be asked for where they are not the fastest. */
    assert_true(run_self("TESSERA_ISA=avx512bf16") >= best);
}

static char root[64];

static int make_root(void **state)
{
    (void)state;
    strcpy(root, P_tmpdir "/tessera-test-XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return tess_dir_remove(root) == TESS_OK ? 0 : -1;
}

/* Writes root/dir/name. */
static void lay(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, dir);
    assert_int_equal(tess_dir_make(path), TESS_OK);
    snprintf(path, sizeof path, "%s/%s/%s", root, dir, name);
    assert_int_equal(tess_file_write(path, text, strlen(text)), TESS_OK);
}

static double cpus_of(const char *membership)
{
    char path[256];
    lay(".", "membership", membership);
    snprintf(path, sizeof path, "%s/membership", root);
    return tess__cgroup_cpus(path, root);
}

static void test_quota_v2(void **state)
{
    (void)state;
    lay("a/b", "cpu.max", "max 100000\n");
    assert_true(cpus_of("0::/a/b\n") == 0);
    lay("a", "cpu.max", "250000 100000\n");
    assert_true(cpus_of("0::/a/b\n") == 2.5);
    lay("a/b", "cpu.max", "50000 100000\n");
    assert_true(cpus_of("0::/a/b\n") == 0.5);
    assert_true(cpus_of("0::/a\n") == 2.5);
    assert_true(cpus_of("0::/a/gone\n") == 2.5);
    lay(".", "cpu.max", "100000 100000\n");
    assert_true(cpus_of("0::/\n") == 1);
    lay(".", "cpu.max", "rubbish");
    assert_true(cpus_of("0::/\n") == 0);
}

static void test_quota_v1(void **state)
{
    (void)state;
    const char *membership = "5:memory:/x\n4:cpu,cpuacct:/job\n";
    lay("cpu,cpuacct/job", "cpu.cfs_quota_us", "-1\n");
    lay("cpu,cpuacct/job", "cpu.cfs_period_us", "100000\n");
    assert_true(cpus_of(membership) == 0);
    lay("cpu,cpuacct", "cpu.cfs_quota_us", "400000\n");
    lay("cpu,cpuacct", "cpu.cfs_period_us", "100000\n");
    assert_true(cpus_of(membership) == 4);
    assert_true(cpus_of("4:cpuset:/job\n") == 0);
    assert_true(cpus_of("") == 0);
    assert_true(cpus_of("no colon\n:\n::\n") == 0);
}

static void test_count_follows_affinity(void **state)
{
    (void)state;
    cpu_set_t before, one;
    assert_true(tess_cpu_count() >= 1);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++) {
        if (CPU_ISSET(i, &before)) {
            CPU_SET(i, &one);
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(tess_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static void test_clocks(void **state)
{
    (void)state;
    double a = tess_seconds();
    usleep(2000);
    double b = tess_seconds();
    assert_true(b - a >= 0.002 && b - a < 60);
    assert_true(tess_wall_seconds() > 1.6e9);
    assert_int_equal(tess_cancelled, 0);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "isa") == 0) {
        return (int)tess_isa_get();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isa_cap),
        cmocka_unit_test(test_isa_agrees_with_the_system),
        cmocka_unit_test(test_isa_from_environment),
        cmocka_unit_test_setup_teardown(test_quota_v2, make_root, remove_root),
        cmocka_unit_test_setup_teardown(test_quota_v1, make_root, remove_root),
        cmocka_unit_test(test_count_follows_affinity),
        cmocka_unit_test(test_clocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
