/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's preprocess_cfg, in and out.
 *
 * What is written is canonical: every key, OpenCLIP's order, shortest numbers.  A model's
 * fingerprint hashes that text, so two configs that mean the same pixels hash the same however
 * they were spelled.
 */
#include "tessera/vision.h"

#include <math.h>
#include <string.h>

static const char *const interpolations[] = {"bicubic", "bilinear"};
static const char *const resize_modes[] = {"shortest", "longest", "squash"};

tess_preprocess tess_preprocess_default(void)
{
    return (tess_preprocess){
        .width = 224,
        .height = 224,
        .interpolation = TESS_BICUBIC,
        .resize_mode = TESS_RESIZE_SHORTEST,
        .mean = {0.48145466, 0.4578275, 0.40821073},
        .std = {0.26862954, 0.26130258, 0.27577711},
    };
}

/* What the JSON holds, before it is looked at more closely. */
typedef struct raw {
    const tess_json *size;
    char *mode, *interpolation, *resize_mode;
    double mean[3], std[3], fill[3];
} raw;

static const tess_field fields[] = {
    {"size", TESS_FIELD_VALUE, offsetof(raw, size), 0, 0},
    {"mode", TESS_FIELD_STRING, offsetof(raw, mode), 0, 0},
    {"mean", TESS_FIELD_REALS3, offsetof(raw, mean), 0, 0},
    {"std", TESS_FIELD_REALS3, offsetof(raw, std), 0, 0},
    {"interpolation", TESS_FIELD_STRING, offsetof(raw, interpolation), 0, 0},
    {"resize_mode", TESS_FIELD_STRING, offsetof(raw, resize_mode), 0, 0},
    {"fill_color", TESS_FIELD_REALS3, offsetof(raw, fill), 0, 0},
};

static tess_status read_size(const tess_json *v, const char *name, tess_preprocess *out)
{
    enum { MAX_SIZE = 8192 };
    bool pair = tess_json_kind_of(v) == TESS_JSON_ARRAY && tess_json_count(v) == 2;
    int64_t h = tess_json_int(pair ? tess_json_at(v, 0) : v, 0);
    int64_t w = pair ? tess_json_int(tess_json_at(v, 1), 0) : h;
    if (h < 1 || w < 1 || h > MAX_SIZE || w > MAX_SIZE) {
        return TESS_FAIL(TESS_INVALID, "%s: size: expected 1..%d or [height, width]", name,
                         MAX_SIZE);
    }
    out->height = (int32_t)h;
    out->width = (int32_t)w;
    return TESS_OK;
}

static tess_status read_name(const char *key, const char *found, const char *const *names,
                             int64_t n_names, const char *name, int *out)
{
    for (int64_t i = 0; i < n_names; i++) {
        if (strcmp(found, names[i]) == 0) {
            *out = (int)i;
            return TESS_OK;
        }
    }
    tess_buf known = {0};
    for (int64_t i = 0; i < n_names; i++) {
        tess_buf_addf(&known, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    tess_status st = TESS_FAIL(TESS_INVALID, "%s: %s: expected one of {%s}, found \"%s\"", name,
                               key, known.data ? known.data : "", found);
    tess_buf_deinit(&known);
    return st;
}

static tess_status read_names(const raw *r, const char *name, tess_preprocess *out)
{
    int i = (int)out->interpolation;
    if (r->mode && strcmp(r->mode, "RGB") != 0) {
        return TESS_FAIL(TESS_INVALID, "%s: mode: expected \"RGB\", found \"%s\"", name, r->mode);
    }
    if (r->interpolation && strcmp(r->interpolation, "random") == 0) {
        i = TESS_BICUBIC;
    } else if (r->interpolation) {
        TESS_TRY(read_name("interpolation", r->interpolation, interpolations,
                           TESS_COUNT(interpolations), name, &i));
    }
    out->interpolation = (tess_interpolation)i;
    i = (int)out->resize_mode;
    if (r->resize_mode) {
        TESS_TRY(read_name("resize_mode", r->resize_mode, resize_modes, TESS_COUNT(resize_modes),
                           name, &i));
    }
    out->resize_mode = (tess_resize_mode)i;
    return TESS_OK;
}

static tess_status read_numbers(const raw *r, const char *name, tess_preprocess *out)
{
    for (int c = 0; c < 3; c++) {
        /* judged as f32: that is what the arithmetic uses */
        if (!isfinite((float)r->mean[c]) || !isfinite((float)r->std[c]) ||
            !((float)r->std[c] > 0)) {
            return TESS_FAIL(TESS_INVALID,
                             "%s: mean, std: expected numbers, and std above 0, found "
                             "mean %g and std %g",
                             name, r->mean[c], r->std[c]);
        }
        if (!(r->fill[c] >= 0 && r->fill[c] <= 255 && r->fill[c] == floor(r->fill[c]))) {
            return TESS_FAIL(TESS_INVALID,
                             "%s: fill_color: expected whole numbers 0..255, found %g", name,
                             r->fill[c]);
        }
        out->mean[c] = r->mean[c];
        out->std[c] = r->std[c];
        out->fill[c] = (uint8_t)r->fill[c];
    }
    return TESS_OK;
}

static tess_status read_raw(const raw *r, const char *name, tess_preprocess *out)
{
    if (r->size) {
        TESS_TRY(read_size(r->size, name, out));
    }
    TESS_TRY(read_names(r, name, out));
    return read_numbers(r, name, out);
}

tess_status tess_preprocess_read(const tess_json *obj, const char *name, tess_preprocess *out)
{
    *out = tess_preprocess_default();
    if (!obj) {
        return TESS_OK;
    }
    tess_arena arena = {0};
    raw r = {0};
    memcpy(r.mean, out->mean, sizeof r.mean);
    memcpy(r.std, out->std, sizeof r.std);
    tess_status st =
        tess_json_read_fields(obj, name, fields, (size_t)TESS_COUNT(fields), &arena, &r);
    if (st == TESS_OK) {
        st = read_raw(&r, name, out);
    }
    tess_arena_deinit(&arena);
    return st;
}

/* One number when all are equal, as OpenCLIP writes it. */
static void write_numbers(tess_json_writer *w, const char *key, const int64_t *v, int n)
{
    bool same = true;
    for (int i = 1; i < n; i++) {
        same = same && v[i] == v[0];
    }
    tess_json_key(w, key);
    if (same) {
        tess_json_add_int(w, v[0]);
        return;
    }
    tess_json_begin_array(w);
    for (int i = 0; i < n; i++) {
        tess_json_add_int(w, v[i]);
    }
    tess_json_end_array(w);
}

static void write_reals(tess_json_writer *w, const char *key, const double v[3])
{
    tess_json_key(w, key);
    tess_json_begin_array(w);
    for (int c = 0; c < 3; c++) {
        tess_json_add_real(w, v[c]);
    }
    tess_json_end_array(w);
}

static void write_name(tess_json_writer *w, const char *key, const char *value)
{
    tess_json_key(w, key);
    tess_json_add_string(w, value);
}

void tess_preprocess_write(const tess_preprocess *p, tess_buf *out)
{
    tess_json_writer w = {.buf = out};
    tess_json_begin_object(&w);
    write_numbers(&w, "size", (int64_t[]){p->height, p->width}, 2);
    write_name(&w, "mode", "RGB");
    write_reals(&w, "mean", p->mean);
    write_reals(&w, "std", p->std);
    write_name(&w, "interpolation", interpolations[p->interpolation]);
    write_name(&w, "resize_mode", resize_modes[p->resize_mode]);
    write_numbers(&w, "fill_color", (int64_t[]){p->fill[0], p->fill[1], p->fill[2]}, 3);
    tess_json_end_object(&w);
}
