// SPDX-License-Identifier: Apache-2.0
/*
 * From ranges in consumption order to requests.
 *
 * Design: a loader that takes tensors by name hops between the regions of the data types: k interleaved streams. So
 * a range is extended by what follows it in the file and comes up soon, not only next, and what was given out is
 * remembered by region: the tensor, when its turn comes, is skipped.
 */
#include "prefetch/format_walk.h"

#include <string.h>

#include "base/cleanup.h"

/* How far ahead of its turn an item may be taken along. */
#define AHEAD_ITEMS 64
#define AHEAD_FACTOR 4

static uint64_t block_down(uint64_t at)
{
	return at - at % WALK_BLOCK_BYTES;
}

/* The block's end, or the file's. */
static uint64_t block_up(uint64_t at, uint64_t file_bytes)
{
	uint64_t rest = at % WALK_BLOCK_BYTES ? WALK_BLOCK_BYTES - at % WALK_BLOCK_BYTES : 0;

	return file_bytes <= at || file_bytes - at < rest ? file_bytes : at + rest;
}

/* Where an item lies in its file, on blocks; empty when it is past the file's end. */
static void item_span(const struct walk_item *it, uint64_t *ret_lo, uint64_t *ret_hi)
{
	uint64_t end = it->len > UINT64_MAX - it->offset ? UINT64_MAX : it->offset + it->len;

	*ret_lo = block_down(it->offset);
	*ret_hi = it->len ? block_up(end, it->file_bytes) : *ret_lo;
}

void walk_given(struct walk_cursor *c, uint32_t file, uint64_t lo, uint64_t hi)
{
	struct walk_region r = { .lo = lo, .hi = hi, .file = file };
	unsigned i = 0;

	while (i < c->nr_recent && (c->recent[i].file != file || c->recent[i].hi != lo))
		i++;
	if (i < c->nr_recent)
		r.lo = c->recent[i].lo;
	else if (c->nr_recent < WALK_RECENT_MAX)
		c->nr_recent++;
	else
		i = WALK_RECENT_MAX - 1;
	memmove(&c->recent[1], &c->recent[0], i * sizeof(r));
	c->recent[0] = r;
}

/* The first byte from <lo> on that was not given out; using a region keeps it. */
static uint64_t skip_given(struct walk_cursor *c, uint32_t file, uint64_t lo)
{
	for (unsigned i = 0; i < c->nr_recent; i++) {
		struct walk_region r = c->recent[i];

		if (r.file != file || lo < r.lo || lo >= r.hi)
			continue;
		lo = r.hi;
		memmove(&c->recent[1], &c->recent[0], i * sizeof(r));
		c->recent[0] = r;
		i = 0;
	}
	return lo;
}

/* Extends [lo, end) over what follows it in the file and comes up soon, at most to <limit>. */
static uint64_t extend(const struct walk_source *src, uint32_t next, const struct walk_item *first, uint64_t lo,
		       uint64_t end, uint64_t limit)
{
	uint64_t budget = (limit - lo) * AHEAD_FACTOR, passed = 0;
	uint32_t last = src->nr - next > AHEAD_ITEMS ? next + AHEAD_ITEMS : src->nr;

	for (uint32_t i = next; i < last && end < limit && passed < budget; i++) {
		struct walk_item it;
		uint64_t from, to;

		src->item(src->ctx, i, &it);
		item_span(&it, &from, &to);
		passed += to > from ? to - from : 0;
		if (it.file == first->file && from >= lo && from <= end && to > end)
			end = min_of(to, limit);
	}
	return end;
}

int walk_next(const struct walk_source *src, struct walk_cursor *c, uint64_t max_bytes, struct walk_item *ret_range)
{
	uint64_t lo = 0, hi = 0, end, limit;
	struct walk_item it;

	max_bytes = max_of(block_down(min_of(max_bytes, (uint64_t)1 << 40)), (uint64_t)WALK_BLOCK_BYTES);
	for (; c->next < src->nr; c->next++) {
		src->item(src->ctx, c->next, &it);
		item_span(&it, &lo, &hi);
		lo = skip_given(c, it.file, lo);
		if (lo < hi)
			break;
	}
	if (c->next >= src->nr)
		return 0;
	limit = it.file_bytes - lo < max_bytes ? it.file_bytes : lo + max_bytes;
	end = extend(src, c->next + 1, &it, lo, min_of(hi, limit), limit);
	if (end == limit && end < it.file_bytes && end - end % WALK_CHUNK_BYTES > lo)
		end -= end % WALK_CHUNK_BYTES;
	for (unsigned i = 0; i < c->nr_recent; i++) {
		if (c->recent[i].file == it.file && c->recent[i].lo > lo && c->recent[i].lo < end)
			end = c->recent[i].lo;
	}
	*ret_range = (struct walk_item){
		.offset = lo,
		.len = end - lo,
		.file_bytes = it.file_bytes,
		.file = it.file,
	};
	walk_given(c, it.file, lo, end);
	return 1;
}
