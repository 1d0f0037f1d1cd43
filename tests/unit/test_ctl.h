/* SPDX-License-Identifier: Apache-2.0 */
/* A daemon's values for the tests of the tuning tree: kept in memory, changed by set(). */
#ifndef PENSTOCK_TESTS_UNIT_TEST_CTL_H
#define PENSTOCK_TESTS_UNIT_TEST_CTL_H

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>

#include "ctl/table.h"

#define FAKE_NO_GPU CTL_TRACE_GPU

/* Written by the tree's thread, read by the test's. */
struct fake {
	_Atomic uint64_t number[CTL_NR_VALUES];
	_Atomic unsigned nr_sets;
	const char *state;
	struct ctl_ops ops;
};

static int fake_get(void *ctx, enum ctl_value which, struct ctl_cell *ret)
{
	struct fake *f = ctx;

	if (which == FAKE_NO_GPU)
		return -ENODATA;
	ret->number = f->number[which];
	if (ctl_specs[which].kind == CTL_TEXT)
		snprintf(ret->text, sizeof(ret->text), "%s", which == CTL_STATE ? f->state : "s3://bucket/prefix");
	return 0;
}

static int fake_set(void *ctx, enum ctl_value which, const struct ctl_cell *v)
{
	struct fake *f = ctx;

	if (which == FAKE_NO_GPU)
		return -EOPNOTSUPP;
	f->number[which] = v->number;
	f->nr_sets++;
	return 0;
}

/* Each number is its place times 1000, where it may be. */
static inline void fake_init(struct fake *f)
{
	*f = (struct fake){ .state = "ready", .ops = { .get = fake_get, .set = fake_set, .ctx = f } };
	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *s = &ctl_specs[i];
		uint64_t v = i * 1000;

		if (ctl_kind_writable(s->kind))
			v = v < s->min ? s->min : v > s->max ? s->max : v;
		f->number[i] = v;
	}
}

#endif
