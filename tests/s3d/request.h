/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One S3 request: parsed, answered by an operation that records its reply, then sent by wire.c, which is where
 * faults show. Threads: the connection's worker.
 */
#ifndef S3D_REQUEST_H
#define S3D_REQUEST_H

#include <event2/http.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "fault.h"
#include "op.h"
#include "server.h"

#define REQUEST_KEY_MAX 1024
#define REQUEST_PARAMS_MAX 64
#define REQUEST_XML_MAX ((size_t)64 << 20)

struct text {
	char *bytes; /* decoded, NUL-terminated; may hold NULs */
	size_t len;
};

struct param {
	struct text name, value;
};

/* What an operation decided; wire.c sends it. */
struct reply {
	int status;
	struct evbuffer *buffer; /* XML or text, or NULL */
	struct object *object;   /* or bytes [first, first + length) of this */
	uint64_t first, length;
};

struct request {
	struct server *server;
	struct conn *conn;
	struct evhttp_request *http;
	enum op op;
	const char *method;
	char *target; /* path, cut at '?' */
	char *bucket; /* "" = none */
	struct text key;
	struct param params[REQUEST_PARAMS_MAX];
	unsigned nr_params;
	struct evbuffer *body;      /* what the client sent, aws-chunked framing removed */
	struct evkeyvalq *trailers; /* of an aws-chunked body, NULL = none */
	struct fault fault;
	uint64_t id; /* 0 = of the control plane */
	uint64_t started_ns;
	struct reply reply;
	bool counted; /* request_count() has been called */
	/* wire.c */
	uint64_t sent, stop_at;
	uint64_t outage_ms; /* begins once this reply is out; 0 = none */
	bool outage_refuses;
};

/* evhttp's callback; <arg> is the worker. */
void request_handle(struct evhttp_request *http, void *arg);
/*
 * Puts it into the counters and the log, once. Called before the last byte can reach the client, so that a client that
 * has its reply finds it counted.
 */
void request_count(struct request *rq);
/* Frees it; called when the reply is out or the connection is gone. */
void request_done(struct request *rq);

const char *request_header(const struct request *rq, const char *name);       /* NULL = not there */
const struct text *request_param(const struct request *rq, const char *name); /* NULL = not there */
const char *request_param_str(const struct request *rq, const char *name, const char *missing);
/* <missing> when not there; -EINVAL when not a number. */
int request_param_u64(const struct request *rq, const char *name, uint64_t missing, uint64_t *ret);
/* %XX decoded, '+' kept; -EINVAL on a broken escape. */
int text_decode(const char *src, size_t len, struct text *ret);

void reply_header(struct request *rq, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void reply_empty(struct request *rq, int status);
/* Takes the buffer's bytes. */
void reply_bytes(struct request *rq, int status, const char *content_type, struct buf *take);
void reply_xml(struct request *rq, int status, struct buf *take);
/* Takes over the caller's reference. */
void reply_object(struct request *rq, int status, struct object *o, uint64_t first, uint64_t length);
/* An S3 error document with a sentence. */
void reply_error(struct request *rq, int status, const char *code, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* The one that fits what store.h returned. */
void reply_errno(struct request *rq, int rc);

/* auth.c: 0, or the error has been recorded. */
int auth_check(struct request *rq);

/* chunked.c: takes the aws-chunked framing off rq->body, trailers to rq->trailers. 0, or the error is recorded. */
int chunked_decode(struct request *rq);

/* wire.c */
void wire_send(struct request *rq);

/* xml.c */
int xml_add_escaped(struct buf *b, const char *bytes, size_t len);
/* For encoding-type=url: %XX, ' ' as '+', '/' kept. */
int xml_add_url(struct buf *b, const char *bytes, size_t len);
int xml_add_time(struct buf *b, const char *tag, int64_t unix_s);
void time_http(int64_t unix_s, char ret[32]);
/* Flat elements of <item>…</item>: calls <each> with the texts of the wanted children, "" where missing. */
#define XML_FIELDS 3
int xml_each_item(struct evbuffer *in, const char *item, const char *const fields[XML_FIELDS],
		  int (*each)(void *ctx, char *const values[XML_FIELDS]), void *ctx);

#endif
