/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal: how wide, whether colour is wanted, and text folded to fit. */
#ifndef TESSERA_CLI_TERM_H
#define TESSERA_CLI_TERM_H

#include "tessera/base.h"

typedef struct cli_term {
    int width; /* columns, 40 to 100 */
    bool tty, color;
} cli_term;

typedef enum cli_style {
    CLI_STYLE_PLAIN, /* also ends any other */
    CLI_STYLE_HEAD,
    CLI_STYLE_NAME,
    CLI_STYLE_FAINT,
    CLI_STYLE_ERROR,
    CLI_STYLE_WARN,
    CLI_STYLES,
} cli_style;

/* What `file` leads to.  Colour needs a terminal, `want_color`, no NO_COLOR and a TERM other than
 * dumb (no-color.org).  COLUMNS beats what the terminal says. */
cli_term cli_term_of(FILE *file, bool want_color);
/* The escape sequence that begins a style; "" without colour. */
const char *cli_style_begin(cli_term t, cli_style style);
/* Columns of UTF-8 text, escape sequences not counted: one for each code point. */
int cli_columns(const char *s, size_t n_bytes);
/* Appends `text`, which stands at column `column` of the current line, folded at blanks so that
 * lines end before `width`; later lines begin with `indent` spaces.  Newlines in the text stay. */
void cli_wrap(tess_buf *out, const char *text, int column, int indent, int width);
void cli_pad(tess_buf *out, int n_spaces);

#endif
