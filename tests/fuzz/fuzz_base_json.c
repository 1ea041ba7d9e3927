/* SPDX-License-Identifier: Apache-2.0 */
/* JSON of any bytes: what is read must be written, and what was written must read back the same. */
#include <stdlib.h>
#include <string.h>

#include "tessera/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void write_value(const tess_json *v, bool pretty, tess_buf *out)
{
    tess_json_writer w = {.buf = out, .pretty = pretty};
    tess_json_add_value(&w, v);
}

/* Reads `text` and writes it again. */
static void rewrite(const tess_buf *text, tess_buf *out)
{
    tess_json_doc *doc = NULL;
    if (tess_json_parse(text->data, text->n_bytes, "written", &doc) != TESS_OK) {
        abort();
    }
    write_value(tess_json_root(doc), false, out);
    tess_json_free(doc);
}

static void read_config(const tess_json *root)
{
    struct {
        int64_t i;
        double r, v[3];
        bool b;
        char *s;
        const tess_json *o;
    } out = {0};
    const tess_field fields[] = {
        {"i", TESS_FIELD_INT, (size_t)((char *)&out.i - (char *)&out), -5, 5},
        {"r", TESS_FIELD_REAL, (size_t)((char *)&out.r - (char *)&out), 0, 0},
        {"v", TESS_FIELD_REALS3, (size_t)((char *)&out.v - (char *)&out), 0, 0},
        {"b", TESS_FIELD_BOOL, (size_t)((char *)&out.b - (char *)&out), 0, 0},
        {"s", TESS_FIELD_STRING, (size_t)((char *)&out.s - (char *)&out), 0, 0},
        {"o", TESS_FIELD_OBJECT, (size_t)((char *)&out.o - (char *)&out), 0, 0},
    };
    tess_arena arena = {0};
    tess_status st =
        tess_json_read_fields(root, "fuzz", fields, (size_t)TESS_COUNT(fields), &arena, &out);
    if (st == TESS_OK && (out.i < -5 || out.i > 5)) {
        abort();
    }
    tess_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    tess_json_doc *doc = NULL;
    if (tess_json_parse((const char *)data, n_bytes, "fuzz", &doc) != TESS_OK) {
        return 0;
    }
    tess_buf first = {0}, second = {0}, pretty = {0}, third = {0};
    read_config(tess_json_root(doc));
    write_value(tess_json_root(doc), false, &first);
    write_value(tess_json_root(doc), true, &pretty);
    tess_json_free(doc);
    rewrite(&first, &second);
    rewrite(&pretty, &third);
    if (strcmp(first.data, second.data) != 0 || strcmp(first.data, third.data) != 0) {
        abort();
    }
    tess_buf_deinit(&first);
    tess_buf_deinit(&second);
    tess_buf_deinit(&pretty);
    tess_buf_deinit(&third);
    return 0;
}
