// SPDX-License-Identifier: Apache-2.0
/*
 * penstock: mounts a bucket, unmounts it, tells what it can do.
 *
 * Design: in the background the first process waits until the daemon says over a pipe that the mount has answered,
 * or why not, and exits accordingly. The daemon's main thread only waits for signals, the end of the mount and its
 * own clock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <penstock/version.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/features.h"
#include "daemon/kernel_mount.h"
#include "daemon/mount_point.h"
#include "daemon/options.h"
#include "daemon/runstate.h"
#include "daemon/unmount.h"
#include "daemon/volume.h"

#define TICK_MS 1000
/* After SIGTERM: time for readers of the detached mount to finish. */
#define DRAIN_NS (5 * NSEC_PER_SEC)
#define MALLOC_ARENAS 2

struct daemon {
	struct options *o;
	struct runstate runstate;
	struct mount_probe probe;
	struct volume *volume;
	char stats_path[OPT_PATH_MAX];
	int signal_fd;
	int tell_fd; /* to the waiting first process; -1 in the foreground */
};

static int complain(const struct err *e)
{
	fprintf(stderr, "penstock: %s\n", e->msg);
	return 1;
}

/* One message: the code, then the sentence. */
static void daemon_tell(struct daemon *d, const struct err *e)
{
	if (d->tell_fd < 0)
		return;
	if (write(d->tell_fd, e, sizeof(*e)) < 0)
		log_warn("daemon", "the process that started the mount is gone");
	close(d->tell_fd);
	d->tell_fd = -1;
}

static int path_in_run_dir(const struct options *o, const char *suffix, char *ret, struct err *e)
{
	char dir[RUNSTATE_DIR_MAX];
	int rc = runstate_dir(dir, sizeof(dir), e);

	if (rc < 0)
		return rc;
	if (snprintf(ret, OPT_PATH_MAX, "%s/volumes/%s.%s", dir, o->volume_id, suffix) >= OPT_PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "the run directory's path is too long");
	return 0;
}

static int log_open(const struct options *o, struct err *e)
{
	char path[OPT_PATH_MAX];
	int fd, rc;

	if (o->log_file[0])
		snprintf(path, sizeof(path), "%s", o->log_file);
	else if (o->foreground)
		return STDERR_FILENO;
	else if ((rc = path_in_run_dir(o, "log", path, e)) < 0)
		return rc;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd < 0)
		return err_set(e, -errno, "cannot write the log file %s: %s", path, strerror(errno));
	return fd;
}

static int signals_block(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void daemon_stats(struct daemon *d)
{
	int rc = volume_stats_write(d->volume, d->stats_path);

	if (rc < 0)
		log_warn("daemon", "cannot write %s: %s", d->stats_path, strerror(-rc));
}

/* True when it is time to go. */
static bool daemon_signal(struct daemon *d)
{
	struct signalfd_siginfo si;
	bool leave = false;

	while (read(d->signal_fd, &si, sizeof(si)) == sizeof(si)) {
		if (si.ssi_signo == SIGUSR1)
			daemon_stats(d);
		else if (si.ssi_signo != SIGHUP)
			leave = true;
	}
	return leave;
}

static void daemon_serve(struct daemon *d)
{
	struct pollfd p[2] = { { .fd = d->signal_fd, .events = POLLIN },
			       { .fd = volume_end_fd(d->volume), .events = POLLIN } };
	uint64_t drain_until = 0;

	for (;;) {
		int n = poll(p, 2, TICK_MS);

		if (n > 0 && (p[1].revents & POLLIN)) {
			log_info("daemon", "unmounted: %s", d->o->mount_point);
			return;
		}
		if (n > 0 && (p[0].revents & POLLIN) && daemon_signal(d)) {
			if (drain_until)
				return;
			log_info("daemon", "stopping: %s is detached, open files have %d s", d->o->mount_point,
				 (int)(DRAIN_NS / NSEC_PER_SEC));
			volume_detach(d->volume);
			drain_until = clock_mono_ns() + DRAIN_NS;
		}
		if (drain_until && clock_mono_ns() >= drain_until)
			return;
		volume_tick(d->volume);
	}
}

static int daemon_run(struct daemon *d)
{
	struct err e = { 0 };
	int rc, fd = log_open(d->o, &e);

	rc = fd < 0 ? fd : 0;
	if (rc == 0) {
		log_setup(d->o->log_level, d->o->log_format, fd);
		mallopt(M_ARENA_MAX, MALLOC_ARENAS);
#ifndef __SANITIZE_ADDRESS__
		/* Keys pass through memory that is not ours to protect: no core dumps, no ptrace by others. */
		prctl(PR_SET_DUMPABLE, 0);
#endif
		rc = path_in_run_dir(d->o, "stats", d->stats_path, &e);
	}
	if (rc == 0)
		rc = mount_probe_start(&d->probe, &e);
	if (rc == 0) {
		d->signal_fd = signals_block();
		rc = d->signal_fd < 0 ? err_set(&e, -errno, "cannot make a signalfd: %s", strerror(errno)) : 0;
	}
	if (rc == 0)
		rc = runstate_publish(&d->runstate, getpid(), d->o->mount_point, &e);
	if (rc == 0)
		rc = volume_start(d->o, &d->probe, &d->volume, &e);
	if (rc < 0)
		mount_probe_stop(&d->probe);
	if (rc == 0) {
		e.code = 0; /* a first try over io_uring may have failed */
		daemon_stats(d);
		snprintf(e.msg, sizeof(e.msg), "%s is mounted on %s, transport %s", d->o->source, d->o->mount_point,
			 volume_transport(d->volume));
	}
	if (rc < 0 && d->tell_fd < 0)
		complain(&e);
	daemon_tell(d, &e);
	if (rc == 0) {
		volume_settle(d->volume, &d->probe);
		mount_probe_stop(&d->probe);
		daemon_serve(d);
		daemon_stats(d);
		d->volume = volume_stop(d->volume);
	}
	if (rc < 0)
		unlink(d->stats_path);
	runstate_release(&d->runstate);
	return rc < 0 ? 1 : 0;
}

/* The first process: waits for the daemon's word, and passes it on. */
static int daemon_await(int fd, pid_t child, bool quiet)
{
	struct err e = { 0 };
	ssize_t n;

	do {
		n = read(fd, &e, sizeof(e));
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(e)) {
		int status = 0;

		waitpid(child, &status, 0);
		err_set(&e, -EIO, "the daemon ended before the mount was made (%s %d)",
			WIFSIGNALED(status) ? "signal" : "exit code",
			WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	if (e.code < 0)
		return complain(&e);
	if (!quiet)
		puts(e.msg);
	return 0;
}

static void daemon_detach_terminal(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	setsid();
	if (chdir("/") < 0)
		log_warn("daemon", "cannot leave the working directory: %s", strerror(errno));
	if (fd < 0)
		return;
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static int daemon_background(struct daemon *d)
{
	struct err e = { 0 };
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0) {
		err_set(&e, -errno, "cannot make a pipe: %s", strerror(errno));
		return complain(&e);
	}
	child = fork();
	if (child < 0) {
		err_set(&e, -errno, "cannot start the daemon: %s", strerror(errno));
		return complain(&e);
	}
	if (child > 0) {
		close(fds[1]);
		return daemon_await(fds[0], child, d->o->quiet);
	}
	close(fds[0]);
	d->tell_fd = fds[1];
	daemon_detach_terminal();
	return daemon_run(d);
}

static int verb_mount(struct options *o)
{
	struct daemon d = {
		.o = o, .runstate = RUNSTATE_INIT, .probe = { .pid = -1, .fd = -1 }, .signal_fd = -1, .tell_fd = -1
	};
	struct err e = { 0 };
	int rc;

	if (o->check_only)
		return 0;
	/* Logs of the checks before the daemon has its log file. */
	log_setup(o->log_level, o->log_format, STDERR_FILENO);
	if (geteuid() != 0) {
		err_set(&e, -EPERM, "mounting needs root: run with sudo");
		return complain(&e);
	}
	if (access("/dev/fuse", F_OK) < 0) {
		err_set(&e, -ENODEV,
			"/dev/fuse is missing: load the module (modprobe fuse), or give the container the device");
		return complain(&e);
	}
	rc = mount_point_prepare(o->mount_point, &e);
	if (rc == 0)
		rc = options_volume_id_default(o, &e);
	if (rc == 0)
		rc = runstate_claim(&d.runstate, o->volume_id, &e);
	if (rc < 0)
		return complain(&e);
	return o->foreground ? daemon_run(&d) : daemon_background(&d);
}

static int verb_version(const struct options *o)
{
	if (o->verbose)
		return features_print(stdout) < 0 ? 1 : 0;
	puts("penstock " PENSTOCK_VERSION);
	return 0;
}

int main(int argc, char **argv)
{
	static struct options o;
	struct err e = { 0 };

	if (options_parse(argc, argv, &o, &e) < 0)
		return complain(&e);
	switch (o.verb) {
	case VERB_MOUNT:
		return verb_mount(&o);
	case VERB_UNMOUNT:
		log_setup(LOG_LEVEL_WARN, LOG_FORMAT_TEXT, STDERR_FILENO);
		return unmount_run(o.mount_point, o.lazy_unmount, &e) < 0 ? complain(&e) : 0;
	case VERB_VERSION:
		return verb_version(&o);
	case VERB_HELP:
		break;
	}
	fputs(options_help(), stdout);
	return 0;
}
