# The SEAL trainer. `make` builds train_seal, eval_seal, tokenize, world and mix: for the GPU where nvcc and a GPU are
# found, for the CPU otherwise.
#   make CPU=1 | CUDA=1          force the build
#   make PRECISION=fp32|bf16     the type of weights and activations (default: fp32 on a CPU, bf16 on a GPU)
#   make demo SEED=1             installs what is missing, then runs the whole of SEAL on the synthetic world (data/);
#                                table on the terminal, report in out/demo
#   make demo-real               the same on real text with SmolLM2-135M-Instruct: an hour on two cores; SIZE, DATA,
#                                WHEEL: docs/demo-real.md
#   make test                    every test that needs no GPU (installs what is missing); last line: N passed, N failed
#   make test-sanitize           the kernels under ASan+UBSan and TSan, in several thread orders; a sample of programs
#   make test-fuzz               ten seconds of fuzzing for every reader of files (clang)
#   make test-ptx                the PTX that nvcc makes of every kernel, run on the CPU under the same checks
#   make check-nvcc              sm_80 and sm_90 compile without warnings and register spills
#   make test-gpu, make bench    the same tests on a GPU; the ladders of dev/kernels with GB/s and TFLOP/s
#   make deps                    installs missing Debian packages with apt-get (INSTALL=no: only names them), as
#                                `make demo` and `make test` do first
#   make lint, make format       static checks; the format of .clang-format
#   make coverage                which lines the tests reach
#   make train_seal              one program (or eval_seal, tokenize, world, mix, test_gpt2)
#   make compile_commands.json   for clangd
#   make info, make help         what was found on this machine; this list
#   make WERROR=1                warnings are errors, as in CI

SHELL := /bin/bash
comma := ,
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# ---- what this machine has (every probe is executed; a cross comes with the hint) ------------------------------------
CUDA_HOME ?= /usr/local/cuda
NVCC := $(firstword $(wildcard $(CUDA_HOME)/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
# The compute capabilities of all GPUs here, and whether nvcc makes code that one of them runs.
GPUS := $(shell dev/gpu_archs.sh --gpus)
GPU := $(if $(NVCC),$(if $(GPUS),$(if $(shell dev/gpu_archs.sh --refuse $(NVCC)),,yes)))
PKG_CONFIG ?= pkg-config
# What is needed and how it is found is dev/deps.sh's table; it probes with the same compilers.
DEPS = CC='$(CC)' CXX='$(CXX)' PKG_CONFIG='$(PKG_CONFIG)' dev/deps.sh

ifeq ($(CPU),1)
  BACKEND := cpu
else ifeq ($(CUDA),1)
  BACKEND := cuda
else
  BACKEND := $(if $(GPU),cuda,cpu)
endif
PRECISION ?= $(if $(filter cuda,$(BACKEND)),bf16,fp32)
ifeq ($(filter $(PRECISION),fp32 bf16),)
  $(error PRECISION is fp32 or bf16, not "$(PRECISION)")
endif
# SANITIZE=asan|tsan: whole programs under AddressSanitizer and UBSan, or under ThreadSanitizer (CPU build;
# dev/sanitize_programs.sh runs the tests with them).
ifneq ($(filter-out asan tsan,$(SANITIZE)),)
  $(error SANITIZE is asan or tsan, not "$(SANITIZE)")
endif
SANITIZE_FLAGS := $(if $(filter asan,$(SANITIZE)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined)
SANITIZE_FLAGS += $(if $(filter tsan,$(SANITIZE)),-fsanitize=thread -Wno-tsan)
# HALVES=1: what the kernels write for a GPU only, under g++. PTX=1: that, and nvcc's PTX in place of g++'s kernels, for
# these architectures (CPU build).
PTX_ARCHS ?= 90 80
FLAVOUR := $(if $(PTX),-ptx,$(if $(HALVES),-halves))$(if $(SANITIZE),-$(SANITIZE))
BUILD := build/$(BACKEND)-$(PRECISION)$(FLAVOUR)

# V=1 shows the commands themselves.
Q := $(if $(V),,@)

# ---- compilers and flags ---------------------------------------------------------------------------------------------
# gcc unless the command line or the environment names another: make's own default is cc.
ifneq ($(filter default undefined,$(origin CC)),)
  CC := gcc
endif
ifneq ($(filter default undefined,$(origin CXX)),)
  CXX := g++
endif
export CC CXX PKG_CONFIG
WARN := -Wall -Wextra
INCLUDES := -Iseal_kernels -Iseal -Itokenizer -Idata
PRECISION_FLAG := $(if $(filter bf16,$(PRECISION)),-DPRECISION_BF16)
# Never -ffast-math: it would remove the NaN poison of dev/cpu and the NaN detection of the trainer.
OPT ?= $(if $(SANITIZE),-O2 -Wno-psabi -Wno-maybe-uninitialized $(SANITIZE_FLAGS),-O3) -march=native \
       -fno-math-errno -fno-trapping-math
# WERROR=1: warnings are errors, as in CI. A user's compiler may be newer than any that was tried.
FATAL := $(if $(filter 1,$(WERROR)),-Werror)
# Ubuntu's gcc has it on by itself, and with it the warnings about results that nobody looks at: CI sees them too.
FORTIFY := $(if $(FATAL),$(if $(SANITIZE),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2))
CFLAGS := -std=c11 -D_GNU_SOURCE $(OPT) -g $(WARN) $(FATAL) $(FORTIFY) -MMD -MP
CXXFLAGS := -std=c++17 $(OPT) -g $(WARN) $(FATAL) $(FORTIFY) -MMD -MP
# Where pkg-config knows a library (PKG_CONFIG_PATH leads to copies outside the system's folders) its flags are taken,
# else the usual name.
package_flags = $(or $(shell $(PKG_CONFIG) --$(2) $(1) 2>/dev/null),$(3))
PACKAGES := libcjson libcrypto zlib libzstd libpcre2-8 libutf8proc
INCLUDES += $(foreach p,$(PACKAGES),$(call package_flags,$(p),cflags))
HOST_LIBS := $(call package_flags,libcjson,libs,-lcjson) $(call package_flags,libcrypto,libs,-lcrypto) \
             $(call package_flags,zlib,libs,-lz) $(call package_flags,libzstd,libs,-lzstd) \
             $(call package_flags,libpcre2-8,libs,-lpcre2-8) $(call package_flags,libutf8proc,libs,-lutf8proc) \
             -lpthread -lm
# Several ranks need MPI to start them, and on GPUs NCCL between them. `mpicc -show` prints the flags with every MPI.
MPICC := $(shell command -v mpicc 2>/dev/null)
MPI_FLAGS := $(if $(MPICC),$(shell $(MPICC) -show 2>/dev/null))
NCCL_HEADER := $(firstword $(if $(NCCL_HOME),$(wildcard $(NCCL_HOME)/include/nccl.h)) \
                 $(wildcard $(CUDA_HOME)/include/nccl.h /usr/include/nccl.h /usr/local/include/nccl.h))
NCCL_ROOT := $(dir $(patsubst %/,%,$(dir $(NCCL_HEADER))))
NCCL_LIBS := $(if $(NCCL_HEADER),-L$(NCCL_ROOT)lib -L$(NCCL_ROOT)lib64 -lnccl)
links = $(shell echo 'int main(void) { return 0; }' | $(CC) -x c - $(1) -o /dev/null 2>/dev/null && echo yes)
NCCL := $(if $(NCCL_LIBS),$(call links,$(NCCL_LIBS)))
RANKS := $(if $(MPI_FLAGS),$(if $(or $(filter cpu,$(BACKEND)),$(NCCL)),yes))
ifeq ($(RANKS),yes)
  MPI_INCLUDES := $(filter -I%,$(MPI_FLAGS)) -DOMPI_SKIP_MPICXX -DMPICH_SKIP_MPICXX  # C, not the old C++ bindings
  RANK_LIBS := $(filter -L% -l%,$(MPI_FLAGS)) $(if $(filter cuda,$(BACKEND)),$(NCCL_LIBS))
  # Libraries outside the system's list are found again when a program starts. nvcc hands a linker's options on in its
  # own way.
  RANK_FOLDERS := $(wildcard $(patsubst -L%,%,$(filter -L%,$(RANK_LIBS))))
  RPATH := $(if $(filter cuda,$(BACKEND)),-Xlinker -rpath$(comma),-Wl$(comma)-rpath$(comma))
  RANK_LIBS += $(addprefix $(RPATH),$(abspath $(RANK_FOLDERS)))
endif
ifeq ($(BACKEND),cpu)
  HALVES_FLAGS := $(if $(HALVES)$(PTX),-DCPU_DEVICE_HALVES -fno-strict-aliasing) $(if $(PTX),-DCPU_PTX -O1 -g0)
  CXXFLAGS += $(HALVES_FLAGS)
  CU := $(CXX) -x c++ $(CXXFLAGS) -Idev/cpu/include
  INCLUDES += $(call package_flags,openblas,cflags)
  LINK := $(CXX) $(SANITIZE_FLAGS) $(LDFLAGS)
  DEVICE_LIBS := $(call package_flags,openblas,libs,-lopenblas)
  # oneDNN where it is there (sanitizer builds multiply with a plain loop). Which products it does is decided when a
  # program starts: dev/cpu/onednn.cpp.
  ONEDNN := $(if $(SANITIZE),,$(shell $(DEPS) --has oneDNN && echo yes))
  DEVICE_LIBS += $(if $(ONEDNN),-ldnnl -lgomp)
else
  ifeq ($(NVCC),)
    $(error CUDA=1 needs nvcc: install the CUDA Toolkit or set CUDA_HOME)
  endif
  REFUSED := $(shell dev/gpu_archs.sh --refuse $(NVCC))
  ifneq ($(REFUSED),)
    $(error $(REFUSED))
  endif
  # Code for each kind of GPU here (ARCHS="80 90" for others), and PTX, of which the driver makes code for GPUs that
  # came later.
  ARCHS ?= $(shell dev/gpu_archs.sh --archs $(NVCC))
  NEWEST := $(or $(patsubst ptx:%,%,$(filter ptx:%,$(ARCHS))),$(lastword $(ARCHS)))
  CU := $(NVCC) -std=c++17 -O3 -g -lineinfo -Xcompiler -Wall,-Wextra,-Wno-unused-parameter \
        $(if $(FATAL),-Werror all-warnings) -MMD -MP \
        $(foreach a,$(filter-out ptx:%,$(ARCHS)),-gencode arch=compute_$(a),code=sm_$(a)) \
        -gencode arch=compute_$(NEWEST),code=compute_$(NEWEST)
  # A toolkit outside the system's list of libraries is found again when a program starts.
  LINK := $(NVCC) -Xcompiler -Wall -Xlinker -rpath,$(abspath $(dir $(NVCC))../lib64)
  DEVICE_LIBS := -lcublasLt -lcublas -lcudart
endif

# ---- sources ---------------------------------------------------------------------------------------------------------
KERNEL_SOURCES := $(wildcard seal_kernels/*.cu)
HOST_C := $(wildcard seal/*.c seal/*/*.c)
HOST_CU := $(filter-out seal/base/ranks$(if $(RANKS),_one).cu,$(wildcard seal/*.cu seal/*/*.cu))
TOKENIZER_C := $(filter-out %_main.c,$(wildcard tokenizer/*.c))
WORLD_C := $(filter-out %_main.c,$(wildcard data/*.c))
CPU_SHIM := $(filter-out $(if $(RANKS),,dev/cpu/nccl.cpp),$(wildcard dev/cpu/*.cpp)) $(if $(PTX),dev/ptx/run.cpp)
SHIM := $(if $(filter cpu,$(BACKEND)),$(CPU_SHIM))
objects = $(addprefix $(BUILD)/,$(addsuffix .o,$(1)))

KERNEL_LIB := $(BUILD)/libseal_kernels.a
SEAL_LIB := $(BUILD)/libseal.a
TOKENIZER_LIB := $(BUILD)/libtokenizer.a
LIBS := $(SEAL_LIB) $(TOKENIZER_LIB) $(KERNEL_LIB)
WORLD_OBJECTS := $(call objects,$(WORLD_C))

PROGRAMS := train_seal eval_seal tokenize world mix
KERNEL_CHECKS := $(patsubst %.cu,%,$(wildcard dev/kernels/*.cu))
DEVICE_TESTS := $(patsubst %.cu,%,$(wildcard test_gpt2.cu dev/test/test_*.cu))
HOST_TESTS := $(patsubst %.c,%,$(wildcard dev/test/test_*.c))
SCRIPT_TESTS := $(wildcard dev/test/test_*.sh)
SHIM_TESTS := $(wildcard dev/cpu/test_*.sh)

.PHONY: all info requirements deps demo demo-real run-demo-real test test-build test-sanitize test-ptx test-fuzz \
        test-gpu check-nvcc bench clean help format lint coverage $(PROGRAMS) test_gpt2
all: info $(addprefix $(BUILD)/,$(PROGRAMS))
	@for p in $(PROGRAMS); do ln -sf $(BUILD)/$$p $$p; done

# What multiplies matrices on this machine, for the eye: a program decides for the machine it runs on.
cpu_has = $(shell grep -qw $(1) /proc/cpuinfo 2>/dev/null && echo yes)
OF_ONEDNN = oneDNN$(if $(call cpu_has,avx512_bf16),,; bf16: OpenBLAS on widened operands)
OF_OPENBLAS = OpenBLAS$(if $(ONEDNN),$(comma) not oneDNN: this CPU has no AVX-512)
GEMMS_BUILT = $(if $(and $(ONEDNN),$(call cpu_has,avx512bw)),$(OF_ONEDNN),$(OF_OPENBLAS))
GEMMS = $(if $(SANITIZE),a plain loop that the sanitizer sees,$(GEMMS_BUILT))
define tick
	@if [ -n "$(2)" ]; then echo "  ✓ $(1)"; else echo "  ✗ $(1): $(3)"; fi
endef
CPU_ATTENTION_IS = plain kernels$(comma) which are faster here than the GPU's: dev/cpu/README.md
WHY_NCCL = apt-get install libnccl-dev or set NCCL_HOME; a GPU build without it is for one GPU (a CPU build needs none)
WHY_NO_NVCC = $(if $(NVCC),$(shell dev/gpu_archs.sh --refuse $(NVCC)),no nvcc; kernels run on the CPU)
WHY_NO_GPU = $(if $(GPUS),$(WHY_NO_NVCC),nvidia-smi names none; kernels run on the CPU)
info:
	@echo "SEAL trainer: $(BACKEND) build, $(PRECISION), in $(BUILD)"
	$(call tick,nvcc,$(NVCC),not found; the CPU build needs none. For a GPU: install the CUDA Toolkit or set CUDA_HOME)
	$(call tick,GPU$(if $(GPUS), (compute capability $(GPUS))),$(GPU),$(WHY_NO_GPU))
	$(call tick,cuBLASLt,$(wildcard $(CUDA_HOME)/include/cublasLt.h),comes with the CUDA Toolkit; the CPU build needs none)
	$(call tick,NCCL,$(NCCL),$(WHY_NCCL))
	@$(DEPS) --list
	$(if $(filter cpu,$(BACKEND)),@echo "  GEMMs: $(GEMMS)")
	$(if $(filter cpu-bf16,$(BACKEND)-$(PRECISION)),@echo "  attention: $(CPU_ATTENTION_IS)")

# Before anything is compiled: one block that names all that is missing and the command that installs it.
requirements: $(if $(filter all,$(or $(MAKECMDGOALS),all)),info)
	@$(DEPS) --need build $(if $(filter cpu,$(BACKEND)),cpu) $(if $(filter test-build,$(MAKECMDGOALS)),tests)

deps:
	@$(DEPS)

# OUT=folder (out/demo). What a stage does is in data/demo.sh.
SEED ?= 1
demo: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@BUILD=$(BUILD) SEED=$(SEED) data/demo.sh

# OUT=folder (out/demo-real), DATA=folder, WHEEL=file, SIZE=n, UNSAFE=10|20|30: docs/demo-real.md.
# In bf16 where the CPU multiplies that (AVX512_BF16, AMX), which is nearly twice as fast, unless PRECISION says
# otherwise. In two steps: what was installed just now is seen by the second.
demo-real: deps
	@$(MAKE) --no-print-directory run-demo-real
CPU_BF16 = $(and $(filter cpu,$(BACKEND)),$(ONEDNN),$(call cpu_has,avx512_bf16))
REAL_PRECISION = $(if $(and $(filter file,$(origin PRECISION)),$(CPU_BF16)),bf16,$(PRECISION))
run-demo-real:
	@$(MAKE) --no-print-directory -j$$(nproc) PRECISION=$(REAL_PRECISION) all
	@BUILD=build/$(BACKEND)-$(REAL_PRECISION) SEED=$(SEED) data/demo_real.sh

# ---- rules -----------------------------------------------------------------------------------------------------------
$(BUILD)/%.cu.o: %.cu | requirements
	@mkdir -p $(@D); echo "  $(BUILD) $<"
	$(Q)$(CU) $(PRECISION_FLAG) $(INCLUDES) -c $< -o $@
$(BUILD)/%.cpp.o: %.cpp | requirements
	@mkdir -p $(@D); echo "  $(BUILD) $<"
	$(Q)$(CXX) $(CXXFLAGS) $(PRECISION_FLAG) -Idev/cpu/include $(INCLUDES) -c $< -o $@
$(BUILD)/%.c.o: %.c | requirements
	@mkdir -p $(@D); echo "  $(BUILD) $<"
	$(Q)$(CC) $(CFLAGS) $(INCLUDES) -c $< -o $@

$(KERNEL_LIB): $(call objects,$(KERNEL_SOURCES) $(SHIM))
$(SEAL_LIB): $(call objects,$(HOST_C) $(HOST_CU))
$(TOKENIZER_LIB): $(call objects,$(TOKENIZER_C))
%.a:
	@rm -f $@
	@ar rcs $@ $^

# Whole programs under ThreadSanitizer run their kernels on one thread and are watched for the host's own threads:
# kernels, GEMMs and what switches between the threads of a block
# stay as they are, and fast. dev/cpu/sanitize.sh watches kernels.
$(call objects,$(KERNEL_SOURCES)): CU := $(filter-out -fsanitize=thread,$(CU))
NOT_WATCHED := $(call objects,dev/cpu/fiber.cpp dev/cpu/ptx.cpp dev/cpu/cublas.cpp)
$(NOT_WATCHED): CXXFLAGS := $(filter-out -fsanitize=thread,$(CXXFLAGS))
# Tests, benchmarks and checks see each other's headers; nothing that ships does.
SEE_TESTS := $(addprefix $(BUILD)/,dev/test/%.o dev/kernels/%.o dev/bench_seal.cu.o dev/bench_step.cu.o test_gpt2.cu.o)
$(SEE_TESTS): INCLUDES += -Idev/test -Idev/kernels
$(BUILD)/seal/base/ranks.cu.o $(BUILD)/dev/cpu/nccl.cpp.o: INCLUDES += $(MPI_INCLUDES)
$(BUILD)/dev/cpu/onednn.cpp.o: CXXFLAGS += $(if $(ONEDNN),-DCPU_ONEDNN)
$(BUILD)/dev/ptx/run.cpp.o: INCLUDES += -Idev/cpu -Idev/ptx
# PTX=1. nvcc's flags are those of a GPU build; PTX and what is made of it stay in build/ptx, for both kinds of program.
PTX_OPT ?= -O1
PTX_FOLDERS := $(if $(PTX),$(foreach a,$(PTX_ARCHS),build/ptx/sm_$(a)-$(PRECISION)))
PTX_OBJECTS := $(foreach f,$(PTX_FOLDERS),$(patsubst %.cu,$(f)/%.o,$(KERNEL_SOURCES)))
ptx_arch = $(word 3,$(subst /, ,$(subst -, ,$(1))))
build/ptx/%.ptx:
	@mkdir -p $(@D); echo "  $@"
	$(Q)$(NVCC) -std=c++17 -O3 -lineinfo -ptx -arch=$(subst sm_,compute_,$(call ptx_arch,$@)) $(PRECISION_FLAG) \
		-Iseal_kernels -MMD -MP -MF $@.d -MT $@ $(PTX_SOURCE) -o $@
build/ptx/%.cpp: build/ptx/%.ptx dev/ptx/translate.py
	$(Q)python3 dev/ptx/translate.py --source $(PTX_SOURCE) --arch $(call ptx_arch,$@) $< $@
PTX_HEADERS := dev/ptx/ptx_run.h dev/ptx/ptx_access.h dev/cpu/include/cuda_runtime.h dev/cpu/include/ptx_cpu.h
build/ptx/%.o: build/ptx/%.cpp $(PTX_HEADERS)
	@echo "  $@"
	$(Q)$(CXX) -std=c++17 $(PTX_OPT) -march=native -ffp-contract=off -fno-strict-aliasing -w -DCPU_PTX \
		$(PRECISION_FLAG) -Idev/cpu/include -Idev/ptx -c $< -o $@
define ptx_module
$(1:.o=.ptx): $(2)
$(1:.o=.ptx) $(1:.o=.cpp) $(1): PTX_SOURCE := $(2)
endef
$(foreach f,$(PTX_FOLDERS),$(foreach s,$(KERNEL_SOURCES),$(eval $(call ptx_module,$(f)/$(s:.cu=.o),$(s)))))
.PRECIOUS: build/ptx/%.ptx build/ptx/%.cpp build/ptx/%.o
# Of seal_kernels such a build takes the launchers only.
ifneq ($(PTX),)
$(call objects,$(KERNEL_SOURCES)): CU += -O0
endif

$(BUILD)/%: $(BUILD)/%.cu.o $(LIBS) $(PTX_OBJECTS)
	$(Q)$(LINK) $^ -o $@ $(DEVICE_LIBS) $(RANK_LIBS) $(HOST_LIBS)
$(BUILD)/dev/kernels/%: $(BUILD)/dev/kernels/%.cu.o $(KERNEL_LIB) $(PTX_OBJECTS)
	$(Q)$(LINK) $^ -o $@ $(DEVICE_LIBS) -lpthread -lm
$(BUILD)/tokenize: $(BUILD)/tokenizer/tokenize_main.c.o $(TOKENIZER_LIB)
	$(Q)$(CC) $(SANITIZE_FLAGS) $(LDFLAGS) $^ -o $@ $(HOST_LIBS)
$(BUILD)/world: $(BUILD)/data/world_main.c.o $(WORLD_OBJECTS) $(SEAL_LIB) $(TOKENIZER_LIB)
	$(Q)$(CC) $(SANITIZE_FLAGS) $(LDFLAGS) $^ -o $@ $(HOST_LIBS)
$(BUILD)/mix: $(BUILD)/data/mix_main.c.o $(SEAL_LIB) $(TOKENIZER_LIB)
	$(Q)$(CC) $(SANITIZE_FLAGS) $(LDFLAGS) $^ -o $@ $(HOST_LIBS)
$(BUILD)/dev/test/test_world: $(WORLD_OBJECTS)
$(addprefix $(BUILD)/,$(HOST_TESTS)): $(BUILD)/%: $(BUILD)/%.c.o $(LIBS)
	$(Q)$(LINK) $(filter %.o,$^) $(filter %.a,$^) -o $@ $(DEVICE_LIBS) $(RANK_LIBS) -lcmocka $(HOST_LIBS)
# Objects stay. Not .SECONDARY: a library newer than a source that has no object yet would count as made.
.PRECIOUS: $(BUILD)/%.cu.o $(BUILD)/%.cpp.o $(BUILD)/%.c.o

# ---- tests -----------------------------------------------------------------------------------------------------------
# Both precisions are built and tested: the device code twice, the host code once.
TEST_BINARIES := $(addprefix $(BUILD)/,$(KERNEL_CHECKS) $(DEVICE_TESTS) $(PROGRAMS))
ifeq ($(PRECISION),fp32)
  TEST_BINARIES += $(addprefix $(BUILD)/,$(HOST_TESTS))
endif
test-build: $(TEST_BINARIES)

test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) CPU=1 PRECISION=fp32 test-build
	@$(MAKE) --no-print-directory -j$$(nproc) CPU=1 PRECISION=bf16 test-build
	@dev/test/run.sh cpu "$(KERNEL_CHECKS)" "$(DEVICE_TESTS)" "$(HOST_TESTS)" "$(SCRIPT_TESTS) $(SHIM_TESTS)"

test-gpu:
	@$(MAKE) --no-print-directory -j$$(nproc) CUDA=1 PRECISION=fp32 test-build
	@$(MAKE) --no-print-directory -j$$(nproc) CUDA=1 PRECISION=bf16 test-build
	@dev/test/run.sh cuda "$(KERNEL_CHECKS)" "$(DEVICE_TESTS)" "$(HOST_TESTS)" ""

test-sanitize: deps
	@dev/cpu/sanitize.sh
	@dev/sanitize_programs.sh --sample

test-ptx: deps
	@NVCC=$(NVCC) dev/ptx/test.sh

test-fuzz: deps
	@dev/fuzz/smoke.sh

check-nvcc:
	@NVCC=$(NVCC) dev/test/nvcc_check.sh

bench: $(addprefix $(BUILD)/,$(KERNEL_CHECKS) $(PROGRAMS))
	@dev/bench.sh $(BUILD) "$(KERNEL_CHECKS)"

# ---- by name, and the habits of the house ----------------------------------------------------------------------------
# make train_seal (and the other programs, and test_gpt2): that one alone
$(PROGRAMS) test_gpt2: %: $(BUILD)/%
	@ln -sf $< $@

help:
	@sed -n '3,/^$$/{s/^# \{0,3\}//;p}' Makefile

format:
	@git ls-files '*.c' '*.h' '*.cu' '*.cpp' | xargs $(or $(shell command -v clang-format-14),clang-format) -i

lint:
	@dev/lint.sh

# For clangd and other readers of the code: every source with the command that compiles it.
compile_commands.json: Makefile
	@$(MAKE) --no-print-directory -nB V=1 CPU=1 PRECISION=$(PRECISION) all test-build | \
		dev/compile_commands.sh >$@.part && mv $@.part $@
	@echo "$@: $$(grep -c '"file"' $@) files"

coverage: deps
	@dev/coverage.sh

clean:
	rm -rf build train_seal eval_seal tokenize world mix test_gpt2

-include $(shell find $(BUILD) $(PTX_FOLDERS) -name '*.d' 2>/dev/null)
