// SPDX-License-Identifier: Apache-2.0
/* When the S3 client tries again, for how long, and how much of it at once. */
#define _GNU_SOURCE
#include "test_client.h"

#include "s3/client_i.h"

#define EXPIRED "<Error><Code>ExpiredToken</Code><Message>m</Message></Error>"
#define SKEWED "<Error><Code>RequestTimeTooSkewed</Code><Message>m</Message></Error>"
#define SLOW_DOWN "<Error><Code>SlowDown</Code><Message>m</Message></Error>"

static uint64_t ms_since(uint64_t start_ns)
{
	return (clock_mono_ns() - start_ns) / NSEC_PER_MSEC;
}

/* Every request has ended: nothing is counted as under way any more. */
static void check_idle(void)
{
	pthread_mutex_lock(&client->lock);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(client->nr_active[i], 0);
		assert_int_equal(client->nr_trying[i], 0);
	}
	pthread_mutex_unlock(&client->lock);
}

/* --- what is believed --- */

static bool answer_without_version(struct request *q)
{
	if (q->nr)
		return answer_right(q);
	return send_text(q, "HTTP/1.1 206 x\r\nContent-Length: 100\r\nContent-Range: bytes 1000-1099/*\r\n\r\n") &&
	       send_content(q, 77777, 100);
}

static void a_reply_with_neither_size_nor_etag_is_not_believed(void **state)
{
	struct tget t;

	server_start(answer_without_version);
	client_make(4, 1, 0);
	get_init(&t, 1000, 100, true, PATIENCE_S * NSEC_PER_SEC);
	t.g.etag = "";
	s3_get_submit(client, &t.g);
	get_wait(&t, 0);
	assert_int_equal(nr_requests(), 2);
	client_end();
}

static const char *whole_etag;

/* Cut in its middle, then the whole object in place of the rest. */
static bool answer_cut_then_200(struct request *q)
{
	if (q->nr == 0) {
		send_head_206(q);
		send_content(q, 0, 1234567);
		return false;
	}
	return send_text(q, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\nETag: \"%s\"\r\n\r\n", OBJECT_BYTES,
			 whole_etag) &&
	       send_content(q, 0, OBJECT_BYTES);
}

static void the_whole_object_in_place_of_the_rest_is_read_from_where_it_matters(void **state)
{
	struct tget t;

	for (int same = 1; same >= 0; same--) {
		whole_etag = same ? "v1" : "v2";
		server_start(answer_cut_then_200);
		client_make(4, 1, 0);
		get_start(&t, 0, OBJECT_BYTES, true, 10 * NSEC_PER_SEC);
		get_wait(&t, same ? 0 : -ESTALE);
		assert_int_equal(request_at(1).first, 1234567);
		assert_int_equal(nr_requests(), 2);
		client_end();
	}
}

static char long_page[100001];

static bool answer_long_403(struct request *q)
{
	return answer_text(q, "403 Forbidden", "", long_page);
}

static void a_long_error_page_does_not_hide_the_status(void **state)
{
	memset(long_page, 'x', sizeof(long_page) - 1);
	server_start(answer_long_403);
	client_make(4, 1, 0);
	get_whole(0, 100, -EACCES);
	assert_int_equal(nr_requests(), 1);
	client_end();
}

/* --- patience --- */

static bool answer_late(struct request *q)
{
	sleep(4);
	return answer_right(q);
}

static void a_server_that_is_always_late_is_read_in_the_end(void **state)
{
	struct tget t;

	server_start(answer_late);
	client_make(4, 1, 0);
	get_start(&t, 0, 1000, true, 20 * NSEC_PER_SEC);
	get_wait(&t, 0);
	assert_int_equal(nr_requests(), 2);
	client_end();
}

static atomic_uint nr_refused;

static bool answer_expired_four_times(struct request *q)
{
	if (q->first == 0 && nr_refused++ >= 4)
		return answer_right(q);
	return answer_text(q, "403 Forbidden", "", EXPIRED);
}

static void credentials_have_time_to_be_renewed_once_they_have_served(void **state)
{
	uint64_t start_ns = clock_mono_ns();
	struct tget a, b;

	nr_refused = 0;
	server_start(answer_expired_four_times);
	client_make(4, 1, 0);
	get_whole(1000, 100, -EACCES);
	assert_int_equal(nr_requests(), 2);
	assert_true(ms_since(start_ns) < 1000);
	s3_client_settle(client);
	get_start(&a, 0, 100, true, PATIENCE_S * NSEC_PER_SEC);
	get_start(&b, 1000, 100, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&a, 0);
	get_wait(&b, -EACCES);
	assert_int_equal(nr_requests(), 2 + 2 * 5);
	assert_true(ms_since(start_ns) >= 4 * 700);
	client_end();
}

static bool answer_slow_then_skewed(struct request *q)
{
	if (q->nr < 3)
		return answer_text(q, "503 Slow Down", "", SLOW_DOWN);
	if (q->nr == 3 || q->first)
		return answer_text(q, "403 Forbidden", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", SKEWED);
	return answer_right(q);
}

static void a_skewed_clock_is_corrected_once_whatever_was_tried_before(void **state)
{
	server_start(answer_slow_then_skewed);
	client_make(4, 1, 0);
	s3_client_settle(client);
	get_whole(0, 100, 0);
	assert_int_equal(nr_requests(), 5);
	get_whole(1000, 100, -EACCES);
	assert_int_equal(nr_requests(), 7);
	client_end();
}

static bool answer_503_wait_20(struct request *q)
{
	return q->nr ? answer_right(q) : answer_text(q, "503 Slow Down", "Retry-After: 20\r\n", SLOW_DOWN);
}

static bool answer_429_wait_1(struct request *q)
{
	return q->nr ? answer_right(q) : answer_text(q, "429 Too Many", "Retry-After: 1\r\n", SLOW_DOWN);
}

static void a_server_that_names_a_time_is_asked_again_then_but_before_the_deadline(void **state)
{
	uint64_t start_ns;
	struct tget t;

	server_start(answer_429_wait_1);
	client_make(4, 1, 0);
	start_ns = clock_mono_ns();
	get_whole(0, 100, 0);
	assert_true(ms_since(start_ns) >= 1000);
	client_end();
	server_start(answer_503_wait_20);
	client_make(4, 1, 0);
	start_ns = clock_mono_ns();
	get_start(&t, 0, 100, true, 4 * NSEC_PER_SEC);
	get_wait(&t, 0);
	assert_true(ms_since(start_ns) >= 1900);
	client_end();
}

/* --- how much at once --- */

#define DEMAND_AT 1000000

static bool answer_503_to_prefetch(struct request *q)
{
	bool slow;

	pthread_mutex_lock(&srv.lock);
	slow = srv.nr_open_gates == 0 && q->first < DEMAND_AT;
	pthread_mutex_unlock(&srv.lock);
	return slow ? answer_text(q, "503 Slow Down", "", SLOW_DOWN) : answer_right(q);
}

static void demand_does_not_wait_for_prefetch_that_was_told_to_slow_down(void **state)
{
	struct tget t[8], d;

	server_start(answer_503_to_prefetch);
	client_make(8, 1, 0);
	for (unsigned i = 0; i < 8; i++)
		get_start(&t[i], i * 100, 100, false, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(6);
	while (client_stats().limit > 2)
		usleep(10000);
	get_start(&d, DEMAND_AT, 100, true, 5 * NSEC_PER_SEC);
	get_wait(&d, 0);
	/* It is wanted now: counted as demand from here on. */
	s3_op_promote(client, &t[0].g.op);
	gates_open(1);
	for (unsigned i = 0; i < 8; i++)
		get_wait(&t[i], 0);
	check_idle();
	client_end();
}

static bool answer_503_to_eight(struct request *q)
{
	if (q->nr < 8) {
		wait_requests(8);
		return answer_text(q, "503 Slow Down", "", SLOW_DOWN);
	}
	gate_wait(1);
	return answer_right(q);
}

static void next_tries_keep_to_the_limit_too(void **state)
{
	struct tget t[8];

	server_start(answer_503_to_eight);
	client_make(8, 1, 0);
	for (unsigned i = 0; i < 8; i++)
		get_start(&t[i], i * 100, 100, true, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(8 + client_stats().limit / 2);
	usleep(300000);
	assert_in_range(client_stats().limit, 2, 4);
	assert_in_range(nr_requests(), 8 + 2, 8 + 4);
	gates_open(1);
	for (unsigned i = 0; i < 8; i++)
		get_wait(&t[i], 0);
	check_idle();
	client_end();
}

static bool answer_at_the_gate(struct request *q)
{
	gate_wait(1);
	return answer_right(q);
}

static void one_of_two_connections_is_kept_for_demand(void **state)
{
	struct tget t[3], d;

	server_start(answer_at_the_gate);
	client_make(2, 1, 0);
	for (unsigned i = 0; i < 3; i++)
		get_start(&t[i], i * 100, 100, false, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(1);
	usleep(100000);
	assert_int_equal(nr_requests(), 1);
	get_start(&d, DEMAND_AT, 100, true, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(2);
	assert_int_equal(request_at(1).first, DEMAND_AT);
	gates_open(1);
	for (unsigned i = 0; i < 3; i++)
		get_wait(&t[i], 0);
	get_wait(&d, 0);
	check_idle();
	client_end();
}

static bool answer_when_all_are_here(struct request *q)
{
	if (q->nr < 8)
		wait_requests(8);
	return answer_right(q);
}

static void all_threads_together_use_all_connections_and_no_more(void **state)
{
	struct tget t[40];

	server_start(answer_when_all_are_here);
	client_make(8, 3, 0);
	for (unsigned i = 0; i < array_len(t); i++)
		get_start(&t[i], i * 1000, 1000, true, PATIENCE_S * NSEC_PER_SEC);
	for (unsigned i = 0; i < array_len(t); i++)
		get_wait(&t[i], 0);
	pthread_mutex_lock(&srv.lock);
	assert_int_equal(srv.nr_conns, 8);
	pthread_mutex_unlock(&srv.lock);
	check_idle();
	client_end();
}

static void more_threads_than_connections_are_of_no_use(void **state)
{
	struct tget t[10];

	server_start(answer_right);
	client_make(2, 4, 0);
	assert_int_equal(client->nr_threads, 2);
	for (unsigned i = 0; i < array_len(t); i++)
		get_start(&t[i], i * 1000, 1000, i % 2, PATIENCE_S * NSEC_PER_SEC);
	for (unsigned i = 0; i < array_len(t); i++)
		get_wait(&t[i], 0);
	pthread_mutex_lock(&srv.lock);
	assert_in_range(srv.nr_conns, 1, 2);
	pthread_mutex_unlock(&srv.lock);
	client_end();
}

/* --- hedges --- */

static unsigned slow_turn = 1; /* of requests: those with odd numbers, or even ones */

static bool answer_hedges_alone(struct request *q)
{
	if (q->first == 7 || (q->first == 8 && q->nr % 2 == slow_turn))
		gate_wait(1);
	return answer_right(q);
}

/* The first try of the demand is never answered in time. */
static uint64_t hedge_after_ms(void)
{
	struct tget t, p, d;
	uint64_t start_ns;

	server_start(answer_hedges_alone);
	client_make(8, 1, 100);
	for (unsigned i = 0; i < 30; i++) {
		get_start(&t, 1000 + i, 1000, false, PATIENCE_S * NSEC_PER_SEC);
		get_wait(&t, 0);
	}
	/* The next tick is then the prefetch's, and the one after it far away. */
	usleep(150000);
	get_start(&p, 7, 1000, false, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(31);
	usleep(10000);
	start_ns = clock_mono_ns();
	get_start(&d, 8, 1000, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&d, 0);
	start_ns = ms_since(start_ns);
	assert_int_equal(client_stats().hedges, 1);
	gates_open(1);
	get_wait(&p, 0);
	client_end();
	return start_ns;
}

static void a_second_try_does_not_wait_for_a_slow_tick(void **state)
{
	uint64_t best = UINT64_MAX;

	/* The machine may be busy: one out of some is enough. */
	for (int i = 0; i < 10 && best >= 60; i++)
		best = min_of(best, hedge_after_ms());
	assert_true(best < 60);
}

/* Prefetch is not hedged, but once somebody waits for it. */
static void running_prefetch_that_is_waited_for_gets_a_second_try(void **state)
{
	struct tget t, p;

	slow_turn = 0;
	server_start(answer_hedges_alone);
	client_make(8, 1, 100);
	for (unsigned i = 0; i < 30; i++) {
		get_start(&t, 1000 + i, 1000, false, PATIENCE_S * NSEC_PER_SEC);
		get_wait(&t, 0);
	}
	get_start(&p, 8, 1000, false, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(31);
	usleep(100000);
	assert_int_equal(client_stats().hedges, 0);
	s3_op_promote(client, &p.g.op);
	s3_op_promote(client, &p.g.op);
	get_wait(&p, 0);
	assert_int_equal(client_stats().hedges, 1);
	gates_open(1);
	client_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reply_with_neither_size_nor_etag_is_not_believed),
		cmocka_unit_test(the_whole_object_in_place_of_the_rest_is_read_from_where_it_matters),
		cmocka_unit_test(a_long_error_page_does_not_hide_the_status),
		cmocka_unit_test(a_server_that_is_always_late_is_read_in_the_end),
		cmocka_unit_test(credentials_have_time_to_be_renewed_once_they_have_served),
		cmocka_unit_test(a_skewed_clock_is_corrected_once_whatever_was_tried_before),
		cmocka_unit_test(a_server_that_names_a_time_is_asked_again_then_but_before_the_deadline),
		cmocka_unit_test(demand_does_not_wait_for_prefetch_that_was_told_to_slow_down),
		cmocka_unit_test(next_tries_keep_to_the_limit_too),
		cmocka_unit_test(one_of_two_connections_is_kept_for_demand),
		cmocka_unit_test(all_threads_together_use_all_connections_and_no_more),
		cmocka_unit_test(more_threads_than_connections_are_of_no_use),
		cmocka_unit_test(a_second_try_does_not_wait_for_a_slow_tick),
		cmocka_unit_test(running_prefetch_that_is_waited_for_gets_a_second_try),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
