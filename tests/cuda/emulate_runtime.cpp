/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated card's runtime: device memory, pinned memory, streams, events and graphs.
 *
 * A stream is a list of work in its order.  It is done at once, or, where emulate_set_lanes says
 * so, only when somebody waits for it: so late that whoever forgot to wait reads what was there
 * before.
 */
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "emulate_card.h"
#include "emulate_control.h"

using namespace card;

cudaError_t card::sticky;

typedef std::function<void()> task;

struct CUstream_st {
    unsigned number;
    std::deque<task> work;
    std::vector<task> *capturing = nullptr;
};
/* What was queued before its last record has been done, and by which stream it will be. */
struct CUevent_st {
    std::shared_ptr<bool> done;
    cudaStream_t stream = nullptr;
    double ms = 0;
};
struct CUgraph_st {
    std::vector<task> work;
};
struct CUgraphExec_st {
    std::shared_ptr<std::vector<task>> work;
};

namespace
{

constexpr size_t HEAP_BYTES = size_t(1) << 32;

std::string fault; /* "": none */
cudaError_t last;  /* what a call has returned that is not sticky, until it is asked for */
emulate_counts counts;
double queue_ms; /* what has been put on all lanes so far takes so long */
unsigned late;   /* a bit a stream */
std::vector<cudaStream_t> streams;
std::map<char *, size_t> pinned;

const char *driver()
{
    const char *s = getenv("EMULATE_DRIVER");
    return s ? s : "";
}

/* ---- device memory ------------------------------------------------------------------------- */

/* One reserved range, closed to everybody outside of a kernel or a copy. */
struct device_heap {
    char *base = nullptr;
    size_t end = 0;
    int open = 0;
    std::map<char *, size_t> used;       /* what was asked for */
    std::multimap<size_t, char *> spare; /* by size with guards */

    void start()
    {
        if (!base) {
            base = static_cast<char *>(mmap(nullptr, HEAP_BYTES, PROT_NONE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            if (base == MAP_FAILED) {
                abort();
            }
        }
    }
    void protect(int how)
    {
        if (base && end > 0) {
            mprotect(base, end, how);
        }
    }
} heap;

size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* A guard before and after, and pages that no card would give: 256 bytes aligned. */
size_t heap_size(size_t bytes)
{
    return 256 + round_up(bytes + GUARD_BYTES, 256);
}

} // namespace

card::heap_door::heap_door()
{
    if (heap.open++ == 0) {
        heap.protect(PROT_READ | PROT_WRITE);
    }
}

card::heap_door::~heap_door()
{
    if (--heap.open == 0) {
        heap.protect(PROT_NONE);
    }
}

void card::fail(cudaError_t code, const std::string &text)
{
    if (sticky == cudaSuccess) {
        sticky = code;
        fault = text;
    }
}

bool card::guards_intact(const char *p, size_t bytes)
{
    for (size_t i = 0; i < GUARD_BYTES; i++) {
        if (static_cast<unsigned char>(p[-1 - static_cast<long>(i)]) != GUARD ||
            static_cast<unsigned char>(p[bytes + i]) != GUARD) {
            return false;
        }
    }
    return true;
}

void card::check_heap(const char *after)
{
    for (const auto &[p, bytes] : heap.used) {
        if (!guards_intact(p, bytes)) {
            fail(cudaErrorIllegalAddress,
                 std::string(after) + " writes beyond a block of device memory");
        }
    }
}

/* ---- streams ------------------------------------------------------------------------------- */

namespace
{

void do_next(cudaStream_t s)
{
    const task work = std::move(s->work.front());
    s->work.pop_front();
    work();
}

void drain(cudaStream_t s)
{
    while (!s->work.empty()) {
        do_next(s);
    }
}

void drain_all()
{
    for (cudaStream_t s : streams) {
        drain(s);
    }
}

void finish(const std::shared_ptr<bool> &done, cudaStream_t s)
{
    while (done && !*done && !s->work.empty()) {
        do_next(s);
    }
}

void put(cudaStream_t s, task work)
{
    if (s->capturing) {
        s->capturing->push_back(std::move(work));
        return;
    }
    s->work.push_back(std::move(work));
    if (!(late >> s->number & 1)) {
        drain(s);
    }
}

/* Memory that a copy may read or write by itself, at any time. */
bool is_own(const void *p)
{
    char *at = static_cast<char *>(const_cast<void *>(p));
    const auto above = pinned.upper_bound(at);
    const bool host =
        above != pinned.begin() && at < std::prev(above)->first + std::prev(above)->second;
    return host || (heap.base && at >= heap.base && at < heap.base + HEAP_BYTES);
}

void copy(void *to, const void *from, size_t bytes)
{
    const quiet own;
    if (sticky == cudaSuccess) {
        heap_door door;
        memcpy(to, from, bytes);
        check_heap("a copy");
    }
}

} // namespace

void emulate::spend(double ms)
{
    queue_ms += ms;
}

void emulate::run(const launch &l, cudaStream_t s)
{
    const quiet own;
    spend(1e-3);
    if (strcmp(driver(), "no_image") == 0) {
        fail(cudaErrorNoKernelImageForDevice, "no kernel image");
    }
    if (sticky == cudaSuccess) {
        counts.launches += s->capturing == nullptr;
        put(s, [l] {
            if (sticky == cudaSuccess) {
                run_grid(l);
            }
        });
    }
}

/* ---- control ------------------------------------------------------------------------------- */

const char *emulate_fault(void)
{
    return fault.c_str();
}

void emulate_reset(void)
{
    drain_all();
    fault.clear();
    sticky = last = cudaSuccess;
}

void emulate_set_lanes(unsigned late_lanes)
{
    drain_all();
    late = late_lanes;
}

emulate_counts emulate_get_counts(void)
{
    return counts;
}

/* ---- asking, and memory -------------------------------------------------------------------- */

const char *cudaGetErrorString(cudaError_t e)
{
    return e == sticky && !fault.empty() ? fault.c_str() : e == cudaSuccess ? "no error" : "error";
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = sticky != cudaSuccess ? sticky : last;
    last = cudaSuccess;
    return e;
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int bytes, int device)
{
    snprintf(out, static_cast<size_t>(bytes), "0000:%02x:00.0", device);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return strcmp(driver(), "old") == 0 || strcmp(driver(), "missing") == 0
               ? cudaErrorInsufficientDriver
           : strcmp(driver(), "none") == 0 ? cudaErrorNoDevice
                                           : cudaSuccess;
}

cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *i)
{
    *i = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int)
{
    *p = {"an emulated card", 9, 0, 4};
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int)
{
    const bool weak = strcmp(driver(), "sm_70") == 0;
    *value = a == cudaDevAttrComputeCapabilityMajor   ? (weak ? 7 : 9)
             : a == cudaDevAttrComputeCapabilityMinor ? 0
                                                      : 4;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = strcmp(driver(), "missing") == 0 ? 0 : strcmp(driver(), "old") == 0 ? 11040 : 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = HEAP_BYTES - heap.end;
    *total_bytes = HEAP_BYTES;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    const quiet own;
    counts.allocations++;
    const size_t size = heap_size(bytes);
    heap.start();
    char *at;
    auto spare = heap.spare.find(size);
    if (spare != heap.spare.end()) {
        at = spare->second;
        heap.spare.erase(spare);
    } else if (heap.end + size > HEAP_BYTES) {
        return last = cudaErrorMemoryAllocation;
    } else {
        at = heap.base + heap.end;
        heap.end += round_up(size, static_cast<size_t>(getpagesize()));
    }
    heap_door door;
    heap.protect(PROT_READ | PROT_WRITE);
    memset(at, GUARD, size);
    memset(at + 256, POISON, bytes);
    heap.used[at + 256] = bytes;
    *p = at + 256;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    const quiet own;
    if (!p) {
        return cudaSuccess;
    }
    counts.allocations++;
    counts.waits++;
    drain_all();
    auto found = heap.used.find(static_cast<char *>(p));
    if (found == heap.used.end()) {
        return cudaErrorInvalidValue;
    }
    heap_door door;
    if (!guards_intact(found->first, found->second)) {
        fail(cudaErrorIllegalAddress, "a block of device memory was written beyond its end");
    }
    heap.spare.insert({heap_size(found->second), found->first - 256});
    heap.used.erase(found);
    return sticky;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    counts.allocations++;
    *p = strcmp(driver(), "no_pinned") == 0 ? nullptr : calloc(1, bytes + 1);
    if (*p) {
        pinned[static_cast<char *>(*p)] = bytes;
    }
    return *p ? cudaSuccess : last = cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p)
{
    counts.allocations += p != nullptr;
    pinned.erase(static_cast<char *>(p));
    free(p);
    return cudaSuccess;
}

/* Pageable memory is read before the call returns, and written only after a wait. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    const quiet own;
    if (sticky != cudaSuccess) {
        return sticky;
    }
    if (kind == cudaMemcpyHostToDevice && !is_own(from)) {
        counts.waits++;
        const char *bytes_now = static_cast<const char *>(from);
        auto staged = std::make_shared<std::vector<char>>(bytes_now, bytes_now + bytes);
        put(s, [=] { copy(to, staged->data(), bytes); });
    } else {
        put(s, [=] { copy(to, from, bytes); });
    }
    if (kind == cudaMemcpyDeviceToHost && !is_own(to)) {
        counts.waits++;
        drain(s);
    }
    return sticky;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t s)
{
    const quiet own;
    if (sticky == cudaSuccess) {
        put(s, [=] {
            const quiet own_too;
            heap_door door;
            memset(to, value, bytes);
            check_heap("a fill");
        });
    }
    return sticky;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new CUstream_st{static_cast<unsigned>(streams.size()), {}};
    streams.push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    counts.waits++;
    drain(s);
    return sticky;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    const std::shared_ptr<bool> done = e->done;
    const cudaStream_t by = e->stream;
    put(s, [=] { finish(done, by); });
    return sticky;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    counts.allocations++;
    *e = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
    return cudaEventCreateWithFlags(e, 0);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    *ms = static_cast<float>(end->ms - begin->ms);
    return sticky;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    counts.allocations++;
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    e->done = std::make_shared<bool>(false);
    e->ms = queue_ms;
    e->stream = s;
    const std::shared_ptr<bool> done = e->done;
    put(s, [=] { *done = true; });
    return sticky;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    return sticky != cudaSuccess  ? sticky
           : !e->done || *e->done ? cudaSuccess
                                  : last = cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    counts.waits++;
    finish(e->done, e->stream);
    return sticky;
}

/* ---- graphs -------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    s->capturing = new std::vector<task>;
    return sticky;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    *g = new CUgraph_st{*s->capturing};
    delete s->capturing;
    s->capturing = nullptr;
    return sticky;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *e, cudaGraph_t g, unsigned long long)
{
    counts.allocations++;
    *e = new CUgraphExec_st{std::make_shared<std::vector<task>>(g->work)};
    return sticky;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t s)
{
    const std::shared_ptr<std::vector<task>> work = e->work;
    counts.graphs++;
    put(s, [=] {
        for (const task &t : *work) {
            t();
        }
    });
    return sticky;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}

/* Its launches go on; they hold its work. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e)
{
    delete e;
    return cudaSuccess;
}
