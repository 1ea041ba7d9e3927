/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: u64 LE header length, JSON header, bytes.
 *
 * Every rule of the format's own validator is kept (see the contract in tensor.h): the tensors must
 * tile the buffer exactly, so a file that opens has no overlap, no hole and no tail.  Names are
 * found by binary search over a sorted index. */
#include "tensor/op.h"
#include "tensor/pager.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER_BYTES 100000000u
#define MAX_TENSORS      1000000u
#define MAX_VALUES       (8 * MAX_TENSORS) /* of JSON, each some 40 bytes once it is read */

enum { LINE_BYTES = 64, PAGE_BYTES = 4096 };

struct tess_tensors {
    tess_bytes map; /* owned when mapped */
    bool mapped;
    tess_json_doc *doc;
    tess_tensor *tensors;
    int64_t n;
    const tess_tensor **by_name;
    tess_tensors *next; /* joined to this one, and freed with it */
    tess_arena names;   /* that joining made */
};

static const struct {
    const char *name;
    size_t bits;
} file_dtypes[] = {
    {"F64", 64},    {"I64", 64},    {"U64", 64},    {"F32", 32},    {"I32", 32},
    {"U32", 32},    {"F16", 16},    {"BF16", 16},   {"I16", 16},    {"U16", 16},
    {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"I8", 8},      {"U8", 8},
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

static size_t dtype_bits(const char *name)
{
    for (int64_t i = 0; i < TESS_COUNT(file_dtypes); i++) {
        if (strcmp(file_dtypes[i].name, name) == 0) {
            return file_dtypes[i].bits;
        }
    }
    return 0;
}

/* ---- reading ------------------------------------------------------------------------------- */

static tess_status read_shape(const tess_json *dims, const char *name, tess_shape *out,
                              size_t *out_count)
{
    size_t n = tess_json_count(dims);
    *out_count = 1;
    if (tess_json_kind_of(dims) != TESS_JSON_ARRAY || n > TESS_MAX_RANK) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected a shape of at most %d dimensions", name,
                         TESS_MAX_RANK);
    }
    out->rank = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        out->dim[i] = tess_json_int(tess_json_at(dims, i), -1);
        if (out->dim[i] < 0 || tess_mul_overflows(*out_count, (size_t)out->dim[i], out_count)) {
            return TESS_FAIL(TESS_FORMAT, "%s: a dimension is negative or too large", name);
        }
    }
    return TESS_OK;
}

static tess_status read_entry(const tess_json *e, tess_bytes data, tess_tensor *t)
{
    t->dtype = tess_json_string(tess_json_get(e, "dtype"), "");
    size_t bits = dtype_bits(t->dtype), count, n_bits;
    if (bits == 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: unknown dtype \"%.32s\"", t->name, t->dtype);
    }
    TESS_TRY(read_shape(tess_json_get(e, "shape"), t->name, &t->shape, &count));
    const tess_json *offsets = tess_json_get(e, "data_offsets");
    int64_t begin = tess_json_int(tess_json_at(offsets, 0), -1);
    int64_t end = tess_json_int(tess_json_at(offsets, 1), -1);
    if (tess_json_count(offsets) != 2 || begin < 0 || end < begin || (uint64_t)end > data.n_bytes) {
        return TESS_FAIL(TESS_FORMAT, "%s: data_offsets lie outside the file's %zu data bytes",
                         t->name, data.n_bytes);
    }
    t->n_bytes = (size_t)(end - begin);
    if (tess_mul_overflows(count, bits, &n_bits) || n_bits % 8 || n_bits / 8 != t->n_bytes) {
        return TESS_FAIL(TESS_FORMAT, "%s: %zu bytes do not hold its shape in %s", t->name,
                         t->n_bytes, t->dtype);
    }
    t->data = data.data + begin;
    return TESS_OK;
}

static int by_data(const void *a, const void *b)
{
    const tess_tensor *x = *(const tess_tensor *const *)a, *y = *(const tess_tensor *const *)b;
    if (x->data != y->data) {
        return x->data < y->data ? -1 : 1;
    }
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const tess_tensor *const *)a)->name, (*(const tess_tensor *const *)b)->name);
}

/* Sorted by place, each tensor must begin where the one before it ended. */
static tess_status check_tiling(const tess_tensors *t, tess_bytes data)
{
    qsort(t->by_name, (size_t)t->n, sizeof *t->by_name, by_data);
    size_t at = 0;
    for (int64_t i = 0; i < t->n; i++) {
        const tess_tensor *x = t->by_name[i];
        if ((size_t)(x->data - data.data) != at) {
            return TESS_FAIL(TESS_FORMAT, "%s: begins at byte %zu of the data, expected %zu",
                             x->name, (size_t)(x->data - data.data), at);
        }
        at += x->n_bytes;
    }
    if (at != data.n_bytes) {
        return TESS_FAIL(TESS_FORMAT, "the tensors end at byte %zu of %zu data bytes", at,
                         data.n_bytes);
    }
    qsort(t->by_name, (size_t)t->n, sizeof *t->by_name, by_name);
    return TESS_OK;
}

static tess_status check_metadata(const tess_json *meta)
{
    const char *key;
    if (meta && tess_json_kind_of(meta) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_FORMAT, "__metadata__: expected an object of strings");
    }
    for (size_t i = 0; i < tess_json_count(meta); i++) {
        if (tess_json_kind_of(tess_json_member(meta, i, &key)) != TESS_JSON_STRING) {
            return TESS_FAIL(TESS_FORMAT, "__metadata__: %.64s is no string", key);
        }
    }
    return TESS_OK;
}

static tess_status read_entries(tess_tensors *t, const tess_json *root, tess_bytes data)
{
    size_t n = tess_json_count(root);
    if (n > MAX_TENSORS) {
        return TESS_FAIL(TESS_FORMAT, "%zu tensors; at most %u are read", n, MAX_TENSORS);
    }
    t->tensors = tess_alloc_array(n + 1, sizeof *t->tensors);
    t->by_name = tess_alloc_array(n + 1, sizeof *t->by_name);
    if (!t->tensors || !t->by_name) {
        return TESS_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        const char *key;
        const tess_json *e = tess_json_member(root, i, &key);
        if (strcmp(key, "__metadata__") == 0) {
            TESS_TRY(check_metadata(e));
            continue;
        }
        t->tensors[t->n].name = key;
        TESS_TRY(read_entry(e, data, &t->tensors[t->n]));
        t->by_name[t->n] = &t->tensors[t->n];
        t->n++;
    }
    return check_tiling(t, data);
}

/* All values but the first of a list or an object come behind a comma. */
static tess_status check_values(const char *header, size_t n)
{
    size_t n_values = 0;
    for (size_t i = 0; i < n; i++) {
        n_values += header[i] == ',';
    }
    if (n_values > MAX_VALUES) {
        return TESS_FAIL(TESS_FORMAT, "a header of %zu bytes with %zu values: at most %u are read",
                         n, n_values, MAX_VALUES);
    }
    return TESS_OK;
}

static tess_status parse(tess_tensors *t)
{
    uint64_t header;
    if (t->map.n_bytes < 8) {
        return TESS_FAIL(TESS_FORMAT, "%zu bytes are too few for a safetensors file",
                         t->map.n_bytes);
    }
    memcpy(&header, t->map.data, 8);
    header = le64toh(header);
    if (header > MAX_HEADER_BYTES || header > t->map.n_bytes - 8 || header < 2 ||
        t->map.data[8] != '{') {
        return TESS_FAIL(
            TESS_FORMAT,
            "no safetensors header: expected a length up to %u and \"{\", found length "
            "%llu in a file of %zu bytes",
            MAX_HEADER_BYTES, (unsigned long long)header, t->map.n_bytes);
    }
    TESS_TRY(check_values((const char *)t->map.data + 8, (size_t)header));
    TESS_TRY(tess_json_parse((const char *)t->map.data + 8, (size_t)header, "header", &t->doc));
    const tess_json *root = tess_json_root(t->doc);
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT) {
        return TESS_FAIL(TESS_FORMAT, "the header is no JSON object");
    }
    tess_bytes data = {t->map.data + 8 + header, t->map.n_bytes - 8 - (size_t)header};
    return read_entries(t, root, data);
}

static tess_status open_bytes(tess_bytes bytes, bool mapped, const char *name, tess_tensors **out)
{
    *out = NULL;
    tess_tensors *t = tess_alloc(sizeof *t);
    if (!t) {
        tess_file_unmap(mapped ? &bytes : &(tess_bytes){0});
        return TESS_NOMEM;
    }
    t->map = bytes;
    t->mapped = mapped;
    tess_status st = parse(t);
    if (st) {
        tess_tensors_free(t);
        return tess_error_prefix(st, "%s", name);
    }
    *out = t;
    return TESS_OK;
}

tess_status tess_tensors_parse(tess_bytes bytes, const char *name, tess_tensors **out)
{
    return open_bytes(bytes, false, name, out);
}

tess_status tess_tensors_open(const char *path, tess_tensors **out)
{
    *out = NULL;
    tess_bytes map;
    TESS_TRY(tess_file_map(path, &map));
    return open_bytes(map, true, path, out);
}

void tess_tensors_forget(const tess_tensors *t, const tess_tensor *x)
{
    if (t->mapped) {
        tess_file_forget(x->data, x->n_bytes);
    }
}

void tess_tensors_free(tess_tensors *t)
{
    if (!t) {
        return;
    }
    tess_tensors_free(t->next);
    tess_arena_deinit(&t->names);
    if (t->mapped) {
        tess_file_unmap(&t->map);
    }
    tess_json_free(t->doc);
    tess_free(t->tensors);
    tess_free(t->by_name);
    tess_free(t);
}

/* The tensors of both in one array, those of `more` renamed. */
static tess_status fill_joined(tess_tensors *t, const tess_tensors *more, const char *prefix,
                               tess_tensor *tensors, const tess_tensor **sorted)
{
    memcpy(tensors, t->tensors, (size_t)t->n * sizeof *tensors);
    memcpy(tensors + t->n, more->tensors, (size_t)more->n * sizeof *tensors);
    for (int64_t i = 0; i < t->n + more->n; i++) {
        sorted[i] = &tensors[i];
        if (i >= t->n) {
            tensors[i].name = tess_arena_format(&t->names, "%s%s", prefix, tensors[i].name);
        }
        if (!tensors[i].name) {
            return TESS_NOMEM;
        }
    }
    qsort(sorted, (size_t)(t->n + more->n), sizeof *sorted, by_name);
    for (int64_t i = 1; i < t->n + more->n; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            return TESS_FAIL(TESS_FORMAT, "%s: two files hold a tensor of this name",
                             sorted[i]->name);
        }
    }
    return TESS_OK;
}

tess_status tess_tensors_join(tess_tensors *t, tess_tensors *more, const char *prefix)
{
    const int64_t n = t->n + more->n;
    tess_tensor *tensors = tess_alloc_array((size_t)n, sizeof *tensors);
    const tess_tensor **sorted = tess_alloc_array((size_t)n, sizeof *sorted);
    tess_status st = tensors && sorted ? fill_joined(t, more, prefix, tensors, sorted) : TESS_NOMEM;
    if (st) {
        tess_free(tensors);
        tess_free(sorted);
        return st;
    }
    tess_free(t->tensors);
    tess_free(t->by_name);
    t->tensors = tensors;
    t->by_name = sorted;
    t->n = n;
    tess_tensors *last = t;
    while (last->next) {
        last = last->next;
    }
    last->next = more;
    return TESS_OK;
}

int64_t tess_tensors_count(const tess_tensors *t)
{
    return t->n;
}

const tess_tensor *tess_tensors_at(const tess_tensors *t, int64_t i)
{
    return i >= 0 && i < t->n ? &t->tensors[i] : NULL;
}

const tess_tensor *tess_tensors_find(const tess_tensors *t, const char *name)
{
    int64_t low = 0, high = t->n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        int order = strcmp(t->by_name[mid]->name, name);
        if (order == 0) {
            return t->by_name[mid];
        }
        low = order < 0 ? mid + 1 : low;
        high = order < 0 ? high : mid;
    }
    return NULL;
}

const char *tess_tensors_metadata(const tess_tensors *t, const char *key)
{
    const tess_json *meta = tess_json_get(tess_json_root(t->doc), "__metadata__");
    return tess_json_string(tess_json_get(meta, key), NULL);
}

/* ---- writing ------------------------------------------------------------------------------- */

/* Whole pages first, so that they can be written past the page cache; then whole cache lines, so
 * that each of them begins at one where the file is mapped: products read their weights 10 % faster
 * there.  The rest by their elements' size. */
static int rank_of(const tess_tensor *t)
{
    return t->n_bytes == 0 || t->n_bytes % LINE_BYTES != 0 ? 2 : t->n_bytes % PAGE_BYTES != 0;
}

static int by_alignment(const void *a, const void *b)
{
    const tess_tensor *x = *(const tess_tensor *const *)a, *y = *(const tess_tensor *const *)b;
    if (rank_of(x) != rank_of(y)) {
        return rank_of(x) - rank_of(y);
    }
    size_t i = dtype_bits(x->dtype), j = dtype_bits(y->dtype);
    return i != j ? (i < j ? 1 : -1) : strcmp(x->name, y->name);
}

static void write_header_entry(tess_json_writer *w, const tess_tensor *t, size_t begin)
{
    tess_json_key(w, t->name);
    tess_json_begin_object(w);
    tess_json_key(w, "dtype");
    tess_json_add_string(w, t->dtype);
    tess_json_key(w, "shape");
    tess_json_begin_array(w);
    for (int i = 0; i < t->shape.rank; i++) {
        tess_json_add_int(w, t->shape.dim[i]);
    }
    tess_json_end_array(w);
    tess_json_key(w, "data_offsets");
    tess_json_begin_array(w);
    tess_json_add_int(w, (int64_t)begin);
    tess_json_add_int(w, (int64_t)(begin + t->n_bytes));
    tess_json_end_array(w);
    tess_json_end_object(w);
}

/* The file's first bytes: the header's length, and the header. */
static void write_header(tess_buf *out, const tess_tensor *const *order, int64_t n,
                         const tess_pair *metadata, int64_t n_metadata)
{
    uint64_t length = 0;
    tess_buf_add(out, &length, sizeof length);
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    tess_json_key(&w, "__metadata__");
    tess_json_begin_object(&w);
    tess_json_key(&w, "format");
    tess_json_add_string(&w, "pt");
    for (int64_t i = 0; i < n_metadata; i++) {
        tess_json_key(&w, metadata[i].key);
        tess_json_add_string(&w, metadata[i].value);
    }
    tess_json_end_object(&w);
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        write_header_entry(&w, order[i], at);
        at += order[i]->n_bytes;
    }
    tess_json_end_object(&w);
    /* The data begins where its first tensor may. */
    const size_t bound = n > 0 && rank_of(order[0]) == 0 ? PAGE_BYTES : LINE_BYTES;
    while (!out->failed && out->n_bytes % bound) {
        tess_buf_adds(out, " ");
    }
    if (!out->failed) {
        length = htole64(out->n_bytes - sizeof length);
        memcpy(out->data, &length, sizeof length);
    }
}

void tess_tensors_layout_deinit(tess_tensors_layout *l)
{
    tess_buf_deinit(&l->header);
    tess_free(l->order);
    tess_free(l->begin);
    *l = (tess_tensors_layout){0};
}

tess_status tess_tensors_plan(const tess_tensor *tensors, int64_t n, const tess_pair *metadata,
                              int64_t n_metadata, tess_tensors_layout *out)
{
    *out = (tess_tensors_layout){0};
    const tess_tensor **order = tess_alloc_array((size_t)n + 1, sizeof *order);
    out->order = order;
    out->begin = tess_alloc_array((size_t)n + 1, sizeof *out->begin);
    if (!order || !out->begin) {
        tess_tensors_layout_deinit(out);
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < n; i++) {
        order[i] = &tensors[i];
    }
    qsort(order, (size_t)n, sizeof *order, by_alignment);
    write_header(&out->header, order, n, metadata, n_metadata);
    tess_status st = tess_buf_check(&out->header);
    if (st) {
        tess_tensors_layout_deinit(out);
        return st;
    }
    out->n_bytes = (int64_t)out->header.n_bytes;
    for (int64_t i = 0; i < n; i++) {
        out->begin[order[i] - tensors] = out->n_bytes;
        out->n_bytes += (int64_t)order[i]->n_bytes;
    }
    return TESS_OK;
}

enum { SLICE_BYTES = 8 << 20 };

/* What is paged comes to memory in slices. */
static tess_status write_data(tess_writer *w, const tess_tensor *t)
{
    const size_t slice = t->pager ? SLICE_BYTES : t->n_bytes;
    tess_status st = TESS_OK;
    for (size_t at = 0; st == TESS_OK && at < t->n_bytes; at += slice) {
        const size_t left = t->n_bytes - at, n = left < slice ? left : slice;
        TESS_TRY(tess__pager_gather(t->pager, t->data + at, n));
        st = tess_writer_write(w, t->data + at, n);
        tess__pager_release(t->pager, t->data + at, n, TESS_PAGED_READ);
    }
    return st;
}

static tess_status write_all(tess_writer *w, const tess_tensors_layout *l, int64_t n)
{
    TESS_TRY(tess_writer_write(w, l->header.data, l->header.n_bytes));
    for (int64_t i = 0; i < n; i++) {
        TESS_TRY(write_data(w, l->order[i]));
    }
    return TESS_OK;
}

tess_status tess_tensors_save(const char *path, const tess_tensor *tensors, int64_t n,
                              const tess_pair *metadata, int64_t n_metadata)
{
    tess_tensors_layout l;
    tess_writer *w = NULL;
    TESS_TRY(tess_tensors_plan(tensors, n, metadata, n_metadata, &l));
    tess_status st = tess_writer_open(path, &w);
    if (st == TESS_OK) {
        st = write_all(w, &l, n);
        if (st) {
            tess_writer_abort(w);
        } else {
            st = tess_writer_commit(w);
        }
    }
    tess_tensors_layout_deinit(&l);
    return st;
}
