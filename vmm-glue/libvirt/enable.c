/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast libvirt enable: have the memory of domains be where it can be carried over.
 *
 * Only the persistent definition is changed, which the domain gets when it is started the next
 * time; a running one is not touched.
 */
#include <getopt.h>
#include <libvirt/libvirt.h>
#include <stdio.h>
#include <string.h>

#include "vmm-glue/libvirt/domain-xml.h"
#include "vmm-glue/libvirt/verbs.h"

/* VNC passwords are part of a definition: without this flag they would be lost. */
#define FLAGS (VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_INACTIVE)

struct options {
	const char *uri;
	const char *domain;
	bool all;
	bool check;
};

/* What became of the domains so far. */
struct tally {
	size_t to_do;
	size_t refused;
	int failed; /* exit code of the first failure, or 0 */
};

static int read_xml(
	virDomainPtr domain, unsigned int flags, struct hf_domain_xml *ret, struct hf_error *e)
{
	cleanup_free char *xml = NULL;

	hf_libvirt_patience();
	xml = virDomainGetXMLDesc(domain, flags);
	if (!xml)
		return hf_libvirt_error(e, "can't read its XML");
	return hf_domain_xml_enable(xml, strlen(xml), ret, e);
}

static int show(const struct hf_domain_xml *d, const char *name, struct hf_error *e)
{
	cleanup_free char *before = strdup(d->before), *after = strdup(d->after);
	char labels[2][320];

	if (!before || !after)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	hf_domain_xml_hide(before);
	hf_domain_xml_hide(after);
	snprintf(labels[0], sizeof(labels[0]), "%.250s (now)", name);
	snprintf(labels[1], sizeof(labels[1]), "%.250s (with its memory in shared files)", name);
	return hf_libvirt_show_diff(labels[0], labels[1], before, after, e);
}

/* Return: 0, with the definition seen to be what it should be. */
static int define(virDomainPtr domain, const char *xml, struct hf_error *e)
{
	virConnectPtr conn = virDomainGetConnect(domain);
	struct hf_domain_xml now = {0};
	virDomainPtr defined;
	int r;

	hf_libvirt_patience();
	defined = virDomainDefineXML(conn, xml);
	if (!defined)
		return hf_libvirt_error(e, "libvirt refuses the new definition; the old one holds");
	r = read_xml(defined, FLAGS, &now, e);
	if (r == 0 && now.to_do)
		r = hf_error_set(e, -EIO, HF_ERR_FAILED, "see: virsh dumpxml --inactive DOMAIN",
			"libvirt took the new definition, but not all that is in it");
	hf_domain_xml_clear(&now);
	virDomainFree(defined);
	return r;
}

/* A running domain has the memory that it was started with. Return: 1, 0, or -errno. */
static int needs_restart(virDomainPtr domain, struct hf_error *e)
{
	struct hf_domain_xml live = {0};
	int active, r;

	hf_libvirt_patience();
	active = virDomainIsActive(domain);
	if (active < 0)
		return hf_libvirt_error(e, "can't find out whether it runs");
	if (active == 0)
		return 0;
	r = read_xml(domain, 0, &live, e);
	if (r == 0)
		r = live.to_do;
	hf_domain_xml_clear(&live);
	return r;
}

static int say_refusals(const struct hf_domain_xml *d, const char *name)
{
	for (size_t i = 0; i < d->n_refusals; i++) {
		struct hf_error e = {0};

		hf_error_set(&e, -EOPNOTSUPP, HF_ERR_NOT_READY, d->refusals[i]->remedy, "%s",
			d->refusals[i]->reason);
		hf_error_guest(&e, name);
		hf_libvirt_fail(&e);
	}
	return 0;
}

/* What is said on stdout of each domain: one line, behind the diff if there is one. */
static int say_state(
	virDomainPtr domain, const char *name, bool to_do, bool check, struct hf_error *e)
{
	int restart = needs_restart(domain, e);

	if (restart < 0)
		return restart;
	if (!to_do)
		printf("%s: its definition is as it should be", name);
	else
		printf("%s: %s", name, check ? "to be changed" : "changed");
	if (restart)
		printf("; it runs with the memory of before: shut it down and start it again (a "
		       "reboot from inside does not do)");
	putchar('\n');
	return 0;
}

static int enable(virDomainPtr domain, const struct options *o, const char *name,
	struct tally *tally, struct hf_error *e)
{
	struct hf_domain_xml d = {0};
	int persistent, r;

	hf_libvirt_patience();
	persistent = virDomainIsPersistent(domain);
	if (persistent < 0)
		return hf_libvirt_error(e, "can't find out whether it is persistent");
	if (persistent == 0)
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
			"change what it is created from, see docs/LIBVIRT.md",
			"it is transient: it has no definition that could be changed");
	r = read_xml(domain, FLAGS, &d, e);
	if (r == 0 && d.n_refusals) {
		say_refusals(&d, name);
		tally->refused++;
	} else if (r == 0) {
		if (d.to_do)
			r = show(&d, name, e);
		if (r == 0 && d.to_do && !o->check)
			r = define(domain, d.after, e);
		if (r == 0)
			r = say_state(domain, name, d.to_do, o->check, e);
		tally->to_do += d.to_do;
	}
	hf_domain_xml_clear(&d);
	return r;
}

static void enable_one(virDomainPtr domain, const struct options *o, struct tally *tally)
{
	cleanup_free char *name = strdup(virDomainGetName(domain) ?: "?");
	struct hf_error e = {0};
	int code;

	if (!name)
		abort();
	hf_libvirt_clean(name);
	if (enable(domain, o, name, tally, &e) == 0)
		return;
	hf_error_guest(&e, name);
	code = hf_libvirt_fail(&e);
	if (!tally->failed)
		tally->failed = code;
}

static int enable_named(virConnectPtr conn, const struct options *o, struct tally *tally)
{
	virDomainPtr domain = virDomainLookupByUUIDString(conn, o->domain);
	struct hf_error e = {0};

	/* What is no UUID of a domain may be a name. */
	if (!domain)
		domain = virDomainLookupByName(conn, o->domain);
	if (!domain) {
		hf_libvirt_error(&e, "can't find the domain");
		if (e.err == -ENOENT)
			hf_error_set(&e, -ENOENT, HF_ERR_NO_GUEST, "see: virsh list --all",
				"libvirt has no domain '%s'", o->domain);
		return hf_libvirt_fail(&e);
	}
	enable_one(domain, o, tally);
	virDomainFree(domain);
	return 0;
}

static int enable_all(virConnectPtr conn, const struct options *o, struct tally *tally)
{
	virDomainPtr *domains = NULL;
	struct hf_error e = {0};
	int n = virConnectListAllDomains(conn, &domains, VIR_CONNECT_LIST_DOMAINS_PERSISTENT);

	if (n < 0) {
		hf_libvirt_error(&e, "can't list libvirt's domains");
		return hf_libvirt_fail(&e);
	}
	for (int i = 0; i < n; i++) {
		enable_one(domains[i], o, tally);
		virDomainFree(domains[i]);
	}
	free(domains);
	if (n == 0)
		puts("libvirt has no persistent domains.");
	return 0;
}

/* Return: -1 to go on, else an exit code. */
static int parse_options(
	const struct hf_libvirt_verb *verb, int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"all", no_argument, NULL, 'a'},
		{"check", no_argument, NULL, 'n'},
		{"connect", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":c:h", longs, NULL)) >= 0) {
		if (c == 'h')
			return hf_libvirt_show_help(verb);
		if (c == ':')
			return hf_libvirt_usage_error(
				verb, "option '%s' needs a value", argv[optind - 1]);
		if (c == '?')
			return hf_libvirt_usage_error(verb, "no option '%s'", argv[optind - 1]);
		if (c == 'a')
			o->all = true;
		else if (c == 'n')
			o->check = true;
		else
			o->uri = optarg;
	}
	if (argc - optind > 1)
		return hf_libvirt_usage_error(verb, "too many arguments: '%s'", argv[optind + 1]);
	o->domain = argv[optind];
	if (!o->domain == !o->all)
		return hf_libvirt_usage_error(
			verb, o->all ? "a DOMAIN or --all, not both" : "enable which DOMAIN?");
	return -1;
}

static int run(const struct hf_libvirt_verb *verb, int argc, char **argv)
{
	struct options o = {0};
	struct tally tally = {0};
	struct hf_error e = {0};
	virConnectPtr conn;
	int code = parse_options(verb, argc, argv, &o);

	if (code >= 0)
		return code;
	if (hf_libvirt_connect(o.uri, &conn, &e) < 0)
		return hf_libvirt_fail(&e);
	code = o.all ? enable_all(conn, &o, &tally) : enable_named(conn, &o, &tally);
	virConnectClose(conn);
	if (code == 0)
		code = tally.failed;
	if (code == 0 && tally.refused)
		code = HF_LIBVIRT_NOT_READY;
	/* 1 is an answer to --check, so a failure is another. */
	if (o.check && code == HF_LIBVIRT_FAILED)
		code = HF_LIBVIRT_NOT_READY;
	if (o.check && code == 0 && tally.to_do)
		code = HF_LIBVIRT_TO_DO;
	return code;
}

const struct hf_libvirt_verb hf_libvirt_verb_enable = {
	.name = "enable",
	.usage = "DOMAIN|--all [--check] [--connect URI]",
	.help = "Changes the persistent definition of a domain, so that its memory is where it "
		"can\n"
		"be carried over, and shows what is changed. A running domain has to be shut down\n"
		"and started again.\n\n"
		"  --all             all persistent domains\n"
		"  --check           only show it; exit with 1 if there is anything to do\n"
		"  --connect URI     libvirt's, default " HF_LIBVIRT_URI "\n",
	.run = run,
};
