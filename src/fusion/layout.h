/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts: how another program names and shapes the parameters that this one keeps.
 *
 * A model's parameters have one native naming (that of the towers' graphs).  A layout is a list of
 * tables of rules, each of which says how one of our parameters lies in their file; the same table
 * reads and writes.  A new family of checkpoints is a new table. */
#ifndef TESSERA_FUSION_LAYOUT_H
#define TESSERA_FUSION_LAYOUT_H

#include "tessera/tensor.h"

typedef enum tess_layout_kind {
    TESS_LAYOUT_SAME,      /* their tensor has our shape; (1) and () are taken for each other */
    TESS_LAYOUT_TRANSPOSE, /* ours (R,C) is theirs (C,R) */
    TESS_LAYOUT_LEADING,   /* theirs has `n` more dimensions of 1 in front */
    TESS_LAYOUT_ROWS,      /* theirs is part `part` of n of our rows: q, k and v of an in_proj */
    TESS_LAYOUT_STACKED,   /* ours is `span` parts of n of their rows, from part `part` on */
    TESS_LAYOUT_IGNORED,   /* theirs alone, and no parameter: position_ids */
} tess_layout_kind;

/* In a pattern, '#' stands for a number and '*' for one or more characters of any kind; at most one
 * of the two in a pattern, and it stands for the same text on both sides.  Rules with the same
 * `ours`, next to each other, are the parts of one parameter (TESS_LAYOUT_ROWS). */
typedef struct tess_layout_rule {
    const char *ours, *theirs; /* ours NULL: ignored */
    tess_layout_kind kind;
    int part, n, span;
} tess_layout_rule;

/* A table under prefixes: "text." + theirs, our_prefix + ours. */
typedef struct tess_layout_table {
    const tess_layout_rule *rules;
    int64_t n_rules;
    const char *our_prefix, *their_prefix; /* NULL: none */
} tess_layout_table;

#define TESS_LAYOUT_TABLES 8
typedef struct tess_layout {
    const char *name; /* for messages: "Hugging Face CLIP" */
    tess_layout_table tables[TESS_LAYOUT_TABLES];
    int64_t n_tables;
} tess_layout;
/* Appends a table; the first rule that fits decides, in the order of addition. */
void tess__layout_add(tess_layout *l, const tess_layout_rule *rules, int64_t n_rules,
                      const char *our_prefix, const char *their_prefix);
#define TESS_LAYOUT_ADD(l, rules, our_prefix, their_prefix)                                        \
    tess__layout_add((l), (rules), TESS_COUNT(rules), (our_prefix), (their_prefix))

/* Where parameter `ours` lies: the rules of its parts (1 unless TESS_LAYOUT_ROWS), and their table.
 * n_rules 0: the layout has no name for it. */
typedef struct tess_layout_place {
    const tess_layout_table *table;
    const tess_layout_rule *rules;
    int64_t n_rules;
} tess_layout_place;
tess_layout_place tess__layout_find(const tess_layout *l, const char *ours);
/* Their name of part i; replaces what *out held. */
TESS_MUST_USE tess_status tess__layout_name(const tess_layout_place *place, int64_t i,
                                            const char *ours, tess_buf *out);
/* Their shape of it.  False: the rule does not fit the shape (a transpose of rank 3, rows that do
 * not divide). */
bool tess__layout_shape(const tess_layout_rule *rule, const tess_shape *ours, tess_shape *out);

/* The types that the parameters had in their file, by the entry's number: "F32", "BF16", "F16". */
typedef struct tess_layout_types {
    const char **types;
    int64_t n;
} tess_layout_types;
void tess__layout_types_deinit(tess_layout_types *types);

/* Fills every entry of the group from their tensors (F32, BF16, F16).  What is missing, extra,
 * transposed, misshapen or not finite fails with the list of all of it by their names; numbers that
 * are not finite are found last, and the group then holds what was read.  `types` may be NULL. */
TESS_MUST_USE tess_status tess__layout_load(const tess_layout *l, tess_store *s, const char *group,
                                            const tess_tensors *t, tess_layout_types *types);

/* The tensors of the group as they lie in their file.  `types` gives each entry's type (NULL: all
 * F32).  Data that needs no change is borrowed from the store; all else is in the arena.  A
 * parameter that the layout has no place for fails by name, with all of them. */
TESS_MUST_USE tess_status tess__layout_tensors(const tess_layout *l, const tess_store *s,
                                               const char *group, const tess_layout_types *types,
                                               tess_arena *arena, tess_tensor **out,
                                               int64_t *out_n);
/* True when the layout knows a tensor of this name that is no parameter. */
bool tess__layout_ignores(const tess_layout *l, const char *theirs);

/* ---- the families -------------------------------------------------------------------------- */

/* OpenCLIP's native towers: our names, the text tower's under "text." with custom_text. */
tess_layout tess__layout_openclip(bool custom_text);
/* OpenCLIP with a timm trunk of the SigLIP family, and the text tower under "text.". */
tess_layout tess__layout_openclip_timm(void);
/* What both have without their text tower; the caller adds that. */
tess_layout tess__layout_openclip_image(bool timm);
/* Hugging Face's CLIPModel and SiglipModel. */
tess_layout tess__layout_hf_clip(void);
tess_layout tess__layout_hf_siglip(void);

/* BERT and XLM-RoBERTa as transformers keeps them.  `old`: LayerNorms' gamma and beta. */
tess_layout tess__layout_bert(const char *our_prefix, const char *their_prefix, bool old);
/* The encoder of today's names, as a part of a bigger layout. */
void tess__layout_add_bert(tess_layout *l, const char *our_prefix, const char *their_prefix);

#endif
