/* SPDX-License-Identifier: Apache-2.0 */
/* OpenCLIP's native towers.  Their names are ours, but for the prefix that custom_text puts before
 * the text tower's. */
#include "fusion/layout.h"

static const tess_layout_rule both[] = {
    {"visual.*", "visual.*", TESS_LAYOUT_SAME, 0, 0},
    {"logit_scale", "logit_scale", TESS_LAYOUT_SAME, 0, 0},
    {"logit_bias", "logit_bias", TESS_LAYOUT_SAME, 0, 0},
    {"logit_scale_text", "logit_scale_text", TESS_LAYOUT_SAME, 0, 0},
};

static const tess_layout_rule text[] = {
    {"*", "*", TESS_LAYOUT_SAME, 0, 0},
};

tess_layout tess__layout_openclip(bool custom_text)
{
    tess_layout l = {.name = "OpenCLIP's layout"};
    TESS_LAYOUT_ADD(&l, both, "", "");
    TESS_LAYOUT_ADD(&l, text, "", custom_text ? "text." : "");
    return l;
}
