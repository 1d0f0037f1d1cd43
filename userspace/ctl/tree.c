// SPDX-License-Identifier: Apache-2.0
/* The tree of attributes: a flat array of nodes, the root first, each directory before what is in it. */
#include "ctl/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl_i.h"

int ctl_tree_lookup(const struct ctl_tree *t, size_t parent, const char *name, size_t *ret)
{
	for (size_t i = 1; i < t->nr_nodes; i++) {
		if (t->nodes[i].parent == parent && strcmp(t->nodes[i].name, name) == 0) {
			*ret = i;
			return 0;
		}
	}
	return -ENOENT;
}

static size_t node_add(struct ctl_tree *t, size_t parent, const char *name, const struct ctl_attr *attr)
{
	t->nodes[t->nr_nodes] =
		(struct ctl_node){ .name = name, .parent = parent, .attr = attr, .mtime = t->nodes[0].mtime };
	return t->nr_nodes++;
}

struct ctl_tree *ctl_tree_new(const struct ctl_attr *table, size_t nr, void *ctx)
{
	/* At worst each attribute has a directory of its own. */
	struct ctl_tree *t = calloc(1, sizeof(*t) + (2 * nr + 1) * sizeof(t->nodes[0]));

	if (!t)
		return NULL;
	t->ctx = ctx;
	t->nr_nodes = 1;
	t->nodes[0].name = "";
	clock_gettime(CLOCK_REALTIME, &t->nodes[0].mtime);
	for (size_t i = 0; i < nr; i++) {
		const struct ctl_attr *a = &table[i];
		size_t dir = 0;

		if (a->dir[0] && ctl_tree_lookup(t, 0, a->dir, &dir) < 0)
			dir = node_add(t, 0, a->dir, NULL);
		node_add(t, dir, a->name, a);
	}
	return t;
}

struct ctl_tree *ctl_tree_free(struct ctl_tree *t)
{
	free(t);
	return NULL;
}

int ctl_attr_write(const struct ctl_attr *a, void *ctx, const char *bytes, size_t len)
{
	char text[CTL_STORE_MAX_BYTES + 1];

	if (!a->store)
		return -EACCES;
	if (len > CTL_STORE_MAX_BYTES)
		return -EINVAL;
	if (len && bytes[len - 1] == '\n')
		len--;
	if (len == 0 || memchr(bytes, '\0', len))
		return -EINVAL;
	memcpy(text, bytes, len);
	text[len] = '\0';
	return a->store(ctx, a, text);
}
