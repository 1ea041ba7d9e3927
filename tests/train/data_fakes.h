/* SPDX-License-Identifier: Apache-2.0 */
/* Data sets for tests: a tar writer, and hooks whose pictures and tokens can be computed by hand.
 *
 * A fake picture is the text "PIC <n>"; its pixels are the four bytes of n again and again; a view
 * of it mixes in its key.  A caption's tokens are its bytes; "void" has none, "moji..." is
 * mojibake.
 */
#ifndef TESSERA_TESTS_DATA_FAKES_H
#define TESSERA_TESTS_DATA_FAKES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tessera/data.h"
#include "train/run_dir.h"

static void tar_add(tess_buf *tar, const char *name, const void *data, size_t n_bytes)
{
    char header[512] = {0}, zeros[512] = {0};
    unsigned sum = 0;
    snprintf(header, 100, "%s", name);
    memcpy(header + 100, "0000644\0000000000\0000000000", 24);
    snprintf(header + 124, 12, "%011o", (unsigned)n_bytes);
    memset(header + 148, ' ', 8);
    header[156] = '0';
    memcpy(header + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++) {
        sum += (unsigned char)header[i];
    }
    snprintf(header + 148, 8, "%06o", sum & 0777777);
    tess_buf_add(tar, header, 512);
    tess_buf_add(tar, data, n_bytes);
    tess_buf_add(tar, zeros, (512 - n_bytes % 512) % 512);
}

__attribute__((unused)) static void tar_adds(tess_buf *tar, const char *name, const char *text)
{
    tar_add(tar, name, text, strlen(text));
}

/* Ends the archive and writes it to the run directory. */
__attribute__((unused)) static void tar_write(tess_buf *tar, const char *name)
{
    char zeros[1024] = {0};
    tess_buf_add(tar, zeros, sizeof zeros);
    assert_int_equal(tess_file_write(run_path(name), tar->data, tar->n_bytes), TESS_OK);
    tess_buf_deinit(tar);
}

__attribute__((unused)) static void write_text(const char *name, const char *text)
{
    assert_int_equal(tess_file_write(run_path(name), text, strlen(text)), TESS_OK);
}

static tess_status fake_decode(void *ctx, void *scratch, tess_bytes encoded, tess_picture *out,
                               tess_bad *out_bad)
{
    char text[32] = "";
    uint32_t n;
    (void)ctx, (void)scratch;
    memcpy(text, encoded.data ? encoded.data : (const uint8_t *)"",
           encoded.n_bytes < 31 ? encoded.n_bytes : 31);
    if (sscanf(text, "PIC %u", &n) != 1) {
        *out_bad = TESS_BAD_DECODE;
        (void)TESS_FAIL(TESS_FORMAT, "no fake picture");
        return TESS_OK;
    }
    TESS_TRY(tess_grow(&out->rgb, &out->cap_bytes, 12, 1));
    out->width = out->height = 2;
    memcpy(out->rgb, &n, 4);
    return TESS_OK;
}

static tess_status fake_resize(void *ctx, void *scratch, const tess_picture *in, int64_t size,
                               uint8_t *out)
{
    (void)ctx, (void)scratch;
    for (int64_t i = 0; i < size * size * 3; i++) {
        out[i] = in->rgb[i % 4];
    }
    return TESS_OK;
}

static tess_status fake_view(void *ctx, void *scratch, const tess_picture *in, tess_view_key key,
                             int64_t size, uint8_t *out)
{
    uint64_t mix = tess_hash64(&key, sizeof key, 0);
    TESS_TRY(fake_resize(ctx, scratch, in, size, out));
    for (int64_t i = 4; i < size * size * 3; i++) {
        out[i] ^= (uint8_t)(mix >> i % 8 * 8);
    }
    return TESS_OK;
}

static void fake_check(void *ctx, const char *text, size_t n_bytes, tess_bad *out_bad)
{
    (void)ctx;
    if (n_bytes >= 4 && memcmp(text, "moji", 4) == 0) {
        *out_bad = TESS_BAD_CAPTION_MOJIBAKE;
    }
}

static tess_status fake_tokenize(void *ctx, void *scratch, const char *text, size_t n_bytes,
                                 int64_t max_tokens, int32_t *out_ids, int64_t *out_n_ids)
{
    (void)ctx, (void)scratch;
    int64_t n = (int64_t)n_bytes < max_tokens ? (int64_t)n_bytes : max_tokens;
    for (int64_t i = 0; i < n; i++) {
        out_ids[i] = (unsigned char)text[i];
    }
    *out_n_ids = strcmp(text, "void") == 0 ? 0 : n;
    return TESS_OK;
}

__attribute__((unused)) static const tess_hooks fake_hooks = {
    .decode = fake_decode,
    .resize = fake_resize,
    .view = fake_view,
    .check = fake_check,
    .tokenize = fake_tokenize,
};

__attribute__((unused)) static tess_dataset *open_data(const char *path, tess_dataset_options o)
{
    tess_dataset *ds = NULL;
    o.hooks = &fake_hooks;
    if (tess_dataset_open(path, &o, &ds) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return ds;
}

#endif
