/* SPDX-License-Identifier: Apache-2.0 */
/* tessera serve: an index and its model behind HTTP, until a signal. */
#include "cli/query.h"
#include "cli/verbs.h"

#include "tessera/serve.h"

#include <time.h>

typedef struct serve_values {
    cli_embedder embedder;
    const char *host;
    int64_t port, max_body_mb;
} serve_values;

static const cli_option serve_options[] = {
    CLI_EMBEDDER_OF_INDEX(serve_values),
    {.name = "host",
     .kind = CLI_STRING,
     .fallback = "127.0.0.1",
     CLI_AT(serve_values, host),
     .value = "ADDRESS",
     .help = "Address to listen on; there is no password, so think before you "
             "open it to others"},
    {.name = "port",
     .short_name = 'p',
     .kind = CLI_INT,
     .fallback = "8080",
     .min = 0,
     .max = 65535,
     CLI_AT(serve_values, port),
     .value = "N",
     .help = "Port; 0: any free one"},
    {.name = "max-body-mb",
     .kind = CLI_INT,
     .fallback = "16",
     .min = 1,
     .max = 1024,
     CLI_AT(serve_values, max_body_mb),
     .value = "MB",
     .help = "Largest request"},
    CLI_COMPUTES(serve_values),
};

/* The model computes with all cores for one query at a time: the server has one worker. */
static tess_status embed_text(void *ctx, const char *text, size_t n_bytes, float *out)
{
    return tess_model_embed_text(ctx, text, n_bytes, out);
}

static tess_status embed_picture(void *ctx, tess_bytes encoded, float *out)
{
    return tess_model_embed_picture(ctx, encoded, out);
}

static tess_status announce(const cli_command *cmd, const tess_server *s, const tess_index *ix,
                            bool has_image)
{
    const serve_values *v = cmd->values;
    tess_buf out = {0};
    if (cmd->common.json) {
        tess_json_writer w = {.buf = &out};
        tess_json_begin_object(&w);
        tess_json_key(&w, "host");
        tess_json_add_string(&w, v->host);
        tess_json_key(&w, "port");
        tess_json_add_int(&w, tess_server_port(s));
        tess_json_end_object(&w);
        tess_buf_adds(&out, "\n");
    } else {
        tess_buf_addf(&out, "%lld %s at http://%s:%d/ (Ctrl-C ends)\n",
                      (long long)tess_index_count(ix), has_image ? "pictures" : "texts", v->host,
                      tess_server_port(s));
    }
    tess_status st = cli_print(&out);
    tess_buf_deinit(&out);
    return st;
}

static tess_status serve(cli_command *cmd, tess_index *ix, tess_model *m)
{
    const serve_values *v = cmd->values;
    tess_server *s = NULL;
    tess_server_options o = {.host = v->host,
                             .port = (int)v->port,
                             .index = ix,
                             .embed_text = embed_text,
                             .embed_picture = tess_model_has_image(m) ? embed_picture : NULL,
                             .ctx = m,
                             .n_workers = 1,
                             .max_body_bytes = (size_t)v->max_body_mb << 20};
    TESS_TRY(tess_server_start(&o, &s));
    tess_status st = announce(cmd, s, ix, tess_model_has_image(m));
    while (st == TESS_OK && !tess_cancelled) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
    tess_server_stop(s);
    return st;
}

static tess_status run_serve(cli_command *cmd)
{
    const serve_values *v = cmd->values;
    tess_index *ix = NULL;
    tess_model *m = NULL;
    tess_compute_threads(0);
    tess_status st = cli_open_index(cmd->args[0], &v->embedder, &ix, &m);
    st = st ? st : serve(cmd, ix, m);
    tess_index_close(ix);
    tess_model_free(m);
    return st;
}

const cli_verb cli_verb_serve = {
    .name = "serve",
    .summary = "Serve search over an index, with a page for the browser",
    .options = serve_options,
    .n_options = TESS_COUNT(serve_options),
    .values_bytes = sizeof(serve_values),
    .positional = "INDEX",
    .min_args = 1,
    .max_args = 1,
    .args_are_files = true,
    .computes = true,
    .about = "POST /v1/search takes {\"text\": ..., \"k\": ...} or a form with text and image; "
             "/healthz says that it lives; / is a page with a search box and a place to drop a "
             "picture. There is no TLS: put a proxy in front of anything but this machine.",
    .examples =
        "$ tessera serve demo/index\n"
        "$ curl -s http://127.0.0.1:8080/v1/search -d '{\"text\": \"un chat noir\", \"k\": 5}'",
    .run = run_serve,
};
