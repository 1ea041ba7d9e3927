/* SPDX-License-Identifier: Apache-2.0 */
/* sample_bad: counting what is left out.
 *
 * Places come from strangers (names inside archives), so they are made printable when they are
 * kept: control bytes and what is not UTF-8 become question marks.
 */
#include "tessera/data.h"

#include <string.h>

static const char *const names[TESS_BAD_COUNT] = {
    [TESS_BAD_NONE] = "none",
    [TESS_BAD_NO_PICTURE] = "no_picture",
    [TESS_BAD_NO_CAPTION] = "no_caption",
    [TESS_BAD_TRUNCATED] = "truncated",
    [TESS_BAD_TAR_HEADER] = "tar_header",
    [TESS_BAD_RECORD] = "record",
    [TESS_BAD_JSON] = "json",
    [TESS_BAD_UNREADABLE] = "unreadable",
    [TESS_BAD_TOO_LARGE] = "too_large",
    [TESS_BAD_DECODE] = "decode",
    [TESS_BAD_LABEL] = "label",
    [TESS_BAD_CAPTION_UTF8] = "caption_utf8",
    [TESS_BAD_CAPTION_EMPTY] = "caption_empty",
    [TESS_BAD_CAPTION_LONG] = "caption_long",
    [TESS_BAD_CAPTION_MOJIBAKE] = "caption_mojibake",
    [TESS_BAD_CAPTION_MANY] = "caption_many",
};

const char *tess_bad_name(tess_bad reason)
{
    return (unsigned)reason < TESS_BAD_COUNT ? names[reason] : "unknown";
}

static char *copy_printable(const char *s)
{
    char *copy = tess_strdup(s);
    bool is_text = copy && tess_utf8_valid(copy, strlen(copy), true);
    for (char *p = copy; p && *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == 0x7f || (c >= 0x80 && !is_text)) {
            *p = '?';
        }
    }
    return copy;
}

tess_status tess_bad_list_add(tess_bad_list *list, tess_bad reason, int64_t n, const char *name)
{
    list->counts[reason] += n;
    for (int i = 0; i < TESS_BAD_NAMES && n > 0; i++) {
        if (!list->names[reason][i]) {
            list->names[reason][i] = copy_printable(name);
            return list->names[reason][i] ? TESS_OK : TESS_NOMEM;
        }
    }
    return TESS_OK;
}

tess_status tess_bad_list_merge(tess_bad_list *to, const tess_bad_list *from)
{
    for (int r = 0; r < TESS_BAD_COUNT; r++) {
        for (int64_t i = 0, left = from->counts[r]; left > 0; i++) {
            bool named = i < TESS_BAD_NAMES && from->names[r][i];
            int64_t n = named ? 1 : left;
            TESS_TRY(tess_bad_list_add(to, (tess_bad)r, n, named ? from->names[r][i] : NULL));
            left -= n;
        }
    }
    return TESS_OK;
}

int64_t tess_bad_list_total(const tess_bad_list *list)
{
    int64_t total = 0;
    for (int r = 0; r < TESS_BAD_CAPTION_UTF8; r++) {
        total += list->counts[r];
    }
    return total;
}

void tess_bad_list_write(const tess_bad_list *list, tess_buf *out)
{
    bool is_first = true;
    for (int r = 0; r < TESS_BAD_COUNT; r++) {
        if (list->counts[r] == 0) {
            continue;
        }
        tess_buf_addf(out, "%s%lld %s (", is_first ? "" : "; ", (long long)list->counts[r],
                      names[r]);
        for (int i = 0; i < TESS_BAD_NAMES && list->names[r][i]; i++) {
            tess_buf_addf(out, "%s%s", i > 0 ? ", " : "", list->names[r][i]);
        }
        tess_buf_adds(out, list->counts[r] > TESS_BAD_NAMES ? ", ...)" : ")");
        is_first = false;
    }
}

void tess_bad_list_deinit(tess_bad_list *list)
{
    if (list) {
        for (int r = 0; r < TESS_BAD_COUNT; r++) {
            for (int i = 0; i < TESS_BAD_NAMES; i++) {
                tess_free(list->names[r][i]);
            }
        }
        *list = (tess_bad_list){0};
    }
}
