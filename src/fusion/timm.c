/* SPDX-License-Identifier: Apache-2.0 */
/* timm's vision transformers of the SigLIP family, by the names that OpenCLIP's configs give: an
 * OpenCLIP directory says nothing else of their sizes. */
#include "fusion/family.h"

#include <string.h>

#define BASE     768, 12, 12, 3072
#define LARGE    1024, 24, 16, 4096
#define SO400M   1152, 27, 16, 4304
#define GIANTOPT 1536, 40, 16, 6144

static const tess_timm_trunk trunks[] = {
    {"vit_base_patch16_siglip_224", BASE, 16, 224, "gelu"},
    {"vit_base_patch16_siglip_256", BASE, 16, 256, "gelu"},
    {"vit_base_patch16_siglip_384", BASE, 16, 384, "gelu"},
    {"vit_base_patch16_siglip_512", BASE, 16, 512, "gelu"},
    {"vit_base_patch32_siglip_256", BASE, 32, 256, "gelu_tanh"},
    {"vit_large_patch16_siglip_256", LARGE, 16, 256, "gelu"},
    {"vit_large_patch16_siglip_384", LARGE, 16, 384, "gelu"},
    {"vit_large_patch16_siglip_512", LARGE, 16, 512, "gelu_tanh"},
    {"vit_so400m_patch14_siglip_224", SO400M, 14, 224, "gelu"},
    {"vit_so400m_patch14_siglip_378", SO400M, 14, 378, "gelu"},
    {"vit_so400m_patch14_siglip_384", SO400M, 14, 384, "gelu"},
    {"vit_so400m_patch16_siglip_256", SO400M, 16, 256, "gelu_tanh"},
    {"vit_so400m_patch16_siglip_384", SO400M, 16, 384, "gelu_tanh"},
    {"vit_so400m_patch16_siglip_512", SO400M, 16, 512, "gelu_tanh"},
    {"vit_giantopt_patch16_siglip_256", GIANTOPT, 16, 256, "gelu_tanh"},
    {"vit_giantopt_patch16_siglip_384", GIANTOPT, 16, 384, "gelu_tanh"},
};

const tess_timm_trunk *tess__timm_find(const char *name)
{
    size_t n = strcspn(name, "."); /* a tag of pretrained weights may follow */
    for (int64_t i = 0; i < TESS_COUNT(trunks); i++) {
        if (strlen(trunks[i].name) == n && strncmp(trunks[i].name, name, n) == 0) {
            return &trunks[i];
        }
    }
    return NULL;
}

const tess_timm_trunk *tess__timm_match(const tess_vit_config *c)
{
    for (int64_t i = 0; i < TESS_COUNT(trunks); i++) {
        const tess_timm_trunk *t = &trunks[i];
        if (t->width == c->width && t->layers == c->layers && t->patch_size == c->patch_size &&
            t->heads * c->head_width == c->width && t->hidden == tess__vit_hidden(c) &&
            t->image_size == c->image_size && strcmp(t->act, c->act) == 0) {
            return t;
        }
    }
    return NULL;
}
