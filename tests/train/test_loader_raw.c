/* SPDX-License-Identifier: Apache-2.0 */
/* The loader with decoded pictures: resized by the device they are those that the loader finishes,
 * to the byte, by any number of threads. */
#include "vision/raw_fixture.h"

#include "tessera/train.h"

#define PICTURES_DIR "tests/fixtures/vision"

typedef struct side {
    tess_loader *loader;
    raw_plan plan;
} side;

/* Both sides' batches as patches, compared. */
static void compare(const tess_loader_options *o, const tess_preprocess *p, int64_t n_batches)
{
    tess_dataset *ds = NULL;
    const tess_dataset_options d = {.captions_optional = true, .hooks = &o->hooks};
    RAW_OK(tess_dataset_open(PICTURES_DIR, &d, &ds));
    side raw = {0}, finished = {0};
    tess_loader_options l = *o;
    RAW_OK(tess_loader_new(ds, &l, &finished.loader));
    finished.plan = raw_plan_finished(o->batch, p, TESS_F32, tess_device_cpu());
    l.raw = true;
    l.workers = 3;
    RAW_OK(tess_loader_new(ds, &l, &raw.loader));
    const tess_shape shape = tess_value_shape(finished.plan.g, finished.plan.y);
    const size_t one = (size_t)tess_shape_count(&shape) / (size_t)o->batch * sizeof(float);
    for (int64_t i = 0; i < n_batches; i++) {
        const tess_batch *a, *b;
        RAW_OK(tess_loader_read(finished.loader, &a));
        RAW_OK(tess_loader_read(raw.loader, &b));
        assert_true(a && b && a->pictures && !a->raw && b->raw && !b->pictures);
        assert_int_equal(a->n_pictures, b->n_pictures);
        assert_memory_equal(a->samples, b->samples, (size_t)a->n_pictures * sizeof *a->samples);
        if (i == 0) {
            raw.plan = raw_plan_resizing(b->raw, p, TESS_F32, tess_device_cpu());
        }
        RAW_OK(tess__raw_bind(raw.plan.p, b->raw));
        RAW_OK(tess_plan_bind(finished.plan.p, "pictures", a->pictures));
        RAW_OK(tess_plan_run(raw.plan.p));
        RAW_OK(tess_plan_run(finished.plan.p));
        assert_memory_equal(tess_plan_output(raw.plan.p, raw.plan.y),
                            tess_plan_output(finished.plan.p, finished.plan.y),
                            (size_t)a->n_pictures * one);
    }
    raw_plan_free(&raw.plan);
    raw_plan_free(&finished.plan);
    tess_loader_free(raw.loader);
    tess_loader_free(finished.loader);
    tess_dataset_close(ds);
}

static void are_the_finished_pictures(void **state)
{
    (void)state;
    const tess_augment augment = {.scale_min = .3, .scale_max = 1, .flip = true, .shift = 4};
    const tess_pipeline p = {.preprocess = tess_preprocess_default(), .augment = augment};
    tess_loader_options o = {.hooks = tess_pipeline_hooks(&p),
                             .batch = 20,
                             .size = RAW_SIZE,
                             .seed = 4,
                             .max_bad_rate = 1};
    compare(&o, &p.preprocess, 8);
    o.cache_size = 30; /* views of kept pictures, from the second epoch on without decoding */
    compare(&o, &p.preprocess, 8);
    o.cache_size = 0;
    o.evaluation = true;
    compare(&o, &p.preprocess, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(are_the_finished_pictures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
