/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tree of attributes in the manner of sysfs: directories one deep, one value per file, each made of a show() and,
 * where it may be written, a store().
 */
#ifndef PENSTOCK_CTL_TREE_H
#define PENSTOCK_CTL_TREE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/buf.h"

#define CTL_SHOW_MAX_BYTES 4096
#define CTL_STORE_MAX_BYTES 4096

struct ctl_attr {
	const char *dir; /* "" = the root */
	const char *name;
	mode_t mode; /* 0444, or 0644 with a store() */
	/* Appends at most CTL_SHOW_MAX_BYTES. Must not wait: every reader of the tree waits with it. */
	int (*show)(void *ctx, const struct ctl_attr *a, struct buf *out);
	/* A whole value without its newline, not empty. -EINVAL = not a value, nothing has changed. Must not wait. */
	int (*store)(void *ctx, const struct ctl_attr *a, const char *text);
	const void *data; /* the owner's */
};

struct ctl_tree;

/* The table and what it points to must outlive the tree. NULL = no memory. */
struct ctl_tree *ctl_tree_new(const struct ctl_attr *table, size_t nr, void *ctx);
/* After its mount has stopped; returns NULL. */
struct ctl_tree *ctl_tree_free(struct ctl_tree *t);

/*
 * What a write(2) of <len> bytes does: checks that they are a value and hands it to store(). One newline at the end
 * is dropped. -EACCES without a store(), -EINVAL (empty, too long, with a NUL), else what store() returns.
 */
int ctl_attr_write(const struct ctl_attr *a, void *ctx, const char *bytes, size_t len);

#endif
