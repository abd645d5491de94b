/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: holdfast inspect kernel: what an image is and understands, by anybody who can read it.
 */
#include "agent/cli/cli.h"

#include <fcntl.h>
#include <string.h>

#include "memfd-preserve/kernel-image.h"

/* What matters to an update, where the configuration is known. */
static const char *const options[] = {"CONFIG_KEXEC_FILE", "CONFIG_KEXEC_HANDOVER",
	"CONFIG_LIVEUPDATE", "CONFIG_LIVEUPDATE_MEMFD", "CONFIG_RELOCATABLE", "CONFIG_KVM_AMD",
	"CONFIG_KVM_INTEL", "CONFIG_TUN", "CONFIG_BRIDGE"};

/* struct subject - an image with the configuration that belongs to it. */
struct subject {
	const char *path;
	struct hf_kernel_image image;
	char *config;	   /* or NULL */
	char *config_path; /* or NULL: it is built in */
};

static int look(struct subject *s, struct hf_error *e)
{
	cleanup_close int fd = open(s->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int r;

	if (fd < 0)
		return hf_error_set(
			e, -errno, HF_ERR_FAILED, NULL, "%s: %s", s->path, strerror(errno));
	r = hf_kernel_image_read(fd, HF_KERNEL_MAX_BYTES, &s->image, e);
	if (r < 0) {
		hf_error_prefix(e, "%s", s->path);
		return r;
	}
	if (s->image.config)
		s->config = TAKE_PTR(s->image.config);
	else
		s->config = hf_kernel_config_beside(s->path, s->image.release, &s->config_path);
	return 0;
}

static struct json_object *formats_json(const struct hf_kernel_strings *strings)
{
	struct json_object *all = json_object_new_object();

	for (size_t f = 0; f < HF_KERNEL_N_FAMILIES; f++) {
		const struct hf_kernel_formats *formats = &strings->formats[f];
		struct json_object *list = json_object_new_array();

		for (size_t i = 0; i < formats->n; i++)
			hf_json_append(list, json_object_new_string(formats->names[i]));
		hf_json_add(all, hf_kernel_family_name(f), list);
	}
	return all;
}

static struct json_object *config_json(const struct subject *s)
{
	struct json_object *config = json_object_new_object();
	struct json_object *on = json_object_new_object();

	hf_json_add_string(config, "file", s->config_path);
	for (size_t i = 0; i < HF_ARRAY_SIZE(options); i++)
		hf_json_add_bool(on, options[i], hf_kernel_config_has(s->config, options[i]));
	hf_json_add(config, "options", on);
	return config;
}

static void print_json(const struct subject *s)
{
	cleanup_json struct json_object *reply = json_object_new_object();
	const struct hf_kernel_image *image = &s->image;
	struct json_object *o = json_object_new_object();

	hf_json_add_string(o, "path", s->path);
	hf_json_add_string(o, "kind", hf_kernel_kind_name(image->kind));
	hf_json_add_int(o, "file_bytes", (int64_t)image->file_bytes);
	hf_json_add_string(o, "release", image->release);
	hf_json_add_string(o, "version", image->boot.version);
	hf_json_add_string(o, "banner", image->strings.banner);
	hf_json_add_string(o, "compression", hf_compression_name(image->compression));
	hf_json_add_int(o, "kernel_bytes", (int64_t)image->kernel_bytes);
	hf_json_add_bool(o, "kexec", !hf_kernel_image_no_kexec(image));
	hf_json_add_string(o, "kexec_problem", hf_kernel_image_no_kexec(image));
	hf_json_add(o, "formats", formats_json(&image->strings));
	if (s->config)
		hf_json_add(o, "config", config_json(s));
	if (image->kind == HF_KERNEL_UKI) {
		struct json_object *uki = json_object_new_object();

		hf_json_add_string(uki, "uname", image->uki_uname);
		hf_json_add_bool(uki, "cmdline", image->uki_cmdline);
		hf_json_add_bool(uki, "initrd", image->uki_initrd);
		hf_json_add(o, "uki", uki);
	}
	hf_json_add(reply, "kernel", o);
	hf_cli_print_json(reply);
}

static void show_formats(const struct hf_kernel_strings *strings)
{
	static const char *const missing[] = {
		[HF_KERNEL_KHO] = "none: it has no CONFIG_KEXEC_HANDOVER",
		[HF_KERNEL_LUO] = "none: it has no CONFIG_LIVEUPDATE",
		[HF_KERNEL_MEMFD] = "none: it has no CONFIG_LIVEUPDATE_MEMFD",
	};

	for (size_t f = 0; f < HF_KERNEL_N_FAMILIES; f++) {
		const struct hf_kernel_formats *formats = &strings->formats[f];
		char text[HF_KERNEL_MAX_FORMATS * (HF_KERNEL_FORMAT_BYTES + 2)] = "";

		for (size_t i = 0; i < formats->n; i++) {
			strcat(text, i ? ", " : "");
			strcat(text, formats->names[i]);
		}
		hf_cli_field(hf_kernel_family_name(f), formats->n ? text : missing[f]);
	}
}

static void show_config(const struct subject *s)
{
	if (!s->config) {
		hf_cli_field("config", "not known: neither built in nor beside the image");
		return;
	}
	hf_cli_field("config", s->config_path ? s->config_path : "built in");
	for (size_t i = 0; i < HF_ARRAY_SIZE(options); i++)
		printf("  %-26s %s\n", options[i],
			hf_kernel_config_has(s->config, options[i]) ? "on" : "off");
}

static void show(const struct subject *s)
{
	const struct hf_kernel_image *image = &s->image;
	const char *no_kexec = hf_kernel_image_no_kexec(image);
	char text[256];

	hf_cli_field("image", s->path);
	snprintf(text, sizeof(text), "%s, %s", hf_kernel_kind_name(image->kind),
		hf_cli_bytes((int64_t)image->file_bytes));
	hf_cli_field("kind", text);
	if (image->kind == HF_KERNEL_UKI) {
		snprintf(text, sizeof(text), "%s%s%s",
			image->uki_uname[0] ? image->uki_uname : "no release",
			image->uki_cmdline ? ", a command line" : "",
			image->uki_initrd ? ", an initrd" : "");
		hf_cli_field("brings", text);
	}
	hf_cli_field("release", image->release);
	hf_cli_field(
		"banner", image->strings.banner[0] ? image->strings.banner : image->boot.version);
	snprintf(text, sizeof(text), "%s, unpacked %s", hf_compression_name(image->compression),
		hf_cli_bytes((int64_t)image->kernel_bytes));
	hf_cli_field("packed", text);
	snprintf(text, sizeof(text), "no: %s", no_kexec ? no_kexec : "");
	hf_cli_field("kexec", no_kexec ? text : "yes");
	show_formats(&image->strings);
	show_config(s);
}

int hf_cli_inspect_kernel(struct hf_cli *cli, const char *path)
{
	struct subject s = {.path = path};
	struct hf_error e = {0};

	if (look(&s, &e) < 0)
		return hf_cli_fail(cli, &e, NULL);
	if (cli->json)
		print_json(&s);
	else
		show(&s);
	hf_kernel_image_clear(&s.image);
	free(s.config);
	free(s.config_path);
	return HF_EXIT_OK;
}
