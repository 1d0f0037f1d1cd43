// SPDX-License-Identifier: Apache-2.0
/*
 * The bounded table of path metadata.
 *
 * Design: a hash of records in order of insertion; when the bytes are used up the oldest go, which are also the
 * first to expire.
 */
#include "fs/meta.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/list.h"

#define META_BUCKETS 16384

struct meta_item {
	struct list hash, age;
	uint64_t expires_ns, size_bytes;
	int64_t mtime;
	uint32_t path_hash;
	uint16_t etag_at, class_at; /* in text, behind the path */
	uint16_t bytes;
	uint8_t kind;
	char text[];
};

struct meta {
	pthread_mutex_t lock;
	size_t bytes, max_bytes;
	struct list age; /* oldest first */
	struct list bucket[META_BUCKETS];
};

static uint32_t path_hash(const char *path)
{
	uint64_t h = hash_add(HASH_INIT, path, strlen(path));

	return (uint32_t)(h ^ (h >> 32));
}

struct meta *meta_new(size_t max_bytes)
{
	struct meta *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	pthread_mutex_init(&m->lock, NULL);
	m->max_bytes = max_bytes;
	list_init(&m->age);
	for (size_t i = 0; i < META_BUCKETS; i++)
		list_init(&m->bucket[i]);
	return m;
}

static void item_free(struct meta *m, struct meta_item *it)
{
	m->bytes -= it->bytes;
	list_del(&it->hash);
	list_del(&it->age);
	free(it);
}

static struct meta_item *item_find(struct meta *m, const char *path, uint32_t h)
{
	list_for_each(n, &m->bucket[h % META_BUCKETS]) {
		struct meta_item *it = list_entry(n, struct meta_item, hash);

		if (it->path_hash == h && strcmp(it->text, path) == 0)
			return it;
	}
	return NULL;
}

bool meta_get(struct meta *m, const char *path, uint64_t now_ns, struct meta_record *ret)
{
	uint32_t h = path_hash(path);
	struct meta_item *it;
	bool found = false;

	pthread_mutex_lock(&m->lock);
	it = item_find(m, path, h);
	if (it && now_ns < it->expires_ns) {
		ret->kind = it->kind;
		ret->size_bytes = it->size_bytes;
		ret->mtime = it->mtime;
		strncpy(ret->etag, it->text + it->etag_at, sizeof(ret->etag) - 1);
		ret->etag[sizeof(ret->etag) - 1] = '\0';
		strncpy(ret->storage_class, it->text + it->class_at, sizeof(ret->storage_class) - 1);
		ret->storage_class[sizeof(ret->storage_class) - 1] = '\0';
		found = true;
	}
	pthread_mutex_unlock(&m->lock);
	return found;
}

void meta_put(struct meta *m, const char *path, const struct meta_record *rec, uint64_t expires_ns)
{
	size_t path_len = strlen(path) + 1, etag_len = strlen(rec->etag) + 1,
	       class_len = strlen(rec->storage_class) + 1;
	size_t bytes = sizeof(struct meta_item) + path_len + etag_len + class_len;
	struct meta_item *it = bytes <= UINT16_MAX ? malloc(bytes) : NULL, *old;

	if (!it)
		return;
	it->expires_ns = expires_ns;
	it->size_bytes = rec->size_bytes;
	it->mtime = rec->mtime;
	it->path_hash = path_hash(path);
	it->kind = (uint8_t)rec->kind;
	it->bytes = (uint16_t)bytes;
	it->etag_at = (uint16_t)path_len;
	it->class_at = (uint16_t)(path_len + etag_len);
	memcpy(it->text, path, path_len);
	memcpy(it->text + it->etag_at, rec->etag, etag_len);
	memcpy(it->text + it->class_at, rec->storage_class, class_len);

	pthread_mutex_lock(&m->lock);
	old = item_find(m, path, it->path_hash);
	if (old)
		item_free(m, old);
	m->bytes += bytes;
	list_push_back(&m->age, &it->age);
	list_push_front(&m->bucket[it->path_hash % META_BUCKETS], &it->hash);
	while (m->bytes > m->max_bytes && m->age.next != &it->age)
		item_free(m, list_entry(m->age.next, struct meta_item, age));
	pthread_mutex_unlock(&m->lock);
}

void meta_drop(struct meta *m, const char *path)
{
	struct meta_item *it;

	pthread_mutex_lock(&m->lock);
	it = item_find(m, path, path_hash(path));
	if (it)
		item_free(m, it);
	pthread_mutex_unlock(&m->lock);
}

struct meta *meta_free(struct meta *m)
{
	if (!m)
		return NULL;
	while (!list_empty(&m->age))
		item_free(m, list_entry(m->age.next, struct meta_item, age));
	pthread_mutex_destroy(&m->lock);
	free(m);
	return NULL;
}
