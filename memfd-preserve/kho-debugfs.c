/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Reading KHO's debugfs folder. The parsing is in kho.c.
 */
#include <dirent.h>
#include <json-c/json.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "common/fd.h"
#include "memfd-preserve/json-text.h"
#include "memfd-preserve/kho.h"

#define MAX_BLOB_BYTES (16u << 20)
#define MAX_BLOBS 256

static char *join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static int read_error(struct hf_error *e, int r, const char *path)
{
	if (r == -EACCES || r == -EPERM)
		return hf_error_set(
			e, -EACCES, HF_ERR_NOT_PERMITTED, "run as root", "can't read %s", path);
	return hf_error_set(e, r, HF_ERR_FAILED, NULL, "can't read %s: %s", path, strerror(-r));
}

static int explain_absent(const char *root, struct hf_error *e)
{
	cleanup_free char *parent = strdup(root);
	struct statfs sfs;
	char *slash;

	slash = parent ? strrchr(parent, '/') : NULL;
	if (slash && slash != parent)
		*slash = 0;
	if (parent && statfs(parent, &sfs) == 0 && sfs.f_type == DEBUGFS_MAGIC)
		return hf_error_set(e, -ENOENT, HF_ERR_NOT_READY,
			"boot a kernel built with CONFIG_KEXEC_HANDOVER_DEBUGFS, with kho=on on "
			"its command "
			"line",
			"the running kernel shows no KHO trees");
	return hf_error_set(e, -ENOENT, HF_ERR_NOT_READY,
		"mount -t debugfs debugfs /sys/kernel/debug",
		"debugfs is not mounted: there is no %s", root);
}

/* scratch_phys, scratch_len: one hexadecimal number a line. Absent in `in`. */
static int add_scratch(const char *dir, const char *name, struct json_object *side)
{
	cleanup_free char *path = join(dir, name);
	cleanup_free char *data = NULL;
	char *line, *save = NULL;
	struct json_object *array;
	int r;

	if (!path)
		return -ENOMEM;
	r = hf_file_read(path, 64 << 10, &data, NULL);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	array = json_object_new_array();
	if (!array)
		return -ENOMEM;
	for (line = strtok_r(data, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		json_object_array_add(array, json_object_new_uint64(strtoull(line, NULL, 16)));
	json_object_object_add(side, name, array);
	return 0;
}

static int add_root_tree(const char *dir, struct json_object *side, struct hf_error *e)
{
	cleanup_free char *path = join(dir, "fdt");
	cleanup_free char *data = NULL;
	struct json_object *json = NULL;
	size_t size;
	int r;

	if (!path)
		return -ENOMEM;
	r = hf_file_read(path, MAX_BLOB_BYTES, &data, &size);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return read_error(e, r, path);
	/*
	 * The file is as long as the tree was when the kernel published it; nodes that were added
	 * later make the tree longer than what can be read (Linux 7.2.12, 7.3.4). It is shown as
	 * bytes then.
	 */
	r = hf_kho_blob_to_json("fdt", data, size, &json);
	if (r < 0)
		return r;
	if (!json_object_object_get(json, "nodes"))
		json_object_object_add(json, "incomplete", json_object_new_boolean(true));
	json_object_object_add(side, "fdt", json);
	return 0;
}

static int add_blob(
	const char *dir, const char *name, struct json_object *blobs, struct hf_error *e)
{
	cleanup_free char *path = join(dir, name);
	cleanup_free char *data = NULL;
	struct json_object *json = NULL, *key;
	size_t size;
	int r;

	if (!path)
		return -ENOMEM;
	r = hf_file_read(path, MAX_BLOB_BYTES, &data, &size);
	if (r == -ENOENT) /* it went while we looked */
		return 0;
	if (r < 0)
		return read_error(e, r, path);
	r = hf_kho_blob_to_json(name, data, size, &json);
	if (r < 0)
		return r;
	key = hf_json_text(name, strlen(name));
	json_object_object_add(blobs, key ? json_object_get_string(key) : "?", json);
	json_object_put(key);
	return 0;
}

static int add_blobs(const char *side_dir, struct json_object *side, struct hf_error *e)
{
	cleanup_free char *path = join(side_dir, "sub_fdts");
	struct json_object *blobs = json_object_new_object();
	struct dirent *entry;
	int n = 0, r = 0;
	DIR *dir;

	json_object_object_add(side, "sub_fdts", blobs);
	if (!path || !blobs)
		return -ENOMEM;
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : read_error(e, -errno, path);
	while (r == 0 && n < MAX_BLOBS && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		r = add_blob(path, entry->d_name, blobs, e);
	}
	closedir(dir);
	return r;
}

static int add_side(
	const char *root, const char *name, struct json_object *json, struct hf_error *e)
{
	cleanup_free char *path = join(root, name);
	struct json_object *side;
	struct stat st;
	int r;

	if (!path)
		return -ENOMEM;
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : read_error(e, -errno, path);
	side = json_object_new_object();
	if (!side)
		return -ENOMEM;
	json_object_object_add(json, name, side);
	r = add_root_tree(path, side, e);
	if (r == 0)
		r = add_blobs(path, side, e);
	if (r == 0)
		r = add_scratch(path, "scratch_phys", side);
	if (r == 0)
		r = add_scratch(path, "scratch_len", side);
	return r;
}

int hf_kho_inspect(const char *root, struct json_object **ret_json, struct hf_error *e)
{
	struct json_object *json;
	struct stat st;
	int r;

	if (stat(root, &st) < 0)
		return errno == ENOENT ? explain_absent(root, e) : read_error(e, -errno, root);
	json = json_object_new_object();
	r = json ? add_side(root, "out", json, e) : -ENOMEM;
	if (r == 0)
		r = add_side(root, "in", json, e);
	if (r < 0) {
		json_object_put(json);
		if (r == -ENOMEM)
			hf_error_set(e, r, HF_ERR_FAILED, NULL, "out of memory");
		return r;
	}
	*ret_json = json;
	return 0;
}

/* A file that isn't there has no strings. */
static int read_formats(const char *root, const char *name, char *ret, size_t room, char *ret_memfd,
	size_t memfd_room, struct hf_error *e)
{
	cleanup_free char *path = join(root, name);
	cleanup_free char *data = NULL;
	size_t size;
	int r;

	if (!path)
		return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	r = hf_file_read(path, MAX_BLOB_BYTES, &data, &size);
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return read_error(e, r, path);
	hf_kho_blob_compatible(data, size, ret, room);
	if (ret_memfd)
		hf_kho_blob_memfd(data, size, ret_memfd, memfd_room);
	return 0;
}

int hf_kho_running_abi(const char *root, struct hf_kho_abi *ret_abi, struct hf_error *e)
{
	struct hf_kho_abi abi = {0};
	struct stat st;
	int r;

	if (stat(root, &st) < 0)
		return errno == ENOENT ? explain_absent(root, e) : read_error(e, -errno, root);
	r = read_formats(root, "out/fdt", abi.kho, sizeof(abi.kho), NULL, 0, e);
	if (r == 0)
		r = read_formats(root, "out/sub_fdts/LUO", abi.luo, sizeof(abi.luo), abi.memfd,
			sizeof(abi.memfd), e);
	if (r < 0)
		return r;
	*ret_abi = abi;
	return 0;
}
