/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA device: the one door to the CUDA runtime's host side.
 *
 * One card a process; a lane is a stream that does not wait for the default stream. */
#include "tensor/plan.h"

#include <cuda_runtime_api.h>
#include <stdlib.h>

#define LEAST_MAJOR 8 /* compute capability: bf16 products and asynchronous copies */

static struct {
    bool open;
    cudaStream_t lane[TESS_N_LANES];
} card;

/* The one place where the runtime's errors become ours. */
static tess_status check(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) {
        return TESS_OK;
    }
    if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion) {
        return TESS_FAIL(TESS_DEVICE,
                         "%s: the program has no code for a card of this generation that the "
                         "installed driver takes: update the driver, or use --device cpu",
                         what);
    }
    return TESS_FAIL(TESS_DEVICE, "%s: %s (CUDA error %d)", what, cudaGetErrorString(e), (int)e);
}

/* ---- memory --------------------------------------------------------------------------------- */

static tess_status device_alloc(size_t n_bytes, void **out)
{
    size_t free_bytes = 0, all_bytes = 0;
    *out = NULL;
    const cudaError_t e = cudaMalloc(out, n_bytes > 0 ? n_bytes : 1);
    if (e != cudaErrorMemoryAllocation) {
        return check(e, "memory on the card");
    }
    cudaGetLastError(); /* or the next launch would report it */
    cudaMemGetInfo(&free_bytes, &all_bytes);
    return TESS_FAIL(TESS_NOMEM,
                     "%.2f GB were asked for on the card, where %.2f of %.2f GB are free: use a "
                     "smaller --batch-size or --grad-checkpointing, or see with nvidia-smi who "
                     "else is there",
                     (double)n_bytes / 1e9, (double)free_bytes / 1e9, (double)all_bytes / 1e9);
}

static void device_free(void *p)
{
    cudaFree(p); /* waits for the lanes; an error of their work is reported by who waits */
}

static tess_status alloc_host(size_t n_bytes, void **out)
{
    *out = NULL;
    const cudaError_t e = cudaMallocHost(out, n_bytes > 0 ? n_bytes : 1);
    if (e != cudaErrorMemoryAllocation) {
        return check(e, "pinned memory");
    }
    cudaGetLastError();
    return TESS_FAIL(TESS_NOMEM,
                     "%.2f GB of pinned host memory were asked for and are not to be had: use a "
                     "smaller --batch-size, or give the process more memory",
                     (double)n_bytes / 1e9);
}

static void free_host(void *p)
{
    if (p) {
        cudaFreeHost(p);
    }
}

/* ---- lanes ---------------------------------------------------------------------------------- */

static tess_status upload(void *to, const void *from, size_t n_bytes)
{
    return check(
        cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyHostToDevice, card.lane[TESS_LANE_WORK]),
        "copy to the card");
}

static tess_status wait(void)
{
    return check(cudaStreamSynchronize(card.lane[TESS_LANE_WORK]), "work on the card");
}

static tess_status download(void *to, const void *from, size_t n_bytes)
{
    TESS_TRY(
        check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDeviceToHost, card.lane[TESS_LANE_WORK]),
              "copy from the card"));
    return wait();
}

static tess_status copy(tess_lane lane, void *to, const void *from, size_t n_bytes)
{
    return check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDefault, card.lane[lane]),
                 "copy to or from the card");
}

static tess_status new_event(void **out)
{
    cudaEvent_t e = NULL;
    const tess_status st = check(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event");
    *out = e;
    return st;
}

static void free_event(void *event)
{
    if (event) {
        cudaEventDestroy(event);
    }
}

static tess_status mark(void *event, tess_lane lane)
{
    return check(cudaEventRecord(event, card.lane[lane]), "work on the card");
}

static tess_status follow(tess_lane lane, void *event)
{
    return check(cudaStreamWaitEvent(card.lane[lane], event, 0), "work on the card");
}

static tess_status reached(void *event, bool wait_for_it, bool *out)
{
    cudaError_t e = cudaEventQuery(event);
    *out = e == cudaSuccess;
    if (e == cudaErrorNotReady) {
        cudaGetLastError(); /* no error, but the next launch would report it */
        e = wait_for_it ? cudaEventSynchronize(event) : cudaSuccess;
        *out = wait_for_it && e == cudaSuccess;
    }
    return check(e, "work on the card");
}

static tess_status fill(void *to, int byte, size_t n_bytes)
{
    return check(cudaMemsetAsync(to, byte, n_bytes, card.lane[TESS_LANE_WORK]), "fill on the card");
}

/* ---- recording: CUDA graphs ------------------------------------------------------------------ */

static tess_status record(void)
{
    return check(
        cudaStreamBeginCapture(card.lane[TESS_LANE_WORK], cudaStreamCaptureModeThreadLocal),
        "CUDA graph");
}

static tess_status recorded(void **out)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    tess_status st = check(cudaStreamEndCapture(card.lane[TESS_LANE_WORK], &graph), "CUDA graph");
    st = st ? st : check(cudaGraphInstantiate(&exec, graph, 0), "CUDA graph");
    if (graph) {
        cudaGraphDestroy(graph);
    }
    *out = exec;
    return st;
}

static tess_status replay(void *recording)
{
    return check(cudaGraphLaunch(recording, card.lane[TESS_LANE_WORK]), "CUDA graph");
}

static void forget(void *recording)
{
    if (recording) {
        cudaGraphExecDestroy(recording);
    }
}

static void *stream(void)
{
    return card.lane[TESS_LANE_WORK];
}

static void *handle(tess_lane which)
{
    return card.lane[which];
}

static tess_status sum_rows(tess_lane which, float *sum, const float *x, int64_t n, int64_t width)
{
    tess__cuda_sum_rows(sum, x, n, width, card.lane[which]);
    return check(cudaGetLastError(), "sum over ranks");
}

static tess_status name_card(char *out, size_t n_bytes)
{
    int chosen = 0;
    TESS_TRY(check(cudaGetDevice(&chosen), "asking the card"));
    return check(cudaDeviceGetPCIBusId(out, (int)n_bytes, chosen), "asking the card");
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

static tess_status check_generation(int chosen)
{
    int major = 0, minor = 0;
    TESS_TRY(check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, chosen),
                   "asking the card"));
    TESS_TRY(check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, chosen),
                   "asking the card"));
    return major >= LEAST_MAJOR
               ? TESS_OK
               : TESS_FAIL(TESS_DEVICE,
                           "the card has compute capability %d.%d, this program needs %d.0 or "
                           "newer (Ampere): use --device cpu",
                           major, minor, LEAST_MAJOR);
}

/* Ranks of a host take its cards in turn; where there are more ranks than cards, some share one. */
static int choose_card(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "LOCAL_RANK",
                                            "SLURM_LOCALID"};
    int n = 1;
    for (int64_t i = 0; i < TESS_COUNT(variables) && cudaGetDeviceCount(&n) == cudaSuccess; i++) {
        const char *rank = getenv(variables[i]);
        if (rank && atoi(rank) >= 0) {
            return atoi(rank) % n;
        }
    }
    return 0;
}

tess_status tess_device_cuda(const tess_device **out)
{
    static const tess_remote remote = {
        .alloc = device_alloc,
        .free = device_free,
        .alloc_host = alloc_host,
        .free_host = free_host,
        .upload = upload,
        .download = download,
        .fill = fill,
        .wait = wait,
        .copy = copy,
        .new_event = new_event,
        .free_event = free_event,
        .mark = mark,
        .follow = follow,
        .reached = reached,
        .record = record,
        .recorded = recorded,
        .replay = replay,
        .forget = forget,
        .stream = stream,
        .lane = handle,
        .sum_rows = sum_rows,
        .name_card = name_card,
    };
    static const tess_device device = {.name = "cuda", .computes = true, .remote = &remote};
    *out = NULL;
    if (!card.open) {
        TESS_TRY(check_driver());
        const int chosen = choose_card();
        TESS_TRY(check_generation(chosen));
        TESS_TRY(check(cudaSetDevice(chosen), "opening the card"));
        for (int i = 0; i < TESS_N_LANES; i++) {
            TESS_TRY(check(cudaStreamCreateWithFlags(&card.lane[i], cudaStreamNonBlocking),
                           "opening the card"));
        }
        card.open = true;
    }
    *out = &device;
    return TESS_OK;
}
