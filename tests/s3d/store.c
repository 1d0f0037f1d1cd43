// SPDX-License-Identifier: Apache-2.0
/* Buckets and objects. Uploads in progress are in upload.c. */
#define _GNU_SOURCE

#include "store.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "store_i.h"

static void bucket_free(struct bucket *b)
{
	index_done(&b->objects, object_drop);
	free(b->name);
	free(b);
}

int store_new(const char *dir, struct store **ret)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	if (dir) {
		s->dir = strdup(dir);
		if (!s->dir) {
			free(s);
			return -ENOMEM;
		}
	}
	pthread_rwlock_init(&s->lock, NULL);
	list_init(&s->buckets);
	list_init(&s->uploads);
	*ret = s;
	return 0;
}

struct store *store_free(struct store *s)
{
	if (!s)
		return NULL;
	while (!list_empty(&s->uploads))
		upload_free(list_entry(list_pop_front(&s->uploads), struct upload, node));
	while (!list_empty(&s->buckets))
		bucket_free(list_entry(list_pop_front(&s->buckets), struct bucket, node));
	pthread_rwlock_destroy(&s->lock);
	free(s->dir);
	free(s);
	return NULL;
}

const char *store_dir(const struct store *s)
{
	return s->dir;
}

struct bucket *store_bucket_find(struct store *s, const char *name)
{
	list_for_each(n, &s->buckets) {
		struct bucket *b = list_entry(n, struct bucket, node);

		if (!strcmp(b->name, name))
			return b;
	}
	return NULL;
}

static int bucket_add(struct store *s, const char *name, struct bucket **ret)
{
	struct bucket *b = calloc(1, sizeof(*b));
	struct list *at = &s->buckets;

	if (!b)
		return -ENOMEM;
	b->name = strdup(name);
	if (!b->name || index_init(&b->objects) < 0) {
		free(b->name);
		free(b);
		return -ENOMEM;
	}
	b->created_s = time(NULL);
	while (at->next != &s->buckets && strcmp(list_entry(at->next, struct bucket, node)->name, name) < 0)
		at = at->next;
	list_insert_after(at, &b->node);
	*ret = b;
	return 0;
}

int store_bucket_create(struct store *s, const char *bucket)
{
	struct bucket *b;
	int rc = -EEXIST;

	pthread_rwlock_wrlock(&s->lock);
	if (!store_bucket_find(s, bucket))
		rc = bucket_add(s, bucket, &b);
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

int store_bucket_delete(struct store *s, const char *bucket)
{
	struct bucket *b;
	int rc = -ENXIO;

	pthread_rwlock_wrlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		rc = b->objects.count ? -ENOTEMPTY : 0;
	if (!rc) {
		list_del(&b->node);
		bucket_free(b);
	}
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

int store_bucket_flags(struct store *s, const char *bucket, struct bucket_flags *ret)
{
	struct bucket *b;

	pthread_rwlock_rdlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		*ret = b->flags;
	pthread_rwlock_unlock(&s->lock);
	return b ? 0 : -ENXIO;
}

int store_bucket_flags_set(struct store *s, const char *bucket, struct bucket_flags flags)
{
	struct bucket *b;

	pthread_rwlock_wrlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		b->flags = flags;
	pthread_rwlock_unlock(&s->lock);
	return b ? 0 : -ENXIO;
}

void store_buckets(struct store *s, void (*each)(void *ctx, const char *bucket, int64_t created_s), void *ctx)
{
	pthread_rwlock_rdlock(&s->lock);
	list_for_each(n, &s->buckets) {
		struct bucket *b = list_entry(n, struct bucket, node);

		each(ctx, b->name, b->created_s);
	}
	pthread_rwlock_unlock(&s->lock);
}

int store_get(struct store *s, const char *bucket, const char *key, size_t key_len, struct object **ret)
{
	struct index_node *n = NULL;
	struct bucket *b;

	pthread_rwlock_rdlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		n = index_find(&b->objects, key, key_len);
	if (n)
		*ret = object_get(n->value);
	pthread_rwlock_unlock(&s->lock);
	return n ? 0 : b ? -ENOENT : -ENXIO;
}

int store_put(struct store *s, const char *bucket, const char *key, size_t key_len, struct object *o)
{
	void *old = NULL;
	struct bucket *b;
	int rc = -ENXIO;

	pthread_rwlock_wrlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		rc = index_set(&b->objects, key, key_len, o, &old);
	if (!rc)
		object_get(o);
	pthread_rwlock_unlock(&s->lock);
	object_put(old);
	return rc;
}

int store_delete(struct store *s, const char *bucket, const char *key, size_t key_len)
{
	struct object *old = NULL;
	struct bucket *b;

	pthread_rwlock_wrlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		old = index_remove(&b->objects, key, key_len);
	pthread_rwlock_unlock(&s->lock);
	if (!b)
		return -ENXIO;
	if (!old)
		return -ENOENT;
	object_put(old);
	return 0;
}

int store_replace(struct store *s, const char *bucket, const char *key, size_t key_len, uint64_t size)
{
	struct object *o;
	unsigned generation;
	int rc;

	pthread_rwlock_wrlock(&s->lock);
	generation = ++s->nr_replaced;
	pthread_rwlock_unlock(&s->lock);
	rc = object_new_synthetic(bucket, key, key_len, generation, size, &o);
	if (rc < 0)
		return rc;
	rc = store_put(s, bucket, key, key_len, o);
	object_put(o);
	return rc;
}

int store_generate(struct store *s, const char *bucket, const char *prefix, unsigned count, uint64_t size)
{
	char key[1025];
	struct bucket *b;
	int rc = 0;

	pthread_rwlock_wrlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (!b)
		rc = bucket_add(s, bucket, &b);
	for (unsigned i = 0; !rc && i < count; i++) {
		int len = snprintf(key, sizeof(key), "%s%08u", prefix, i);
		struct object *o;
		void *old = NULL;

		if (len >= (int)sizeof(key)) {
			rc = -ENAMETOOLONG;
			break;
		}
		rc = object_new_synthetic(bucket, key, (size_t)len, 0, size, &o);
		if (rc < 0)
			break;
		rc = index_set(&b->objects, key, (size_t)len, o, &old);
		object_put(rc < 0 ? o : old);
	}
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

/* First node behind every key that begins with these bytes. */
static struct index_node *index_after_prefix(const struct index *ix, const char *prefix, size_t len)
{
	char next[1025];

	if (len > sizeof(next))
		return NULL;
	memcpy(next, prefix, len);
	while (len && (unsigned char)next[len - 1] == 0xff)
		len--;
	if (!len)
		return NULL;
	next[len - 1] = (char)((unsigned char)next[len - 1] + 1);
	return index_lower_bound(ix, next, len);
}

static struct index_node *list_start(const struct index *ix, const struct store_list *l)
{
	struct index_node *n = index_lower_bound(ix, l->prefix, l->prefix_len), *after;

	if (!n || !l->after)
		return n;
	if (l->after_prefix)
		after = index_after_prefix(ix, l->after, l->after_len);
	else
		after = index_lower_bound(ix, l->after, l->after_len);
	if (!l->after_prefix && after && after->key_len == l->after_len && !memcmp(after->key, l->after, l->after_len))
		after = after->next[0];
	if (!after)
		return NULL;
	/* whichever comes later */
	if (l->after_len >= l->prefix_len && !memcmp(l->after, l->prefix, l->prefix_len))
		return after;
	return memcmp(l->after, l->prefix, min_of(l->after_len, l->prefix_len)) > 0 ? after : n;
}

static bool bytes_begin_with(const struct index_node *n, const char *prefix, size_t len)
{
	return n->key_len >= len && !memcmp(n->key, prefix, len);
}

static bool list_page(const struct index *ix, const struct store_list *l)
{
	struct index_node *n = list_start(ix, l);

	for (unsigned given = 0; n && bytes_begin_with(n, l->prefix, l->prefix_len); given++) {
		const char *cut = NULL;

		if (given == l->max)
			return true;
		if (l->delimiter_len)
			cut = memmem(n->key + l->prefix_len, n->key_len - l->prefix_len, l->delimiter,
				     l->delimiter_len);
		if (cut) {
			size_t len = (size_t)(cut - n->key) + l->delimiter_len;
			const char *prefix = n->key;

			l->each(l->ctx, prefix, len, NULL);
			n = index_after_prefix(ix, prefix, len);
		} else {
			l->each(l->ctx, n->key, n->key_len, n->value);
			n = n->next[0];
		}
	}
	return false;
}

int store_list(struct store *s, const char *bucket, const struct store_list *l, bool *ret_more)
{
	struct bucket *b;

	pthread_rwlock_rdlock(&s->lock);
	b = store_bucket_find(s, bucket);
	if (b)
		*ret_more = list_page(&b->objects, l);
	pthread_rwlock_unlock(&s->lock);
	return b ? 0 : -ENXIO;
}
