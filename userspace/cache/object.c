// SPDX-License-Identifier: Apache-2.0
/*
 * Objects and chunks of the chunk store, and what is evicted when the slab is full.
 *
 * Owns: an object lives while somebody holds it, a fetch brings its data or a chunk has blocks; its chunks live
 * with it. Threads: any; see cache.h.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "cache/cache_i.h"

#define OBJECT_MAX_BYTES (1ull << 50)
/* Chunks that a prefetch looks at for room: it is not worth a long walk under the lock. */
#define GENTLE_WALK_MAX 256
/* How long prefetched data waits for its reader before it is evicted like any other. */
#define SPECULATIVE_LIFE_NS (600 * NSEC_PER_SEC)

static uint64_t name_hash(const char *key, const char *etag, uint64_t size, time_t mtime)
{
	uint64_t h = HASH_INIT ^ size ^ ((uint64_t)mtime << 20);

	h = hash_add(h, key, strlen(key));
	h = hash_add(h, etag, strlen(etag));
	return h ^ (h >> 29);
}

struct cache_object *cache_object_get(struct cache *c, const char *key, const char *etag, uint64_t size_bytes,
				      time_t mtime)
{
	uint64_t h = name_hash(key, etag, size_bytes, mtime);
	struct list *bucket = &c->bucket[h % CACHE_HASH_BUCKETS];
	size_t key_len = strlen(key) + 1, etag_len = strlen(etag) + 1;
	struct cache_object *o;

	if (size_bytes > OBJECT_MAX_BYTES)
		return NULL;
	pthread_mutex_lock(&c->lock);
	list_for_each(n, bucket) {
		o = list_entry(n, struct cache_object, hash);
		if (o->name_hash == h && o->size_bytes == size_bytes && o->mtime == mtime && strcmp(o->key, key) == 0 &&
		    strcmp(o->etag, etag) == 0) {
			o->refs++;
			goto out;
		}
	}
	o = calloc(1, sizeof(*o) + key_len + etag_len);
	if (!o)
		goto out;
	o->cache = c;
	o->refs = 1;
	o->name_hash = h;
	o->size_bytes = size_bytes;
	o->mtime = mtime;
	o->nr_chunks = (uint32_t)((size_bytes + CACHE_CHUNK_BYTES - 1) / CACHE_CHUNK_BYTES);
	memcpy(o->key, key, key_len);
	o->etag = o->key + key_len;
	memcpy(o->etag, etag, etag_len);
	list_push_front(bucket, &o->hash);
out:
	pthread_mutex_unlock(&c->lock);
	return o;
}

struct cache_object *cache_object_ref(struct cache_object *o)
{
	pthread_mutex_lock(&o->cache->lock);
	o->refs++;
	pthread_mutex_unlock(&o->cache->lock);
	return o;
}

const char *cache_object_key(const struct cache_object *o)
{
	return o->key;
}

const char *cache_object_etag(const struct cache_object *o)
{
	return o->etag;
}

uint32_t cache_object_pass(const struct cache_object *o)
{
	return __atomic_load_n(&o->pass, __ATOMIC_RELAXED);
}

uint32_t cache_object_lost(const struct cache_object *o)
{
	return __atomic_load_n(&o->lost, __ATOMIC_RELAXED);
}

uint64_t cache_object_blocks(const struct cache_object *o, uint32_t chunk)
{
	const struct cache_chunk *ch;
	uint64_t blocks = 0;

	pthread_mutex_lock(&o->cache->lock);
	ch = o->chunk && chunk < o->nr_chunks ? o->chunk[chunk] : NULL;
	if (ch)
		blocks = ch->present | ch->pending;
	pthread_mutex_unlock(&o->cache->lock);
	return blocks;
}

uint64_t cache_object_size(const struct cache_object *o)
{
	return o->size_bytes;
}

void cache_object_unref(struct cache *c, struct cache_object *o)
{
	if (--o->refs)
		return;
	list_del(&o->hash);
	for (uint32_t i = 0; o->chunk && i < o->nr_chunks; i++)
		free(o->chunk[i]);
	free(o->chunk);
	free(o);
}

void cache_object_put(struct cache *c, struct cache_object *o)
{
	if (!o)
		return;
	pthread_mutex_lock(&c->lock);
	cache_object_unref(c, o);
	pthread_mutex_unlock(&c->lock);
}

bool cache_object_stale(const struct cache_object *o)
{
	return __atomic_load_n(&o->stale, __ATOMIC_RELAXED);
}

struct cache_chunk *cache_chunk_find(struct cache_object *o, uint32_t index, bool create)
{
	struct cache_chunk *ch;

	if (!o->chunk) {
		if (!create || !(o->chunk = calloc(o->nr_chunks, sizeof(*o->chunk))))
			return NULL;
	}
	ch = o->chunk[index];
	if (ch || !create)
		return ch;
	ch = calloc(1, sizeof(*ch));
	if (!ch)
		return NULL;
	ch->object = o;
	ch->index = index;
	list_init(&ch->lru);
	list_init(&ch->waits);
	list_init(&ch->fetches);
	o->chunk[index] = ch;
	return ch;
}

int cache_chunk_hold_blocks(struct cache *c, struct cache_chunk *ch)
{
	if (ch->blocks)
		return 0;
	ch->blocks = calloc(1, sizeof(*ch->blocks));
	if (!ch->blocks)
		return -ENOMEM;
	if (ch->object->nr_cached_chunks++ == 0)
		ch->object->refs++;
	list_push_front(&c->lru, &ch->lru);
	return 0;
}

void cache_chunk_drop_blocks(struct cache *c, struct cache_chunk *ch)
{
	struct cache_object *o = ch->object;

	free(ch->blocks);
	ch->blocks = NULL;
	list_del(&ch->lru);
	if (--o->nr_cached_chunks == 0)
		cache_object_unref(c, o);
}

void cache_block_free(struct cache *c, struct cache_chunk *ch, unsigned b)
{
	slab_give(&c->slab, ch->blocks->slot[b]);
	ch->blocks->consumed_bytes[b] = 0;
	ch->present &= ~(1ull << b);
	ch->speculative &= ~(1ull << b);
}

/* Frees what nobody pins; the chunk may be gone with its object afterwards. */
static void chunk_evict(struct cache *c, struct cache_chunk *ch)
{
	if (ch->speculative & ch->present)
		__atomic_fetch_add(&ch->object->lost, 1, __ATOMIC_RELAXED);
	for (unsigned b = 0; b < CACHE_CHUNK_BLOCKS; b++) {
		if (ch->present & (1ull << b)) {
			c->stats.evicted_bytes += block_bytes(ch, b);
			cache_block_free(c, ch, b);
		}
	}
	cache_chunk_drop_blocks(c, ch);
}

bool cache_make_room(struct cache *c, uint32_t nr, bool gentle)
{
	uint64_t now = clock_mono_ns();
	struct list *n = c->lru.prev;
	unsigned seen = 0;

	while (slab_available(&c->slab) < nr && n != &c->lru) {
		struct cache_chunk *ch = list_entry(n, struct cache_chunk, lru);

		if (gentle && seen++ == GENTLE_WALK_MAX)
			break;
		n = n->prev;
		if (ch->nr_pins || ch->pending)
			continue;
		if (gentle && ch->speculative && now - ch->touched_ns < SPECULATIVE_LIFE_NS)
			continue;
		chunk_evict(c, ch);
	}
	return slab_available(&c->slab) >= nr;
}

bool cache_evict_last(struct cache *c)
{
	for (struct list *n = c->lru.prev; n != &c->lru; n = n->prev) {
		struct cache_chunk *ch = list_entry(n, struct cache_chunk, lru);

		if (ch->nr_pins || ch->pending)
			continue;
		chunk_evict(c, ch);
		return true;
	}
	return false;
}

void cache_evict_idle(struct cache *c, bool all)
{
	uint64_t now = clock_mono_ns();

	list_for_each_safe(n, tmp, &c->lru) {
		struct cache_chunk *ch = list_entry(n, struct cache_chunk, lru);

		/* A pod may take minutes to come. */
		if (!all && ch->speculative && now - ch->touched_ns < SPECULATIVE_LIFE_NS)
			continue;
		if (!ch->nr_pins && !ch->pending)
			chunk_evict(c, ch);
	}
}
