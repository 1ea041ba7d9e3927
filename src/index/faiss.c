/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses which FAISS answers: the one linked in, or the user's libfaiss_c.so.
 *
 * The choice is made once, at first use.  A library that is named but cannot be used is an error
 * rather than a silent step back to the slower one.
 */
#include "index/faiss.h"

#include "tessera/index.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static tess__faiss_api loaded;
static const tess__faiss_api *chosen;
static const char *origin = "built in";
static char problem[512];

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define X(member, symbol, result, parameters) {symbol, offsetof(tess__faiss_api, member)},
    TESS__FAISS_FUNCTIONS(X)
#undef X
};

static void load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(problem, sizeof(problem), "%s", dlerror());
        return;
    }
    for (int64_t i = 0; i < TESS_COUNT(symbols); i++) {
        void *f = dlsym(library, symbols[i].name);
        if (!f) {
            snprintf(problem, sizeof(problem), "%s has no %s", path, symbols[i].name);
            dlclose(library);
            return;
        }
        memcpy((char *)&loaded + symbols[i].offset, &f, sizeof(f));
    }
    chosen = &loaded;
    origin = path;
}

static void choose(void)
{
    const char *path = getenv("TESSERA_FAISS_C");
    if (path && path[0]) {
        load(path);
    } else {
        chosen = &tess__faiss_shim;
    }
}

tess_status tess__faiss_get(const tess__faiss_api **out)
{
    pthread_once(&once, choose);
    if (!chosen) {
        return TESS_FAIL(TESS_UNSUPPORTED,
                         "TESSERA_FAISS_C names a library that cannot be used (%s): give the path "
                         "of a libfaiss_c.so, or unset it to use the FAISS that is built in",
                         problem);
    }
    *out = chosen;
    return TESS_OK;
}

const char *tess__faiss_origin(void)
{
    pthread_once(&once, choose);
    return chosen ? origin : "none";
}

const char *tess_index_library(void)
{
    const char *from = tess__faiss_origin();
    return strcmp(from, "built in") == 0 ? tess__faiss_version : from;
}

tess_status tess__faiss_status(const tess__faiss_api *api, int rc, const char *what)
{
    if (rc == 0) {
        return TESS_OK;
    }
    const char *text = api->last_error();
    bool no_memory = text && (strstr(text, "out of memory") || strstr(text, "bad_alloc"));
    return TESS_FAIL(no_memory ? TESS_NOMEM : TESS_DEVICE, "FAISS cannot %s: %s", what,
                     text ? text : "no reason given");
}
