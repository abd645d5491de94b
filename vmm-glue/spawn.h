/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: Start a VMM as it was started before: same user, folder, environment, descriptors.
 *
 * The new process must not notice that the agent and not the operator started it: everything that
 * a process inherits is either restored from the registration (user, groups, umask, folder,
 * environment, standard streams), or as the one before it had it (limits, niceness, CPUs, OOM
 * score: limits.h), or reset (signals, descriptors, session). What is left is the agent's: cgroup,
 * scheduling policy.
 *
 * A process is held by a pidfd from its birth: there is no moment at which its pid could mean
 * another process, and its end is an event of the loop. No SIGCHLD handler is needed. A child that
 * was let go of is still waited for by the loop, so that it leaves no zombie.
 *
 * A process can't leave the sandbox of the one that starts it. An agent in a sandbox therefore has
 * a spawner outside of it start them (spawner.h); nothing else is different then.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "memfd-preserve/manifest.h"

/** struct hf_spawn_fd - a descriptor that the new process gets under a number. */
struct hf_spawn_fd {
	int fd;	    /* here; borrowed */
	int number; /* there; 3 or more */
};

/** struct hf_spawn_spec - what to start. Everything is borrowed for the call. */
struct hf_spawn_spec {
	const char *program; /* path, or a name to look for in @envp's PATH */
	char *const *argv;   /* NULL-terminated */
	char *const *envp;   /* NULL-terminated, the whole environment */
	const char *cwd;     /* NULL or "": the root folder */
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* supplementary groups */
	size_t n_groups;
	mode_t umask;
	const struct hf_manifest_limits *limits; /* NULL: as here */
	const char *apparmor; /* profile to be confined by, which is loaded; NULL: as here */
	const struct hf_spawn_fd *fds; /* numbers ascending from 3; all others are closed there */
	size_t n_fds;
	const char *stdio[3]; /* path to open again for fd 0, 1, 2; NULL or "": none known */
	const char *log_path; /* takes fd 1 and 2 where no path is known or it can't be opened */
	int output_fd;	      /* the same, in the place of log_path; borrowed; 0: none */
};

/** hf_spawn_spec_of() - A guest's VMM program, environment, folder and credentials, all borrowed.
 */
struct hf_spawn_spec hf_spawn_spec_of(const struct hf_manifest_guest *guest);

/**
 * hf_spawn_find() - The file that hf_spawn() would execute.
 *
 * Return: 0; -ENOENT or -EACCES when there is none in PATH; -ENAMETOOLONG. A name with a slash is
 * not looked for: executing it says whether it is there.
 */
int hf_spawn_find(const struct hf_spawn_spec *spec, char *ret, size_t size);

struct hf_child;

/** Called once from the loop when the process has ended. */
typedef void (*hf_child_exit_fn)(struct hf_child *child, void *data);

/**
 * hf_spawn() - Start a process.
 * @on_exit: may be NULL
 *
 * Blocks until the new process has executed its program, so a program that can't be executed is an
 * error here. The standard streams are opened with the rights of the new process's user, and for
 * appending. Return: 0 or -errno, @error filled.
 */
int hf_spawn(sd_event *event, const struct hf_spawn_spec *spec, hf_child_exit_fn on_exit,
	void *data, struct hf_child **ret, struct hf_error *error);

/**
 * hf_spawn_use_spawner() - From now on have processes started by the spawner at a socket.
 * @path: borrowed for good; NULL: by this process itself, as in the beginning
 */
void hf_spawn_use_spawner(const char *path);

/** hf_spawn_spawner() - Its path, or NULL. */
const char *hf_spawn_spawner(void);

/**
 * hf_child_missed() - What of spec->limits it could not be given, and why; "" when it has them all.
 *
 * For a person, for example `RLIMIT_NOFILE, oom_score_adj: Operation not permitted`.
 */
void hf_child_missed(const struct hf_child *child, char *buf, size_t size);

/**
 * hf_child_watch() - Hold a process that somebody else started.
 * @start_ticks: -ESTALE when the pid belongs to another process now
 */
int hf_child_watch(sd_event *event, pid_t pid, uint64_t start_ticks, hf_child_exit_fn on_exit,
	void *data, struct hf_child **ret);

/**
 * hf_child_release() - Let go of a process; it lives on. NULL is fine.
 *
 * One that this process started is still reaped by the loop when it ends.
 */
void hf_child_release(struct hf_child *child);

/** hf_child_pid() - Its pid, also when it has ended: it may be another process's by then. */
pid_t hf_child_pid(const struct hf_child *child);

/** hf_child_exited() - Has it ended? */
bool hf_child_exited(const struct hf_child *child);

/** hf_child_succeeded() - Has it ended, with status 0? Only known of one that was started here. */
bool hf_child_succeeded(const struct hf_child *child);

/** hf_child_status() - The status it ended with; -1: not known, or killed by a signal. */
int hf_child_status(const struct hf_child *child);

/** hf_child_kill() - SIGKILL, never to another process. Return: 0 (also when it is gone), -errno.
 */
int hf_child_kill(struct hf_child *child);

/**
 * hf_child_kill_group() - The same of its process group, which every process of hf_spawn() leads.
 */
int hf_child_kill_group(struct hf_child *child);

/**
 * hf_child_describe() - How it ended and the last it said on stderr, for a person.
 *
 * For example `ended with status 1: qemu-system-x86_64: -m 3x: invalid size`. What it said is only
 * known when stderr is a regular file.
 */
void hf_child_describe(const struct hf_child *child, char *buf, size_t size);
