/* SPDX-License-Identifier: Apache-2.0 */
/* The emulated card: a block's threads as fibers, warps, barriers and shared memory; see emulate.h.
 */
#include "emulate_card.h"

#include <cstdlib>
#include <map>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#include "emulate_control.h"

#if defined __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
}
#elif defined __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace
{

using namespace card;

constexpr size_t STACK_BYTES = 256 << 10;
emulate_order order_now; /* of the fibers */

/* ---- fibers -------------------------------------------------------------------------------- */

enum class state { ready, at_barrier, in_warp, done };

/* Between stacks: by hand where that is known, since swapcontext asks the kernel for the signal
 * mask each time; the sanitizers follow swapcontext. */
#if defined __x86_64__ && !defined __SANITIZE_THREAD__ && !defined __SANITIZE_ADDRESS__
extern "C" void emulate_switch(void **from, void *to);
asm(".globl emulate_switch\n"
    ".type emulate_switch,@function\n"
    "emulate_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n"
    ".size emulate_switch, .-emulate_switch\n");

struct stack_context {
    void *sp = nullptr;
};

void switch_context(stack_context *from, stack_context *to)
{
    emulate_switch(&from->sp, to->sp);
}

/* As if emulate_switch had been called by `entry`'s caller, with all registers 0. */
void new_context(stack_context *c, char *stack, size_t n_bytes, void (*entry)())
{
    void **top = reinterpret_cast<void **>(stack + n_bytes);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void *>(entry);
    for (int i = 3; i <= 8; i++) {
        top[-i] = nullptr;
    }
    c->sp = &top[-8];
}
#else
typedef ucontext_t stack_context;

void switch_context(stack_context *from, stack_context *to)
{
    swapcontext(from, to);
}

void new_context(stack_context *c, char *stack, size_t n_bytes, void (*entry)())
{
    getcontext(c);
    c->uc_stack.ss_sp = stack;
    c->uc_stack.ss_size = n_bytes;
    c->uc_link = nullptr;
    makecontext(c, entry, 0);
}
#endif

struct fiber {
    stack_context context;
    char *stack = nullptr;
    void *tsan = nullptr, *fake = nullptr;
    state s = state::done;
    dim3 index;
    unsigned mask = 0; /* of the warp's operation it waits in */
    const void *value = nullptr;
    bool ballot = false;
    char slot[2][32]; /* for gather */
    unsigned turn = 0;
};

std::vector<fiber> fibers; /* kept from launch to launch */
stack_context scheduler;
void *scheduler_tsan;
const emulate::launch *running;
size_t n_running, current;
char barrier_sync, warp_sync[64], launch_sync;

#if defined __SANITIZE_THREAD__
void switch_tsan(void *to)
{
    __tsan_switch_to_fiber(to, 1 /* no synchronisation */);
}
void sync_release(void *at)
{
    __tsan_release(at);
}
void sync_acquire(void *at)
{
    __tsan_acquire(at);
}
/* What this fiber touches from here on is the emulation's own, and no kernel's race. */
void begin_quiet()
{
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}
void end_quiet()
{
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
void switch_tsan(void *)
{
}
void sync_release(void *)
{
}
void sync_acquire(void *)
{
}
void begin_quiet()
{
}
void end_quiet()
{
}
#endif

} // namespace

card::quiet::quiet()
{
    begin_quiet();
}

card::quiet::~quiet()
{
    end_quiet();
}

namespace
{

void switch_to_scheduler()
{
    fiber &f = fibers[current];
#if defined __SANITIZE_ADDRESS__
    const void *bottom;
    size_t size;
    __sanitizer_start_switch_fiber(&f.fake, nullptr, 0); /* it goes on, with the next block */
    switch_tsan(scheduler_tsan);
    switch_context(&f.context, &scheduler);
    __sanitizer_finish_switch_fiber(f.fake, &bottom, &size);
#else
    switch_tsan(scheduler_tsan);
    switch_context(&f.context, &scheduler);
#endif
}

void enter()
{
#if defined __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    for (;;) {
        sync_acquire(&launch_sync);
        running->body();
        sync_release(&launch_sync);
        begin_quiet();
        fibers[current].s = state::done;
        end_quiet(); /* before the switch, from which the last launch's fiber never returns */
        switch_to_scheduler();
    }
}

void resume(size_t i)
{
    fiber &f = fibers[i];
    current = i;
    threadIdx = f.index;
    f.s = state::ready;
#if defined __SANITIZE_ADDRESS__
    void *fake;
    __sanitizer_start_switch_fiber(&fake, f.stack, STACK_BYTES);
    switch_context(&scheduler, &f.context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    switch_tsan(f.tsan);
    switch_context(&scheduler, &f.context);
#endif
}

void make_fibers(size_t n)
{
    while (fibers.size() < n) {
        fibers.emplace_back();
    }
    for (size_t i = 0; i < n; i++) {
        fiber &f = fibers[i];
        if (f.stack) {
            continue;
        }
        f.stack = static_cast<char *>(mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (f.stack == MAP_FAILED) {
            abort();
        }
#if defined __SANITIZE_THREAD__
        f.tsan = __tsan_create_fiber(0);
#endif
    }
}

/* A context cannot move, so it is made when the fibers no longer do. */
void start_fibers(size_t n)
{
    for (size_t i = 0; i < n; i++) {
        new_context(&fibers[i].context, fibers[i].stack, STACK_BYTES, enter);
    }
}

/* ---- shared memory -------------------------------------------------------------------------- */

struct shared_block {
    std::vector<char> bytes;
    size_t used = 0;
};
std::map<const void *, shared_block> shared_now; /* of the running block */
const char dynamic_site = 0;

void *new_shared(const void *site, size_t bytes)
{
    shared_block &b = shared_now[site];
    if (b.used == 0) {
        b.used = bytes;
        b.bytes.assign(bytes + 2 * GUARD_BYTES + 16, static_cast<char>(GUARD));
        memset(b.bytes.data() + GUARD_BYTES, POISON, bytes);
    }
    return b.bytes.data() + GUARD_BYTES;
}

void check_shared()
{
    for (auto &[site, b] : shared_now) {
        (void)site;
        if (b.used > 0 && !guards_intact(b.bytes.data() + GUARD_BYTES, b.used)) {
            fail(cudaErrorIllegalAddress,
                 std::string(running->name) + " writes beyond its shared memory");
        }
    }
    shared_now.clear();
}

/* ---- one block ------------------------------------------------------------------------------ */

size_t warp_begin(size_t i)
{
    return i / 32 * 32;
}

/* All lanes of the mask of fiber i's operation have arrived. */
bool warp_complete(size_t i)
{
    const size_t first = warp_begin(i);
    for (size_t k = first; k < first + 32 && k < n_running; k++) {
        if (fibers[i].mask >> (k - first) & 1 &&
            (fibers[k].s != state::in_warp || fibers[k].mask != fibers[i].mask)) {
            return false;
        }
    }
    return true;
}

bool release_warps()
{
    bool any = false;
    for (size_t i = 0; i < n_running; i++) {
        if (fibers[i].s != state::in_warp || !warp_complete(i)) {
            continue;
        }
        const size_t first = warp_begin(i);
        const unsigned mask = fibers[i].mask;
        for (size_t k = first; k < first + 32 && k < n_running; k++) {
            fibers[k].s = mask >> (k - first) & 1 ? state::ready : fibers[k].s;
        }
        any = true;
    }
    return any;
}

bool release_barrier()
{
    size_t waiting = 0, done = 0;
    for (size_t i = 0; i < n_running; i++) {
        waiting += fibers[i].s == state::at_barrier;
        done += fibers[i].s == state::done;
    }
    if (waiting == 0 || waiting + done < n_running) {
        return false;
    }
    if (done > 0) {
        fail(cudaErrorLaunchFailure, std::string(running->name) +
                                         ": some threads end before a barrier that others wait at");
    }
    for (size_t i = 0; i < n_running; i++) {
        fibers[i].s = fibers[i].s == state::at_barrier ? state::ready : fibers[i].s;
    }
    return true;
}

size_t pick(size_t i)
{
    switch (order_now) {
    case EMULATE_BACKWARD:
        return n_running - 1 - i;
    case EMULATE_SHUFFLED:
        return (i * 7919 + 13) % n_running; /* 7919 is prime */
    default:
        return i;
    }
}

void run_block()
{
    for (size_t i = 0; i < n_running; i++) {
        fibers[i].s = state::ready;
        fibers[i].turn = 0;
        const unsigned t = static_cast<unsigned>(i);
        fibers[i].index =
            dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y);
    }
    for (;;) {
        bool ran = false;
        for (size_t i = 0; i < n_running; i++) {
            if (fibers[pick(i)].s == state::ready) {
                resume(pick(i));
                ran = true;
            }
        }
        if (ran || release_warps() || release_barrier()) {
            continue;
        }
        bool stuck = false;
        for (size_t i = 0; i < n_running; i++) {
            stuck |= fibers[i].s != state::done;
        }
        if (stuck) {
            fail(cudaErrorLaunchFailure,
                 std::string(running->name) + ": threads wait for lanes that never come");
            fibers.clear(); /* their stacks hold frames that cannot be left */
        }
        return;
    }
}

} // namespace

void card::run_grid(const emulate::launch &l)
{
    const quiet own;
    heap_door door;
    running = &l;
    gridDim = l.grid;
    blockDim = l.block;
    n_running = size_t(l.block.x) * l.block.y * l.block.z;
    if (n_running == 0 || n_running > 1024 || l.grid.x == 0 || l.grid.y == 0 || l.grid.z == 0 ||
        l.grid.y > 65535 || l.grid.z > 65535 || l.shared_bytes > 227 * 1024) {
        fail(cudaErrorInvalidValue, std::string(l.name) + ": no card takes this grid, block or "
                                                          "shared memory");
        return;
    }
    make_fibers(n_running);
#if defined __SANITIZE_THREAD__
    scheduler_tsan = __tsan_get_current_fiber();
#endif
    start_fibers(n_running);
    sync_release(&launch_sync);
    for (unsigned z = 0; z < l.grid.z; z++) {
        for (unsigned y = 0; y < l.grid.y; y++) {
            for (unsigned x = 0; x < l.grid.x && sticky == cudaSuccess; x++) {
                blockIdx = dim3(x, y, z);
                new_shared(&dynamic_site, l.shared_bytes + 1);
                run_block();
                check_shared();
            }
        }
    }
    sync_acquire(&launch_sync);
    sync_acquire(&barrier_sync); /* of those that were stuck */
    for (char &sync : warp_sync) {
        sync_acquire(&sync);
    }
    check_heap(l.name);
}
namespace emulate
{

void *shared(const void *site, size_t bytes)
{
    const quiet own;
    return new_shared(site, bytes);
}

void *dynamic_shared()
{
    const quiet own;
    return new_shared(&dynamic_site, 1);
}

void barrier()
{
    const quiet own;
    sync_release(&barrier_sync);
    fibers[current].s = state::at_barrier;
    switch_to_scheduler();
    sync_acquire(&barrier_sync);
}

static void wait_for_warp(unsigned mask)
{
    fiber &f = fibers[current];
    char *sync = &warp_sync[current / 32];
    f.mask = mask;
    f.s = state::in_warp;
    sync_release(sync);
    switch_to_scheduler();
    sync_acquire(sync);
}

void exchange(unsigned mask, int from, void *value, size_t bytes)
{
    const quiet own;
    char mine[16], theirs[16];
    const size_t first = warp_begin(current);
    memcpy(mine, value, bytes);
    fibers[current].value = mine;
    wait_for_warp(mask);
    const size_t other = first + static_cast<size_t>(from);
    if (!(mask >> from & 1) || other >= n_running) {
        fail(cudaErrorLaunchFailure,
             std::string(running->name) + ": a shuffle reads a lane outside of its mask");
    } else {
        memcpy(theirs, fibers[other].value, bytes);
        memcpy(value, theirs, bytes);
    }
    wait_for_warp(mask); /* until all have read */
}

uint32_t vote(unsigned mask, bool value)
{
    const quiet own;
    const size_t first = warp_begin(current);
    uint32_t all = 0;
    fibers[current].ballot = value;
    wait_for_warp(mask);
    for (size_t i = first; i < first + 32 && i < n_running; i++) {
        all |= mask >> (i - first) & 1 && fibers[i].ballot ? 1u << (i - first) : 0;
    }
    wait_for_warp(mask);
    return all;
}

/* Two slots a lane, in turn: when a lane writes one again, all have read it. */
void gather(const void *value, size_t bytes, void *all)
{
    const quiet own;
    const size_t first = warp_begin(current);
    const unsigned turn = fibers[current].turn++ % 2;
    memcpy(fibers[current].slot[turn], value, bytes);
    wait_for_warp(0xffffffffu);
    for (size_t i = 0; i < 32 && first + i < n_running; i++) {
        memcpy(static_cast<char *>(all) + i * bytes, fibers[first + i].slot[turn], bytes);
    }
}

} // namespace emulate
/* ---- control ----------------------------------------------------------------------------------
 */

void emulate_set_order(emulate_order order)
{
    order_now = order;
}
