/* SPDX-License-Identifier: Apache-2.0 */
/* vision: a picture file becomes pixels, pixels become numbers.
 *
 * One code path for training, indexing and serving: the same bytes give the same pixels
 * everywhere.  The reference is Pillow 9.4 (decoding, resizing) and torchvision / OpenCLIP (sizes
 * and crops); tests/vision holds every function to their results bit for bit, and the deviations
 * are listed here.
 */
#ifndef TESSERA_VISION_H
#define TESSERA_VISION_H

#include "tessera/base.h"

/* ---- pictures ----------------------------------------------------------------------------- */

/* 8-bit RGB, rows packed.  Zeroed is empty.  A picture may be decoded into again and again: its
 * memory is reused when it is large enough. */
typedef struct tess_picture {
    int32_t width, height;
    uint8_t *rgb;     /* (height,width,3) u8 */
    size_t cap_bytes; /* what rgb holds */
} tess_picture;
void tess_picture_deinit(tess_picture *picture);

typedef enum tess_picture_format {
    TESS_PICTURE_JPEG,
    TESS_PICTURE_PNG,
    TESS_PICTURE_WEBP,
    TESS_PICTURE_FORMATS,
} tess_picture_format;
const char *tess_picture_format_name(tess_picture_format format); /* "JPEG", "PNG", "WebP" */

/* What one decode may cost.  Zero means the default named beside each. */
typedef struct tess_decode_limits {
    int64_t max_pixels; /* 178,956,970: where Pillow raises its "decompression bomb" error */
    size_t max_bytes;   /* 1 GiB for the pixels and the library's own buffers together */
    int32_t max_scans;  /* 100 JPEG scans: encoders write about 10, libjpeg-turbo's fuzzers stop
                           at 100, and a file of 80,000 tiny scans costs minutes */
    /* What shows through transparency: 3 bytes R, G, B; NULL: white. */
    const uint8_t *background;
    /* 0: always decode in full.  Else a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as its
     * shorter side keeps at least this many pixels.  Faster; the pixels are no longer Pillow's. */
    int32_t allow_scaled;
} tess_decode_limits;

/* Decodes a JPEG, PNG or WebP, told apart by their first bytes; `limits` may be NULL.
 *   - EXIF orientation is applied (as ImageOps.exif_transpose); XMP's is not read.
 *   - CMYK and YCCK JPEGs hold inverted ink, as Adobe writes and Pillow assumes.
 *   - 16-bit PNGs keep the high byte.  Pillow does so for colour, but clips 16-bit grey at 255,
 *     which leaves a white picture; we do not follow it there.
 *   - Alpha and tRNS are blended onto the background: (c a + b (255 - a)) / 255, rounded.  Pillow's
 *     convert("RGB") shows the colours that hide under transparency instead.
 *   - Of an animation, the first frame.
 *   - A file cut short or with damaged image data is an error, never a picture with a grey part.
 * Errors: TESS_FORMAT for bytes at fault, limits included; TESS_UNSUPPORTED for kinds of pictures
 * that are not offered, by name; TESS_NOMEM only when memory itself gives out.  On failure `out`
 * keeps its memory but has width and height 0. */
TESS_MUST_USE tess_status tess_picture_decode(const void *bytes, size_t n_bytes,
                                              const tess_decode_limits *limits, tess_picture *out);

typedef struct tess_picture_info {
    tess_picture_format format;
    int32_t width, height; /* as tess_picture_decode would give them: after orientation */
    int32_t orientation;   /* EXIF, 1..8 */
} tess_picture_info;
/* Reads the header only: no pixel is decoded, no limit applies. */
TESS_MUST_USE tess_status tess_picture_probe(const void *bytes, size_t n_bytes,
                                             tess_picture_info *out);

/* ---- resizing ----------------------------------------------------------------------------- */

typedef enum tess_interpolation {
    TESS_BICUBIC,
    TESS_BILINEAR,
    TESS_INTERPOLATIONS,
} tess_interpolation;

/* Scratch memory and the last filter tables, reused from call to call.  One for each thread. */
typedef struct tess_resizer tess_resizer;
tess_resizer *tess_resizer_new(void); /* NULL: no memory */
void tess_resizer_free(tess_resizer *resizer);

/* out (height,width,3) u8 = Image.resize((width, height), interpolation) of Pillow, bit for bit:
 * antialiased, horizontal then vertical, 22-bit coefficients, 8 bits between the passes. */
TESS_MUST_USE tess_status tess_picture_resize(tess_resizer *resizer, const tess_picture *in,
                                              tess_interpolation interpolation, int32_t width,
                                              int32_t height, uint8_t *out);

/* ---- preprocessing ------------------------------------------------------------------------ */

typedef enum tess_resize_mode {
    TESS_RESIZE_SHORTEST, /* shorter side to the size, centre crop */
    TESS_RESIZE_LONGEST,  /* longer side to the size, the rest filled */
    TESS_RESIZE_SQUASH,   /* both sides to the size */
    TESS_RESIZE_MODES,
} tess_resize_mode;

/* OpenCLIP's preprocess_cfg. */
typedef struct tess_preprocess {
    int32_t width, height;
    tess_interpolation interpolation;
    tess_resize_mode resize_mode;
    uint8_t fill[3];
    double mean[3], std[3];
} tess_preprocess;

/* 224 x 224, bicubic, shortest, black fill, OpenAI's mean and deviation. */
tess_preprocess tess_preprocess_default(void);
/* Reads size (int or [height, width]), mode ("RGB"), mean, std, interpolation (bicubic | bilinear;
 * random is bicubic, as OpenCLIP takes it outside training), resize_mode, fill_color.  Absent keys
 * keep the default; `obj` NULL gives the default.  Unknown keys and values: TESS_INVALID. */
TESS_MUST_USE tess_status tess_preprocess_read(const tess_json *obj, const char *name,
                                               tess_preprocess *out);
/* Appends the canonical JSON: every key, fixed order, no spaces.  Equal text means equal pixels, so
 * this is what a model's fingerprint hashes; it reads back to an equal struct. */
void tess_preprocess_write(const tess_preprocess *p, tess_buf *out);

/* Resize and crop or fill: out (p->height,p->width,3) u8, as OpenCLIP's evaluation transform, with
 * torchvision's and timm's rounding of sizes and offsets.  Only what the crop shows is computed.
 * Converts to RGB before resizing (OpenCLIP resizes first, which for palette pictures means
 * nearest-neighbour, and for CMYK a blend of inks). */
TESS_MUST_USE tess_status tess_transform_apply(tess_resizer *resizer, const tess_preprocess *p,
                                               const tess_picture *in, uint8_t *out);

/* in (height,width,3) u8 -> out (3,height,width) f32 = (in / 255 - mean) / std in f32 arithmetic,
 * each operation rounded as torchvision's ToTensor and Normalize do. */
void tess_transform_normalize(const tess_preprocess *p, const uint8_t *in, float *out);

/* ---- augmentation ------------------------------------------------------------------------- */

/* Zero in a field switches that step off; all zero is tess_transform_apply. */
typedef struct tess_augment {
    double scale_min, scale_max; /* random resized crop: part of the area; OpenCLIP: .9, 1 */
    double ratio_min, ratio_max; /* its aspect; zeros: 3/4, 4/3 */
    bool flip;                   /* horizontally, half of the time */
    int32_t shift;               /* moved by up to this many pixels, the rim filled */
    double brightness, contrast; /* factors drawn from [max(0, 1 - x), 1 + x] */
} tess_augment;
/* Refuses parts outside 0..1, reversed ranges, negative values. */
TESS_MUST_USE tess_status tess_augment_check(const tess_augment *a);

/* out (p->height,p->width,3) u8.  A pure function of picture, options, seed and sample: whichever
 * thread or rank runs it.  torchvision's RandomResizedCrop algorithm with our random numbers. */
TESS_MUST_USE tess_status tess_augment_apply(tess_resizer *resizer, const tess_preprocess *p,
                                             const tess_augment *a, uint64_t seed, uint64_t sample,
                                             const tess_picture *in, uint8_t *out);
/* Whether it moves pixels and leaves their values alone: no brightness, no contrast. */
bool tess_augment_is_geometric(const tess_augment *a);

/* ---- pictures that a device resizes -------------------------------------------------------- */

/* A batch of decoded pictures with tables that say how each is resized, cropped, flipped and
 * shifted: the inputs of tess_resize_patches (tessera/tensor.h), which makes of them what
 * tess_augment_apply and tess_patchify make, pixels equal bit for bit.  Only what the crop reads is
 * copied.  A picture that the batch has no more room for, or with more than 16 times the pixels
 * that it becomes, is resized here and lies in the batch finished; the result is the same. */
typedef struct tess_raw_pictures tess_raw_pictures;
/* n empty places for pictures that become (size,size).  TESS_INVALID: more than can be addressed.
 */
TESS_MUST_USE tess_status tess_raw_pictures_new(int64_t n, int32_t size, tess_raw_pictures **out);
void tess_raw_pictures_free(tess_raw_pictures *r);
/* All places are empty again; an empty place becomes a picture of the fill colour. */
void tess_raw_pictures_clear(tess_raw_pictures *r);

typedef struct tess_raw_view {
    const tess_preprocess *preprocess; /* its width and height are the batch's size */
    const tess_augment *augment;       /* is geometric; NULL: without chance */
    uint64_t seed, sample;
} tess_raw_view;
/* To a place that is empty.  Threads may set different places at once.  Fails as
 * tess_augment_apply does. */
TESS_MUST_USE tess_status tess_raw_pictures_set(tess_raw_pictures *r, int64_t place,
                                                tess_resizer *resizer, const tess_raw_view *view,
                                                const tess_picture *in);

/* TESS_INVALID: they are for another number of pictures, or another size. */
TESS_MUST_USE tess_status tess_raw_pictures_copy(tess_raw_pictures *to,
                                                 const tess_raw_pictures *from);

/* Borrowed.  Of `bytes` and `taps` the first n are set; max is what n pictures of the size may
 * take, a function of both. */
typedef struct tess_raw_memory {
    int64_t n;
    int32_t size;
    const int32_t *places; /* (n,8) */
    const uint8_t *bytes;
    size_t n_bytes, max_bytes;
    const int32_t *taps;
    size_t n_taps, max_taps;
} tess_raw_memory;
tess_raw_memory tess_raw_pictures_get(const tess_raw_pictures *r);

#endif
