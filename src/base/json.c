/* SPDX-License-Identifier: Apache-2.0 */
/* JSON in: the only file that includes jansson; a `tess_json` is a json_t behind the scenes.
 *
 * Jansson refuses bad UTF-8, duplicate keys (by our flag), NULs in strings, integers beyond 64 bits
 * and nesting deeper than 2,048.  It has no access to an object's i-th member, only a walk; so that
 * a loop over a vocabulary of 250,000 members stays linear, each thread remembers where its last
 * walks stood.  A global generation, raised by every tess_json_free, makes old places invalid.
 *
 * Where its memory gives out jansson drops bytes of strings, asserts or reads through NULL; so it
 * never learns of it: a parse has an arena, which is left by a jump when it cannot grow, and which
 * is also what frees a document.
 */
#include "tessera/base.h"

#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <string.h>

enum {
    MAX_FILE_BYTES = 1 << 30,
    N_PLACES = 4,
    SMALL_OBJECT = 16, /* members; a walk over fewer is not worth remembering */
};

struct tess_json_doc {
    tess_arena arena;
    json_t *root;
    jmp_buf no_memory;
};

typedef struct place {
    json_t *obj;
    void *iter;
    size_t i;
    uint64_t generation;
} place;

static _Atomic uint64_t generation = 1;
static _Thread_local place places[N_PLACES];
static _Thread_local unsigned next_place;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static _Thread_local tess_json_doc *parsing;

static void *allocate(size_t bytes)
{
    void *p = tess_arena_alloc(&parsing->arena, bytes);
    if (p == NULL) {
        longjmp(parsing->no_memory, 1);
    }
    return p;
}

static void release(void *p)
{
    (void)p; /* goes with the arena */
}

static void set_allocator(void)
{
    json_set_alloc_funcs(allocate, release);
}

/* Jansson's readers take pointers to what they do not change. */
static json_t *node_of(const tess_json *v)
{
    return (json_t *)(uintptr_t)v;
}

static const tess_json *json_of(const json_t *v)
{
    return (const tess_json *)v;
}

static tess_status parse(tess_json_doc *doc, const char *text, size_t n_bytes, const char *name)
{
    json_error_t error = {0};
    parsing = doc;
    if (setjmp(doc->no_memory) != 0) {
        return TESS_FAIL(TESS_NOMEM, "%s: out of memory while reading JSON", name);
    }
    doc->root = json_loadb(n_bytes > 0 ? text : "", n_bytes,
                           JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    return doc->root != NULL ? TESS_OK
                             : TESS_FAIL(TESS_FORMAT, "%s:%d:%d: bad JSON: %s", name, error.line,
                                         error.column, error.text);
}

tess_status tess_json_parse(const char *text, size_t n_bytes, const char *name, tess_json_doc **out)
{
    pthread_once(&once, set_allocator);
    *out = NULL;
    tess_json_doc *doc = tess_alloc(sizeof *doc);
    if (doc == NULL) {
        return TESS_NOMEM;
    }
    const tess_status st = parse(doc, text, n_bytes, name);
    if (st) {
        tess_json_free(doc);
        return st;
    }
    *out = doc;
    return TESS_OK;
}

tess_status tess_json_load(const char *path, tess_json_doc **out)
{
    uint8_t *text = NULL;
    size_t n_bytes = 0;
    *out = NULL;
    TESS_TRY(tess_file_read(path, MAX_FILE_BYTES, &text, &n_bytes));
    tess_status st = tess_json_parse((const char *)text, n_bytes, path, out);
    tess_free(text);
    return st;
}

void tess_json_free(tess_json_doc *doc)
{
    if (doc != NULL) {
        atomic_fetch_add(&generation, 1);
        tess_arena_deinit(&doc->arena);
        tess_free(doc);
    }
}

const tess_json *tess_json_root(const tess_json_doc *doc)
{
    return doc != NULL ? json_of(doc->root) : NULL;
}

tess_json_kind tess_json_kind_of(const tess_json *v)
{
    static const tess_json_kind kinds[] = {
        [JSON_OBJECT] = TESS_JSON_OBJECT, [JSON_ARRAY] = TESS_JSON_ARRAY,
        [JSON_STRING] = TESS_JSON_STRING, [JSON_INTEGER] = TESS_JSON_INT,
        [JSON_REAL] = TESS_JSON_REAL,     [JSON_TRUE] = TESS_JSON_BOOL,
        [JSON_FALSE] = TESS_JSON_BOOL,    [JSON_NULL] = TESS_JSON_NULL,
    };
    return v != NULL ? kinds[json_typeof(node_of(v))] : TESS_JSON_NULL;
}

const tess_json *tess_json_get(const tess_json *obj, const char *key)
{
    return json_of(json_object_get(node_of(obj), key));
}

size_t tess_json_count(const tess_json *v)
{
    json_t *node = node_of(v);
    return json_is_array(node) ? json_array_size(node) : json_object_size(node);
}

const tess_json *tess_json_at(const tess_json *array, size_t i)
{
    return json_of(json_array_get(node_of(array), i));
}

/* This thread's remembered place in `obj` at or before member i; NULL when there is none. */
static place *find_place(json_t *obj, size_t i, uint64_t now)
{
    for (int k = 0; k < N_PLACES; k++) {
        place *p = &places[k];
        if (p->obj == obj && p->generation == now && p->i <= i) {
            return p;
        }
    }
    return NULL;
}

static void *find_member(json_t *obj, size_t i)
{
    uint64_t now = atomic_load(&generation);
    bool large = json_object_size(obj) > SMALL_OBJECT;
    place *p = large ? find_place(obj, i, now) : NULL;
    size_t at = p != NULL ? p->i : 0;
    void *iter = p != NULL ? p->iter : json_object_iter(obj);
    for (; at < i; at++) {
        iter = json_object_iter_next(obj, iter);
    }
    if (large) {
        p = p != NULL ? p : &places[next_place++ % N_PLACES];
        *p = (place){obj, iter, i, now};
    }
    return iter;
}

const tess_json *tess_json_member(const tess_json *obj, size_t i, const char **out_key)
{
    json_t *node = node_of(obj);
    if (i >= json_object_size(node)) {
        return NULL;
    }
    void *iter = find_member(node, i);
    *out_key = json_object_iter_key(iter);
    return json_of(json_object_iter_value(iter));
}

const char *tess_json_string(const tess_json *v, const char *fallback)
{
    const char *s = json_string_value(node_of(v));
    return s != NULL ? s : fallback;
}

int64_t tess_json_int(const tess_json *v, int64_t fallback)
{
    return json_is_integer(node_of(v)) ? json_integer_value(node_of(v)) : fallback;
}

double tess_json_real(const tess_json *v, double fallback)
{
    return json_is_number(node_of(v)) ? json_number_value(node_of(v)) : fallback;
}

bool tess_json_bool(const tess_json *v, bool fallback)
{
    return json_is_boolean(node_of(v)) ? json_is_true(node_of(v)) : fallback;
}
