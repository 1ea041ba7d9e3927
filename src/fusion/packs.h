/* SPDX-License-Identifier: Apache-2.0 */
/* A model's weights as inference reads them: packed once for a process, or lying in a mapped file
 * that processes share. */
#ifndef TESSERA_FUSION_PACKS_H
#define TESSERA_FUSION_PACKS_H

#include "fusion/model.h"

#include "tensor/lower.h"

/* How a model's products are packed: `kind` for all of them, but bf16 for those that `spared`
 * names: the layers that lose most in 8 bits. */
typedef enum tess_spared {
    TESS_SPARED_NONE,
    TESS_SPARED_ENDS,    /* what is no hidden matrix: patches in, projections out */
    TESS_SPARED_OUTPUTS, /* and the second matrix of each MLP, which reads its activations */
    TESS_SPARED_COUNT,
} tess_spared;
typedef struct tess_pack_mode {
    tess_dtype kind;
    tess_spared spared;
} tess_pack_mode;
/* "f32", "bf16", "int8", "int8, first and last layers bf16", ... */
const char *tess__pack_mode_name(tess_pack_mode mode);

typedef struct tess_packs tess_packs;
/* Packs from the model's f32 parameters when a plan first asks. */
tess_packs *tess__packs_new(tess_store *store, tess_pack_mode mode);
/* Those of a file, which is owned from now on, also on failure. */
TESS_MUST_USE tess_status tess__packs_of_file(tess_tensors *file, tess_packs **out);
void tess__packs_free(tess_packs *p);
const tess_tensors *tess__packs_file(const tess_packs *p); /* NULL: made from f32 */
tess_pack_mode tess__packs_mode(const tess_packs *p);
/* *g and *output become those of the same computation over packed weights. */
TESS_MUST_USE tess_status tess__packs_lower(tess_packs *p, tess_graph **g, tess_value *output);
/* The packed products so far: their number, and each. */
int64_t tess__packs_count(const tess_packs *p);
const tess_packed *tess__packs_at(const tess_packs *p, int64_t i, const char **out_name);

/* ---- the file ----------------------------------------------------------------------------- */

#define TESS_PACK_FILE "tessera_packed.bin"

/* What decides whether a packed file belongs to a directory, without reading the weights: names,
 * sizes and times of the files that make a model; caller frees. */
TESS_MUST_USE tess_status tess__pack_stamp(const char *dir, char **out);
/* Writes the file from a model that computes with packs of its own. */
TESS_MUST_USE tess_status tess__pack_save(tess_model *m, const char *stamp, const char *path);
typedef struct tess_pack_match {
    bool stamped; /* the stamp is that of the directory */
    char fingerprint[33];
} tess_pack_match;
TESS_MUST_USE tess_status tess__pack_open(const char *path, const char *stamp,
                                          tess_pack_match *match, tess_packs **out);
/* Reads all data against its recorded hash. */
TESS_MUST_USE tess_status tess__pack_verify(const tess_packs *p);

/* ---- measuring ---------------------------------------------------------------------------- */

/* The model computes with packs of this mode from now on (NULL mode: as in training). */
TESS_MUST_USE tess_status tess__model_set_mode(tess_model *m, const tess_pack_mode *mode);
/* The least demanding mode that the precision allows and that keeps the cosine; m computes with it
 * from now on. */
TESS_MUST_USE tess_status tess__pack_choose(tess_model *m, tess_precision precision,
                                            int64_t n_pictures, tess_pack_report *out);

#endif
