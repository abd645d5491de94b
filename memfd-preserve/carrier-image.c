/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: The carrier that crosses any reboot: images on local storage.
 *
 * A session is a folder with images (image.h): the first has what was preserved when it was first
 * copied, the second what came later, such as room for device state that turned out too small.
 *
 *     outgoing/NAME/1.img          being made, or sealed
 *     incoming/NAME/1.img          handed over, for the next agent
 *     incoming/NAME.spent/1.img    its guest ran on from it: never again, whatever happens
 *     incoming/boot-id             of the kernel that it was handed over on
 *
 * Each step from one line to the next is one rename, on disk before the call returns: so after a
 * power failure at any moment it is known what may be brought up. All sessions are handed over at
 * once. Where incoming/ is of this very boot nobody has left the kernel: those guests are still in
 * their QEMUs, and nothing is brought up.
 *
 * A session that is not in incoming/ any more was finished.
 *
 * What is loaded goes to the keeper (keeper.h), so that an agent which comes after a dead one finds
 * the memory that a QEMU has by then; a session that is spent can be had from there alone.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fault.h"
#include "memfd-preserve/carrier-impl.h"
#include "memfd-preserve/durable.h"
#include "memfd-preserve/image.h"

#define OUTGOING "outgoing"
#define INCOMING "incoming"
#define BOOT_ID "boot-id"
#define SPENT ".spent"
#define MAX_IMAGES 2
#define UUID_LEN 36
#define ALL_TOKEN UINT64_MAX /* in the keeper: all the others of the session are there */

struct image_file {
	uint64_t token;
	int fd;
};

struct image_session {
	struct hf_session base;
	struct image_file *files;
	size_t n_files;
	/* outgoing */
	struct hf_image_save *saves[MAX_IMAGES];
	size_t n_saves;
	size_t n_in_saves; /* files that are in them */
	/* incoming */
	bool loaded;
	bool spent;
};

struct image_carrier {
	struct hf_carrier base;
	char *folder;
	uint8_t machine[HF_IMAGE_UUID_BYTES];
	uint8_t boot[HF_IMAGE_UUID_BYTES];
	bool has_keys, plaintext;
	struct hf_image_keys keys;
	struct hf_image_engine *engine; /* made when it is needed first, under the lock */
};

static struct image_carrier *to_carrier(struct hf_carrier *c)
{
	return (struct image_carrier *)c;
}

static struct image_session *to_session(struct hf_session *s)
{
	return (struct image_session *)s;
}

static int no_memory(struct hf_error *e)
{
	return hf_error_set(e, -ENOMEM, HF_ERR_FAILED, NULL, "out of memory");
}

/* ---- folders ---- */

static void path_in(
	const struct image_carrier *ic, const char *where, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/%s%s%s", ic->folder, where, name ? "/" : "", name ? name : "");
}

/* Of an incoming session. */
static void spent_path_in(const struct image_carrier *ic, const char *name, char *ret, size_t size)
{
	snprintf(ret, size, "%s/" INCOMING "/%s" SPENT, ic->folder, name);
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static int make_folder(const char *path, struct hf_error *e)
{
	return mkdir(path, 0700) < 0 && errno != EEXIST ? hf_durable_failed(e, -errno, "make", path)
							: 0;
}

/* ---- the engine ---- */

static int get_engine(struct image_carrier *ic, struct hf_image_engine **ret, struct hf_error *e)
{
	int r = 0;

	pthread_mutex_lock(&ic->base.lock);
	if (!ic->engine)
		r = hf_image_engine_new(&ic->engine, e);
	*ret = ic->engine;
	pthread_mutex_unlock(&ic->base.lock);
	return r;
}

static struct image_session *new_session(const char *name, bool incoming)
{
	struct image_session *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	snprintf(s->base.name, sizeof(s->base.name), "%s", name);
	s->base.incoming = incoming;
	return s;
}

static void close_files(struct image_session *s)
{
	while (s->n_files > 0)
		close(s->files[--s->n_files].fd);
	free(s->files);
	s->files = NULL;
}

static int add_file(struct image_session *s, uint64_t token, int fd, struct hf_error *e)
{
	struct image_file *more = reallocarray(s->files, s->n_files + 1, sizeof(*more));

	if (!more)
		return no_memory(e);
	s->files = more;
	more[s->n_files++] = (struct image_file){.token = token, .fd = fd};
	return 0;
}

/* Sessions of guests end in their uuid: whose image it is stands in the image, too. Else zero. */
static void guest_of(const char *session, uint8_t ret[HF_IMAGE_UUID_BYTES])
{
	size_t len = strlen(session);
	const char *p = len >= UUID_LEN ? session + len - UUID_LEN : "";
	unsigned int byte;
	int used = 0;

	for (size_t i = 0; i < HF_IMAGE_UUID_BYTES; i++) {
		p += *p == '-' && (i == 4 || i == 6 || i == 8 || i == 10);
		if (sscanf(p, "%2x%n", &byte, &used) != 1 || used != 2) {
			memset(ret, 0, HF_IMAGE_UUID_BYTES);
			return;
		}
		ret[i] = (uint8_t)byte;
		p += used;
	}
}

/* ---- on the way out ---- */

static int image_create(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(c);
	char folder[4224], path[4352];
	struct image_session *s;
	int r;

	path_in(ic, INCOMING, NULL, folder, sizeof(folder));
	if (exists(folder))
		return hf_error_set(e, -EBUSY, HF_ERR_BUSY,
			"bring them up, or release them: see `holdfast status`",
			"guests of an update before this one are still in images, in %s", folder);
	r = hf_mkdir_p(ic->folder, 0700);
	if (r < 0)
		return hf_durable_failed(e, r, "make", ic->folder);
	path_in(ic, OUTGOING, NULL, folder, sizeof(folder));
	r = make_folder(folder, e);
	path_in(ic, OUTGOING, name, path, sizeof(path));
	if (r == 0 && mkdir(path, 0700) < 0)
		r = hf_durable_failed(e, -errno, "make", path);
	if (r < 0)
		return r;
	s = new_session(name, false);
	if (!s) {
		rmdir(path);
		return no_memory(e);
	}
	*ret = &s->base;
	return 0;
}

static int image_preserve(struct hf_session *base, uint64_t token, int fd, struct hf_error *e)
{
	struct image_session *s = to_session(base);
	unsigned long long t = token;
	struct stat st;
	int copy, r;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return hf_error_set(e, -EOPNOTSUPP, HF_ERR_NOT_READY, "use memfd memory",
			"the file of token %llu of session %s is not memory", t, base->name);
	for (size_t i = 0; i < s->n_files; i++)
		if (s->files[i].token == token)
			return hf_error_set(e, -EEXIST, HF_ERR_FAILED, NULL,
				"token %llu is in use in session %s", t, base->name);
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return hf_error_set(e, -errno, HF_ERR_FAILED, NULL,
			"keeping token %llu of session %s: %m", t, base->name);
	r = add_file(s, token, copy, e);
	if (r < 0)
		close(copy);
	return r;
}

/* One more image, with the files that are in none. */
static int begin_image(struct image_session *s, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(s->base.carrier);
	size_t n = s->n_files - s->n_in_saves;
	cleanup_free struct hf_image_block *blocks = calloc(n + 1, sizeof(*blocks));
	char folder[4352], name[16];
	struct hf_image_save_config config = {
		.folder = folder,
		.name = name,
		.keys = ic->has_keys ? &ic->keys : NULL,
		.plaintext = ic->plaintext,
		.blocks = blocks,
		.n_blocks = n,
	};
	struct hf_image_engine *engine = NULL;
	struct stat st;
	int r;

	if (!blocks)
		return no_memory(e);
	for (size_t i = 0; i < n; i++) {
		const struct image_file *f = &s->files[s->n_in_saves + i];

		if (fstat(f->fd, &st) < 0)
			return hf_error_set(e, -errno, HF_ERR_FAILED, NULL, "its memory: %m");
		blocks[i] = (struct hf_image_block){.token = f->token,
			.size = (uint64_t)st.st_size,
			.huge = st.st_size >= 2 << 20,
			.fd = f->fd};
		snprintf(blocks[i].id, sizeof(blocks[i].id), "token %llu",
			(unsigned long long)f->token);
	}
	memcpy(config.machine, ic->machine, sizeof(config.machine));
	guest_of(s->base.name, config.guest);
	path_in(ic, OUTGOING, s->base.name, folder, sizeof(folder));
	snprintf(name, sizeof(name), "%zu.img", s->n_saves + 1);
	r = get_engine(ic, &engine, e);
	if (r == 0)
		r = hf_image_save_begin(engine, &config, &s->saves[s->n_saves], e);
	if (r < 0)
		return r;
	s->n_saves++;
	s->n_in_saves = s->n_files;
	return 0;
}

static int image_copy(struct hf_session *base, uint64_t *ret_changed, struct hf_error *e)
{
	struct image_session *s = to_session(base);
	struct hf_image_stats stats;
	int r = s->n_saves == 0 ? begin_image(s, e) : 0;

	if (r == 0)
		r = hf_image_save_pass(s->saves[0], false, NULL, e);
	if (r < 0)
		return r;
	hf_image_save_stats(s->saves[0], &stats);
	*ret_changed = stats.changed_chunks * stats.chunk_bytes;
	return 0;
}

static int image_seal(struct hf_session *base, struct hf_error *e)
{
	struct image_session *s = to_session(base);
	char folder[4352];
	int r = 0;

	if (s->n_in_saves < s->n_files || s->n_saves == 0) {
		if (s->n_saves == MAX_IMAGES)
			return hf_error_set(e, -EINVAL, HF_ERR_FAILED, NULL,
				"session %s is sealed already", base->name);
		r = begin_image(s, e);
	}
	for (size_t i = 0; r == 0 && i < s->n_saves; i++) {
		r = hf_image_save_pass(s->saves[i], true, NULL, e);
		if (r == 0)
			r = hf_image_save_commit(s->saves[i], e);
	}
	path_in(to_carrier(base->carrier), OUTGOING, base->name, folder, sizeof(folder));
	return r == 0 ? hf_durable_sync_folder(folder, e) : r;
}

static void image_discard(struct hf_session *base)
{
	struct image_carrier *ic = to_carrier(base->carrier);
	struct image_session *s = to_session(base);
	char path[4352];

	for (size_t i = 0; i < s->n_saves; i++)
		hf_image_save_abort(s->saves[i]);
	path_in(ic, OUTGOING, base->name, path, sizeof(path));
	hf_remove_tree(path, 0);
	/* With the last of them. */
	path_in(ic, OUTGOING, NULL, path, sizeof(path));
	rmdir(path);
	close_files(s);
}

/* Written as text, for people. */
static void boot_text(const struct image_carrier *ic, char ret[2 * HF_IMAGE_UUID_BYTES + 1])
{
	for (size_t i = 0; i < HF_IMAGE_UUID_BYTES; i++)
		snprintf(ret + 2 * i, 3, "%02x", ic->boot[i]);
}

static bool same_boot_matters(const struct image_carrier *ic)
{
	static const uint8_t none[HF_IMAGE_UUID_BYTES];

	return memcmp(ic->boot, none, sizeof(none)) != 0;
}

static int image_take_back(struct hf_carrier *c, const char *last, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(c);
	char from[4224], to[4224], path[4352];
	int r;

	path_in(ic, INCOMING, NULL, from, sizeof(from));
	path_in(ic, OUTGOING, NULL, to, sizeof(to));
	r = exists(from) ? hf_durable_rename(ic->folder, from, to, e) : 0;
	path_in(ic, OUTGOING, BOOT_ID, path, sizeof(path));
	if (r == 0)
		unlink(path);
	return r;
}

static int image_hand_over(struct hf_carrier *c, const char *last, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(c);
	char from[4224], to[4224], path[4352], text[2 * HF_IMAGE_UUID_BYTES + 1];
	struct hf_error ignored = {0};
	int r;

	path_in(ic, OUTGOING, last, path, sizeof(path));
	if (!exists(path))
		return hf_error_set(
			e, -ENOENT, HF_ERR_FAILED, NULL, "there is no session %s", last);
	path_in(ic, OUTGOING, BOOT_ID, path, sizeof(path));
	boot_text(ic, text);
	r = same_boot_matters(ic) ? hf_file_write_atomic(path, text, strlen(text), 0600) : 0;
	if (r < 0)
		return hf_durable_failed(e, r, "write", path);
	path_in(ic, OUTGOING, NULL, from, sizeof(from));
	path_in(ic, INCOMING, NULL, to, sizeof(to));
	r = hf_durable_sync_folder(from, e);
	if (r == 0)
		r = hf_fault(HF_FAULT_HAND_OVER_LAST, e);
	if (r == 0)
		r = hf_durable_rename(ic->folder, from, to, e);
	if (r < 0)
		image_take_back(c, last, &ignored);
	return r;
}

/* ---- on the way in ---- */

static bool is_of_this_boot(const struct image_carrier *ic)
{
	char path[4352], text[2 * HF_IMAGE_UUID_BYTES + 1];
	cleanup_free char *written = NULL;

	path_in(ic, INCOMING, BOOT_ID, path, sizeof(path));
	boot_text(ic, text);
	return same_boot_matters(ic) && hf_file_read(path, 64, &written, NULL) == 0 &&
	       strcmp(written, text) == 0;
}

/* Is anything in incoming/ besides the boot id, and what could not be removed? */
static bool has_sessions(const struct image_carrier *ic)
{
	bool found = false;
	char path[4352];
	DIR *dir;

	path_in(ic, INCOMING, NULL, path, sizeof(path));
	dir = opendir(path);
	for (struct dirent *d; dir && !found && (d = readdir(dir));)
		found = d->d_name[0] != '.' && strcmp(d->d_name, BOOT_ID) != 0;
	if (dir)
		closedir(dir);
	return found;
}

/* Return: 0; -ENOENT when there is no such image. */
static int load_image(struct image_session *s, size_t number, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(s->base.carrier);
	uint8_t guest[HF_IMAGE_UUID_BYTES];
	char folder[4352], name[16];
	struct hf_image_load_config config = {
		.folder = folder,
		.name = name,
		.guest = guest,
		.keys = ic->has_keys ? &ic->keys : NULL,
		/* Where there is a key all are encrypted: one that isn't was put there. */
		.plaintext = !ic->has_keys,
	};
	struct hf_image_loaded loaded = {0};
	struct hf_image_engine *engine = NULL;
	int r;

	memcpy(config.machine, ic->machine, sizeof(config.machine));
	guest_of(s->base.name, guest);
	path_in(ic, INCOMING, s->base.name, folder, sizeof(folder));
	snprintf(name, sizeof(name), "%zu.img", number);
	r = get_engine(ic, &engine, e);
	if (r == 0)
		r = hf_image_load(engine, &config, NULL, &loaded, e);
	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < loaded.n_blocks; i++) {
		r = add_file(s, loaded.blocks[i].token, loaded.blocks[i].fd, e);
		if (r == 0)
			loaded.blocks[i].fd = -EBADF;
	}
	hf_image_loaded_release(&loaded);
	return r;
}

/* Did an agent that died have all of a session in memory already? */
static bool is_kept(struct hf_carrier *c, const char *name)
{
	int fd = -EBADF, r;

	r = c->keeper ? hf_keeper_get(c->keeper, name, ALL_TOKEN, &fd) : -ENOENT;
	hf_close(&fd);
	return r == 0;
}

/* An agent after this one is to find the memory that a QEMU may have by then. */
static int keep_files(struct image_session *s, struct hf_error *e)
{
	struct hf_keeper *keeper = s->base.carrier->keeper;
	cleanup_close int mark = -EBADF;
	int r;

	if (!keeper)
		return 0;
	/* Of an agent that died in the middle of this: nobody got any of it. */
	hf_keeper_drop(keeper, s->base.name);
	r = hf_memfd_new("holdfast:all", 0, &mark);
	for (size_t i = 0; r == 0 && i < s->n_files; i++)
		r = hf_keeper_put(keeper, s->base.name, s->files[i].token, s->files[i].fd);
	if (r == 0)
		r = hf_keeper_put(keeper, s->base.name, ALL_TOKEN, mark);
	if (r < 0)
		return hf_error_set(e, r, HF_ERR_FAILED, NULL,
			"the keeper doesn't take what was loaded of session %s: %s", s->base.name,
			strerror(-r));
	close_files(s);
	return 0;
}

static int load_all(struct image_session *s, struct hf_error *e)
{
	int r = load_image(s, 1, e);

	if (r == 0 && load_image(s, 2, e) < 0) {
		r = e->err == -ENOENT ? 0 : e->err;
		if (r == 0)
			hf_error_clear(e);
	}
	if (r == 0)
		r = keep_files(s, e);
	if (r < 0)
		close_files(s);
	return r;
}

static int image_retrieve(
	struct hf_carrier *c, const char *name, struct hf_session **ret, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(c);
	char path[4352], spent[4400];
	struct image_session *s;
	bool there;

	if (!has_sessions(ic) || is_of_this_boot(ic))
		return hf_error_set(
			e, -ENOENT, HF_ERR_FAILED, NULL, "no session %s was handed over", name);
	path_in(ic, INCOMING, name, path, sizeof(path));
	spent_path_in(ic, name, spent, sizeof(spent));
	there = exists(path);
	if (!there && !exists(spent))
		return hf_error_set(
			e, -EALREADY, HF_ERR_FAILED, NULL, "session %s was finished before", name);
	if (!there && !is_kept(c, name))
		return hf_error_set(e, -EALREADY, HF_ERR_FAILED, NULL,
			"what runs of session %s ran on from it, until that kernel ended", name);
	s = new_session(name, true);
	if (!s)
		return no_memory(e);
	s->spent = !there;
	s->loaded = is_kept(c, name);
	*ret = &s->base;
	return 0;
}

static int image_get(struct hf_session *base, uint64_t token, int *ret_fd, struct hf_error *e)
{
	struct image_session *s = to_session(base);
	struct hf_keeper *keeper = base->carrier->keeper;
	int r = s->loaded ? 0 : load_all(s, e);

	if (r < 0)
		return r;
	s->loaded = true;
	r = keeper ? hf_keeper_get(keeper, base->name, token, ret_fd) : -ENOENT;
	for (size_t i = 0; r == -ENOENT && i < s->n_files; i++) {
		if (s->files[i].token == token) {
			*ret_fd = fcntl(s->files[i].fd, F_DUPFD_CLOEXEC, 3);
			r = *ret_fd < 0 ? -errno : 0;
		}
	}
	return r < 0 ? hf_error_set(e, r, HF_ERR_FAILED, NULL, "token %llu of session %s: %s",
			       (unsigned long long)token, base->name, strerror(-r))
		     : 0;
}

static int image_spend(struct hf_session *base, struct hf_error *e)
{
	struct image_carrier *ic = to_carrier(base->carrier);
	struct image_session *s = to_session(base);
	char folder[4224], path[4352], spent[4400];
	int r;

	if (s->spent)
		return 0;
	path_in(ic, INCOMING, NULL, folder, sizeof(folder));
	path_in(ic, INCOMING, base->name, path, sizeof(path));
	spent_path_in(ic, base->name, spent, sizeof(spent));
	r = hf_durable_rename(folder, path, spent, e);
	s->spent = r == 0;
	return r;
}

static int image_finish(struct hf_session *base, struct hf_error *e)
{
	struct hf_carrier *c = base->carrier;
	struct image_carrier *ic = to_carrier(c);
	struct image_session *s = to_session(base);
	char folder[4224], path[4400];
	int r;

	path_in(ic, INCOMING, NULL, folder, sizeof(folder));
	r = image_spend(base, e);
	if (r < 0)
		return r;
	spent_path_in(ic, base->name, path, sizeof(path));
	r = hf_remove_tree(path, 0);
	if (r < 0)
		return hf_durable_failed(e, r, "remove", path);
	if (c->keeper)
		hf_keeper_drop(c->keeper, base->name);
	close_files(s);
	return hf_durable_sync_folder(folder, e);
}

/* Images that are complete stay, and so does memory that only this process has. */
static void image_detach(struct hf_session *base)
{
	struct image_session *s = to_session(base);

	for (size_t i = 0; i < s->n_saves; i++)
		hf_image_save_close(s->saves[i]);
	if (!base->incoming)
		close_files(s);
	free(s->files);
}

static int image_fd(const struct hf_session *s)
{
	return -EBADF;
}

/* ---- the carrier ---- */

static int image_keep(
	struct hf_carrier *c, const char *socket_path, bool *ret_found, struct hf_error *e)
{
	*ret_found = false;
	if (!has_sessions(to_carrier(c)) || is_of_this_boot(to_carrier(c)))
		return 0;
	return hf_keeper_open(socket_path, "", NULL, &c->keeper, ret_found, e);
}

/* What a dead agent had half made, and what is left of an arrival that is over. */
static void image_unkeep(struct hf_carrier *c)
{
	struct image_carrier *ic = to_carrier(c);
	char path[4352];

	path_in(ic, OUTGOING, NULL, path, sizeof(path));
	hf_remove_tree(path, 1);
	path_in(ic, INCOMING, NULL, path, sizeof(path));
	if (!has_sessions(ic))
		hf_remove_tree(path, 1);
	hf_image_engine_free(TAKE_PTR(ic->engine));
	if (c->keeper)
		hf_keeper_clear(c->keeper);
	hf_keeper_close(TAKE_PTR(c->keeper));
}

static void image_free(struct hf_carrier *c)
{
	struct image_carrier *ic = to_carrier(c);

	hf_image_engine_free(ic->engine);
	free(ic->folder);
	free(ic);
}

static const struct hf_carrier_ops image_ops = {
	.kind = HF_CARRIER_IMAGE,
	.name = "image",
	.create = image_create,
	.retrieve = image_retrieve,
	.preserve = image_preserve,
	.copy = image_copy,
	.seal = image_seal,
	.get = image_get,
	.spend = image_spend,
	.finish = image_finish,
	.discard = image_discard,
	.detach = image_detach,
	.fd = image_fd,
	.keep = image_keep,
	.unkeep = image_unkeep,
	.hand_over = image_hand_over,
	.take_back = image_take_back,
	.free = image_free,
};

void hf_carrier_image_plaintext(struct hf_carrier *c, bool allowed)
{
	to_carrier(c)->plaintext = allowed;
}

int hf_carrier_image_new(const struct hf_carrier_image_config *config,
	struct hf_carrier **ret_carrier, struct hf_error *e)
{
	struct image_carrier *ic = calloc(1, sizeof(*ic));

	if (ic)
		ic->folder = strdup(config->folder);
	if (!ic || !ic->folder) {
		free(ic);
		return no_memory(e);
	}
	ic->base.ops = &image_ops;
	memcpy(ic->machine, config->machine, sizeof(ic->machine));
	memcpy(ic->boot, config->boot, sizeof(ic->boot));
	ic->has_keys = config->keys;
	if (config->keys)
		ic->keys = *config->keys;
	pthread_mutex_init(&ic->base.lock, NULL);
	*ret_carrier = &ic->base;
	return 0;
}
