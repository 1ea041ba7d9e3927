/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor reads, from files laid out here. */
#include "cli/doctor.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[256];

static int make_dir(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/tessera_doctor_XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(dir) == NULL;
}

static int remove_dir(void **state)
{
    (void)state;
    return tess_dir_remove(dir) != TESS_OK;
}

static const char *put(const char *name, const char *text)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    *strrchr(path, '/') = '\0';
    assert_int_equal(tess_dir_make(path), TESS_OK);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(tess_file_write(path, text, strlen(text)), TESS_OK);
    return path;
}

static void reads_features(void **state)
{
    (void)state;
    static const struct {
        const char *cpuinfo, *expected;
    } cases[] = {
        {"processor\t: 0\nflags\t\t: fpu avx2 avx512f avx2x fma\nflags\t\t: fma\n",
         "[\"avx2\",\"avx512f\",\"fma\"]"},
        {"Features\t: fp asimd sve\n", "[\"asimd\",\"sve\"]"},
        {"flags\t\t:", "[]"},
        {"", "[]"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_buf out = {0};
        tess_json_writer w = {.buf = &out};
        tess_json_begin_array(&w);
        cli_doctor_features(&w, put("cpuinfo", cases[i].cpuinfo));
        tess_json_end_array(&w);
        assert_string_equal(out.data, cases[i].expected);
        tess_buf_deinit(&out);
    }
}

static void reads_memory(void **state)
{
    (void)state;
    const char *path = put("meminfo", "MemTotal:       1024 kB\nMemAvailable:    512 kB\n");
    assert_int_equal(cli_doctor_meminfo(path, "MemTotal"), 1 << 20);
    assert_int_equal(cli_doctor_meminfo(path, "MemAvailable"), 1 << 19);
    assert_int_equal(cli_doctor_meminfo(path, "Mem"), 0);
    assert_int_equal(cli_doctor_meminfo("/nonexistent", "MemTotal"), 0);
}

static void finds_the_least_limit(void **state)
{
    (void)state;
    char membership[512];
    snprintf(membership, sizeof(membership), "%s/cgroup", dir);
    put("cgroup", "0::/a/b\n");
    assert_int_equal(cli_doctor_memory_limit(membership, dir), 0);
    put("a/b/memory.max", "max\n");
    assert_int_equal(cli_doctor_memory_limit(membership, dir), 0);
    put("a/memory.max", "4096\n");
    put("memory.max", "8192\n");
    assert_int_equal(cli_doctor_memory_limit(membership, dir), 4096);
    put("cgroup", "12:cpu:/x\n5:memory:/docker/1\n");
    put("memory/docker/1/memory.limit_in_bytes", "1000\n");
    put("memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(cli_doctor_memory_limit(membership, dir), 1000);
}

static void document_is_json(void **state)
{
    (void)state;
    tess_buf out = {0};
    tess_json_writer w = {.buf = &out};
    tess_json_doc *doc;
    tess_json_begin_object(&w);
    cli_doctor_libraries(&w);
    cli_doctor_gpu(&w);
    tess_json_end_object(&w);
    assert_int_equal(tess_json_parse(out.data, out.n_bytes, "doctor", &doc), TESS_OK);
    const tess_json *libraries = tess_json_get(tess_json_root(doc), "libraries");
    assert_non_null(tess_json_string(tess_json_get(libraries, "jansson"), NULL));
    assert_non_null(tess_json_string(tess_json_get(libraries, "libc"), NULL));
    assert_non_null(tess_json_get(tess_json_get(tess_json_root(doc), "gpu"), "device_files"));
    tess_json_free(doc);
    tess_buf_deinit(&out);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(reads_features),
        TEST(reads_memory),
        TEST(finds_the_least_limit),
        TEST(document_is_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
