/* SPDX-License-Identifier: Apache-2.0 */
/* What lies in another program's model directory, of any bytes.  The first byte says which file:
 * OpenCLIP's config, Hugging Face's config, its preprocessor's, an index of shards, or weights read
 * through a layout.  A config that is taken and can be written reads back. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fusion/family.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

typedef tess_status read_fn(const tess_json *, const char *, tess_arena *, tess_model_config *);
typedef tess_status write_fn(const tess_model_config *, tess_buf *);

static void check(tess_status st)
{
    if (st && !*tess_error()) {
        abort();
    }
}

static tess_status read_text(read_fn *read, const void *text, size_t n_bytes, tess_arena *arena,
                             tess_model_config *c)
{
    tess_json_doc *doc = NULL;
    TESS_TRY(tess_json_parse(text, n_bytes, "fuzz", &doc));
    tess_status st = read(tess_json_root(doc), "fuzz", arena, c);
    tess_json_free(doc);
    return st;
}

static tess_status read_openclip(const tess_json *root, const char *path, tess_arena *arena,
                                 tess_model_config *out)
{
    return tess__openclip_read(root, NULL, path, arena, out);
}

static void fuzz_config(read_fn *read, write_fn *write, const void *data, size_t n_bytes)
{
    tess_arena arena = {0};
    tess_model_config c = {.vision = {.image_size = 16, .pool_type = "tok"}}, again = c;
    tess_buf text = {0};
    tess_status st = read_text(read, data, n_bytes, &arena, &c);
    check(st);
    if (st == TESS_OK && write && write(&c, &text) == TESS_OK &&
        read_text(read, text.data, text.n_bytes, &arena, &again)) {
        abort();
    }
    tess_buf_deinit(&text);
    tess_arena_deinit(&arena);
}

static void fuzz_index(const uint8_t *data, size_t n_bytes)
{
    char path[64];
    tess_tensors *t = NULL;
    int fd = memfd_create("index", 0);
    if (fd < 0 || write(fd, data, n_bytes) != (ssize_t)n_bytes) {
        abort();
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    check(tess_tensors_open_index(path, &t));
    tess_tensors_free(t);
    close(fd);
}

static void fuzz_layout(const uint8_t *data, size_t n_bytes)
{
    tess_tensors *t = NULL;
    tess_store *s = tess_store_new();
    tess_layout l = tess__layout_hf_siglip();
    tess_layout_types types = {0};
    if (!s || tess_tensors_parse((tess_bytes){data, n_bytes}, "fuzz", &t)) {
        tess_store_free(s);
        return;
    }
    tess_status st =
        tess_store_add(s, "param", "visual.attn_pool.attn.kv_proj_weight", TESS_SHAPE_OF(4, 2));
    st = st ? st : tess_store_add(s, "param", "visual.attn_pool.query", TESS_SHAPE_OF(1, 2));
    st = st ? st
            : tess_store_add(s, "param", "transformer.resblocks.0.attn.in_proj_bias",
                             TESS_SHAPE_OF(6));
    st = st ? st : tess_store_add(s, "param", "logit_scale", tess_shape_make(0, NULL));
    st = st ? st : tess_store_allocate(s);
    check(st ? st : tess__layout_load(&l, s, "param", t, &types));
    tess__layout_types_deinit(&types);
    tess_tensors_free(t);
    tess_store_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (n_bytes == 0) {
        return 0;
    }
    const uint8_t *rest = data + 1;
    switch (data[0] % 5) {
    case 0:
        fuzz_config(read_openclip, tess__openclip_write, rest, n_bytes - 1);
        break;
    case 1:
        fuzz_config(tess__hf_read, tess__hf_write, rest, n_bytes - 1);
        break;
    case 2:
        fuzz_config(tess__hf_read_preprocess, NULL, rest, n_bytes - 1);
        break;
    case 3:
        fuzz_index(rest, n_bytes - 1);
        break;
    default:
        fuzz_layout(rest, n_bytes - 1);
    }
    return 0;
}
