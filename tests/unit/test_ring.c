// SPDX-License-Identifier: Apache-2.0
/* The io_uring loop: nothing posted is lost, and completions reach their owner. */
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

#include "ring/ring.h"

#define NR_POSTERS 4
#define NR_POSTS 5000

struct item {
	struct list link;
	unsigned poster, nr;
};

static struct ring ring;

/* Written by the owner thread, read by the test after it has ended. */
static struct {
	unsigned next[NR_POSTERS];
	unsigned nr_received, stop_at;
	unsigned nr_completed, nr_wrong;
	void (*on_receive)(struct item *it);
} seen;

static void receive(void *ctx, struct list *n)
{
	struct item *it = list_entry(n, struct item, link);

	if (ctx != &seen || it->nr != seen.next[it->poster]++)
		seen.nr_wrong++;
	seen.nr_received++;
	if (seen.on_receive)
		seen.on_receive(it);
	if (seen.nr_received == seen.stop_at)
		ring_stop(&ring);
}

static void complete(void *ctx, void *user_data, int res)
{
	if (ctx != &seen || !user_data || res != 0)
		seen.nr_wrong++;
	if (++seen.nr_completed == seen.stop_at)
		ring_stop(&ring);
}

static const struct ring_ops ops = { .complete = complete, .receive = receive };

/* A host may forbid io_uring: then there is nothing to test. */
static void ring_make(unsigned nr_entries, bool big)
{
	int rc = ring_init(&ring, nr_entries, big, &ops, &seen);

	if (rc == -ENOSYS || rc == -EPERM)
		skip();
	assert_int_equal(rc, 0);
	memset(&seen, 0, sizeof(seen));
}

static void *run(void *arg)
{
	ring_run(&ring);
	return NULL;
}

static void *post_many(void *arg)
{
	struct item *items = arg;

	for (unsigned i = 0; i < NR_POSTS; i++)
		ring_post(&ring, &items[i].link);
	return NULL;
}

static void posts_of_several_threads_arrive_once_and_in_order(void **state)
{
	struct item *items = calloc(NR_POSTERS * NR_POSTS, sizeof(*items));
	pthread_t owner, poster[NR_POSTERS];

	ring_make(8, false);
	seen.stop_at = NR_POSTERS * NR_POSTS;
	for (unsigned i = 0; i < NR_POSTERS * NR_POSTS; i++) {
		items[i].poster = i / NR_POSTS;
		items[i].nr = i % NR_POSTS;
	}
	pthread_create(&owner, NULL, run, NULL);
	for (unsigned i = 0; i < NR_POSTERS; i++)
		pthread_create(&poster[i], NULL, post_many, items + i * NR_POSTS);
	for (unsigned i = 0; i < NR_POSTERS; i++)
		pthread_join(poster[i], NULL);
	pthread_join(owner, NULL);
	assert_int_equal(seen.nr_received, NR_POSTERS * NR_POSTS);
	assert_int_equal(seen.nr_wrong, 0);
	ring_done(&ring);
	free(items);
}

static atomic_uint nr_answered;

static void answer(struct item *it)
{
	nr_answered++;
}

/* Each post finds the ring asleep, or just falling asleep. */
static void a_post_wakes_the_ring(void **state)
{
	struct item item = { .poster = 0 };
	pthread_t owner;

	ring_make(8, false);
	seen.on_receive = answer;
	nr_answered = 0;
	seen.stop_at = 3000;
	pthread_create(&owner, NULL, run, NULL);
	for (unsigned i = 0; i < 3000; i++) {
		item.nr = i;
		ring_post(&ring, &item.link);
		while (nr_answered == i)
			sched_yield();
		for (unsigned spin = i % 50; spin; spin--)
			sched_yield();
	}
	pthread_join(owner, NULL);
	assert_int_equal(seen.nr_wrong, 0);
	ring_done(&ring);
}

static void a_stop_wakes_the_ring_and_what_was_posted_is_received(void **state)
{
	struct item items[3] = { { .nr = 0 }, { .nr = 1 }, { .nr = 2 } };
	pthread_t owner;

	for (int i = 0; i < 100; i++) {
		ring_make(8, false);
		pthread_create(&owner, NULL, run, NULL);
		for (int n = i % 10; n; n--)
			sched_yield();
		if (i % 2)
			ring_post(&ring, &items[0].link);
		ring_stop(&ring);
		pthread_join(owner, NULL);
		assert_int_equal(seen.nr_received, i % 2);
		ring_done(&ring);
	}
	ring_make(8, false);
	for (int i = 0; i < 3; i++)
		ring_post(&ring, &items[i].link);
	ring_stop(&ring);
	ring_run(&ring);
	assert_int_equal(seen.nr_received, 3);
	assert_int_equal(seen.nr_wrong, 0);
	ring_done(&ring);
}

static struct item again;

static void post_again(struct item *it)
{
	if (it->nr < 9) {
		again.nr = it->nr + 1;
		ring_post(&ring, &again.link);
	}
}

static void the_owner_may_post_to_itself(void **state)
{
	ring_make(8, false);
	seen.on_receive = post_again;
	seen.stop_at = 10;
	again.nr = 0;
	ring_post(&ring, &again.link);
	ring_run(&ring);
	assert_int_equal(seen.nr_received, 10);
	assert_int_equal(seen.nr_wrong, 0);
	ring_done(&ring);
}

/* Far more than the queue holds, at once. */
static void submit_nops(struct item *it)
{
	for (unsigned i = 0; i < 100; i++) {
		struct io_uring_sqe *sqe = ring_sqe(&ring);

		if (!sqe) {
			seen.nr_wrong++;
			continue;
		}
		io_uring_prep_nop(sqe);
		io_uring_sqe_set_data(sqe, &seen.next[i % NR_POSTERS]);
	}
}

static void submissions_beyond_the_queue_all_complete(void **state)
{
	for (int big = 0; big < 2; big++) {
		struct item item = { .nr = 0 };

		ring_make(4, big);
		seen.on_receive = submit_nops;
		seen.stop_at = 100;
		ring_post(&ring, &item.link);
		ring_run(&ring);
		assert_int_equal(seen.nr_completed, 100);
		assert_int_equal(seen.nr_wrong, 0);
		ring_done(&ring);
	}
}

static void a_submission_entry_is_all_zero(void **state)
{
	static const unsigned char zero[128];

	for (int big = 0; big < 2; big++) {
		ring_make(4, big);
		for (int i = 0; i < 12; i++) {
			size_t bytes = big ? 128 : 64;
			struct io_uring_sqe *sqe = ring_sqe(&ring);

			assert_non_null(sqe);
			assert_memory_equal(sqe, zero, bytes);
			memset(sqe, 0xff, bytes);
			/* Something the kernel can take. */
			memset(sqe, 0, 64);
			io_uring_prep_nop(sqe);
			io_uring_sqe_set_data(sqe, NULL);
		}
		assert_true(ring_submit(&ring) >= 0);
		ring_done(&ring);
	}
}

static void a_queue_that_cannot_be_is_refused(void **state)
{
	int rc = ring_init(&ring, 1 << 30, false, &ops, &seen);

	assert_true(rc < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(posts_of_several_threads_arrive_once_and_in_order),
		cmocka_unit_test(a_post_wakes_the_ring),
		cmocka_unit_test(a_stop_wakes_the_ring_and_what_was_posted_is_received),
		cmocka_unit_test(the_owner_may_post_to_itself),
		cmocka_unit_test(submissions_beyond_the_queue_all_complete),
		cmocka_unit_test(a_submission_entry_is_all_zero),
		cmocka_unit_test(a_queue_that_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
