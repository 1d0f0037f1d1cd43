// SPDX-License-Identifier: Apache-2.0
/* The S3 client's GETs: what it believes, what it tries again, and where it goes on. */
#define _GNU_SOURCE
#include "test_client.h"

#define NO_SUCH_KEY "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no</Message></Error>"
#define SLOW_DOWN "<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"

/* --- as it should be --- */

static void a_get_asks_for_its_range_of_its_version(void **state)
{
	struct request q;

	server_start(answer_right);
	client_make(4, 1, 0);
	get_whole(1000, 500000, 0);
	q = request_at(0);
	assert_string_equal(q.method, "GET");
	assert_string_equal(q.target, "/b/a%20key");
	assert_string_equal(q.if_match, "\"v1\"");
	assert_true(q.has_range);
	assert_int_equal(q.first, 1000);
	assert_int_equal(q.last, 500999);
	assert_int_equal(client_stats().requests, 1);
	assert_int_equal(client_stats().bytes, 500000);
	assert_int_equal(client_stats().retries, 0);
	client_end();
}

static void one_connection_serves_many_requests(void **state)
{
	server_start(answer_right);
	client_make(4, 1, 0);
	for (unsigned i = 0; i < 20; i++)
		get_whole(i * 100000, 100000, 0);
	assert_int_equal(request_at(19).conn, 0);
	client_end();
}

static void many_gets_at_once_are_all_right(void **state)
{
	struct tget t[64];

	server_start(answer_right);
	client_make(8, 3, 0);
	for (unsigned i = 0; i < array_len(t); i++)
		get_start(&t[i], i * 40000, 45000, i % 2, PATIENCE_S * NSEC_PER_SEC);
	for (unsigned i = 0; i < array_len(t); i++)
		get_wait(&t[i], 0);
	pthread_mutex_lock(&srv.lock);
	assert_in_range(srv.nr_conns, 1, 8);
	pthread_mutex_unlock(&srv.lock);
	client_end();
}

static bool answer_whole_200(struct request *q)
{
	return send_text(q, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\nETag: \"v1\"\r\n\r\n", OBJECT_BYTES) &&
	       send_content(q, 0, OBJECT_BYTES);
}

static void a_200_is_fine_where_all_was_asked_for(void **state)
{
	server_start(answer_whole_200);
	client_make(4, 1, 0);
	get_whole(0, OBJECT_BYTES, 0);
	assert_int_equal(nr_requests(), 1);
	client_end();
}

static bool answer_chunked(struct request *q)
{
	if (!send_text(q,
		       "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\nETag: \"v1\"\r\n"
		       "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%llu\r\n\r\n",
		       q->first, q->last, OBJECT_BYTES))
		return false;
	for (uint64_t at = q->first; at <= q->last; at += 7777) {
		uint64_t n = min_of((uint64_t)7777, q->last + 1 - at);

		if (!send_text(q, "%" PRIx64 "\r\n", n) || !send_content(q, at, n) || !send_text(q, "\r\n"))
			return false;
	}
	return send_text(q, "0\r\n\r\n");
}

static void a_reply_of_unknown_length_is_read_to_its_end(void **state)
{
	server_start(answer_chunked);
	client_make(4, 1, 0);
	get_whole(5, 100000, 0);
	assert_int_equal(nr_requests(), 1);
	client_end();
}

/* --- tried again --- */

static bool answer_503_twice(struct request *q)
{
	return q->nr < 2 ? answer_text(q, "503 Slow Down", "", SLOW_DOWN) : answer_right(q);
}

static void a_503_is_tried_again_and_slows_down(void **state)
{
	server_start(answer_503_twice);
	client_make(8, 1, 0);
	get_whole(0, 100000, 0);
	assert_int_equal(nr_requests(), 3);
	assert_int_equal(client_stats().retries, 2);
	assert_int_equal(client_stats().throttled, 2);
	assert_in_range(client_stats().limit, 2, 4);
	client_end();
}

static bool answer_cut(struct request *q)
{
	if (q->nr > 0)
		return answer_right(q);
	send_head_206(q);
	send_content(q, q->first, 123457);
	return false;
}

static void a_body_cut_short_goes_on_where_it_stopped(void **state)
{
	struct request q;

	server_start(answer_cut);
	client_make(4, 1, 0);
	get_whole(1000, 900000, 0);
	assert_int_equal(nr_requests(), 2);
	q = request_at(1);
	assert_int_equal(q.first, 1000 + 123457);
	assert_int_equal(q.last, 1000 + 900000 - 1);
	assert_string_equal(q.if_match, "\"v1\"");
	client_end();
}

static bool answer_reset(struct request *q)
{
	struct linger now = { .l_onoff = 1 };

	if (q->nr >= 3)
		return answer_right(q);
	if (q->nr == 1)
		send_head_206(q);
	if (q->nr == 2) {
		send_head_206(q);
		send_content(q, q->first, 50000);
	}
	setsockopt(q->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	return false;
}

static void a_reset_connection_is_tried_again(void **state)
{
	server_start(answer_reset);
	client_make(4, 1, 0);
	get_whole(1000, 900000, 0);
	assert_int_equal(nr_requests(), 4);
	assert_in_range(request_at(3).first, 1000, 51000);
	client_end();
}

/* Each time a little more. */
static bool answer_drip(struct request *q)
{
	send_head_206(q);
	send_content(q, q->first, min_of((uint64_t)30001, q->last - q->first + 1));
	return q->last - q->first + 1 <= 30001;
}

static void progress_is_kept_over_many_cuts(void **state)
{
	server_start(answer_drip);
	client_make(4, 1, 0);
	get_whole(0, 120000, 0);
	assert_int_equal(nr_requests(), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(request_at(i).first, i * 30001);
	client_end();
}

static bool answer_silent_then_stalled(struct request *q)
{
	if (q->nr >= 2)
		return answer_right(q);
	if (q->nr == 1) {
		send_head_206(q);
		send_content(q, q->first, 1000);
	}
	gate_wait(1);
	return false;
}

static void a_try_without_progress_is_given_up(void **state)
{
	struct tget a, b;

	server_start(answer_silent_then_stalled);
	client_make(4, 1, 0);
	get_start(&a, 0, 200000, true, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(1);
	get_start(&b, 0, 200000, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&a, 0);
	get_wait(&b, 0);
	assert_int_equal(nr_requests(), 4);
	client_end();
}

/* --- not believed --- */

struct strange {
	const char *what, *status, *headers;
	uint64_t len; /* 0 = as asked */
	int error;    /* 0 = tried again, and right the second time */
};

#define RANGE(text) "ETag: \"v1\"\r\nContent-Range: bytes " text "\r\n"

static const struct strange stranges[] = {
	{ "another ETag", "206 x", "ETag: \"v2\"\r\nContent-Range: bytes 1000-1099/3000017\r\n", 0, -ESTALE },
	{ "another size", "206 x", RANGE("1000-1099/3000018"), 0, -ESTALE },
	{ "no ETag", "206 x", "Content-Range: bytes 1000-1099/3000017\r\n", 0, 0 },
	{ "no range", "206 x", "ETag: \"v1\"\r\n", 0, 0 },
	{ "another start", "206 x", RANGE("999-1099/3000017"), 0, 0 },
	{ "another end", "206 x", RANGE("1000-1100/3000017"), 0, 0 },
	{ "a shorter range", "206 x", RANGE("1000-1098/3000017"), 0, 0 },
	{ "too long", "206 x", RANGE("1000-1099/3000017"), 101, 0 },
	{ "too short", "206 x", RANGE("1000-1099/3000017"), 99, 0 },
	{ "broken range", "206 x", RANGE("1000-1099"), 0, 0 },
	{ "two ranges", "206 x", RANGE("1000-1099/3000017") "Content-Range: bytes 0-99/3000017\r\n", 0, 0 },
	{ "all of it", "200 x", "ETag: \"v1\"\r\n", 3000017, 0 },
	{ "200 for a part", "200 x", "ETag: \"v1\"\r\n", 100, 0 },
	{ "a redirect to nowhere", "302 x", "", 0, 0 },
	{ "204", "204 x", RANGE("1000-1099/3000017"), 0, 0 },
};

static const struct strange *strange_now;

static bool answer_strange(struct request *q)
{
	uint64_t len = strange_now->len ? strange_now->len : 100;

	if (q->nr > 0)
		return answer_right(q);
	send_text(q, "HTTP/1.1 %s\r\nContent-Length: %" PRIu64 "\r\n%s\r\n", strange_now->status, len,
		  strange_now->headers);
	/* Content of another place: a byte of it that gets through is noticed. */
	send_content(q, strange_now->len == OBJECT_BYTES ? 0 : 77777, len);
	return false;
}

static void a_reply_that_does_not_fit_is_not_believed(void **state)
{
	for (size_t i = 0; i < array_len(stranges); i++) {
		struct tget t;

		strange_now = &stranges[i];
		server_start(answer_strange);
		client_make(4, 1, 0);
		get_start(&t, 1000, 100, true, PATIENCE_S * NSEC_PER_SEC);
		wait_flag(&t.nr_done);
		if (t.wrong || t.error != strange_now->error || (t.error < 0 && t.got))
			fail_msg("%s: error %d, wrong %d", strange_now->what, t.error, t.wrong);
		assert_int_equal(nr_requests(), strange_now->error ? 1 : 2);
		client_end();
	}
}

static bool answer_endless(struct request *q)
{
	if (q->nr > 0)
		return answer_right(q);
	send_text(q, "HTTP/1.1 206 x\r\n" RANGE("0-99999/3000017") "\r\n");
	while (send_content(q, 0, 100000))
		;
	return false;
}

static void a_body_longer_than_asked_for_is_cut_off(void **state)
{
	struct tget t;

	server_start(answer_endless);
	client_make(4, 1, 0);
	get_start(&t, 0, 100000, true, 5 * NSEC_PER_SEC);
	get_wait(&t, 0);
	client_end();
}

static bool answer_replaced_midway(struct request *q)
{
	if (q->nr > 0)
		return answer_text(q, "412 Precondition Failed", "",
				   "<Error><Code>PreconditionFailed</Code><Message>m</Message></Error>");
	return answer_cut(q);
}

static void an_object_replaced_between_two_tries_is_stale(void **state)
{
	struct tget t;

	server_start(answer_replaced_midway);
	client_make(4, 1, 0);
	get_start(&t, 1000, 900000, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&t, -ESTALE);
	assert_int_equal(t.got, 123457);
	client_end();
}

/* --- final --- */

static bool answer_404(struct request *q)
{
	return answer_text(q, "404 Not Found", "", NO_SUCH_KEY);
}

static bool answer_403(struct request *q)
{
	return answer_text(q, "403 Forbidden", "", "<Error><Code>AccessDenied</Code><Message>m</Message></Error>");
}

static bool answer_404_of_a_proxy_once(struct request *q)
{
	return q->nr ? answer_right(q) : answer_text(q, "404 Not Found", "", "<html>not here</html>");
}

static void refusals_are_final_and_a_proxys_404_is_none(void **state)
{
	server_start(answer_404);
	client_make(4, 1, 0);
	get_whole(0, 100, -ENOENT);
	server_answer(answer_403);
	get_whole(0, 100, -EACCES);
	assert_int_equal(nr_requests(), 2);
	assert_int_equal(client_stats().errors, 2);
	client_end();
	server_start(answer_404_of_a_proxy_once);
	client_make(4, 1, 0);
	get_whole(0, 100, 0);
	client_end();
}

static bool answer_never(struct request *q)
{
	gate_wait(1);
	return false;
}

static void a_server_that_never_answers_is_a_timeout(void **state)
{
	struct tget t[3];

	server_start(answer_never);
	client_make(4, 1, 0);
	for (int i = 0; i < 3; i++)
		get_start(&t[i], 0, 100, i == 0, (200 + (uint64_t)i * 50) * NSEC_PER_MSEC);
	for (int i = 0; i < 3; i++)
		get_wait(&t[i], -ETIMEDOUT);
	client_end();
}

static bool answer_503(struct request *q)
{
	return answer_text(q, "503 Slow Down", "", SLOW_DOWN);
}

static void a_server_that_never_recovers_is_a_timeout(void **state)
{
	struct tget t;

	server_start(answer_503);
	client_make(4, 1, 0);
	get_start(&t, 0, 100, true, NSEC_PER_SEC);
	get_wait(&t, -ETIMEDOUT);
	assert_true(nr_requests() > 1);
	client_end();
}

static void nobody_at_the_address_is_a_timeout(void **state)
{
	struct tget t;
	char url[64];

	server_start(answer_right);
	server_stop();
	strcpy(url, srv.url);
	client_make(4, 1, 0);
	get_start(&t, 0, 100, true, NSEC_PER_SEC / 2);
	get_wait(&t, -ETIMEDOUT);
	client = s3_client_free(client);
	provider = s3_provider_stop(provider);
}

static bool answer_nothing_for_the_first(struct request *q)
{
	if (q->nr == 0)
		gate_wait(1);
	return answer_right(q);
}

/* Waiting for a connection counts, too. */
static void a_deadline_holds_in_the_queue(void **state)
{
	struct tget a, b;

	server_start(answer_nothing_for_the_first);
	client_make(1, 1, 0);
	get_start(&a, 0, 100, true, 2 * NSEC_PER_SEC);
	wait_requests(1);
	get_start(&b, 0, 100, true, 100 * NSEC_PER_MSEC);
	get_wait(&b, -ETIMEDOUT);
	get_wait(&a, -ETIMEDOUT);
	assert_true(b.turn < a.turn);
	client_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_get_asks_for_its_range_of_its_version),
		cmocka_unit_test(one_connection_serves_many_requests),
		cmocka_unit_test(many_gets_at_once_are_all_right),
		cmocka_unit_test(a_200_is_fine_where_all_was_asked_for),
		cmocka_unit_test(a_reply_of_unknown_length_is_read_to_its_end),
		cmocka_unit_test(a_503_is_tried_again_and_slows_down),
		cmocka_unit_test(a_body_cut_short_goes_on_where_it_stopped),
		cmocka_unit_test(a_reset_connection_is_tried_again),
		cmocka_unit_test(progress_is_kept_over_many_cuts),
		cmocka_unit_test(a_try_without_progress_is_given_up),
		cmocka_unit_test(a_reply_that_does_not_fit_is_not_believed),
		cmocka_unit_test(a_body_longer_than_asked_for_is_cut_off),
		cmocka_unit_test(an_object_replaced_between_two_tries_is_stale),
		cmocka_unit_test(refusals_are_final_and_a_proxys_404_is_none),
		cmocka_unit_test(a_server_that_never_answers_is_a_timeout),
		cmocka_unit_test(a_server_that_never_recovers_is_a_timeout),
		cmocka_unit_test(nobody_at_the_address_is_a_timeout),
		cmocka_unit_test(a_deadline_holds_in_the_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
