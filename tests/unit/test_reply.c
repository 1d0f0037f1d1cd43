// SPDX-License-Identifier: Apache-2.0
/* Reply headers as libcurl hands them over, and every row of the verdict table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "s3/reply.h"

static struct s3_reply r;

static int header(const char *line)
{
	return s3_reply_header(&r, line, strlen(line));
}

/* A fresh 200 with one header. */
static int reply_with(const char *line)
{
	assert_int_equal(header("HTTP/1.1 200 OK\r\n"), 0);
	return header(line);
}

static void a_usual_reply_is_read(void **state)
{
	static const char *const lines[] = {
		"HTTP/1.1 206 Partial Content\r\n",
		"Date: Mon, 23 Nov 2026 08:34:59 GMT\r\n",
		"Content-Type: binary/octet-stream\r\n",
		"Content-Length: 10\r\n",
		"CONTENT-RANGE:bytes 0-9/443\r\n",
		"etag: \"fba9dede5f27731c9771645a39863328\"\r\n",
		"Last-Modified: \t Mon, 12 Oct 2009 17:50:30 GMT \t\r\n",
		"x-amz-request-id: 4442587FB7D0A2F9\r\n",
		"x-amz-bucket-region: eu-west-1\r\n",
		"x-amz-storage-class: STANDARD_IA\r\n",
		"x-amz-checksum-crc32c: yZRlqg==\r\n",
		"x-amz-checksum-crc64nvme: rosUhgp5mIg=\r\n",
		"x-amz-checksum-type: FULL_OBJECT\r\n",
		"x-amz-meta-anything: \xff\x01\r\n",
		"\r\n",
	};

	memset(&r, 0xff, sizeof(r));
	for (size_t i = 0; i < array_len(lines); i++)
		assert_int_equal(header(lines[i]), 0);
	assert_int_equal(r.status, 206);
	assert_true(r.has_length && r.has_range && r.has_etag && r.has_mtime);
	assert_int_equal(r.length, 10);
	assert_int_equal(r.range_first, 0);
	assert_int_equal(r.range_last, 9);
	assert_int_equal(r.range_total, 443);
	assert_string_equal(r.etag, "fba9dede5f27731c9771645a39863328");
	assert_int_equal(r.mtime, 1255369830);
	assert_int_equal(r.date, 1795422899);
	assert_string_equal(r.request_id, "4442587FB7D0A2F9");
	assert_string_equal(r.region, "eu-west-1");
	assert_int_equal(r.storage_class, S3_CLASS_OTHER);
	assert_string_equal(r.storage_class_name, "STANDARD_IA");
	assert_string_equal(r.crc32c, "yZRlqg==");
	assert_string_equal(r.crc64nvme, "rosUhgp5mIg=");
	assert_true(r.checksum_full_object);
	assert_false(r.restored);
	assert_int_equal(r.retry_after_s, 0);
}

static void a_new_status_line_starts_over(void **state)
{
	assert_int_equal(reply_with("ETag: \"a\"\r\n"), 0);
	assert_int_equal(header("HTTP/2 404 \r\n"), 0);
	assert_int_equal(r.status, 404);
	assert_false(r.has_etag);
	assert_string_equal(r.etag, "");
	assert_int_equal(header("HTTP/1.0 503\r\n"), 0);
	assert_int_equal(r.status, 503);
	assert_int_equal(header("HTTP/1.1 100 Continue\n"), 0);
	assert_int_equal(r.status, 100);
}

static void a_broken_line_is_not_trusted(void **state)
{
	static const char *const lines[] = {
		"HTTP/1.1\r\n",        "HTTP/1.1 \r\n",       "HTTP/1.1 20\r\n",    "HTTP/1.1 2000 OK\r\n",
		"HTTP/1.1 2x0 OK\r\n", "HTTP/1.1 -20 OK\r\n", "HTTP/1.1 099 x\r\n", "HTTP/\r\n",
		"no colon\r\n",        ": no name\r\n",       " folded: line\r\n",  "\tfolded\r\n",
	};

	for (size_t i = 0; i < array_len(lines); i++)
		assert_int_equal(reply_with(lines[i]), -EBADMSG);
	/* Not terminated: only the length bounds it. */
	assert_int_equal(s3_reply_header(&r, "HTTP/1.1 200", 11), -EBADMSG);
	assert_int_equal(s3_reply_header(&r, "ETag: \"ab\"", 9), -EBADMSG);
	assert_int_equal(s3_reply_header(&r, "HTTP/1.1 200", 12), 0);
}

static void malformed_known_headers_are_not_trusted(void **state)
{
	static const char *const lines[] = {
		"Content-Length:\r\n",
		"Content-Length: -1\r\n",
		"Content-Length: 1 2\r\n",
		"Content-Length: 0x10\r\n",
		"Content-Length: 1.5\r\n",
		"Content-Length: 1,1\r\n",
		"Content-Length: 9223372036854775808\r\n",
		"Content-Length: 99999999999999999999999999\r\n",
		"ETag: \"half\r\n",
		"ETag: \"a\"b\"\r\n",
		"ETag: \"a b\"\r\n",
		"ETag: \"\x01\"\r\n",
		"Last-Modified: now\r\n",
		"Date: 12345\r\n",
		"Retry-After: soon\r\n",
		"Retry-After: -1\r\n",
		"Location: http://h/a b\r\n",
		"x-amz-bucket-region:\r\n",
		"x-amz-bucket-region: evil.example.com/\r\n",
		"x-amz-bucket-region: EU\r\n",
		"x-amz-restore: perhaps\r\n",
		"x-amz-archive-status:\r\n",
		"x-amz-checksum-crc32c: yZRlqg=\r\n",
		"x-amz-checksum-crc32c: yZRl*g==\r\n",
		"x-amz-checksum-crc32c: yZRlqg==-\r\n",
		"x-amz-checksum-crc32c: yZRlqg==-1x\r\n",
		"x-amz-checksum-crc32c: rosUhgp5mIg=\r\n",
		"x-amz-checksum-crc32c: yZRlqg==-12345678901234567890\r\n",
		"x-amz-checksum-crc64nvme: yZRlqg==\r\n",
		"x-amz-checksum-crc64nvme:\r\n",
		"ETag: \"a\x7f\"\r\n",
		"x-amz-request-id: a\rb\r\n",
	};

	for (size_t i = 0; i < array_len(lines); i++)
		assert_int_equal(reply_with(lines[i]), -EBADMSG);
	assert_int_equal(s3_reply_header(&r, "ETag: \"a\0b\"\r\n", 13), -EBADMSG);
}

static void a_value_without_end_is_not_trusted(void **state)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 1 << 20);
	for (const char *const *name = (const char *const[]){ "ETag", "x-amz-request-id", "Location",
							      "x-amz-bucket-region", "Content-Length", NULL };
	     *name; name++) {
		buf_clear(&b);
		buf_addf(&b, "%s: %0100000d\r\n", *name, 0);
		assert_int_equal(reply_with(b.data), -EBADMSG);
	}
	buf_clear(&b);
	buf_addf(&b, "Set-Cookie: %0100000d\r\n", 0);
	assert_int_equal(reply_with(b.data), 0);
}

static void a_header_may_come_twice_only_if_it_says_the_same(void **state)
{
	static const char *const pairs[][2] = {
		{ "Content-Length: 5\r\n", "Content-Length: 6\r\n" },
		{ "ETag: \"a\"\r\n", "ETag: \"b\"\r\n" },
		{ "Content-Range: bytes 0-4/5\r\n", "Content-Range: bytes 0-4/6\r\n" },
	};

	for (size_t i = 0; i < array_len(pairs); i++) {
		assert_int_equal(reply_with(pairs[i][0]), 0);
		assert_int_equal(header(pairs[i][0]), 0);
		assert_int_equal(header(pairs[i][1]), -EBADMSG);
	}
}

static void content_ranges_are_read_or_refused(void **state)
{
	static const struct {
		const char *value;
		int rc;
		bool has;
		uint64_t first, last, total;
	} rows[] = {
		{ "bytes 0-0/1", 0, true, 0, 0, 1 },
		{ "BYTES 5-9/10", 0, true, 5, 9, 10 },
		{ "bytes 8388608-16777215/536870912", 0, true, 8388608, 16777215, 536870912 },
		{ "bytes 3-7/*", 0, true, 3, 7, UINT64_MAX },
		{ "bytes */1234", 0, false, 0, 0, 0 },
		{ "bytes */*", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-9", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-9/9", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 9-0/10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes -5/10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 5-/10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-9/", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-9/10/11", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-9/-10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes  0-9/10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes=0-9/10", -EBADMSG, false, 0, 0, 0 },
		{ "items 0-9/10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-1-9/10", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-9/9223372036854775808", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 0-18446744073709551615/*", -EBADMSG, false, 0, 0, 0 },
		{ "bytes 00000000000000000000000000000000000000000000000000000000000000000000000000000000-9/10",
		  -EBADMSG, false, 0, 0, 0 },
		{ "", -EBADMSG, false, 0, 0, 0 },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		_cleanup_buf_ struct buf b;

		buf_init(&b, 1024);
		buf_addf(&b, "Content-Range: %s\r\n", rows[i].value);
		assert_int_equal(reply_with(b.data), rows[i].rc);
		assert_int_equal(r.has_range, rows[i].has);
		if (!rows[i].has)
			continue;
		assert_int_equal(r.range_first, rows[i].first);
		assert_int_equal(r.range_last, rows[i].last);
		assert_true(r.range_total == rows[i].total);
	}
}

static void a_restored_copy_is_recognised(void **state)
{
	assert_int_equal(
		reply_with(
			"x-amz-restore: ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"\r\n"),
		0);
	assert_true(r.restored);
	assert_int_equal(reply_with("x-amz-restore: ongoing-request=\"true\"\r\n"), 0);
	assert_false(r.restored);
}

static void an_archive_status_outranks_the_storage_class(void **state)
{
	assert_int_equal(reply_with("x-amz-archive-status: ARCHIVE_ACCESS\r\n"), 0);
	assert_int_equal(header("x-amz-storage-class: INTELLIGENT_TIERING\r\n"), 0);
	assert_int_equal(r.storage_class, S3_CLASS_INTELLIGENT_ARCHIVE);
	assert_int_equal(reply_with("x-amz-storage-class: INTELLIGENT_TIERING\r\n"), 0);
	assert_int_equal(r.storage_class, S3_CLASS_OTHER);
	assert_int_equal(header("x-amz-archive-status: DEEP_ARCHIVE_ACCESS\r\n"), 0);
	assert_int_equal(r.storage_class, S3_CLASS_INTELLIGENT_ARCHIVE);
	assert_string_equal(r.storage_class_name, "INTELLIGENT_TIERING");
}

static void retry_after_is_seconds_or_a_date_and_capped(void **state)
{
	assert_int_equal(reply_with("Retry-After: 7\r\n"), 0);
	assert_int_equal(r.retry_after_s, 7);
	assert_int_equal(reply_with("Retry-After: 86400\r\n"), 0);
	assert_int_equal(r.retry_after_s, 60);
	assert_int_equal(reply_with("Retry-After: 99999999999999999999999\r\n"), 0);
	assert_int_equal(r.retry_after_s, 60);
	assert_int_equal(reply_with("Date: Mon, 23 Nov 2026 08:34:59 GMT\r\n"), 0);
	assert_int_equal(header("Retry-After: Mon, 23 Nov 2026 08:35:09 GMT\r\n"), 0);
	assert_int_equal(r.retry_after_s, 10);
	assert_int_equal(header("Retry-After: Mon, 23 Nov 2026 08:00:00 GMT\r\n"), 0);
	assert_int_equal(r.retry_after_s, 0);
	assert_int_equal(reply_with("Retry-After: Mon, 23 Nov 2026 08:35:09 GMT\r\n"), 0);
	assert_int_equal(r.retry_after_s, 60);
}

static void a_checksum_of_checksums_is_kept_as_sent(void **state)
{
	assert_int_equal(reply_with("x-amz-checksum-crc32c: yZRlqg==-3\r\n"), 0);
	assert_string_equal(r.crc32c, "yZRlqg==-3");
	assert_int_equal(header("x-amz-checksum-type: COMPOSITE\r\n"), 0);
	assert_false(r.checksum_full_object);
}

static void a_request_id_for_the_log_is_cut_and_clean(void **state)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 1024);
	buf_addf(&b, "x-amz-request-id: a\tb%0500d\r\n", 0);
	assert_int_equal(reply_with(b.data), 0);
	assert_int_equal(strlen(r.request_id), sizeof(r.request_id) - 1);
	assert_memory_equal(r.request_id, "a?b000", 6);
}

struct row {
	int status;
	const char *code; /* NULL = no body */
	int error;
	enum s3_verdict verdict;
};

static struct s3_outcome outcome(int status, const char *code, bool is_head)
{
	struct s3_error_body body = { 0 };
	struct s3_reply reply = { .status = status };

	if (code)
		strcpy(body.code, code);
	return s3_outcome_of(&reply, code ? &body : NULL, is_head);
}

static void check(const struct row *rows, size_t nr, bool is_head)
{
	for (size_t i = 0; i < nr; i++) {
		struct s3_outcome o = outcome(rows[i].status, rows[i].code, is_head);

		assert_int_equal(o.error, rows[i].error);
		assert_int_equal(o.verdict, rows[i].verdict);
		assert_true(o.what && strlen(o.what) > 5);
	}
}

static void missing_things_are_enoent(void **state)
{
	static const struct row rows[] = {
		{ 404, "NoSuchKey", -ENOENT, S3_FAIL },
		{ 404, "NoSuchVersion", -ENOENT, S3_FAIL },
		{ 404, "NoSuchBucket", -ENOENT, S3_FAIL },
	};

	check(rows, array_len(rows), false);
	check(rows, array_len(rows), true);
}

static void a_404_that_is_not_s3s_deletes_no_file(void **state)
{
	static const struct row rows[] = {
		{ 404, NULL, -EIO, S3_RETRY },
		{ 404, "", -EIO, S3_RETRY },
		{ 404, "SomethingElse", -EIO, S3_RETRY },
		{ 404, "InternalError", -EIO, S3_RETRY },
	};

	check(rows, array_len(rows), false);
	assert_int_equal(outcome(404, NULL, true).error, -ENOENT);
	assert_int_equal(outcome(404, NULL, true).verdict, S3_FAIL);
}

static void forbidden_things_are_eacces(void **state)
{
	static const struct row rows[] = {
		{ 403, "AccessDenied", -EACCES, S3_FAIL },
		{ 403, "SignatureDoesNotMatch", -EACCES, S3_FAIL },
		{ 403, "AllAccessDisabled", -EACCES, S3_FAIL },
		{ 403, NULL, -EACCES, S3_FAIL },
	};

	check(rows, array_len(rows), false);
	check(rows, array_len(rows), true);
}

static void refused_credentials_are_renewed_once(void **state)
{
	static const struct row rows[] = {
		{ 404, "XAdminUserNotFound", -EACCES, S3_RETRY_CREDS },
		{ 403, "InvalidAccessKeyId", -EACCES, S3_RETRY_CREDS },
		{ 400, "ExpiredToken", -EACCES, S3_RETRY_CREDS },
		{ 400, "ExpiredTokenException", -EACCES, S3_RETRY_CREDS },
		{ 400, "TokenRefreshRequired", -EACCES, S3_RETRY_CREDS },
		{ 400, "InvalidToken", -EACCES, S3_RETRY_CREDS },
		{ 403, "InvalidToken", -EACCES, S3_RETRY_CREDS },
		{ 401, NULL, -EACCES, S3_RETRY_CREDS },
		{ 401, "AccessDenied", -EACCES, S3_RETRY_CREDS },
	};

	check(rows, array_len(rows), false);
	/* A HEAD has no body: an expired token is a bare 400. */
	assert_int_equal(outcome(400, NULL, true).verdict, S3_RETRY_CREDS);
	assert_int_equal(outcome(400, NULL, true).error, -EACCES);
}

static void a_wrong_clock_is_corrected(void **state)
{
	static const struct row rows[] = { { 403, "RequestTimeTooSkewed", -EACCES, S3_RETRY_CLOCK } };

	check(rows, array_len(rows), false);
}

static void a_wrong_region_is_followed(void **state)
{
	static const struct row rows[] = {
		{ 400, "AuthorizationHeaderMalformed", -EACCES, S3_RETRY_REGION },
		{ 400, "IllegalLocationConstraintException", -EACCES, S3_RETRY_REGION },
		{ 301, "PermanentRedirect", -EIO, S3_RETRY_REGION },
		{ 307, "TemporaryRedirect", -EIO, S3_RETRY_REGION },
		{ 307, "Redirect", -EIO, S3_RETRY_REGION },
	};

	check(rows, array_len(rows), false);
}

static void a_redirect_without_a_body_needs_a_place_to_go(void **state)
{
	struct s3_reply region = { .status = 301, .region = "eu-west-1" };
	struct s3_reply location = { .status = 307, .location = "https://b.s3.eu-west-1.amazonaws.com/" };
	struct s3_reply head = { .status = 400, .region = "eu-west-1" };
	struct s3_reply found = { .status = 302, .location = "https://login.example.com/" };

	assert_int_equal(s3_outcome_of(&region, NULL, true).verdict, S3_RETRY_REGION);
	assert_int_equal(s3_outcome_of(&location, NULL, false).verdict, S3_RETRY_REGION);
	assert_int_equal(s3_outcome_of(&head, NULL, true).verdict, S3_RETRY_REGION);
	assert_int_equal(s3_outcome_of(&head, NULL, false).verdict, S3_FAIL);
	assert_int_equal(s3_outcome_of(&found, NULL, false).verdict, S3_RETRY);
	assert_int_equal(s3_outcome_of(&found, NULL, false).error, -EIO);
	assert_int_equal(outcome(301, NULL, false).verdict, S3_RETRY);
	assert_int_equal(outcome(301, NULL, false).error, -EIO);
}

static void a_changed_object_is_estale(void **state)
{
	static const struct row rows[] = {
		{ 412, "PreconditionFailed", -ESTALE, S3_FAIL },
		{ 412, NULL, -ESTALE, S3_FAIL },
		{ 416, "InvalidRange", -ESTALE, S3_FAIL },
		{ 416, NULL, -ESTALE, S3_FAIL },
	};

	check(rows, array_len(rows), false);
	check(rows, array_len(rows), true);
}

static void an_archived_object_says_so(void **state)
{
	static const struct {
		enum s3_storage_class c;
		const char *what;
	} rows[] = {
		{ S3_CLASS_STANDARD, "archived: restore it first" },
		{ S3_CLASS_GLACIER, "archived (GLACIER): restore it first" },
		{ S3_CLASS_DEEP_ARCHIVE, "archived (DEEP_ARCHIVE): restore it first" },
		{ S3_CLASS_INTELLIGENT_ARCHIVE, "archived (INTELLIGENT_TIERING): restore it first" },
	};
	struct s3_error_body body = { .code = "InvalidObjectState" };

	for (size_t i = 0; i < array_len(rows); i++) {
		struct s3_reply reply = { .status = 403, .storage_class = rows[i].c };
		struct s3_outcome o = s3_outcome_of(&reply, &body, false);

		assert_int_equal(o.error, -EIO);
		assert_int_equal(o.verdict, S3_FAIL);
		assert_string_equal(o.what, rows[i].what);
	}
}

static void an_overloaded_server_is_spared(void **state)
{
	static const struct row rows[] = {
		{ 503, "SlowDown", -EIO, S3_RETRY_SLOWER },
		{ 503, "ServiceUnavailable", -EIO, S3_RETRY_SLOWER },
		{ 503, NULL, -EIO, S3_RETRY_SLOWER },
		{ 500, "InternalError", -EIO, S3_RETRY_SLOWER },
		{ 500, NULL, -EIO, S3_RETRY_SLOWER },
		{ 429, "TooManyRequests", -EIO, S3_RETRY_SLOWER },
		{ 429, NULL, -EIO, S3_RETRY_SLOWER },
		{ 400, "SlowDown", -EIO, S3_RETRY_SLOWER },
		{ 400, "Throttling", -EIO, S3_RETRY_SLOWER },
		{ 400, "ThrottlingException", -EIO, S3_RETRY_SLOWER },
		{ 403, "RequestLimitExceeded", -EIO, S3_RETRY_SLOWER },
		{ 400, "BandwidthLimitExceeded", -EIO, S3_RETRY_SLOWER },
	};

	check(rows, array_len(rows), false);
}

static void passing_faults_are_retried(void **state)
{
	static const struct row rows[] = {
		{ 400, "RequestTimeout", -EIO, S3_RETRY },
		{ 408, NULL, -EIO, S3_RETRY },
		{ 409, "OperationAborted", -EIO, S3_RETRY },
		{ 425, NULL, -EIO, S3_RETRY },
		{ 501, "NotImplemented", -EIO, S3_RETRY },
		{ 502, NULL, -EIO, S3_RETRY },
		{ 504, NULL, -EIO, S3_RETRY },
		{ 520, NULL, -EIO, S3_RETRY },
		{ 599, NULL, -EIO, S3_RETRY },
	};

	check(rows, array_len(rows), false);
	check(rows + 5, array_len(rows) - 5, true);
}

static void a_reply_that_should_not_be_is_retried(void **state)
{
	static const struct row rows[] = {
		{ 0, NULL, -EIO, S3_RETRY },   { 100, NULL, -EIO, S3_RETRY },        { 200, NULL, -EIO, S3_RETRY },
		{ 204, NULL, -EIO, S3_RETRY }, { 200, "NoSuchKey", -EIO, S3_RETRY }, { 302, NULL, -EIO, S3_RETRY },
		{ 304, NULL, -EIO, S3_RETRY }, { 999, NULL, -EIO, S3_RETRY },
	};

	check(rows, array_len(rows), false);
	check(rows, array_len(rows), true);
}

static void other_refusals_are_final(void **state)
{
	static const struct row rows[] = {
		{ 400, "InvalidArgument", -EIO, S3_FAIL },
		{ 400, NULL, -EIO, S3_FAIL },
		{ 405, "MethodNotAllowed", -EIO, S3_FAIL },
		{ 400, "KeyTooLongError", -ENAMETOOLONG, S3_FAIL },
		{ 418, NULL, -EIO, S3_FAIL },
	};

	check(rows, array_len(rows), false);
}

static void nothing_but_a_404_is_ever_enoent(void **state)
{
	static const char *const codes[] = { NULL, "", "NoSuchKey", "NoSuchBucket", "NoSuchVersion" };

	for (int status = 0; status < 700; status++)
		for (size_t i = 0; status != 404 && i < array_len(codes); i++) {
			assert_int_not_equal(outcome(status, codes[i], false).error, -ENOENT);
			assert_int_not_equal(outcome(status, codes[i], true).error, -ENOENT);
		}
}

static void a_server_fault_is_always_retried(void **state)
{
	static const char *const codes[] = { NULL, "NoSuchKey", "AccessDenied", "ExpiredToken", "InvalidObjectState" };

	for (int status = 500; status < 600; status++)
		for (size_t i = 0; i < array_len(codes); i++) {
			struct s3_outcome o = outcome(status, codes[i], false);

			assert_int_equal(o.error, -EIO);
			assert_true(o.verdict == S3_RETRY || o.verdict == S3_RETRY_SLOWER);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_usual_reply_is_read),
		cmocka_unit_test(a_new_status_line_starts_over),
		cmocka_unit_test(a_broken_line_is_not_trusted),
		cmocka_unit_test(malformed_known_headers_are_not_trusted),
		cmocka_unit_test(a_value_without_end_is_not_trusted),
		cmocka_unit_test(a_header_may_come_twice_only_if_it_says_the_same),
		cmocka_unit_test(content_ranges_are_read_or_refused),
		cmocka_unit_test(a_restored_copy_is_recognised),
		cmocka_unit_test(an_archive_status_outranks_the_storage_class),
		cmocka_unit_test(retry_after_is_seconds_or_a_date_and_capped),
		cmocka_unit_test(a_checksum_of_checksums_is_kept_as_sent),
		cmocka_unit_test(a_request_id_for_the_log_is_cut_and_clean),
		cmocka_unit_test(missing_things_are_enoent),
		cmocka_unit_test(a_404_that_is_not_s3s_deletes_no_file),
		cmocka_unit_test(forbidden_things_are_eacces),
		cmocka_unit_test(refused_credentials_are_renewed_once),
		cmocka_unit_test(a_wrong_clock_is_corrected),
		cmocka_unit_test(a_wrong_region_is_followed),
		cmocka_unit_test(a_redirect_without_a_body_needs_a_place_to_go),
		cmocka_unit_test(a_changed_object_is_estale),
		cmocka_unit_test(an_archived_object_says_so),
		cmocka_unit_test(an_overloaded_server_is_spared),
		cmocka_unit_test(passing_faults_are_retried),
		cmocka_unit_test(a_reply_that_should_not_be_is_retried),
		cmocka_unit_test(other_refusals_are_final),
		cmocka_unit_test(nothing_but_a_404_is_ever_enoent),
		cmocka_unit_test(a_server_fault_is_always_retried),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
