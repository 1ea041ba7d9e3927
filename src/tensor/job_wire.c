/* SPDX-License-Identifier: Apache-2.0 */
/* Frames between the processes of a job: length, kind, and a tag over both and the content.
 *
 * A connection begins with 16 random bytes from each side; its key is SipHash of both under the
 * job's key, and every frame's tag is SipHash under it of a count, the direction and the frame, so
 * that frames of another job, another connection or another place are refused.  Nothing is
 * encrypted.  Without TESSERA_JOB_KEY the tag tells jobs apart but keeps nobody out. */
#include "tensor/job.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC 0x3142a7e55e55e7a1ull

typedef struct header {
    uint64_t magic;
    uint32_t kind, n_bytes;
    uint64_t tag;
} header;

/* ---- tags ---------------------------------------------------------------------------------- */

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t m)
{
    v[3] ^= m;
    sip_round(v);
    sip_round(v);
    v[0] ^= m;
}

uint64_t tess__siphash(const uint64_t key[2], const void *data, size_t n_bytes)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575ull, key[1] ^ 0x646f72616e646f6dull,
                     key[0] ^ 0x6c7967656e657261ull, key[1] ^ 0x7465646279746573ull};
    const char *p = data;
    size_t left = n_bytes;
    for (; left >= 8; left -= 8, p += 8) {
        uint64_t m;
        memcpy(&m, p, 8);
        sip_word(v, m);
    }
    uint64_t last = 0;
    memcpy(&last, p, left);
    sip_word(v, last | (uint64_t)n_bytes << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++) {
        sip_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

tess_status tess__job_key(uint64_t out_key[2])
{
    static const char *const variables[] = {"TESSERA_JOB_KEY", "TORCHELASTIC_RUN_ID"};
    tess_buf words = {0};
    for (int64_t i = 0; i < TESS_COUNT(variables); i++) {
        const char *word = getenv(variables[i]);
        tess_buf_addf(&words, "%zu:%s\n", word ? strlen(word) : 0, word ? word : "");
    }
    TESS_TRY(tess_buf_check(&words));
    for (uint64_t i = 0; i < 2; i++) {
        out_key[i] = tess__siphash((uint64_t[]){MAGIC, i}, words.data, words.n_bytes);
    }
    tess_buf_deinit(&words);
    return TESS_OK;
}

static uint64_t tag_of(const tess_job_wire *w, uint64_t count, const header *h, const void *data)
{
    const uint64_t words[] = {count, (uint64_t)h->kind << 32 | h->n_bytes,
                              tess__siphash(w->key, data, h->n_bytes)};
    return tess__siphash(w->key, words, sizeof words);
}

/* ---- bytes --------------------------------------------------------------------------------- */

static tess_status wait_until(int fd, short events, double deadline, bool *out_ready)
{
    const double left = deadline - tess_seconds();
    struct pollfd p = {.fd = fd, .events = events};
    const int n = poll(&p, 1, left > 0 ? (int)(left * 1e3) + 1 : 0);
    *out_ready = n > 0;
    return n < 0 && errno != EINTR ? TESS_FAIL(TESS_COMM, "poll: %s", strerror(errno)) : TESS_OK;
}

static tess_status send_all(int fd, const char *data, size_t n_bytes, double deadline)
{
    while (n_bytes > 0) {
        bool ready;
        const ssize_t n = send(fd, data, n_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            data += n;
            n_bytes -= (size_t)n;
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            return TESS_FAIL(TESS_COMM, "sending: %s", strerror(errno));
        } else if (tess_seconds() > deadline) {
            return TESS_FAIL(TESS_COMM, "the other side does not read");
        } else {
            TESS_TRY(wait_until(fd, POLLOUT, deadline, &ready));
        }
    }
    return TESS_OK;
}

/* ---- frames -------------------------------------------------------------------------------- */

tess_status tess__job_open(tess_job_wire *w, int fd, const uint64_t job_key[2], bool hub)
{
    *w = (tess_job_wire){.open = true,
                         .fd = fd,
                         .most = TESS_JOB_MOST_BYTES,
                         .hub = hub,
                         .key = {job_key[0], job_key[1]}};
    /* Each direction counts from another end. */
    w->n_sent = hub ? (uint64_t)1 << 63 : 0;
    w->n_read = hub ? 0 : (uint64_t)1 << 63;
    if (getrandom(w->number, sizeof w->number, 0) != (ssize_t)sizeof w->number) {
        return TESS_FAIL(TESS_IO, "getrandom: %s", strerror(errno));
    }
    return send_all(fd, (const char *)w->number, sizeof w->number, tess_seconds());
}

tess_status tess__job_send(tess_job_wire *w, tess_job_kind kind, const void *data, size_t n_bytes,
                           double deadline)
{
    header h = {.magic = MAGIC, .kind = (uint32_t)kind, .n_bytes = (uint32_t)n_bytes};
    if (n_bytes > TESS_JOB_MOST_BYTES) {
        return TESS_FAIL(TESS_COMM, "%zu bytes are more than a frame of a job holds", n_bytes);
    }
    h.tag = tag_of(w, w->n_sent++, &h, data);
    TESS_TRY(send_all(w->fd, (const char *)&h, sizeof h, deadline));
    return send_all(w->fd, data, n_bytes, deadline);
}

/* Bytes that are there, until `want` have been read. */
static tess_status fill(tess_job_wire *w, size_t want)
{
    char bytes[4096];
    while (w->in.n_bytes < want) {
        const size_t left = want - w->in.n_bytes;
        const ssize_t n =
            recv(w->fd, bytes, left < sizeof bytes ? left : sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return TESS_OK;
        }
        if (n <= 0) {
            return TESS_FAIL(TESS_COMM, "the other side closed the connection");
        }
        tess_buf_add(&w->in, bytes, (size_t)n);
        TESS_TRY(tess_buf_check(&w->in));
    }
    return TESS_OK;
}

/* The hub's number stands first in both sides' keys. */
static tess_status read_number(tess_job_wire *w)
{
    uint64_t numbers[4];
    TESS_TRY(fill(w, sizeof w->number));
    if (w->in.n_bytes < sizeof w->number) {
        return TESS_OK;
    }
    memcpy(w->hub ? numbers : numbers + 2, w->number, sizeof w->number);
    memcpy(w->hub ? numbers + 2 : numbers, w->in.data, sizeof w->number);
    const uint64_t keys[2][2] = {{w->key[0], w->key[1]}, {~w->key[0], w->key[1]}};
    w->key[0] = tess__siphash(keys[0], numbers, sizeof numbers);
    w->key[1] = tess__siphash(keys[1], numbers, sizeof numbers);
    w->greeted = true;
    tess_buf_clear(&w->in);
    return TESS_OK;
}

tess_status tess__job_read(tess_job_wire *w, int *out_kind, const char **out_data,
                           size_t *out_bytes)
{
    header h;
    *out_kind = -1;
    if (w->handed) {
        tess_buf_clear(&w->in);
        w->handed = false;
    }
    if (!w->greeted) {
        TESS_TRY(read_number(w));
    }
    TESS_TRY(w->greeted ? fill(w, sizeof h) : TESS_OK);
    if (!w->greeted || w->in.n_bytes < sizeof h) {
        return TESS_OK;
    }
    memcpy(&h, w->in.data, sizeof h);
    if (h.magic != MAGIC || h.kind > TESS_JOB_BYE || h.n_bytes > w->most) {
        return TESS_FAIL(TESS_COMM, "not a frame of a job");
    }
    TESS_TRY(fill(w, sizeof h + h.n_bytes));
    if (w->in.n_bytes < sizeof h + h.n_bytes) {
        return TESS_OK;
    }
    if (tag_of(w, w->n_read++, &h, w->in.data + sizeof h) != h.tag) {
        return TESS_FAIL(TESS_COMM, "a frame of another job's key");
    }
    w->handed = true;
    *out_kind = (int)h.kind;
    *out_data = w->in.data + sizeof h;
    *out_bytes = h.n_bytes;
    return TESS_OK;
}

tess_status tess__job_wait(tess_job_wire *w, double deadline, int *out_kind, const char **out_data,
                           size_t *out_bytes)
{
    for (;;) {
        bool ready;
        TESS_TRY(tess__job_read(w, out_kind, out_data, out_bytes));
        if (*out_kind >= 0 || tess_seconds() > deadline) {
            return TESS_OK;
        }
        TESS_TRY(wait_until(w->fd, POLLIN, deadline, &ready));
    }
}

tess_status tess__job_greet(tess_job_wire *w, double deadline)
{
    while (!w->greeted) {
        bool ready;
        TESS_TRY(read_number(w));
        if (tess_seconds() > deadline) {
            return TESS_FAIL(TESS_COMM, "the other side says nothing");
        }
        TESS_TRY(w->greeted ? TESS_OK : wait_until(w->fd, POLLIN, deadline, &ready));
    }
    return TESS_OK;
}

void tess__job_tune(int fd)
{
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &(int){15}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &(int){5}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &(int){3}, sizeof(int));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

void tess__job_close(tess_job_wire *w)
{
    if (w->open) {
        close(w->fd);
    }
    tess_buf_deinit(&w->in);
    *w = (tess_job_wire){0};
}
