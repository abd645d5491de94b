/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DOC: PID 1 of the nested test host
 *
 * Reads the TSC as its first act, so that the time from one kernel's last act to the next kernel's
 * first process can be told; makes the file systems and the bridge; starts holdfastd; then runs
 * commands for the test that come in on the second serial port.
 *
 * As `hf-systemd` it only does the first of that, and becomes systemd, which then has everything
 * else done by units of its own; hf-control.service among them is this program, too, with the
 * argument `control`: it makes the bridge and serves the test.
 *
 * All of it is one static program, because every exec costs tens of milliseconds on an emulated CPU
 * and what runs before holdfastd adds to the blackout of the guests.
 *
 * The control channel (ttyS1), both ways in plain bytes:
 *
 *   to the test    \n\x1e@hf-boot TSC MONOTONIC_NS RELEASE\n once, at start: drop what came before
 *                  @out ID LENGTH\n BYTES                    output of a command
 *                  @end ID STATUS\n                          it ended; 128+N for signal N
 *   from the test  run ID COMMAND\n                          for /bin/sh -c
 *                  kill ID\n                                 SIGKILL to its process group
 *
 * Several commands may run at once. IDs are the test's own numbers. A line is at most 3000 bytes,
 * because the terminal layer holds 4095.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define JOBS_MAX 16
#define LINE_MAX_BYTES 4096
#define MAX_KILLS 16

struct job {
	unsigned long id;
	pid_t pid; /* 0: this slot is free */
	int out;
};

static struct job jobs[JOBS_MAX];
static int control = -EBADF;

static void complain(const char *what)
{
	dprintf(STDERR_FILENO, "hf-init: %s: %s\n", what, strerror(errno));
}

static void write_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return;
		}
		p += n;
		size -= n;
	}
}

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	if (n > 0 && (size_t)n < sizeof(line))
		write_all(control, line, n);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0) {
		complain(path);
		return;
	}
	if (write(fd, text, strlen(text)) < 0)
		complain(path);
	close(fd);
}

static void mount_all(void)
{
	static const struct {
		const char *type, *path, *options;
		unsigned long flags;
	} table[] = {
		{"proc", "/proc", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV},
		{"sysfs", "/sys", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV},
		{"devtmpfs", "/dev", "mode=755", MS_NOSUID},
		{"devpts", "/dev/pts", "mode=620,ptmxmode=666", MS_NOSUID | MS_NOEXEC},
		{"tmpfs", "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV},
		{"tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV},
		{"debugfs", "/sys/kernel/debug", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV},
		{"cgroup2", "/sys/fs/cgroup", NULL, MS_NOSUID | MS_NOEXEC | MS_NODEV},
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		mkdir(table[i].path, 0755);
		/* The kernel has mounted devtmpfs itself already. */
		if (mount(table[i].type, table[i].path, table[i].type, table[i].flags,
			    table[i].options) < 0 &&
			errno != EBUSY)
			complain(table[i].path);
	}
}

static void set_address(int sock, const char *interface, const char *address)
{
	struct ifreq ifr = {};
	struct sockaddr_in *in = (struct sockaddr_in *)&ifr.ifr_addr;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
	in->sin_family = AF_INET;
	inet_pton(AF_INET, address, &in->sin_addr);
	if (ioctl(sock, SIOCSIFADDR, &ifr) < 0)
		complain("address");
	inet_pton(AF_INET, "255.255.255.0", &in->sin_addr);
	if (ioctl(sock, SIOCSIFNETMASK, &ifr) < 0)
		complain("netmask");
}

static void set_up(int sock, const char *interface)
{
	struct ifreq ifr = {};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
	if (ioctl(sock, SIOCGIFFLAGS, &ifr) < 0) {
		complain(interface);
		return;
	}
	ifr.ifr_flags |= IFF_UP;
	if (ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
		complain(interface);
}

/* br0 holds the NIC, for the guests' taps to join: the outside reaches guests by their addresses.
 */
static void make_bridge(void)
{
	struct ifreq ifr = {};
	int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (sock < 0) {
		complain("socket");
		return;
	}
	set_up(sock, "lo");
	if (ioctl(sock, SIOCBRADDBR, "br0") < 0)
		complain("br0");
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "br0");
	ifr.ifr_ifindex = (int)if_nametoindex("eth0");
	if (ioctl(sock, SIOCBRADDIF, &ifr) < 0)
		complain("eth0 into br0");
	set_up(sock, "eth0");
	set_address(sock, "br0", "10.0.2.15");
	set_up(sock, "br0");
	close(sock);
}

/* A child has default signals and a session of its own, and none of our descriptors. */
static pid_t start(char *const argv[], int out)
{
	pid_t pid = fork();

	if (pid == 0) {
		sigset_t none;
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		dup2(null, STDIN_FILENO);
		dup2(out, STDOUT_FILENO);
		dup2(out, STDERR_FILENO);
		execv(argv[0], argv);
		complain(argv[0]);
		_exit(127);
	}
	if (pid < 0)
		complain("fork");
	return pid;
}

/* The agent, and when it is to be killed and started again: milliseconds after each start. */
static struct {
	char *argv[3];
	pid_t pid;
	unsigned long kills[MAX_KILLS];
	size_t n_kills, next_kill;
	int64_t due_ms; /* CLOCK_MONOTONIC; 0: never */
} agent = {.argv = {"/usr/sbin/holdfastd"}};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void run_agent(void)
{
	int fd = open("/var/log/holdfastd.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0) {
		complain("/var/log/holdfastd.log");
		return;
	}
	agent.pid = start(agent.argv, fd);
	close(fd);
	agent.due_ms = 0;
	if (agent.next_kill < agent.n_kills)
		agent.due_ms = now_ms() + (int64_t)agent.kills[agent.next_kill++];
}

/* /run/hf-kills has one byte for each time; who finds it there hears nothing of that agent any
 * more. */
static void kill_agent(void)
{
	int fd = open("/run/hf-kills", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	kill(agent.pid, SIGKILL);
	while (waitpid(agent.pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (fd < 0 || write(fd, "x", 1) != 1)
		complain("/run/hf-kills");
	close(fd);
	run_agent();
}

/* The word of the kernel's command line that begins so, without that; or NULL. */
static char *word_of(char *cmdline, const char *beginning)
{
	char *word = strstr(cmdline, beginning);

	if (!word)
		return NULL;
	word = strndup(word + strlen(beginning), strcspn(word + strlen(beginning), " \n"));
	return word;
}

/*
 * Not when the kernel's command line has hf.agent=no: the test then starts it itself.
 * hf.agent-args=WORD is an argument for it. hf.kill-agent=MS,MS… kills it so long after its start,
 * and starts it again.
 */
static void start_agent(void)
{
	char cmdline[4096] = "", *kills;
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, cmdline, sizeof(cmdline) - 1);

	close(fd);
	if (n < 0 || strstr(cmdline, "hf.agent=no") || access(agent.argv[0], X_OK) < 0)
		return;
	agent.argv[1] = word_of(cmdline, " hf.agent-args=");
	kills = word_of(cmdline, " hf.kill-agent=");
	for (char *p = kills; p && *p && agent.n_kills < MAX_KILLS; p += *p == ',')
		agent.kills[agent.n_kills++] = strtoul(p, &p, 10);
	free(kills);
	run_agent();
}

static void open_control(void)
{
	struct termios t;

	control = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (control < 0 || tcgetattr(control, &t) < 0) {
		complain("/dev/ttyS1");
		return;
	}
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&t, B115200);
	if (tcsetattr(control, TCSANOW, &t) < 0)
		complain("/dev/ttyS1");
}

static void run_command(unsigned long id, char *command)
{
	char *argv[] = {"/bin/sh", "-c", command, NULL};
	int fds[2];

	for (size_t i = 0; i < JOBS_MAX; i++) {
		if (jobs[i].pid > 0)
			continue;
		if (pipe2(fds, O_CLOEXEC) < 0)
			break;
		jobs[i] = (struct job){.id = id, .out = fds[0], .pid = start(argv, fds[1])};
		close(fds[1]);
		fcntl(fds[0], F_SETFL, O_NONBLOCK);
		if (jobs[i].pid > 0)
			return;
		close(fds[0]);
		jobs[i].pid = 0;
		break;
	}
	tell("@end %lu 126\n", id);
}

static void take_line(char *line)
{
	unsigned long id;
	int at = 0;

	if (sscanf(line, "run %lu %n", &id, &at) == 1 && at > 0) {
		run_command(id, line + at);
	} else if (sscanf(line, "kill %lu", &id) == 1) {
		for (size_t i = 0; i < JOBS_MAX; i++) {
			if (jobs[i].pid > 0 && jobs[i].id == id)
				kill(-jobs[i].pid, SIGKILL);
		}
	} else {
		dprintf(STDERR_FILENO, "hf-init: not a command: %s\n", line);
	}
}

static void read_control(void)
{
	static char line[LINE_MAX_BYTES];
	static size_t used;
	char *end;
	ssize_t n = read(control, line + used, sizeof(line) - 1 - used);

	if (n <= 0)
		return;
	used += n;
	line[used] = '\0';
	while ((end = memchr(line, '\n', used))) {
		size_t taken = end + 1 - line;

		*end = '\0';
		take_line(line);
		memmove(line, line + taken, used - taken);
		used -= taken;
	}
	if (used == sizeof(line) - 1)
		used = 0;
}

/* Returns false at the end of the output, or when there is none now. */
static bool forward_output(struct job *job)
{
	char buffer[2048];
	ssize_t n = read(job->out, buffer, sizeof(buffer));

	if (n == 0) {
		/* The pipe ended before the process did; don't be woken for it again. */
		close(job->out);
		job->out = -EBADF;
	}
	if (n <= 0)
		return false;
	tell("@out %lu %zd\n", job->id, n);
	write_all(control, buffer, n);
	return true;
}

/* A command has ended when its shell has, whatever it left in the background. */
static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (size_t i = 0; i < JOBS_MAX; i++) {
			struct job *job = &jobs[i];

			if (job->pid != pid)
				continue;
			while (job->out >= 0 && forward_output(job))
				;
			if (job->out >= 0)
				close(job->out);
			job->pid = 0;
			tell("@end %lu %d\n", job->id,
				WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
			break;
		}
	}
}

/* For poll(). */
static int until_kill(void)
{
	int64_t left = agent.due_ms - now_ms();

	return agent.due_ms == 0 ? -1 : left < 0 ? 0 : (int)left + 1;
}

static void serve(int signals)
{
	struct signalfd_siginfo info;

	for (;;) {
		struct pollfd fds[2 + JOBS_MAX] = {
			{.fd = control, .events = POLLIN},
			{.fd = signals, .events = POLLIN},
		};

		for (size_t i = 0; i < JOBS_MAX; i++) {
			fds[2 + i].fd = jobs[i].pid > 0 ? jobs[i].out : -1;
			fds[2 + i].events = POLLIN;
		}
		if (poll(fds, 2 + JOBS_MAX, until_kill()) < 0)
			continue;
		if (agent.due_ms > 0 && now_ms() >= agent.due_ms)
			kill_agent();
		for (size_t i = 0; i < JOBS_MAX; i++) {
			if (fds[2 + i].revents)
				forward_output(&jobs[i]);
		}
		if (fds[1].revents && read(signals, &info, sizeof(info)) > 0)
			reap();
		if (fds[0].revents)
			read_control();
	}
}

/*
 * Keep every process off the first CPU, so that no guest ever runs there. QEMU's emulation of x87
 * state (fldenv, frstor, fxrstor, xrstor; cpu_clear_ignne() in target/i386) updates a field of the
 * *first* CPU from whatever CPU runs the instruction, not atomically. The same field says whether
 * that CPU is in a guest, with nested paging and interrupts on. So a context switch on one CPU
 * could put the first one half into or out of a guest: memory of the host or of a guest got
 * overwritten, interrupts got lost. A first CPU that never enters a guest writes the same value all
 * the time.
 */
static void leave_first_cpu(void)
{
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0) {
		complain("CPU affinity");
		return;
	}
	CPU_CLR(0, &cpus);
	if (CPU_COUNT(&cpus) > 0 && sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
		complain("CPU affinity");
}

/* How the first process came to be: what the test is told of it. */
struct beginning {
	unsigned long long tsc;
	long long mono_ns;
};

#define BEGINNING_ENV "HF_BEGINNING"

/* systemd keeps our environment, and gives it to nobody. Whatever it starts stays off the first
 * CPU, too. */
static void become_systemd(const struct beginning *b)
{
	char *argv[] = {"/sbin/init", NULL}, text[64];

	snprintf(text, sizeof(text), "%llu,%lld", b->tsc, b->mono_ns);
	setenv(BEGINNING_ENV, text, 1);
	execv("/usr/lib/systemd/systemd", argv);
	complain("/usr/lib/systemd/systemd");
	_exit(1);
}

/* Of the process that became systemd. */
static void read_beginning(struct beginning *b)
{
	char environment[8192];
	int fd = open("/proc/1/environ", O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, environment, sizeof(environment) - 1);

	close(fd);
	environment[n > 0 ? n : 0] = '\0';
	for (char *p = environment; p < environment + n; p += strlen(p) + 1)
		if (sscanf(p, BEGINNING_ENV "=%llu,%lld", &b->tsc, &b->mono_ns) == 2)
			return;
	errno = ENODATA;
	complain("/proc/1/environ");
}

int main(int argc, char **argv)
{
	struct beginning beginning = {.tsc = __rdtsc()};
	struct timespec now;
	struct utsname uts;
	sigset_t set;
	int signals;
	bool is_service = argc == 2 && strcmp(argv[1], "control") == 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	beginning.mono_ns = now.tv_sec * 1000000000LL + now.tv_nsec;
	if (is_service) {
		read_beginning(&beginning);
	} else if (getpid() != 1) {
		fprintf(stderr, "hf-init: only as PID 1 of the nested host\n");
		return 2;
	}
	leave_first_cpu();
	if (!is_service && strstr(argv[0], "hf-systemd"))
		become_systemd(&beginning);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/usr/lib/hf-test", 1);
	setenv("HOME", "/root", 1);
	setenv("TERM", "dumb", 1);
	umask(022);

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (!is_service) {
		/* Ctrl-Alt-Del is nobody's business here. */
		reboot(RB_DISABLE_CAD);
		mount_all();
	}
	/* Guest RAM asks for huge pages, and gets them. */
	write_file("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "advise");
	/* Not made again when the service is started again. */
	if (if_nametoindex("br0") == 0)
		make_bridge();
	if (!is_service)
		start_agent();

	open_control();
	uname(&uts);
	tell("\n\x1e@hf-boot %llu %lld %s\n", beginning.tsc, beginning.mono_ns, uts.release);
	serve(signals);
}
