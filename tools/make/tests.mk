# SPDX-License-Identifier: Apache-2.0
# Fixtures, unit tests and fuzz targets. Each unit test and each fuzz target is a program of its own.

S3D_SRC := $(sort $(wildcard tests/s3d/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
HELPER_SRC := $(sort $(wildcard tests/bench/*.c tests/mount/*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))

UNIT_PROGRAMS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(UNIT_SRC))
HELPER_PROGRAMS := $(patsubst %.c,$(BUILD)/tests/%,$(notdir $(HELPER_SRC)))
FUZZ_PROGRAMS := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(FUZZ_SRC))
FIXTURES := $(if $(S3D_SRC),$(BUILD)/tests/s3d) $(HELPER_PROGRAMS)

.PHONY: fixtures unit-programs fuzz-programs probe-fixture probe-unit
fixtures: all $(FIXTURES) ## Build what the mount tests, the demo and the bench use into build/tests/
unit-programs: $(UNIT_PROGRAMS) ## Build the unit tests into build/tests/unit/
# One of them runs it.
unit-programs: $(if $(CTL_SRC),$(BUILD)/bin/penstockctl)
fuzz-programs: all $(FUZZ_PROGRAMS)

probe-fixture probe-unit: probe-%:
	@CC='$(CC)' tools/make/probe.sh build $*

FIXTURE_OBJS := $(call objs,$(S3D_SRC) $(HELPER_SRC))
UNIT_OBJS := $(call objs,$(UNIT_SRC))
$(FIXTURE_OBJS): EXTRA_CPPFLAGS = -Itests $(FIXTURE_CPPFLAGS)
$(FIXTURE_OBJS): | probe-fixture
$(UNIT_OBJS): EXTRA_CPPFLAGS = -Itests $(UNIT_CPPFLAGS)
$(UNIT_OBJS): | probe-unit

$(BUILD)/tests/s3d: $(call objs,$(S3D_SRC)) $(LIB)
	$(call say,LINK,$@)
	$(link) $(FIXTURE_LDLIBS)

$(UNIT_PROGRAMS): $(BUILD)/tests/unit/%: $(BUILD)/obj/tests/unit/%.o $(LIB)
	$(call say,LINK,$@)
	$(link) $(UNIT_LDLIBS)

define helper_rule
$(BUILD)/tests/$(notdir $(basename $(1))): $(call objs,$(1)) $(LIB)
	$$(call say,LINK,$$@)
	$$(link) $$(FIXTURE_LDLIBS)
endef
$(foreach src,$(HELPER_SRC),$(eval $(call helper_rule,$(src))))

$(FUZZ_PROGRAMS): $(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(LIB)
	$(call say,LINK,$@)
	$(link) -fsanitize=fuzzer $(LDLIBS)

-include $(patsubst %.o,%.d,$(call objs,$(S3D_SRC) $(UNIT_SRC) $(HELPER_SRC) $(FUZZ_SRC)))
