// SPDX-License-Identifier: Apache-2.0
/*
 * Pid files of mounts: who serves which mount point, and whether it still lives.
 *
 * Design: a file is only removed by who holds its lock, and a lock only counts while the path still
 * leads to the locked file: so two daemons never both believe in one volume id. Text: the pid on the
 * first line, the mount point after it.
 */
#include "daemon/runstate.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "ctl/mount.h"

#define CLAIM_TRIES 100
#define POLL_NS (10 * NSEC_PER_MSEC)

int runstate_dir(char *ret, size_t room, struct err *e)
{
	const char *dir = getenv("PENSTOCK_RUN_DIR");

	if (!dir || !*dir)
		dir = "/run/penstock";
	if (dir[0] != '/' || strlen(dir) >= RUNSTATE_DIR_MAX || strlen(dir) >= room)
		return err_set(e, -EINVAL, "PENSTOCK_RUN_DIR: give an absolute path of less than %d bytes",
			       RUNSTATE_DIR_MAX);
	memcpy(ret, dir, strlen(dir) + 1);
	return 0;
}

/* Reads "PID\nMOUNT_POINT\n"; -EBADMSG while its owner is still writing it. */
static int entry_read(int fd, struct runstate_entry *ret)
{
	char text[PATH_MAX + 32], *end;
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	size_t len;
	long pid;

	if (n < 0)
		return -errno;
	text[n] = '\0';
	pid = strtol(text, &end, 10);
	if (end == text || *end != '\n' || pid <= 0 || pid > INT_MAX || text[n - 1] != '\n')
		return -EBADMSG;
	len = (size_t)(text + n - 1 - end);
	if (len <= 1 || len > sizeof(ret->mount_point))
		return -EBADMSG;
	ret->pid = (pid_t)pid;
	memcpy(ret->mount_point, end + 1, len - 1);
	ret->mount_point[len - 1] = '\0';
	return 0;
}

static bool path_leads_to(const char *path, int fd)
{
	struct stat a, b;

	return lstat(path, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int dir_make(const char *path, struct err *e)
{
	if (mkdir(path, 0755) == 0 || errno == EEXIST)
		return 0;
	return err_set(e, -errno, "cannot make the directory %.512s: %s; run as root or set PENSTOCK_RUN_DIR", path,
		       strerror(errno));
}

static int claim_refused(struct err *e, const char *volume_id, const struct runstate_entry *by)
{
	return err_set(e, -EBUSY,
		       "volume id '%.256s' is used by process %d for %.256s; unmount that or give another --volume-id",
		       volume_id, (int)by->pid, by->mount_point);
}

int runstate_claim(struct runstate *rs, const char *volume_id, struct err *e)
{
	char dir[RUNSTATE_DIR_MAX], volumes[RUNSTATE_DIR_MAX + 16];
	struct runstate_entry other;
	int rc = runstate_dir(dir, sizeof(dir), e);

	rs->fd = -1;
	if (rc < 0)
		return rc;
	snprintf(volumes, sizeof(volumes), "%s/volumes", dir);
	rc = dir_make(dir, e);
	if (rc == 0)
		rc = dir_make(volumes, e);
	if (rc < 0)
		return rc;
	if ((size_t)snprintf(rs->path, sizeof(rs->path), "%s/%s.pid", volumes, volume_id) >= sizeof(rs->path))
		return err_set(e, -ENAMETOOLONG, "the volume id is too long; give another --volume-id");

	for (int i = 0; i < CLAIM_TRIES; i++) {
		_cleanup_close_ int fd = open(rs->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);

		if (fd < 0)
			return err_set(e, -errno, "cannot open %.512s: %s; run as root or set PENSTOCK_RUN_DIR",
				       rs->path, strerror(errno));
		if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
			if (entry_read(fd, &other) == 0)
				return claim_refused(e, volume_id, &other);
			return err_set(e, -EBUSY, "volume id '%.256s' is in use; give another --volume-id", volume_id);
		}
		if (path_leads_to(rs->path, fd)) {
			rs->fd = take_fd(&fd);
			return 0;
		}
	}
	return err_set(e, -EBUSY, "%.512s comes and goes; try again", rs->path);
}

int runstate_publish(struct runstate *rs, pid_t pid, const char *mount_point, struct err *e)
{
	char text[PATH_MAX + 32];
	int n = snprintf(text, sizeof(text), "%d\n%s\n", (int)pid, mount_point);

	if (n < 0 || (size_t)n >= sizeof(text))
		return err_set(e, -ENAMETOOLONG, "the mount point's path is too long");
	if (ftruncate(rs->fd, 0) < 0 || pwrite(rs->fd, text, (size_t)n, 0) != n)
		return err_set(e, -EIO, "cannot write %.512s; is its file system full?", rs->path);
	return 0;
}

void runstate_release(struct runstate *rs)
{
	if (rs->fd < 0)
		return;
	if (path_leads_to(rs->path, rs->fd))
		unlink(rs->path);
	close(rs->fd);
	rs->fd = -1;
}

/* What a daemon that was killed left beside its pid file; under that file's lock. */
static void leftovers_clear(const char *pid_path)
{
	char path[PATH_MAX + 16];
	int len = (int)(strlen(pid_path) - strlen(".pid"));

	snprintf(path, sizeof(path), "%.*s", len, pid_path);
	ctl_mount_clear(path);
	snprintf(path, sizeof(path), "%.*s.metrics.sock", len, pid_path);
	unlink(path);
}

/* 0: live, *ret filled. -ENOENT: gone, or stale and removed now. -EBADMSG: live but not readable yet. */
static int entry_probe(const char *path, struct runstate_entry *ret)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
		if (path_leads_to(path, fd)) {
			leftovers_clear(path);
			unlink(path);
		}
		return -ENOENT;
	}
	return entry_read(fd, ret);
}

int runstate_find(const char *mount_point, struct runstate_entry *ret)
{
	char dir[RUNSTATE_DIR_MAX], volumes[RUNSTATE_DIR_MAX + 16];
	int rc = -ENOENT;
	DIR *d;

	if (runstate_dir(dir, sizeof(dir), NULL) < 0)
		return -ENOENT;
	snprintf(volumes, sizeof(volumes), "%s/volumes", dir);
	d = opendir(volumes);
	if (!d)
		return -ENOENT;
	for (struct dirent *de = readdir(d); de; de = readdir(d)) {
		size_t len = strlen(de->d_name);

		if (len < 5 || strcmp(de->d_name + len - 4, ".pid") != 0)
			continue;
		snprintf(ret->path, sizeof(ret->path), "%s/%s", volumes, de->d_name);
		if (entry_probe(ret->path, ret) == 0 && strcmp(ret->mount_point, mount_point) == 0) {
			rc = 0;
			break;
		}
	}
	closedir(d);
	return rc;
}

int runstate_wait_gone(const struct runstate_entry *entry, uint64_t timeout_ns)
{
	const struct timespec pause = { .tv_nsec = POLL_NS };
	uint64_t until_ns = clock_mono_ns() + timeout_ns;
	struct runstate_entry now;

	for (;;) {
		int rc = entry_probe(entry->path, &now);

		if (rc == -ENOENT || (rc == 0 && now.pid != entry->pid))
			return 0;
		if (clock_mono_ns() >= until_ns)
			return -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
}
