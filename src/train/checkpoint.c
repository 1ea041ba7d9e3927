/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: complete or absent.
 *
 * Everything is written into "NAME.tmp"; state.json, with the size and hash of every other file and
 * of itself, is the last of them; then the directory is synced and renamed.  A crash leaves a .tmp,
 * which loading never looks at and the next session clears.  Loading trusts nothing: it compares
 * sizes and hashes first, and tess_checkpoint_latest falls back to the newest checkpoint that
 * passes.
 *
 * Where an adapter is trained, the checkpoint is an adapter directory in place of a model's: the
 * base is in its own directory and does not change. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

#define STATE_FILE     "state.json"
#define OPTIMIZER_FILE "optimizer.safetensors"
#define STATE_FORMAT   1

enum { MAX_STATE_BYTES = 1 << 20, CHECK_BYTES = 34 };

static const char *const moment_groups[] = {"m", "v"};

/* ---- state.json ---------------------------------------------------------------------------- */

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

static tess_status hash_file(const char *dir, const char *name, int64_t *out_bytes,
                             uint64_t *out_hash)
{
    tess_bytes map = {0};
    char *path = tess_format("%s/%s", dir, name);
    tess_status st = path ? tess_file_map(path, &map) : TESS_NOMEM;
    if (st == TESS_OK) {
        *out_bytes = (int64_t)map.n_bytes;
        *out_hash = tess_hash64(map.data, map.n_bytes, 0);
        tess_file_unmap(&map);
    }
    tess_free(path);
    return st;
}

static tess_status write_files(tess_json_writer *w, const char *dir)
{
    tess_names names = {0};
    TESS_TRY(tess_dir_list(dir, false, &names));
    tess_status st = TESS_OK;
    tess_json_begin_object(w);
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        int64_t n_bytes = 0;
        uint64_t hash = 0;
        char text[48];
        st = hash_file(dir, names.names[i], &n_bytes, &hash);
        snprintf(text, sizeof text, "%lld:%016llx", (long long)n_bytes, (unsigned long long)hash);
        tess_json_key(w, names.names[i]);
        tess_json_add_string(w, text);
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

static tess_status write_state(const tess_train_state *s, const char *dir)
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
    tess_status st = write_files(&w, dir);
    tess_json_end_object(&w);
    end_with_check(&b);
    char *path = tess_format("%s/" STATE_FILE, dir);
    st = st ? st : path ? tess_buf_check(&b) : TESS_NOMEM;
    st = st ? st : tess_file_write(path, b.data, b.n_bytes);
    tess_free(path);
    tess_buf_deinit(&b);
    return st;
}

static tess_status check_file(const char *dir, const char *name, const char *want)
{
    int64_t n_bytes = 0;
    uint64_t hash = 0;
    char have[48];
    if (strchr(name, '/')) {
        return TESS_FAIL(TESS_FORMAT, "%.64s: not a file of a checkpoint", name);
    }
    TESS_TRY(hash_file(dir, name, &n_bytes, &hash));
    snprintf(have, sizeof have, "%lld:%016llx", (long long)n_bytes, (unsigned long long)hash);
    if (strcmp(have, want) != 0) {
        return TESS_FAIL(TESS_FORMAT, "%s: expected size:hash %.48s, found %s", name, want, have);
    }
    return TESS_OK;
}

static tess_status read_part(const tess_json *root, tess_arena *arena, const char *dir,
                             bool with_files, tess_train_state *out)
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
    for (size_t i = 0; with_files && i < tess_json_count(p.files); i++) {
        const char *name;
        const char *want = tess_json_string(tess_json_member(p.files, i, &name), "");
        TESS_TRY(check_file(dir, name, want));
    }
    return TESS_OK;
}

static tess_status read_state(const char *dir, bool with_files, tess_train_state *out)
{
    tess_json_doc *doc = NULL;
    tess_arena arena = {0};
    char *path = tess_format("%s/" STATE_FILE, dir);
    tess_status st = path ? read_checked(path, &doc) : TESS_NOMEM;
    st = st ? st : read_part(tess_json_root(doc), &arena, dir, with_files, out);
    tess_json_free(doc);
    tess_arena_deinit(&arena);
    tess_free(path);
    return st ? tess_error_prefix(st, "checkpoint %s", dir) : TESS_OK;
}

/* ---- moments ------------------------------------------------------------------------------- */

static tess_status save_moments(const tess_store *s, const char *path)
{
    int64_t n = tess_store_n_entries(s, "m"), at = 0;
    tess_tensor *tensors = tess_alloc_array((size_t)(2 * n), sizeof *tensors);
    tess_arena names = {0};
    tess_status st = tensors ? TESS_OK : TESS_NOMEM;
    for (int g = 0; g < 2; g++) {
        for (int64_t i = 0; st == TESS_OK && i < n; i++) {
            float *data;
            tess_tensor *t = &tensors[at++];
            const char *name = tess_store_entry(s, moment_groups[g], i, &data, &t->shape);
            t->name = tess_arena_format(&names, "%s/%s", moment_groups[g], name);
            t->dtype = "F32";
            t->data = (const uint8_t *)data;
            t->n_bytes = (size_t)tess_shape_count(&t->shape) * sizeof *data;
            st = t->name ? TESS_OK : TESS_NOMEM;
        }
    }
    st = st ? st : tess_tensors_save(path, tensors, at, NULL, 0);
    tess_free(tensors);
    tess_arena_deinit(&names);
    return st;
}

/* ---- saving and loading -------------------------------------------------------------------- */

static tess_status write_all(tess_model *m, const tess_train_state *s, const char *tmp)
{
    char *optimizer = tess_format("%s/" OPTIMIZER_FILE, tmp);
    tess_status st = optimizer ? tess_dir_remove(tmp) : TESS_NOMEM;
    st = st                           ? st
         : tess_model_has_adapters(m) ? tess_model_write_adapter(m, tmp)
                                      : tess_model_save(m, tmp);
    st = st ? st : tess_model_fetch(m);
    st = st ? st : save_moments(tess_model_store(m), optimizer);
    st = st ? st : write_state(s, tmp);
    st = st ? st : tess_dir_sync(tmp);
    tess_free(optimizer);
    return st;
}

tess_status tess_checkpoint_save(tess_model *m, const tess_train_state *s,
                                 const char *checkpoints_dir, const char *name)
{
    char *dir = tess_format("%s/%s", checkpoints_dir, name);
    char *tmp = tess_format("%s/%s.tmp", checkpoints_dir, name);
    tess_status st = dir && tmp ? tess_dir_make(checkpoints_dir) : TESS_NOMEM;
    st = st ? st : write_all(m, s, tmp);
    st = st ? st : tess_dir_replace(tmp, dir);
    if (st) {
        st = tess_error_prefix(st, "saving checkpoint %s", name);
    }
    tess_free(dir);
    tess_free(tmp);
    return st;
}

static tess_status load_file(tess_store *s, const char *dir, const char *file, const char *group,
                             const char *prefix)
{
    tess_tensors *t = NULL;
    char *path = tess_format("%s/%s", dir, file);
    tess_status st = path ? tess_tensors_open(path, &t) : TESS_NOMEM;
    st = st ? st : tess_store_load(s, group, t, prefix);
    tess_tensors_free(t);
    tess_free(path);
    return st;
}

tess_status tess_checkpoint_load(tess_model *m, const char *dir, tess_train_state *out)
{
    tess_store *s = tess_model_store(m);
    TESS_TRY(read_state(dir, true, out));
    tess_status st = tess_model_has_adapters(m)
                         ? tess_model_read_adapter(m, dir)
                         : load_file(s, dir, "open_clip_model.safetensors", "param", "");
    st = st ? st : load_file(s, dir, OPTIMIZER_FILE, "m", "m/");
    st = st ? st : load_file(s, dir, OPTIMIZER_FILE, "v", "v/");
    st = st ? st : tess_model_send(m);
    return st ? tess_error_prefix(st, "checkpoint %s", dir) : TESS_OK;
}

static bool has_checkpoint_name(const char *name)
{
    return strncmp(name, "step_", 5) == 0 || strncmp(name, "epoch_", 6) == 0;
}

/* Takes `name` for *best when it is complete and further than that. */
static tess_status consider(const char *checkpoints_dir, const char *name, int64_t *best_step,
                            char **best)
{
    tess_train_state s;
    char *dir = tess_format("%s/%s", checkpoints_dir, name);
    tess_status st = dir ? read_state(dir, true, &s) : TESS_NOMEM;
    if (st == TESS_OK && s.step > *best_step) {
        *best_step = s.step;
        tess_free(*best);
        *best = dir;
        return TESS_OK;
    }
    if (st && st != TESS_NOMEM) {
        tess_log(TESS_LOG_WARN, "%s; passed over", tess_error());
        st = TESS_OK;
    }
    tess_free(dir);
    return st;
}

tess_status tess_checkpoint_latest(const char *checkpoints_dir, char **out)
{
    *out = NULL;
    tess_names names = {0};
    if (!tess_path_is_dir(checkpoints_dir)) {
        return TESS_OK;
    }
    TESS_TRY(tess_dir_list(checkpoints_dir, false, &names));
    int64_t best_step = -1, n_found = 0;
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        if (has_checkpoint_name(names.names[i]) && !strchr(names.names[i], '.')) {
            st = consider(checkpoints_dir, names.names[i], &best_step, out);
            n_found++;
        }
    }
    tess_names_deinit(&names);
    if (st == TESS_OK && n_found > 0 && !*out) {
        st = TESS_FAIL(TESS_FORMAT,
                       "%s: none of the %lld checkpoints is whole; restore one, or delete them to "
                       "begin anew",
                       checkpoints_dir, (long long)n_found);
    }
    if (st) {
        tess_free(*out);
        *out = NULL;
    }
    return st;
}

tess_status tess__checkpoint_remove(const char *dir)
{
    char *tmp = tess_format("%s.tmp", dir);
    tess_status st = tmp ? tess_dir_remove(tmp) : TESS_NOMEM;
    st = st ? st : tess_path_rename(dir, tmp);
    st = st ? st : tess_dir_remove(tmp);
    tess_free(tmp);
    return st;
}

tess_status tess__checkpoints_sweep(const char *checkpoints_dir)
{
    tess_names names = {0};
    if (!tess_path_is_dir(checkpoints_dir)) {
        return TESS_OK;
    }
    TESS_TRY(tess_dir_list(checkpoints_dir, false, &names));
    tess_status st = TESS_OK;
    for (size_t i = 0; st == TESS_OK && i < names.n_names; i++) {
        const char *suffix = strchr(names.names[i], '.');
        if (suffix && strncmp(suffix, ".tmp", 4) == 0 && has_checkpoint_name(names.names[i])) {
            char *dir = tess_format("%s/%s", checkpoints_dir, names.names[i]);
            st = dir ? tess_dir_remove(dir) : TESS_NOMEM;
            tess_free(dir);
        }
    }
    tess_names_deinit(&names);
    return st;
}
