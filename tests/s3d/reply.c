// SPDX-License-Identifier: Apache-2.0
/* Recording of replies. Nothing is sent here. */
#include <errno.h>
#include <event2/buffer.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "request.h"

#define XML_HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"

void reply_header(struct request *rq, const char *name, const char *fmt, ...)
{
	_cleanup_free_ char *value = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	value = malloc((size_t)n + 1);
	if (!value)
		return;
	va_start(ap, fmt);
	vsnprintf(value, (size_t)n + 1, fmt, ap);
	va_end(ap);
	evhttp_remove_header(evhttp_request_get_output_headers(rq->http), name);
	evhttp_add_header(evhttp_request_get_output_headers(rq->http), name, value);
}

void reply_empty(struct request *rq, int status)
{
	rq->reply.status = status;
}

static void bytes_free(const void *data, size_t len, void *arg)
{
	free(arg);
}

void reply_bytes(struct request *rq, int status, const char *content_type, struct buf *take)
{
	rq->reply.status = status;
	rq->reply.buffer = evbuffer_new();
	if (!rq->reply.buffer) {
		rq->reply.status = 500;
		buf_done(take);
		return;
	}
	reply_header(rq, "Content-Type", "%s", content_type);
	if (take->len && evbuffer_add_reference(rq->reply.buffer, take->data, take->len, bytes_free, take->data))
		buf_done(take);
	*take = (struct buf){ .max = take->max };
}

void reply_xml(struct request *rq, int status, struct buf *take)
{
	reply_bytes(rq, status, "application/xml", take);
}

void reply_object(struct request *rq, int status, struct object *o, uint64_t first, uint64_t length)
{
	rq->reply.status = status;
	rq->reply.object = o;
	rq->reply.first = first;
	rq->reply.length = length;
}

void reply_error(struct request *rq, int status, const char *code, const char *fmt, ...)
{
	_cleanup_buf_ struct buf b;
	char message[512];
	va_list ap;

	buf_init(&b, 16384);
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	buf_addf(&b, XML_HEAD "<Error><Code>%s</Code><Message>", code);
	xml_add_escaped(&b, message, strlen(message));
	buf_add_str(&b, "</Message><Resource>");
	xml_add_escaped(&b, rq->target ? rq->target : "", rq->target ? strlen(rq->target) : 0);
	buf_add_str(&b, "</Resource>");
	if (!strcmp(code, "AuthorizationHeaderMalformed"))
		buf_addf(&b, "<Region>%s</Region>", rq->server->cfg.region);
	buf_addf(&b, "<RequestId>%016llX</RequestId></Error>", (unsigned long long)rq->id);
	reply_xml(rq, status, &b);
}

void reply_errno(struct request *rq, int rc)
{
	switch (rc) {
	case -ENXIO:
		reply_error(rq, 404, "NoSuchBucket", "The specified bucket does not exist.");
		break;
	case -ENOENT:
		reply_error(rq, 404, "NoSuchKey", "The specified key does not exist.");
		break;
	case -ESRCH:
		reply_error(rq, 404, "NoSuchUpload", "The specified upload does not exist.");
		break;
	case -EINVAL:
		reply_error(rq, 400, "InvalidArgument", "An argument of the request is invalid.");
		break;
	case -EBADMSG:
	case -E2BIG:
		reply_error(rq, 400, "MalformedXML", "The document that was sent is not well-formed or too long.");
		break;
	default:
		reply_error(rq, 500, "InternalError", "%s", strerror(-rc));
	}
}
