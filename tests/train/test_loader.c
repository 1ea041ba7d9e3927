/* SPDX-License-Identifier: Apache-2.0 */
/* The loader: the same batches whatever the threads, caches, ranks and resumes; damage counted. */
#include "train/data_fakes.h"

#include <pthread.h>
#include <stdatomic.h>

#define SIZE       4
#define MAX_TOKENS 6

static const tess_loader_options plain = {
    .batch = 40,
    .size = SIZE,
    .captions_per_image = 3,
    .max_tokens = MAX_TOKENS,
    .seed = 11,
    .temperature = 2,
};

static tess_loader *open_loader(const tess_dataset *ds, tess_loader_options o)
{
    tess_loader *l;
    if (!o.hooks.decode) {
        o.hooks = fake_hooks;
    }
    if (tess_loader_new(ds, &o, &l) != TESS_OK) {
        fail_msg("%s", tess_error());
    }
    return l;
}

/* What went wrong with samples, as it was done and as it must be counted. */
typedef struct manifest {
    int64_t counts[TESS_BAD_COUNT];
    int64_t n_good, n_samples; /* n_samples: in the data set after indexing */
} manifest;

static void add_sample(tess_buf *tar, int i, const char *picture, const char *json)
{
    char name[32];
    snprintf(name, sizeof name, "%04d.jpg", i);
    if (picture) {
        tar_adds(tar, name, picture);
    }
    snprintf(name, sizeof name, "%04d.json", i);
    if (json) {
        tar_adds(tar, name, json);
    }
}

/* One in `one_in` samples is damaged, in turn in each of nine ways (0: none). */
static tess_dataset *open_damaged(int n, int one_in, manifest *m)
{
    static const struct {
        const char *picture, *json;
        tess_bad reason, caption_reason;
        bool is_indexed, is_good;
    } ways[] = {
        {"NOT A PICTURE", "{\"captions\":{\"en\":\"x\"}}", TESS_BAD_DECODE, 0, true, false},
        {"", "{\"captions\":{\"en\":\"x\"}}", TESS_BAD_DECODE, 0, true, false},
        {"PIC 1", "{\"captions\":{\"en\":", TESS_BAD_JSON, 0, true, false},
        {"PIC 1", "{\"captions\":{}}", TESS_BAD_NO_CAPTION, 0, true, false},
        {"PIC 1", "{\"captions\":{\"en\":\" \"}}", TESS_BAD_NO_CAPTION, TESS_BAD_CAPTION_EMPTY,
         true, false},
        {"PIC 1", "{\"captions\":{\"en\":\"moji\"}}", TESS_BAD_NO_CAPTION,
         TESS_BAD_CAPTION_MOJIBAKE, true, false},
        {"PIC 1", "{\"captions\":{\"en\":\"void\"}}", TESS_BAD_NO_CAPTION, 0, true, false},
        {NULL, "{\"captions\":{\"en\":\"x\"}}", TESS_BAD_NO_PICTURE, 0, false, false},
        {"PIC 1", NULL, TESS_BAD_NO_CAPTION, 0, false, false},
        {"PIC 1", "{\"captions\":{\"en\":[\"fine\",\"moji\"]}}", 0, TESS_BAD_CAPTION_MOJIBAKE, true,
         true},
    };
    tess_buf tar = {0};
    *m = (manifest){0};
    for (int i = 0; i < n; i++) {
        char picture[32], json[300];
        snprintf(picture, sizeof picture, "PIC %d", i);
        snprintf(json, sizeof json,
                 "{\"captions\":{\"en\":[\"e%d\",\"void\"],\"de\":\"deutsch %d\"%s}}", i, i,
                 i % 5 == 0 ? ",\"fr\":\"f\"" : "");
        if (one_in == 0 || i % one_in != 0) {
            add_sample(&tar, i, picture, json);
            m->n_good++;
            m->n_samples++;
            continue;
        }
        int w = i / one_in % (int)TESS_COUNT(ways);
        add_sample(&tar, i, ways[w].picture, ways[w].json);
        m->counts[ways[w].reason]++;
        m->counts[ways[w].caption_reason]++;
        m->n_samples += ways[w].is_indexed;
        m->n_good += ways[w].is_good;
    }
    m->counts[TESS_BAD_NONE] = 0;
    tar_write(&tar, "d.tar");
    return open_data(run_path("d.tar"), (tess_dataset_options){0});
}

/* One number for all that a batch holds. */
static uint64_t digest(const tess_batch *b, uint64_t h)
{
    size_t n = (size_t)b->n_pictures, n_segments = n * (size_t)b->n_captions;
    h = tess_hash64(&b->counter, sizeof b->counter, h);
    h = tess_hash64(&b->epoch, sizeof b->epoch, h);
    h = tess_hash64(b->pictures, n * SIZE * SIZE * 3, h);
    h = tess_hash64(b->samples, n * sizeof *b->samples, h);
    h = tess_hash64(b->ids, n * sizeof *b->ids, h);
    h = tess_hash64(b->ok, n * sizeof *b->ok, h);
    h = tess_hash64(b->tokens, (size_t)b->n_tokens * sizeof *b->tokens, h);
    h = tess_hash64(b->positions, (size_t)b->n_tokens * sizeof *b->positions, h);
    h = tess_hash64(b->offsets, (n_segments + 1) * sizeof *b->offsets, h);
    return tess_hash64(b->languages, n_segments * sizeof *b->languages, h);
}

static uint64_t digest_run(tess_loader *l, int n_batches)
{
    uint64_t h = 0;
    for (int i = 0; i < n_batches; i++) {
        const tess_batch *b;
        if (tess_loader_read(l, &b) != TESS_OK) {
            fail_msg("%s", tess_error());
        }
        h = digest(b, h);
    }
    return h;
}

static void test_what_a_batch_holds(void **state)
{
    manifest m;
    const tess_batch *b;
    (void)state;
    tess_dataset *ds = open_damaged(100, 0, &m);
    tess_loader *l = open_loader(ds, plain);
    assert_int_equal(tess_loader_batches_per_epoch(l), 2);
    for (int step = 0; step < 5; step++) {
        bool seen[100] = {0};
        assert_int_equal(tess_loader_read(l, &b), TESS_OK);
        assert_int_equal(b->counter, step * 40);
        assert_int_equal(b->epoch, step / 2);
        assert_int_equal(b->n_pictures, 40);
        for (int i = 0; i < 40; i++) {
            uint32_t n;
            int languages = 0;
            memcpy(&n, b->pictures + i * SIZE * SIZE * 3, 4);
            assert_int_equal(n, b->samples[i]);
            assert_int_equal(b->ids[i], tess_dataset_id(ds, n));
            assert_true(!seen[n] && b->ok[i]);
            seen[n] = true;
            for (int k = 0; k < 3; k++) {
                int s = k * 40 + i;
                const int32_t *ids = b->tokens + b->offsets[s];
                int length = b->offsets[s + 1] - b->offsets[s];
                assert_true(length > 0 && length <= MAX_TOKENS);
                assert_int_equal(b->positions[b->offsets[s]], 0);
                assert_int_equal(b->positions[b->offsets[s] + length - 1], length - 1);
                const char *language = tess_dataset_language(ds, b->languages[s]);
                assert_int_equal(ids[0], language[0]); /* never "void" */
                languages |= 1 << b->languages[s];
            }
            assert_int_equal(languages, n % 5 == 0 ? 7 : 3); /* as many as there are */
        }
        assert_int_equal(b->offsets[120], b->n_tokens);
    }
    tess_loader_free(l);
    tess_dataset_close(ds);
}

/* Threads, prefetching and caches change nothing. */
static void test_same_batches_whatever_the_threads(void **state)
{
    static const struct {
        int workers, prefetch;
        size_t cache_bytes, token_cache_bytes;
    } ways[] = {
        {0, 0, 0, 0},       {1, 1, 0, 0},          {2, 2, 1 << 20, 0},
        {4, 3, 0, 1 << 20}, {4, 1, 500, 2000},     {8, 8, 1 << 20, 1 << 20},
        {0, 0, 1, 1},       {3, 2, 1 << 20, 1000},
    };
    manifest m;
    uint64_t want[2] = {0}; /* views from full pictures, and from kept ones */
    (void)state;
    tess_dataset *ds = open_damaged(300, 20, &m);
    for (int64_t i = 0; i < TESS_COUNT(ways); i++) {
        for (int kept = 0; kept < 2; kept++) {
            tess_loader_options o = plain;
            o.workers = ways[i].workers;
            o.prefetch = ways[i].prefetch;
            o.cache_size = kept ? 3 : 0;
            o.cache_bytes = ways[i].cache_bytes;
            o.token_cache_bytes = ways[i].token_cache_bytes;
            tess_loader *l = open_loader(ds, o);
            uint64_t have = digest_run(l, 40);
            want[kept] = i == 0 ? have : want[kept];
            assert_true(have == want[kept]);
            tess_loader_stats stats = tess_loader_stats_get(l);
            assert_int_equal(stats.n_batches, 40);
            if (kept && ways[i].cache_bytes > 0) {
                assert_true(stats.cached_bytes <= ways[i].cache_bytes);
            }
            tess_loader_free(l);
        }
    }
    tess_dataset_close(ds);
}

static void test_seek_is_the_straight_run(void **state)
{
    manifest m;
    const tess_batch *b;
    uint64_t straight[30];
    (void)state;
    tess_dataset *ds = open_damaged(300, 20, &m);
    tess_loader_options o = plain;
    o.workers = 2;
    tess_loader *l = open_loader(ds, o);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(tess_loader_read(l, &b), TESS_OK);
        straight[i] = digest(b, 0);
    }
    for (int turn = 0; turn < 60; turn++) {
        int at = turn * 7 % 30;
        assert_int_equal(tess_loader_seek(l, at * 40), TESS_OK);
        for (int i = at; i < 30 && i < at + turn % 4; i++) {
            assert_int_equal(tess_loader_read(l, &b), TESS_OK);
            assert_true(digest(b, 0) == straight[i]);
        }
    }
    assert_int_equal(tess_loader_seek(l, 41), TESS_INVALID);
    assert_int_equal(tess_loader_seek(l, -40), TESS_INVALID);
    tess_loader_free(l);
    tess_dataset_close(ds);
}

/* The parts of the ranks, put together, are the batch of one rank. */
static void test_ranks_share_the_batch(void **state)
{
    manifest m;
    const tess_batch *whole, *part;
    (void)state;
    tess_dataset *ds = open_damaged(200, 10, &m);
    tess_loader *one = open_loader(ds, plain), *four[4];
    int64_t delivered[12][40], found[10];
    for (int r = 0; r < 4; r++) {
        tess_loader_options o = plain;
        o.rank = r, o.n_ranks = 4, o.workers = r % 2;
        four[r] = open_loader(ds, o);
    }
    for (int step = 0; step < 12; step++) {
        assert_int_equal(tess_loader_read(one, &whole), TESS_OK);
        for (int r = 0; r < 4; r++) {
            assert_int_equal(tess_loader_read(four[r], &part), TESS_OK);
            assert_int_equal(part->counter, whole->counter);
            assert_int_equal(part->n_pictures, 10);
            assert_memory_equal(part->samples, whole->samples + 10 * r, 10 * sizeof(int64_t));
            memcpy(delivered[step], whole->samples, sizeof delivered[step]);
            assert_memory_equal(part->pictures, whole->pictures + 10 * r * SIZE * SIZE * 3,
                                10 * SIZE * SIZE * 3);
            for (int k = 0; k < 3; k++) {
                assert_memory_equal(part->languages + 10 * k, whole->languages + 40 * k + 10 * r,
                                    10 * sizeof(int32_t));
            }
        }
    }
    for (int r = 0; r < 4; r++) {
        for (int64_t step = 0; step < 12; step++) {
            tess_loader_find(four[r], 40 * step, found);
            assert_memory_equal(found, delivered[step] + 10 * r, sizeof found);
        }
        tess_loader_free(four[r]);
    }
    tess_loader_free(one);
    tess_dataset_close(ds);
}

/* A fifth of the samples damaged: counts as in the manifest, the same survivors for any threads,
 * nothing bad delivered. */
static void test_damage_is_counted(void **state)
{
    static const int workers[] = {0, 1, 2, 4};
    manifest m;
    char *lists[4] = {0};
    uint64_t want = 0;
    (void)state;
    tess_dataset *ds = open_damaged(1000, 5, &m);
    assert_int_equal(tess_dataset_size(ds), m.n_samples);
    for (int w = 0; w < 4; w++) {
        bool seen[1000] = {0};
        int64_t n_seen = 0;
        tess_loader_options o = plain;
        o.workers = workers[w];
        o.max_bad_rate = .3;
        o.token_cache_bytes = w == 2 ? 1 << 20 : 0;
        tess_loader *l = open_loader(ds, o);
        uint64_t h = 0;
        for (int i = 0; i < 24 * 8; i++) {
            const tess_batch *b;
            assert_int_equal(tess_loader_read(l, &b), TESS_OK);
            h = digest(b, h);
            for (int k = 0; k < 40; k++) {
                n_seen += !seen[b->samples[k]];
                seen[b->samples[k]] = true;
            }
        }
        want = w == 0 ? h : want;
        assert_true(h == want);
        assert_int_equal(n_seen, m.n_good);
        for (int r = 0; r < TESS_BAD_COUNT; r++) {
            assert_int_equal(tess_loader_bad(l)->counts[r] + tess_dataset_bad(ds)->counts[r],
                             m.counts[r]);
        }
        tess_buf list = {0};
        tess_bad_list_write(tess_loader_bad(l), &list);
        lists[w] = list.data;
        assert_string_equal(lists[w], lists[0]);
        tess_loader_free(l);
    }
    for (int w = 0; w < 4; w++) {
        tess_buf_deinit(&(tess_buf){.data = lists[w], .cap_bytes = 1});
    }
    tess_dataset_close(ds);
}

static void test_too_much_damage_stops(void **state)
{
    manifest m;
    const tess_batch *b = NULL;
    tess_status st = TESS_OK;
    (void)state;
    tess_dataset *ds = open_damaged(1000, 5, &m);
    tess_loader_options o = plain;
    o.workers = 2;
    tess_loader *l = open_loader(ds, o);
    int n = 0;
    for (; st == TESS_OK && n < 100; n++) {
        st = tess_loader_read(l, &b);
    }
    assert_int_equal(st, TESS_FORMAT);
    assert_int_equal(n, 6); /* the first batch boundary behind 256 samples */
    assert_non_null(strstr(tess_error(), "decode (0"));
    assert_null(b);
    assert_int_equal(tess_loader_read(l, &b), TESS_FORMAT); /* and again, without hanging */
    assert_non_null(strstr(tess_error(), "decode (0"));
    tess_loader_free(l);
    tess_dataset_close(ds);
    /* Nothing but damage. */
    ds = open_damaged(120, 1, &m);
    o.max_bad_rate = 1;
    o.batch = 8;
    o.hooks = fake_hooks;
    o.hooks.decode = fake_decode;
    l = open_loader(ds, o);
    st = tess_loader_read(l, &b);
    assert_true(st == TESS_OK || st == TESS_FORMAT);
    tess_loader_free(l);
    tess_dataset_close(ds);
}

static void test_evaluation(void **state)
{
    manifest m;
    const tess_batch *b;
    int64_t n = 0, n_ok = 0;
    (void)state;
    tess_dataset *ds = open_damaged(300, 10, &m);
    tess_loader_options o = plain;
    o.evaluation = true;
    o.captions_per_image = 0;
    o.workers = 2;
    tess_loader *l = open_loader(ds, o);
    while (tess_loader_read(l, &b) == TESS_OK && b) {
        for (int64_t i = 0; i < b->n_pictures; i++, n++) {
            uint32_t pixel;
            memcpy(&pixel, b->pictures + i * SIZE * SIZE * 3, 4);
            assert_int_equal(b->samples[i], n);
            n_ok += b->ok[i];
            if (!b->ok[i]) {
                assert_int_equal(pixel, 0);
            }
        }
    }
    assert_null(b);
    assert_int_equal(n, m.n_samples);
    assert_int_equal(n_ok, m.n_samples - m.counts[TESS_BAD_DECODE]);
    assert_int_equal(tess_loader_seek(l, 0), TESS_OK);
    assert_int_equal(tess_loader_read(l, &b), TESS_OK);
    assert_int_equal(b->samples[39], 39);
    tess_loader_free(l);
    tess_dataset_close(ds);
}

/* A slow reader: no more than the ring is made ahead. */
static _Atomic int64_t n_decoded;

static tess_status counting_decode(void *ctx, void *scratch, tess_bytes encoded, tess_picture *out,
                                   tess_bad *out_bad)
{
    atomic_fetch_add(&n_decoded, 1);
    return fake_decode(ctx, scratch, encoded, out, out_bad);
}

static void test_no_more_than_the_ring_is_ahead(void **state)
{
    manifest m;
    const tess_batch *b;
    (void)state;
    tess_dataset *ds = open_damaged(300, 0, &m);
    tess_loader_options o = plain;
    o.hooks = fake_hooks;
    o.hooks.decode = counting_decode;
    o.workers = 4;
    o.prefetch = 2;
    tess_loader *l = open_loader(ds, o);
    assert_int_equal(tess_loader_read(l, &b), TESS_OK);
    for (int i = 0; i < 10; i++) {
        usleep(10000);
        assert_true(atomic_load(&n_decoded) <= 3 * 40);
    }
    tess_loader_free(l);
    tess_dataset_close(ds);
}

static void test_cancel(void **state)
{
    manifest m;
    const tess_batch *b;
    (void)state;
    tess_dataset *ds = open_damaged(300, 0, &m);
    for (int workers = 0; workers < 3; workers++) {
        tess_loader_options o = plain;
        o.workers = workers;
        tess_cancelled = 1;
        tess_loader *l = open_loader(ds, o);
        assert_int_equal(tess_loader_read(l, &b), TESS_CANCELLED);
        tess_loader_free(l);
        o.patient = true;
        l = open_loader(ds, o);
        assert_int_equal(tess_loader_read(l, &b), TESS_OK);
        assert_int_equal(b->n_pictures, plain.batch);
        tess_loader_free(l);
        tess_cancelled = 0;
    }
    tess_dataset_close(ds);
}

static void test_options_are_checked(void **state)
{
    manifest m;
    tess_loader *l;
    (void)state;
    tess_dataset *ds = open_damaged(50, 0, &m);
    tess_loader_options o[9];
    for (int i = 0; i < 9; i++) {
        o[i] = plain;
        o[i].hooks = fake_hooks;
    }
    o[0].batch = 51;
    o[1].batch = 0;
    o[2].max_tokens = 0;
    o[3].n_ranks = 3;
    o[4].rank = 1;
    o[5].temperature = -1;
    o[6].hooks.tokenize = NULL;
    o[7].size = 1 << 20;
    o[8].raw = true; /* which these hooks do not offer */
    for (int i = 0; i < 9; i++) {
        assert_int_equal(tess_loader_new(ds, &o[i], &l), TESS_INVALID);
        assert_null(l);
    }
    tess_dataset_close(ds);
}

/* The n-th allocation fails while loading: an error or the right batches, never a hang. */
static void test_memory_gives_out(void **state)
{
    manifest m;
    const tess_batch *b;
    (void)state;
    tess_dataset *ds = open_damaged(100, 10, &m);
    for (int64_t nth = 1, n_reached = 1; n_reached; nth += nth < 60 ? 1 : 37) {
        tess_loader_options o = plain;
        tess_loader *l = NULL;
        o.hooks = fake_hooks;
        o.workers = (int)(nth % 3);
        o.token_cache_bytes = 1 << 20;
        tess_fault_set(TESS_FAULT_ALLOC, nth, false);
        tess_status st = tess_loader_new(ds, &o, &l);
        for (int i = 0; i < 4 && st == TESS_OK; i++) {
            st = tess_loader_read(l, &b);
        }
        tess_loader_free(l);
        n_reached = tess_fault_count(TESS_FAULT_ALLOC) >= nth;
        tess_fault_set(TESS_FAULT_ALLOC, 0, false);
        assert_true(st == TESS_OK || st == TESS_NOMEM);
    }
    tess_dataset_close(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_batch_holds),
        cmocka_unit_test(test_same_batches_whatever_the_threads),
        cmocka_unit_test(test_seek_is_the_straight_run),
        cmocka_unit_test(test_ranks_share_the_batch),
        cmocka_unit_test(test_damage_is_counted),
        cmocka_unit_test(test_too_much_damage_stops),
        cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_no_more_than_the_ring_is_ahead),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_memory_gives_out),
    };
    return cmocka_run_group_tests(tests, run_dir_make, run_dir_remove);
}
