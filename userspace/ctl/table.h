/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of a volume (penstock/ctl.h) as a table of attributes over two functions of the daemon.
 *
 * Threads: get() and set() are called from the tree's thread, get() from the metrics' thread at the same time.
 */
#ifndef PENSTOCK_CTL_TABLE_H
#define PENSTOCK_CTL_TABLE_H

#include "ctl/tree.h"
#include "ctl/value.h"

struct ctl_ops {
	/*
	 * Fills number or text of *ret, which is all zero. Takes no lock that is held across I/O. -errno where there
	 * is no such value: readers of the file get it, and metrics leave the value out.
	 */
	int (*get)(void *ctx, enum ctl_value which, struct ctl_cell *ret);
	/*
	 * Takes effect at once. <v> is in its range; -EINVAL when it is still not possible. As little waiting as get().
	 */
	int (*set)(void *ctx, enum ctl_value which, const struct ctl_cell *v);
	void *ctx;
};

/* By enum ctl_value. */
extern const struct ctl_spec ctl_specs[CTL_NR_VALUES];

/* A tree of all values. <ops> must outlive it. NULL = no memory. */
struct ctl_tree *ctl_table_tree_new(const struct ctl_ops *ops);

#endif
