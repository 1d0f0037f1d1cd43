// SPDX-License-Identifier: Apache-2.0
/*
 * Objects, chunks and reads of the chunk store.
 *
 * Design: a read pins the blocks it uses from their arrival to its end. A buffered read's blocks go back to the
 * slab once they were read whole, since the kernel's page cache keeps them now: a stream then runs in a few MiB of
 * warm memory. Blocks read past the page cache (O_DIRECT) or not read yet stay until the budget needs them, least
 * recently used first.
 * Threads: any; see cache.h. Lock order: the cache's lock, then a fetch's dest_lock.
 */
#define _GNU_SOURCE
#include "cache/cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cache/cache_i.h"

/* About what one stream on a near wire uses: its first touch is not on the reader's time. */
#define WARM_BYTES (24u << 20)
#define IDLE_TRIM_NS (5 * NSEC_PER_SEC)
#define IDLE_DROP_NS (60 * NSEC_PER_SEC)

struct cache *cache_new(const struct cache_config *cfg)
{
	struct cache *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->cfg = *cfg;
	/* Where address space is short the budget cannot be raised later. */
	if (slab_init(&c->slab, max_of(cfg->budget_bytes, cfg->max_bytes), CACHE_BLOCK_BYTES) < 0 &&
	    slab_init(&c->slab, cfg->budget_bytes, CACHE_BLOCK_BYTES) < 0) {
		free(c);
		return NULL;
	}
	c->slab.nr_withheld = c->slab.nr_slots - (uint32_t)(cfg->budget_bytes / CACHE_BLOCK_BYTES);
	slab_warm(&c->slab, min_of(cfg->budget_bytes / 4, (uint64_t)WARM_BYTES));
	pthread_mutex_init(&c->lock, NULL);
	for (size_t i = 0; i < CACHE_HASH_BUCKETS; i++)
		list_init(&c->bucket[i]);
	list_init(&c->lru);
	list_init(&c->reads);
	list_init(&c->starved);
	c->active_ns = clock_mono_ns();
	cache_warmer_start(c);
	return c;
}

static void block_pin(struct cache_chunk *ch, unsigned b)
{
	ch->blocks->pins[b]++;
	ch->nr_pins++;
}

static void blocks_pin(struct cache_chunk *ch, uint64_t mask)
{
	for (; mask; mask &= mask - 1)
		block_pin(ch, (unsigned)__builtin_ctzll(mask));
}

static uint32_t read_overlap(const struct cache_read *r, const struct cache_chunk *ch, unsigned b)
{
	uint64_t start = chunk_offset(ch) + (uint64_t)b * CACHE_BLOCK_BYTES, end = start + block_bytes(ch, b);

	return (uint32_t)(min_of(end, r->offset + r->len) - max_of(start, r->offset));
}

/* Lets go of the read's blocks of one chunk; <consumed>: the page cache has them now. */
static void wait_unpin(struct cache *c, struct cache_wait *w, bool consumed)
{
	struct cache_chunk *ch = w->chunk;
	uint64_t mask = w->mask & ~w->need & ~w->direct;

	for (; mask; mask &= mask - 1) {
		unsigned b = (unsigned)__builtin_ctzll(mask);
		uint64_t bit = 1ull << b;

		ch->blocks->pins[b]--;
		ch->nr_pins--;
		if (!consumed)
			continue;
		ch->speculative &= ~bit;
		cache_chunk_serve(ch, bit, 0);
		if (w->read->keep)
			continue;
		ch->blocks->consumed_bytes[b] += read_overlap(w->read, ch, b);
		if (ch->blocks->consumed_bytes[b] >= block_bytes(ch, b))
			cache_chunk_serve(ch, bit, bit);
		if (ch->blocks->consumed_bytes[b] >= block_bytes(ch, b) && !ch->blocks->pins[b])
			cache_block_free(c, ch, b);
	}
	if (ch->blocks && !ch->present && !ch->pending)
		cache_chunk_drop_blocks(c, ch);
}

void cache_read_settle(struct cache_read *r, int error, struct list *done)
{
	r->error = error;
	r->settled = true;
	if (error < 0) {
		for (unsigned i = 0; i < r->nr_waits; i++) {
			cache_fetch_detach(&r->wait[i]);
			wait_unpin(r->object->cache, &r->wait[i], false);
		}
	}
	for (unsigned i = 0; i < r->nr_waits; i++)
		list_del(&r->wait[i].link);
	list_del(&r->link);
	list_push_back(done, &r->link);
}

static bool read_complete(const struct cache_read *r)
{
	for (unsigned i = 0; i < r->nr_waits; i++) {
		if (r->wait[i].need)
			return false;
	}
	return true;
}

void cache_waits_arrived(struct cache *c, struct cache_chunk *ch, uint64_t bit, bool present, struct list *done)
{
	list_for_each_safe(n, tmp, &ch->waits) {
		struct cache_wait *w = list_entry(n, struct cache_wait, link);

		if (!(w->need & bit))
			continue;
		w->need &= ~bit;
		if (present)
			block_pin(ch, (unsigned)__builtin_ctzll(bit));
		if (read_complete(w->read))
			cache_read_settle(w->read, 0, done);
	}
}

void cache_reads_done(struct list *done)
{
	struct list *n;

	while ((n = list_pop_front(done))) {
		struct cache_read *r = list_entry(n, struct cache_read, link);

		r->done(r, r->error);
	}
}

/* Lays the read over its chunks. */
static int read_map(struct cache_read *r)
{
	uint64_t end = r->offset + r->len;

	r->nr_waits = 0;
	for (uint64_t at = r->offset; at < end;) {
		uint32_t index = (uint32_t)(at / CACHE_CHUNK_BYTES);
		uint64_t stop = min_of(end, (uint64_t)(index + 1) * CACHE_CHUNK_BYTES);
		unsigned first = (unsigned)(at % CACHE_CHUNK_BYTES / CACHE_BLOCK_BYTES);
		unsigned last = (unsigned)((stop - 1) % CACHE_CHUNK_BYTES / CACHE_BLOCK_BYTES);
		struct cache_wait *w = &r->wait[r->nr_waits];

		w->chunk = cache_chunk_find(r->object, index, true);
		if (!w->chunk)
			return -ENOMEM;
		w->read = r;
		w->mask = w->need = blocks_mask(first, last - first + 1);
		w->direct = 0;
		list_init(&w->link);
		r->nr_waits++;
		at = stop;
	}
	return 0;
}

/* Under the lock. 0 = complete, -EINPROGRESS = waits, with fetches to submit and promote; -ENOBUFS = no memory now. */
static int read_begin(struct cache *c, struct cache_read *r, struct list *submit)
{
	uint32_t missing = 0;
	int rc = read_map(r);

	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < r->nr_waits; i++) {
		struct cache_chunk *ch = r->wait[i].chunk;

		uint64_t absent = r->wait[i].mask & ~ch->present & ~ch->pending;

		missing += (uint32_t)__builtin_popcountll(absent);
		/*
		 * Asked for again: the page cache has lost it, so what was served before may be fetched ahead once
		 * more.
		 */
		if (absent & cache_chunk_whole(ch))
			__atomic_fetch_add(&r->object->pass, 1, __ATOMIC_RELAXED);
	}
	if (missing && cache_object_stale(r->object))
		return -ESTALE;
	/* Pinned first, or making room could evict the read's own blocks. */
	for (unsigned i = 0; i < r->nr_waits; i++) {
		struct cache_wait *w = &r->wait[i];

		w->need = w->mask & ~w->chunk->present;
		blocks_pin(w->chunk, w->mask & w->chunk->present);
		w->chunk->touched_ns = c->active_ns;
		if (w->chunk->blocks) {
			list_del(&w->chunk->lru);
			list_push_front(&c->lru, &w->chunk->lru);
		}
	}
	if (missing && !cache_make_room(c, missing, false)) {
		rc = -ENOBUFS;
		goto undo;
	}
	for (unsigned i = 0; i < r->nr_waits && rc == 0; i++) {
		struct cache_wait *w = &r->wait[i];

		rc = cache_fetch_plan(c, w->chunk, w->need & ~w->chunk->pending, true, r->deadline_ns, submit);
	}
	if (rc < 0)
		goto undo;
	if (read_complete(r))
		return 0;
	for (unsigned i = 0; i < r->nr_waits; i++) {
		if (r->wait[i].need)
			list_push_back(&r->wait[i].chunk->waits, &r->wait[i].link);
	}
	return -EINPROGRESS;
undo:
	for (unsigned i = 0; i < r->nr_waits; i++)
		wait_unpin(c, &r->wait[i], false);
	return rc;
}

/* Fetches the read joined that are still queued as prefetch: somebody waits now. */
static void read_promote(struct cache *c, struct cache_read *r)
{
	for (unsigned i = 0; i < r->nr_waits; i++) {
		list_for_each(n, &r->wait[i].chunk->fetches) {
			struct cache_fetch *f = list_entry(n, struct cache_fetch, link);

			if (!f->get.op.demand && (blocks_mask(f->first_block, f->nr_blocks) & r->wait[i].need))
				c->cfg.source.promote(c->cfg.source.ctx, &f->get.op);
		}
	}
}

/* Keeps the list in order of deadline: a read that waited for memory first is older than its neighbours. */
static void reads_insert(struct cache *c, struct cache_read *r)
{
	struct list *at = c->reads.prev;

	while (at != &c->reads && list_entry(at, struct cache_read, link)->deadline_ns > r->deadline_ns)
		at = at->prev;
	list_insert_after(at, &r->link);
}

int cache_read_start(struct cache *c, struct cache_read *r)
{
	struct list submit;
	int rc;

	list_init(&submit);
	list_init(&r->link);
	r->error = 0;
	r->settled = false;
	r->nr_waits = 0;
	pthread_mutex_lock(&c->lock);
	c->active_ns = clock_mono_ns();
	c->trimmed = c->dropped = false;
	r->deadline_ns = c->active_ns + c->cfg.read_deadline_ns;
	rc = list_empty(&c->starved) ? read_begin(c, r, &submit) : -ENOBUFS;
	r->missed = rc != 0;
	if (rc == 0)
		c->stats.hit_bytes += r->len;
	else
		c->stats.miss_bytes += r->len;
	r->starved = rc == -ENOBUFS;
	if (rc == -EINPROGRESS) {
		reads_insert(c, r);
		read_promote(c, r);
	} else if (rc == -ENOBUFS) {
		r->nr_waits = 0;
		list_push_back(&c->starved, &r->link);
		rc = -EINPROGRESS;
	}
	pthread_mutex_unlock(&c->lock);
	cache_fetch_submit(c, &submit);
	return rc;
}

void cache_read_cancel(struct cache *c, struct cache_read *r, int error)
{
	struct list done;

	list_init(&done);
	pthread_mutex_lock(&c->lock);
	if (!r->settled)
		cache_read_settle(r, error, &done);
	pthread_mutex_unlock(&c->lock);
	cache_reads_done(&done);
}

void cache_starved_kick(struct cache *c)
{
	struct list submit, done;
	struct cache_read *r;
	int rc;

	list_init(&submit);
	list_init(&done);
	pthread_mutex_lock(&c->lock);
	while (!list_empty(&c->starved)) {
		r = list_entry(c->starved.next, struct cache_read, link);
		rc = read_begin(c, r, &submit);
		if (rc == -ENOBUFS) {
			r->nr_waits = 0;
			break;
		}
		list_del(&r->link);
		if (rc == -EINPROGRESS) {
			reads_insert(c, r);
			read_promote(c, r);
			continue;
		}
		r->error = rc;
		r->settled = true;
		list_push_back(&done, &r->link);
	}
	pthread_mutex_unlock(&c->lock);
	cache_fetch_submit(c, &submit);
	cache_reads_done(&done);
}

/* Calls <fn> for each piece of the read that lies in one block. */
static void read_each_block(const struct cache_read *r,
			    void (*fn)(void *arg, unsigned char *at, uint32_t len, uint64_t to, bool direct), void *arg)
{
	const struct slab *slab = &r->object->cache->slab;
	uint64_t to = 0;

	for (unsigned i = 0; i < r->nr_waits; i++) {
		const struct cache_wait *w = &r->wait[i];

		for (uint64_t mask = w->mask; mask; mask &= mask - 1) {
			unsigned b = (unsigned)__builtin_ctzll(mask);
			uint32_t len = read_overlap(r, w->chunk, b);
			bool direct = w->direct & (1ull << b);
			uint64_t start = chunk_offset(w->chunk) + (uint64_t)b * CACHE_BLOCK_BYTES;
			uint64_t skip = r->offset > start ? r->offset - start : 0;

			fn(arg, direct ? NULL : slab_at(slab, w->chunk->blocks->slot[b]) + skip, len, to, direct);
			to += len;
		}
	}
}

static void block_fill(void *arg, unsigned char *at, uint32_t len, uint64_t to, bool direct)
{
	struct cache_read *r = arg;

	if (!direct)
		memcpy((unsigned char *)r->payload + to, at, len);
}

void cache_read_fill(struct cache_read *r)
{
	read_each_block(r, block_fill, r);
}

struct iov_builder {
	struct iovec *iov;
	int n;
};

static void block_vector(void *arg, unsigned char *at, uint32_t len, uint64_t to, bool direct)
{
	struct iov_builder *v = arg;

	if (v->n && (unsigned char *)v->iov[v->n - 1].iov_base + v->iov[v->n - 1].iov_len == at)
		v->iov[v->n - 1].iov_len += len;
	else
		v->iov[v->n++] = (struct iovec){ at, len };
}

int cache_read_iov(const struct cache_read *r, struct iovec *iov)
{
	struct iov_builder v = { .iov = iov };

	read_each_block(r, block_vector, &v);
	return v.n;
}

void cache_read_end(struct cache *c, struct cache_read *r)
{
	bool kick;

	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < r->nr_waits; i++)
		wait_unpin(c, &r->wait[i], true);
	kick = !list_empty(&c->starved);
	pthread_mutex_unlock(&c->lock);
	if (kick)
		cache_starved_kick(c);
}

uint64_t cache_prefetch(struct cache *c, struct cache_object *o, uint64_t offset, uint64_t len, bool skip_served)
{
	uint64_t end = min_of(offset + len, o->size_bytes), at = offset, now;
	struct list submit;

	list_init(&submit);
	pthread_mutex_lock(&c->lock);
	now = clock_mono_ns();
	/* Of a version that is gone nothing comes any more. */
	if (cache_object_stale(o))
		at = end;
	/* A read that waits for memory gets whatever comes free. */
	while (at < end && list_empty(&c->starved)) {
		uint32_t index = (uint32_t)(at / CACHE_CHUNK_BYTES);
		uint64_t stop = min_of(end, (uint64_t)(index + 1) * CACHE_CHUNK_BYTES);
		unsigned first = (unsigned)(at % CACHE_CHUNK_BYTES / CACHE_BLOCK_BYTES);
		unsigned last = (unsigned)((stop - 1) % CACHE_CHUNK_BYTES / CACHE_BLOCK_BYTES);
		struct cache_chunk *ch = cache_chunk_find(o, index, true);
		uint64_t mask;

		if (!ch)
			break;
		mask = blocks_mask(first, last - first + 1) & ~ch->present & ~ch->pending;
		if (skip_served)
			mask &= ~cache_chunk_served(ch);
		if (mask && !cache_make_room(c, (uint32_t)__builtin_popcountll(mask), true))
			break;
		if (cache_fetch_plan(c, ch, mask, false, now + c->cfg.read_deadline_ns, &submit) < 0)
			break;
		ch->speculative |= mask;
		ch->touched_ns = now;
		at = stop;
	}
	pthread_mutex_unlock(&c->lock);
	cache_fetch_submit(c, &submit);
	return at - offset;
}

static void expire(struct list *reads, uint64_t now, struct list *done)
{
	while (!list_empty(reads)) {
		struct cache_read *r = list_entry(reads->next, struct cache_read, link);

		if (now < r->deadline_ns)
			return;
		cache_read_settle(r, -ETIMEDOUT, done);
	}
}

/* Under the lock, which is dropped while memory is returned. */
static void cache_trim(struct cache *c, bool keep_warm)
{
	c->trimmed = true;
	slab_trim_start(&c->slab, keep_warm);
	/* A read that comes in between ends it. */
	while (c->trimmed && slab_trim_take(&c->slab)) {
		pthread_mutex_unlock(&c->lock);
		slab_trim_release(&c->slab);
		pthread_mutex_lock(&c->lock);
		slab_trim_give(&c->slab);
	}
	slab_trim_end(&c->slab);
}

void cache_tick(struct cache *c)
{
	struct list done;
	uint64_t now;

	list_init(&done);
	pthread_mutex_lock(&c->lock);
	/* Under the lock: no read is newer than this now. */
	now = clock_mono_ns();
	expire(&c->reads, now, &done);
	expire(&c->starved, now, &done);
	pthread_mutex_unlock(&c->lock);
	cache_reads_done(&done);

	pthread_mutex_lock(&c->lock);
	now = clock_mono_ns();
	if (now - c->active_ns > IDLE_DROP_NS && !c->dropped) {
		cache_evict_idle(c, false);
		cache_trim(c, false);
		c->dropped = c->trimmed && list_empty(&c->lru);
	} else if (now - c->active_ns > IDLE_TRIM_NS && !c->trimmed) {
		cache_trim(c, true);
	}
	pthread_mutex_unlock(&c->lock);
	cache_starved_kick(c);
}

int cache_budget_set(struct cache *c, uint64_t budget_bytes)
{
	uint64_t nr = budget_bytes / CACHE_BLOCK_BYTES;
	int rc = -EINVAL;

	pthread_mutex_lock(&c->lock);
	if (nr >= CACHE_CHUNK_BLOCKS && nr <= c->slab.nr_slots) {
		c->slab.nr_withheld = c->slab.nr_slots - (uint32_t)nr;
		while (slab_used(&c->slab) + c->slab.nr_reserved > nr && cache_evict_last(c))
			;
		/* What came free goes back to the system at the next tick without reads. */
		c->trimmed = false;
		rc = 0;
	}
	pthread_mutex_unlock(&c->lock);
	cache_starved_kick(c);
	return rc;
}

void cache_stats(struct cache *c, struct cache_stats *ret)
{
	pthread_mutex_lock(&c->lock);
	*ret = c->stats;
	ret->budget_bytes = (uint64_t)(c->slab.nr_slots - c->slab.nr_withheld) * CACHE_BLOCK_BYTES;
	ret->used_bytes = (uint64_t)slab_used(&c->slab) * CACHE_BLOCK_BYTES;
	ret->resident_bytes = (uint64_t)c->slab.fresh * CACHE_BLOCK_BYTES;
	pthread_mutex_unlock(&c->lock);
}

struct cache *cache_free(struct cache *c)
{
	if (!c)
		return NULL;
	cache_warmer_stop(c);
	cache_evict_idle(c, true);
	slab_done(&c->slab);
	pthread_mutex_destroy(&c->lock);
	free(c);
	return NULL;
}
