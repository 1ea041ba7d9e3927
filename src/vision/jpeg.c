/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG through libjpeg-turbo: the one door to libjpeg.
 *
 * libjpeg reports errors by longjmp.  Each of the three functions that set a jump (open_header,
 * read_pixels, close) holds no memory of its own: everything lives in the job or in the caller's
 * picture, and the owner (tess__jpeg_decode) releases it after the jump has landed.
 *
 * What departs from the obvious:
 *   - the source never pretends that a file goes on: at its end the usual memory source feeds a
 *     made-up end marker, which gives a grey lower half;
 *   - warnings that mean lost pixels are errors (the table below); the rest is ignored, as the web
 *     is full of harmless ones;
 *   - scans are counted in the progress hook, since only there a progressive file can be stopped.
 */
#include "vision/decode.h"

#include <limits.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "vision/exif.h"

typedef struct job {
    struct jpeg_decompress_struct cinfo; /* first: hooks get a pointer to it */
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    tess_status status; /* of what caused the jump, its message set */
    const tess_decode_limits *limits;
    uint8_t *ink; /* one row of CMYK; NULL for other pictures */
} job;

/* ---- hooks -------------------------------------------------------------------------------- */

static const int lossy_warnings[] = {
    JWRN_HIT_MARKER, JWRN_HUFF_BAD_CODE,     JWRN_ARITH_BAD_CODE,
    JWRN_JPEG_EOF,   JWRN_BOGUS_PROGRESSION, JWRN_MUST_RESYNC,
};

static const int unsupported_errors[] = {
    JERR_BAD_PRECISION,
    JERR_SOF_UNSUPPORTED,
    JERR_ARITH_NOTIMPL,
    JERR_CONVERSION_NOTIMPL,
};

static bool is_among(int code, const int *codes, int64_t n_codes)
{
    for (int64_t i = 0; i < n_codes; i++) {
        if (codes[i] == code) {
            return true;
        }
    }
    return false;
}

_Noreturn static void stop(job *j, tess_status status)
{
    j->status = status;
    longjmp(j->jump, 1);
}

_Noreturn static void on_error(j_common_ptr cinfo)
{
    job *j = (job *)cinfo;
    int code = cinfo->err->msg_code;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    if (code == JERR_NO_BACKING_STORE) {
        stop(j, TESS_FAIL(TESS_FORMAT,
                          "decoding needs more than the limit of %zu bytes; "
                          "make the picture smaller or raise the limit",
                          j->limits->max_bytes));
    }
    if (code == JERR_OUT_OF_MEMORY) {
        stop(j, TESS_FAIL(TESS_NOMEM, "out of memory while decoding"));
    }
    bool unsupported = is_among(code, unsupported_errors, TESS_COUNT(unsupported_errors));
    stop(j, TESS_FAIL(unsupported ? TESS_UNSUPPORTED : TESS_FORMAT, "%s", text));
}

static void on_message(j_common_ptr cinfo, int level)
{
    if (level < 0 && is_among(cinfo->err->msg_code, lossy_warnings, TESS_COUNT(lossy_warnings))) {
        on_error(cinfo);
    }
}

static void print_nothing(j_common_ptr cinfo)
{
    (void)cinfo;
}

static void on_progress(j_common_ptr cinfo)
{
    job *j = (job *)cinfo;
    if (j->cinfo.input_scan_number > j->limits->max_scans) {
        stop(j, TESS_FAIL(TESS_FORMAT, "more than the limit of %d scans", j->limits->max_scans));
    }
}

static void source_begin(j_decompress_ptr cinfo)
{
    (void)cinfo;
}

static boolean source_end(j_decompress_ptr cinfo)
{
    stop((job *)cinfo, TESS_FAIL(TESS_FORMAT, "the file is cut short"));
}

static void source_skip(j_decompress_ptr cinfo, long n_bytes)
{
    struct jpeg_source_mgr *s = cinfo->src;
    if (n_bytes <= 0) {
        return;
    }
    if ((size_t)n_bytes > s->bytes_in_buffer) {
        source_end(cinfo);
    }
    s->next_input_byte += n_bytes;
    s->bytes_in_buffer -= (size_t)n_bytes;
}

/* ---- the three steps that may jump -------------------------------------------------------- */

/* Reads up to the first scan and picks the output's colours, as Pillow does: ink stays ink. */
static tess_status open_header(job *j, tess_bytes src)
{
    struct jpeg_decompress_struct *c = &j->cinfo;
    c->err = jpeg_std_error(&j->errors);
    j->errors.error_exit = on_error;
    j->errors.emit_message = on_message;
    j->errors.output_message = print_nothing;
    if (setjmp(j->jump)) {
        return j->status;
    }
    jpeg_create_decompress(c);
    j->source = (struct jpeg_source_mgr){
        .next_input_byte = src.data,
        .bytes_in_buffer = src.n_bytes,
        .init_source = source_begin,
        .fill_input_buffer = source_end,
        .skip_input_data = source_skip,
        .resync_to_restart = jpeg_resync_to_restart,
        .term_source = source_begin,
    };
    c->src = &j->source;
    j->progress.progress_monitor = on_progress;
    c->progress = &j->progress;
    jpeg_save_markers(c, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(c, TRUE);
    c->out_color_space = c->num_components == 4 ? JCS_CMYK : JCS_RGB;
    return TESS_OK;
}

/* Ink to light, with inverted ink: each of C, M, Y scaled by K and by 255.  The roundings are
 * Pillow's: nearest for the product, then the difference. */
static void ink_to_rgb(const uint8_t *ink, int64_t n_pixels, uint8_t *rgb)
{
    for (int64_t i = 0; i < n_pixels; i++, ink += 4, rgb += 3) {
        uint32_t light = ink[3];
        for (int c = 0; c < 3; c++) {
            uint32_t x = (255u - ink[c]) * light + 128;
            rgb[c] = (uint8_t)(light - ((x + (x >> 8)) >> 8));
        }
    }
}

static tess_status read_pixels(job *j, tess_picture *out)
{
    enum { ROWS = 8 };
    struct jpeg_decompress_struct *c = &j->cinfo;
    size_t row_bytes = 3 * (size_t)out->width;
    if (setjmp(j->jump)) {
        return j->status;
    }
    jpeg_start_decompress(c);
    while (c->output_scanline < c->output_height) {
        uint8_t *rows[ROWS];
        uint32_t y = c->output_scanline, n = c->output_height - y;
        n = j->ink ? 1 : n < ROWS ? n : ROWS;
        for (uint32_t i = 0; i < n; i++) {
            rows[i] = j->ink ? j->ink : out->rgb + (y + i) * row_bytes;
        }
        jpeg_read_scanlines(c, rows, n);
        if (j->ink) {
            ink_to_rgb(j->ink, out->width, out->rgb + y * row_bytes);
        }
    }
    jpeg_finish_decompress(c);
    return TESS_OK;
}

/* Destroying does not jump, but a half-made object is told apart by its memory manager only. */
static void close_job(job *j)
{
    if (j->cinfo.mem) {
        jpeg_destroy_decompress(&j->cinfo);
    }
    tess_free(j->ink);
    tess_free(j);
}

/* ---- the owner ---------------------------------------------------------------------------- */

static int32_t find_orientation(const struct jpeg_decompress_struct *c)
{
    for (jpeg_saved_marker_ptr m = c->marker_list; m; m = m->next) {
        if (m->data_length >= 5 && memcmp(m->data, "Exif", 5) == 0) {
            return tess__exif_orientation((tess_bytes){m->data, m->data_length});
        }
    }
    return 1;
}

/* The largest of 1/1, 1/2, 1/4, 1/8 whose shorter side still has `side` pixels. */
static uint32_t pick_scale(uint32_t width, uint32_t height, int32_t side)
{
    uint32_t shorter = width < height ? width : height, scale = 1;
    while (side > 0 && scale < 8 && shorter / (2 * scale) >= (uint32_t)side) {
        scale *= 2;
    }
    return scale;
}

/* Room for the pixels and for what libjpeg keeps: a progressive file's coefficients, 2 bytes each,
 * go through libjpeg's own accounting. */
static tess_status prepare(job *j, tess_picture *out)
{
    struct jpeg_decompress_struct *c = &j->cinfo;
    const tess_decode_limits *l = j->limits;
    tess_picture stored = {0};
    if (c->num_components != 1 && c->num_components != 3 && c->num_components != 4) {
        return TESS_FAIL(TESS_UNSUPPORTED, "pictures of %d components are not offered",
                         c->num_components);
    }
    c->scale_num = 1;
    c->scale_denom = pick_scale(c->image_width, c->image_height, l->allow_scaled);
    if ((int64_t)c->image_width * c->image_height > l->max_pixels) {
        return tess__picture_reserve(&stored, l, c->image_width, c->image_height, 3);
    }
    uint32_t scale = c->scale_denom;
    TESS_TRY(tess__picture_reserve(out, l, (c->image_width + scale - 1) / scale,
                                   (c->image_height + scale - 1) / scale, 3));
    size_t left = l->max_bytes - 3 * (size_t)out->width * (size_t)out->height;
    c->mem->max_memory_to_use = left > LONG_MAX ? LONG_MAX
                                : left > 0      ? (long)left
                                                : 1; /* 0: none */
    if (c->out_color_space == JCS_CMYK) {
        j->ink = tess_alloc_array((size_t)out->width, 4);
        return j->ink ? TESS_OK : TESS_NOMEM;
    }
    return TESS_OK;
}

tess_status tess__jpeg_decode(tess_bytes src, const tess_decode_limits *limits, tess_picture *out,
                              int32_t *out_orientation)
{
    job *j = tess_alloc(sizeof *j);
    if (!j) {
        return TESS_NOMEM;
    }
    j->limits = limits;
    tess_status st;
    TESS_TRY_GOTO(st, open_header(j, src), done);
    *out_orientation = find_orientation(&j->cinfo);
    TESS_TRY_GOTO(st, prepare(j, out), done);
    st = read_pixels(j, out);
done:
    close_job(j);
    return st;
}

tess_status tess__jpeg_probe(tess_bytes src, tess_picture_info *out)
{
    static const tess_decode_limits no_limits = {.max_scans = INT32_MAX, .max_bytes = SIZE_MAX};
    job *j = tess_alloc(sizeof *j);
    if (!j) {
        return TESS_NOMEM;
    }
    j->limits = &no_limits;
    tess_status st = open_header(j, src);
    if (st == TESS_OK) {
        out->width = (int32_t)j->cinfo.image_width;
        out->height = (int32_t)j->cinfo.image_height;
        out->orientation = find_orientation(&j->cinfo);
    }
    close_job(j);
    return st;
}
