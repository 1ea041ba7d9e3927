/* SPDX-License-Identifier: Apache-2.0 */
/* HTML character references, as Python's html.unescape replaces them. */
#ifndef TESS_TEXT_HTML_UNESCAPE_H
#define TESS_TEXT_HTML_UNESCAPE_H

#include "text/spm.h"

typedef struct tess__entity {
    const char *name, *text; /* "amp;" -> "&": the semicolon belongs to the name */
} tess__entity;
extern const tess__entity tess__entities[];
extern const size_t tess__n_entities;

/* in (UTF-8) -> *out, replaced. */
TESS_MUST_USE tess_status tess__html_unescape(const tess__span_buf *in, tess__span_buf *out);
/* The same for names and numbers that end in a semicolon alone, the whole of them known. */
TESS_MUST_USE tess_status tess__html_unescape_strict(const tess__span_buf *in, tess__span_buf *out);
/* What Windows-1252 has for 0x80 to 0x9f; itself where it has nothing. */
uint32_t tess__windows_1252(uint32_t c);

#endif
