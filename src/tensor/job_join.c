/* SPDX-License-Identifier: Apache-2.0 */
/* A rank's side of a job that was started process by process: it says hello to the hub, starts the
 * helpers that are its to start, and takes from its host's keeper what MPI starts with. */
#include "tensor/job.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LEAVE_SECONDS 5.0

struct tess_job {
    tess_job_place place;
    tess_job_wire hub;
};

/* ---- the environment ----------------------------------------------------------------------- */

bool tess__job_wanted(void)
{
    const char *size = getenv("WORLD_SIZE");
    return size && atoi(size) > 1 && getenv("RANK") && getenv("MASTER_ADDR") &&
           !getenv("OMPI_COMM_WORLD_SIZE");
}

static tess_status read_number(const char *name, long least, long most, int *out)
{
    const char *text = getenv(name);
    char *end = NULL;
    const long x = text ? strtol(text, &end, 10) : -1;
    if (!text || end == text || *end || x < least || x > most) {
        return TESS_FAIL(TESS_INVALID, "%s: expected a number of %ld to %ld, found '%s'", name,
                         least, most, text ? text : "");
    }
    *out = (int)x;
    return TESS_OK;
}

/* Torchrun's agent may hold the port for a store of its own: the next one is the job's then. */
static tess_status read_place(double seconds, tess_job_place *out)
{
    const char *store = getenv("TORCHELASTIC_USE_AGENT_STORE"), *address = getenv("MASTER_ADDR");
    int port = 0;
    *out = (tess_job_place){.seconds = seconds};
    TESS_TRY(read_number("WORLD_SIZE", 1, TESS_JOB_MOST_RANKS, &out->size));
    TESS_TRY(read_number("RANK", 0, out->size - 1, &out->rank));
    TESS_TRY(read_number("MASTER_PORT", 1, 65534, &port));
    if (snprintf(out->address, sizeof out->address, "%s", address) >= (int)sizeof out->address) {
        return TESS_FAIL(TESS_INVALID, "MASTER_ADDR is longer than a host's name");
    }
    snprintf(out->port, sizeof out->port, "%d", port + (store && strcmp(store, "True") == 0));
    return tess__job_key(out->key);
}

/* Processes of one boot, name and namespaces share memory. */
static uint64_t host_id(const char *name)
{
    static const char *const spaces[] = {"net", "ipc", "pid", "mnt"};
    char text[128], path[64];
    uint64_t hash = tess_hash64(name, strlen(name), 0);
    const int boot = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (boot >= 0) {
        const ssize_t n = read(boot, text, sizeof text);
        hash = tess_hash64(text, n > 0 ? (size_t)n : 0, hash);
        close(boot);
    }
    for (int64_t i = 0; i < TESS_COUNT(spaces); i++) {
        snprintf(path, sizeof path, "/proc/self/ns/%s", spaces[i]);
        const ssize_t n = readlink(path, text, sizeof text);
        hash = tess_hash64(text, n > 0 ? (size_t)n : 0, hash);
    }
    return hash;
}

/* ---- sockets ------------------------------------------------------------------------------- */

static tess_status resolve(const tess_job_place *p, struct addrinfo **out)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    const int code = getaddrinfo(p->address, p->port, &hints, out);
    return code ? TESS_FAIL(TESS_COMM, "MASTER_ADDR %s: %s", p->address, gai_strerror(code))
                : TESS_OK;
}

/* On the address itself, so that a job on localhost is heard there alone; behind a translated
 * address, on all. */
static tess_status open_listener(const tess_job_place *p, int *out)
{
    struct addrinfo *list;
    TESS_TRY(resolve(p, &list));
    const int fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int bad = fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    bad = bad || bind(fd, list->ai_addr, list->ai_addrlen);
    if (bad && errno == EADDRNOTAVAIL) {
        struct sockaddr_in6 any6 = {.sin6_family = AF_INET6,
                                    .sin6_port = htons((uint16_t)atoi(p->port))};
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = any6.sin6_port};
        bad = list->ai_family == AF_INET6 ? bind(fd, (struct sockaddr *)&any6, sizeof any6)
                                          : bind(fd, (struct sockaddr *)&any, sizeof any);
    }
    freeaddrinfo(list);
    if (bad || listen(fd, 1024)) {
        const int why = errno;
        if (fd >= 0) {
            close(fd);
        }
        return TESS_FAIL(TESS_COMM,
                         "rank 0 cannot listen at %s:%s (%s): choose another MASTER_PORT",
                         p->address, p->port, strerror(why));
    }
    *out = fd;
    return TESS_OK;
}

/* -1 with errno set. */
static int try_address(const struct addrinfo *a)
{
    const int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval limit = {.tv_sec = 5};
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* of connect */
    if (connect(fd, a->ai_addr, a->ai_addrlen)) {
        const int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    tess__job_tune(fd);
    return fd;
}

/* Rank 0 may start last. */
static tess_status reach(const tess_job_place *p, double deadline, int *out)
{
    for (;;) {
        struct addrinfo *list;
        TESS_TRY(resolve(p, &list));
        int fd = -1;
        for (const struct addrinfo *a = list; fd < 0 && a; a = a->ai_next) {
            fd = try_address(a);
        }
        const int why = errno;
        freeaddrinfo(list);
        if (fd >= 0) {
            *out = fd;
            return TESS_OK;
        }
        if (tess_seconds() > deadline) {
            return TESS_FAIL(TESS_COMM, "rank %d: rank 0 did not answer at %s:%s within %g s (%s)",
                             p->rank, p->address, p->port, p->seconds, strerror(why));
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

tess_status tess__job_connect(const tess_job_place *p, const tess_job_hello *hello,
                              tess_job_wire *out)
{
    const double deadline = tess_seconds() + p->seconds;
    for (;;) {
        int fd = -1;
        TESS_TRY(reach(p, deadline, &fd));
        tess_status st = tess__job_open(out, fd, p->key, false);
        st = st ? st : tess__job_greet(out, deadline);
        st = st ? st : tess__job_send(out, TESS_JOB_HELLO, hello, sizeof *hello, deadline);
        if (st == TESS_OK) {
            return TESS_OK;
        }
        /* Pushed out by strangers, or rank 0 of a job that is just ending. */
        tess__job_close(out);
        if (tess_seconds() > deadline) {
            return st;
        }
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
}

/* ---- helpers ------------------------------------------------------------------------------- */

/* A process of its own session, nobody's child, that holds no file of this one's but `keep`:
 * true in it, with *out TESS_OK. */
static bool start_helper(int keep, tess_status *out)
{
    const pid_t child = fork();
    if (child != 0) {
        *out = child < 0 ? TESS_FAIL(TESS_NOMEM, "fork: %s", strerror(errno)) : TESS_OK;
        while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR) {
        }
        return false;
    }
    if (fork() != 0) {
        _exit(0); /* a child's end */
    }
    setsid();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    const int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, 0);
        dup2(null, 1);
    }
    keep = keep >= 0 ? dup2(keep, 3) : 2;
    close_range((unsigned)keep + 1, ~0u, 0);
    *out = TESS_OK;
    return true;
}

static tess_status start_hub(const tess_job_place *p)
{
    int listener = -1;
    tess_status st = TESS_OK;
    TESS_TRY(open_listener(p, &listener));
    if (start_helper(listener, &st)) {
        tess__job_hub(p, 3);
        _exit(0); /* a child's end */
    }
    close(listener);
    return st;
}

static tess_status start_keeper(const tess_job_place *p, const tess_job_row *table, int host)
{
    tess_status st = TESS_OK;
    if (start_helper(-1, &st)) {
        tess__job_keep(p, table, host);
        _exit(0); /* a child's end */
    }
    return st;
}

/* ---- joining ------------------------------------------------------------------------------- */

static tess_status wait_frame(tess_job *j, tess_job_kind kind, double deadline, const char **out,
                              size_t *out_bytes)
{
    int found = -1;
    const tess_status st = tess__job_wait(&j->hub, deadline, &found, out, out_bytes);
    if (st) {
        return TESS_FAIL(TESS_COMM,
                         "rank %d: %s:%s is not rank 0 of this job, or was started with another "
                         "TESSERA_JOB_KEY or TORCHELASTIC_RUN_ID (%s)",
                         j->place.rank, j->place.address, j->place.port, tess_error());
    }
    if (found == TESS_JOB_END) {
        return TESS_FAIL(TESS_COMM, "%.*s", (int)*out_bytes, *out);
    }
    return found == (int)kind ? TESS_OK
                              : TESS_FAIL(TESS_COMM,
                                          "rank %d: rank 0's process did not answer "
                                          "within %g s",
                                          j->place.rank, j->place.seconds);
}

static tess_status start_own_keeper(const tess_job *j, const char *data, size_t n_bytes)
{
    const tess_job_row *table = (const tess_job_row *)data;
    const int rank = j->place.rank;
    int first = 0;
    if (n_bytes != (size_t)j->place.size * sizeof *table) {
        return TESS_FAIL(TESS_COMM, "rank %d: a table of another size than the job's", rank);
    }
    while (table[first].host != table[rank].host) {
        first++;
    }
    return first == rank ? start_keeper(&j->place, table, table[rank].host) : TESS_OK;
}

/* Nothing but PMIx's own variables is taken from another process. */
static tess_status take_settings(const tess_job *j, char *lines)
{
    char rank[16], *save = NULL;
    static const char *const fixed[][2] = {
        /* What Open MPI does under srun: PMIx is there, and no daemon of its own. */
        {"OMPI_MCA_schizo", "ompi"},
        {"OMPI_MCA_ess", "pmi"},
        {"OMPI_MCA_hwloc_base_binding_policy", "none"},
        {"OMPI_MCA_orte_externally_bound", "1"},
    };
    int bad = 0;
    for (char *line = strtok_r(lines, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *value = strchr(line, '=');
        if (value && strncmp(line, "PMIX_", 5) == 0) {
            *value = '\0';
            bad = bad || setenv(line, value + 1, 1);
        }
    }
    snprintf(rank, sizeof rank, "%d", j->place.rank);
    bad = bad || setenv("PMIX_RANK", rank, 1);
    for (int64_t i = 0; i < TESS_COUNT(fixed); i++) {
        bad = bad || setenv(fixed[i][0], fixed[i][1], 1);
    }
    return bad ? TESS_FAIL(TESS_NOMEM, "no memory for the environment") : TESS_OK;
}

static tess_status come_together(tess_job *j)
{
    const char *data = NULL;
    size_t n_bytes = 0;
    const tess_job_place *p = &j->place;
    /* The hub's limit ends a little earlier, to say who is missing. */
    const double deadline = tess_seconds() + p->seconds + 5;
    tess_job_hello hello = {.rank = p->rank, .size = p->size, .pid = getpid()};
    gethostname(hello.host, sizeof hello.host - 1);
    hello.host_id = host_id(hello.host);
    TESS_TRY(tess__job_connect(p, &hello, &j->hub));
    TESS_TRY(wait_frame(j, TESS_JOB_TABLE, deadline, &data, &n_bytes));
    TESS_TRY(start_own_keeper(j, data, n_bytes));
    TESS_TRY(wait_frame(j, TESS_JOB_SETTINGS, deadline, &data, &n_bytes));
    char *lines = tess_strdup(data); /* a frame's bytes end with 0 */
    const tess_status st = lines ? take_settings(j, lines) : TESS_NOMEM;
    tess_free(lines);
    return st;
}

tess_status tess__job_join(double seconds, tess_job **out)
{
    *out = NULL;
    tess_job *j = tess_alloc(sizeof *j);
    tess_status st = j ? read_place(seconds, &j->place) : TESS_NOMEM;
    st = st || j->place.rank > 0 ? st : start_hub(&j->place);
    st = st ? st : come_together(j);
    if (st) {
        tess__job_leave(j, false);
        return st;
    }
    *out = j;
    return TESS_OK;
}

void tess__job_leave(tess_job *j, bool together)
{
    if (!j) {
        return;
    }
    const double deadline = tess_seconds() + LEAVE_SECONDS;
    if (together && tess__job_send(&j->hub, TESS_JOB_BYE, "", 0, deadline) == TESS_OK) {
        const char *data;
        size_t n_bytes;
        int kind = 0;
        while (kind >= 0 && tess__job_wait(&j->hub, deadline, &kind, &data, &n_bytes) == TESS_OK) {
        }
    }
    tess__job_close(&j->hub);
    tess_free(j);
}
