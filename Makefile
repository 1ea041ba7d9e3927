# SPDX-License-Identifier: Apache-2.0
#
# Tessera's build.
#
#   make                      the program (build/tessera) and every library
#   make test                 every test program, run by tests/run
#   make test FLOOR=vision    one floor's tests
#   make BUILD=build/asan SAN=address,undefined test
#   make CC=clang CXX=clang++ BUILD=build/clang
#   make fuzz                 libFuzzer targets (clang)
#   make bench                the benches' programs; script/bench runs them
#
# A floor (src/base, src/tensor, ...) is one archive; what it may link is the floors below it, so
# an arrow that runs up fails at the link as well as in tests/house.

BUILD   ?= build
CC      ?= gcc
CXX     ?= g++
VERSION := $(shell cat VERSION)

OPT     ?= -O2 -g
WARN    := -Wall -Wextra -Werror -Wformat=2 -Wimplicit-fallthrough -Wshadow -Wstrict-prototypes \
           -Wmissing-prototypes -Wpointer-arith -Wundef -Wvla -Wwrite-strings \
           -Wno-missing-field-initializers -Wno-pass-failed
WARNXX  := -Wall -Wextra -Werror -Wformat=2 -Wshadow
HARDEN  := -fstack-protector-strong -fstack-clash-protection -fPIC
ifneq ($(shell uname -m),aarch64)
HARDEN  += -fcf-protection=full
endif
ifeq ($(SAN),)
HARDEN  += -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
else
SANFLAGS := -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
# A fuzzer sees only what was compiled for it: without this the libraries look like one block.
ifneq ($(filter fuzz $(BUILD)/fuzz/%,$(MAKECMDGOALS)),)
SANFLAGS += -fsanitize=fuzzer-no-link
endif
DEFS    := -D_GNU_SOURCE -DTESS_VERSION='"$(VERSION)"'
INC     := -Iinclude -Isrc
CFLAGS   = -std=gnu17 $(OPT) $(WARN) $(HARDEN) $(SANFLAGS) $(DEFS) $(INC) -MMD -MP $(EXTRA_CFLAGS)
# The vptr check needs the C++ sanitizer runtime, which a link by $(CC) leaves out.
CXXFLAGS = -std=gnu++17 $(OPT) $(WARNXX) $(HARDEN) $(SANFLAGS) $(if $(SAN),-fno-sanitize=vptr) $(DEFS) $(INC) -MMD -MP
LDFLAGS  = -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack $(SANFLAGS) -fopenmp

FLOORS  := base tensor index vision text fusion train serve cli

# What each floor links, itself first.
LINKS_base   := base
LINKS_tensor := tensor base
LINKS_index  := index base
LINKS_vision := vision tensor base
LINKS_text   := text tensor base
LINKS_fusion := fusion vision text tensor index base
LINKS_train  := train $(LINKS_fusion)
LINKS_serve  := serve $(LINKS_fusion)
LINKS_cli    := cli train serve $(LINKS_fusion)

# The libraries that a floor opens its one door to.
LIBS_base   := -ljansson -lxxhash -lz -lpthread -lm
LIBS_tensor  = -ldnnl -lm $(if $(CUDA),-L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -lrt -ldl -lpthread)
LIBS_index  := -lfaiss -lopenblas -lsqlite3 -lstdc++ -ldl -lm
LIBS_vision := -ljpeg -lpng -lwebp -lwebpdemux -lz -lm
LIBS_text   := -lutf8proc -lm
LIBS_serve  := -lmicrohttpd -lpthread

# The CUDA device is built where nvcc is found, and not under a sanitizer: CUDA= leaves it out.  Its
# kernels are ops/<name>.cu, machine code for Hopper and PTX for every card since Ampere.
NVCC      ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA      ?= $(if $(SAN),,$(NVCC))
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
NVCCFLAGS := -std=c++17 -O3 -lineinfo -gencode arch=compute_90,code=sm_90 \
             -gencode arch=compute_80,code=compute_80 -Xcompiler -fPIC,-Wall,-Wextra -Werror all-warnings
CUDA_UNITS := $(wildcard src/tensor/*.cu src/tensor/ops/*.cu)
CUDA_C     := $(addprefix src/tensor/cuda_,attention.c cache.c choice.c cudnn.c device.c lt.c matmul.c nearest.c products.c table.c)
# These call the CUDA runtime, cuBLASLt or cuDNN.
CUDA_HOST  := $(patsubst %,$(BUILD)/obj/tensor/cuda_%.o,attention choice cudnn device lt matmul)
CUDA_OFF   := src/tensor/cuda_none.c

# Ranks: Open MPI is opened by name at run time, so that its header alone is wanted here.
MPI_INC := $(patsubst %/mpi.h,%,$(firstword $(wildcard /usr/lib/*/openmpi/include/mpi.h)))
MPI_OFF := src/tensor/comm_$(if $(MPI_INC),none,mpi).c
# Processes that were started one by one meet through PMIx, as under srun.
PMIX_INC := $(patsubst %/pmix_server.h,%,$(firstword $(wildcard /usr/lib/*/pmix2/include/pmix_server.h)))
PMIX_OFF := src/tensor/job_pmix$(if $(PMIX_INC),_none).c
$(BUILD)/obj/tensor/job_pmix.o: EXTRA_CFLAGS += -isystem $(PMIX_INC)
# Sums between cards: NCCL is opened by name as well.
NCCL_INC := $(patsubst %/nccl.h,%,$(firstword $(wildcard $(CUDA_HOME)/include/nccl.h)))
NCCL_OFF := src/tensor/comm_nccl$(if $(NCCL_INC),_none).c
$(BUILD)/obj/tensor/comm_nccl.o $(BUILD)/tests/tensor/test_nccl: EXTRA_CFLAGS += $(if $(NCCL_INC),-isystem $(NCCL_INC))
$(BUILD)/tests/tensor/test_nccl: LDFLAGS += -rdynamic -Wl,--wrap=dlopen
$(BUILD)/obj/tensor/comm_mpi.o: EXTRA_CFLAGS += -isystem $(MPI_INC)

# One operator, one stem: the list of sources is read from the operator table.
OPS     := $(shell sed -n 's/^TESS_OP(\([a-z0-9_]*\)).*/src\/tensor\/ops\/\1.c/p' src/tensor/ops.def 2>/dev/null)

srcs     = $(if $(filter tensor,$1),$(OPS)) $(filter-out $(MPI_OFF) $(PMIX_OFF) $(NCCL_OFF) $(if $(CUDA),$(CUDA_OFF),$(CUDA_C)),$(wildcard src/$1/*.c)) $(wildcard src/$1/*.cpp)
objs     = $(patsubst src/%,$(BUILD)/obj/%.o,$(basename $(call srcs,$1)))
CUDA_OBJS := $(if $(CUDA),$(patsubst src/%,$(BUILD)/obj/%.o,$(CUDA_UNITS)))

# Kernels are plain C, compiled once for each instruction set; cpu.c picks the table at run time.
KERNELS := $(wildcard src/tensor/kernels/*.c)
ISAS    := base avx2 avx512 avx512vnni avx512bf16
ISA_base       :=
ISA_avx2       := -mavx2 -mfma -mf16c
ISA_avx512     := $(ISA_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512
ISA_avx512vnni := $(ISA_avx512) -mavx512vnni
ISA_avx512bf16 := $(ISA_avx512vnni) -mavx512bf16
KERNEL_FLAGS   := -O3 -fopenmp -ffp-contract=fast -fno-math-errno -fno-trapping-math
ifeq ($(findstring clang,$(CC)),)
# gcc 12 would make two loops of a product, one for a stride of 1, and to join them write all
# accumulators to memory in every round.
KERNEL_FLAGS   += -fno-version-loops-for-strides
ifneq ($(findstring address,$(SAN)),)
# gcc 12 does not align the frames that it moves to the heap to find uses after return, and kernels
# keep 64-byte vectors in theirs; they hand out no addresses of locals.
KERNEL_FLAGS   += --param asan-use-after-return=0
endif
endif
KERNEL_OBJS    := $(foreach i,$(ISAS),$(patsubst src/tensor/kernels/%.c,$(BUILD)/obj/tensor/kernels/%.$(i).o,$(KERNELS)))

MAKEFLAGS += --no-print-directory
.PHONY: all lib test tests gpu-tests check-format fuzz bench clean install
.SECONDARY:
all: $(BUILD)/tessera
lib: $(FLOORS:%=$(BUILD)/lib/%.a)

$(BUILD)/obj/tensor/%.o: EXTRA_CFLAGS += -fopenmp -ffp-contract=fast -fno-math-errno
$(BUILD)/obj/vision/%.o: EXTRA_CFLAGS += -fopenmp
$(BUILD)/obj/train/saver.o: EXTRA_CFLAGS += -fopenmp
# The page is in the program: src/serve/assets.c embeds it.
$(BUILD)/obj/serve/assets.o: $(wildcard src/serve/page.*)
$(BUILD)/obj/cli/model_preset.o: $(wildcard models/*.json)

$(BUILD)/obj/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@
$(BUILD)/obj/%.o: src/%.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -c $< -o $@

define kernel_rule
$(BUILD)/obj/tensor/kernels/%.$1.o: src/tensor/kernels/%.c Makefile
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $$(KERNEL_FLAGS) $$(ISA_$1) -DTESS_ISA=$1 -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call kernel_rule,$i)))

$(BUILD)/obj/%.cu.o: src/%.cu Makefile
	@mkdir -p $(@D)
	$(NVCC) $(NVCCFLAGS) $(INC) -MMD -MF $(@:.o=.d) -c $< -o $@
$(CUDA_HOST): EXTRA_CFLAGS += -isystem $(CUDA_HOME)/include

define floor_rule
$(BUILD)/lib/$1.a: $$(call objs,$1) $(if $(filter tensor,$1),$(KERNEL_OBJS) $(CUDA_OBJS))
	@mkdir -p $$(@D)
	@rm -f $$@
	ar rcsD $$@ $$^
endef
$(foreach f,$(FLOORS),$(eval $(call floor_rule,$f)))

archives = $(patsubst %,$(BUILD)/lib/%.a,$(LINKS_$1))
libs     = $(foreach f,$(LINKS_$1),$(LIBS_$f))

$(BUILD)/tessera: $(call archives,cli)
	$(CC) $(LDFLAGS) -pie -o $@ -Wl,--start-group $^ -Wl,--end-group $(call libs,cli)

# Tests: tests/<floor>/test_*.c, a program each; a file dropped in is a test.
define test_rule
TESTS_$1 := $$(patsubst tests/%.c,$(BUILD)/tests/%,$$(wildcard tests/$1/test_*.c))
$(BUILD)/tests/$1/%: tests/$1/%.c $$(call archives,$1) Makefile
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) -Itests $$(LDFLAGS) -o $$@ $$< -Wl,--start-group $$(call archives,$1) -Wl,--end-group $$(call libs,$1) -lcmocka -lm
endef
$(foreach f,$(FLOORS),$(eval $(call test_rule,$f)))
# The CUDA device's tests: the same kernels, compiled for the host under tests/cuda's emulation of a
# card, in place of the archive's; they need neither nvcc nor a card.
EMULATED := $(CUDA_UNITS:src/%=$(BUILD)/emulated/%.o) $(patsubst src/%.c,$(BUILD)/emulated/%.o,$(CUDA_C)) \
            $(patsubst tests/cuda/%,$(BUILD)/emulated/%.o,$(wildcard tests/cuda/emulate*.cpp tests/cuda/*.cu))
# Under a sanitizer the device alone: the emulation has guards of its own, and a fiber costs ten times
# as much there (make FLOOR=cuda SAN=... runs all: 6 minutes).
TESTS_CUDA := $(patsubst tests/%.c,$(BUILD)/tests/%,$(if $(SAN),$(if $(FLOOR),,tests/cuda/test_cuda_device.c)))
TESTS_CUDA := $(or $(TESTS_CUDA),$(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/cuda/test_*.c)))
$(BUILD)/emulated/%.cu.o: src/%.cu Makefile
	@mkdir -p $(@D)
	$(CXX) -x c++ $(CXXFLAGS) -ffp-contract=fast -Itests/cuda -c $< -o $@
$(BUILD)/emulated/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Itests/cuda -c $< -o $@
$(BUILD)/emulated/%.cpp.o: tests/cuda/%.cpp Makefile
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -Itests/cuda -c $< -o $@
$(BUILD)/emulated/%.cu.o: tests/cuda/%.cu Makefile
	@mkdir -p $(@D)
	$(CXX) -x c++ $(CXXFLAGS) -Itests/cuda -c $< -o $@
$(BUILD)/tests/cuda/%: tests/cuda/%.c $(EMULATED) $(call archives,train) Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -Itests -Itests/cuda $(LDFLAGS) -rdynamic -Wl,--wrap=dlopen -o $@ $< $(EMULATED) -Wl,--start-group $(call archives,train) -Wl,--end-group $(call libs,train) -lcmocka -lstdc++ -lm

# The program on the emulated card, for tests/cuda/test_verbs.py.
$(BUILD)/emulated/tessera: $(EMULATED) $(call archives,cli)
	$(CC) $(LDFLAGS) -rdynamic -Wl,--wrap=dlopen -o $@ $(EMULATED) -Wl,--start-group $(call archives,cli) -Wl,--end-group $(call libs,cli) -lstdc++ -lm

ALL_TESTS := $(foreach f,$(if $(FLOOR),$(FLOOR),$(FLOORS)),$(TESTS_$f)) $(if $(filter cuda,$(or $(FLOOR),cuda)),$(TESTS_CUDA))

# tests/bench runs the GPU benches' programs on the processor.
GPU_BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/gpu_*.c))

tests: $(ALL_TESTS) $(if $(FLOOR),,$(BUILD)/tessera $(GPU_BENCHES)) \
       $(if $(SAN),,$(if $(filter cuda,$(or $(FLOOR),cuda)),$(BUILD)/emulated/tessera))
test: tests
	BUILD=$(BUILD) tests/run $(if $(FLOOR),--floor $(FLOOR)) $(ALL_TESTS)

# The same tests on a real card, with the archive's own kernels; script/gpu runs them.
GPU_TESTS := $(patsubst tests/cuda/%.c,$(BUILD)/gpu-tests/%,$(wildcard tests/cuda/test_*.c))
$(BUILD)/gpu-tests/%: tests/cuda/%.c $(call archives,train) Makefile
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -DTESS_REAL_CARD -Itests $(LDFLAGS) -o $@ $< -Wl,--start-group $(call archives,train) -Wl,--end-group $(call libs,train) -lcmocka -lm
gpu-tests: $(GPU_TESTS)

# Fuzz targets: tests/fuzz/fuzz_<floor>_<name>.c, each linked with its floor's archives.
FUZZ := $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
define fuzz_rule
$(BUILD)/fuzz/fuzz_$1_%: tests/fuzz/fuzz_$1_%.c $$(call archives,$1) Makefile
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) -fsanitize=fuzzer $$(LDFLAGS) -o $$@ $$< -Wl,--start-group $$(call archives,$1) -Wl,--end-group $$(call libs,$1)
endef
$(foreach f,$(FLOORS),$(eval $(call fuzz_rule,$f)))
fuzz: $(FUZZ)

# The benches' programs: bench/<name>.c, each linked with one floor's archives.
BENCH_checkpoint := train
BENCH_contrast := fusion
BENCH_adamw    := tensor
BENCH_decode   := vision
BENCH_gpu_contrast := fusion
BENCH_gpu_embed := train
BENCH_gpu_search := fusion
BENCH_gpu_train := fusion
BENCH_inference := fusion
BENCH_lora     := fusion
BENCH_matmul   := tensor
BENCH_sentence := train
BENCH_tokenize := text
BENCH_zero     := fusion
BENCHES := $(patsubst bench/%.c,%,$(wildcard bench/*.c))
define bench_rule
$(BUILD)/bench/$1: bench/$1.c $$(call archives,$(BENCH_$1)) Makefile
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS) $$(LDFLAGS) -o $$@ $$< -Wl,--start-group $$(call archives,$(BENCH_$1)) -Wl,--end-group $$(call libs,$(BENCH_$1))
endef
$(foreach b,$(BENCHES),$(eval $(call bench_rule,$b)))
bench: $(BENCHES:%=$(BUILD)/bench/%)

check-format:
	clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h' '*.cpp' '*.cu' '*.cuh')

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
