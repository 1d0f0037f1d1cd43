// SPDX-License-Identifier: Apache-2.0
/* The S3 client's order of requests, hedges, end, lists and HEADs. */
#define _GNU_SOURCE
#include "test_client.h"

#include "s3/client_i.h"

/* --- order --- */

/* One at a time, as the test opens the gates. */
static bool answer_in_turn(struct request *q)
{
	gate_wait(q->nr + 1);
	return answer_right(q);
}

static void check_order(const uint64_t *offsets, unsigned nr)
{
	assert_int_equal(nr_requests(), nr);
	for (unsigned i = 0; i < nr; i++)
		assert_int_equal(request_at(i).first, offsets[i]);
}

static void demand_goes_before_prefetch(void **state)
{
	static const uint64_t order[] = { 0, 300, 400, 100, 200 };
	struct tget t[5];

	server_start(answer_in_turn);
	client_make(1, 1, 0);
	for (unsigned i = 0; i < 5; i++) {
		get_start(&t[i], i * 100, 100, i >= 3, PATIENCE_S * NSEC_PER_SEC);
		if (i == 0)
			wait_requests(1);
	}
	gates_open(5);
	for (unsigned i = 0; i < 5; i++)
		get_wait(&t[i], 0);
	check_order(order, 5);
	client_end();
}

static void a_promoted_prefetch_goes_before_the_others(void **state)
{
	static const uint64_t order[] = { 0, 300, 100, 200 };
	struct tget t[4];

	server_start(answer_in_turn);
	client_make(1, 1, 0);
	for (unsigned i = 0; i < 4; i++) {
		get_start(&t[i], i * 100, 100, false, PATIENCE_S * NSEC_PER_SEC);
		if (i == 0)
			wait_requests(1);
	}
	s3_op_promote(client, &t[0].g.op); /* under way: of no effect */
	s3_op_promote(client, &t[3].g.op);
	gates_open(4);
	for (unsigned i = 0; i < 4; i++)
		get_wait(&t[i], 0);
	check_order(order, 4);
	client_end();
}

static void a_share_of_the_connections_is_kept_for_demand(void **state)
{
	struct tget t[8], d;

	server_start(answer_in_turn);
	client_make(4, 1, 0);
	for (unsigned i = 0; i < 8; i++)
		get_start(&t[i], i * 100, 100, false, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(3);
	get_start(&d, 5000, 100, true, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(4);
	assert_int_equal(request_at(3).first, 5000);
	gates_open(100);
	for (unsigned i = 0; i < 8; i++)
		get_wait(&t[i], 0);
	get_wait(&d, 0);
	client_end();
}

/* --- hedges --- */

static atomic_uint slow_nr; /* the request that is slow */

static bool answer_all_but_one(struct request *q)
{
	if (q->nr == slow_nr)
		gate_wait(1);
	return answer_right(q);
}

static bool answer_half_then_wait(struct request *q)
{
	uint64_t len = q->last - q->first + 1;

	if (q->nr != slow_nr && q->nr != slow_nr + 1)
		return answer_right(q);
	/* Both tries bring a part at a time, so that each is ahead for a while. */
	if (q->nr == slow_nr)
		wait_requests(slow_nr + 2);
	if (!send_head_206(q))
		return false;
	for (uint64_t at = 0; at < len; at += 50000) {
		if (!send_content(q, q->first + at, min_of((uint64_t)50000, len - at)))
			return false;
		usleep(q->nr == slow_nr ? 700 : 1000);
	}
	return true;
}

/* So that the client knows how long a first byte takes. Prefetch: it is never hedged itself. */
static void warm_up(void)
{
	for (unsigned i = 0; i < 30; i++) {
		struct tget t;

		get_start(&t, i * 1000, 1000, false, PATIENCE_S * NSEC_PER_SEC);
		get_wait(&t, 0);
	}
	assert_int_equal(nr_requests(), 30);
}

static void a_late_first_byte_gets_a_second_try_beside_it(void **state)
{
	struct tget t;

	slow_nr = 30;
	server_start(answer_all_but_one);
	client_make(8, 1, 100);
	warm_up();
	get_start(&t, 1000, 500000, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&t, 0);
	assert_int_equal(client_stats().hedges, 1);
	assert_int_equal(nr_requests(), 32);
	assert_int_equal(request_at(31).first, 1000);
	client_end();
}

static void two_tries_at_once_deliver_each_byte_once(void **state)
{
	slow_nr = 30;
	server_start(answer_half_then_wait);
	client_make(8, 1, 100);
	warm_up();
	get_whole(1000, 2000000, 0);
	assert_int_equal(client_stats().hedges, 1);
	client_end();
}

static bool answer_late_twice(struct request *q)
{
	if (q->nr == slow_nr || q->nr == slow_nr + 1)
		gate_wait(1);
	return answer_right(q);
}

static void each_late_request_gets_its_own_second_try(void **state)
{
	struct tget t[2];

	slow_nr = 30;
	server_start(answer_late_twice);
	client_make(8, 1, 100);
	warm_up();
	for (unsigned i = 0; i < 2; i++)
		get_start(&t[i], i * 600000, 500000, true, PATIENCE_S * NSEC_PER_SEC);
	for (unsigned i = 0; i < 2; i++)
		get_wait(&t[i], 0);
	assert_int_equal(client_stats().retries, 0);
	assert_int_equal(client_stats().hedges, 2);
	client_end();
}

static bool answer_hedge_with_503(struct request *q)
{
	if (q->nr == slow_nr) {
		wait_requests(slow_nr + 2);
		usleep(20000);
		return answer_right(q);
	}
	if (q->nr == slow_nr + 1)
		return answer_text(q, "503 Slow Down", "", "<Error><Code>SlowDown</Code><Message>m</Message></Error>");
	return answer_right(q);
}

static void a_hedge_that_fails_leaves_the_first_try_alone(void **state)
{
	slow_nr = 30;
	server_start(answer_hedge_with_503);
	client_make(8, 1, 100);
	warm_up();
	get_whole(1000, 500000, 0);
	assert_true(client_stats().hedges >= 1);
	client_end();
}

static void prefetch_is_not_hedged_nor_anything_at_0_percent(void **state)
{
	for (int percent = 0; percent <= 100; percent += 100) {
		struct tget t;

		slow_nr = 30;
		server_start(answer_all_but_one);
		client_make(8, 1, (unsigned)percent);
		warm_up();
		get_start(&t, 1000, 5000, percent == 0, PATIENCE_S * NSEC_PER_SEC);
		wait_requests(31);
		usleep(100000);
		assert_int_equal(nr_requests(), 31);
		gates_open(1);
		get_wait(&t, 0);
		assert_int_equal(client_stats().hedges, 0);
		client_end();
	}
}

/* --- estimates --- */

/* Another thread read the clock a little earlier and got the lock a little later. */
static void samples_out_of_order_do_not_spoil_the_estimates(void **state)
{
	static struct s3_client c;
	struct s3_attempt fast = { .received = 8 << 20, .start_ns = NSEC_PER_SEC };
	struct s3_attempt slow = { .received = 8 << 20, .start_ns = NSEC_PER_SEC * 8 / 10 };

	memset(&c, 0, sizeof(c));
	pthread_mutex_init(&c.lock, NULL);
	s3_aimd_init(&c.aimd, 8, NSEC_PER_SEC);
	s3_budget_init(&c.budget, 100, 200);
	s3_client_sample(&c, &fast, NSEC_PER_SEC + 100 * NSEC_PER_MSEC);
	assert_int_equal(c.chunk_ns, 100 * NSEC_PER_MSEC);
	s3_client_sample(&c, &slow, NSEC_PER_SEC + 100 * NSEC_PER_MSEC - 1000);
	assert_int_equal(c.chunk_ns, 100 * NSEC_PER_MSEC);
	/* Still being counted, not thrown away with a rate of nothing. */
	assert_int_equal(c.rate_bytes, 8 << 20);
	pthread_mutex_destroy(&c.lock);
}

/* --- the end --- */

static bool answer_one_then_503(struct request *q)
{
	if (q->nr == 0)
		gate_wait(1);
	return answer_text(q, "503 Slow Down", "", "<Error><Code>SlowDown</Code><Message>m</Message></Error>");
}

static void stopping_ends_each_request_once(void **state)
{
	struct tget t[20], late;

	server_start(answer_one_then_503);
	client_make(4, 2, 0);
	for (unsigned i = 0; i < 20; i++)
		get_start(&t[i], i * 100, 100, i % 2, PATIENCE_S * NSEC_PER_SEC);
	wait_requests(5); /* some are under way, some between two tries, some queued */
	s3_client_stop(client);
	for (unsigned i = 0; i < 20; i++)
		get_wait(&t[i], -ECANCELED);
	get_start(&late, 0, 100, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&late, -ECANCELED);
	s3_client_stop(client);
	client_end();
}

static atomic_bool submitting;

static void *submit_main(void *arg)
{
	struct tget *t = arg;

	for (unsigned i = 0; i < 100; i++) {
		get_start(&t[i], i * 100, 100, i % 2, PATIENCE_S * NSEC_PER_SEC);
		submitting = true;
	}
	return NULL;
}

static void requests_made_while_it_stops_end_once_too(void **state)
{
	struct tget *t = calloc(300, sizeof(*t));
	pthread_t thread[3];

	server_start(answer_right);
	client_make(4, 2, 0);
	submitting = false;
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&thread[i], NULL, submit_main, t + i * 100);
	while (!submitting)
		sched_yield();
	s3_client_stop(client);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	for (unsigned i = 0; i < 300; i++) {
		wait_flag(&t[i].nr_done);
		assert_int_equal(t[i].nr_done, 1);
		assert_true(t[i].error == 0 || t[i].error == -ECANCELED);
		assert_false(t[i].wrong);
	}
	client_end();
	free(t);
}

/* --- lists --- */

#define LIST_HEAD \
	"<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult><Name>b</Name><EncodingType>url</EncodingType>"
#define ENTRY(key)                                                                              \
	"<Contents><Key>" key                                                                   \
	"</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>" \
	"<Size>5</Size></Contents>"
#define PAGE_1                                                                                                     \
	LIST_HEAD "<IsTruncated>true</IsTruncated><NextContinuationToken>t+1/=</NextContinuationToken>" ENTRY("a") \
		ENTRY("b") "</ListBucketResult>"
#define PAGE_2                                              \
	LIST_HEAD "<IsTruncated>false</IsTruncated>" ENTRY( \
		"c%2Fd") "<CommonPrefixes><Prefix>e%2F</Prefix></CommonPrefixes></ListBucketResult>"

struct tlist {
	struct s3_list l;
	char names[256];
	unsigned nr_restarts, nr_done;
	int error;
	char message[512];
};

static int tlist_object(void *ctx, const struct s3_list_object *o)
{
	struct tlist *t = ctx;

	snprintf(t->names + strlen(t->names), sizeof(t->names) - strlen(t->names), "%s,", o->key);
	return 0;
}

static int tlist_prefix(void *ctx, const char *prefix, size_t len)
{
	struct tlist *t = ctx;

	snprintf(t->names + strlen(t->names), sizeof(t->names) - strlen(t->names), "[%s],", prefix);
	return 0;
}

static void tlist_restart(struct s3_list *l)
{
	struct tlist *t = container_of(l, struct tlist, l);

	t->names[0] = '\0';
	t->nr_restarts++;
}

static void tlist_done(struct s3_list *l, int error, const char *message)
{
	struct tlist *t = container_of(l, struct tlist, l);

	pthread_mutex_lock(&done_lock);
	t->nr_done++;
	t->error = error;
	snprintf(t->message, sizeof(t->message), "%s", message);
	pthread_cond_broadcast(&done_cond);
	pthread_mutex_unlock(&done_lock);
}

static const struct s3_list_ops tlist_ops = { .object = tlist_object, .common_prefix = tlist_prefix };

static void tlist_init(struct tlist *t, const char *token)
{
	*t = (struct tlist){
		.l = { .prefix = "p/", .delimiter = "/", .start_after = "", .token = token, .max_keys = 1000 }
	};
	t->l.op.demand = true;
	t->l.op.deadline_ns = clock_mono_ns() + PATIENCE_S * NSEC_PER_SEC;
	t->l.ops = &tlist_ops;
	t->l.ops_ctx = t;
	t->l.restart = tlist_restart;
	t->l.done = tlist_done;
}

static void list_run(struct tlist *t, const char *token, int error)
{
	tlist_init(t, token);
	s3_list_submit(client, &t->l);
	wait_flag(&t->nr_done);
	assert_int_equal(t->nr_done, 1);
	assert_int_equal(t->error, error);
}

static bool answer_pages(struct request *q)
{
	return answer_text(q, "200 OK", "", strstr(q->target, "continuation-token=t%2B1%2F%3D") ? PAGE_2 : PAGE_1);
}

static void a_list_is_read_page_by_page(void **state)
{
	struct tlist one, two;
	struct request q;

	server_start(answer_pages);
	client_make(4, 1, 0);
	list_run(&one, "", 0);
	assert_string_equal(one.names, "a,b,");
	assert_string_equal(one.l.next_token, "t+1/=");
	list_run(&two, one.l.next_token, 0);
	assert_string_equal(two.names, "c/d,[e/],");
	assert_null(two.l.next_token);
	free(one.l.next_token);
	q = request_at(0);
	assert_non_null(strstr(q.target, "list-type=2"));
	assert_non_null(strstr(q.target, "prefix=p%2F"));
	assert_non_null(strstr(q.target, "delimiter=%2F"));
	assert_non_null(strstr(q.target, "encoding-type=url"));
	assert_null(strstr(q.target, "start-after"));
	assert_false(q.has_range);
	client_end();
}

/* Malformed in the middle, cut in the middle, not XML at all, and at last right. */
static bool answer_broken_pages(struct request *q)
{
	switch (q->nr) {
	case 0:
		return answer_text(q, "200 OK", "", LIST_HEAD ENTRY("x") ENTRY("y") "<Contents></Key>");
	case 1:
		send_text(q, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%.200s", strlen(PAGE_1), PAGE_1);
		return false;
	case 2:
		return answer_text(q, "200 OK", "", LIST_HEAD ENTRY("z"));
	case 3:
		return answer_text(q, "200 OK", "", "");
	default:
		return answer_text(q, "200 OK", "", PAGE_1);
	}
}

static void a_page_that_is_broken_is_read_again_from_its_start(void **state)
{
	struct tlist t;

	server_start(answer_broken_pages);
	client_make(4, 1, 0);
	list_run(&t, "", 0);
	assert_int_equal(nr_requests(), 5);
	assert_string_equal(t.names, "a,b,");
	assert_string_equal(t.l.next_token, "t+1/=");
	assert_true(t.nr_restarts >= 3);
	free(t.l.next_token);
	client_end();
}

static bool answer_unordered(struct request *q)
{
	return answer_text(q, "200 OK", "",
			   LIST_HEAD "<IsTruncated>false</IsTruncated>" ENTRY("b") ENTRY("a") "</ListBucketResult>");
}

static void a_list_out_of_order_is_an_error_that_says_so(void **state)
{
	struct tlist t;

	server_start(answer_unordered);
	client_make(4, 1, 0);
	list_run(&t, "", -EIO);
	assert_non_null(strstr(t.message, "out of order: directory buckets are not supported"));
	assert_int_equal(nr_requests(), 1);
	client_end();
}

static bool answer_no_bucket(struct request *q)
{
	return answer_text(q, "404 Not Found", "x-amz-request-id: R7\r\n",
			   "<Error><Code>NoSuchBucket</Code><Message>The bucket</Message></Error>");
}

static void a_failed_list_says_why(void **state)
{
	struct tlist t;
	struct err e = { 0 };

	server_start(answer_no_bucket);
	client_make(4, 1, 0);
	list_run(&t, "", -ENOENT);
	assert_non_null(strstr(t.message, "no such bucket"));
	assert_non_null(strstr(t.message, "R7"));
	tlist_init(&t, "");
	t.l.restart = NULL;
	assert_int_equal(s3_list_sync(client, &t.l, &e), -ENOENT);
	assert_int_equal(e.code, -ENOENT);
	assert_non_null(strstr(e.msg, "NoSuchBucket"));
	server_answer(answer_pages);
	tlist_init(&t, "");
	t.l.restart = NULL;
	assert_int_equal(s3_list_sync(client, &t.l, &e), 0);
	assert_string_equal(t.l.next_token, "t+1/=");
	free(t.l.next_token);
	client_end();
}

/* --- HEAD, regions --- */

struct thead {
	struct s3_head h;
	unsigned nr_done;
	int error;
};

static void thead_done(struct s3_head *h, int error)
{
	struct thead *t = container_of(h, struct thead, h);

	pthread_mutex_lock(&done_lock);
	t->nr_done++;
	t->error = error;
	pthread_cond_broadcast(&done_cond);
	pthread_mutex_unlock(&done_lock);
}

static bool answer_head(struct request *q)
{
	if (q->nr == 1)
		return send_text(q, "HTTP/1.1 404 Not Found\r\nContent-Length: 300\r\n\r\n");
	return send_text(q,
			 "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nETag: \"h\"\r\n"
			 "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n");
}

static void a_head_brings_the_headers(void **state)
{
	server_start(answer_head);
	client_make(4, 1, 0);
	for (unsigned i = 0; i < 3; i++) {
		struct thead t = { .h = { .op = { .demand = true }, .key = "k", .done = thead_done } };

		t.h.op.deadline_ns = clock_mono_ns() + PATIENCE_S * NSEC_PER_SEC;
		s3_head_submit(client, &t.h);
		wait_flag(&t.nr_done);
		assert_int_equal(t.error, i == 1 ? -ENOENT : 0);
		assert_string_equal(request_at(i).method, "HEAD");
		if (i == 1)
			continue;
		assert_int_equal(t.h.reply.length, 12345);
		assert_string_equal(t.h.reply.etag, "h");
		assert_int_equal(t.h.reply.mtime, 784111777);
	}
	client_end();
}

static bool answer_elsewhere_once(struct request *q)
{
	if (q->nr)
		return answer_right(q);
	return answer_text(q, "301 Moved Permanently", "x-amz-bucket-region: eu-north-1\r\n",
			   "<Error><Code>PermanentRedirect</Code><Message>m</Message></Error>");
}

static void a_bucket_in_another_region_is_followed(void **state)
{
	char region[S3_REGION_MAX];

	server_start(answer_elsewhere_once);
	client_make(4, 1, 0);
	assert_string_equal(s3_client_region(client, region), "us-east-1");
	get_whole(0, 1000, 0);
	assert_string_equal(s3_client_region(client, region), "eu-north-1");
	assert_int_equal(nr_requests(), 2);
	client_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(demand_goes_before_prefetch),
		cmocka_unit_test(a_promoted_prefetch_goes_before_the_others),
		cmocka_unit_test(a_share_of_the_connections_is_kept_for_demand),
		cmocka_unit_test(a_late_first_byte_gets_a_second_try_beside_it),
		cmocka_unit_test(two_tries_at_once_deliver_each_byte_once),
		cmocka_unit_test(each_late_request_gets_its_own_second_try),
		cmocka_unit_test(a_hedge_that_fails_leaves_the_first_try_alone),
		cmocka_unit_test(prefetch_is_not_hedged_nor_anything_at_0_percent),
		cmocka_unit_test(samples_out_of_order_do_not_spoil_the_estimates),
		cmocka_unit_test(stopping_ends_each_request_once),
		cmocka_unit_test(requests_made_while_it_stops_end_once_too),
		cmocka_unit_test(a_list_is_read_page_by_page),
		cmocka_unit_test(a_page_that_is_broken_is_read_again_from_its_start),
		cmocka_unit_test(a_list_out_of_order_is_an_error_that_says_so),
		cmocka_unit_test(a_failed_list_says_why),
		cmocka_unit_test(a_head_brings_the_headers),
		cmocka_unit_test(a_bucket_in_another_region_is_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
