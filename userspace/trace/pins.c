// SPDX-License-Identifier: Apache-2.0
/* What is pinned below the BPF file system, and the lock that guards it. */
#define _GNU_SOURCE
#include "trace/trace_i.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <bpf/bpf.h>

#include "base/cleanup.h"
#include "base/log.h"

#define BPFFS "/sys/fs/bpf"
#define BPFFS_MAGIC 0xcafe4a11

const struct pin_map pin_maps[] = {
	{ "penstock_volume", "volumes" }, { "penstock_files", "files" },   { "penstock_cgroup", "cgroups" },
	{ "penstock_lat", "latency" },    { "penstock_drops", "drops" },   { "penstock_progs", "programs" },
	{ "penstock_state", "state" },    { "penstock_filter", "filter" }, { "penstock_rings", "rings" },
	{ "penstock_gpu", "gpu" },        { "penstock_tasks", "tasks" },   { "penstock_flight", "flights" },
	{ "penstock_blocks", "blocks" },
};
const size_t nr_pin_maps = array_len(pin_maps);

static const char *const directories[] = { "links", "progs", "maps" };

static void cleanup_closedir(DIR **d)
{
	if (*d)
		closedir(*d);
}

static int directory_make(const char *path, mode_t mode, struct err *e)
{
	if (mkdir(path, mode) == 0 || errno == EEXIST)
		return 0;
	return err_set(e, -errno, "cannot make the directory %s: %s", path, strerror(errno));
}

static bool is_bpffs(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (unsigned int)fs.f_type == BPFFS_MAGIC;
}

static int file_lock(int fd, const char *path, struct err *e)
{
	while (flock(fd, LOCK_EX) < 0) {
		if (errno != EINTR)
			return err_set(e, -errno, "cannot lock %s: %s", path, strerror(errno));
	}
	return 0;
}

/* Locks what is mounted there, and looks again: who held the lock may have unmounted it. 0: not mounted any more. */
static int bpffs_lock_once(struct pins *p, struct err *e)
{
	_cleanup_close_ int fd = open(p->bpffs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat locked, found;
	int rc;

	if (fd < 0)
		return err_set(e, -errno, "cannot open %s: %s", p->bpffs, strerror(errno));
	rc = file_lock(fd, p->bpffs, e);
	if (rc < 0)
		return rc;
	if (fstat(fd, &locked) < 0 || stat(p->bpffs, &found) < 0)
		return err_set(e, -errno, "cannot look at %s: %s", p->bpffs, strerror(errno));
	if (locked.st_dev != found.st_dev || locked.st_ino != found.st_ino || !is_bpffs(p->bpffs))
		return 0;
	p->bpffs_fd = take_fd(&fd);
	return 1;
}

/* Run directories differ, as containers have their own; the BPF file system is what all share. */
static int bpffs_lock(struct pins *p, bool create, struct err *e)
{
	int rc = 0;

	while (rc == 0) {
		if (!is_bpffs(p->bpffs)) {
			if (!create)
				return 0;
			if (mount("bpf", p->bpffs, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
				return err_set(e, -errno, "cannot mount the BPF file system at %s: %s", p->bpffs,
					       strerror(errno));
			p->bpffs_made = true;
		}
		rc = bpffs_lock_once(p, e);
	}
	return rc < 0 ? rc : 0;
}

static int pins_make(const struct pins *p, struct err *e)
{
	char path[PATH_MAX];
	int rc = directory_make(p->root, 0700, e);

	for (size_t i = 0; rc == 0 && i < array_len(directories); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->root, directories[i]);
		rc = directory_make(path, 0700, e);
	}
	return rc;
}

int pins_lock(struct pins *p, const struct trace_config *c, bool create, struct err *e)
{
	char path[PATH_MAX];
	int n, rc;

	*p = (struct pins){ .lock_fd = -1, .bpffs_fd = -1 };
	n = snprintf(p->bpffs, sizeof(p->bpffs), "%s", c->bpffs ? c->bpffs : BPFFS);
	if (n >= (int)sizeof(p->bpffs))
		return err_set(e, -ENAMETOOLONG, "the path of the BPF file system is too long: %s", c->bpffs);
	snprintf(p->root, sizeof(p->root), "%s/" TRACE_PIN_DIR, p->bpffs);
	n = snprintf(path, sizeof(path), "%s/trace.lock", c->run_dir);
	if (n >= (int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "the path of the run directory is too long: %s", c->run_dir);

	rc = directory_make(c->run_dir, 0755, e);
	if (rc < 0)
		return rc;
	p->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (p->lock_fd < 0)
		return err_set(e, -errno, "cannot open the tracer's lock %s: %s", path, strerror(errno));
	rc = file_lock(p->lock_fd, path, e);
	if (rc == 0)
		rc = bpffs_lock(p, create, e);
	if (rc == 0 && create)
		rc = pins_make(p, e);
	if (rc < 0)
		pins_unlock(p);
	return rc;
}

void pins_unlock(struct pins *p)
{
	cleanup_close(&p->bpffs_fd);
	cleanup_close(&p->lock_fd);
	p->bpffs_fd = p->lock_fd = -1;
}

int pins_path(const struct pins *p, const char *directory, const char *name, char *ret, size_t room)
{
	int n = snprintf(ret, room, "%s/%s/%s", p->root, directory, name);

	return n < (int)room ? 0 : -ENAMETOOLONG;
}

int pins_open(const struct pins *p, const char *directory, const char *name)
{
	char path[PATH_MAX];
	int rc = pins_path(p, directory, name, path, sizeof(path));

	return rc < 0 ? rc : bpf_obj_get(path);
}

int pins_unlink(const struct pins *p, const char *directory, const char *name)
{
	char path[PATH_MAX];
	int rc = pins_path(p, directory, name, path, sizeof(path));

	if (rc == 0 && unlink(path) < 0)
		rc = -errno;
	return rc;
}

void pins_clear(const struct pins *p, const char *directory)
{
	_cleanup_(cleanup_closedir) DIR *d = NULL;
	char path[PATH_MAX];
	struct dirent *entry;

	snprintf(path, sizeof(path), "%s/%s", p->root, directory);
	d = opendir(path);
	while (d && (entry = readdir(d)) != NULL) {
		if (entry->d_name[0] != '.' && unlinkat(dirfd(d), entry->d_name, 0) < 0)
			log_warn("trace", "cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
	}
}

/* The kernel itself may put two iterators into each BPF file system. */
static bool bpffs_is_unused(const char *path)
{
	static const char *const own[] = { ".", "..", "maps.debug", "progs.debug" };
	_cleanup_(cleanup_closedir) DIR *d = opendir(path);
	struct dirent *entry;
	size_t i;

	while (d && (entry = readdir(d)) != NULL) {
		for (i = 0; i < array_len(own) && strcmp(entry->d_name, own[i]) != 0; i++)
			;
		if (i == array_len(own))
			return false;
	}
	return d != NULL;
}

void pins_remove(struct pins *p)
{
	struct trace_state state = { .bpffs_made = p->bpffs_made };
	char path[PATH_MAX];

	if (p->bpffs_fd < 0)
		return;
	(void)pins_state(p, &state);
	for (size_t i = 0; i < array_len(directories); i++) {
		pins_clear(p, directories[i]);
		snprintf(path, sizeof(path), "%s/%s", p->root, directories[i]);
		(void)rmdir(path);
	}
	if (rmdir(p->root) < 0 && errno != ENOENT)
		log_warn("trace", "cannot remove %s: %s", p->root, strerror(errno));
	/*
	 * Pins of others would go with the file system. Detached, since it is open here, and perhaps where others
	 * wait for the lock; more than once, when two of us found none at the same time.
	 */
	while (state.bpffs_made && is_bpffs(p->bpffs) && bpffs_is_unused(p->bpffs)) {
		if (umount2(p->bpffs, MNT_DETACH) < 0) {
			log_warn("trace", "cannot unmount %s: %s", p->bpffs, strerror(errno));
			break;
		}
	}
}

int pins_state(const struct pins *p, struct trace_state *ret)
{
	_cleanup_close_ int fd = pins_open(p, "maps", "state");
	struct trace_state state;
	uint32_t key = 0;

	if (fd < 0)
		return fd;
	if (bpf_map_lookup_elem(fd, &key, &state) < 0)
		return -errno;
	/* Loaded half: whoever did it died in between. */
	if (state.version == 0)
		return -ENOENT;
	*ret = state;
	return 0;
}
