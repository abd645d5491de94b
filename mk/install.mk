# SPDX-License-Identifier: Apache-2.0
# Installation and man pages. FHS paths, DESTDIR honoured. LIBEXECDIR is in mk/build.mk.

PREFIX ?= /usr
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
# holdfastd looks there whatever PREFIX is: agent/config.h.
CONFDIR ?= /usr/lib/holdfast
MANDIR ?= $(PREFIX)/share/man

MAN_PAGES := $(patsubst deploy/man/%.scd,$(B)/man/%,$(wildcard deploy/man/*.scd))

.PHONY: man install
man: $(MAN_PAGES)

# A page carries the date of its source and not of the build: the same source, the same page.
$(B)/man/%: deploy/man/%.scd
	@mkdir -p $(@D)
	@echo "  MAN     $@"
	@command -v scdoc >/dev/null || { echo "scdoc is missing: mk/deps.sh build installs it" >&2; exit 1; }
	@SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(stat -c %Y $<)} scdoc <$< >$@

install: all man
	install -D -m 0755 $(B)/holdfastd $(DESTDIR)$(PREFIX)/sbin/holdfastd
	install -D -m 0755 $(B)/holdfast $(DESTDIR)$(PREFIX)/bin/holdfast
	install -D -m 0755 $(B)/holdfast-vmm $(DESTDIR)$(PREFIX)/bin/holdfast-vmm
	install -D -m 0755 $(B)/holdfast-libvirt $(DESTDIR)$(LIBEXECDIR)/holdfast-libvirt
	$(foreach p,$(wildcard deploy/libexec/*),install -D -m 0755 $(p) $(DESTDIR)$(LIBEXECDIR)/$(notdir $(p));)
	install -D -m 0644 deploy/config/holdfast.conf $(DESTDIR)$(CONFDIR)/holdfast.conf
	install -D -m 0644 deploy/polkit/org.holdfast.policy $(DESTDIR)$(PREFIX)/share/polkit-1/actions/org.holdfast.policy
	$(foreach u,$(wildcard deploy/systemd/*),install -D -m 0644 $(u) $(DESTDIR)$(UNITDIR)/$(notdir $(u));)
	$(foreach m,$(MAN_PAGES),install -D -m 0644 $(m) $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m));)
