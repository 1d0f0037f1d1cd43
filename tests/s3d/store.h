/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buckets, objects and uploads in progress. The index lives in memory and ends with the server.
 * Threads: any; one lock inside.
 *
 * -ENXIO = no such bucket, -ENOENT = no such key, -ESRCH = no such upload.
 */
#ifndef S3D_STORE_H
#define S3D_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "index.h"
#include "object.h"

struct store;

struct bucket_flags {
	bool public;
	bool requester_pays;
};

int store_new(const char *dir, struct store **ret); /* dir NULL = bodies in memory */
struct store *store_free(struct store *s);
const char *store_dir(const struct store *s);

int store_bucket_create(struct store *s, const char *bucket); /* -EEXIST */
int store_bucket_delete(struct store *s, const char *bucket); /* -ENOTEMPTY */
int store_bucket_flags(struct store *s, const char *bucket, struct bucket_flags *ret);
int store_bucket_flags_set(struct store *s, const char *bucket, struct bucket_flags flags);
void store_buckets(struct store *s, void (*each)(void *ctx, const char *bucket, int64_t created_s), void *ctx);

int store_get(struct store *s, const char *bucket, const char *key, size_t key_len, struct object **ret);
/* The store takes a reference of its own. */
int store_put(struct store *s, const char *bucket, const char *key, size_t key_len, struct object *o);
int store_delete(struct store *s, const char *bucket, const char *key, size_t key_len);
/* Puts a synthetic object that has never been there before: other bytes, another ETag. */
int store_replace(struct store *s, const char *bucket, const char *key, size_t key_len, uint64_t size);
/* Synthetic objects "<prefix>%08u" of <size> bytes each; the bucket is created if missing. */
int store_generate(struct store *s, const char *bucket, const char *prefix, unsigned count, uint64_t size);

struct store_list {
	const char *prefix, *delimiter;
	size_t prefix_len, delimiter_len;
	/* Starts after this key; with <after_prefix> after every key that begins with it. */
	const char *after;
	size_t after_len;
	bool after_prefix;
	unsigned max;
	/* <object> is NULL for a common prefix. Runs under the store's lock. */
	void (*each)(void *ctx, const char *key, size_t key_len, const struct object *object);
	void *ctx;
};
/* *ret_more: the page ended before the keys did. */
int store_list(struct store *s, const char *bucket, const struct store_list *l, bool *ret_more);

#define UPLOAD_ID_MAX 33
#define UPLOAD_PARTS_MAX 10000

struct part {
	struct body *body; /* NULL = not uploaded */
	unsigned char md5[16];
	unsigned char sum[DIGEST_MAX_BYTES]; /* of the upload's checksum kind */
	size_t sum_len;
};

struct upload_info {
	enum digest_kind checksum_kind;
	bool checksum_composite;
};

int store_upload_create(struct store *s, const char *bucket, const char *key, size_t key_len, struct attrs *attrs,
			struct upload_info info, char ret_id[UPLOAD_ID_MAX]);
int store_upload_info(struct store *s, const char *id, struct upload_info *ret);
/* Takes a reference to the part's body. */
int store_upload_part(struct store *s, const char *id, unsigned number, const struct part *part);
/* Copies part <number> out with a reference to its body; -ENOENT when there is none. */
int store_upload_part_get(struct store *s, const char *id, unsigned number, struct part *ret);
int store_upload_attrs(struct store *s, const char *id, struct attrs **ret);
/* Ends the upload: its parts are given back. */
int store_upload_end(struct store *s, const char *id);
void store_uploads(struct store *s, const char *bucket,
		   void (*each)(void *ctx, const char *key, size_t key_len, const char *id), void *ctx);

#endif
