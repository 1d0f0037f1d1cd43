// SPDX-License-Identifier: Apache-2.0
/* Walking a plan: what comes next, where a reader stands, and which order it follows. */
#include "prefetch/format.h"

#include <errno.h>

#include "base/cleanup.h"

/* A reader may skip a few tensors that it has elsewhere, or that the page cache has. */
#define GUESS_STEP_MAX 16
#define GUESS_STEPS_MIN 3

static void item_by_file(const void *ctx, uint32_t i, struct walk_item *ret_item)
{
	const struct format_plan *plan = ctx;

	*ret_item = (struct walk_item){
		.offset = plan->tensor[i].offset,
		.len = plan->tensor[i].len,
		.file_bytes = plan->file_bytes,
	};
}

static void item_by_name(const void *ctx, uint32_t i, struct walk_item *ret_item)
{
	const struct format_plan *plan = ctx;

	item_by_file(plan, plan->by_name[i], ret_item);
}

int format_plan_next(const struct format_plan *plan, enum format_order order, struct walk_cursor *cursor,
		     uint64_t max_bytes, struct format_range *ret_range)
{
	struct walk_source src = {
		.item = order == FORMAT_ORDER_NAME ? item_by_name : item_by_file,
		.ctx = plan,
		.nr = plan->nr,
	};
	struct walk_item range;
	int rc = walk_next(&src, cursor, max_bytes, &range);

	if (rc == 1)
		*ret_range = (struct format_range){ .offset = range.offset, .len = range.len };
	return rc;
}

/* The tensor that holds <offset>, or plan->nr. */
static uint32_t tensor_at(const struct format_plan *plan, uint64_t offset)
{
	uint32_t lo = 0, hi = plan->nr;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (plan->tensor[mid].offset <= offset)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || offset - plan->tensor[lo - 1].offset >= plan->tensor[lo - 1].len)
		return plan->nr;
	return lo - 1;
}

int format_plan_locate(const struct format_plan *plan, enum format_order order, uint64_t offset,
		       struct walk_cursor *ret_cursor)
{
	uint32_t i = tensor_at(plan, offset);
	uint64_t lo, hi;

	if (i == plan->nr)
		return -ENOENT;
	*ret_cursor = (struct walk_cursor){ .next = order == FORMAT_ORDER_NAME ? plan->name_rank[i] : i };
	lo = plan->tensor[i].offset - plan->tensor[i].offset % WALK_BLOCK_BYTES;
	hi = offset - offset % WALK_BLOCK_BYTES;
	if (hi > lo)
		walk_given(ret_cursor, 0, lo, hi);
	return 0;
}

/* How many steps from tensor to tensor stay on the spot or go a little forward, and how many there are. */
struct score {
	uint32_t fits, steps;
};

static void score_step(struct score *s, uint32_t from, uint32_t to)
{
	s->fits += to > from && to - from <= GUESS_STEP_MAX;
	s->steps++;
}

int format_order_guess(const struct format_plan *plan, const struct format_range *access, size_t nr,
		       enum format_order *ret_order)
{
	struct score by_file = { 0 }, by_name = { 0 };
	uint32_t last = plan->nr;

	for (size_t i = 0; i < nr; i++) {
		uint32_t t = tensor_at(plan, access[i].offset);

		if (t == plan->nr || t == last)
			continue;
		if (last != plan->nr) {
			score_step(&by_file, last, t);
			score_step(&by_name, plan->name_rank[last], plan->name_rank[t]);
		}
		last = t;
	}
	if (by_file.steps < GUESS_STEPS_MIN)
		return -EAGAIN;
	if (max_of(by_file.fits, by_name.fits) * 4 < by_file.steps * 3)
		return -ENOENT;
	*ret_order = by_name.fits > by_file.fits ? FORMAT_ORDER_NAME : FORMAT_ORDER_FILE;
	return 0;
}
