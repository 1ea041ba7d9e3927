/* SPDX-License-Identifier: Apache-2.0 */
/* Hugging Face's preprocessor_config.json for pictures that all become one square: shortest side
 * and centre crop (CLIP), or both sides (SigLIP). */
#include "fusion/config_keys.h"
#include "fusion/family.h"

#include <math.h>
#include <string.h>

typedef struct pixel_keys {
    bool resize, crop, rescale, normalize;
    double factor, mean[3], std[3];
    int64_t resample;
    const tess_json *size, *crop_size;
} pixel_keys;

#define AT(field) offsetof(pixel_keys, field)
static const tess_field fields[] = {
    {"do_resize", TESS_FIELD_BOOL, AT(resize), 0, 0},
    {"do_center_crop", TESS_FIELD_BOOL, AT(crop), 0, 0},
    {"do_rescale", TESS_FIELD_BOOL, AT(rescale), 0, 0},
    {"do_normalize", TESS_FIELD_BOOL, AT(normalize), 0, 0},
    {"rescale_factor", TESS_FIELD_REAL, AT(factor), 0, 0},
    {"image_mean", TESS_FIELD_REALS3, AT(mean), 0, 0},
    {"image_std", TESS_FIELD_REALS3, AT(std), 0, 0},
    {"resample", TESS_FIELD_INT, AT(resample), 0, 5},
    {"size", TESS_FIELD_VALUE, AT(size), 0, 0},
    {"crop_size", TESS_FIELD_VALUE, AT(crop_size), 0, 0},
};
#undef AT
static const tess_inert_key inert[] = {
    {"_valid_processor_keys", NULL},
    {"auto_map", NULL},
    {"data_format", NULL},
    {"default_to_square", NULL},
    {"device", NULL},
    {"disable_grouping", NULL},
    {"do_convert_rgb", "true|null"},
    {"do_pad", "false|null"},
    {"feature_extractor_type", NULL},
    {"image_processor_type", NULL},
    {"image_seq_length", NULL},
    {"input_data_format", NULL},
    {"pad_size", NULL},
    {"processor_class", NULL},
    {"return_tensors", NULL},
    {"use_square_size", NULL},
};

/* n, or {"height": n, "width": n}; 0: something else. */
static int64_t square_side(const tess_json *v)
{
    int64_t h = tess_json_int(tess_json_get(v, "height"), 0);
    int64_t w = tess_json_int(tess_json_get(v, "width"), 0);
    return tess_json_kind_of(v) == TESS_JSON_INT ? tess_json_int(v, 0) : h == w ? h : 0;
}

static tess_status read_sizes(const pixel_keys *k, const char *path, int64_t side, bool crops,
                              tess_preprocess *out)
{
    int64_t shortest = tess_json_int(tess_json_get(k->size, "shortest_edge"), 0);
    bool number = tess_json_kind_of(k->size) == TESS_JSON_INT;
    bool square = shortest == 0 && !(number && crops);
    int64_t size = shortest ? shortest : k->size ? square_side(k->size) : side;
    int64_t cropped = k->crop && k->crop_size ? square_side(k->crop_size) : size;
    if (size != side || cropped != side || (!square && !k->crop)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: size and crop_size: expected pictures of %lld x %lld, as the image "
                         "tower takes them, resized to that side and cropped at the centre",
                         path, (long long)side, (long long)side);
    }
    out->resize_mode = square ? TESS_RESIZE_SQUASH : TESS_RESIZE_SHORTEST;
    out->width = out->height = (int32_t)side;
    return TESS_OK;
}

tess_status tess__hf_read_preprocess(const tess_json *root, const char *path, tess_arena *arena,
                                     tess_model_config *c)
{
    tess_preprocess *p = &c->preprocess;
    *p = tess_preprocess_default();
    bool crops = strcmp(c->vision.pool_type, "tok") == 0; /* CLIPImageProcessor's default */
    pixel_keys k = {.resize = true,
                    .crop = crops,
                    .rescale = true,
                    .normalize = true,
                    .factor = 1.0 / 255,
                    .resample = 3};
    for (int i = 0; i < 3; i++) {
        k.mean[i] = crops ? p->mean[i] : 0.5;
        k.std[i] = crops ? p->std[i] : 0.5;
    }
    TESS_TRY(tess__config_read(root, path, TESS_CONFIG_TABLE(fields, inert), arena, &k));
    if (!k.resize || !k.rescale || !(fabs(k.factor * 255 - 1) < 1e-6) ||
        (k.resample != 3 && k.resample != 2)) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "%s: expected do_resize, do_rescale by 1/255, and resample 3 (bicubic) or "
                         "2 (bilinear)",
                         path);
    }
    p->interpolation = k.resample == 3 ? TESS_BICUBIC : TESS_BILINEAR;
    for (int i = 0; i < 3; i++) {
        p->mean[i] = k.normalize ? k.mean[i] : 0;
        p->std[i] = k.normalize ? k.std[i] : 1;
        if (!isfinite((float)p->mean[i]) || !((float)p->std[i] > 0) ||
            !isfinite((float)p->std[i])) {
            return TESS_FAIL(TESS_INVALID,
                             "%s: image_mean, image_std: expected numbers, and std "
                             "above 0",
                             path);
        }
    }
    return read_sizes(&k, path, c->vision.image_size, crops, p);
}
