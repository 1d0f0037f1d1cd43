// SPDX-License-Identifier: Apache-2.0
/* Multipart uploads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "op_put.h"

#define XML_HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define XMLNS " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

static const char *upload_id(const struct request *rq)
{
	return request_param_str(rq, "uploadId", "");
}

static void add_names(struct request *rq, struct buf *b)
{
	buf_add_str(b, "<Bucket>");
	xml_add_escaped(b, rq->bucket, strlen(rq->bucket));
	buf_add_str(b, "</Bucket><Key>");
	xml_add_escaped(b, rq->key.bytes, rq->key.len);
	buf_add_str(b, "</Key>");
}

void op_upload_create(struct request *rq)
{
	const char *kind = request_header(rq, "x-amz-checksum-algorithm"),
		   *type = request_header(rq, "x-amz-checksum-type");
	struct upload_info info = { .checksum_kind = digest_kind_parse(kind) };
	struct attrs *attrs = NULL;
	_cleanup_buf_ struct buf b;
	char id[UPLOAD_ID_MAX];
	int rc;

	buf_init(&b, 16384);
	info.checksum_composite = type ? !strcasecmp(type, "COMPOSITE") : info.checksum_kind != DIGEST_CRC64NVME;
	rc = put_attrs(rq, &attrs);
	if (!rc)
		rc = store_upload_create(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, attrs, info, id);
	attrs_put(attrs);
	if (rc < 0) {
		reply_errno(rq, rc);
		return;
	}
	if (info.checksum_kind) {
		reply_header(rq, "x-amz-checksum-algorithm", "%s", kind);
		reply_header(rq, "x-amz-checksum-type", info.checksum_composite ? "COMPOSITE" : "FULL_OBJECT");
	}
	buf_add_str(&b, XML_HEAD "<InitiateMultipartUploadResult" XMLNS ">");
	add_names(rq, &b);
	buf_addf(&b, "<UploadId>%s</UploadId></InitiateMultipartUploadResult>", id);
	reply_xml(rq, 200, &b);
}

void op_upload_part(struct request *rq)
{
	struct upload_info info;
	struct part part = { 0 };
	struct put_sums sums;
	char etag[33];
	uint64_t number;
	int rc;

	rc = request_param_u64(rq, "partNumber", 0, &number);
	if (!rc && (number < 1 || number > UPLOAD_PARTS_MAX))
		rc = -EINVAL;
	if (!rc)
		rc = store_upload_info(rq->server->store, upload_id(rq), &info);
	if (rc < 0) {
		reply_errno(rq, rc);
		return;
	}
	if (put_checks(rq, &sums))
		return;
	memcpy(part.md5, sums.md5, sizeof(part.md5));
	if (info.checksum_kind)
		rc = evbuffer_digest(rq->body, info.checksum_kind, part.sum, &part.sum_len);
	if (!rc)
		rc = body_new(rq->body, store_dir(rq->server->store), &part.body);
	if (!rc)
		rc = store_upload_part(rq->server->store, upload_id(rq), (unsigned)number, &part);
	body_put(part.body);
	if (rc < 0) {
		reply_errno(rq, rc);
		return;
	}
	digest_hex(part.md5, sizeof(part.md5), etag);
	reply_header(rq, "ETag", "\"%s\"", etag);
	put_reply_headers(rq, &sums, NULL);
	reply_empty(rq, 200);
}

struct complete {
	struct request *rq;
	struct upload_info info;
	unsigned last, nr;
	struct body *bodies[UPLOAD_PARTS_MAX];
	struct digest md5, sums;
	bool bad_order, bad_part;
};

static int complete_part(void *ctx, char *const values[XML_FIELDS])
{
	struct complete *c = ctx;
	unsigned number = (unsigned)strtoul(values[0], NULL, 10);
	struct part part;
	char etag[33];
	int rc;

	c->bad_order = number <= c->last;
	if (c->bad_order)
		return -EINVAL;
	c->last = number;
	rc = store_upload_part_get(c->rq->server->store, upload_id(c->rq), number, &part);
	if (rc == -ENOENT) {
		c->bad_part = true;
		return -EINVAL;
	}
	if (rc < 0)
		return rc;
	c->bodies[c->nr++] = part.body;
	digest_hex(part.md5, sizeof(part.md5), etag);
	c->bad_part = !strstr(values[1], etag);
	if (c->bad_part)
		return -EINVAL;
	digest_update(&c->md5, part.md5, sizeof(part.md5));
	if (c->info.checksum_kind)
		digest_update(&c->sums, part.sum, part.sum_len);
	return 0;
}

/* The whole object's checksum, compared with the one that came with the request. */
static int complete_checksum(struct complete *c, struct attrs *attrs, struct object *o)
{
	unsigned char value[DIGEST_MAX_BYTES];
	const char *sent;
	char name[64];
	size_t len;
	int rc;

	if (!c->info.checksum_kind)
		return 0;
	attrs->checksum_kind = c->info.checksum_kind;
	attrs->checksum_composite = c->info.checksum_composite;
	len = digest_final(&c->sums, value);
	if (!c->info.checksum_composite) {
		rc = object_digest(o, c->info.checksum_kind, value, &len);
		if (rc < 0)
			return rc;
	}
	digest_base64(value, len, attrs->checksum);
	if (c->info.checksum_composite)
		snprintf(attrs->checksum + strlen(attrs->checksum), 8, "-%u", c->nr);
	snprintf(name, sizeof(name), "x-amz-checksum-%s", digest_kind_name(c->info.checksum_kind));
	sent = request_header(c->rq, name);
	return sent && strcmp(sent, attrs->checksum) ? -EBADE : 0;
}

static int complete_object(struct complete *c, struct object **ret)
{
	struct attrs *kept = NULL, *attrs = NULL;
	unsigned char md5[DIGEST_MAX_BYTES];
	struct request *rq = c->rq;
	struct object *o = NULL;
	int rc;

	rc = store_upload_attrs(rq->server->store, upload_id(rq), &kept);
	if (!rc) {
		attrs = attrs_copy(kept);
		rc = attrs ? object_new(c->bodies, c->nr, attrs, &o) : -ENOMEM;
	}
	if (!rc)
		rc = complete_checksum(c, attrs, o);
	if (!rc) {
		digest_final(&c->md5, md5);
		memcpy(o->md5, md5, sizeof(o->md5));
		o->etag_parts = c->nr;
		rc = store_put(rq->server->store, rq->bucket, rq->key.bytes, rq->key.len, o);
	}
	attrs_put(kept);
	attrs_put(attrs);
	if (rc < 0)
		object_put(o);
	else
		*ret = o;
	return rc;
}

static void complete_reply(struct request *rq, const struct object *o)
{
	char etag[OBJECT_ETAG_MAX];
	_cleanup_buf_ struct buf b;

	buf_init(&b, 16384);
	object_etag(o, etag);
	buf_add_str(&b, XML_HEAD "<CompleteMultipartUploadResult" XMLNS ">");
	add_names(rq, &b);
	buf_addf(&b, "<ETag>%s</ETag>", etag);
	if (o->attrs && o->attrs->checksum_kind == DIGEST_CRC64NVME)
		buf_addf(&b, "<ChecksumCRC64NVME>%s</ChecksumCRC64NVME>", o->attrs->checksum);
	buf_add_str(&b, "</CompleteMultipartUploadResult>");
	reply_xml(rq, 200, &b);
}

static void complete_run(struct complete *c)
{
	static const char *const fields[XML_FIELDS] = { "PartNumber", "ETag" };
	struct request *rq = c->rq;
	struct object *o = NULL;
	int rc = xml_each_item(rq->body, "Part", fields, complete_part, c);

	if (!rc && !c->nr)
		rc = -EBADMSG;
	if (!rc)
		rc = complete_object(c, &o);
	if (c->bad_order) {
		reply_error(rq, 400, "InvalidPartOrder", "The list of parts was not in ascending order.");
	} else if (c->bad_part) {
		reply_error(rq, 400, "InvalidPart", "A part is not there or its ETag is another.");
	} else if (rc == -EBADE) {
		reply_error(rq, 400, "BadDigest", "The checksum you specified did not match the whole object's.");
	} else if (rc < 0) {
		reply_errno(rq, rc);
	} else {
		complete_reply(rq, o);
		object_put(o);
		store_upload_end(rq->server->store, upload_id(rq));
	}
}

void op_upload_complete(struct request *rq)
{
	_cleanup_free_ struct complete *c = calloc(1, sizeof(*c));
	unsigned char unused[DIGEST_MAX_BYTES];
	int rc;

	if (!c) {
		reply_errno(rq, -ENOMEM);
		return;
	}
	c->rq = rq;
	rc = store_upload_info(rq->server->store, upload_id(rq), &c->info);
	if (!rc)
		rc = digest_init(&c->md5, DIGEST_MD5);
	if (!rc && c->info.checksum_kind)
		rc = digest_init(&c->sums, c->info.checksum_kind);
	if (rc < 0)
		reply_errno(rq, rc);
	else
		complete_run(c);
	if (c->md5.evp)
		digest_final(&c->md5, unused);
	if (c->sums.evp)
		digest_final(&c->sums, unused);
	for (unsigned i = 0; i < c->nr; i++)
		body_put(c->bodies[i]);
}

void op_upload_abort(struct request *rq)
{
	int rc = store_upload_end(rq->server->store, upload_id(rq));

	if (rc < 0)
		reply_errno(rq, rc);
	else
		reply_empty(rq, 204);
}

void op_upload_parts(struct request *rq)
{
	struct upload_info info;
	_cleanup_buf_ struct buf b;
	struct part part;
	char etag[33];
	int rc = store_upload_info(rq->server->store, upload_id(rq), &info);

	buf_init(&b, REQUEST_XML_MAX);
	if (rc < 0) {
		reply_errno(rq, rc);
		return;
	}
	buf_add_str(&b, XML_HEAD "<ListPartsResult" XMLNS ">");
	add_names(rq, &b);
	buf_addf(&b, "<UploadId>%s</UploadId><IsTruncated>false</IsTruncated>", upload_id(rq));
	for (unsigned i = 1; i <= UPLOAD_PARTS_MAX; i++) {
		if (store_upload_part_get(rq->server->store, upload_id(rq), i, &part))
			continue;
		digest_hex(part.md5, sizeof(part.md5), etag);
		buf_addf(&b, "<Part><PartNumber>%u</PartNumber><ETag>&quot;%s&quot;</ETag><Size>%llu</Size></Part>", i,
			 etag, (unsigned long long)part.body->size);
		body_put(part.body);
	}
	buf_add_str(&b, "</ListPartsResult>");
	reply_xml(rq, 200, &b);
}

static void add_upload(void *ctx, const char *key, size_t key_len, const char *id)
{
	struct buf *b = ctx;

	buf_add_str(b, "<Upload><Key>");
	xml_add_escaped(b, key, key_len);
	buf_addf(b, "</Key><UploadId>%s</UploadId></Upload>", id);
}

void op_uploads(struct request *rq)
{
	struct bucket_flags flags;
	_cleanup_buf_ struct buf b;

	buf_init(&b, REQUEST_XML_MAX);
	if (store_bucket_flags(rq->server->store, rq->bucket, &flags) < 0) {
		reply_errno(rq, -ENXIO);
		return;
	}
	buf_add_str(&b, XML_HEAD "<ListMultipartUploadsResult" XMLNS "><Bucket>");
	xml_add_escaped(&b, rq->bucket, strlen(rq->bucket));
	buf_add_str(&b, "</Bucket><IsTruncated>false</IsTruncated>");
	store_uploads(rq->server->store, rq->bucket, add_upload, &b);
	buf_add_str(&b, "</ListMultipartUploadsResult>");
	reply_xml(rq, 200, &b);
}
