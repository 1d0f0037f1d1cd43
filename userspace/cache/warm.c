// SPDX-License-Identifier: Apache-2.0
/*
 * Keeps the slab's memory a step ahead of its use.
 *
 * Design: the first touch of memory costs time (on a virtual machine whose host takes unused pages back, more than
 * receiving the data does). The S3 thread that fills slots should not spend it, so a thread of its own populates
 * the next step while the slab grows.
 * Threads: the warmer; everything else under the cache's lock.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "cache/cache_i.h"

#define STEP_BYTES (16u << 20)

static bool warm_wanted(const struct cache *c)
{
	const struct slab *s = &c->slab;

	/* A budget that was lowered may lie below what has been used before. */
	return s->fresh + STEP_BYTES / s->slot_bytes > s->warm &&
	       max_of(s->warm, s->fresh) < s->nr_slots - s->nr_withheld;
}

void cache_warm_check(struct cache *c)
{
	if (c->warmer_running && warm_wanted(c))
		pthread_cond_signal(&c->warm_cond);
}

static void *warmer_main(void *arg)
{
	struct cache *c = arg;
	struct slab *s = &c->slab;

	pthread_mutex_lock(&c->lock);
	while (!c->stopping) {
		uint32_t from = max_of(s->warm, s->fresh),
			 to = min_of(from + STEP_BYTES / s->slot_bytes, s->nr_slots - s->nr_withheld);
		uint32_t trims = s->nr_trims;

		if (!warm_wanted(c) || !slab_used(s)) {
			pthread_cond_wait(&c->warm_cond, &c->lock);
			continue;
		}
		pthread_mutex_unlock(&c->lock);
		/* Populating what a fetch writes to meanwhile changes nothing of it. */
		slab_populate(s, from, to - from);
		pthread_mutex_lock(&c->lock);
		/* What was trimmed meanwhile is cold again. */
		if (trims == s->nr_trims)
			s->warm = to;
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

void cache_warmer_start(struct cache *c)
{
	pthread_cond_init(&c->warm_cond, NULL);
	/* Without it, memory is touched when it is used. */
	if (pthread_create(&c->warmer, NULL, warmer_main, c) == 0) {
		pthread_setname_np(c->warmer, "warm");
		c->warmer_running = true;
	}
}

void cache_warmer_stop(struct cache *c)
{
	if (c->warmer_running) {
		pthread_mutex_lock(&c->lock);
		c->stopping = true;
		pthread_cond_signal(&c->warm_cond);
		pthread_mutex_unlock(&c->lock);
		pthread_join(c->warmer, NULL);
	}
	pthread_cond_destroy(&c->warm_cond);
}
