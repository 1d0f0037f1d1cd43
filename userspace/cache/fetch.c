// SPDX-License-Identifier: Apache-2.0
/*
 * Fetches of the chunk store: runs of blocks on their way from S3.
 *
 * Design: when a block's first byte arrives, it is decided once where the block goes: straight to the payload of
 * the one read that waits for the whole of it (one copy less; the page cache keeps it), else to a slot of the slab.
 * A read that joins while a block flows to another one's payload gets a fetch of its own afterwards; the kernel's
 * page locks make that rare.
 * Threads: fetch_data and fetch_done in the S3 thread that runs the GET; the rest under the cache's lock.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cache/cache_i.h"

static void fetch_data(struct s3_get *g, const void *bytes, size_t len);
static void fetch_done(struct s3_get *g, int error);

static struct cache_fetch *fetch_new(struct cache *c, struct cache_chunk *ch, unsigned first, unsigned nr, bool demand,
				     uint64_t deadline_ns)
{
	struct cache_fetch *f = calloc(1, sizeof(*f));
	struct cache_object *o = ch->object;
	uint64_t start = chunk_offset(ch) + (uint64_t)first * CACHE_BLOCK_BYTES;

	if (!f)
		return NULL;
	f->cache = c;
	f->chunk = ch;
	f->first_block = first;
	f->nr_blocks = f->nr_reserved = nr;
	pthread_mutex_init(&f->dest_lock, NULL);
	f->get = (struct s3_get){
		.op = { .demand = demand, .deadline_ns = deadline_ns },
		.key = o->key,
		.etag = o->etag,
		.object_bytes = o->size_bytes,
		.offset = start,
		.len = min_of((uint64_t)nr * CACHE_BLOCK_BYTES, o->size_bytes - start),
		.data = fetch_data,
		.done = fetch_done,
	};
	o->refs++;
	return f;
}

int cache_fetch_plan(struct cache *c, struct cache_chunk *ch, uint64_t mask, bool demand, uint64_t deadline_ns,
		     struct list *submit)
{
	mask &= blocks_mask(0, chunk_nr_blocks(ch));
	if (mask && cache_chunk_hold_blocks(c, ch) < 0)
		return -ENOMEM;
	while (mask) {
		unsigned first = (unsigned)__builtin_ctzll(mask);
		uint64_t rest = ~(mask >> first);
		unsigned nr = rest ? (unsigned)__builtin_ctzll(rest) : CACHE_CHUNK_BLOCKS;
		struct cache_fetch *f = fetch_new(c, ch, first, nr, demand, deadline_ns);

		if (!f)
			return -ENOMEM;
		c->slab.nr_reserved += nr;
		ch->pending |= blocks_mask(first, nr);
		mask &= ~blocks_mask(first, nr);
		/*
		 * On the chunk at once, so that others find it; submitted by its own link through the operation's
		 * list.
		 */
		list_push_back(&ch->fetches, &f->link);
		list_push_back(submit, &f->get.op.link);
	}
	return 0;
}

void cache_fetch_submit(struct cache *c, struct list *submit)
{
	struct list *n;

	while ((n = list_pop_front(submit)))
		c->cfg.source.submit(c->cfg.source.ctx, list_entry(n, struct s3_get, op.link));
}

void cache_fetch_detach(struct cache_wait *w)
{
	list_for_each(n, &w->chunk->fetches) {
		struct cache_fetch *f = list_entry(n, struct cache_fetch, link);

		if (f->direct_to != w)
			continue;
		pthread_mutex_lock(&f->dest_lock);
		f->direct_to = NULL;
		f->dest = NULL;
		pthread_mutex_unlock(&f->dest_lock);
	}
}

/* The one read that can take the whole block in its payload, if it is the only one that waits for it. */
static struct cache_wait *block_only_wait(struct cache_chunk *ch, unsigned b)
{
	uint64_t bit = 1ull << b, start = chunk_offset(ch) + (uint64_t)b * CACHE_BLOCK_BYTES;
	struct cache_wait *only = NULL;

	list_for_each(n, &ch->waits) {
		struct cache_wait *w = list_entry(n, struct cache_wait, link);

		if (!(w->need & bit))
			continue;
		if (only)
			return NULL;
		only = w;
	}
	if (!only || only->read->keep || !only->read->payload || start < only->read->offset ||
	    start + block_bytes(ch, b) > only->read->offset + only->read->len)
		return NULL;
	return only;
}

static void block_open(struct cache_fetch *f, unsigned b)
{
	struct cache *c = f->cache;
	struct cache_wait *w;

	pthread_mutex_lock(&c->lock);
	w = block_only_wait(f->chunk, b);
	f->direct_to = w;
	if (w) {
		uint64_t start = chunk_offset(f->chunk) + (uint64_t)b * CACHE_BLOCK_BYTES;

		f->dest = (unsigned char *)w->read->payload + (start - w->read->offset);
	} else {
		f->slot = slab_take(&c->slab);
		cache_warm_check(c);
		f->nr_reserved--;
		f->dest = slab_at(&c->slab, f->slot);
	}
	f->block_open = true;
	pthread_mutex_unlock(&c->lock);
}

/* Others joined while the block flowed to one read's payload: fetch it for them. Under the lock. */
static void block_refetch(struct cache *c, struct cache_chunk *ch, unsigned b, struct list *submit, struct list *done)
{
	uint64_t bit = 1ull << b;

	list_for_each_safe(n, tmp, &ch->waits) {
		struct cache_wait *w = list_entry(n, struct cache_wait, link);

		if (!(w->need & bit) || (ch->pending & bit))
			continue;
		if (!cache_make_room(c, 1, false) ||
		    cache_fetch_plan(c, ch, bit, true, w->read->deadline_ns, submit) < 0)
			cache_read_settle(w->read, -EIO, done);
	}
}

static void block_close(struct cache_fetch *f, unsigned b, struct list *submit, struct list *done)
{
	struct cache *c = f->cache;
	struct cache_chunk *ch = f->chunk;
	uint64_t bit = 1ull << b;

	pthread_mutex_lock(&c->lock);
	f->block_open = false;
	f->nr_closed++;
	ch->pending &= ~bit;
	c->stats.fetched_bytes += block_bytes(ch, b);
	if (f->direct_to || !f->dest) {
		struct cache_wait *w = f->direct_to;

		c->slab.nr_reserved--;
		f->nr_reserved--;
		f->direct_to = NULL;
		ch->speculative &= ~bit;
		if (w) {
			c->stats.direct_bytes += block_bytes(ch, b);
			cache_chunk_serve(ch, bit, w->read->keep ? 0 : bit);
			w->direct |= bit;
			w->need &= ~bit;
			/* A read of two chunks is complete when both are. */
			if (!w->read->wait[0].need && (w->read->nr_waits < 2 || !w->read->wait[1].need))
				cache_read_settle(w->read, 0, done);
		}
		block_refetch(c, ch, b, submit, done);
	} else {
		ch->blocks->slot[b] = f->slot;
		ch->blocks->consumed_bytes[b] = 0;
		ch->present |= bit;
		cache_waits_arrived(c, ch, bit, true, done);
	}
	pthread_mutex_unlock(&c->lock);
}

static void fetch_data(struct s3_get *g, const void *bytes, size_t len)
{
	struct cache_fetch *f = list_entry(g, struct cache_fetch, get);
	const unsigned char *src = bytes;
	uint64_t at = g->delivered - len; /* within the fetch */
	struct list submit, done;

	list_init(&submit);
	list_init(&done);
	while (len) {
		unsigned b = f->first_block + (unsigned)(at / CACHE_BLOCK_BYTES);
		uint32_t in_block = (uint32_t)(at % CACHE_BLOCK_BYTES), room = block_bytes(f->chunk, b) - in_block;
		size_t n = min_of(len, (size_t)room);

		if (!f->block_open)
			block_open(f, b);
		/* The payload may be taken away while we copy; a slot is ours alone. */
		pthread_mutex_lock(&f->dest_lock);
		if (f->dest)
			memcpy(f->dest + in_block, src, n);
		pthread_mutex_unlock(&f->dest_lock);
		if (n == room)
			block_close(f, b, &submit, &done);
		src += n;
		at += n;
		len -= n;
	}
	cache_fetch_submit(f->cache, &submit);
	cache_reads_done(&done);
}

/* Reads whose blocks did not come: those with time left try again after a time-out, the others fail. Under the lock. */
static void fetch_failed(struct cache_fetch *f, uint64_t lost, int error, struct list *submit, struct list *done)
{
	struct cache *c = f->cache;
	struct cache_chunk *ch = f->chunk;
	uint64_t now = clock_mono_ns();

	if (error == -ESTALE)
		__atomic_store_n(&ch->object->stale, true, __ATOMIC_RELAXED);
	list_for_each_safe(n, tmp, &ch->waits) {
		struct cache_wait *w = list_entry(n, struct cache_wait, link);
		uint64_t missing = w->need & lost & ~ch->pending;

		if (!(w->need & lost))
			continue;
		if (error == -ETIMEDOUT && now + NSEC_PER_SEC < w->read->deadline_ns) {
			if (!missing)
				continue;
			if (cache_make_room(c, (uint32_t)__builtin_popcountll(missing), false) &&
			    cache_fetch_plan(c, ch, missing, true, w->read->deadline_ns, submit) == 0)
				continue;
		}
		cache_read_settle(w->read, error, done);
	}
}

static void fetch_done(struct s3_get *g, int error)
{
	struct cache_fetch *f = list_entry(g, struct cache_fetch, get);
	struct cache *c = f->cache;
	struct cache_chunk *ch = f->chunk;
	struct list submit, done;
	uint64_t lost;
	bool kick;

	list_init(&submit);
	list_init(&done);
	pthread_mutex_lock(&c->lock);
	list_del(&f->link);
	if (error < 0) {
		lost = blocks_mask(f->first_block, f->nr_blocks);
		if (f->nr_closed)
			lost &= ~blocks_mask(f->first_block, f->nr_closed);
		if (f->block_open && !f->direct_to && f->dest)
			slab_give(&c->slab, f->slot);
		c->slab.nr_reserved -= f->nr_reserved;
		ch->pending &= ~lost;
		if (ch->speculative & lost)
			__atomic_fetch_add(&ch->object->lost, 1, __ATOMIC_RELAXED);
		ch->speculative &= ~lost;
		fetch_failed(f, lost, error, &submit, &done);
	}
	/* Everything went straight to readers, or nothing came. */
	if (ch->blocks && !ch->present && !ch->pending)
		cache_chunk_drop_blocks(c, ch);
	cache_object_unref(c, ch->object);
	kick = !list_empty(&c->starved);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_destroy(&f->dest_lock);
	free(f);
	cache_fetch_submit(c, &submit);
	cache_reads_done(&done);
	if (kick)
		cache_starved_kick(c);
}
