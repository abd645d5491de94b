/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The configuration: what goes before what, and every error with its file and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "common/fd.h"

#define UUID "0e7a3ad2-0d1c-4a3e-9d4f-0123456789ab"

static struct hf_config *config_of(const char *text)
{
	struct hf_config *c = hf_config_new();

	assert_non_null(c);
	assert_int_equal(hf_config_parse(c, "a.conf", text, strlen(text)), 0);
	return c;
}

static struct hf_manifest_guest guest(const char *name, char **settings, size_t n)
{
	struct hf_manifest_guest g = {.settings = settings, .n_settings = n};

	g.name = (char *)(uintptr_t)name;
	strcpy(g.uuid, UUID);
	return g;
}

static uint32_t priority_of(const struct hf_config *c, const struct hf_manifest_guest *g)
{
	cleanup_policy struct hf_policy p;
	struct hf_error e = {0};

	if (hf_config_policy(c, g, &p, &e) < 0)
		fail_msg("%s", e.message);
	return p.priority;
}

static void expect_fine(const struct hf_config *c)
{
	size_t n, total;
	const struct hf_config_problem *p = hf_config_problems(c, &n, &total);

	if (total > 0)
		fail_msg("%s:%u: %s", p->file, p->line, p->message);
}

/* ---- what goes before what ---- */

static void test_precedence(void **state)
{
	static const struct {
		const char *text;
		const char *setting;
		uint32_t priority;
	} rows[] = {
		{"", NULL, 50},
		{"[defaults]\npriority=1\n", NULL, 1},
		{"[defaults]\npriority=1\n", "priority=2", 2},
		{"[defaults]\npriority=1\n", "clock=frozen", 1},
		{"[guest web*]\npriority=3\n", "priority=2", 3},
		{"[guest db*]\npriority=3\n", "priority=2", 2},
		{"[guest web1]\npriority=4\n[guest web*]\npriority=3\n", "priority=2", 4},
		{"[guest " UUID "]\npriority=5\n[guest web1]\npriority=4\n[guest *]\npriority=3\n",
			"priority=2", 5},
		{"[guest 0E7A3AD2-0D1C-4A3E-9D4F-0123456789AB]\npriority=5\n", NULL, 5},
		{"[guest *1]\npriority=3\n[guest w*]\npriority=6\n", NULL, 6},
		{"[guest w*]\npriority=6\n[guest *1]\npriority=3\n", NULL, 3},
		/* Key by key: a closer section leaves alone what it doesn't name. */
		{"[guest web*]\npriority=3\n[guest web1]\nclock=frozen\n", NULL, 3},
		{"[guest w*]\npriority=3\n[defaults]\npriority=1\n", NULL, 3},
		{"[guest [vw]eb?]\npriority=3\n", NULL, 3},
		{"[guest web]\npriority=3\n[guest WEB1]\npriority=3\n", NULL, 50},
		{"[defaults]\nclock=frozen\n[guest x]\n[defaults]\npriority=7\n", NULL, 7},
		{"  [ defaults ]  \r\n  priority  =  8  \r\n", NULL, 8},
		{"\xef\xbb\xbf; x\n# y\n\n[guest   web1  ]\npriority:9", NULL, 9},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		cleanup_config struct hf_config *c = config_of(rows[i].text);
		char *settings[] = {(char *)(uintptr_t)rows[i].setting};
		struct hf_manifest_guest g = guest("web1", settings, rows[i].setting ? 1 : 0);

		expect_fine(c);
		if (priority_of(c, &g) != rows[i].priority)
			fail_msg("row %zu: %u", i, priority_of(c, &g));
	}
}

/* What a launcher of another version wrote is said, and the rest is in effect. */
static void test_bad_launcher(void **state)
{
	cleanup_config struct hf_config *c = config_of("[guest w*]\npriority=3\n");
	char *settings[] = {(char *)"clock=frozen", (char *)"colour=red"};
	struct hf_manifest_guest g = guest("web1", settings, 2);
	cleanup_policy struct hf_policy p;
	struct hf_error e = {0};

	assert_int_equal(hf_config_policy(c, &g, &p, &e), -EINVAL);
	assert_non_null(strstr(e.message, "started with: there is no setting `colour`"));
	assert_int_equal(p.priority, 3);
	assert_int_equal(p.clock, HF_CLOCK_CATCH_UP);
}

/* ---- what is wrong ---- */

static void test_problems(void **state)
{
	static const struct {
		const char *text;
		unsigned int line;
		const char *message, *remedy;
	} rows[] = {
		{"priority=1\nclock=frozen\n", 1, "in no section", "[defaults]"},
		{"\n\n[default]\npriority=1\n", 3, "no section [default]", "[defaults] and [guest"},
		{"[guest]\n", 1, "name is missing", "[guest UUID]"},
		{"[guest  ]\n", 1, "name is missing", "[guest UUID]"},
		{"[guests web]\n", 1, "no section [guests web]", "[guest PATTERN]"},
		{"[defaults\npriority=1\n", 1, "`]` is missing", "[defaults]"},
		{"[defaults] priority=1\n", 1, "behind the section", "line of its own"},
		{"[defaults]\n\n# x\nprio=1\n", 4, "no setting `prio`", "there are not-eligible"},
		{"[defaults]\npriorty=1\n", 2, "no setting `priorty`", "did you mean `priority`?"},
		{"[guest a]\npriority=200\n", 2, "`200` is no value of priority", "from 0 to 100"},
		{"[defaults]\npriority=1\nclock=frozen\npriority=1\n", 4,
			"priority was given in line 2 already", "remove one"},
		{"[guest a]\npriority=1\n[guest b]\n[guest a]\npriority=2", 5,
			"given in line 2 already", "remove one"},
		{"[defaults]\nclock frozen\n", 2, "neither a section nor a setting", "KEY=VALUE"},
		{"[defaults]\nclock frozen", 2, "neither a section nor a setting", "KEY=VALUE"},
		{"[defaults]\nclock=frozen ; or not\n", 2, "can't have ` ;`", "line of its own"},
		{"[defaults]\nhealth-command=/bin/x\n  --more\n", 3, "neither", "KEY=VALUE"},
		{"[defaults]\nsave-timeout=10\nsave-failure=shutdown\n", 3,
			"`shutdown` is no value of save-failure", "rollback or cold-boot"},
		{"[defaults]\nhealth-command=x\n", 2, "no value of health-command",
			"absolute path"},
		{"[host]\npriority=3\n", 2, "no key `priority`", "[host] has carrier="},
		{"[host]\ncarrier=disk\n", 2, "carrier can't be `disk`", "own, auto or image"},
		{"[host]\nplaintext-images=1\n", 2, "can't be `1`", "yes or no"},
		{"[host]\ncarrier=auto\n[defaults]\n[host]\ncarrier=own\n", 5,
			"carrier was given in line 2 already", "remove one"},
		{"[host x]\n", 1, "no section [host x]", "[host]"},
		{"[host]\ncarrier\n", 2, "neither a section nor a setting", "KEY=VALUE"},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		cleanup_config struct hf_config *c = config_of(rows[i].text);
		size_t n, total;
		const struct hf_config_problem *p = hf_config_problems(c, &n, &total);

		if (total != 1 || n != 1)
			fail_msg("row %zu: %zu problems", i, total);
		assert_string_equal(p->file, "a.conf");
		if (p->line != rows[i].line || !strstr(p->message, rows[i].message) ||
			!strstr(p->remedy, rows[i].remedy))
			fail_msg("row %zu: %u: %s (%s)", i, p->line, p->message, p->remedy);
	}
}

/* Every one of them is told, up to a limit, and what is right between them is in effect. */
static void test_many_problems(void **state)
{
	cleanup_config struct hf_config *c = hf_config_new();
	struct hf_manifest_guest g = guest("web1", NULL, 0);
	const struct hf_config_problem *p;
	size_t n, total, size = 0;
	char *text = NULL;
	FILE *f = open_memstream(&text, &size);

	fprintf(f, "[defaults]\n");
	for (int i = 0; i < 100; i++)
		fprintf(f, "colour=%d\n", i);
	fprintf(f, "priority=7\n");
	fclose(f);
	assert_int_equal(hf_config_parse(c, "b.conf", text, size), 0);
	p = hf_config_problems(c, &n, &total);
	assert_int_equal(n, HF_CONFIG_MAX_PROBLEMS);
	assert_int_equal(total, 100);
	assert_int_equal(p[n - 1].line, 1 + HF_CONFIG_MAX_PROBLEMS);
	assert_int_equal(priority_of(c, &g), 7);
	free(text);
}

static void test_limits(void **state)
{
	cleanup_config struct hf_config *c = hf_config_new();
	cleanup_free char *big = calloc(1, HF_CONFIG_MAX_BYTES + 1), *line = NULL;
	const struct hf_config_problem *p;
	size_t n, total;

	memset(big, '\n', HF_CONFIG_MAX_BYTES + 1);
	assert_int_equal(hf_config_parse(c, "big", big, HF_CONFIG_MAX_BYTES), 0);
	expect_fine(c);
	assert_int_equal(hf_config_parse(c, "big", big, HF_CONFIG_MAX_BYTES + 1), 0);
	p = hf_config_problems(c, &n, &total);
	assert_int_equal(total, 1);
	assert_non_null(strstr(p->message, "larger than"));
	/* A line that the parser would cut is told, and no part of it is taken. */
	assert_true(asprintf(&line, "[defaults]\nhealth-command=/%0300d\n", 0) > 0);
	assert_int_equal(hf_config_parse(c, "long", line, strlen(line)), 0);
	p = hf_config_problems(c, &n, &total);
	assert_int_equal(total, 2);
	assert_int_equal(p[1].line, 2);
	assert_non_null(strstr(p[1].message, "the line is longer than"));
}

/* ---- files ---- */

static char folder[] = "/tmp/hf-config-XXXXXX";

static void write_file(const char *name, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	assert_int_equal(hf_file_write_atomic(path, text, strlen(text), 0644), 0);
}

static void test_files(void **state)
{
	struct hf_manifest_guest g = guest("web1", NULL, 0);
	const struct hf_config_problem *p;
	struct hf_config *c = hf_config_new();
	char path[256], vendor[256];
	size_t n, total;

	assert_non_null(mkdtemp(folder));
	snprintf(vendor, sizeof(vendor), "%s/vendor", folder);
	/* Nothing there: the defaults. */
	assert_int_equal(hf_config_read(c, vendor, folder), 0);
	expect_fine(c);
	assert_int_equal(priority_of(c, &g), 50);
	hf_config_free(c);

	snprintf(path, sizeof(path), "%s/holdfast.conf.d", folder);
	assert_int_equal(mkdir(path, 0755), 0);
	write_file("vendor", "[defaults]\npriority=1\nclock=frozen\nsave-timeout=1s\n");
	write_file("holdfast.conf", "[defaults]\npriority=2\nsave-timeout=2s\n");
	write_file("holdfast.conf.d/20-b.conf", "[defaults]\npriority=20\n");
	write_file("holdfast.conf.d/10-a.conf", "[defaults]\npriority=10\nsave-timeout=3s\n");
	write_file("holdfast.conf.d/.30.conf", "[defaults]\npriority=30\n");
	write_file("holdfast.conf.d/40.conf~", "[defaults]\npriority=40\n");
	snprintf(path, sizeof(path), "%s/holdfast.conf.d/50.conf", folder);
	assert_int_equal(symlink("/dev/null", path), 0);
	c = hf_config_new();
	assert_int_equal(hf_config_read(c, vendor, folder), 0);
	expect_fine(c);
	{
		cleanup_policy struct hf_policy policy;

		assert_int_equal(hf_config_policy(c, &g, &policy, NULL), 0);
		assert_int_equal(policy.priority, 20);
		assert_int_equal(policy.save_timeout_ns, 3 * HF_NSEC_PER_SEC);
		assert_int_equal(policy.clock, HF_CLOCK_FROZEN);
	}
	hf_config_free(c);

	/* Named by its path and line; a pipe doesn't hang the reader. */
	write_file("holdfast.conf.d/20-b.conf", "[defaults]\n\npriority=200\n");
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	c = hf_config_new();
	assert_int_equal(hf_config_read(c, vendor, folder), 0);
	p = hf_config_problems(c, &n, &total);
	assert_int_equal(total, 2);
	assert_non_null(strstr(p[0].file, "/holdfast.conf.d/20-b.conf"));
	assert_int_equal(p[0].line, 3);
	assert_string_equal(p[1].file, path);
	assert_int_equal(p[1].line, 0);
	hf_config_free(c);
	snprintf(path, sizeof(path), "rm -rf %s", folder);
	assert_int_equal(system(path), 0);
}

/* What is printed is a configuration, and the same one. */
static void test_host(void **state)
{
	cleanup_config struct hf_config *c = config_of("[guest a]\npriority=3\n");
	static const char later[] = "[host]\ncarrier=image\n[defaults]\npriority=4\n",
			  last[] = "[host]\nplaintext-images=no\n";

	assert_int_equal(hf_config_host(c)->carrier, HF_CONFIG_CARRIER_OWN);
	assert_false(hf_config_host(c)->plaintext);
	assert_int_equal(hf_config_parse(c, "b", "[host]\nplaintext-images=yes\ncarrier=auto\n",
				 strlen("[host]\nplaintext-images=yes\ncarrier=auto\n")),
		0);
	assert_int_equal(hf_config_host(c)->carrier, HF_CONFIG_CARRIER_AUTO);
	assert_true(hf_config_host(c)->plaintext);
	assert_int_equal(hf_config_parse(c, "c", later, strlen(later)), 0);
	assert_int_equal(hf_config_host(c)->carrier, HF_CONFIG_CARRIER_IMAGE);
	assert_true(hf_config_host(c)->plaintext);
	assert_int_equal(hf_config_parse(c, "d", last, strlen(last)), 0);
	assert_false(hf_config_host(c)->plaintext);
	expect_fine(c);
}

static void test_print(void **state)
{
	cleanup_config struct hf_config *c = config_of("[guest " UUID "]\nclock=frozen\n"
						       "[guest web]\npriority=3\n[guest none]\n"
						       "[guest w*]\nsave-timeout=90\n"
						       "[defaults]\nnot-eligible=adopt\n"
						       "[host]\ncarrier=auto\n");
	cleanup_config struct hf_config *again = NULL;
	cleanup_free char *text = NULL, *second = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	hf_config_print(c, f);
	fclose(f);
	assert_string_equal(text,
		"[host]\ncarrier=auto\nplaintext-images=no\n\n"
		"[defaults]\nnot-eligible=adopt\nsave-failure=rollback\nresume-failure=hold\n"
		"attach-timeout=10s\nsave-timeout=30s\nrollback-timeout=30s\nresume-timeout=1min\n"
		"shutdown-timeout=2min\npriority=50\nclock=catch-up\nhealth-command=\n"
		"\n[guest w*]\nsave-timeout=1min 30s\n\n[guest web]\npriority=3\n"
		"\n[guest " UUID "]\nclock=frozen\n");
	again = config_of(text);
	expect_fine(again);
	f = open_memstream(&second, &size);
	hf_config_print(again, f);
	fclose(f);
	assert_string_equal(text, second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_bad_launcher),
		cmocka_unit_test(test_problems),
		cmocka_unit_test(test_host),
		cmocka_unit_test(test_many_problems),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_print),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
