/* SPDX-License-Identifier: Apache-2.0 */
/* base: status, memory, files, JSON, logs, random numbers, hashes, the processor.
 *
 * Everything here is used by every floor.  Conventions of the whole project:
 *   - a fallible function returns tess_status and is warn-unused; 0 is success;
 *   - `**out` or `_new`: the caller frees; a bare returned pointer is borrowed from its owner;
 *   - every struct is valid when zeroed, every free and deinit accepts NULL or a zeroed struct.
 */
#ifndef TESSERA_BASE_H
#define TESSERA_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TESS_MUST_USE        __attribute__((warn_unused_result))
#define TESS_PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))
#define TESS_COUNT(array)    ((int64_t)(sizeof(array) / sizeof((array)[0])))

/* ---- status ------------------------------------------------------------------------------- */

typedef enum tess_status {
    TESS_OK = 0,
    TESS_INVALID = -1,     /* the caller's argument or option */
    TESS_NOMEM = -2,       /* memory, or a limit on memory */
    TESS_IO = -3,          /* the operating system said no */
    TESS_FORMAT = -4,      /* bytes that are not what they should be */
    TESS_DEVICE = -5,      /* an accelerator or a kernel library */
    TESS_COMM = -6,        /* other ranks */
    TESS_UNSUPPORTED = -7, /* understood, but not offered */
    TESS_CANCELLED = -8,   /* the user asked to stop */
} tess_status;

/* Sets this thread's message and returns `code`: neither exists without the other.  The message
 * says what was expected, what was found, where, and what to do; no trailing full stop or newline.
 * Use through TESS_FAIL. */
tess_status tess__fail(tess_status code, const char *fmt, ...) TESS_PRINTF(2, 3);
#define TESS_FAIL(code, ...) tess__fail((code), __VA_ARGS__)

/* Returns TESS_FAIL(TESS_IO) with the text of errno: "what: path: No such file or directory". */
tess_status tess__fail_errno(const char *what, const char *path);

/* Puts "prefix: " before this thread's message and returns `code`; for adding file, line, sample.
 */
tess_status tess_error_prefix(tess_status code, const char *fmt, ...) TESS_PRINTF(2, 3);

/* This thread's last message, "" when there is none.  Valid until the thread's next failure. */
const char *tess_error(void);
/* "invalid", "nomem", "io", ... */
const char *tess_status_name(tess_status code);

#define TESS_TRY(expr)                                                                             \
    do {                                                                                           \
        tess_status tess_try_ = (expr);                                                            \
        if (tess_try_ != TESS_OK) {                                                                \
            return tess_try_;                                                                      \
        }                                                                                          \
    } while (0)

/* For functions with one clean-up path: `st` is the function's status variable. */
#define TESS_TRY_GOTO(st, expr, label)                                                             \
    do {                                                                                           \
        (st) = (expr);                                                                             \
        if ((st) != TESS_OK) {                                                                     \
            goto label;                                                                            \
        }                                                                                          \
    } while (0)

/* ---- memory ------------------------------------------------------------------------------- */

/* All allocation goes through here: zeroed, 64-byte aligned, counted, and able to fail on demand.
 * NULL (with the message set) when memory or the size arithmetic gives out; size 0 gives a valid
 * pointer. */
void *tess_alloc(size_t bytes);
/* The same, not zeroed: for memory that is written whole before it is read, perhaps by several
 * threads, each of which then brings its own pages. */
void *tess_alloc_unset(size_t bytes);
void *tess_alloc_array(size_t n, size_t item_bytes);
/* Grows `*array` (n_cap items of item_bytes) so that it holds at least n_need; doubles.  New items
 * are zeroed.  On failure the array is unchanged. */
TESS_MUST_USE tess_status tess_grow(void *array, size_t *n_cap, size_t n_need, size_t item_bytes);
void tess_free(void *p);
/* Addresses that no memory stands behind, for layouts: to compute with, not to touch. */
void *tess_reserve(size_t bytes);
void tess_unreserve(void *p, size_t bytes);
/* Gives back whole pages inside a part of what was allocated; its contents are lost, and it may be
 * written again. */
void tess_memory_forget(void *data, size_t n_bytes);
char *tess_strdup(const char *s);
char *tess_strndup(const char *s, size_t n_bytes);
/* printf into fresh memory; NULL when memory gives out. */
char *tess_format(const char *fmt, ...) TESS_PRINTF(1, 2);

/* Checked arithmetic for sizes that come from files. */
static inline bool tess_mul_overflows(size_t a, size_t b, size_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}
static inline bool tess_add_overflows(size_t a, size_t b, size_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

/* An arena: many small things with one lifetime. */
typedef struct tess_arena {
    struct tess__arena_block *head;
} tess_arena;
void *tess_arena_alloc(tess_arena *a, size_t bytes); /* zeroed, 16-byte aligned; NULL: no memory */
char *tess_arena_strndup(tess_arena *a, const char *s, size_t n_bytes);
char *tess_arena_format(tess_arena *a, const char *fmt, ...) TESS_PRINTF(2, 3);
void tess_arena_deinit(tess_arena *a);

/* A growable run of bytes; data[n_bytes] is always 0 once anything was added.  A failed append is
 * latched in `failed`, as FILE does: check once with tess_buf_check. */
typedef struct tess_buf {
    char *data;
    size_t n_bytes, cap_bytes;
    bool failed;
} tess_buf;
void tess_buf_add(tess_buf *b, const void *data, size_t n_bytes);
void tess_buf_adds(tess_buf *b, const char *s);
void tess_buf_addf(tess_buf *b, const char *fmt, ...) TESS_PRINTF(2, 3);
void tess_buf_clear(tess_buf *b); /* keeps the memory */
TESS_MUST_USE tess_status tess_buf_check(const tess_buf *b);
void tess_buf_deinit(tess_buf *b);

/* ---- faults, for tests -------------------------------------------------------------------- */

typedef enum tess_fault {
    TESS_FAULT_ALLOC,
    TESS_FAULT_WRITE,
    TESS_FAULT_FSYNC,
    TESS_FAULT_RENAME,
    TESS_FAULT_KINDS,
} tess_fault;
/* Makes the nth call (from 1) of this kind fail, counted from now on: that one, or with
 * `persistent` all later ones too.  nth 0 switches it off; either way the count starts again.  Also
 * read once from the environment as TESSERA_FAULT="write:17" or "write:17+" (persistent). */
void tess_fault_set(tess_fault kind, int64_t nth, bool persistent);
/* Calls of this kind since then, or since the program's start. */
int64_t tess_fault_count(tess_fault kind);

/* ---- files -------------------------------------------------------------------------------- */

typedef struct tess_bytes {
    const uint8_t *data;
    size_t n_bytes;
} tess_bytes;

/* Reads a whole file (NUL appended beyond n_bytes) of at most max_bytes (more: TESS_NOMEM); caller
 * frees *out with tess_free. */
TESS_MUST_USE tess_status tess_file_read(const char *path, size_t max_bytes, uint8_t **out,
                                         size_t *out_bytes);
/* Maps a file read-only.  Empty files map to data NULL, n_bytes 0. */
TESS_MUST_USE tess_status tess_file_map(const char *path, tess_bytes *out);
void tess_file_unmap(tess_bytes *map);
/* Gives back the memory of whole pages inside a part of a mapped file, which is read again when it
 * is touched: what was copied need not be held twice. */
void tess_file_forget(const void *data, size_t n_bytes);
/* The tess_crc64 of a mapped file, whose memory is given back as it is read. */
uint64_t tess_file_crc64(tess_bytes map);

/* A file that is whole or absent: written beside its final name, flushed, fsynced, renamed, and the
 * directory fsynced on commit.  Abort removes the temporary.  Where commit fails, what stood under
 * the name before is untouched, unless only the directory's fsync failed: then the new file stands,
 * whole, and may be lost to a crash. */
typedef struct tess_writer tess_writer;
TESS_MUST_USE tess_status tess_writer_open(const char *path, tess_writer **out);
TESS_MUST_USE tess_status tess_writer_write(tess_writer *w, const void *data, size_t n_bytes);
TESS_MUST_USE tess_status
tess_writer_commit(tess_writer *w); /* closes and frees, also on failure */
void tess_writer_abort(tess_writer *w);
TESS_MUST_USE tess_status tess_file_write(const char *path, const void *data, size_t n_bytes);

/* A file of a known size that threads, and processes of one file system, fill together: each writes
 * its own ranges, in any order, each byte once.  Whole pages go to the disk past the page cache
 * where that can be, without a copy where data lies as the file does: both at a multiple of 512
 * bytes. Ranges of many pages that begin and end at multiples of 4096 bytes of the file are the
 * fastest.
 *
 * One process creates it, with all its blocks; the others open it then.  Not whole or absent by
 * itself: what fails half-way leaves a part, in a directory that has not got its name yet. */
typedef struct tess_range_writer tess_range_writer;
TESS_MUST_USE tess_status tess_range_writer_open(const char *path, int64_t n_bytes, bool create,
                                                 tess_range_writer **out);
/* From any thread. */
TESS_MUST_USE tess_status tess_range_writer_write(tess_range_writer *w, int64_t at,
                                                  const void *data, size_t n_bytes);
/* What was written of a file, and its tess_crc64. */
typedef struct tess_range_sum {
    int64_t begin, n_bytes;
    uint64_t crc;
} tess_range_sum;
/* Syncs the file, closes and frees, also on failure; the sums of what this writer wrote, merged,
 * which the caller frees with tess_free. */
TESS_MUST_USE tess_status tess_range_writer_close(tess_range_writer *w, tess_range_sum **out_sums,
                                                  size_t *out_n);
void tess_range_writer_abort(tess_range_writer *w); /* closes and frees */
/* Sorts n sums and joins those that follow each other; how many are left. */
size_t tess_range_sums_merge(tess_range_sum *sums, size_t n);
/* The tess_crc64 of a file of n_bytes from the sums of all its writers, which are merged; what is
 * missing or there twice: TESS_INVALID. */
TESS_MUST_USE tess_status tess_range_sums_whole(tess_range_sum *sums, size_t n, int64_t n_bytes,
                                                uint64_t *out_crc);

/* An append-only log (JSONL, event files): opened at `keep_bytes` (what lies behind is cut off; -1
 * keeps all; more than there is: TESS_FORMAT), each append reaches the kernel before it returns.  A
 * failed append leaves nothing of its bytes; a failed sync is final, whatever is tried later. */
typedef struct tess_appender tess_appender;
TESS_MUST_USE tess_status tess_appender_open(const char *path, int64_t keep_bytes,
                                             tess_appender **out);
TESS_MUST_USE tess_status tess_appender_write(tess_appender *a, const void *data, size_t n_bytes);
TESS_MUST_USE tess_status tess_appender_sync(tess_appender *a);
int64_t tess_appender_bytes(const tess_appender *a); /* the file's length now */
void tess_appender_close(tess_appender *a);

TESS_MUST_USE tess_status tess_dir_make(const char *path); /* with its parents; existing is fine */
TESS_MUST_USE tess_status tess_dir_remove(const char *path); /* with all below; absent is fine */
TESS_MUST_USE tess_status tess_dir_sync(const char *path);   /* makes renames inside it durable */
/* Makes a directory when need be and holds it for this process alone, until the lock is given back
 * or the process ends however it does.  TESS_INVALID: another one has it (`what` is said of it). */
TESS_MUST_USE tess_status tess_dir_lock(const char *path, const char *what, int *out_lock);
void tess_dir_unlock(int *lock); /* -1 and 0 are no locks; becomes -1 */
TESS_MUST_USE tess_status tess_path_rename(const char *from, const char *to);
/* Puts directory `fresh` in the place of `dir`, which need not exist, durably.  There is no moment
 * without `dir` where the file system can exchange names; elsewhere the old one goes first. */
TESS_MUST_USE tess_status tess_dir_replace(const char *fresh, const char *dir);
bool tess_path_exists(const char *path);
bool tess_path_is_dir(const char *path);
/* Names of a directory's entries (not . and ..), sorted by bytes; with `recursive` the relative
 * paths of all regular files below, symbolic links to directories not followed. */
typedef struct tess_names {
    char **names;
    size_t n_names, n_cap;
} tess_names;
TESS_MUST_USE tess_status tess_dir_list(const char *path, bool recursive, tess_names *out);
TESS_MUST_USE tess_status tess_names_add(tess_names *names, const char *name);
void tess_names_deinit(tess_names *names);

/* ---- JSON --------------------------------------------------------------------------------- */

/* A parsed document.  Text must be UTF-8 without duplicate keys; depth is limited.  `tess_json`
 * nodes are borrowed from their document. */
typedef struct tess_json_doc tess_json_doc;
typedef struct tess_json tess_json;
/* `name` is the file or place, for messages. */
TESS_MUST_USE tess_status tess_json_parse(const char *text, size_t n_bytes, const char *name,
                                          tess_json_doc **out);
TESS_MUST_USE tess_status tess_json_load(const char *path, tess_json_doc **out);
void tess_json_free(tess_json_doc *doc);
const tess_json *tess_json_root(const tess_json_doc *doc);

typedef enum tess_json_kind {
    TESS_JSON_NULL,
    TESS_JSON_BOOL,
    TESS_JSON_INT,
    TESS_JSON_REAL,
    TESS_JSON_STRING,
    TESS_JSON_ARRAY,
    TESS_JSON_OBJECT,
} tess_json_kind;
tess_json_kind tess_json_kind_of(const tess_json *v); /* NULL: TESS_JSON_NULL */
/* NULL when absent or when `obj` is no object. */
const tess_json *tess_json_get(const tess_json *obj, const char *key);
size_t tess_json_count(const tess_json *v); /* items of an array, members of an object, else 0 */
const tess_json *tess_json_at(const tess_json *array, size_t i);
/* Member i of an object, in the document's order. */
const tess_json *tess_json_member(const tess_json *obj, size_t i, const char **out_key);
/* Readers that fall back; a wrong kind gives the fallback too. */
const char *tess_json_string(const tess_json *v,
                             const char *fallback); /* borrowed, no NULs inside */
int64_t tess_json_int(const tess_json *v, int64_t fallback);
double tess_json_real(const tess_json *v, double fallback); /* ints too */
bool tess_json_bool(const tess_json *v, bool fallback);

/* A table that reads a config object into a struct and refuses what it does not know. */
typedef enum tess_field_kind {
    TESS_FIELD_INT,    /* int64_t */
    TESS_FIELD_REAL,   /* double */
    TESS_FIELD_BOOL,   /* bool */
    TESS_FIELD_STRING, /* char *, from the arena */
    TESS_FIELD_REALS3, /* double[3], from an array of 3 or one number */
    TESS_FIELD_OBJECT, /* const tess_json * */
    TESS_FIELD_VALUE,  /* const tess_json *, of any kind: the caller looks closer */
} tess_field_kind;
typedef struct tess_field {
    const char *key;
    tess_field_kind kind;
    size_t offset;
    double min, max; /* for INT and REAL; both 0: no limit */
} tess_field;
/* Members absent or null leave the struct as it was.  An unknown key, a wrong kind, a number out of
 * range: TESS_INVALID with "name: key: expected ..., found ...".  For an object inside another pass
 * "file: path" as the name, and the message says "file: path.key: ...". */
TESS_MUST_USE tess_status tess_json_read_fields(const tess_json *obj, const char *name,
                                                const tess_field *fields, size_t n_fields,
                                                tess_arena *arena, void *out);

/* The same for other programs' objects, where keys that the table does not know are no mistake. */
TESS_MUST_USE tess_status tess_json_pick_fields(const tess_json *obj, const char *name,
                                                const tess_field *fields, size_t n_fields,
                                                tess_arena *arena, void *out);

/* Writing: appends to a tess_buf; commas are its own business. */
typedef struct tess_json_writer {
    tess_buf *buf;
    int depth;
    bool need_comma, after_key, pretty;
} tess_json_writer;
void tess_json_begin_object(tess_json_writer *w);
void tess_json_end_object(tess_json_writer *w);
void tess_json_begin_array(tess_json_writer *w);
void tess_json_end_array(tess_json_writer *w);
void tess_json_key(tess_json_writer *w, const char *key);
void tess_json_add_string(tess_json_writer *w, const char *s); /* NULL: null; bad UTF-8: U+FFFD */
void tess_json_add_int(tess_json_writer *w, int64_t v);
void tess_json_add_real(tess_json_writer *w,
                        double v); /* shortest that reads back; not finite: null */
void tess_json_add_bool(tess_json_writer *w, bool v);
void tess_json_add_null(tess_json_writer *w);
void tess_json_add_value(tess_json_writer *w, const tess_json *v); /* copies a parsed value */
/* The members that tess_json_read_fields reads, with the struct's values; NULL strings and objects
 * are left out. */
void tess_json_add_fields(tess_json_writer *w, const tess_field *fields, size_t n_fields,
                          const void *from);

/* ---- logs --------------------------------------------------------------------------------- */

typedef enum tess_log_level {
    TESS_LOG_ERROR,
    TESS_LOG_WARN,
    TESS_LOG_INFO,
    TESS_LOG_DEBUG,
} tess_log_level;
/* The library prints nothing: lines go to the sink, which cli/ sets; without one they are dropped.
 * Called under a lock, one whole line without newline at a time. */
typedef void tess_log_sink(void *ctx, tess_log_level level, const char *line);
void tess_log_set_sink(tess_log_sink *sink, void *ctx, tess_log_level max_level);
void tess_log(tess_log_level level, const char *fmt, ...) TESS_PRINTF(2, 3);

/* ---- time and threads --------------------------------------------------------------------- */

double tess_seconds(void);      /* monotonic */
double tess_wall_seconds(void); /* since 1970 */
int tess_cpu_count(void);       /* cores this process may run on (affinity, cgroup), at least 1 */

/* Set by a signal handler or another thread; long work polls it and returns TESS_CANCELLED. */
#ifdef __cplusplus
extern volatile int tess_cancelled; /* C++ may only read it */
#else
extern volatile _Atomic int tess_cancelled; /* lock-free: fit for a signal handler */
#endif

/* ---- random numbers ----------------------------------------------------------------------- */

/* Philox4x32-10 (Salmon et al., SC'11): a pure function of key and counter, so the same numbers on
 * any device, thread count and after any resume. */
typedef struct tess_u32x4 {
    uint32_t v[4];
} tess_u32x4;
tess_u32x4 tess_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo);

/* A small stream over Philox for one named use: key = seed, hi = use/sample id, lo counts. */
typedef struct tess_rng {
    uint64_t key, hi, lo;
    tess_u32x4 block;
    int n_left;
} tess_rng;
tess_rng tess_rng_at(uint64_t seed, uint64_t stream);
uint32_t tess_rng_u32(tess_rng *r);
double tess_rng_unit(tess_rng *r);                /* [0,1), 32 bits */
uint32_t tess_rng_below(tess_rng *r, uint32_t n); /* unbiased; n > 0 */
double tess_rng_normal(tess_rng *r);              /* mean 0, deviation 1 */
/* Position i of a random permutation of 0..n-1, without storing it (a Feistel cycle walk). */
uint64_t tess_permute(uint64_t seed, uint64_t n, uint64_t i);

/* ---- hashes ------------------------------------------------------------------------------- */

uint64_t tess_hash64(const void *data, size_t n_bytes, uint64_t seed); /* XXH3 */
typedef struct tess_hash128_state tess_hash128_state;
tess_hash128_state *tess_hash128_new(void);
void tess_hash128_add(tess_hash128_state *s, const void *data, size_t n_bytes);
/* 32 lower-case hex digits and a NUL; frees the state. */
void tess_hash128_finish(tess_hash128_state *s, char out_hex[33]);
uint32_t tess_crc32c(uint32_t crc, const void *data, size_t n_bytes); /* Castagnoli; start with 0 */
uint64_t tess_crc64(uint64_t crc, const void *data, size_t n_bytes);  /* NVME; start with 0 */
/* The sum of two runs of bytes that follow each other, from theirs and the second's length. */
uint64_t tess_crc64_join(uint64_t first, uint64_t second, uint64_t second_bytes);

/* ---- text --------------------------------------------------------------------------------- */

/* True when the bytes are well-formed UTF-8 (no surrogates, no overlongs, no NUL if `no_nul`). */
bool tess_utf8_valid(const char *s, size_t n_bytes, bool no_nul);

/* ---- the processor ------------------------------------------------------------------------ */

typedef enum tess_isa {
    TESS_ISA_BASE,       /* what the compiler's baseline gives: SSE2 on x86-64 */
    TESS_ISA_AVX2,       /* + FMA, F16C */
    TESS_ISA_AVX512,     /* F, BW, DQ, VL */
    TESS_ISA_AVX512VNNI, /* + VNNI */
    TESS_ISA_AVX512BF16, /* + BF16 */
    TESS_ISA_COUNT,
} tess_isa;
/* The fastest that the processor and operating system offer, or what TESSERA_ISA=base|avx2|avx512|
 * avx512vnni|avx512bf16 names where they offer that much; capped by tess_isa_cap.  Intel's
 * processors multiply pairs of bf16 at half the rate of single f32 numbers, or at best at the same:
 * there BF16 is the fastest only beside AMX, which the library of products uses. */
tess_isa tess_isa_get(void);
void tess_isa_cap(tess_isa max);
const char *tess_isa_name(tess_isa isa);
const char *tess_cpu_model(void); /* "AMD EPYC ..."; "unknown" */

#endif
