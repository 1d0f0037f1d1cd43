# SPDX-License-Identifier: Apache-2.0
# The programs: every room of userspace/ goes into one static library, daemon/main.c is penstock.

MAIN_SRC := $(wildcard userspace/daemon/main.c)
LIB_SRC := $(filter-out userspace/daemon/main.c,$(sort $(wildcard userspace/*/*.c)))
LOAD_SRC := $(sort $(wildcard tools/penstock-load*.c))
CTL_SRC := $(sort $(wildcard tools/penstockctl*.c))

objs = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))

LIB := $(BUILD)/libpenstock.a
PROGRAMS := $(if $(MAIN_SRC),$(BUILD)/bin/penstock $(BUILD)/bin/mount.penstock)
PROGRAMS += $(if $(LOAD_SRC),$(BUILD)/bin/penstock-load)
PROGRAMS += $(if $(CTL_SRC),$(BUILD)/bin/penstockctl)

.PHONY: all
all: $(LIB) $(PROGRAMS) ## Build every program into build/bin/

$(BUILD)/obj/%.o: %.c $(FLAGS_STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(EXTRA_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# A list of members as a stamp, so that a deleted source leaves the archive too.
$(BUILD)/lib.list: FORCE
	@mkdir -p $(@D)
	@echo '$(LIB_SRC)' | cmp -s - $@ || echo '$(LIB_SRC)' >$@

$(LIB): $(call objs,$(LIB_SRC)) $(BUILD)/lib.list
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcsD $@ $(filter %.o,$^)

link = $(Q)mkdir -p $(@D) && $(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^)

$(BUILD)/bin/penstock: $(call objs,$(MAIN_SRC)) $(LIB)
	$(call say,LINK,$@)
	$(link) $(LDLIBS)

$(BUILD)/bin/mount.penstock: $(BUILD)/bin/penstock
	$(Q)ln -sf penstock $@

$(BUILD)/bin/penstock-load: $(call objs,$(LOAD_SRC)) $(LIB)
	$(call say,LINK,$@)
	$(link) $(LDLIBS)

$(BUILD)/bin/penstockctl: $(call objs,$(CTL_SRC)) $(LIB)
	$(call say,LINK,$@)
	$(link) $(LDLIBS)

-include $(patsubst %.o,%.d,$(call objs,$(LIB_SRC) $(MAIN_SRC) $(LOAD_SRC) $(CTL_SRC)))
