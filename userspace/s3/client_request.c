// SPDX-License-Identifier: Apache-2.0
/*
 * One try of an operation: URL, signature and headers on a reused easy handle, and the callbacks that check the reply
 * before a byte of it is believed.
 *
 * Design: Range and If-Match are not signed: proxies that rewrite them exist, and the reply is checked anyway (status,
 * Content-Range, object size and ETag) before its first byte is handed out. A retry goes on where the data stopped.
 * Threads: the S3 thread that owns the attempt.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <penstock/version.h>
#include <string.h>

#include "base/clock.h"
#include "s3/client_i.h"

#define CONNECT_TIMEOUT_MS 5000L
#define RECEIVE_BUFFER_BYTES (256L << 10)

void s3_op_describe(const struct s3_client *c, const struct s3_op *op, char *ret, size_t room)
{
	const struct s3_get *g;

	switch (op->kind) {
	case S3_OP_GET:
		g = list_entry(op, struct s3_get, op);
		snprintf(ret, room, "GET bucket=%s key=%s range=%" PRIu64 "-%" PRIu64, c->cfg.bucket, g->key, g->offset,
			 g->offset + g->len - 1);
		break;
	case S3_OP_LIST:
		snprintf(ret, room, "LIST bucket=%s prefix=%s", c->cfg.bucket,
			 list_entry(op, struct s3_list, op)->prefix);
		break;
	case S3_OP_HEAD:
		snprintf(ret, room, "HEAD bucket=%s key=%s", c->cfg.bucket, list_entry(op, struct s3_head, op)->key);
		break;
	}
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct s3_attempt *a = arg;
	size_t len = size * n;

	if (s3_reply_header(&a->reply, line, len) < 0) {
		a->refused = -EBADMSG;
		return 0;
	}
	return len;
}

/* Is this the reply we asked for? Decided once, at the first byte of the body. */
static int reply_check(const struct s3_attempt *a, const struct s3_get *g)
{
	const struct s3_reply *r = &a->reply;
	uint64_t want = g->offset + g->len - a->pos;

	if (r->status == 200) {
		/* A server that ignores Range sends everything; fine only where that is what the reader wants. */
		if (g->len != g->object_bytes || (r->has_length ? r->length != g->len : !g->etag[0]))
			return -EBADMSG;
	} else if (!r->has_range || r->range_first != a->pos || r->range_last != g->offset + g->len - 1 ||
		   (r->has_length && r->length != want)) {
		return -EBADMSG;
	}
	if (r->status == 206 && r->range_total != UINT64_MAX && r->range_total != g->object_bytes)
		return -ESTALE;
	/* Neither size nor ETag: nothing tells which version it is. */
	if (r->status == 206 && r->range_total == UINT64_MAX && !g->etag[0])
		return -EBADMSG;
	if (g->etag[0] && !r->has_etag)
		return -EBADMSG;
	if (g->etag[0] && strcmp(g->etag, r->etag) != 0)
		return -ESTALE;
	return 0;
}

static int get_body(struct s3_attempt *a, const char *bytes, size_t len)
{
	struct s3_get *g = s3_op_get(a->op);
	uint64_t end = g->offset + g->len, next = g->offset + g->delivered;
	int rc = 0;

	if (!a->checked) {
		rc = reply_check(a, g);
		if (rc < 0)
			return rc;
		a->checked = true;
		/* From the object's start, whatever was asked for: what was delivered already is skipped. */
		if (a->reply.status == 200)
			a->pos = 0;
	}
	/* More than was asked for is cut off, and ends the transfer. */
	if (len > end - a->pos) {
		len = end - a->pos;
		rc = -EBADMSG;
	}
	/* A hedge may have been faster for a while: skip what was delivered. */
	if (a->pos + len > next) {
		uint64_t skip = next - a->pos;

		g->delivered += len - skip;
		g->data(g, bytes + skip, len - skip);
	}
	a->pos += len;
	return rc;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct s3_attempt *a = arg;
	size_t len = size * n;
	int rc;

	if (!a->received)
		a->first_byte_ns = a->progress_ns = clock_mono_ns();
	a->received += len;
	if (a->op->kind == S3_OP_GET && (a->reply.status == 206 || a->reply.status == 200))
		rc = get_body(a, bytes, len);
	else if (a->reply.status >= 300)
		/* Of a long error page, the status tells enough. */
		rc = buf_add(&a->body, bytes, min_of(len, S3_ERROR_BODY_MAX - a->body.len));
	else
		rc = buf_add(&a->body, bytes, len);
	if (rc < 0) {
		a->refused = rc;
		return 0;
	}
	return len;
}

struct request {
	struct buf path, query, auth, url, header;
	char host[S3_HOST_MAX + 16];
	char date[17];
	char range[64];
	struct sigv4_header headers[4];
	size_t nr_headers;
	struct sigv4_query args[8];
	size_t nr_args;
	char max_keys[16];
};

static void request_done(struct request *r)
{
	if (r->auth.data)
		explicit_bzero(r->auth.data, r->auth.len);
	if (r->header.data)
		explicit_bzero(r->header.data, r->header.len);
	buf_done(&r->path);
	buf_done(&r->query);
	buf_done(&r->auth);
	buf_done(&r->url);
	buf_done(&r->header);
}

static void request_arg(struct request *r, const char *name, const char *value)
{
	r->args[r->nr_args++] = (struct sigv4_query){ name, value };
}

static const char *request_key(struct request *r, struct s3_op *op)
{
	struct s3_list *l;

	switch (op->kind) {
	case S3_OP_GET:
		return s3_op_get(op)->key;
	case S3_OP_HEAD:
		return s3_op_head(op)->key;
	case S3_OP_LIST:
		break;
	}
	l = s3_op_list(op);
	request_arg(r, "list-type", "2");
	request_arg(r, "encoding-type", "url");
	if (l->prefix[0])
		request_arg(r, "prefix", l->prefix);
	if (l->delimiter[0])
		request_arg(r, "delimiter", l->delimiter);
	if (l->start_after[0])
		request_arg(r, "start-after", l->start_after);
	if (l->token[0])
		request_arg(r, "continuation-token", l->token);
	snprintf(r->max_keys, sizeof(r->max_keys), "%u", l->max_keys);
	request_arg(r, "max-keys", r->max_keys);
	return "";
}

static int header_add(struct request *r, struct s3_attempt *a, const char *name, const char *value)
{
	struct curl_slist *grown;
	int rc;

	buf_clear(&r->header);
	rc = buf_addf(&r->header, "%s: %s", name, value);
	if (rc < 0)
		return rc;
	grown = curl_slist_append(a->headers, buf_str(&r->header));
	if (!grown)
		return -ENOMEM;
	a->headers = grown;
	return 0;
}

static int request_sign(struct s3_thread *t, struct request *r, struct s3_attempt *a, const struct s3_creds *creds)
{
	struct s3_client *c = t->client;
	char region[S3_REGION_MAX];
	struct sigv4_request req = {
		.method = a->op->kind == S3_OP_HEAD ? "HEAD" : "GET",
		.encoded_path = buf_str(&r->path),
		.query = r->args,
		.nr_query = r->nr_args,
		.headers = r->headers,
		.payload_sha256 = SIGV4_EMPTY_SHA256,
		.region = s3_client_region(c, region),
		.service = "s3",
		.now = time(NULL) + c->clock_offset_s,
	};
	int rc = 0;

	r->headers[r->nr_headers++] = (struct sigv4_header){ "host", r->host };
	if (c->cfg.requester_pays) {
		r->headers[r->nr_headers++] = (struct sigv4_header){ "x-amz-request-payer", "requester" };
		rc = header_add(r, a, "x-amz-request-payer", "requester");
	}
	req.nr_headers = r->nr_headers;
	if (rc < 0 || !creds->access_key_id[0])
		return rc;
	rc = sigv4_sign_cached(&t->signer, &req, creds, &r->auth, r->date, NULL);
	if (rc == 0)
		rc = header_add(r, a, "Authorization", buf_str(&r->auth));
	if (rc == 0)
		rc = header_add(r, a, "x-amz-date", r->date);
	if (rc == 0)
		rc = header_add(r, a, "x-amz-content-sha256", SIGV4_EMPTY_SHA256);
	if (rc == 0 && creds->session_token.len)
		rc = header_add(r, a, "x-amz-security-token", secret_bytes(&creds->session_token));
	return rc;
}

static int request_build(struct s3_thread *t, struct request *r, struct s3_attempt *a)
{
	struct s3_client *c = t->client;
	struct s3_creds creds = { 0 };
	struct s3_endpoint ep;
	const char *key = request_key(r, a->op);
	int rc;

	pthread_mutex_lock(&c->lock);
	ep = c->endpoint;
	pthread_mutex_unlock(&c->lock);
	rc = s3_target_build(&ep, c->cfg.path_style, c->cfg.bucket, key, &r->path, r->host, sizeof(r->host));
	if (rc == 0)
		rc = sigv4_query_encode(&r->query, r->args, r->nr_args);
	if (rc == 0)
		rc = buf_addf(&r->url, "%s://%s%s%s%s", ep.https ? "https" : "http", r->host, buf_str(&r->path),
			      r->query.len ? "?" : "", buf_str(&r->query));
	if (rc < 0)
		return rc;
	rc = s3_provider_get(c->cfg.provider, &creds);
	if (rc == 0)
		rc = request_sign(t, r, a, &creds);
	s3_creds_wipe(&creds);
	if (rc == 0 && a->op->kind == S3_OP_GET && s3_op_get(a->op)->etag[0]) {
		char etag[S3_ETAG_MAX + 3];

		snprintf(etag, sizeof(etag), "\"%s\"", s3_op_get(a->op)->etag);
		rc = header_add(r, a, "If-Match", etag);
	}
	return rc;
}

static int easy_setup(struct s3_thread *t, struct s3_attempt *a)
{
	CURL *h = a->easy;
	int bad = 0;

	bad |= curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	bad |= curl_easy_setopt(h, CURLOPT_PATH_AS_IS, 1L);
	bad |= curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	bad |= curl_easy_setopt(h, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	bad |= curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	bad |= curl_easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	bad |= curl_easy_setopt(h, CURLOPT_FOLLOWLOCATION, 0L);
	bad |= curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "http,https");
	bad |= curl_easy_setopt(h, CURLOPT_ERRORBUFFER, a->curl_error);
	bad |= curl_easy_setopt(h, CURLOPT_PRIVATE, (void *)a);
	bad |= curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
	bad |= curl_easy_setopt(h, CURLOPT_HEADERDATA, (void *)a);
	bad |= curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
	bad |= curl_easy_setopt(h, CURLOPT_WRITEDATA, (void *)a);
	bad |= curl_easy_setopt(h, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
	if (t->client->ca_bundle[0])
		bad |= curl_easy_setopt(h, CURLOPT_CAINFO, t->client->ca_bundle);
	return bad ? -EINVAL : 0;
}

void s3_attempt_reset(struct s3_attempt *a)
{
	/* The list holds the signature and perhaps a session token. */
	for (struct curl_slist *s = a->headers; s; s = s->next)
		explicit_bzero(s->data, strlen(s->data));
	curl_slist_free_all(a->headers);
	a->headers = NULL;
	buf_done(&a->body);
	a->op = NULL;
}

int s3_attempt_prepare(struct s3_thread *t, struct s3_attempt *a)
{
	struct s3_op *op = a->op;
	struct request r = { 0 };
	bool bad;
	int rc;

	buf_init(&r.path, 8192);
	buf_init(&r.query, 32768);
	buf_init(&r.auth, 4096);
	buf_init(&r.url, 49152);
	buf_init(&r.header, SECRET_MAX_BYTES + 256);
	buf_init(&a->body, op->kind == S3_OP_LIST ? S3_LIST_BODY_MAX : S3_ERROR_BODY_MAX);
	s3_reply_reset(&a->reply);
	a->received = 0;
	a->checked = false;
	a->refused = 0;
	a->curl_error[0] = '\0';
	a->start_ns = a->progress_ns = clock_mono_ns();
	a->first_byte_ns = a->progress_bytes = 0;

	if (!a->easy) {
		a->easy = curl_easy_init();
		rc = a->easy ? easy_setup(t, a) : -ENOMEM;
		if (rc < 0)
			return rc;
	}
	rc = request_build(t, &r, a);
	if (rc == 0) {
		bad = curl_easy_setopt(a->easy, CURLOPT_URL, buf_str(&r.url));
		bad |= curl_easy_setopt(a->easy, CURLOPT_HTTPHEADER, a->headers);
		bad |= curl_easy_setopt(a->easy, CURLOPT_NOBODY, op->kind == S3_OP_HEAD ? 1L : 0L);
		if (op->kind == S3_OP_GET) {
			struct s3_get *g = s3_op_get(op);

			a->pos = g->offset + g->delivered;
			snprintf(r.range, sizeof(r.range), "%" PRIu64 "-%" PRIu64, a->pos, g->offset + g->len - 1);
			bad |= curl_easy_setopt(a->easy, CURLOPT_RANGE, r.range);
		} else {
			bad |= curl_easy_setopt(a->easy, CURLOPT_RANGE, NULL);
		}
		if (bad)
			rc = -ENOMEM;
	}
	request_done(&r);
	return rc;
}
