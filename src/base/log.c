/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines, handed whole to the sink that the program sets.
 *
 * Control characters become spaces: names and captions come from strangers, and a terminal obeys
 * escape sequences.
 */
#include "tessera/base.h"

#include <pthread.h>

enum { LINE_BYTES = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    tess_log_sink *sink;
    void *ctx;
    tess_log_level max_level;
} target;

void tess_log_set_sink(tess_log_sink *sink, void *ctx, tess_log_level max_level)
{
    pthread_mutex_lock(&lock);
    target.sink = sink;
    target.ctx = ctx;
    target.max_level = max_level;
    pthread_mutex_unlock(&lock);
}

void tess_log(tess_log_level level, const char *fmt, ...)
{
    char line[LINE_BYTES];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0) {
        return;
    }
    for (unsigned char *p = (unsigned char *)line; *p != 0; p++) {
        if (*p < 0x20 || *p == 0x7F) {
            *p = ' ';
        }
    }
    pthread_mutex_lock(&lock);
    if (target.sink != NULL && level <= target.max_level) {
        target.sink(target.ctx, level, line);
    }
    pthread_mutex_unlock(&lock);
}
