/* SPDX-License-Identifier: Apache-2.0 */
/* The process in which a job comes together: it listens where rank 0 was told to, knows all ranks
 * and keepers by a connection of each, and hears their ends.
 *
 * Nothing waits here for one connection: strangers may say half a hello, and have 10 s for it. */
#include "tensor/job.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_SECONDS     10.0
#define STRANGER_SECONDS 10.0
#define END_SECONDS      10.0
enum { MOST_STRANGERS = 256, MOST_AT_ONCE = 64 };

typedef enum role { STRANGER, RANK, KEEPER, LEFT, CLOSED } role;

typedef struct peer {
    tess_job_wire wire;
    tess_job_hello hello;
    role role;
    double since;
    tess_buf piece; /* a keeper's part of the fence under way */
    bool has_piece;
} peer;

typedef struct hub {
    const tess_job_place *place;
    int listener;
    peer *peers; /* (n) of room for ranks, keepers and strangers */
    struct pollfd *polls;
    int n, n_room, n_strangers;
    peer **ranks, **keepers; /* (R), (n_hosts) */
    tess_job_row *table;     /* (R) */
    int n_came, n_left, n_hosts;
    double began;
    bool ended;
} hub;

/* ---- ending -------------------------------------------------------------------------------- */

static void send_to(peer *p, tess_job_kind kind, const void *data, size_t n_bytes)
{
    if (p && p->role != CLOSED &&
        tess__job_send(&p->wire, kind, data, n_bytes, tess_seconds() + SEND_SECONDS)) {
        shutdown(p->wire.fd, SHUT_RDWR); /* it is heard as an end */
    }
}

/* Before MPI starts ranks hear why themselves; later their keepers end them. */
static void end_job(hub *h, const char *why)
{
    if (h->ended) {
        return;
    }
    h->ended = true;
    if (h->n_hosts > 0) {
        tess_log(TESS_LOG_ERROR, "%s", why);
    }
    for (int i = 0; i < h->n; i++) {
        if (h->peers[i].role == RANK || h->peers[i].role == KEEPER) {
            send_to(&h->peers[i], TESS_JOB_END, why, strlen(why));
        }
    }
}

static void add_place(const peer *p, tess_buf *out)
{
    tess_buf_addf(out, "rank %d (%s, process %d)", p->hello.rank, p->hello.host, p->hello.pid);
}

static void end_with(hub *h, tess_buf *why)
{
    end_job(h, tess_buf_check(why) ? "no memory" : why->data);
    tess_buf_deinit(why);
}

static void close_peer(hub *h, peer *p)
{
    tess_buf why = {0};
    const role was = p->role;
    h->n_strangers -= was == STRANGER;
    p->role = CLOSED;
    tess__job_close(&p->wire);
    tess_buf_deinit(&p->piece);
    if (was == RANK && !h->ended) {
        add_place(p, &why);
        tess_buf_adds(&why, " ended before the job did");
        end_with(h, &why);
    } else if (was == KEEPER && !h->ended && h->n_left < h->place->size) {
        tess_buf_addf(&why, "the job's helper on %s ended", p->hello.host);
        end_with(h, &why);
    }
}

/* ---- coming together ----------------------------------------------------------------------- */

static void number_hosts(hub *h)
{
    for (int r = 0; r < h->place->size; r++) {
        const tess_job_hello *hello = &h->ranks[r]->hello;
        int same = 0;
        while (h->ranks[same]->hello.host_id != hello->host_id) {
            same++;
        }
        tess_job_row *row = &h->table[r];
        row->host = same < r ? h->table[same].host : h->n_hosts++;
        row->pid = hello->pid;
        memcpy(row->name, hello->host, sizeof row->name);
    }
}

static void send_table(hub *h)
{
    number_hosts(h);
    h->keepers = tess_alloc_array((size_t)h->n_hosts, sizeof(peer *));
    if (!h->keepers) {
        end_job(h, "no memory");
        return;
    }
    for (int r = 0; r < h->place->size; r++) {
        send_to(h->ranks[r], TESS_JOB_TABLE, h->table, (size_t)h->place->size * sizeof *h->table);
    }
}

/* What is wrong with a hello that has the job's key: said to all while the job gathers, and only
 * to its sender later. */
static void refuse(hub *h, peer *p, tess_buf *why)
{
    const char *text = tess_buf_check(why) ? "no memory" : why->data;
    send_to(p, TESS_JOB_END, text, strlen(text));
    if (h->n_came < h->place->size) {
        end_job(h, text);
    }
    tess_buf_deinit(why);
    close_peer(h, p);
}

static void take_rank(hub *h, peer *p)
{
    tess_buf why = {0};
    const tess_job_hello *hello = &p->hello;
    if (hello->size != h->place->size || hello->rank < 0 || hello->rank >= h->place->size) {
        add_place(p, &why);
        tess_buf_addf(&why, " has WORLD_SIZE %d, and rank 0 has %d", hello->size, h->place->size);
    } else if (h->ranks[hello->rank]) {
        add_place(p, &why);
        tess_buf_adds(&why, " is one too many: there is ");
        add_place(h->ranks[hello->rank], &why);
    }
    if (why.n_bytes > 0) {
        refuse(h, p, &why);
        return;
    }
    h->n_strangers--;
    p->role = RANK;
    h->ranks[hello->rank] = p;
    if (++h->n_came == h->place->size) {
        send_table(h);
    }
}

static void take_hello(hub *h, peer *p, const char *data, size_t n_bytes)
{
    if (n_bytes != sizeof p->hello) {
        close_peer(h, p);
        return;
    }
    memcpy(&p->hello, data, sizeof p->hello);
    p->hello.host[sizeof p->hello.host - 1] = '\0';
    p->wire.most = TESS_JOB_MOST_BYTES;
    const int host = p->hello.rank;
    if (!p->hello.is_keeper) {
        take_rank(h, p);
    } else if (host < 0 || host >= h->n_hosts || h->keepers[host]) {
        close_peer(h, p);
    } else {
        h->n_strangers--;
        p->role = KEEPER;
        h->keepers[host] = p;
    }
}

static void tell_missing(hub *h)
{
    tess_buf why = {0};
    int n = 0;
    for (int r = 0; r < h->place->size && n < 8; r++) {
        if (!h->ranks[r]) {
            tess_buf_addf(&why, "%s%d", n++ ? ", " : "rank ", r);
        }
    }
    tess_buf_addf(&why, " did not come to %s:%s within %g s (%d of %d came)", h->place->address,
                  h->place->port, h->place->seconds, h->n_came, h->place->size);
    end_with(h, &why);
}

/* ---- while MPI starts and ends ------------------------------------------------------------- */

static void send_settings(hub *h, const peer *keeper, const char *data, size_t n_bytes)
{
    for (int r = 0; r < h->place->size; r++) {
        if (h->table[r].host == keeper->hello.rank) {
            send_to(h->ranks[r], TESS_JOB_SETTINGS, data, n_bytes);
        }
    }
}

static void send_pieces(hub *h)
{
    tess_buf all = {0};
    for (int i = 0; i < h->n_hosts; i++) {
        if (!h->keepers[i] || !h->keepers[i]->has_piece) {
            return;
        }
    }
    for (int i = 0; i < h->n_hosts; i++) {
        peer *p = h->keepers[i];
        tess_buf_add(&all, p->piece.data, p->piece.n_bytes);
        tess_buf_deinit(&p->piece);
        p->has_piece = false;
    }
    for (int i = 0; i < h->n_hosts; i++) {
        send_to(h->keepers[i], TESS_JOB_PIECE, all.data ? all.data : "", all.n_bytes);
    }
    tess_buf_deinit(&all);
}

static void take_piece(hub *h, peer *p, const char *data, size_t n_bytes)
{
    if (p->has_piece) {
        close_peer(h, p);
        return;
    }
    tess_buf_add(&p->piece, data, n_bytes);
    p->has_piece = true;
    send_pieces(h);
}

static void take_frame(hub *h, peer *p, int kind, const char *data, size_t n_bytes)
{
    tess_buf why = {0};
    if (p->role == STRANGER && kind == TESS_JOB_HELLO) {
        take_hello(h, p, data, n_bytes);
    } else if (p->role == RANK && kind == TESS_JOB_BYE) {
        p->role = LEFT;
        h->n_left++;
    } else if (p->role == KEEPER && kind == TESS_JOB_SETTINGS) {
        send_settings(h, p, data, n_bytes);
    } else if (p->role == KEEPER && kind == TESS_JOB_PIECE) {
        take_piece(h, p, data, n_bytes);
    } else if (p->role == KEEPER && kind == TESS_JOB_END) {
        tess_buf_addf(&why, "%.*s", (int)n_bytes, data);
        end_with(h, &why);
    } else {
        close_peer(h, p);
    }
}

static void read_peer(hub *h, peer *p)
{
    for (;;) {
        int kind = -1;
        const char *data = NULL;
        size_t n_bytes = 0;
        if (tess__job_read(&p->wire, &kind, &data, &n_bytes)) {
            close_peer(h, p);
            return;
        }
        if (kind < 0) {
            return;
        }
        take_frame(h, p, kind, data, n_bytes);
        if (p->role == CLOSED) {
            return;
        }
    }
}

/* ---- the loop ------------------------------------------------------------------------------ */

/* A flood of strangers pushes out the oldest, which said nothing for the longest. */
static void drop_oldest(hub *h)
{
    peer *oldest = NULL;
    for (int i = 0; i < h->n; i++) {
        peer *p = &h->peers[i];
        oldest = p->role == STRANGER && (!oldest || p->since < oldest->since) ? p : oldest;
    }
    if (oldest) {
        close_peer(h, oldest);
    }
}

static bool accept_one(hub *h)
{
    const int fd = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
    int at = 0;
    if (fd < 0) {
        return false;
    }
    if (h->n_strangers >= MOST_STRANGERS) {
        drop_oldest(h);
    }
    while (at < h->n && h->peers[at].role != CLOSED) {
        at++;
    }
    if (at >= h->n_room) {
        close(fd);
        return true;
    }
    tess__job_tune(fd);
    peer *p = &h->peers[at];
    *p = (peer){.since = tess_seconds()};
    h->n = at == h->n ? h->n + 1 : h->n;
    h->n_strangers++;
    if (tess__job_open(&p->wire, fd, h->place->key, true)) {
        close_peer(h, p);
    }
    p->wire.most = TESS_JOB_MOST_HELLO;
    return true;
}

static void check_time(hub *h)
{
    const double now = tess_seconds();
    for (int i = 0; i < h->n; i++) {
        peer *p = &h->peers[i];
        if (p->role == STRANGER && now - p->since > STRANGER_SECONDS) {
            close_peer(h, p);
        }
    }
    if (!h->ended && h->n_came < h->place->size && now - h->began > h->place->seconds) {
        tell_missing(h);
    }
}

static void turn(hub *h)
{
    int n = 0;
    for (int i = 0; i < h->n; i++) {
        const peer *p = &h->peers[i];
        h->polls[n++] =
            (struct pollfd){.fd = p->role == CLOSED ? -1 : p->wire.fd, .events = POLLIN};
    }
    h->polls[n] = (struct pollfd){.fd = h->listener, .events = POLLIN};
    if (poll(h->polls, (nfds_t)n + 1, 100) > 0) {
        for (int i = 0; i < n; i++) {
            if (h->polls[i].revents && h->peers[i].role != CLOSED) {
                read_peer(h, &h->peers[i]);
            }
        }
        for (int i = 0; i < MOST_AT_ONCE && h->polls[n].revents && accept_one(h); i++) {
        }
    }
    check_time(h);
}

static bool keepers_left(const hub *h)
{
    for (int i = 0; i < h->n_hosts; i++) {
        if (h->keepers[i] && h->keepers[i]->role == KEEPER) {
            return true;
        }
    }
    return false;
}

/* Rank 0 is there at once, or its process is gone. */
static bool is_alone(const hub *h)
{
    return !h->ranks[0] && tess_seconds() - h->began > STRANGER_SECONDS;
}

static void run(hub *h)
{
    while (!h->ended && h->n_left < h->place->size && !is_alone(h)) {
        turn(h);
    }
    /* Keepers hear that all is well, or the end that end_job said, and close. */
    for (int i = 0; i < h->n_hosts && !h->ended; i++) {
        send_to(h->keepers[i], TESS_JOB_BYE, "", 0);
    }
    for (const double end = tess_seconds() + END_SECONDS;
         keepers_left(h) && tess_seconds() < end;) {
        turn(h);
    }
}

void tess__job_hub(const tess_job_place *place, int listener)
{
    const size_t size = (size_t)place->size;
    hub h = {.place = place, .listener = listener, .began = tess_seconds()};
    h.n_room = 2 * place->size + MOST_STRANGERS;
    h.peers = tess_alloc_array((size_t)h.n_room, sizeof *h.peers);
    h.polls = tess_alloc_array((size_t)h.n_room + 1, sizeof *h.polls);
    h.ranks = tess_alloc_array(size, sizeof(peer *));
    h.table = tess_alloc_array(size, sizeof *h.table);
    if (h.peers && h.polls && h.ranks && h.table) {
        run(&h);
    }
}
