/* SPDX-License-Identifier: Apache-2.0 */
/* source_tar: WebDataset shards.
 *
 * Members that stand together and share a key are a sample; a suffix that comes again under the
 * same key begins another (as in OpenCLIP).  Everything is found in one walk over the headers,
 * which touches one page a member; afterwards a sample is three pointers into the mapping.
 *
 * A shard that ends early gives the samples before the damage; the one in progress is dropped,
 * since nobody can say whether it was whole, except when the shard ends cleanly between two
 * members.
 */
#include "train/sample_captions.h"
#include "train/source.h"
#include "train/tar.h"

#include <string.h>

/* The sample being put together. */
typedef struct group {
    tess__record record;
    char key[TESS__TAR_NAME + 1];
    size_t key_bytes;
    int64_t picture_rank; /* place of its suffix in the preference list, -1: no picture */
    uint64_t seen;        /* bit i: picture suffix i was there */
    bool is_open, is_too_large;
} group;

/* Key and suffix: the directory and all up to the first dot of the base name, and what follows. */
static bool split_name(const tess__tar_member *m, size_t *key_bytes, const char **suffix)
{
    const char *slash = memrchr(m->name, '/', m->name_bytes);
    const char *base = slash ? slash + 1 : m->name, *dot = strchr(base, '.');
    size_t n = dot ? (size_t)(dot - base) : 0;
    bool is_meta = n >= 4 && memcmp(base, "__", 2) == 0 && memcmp(base + n - 2, "__", 2) == 0;
    if (!dot || dot == base || is_meta) {
        return false;
    }
    *key_bytes = (size_t)(dot - m->name);
    *suffix = dot + 1;
    return true;
}

static void start(group *g, uint32_t file, const tess__tar_member *m, size_t key_bytes)
{
    g->record = (tess__record){.begin = m->begin,
                               .file = file,
                               .picture_at = TESS__NOT_THERE,
                               .text_at = TESS__NOT_THERE,
                               .json_at = TESS__NOT_THERE};
    memcpy(g->key, m->name, key_bytes);
    g->key[key_bytes] = 0;
    g->key_bytes = key_bytes;
    g->picture_rank = -1;
    g->seen = 0;
    g->is_open = true;
    g->is_too_large = false;
}

/* Ends the sample: into the table, or counted. */
static tess_status finish(tess_dataset *ds, group *g)
{
    tess__record *r = &g->record;
    bool has_caption = r->text_at != TESS__NOT_THERE || r->json_at != TESS__NOT_THERE;
    if (!g->is_open) {
        return TESS_OK;
    }
    g->is_open = false;
    if (g->is_too_large) {
        return tess__index_bad(ds, r->file, TESS_BAD_TOO_LARGE, g->key, g->key_bytes,
                               "a member above its limit");
    }
    if (g->picture_rank < 0) {
        return tess__index_bad(ds, r->file, TESS_BAD_NO_PICTURE, g->key, g->key_bytes,
                               "no picture");
    }
    if (!has_caption && !ds->options.captions_optional) {
        char what[64];
        snprintf(what, sizeof what, "neither .%.30s nor .json", ds->options.text_suffix);
        return tess__index_bad(ds, r->file, TESS_BAD_NO_CAPTION, g->key, g->key_bytes, what);
    }
    ds->has_json = ds->has_json || r->json_at != TESS__NOT_THERE;
    r->id = tess_hash64(g->key, g->key_bytes, 0);
    return tess__record_add(ds, r);
}

/* The same suffix twice under one key. */
static bool is_repeated(const tess_dataset *ds, const group *g, int64_t rank, const char *suffix)
{
    return (rank >= 0 && (g->seen >> (rank & 63) & 1)) ||
           (strcasecmp(suffix, ds->options.text_suffix) == 0 &&
            g->record.text_at != TESS__NOT_THERE) ||
           (strcasecmp(suffix, "json") == 0 && g->record.json_at != TESS__NOT_THERE);
}

static int64_t picture_rank(const tess_dataset *ds, const char *suffix)
{
    for (size_t i = 0; i < ds->suffixes.n_names; i++) {
        if (strcasecmp(ds->suffixes.names[i], suffix) == 0) {
            return (int64_t)i;
        }
    }
    return -1;
}

static void put(const tess_dataset *ds, group *g, const tess__tar_member *m, int64_t rank,
                const char *suffix)
{
    tess__record *r = &g->record;
    bool is_text = strcasecmp(suffix, ds->options.text_suffix) == 0;
    bool is_json = strcasecmp(suffix, "json") == 0;
    uint64_t blocks = (m->data_at - r->begin) / TESS__TAR_BLOCK;
    size_t limit = rank >= 0 ? ds->options.max_picture_bytes : TESS__JSON_MAX;
    if (rank < 0 && !is_text && !is_json) {
        return;
    }
    if (m->n_bytes > limit || blocks >= TESS__NOT_THERE) {
        g->is_too_large = true;
        return;
    }
    if (is_text) {
        r->text_at = (uint32_t)blocks, r->text_bytes = (uint32_t)m->n_bytes;
    } else if (is_json) {
        r->json_at = (uint32_t)blocks, r->json_bytes = (uint32_t)m->n_bytes;
    } else {
        g->seen |= (uint64_t)1 << (rank & 63);
        if (g->picture_rank < 0 || rank < g->picture_rank) {
            g->picture_rank = rank;
            r->picture_at = (uint32_t)blocks, r->picture_bytes = (uint32_t)m->n_bytes;
        }
    }
}

static tess_status add_member(tess_dataset *ds, uint32_t file, group *g, const tess__tar_member *m)
{
    size_t key_bytes;
    const char *suffix;
    if (!m->is_file || !split_name(m, &key_bytes, &suffix)) {
        return TESS_OK;
    }
    int64_t rank = picture_rank(ds, suffix);
    bool is_same =
        g->is_open && key_bytes == g->key_bytes && memcmp(m->name, g->key, key_bytes) == 0;
    if (!is_same || is_repeated(ds, g, rank, suffix)) {
        TESS_TRY(finish(ds, g));
        start(g, file, m, key_bytes);
    }
    put(ds, g, m, rank, suffix);
    return TESS_OK;
}

static tess_status index_tar(tess_dataset *ds, uint32_t file)
{
    tess__tar tar = {.map = ds->files[file].map};
    group *g = tess_alloc(sizeof *g);
    tess__tar_member *m = tess_alloc(sizeof *m);
    tess_status st = g && m ? TESS_OK : TESS_NOMEM;
    while (st == TESS_OK) {
        bool is_end;
        tess_bad bad = TESS_BAD_NONE;
        st = tess__tar_next(&tar, m, &is_end, &bad);
        if (bad != TESS_BAD_NONE) {
            bool is_clean = bad == TESS_BAD_TRUNCATED && tar.at == tar.map.n_bytes && tar.at > 0 &&
                            m->begin == tar.at;
            st =
                tess__index_bad(ds, file, bad, g->key, g->is_open ? g->key_bytes : 0, tess_error());
            g->is_open = g->is_open && is_clean;
            break;
        }
        if (st != TESS_OK || is_end) {
            break;
        }
        st = add_member(ds, file, g, m);
    }
    if (st == TESS_OK) {
        st = finish(ds, g);
    }
    tess_free(g);
    tess_free(m);
    return st;
}

static tess_bytes member_bytes(const tess_dataset *ds, const tess__record *r, uint32_t at,
                               uint32_t n_bytes)
{
    const tess__file *f = &ds->files[r->file];
    if (at == TESS__NOT_THERE) {
        return (tess_bytes){0};
    }
    return (tess_bytes){f->map.data + r->begin + (uint64_t)at * TESS__TAR_BLOCK, n_bytes};
}

static tess_status read_tar(const tess_dataset *ds, const tess__record *r, int parts,
                            tess_sample *s)
{
    tess__caption_source from = {
        .text = member_bytes(ds, r, r->text_at, r->text_bytes),
        .json = member_bytes(ds, r, r->json_at, r->json_bytes),
    };
    if (parts & TESS_READ_PICTURE) {
        s->picture = member_bytes(ds, r, r->picture_at, r->picture_bytes);
    }
    return parts & TESS_READ_CAPTIONS ? tess__captions_read(ds, &from, s) : TESS_OK;
}

static tess_status read_tar_key(const tess_dataset *ds, const tess__record *r, tess_sample *s)
{
    tess__tar tar = {.map = ds->files[r->file].map, .at = (size_t)r->begin};
    tess__tar_member m;
    size_t key_bytes;
    const char *suffix;
    bool is_end;
    tess_bad bad = TESS_BAD_NONE;
    tess_status st = tess__tar_next(&tar, &m, &is_end, &bad);
    if (st == TESS_OK && !is_end && split_name(&m, &key_bytes, &suffix)) {
        return tess__sample_set_key(s, m.name, key_bytes);
    }
    tess__sample_spoil(s, TESS_BAD_TAR_HEADER, "the shard was changed while it is open");
    return tess__sample_set_key(s, "", 0);
}

const tess__source tess__source_tar = {
    .type = "webdataset",
    .suffixes = "tar",
    .is_mapped = true,
    .index = index_tar,
    .read = read_tar,
    .read_key = read_tar_key,
};
