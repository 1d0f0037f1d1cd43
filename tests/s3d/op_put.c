// SPDX-License-Identifier: Apache-2.0
/* PutObject, CopyObject, DeleteObject, DeleteObjects; the checks that uploads of parts share. */
#include "op_put.h"

#include <errno.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

#define XML_HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define XMLNS " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

static bool class_archived(const char *name)
{
	return !strcmp(name, "GLACIER") || !strcmp(name, "DEEP_ARCHIVE");
}

void attrs_set_class(struct attrs *a, const char *name)
{
	snprintf(a->storage_class, sizeof(a->storage_class), "%s", name ? name : "");
	a->archived = class_archived(a->storage_class);
}

static bool header_is_kept(const char *name)
{
	static const char *const kept[] = { "Content-Type", "Cache-Control", "Content-Disposition", "Content-Language",
					    "Expires" };

	for (size_t i = 0; i < array_len(kept); i++)
		if (!strcasecmp(name, kept[i]))
			return true;
	return !strncasecmp(name, "x-amz-meta-", 11);
}

int put_attrs(struct request *rq, struct attrs **ret)
{
	struct evkeyvalq *headers = evhttp_request_get_input_headers(rq->http);
	struct attrs *a = attrs_new();

	if (!a)
		return -ENOMEM;
	for (struct evkeyval *h = headers->tqh_first; h; h = h->next.tqe_next) {
		int rc = header_is_kept(h->key) ? attrs_add(a, h->key, h->value) : 0;

		if (rc < 0) {
			attrs_put(a);
			return rc;
		}
	}
	attrs_set_class(a, request_header(rq, "x-amz-storage-class"));
	*ret = a;
	return 0;
}

static int check_md5(struct request *rq, const unsigned char md5[16])
{
	const char *sent = request_header(rq, "Content-MD5");
	char text[DIGEST_BASE64_MAX];

	digest_base64(md5, 16, text);
	if (!sent || !strcmp(sent, text))
		return 0;
	reply_error(rq, 400, strlen(sent) == strlen(text) ? "BadDigest" : "InvalidDigest",
		    "The Content-MD5 you specified did not match what we received.");
	return -EBADMSG;
}

static int check_checksum(struct request *rq, enum digest_kind kind, const char *sent, char ret[DIGEST_BASE64_MAX])
{
	unsigned char value[DIGEST_MAX_BYTES];
	size_t len;

	if (evbuffer_digest(rq->body, kind, value, &len) < 0) {
		reply_errno(rq, -ENOMEM);
		return -ENOMEM;
	}
	digest_base64(value, len, ret);
	if (!strcmp(sent, ret))
		return 0;
	reply_error(rq, 400, "BadDigest", "The %s you specified did not match the calculated checksum.",
		    digest_kind_name(kind));
	return -EBADMSG;
}

int put_checks(struct request *rq, struct put_sums *ret)
{
	size_t len;
	int rc = chunked_decode(rq);

	if (rc < 0)
		return rc;
	*ret = (struct put_sums){ 0 };
	if (evbuffer_digest(rq->body, DIGEST_MD5, ret->md5, &len) < 0) {
		reply_errno(rq, -ENOMEM);
		return -ENOMEM;
	}
	rc = check_md5(rq, ret->md5);
	for (int k = DIGEST_CRC32; k <= DIGEST_SHA256 && !rc; k++) {
		char name[64];
		const char *sent;

		snprintf(name, sizeof(name), "x-amz-checksum-%s", digest_kind_name((enum digest_kind)k));
		sent = request_header(rq, name);
		if (!sent && rq->trailers)
			sent = evhttp_find_header(rq->trailers, name);
		if (!sent)
			continue;
		ret->kind = (enum digest_kind)k;
		rc = check_checksum(rq, ret->kind, sent, ret->checksum);
	}
	return rc;
}

/* Conditional writes. 0, or the error has been recorded. */
static int check_conditions(struct request *rq)
{
	const char *match = request_header(rq, "If-Match"), *none = request_header(rq, "If-None-Match");
	char etag[OBJECT_ETAG_MAX] = "";
	struct object *o;
	bool there;

	if (!match && !none)
		return 0;
	there = !store_get(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, &o);
	if (there) {
		object_etag(o, etag);
		object_put(o);
	}
	if (match && !there) {
		reply_errno(rq, -ENOENT);
		return -ENOENT;
	}
	if ((match && strcmp(match, "*") && strcmp(match, etag)) || (none && there)) {
		reply_error(rq, 412, "PreconditionFailed",
			    "At least one of the pre-conditions you specified did not hold");
		return -EEXIST;
	}
	return 0;
}

static int put_object(struct request *rq, struct attrs *attrs, const struct put_sums *sums, struct object **ret)
{
	struct body *body;
	struct object *o;
	int rc;

	attrs->checksum_kind = sums->kind;
	memcpy(attrs->checksum, sums->checksum, sizeof(sums->checksum));
	rc = body_new(rq->body, store_dir(rq->server->store), &body);
	if (rc < 0)
		return rc;
	rc = object_new(&body, 1, attrs, &o);
	body_put(body);
	if (rc < 0)
		return rc;
	memcpy(o->md5, sums->md5, sizeof(o->md5));
	rc = store_put(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, o);
	if (rc < 0)
		object_put(o);
	else
		*ret = o;
	return rc;
}

void op_put(struct request *rq)
{
	struct attrs *attrs = NULL;
	struct put_sums sums;
	struct object *o = NULL;
	int rc;

	if (check_conditions(rq) || put_checks(rq, &sums))
		return;
	rc = put_attrs(rq, &attrs);
	if (!rc)
		rc = put_object(rq, attrs, &sums, &o);
	attrs_put(attrs);
	if (rc < 0) {
		reply_errno(rq, rc);
		return;
	}
	put_reply_headers(rq, &sums, o);
	object_put(o);
	reply_empty(rq, 200);
}

void put_reply_headers(struct request *rq, const struct put_sums *sums, const struct object *o)
{
	char etag[OBJECT_ETAG_MAX], name[64];

	if (o) {
		object_etag(o, etag);
		reply_header(rq, "ETag", "%s", etag);
	}
	if (sums->kind) {
		snprintf(name, sizeof(name), "x-amz-checksum-%s", digest_kind_name(sums->kind));
		reply_header(rq, name, "%s", sums->checksum);
	}
}

/* "/bucket/key" or "bucket/key", encoded. */
static int copy_source(struct request *rq, struct object **ret)
{
	const char *source = request_header(rq, "x-amz-copy-source");
	struct text path;
	char *slash;
	int rc;

	source += *source == '/';
	rc = text_decode(source, strcspn(source, "?"), &path);
	if (rc < 0)
		return rc;
	slash = memchr(path.bytes, '/', path.len);
	if (slash) {
		*slash = '\0';
		rc = store_get(rq->server->store, path.bytes, slash + 1, path.len - (size_t)(slash + 1 - path.bytes),
			       ret);
	} else {
		rc = -EINVAL;
	}
	free(path.bytes);
	return rc;
}

void op_copy(struct request *rq)
{
	const char *directive = request_header(rq, "x-amz-metadata-directive");
	struct object *from = NULL, *o = NULL;
	_cleanup_buf_ struct buf b;
	struct attrs *attrs = NULL;
	char etag[OBJECT_ETAG_MAX];
	int rc;

	buf_init(&b, 4096);
	rc = copy_source(rq, &from);
	if (!rc && directive && !strcasecmp(directive, "REPLACE"))
		rc = put_attrs(rq, &attrs);
	else if (!rc)
		attrs = attrs_get(from->attrs);
	if (!rc)
		rc = object_copy(from, attrs, &o);
	if (!rc) {
		o->mtime_s = server_now_s(rq->server);
		rc = store_put(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, o);
	}
	if (rc < 0) {
		reply_errno(rq, rc);
	} else {
		object_etag(o, etag);
		buf_addf(&b, XML_HEAD "<CopyObjectResult" XMLNS "><ETag>%s</ETag>", etag);
		xml_add_time(&b, "LastModified", o->mtime_s);
		buf_add_str(&b, "</CopyObjectResult>");
		reply_xml(rq, 200, &b);
	}
	attrs_put(attrs);
	object_put(from);
	object_put(o);
}

void op_delete(struct request *rq)
{
	int rc = store_delete(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len);

	if (rc < 0 && rc != -ENOENT)
		reply_errno(rq, rc);
	else
		reply_empty(rq, 204);
}

struct delete_many {
	struct request *rq;
	struct buf b;
	unsigned count;
};

static int delete_one(void *ctx, char *const values[XML_FIELDS])
{
	struct delete_many *d = ctx;
	int rc = store_delete(d->rq->server->store, d->rq->bucket, values[0], strlen(values[0]));

	if (++d->count > 1000)
		return -E2BIG;
	if (rc < 0 && rc != -ENOENT)
		return rc;
	buf_add_str(&d->b, "<Deleted><Key>");
	xml_add_escaped(&d->b, values[0], strlen(values[0]));
	return buf_add_str(&d->b, "</Key></Deleted>");
}

void op_delete_many(struct request *rq)
{
	struct delete_many d = { .rq = rq };
	int rc = chunked_decode(rq);

	if (rc < 0)
		return;
	buf_init(&d.b, REQUEST_XML_MAX);
	buf_add_str(&d.b, XML_HEAD "<DeleteResult" XMLNS ">");
	rc = xml_each_item(rq->body, "Object", (const char *const[XML_FIELDS]){ "Key" }, delete_one, &d);
	if (!rc)
		rc = buf_add_str(&d.b, "</DeleteResult>");
	if (rc < 0)
		reply_errno(rq, rc);
	else
		reply_xml(rq, 200, &d.b);
	buf_done(&d.b);
}
