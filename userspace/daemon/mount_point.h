/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mount points, looked at without touching what is mounted on them: a file system whose daemon is dead
 * fails every call and one whose daemon is stuck never answers.
 */
#ifndef PENSTOCK_DAEMON_MOUNT_POINT_H
#define PENSTOCK_DAEMON_MOUNT_POINT_H

#include <limits.h>
#include <stddef.h>

#include "base/err.h"

#define MOUNT_FSTYPE "fuse.penstock"

/* A line of /proc/self/mountinfo. */
struct mount_entry {
	int id, parent_id;
	unsigned dev_major, dev_minor; /* of its bdi, too */
	char mount_point[PATH_MAX];
	char fstype[64];
	char source[PATH_MAX];
};

/* -EBADMSG: not such a line; -ENAMETOOLONG: a name too long. */
int mount_entry_parse(const char *line, struct mount_entry *ret);

/*
 * The topmost mount on exactly this path, in a file like /proc/self/mountinfo (NULL: that one).
 * -ENOENT: none.
 */
int mount_entry_find(const char *path, const char *mountinfo, struct mount_entry *ret);
/* A mount below this path, if any. */
int mount_entry_find_below(const char *path, const char *mountinfo, struct mount_entry *ret);

/*
 * The absolute path of <dir> without symlinks; its last component is read as a link and not otherwise
 * looked at.
 */
int mount_point_resolve(const char *dir, char *ret, size_t room, struct err *e);

/*
 * Before a mount: resolves symlinks in <path> (room PATH_MAX) in place; -ENOENT, -ENOTDIR, -EBUSY (a
 * penstock mount is there, or a dead one of another kind), each with a sentence.
 */
int mount_point_prepare(char *path, struct err *e);

#endif
