/* SPDX-License-Identifier: Apache-2.0 */
/* Fault injection: the n-th allocation, write, fsync or rename fails on demand.
 *
 * Always compiled in: an atomic increment beside an allocation or a system call costs nothing that
 * can be measured, and the binary that is tested is the binary that ships.
 */
#include "base/fault.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct fault_state {
    _Atomic int64_t count, nth;
    _Atomic bool persistent;
} fault_state;

static fault_state faults[TESS_FAULT_KINDS];
static const char *const names[TESS_FAULT_KINDS] = {"alloc", "write", "fsync", "rename"};
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void arm(tess_fault kind, int64_t nth, bool persistent)
{
    fault_state *f = &faults[kind];
    atomic_store(&f->nth, 0);
    atomic_store(&f->count, 0);
    atomic_store(&f->persistent, persistent);
    atomic_store(&f->nth, nth);
}

/* TESSERA_FAULT="kind:n" or "kind:n+"; anything else is reported and left alone. */
static void read_environment(void)
{
    const char *spec = getenv("TESSERA_FAULT");
    if (spec == NULL || *spec == 0) {
        return;
    }
    for (int kind = 0; kind < TESS_FAULT_KINDS; kind++) {
        size_t n = strlen(names[kind]);
        if (strncmp(spec, names[kind], n) != 0 || spec[n] != ':') {
            continue;
        }
        char *end = NULL;
        long long nth = strtoll(spec + n + 1, &end, 10);
        if (nth > 0 && (strcmp(end, "") == 0 || strcmp(end, "+") == 0)) {
            arm((tess_fault)kind, nth, *end == '+');
            return;
        }
    }
    tess_log(TESS_LOG_WARN, "TESSERA_FAULT: expected kind:n or kind:n+, found \"%s\"", spec);
}

void tess_fault_set(tess_fault kind, int64_t nth, bool persistent)
{
    pthread_once(&once, read_environment);
    arm(kind, nth, persistent);
}

int64_t tess_fault_count(tess_fault kind)
{
    return atomic_load(&faults[kind].count);
}

bool tess__fault_hit(tess_fault kind)
{
    pthread_once(&once, read_environment);
    fault_state *f = &faults[kind];
    int64_t count = atomic_fetch_add(&f->count, 1) + 1;
    int64_t nth = atomic_load(&f->nth);
    return nth > 0 && (count == nth || (count > nth && atomic_load(&f->persistent)));
}
