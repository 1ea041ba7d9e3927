/* SPDX-License-Identifier: Apache-2.0 */
/* EXIF orientation: a bounded reader for one tag, and the eight turns.
 *
 * Only IFD0 is read and no offset but the directory's own is followed, so there is no loop to fall
 * into.  The turns are one table: where a row of the result starts in the stored picture and how
 * far one step along the row and one row down move.
 */
#include "vision/exif.h"

#include <string.h>

typedef struct tiff {
    tess_bytes bytes;
    bool big_endian;
} tiff;

/* Unsigned number of n bytes (2 or 4); the caller has checked the range. */
static uint32_t number_at(const tiff *t, size_t at, size_t n)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | t->bytes.data[at + (t->big_endian ? i : n - 1 - i)];
    }
    return v;
}

static bool tiff_open(tess_bytes b, tiff *out)
{
    if (b.n_bytes >= 6 && memcmp(b.data, "Exif\0", 5) == 0) {
        b.data += 6;
        b.n_bytes -= 6;
    }
    if (b.n_bytes < 8) {
        return false;
    }
    *out = (tiff){.bytes = b, .big_endian = b.data[0] == 'M'};
    return (memcmp(b.data, "MM", 2) == 0 || memcmp(b.data, "II", 2) == 0) &&
           number_at(out, 2, 2) == 42;
}

int32_t tess__exif_orientation(tess_bytes exif)
{
    enum { ENTRY_BYTES = 12, TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };
    tiff t;
    if (!tiff_open(exif, &t)) {
        return 1;
    }
    size_t at = number_at(&t, 4, 4);
    if (at > t.bytes.n_bytes - 2) {
        return 1;
    }
    size_t n_entries = number_at(&t, at, 2);
    at += 2;
    for (size_t i = 0; i < n_entries && t.bytes.n_bytes - at >= ENTRY_BYTES; i++) {
        if (number_at(&t, at, 2) == TAG_ORIENTATION) {
            uint32_t type = number_at(&t, at + 2, 2);
            uint32_t v = type == TYPE_SHORT  ? number_at(&t, at + 8, 2)
                         : type == TYPE_LONG ? number_at(&t, at + 8, 4)
                                             : 1;
            return v >= 1 && v <= 8 ? (int32_t)v : 1;
        }
        at += ENTRY_BYTES;
    }
    return 1;
}

/* Which stored corner the upright picture's top left is, and whether rows run down the columns. */
static const struct turn {
    bool right, bottom, swap;
} turns[9] = {
    [2] = {.right = true},
    [3] = {.right = true, .bottom = true},
    [4] = {.bottom = true},
    [5] = {.swap = true},
    [6] = {.bottom = true, .swap = true},
    [7] = {.right = true, .bottom = true, .swap = true},
    [8] = {.right = true, .swap = true},
};

static void turn_pixels(const uint8_t *in, int64_t w, int64_t h, struct turn t, uint8_t *out)
{
    int64_t step_x = t.right ? -3 : 3, step_y = (t.bottom ? -3 : 3) * w;
    const uint8_t *corner = in + (t.right ? 3 * (w - 1) : 0) + (t.bottom ? 3 * w * (h - 1) : 0);
    int64_t along = t.swap ? step_y : step_x, down = t.swap ? step_x : step_y;
    int64_t out_w = t.swap ? h : w, out_h = t.swap ? w : h;
    for (int64_t y = 0; y < out_h; y++) {
        const uint8_t *p = corner + y * down;
        for (int64_t x = 0; x < out_w; x++, p += along, out += 3) {
            out[0] = p[0];
            out[1] = p[1];
            out[2] = p[2];
        }
    }
}

tess_status tess__exif_turn(tess_picture *picture, int32_t orientation)
{
    if (orientation <= 1 || orientation > 8) {
        return TESS_OK;
    }
    size_t n_bytes = 3 * (size_t)picture->width * (size_t)picture->height;
    uint8_t *turned = tess_alloc(n_bytes);
    if (!turned) {
        return TESS_NOMEM;
    }
    struct turn t = turns[orientation];
    turn_pixels(picture->rgb, picture->width, picture->height, t, turned);
    tess_free(picture->rgb);
    picture->rgb = turned;
    picture->cap_bytes = n_bytes;
    if (t.swap) {
        int32_t w = picture->width;
        picture->width = picture->height;
        picture->height = w;
    }
    return TESS_OK;
}
