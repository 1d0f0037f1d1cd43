// SPDX-License-Identifier: Apache-2.0
/* aws-chunked bodies: "SIZE[;chunk-signature=...]\r\n", the bytes, "\r\n", ..., "0\r\n", trailers, an empty line. */
#include <errno.h>
#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/cleanup.h"
#include "request.h"

static int chunk_read(struct evbuffer *in, struct evbuffer *out, uint64_t *ret_size)
{
	_cleanup_free_ char *line = evbuffer_readln(in, NULL, EVBUFFER_EOL_CRLF_STRICT);
	char *end, eol[2];

	if (!line)
		return -EBADMSG;
	*ret_size = strtoull(line, &end, 16);
	if (end == line || (*end && *end != ';') || *ret_size > evbuffer_get_length(in))
		return -EBADMSG;
	if (!*ret_size)
		return 0;
	if (evbuffer_remove_buffer(in, out, *ret_size) != (int)*ret_size)
		return -EBADMSG;
	return evbuffer_remove(in, eol, 2) == 2 && !memcmp(eol, "\r\n", 2) ? 0 : -EBADMSG;
}

static int trailers_read(struct request *rq)
{
	rq->trailers = calloc(1, sizeof(*rq->trailers));
	if (!rq->trailers)
		return -ENOMEM;
	TAILQ_INIT(rq->trailers);
	for (;;) {
		_cleanup_free_ char *line = evbuffer_readln(rq->body, NULL, EVBUFFER_EOL_CRLF);
		char *colon = line ? strchr(line, ':') : NULL;

		if (!line || !*line)
			return 0;
		if (!colon)
			return -EBADMSG;
		*colon++ = '\0';
		colon += strspn(colon, " ");
		evhttp_add_header(rq->trailers, line, colon);
	}
}

int chunked_decode(struct request *rq)
{
	const char *payload = request_header(rq, "x-amz-content-sha256");
	const char *encoding = request_header(rq, "Content-Encoding");
	const char *length = request_header(rq, "x-amz-decoded-content-length");
	struct evbuffer *out;
	uint64_t size;
	int rc;

	if (!(payload && !strncmp(payload, "STREAMING-", 10)) && !(encoding && strstr(encoding, "aws-chunked")))
		return 0;
	out = evbuffer_new();
	if (!out) {
		reply_errno(rq, -ENOMEM);
		return -ENOMEM;
	}
	do {
		rc = chunk_read(rq->body, out, &size);
	} while (!rc && size);
	if (!rc)
		rc = trailers_read(rq);
	if (!rc && length && strtoull(length, NULL, 10) != evbuffer_get_length(out))
		rc = -EBADMSG;
	evbuffer_drain(rq->body, evbuffer_get_length(rq->body));
	evbuffer_add_buffer(rq->body, out);
	evbuffer_free(out);
	if (rc < 0)
		reply_error(rq, 400, "IncompleteBody", "The aws-chunked framing of the body is broken or ends early.");
	return rc;
}
