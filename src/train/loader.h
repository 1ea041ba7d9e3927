/* SPDX-License-Identifier: Apache-2.0 */
/* loader: what the loader's parts share.
 *
 * A tray is the memory of one batch.  Trays stand in a ring; threads take runs of slots from the
 * batch in making, in order, and the one that completes a tray packs its tokens.
 */
#ifndef TESSERA_TRAIN_LOADER_H
#define TESSERA_TRAIN_LOADER_H

#include "tessera/data.h"

#include <pthread.h>
#include <stdatomic.h>

#define TESS__N_CAPTION_REASONS (TESS_BAD_COUNT - TESS_BAD_CAPTION_UTF8)

/* Something a slot met: a bad sample (`bad` set), or captions left out of a good one. */
typedef struct tess__event {
    int64_t slot, attempt, sample;
    tess_bad bad;
    char *detail;
    int64_t n_dropped[TESS__N_CAPTION_REASONS];
} tess__event;

typedef enum tess__tray_state {
    TESS__TRAY_IDLE,
    TESS__TRAY_FILLING,
    TESS__TRAY_READY
} tess__tray_state;

typedef struct tess__tray {
    tess__tray_state state;
    int64_t step, n_slots; /* n_slots: this rank's pictures in it */
    int64_t next_slot, n_left;
    tess_batch batch;
    uint8_t *pictures;      /* or: */
    tess_raw_pictures *raw; /* (n_local) places */
    int64_t *samples;
    uint64_t *ids;
    bool *ok;
    int32_t *tokens, *positions, *offsets, *languages;
    char **sources; /* (B'): texts of slot 0 */
    int64_t n_sources;
    int32_t *rows;          /* (B',K,max_tokens) before packing */
    int32_t *n_rows;        /* (B',K) */
    int32_t *row_languages; /* (B',K) */
    tess__event *events;
    size_t n_events, cap_events;
    tess_status status;
    char *error;
} tess__tray;

/* All captions of one sample, tokenized. */
typedef struct tess__tokens {
    int64_t n_captions;
    int64_t n_dropped[TESS__N_CAPTION_REASONS];
    int32_t *offsets;   /* (n+1) */
    int32_t *languages; /* (n) */
    int32_t *ids;
} tess__tokens;

/* Entries are written once and live as long as the cache; both tables are NULL when unused. */
typedef struct tess__cache {
    int64_t n_samples;
    size_t max_picture_bytes, max_token_bytes;
    _Atomic(uint8_t *) *pictures;
    _Atomic(tess__tokens *) *tokens;
    _Atomic size_t picture_bytes, token_bytes;
} tess__cache;

TESS_MUST_USE tess_status tess__cache_init(tess__cache *c, int64_t n_samples,
                                           const tess_loader_options *o);
void tess__cache_deinit(tess__cache *c);
/* NULL: not there. */
const uint8_t *tess__cache_get_picture(tess__cache *c, int64_t sample);
/* Copies when there is room; without is no failure. */
void tess__cache_add_picture(tess__cache *c, int64_t sample, const uint8_t *pixels, size_t n_bytes);
const tess__tokens *tess__cache_get_tokens(tess__cache *c, int64_t sample);
bool tess__cache_has_token_room(tess__cache *c);
/* Takes t; gives what is in the cache afterwards (another thread's when that was first). */
const tess__tokens *tess__cache_add_tokens(tess__cache *c, int64_t sample, tess__tokens *t,
                                           size_t n_bytes);

typedef struct tess__worker {
    struct tess_loader *loader;
    pthread_t thread;
    bool is_running;
    void *scratch;
    tess_sample sample;
    tess_picture picture;
    uint8_t *small; /* (cache_size,cache_size,3) */
    tess_caption_draw *draw;
    int32_t *languages;
    size_t cap_languages;
    int32_t *ids; /* while a sample is tokenized for the cache */
    size_t cap_ids;
} tess__worker;

struct tess_loader {
    const tess_dataset *ds;
    tess_loader_options options;
    tess_order order;
    int64_t n_local, first_slot; /* this rank's part of a batch */
    int64_t source_language;     /* of the data set; -1: none was asked for */
    tess__cache cache;

    tess__tray *trays;
    int64_t n_trays;
    tess__worker *workers; /* at least one: the caller's own when there are no threads */
    int64_t n_workers;

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool has_lock;
    bool is_stopping, is_paused;
    int64_t n_busy;
    int64_t make_step, read_step, end_step; /* end_step: INT64_MAX but for evaluation */
    tess__tray *held;
    tess_status failed; /* what every read says until a seek */
    char *error;

    uint8_t *is_counted; /* 2 bits a sample: bad, captions dropped */
    tess_bad_list bad;
    tess_loader_stats stats;
};

/* Fills slots [first, last) of the tray.  A failure is for the whole loader. */
TESS_MUST_USE tess_status tess__loader_fill(tess__worker *w, tess__tray *t, int64_t first,
                                            int64_t last);

TESS_MUST_USE tess_status tess__tray_init(tess__tray *t, const struct tess_loader *l);
void tess__tray_deinit(tess__tray *t);
/* Makes it ready to be filled for a step. */
void tess__tray_start(tess__tray *t, const struct tess_loader *l, int64_t step);
/* Rows to the packed form of the contract. */
void tess__tray_pack(tess__tray *t, const struct tess_loader *l);

#endif
