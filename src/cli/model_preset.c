/* SPDX-License-Identifier: Apache-2.0 */
/* The presets, put into the program by the assembler; paths are relative to the repository's root,
 * where make runs. */
#include "cli/model_preset.h"

#include "tessera/base.h"

#include <stdint.h>
#include <string.h>

#define EMBED(id, name)                                                                            \
    __asm__(".pushsection .rodata\n"                                                               \
            "preset_" #id ": .incbin \"models/" name ".json\"\n"                                   \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const char preset_##id[] __attribute__((visibility("hidden")))

EMBED(b32, "ViT-B-32");
EMBED(b16, "ViT-B-16");
EMBED(l14, "ViT-L-14");
EMBED(h14, "ViT-H-14");
EMBED(bletchley_b16, "bletchley-B-16");
EMBED(bletchley, "bletchley-2.5B");

static const struct {
    const char *name, *text;
} presets[] = {
    {"ViT-B-32", preset_b32},
    {"ViT-B-16", preset_b16},
    {"ViT-L-14", preset_l14},
    {"ViT-H-14", preset_h14},
    {"bletchley-B-16", preset_bletchley_b16},
    {"bletchley-2.5B", preset_bletchley},
};

const char *cli_model_preset(const char *name)
{
    for (int64_t i = 0; i < TESS_COUNT(presets); i++) {
        if (strcmp(presets[i].name, name) == 0) {
            return presets[i].text;
        }
    }
    return NULL;
}

const char *cli_model_presets(void)
{
    return "ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14, bletchley-B-16, bletchley-2.5B";
}
