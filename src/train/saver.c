/* SPDX-License-Identifier: Apache-2.0 */
/* A job is cut into pieces in the order of its files.  Three threads write them from where they
 * lie: while two wait for the disk, which is fastest so, the third sums the next piece.  Before an
 * update the main thread settles: it takes what is not written yet, from the end, and copies it
 * aside with all its threads; writers go on with originals from the beginning, and with copies when
 * there are no more originals. Where the disk is done within one forward and backward pass, as it
 * is with models that fit a machine, nothing is ever copied.
 *
 * Forking the process, whose pages would be copied on write, was no choice: MPI and OpenMP forbid
 * what a child would have to do, and each page that an update touches costs a fault. */
#include "train/saver.h"

#include "tensor/pager.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 4 << 20,
    N_WRITERS = 3,
    NICE = 10, /* of the writers: behind the step's threads, not behind everything */
    MESSAGE_BYTES = 1024,
};

typedef enum piece_state { WAITING, BUSY, DONE } piece_state;

typedef struct piece {
    const uint8_t *data;
    size_t n_bytes;
    tess_pager *pager; /* of data; NULL: it is in memory */
    int64_t file, at;
    int64_t slot; /* of the copies; -1: lies in a tensor, -2: was copied at the start */
    piece_state state;
} piece;

struct tess_saver {
    tess_saver_options o;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool joinable, running;
    /* of the job, or of the last */
    tess_saver_job job;
    tess_tensors_layout *layouts;
    tess_range_writer **writers;
    tess_arena arena;
    piece *pieces;
    size_t n_pieces, cap_pieces, first; /* all before the first are done */
    tess_status status;
    char message[MESSAGE_BYTES];
    double start;
    /* copies */
    uint8_t *pool;
    int64_t *free_slots, n_free;
    piece **claimed;
    tess_saver_stats stats;
};

tess_status tess__saver_new(const tess_saver_options *o, tess_saver **out)
{
    tess_saver *s = *out = tess_alloc(sizeof *s);
    if (!s) {
        return TESS_NOMEM;
    }
    s->o = *o;
    s->o.piece_bytes = o->piece_bytes ? o->piece_bytes : PIECE_BYTES;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    return TESS_OK;
}

/* ---- cutting ------------------------------------------------------------------------------- */

static tess_status add_piece(tess_saver *s, piece p)
{
    TESS_TRY(tess_grow(&s->pieces, &s->cap_pieces, s->n_pieces + 1, sizeof *s->pieces));
    s->pieces[s->n_pieces++] = p;
    return TESS_OK;
}

static tess_status add_tensor(tess_saver *s, int64_t file, int64_t at, const tess_tensor *t)
{
    for (size_t i = 0, n; i < t->n_bytes; i += n) {
        n = t->n_bytes - i < s->o.piece_bytes ? t->n_bytes - i : s->o.piece_bytes;
        TESS_TRY(add_piece(s, (piece){.data = t->data + i,
                                      .n_bytes = n,
                                      .pager = t->pager,
                                      .file = file,
                                      .at = at + (int64_t)i,
                                      .slot = -1}));
    }
    return TESS_OK;
}

static bool is_small(const tess_saver *s, const tess_tensor *t)
{
    return t->n_bytes < s->o.piece_bytes / 64;
}

/* Small tensors that lie together, from the i-th of the file's order on, as one piece of copies;
 * with the header when it is the first.  Returns how many. */
static tess_status add_small(tess_saver *s, int64_t file, int64_t *i)
{
    const tess_saver_file *f = &s->job.files[file];
    const tess_tensors_layout *l = &s->layouts[file];
    const size_t head = *i == 0 ? l->header.n_bytes : 0;
    size_t n_bytes = head;
    int64_t end = *i;
    while (end < f->n && is_small(s, l->order[end]) && n_bytes < s->o.piece_bytes) {
        n_bytes += l->order[end++]->n_bytes;
    }
    uint8_t *copy = tess_arena_alloc(&s->arena, n_bytes);
    TESS_TRY(copy ? TESS_OK : TESS_NOMEM);
    int64_t at = *i == 0 ? 0 : l->begin[l->order[*i] - f->tensors];
    memcpy(copy, l->header.data, head);
    for (size_t k = head; *i < end; k += l->order[(*i)++]->n_bytes) {
        const tess_tensor *t = l->order[*i];
        TESS_TRY(tess__pager_gather(t->pager, t->data, t->n_bytes));
        memcpy(copy + k, t->data, t->n_bytes);
        tess__pager_release(t->pager, t->data, t->n_bytes, TESS_PAGED_READ);
    }
    return add_piece(s,
                     (piece){.data = copy, .n_bytes = n_bytes, .file = file, .at = at, .slot = -2});
}

static tess_status cut_file(tess_saver *s, int64_t file)
{
    const tess_saver_file *f = &s->job.files[file];
    tess_tensors_layout *l = &s->layouts[file];
    TESS_TRY(tess_tensors_plan(f->tensors, f->n, f->metadata, f->n_metadata, l));
    int64_t i = 0;
    TESS_TRY(add_small(s, file, &i));
    while (i < f->n) {
        if (is_small(s, l->order[i])) {
            TESS_TRY(add_small(s, file, &i));
        } else {
            TESS_TRY(add_tensor(s, file, l->begin[l->order[i] - f->tensors], l->order[i]));
            i++;
        }
    }
    return TESS_OK;
}

static void drop_job(tess_saver *s)
{
    for (int64_t i = 0; s->layouts && i < s->job.n_files; i++) {
        tess_tensors_layout_deinit(&s->layouts[i]);
    }
    tess_free(s->layouts);
    tess_free(s->writers);
    s->layouts = NULL;
    s->writers = NULL;
    tess_arena_deinit(&s->arena);
    s->n_pieces = s->first = 0;
    if (s->job.free) {
        s->job.free(s->job.ctx);
    }
    s->job = (tess_saver_job){0};
}

static tess_status cut_job(tess_saver *s)
{
    const tess_saver_job *job = &s->job;
    s->layouts = tess_alloc_array((size_t)job->n_files, sizeof *s->layouts);
    s->writers = tess_alloc_array((size_t)job->n_files, sizeof *s->writers);
    tess_status st = s->layouts && s->writers ? TESS_OK : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < job->n_files; i++) {
        st = cut_file(s, i);
    }
    return st;
}

/* ---- writing ------------------------------------------------------------------------------- */

static void be_nice(const tess_saver *s)
{
    if (!s->o.hurried) {
        setpriority(PRIO_PROCESS, (id_t)gettid(), NICE); /* of this thread; may fail */
    }
}

static void fail(tess_saver *s, tess_status st)
{
    pthread_mutex_lock(&s->lock);
    if (s->status == TESS_OK) {
        s->status = st;
        snprintf(s->message, sizeof s->message, "%s", tess_error());
    }
    pthread_mutex_unlock(&s->lock);
}

/* Under the lock: the first original that waits, else the first copy; NULL: none. */
static piece *next_piece(tess_saver *s)
{
    piece *copy = NULL;
    while (s->first < s->n_pieces && s->pieces[s->first].state == DONE) {
        s->first++;
    }
    for (size_t i = s->first; i < s->n_pieces; i++) {
        piece *p = &s->pieces[i];
        if (p->state == WAITING && p->slot == -1) {
            return p;
        }
        copy = !copy && p->state == WAITING ? p : copy;
    }
    return copy;
}

/* A job is cut short by a failure. */
static bool all_done(const tess_saver *s)
{
    return s->status != TESS_OK || s->first == s->n_pieces;
}

static void write_one(tess_saver *s, piece *p)
{
    p->state = BUSY;
    pthread_mutex_unlock(&s->lock);
    tess_status st = tess__pager_gather(p->pager, p->data, p->n_bytes);
    if (st == TESS_OK) {
        st = tess_range_writer_write(s->writers[p->file], p->at, p->data, p->n_bytes);
        tess__pager_release(p->pager, p->data, p->n_bytes, TESS_PAGED_READ);
    }
    if (st) {
        fail(s, st);
    }
    pthread_mutex_lock(&s->lock);
    p->state = DONE;
    if (p->slot >= 0) {
        s->free_slots[s->n_free++] = p->slot;
    }
    pthread_cond_broadcast(&s->changed);
}

static void *write_pieces(void *ctx)
{
    tess_saver *s = ctx;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        piece *p = next_piece(s);
        if (all_done(s)) {
            break;
        }
        if (p) {
            write_one(s, p);
        } else {
            pthread_cond_wait(&s->changed, &s->lock); /* what is left is being written or copied */
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void *help(void *ctx)
{
    be_nice(ctx);
    return write_pieces(ctx);
}

static tess_status write_all(tess_saver *s)
{
    pthread_t helpers[N_WRITERS - 1];
    int n = 0;
    for (int64_t i = 0; i < s->job.n_files; i++) {
        TESS_TRY(tess_range_writer_open(s->job.files[i].path, s->layouts[i].n_bytes, true,
                                        &s->writers[i]));
    }
    while (n < N_WRITERS - 1 && pthread_create(&helpers[n], NULL, help, s) == 0) {
        n++;
    }
    write_pieces(s);
    while (n > 0) {
        pthread_join(helpers[--n], NULL);
    }
    return s->status ? TESS_FAIL(s->status, "%s", s->message) : TESS_OK;
}

static tess_status close_file(tess_saver *s, int64_t i)
{
    tess_saver_file *f = &s->job.files[i];
    tess_range_sum *sums = NULL;
    size_t n = 0;
    tess_range_writer *w = s->writers[i];
    s->writers[i] = NULL;
    f->n_bytes = s->layouts[i].n_bytes;
    TESS_TRY(tess_range_writer_close(w, &sums, &n));
    tess_status st = tess_range_sums_whole(sums, n, f->n_bytes, &f->crc);
    tess_free(sums);
    return st;
}

static tess_status run_job(tess_saver *s)
{
    TESS_TRY(s->job.before(s->job.ctx));
    TESS_TRY(write_all(s));
    for (int64_t i = 0; i < s->job.n_files; i++) {
        TESS_TRY(close_file(s, i));
    }
    return s->job.after(s->job.ctx);
}

static void *run(void *ctx)
{
    tess_saver *s = ctx;
    tess_status st = run_job(s);
    if (st) {
        fail(s, st);
    }
    for (int64_t i = 0; i < s->job.n_files; i++) {
        tess_range_writer_abort(s->writers[i]); /* after a failure */
        s->writers[i] = NULL;
    }
    pthread_mutex_lock(&s->lock);
    s->stats.job_seconds = tess_seconds() - s->start;
    s->running = false;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void *run_nicely(void *ctx)
{
    be_nice(ctx);
    return run(ctx);
}

tess_status tess__saver_start(tess_saver *s, const tess_saver_job *job)
{
    tess_status st = tess__saver_end(s, true);
    s->job = *job;
    st = st ? st : cut_job(s);
    if (st) {
        drop_job(s);
        return st;
    }
    s->status = TESS_OK;
    s->running = true;
    s->start = tess_seconds();
    s->joinable = pthread_create(&s->thread, NULL, run_nicely, s) == 0;
    if (!s->joinable) {
        run(s); /* no thread is to be had: here and now */
        drop_job(s);
    }
    return TESS_OK;
}

tess_status tess__saver_end(tess_saver *s, bool wait)
{
    pthread_mutex_lock(&s->lock);
    while (wait && s->running) {
        pthread_cond_wait(&s->changed, &s->lock);
    }
    const bool over = !s->running;
    pthread_mutex_unlock(&s->lock);
    if (over && s->joinable) {
        pthread_join(s->thread, NULL);
        s->joinable = false;
        drop_job(s);
    }
    if (!over || s->status == TESS_OK) {
        return TESS_OK;
    }
    const tess_status st = s->status;
    s->status = TESS_OK;
    return TESS_FAIL(st, "%s", s->message);
}

void tess__saver_free(tess_saver *s)
{
    if (!s) {
        return;
    }
    tess_status ignored = tess__saver_end(s, true);
    (void)ignored;
    drop_job(s);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    tess_free(s->pieces);
    tess_free(s->pool);
    tess_free(s->free_slots);
    tess_free(s->claimed);
    tess_free(s);
}

/* ---- settling ------------------------------------------------------------------------------ */

/* Under the lock: whether a tensor is still read, or will be. */
static bool is_open(const tess_saver *s)
{
    for (size_t i = s->first; s->running && i < s->n_pieces; i++) {
        const piece *p = &s->pieces[i];
        if (p->slot == -1 && (p->state == BUSY || (p->state == WAITING && s->status == TESS_OK))) {
            return true;
        }
    }
    return false;
}

/* Memory for copies, when the first is due; without it settling waits. */
static void make_pool(tess_saver *s)
{
    const int64_t n = (int64_t)(s->o.copy_bytes / s->o.piece_bytes);
    if (s->pool || n == 0) {
        return;
    }
    s->free_slots = tess_alloc_array((size_t)n, sizeof *s->free_slots);
    s->claimed = tess_alloc_array((size_t)n, sizeof *s->claimed);
    s->pool = tess_alloc_unset((size_t)n * s->o.piece_bytes);
    if (!s->free_slots || !s->claimed || !s->pool) {
        tess_free(s->free_slots);
        tess_free(s->claimed);
        tess_free(s->pool);
        s->free_slots = NULL;
        s->claimed = NULL;
        s->pool = NULL;
        s->o.copy_bytes = 0;
        return;
    }
    madvise(s->pool, (size_t)n * s->o.piece_bytes, MADV_HUGEPAGE); /* advice: may fail */
    for (int64_t i = 0; i < n; i++) {
        s->free_slots[i] = n - 1 - i;
    }
    s->n_free = n;
}

/* Under the lock: waiting originals, from the end, as many as there is memory for. */
static int64_t claim(tess_saver *s)
{
    int64_t n = 0;
    for (size_t i = s->n_pieces; i > s->first && s->n_free > 0; i--) {
        piece *p = &s->pieces[i - 1];
        if (p->slot == -1 && p->state == WAITING) {
            p->state = BUSY;
            p->slot = s->free_slots[--s->n_free];
            s->claimed[n++] = p;
        }
    }
    return n;
}

static uint8_t *slot_of(const tess_saver *s, const piece *p)
{
    return s->pool + (size_t)p->slot * s->o.piece_bytes;
}

/* One round of copying: claims, copies without the lock, hands the copies to the writers. */
static bool copy_some(tess_saver *s)
{
    make_pool(s);
    const int64_t n = s->pool ? claim(s) : 0;
    if (n == 0) {
        return false;
    }
    pthread_mutex_unlock(&s->lock);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < n; i++) {
        memcpy(slot_of(s, s->claimed[i]), s->claimed[i]->data, s->claimed[i]->n_bytes);
    }
    pthread_mutex_lock(&s->lock);
    for (int64_t i = 0; i < n; i++) {
        s->claimed[i]->data = slot_of(s, s->claimed[i]);
        s->claimed[i]->state = WAITING;
    }
    s->stats.n_copied += n;
    pthread_cond_broadcast(&s->changed);
    return true;
}

void tess__saver_settle(tess_saver *s)
{
    pthread_mutex_lock(&s->lock);
    const double start = tess_seconds();
    while (is_open(s)) {
        if (!copy_some(s)) {
            pthread_cond_wait(&s->changed, &s->lock);
        }
    }
    s->stats.settle_seconds += tess_seconds() - start;
    pthread_mutex_unlock(&s->lock);
}

tess_saver_stats tess__saver_stats(tess_saver *s)
{
    pthread_mutex_lock(&s->lock);
    tess_saver_stats stats = s->stats;
    stats.running = s->running;
    pthread_mutex_unlock(&s->lock);
    return stats;
}
