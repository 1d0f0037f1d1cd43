# SPDX-License-Identifier: Apache-2.0
#
# Penstock's build: one make for the whole tree. "make help" lists what it can do.
#
# Every room is found by wildcard; nothing is written outside build/. Settings, on the command line:
#   CC=gcc|clang   OPT="-O2 -g"   V=1 (whole commands)   WERROR=1   SAN=address,undefined | SAN=thread
#   PREFIX=/usr/local  DESTDIR=   FUZZ_SECONDS=60 (each target)
# A sanitizer build has a directory of its own, build/san-*/; other changed settings rebuild what they touch.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

include tools/make/flags.mk
include tools/make/build.mk
include tools/make/tests.mk
include tools/make/bpf.mk
include tools/make/check.mk
include tools/make/install.mk

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: clean
clean: ## Remove build/
	$(Q)rm -rf build
