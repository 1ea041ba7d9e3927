/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA device: the one door to the CUDA runtime's host side.
 *
 * One card a process, one queue for work (a stream that does not wait for the default stream). */
#include "tensor/plan.h"

#include <cuda_runtime_api.h>

#define LEAST_MAJOR 8 /* compute capability: bf16 products and asynchronous copies */

/* The one place where the runtime's errors become ours. */
static tess_status check(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) {
        return TESS_OK;
    }
    if (e == cudaErrorMemoryAllocation) {
        return TESS_FAIL(TESS_NOMEM, "%s: the card's memory gave out", what);
    }
    return TESS_FAIL(TESS_DEVICE, "%s: %s (CUDA error %d)", what, cudaGetErrorString(e), (int)e);
}

static struct {
    bool open;
    cudaStream_t stream;
} card;

/* ---- the queue ------------------------------------------------------------------------------ */

static tess_status device_alloc(size_t n_bytes, void **out)
{
    *out = NULL;
    return check(cudaMalloc(out, n_bytes > 0 ? n_bytes : 1), "memory on the card");
}

static void device_free(void *p)
{
    cudaFree(p); /* waits for the queue; an error of the queue's work is reported by who waits */
}

static tess_status upload(void *to, const void *from, size_t n_bytes)
{
    return check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyHostToDevice, card.stream),
                 "copy to the card");
}

static tess_status wait(void)
{
    return check(cudaStreamSynchronize(card.stream), "work on the card");
}

static tess_status download(void *to, const void *from, size_t n_bytes)
{
    TESS_TRY(check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToHost, card.stream),
                   "copy from the card"));
    return wait();
}

static tess_status fill(void *to, int byte, size_t n_bytes)
{
    return check(cudaMemsetAsync(to, byte, n_bytes, card.stream), "fill on the card");
}

/* ---- recording: CUDA graphs ------------------------------------------------------------------ */

static tess_status record(void)
{
    return check(cudaStreamBeginCapture(card.stream, cudaStreamCaptureModeThreadLocal),
                 "CUDA graph");
}

static tess_status recorded(void **out)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    tess_status st = check(cudaStreamEndCapture(card.stream, &graph), "CUDA graph");
    st = st ? st : check(cudaGraphInstantiate(&exec, graph, 0), "CUDA graph");
    if (graph) {
        cudaGraphDestroy(graph);
    }
    *out = exec;
    return st;
}

static tess_status replay(void *recording)
{
    return check(cudaGraphLaunch(recording, card.stream), "CUDA graph");
}

static void forget(void *recording)
{
    if (recording) {
        cudaGraphExecDestroy(recording);
    }
}

static void *stream(void)
{
    return card.stream;
}

tess_status tess__cuda_launched(const char *what)
{
    return check(cudaGetLastError(), what);
}

tess_status tess__cuda_zero(void *x, size_t n_bytes, void *to)
{
    return check(cudaMemsetAsync(x, 0, n_bytes, to), "fill on the card");
}

/* ---- opening --------------------------------------------------------------------------------- */

static tess_status check_driver(void)
{
    int n = 0, driver = 0, runtime = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        return TESS_FAIL(TESS_DEVICE,
                         "no NVIDIA driver is installed: install one for CUDA %d.%d or newer, or "
                         "use --device cpu",
                         runtime / 1000, runtime % 1000 / 10);
    }
    if (e == cudaErrorInsufficientDriver) {
        return TESS_FAIL(
            TESS_DEVICE,
            "the NVIDIA driver serves CUDA %d.%d, this program needs %d.%d: update the "
            "driver, or use --device cpu",
            driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    if (e == cudaErrorNoDevice || (e == cudaSuccess && n == 0)) {
        return TESS_FAIL(TESS_DEVICE, "no NVIDIA card is visible: see nvidia-smi and "
                                      "CUDA_VISIBLE_DEVICES, or use --device cpu");
    }
    return check(e, "looking for NVIDIA cards");
}

static tess_status check_generation(void)
{
    int major = 0, minor = 0;
    TESS_TRY(check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0),
                   "asking the card"));
    TESS_TRY(check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0),
                   "asking the card"));
    return major >= LEAST_MAJOR
               ? TESS_OK
               : TESS_FAIL(TESS_DEVICE,
                           "the card has compute capability %d.%d, this program needs %d.0 or "
                           "newer (Ampere): use --device cpu",
                           major, minor, LEAST_MAJOR);
}

tess_status tess_device_cuda(const tess_device **out)
{
    static const tess_remote remote = {
        .alloc = device_alloc,
        .free = device_free,
        .upload = upload,
        .download = download,
        .fill = fill,
        .wait = wait,
        .record = record,
        .recorded = recorded,
        .replay = replay,
        .forget = forget,
        .stream = stream,
    };
    static const tess_device device = {.name = "cuda", .computes = true, .remote = &remote};
    *out = NULL;
    if (!card.open) {
        TESS_TRY(check_driver());
        TESS_TRY(check_generation());
        TESS_TRY(check(cudaSetDevice(0), "opening the card"));
        TESS_TRY(check(cudaStreamCreateWithFlags(&card.stream, cudaStreamNonBlocking),
                       "opening the card"));
        card.open = true;
    }
    *out = &device;
    return TESS_OK;
}
