/* SPDX-License-Identifier: Apache-2.0 */
/* Products on the card: that each way to one gives the same, that the fastest is taken, measured
 * once, kept on disk, and not believed when the file is damaged.  The library is emulated, and as
 * strict as its documentation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cuda/emulate_control.h"
#include "tensor/cuda_cache.h"
#include "tensor/cuda_matmul.h"
#include "tensor/plan.h"

enum { M = 24, N = 16, K = 40, MOST = 40 * 40 };

static const tess_remote *card(void)
{
    const tess_device *d;
    assert_int_equal(tess_device_cuda(&d), TESS_OK);
    return d->remote;
}

/* Operands in bf16 or f32 on the card; what is read is copied, what is written starts as garbage.
 */
typedef struct operands {
    float a[MOST], b[MOST], bias[N], residual[M * N], aux[M * N], c[M * N];
    void *far[7];
} operands;

static tess_dtype type_of(const tess_cuda_product *p, int which)
{
    return which == 2 || which == 6 ? TESS_F32 : which < 2 ? p->matmul.in : p->matmul.out;
}

static void *far_of(const float *x, int64_t n, tess_dtype t)
{
    uint16_t narrow[MOST];
    void *far;
    for (int64_t i = 0; i < n; i++) {
        narrow[i] = tess_bf16_from_f32(x[i]);
    }
    assert_int_equal(card()->alloc((size_t)n * tess_dtype_bytes(t), &far), TESS_OK);
    assert_int_equal(card()->upload(far, t == TESS_BF16 ? (const void *)narrow : x,
                                    (size_t)n * tess_dtype_bytes(t)),
                     TESS_OK);
    return far;
}

static void near_of(float *x, const void *far, int64_t n, tess_dtype t)
{
    uint16_t narrow[MOST];
    assert_int_equal(
        card()->download(t == TESS_BF16 ? (void *)narrow : x, far, (size_t)n * tess_dtype_bytes(t)),
        TESS_OK);
    for (int64_t i = 0; i < n && t == TESS_BF16; i++) {
        x[i] = tess_f32_from_bf16(narrow[i]);
    }
}

static void fill(float *x, int64_t n, uint64_t seed, float scale)
{
    tess_rng r = tess_rng_at(seed, 1);
    for (int64_t i = 0; i < n; i++) {
        x[i] = tess_f32_from_bf16(tess_bf16_from_f32(scale * (float)tess_rng_normal(&r)));
    }
}

static tess_cuda_args begin(operands *o, const tess_cuda_product *p)
{
    fill(o->a, M * K, 1, 0.5f);
    fill(o->b, N * K, 2, 0.5f);
    fill(o->bias, N, 3, 1);
    fill(o->residual, M * N, 4, 1);
    fill(o->aux, M * N, 5, 1);
    fill(o->c, M * N, 6, 1);
    const float *near[] = {o->a, o->b, o->bias, o->residual, o->aux, o->c, o->bias};
    const int64_t n[] = {M * K, N * K, N, M * N, M * N, M * N, M};
    for (int i = 0; i < 7; i++) {
        o->far[i] = far_of(near[i], i == 6 ? N : n[i], type_of(p, i));
    }
    card()->free(o->far[6]);
    assert_int_equal(card()->alloc(M * sizeof(float), &o->far[6]), TESS_OK);
    return (tess_cuda_args){.matmul = {.a = o->far[0],
                                       .b = o->far[1],
                                       .bias = p->matmul.bias ? o->far[2] : NULL,
                                       .residual = p->matmul.residual ? o->far[3] : NULL,
                                       .c = o->far[5]},
                            .aux =
                                p->aux || p->epilogue == TESS_EPILOGUE_GELU_GRAD ? o->far[4] : NULL,
                            .sums = o->far[6]};
}

static void end(operands *o)
{
    for (int i = 0; i < 7; i++) {
        card()->free(o->far[i]);
    }
}

/* ---- what a product is, in double ------------------------------------------------------------ */

static double gelu(double x)
{
    return tess__unary_value(TESS_GELU_TANH, x);
}

static double value_of(const operands *o, const tess_cuda_product *p, int64_t i, int64_t j,
                       double *z)
{
    const tess_matmul_spec *s = &p->matmul;
    double sum = s->bias ? (double)o->bias[j] : 0;
    for (int64_t k = 0; k < K; k++) {
        sum += (double)o->a[s->a_trans ? k * M + i : i * K + k] *
               (double)o->b[s->b_trans ? j * K + k : k * N + j];
    }
    sum += s->residual ? (double)o->residual[i * N + j] : 0;
    sum += s->accumulate ? (double)o->c[i * N + j] : 0;
    *z = sum;
    const double x = (double)o->aux[i * N + j], h = 1e-5;
    return p->epilogue == TESS_EPILOGUE_GELU        ? gelu(sum)
           : p->epilogue == TESS_EPILOGUE_GELU_GRAD ? sum * (gelu(x + h) - gelu(x - h)) / (2 * h)
           : s->relu && sum < 0                     ? 0
                                                    : sum;
}

/* The limit covers two roundings to bf16 of the sum and one of the bias. */
static void assert_close(double have, double want, double size, tess_dtype t)
{
    const double limit = t == TESS_BF16 ? 0x1p-8 * (fabs(want) + size + 3) : 1e-5 * (size + 3);
    if (!(fabs(have - want) <= limit)) {
        fail_msg("%.9g, expected %.9g within %.3g", have, want, limit);
    }
}

static void check_result(operands *o, const tess_cuda_product *p)
{
    float c[M * N], aux[M * N], sums[M];
    near_of(c, o->far[5], M * N, p->matmul.out);
    near_of(aux, o->far[4], M * N, p->matmul.out);
    for (int64_t i = 0; i < M; i++) {
        for (int64_t j = 0; j < N; j++) {
            double z;
            const double want = value_of(o, p, i, j, &z);
            assert_close((double)c[i * N + j], want, fabs(z), p->matmul.out);
            if (p->aux) {
                assert_close((double)aux[i * N + j], z, fabs(z), p->matmul.out);
            }
        }
    }
    near_of(sums, o->far[6], M, TESS_F32);
    for (int64_t i = 0; p->epilogue == TESS_EPILOGUE_SUMS && i < M; i++) {
        double sum = 0;
        for (int64_t k = 0; k < K; k++) {
            sum += (double)o->a[k * M + i];
        }
        assert_close((double)sums[i], sum, 1, TESS_F32);
    }
}

/* ---- in a process of its own ------------------------------------------------------------------
 */

/* Products are kept for the life of a process, so each question is a child's; 0: it went well. */
static void in_child(void (*ask)(const void *), const void *about)
{
    const pid_t child = fork();
    if (child == 0) {
        ask(about);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* ---- every way ------------------------------------------------------------------------------- */

static const tess_cuda_product specs[] = {
    {.matmul = {M, N, K, TESS_F32, TESS_F32, .b_trans = true, .bias = true, .relu = true}},
    {.matmul = {M, N, K, TESS_F32, TESS_F32, .b_trans = true, .bias = true, .residual = true}},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true, .bias = true}},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true, .bias = true, .relu = true}},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true, .relu = true}},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true, .bias = true, .residual = true}},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16}},
    {.matmul = {M, N, K, TESS_BF16, TESS_F32, .a_trans = true}},
    {.matmul = {M, N, K, TESS_F32, TESS_F32, .a_trans = true, .accumulate = true}},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true, .bias = true},
     .epilogue = TESS_EPILOGUE_GELU,
     .aux = true},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true, .bias = true},
     .epilogue = TESS_EPILOGUE_GELU},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16, .b_trans = true},
     .epilogue = TESS_EPILOGUE_GELU,
     .aux = true},
    {.matmul = {M, N, K, TESS_F32, TESS_F32, .b_trans = true, .bias = true},
     .epilogue = TESS_EPILOGUE_GELU,
     .aux = true},
    {.matmul = {M, N, K, TESS_BF16, TESS_BF16}, .epilogue = TESS_EPILOGUE_GELU_GRAD},
    {.matmul = {M, N, K, TESS_F32, TESS_F32}, .epilogue = TESS_EPILOGUE_GELU_GRAD},
    {.matmul = {M, N, K, TESS_BF16, TESS_F32, .a_trans = true, .accumulate = true},
     .epilogue = TESS_EPILOGUE_SUMS},
    {.matmul = {M, N, K, TESS_F32, TESS_F32, .a_trans = true, .accumulate = true},
     .epilogue = TESS_EPILOGUE_SUMS},
};

static void check_all_specs(const void *unused)
{
    (void)unused;
    for (int64_t i = 0; i < TESS_COUNT(specs); i++) {
        operands o;
        const tess_cuda_args x = begin(&o, &specs[i]);
        if (tess__cuda_product(&specs[i], &x, card()->stream()) != TESS_OK) {
            fail_msg("product %d: %s", (int)i, tess_error());
        }
        check_result(&o, &specs[i]);
        end(&o);
    }
}

/* A product that is known goes to the operands of the call, not to those it was set up with. */
static void run_elsewhere(const void *unused)
{
    (void)unused;
    for (int64_t i = 0; i < TESS_COUNT(specs); i++) {
        operands first, second;
        const tess_cuda_args x = begin(&first, &specs[i]);
        assert_int_equal(tess__cuda_product(&specs[i], &x, card()->stream()), TESS_OK);
        const tess_cuda_args y = begin(&second, &specs[i]);
        end(&first);
        assert_int_equal(tess__cuda_product(&specs[i], &y, card()->stream()), TESS_OK);
        check_result(&second, &specs[i]);
        end(&second);
    }
}

static void check_products(void **state)
{
    (void)state;
    in_child(check_all_specs, NULL);
    in_child(run_elsewhere, NULL);
}

#ifndef TESS_REAL_CARD

/* The library as documented, with more than that, with less, and slower than our own kernels. */
static const emulate_library libraries[] = {
    {.n_algorithms = 1},
    {.wide_bias = true},
    {.plain = true},
    {.no_bias = true},
    {.plain = true, .no_bias = true},
    {.rare_ms = 1},
};

static void check_library(const void *library)
{
    emulate_lt = *(const emulate_library *)library;
    check_all_specs(NULL);
}

static void check_ways(void **state)
{
    (void)state;
    for (int64_t i = 0; i < TESS_COUNT(libraries); i++) {
        in_child(check_library, &libraries[i]);
    }
}

static int epilogue_taken(const tess_cuda_product *p)
{
    operands o;
    const tess_cuda_args x = begin(&o, p);
    assert_int_equal(tess__cuda_product(p, &x, card()->stream()), TESS_OK);
    end(&o);
    return emulate_lt.last_epilogue;
}

/* An epilogue that the library has is used, unless it is slower than our own kernels. */
static void take_epilogues(const void *slow)
{
    const bool fused = !*(const bool *)slow;
    emulate_lt = (emulate_library){.rare_ms = fused ? 0 : 1, .wide_gelu = true};
    assert_int_equal(epilogue_taken(&specs[9]), fused ? 164 : 4);
    assert_int_equal(epilogue_taken(&specs[10]), fused ? 36 : 4);
    assert_int_equal(epilogue_taken(&specs[13]), fused ? 192 : 1);
    assert_int_equal(epilogue_taken(&specs[15]), fused ? 512 : 1);
    /* Never in f32, where 11 bits of tanh would show. */
    assert_int_equal(epilogue_taken(&specs[12]), 4);
    assert_int_equal(epilogue_taken(&specs[14]), 1);
}

static void check_epilogues(void **state)
{
    (void)state;
    const bool slow = true, fast = false;
    in_child(take_epilogues, &slow);
    in_child(take_epilogues, &fast);
}

/* ---- choosing -------------------------------------------------------------------------------- */

static const emulate_library uneven = {.n_algorithms = 4, .ms = {3, -1, 1, 2}};

static void run_once(const tess_cuda_product *p)
{
    operands o;
    const tess_cuda_args x = begin(&o, p);
    assert_int_equal(tess__cuda_product(p, &x, card()->stream()), TESS_OK);
    check_result(&o, p);
    end(&o);
}

static void take_fastest(const void *unused)
{
    (void)unused;
    emulate_lt = uneven;
    run_once(&specs[2]);
    assert_int_equal(emulate_lt.last, 2);
    const int64_t products = emulate_lt.n_products, questions = emulate_lt.n_heuristics;
    run_once(&specs[2]);
    assert_int_equal(emulate_lt.n_products, products + 1);
    assert_int_equal(emulate_lt.n_heuristics, questions);
}

static void check_fastest(void **state)
{
    (void)state;
    in_child(take_fastest, NULL);
}

static void refuse(const void *unused)
{
    (void)unused;
    operands o;
    emulate_lt = (emulate_library){.ms = {-1}};
    const tess_cuda_args x = begin(&o, &specs[0]);
    assert_int_equal(tess__cuda_product(&specs[0], &x, card()->stream()), TESS_DEVICE);
    assert_non_null(strstr(tess_error(), "24x16x40"));
    end(&o);
}

/* FP8 on a card that has none; bf16 there is as ever. */
static void refuse_fp8(const void *unused)
{
    (void)unused;
    operands o;
    const tess_cuda_product p = {.matmul = {16, 16, 32, TESS_F8E4M3, TESS_BF16, .b_trans = true}};
    emulate_lt = (emulate_library){.no_fp8 = true};
    tess_cuda_args x = begin(&o, &p);
    x.a_scale = x.b_scale = o.far[2];
    assert_int_equal(tess__cuda_product(&p, &x, card()->stream()), TESS_DEVICE);
    assert_non_null(strstr(tess_error(), "compute capability 8.9"));
    assert_non_null(strstr(tess_error(), "--precision bf16"));
    end(&o);
    run_once(&specs[2]);
}

static void miss(const void *unused)
{
    (void)unused;
    operands o;
    emulate_lt = (emulate_library){.missing = true};
    const tess_cuda_args x = begin(&o, &specs[0]);
    assert_int_equal(tess__cuda_product(&specs[0], &x, card()->stream()), TESS_DEVICE);
    assert_non_null(strstr(tess_error(), "--device cpu"));
    end(&o);
}

static void check_refusals(void **state)
{
    (void)state;
    in_child(refuse, NULL);
    in_child(refuse_fp8, NULL);
    in_child(miss, NULL);
}

/* ---- on disk --------------------------------------------------------------------------------- */

static char folder[64], file[400];

static int open_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tessera_products_XXXXXX");
    return mkdtemp(folder) && setenv("TESSERA_CACHE", folder, 1) == 0 ? 0 : -1;
}

static int close_folder(void **state)
{
    (void)state;
    return tess_dir_remove(folder) == TESS_OK && setenv("TESSERA_CACHE", "", 1) == 0 ? 0 : -1;
}

/* The name of the one file there. */
static void find_file(void)
{
    tess_names names = {0};
    assert_int_equal(tess_dir_list(folder, false, &names), TESS_OK);
    assert_int_equal(names.n_names, 1);
    snprintf(file, sizeof file, "%s/%s", folder, names.names[0]);
    tess_names_deinit(&names);
}

static void read_file(char *text, size_t most)
{
    uint8_t *bytes;
    size_t n;
    find_file();
    assert_int_equal(tess_file_read(file, most - 1, &bytes, &n), TESS_OK);
    memcpy(text, bytes, n + 1);
    tess_free(bytes);
}

typedef struct asked {
    bool measures; /* it must */
    int takes;
} asked;

/* Another process, to which algorithm 3 would be the fastest now. */
static void run_again(const void *about)
{
    const asked *a = about;
    emulate_lt = (emulate_library){.n_algorithms = 4, .ms = {3, 2, 1, 0}};
    run_once(&specs[2]);
    assert_int_equal(emulate_lt.last, a->takes);
    assert_true((emulate_lt.n_heuristics > 0) == a->measures);
    assert_true(a->measures || emulate_lt.n_products == 1);
}

static const asked from_file = {false, 2}, measured = {true, 3};

static void check_kept(void **state)
{
    (void)state;
    in_child(take_fastest, NULL);
    in_child(run_again, &from_file);
    in_child(run_again, &from_file);
}

/* Each damage: the file is not used, and is whole again afterwards. */
static void check_damage(void **state)
{
    (void)state;
    char whole[4000], text[4000];
    for (int how = 0; how < 6; how++) {
        in_child(take_fastest, NULL);
        read_file(whole, sizeof whole);
        size_t n = strlen(whole);
        memcpy(text, whole, n + 1);
        char *algorithm = strstr(text, "7e55e2a1");
        assert_non_null(algorithm);
        switch (how) {
        case 0:
            n /= 2;
            break;
        case 1:
            n = 0;
            break;
        case 2:
            algorithm[0] = '8';
            break;
        case 3:
            *strstr(text, "emulated") = 'E'; /* another card */
            break;
        case 4:
            text[8] = 0;
            break;
        default:
            n -= 1; /* the last line's end */
        }
        assert_int_equal(tess_file_write(file, text, n), TESS_OK);
        in_child(run_again, &measured);
        in_child(run_again, &(asked){false, 3});
        assert_int_equal(unlink(file), 0);
    }
}

/* Well-formed, but not what this library runs: it is asked, and the choice is made anew. */
static void forge(const char *value)
{
    char text[4000];
    in_child(take_fastest, NULL);
    read_file(text, sizeof text);
    char *place = strchr(text, '\n') + 1, *key = strchr(place, '\n') + 1;
    *strchr(place, '\n') = '\0';
    *strchr(key, '\t') = '\0';
    tess_cache c;
    assert_int_equal(tess__cache_open(&c, place), TESS_OK);
    assert_non_null(tess__cache_find(&c, key));
    assert_int_equal(tess__cache_keep(&c, key, value), TESS_OK);
    tess__cache_close(&c);
    in_child(run_again, &measured);
    in_child(run_again, &(asked){false, 3});
    assert_int_equal(unlink(file), 0);
}

static void check_forged(void **state)
{
    (void)state;
    forge("0 1 1 2 3 4 5 6 7 8");
    forge("0 1 1 2 3 4 5 6 7");
    forge("0 9 1 2 3 4 5 6 7 8");
    forge("1 1 1 2 3 4 5 6 7 8");
    forge("0 1 1 2 3 4 5 6 7 8 9");
    forge("");
}

/* An algorithm that wants more workspace than it gets is not run. */
static void run_hungry(const void *unused)
{
    (void)unused;
    emulate_lt = (emulate_library){.workspace_bytes = (32 << 20) + 1};
    run_once(&specs[2]);
    assert_true(emulate_lt.n_heuristics > 0);
}

static void check_workspace(void **state)
{
    (void)state;
    in_child(take_fastest, NULL);
    in_child(run_hungry, NULL);
}

/* Where nothing can be written, everything runs. */
static void check_no_file(void **state)
{
    (void)state;
    char inside[100];
    snprintf(inside, sizeof inside, "%s/file/folder", folder);
    char *end_of_file = strrchr(inside, '/');
    *end_of_file = '\0';
    assert_int_equal(tess_file_write(inside, "x", 1), TESS_OK);
    *end_of_file = '/';
    assert_int_equal(setenv("TESSERA_CACHE", inside, 1), 0);
    in_child(take_fastest, NULL);
    in_child(run_again, &measured);
    assert_int_equal(setenv("TESSERA_CACHE", "", 1), 0);
    in_child(run_again, &measured);
    assert_int_equal(setenv("TESSERA_CACHE", folder, 1), 0);
}

/* Two processes' entries are both there afterwards. */
static void check_both(void **state)
{
    (void)state;
    tess_cache a, b;
    assert_int_equal(tess__cache_open(&a, "here"), TESS_OK);
    assert_int_equal(tess__cache_open(&b, "here"), TESS_OK);
    assert_int_equal(tess__cache_keep(&a, "x", "1"), TESS_OK);
    assert_int_equal(tess__cache_keep(&b, "y", "2"), TESS_OK);
    tess__cache_close(&b);
    assert_int_equal(tess__cache_open(&b, "here"), TESS_OK);
    assert_string_equal(tess__cache_find(&b, "x"), "1");
    assert_int_equal(tess__cache_keep(&b, "x", "3"), TESS_OK);
    tess__cache_close(&a);
    tess__cache_close(&b);
    assert_int_equal(tess__cache_open(&a, "here"), TESS_OK);
    assert_string_equal(tess__cache_find(&a, "x"), "3");
    assert_string_equal(tess__cache_find(&a, "y"), "2");
    assert_null(tess__cache_find(&a, "z"));
    tess__cache_close(&a);
}

#endif

int main(void)
{
#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, open_folder, close_folder)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_products),
#ifndef TESS_REAL_CARD
        cmocka_unit_test(check_ways),
        cmocka_unit_test(check_epilogues),
        cmocka_unit_test(check_fastest),
        cmocka_unit_test(check_refusals),
        ON_DISK(check_kept),
        ON_DISK(check_damage),
        ON_DISK(check_forged),
        ON_DISK(check_workspace),
        ON_DISK(check_no_file),
        ON_DISK(check_both),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
