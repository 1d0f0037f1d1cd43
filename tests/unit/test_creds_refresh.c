// SPDX-License-Identifier: Apache-2.0
/* Renewal: before expiry, without a reader ever waiting, and never to another identity. */
#define _GNU_SOURCE
#include "test_creds.h"

static struct dir dir;
static struct env env;
static struct s3_creds_config cfg;
static struct server *s;
static struct s3_provider *p;
static struct err e;

static const struct creds_times fast = {
	.start_bound_ms = 3000,
	.refresh_bound_ms = 30000,
	.poll_ms = 50,
	.renew_before_s = 300,
	.retry_min_ms = 100,
	.retry_max_ms = 400,
	.invalidate_gap_ms = 300,
};

static void start(void)
{
	int rc = creds_provider_start(&cfg, &fast, &p, &e);

	if (rc < 0)
		fail_msg("%s", e.msg);
}

/* The serial in "AKID<serial>"; never waits long. */
static unsigned current(void)
{
	struct s3_creds c = { 0 };
	uint64_t start_ns = clock_mono_ns();
	unsigned serial;

	assert_int_equal(s3_provider_get(p, &c), 0);
	assert_true(clock_mono_ns() - start_ns < 500 * NSEC_PER_MSEC);
	assert_int_equal(sscanf(c.access_key_id, "AKID%u", &serial), 1);
	s3_creds_wipe(&c);
	return serial;
}

static bool becomes(unsigned serial, long within_ms)
{
	for (uint64_t end = clock_mono_ns() + (uint64_t)within_ms * NSEC_PER_MSEC; clock_mono_ns() < end;) {
		if (current() >= serial)
			return true;
		usleep(10000);
	}
	return false;
}

static int setup(void **state)
{
	dir_new(&dir);
	memset(&env, 0, sizeof(env));
	env_set(&env, "HOME", dir.path);
	cfg = (struct s3_creds_config){ .getenv_fn = env_get,
					.getenv_ctx = &env,
					.imds_endpoint = "http://127.0.0.1:1" };
	s = server_start(answer_creds);
	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	return 0;
}

static int teardown(void **state)
{
	p = s3_provider_stop(p);
	server_stop(s);
	dir_free(&dir);
	return 0;
}

static void a_short_life_is_renewed_at_its_half(void **state)
{
	server_with(s, s->life_s = 4);
	start();
	assert_int_equal(current(), 1);
	assert_true(becomes(2, 3500));
}

static void a_long_life_is_left_alone(void **state)
{
	start();
	usleep(600000);
	assert_int_equal(server_requests(s), 1);
}

static void readers_do_not_wait_for_a_slow_renewal(void **state)
{
	server_with(s, s->life_s = 2);
	start();
	server_with(s, s->delay_ms = 1500);
	for (uint64_t end = clock_mono_ns() + 2 * NSEC_PER_SEC; clock_mono_ns() < end; usleep(1000))
		assert_true(current() >= 1);
	assert_true(server_requests(s) >= 2);
	assert_true(becomes(2, 4000));
}

static void old_credentials_serve_while_renewal_fails_and_it_is_tried_again(void **state)
{
	server_with(s, s->life_s = 2);
	start();
	server_with(s, s->status = 403);
	/* Longer than the credentials live: they are still handed out. */
	usleep(2500000);
	assert_int_equal(current(), 1);
	assert_true(server_requests(s) >= 3);
	/* 100, 200, 400, 400 ... ms, each between its half and its whole. */
	assert_true(server_requests(s) <= 16);
	server_with(s, s->status = 200);
	assert_true(becomes(2, 3000));
}

static void a_source_that_vanishes_is_a_failure_and_not_the_next_source(void **state)
{
	char path[128];

	/* A missing file in the home directory is what "not configured" looks like; the container would be next. */
	snprintf(path, sizeof(path), "%s/.aws", dir.path);
	assert_int_equal(mkdir(path, 0700), 0);
	dir_write(&dir, ".aws/credentials", "[default]\naws_access_key_id=AKID7\naws_secret_access_key=s\n", 0600);
	start();
	assert_int_equal(current(), 7);
	snprintf(path, sizeof(path), "%s/.aws/credentials", dir.path);
	assert_int_equal(unlink(path), 0);
	usleep(500000);
	s3_provider_invalidate(p);
	usleep(500000);
	assert_int_equal(current(), 7);
	assert_int_equal(server_requests(s), 0);
	assert_string_equal(s3_provider_describe(p), "profile default");
}

static void a_profile_file_that_changes_is_read_again(void **state)
{
	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE",
		dir_write(&dir, "credentials", "[default]\naws_access_key_id=AKID7\naws_secret_access_key=s\n", 0600));
	start();
	assert_int_equal(current(), 7);
	dir_write(&dir, "credentials", "[default]\n<broken\n", 0600);
	usleep(300000);
	assert_int_equal(current(), 7);
	dir_write(&dir, "credentials", "[default]\naws_access_key_id=AKID8\naws_secret_access_key=s\n", 0600);
	assert_true(becomes(8, 3000));
}

static void a_token_file_that_rotates_is_read_again(void **state)
{
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", dir_write(&dir, "token", "first", 0600));
	start();
	assert_true(server_saw(s, "Authorization: first\r\n"));
	dir_write(&dir, "token", "second", 0600);
	assert_true(becomes(2, 3000));
	assert_true(server_saw(s, "Authorization: second\r\n"));
}

static void a_refusal_renews_early_but_not_often(void **state)
{
	unsigned n;

	start();
	for (int i = 0; i < 100; i++) {
		s3_provider_invalidate(p);
		usleep(10000);
	}
	assert_true(becomes(2, 2000));
	n = server_requests(s);
	assert_in_range(n, 2, 5);
}

static void credentials_that_arrive_expired_are_used_and_not_asked_for_in_a_loop(void **state)
{
	server_with(s, s->life_s = -10);
	start();
	usleep(1000000);
	assert_true(current() >= 1);
	assert_in_range(server_requests(s), 2, 14);
}

static void stop_ends_a_renewal_under_way(void **state)
{
	uint64_t start_ns;

	server_with(s, s->life_s = 2);
	start();
	server_with(s, s->delay_ms = 20000);
	s3_provider_invalidate(p);
	while (server_requests(s) < 2)
		usleep(10000);
	start_ns = clock_mono_ns();
	p = s3_provider_stop(p);
	assert_true(clock_mono_ns() - start_ns < 1000 * NSEC_PER_MSEC);
}

struct reader {
	pthread_t thread;
	uint64_t until_ns;
	unsigned bad;
};

static void *read_on(void *arg)
{
	struct reader *r = arg;

	while (clock_mono_ns() < r->until_ns) {
		struct s3_creds c = { 0 };

		if (s3_provider_get(p, &c) < 0 || strcmp(secret_bytes(&c.secret_key), SECRET) != 0)
			r->bad++;
		s3_creds_wipe(&c);
		s3_provider_invalidate(p);
	}
	return NULL;
}

static void many_readers_see_whole_credentials(void **state)
{
	struct reader readers[4];

	start();
	for (unsigned i = 0; i < 4; i++) {
		readers[i] = (struct reader){ .until_ns = clock_mono_ns() + 1500 * NSEC_PER_MSEC };
		assert_int_equal(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(readers[i].thread, NULL);
		assert_int_equal(readers[i].bad, 0);
	}
	assert_true(current() >= 2);
}

static void the_callers_strings_need_not_last(void **state)
{
	char profile[] = "mine";

	env_set(&env, "AWS_SHARED_CREDENTIALS_FILE",
		dir_write(&dir, "credentials", "[mine]\naws_access_key_id=AKID7\naws_secret_access_key=s\n", 0600));
	cfg.source = S3_CREDS_PROFILE;
	cfg.profile = profile;
	start();
	strcpy(profile, "gone");
	dir_write(&dir, "credentials", "[mine]\naws_access_key_id=AKID8\naws_secret_access_key=s\n", 0600);
	assert_true(becomes(8, 3000));
	assert_string_equal(s3_provider_describe(p), "profile mine");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_short_life_is_renewed_at_its_half),
		test(a_long_life_is_left_alone),
		test(readers_do_not_wait_for_a_slow_renewal),
		test(old_credentials_serve_while_renewal_fails_and_it_is_tried_again),
		test(a_source_that_vanishes_is_a_failure_and_not_the_next_source),
		test(a_profile_file_that_changes_is_read_again),
		test(a_token_file_that_rotates_is_read_again),
		test(a_refusal_renews_early_but_not_often),
		test(credentials_that_arrive_expired_are_used_and_not_asked_for_in_a_loop),
		test(stop_ends_a_renewal_under_way),
		test(many_readers_see_whole_credentials),
		test(the_callers_strings_need_not_last),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
