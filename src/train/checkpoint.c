/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: complete or absent.
 *
 * Everything is written into "NAME.tmp", on a saver's thread while training goes on; state.json,
 * with the size and sum of every other file and a hash of itself, is the last of them; then the
 * directory is synced and renamed.  A crash leaves a .tmp, which loading never looks at and the
 * next session clears.  Loading trusts nothing: it compares sizes and hashes first, and
 * tess_checkpoint_latest falls back to the newest checkpoint that passes.
 *
 * Where an adapter is trained, the checkpoint is an adapter directory in place of a model's: the
 * base is in its own directory and does not change. */
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

#define OPTIMIZER_FILE "optimizer.safetensors"

static const char *const moment_groups[] = {"m", "v"};

/* ---- moments ------------------------------------------------------------------------------- */

static tess_status describe_moments(const tess_store *s, tess_model_weights *out)
{
    int64_t n = tess_store_n_entries(s, "m");
    out->file = OPTIMIZER_FILE;
    out->tensors = tess_alloc_array((size_t)(2 * n), sizeof *out->tensors);
    tess_status st = out->tensors ? TESS_OK : TESS_NOMEM;
    for (int g = 0; g < 2; g++) {
        for (int64_t i = 0; st == TESS_OK && i < n; i++) {
            float *data;
            tess_tensor *t = &out->tensors[out->n++];
            const char *name = tess_store_entry(s, moment_groups[g], i, &data, &t->shape);
            t->name = tess_arena_format(&out->arena, "%s/%s", moment_groups[g], name);
            t->dtype = "F32";
            t->data = (const uint8_t *)data;
            t->n_bytes = (size_t)tess_shape_count(&t->shape) * sizeof *data;
            t->pager = tess_store_pager(s);
            st = t->name ? TESS_OK : TESS_NOMEM;
        }
    }
    return st;
}

/* ---- saving -------------------------------------------------------------------------------- */

enum { N_FILES = 2 };

/* What the saver's thread needs, and nothing that training changes. */
typedef struct saving {
    const tess_model *model;
    tess_train_state state;
    char *name, *dir, *tmp, *previous; /* previous NULL: stays */
    char *paths[N_FILES];
    tess_model_weights parts[N_FILES];
    tess_saver_file files[N_FILES];
} saving;

static void free_saving(void *ctx)
{
    saving *s = ctx;
    if (!s) {
        return;
    }
    for (int i = 0; i < N_FILES; i++) {
        tess_model_weights_deinit(&s->parts[i]);
        tess_free(s->paths[i]);
    }
    tess_free(s->name);
    tess_free(s->dir);
    tess_free(s->tmp);
    tess_free(s->previous);
    tess_free(s);
}

static tess_status name_failure(const saving *s, tess_status st)
{
    return st ? tess_error_prefix(st, "saving checkpoint %s", s->name) : TESS_OK;
}

static tess_status before_files(void *ctx)
{
    const saving *s = ctx;
    tess_status st = tess_dir_remove(s->tmp);
    st = st ? st : tess_dir_make(s->tmp);
    return name_failure(s, st ? st : tess_model_write_frame(s->model, s->tmp));
}

static tess_status publish(const saving *s)
{
    tess__file_sum sums[N_FILES];
    for (int i = 0; i < N_FILES; i++) {
        sums[i] = (tess__file_sum){s->parts[i].file, s->files[i].n_bytes, s->files[i].crc};
    }
    TESS_TRY(tess_model_write_summary(s->model, s->tmp, sums[0].n_bytes, sums[0].crc));
    TESS_TRY(tess__state_write(&s->state, s->tmp, sums, N_FILES));
    TESS_TRY(tess_dir_sync(s->tmp));
    TESS_TRY(tess_dir_replace(s->tmp, s->dir));
    return s->previous ? tess__checkpoint_remove(s->previous) : TESS_OK;
}

static tess_status after_files(void *ctx)
{
    return name_failure(ctx, publish(ctx));
}

static tess_status describe(tess_model *m, saving *s)
{
    TESS_TRY(tess_model_fetch(m));
    TESS_TRY(tess_model_gather_weights(m, &s->parts[0]));
    TESS_TRY(describe_moments(tess_model_store(m), &s->parts[1]));
    for (int i = 0; i < N_FILES; i++) {
        const tess_model_weights *p = &s->parts[i];
        s->paths[i] = tess_format("%s/%s", s->tmp, p->file);
        TESS_TRY(s->paths[i] ? TESS_OK : TESS_NOMEM);
        s->files[i] = (tess_saver_file){.path = s->paths[i],
                                        .tensors = p->tensors,
                                        .n = p->n,
                                        .metadata = p->metadata,
                                        .n_metadata = p->n_metadata};
    }
    return TESS_OK;
}

static tess_status make_saving(tess_model *m, const tess_train_state *state,
                               const char *checkpoints_dir, const char *name, const char *previous,
                               saving **out)
{
    saving *s = tess_alloc(sizeof *s);
    *out = s;
    if (!s) {
        return TESS_NOMEM;
    }
    s->model = m;
    s->state = *state;
    s->name = tess_strdup(name);
    s->dir = tess_format("%s/%s", checkpoints_dir, name);
    s->tmp = tess_format("%s/%s.tmp", checkpoints_dir, name);
    s->previous = previous ? tess_strdup(previous) : NULL;
    const bool named = s->name && s->dir && s->tmp && (s->previous || !previous);
    tess_status st = named ? tess_dir_make(checkpoints_dir) : TESS_NOMEM;
    st = st ? st : describe(m, s);
    return named ? name_failure(s, st) : st;
}

tess_status tess__checkpoint_start(tess_saver *saver, tess_model *m, const tess_train_state *state,
                                   const char *checkpoints_dir, const char *name,
                                   const char *previous)
{
    saving *s = NULL;
    TESS_TRY(tess__saver_end(saver, true));
    const tess_status st = make_saving(m, state, checkpoints_dir, name, previous, &s);
    if (st) {
        free_saving(s);
        return st;
    }
    const tess_saver_job job = {.files = s->files,
                                .n_files = N_FILES,
                                .before = before_files,
                                .after = after_files,
                                .free = free_saving,
                                .ctx = s};
    return tess__saver_start(saver, &job);
}

/* ---- by all ranks -------------------------------------------------------------------------- */

/* The store's group and entry that a tensor of a file is: "m/NAME" and "v/NAME", or NAME. */
static tess_held held_of(const tess_store *s, const char *tensor)
{
    for (int i = 0; i < TESS_COUNT(moment_groups); i++) {
        const size_t n = strlen(moment_groups[i]);
        if (strncmp(tensor, moment_groups[i], n) == 0 && tensor[n] == '/') {
            return tess_store_held(s, moment_groups[i], tensor + n + 1);
        }
    }
    return tess_store_held(s, "param", tensor);
}

/* This rank's ranges; what all hold whole, and the header, are the first rank's. */
static tess_status write_ranges(const tess_comm *comm, const saving *s, const tess_saver_file *f,
                                const tess_tensors_layout *l, tess_range_writer *w)
{
    const bool first = tess_comm_rank(comm) == 0;
    TESS_TRY(first ? tess_range_writer_write(w, 0, l->header.data, l->header.n_bytes) : TESS_OK);
    for (int64_t i = 0; i < f->n; i++) {
        const tess_held h = held_of(tess_model_store(s->model), f->tensors[i].name);
        if (h.split || first) {
            const int64_t width = sizeof(float);
            TESS_TRY(tess_range_writer_write(w, l->begin[i] + h.begin * width, f->tensors[i].data,
                                             (size_t)((h.end - h.begin) * width)));
        }
    }
    return TESS_OK;
}

/* All ranks' sums of a file, and on each what the whole file's is. */
static tess_status join_sums(tess_comm *comm, const tess_range_sum *mine, size_t n_mine,
                             tess_saver_file *f)
{
    const int ranks = tess_comm_size(comm);
    const int64_t width = sizeof *mine, n_bytes = (int64_t)n_mine * width;
    int64_t *counts = tess_alloc_array((size_t)ranks * 2, sizeof *counts), n = 0;
    if (!counts) {
        return TESS_NOMEM;
    }
    for (int r = 0; r < ranks; r++) {
        counts[ranks + r] = sizeof *counts;
    }
    tess_status st = tess_comm_all_gather(comm, &n_bytes, counts + ranks, counts);
    for (int r = 0; st == TESS_OK && r < ranks; r++) {
        n += counts[r] / width;
    }
    tess_range_sum *all = tess_alloc_array((size_t)n + 1, sizeof *all);
    st = st ? st : all ? tess_comm_all_gather(comm, mine, counts, all) : TESS_NOMEM;
    st = st ? st : tess_range_sums_whole(all, (size_t)n, f->n_bytes, &f->crc);
    tess_free(all);
    tess_free(counts);
    return st;
}

/* The first rank makes the file, then all fill it. */
static tess_status fill_file(tess_comm *comm, const saving *s, tess_saver_file *f,
                             const tess_tensors_layout *l)
{
    const bool first = tess_comm_rank(comm) == 0;
    tess_range_writer *w = NULL;
    tess_range_sum *sums = NULL;
    size_t n = 0;
    f->n_bytes = l->n_bytes;
    tess_status st = first ? tess_range_writer_open(f->path, l->n_bytes, true, &w) : TESS_OK;
    st = st ? st : tess_comm_barrier(comm);
    st = st || first ? st : tess_range_writer_open(f->path, l->n_bytes, false, &w);
    st = st ? st : write_ranges(comm, s, f, l, w);
    if (st) {
        tess_range_writer_abort(w);
        return st;
    }
    TESS_TRY(tess_range_writer_close(w, &sums, &n));
    st = join_sums(comm, sums, n, f);
    tess_free(sums);
    return st;
}

static tess_status save_together(tess_comm *comm, saving *s)
{
    const bool first = tess_comm_rank(comm) == 0;
    TESS_TRY(first ? before_files(s) : TESS_OK);
    for (int i = 0; i < N_FILES; i++) {
        tess_saver_file *f = &s->files[i];
        tess_tensors_layout l = {0};
        TESS_TRY(tess_tensors_plan(f->tensors, f->n, f->metadata, f->n_metadata, &l));
        const tess_status st = fill_file(comm, s, f, &l);
        tess_tensors_layout_deinit(&l);
        TESS_TRY(st);
    }
    TESS_TRY(first ? publish(s) : TESS_OK);
    return tess_comm_barrier(comm);
}

tess_status tess__checkpoint_save_together(tess_comm *comm, tess_model *m,
                                           const tess_train_state *state,
                                           const char *checkpoints_dir, const char *name,
                                           const char *previous)
{
    saving *s = NULL;
    tess_status st = make_saving(m, state, checkpoints_dir, name, previous, &s);
    st = st ? st : name_failure(s, save_together(comm, s));
    free_saving(s);
    return st;
}

tess_status tess_checkpoint_save(tess_model *m, const tess_train_state *s,
                                 const char *checkpoints_dir, const char *name)
{
    tess_saver *saver = NULL;
    TESS_TRY(tess__saver_new(&(tess_saver_options){.hurried = true}, &saver));
    tess_status st = tess__checkpoint_start(saver, m, s, checkpoints_dir, name, NULL);
    st = st ? st : tess__saver_end(saver, true);
    tess__saver_free(saver);
    return st;
}

/* ---- loading ------------------------------------------------------------------------------- */

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
    TESS_TRY(tess__state_read(dir, out));
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
    tess_status st = dir ? tess__state_read(dir, &s) : TESS_NOMEM;
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
