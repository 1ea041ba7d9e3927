/* SPDX-License-Identifier: Apache-2.0 */
/* What does not fit, in one message: a checkpoint of another model misses hundreds of names, and
 * the first few say which model it is. */
#include "tensor/misfits.h"

#include <string.h>

#define MAX_LISTED      1500 /* bytes */
#define MAX_LISTED_NAME 300

void tess__misfits_add(tess_misfits *m, const char *what, const char *name)
{
    size_t n = strlen(name);
    m->n++;
    n = n < MAX_LISTED_NAME ? n : MAX_LISTED_NAME;
    if (m->list.n_bytes + n > MAX_LISTED) {
        m->n_left_out++;
        return;
    }
    tess_buf_addf(&m->list, "%s%s %.*s", m->list.n_bytes ? ", " : "", what, (int)n, name);
}

static bool is_transposed(const tess_shape *a, const tess_shape *b)
{
    return a->rank == 2 && b->rank == 2 && a->dim[0] == b->dim[1] && a->dim[1] == b->dim[0];
}

void tess__misfits_add_shape(tess_misfits *m, const char *name, const tess_shape *found,
                             const tess_shape *expected)
{
    tess_buf text = {0};
    tess_buf_addf(&text, "%s (expected ", name);
    tess_shape_print(expected, &text);
    tess_buf_adds(&text, ", found ");
    tess_shape_print(found, &text);
    tess_buf_adds(&text, ")");
    tess__misfits_add(m, is_transposed(found, expected) ? "transposed" : "misshapen",
                      text.data ? text.data : name);
    tess_buf_deinit(&text);
}

void tess__misfits_add_type(tess_misfits *m, const char *name, const char *dtype)
{
    tess_buf text = {0};
    tess_buf_addf(&text, "%.*s (%.20s)", MAX_LISTED_NAME - 32, name, dtype);
    tess__misfits_add(m, "no float type in", text.data ? text.data : name);
    tess_buf_deinit(&text);
}

tess_status tess__misfits_check(const tess_misfits *m)
{
    TESS_TRY(tess_buf_check(&m->list));
    if (m->n == 0) {
        return TESS_OK;
    }
    char more[32] = "";
    if (m->n_left_out > 0) {
        snprintf(more, sizeof more, " and %lld more", (long long)m->n_left_out);
    }
    return TESS_FAIL(TESS_FORMAT, "weights do not fit the model: %s%s",
                     m->list.data ? m->list.data : "", more);
}

void tess__misfits_deinit(tess_misfits *m)
{
    tess_buf_deinit(&m->list);
}
