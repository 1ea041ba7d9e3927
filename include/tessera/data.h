/* SPDX-License-Identifier: Apache-2.0 */
/* data: the data half of train/.  Sources of pictures with captions, what is wrong with them, and
 * the loader that turns them into batches.
 *
 *   tess_dataset   many files -> n samples, each read by index: encoded picture, captions
 *   tess_hooks     the places where pixels and tokens come in (vision/ and text/, or a test's)
 *   tess_loader    (dataset, hooks, options) -> batches in a fixed order, by any number of threads
 *   tess_captions  every caption of the data set tokenized, for evaluation
 *
 * The order is a pure function of (seed, counter): the counter, the number of samples delivered so
 * far over all ranks, is the only state a resume needs.
 */
#ifndef TESSERA_DATA_H
#define TESSERA_DATA_H

#include "tessera/base.h"
#include "tessera/vision.h"

/* ---- what can be wrong -------------------------------------------------------------------- */

/* Why a sample, a caption or the rest of a shard was left out.  Nothing is left out uncounted. */
typedef enum tess_bad {
    TESS_BAD_NONE,
    TESS_BAD_NO_PICTURE,    /* captions without a picture */
    TESS_BAD_NO_CAPTION,    /* a picture without any (usable) caption */
    TESS_BAD_TRUNCATED,     /* the shard ends early; counted once for the shard */
    TESS_BAD_TAR_HEADER,    /* checksum or fields of a tar header; the shard's rest is left out */
    TESS_BAD_RECORD,        /* a CSV row or JSONL line that is not one */
    TESS_BAD_JSON,          /* a .json member that is not JSON */
    TESS_BAD_UNREADABLE,    /* a picture file that cannot be read */
    TESS_BAD_TOO_LARGE,     /* picture or caption file above its limit */
    TESS_BAD_DECODE,        /* the picture does not decode */
    TESS_BAD_LABEL,         /* no class number, or one beyond the classes */
    TESS_BAD_CAPTION_UTF8,  /* from here on one caption is left out, not the whole sample */
    TESS_BAD_CAPTION_EMPTY, /* nothing but white space, or no string */
    TESS_BAD_CAPTION_LONG,  /* above max_caption_bytes */
    TESS_BAD_CAPTION_MOJIBAKE, /* text once decoded with the wrong character set */
    TESS_BAD_CAPTION_MANY,     /* beyond the first max_captions of its sample */
    TESS_BAD_COUNT,
} tess_bad;
/* "no_picture", "caption_mojibake", ...: the names used in reports and metrics. */
const char *tess_bad_name(tess_bad reason);

/* Counts by reason with the first TESS_BAD_NAMES places ("shard.tar: key: what is wrong"). */
#define TESS_BAD_NAMES 8
typedef struct tess_bad_list {
    int64_t counts[TESS_BAD_COUNT];
    char *names[TESS_BAD_COUNT][TESS_BAD_NAMES];
} tess_bad_list;
TESS_MUST_USE tess_status tess_bad_list_add(tess_bad_list *list, tess_bad reason, int64_t n,
                                            const char *name);
/* Adds another list's counts and names. */
TESS_MUST_USE tess_status tess_bad_list_merge(tess_bad_list *to, const tess_bad_list *from);
/* Sum of all counts that cost a sample (or a shard's rest), captions not included. */
int64_t tess_bad_list_total(const tess_bad_list *list);
/* Appends "3 no_caption (a.tar: x: ..., b.tar: y: ...); 1 decode (...)". */
void tess_bad_list_write(const tess_bad_list *list, tess_buf *out);
void tess_bad_list_deinit(tess_bad_list *list);

/* ---- hooks -------------------------------------------------------------------------------- */

/* What random choices about one picture may depend on. */
typedef struct tess_view_key {
    uint64_t seed, epoch, id; /* id: the sample's */
} tess_view_key;

/* The places where the loader meets vision/ and text/.  All are called from several threads at
 * once with the same ctx and a scratch of the thread's own; they return a failure only for what
 * must stop the run (memory), and say through *out_bad (TESS_BAD_NONE before the call) what is
 * wrong with the data, with the detail in tess_error().  tess_pipeline_hooks fills this in for real
 * models. */
typedef struct tess_hooks {
    void *ctx;
    /* What one thread needs beside ctx (a resizer); both may be NULL. */
    tess_status (*scratch_new)(void *ctx, void **out);
    void (*scratch_free)(void *scratch);
    /* encoded bytes -> pixels, upright and RGB. */
    tess_status (*decode)(void *ctx, void *scratch, tess_bytes encoded, tess_picture *out,
                          tess_bad *out_bad);
    /* The whole picture, without chance, to out (size,size,3) u8: evaluation and the cache. */
    tess_status (*resize)(void *ctx, void *scratch, const tess_picture *in, int64_t size,
                          uint8_t *out);
    /* One augmented view to out (size,size,3) u8.  NULL: resize. */
    tess_status (*view)(void *ctx, void *scratch, const tess_picture *in, tess_view_key key,
                        int64_t size, uint8_t *out);
    /* Either of them, to a place of a batch of decoded pictures, whose size it becomes; key NULL:
     * without chance.  NULL: not offered. */
    tess_status (*raw)(void *ctx, void *scratch, const tess_picture *in, const tess_view_key *key,
                       tess_raw_pictures *out, int64_t place);
    /* Judges one caption (well-formed UTF-8, not empty): mojibake and the like.  NULL: all good. */
    void (*check)(void *ctx, const char *text, size_t n_bytes, tess_bad *out_bad);
    /* Cleans and tokenizes: at most max_tokens ids to out_ids, special tokens included.  0 ids: the
     * caption is passed over. */
    tess_status (*tokenize)(void *ctx, void *scratch, const char *text, size_t n_bytes,
                            int64_t max_tokens, int32_t *out_ids, int64_t *out_n_ids);
} tess_hooks;

/* ---- data sets ---------------------------------------------------------------------------- */

/* How to find the samples; zero means the default everywhere. */
typedef struct tess_dataset_options {
    /* auto | webdataset | csv | jsonl | folder | xtd10 | crossmodal3600 ("tsv" is csv).  auto: by
     * suffix; a directory is known by test_image_names.txt (xtd10), captions.jsonl
     * (crossmodal3600) or .tar files (webdataset), another is a folder. */
    const char *type;
    /* CSV.  Separator: one byte, or "\\t"; default: TAB when the header line has one, else comma.
     */
    const char *csv_separator;
    const char *csv_image_key;   /* "filepath" */
    const char *csv_caption_key; /* "title" */
    /* JSONL: field(s) of the picture's path, split by '|'; "image|image_path|filepath|url". */
    const char *image_key;
    /* Where captions are (but for CSV), split by '|', first present wins: a JSON field (one string,
     * an array, or a map language -> string or array), or "txt", the .txt beside the picture.
     * Default "captions|txt|caption|text|title". */
    const char *caption_key;
    /* Suffix of the text beside a picture that the key "txt" means: "txt". */
    const char *text_suffix;
    bool text_lines;            /* each line of it is a caption, not all of it */
    const char *image_suffixes; /* "jpg;jpeg;png;webp", first present wins */
    /* CSV and JSONL: relative pictures lie under this; default: the table's own folder, else the
     * working directory.  xtd10 and crossmodal3600: the pictures' folder; default: images/ in the
     * data set's, else that itself. */
    const char *image_root;
    size_t max_picture_bytes; /* 64 MiB */
    size_t max_caption_bytes; /* 64 KiB */
    int64_t max_captions;     /* 4096 per sample */
    bool captions_optional;   /* pictures without captions are samples too (embedding, indexing) */
    /* Captions alone: JSONL and CSV need name no picture.  Of a CSV the columns of caption_key (all
     * but the picture's where it is NULL) are languages, by their headers. */
    bool pictures_optional;
    /* Judges captions as they are read; hooks.check.  Borrowed, may be NULL. */
    const tess_hooks *hooks;
} tess_dataset_options;

typedef struct tess_dataset tess_dataset;

/* `path`: sources joined with "::", each with brace ranges ("cc-{000..331}.tar", "{a,b}/x.csv").
 * Indexes every source once (48 bytes a sample are kept; captions stay in their files) and, where
 * captions are JSON, counts languages.  TESS_IO: a file that was named is absent; TESS_FORMAT:
 * nothing usable at all; what is wrong in single samples is counted (tess_dataset_bad).
 * Safe to read from several threads afterwards.  Files must not change while it is open. */
TESS_MUST_USE tess_status tess_dataset_open(const char *path, const tess_dataset_options *options,
                                            tess_dataset **out);
void tess_dataset_close(tess_dataset *ds);

int64_t tess_dataset_size(const tess_dataset *ds);
/* What was left out while indexing. */
const tess_bad_list *tess_dataset_bad(const tess_dataset *ds);
/* Languages met, sorted by name ("und": a caption that names none), with their caption counts,
 * taken before hooks.check has judged them.
 * Counts are 0 when all captions are "und": they are counted only where JSON makes it necessary. */
int64_t tess_dataset_n_languages(const tess_dataset *ds);
const char *tess_dataset_language(const tess_dataset *ds, int64_t language);
int64_t tess_dataset_language_count(const tess_dataset *ds, int64_t language);
/* -1: none of that name. */
int64_t tess_dataset_find_language(const tess_dataset *ds, const char *name);
/* Hash of the sample's key; stable while the key is. */
uint64_t tess_dataset_id(const tess_dataset *ds, int64_t sample);

typedef struct tess_caption {
    const char *text; /* well-formed UTF-8, NUL-terminated, white space at the ends cut */
    size_t n_bytes;
    int64_t language; /* of the data set */
} tess_caption;

/* One sample, read; also the scratch of the thread that reads.  Zero before the first read. */
typedef struct tess_sample {
    int64_t index;
    uint64_t id;
    const char *key; /* "dir/000012", the path of a table's picture; bytes as the source has them */
    tess_bytes picture; /* encoded; borrowed from the data set or from `file` */
    const char *path;   /* the file that holds the picture's bytes, and where they begin in it; */
    int64_t offset;     /* "" when no picture was read */
    const tess_caption *captions;
    int64_t n_captions;
    tess_bad bad;                      /* not NONE: the sample is unusable; `detail` says why */
    const char *detail;                /* "" when nothing is wrong */
    int64_t n_dropped[TESS_BAD_COUNT]; /* captions left out, by reason */
    /* the scratch */
    tess_buf key_buf, text_buf, detail_buf, path_buf;
    tess_caption *caption_buf;
    struct tess__languages *learn;
    size_t caption_cap;
    uint8_t *file;
} tess_sample;
typedef enum tess_read_parts {
    TESS_READ_PICTURE = 1,
    TESS_READ_CAPTIONS = 2,
    TESS_READ_ALL = 3,
} tess_read_parts;
/* OK with s->bad set is the normal way to say that the sample is damaged; a failure is memory or a
 * wrong index.  What `s` points to is valid until its next read. */
TESS_MUST_USE tess_status tess_dataset_read(const tess_dataset *ds, int64_t index, int parts,
                                            tess_sample *s);
void tess_sample_deinit(tess_sample *s);

/* ---- checking a whole data set ------------------------------------------------------------ */

typedef struct tess_data_report {
    int64_t n_samples, n_good, n_captions;
    tess_bad_list bad;        /* indexing included */
    int64_t *language_counts; /* good captions of language l of the data set */
    int64_t n_languages;
    int64_t formats[4];         /* jpeg, png, webp, other: by the first bytes */
    int64_t picture_bytes;      /* sum of the encoded pictures */
    int64_t min_side, max_side; /* over decoded pictures; 0 without hooks */
    int64_t sides[8];           /* shorter side: <32 <64 <128 <256 <512 <1024 <2048 more */
} tess_data_report;
/* Reads every sample; with `hooks` decodes every picture and judges every caption. */
TESS_MUST_USE tess_status tess_dataset_check(const tess_dataset *ds, const tess_hooks *hooks,
                                             tess_data_report *out);
void tess_data_report_write_json(const tess_data_report *r, const tess_dataset *ds,
                                 tess_json_writer *out);
void tess_data_report_write_text(const tess_data_report *r, const tess_dataset *ds, tess_buf *out);
void tess_data_report_deinit(tess_data_report *r);

/* ---- files with one thing a line ----------------------------------------------------------- */

/* Class names, prompt templates: UTF-8, white space at the ends of a line cut, LF or CRLF.
 * TESS_FORMAT with the line's number: not UTF-8, or empty unless that is allowed (an empty last
 * line always is); nothing at all. */
TESS_MUST_USE tess_status tess_lines_load(const char *path, bool may_be_empty, tess_names *out);
TESS_MUST_USE tess_status tess_lines_parse(const char *text, size_t n_bytes, const char *name,
                                           bool may_be_empty, tess_names *out);
/* The first line that says what an earlier one said, and that one; SIZE_MAX: none does. */
TESS_MUST_USE tess_status tess_lines_find_repeated(const tess_names *names, size_t *out_first,
                                                   size_t *out_second);
/* TESS_FORMAT: a line without "{c}". */
TESS_MUST_USE tess_status tess_templates_check(const tess_names *templates, const char *path);

/* ---- order -------------------------------------------------------------------------------- */

/* Where slot `slot` of the batch at `counter` stands.  n/B batches make an epoch; the n%B samples
 * at the end of an epoch's permutation are not visited in it (drop last), and the next epoch has
 * another permutation.  Requires 1 <= batch <= n and counter % batch == 0. */
typedef struct tess_order {
    uint64_t seed;
    int64_t n, batch;
} tess_order;
int64_t tess_order_epoch(const tess_order *o, int64_t counter);
/* The sample for a slot; attempt 0 is the planned one.  A bad sample is replaced by the one in the
 * same slot of the following batch of the epoch, and so on round (attempts 1, 2, ...): the samples
 * of different slots stay different, and no slot depends on what became of another.  After
 * the last of those come the epoch's other samples in order, when two slots may share a picture;
 * -1 after all n. */
int64_t tess_order_get(const tess_order *o, int64_t counter, int64_t slot, int64_t attempt);

/* Draws captions of one picture without replacement.  A caption of language l has the weight
 * n_l^(1/T - 1), n_l being the language's caption count in the data set: T = 1 leaves the natural
 * frequencies, T = INFINITY makes languages equally frequent.  Draws come in rounds in which no
 * language repeats, so K captions are in K languages where the picture has as many. */
typedef struct tess_caption_draw tess_caption_draw;
TESS_MUST_USE tess_status tess_caption_draw_new(const tess_dataset *ds, double temperature,
                                                tess_caption_draw **out);
void tess_caption_draw_free(tess_caption_draw *d);
/* Starts on a picture with captions of these languages; key as for views. */
TESS_MUST_USE tess_status tess_caption_draw_set(tess_caption_draw *d, tess_view_key key,
                                                const int32_t *languages, int64_t n_captions);
/* The next caption's index, -1 when all are drawn. */
int64_t tess_caption_draw_next(tess_caption_draw *d);

/* ---- the loader --------------------------------------------------------------------------- */

typedef struct tess_loader_options {
    tess_hooks hooks;
    int64_t batch;              /* B, pictures of all ranks together */
    int64_t size;               /* S, side of the pictures delivered */
    int64_t captions_per_image; /* K; 0: pictures only */
    bool captions_only;         /* no pictures: S and the hooks for them are not needed */
    bool raw;                   /* pictures as they were decoded, for a device that resizes them */
    /* Slot 0 gets a caption in this language, whose text comes along, and the other slots captions
     * in other ones; a sample without one is bad.  NULL: all slots are drawn alike. */
    const char *source_language;
    int64_t max_tokens; /* per caption; required when K > 0 */
    uint64_t seed;
    double temperature;    /* 0: 1 */
    int64_t rank, n_ranks; /* this rank gets slots [rank*B/n_ranks, (rank+1)*B/n_ranks) */
    /* Waits for a batch though tess_cancelled is set: others wait for what is made of it. */
    bool patient;
    int workers;      /* threads; 0: the caller's own, when it asks */
    int64_t prefetch; /* batches made ahead; 0: 2 */
    /* Decoded pictures are brought to (cache_size,cache_size) before the view is taken from them,
     * and kept while there is room; 0: views from the full picture, nothing kept.  What is kept
     * never changes what is delivered. */
    int64_t cache_size;
    size_t cache_bytes;       /* for pictures; 0: 1 GiB */
    size_t token_cache_bytes; /* for the token ids of every caption visited; 0: nothing kept */
    double max_bad_rate;      /* 0: 0.1.  Stops above it, after at least 256 samples; >= 1: never */
    /* Every sample once, in the data set's order, without chance (hooks.resize); the last batch is
     * short; a bad sample keeps its slot, with ok false and a black picture. */
    bool evaluation;
} tess_loader_options;

/* Borrowed from the loader until its next read, seek or free.  b counts this rank's B' pictures;
 * segment k*B' + b is caption k of picture b. */
typedef struct tess_batch {
    int64_t counter; /* before this batch; the next one's is counter + B */
    int64_t epoch;
    int64_t n_pictures;           /* B' */
    const uint8_t *pictures;      /* (B',S,S,3) u8; NULL where raw is set */
    const tess_raw_pictures *raw; /* as many places as a full batch; NULL unless asked for */
    const int64_t *samples;       /* (B') index in the data set, replacements in place */
    const uint64_t *ids;          /* (B') */
    const bool *ok;               /* (B') */
    int64_t n_captions;           /* K */
    int64_t n_tokens;             /* N */
    const int32_t *tokens;        /* (N) */
    const int32_t *positions;     /* (N) place within its caption, from 0 */
    const int32_t *offsets;       /* (K*B'+1) segment s is [offsets[s], offsets[s+1]) */
    const int32_t *languages;     /* (K*B') */
    char *const *sources;         /* (B') texts of slot 0, where a source language was asked for */
} tess_batch;

typedef struct tess_loader_stats {
    double wait_seconds; /* that reads spent waiting for data (all of the work when workers is 0) */
    int64_t n_batches, n_slots, n_replaced; /* n_replaced: bad samples met in slots, with repeats */
    size_t cached_bytes, cached_token_bytes;
} tess_loader_stats;

typedef struct tess_loader tess_loader;
/* `ds` is borrowed and must outlive the loader.  TESS_INVALID: options, or fewer samples than B. */
TESS_MUST_USE tess_status tess_loader_new(const tess_dataset *ds,
                                          const tess_loader_options *options, tess_loader **out);
void tess_loader_free(tess_loader *l);
/* The next batch; *out NULL at the end (evaluation only).  TESS_FORMAT with the list when too much
 * is bad; TESS_CANCELLED when tess_cancelled is set. */
TESS_MUST_USE tess_status tess_loader_read(tess_loader *l, const tess_batch **out);
/* The next read gives the batch at `counter`, a multiple of B.  Costs no reading. */
TESS_MUST_USE tess_status tess_loader_seek(tess_loader *l, int64_t counter);
int64_t tess_loader_batches_per_epoch(const tess_loader *l);
/* This rank's samples (B') of a batch that was delivered, found again by its counter; replacements
 * in place, -1 where there was none.  Not for evaluation. */
void tess_loader_find(const tess_loader *l, int64_t counter, int64_t *samples);
/* Bad samples and captions delivered batches have met, each counted once. */
const tess_bad_list *tess_loader_bad(const tess_loader *l);
tess_loader_stats tess_loader_stats_get(tess_loader *l);

/* ---- every caption, for evaluation -------------------------------------------------------- */

/* In the order of samples, then of the source.  Texts are kept only when asked for. */
typedef struct tess_captions {
    int64_t n_captions, n_tokens;
    int64_t *samples;   /* (n) index in the data set */
    int32_t *languages; /* (n) */
    int64_t *offsets;   /* (n+1) */
    int32_t *tokens;    /* (n_tokens) */
    char **texts;       /* (n) or NULL */
    tess_bad_list bad;
    tess_arena arena;
    size_t cap_samples, cap_languages, cap_offsets, cap_tokens, cap_texts;
} tess_captions;
TESS_MUST_USE tess_status tess_captions_load(const tess_dataset *ds, const tess_hooks *hooks,
                                             int64_t max_tokens, bool with_texts,
                                             tess_captions *out);
void tess_captions_deinit(tess_captions *c);

#endif
