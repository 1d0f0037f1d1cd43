/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recorded profiles: which ranges of which objects a load of a dataset read, in which order, when, and by which
 * reader. Built from access events, kept as a small file, merged over loads, replayed in consumption order. Pure.
 *
 * A profile belongs to one version of a dataset, named by a digest that the caller makes of its keys, ETags and sizes,
 * and to one layout: how many processes read, and which slice each. A wrong profile costs speed, never a byte.
 *
 * Everything is counted in blocks of 128 KiB. Threads: the caller's lock; a finished profile is never changed.
 */
#ifndef PENSTOCK_PREFETCH_PROFILE_H
#define PENSTOCK_PREFETCH_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "prefetch/format_walk.h"

#define PROFILE_VERSION 1
#define PROFILE_BLOCK_BYTES WALK_BLOCK_BYTES
#define PROFILE_RUN_BLOCKS_MAX (WALK_CHUNK_BYTES / WALK_BLOCK_BYTES) /* of one access */
#define PROFILE_ACCESSES_MAX (1u << 20)
#define PROFILE_FILES_MAX 16384
#define PROFILE_FILE_MAX_BYTES (1ull << 48)
#define PROFILE_RANKS_MAX 64
#define PROFILE_KEY_MAX_BYTES 1024
#define PROFILE_ETAG_MAX_BYTES 256
#define PROFILE_DATASET_BYTES 32
#define PROFILE_ENCODED_MAX_BYTES (4u << 20)
/* A range that so many loads in a row have not read is forgotten. */
#define PROFILE_LOADS_KEPT 3

struct profile_file {
	char *key; /* relative to the volume's root */
	char *etag;
	uint64_t size_bytes;
};

struct profile_access {
	uint32_t file;
	uint32_t block;
	uint32_t time_ms; /* since the first access; never falls */
	uint16_t nr_blocks;
	uint8_t rank; /* of the process that came first */
	uint8_t age;  /* loads since one that read it */
};

/* A reader's slice, in blocks, with all files laid end to end in the order of their keys. */
struct profile_rank {
	uint64_t lo, hi;
	uint64_t nr_blocks;
};

struct profile {
	uint8_t dataset[PROFILE_DATASET_BYTES];
	uint32_t nr_loads;
	uint32_t nr_files, nr_accesses, nr_ranks;
	struct profile_file *file; /* sorted by key, as strcmp() does */
	struct profile_access *access;
	struct profile_rank rank[PROFILE_RANKS_MAX];
};

void profile_free(struct profile *p);

/* --- recording --- */

struct profile_builder;

/* <max_bytes> bounds the maps of what was read: one bit for each block of a file, once and for each of its readers. */
int profile_builder_new(const uint8_t dataset[PROFILE_DATASET_BYTES], size_t max_bytes,
			struct profile_builder **ret_builder);
void profile_builder_free(struct profile_builder *b);

/* Makes a file known, once. -ENOSPC for too many, -EINVAL for a key, an ETag or a size that does not fit. */
int profile_builder_file(struct profile_builder *b, const char *key, const char *etag, uint64_t size_bytes,
			 uint32_t *ret_file);

/*
 * An access by a process, any clock that does not start over. What lies past the file's end is cut off. Blocks that
 * were read before are not recorded again. -ENOSPC: full; what was recorded stays. -EINVAL: no such file.
 */
int profile_builder_add(struct profile_builder *b, int32_t pid, uint32_t file, uint64_t offset, uint64_t len,
			uint64_t time_ns);

/* What was recorded so far; the builder stays as it is. -ENODATA when that is nothing, -EEXIST for a key twice. */
int profile_builder_finish(const struct profile_builder *b, struct profile **ret_profile);

/* --- as a file --- */

/*
 * Appends the encoded profile to an empty <out>. Where it would be longer than out->max or PROFILE_ENCODED_MAX_BYTES
 * the last accesses are left out, *ret_left_out of them. -E2BIG when not even the files fit.
 */
int profile_encode(const struct profile *p, struct buf *out, uint32_t *ret_left_out);

/* -ENOEXEC no profile at all, -ENOTSUP another version, -EBADMSG truncated, damaged or hostile, -ENOMEM. */
int profile_decode(const void *bytes, size_t len, struct profile **ret_profile, struct err *e);

/* The name of a profile's file: the beginning of the dataset's digest, and the suffix. */
#define PROFILE_SUFFIX ".profile"
#define PROFILE_NAME_BYTES (PROFILE_DATASET_BYTES + sizeof(PROFILE_SUFFIX))
void profile_name(const uint8_t dataset[PROFILE_DATASET_BYTES], char ret[PROFILE_NAME_BYTES]);

/* --- more than one load --- */

/*
 * The same number of readers, and for each one in <a> one in <b> with about the same slice, in any order. With
 * <ret_map> (or NULL): the rank in <b> of each rank in <a>.
 */
bool profile_layout_matches(const struct profile *a, const struct profile *b, uint8_t ret_map[PROFILE_RANKS_MAX]);

/*
 * The newer load's accesses in their order and, after what they followed in the older one, those ranges that only
 * older loads read. -ESTALE for another dataset or another layout: then the newer one stands alone.
 */
int profile_merge(const struct profile *older, const struct profile *newer, struct profile **ret_profile);

/* --- replay --- */

struct profile_range {
	uint32_t file;
	uint32_t time_ms; /* when its first block was wanted */
	uint64_t offset, len;
};

/* As format_plan_next(): 1 and the next range in consumption order, 0 at the end; a zeroed cursor is at the start. */
int profile_next(const struct profile *p, struct walk_cursor *cursor, uint64_t max_bytes,
		 struct profile_range *ret_range);

/* --- for people --- */

struct profile_summary {
	uint64_t files_bytes; /* size of all files that were read from */
	uint64_t read_bytes;
	uint64_t aged_bytes; /* not read by the last load */
	uint32_t duration_ms;
	uint32_t nr_jumps; /* accesses that did not go on where the one before in the same file ended */
};

void profile_summarize(const struct profile *p, struct profile_summary *ret_summary);

/*
 * A picture: time to the right, the files one below the other, a mark for each access in its reader's colour, and
 * under them what was fetched (<fetched> may be NULL). -E2BIG when out->max is reached.
 */
int profile_svg(const struct profile *p, const struct profile_range *fetched, size_t nr_fetched, struct buf *out);

#endif
