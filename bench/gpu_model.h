/* SPDX-License-Identifier: Apache-2.0 */
/* A model of a config with seeded weights and without a tokenizer, for programs that make their
 * own token ids. */
#ifndef TESSERA_BENCH_GPU_MODEL_H
#define TESSERA_BENCH_GPU_MODEL_H

#include "fusion/model.h"

/* *out is the caller's to free, also on failure. */
TESS_MUST_USE static inline tess_status side_model(const char *config, tess_precision precision,
                                                   tess_model **out)
{
    const uint64_t seed = 1;
    TESS_TRY(tess__model_alloc(precision, out));
    TESS_TRY(tess__model_config_load(config, &(*out)->arena, &(*out)->config));
    TESS_TRY(tess__model_make_store(*out));
    TESS_TRY(tess_store_allocate((*out)->store));
    return tess__model_init_params(*out, seed);
}

#endif
