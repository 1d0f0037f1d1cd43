// SPDX-License-Identifier: Apache-2.0
/* What came of a try: a whole list page handed out, or a failure with its errno, its sentence and what to do next. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "s3/client_i.h"

#define RETRY_AFTER_MAX_S 20u

void s3_failure_of_reply(const struct s3_attempt *a, struct s3_failure *f)
{
	struct s3_error_body body = { 0 };
	const struct s3_reply *r = &a->reply;
	struct s3_outcome out;
	bool has_body = a->body.len && s3_error_parse(a->body.data, a->body.len, &body) == 0;

	out = s3_outcome_of(r, has_body ? &body : NULL, a->op->kind == S3_OP_HEAD);
	f->error = out.error;
	f->verdict = out.verdict;
	f->date = r->date;
	/* Temporary, as for a new bucket: the same place answers soon. */
	if (r->status == 307 && !r->region[0] && !body.region[0])
		f->verdict = S3_RETRY;
	if (r->status == 503 || r->status == 429)
		f->wait_ns = min_of(r->retry_after_s, RETRY_AFTER_MAX_S) * NSEC_PER_SEC;
	snprintf(f->region, sizeof(f->region), "%s", r->region[0] ? r->region : body.region);
	snprintf(f->message, sizeof(f->message), "%s (HTTP %d, code %s, request id %s)%s%.200s", out.what, r->status,
		 body.code[0] ? body.code : "none", r->request_id[0] ? r->request_id : "none",
		 body.message[0] ? ": " : "", body.message);
}

void s3_failure_of_curl(const struct s3_attempt *a, CURLcode rc, struct s3_failure *f)
{
	const char *text = a->curl_error[0] ? a->curl_error : curl_easy_strerror(rc);
	const struct s3_reply *r = &a->reply;

	f->error = -EIO;
	f->verdict = S3_RETRY;
	if (a->refused == -ESTALE) {
		f->error = -ESTALE;
		f->verdict = S3_FAIL;
		snprintf(f->message, sizeof(f->message), "the object was replaced (ETag %s now, request id %s)",
			 r->etag[0] ? r->etag : "none", r->request_id[0] ? r->request_id : "none");
	} else if (a->refused < 0) {
		snprintf(f->message, sizeof(f->message), "the reply does not fit the request (HTTP %d, request id %s)",
			 r->status, r->request_id[0] ? r->request_id : "none");
	} else {
		snprintf(f->message, sizeof(f->message), "%s", text);
		if (rc == CURLE_PEER_FAILED_VERIFICATION || rc == CURLE_SSL_CACERT_BADFILE)
			f->verdict = S3_FAIL;
	}
}

void s3_failure_of_body(const struct s3_attempt *a, int rc, struct s3_failure *f)
{
	bool unordered = rc == -EOPNOTSUPP;

	f->error = -EIO;
	f->verdict = unordered ? S3_FAIL : S3_RETRY;
	snprintf(f->message, sizeof(f->message), "%s (HTTP %d, request id %s)",
		 unordered ? "the server lists keys out of order: directory buckets are not supported"
			   : "the reply is incomplete or malformed",
		 a->reply.status, a->reply.request_id[0] ? a->reply.request_id : "none");
}

struct last_key {
	size_t len;
	char bytes[S3_KEY_MAX];
};

/* Stands between the parser and the list's owner, who relies on the order of the keys. */
struct page {
	struct s3_list *l;
	struct last_key object, prefix;
};

/* Equal ones are left to the owner to judge. */
static int key_rises(struct last_key *last, const char *key, size_t len)
{
	int order = memcmp(key, last->bytes, min_of(len, last->len));

	if (order < 0 || (order == 0 && len < last->len))
		return -EOPNOTSUPP;
	memcpy(last->bytes, key, len);
	last->len = len;
	return 0;
}

static int page_object(void *ctx, const struct s3_list_object *o)
{
	struct page *p = ctx;
	const struct s3_list_ops *ops = p->l->ops;
	int rc = key_rises(&p->object, o->key, o->key_len);

	return rc < 0 || !ops || !ops->object ? rc : ops->object(p->l->ops_ctx, o);
}

static int page_prefix(void *ctx, const char *prefix, size_t len)
{
	struct page *p = ctx;
	const struct s3_list_ops *ops = p->l->ops;
	int rc = key_rises(&p->prefix, prefix, len);

	return rc < 0 || !ops || !ops->common_prefix ? rc : ops->common_prefix(p->l->ops_ctx, prefix, len);
}

/* Parsed only when the body is whole: a page cut short must not look like a short directory. */
int s3_list_page(struct s3_list *l, const struct buf *body)
{
	static const struct s3_list_ops ops = { .object = page_object, .common_prefix = page_prefix };
	struct page page = { .l = l };
	struct s3_list_parser *p;
	const char *token = "";
	int rc;

	if (l->restart)
		l->restart(l);
	p = s3_list_parser_new(&ops, &page);
	if (!p)
		return -ENOMEM;
	rc = s3_list_parser_feed(p, body->data, body->len);
	if (rc == 0)
		rc = s3_list_parser_finish(p, &token);
	if (rc == 0 && token[0] && !(l->next_token = strdup(token)))
		rc = -ENOMEM;
	s3_list_parser_free(p);
	return rc;
}
