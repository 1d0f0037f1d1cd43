// SPDX-License-Identifier: Apache-2.0
/* ListObjectsV2, ListObjects, ListBuckets and the small requests on a bucket. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "request.h"

#define XML_HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define XMLNS " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define LIST_MAX_KEYS 1000

struct page {
	struct buf contents, prefixes;
	bool url; /* encoding-type */
	bool v1, no_etag;
	unsigned count;
	char last[REQUEST_KEY_MAX + 1];
	size_t last_len;
	bool last_is_prefix;
};

static void add_text(struct buf *b, bool url, const char *bytes, size_t len)
{
	if (url)
		xml_add_url(b, bytes, len);
	else
		xml_add_escaped(b, bytes, len);
}

static void add_element(struct buf *b, bool url, const char *tag, const char *bytes, size_t len)
{
	buf_addf(b, "<%s>", tag);
	add_text(b, url, bytes, len);
	buf_addf(b, "</%s>", tag);
}

static void page_add(void *ctx, const char *key, size_t key_len, const struct object *o)
{
	struct page *p = ctx;
	char etag[OBJECT_ETAG_MAX];

	p->count++;
	memcpy(p->last, key, key_len);
	p->last_len = key_len;
	p->last_is_prefix = !o;
	if (!o) {
		buf_add_str(&p->prefixes, "<CommonPrefixes><Prefix>");
		add_text(&p->prefixes, p->url, key, key_len);
		buf_add_str(&p->prefixes, "</Prefix></CommonPrefixes>");
		return;
	}
	buf_add_str(&p->contents, "<Contents><Key>");
	add_text(&p->contents, p->url, key, key_len);
	buf_add_str(&p->contents, "</Key>");
	xml_add_time(&p->contents, "LastModified", o->mtime_s);
	object_etag(o, etag);
	etag[strlen(etag) - 1] = '\0';
	if (!p->no_etag)
		buf_addf(&p->contents, "<ETag>&quot;%s&quot;</ETag>", etag + 1);
	buf_addf(&p->contents, "<Size>%llu</Size><StorageClass>%s</StorageClass></Contents>",
		 (unsigned long long)o->size,
		 o->attrs && o->attrs->storage_class[0] ? o->attrs->storage_class : "STANDARD");
}

/* A token is "k" or "p" (behind every key with this prefix) and the bytes of the last entry in hexadecimal. */
static int token_parse(const char *token, char *after, size_t *ret_len, bool *ret_prefix)
{
	size_t n = strlen(token);

	if (n % 2 != 1 || n / 2 > REQUEST_KEY_MAX || (*token != 'k' && *token != 'p'))
		return -EINVAL;
	*ret_prefix = *token == 'p';
	*ret_len = n / 2;
	for (size_t i = 0; i < n / 2; i++) {
		unsigned byte;

		if (sscanf(token + 1 + 2 * i, "%2x", &byte) != 1)
			return -EINVAL;
		after[i] = (char)byte;
	}
	return 0;
}

static void token_add(struct buf *b, const struct page *p)
{
	buf_add(b, p->last_is_prefix ? "p" : "k", 1);
	for (size_t i = 0; i < p->last_len; i++)
		buf_addf(b, "%02x", (unsigned char)p->last[i]);
}

static int list_start(const struct request *rq, bool v1, struct store_list *l, char after[REQUEST_KEY_MAX])
{
	const struct text *from = request_param(rq, v1 ? "marker" : "start-after");
	const char *token = v1 ? NULL : request_param_str(rq, "continuation-token", NULL);

	l->after = after;
	if (token && !*token)
		return -EINVAL;
	/* "k" alone is the token of a first page that a list_repeat fault gave out */
	if (token && (token[1] || !from))
		return token_parse(token, after, &l->after_len, &l->after_prefix);
	if (from && from->len > REQUEST_KEY_MAX)
		return -EINVAL;
	if (from)
		memcpy(after, from->bytes, from->len);
	l->after_len = from ? from->len : 0;
	l->after_prefix = false;
	/* ListObjects has no tokens: its marker may be a common prefix, and then means all of it */
	if (v1 && from && l->delimiter_len && from->len >= l->delimiter_len)
		l->after_prefix = !memcmp(from->bytes + from->len - l->delimiter_len, l->delimiter, l->delimiter_len);
	return 0;
}

static void list_add_next(struct request *rq, struct buf *b, const struct page *p, bool more)
{
	const char *given = request_param_str(rq, "continuation-token", "k");

	if (rq->fault.kind == FAULT_LIST_REPEAT) {
		buf_addf(b, "<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>", given);
		return;
	}
	buf_addf(b, "<IsTruncated>%s</IsTruncated>", more ? "true" : "false");
	if (!more)
		return;
	if (p->v1) {
		add_element(b, p->url, "NextMarker", p->last, p->last_len);
		return;
	}
	buf_add_str(b, "<NextContinuationToken>");
	token_add(b, p);
	buf_add_str(b, "</NextContinuationToken>");
}

static void list_reply(struct request *rq, struct page *p, const struct store_list *l, unsigned max_keys, bool more)
{
	const struct text *after = request_param(rq, p->v1 ? "marker" : "start-after");
	_cleanup_buf_ struct buf b;

	buf_init(&b, REQUEST_XML_MAX);
	buf_add_str(&b, XML_HEAD "<ListBucketResult" XMLNS ">");
	add_element(&b, false, "Name", rq->bucket, strlen(rq->bucket));
	add_element(&b, p->url, "Prefix", l->prefix, l->prefix_len);
	if (l->delimiter_len)
		add_element(&b, p->url, "Delimiter", l->delimiter, l->delimiter_len);
	if (after || p->v1)
		add_element(&b, p->url, p->v1 ? "Marker" : "StartAfter", after ? after->bytes : "",
			    after ? after->len : 0);
	if (p->url)
		buf_add_str(&b, "<EncodingType>url</EncodingType>");
	buf_addf(&b, "<MaxKeys>%u</MaxKeys>", max_keys);
	if (!p->v1)
		buf_addf(&b, "<KeyCount>%u</KeyCount>", p->count);
	list_add_next(rq, &b, p, more);
	buf_add(&b, buf_str(&p->contents), p->contents.len);
	buf_add(&b, buf_str(&p->prefixes), p->prefixes.len);
	if (buf_add_str(&b, "</ListBucketResult>") < 0) {
		reply_errno(rq, -ENOMEM);
		return;
	}
	if (rq->fault.kind == FAULT_BAD_XML)
		b.len /= 2;
	reply_xml(rq, 200, &b);
}

void op_list(struct request *rq)
{
	static const struct text none = { .bytes = (char *)"" };
	const struct text *prefix = request_param(rq, "prefix"), *delimiter = request_param(rq, "delimiter");
	struct page page = { .v1 = rq->op == OP_LIST_V1, .no_etag = rq->fault.kind == FAULT_NO_ETAG };
	char after[REQUEST_KEY_MAX];
	uint64_t max_keys;
	bool more = false;
	int rc;

	prefix = prefix ? prefix : &none;
	delimiter = delimiter ? delimiter : &none;
	struct store_list l = { .prefix = prefix->bytes,
				.prefix_len = prefix->len,
				.delimiter = delimiter->bytes,
				.delimiter_len = delimiter->len,
				.each = page_add,
				.ctx = &page };

	page.url = !strcmp(request_param_str(rq, "encoding-type", ""), "url");
	buf_init(&page.contents, REQUEST_XML_MAX);
	buf_init(&page.prefixes, REQUEST_XML_MAX);
	rc = request_param_u64(rq, "max-keys", LIST_MAX_KEYS, &max_keys);
	if (!rc)
		rc = list_start(rq, page.v1, &l, after);
	l.max = (unsigned)min_of(max_keys, (uint64_t)LIST_MAX_KEYS);
	if (!rc)
		rc = store_list(rq->server->store, rq->bucket, &l, &more);
	if (rc < 0)
		reply_errno(rq, rc);
	else
		list_reply(rq, &page, &l, l.max, more && l.max);
	buf_done(&page.contents);
	buf_done(&page.prefixes);
}

static void add_bucket(void *ctx, const char *bucket, int64_t created_s)
{
	struct buf *b = ctx;

	buf_add_str(b, "<Bucket>");
	add_element(b, false, "Name", bucket, strlen(bucket));
	xml_add_time(b, "CreationDate", created_s);
	buf_add_str(b, "</Bucket>");
}

void op_buckets(struct request *rq)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, REQUEST_XML_MAX);
	buf_add_str(&b, XML_HEAD "<ListAllMyBucketsResult" XMLNS "><Owner><ID>s3d</ID></Owner><Buckets>");
	store_buckets(rq->server->store, add_bucket, &b);
	buf_add_str(&b, "</Buckets></ListAllMyBucketsResult>");
	reply_xml(rq, 200, &b);
}

static void bucket_location(struct request *rq)
{
	const char *region = rq->server->cfg.region;
	_cleanup_buf_ struct buf b;

	buf_init(&b, 1024);
	buf_addf(&b, XML_HEAD "<LocationConstraint" XMLNS ">%s</LocationConstraint>",
		 strcmp(region, "us-east-1") ? region : "");
	reply_xml(rq, 200, &b);
}

static void bucket_create(struct request *rq)
{
	if (store_bucket_create(rq->server->store, rq->bucket) == -EEXIST) {
		reply_error(rq, 409, "BucketAlreadyOwnedByYou", "The bucket exists already and is yours.");
		return;
	}
	reply_header(rq, "Location", "/%s", rq->bucket);
	reply_empty(rq, 200);
}

static void bucket_delete(struct request *rq)
{
	int rc = store_bucket_delete(rq->server->store, rq->bucket);

	if (rc == -ENOTEMPTY)
		reply_error(rq, 409, "BucketNotEmpty", "The bucket you tried to delete is not empty");
	else if (rc < 0)
		reply_errno(rq, rc);
	else
		reply_empty(rq, 204);
}

void op_bucket(struct request *rq)
{
	struct bucket_flags flags;

	if (rq->op == OP_BUCKET_CREATE) {
		bucket_create(rq);
	} else if (rq->op == OP_BUCKET_DELETE) {
		bucket_delete(rq);
	} else if (store_bucket_flags(rq->server->store, rq->bucket, &flags) < 0) {
		reply_errno(rq, -ENXIO);
	} else if (rq->op == OP_BUCKET_LOCATION) {
		bucket_location(rq);
	} else {
		reply_header(rq, "x-amz-bucket-region", "%s", rq->server->cfg.region);
		reply_empty(rq, 200);
	}
}
