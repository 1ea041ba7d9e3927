/* SPDX-License-Identifier: Apache-2.0 */
/* The page's files, put into the program by the assembler: no generated source, and no path is ever
 * opened for a client.  The names are relative to the repository root, where make runs. */
#include "serve/assets.h"

#include <string.h>

#define EMBED(name, file)                                                                          \
    __asm__(".pushsection .rodata\n"                                                               \
            "asset_" #name ": .incbin \"" file "\"\n"                                              \
            "asset_" #name "_end: .byte 0\n"                                                       \
            ".popsection\n");                                                                      \
    extern const uint8_t asset_##name[] __attribute__((visibility("hidden")));                     \
    extern const uint8_t asset_##name##_end[] __attribute__((visibility("hidden")))

EMBED(html, "src/serve/page.html");
EMBED(js, "src/serve/page.js");
EMBED(css, "src/serve/page.css");
EMBED(icon, "src/serve/page.svg");

static const struct {
    const char *path, *type;
    const uint8_t *begin, *end;
} table[] = {
    {"/", "text/html; charset=utf-8", asset_html, asset_html_end},
    {"/app.js", "text/javascript; charset=utf-8", asset_js, asset_js_end},
    {"/app.css", "text/css; charset=utf-8", asset_css, asset_css_end},
    {"/icon.svg", "image/svg+xml", asset_icon, asset_icon_end},
};

bool tess__asset_find(const char *path, tess__asset *out)
{
    for (int64_t i = 0; i < TESS_COUNT(table); i++) {
        if (strcmp(path, table[i].path) == 0) {
            size_t n = (size_t)(table[i].end - table[i].begin);
            *out = (tess__asset){table[i].type, {.data = table[i].begin, .n_bytes = n}};
            return true;
        }
    }
    return false;
}
