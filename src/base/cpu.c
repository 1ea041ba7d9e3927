/* SPDX-License-Identifier: Apache-2.0 */
/* What the processor and the operating system offer, asked through cpuid and xgetbv.
 *
 * Not __builtin_cpu_supports: clang 14 does not know all of the names that gcc 12 does.
 */
#include "tessera/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static const char *const names[TESS_ISA_COUNT] = {"base", "avx2", "avx512", "avx512vnni",
                                                  "avx512bf16"};
static char model[64] = "unknown";
static tess_isa found;
static _Atomic int cap = TESS_ISA_COUNT - 1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
enum {
    LEAF1_ECX_AVX2 = 1 << 12 | 1 << 27 | 1 << 28 | 1 << 29, /* FMA, OSXSAVE, AVX, F16C */
    LEAF7_EBX_AVX2 = 1 << 5,
    LEAF7_ECX_VNNI = 1 << 11,
    LEAF7_EDX_AMX = 1 << 22 | 1 << 24, /* BF16, TILE */
    LEAF7_1_EAX_BF16 = 1 << 5,
    XCR0_AVX = 0x06,    /* the system saves xmm and ymm */
    XCR0_AVX512 = 0xE6, /* and the mask and zmm registers */
};
static const uint32_t leaf7_ebx_avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F DQ BW VL */

static bool has(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static uint32_t read_xcr0(void)
{
    uint32_t lo = 0, hi = 0;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static tess_isa detect(bool *out_amx)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, LEAF1_ECX_AVX2)) {
        return TESS_ISA_BASE;
    }
    uint32_t xcr0 = read_xcr0();
    if (!has(xcr0, XCR0_AVX) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        !has(b, LEAF7_EBX_AVX2)) {
        return TESS_ISA_BASE;
    }
    if (!has(xcr0, XCR0_AVX512) || !has(b, leaf7_ebx_avx512)) {
        return TESS_ISA_AVX2;
    }
    /* Every processor with BF16 has VNNI; a hypervisor may hide one of them. */
    if (!has(c, LEAF7_ECX_VNNI)) {
        return TESS_ISA_AVX512;
    }
    const uint32_t n_subleaves = a;
    *out_amx = has(d, LEAF7_EDX_AMX);
    if (n_subleaves < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !has(a, LEAF7_1_EAX_BF16)) {
        return TESS_ISA_AVX512VNNI;
    }
    return TESS_ISA_AVX512BF16;
}

/* Golden Cove begins a vdpbf16ps of 64 operations every two cycles, and two fused multiply-adds of
 * 32 in each (0.75 and 0.18 ns measured). */
static bool slow_pairs(void)
{
    uint32_t a = 0, b = 0, c = 0, d = 0;
    char vendor[12];
    if (!__get_cpuid(0, &a, &b, &c, &d)) {
        return false;
    }
    memcpy(vendor, &b, 4);
    memcpy(vendor + 4, &d, 4);
    memcpy(vendor + 8, &c, 4);
    return memcmp(vendor, "GenuineIntel", sizeof vendor) == 0;
}

static void read_model(void)
{
    uint32_t words[12] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t *w = words + 4 * i;
        if (!__get_cpuid(0x80000002u + i, w, w + 1, w + 2, w + 3)) {
            return;
        }
    }
    char text[sizeof words + 1] = {0};
    memcpy(text, words, sizeof words);
    const char *start = text + strspn(text, " ");
    size_t n = strlen(start);
    while (n > 0 && start[n - 1] == ' ') {
        n--;
    }
    if (n > 0) {
        snprintf(model, sizeof model, "%.*s", (int)n, start);
    }
}
#else
static tess_isa detect(bool *out_amx)
{
    (void)out_amx;
    return TESS_ISA_BASE;
}
static bool slow_pairs(void)
{
    return false;
}
static void read_model(void)
{
}
#endif

static void look(void)
{
    bool amx = false;
    const tess_isa offered = detect(&amx);
    const bool slow = offered == TESS_ISA_AVX512BF16 && !amx && slow_pairs();
    found = slow ? TESS_ISA_AVX512VNNI : offered;
    read_model();
    const char *wanted = getenv("TESSERA_ISA");
    if (wanted == NULL || *wanted == 0) {
        return;
    }
    for (int i = 0; i < TESS_ISA_COUNT; i++) {
        if (strcmp(wanted, names[i]) == 0) {
            found = (tess_isa)i < offered ? (tess_isa)i : offered;
            return;
        }
    }
    tess_log(
        TESS_LOG_WARN,
        "TESSERA_ISA: expected base, avx2, avx512, avx512vnni or avx512bf16, found \"%s\": ignored",
        wanted);
}

tess_isa tess_isa_get(void)
{
    pthread_once(&once, look);
    int limit = atomic_load_explicit(&cap, memory_order_relaxed);
    return (int)found < limit ? found : (tess_isa)limit;
}

void tess_isa_cap(tess_isa max)
{
    atomic_store(&cap, (int)max);
}

const char *tess_isa_name(tess_isa isa)
{
    return (int)isa >= 0 && isa < TESS_ISA_COUNT ? names[isa] : "unknown";
}

const char *tess_cpu_model(void)
{
    pthread_once(&once, look);
    return model;
}
