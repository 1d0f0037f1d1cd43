// SPDX-License-Identifier: Apache-2.0
/* The chunk store: hits, misses, joining, versions, prefetch and memory. */
#define _GNU_SOURCE
#include "test_cache.h"

/* --- hits, misses, joining --- */

static void a_miss_fetches_the_blocks_of_the_read_and_no_more(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 100 * MIB);
	start(&t, o, BLOCK + 5000, 4096, PLAIN);
	assert_int_equal(t.rc, -EINPROGRESS);
	assert_true(t.r.missed);
	assert_int_equal(src.nr, 1);
	check_get(0, BLOCK, BLOCK, true);
	assert_string_equal(src.get[0]->key, "k");
	assert_int_equal(src.get[0]->object_bytes, 100 * MIB);
	deliver(0, BLOCK - 1);
	assert_int_equal(t.nr_done, 0);
	deliver(0, 1);
	assert_int_equal(t.nr_done, 1);
	finish(0, 0);
	end_ok(&t);
	assert_int_equal(stats().miss_bytes, 4096);
	assert_int_equal(stats().fetched_bytes, BLOCK);
	cache_end(o);
}

static void a_hit_needs_no_fetch(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 1 * MIB);
	read_whole(o, 0, 1 * MIB, KEEP);
	start(&t, o, 300 * KIB + 1, 200 * KIB, KEEP);
	assert_int_equal(t.rc, 0);
	assert_false(t.r.missed);
	end_ok(&t);
	assert_int_equal(src.nr_submitted, 1);
	assert_int_equal(stats().hit_bytes, 200 * KIB);
	check_idle(8);
	cache_end(o);
}

static void reads_of_one_block_share_a_fetch(void **state)
{
	struct cache_object *o;
	struct tread t[4];

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&t[0], o, 0, 4096, PLAIN);
	start(&t[1], o, 4096, 4096, PLAIN);
	start(&t[2], o, 0, BLOCK, PAYLOAD);
	deliver(0, 5);
	start(&t[3], o, 0, BLOCK, PAYLOAD);
	assert_int_equal(src.nr_submitted, 1);
	complete(0);
	for (int i = 0; i < 4; i++)
		end_ok(&t[i]);
	check_idle(0);
	cache_end(o);
}

static void a_read_fetches_only_what_is_missing(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 100 * MIB);
	read_whole(o, 2 * BLOCK, BLOCK, KEEP);
	start(&t, o, 0, 5 * BLOCK, PLAIN);
	assert_int_equal(src.nr, 2);
	check_get(0, 0, 2 * BLOCK, true);
	check_get(1, 3 * BLOCK, 2 * BLOCK, true);
	complete(1);
	assert_int_equal(t.nr_done, 0);
	complete(0);
	end_ok(&t);
	cache_end(o);
}

static void a_read_across_chunks_is_whole(void **state)
{
	struct cache_object *o;
	struct tread t[2];

	cache_make(256);
	o = object("k", 20 * MIB);
	/* The most blocks a read can touch. */
	start(&t[0], o, 5 * MIB + 77, CHUNK, PLAIN);
	start(&t[1], o, CHUNK - 100, 200, PAYLOAD);
	assert_int_equal(src.nr, 2);
	check_get(0, 5 * MIB, 3 * MIB, true);
	check_get(1, CHUNK, 5 * MIB + BLOCK, true);
	complete(1);
	assert_int_equal(t[0].nr_done + t[1].nr_done, 0);
	complete(0);
	end_ok(&t[0]);
	end_ok(&t[1]);
	/* The blocks at both ends were not read whole. */
	check_idle(2);
	read_whole(o, CHUNK - BLOCK, 2 * BLOCK, PAYLOAD);
	check_idle(2);
	cache_end(o);
}

static void the_last_block_of_an_object_is_short(void **state)
{
	struct cache_object *o, *one;

	cache_make(256);
	o = object("k", CHUNK + BLOCK + 1);
	read_whole(o, CHUNK, BLOCK + 1, PLAIN);
	assert_int_equal(stats().fetched_bytes, BLOCK + 1);
	read_whole(o, CHUNK + BLOCK, 1, PAYLOAD);
	assert_int_equal(stats().direct_bytes, 1);
	assert_int_equal(cache_prefetch(c, o, CHUNK + BLOCK, 10 * MIB, false), 1);
	check_get(0, CHUNK + BLOCK, 1, false);
	complete_all();
	one = object("one", 1);
	read_whole(one, 0, 1, KEEP);
	cache_object_put(c, one);
	check_idle(2);
	cache_end(o);
}

static void bytes_in_pieces_of_any_size_are_put_together(void **state)
{
	struct cache_object *o;
	struct tread t[2];
	uint32_t piece = 1;

	cache_make(256);
	o = object("k", 2 * MIB - 3);
	start(&t[0], o, 100, 2 * MIB - 103, PAYLOAD);
	start(&t[1], o, 700 * KIB, 300 * KIB, PLAIN);
	while (src.get[0]->delivered < src.get[0]->len) {
		deliver(0, min_of((uint64_t)piece, src.get[0]->len - src.get[0]->delivered));
		piece = piece * 7 % 300007;
	}
	finish(0, 0);
	end_ok(&t[0]);
	end_ok(&t[1]);
	check_idle(1); /* the first one, of which 100 bytes were not read */
	cache_end(o);
}

static void versions_never_share_data(void **state)
{
	struct cache_object *a, *b, *again;

	cache_make(64);
	a = cache_object_get(c, "k", "e", BLOCK, 7);
	again = cache_object_get(c, "k", "e", BLOCK, 7);
	b = cache_object_get(c, "k", "f", BLOCK, 7);
	assert_ptr_equal(a, again);
	assert_ptr_not_equal(a, b);
	read_whole(a, 0, BLOCK, KEEP);
	read_whole(b, 0, BLOCK, KEEP);
	assert_int_equal(src.nr_submitted, 2);
	for (int i = 0; i < 2; i++) {
		struct cache_object *other = cache_object_get(c, "k", "e", BLOCK + (i == 0), 7 + (i == 1));

		assert_ptr_not_equal(a, other);
		cache_object_put(c, other);
	}
	cache_object_put(c, a);
	cache_object_put(c, b);
	cache_end(again);
}

static void what_a_forgotten_object_had_cached_is_still_there(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", BLOCK);
	read_whole(o, 0, BLOCK, KEEP);
	cache_object_put(c, o);
	o = object("k", BLOCK);
	start(&t, o, 0, BLOCK, KEEP);
	assert_int_equal(t.rc, 0);
	end_ok(&t);
	cache_end(o);
}

static void an_object_may_be_put_while_fetches_run(void **state)
{
	cache_make(64);
	for (int error = 0; error >= -EIO; error -= EIO) {
		struct cache_object *o = object("k", 2 * MIB);

		cache_prefetch(c, o, 0, 2 * MIB, false);
		deliver(0, 3 * BLOCK + 9);
		cache_object_put(c, o);
		if (error == 0)
			complete(0);
		else
			finish(0, error);
		/* Room for something else takes the last that held it. */
		o = object("m", 7 * MIB + 9);
		read_whole(o, 0, 7 * MIB + 9, PLAIN);
		cache_object_put(c, o);
	}
	cache_end(NULL);
}

/* --- memory --- */

static void a_buffered_block_goes_when_all_of_it_was_read(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 1 * MIB);
	read_whole(o, 0, BLOCK / 2, PLAIN);
	assert_int_equal(stats().used_bytes, BLOCK);
	start(&t, o, BLOCK / 2, BLOCK / 2, PLAIN);
	assert_int_equal(t.rc, 0);
	end_ok(&t);
	check_idle(0);
	cache_prefetch(c, o, 0, 1 * MIB, false);
	complete_all();
	assert_int_equal(stats().used_bytes, 1 * MIB);
	read_whole(o, 0, 1 * MIB, PAYLOAD);
	check_idle(0);
	assert_int_equal(stats().evicted_bytes, 0);
	cache_end(o);
}

static void a_block_stays_while_somebody_reads_it(void **state)
{
	struct cache_object *o;
	struct tread a, b;

	cache_make(64);
	o = object("k", 1 * MIB);
	cache_prefetch(c, o, 0, BLOCK, false);
	complete_all();
	start(&a, o, 0, BLOCK, PLAIN);
	start(&b, o, 0, BLOCK, PLAIN);
	end_ok(&a);
	assert_int_equal(stats().used_bytes, BLOCK);
	end_ok(&b);
	check_idle(0);
	cache_end(o);
}

static void the_least_recently_used_goes_first(void **state)
{
	struct cache_object *o[5];
	struct tread t;
	char key[2] = "a";

	cache_make(4);
	for (int i = 0; i < 5; i++, key[0]++)
		o[i] = object(key, BLOCK);
	for (int i = 0; i < 4; i++)
		read_whole(o[i], 0, BLOCK, KEEP);
	read_whole(o[0], 0, BLOCK, KEEP);
	assert_int_equal(src.nr_submitted, 4);
	read_whole(o[4], 0, BLOCK, KEEP);
	assert_int_equal(stats().evicted_bytes, BLOCK);
	for (int i = 0; i < 5; i++) {
		if (i == 1)
			continue;
		start(&t, o[i], 0, BLOCK, KEEP);
		assert_int_equal(t.rc, 0);
		end_ok(&t);
	}
	start(&t, o[1], 0, BLOCK, KEEP);
	assert_int_equal(t.rc, -EINPROGRESS);
	complete_all();
	end_ok(&t);
	check_idle(4);
	for (int i = 0; i < 5; i++)
		cache_object_put(c, o[i]);
	cache_end(NULL);
}

static void a_read_without_memory_waits_for_it(void **state)
{
	struct cache_object *o;
	struct tread t[4];

	cache_make(4);
	o = object("k", 100 * MIB);
	start(&t[0], o, 0, 2 * BLOCK, PLAIN);
	start(&t[1], o, CHUNK, 2 * BLOCK, PLAIN);
	start(&t[2], o, 2 * CHUNK, 3 * BLOCK, PLAIN);
	start(&t[3], o, 3 * CHUNK, BLOCK, PLAIN);
	assert_int_equal(t[2].rc, -EINPROGRESS);
	assert_int_equal(src.nr, 2);
	complete_all();
	assert_int_equal(src.nr_submitted, 2);
	end_ok(&t[0]);
	/* Two blocks are free and the first in line needs three: nobody overtakes it. */
	assert_int_equal(src.nr, 0);
	end_ok(&t[1]);
	assert_int_equal(src.nr, 2);
	check_get(0, 2 * CHUNK, 3 * BLOCK, true);
	complete_all();
	end_ok(&t[2]);
	end_ok(&t[3]);
	check_idle(0);
	cache_end(o);
}

static void a_read_gets_the_memory_of_failed_fetches(void **state)
{
	struct cache_object *o;
	struct tread a, b;

	cache_make(4);
	o = object("k", 100 * MIB);
	start(&a, o, 0, 4 * BLOCK, PAYLOAD);
	start(&b, o, CHUNK, 4 * BLOCK, PAYLOAD);
	deliver(0, BLOCK + 1);
	finish(0, -EIO);
	end_failed(&a, -EIO);
	check_get(0, CHUNK, 4 * BLOCK, true);
	complete_all();
	end_ok(&b);
	check_idle(0);
	cache_end(o);
}

static void memory_that_a_read_waits_for_is_not_prefetched_into(void **state)
{
	struct cache_object *o;
	struct tread a, b, w;

	cache_make(3);
	o = object("k", 100 * MIB);
	start(&a, o, 0, BLOCK, PLAIN);
	start(&b, o, CHUNK, BLOCK, PLAIN);
	complete_all();
	start(&w, o, 2 * CHUNK, 3 * BLOCK, PLAIN);
	assert_int_equal(w.rc, -EINPROGRESS);
	assert_int_equal(cache_prefetch(c, o, 3 * CHUNK, BLOCK, false), 0);
	assert_int_equal(src.nr, 0);
	end_ok(&a);
	end_ok(&b);
	complete_all();
	end_ok(&w);
	check_idle(0);
	cache_end(o);
}

/* --- prefetch --- */

static void a_prefetch_asks_for_whole_chunks_as_prefetch(void **state)
{
	struct cache_object *o;

	cache_make(256);
	o = object("k", 20 * MIB + 5);
	assert_int_equal(cache_prefetch(c, o, 3 * MIB, 100 * MIB, false), 17 * MIB + 5);
	assert_int_equal(src.nr, 3);
	check_get(0, 3 * MIB, 5 * MIB, false);
	check_get(1, CHUNK, CHUNK, false);
	check_get(2, 2 * CHUNK, 4 * MIB + 5, false);
	assert_int_equal(cache_prefetch(c, o, 0, 20 * MIB, false), 20 * MIB);
	assert_int_equal(src.nr, 4);
	check_get(3, 0, 3 * MIB, false);
	assert_int_equal(cache_prefetch(c, o, 20 * MIB + 5, MIB, false), 0);
	complete_all();
	read_whole(o, 12 * MIB, CHUNK, PAYLOAD);
	assert_int_equal(src.nr_submitted, 4);
	check_idle(161 - 64);
	cache_end(o);
}

static void a_read_joins_a_prefetch_and_promotes_it(void **state)
{
	struct cache_object *o;
	struct tread t, u;

	cache_make(64);
	o = object("k", 100 * MIB);
	cache_prefetch(c, o, 0, CHUNK, false);
	start(&t, o, 5 * BLOCK, 2 * BLOCK, PAYLOAD);
	assert_int_equal(src.nr_promoted, 1);
	assert_int_equal(src.nr_submitted, 1);
	start(&u, o, 5 * BLOCK, 100, PLAIN);
	assert_int_equal(src.nr_promoted, 1);
	deliver(0, 7 * BLOCK);
	assert_int_equal(t.nr_done + u.nr_done, 2);
	complete_all();
	end_ok(&t);
	end_ok(&u);
	cache_end(o);
}

static struct tread joiner;

/* The read comes between the plan and the submission. */
static void submit_after_a_reader_joined(void *ctx, struct s3_get *g)
{
	if (!src.nr_submitted++)
		start(&joiner, *(struct cache_object **)ctx, 0, 4096, PLAIN);
	src_submit(ctx, g);
}

static void a_read_that_joins_before_the_prefetch_is_submitted_promotes_it_too(void **state)
{
	struct cache_object *o;

	cache_make(64);
	o = object("k", 100 * MIB);
	c->cfg.source.submit = submit_after_a_reader_joined;
	c->cfg.source.ctx = &o;
	cache_prefetch(c, o, 0, CHUNK, false);
	assert_int_equal(src.nr, 1);
	assert_true(src.get[0]->op.demand);
	complete_all();
	end_ok(&joiner);
	cache_end(o);
}

static void a_prefetch_spares_what_was_prefetched_and_not_read(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(4);
	o = object("k", 100 * MIB);
	assert_int_equal(cache_prefetch(c, o, 0, 3 * BLOCK, false), 3 * BLOCK);
	assert_int_equal(cache_prefetch(c, o, CHUNK, 2 * BLOCK, false), 0);
	complete_all();
	assert_int_equal(cache_prefetch(c, o, CHUNK, 2 * BLOCK, false), 0);
	assert_int_equal(stats().evicted_bytes, 0);
	/* What was read may go. */
	read_whole(o, 0, 3 * BLOCK, KEEP);
	assert_int_equal(src.nr_submitted, 1);
	assert_int_equal(cache_prefetch(c, o, CHUNK, 2 * BLOCK, false), 2 * BLOCK);
	complete_all();
	check_idle(2);
	/* And a reader comes before both. */
	start(&t, o, 2 * CHUNK, 4 * BLOCK, PLAIN);
	assert_int_equal(src.nr, 1);
	complete_all();
	end_ok(&t);
	cache_end(o);
}

static void a_prefetch_after_a_pause_is_as_safe(void **state)
{
	struct cache_object *o;

	cache_make(2);
	o = object("k", 100 * MIB);
	c->active_ns = clock_mono_ns() - 31 * NSEC_PER_SEC;
	assert_int_equal(cache_prefetch(c, o, 0, 2 * BLOCK, false), 2 * BLOCK);
	complete_all();
	assert_int_equal(cache_prefetch(c, o, CHUNK, 2 * BLOCK, false), 0);
	assert_int_equal(stats().evicted_bytes, 0);
	cache_end(o);
}

static void a_prefetch_that_nobody_reads_gives_way_in_the_end(void **state)
{
	struct cache_object *o;

	cache_make(2);
	o = object("k", 100 * MIB);
	cache_prefetch(c, o, 0, 2 * BLOCK, false);
	complete_all();
	o->chunk[0]->touched_ns -= 601 * NSEC_PER_SEC;
	assert_int_equal(cache_prefetch(c, o, CHUNK, 2 * BLOCK, false), 2 * BLOCK);
	complete_all();
	check_idle(2);
	cache_end(o);
}

static void a_prefetch_can_leave_out_what_was_served(void **state)
{
	struct cache_object *o;

	cache_make(64);
	o = object("k", 1 * MIB);
	read_whole(o, 0, 2 * BLOCK, PAYLOAD);
	read_whole(o, 2 * BLOCK, 2 * BLOCK, PLAIN);
	check_idle(0);
	assert_int_equal(cache_prefetch(c, o, 0, 6 * BLOCK, true), 6 * BLOCK);
	assert_int_equal(src.nr, 1);
	check_get(0, 4 * BLOCK, 2 * BLOCK, false);
	complete_all();
	assert_int_equal(cache_prefetch(c, o, 0, 6 * BLOCK, false), 6 * BLOCK);
	assert_int_equal(src.nr, 1);
	check_get(0, 0, 4 * BLOCK, false);
	complete_all();
	check_idle(6);
	cache_end(o);
}

/* --- housekeeping --- */

static void idle_memory_is_given_back(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(256);
	o = object("k", 32 * MIB);
	read_whole(o, 0, 2 * BLOCK, KEEP);
	read_whole(o, CHUNK, CHUNK, PLAIN);
	assert_true(stats().resident_bytes > CHUNK);
	c->active_ns = clock_mono_ns() - 4 * NSEC_PER_SEC;
	cache_tick(c);
	assert_true(stats().resident_bytes > CHUNK);
	c->active_ns = clock_mono_ns() - 6 * NSEC_PER_SEC;
	cache_tick(c);
	assert_int_equal(stats().resident_bytes, 2 * BLOCK);
	start(&t, o, 0, 2 * BLOCK, KEEP);
	assert_int_equal(t.rc, 0);
	/* A read under way keeps its memory, whatever the time. */
	c->active_ns = clock_mono_ns() - 61 * NSEC_PER_SEC;
	cache_tick(c);
	check_idle(2);
	end_ok(&t);
	c->active_ns = clock_mono_ns() - 61 * NSEC_PER_SEC;
	cache_tick(c);
	check_idle(0);
	assert_int_equal(stats().resident_bytes, 0);
	read_whole(o, 0, 2 * BLOCK, KEEP);
	cache_end(o);
}

static void a_budget_below_one_block_is_refused(void **state)
{
	struct cache_config cfg = { .budget_bytes = BLOCK - 1,
				    .source = { .submit = src_submit, .promote = src_promote } };

	assert_null(cache_new(&cfg));
	assert_null(cache_free(NULL));
	cache_make(3);
	c->cfg.budget_bytes = 0;
	assert_int_equal(stats().budget_bytes, 3 * BLOCK);
	cache_end(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_miss_fetches_the_blocks_of_the_read_and_no_more),
		cmocka_unit_test(a_hit_needs_no_fetch),
		cmocka_unit_test(reads_of_one_block_share_a_fetch),
		cmocka_unit_test(a_read_fetches_only_what_is_missing),
		cmocka_unit_test(a_read_across_chunks_is_whole),
		cmocka_unit_test(the_last_block_of_an_object_is_short),
		cmocka_unit_test(bytes_in_pieces_of_any_size_are_put_together),
		cmocka_unit_test(versions_never_share_data),
		cmocka_unit_test(what_a_forgotten_object_had_cached_is_still_there),
		cmocka_unit_test(an_object_may_be_put_while_fetches_run),
		cmocka_unit_test(a_buffered_block_goes_when_all_of_it_was_read),
		cmocka_unit_test(a_block_stays_while_somebody_reads_it),
		cmocka_unit_test(the_least_recently_used_goes_first),
		cmocka_unit_test(a_read_without_memory_waits_for_it),
		cmocka_unit_test(a_read_gets_the_memory_of_failed_fetches),
		cmocka_unit_test(memory_that_a_read_waits_for_is_not_prefetched_into),
		cmocka_unit_test(a_prefetch_asks_for_whole_chunks_as_prefetch),
		cmocka_unit_test(a_read_joins_a_prefetch_and_promotes_it),
		cmocka_unit_test(a_read_that_joins_before_the_prefetch_is_submitted_promotes_it_too),
		cmocka_unit_test(a_prefetch_spares_what_was_prefetched_and_not_read),
		cmocka_unit_test(a_prefetch_after_a_pause_is_as_safe),
		cmocka_unit_test(a_prefetch_that_nobody_reads_gives_way_in_the_end),
		cmocka_unit_test(a_prefetch_can_leave_out_what_was_served),
		cmocka_unit_test(idle_memory_is_given_back),
		cmocka_unit_test(a_budget_below_one_block_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
