// SPDX-License-Identifier: Apache-2.0
/*
 * penstock unmount.
 *
 * Design: nothing here calls into the mounted file system: mountinfo says what is mounted, umount2()
 * does not ask the daemon, and links under /proc say who uses it.
 */
#include "daemon/unmount.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/mount_point.h"
#include "daemon/runstate.h"
#include "trace/load.h"

#define DAEMON_EXIT_NS (10 * NSEC_PER_SEC)
#define PROBE_NS NSEC_PER_SEC
#define USERS_SHOWN 5

static bool path_is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static bool link_is_below(const char *link, const char *dir)
{
	char to[PATH_MAX];
	ssize_t n = readlink(link, to, sizeof(to) - 1);

	if (n < 0)
		return false;
	to[n] = '\0';
	return path_is_below(to, dir);
}

static bool maps_hold(const char *proc, const char *dir)
{
	char path[PATH_MAX];
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t room = 0;

	snprintf(path, sizeof(path), "%s/maps", proc);
	f = fopen(path, "re");
	while (f && getline(&line, &room, f) > 0) {
		char *name = strchr(line, '/');

		if (!name)
			continue;
		name[strcspn(name, "\n")] = '\0';
		if (path_is_below(name, dir))
			return true;
	}
	return false;
}

static bool process_holds(const char *proc, const char *dir)
{
	static const char *const links[] = { "cwd", "root", "exe" };
	char path[PATH_MAX];
	bool held = false;
	DIR *d;

	for (size_t i = 0; i < array_len(links); i++) {
		snprintf(path, sizeof(path), "%s/%s", proc, links[i]);
		if (link_is_below(path, dir))
			return true;
	}
	snprintf(path, sizeof(path), "%s/fd", proc);
	d = opendir(path);
	for (struct dirent *de = d ? readdir(d) : NULL; de && !held; de = readdir(d)) {
		snprintf(path, sizeof(path), "%s/fd/%.16s", proc, de->d_name);
		held = link_is_below(path, dir);
	}
	if (d)
		closedir(d);
	return held || maps_hold(proc, dir);
}

/* Appends " by process 12 (python3), 15 (bash)"; nothing when no one is found. */
static void users_describe(const char *dir, struct buf *b)
{
	int shown = 0;
	DIR *d = opendir("/proc");

	for (struct dirent *de = d ? readdir(d) : NULL; de; de = readdir(d)) {
		char proc[32], path[48], name[64] = "?";
		_cleanup_fclose_ FILE *f = NULL;

		if (!isdigit((unsigned char)de->d_name[0]) || strtol(de->d_name, NULL, 10) == getpid())
			continue;
		snprintf(proc, sizeof(proc), "/proc/%.16s", de->d_name);
		if (!process_holds(proc, dir))
			continue;
		if (shown++ == USERS_SHOWN) {
			buf_add_str(b, " and others");
			break;
		}
		snprintf(path, sizeof(path), "%s/comm", proc);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof(name), f))
			name[strcspn(name, "\n")] = '\0';
		buf_addf(b, "%s %s (%s)", shown == 1 ? " by process" : ",", de->d_name, name);
	}
	if (d)
		closedir(d);
}

static int busy_error(const char *dir, struct err *e)
{
	struct mount_entry below;
	_cleanup_buf_ struct buf users;

	if (mount_entry_find_below(dir, NULL, &below) == 0)
		return err_set(e, -EBUSY, "%.256s has another mount inside, %.256s; unmount that first, or give --lazy",
			       dir, below.mount_point);
	buf_init(&users, 512);
	users_describe(dir, &users);
	return err_set(e, -EBUSY, "%.256s is in use%.400s; stop what uses it, or give --lazy to take it away at once",
		       dir, buf_str(&users));
}

/*
 * Whether nobody answers for the mount any more. Asked in a child, since a daemon that is only stuck
 * would hold the asker for as long as it is.
 */
static bool daemon_is_gone(const char *dir)
{
	const struct timespec pause = { .tv_nsec = 10 * NSEC_PER_MSEC };
	uint64_t until_ns = clock_mono_ns() + PROBE_NS;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		struct statfs fs;

		_exit(statfs(dir, &fs) < 0 && errno == ENOTCONN ? 1 : 0);
	}
	while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
		/* A request that the daemon has taken cannot be killed: the child ends with the mount. */
		if (clock_mono_ns() >= until_ns) {
			kill(pid, SIGKILL);
			return false;
		}
		nanosleep(&pause, NULL);
	}
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 1;
}

static int umount_error(const char *dir, int rc, struct err *e)
{
	switch (rc) {
	case -EBUSY:
		return busy_error(dir, e);
	case -EPERM:
		return err_set(e, rc, "%.512s: only root may unmount it; run penstock unmount as root", dir);
	default:
		return err_set(e, rc, "%.512s cannot be unmounted: %s", dir, strerror(-rc));
	}
}

static void tracer_clean(void)
{
	char run_dir[RUNSTATE_DIR_MAX];
	struct trace_config tc = { .run_dir = run_dir };

	if (runstate_dir(run_dir, sizeof(run_dir), NULL) == 0)
		trace_clean(&tc, NULL);
}

int unmount_run(const char *dir, bool lazy, struct err *e)
{
	struct runstate_entry served_by;
	char path[PATH_MAX];
	struct mount_entry mount;
	bool live;
	int rc = mount_point_resolve(dir, path, sizeof(path), e);

	if (rc < 0)
		return rc;
	rc = mount_entry_find(path, NULL, &mount);
	if (rc == -ENOENT)
		return err_set(e, -EINVAL, "nothing is mounted on %.512s", dir);
	if (rc < 0)
		return err_set(e, rc, "cannot read the list of mounts in /proc: %s", strerror(-rc));
	if (strcmp(mount.fstype, MOUNT_FSTYPE) != 0)
		return err_set(e, -EINVAL, "%.512s is a mount of type %s, not one of penstock; use umount for it", dir,
			       mount.fstype);

	live = runstate_find(path, &served_by) == 0;
	rc = umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0 ? -errno : 0;
	/* Files still open on a dead mount only give errors: there is nothing to wait for. */
	if (rc == -EBUSY && !live && daemon_is_gone(path))
		rc = umount2(path, UMOUNT_NOFOLLOW | MNT_DETACH) < 0 ? -errno : 0;
	if (rc < 0)
		return umount_error(path, rc, e);
	if (live && !lazy && runstate_wait_gone(&served_by, DAEMON_EXIT_NS) < 0)
		return err_set(e, -ETIMEDOUT, "%.512s is unmounted, but its daemon, process %d, still runs after 10 s",
			       dir, (int)served_by.pid);
	/* A daemon that was killed left its pid file, its tree and what it had in the kernel; this removes them. */
	runstate_find(path, &served_by);
	tracer_clean();
	return 0;
}
