/* SPDX-License-Identifier: Apache-2.0 */
/* What the tree and its mount share. Owner of all of it while mounted: the mount's thread. */
#ifndef PENSTOCK_CTL_CTL_I_H
#define PENSTOCK_CTL_CTL_I_H

#include <stdbool.h>
#include <time.h>

#include "base/list.h"
#include "ctl/tree.h"

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>

/* Node ids are places in the array, plus one: the root is FUSE_ROOT_ID. */
struct ctl_node {
	const char *name;
	size_t parent;
	const struct ctl_attr *attr; /* NULL = a directory */
	struct timespec mtime;       /* of the last value stored */
};

struct ctl_tree {
	void *ctx;
	size_t nr_nodes;
	struct ctl_node nodes[];
};

/* An open file. What its first read showed is what later reads of it go on with. */
struct ctl_file {
	struct list link;
	struct buf shown;
};

struct ctl_session {
	struct ctl_tree *tree;
	struct list files;
	unsigned nr_files;
	uid_t uid;
	gid_t gid;
};

/* -ENOENT */
int ctl_tree_lookup(const struct ctl_tree *t, size_t parent, const char *name, size_t *ret);

extern const struct fuse_lowlevel_ops ctl_session_ops;
void ctl_session_init(struct ctl_session *s, struct ctl_tree *tree);
/* Frees what the kernel had open when the connection ended. */
void ctl_session_done(struct ctl_session *s);

#endif
