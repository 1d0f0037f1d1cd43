/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks a list of ranges in consumption order and gives out what to fetch: on blocks, neighbours merged, nothing
 * twice. Knows neither formats nor profiles. Pure.
 */
#ifndef PENSTOCK_PREFETCH_FORMAT_WALK_H
#define PENSTOCK_PREFETCH_FORMAT_WALK_H

#include <stdint.h>

#define WALK_BLOCK_BYTES (128u << 10)
#define WALK_CHUNK_BYTES (8u << 20)
/* Regions remembered as given out: as many as streams may interleave. */
#define WALK_RECENT_MAX 16

struct walk_item {
	uint64_t offset, len;
	uint64_t file_bytes;
	uint32_t file;
};

struct walk_source {
	void (*item)(const void *ctx, uint32_t i, struct walk_item *ret_item);
	const void *ctx;
	uint32_t nr;
};

/* Zeroed = at the beginning. */
struct walk_cursor {
	uint32_t next; /* item that is not yet given out whole */
	uint32_t nr_recent;
	struct walk_region {
		uint64_t lo, hi;
		uint32_t file;
	} recent[WALK_RECENT_MAX]; /* the latest first */
};

/*
 * 1 and the next range, 0 at the end. The range is at most <max_bytes> long (at least a block), begins and ends on
 * blocks or at the file's end, and one that is cut to size ends on a chunk where it reaches one.
 */
int walk_next(const struct walk_source *src, struct walk_cursor *c, uint64_t max_bytes, struct walk_item *ret_range);

/* What was fetched before the walk began. */
void walk_given(struct walk_cursor *c, uint32_t file, uint64_t lo, uint64_t hi);

#endif
