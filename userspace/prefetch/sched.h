/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a plan to fetch now: the bytes of many files in the order they are expected to be read, and one window over
 * them. Pure: what was read goes in, ranges to fetch come out.
 *
 * Built with sched_new(), sched_file_add() and sched_range_add(), then sched_seal(); used after that. All is counted in
 * blocks of 128 KiB; a block that two ranges share belongs to the first. Threads: the owner's lock.
 */
#ifndef PENSTOCK_PREFETCH_SCHED_H
#define PENSTOCK_PREFETCH_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#define SCHED_BLOCK_BYTES (128u << 10)
#define SCHED_UNIT_BYTES (8u << 20)
/* Bounds the tables of one plan to some 40 MiB: 16 TiB in a million ranges. */
#define SCHED_BLOCKS_MAX (1u << 27)
#define SCHED_RANGES_MAX (1u << 20)
#define SCHED_FILES_MAX (1u << 16)

struct sched;

struct sched *sched_new(void);             /* NULL = no memory */
struct sched *sched_free(struct sched *s); /* returns NULL */
/* Returns the file's number. -E2BIG, -ENOMEM. */
int sched_file_add(struct sched *s, uint64_t size_bytes);
/* The next bytes in the order of reading. -EINVAL outside of the file, -E2BIG, -ENOMEM. */
int sched_range_add(struct sched *s, uint32_t file, uint64_t offset, uint64_t len);
/* No more ranges: 0 or -ENOMEM. */
int sched_seal(struct sched *s);

struct sched_limits {
	uint64_t window_bytes; /* most that is fetched and not yet read */
	uint64_t start_bytes;  /* the same before anything was read */
};

struct sched_range {
	uint32_t file;
	uint64_t offset, len;
};

/*
 * A reader got these bytes. <cached>: from the page cache, which proves the plan only where it had fetched them; else
 * they were there before, and what follows may be, too.
 */
void sched_consume(struct sched *s, uint32_t file, uint64_t offset, uint64_t len, bool cached);
/* Of <blocks> (bits, from <block> of the file on) what was given out and not read is to be given out again. */
void sched_lost(struct sched *s, uint32_t file, uint32_t block, uint64_t blocks);
/* The readers are others now: what was fetched and not read is forgotten, and all begins small. */
void sched_restart(struct sched *s);
/* A file is read anew: nothing of it counts as fetched or read, and what its readers show to want is fetched. */
void sched_file_rewind(struct sched *s, uint32_t file);
/* The next range to fetch, within one unit of one file; false when the window is full or nothing is left. */
bool sched_next(struct sched *s, const struct sched_limits *lim, struct sched_range *ret);
/* Only the first <accepted> bytes of a range given out could be asked for: the rest is given out again. */
void sched_cut(struct sched *s, const struct sched_range *r, uint64_t accepted);

struct sched_stats {
	uint64_t plan_bytes;
	uint64_t issued_bytes; /* given out to be fetched */
	uint64_t used_bytes;   /* of them: read */
	uint64_t read_bytes;   /* of the plan: read, fetched by it or not */
	/* The readers passed over much of what was fetched: fetching on would be for nobody. */
	bool wrong;
};
void sched_stats(const struct sched *s, struct sched_stats *ret);

#endif
