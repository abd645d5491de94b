/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "qmp/commands.h"
#include "qmp/internal.h"

/* Parses JSON text by one of the parsers: r = PARSE(text, hf_qmp_parse_x, more arguments). */
#define PARSE(text, parser, ...) \
	({ \
		struct json_object *parse_obj_ = json_tokener_parse(text); \
		int parse_r_ = parser(parse_obj_, __VA_ARGS__); \
		json_object_put(parse_obj_); \
		parse_r_; \
	})

static void test_status(void **state)
{
	struct hf_qmp_status s;

	/* 7.2 has singlestep, later ones don't. */
	assert_int_equal(PARSE("{\"status\":\"running\",\"singlestep\":false,\"running\":true}",
				 hf_qmp_parse_status, &s),
		0);
	assert_int_equal(s.state, HF_QMP_RUN_RUNNING);
	assert_true(s.running);
	assert_int_equal(
		PARSE("{\"status\":\"postmigrate\",\"running\":false}", hf_qmp_parse_status, &s),
		0);
	assert_int_equal(s.state, HF_QMP_RUN_POSTMIGRATE);
	assert_int_equal(
		PARSE("{\"status\":\"dreaming\",\"running\":false}", hf_qmp_parse_status, &s), 0);
	assert_int_equal(s.state, HF_QMP_RUN_UNKNOWN);
	assert_string_equal(s.name, "dreaming");
	/* The word for what isn't known is no state of QEMU's. */
	assert_int_equal(hf_qmp_run_state_parse("unknown"), HF_QMP_RUN_UNKNOWN);
	assert_string_equal(hf_qmp_run_state_name(HF_QMP_RUN_INMIGRATE), "inmigrate");
	assert_int_equal(PARSE("{}", hf_qmp_parse_status, &s), -EBADMSG);
	assert_int_equal(PARSE("null", hf_qmp_parse_status, &s), -EBADMSG);
	assert_int_equal(PARSE("[]", hf_qmp_parse_status, &s), -EBADMSG);
	assert_int_equal(
		PARSE("{\"status\":1,\"running\":false}", hf_qmp_parse_status, &s), -EBADMSG);
	assert_int_equal(
		PARSE("{\"status\":\"running\",\"running\":1}", hf_qmp_parse_status, &s), -EBADMSG);
	assert_int_equal(
		PARSE("{\"status\":\"run\\u0000ning\",\"running\":true}", hf_qmp_parse_status, &s),
		-EBADMSG);
}

static void test_version(void **state)
{
	struct hf_qmp_version v;

	assert_int_equal(PARSE("{\"qemu\":{\"micro\":22,\"minor\":2,\"major\":7},"
			       "\"package\":\"Debian 1:7.2+dfsg-7+deb12u18\"}",
				 hf_qmp_parse_version, &v),
		0);
	assert_int_equal(v.major * 10000 + v.minor * 100 + v.micro, 70222);
	assert_string_equal(v.package, "Debian 1:7.2+dfsg-7+deb12u18");
	assert_int_equal(
		PARSE("{\"qemu\":{\"micro\":2,\"minor\":2}}", hf_qmp_parse_version, &v), -EBADMSG);
	assert_int_equal(PARSE("{\"qemu\":{\"micro\":2,\"minor\":-2,\"major\":7}}",
				 hf_qmp_parse_version, &v),
		-EBADMSG);
	assert_int_equal(PARSE("{\"qemu\":{\"micro\":2,\"minor\":2,\"major\":70000}}",
				 hf_qmp_parse_version, &v),
		-EBADMSG);
}

static void test_identity(void **state)
{
	char name[8], uuid[37];

	assert_int_equal(PARSE("{\"name\":\"web-1\"}", hf_qmp_parse_name, name, sizeof(name)), 0);
	assert_string_equal(name, "web-1");
	assert_int_equal(PARSE("{}", hf_qmp_parse_name, name, sizeof(name)), 0);
	assert_string_equal(name, "");
	assert_int_equal(
		PARSE("{\"name\":\"12345678\"}", hf_qmp_parse_name, name, sizeof(name)), -EBADMSG);
	assert_int_equal(
		PARSE("{\"name\":\"a\\nb\"}", hf_qmp_parse_name, name, sizeof(name)), -EBADMSG);
	assert_int_equal(PARSE("[]", hf_qmp_parse_name, name, sizeof(name)), -EBADMSG);
	assert_int_equal(PARSE("{\"UUID\":\"AC5FE8BF-0D1C-4a3e-9d4f-000000000001\"}",
				 hf_qmp_parse_uuid, uuid),
		0);
	assert_string_equal(uuid, "ac5fe8bf-0d1c-4a3e-9d4f-000000000001");
	assert_int_equal(PARSE("{\"UUID\":\"ac5fe8bf\"}", hf_qmp_parse_uuid, uuid), -EBADMSG);
	assert_int_equal(PARSE("{\"UUID\":\"ac5fe8bf_0d1c-4a3e-9d4f-000000000001\"}",
				 hf_qmp_parse_uuid, uuid),
		-EBADMSG);
}

static void test_migration(void **state)
{
	struct hf_qmp_migration m;
	enum hf_qmp_migration_status s;

	assert_int_equal(PARSE("{}", hf_qmp_parse_migration, &m), 0);
	assert_int_equal(m.status, HF_QMP_MIGRATION_NONE);
	assert_false(m.has_ram);
	assert_int_equal(PARSE("{\"status\":\"completed\",\"setup-time\":1,\"downtime\":3,"
			       "\"total-time\":9,\"ram\":{\"total\":268435456,\"remaining\":0,"
			       "\"transferred\":351000,\"normal-bytes\":4096,\"duplicate\":12,"
			       "\"dirty-pages-rate\":77,\"dirty-sync-count\":3,"
			       "\"mbps\":1.5,\"page-size\":4096}}",
				 hf_qmp_parse_migration, &m),
		0);
	assert_int_equal(m.status, HF_QMP_MIGRATION_COMPLETED);
	assert_true(m.has_ram);
	assert_int_equal(m.ram_total_bytes, 268435456);
	assert_int_equal(m.ram_transferred_bytes, 351000);
	assert_int_equal(m.ram_normal_bytes, 4096);
	assert_int_equal(m.ram_duplicate_pages, 12);
	assert_int_equal(m.ram_dirty_pages_per_s, 77);
	assert_int_equal(m.ram_rounds, 3);
	assert_int_equal(m.downtime_ms, 3);
	assert_int_equal(m.total_time_ms, 9);
	assert_int_equal(PARSE("{\"status\":\"failed\",\"error-desc\":\"no\\nroom\"}",
				 hf_qmp_parse_migration, &m),
		0);
	assert_string_equal(m.error_desc, "no room");
	assert_int_equal(PARSE("{\"blocked-reasons\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\","
			       "\"h\",\"i\"]}",
				 hf_qmp_parse_migration, &m),
		0);
	assert_int_equal(m.n_blockers, 9);
	assert_string_equal(m.blockers[7], "h");
	assert_int_equal(PARSE("{\"blocked-reasons\":[1]}", hf_qmp_parse_migration, &m), -EBADMSG);
	assert_int_equal(PARSE("{\"status\":[]}", hf_qmp_parse_migration, &m), -EBADMSG);
	assert_int_equal(PARSE("{\"ram\":{\"total\":-1}}", hf_qmp_parse_migration, &m), -EBADMSG);
	assert_int_equal(PARSE("[]", hf_qmp_parse_migration, &m), -EBADMSG);

	assert_int_equal(PARSE("{\"status\":\"failing\"}", hf_qmp_parse_migration_event, &s), 0);
	assert_int_equal(s, HF_QMP_MIGRATION_FAILING);
	assert_false(hf_qmp_migration_over(s));
	assert_false(hf_qmp_migration_over(HF_QMP_MIGRATION_UNKNOWN));
	assert_true(hf_qmp_migration_over(HF_QMP_MIGRATION_COMPLETED));
	assert_true(hf_qmp_migration_over(HF_QMP_MIGRATION_FAILED));
	assert_true(hf_qmp_migration_over(HF_QMP_MIGRATION_CANCELLED));
	assert_int_equal(PARSE("{}", hf_qmp_parse_migration_event, &s), -EBADMSG);
	assert_int_equal(hf_qmp_parse_migration_event(NULL, &s), -EBADMSG);
}

static void test_migrate_settings(void **state)
{
	static const char caps[] = "[{\"state\":false,\"capability\":\"xbzrle\"},"
				   "{\"state\":true,\"capability\":\"x-ignore-shared\"}]";
	struct hf_qmp_migrate_parameters p;
	const char *name;
	size_t pos = 0;
	bool on;

	assert_int_equal(PARSE(caps, hf_qmp_parse_capability, "x-ignore-shared", &on), 0);
	assert_true(on);
	assert_int_equal(PARSE(caps, hf_qmp_parse_capability, "xbzrle", &on), 0);
	assert_false(on);
	assert_int_equal(PARSE(caps, hf_qmp_parse_capability, "events", &on), -ENOENT);
	assert_int_equal(PARSE("{}", hf_qmp_parse_capability, "events", &on), -EBADMSG);
	assert_int_equal(PARSE("[null]", hf_qmp_parse_capability, "events", &on), -EBADMSG);
	assert_int_equal(PARSE("{\"enabled\":true,\"present\":true}", hf_qmp_parse_kvm, &on), 0);
	assert_true(on);
	assert_int_equal(PARSE("{\"present\":true}", hf_qmp_parse_kvm, &on), -EBADMSG);
	assert_int_equal(PARSE("[]", hf_qmp_parse_kvm, &on), -EBADMSG);
	assert_int_equal(PARSE(caps, hf_qmp_next_capability, &pos, &name), 0);
	assert_int_equal(PARSE(caps, hf_qmp_next_capability, &pos, &name), -ENOENT);
	pos = 0;
	assert_int_equal(PARSE("[null]", hf_qmp_next_capability, &pos, &name), -EBADMSG);
	assert_int_equal(PARSE("7", hf_qmp_next_capability, &pos, &name), -EBADMSG);

	assert_int_equal(PARSE("{\"max-bandwidth\":134217728,\"downtime-limit\":300}",
				 hf_qmp_parse_migrate_parameters, &p),
		0);
	assert_true(p.has_max_bandwidth && p.has_downtime_limit);
	assert_int_equal(p.max_bandwidth, 134217728);
	assert_string_equal(p.mode, "");
	assert_int_equal(
		PARSE("{\"mode\":\"cpr-reboot\"}", hf_qmp_parse_migrate_parameters, &p), 0);
	assert_string_equal(p.mode, "cpr-reboot");
	assert_false(p.has_max_bandwidth);
	assert_int_equal(PARSE("{\"mode\":1}", hf_qmp_parse_migrate_parameters, &p), -EBADMSG);
}

static void test_devices(void **state)
{
	struct hf_qmp_memdev devs[2];
	struct hf_qmp_chardev chars[2];
	uint64_t actual;
	size_t n;

	assert_int_equal(PARSE("[{\"share\":true,\"reserve\":true,\"prealloc\":false,"
			       "\"host-nodes\":[],\"size\":67108864,\"merge\":true,\"dump\":true,"
			       "\"policy\":\"default\",\"id\":\"pc.ram\"}]",
				 hf_qmp_parse_memdevs, devs, 2, &n),
		0);
	assert_int_equal(n, 1);
	assert_string_equal(devs[0].id, "pc.ram");
	assert_true(devs[0].share);
	assert_int_equal(devs[0].size_bytes, 67108864);
	assert_int_equal(PARSE("[1,2,3]", hf_qmp_parse_memdevs, devs, 2, &n), -ENOBUFS);
	assert_int_equal(PARSE("[1]", hf_qmp_parse_memdevs, devs, 2, &n), -EBADMSG);
	assert_int_equal(PARSE("[{\"frontend-open\":true,\"filename\":\"unix:\",\"label\":\"m\"}]",
				 hf_qmp_parse_chardevs, chars, 2, &n),
		0);
	assert_string_equal(chars[0].label, "m");
	assert_true(chars[0].frontend_open);
	assert_int_equal(PARSE("{\"actual\":1073741824}", hf_qmp_parse_balloon, &actual), 0);
	assert_int_equal(actual, 1073741824);
	assert_int_equal(PARSE("{\"actual\":\"1\"}", hf_qmp_parse_balloon, &actual), -EBADMSG);
	assert_int_equal(
		PARSE("{\"actual\":18446744073709551615}", hf_qmp_parse_balloon, &actual), 0);
	assert_true(actual == UINT64_MAX);
}

static void test_blocks(void **state)
{
	/* A drive, a node of -blockdev, an empty CD drive; as 7.2 and 10.0 say it, shortened. */
	static const char good[] =
		"[{\"io-status\":\"ok\",\"device\":\"d0\",\"locked\":false,\"removable\":false,"
		"\"inserted\":{\"ro\":false,\"drv\":\"raw\",\"cache\":{\"no-flush\":true,"
		"\"direct\":false,\"writeback\":true},\"file\":\"/d\"},\"qdev\":"
		"\"/machine/peripheral/v/virtio-backend\",\"type\":\"unknown\"},"
		"{\"device\":\"\",\"qdev\":\"v1\",\"inserted\":{\"cache\":{\"no-flush\":false,"
		"\"direct\":true,\"writeback\":false}}},{\"device\":\"ide1-cd0\",\"locked\":false}"
		"]";
	struct hf_qmp_block b[3];
	size_t n;
	bool on;

	assert_int_equal(PARSE(good, hf_qmp_parse_blocks, b, 3, &n), 0);
	assert_int_equal(n, 3);
	assert_string_equal(b[0].device, "d0");
	assert_string_equal(b[0].qdev, "/machine/peripheral/v/virtio-backend");
	assert_true(b[0].inserted && b[0].no_flush && b[0].writeback && !b[0].direct);
	assert_string_equal(b[1].device, "");
	assert_true(b[1].inserted && b[1].direct && !b[1].no_flush && !b[1].writeback);
	assert_false(b[2].inserted);
	assert_int_equal(PARSE(good, hf_qmp_parse_blocks, b, 2, &n), -ENOBUFS);
	assert_int_equal(PARSE("[]", hf_qmp_parse_blocks, b, 3, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(PARSE("{}", hf_qmp_parse_blocks, b, 3, &n), -EBADMSG);
	assert_int_equal(PARSE("[{}]", hf_qmp_parse_blocks, b, 3, &n), -EBADMSG);
	assert_int_equal(
		PARSE("[{\"device\":\"a\",\"inserted\":1}]", hf_qmp_parse_blocks, b, 3, &n),
		-EBADMSG);
	assert_int_equal(
		PARSE("[{\"device\":\"a\",\"inserted\":{}}]", hf_qmp_parse_blocks, b, 3, &n),
		-EBADMSG);
	assert_int_equal(PARSE("[{\"device\":\"a\",\"inserted\":{\"cache\":{\"direct\":true,"
			       "\"writeback\":true}}}]",
				 hf_qmp_parse_blocks, b, 3, &n),
		-EBADMSG);
	assert_int_equal(PARSE("true", hf_qmp_parse_bool, &on), 0);
	assert_true(on);
	assert_int_equal(PARSE("1", hf_qmp_parse_bool, &on), -EBADMSG);
}

static int ramblocks(const char *text, struct hf_qmp_ramblock *b, size_t max, size_t *n)
{
	/* No NUL behind it, so that reading on is caught. */
	char *copy = malloc(strlen(text) + 1);
	int r;

	memcpy(copy, text, strlen(text));
	copy = realloc(copy, strlen(text) ? strlen(text) : 1);
	r = hf_qmp_parse_ramblocks(copy, strlen(text), b, max, n);
	free(copy);
	return r;
}

#define RAM_HEAD "              Block Name    PSize              Offset               Used\r\n"

static void test_ramblocks(void **state)
{
	/* As 7.2 and 10.0 print it. */
	static const char old[] = "              Block Name    PSize              Offset"
				  "               Used              Total\r\n"
				  "                  pc.ram    4 KiB  0x0000000000000000 "
				  "0x0000000004000000 0x0000000004000000\r\n"
				  "    /rom@etc/acpi/tables    4 KiB  0x0000000004080000 "
				  "0x0000000000020000 0x0000000000200000\r\n";
	static const char new[] =
		"              Block Name    PSize              Offset"
		"               Used              Total                HVA  RO\r\n"
		"                  mem 0    2 MiB  0x0000000000000000 "
		"0x0000000004000000 0x0000000004000000 0x00007f2ad7e00000  rw\r\n";
	struct hf_qmp_ramblock b[2];
	size_t n;

	assert_int_equal(ramblocks(old, b, 2, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(b[0].name, "pc.ram");
	assert_int_equal(b[0].page_bytes, 4096);
	assert_int_equal(b[0].total_bytes, 0x4000000);
	assert_string_equal(b[1].name, "/rom@etc/acpi/tables");
	assert_int_equal(b[1].offset, 0x4080000);
	assert_int_equal(b[1].used_bytes, 0x20000);
	assert_int_equal(b[1].total_bytes, 0x200000);
	assert_int_equal(ramblocks(old, b, 1, &n), -ENOBUFS);
	assert_int_equal(ramblocks(new, b, 2, &n), 0);
	assert_int_equal(n, 1);
	assert_string_equal(b[0].name, "mem 0");
	assert_int_equal(b[0].page_bytes, 2 << 20);
	assert_int_equal(ramblocks(RAM_HEAD, b, 2, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(ramblocks("", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks("unknown command: 'info ramblock'\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks(RAM_HEAD "pc.ram 4 KiB\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks(RAM_HEAD "4 KiB 0x0 0x1 0x1\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks(RAM_HEAD "a 4 KiB 0x0 0x1\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks(RAM_HEAD "a 0 KiB 0x0 0x1 0x1\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks(RAM_HEAD "a 4 EiB 0x0 0x1 0x1\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(
		ramblocks(RAM_HEAD "a 99999999999 GiB 0x0 0x1 0x1\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(
		ramblocks(RAM_HEAD "a 4 KiB 0x0 0x1 0x11112222333344445\r\n", b, 2, &n), -EBADMSG);
	assert_int_equal(ramblocks(RAM_HEAD "a 4 KiB 0x 0x1 0x1\r\n", b, 2, &n), -EBADMSG);
}

static void test_roms(void **state)
{
	static const char text[] =
		"fw=genroms/kvmvapic.bin size=0x002400 name=\"kvmvapic.bin\"\r\n"
		"addr=00000000fffc0000 size=0x040000 mem=rom "
		"name=\"/usr/share/my roms/bios-256k.bin\"\r\n"
		"/rom@etc/acpi/tables size=0x200000 name=\"etc/acpi/tables\"\r\n";
	struct hf_qmp_rom roms[3];
	size_t n;

	assert_int_equal(hf_qmp_parse_roms(text, strlen(text), roms, 3, &n), 0);
	assert_int_equal(n, 3);
	assert_string_equal(roms[0].name, "kvmvapic.bin");
	assert_string_equal(roms[0].fw_path, "genroms/kvmvapic.bin");
	assert_int_equal(roms[0].size_bytes, 0x2400);
	assert_string_equal(roms[1].name, "/usr/share/my roms/bios-256k.bin");
	assert_string_equal(roms[1].fw_path, "");
	assert_string_equal(roms[2].fw_path, "etc/acpi/tables");
	assert_int_equal(hf_qmp_parse_roms(text, strlen(text), roms, 2, &n), -ENOBUFS);
	assert_int_equal(hf_qmp_parse_roms("", 0, roms, 3, &n), 0);
	assert_int_equal(n, 0);
#define BAD(s) assert_int_equal(hf_qmp_parse_roms(s, strlen(s), roms, 3, &n), -EBADMSG)
	BAD("hello");
	BAD("fw=a size=0x1");
	BAD("fw=a name=\"x\"");
	BAD("fw=a size=0x1 name=\"");
	BAD("fw=a size=0x1 name=\"\"");
	BAD("fw= size=0x1 name=\"x\"");
	BAD("fw=a size=-1 name=\"x\"");
}

static void test_romfiles(void **state)
{
	/* As 7.2 to 11.1 print it, but for all that stands between. */
	static const char text[] = "bus: main-system-bus\r\n"
				   "      dev: e1000, id \"\"\r\n"
				   "        addr = 05.0\r\n"
				   "        romfile = \"efi-e1000.rom\"\r\n"
				   "        romsize = 262144 (0x40000)\r\n"
				   "      dev: VGA, id \"romfile = 1\"\r\n"
				   "        romfile = \"/opt/my roms/vga.bin\"\r\n"
				   "        romfile = \"\"\r\n"
				   "        romfile = \"efi-e1000.rom\"\r\n";
	struct hf_qmp_romfile files[2];
	size_t n;

	assert_int_equal(hf_qmp_parse_romfiles(text, strlen(text), files, 2, &n), 0);
	assert_int_equal(n, 2);
	assert_string_equal(files[0].name, "efi-e1000.rom");
	assert_string_equal(files[1].name, "/opt/my roms/vga.bin");
	assert_int_equal(hf_qmp_parse_romfiles(text, strlen(text), files, 1, &n), -ENOBUFS);
	assert_int_equal(hf_qmp_parse_romfiles("", 0, files, 2, &n), 0);
	assert_int_equal(n, 0);
#undef BAD
#define BAD(s) assert_int_equal(hf_qmp_parse_romfiles(s, strlen(s), files, 2, &n), -EBADMSG)
	BAD("romfile = ");
	BAD("romfile = \"");
	BAD("romfile = x");
	BAD("romfile = \"a\tb\"");
}

static void test_virtio(void **state)
{
	/* Member for member as 10.0 answers; 7.2 and 11.1 have the same. */
	static const char queue[] =
		"{\"signalled-used\":0,\"inuse\":0,\"name\":\"virtio-rng\",\"vring-align\":4096,"
		"\"vring-desc\":0,\"signalled-used-valid\":false,\"vring-num-default\":1024,"
		"\"vring-avail\":0,\"queue-index\":0,\"last-avail-idx\":0,\"vring-used\":0,"
		"\"used-idx\":0,\"shadow-avail-idx\":0,\"vring-num\":8}";
	struct hf_qmp_virtio_device devs[2];
	struct hf_qmp_virtqueue q;
	uint64_t number;
	size_t n;

	assert_int_equal(PARSE("[{\"name\":\"virtio-rng\",\"path\":\"/machine/peripheral/r/"
			       "virtio-backend\"}]",
				 hf_qmp_parse_virtio_devices, devs, 2, &n),
		0);
	assert_int_equal(n, 1);
	assert_string_equal(devs[0].name, "virtio-rng");
	assert_string_equal(devs[0].path, "/machine/peripheral/r/virtio-backend");
	assert_int_equal(PARSE("[]", hf_qmp_parse_virtio_devices, devs, 2, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(PARSE("[1,2,3]", hf_qmp_parse_virtio_devices, devs, 2, &n), -ENOBUFS);
	assert_int_equal(
		PARSE("[{\"name\":\"virtio-rng\"}]", hf_qmp_parse_virtio_devices, devs, 2, &n),
		-EBADMSG);
	assert_int_equal(PARSE("{}", hf_qmp_parse_virtio_devices, devs, 2, &n), -EBADMSG);
	assert_int_equal(PARSE(queue, hf_qmp_parse_virtqueue, &q), 0);
	assert_int_equal(q.num, 8);
	assert_int_equal(q.num_default, 1024);
	assert_int_equal(PARSE("{\"vring-num\":8}", hf_qmp_parse_virtqueue, &q), -EBADMSG);
	assert_int_equal(PARSE("[]", hf_qmp_parse_virtqueue, &q), -EBADMSG);
	assert_int_equal(PARSE("256", hf_qmp_parse_number, &number), 0);
	assert_int_equal(number, 256);
	assert_int_equal(PARSE("-1", hf_qmp_parse_number, &number), -EBADMSG);
	assert_int_equal(PARSE("\"256\"", hf_qmp_parse_number, &number), -EBADMSG);
	assert_int_equal(hf_qmp_parse_number(NULL, &number), -EBADMSG);
}

static void test_copy_text(void **state)
{
	char buf[6];

	hf_qmp_copy_text(buf, sizeof(buf), "a\tb\x7f");
	assert_string_equal(buf, "a b ");
	/* A three-byte character that would be cut is left out. */
	hf_qmp_copy_text(buf, sizeof(buf), "abc\xe2\x82\xac");
	assert_string_equal(buf, "abc");
	hf_qmp_copy_text(buf, sizeof(buf), "ab\xe2\x82\xac");
	assert_string_equal(buf, "ab\xe2\x82\xac");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_migration),
		cmocka_unit_test(test_migrate_settings),
		cmocka_unit_test(test_devices),
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_ramblocks),
		cmocka_unit_test(test_roms),
		cmocka_unit_test(test_romfiles),
		cmocka_unit_test(test_virtio),
		cmocka_unit_test(test_copy_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
