# SPDX-License-Identifier: Apache-2.0
# Installing. mount(8) looks for helpers in /sbin only: see PREFIX and SBINDIR in tools/README.md.

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
MANDIR ?= $(PREFIX)/share/man
COMPLETIONDIR ?= $(PREFIX)/share/bash-completion/completions

INSTALL_BIN = $(filter-out %/mount.penstock,$(PROGRAMS))
MAN_PAGES := $(sort $(wildcard tools/man/*.1))
COMPLETIONS := $(sort $(wildcard tools/completion/*))

.PHONY: install uninstall
install: all ## Install below PREFIX (default /usr/local), staged under DESTDIR
	$(Q)install -d $(addprefix $(DESTDIR),$(BINDIR) $(SBINDIR) $(MANDIR)/man1 $(COMPLETIONDIR))
	$(Q)install -m 755 $(INSTALL_BIN) $(DESTDIR)$(BINDIR)/
	$(Q)ln -sfn $(BINDIR)/penstock $(DESTDIR)$(SBINDIR)/mount.penstock
	$(Q)$(if $(MAN_PAGES),install -m 644 $(MAN_PAGES) $(DESTDIR)$(MANDIR)/man1/)
	$(Q)$(if $(COMPLETIONS),install -m 644 $(COMPLETIONS) $(DESTDIR)$(COMPLETIONDIR)/)

uninstall: ## Remove what install put there
	$(Q)rm -f $(addprefix $(DESTDIR)$(BINDIR)/,$(notdir $(INSTALL_BIN))) $(DESTDIR)$(SBINDIR)/mount.penstock
	$(Q)rm -f $(addprefix $(DESTDIR)$(MANDIR)/man1/,$(notdir $(MAN_PAGES)))
	$(Q)rm -f $(addprefix $(DESTDIR)$(COMPLETIONDIR)/,$(notdir $(COMPLETIONS)))
