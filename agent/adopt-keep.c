/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/adopt-keep.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>

#include "agent/outgoing.h"
#include "common/fault.h"
#include "common/fd.h"

static void socket_path(char *path, size_t size)
{
	snprintf(path, size, "%s/adopted.sock", hf_run_dir());
}

static int connect_keeper(struct hf_agent *agent, bool *ret_found, struct hf_error *error)
{
	char path[4096];
	int r = hf_carrier_hold_new(&agent->kept, error);

	if (r < 0)
		return r;
	socket_path(path, sizeof(path));
	r = hf_carrier_keep(agent->kept, path, ret_found, error);
	if (r < 0) {
		hf_carrier_free(agent->kept);
		agent->kept = NULL;
	}
	return r;
}

int hf_adopt_keep_find(struct hf_agent *agent, struct hf_error *error)
{
	bool found = false;
	char path[4096];
	int r;

	socket_path(path, sizeof(path));
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = connect_keeper(agent, &found, error);
	if (r < 0)
		return hf_error_prefix(error, "a guest that was being adopted may be kept, but");
	if (found)
		agent->again = true;
	else
		hf_adopt_keep_end(agent); /* a socket that a killed one left */
	return 0;
}

int hf_adopt_keep_start(struct hf_agent *agent, struct hf_error *error)
{
	struct hf_session *s = NULL;
	bool found = false;
	int r;

	r = connect_keeper(agent, &found, error);
	if (r < 0 || !found)
		return r;
	r = hf_carrier_session_retrieve(agent->kept, HF_MANIFEST_SESSION, &s, error);
	if (r == -ENOENT || r == -EALREADY) {
		hf_error_clear(error);
		hf_adopt_keep_drop(agent);
		return 0;
	}
	/* Not found at start, and whose it is shows only there. */
	if (r == 0) {
		hf_session_detach(s);
		r = hf_error_set(error, -EBUSY, HF_ERR_STATE, "start holdfastd anew",
			"a guest whose adoption did not get to its end is kept still");
	}
	hf_carrier_free(agent->kept);
	agent->kept = NULL;
	return r;
}

static int describe(struct hf_agent *agent, struct hf_manifest *m, struct hf_error *error)
{
	struct hf_manifest_guest *g = m->guests[0];
	char session[HF_SESSION_NAME_BYTES];
	struct utsname uts;

	uname(&uts);
	snprintf(m->update_id, sizeof(m->update_id), "%s", agent->update_id);
	snprintf(session, sizeof(session), "%s-%s", HF_MANIFEST_SESSION, g->uuid);
	for (size_t i = 0; i < g->n_ram; i++)
		g->ram[i].token = HF_TOKEN_RAM + i;
	for (size_t i = 0; i < g->n_state; i++)
		g->state[i].token = HF_TOKEN_STATE + i;
	if (hf_manifest_set(&m->writer, "holdfast " HF_VERSION) < 0 ||
		hf_manifest_set(&m->carrier, hf_carrier_name(agent->kept)) < 0 ||
		hf_manifest_set(&m->from_kernel, uts.release) < 0 ||
		hf_manifest_set(&g->session, session) < 0)
		return hf_error_set(error, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
	return 0;
}

static int write_manifest(const struct hf_manifest *m, int *ret_fd, struct hf_error *error)
{
	cleanup_close int fd = -EBADF;
	size_t size = 0;
	void *map;
	int r = hf_fault(HF_FAULT_ADOPT_MANIFEST, error);

	if (r < 0)
		return r;
	r = hf_memfd_new("holdfast:manifest", HF_MANIFEST_MAX_BYTES, &fd);
	if (r < 0)
		return hf_error_set(error, r, HF_ERR_FAILED, "free memory",
			"can't make the manifest's memfd: %s", strerror(-r));
	map = mmap(NULL, HF_MANIFEST_MAX_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return hf_error_set(error, -errno, HF_ERR_FAILED, NULL,
			"can't map the manifest: %s", strerror(errno));
	r = hf_manifest_encode(m, map, HF_MANIFEST_MAX_BYTES, &size, error);
	munmap(map, HF_MANIFEST_MAX_BYTES);
	if (r == 0 && ftruncate(fd, (off_t)size) < 0)
		r = hf_error_set(
			error, -errno, HF_ERR_FAILED, NULL, "manifest: %s", strerror(errno));
	if (r == 0)
		*ret_fd = TAKE_FD(fd);
	return r;
}

static int preserve_guest(struct hf_session *s, const struct hf_manifest_guest *g,
	const int *ram_fds, const int *state_fds, struct hf_error *error)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < g->n_ram; i++)
		r = hf_session_preserve(s, g->ram[i].token, ram_fds[i], error);
	for (size_t i = 0; r == 0 && i < g->n_state; i++)
		r = hf_session_preserve(s, g->state[i].token, state_fds[i], error);
	return r;
}

int hf_adopt_keep_guest(struct hf_agent *agent, struct hf_manifest *m, const int *ram_fds,
	const int *state_fds, struct hf_error *error)
{
	const struct hf_manifest_guest *g = m->guests[0];
	struct hf_session *files = NULL, *last = NULL;
	cleanup_close int fd = -EBADF;
	int r = describe(agent, m, error);

	if (r == 0)
		r = write_manifest(m, &fd, error);
	if (r == 0)
		r = hf_carrier_session_create(agent->kept, g->session, &files, error);
	if (r == 0)
		r = preserve_guest(files, g, ram_fds, state_fds, error);
	if (r == 0)
		r = hf_carrier_session_create(agent->kept, HF_MANIFEST_SESSION, &last, error);
	if (r == 0)
		r = hf_session_preserve(last, HF_MANIFEST_TOKEN, fd, error);
	if (r == 0)
		r = hf_fault(HF_FAULT_ADOPT_HAND_OVER, error);
	if (r == 0)
		r = hf_carrier_hand_over(agent->kept, HF_MANIFEST_SESSION, error);
	/* These are duplicates: the keeper has its own. */
	hf_session_discard(last);
	hf_session_discard(files);
	return r;
}

void hf_adopt_keep_drop(struct hf_agent *agent)
{
	if (agent->kept)
		hf_carrier_unkeep(agent->kept);
}

void hf_adopt_keep_end(struct hf_agent *agent)
{
	hf_adopt_keep_drop(agent);
	hf_carrier_free(agent->kept);
	agent->kept = NULL;
}
