/* SPDX-License-Identifier: Apache-2.0 */
/* Opens an index directory and answers from it.
 *
 * Everything is checked at open, against the manifest: a search then has nothing left to distrust
 * but its own arguments.  XXH3 reads some 10 GB/s, so the check costs less than loading does.
 */
#include "index/faiss.h"
#include "index/manifest.h"
#include "index/rows.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tess_index {
    tess_arena arena;
    tess__manifest manifest;
    tess__vectors *vectors;
    tess__rows *rows;
    tess_index_searcher searcher; /* search NULL: FAISS */
};

static const char *const kind_names[TESS_ROW_KINDS] = {
    [TESS_ROW_IMAGE] = "image",
    [TESS_ROW_TEXT] = "text",
};

const char *tess_row_kind_name(tess_row_kind kind)
{
    return kind >= 0 && kind < TESS_ROW_KINDS ? kind_names[kind] : "unknown";
}

static tess_status check_fingerprint(const tess__manifest *m, const char *dir, const char *wanted)
{
    if (!wanted || strcmp(m->fingerprint, wanted) == 0) {
        return TESS_OK;
    }
    return TESS_FAIL(TESS_INVALID,
                     "%s: this index was made with the model %s, but the queries would come from "
                     "%s: use that model, or build the index again with this one",
                     dir, m->fingerprint, wanted);
}

static tess_status load(tess_index *ix, const char *dir, const char *fingerprint)
{
    tess__manifest *m = &ix->manifest;
    TESS_TRY(tess__manifest_load(dir, &ix->arena, m));
    TESS_TRY(check_fingerprint(m, dir, fingerprint));
    char *vectors = tess_arena_format(&ix->arena, "%s/%s", dir, m->vectors.name);
    char *rows = tess_arena_format(&ix->arena, "%s/%s", dir, m->rows.name);
    if (!vectors || !rows) {
        return TESS_NOMEM;
    }
    TESS_TRY(tess__rows_open(rows, &m->rows, m->n_rows, &ix->rows));
    TESS_TRY(tess__vectors_load(vectors, &m->vectors, m->n_rows, m->dim, &ix->vectors));
    return tess__vectors_set_search(ix->vectors, m->factory, m->ef_search, m->n_probe);
}

tess_status tess_index_open(const char *dir, const char *fingerprint, tess_index **out)
{
    tess_index *ix = tess_alloc(sizeof(*ix));
    if (!ix) {
        return TESS_NOMEM;
    }
    tess_status st = load(ix, dir, fingerprint);
    if (st != TESS_OK) {
        tess_index_close(ix);
        return st;
    }
    *out = ix;
    return TESS_OK;
}

void tess_index_close(tess_index *ix)
{
    if (!ix) {
        return;
    }
    tess_index_set_searcher(ix, &(tess_index_searcher){0});
    tess__vectors_free(ix->vectors);
    tess__rows_close(ix->rows);
    tess_arena_deinit(&ix->arena);
    tess_free(ix);
}

static tess_status check_k(int64_t k)
{
    return k >= 1 && k <= TESS_INDEX_MAX_K ? TESS_OK
                                           : TESS_FAIL(TESS_INVALID, "k is %lld: expected 1 to %d",
                                                       (long long)k, TESS_INDEX_MAX_K);
}

bool tess_index_is_flat(const tess_index *ix)
{
    return strcmp(ix->manifest.factory, "Flat") == 0;
}

tess_status tess_index_vectors(const tess_index *ix, int64_t first, int64_t n, float *out)
{
    return tess__vectors_get(ix->vectors, first, n, out);
}

void tess_index_set_searcher(tess_index *ix, const tess_index_searcher *s)
{
    if (ix->searcher.free) {
        ix->searcher.free(ix->searcher.ctx);
    }
    ix->searcher = *s;
}

static tess_status search_units(const tess_index *ix, const float *units, int64_t n_queries,
                                int64_t k, tess_hit *out_hits, int64_t *out_n_hits)
{
    const tess_index_searcher *s = &ix->searcher;
    const tess_status st =
        s->search ? s->search(s->ctx, units, n_queries, k, out_hits, out_n_hits) : TESS_NOMEM;
    return st == TESS_NOMEM
               ? tess__vectors_search(ix->vectors, units, n_queries, k, out_hits, out_n_hits)
               : st;
}

tess_status tess_index_search(tess_index *ix, const float *queries, int64_t n_queries, int64_t k,
                              tess_hit *out_hits, int64_t *out_n_hits)
{
    TESS_TRY(check_k(k));
    if (n_queries <= 0) {
        return n_queries == 0 ? TESS_OK : TESS_FAIL(TESS_INVALID, "a negative number of queries");
    }
    int64_t dim = ix->manifest.dim;
    float *units = tess_alloc_array((size_t)n_queries, (size_t)dim * sizeof(*units));
    tess_status st = units ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; i < n_queries && st == TESS_OK; i++) {
        st = tess__unit_vector(queries + i * dim, dim, units + i * dim);
        if (st != TESS_OK) {
            st = tess_error_prefix(st, "query %lld", (long long)i);
        }
    }
    if (st == TESS_OK) {
        st = search_units(ix, units, n_queries, k, out_hits, out_n_hits);
    }
    tess_free(units);
    return st;
}

tess_status tess_index_match(tess_index *ix, const char *words, int64_t k, tess_hit *out_hits,
                             int64_t *out_n_hits)
{
    TESS_TRY(check_k(k));
    return tess__rows_match(ix->rows, words, k, out_hits, out_n_hits);
}

tess_status tess_index_row(tess_index *ix, int64_t id, tess_arena *arena, tess_row *out)
{
    return tess__rows_get(ix->rows, id, arena, out);
}

tess_status tess_index_find(tess_index *ix, const char *key, int64_t *out_id)
{
    return tess__rows_find(ix->rows, key, out_id);
}

int64_t tess_index_count(const tess_index *ix)
{
    return ix->manifest.n_rows;
}

tess_status tess_index_count_kind(const tess_index *ix, tess_row_kind kind, int64_t *out)
{
    return tess__rows_count(ix->rows, kind, out);
}

int64_t tess_index_dim(const tess_index *ix)
{
    return ix->manifest.dim;
}

const char *tess_index_fingerprint(const tess_index *ix)
{
    return ix->manifest.fingerprint;
}

const char *tess_index_model(const tess_index *ix)
{
    return ix->manifest.model;
}

tess_status tess_index_info(const tess_index *ix, tess_buf *out)
{
    static const char *const counts[TESS_ROW_KINDS] = {
        [TESS_ROW_IMAGE] = "n_pictures",
        [TESS_ROW_TEXT] = "n_texts",
    };
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess__manifest_write(&ix->manifest, &w);
    for (int kind = 0; kind < TESS_ROW_KINDS; kind++) {
        int64_t n;
        TESS_TRY(tess__rows_count(ix->rows, (tess_row_kind)kind, &n));
        tess_json_key(&w, counts[kind]);
        tess_json_add_int(&w, n);
    }
    tess_json_key(&w, "faiss");
    tess_json_add_string(&w, tess__faiss_origin());
    tess_json_end_object(&w);
    return tess_buf_check(out);
}

/* ---- a row's source ------------------------------------------------------------------------ */

static tess_status read_range(int fd, const char *path, uint8_t *data, size_t n, int64_t offset)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, data + done, n - done, (off_t)(offset + (int64_t)done));
        if (got < 0) {
            return tess__fail_errno("cannot read", path);
        }
        if (got == 0) {
            return TESS_FAIL(TESS_IO, "%s: is shorter than when it was indexed", path);
        }
        done += (size_t)got;
    }
    return TESS_OK;
}

/* How many bytes to read of an open regular file. */
static tess_status source_size(const tess_row *row, int fd, size_t max_bytes, size_t *out)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return tess__fail_errno("cannot read", row->path);
    }
    int64_t left = info.st_size - row->offset;
    int64_t n = row->n_bytes ? row->n_bytes : left;
    if (!S_ISREG(info.st_mode) || row->offset < 0 || n <= 0 || n > left) {
        return TESS_FAIL(TESS_IO,
                         "%s: holds no %lld bytes at %lld; it changed since it was indexed",
                         row->path, (long long)n, (long long)row->offset);
    }
    if ((uint64_t)n > max_bytes) {
        return TESS_FAIL(TESS_NOMEM, "%s: %lld bytes, more than the limit of %zu", row->path,
                         (long long)n, max_bytes);
    }
    *out = (size_t)n;
    return TESS_OK;
}

static tess_status read_source(const tess_row *row, int fd, size_t max_bytes, uint8_t **out,
                               size_t *out_bytes)
{
    size_t n = 0;
    TESS_TRY(source_size(row, fd, max_bytes, &n));
    uint8_t *data = tess_alloc(n);
    if (!data) {
        return TESS_NOMEM;
    }
    tess_status st = read_range(fd, row->path, data, n, row->offset);
    if (st != TESS_OK) {
        tess_free(data);
        return st;
    }
    *out = data;
    *out_bytes = n;
    return TESS_OK;
}

tess_status tess_row_read(const tess_row *row, size_t max_bytes, uint8_t **out, size_t *out_bytes)
{
    if (!row->path) {
        return TESS_FAIL(TESS_INVALID, "%s: the index does not say where it came from", row->key);
    }
    /* Not blocking: a path that became a pipe must not hang the reader. */
    int fd = open(row->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return tess__fail_errno("cannot open", row->path);
    }
    tess_status st = read_source(row, fd, max_bytes, out, out_bytes);
    close(fd);
    return st;
}
