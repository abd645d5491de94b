/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/confinement.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "vmm-glue/registration.h"

#define PREFIX "libvirt-"
#define LABEL_MAX_BYTES 4096
#define ABSTRACTION_MAX_BYTES (1u << 20)

/* Has no name of its own for what isn't confined: each module has another. */
static bool is_free(const char *label)
{
	return !label || !label[0] || strncmp(label, "unconfined", 10) == 0 ||
	       strncmp(label, "kernel", 6) == 0;
}

static int refuse(const char *label, struct hf_error *e)
{
	return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY,
		"migrate it away for the update; `<seclabel type='none' model='apparmor'/>` in its "
		"XML does without",
		"its QEMU is confined (%.*s) otherwise than by a profile that libvirt made for it, "
		"and holdfast can't confine another one",
		(int)HF_MIN(strcspn(label, "\n"), 120u), label);
}

/* libvirt's own, of this one domain; what follows it is the mode, " (enforce)". */
static bool is_libvirts(const char *label, size_t *ret_size)
{
	size_t size = strcspn(label, " \n");
	char uuid[HF_UUID_CHARS], text[HF_UUID_CHARS];

	if (strncmp(label, PREFIX, strlen(PREFIX)) != 0 ||
		size != strlen(PREFIX) + HF_UUID_CHARS - 1)
		return false;
	snprintf(text, sizeof(text), "%s", label + strlen(PREFIX));
	*ret_size = size;
	return hf_uuid_parse(text, uuid);
}

int hf_confinement_parse(
	const char *apparmor, const char *current, char **ret, struct hf_error *error)
{
	size_t size = 0;

	*ret = NULL;
	/* Where there are several modules, the second is of one of them only. */
	if (!is_free(current) && (!apparmor || strcmp(apparmor, current) != 0))
		return refuse(current, error);
	if (is_free(apparmor))
		return 0;
	if (!is_libvirts(apparmor, &size))
		return refuse(apparmor, error);
	*ret = strndup(apparmor, size);
	return *ret ? 0 : hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

/* Without the module, or without any, there is no such file, or nothing to be read. */
static int read_label(pid_t pid, const char *name, char **ret)
{
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/%d/attr/%s", (int)pid, name);
	r = hf_file_read(path, LABEL_MAX_BYTES, ret, NULL);
	return r == -ENOENT || r == -EINVAL ? 0 : r;
}

int hf_confinement_read(pid_t pid, char **ret, struct hf_error *error)
{
	cleanup_free char *apparmor = NULL, *current = NULL;
	int r = read_label(pid, "apparmor/current", &apparmor);

	*ret = NULL;
	if (r == 0)
		r = read_label(pid, "current", &current);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, NULL,
			"can't find out what confines its QEMU: %s", strerror(-r));
	return hf_confinement_parse(apparmor, current, ret, error);
}

int hf_confinement_check_host(struct hf_error *error)
{
	cleanup_free char *text = NULL;
	int r = hf_file_read(HF_APPARMOR_ABSTRACTION, ABSTRACTION_MAX_BYTES, &text, NULL);

	if (r < 0 || !strstr(text, HF_APPARMOR_DROP_IN_DIR) ||
		access(HF_APPARMOR_DROP_IN, R_OK) == 0)
		return 0;
	return hf_error_set(error, -ENOENT, HF_ERR_NOT_READY, "`holdfast libvirt setup`",
		"AppArmor confines its QEMU, and %s, "
		"which lets holdfast speak to a new one, is not there",
		HF_APPARMOR_DROP_IN);
}

int hf_confinement_load(sd_event *event, const char *profile, const char *log_path,
	hf_child_exit_fn on_exit, void *data, struct hf_child **ret, struct hf_error *error)
{
	static char *const envp[] = {(char *)"PATH=/usr/sbin:/sbin:/usr/bin:/bin", NULL};
	char path[512];
	/* From its cache, if it is there; by itself it may only read that. */
	char *argv[] = {(char *)"apparmor_parser", (char *)"--replace", (char *)"--write-cache",
		path, NULL};
	struct hf_spawn_spec spec = {
		.program = argv[0], .argv = argv, .envp = envp, .umask = 022, .log_path = log_path};
	size_t size;
	int r;

	if (!is_libvirts(profile, &size) || profile[size])
		return hf_error_set(error, -EINVAL, HF_ERR_FAILED, NULL,
			"`%.80s` is no profile of libvirt's", profile);
	snprintf(path, sizeof(path), HF_APPARMOR_PROFILES "/%s", profile);
	if (access(path, R_OK) < 0)
		return hf_error_set(error, -errno, HF_ERR_NOT_READY, "start the domain anew",
			"the AppArmor profile of its QEMU, %s, can't be read: %s", path,
			strerror(errno));
	r = hf_spawn(event, &spec, on_exit, data, ret, error);
	return r < 0 ? hf_error_prefix(error, "can't load the AppArmor profile of its QEMU") : 0;
}
