/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP: requests to plain functions through a table of routes.  The one door to libmicrohttpd. */
#ifndef TESSERA_SERVE_HTTP_H
#define TESSERA_SERVE_HTTP_H

#include "tessera/base.h"

typedef struct tess__request {
    const char *method, *path;
    const char *content_type; /* NULL: none was sent */
    tess_bytes body;
} tess__request;

typedef struct tess__response {
    int status;        /* 0: 200 */
    const char *type;  /* media type; NULL: application/json */
    const char *cache; /* Cache-Control; NULL: no-store */
    tess_buf body;
    tess_bytes fixed; /* instead of body: lives as long as the program */
} tess__response;

/* Answers one request; called on the connection's own thread, many at once. */
typedef void tess__handler_fn(void *ctx, const tess__request *request, tess__response *out);

typedef struct tess__route {
    const char *method; /* GET answers HEAD too */
    const char *path;   /* ending in '/', but not "/" itself: whatever begins with it */
    tess__handler_fn *handler;
} tess__route;

typedef struct tess__http_options {
    const char *host;
    int port, max_connections;
    size_t max_body_bytes, max_total_bytes;
    double receive_seconds, send_seconds, stop_seconds;
    const tess__route *routes;
    int64_t n_routes;
    void *ctx; /* of the handlers */
} tess__http_options;

typedef struct tess__http tess__http;

TESS_MUST_USE tess_status tess__http_start(const tess__http_options *options, tess__http **out);
int tess__http_port(const tess__http *http);
void tess__http_stop(tess__http *http);

/* Makes the response {"error":{"message":...,"type":...}} of that status. */
void tess__response_error(tess__response *out, int status, const char *fmt, ...) TESS_PRINTF(3, 4);

#endif
