// SPDX-License-Identifier: Apache-2.0
/* Any lines as reply headers: what is accepted is consistent and safe to send back or to log. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check_reply(const struct s3_reply *r)
{
	must(!r->has_range || (r->range_first <= r->range_last && r->range_last < r->range_total));
	must(!r->has_length || r->length <= INT64_MAX);
	must(r->has_etag == (r->etag[0] != '\0'));
	must(!r->etag[strcspn(r->etag, "\" \r\n")]);
	must(r->region[strspn(r->region, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0');
	must(r->retry_after_s <= 60);
	for (const char *p = r->request_id; *p; p++)
		must((unsigned char)*p >= 0x20);
}

static void check_outcome(const struct s3_reply *r, const struct s3_error_body *body, bool is_head)
{
	struct s3_outcome o = s3_outcome_of(r, body, is_head);

	must(o.error < 0 && o.what && o.what[0]);
	must(o.error != -ENOENT || r->status == 404);
	must(r->status < 500 || o.verdict != S3_FAIL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct s3_error_body body = { 0 };
	struct s3_reply r;

	s3_reply_reset(&r);
	while (size) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) + 1 : size;

		if (s3_reply_header(&r, (const char *)data, len) < 0)
			s3_reply_reset(&r);
		check_reply(&r);
		memcpy(body.code, data, min_of(len, sizeof(body.code) - 1));
		check_outcome(&r, NULL, false);
		check_outcome(&r, NULL, true);
		check_outcome(&r, &body, false);
		data += len;
		size -= len;
	}
	return 0;
}
