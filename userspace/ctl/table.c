// SPDX-License-Identifier: Apache-2.0
/* The table of a volume's values, bound to the daemon's get() and set(). */
#include "ctl/table.h"

#include <stdint.h>

#include "base/cleanup.h"

static const char *const prefetch_modes[] = {
	[CTL_PREFETCH_OFF] = "off",
	[CTL_PREFETCH_AUTO] = "auto",
	[CTL_PREFETCH_EAGER] = "eager",
};

#define SPEC(id, dir_, name_, kind_, unit_, min_, max_, help_)                   \
	[CTL_##id] = { .dir = dir_,                                              \
		       .name = name_,                                            \
		       .which = CTL_##id,                                        \
		       .kind = CTL_##kind_,                                      \
		       .unit = CTL_##unit_,                                      \
		       .min = min_,                                              \
		       .max = max_,                                              \
		       .words = CTL_##kind_ == CTL_WORD ? prefetch_modes : NULL, \
		       .help = help_ },

const struct ctl_spec ctl_specs[CTL_NR_VALUES] = { CTL_VALUES(SPEC) };

static int value_show(void *ctx, const struct ctl_attr *a, struct buf *out)
{
	const struct ctl_spec *s = a->data;
	const struct ctl_ops *ops = ctx;
	struct ctl_cell v = { 0 };
	int rc = ops->get(ops->ctx, s->which, &v);

	return rc < 0 ? rc : ctl_value_print(s, &v, out);
}

static int value_store(void *ctx, const struct ctl_attr *a, const char *text)
{
	const struct ctl_spec *s = a->data;
	const struct ctl_ops *ops = ctx;
	struct ctl_cell v;
	int rc = ctl_value_parse(s, text, &v);

	return rc < 0 ? rc : ops->set(ops->ctx, s->which, &v);
}

#define ATTR(id, dir_, name_, kind_, ...)                                     \
	[CTL_##id] = { .dir = dir_,                                           \
		       .name = name_,                                         \
		       .mode = CTL_##kind_ >= CTL_BOOL ? 0644 : 0444,         \
		       .show = value_show,                                    \
		       .store = CTL_##kind_ >= CTL_BOOL ? value_store : NULL, \
		       .data = &ctl_specs[CTL_##id] },

static const struct ctl_attr attrs[CTL_NR_VALUES] = { CTL_VALUES(ATTR) };

struct ctl_tree *ctl_table_tree_new(const struct ctl_ops *ops)
{
	/* The tree hands its context back and never writes to it. */
	return ctl_tree_new(attrs, array_len(attrs), (void *)(uintptr_t)ops);
}
