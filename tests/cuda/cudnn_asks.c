/* SPDX-License-Identifier: Apache-2.0 */
/* Asks the installed cuDNN, on a machine without a card, for plans of attention on an H200; for
 * test_cuda_cudnn_library.sh, which links it with --wrap=dlsym.
 *
 * The door's calls pass through here.  Where it names its handle, the card's properties go in its
 * place, as cuDNN offers it for compiling ahead.  A plan is then made to its end but for the last
 * step, in which the driver's library would load the kernels; a stub of that library refuses, and
 * the refusal is taken for a success. */
#include <cudnn_graph.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "tensor/cuda_cudnn.h"

static const char h200[] =
    "{\"deviceName\":\"NVIDIA H200\",\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,"
    "\"multiProcessorCount\":132,\"maxGridSize\":[2147483647,65535,65535],"
    "\"maxBlockSize\":[1024,1024,64],\"regsPerBlock\":65536,\"warpSize\":32,"
    "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"totalGlobalMem\":150754820096,\"smClockRateKHz\":1980000,"
    "\"memClockRateKHz\":3201000,\"l2CacheSize\":62914560}";

static struct {
    __typeof__(&cudnnBackendSetAttribute) set;
    __typeof__(&cudnnBackendGetAttribute) get;
    __typeof__(&cudnnBackendFinalize) finalize;
    __typeof__(&cudnnGetLastErrorString) last_error;
    __typeof__(&cudnnBackendCreateDescriptor) create;
    cudnnBackendDescriptor_t card, config;
} real;

static void complain(const char *what, cudnnStatus_t s)
{
    char why[500] = "";
    real.last_error(why, sizeof why);
    printf("%s: %d %s\n", what, (int)s, why);
}

static cudnnStatus_t create_handle(cudnnHandle_t *handle)
{
    *handle = (cudnnHandle_t)&real;
    cudnnStatus_t s = real.create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &real.card);
    s = s ? s
          : real.set(real.card, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                     sizeof h200, h200);
    return s ? s : real.finalize(real.card);
}

static cudnnStatus_t set(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    cudnnStatus_t s = CUDNN_STATUS_SUCCESS;
    if (name == CUDNN_ATTR_ENGINEHEUR_MODE) {
        s = real.set(d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &real.card);
    }
    if (name == CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG) {
        memcpy(&real.config, values, sizeof real.config);
        s = real.set(d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                     &real.card);
    }
    s = s || type == CUDNN_TYPE_HANDLE ? s : real.set(d, name, type, n, values);
    if (s) {
        complain("set", s);
    }
    return s;
}

static cudnnStatus_t finalize(cudnnBackendDescriptor_t d)
{
    const cudnnStatus_t s = real.finalize(d);
    if (s && s != CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER) {
        complain("finalize", s);
    }
    return s == CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER ? CUDNN_STATUS_SUCCESS : s;
}

static cudnnStatus_t get(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                         cudnnBackendAttributeType_t type, int64_t wanted, int64_t *n, void *out)
{
    return name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE
               ? real.get(real.config, CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE, type, wanted, n, out)
               : real.get(d, name, type, wanted, n, out);
}

void *__real_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name)
{
    const struct {
        const char *name;
        void *ours, *kept;
    } functions[] = {
        {"cudnnBackendSetAttribute", (void *)set, &real.set},
        {"cudnnBackendGetAttribute", (void *)get, &real.get},
        {"cudnnBackendFinalize", (void *)finalize, &real.finalize},
        {"cudnnBackendCreateDescriptor", NULL, &real.create},
        {"cudnnGetErrorString", NULL, NULL},
        {"cudnnCreate", (void *)create_handle, NULL},
    };
    void *found = __real_dlsym(library, name),
         *last = __real_dlsym(library, "cudnnGetLastErrorString");
    memcpy(&real.last_error, &last, sizeof last);
    for (int64_t i = 0; found && i < TESS_COUNT(functions); i++) {
        if (strcmp(functions[i].name, name) == 0) {
            if (functions[i].kept) {
                memcpy(functions[i].kept, &found, sizeof found);
            }
            return functions[i].ours ? functions[i].ours : found;
        }
    }
    return found;
}

static void print_log(void *ctx, tess_log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    printf("%s\n", line);
}

int main(void)
{
    static const struct {
        const char *name;
        int64_t segments, heads, n_q, n_k, head_dim;
        bool causal;
    } all[] = {
        {"B/32's pictures", 1024, 12, 50, 50, 64, false},
        {"B/16's pictures", 1024, 12, 197, 197, 64, false},
        {"L/14's pictures", 256, 16, 257, 257, 64, false},
        {"B's texts", 1024, 8, 77, 77, 64, true},
        {"two short rows", 2, 1, 2, 2, 8, true},
        {"a head of 128", 3, 2, 33, 33, 128, true},
        {"a head of 72", 1, 2, 66, 66, 72, false},
        {"cross attention", 3, 2, 3, 19, 8, false},
    };
    int failed = 0;
    tess_log_set_sink(print_log, NULL, TESS_LOG_DEBUG);
    for (int64_t i = 0; i < 2 * TESS_COUNT(all); i++) {
        const bool grad = i % 2, cross = all[i / 2].n_q != all[i / 2].n_k;
        const int64_t width = all[i / 2].heads * all[i / 2].head_dim;
        const tess_attention_spec s = {
            .n_segments = all[i / 2].segments,
            .heads = all[i / 2].heads,
            .n_q = all[i / 2].n_q,
            .n_k = all[i / 2].n_k,
            .head_dim = all[i / 2].head_dim,
            .q_row = cross ? width : 3 * width,
            .kv_row = cross ? 2 * width : 3 * width,
            .y_row = width,
            .causal = all[i / 2].causal,
            .grad = grad,
        };
        const tess_cudnn_plan *p = tess__cudnn_plan(&s);
        printf("%s  %s%s: %zu bytes of workspace\n", p ? "ok    " : "FAILED", all[i / 2].name,
               grad ? ", gradient" : "", p ? tess__cudnn_workspace(p) : 0);
        failed += !p;
    }
    printf("%d passed, %d failed\n", 2 * (int)TESS_COUNT(all) - failed, failed);
    return failed != 0;
}
