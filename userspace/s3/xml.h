/* SPDX-License-Identifier: Apache-2.0 */
/*
 * S3's XML: list results, errors, STS replies. Pure: fed with bytes, hands out parsed entries. Hostile input
 * (entity bombs, endless depth, oversized fields, garbage) ends in -EBADMSG, never in memory without bound.
 */
#ifndef PENSTOCK_S3_XML_H
#define PENSTOCK_S3_XML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "s3/sigv4.h"

#define S3_ETAG_MAX 127 /* bytes, quotes stripped */

/* Strips quotes and W/. -EBADMSG for what could not go back into an If-Match header, and above S3_ETAG_MAX bytes. */
int s3_etag_parse(const char *text, size_t len, char ret[S3_ETAG_MAX + 1]);
/* Copies text for people: control characters become '?', what does not fit is cut off. */
void s3_text_copy(char *dst, size_t room, const char *src, size_t len);

enum s3_storage_class {
	S3_CLASS_STANDARD = 0, /* also everything that can be read at once and is not named below */
	S3_CLASS_GLACIER,      /* archived: must be restored first */
	S3_CLASS_DEEP_ARCHIVE,
	S3_CLASS_INTELLIGENT_ARCHIVE, /* known only from HEAD (x-amz-archive-status) */
	S3_CLASS_OTHER,               /* readable: STANDARD_IA, ONEZONE_IA, GLACIER_IR, EXPRESS_ONEZONE ... */
};
enum s3_storage_class s3_storage_class_parse(const char *text);
bool s3_storage_class_archived(enum s3_storage_class c);

struct s3_list_object {
	const char *key; /* whole key, decoded, NUL-terminated; valid during the call */
	size_t key_len;  /* differs from strlen(key) when the key holds a NUL */
	uint64_t size;
	time_t mtime;
	char etag[S3_ETAG_MAX + 1]; /* quotes stripped; "" when the server sends none */
	enum s3_storage_class storage_class;
	char storage_class_name[32]; /* as sent; "" = none */
};

struct s3_list_ops {
	/* Each may return -errno to stop; it is then what feed/finish returns. */
	int (*object)(void *ctx, const struct s3_list_object *o);
	int (*common_prefix)(void *ctx, const char *prefix, size_t len);
};

struct s3_list_parser;
struct s3_list_parser *s3_list_parser_new(const struct s3_list_ops *ops, void *ctx); /* NULL = no memory */
struct s3_list_parser *s3_list_parser_free(struct s3_list_parser *p);                /* returns NULL */
/*
 * Feeds the next bytes of the body. The encoding-type of the reply (url) is honoured; from servers that name it late or
 * never, entries come out once it is known. -EBADMSG on anything malformed, a key over S3_KEY_MAX bytes included.
 */
int s3_list_parser_feed(struct s3_list_parser *p, const void *bytes, size_t len);
/*
 * After the last byte: -EBADMSG if the document is not a complete ListBucketResult (a truncated or foreign body
 * must never look like an empty directory), or if IsTruncated is true and no NextContinuationToken is there.
 * *ret_token is "" when this was the last page; valid until the parser is freed.
 */
int s3_list_parser_finish(struct s3_list_parser *p, const char **ret_token);

struct s3_error_body {
	char code[64];
	char message[256]; /* control characters replaced */
	char region[64];
	char endpoint[256];
	char request_id[128];
};
/* An <Error> document; missing fields are "". -EBADMSG if it is not one. */
int s3_error_parse(const void *bytes, size_t len, struct s3_error_body *ret);

/* AssumeRoleWithWebIdentity's result; -EBADMSG if fields are missing. */
int s3_sts_parse(const void *bytes, size_t len, struct s3_creds *ret);

/* ISO 8601 in UTC, "2026-11-23T08:34:59.000Z", fraction optional; -EINVAL otherwise. */
int s3_time_parse_iso(const char *text, time_t *ret);
/* RFC 7231 date, "Sun, 06 Nov 1994 08:49:37 GMT". */
int s3_time_parse_http(const char *text, time_t *ret);

#endif
