/* SPDX-License-Identifier: Apache-2.0 */
/** DOC: The file of domains that libvirt saved: read by whichever agent comes next. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/saved-domains.h"
#include "common/fd.h"
#include "common/json.h"

#define UUID "a56d4664-6462-4d27-aa11-084aba098b55"

static int parse(const char *text, size_t *ret_bad, char *names, size_t size)
{
	struct hf_saved_name *found = NULL;
	int n = hf_saved_domains_parse(text, strlen(text), &found, ret_bad);

	names[0] = 0;
	for (int i = 0; i < n; i++) {
		size_t used = strlen(names);

		snprintf(names + used, size - used, "%s=%s;", found[i].uuid, found[i].name);
		free(found[i].name);
	}
	free(found);
	return n;
}

static void test_golden(void **state)
{
	cleanup_free char *text = NULL;
	char names[256];
	size_t bad;

	assert_int_equal(hf_file_read("tests/golden/saved-domains", 4096, &text, NULL), 0);
	assert_int_equal(parse(text, &bad, names, sizeof(names)), 2);
	assert_int_equal(bad, 0);
	assert_string_equal(names,
		UUID "=web1;"
		     "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0=a name with blanks, ünïcode;");
}

static void test_damaged(void **state)
{
	static const struct {
		const char *text;
		int n;
		size_t bad;
	} cases[] = {
		{"", 0, 0},
		{UUID " web1", 1, 0}, /* its last line feed is missing */
		{UUID " web1\n\n", 1, 1},
		{UUID "\n", 0, 1},
		{UUID " \n", 0, 1},
		{"web1\n" UUID " web1\n", 1, 1},
		{"x56d4664-6462-4d27-aa11-084aba098b55 web1\n", 0, 1},
		{UUID "-web1\n", 0, 1},
	};

	for (size_t i = 0; i < HF_ARRAY_SIZE(cases); i++) {
		char names[256];
		size_t bad;

		assert_int_equal(parse(cases[i].text, &bad, names, sizeof(names)), cases[i].n);
		assert_int_equal(bad, cases[i].bad);
		assert_string_equal(names, cases[i].n ? UUID "=web1;" : "");
	}
}

static void test_loaded(void **state)
{
	static const char text[] = UUID " web1\n" UUID " web1\nnonsense\n";
	char dir[] = "/tmp/test-saved-XXXXXX", path[64];
	struct hf_agent agent = {0};
	struct json_object *list;

	assert_non_null(mkdtemp(dir));
	setenv("HOLDFAST_STATE_DIR", dir, 1);
	assert_int_equal(sd_event_new(&agent.event), 0);
	hf_saved_domains_load(&agent);
	assert_null(hf_saved_domains_json(&agent));

	snprintf(path, sizeof(path), "%s/saved-domains", dir);
	assert_int_equal(hf_file_write_atomic(path, text, strlen(text), 0600), 0);
	hf_saved_domains_load(&agent);
	list = hf_saved_domains_json(&agent);
	assert_int_equal(hf_json_array_size(list), 1);
	assert_string_equal(
		hf_json_get_string(json_object_array_get_idx(list, 0), "outcome", ""), "saved");
	json_object_put(list);
	assert_false(hf_saved_domains_busy(&agent));
	/* It stays for another agent. */
	hf_saved_domains_free(agent.saved_domains);
	assert_int_equal(access(path, F_OK), 0);
	sd_event_unref(agent.event);
	unlink(path);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_loaded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
