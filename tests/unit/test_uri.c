// SPDX-License-Identifier: Apache-2.0
/* s3:// names, endpoints, percent-encoding and the address of a request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/uri.h"

static struct s3_uri u;
static struct s3_endpoint ep;
static struct err e;

static int uri(const char *text)
{
	e = (struct err){ 0 };
	return s3_uri_parse(text, &u, &e);
}

static int endpoint(const char *url)
{
	e = (struct err){ 0 };
	return s3_endpoint_parse(url, &ep, &e);
}

static void a_name_is_a_bucket_and_a_prefix_with_a_slash(void **state)
{
	static const struct {
		const char *text, *bucket, *prefix;
	} rows[] = {
		{ "s3://bucket", "bucket", "" },
		{ "s3://bucket/", "bucket", "" },
		{ "s3://bucket/a", "bucket", "a/" },
		{ "s3://bucket/a/", "bucket", "a/" },
		{ "s3://bucket/a/b c/\xc3\xa9", "bucket", "a/b c/\xc3\xa9/" },
		{ "S3://my.bucket-1/x", "my.bucket-1", "x/" },
		{ "s3://Old_Bucket/x?y#z", "Old_Bucket", "x?y#z/" },
		{ "s3://a.b/../x", "a.b", "../x/" },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(uri(rows[i].text), 0);
		assert_string_equal(u.bucket, rows[i].bucket);
		assert_string_equal(u.prefix, rows[i].prefix);
	}
}

static void a_bad_name_is_refused_with_a_sentence(void **state)
{
	static const char *const texts[] = {
		"",           "bucket",      "gs://bucket",    "https://bucket", "s3:/bucket",
		"s3:bucket",  "s3://",       "s3:///a",        "s3://ab",        "s3://.",
		"s3://..",    "s3://...",    "s3://a..b",      "s3://-abc",      "s3://.abc",
		"s3://a b c", "s3://bu?ket", "s3://user@host", "s3://b:80",      "s3://b\xc3\xa9",
		"s3://a~b",   "s3://abc//",  "s3://abc//x",    "s3://abc/a//b",  "s3://abc/a//",
	};

	for (size_t i = 0; i < array_len(texts); i++) {
		assert_int_equal(uri(texts[i]), -EINVAL);
		assert_int_equal(e.code, -EINVAL);
		assert_true(strlen(e.msg) > 20);
	}
}

static void names_of_the_greatest_length_fit_and_longer_ones_do_not(void **state)
{
	char text[2048] = "s3://";

	memset(text + 5, 'b', S3_BUCKET_MAX);
	assert_int_equal(uri(text), 0);
	assert_int_equal(strlen(u.bucket), S3_BUCKET_MAX);
	text[5 + S3_BUCKET_MAX] = 'b';
	assert_int_equal(uri(text), -EINVAL);

	memset(text, 0, sizeof(text));
	strcpy(text, "s3://abc/");
	memset(text + 9, 'k', S3_KEY_MAX - 1);
	assert_int_equal(uri(text), 0);
	assert_int_equal(strlen(u.prefix), S3_KEY_MAX);
	text[9 + S3_KEY_MAX - 1] = 'k';
	assert_int_equal(uri(text), -EINVAL);
	text[9 + S3_KEY_MAX - 1] = '/';
	assert_int_equal(uri(text), 0);
	assert_int_equal(strlen(u.prefix), S3_KEY_MAX);
}

static void a_refused_name_leaves_the_result_alone(void **state)
{
	assert_int_equal(uri("s3://before/x"), 0);
	assert_int_equal(uri("s3://after//"), -EINVAL);
	assert_string_equal(u.bucket, "before");
	assert_int_equal(s3_uri_parse("nothing", &u, NULL), -EINVAL);
}

static void an_endpoint_is_cut_into_its_parts(void **state)
{
	static const struct {
		const char *url, *host;
		bool https;
		unsigned port;
		const char *path;
	} rows[] = {
		{ "http://localhost", "localhost", false, 0, "" },
		{ "https://s3.example.com/", "s3.example.com", true, 0, "" },
		{ "HTTP://127.0.0.1:9000", "127.0.0.1", false, 9000, "" },
		{ "https://h:443", "h", true, 0, "" },
		{ "http://h:80/", "h", false, 0, "" },
		{ "https://h:80", "h", true, 80, "" },
		{ "http://h:65535/x/y//", "h", false, 65535, "/x/y" },
		{ "http://[::1]:9000/s3", "[::1]", false, 9000, "/s3" },
		{ "http://[fe80::1%25]", NULL, false, 0, NULL },
		{ "https://my_host-1.svc/a-b_c~d", "my_host-1.svc", true, 0, "/a-b_c~d" },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(endpoint(rows[i].url), rows[i].host ? 0 : -EINVAL);
		if (!rows[i].host)
			continue;
		assert_string_equal(ep.host, rows[i].host);
		assert_int_equal(ep.https, rows[i].https);
		assert_false(ep.is_aws);
		assert_int_equal(ep.port, rows[i].port);
		assert_string_equal(ep.base_path, rows[i].path);
	}
}

static void a_bad_endpoint_is_refused_with_a_sentence(void **state)
{
	static const char *const urls[] = {
		"",
		"localhost",
		"localhost:9000",
		"ftp://h",
		"http:/h",
		"http://",
		"http:///x",
		"http://:80",
		"http://h:",
		"http://h:0",
		"http://h:65536",
		"http://h:99999999999999999999",
		"http://h:-1",
		"http://h:80x",
		"http://h:80:81",
		"http://user:pw@h",
		"http://h?x=y",
		"http://h/p?x",
		"http://h/#f",
		"http://h/a b",
		"http://h/%20",
		"http://h//x",
		"http://h/../x",
		"http://h/a/./b",
		"http://h/a\nb",
		"http://h\r\nX: y",
		"http://h h",
		"http://[::1",
		"http://[]",
		"http://::1",
		"http://[::1]x",
		"http://[g::1]",
	};

	for (size_t i = 0; i < array_len(urls); i++) {
		assert_int_equal(endpoint(urls[i]), -EINVAL);
		assert_int_equal(e.code, -EINVAL);
		assert_true(strlen(e.msg) > 20);
	}
}

static void a_password_in_an_endpoint_is_not_repeated(void **state)
{
	assert_int_equal(endpoint("http://user:hunter2@h"), -EINVAL);
	assert_null(strstr(e.msg, "hunter2"));
}

static void endpoints_longer_than_their_fields_are_refused(void **state)
{
	char url[1024] = "http://";

	memset(url + 7, 'h', S3_HOST_MAX - 1);
	assert_int_equal(endpoint(url), 0);
	url[7 + S3_HOST_MAX - 1] = 'h';
	url[7 + S3_HOST_MAX] = 'h';
	assert_int_equal(endpoint(url), -EINVAL);

	memset(url, 0, sizeof(url));
	strcpy(url, "http://h/");
	memset(url + 9, 'p', sizeof(ep.base_path) - 2);
	assert_int_equal(endpoint(url), 0);
	url[9 + sizeof(ep.base_path) - 2] = 'p';
	assert_int_equal(endpoint(url), -EINVAL);
}

static void aws_has_an_endpoint_in_every_region(void **state)
{
	assert_int_equal(s3_endpoint_aws("eu-west-1", &ep, &e), 0);
	assert_string_equal(ep.host, "s3.eu-west-1.amazonaws.com");
	assert_true(ep.is_aws && ep.https);
	assert_int_equal(ep.port, 0);
	assert_int_equal(s3_endpoint_aws("cn-north-1", &ep, &e), 0);
	assert_string_equal(ep.host, "s3.cn-north-1.amazonaws.com.cn");
	assert_int_equal(s3_endpoint_aws("", &ep, &e), -EINVAL);
	assert_int_equal(s3_endpoint_aws("evil.com/", &ep, &e), -EINVAL);
	assert_int_equal(s3_endpoint_aws("EU", &ep, &e), -EINVAL);
}

static void encoding_keeps_the_unreserved_alone(void **state)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 4096);
	assert_int_equal(s3_uri_encode(&b, "AZaz09-._~", false), 0);
	assert_string_equal(buf_str(&b), "AZaz09-._~");
	buf_clear(&b);
	assert_int_equal(s3_uri_encode(&b, "a/b c+d&e=f;g%2Fh?i#j:@!$'()*,[]", true), 0);
	assert_string_equal(buf_str(&b), "a/b%20c%2Bd%26e%3Df%3Bg%252Fh%3Fi%23j%3A%40%21%24%27%28%29%2A%2C%5B%5D");
	buf_clear(&b);
	assert_int_equal(s3_uri_encode(&b, "a/\xc3\xa9\x01\x7f\xff", false), 0);
	assert_string_equal(buf_str(&b), "a%2F%C3%A9%01%7F%FF");
}

static void encoding_stops_at_the_buffers_maximum(void **state)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 5);
	assert_int_equal(s3_uri_encode(&b, "ab  ", false), -E2BIG);
	assert_string_equal(buf_str(&b), "ab%20");
}

static void decoding_undoes_encoding_for_every_byte(void **state)
{
	_cleanup_buf_ struct buf b;
	char all[256] = "", back[256];
	size_t len;

	for (int i = 1; i < 256; i++)
		all[i - 1] = (char)i;
	buf_init(&b, 4096);
	assert_int_equal(s3_uri_encode(&b, all, false), 0);
	assert_int_equal(s3_uri_decode(b.data, b.len, back, sizeof(back), &len), 0);
	assert_int_equal(len, 255);
	assert_memory_equal(back, all, 255);
}

static void decoding_knows_plus_and_both_cases_and_nul(void **state)
{
	char text[] = "a+b%2bc%2Fd%00e";
	size_t len;

	assert_int_equal(s3_uri_decode(text, strlen(text), text, strlen(text), &len), 0);
	assert_int_equal(len, 9);
	assert_memory_equal(text, "a b+c/d\0e", 9);
}

static void a_broken_escape_is_an_error(void **state)
{
	static const char *const texts[] = { "%", "a%", "%4", "a%4", "%4g", "%g4", "%%41", "% 41" };
	char out[16];
	size_t len;

	for (size_t i = 0; i < array_len(texts); i++)
		assert_int_equal(s3_uri_decode(texts[i], strlen(texts[i]), out, sizeof(out), &len), -EINVAL);
	/* The length bounds the text, whatever follows it. */
	assert_int_equal(s3_uri_decode("%41", 2, out, sizeof(out), &len), -EINVAL);
	assert_int_equal(s3_uri_decode("abc", 3, out, 2, &len), -E2BIG);
	assert_int_equal(s3_uri_decode("%61%62", 6, out, 2, &len), 0);
	assert_int_equal(len, 2);
}

struct target {
	const char *url, *bucket, *key;
	bool path_style;
	const char *path, *host;
};

static void check_targets(const struct target *t, size_t nr)
{
	for (size_t i = 0; i < nr; i++) {
		_cleanup_buf_ struct buf path;
		char host[256];

		buf_init(&path, 4096);
		assert_int_equal(buf_add_str(&path, "left over"), 0);
		assert_int_equal(endpoint(t[i].url), 0);
		assert_int_equal(
			s3_target_build(&ep, t[i].path_style, t[i].bucket, t[i].key, &path, host, sizeof(host)), 0);
		assert_string_equal(buf_str(&path), t[i].path);
		assert_string_equal(host, t[i].host);
	}
}

static void path_style_puts_the_bucket_into_the_path(void **state)
{
	static const struct target rows[] = {
		{ "http://h:9000", "bkt", "", true, "/bkt", "h:9000" },
		{ "http://h:9000", "bkt", "a b", true, "/bkt/a%20b", "h:9000" },
		{ "https://h:443/base", "bkt", "x/y", true, "/base/bkt/x/y", "h" },
		{ "https://h/base", "bkt", "", true, "/base/bkt", "h" },
		{ "http://[::1]:81", "bkt", "k", true, "/bkt/k", "[::1]:81" },
		{ "http://h", "bkt", "/lead//double/", true, "/bkt//lead//double/", "h" },
		{ "http://h", "bkt", "a/../b/./c", true, "/bkt/a/../b/./c", "h" },
		{ "http://h", "bkt", "%2F?x#y\x01", true, "/bkt/%252F%3Fx%23y%01", "h" },
	};

	check_targets(rows, array_len(rows));
}

static void virtual_host_style_puts_the_bucket_into_the_host(void **state)
{
	static const struct target rows[] = {
		{ "https://s3.example.com", "bkt", "", false, "/", "bkt.s3.example.com" },
		{ "https://s3.example.com:8443/base", "bkt", "a/b", false, "/base/a/b", "bkt.s3.example.com:8443" },
		{ "http://s3.example.com", "my.bkt", "k", false, "/k", "my.bkt.s3.example.com" },
	};

	check_targets(rows, array_len(rows));
}

static void a_host_that_cannot_name_the_bucket_means_path_style(void **state)
{
	static const struct target rows[] = {
		{ "https://s3.example.com", "my.bkt", "k", false, "/my.bkt/k", "s3.example.com" },
		{ "https://s3.example.com", "Upper", "k", false, "/Upper/k", "s3.example.com" },
		{ "https://s3.example.com", "under_score", "k", false, "/under_score/k", "s3.example.com" },
		{ "http://127.0.0.1:9000", "bkt", "k", false, "/bkt/k", "127.0.0.1:9000" },
		{ "http://[::1]", "bkt", "k", false, "/bkt/k", "[::1]" },
	};

	check_targets(rows, array_len(rows));
}

static void a_target_that_does_not_fit_is_an_error(void **state)
{
	_cleanup_buf_ struct buf path;
	char host[8];

	buf_init(&path, 8);
	assert_int_equal(endpoint("http://hosthost"), 0);
	assert_int_equal(s3_target_build(&ep, true, "bkt", "", &path, host, sizeof(host)), -E2BIG);
	assert_int_equal(endpoint("http://host"), 0);
	assert_int_equal(s3_target_build(&ep, true, "bkt", "long key", &path, host, sizeof(host)), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_name_is_a_bucket_and_a_prefix_with_a_slash),
		cmocka_unit_test(a_bad_name_is_refused_with_a_sentence),
		cmocka_unit_test(names_of_the_greatest_length_fit_and_longer_ones_do_not),
		cmocka_unit_test(a_refused_name_leaves_the_result_alone),
		cmocka_unit_test(an_endpoint_is_cut_into_its_parts),
		cmocka_unit_test(a_bad_endpoint_is_refused_with_a_sentence),
		cmocka_unit_test(a_password_in_an_endpoint_is_not_repeated),
		cmocka_unit_test(endpoints_longer_than_their_fields_are_refused),
		cmocka_unit_test(aws_has_an_endpoint_in_every_region),
		cmocka_unit_test(encoding_keeps_the_unreserved_alone),
		cmocka_unit_test(encoding_stops_at_the_buffers_maximum),
		cmocka_unit_test(decoding_undoes_encoding_for_every_byte),
		cmocka_unit_test(decoding_knows_plus_and_both_cases_and_nul),
		cmocka_unit_test(a_broken_escape_is_an_error),
		cmocka_unit_test(path_style_puts_the_bucket_into_the_path),
		cmocka_unit_test(virtual_host_style_puts_the_bucket_into_the_host),
		cmocka_unit_test(a_host_that_cannot_name_the_bucket_means_path_style),
		cmocka_unit_test(a_target_that_does_not_fit_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
