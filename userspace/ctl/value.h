/* SPDX-License-Identifier: Apache-2.0 */
/* One value of the tuning tree: what it may be, and its text. Pure. */
#ifndef PENSTOCK_CTL_VALUE_H
#define PENSTOCK_CTL_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include <penstock/ctl.h>

#include "base/buf.h"

#define CTL_CELL_TEXT_MAX 2304

/* A value: the text of CTL_TEXT, else the number; a word's number is its place among the words. */
struct ctl_cell {
	uint64_t number;
	char text[CTL_CELL_TEXT_MAX];
};

struct ctl_spec {
	const char *dir, *name; /* dir "" = the root */
	enum ctl_value which;
	enum ctl_kind kind;
	enum ctl_unit unit;
	uint64_t min, max;        /* of what may be written */
	const char *const *words; /* of CTL_WORD, max + 1 of them */
	const char *help;
};

static inline bool ctl_kind_writable(enum ctl_kind kind)
{
	return kind >= CTL_BOOL;
}

/*
 * <text> without its newline. Everything that ctl_value_print() writes is accepted. -EINVAL for all else (empty,
 * blanks around it, out of range, of a kind that is not writable); *ret is then as it was.
 */
int ctl_value_parse(const struct ctl_spec *s, const char *text, struct ctl_cell *ret);

/* Appends the value and a newline; control characters in texts become blanks. -E2BIG, -ENOMEM. */
int ctl_value_print(const struct ctl_spec *s, const struct ctl_cell *v, struct buf *out);

#endif
