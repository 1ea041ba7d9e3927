/* SPDX-License-Identifier: Apache-2.0 */
/* The server: its routes, and what each does with an index and the model's callbacks.
 *
 * A client's mistake is answered with what to do; a failure of ours with a fixed sentence, its
 * detail to the log: libraries' error texts are not for strangers.  Source paths never leave the
 * server.
 */
#include "tessera/serve.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "serve/assets.h"
#include "serve/http.h"
#include "serve/worker_pool.h"
#include "serve/search_query.h"

#define MAX_PICTURE_BYTES ((size_t)64 << 20) /* of a source that is read for a thumbnail */

struct tess_server {
    tess_server_options options;
    tess__query_limits limits;
    tess__pool *pool;
    tess__http *http;
    int64_t n_texts; /* of the index's rows */
    atomic_bool stopping;
};

/* One request on its way through the pool. */
typedef struct work {
    tess_server *server;
    const tess__request *request;
    tess__response *response;
    void (*run)(struct work *w);
} work;

static void run_work(void *ctx)
{
    work *w = ctx;
    w->run(w);
}

static void run_on_worker(tess_server *s, const tess__request *request, tess__response *response,
                          void (*run)(work *w))
{
    work w = {.server = s, .request = request, .response = response, .run = run};
    if (atomic_load(&s->stopping) || !tess__pool_run(s->pool, run_work, &w)) {
        tess__response_error(response, 503, "the server is busy; try again");
    }
}

/* A failure of ours: the reason to the log, a fixed sentence to the client. */
static void fail_internally(tess__response *out, tess_status st, const char *what)
{
    tess_log(TESS_LOG_ERROR, "cannot %s: %s", what, tess_error());
    int status = st == TESS_NOMEM || st == TESS_CANCELLED ? 503 : 500;
    tess__response_error(out, status, "cannot %s; the server's log says why", what);
}

/* ---- POST /v1/search ----------------------------------------------------------------------- */

static bool is_clients_fault(tess_status st)
{
    return st == TESS_INVALID || st == TESS_FORMAT || st == TESS_UNSUPPORTED;
}

/* Blames the client with `sentence`, or the server. */
static tess_status refuse_query(work *w, tess_status st, const char *sentence)
{
    if (is_clients_fault(st)) {
        tess_log(TESS_LOG_INFO, "query refused: %s", tess_error());
        tess__response_error(w->response, 400, "%s", sentence);
    } else {
        fail_internally(w->response, st, "embed the query");
    }
    return st;
}

/* Adds weight * e, e scaled to unit length. */
static void add_weighted(float *sum, const float *e, int64_t dim, double weight)
{
    double square = 0;
    for (int64_t i = 0; i < dim; i++) {
        square += (double)e[i] * e[i];
    }
    double scale = square > 0 ? weight / sqrt(square) : 0;
    for (int64_t i = 0; i < dim; i++) {
        sum[i] += (float)(e[i] * scale);
    }
}

/* The weighted sum of what the query gives, into sum (Z); e (Z) is for work. */
static tess_status embed(work *w, const tess__query *q, int64_t dim, float *e, float *sum)
{
    const tess_server_options *o = &w->server->options;
    if ((q->text && !o->embed_text) || (q->picture.data && !o->embed_picture)) {
        tess__response_error(w->response, 400, "this server does not search by %s",
                             q->text && !o->embed_text ? "text" : "picture");
        return TESS_UNSUPPORTED;
    }
    if (q->text) {
        tess_status st = o->embed_text(o->ctx, q->text, q->text_bytes, e);
        if (st != TESS_OK) {
            return refuse_query(w, st, "the text cannot be used as a query");
        }
        add_weighted(sum, e, dim, q->text_weight);
    }
    if (q->picture.data) {
        tess_status st = o->embed_picture(o->ctx, q->picture, e);
        if (st != TESS_OK) {
            return refuse_query(w, st, "the picture cannot be read: send a JPEG, PNG or WebP file");
        }
        add_weighted(sum, e, dim, q->picture_weight);
    }
    return TESS_OK;
}

static void write_captions(tess_json_writer *j, const tess_row *row)
{
    tess_json_doc *doc = NULL;
    tess_json_key(j, "captions");
    if (row->captions &&
        tess_json_parse(row->captions, strlen(row->captions), row->key, &doc) == TESS_OK) {
        tess_json_add_value(j, tess_json_root(doc));
    } else {
        tess_json_add_null(j);
    }
    tess_json_free(doc);
}

static void add_string(tess_json_writer *j, const char *key, const char *s)
{
    tess_json_key(j, key);
    tess_json_add_string(j, s);
}

static void add_int(tess_json_writer *j, const char *key, int64_t v)
{
    tess_json_key(j, key);
    tess_json_add_int(j, v);
}

static void write_hit(tess_json_writer *j, const tess_hit *hit, const tess_row *row)
{
    char path[48];
    snprintf(path, sizeof(path), "/v1/picture/%lld", (long long)hit->row);
    tess_json_begin_object(j);
    add_int(j, "id", hit->row);
    add_string(j, "key", row->key);
    add_string(j, "kind", tess_row_kind_name(row->kind));
    tess_json_key(j, "score");
    tess_json_add_real(j, hit->score);
    write_captions(j, row);
    add_int(j, "width", row->width);
    add_int(j, "height", row->height);
    add_string(j, "thumbnail", row->kind == TESS_ROW_IMAGE && row->path ? path : NULL);
    tess_json_end_object(j);
}

static tess_status write_results(tess_index *ix, const tess_hit *hits, int64_t n, double t_start,
                                 tess_buf *out)
{
    tess_json_writer j = {.buf = out};
    tess_json_begin_object(&j);
    tess_json_key(&j, "results");
    tess_json_begin_array(&j);
    for (int64_t i = 0; i < n; i++) {
        tess_arena arena = {0};
        tess_row row;
        tess_status st = tess_index_row(ix, hits[i].row, &arena, &row);
        if (st == TESS_OK) {
            write_hit(&j, &hits[i], &row);
        }
        tess_arena_deinit(&arena);
        TESS_TRY(st);
    }
    tess_json_end_array(&j);
    tess_json_key(&j, "took_ms");
    tess_json_add_real(&j, round(1e5 * (tess_seconds() - t_start)) / 100);
    tess_json_end_object(&j);
    return tess_buf_check(out);
}

/* Searches with sum (Z), which may have no length when weights cancel. */
static void search(work *w, const tess__query *q, const float *sum, tess_hit *hits, double t_start)
{
    tess_index *ix = w->server->options.index;
    int64_t n = 0;
    tess_status st = tess_index_search(ix, sum, 1, q->k, hits, &n);
    if (st == TESS_INVALID) {
        tess__response_error(w->response, 400,
                             "with these weights text and picture cancel out; change one");
        return;
    }
    if (st == TESS_OK) {
        st = write_results(ix, hits, n, t_start, &w->response->body);
    }
    if (st != TESS_OK) {
        fail_internally(w->response, st, "search the index");
    }
}

static void answer_query(work *w, const tess__query *q)
{
    double t_start = tess_seconds();
    int64_t dim = tess_index_dim(w->server->options.index);
    float *e = tess_alloc_array((size_t)dim, sizeof(*e));
    float *sum = tess_alloc_array((size_t)dim, sizeof(*sum));
    tess_hit *hits = tess_alloc_array((size_t)q->k, sizeof(*hits));
    if (!e || !sum || !hits) {
        fail_internally(w->response, TESS_NOMEM, "search");
    } else if (embed(w, q, dim, e, sum) == TESS_OK) {
        search(w, q, sum, hits, t_start);
    }
    tess_free(e);
    tess_free(sum);
    tess_free(hits);
}

static void run_search(work *w)
{
    tess_arena arena = {0};
    tess__query q;
    tess_status st = tess__query_read(w->request, &w->server->limits, &arena, &q);
    if (st == TESS_OK) {
        answer_query(w, &q);
    } else if (is_clients_fault(st)) {
        tess__response_error(w->response, st == TESS_UNSUPPORTED ? 415 : 400, "%s", tess_error());
    } else {
        fail_internally(w->response, st, "read the request");
    }
    tess_arena_deinit(&arena);
}

static void handle_search(void *ctx, const tess__request *request, tess__response *out)
{
    run_on_worker(ctx, request, out, run_search);
}

/* ---- GET /v1/picture/ROW ------------------------------------------------------------------- */

static const struct {
    const char *magic;
    size_t n_magic, at;
    const char *type;
} picture_types[] = {
    {"\xff\xd8\xff", 3, 0, "image/jpeg"},
    {"\x89PNG\r\n\x1a\n", 8, 0, "image/png"},
    {"WEBP", 4, 8, "image/webp"},
    {"GIF8", 4, 0, "image/gif"},
};

/* What the bytes are, by their first ones; NULL: no picture that a browser should be shown. */
static const char *picture_type(tess_bytes bytes)
{
    for (int64_t i = 0; i < TESS_COUNT(picture_types); i++) {
        size_t at = picture_types[i].at, n = picture_types[i].n_magic;
        if (bytes.n_bytes >= at + n && memcmp(bytes.data + at, picture_types[i].magic, n) == 0) {
            return picture_types[i].type;
        }
    }
    return NULL;
}

/* Digits only, no sign, no space: -1 otherwise. */
static int64_t read_row_id(const char *s)
{
    int64_t id = 0;
    size_t n = strspn(s, "0123456789");
    if (n == 0 || n > 18 || s[n]) {
        return -1;
    }
    for (; *s; s++) {
        id = 10 * id + (*s - '0');
    }
    return id;
}

static tess_status make_picture(tess_server *s, tess_bytes source, tess__response *out)
{
    out->cache = "private, max-age=300";
    if (s->options.thumbnail) {
        return s->options.thumbnail(s->options.ctx, source, &out->body, &out->type);
    }
    out->type = picture_type(source);
    if (!out->type) {
        return TESS_FAIL(TESS_FORMAT, "the source is not a JPEG, PNG, WebP or GIF");
    }
    tess_buf_add(&out->body, source.data, source.n_bytes);
    return tess_buf_check(&out->body);
}

static tess_status read_picture(tess_server *s, int64_t id, tess_arena *arena, tess__response *out)
{
    tess_row row;
    uint8_t *bytes = NULL;
    size_t n_bytes = 0;
    TESS_TRY(tess_index_row(s->options.index, id, arena, &row));
    TESS_TRY(tess_row_read(&row, MAX_PICTURE_BYTES, &bytes, &n_bytes));
    tess_status st = make_picture(s, (tess_bytes){.data = bytes, .n_bytes = n_bytes}, out);
    tess_free(bytes);
    return st;
}

static void run_picture(work *w)
{
    int64_t id = read_row_id(w->request->path + strlen("/v1/picture/"));
    if (id < 0 || id >= tess_index_count(w->server->options.index)) {
        tess__response_error(w->response, 404, "there is no such row");
        return;
    }
    tess_arena arena = {0};
    tess_status st = read_picture(w->server, id, &arena, w->response);
    if (st != TESS_OK) {
        tess_log(TESS_LOG_WARN, "picture of row %lld: %s", (long long)id, tess_error());
        tess__response_error(w->response, 404, "this row's picture cannot be read");
    }
    tess_arena_deinit(&arena);
}

static void handle_picture(void *ctx, const tess__request *request, tess__response *out)
{
    run_on_worker(ctx, request, out, run_picture);
}

/* ---- the rest ------------------------------------------------------------------------------ */

static void handle_health(void *ctx, const tess__request *request, tess__response *out)
{
    (void)request;
    tess_server *s = ctx;
    if (atomic_load(&s->stopping)) {
        tess__response_error(out, 503, "the server is stopping");
        return;
    }
    tess_buf_adds(&out->body, "{\"status\":\"ok\"}");
}

/* Not all that tess_index_info says: where files lie is no business of a client's. */
static void handle_info(void *ctx, const tess__request *request, tess__response *out)
{
    (void)request;
    tess_server *s = ctx;
    tess_json_writer j = {.buf = &out->body};
    tess_json_begin_object(&j);
    add_string(&j, "tessera", TESS_VERSION);
    add_string(&j, "fingerprint", tess_index_fingerprint(s->options.index));
    add_int(&j, "dim", tess_index_dim(s->options.index));
    add_int(&j, "n_rows", tess_index_count(s->options.index));
    add_int(&j, "n_texts", s->n_texts);
    add_int(&j, "max_k", s->limits.max_k);
    tess_json_key(&j, "text");
    tess_json_add_bool(&j, s->options.embed_text != NULL);
    tess_json_key(&j, "image");
    tess_json_add_bool(&j, s->options.embed_picture != NULL);
    tess_json_end_object(&j);
}

static void handle_asset(void *ctx, const tess__request *request, tess__response *out)
{
    (void)ctx;
    tess__asset asset;
    if (!tess__asset_find(request->path, &asset)) {
        tess__response_error(out, 404, "there is nothing at this path");
        return;
    }
    out->type = asset.type;
    out->fixed = asset.data;
    out->cache = "no-cache";
}

static const tess__route routes[] = {
    {"GET", "/", handle_asset},
    {"GET", "/app.js", handle_asset},
    {"GET", "/app.css", handle_asset},
    {"GET", "/icon.svg", handle_asset},
    {"GET", "/healthz", handle_health},
    {"GET", "/v1/info", handle_info},
    {"GET", "/v1/picture/", handle_picture},
    {"POST", "/v1/search", handle_search},
};

/* ---- starting and stopping ----------------------------------------------------------------- */

#define DEFAULT(field, value) ((field) > 0 ? (field) : (value))

static void fill_in(tess_server_options *o)
{
    o->n_workers = DEFAULT(o->n_workers, 1);
    o->max_waiting = DEFAULT(o->max_waiting, 64);
    o->max_connections = DEFAULT(o->max_connections, 128);
    o->max_body_bytes = DEFAULT(o->max_body_bytes, (size_t)16 << 20);
    o->max_total_bytes = DEFAULT(o->max_total_bytes, (size_t)256 << 20);
    o->max_text_bytes = DEFAULT(o->max_text_bytes, 8192);
    o->max_k = DEFAULT(o->max_k, 200);
    o->max_k = o->max_k < TESS_INDEX_MAX_K ? o->max_k : TESS_INDEX_MAX_K;
    o->receive_seconds = DEFAULT(o->receive_seconds, 30);
    o->send_seconds = DEFAULT(o->send_seconds, 60);
    o->stop_seconds = DEFAULT(o->stop_seconds, 5);
}

static tess_status start(tess_server *s)
{
    const tess_server_options *o = &s->options;
    TESS_TRY(tess__pool_new(o->n_workers, o->max_waiting, &s->pool));
    tess__http_options http = {
        .host = o->host,
        .port = o->port,
        .max_connections = o->max_connections,
        .max_body_bytes = o->max_body_bytes,
        .max_total_bytes = o->max_total_bytes,
        .receive_seconds = o->receive_seconds,
        .send_seconds = o->send_seconds,
        .stop_seconds = o->stop_seconds,
        .routes = routes,
        .n_routes = TESS_COUNT(routes),
        .ctx = s,
    };
    return tess__http_start(&http, &s->http);
}

tess_status tess_server_start(const tess_server_options *options, tess_server **out)
{
    if (!options->index) {
        return TESS_FAIL(TESS_INVALID, "a server needs an index");
    }
    tess_server *s = tess_alloc(sizeof(*s));
    if (!s) {
        return TESS_NOMEM;
    }
    s->options = *options;
    fill_in(&s->options);
    s->limits = (tess__query_limits){s->options.max_text_bytes, s->options.max_k};
    tess_status st = tess_index_count_kind(s->options.index, TESS_ROW_TEXT, &s->n_texts);
    st = st ? st : start(s);
    if (st != TESS_OK) {
        tess_server_stop(s);
        return st;
    }
    *out = s;
    return TESS_OK;
}

int tess_server_port(const tess_server *s)
{
    return tess__http_port(s->http);
}

void tess_server_stop(tess_server *s)
{
    if (!s) {
        return;
    }
    atomic_store(&s->stopping, true);
    tess__http_stop(s->http);
    tess__pool_free(s->pool);
    tess_free(s);
}
