# Installation, FHS paths, DESTDIR honoured.

PREFIX ?= /usr
SYSCONFDIR ?= /etc
UNITDIR ?= /lib/systemd/system
MANDIR ?= $(PREFIX)/share/man

MAN_PAGES := $(wildcard deploy/man/*.[0-9])

.PHONY: install
install: all
	install -D -m 0755 $(B)/holdfastd $(DESTDIR)$(PREFIX)/sbin/holdfastd
	install -D -m 0755 $(B)/holdfast $(DESTDIR)$(PREFIX)/bin/holdfast
	install -D -m 0755 $(B)/holdfast-vmm $(DESTDIR)$(PREFIX)/bin/holdfast-vmm
	$(foreach u,$(wildcard deploy/systemd/*),install -D -m 0644 $(u) $(DESTDIR)$(UNITDIR)/$(notdir $(u));)
	$(foreach m,$(MAN_PAGES),install -D -m 0644 $(m) $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(m)))/$(notdir $(m));)
