# SPDX-License-Identifier: Apache-2.0
# Compilers, flags and libraries, and the stamp that makes a changed setting rebuild.

ifeq ($(origin CC),default)
CC := gcc
endif
OPT ?= -O2 -g
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' $(1) $(2))

VERSION := $(shell sed -n 's/^\#define PENSTOCK_VERSION "\(.*\)"/\1/p' include/penstock/version.h)

comma := ,
SAN ?=
BUILD := build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)))

# pkg-config's names; what is missing is reported by tools/make/probe.sh before the first compile.
LIBS := fuse3 liburing libcurl openssl expat jansson libbpf
FIXTURE_LIBS := libevent libevent_openssl libevent_pthreads
pkg = $(shell pkg-config $(1) $(2) 2>/dev/null)

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wno-unused-parameter
# gcc warns where snprintf() cuts a message on purpose; its buffers are bounded everywhere.
WARNINGS += $(if $(findstring clang,$(CC)),,-Wno-format-truncation) $(if $(filter 1,$(WERROR)),-Werror)

ifeq ($(SAN),)
GUARD := -fstack-protector-strong $(if $(filter -O1 -O2 -O3 -Os,$(OPT) $(CFLAGS)),-D_FORTIFY_SOURCE=2)
else
GUARD := -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
# gcc's ThreadSanitizer cannot see fences; the code that uses them is checked by clang's too.
GUARD += $(if $(findstring thread,$(SAN)),$(if $(findstring clang,$(CC)),,-Wno-tsan))
endif

ALL_CPPFLAGS := -Iuserspace -Iinclude -D_FILE_OFFSET_BITS=64 $(call pkg,--cflags,$(LIBS)) $(CPPFLAGS)
ALL_CFLAGS := -std=gnu17 $(OPT) $(WARNINGS) $(GUARD) -fPIE -pthread $(CFLAGS)
ALL_LDFLAGS := -pie -pthread $(filter -fsanitize=%,$(GUARD)) -Wl,-z,relro,-z,now,--as-needed $(LDFLAGS)
LDLIBS := $(call pkg,--libs,$(LIBS))
FIXTURE_CPPFLAGS := $(call pkg,--cflags,$(FIXTURE_LIBS))
FIXTURE_LDLIBS := $(call pkg,--libs,$(FIXTURE_LIBS)) $(LDLIBS)
UNIT_CPPFLAGS := $(call pkg,--cflags,cmocka)
UNIT_LDLIBS := $(call pkg,--libs,cmocka) $(LDLIBS)

define FLAGS_TEXT
$(shell $(CC) --version 2>/dev/null | head -n 1)
$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS)
$(ALL_LDFLAGS) $(LDLIBS)
endef
export FLAGS_TEXT

.PHONY: FORCE
FORCE:

# Objects and programs depend on the stamp: it is rewritten only when its text changes.
FLAGS_STAMP := $(BUILD)/flags.stamp
$(FLAGS_STAMP): FORCE
	@CC='$(CC)' tools/make/probe.sh build
	@mkdir -p $(@D)
	@printenv FLAGS_TEXT | cmp -s - $@ || printenv FLAGS_TEXT >$@
