# SPDX-License-Identifier: Apache-2.0
# Tests. Each layer writes what it counted to build/check/LAYER.count; tests/lib/tally sums them for "make check".

COUNTS := build/check
PYTHON ?= python3
FUZZ_SECONDS ?= 60
FUZZ_BRIEF_SECONDS := 5
ASAN := address,undefined
FUZZ_SAN := fuzzer-no-link,address,undefined
STEPS := deps all
SUITES := lint check-unit-plain check-unit-asan check-unit-tsan check-fuzz check-s3d check-bpf
SUITES += check-mount check-mount-asan check-loaders

.PHONY: check lint format deps
check: ## Install what testing needs, then build, lint and run all tests; the last line is the sum
	+$(Q)MAKE='$(MAKE)' tests/lib/tally $(COUNTS) $(STEPS) -- $(SUITES)

deps: ## Install what building, the demo and testing need (Debian packages; root)
	$(Q)tools/deps.sh build demo check

lint: all ## Check format, cppcheck, room borders, sizes and documents
	$(Q)tools/lint.py --build $(BUILD) --json-summary $(COUNTS)/$@.count

format: ## Rewrite C files with clang-format
	$(Q)find $(wildcard userspace include tests tools bpf csi) -name '*.[ch]' ! -name vmlinux.h \
		-exec clang-format -i {} +

# Unit tests: plain and under both sanitizers, or as SAN= says.
unit = $(Q)$(PYTHON) tests/lib/unit.py --json-summary $(COUNTS)/$(1).count $(2) $(UNIT_PROGRAMS)

.PHONY: check-unit check-unit-plain check-unit-asan check-unit-tsan
check-unit: ## Run the unit tests: plain, under ASan and UBSan, under TSan (SAN=: only that build)
check-unit: $(if $(SAN),check-unit-san,check-unit-plain check-unit-asan check-unit-tsan)
check-unit-plain: unit-programs
	$(call unit,$@,)
check-unit-asan:
	+$(Q)$(MAKE) SAN=$(ASAN) COUNT_AS=$@ check-unit-san
check-unit-tsan:
	+$(Q)$(MAKE) SAN=thread COUNT_AS=$@ check-unit-san

# ThreadSanitizer needs the address space layout that it was built for.
COUNT_AS ?= check-unit-san
.PHONY: check-unit-san
check-unit-san: unit-programs
	$(call unit,$(COUNT_AS),$(if $(filter thread,$(SAN)),--wrap 'setarch -R'))

# Fuzzing: a clang build of its own, which also shows that clang has no warning.
fuzz = $(Q)$(PYTHON) tests/lib/fuzz.py --work build/fuzz --seeds tests/fuzz/corpus --seconds $(1) $(2) $(FUZZ_PROGRAMS)

.PHONY: fuzz check-fuzz fuzz-run fuzz-brief
fuzz: ## Fuzz each parser for FUZZ_SECONDS (60)
	+$(Q)$(MAKE) SAN=$(FUZZ_SAN) CC=clang fuzz-run
check-fuzz: ## Fuzz each parser for 5 seconds
	+$(Q)$(MAKE) SAN=$(FUZZ_SAN) CC=clang fuzz-brief
fuzz-run: fuzz-programs
	$(call fuzz,$(FUZZ_SECONDS))
fuzz-brief: fuzz-programs
	$(call fuzz,$(FUZZ_BRIEF_SECONDS),--json-summary $(COUNTS)/check-fuzz.count)

.PHONY: check-s3d
check-s3d: fixtures ## Check the S3 server that injects the faults
	$(Q)$(PYTHON) tests/lib/check_s3d.py --program $(BUILD)/tests/s3d --json-summary $(COUNTS)/$@.count

# Mount tests: real mounts, real servers, injected faults. MOUNT= hands options over: MOUNT="--only bytes --keep".
MOUNT ?=
# A Go that "make deps" fetched comes first.
GO_BIN := $(wildcard $(or $(PENSTOCK_CACHE),$(HOME)/.cache/penstock)/go/bin)
mount = $(Q)$(if $(GO_BIN),PATH="$(GO_BIN):$$PATH") $(PYTHON) tests/mount/run.py $(1) $(MOUNT)

# In a make of its own, so that it sees the libraries that deps.sh has just installed.
build-fixtures = +$(Q)$(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$$(nproc)) fixtures

.PHONY: check-mount check-mount-asan check-faults soak
check-mount: fixtures ## Mount real servers over both transports and compare every byte
	$(call mount,--json-summary $(COUNTS)/$@.count)
check-mount-asan: ## The same with an ASan and UBSan build
	+$(Q)$(MAKE) SAN=$(ASAN) fixtures
	$(call mount,--san --json-summary $(COUNTS)/$@.count)
check-faults: fixtures ## Only the mount tests with injected faults
	$(call mount,--only '^faults' --json-summary $(COUNTS)/$@.count)
soak: ## The long tests: more servers, outages, larger files
	$(Q)tools/deps.sh build demo check soak
	$(build-fixtures)
	$(call mount,--soak --json-summary $(COUNTS)/$@.count)

# Real model loaders through mounts, in a Python environment that is built once. LOADERS="--only torch --keep".
LOADERS ?=
.PHONY: check-loaders
check-loaders: fixtures ## Read small models through mounts with the real loaders (LOADERS="--only torch")
	$(Q)$(if $(GO_BIN),PATH="$(GO_BIN):$$PATH") PENSTOCK_BUILD=$(BUILD) $(PYTHON) tests/loaders/check_loaders.py \
		--json-summary $(COUNTS)/$@.count $(LOADERS)

# In the running kernel: file systems on loop devices and real mounts, never skipped.
.PHONY: check-bpf
check-bpf: fixtures bpf-programs ## Check the eBPF tracer in the running kernel
	$(Q)PENSTOCK_BUILD=$(BUILD) $(PYTHON) tests/bpf/run.py --json-summary $(COUNTS)/$@.count

# What shows the thing at work. BENCH= hands options to the benchmark: make bench BENCH="--quick".
BENCH ?=
.PHONY: demo bench bench-load bench-trace
demo: ## Install what it needs, build, mount a generated model from a small S3 server and load it
	$(Q)tools/deps.sh build demo
	$(build-fixtures)
	$(Q)tools/demo.sh
bench: ## Measure beside other S3 mounts into build/bench/ (BENCH="--quick" for a look)
	$(Q)tools/deps.sh build demo bench
	$(build-fixtures)
	$(Q)$(if $(GO_BIN),PATH="$(GO_BIN):$$PATH") $(PYTHON) tests/bench/bench.py $(BENCH)
bench-load: ## Replay how loaders read models, beside other S3 mounts, into build/bench/ (BENCH="--quick" for a look)
	$(Q)tools/deps.sh build demo bench
	$(build-fixtures)
	$(Q)PENSTOCK_BUILD=$(BUILD) $(PYTHON) tests/bench/load.py $(BENCH)
bench-trace: fixtures bpf-programs ## Measure what the tracer costs readers of the page cache, into build/bench/
	$(Q)PENSTOCK_BUILD=$(BUILD) $(PYTHON) tests/bench/trace.py $(BENCH)
