/* SPDX-License-Identifier: Apache-2.0 */
/* The file behind cuda_cache.h:
 *
 *   tessera cache 1
 *   PLACE
 *   KEY tab VALUE            a line for each
 *   end HASH                 of all bytes before, 16 hexadecimal digits
 */
#include "tensor/cuda_cache.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC      "tessera cache 1\n"
#define MOST_BYTES (16u << 20)

/* ---- where ----------------------------------------------------------------------------------- */

/* The file's folder; NULL: there shall be none, or memory gave out. */
static char *folder(void)
{
    const char *own = getenv("TESSERA_CACHE"), *shared = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (own) {
        return own[0] ? tess_strdup(own) : NULL;
    }
    if (shared && shared[0] == '/') { /* else to be ignored, says the specification */
        return tess_format("%s/tessera", shared);
    }
    return home && home[0] == '/' ? tess_format("%s/.cache/tessera", home) : NULL;
}

static char *file_of(const char *place)
{
    char *in = folder();
    char *path =
        in ? tess_format("%s/products-%016" PRIx64 ".txt", in, tess_hash64(place, strlen(place), 0))
           : NULL;
    tess_free(in);
    return path;
}

/* ---- entries --------------------------------------------------------------------------------- */

static tess_kept *find(const tess_cache *c, const char *key, size_t n_bytes)
{
    for (size_t i = 0; i < c->n; i++) {
        if (strlen(c->items[i].key) == n_bytes && memcmp(c->items[i].key, key, n_bytes) == 0) {
            return &c->items[i];
        }
    }
    return NULL;
}

static tess_status add(tess_cache *c, const char *key, size_t key_bytes, const char *value,
                       size_t value_bytes)
{
    TESS_TRY(tess_grow(&c->items, &c->cap, c->n + 1, sizeof *c->items));
    tess_kept k = {tess_strndup(key, key_bytes), tess_strndup(value, value_bytes)};
    if (!k.key || !k.value) {
        tess_free(k.key);
        tess_free(k.value);
        return TESS_NOMEM;
    }
    c->items[c->n++] = k;
    return TESS_OK;
}

const char *tess__cache_find(const tess_cache *c, const char *key)
{
    const tess_kept *k = find(c, key, strlen(key));
    return k ? k->value : NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Behind `word` at `at`, or NULL. */
static const char *after(const char *at, const char *word)
{
    const size_t n = strlen(word);
    return strncmp(at, word, n) == 0 ? at + n : NULL;
}

/* The first line of entries, or NULL: not a whole file of this place. */
static const char *check_whole(const char *text, size_t n_bytes, const char *place)
{
    char end[32];
    const size_t tail = strlen("end ") + 16 + 1;
    if (n_bytes < tail || strlen(text) != n_bytes) {
        return NULL;
    }
    snprintf(end, sizeof end, "end %016" PRIx64 "\n", tess_hash64(text, n_bytes - tail, 0));
    const char *at = memcmp(text + n_bytes - tail, end, tail) == 0 ? after(text, MAGIC) : NULL;
    at = at ? after(at, place) : NULL;
    return at ? after(at, "\n") : NULL;
}

/* Entries that are not there yet; what no writer of ours made ends the reading. */
static tess_status add_lines(tess_cache *c, const char *at)
{
    for (const char *end = strchr(at, '\n'); end && end[1]; at = end + 1, end = strchr(at, '\n')) {
        const char *tab = memchr(at, '\t', (size_t)(end - at));
        if (!tab) {
            return TESS_OK;
        }
        if (!find(c, at, (size_t)(tab - at))) {
            TESS_TRY(add(c, at, (size_t)(tab - at), tab + 1, (size_t)(end - tab - 1)));
        }
    }
    return TESS_OK;
}

static tess_status read_file(tess_cache *c)
{
    uint8_t *text = NULL;
    size_t n_bytes = 0;
    if (!c->path || tess_file_read(c->path, MOST_BYTES, &text, &n_bytes) != TESS_OK) {
        return TESS_OK;
    }
    const char *first = check_whole((const char *)text, n_bytes, c->place);
    const tess_status st = first ? add_lines(c, first) : TESS_OK;
    tess_free(text);
    return st;
}

tess_status tess__cache_open(tess_cache *c, const char *place)
{
    *c = (tess_cache){.place = tess_strdup(place)};
    if (!c->place) {
        return TESS_NOMEM;
    }
    c->path = file_of(place);
    return read_file(c);
}

void tess__cache_close(tess_cache *c)
{
    for (size_t i = 0; i < c->n; i++) {
        tess_free(c->items[i].key);
        tess_free(c->items[i].value);
    }
    tess_free(c->items);
    tess_free(c->place);
    tess_free(c->path);
    *c = (tess_cache){0};
}

/* ---- writing --------------------------------------------------------------------------------- */

static void print_file(const tess_cache *c, tess_buf *out)
{
    tess_buf_addf(out, MAGIC "%s\n", c->place);
    for (size_t i = 0; i < c->n; i++) {
        tess_buf_addf(out, "%s\t%s\n", c->items[i].key, c->items[i].value);
    }
    tess_buf_addf(out, "end %016" PRIx64 "\n", tess_hash64(out->data, out->n_bytes, 0));
}

static tess_status write_file(const tess_cache *c)
{
    tess_buf text = {0};
    char *slash = strrchr(c->path, '/');
    *slash = '\0';
    tess_status st = tess_dir_make(c->path);
    *slash = '/';
    print_file(c, &text);
    st = st ? st : tess_buf_check(&text);
    st = st ? st : tess_file_write(c->path, text.data, text.n_bytes);
    tess_buf_deinit(&text);
    return st;
}

tess_status tess__cache_keep(tess_cache *c, const char *key, const char *value)
{
    tess_kept *old = find(c, key, strlen(key));
    if (old) {
        char *fresh = tess_strdup(value);
        if (!fresh) {
            return TESS_NOMEM;
        }
        tess_free(old->value);
        old->value = fresh;
    } else {
        TESS_TRY(add(c, key, strlen(key), value, strlen(value)));
    }
    TESS_TRY(read_file(c));
    if (c->path && write_file(c) != TESS_OK) {
        tess_free(c->path); /* not again for each product */
        c->path = NULL;
    }
    return TESS_OK;
}
