// SPDX-License-Identifier: Apache-2.0
/* The chunk store under load: many readers, a small budget, and a source that delivers in pieces and fails. */
#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/cache_i.h"

#define MIB (1024u * 1024u)
#define BLOCK CACHE_BLOCK_BYTES
#define NR_OBJECTS 4
#define NR_READERS 8
#define NR_DELIVERERS 4
#define RUN_NS (3 * NSEC_PER_SEC)
#define BUDGET_BLOCKS 96

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Eight bytes at a time: checking must not cost more than what is checked. */
static uint64_t content_word(uint64_t seed, uint64_t word)
{
	uint64_t h = (word + 1) * 0x9e3779b97f4a7c15ull ^ seed * 0xd6e8feb86659fd93ull;

	return h ^ (h >> 32);
}

static void content_fill(uint64_t seed, uint64_t offset, unsigned char *to, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint64_t at = offset + i, word = content_word(seed, at / 8);
		size_t skip = at % 8, n = min_of(len - i, (size_t)8 - skip);

		memcpy(to + i, (unsigned char *)&word + skip, n);
		i += n;
	}
}

static bool content_is(uint64_t seed, uint64_t offset, const unsigned char *bytes, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint64_t at = offset + i, word = content_word(seed, at / 8);
		size_t skip = at % 8, n = min_of(len - i, (size_t)8 - skip);

		if (memcmp(bytes + i, (unsigned char *)&word + skip, n))
			return false;
		i += n;
	}
	return true;
}

/* --- the source: threads that take GETs from one queue --- */

struct source {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct list queue;
	bool stopping;
	unsigned fail_percent; /* in each way */
	pthread_t thread[NR_DELIVERERS];
	atomic_uint nr_gets, nr_failed;
};

static struct source source;

static void source_submit(void *ctx, struct s3_get *g)
{
	g->delivered = 0;
	pthread_mutex_lock(&source.lock);
	list_push_back(&source.queue, &g->op.link);
	pthread_cond_signal(&source.cond);
	pthread_mutex_unlock(&source.lock);
}

static void source_promote(void *ctx, struct s3_op *op)
{
}

/* Where the GET ends: its whole length, or somewhere before with an error. */
static int choose_end(struct s3_get *g, uint32_t *random, uint64_t *ret_stop)
{
	static const int errors[] = { -EIO, -ETIMEDOUT, -ECANCELED, -ESTALE };
	unsigned roll = next_random(random) % 100;

	*ret_stop = g->len;
	if (roll >= source.fail_percent * array_len(errors))
		return 0;
	*ret_stop = next_random(random) % (g->len + 1);
	return errors[roll / source.fail_percent];
}

static void source_run_get(struct s3_get *g, uint32_t *random, unsigned char *bytes)
{
	uint64_t seed = (uint64_t)atoi(g->key), stop;
	int error = choose_end(g, random, &stop);

	source.nr_gets++;
	source.nr_failed += error < 0;
	while (g->delivered < stop) {
		size_t n = 1 + next_random(random) % (next_random(random) % 3 ? 3 * BLOCK : 3000);

		n = (size_t)min_of((uint64_t)n, stop - g->delivered);
		content_fill(seed, g->offset + g->delivered, bytes, n);
		g->delivered += n;
		g->data(g, bytes, n);
		if (next_random(random) % 8 == 0)
			sched_yield();
	}
	g->done(g, error);
}

static void *source_main(void *arg)
{
	uint32_t random = (uint32_t)(uintptr_t)arg * 2654435761u + 1;
	unsigned char *bytes = malloc(3 * BLOCK);

	for (;;) {
		struct list *n;

		pthread_mutex_lock(&source.lock);
		while (!(n = list_pop_front(&source.queue)) && !source.stopping)
			pthread_cond_wait(&source.cond, &source.lock);
		pthread_mutex_unlock(&source.lock);
		if (!n)
			break;
		source_run_get(list_entry(n, struct s3_get, op.link), &random, bytes);
	}
	free(bytes);
	return NULL;
}

static struct cache *cache_make(unsigned nr_blocks, unsigned fail_percent)
{
	struct cache_config cfg = {
		.budget_bytes = (uint64_t)nr_blocks * BLOCK,
		.read_deadline_ns = 60 * NSEC_PER_SEC,
		.source = { .submit = source_submit, .promote = source_promote },
	};
	struct cache *c = cache_new(&cfg);

	assert_non_null(c);
	memset(&source, 0, sizeof(source));
	source.fail_percent = fail_percent;
	pthread_mutex_init(&source.lock, NULL);
	pthread_cond_init(&source.cond, NULL);
	list_init(&source.queue);
	for (uintptr_t i = 0; i < NR_DELIVERERS; i++)
		assert_int_equal(pthread_create(&source.thread[i], NULL, source_main, (void *)i), 0);
	return c;
}

/* Ends when what was asked for has been delivered. */
static void source_stop(void)
{
	pthread_mutex_lock(&source.lock);
	source.stopping = true;
	pthread_cond_broadcast(&source.cond);
	pthread_mutex_unlock(&source.lock);
	for (int i = 0; i < NR_DELIVERERS; i++)
		pthread_join(source.thread[i], NULL);
	pthread_mutex_destroy(&source.lock);
	pthread_cond_destroy(&source.cond);
}

/* --- readers --- */

struct waiter {
	struct cache_read r;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned nr_done;
	int error;
};

static struct {
	struct cache *cache;
	uint64_t size[NR_OBJECTS];
	atomic_int version[NR_OBJECTS];
	uint64_t end_ns;
	atomic_uint nr_reads, nr_errors, nr_wrong, nr_bad_errors, nr_over_budget;
	atomic_bool ticking;
} load;

static void waiter_done(struct cache_read *r, int error)
{
	struct waiter *w = container_of(r, struct waiter, r);

	pthread_mutex_lock(&w->lock);
	w->nr_done++;
	w->error = error;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* Start to done. */
static int waiter_run(struct waiter *w)
{
	int rc;

	w->nr_done = 0;
	w->error = 0;
	rc = cache_read_start(load.cache, &w->r);
	if (rc != -EINPROGRESS)
		return rc;
	pthread_mutex_lock(&w->lock);
	while (!w->nr_done)
		pthread_cond_wait(&w->cond, &w->lock);
	rc = w->error;
	pthread_mutex_unlock(&w->lock);
	return rc;
}

static bool take_from_slab(struct waiter *w, uint64_t seed)
{
	struct iovec iov[CACHE_READ_IOV_MAX];
	int nr = cache_read_iov(&w->r, iov);
	uint64_t at = w->r.offset;

	for (int i = 0; i < nr; i++) {
		if (!content_is(seed, at, iov[i].iov_base, iov[i].iov_len))
			return false;
		at += iov[i].iov_len;
	}
	return at == w->r.offset + w->r.len;
}

/* Short and long, aligned and not, near the front so that readers meet, and at the very end. */
static void choose_range(uint32_t *random, uint64_t size, uint64_t *ret_offset, uint32_t *ret_len)
{
	static const uint32_t lens[] = { 1, 4096, 60000, BLOCK, BLOCK + 1, 3 * BLOCK, 1 * MIB, 3 * MIB };
	uint32_t len = lens[next_random(random) % array_len(lens)];
	uint64_t offset = next_random(random) % (next_random(random) % 2 ? size : min_of(size, (uint64_t)2 * MIB));

	if (next_random(random) % 2)
		offset -= offset % BLOCK;
	*ret_offset = offset;
	*ret_len = (uint32_t)min_of((uint64_t)len, size - offset);
}

static void one_read(struct waiter *w, uint32_t *random, unsigned char *payload)
{
	unsigned o = next_random(random) % NR_OBJECTS, how = next_random(random) % 4;
	int version = load.version[o], rc;
	char key[8];
	bool right = true;

	snprintf(key, sizeof(key), "%u", o + 1);
	w->r = (struct cache_read){ .done = waiter_done, .keep = how == 3 };
	w->r.object = cache_object_get(load.cache, key, "", load.size[o], version);
	choose_range(random, load.size[o], &w->r.offset, &w->r.len);
	w->r.payload = how ? payload : NULL;
	rc = waiter_run(w);
	load.nr_reads++;
	if (rc == 0) {
		if (how)
			cache_read_fill(&w->r);
		right = how ? content_is(o + 1, w->r.offset, payload, w->r.len) : take_from_slab(w, o + 1);
		cache_read_end(load.cache, &w->r);
	} else {
		load.nr_errors++;
		load.nr_bad_errors += rc != -EIO && rc != -ETIMEDOUT && rc != -ECANCELED && rc != -ESTALE;
		if (rc == -ESTALE)
			atomic_compare_exchange_strong(&load.version[o], &version, version + 1);
		/* A late write would be seen by the next read's check. */
		memset(payload, 0, w->r.len);
		sched_yield();
		for (uint32_t i = 0; i < w->r.len; i++)
			right = right && payload[i] == 0;
	}
	load.nr_wrong += !right;
	if (next_random(random) % 4 == 0)
		cache_prefetch(load.cache, w->r.object, w->r.offset, next_random(random) % (8 * MIB),
			       next_random(random) % 2);
	cache_object_put(load.cache, w->r.object);
}

static void *reader_main(void *arg)
{
	uint32_t random = (uint32_t)(uintptr_t)arg * 40503u + 77;
	unsigned char *payload = malloc(3 * MIB);
	struct waiter w = { .nr_done = 0 };

	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.cond, NULL);
	while (clock_mono_ns() < load.end_ns)
		one_read(&w, &random, payload);
	pthread_mutex_destroy(&w.lock);
	pthread_cond_destroy(&w.cond);
	free(payload);
	return NULL;
}

/* Housekeeping far more often than once a second, and memory given back as if nobody read. */
static void *ticker_main(void *arg)
{
	struct cache_stats st;

	while (load.ticking) {
		pthread_mutex_lock(&load.cache->lock);
		load.cache->active_ns = clock_mono_ns() - 6 * NSEC_PER_SEC;
		pthread_mutex_unlock(&load.cache->lock);
		cache_tick(load.cache);
		cache_stats(load.cache, &st);
		load.nr_over_budget += st.used_bytes > st.budget_bytes;
		usleep(500);
	}
	return NULL;
}

static void load_run(struct cache *c, uint64_t ns)
{
	pthread_t reader[NR_READERS], ticker;

	memset(&load, 0, sizeof(load));
	load.cache = c;
	for (unsigned i = 0; i < NR_OBJECTS; i++)
		load.size[i] = i == 0 ? 5000 : i * 7ull * MIB + i * 12345;
	load.end_ns = clock_mono_ns() + ns;
	load.ticking = true;
	pthread_create(&ticker, NULL, ticker_main, NULL);
	for (uintptr_t i = 0; i < NR_READERS; i++)
		pthread_create(&reader[i], NULL, reader_main, (void *)i);
	for (unsigned i = 0; i < NR_READERS; i++)
		pthread_join(reader[i], NULL);
	load.ticking = false;
	pthread_join(ticker, NULL);
}

/* Every slot that is in use holds a present block, nothing is promised, and nobody waits. */
static void check_balance(struct cache *c)
{
	uint32_t nr_present = 0;

	list_for_each(n, &c->lru) {
		struct cache_chunk *ch = list_entry(n, struct cache_chunk, lru);

		assert_int_equal(ch->pending, 0);
		assert_int_equal(ch->nr_pins, 0);
		assert_true(list_empty(&ch->waits) && list_empty(&ch->fetches));
		nr_present += (uint32_t)__builtin_popcountll(ch->present);
	}
	assert_int_equal(slab_used(&c->slab), nr_present);
	assert_int_equal(c->slab.nr_reserved, 0);
	assert_true(list_empty(&c->reads) && list_empty(&c->starved));
	for (unsigned i = 0; i < CACHE_HASH_BUCKETS; i++) {
		list_for_each(n, &c->bucket[i])
			assert_int_equal(list_entry(n, struct cache_object, hash)->refs, 1);
	}
}

static void every_byte_is_right_whatever_fails(void **state)
{
	struct cache *c = cache_make(BUDGET_BLOCKS, 5);

	load_run(c, RUN_NS);
	source_stop();
	print_message("%u reads, %u failed; %u fetches, %u failed\n", load.nr_reads, load.nr_errors, source.nr_gets,
		      source.nr_failed);
	assert_int_equal(load.nr_wrong, 0);
	assert_int_equal(load.nr_bad_errors, 0);
	assert_int_equal(load.nr_over_budget, 0);
	assert_true(load.nr_reads > load.nr_errors && source.nr_failed > 0);
	check_balance(c);
	cache_free(c);
}

static void no_read_fails_while_the_source_works(void **state)
{
	struct cache *c = cache_make(BUDGET_BLOCKS, 0);

	load_run(c, RUN_NS / 3);
	source_stop();
	assert_int_equal(load.nr_wrong + load.nr_errors, 0);
	check_balance(c);
	cache_free(c);
}

static void *hit_main(void *arg)
{
	struct waiter w = { .nr_done = 0 };

	pthread_mutex_init(&w.lock, NULL);
	pthread_cond_init(&w.cond, NULL);
	while (clock_mono_ns() < load.end_ns) {
		w.r = (struct cache_read){ .object = arg, .len = 4096, .keep = true, .done = waiter_done };
		if (waiter_run(&w) != 0)
			load.nr_errors++;
		else
			cache_read_end(load.cache, &w.r);
	}
	pthread_mutex_destroy(&w.lock);
	pthread_cond_destroy(&w.cond);
	return NULL;
}

/* A tick that waited for the lock behind a read must not take the read for one of long ago. */
static void housekeeping_under_load_evicts_nothing(void **state)
{
	struct cache *c = cache_make(BUDGET_BLOCKS, 0);
	struct cache_object *o = cache_object_get(c, "1", "", 16 * MIB, 0);
	struct cache_stats st;
	pthread_t thread[2];

	memset(&load, 0, sizeof(load));
	load.cache = c;
	load.end_ns = clock_mono_ns() + RUN_NS / 5;
	cache_prefetch(c, o, 4 * MIB, 8 * MIB, false);
	for (int i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, hit_main, o);
	while (clock_mono_ns() < load.end_ns)
		cache_tick(c);
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	source_stop();
	cache_stats(c, &st);
	assert_int_equal(load.nr_errors, 0);
	assert_int_equal(st.evicted_bytes, 0);
	assert_int_equal(source.nr_gets, 3);
	cache_object_put(c, o);
	cache_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_is_right_whatever_fails),
		cmocka_unit_test(no_read_fails_while_the_source_works),
		cmocka_unit_test(housekeeping_under_load_evicts_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
