/* SPDX-License-Identifier: Apache-2.0 */
/* The one door to the allocator, strings in fresh memory, and arenas.
 *
 * posix_memalign rather than aligned_alloc: its size need not be a multiple of the alignment, so
 * the address sanitizer sees an overrun at the very first byte.
 */
#include "base/fault.h"
#include "tessera/base.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* From LAZY_BYTES on, the C library's largest threshold, memory comes from the kernel as it is. */
enum {
    ALIGNMENT = 64,
    LAZY_ALIGNMENT = 4096, /* a disk takes it from there as it is */
    ARENA_BLOCK_BYTES = 16 * 1024,
    ARENA_ALIGNMENT = 16,
    LAZY_BYTES = 32 << 20,
};

typedef struct tess__arena_block {
    struct tess__arena_block *next;
    size_t used, cap;
    uint8_t pad[40]; /* the data begin on a cache line */
    uint8_t data[];
} arena_block;

static void *no_memory(size_t bytes)
{
    (void)TESS_FAIL(TESS_NOMEM, "out of memory: %zu bytes were needed", bytes);
    return NULL;
}

/* Whole pages that are given back read as zeros, and are none of the process's until they are
 * touched: of weights that are read and narrowed one by one, only some are there at a time. */
static void *zero(uint8_t *p, size_t n)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), head = -(uintptr_t)p % page;
    const size_t inside = n < LAZY_BYTES ? 0 : (n - head) / page * page;
    if (inside == 0 || madvise(p + head, inside, MADV_DONTNEED) != 0) {
        return memset(p, 0, n);
    }
    memset(p, 0, head);
    memset(p + head + inside, 0, n - head - inside);
    return p;
}

void *tess_alloc_unset(size_t bytes)
{
    void *p = NULL;
    size_t n = bytes > 0 ? bytes : 1;
    if (tess__fault_hit(TESS_FAULT_ALLOC) || n > PTRDIFF_MAX ||
        posix_memalign(&p, n < LAZY_BYTES ? ALIGNMENT : LAZY_ALIGNMENT, n) != 0) {
        return no_memory(bytes);
    }
    return p;
}

void *tess_alloc(size_t bytes)
{
    void *p = tess_alloc_unset(bytes);
    return p ? zero(p, bytes > 0 ? bytes : 1) : NULL;
}

void *tess_alloc_array(size_t n, size_t item_bytes)
{
    size_t bytes = 0;
    if (tess_mul_overflows(n, item_bytes, &bytes)) {
        (void)TESS_FAIL(TESS_NOMEM, "out of memory: %zu items of %zu bytes were needed", n,
                        item_bytes);
        return NULL;
    }
    return tess_alloc(bytes);
}

void tess_free(void *p)
{
    free(p);
}

void *tess_reserve(size_t bytes)
{
    void *p = MAP_FAILED;
    if (!tess__fault_hit(TESS_FAULT_ALLOC)) {
        p = mmap(NULL, bytes > 0 ? bytes : 1, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (p == MAP_FAILED) {
        (void)TESS_FAIL(TESS_NOMEM, "no addresses for %zu bytes: ulimit -v may be too low", bytes);
        return NULL;
    }
    return p;
}

void tess_unreserve(void *p, size_t bytes)
{
    if (p) {
        munmap(p, bytes > 0 ? bytes : 1);
    }
}

tess_status tess_grow(void *array, size_t *n_cap, size_t n_need, size_t item_bytes)
{
    if (n_need <= *n_cap) {
        return TESS_OK;
    }
    size_t n = *n_cap < 8 ? 8 : *n_cap;
    while (n < n_need) {
        n = n > SIZE_MAX / 2 ? n_need : n * 2;
    }
    void *old = NULL;
    void *grown = tess_alloc_array(n, item_bytes);
    if (grown == NULL) {
        return TESS_NOMEM;
    }
    memcpy(&old, array, sizeof old);
    if (old != NULL) {
        memcpy(grown, old, *n_cap * item_bytes);
    }
    memcpy(array, &grown, sizeof grown);
    *n_cap = n;
    tess_free(old);
    return TESS_OK;
}

char *tess_strndup(const char *s, size_t n_bytes)
{
    size_t cap = 0;
    char *copy = tess_add_overflows(n_bytes, 1, &cap) ? no_memory(n_bytes) : tess_alloc(cap);
    if (copy != NULL && n_bytes > 0) {
        memcpy(copy, s, n_bytes);
    }
    return copy;
}

char *tess_strdup(const char *s)
{
    return tess_strndup(s, strlen(s));
}

/* Length of the formatted text; negative lengths (a bad format) count as empty. */
static size_t TESS_PRINTF(1, 0) format_bytes(const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    return n > 0 ? (size_t)n : 0;
}

char *tess_format(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t n = format_bytes(fmt, args);
    char *text = tess_alloc(n + 1);
    if (text != NULL) {
        vsnprintf(text, n + 1, fmt, args);
    }
    va_end(args);
    return text;
}

/* A block with room for `bytes`: the first one, or a fresh one.  What is large gets a block of its
 * own behind the first, so that the room left in the first stays in use. */
static arena_block *find_block(tess_arena *a, size_t bytes)
{
    if (a->head != NULL && a->head->cap - a->head->used >= bytes) {
        return a->head;
    }
    size_t cap = bytes > ARENA_BLOCK_BYTES / 4 ? bytes : ARENA_BLOCK_BYTES;
    size_t total = 0;
    if (tess_add_overflows(cap, sizeof(arena_block), &total)) {
        return no_memory(bytes);
    }
    arena_block *b = tess_alloc(total);
    if (b == NULL) {
        return NULL;
    }
    b->cap = cap;
    if (a->head != NULL && cap == bytes) {
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    return b;
}

void *tess_arena_alloc(tess_arena *a, size_t bytes)
{
    size_t n = 0;
    if (tess_add_overflows(bytes > 0 ? bytes : 1, ARENA_ALIGNMENT - 1, &n)) {
        return no_memory(bytes);
    }
    n &= ~(size_t)(ARENA_ALIGNMENT - 1);
    arena_block *b = find_block(a, n);
    if (b == NULL) {
        return NULL;
    }
    void *p = b->data + b->used;
    b->used += n;
    return p;
}

char *tess_arena_strndup(tess_arena *a, const char *s, size_t n_bytes)
{
    size_t cap = 0;
    char *copy =
        tess_add_overflows(n_bytes, 1, &cap) ? no_memory(n_bytes) : tess_arena_alloc(a, cap);
    if (copy != NULL && n_bytes > 0) {
        memcpy(copy, s, n_bytes);
    }
    return copy;
}

char *tess_arena_format(tess_arena *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    size_t n = format_bytes(fmt, args);
    char *text = tess_arena_alloc(a, n + 1);
    if (text != NULL) {
        vsnprintf(text, n + 1, fmt, args);
    }
    va_end(args);
    return text;
}

void tess_arena_deinit(tess_arena *a)
{
    if (a == NULL) {
        return;
    }
    for (arena_block *b = a->head; b != NULL;) {
        arena_block *next = b->next;
        tess_free(b);
        b = next;
    }
    a->head = NULL;
}
