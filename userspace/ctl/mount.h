/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tuning tree as a file system of its own, on a thread of its own.
 *
 * Whoever starts one holds the volume's claim, so that what is found mounted on the directory belongs to a daemon
 * that is dead.
 */
#ifndef PENSTOCK_CTL_MOUNT_H
#define PENSTOCK_CTL_MOUNT_H

#include "base/err.h"
#include "ctl/tree.h"

struct ctl_mount;

/*
 * Mounts <tree> on <dir>, an absolute path whose parent exists; makes the directory where it is missing and replaces
 * a dead daemon's tree. The tree is borrowed and must not be mounted twice.
 */
int ctl_mount_start(struct ctl_tree *tree, const char *dir, struct ctl_mount **ret, struct err *e);
/* Unmounts, also under open files, and removes the directory if it was made for this. NULL is fine; returns NULL. */
struct ctl_mount *ctl_mount_stop(struct ctl_mount *m);

/*
 * Removes the tree of a dead daemon and its directory. 1 = there was one, 0 = not, -errno = there is and it cannot be
 * unmounted.
 */
int ctl_mount_clear(const char *dir);

#endif
