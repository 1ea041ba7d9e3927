/* SPDX-License-Identifier: Apache-2.0 */
/* Terminal width and colour from the environment; folding of text. */
#include "cli/term.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { MIN_WIDTH = 40, MAX_WIDTH = 100, DEFAULT_WIDTH = 80 };

static int width_of(int fd)
{
    struct winsize size;
    const char *columns = getenv("COLUMNS");
    int width = columns != NULL ? atoi(columns) : 0;
    if (width <= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0) {
        width = size.ws_col;
    }
    if (width <= 0) {
        return DEFAULT_WIDTH;
    }
    return width < MIN_WIDTH ? MIN_WIDTH : width > MAX_WIDTH ? MAX_WIDTH : width;
}

cli_term cli_term_of(FILE *file, bool want_color)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool refused =
        (no_color != NULL && no_color[0] != '\0') || term == NULL || strcmp(term, "dumb") == 0;
    bool tty = isatty(fileno(file)) != 0;
    return (cli_term){
        .width = width_of(fileno(file)), .tty = tty, .color = tty && want_color && !refused};
}

const char *cli_style_begin(cli_term t, cli_style style)
{
    static const char *const sequences[CLI_STYLES] = {"\033[0m", "\033[1m",    "\033[36m",
                                                      "\033[2m", "\033[1;31m", "\033[33m"};
    return t.color ? sequences[style] : "";
}

/* Bytes of the escape sequence at s, 0 when there is none. */
static size_t escape_bytes(const char *s, size_t n_bytes)
{
    if (n_bytes < 2 || s[0] != '\033' || s[1] != '[') {
        return 0;
    }
    size_t i = 2;
    while (i < n_bytes && s[i] != 'm') {
        i++;
    }
    return i < n_bytes ? i + 1 : n_bytes;
}

int cli_columns(const char *s, size_t n_bytes)
{
    int n = 0;
    for (size_t i = 0; i < n_bytes;) {
        size_t escape = escape_bytes(s + i, n_bytes - i);
        n += escape == 0 && ((unsigned char)s[i] & 0xC0) != 0x80;
        i += escape > 0 ? escape : 1;
    }
    return n;
}

void cli_pad(tess_buf *out, int n_spaces)
{
    for (int i = 0; i < n_spaces; i++) {
        tess_buf_add(out, " ", 1);
    }
}

void cli_wrap(tess_buf *out, const char *text, int column, int indent, int width)
{
    bool at_start = true;
    while (*text != '\0') {
        if (*text == '\n' || *text == ' ') {
            bool newline = *text++ == '\n';
            if (newline) {
                tess_buf_adds(out, "\n");
                cli_pad(out, *text != '\n' && *text != '\0' ? indent : 0);
                column = indent;
                at_start = true;
            }
            continue;
        }
        size_t n = strcspn(text, " \n");
        int columns = cli_columns(text, n);
        if (!at_start && column + 1 + columns > width) {
            tess_buf_adds(out, "\n");
            cli_pad(out, indent);
            column = indent;
        } else if (!at_start) {
            tess_buf_adds(out, " ");
            column++;
        }
        tess_buf_add(out, text, n);
        column += columns;
        text += n;
        at_start = false;
    }
}
