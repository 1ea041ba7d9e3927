/* SPDX-License-Identifier: Apache-2.0 */
/* Every operator's cases through the driver, in every instruction set that this machine has; and
 * the driver itself, on operators with planted faults.
 *
 * oneDNN takes its instruction set once per process, so each lower one is a child of this program.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/wait.h>
#include <unistd.h>

#include "tensor/op_driver.h"

static void check_all_cases(void **state)
{
    (void)state;
    int failed = 0;
    for (int i = 0; i < tess__n_ops; i++) {
        const tess_op *op = tess__ops[i];
        if (op->n_cases == 0) {
            print_message("%s has no cases\n", op->name);
            failed++;
        }
        for (int k = 0; k < op->n_cases; k++) {
            driver d = {.op = op, .c = &op->cases[k]};
            const char *fault = driver_check(&d);
            if (fault) {
                print_message("%s/%s (%s): %s\n", op->name, op->cases[k].name,
                              tess_isa_name(tess_isa_get()), fault);
                failed++;
            }
            driver_free(&d);
        }
    }
    assert_int_equal(failed, 0);
}

/* A child whose processor has less than it is told has nothing to do. */
static void check_other_isas(void **state)
{
    (void)state;
    for (int isa = 0; isa < TESS_ISA_COUNT; isa++) {
        const char *name = tess_isa_name((tess_isa)isa);
        if (isa == (int)tess_isa_get()) {
            continue;
        }
        const pid_t child = fork();
        if (child == 0) {
            setenv("TESSERA_ISA", name, 1);
            setenv("TESS_OPS_CHILD", name, 1);
            execl("/proc/self/exe", "test_ops", (char *)NULL);
            _exit(127);
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (status != 0) {
            print_message("%s failed\n", name);
        }
        assert_int_equal(status, 0);
    }
}

/* ---- planted faults: y = 2 x, done wrong ---------------------------------------------------- */

static tess_op mutant;

static tess_status twice_infer(tess_infer *c)
{
    c->out[0] = c->in[0];
    return TESS_OK;
}

static tess_status twice(const tess_exec *e)
{
    for (int64_t i = 0; i < tess_shape_count(&e->in[0].shape); i++) {
        ((float *)e->out[0].data)[i] = 2 * ((const float *)e->in[0].data)[i];
    }
    return TESS_OK;
}

static tess_status twice_and_beyond(const tess_exec *e)
{
    ((float *)e->out[0].data)[tess_shape_count(&e->in[0].shape)] = 0;
    return twice(e);
}

static tess_status twice_or_so(const tess_exec *e)
{
    static int n_runs;
    twice(e);
    ((float *)e->out[0].data)[0] *= 1 + 1e-7f * (float)(n_runs++ % 3);
    return TESS_OK;
}

static tess_status twice_into_input(const tess_exec *e)
{
    twice(e);
    ((float *)e->in[0].data)[0] = 1;
    return TESS_OK;
}

static tess_status twice_nearly(const tess_exec *e)
{
    twice(e);
    ((float *)e->out[0].data)[3] *= 1.00001f;
    return TESS_OK;
}

static void twice_vjp(tess_vjp *c)
{
    c->din[0] = tess_scale(c->g, c->dout[0], 2);
}

static void twice_vjp_long(tess_vjp *c)
{
    c->din[0] = tess_scale(c->g, c->dout[0], 2.02f);
}

static tess_value build_twice(tess_graph *g, const tess_value *in)
{
    return TESS_NODE(g, &mutant, NULL, in[0]);
}

static const char *run_mutant(tess_status (*cpu)(const tess_exec *), void (*vjp)(tess_vjp *))
{
    static driver d;
    static const tess_case c = {
        .name = "mutant", .n_in = 1, .in = {{TESS_F32, {2, {5, 9}}}}, .build = build_twice};
    mutant = (tess_op){.name = "mutant",
                       .n_in_min = 1,
                       .n_in_max = 1,
                       .n_out = 1,
                       .infer = twice_infer,
                       .vjp = vjp,
                       .cpu = cpu,
                       .ref = twice};
    memset(&d, 0, sizeof d);
    d.op = &mutant;
    d.c = &c;
    const char *fault = driver_check(&d);
    driver_free(&d);
    return fault;
}

static void driver_finds_planted_faults(void **state)
{
    (void)state;
    assert_null(run_mutant(twice, twice_vjp));
    assert_non_null(strstr(run_mutant(twice, twice_vjp_long), "numeric"));
    assert_non_null(strstr(run_mutant(twice_and_beyond, twice_vjp), "writes outside"));
    assert_non_null(strstr(run_mutant(twice_or_so, twice_vjp), "differs"));
    assert_non_null(strstr(run_mutant(twice_into_input, twice_vjp), "changes input"));
    assert_non_null(strstr(run_mutant(twice_nearly, twice_vjp), "reference"));
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(check_all_cases),
        cmocka_unit_test(driver_finds_planted_faults),
        cmocka_unit_test(check_other_isas),
    };
    const struct CMUnitTest only[] = {cmocka_unit_test(check_all_cases)};
    const char *child = getenv("TESS_OPS_CHILD");
    if (child && strcmp(child, tess_isa_name(tess_isa_get())) != 0) {
        return 0;
    }
    return child ? cmocka_run_group_tests(only, NULL, NULL)
                 : cmocka_run_group_tests(all, NULL, NULL);
}
