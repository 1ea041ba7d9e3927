/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a tokenizer by what its file holds, and looking at it.  Each kind does its own reading;
 * what decides the ids is kept, so that saving gives back the very bytes. */
#include "text/open.h"

#include <ctype.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)512 << 20)

/* ---- files ------------------------------------------------------------------------------ */

static tess_tokenizer *make(void)
{
    tess_tokenizer *t = tess_alloc(sizeof(*t));
    for (int i = 0; t != NULL && i < TESS__SPECIALS; i++) {
        t->special[i] = -1;
    }
    return t;
}

/* Takes ownership of bytes. */
static tess_status add_file(tess_tokenizer *t, const char *name, uint8_t *bytes, size_t n_bytes)
{
    const char *slash = strrchr(name, '/');
    char *copy = tess_strdup(slash != NULL ? slash + 1 : name);
    if (copy == NULL || t->n_files == TESS__MAX_FILES) {
        tess_free(bytes);
        tess_free(copy);
        return TESS_NOMEM;
    }
    t->files[t->n_files++] = (tess__token_file){copy, bytes, n_bytes};
    return TESS_OK;
}

tess_status tess__tokenizer_load(tess_tokenizer *t, const char *path)
{
    uint8_t *bytes;
    size_t n_bytes;
    TESS_TRY(tess_file_read(path, MAX_FILE_BYTES, &bytes, &n_bytes));
    return add_file(t, path, bytes, n_bytes);
}

tess_status tess__tokenizer_begin(tess_tokenizer **out)
{
    *out = make();
    return *out != NULL ? TESS_OK : TESS_NOMEM;
}

/* ---- opening ---------------------------------------------------------------------------- */

/* A line of its own among the first ones: a WordPiece vocabulary names its special pieces. */
static bool has_line(const uint8_t *data, size_t n, const char *line)
{
    size_t n_line = strlen(line);
    for (size_t i = 0; i < n;) {
        const uint8_t *stop = memchr(data + i, '\n', n - i);
        size_t end = stop != NULL ? (size_t)(stop - data) : n;
        size_t bare = end > i && data[end - 1] == '\r' ? end - 1 : end;
        if (bare - i == n_line && memcmp(data + i, line, n_line) == 0) {
            return true;
        }
        i = end + 1;
    }
    return false;
}

static bool starts_with(const uint8_t *data, size_t n, const char *head, size_t n_head)
{
    return n >= n_head && memcmp(data, head, n_head) == 0;
}

tess__open_fn *tess__tokenizer_detect(const uint8_t *data, size_t n)
{
    size_t i = 0;
    while (i < n && i < 64 && isspace(data[i])) {
        i++;
    }
    if (starts_with(data + i, n - i, "{", 1)) {
        return tess__pipe_json_open;
    }
    /* The magic number of gzip, or the text inside. */
    if (starts_with(data, n, "\x1f\x8b", 2) || starts_with(data, n, "\"bpe_simple_vocab", 17)) {
        return tess__clip_open;
    }
    return has_line(data, n, "[UNK]") || has_line(data, n, "[PAD]") ? tess__bert_open
                                                                    : tess__plain_open;
}

static tess_status open_first(tess_tokenizer *t, const char *name, tess_tokenizer **out)
{
    const tess__open_options defaults = {0};
    tess__open_fn *open = tess__tokenizer_detect(t->files[0].bytes, t->files[0].n_bytes);
    tess_status st = open(t, &defaults);
    if (st != TESS_OK) {
        tess_tokenizer_close(t);
        return tess_error_prefix(st, "%s", name);
    }
    *out = t;
    return TESS_OK;
}

tess_status tess_tokenizer_open(const char *path, tess_tokenizer **out)
{
    *out = NULL;
    if (tess_path_is_dir(path)) {
        return tess_tokenizer_open_dir(path, NULL, out);
    }
    tess_tokenizer *t;
    TESS_TRY(tess__tokenizer_begin(&t));
    tess_status st = tess__tokenizer_load(t, path);
    if (st != TESS_OK) {
        tess_tokenizer_close(t);
        return st;
    }
    return open_first(t, path, out);
}

tess_status tess_tokenizer_open_bytes(const void *data, size_t n_bytes, const char *name,
                                      tess_tokenizer **out)
{
    *out = NULL;
    if (n_bytes > MAX_FILE_BYTES) {
        return TESS_FAIL(TESS_FORMAT, "%s: a model of %zu bytes, the limit is %zu", name, n_bytes,
                         MAX_FILE_BYTES);
    }
    tess_tokenizer *t = make();
    uint8_t *bytes = tess_alloc(n_bytes + 1);
    if (t == NULL || bytes == NULL) {
        tess_free(t);
        tess_free(bytes);
        return TESS_NOMEM;
    }
    if (n_bytes > 0) {
        memcpy(bytes, data, n_bytes);
    }
    tess_status st = add_file(t, name, bytes, n_bytes);
    if (st != TESS_OK) {
        tess_tokenizer_close(t);
        return st;
    }
    return open_first(t, name, out);
}

void tess_tokenizer_close(tess_tokenizer *t)
{
    if (t == NULL) {
        return;
    }
    if (t->kind != NULL) {
        t->kind->close(t->self);
    }
    for (size_t i = 0; i < t->n_files; i++) {
        tess_free(t->files[i].name);
        tess_free(t->files[i].bytes);
    }
    tess_free(t);
}

/* ---- saving ----------------------------------------------------------------------------- */

static tess_status save_file(const tess__token_file *f, const char *dir, size_t n_dir)
{
    char *path = tess_format("%.*s%s", (int)n_dir, dir, f->name);
    tess_status st = path != NULL ? tess_file_write(path, f->bytes, f->n_bytes) : TESS_NOMEM;
    tess_free(path);
    return st;
}

tess_status tess_tokenizer_save(const tess_tokenizer *t, const char *path)
{
    const char *slash = strrchr(path, '/');
    for (size_t i = 1; i < t->n_files; i++) {
        TESS_TRY(save_file(&t->files[i], path, slash != NULL ? (size_t)(slash - path) + 1 : 0));
    }
    return tess_file_write(path, t->files[0].bytes, t->files[0].n_bytes);
}

tess_status tess_tokenizer_save_dir(const tess_tokenizer *t, const char *dir)
{
    char *prefix = tess_format("%s/", dir);
    tess_status st = prefix != NULL ? TESS_OK : TESS_NOMEM;
    for (size_t i = 0; st == TESS_OK && i < t->n_files; i++) {
        st = save_file(&t->files[i], prefix, strlen(prefix));
    }
    tess_free(prefix);
    return st;
}

const char *tess_tokenizer_file(const tess_tokenizer *t, size_t i)
{
    return i < t->n_files ? t->files[i].name : NULL;
}

/* ---- looking ---------------------------------------------------------------------------- */

int32_t tess_tokenizer_n_vocab(const tess_tokenizer *t)
{
    return t->n_vocab;
}

int32_t tess_tokenizer_unk_id(const tess_tokenizer *t)
{
    return t->special[TESS__UNK];
}

int32_t tess_tokenizer_bos_id(const tess_tokenizer *t)
{
    return t->special[TESS__BOS];
}

int32_t tess_tokenizer_eos_id(const tess_tokenizer *t)
{
    return t->special[TESS__EOS];
}

int32_t tess_tokenizer_pad_id(const tess_tokenizer *t)
{
    return t->special[TESS__PAD];
}

int32_t tess_tokenizer_cls_id(const tess_tokenizer *t)
{
    return t->special[TESS__CLS];
}

int32_t tess_tokenizer_sep_id(const tess_tokenizer *t)
{
    return t->special[TESS__SEP];
}

int32_t tess_tokenizer_mask_id(const tess_tokenizer *t)
{
    return t->special[TESS__MASK];
}

size_t tess_tokenizer_n_special(const tess_tokenizer *t)
{
    return t->n_prefix + t->n_suffix;
}

const char *tess_tokenizer_kind(const tess_tokenizer *t)
{
    return t->name;
}

tess_bytes tess_tokenizer_piece(const tess_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->n_vocab ? t->kind->piece(t->self, id) : (tess_bytes){0};
}

int32_t tess_tokenizer_find(const tess_tokenizer *t, const char *piece, size_t n_bytes)
{
    return t->kind->find(t->self, piece, n_bytes);
}

const char *tess_tokenizer_hash(const tess_tokenizer *t)
{
    return t->hash;
}

void tess__hash_u32(tess_hash128_state *h, uint32_t v)
{
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    tess_hash128_add(h, b, sizeof(b));
}

void tess__hash_bytes(tess_hash128_state *h, const void *data, size_t n_bytes)
{
    tess__hash_u32(h, (uint32_t)n_bytes);
    if (n_bytes > 0) {
        tess_hash128_add(h, data, n_bytes);
    }
}
