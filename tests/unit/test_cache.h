/* SPDX-License-Identifier: Apache-2.0 */
/* What the chunk store's tests share: content, a source that delivers when the test says so, and checked reads. */
#ifndef PENSTOCK_TEST_CACHE_H
#define PENSTOCK_TEST_CACHE_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/cache_i.h"

#define KIB 1024u
#define MIB (1024u * KIB)
#define BLOCK CACHE_BLOCK_BYTES
#define CHUNK CACHE_CHUNK_BYTES

/* --- content --- */

static inline unsigned char content(const char *key, const char *etag, uint64_t at)
{
	uint64_t h =
		at * 0x9e3779b97f4a7c15ull + (unsigned char)key[0] * 0x2545f491u + (unsigned char)etag[0] * 0x8f1bu;

	return (unsigned char)((h >> 29) ^ (h >> 51) ^ at);
}

/* --- a source under control --- */

#define GETS_MAX 256

static struct {
	struct s3_get *get[GETS_MAX]; /* submitted and not done, oldest first */
	unsigned nr, nr_submitted, nr_promoted;
} src;

static inline void src_submit(void *ctx, struct s3_get *g)
{
	assert_true(src.nr < GETS_MAX);
	assert_true(g->len > 0 && g->offset + g->len <= g->object_bytes);
	g->delivered = 0;
	src.get[src.nr++] = g;
	src.nr_submitted++;
}

/* It may come before the submission. */
static inline void src_promote(void *ctx, struct s3_op *op)
{
	op->demand = true;
	src.nr_promoted++;
}

/* The next <len> bytes of the <i>th GET, as the client hands them out. */
static inline void deliver(unsigned i, uint64_t len)
{
	struct s3_get *g = src.get[i];
	unsigned char *bytes = malloc(len);

	assert_true(i < src.nr && g->delivered + len <= g->len);
	for (uint64_t n = 0; n < len; n++)
		bytes[n] = content(g->key, g->etag, g->offset + g->delivered + n);
	g->delivered += len;
	g->data(g, bytes, len);
	free(bytes);
}

static inline void finish(unsigned i, int error)
{
	struct s3_get *g = src.get[i];

	assert_true(i < src.nr);
	memmove(&src.get[i], &src.get[i + 1], (src.nr - i - 1) * sizeof(src.get[0]));
	src.nr--;
	g->done(g, error);
}

static inline void complete(unsigned i)
{
	deliver(i, src.get[i]->len - src.get[i]->delivered);
	finish(i, 0);
}

static inline void complete_all(void)
{
	while (src.nr)
		complete(0);
}

/* --- one cache for each test --- */

static struct cache *c;

static inline void cache_make(unsigned nr_blocks)
{
	struct cache_config cfg = {
		.budget_bytes = (uint64_t)nr_blocks * BLOCK,
		.read_deadline_ns = 60 * NSEC_PER_SEC,
		.source = { .submit = src_submit, .promote = src_promote },
	};

	memset(&src, 0, sizeof(src));
	c = cache_new(&cfg);
	assert_non_null(c);
}

static inline struct cache_object *object(const char *key, uint64_t size)
{
	struct cache_object *o = cache_object_get(c, key, "e", size, 7);

	assert_non_null(o);
	return o;
}

static inline struct cache_stats stats(void)
{
	struct cache_stats st;

	cache_stats(c, &st);
	assert_true(slab_used(&c->slab) + c->slab.nr_reserved <= c->slab.nr_slots);
	return st;
}

/* Nothing under way, nothing promised, and the memory in use is <nr_blocks>. */
static inline void check_idle(unsigned nr_blocks)
{
	assert_int_equal(src.nr, 0);
	assert_int_equal(stats().used_bytes, (uint64_t)nr_blocks * BLOCK);
	assert_int_equal(c->slab.nr_reserved, 0);
	assert_true(list_empty(&c->starved));
}

static inline void cache_end(struct cache_object *o)
{
	cache_object_put(c, o);
	c = cache_free(c);
}

/* --- reads --- */

struct tread {
	struct cache_read r;
	unsigned char *payload; /* with room behind it, to see what is written past the end */
	unsigned nr_done;
	int rc, error;
};

#define UNTOUCHED 0xa5
#define GUARD_BYTES 64

static inline void tread_done(struct cache_read *r, int error)
{
	struct tread *t = container_of(r, struct tread, r);

	t->nr_done++;
	t->error = error;
}

enum { PLAIN = 0, KEEP = 1, PAYLOAD = 2 };

static inline void start(struct tread *t, struct cache_object *o, uint64_t offset, uint32_t len, int how)
{
	*t = (struct tread){
		.r = { .object = o, .offset = offset, .len = len, .keep = how & KEEP, .done = tread_done }
	};
	t->payload = malloc(len + GUARD_BYTES);
	memset(t->payload, UNTOUCHED, len + GUARD_BYTES);
	if (how & PAYLOAD)
		t->r.payload = t->payload;
	t->rc = cache_read_start(c, &t->r);
	stats();
}

static inline void check_bytes(const struct tread *t, const unsigned char *bytes)
{
	for (uint32_t i = 0; i < t->r.len; i++) {
		if (bytes[i] != content(t->r.object->key, t->r.object->etag, t->r.offset + i))
			fail_msg("byte %u of the read at %llu is wrong", i, (unsigned long long)t->r.offset);
	}
}

/* The read is complete: its bytes are right both ways, then it ends. */
static inline void end_ok(struct tread *t)
{
	struct iovec iov[CACHE_READ_IOV_MAX];
	uint32_t at = 0;
	int nr;

	assert_true(t->rc == 0 ? t->nr_done == 0 : t->rc == -EINPROGRESS && t->nr_done == 1);
	assert_int_equal(t->error, 0);
	if (t->r.payload) {
		cache_read_fill(&t->r);
	} else {
		nr = cache_read_iov(&t->r, iov);
		assert_in_range(nr, 1, CACHE_READ_IOV_MAX);
		for (int i = 0; i < nr; i++) {
			assert_true(at + iov[i].iov_len <= t->r.len);
			memcpy(t->payload + at, iov[i].iov_base, iov[i].iov_len);
			at += (uint32_t)iov[i].iov_len;
		}
		assert_int_equal(at, t->r.len);
	}
	check_bytes(t, t->payload);
	for (int i = 0; i < GUARD_BYTES; i++)
		assert_int_equal(t->payload[t->r.len + i], UNTOUCHED);
	cache_read_end(c, &t->r);
	free(t->payload);
	stats();
}

static inline void end_failed(struct tread *t, int error)
{
	assert_int_equal(t->rc, -EINPROGRESS);
	assert_int_equal(t->nr_done, 1);
	assert_int_equal(t->error, error);
	free(t->payload);
}

static inline void read_whole(struct cache_object *o, uint64_t offset, uint32_t len, int how)
{
	struct tread t;

	start(&t, o, offset, len, how);
	complete_all();
	end_ok(&t);
}

static inline void check_get(unsigned i, uint64_t offset, uint64_t len, bool demand)
{
	assert_true(i < src.nr);
	assert_int_equal(src.get[i]->offset, offset);
	assert_int_equal(src.get[i]->len, len);
	assert_int_equal(src.get[i]->op.demand, demand);
	assert_string_equal(src.get[i]->etag, "e");
}

#endif
