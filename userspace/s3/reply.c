// SPDX-License-Identifier: Apache-2.0
/*
 * Reply headers, and the table from HTTP status and S3 code to errno and what to do next.
 *
 * Design: a known header that is malformed, folded, or repeated with another value makes the whole reply untrusted:
 * lengths, ranges and ETags decide which bytes a reader gets.
 */
#include "s3/reply.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/size.h"

#define VALUE_MAX 1024
#define RETRY_AFTER_MAX_S 60
#define CRC32C_CHARS 8 /* base64 of 4 bytes, and of 8 below */
#define CRC64_CHARS 12

void s3_reply_reset(struct s3_reply *r)
{
	*r = (struct s3_reply){ 0 };
}

static int header_length(struct s3_reply *r, const char *v)
{
	uint64_t n;

	if (number_parse(v, 0, INT64_MAX, &n) < 0 || (r->has_length && n != r->length))
		return -EBADMSG;
	r->length = n;
	r->has_length = true;
	return 0;
}

/* "0-9/100", "0-9/" followed by a star when the total is unknown, or star "/100" beside a 416. */
static int header_range(struct s3_reply *r, const char *v)
{
	char text[80], *slash, *dash;
	uint64_t first, last, total = UINT64_MAX;

	if (strncasecmp(v, "bytes ", 6) || strlen(v) >= sizeof(text))
		return -EBADMSG;
	memcpy(text, v, strlen(v) + 1);
	slash = strchr(text, '/');
	if (!slash)
		return -EBADMSG;
	*slash++ = '\0';
	if (strcmp(slash, "*") && number_parse(slash, 0, INT64_MAX, &total) < 0)
		return -EBADMSG;
	if (!strcmp(text + 6, "*"))
		return total == UINT64_MAX || r->has_range ? -EBADMSG : 0;
	dash = strchr(text + 6, '-');
	if (!dash)
		return -EBADMSG;
	*dash++ = '\0';
	if (number_parse(text + 6, 0, INT64_MAX, &first) < 0 || number_parse(dash, 0, INT64_MAX, &last) < 0)
		return -EBADMSG;
	if (first > last || last >= total)
		return -EBADMSG;
	if (r->has_range && (first != r->range_first || last != r->range_last || total != r->range_total))
		return -EBADMSG;
	r->range_first = first;
	r->range_last = last;
	r->range_total = total;
	r->has_range = true;
	return 0;
}

static int header_etag(struct s3_reply *r, const char *v)
{
	char etag[S3_ETAG_MAX + 1];

	if (s3_etag_parse(v, strlen(v), etag) < 0 || (r->has_etag && strcmp(etag, r->etag)))
		return -EBADMSG;
	memcpy(r->etag, etag, sizeof(etag));
	r->has_etag = etag[0] != '\0';
	return 0;
}

static int header_mtime(struct s3_reply *r, const char *v)
{
	r->has_mtime = s3_time_parse_http(v, &r->mtime) == 0;
	return r->has_mtime ? 0 : -EBADMSG;
}

static int header_date(struct s3_reply *r, const char *v)
{
	return s3_time_parse_http(v, &r->date) < 0 ? -EBADMSG : 0;
}

static int header_storage_class(struct s3_reply *r, const char *v)
{
	s3_text_copy(r->storage_class_name, sizeof(r->storage_class_name), v, strlen(v));
	if (r->storage_class != S3_CLASS_INTELLIGENT_ARCHIVE)
		r->storage_class = s3_storage_class_parse(v);
	return 0;
}

static int header_archive_status(struct s3_reply *r, const char *v)
{
	r->storage_class = S3_CLASS_INTELLIGENT_ARCHIVE;
	return *v ? 0 : -EBADMSG;
}

static int header_restore(struct s3_reply *r, const char *v)
{
	r->restored = strstr(v, "ongoing-request=\"false\"") != NULL;
	return r->restored || strstr(v, "ongoing-request=\"true\"") ? 0 : -EBADMSG;
}

static int header_request_id(struct s3_reply *r, const char *v)
{
	s3_text_copy(r->request_id, sizeof(r->request_id), v, strlen(v));
	return 0;
}

/* Becomes part of a host name and of a signature's scope. */
static int header_region(struct s3_reply *r, const char *v)
{
	size_t len = strlen(v);

	if (!len || len >= sizeof(r->region) || strspn(v, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
		return -EBADMSG;
	memcpy(r->region, v, len + 1);
	return 0;
}

static int header_location(struct s3_reply *r, const char *v)
{
	size_t len = strlen(v);

	if (len >= sizeof(r->location) || strchr(v, ' '))
		return -EBADMSG;
	memcpy(r->location, v, len + 1);
	return 0;
}

static int header_retry_after(struct s3_reply *r, const char *v)
{
	uint64_t seconds;
	time_t when;
	int rc = number_parse(v, 0, UINT64_MAX, &seconds);

	if (rc == -EINVAL) {
		if (s3_time_parse_http(v, &when) < 0)
			return -EBADMSG;
		seconds = !r->date ? RETRY_AFTER_MAX_S : when > r->date ? (uint64_t)(when - r->date) : 0;
	}
	r->retry_after_s = rc == -ERANGE ? RETRY_AFTER_MAX_S : (unsigned)min_of(seconds, (uint64_t)RETRY_AFTER_MAX_S);
	return 0;
}

/* Base64 of a fixed length, with "-PARTS" behind it when it is a checksum of checksums. */
static int checksum_copy(char *dst, size_t room, size_t chars, const char *v)
{
	size_t digits = strspn(v, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
	size_t pad = strspn(v + digits, "=");
	const char *parts = v + digits + pad;

	if (digits + pad != chars || pad > 2 || strlen(v) >= room)
		return -EBADMSG;
	if (*parts && (parts[0] != '-' || !parts[1] || parts[1 + strspn(parts + 1, "0123456789")]))
		return -EBADMSG;
	memcpy(dst, v, strlen(v) + 1);
	return 0;
}

static int header_crc32c(struct s3_reply *r, const char *v)
{
	return checksum_copy(r->crc32c, sizeof(r->crc32c), CRC32C_CHARS, v);
}

static int header_crc64nvme(struct s3_reply *r, const char *v)
{
	return checksum_copy(r->crc64nvme, sizeof(r->crc64nvme), CRC64_CHARS, v);
}

static int header_checksum_type(struct s3_reply *r, const char *v)
{
	r->checksum_full_object = !strcmp(v, "FULL_OBJECT");
	return 0;
}

static const struct {
	const char *name;
	int (*parse)(struct s3_reply *r, const char *value);
} headers[] = {
	{ "content-length", header_length },
	{ "content-range", header_range },
	{ "date", header_date },
	{ "etag", header_etag },
	{ "last-modified", header_mtime },
	{ "location", header_location },
	{ "retry-after", header_retry_after },
	{ "x-amz-archive-status", header_archive_status },
	{ "x-amz-bucket-region", header_region },
	{ "x-amz-checksum-crc32c", header_crc32c },
	{ "x-amz-checksum-crc64nvme", header_crc64nvme },
	{ "x-amz-checksum-type", header_checksum_type },
	{ "x-amz-request-id", header_request_id },
	{ "x-amz-restore", header_restore },
	{ "x-amz-storage-class", header_storage_class },
};

/* "HTTP/1.1 200 OK", "HTTP/2 200" */
static int status_parse(struct s3_reply *r, const char *line, size_t len)
{
	size_t at = 5;
	int status = 0;

	s3_reply_reset(r);
	while (at < len && line[at] != ' ')
		at++;
	for (size_t i = at + 1; i < at + 4; i++) {
		if (i >= len || line[i] < '0' || line[i] > '9')
			return -EBADMSG;
		status = status * 10 + (line[i] - '0');
	}
	if (status < 100 || (at + 4 < len && line[at + 4] != ' '))
		return -EBADMSG;
	r->status = status;
	return 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* A value that fits, without the blanks around it and without a byte that no header may hold. */
static int value_copy(char dst[VALUE_MAX], const char *v, size_t len)
{
	while (len && is_blank(*v)) {
		v++;
		len--;
	}
	while (len && is_blank(v[len - 1]))
		len--;
	if (len >= VALUE_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)v[i] < 0x20 && v[i] != '\t') || v[i] == 0x7f)
			return -EBADMSG;
	memcpy(dst, v, len);
	dst[len] = '\0';
	return 0;
}

int s3_reply_header(struct s3_reply *r, const char *line, size_t len)
{
	char value[VALUE_MAX];
	const char *colon;
	size_t name_len;

	while (len && (line[len - 1] == '\r' || line[len - 1] == '\n'))
		len--;
	if (!len)
		return 0;
	if (len >= 5 && !memcmp(line, "HTTP/", 5))
		return status_parse(r, line, len);
	colon = memchr(line, ':', len);
	if (!colon || colon == line || is_blank(line[0]))
		return -EBADMSG;
	name_len = (size_t)(colon - line);
	for (size_t i = 0; i < array_len(headers); i++) {
		if (strlen(headers[i].name) != name_len || strncasecmp(headers[i].name, line, name_len))
			continue;
		if (value_copy(value, colon + 1, len - name_len - 1) < 0)
			return -EBADMSG;
		return headers[i].parse(r, value);
	}
	return 0;
}

#define ANY NULL   /* whatever the body is */
#define NO_CODE "" /* no body, or not S3's */
#define ARCHIVED "archived: restore it first"

/* First match wins. Statuses bound what a code may claim: only a 404 makes a file go away, and no 5xx ever does. */
static const struct {
	int low, high;
	const char *code;
	struct s3_outcome outcome;
} outcomes[] = {
	{ 404, 404, "NoSuchKey", { -ENOENT, S3_FAIL, "no such key" } },
	{ 404, 404, "NoSuchVersion", { -ENOENT, S3_FAIL, "no such version" } },
	{ 404, 404, "NoSuchBucket", { -ENOENT, S3_FAIL, "no such bucket" } },
	{ 400, 404, "XAdminUserNotFound", { -EACCES, S3_RETRY_CREDS, "unknown access key" } },
	{ 400, 403, "InvalidAccessKeyId", { -EACCES, S3_RETRY_CREDS, "unknown access key" } },
	{ 400, 403, "ExpiredToken", { -EACCES, S3_RETRY_CREDS, "expired credentials" } },
	{ 400, 403, "ExpiredTokenException", { -EACCES, S3_RETRY_CREDS, "expired credentials" } },
	{ 400, 403, "TokenRefreshRequired", { -EACCES, S3_RETRY_CREDS, "expired credentials" } },
	{ 400, 403, "InvalidToken", { -EACCES, S3_RETRY_CREDS, "unknown session token" } },
	{ 400, 403, "RequestTimeTooSkewed", { -EACCES, S3_RETRY_CLOCK, "the clock differs from the server's" } },
	{ 400, 403, "AuthorizationHeaderMalformed", { -EACCES, S3_RETRY_REGION, "signed for the wrong region" } },
	{ 400, 403, "IllegalLocationConstraintException", { -EACCES, S3_RETRY_REGION, "the wrong region" } },
	{ 301, 308, "PermanentRedirect", { -EIO, S3_RETRY_REGION, "the bucket is in another region" } },
	{ 301, 308, "TemporaryRedirect", { -EIO, S3_RETRY_REGION, "the bucket is moving to another region" } },
	{ 301, 308, "Redirect", { -EIO, S3_RETRY_REGION, "the bucket is in another region" } },
	{ 403, 403, "SignatureDoesNotMatch", { -EACCES, S3_FAIL, "wrong secret key (signature refused)" } },
	{ 403, 403, "InvalidObjectState", { -EIO, S3_FAIL, ARCHIVED } },
	{ 400, 403, "RequestTimeout", { -EIO, S3_RETRY, "the server timed out" } },
	{ 400, 503, "SlowDown", { -EIO, S3_RETRY_SLOWER, "asked to slow down" } },
	{ 400, 403, "Throttling", { -EIO, S3_RETRY_SLOWER, "asked to slow down" } },
	{ 400, 403, "ThrottlingException", { -EIO, S3_RETRY_SLOWER, "asked to slow down" } },
	{ 400, 403, "RequestLimitExceeded", { -EIO, S3_RETRY_SLOWER, "asked to slow down" } },
	{ 400, 403, "BandwidthLimitExceeded", { -EIO, S3_RETRY_SLOWER, "asked to slow down" } },
	{ 400, 400, "KeyTooLongError", { -ENAMETOOLONG, S3_FAIL, "key too long" } },
	{ 401, 401, ANY, { -EACCES, S3_RETRY_CREDS, "not authenticated" } },
	{ 403, 403, ANY, { -EACCES, S3_FAIL, "access denied" } },
	{ 404, 404, ANY, { -EIO, S3_RETRY, "a 404 that is not S3's" } },
	{ 408, 408, ANY, { -EIO, S3_RETRY, "the server timed out" } },
	{ 409, 409, ANY, { -EIO, S3_RETRY, "a conflicting operation is running" } },
	{ 412, 412, ANY, { -ESTALE, S3_FAIL, "the object changed" } },
	{ 416, 416, ANY, { -ESTALE, S3_FAIL, "the object shrank" } },
	{ 425, 425, ANY, { -EIO, S3_RETRY, "too early" } },
	{ 429, 429, ANY, { -EIO, S3_RETRY_SLOWER, "asked to slow down" } },
	{ 500, 500, ANY, { -EIO, S3_RETRY_SLOWER, "internal error of the server" } },
	{ 503, 503, ANY, { -EIO, S3_RETRY_SLOWER, "the server is overloaded" } },
	{ 501, 599, ANY, { -EIO, S3_RETRY, "the server or a proxy failed" } },
	{ 400, 499, ANY, { -EIO, S3_FAIL, "the request was refused" } },
	{ 0, 399, ANY, { -EIO, S3_RETRY, "an unexpected reply" } },
};

/* A HEAD error has no body, so the status and the headers are all there is to tell. */
static bool outcome_of_head(const struct s3_reply *r, struct s3_outcome *ret)
{
	if (r->status == 404)
		*ret = (struct s3_outcome){ -ENOENT, S3_FAIL, "no such key" };
	else if (r->status == 400 && r->region[0])
		*ret = (struct s3_outcome){ -EACCES, S3_RETRY_REGION, "signed for the wrong region" };
	else if (r->status == 400)
		*ret = (struct s3_outcome){ -EACCES, S3_RETRY_CREDS, "the request was refused" };
	else
		return false;
	return true;
}

static const char *archived_text(enum s3_storage_class c)
{
	switch (c) {
	case S3_CLASS_GLACIER:
		return "archived (GLACIER): restore it first";
	case S3_CLASS_DEEP_ARCHIVE:
		return "archived (DEEP_ARCHIVE): restore it first";
	case S3_CLASS_INTELLIGENT_ARCHIVE:
		return "archived (INTELLIGENT_TIERING): restore it first";
	default:
		return ARCHIVED;
	}
}

struct s3_outcome s3_outcome_of(const struct s3_reply *r, const struct s3_error_body *body, bool is_head)
{
	const char *code = body ? body->code : NO_CODE;
	struct s3_outcome out = { -EIO, S3_RETRY, "an unexpected reply" };

	if (is_head && !*code && outcome_of_head(r, &out))
		return out;
	/* A redirect that says where to: HEAD and old servers send no body with it. */
	if ((r->status == 301 || r->status == 307) && !*code && (r->region[0] || r->location[0]))
		return (struct s3_outcome){ -EIO, S3_RETRY_REGION, "the bucket is in another region" };
	for (size_t i = 0; i < array_len(outcomes); i++) {
		if (r->status < outcomes[i].low || r->status > outcomes[i].high)
			continue;
		if (outcomes[i].code && strcmp(outcomes[i].code, code))
			continue;
		out = outcomes[i].outcome;
		break;
	}
	if (!strcmp(out.what, ARCHIVED))
		out.what = archived_text(r->storage_class);
	return out;
}
