// SPDX-License-Identifier: Apache-2.0
/*
 * Sending of replies, paced and faulty where asked for.
 *
 * Design: a plain reply goes out through evhttp in one piece. A long, paced or cut one is pumped: evhttp writes the
 * head, then each drained output buffer asks for the next piece. What evhttp cannot express (garbage, silence, heads
 * byte by byte) takes the connection's bufferevent away from it; such a connection always ends with the reply.
 *
 * Owns the request until request_done(): the reply is out, or connection_gone() in server.c.
 */
#include "wire.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define PIECE_BYTES ((uint64_t)4 << 20)
#define PACE_MS 5
#define SETTLE_MS 20 /* lets the peer read what was sent before the connection breaks */
#define SLOW_HEADER_MS 20
#define NO_STOP UINT64_MAX

static uint64_t reply_length(const struct request *rq)
{
	return rq->reply.object ? rq->reply.length : rq->reply.buffer ? evbuffer_get_length(rq->reply.buffer) : 0;
}

static bool reply_has_body(const struct request *rq)
{
	return strcmp(rq->method, "HEAD") && rq->reply.status != 304 && rq->reply.status != 204;
}

/* Adds the next <len> bytes of the body to <out>, with a flipped byte if it is among them. */
static int body_piece(struct request *rq, uint64_t len, struct evbuffer *out)
{
	uint64_t at = rq->fault.after_bytes;
	int rc;

	if (rq->reply.buffer)
		return evbuffer_remove_buffer(rq->reply.buffer, out, len) == (int)len ? 0 : -EIO;
	if (rq->fault.kind != FAULT_FLIP_BODY || at < rq->sent || at >= rq->sent + len)
		return object_add_to(rq->reply.object, rq->reply.first + rq->sent, len, out);

	unsigned char byte;
	uint64_t before = at - rq->sent, first = rq->reply.first + rq->sent;

	rc = object_read(rq->reply.object, rq->reply.first + at, 1, &byte);
	if (!rc)
		rc = object_add_to(rq->reply.object, first, before, out);
	byte = (unsigned char)~byte;
	if (!rc)
		rc = evbuffer_add(out, &byte, 1) ? -ENOMEM : 0;
	return rc ? rc : object_add_to(rq->reply.object, first + before + 1, len - before - 1, out);
}

static struct evbuffer *body_piece_new(struct request *rq, uint64_t len)
{
	struct evbuffer *out = evbuffer_new();

	if (!out)
		return NULL;
	/* its chains move to the socket's own buffer, so files may go by sendfile, unless TLS has to see the bytes */
	if (!rq->server->tls)
		evbuffer_set_flags(out, EVBUFFER_FLAG_DRAINS_TO_FD);
	if (body_piece(rq, len, out) < 0) {
		evbuffer_free(out);
		return NULL;
	}
	rq->sent += len;
	return out;
}

/* Bytes that may go out now; 0 = wait for PACE_MS. */
static uint64_t conn_allowance(struct conn *c, uint64_t rate, uint64_t want)
{
	uint64_t now = clock_mono_ns(), burst = max_of(rate / (1000 / (2 * PACE_MS)), (uint64_t)1);

	if (c->rate != rate) {
		c->rate = rate;
		c->tokens = 0;
		c->tokens_ns = now;
	}
	/* whole bytes only, and the time of the rest is kept */
	uint64_t earned = (uint64_t)((double)(now - c->tokens_ns) * (double)rate / 1e9);

	if (earned) {
		c->tokens = min_of(c->tokens + earned, burst);
		c->tokens_ns = c->tokens == burst ? now
						  : c->tokens_ns + (uint64_t)((double)earned * 1e9 / (double)rate);
	}
	want = min_of(want, c->tokens);
	c->tokens -= want;
	return want;
}

static uint64_t request_rate(const struct request *rq)
{
	return rq->fault.kind == FAULT_TRICKLE ? rq->fault.bytes_per_s : atomic_load(&rq->server->conn_rate);
}

static void on_complete(struct evhttp_request *http, void *arg)
{
	struct request *rq = arg;
	struct conn *c = rq->conn;
	bool drop = rq->fault.kind == FAULT_DROP_KEEPALIVE;

	if (rq->outage_ms)
		server_outage(rq->server, rq->outage_ms, rq->outage_refuses);
	request_done(rq);
	if (drop)
		conn_kill_soon(c, false, 0);
}

static void pump(struct request *rq);

static void pump_drained(struct evhttp_connection *evcon, void *arg)
{
	pump(arg);
}

static void pump_timer(struct conn *c)
{
	pump(c->request);
}

static void stall_over(struct conn *c)
{
	c->request->stop_at = NO_STOP;
	pump(c->request);
}

/* The body has come to where the fault strikes; all before is on its way. */
static void pump_stop(struct request *rq)
{
	request_count(rq);
	if (rq->fault.kind != FAULT_STALL)
		conn_kill_soon(rq->conn, rq->fault.kind == FAULT_RESET_MID, SETTLE_MS);
	else if (rq->fault.ms)
		conn_timer(rq->conn, rq->fault.ms, stall_over);
	/* else silence until the peer goes */
}

static void pump(struct request *rq)
{
	uint64_t length = reply_length(rq) + (rq->reply.buffer ? rq->sent : 0);
	uint64_t end = min_of(length, rq->stop_at), n = min_of(end - rq->sent, PIECE_BYTES), rate = request_rate(rq);
	struct evbuffer *piece;

	if (rq->sent == end && rq->stop_at != NO_STOP) {
		pump_stop(rq);
		return;
	}
	if (rate && n)
		n = conn_allowance(rq->conn, rate, n);
	if (!n && rq->sent < end) {
		conn_timer(rq->conn, PACE_MS, pump_timer);
		return;
	}
	if (n) {
		piece = body_piece_new(rq, n);
		if (!piece) {
			conn_kill_soon(rq->conn, true, 0);
			return;
		}
		if (rq->sent == length)
			request_count(rq);
		evhttp_send_reply_chunk_with_cb(rq->http, piece, pump_drained, rq);
		evbuffer_free(piece);
	}
	if (rq->sent == length)
		evhttp_send_reply_end(rq->http);
}

/* What the head says the body's length is. */
static uint64_t told_length(const struct request *rq, uint64_t length)
{
	uint64_t delta = rq->fault.delta ? rq->fault.delta : 1;

	if (rq->fault.kind == FAULT_LIE_LENGTH_LONG)
		return length + delta;
	if (rq->fault.kind == FAULT_LIE_LENGTH_SHORT)
		return length - min_of(length, delta);
	return length;
}

static void send_whole(struct request *rq, uint64_t length)
{
	struct evbuffer *body = length && reply_has_body(rq) ? body_piece_new(rq, length) : NULL;

	request_count(rq);
	if (length && reply_has_body(rq) && !body)
		conn_kill_soon(rq->conn, true, 0);
	else
		evhttp_send_reply(rq->http, rq->reply.status, wire_reason(rq->reply.status), body);
	if (body)
		evbuffer_free(body);
}

static void send_body(struct request *rq)
{
	uint64_t length = reply_length(rq);
	enum fault_kind kind = rq->fault.kind;

	if (rq->fault.after_bytes == FAULT_MIDDLE)
		rq->fault.after_bytes = length / 2;
	rq->stop_at = NO_STOP;
	if ((kind == FAULT_RESET_MID || kind == FAULT_STALL || kind == FAULT_TRUNCATE) && reply_has_body(rq))
		rq->stop_at = min_of(rq->fault.after_bytes, length);
	if (kind == FAULT_FLIP_BODY && rq->reply.buffer && rq->fault.after_bytes < length)
		evbuffer_pullup(rq->reply.buffer, -1)[rq->fault.after_bytes] ^= 0xff;
	if (kind == FAULT_FLIP_TLS)
		wire_flip_arm(rq->conn, rq->fault.after_bytes);
	if (rq->reply.status != 304 && rq->reply.status != 204)
		reply_header(rq, "Content-Length", "%llu", (unsigned long long)told_length(rq, length));
	evhttp_request_set_on_complete_cb(rq->http, on_complete, rq);
	if (rq->stop_at == NO_STOP && (length <= PIECE_BYTES || !reply_has_body(rq)) && !request_rate(rq)) {
		send_whole(rq, length);
		return;
	}
	if (!reply_has_body(rq) || !length) {
		send_whole(rq, 0);
		return;
	}
	evhttp_send_reply_start(rq->http, rq->reply.status, wire_reason(rq->reply.status));
	pump(rq);
}

/* A connection that no longer is evhttp's. */
static void raw_event(struct bufferevent *bev, short what, void *arg)
{
	conn_kill_soon(arg, false, 0);
}

static void raw_read(struct bufferevent *bev, void *arg)
{
	struct evbuffer *in = bufferevent_get_input(bev);

	evbuffer_drain(in, evbuffer_get_length(in));
}

static void raw_take(struct conn *c, bufferevent_data_cb drained)
{
	bufferevent_setcb(c->bev, raw_read, drained, raw_event, c);
	bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

static void raw_close(struct bufferevent *bev, void *arg)
{
	conn_kill_soon(arg, false, SETTLE_MS);
}

static void send_garbage(struct request *rq)
{
	unsigned char junk[512];

	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (unsigned char)mix64((i + 1) * MIX64_STEP);
	raw_take(rq->conn, raw_close);
	bufferevent_write(rq->conn->bev, junk, sizeof(junk));
}

/* The head of the reply as evhttp would have written it, to rq->body, which has been read by now. */
static void head_compose(struct request *rq)
{
	struct evkeyvalq *headers = evhttp_request_get_output_headers(rq->http);

	evbuffer_drain(rq->body, evbuffer_get_length(rq->body));
	if (rq->fault.after_bytes == FAULT_MIDDLE)
		rq->fault.after_bytes = 0;
	reply_header(rq, "Content-Length", "%llu", (unsigned long long)reply_length(rq));
	reply_header(rq, "Connection", "close");
	evbuffer_add_printf(rq->body, "HTTP/1.1 %d %s\r\n", rq->reply.status, wire_reason(rq->reply.status));
	for (struct evkeyval *h = headers->tqh_first; h; h = h->next.tqe_next)
		evbuffer_add_printf(rq->body, "%s: %s\r\n", h->key, h->value);
	evbuffer_add(rq->body, "\r\n", 2);
}

static void slow_body(struct bufferevent *bev, void *arg)
{
	struct conn *c = arg;
	struct request *rq = c->request;
	uint64_t length = reply_has_body(rq) ? reply_length(rq) + (rq->reply.buffer ? rq->sent : 0) : 0;
	struct evbuffer *piece;

	if (evbuffer_get_length(rq->body))
		return;
	if (rq->sent == length) {
		request_count(rq);
		conn_kill_soon(c, false, SETTLE_MS);
		return;
	}
	piece = body_piece_new(rq, min_of(length - rq->sent, PIECE_BYTES));
	if (!piece) {
		conn_kill_soon(c, true, 0);
		return;
	}
	bufferevent_write_buffer(bev, piece);
	evbuffer_free(piece);
}

static void slow_head(struct conn *c)
{
	struct request *rq = c->request;
	char byte;

	evbuffer_remove(rq->body, &byte, 1);
	bufferevent_write(c->bev, &byte, 1);
	if (evbuffer_get_length(rq->body))
		conn_timer(c, rq->fault.ms ? rq->fault.ms : SLOW_HEADER_MS, slow_head);
}

/* No status line ever leaves. */
static void send_nothing(struct request *rq)
{
	rq->reply.status = 0;
	request_count(rq);
	if (rq->fault.kind == FAULT_RESET_BEFORE)
		conn_kill_soon(rq->conn, true, 0);
	else if (rq->fault.kind == FAULT_GARBAGE)
		send_garbage(rq);
	else
		raw_take(rq->conn, NULL);
}

static void send_begin(struct conn *c)
{
	struct request *rq = c->request;

	switch (rq->fault.kind) {
	case FAULT_RESET_BEFORE:
	case FAULT_NO_REPLY:
	case FAULT_GARBAGE:
		send_nothing(rq);
		break;
	case FAULT_SLOW_HEADERS:
		head_compose(rq);
		raw_take(c, slow_body);
		slow_head(c);
		break;
	default:
		send_body(rq);
	}
}

void wire_send(struct request *rq)
{
	bool control = !rq->id;
	uint64_t wait_ms = control ? 0 : atomic_load(&rq->server->latency_ms);
	char date[32];

	time_http(server_now_s(rq->server), date);
	reply_header(rq, "Date", "%s", date);
	reply_header(rq, "Server", "s3d");
	if (!control)
		reply_header(rq, "x-amz-request-id", "%016llX", (unsigned long long)rq->id);
	if (rq->fault.kind == FAULT_STALL_FIRST_BYTE) {
		if (!rq->fault.ms) {
			send_nothing(rq);
			return;
		}
		wait_ms += rq->fault.ms;
	}
	if (wait_ms)
		conn_timer(rq->conn, wait_ms, send_begin);
	else
		send_begin(rq->conn);
}

const char *wire_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{ 200, "OK" },
		{ 204, "No Content" },
		{ 206, "Partial Content" },
		{ 302, "Found" },
		{ 304, "Not Modified" },
		{ 307, "Temporary Redirect" },
		{ 400, "Bad Request" },
		{ 403, "Forbidden" },
		{ 404, "Not Found" },
		{ 409, "Conflict" },
		{ 412, "Precondition Failed" },
		{ 416, "Requested Range Not Satisfiable" },
		{ 429, "Too Many Requests" },
		{ 500, "Internal Server Error" },
		{ 501, "Not Implemented" },
		{ 503, "Slow Down" },
	};

	for (size_t i = 0; i < array_len(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Unnamed";
}
