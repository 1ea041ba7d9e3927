/* SPDX-License-Identifier: Apache-2.0 */
/* From bytes to a picture: tells the format by its first bytes, applies limits, turns it upright.
 *
 * A file's name says nothing: half of a web crawl's ".jpg" are something else.  One table knows
 * the three formats that are decoded and the ones that are only recognised, so that a refusal
 * names what was found.
 */
#include "vision/decode.h"

#include <string.h>
#include <strings.h>

#include "vision/exif.h"

enum { DEFAULT_MAX_PIXELS = 178956970, DEFAULT_MAX_SCANS = 100 };
#define DEFAULT_MAX_BYTES ((size_t)1 << 30)

static const struct decoder {
    const char *name;
    tess__decode_fn *decode;
    tess__probe_fn *probe;
} decoders[TESS_PICTURE_FORMATS] = {
    [TESS_PICTURE_JPEG] = {"JPEG", tess__jpeg_decode, tess__jpeg_probe},
    [TESS_PICTURE_PNG] = {"PNG", tess__png_decode, tess__png_probe},
    [TESS_PICTURE_WEBP] = {"WebP", tess__webp_decode, tess__webp_probe},
};

/* First bytes at `offset`; a name without decoder is recognised to be refused. */
static const struct magic {
    uint8_t offset, n_bytes;
    char bytes[12];
    const char *name;
    int format; /* tess_picture_format, or -1 */
} magics[] = {
    {0, 3, "\xff\xd8\xff", "JPEG", TESS_PICTURE_JPEG},
    {0, 8, "\x89PNG\r\n\x1a\n", "PNG", TESS_PICTURE_PNG},
    {8, 4, "WEBP", "WebP", TESS_PICTURE_WEBP},
    {0, 4, "GIF8", "GIF", -1},
    {4, 8, "ftypavif", "AVIF", -1},
    {4, 8, "ftypavis", "AVIF", -1},
    {4, 7, "ftypmif", "HEIF", -1},
    {4, 6, "ftyphe", "HEIC", -1},
    {4, 4, "ftyp", "MP4 or another ISO media file", -1},
    {0, 4, "II*\0", "TIFF", -1},
    {0, 4, "MM\0*", "TIFF", -1},
    {0, 4, "\0\0\1\0", "ICO", -1},
    {0, 4, "8BPS", "Photoshop", -1},
    {0, 8, "\0\0\0\x0cjP  ", "JPEG 2000", -1},
    {0, 4, "\xff\x4f\xff\x51", "JPEG 2000", -1},
    {0, 8, "\0\0\0\x0cJXL ", "JPEG XL", -1},
    {0, 2, "\xff\x0a", "JPEG XL", -1},
    {0, 4, "%PDF", "PDF", -1},
    {0, 4, "PK\3\4", "ZIP", -1},
    {0, 2, "\x1f\x8b", "gzip", -1},
    {0, 4, "RIFF", "RIFF, but not WebP", -1},
    {0, 4, "\x93NUM", "NumPy", -1},
    {0, 2, "BM", "BMP", -1},
};

/* Text that servers send in place of pictures; looked for at the start of the text. */
static const struct markup {
    const char *start, *name;
} markups[] = {
    {"<!doctype html", "HTML"}, {"<html", "HTML"}, {"<head", "HTML"}, {"<svg", "SVG"},
    {"<?xml", "XML or SVG"},    {"<", "markup"},   {"{", "JSON"},
};

const char *tess_picture_format_name(tess_picture_format format)
{
    return (unsigned)format < TESS_PICTURE_FORMATS ? decoders[format].name : "unknown";
}

void tess_picture_deinit(tess_picture *picture)
{
    if (picture) {
        tess_free(picture->rgb);
        *picture = (tess_picture){0};
    }
}

static const struct magic *find_magic(tess_bytes b)
{
    for (int64_t i = 0; i < TESS_COUNT(magics); i++) {
        const struct magic *m = &magics[i];
        if (b.n_bytes >= (size_t)m->offset + m->n_bytes &&
            memcmp(b.data + m->offset, m->bytes, m->n_bytes) == 0) {
            return m;
        }
    }
    return NULL;
}

static const char *find_markup(tess_bytes b)
{
    size_t at = b.n_bytes >= 3 && memcmp(b.data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (at < b.n_bytes && memchr(" \t\r\n", b.data[at], 4)) {
        at++;
    }
    for (int64_t i = 0; i < TESS_COUNT(markups); i++) {
        size_t n = strlen(markups[i].start);
        if (b.n_bytes - at >= n &&
            strncasecmp((const char *)b.data + at, markups[i].start, n) == 0) {
            return markups[i].name;
        }
    }
    return NULL;
}

static tess_status sniff(tess_bytes b, tess_picture_format *out)
{
    if (b.n_bytes == 0) {
        return TESS_FAIL(TESS_FORMAT, "expected a JPEG, PNG or WebP picture, found 0 bytes");
    }
    const struct magic *m = find_magic(b);
    if (m && m->format >= 0) {
        *out = (tess_picture_format)m->format;
        return TESS_OK;
    }
    const char *name = m ? m->name : find_markup(b);
    if (name) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "expected a JPEG, PNG or WebP picture, found %s; convert it first", name);
    }
    char hex[3 * 8 + 1] = "";
    for (size_t i = 0; i < 8 && i < b.n_bytes; i++) {
        snprintf(hex + 3 * i, 4, " %02x", b.data[i]);
    }
    return TESS_FAIL(TESS_FORMAT,
                     "expected a JPEG, PNG or WebP picture, found %zu bytes that begin with%s",
                     b.n_bytes, hex);
}

static tess_decode_limits limits_or_default(const tess_decode_limits *given)
{
    static const uint8_t white[3] = {255, 255, 255};
    tess_decode_limits l = given ? *given : (tess_decode_limits){0};
    l.max_pixels = l.max_pixels > 0 ? l.max_pixels : DEFAULT_MAX_PIXELS;
    l.max_bytes = l.max_bytes > 0 ? l.max_bytes : DEFAULT_MAX_BYTES;
    l.max_scans = l.max_scans > 0 ? l.max_scans : DEFAULT_MAX_SCANS;
    l.background = l.background ? l.background : white;
    return l;
}

tess_status tess__picture_reserve(tess_picture *out, const tess_decode_limits *limits,
                                  uint32_t width, uint32_t height, size_t pixel_bytes)
{
    uint64_t n_pixels = (uint64_t)width * height;
    if (width == 0 || height == 0 || width > INT32_MAX / 4 || height > INT32_MAX / 4) {
        return TESS_FAIL(TESS_FORMAT, "a picture cannot be %u x %u pixels", width, height);
    }
    if (n_pixels > (uint64_t)limits->max_pixels) {
        return TESS_FAIL(TESS_FORMAT,
                         "the picture has %u x %u pixels, over the limit of %lld; "
                         "make it smaller or raise the limit",
                         width, height, (long long)limits->max_pixels);
    }
    if (n_pixels > limits->max_bytes / pixel_bytes) {
        return TESS_FAIL(TESS_FORMAT,
                         "a picture of %u x %u pixels needs more than the limit of %zu bytes; "
                         "make it smaller or raise the limit",
                         width, height, limits->max_bytes);
    }
    size_t n_bytes = 3 * (size_t)n_pixels;
    if (out->cap_bytes < n_bytes) {
        tess_picture_deinit(out);
        out->rgb = tess_alloc(n_bytes);
        if (!out->rgb) {
            return TESS_NOMEM;
        }
        out->cap_bytes = n_bytes;
    }
    out->width = (int32_t)width;
    out->height = (int32_t)height;
    return TESS_OK;
}

void tess__picture_blend(const uint8_t *rgba, size_t n_pixels, const uint8_t background[3],
                         uint8_t *rgb)
{
    for (size_t i = 0; i < n_pixels; i++, rgba += 4, rgb += 3) {
        uint32_t alpha = rgba[3];
        if (alpha == 255 || alpha == 0) { /* most pixels, and nothing to compute */
            memcpy(rgb, alpha ? rgba : background, 3);
            continue;
        }
        for (int c = 0; c < 3; c++) {
            /* x / 255 to the nearest, exact for all products of bytes */
            uint32_t x = rgba[c] * alpha + background[c] * (255 - alpha) + 128;
            rgb[c] = (uint8_t)((x + (x >> 8)) >> 8);
        }
    }
}

tess_status tess_picture_decode(const void *bytes, size_t n_bytes, const tess_decode_limits *limits,
                                tess_picture *out)
{
    tess_bytes src = {bytes, n_bytes};
    tess_decode_limits l = limits_or_default(limits);
    tess_picture_format format = TESS_PICTURE_JPEG;
    int32_t orientation = 1;
    out->width = out->height = 0;
    TESS_TRY(sniff(src, &format));
    tess_status st = decoders[format].decode(src, &l, out, &orientation);
    if (st == TESS_OK) {
        st = tess__exif_turn(out, orientation);
    }
    if (st != TESS_OK) {
        out->width = out->height = 0;
        return tess_error_prefix(st, "%s", decoders[format].name);
    }
    return TESS_OK;
}

tess_status tess_picture_probe(const void *bytes, size_t n_bytes, tess_picture_info *out)
{
    tess_bytes src = {bytes, n_bytes};
    *out = (tess_picture_info){.orientation = 1};
    TESS_TRY(sniff(src, &out->format));
    tess_status st = decoders[out->format].probe(src, out);
    if (st != TESS_OK) {
        return tess_error_prefix(st, "%s", decoders[out->format].name);
    }
    if (tess__exif_swaps(out->orientation)) {
        int32_t w = out->width;
        out->width = out->height;
        out->height = w;
    }
    return TESS_OK;
}
