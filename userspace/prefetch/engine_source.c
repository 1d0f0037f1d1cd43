// SPDX-License-Identifier: Apache-2.0
/*
 * Where the engine gets its knowledge: listings, and bytes of headers and index files.
 *
 * Threads: the engine's own; it waits, and nobody waits for it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "prefetch/engine_i.h"

#define PAGE_KEYS 1000

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool finished;
	int error;
};

static void waiter_init(struct waiter *w)
{
	*w = (struct waiter){ 0 };
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
}

static void waiter_finish(struct waiter *w, int error)
{
	pthread_mutex_lock(&w->lock);
	w->error = error;
	w->finished = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

/* Waits, and ends the waiter. */
static int waiter_wait(struct waiter *w)
{
	pthread_mutex_lock(&w->lock);
	while (!w->finished)
		pthread_cond_wait(&w->cond, &w->lock);
	pthread_mutex_unlock(&w->lock);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
	return w->error;
}

struct page {
	struct s3_list list;
	struct waiter waiter;
	struct listing *to;
	size_t kept; /* entries before this page */
	int error;
};

static void listing_cut(struct listing *l, size_t nr)
{
	while (l->nr > nr)
		free(l->item[--l->nr].name);
}

void listing_done(struct listing *l)
{
	listing_cut(l, 0);
	free(l->item);
	*l = (struct listing){ 0 };
}

static int page_object(void *ctx, const struct s3_list_object *o)
{
	struct page *p = ctx;
	struct listing *l = p->to;
	size_t skip = strlen(l->dir);
	struct listed *item;

	/* Archived objects cannot be fetched, and of keys without an expressible name nobody reads. */
	if (l->nr == ENGINE_LISTED_MAX || o->key_len <= skip || strlen(o->key) != o->key_len ||
	    s3_storage_class_archived(o->storage_class) || o->key[o->key_len - 1] == '/')
		return 0;
	if (l->nr == l->room) {
		size_t room = l->room ? l->room * 2 : 64;

		item = reallocarray(l->item, room, sizeof(*item));
		if (!item)
			return -ENOMEM;
		l->item = item;
		l->room = room;
	}
	item = &l->item[l->nr];
	*item = (struct listed){ .size_bytes = o->size, .mtime = o->mtime };
	memcpy(item->etag, o->etag, sizeof(item->etag));
	item->name = strdup(o->key + skip);
	if (!item->name)
		return -ENOMEM;
	l->nr++;
	return 0;
}

static int page_prefix(void *ctx, const char *prefix, size_t len)
{
	return 0;
}

static void page_restart(struct s3_list *list)
{
	struct page *p = list_entry(list, struct page, list);

	listing_cut(p->to, p->kept);
}

static void page_done(struct s3_list *list, int error, const char *message)
{
	waiter_finish(&list_entry(list, struct page, list)->waiter, error);
}

static int page_get(struct engine *e, struct listing *l, bool recursive, const char *token, char **ret_next)
{
	static const struct s3_list_ops ops = { .object = page_object, .common_prefix = page_prefix };
	struct page p = {
		.list = {
			.op = { .deadline_ns = clock_mono_ns() + e->cfg.read_deadline_ns },
			.prefix = l->dir,
			.delimiter = recursive ? "" : "/",
			.start_after = "",
			.token = token,
			.max_keys = PAGE_KEYS,
			.ops = &ops,
			.restart = page_restart,
			.done = page_done,
		},
		.to = l,
		.kept = l->nr,
	};
	int rc;

	p.list.ops_ctx = &p;
	waiter_init(&p.waiter);
	s3_list_submit(e->cfg.client, &p.list);
	rc = waiter_wait(&p.waiter);
	*ret_next = p.list.next_token;
	return rc;
}

int engine_list(struct engine *e, const char *dir, bool recursive, struct listing *ret)
{
	_cleanup_free_ char *token = NULL;
	char *next = NULL;
	int rc;

	*ret = (struct listing){ 0 };
	snprintf(ret->dir, sizeof(ret->dir), "%s", dir);
	do {
		rc = page_get(e, ret, recursive, token ? token : "", &next);
		free(token);
		token = next;
	} while (rc == 0 && token && ret->nr < ENGINE_LISTED_MAX);
	if (rc < 0)
		listing_done(ret);
	return rc;
}

struct bytes_read {
	struct cache_read read;
	struct waiter waiter;
};

static void bytes_done(struct cache_read *r, int error)
{
	waiter_finish(&list_entry(r, struct bytes_read, read)->waiter, error);
}

int engine_bytes(struct engine *e, struct cache_object *o, uint64_t offset, size_t len, void *ret)
{
	int rc = 0;

	for (size_t at = 0; at < len && rc == 0; at += CACHE_CHUNK_BYTES) {
		/* Kept: the reader asks for the same bytes next. */
		struct bytes_read b = {
			.read = {
				.object = o,
				.offset = offset + at,
				.len = (uint32_t)min_of(len - at, (size_t)CACHE_CHUNK_BYTES),
				.keep = true,
				.payload = (char *)ret + at,
				.done = bytes_done,
			},
		};

		waiter_init(&b.waiter);
		rc = cache_read_start(e->cfg.cache, &b.read);
		if (rc != -EINPROGRESS)
			waiter_finish(&b.waiter, rc);
		rc = waiter_wait(&b.waiter);
		if (rc == 0) {
			cache_read_fill(&b.read);
			cache_read_end(e->cfg.cache, &b.read);
		}
	}
	return rc;
}

struct cache_object *engine_listed_object(struct engine *e, const struct listing *l, const struct listed *item)
{
	char key[S3_KEY_MAX + 1];

	if (snprintf(key, sizeof(key), "%s%s", l->dir, item->name) > S3_KEY_MAX)
		return NULL;
	return cache_object_get(e->cfg.cache, key, item->etag, item->size_bytes, item->mtime);
}

int engine_listed_bytes(struct engine *e, const struct listing *l, const struct listed *item, uint64_t max_bytes,
			char **ret)
{
	_cleanup_free_ char *bytes = NULL;
	struct cache_object *o;
	int rc;

	if (item->size_bytes > max_bytes)
		return -E2BIG;
	o = engine_listed_object(e, l, item);
	bytes = malloc(item->size_bytes + 1);
	rc = o && bytes ? engine_bytes(e, o, 0, item->size_bytes, bytes) : -ENOMEM;
	if (rc == 0)
		*ret = take_ptr(bytes);
	cache_object_put(e->cfg.cache, o);
	return rc;
}
