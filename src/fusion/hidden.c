/* SPDX-License-Identifier: Apache-2.0 */
/* The hidden matrices: those that map activations to activations, which Muon trains.  Embeddings,
 * the patch convolution and the projections into the joint space are matrices too, but tables or
 * first and last layers, which AdamW trains better (Jordan 2024). */
#include "fusion/model.h"

#include <string.h>

static const struct {
    const char *suffix;
    int64_t n_blocks; /* of rows, each a matrix of its own */
} hidden[] = {
    {".in_proj_weight", 3},                       /* q, k, v */
    {".kv_proj_weight", 2},                       /* k, v */
    {".q_proj_weight", 1},                        /**/
    {".out_proj.weight", 1}, {".c_fc.weight", 1}, /**/
    {".c_proj.weight", 1},
};

int64_t tess__hidden_blocks(const char *name)
{
    const size_t n = strlen(name);
    for (int64_t i = 0; i < TESS_COUNT(hidden); i++) {
        const size_t k = strlen(hidden[i].suffix);
        if (n >= k && strcmp(name + n - k, hidden[i].suffix) == 0) {
            return hidden[i].n_blocks;
        }
    }
    return 0;
}

bool tess__is_hidden(const char *name)
{
    return tess__hidden_blocks(name) > 0;
}
