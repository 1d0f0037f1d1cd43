// SPDX-License-Identifier: Apache-2.0
/*
 * The window over a plan.
 *
 * Design: the plan is a line of blocks. Readers are cursors on it: a read at or shortly behind or ahead of one moves
 * it, a read elsewhere starts one. What lies ahead of a cursor is fetched in proportion to what it has read. Beside
 * them a base fetches from the line's beginning, in proportion to all that was read, whatever the order: it is what
 * works before the first read, and for readers that jump. Both stay within the window of blocks that were fetched and
 * not read; where the base has filled it with what nobody reads, cursors get half as much again. A plan is wrong when
 * cursors leave most of what was fetched behind them unread.
 */
#define _GNU_SOURCE
#include "prefetch/sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define CURSORS_MAX 16
/* Reads of one stream arrive out of order by as much as the kernel has in flight. */
#define SLACK_BLOCKS 64
#define UNIT_BLOCKS (SCHED_UNIT_BYTES / SCHED_BLOCK_BYTES)
/* Within what was fetched for it, a stream may skip this much. */
#define SKIP_BLOCKS 256
#define GAIN 8
/* Of the base: readers that jump may not want all of the plan. */
#define BASE_GAIN 4
/* A block this far behind a cursor was passed over. */
#define PASSED_BLOCKS 256
#define VERDICT_BLOCKS 512
/* So near to the end of what was fetched a reader soon waits. */
#define HUNGRY_BLOCKS 16
#define NOWHERE UINT32_MAX

struct segment {
	uint32_t at;    /* its first block's place on the line */
	uint32_t block; /* among all files' blocks */
	uint32_t nr;
};

struct cursor {
	uint32_t at;    /* the block after the last one read */
	uint32_t ahead; /* given out, or not needed, up to here */
	uint32_t passed;
	uint32_t nr_proved;
	uint64_t used;
};

struct sched {
	uint32_t *file_block; /* the first block of each file; one more for the end */
	uint64_t *file_bytes;
	uint32_t nr_files, room_files;
	struct segment *seg;
	uint32_t *by_block; /* indices of segments, by block */
	uint32_t nr_segs, room_segs;
	uint32_t nr_blocks;                     /* of the plan */
	unsigned char *have;                    /* while building: blocks of files that a segment has */
	uint32_t room_have;                     /* in blocks */
	unsigned char *issued, *read, *by_base; /* by_base: of issued, those that no cursor asked for */
	struct cursor cursor[CURSORS_MAX];
	unsigned nr_cursors, turn;
	uint32_t base; /* given out, or not needed, up to here */
	uint64_t clock;
	uint32_t nr_issued, nr_used, nr_read, nr_proved, nr_waiting, nr_base_waiting; /* waiting: issued and not read */
	uint32_t nr_passed, nr_passed_unread;
};

static bool bit_get(const unsigned char *map, uint32_t i)
{
	return map[i / 8] >> (i % 8) & 1;
}

static void bit_set(unsigned char *map, uint32_t i)
{
	map[i / 8] |= (unsigned char)(1u << (i % 8));
}

static void bit_clear(unsigned char *map, uint32_t i)
{
	map[i / 8] &= (unsigned char)~(1u << (i % 8));
}

static bool room_make(void *table, uint32_t *room, uint32_t nr, size_t item_bytes)
{
	uint32_t more = max_of(*room * 2, 64u);
	void *p, *old;

	if (nr < *room)
		return true;
	memcpy(&old, table, sizeof(old));
	p = reallocarray(old, more, item_bytes);
	if (!p)
		return false;
	memcpy(table, &p, sizeof(p));
	*room = more;
	return true;
}

struct sched *sched_new(void)
{
	return calloc(1, sizeof(struct sched));
}

struct sched *sched_free(struct sched *s)
{
	if (!s)
		return NULL;
	free(s->file_block);
	free(s->file_bytes);
	free(s->seg);
	free(s->by_block);
	free(s->have);
	free(s->issued);
	free(s->read);
	free(s->by_base);
	free(s);
	return NULL;
}

static uint32_t files_end(const struct sched *s)
{
	return s->nr_files ? s->file_block[s->nr_files] : 0;
}

int sched_file_add(struct sched *s, uint64_t size_bytes)
{
	uint64_t nr = size_bytes / SCHED_BLOCK_BYTES + (size_bytes % SCHED_BLOCK_BYTES != 0), end = files_end(s) + nr;
	uint32_t room = s->room_files;
	size_t map_bytes;

	if (nr > SCHED_BLOCKS_MAX || end > SCHED_BLOCKS_MAX || s->nr_files == SCHED_FILES_MAX)
		return -E2BIG;
	if (!room_make(&s->file_block, &room, s->nr_files + 1, sizeof(*s->file_block)) ||
	    !room_make(&s->file_bytes, &s->room_files, s->nr_files + 1, sizeof(*s->file_bytes)))
		return -ENOMEM;
	if (end > s->room_have) {
		uint64_t want = max_of(end, (uint64_t)s->room_have * 2);
		uint32_t more = (uint32_t)min_of(want, (uint64_t)SCHED_BLOCKS_MAX);
		unsigned char *have = realloc(s->have, more / 8 + 1);

		if (!have)
			return -ENOMEM;
		map_bytes = s->room_have ? s->room_have / 8 + 1 : 0;
		memset(have + map_bytes, 0, more / 8 + 1 - map_bytes);
		s->have = have;
		s->room_have = more;
	}
	s->file_block[s->nr_files] = files_end(s);
	s->file_block[s->nr_files + 1] = (uint32_t)end;
	s->file_bytes[s->nr_files] = size_bytes;
	return (int)s->nr_files++;
}

static int segment_add(struct sched *s, uint32_t block, uint32_t nr)
{
	struct segment *last = s->nr_segs ? &s->seg[s->nr_segs - 1] : NULL;

	if (!nr)
		return 0;
	if (last && last->block + last->nr == block) {
		last->nr += nr;
	} else {
		if (s->nr_segs == SCHED_RANGES_MAX)
			return -E2BIG;
		if (!room_make(&s->seg, &s->room_segs, s->nr_segs, sizeof(*s->seg)))
			return -ENOMEM;
		s->seg[s->nr_segs++] = (struct segment){ .at = s->nr_blocks, .block = block, .nr = nr };
	}
	for (uint32_t i = 0; i < nr; i++)
		bit_set(s->have, block + i);
	s->nr_blocks += nr;
	return 0;
}

int sched_range_add(struct sched *s, uint32_t file, uint64_t offset, uint64_t len)
{
	uint32_t first, end, run;
	int rc;

	if (file >= s->nr_files || offset > s->file_bytes[file] || len > s->file_bytes[file] - offset)
		return -EINVAL;
	if (!len)
		return 0;
	first = s->file_block[file] + (uint32_t)(offset / SCHED_BLOCK_BYTES);
	end = s->file_block[file] + (uint32_t)((offset + len - 1) / SCHED_BLOCK_BYTES) + 1;
	for (run = first; first < end; first = run + 1) {
		for (run = first; run < end && !bit_get(s->have, run); run++)
			;
		rc = segment_add(s, first, run - first);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int segment_compare(const void *a, const void *b, void *ctx)
{
	const struct segment *seg = ctx;
	uint32_t x = seg[*(const uint32_t *)a].block, y = seg[*(const uint32_t *)b].block;

	return x < y ? -1 : x > y;
}

int sched_seal(struct sched *s)
{
	s->issued = calloc(s->nr_blocks / 8 + 1, 1);
	s->read = calloc(s->nr_blocks / 8 + 1, 1);
	s->by_base = calloc(s->nr_blocks / 8 + 1, 1);
	s->by_block = calloc(s->nr_segs + 1, sizeof(*s->by_block));
	if (!s->issued || !s->read || !s->by_base || !s->by_block)
		return -ENOMEM;
	for (uint32_t i = 0; i < s->nr_segs; i++)
		s->by_block[i] = i;
	qsort_r(s->by_block, s->nr_segs, sizeof(*s->by_block), segment_compare, s->seg);
	free(take_ptr(s->have));
	return 0;
}

/* The first segment, by block, that ends behind the block: its place in by_block, or nr_segs. */
static uint32_t segment_from(const struct sched *s, uint32_t block)
{
	uint32_t lo = 0, hi = s->nr_segs;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct segment *g = &s->seg[s->by_block[mid]];

		if (g->block + g->nr <= block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* A block's place on the line. */
static uint32_t place_of(const struct sched *s, uint32_t block)
{
	uint32_t i = segment_from(s, block);
	const struct segment *g = i < s->nr_segs ? &s->seg[s->by_block[i]] : NULL;

	return g && g->block <= block ? g->at + (block - g->block) : NOWHERE;
}

/* The segment that a place is in. */
static const struct segment *segment_at(const struct sched *s, uint32_t at)
{
	uint32_t lo = 0, hi = s->nr_segs;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (s->seg[mid].at <= at)
			lo = mid;
		else
			hi = mid;
	}
	return &s->seg[lo];
}

static struct cursor *cursor_find(struct sched *s, uint32_t at)
{
	struct cursor *best = NULL;
	uint32_t best_distance = NOWHERE;

	for (unsigned i = 0; i < s->nr_cursors; i++) {
		struct cursor *c = &s->cursor[i];
		uint32_t distance = at >= c->at ? at - c->at : c->at - at;
		uint32_t most = at >= c->at && at < c->ahead ? SKIP_BLOCKS : SLACK_BLOCKS;

		if (distance < best_distance && distance <= most) {
			best_distance = distance;
			best = c;
		}
	}
	return best;
}

static struct cursor *cursor_new(struct sched *s, uint32_t at)
{
	struct cursor *c = &s->cursor[0];

	if (s->nr_cursors < CURSORS_MAX) {
		c = &s->cursor[s->nr_cursors++];
	} else {
		for (unsigned i = 1; i < CURSORS_MAX; i++) {
			if (s->cursor[i].used < c->used)
				c = &s->cursor[i];
		}
	}
	*c = (struct cursor){ .at = at, .ahead = at, .passed = at };
	return c;
}

/* What lies well behind a cursor will not be read by it any more. */
static void cursor_pass(struct sched *s, struct cursor *c)
{
	for (; c->at > PASSED_BLOCKS && c->passed < c->at - PASSED_BLOCKS; c->passed++) {
		s->nr_passed++;
		s->nr_passed_unread += bit_get(s->issued, c->passed) && !bit_get(s->read, c->passed);
	}
}

static void place_read(struct sched *s, uint32_t at, bool cached)
{
	struct cursor *c = cursor_find(s, at);

	if (!c)
		c = cursor_new(s, at);
	c->used = ++s->clock;
	if (at >= c->at) {
		c->at = at + 1;
		c->ahead = max_of(c->ahead, c->at);
		cursor_pass(s, c);
	}
	if (bit_get(s->read, at))
		return;
	bit_set(s->read, at);
	s->nr_read++;
	if (bit_get(s->issued, at)) {
		s->nr_used++;
		s->nr_waiting--;
		s->nr_base_waiting -= bit_get(s->by_base, at);
	} else if (cached) {
		return;
	}
	/* A place of its own proves nothing: readers that only look around would get it all. */
	if (c->nr_proved++ || bit_get(s->issued, at))
		s->nr_proved++;
}

void sched_consume(struct sched *s, uint32_t file, uint64_t offset, uint64_t len, bool cached)
{
	uint32_t first, last;

	if (file >= s->nr_files || !len || offset >= s->file_bytes[file])
		return;
	len = min_of(len, s->file_bytes[file] - offset);
	first = s->file_block[file] + (uint32_t)(offset / SCHED_BLOCK_BYTES);
	last = s->file_block[file] + (uint32_t)((offset + len - 1) / SCHED_BLOCK_BYTES);
	for (uint32_t b = first; b <= last; b++) {
		uint32_t at = place_of(s, b);

		if (at != NOWHERE)
			place_read(s, at, cached);
	}
}

/* As if it had never been given out. */
static void place_recall(struct sched *s, uint32_t at)
{
	if (!bit_get(s->issued, at))
		return;
	bit_clear(s->issued, at);
	s->nr_issued--;
	if (bit_get(s->read, at)) {
		s->nr_used--;
	} else {
		s->nr_waiting--;
		s->nr_base_waiting -= bit_get(s->by_base, at);
	}
}

void sched_file_rewind(struct sched *s, uint32_t file)
{
	uint32_t first, end;

	if (file >= s->nr_files)
		return;
	first = s->file_block[file];
	end = s->file_block[file + 1];
	for (uint32_t i = segment_from(s, first); i < s->nr_segs && s->seg[s->by_block[i]].block < end; i++) {
		const struct segment *g = &s->seg[s->by_block[i]];

		for (uint32_t b = max_of(g->block, first); b < min_of(g->block + g->nr, end); b++) {
			uint32_t at = g->at + (b - g->block);

			place_recall(s, at);
			s->nr_read -= bit_get(s->read, at);
			bit_clear(s->read, at);
		}
	}
	/* The base stays: it is the cursors that know whether all of it is read again. */
	for (unsigned i = 0; i < s->nr_cursors; i++)
		s->cursor[i].ahead = s->cursor[i].at;
}

/*
 * The first run of blocks wanted within [*from, to), at most a unit of one file; *from moves over what is not. One that
 * <to> or <most> cuts short is worth a request only to the <hungry>: the others wait for the rest of it.
 */
static bool run_find(struct sched *s, uint32_t *from, uint32_t to, uint32_t most, bool hungry, struct sched_range *ret)
{
	const struct segment *g;
	uint32_t at, block, end, whole, file_end, lo = 0, hi = s->nr_files;

	while (*from < to && (bit_get(s->issued, *from) || bit_get(s->read, *from)))
		++*from;
	if (*from >= to || !most)
		return false;
	at = *from;
	g = segment_at(s, at);
	block = g->block + (at - g->at);
	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (s->file_block[mid] <= block)
			lo = mid;
		else
			hi = mid;
	}
	file_end = s->file_block[lo + 1];
	whole = min_of(g->at + g->nr, at + (file_end - block));
	/* A unit ends where the file's chunk ends. */
	whole = min_of(whole, at + UNIT_BLOCKS - (block - s->file_block[lo]) % UNIT_BLOCKS);
	end = min_of(whole, to);
	end = most < end - at ? at + most : end;
	if (end < whole && !hungry)
		return false;
	while (*from < end && !bit_get(s->issued, *from) && !bit_get(s->read, *from)) {
		bit_set(s->issued, *from);
		++*from;
	}
	s->nr_issued += *from - at;
	s->nr_waiting += *from - at;
	for (uint32_t i = at; i < *from; i++) {
		if (from == &s->base)
			bit_set(s->by_base, i);
		else
			bit_clear(s->by_base, i);
	}
	s->nr_base_waiting += from == &s->base ? *from - at : 0;
	ret->file = lo;
	ret->offset = (uint64_t)(block - s->file_block[lo]) * SCHED_BLOCK_BYTES;
	ret->len = min_of((uint64_t)(*from - at) * SCHED_BLOCK_BYTES, s->file_bytes[lo] - ret->offset);
	return true;
}

bool sched_next(struct sched *s, const struct sched_limits *lim, struct sched_range *ret)
{
	uint64_t window = min_of(lim->window_bytes / SCHED_BLOCK_BYTES, (uint64_t)s->nr_blocks * 2);
	uint64_t start = min_of(lim->start_bytes / SCHED_BLOCK_BYTES, window), reach, waiting;
	uint32_t room;

	/* What the base has fetched and nobody reads takes at most half of the window from the readers. */
	waiting = s->nr_waiting - s->nr_base_waiting + min_of((uint64_t)s->nr_base_waiting, window / 2);
	room = waiting < window ? (uint32_t)(window - waiting) : 0;
	for (unsigned i = 0; i < s->nr_cursors; i++) {
		struct cursor *c = &s->cursor[s->turn++ % s->nr_cursors];

		/* One block read proves nothing yet. */
		reach = c->nr_proved > 1 ? min_of((uint64_t)c->nr_proved * GAIN, window) : 0;
		reach = min_of((uint64_t)c->at + reach, (uint64_t)s->nr_blocks);
		if (run_find(s, &c->ahead, (uint32_t)reach, room, c->ahead - c->at < HUNGRY_BLOCKS, ret))
			return true;
	}
	reach = s->nr_waiting > s->nr_base_waiting ? window / 2 : window;
	reach = min_of(start + (uint64_t)s->nr_proved * BASE_GAIN, reach);
	room = s->nr_base_waiting < reach ? (uint32_t)(reach - s->nr_base_waiting) : 0;
	return run_find(s, &s->base, s->nr_blocks, room, s->nr_base_waiting < reach / 4, ret);
}

/* Given out, not read, and not here. */
static void place_lost(struct sched *s, uint32_t at)
{
	if (!bit_get(s->issued, at) || bit_get(s->read, at))
		return;
	place_recall(s, at);
	s->base = min_of(s->base, at);
	for (unsigned i = 0; i < s->nr_cursors; i++) {
		struct cursor *c = &s->cursor[i];

		if (at >= c->at && at < c->ahead)
			c->ahead = at;
	}
}

void sched_lost(struct sched *s, uint32_t file, uint32_t block, uint64_t blocks)
{
	for (; blocks; blocks &= blocks - 1) {
		uint32_t b = s->file_block[file] + block + (uint32_t)__builtin_ctzll(blocks), at = NOWHERE;

		if (b < s->file_block[file + 1])
			at = place_of(s, b);
		if (at != NOWHERE)
			place_lost(s, at);
	}
}

void sched_restart(struct sched *s)
{
	for (uint32_t at = 0; at < s->nr_blocks; at++)
		place_lost(s, at);
	s->nr_cursors = 0;
	s->nr_proved = 0;
	s->nr_passed = s->nr_passed_unread = 0;
}

void sched_cut(struct sched *s, const struct sched_range *r, uint64_t accepted)
{
	uint32_t first = s->file_block[r->file] + (uint32_t)(r->offset / SCHED_BLOCK_BYTES);
	uint32_t nr = (uint32_t)((r->len + SCHED_BLOCK_BYTES - 1) / SCHED_BLOCK_BYTES);
	uint32_t kept = (uint32_t)((accepted + SCHED_BLOCK_BYTES - 1) / SCHED_BLOCK_BYTES);
	uint32_t at = place_of(s, first);

	if (at == NOWHERE)
		return;
	for (uint32_t i = kept; i < nr; i++)
		place_recall(s, at + i);
	s->base = min_of(s->base, at + kept);
	for (unsigned i = 0; i < s->nr_cursors; i++) {
		struct cursor *c = &s->cursor[i];

		if (c->at <= at + kept && c->ahead > at + kept)
			c->ahead = at + kept;
	}
}

void sched_stats(const struct sched *s, struct sched_stats *ret)
{
	*ret = (struct sched_stats){
		.plan_bytes = (uint64_t)s->nr_blocks * SCHED_BLOCK_BYTES,
		.issued_bytes = (uint64_t)s->nr_issued * SCHED_BLOCK_BYTES,
		.used_bytes = (uint64_t)s->nr_used * SCHED_BLOCK_BYTES,
		.read_bytes = (uint64_t)s->nr_read * SCHED_BLOCK_BYTES,
		.wrong = s->nr_passed >= VERDICT_BLOCKS && s->nr_passed_unread > s->nr_passed / 2,
	};
}
