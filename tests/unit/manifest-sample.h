/* SPDX-License-Identifier: Apache-2.0 */
/**
 * DOC: A manifest with every field set, for the manifest's test and its golden file.
 *
 * Part of the contract: tests/golden/manifest-v7.bin is this, as it is encoded now. The golden
 * files of older versions are what it was then.
 */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "memfd-preserve/manifest.h"

static inline void sample_limits(struct hf_manifest_limits *l)
{
	l->n_rlimits = 32;
	l->rlimits = malloc(l->n_rlimits * sizeof(*l->rlimits));
	for (size_t i = 0; i < l->n_rlimits; i++)
		l->rlimits[i] = i % 3 ? 1000 + i : UINT64_MAX;
	l->n_cpus = 2;
	l->cpus = malloc(l->n_cpus * sizeof(*l->cpus));
	l->cpus[0] = 0x8000000000000005ULL;
	l->cpus[1] = 1;
	l->nice = -5;
	l->oom_score_adj = 250;
}

static inline void sample_policies(struct hf_manifest_guest *g)
{
	static const char *const settings[] = {"priority=80", "health-command=/bin/true -x"};

	g->policies.not_eligible = HF_NOT_ELIGIBLE_SHUTDOWN;
	g->policies.save_failure = HF_SAVE_FAILURE_COLD_BOOT;
	g->policies.resume_failure = HF_RESUME_FAILURE_COLD_BOOT;
	g->policies.clock = HF_CLOCK_FROZEN;
	g->policies.priority = 80;
	g->policies.attach_timeout_ns = 1 * HF_NSEC_PER_SEC;
	g->policies.save_timeout_ns = 2 * HF_NSEC_PER_SEC;
	g->policies.rollback_timeout_ns = 3 * HF_NSEC_PER_SEC;
	g->policies.resume_timeout_ns = 4 * HF_NSEC_PER_SEC;
	g->policies.shutdown_timeout_ns = 500 * HF_NSEC_PER_MSEC;
	hf_manifest_set(&g->policies.health_command, "/bin/true -x");
	hf_manifest_set_strings(&g->settings, &g->n_settings, settings, HF_ARRAY_SIZE(settings));
}

static inline void sample_inherited(struct hf_manifest_guest *g)
{
	static const char *const argv[] = {"/usr/bin/swtpm", "socket", "--tpm2"};
	struct hf_manifest_fd *fd = hf_manifest_add_fd(g);
	struct hf_manifest_folder *folder = hf_manifest_add_folder(g);
	struct hf_manifest_helper *helper = hf_manifest_add_helper(g);
	struct hf_manifest_disk *disk = hf_manifest_add_disk(g);

	g->inherits = true;
	hf_manifest_set(&g->libvirt_status, "<domstatus state='running'/>");
	fd->fd = 30;
	fd->kind = HF_FD_LISTEN;
	hf_manifest_set(&fd->path, "/var/lib/libvirt/qemu/domain-1-web/monitor.sock");
	fd->mode = 0775;
	fd->uid = fd->gid = 64055;
	fd = hf_manifest_add_fd(g);
	fd->fd = 31;
	fd->kind = HF_FD_VHOST;
	fd = hf_manifest_add_fd(g);
	fd->fd = 33;
	fd->kind = HF_FD_FILE;
	hf_manifest_set(&fd->path, "/var/log/libvirt/qemu/web-serial0.log");
	fd->mode = 0600;
	hf_manifest_set(&folder->path, "/run/libvirt/qemu/swtpm");
	folder->mode = 0770;
	folder->uid = 64055;
	folder->gid = 111;
	hf_manifest_set_strings(&helper->argv, &helper->n_argv, argv, HF_ARRAY_SIZE(argv));
	helper->uid = helper->gid = 111;
	helper->groups = malloc(sizeof(*helper->groups));
	helper->n_groups = 1;
	helper->groups[0] = 111;
	hf_manifest_set(&helper->socket, "/run/libvirt/qemu/swtpm/1-web-swtpm.sock");
	hf_manifest_set(&helper->apparmor, "libvirt-0e4510b1-5792-5afc-be69-2b819927f355");
	hf_manifest_set(&g->apparmor, "libvirt-0e4510b1-5792-5afc-be69-2b819927f355");
	hf_manifest_set(&disk->path, "/srv/web.qcow2");
	disk->size = 3 << 20;
	disk->mtime_ns = 1790000000123456789;
	helper->socket_mode = 0600;
	helper->socket_uid = 64055;
	helper->socket_gid = 111;
}

static inline void sample_guest(struct hf_manifest *m)
{
	static const char *const argv[] = {"qemu-system-x86_64", "-name", "web", "", "-m", "256"};
	static const char *const env[] = {"PATH=/usr/bin:/bin", "LC_ALL=C", "BYTES=\xff\xfe"};
	struct hf_manifest_guest *g = NULL;
	struct hf_manifest_ram *ram;
	struct hf_manifest_chunk *chunk;
	struct hf_manifest_net *net;

	hf_manifest_add_guest(m, &g);
	strcpy(g->uuid, "6f1c1d3e-8a43-4a3c-9a53-0d6d0f2f7b11");
	hf_manifest_set(&g->name, "web");
	hf_manifest_set(&g->manager, "qemu");
	hf_manifest_set(&g->policy, "refuse");
	hf_manifest_set(&g->session, "holdfast-6f1c1d3e-8a43-4a3c-9a53-0d6d0f2f7b11");
	hf_manifest_set(&g->status, "running");
	g->was_running = true;
	g->agent_answered = true;
	hf_manifest_set(&g->vmm, "qemu-system-x86_64");
	hf_manifest_set_strings(&g->argv, &g->n_argv, argv, HF_ARRAY_SIZE(argv));
	hf_manifest_set_strings(&g->env, &g->n_env, env, HF_ARRAY_SIZE(env));
	hf_manifest_set(&g->cwd, "/");
	g->uid = 64055;
	g->gid = 108;
	g->groups = malloc(2 * sizeof(*g->groups));
	g->n_groups = 2;
	g->groups[0] = 108;
	g->groups[1] = 4294967294u;
	g->umask = 022;
	sample_limits(&g->limits);
	g->stdio[0].kind = HF_STDIO_NULL;
	g->stdio[1].kind = HF_STDIO_PATH;
	g->stdio[1].open_flags = 02001;
	hf_manifest_set(&g->stdio[1].path, "/var/log/web.log");
	hf_manifest_set(&g->qmp_path, "/run/holdfast/guests/web.qmp");
	hf_manifest_set(&g->machine, "pc-q35-10.0");
	g->qemu_version[0] = 10;
	g->qemu_version[2] = 3;
	ram = hf_manifest_add_ram(g);
	hf_manifest_set(&ram->id, "pc.ram");
	ram->token = 1;
	ram->size = 256u << 20;
	ram->fd = 33;
	chunk = hf_manifest_add_chunk(g);
	*chunk = (struct hf_manifest_chunk){.token = 1000, .length = 1 << 20, .capacity = 1 << 20};
	chunk = hf_manifest_add_chunk(g);
	*chunk = (struct hf_manifest_chunk){.token = 1001, .length = 12345, .capacity = 1 << 20};
	g->state_length = (1 << 20) + 12345;
	g->state_xxh3 = 0x0123456789abcdefULL;
	hf_manifest_set(&g->not_saved, "QEMU can't save its device state: no");
	net = hf_manifest_add_net(g);
	hf_manifest_set(&net->id, "net0");
	hf_manifest_set(&net->ifname, "tap0");
	hf_manifest_set(&net->bridge, "br0");
	hf_manifest_set(&net->mac, "fe:54:00:12:34:56");
	net->mtu = 1500;
	net->queues = 2;
	net->flags = 0x5102;
	net->fd = -1;
	sample_inherited(g);
	g->ram_copied = true;
	g->adopted_pid = 4711;
	g->adopted_start_ticks = 987654321;
	g->tsc_pause = 1000000000001ULL;
	g->tsc_paused = 1000000100001ULL;
	g->tsc_saved = 1000010000001ULL;
	g->preserve_ns = 2500000;
	sample_policies(g);
}

static inline struct hf_manifest *sample_manifest(void)
{
	struct hf_manifest *m = NULL;
	struct hf_manifest_guest *g = NULL;
	struct hf_manifest_file *f;

	if (hf_manifest_new(&m) < 0)
		abort();
	strcpy(m->update_id, "11111111-2222-4333-8444-555555555555");
	strcpy(m->boot_id, "0aa7b2f1-9e0e-4d3c-8f5a-b2c0ffee1234");
	hf_manifest_set(&m->writer, "holdfast 0.1.0");
	hf_manifest_set(&m->carrier, "luo");
	hf_manifest_set(&m->from_kernel, "7.2.12");
	hf_manifest_set(&m->target_kernel, "/boot/vmlinuz-7.3.4");
	hf_manifest_set(&m->target_initrd, "/boot/initrd.img-7.3.4");
	hf_manifest_set(&m->target_cmdline, "root=/dev/vda1 kho=on liveupdate=on");
	m->tsc_hz = 2995200000ULL;
	m->tsc_prepare = 900000000000ULL;
	m->tsc_prepared = 950000000000ULL;
	m->tsc_commit = 1000000000000ULL;
	m->tsc_jump = 1000020000000ULL;
	m->clock_tsc = 1000019999000ULL;
	m->clock_ns = 1790000000123456789ULL;
	m->clock_width = 120;
	f = hf_manifest_add_file(m);
	hf_manifest_set(&f->path, "/usr/bin/qemu-system-x86_64");
	f->size = 20u << 20;
	f = hf_manifest_add_file(m);
	hf_manifest_set(&f->path, "/usr/share/seabios/bios-256k.bin");
	f->size = 256u << 10;
	sample_guest(m);
	/* And one with nothing but what is needed. */
	hf_manifest_add_guest(m, &g);
	strcpy(g->uuid, "00000000-0000-4000-8000-000000000002");
	hf_manifest_set(&g->name, "bare");
	hf_manifest_set(&g->manager, "libvirt");
	hf_manifest_set(&g->session, "holdfast-bare");
	hf_manifest_set(&g->vmm, "/usr/bin/qemu-system-x86_64");
	return m;
}
