// SPDX-License-Identifier: Apache-2.0
/* mount(2) of FUSE, read-ahead through the bdi, and the probe that proves a mount answers. */
#define _GNU_SOURCE
#include "daemon/kernel_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "daemon/mount_point.h"
#include "daemon/runstate.h"
#include "trace/load.h"

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif
#define PROBE_TIMEOUT_MS 5000

int kernel_mount(const struct options *o, struct err *e)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char data[256];

	if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
		return err_set(
			e, -errno,
			"/dev/fuse is missing: load the module (modprobe fuse), or give the container the device");
	if (fd < 0)
		return err_set(e, -errno,
			       "cannot open /dev/fuse: %s; run as root, in a container with the device allowed",
			       strerror(errno));
	snprintf(data, sizeof(data), "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions%s", fd,
		 (unsigned)getuid(), (unsigned)getgid(), o->allow_other ? ",allow_other" : "");
	if (mount(o->source, o->mount_point, MOUNT_FSTYPE, o->mount_flags, data) < 0) {
		if (errno == EPERM)
			return err_set(e, -EPERM, "mounting needs root (CAP_SYS_ADMIN): run with sudo");
		return err_set(e, -errno, "cannot mount on %s: %s", o->mount_point, strerror(errno));
	}
	return take_fd(&fd);
}

int kernel_unmount(const char *mount_point)
{
	return umount2(mount_point, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

int kernel_mount_id(const char *mount_point, uint64_t *ret)
{
	struct statx st;

	/* Asks nothing of the file system; AT_STATX_DONT_SYNC is answered from the inode. */
	if (statx(AT_FDCWD, mount_point, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW,
		  STATX_MNT_ID_UNIQUE | STATX_MNT_ID, &st) < 0)
		return -errno;
	*ret = st.stx_mask & (STATX_MNT_ID_UNIQUE | STATX_MNT_ID) ? st.stx_mnt_id : 0;
	return 0;
}

int kernel_read_ahead_set(const char *mount_point, unsigned kb)
{
	_cleanup_fclose_ FILE *f = NULL;
	struct mount_entry m;
	char path[128];
	int rc = mount_entry_find(mount_point, NULL, &m);

	if (rc < 0)
		return rc;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", m.dev_major, m.dev_minor);
	f = fopen(path, "we");
	if (!f)
		return -errno;
	if (fprintf(f, "%u\n", kb) < 0 || fflush(f) != 0)
		return -errno;
	return 0;
}

/* statfs is never answered from a cache. */
static int probe_all_cpus(const char *mount_point)
{
	cpu_set_t all, one;
	struct statvfs st;

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		CPU_ZERO(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all))
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		if (sched_setaffinity(0, sizeof(one), &one) < 0)
			continue;
		if (statvfs(mount_point, &st) < 0)
			return -errno;
	}
	return statvfs(mount_point, &st) < 0 ? -errno : 0;
}

struct probe_trace {
	char kind; /* not '/', with which a path begins */
	char id[TRACE_ID_BYTES];
	dev_t dev;
};

/* A path to ask on every CPU, or a volume to trace. */
union probe_task {
	char path[OPT_PATH_MAX];
	struct probe_trace trace;
};

/* What is pinned stays when this process ends. */
static int probe_trace(const struct probe_trace *task, pid_t owner)
{
	char run_dir[RUNSTATE_DIR_MAX];
	struct trace_config tc = { .run_dir = run_dir };
	struct trace_volume_config vc = { .dev = task->dev, .id = task->id, .owner = owner };
	struct trace *t;
	struct err e;
	int rc = runstate_dir(run_dir, sizeof(run_dir), &e);

	return rc < 0 ? rc : trace_start(&tc, &vc, &t, &e);
}

static void __attribute__((noreturn)) probe_main(int fd, pid_t parent)
{
	union probe_task task;
	ssize_t n;
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "penstock-probe");
	if (getppid() != parent)
		_exit(0);
	while ((n = read(fd, &task, sizeof(task) - 1)) > 0) {
		task.path[n] = '\0';
		rc = task.path[0] == '/' ? probe_all_cpus(task.path) : probe_trace(&task.trace, parent);
		if (write(fd, &rc, sizeof(rc)) < 0)
			break;
	}
	_exit(0);
}

int mount_probe_start(struct mount_probe *p, struct err *e)
{
	pid_t self = getpid();
	int fds[2];

	*p = (struct mount_probe){ .pid = -1, .fd = -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return err_set(e, -errno, "cannot make a socket pair: %s", strerror(errno));
	p->pid = fork();
	if (p->pid < 0) {
		close(fds[0]);
		close(fds[1]);
		return err_set(e, -errno, "cannot start a process: %s", strerror(errno));
	}
	if (p->pid == 0) {
		close(fds[0]);
		probe_main(fds[1], self);
	}
	close(fds[1]);
	p->fd = fds[0];
	return 0;
}

int mount_probe_run(struct mount_probe *p, const char *mount_point, struct err *e)
{
	struct pollfd pfd = { .fd = p->fd, .events = POLLIN };
	int rc = -EIO;

	if (write(p->fd, mount_point, strlen(mount_point)) < 0)
		return err_set(e, -errno, "cannot check the mount: %s", strerror(errno));
	if (poll(&pfd, 1, PROBE_TIMEOUT_MS) != 1)
		return err_set(e, -ETIMEDOUT, "the mount does not answer");
	if (read(p->fd, &rc, sizeof(rc)) != sizeof(rc))
		rc = -EIO;
	return rc < 0 ? err_set(e, rc, "the mount answers with an error: %s", strerror(-rc)) : 0;
}

void mount_probe_trace(struct mount_probe *p, dev_t dev, const char *id)
{
	struct probe_trace task = { .kind = 'T', .dev = dev };
	struct pollfd pfd = { .fd = p->fd, .events = POLLIN };
	int rc;

	if (p->pid <= 0)
		return;
	snprintf(task.id, sizeof(task.id), "%s", id);
	if (write(p->fd, &task, sizeof(task)) == sizeof(task) && poll(&pfd, 1, PROBE_TIMEOUT_MS) == 1 &&
	    read(p->fd, &rc, sizeof(rc)) == sizeof(rc) && rc < 0)
		log_debug("trace", "the probe could not load the tracer: %s", strerror(-rc));
}

void mount_probe_stop(struct mount_probe *p)
{
	if (p->pid <= 0)
		return;
	close(p->fd);
	kill(p->pid, SIGKILL);
	waitpid(p->pid, NULL, 0);
	*p = (struct mount_probe){ .pid = -1, .fd = -1 };
}
