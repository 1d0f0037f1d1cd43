// SPDX-License-Identifier: Apache-2.0
/* Error and STS documents, and the values of XML and headers: dates, ETags, storage classes. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "s3/xml.h"

static void storage_classes_tell_what_is_archived(void **state)
{
	static const struct {
		const char *text;
		enum s3_storage_class want;
		bool archived;
	} rows[] = {
		{ "", S3_CLASS_STANDARD, false },         { "STANDARD", S3_CLASS_STANDARD, false },
		{ "GLACIER", S3_CLASS_GLACIER, true },    { "DEEP_ARCHIVE", S3_CLASS_DEEP_ARCHIVE, true },
		{ "GLACIER_IR", S3_CLASS_OTHER, false },  { "INTELLIGENT_TIERING", S3_CLASS_OTHER, false },
		{ "STANDARD_IA", S3_CLASS_OTHER, false }, { "SOMETHING_NEW", S3_CLASS_OTHER, false },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(s3_storage_class_parse(rows[i].text), rows[i].want);
		assert_int_equal(s3_storage_class_archived(s3_storage_class_parse(rows[i].text)), rows[i].archived);
	}
	assert_true(s3_storage_class_archived(S3_CLASS_INTELLIGENT_ARCHIVE));
}

static void error_documents_are_read(void **state)
{
	static const char aws[] =
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code>"
		"<Message>The region 'x' is wrong;\nexpecting 'eu-west-1'\x7f</Message><Region>eu-west-1</Region>"
		"<RequestId>4442587FB7D0A2F9</RequestId><HostId>h</HostId><Resource>/x</Resource></Error>";
	static const char sts[] =
		"<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>"
		"<Code>ExpiredTokenException</Code><Message>late</Message></Error>"
		"<RequestId>r</RequestId></ErrorResponse>";
	struct s3_error_body b;

	assert_int_equal(s3_error_parse(aws, strlen(aws), &b), 0);
	assert_string_equal(b.code, "AuthorizationHeaderMalformed");
	assert_string_equal(b.message, "The region 'x' is wrong;?expecting 'eu-west-1'?");
	assert_string_equal(b.region, "eu-west-1");
	assert_string_equal(b.request_id, "4442587FB7D0A2F9");
	assert_string_equal(b.endpoint, "");
	assert_int_equal(s3_error_parse(sts, strlen(sts), &b), 0);
	assert_string_equal(b.code, "ExpiredTokenException");
	assert_int_equal(s3_error_parse("<Error/>", 8, &b), 0);
	assert_string_equal(b.code, "");
}

static void what_is_no_error_document_is_refused(void **state)
{
	static const char *const texts[] = {
		"",
		"404 page not found",
		"<html><Error><Code>NoSuchKey</Code></Error></html>",
		"<Error><Code>NoSuchKey</Code>",
		"<ErrorResponse><Code>NoSuchKey</Code></ErrorResponse>",
		"<Error><Code>No<b/>SuchKey</Code></Error>",
		"<!DOCTYPE html><Error><Code>NoSuchKey</Code></Error>",
	};
	struct s3_error_body b;

	for (size_t i = 0; i < array_len(texts); i++) {
		memset(&b, 'x', sizeof(b));
		assert_int_equal(s3_error_parse(texts[i], strlen(texts[i]), &b), -EBADMSG);
		assert_string_equal(b.code, "");
	}
}

static void long_error_texts_are_cut_but_never_an_address(void **state)
{
	_cleanup_buf_ struct buf t;
	struct s3_error_body b;

	buf_init(&t, 100000);
	buf_addf(&t, "<Error><Message>%05000d</Message><Code>%0100d</Code></Error>", 1, 2);
	assert_int_equal(s3_error_parse(t.data, t.len, &b), 0);
	assert_int_equal(strlen(b.message), sizeof(b.message) - 1);
	assert_int_equal(strlen(b.code), sizeof(b.code) - 1);
	buf_clear(&t);
	buf_addf(&t, "<Error><Endpoint>%0300d</Endpoint></Error>", 1);
	assert_int_equal(s3_error_parse(t.data, t.len, &b), -EBADMSG);
}

#define STS(fields)                                                                               \
	"<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">" \
	"<AssumeRoleWithWebIdentityResult><Audience>a</Audience><AssumedRoleUser><Arn>x</Arn>"    \
	"<AssumedRoleId>y:z</AssumedRoleId></AssumedRoleUser><Credentials>" fields                \
	"</Credentials>"                                                                          \
	"<Provider>p</Provider></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
#define STS_KEYS "<SecretAccessKey>s/e+c</SecretAccessKey><AccessKeyId>ASIAX</AccessKeyId>"

static void temporary_credentials_are_read(void **state)
{
	static const char text[] =
		STS("<SessionToken>AQ//t==</SessionToken>" STS_KEYS "<Expiration>2026-11-23T09:34:59Z</Expiration>");
	struct s3_creds c = { 0 };

	assert_int_equal(s3_sts_parse(text, strlen(text), &c), 0);
	assert_string_equal(c.access_key_id, "ASIAX");
	assert_string_equal(secret_bytes(&c.secret_key), "s/e+c");
	assert_string_equal(secret_bytes(&c.session_token), "AQ//t==");
	assert_int_equal(c.expires, 1795426499);
	/* Again into the same place: the old secrets are released. */
	assert_int_equal(s3_sts_parse(text, strlen(text), &c), 0);
	s3_creds_wipe(&c);
}

static void half_credentials_are_refused_and_change_nothing(void **state)
{
	static const char *const texts[] = {
		STS(""),
		STS(STS_KEYS),
		STS(STS_KEYS "<SessionToken>t</SessionToken>"),
		STS(STS_KEYS "<SessionToken>t</SessionToken><Expiration>soon</Expiration>"),
		STS(STS_KEYS "<SessionToken></SessionToken><Expiration>2026-11-23T09:34:59Z</Expiration>"),
		STS("<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
		    "<Expiration>2026-11-23T09:34:59Z</Expiration>"),
		"<AssumeRoleWithWebIdentityResponse>" STS_KEYS "</AssumeRoleWithWebIdentityResponse>",
		"<Error><Code>x</Code></Error>",
		"",
	};
	struct s3_creds c = { .access_key_id = "before", .expires = 7 };

	for (size_t i = 0; i < array_len(texts); i++)
		assert_int_equal(s3_sts_parse(texts[i], strlen(texts[i]), &c), -EBADMSG);
	assert_string_equal(c.access_key_id, "before");
	assert_int_equal(c.expires, 7);
	assert_int_equal(c.secret_key.len, 0);
}

static void the_longest_session_token_fits_and_no_longer_one(void **state)
{
	_cleanup_buf_ struct buf t;
	struct s3_creds c = { 0 };

	buf_init(&t, 100000);
	buf_addf(&t, STS(STS_KEYS "<SessionToken>%0*d</SessionToken><Expiration>2026-11-23T09:34:59Z</Expiration>"),
		 SECRET_MAX_BYTES, 1);
	assert_int_equal(s3_sts_parse(t.data, t.len, &c), 0);
	assert_int_equal(c.session_token.len, SECRET_MAX_BYTES);
	buf_clear(&t);
	buf_addf(&t, STS(STS_KEYS "<SessionToken>%0*d</SessionToken><Expiration>2026-11-23T09:34:59Z</Expiration>"),
		 SECRET_MAX_BYTES + 1, 1);
	assert_int_equal(s3_sts_parse(t.data, t.len, &c), -EBADMSG);
	s3_creds_wipe(&c);
}

struct when {
	const char *text;
	time_t want;
};

static void iso_dates_are_read(void **state)
{
	static const struct when good[] = {
		{ "1970-01-01T00:00:00Z", 0 },
		{ "2026-11-23T08:34:59.000Z", 1795422899 },
		{ "2026-11-23T08:34:59.123456789Z", 1795422899 },
		{ "2000-02-29T23:59:59Z", 951868799 },
		{ "2000-03-01T00:00:00Z", 951868800 },
		{ "2016-12-31T23:59:60Z", 1483228800 },
		{ "1969-12-31T23:59:59Z", -1 },
		{ "9999-12-31T23:59:59Z", 253402300799 },
	};
	static const char *const bad[] = {
		"",
		"2026-11-23",
		"2026-11-23T08:34:59",
		"2026-11-23 08:34:59Z",
		"2026-13-01T00:00:00Z",
		"2026-00-01T00:00:00Z",
		"2026-02-29T00:00:00Z",
		"2100-02-29T00:00:00Z",
		"2026-11-31T00:00:00Z",
		"2026-11-00T00:00:00Z",
		"2026-11-23T24:00:00Z",
		"2026-11-23T08:60:00Z",
		"2026-11-23T08:34:61Z",
		"2026-11-23T08:34:59.Z",
		"2026-11-23T08:34:59+01:00",
		"2026-11-23T08:34:59Zx",
		"0000-01-01T00:00:00Z",
		"-026-11-23T08:34:59Z",
	};
	time_t t;

	for (size_t i = 0; i < array_len(good); i++) {
		assert_int_equal(s3_time_parse_iso(good[i].text, &t), 0);
		assert_int_equal(t, good[i].want);
	}
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(s3_time_parse_iso(bad[i], &t), -EINVAL);
}

static void http_dates_agree_with_the_c_library(void **state)
{
	static const char *const bad[] = {
		"",
		"Sun",
		"Sun, 06 Nov 1994 08:49:37",
		"Sun, 06 Nov 1994 08:49:37 UTC",
		"Sun, 6 Nov 1994 08:49:37 GMT",
		"Sunday, 06-Nov-94 08:49:37 GMT",
		"Sun Nov  6 08:49:37 1994",
		"Sun, 06 Noo 1994 08:49:37 GMT",
		"Sun, 31 Nov 1994 08:49:37 GMT",
		"Sun, 06 Nov 1994 25:49:37 GMT",
		"Sun, 06 Nov 1994 08:49:37 GMT ",
		"Xun, 06 Nov 1994 08:49:37 GMT",
		"1784111777",
	};
	time_t t;

	assert_int_equal(s3_time_parse_http("Sun, 06 Nov 1994 08:49:37 GMT", &t), 0);
	assert_int_equal(t, 784111777);
	for (time_t want = 0; want < 4000000000; want += 86399 * 7 + 1) {
		char text[64];
		struct tm tm;

		assert_non_null(gmtime_r(&want, &tm));
		strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &tm);
		assert_int_equal(s3_time_parse_http(text, &t), 0);
		assert_int_equal(t, want);
	}
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(s3_time_parse_http(bad[i], &t), -EINVAL);
}

static void etags_lose_their_quotes_and_keep_to_one_line(void **state)
{
	static const struct {
		const char *text, *want; /* NULL = refused */
	} rows[] = {
		{ "\"abc\"", "abc" }, { "abc", "abc" },           { "W/\"abc\"", "abc" }, { "", "" },
		{ "\"\"", "" },       { "\"abc-12\"", "abc-12" }, { "\"abc", NULL },      { "abc\"", NULL },
		{ "\"", NULL },       { "a\"b", NULL },           { "a b", NULL },        { "a\nb", NULL },
		{ "\x7f", NULL },     { "\xc3\xa9", NULL },
	};
	char out[S3_ETAG_MAX + 1];

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(s3_etag_parse(rows[i].text, strlen(rows[i].text), out), rows[i].want ? 0 : -EBADMSG);
		if (rows[i].want)
			assert_string_equal(out, rows[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(storage_classes_tell_what_is_archived),
		cmocka_unit_test(error_documents_are_read),
		cmocka_unit_test(what_is_no_error_document_is_refused),
		cmocka_unit_test(long_error_texts_are_cut_but_never_an_address),
		cmocka_unit_test(temporary_credentials_are_read),
		cmocka_unit_test(half_credentials_are_refused_and_change_nothing),
		cmocka_unit_test(the_longest_session_token_fits_and_no_longer_one),
		cmocka_unit_test(iso_dates_are_read),
		cmocka_unit_test(http_dates_agree_with_the_c_library),
		cmocka_unit_test(etags_lose_their_quotes_and_keep_to_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
