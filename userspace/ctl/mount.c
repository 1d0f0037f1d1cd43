// SPDX-License-Identifier: Apache-2.0
/*
 * The tuning tree's mount, its session and its thread.
 *
 * Design: plain /dev/fuse, read by the one thread that answers; nothing it does waits for anything else in the
 * daemon. A mount that may be dead is looked at through O_PATH and /proc, which ask the file system nothing.
 */
#define _GNU_SOURCE
#include "ctl/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <penstock/ctl.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "ctl/ctl_i.h"

/* As many dead daemons may have left one on top of the other. */
#define STALE_MAX 64

struct ctl_mount {
	struct ctl_session s;
	struct fuse_session *session;
	pthread_t thread;
	int stop_fd;
	int mount_id; /* 0 = not mounted; tells ours from a later one on the same place */
	bool made_dir, running;
	char dir[PATH_MAX];
};

/* The id of the mount that <path> leads into. */
static int path_mount_id(const char *path, int *ret)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_NOFOLLOW | O_DIRECTORY | O_CLOEXEC);
	_cleanup_fclose_ FILE *f = NULL;
	char name[64], line[256];

	if (fd < 0)
		return -errno;
	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "mnt_id: %d", ret) == 1)
			return 0;
	}
	return -EIO;
}

/* Whether a tuning tree is mounted there, and its mount's id. */
static bool tree_mounted(const char *dir, int *ret_id)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t room = 0;
	int id;

	if (path_mount_id(dir, ret_id) < 0)
		return false;
	f = fopen("/proc/self/mountinfo", "re");
	while (f && getline(&line, &room, f) > 0) {
		if (sscanf(line, "%d ", &id) == 1 && id == *ret_id)
			return strstr(line, " - " CTL_FSTYPE " ");
	}
	return false;
}

static int tree_detach(const char *dir)
{
	return umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}

static int stale_detach(const char *dir)
{
	int nr = 0, id, rc;

	while (nr < STALE_MAX && tree_mounted(dir, &id)) {
		rc = tree_detach(dir);
		if (rc < 0)
			return rc;
		nr++;
	}
	return nr;
}

int ctl_mount_clear(const char *dir)
{
	int rc = stale_detach(dir);

	if (rc > 0 && rmdir(dir) < 0)
		log_debug("ctl", "%s stays: %s", dir, strerror(errno));
	return min_of(rc, 1);
}

static void *mount_main(void *arg)
{
	struct ctl_mount *m = arg;
	struct pollfd fds[] = {
		{ .fd = fuse_session_fd(m->session), .events = POLLIN },
		{ .fd = m->stop_fd, .events = POLLIN },
	};
	struct fuse_buf msg = { 0 };
	int n;

	prctl(PR_SET_NAME, "penstock-ctl");
	while (!fuse_session_exited(m->session)) {
		if (poll(fds, array_len(fds), -1) < 0 && errno != EINTR)
			break;
		if (fds[1].revents)
			break;
		n = fuse_session_receive_buf(m->session, &msg);
		if (n == -EINTR || n == -EAGAIN)
			continue;
		if (n <= 0)
			break;
		fuse_session_process_buf(m->session, &msg);
	}
	free(msg.mem);
	return NULL;
}

static int dir_prepare(struct ctl_mount *m, struct err *e)
{
	int rc = stale_detach(m->dir);

	if (rc < 0)
		return err_set(e, rc, "cannot unmount the tuning tree that a dead daemon left on %.512s: %s", m->dir,
			       strerror(-rc));
	/* Who made a dead daemon's directory cannot remove it any more. */
	m->made_dir = rc > 0;
	if (mkdir(m->dir, 0755) == 0)
		m->made_dir = true;
	else if (errno != EEXIST)
		return err_set(e, -errno, "cannot make the directory %.512s: %s", m->dir, strerror(errno));
	return 0;
}

static int kernel_mount(struct ctl_mount *m, struct err *e)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	const struct ctl_session *s = &m->s;
	char data[128], name[32];

	if (fd < 0)
		return err_set(e, -errno, "cannot open /dev/fuse for the tuning tree: %s", strerror(errno));
	snprintf(data, sizeof(data), "fd=%d,rootmode=40555,user_id=%u,group_id=%u,default_permissions,allow_other", fd,
		 (unsigned)s->uid, (unsigned)s->gid);
	if (mount("penstock-ctl", m->dir, CTL_FSTYPE, MS_NOSUID | MS_NODEV | MS_NOEXEC, data) < 0)
		return err_set(e, -errno, "cannot mount the tuning tree on %.512s: %s", m->dir, strerror(errno));
	if (!tree_mounted(m->dir, &m->mount_id))
		m->mount_id = 0;
	snprintf(name, sizeof(name), "/dev/fd/%d", fd);
	if (!m->mount_id || fuse_session_mount(m->session, name) < 0) {
		tree_detach(m->dir);
		m->mount_id = 0;
		return err_set(e, -EIO, "cannot serve the tuning tree on %.512s: is /proc mounted?", m->dir);
	}
	/* The session closes it from now on. */
	take_fd(&fd);
	return 0;
}

int ctl_mount_start(struct ctl_tree *tree, const char *dir, struct ctl_mount **ret, struct err *e)
{
	char *argv[] = { "penstock-ctl", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct ctl_mount *m;
	int rc;

	if (strlen(dir) >= sizeof(m->dir))
		return err_set(e, -ENAMETOOLONG, "the path of the tuning tree is too long; give another --volume-id");
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	memcpy(m->dir, dir, strlen(dir) + 1);
	ctl_session_init(&m->s, tree);
	m->stop_fd = eventfd(0, EFD_CLOEXEC);
	m->session = fuse_session_new(&args, &ctl_session_ops, sizeof(ctl_session_ops), &m->s);
	fuse_opt_free_args(&args);
	if (m->stop_fd < 0 || !m->session) {
		rc = err_set(e, -ENOMEM, "cannot start the tuning tree: out of memory or descriptors");
		goto fail;
	}
	rc = dir_prepare(m, e);
	if (rc == 0)
		rc = kernel_mount(m, e);
	if (rc < 0)
		goto fail;
	rc = -pthread_create(&m->thread, NULL, mount_main, m);
	if (rc < 0) {
		err_set(e, rc, "cannot start the tuning tree's thread: %s", strerror(-rc));
		goto fail;
	}
	m->running = true;
	*ret = m;
	return 0;
fail:
	ctl_mount_stop(m);
	return rc;
}

struct ctl_mount *ctl_mount_stop(struct ctl_mount *m)
{
	const uint64_t one = 1;
	int id;

	if (!m)
		return NULL;
	if (m->mount_id && tree_mounted(m->dir, &id) && id == m->mount_id)
		tree_detach(m->dir);
	if (m->running) {
		if (write(m->stop_fd, &one, sizeof(one)) < 0)
			log_warn("ctl", "cannot wake the tuning tree's thread: %s", strerror(errno));
		pthread_join(m->thread, NULL);
	}
	if (m->session)
		fuse_session_destroy(m->session);
	ctl_session_done(&m->s);
	if (m->made_dir)
		rmdir(m->dir);
	if (m->stop_fd >= 0)
		close(m->stop_fd);
	free(m);
	return NULL;
}
