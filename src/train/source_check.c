/* SPDX-License-Identifier: Apache-2.0 */
/* source_check: goes over a whole data set and says what is in it and what is wrong with it. */
#include "train/source.h"

#include <string.h>

static const char *const format_names[] = {"jpeg", "png", "webp", "other"};
static const int64_t side_limits[] = {32, 64, 128, 256, 512, 1024, 2048};

static int find_format(tess_bytes p)
{
    static const struct {
        size_t at;
        const char *magic;
    } magics[] = {{0, "\xFF\xD8\xFF"}, {0, "\x89PNG"}, {8, "WEBP"}};
    for (int i = 0; i < TESS_COUNT(magics); i++) {
        size_t n = strlen(magics[i].magic);
        if (p.n_bytes >= magics[i].at + n &&
            memcmp(p.data + magics[i].at, magics[i].magic, n) == 0) {
            return i;
        }
    }
    return 3;
}

static void count_size(tess_data_report *r, const tess_picture *p)
{
    int64_t shorter = p->width < p->height ? p->width : p->height;
    int64_t longer = p->width < p->height ? p->height : p->width;
    int i = 0;
    while (i < TESS_COUNT(side_limits) && shorter >= side_limits[i]) {
        i++;
    }
    r->sides[i]++;
    r->min_side = r->min_side == 0 || shorter < r->min_side ? shorter : r->min_side;
    r->max_side = longer > r->max_side ? longer : r->max_side;
}

static tess_status count_bad(const tess_dataset *ds, const tess_sample *s, tess_data_report *r)
{
    char name[768];
    const char *path = ds->files[ds->records[s->index].file].path;
    if (s->bad != TESS_BAD_NONE) {
        snprintf(name, sizeof name, "%s: %s: %s", path, s->key, s->detail);
        TESS_TRY(tess_bad_list_add(&r->bad, s->bad, 1, name));
    }
    for (int i = TESS_BAD_CAPTION_UTF8; i < TESS_BAD_COUNT; i++) {
        snprintf(name, sizeof name, "%s: %s", path, s->key);
        TESS_TRY(tess_bad_list_add(&r->bad, (tess_bad)i, s->n_dropped[i], name));
    }
    return TESS_OK;
}

typedef struct checker {
    const tess_hooks *hooks;
    void *scratch;
    tess_picture picture;
    tess_sample sample;
} checker;

static tess_status decode(checker *c, tess_data_report *r)
{
    tess_bad bad = TESS_BAD_NONE;
    TESS_TRY(c->hooks->decode(c->hooks->ctx, c->scratch, c->sample.picture, &c->picture, &bad));
    if (bad != TESS_BAD_NONE) {
        tess__sample_spoil(&c->sample, bad, "%s", tess_error());
    } else {
        count_size(r, &c->picture);
    }
    return TESS_OK;
}

static tess_status check_one(const tess_dataset *ds, int64_t i, checker *c, tess_data_report *r)
{
    tess_sample *s = &c->sample;
    TESS_TRY(tess_dataset_read(ds, i, TESS_READ_ALL, s));
    if (s->picture.n_bytes > 0) {
        r->formats[find_format(s->picture)]++;
        r->picture_bytes += (int64_t)s->picture.n_bytes;
    }
    if (s->bad == TESS_BAD_NONE && c->hooks && c->hooks->decode) {
        TESS_TRY(decode(c, r));
    }
    for (int64_t k = 0; k < s->n_captions; k++) {
        r->language_counts[s->captions[k].language]++;
    }
    r->n_captions += s->n_captions;
    r->n_good += s->bad == TESS_BAD_NONE;
    return count_bad(ds, s, r);
}

static tess_status copy_bad(const tess_bad_list *from, tess_bad_list *to)
{
    for (int r = 0; r < TESS_BAD_COUNT; r++) {
        for (int i = 0; i < TESS_BAD_NAMES && from->names[r][i]; i++) {
            TESS_TRY(tess_bad_list_add(to, (tess_bad)r, 1, from->names[r][i]));
        }
        to->counts[r] = from->counts[r];
    }
    return TESS_OK;
}

tess_status tess_dataset_check(const tess_dataset *ds, const tess_hooks *hooks,
                               tess_data_report *out)
{
    checker c = {.hooks = hooks};
    tess_status st = TESS_OK;
    *out = (tess_data_report){.n_samples = tess_dataset_size(ds),
                              .n_languages = tess_dataset_n_languages(ds)};
    out->language_counts = tess_alloc_array((size_t)out->n_languages, sizeof *out->language_counts);
    st = out->language_counts ? copy_bad(&ds->bad, &out->bad) : TESS_NOMEM;
    if (st == TESS_OK && hooks && hooks->scratch_new) {
        st = hooks->scratch_new(hooks->ctx, &c.scratch);
    }
    for (int64_t i = 0; i < out->n_samples && st == TESS_OK; i++) {
        st = tess_cancelled ? TESS_FAIL(TESS_CANCELLED, "stopped after %lld samples", (long long)i)
                            : check_one(ds, i, &c, out);
    }
    if (hooks && hooks->scratch_free) {
        hooks->scratch_free(c.scratch);
    }
    tess_picture_deinit(&c.picture);
    tess_sample_deinit(&c.sample);
    return st;
}

static void write_bad_json(const tess_bad_list *bad, tess_json_writer *w)
{
    tess_json_begin_object(w);
    for (int r = 1; r < TESS_BAD_COUNT; r++) {
        if (bad->counts[r] == 0) {
            continue;
        }
        tess_json_key(w, tess_bad_name((tess_bad)r));
        tess_json_begin_object(w);
        tess_json_key(w, "count");
        tess_json_add_int(w, bad->counts[r]);
        tess_json_key(w, "first");
        tess_json_begin_array(w);
        for (int i = 0; i < TESS_BAD_NAMES && bad->names[r][i]; i++) {
            tess_json_add_string(w, bad->names[r][i]);
        }
        tess_json_end_array(w);
        tess_json_end_object(w);
    }
    tess_json_end_object(w);
}

/* Members of an open object, those that are 0 left out. */
static void write_count(tess_json_writer *w, const char *key, int64_t n)
{
    if (n != 0) {
        tess_json_key(w, key);
        tess_json_add_int(w, n);
    }
}

static void side_name(int i, char *out, size_t n)
{
    if (i < TESS_COUNT(side_limits)) {
        snprintf(out, n, "<%lld", (long long)side_limits[i]);
    } else {
        snprintf(out, n, ">=%lld", (long long)side_limits[i - 1]);
    }
}

static void write_pictures_json(const tess_data_report *r, tess_json_writer *w)
{
    char side[32];
    tess_json_begin_object(w);
    write_count(w, "bytes", r->picture_bytes);
    write_count(w, "min_side", r->min_side);
    write_count(w, "max_side", r->max_side);
    tess_json_key(w, "formats");
    tess_json_begin_object(w);
    for (int i = 0; i < TESS_COUNT(format_names); i++) {
        write_count(w, format_names[i], r->formats[i]);
    }
    tess_json_end_object(w);
    tess_json_key(w, "shorter_side");
    tess_json_begin_object(w);
    for (int i = 0; i < TESS_COUNT(r->sides); i++) {
        side_name(i, side, sizeof side);
        write_count(w, side, r->sides[i]);
    }
    tess_json_end_object(w);
    tess_json_end_object(w);
}

void tess_data_report_write_json(const tess_data_report *r, const tess_dataset *ds,
                                 tess_json_writer *out)
{
    tess_json_begin_object(out);
    tess_json_key(out, "samples");
    tess_json_add_int(out, r->n_samples);
    tess_json_key(out, "good");
    tess_json_add_int(out, r->n_good);
    tess_json_key(out, "captions");
    tess_json_add_int(out, r->n_captions);
    tess_json_key(out, "languages");
    tess_json_begin_object(out);
    for (int64_t l = 0; l < r->n_languages; l++) {
        write_count(out, tess_dataset_language(ds, l), r->language_counts[l]);
    }
    tess_json_end_object(out);
    tess_json_key(out, "pictures");
    write_pictures_json(r, out);
    tess_json_key(out, "left_out");
    write_bad_json(&r->bad, out);
    tess_json_end_object(out);
}

void tess_data_report_write_text(const tess_data_report *r, const tess_dataset *ds, tess_buf *out)
{
    char side[32];
    tess_buf_addf(out, "%lld samples, %lld good, %lld captions\n", (long long)r->n_samples,
                  (long long)r->n_good, (long long)r->n_captions);
    tess_buf_addf(out, "pictures: %.1f MB", (double)r->picture_bytes / 1e6);
    for (int i = 0; i < TESS_COUNT(format_names); i++) {
        if (r->formats[i] > 0) {
            tess_buf_addf(out, ", %lld %s", (long long)r->formats[i], format_names[i]);
        }
    }
    tess_buf_adds(out, "\n");
    for (int i = 0; i < TESS_COUNT(r->sides); i++) {
        if (r->sides[i] > 0) {
            side_name(i, side, sizeof side);
            tess_buf_addf(out, "  shorter side %-7s %lld\n", side, (long long)r->sides[i]);
        }
    }
    tess_buf_adds(out, "captions by language:");
    for (int64_t l = 0; l < r->n_languages; l++) {
        if (r->language_counts[l] > 0) {
            tess_buf_addf(out, " %s %lld", tess_dataset_language(ds, l),
                          (long long)r->language_counts[l]);
        }
    }
    tess_buf_adds(out, "\n");
    for (int b = 1; b < TESS_BAD_COUNT; b++) {
        if (r->bad.counts[b] > 0) {
            tess_buf_addf(out, "left out: %lld %s\n", (long long)r->bad.counts[b],
                          tess_bad_name((tess_bad)b));
        }
        for (int i = 0; i < TESS_BAD_NAMES && r->bad.names[b][i]; i++) {
            tess_buf_addf(out, "  %s\n", r->bad.names[b][i]);
        }
    }
}

void tess_data_report_deinit(tess_data_report *r)
{
    if (r) {
        tess_bad_list_deinit(&r->bad);
        tess_free(r->language_counts);
        *r = (tess_data_report){0};
    }
}
