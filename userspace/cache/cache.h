/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chunk store: what has arrived of which object version, in a memory slab with a hard budget.
 *
 * Design: an object version is cut into chunks of 8 MiB; a chunk is the unit of naming, eviction and single flight,
 * and holds a bitmap of 128 KiB blocks, the unit of memory and of fetching. A block is absent, pending (one fetch
 * brings it, whoever wants it joins) or present. Data of two versions never meet: the version is part of the name.
 * Threads: any. One lock guards all of it and is never held across I/O, a copy or a callback.
 */
#ifndef PENSTOCK_CACHE_CACHE_H
#define PENSTOCK_CACHE_CACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>

#include "base/list.h"
#include "s3/client.h"

#define CACHE_CHUNK_BYTES (8u << 20)
#define CACHE_BLOCK_BYTES (128u << 10)
#define CACHE_CHUNK_BLOCKS 64
#define CACHE_READ_MAX_BYTES CACHE_CHUNK_BYTES
/* Reads of <= CACHE_READ_MAX_BYTES at any offset never need more. */
#define CACHE_READ_IOV_MAX (CACHE_CHUNK_BLOCKS + 1)

struct cache;
struct cache_object;
struct cache_chunk;

/* Where bytes come from: the S3 client, or a stand-in in tests. */
struct cache_source {
	void (*submit)(void *ctx, struct s3_get *g);
	void (*promote)(void *ctx, struct s3_op *op);
	void *ctx;
};

struct cache_config {
	uint64_t budget_bytes; /* of data blocks, a multiple of the block or rounded down */
	uint64_t max_bytes;    /* cache_budget_set() may raise it to this; below budget_bytes: no more than that */
	uint64_t read_deadline_ns;
	struct cache_source source;
};

struct cache *cache_new(const struct cache_config *cfg); /* NULL = no memory */
/* After the source has stopped and every read has ended; returns NULL. */
struct cache *cache_free(struct cache *c);

/* One version of one object. The strings are copied. NULL = no memory. */
struct cache_object *cache_object_get(struct cache *c, const char *key, const char *etag, uint64_t size_bytes,
				      time_t mtime);
struct cache_object *cache_object_ref(struct cache_object *o);
void cache_object_put(struct cache *c, struct cache_object *o);
const char *cache_object_key(const struct cache_object *o);
const char *cache_object_etag(const struct cache_object *o);
uint64_t cache_object_size(const struct cache_object *o);
/* Grows whenever something is asked for again that a reader had got before: the page cache has lost it. */
uint32_t cache_object_pass(const struct cache_object *o);
/* Grows whenever something that was prefetched is gone unread, or failed to come. */
uint32_t cache_object_lost(const struct cache_object *o);
/* The blocks of a chunk that are here or on their way, as bits. */
uint64_t cache_object_blocks(const struct cache_object *o, uint32_t chunk);
/* The server has another version now: uncached reads answer -ESTALE from here on. */
bool cache_object_stale(const struct cache_object *o);

struct cache_wait {
	struct list link; /* the chunk's waiters */
	struct cache_read *read;
	struct cache_chunk *chunk;
	uint64_t mask;   /* blocks of the chunk inside the read */
	uint64_t need;   /* of them: not here yet */
	uint64_t direct; /* of them: written straight to the payload */
};

/* A read in progress, in the caller's memory until it has ended. */
struct cache_read {
	/* the caller's */
	struct cache_object *object;
	uint64_t offset;
	uint32_t len;  /* > 0, within the object, <= CACHE_READ_MAX_BYTES */
	bool keep;     /* nobody else keeps the data (O_DIRECT): leave it in the slab */
	void *payload; /* len bytes that blocks may be written to as they arrive; NULL = none */
	void (*done)(struct cache_read *r, int error);

	/* the cache's */
	struct list link;
	struct cache_wait wait[2];
	unsigned nr_waits;
	bool starved, missed, settled;
	int error;
	uint64_t deadline_ns;
};

/*
 * 0 = all is here; -EINPROGRESS = done() will be called once, from a thread that must not be blocked; else -errno.
 * After 0 and after done(0), take the data with cache_read_fill() or cache_read_iov() and end with
 * cache_read_end(); an error has ended the read already.
 */
int cache_read_start(struct cache *c, struct cache_read *r);
/* A read in progress ends in <error> now, unless it is just ending by itself. Not after its end. */
void cache_read_cancel(struct cache *c, struct cache_read *r, int error);
/* Copies to the payload what was not written there directly. */
void cache_read_fill(struct cache_read *r);
/* Points into the slab; valid until the end. Returns the number of vectors, <= CACHE_READ_IOV_MAX. */
int cache_read_iov(const struct cache_read *r, struct iovec *iov);
void cache_read_end(struct cache *c, struct cache_read *r);

/*
 * Asks for [offset, offset + len) ahead of need, without evicting what was prefetched and not yet read. Blocks that are
 * here, on their way or (with <skip_served>) were handed to a reader before are left out. Returns how many bytes from
 * <offset> on are now taken care of: less than <len> when the memory is used up.
 */
uint64_t cache_prefetch(struct cache *c, struct cache_object *o, uint64_t offset, uint64_t len, bool skip_served);

/* From now on; what is above it is evicted as soon as nobody uses it. -EINVAL: below a chunk, or above max_bytes. */
int cache_budget_set(struct cache *c, uint64_t budget_bytes);

/* Housekeeping, once a second or so, from one thread: deadlines, memory given back when idle. */
void cache_tick(struct cache *c);

struct cache_stats {
	uint64_t budget_bytes, used_bytes, resident_bytes;
	uint64_t hit_bytes, miss_bytes, evicted_bytes, direct_bytes;
	uint64_t fetched_bytes;
};
void cache_stats(struct cache *c, struct cache_stats *ret);

#endif
