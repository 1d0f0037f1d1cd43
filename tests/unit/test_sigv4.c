// SPDX-License-Identifier: Apache-2.0
/*
 * Signatures against the published ones: the cases of the SigV4 test suite (service "service", 2015-08-30) and the
 * examples of the S3 documentation (examplebucket, 2013-05-24).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/sigv4.h"
#include "s3/uri.h"

#define SUITE_TIME 1440938160 /* 20150830T123600Z */
#define DOCS_TIME 1369353600  /* 20130524T000000Z */
#define HOST_ONLY "host", "example.amazonaws.com"

static struct s3_creds suite, docs;

struct kase {
	const char *path;
	struct sigv4_query query[4];
	struct sigv4_header headers[8];
	const char *method; /* NULL = GET */
	const char *signature, *signed_headers;
};

static int creds_make(struct s3_creds *c, const char *id, const char *secret, const char *token)
{
	s3_creds_wipe(c);
	strcpy(c->access_key_id, id);
	if (secret_set(&c->secret_key, secret, strlen(secret)) < 0)
		return -1;
	return token ? secret_set(&c->session_token, token, strlen(token)) : 0;
}

static int setup(void **state)
{
	if (creds_make(&suite, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", NULL) < 0)
		return -1;
	return creds_make(&docs, "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", NULL);
}

static int teardown(void **state)
{
	s3_creds_wipe(&suite);
	s3_creds_wipe(&docs);
	return 0;
}

static struct sigv4_request request(const struct kase *k, const char *service, time_t now)
{
	struct sigv4_request r = {
		.method = k->method ? k->method : "GET",
		.encoded_path = k->path,
		.query = k->query,
		.headers = k->headers,
		.payload_sha256 = SIGV4_EMPTY_SHA256,
		.region = "us-east-1",
		.service = service,
		.now = now,
	};

	while (r.nr_query < array_len(k->query) && k->query[r.nr_query].name)
		r.nr_query++;
	while (r.nr_headers < array_len(k->headers) && k->headers[r.nr_headers].name)
		r.nr_headers++;
	return r;
}

static void check(const struct kase *k, const struct sigv4_request *r, const struct s3_creds *c, const char *want_date)
{
	_cleanup_buf_ struct buf auth, want;
	char date[17];

	buf_init(&auth, 4096);
	buf_init(&want, 4096);
	assert_int_equal(sigv4_sign(r, c, &auth, date, NULL), 0);
	assert_string_equal(date, want_date);
	buf_addf(&want, "AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request, SignedHeaders=%s, Signature=%s",
		 c->access_key_id, want_date, r->service, k->signed_headers, k->signature);
	assert_string_equal(buf_str(&auth), buf_str(&want));
}

static void check_suite(const struct kase *k, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		struct sigv4_request r = request(&k[i], "service", SUITE_TIME);

		check(&k[i], &r, &suite, "20150830T123600Z");
	}
}

static void vanilla_requests_match_the_suite(void **state)
{
	static const struct kase rows[] = {
		{ "/",
		  {},
		  { { HOST_ONLY } },
		  NULL,
		  "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
		  "host;x-amz-date" },
		{ "/",
		  {},
		  { { HOST_ONLY } },
		  "POST",
		  "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
		  "host;x-amz-date" },
	};

	check_suite(rows, array_len(rows));
}

#define UNRESERVED "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static void queries_are_sorted_and_encoded_as_in_the_suite(void **state)
{
	static const struct kase rows[] = {
		{ "/",
		  { { "Param2", "value2" }, { "Param1", "value1" } },
		  { { HOST_ONLY } },
		  NULL,
		  "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
		  "host;x-amz-date" },
		{ "/",
		  { { "Param1", "value2" }, { "Param1", "value1" } },
		  { { HOST_ONLY } },
		  NULL,
		  "5772eed61e12b33fae39ee5e7012498b51d56abc0abb7c60486157bd471c4694",
		  "host;x-amz-date" },
		{ "/",
		  { { UNRESERVED, UNRESERVED } },
		  { { HOST_ONLY } },
		  NULL,
		  "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
		  "host;x-amz-date" },
		{ "/",
		  { { "\xe1\x88\xb4", "bar" } },
		  { { HOST_ONLY } },
		  NULL,
		  "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
		  "host;x-amz-date" },
	};

	check_suite(rows, array_len(rows));
}

static void encoded_paths_are_signed_as_in_the_suite(void **state)
{
	static const struct kase rows[] = {
		{ "/%E1%88%B4",
		  {},
		  { { HOST_ONLY } },
		  NULL,
		  "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
		  "host;x-amz-date" },
		{ "/" UNRESERVED,
		  {},
		  { { HOST_ONLY } },
		  NULL,
		  "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
		  "host;x-amz-date" },
		{ "/example%20space/",
		  {},
		  { { HOST_ONLY } },
		  NULL,
		  "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
		  "host;x-amz-date" },
	};

	check_suite(rows, array_len(rows));
}

static void header_values_are_trimmed_and_joined_as_in_the_suite(void **state)
{
	static const struct kase rows[] = {
		{ "/",
		  {},
		  { { HOST_ONLY }, { "My-Header1", " value1" }, { "My-Header2", " \"a   b   c\"" } },
		  NULL,
		  "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
		  "host;my-header1;my-header2;x-amz-date" },
		{ "/",
		  {},
		  { { "My-Header2", "\t\"a \t b  c\" " }, { HOST_ONLY }, { "MY-HEADER1", "value1  " } },
		  NULL,
		  "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
		  "host;my-header1;my-header2;x-amz-date" },
		{ "/",
		  {},
		  { { HOST_ONLY }, { "My-Header1", "value2" }, { "My-Header1", "value2" }, { "My-Header1", "value1" } },
		  NULL,
		  "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
		  "host;my-header1;x-amz-date" },
	};

	check_suite(rows, array_len(rows));
}

static void a_session_token_is_signed_as_in_the_suite(void **state)
{
	static const char token[] =
		"AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeo"
		"IYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5V"
		"SXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yj"
		"c8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";
	static const struct kase k = { "/",
				       {},
				       { { HOST_ONLY } },
				       "POST",
				       "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
				       "host;x-amz-date;x-amz-security-token" };
	struct sigv4_request r = request(&k, "service", SUITE_TIME);

	assert_int_equal(secret_set(&suite.session_token, token, strlen(token)), 0);
	check(&k, &r, &suite, "20150830T123600Z");
}

#define DOCS_HOST "Host", "examplebucket.s3.amazonaws.com"
#define DOCS_SIGNED "host;x-amz-content-sha256;x-amz-date"

static void s3_requests_match_the_documentation(void **state)
{
	static const struct kase rows[] = {
		{ "/test.txt",
		  {},
		  { { DOCS_HOST }, { "Range", "bytes=0-9" } },
		  NULL,
		  "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		  "host;range;x-amz-content-sha256;x-amz-date" },
		{ "/",
		  { { "lifecycle", "" } },
		  { { DOCS_HOST } },
		  NULL,
		  "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		  DOCS_SIGNED },
		{ "/",
		  { { "prefix", "J" }, { "max-keys", "2" } },
		  { { DOCS_HOST } },
		  NULL,
		  "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		  DOCS_SIGNED },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		struct sigv4_request r = request(&rows[i], "s3", DOCS_TIME);

		check(&rows[i], &r, &docs, "20130524T000000Z");
	}
}

static void an_s3_put_matches_the_documentation(void **state)
{
	static const struct kase k = { "/test%24file.text",
				       {},
				       { { DOCS_HOST },
					 { "Date", "Fri, 24 May 2013 00:00:00 GMT" },
					 { "x-amz-storage-class", "REDUCED_REDUNDANCY" } },
				       "PUT",
				       "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
				       "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class" };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);

	r.payload_sha256 = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
	check(&k, &r, &docs, "20130524T000000Z");
}

static void an_unsigned_payload_is_named_as_such(void **state)
{
	static const struct kase k = { "/test.txt",
				       {},
				       { { DOCS_HOST } },
				       NULL,
				       "5c0d4ff29e72b8f94c5b6720369921e587e39bf7a64e456887dec4b43a2d1b77",
				       DOCS_SIGNED };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);

	r.payload_sha256 = SIGV4_UNSIGNED_PAYLOAD;
	check(&k, &r, &docs, "20130524T000000Z");
}

static void odd_keys_are_encoded_once_and_never_normalised(void **state)
{
	static const struct kase k = {
		"/bkt/odd/%20%2B%26%3D%3B%C3%A9%252F%3F%23//%01%7F%27%28%29%2A%21",
		{ { "versionId", "a+b/c=&" } },
		{ { "Host", "h:9000" } },
		NULL,
		"e10e3068049e89c23ffb0395fcf52c0885a8a80dbe0b2e4d234f049784500ba9",
		DOCS_SIGNED,
	};
	struct s3_endpoint ep = { .host = "h", .port = 9000 };
	_cleanup_buf_ struct buf path;
	struct sigv4_request r;
	char host[64];

	buf_init(&path, 4096);
	assert_int_equal(s3_target_build(&ep, true, "bkt", "odd/ +&=;\xc3\xa9%2F?#//\x01\x7f'()*!", &path, host,
					 sizeof(host)),
			 0);
	assert_string_equal(buf_str(&path), k.path);
	assert_string_equal(host, "h:9000");
	r = request(&k, "s3", DOCS_TIME);
	r.encoded_path = buf_str(&path);
	check(&k, &r, &docs, "20130524T000000Z");
}

static void the_canonical_request_is_the_documented_text(void **state)
{
	static const struct kase k = { .path = "/test.txt", .headers = { { DOCS_HOST }, { "Range", "bytes=0-9" } } };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);
	_cleanup_buf_ struct buf auth, canonical;
	char date[17];

	buf_init(&auth, 4096);
	buf_init(&canonical, 4096);
	assert_int_equal(sigv4_sign(&r, &docs, &auth, date, &canonical), 0);
	assert_string_equal(buf_str(&canonical),
			    "GET\n"
			    "/test.txt\n"
			    "\n"
			    "host:examplebucket.s3.amazonaws.com\n"
			    "range:bytes=0-9\n"
			    "x-amz-content-sha256:" SIGV4_EMPTY_SHA256
			    "\n"
			    "x-amz-date:20130524T000000Z\n"
			    "\n"
			    "host;range;x-amz-content-sha256;x-amz-date\n" SIGV4_EMPTY_SHA256);
}

static void a_name_that_begins_another_sorts_before_it(void **state)
{
	static const struct sigv4_query query[] = {
		{ "prefix-x", "1" }, { "list-type", "2" }, { "prefix", "a/b c+" }, { "uploads", "" }, { "prefix", "" },
	};
	_cleanup_buf_ struct buf b;

	buf_init(&b, 4096);
	assert_int_equal(sigv4_query_encode(&b, query, array_len(query)), 0);
	assert_string_equal(buf_str(&b), "list-type=2&prefix=&prefix=a%2Fb%20c%2B&prefix-x=1&uploads=");
	buf_clear(&b);
	assert_int_equal(sigv4_query_encode(&b, NULL, 0), 0);
	assert_string_equal(buf_str(&b), "");
}

static void a_cached_key_gives_the_same_signatures(void **state)
{
	static const struct kase k = { "/test.txt",
				       {},
				       { { DOCS_HOST }, { "Range", "bytes=0-9" } },
				       NULL,
				       "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
				       "" };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);
	struct sigv4_cache cache = { 0 };
	_cleanup_buf_ struct buf fresh, cached;
	char date[17];

	buf_init(&fresh, 4096);
	buf_init(&cached, 4096);
	for (int i = 0; i < 12; i++) {
		const struct s3_creds *c = i % 3 ? &docs : &suite;

		/* Another day, region, service or secret must each give another key. */
		r.now = DOCS_TIME + (i & 4 ? 86400 : 0);
		r.region = i & 1 ? "us-east-1" : "eu-west-1";
		r.service = i & 2 ? "s3" : "sts";
		assert_int_equal(sigv4_sign(&r, c, &fresh, date, NULL), 0);
		for (int again = 0; again < 2; again++) {
			assert_int_equal(sigv4_sign_cached(&cache, &r, c, &cached, date, NULL), 0);
			assert_string_equal(buf_str(&cached), buf_str(&fresh));
		}
	}
}

static int sign_changed(const struct sigv4_request *r, const struct s3_creds *c)
{
	_cleanup_buf_ struct buf auth;
	char date[17];

	buf_init(&auth, 4096);
	return sigv4_sign(r, c, &auth, date, NULL);
}

static void a_value_that_would_break_out_of_its_line_is_refused(void **state)
{
	static const struct sigv4_header bad[] = {
		{ "x-a", "1\r\nHost: evil" },
		{ "x-a", "a\nb" },
		{ "x-a", "\x7f" },
		{ "x a", "1" },
		{ "x-a:", "1" },
		{ "", "1" },
		{ "x\n", "1" },
		{ "X-Amz-Date", "1" },
		{ "x-amz-content-sha256", "" },
		{ "X-Amz-Security-Token", "t" },
	};
	static const struct kase k = { .path = "/", .headers = { { DOCS_HOST }, { "x-b", "1" } } };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);

	assert_int_equal(sign_changed(&r, &docs), 0);
	for (size_t i = 0; i < array_len(bad); i++) {
		struct sigv4_header headers[] = { { DOCS_HOST }, bad[i] };

		r.headers = headers;
		assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	}
}

static void a_request_without_its_parts_is_refused(void **state)
{
	static const struct kase k = { .path = "/", .headers = { { DOCS_HOST } } };
	struct sigv4_request good = request(&k, "s3", DOCS_TIME), r;
	struct s3_creds none = { 0 };
	char region[200] = "";

	assert_int_equal(sign_changed(&good, &docs), 0);
	r = good;
	r.nr_headers = 0;
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	r = good;
	r.encoded_path = "no-slash";
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	r.encoded_path = "/a b";
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	r.encoded_path = "/a\nb";
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	r = good;
	r.region = "";
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	memset(region, 'r', sizeof(region) - 1);
	r.region = region;
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	assert_int_equal(sign_changed(&good, &none), -EINVAL);
}

static void too_many_headers_or_arguments_are_refused(void **state)
{
	static const struct kase k = { .path = "/", .headers = { { DOCS_HOST } } };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);
	struct sigv4_header headers[40];
	struct sigv4_query query[100];

	for (size_t i = 0; i < array_len(headers); i++)
		headers[i] = k.headers[0];
	for (size_t i = 0; i < array_len(query); i++)
		query[i] = (struct sigv4_query){ "a", "b" };
	r.headers = headers;
	r.nr_headers = array_len(headers);
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	r.nr_headers = 1;
	r.query = query;
	r.nr_query = array_len(query);
	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
}

static void a_full_buffer_is_e2big(void **state)
{
	static const struct kase k = { .path = "/", .headers = { { DOCS_HOST } } };
	struct sigv4_request r = request(&k, "s3", DOCS_TIME);
	_cleanup_buf_ struct buf small, large;
	char date[17];

	buf_init(&small, 20);
	buf_init(&large, 4096);
	assert_int_equal(sigv4_sign(&r, &docs, &small, date, NULL), -E2BIG);
	assert_int_equal(sigv4_sign(&r, &docs, &large, date, &small), -E2BIG);
}

static void a_year_without_four_digits_is_refused(void **state)
{
	static const struct kase k = { .path = "/", .headers = { { DOCS_HOST } } };
	struct sigv4_request r = request(&k, "s3", 253402300800); /* 10000-01-01 */

	assert_int_equal(sign_changed(&r, &docs), -EINVAL);
	r.now = 253402300799;
	assert_int_equal(sign_changed(&r, &docs), 0);
}

static void copies_of_credentials_stand_alone(void **state)
{
	struct s3_creds a = { 0 }, b = { 0 };

	assert_int_equal(creds_make(&a, "id", "key", "token"), 0);
	a.expires = 42;
	assert_int_equal(s3_creds_copy(&b, &a), 0);
	s3_creds_wipe(&a);
	assert_string_equal(a.access_key_id, "");
	assert_int_equal(a.secret_key.len, 0);
	assert_string_equal(b.access_key_id, "id");
	assert_string_equal(secret_bytes(&b.secret_key), "key");
	assert_string_equal(secret_bytes(&b.session_token), "token");
	assert_int_equal(b.expires, 42);
	/* A copy replaces all of it, the token too. */
	assert_int_equal(s3_creds_copy(&b, &docs), 0);
	assert_string_equal(secret_bytes(&b.session_token), "");
	assert_int_equal(b.expires, 0);
	s3_creds_wipe(&b);
	s3_creds_wipe(&b);
}

#define test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(vanilla_requests_match_the_suite),
		test(queries_are_sorted_and_encoded_as_in_the_suite),
		test(encoded_paths_are_signed_as_in_the_suite),
		test(header_values_are_trimmed_and_joined_as_in_the_suite),
		test(a_session_token_is_signed_as_in_the_suite),
		test(s3_requests_match_the_documentation),
		test(an_s3_put_matches_the_documentation),
		test(an_unsigned_payload_is_named_as_such),
		test(odd_keys_are_encoded_once_and_never_normalised),
		test(the_canonical_request_is_the_documented_text),
		test(a_name_that_begins_another_sorts_before_it),
		test(a_cached_key_gives_the_same_signatures),
		test(a_value_that_would_break_out_of_its_line_is_refused),
		test(a_request_without_its_parts_is_refused),
		test(too_many_headers_or_arguments_are_refused),
		test(a_full_buffer_is_e2big),
		test(a_year_without_four_digits_is_refused),
		test(copies_of_credentials_stand_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
