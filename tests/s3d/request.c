// SPDX-License-Identifier: Apache-2.0
/* Requests: what evhttp hands over taken apart, the operation run, the reply sent. */
#include "request.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

int text_decode(const char *src, size_t len, struct text *ret)
{
	char *out = malloc(len + 1);
	size_t n = 0;

	if (!out)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		if (src[i] == '%') {
			int high = i + 2 < len ? hex_digit(src[i + 1]) : -1;
			int low = high >= 0 ? hex_digit(src[i + 2]) : -1;

			if (low < 0) {
				free(out);
				return -EINVAL;
			}
			out[n++] = (char)(high << 4 | low);
			i += 2;
		} else {
			out[n++] = src[i];
		}
	}
	out[n] = '\0';
	*ret = (struct text){ .bytes = out, .len = n };
	return 0;
}

static int request_parse_query(struct request *rq, char *query)
{
	char *save = NULL;

	for (char *pair = strtok_r(query, "&", &save); pair; pair = strtok_r(NULL, "&", &save)) {
		struct param *p = &rq->params[rq->nr_params];
		char *equals = strchr(pair, '=');
		size_t name_len = equals ? (size_t)(equals - pair) : strlen(pair);
		const char *value = equals ? equals + 1 : "";
		int rc;

		if (rq->nr_params == REQUEST_PARAMS_MAX)
			return -E2BIG;
		rc = text_decode(pair, name_len, &p->name);
		if (rc < 0)
			return rc;
		rc = text_decode(value, strlen(value), &p->value);
		if (rc < 0) {
			free(p->name.bytes);
			return rc;
		}
		rq->nr_params++;
	}
	return 0;
}

/* "bucket.DOMAIN[:port]" gives the bucket; NULL when the host is another. */
static char *request_virtual_bucket(const struct request *rq)
{
	const char *host = request_header(rq, "Host"), *domain = rq->server->cfg.virtual_domain;
	size_t host_len, domain_len;

	if (!host || !domain)
		return NULL;
	host_len = strcspn(host, ":");
	domain_len = strlen(domain);
	if (host_len < domain_len + 2 || host[host_len - domain_len - 1] != '.' ||
	    strncasecmp(host + host_len - domain_len, domain, domain_len))
		return NULL;
	return strndup(host, host_len - domain_len - 1);
}

static int request_parse_target(struct request *rq)
{
	const char *uri = evhttp_request_get_uri(rq->http), *path, *slash;
	struct text whole;
	char *query;
	int rc;

	if (!strncmp(uri, "http://", 7) || !strncmp(uri, "https://", 8)) {
		uri = strchr(strstr(uri, "//") + 2, '/');
		if (!uri)
			uri = "/";
	}
	rq->target = strdup(uri);
	if (!rq->target)
		return -ENOMEM;
	query = strchr(rq->target, '?');
	if (query) {
		*query++ = '\0';
		rc = request_parse_query(rq, query);
		if (rc < 0)
			return rc;
	}
	path = rq->target[0] == '/' ? rq->target + 1 : rq->target;
	rq->bucket = request_virtual_bucket(rq);
	if (!rq->bucket) {
		slash = strchr(path, '/');
		rc = text_decode(path, slash ? (size_t)(slash - path) : strlen(path), &whole);
		if (rc < 0)
			return rc;
		rq->bucket = whole.bytes;
		path = slash ? slash + 1 : "";
	}
	rc = text_decode(path, strlen(path), &rq->key);
	if (rc < 0)
		return rc;
	return rq->key.len > REQUEST_KEY_MAX ? -ENAMETOOLONG : 0;
}

const char *request_header(const struct request *rq, const char *name)
{
	return evhttp_find_header(evhttp_request_get_input_headers(rq->http), name);
}

const struct text *request_param(const struct request *rq, const char *name)
{
	for (unsigned i = 0; i < rq->nr_params; i++)
		if (!strcmp(rq->params[i].name.bytes, name))
			return &rq->params[i].value;
	return NULL;
}

const char *request_param_str(const struct request *rq, const char *name, const char *missing)
{
	const struct text *t = request_param(rq, name);

	return t ? t->bytes : missing;
}

int request_param_u64(const struct request *rq, const char *name, uint64_t missing, uint64_t *ret)
{
	const char *text = request_param_str(rq, name, NULL);
	char *end;

	*ret = missing;
	if (!text)
		return 0;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno || end == text || *end || *text == '-' ? -EINVAL : 0;
}

static const char *method_name(enum evhttp_cmd_type type)
{
	switch (type) {
	case EVHTTP_REQ_GET:
		return "GET";
	case EVHTTP_REQ_HEAD:
		return "HEAD";
	case EVHTTP_REQ_PUT:
		return "PUT";
	case EVHTTP_REQ_POST:
		return "POST";
	case EVHTTP_REQ_DELETE:
		return "DELETE";
	default:
		return "OTHER";
	}
}

static struct request *request_new(struct worker *w, struct evhttp_request *http)
{
	struct request *rq = calloc(1, sizeof(*rq));

	if (!rq)
		return NULL;
	rq->server = w->server;
	rq->http = http;
	rq->method = method_name(evhttp_request_get_command(http));
	rq->body = evhttp_request_get_input_buffer(http);
	rq->started_ns = clock_mono_ns();
	rq->conn = conn_find(w, evhttp_request_get_connection(http));
	if (!rq->conn) {
		free(rq);
		return NULL;
	}
	rq->conn->request = rq;
	return rq;
}

void request_count(struct request *rq)
{
	const char *range = request_header(rq, "Range");
	struct stats_line line = {
		.conn = rq->conn->id,
		.t_ms = stats_ms(rq->server->stats),
		.ms = (clock_mono_ns() - rq->started_ns) / NSEC_PER_MSEC,
		.op = rq->op,
		.status = rq->reply.status,
		.bytes = rq->sent,
		.fault = rq->fault.kind,
	};

	if (rq->counted || !rq->id)
		return;
	rq->counted = true;
	snprintf(line.method, sizeof(line.method), "%s", rq->method);
	snprintf(line.bucket, sizeof(line.bucket), "%s", rq->bucket ? rq->bucket : "");
	snprintf(line.key, sizeof(line.key), "%s", rq->key.bytes ? rq->key.bytes : "");
	snprintf(line.range, sizeof(line.range), "%s", range ? range : "");
	stats_add(rq->server->stats, &line);
}

void request_done(struct request *rq)
{
	request_count(rq);
	if (rq->id)
		stats_end(rq->server->stats);
	rq->conn->request = NULL;
	rq->conn->on_timer = NULL;
	for (unsigned i = 0; i < rq->nr_params; i++) {
		free(rq->params[i].name.bytes);
		free(rq->params[i].value.bytes);
	}
	if (rq->trailers) {
		evhttp_clear_headers(rq->trailers);
		free(rq->trailers);
	}
	if (rq->reply.buffer)
		evbuffer_free(rq->reply.buffer);
	object_put(rq->reply.object);
	free(rq->target);
	free(rq->bucket);
	free(rq->key.bytes);
	free(rq);
}

static void request_pick_fault(struct request *rq)
{
	struct fault_target t = {
		.op = rq->op,
		.method = rq->method,
		.bucket = rq->bucket,
		.key = rq->key.bytes,
		.prefix = request_param_str(rq, "prefix", ""),
		.has_range = request_header(rq, "Range"),
		.tls = rq->server->tls,
	};

	faults_pick(rq->server->faults, &t, &rq->fault);
}

/* Faults that are a reply of their own, or that happen before it. true = the reply has been recorded. */
static bool request_fault_first(struct request *rq)
{
	struct object *o;

	switch (rq->fault.kind) {
	case FAULT_STATUS:
		if (rq->fault.status == 503 || rq->fault.status == 429)
			reply_header(rq, "Retry-After", "1");
		reply_error(rq, rq->fault.status, rq->fault.code, "This reply was asked for by a fault rule.");
		return true;
	case FAULT_REDIRECT:
		reply_header(rq, "Location", "%s",
			     rq->fault.location[0] ? rq->fault.location : evhttp_request_get_uri(rq->http));
		reply_empty(rq, rq->fault.status);
		return true;
	case FAULT_REPLACE_BETWEEN:
		if (store_get(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, &o))
			return false;
		store_replace(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, o->size);
		object_put(o);
		return false;
	default:
		return false;
	}
}

void request_handle(struct evhttp_request *http, void *arg)
{
	struct request *rq = request_new(arg, http);
	int rc;

	if (!rq) {
		evhttp_send_error(http, 500, NULL);
		return;
	}
	rc = request_parse_target(rq);
	if (!rc && !strcmp(rq->bucket, "_s3d")) {
		control_run(rq);
		wire_send(rq);
		return;
	}
	rq->id = mix64(atomic_fetch_add(&rq->server->nr_requests, 1) + MIX64_STEP);
	stats_begin(rq->server->stats);
	if (rc < 0) {
		reply_error(rq, 400, rc == -ENAMETOOLONG ? "KeyTooLongError" : "InvalidURI",
			    "The request's target is invalid.");
		wire_send(rq);
		return;
	}
	rq->op = op_of(rq);
	request_pick_fault(rq);
	if (!request_fault_first(rq) && !auth_check(rq))
		op_run(rq);
	wire_send(rq);
}
