/* SPDX-License-Identifier: Apache-2.0 */
/* manifest.json, written last: an index without it does not exist.
 *
 * Its last member is the XXH3 checksum of its own text with that checksum's digits taken as zeros.
 * The files' checksums are inside, so a single flipped bit anywhere in the directory is seen.
 */
#include "index/manifest.h"

#include <string.h>

#define MAX_MANIFEST_BYTES (1 << 20)
#define FORMAT_NAME        "tessera-index"
#define ZEROS              "00000000000000000000000000000000"

typedef struct document {
    char *format, *metric, *checksum;
    const tess_json *vectors, *rows;
    tess__manifest m;
} document;

static const tess_field document_fields[] = {
    {"format", TESS_FIELD_STRING, offsetof(document, format), 0, 0},
    {"version", TESS_FIELD_INT, offsetof(document, m.version), 1, 1e9},
    {"tessera", TESS_FIELD_STRING, offsetof(document, m.tessera), 0, 0},
    {"fingerprint", TESS_FIELD_STRING, offsetof(document, m.fingerprint), 0, 0},
    {"model", TESS_FIELD_STRING, offsetof(document, m.model), 0, 0},
    {"dim", TESS_FIELD_INT, offsetof(document, m.dim), 1, TESS_INDEX_MAX_DIM},
    {"metric", TESS_FIELD_STRING, offsetof(document, metric), 0, 0},
    {"factory", TESS_FIELD_STRING, offsetof(document, m.factory), 0, 0},
    {"n_rows", TESS_FIELD_INT, offsetof(document, m.n_rows), 1, 1e12},
    {"ef_search", TESS_FIELD_INT, offsetof(document, m.ef_search), 0, 1e6},
    {"n_probe", TESS_FIELD_INT, offsetof(document, m.n_probe), 0, 1e9},
    {"vectors", TESS_FIELD_OBJECT, offsetof(document, vectors), 0, 0},
    {"rows", TESS_FIELD_OBJECT, offsetof(document, rows), 0, 0},
    {"checksum", TESS_FIELD_STRING, offsetof(document, checksum), 0, 0},
};

static const tess_field file_fields[] = {
    {"file", TESS_FIELD_STRING, offsetof(tess__file_facts, name), 0, 0},
    {"bytes", TESS_FIELD_INT, offsetof(tess__file_facts, n_bytes), 1, 9e15},
    {"xxh3", TESS_FIELD_STRING, offsetof(tess__file_facts, xxh3), 0, 0},
};

/* ---- reading ------------------------------------------------------------------------------- */

static bool is_checksum(const char *s)
{
    return s && strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

/* A name that cannot leave the directory. */
static bool is_plain_name(const char *s)
{
    return s && s[0] && s[0] != '.' && strlen(s) <= 255 && !strchr(s, '/');
}

static tess_status read_facts(const tess_json *obj, const char *name, const char *key,
                              tess_arena *arena, tess__file_facts *out)
{
    if (!obj) {
        return TESS_FAIL(TESS_FORMAT, "%s: \"%s\" is missing", name, key);
    }
    TESS_TRY(tess_json_read_fields(obj, name, file_fields, TESS_COUNT(file_fields), arena, out));
    if (!is_plain_name(out->name) || !is_checksum(out->xxh3) || out->n_bytes < 1) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: \"%s\" needs \"file\" (a name in the directory), \"bytes\" and "
                         "\"xxh3\" (32 hex digits)",
                         name, key);
    }
    return TESS_OK;
}

static tess_status check_document(const document *d, const char *name)
{
    if (!d->format || strcmp(d->format, FORMAT_NAME) != 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected \"format\": \"%s\", found \"%s\"", name,
                         FORMAT_NAME, d->format ? d->format : "");
    }
    if (d->m.version != TESS__MANIFEST_VERSION) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: format version %lld, this program reads %d: build the index again",
                         name, (long long)d->m.version, TESS__MANIFEST_VERSION);
    }
    if (!d->metric || strcmp(d->metric, "ip") != 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected \"metric\": \"ip\", found \"%s\"", name,
                         d->metric ? d->metric : "");
    }
    if (!d->m.fingerprint || !d->m.fingerprint[0] || !d->m.factory || !d->m.factory[0] ||
        d->m.dim < 1 || d->m.n_rows < 1) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: \"fingerprint\", \"factory\", \"dim\" and \"n_rows\" are all needed",
                         name);
    }
    return TESS_OK;
}

static tess_status read_document(const tess_json *root, const char *name, tess_arena *arena,
                                 document *d)
{
    TESS_TRY(
        tess_json_read_fields(root, name, document_fields, TESS_COUNT(document_fields), arena, d));
    TESS_TRY(check_document(d, name));
    TESS_TRY(read_facts(d->vectors, name, "vectors", arena, &d->m.vectors));
    return read_facts(d->rows, name, "rows", arena, &d->m.rows);
}

static tess_status parse_document(const char *text, size_t n_bytes, const char *name,
                                  tess_arena *arena, document *d)
{
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_parse(text, n_bytes, name, &doc));
    const tess_json *root = tess_json_root(doc);
    tess_status st = TESS_OK;
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT) {
        st = TESS_FAIL(TESS_FORMAT, "%s: expected a JSON object", name);
    } else {
        st = read_document(root, name, arena, d);
    }
    tess_json_free(doc);
    /* Here the fields come from a file, not from a caller. */
    return st == TESS_INVALID ? TESS_FORMAT : st;
}

tess_status tess__manifest_parse(const char *text, size_t n_bytes, const char *name,
                                 tess_arena *arena, tess__manifest *out)
{
    document d = {0};
    TESS_TRY(parse_document(text, n_bytes, name, arena, &d));
    *out = d.m;
    return TESS_OK;
}

/* Zeroes the digits of the text's own checksum and says what the rest hashes to. */
static tess_status checksum_of(char *text, size_t n_bytes, const char *digits, char out_hex[33])
{
    char *at = memmem(text, n_bytes, digits, 32);
    if (at) {
        memcpy(at, ZEROS, 32);
    }
    return tess__xxh3_hex(text, n_bytes, out_hex);
}

static tess_status check_own(char *text, size_t n_bytes, const char *name, const char *digits)
{
    char hex[33] = "";
    if (is_checksum(digits)) {
        TESS_TRY(checksum_of(text, n_bytes, digits, hex));
    }
    if (!digits || strcmp(hex, digits) != 0) {
        return TESS_FAIL(TESS_FORMAT,
                         "%s: its checksum does not match its text: the index is damaged or was "
                         "edited, build it again",
                         name);
    }
    return TESS_OK;
}

tess_status tess__manifest_load(const char *dir, tess_arena *arena, tess__manifest *out)
{
    char *path = tess_arena_format(arena, "%s/%s", dir, TESS__MANIFEST_NAME);
    if (!path) {
        return TESS_NOMEM;
    }
    if (!tess_path_exists(path)) {
        return TESS_FAIL(TESS_INVALID,
                         "%s: no index here (there is no %s); make one with "
                         "`tessera index build`",
                         dir, TESS__MANIFEST_NAME);
    }
    uint8_t *text = NULL;
    size_t n_bytes = 0;
    TESS_TRY(tess_file_read(path, MAX_MANIFEST_BYTES, &text, &n_bytes));
    document d = {0};
    tess_status st = parse_document((const char *)text, n_bytes, path, arena, &d);
    if (st == TESS_OK) {
        st = check_own((char *)text, n_bytes, path, d.checksum);
    }
    tess_free(text);
    *out = d.m;
    return st;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void write_facts(tess_json_writer *w, const char *key, const tess__file_facts *f)
{
    tess_json_key(w, key);
    tess_json_begin_object(w);
    tess_json_key(w, "file");
    tess_json_add_string(w, f->name);
    tess_json_key(w, "bytes");
    tess_json_add_int(w, f->n_bytes);
    tess_json_key(w, "xxh3");
    tess_json_add_string(w, f->xxh3);
    tess_json_end_object(w);
}

static void add_string(tess_json_writer *w, const char *key, const char *s)
{
    tess_json_key(w, key);
    tess_json_add_string(w, s);
}

static void add_int(tess_json_writer *w, const char *key, int64_t v)
{
    tess_json_key(w, key);
    tess_json_add_int(w, v);
}

void tess__manifest_write(const tess__manifest *m, tess_json_writer *w)
{
    add_string(w, "format", FORMAT_NAME);
    add_int(w, "version", m->version);
    add_string(w, "tessera", m->tessera);
    add_string(w, "fingerprint", m->fingerprint);
    if (m->model) {
        add_string(w, "model", m->model);
    }
    add_int(w, "dim", m->dim);
    add_string(w, "metric", "ip");
    add_string(w, "factory", m->factory);
    add_int(w, "n_rows", m->n_rows);
    add_int(w, "ef_search", m->ef_search);
    add_int(w, "n_probe", m->n_probe);
    write_facts(w, "vectors", &m->vectors);
    write_facts(w, "rows", &m->rows);
}

static tess_status render(const tess__manifest *m, tess_buf *buf)
{
    tess_json_writer w = {.buf = buf, .pretty = true};
    tess_json_begin_object(&w);
    tess__manifest_write(m, &w);
    add_string(&w, "checksum", ZEROS);
    tess_json_end_object(&w);
    tess_buf_adds(buf, "\n");
    TESS_TRY(tess_buf_check(buf));
    char hex[33];
    TESS_TRY(tess__xxh3_hex(buf->data, buf->n_bytes, hex));
    /* The last run of zeros: a fingerprint may hold one too. */
    size_t at = buf->n_bytes - 32;
    while (memcmp(buf->data + at, ZEROS, 32) != 0) {
        at--;
    }
    memcpy(buf->data + at, hex, 32);
    return TESS_OK;
}

tess_status tess__manifest_save(const tess__manifest *m, const char *dir)
{
    tess_buf buf = {0};
    char *path = tess_format("%s/%s", dir, TESS__MANIFEST_NAME);
    tess_status st = path ? render(m, &buf) : TESS_NOMEM;
    if (st == TESS_OK) {
        st = tess_file_write(path, buf.data, buf.n_bytes);
    }
    tess_buf_deinit(&buf);
    tess_free(path);
    return st;
}
