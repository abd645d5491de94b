/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The agent's Varlink service, as far as it needs no update and no guest.
 *
 * Calls go through the control socket, so that what is looked at is what a client gets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/service.h"
#include "common/fd.h"

#define NOT_BASE64 \
	"{\"error\":\"org.varlink.service.InvalidParameter\",\"parameters\":{\"parameter\":" \
	"\"data\"}}"

static struct hf_agent agent;
static char dir[] = "/tmp/test-service.XXXXXX";
static char path[64];

static int set_up(void **state)
{
	struct hf_error e = {0};

	if (!mkdtemp(dir) || sd_event_new(&agent.event) < 0)
		return -1;
	snprintf(path, sizeof(path), "%s/socket", dir);
	return hf_service_start(&agent, path, &e);
}

static int tear_down(void **state)
{
	hf_service_stop(&agent);
	sd_event_unref(agent.event);
	unlink(path);
	return rmdir(dir);
}

/* Calls InspectManifest with what is to stand in the place of `data`. The answer is the caller's.
 */
static char *inspect(const char *data)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t size = 1 << 16, used = 0;
	char *text = NULL, *answer = malloc(size);

	assert_true(asprintf(&text,
			    "{\"method\":\"org.holdfast.Host.InspectManifest\",\"parameters\":"
			    "{\"data\":\"%s\"}}",
			    data) > 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL), strlen(text) + 1);
	free(text);
	while (used == 0 || answer[used - 1] != 0) {
		ssize_t n = recv(fd, answer + used, size - used, MSG_DONTWAIT);

		assert_true(n > 0 || (n < 0 && errno == EAGAIN));
		used += n > 0 ? (size_t)n : 0;
		sd_event_run(agent.event, 1000);
	}
	return answer;
}

static char *to_base64(const unsigned char *data, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = calloc(1, (size + 2) / 3 * 4 + 1);

	for (size_t bit = 0; bit < size * 8; bit += 6) {
		unsigned int pair = data[bit / 8] << 8;

		if (bit / 8 + 1 < size)
			pair |= data[bit / 8 + 1];
		text[bit / 6] = digits[pair >> (10 - bit % 8) & 63];
	}
	while (strlen(text) % 4)
		strcat(text, "=");
	return text;
}

/* A manifest with every value of a byte behind it, cut to every rest of a division by three. */
static void test_manifest(void **state)
{
	cleanup_free char *golden = NULL;
	unsigned char *data;
	size_t size;

	assert_int_equal(hf_file_read("tests/golden/manifest-v2.bin", 1 << 20, &golden, &size), 0);
	data = malloc(size + 256);
	memcpy(data, golden, size);
	for (size_t i = 0; i < 256; i++)
		data[size + i] = (unsigned char)i;
	for (size_t cut = 0; cut < 3; cut++) {
		char *text = to_base64(data, size + 256 - cut), *answer = inspect(text);

		if (strncmp(answer, "{\"parameters\":{\"manifest\":{", 27) != 0)
			fail_msg("%.200s", answer);
		assert_non_null(strstr(answer, "\"target_kernel\":\"/boot/vmlinuz-7.3.4\""));
		free(text);
		free(answer);
	}
	free(data);
}

/* Right base64 of what is no manifest. */
static void test_no_manifest(void **state)
{
	static const char *const rows[] = {"", "QQ==", "QUI=", "QUJD", "+/+/", "AAAA", "QUJDRA=="};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		char *answer = inspect(rows[i]);

		if (!strstr(answer, "org.holdfast.Host.InvalidArgument"))
			fail_msg("\"%s\": %s", rows[i], answer);
		assert_non_null(strstr(answer, "the manifest can't be read: it is cut short"));
		free(answer);
	}
}

static void test_no_base64(void **state)
{
	static const char *const rows[] = {/* lengths */
		"Q", "QU", "QUI", "QUJDR", "QUJDRA", "QUJDRA=",
		/* characters, blanks among them; \u00e9 is more than one byte */
		"QUJ-", "QUJ_", "QU D", " QUJD", "QUJD\\n", "QUJ\\n", "QU.D", "QU\\u00e9",
		"QUJD,,,,",
		/* padding in the middle, in front, alone, too much */
		"QQ==QQ==", "QU=D", "Q=JD", "=UJD", "QQ=A", "====", "=",
		"==", "Q===", "QUI==", "QUJD====", "QUJD=",
		/* bits that mean nothing, but are set */
		"QR==", "QUJ=", "//==",
		/* what ends a string for some and not for others */
		"QUJD\\u0000", "QU\\u0000D", "\\u0000", "\\u0000QUJD"};

	for (size_t i = 0; i < HF_ARRAY_SIZE(rows); i++) {
		char *answer = inspect(rows[i]);

		if (strcmp(answer, NOT_BASE64) != 0)
			fail_msg("\"%s\": %s", rows[i], answer);
		free(answer);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_manifest),
		cmocka_unit_test(test_no_manifest),
		cmocka_unit_test(test_no_base64),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
