// SPDX-License-Identifier: Apache-2.0
/*
 * The streaming parser of ListBucketResult.
 *
 * Design: one element's text at a time is collected in a fixed buffer and handed out when its entry ends, without an
 * allocation per entry. Keys are percent-encoded only if the document says so, and some servers say it after the last
 * entry: until it is known, entries wait in a bounded buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/size.h"
#include "s3/uri.h"
#include "s3/xml.h"
#include "s3/xml_i.h"

#define TEXT_MAX (4 * 1024) /* a key of S3_KEY_MAX bytes is three times as long when each is encoded */
#define DOCUMENT_MAX_BYTES (64 * 1024 * 1024)
#define HELD_MAX_BYTES (32 * 1024 * 1024)

enum place { PLACE_LIST = 0, PLACE_OBJECT, PLACE_PREFIX };

enum field {
	FIELD_NONE = 0,
	FIELD_ENCODING,
	FIELD_TRUNCATED,
	FIELD_TOKEN,
	FIELD_KEY,
	FIELD_SIZE,
	FIELD_MTIME,
	FIELD_ETAG,
	FIELD_CLASS,
	FIELD_PREFIX,
};

static const struct {
	enum place place;
	const char *name;
	enum field field;
} fields[] = {
	{ PLACE_OBJECT, "Key", FIELD_KEY },
	{ PLACE_OBJECT, "Size", FIELD_SIZE },
	{ PLACE_OBJECT, "LastModified", FIELD_MTIME },
	{ PLACE_OBJECT, "ETag", FIELD_ETAG },
	{ PLACE_OBJECT, "StorageClass", FIELD_CLASS },
	{ PLACE_PREFIX, "Prefix", FIELD_PREFIX },
	{ PLACE_LIST, "EncodingType", FIELD_ENCODING },
	{ PLACE_LIST, "IsTruncated", FIELD_TRUNCATED },
	{ PLACE_LIST, "NextContinuationToken", FIELD_TOKEN },
};

struct s3_list_parser {
	struct xml_guard xml;
	const struct s3_list_ops *ops;
	void *ops_ctx;

	enum place place;
	enum field field;
	char text[TEXT_MAX + 1];
	size_t text_len;

	struct s3_list_object object;
	bool has_key, has_size;
	char key[TEXT_MAX + 1];
	size_t key_len;

	bool url_encoded, complete, has_truncated, truncated;
	char token[TEXT_MAX + 1];
	struct buf held; /* records: struct held_entry, key, NUL */
};

struct held_entry {
	bool is_prefix;
	size_t key_len;
	struct s3_list_object object; /* without the key */
};

static int entry_emit(struct s3_list_parser *p, bool is_prefix, struct s3_list_object *o, char *key, size_t len)
{
	int rc = 0;

	if (p->url_encoded)
		rc = s3_uri_decode(key, len, key, len, &len);
	if (rc < 0 || len > S3_KEY_MAX)
		return -EBADMSG;
	key[len] = '\0';
	if (is_prefix)
		return p->ops->common_prefix ? p->ops->common_prefix(p->ops_ctx, key, len) : 0;
	o->key = key;
	o->key_len = len;
	return p->ops->object ? p->ops->object(p->ops_ctx, o) : 0;
}

static int entry_hold(struct s3_list_parser *p, bool is_prefix, const struct s3_list_object *o, const char *key,
		      size_t len)
{
	struct held_entry h = { .is_prefix = is_prefix, .key_len = len, .object = *o };
	int rc;

	rc = buf_add(&p->held, &h, sizeof(h));
	if (!rc)
		rc = buf_add(&p->held, key, len);
	if (!rc)
		rc = buf_add(&p->held, "", 1);
	return rc == -E2BIG ? -EBADMSG : rc;
}

static int held_emit(struct s3_list_parser *p)
{
	int rc = 0;

	for (size_t at = 0; at < p->held.len && rc >= 0;) {
		struct held_entry h;

		memcpy(&h, p->held.data + at, sizeof(h));
		at += sizeof(h);
		rc = entry_emit(p, h.is_prefix, &h.object, p->held.data + at, h.key_len);
		at += h.key_len + 1;
	}
	buf_done(&p->held);
	return rc;
}

static int entry_end(struct s3_list_parser *p, bool is_prefix, char *key, size_t len)
{
	if (!len)
		return -EBADMSG;
	if (p->url_encoded)
		return entry_emit(p, is_prefix, &p->object, key, len);
	return entry_hold(p, is_prefix, &p->object, key, len);
}

static int object_end(struct s3_list_parser *p)
{
	if (!p->has_key || !p->has_size)
		return -EBADMSG;
	return entry_end(p, false, p->key, p->key_len);
}

static int encoding_end(struct s3_list_parser *p)
{
	if (!p->text_len || p->url_encoded)
		return 0;
	if (strcmp(p->text, "url"))
		return -EBADMSG;
	p->url_encoded = true;
	return held_emit(p);
}

static int truncated_end(struct s3_list_parser *p)
{
	p->truncated = !strcmp(p->text, "true");
	p->has_truncated = true;
	return p->truncated || !strcmp(p->text, "false") ? 0 : -EBADMSG;
}

static int class_end(struct s3_list_parser *p)
{
	struct s3_list_object *o = &p->object;

	o->storage_class = s3_storage_class_parse(p->text);
	s3_text_copy(o->storage_class_name, sizeof(o->storage_class_name), p->text, p->text_len);
	return 0;
}

static int field_end(struct s3_list_parser *p)
{
	struct s3_list_object *o = &p->object;

	p->text[p->text_len] = '\0';
	switch (p->field) {
	case FIELD_ENCODING:
		return encoding_end(p);
	case FIELD_TRUNCATED:
		return truncated_end(p);
	case FIELD_TOKEN:
		memcpy(p->token, p->text, p->text_len + 1);
		return 0;
	case FIELD_KEY:
		memcpy(p->key, p->text, p->text_len + 1);
		p->key_len = p->text_len;
		p->has_key = true;
		return 0;
	case FIELD_SIZE:
		p->has_size = true;
		return number_parse(p->text, 0, INT64_MAX, &o->size) ? -EBADMSG : 0;
	case FIELD_MTIME:
		return s3_time_parse_iso(p->text, &o->mtime) ? -EBADMSG : 0;
	case FIELD_ETAG:
		return s3_etag_parse(p->text, p->text_len, o->etag);
	case FIELD_CLASS:
		return class_end(p);
	case FIELD_PREFIX:
		return entry_end(p, true, p->text, p->text_len);
	case FIELD_NONE:
		break;
	}
	return 0;
}

static void place_start(struct s3_list_parser *p, const char *name)
{
	p->place = PLACE_LIST;
	if (!strcmp(name, "Contents")) {
		p->place = PLACE_OBJECT;
		p->object.size = 0;
		p->object.mtime = 0;
		p->object.etag[0] = p->object.storage_class_name[0] = '\0';
		p->object.storage_class = S3_CLASS_STANDARD;
		p->has_key = p->has_size = false;
	} else if (!strcmp(name, "CommonPrefixes")) {
		p->place = PLACE_PREFIX;
	}
}

static void list_start(void *ctx, const char *name, unsigned depth)
{
	struct s3_list_parser *p = ctx;

	if (p->field || (depth == 1 && strcmp(name, "ListBucketResult"))) {
		xml_guard_fail(&p->xml, -EBADMSG);
		return;
	}
	if (depth == 2)
		place_start(p, name);
	if (depth != (p->place == PLACE_LIST ? 2 : 3))
		return;
	for (size_t i = 0; i < array_len(fields); i++) {
		if (fields[i].place != p->place || strcmp(fields[i].name, name))
			continue;
		p->field = fields[i].field;
		p->text_len = 0;
		return;
	}
}

static void list_text(void *ctx, const char *s, size_t len, unsigned depth)
{
	struct s3_list_parser *p = ctx;

	if (!p->field)
		return;
	if (len > TEXT_MAX - p->text_len) {
		xml_guard_fail(&p->xml, -EBADMSG);
		return;
	}
	memcpy(p->text + p->text_len, s, len);
	p->text_len += len;
}

static void list_end(void *ctx, unsigned depth)
{
	struct s3_list_parser *p = ctx;
	int rc = 0;

	if (p->field) {
		rc = field_end(p);
		p->field = FIELD_NONE;
	} else if (depth == 2 && p->place == PLACE_OBJECT) {
		rc = object_end(p);
	} else if (depth == 1) {
		p->complete = true;
		rc = held_emit(p);
	}
	if (depth == 2)
		p->place = PLACE_LIST;
	if (rc < 0)
		xml_guard_fail(&p->xml, rc);
}

struct s3_list_parser *s3_list_parser_new(const struct s3_list_ops *ops, void *ctx)
{
	struct s3_list_parser *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->ops = ops;
	p->ops_ctx = ctx;
	buf_init(&p->held, HELD_MAX_BYTES);
	p->xml = (struct xml_guard){
		.ctx = p,
		.max_bytes = DOCUMENT_MAX_BYTES,
		.start = list_start,
		.text = list_text,
		.end = list_end,
	};
	if (xml_guard_init(&p->xml) < 0)
		return s3_list_parser_free(p);
	return p;
}

struct s3_list_parser *s3_list_parser_free(struct s3_list_parser *p)
{
	if (!p)
		return NULL;
	xml_guard_done(&p->xml);
	buf_done(&p->held);
	free(p);
	return NULL;
}

int s3_list_parser_feed(struct s3_list_parser *p, const void *bytes, size_t len)
{
	return xml_guard_feed(&p->xml, bytes, len);
}

int s3_list_parser_finish(struct s3_list_parser *p, const char **ret_token)
{
	int rc = xml_guard_finish(&p->xml);

	if (rc < 0)
		return rc;
	if (!p->complete || !p->has_truncated || (p->truncated && !p->token[0]))
		return -EBADMSG;
	*ret_token = p->truncated ? p->token : "";
	return 0;
}
