// SPDX-License-Identifier: Apache-2.0
/*
 * Objects: byte ranges over segments, and synthetic bytes.
 *
 * Design: synthetic bytes are windows of one tile of pseudo-random bytes. Block b (64 KiB) of an object is the tile
 * from (mix64(seed + (b + 1) * STEP) mod 1 MiB) on, so that a reply refers to the tile and copies nothing,
 * while any two blocks differ but for one chance in a million.
 */
#include "object.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

#define TILE_STARTS (1u << 20)
#define TILE_BLOCK_BYTES 65536u
#define TILE_WORDS ((TILE_STARTS + TILE_BLOCK_BYTES) / 8)

static uint64_t tile[TILE_WORDS];
static pthread_once_t tile_once = PTHREAD_ONCE_INIT;

static void tile_init(void)
{
	for (uint64_t i = 0; i < TILE_WORDS; i++)
		tile[i] = htole64(mix64((i + 1) * MIX64_STEP));
}

/* Where the byte at <offset> lies in the tile, and how many follow it in the same block. */
static const unsigned char *tile_at(uint64_t seed, uint64_t offset, uint64_t *ret_room)
{
	uint64_t block = offset / TILE_BLOCK_BYTES, in_block = offset % TILE_BLOCK_BYTES;
	uint64_t start = mix64(seed + (block + 1) * MIX64_STEP) % TILE_STARTS;

	*ret_room = TILE_BLOCK_BYTES - in_block;
	return (const unsigned char *)tile + start + in_block;
}

static uint64_t fnv1a(uint64_t h, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)p[i]) * 0x100000001b3ull;
	return h;
}

int object_new(struct body **bodies, unsigned nr_bodies, struct attrs *attrs, struct object **ret)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	o->refs = 1;
	o->mtime_s = time(NULL);
	o->segments = calloc(nr_bodies ? nr_bodies : 1, sizeof(*o->segments));
	if (!o->segments) {
		free(o);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < nr_bodies; i++) {
		o->segments[i] = (struct segment){ .start = o->size, .body = body_get(bodies[i]) };
		o->size += bodies[i]->size;
	}
	o->nr_segments = nr_bodies;
	o->attrs = attrs_get(attrs);
	*ret = o;
	return 0;
}

int object_new_synthetic(const char *bucket, const char *key, size_t key_len, unsigned generation, uint64_t size,
			 struct object **ret)
{
	struct object *o = calloc(1, sizeof(*o));
	uint64_t h = 0xcbf29ce484222325ull, tag[2];

	if (!o)
		return -ENOMEM;
	pthread_once(&tile_once, tile_init);
	h = fnv1a(h, bucket, strlen(bucket));
	h = fnv1a(h, "/", 1);
	h = fnv1a(h, key, key_len);
	o->refs = 1;
	o->size = size;
	o->mtime_s = time(NULL);
	o->seed = mix64(h + generation * MIX64_STEP);
	tag[0] = htole64(mix64(o->seed ^ size));
	tag[1] = htole64(mix64(o->seed + 1));
	memcpy(o->md5, tag, sizeof(o->md5));
	*ret = o;
	return 0;
}

int object_copy(const struct object *from, struct attrs *attrs, struct object **ret)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	o->segments = calloc(from->nr_segments ? from->nr_segments : 1, sizeof(*o->segments));
	if (!o->segments) {
		free(o);
		return -ENOMEM;
	}
	o->refs = 1;
	o->etag_parts = from->etag_parts;
	o->size = from->size;
	o->mtime_s = from->mtime_s;
	o->seed = from->seed;
	memcpy(o->md5, from->md5, sizeof(o->md5));
	o->nr_segments = from->nr_segments;
	for (unsigned i = 0; i < from->nr_segments; i++) {
		o->segments[i] = from->segments[i];
		body_get(o->segments[i].body);
	}
	o->attrs = attrs_get(attrs);
	*ret = o;
	return 0;
}

struct object *object_get(struct object *o)
{
	atomic_fetch_add(&o->refs, 1);
	return o;
}

void object_put(struct object *o)
{
	if (!o || atomic_fetch_sub(&o->refs, 1) != 1)
		return;
	for (unsigned i = 0; i < o->nr_segments; i++)
		body_put(o->segments[i].body);
	free(o->segments);
	attrs_put(o->attrs);
	free(o);
}

void object_drop(void *o)
{
	object_put(o);
}

void object_etag(const struct object *o, char ret[OBJECT_ETAG_MAX])
{
	char hex[33];

	digest_hex(o->md5, sizeof(o->md5), hex);
	if (o->etag_parts)
		snprintf(ret, OBJECT_ETAG_MAX, "\"%s-%u\"", hex, o->etag_parts % 100000);
	else
		snprintf(ret, OBJECT_ETAG_MAX, "\"%s\"", hex);
}

static const struct segment *object_segment_at(const struct object *o, uint64_t offset)
{
	unsigned low = 0, high = o->nr_segments;

	while (high - low > 1) {
		unsigned mid = low + (high - low) / 2;

		if (o->segments[mid].start <= offset)
			low = mid;
		else
			high = mid;
	}
	return &o->segments[low];
}

static void reference_done(const void *data, size_t len, void *arg)
{
	body_put(arg);
}

static int segment_add_to(const struct segment *s, uint64_t offset, uint64_t len, struct evbuffer *out)
{
	if (s->body->segment) /* the evbuffer holds the file segment, not the body */
		return evbuffer_add_file_segment(out, s->body->segment, (ev_off_t)offset, (ev_off_t)len) ? -ENOMEM : 0;
	body_get(s->body);
	if (!evbuffer_add_reference(out, s->body->bytes + offset, len, reference_done, s->body))
		return 0;
	body_put(s->body);
	return -ENOMEM;
}

int object_add_to(const struct object *o, uint64_t first, uint64_t len, struct evbuffer *out)
{
	while (len) {
		uint64_t n;
		int rc;

		if (o->nr_segments) {
			const struct segment *s = object_segment_at(o, first);
			uint64_t offset = first - s->start;

			n = min_of(len, s->body->size - offset);
			rc = segment_add_to(s, offset, n, out);
		} else {
			const unsigned char *p = tile_at(o->seed, first, &n);

			n = min_of(len, n);
			rc = evbuffer_add_reference(out, p, n, NULL, NULL) ? -ENOMEM : 0;
		}
		if (rc < 0)
			return rc;
		first += n;
		len -= n;
	}
	return 0;
}

int object_read(const struct object *o, uint64_t first, size_t len, unsigned char *ret)
{
	while (len) {
		uint64_t n;

		if (!o->nr_segments) {
			const unsigned char *p = tile_at(o->seed, first, &n);

			n = min_of(len, n);
			memcpy(ret, p, n);
		} else {
			const struct segment *s = object_segment_at(o, first);
			uint64_t offset = first - s->start;

			n = min_of(len, s->body->size - offset);
			if (s->body->bytes)
				memcpy(ret, s->body->bytes + offset, n);
			else if (pread(s->body->fd, ret, n, (off_t)offset) != (ssize_t)n)
				return -EIO;
		}
		first += n;
		ret += n;
		len -= n;
	}
	return 0;
}

int object_digest(const struct object *o, enum digest_kind kind, unsigned char ret[DIGEST_MAX_BYTES], size_t *ret_len)
{
	enum { PIECE_BYTES = 1 << 20 };
	_cleanup_free_ unsigned char *piece = malloc(PIECE_BYTES);
	struct digest d;
	int rc;

	if (!piece)
		return -ENOMEM;
	rc = digest_init(&d, kind);
	if (rc < 0)
		return rc;
	for (uint64_t at = 0; at < o->size; at += PIECE_BYTES) {
		size_t n = min_of(o->size - at, (uint64_t)PIECE_BYTES);

		rc = object_read(o, at, n, piece);
		if (rc < 0)
			break;
		digest_update(&d, piece, n);
	}
	*ret_len = digest_final(&d, ret);
	return rc;
}
