/* SPDX-License-Identifier: Apache-2.0 */
/* state.json: the numbers of a checkpoint, size and sum of every file beside it, and a hash of
 * itself in its last line.
 *
 * Format 2 sums files by CRC-64, which is made while they are written, by any number of writers;
 * format 1, which is read still, hashed them by XXH3. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

#define STATE_FILE   "state.json"
#define STATE_FORMAT 2

enum { MAX_STATE_BYTES = 1 << 20, CHECK_BYTES = 34, SUM_BYTES = 48 };

typedef struct state_part {
    int64_t format, step, counter, epoch, n_loss, n_skipped;
    double elapsed;
    char *seed, *settings, *loss_sum, *recent, *check;
    const tess_json *files;
} state_part;

static const tess_field state_fields[] = {
    {"format", TESS_FIELD_INT, offsetof(state_part, format), 1, STATE_FORMAT},
    {"step", TESS_FIELD_INT, offsetof(state_part, step), 0, 1e15},
    {"counter", TESS_FIELD_INT, offsetof(state_part, counter), 0, 1e15},
    {"epoch", TESS_FIELD_INT, offsetof(state_part, epoch), 0, 1e15},
    {"elapsed", TESS_FIELD_REAL, offsetof(state_part, elapsed), 0, 1e12},
    {"loss_sum", TESS_FIELD_STRING, offsetof(state_part, loss_sum), 0, 0},
    {"n_loss", TESS_FIELD_INT, offsetof(state_part, n_loss), 0, 1e15},
    {"n_skipped", TESS_FIELD_INT, offsetof(state_part, n_skipped), 0, 1e15},
    {"recent", TESS_FIELD_STRING, offsetof(state_part, recent), 0, 0},
    {"seed", TESS_FIELD_STRING, offsetof(state_part, seed), 0, 0},
    {"settings", TESS_FIELD_STRING, offsetof(state_part, settings), 0, 0},
    {"files", TESS_FIELD_OBJECT, offsetof(state_part, files), 0, 0},
    {"check", TESS_FIELD_STRING, offsetof(state_part, check), 0, 0},
};

static void format_sum(int64_t n_bytes, uint64_t sum, char out[SUM_BYTES])
{
    snprintf(out, SUM_BYTES, "%lld:%016llx", (long long)n_bytes, (unsigned long long)sum);
}

static tess_status sum_file(const char *dir, const char *name, int64_t format, char out[SUM_BYTES])
{
    tess_bytes map = {0};
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = path ? tess_file_map(path, &map) : TESS_NOMEM;
    if (st == TESS_OK) {
        format_sum((int64_t)map.n_bytes,
                   format == 1 ? tess_hash64(map.data, map.n_bytes, 0) : tess_file_crc64(map), out);
        tess_file_unmap(&map);
    }
    tess_free(path);
    return st;
}

/* What was summed as it was written is not read again. */
static tess_status sum_of(const char *dir, const char *name, const tess__file_sum *known,
                          int64_t n_known, char out[SUM_BYTES])
{
    for (int64_t i = 0; i < n_known; i++) {
        if (strcmp(known[i].name, name) == 0) {
            format_sum(known[i].n_bytes, known[i].crc, out);
            return TESS_OK;
        }
    }
    return sum_file(dir, name, STATE_FORMAT, out);
}

static tess_status write_files(tess_json_writer *w, const char *dir, const tess__file_sum *known,
                               int64_t n_known)
{
    tess_names names = {0};
    TESS_TRY(tess_dir_list(dir, false, &names));
    tess_status st = TESS_OK;
    tess_json_begin_object(w);
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        char sum[SUM_BYTES];
        st = sum_of(dir, names.names[i], known, n_known, sum);
        tess_json_key(w, names.names[i]);
        tess_json_add_string(w, st ? NULL : sum);
    }
    tess_json_end_object(w);
    tess_names_deinit(&names);
    return st;
}

/* The closing lines of state.json: a hash of all that stands before them. */
static int format_check(const char *text, size_t n_bytes, char out[CHECK_BYTES + 1])
{
    unsigned long long hash = tess_hash64(text, n_bytes, 0);
    return snprintf(out, CHECK_BYTES + 1, ",\n  \"check\": \"%016llx\"\n}\n", hash);
}

/* `b` holds a whole pretty-printed object, which ends in "\n}". */
static void end_with_check(tess_buf *b)
{
    char check[CHECK_BYTES + 1];
    if (!b->failed) {
        b->n_bytes -= 2;
        format_check(b->data, b->n_bytes, check);
        tess_buf_adds(b, check);
    }
}

static tess_status read_checked(const char *path, tess_json_doc **out)
{
    uint8_t *text = NULL;
    size_t n_bytes = 0;
    char check[CHECK_BYTES + 1];
    TESS_TRY(tess_file_read(path, MAX_STATE_BYTES, &text, &n_bytes));
    bool whole = n_bytes > CHECK_BYTES;
    if (whole) {
        size_t n = n_bytes - (size_t)format_check((const char *)text, n_bytes - CHECK_BYTES, check);
        whole = memcmp(text + n, check, CHECK_BYTES) == 0;
    }
    tess_status st = whole ? tess_json_parse((const char *)text, n_bytes, STATE_FILE, out)
                           : TESS_FAIL(TESS_FORMAT, STATE_FILE ": is damaged: its hash is not the "
                                                               "one in its last line");
    tess_free(text);
    return st;
}

tess_status tess__state_write(const tess_train_state *s, const char *dir,
                              const tess__file_sum *known, int64_t n_known)
{
    char seed[32], loss_sum[40], settings[33], recent[sizeof s->recent];
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)s->seed);
    snprintf(loss_sum, sizeof loss_sum, "%a", s->loss_sum); /* every bit */
    memcpy(settings, s->settings, sizeof settings);
    memcpy(recent, s->recent, sizeof recent);
    state_part part = {.format = STATE_FORMAT,
                       .step = s->step,
                       .counter = s->counter,
                       .epoch = s->epoch,
                       .elapsed = s->elapsed,
                       .n_loss = s->n_loss,
                       .n_skipped = s->n_skipped,
                       .loss_sum = loss_sum,
                       .recent = recent[0] ? recent : NULL,
                       .seed = seed,
                       .settings = settings};
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b, .pretty = true};
    tess_json_begin_object(&w);
    tess_json_add_fields(&w, state_fields, TESS_COUNT(state_fields), &part);
    tess_json_key(&w, "files");
    tess_status st = write_files(&w, dir, known, n_known);
    tess_json_end_object(&w);
    end_with_check(&b);
    char *path = tess_format("%s/" STATE_FILE, dir);
    st = st ? st : path ? tess_buf_check(&b) : TESS_NOMEM;
    st = st ? st : tess_file_write(path, b.data, b.n_bytes);
    tess_free(path);
    tess_buf_deinit(&b);
    return st;
}

static tess_status check_file(const char *dir, const char *name, int64_t format, const char *want)
{
    char have[SUM_BYTES];
    if (strchr(name, '/')) {
        return TESS_FAIL(TESS_FORMAT, "%.64s: not a file of a checkpoint", name);
    }
    TESS_TRY(sum_file(dir, name, format, have));
    if (strcmp(have, want) != 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected size:hash %.48s, found %s", name, want, have);
    }
    return TESS_OK;
}

static tess_status read_part(const tess_json *root, tess_arena *arena, const char *dir,
                             tess_train_state *out)
{
    state_part p = {0};
    TESS_TRY(
        tess_json_read_fields(root, STATE_FILE, state_fields, TESS_COUNT(state_fields), arena, &p));
    if (!p.seed || !p.settings || !p.files || !p.loss_sum || strlen(p.settings) != 32) {
        return TESS_FAIL(TESS_FORMAT, STATE_FILE ": seed, settings, loss_sum or files is missing");
    }
    *out = (tess_train_state){.step = p.step,
                              .counter = p.counter,
                              .epoch = p.epoch,
                              .elapsed = p.elapsed,
                              .loss_sum = strtod(p.loss_sum, NULL),
                              .n_loss = p.n_loss,
                              .n_skipped = p.n_skipped,
                              .seed = strtoull(p.seed, NULL, 10)};
    memcpy(out->settings, p.settings, sizeof out->settings);
    snprintf(out->recent, sizeof out->recent, "%s", p.recent ? p.recent : "");
    for (size_t i = 0; i < tess_json_count(p.files); i++) {
        const char *name;
        const char *want = tess_json_string(tess_json_member(p.files, i, &name), "");
        TESS_TRY(check_file(dir, name, p.format, want));
    }
    return TESS_OK;
}

tess_status tess__state_read(const char *dir, tess_train_state *out)
{
    tess_json_doc *doc = NULL;
    tess_arena arena = {0};
    char *path = tess_format("%s/" STATE_FILE, dir);
    tess_status st = path ? read_checked(path, &doc) : TESS_NOMEM;
    st = st ? st : read_part(tess_json_root(doc), &arena, dir, out);
    tess_json_free(doc);
    tess_arena_deinit(&arena);
    tess_free(path);
    return st ? tess_error_prefix(st, "checkpoint %s", dir) : TESS_OK;
}
