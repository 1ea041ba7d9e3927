/* SPDX-License-Identifier: Apache-2.0 */
/* Opening cuBLASLt by name, and what its errors become. */
#include "tensor/cuda_lt.h"

#include <dlfcn.h>
#include <string.h>

tess_lt tess__lt;

tess_status tess__lt_check(cublasStatus_t s, const char *what)
{
    return s == CUBLAS_STATUS_SUCCESS
               ? TESS_OK
               : TESS_FAIL(TESS_DEVICE, "%s: %s", what, tess__lt.cublasLtGetStatusString(s));
}

tess_status tess__lt_check_cuda(cudaError_t e, const char *what)
{
    return e == cudaSuccess ? TESS_OK
                            : TESS_FAIL(TESS_DEVICE, "%s: %s", what, cudaGetErrorString(e));
}

static tess_status find_functions(void *library)
{
    static const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define ROW(name) {#name, offsetof(tess_lt, name)},
        TESS_LT_FUNCTIONS(ROW)
#undef ROW
    };
    for (int64_t i = 0; i < TESS_COUNT(functions); i++) {
        void *found = dlsym(library, functions[i].name);
        if (!found) {
            return TESS_FAIL(TESS_DEVICE, "cuBLASLt has no %s: install CUDA 13's libcublas",
                             functions[i].name);
        }
        memcpy((char *)&tess__lt + functions[i].at, &found, sizeof found);
    }
    return TESS_OK;
}

tess_status tess__lt_open(void)
{
    if (tess__lt.workspace) {
        return TESS_OK;
    }
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        return TESS_FAIL(TESS_DEVICE,
                         "cuBLASLt does not open (%s): install CUDA 13's libcublas, or use "
                         "--device cpu",
                         dlerror());
    }
    TESS_TRY(find_functions(library));
    TESS_TRY(tess__lt_check(tess__lt.cublasLtCreate(&tess__lt.handle), "cuBLASLt"));
    return tess__lt_check_cuda(cudaMalloc(&tess__lt.workspace, TESS_LT_WORKSPACE_BYTES),
                               "cuBLASLt's workspace");
}

tess_status tess__lt_place(tess_buf *out)
{
    struct cudaDeviceProp card;
    int device = 0, driver = 0;
    TESS_TRY(tess__lt_check_cuda(cudaGetDevice(&device), "asking the card"));
    TESS_TRY(tess__lt_check_cuda(cudaGetDeviceProperties(&card, device), "asking the card"));
    TESS_TRY(tess__lt_check_cuda(cudaDriverGetVersion(&driver), "asking the driver"));
    tess_buf_addf(out, "%s %d.%d %d multiprocessors driver %d cublasLt %zu", card.name, card.major,
                  card.minor, card.multiProcessorCount, driver, tess__lt.cublasLtGetVersion());
    return tess_buf_check(out);
}
