/* SPDX-License-Identifier: Apache-2.0 */
/* PNG through libpng: the one door to libpng.
 *
 * As in jpeg.c, the functions that libpng may jump out of own nothing; the owner releases.
 * Ancillary chunks (colour profiles, texts) are skipped unread, which also takes away the places
 * where a small file unpacks into a large text; the EXIF chunk is found by our own walk, because it
 * may stand behind the pixels.  Gamma is ignored, as Pillow does.
 */
#include "vision/decode.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "vision/exif.h"

typedef struct job {
    png_structp png;
    png_infop info;
    jmp_buf jump;
    tess_status status; /* of what caused the jump, its message set */
    tess_bytes left;    /* not yet read */
    bool has_alpha;
    int n_passes;
    uint8_t *rgba; /* with alpha: one row, or the whole picture when interlaced; else NULL */
} job;

_Noreturn static void stop(job *j, tess_status status)
{
    j->status = status;
    longjmp(j->jump, 1);
}

_Noreturn static void on_error(png_structp png, png_const_charp text)
{
    bool no_memory = strcasecmp(text, "out of memory") == 0;
    stop(png_get_error_ptr(png), TESS_FAIL(no_memory ? TESS_NOMEM : TESS_FORMAT, "%s", text));
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png, (void)text;
}

static void read_bytes(png_structp png, png_bytep out, size_t n_bytes)
{
    job *j = png_get_io_ptr(png);
    if (n_bytes > j->left.n_bytes) {
        stop(j, TESS_FAIL(TESS_FORMAT, "the file is cut short"));
    }
    memcpy(out, j->left.data, n_bytes);
    j->left.data += n_bytes;
    j->left.n_bytes -= n_bytes;
}

/* ---- the steps that may jump -------------------------------------------------------------- */

static tess_status open_header(job *j, tess_bytes src)
{
    j->left = src;
    if (setjmp(j->jump)) {
        return j->status;
    }
    j->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, j, on_error, on_warning);
    j->info = j->png ? png_create_info_struct(j->png) : NULL;
    if (!j->info) {
        return TESS_FAIL(TESS_NOMEM, "out of memory before decoding");
    }
    png_set_read_fn(j->png, j, read_bytes);
#ifdef PNG_IGNORE_ADLER32
    /* 5 % of the time, for bytes that each chunk's CRC has covered already */
    png_set_option(j->png, PNG_IGNORE_ADLER32, PNG_OPTION_ON);
#endif
    png_set_user_limits(j->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_keep_unknown_chunks(j->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_read_info(j->png, j->info);
    return TESS_OK;
}

/* Every kind of PNG to 8-bit RGB or RGBA. */
static tess_status choose_output(job *j)
{
    if (setjmp(j->jump)) {
        return j->status;
    }
    png_set_expand(j->png);
    png_set_strip_16(j->png);
    png_set_gray_to_rgb(j->png);
    j->n_passes = png_set_interlace_handling(j->png);
    png_read_update_info(j->png, j->info);
    j->has_alpha = png_get_channels(j->png, j->info) == 4;
    return TESS_OK;
}

static tess_status read_pixels(job *j, const uint8_t background[3], tess_picture *out)
{
    size_t w = (size_t)out->width, h = (size_t)out->height;
    bool whole = j->n_passes > 1;
    if (setjmp(j->jump)) {
        return j->status;
    }
    for (int pass = 0; pass < j->n_passes; pass++) {
        for (size_t y = 0; y < h; y++) {
            uint8_t *rgb = out->rgb + 3 * w * y;
            if (!j->has_alpha) {
                png_read_row(j->png, rgb, NULL);
                continue;
            }
            uint8_t *rgba = j->rgba + (whole ? 4 * w * y : 0);
            png_read_row(j->png, rgba, NULL);
            if (pass == j->n_passes - 1) {
                tess__picture_blend(rgba, w, background, rgb);
            }
        }
    }
    png_read_end(j->png, NULL);
    return TESS_OK;
}

static void close_job(job *j)
{
    png_destroy_read_struct(&j->png, &j->info, NULL);
    tess_free(j->rgba);
    tess_free(j);
}

/* ---- the owner ---------------------------------------------------------------------------- */

static uint32_t big_endian_32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Walks the chunks (length, type, data, CRC) to the EXIF block. */
static int32_t find_orientation(tess_bytes src)
{
    enum { HEAD = 8, TAIL = 4, SIGNATURE = 8 };
    for (size_t at = SIGNATURE; src.n_bytes - at >= HEAD;) {
        size_t n = big_endian_32(src.data + at);
        if (n > src.n_bytes - at - HEAD) {
            break;
        }
        if (memcmp(src.data + at + 4, "eXIf", 4) == 0) {
            return tess__exif_orientation((tess_bytes){src.data + at + HEAD, n});
        }
        at += HEAD + n;
        at += src.n_bytes - at < TAIL ? src.n_bytes - at : TAIL;
    }
    return 1;
}

static tess_status prepare(job *j, const tess_decode_limits *limits, tess_picture *out)
{
    uint32_t w = png_get_image_width(j->png, j->info);
    uint32_t h = png_get_image_height(j->png, j->info);
    bool interlaced = png_get_interlace_type(j->png, j->info) != PNG_INTERLACE_NONE;
    TESS_TRY(tess__picture_reserve(out, limits, w, h, interlaced ? 7 : 3));
    TESS_TRY(choose_output(j));
    if (j->has_alpha) {
        j->rgba = tess_alloc_array(4 * (size_t)w, interlaced ? h : 1);
        return j->rgba ? TESS_OK : TESS_NOMEM;
    }
    return TESS_OK;
}

tess_status tess__png_decode(tess_bytes src, const tess_decode_limits *limits, tess_picture *out,
                             int32_t *out_orientation)
{
    job *j = tess_alloc(sizeof *j);
    if (!j) {
        return TESS_NOMEM;
    }
    tess_status st;
    TESS_TRY_GOTO(st, open_header(j, src), done);
    TESS_TRY_GOTO(st, prepare(j, limits, out), done);
    TESS_TRY_GOTO(st, read_pixels(j, limits->background, out), done);
    *out_orientation = find_orientation(src);
done:
    close_job(j);
    return st;
}

tess_status tess__png_probe(tess_bytes src, tess_picture_info *out)
{
    job *j = tess_alloc(sizeof *j);
    if (!j) {
        return TESS_NOMEM;
    }
    tess_status st = open_header(j, src);
    if (st == TESS_OK) {
        out->width = (int32_t)png_get_image_width(j->png, j->info);
        out->height = (int32_t)png_get_image_height(j->png, j->info);
        out->orientation = find_orientation(src);
    }
    close_job(j);
    return st;
}
