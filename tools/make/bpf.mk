# SPDX-License-Identifier: Apache-2.0
# BPF programs: objects that userspace/trace/ carries inside itself, and their tests. Only clang compiles for BPF here.

BPF_CLANG ?= clang
BPF_SRC := $(sort $(wildcard bpf/*.bpf.c))
BPF_TEST_SRC := $(sort $(wildcard tests/bpf/*.bpf.c))
BPF_HELPER_SRC := $(filter-out $(BPF_TEST_SRC) tests/bpf/libcuda.c,$(sort $(wildcard tests/bpf/*.c)))

# Headers of the C library's architecture directory, which clang does not look into for this target.
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
# mcpu=v3: atomic exchange. The debug information, whose BTF is what counts, must not name the place of the build.
BPF_FLAGS := -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Wno-unused-parameter -Wno-missing-declarations
BPF_FLAGS += -D__TARGET_ARCH_$(if $(filter aarch64%,$(MULTIARCH)),arm64,x86) -I. -Iinclude
BPF_FLAGS += $(if $(MULTIARCH),-idirafter /usr/include/$(MULTIARCH)) -fdebug-compilation-dir=.
BPF_FLAGS += $(if $(filter 1,$(WERROR)),-Werror)

define BPF_TEXT
$(shell $(BPF_CLANG) --version 2>/dev/null | head -n 1)
$(BPF_CLANG) $(BPF_FLAGS)
endef
export BPF_TEXT

BPF_STAMP := $(BUILD)/bpf/flags.stamp
$(BPF_STAMP): FORCE
	@BPF_CLANG='$(BPF_CLANG)' tools/make/probe.sh bpf
	@mkdir -p $(@D)
	@printenv BPF_TEXT | cmp -s - $@ || printenv BPF_TEXT >$@

BPF_OBJS := $(patsubst bpf/%.c,$(BUILD)/bpf/%.o,$(BPF_SRC))
BPF_TEST_OBJS := $(patsubst tests/bpf/%.c,$(BUILD)/tests/bpf/%.o,$(BPF_TEST_SRC))

define bpf_compile
	$(call say,BPF,$<)
	@mkdir -p $(@D)
	$(Q)$(BPF_CLANG) $(BPF_FLAGS) -MMD -MP -c -o $@ $<
endef
$(BPF_OBJS): $(BUILD)/bpf/%.o: bpf/%.c $(BPF_STAMP)
	$(bpf_compile)
$(BPF_TEST_OBJS): $(BUILD)/tests/bpf/%.o: tests/bpf/%.c $(BPF_STAMP)
	$(bpf_compile)

$(BUILD)/obj/userspace/trace/object.o: EXTRA_CPPFLAGS = -DTRACE_OBJECTS='"$(BUILD)/bpf"'
$(BUILD)/obj/userspace/trace/object.o: $(BPF_OBJS)

# Test programs: tests/bpf/NAME.c becomes build/tests/bpf/NAME.
BPF_HELPERS := $(patsubst %.c,$(BUILD)/%,$(BPF_HELPER_SRC))
$(BPF_HELPERS): $(BUILD)/%: $(BUILD)/obj/%.o $(LIB)
	$(call say,LINK,$@)
	$(link) $(LDLIBS)

# Stands in for the driver's library.
BPF_LIBCUDA := $(BUILD)/tests/bpf/libcuda.so.1
$(BPF_LIBCUDA): tests/bpf/libcuda.c $(FLAGS_STAMP)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -O1 -shared -fPIC -o $@ $<

.PHONY: bpf-programs
bpf-programs: all $(BPF_HELPERS) $(BPF_TEST_OBJS) $(BPF_LIBCUDA) ## Build what the BPF tests use into build/tests/bpf/

-include $(BPF_OBJS:.o=.d) $(BPF_TEST_OBJS:.o=.d) $(patsubst %.o,%.d,$(call objs,$(BPF_HELPER_SRC)))
