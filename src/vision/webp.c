/* SPDX-License-Identifier: Apache-2.0 */
/* WebP through libwebp and libwebpdemux: the one door to both.
 *
 * Still pictures and animations go the same way: the demuxer finds the first frame, which is
 * decoded into its place on a transparent canvas.  The animation decoder is not used, as it would
 * keep two canvases for frames that are never asked for.
 */
#include "vision/decode.h"

#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "vision/exif.h"

static const char *const status_texts[] = {
    [VP8_STATUS_INVALID_PARAM] = "the picture's header makes no sense",
    [VP8_STATUS_BITSTREAM_ERROR] = "the picture's data are damaged",
    [VP8_STATUS_UNSUPPORTED_FEATURE] = "the picture uses an unknown feature",
    [VP8_STATUS_SUSPENDED] = "the file is cut short",
    [VP8_STATUS_NOT_ENOUGH_DATA] = "the file is cut short",
};

static tess_status fail_webp(VP8StatusCode code)
{
    if (code == VP8_STATUS_OUT_OF_MEMORY) {
        return TESS_FAIL(TESS_NOMEM, "out of memory while decoding");
    }
    const char *text = (int64_t)code < TESS_COUNT(status_texts) ? status_texts[code] : NULL;
    return TESS_FAIL(TESS_FORMAT, "%s", text ? text : "the picture's data are damaged");
}

static tess_status open_demuxer(tess_bytes src, WebPDemuxer **out)
{
    WebPData data = {src.data, src.n_bytes};
    WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
    *out = WebPDemuxPartial(&data, &state);
    if (state == WEBP_DEMUX_DONE && *out) {
        return TESS_OK;
    }
    WebPDemuxDelete(*out);
    *out = NULL;
    return state == WEBP_DEMUX_PARSE_ERROR ? TESS_FAIL(TESS_FORMAT, "the file's chunks are damaged")
                                           : TESS_FAIL(TESS_FORMAT, "the file is cut short");
}

static int32_t find_orientation(const WebPDemuxer *demuxer)
{
    WebPChunkIterator chunk;
    int32_t orientation = 1;
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk)) {
        orientation = tess__exif_orientation((tess_bytes){chunk.chunk.bytes, chunk.chunk.size});
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    return orientation;
}

/* Decodes one frame to rows of `stride` bytes at `pixels`, RGBA or RGB. */
static tess_status decode_frame(const WebPData *frame, bool rgba, uint8_t *pixels, size_t n_bytes,
                                size_t stride)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config)) {
        return TESS_FAIL(TESS_UNSUPPORTED, "libwebp is older than the headers it was built with");
    }
    config.output.colorspace = rgba ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA = (WebPRGBABuffer){.rgba = pixels, .stride = (int)stride, .size = n_bytes};
    VP8StatusCode code = WebPDecode(frame->bytes, frame->size, &config);
    return code == VP8_STATUS_OK ? TESS_OK : fail_webp(code);
}

static tess_status decode_with_alpha(const WebPIterator *it, const uint8_t background[3],
                                     tess_picture *out)
{
    size_t w = (size_t)out->width, h = (size_t)out->height;
    size_t start = 4 * (w * (size_t)it->y_offset + (size_t)it->x_offset);
    uint8_t *rgba = tess_alloc_array(4 * w, h);
    if (!rgba) {
        return TESS_NOMEM;
    }
    tess_status st = decode_frame(&it->fragment, true, rgba + start, 4 * w * h - start, 4 * w);
    if (st == TESS_OK) {
        tess__picture_blend(rgba, w * h, background, out->rgb);
    }
    tess_free(rgba);
    return st;
}

/* The demuxer has checked that the frame lies on the canvas; the frame's own header may still
 * disagree with its place, which would write outside it. */
static tess_status check_frame(const WebPIterator *it, const tess_picture *canvas)
{
    WebPBitstreamFeatures f;
    VP8StatusCode code = WebPGetFeatures(it->fragment.bytes, it->fragment.size, &f);
    if (code != VP8_STATUS_OK) {
        return fail_webp(code);
    }
    if (f.width != it->width || f.height != it->height || it->x_offset > canvas->width - f.width ||
        it->y_offset > canvas->height - f.height) {
        return TESS_FAIL(TESS_FORMAT, "the first frame does not fit its place on the canvas");
    }
    return TESS_OK;
}

static tess_status decode_first(const WebPDemuxer *demuxer, const tess_decode_limits *limits,
                                tess_picture *out)
{
    enum { PIXEL_BYTES = 3 + 4 + 4 }; /* ours, the RGBA canvas, libwebp's own at most */
    WebPIterator it;
    TESS_TRY(tess__picture_reserve(out, limits, WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH),
                                   WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT), PIXEL_BYTES));
    if (!WebPDemuxGetFrame(demuxer, 1, &it)) {
        return TESS_FAIL(TESS_FORMAT, "the file holds no frame");
    }
    bool partial = it.width != out->width || it.height != out->height;
    size_t row_bytes = 3 * (size_t)out->width;
    tess_status st = check_frame(&it, out);
    if (st == TESS_OK) {
        st = it.has_alpha || partial ? decode_with_alpha(&it, limits->background, out)
                                     : decode_frame(&it.fragment, false, out->rgb,
                                                    row_bytes * (size_t)out->height, row_bytes);
    }
    WebPDemuxReleaseIterator(&it);
    return st;
}

tess_status tess__webp_decode(tess_bytes src, const tess_decode_limits *limits, tess_picture *out,
                              int32_t *out_orientation)
{
    WebPDemuxer *demuxer;
    TESS_TRY(open_demuxer(src, &demuxer));
    *out_orientation = find_orientation(demuxer);
    tess_status st = decode_first(demuxer, limits, out);
    WebPDemuxDelete(demuxer);
    return st;
}

tess_status tess__webp_probe(tess_bytes src, tess_picture_info *out)
{
    WebPDemuxer *demuxer;
    TESS_TRY(open_demuxer(src, &demuxer));
    out->width = (int32_t)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    out->height = (int32_t)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    out->orientation = find_orientation(demuxer);
    WebPDemuxDelete(demuxer);
    return TESS_OK;
}
