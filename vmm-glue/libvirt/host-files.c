/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm-glue/libvirt/host-files.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

/* The next line of a text, as a copy without its end. Return: false at the end of the text. */
static bool next_line(const char **text, char **ret)
{
	const char *end;

	free(*ret);
	*ret = NULL;
	if (!**text)
		return false;
	end = strchrnul(*text, '\n');
	*ret = strndup(*text, (size_t)(end - *text));
	*text = *end ? end + 1 : end;
	return *ret;
}

static char *skip_blanks(char *p)
{
	return p + strspn(p, " \t\r");
}

int hf_host_conf_string(const char *text, const char *key, char **ret)
{
	cleanup_free char *line = NULL, *value = NULL;
	size_t n = strlen(key);

	while (next_line(&text, &line)) {
		char *p = skip_blanks(line), *end;

		if (strncmp(p, key, n) != 0 || *(p = skip_blanks(p + n)) != '=')
			continue;
		p = skip_blanks(p + 1);
		end = *p == '"' || *p == '\'' ? strchr(p + 1, *p) : NULL;
		/* Behind it only a comment; three quotes would begin a text of several lines. */
		if (!end || (*skip_blanks(end + 1) && *skip_blanks(end + 1) != '#'))
			return -EBADMSG;
		/* The last one holds. */
		free(value);
		value = strndup(p + 1, (size_t)(end - p - 1));
		if (!value)
			return -ENOMEM;
	}
	*ret = TAKE_PTR(value);
	return 0;
}

bool hf_host_path_is_plain(const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789/._-+:@,";

	const char *last = strrchr(path, '/');

	return path[0] == '/' && path[strspn(path, "/")] && strlen(path) < 200 &&
	       path[strspn(path, plain)] == '\0' && !strstr(path, "/../") && !strstr(path, "/./") &&
	       strcmp(last, "/..") != 0 && strcmp(last, "/.") != 0;
}

char *hf_host_unit_name(const char *path, const char *suffix)
{
	char *name = malloc(strlen(path) * 4 + strlen(suffix) + 1), *out = name;

	for (const char *p = path + strspn(path, "/"); name && *p; p++) {
		bool first = out == name;

		if (*p == '/') {
			p += strspn(p, "/") - 1;
			if (p[1])
				*out++ = '-';
		} else if (isalnum((unsigned char)*p) || strchr(":_", *p) ||
			   (*p == '.' && !first)) {
			*out++ = *p;
		} else {
			out += sprintf(out, "\\x%02x", (unsigned char)*p);
		}
	}
	if (name)
		strcpy(out, suffix);
	return name;
}

/* Is the path at or below this mount point? Slashes at the path's end don't count. */
static bool is_below(const char *path, const char *point)
{
	size_t n = strlen(point);

	if (strcmp(point, "/") == 0)
		return true;
	return strncmp(path, point, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

void hf_host_mount_of(const char *mountinfo, const char *path, struct hf_host_mount *ret)
{
	cleanup_free char *line = NULL;
	size_t longest = 0;

	*ret = (struct hf_host_mount){0};
	while (next_line(&mountinfo, &line)) {
		const char *type = strstr(line, " - ");
		char point[4096] = "";
		size_t n;

		/* ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS] - TYPE SOURCE OPTIONS */
		if (!type || sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1 ||
			!is_below(path, point))
			continue;
		n = strlen(point);
		/* What was mounted later over the same point hides what was there. */
		if (n < longest)
			continue;
		longest = n;
		snprintf(ret->type, sizeof(ret->type), "%.*s", (int)strcspn(type + 3, " "),
			type + 3);
		snprintf(ret->point, sizeof(ret->point), "%.255s", point);
		ret->at_path = path[n] == '\0' || path[n + strspn(path + n, "/")] == '\0';
		if (strcmp(point, "/") == 0)
			ret->at_path = false;
	}
}

bool hf_host_size_is_valid(const char *size)
{
	size_t digits = strspn(size, "0123456789");
	const char *unit = size + digits;

	if (digits == 0 || digits > 15 || size[0] == '0')
		return false;
	if (strcmp(unit, "%") == 0)
		return digits < 3 || strcmp(size, "100%") == 0;
	return !*unit || (strchr("kKmMgGtT", *unit) && !unit[1]);
}

char *hf_host_unit_size(const char *unit)
{
	cleanup_free char *line = NULL;

	while (next_line(&unit, &line)) {
		char *rest = strncmp(line, "Options=", 8) == 0 ? line + 8 : NULL, *word;

		while ((word = strsep(&rest, ","))) {
			size_t n = strlen(word);

			if (strncmp(word, "size=", 5) != 0)
				continue;
			/* systemd's way to write a single one. */
			if (n > 7 && strcmp(word + n - 2, "%%") == 0)
				word[n - 1] = '\0';
			return hf_host_size_is_valid(word + 5) ? strdup(word + 5) : NULL;
		}
	}
	return NULL;
}

char *hf_host_mount_unit(const struct hf_host_ram *ram)
{
	/* A per cent sign is a specifier to systemd. */
	const char *more = strchr(ram->size, '%') ? "%" : "";
	char *text;

	if (asprintf(&text,
		    HF_HOST_FILES_MARK
		    "[Unit]\n"
		    "Description=Memory of libvirt's domains\n"
		    "Documentation=man:holdfast(1)\n"
		    "# Domains have their memory there as long as they run, so no shutdown "
		    "unmounts it.\n"
		    "DefaultDependencies=no\n"
		    "After=systemd-remount-fs.service local-fs-pre.target\n"
		    "Before=libvirtd.service virtqemud.service\n"
		    "\n"
		    "[Mount]\n"
		    "What=tmpfs\n"
		    "Where=%s\n"
		    "Type=tmpfs\n"
		    "Options=size=%s%s,mode=0711,uid=%u,gid=%u,nosuid,nodev,noexec%s\n",
		    ram->dir, ram->size, more, (unsigned int)ram->uid, (unsigned int)ram->gid,
		    ram->huge ? ",huge=advise" : "") < 0)
		return NULL;
	return text;
}

char *hf_host_daemon_drop_in(const char *mount_unit)
{
	const char *space = mount_unit ? " " : "", *unit = mount_unit ? mount_unit : "";
	char *text;

	if (asprintf(&text,
		    HF_HOST_FILES_MARK
		    "[Unit]\n"
		    "# Domains that come over a change of the kernel run again, or are held, "
		    "before libvirt looks\n"
		    "# for them: it would take them for ended, and start them anew.\n"
		    "Wants=holdfastd.service%s%s\n"
		    "After=holdfastd.service%s%s\n",
		    space, unit, space, unit) < 0)
		return NULL;
	return text;
}

char *hf_host_apparmor_drop_in(void)
{
	return strdup(HF_HOST_FILES_MARK
		"# holdfastd, which isn't confined, speaks to a QEMU that it starts over sockets.\n"
		"unix (send, receive) type=stream addr=none peer=(label=unconfined),\n");
}

char *hf_host_exec_stop(const char *unit)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789/._-+:@,= ";
	cleanup_free char *line = NULL, *command = NULL;
	bool continued = false;

	while (next_line(&unit, &line)) {
		bool was_continued = continued;
		size_t n = strlen(line);

		continued = n > 0 && line[n - 1] == '\\';
		if (was_continued || strncmp(line, "ExecStop=", 9) != 0)
			continue;
		if (command || line[9] != '/' || line[9 + strspn(line + 9, plain)])
			return NULL;
		command = strdup(line + 9);
	}
	return TAKE_PTR(command);
}

char *hf_host_guests_drop_in(const char *exec_stop, const char *wrapper)
{
	char *text;
	int n;

	if (!exec_stop)
		n = asprintf(&text, HF_HOST_FILES_MARK
			"[Unit]\n"
			"After=holdfastd.service libvirtd.service virtqemud.service\n");
	else
		n = asprintf(&text,
			HF_HOST_FILES_MARK
			"[Unit]\n"
			"After=holdfastd.service libvirtd.service virtqemud.service\n"
			"\n"
			"[Service]\n"
			"# It neither saves nor shuts down what is carried over the kexec that "
			"this shutdown is for. Should\n"
			"# holdfast be gone, it does as before.\n"
			"ExecStop=\n"
			"ExecStop=/bin/sh -c 'w=%s; [ -x $$w ] || w=; exec $$w %s'\n",
			wrapper, exec_stop);
	return n < 0 ? NULL : text;
}
