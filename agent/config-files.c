/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Where the configuration is: reading its files in their order.
 *
 * Files that hang or never end (pipes, devices) are not read. A link to /dev/null is an empty file,
 * which is how a drop-in is switched off elsewhere, too.
 */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/config.h"
#include "common/fd.h"

static int read_fd(
	struct hf_config *c, const char *path, int fd, const struct stat *st, void **ret_data)
{
	cleanup_free char *data = NULL;
	int r;

	if (!S_ISREG(st->st_mode)) {
		/* Most likely /dev/null. Whatever it is, it holds no settings. */
		if (!S_ISCHR(st->st_mode))
			hf_config_add_problem(c, path, 0, NULL, "this is not a file");
		return 0;
	}
	if (st->st_size > HF_CONFIG_MAX_BYTES) {
		hf_config_add_problem(
			c, path, 0, NULL, "the file is larger than %u bytes", HF_CONFIG_MAX_BYTES);
		return 0;
	}
	data = malloc((size_t)st->st_size + 1);
	if (!data)
		return -ENOMEM;
	r = hf_fd_read_full(fd, data, (size_t)st->st_size);
	if (r < 0) {
		hf_config_add_problem(c, path, 0, r == -EBADMSG ? "try again" : NULL,
			"can't be read: %s", r == -EBADMSG ? "it is being changed" : strerror(-r));
		return 0;
	}
	*ret_data = TAKE_PTR(data);
	return 0;
}

/* One file, if it is there. */
static int read_file(struct hf_config *c, const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	cleanup_free void *data = NULL;
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			hf_config_add_problem(
				c, path, 0, NULL, "can't be read: %s", strerror(errno));
		return 0;
	}
	r = read_fd(c, path, fd, &st, &data);
	if (r < 0 || !data)
		return r;
	return hf_config_parse(c, path, data, (size_t)st.st_size);
}

static int is_drop_in(const struct dirent *e)
{
	size_t n = strlen(e->d_name);

	return e->d_name[0] != '.' && n > 5 && strcmp(e->d_name + n - 5, ".conf") == 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int read_drop_ins(struct hf_config *c, const char *folder)
{
	struct dirent **list = NULL;
	int n = scandir(folder, &list, is_drop_in, by_bytes), r = 0;

	if (n < 0) {
		if (errno == ENOMEM)
			return -ENOMEM;
		if (errno != ENOENT)
			hf_config_add_problem(
				c, folder, 0, NULL, "can't be read: %s", strerror(errno));
		return 0;
	}
	if (n > HF_CONFIG_MAX_FILES)
		hf_config_add_problem(
			c, folder, 0, NULL, "there are more than %d files", HF_CONFIG_MAX_FILES);
	for (int i = 0; i < n; i++) {
		char path[4096 + 300];

		snprintf(path, sizeof(path), "%s/%s", folder, list[i]->d_name);
		if (r == 0 && i < HF_CONFIG_MAX_FILES)
			r = read_file(c, path);
		free(list[i]);
	}
	free(list);
	return r;
}

int hf_config_read(struct hf_config *c, const char *vendor, const char *dir)
{
	char path[4096];
	int r = 0;

	if (vendor)
		r = read_file(c, vendor);
	snprintf(path, sizeof(path), "%s/holdfast.conf", dir);
	if (r == 0)
		r = read_file(c, path);
	snprintf(path, sizeof(path), "%s/holdfast.conf.d", dir);
	return r < 0 ? r : read_drop_ins(c, path);
}

struct hf_config *hf_config_load(void)
{
	const char *dir = getenv("HOLDFAST_CONFIG_DIR");
	struct hf_config *c = hf_config_new();

	if (!c)
		return NULL;
	if (hf_config_read(c, HF_CONFIG_VENDOR_FILE, dir && dir[0] == '/' ? dir : HF_CONFIG_DIR) <
		0) {
		hf_config_free(c);
		return NULL;
	}
	return c;
}

void hf_config_give_policy(struct hf_manifest_guest *guest)
{
	struct hf_config *config = hf_config_load();
	struct hf_error e = {0};

	hf_policy_clear(&guest->policies);
	if (config)
		hf_config_policy(config, guest, &guest->policies, &e);
	hf_config_free(config);
	hf_policy_repair(&guest->policies);
}
