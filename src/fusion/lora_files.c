/* SPDX-License-Identifier: Apache-2.0 */
/* Adapter directories, as PEFT 0.21 writes and reads them (its LoraConfig and
 * get_peft_model_state_dict): adapter_config.json and adapter_model.safetensors.
 *
 * The config has some forty keys, and later versions will have more.  Those that decide numbers are
 * read; the harmless ones are named below; any other is accepted only where it says nothing (null,
 * false, an empty list or object), so that no variant of LoRA is ever taken for the plain one. */
#include "fusion/lora.h"

#include "tensor/floats.h"

#include <math.h>
#include <string.h>

#define CONFIG_FILE  "adapter_config.json"
#define WEIGHTS_FILE "adapter_model.safetensors"
#define KEY_PREFIX   "base_model.model."
#define BASE_KEY     "tessera_base"

/* ---- adapter_config.json ------------------------------------------------------------------- */

/* Of no weight for a trained adapter. */
static const char *const harmless[] = {
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "base_model_name_or_path",
    "task_type",
    "inference_mode",
    "lora_dropout",
    "peft_type",
    "revision",
    "auto_mapping",
    "peft_version",
    "exclude_modules",
    "rank_pattern",
    "megatron_core",
    "ensure_weight_tying",
    "layers_to_transform",
    "layers_pattern",
    "runtime_config",
    "qalora_group_size",
};

/* Settings with one value that is plain LoRA. */
static const struct {
    const char *key, *plain;
} plain_strings[] = {
    {"bias", "none"},
    {"init_lora_weights", "gaussian"},
    {"init_lora_weights", "orthogonal"},
    {"init_lora_weights", "eva"},
};

static bool says_nothing(const tess_json *v)
{
    switch (tess_json_kind_of(v)) {
    case TESS_JSON_NULL:
        return true;
    case TESS_JSON_BOOL:
        return !tess_json_bool(v, true);
    case TESS_JSON_ARRAY:
    case TESS_JSON_OBJECT:
        return tess_json_count(v) == 0;
    default:
        return false;
    }
}

static bool is_plain(const char *key, const tess_json *v)
{
    for (int64_t i = 0; i < TESS_COUNT(harmless); i++) {
        if (strcmp(key, harmless[i]) == 0) {
            return true;
        }
    }
    for (int64_t i = 0; i < TESS_COUNT(plain_strings); i++) {
        if (strcmp(key, plain_strings[i].key) == 0 &&
            strcmp(tess_json_string(v, ""), plain_strings[i].plain) == 0) {
            return true;
        }
    }
    return says_nothing(v) ||
           (strcmp(key, "init_lora_weights") == 0 && tess_json_kind_of(v) == TESS_JSON_BOOL);
}

tess_status tess__lora_config_read(const tess_json *root, const char *path, tess_lora_config *out)
{
    const char *type = tess_json_string(tess_json_get(root, "peft_type"), "");
    if (tess_json_kind_of(root) != TESS_JSON_OBJECT || strcmp(type, "LORA") != 0) {
        return TESS_FAIL(TESS_UNSUPPORTED, "%s: peft_type: expected \"LORA\", found \"%.64s\"",
                         path, type);
    }
    for (size_t i = 0; i < tess_json_count(root); i++) {
        const char *key;
        const tess_json *v = tess_json_member(root, i, &key);
        if (!is_plain(key, v)) {
            return TESS_FAIL(
                TESS_UNSUPPORTED,
                "%s: %.64s: is set, and what it does is not supported: only plain LoRA "
                "of linear layers is",
                path, key);
        }
    }
    out->rank = tess_json_int(tess_json_get(root, "r"), 0);
    out->alpha = tess_json_real(tess_json_get(root, "lora_alpha"), (double)NAN);
    out->rank_stabilized = tess_json_bool(tess_json_get(root, "use_rslora"), false);
    if (out->rank < 1 || out->rank > 65536) {
        return TESS_FAIL(TESS_INVALID, "%s: r: expected 1 to 65536, found %lld", path,
                         (long long)out->rank);
    }
    return isfinite(out->alpha)
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "%s: lora_alpha: expected a number", path);
}

static tess_status load_config(const char *dir, tess_lora_config *out)
{
    tess_json_doc *doc = NULL;
    char *path = tess_format("%s/" CONFIG_FILE, dir);
    tess_status st = path ? tess_json_load(path, &doc) : TESS_NOMEM;
    st = st ? st : tess__lora_config_read(tess_json_root(doc), CONFIG_FILE, out);
    tess_json_free(doc);
    tess_free(path);
    return st;
}

/* ---- tensors to parts ---------------------------------------------------------------------- */

/* What does not fit, for one message. */
#define MAX_LISTED 1500
typedef struct misfits {
    tess_buf list;
    int64_t n_left_out;
} misfits;

static void complain(misfits *m, const char *what, const char *name, const tess_shape *found,
                     const tess_shape *expected)
{
    if (m->list.n_bytes + strlen(name) > MAX_LISTED) {
        m->n_left_out++;
        return;
    }
    tess_buf_addf(&m->list, "%s%s %s", m->list.n_bytes ? ", " : "", what, name);
    if (expected) {
        tess_buf_adds(&m->list, " (expected ");
        tess_shape_print(expected, &m->list);
        tess_buf_adds(&m->list, ", found ");
        tess_shape_print(found, &m->list);
        tess_buf_adds(&m->list, ")");
    }
}

static tess_status report(misfits *m)
{
    tess_status st = tess_buf_check(&m->list);
    if (st == TESS_OK && m->list.n_bytes > 0) {
        st = TESS_FAIL(TESS_FORMAT, WEIGHTS_FILE " does not fit the model: %s%s", m->list.data,
                       m->n_left_out > 0 ? " and more" : "");
    }
    tess_buf_deinit(&m->list);
    return st;
}

typedef struct reader {
    const tess_tensors *t;
    const tess_lora_modules *modules;
    tess_layout layout; /* of Hugging Face's names */
    tess_arena *arena;
    tess_lora_config config;
    double weight;
    misfits wrong;
} reader;

/* The first module from number *i on that has this path; NULL: none. */
static const tess_lora_module *next_module(const reader *r, const char *path, size_t n, size_t *i)
{
    for (; *i < r->modules->n; ++*i) {
        const tess_lora_module *m = &r->modules->items[*i];
        if (strlen(m->path) == n && memcmp(m->path, path, n) == 0) {
            return m;
        }
    }
    return NULL;
}

/* Of a layer that decides no vector: BERT's pooler. */
static bool is_ignored(const reader *r, const char *path, size_t n)
{
    const char *weight = tess_arena_format(r->arena, "%.*s.weight", (int)n, path);
    return weight && tess__layout_ignores(&r->layout, weight);
}

/* The module of key "base_model.model.PATH<suffix>"; NULL: not of this form. */
static const char *path_of(const char *key, const char *suffix, size_t *out_n)
{
    size_t n = strlen(key), k = strlen(suffix), p = strlen(KEY_PREFIX);
    if (n <= p + k || strncmp(key, KEY_PREFIX, p) != 0 || strcmp(key + n - k, suffix) != 0) {
        return NULL;
    }
    *out_n = n - p - k;
    return key + p;
}

static bool check_tensor(reader *r, const tess_tensor *t, tess_shape expected)
{
    if (!tess_shape_equal(&t->shape, &expected)) {
        complain(&r->wrong, "misshapen", t->name, &t->shape, &expected);
        return false;
    }
    if (!tess__floats_dtype(t->dtype)) {
        complain(&r->wrong, "no float type in", t->name, NULL, NULL);
        return false;
    }
    return true;
}

static bool check_pair(reader *r, const tess_lora_module *m, const tess_tensor *a,
                       const tess_tensor *b)
{
    const int64_t rank = a->shape.rank == 2 && a->shape.dim[0] > 0 ? a->shape.dim[0] : 1;
    bool good = check_tensor(r, a, TESS_SHAPE_OF(rank, m->n_in));
    good &= check_tensor(r, b, TESS_SHAPE_OF(m->n_theirs, rank));
    return good;
}

static tess_status add_part(const reader *r, const tess_lora_module *m, const tess_tensor *a,
                            const tess_tensor *b, tess_lora_parts *parts)
{
    TESS_TRY(tess_grow(&parts->items, &parts->cap, parts->n + 1, sizeof *parts->items));
    const int64_t rank = a->shape.dim[0];
    const double factor =
        tess__lora_factor(r->config.alpha, rank, r->config.rank_stabilized) * r->weight;
    parts->items[parts->n++] =
        (tess_lora_part){.module = *m, .rank = rank, .factor = factor, .a = a, .b = b};
    return TESS_OK;
}

/* One tensor of the file: lora_A brings its lora_B along, for all weights of ours that it is. */
static tess_status take(reader *r, const tess_tensor *t, tess_lora_parts *parts)
{
    size_t n = 0, i = 0;
    const char *path = path_of(t->name, ".lora_A.weight", &n);
    bool is_a = path != NULL;
    path = path ? path : path_of(t->name, ".lora_B.weight", &n);
    const tess_lora_module *m = path ? next_module(r, path, n, &i) : NULL;
    if (!m) {
        if (!path || !is_ignored(r, path, n)) {
            complain(&r->wrong, path ? "no such layer:" : "not a LoRA matrix:", t->name, NULL,
                     NULL);
        }
        return TESS_OK;
    }
    const char *other =
        tess_arena_format(r->arena, KEY_PREFIX "%s.lora_%c.weight", m->path, is_a ? 'B' : 'A');
    if (!other) {
        return TESS_NOMEM;
    }
    const tess_tensor *pair = tess_tensors_find(r->t, other);
    if (!pair) {
        complain(&r->wrong, "missing", other, NULL, NULL);
        return TESS_OK;
    }
    if (is_a && check_pair(r, m, t, pair)) {
        for (; m; i++, m = next_module(r, path, n, &i)) {
            TESS_TRY(add_part(r, m, t, pair, parts));
        }
    }
    return TESS_OK;
}

static tess_status take_tensors(reader *r, tess_lora_parts *parts)
{
    for (int64_t i = 0; i < tess_tensors_count(r->t); i++) {
        TESS_TRY(take(r, tess_tensors_at(r->t, i), parts));
    }
    TESS_TRY(report(&r->wrong));
    return tess_tensors_count(r->t) > 0 ? TESS_OK
                                        : TESS_FAIL(TESS_FORMAT, WEIGHTS_FILE " holds no tensors");
}

tess_status tess__lora_open(const tess_model *m, const char *dir, double weight, tess_arena *arena,
                            tess_lora_parts *parts, tess_lora_file *out)
{
    reader r = {.arena = arena, .weight = weight};
    tess_lora_modules modules = {0};
    TESS_TRY(load_config(dir, &r.config));
    char *path = tess_format("%s/" WEIGHTS_FILE, dir);
    tess_status st = path ? tess_tensors_open(path, &out->tensors) : TESS_NOMEM;
    tess_free(path);
    st = st ? st : tess__lora_list(m, TESS_LORA_OPENCLIP, arena, &modules);
    st = st ? st : tess__lora_list(m, TESS_LORA_HF, arena, &modules);
    if (st == TESS_OK) {
        r.t = out->tensors;
        r.modules = &modules;
        r.layout = tess__lora_layout(m, TESS_LORA_HF);
        const char *base = tess_tensors_metadata(r.t, BASE_KEY);
        snprintf(out->base, sizeof out->base, "%.32s", base ? base : "");
        st = take_tensors(&r, parts);
    }
    tess_buf_deinit(&r.wrong.list);
    tess_free(modules.items);
    return st;
}

void tess__lora_close(tess_lora_file *f)
{
    tess_tensors_free(f->tensors);
    *f = (tess_lora_file){0};
}

/* Rows of a matrix. */
static tess_status read_rows(const tess_tensor *t, int64_t row, int64_t n_rows, float *out)
{
    const int64_t width = t->shape.dim[1];
    const uint8_t *from = t->data + (size_t)(row * width) * tess__floats_bytes(t->dtype);
    return tess__floats_read(t->dtype, from, out, n_rows * width)
               ? TESS_OK
               : TESS_FAIL(TESS_FORMAT, "adapter: %s: holds numbers that are not finite", t->name);
}

tess_status tess__lora_read_part(const tess_lora_part *p, float *a, float *b)
{
    TESS_TRY(read_rows(p->a, 0, p->rank, a));
    return read_rows(p->b, p->module.their_row, p->module.n_rows, b);
}

/* ---- writing ------------------------------------------------------------------------------- */

static void add_setting(tess_json_writer *w, const char *key, const char *value)
{
    tess_json_key(w, key);
    tess_json_add_string(w, value);
}

static void write_targets(const tess_lora *l, tess_json_writer *w)
{
    tess_json_key(w, "target_modules");
    tess_json_begin_array(w);
    for (size_t i = 0; i < l->parts.n; i++) {
        const char *target = l->parts.items[i].module.target;
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) {
            seen = strcmp(l->parts.items[k].module.target, target) == 0;
        }
        if (!seen) {
            tess_json_add_string(w, target);
        }
    }
    tess_json_end_array(w);
}

static tess_status write_config(const tess_lora *l, const char *path)
{
    tess_buf b = {0};
    tess_json_writer w = {.buf = &b, .pretty = true};
    tess_json_begin_object(&w);
    add_setting(&w, "peft_type", "LORA");
    add_setting(&w, "base_model_name_or_path", l->o.base);
    add_setting(&w, "bias", "none");
    tess_json_key(&w, "r");
    tess_json_add_int(&w, l->o.rank);
    tess_json_key(&w, "lora_alpha");
    tess_json_add_real(&w, l->o.alpha);
    tess_json_key(&w, "lora_dropout");
    tess_json_add_real(&w, 0);
    tess_json_key(&w, "use_rslora");
    tess_json_add_bool(&w, l->o.rank_stabilized);
    tess_json_key(&w, "fan_in_fan_out");
    tess_json_add_bool(&w, false);
    tess_json_key(&w, "inference_mode");
    tess_json_add_bool(&w, true);
    tess_json_key(&w, "init_lora_weights");
    tess_json_add_bool(&w, true);
    write_targets(l, &w);
    tess_json_end_object(&w);
    tess_buf_adds(&b, "\n");
    tess_status st = tess_buf_check(&b);
    st = st ? st : tess_file_write(path, b.data, b.n_bytes);
    tess_buf_deinit(&b);
    return st;
}

/* A's rows lie together; B's block is copied out. */
static tess_status describe_part(const tess_model *m, const tess_lora_part *p, tess_arena *arena,
                                 tess_tensor out[2])
{
    float *a, *b;
    int64_t width, site_rank;
    tess__lora_site(m, p, &a, &b, &width, &site_rank);
    const size_t n = (size_t)(p->module.n_rows * p->rank);
    float *up = tess_arena_alloc(arena, n * sizeof *up);
    out[0].name = tess_arena_format(arena, KEY_PREFIX "%s.lora_A.weight", p->module.path);
    out[1].name = tess_arena_format(arena, KEY_PREFIX "%s.lora_B.weight", p->module.path);
    if (!up || !out[0].name || !out[1].name) {
        return TESS_NOMEM;
    }
    for (int64_t i = 0; i < p->module.n_rows; i++) {
        memcpy(up + i * p->rank, b + (p->module.row + i) * site_rank + p->col,
               (size_t)p->rank * sizeof *up);
    }
    out[0].dtype = out[1].dtype = "F32";
    out[0].shape = TESS_SHAPE_OF(p->rank, width);
    out[1].shape = TESS_SHAPE_OF(p->module.n_rows, p->rank);
    out[0].data = (const uint8_t *)(a + p->col * width);
    out[1].data = (const uint8_t *)up;
    out[0].n_bytes = (size_t)(p->rank * width) * sizeof *a;
    out[1].n_bytes = n * sizeof *up;
    return TESS_OK;
}

static tess_status check_trained(const tess_model *m)
{
    return m->lora && m->lora->trains
               ? TESS_OK
               : TESS_FAIL(TESS_INVALID, "the model has no adapter that was made for training");
}

tess_status tess__lora_describe(const tess_model *m, tess_model_weights *out)
{
    TESS_TRY(check_trained(m));
    const tess_lora *l = m->lora;
    out->file = WEIGHTS_FILE;
    out->base = (tess_pair){BASE_KEY, l->base};
    out->metadata = &out->base;
    out->n_metadata = 1;
    out->n = (int64_t)(2 * l->parts.n);
    out->tensors = tess_alloc_array(2 * l->parts.n, sizeof *out->tensors);
    tess_status st = out->tensors ? TESS_OK : TESS_NOMEM;
    for (size_t i = 0; st == TESS_OK && i < l->parts.n; i++) {
        st = describe_part(m, &l->parts.items[i], &out->arena, &out->tensors[2 * i]);
    }
    return st;
}

tess_status tess__lora_write_config(const tess_model *m, const char *dir)
{
    TESS_TRY(check_trained(m));
    char *config = tess_format("%s/" CONFIG_FILE, dir);
    tess_status st = config ? tess_dir_make(dir) : TESS_NOMEM;
    st = st ? st : write_config(m->lora, config);
    tess_free(config);
    return st;
}

static tess_status write_adapter(tess_model *m, const char *dir)
{
    tess_model_weights w = {0};
    char *path = tess_format("%s/" WEIGHTS_FILE, dir);
    tess_status st = path ? tess_model_fetch(m) : TESS_NOMEM;
    st = st ? st : tess__lora_write_config(m, dir);
    st = st ? st : tess__lora_describe(m, &w);
    st = st ? st : tess_tensors_save(path, w.tensors, w.n, &w.base, 1);
    tess_model_weights_deinit(&w);
    tess_free(path);
    return st;
}

/* Only what is an adapter is ever replaced. */
static tess_status check_replaceable(const char *dir)
{
    char *config = tess_format("%s/" CONFIG_FILE, dir);
    bool good = config && (!tess_path_exists(dir) || tess_path_exists(config));
    tess_status st = !config ? TESS_NOMEM
                     : good  ? TESS_OK
                             : TESS_FAIL(TESS_INVALID, "it exists and is no adapter directory");
    tess_free(config);
    return st;
}

tess_status tess_model_save_adapter(tess_model *m, const char *dir)
{
    char *fresh = tess_format("%s.saving", dir);
    tess_status st = fresh ? check_replaceable(dir) : TESS_NOMEM;
    st = st ? st : tess_dir_remove(fresh);
    st = st ? st : write_adapter(m, fresh);
    st = st ? st : tess_dir_replace(fresh, dir);
    tess_free(fresh);
    return st ? tess_error_prefix(st, "saving adapter %s", dir) : TESS_OK;
}

/* ---- going on with a trained adapter ------------------------------------------------------- */

/* The file's part for one of ours. */
static const tess_lora_part *match(const tess_lora_parts *from, const tess_lora_part *p)
{
    for (size_t i = 0; i < from->n; i++) {
        if (strcmp(from->items[i].module.path, p->module.path) == 0) {
            return &from->items[i];
        }
    }
    return NULL;
}

static tess_status copy_part(const tess_model *m, const tess_lora_part *p,
                             const tess_lora_part *from)
{
    float *a, *b;
    int64_t width, site_rank;
    if (!from || from->rank != p->rank) {
        return TESS_FAIL(TESS_FORMAT, WEIGHTS_FILE ": %s: expected rank %lld, found %lld",
                         p->module.path, (long long)p->rank, (long long)(from ? from->rank : 0));
    }
    tess__lora_site(m, p, &a, &b, &width, &site_rank);
    float *up = tess_alloc_array((size_t)(p->module.n_rows * p->rank), sizeof *up);
    tess_status st = up ? tess__lora_read_part(from, a + p->col * width, up) : TESS_NOMEM;
    for (int64_t i = 0; st == TESS_OK && i < p->module.n_rows; i++) {
        memcpy(b + (p->module.row + i) * site_rank + p->col, up + i * p->rank,
               (size_t)p->rank * sizeof *up);
    }
    tess_free(up);
    return st;
}

tess_status tess_model_read_adapter(tess_model *m, const char *dir)
{
    TESS_TRY(check_trained(m));
    tess_arena arena = {0};
    tess_lora_parts parts = {0};
    tess_lora_file file = {0};
    tess_status st = tess__lora_open(m, dir, 1, &arena, &parts, &file);
    if (st == TESS_OK && parts.n != m->lora->parts.n) {
        st = TESS_FAIL(TESS_FORMAT, WEIGHTS_FILE ": expected %zu adapted layers, found %zu",
                       m->lora->parts.n, parts.n);
    }
    for (size_t i = 0; st == TESS_OK && i < m->lora->parts.n; i++) {
        const tess_lora_part *p = &m->lora->parts.items[i];
        st = copy_part(m, p, match(&parts, p));
    }
    tess__lora_close(&file);
    tess_free(parts.items);
    tess_arena_deinit(&arena);
    return st;
}
