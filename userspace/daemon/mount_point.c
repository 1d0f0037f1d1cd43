// SPDX-License-Identifier: Apache-2.0
/*
 * Mount points: lines of mountinfo, and paths resolved without asking the file system that is mounted
 * there.
 */
#include "daemon/mount_point.h"

#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

#define LINKS_MAX 40

/* "\040" and its kin; anything else after a backslash stays as it is. */
static int octal_unescape(const char *src, size_t len, char *dst, size_t room)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char c = src[i];

		if (c == '\\' && len - i > 3 && src[i + 1] >= '0' && src[i + 1] <= '3' && src[i + 2] >= '0' &&
		    src[i + 2] <= '7' && src[i + 3] >= '0' && src[i + 3] <= '7') {
			c = (char)((src[i + 1] - '0') << 6 | (src[i + 2] - '0') << 3 | (src[i + 3] - '0'));
			i += 3;
		}
		if (n + 1 >= room)
			return -ENAMETOOLONG;
		dst[n++] = c;
	}
	dst[n] = '\0';
	return 0;
}

static int field_take(const char **cursor, char *dst, size_t room)
{
	size_t len = strcspn(*cursor, " \n");
	int rc = len ? octal_unescape(*cursor, len, dst, room) : -EBADMSG;

	*cursor += len;
	*cursor += **cursor == ' ';
	return rc;
}

int mount_entry_parse(const char *line, struct mount_entry *ret)
{
	const char *p;
	int n = 0, rc;

	/* ID PARENT MAJ:MIN ROOT MOUNT_POINT OPTIONS [TAG...] - FSTYPE SOURCE SUPER_OPTIONS */
	if (sscanf(line, "%d %d %u:%u %*s %n", &ret->id, &ret->parent_id, &ret->dev_major, &ret->dev_minor, &n) != 4 ||
	    !n)
		return -EBADMSG;
	p = line + n;
	rc = field_take(&p, ret->mount_point, sizeof(ret->mount_point));
	if (rc < 0)
		return rc;
	p = strstr(p, " - ");
	if (!p)
		return -EBADMSG;
	p += 3;
	rc = field_take(&p, ret->fstype, sizeof(ret->fstype));
	/* The source is only shown, and may be empty. */
	if (rc == 0 && field_take(&p, ret->source, sizeof(ret->source)) < 0)
		ret->source[0] = '\0';
	return rc;
}

static FILE *mountinfo_open(const char *mountinfo)
{
	return fopen(mountinfo ? mountinfo : "/proc/self/mountinfo", "re");
}

int mount_entry_find(const char *path, const char *mountinfo, struct mount_entry *ret)
{
	_cleanup_fclose_ FILE *f = mountinfo_open(mountinfo);
	_cleanup_free_ char *line = NULL;
	struct mount_entry entry;
	size_t room = 0;
	int rc = -ENOENT;

	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0) {
		if (mount_entry_parse(line, &entry) < 0 || strcmp(entry.mount_point, path) != 0)
			continue;
		/* Of two on one path the child is on top; the file mostly, but not always, has it later. */
		if (rc == 0 && ret->parent_id == entry.id)
			continue;
		*ret = entry;
		rc = 0;
	}
	return rc;
}

int mount_entry_find_below(const char *path, const char *mountinfo, struct mount_entry *ret)
{
	_cleanup_fclose_ FILE *f = mountinfo_open(mountinfo);
	_cleanup_free_ char *line = NULL;
	size_t room = 0, len = strlen(path);

	if (!f)
		return -errno;
	while (getline(&line, &room, f) > 0) {
		if (mount_entry_parse(line, ret) == 0 && strncmp(ret->mount_point, path, len) == 0 &&
		    ret->mount_point[len] == '/')
			return 0;
	}
	return -ENOENT;
}

/* realpath() of the directory part, and the last component as it is. */
static int parent_resolve(const char *path, char *ret, size_t room)
{
	char copy[PATH_MAX], real[PATH_MAX], *slash;
	size_t len = strlen(path);
	int n;

	if (len >= sizeof(copy))
		return -ENAMETOOLONG;
	memcpy(copy, path, len + 1);
	for (;;) {
		while (len > 1 && copy[len - 1] == '/')
			copy[--len] = '\0';
		if (len < 2 || strcmp(copy + len - 2, "/.") != 0)
			break;
		copy[--len] = '\0';
	}
	slash = strrchr(copy, '/');
	if (strcmp(slash, "/") == 0 || strcmp(slash, "/..") == 0) {
		if (!realpath(copy, real))
			return -errno;
		n = snprintf(ret, room, "%s", real);
	} else {
		*slash = '\0';
		if (!realpath(slash == copy ? "/" : copy, real))
			return -errno;
		n = snprintf(ret, room, "%s/%s", strcmp(real, "/") == 0 ? "" : real, slash + 1);
	}
	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

/* <to> as seen from the directory that holds the link <path>. */
static int link_follow(const char *path, const char *to, char *ret, size_t room)
{
	int dir_len = to[0] == '/' ? 0 : (int)(strrchr(path, '/') - path + 1);
	int n = snprintf(ret, room, "%.*s%s", dir_len, path, to);

	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

int mount_point_resolve(const char *dir, char *ret, size_t room, struct err *e)
{
	char path[PATH_MAX], cwd[PATH_MAX], to[PATH_MAX];
	ssize_t to_len;
	int rc = 0;

	if (dir[0] == '/')
		rc = link_follow("/", dir, path, sizeof(path));
	else if (!getcwd(cwd, sizeof(cwd)))
		rc = -errno;
	else if ((size_t)snprintf(path, sizeof(path), "%s/%s", cwd, dir) >= sizeof(path))
		rc = -ENAMETOOLONG;

	for (int i = 0; rc == 0 && i < LINKS_MAX; i++) {
		rc = parent_resolve(path, ret, room);
		if (rc < 0)
			break;
		/*
		 * On a mount point this ends at the root of what is mounted, which the kernel knows
		 * without asking.
		 */
		to_len = readlink(ret, to, sizeof(to) - 1);
		if (to_len < 0)
			return 0;
		to[to_len] = '\0';
		rc = link_follow(ret, to, path, sizeof(path));
	}
	if (rc == 0)
		rc = -ELOOP;
	if (rc == -ENOTCONN)
		return err_set(e, rc,
			       "%.512s is inside of a mount whose daemon is gone; give that mount's own directory",
			       dir);
	return err_set(e, rc, "%.512s: %s; give a directory that exists", dir, strerror(-rc));
}

int mount_point_prepare(char *path, struct err *e)
{
	char resolved[PATH_MAX];
	struct mount_entry there;
	struct stat st;
	int rc = mount_point_resolve(path, resolved, sizeof(resolved), e);

	if (rc < 0)
		return rc;
	if (mount_entry_find(resolved, NULL, &there) == 0 && strcmp(there.fstype, MOUNT_FSTYPE) == 0)
		return err_set(e, -EBUSY, "%.512s already has %.256s mounted; run penstock unmount %.128s first", path,
			       there.source, path);
	if (stat(resolved, &st) < 0) {
		rc = -errno;
		if (rc == -ENOTCONN)
			return err_set(e, -EBUSY, "%.512s has a dead mount of type %s on it; run umount %.256s first",
				       path, there.fstype, path);
		return err_set(e, rc, "%.512s: %s; give a directory that exists", path, strerror(-rc));
	}
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -ENOTDIR, "%.512s is not a directory", path);
	memcpy(path, resolved, strlen(resolved) + 1);
	return 0;
}
