/* SPDX-License-Identifier: Apache-2.0 */
/* Opening an index together with its model. */
#include "cli/query.h"

#include <string.h>

static tess_status open_model(const tess_index *ix, const char *index_dir, const cli_embedder *e,
                              tess_model **out)
{
    const char *recorded = tess_index_model(ix);
    if (e->model) {
        return cli_open_embedder(e, e->model, out);
    }
    if (!recorded) {
        return TESS_FAIL(TESS_INVALID, "%s names no model: give --model DIR", index_dir);
    }
    if (recorded[0] == '/') {
        return cli_open_embedder(e, recorded, out);
    }
    char *beside = tess_format("%s/%s", index_dir, recorded);
    tess_status st = beside ? cli_open_embedder(e, beside, out) : TESS_NOMEM;
    tess_free(beside);
    return st;
}

static tess_status check_fingerprint(const tess_index *ix, const char *index_dir, tess_model *m)
{
    char fingerprint[33];
    TESS_TRY(tess_model_fingerprint(m, fingerprint));
    if (strcmp(fingerprint, tess_index_fingerprint(ix)) != 0) {
        return TESS_FAIL(TESS_INVALID,
                         "%s was built with the model %s, this one is %s: give that model "
                         "(with the adapters it then had), or build the index again",
                         index_dir, tess_index_fingerprint(ix), fingerprint);
    }
    return TESS_OK;
}

/* An index that no card searches is no reason to refuse. */
static tess_status use_device(tess_index *ix, const char *index_dir, const char *name)
{
    const tess_device *device;
    TESS_TRY(tess_device_open(name, &device));
    const tess_status st = tess_index_use(ix, device);
    if (st != TESS_UNSUPPORTED && st != TESS_NOMEM) {
        return st;
    }
    tess_log(st == TESS_NOMEM ? TESS_LOG_WARN : TESS_LOG_INFO,
             "%s is searched by the processor: %s", index_dir, tess_error());
    return TESS_OK;
}

static tess_status use_first(tess_model *m, const char *const *names, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (tess_model_has_prompt(m, names[i])) {
            return tess_model_set_prompt(m, names[i]);
        }
    }
    return TESS_OK;
}

tess_status cli_use_query_prompt(tess_model *m)
{
    static const char *const names[] = {"query"};
    return use_first(m, names, TESS_COUNT(names));
}

tess_status cli_use_document_prompt(tess_model *m)
{
    static const char *const names[] = {"document", "passage", "corpus"};
    return use_first(m, names, TESS_COUNT(names));
}

tess_status cli_open_index(const char *index_dir, const cli_embedder *e, tess_index **out_index,
                           tess_model **out_model)
{
    *out_index = NULL;
    *out_model = NULL;
    tess_status st = tess_index_open(index_dir, NULL, out_index);
    st = st ? st : open_model(*out_index, index_dir, e, out_model);
    st = st ? st : check_fingerprint(*out_index, index_dir, *out_model);
    st = st ? st : cli_use_query_prompt(*out_model);
    st = st ? st : use_device(*out_index, index_dir, e->device);
    if (st) {
        tess_index_close(*out_index);
        tess_model_free(*out_model);
        *out_index = NULL;
        *out_model = NULL;
    }
    return st;
}
