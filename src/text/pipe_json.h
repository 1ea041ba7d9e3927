/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers of tokenizer.json share. */
#ifndef TESS_TEXT_PIPE_JSON_H
#define TESS_TEXT_PIPE_JSON_H

#include "text/pipe.h"

/* A boolean member; absent or null: `fallback`.  Anything else: TESS_FORMAT. */
TESS_MUST_USE tess_status tess__json_flag(const tess_json *obj, const char *key, bool fallback,
                                          bool *out);
/* A string member, copied into the pipe. */
TESS_MUST_USE tess_status tess__json_text(tess__pipe *p, const tess_json *obj, const char *key,
                                          tess_bytes *out);
/* The rules of a SentencePiece model, which the pipe borrows. */
TESS_MUST_USE tess_status tess__pipe_set_charsmap(tess__pipe *p, tess__step *step, tess_bytes map);
/* "model": vocabulary, merges, scores; *out_name as tess_tokenizer_kind gives it. */
TESS_MUST_USE tess_status tess__pipe_read_model(tess__pipe *p, const tess_json *model,
                                                const char **out_name);
/* For models whose vocabulary was put together: WordPiece needs `prefix` and the unknown piece. */
TESS_MUST_USE tess_status tess__pipe_set_wordpiece(tess__pipe *p, const char *unknown);
/* {"piece": id, ...}, and its trie. */
TESS_MUST_USE tess_status tess__pipe_read_dictionary(tess__pipe *p, const tess_json *vocab);
/* One merge, by rank; the pair table must have room.  `temp` is scratch. */
TESS_MUST_USE tess_status tess__pipe_add_merge(tess__pipe *p, uint32_t rank, tess_bytes left,
                                               tess_bytes right, tess_buf *temp);
TESS_MUST_USE tess_status tess__pipe_set_bpe(tess__pipe *p, const char *unknown); /* or NULL */
TESS_MUST_USE tess_status tess__pipe_set_unigram(tess__pipe *p, int64_t unk_id);
/* Makes a CLIP vocabulary (BPE with "</w>") OpenCLIP's SimpleTokenizer, and finishes it. */
TESS_MUST_USE tess_status tess__clip_make_open(tess__pipe *p, tess_tokenizer *t);

#endif
