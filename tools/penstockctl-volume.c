// SPDX-License-Identifier: Apache-2.0
/*
 * Volumes of this host: pid files name them, tuning trees tell about them.
 *
 * Design: a tree is read by a child process that is killed when it takes too long: a reader of a file system whose
 * daemon is stopped can do nothing but wait.
 */
#define _GNU_SOURCE
#include "penstockctl.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/size.h"
#include "daemon/mount_point.h"
#include "daemon/runstate.h"

#define SNAPSHOT_WAIT_MS 2000

static int volumes_path(const char *leaf, char ret[PATH_MAX], struct err *e)
{
	char dir[RUNSTATE_DIR_MAX];
	int rc = runstate_dir(dir, sizeof(dir), e);

	if (rc < 0)
		return rc;
	if (snprintf(ret, PATH_MAX, "%s/volumes/%s", dir, leaf) >= PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "%.256s is too long for a volume id", leaf);
	return 0;
}

/* "PID\nMOUNT_POINT\n"; both stay unknown where there is no such file. */
static void pid_file_read(struct volume *v)
{
	_cleanup_fclose_ FILE *f = NULL;
	char name[NAME_MAX + 8], path[PATH_MAX], line[PATH_MAX + 1];
	uint64_t pid;

	snprintf(name, sizeof(name), "%s.pid", v->id);
	if (volumes_path(name, path, NULL) == 0)
		f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return;
	line[strcspn(line, "\n")] = '\0';
	if (number_parse(line, 1, INT_MAX, &pid) < 0 || !fgets(line, sizeof(line), f))
		return;
	line[strcspn(line, "\n")] = '\0';
	v->pid = (pid_t)pid;
	memcpy(v->mount_point, line, strlen(line) + 1);
}

static int volume_compare(const void *a, const void *b)
{
	return strcmp(((const struct volume *)a)->id, ((const struct volume *)b)->id);
}

static int volume_add(struct volumes *all, const char *id, size_t len)
{
	struct volume *grown;

	for (size_t i = 0; i < all->nr; i++) {
		if (strlen(all->all[i].id) == len && memcmp(all->all[i].id, id, len) == 0)
			return 0;
	}
	grown = realloc(all->all, (all->nr + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	all->all = grown;
	grown[all->nr] = (struct volume){ 0 };
	memcpy(grown[all->nr].id, id, len);
	pid_file_read(&grown[all->nr++]);
	return 0;
}

int volumes_list(struct volumes *ret, struct err *e)
{
	char path[PATH_MAX];
	int rc = volumes_path("", path, e);
	DIR *d;

	*ret = (struct volumes){ 0 };
	if (rc < 0)
		return rc;
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : err_set(e, -errno, "%s: %s; run as root", path, strerror(errno));
	for (struct dirent *de = readdir(d); de && rc == 0; de = readdir(d)) {
		size_t len = strlen(de->d_name);

		if (de->d_name[0] == '.')
			continue;
		/* A tree's directory, also where the pid file has gone; what is mounted there is not asked. */
		if (len > 4 && strcmp(de->d_name + len - 4, ".pid") == 0)
			rc = volume_add(ret, de->d_name, len - 4);
		else if (de->d_type == DT_DIR)
			rc = volume_add(ret, de->d_name, len);
	}
	closedir(d);
	if (rc < 0) {
		volumes_free(ret);
		return err_set(e, rc, "out of memory");
	}
	if (ret->nr)
		qsort(ret->all, ret->nr, sizeof(*ret->all), volume_compare);
	return 0;
}

void volumes_free(struct volumes *v)
{
	free(v->all);
	*v = (struct volumes){ 0 };
}

bool path_on_volume(const char *path, char ret_mount_point[PATH_MAX])
{
	struct mount_entry m;
	char *slash;

	/* What cannot be resolved is below a dead mount, or is one. */
	if (!realpath(path, ret_mount_point) && mount_point_resolve(path, ret_mount_point, PATH_MAX, NULL) < 0)
		snprintf(ret_mount_point, PATH_MAX, "%s", path);
	while (ret_mount_point[0] == '/') {
		if (mount_entry_find(ret_mount_point, NULL, &m) == 0)
			return strcmp(m.fstype, MOUNT_FSTYPE) == 0;
		slash = strrchr(ret_mount_point, '/');
		if (slash == ret_mount_point)
			break;
		*slash = '\0';
	}
	return false;
}

int volume_find(const char *id_or_path, struct volume *ret, struct err *e)
{
	bool is_path = strchr(id_or_path, '/') || access(id_or_path, F_OK) == 0;
	char mount_point[PATH_MAX] = "";
	struct volumes all;
	int rc = volumes_list(&all, e);
	bool on_volume;

	if (rc < 0)
		return rc;
	on_volume = is_path && path_on_volume(id_or_path, mount_point);
	rc = -ENOENT;
	for (size_t i = 0; i < all.nr && rc < 0; i++) {
		if (strcmp(all.all[i].id, id_or_path) != 0 &&
		    !(on_volume && strcmp(all.all[i].mount_point, mount_point) == 0))
			continue;
		*ret = all.all[i];
		rc = 0;
	}
	volumes_free(&all);
	if (rc == 0)
		return 0;
	if (on_volume)
		return err_set(e, rc, "%.512s is a volume of another run directory: set PENSTOCK_RUN_DIR", mount_point);
	return err_set(e, rc, "%.512s is neither a volume's id nor on a mounted volume; penstockctl ls lists them",
		       id_or_path);
}

struct snapshot *snapshot_new(void)
{
	void *p = mmap(NULL, sizeof(struct snapshot), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

struct snapshot *snapshot_free(struct snapshot *s)
{
	if (s)
		munmap(s, sizeof(*s));
	return NULL;
}

static int value_read(const char *tree, const struct ctl_spec *spec, struct snapshot_value *ret)
{
	_cleanup_close_ int fd = -1;
	char path[PATH_MAX + 64];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s/%s", tree, spec->dir, spec->name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, ret->text, sizeof(ret->text) - 1);
	if (n < 0)
		return -errno;
	ret->text[n] = '\0';
	ret->text[strcspn(ret->text, "\n")] = '\0';
	return 0;
}

static void __attribute__((noreturn)) snapshot_child(const char *tree, struct snapshot *s)
{
	int error = -ENOENT;

	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		s->value[i].error = value_read(tree, &ctl_specs[i], &s->value[i]);
		/* A directory without a tree has none of them. */
		if (s->value[i].error == 0)
			error = 0;
		if (s->value[i].error == -ENOTCONN) {
			error = -ENOTCONN;
			break;
		}
	}
	s->error = error;
	_exit(0);
}

void snapshot_take(const struct volume *v, struct snapshot *s)
{
	struct pollfd end = { .events = POLLIN };
	char tree[PATH_MAX];
	int fds[2];
	pid_t pid;

	s->taken_ns = clock_mono_ns();
	s->error = volumes_path(v->id, tree, NULL);
	if (s->error < 0)
		return;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		s->error = -errno;
		return;
	}
	s->error = -ETIMEDOUT;
	pid = fork();
	if (pid == 0)
		snapshot_child(tree, s);
	close(fds[1]);
	end.fd = fds[0];
	if (pid < 0)
		s->error = -errno;
	else if (poll(&end, 1, SNAPSHOT_WAIT_MS) < 1)
		kill(pid, SIGKILL);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	close(fds[0]);
}

bool snapshot_number(const struct snapshot *s, enum ctl_value which, uint64_t *ret)
{
	return s->error == 0 && s->value[which].error == 0 &&
	       number_parse(s->value[which].text, 0, UINT64_MAX, ret) == 0;
}

const char *snapshot_text(const struct snapshot *s, enum ctl_value which)
{
	return s->error == 0 && s->value[which].error == 0 ? s->value[which].text : "-";
}

const char *snapshot_state(const struct snapshot *s)
{
	switch (s->error) {
	case 0:
		return snapshot_text(s, CTL_STATE);
	case -ENOTCONN:
		return "dead";
	case -ETIMEDOUT:
		return "stuck";
	case -ENOENT:
		return "no tree";
	default:
		return strerror(-s->error);
	}
}

json_t *snapshot_json(const struct snapshot *s, enum ctl_value which)
{
	enum ctl_kind kind = ctl_specs[which].kind;
	uint64_t number;

	if (s->error || s->value[which].error)
		return json_null();
	if (kind == CTL_TEXT || kind == CTL_WORD)
		return json_string(s->value[which].text);
	if (!snapshot_number(s, which, &number))
		return json_null();
	return json_integer((json_int_t)min_of(number, (uint64_t)INT64_MAX));
}
