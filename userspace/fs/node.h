/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes the kernel knows: an id for each (path, version), until FORGET.
 *
 * An id is a hash of the name and the version, so that it is the same after a restart, and an object replaced from
 * outside gets another one: two versions never share a page cache. Threads: any; a node stays while the kernel may
 * name it.
 */
#ifndef PENSTOCK_FS_NODE_H
#define PENSTOCK_FS_NODE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/list.h"
#include "cache/cache.h"
#include "fs/meta.h"
#include "prefetch/engine.h"
#include "prefetch/stream.h"

#define NODE_ROOT_ID 1

struct node {
	struct list hash;
	uint64_t id;
	uint64_t nr_lookups; /* guard: the table's lock */
	unsigned nr_opens;   /* guard: the table's lock */
	enum meta_kind kind;
	uint64_t size_bytes;
	time_t mtime;
	struct cache_object *object;        /* set once, at the first open; guard: the table's lock */
	struct stream_set *streams;         /* with it */
	struct engine_file *_Atomic plan;   /* set once, after it; held */
	atomic_uint_fast64_t waiting_bytes; /* of reads not replied to */
	/* Of a directory: names lately asked S3 for. */
	atomic_uint nr_misses;
	atomic_uint_fast64_t miss_ns;
	uint16_t etag_at, class_at;
	char text[]; /* path, etag, storage class */
};

static inline const char *node_path(const struct node *n)
{
	return n->text;
}

static inline const char *node_etag(const struct node *n)
{
	return n->text + n->etag_at;
}

static inline const char *node_class(const struct node *n)
{
	return n->text + n->class_at;
}

struct node_table;

struct node_table *node_table_new(struct cache *cache); /* NULL = no memory */
struct node_table *node_table_free(struct node_table *t);

/* The id that a path and version get; never 0 or the root's. */
uint64_t node_id(const char *path, const struct meta_record *rec);
/* The node of a path and version, made when missing, with one more lookup counted. NULL = no memory. */
struct node *node_lookup(struct node_table *t, const char *path, const struct meta_record *rec);
/* By id; NULL for an id the kernel should not know. */
struct node *node_get(struct node_table *t, uint64_t id);
/* The id of a directory by its path, 0 when the kernel does not know it. */
uint64_t node_dir_id(struct node_table *t, const char *path);
void node_forget(struct node_table *t, uint64_t id, uint64_t nr_lookups);
/*
 * The first open makes the cache object (named <key>) and the streams; returns the opens before this one, or
 * -ENOMEM.
 */
int node_open(struct node_table *t, struct node *n, const char *key);
/* The plan of a node that may go any moment, held for the caller; NULL = none. */
struct engine_file *node_plan_get(struct node_table *t, uint64_t id);
/* Returns the opens that are left. */
unsigned node_close(struct node_table *t, struct node *n);
void node_record(const struct node *n, struct meta_record *ret);
uint64_t node_count(struct node_table *t);

#endif
