/* SPDX-License-Identifier: Apache-2.0 */
/* Clusters: a table of cards by their data sheets, and JSON files.
 *
 * Rates of the table are what is reached, not what is printed on the box: products at the share of
 * the nominal bf16 rate that large products reach on random data, attention at what kernels for
 * heads of 64 reach, memory at 85 % of nominal, links at what rings of NCCL reach within a host and
 * 85 % of a card's share of the network between hosts.  docs/plan.md has the sources. */
#include "tessera/planning.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- cards ---------------------------------------------------------------------------------- */

typedef struct card {
    const char *name;
    double memory_gb, tflops_f32, tflops_bf16, tflops_attention, bandwidth_gbs, link_gbs, net_gbs;
} card;

static const card cards[] = {
    {"v100", 32, 13, 90, 40, 765, 130, 10},        {"a100", 80, 120, 255, 120, 1730, 230, 21},
    {"a100-40", 40, 120, 255, 120, 1320, 230, 21}, {"h100", 80, 400, 720, 250, 2850, 360, 42},
    {"h200", 139, 400, 790, 250, 4100, 361, 42},   {"b200", 180, 900, 1700, 450, 6800, 720, 42},
};

enum { CARDS_PER_HOST = 8 };

const char *tess_cluster_kinds(void)
{
    return "v100, a100, a100-40, h100, h200, b200";
}

static void from_card(const card *c, int64_t n, tess_cluster *out)
{
    *out = (tess_cluster){.cuda = true,
                          .ranks = n,
                          .ranks_per_host = n < CARDS_PER_HOST ? n : CARDS_PER_HOST,
                          .memory = c->memory_gb * 1e9,
                          .flops = {c->tflops_f32 * 1e12, c->tflops_bf16 * 1e12},
                          .attention = c->tflops_attention * 1e12,
                          .bandwidth = c->bandwidth_gbs * 1e9,
                          .link = c->link_gbs * 1e9,
                          .net = c->net_gbs * 1e9,
                          .link_s = 20e-6,
                          .net_s = 60e-6,
                          .disk_read = 1.2e9,
                          .disk_write = 0.6e9};
    snprintf(out->name, sizeof out->name, "%sx%lld", c->name, (long long)n);
}

/* "h200x8" -> its card and 8; NULL: no such name. */
static const card *parse_name(const char *name, int64_t *out_n)
{
    const char *x = strrchr(name, 'x');
    char *end = NULL;
    *out_n = x ? strtoll(x + 1, &end, 10) : 0;
    if (!x || *out_n < 1 || *out_n > 65536 || *end) {
        return NULL;
    }
    for (int64_t i = 0; i < TESS_COUNT(cards); i++) {
        if (strlen(cards[i].name) == (size_t)(x - name) &&
            strncmp(cards[i].name, name, (size_t)(x - name)) == 0) {
            return &cards[i];
        }
    }
    return NULL;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* As a file says it: decimal units. */
typedef struct cluster_file {
    const char *name, *device;
    int64_t ranks, ranks_per_host, threads;
    double memory_gb, tflops_f32, tflops_bf16, tflops_attention, bandwidth_gbs;
    double link_gbs, link_us, net_gbs, net_us, disk_read_gbs, disk_write_gbs, overlap;
    const tess_json *rates;
} cluster_file;

#define REAL(key, least, most)                                                                     \
    {                                                                                              \
#key, TESS_FIELD_REAL, offsetof(cluster_file, key), least, most                            \
    }
static const tess_field file_fields[] = {
    {"name", TESS_FIELD_STRING, offsetof(cluster_file, name), 0, 0},
    {"device", TESS_FIELD_STRING, offsetof(cluster_file, device), 0, 0},
    {"ranks", TESS_FIELD_INT, offsetof(cluster_file, ranks), 1, 65536},
    {"ranks_per_host", TESS_FIELD_INT, offsetof(cluster_file, ranks_per_host), 1, 65536},
    {"threads", TESS_FIELD_INT, offsetof(cluster_file, threads), 0, 65536},
    REAL(memory_gb, 1e-6, 1e9),
    REAL(tflops_f32, 1e-9, 1e9),
    REAL(tflops_bf16, 1e-9, 1e9),
    REAL(tflops_attention, 0, 1e9),
    REAL(bandwidth_gbs, 1e-6, 1e9),
    REAL(link_gbs, 1e-9, 1e9),
    REAL(link_us, 0, 1e9),
    REAL(net_gbs, 1e-9, 1e9),
    REAL(net_us, 0, 1e9),
    REAL(disk_read_gbs, 1e-9, 1e9),
    REAL(disk_write_gbs, 1e-9, 1e9),
    REAL(overlap, 0, 1),
    {"rates", TESS_FIELD_VALUE, offsetof(cluster_file, rates), 0, 0},
};

typedef struct rate_file {
    const char *op, *dtype;
    double flops, bytes, seconds;
} rate_file;

static const tess_field rate_fields[] = {
    {"op", TESS_FIELD_STRING, offsetof(rate_file, op), 0, 0},
    {"dtype", TESS_FIELD_STRING, offsetof(rate_file, dtype), 0, 0},
    {"flops", TESS_FIELD_REAL, offsetof(rate_file, flops), 0, 1e30},
    {"bytes", TESS_FIELD_REAL, offsetof(rate_file, bytes), 0, 1e30},
    {"seconds", TESS_FIELD_REAL, offsetof(rate_file, seconds), 1e-12, 1e9},
};

static tess_status read_rates(const tess_json *rates, const char *path, tess_arena *arena,
                              tess_cluster *out)
{
    const size_t n = tess_json_count(rates);
    TESS_TRY(tess_grow(&out->rates, &out->cap_rates, n, sizeof *out->rates));
    for (size_t i = 0; i < n; i++) {
        rate_file r = {.op = "", .dtype = "f32", .seconds = 0};
        const char *name = tess_arena_format(arena, "%s: rates[%zu]", path, i);
        TESS_TRY(name ? TESS_OK : TESS_NOMEM);
        TESS_TRY(tess_json_read_fields(tess_json_at(rates, i), name, rate_fields,
                                       TESS_COUNT(rate_fields), arena, &r));
        if (!r.op[0] || r.seconds <= 0 || !(r.flops > 0 || r.bytes > 0)) {
            return TESS_FAIL(TESS_INVALID, "%s: expected op, seconds, and flops or bytes", name);
        }
        tess_rate *to = &out->rates[out->n_rates++];
        *to = (tess_rate){.flops = r.flops, .bytes = r.bytes, .seconds = r.seconds};
        snprintf(to->op, sizeof to->op, "%s", r.op);
        snprintf(to->dtype, sizeof to->dtype, "%s", r.dtype);
    }
    return TESS_OK;
}

/* What a file must say of every cluster, and of several ranks. */
static tess_status check_file(const cluster_file *f, const char *path)
{
    const struct {
        const char *key;
        double value;
        bool wanted;
    } needs[] = {{"memory_gb", f->memory_gb, true},
                 {"tflops_f32", f->tflops_f32, true},
                 {"tflops_bf16", f->tflops_bf16, true},
                 {"bandwidth_gbs", f->bandwidth_gbs, true},
                 {"link_gbs", f->link_gbs, f->ranks > 1 && f->ranks_per_host != 1},
                 {"net_gbs", f->net_gbs, f->ranks_per_host > 0 && f->ranks > f->ranks_per_host}};
    for (int64_t i = 0; i < TESS_COUNT(needs); i++) {
        if (needs[i].wanted && needs[i].value <= 0) {
            return TESS_FAIL(TESS_INVALID, "%s: %s is missing (docs/plan.md lists the keys)", path,
                             needs[i].key);
        }
    }
    if (strcmp(f->device, "cpu") != 0 && strcmp(f->device, "cuda") != 0) {
        return TESS_FAIL(TESS_INVALID, "%s: device: expected cpu or cuda, found \"%s\"", path,
                         f->device);
    }
    return TESS_OK;
}

static void from_file(const cluster_file *f, tess_cluster *out)
{
    *out = (tess_cluster){.cuda = strcmp(f->device, "cuda") == 0,
                          .ranks = f->ranks,
                          .ranks_per_host = f->ranks_per_host ? f->ranks_per_host : f->ranks,
                          .threads = f->threads,
                          .memory = f->memory_gb * 1e9,
                          .flops = {f->tflops_f32 * 1e12, f->tflops_bf16 * 1e12},
                          .attention = f->tflops_attention * 1e12,
                          .bandwidth = f->bandwidth_gbs * 1e9,
                          .link = f->link_gbs * 1e9,
                          .link_s = f->link_us * 1e-6,
                          .net = f->net_gbs * 1e9,
                          .net_s = f->net_us * 1e-6,
                          .disk_read = f->disk_read_gbs * 1e9,
                          .disk_write = f->disk_write_gbs * 1e9,
                          .overlap = f->overlap};
    snprintf(out->name, sizeof out->name, "%s", f->name);
}

static tess_status read_file(const tess_json *root, const char *path, tess_arena *arena,
                             tess_cluster *out)
{
    cluster_file f = {.name = path, .device = "cpu", .ranks = 1};
    TESS_TRY(tess_json_read_fields(root, path, file_fields, TESS_COUNT(file_fields), arena, &f));
    TESS_TRY(check_file(&f, path));
    from_file(&f, out);
    if (f.rates && tess_json_kind_of(f.rates) != TESS_JSON_ARRAY) {
        return TESS_FAIL(TESS_INVALID, "%s: rates: expected an array", path);
    }
    return f.rates ? read_rates(f.rates, path, arena, out) : TESS_OK;
}

static tess_status load(const char *path, tess_cluster *out)
{
    tess_json_doc *doc = NULL;
    tess_arena arena = {0};
    TESS_TRY(tess_json_load(path, &doc));
    tess_status st = read_file(tess_json_root(doc), path, &arena, out);
    if (st) {
        tess_cluster_deinit(out);
    }
    tess_arena_deinit(&arena);
    tess_json_free(doc);
    return st;
}

tess_status tess_cluster_open(const char *name, tess_cluster *out)
{
    int64_t n;
    const card *c = parse_name(name, &n);
    *out = (tess_cluster){0};
    if (c) {
        from_card(c, n, out);
        return TESS_OK;
    }
    if (tess_path_exists(name)) {
        return load(name, out);
    }
    return TESS_FAIL(TESS_INVALID,
                     "there is no cluster %s: expected KINDxN (h200x8; kinds: %s) or a JSON file, "
                     "as tessera plan --measure writes one",
                     name, tess_cluster_kinds());
}

void tess_cluster_deinit(tess_cluster *c)
{
    tess_free(c->rates);
    *c = (tess_cluster){0};
}

/* ---- writing -------------------------------------------------------------------------------- */

static void write_rates(const tess_cluster *c, tess_json_writer *w)
{
    tess_json_key(w, "rates");
    tess_json_begin_array(w);
    for (int64_t i = 0; i < c->n_rates; i++) {
        const tess_rate *r = &c->rates[i];
        const rate_file f = {r->op, r->dtype, r->flops, r->bytes, r->seconds};
        tess_json_begin_object(w);
        tess_json_add_fields(w, rate_fields, TESS_COUNT(rate_fields), &f);
        tess_json_end_object(w);
    }
    tess_json_end_array(w);
}

void tess_cluster_write(const tess_cluster *c, tess_buf *out)
{
    const struct {
        const char *key;
        double value;
    } reals[] = {{"memory_gb", c->memory * 1e-9},
                 {"tflops_f32", c->flops[0] * 1e-12},
                 {"tflops_bf16", c->flops[1] * 1e-12},
                 {"tflops_attention", c->attention * 1e-12},
                 {"bandwidth_gbs", c->bandwidth * 1e-9},
                 {"link_gbs", c->link * 1e-9},
                 {"link_us", c->link_s * 1e6},
                 {"net_gbs", c->net * 1e-9},
                 {"net_us", c->net_s * 1e6},
                 {"disk_read_gbs", c->disk_read * 1e-9},
                 {"disk_write_gbs", c->disk_write * 1e-9},
                 {"overlap", c->overlap}};
    tess_json_writer w = {.buf = out, .pretty = true};
    tess_json_begin_object(&w);
    tess_json_key(&w, "name");
    tess_json_add_string(&w, c->name);
    tess_json_key(&w, "device");
    tess_json_add_string(&w, c->cuda ? "cuda" : "cpu");
    tess_json_key(&w, "ranks");
    tess_json_add_int(&w, c->ranks);
    tess_json_key(&w, "ranks_per_host");
    tess_json_add_int(&w, c->ranks_per_host);
    tess_json_key(&w, "threads");
    tess_json_add_int(&w, c->threads);
    for (int64_t i = 0; i < TESS_COUNT(reals); i++) {
        if (reals[i].value > 0) {
            tess_json_key(&w, reals[i].key);
            tess_json_add_real(&w, reals[i].value);
        }
    }
    write_rates(c, &w);
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
}
