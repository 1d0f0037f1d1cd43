// SPDX-License-Identifier: Apache-2.0
/* The sources on the network: the container endpoint, IMDSv2, STS; refusals, garbage, silence, and where tokens go. */
#define _GNU_SOURCE
#include "test_creds.h"

static struct dir dir;
static struct env env;
static struct s3_creds_config cfg;
static struct s3_provider *p;
static struct s3_creds c;
static struct err e;

static int start(void)
{
	int rc;

	memset(&e, 0, sizeof(e));
	rc = s3_provider_start(&cfg, &p, &e);
	if (rc < 0) {
		assert_true(e.msg[0]);
		assert_no_secret(e.msg);
		return rc;
	}
	return s3_provider_get(p, &c);
}

static int setup(void **state)
{
	dir_new(&dir);
	memset(&env, 0, sizeof(env));
	env_set(&env, "HOME", dir.path);
	/* Closed ports answer at once: there is no IMDS. */
	cfg = (struct s3_creds_config){ .getenv_fn = env_get,
					.getenv_ctx = &env,
					.imds_endpoint = "http://127.0.0.1:1" };
	return 0;
}

static int teardown(void **state)
{
	unsetenv("http_proxy");
	unsetenv("https_proxy");
	p = s3_provider_stop(p);
	s3_creds_wipe(&c);
	dir_free(&dir);
	return 0;
}

/* --- container --- */

static void container_credentials_are_fetched_with_the_token(void **state)
{
	struct server *s = server_start(answer_creds);

	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", dir_write(&dir, "token", TOKEN "\n", 0600));
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN", "not this");
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "AKID1");
	assert_string_equal(secret_bytes(&c.session_token), "session");
	assert_true(c.expires > time(NULL));
	assert_string_equal(s3_provider_describe(p), "container");
	assert_true(server_saw(s, "Authorization: " TOKEN "\r\n"));
	server_stop(s);
}

static void container_without_any_token_sends_none(void **state)
{
	struct server *s = server_start(answer_creds);

	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	assert_int_equal(start(), 0);
	assert_false(server_saw(s, "Authorization:"));
	server_stop(s);
}

static void a_proxy_is_not_asked_for_local_credentials(void **state)
{
	struct server *s = server_start(answer_creds);

	setenv("http_proxy", "http://127.0.0.1:1", 1);
	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	assert_int_equal(start(), 0);
	server_stop(s);
}

static void plain_http_is_for_this_machine_only(void **state)
{
	static const char *const bad[] = {
		"http://example.com/creds", "http://169.254.170.3/",      "http://127.0.0.1.example.com/",
		"http://[fd00:ec2::24]/",   "http://user:pw@127.0.0.1/",  "ftp://127.0.0.1/",
		"file:///etc/passwd",       "http://[::ffff:192.0.2.1]/", "not a url",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		env.nr = 1;
		env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", bad[i]);
		assert_true(start() < 0);
		assert_contains(e.msg, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
	}
	env.nr = 1;
	env_set(&env, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@example.com/");
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
}

static void a_refusing_container_endpoint_is_an_error(void **state)
{
	struct server *s = server_start(answer_creds);

	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	server_with(s, s->status = 403);
	assert_int_equal(start(), -EACCES);
	assert_contains(e.msg, "HTTP 403");
	assert_int_equal(server_requests(s), 1);
	/* Only what may pass by itself is tried again. */
	server_with(s, s->status = 500);
	assert_int_equal(start(), -EACCES);
	assert_int_equal(server_requests(s), 4);
	server_stop(s);
}

static void a_redirect_does_not_take_the_token_elsewhere(void **state)
{
	struct server *s = server_start(answer_creds), *elsewhere = server_start(answer_creds);

	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN);
	server_with(s, s->status = 302; s->location = elsewhere->url);
	assert_int_equal(start(), -EACCES);
	assert_contains(e.msg, "HTTP 302");
	assert_int_equal(server_requests(s), 1);
	assert_int_equal(server_requests(elsewhere), 0);
	server_stop(s);
	server_stop(elsewhere);
}

static void broken_container_tokens_are_errors(void **state)
{
	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/");
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nonexistent/token");
	assert_int_equal(start(), -ENOENT);
	assert_contains(e.msg, "/nonexistent/token");
	env.nr--;
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", dir_write(&dir, "empty", " \n", 0600));
	assert_int_equal(start(), -EINVAL);
	env.nr--;
	env_set(&env, "AWS_CONTAINER_AUTHORIZATION_TOKEN", TOKEN "\r\nX-Evil: 1");
	assert_int_equal(start(), -EINVAL);
}

static void answer_garbage(struct server *s, const char *request, struct answer *a)
{
	a->garbage = true;
}

static void answer_large(struct server *s, const char *request, struct answer *a)
{
	memset(s->body, ' ', CREDS_REPLY_MAX_BYTES + 1);
	a->body = s->body;
}

static void answer_html(struct server *s, const char *request, struct answer *a)
{
	a->body = "<html>" SECRET "</html>";
}

static void garbage_from_the_network_is_an_error(void **state)
{
	void (*const answers[])(struct server *, const char *, struct answer *) = { answer_garbage, answer_large,
										    answer_html };

	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct server *s = server_start(answers[i]);

		env.nr = 1;
		env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
		assert_true(start() < 0);
		assert_contains(e.msg, "container");
		server_stop(s);
	}
}

static void a_slow_server_is_bounded(void **state)
{
	struct server *s = server_start(answer_creds);
	uint64_t start_ns = clock_mono_ns();

	server_with(s, s->delay_ms = 60000);
	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	assert_int_equal(start(), -ETIMEDOUT);
	assert_true(clock_mono_ns() - start_ns < 8500 * NSEC_PER_MSEC);
	server_stop(s);
}

/* --- IMDS --- */

static void answer_imds(struct server *s, const char *request, struct answer *a)
{
	if (s->status != 200) {
		a->status = s->status;
	} else if (strncmp(request, "PUT /latest/api/token HTTP/1.1\r\n", 32) == 0 &&
		   strstr(request, "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n")) {
		a->body = "imds-session";
	} else if (!strstr(request, "X-aws-ec2-metadata-token: imds-session\r\n")) {
		a->status = 401;
	} else if (strncmp(request, "GET /latest/meta-data/iam/security-credentials/ HTTP", 52) == 0) {
		a->status = s->serial == 99 ? 404 : 200;
		a->body = s->serial == 98 ? "../../evil role" : "node-role\n";
	} else if (strncmp(request, "GET /latest/meta-data/iam/security-credentials/node-role HTTP", 61) == 0) {
		answer_creds(s, request, a);
	} else {
		a->status = 404;
	}
}

static void imds_takes_three_steps(void **state)
{
	struct server *s = server_start(answer_imds);
	char slash[80];

	snprintf(slash, sizeof(slash), "%s/", s->url);
	cfg.imds_endpoint = NULL;
	env_set(&env, "AWS_EC2_METADATA_SERVICE_ENDPOINT", slash);
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "AKID1");
	assert_string_equal(s3_provider_describe(p), "imds");
	assert_int_equal(server_requests(s), 3);
	server_stop(s);
}

static void imds_without_a_role_is_not_there(void **state)
{
	struct server *s = server_start(answer_imds);

	cfg.imds_endpoint = s->url;
	server_with(s, s->serial = 99);
	assert_int_equal(start(), -ENOKEY);
	assert_contains(e.msg, "has no role");
	server_with(s, s->serial = 98);
	assert_int_equal(start(), -EBADMSG);
	server_with(s, s->status = 404);
	assert_int_equal(start(), -ENOKEY);
	server_with(s, s->status = 500);
	assert_int_equal(start(), -EIO);
	server_stop(s);
}

static void imds_can_be_turned_off(void **state)
{
	struct server *s = server_start(answer_imds);

	cfg.imds_endpoint = s->url;
	env_set(&env, "AWS_EC2_METADATA_DISABLED", "True");
	assert_int_equal(start(), -ENOKEY);
	assert_contains(e.msg, "AWS_EC2_METADATA_DISABLED");
	assert_int_equal(server_requests(s), 0);
	server_stop(s);
}

static void a_silent_imds_costs_two_seconds_at_most(void **state)
{
	struct server *s = server_start(answer_imds);
	uint64_t start_ns = clock_mono_ns();

	cfg.imds_endpoint = "http://192.0.2.1";
	assert_int_equal(start(), -ENOKEY);
	assert_true(clock_mono_ns() - start_ns < 3000 * NSEC_PER_MSEC);
	server_stop(s);
}

/* --- web identity --- */

static void answer_sts(struct server *s, const char *request, struct answer *a)
{
	char expires[64];

	if (s->status != 200) {
		snprintf(s->body, sizeof(s->body),
			 "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>"
			 "<Code>%s</Code><Message>Not allowed: %s</Message></Error><RequestId>1</RequestId>"
			 "</ErrorResponse>",
			 s->status == 403 ? "AccessDenied" : "InvalidIdentityToken",
			 s->status == 403 ? "arn:aws:iam::1:role/r" : TOKEN);
	} else {
		iso_time(time(NULL) + s->life_s, expires, sizeof(expires));
		snprintf(s->body, sizeof(s->body),
			 "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
			 "<AssumeRoleWithWebIdentityResult><Credentials><SessionToken>session</SessionToken>"
			 "<SecretAccessKey>" SECRET
			 "</SecretAccessKey><Expiration>%s</Expiration>"
			 "<AccessKeyId>STS%u</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>"
			 "</AssumeRoleWithWebIdentityResponse>",
			 expires, ++s->serial);
	}
	a->status = s->status;
	a->body = s->body;
}

static void web_identity_is_exchanged_at_sts(void **state)
{
	struct server *s = server_start(answer_sts);

	env_set(&env, "AWS_WEB_IDENTITY_TOKEN_FILE", dir_write(&dir, "token", TOKEN "\n", 0600));
	env_set(&env, "AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
	env_set(&env, "AWS_ROLE_SESSION_NAME", "pod@1");
	env_set(&env, "AWS_ENDPOINT_URL_STS", s->url);
	env_set(&env, "AWS_ENDPOINT_URL", "http://127.0.0.1:1");
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "STS1");
	assert_string_equal(secret_bytes(&c.secret_key), SECRET);
	assert_string_equal(secret_bytes(&c.session_token), "session");
	assert_true(c.expires > time(NULL) + 3500);
	assert_string_equal(s3_provider_describe(p), "web-identity");
	assert_true(server_saw(s, "POST / HTTP/1.1\r\n"));
	assert_true(server_saw(s,
			       "\r\n\r\nAction=AssumeRoleWithWebIdentity&Version=2011-06-15"
			       "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr&RoleSessionName=pod%401"
			       "&WebIdentityToken=" TOKEN));
	assert_false(server_saw(s, "Authorization"));
	assert_false(server_saw(s, "Expect"));
	server_stop(s);
}

static void a_profile_may_hold_a_web_identity(void **state)
{
	struct server *s = server_start(answer_sts);
	char config[512];

	snprintf(config, sizeof(config),
		 "[default]\nrole_arn=arn:aws:iam::1:role/r\nweb_identity_token_file=%s\nendpoint_url=%s/sts/\n",
		 dir_write(&dir, "token", TOKEN, 0600), s->url);
	env_set(&env, "AWS_CONFIG_FILE", dir_write(&dir, "config", config, 0600));
	assert_int_equal(start(), 0);
	assert_string_equal(c.access_key_id, "STS1");
	assert_string_equal(s3_provider_describe(p), "profile default");
	assert_true(server_saw(s, "POST /sts/ HTTP/1.1\r\n"));
	assert_true(server_saw(s, "&RoleSessionName=penstock&"));
	server_stop(s);
}

static void a_refusal_by_sts_is_told_without_the_token(void **state)
{
	struct server *s = server_start(answer_sts);

	env_set(&env, "AWS_WEB_IDENTITY_TOKEN_FILE", dir_write(&dir, "token", TOKEN, 0600));
	env_set(&env, "AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
	env_set(&env, "AWS_ENDPOINT_URL", s->url);
	server_with(s, s->status = 403);
	assert_int_equal(start(), -EACCES);
	assert_contains(e.msg, "AccessDenied (HTTP 403): Not allowed: arn:aws:iam::1:role/r");
	server_with(s, s->status = 400);
	assert_int_equal(start(), -EACCES);
	assert_contains(e.msg, "InvalidIdentityToken");
	server_stop(s);
	s = server_start(answer_html);
	env.nr--;
	env_set(&env, "AWS_ENDPOINT_URL", s->url);
	assert_int_equal(start(), -EBADMSG);
	server_stop(s);
}

static void broken_web_identities_are_errors_in_the_chain(void **state)
{
	struct server *s = server_start(answer_creds);

	env_set(&env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", s->url);
	env_set(&env, "AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token");
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "AWS_ROLE_ARN is not");
	env_set(&env, "AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
	assert_int_equal(start(), -ENOENT);
	assert_contains(e.msg, "/nonexistent/token");
	assert_int_equal(server_requests(s), 0);
	server_stop(s);
}

/* Where a request would go shows in the message when the proxy refuses the connection. */
static void assert_sts_at(const char *url)
{
	setenv("https_proxy", "http://127.0.0.1:1", 1);
	assert_true(start() < 0);
	assert_contains(e.msg, url);
}

static void sts_is_asked_in_the_region_through_the_proxy(void **state)
{
	env_set(&env, "AWS_WEB_IDENTITY_TOKEN_FILE", dir_write(&dir, "token", TOKEN, 0600));
	env_set(&env, "AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
	assert_sts_at("https://sts.amazonaws.com/");
	env_set(&env, "AWS_REGION", "eu-west-3");
	assert_sts_at("https://sts.eu-west-3.amazonaws.com/");
	cfg.region = "cn-north-1";
	assert_sts_at("https://sts.cn-north-1.amazonaws.com.cn/");
	cfg.region = NULL;
	env_set(&env, "AWS_STS_REGIONAL_ENDPOINTS", "legacy");
	assert_sts_at("https://sts.amazonaws.com/");
	cfg.region = "af-south-1";
	assert_sts_at("https://sts.af-south-1.amazonaws.com/");
	cfg.region = "evil.example.com/";
	assert_int_equal(start(), -EINVAL);
	assert_contains(e.msg, "region");
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(container_credentials_are_fetched_with_the_token),
		test(container_without_any_token_sends_none),
		test(a_proxy_is_not_asked_for_local_credentials),
		test(plain_http_is_for_this_machine_only),
		test(a_refusing_container_endpoint_is_an_error),
		test(a_redirect_does_not_take_the_token_elsewhere),
		test(broken_container_tokens_are_errors),
		test(garbage_from_the_network_is_an_error),
		test(a_slow_server_is_bounded),
		test(imds_takes_three_steps),
		test(imds_without_a_role_is_not_there),
		test(imds_can_be_turned_off),
		test(a_silent_imds_costs_two_seconds_at_most),
		test(web_identity_is_exchanged_at_sts),
		test(a_profile_may_hold_a_web_identity),
		test(a_refusal_by_sts_is_told_without_the_token),
		test(broken_web_identities_are_errors_in_the_chain),
		test(sts_is_asked_in_the_region_through_the_proxy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
