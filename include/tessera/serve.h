/* SPDX-License-Identifier: Apache-2.0 */
/* serve: search over an index by HTTP, with one embedded page.
 *
 * The model is two callbacks, so this floor needs none to be tested.  Routes (docs/serve.md):
 *   GET  /                   the page; /app.js and /app.css belong to it
 *   GET  /healthz            {"status":"ok"}; does not wait for the model
 *   GET  /v1/info            what the index is
 *   POST /v1/search          text, picture or both -> the nearest rows
 *   GET  /v1/picture/ROW     a row's picture
 * Nothing is fetched for a client and no path of a client's is opened.  There is no TLS and no
 * password: listen on loopback, or put a proxy in front.
 */
#ifndef TESSERA_SERVE_H
#define TESSERA_SERVE_H

#include "tessera/index.h"

/* Query to unit vector out (Z).  TESS_INVALID, TESS_FORMAT or TESS_UNSUPPORTED blame the query (the
 * client gets a 400, the message only the log).  Called by up to n_workers threads at once. */
typedef tess_status tess_embed_text_fn(void *ctx, const char *text, size_t n_bytes, float *out);
typedef tess_status tess_embed_picture_fn(void *ctx, tess_bytes encoded, float *out);
/* A small re-encoded picture appended to `out`, and its media type (static). */
typedef tess_status tess_thumbnail_fn(void *ctx, tess_bytes encoded, tess_buf *out,
                                      const char **out_type);

typedef struct tess_server_options {
    const char *host;                     /* an address or "localhost"; NULL: 127.0.0.1 */
    int port;                             /* 0: any free one, see tess_server_port */
    tess_index *index;                    /* borrowed; must outlive the server */
    tess_embed_text_fn *embed_text;       /* NULL: text queries are refused */
    tess_embed_picture_fn *embed_picture; /* NULL: picture queries are refused */
    tess_thumbnail_fn
        *thumbnail; /* NULL: the source's own bytes, if they are JPEG, PNG, WebP, GIF */
    void *ctx;      /* of the three callbacks */

    /* Limits; 0: the default in brackets. */
    int n_workers;          /* threads that embed, search and scale [1: callbacks never overlap] */
    int max_waiting;        /* requests waiting for a worker; more get 503 [64] */
    int max_connections;    /* [128] */
    size_t max_body_bytes;  /* of a request; more get 413 [16 MiB] */
    size_t max_total_bytes; /* of all requests being received; more get 503 [256 MiB] */
    size_t max_text_bytes;  /* of a text query [8192] */
    int64_t max_k;          /* results [200, at most TESS_INDEX_MAX_K] */
    double receive_seconds; /* from a connection's start, or the last answer, to the end of a
                               request, however steadily bytes trickle in [30] */
    double send_seconds;    /* for the answer to reach the client [60] */
    double stop_seconds;    /* what tess_server_stop waits for answers under way [5] */
} tess_server_options;

typedef struct tess_server tess_server;

/* Starts the server on threads of its own and returns.  TESS_IO when the address is taken or not
 * this machine's. */
TESS_MUST_USE tess_status tess_server_start(const tess_server_options *options, tess_server **out);
int tess_server_port(const tess_server *s);
/* Takes no new connections, answers what is under way, ends the threads, frees.  Not for signal
 * handlers: let one set tess_cancelled, and call this from the thread that waits. */
void tess_server_stop(tess_server *s);

#endif
