// SPDX-License-Identifier: Apache-2.0
/* Which operation a request asks for, and the table of them. */
#include "op.h"

#include <string.h>

#include "base/cleanup.h"
#include "request.h"

static void op_unknown(struct request *rq)
{
	reply_error(rq, 501, "NotImplemented", "This server does not implement what was asked for.");
}

static const struct {
	const char *name;
	void (*run)(struct request *rq);
} ops[OP_COUNT] = {
	[OP_UNKNOWN] = { "unknown", op_unknown },
	[OP_GET] = { "get", op_get },
	[OP_HEAD] = { "head", op_get },
	[OP_PUT] = { "put", op_put },
	[OP_COPY] = { "copy", op_copy },
	[OP_DELETE] = { "delete", op_delete },
	[OP_DELETE_MANY] = { "delete_many", op_delete_many },
	[OP_LIST] = { "list", op_list },
	[OP_LIST_V1] = { "list_v1", op_list },
	[OP_BUCKETS] = { "buckets", op_buckets },
	[OP_BUCKET_CREATE] = { "bucket_create", op_bucket },
	[OP_BUCKET_HEAD] = { "bucket_head", op_bucket },
	[OP_BUCKET_DELETE] = { "bucket_delete", op_bucket },
	[OP_BUCKET_LOCATION] = { "bucket_location", op_bucket },
	[OP_UPLOAD_CREATE] = { "upload_create", op_upload_create },
	[OP_UPLOAD_PART] = { "upload_part", op_upload_part },
	[OP_UPLOAD_COMPLETE] = { "upload_complete", op_upload_complete },
	[OP_UPLOAD_ABORT] = { "upload_abort", op_upload_abort },
	[OP_UPLOAD_PARTS] = { "upload_parts", op_upload_parts },
	[OP_UPLOADS] = { "uploads", op_uploads },
};

const char *op_name(enum op op)
{
	return ops[op].name;
}

enum op op_parse(const char *name)
{
	for (int op = 1; op < OP_COUNT; op++)
		if (!strcmp(name, ops[op].name))
			return (enum op)op;
	return OP_UNKNOWN;
}

static enum op op_of_bucket(const struct request *rq)
{
	if (!strcmp(rq->method, "GET")) {
		if (request_param(rq, "uploads"))
			return OP_UPLOADS;
		if (request_param(rq, "location"))
			return OP_BUCKET_LOCATION;
		return !strcmp(request_param_str(rq, "list-type", ""), "2") ? OP_LIST : OP_LIST_V1;
	}
	if (!strcmp(rq->method, "POST"))
		return request_param(rq, "delete") ? OP_DELETE_MANY : OP_UNKNOWN;
	if (!strcmp(rq->method, "PUT"))
		return OP_BUCKET_CREATE;
	if (!strcmp(rq->method, "HEAD"))
		return OP_BUCKET_HEAD;
	return !strcmp(rq->method, "DELETE") ? OP_BUCKET_DELETE : OP_UNKNOWN;
}

enum op op_of(const struct request *rq)
{
	bool upload = request_param(rq, "uploadId");

	if (!rq->bucket[0])
		return !strcmp(rq->method, "GET") ? OP_BUCKETS : OP_UNKNOWN;
	if (!rq->key.len)
		return op_of_bucket(rq);
	if (!strcmp(rq->method, "GET"))
		return upload ? OP_UPLOAD_PARTS : OP_GET;
	if (!strcmp(rq->method, "HEAD"))
		return OP_HEAD;
	if (!strcmp(rq->method, "PUT") && request_header(rq, "x-amz-copy-source"))
		return upload ? OP_UNKNOWN : OP_COPY;
	if (!strcmp(rq->method, "PUT"))
		return upload ? OP_UPLOAD_PART : OP_PUT;
	if (!strcmp(rq->method, "POST") && request_param(rq, "uploads"))
		return OP_UPLOAD_CREATE;
	if (!strcmp(rq->method, "POST") && upload)
		return OP_UPLOAD_COMPLETE;
	if (!strcmp(rq->method, "DELETE"))
		return upload ? OP_UPLOAD_ABORT : OP_DELETE;
	return OP_UNKNOWN;
}

void op_run(struct request *rq)
{
	ops[rq->op].run(rq);
}
