/* SPDX-License-Identifier: Apache-2.0 */
/* Resuming: a stopped run goes on to the bytes of the undisturbed one, damage is found, and every
 * piece of saved state is needed for that (each is tampered with in turn, its hashes put right).
 */
#include "train/tiny_run.h"

#include <sys/stat.h>

/* ---- metrics, but for their times ---------------------------------------------------------- */

static bool is_time(const char *key)
{
    static const char *const times[] = {"time",
                                        "train/data_time",
                                        "train/batch_time",
                                        "train/samples_per_second",
                                        "train/samples_per_second_per_gpu",
                                        "train/gflops"};
    bool found = false;
    for (int64_t i = 0; i < TESS_COUNT(times); i++) {
        found |= strcmp(key, times[i]) == 0;
    }
    return found;
}

static void add_timeless(tess_buf *out, const char *line, size_t n)
{
    tess_json_doc *doc = NULL;
    tess_json_writer w = {.buf = out};
    assert_int_equal(tess_json_parse(line, n, "metrics", &doc), TESS_OK);
    tess_json_begin_object(&w);
    for (size_t i = 0; i < tess_json_count(tess_json_root(doc)); i++) {
        const char *key;
        const tess_json *v = tess_json_member(tess_json_root(doc), i, &key);
        if (!is_time(key)) {
            tess_json_key(&w, key);
            tess_json_add_value(&w, v);
        }
    }
    tess_json_end_object(&w);
    tess_buf_adds(out, "\n");
    tess_json_free(doc);
}

static tess_buf metrics_of(const char *run, const char *file)
{
    char path[256];
    tess_buf out = {0};
    snprintf(path, sizeof path, "%s/%s", run, file);
    char *text = slurp(run_path(path), NULL);
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        add_timeless(&out, line, (size_t)(end - line));
    }
    tess_free(text);
    return out;
}

static void assert_same_metrics(const char *a, const char *b)
{
    static const char *const files[] = {"metrics.jsonl", "checkpoints/results.jsonl"};
    for (int64_t i = 0; i < TESS_COUNT(files); i++) {
        tess_buf x = metrics_of(a, files[i]), y = metrics_of(b, files[i]);
        assert_true(x.n_bytes > 0);
        assert_string_equal(x.data, y.data);
        tess_buf_deinit(&x);
        tess_buf_deinit(&y);
    }
}

/* ---- straight and resumed ------------------------------------------------------------------ */

/* With everything that a resume has to find again: augmentation, accumulation, evaluation. */
static tess_train_options rich_options(const char *name)
{
    tess_train_options o = tiny_options(name);
    o.augment = (tess_augment){.scale_min = 0.7, .scale_max = 1, .flip = true};
    o.captions_per_image = 2;
    o.batch_size = 4;
    o.accum_freq = 2;
    o.workers = 1;
    o.language_temperature = 2;
    o.grad_clip_norm = 1;
    o.warmup = 3;
    o.lr_scheduler = "cosine";
    o.optimizer = "muon";
    o.patch_dropout = 0.5;
    o.val_data = o.train_data;
    o.val_caption_key = "captions";
    o.val_frequency = 1;
    return o;
}

static void assert_same_checkpoints(const char *a, const char *b)
{
    static const char *const names[] = {"step_00000004", "epoch_1", "step_00000008", "epoch_2",
                                        "step_00000012"};
    for (int64_t i = 0; i < TESS_COUNT(names); i++) {
        char below[64];
        snprintf(below, sizeof below, "checkpoints/%s", names[i]);
        if (tree_hash(a, below) != tree_hash(b, below)) {
            fail_msg("%s: differs between %s and %s", names[i], a, b);
        }
    }
}

/* Stopped after each update: inside an epoch, at its end (before it is evaluated and saved), where
 * a checkpoint is due, and at the very end. */
static void test_resume_is_the_straight_run(void **state)
{
    (void)state;
    tess_train_options o = rich_options("straight");
    assert_trains(&o);
    for (int64_t step = 1; step <= 12; step++) {
        char name[32];
        snprintf(name, sizeof name, "stopped%lld", (long long)step);
        o = rich_options(name);
        if (step < 12) {
            train_until(o, step);
        } else {
            assert_trains(&o); /* a finished run that is resumed stays as it is */
        }
        o.resume = "latest";
        o.workers = 0;
        assert_trains(&o);
        assert_same_checkpoints("straight", name);
        assert_same_result("straight", name);
        assert_same_metrics("straight", name);
    }
}

/* What products read beside the parameters is in no checkpoint. */
static void test_weights_rounded_by_chance(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("chance");
    o.precision = TESS_PRECISION_BF16;
    o.stochastic_rounding = true;
    assert_trains(&o);
    o = tiny_options("chance_again");
    o.precision = TESS_PRECISION_BF16;
    o.stochastic_rounding = true;
    train_until(o, 5);
    o.resume = "latest";
    assert_trains(&o);
    assert_same_result("chance", "chance_again");
}

static void test_many_stops(void **state)
{
    (void)state;
    tess_train_options o = rich_options("stops");
    train_until(o, 1);
    o.resume = "latest";
    for (int64_t step = 3; step < 12; step += 2) {
        train_until(o, step);
    }
    assert_trains(&o);
    assert_same_checkpoints("straight", "stops");
    assert_same_metrics("straight", "stops");
}

static void test_latest_without_any(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("fresh");
    assert_int_equal(tess_dir_make(run_path("fresh/checkpoints/step_00000099.tmp")), TESS_OK);
    assert_int_equal(tess_dir_make(run_path("fresh/checkpoints/epoch_9.tmp.new")), TESS_OK);
    o.resume = "latest";
    assert_trains(&o);
    assert_false(tess_path_exists(run_path("fresh/checkpoints/step_00000099.tmp")));
    assert_false(tess_path_exists(run_path("fresh/checkpoints/epoch_9.tmp.new")));
    o = tiny_options("plain");
    assert_trains(&o);
    assert_same_result("plain", "fresh");
}

static void test_delete_previous(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("one");
    o.delete_previous_checkpoint = true;
    assert_trains(&o);
    tess_names names = {0};
    assert_int_equal(tess_dir_list(run_path("one/checkpoints"), false, &names), TESS_OK);
    assert_int_equal(names.n_names, 2);
    assert_string_equal(names.names[0], "results.jsonl");
    assert_string_equal(names.names[1], "step_00000012");
    tess_names_deinit(&names);
    assert_same_result("plain", "one");
}

/* ---- what does not fit --------------------------------------------------------------------- */

static void assert_refused(tess_train_options o, const char *why)
{
    uint64_t before = tree_hash("plain", "checkpoints");
    o.resume = run_path("plain/checkpoints/step_00000004");
    if (tess_train(&o) == TESS_OK || !strstr(tess_error(), "step_00000004") ||
        !strstr(tess_error(), why)) {
        fail_msg("expected a refusal with \"%s\", found: %s", why, tess_error());
    }
    assert_true(tree_hash("plain", "checkpoints") == before);
}

static void test_other_runs_are_refused(void **state)
{
    (void)state;
    static char path[512];
    tess_train_options o = tiny_options("plain");
    o.seed = 2;
    assert_refused(o, "other options");
    o = tiny_options("plain");
    o.lr = 1e-3;
    assert_refused(o, "other options");
    o = tiny_options("plain");
    o.batch_size = 4;
    assert_refused(o, "other options");
    o = tiny_options("plain");
    o.patch_dropout = 0.5;
    assert_refused(o, "other options");
    o = tiny_options("plain");
    snprintf(path, sizeof path, "%s/other.tar", run_dir);
    o.train_data = path;
    assert_refused(o, "other options");
    o = tiny_options("plain");
    snprintf(path, sizeof path, "%s/wide.json", run_dir);
    o.model = path;
    assert_refused(o, "");
    o = tiny_options("plain");
    o.resume = run_path("plain/checkpoints/step_00000005");
    assert_int_not_equal(tess_train(&o), TESS_OK);
    assert_non_null(strstr(tess_error(), "step_00000005"));
}

/* ---- damage -------------------------------------------------------------------------------- */

static char warnings[8192];

static void keep_warning(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx;
    size_t n = strlen(warnings);
    if (level == TESS_LOG_WARN) {
        snprintf(warnings + n, sizeof warnings - n, "%s\n", line);
    }
}

/* The newest checkpoint is damaged in `file`: it is refused by name, latest takes the one before.
 */
static void assert_passed_over(const char *file)
{
    char *latest = NULL;
    warnings[0] = 0;
    assert_int_equal(tess_checkpoint_latest(run_path("hurt/checkpoints"), &latest), TESS_OK);
    assert_non_null(strstr(latest, "checkpoints/epoch_2"));
    if (!strstr(warnings, file) || !strstr(warnings, "step_00000012") ||
        !strstr(warnings, "passed over")) {
        fail_msg("%s: expected a warning that names it, found: %s", file, warnings);
    }
    tess_free(latest);
    tess_model *m = NULL;
    tess_train_state s;
    assert_int_equal(tess_model_new(run_path("model.json"), NULL, 1, TESS_PRECISION_AUTO, &m), 0);
    assert_int_not_equal(tess_checkpoint_load(m, run_path("hurt/checkpoints/step_00000012"), &s),
                         TESS_OK);
    assert_non_null(strstr(tess_error(), file));
    tess_model_free(m);
}

static void damage_file(const char *file)
{
    char name[128];
    size_t n;
    snprintf(name, sizeof name, "hurt/checkpoints/step_00000012/%s", file);
    const char *path = run_path(name);
    char *data = slurp(path, &n);
    const size_t cuts[] = {0, 1, n / 2, n - 1}, flips[] = {0, n / 3, n / 2, n - 20, n - 1};
    char keep[512];
    snprintf(keep, sizeof keep, "%s", path);
    for (int64_t i = 0; i < TESS_COUNT(cuts); i++) {
        assert_int_equal(tess_file_write(keep, data, cuts[i]), TESS_OK);
        assert_passed_over(file);
    }
    for (int64_t i = 0; i < TESS_COUNT(flips); i++) {
        data[flips[i]] ^= (char)(1 << i);
        assert_int_equal(tess_file_write(keep, data, n), TESS_OK);
        assert_passed_over(file);
        data[flips[i]] ^= (char)(1 << i);
    }
    assert_int_equal(remove(keep), 0);
    assert_passed_over(file);
    assert_int_equal(tess_file_write(keep, data, n), TESS_OK);
    tess_free(data);
}

static void test_damage(void **state)
{
    (void)state;
    tess_names names = {0};
    tess_log_set_sink(keep_warning, NULL, TESS_LOG_WARN);
    copy_run("plain", "hurt");
    assert_int_equal(tess_dir_list(run_path("hurt/checkpoints/step_00000012"), false, &names),
                     TESS_OK);
    assert_int_equal(names.n_names, 6);
    for (size_t i = 0; i < names.n_names; i++) {
        damage_file(names.names[i]);
    }
    tess_names_deinit(&names);
    assert_true(tree_hash("hurt", "checkpoints") == tree_hash("plain", "checkpoints"));

    /* A run goes on from the one before, to the same end. */
    assert_int_equal(remove(run_path("hurt/checkpoints/step_00000012/state.json")), 0);
    tess_train_options o = tiny_options("hurt");
    o.resume = "latest";
    assert_trains(&o);
    assert_same_result("plain", "hurt");

    /* When none is whole, nothing is begun anew over them. */
    static const char *const all[] = {"step_00000004", "step_00000008", "step_00000012", "epoch_1",
                                      "epoch_2"};
    for (int64_t i = 0; i < TESS_COUNT(all); i++) {
        char name[96];
        snprintf(name, sizeof name, "hurt/checkpoints/%s/optimizer.safetensors", all[i]);
        assert_int_equal(truncate(run_path(name), 1000), 0);
    }
    assert_int_equal(tess_train(&o), TESS_FORMAT);
    assert_non_null(strstr(tess_error(), "none of the 5 checkpoints is whole"));
    tess_log_set_sink(NULL, NULL, TESS_LOG_WARN);
}

/* ---- omission controls --------------------------------------------------------------------- */

#define CUT_STEP "checkpoints/step_00000011"

static char *cut_path(const char *run, const char *file)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s/" CUT_STEP "/%s", run_dir, run, file);
    return path;
}

/* Replaces as many lines as `to` has by it, from the first `from` on. */
static void replace_line(tess_buf *text, const char *from, const char *to)
{
    char *at = strstr(text->data, from);
    assert_non_null(at);
    char *end = strchr(at, '\n');
    for (const char *c = to; (c = strchr(c, '\n')) != NULL; c++) {
        end = strchr(end + 1, '\n');
    }
    tess_buf out = {0};
    tess_buf_add(&out, text->data, (size_t)(at - text->data));
    tess_buf_adds(&out, to);
    tess_buf_adds(&out, end);
    tess_buf_deinit(text);
    *text = out;
}

static uint64_t sum_of(const char *data, size_t n, int format)
{
    return format == 1 ? tess_hash64(data, n, 0) : tess_crc64(0, data, n);
}

/* Writes state.json with `from`'s line replaced (NULL: none) and every sum put right, which are
 * those of this format. */
static void reseal_as(int format, const char *run, const char *from, const char *to)
{
    tess_buf text = {0};
    tess_names names;
    char line[160], key[80];
    size_t n;
    char *data = slurp(cut_path(run, "state.json"), &n);
    tess_buf_add(&text, data, n);
    tess_free(data);
    if (from) {
        replace_line(&text, from, to);
    }
    assert_int_equal(tess_dir_list(cut_path(run, ""), false, &names), TESS_OK);
    for (size_t i = 0; i < names.n_names; i++) {
        snprintf(key, sizeof key, "\"%s\"", names.names[i]);
        if (strcmp(names.names[i], "state.json") != 0) {
            data = slurp(cut_path(run, names.names[i]), &n);
            snprintf(line, sizeof line, "%s: \"%zu:%016llx\"%s", key, n,
                     (unsigned long long)sum_of(data, n, format),
                     strchr(strstr(text.data, key), '\n')[-1] == ',' ? "," : "");
            replace_line(&text, key, line);
            tess_free(data);
        }
    }
    tess_names_deinit(&names);
    const char *check = strstr(text.data, ",\n  \"check\"");
    assert_non_null(check);
    snprintf(line, sizeof line, "\"check\": \"%016llx\"",
             (unsigned long long)tess_hash64(text.data, (size_t)(check - text.data), 0));
    replace_line(&text, "\"check\"", line);
    assert_int_equal(tess_file_write(cut_path(run, "state.json"), text.data, text.n_bytes), 0);
    tess_buf_deinit(&text);
}

static void reseal(const char *run, const char *from, const char *to)
{
    reseal_as(2, run, from, to);
}

static void zero_tensor(const char *run, const char *file, const char *name)
{
    tess_tensors *t = NULL;
    size_t n;
    char *data = slurp(cut_path(run, file), &n);
    assert_int_equal(tess_tensors_parse((tess_bytes){(const uint8_t *)data, n}, file, &t), TESS_OK);
    const tess_tensor *x = tess_tensors_find(t, name);
    assert_non_null(x);
    memset(data + (x->data - (const uint8_t *)data), 0, x->n_bytes);
    tess_tensors_free(t);
    assert_int_equal(tess_file_write(cut_path(run, file), data, n), TESS_OK);
    tess_free(data);
}

typedef enum outcome {
    SAME,      /* nothing was lost */
    OTHER,     /* the weights end elsewhere */
    OTHER_LOG, /* the weights are the same, what is saved beside them is not */
    REFUSED,
} outcome;

typedef struct omission {
    const char *what;
    const char *file, *tensor; /* set to zeros; or */
    const char *from, *to;     /* a line of state.json */
    outcome outcome;
} omission;

#define MODEL   "open_clip_model.safetensors"
#define MOMENTS "optimizer.safetensors"

/* Stopped after update 11 of 12, inside epoch 2.  `elapsed` decides the learning
 * rate of runs bounded by time, which are not repeatable to the byte; in others it is always 0. */
static const omission omissions[] = {
    {"nothing", NULL, NULL, NULL, NULL, SAME},
    {"a weight", MODEL, "visual.conv1.weight", NULL, NULL, OTHER},
    {"the logit scale", MODEL, "logit_scale", NULL, NULL, OTHER},
    {"a first moment", MOMENTS, "m/token_embedding.weight", NULL, NULL, OTHER},
    {"a second moment", MOMENTS, "v/text_projection", NULL, NULL, OTHER},
    {"the step", NULL, NULL, "\"step\"", "\"step\": 10,", REFUSED},
    {"the cursor", NULL, NULL, "\"counter\"", "\"counter\": 80,", REFUSED},
    {"step and cursor", NULL, NULL, "\"step\"", "\"step\": 10,\n  \"counter\": 80,", OTHER},
    {"a cursor inside a batch", NULL, NULL, "\"counter\"", "\"counter\": 83,", REFUSED},
    {"the skipped updates", NULL, NULL, "\"n_skipped\"", "\"n_skipped\": 1,", OTHER},
    {"the loss sum", NULL, NULL, "\"loss_sum\"", "\"loss_sum\": \"0x0p+0\",", OTHER_LOG},
    {"the losses summed", NULL, NULL, "\"n_loss\"", "\"n_loss\": 0,", OTHER_LOG},
    {"the epoch", NULL, NULL, "\"epoch\"", "\"epoch\": 0,", OTHER_LOG},
    {"the seed", NULL, NULL, "\"seed\"", "\"seed\": \"7\",", REFUSED},
    {"elapsed seconds", NULL, NULL, "\"elapsed\"", "\"elapsed\": 5.0,", SAME},
    {"the settings", NULL, NULL, "\"settings\"",
     "\"settings\": \"00000000000000000000000000000000\",", REFUSED},
    {"a settings text", NULL, NULL, "\"settings\"", "\"settings\": \"\",", REFUSED},
    {"the format", NULL, NULL, "\"format\"", "\"format\": 3,", REFUSED},
    {"an unknown key", NULL, NULL, "\"format\"", "\"form\": 1,", REFUSED},
};

static void check_omission(const omission *x)
{
    static char dir[512];
    copy_run("eleven", "less");
    if (x->tensor) {
        zero_tensor("less", x->file, x->tensor);
    }
    reseal("less", x->from, x->to);
    tess_train_options o = tiny_options("less");
    snprintf(dir, sizeof dir, "%s/less/" CUT_STEP, run_dir);
    o.resume = dir;
    tess_status st = tess_train(&o);
    if (x->outcome == REFUSED) {
        if (st == TESS_OK || !strstr(tess_error(), "step_00000011")) {
            fail_msg("%s: expected a refusal, found: %s", x->what, tess_error());
        }
        return;
    }
    if (st != TESS_OK) {
        fail_msg("%s: %s", x->what, tess_error());
    }
    bool same_model = tree_hash("less", "model") == tree_hash("plain", "model");
    bool same = result_hash("less") == result_hash("plain");
    if (same != (x->outcome == SAME) || same_model == (x->outcome == OTHER)) {
        fail_msg("%s: expected outcome %d, found model %s, checkpoint %s", x->what, x->outcome,
                 same_model ? "same" : "other", same ? "same" : "other");
    }
}

/* Stopped after update 11 of 12, once. */
static void make_eleven(void)
{
    if (!tess_path_exists(run_path("eleven"))) {
        train_until(tiny_options("eleven"), 11);
    }
}

/* The first format, with XXH3 of each file, is read; and as nothing else: a sum of the one format
 * is wrong in the other. */
static void test_first_format(void **state)
{
    (void)state;
    tess_train_options o = tiny_options("old");
    make_eleven();
    copy_run("eleven", "old");
    reseal_as(1, "old", "\"format\"", "\"format\": 1,");
    o.resume = "latest";
    assert_trains(&o);
    assert_true(result_hash("old") == result_hash("plain"));
    for (int format = 1; format <= 2; format++) {
        copy_run("eleven", "old");
        reseal_as(format, "old", "\"format\"", format == 1 ? "\"format\": 2," : "\"format\": 1,");
        o = tiny_options("old");
        o.resume = run_path("old/" CUT_STEP);
        assert_int_equal(tess_train(&o), TESS_FORMAT);
        assert_non_null(strstr(tess_error(), "expected size:hash"));
    }
}

/* A checkpoint is a model too: what opens it as one notices damage by itself. */
static void test_damaged_weights_are_no_model(void **state)
{
    (void)state;
    tess_model *m = NULL;
    make_eleven();
    copy_run("eleven", "less");
    static char dir[512];
    snprintf(dir, sizeof dir, "%s/less/" CUT_STEP, run_dir);
    assert_int_equal(tess_model_open(dir, TESS_PRECISION_F32, &m), TESS_OK);
    tess_model_free(m);
    zero_tensor("less", "open_clip_model.safetensors", "visual.conv1.weight");
    assert_int_equal(tess_model_open(dir, TESS_PRECISION_F32, &m), TESS_FORMAT);
    assert_non_null(strstr(tess_error(), "tessera.json: recorded weights "));
}

static void test_every_piece_is_needed(void **state)
{
    (void)state;
    make_eleven();
    for (int64_t i = 0; i < TESS_COUNT(omissions); i++) {
        check_omission(&omissions[i]);
    }
}

/* What outliers are told by goes on; without it, or changed by hand, nothing does. */
static void test_recent_steps(void **state)
{
    (void)state;
    static char dir[512];
    tess_train_options o = tiny_options("recent");
    o.skip_outliers = 0.5;
    o.steps = 50;
    o.save_every_n_steps = 50;
    assert_trains(&o);
    o.run_dir = tiny_options("recent_again").run_dir;
    train_until(o, 34);
    o.resume = "latest";
    assert_trains(&o);
    assert_true(tree_hash("recent", "checkpoints/step_00000050") ==
                tree_hash("recent_again", "checkpoints/step_00000050"));
    char *a = slurp(run_path("recent/skipped.jsonl"), NULL);
    char *b = slurp(run_path("recent_again/skipped.jsonl"), NULL);
    assert_non_null(strstr(a, "far above"));
    assert_string_equal(a, b);
    tess_free(a);
    tess_free(b);

    o = tiny_options("recent_lost");
    o.skip_outliers = 0.5;
    train_until(o, 11);
    snprintf(dir, sizeof dir, "%s/recent_lost/" CUT_STEP, run_dir);
    o.resume = dir;
    static const char *const lines[] = {"\"recent\": \"\",", "\"recent\": \"7fc00000\","};
    for (int64_t i = 0; i < TESS_COUNT(lines); i++) {
        reseal("recent_lost", "\"recent\"", lines[i]);
        assert_int_equal(tess_train(&o), TESS_FORMAT);
        assert_non_null(strstr(tess_error(), "losses and norms of the last steps"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_is_the_straight_run),
        cmocka_unit_test(test_weights_rounded_by_chance),
        cmocka_unit_test(test_many_stops),
        cmocka_unit_test(test_latest_without_any),
        cmocka_unit_test(test_delete_previous),
        cmocka_unit_test(test_other_runs_are_refused),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_first_format),
        cmocka_unit_test(test_damaged_weights_are_no_model),
        cmocka_unit_test(test_every_piece_is_needed),
        cmocka_unit_test(test_recent_steps),
    };
    return cmocka_run_group_tests(tests, tiny_make, run_dir_remove);
}
