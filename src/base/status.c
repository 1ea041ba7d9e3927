/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes and the thread's error message.
 *
 * The message lives in a fixed thread-local buffer, so that reporting "out of memory" needs none.
 * Text is formatted beside it and copied, because callers pass tess_error() itself as an argument.
 */
#include "tessera/base.h"

#include <errno.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };

static _Thread_local char message[MESSAGE_BYTES];

volatile _Atomic int tess_cancelled;

static const char *const names[] = {"ok",     "invalid", "nomem",       "io",       "format",
                                    "device", "comm",    "unsupported", "cancelled"};

tess_status tess__fail(tess_status code, const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    memcpy(message, text, sizeof message);
    return code;
}

tess_status tess__fail_errno(const char *what, const char *path)
{
    char text[256];
    const char *reason = strerror_r(errno, text, sizeof text);
    return TESS_FAIL(TESS_IO, "%s: %s: %s", what, path, reason);
}

tess_status tess_error_prefix(tess_status code, const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0 || n >= MESSAGE_BYTES - 2) {
        memcpy(message, text, sizeof message);
        return code;
    }
    /* Prefix, ": ", and what fits of the message. */
    size_t at = (size_t)n + 2, keep = strnlen(message, MESSAGE_BYTES - 1 - at);
    memmove(message + at, message, keep);
    message[at + keep] = 0;
    memcpy(message, text, (size_t)n);
    memcpy(message + n, ": ", 2);
    return code;
}

const char *tess_error(void)
{
    return message;
}

const char *tess_status_name(tess_status code)
{
    int64_t i = -(int64_t)code;
    return i >= 0 && i < TESS_COUNT(names) ? names[i] : "unknown";
}
