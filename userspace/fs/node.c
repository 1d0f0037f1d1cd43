// SPDX-License-Identifier: Apache-2.0
/* The table of nodes. */
#include "fs/node.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

#define NODE_BUCKETS_MIN 1024

struct node_table {
	pthread_mutex_t lock;
	struct cache *cache;
	struct list *bucket;
	size_t nr_buckets, nr_nodes; /* a power of two */
	struct node *root;
};

uint64_t node_id(const char *path, const struct meta_record *rec)
{
	uint64_t h = HASH_INIT;

	h = hash_add(h, path, strlen(path) + 1);
	if (rec->kind == META_FILE) {
		h = hash_add(h, rec->etag, strlen(rec->etag) + 1);
		h = hash_add(h, &rec->size_bytes, sizeof(rec->size_bytes));
		/*
		 * Servers give the time of a copy in different precision; the ETag names the version where there is
		 * one.
		 */
		if (!rec->etag[0])
			h = hash_add(h, &rec->mtime, sizeof(rec->mtime));
	}
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	h ^= h >> 32;
	return h > NODE_ROOT_ID ? h : h + 2;
}

static struct node *node_new(const char *path, const struct meta_record *rec, uint64_t id)
{
	size_t path_len = strlen(path) + 1, etag_len = strlen(rec->etag) + 1,
	       class_len = strlen(rec->storage_class) + 1;
	struct node *n = calloc(1, sizeof(*n) + path_len + etag_len + class_len);

	if (!n)
		return NULL;
	n->id = id;
	n->kind = rec->kind;
	n->size_bytes = rec->size_bytes;
	n->mtime = rec->mtime;
	n->etag_at = (uint16_t)path_len;
	n->class_at = (uint16_t)(path_len + etag_len);
	memcpy(n->text, path, path_len);
	memcpy(n->text + n->etag_at, rec->etag, etag_len);
	memcpy(n->text + n->class_at, rec->storage_class, class_len);
	list_init(&n->hash);
	return n;
}

struct node_table *node_table_new(struct cache *cache)
{
	struct meta_record root = { .kind = META_DIR };
	struct node_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->cache = cache;
	t->nr_buckets = NODE_BUCKETS_MIN;
	t->bucket = malloc(t->nr_buckets * sizeof(*t->bucket));
	t->root = node_new("", &root, NODE_ROOT_ID);
	if (!t->bucket || !t->root) {
		free(t->bucket);
		free(t->root);
		free(t);
		return NULL;
	}
	for (size_t i = 0; i < t->nr_buckets; i++)
		list_init(&t->bucket[i]);
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

static struct node *table_find(struct node_table *t, uint64_t id)
{
	if (id == NODE_ROOT_ID)
		return t->root;
	list_for_each(p, &t->bucket[id & (t->nr_buckets - 1)]) {
		struct node *n = list_entry(p, struct node, hash);

		if (n->id == id)
			return n;
	}
	return NULL;
}

/* Keeps chains short; without memory they grow longer, and nothing else happens. */
static void table_grow(struct node_table *t)
{
	size_t nr = t->nr_buckets * 2;
	struct list *bucket = malloc(nr * sizeof(*bucket));

	if (!bucket)
		return;
	for (size_t i = 0; i < nr; i++)
		list_init(&bucket[i]);
	for (size_t i = 0; i < t->nr_buckets; i++) {
		list_for_each_safe(p, tmp, &t->bucket[i]) {
			list_del(p);
			list_push_front(&bucket[list_entry(p, struct node, hash)->id & (nr - 1)], p);
		}
	}
	free(t->bucket);
	t->bucket = bucket;
	t->nr_buckets = nr;
}

static bool node_is(const struct node *n, const char *path, const struct meta_record *rec)
{
	if (n->kind != rec->kind || strcmp(node_path(n), path) != 0)
		return false;
	return n->kind == META_DIR || (n->size_bytes == rec->size_bytes && strcmp(node_etag(n), rec->etag) == 0 &&
				       (rec->etag[0] || n->mtime == rec->mtime));
}

struct node *node_lookup(struct node_table *t, const char *path, const struct meta_record *rec)
{
	uint64_t id = node_id(path, rec);
	struct node *n;

	pthread_mutex_lock(&t->lock);
	/* Two names with one hash: the second gets the next id that is free. */
	while ((n = table_find(t, id)) && !node_is(n, path, rec))
		id++;
	if (!n) {
		n = node_new(path, rec, id);
		if (n) {
			if (++t->nr_nodes > t->nr_buckets * 2)
				table_grow(t);
			list_push_front(&t->bucket[id & (t->nr_buckets - 1)], &n->hash);
		}
	}
	if (n)
		n->nr_lookups++;
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct node *node_get(struct node_table *t, uint64_t id)
{
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = table_find(t, id);
	pthread_mutex_unlock(&t->lock);
	return n;
}

uint64_t node_dir_id(struct node_table *t, const char *path)
{
	struct meta_record rec = { .kind = META_DIR };
	uint64_t id = node_id(path, &rec);
	struct node *n;

	if (!path[0])
		return NODE_ROOT_ID;
	pthread_mutex_lock(&t->lock);
	while ((n = table_find(t, id)) && !node_is(n, path, &rec))
		id++;
	pthread_mutex_unlock(&t->lock);
	return n ? id : 0;
}

static void node_free(struct node_table *t, struct node *n)
{
	engine_file_put(atomic_load(&n->plan));
	cache_object_put(t->cache, n->object);
	free(n->streams);
	free(n);
}

void node_forget(struct node_table *t, uint64_t id, uint64_t nr_lookups)
{
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = table_find(t, id);
	if (n && n != t->root) {
		n->nr_lookups -= min_of(n->nr_lookups, nr_lookups);
		if (n->nr_lookups || n->nr_opens)
			n = NULL;
	} else {
		n = NULL;
	}
	if (n) {
		list_del(&n->hash);
		t->nr_nodes--;
	}
	pthread_mutex_unlock(&t->lock);
	if (n)
		node_free(t, n);
}

int node_open(struct node_table *t, struct node *n, const char *key)
{
	int before = -ENOMEM;

	pthread_mutex_lock(&t->lock);
	if (!n->object) {
		n->streams = calloc(1, sizeof(*n->streams));
		n->object = n->streams ? cache_object_get(t->cache, key, node_etag(n), n->size_bytes, n->mtime) : NULL;
		if (!n->object) {
			free(n->streams);
			n->streams = NULL;
			goto out;
		}
	}
	before = (int)n->nr_opens++;
out:
	pthread_mutex_unlock(&t->lock);
	return before;
}

struct engine_file *node_plan_get(struct node_table *t, uint64_t id)
{
	struct engine_file *f;
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = table_find(t, id);
	f = n ? engine_file_ref(atomic_load(&n->plan)) : NULL;
	pthread_mutex_unlock(&t->lock);
	return f;
}

unsigned node_close(struct node_table *t, struct node *n)
{
	bool gone;
	unsigned left;

	pthread_mutex_lock(&t->lock);
	left = --n->nr_opens;
	/* FORGET travels by another thread and may have been here first. */
	gone = !left && !n->nr_lookups;
	if (gone) {
		list_del(&n->hash);
		t->nr_nodes--;
	}
	pthread_mutex_unlock(&t->lock);
	if (gone)
		node_free(t, n);
	return left;
}

void node_record(const struct node *n, struct meta_record *ret)
{
	*ret = (struct meta_record){ .kind = n->kind, .size_bytes = n->size_bytes, .mtime = n->mtime };
	memcpy(ret->etag, node_etag(n), strlen(node_etag(n)) + 1);
	memcpy(ret->storage_class, node_class(n), strlen(node_class(n)) + 1);
}

uint64_t node_count(struct node_table *t)
{
	uint64_t n;

	pthread_mutex_lock(&t->lock);
	n = t->nr_nodes;
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct node_table *node_table_free(struct node_table *t)
{
	if (!t)
		return NULL;
	for (size_t i = 0; i < t->nr_buckets; i++) {
		list_for_each_safe(p, tmp, &t->bucket[i])
			node_free(t, list_entry(p, struct node, hash));
	}
	node_free(t, t->root);
	free(t->bucket);
	pthread_mutex_destroy(&t->lock);
	free(t);
	return NULL;
}
