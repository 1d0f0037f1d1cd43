// SPDX-License-Identifier: Apache-2.0
/* The chunk store's fetches: blocks that go straight to a payload, failures and deadlines. */
#define _GNU_SOURCE
#include "test_cache.h"

/* Ends the read as its deadline would. */
static void expire_now(struct tread *t)
{
	t->r.deadline_ns = 0;
	cache_tick(c);
	end_failed(t, -ETIMEDOUT);
}

/* --- straight to the payload --- */

static void a_lone_reader_gets_its_blocks_in_its_payload(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 1 * MIB + 9);
	start(&t, o, 0, 1 * MIB + 9, PAYLOAD);
	deliver(0, 1 * MIB + 8);
	assert_int_equal(stats().used_bytes, 0);
	for (uint32_t i = 0; i < 1 * MIB + 8; i++)
		assert_int_equal(t.payload[i], content("k", "e", i));
	assert_int_equal(t.nr_done, 0);
	complete_all();
	end_ok(&t);
	assert_int_equal(stats().direct_bytes, 1 * MIB + 9);
	check_idle(0);
	cache_end(o);
}

static void a_part_of_a_block_goes_through_memory(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&t, o, 1, 4 * BLOCK - 2, PAYLOAD);
	complete_all();
	end_ok(&t);
	assert_int_equal(stats().direct_bytes, 2 * BLOCK);
	check_idle(2);
	cache_end(o);
}

static void kept_blocks_go_through_memory(void **state)
{
	struct cache_object *o;

	cache_make(64);
	o = object("k", 1 * MIB);
	read_whole(o, 0, 1 * MIB, PAYLOAD | KEEP);
	assert_int_equal(stats().direct_bytes, 0);
	check_idle(8);
	cache_end(o);
}

static void a_second_reader_before_the_first_byte_shares_the_block(void **state)
{
	struct cache_object *o;
	struct tread a, b;

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&a, o, 0, BLOCK, PAYLOAD);
	start(&b, o, 0, 4096, PLAIN);
	complete(0);
	end_ok(&a);
	end_ok(&b);
	assert_int_equal(stats().direct_bytes, 0);
	assert_int_equal(src.nr_submitted, 1);
	check_idle(0);
	cache_end(o);
}

static void a_reader_that_joins_in_the_middle_gets_a_fetch_of_its_own(void **state)
{
	struct cache_object *o;
	struct tread a, b, d;

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&a, o, 0, 3 * BLOCK, PAYLOAD);
	deliver(0, BLOCK + 100);
	start(&b, o, 0, 3 * BLOCK,
	      PAYLOAD); /* the first block is gone already, the second one flows, the third may be shared */
	start(&d, o, BLOCK + 50, 10, PLAIN);
	assert_int_equal(src.nr, 2);
	check_get(1, 0, BLOCK, true);
	complete(0);
	assert_int_equal(a.nr_done, 1);
	end_ok(&a);
	assert_int_equal(src.nr, 2);
	check_get(1, BLOCK, BLOCK, true);
	assert_int_equal(b.nr_done + d.nr_done, 0);
	complete_all();
	end_ok(&b);
	end_ok(&d);
	check_idle(0);
	cache_end(o);
}

static void nothing_is_written_to_a_payload_after_its_read_failed(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&t, o, 0, 4 * BLOCK, PAYLOAD);
	deliver(0, BLOCK + 1000);
	expire_now(&t); /* frees the payload: a sanitizer sees a late write */
	complete(0);
	/* Two blocks came after the read was gone, and are kept for the next one. */
	check_idle(2);
	read_whole(o, 0, 4 * BLOCK, PAYLOAD);
	check_idle(0);
	cache_end(o);
}

static void a_deadline_ends_a_read_whose_source_never_answers(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	c->cfg.read_deadline_ns = 2 * NSEC_PER_MSEC;
	o = object("k", 1 * MIB);
	start(&t, o, 0, 4 * BLOCK, PAYLOAD);
	deliver(0, 2 * BLOCK - 1);
	while (clock_mono_ns() <= t.r.deadline_ns)
		usleep(500);
	cache_tick(c);
	end_failed(&t, -ETIMEDOUT);
	deliver(0, BLOCK);
	finish(0, -ETIMEDOUT);
	check_idle(0);
	cache_end(o);
}

static void the_reader_that_stays_gets_the_block_of_the_one_that_left(void **state)
{
	struct cache_object *o;
	struct tread a, b;

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&a, o, 0, BLOCK, PAYLOAD);
	deliver(0, 100);
	start(&b, o, 0, BLOCK, PAYLOAD);
	expire_now(&a);
	complete(0);
	assert_int_equal(b.nr_done, 0);
	check_get(0, 0, BLOCK, true);
	complete(0);
	end_ok(&b);
	check_idle(0);
	cache_end(o);
}

static void a_failure_in_one_chunk_stops_what_flows_in_the_other(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	o = object("k", 2 * CHUNK);
	start(&t, o, CHUNK - 2 * BLOCK, 4 * BLOCK, PAYLOAD);
	deliver(1, BLOCK + 7);
	deliver(0, BLOCK + 7);
	finish(0, -EIO);
	end_failed(&t, -EIO);
	complete(0);
	check_idle(0);
	read_whole(o, CHUNK - 2 * BLOCK, 4 * BLOCK, PAYLOAD);
	cache_end(o);
}

/* --- failures --- */

static void a_replaced_object_is_stale_from_then_on(void **state)
{
	struct cache_object *o;
	struct tread t, u;

	cache_make(64);
	o = object("k", 1 * MIB);
	read_whole(o, 0, BLOCK, KEEP);
	start(&t, o, 0, 3 * BLOCK, PAYLOAD);
	assert_false(cache_object_stale(o));
	finish(0, -ESTALE);
	end_failed(&t, -ESTALE);
	assert_true(cache_object_stale(o));
	start(&u, o, BLOCK, 1, PLAIN);
	assert_int_equal(u.rc, -ESTALE);
	assert_int_equal(u.nr_done, 0);
	free(u.payload);
	/* There is nothing left to be done for it. */
	assert_int_equal(cache_prefetch(c, o, BLOCK, BLOCK, false), BLOCK);
	assert_int_equal(src.nr, 0);
	assert_int_equal(src.nr, 0);
	/* What is here is of the right version. */
	start(&u, o, 0, BLOCK, KEEP);
	assert_int_equal(u.rc, 0);
	end_ok(&u);
	check_idle(1);
	cache_end(o);
}

static void a_failed_fetch_fails_all_its_readers_and_only_those(void **state)
{
	struct cache_object *o;
	struct tread t[4];

	cache_make(64);
	o = object("k", 2 * MIB);
	start(&t[0], o, 0, 4 * BLOCK, PLAIN);
	start(&t[1], o, 3 * BLOCK, 2 * BLOCK, PAYLOAD);
	start(&t[2], o, BLOCK, 10, PLAIN);
	start(&t[3], o, 8 * BLOCK, 10, PLAIN);
	deliver(0, 2 * BLOCK + 20);
	assert_int_equal(t[2].nr_done, 1);
	finish(0, -EIO);
	end_failed(&t[0], -EIO);
	end_failed(&t[1], -EIO);
	end_ok(&t[2]);
	assert_int_equal(t[3].nr_done, 0);
	complete_all();
	end_ok(&t[3]);
	assert_int_equal(c->slab.nr_reserved, 0);
	read_whole(o, 0, 2 * MIB, PAYLOAD);
	check_idle(0);
	cache_end(o);
}

static void a_timed_out_fetch_is_tried_again_while_the_read_has_time(void **state)
{
	struct cache_object *o;
	struct tread t, u;

	cache_make(64);
	o = object("k", 2 * MIB);
	start(&t, o, 0, 6 * BLOCK, PAYLOAD);
	start(&u, o, 5 * BLOCK, 2 * BLOCK, PLAIN);
	deliver(0, 2 * BLOCK + BLOCK / 2);
	finish(0, -ETIMEDOUT);
	assert_int_equal(t.nr_done + u.nr_done, 0);
	assert_int_equal(src.nr, 2);
	check_get(0, 6 * BLOCK, BLOCK, true);
	check_get(1, 2 * BLOCK, 4 * BLOCK, true);
	assert_true(src.get[1]->op.deadline_ns == t.r.deadline_ns);
	complete_all();
	end_ok(&t);
	end_ok(&u);
	assert_int_equal(src.nr_submitted, 3);
	check_idle(0);
	cache_end(o);
}

static void a_timed_out_fetch_ends_a_read_without_time(void **state)
{
	struct cache_object *o;
	struct tread t;

	cache_make(64);
	c->cfg.read_deadline_ns = NSEC_PER_SEC / 2;
	o = object("k", 2 * MIB);
	start(&t, o, 0, 6 * BLOCK, PAYLOAD);
	deliver(0, 2 * BLOCK + BLOCK / 2);
	finish(0, -ETIMEDOUT);
	end_failed(&t, -ETIMEDOUT);
	check_idle(0);
	cache_end(o);
}

static void a_failure_after_the_last_byte_loses_nothing(void **state)
{
	struct cache_object *o;
	struct tread t, u;

	cache_make(64);
	/* The short block at the end counts as arrived, too. */
	o = object("k", 2 * BLOCK + 100);
	start(&t, o, 0, 2 * BLOCK + 100, PAYLOAD);
	deliver(0, 2 * BLOCK + 50);
	start(&u, o, 2 * BLOCK, 100, PLAIN);
	deliver(0, 50);
	assert_int_equal(t.nr_done, 1);
	end_ok(&t);
	assert_int_equal(src.nr, 2);
	finish(0, -EIO);
	assert_int_equal(u.nr_done, 0);
	assert_int_equal(src.nr, 1);
	complete_all();
	end_ok(&u);
	check_idle(0);
	cache_end(o);
}

static void a_block_under_way_is_never_fetched_twice_at_once(void **state)
{
	struct cache_object *o;
	struct tread t, u;

	cache_make(64);
	o = object("k", 2 * BLOCK + 100);
	start(&t, o, 0, 2 * BLOCK + 100, PAYLOAD);
	deliver(0, 2 * BLOCK + 50);
	start(&u, o, 2 * BLOCK, 100, PLAIN);
	deliver(0, 50);
	end_ok(&t);
	finish(0, -ETIMEDOUT);
	assert_int_equal(src.nr, 1);
	complete_all();
	end_ok(&u);
	check_idle(0);
	cache_end(o);
}

static void a_cancelled_prefetch_gives_its_memory_back(void **state)
{
	struct cache_object *o;

	cache_make(64);
	o = object("k", 1 * MIB);
	cache_prefetch(c, o, 0, 1 * MIB, false);
	finish(0, -ECANCELED);
	check_idle(0);
	cache_prefetch(c, o, 0, 1 * MIB, false);
	deliver(0, BLOCK / 2);
	finish(0, -ECANCELED);
	check_idle(0);
	read_whole(o, 0, 1 * MIB, PAYLOAD);
	cache_end(o);
}

static void a_starved_read_has_a_deadline_too(void **state)
{
	struct cache_object *o;
	struct tread a, b, d;

	cache_make(2);
	o = object("k", 100 * MIB);
	start(&a, o, 0, 2 * BLOCK, PLAIN);
	start(&b, o, CHUNK, 2 * BLOCK, PAYLOAD);
	start(&d, o, 2 * CHUNK, 2 * BLOCK, PAYLOAD);
	assert_int_equal(src.nr, 1);
	expire_now(&b);
	assert_int_equal(src.nr, 1);
	complete_all();
	end_ok(&a);
	assert_int_equal(src.nr, 1);
	check_get(0, 2 * CHUNK, 2 * BLOCK, true);
	complete_all();
	end_ok(&d);
	check_idle(0);
	cache_end(o);
}

static void reads_expire_in_order_of_their_deadlines(void **state)
{
	struct cache_object *o;
	struct tread a, b, d;

	cache_make(2);
	o = object("k", 100 * MIB);
	start(&a, o, 0, 2 * BLOCK, PAYLOAD);
	start(&b, o, CHUNK, 2 * BLOCK, PAYLOAD); /* starves, goes on later, and has the older deadline all the same */
	start(&d, o, 0, 10, PLAIN);
	complete(0);
	end_ok(&a);
	assert_int_equal(src.nr, 1);
	check_get(0, CHUNK, 2 * BLOCK, true);
	expire_now(&b);
	complete_all();
	end_ok(&d);
	cache_end(o);
}

/* What it would find behind hundreds of chunks that wait for their reader is not worth the walk. */
static void a_prefetch_looks_for_room_at_so_many_chunks_and_no_more(void **state)
{
	struct cache_object *o, *idle;

	cache_make(302);
	o = object("k", 300ull * CHUNK);
	idle = object("i", CHUNK);
	for (unsigned i = 0; i < 255; i++) {
		cache_prefetch(c, o, (uint64_t)i * CHUNK, BLOCK, false);
		complete_all();
	}
	read_whole(idle, 0, 47 * BLOCK, KEEP);
	check_idle(302);
	assert_int_equal(cache_prefetch(c, o, 255ull * CHUNK, BLOCK, false), BLOCK);
	complete_all();
	assert_int_equal(stats().evicted_bytes, 47 * BLOCK);
	cache_prefetch(c, o, 256ull * CHUNK, BLOCK, false);
	complete_all();
	read_whole(idle, 0, 45 * BLOCK, KEEP);
	check_idle(302);
	assert_int_equal(cache_prefetch(c, o, 257ull * CHUNK, BLOCK, false), 0);
	check_idle(302);
	/* Somebody who waits gets it. */
	read_whole(o, 257ull * CHUNK, BLOCK, KEEP);
	cache_object_put(c, idle);
	cache_end(o);
}

static void a_cancelled_read_ends_at_once_and_disturbs_nobody(void **state)
{
	struct tread t, other, waiting;
	struct cache_object *o;

	cache_make(64);
	o = object("k", 1 * MIB);
	start(&t, o, 0, 4 * BLOCK, PAYLOAD);
	deliver(0, BLOCK + 1000);
	start(&other, o, BLOCK, BLOCK, PAYLOAD);
	cache_read_cancel(c, &t.r, -EINTR);
	cache_read_cancel(c, &t.r, -EIO);
	end_failed(&t, -EINTR); /* frees the payload: a sanitizer sees a late write */
	complete_all();
	/* Too late: it has its bytes. */
	cache_read_cancel(c, &other.r, -EINTR);
	end_ok(&other);
	cache_end(o);

	cache_make(16);
	o = object("k", 4 * MIB);
	start(&t, o, 0, 16 * BLOCK, PLAIN);
	start(&waiting, o, 16 * BLOCK, BLOCK, PLAIN);
	cache_read_cancel(c, &waiting.r, -EINTR);
	end_failed(&waiting, -EINTR);
	complete_all();
	end_ok(&t);
	check_idle(0);
	cache_end(o);
}

static void the_budget_may_be_changed_while_it_is_used(void **state)
{
	struct cache_config cfg = {
		.budget_bytes = 128 * BLOCK,
		.max_bytes = 256 * BLOCK,
		.read_deadline_ns = 60 * NSEC_PER_SEC,
		.source = { .submit = src_submit, .promote = src_promote },
	};
	struct cache_object *o;
	struct tread t;

	memset(&src, 0, sizeof(src));
	c = cache_new(&cfg);
	o = object("k", 64 * MIB);
	assert_int_equal(stats().budget_bytes, 128 * BLOCK);
	assert_int_equal(cache_budget_set(c, 257 * BLOCK), -EINVAL);
	assert_int_equal(cache_budget_set(c, 63 * BLOCK), -EINVAL);
	assert_int_equal(cache_prefetch(c, o, 0, 256 * BLOCK, false), 128 * BLOCK);
	assert_int_equal(cache_budget_set(c, 256 * BLOCK), 0);
	assert_int_equal(cache_prefetch(c, o, 128 * BLOCK, 256 * BLOCK, false), 128 * BLOCK);
	complete_all();
	check_idle(256);
	/* What a reader holds stays. */
	start(&t, o, 0, BLOCK, KEEP);
	assert_int_equal(cache_budget_set(c, 64 * BLOCK), 0);
	end_ok(&t);
	check_idle(64);
	assert_int_equal(stats().budget_bytes, 64 * BLOCK);
	assert_int_equal(cache_prefetch(c, o, 256 * BLOCK, BLOCK, false), 0);
	read_whole(o, 256 * BLOCK, 64 * BLOCK, KEEP);
	check_idle(64);
	cache_end(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lone_reader_gets_its_blocks_in_its_payload),
		cmocka_unit_test(a_part_of_a_block_goes_through_memory),
		cmocka_unit_test(kept_blocks_go_through_memory),
		cmocka_unit_test(a_second_reader_before_the_first_byte_shares_the_block),
		cmocka_unit_test(a_reader_that_joins_in_the_middle_gets_a_fetch_of_its_own),
		cmocka_unit_test(nothing_is_written_to_a_payload_after_its_read_failed),
		cmocka_unit_test(a_deadline_ends_a_read_whose_source_never_answers),
		cmocka_unit_test(the_reader_that_stays_gets_the_block_of_the_one_that_left),
		cmocka_unit_test(a_failure_in_one_chunk_stops_what_flows_in_the_other),
		cmocka_unit_test(a_replaced_object_is_stale_from_then_on),
		cmocka_unit_test(a_failed_fetch_fails_all_its_readers_and_only_those),
		cmocka_unit_test(a_timed_out_fetch_is_tried_again_while_the_read_has_time),
		cmocka_unit_test(a_timed_out_fetch_ends_a_read_without_time),
		cmocka_unit_test(a_failure_after_the_last_byte_loses_nothing),
		cmocka_unit_test(a_block_under_way_is_never_fetched_twice_at_once),
		cmocka_unit_test(a_cancelled_prefetch_gives_its_memory_back),
		cmocka_unit_test(a_starved_read_has_a_deadline_too),
		cmocka_unit_test(reads_expire_in_order_of_their_deadlines),
		cmocka_unit_test(a_cancelled_read_ends_at_once_and_disturbs_nobody),
		cmocka_unit_test(the_budget_may_be_changed_while_it_is_used),
		cmocka_unit_test(a_prefetch_looks_for_room_at_so_many_chunks_and_no_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
