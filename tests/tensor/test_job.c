/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that were started one by one, with torchrun's variables: they come together, strangers
 * at the port do not keep them apart, and whoever is missing, dies or was started otherwise is
 * named. The program is its own ranks: test_job SCENARIO. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tensor/job.h"
#include "tessera/tensor.h"

/* ---- as a rank ----------------------------------------------------------------------------- */

static void print_line(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx, (void)level;
    fprintf(stderr, "%s\n", line);
}

static int run_rank(const char *name)
{
    tess_comm *c = NULL;
    float x = 1;
    tess_log_set_sink(print_line, NULL, TESS_LOG_WARN);
    if (tess_comm_open(&(tess_comm_options){.seconds = atof(name) > 0 ? atof(name) : 30}, &c)) {
        printf("open: %s\n", tess_error());
        return 3;
    }
    const int rank = tess_comm_rank(c);
    if (strcmp(name, "kill") == 0 && rank == 2) {
        raise(SIGKILL);
    }
    if (strcmp(name, "leave") == 0 && rank == 1) {
        return 4;
    }
    if (tess_comm_all_reduce(c, &x, TESS_F32, 1) != TESS_OK || x != (float)tess_comm_size(c)) {
        printf("rank %d: %g, %s\n", rank, (double)x, tess_error());
        return 1;
    }
    printf("rank %d of %d: ok\n", rank, tess_comm_size(c));
    fflush(stdout);
    if (strcmp(name, "abort") == 0) {
        rank == 1 ? tess_comm_abort(c, 7) : (void)sleep(30);
    }
    tess_comm_close(c);
    return 0;
}

/* ---- as the test --------------------------------------------------------------------------- */

typedef struct outcome {
    char said[8192];
    double seconds;
    int n_good; /* processes that ended with 0 */
} outcome;

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

/* Each rank `i` with settings[i], or settings[0], before its command. */
static void launch(int n, int port, const char *scenario, const char *const *settings, outcome *out)
{
    char self[512] = "";
    tess_buf command = {0};
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    tess_buf_addf(&command, "export WORLD_SIZE=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d\n", n, port);
    for (int i = 0; i < n; i++) {
        tess_buf_addf(&command,
                      "(RANK=%d %s timeout -s KILL 40 '%s' %s && echo a good end) 2>&1 &\n", i,
                      settings && settings[i] ? settings[i] : "", self, scenario);
    }
    tess_buf_adds(&command, "wait");
    assert_int_equal(tess_buf_check(&command), TESS_OK);
    *out = (outcome){0};
    const double begin = tess_seconds();
    FILE *f = popen(command.data, "r");
    assert_non_null(f);
    out->said[fread(out->said, 1, sizeof out->said - 1, f)] = '\0';
    pclose(f);
    out->seconds = tess_seconds() - begin;
    for (const char *at = out->said; (at = strstr(at, "a good end")); at++) {
        out->n_good++;
    }
    tess_buf_deinit(&command);
}

static void says(const outcome *out, const char *what)
{
    if (!strstr(out->said, what)) {
        fail_msg("\"%s\" is not said in:\n%s", what, out->said);
    }
}

static void test_together(void **state)
{
    (void)state;
    for (int n = 2; n <= 4; n += 2) {
        outcome out;
        launch(n, free_port(), "sum", NULL, &out);
        says(&out, n == 2 ? "rank 1 of 2: ok" : "rank 3 of 4: ok");
        assert_int_equal(out.n_good, n);
    }
}

/* A rank that dies, leaves or aborts takes the others along, by name. */
static void test_ends(void **state)
{
    (void)state;
    outcome out;
    launch(4, free_port(), "kill", NULL, &out);
    says(&out, "rank 2 (");
    says(&out, " ended before the job did");
    assert_int_equal(out.n_good, 0);
    assert_true(out.seconds < 12);
    launch(3, free_port(), "leave", NULL, &out);
    says(&out, "rank 1 (");
    assert_int_equal(out.n_good, 0);
    launch(3, free_port(), "abort", NULL, &out);
    says(&out, "rank 1 ended the job with code 7");
    assert_int_equal(out.n_good, 0);
    assert_true(out.seconds < 12);
}

static void test_misfits(void **state)
{
    (void)state;
    outcome out;
    launch(3, free_port(), "0.5", (const char *[]){"", "", "RANK=1"}, &out);
    says(&out, "is one too many: there is rank 1 (");
    assert_int_equal(out.n_good, 0);
    launch(2, free_port(), "0.5", (const char *[]){"", "WORLD_SIZE=3"}, &out);
    says(&out, "has WORLD_SIZE 3, and rank 0 has 2");
    launch(3, free_port(), "0.5", (const char *[]){"", "WORLD_SIZE=1", ""}, &out);
    says(&out, "rank 1 did not come to 127.0.0.1:");
    says(&out, "within 0.5 s (2 of 3 came)");
    launch(2, free_port(), "0.5", (const char *[]){"", "TESSERA_JOB_KEY=other"}, &out);
    says(&out, "TESSERA_JOB_KEY");
    assert_int_equal(out.n_good, 0);
    launch(2, free_port(), "0.5", (const char *[]){"RANK=1", ""}, &out);
    says(&out, "rank 0 did not answer at 127.0.0.1:");
    launch(2, free_port(), "0.5", (const char *[]){"RANK=x", "RANK=2"}, &out);
    says(&out, "RANK: expected a number of 0 to 1, found 'x'");
    says(&out, "RANK: expected a number of 0 to 1, found '2'");
}

/* Whoever connects first, and again: says nothing, rubbish, half a frame, or a hello of a
 * stranger's key with a length that nobody could hold. */
static void bother(int port)
{
    const uint32_t huge[6] = {0x5e55e7a1, 0x3142a7e5, 0, 0xfffffff0};
    char bytes[4096];
    memset(bytes, 'x', sizeof bytes);
    for (int i = 0;; i++) {
        const struct sockaddr_in a = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)port),
                                      .sin_addr = {htonl(INADDR_LOOPBACK)}};
        const int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (const struct sockaddr *)&a, sizeof a) == 0) {
            memcpy(bytes + 16, huge, sizeof huge);
            const size_t n[] = {0, sizeof bytes, 17, 16 + sizeof huge, 16};
            (void)!send(fd, bytes, n[i % 5], MSG_NOSIGNAL);
        } else {
            close(fd);
            usleep(1000);
        }
    }
}

static void test_strangers(void **state)
{
    (void)state;
    outcome out;
    const int port = free_port();
    const pid_t stranger = fork();
    if (stranger == 0) {
        alarm(40);
        bother(port);
    }
    launch(2, port, "sum", (const char *[]){"sleep 0.1; RANK=0", "sleep 1; RANK=1"}, &out);
    kill(stranger, SIGKILL);
    waitpid(stranger, NULL, 0);
    says(&out, "rank 0 of 2: ok");
    assert_int_equal(out.n_good, 2);
}

/* The reference vector of SipHash-2-4's authors: key 00..0f, message 00..0e. */
static void test_siphash(void **state)
{
    (void)state;
    uint8_t bytes[16];
    uint64_t key[2];
    for (uint8_t i = 0; i < 16; i++) {
        bytes[i] = i;
    }
    memcpy(key, bytes, sizeof key);
    assert_true(tess__siphash(key, bytes, 15) == 0xa129ca6149be45e5ull);
}

/* Frames over a pair of sockets: whole, in pieces, changed, repeated. */
static void test_frames(void **state)
{
    (void)state;
    int ends[2], kind;
    size_t n_bytes;
    const char *data;
    const uint64_t key[2] = {1, 2};
    tess_job_wire hub, rank;
    const double soon = tess_seconds() + 5;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(tess__job_open(&hub, ends[0], key, true), TESS_OK);
    assert_int_equal(tess__job_open(&rank, ends[1], key, false), TESS_OK);
    assert_int_equal(tess__job_greet(&hub, soon), TESS_OK);
    assert_int_equal(tess__job_greet(&rank, soon), TESS_OK);
    assert_int_equal(tess__job_send(&rank, TESS_JOB_PIECE, "abc", 3, soon), TESS_OK);
    assert_int_equal(tess__job_send(&rank, TESS_JOB_BYE, "", 0, soon), TESS_OK);
    assert_int_equal(tess__job_read(&hub, &kind, &data, &n_bytes), TESS_OK);
    assert_int_equal(kind, TESS_JOB_PIECE);
    assert_memory_equal(data, "abc", 4);
    assert_int_equal(tess__job_read(&hub, &kind, &data, &n_bytes), TESS_OK);
    assert_int_equal(kind, TESS_JOB_BYE);
    assert_int_equal(tess__job_read(&hub, &kind, &data, &n_bytes), TESS_OK);
    assert_int_equal(kind, -1);

    /* One byte after the other: a frame is there with its last.  Then the same bytes again. */
    char frame[64];
    assert_int_equal(tess__job_send(&hub, TESS_JOB_TABLE, "xyz", 3, soon), TESS_OK);
    const ssize_t n = recv(ends[1], frame, sizeof frame, 0);
    for (ssize_t i = 0; i < n; i++) {
        assert_int_equal(send(ends[0], frame + i, 1, 0), 1);
        assert_int_equal(tess__job_read(&rank, &kind, &data, &n_bytes), TESS_OK);
        assert_int_equal(kind, i + 1 < n ? -1 : TESS_JOB_TABLE);
    }
    assert_int_equal(send(ends[0], frame, (size_t)n, 0), n);
    assert_int_equal(tess__job_read(&rank, &kind, &data, &n_bytes), TESS_COMM);

    /* A changed byte. */
    assert_int_equal(tess__job_send(&rank, TESS_JOB_PIECE, "abc", 3, soon), TESS_OK);
    assert_int_equal(recv(ends[0], frame, sizeof frame, 0), n);
    frame[n - 1] ^= 1;
    assert_int_equal(send(ends[1], frame, (size_t)n, 0), n);
    assert_int_equal(tess__job_read(&hub, &kind, &data, &n_bytes), TESS_COMM);
    tess__job_close(&hub);
    tess__job_close(&rank);
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        return run_rank(argv[1]);
    }
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    /* MPI keeps what it allocated until the process ends. */
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash),  cmocka_unit_test(test_frames),
        cmocka_unit_test(test_together), cmocka_unit_test(test_ends),
        cmocka_unit_test(test_misfits),  cmocka_unit_test(test_strangers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
