// SPDX-License-Identifier: Apache-2.0
/* GetObject and HeadObject: conditions, ranges, headers. */
#define _GNU_SOURCE

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cleanup.h"
#include "request.h"

/* A list of ETags with or without quotes, or "*". */
static bool etag_listed(const char *list, const struct object *o)
{
	char etag[OBJECT_ETAG_MAX];
	size_t len;

	object_etag(o, etag);
	len = strlen(etag) - 2; /* without the quotes */
	for (list += strspn(list, " ,"); *list; list += strspn(list, " ,")) {
		size_t n;

		if (*list == '*')
			return true;
		list += strncmp(list, "W/", 2) ? 0 : 2;
		list += *list == '"';
		n = strcspn(list, "\", ");
		if (n == len && !strncmp(list, etag + 1, len))
			return true;
		list += n + (list[n] == '"');
	}
	return false;
}

static bool http_date(const char *text, int64_t *ret)
{
	struct tm tm = { 0 };

	if (!text || !strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
		return false;
	*ret = timegm(&tm);
	return true;
}

/* 0 = go on, 304 or 412. */
static int conditions_check(const struct request *rq, const struct object *o)
{
	const char *match = request_header(rq, "If-Match"), *none = request_header(rq, "If-None-Match");
	int64_t t;

	if (rq->fault.kind == FAULT_IGNORE_IF_MATCH)
		return 0;
	if (match && !etag_listed(match, o))
		return 412;
	if (!match && http_date(request_header(rq, "If-Unmodified-Since"), &t) && o->mtime_s > t)
		return 412;
	if (none && etag_listed(none, o))
		return 304;
	if (!none && http_date(request_header(rq, "If-Modified-Since"), &t) && o->mtime_s <= t)
		return 304;
	return 0;
}

enum range { RANGE_NONE, RANGE_OK, RANGE_BAD };

static enum range range_parse(const char *text, uint64_t size, uint64_t *ret_first, uint64_t *ret_length)
{
	uint64_t first, last = size - 1;
	char *end;

	*ret_first = 0;
	*ret_length = size;
	if (!text || strncmp(text, "bytes=", 6) || strchr(text, ','))
		return RANGE_NONE;
	text += 6;
	if (*text == '-') {
		uint64_t tail = strtoull(text + 1, &end, 10);

		if (end == text + 1 || *end)
			return RANGE_NONE;
		if (!tail || !size)
			return RANGE_BAD;
		first = size - min_of(tail, size);
	} else {
		first = strtoull(text, &end, 10);
		if (end == text || *end != '-')
			return RANGE_NONE;
		if (end[1]) {
			const char *digits = end + 1;

			last = strtoull(digits, &end, 10);
			if (end == digits || *end || last < first)
				return RANGE_NONE;
		}
		if (first >= size)
			return RANGE_BAD;
		last = min_of(last, size - 1);
	}
	*ret_first = first;
	*ret_length = last - first + 1;
	return RANGE_OK;
}

static void add_attrs(struct request *rq, const struct attrs *a, bool whole)
{
	const char *mode = request_header(rq, "x-amz-checksum-mode");
	char name[64];

	for (unsigned i = 0; i < a->nr_headers; i++)
		reply_header(rq, a->headers[i].name, "%s", a->headers[i].value);
	if (a->storage_class[0] && strcmp(a->storage_class, "STANDARD"))
		reply_header(rq, "x-amz-storage-class", "%s", a->storage_class);
	if (a->restored)
		reply_header(rq, "x-amz-restore",
			     "ongoing-request=\"false\", expiry-date=\"Fri, 01 Jan 2100 00:00:00 GMT\"");
	if (whole && a->checksum_kind && mode && !strcasecmp(mode, "ENABLED")) {
		snprintf(name, sizeof(name), "x-amz-checksum-%s", digest_kind_name(a->checksum_kind));
		reply_header(rq, name, "%s", a->checksum);
		reply_header(rq, "x-amz-checksum-type", a->checksum_composite ? "COMPOSITE" : "FULL_OBJECT");
	}
}

static void add_headers(struct request *rq, const struct object *o, bool whole)
{
	char etag[OBJECT_ETAG_MAX], date[32];

	object_etag(o, etag);
	time_http(o->mtime_s, date);
	reply_header(rq, "Content-Type", "binary/octet-stream");
	if (rq->fault.kind != FAULT_NO_ETAG)
		reply_header(rq, "ETag", "%s", etag);
	reply_header(rq, "Last-Modified", "%s", date);
	reply_header(rq, "Accept-Ranges", "bytes");
	if (!o->nr_segments && o->size)
		reply_header(rq, "x-s3d-seed", "%016llx", (unsigned long long)o->seed);
	if (o->attrs)
		add_attrs(rq, o->attrs, whole);
}

/* Moves the range by <delta>, or by its own length, wrapping at the end of the object. */
static uint64_t range_moved(const struct request *rq, const struct object *o, uint64_t first, uint64_t length)
{
	uint64_t delta = rq->fault.delta ? rq->fault.delta : length;

	return (first + delta) % (o->size - length + 1);
}

static void send_object(struct request *rq, struct object *o)
{
	const char *range_text = rq->fault.kind == FAULT_WHOLE_200 ? NULL : request_header(rq, "Range");
	uint64_t first, length;
	enum range range = range_parse(range_text, o->size, &first, &length);

	if (range == RANGE_BAD) {
		reply_header(rq, "Content-Range", "bytes */%llu", (unsigned long long)o->size);
		reply_error(rq, 416, "InvalidRange", "The requested range is not satisfiable");
		object_put(o);
		return;
	}
	if (rq->fault.kind == FAULT_WRONG_RANGE && range == RANGE_OK)
		first = range_moved(rq, o, first, length);
	add_headers(rq, o, range == RANGE_NONE);
	if (range == RANGE_OK)
		reply_header(rq, "Content-Range", "bytes %llu-%llu/%llu", (unsigned long long)first,
			     (unsigned long long)(first + length - 1), (unsigned long long)o->size);
	reply_object(rq, range == RANGE_OK ? 206 : 200, o, first, length);
}

void op_get(struct request *rq)
{
	struct object *o;
	int rc = store_get(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, &o);

	if (rc < 0) {
		reply_errno(rq, rc);
		return;
	}
	rc = conditions_check(rq, o);
	if (rc == 304) {
		add_headers(rq, o, false);
		reply_empty(rq, 304);
	} else if (rc == 412) {
		reply_error(rq, 412, "PreconditionFailed",
			    "At least one of the pre-conditions you specified did not hold");
	} else if (rq->op == OP_GET && o->attrs && o->attrs->archived && !o->attrs->restored) {
		reply_error(rq, 403, "InvalidObjectState", "The operation is not valid for the object's storage class");
	} else {
		send_object(rq, o);
		return;
	}
	object_put(o);
}
