/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects and the bytes behind them. An object is immutable once it is in the store: what changes one puts a new
 * one in its place, so a reply under way keeps the bytes it began with.
 *
 * Its bytes are either segments (bodies in memory or in an unlinked file, several after a multipart upload) or
 * synthetic: computed from (seed, offset), see object_read() and README.md.
 */
#ifndef S3D_OBJECT_H
#define S3D_OBJECT_H

#include <event2/buffer.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "digest.h"

struct body {
	atomic_uint refs;
	uint64_t size;
	unsigned char *bytes;                  /* NULL when in a file */
	struct evbuffer_file_segment *segment; /* NULL when in memory; owns the file */
	int fd;                                /* the segment's, for pread */
};

/* Copies <in> into memory, or into an unlinked file below <dir> when that is not NULL and the body is not small. */
int body_new(struct evbuffer *in, const char *dir, struct body **ret);
struct body *body_get(struct body *b);
void body_put(struct body *b);

/* Headers kept with an object and sent back with it. */
struct attrs {
	atomic_uint refs;
	bool archived; /* GLACIER or DEEP_ARCHIVE and not restored */
	bool restored;
	char storage_class[32]; /* "" = STANDARD */
	enum digest_kind checksum_kind;
	bool checksum_composite;
	char checksum[DIGEST_BASE64_MAX + 8]; /* "-N" after a composite one */
	unsigned nr_headers;
	struct attr_header {
		char *name, *value;
	} * headers;
};

#define ATTRS_HEADERS_MAX 64

struct attrs *attrs_new(void);
struct attrs *attrs_copy(const struct attrs *a); /* a copy of <a>, of nothing if NULL; NULL = no memory */
struct attrs *attrs_get(struct attrs *a);
void attrs_put(struct attrs *a);
/* -E2BIG above ATTRS_HEADERS_MAX. */
int attrs_add(struct attrs *a, const char *name, const char *value);

struct segment {
	uint64_t start; /* offset in the object */
	struct body *body;
};

struct object {
	atomic_uint refs;
	unsigned etag_parts; /* 0 = a plain MD5 */
	uint64_t size;
	int64_t mtime_s;
	uint64_t seed; /* of synthetic bytes */
	unsigned char md5[16];
	unsigned nr_segments; /* 0 with a size = synthetic */
	struct segment *segments;
	struct attrs *attrs; /* NULL = all defaults */
};

#define OBJECT_ETAG_MAX 48

/* Takes over nothing: bodies and attrs gain references. <md5> and <etag_parts> are the caller's to set afterwards. */
int object_new(struct body **bodies, unsigned nr_bodies, struct attrs *attrs, struct object **ret);
int object_new_synthetic(const char *bucket, const char *key, size_t key_len, unsigned generation, uint64_t size,
			 struct object **ret);
/* The same bytes and dates with other attributes. */
int object_copy(const struct object *o, struct attrs *attrs, struct object **ret);
struct object *object_get(struct object *o);
void object_put(struct object *o);
void object_drop(void *o); /* object_put for index_done */

/* With the quotes: "\"d41d8c...\"" or "\"...-3\"". */
void object_etag(const struct object *o, char ret[OBJECT_ETAG_MAX]);
/* Adds bytes [first, first + len) to <out> without copying them; by sendfile where <out> drains to a plain socket. */
int object_add_to(const struct object *o, uint64_t first, uint64_t len, struct evbuffer *out);
int object_read(const struct object *o, uint64_t first, size_t len, unsigned char *ret);
/* The checksum of all bytes, read in pieces. */
int object_digest(const struct object *o, enum digest_kind kind, unsigned char ret[DIGEST_MAX_BYTES], size_t *ret_len);

/* The checksum of a buffer's bytes. */
int evbuffer_digest(struct evbuffer *in, enum digest_kind kind, unsigned char ret[DIGEST_MAX_BYTES], size_t *ret_len);

#endif
