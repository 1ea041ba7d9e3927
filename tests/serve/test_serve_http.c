/* SPDX-License-Identifier: Apache-2.0 */
/* The server, driven over raw sockets by good and bad clients.  The model is two small functions.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tessera/serve.h"

enum { DIM = 4, ROWS = 12 };

static const char png[] = "\x89PNG\r\n\x1a\nnot much of a picture";

static char *dir;
static tess_index *ix;
static tess_server *server;
static int port;

/* ---- the model, the index, the server ---- */

/* "red", "green", "blue" are the axes; anything else is between them. */
static tess_status embed_text(void *ctx, const char *text, size_t n_bytes, float *out)
{
    (void)ctx;
    static const char *const axes[DIM] = {"red", "green", "blue", "grey"};
    if (n_bytes == 4 && memcmp(text, "slow", 4) == 0) {
        usleep(300000);
    }
    if (n_bytes == 3 && memcmp(text, "bad", 3) == 0) {
        return TESS_FAIL(TESS_INVALID, "secret detail of the tokenizer");
    }
    if (n_bytes == 6 && memcmp(text, "broken", 6) == 0) {
        return TESS_FAIL(TESS_DEVICE, "secret detail at 0x7f001234");
    }
    for (int i = 0; i < DIM; i++) {
        bool is_axis = strlen(axes[i]) == n_bytes && memcmp(axes[i], text, n_bytes) == 0;
        out[i] = is_axis ? 1 : 0.01f;
    }
    return TESS_OK;
}

/* A picture is "AXIS=n". */
static tess_status embed_picture(void *ctx, tess_bytes encoded, float *out)
{
    (void)ctx;
    if (encoded.n_bytes != 6 || memcmp(encoded.data, "AXIS=", 5) != 0) {
        return TESS_FAIL(TESS_FORMAT, "secret detail of the decoder");
    }
    memset(out, 0, DIM * sizeof(*out));
    out[(encoded.data[5] - '0') % DIM] = 1;
    return TESS_OK;
}

static void make_index(void)
{
    char name[] = "/tmp/tess_serve_XXXXXX";
    dir = tess_strdup(mkdtemp(name));
    char *path = tess_format("%s/ix", dir), *picture = tess_format("%s/p.png", dir);
    char *text_file = tess_format("%s/p.html", dir);
    assert_int_equal(tess_file_write(picture, png, sizeof(png) - 1), TESS_OK);
    assert_int_equal(tess_file_write(text_file, "<script>alert(1)</script>", 25), TESS_OK);
    tess_index_options options = {.dim = DIM, .fingerprint = "f", .model = "/secret/model"};
    tess_index_builder *b = NULL;
    assert_int_equal(tess_index_builder_open(path, &options, &b), TESS_OK);
    for (int i = 0; i < ROWS; i++) {
        float x[DIM] = {0};
        char key[16];
        x[i % DIM] = 1;
        x[(i + 1) % DIM] += 0.1f * (float)(i / DIM);
        snprintf(key, sizeof(key), "row-%d", i);
        tess_row row = {.key = key,
                        .path = i == 1   ? text_file
                                : i == 2 ? "/nonexistent/p.png"
                                         : picture,
                        .captions = i == 3 ? NULL : "{\"en\":\"<b>bold</b>\",\"ar\":\"قطة\"}"};
        assert_int_equal(tess_index_builder_add(b, x, &row, 1), TESS_OK);
    }
    assert_int_equal(tess_index_builder_commit(b), TESS_OK);
    assert_int_equal(tess_index_open(path, "f", &ix), TESS_OK);
    tess_free(path);
    tess_free(picture);
    tess_free(text_file);
}

static tess_server *start(int n_workers, int max_waiting)
{
    tess_server_options options = {
        .index = ix,
        .embed_text = embed_text,
        .embed_picture = embed_picture,
        .n_workers = n_workers,
        .max_waiting = max_waiting,
        .max_body_bytes = 100000,
        .max_k = 20,
        .receive_seconds = 1.0,
        .stop_seconds = 2,
    };
    tess_server *s = NULL;
    if (tess_server_start(&options, &s) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return s;
}

static int set_up(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    make_index();
    server = start(2, 64);
    port = tess_server_port(server);
    return port > 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tess_server_stop(server);
    tess_server_stop(NULL);
    tess_index_close(ix);
    int failed = tess_dir_remove(dir);
    tess_free(dir);
    return failed;
}

/* ---- a client ---- */

static int connect_to(int to_port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)to_port)};
    struct timeval limit = {.tv_sec = 20};
    inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&where, sizeof(where)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Sends all that the server takes; it may have answered and closed before the end. */
static void send_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        data += sent;
        n -= (size_t)sent;
    }
}

/* Everything until the server closes. */
static tess_buf read_all(int fd)
{
    tess_buf reply = {0};
    char chunk[4096];
    ssize_t n;
    while ((n = recv(fd, chunk, sizeof(chunk), 0)) > 0) {
        tess_buf_add(&reply, chunk, (size_t)n);
    }
    if (!reply.data) {
        tess_buf_adds(&reply, "");
    }
    return reply;
}

static int status_of(const tess_buf *reply)
{
    int status = 0;
    return sscanf(reply->data ? reply->data : "", "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

/* One exchange of raw bytes; the reply is the caller's to free. */
static tess_buf exchange(const char *data, size_t n)
{
    int fd = connect_to(port);
    assert_true(fd >= 0);
    send_all(fd, data, n);
    tess_buf reply = read_all(fd);
    close(fd);
    return reply;
}

static tess_buf request(const char *method, const char *path, const char *type, const char *body)
{
    tess_buf data = {0};
    tess_buf_addf(&data, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", method, path);
    if (type) {
        tess_buf_addf(&data, "Content-Type: %s\r\n", type);
    }
    if (body) {
        tess_buf_addf(&data, "Content-Length: %zu\r\n\r\n", strlen(body));
    }
    tess_buf_adds(&data, body ? body : "\r\n");
    tess_buf reply = exchange(data.data, data.n_bytes);
    tess_buf_deinit(&data);
    return reply;
}

static tess_buf post(const char *body)
{
    return request("POST", "/v1/search", "application/json", body);
}

/* Status and a part of the reply, which is freed. */
static void expect(tess_buf reply, int status, const char *part)
{
    if (status_of(&reply) != status || !strstr(reply.data, part)) {
        fail_msg("expected %d and \"%s\", found: %.600s", status, part, reply.data);
    }
    tess_buf_deinit(&reply);
}

/* ---- good requests ---- */

static void test_pages(void **state)
{
    (void)state;
    static const struct {
        const char *path, *part;
    } cases[] = {
        {"/", "<!doctype html>"},
        {"/", "Content-Type: text/html; charset=utf-8"},
        {"/", "Content-Security-Policy: default-src 'none'"},
        {"/app.js", "Content-Type: text/javascript"},
        {"/app.js", "\"use strict\";"},
        {"/app.css", "Content-Type: text/css"},
        {"/icon.svg", "image/svg+xml"},
        {"/healthz", "{\"status\":\"ok\"}"},
        {"/healthz", "X-Content-Type-Options: nosniff"},
        {"/v1/info", "\"n_rows\":12,\"n_texts\":0"},
        {"/?q=cat", "<!doctype html>"},
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        expect(request("GET", cases[i].path, NULL, NULL), 200, cases[i].part);
    }
    tess_buf head = request("HEAD", "/", NULL, NULL);
    assert_null(strstr(head.data, "<!doctype"));
    expect(head, 200, "Content-Length: ");
    tess_buf info = request("GET", "/v1/info", NULL, NULL);
    assert_null(strstr(info.data, "/secret/model"));
    expect(info, 200, "\"image\":true");
    /* The policy forbids inline code: none may be in the page, nor any HTML built from strings. */
    tess_buf page = request("GET", "/", NULL, NULL), script = request("GET", "/app.js", NULL, NULL);
    assert_null(strstr(page.data, " style="));
    assert_null(strstr(page.data, "onclick"));
    assert_null(strstr(script.data, "innerHTML"));
    tess_buf_deinit(&page);
    tess_buf_deinit(&script);
}

static void test_search_by_text(void **state)
{
    (void)state;
    expect(post("{\"text\":\"green\",\"k\":1}"), 200,
           "{\"results\":[{\"id\":1,\"key\":\"row-1\",\"kind\":\"image\",\"score\":0.99");
    expect(post("{\"text\":\"green\",\"k\":1}"), 200,
           "\"thumbnail\":\"/v1/picture/1\"}],\"took_ms\":");
    expect(post("{\"text\":\"green\",\"k\":1}"), 200, "\"ar\":\"قطة\"");
    expect(post("{\"text\":\"grey\",\"k\":1}"), 200, "\"captions\":null");
    tess_buf all = post("{\"text\":\"red\",\"k\":20}"); /* k beyond the rows gives the rows */
    tess_json_doc *doc = NULL;
    char *body = strstr(all.data, "\r\n\r\n");
    assert_non_null(body);
    assert_int_equal(tess_json_parse(body + 4, strlen(body + 4), "reply", &doc), TESS_OK);
    const tess_json *results = tess_json_get(tess_json_root(doc), "results");
    assert_int_equal(tess_json_count(results), ROWS);
    double last = 2;
    for (size_t i = 0; i < tess_json_count(results); i++) {
        double score = tess_json_real(tess_json_get(tess_json_at(results, i), "score"), 9);
        assert_true(score <= last);
        last = score;
    }
    assert_null(strstr(all.data, dir)); /* source paths stay here */
    tess_json_free(doc);
    tess_buf_deinit(&all);
}

static void test_search_by_picture_and_both(void **state)
{
    (void)state;
    static const char form[] = "multipart/form-data; boundary=B";
    static const char picture[] =
        "--B\r\nContent-Disposition: form-data; name=\"image\"; "
        "filename=\"../../../etc/passwd\\\"; name=\\\"x\"\r\nContent-Type: image/png\r\n\r\nAXIS=2"
        "\r\n--B\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\n1\r\n";
    char *alone = tess_format("%s--B--\r\n", picture);
    expect(request("POST", "/v1/search", form, alone), 200, "\"key\":\"row-2\"");
    char *both = tess_format("%s--B\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nred\r\n"
                             "--B\r\nContent-Disposition: form-data; name=\"text_weight\"\r\n\r\n9"
                             "\r\n--B--\r\n",
                             picture);
    expect(request("POST", "/v1/search", form, both), 200, "\"key\":\"row-0\"");
    expect(post("{\"image\":\"QVhJUz0z\",\"k\":1}"), 200, "\"key\":\"row-3\"");
    expect(post("{\"image\":\"QVhJUz0z\",\"text\":\"red\",\"k\":1,"
                "\"weights\":{\"text\":0.1,\"image\":1}}"),
           200, "\"key\":\"row-7\""); /* the fourth axis with a little red */
    expect(post("{\"image\":\"QVhJUz0z\",\"text\":\"red\",\"weights\":{\"text\":0,\"image\":0}}"),
           400, "cancel out");
    tess_free(alone);
    tess_free(both);
}

static void test_pictures(void **state)
{
    (void)state;
    tess_buf reply = request("GET", "/v1/picture/0", NULL, NULL);
    char *body = strstr(reply.data, "\r\n\r\n");
    assert_non_null(body);
    assert_memory_equal(body + 4, png, sizeof(png) - 1);
    expect(reply, 200, "Content-Type: image/png");
    /* A page that was indexed as a picture is not served as one, nor is one that is gone. */
    expect(request("GET", "/v1/picture/1", NULL, NULL), 404, "cannot be read");
    expect(request("GET", "/v1/picture/2", NULL, NULL), 404, "cannot be read");
    static const char *const bad[] = {
        "12", "-1", "", "0x1", "1/2", "../0", "%2e%2e/0", "%00", "99999999999999999999999", "1%20"};
    for (int64_t i = 0; i < TESS_COUNT(bad); i++) {
        char *path = tess_format("/v1/picture/%s", bad[i]);
        tess_buf answer = request("GET", path, NULL, NULL);
        assert_true(status_of(&answer) == 404 || status_of(&answer) == 400);
        tess_buf_deinit(&answer);
        tess_free(path);
    }
}

/* ---- bad requests ---- */

static void test_wrong_paths_methods_and_types(void **state)
{
    (void)state;
    expect(request("GET", "/nothing", NULL, NULL), 404, "\"type\":\"not_found\"");
    expect(request("GET", "/app.js/", NULL, NULL), 404, "not_found");
    expect(request("GET", "/../../etc/passwd", NULL, NULL), 404, "not_found");
    expect(request("GET", "/v1/search", NULL, NULL), 405, "Allow: POST");
    expect(request("DELETE", "/v1/picture/1", NULL, NULL), 405, "method_not_allowed");
    expect(request("POST", "/healthz", "application/json", "{}"), 405, "Allow: GET");
    expect(request("POST", "/v1/search", "text/plain", "cat"), 415, "unsupported_media");
    expect(request("POST", "/v1/search", NULL, "cat"), 415, "Content-Type");
}

static void test_bad_bodies(void **state)
{
    (void)state;
    expect(post("{\"text\":"), 400, "\"type\":\"invalid_request\"");
    expect(post("{\"text\":\"a\",\"nonsense\":1}"), 400, "nonsense");
    expect(post("{\"text\":\"a\",\"k\":21}"), 400, "1 to 20");
    expect(post("{\"image\":\"QUJD\"}"), 400, "the picture cannot be read");
    expect(request("POST", "/v1/search", "multipart/form-data; boundary=B",
                   "--B\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\ncut off"),
           400, "cut off");
    /* A failure's detail is for the log. */
    tess_buf bad = post("{\"text\":\"bad\"}"), broken = post("{\"text\":\"broken\"}");
    assert_null(strstr(bad.data, "secret"));
    assert_null(strstr(broken.data, "secret"));
    expect(bad, 400, "the text cannot be used");
    expect(broken, 500, "\"type\":\"internal\"");
}

static void test_large_bodies(void **state)
{
    (void)state;
    /* Announced: refused before it is sent. */
    static const char announced[] = "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: "
                                    "application/json\r\nContent-Length: 99999999999\r\n\r\n{";
    expect(exchange(announced, strlen(announced)), 413, "too_large");
    /* Chunked: read over and refused. */
    tess_buf data = {0};
    tess_buf_adds(&data,
                  "POST /v1/search HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: "
                  "application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 200; i++) {
        tess_buf_addf(&data, "3e8\r\n%1000d\r\n", 1);
    }
    tess_buf_adds(&data, "0\r\n\r\n");
    expect(exchange(data.data, data.n_bytes), 413, "larger than 100000");
    tess_buf_deinit(&data);
}

static void test_malformed_http(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
        "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 12abc\r\n\r\n{}",
        "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{}",
        ("POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
         "14\r\n"
         "Transfer-Encoding: chunked\r\nConnection: "
         "close\r\n\r\ne\r\n{\"text\":\"red\"}\r\n0\r\n\r\n"),
        ("POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
         "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        "POST /v1/search HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n",
        "GET /%zz%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    };
    for (int64_t i = 0; i < TESS_COUNT(cases); i++) {
        tess_buf reply = exchange(cases[i], strlen(cases[i]));
        int status = status_of(&reply);
        if (status != 0 && (status < 400 || status >= 600)) {
            fail_msg("case %lld: %.300s", (long long)i, reply.data);
        }
        tess_buf_deinit(&reply);
    }
    /* A header without end. */
    tess_buf data = {0};
    tess_buf_adds(&data, "GET / HTTP/1.1\r\nHost: x\r\n");
    for (int i = 0; i < 3000; i++) {
        tess_buf_addf(&data, "X-%d: %0100d\r\n", i, i);
    }
    tess_buf reply = exchange(data.data, data.n_bytes);
    assert_int_not_equal(status_of(&reply), 200);
    tess_buf_deinit(&reply);
    tess_buf_deinit(&data);
    expect(request("GET", "/healthz", NULL, NULL), 200, "ok");
}

/* One byte every tenth of a second, in the headers or in the body: each read comes in time, the
 * request as a whole does not. */
static void trickle(const char *head, const char *unit)
{
    int fd = connect_to(port);
    double begun = tess_seconds();
    send_all(fd, head, strlen(head));
    char c;
    while (tess_seconds() - begun < 15) {
        if (send(fd, unit, strlen(unit), MSG_NOSIGNAL) <= 0 || recv(fd, &c, 1, MSG_DONTWAIT) == 0) {
            break;
        }
        usleep(100000);
    }
    close(fd);
    assert_true(tess_seconds() - begun < 8); /* receive_seconds is 1; the machine may be busy */
}

static void test_slow_clients_are_cut_off(void **state)
{
    (void)state;
    trickle("GET / HTTP/1.1\r\n", "X-A: b\r\n");
    trickle("POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            "Content-Length: 9000\r\n\r\n{\"text\":\"",
            "a");
    expect(request("GET", "/healthz", NULL, NULL), 200, "ok");
}

/* Clients that vanish at every point of a request leave nothing behind. */
static void test_clients_that_vanish(void **state)
{
    (void)state;
    static const char whole[] = "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/"
                                "json\r\nContent-Length: 14\r\n\r\n{\"text\":\"red\"}";
    for (size_t n = 0; n <= strlen(whole); n += 5) {
        int fd = connect_to(port);
        send_all(fd, whole, n);
        close(fd);
    }
    expect(post("{\"text\":\"red\",\"k\":1}"), 200, "row-0");
}

static void test_keep_alive(void **state)
{
    (void)state;
    static const char two[] =
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        "POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Connection: close\r\nContent-Length: 20\r\n\r\n{\"text\":\"red\",\"k\":1}";
    tess_buf reply = exchange(two, strlen(two));
    assert_non_null(strstr(reply.data, "{\"status\":\"ok\"}"));
    expect(reply, 200, "row-0");
}

/* ---- many at once ---- */

typedef struct client {
    int n_requests, n_good, n_busy;
    const char *text;
} client;

static void *run_client(void *ctx)
{
    client *c = ctx;
    char body[64];
    snprintf(body, sizeof(body), "{\"text\":\"%s\",\"k\":3}", c->text);
    for (int i = 0; i < c->n_requests; i++) {
        tess_buf reply = i % 4 == 3 ? request("GET", "/v1/picture/0", NULL, NULL) : post(body);
        c->n_good += status_of(&reply) == 200;
        c->n_busy += status_of(&reply) == 503;
        tess_buf_deinit(&reply);
    }
    return NULL;
}

static void run_clients(client *clients, int n)
{
    pthread_t threads[16];
    for (int i = 0; i < n; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_client, &clients[i]), 0);
    }
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void test_many_clients(void **state)
{
    (void)state;
    client clients[8];
    for (int i = 0; i < 8; i++) {
        clients[i] = (client){.n_requests = 40, .text = i % 2 ? "red" : "blue"};
    }
    run_clients(clients, 8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(clients[i].n_good, 40);
    }
}

/* With one worker and one place in the queue, more requests are refused and none hang; health does
 * not wait for the model. */
static void test_overload_and_stop(void **state)
{
    (void)state;
    tess_server *small = start(1, 1);
    int old_port = port;
    port = tess_server_port(small);
    client clients[6];
    for (int i = 0; i < 6; i++) {
        clients[i] = (client){.n_requests = 1, .text = "slow"};
    }
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_client, &clients[i]), 0);
    }
    usleep(100000);
    double begun = tess_seconds();
    expect(request("GET", "/healthz", NULL, NULL), 200, "ok");
    assert_true(tess_seconds() - begun < 0.2 || getenv("TSAN_OPTIONS"));
    tess_server_stop(small); /* answers what is under way */
    int good = 0, busy = 0;
    for (int i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
        good += clients[i].n_good;
        busy += clients[i].n_busy;
    }
    assert_true(good >= 1);
    assert_int_equal(good + busy, 6);
    assert_true(busy >= 3);
    assert_int_equal(connect_to(port), -1);
    port = old_port;
}

static void test_bad_addresses(void **state)
{
    (void)state;
    tess_server *s = NULL;
    tess_server_options options = {.index = ix, .port = port};
    assert_int_equal(tess_server_start(&options, &s), TESS_IO); /* taken */
    assert_non_null(strstr(tess_error(), "cannot listen on"));
    options = (tess_server_options){.index = ix, .host = "example.com"};
    assert_int_equal(tess_server_start(&options, &s), TESS_INVALID);
    options = (tess_server_options){.index = ix, .port = 70000};
    assert_int_equal(tess_server_start(&options, &s), TESS_INVALID);
    options = (tess_server_options){0};
    assert_int_equal(tess_server_start(&options, &s), TESS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_search_by_text),
        cmocka_unit_test(test_search_by_picture_and_both),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_wrong_paths_methods_and_types),
        cmocka_unit_test(test_bad_bodies),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_malformed_http),
        cmocka_unit_test(test_slow_clients_are_cut_off),
        cmocka_unit_test(test_clients_that_vanish),
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_many_clients),
        cmocka_unit_test(test_overload_and_stop),
        cmocka_unit_test(test_bad_addresses),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
