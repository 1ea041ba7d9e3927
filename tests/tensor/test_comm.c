/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives between processes that mpirun starts: values, and jobs that must end by themselves
 * because ranks differ, stop or die.  The program is its own ranks: test_comm SCENARIO. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tessera/tensor.h"

enum { LIMIT = 1 }; /* seconds of a wait, where one is to pass */

/* ---- as a rank ----------------------------------------------------------------------------- */

#define NEED(expr)                                                                                 \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            printf("rank %d: not so: %s (%s)\n", tess_comm_rank(c), #expr, tess_error());          \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

/* What rank r has at i: sums of such numbers in f32 depend on their order. */
static float number(int r, int64_t i)
{
    const uint64_t hash = tess_hash64(&i, sizeof i, (uint64_t)r);
    return ldexpf((float)(hash % 2000) - 1000.0f, (int)(hash >> 32) % 20);
}

/* Element i of the sum: from rank 0 on, in f32, rounded once. */
static float sum_at(int size, tess_dtype dtype, int64_t i)
{
    float sum = 0;
    for (int r = 0; r < size; r++) {
        const float x = number(r, i);
        sum += dtype == TESS_BF16 ? tess_f32_from_bf16(tess_bf16_from_f32(x)) : x;
    }
    return dtype == TESS_BF16 ? tess_f32_from_bf16(tess_bf16_from_f32(sum)) : sum;
}

static float get(const void *x, tess_dtype dtype, int64_t i)
{
    return dtype == TESS_BF16 ? tess_f32_from_bf16(((const uint16_t *)x)[i])
                              : ((const float *)x)[i];
}

static void fill(void *x, tess_dtype dtype, int rank, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (dtype == TESS_BF16) {
            ((uint16_t *)x)[i] = tess_bf16_from_f32(number(rank, i));
        } else {
            ((float *)x)[i] = number(rank, i);
        }
    }
}

/* Uneven parts, of which one is empty, and the last takes several rounds; once beside x and once in
 * its place. */
static int check_sums_of(tess_comm *c, tess_dtype dtype, int64_t n, void *x, void *mine)
{
    const int rank = tess_comm_rank(c), size = tess_comm_size(c);
    const int64_t width = (int64_t)tess_dtype_bytes(dtype), before = tess_comm_wire_bytes(c);
    int64_t counts[8] = {0}, left = n, begin = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = r == size - 1 ? left : r == 1 ? 0 : 100 + r;
        begin += r < rank ? counts[r] : 0;
        left -= counts[r];
    }
    fill(x, dtype, rank, n);
    NEED(tess_comm_reduce_scatter(c, x, dtype, counts, mine) == TESS_OK);
    void *place = (char *)x + begin * width;
    NEED(tess_comm_reduce_scatter(c, x, dtype, counts, place) == TESS_OK);
    NEED(memcmp(mine, place, (size_t)(counts[rank] * width)) == 0);
    for (int64_t i = 0; i < counts[rank]; i++) {
        NEED(get(mine, dtype, i) == sum_at(size, dtype, begin + i));
    }
    for (int64_t i = 0; i < begin; i++) {
        NEED(dtype == TESS_BF16 || get(x, dtype, i) == number(rank, i));
    }
    fill(x, dtype, rank, n);
    NEED(tess_comm_all_reduce(c, x, dtype, n) == TESS_OK);
    for (int64_t i = 0; i < n; i++) {
        NEED(get(x, dtype, i) == sum_at(size, dtype, i));
    }
    const int64_t all = n * width, part = counts[rank] * width;
    NEED(tess_comm_wire_bytes(c) - before ==
         (size > 1 ? 2 * (all - part) + 2 * all * (size - 1) / size : 0));
    return 0;
}

static int check_sums(tess_comm *c)
{
    enum { N = 1300003 };
    float *x = tess_alloc_array(N, sizeof *x), *mine = tess_alloc_array(N, sizeof *mine);
    const int failed = !x || !mine || check_sums_of(c, TESS_F32, N, x, mine) ||
                       check_sums_of(c, TESS_BF16, N, x, mine) ||
                       check_sums_of(c, TESS_F32, 500, x, mine);
    tess_free(x);
    tess_free(mine);
    NEED(tess_comm_all_reduce(c, &(int32_t){1}, TESS_I32, 1) == TESS_INVALID);
    return failed;
}

static int check_bytes(tess_comm *c)
{
    const int rank = tess_comm_rank(c), size = tess_comm_size(c);
    char mine[8], all[64] = "", want[64] = "", said[16] = "";
    int64_t n_bytes[8];
    for (int r = 0; r < size; r++) {
        n_bytes[r] = r % 3;
        memset(want + strlen(want), 'a' + r, (size_t)(r % 3));
    }
    memset(mine, 'a' + rank, sizeof mine);
    NEED(tess_comm_all_gather(c, mine, n_bytes, all) == TESS_OK);
    NEED(strcmp(all, want) == 0);
    snprintf(said, sizeof said, rank == size - 1 ? "from the last" : "");
    NEED(tess_comm_broadcast(c, said, sizeof said, size - 1) == TESS_OK);
    NEED(strcmp(said, "from the last") == 0);
    NEED(tess_comm_agree(c, "settings", 42) == TESS_OK);
    NEED(tess_comm_barrier(c) == TESS_OK);
    return 0;
}

static int values(tess_comm *c)
{
    const int failed = check_sums(c) || check_bytes(c);
    if (!failed) {
        printf("rank %d of %d: ok\n", tess_comm_rank(c), tess_comm_size(c));
    }
    return failed;
}

/* Rank 1 brings one number more. */
static int differ(tess_comm *c)
{
    float x[8] = {0};
    return tess_comm_all_reduce(c, x, TESS_F32, 4 + (tess_comm_rank(c) == 1)) != TESS_OK;
}

static int other_call(tess_comm *c)
{
    float x[8] = {0};
    return (tess_comm_rank(c) == 2 ? tess_comm_barrier(c)
                                   : tess_comm_all_reduce(c, x, TESS_F32, 4)) != TESS_OK;
}

static int other_settings(tess_comm *c)
{
    return tess_comm_agree(c, "settings", tess_comm_rank(c) == 1 ? 2 : 1) != TESS_OK;
}

static int raise_at(tess_comm *c, int rank, int signal)
{
    float x[8] = {0};
    if (tess_comm_all_reduce(c, x, TESS_F32, 8) != TESS_OK) {
        return 1;
    }
    if (tess_comm_rank(c) == rank) {
        raise(signal);
    }
    return tess_comm_all_reduce(c, x, TESS_F32, 8) != TESS_OK;
}

static int stop_one(tess_comm *c)
{
    return raise_at(c, 1, SIGSTOP);
}

static int stop_root(tess_comm *c)
{
    return raise_at(c, 0, SIGSTOP);
}

static int kill_one(tess_comm *c)
{
    return raise_at(c, 2, SIGKILL);
}

/* Somewhere within or between many large sums. */
static int stop_within(tess_comm *c)
{
    enum { N = 1 << 22 };
    float *x = tess_alloc_array(N, sizeof *x);
    const pid_t self = getpid();
    if (tess_comm_rank(c) == 1 && fork() == 0) {
        usleep(300000);
        kill(self, SIGSTOP);
        _exit(0);
    }
    tess_status st = x ? TESS_OK : TESS_NOMEM;
    while (st == TESS_OK) {
        st = tess_comm_all_reduce(c, x, TESS_F32, N);
    }
    tess_free(x);
    return 1;
}

static int sleep_long(tess_comm *c)
{
    printf("process %d\n", (int)getpid());
    fflush(stdout);
    sleep(60);
    return tess_comm_barrier(c) != TESS_OK;
}

/* What a rank that goes astray does with a collective: another kind, one number more, one byte less
 * in its own part, another root, nothing at all. */
enum { STRAY_KIND, STRAY_COUNT, STRAY_SHORT, STRAY_ROOT, STRAY_LEAVES_OUT, STRAY_NOT };

/* A collective that chance decides, which all ranks draw alike; at the fault its kind is the one
 * that can go wrong so. */
static tess_status any_call(tess_comm *c, tess_rng *rng, int way, bool astray)
{
    enum { MOST = 300, KINDS = 5 };
    static const int kinds[] = {[STRAY_COUNT] = 2, [STRAY_SHORT] = 3, [STRAY_ROOT] = 1};
    float from[8 * MOST] = {0}, to[8 * MOST] = {0};
    int64_t counts[8] = {0}, n = 1 + tess_rng_below(rng, MOST - 2);
    const int size = tess_comm_size(c);
    int kind = (int)tess_rng_below(rng, KINDS), root = (int)tess_rng_below(rng, (uint32_t)size);
    kind = way >= STRAY_COUNT && way <= STRAY_ROOT ? kinds[way] : kind;
    for (int r = 0; r < size; r++) {
        counts[r] = 1 + tess_rng_below(rng, MOST - 1);
    }
    if (astray) {
        kind = way == STRAY_LEAVES_OUT ? KINDS : (kind + (way == STRAY_KIND)) % KINDS;
        n += way == STRAY_COUNT;
        root = (root + (way == STRAY_ROOT)) % size;
        counts[tess_comm_rank(c)] -= way == STRAY_SHORT;
    }
    switch (kind) {
    case 0:
        return tess_comm_barrier(c);
    case 1:
        return tess_comm_broadcast(c, from, (size_t)n, root);
    case 2:
        return tess_comm_all_reduce(c, from, TESS_F32, n);
    case 3:
        return tess_comm_all_gather(c, from, counts, to);
    case 4:
        return tess_comm_reduce_scatter(c, from, TESS_F32, counts, to);
    default:
        return TESS_OK;
    }
}

/* TESS_STRAY: "seed way": some collectives, one of which a rank gets wrong, and some more. */
static int stray(tess_comm *c)
{
    const char *text = getenv("TESS_STRAY");
    char *end = NULL;
    const uint64_t seed = text ? strtoull(text, &end, 10) : 0;
    const int way = text ? (int)strtol(end, NULL, 10) : 0;
    tess_rng rng = tess_rng_at(seed, 1);
    const int n_calls = 2 + (int)tess_rng_below(&rng, 20);
    const int at = (int)tess_rng_below(&rng, (uint32_t)n_calls);
    const int who = (int)tess_rng_below(&rng, (uint32_t)tess_comm_size(c));
    tess_status st = TESS_OK;
    for (int i = 0; st == TESS_OK && i < n_calls; i++) {
        tess_rng call = tess_rng_at(seed, 100 + (uint64_t)i);
        st = any_call(c, &call, i == at ? way : STRAY_NOT, i == at && tess_comm_rank(c) == who);
    }
    st = st ? st : tess_comm_agree(c, "the end", 1);
    return st != TESS_OK;
}

static const struct {
    const char *name;
    int (*run)(tess_comm *c);
} scenarios[] = {{"values", values},           {"differ", differ},
                 {"other_call", other_call},   {"other_settings", other_settings},
                 {"stop_one", stop_one},       {"stop_root", stop_root},
                 {"stop_within", stop_within}, {"kill_one", kill_one},
                 {"sleep", sleep_long},        {"stray", stray}};

static int run_rank(const char *name)
{
    tess_comm *c = NULL;
    const double seconds = strncmp(name, "stop", 4) == 0 ? LIMIT : 60;
    if (tess_comm_open(&(tess_comm_options){.seconds = seconds}, &c) != TESS_OK) {
        printf("open: %s\n", tess_error());
        return 3;
    }
    for (int64_t i = 0; i < TESS_COUNT(scenarios); i++) {
        if (strcmp(name, scenarios[i].name) == 0 && scenarios[i].run(c)) {
            printf("rank %d says: %s\n", tess_comm_rank(c), tess_error());
            fflush(stdout);
            tess_comm_abort(c, 5);
        }
    }
    tess_comm_close(c);
    return 0;
}

/* ---- as the test --------------------------------------------------------------------------- */

typedef struct outcome {
    char said[16384];
    int status;
    double seconds;
} outcome;

static void launch(int n, const char *scenario, outcome *out)
{
    char command[1024], self[512] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(command, sizeof command,
             "exec timeout -s KILL 60 mpirun --oversubscribe -n %d '%s' %s 2>&1", n, self,
             scenario);
    const double begin = tess_seconds();
    FILE *f = popen(command, "r");
    assert_non_null(f);
    const size_t got = fread(out->said, 1, sizeof out->said - 1, f);
    out->said[got] = '\0';
    out->status = pclose(f);
    out->seconds = tess_seconds() - begin;
}

static int count(const char *text, const char *what)
{
    int n = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what)) {
        n++;
    }
    return n;
}

#define SAYS(out, what, times)                                                                     \
    do {                                                                                           \
        if (count((out).said, what) < (times)) {                                                   \
            fail_msg("\"%s\" is not said %d times in:\n%s", what, times, (out).said);              \
        }                                                                                          \
    } while (0)

static void test_values(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 4};
    for (int64_t i = 0; i < TESS_COUNT(sizes); i++) {
        outcome out;
        launch(sizes[i], "values", &out);
        SAYS(out, ": ok\n", sizes[i]);
        assert_int_equal(out.status, 0);
    }
}

/* Alone, without a launcher. */
static void test_alone(void **state)
{
    (void)state;
    tess_comm *c = NULL;
    assert_int_equal(tess_comm_open(NULL, &c), TESS_OK);
    assert_int_equal(tess_comm_size(c), 1);
    assert_int_equal(values(c), 0);
    tess_comm_abort(c, 1);
    tess_comm_close(c);
}

/* A launcher that MPI does not know: each process would train by itself. */
static void test_other_launcher(void **state)
{
    (void)state;
    char said[1024] = "";
    FILE *f = popen("WORLD_SIZE=2 RANK=0 exec timeout 60 /proc/$PPID/exe values 2>&1", "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = '\0';
    assert_int_not_equal(pclose(f), 0);
    assert_non_null(strstr(said, "2 processes were started, and MPI sees 1"));
}

static void test_differences(void **state)
{
    (void)state;
    outcome out;
    launch(3, "differ", &out);
    SAYS(out, "ranks disagree: rank 0 (", 1);
    SAYS(out, "all_reduce of 4 f32 (#2); rank 1 (", 1);
    SAYS(out, "all_reduce of 5 f32 (#2)", 1);
    assert_int_not_equal(out.status, 0);
    launch(3, "other_call", &out);
    SAYS(out, "; rank 2 (", 1);
    SAYS(out, ": barrier (#2)", 1);
    assert_int_not_equal(out.status, 0);
    launch(2, "other_settings", &out);
    SAYS(out, ": settings 0000000000000001; rank 1 (", 1);
    assert_int_not_equal(out.status, 0);
}

static void test_stopped(void **state)
{
    (void)state;
    outcome out;
    launch(3, "stop_one", &out);
    SAYS(out, "all_reduce of 8 f32 (#3): rank 1 (", 1);
    SAYS(out, "did not come within 1 s", 1);
    SAYS(out, "is stopped", 1);
    assert_int_not_equal(out.status, 0);
    assert_true(out.seconds < 15);
    launch(3, "stop_root", &out);
    SAYS(out, "all_reduce of 8 f32 (#3): rank 0 (", 1);
    assert_int_not_equal(out.status, 0);
    assert_true(out.seconds < 15);
    launch(2, "stop_within", &out);
    SAYS(out, "rank 0 says: all_reduce of 4194304 f32", 1);
    SAYS(out, "rank 1 (", 1);
    SAYS(out, "is stopped", 1);
    assert_int_not_equal(out.status, 0);
    assert_true(out.seconds < 15);
}

/* Whatever a rank gets wrong, and wherever among other collectives. */
static void test_stray(void **state)
{
    (void)state;
    char text[32];
    for (int way = STRAY_KIND; way < STRAY_NOT; way++) {
        outcome out;
        snprintf(text, sizeof text, "%d %d", 7 + way, way);
        assert_int_equal(setenv("TESS_STRAY", text, 1), 0);
        launch(3, "stray", &out);
        SAYS(out, "ranks disagree: rank 0 (", 1);
        SAYS(out, "; rank ", 1);
        assert_int_not_equal(out.status, 0);
    }
}

static void test_killed(void **state)
{
    (void)state;
    outcome out;
    launch(4, "kill_one", &out);
    assert_int_not_equal(out.status, 0);
    assert_true(out.seconds < 15);
}

/* A launcher that is killed leaves no rank behind. */
static void test_no_orphans(void **state)
{
    (void)state;
    char self[512] = "", line[128];
    int ends[2], pids[2] = {0}, n = 0;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    assert_int_equal(pipe(ends), 0);
    const pid_t launcher = fork();
    if (launcher == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        execlp("mpirun", "mpirun", "--oversubscribe", "-n", "2", self, "sleep", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *f = fdopen(ends[0], "r");
    while (n < 2 && fgets(line, sizeof line, f)) {
        n += sscanf(line, "process %d", &pids[n]) == 1;
    }
    assert_int_equal(n, 2);
    kill(launcher, SIGKILL);
    waitpid(launcher, NULL, 0);
    for (int i = 0; i < 100 && (kill(pids[0], 0) == 0 || kill(pids[1], 0) == 0); i++) {
        usleep(50000);
    }
    fclose(f);
    assert_int_not_equal(kill(pids[0], 0), 0);
    assert_int_not_equal(kill(pids[1], 0), 0);
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        return run_rank(argv[1]);
    }
    /* Ranks share cores here, and may run as root, where there is no ssh. */
    setenv("OMPI_MCA_plm", "isolated", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    /* MPI keeps what it allocated until the process ends. */
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),   cmocka_unit_test(test_other_launcher),
        cmocka_unit_test(test_values),  cmocka_unit_test(test_differences),
        cmocka_unit_test(test_stopped), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_stray),   cmocka_unit_test(test_no_orphans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
