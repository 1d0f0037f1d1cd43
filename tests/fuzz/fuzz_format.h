/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a weight file: a plan that holds together, or an error with a message. */
#ifndef PENSTOCK_FUZZ_FORMAT_H
#define PENSTOCK_FUZZ_FORMAT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "prefetch/format.h"

#define FUZZ_WALK_MAX 4096

/* Hands over what is needed, and <before> and <after> bytes more. */
static struct format_plan *fuzz_parse(enum format_kind kind, const uint8_t *data, size_t size, size_t before,
				      size_t after)
{
	struct format_parser *p = NULL;
	struct format_plan *plan = NULL;
	struct err e = { 0 };
	int rc = format_parser_new(kind, size, &p, &e);

	while (rc == 0) {
		struct format_range need = format_parser_need(p);
		uint64_t from = need.offset > before ? need.offset - before : 0;
		uint64_t to = need.offset + need.len;
		uint8_t *copy;

		if (!need.len || need.offset > size || need.len > size - need.offset)
			abort();
		to = to + after < size ? to + after : size;
		copy = malloc(to - from);
		if (!copy)
			abort();
		memcpy(copy, data + from, to - from);
		rc = format_parser_feed(p, from, copy, to - from, &e);
		free(copy);
	}
	if (rc == 1)
		plan = format_parser_take(p);
	if (rc < 0 ? !e.msg[0] || e.code != rc : !plan)
		abort();
	format_parser_free(p);
	return plan;
}

static void fuzz_walk(const struct format_plan *plan, enum format_order order)
{
	struct walk_cursor c = { 0 };
	struct format_range r;

	for (unsigned i = 0; i < FUZZ_WALK_MAX && format_plan_next(plan, order, &c, 1 << 20, &r) == 1; i++) {
		if (!r.len || r.len > 1 << 20 || r.offset % WALK_BLOCK_BYTES || r.offset >= plan->file_bytes ||
		    r.len > plan->file_bytes - r.offset)
			abort();
	}
}

static void fuzz_check(const struct format_plan *plan)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < plan->nr; i++) {
		const struct format_range *t = &plan->tensor[i];
		struct walk_cursor c;

		if (t->offset < end || t->len > plan->file_bytes || t->offset > plan->file_bytes - t->len)
			abort();
		end = t->offset + t->len;
		if (plan->by_name[i] >= plan->nr || plan->name_rank[plan->by_name[i]] != i)
			abort();
		if (t->len && (format_plan_locate(plan, FORMAT_ORDER_FILE, t->offset, &c) || c.next != i))
			abort();
	}
}

static int fuzz_format(enum format_kind kind, const uint8_t *data, size_t size)
{
	struct format_plan *plan = fuzz_parse(kind, data, size, 0, 0);
	struct format_plan *again = fuzz_parse(kind, data, size, 7, 1000);

	if (!plan != !again)
		abort();
	if (plan) {
		fuzz_check(plan);
		if (plan->nr != again->nr || memcmp(plan->by_name, again->by_name, plan->nr * sizeof(*plan->by_name)))
			abort();
		fuzz_walk(plan, FORMAT_ORDER_FILE);
		fuzz_walk(plan, FORMAT_ORDER_NAME);
	}
	format_plan_free(plan);
	format_plan_free(again);
	return 0;
}

#endif
