/* SPDX-License-Identifier: Apache-2.0 */
/* Sums between cards, without one: ranks that mpirun starts, a device whose memory is the host's,
 * and an NCCL in this program that hands what is sent through files.  It is as NCCL's documentation
 * has it: nothing begins outside a group, calls are in progress before they are done, an id that is
 * not rank 0's leads nowhere.  The program is its own ranks: test_nccl SCENARIO. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor/comm.h"

#if __has_include(<nccl.h>)
#include <nccl.h>

static const char *scenario = "";

static bool is(const char *name)
{
    return strcmp(scenario, name) == 0;
}

/* ---- a device of the host's memory ---------------------------------------------------------- */

static struct {
    int n_marks[TESS_N_LANES], n_follows[TESS_N_LANES];
    int rank;
} card;

static tess_status card_alloc(size_t n_bytes, void **out)
{
    *out = tess_alloc(n_bytes);
    return *out ? TESS_OK : TESS_NOMEM;
}

static void card_free(void *p)
{
    tess_free(p);
}

static tess_status card_copy(tess_lane lane, void *to, const void *from, size_t n_bytes)
{
    (void)lane;
    memcpy(to, from, n_bytes);
    return TESS_OK;
}

static tess_status card_event(void **out)
{
    *out = tess_alloc(1);
    return *out ? TESS_OK : TESS_NOMEM;
}

static tess_status card_mark(void *event, tess_lane lane)
{
    (void)event;
    card.n_marks[lane]++;
    return TESS_OK;
}

static tess_status card_follow(tess_lane lane, void *event)
{
    (void)event;
    card.n_follows[lane]++;
    return TESS_OK;
}

static tess_status card_reached(void *event, bool wait, bool *out)
{
    (void)event, (void)wait;
    *out = !is("stuck");
    return TESS_OK;
}

static void *card_lane(tess_lane lane)
{
    return lane == TESS_LANE_COMM ? (void *)&card : NULL;
}

static tess_status card_sum(tess_lane lane, float *sum, const float *x, int64_t n, int64_t width)
{
    (void)lane;
    for (int64_t i = 0; i < width; i++) {
        sum[i] = 0;
        for (int64_t r = 0; r < n; r++) {
            sum[i] += x[r * width + i];
        }
    }
    return TESS_OK;
}

static tess_status card_name(char *out, size_t n_bytes)
{
    snprintf(out, n_bytes, "card %d", is("share") ? 0 : card.rank);
    return TESS_OK;
}

static const tess_remote remote = {
    .alloc = card_alloc,
    .free = card_free,
    .copy = card_copy,
    .new_event = card_event,
    .free_event = card_free,
    .mark = card_mark,
    .follow = card_follow,
    .reached = card_reached,
    .lane = card_lane,
    .sum_rows = card_sum,
    .name_card = card_name,
};

/* ---- NCCL ------------------------------------------------------------------------------------ */

enum { MOST = 64 };

typedef struct message {
    void *data;
    size_t n_bytes;
    int peer;
    bool sends;
} message;

static struct {
    char id[128];
    int rank, n_groups, n_ready; /* polls until what was begun is done */
    bool in_group, aborted, finalized, destroyed;
    message queue[MOST];
    int n;
    int64_t n_sent[8], n_received[8];
} ring;

void *__real_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags)
{
    const bool ours = name && strcmp(name, "libnccl.so.2") == 0;
    return __real_dlopen(!ours ? name : is("missing") ? "libnccl.so.none" : NULL, flags);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    snprintf(id->internal, sizeof id->internal, "/dev/shm/tess_nccl.%d", (int)getpid());
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code)
{
    return code == ncclRemoteError ? "remote process exited or there was a network error" : "?";
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    (void)size;
    if (config->blocking != 0 || !id.internal[0]) {
        return ncclInvalidArgument;
    }
    snprintf(ring.id, sizeof ring.id, "%s", id.internal);
    ring.rank = rank;
    ring.n_ready = is("never") ? 1 << 30 : 3;
    *comm = (ncclComm_t)(void *)&ring;
    return ncclInProgress;
}

ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupStart(void)
{
    ring.in_group = true;
    return ncclSuccess;
}

static ncclResult_t add_message(void *data, size_t n, int peer, bool sends, cudaStream_t lane)
{
    if (!ring.in_group || ring.n == MOST || lane != (cudaStream_t)(void *)&card) {
        return ncclInvalidUsage;
    }
    ring.queue[ring.n++] = (message){data, n * sizeof(float), peer, sends};
    return ncclSuccess;
}

ncclResult_t ncclSend(const void *data, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t lane)
{
    (void)comm;
    return type == ncclFloat ? add_message((void *)(uintptr_t)data, n, peer, true, lane)
                             : ncclInvalidArgument;
}

ncclResult_t ncclRecv(void *data, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t lane)
{
    (void)comm;
    return type == ncclFloat ? add_message(data, n, peer, false, lane) : ncclInvalidArgument;
}

/* A message is a file that takes its name when it is whole. */
static void hand_over(const message *m)
{
    char path[192], part[200];
    const int from = m->sends ? ring.rank : m->peer, to = m->sends ? m->peer : ring.rank;
    int64_t *count = m->sends ? &ring.n_sent[m->peer] : &ring.n_received[m->peer];
    snprintf(path, sizeof path, "%s.%d.%d.%lld", ring.id, from, to, (long long)(*count)++);
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = m->sends ? fopen(part, "wb") : NULL;
    if (m->sends) {
        fwrite(m->data, 1, m->n_bytes, f);
        fclose(f);
        rename(part, path);
        return;
    }
    while (!(f = fopen(path, "rb"))) {
        usleep(100);
    }
    if (fread(m->data, 1, m->n_bytes, f) != m->n_bytes || fgetc(f) != EOF) {
        abort();
    }
    fclose(f);
    unlink(path);
}

ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclGroupEnd(void)
{
    ring.in_group = false;
    ring.n_ready = 3;
    ring.n_groups++;
    for (int sends = 1; sends >= 0 && !(is("error") && ring.n_groups == 3); sends--) {
        for (int i = 0; i < ring.n; i++) {
            if (ring.queue[i].sends == sends) {
                hand_over(&ring.queue[i]);
            }
        }
    }
    ring.n = 0;
    return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *out)
{
    (void)comm;
    ring.n_ready--;
    *out = is("error") && ring.n_groups == 3 ? ncclRemoteError
           : ring.n_ready > 0                ? ncclInProgress
                                             : ncclSuccess;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    (void)comm;
    ring.aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    (void)comm;
    ring.finalized = true;
    ring.n_ready = 2;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    (void)comm;
    ring.destroyed = true;
    return ncclSuccess;
}

/* ---- as a rank ------------------------------------------------------------------------------- */

/* Sums of which a part, or all of some ranks', is empty; the order of additions is the ranks'. */
static tess_status sum_some(tess_cards *k, int rank, int size)
{
    static const int64_t counts[] = {1000, 1, 5, 4096};
    float x[4096];
    for (int64_t i = 0; i < TESS_COUNT(counts); i++) {
        for (int64_t j = 0; j < counts[i]; j++) {
            x[j] = (float)(rank + 1) * 0.1f + (float)j;
        }
        TESS_TRY(tess__cards_all_reduce(k, x, counts[i]));
        TESS_TRY(tess__cards_settle(k));
        for (int64_t j = 0; j < counts[i]; j++) {
            float want = 0;
            for (int r = 0; r < size; r++) {
                want += (float)(r + 1) * 0.1f + (float)j;
            }
            if (x[j] != want) {
                return TESS_FAIL(TESS_INVALID, "element %lld of %lld is %g, not %g", (long long)j,
                                 (long long)counts[i], (double)x[j], (double)want);
            }
        }
    }
    return TESS_OK;
}

static int run_rank(void)
{
    tess_comm *c = NULL;
    tess_cards *k = NULL;
    if (tess_comm_open(&(tess_comm_options){.seconds = 0.5}, &c)) {
        printf("open: %s\n", tess_error());
        return 3;
    }
    card.rank = tess_comm_rank(c);
    tess_status st = tess__cards_open(c, &remote, &k);
    if (st == TESS_OK && !k) {
        printf("by the host\n");
    }
    if (st == TESS_OK && k && is("late") && card.rank == 1) {
        sleep(30);
    }
    st = st || !k ? st : sum_some(k, card.rank, tess_comm_size(c));
    if (st) {
        printf("rank %d: %s; %s\n", card.rank, tess_error(), ring.aborted ? "aborted" : "kept");
    }
    tess__cards_close(k);
    if (st == TESS_OK && k) {
        const bool orderly = ring.finalized && ring.destroyed && !ring.aborted &&
                             card.n_follows[TESS_LANE_COMM] == 4 &&
                             card.n_follows[TESS_LANE_WORK] == 4;
        printf("rank %d: %s\n", card.rank, orderly ? "sums are right" : "not in order");
    }
    fflush(stdout);
    if (st) {
        tess_comm_abort(c, 5);
    }
    tess_comm_close(c);
    return 0;
}

/* ---- as the test ----------------------------------------------------------------------------- */

static void launch(int n, const char *name, const char *says, int times)
{
    char command[1024], self[512] = "", said[16384];
    int found = 0;
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(command, sizeof command,
             "exec timeout -s KILL 60 mpirun --oversubscribe -n %d '%s' %s 2>&1", n, self, name);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    said[fread(said, 1, sizeof said - 1, f)] = '\0';
    pclose(f);
    for (const char *at = said; (at = strstr(at, says)); at++) {
        found++;
    }
    if (found < times) {
        fail_msg("\"%s\" is not said %d times in:\n%s", says, times, said);
    }
}

static void test_sums(void **state)
{
    (void)state;
    launch(2, "sums", ": sums are right", 2);
    launch(3, "sums", ": sums are right", 3);
}

/* One card for two ranks, or no NCCL: by the host. */
static void test_without(void **state)
{
    (void)state;
    launch(2, "share", "by the host", 2);
    launch(2, "missing", "by the host", 2);
}

static void test_ends(void **state)
{
    (void)state;
    launch(2, "error",
           "NCCL: all_reduce of 1 f32 (#5): remote process exited or there was a "
           "network error; aborted",
           1);
    launch(2, "never", "opening NCCL began on all ranks and did not end within 0.5 s", 1);
    launch(2, "stuck",
           "all_reduce of 1000 f32 (#4) began on all ranks and did not end within 0.5 s", 1);
    launch(2, "late", "all_reduce of 1000 f32 (#4): rank 1 (", 1);
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        scenario = argv[1];
        return run_rank();
    }
    setenv("OMPI_MCA_plm", "isolated", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 1);
    setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
    setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* MPI keeps what it allocated */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_without),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
    printf("nccl.h was not found when this was built\n");
    return 0;
}

void *__real_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags)
{
    return __real_dlopen(name, flags);
}

#endif
