/* SPDX-License-Identifier: Apache-2.0 */
/* What the cache's own files share. */
#ifndef PENSTOCK_CACHE_CACHE_I_H
#define PENSTOCK_CACHE_CACHE_I_H

#include <pthread.h>

#include "cache/cache.h"
#include "cache/slab.h"

#define CACHE_HASH_BUCKETS 4096

/* The blocks of a chunk that are in memory; kept only while there are any. */
struct cache_blocks {
	uint32_t slot[CACHE_CHUNK_BLOCKS];
	uint32_t consumed_bytes[CACHE_CHUNK_BLOCKS];
	uint16_t pins[CACHE_CHUNK_BLOCKS];
};

struct cache_chunk {
	struct cache_object *object;
	uint32_t index;
	uint32_t nr_pins;
	uint64_t present, pending;
	uint64_t served;      /* handed to a reader in this pass over the object */
	uint64_t whole;       /* of them: every byte of it, to readers whose page cache keeps it */
	uint32_t pass;        /* that both belong to */
	uint64_t speculative; /* prefetched and not read yet */
	uint64_t touched_ns;
	struct cache_blocks *blocks;
	struct list lru;     /* on the cache's list while blocks is set */
	struct list waits;   /* struct cache_wait */
	struct list fetches; /* struct cache_fetch */
};

struct cache_object {
	struct list hash;
	struct cache *cache;
	unsigned refs; /* holders, fetches, and one while any chunk has blocks */
	unsigned nr_cached_chunks;
	uint32_t nr_chunks;
	uint32_t pass; /* counts how often the page cache lost what it had been given */
	uint32_t lost; /* counts what was prefetched in vain: gone unread, or failed to come */
	bool stale;
	uint64_t size_bytes, name_hash;
	time_t mtime;
	struct cache_chunk **chunk;
	char *etag; /* behind the key in the same allocation */
	char key[];
};

/* One ranged GET: a run of blocks of one chunk. */
struct cache_fetch {
	struct s3_get get;
	struct cache *cache;
	struct cache_chunk *chunk;
	struct list link; /* the chunk's fetches, or a list to submit */
	unsigned first_block, nr_blocks;
	unsigned nr_reserved; /* slots promised and not yet taken */
	/*
	 * The block that is arriving; the S3 thread's, but for dest, which a failing read may take away under the
	 * lock.
	 */
	bool block_open;
	unsigned nr_closed; /* blocks that have arrived, from the first on */
	uint32_t slot;
	struct cache_wait *direct_to; /* guard: the cache's lock */
	pthread_mutex_t dest_lock;    /* inside the cache's lock; held while copying to a payload */
	unsigned char *dest;          /* NULL = nobody wants this block any more */
};

struct cache {
	struct cache_config cfg;
	pthread_mutex_t lock; /* guards everything below and all chunks and objects */
	struct slab slab;
	struct list bucket[CACHE_HASH_BUCKETS];
	struct list lru;     /* chunks with blocks, most recently used first */
	struct list reads;   /* waiting, oldest first */
	struct list starved; /* waiting for memory, oldest first */
	uint64_t active_ns;  /* last time anybody read */
	bool trimmed, dropped;
	pthread_t warmer;
	pthread_cond_t warm_cond;
	bool warmer_running, stopping;
	struct cache_stats stats;
};

static inline uint64_t blocks_mask(unsigned first, unsigned nr)
{
	return (nr >= 64 ? ~0ull : (1ull << nr) - 1) << first;
}

static inline uint64_t chunk_offset(const struct cache_chunk *ch)
{
	return (uint64_t)ch->index * CACHE_CHUNK_BYTES;
}

/* Bytes of block <b>: the last one of an object is shorter. */
static inline uint32_t block_bytes(const struct cache_chunk *ch, unsigned b)
{
	uint64_t start = chunk_offset(ch) + (uint64_t)b * CACHE_BLOCK_BYTES;

	return (uint32_t)min_of((uint64_t)CACHE_BLOCK_BYTES, ch->object->size_bytes - start);
}

static inline unsigned chunk_nr_blocks(const struct cache_chunk *ch)
{
	uint64_t left = ch->object->size_bytes - chunk_offset(ch);

	return (unsigned)((min_of(left, (uint64_t)CACHE_CHUNK_BYTES) + CACHE_BLOCK_BYTES - 1) / CACHE_BLOCK_BYTES);
}

static inline uint64_t cache_chunk_served(const struct cache_chunk *ch)
{
	return ch->pass == ch->object->pass ? ch->served : 0;
}

static inline uint64_t cache_chunk_whole(const struct cache_chunk *ch)
{
	return ch->pass == ch->object->pass ? ch->whole : 0;
}

static inline void cache_chunk_serve(struct cache_chunk *ch, uint64_t bits, uint64_t whole)
{
	ch->served = cache_chunk_served(ch) | bits;
	ch->whole = cache_chunk_whole(ch) | whole;
	ch->pass = ch->object->pass;
}

/* object.c; all under the lock */
struct cache_chunk *cache_chunk_find(struct cache_object *o, uint32_t index, bool create);
void cache_object_unref(struct cache *c, struct cache_object *o);
int cache_chunk_hold_blocks(struct cache *c, struct cache_chunk *ch);
void cache_chunk_drop_blocks(struct cache *c, struct cache_chunk *ch);
void cache_block_free(struct cache *c, struct cache_chunk *ch, unsigned b);
/* Frees blocks until <nr> slots are available; <gentle> spares what was prefetched and not read yet. */
bool cache_make_room(struct cache *c, uint32_t nr, bool gentle);
/* Frees the chunk that was used least lately and that nobody uses; false: there is none. */
bool cache_evict_last(struct cache *c);
/* Frees every block that nobody uses; but with <all> not what was prefetched lately. */
void cache_evict_idle(struct cache *c, bool all);

/* cache.c; under the lock but for the last two */
/* The read has all it needs, or failed: off every list. It is added to <done>. */
void cache_read_settle(struct cache_read *r, int error, struct list *done);
void cache_waits_arrived(struct cache *c, struct cache_chunk *ch, uint64_t bit, bool present, struct list *done);
/* Runs the callbacks, without the lock. */
void cache_reads_done(struct list *done);
/* Starts reads that waited for memory, as far as it reaches; without the lock. */
void cache_starved_kick(struct cache *c);

/* warm.c */
void cache_warmer_start(struct cache *c);
void cache_warmer_stop(struct cache *c);
/* The slab has grown: is it time for the next step? Under the lock. */
void cache_warm_check(struct cache *c);

/* fetch.c */
/* Plans fetches for the blocks in <mask>, whose slots are reserved; they become pending. Under the lock. */
int cache_fetch_plan(struct cache *c, struct cache_chunk *ch, uint64_t mask, bool demand, uint64_t deadline_ns,
		     struct list *submit);
/* Without the lock. */
void cache_fetch_submit(struct cache *c, struct list *submit);
/* Nothing may be written to the read's payload after this. Under the lock. */
void cache_fetch_detach(struct cache_wait *w);

#endif
