/* SPDX-License-Identifier: Apache-2.0 */
/* Builds an index directory.
 *
 * Vectors are scaled to unit length and spilled to a flat file in the work directory; rows go to
 * SQLite at once.  Only at commit, when the number of rows is known, is the factory chosen and
 * FAISS fed from the mapped file, so memory holds one index and never a growing copy beside it.
 * The manifest is written last, then the directory is moved into place.
 */
#include "index/manifest.h"
#include "index/index_dir.h"
#include "index/rows.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

#define VECTORS_NAME      "vectors.faiss"
#define ROWS_NAME         "rows.sqlite"
#define SPILL_NAME        "vectors.raw"
#define DEFAULT_EF_SEARCH 128
#define MIN_PROBE         16

struct tess_index_builder {
    tess_index_options options; /* strings are in the arena */
    tess_arena arena;
    tess__place place;
    tess_appender *spill;
    tess__rows *rows;
    int64_t n_rows;
    tess_status broken; /* vectors and rows no longer agree: only abort is left */
};

/* ---- opening ------------------------------------------------------------------------------- */

static tess_status check_factory(const char *factory)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_,()[]+.";
    if (strlen(factory) > 128 || factory[strspn(factory, allowed)] != 0) {
        return TESS_FAIL(TESS_INVALID, "\"%.64s\" is not a FAISS factory string", factory);
    }
    if (strstr(factory, "IDMap")) {
        return TESS_FAIL(TESS_INVALID,
                         "factory \"%s\": leave IDMap out, the index keeps keys itself", factory);
    }
    return TESS_OK;
}

static tess_status check_options(const tess_index_options *o)
{
    if (o->dim < 1 || o->dim > TESS_INDEX_MAX_DIM) {
        return TESS_FAIL(TESS_INVALID, "dimension %lld: expected 1 to %d", (long long)o->dim,
                         TESS_INDEX_MAX_DIM);
    }
    if (!o->fingerprint || !o->fingerprint[0] || strlen(o->fingerprint) > 512 ||
        !tess_utf8_valid(o->fingerprint, strlen(o->fingerprint), true)) {
        return TESS_FAIL(TESS_INVALID,
                         "an index needs the fingerprint of the model that made its vectors");
    }
    if (o->model && !tess_utf8_valid(o->model, strlen(o->model), true)) {
        return TESS_FAIL(TESS_INVALID,
                         "the model's path is not UTF-8, so an index cannot record it");
    }
    if (o->ef_search < 0 || o->ef_search > 1000000 || o->n_probe < 0 || o->n_probe > 1000000000) {
        return TESS_FAIL(TESS_INVALID, "ef_search %lld, n_probe %lld: out of range",
                         (long long)o->ef_search, (long long)o->n_probe);
    }
    return o->factory ? check_factory(o->factory) : TESS_OK;
}

static char *place_path(tess_index_builder *b, const char *name)
{
    return tess_arena_format(&b->arena, "%s/%s", b->place.work, name);
}

static tess_status open_files(tess_index_builder *b)
{
    char *spill = place_path(b, SPILL_NAME);
    char *rows = spill ? place_path(b, ROWS_NAME) : NULL;
    if (!rows) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess_appender_open(spill, 0, &b->spill));
    return tess__rows_create(rows, &b->rows);
}

static tess_status start(tess_index_builder *b, const char *dir, const tess_index_options *options)
{
    const char *factory = options->factory ? options->factory : "auto";
    b->options = *options;
    b->options.fingerprint =
        tess_arena_strndup(&b->arena, options->fingerprint, strlen(options->fingerprint));
    b->options.factory = tess_arena_strndup(&b->arena, factory, strlen(factory));
    b->options.model = options->model
                           ? tess_arena_strndup(&b->arena, options->model, strlen(options->model))
                           : NULL;
    if (!b->options.fingerprint || !b->options.factory || (options->model && !b->options.model)) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__place_open(dir, options->replace, &b->place));
    return open_files(b);
}

tess_status tess_index_builder_open(const char *dir, const tess_index_options *options,
                                    tess_index_builder **out)
{
    TESS_TRY(check_options(options));
    tess_index_builder *b = tess_alloc(sizeof(*b));
    if (!b) {
        return TESS_NOMEM;
    }
    tess_status st = start(b, dir, options);
    if (st != TESS_OK) {
        tess_index_builder_abort(b);
        return st;
    }
    *out = b;
    return TESS_OK;
}

/* ---- adding -------------------------------------------------------------------------------- */

static bool is_text(const char *s, size_t max_bytes)
{
    size_t n = strlen(s);
    return n <= max_bytes && tess_utf8_valid(s, n, true);
}

static tess_status check_row(const tess_row *row)
{
    if (!row->key || !row->key[0] || !is_text(row->key, TESS_INDEX_MAX_KEY_BYTES)) {
        return TESS_FAIL(TESS_INVALID, "\"%.64s\": a key is 1 to %d bytes of UTF-8",
                         row->key ? row->key : "", TESS_INDEX_MAX_KEY_BYTES);
    }
    if (row->kind < 0 || row->kind >= TESS_ROW_KINDS) {
        return TESS_FAIL(TESS_INVALID, "%s: kind %d is none", row->key, (int)row->kind);
    }
    if (row->path && strlen(row->path) >= PATH_MAX) {
        return TESS_FAIL(TESS_INVALID, "%s: its path is too long", row->key);
    }
    if (row->offset < 0 || row->n_bytes < 0 || row->width < 0 || row->height < 0) {
        return TESS_FAIL(TESS_INVALID, "%s: offset, n_bytes, width and height are not negative",
                         row->key);
    }
    return TESS_OK;
}

/* The row with its path made absolute; `path` holds it. */
static tess_status absolute_row(const tess_row *row, tess_arena *arena, tess_row *out)
{
    *out = *row;
    if (!row->path || row->path[0] == '/') {
        return TESS_OK;
    }
    char here[PATH_MAX];
    if (!getcwd(here, sizeof(here))) {
        return tess__fail_errno("cannot tell the current directory for", row->path);
    }
    out->path = tess_arena_format(arena, "%s/%s", here, row->path);
    return out->path ? TESS_OK : TESS_NOMEM;
}

/* Everything that can be wrong with the caller's data, before anything is written. */
static tess_status prepare(const tess_index_builder *b, const float *vectors, const tess_row *rows,
                           int64_t n, tess_arena *arena, float *units, tess_row *out_rows)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i * b->options.dim;
        TESS_TRY(check_row(&rows[i]));
        tess_status st = tess__unit_vector(vectors + at, b->options.dim, units + at);
        if (st != TESS_OK) {
            return tess_error_prefix(st, "%s", rows[i].key);
        }
        TESS_TRY(absolute_row(&rows[i], arena, &out_rows[i]));
    }
    return TESS_OK;
}

/* Rows first: they can still be taken back when the spill fails, which then breaks the builder. */
static tess_status store(tess_index_builder *b, const float *units, const tess_row *rows, int64_t n)
{
    TESS_TRY(tess__rows_add(b->rows, rows, n, b->n_rows));
    b->broken =
        tess_appender_write(b->spill, units, (size_t)n * (size_t)b->options.dim * sizeof(*units));
    b->n_rows += n;
    return b->broken;
}

tess_status tess_index_builder_add(tess_index_builder *b, const float *vectors,
                                   const tess_row *rows, int64_t n)
{
    if (b->broken != TESS_OK) {
        return TESS_FAIL(b->broken, "the index being built lost a write; start again");
    }
    if (n <= 0) {
        return n == 0 ? TESS_OK : TESS_FAIL(TESS_INVALID, "%lld rows to add", (long long)n);
    }
    tess_arena arena = {0};
    size_t row_bytes = (size_t)b->options.dim * sizeof(float);
    float *units = tess_alloc_array((size_t)n, row_bytes);
    tess_row *copies = tess_alloc_array((size_t)n, sizeof(*copies));
    tess_status st = units && copies ? TESS_OK : TESS_NOMEM;
    if (st == TESS_OK) {
        st = prepare(b, vectors, rows, n, &arena, units, copies);
    }
    if (st == TESS_OK) {
        st = store(b, units, copies, n);
    }
    tess_free(units);
    tess_free(copies);
    tess_arena_deinit(&arena);
    return st;
}

int64_t tess_index_builder_count(const tess_index_builder *b)
{
    return b->n_rows;
}

/* ---- commit -------------------------------------------------------------------------------- */

static int64_t memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (int64_t)pages * page : INT64_MAX;
}

/* FAISS' "IVF4096" names the number of lists; a 64th of them is a fair start for recall. */
static int64_t default_probe(const char *factory)
{
    const char *ivf = strstr(factory, "IVF");
    long long lists = 0;
    if (!ivf || sscanf(ivf, "IVF%lld", &lists) != 1) {
        return MIN_PROBE;
    }
    return lists / 64 > MIN_PROBE ? lists / 64 : MIN_PROBE;
}

static void choose_factory(tess_index_builder *b, char automatic[64], tess__manifest *m)
{
    const tess_index_options *o = &b->options;
    tess_index_auto(b->n_rows, o->dim, memory_bytes(), automatic);
    m->factory = strcmp(o->factory, "auto") == 0 ? automatic : (char *)o->factory;
    if (strstr(m->factory, "HNSW")) {
        m->ef_search = o->ef_search ? o->ef_search : DEFAULT_EF_SEARCH;
    }
    if (strstr(m->factory, "IVF")) {
        m->n_probe = o->n_probe ? o->n_probe : default_probe(m->factory);
    }
}

static tess_status write_vectors(tess_index_builder *b, tess__manifest *m, char hex[33])
{
    const char *raw = place_path(b, SPILL_NAME), *path = place_path(b, VECTORS_NAME);
    if (!raw || !path) {
        return TESS_NOMEM;
    }
    tess_bytes map = {0};
    tess__vectors *v = NULL;
    TESS_TRY(tess_file_map(raw, &map));
    tess_status st = tess__vectors_build(m->factory, (const float *)(const void *)map.data,
                                         b->n_rows, b->options.dim, b->options.n_threads, &v);
    tess_file_unmap(&map);
    if (st == TESS_OK) {
        /* A parameter that the index does not take must fail now, not when it is opened. */
        st = tess__vectors_set_search(v, m->factory, m->ef_search, m->n_probe);
    }
    if (st == TESS_OK) {
        st = tess__vectors_save(v, path, &m->vectors.n_bytes, hex);
    }
    tess__vectors_free(v);
    if (st == TESS_OK && unlink(raw) != 0) {
        st = tess__fail_errno("cannot remove", raw);
    }
    return st;
}

static tess_status write_rows(tess_index_builder *b, tess__manifest *m, char hex[33])
{
    const char *path = place_path(b, ROWS_NAME);
    tess__rows *rows = b->rows;
    b->rows = NULL;
    TESS_TRY(tess__rows_finish(rows));
    tess_bytes map = {0};
    TESS_TRY(path ? tess_file_map(path, &map) : TESS_NOMEM);
    m->rows.n_bytes = (int64_t)map.n_bytes;
    tess_status st = tess__xxh3_hex(map.data, map.n_bytes, hex);
    tess_file_unmap(&map);
    return st;
}

static tess_status finish(tess_index_builder *b)
{
    char automatic[64], vectors_hex[33], rows_hex[33];
    tess__manifest m = {
        .version = TESS__MANIFEST_VERSION,
        .tessera = (char *)TESS_VERSION,
        .fingerprint = (char *)b->options.fingerprint,
        .model = (char *)b->options.model,
        .dim = b->options.dim,
        .n_rows = b->n_rows,
        .vectors = {.name = (char *)VECTORS_NAME, .xxh3 = vectors_hex},
        .rows = {.name = (char *)ROWS_NAME, .xxh3 = rows_hex},
    };
    choose_factory(b, automatic, &m);
    tess_appender_close(b->spill);
    b->spill = NULL;
    TESS_TRY(write_vectors(b, &m, vectors_hex));
    TESS_TRY(write_rows(b, &m, rows_hex));
    TESS_TRY(tess__manifest_save(&m, b->place.work));
    return tess__place_commit(&b->place);
}

tess_status tess_index_builder_commit(tess_index_builder *b)
{
    tess_status st = b->broken;
    if (st != TESS_OK) {
        st = TESS_FAIL(st, "the index being built lost a write; start again");
    } else if (b->n_rows == 0) {
        st = TESS_FAIL(TESS_INVALID, "%s: nothing was added, an index needs at least one row",
                       b->place.dir);
    } else {
        st = finish(b);
    }
    tess_index_builder_abort(b);
    return st;
}

void tess_index_builder_abort(tess_index_builder *b)
{
    if (!b) {
        return;
    }
    tess_appender_close(b->spill);
    tess__rows_close(b->rows);
    tess__place_deinit(&b->place);
    tess_arena_deinit(&b->arena);
    tess_free(b);
}
