/* SPDX-License-Identifier: Apache-2.0 */
/* Files with one thing a line, of any bytes: what is accepted is text without line ends, and what
 * is found repeated is. */
#include <stdlib.h>
#include <string.h>

#include "tessera/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check(const tess_names *names, bool may_be_empty)
{
    size_t first, second;
    for (size_t i = 0; i < names->n_names; i++) {
        const char *s = names->names[i];
        if (strchr(s, '\n') || !tess_utf8_valid(s, strlen(s), true) || (!*s && !may_be_empty)) {
            abort();
        }
    }
    if (tess_lines_find_repeated(names, &first, &second) != TESS_OK) {
        abort();
    }
    if (second != SIZE_MAX &&
        (first >= second || strcmp(names->names[first], names->names[second]) != 0)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    for (int may_be_empty = 0; may_be_empty < 2; may_be_empty++) {
        tess_names names = {0};
        tess_status st =
            tess_lines_parse((const char *)data, n_bytes, "fuzz", may_be_empty, &names);
        if (st == TESS_OK) {
            check(&names, may_be_empty);
            st = tess_templates_check(&names, "fuzz");
        }
        if (st != TESS_OK && !*tess_error()) {
            abort();
        }
        tess_names_deinit(&names);
    }
    return 0;
}
