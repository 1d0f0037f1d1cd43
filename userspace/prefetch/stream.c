// SPDX-License-Identifier: Apache-2.0
/*
 * Stream detection and the ranges that follow from it.
 *
 * Design: a read next to a known region continues its stream; how far away "next to" may be grows with what the
 * stream has read, so that reads arriving out of order stay in it while random reads start streams of their own
 * that never widen. A stream's window is a multiple of what it has proved and grows only while its reader has to
 * wait. Large reads that keep appearing in new places, and never go on in an old one, are a file being read whole
 * in an order we do not know: then the rest is fetched from the start, in proportion to the evidence.
 */
#include "prefetch/stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define SLACK_MAX_BYTES (4u << 20)
#define LARGE_READ_BYTES (128u << 10)
#define STEP_MIN_BYTES (512u << 10)
#define SWEEP_EVIDENCE 5
#define SWEEP_UNIT_BYTES (16u << 20)
#define GAIN_PROVEN_BYTES (8u << 20)
/* Steps that are the same, before the next ones are believed. */
#define STRIDE_EVIDENCE 3
#define STRIDE_AHEAD_MAX 32

static uint64_t stream_slack(const struct stream *st)
{
	return min_of(st->consumed_bytes / 2, (uint64_t)SLACK_MAX_BYTES);
}

static uint64_t below(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

/* How far a read is from where the stream stands; UINT64_MAX when it is no part of it. */
static uint64_t stream_distance(const struct stream *st, uint64_t offset, uint64_t end, bool missed)
{
	uint64_t slack = stream_slack(st), distance;

	if (offset >= st->hi || end <= st->lo) {
		distance = offset >= st->hi ? offset - st->hi : st->lo - end;
		return distance <= slack ? distance : UINT64_MAX;
	}
	/*
	 * Inside what was read already: a late arrival, or, when it is gone and far behind, a reader that begins
	 * again.
	 */
	distance = st->direction < 0 ? below(offset, st->lo) : below(st->hi, end);
	return distance <= slack || !missed ? distance : UINT64_MAX;
}

static int stream_find(const struct stream_set *s, uint64_t offset, uint64_t end, bool missed)
{
	uint64_t best = UINT64_MAX;
	int found = -1;

	for (unsigned i = 0; i < s->nr; i++) {
		uint64_t distance = stream_distance(&s->stream[i], offset, end, missed);

		if (distance < best) {
			best = distance;
			found = (int)i;
		}
	}
	return found;
}

static int stream_new(struct stream_set *s, uint64_t offset, uint64_t end)
{
	unsigned victim = 0;

	if (s->nr < STREAM_MAX) {
		victim = s->nr++;
	} else {
		for (unsigned i = 1; i < STREAM_MAX; i++) {
			if (s->stream[i].used < s->stream[victim].used)
				victim = i;
		}
	}
	s->stream[victim] = (struct stream){
		.lo = offset,
		.hi = end,
		.consumed_bytes = end - offset,
		.from_start = offset == 0,
	};
	return (int)victim;
}

static void stream_turn(struct stream *st, int direction, uint64_t progress)
{
	if (st->direction != direction && st->direction != 0) {
		st->consumed_bytes = 0;
		st->window_bytes = 0;
	}
	if (st->direction != direction)
		st->ahead = direction > 0 ? st->hi : st->lo;
	st->direction = direction;
	st->consumed_bytes += progress;
}

static void stream_extend(struct stream *st, uint64_t offset, uint64_t end)
{
	if (end > st->hi) {
		uint64_t progress = end - max_of(offset, st->hi);

		st->hi = end;
		stream_turn(st, 1, progress);
	} else if (offset < st->lo) {
		uint64_t progress = min_of(end, st->lo) - offset;

		st->lo = offset;
		stream_turn(st, -1, progress);
	}
}

static uint64_t stream_window(struct stream *st, const struct stream_limits *lim, bool missed)
{
	/* Large reads from the first byte on are nearly always a file read whole. */
	uint64_t gain = st->from_start ? 8 : st->consumed_bytes >= GAIN_PROVEN_BYTES ? 4 : 2;
	uint64_t proven = min_of(st->consumed_bytes * gain, lim->window_max_bytes);

	if (missed || !st->window_bytes)
		st->window_bytes = max_of(st->window_bytes, proven);
	st->window_bytes = min_of(st->window_bytes, lim->window_max_bytes);
	/*
	 * The window is counted from what the reader has got; a unit beyond what it has asked for keeps requests
	 * large.
	 */
	return max_of(below(st->window_bytes, lim->waiting_bytes), min_of(st->window_bytes, lim->unit_bytes));
}

static struct stream_range stream_ahead(struct stream *st, const struct stream_limits *lim, uint64_t window)
{
	struct stream_range r = { 0 };
	uint64_t step = min_of(lim->unit_bytes, max_of(window / 4, (uint64_t)STEP_MIN_BYTES)), from, to;

	if (st->direction > 0) {
		from = max_of(st->ahead, st->hi);
		to = min_of(st->hi + window, lim->file_bytes);
		/* Whole units where the window spans them, and the file's end as it is. */
		if (to < lim->file_bytes && to / lim->unit_bytes > from / lim->unit_bytes)
			to -= to % lim->unit_bytes;
		if (to <= from || (to - from < step && to < lim->file_bytes))
			return r;
		st->ahead = to;
	} else {
		to = min_of(st->ahead, st->lo);
		from = below(st->lo, window);
		if (from && from / lim->unit_bytes < to / lim->unit_bytes && from % lim->unit_bytes)
			from += lim->unit_bytes - from % lim->unit_bytes;
		if (to <= from || (to - from < step && from))
			return r;
		st->ahead = from;
	}
	r.offset = from;
	r.len = to - from;
	return r;
}

/* The rest of a file that is being read whole in an unknown order. */
static struct stream_range stream_sweep(struct stream_set *s, const struct stream_limits *lim)
{
	struct stream_range r = { .stream = -1 };
	uint64_t allowed;

	if (s->nr_scattered < SWEEP_EVIDENCE || s->nr_returns * 4 > s->nr_scattered)
		return r;
	allowed = (uint64_t)SWEEP_UNIT_BYTES << min_of(s->nr_scattered - SWEEP_EVIDENCE + 2, 20u);
	allowed = min_of(allowed, lim->sweep_max_bytes) + s->read_bytes;
	allowed = allowed < lim->file_bytes ? allowed - allowed % lim->unit_bytes : lim->file_bytes;
	if (allowed <= s->sweep_next || (allowed - s->sweep_next < lim->unit_bytes && allowed < lim->file_bytes))
		return r;
	r.offset = s->sweep_next;
	r.len = allowed - s->sweep_next;
	s->sweep_next = allowed;
	return r;
}

/* A read away from all streams: does it keep the distance of those before? */
static bool stride_observe(struct stride *sd, uint64_t offset, uint64_t len)
{
	int64_t step = (int64_t)(offset - sd->offset);

	if (step == sd->step && len == sd->len) {
		sd->nr_repeats++;
	} else {
		sd->nr_repeats = 0;
		sd->ahead = offset;
	}
	sd->step = step;
	sd->offset = offset;
	sd->len = len;
	return sd->nr_repeats >= STRIDE_EVIDENCE - 1;
}

/* The next elements, more of them with every repeat, a few at a time. */
static void stride_plan(struct stride *sd, const struct stream_limits *lim, struct stream_plan *plan)
{
	uint64_t room = lim->window_max_bytes / sd->len, most = min_of((uint64_t)STRIDE_AHEAD_MAX, max_of(room, 1ull));
	uint64_t nr = min_of((uint64_t)sd->nr_repeats * 2, most), at;
	bool up = sd->step > 0;

	if (up ? sd->ahead < sd->offset : sd->ahead > sd->offset)
		sd->ahead = sd->offset;
	while (plan->nr < STREAM_PLAN_MAX - 1) {
		at = sd->ahead + (uint64_t)sd->step;
		/* Past the end, below the beginning (which wraps around), or far enough. */
		if (at >= lim->file_bytes || (up ? at - sd->offset : sd->offset - at) > nr * (uint64_t)llabs(sd->step))
			return;
		plan->range[plan->nr++] = (struct stream_range){ .offset = at,
								 .len = min_of(sd->len, lim->file_bytes - at),
								 .stream = STREAM_OF_STRIDE };
		sd->ahead = at;
	}
}

struct stream_range stream_first_touch(struct stream_set *s, const struct stream_limits *lim, uint64_t offset,
				       uint64_t len)
{
	struct stream_range r = { .stream = -1 };

	if (!s->touched && offset + len <= STREAM_FIRST_TOUCH_BYTES)
		r.len = min_of((uint64_t)STREAM_FIRST_TOUCH_BYTES, lim->file_bytes);
	s->touched = true;
	return r;
}

void stream_observe(struct stream_set *s, const struct stream_limits *lim, uint64_t offset, uint64_t len, bool missed,
		    struct stream_plan *ret_plan)
{
	uint64_t end = offset + len;
	int i = stream_find(s, offset, end, missed);
	bool striding = false;
	struct stream_range r = { 0 };
	struct stream *st;

	ret_plan->nr = 0;
	s->clock++;
	s->read_bytes += len;
	if (i < 0) {
		striding = s->nr && stride_observe(&s->stride, offset, len);
		if (!striding && len >= LARGE_READ_BYTES && s->nr)
			s->nr_scattered++;
		i = stream_new(s, offset, end);
	} else {
		if (i != s->last && s->stream[i].hi != offset + len)
			s->nr_returns++;
		stream_extend(&s->stream[i], offset, end);
	}
	st = &s->stream[i];
	st->used = s->clock;
	s->last = i;

	/* A large read at the very start is the beginning of a stream; elsewhere a second one must follow it. */
	if (st->direction == 0 && st->from_start && len >= LARGE_READ_BYTES * 4)
		stream_turn(st, 1, 0);
	if (st->direction != 0)
		r = stream_ahead(st, lim, stream_window(st, lim, missed));
	if (r.len) {
		r.stream = i;
		ret_plan->range[ret_plan->nr++] = r;
	}
	if (striding)
		stride_plan(&s->stride, lim, ret_plan);
	r = stream_sweep(s, lim);
	if (r.len)
		ret_plan->range[ret_plan->nr++] = r;
}

void stream_cut(struct stream_set *s, const struct stream_range *range, uint64_t accepted)
{
	if (range->stream == STREAM_OF_STRIDE) {
		/* This element and those behind it. */
		if (s->stride.step > 0 ? s->stride.ahead >= range->offset : s->stride.ahead <= range->offset)
			s->stride.ahead = range->offset - (uint64_t)s->stride.step;
		return;
	}
	if (range->stream < 0) {
		s->sweep_next = min_of(s->sweep_next, range->offset + accepted);
		return;
	}
	if (s->stream[range->stream].direction > 0)
		s->stream[range->stream].ahead = min_of(s->stream[range->stream].ahead, range->offset + accepted);
	else
		s->stream[range->stream].ahead = range->offset + range->len;
}
