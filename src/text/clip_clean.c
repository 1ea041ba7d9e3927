/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's cleaning of texts. */
#include "tessera/text.h"

#include <string.h>

tess_status tess_clip_clean_find(const char *name, tess_clip_clean *out)
{
    static const char *const names[] = {
        [TESS_CLIP_CLEAN_WHITESPACE] = "whitespace",
        [TESS_CLIP_CLEAN_LOWER] = "lower",
        [TESS_CLIP_CLEAN_CANONICALIZE] = "canonicalize",
    };
    for (int i = 1; i < TESS_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (tess_clip_clean)i;
            return TESS_OK;
        }
    }
    return TESS_FAIL(TESS_INVALID,
                     "clean: expected whitespace, lower or canonicalize, found \"%.40s\"", name);
}
