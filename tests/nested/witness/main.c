// SPDX-License-Identifier: Apache-2.0
/**
 * DOC: Start of the witness, and its reporter
 *
 * As PID 1: mounts what it needs, reads the kernel command line, starts the watches, reports for
 * ever. It never returns, whatever happens: the end of PID 1 would be a kernel panic that hides
 * the report. With --host-test it is an ordinary process that takes the same words as arguments,
 * prints where its memory is (for the self-test to damage it) and ends on SIGTERM.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "witness.h"

static struct witness witness = {
	.disk.fd = -EBADF,
	.net.listen_fd = -EBADF,
};

/* The lines of report.c take a lock, which the crashed thread may hold: speak directly. */
static void on_crash(int sig)
{
	static const char text[] = "\nWITNESS-FAIL v=1 kind=self cause=crash\n";
	ssize_t n = write(STDOUT_FILENO, text, sizeof(text) - 1);

	(void)n;
	if (witness.cfg.host_test)
		_exit(128 + sig);
	for (;;)
		pause();
}

static void catch_crashes(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
	struct sigaction sa = {.sa_handler = on_crash};

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaction(signals[i], &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static void mount_all(void)
{
	static const char *const fs[][2] = {
		{"/dev", "devtmpfs"},
		{"/proc", "proc"},
		{"/sys", "sysfs"},
	};
	int fd;

	for (size_t i = 0; i < sizeof(fs) / sizeof(fs[0]); i++) {
		mkdir(fs[i][0], 0755);
		mount(fs[i][1], fs[i][0], fs[i][1], 0, NULL);
	}
	/* The kernel gave /dev/console if it could; open it again if it couldn't. */
	fd = open("/dev/console", O_RDWR | O_NOCTTY);
	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		dup2(fd, i);
	if (fd > 2)
		close(fd);
}

/* Every page that the kernel keeps back is one that the witness can't watch. */
static void tune_memory(void)
{
	write_text("/proc/sys/vm/min_free_kbytes", "512");
	write_text("/proc/sys/vm/overcommit_memory", "1");
}

static int configure(struct witness *w, int argc, char **argv)
{
	char line[4096];
	int r;

	config_defaults(&w->cfg);
	if (argc > 1 && !strcmp(argv[1], "--host-test")) {
		w->cfg.host_test = true;
		for (int i = 2; i < argc; i++) {
			r = strncmp(argv[i], "hf.", 3) ? -EINVAL
						       : config_parse_word(&w->cfg, argv[i]);
			if (r < 0)
				return r;
		}
		return 0;
	}
	r = read_text("/proc/cmdline", line, sizeof(line));
	return r < 0 ? r : config_parse_line(&w->cfg, line);
}

/* Different in every boot; needs no entropy, which a young guest may have to wait for. */
static uint64_t boot_id_make(void)
{
	char text[64] = "";
	uint64_t id = mix64(time_ns(CLOCK_REALTIME)) ^ mix64(time_ns(CLOCK_MONOTONIC) + 1);

	read_text("/proc/sys/kernel/random/boot_id", text, sizeof(text));
	for (const char *p = text; *p; p++)
		id = mix64(id ^ (unsigned char)*p);
	return mix64(id ^ (uint64_t)getpid());
}

static int start_all(struct witness *w)
{
	int r;

	r = clock_start(w);
	if (!r && w->cfg.disk[0])
		r = disk_start(w);
	if (!r && w->cfg.net)
		r = net_start(w);
	if (!r)
		r = mem_start(w);
	return r;
}

static void print_debug(struct witness *w)
{
	report_line("WITNESS-DEBUG",
		"pid=%d port=%llu mem=0x%llx bytes=%llu table=0x%llx cursor=0x%llx", getpid(),
		(unsigned long long)w->cfg.port, (unsigned long long)(uintptr_t)w->mem.base,
		(unsigned long long)w->mem.bytes, (unsigned long long)(uintptr_t)w->mem.generation,
		(unsigned long long)(uintptr_t)&w->mem.parts[0].cursor);
}

static bool all_ready(struct witness *w)
{
	return mem_ready(w) && atomic_load(&w->clock.calibrated) &&
	       (!w->cfg.disk[0] || atomic_load(&w->disk.checked) > 0);
}

static void report_for_ever(struct witness *w)
{
	uint64_t next = time_ns(CLOCK_MONOTONIC);

	for (;;) {
		next += w->cfg.report_ms * NSEC_PER_MSEC;
		while (time_ns(CLOCK_MONOTONIC) < next) {
			if (!atomic_load(&w->ready) && all_ready(w) && !report_fail_count(w)) {
				/* What the clocks did while the kernel booted is nobody's concern.
				 */
				atomic_store(&w->clock.reset, true);
				clock_read_rtc(w, true);
				atomic_store(&w->ready, true);
				report_ready(w);
			}
			sleep_ns(20 * NSEC_PER_MSEC);
		}
		/* Lines missed in a long pause are not made up for. */
		if (time_ns(CLOCK_MONOTONIC) > next + NSEC_PER_SEC)
			next = time_ns(CLOCK_MONOTONIC);
		if (atomic_load(&w->ready))
			clock_read_rtc(w, false);
		report_status(w);
	}
}

int main(int argc, char **argv)
{
	struct witness *w = &witness;
	int r;

	if (getpid() == 1)
		mount_all();
	catch_crashes();
	r = configure(w, argc, argv);
	w->boot_id = boot_id_make();
	report_init(w);
	report_line("WITNESS-BOOT", "seed=%llu ram_mib=%llu", (unsigned long long)w->cfg.seed,
		(unsigned long long)w->cfg.ram_mib);
	if (r < 0) {
		report_fail(w, WATCH_SELF, "cause=options errno=%d", -r);
	} else {
		if (getpid() == 1)
			tune_memory();
		r = start_all(w);
	}
	if (r < 0 && w->cfg.host_test)
		return 2;
	if (w->cfg.host_test)
		print_debug(w);
	report_for_ever(w);
}
