/* SPDX-License-Identifier: Apache-2.0 */
/* Low-rank adapters: PEFT's open here and give PEFT's features, ours are what PEFT opened (the
 * fixture's bytes), merged equals applied, several stack, training moves nothing but them, and what
 * does not fit is refused by name.
 *
 * Tolerances: features are unit rows of EMBED elements; an f32 forward pass of two blocks over sums
 * of at most HIDDEN = 64 products differs from f64 by about 8 * 2^-23 * sqrt(64) = 8e-6 relative to
 * the largest intermediate, here below 10; 1e-4 is the acceptance, 3e-5 is what is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fusion/lora.h"
#include "fusion_fixture.h"

enum { EMBED = 16, TEXTS = PICTURES * SLOTS };
#define TOLERANCE 3e-5f

static fixture_batch batch;
static tess_tensors *expected;

static int open_all(void **state)
{
    fixture_open(&batch);
    ok(tess_tensors_open(FIXTURE "lora.safetensors", &expected));
    return fixture_make_root(state);
}

static int close_all(void **state)
{
    tess_tensors_free(expected);
    tess_tensors_free(batch.file);
    return fixture_remove_root(state);
}

/* ---- features ------------------------------------------------------------------------------ */

typedef struct features {
    float image[PICTURES * EMBED], text[TEXTS * EMBED];
} features;

static features embed(tess_model *m)
{
    features f;
    ok(tess_model_embed_pictures(m, batch.pictures, PICTURES, f.image));
    ok(tess_model_embed_tokens(m, batch.tokens, batch.offsets64, TEXTS, f.text));
    return f;
}

static float distance(const features *a, const features *b)
{
    const float *x = (const float *)a, *y = (const float *)b;
    float most = 0;
    for (size_t i = 0; i < sizeof *a / sizeof *x; i++) {
        most = fmaxf(most, fabsf(x[i] - y[i]));
    }
    return most;
}

static features expect(const char *name)
{
    features f;
    char key[64];
    snprintf(key, sizeof key, "%s/image", name);
    const tess_tensor *image = tess_tensors_find(expected, key);
    snprintf(key, sizeof key, "%s/text", name);
    const tess_tensor *text = tess_tensors_find(expected, key);
    assert_true(image && text && image->n_bytes == sizeof f.image);
    memcpy(f.image, image->data, sizeof f.image);
    memcpy(f.text, text->data, sizeof f.text);
    return f;
}

static tess_model *base(void)
{
    return fixture_model("tok_last", TESS_PRECISION_F32);
}

static tess_model *adapted(const char *const *specs, size_t n)
{
    tess_model *m = base();
    ok(tess_model_adapt(m, specs, n));
    return m;
}

/* A fresh adapter whose B is not zero: ends differ, as training would leave it. */
static tess_model *trained(const tess_lora_options *o)
{
    tess_model *m = base();
    ok(tess_model_add_lora(m, o, 7));
    for (size_t i = 0; i < m->lora->parts.n; i++) {
        const tess_lora_part *p = &m->lora->parts.items[i];
        float *a, *b;
        int64_t width, rank;
        tess__lora_site(m, p, &a, &b, &width, &rank);
        for (int64_t r = p->module.row; r < p->module.row + p->module.n_rows; r++) {
            for (int64_t k = p->col; k < p->col + p->rank; k++) {
                b[r * rank + k] =
                    (float)(fixture_mixed(p->module.path, r * rank + k) >> 40) / 16777216 - 0.5f;
            }
        }
    }
    tess__model_free_plans(m);
    return m;
}

static const tess_lora_options ours = {
    .rank = 4, .alpha = 6, .target = "q_proj,k_proj,fc2,text_projection", .base = "tok_last"};

/* ---- PEFT ---------------------------------------------------------------------------------- */

static void test_opens_what_peft_made(void **state)
{
    (void)state;
    static const char *const names[] = {"none", "hf", "openclip", "ours"};
    static const char *const dirs[] = {NULL, FIXTURE "lora_hf", FIXTURE "lora_openclip",
                                       FIXTURE "lora_ours"};
    features none = expect("none");
    for (int i = 0; i < 4; i++) {
        tess_model *m = adapted(&dirs[i], dirs[i] != NULL);
        features have = embed(m), want = expect(names[i]);
        print_message("%-9s differs from PEFT by %.1e, from none by %.2f\n", names[i],
                      (double)distance(&have, &want), (double)distance(&have, &none));
        assert_true(distance(&have, &want) < TOLERANCE);
        assert_true(i == 0 || distance(&have, &none) > 0.05f);
        tess_model_free(m);
    }
}

static void assert_same_file(const char *a, const char *b)
{
    uint8_t *x, *y;
    size_t n_x, n_y;
    ok(tess_file_read(a, 1 << 20, &x, &n_x));
    ok(tess_file_read(b, 1 << 20, &y, &n_y));
    assert_int_equal(n_x, n_y);
    assert_memory_equal(x, y, n_x);
    tess_free(x);
    tess_free(y);
}

/* Names, shapes and numbers; the metadata names the base. */
static void assert_same_tensors(const char *a, const char *b)
{
    tess_tensors *x, *y;
    ok(tess_tensors_open(a, &x));
    ok(tess_tensors_open(b, &y));
    assert_int_equal(tess_tensors_count(x), tess_tensors_count(y));
    for (int64_t i = 0; i < tess_tensors_count(x); i++) {
        const tess_tensor *t = tess_tensors_at(x, i), *u = tess_tensors_at(y, i);
        assert_string_equal(t->name, u->name);
        assert_true(tess_shape_equal(&t->shape, &u->shape));
        assert_memory_equal(t->data, u->data, t->n_bytes);
    }
    tess_tensors_free(x);
    tess_tensors_free(y);
}

/* lora_ours is what this wrote when make_lora.py ran it, and what PEFT then opened. */
static void test_writes_what_peft_opened(void **state)
{
    (void)state;
    tess_model *m = trained(&ours);
    const char *out = getenv("TESSERA_LORA_OUT");
    ok(tess_model_save_adapter(m, out ? out : fixture_at("ours")));
    if (!out) {
        assert_same_file(fixture_at("ours/adapter_config.json"),
                         FIXTURE "lora_ours/adapter_config.json");
        assert_same_tensors(fixture_at("ours/adapter_model.safetensors"),
                            FIXTURE "lora_ours/adapter_model.safetensors");
        features a = embed(m), b = expect("ours");
        assert_true(distance(&a, &b) < TOLERANCE);
    }
    tess_model_free(m);
}

/* Both namings of everything, written, opened again: the same features to the last bit but for the
 * factor, which is in B from the start. */
static void test_round_trip(void **state)
{
    (void)state;
    static const char *const targets[] = {"all-linear", "attn.in_proj, mlp.*", "*_proj,fc1"};
    static const tess_lora_names names[] = {TESS_LORA_HF, TESS_LORA_OPENCLIP, TESS_LORA_AUTO};
    for (int i = 0; i < 3; i++) {
        tess_model *m = trained(&(tess_lora_options){.rank = 3,
                                                     .alpha = 2,
                                                     .rank_stabilized = true,
                                                     .target = targets[i],
                                                     .names = names[i]});
        const char *dir = fixture_at("trip");
        ok(tess_model_save_adapter(m, dir));
        tess_model *again = adapted(&dir, 1);
        features a = embed(m), b = embed(again);
        assert_true(distance(&a, &b) < 2e-6f);
        ok(tess_model_save_adapter(m, dir)); /* replaces */
        tess_model_free(m);
        tess_model_free(again);
    }
}

/* ---- stacking and merging ------------------------------------------------------------------ */

/* The merged weight is rounded once more than the applied sum: 2^-24 of it an element. */
static void test_merged_equals_applied(void **state)
{
    (void)state;
    static const char *const specs[] = {FIXTURE "lora_hf", FIXTURE "lora_openclip:-0.5",
                                        FIXTURE "lora_hf:0.25"};
    for (size_t n = 1; n <= 3; n++) {
        char before[33], after[33], applied_print[33];
        tess_model *m = base();
        ok(tess_model_fingerprint(m, before));
        ok(tess_model_adapt(m, specs, n));
        ok(tess_model_fingerprint(m, applied_print));
        features applied = embed(m);
        ok(tess_model_merge_adapters(m));
        assert_false(tess_model_has_adapters(m));
        ok(tess_model_fingerprint(m, after));
        assert_string_not_equal(before, applied_print);
        assert_string_not_equal(before, after);
        features merged = embed(m);
        print_message("%zu adapters: merged differs from applied by %.1e\n", n,
                      (double)distance(&applied, &merged));
        assert_true(distance(&applied, &merged) < 1e-5f);
        ok(tess_model_save(m, fixture_at("merged")));
        tess_model *again = NULL;
        ok(tess_model_open(fixture_at("merged"), TESS_PRECISION_F32, &again));
        features opened = embed(again);
        assert_memory_equal(&opened, &merged, sizeof opened);
        tess_model_free(again);
        tess_model_free(m);
    }
}

static void test_weights_add_up(void **state)
{
    (void)state;
    static const char *const once[] = {FIXTURE "lora_hf"};
    static const char *const parts[] = {FIXTURE "lora_hf:0.75", FIXTURE "lora_hf:0.25"};
    static const char *const nothing[] = {FIXTURE "lora_hf:0"};
    tess_model *a = adapted(once, 1), *b = adapted(parts, 2), *c = adapted(nothing, 1);
    features x = embed(a), y = embed(b), z = embed(c), none = expect("none");
    assert_true(distance(&x, &y) < 1e-5f);
    assert_true(distance(&z, &none) < TOLERANCE);
    tess_model_free(a);
    tess_model_free(b);
    tess_model_free(c);
}

static void test_bf16(void **state)
{
    (void)state;
    const char *dir = FIXTURE "lora_hf";
    tess_model *m = fixture_model("tok_last", TESS_PRECISION_BF16);
    ok(tess_model_adapt(m, &dir, 1));
    features a = embed(m), b = expect("hf");
    print_message("bf16 differs from PEFT's f64 by %.3f\n", (double)distance(&a, &b));
    assert_true(distance(&a, &b) < 0.05f);
    tess_model_free(m);
}

/* relu is apart from its product where that is adapted; the pooling head has its own names. */
static void test_relu_and_pooling_head(void **state)
{
    (void)state;
    tess_model *m = fixture_model("map_last", TESS_PRECISION_F32);
    tess_lora_options o = {.rank = 2,
                           .target = "c_fc,q_proj,kv_proj,attn_pool.attn.out_proj",
                           .names = TESS_LORA_OPENCLIP};
    ok(tess_model_add_lora(m, &o, 1));
    int64_t n;
    float *x = tess_store_group(m->store, "lora", &n);
    for (int64_t i = 0; i < n; i++) {
        x[i] = x[i] != 0 ? x[i] : (float)(i % 7 - 3) * 0.05f;
    }
    features applied = embed(m);
    ok(tess_model_merge_adapters(m));
    features merged = embed(m);
    assert_true(distance(&applied, &merged) < 1e-5f);
    tess_model_free(m);
}

/* ---- training ------------------------------------------------------------------------------ */

static float step(tess_trainer *t, int64_t i)
{
    tess_micro_batch b = fixture_micro_batch(&batch);
    float loss, norm;
    tess_trainer_debug(t, i == 1);
    ok(tess_trainer_micro_step(t, &b, &loss));
    ok(tess_trainer_update(t, 5e-3, i, &norm));
    assert_true(isfinite(norm) && norm > 0);
    return loss;
}

static bool between_blocks_is_zero(const tess_model *m)
{
    bool clean = true;
    for (int64_t s = 0; s < m->lora->n_sites; s++) {
        tess_shape shape;
        char name[256];
        snprintf(name, sizeof name, "%s.lora_B", m->lora->sites[s].weight);
        const float *b = tess_store_find(m->store, "lora", name, &shape);
        for (int64_t i = 0; i < tess_shape_count(&shape); i++) {
            int64_t row = i / shape.dim[1], col = i % shape.dim[1];
            bool inside = false;
            for (size_t k = 0; k < m->lora->parts.n; k++) {
                const tess_lora_part *p = &m->lora->parts.items[k];
                inside |= p->site == s && row >= p->module.row &&
                          row < p->module.row + p->module.n_rows && col >= p->col &&
                          col < p->col + p->rank;
            }
            clean &= inside || b[i] == 0;
        }
    }
    return clean;
}

static void test_training_moves_the_adapter_alone(void **state)
{
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        tess_model *m = base();
        int64_t n, n_lora, n_m;
        const float *x = tess_store_group(m->store, "param", &n);
        float *before = tess_alloc_array((size_t)n, sizeof *before);
        memcpy(before, x, (size_t)n * sizeof *x);
        features first = embed(m);
        ok(tess_model_add_lora(m, &ours, 7));
        features fresh = embed(m);
        assert_true(distance(&first, &fresh) < 1e-6f); /* B is zero */
        tess_trainer_options o = fixture_options();
        o.recompute = recompute;
        tess_trainer *t = NULL;
        ok(tess_trainer_new(m, &o, &t));
        float loss = step(t, 1), last = loss;
        for (int64_t i = 2; i <= 30; i++) {
            last = step(t, i);
        }
        print_message("loss %.3f to %.3f\n", (double)loss, (double)last);
        assert_true(last < 0.8f * loss);
        assert_memory_equal(before, x, (size_t)n * sizeof *x);
        tess_store_group(m->store, "lora", &n_lora);
        tess_store_group(m->store, "m", &n_m);
        assert_int_equal(n_lora, n_m);
        assert_true(between_blocks_is_zero(m));
        tess_trainer_free(t);
        tess_model_free(m);
        tess_free(before);
    }
}

/* Matrices held in bf16 alone are the casts that a step makes: the same bits come out. */
static void test_narrow(void **state)
{
    (void)state;
    float loss[2];
    tess_model *m[2];
    for (int i = 0; i < 2; i++) {
        m[i] = fixture_model("tok_last", TESS_PRECISION_BF16);
        ok(tess_model_add_lora(m[i], &ours, 7));
        ok(i ? tess_model_narrow(m[i]) : TESS_OK);
        tess_trainer_options o = fixture_options();
        tess_trainer *t = NULL;
        ok(tess_trainer_new(m[i], &o, &t));
        for (int64_t k = 1; k <= 3; k++) {
            loss[i] = step(t, k);
        }
        tess_trainer_free(t);
    }
    int64_t n;
    const float *a = tess_store_group(m[0]->store, "lora", &n);
    assert_memory_equal(a, tess_store_group(m[1]->store, "lora", &n), (size_t)n * sizeof *a);
    features x = embed(m[0]), y = embed(m[1]);
    assert_true(loss[0] == loss[1]);
    assert_memory_equal(&x, &y, sizeof x);
    char print[33];
    assert_fails(tess_model_save(m[1], fixture_at("n")), TESS_INVALID, "saving model");
    assert_fails(tess_model_merge_adapters(m[1]), TESS_INVALID, "given up its f32 weights");
    assert_fails(tess_model_fingerprint(m[1], print), TESS_INVALID, "given up its f32 weights");
    ok(tess_model_save_adapter(m[1], fixture_at("n")));
    tess_model_free(m[0]);
    tess_model_free(m[1]);
}

static size_t state_bytes(const tess_store *s)
{
    static const char *const groups[] = {"param", "half", "lora", "grad", "m", "v"};
    size_t bytes = 0;
    for (int64_t i = 0; i < TESS_COUNT(groups); i++) {
        int64_t n = 0;
        if (tess_store_group(s, groups[i], &n)) {
            bytes += (size_t)n * tess_dtype_bytes(tess_store_dtype(s, groups[i]));
        }
    }
    return bytes;
}

/* What is frozen has no gradient and no moments, and leaves no trace in the backward pass: less
 * memory, fewer operations. */
static void test_pruned(void **state)
{
    (void)state;
    size_t bytes[3];
    double flops[3];
    static const char *const targets[] = {NULL, "all-linear", "layers.1.self_attn.v_proj"};
    for (int i = 0; i < 3; i++) {
        tess_model *m = fixture_model("tok_last", TESS_PRECISION_BF16);
        if (targets[i]) {
            ok(tess_model_add_lora(
                m, &(tess_lora_options){.rank = 1, .target = targets[i], .names = TESS_LORA_HF},
                1));
            ok(tess_model_narrow(m)); /* the other trains with bf16 copies too */
        }
        tess_trainer_options o = fixture_options();
        tess_trainer *t = NULL;
        ok(tess_trainer_new(m, &o, &t));
        step(t, 1);
        bytes[i] = tess_trainer_memory(t) + state_bytes(m->store);
        flops[i] = tess_trainer_flops(t);
        tess_trainer_free(t);
        tess_model_free(m);
    }
    print_message(
        "workspace and states: all weights %zu, adapters everywhere %zu, of the last block %zu\n",
        bytes[0], bytes[1], bytes[2]);
    assert_true(bytes[2] < bytes[1] && bytes[1] < bytes[0]);
    assert_true(flops[2] < 0.7 * flops[1] && flops[1] < 0.85 * flops[0]);
}

/* ---- refusals ------------------------------------------------------------------------------ */

static void test_bad_options(void **state)
{
    (void)state;
    tess_model *m = base();
    tess_lora_options o = {.rank = 0};
    assert_fails(tess_model_add_lora(m, &o, 1), TESS_INVALID, "rank: expected 1");
    o.rank = 4;
    o.target = "q_prj";
    assert_fails(tess_model_add_lora(m, &o, 1), TESS_INVALID, "\"q_prj\" matches no linear layer");
    assert_non_null(strstr(tess_error(), "self_attn.q_proj"));
    assert_non_null(strstr(tess_error(), "attn.in_proj"));
    o.target = "c_fc";
    o.names = TESS_LORA_HF;
    assert_fails(tess_model_add_lora(m, &o, 1), TESS_INVALID, "\"c_fc\" matches no linear layer");
    o.target = " , ";
    assert_fails(tess_model_add_lora(m, &o, 1), TESS_INVALID, "names no layer");
    o.alpha = (double)NAN;
    assert_fails(tess_model_add_lora(m, &o, 1), TESS_INVALID, "alpha");
    ok(tess_model_add_lora(m, &ours, 1));
    assert_fails(tess_model_add_lora(m, &ours, 1), TESS_INVALID, "has taken its adapters");
    tess_trainer *t = NULL;
    tess_trainer_options muon = fixture_options();
    muon.muon = true;
    assert_fails(tess_trainer_new(m, &muon, &t), TESS_INVALID, "AdamW");
    ok(tess_dir_make(fixture_at("taken")));
    assert_fails(tess_model_save_adapter(m, fixture_at("taken")), TESS_INVALID, "no adapter");
    tess_model_free(m);
    const char *dir = FIXTURE "lora_hf";
    m = adapted(&dir, 1);
    assert_fails(tess_model_save_adapter(m, fixture_at("x")), TESS_INVALID, "made for training");
    tess_trainer_options o2 = fixture_options();
    assert_fails(tess_trainer_new(m, &o2, &t), TESS_INVALID, "for use");
    tess_model_free(m);
}

/* An adapter of `tensors` under a config with `setting` in it. */
static void write_adapter(const char *setting, const tess_tensor *tensors, int64_t n)
{
    char text[600];
    int k = snprintf(text, sizeof text,
                     "{\"r\": 2, \"lora_alpha\": 2, \"peft_type\": \"LORA\", \"bias\": \"none\"%s}",
                     setting);
    ok(tess_dir_make(fixture_at("bad")));
    ok(tess_file_write(fixture_at("bad/adapter_config.json"), text, (size_t)k));
    ok(tess_tensors_save(fixture_at("bad/adapter_model.safetensors"), tensors, n, NULL, 0));
}

static void refuse(tess_status status, const char *text)
{
    tess_model *m = base();
    const char *dir = fixture_at("bad");
    assert_fails(tess_model_adapt(m, &dir, 1), status, text);
    assert_false(tess_model_has_adapters(m));
    tess_model_free(m);
}

#define KEY "base_model.model.vision_model.encoder.layers.0."
static float numbers[64 * 2];

static void test_bad_configs(void **state)
{
    (void)state;
    const tess_tensor good[] = {
        {KEY "mlp.fc1.lora_A.weight", "F32", {2, {2, 32}}, (const uint8_t *)numbers, 256},
        {KEY "mlp.fc1.lora_B.weight", "F32", {2, {64, 2}}, (const uint8_t *)numbers, 512},
    };
    static const char *const settings[][2] = {
        {", \"use_dora\": true", "use_dora"},
        {", \"modules_to_save\": [\"classifier\"]", "modules_to_save"},
        {", \"alpha_pattern\": {\"q_proj\": 3}", "alpha_pattern"},
        {", \"init_lora_weights\": \"pissa\"", "init_lora_weights"},
        {", \"lora_bias\": true", "lora_bias"},
        {", \"fan_in_fan_out\": true", "fan_in_fan_out"},
        {", \"of_the_future\": 3", "of_the_future"},
    };
    for (int64_t i = 0; i < TESS_COUNT(settings); i++) {
        write_adapter(settings[i][0], good, 2);
        refuse(TESS_UNSUPPORTED, settings[i][1]);
    }
    write_adapter(", \"use_dora\": false, \"of_the_future\": null, \"layers_pattern\": []", good,
                  2);
    const char *dir = fixture_at("bad");
    tess_model_free(adapted(&dir, 1));
    static const char *const texts[][2] = {
        {"{\"peft_type\": \"IA3\"}", "peft_type: expected \"LORA\", found \"IA3\""},
        {"{\"r\": 4}", "peft_type"},
        {"[]", "peft_type"},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 1}", "r: expected 1"},
        {"{\"peft_type\": \"LORA\", \"r\": 1}", "lora_alpha: expected a number"},
        {"{", "adapter_config.json"},
    };
    for (int64_t i = 0; i < TESS_COUNT(texts); i++) {
        ok(tess_file_write(fixture_at("bad/adapter_config.json"), texts[i][0],
                           strlen(texts[i][0])));
        tess_model *m = base();
        assert_true(tess_model_adapt(m, &dir, 1) != TESS_OK);
        assert_non_null(strstr(tess_error(), texts[i][1]));
        tess_model_free(m);
    }
}

static void test_bad_tensors(void **state)
{
    (void)state;
    const uint8_t *data = (const uint8_t *)numbers;
    tess_tensor t[] = {
        {KEY "mlp.fc1.lora_A.weight", "F32", {2, {2, 32}}, data, 256},
        {KEY "mlp.fc1.lora_B.weight", "F32", {2, {63, 2}}, data, 504},
        {KEY "mlp.fc9.lora_A.weight", "F32", {2, {2, 32}}, data, 256},
        {KEY "mlp.fc2.lora_magnitude_vector", "F32", {1, {32}}, data, 128},
        {KEY "mlp.fc2.lora_A.weight", "F32", {2, {2, 64}}, data, 512},
    };
    write_adapter("", t, 5);
    refuse(TESS_FORMAT, "misshapen " KEY "mlp.fc1.lora_B.weight (expected (64,2), found (63,2))");
    refuse(TESS_FORMAT, "no such layer: " KEY "mlp.fc9.lora_A.weight");
    refuse(TESS_FORMAT, "not a LoRA matrix: " KEY "mlp.fc2.lora_magnitude_vector");
    refuse(TESS_FORMAT, "missing " KEY "mlp.fc2.lora_B.weight");
    write_adapter("", t, 0);
    refuse(TESS_FORMAT, "holds no tensors");
    t[1].shape = TESS_SHAPE_OF(64, 2);
    t[1].n_bytes = 512;
    numbers[3] = (float)NAN;
    write_adapter("", t, 2);
    numbers[3] = 0;
    refuse(TESS_FORMAT, "not finite");
    t[0].dtype = "I32";
    write_adapter("", t, 2);
    refuse(TESS_FORMAT, "no float type in");
    tess_model *m = base();
    const char *specs[] = {FIXTURE "lora_hf:nan"}, *absent[] = {"/nonexistent/adapter"};
    assert_fails(tess_model_adapt(m, specs, 1), TESS_INVALID, "weight is not finite");
    assert_fails(tess_model_adapt(m, absent, 1), TESS_IO, "/nonexistent/adapter");
    tess_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_what_peft_opened),
        cmocka_unit_test(test_opens_what_peft_made),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_merged_equals_applied),
        cmocka_unit_test(test_weights_add_up),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_relu_and_pooling_head),
        cmocka_unit_test(test_training_moves_the_adapter_alone),
        cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_pruned),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_bad_configs),
        cmocka_unit_test(test_bad_tensors),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
