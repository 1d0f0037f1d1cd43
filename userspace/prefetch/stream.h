/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What to fetch next, told from the reads of one inode: sequential streams, forward or backward, several at once,
 * reads at a constant distance, and large reads scattered over the whole file. Pure: positions in, ranges out.
 *
 * One set belongs to an inode, never to a handle: several processes may share one descriptor, and one reader may open a
 * file many times. Threads: the owner's lock.
 */
#ifndef PENSTOCK_PREFETCH_STREAM_H
#define PENSTOCK_PREFETCH_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#define STREAM_MAX 16
/* With its headers less than 16 times the 64 KiB that many readers want at first. */
#define STREAM_FIRST_TOUCH_BYTES (896u << 10)

struct stream {
	uint64_t lo, hi;         /* the region read so far */
	uint64_t ahead;          /* prefetched up to here (forward) or down to here (backward) */
	uint64_t consumed_bytes; /* progress in the present direction */
	uint64_t window_bytes;
	uint64_t used;   /* the set's clock at the last read */
	int direction;   /* 1 forward, -1 backward, 0 not known yet */
	bool from_start; /* began at the file's first byte */
};

/* The last read that was no part of a stream, and how far it was from the one before. */
struct stride {
	uint64_t offset, len;
	int64_t step;
	unsigned nr_repeats; /* of the step */
	uint64_t ahead;      /* fetched up to here (or down to here), as an offset of an element */
};

struct stream_set {
	struct stream stream[STREAM_MAX];
	unsigned nr;
	uint64_t clock;
	uint64_t read_bytes;
	unsigned nr_scattered; /* regions begun by a large read away from all others */
	/* reads that went on in another stream than the one before: interleaved, not scattered */
	unsigned nr_returns;
	int last;            /* index of the stream of the last read */
	uint64_t sweep_next; /* whole-file plan: fetched up to here */
	struct stride stride;
	bool touched;
};

struct stream_limits {
	uint64_t file_bytes;
	uint64_t unit_bytes; /* ranges end on multiples of it where they can: one GET each */
	/* of one stream: the wire's bandwidth-delay product, or this reader's share of the memory */
	uint64_t window_max_bytes;
	uint64_t waiting_bytes;   /* of reads in flight on this inode: they are part of the window */
	uint64_t sweep_max_bytes; /* of the whole-file plan: fetched and not yet read */
};

struct stream_range {
	uint64_t offset, len; /* len 0 = nothing */
	int stream;           /* index, -1 for the whole-file plan, -2 for an element of a stride */
};

#define STREAM_PLAN_MAX 8
#define STREAM_OF_STRIDE (-2)

struct stream_plan {
	struct stream_range range[STREAM_PLAN_MAX];
	unsigned nr;
};

/*
 * The bytes to ask for before a read, when it is the first touch of the file near its start: one request of about 1 MiB
 * instead of several small ones. len 0 otherwise.
 */
struct stream_range stream_first_touch(struct stream_set *s, const struct stream_limits *lim, uint64_t offset,
				       uint64_t len);

/* A read came; <missed> = it had to wait, so that the window is too small. Fills the plan. */
void stream_observe(struct stream_set *s, const struct stream_limits *lim, uint64_t offset, uint64_t len, bool missed,
		    struct stream_plan *ret_plan);

/* Only <accepted> bytes of a planned range could be asked for: the rest is planned again later. */
void stream_cut(struct stream_set *s, const struct stream_range *range, uint64_t accepted);

#endif
