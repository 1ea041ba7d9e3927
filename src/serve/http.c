/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP on libmicrohttpd, a thread per connection.
 *
 * The library parses and bounds headers; what it lacks is added here: bodies bounded one by one and
 * all together, refused from their announced length before they are read; and a deadline for a
 * whole request.  Its own time-out is between two reads, so a client that sends a byte now and then
 * would hold a connection for ever: a watchdog shuts the sockets whose request or answer is
 * overdue.
 */
#include "serve/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEADER_BYTES  32768 /* a connection's memory inside the library: its headers and buffers */
#define WATCH_SECONDS 0.2
#define CONTENT_POLICY                                                                             \
    "default-src 'none'; img-src 'self' blob:; script-src 'self'; style-src 'self'; "              \
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/* One open connection, in a list for the watchdog. */
typedef struct peer {
    int fd;
    double deadline; /* tess_seconds; 0: none, a handler is at work */
    struct peer *next, **link;
} peer;

/* One request while it is received and answered. */
typedef struct exchange {
    tess_buf body;
    size_t reserved_bytes; /* of max_total_bytes */
    bool too_large, too_busy;
    double t_start;
} exchange;

struct tess__http {
    tess__http_options options;
    struct MHD_Daemon *daemon;
    int port;
    pthread_mutex_t lock; /* over peers and their fields, and stopping */
    pthread_cond_t wake;  /* of the watchdog */
    peer *peers;
    bool stopping, has_watchdog;
    pthread_t watchdog;
    atomic_int n_active; /* exchanges */
    atomic_size_t total_bytes;
};

/* ---- errors -------------------------------------------------------------------------------- */

static const struct {
    int status;
    const char *type;
} error_types[] = {
    {400, "invalid_request"},   {404, "not_found"}, {405, "method_not_allowed"}, {413, "too_large"},
    {415, "unsupported_media"}, {500, "internal"},  {503, "unavailable"},
};

static const char *error_type(int status)
{
    for (int64_t i = 0; i < TESS_COUNT(error_types); i++) {
        if (error_types[i].status == status) {
            return error_types[i].type;
        }
    }
    return "error";
}

void tess__response_error(tess__response *out, int status, const char *fmt, ...)
{
    char message[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    tess_buf_deinit(&out->body);
    *out = (tess__response){.status = status};
    tess_json_writer w = {.buf = &out->body};
    tess_json_begin_object(&w);
    tess_json_key(&w, "error");
    tess_json_begin_object(&w);
    tess_json_key(&w, "message");
    tess_json_add_string(&w, message);
    tess_json_key(&w, "type");
    tess_json_add_string(&w, error_type(status));
    tess_json_end_object(&w);
    tess_json_end_object(&w);
}

/* ---- answering ----------------------------------------------------------------------------- */

static struct MHD_Response *make_response(tess__response *r)
{
    if (r->fixed.data) {
        return MHD_create_response_from_buffer(r->fixed.n_bytes, (void *)(uintptr_t)r->fixed.data,
                                               MHD_RESPMEM_PERSISTENT);
    }
    if (r->body.failed) {
        return NULL;
    }
    struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback(
        r->body.n_bytes, r->body.data, tess_free);
    if (response) {
        r->body = (tess_buf){0}; /* the library's now */
    }
    return response;
}

static void add_headers(struct MHD_Response *response, const tess__response *r, const char *allow)
{
    const struct {
        const char *name, *value;
    } headers[] = {
        {"Content-Type", r->type ? r->type : "application/json"},
        {"Cache-Control", r->cache ? r->cache : "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {"Content-Security-Policy", CONTENT_POLICY},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Referrer-Policy", "no-referrer"},
        {"Retry-After", r->status == 503 ? "1" : NULL},
        {"Allow", allow},
    };
    for (int64_t i = 0; i < TESS_COUNT(headers); i++) {
        if (headers[i].value) {
            (void)MHD_add_response_header(response, headers[i].name, headers[i].value);
        }
    }
}

/* Hands the response to the library and frees it here. */
static enum MHD_Result send_response(struct MHD_Connection *connection, tess__response *r,
                                     const char *allow)
{
    struct MHD_Response *response = make_response(r);
    if (!response) {
        tess_buf_deinit(&r->body);
        return MHD_NO;
    }
    add_headers(response, r, allow);
    enum MHD_Result result =
        MHD_queue_response(connection, (unsigned)(r->status ? r->status : 200), response);
    MHD_destroy_response(response);
    return result;
}

/* ---- routes -------------------------------------------------------------------------------- */

static bool path_fits(const tess__route *route, const char *path)
{
    size_t n = strlen(route->path);
    bool is_prefix = n > 1 && route->path[n - 1] == '/';
    return is_prefix ? strncmp(route->path, path, n) == 0 : strcmp(route->path, path) == 0;
}

static bool method_fits(const tess__route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(route->method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

/* The route, or NULL with the refusal in `out`. */
static const tess__route *find_route(const tess__http *http, const char *method, const char *path,
                                     tess__response *out, const char **out_allow)
{
    for (int64_t i = 0; i < http->options.n_routes; i++) {
        const tess__route *route = &http->options.routes[i];
        if (!path_fits(route, path)) {
            continue;
        }
        if (method_fits(route, method)) {
            return route;
        }
        *out_allow = route->method;
        tess__response_error(out, 405, "this path answers %s only", route->method);
        return NULL;
    }
    tess__response_error(out, 404, "there is nothing at this path");
    return NULL;
}

/* ---- receiving ----------------------------------------------------------------------------- */

static void set_deadline(tess__http *http, struct MHD_Connection *connection, double seconds)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    peer *p = info ? info->socket_context : NULL;
    if (p) {
        pthread_mutex_lock(&http->lock);
        p->deadline = seconds > 0 ? tess_seconds() + seconds : 0;
        pthread_mutex_unlock(&http->lock);
    }
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

/* The announced length of a body; 0 when none is.  The library has refused what is no number. */
static unsigned long long announced_bytes(struct MHD_Connection *connection)
{
    const char *length = header(connection, "Content-Length");
    return length ? strtoull(length, NULL, 10) : 0;
}

/* Takes n bytes of what all requests together may hold. */
static bool reserve(tess__http *http, exchange *e, size_t n)
{
    size_t before = atomic_fetch_add(&http->total_bytes, n);
    e->reserved_bytes += n;
    return before + n <= http->options.max_total_bytes;
}

static void append(tess__http *http, exchange *e, const char *data, size_t n)
{
    if (e->too_large || e->too_busy) {
        return; /* read over, answered at the end */
    }
    e->too_large = n > http->options.max_body_bytes - e->body.n_bytes;
    e->too_busy = !e->too_large && !reserve(http, e, n);
    if (e->too_large || e->too_busy) {
        tess_buf_deinit(&e->body);
        return;
    }
    tess_buf_add(&e->body, data, n);
    e->too_busy = e->body.failed;
}

static void refuse_size(const tess__http *http, tess__response *out)
{
    tess__response_error(out, 413, "the request is larger than %zu bytes",
                         http->options.max_body_bytes);
}

/* A request's headers are here: its state, or its refusal before the body is read. */
static enum MHD_Result begin(tess__http *http, struct MHD_Connection *connection, const char *url,
                             const char *method, void **state)
{
    tess__response r = {0};
    const char *allow = NULL;
    exchange *e = tess_alloc(sizeof(*e));
    if (!e) {
        return MHD_NO;
    }
    *state = e;
    e->t_start = tess_seconds();
    atomic_fetch_add(&http->n_active, 1);
    if (!find_route(http, method, url, &r, &allow)) {
        return send_response(connection, &r, allow);
    }
    if (header(connection, "Transfer-Encoding") && header(connection, "Content-Length")) {
        tess__response_error(&r, 400, "Content-Length and Transfer-Encoding together");
        return send_response(connection, &r, NULL);
    }
    if (announced_bytes(connection) > http->options.max_body_bytes) {
        refuse_size(http, &r);
        return send_response(connection, &r, NULL);
    }
    return MHD_YES;
}

/* The whole request is here: runs its handler. */
static enum MHD_Result answer(tess__http *http, struct MHD_Connection *connection, const char *url,
                              const char *method, exchange *e)
{
    tess__response r = {0};
    const char *allow = NULL;
    const tess__route *route = find_route(http, method, url, &r, &allow);
    set_deadline(http, connection, 0);
    if (route && e->too_large) {
        refuse_size(http, &r);
    } else if (route && e->too_busy) {
        tess__response_error(&r, 503, "too many requests at once; try again");
    } else if (route) {
        tess__request request = {
            .method = method,
            .path = url,
            .content_type = header(connection, "Content-Type"),
            .body = {.data = (const uint8_t *)e->body.data, .n_bytes = e->body.n_bytes},
        };
        route->handler(http->options.ctx, &request, &r);
    }
    tess_log(TESS_LOG_INFO, "%s %s %d %.1f ms", method, route ? route->path : "?",
             r.status ? r.status : 200, 1e3 * (tess_seconds() - e->t_start));
    set_deadline(http, connection, http->options.send_seconds);
    return send_response(connection, &r, allow);
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n_bytes, void **state)
{
    (void)version;
    tess__http *http = ctx;
    if (!*state) {
        return begin(http, connection, url, method, state);
    }
    if (*n_bytes > 0) {
        append(http, *state, data, *n_bytes);
        *n_bytes = 0;
        return MHD_YES;
    }
    return answer(http, connection, url, method, *state);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)code;
    tess__http *http = ctx;
    exchange *e = *state;
    if (e) {
        atomic_fetch_sub(&http->total_bytes, e->reserved_bytes);
        atomic_fetch_sub(&http->n_active, 1);
        tess_buf_deinit(&e->body);
        tess_free(e);
        *state = NULL;
    }
    set_deadline(http, connection, http->options.receive_seconds);
}

/* ---- connections and their watchdog -------------------------------------------------------- */

static void add_peer(tess__http *http, struct MHD_Connection *connection, void **socket_context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    peer *p = info ? tess_alloc(sizeof(*p)) : NULL;
    if (!p) {
        return; /* not watched: the library's own time-out still holds */
    }
    p->fd = info->connect_fd;
    p->deadline = tess_seconds() + http->options.receive_seconds;
    pthread_mutex_lock(&http->lock);
    p->next = http->peers;
    p->link = &http->peers;
    if (p->next) {
        p->next->link = &p->next;
    }
    http->peers = p;
    pthread_mutex_unlock(&http->lock);
    *socket_context = p;
}

static void remove_peer(tess__http *http, void **socket_context)
{
    peer *p = *socket_context;
    if (!p) {
        return;
    }
    pthread_mutex_lock(&http->lock);
    *p->link = p->next;
    if (p->next) {
        p->next->link = p->link;
    }
    pthread_mutex_unlock(&http->lock);
    tess_free(p);
    *socket_context = NULL;
}

static void on_connection(void *ctx, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        add_peer(ctx, connection, socket_context);
    } else {
        remove_peer(ctx, socket_context);
    }
}

static void shut_overdue(tess__http *http)
{
    double now = tess_seconds();
    for (peer *p = http->peers; p; p = p->next) {
        if (p->deadline > 0 && now > p->deadline) {
            /* The fd is closed only after remove_peer, so it is still this connection's. */
            shutdown(p->fd, SHUT_RDWR);
            p->deadline = 0;
        }
    }
}

static void *watch(void *ctx)
{
    tess__http *http = ctx;
    pthread_mutex_lock(&http->lock);
    while (!http->stopping) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)(WATCH_SECONDS * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&http->wake, &http->lock, &until);
        shut_overdue(http);
    }
    pthread_mutex_unlock(&http->lock);
    return NULL;
}

/* ---- starting and stopping ----------------------------------------------------------------- */

typedef union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} address;

static tess_status read_address(const char *host, int port, address *out)
{
    const char *name = !host || strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    *out = (address){0};
    if (port < 0 || port > 65535) {
        return TESS_FAIL(TESS_INVALID, "port %d: expected 0 to 65535", port);
    }
    if (inet_pton(AF_INET, name, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons((uint16_t)port);
        return TESS_OK;
    }
    if (inet_pton(AF_INET6, name, &out->v6.sin6_addr) == 1) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons((uint16_t)port);
        return TESS_OK;
    }
    return TESS_FAIL(TESS_INVALID, "%s: not an IPv4 or IPv6 address, nor localhost", name);
}

static void on_library_log(void *ctx, const char *fmt, va_list args) TESS_PRINTF(2, 0);
static void on_library_log(void *ctx, const char *fmt, va_list args)
{
    (void)ctx;
    char line[512];
    vsnprintf(line, sizeof(line), fmt, args);
    line[strcspn(line, "\n")] = 0;
    tess_log(TESS_LOG_DEBUG, "http: %s", line);
}

static tess_status start_daemon(tess__http *http, const address *where)
{
    const tess__http_options *o = &http->options;
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG |
                     (where->any.sa_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    double longest = o->receive_seconds > o->send_seconds ? o->receive_seconds : o->send_seconds;
    errno = 0;
    http->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_library_log, http,
        MHD_OPTION_SOCK_ADDR, &where->any, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)o->max_connections, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_BYTES,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)longest + 1, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    if (!http->daemon) {
        char place[64];
        snprintf(place, sizeof(place), "%.40s port %d", o->host ? o->host : "127.0.0.1", o->port);
        errno = errno ? errno : EADDRINUSE;
        return tess__fail_errno("cannot listen on", place);
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
    http->port = info ? info->port : o->port;
    return TESS_OK;
}

tess_status tess__http_start(const tess__http_options *options, tess__http **out)
{
    address where;
    TESS_TRY(read_address(options->host, options->port, &where));
    tess__http *http = tess_alloc(sizeof(*http));
    if (!http) {
        return TESS_NOMEM;
    }
    http->options = *options;
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->wake, NULL);
    tess_status st = start_daemon(http, &where);
    if (st == TESS_OK) {
        http->has_watchdog = pthread_create(&http->watchdog, NULL, watch, http) == 0;
        st = http->has_watchdog ? TESS_OK : TESS_FAIL(TESS_NOMEM, "cannot start a thread");
    }
    if (st != TESS_OK) {
        tess__http_stop(http);
        return st;
    }
    *out = http;
    return TESS_OK;
}

int tess__http_port(const tess__http *http)
{
    return http->port;
}

/* Waits, but not for ever, until no request is under way. */
static void drain(tess__http *http)
{
    double until = tess_seconds() + http->options.stop_seconds;
    while (atomic_load(&http->n_active) > 0 && tess_seconds() < until) {
        usleep(5000);
    }
}

void tess__http_stop(tess__http *http)
{
    if (!http) {
        return;
    }
    if (http->daemon) {
        int listener = MHD_quiesce_daemon(http->daemon);
        drain(http);
        MHD_stop_daemon(http->daemon);
        if (listener >= 0) {
            close(listener);
        }
    }
    if (http->has_watchdog) {
        pthread_mutex_lock(&http->lock);
        http->stopping = true;
        pthread_cond_signal(&http->wake);
        pthread_mutex_unlock(&http->lock);
        pthread_join(http->watchdog, NULL);
    }
    pthread_cond_destroy(&http->wake);
    pthread_mutex_destroy(&http->lock);
    tess_free(http);
}
