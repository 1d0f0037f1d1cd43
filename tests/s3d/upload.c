// SPDX-License-Identifier: Apache-2.0
/* Multipart uploads in progress. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "store_i.h"

void upload_free(struct upload *u)
{
	for (unsigned i = 0; i <= UPLOAD_PARTS_MAX; i++)
		body_put(u->parts[i].body);
	attrs_put(u->attrs);
	free(u->bucket);
	free(u->key);
	free(u);
}

static struct upload *upload_find(struct store *s, const char *id)
{
	list_for_each(n, &s->uploads) {
		struct upload *u = list_entry(n, struct upload, node);

		if (!strcmp(u->id, id))
			return u;
	}
	return NULL;
}

int store_upload_create(struct store *s, const char *bucket, const char *key, size_t key_len, struct attrs *attrs,
			struct upload_info info, char ret_id[UPLOAD_ID_MAX])
{
	struct upload *u = calloc(1, sizeof(*u));
	int rc = -ENOMEM;

	if (!u)
		return rc;
	u->bucket = strdup(bucket);
	u->key = malloc(key_len + 1);
	u->attrs = attrs_get(attrs);
	u->info = info;
	if (!u->bucket || !u->key)
		goto fail;
	memcpy(u->key, key, key_len);
	u->key[key_len] = '\0';
	u->key_len = key_len;
	pthread_rwlock_wrlock(&s->lock);
	rc = store_bucket_find(s, bucket) ? 0 : -ENXIO;
	if (!rc) {
		uint64_t n = ++s->nr_uploads;

		snprintf(u->id, sizeof(u->id), "%016llx%016llx", (unsigned long long)mix64(n * MIX64_STEP),
			 (unsigned long long)n);
		memcpy(ret_id, u->id, sizeof(u->id));
		list_push_back(&s->uploads, &u->node);
	}
	pthread_rwlock_unlock(&s->lock);
	if (!rc)
		return 0;
fail:
	upload_free(u);
	return rc;
}

int store_upload_info(struct store *s, const char *id, struct upload_info *ret)
{
	struct upload *u;

	pthread_rwlock_rdlock(&s->lock);
	u = upload_find(s, id);
	if (u)
		*ret = u->info;
	pthread_rwlock_unlock(&s->lock);
	return u ? 0 : -ESRCH;
}

int store_upload_part(struct store *s, const char *id, unsigned number, const struct part *part)
{
	struct body *old = NULL;
	struct upload *u;

	if (number < 1 || number > UPLOAD_PARTS_MAX)
		return -EINVAL;
	pthread_rwlock_wrlock(&s->lock);
	u = upload_find(s, id);
	if (u) {
		old = u->parts[number].body;
		u->parts[number] = *part;
		body_get(part->body);
	}
	pthread_rwlock_unlock(&s->lock);
	body_put(old);
	return u ? 0 : -ESRCH;
}

int store_upload_part_get(struct store *s, const char *id, unsigned number, struct part *ret)
{
	struct upload *u;
	int rc = -ESRCH;

	if (number < 1 || number > UPLOAD_PARTS_MAX)
		return -ENOENT;
	pthread_rwlock_rdlock(&s->lock);
	u = upload_find(s, id);
	if (u)
		rc = u->parts[number].body ? 0 : -ENOENT;
	if (!rc) {
		*ret = u->parts[number];
		body_get(ret->body);
	}
	pthread_rwlock_unlock(&s->lock);
	return rc;
}

int store_upload_attrs(struct store *s, const char *id, struct attrs **ret)
{
	struct upload *u;

	pthread_rwlock_rdlock(&s->lock);
	u = upload_find(s, id);
	if (u)
		*ret = attrs_get(u->attrs);
	pthread_rwlock_unlock(&s->lock);
	return u ? 0 : -ESRCH;
}

int store_upload_end(struct store *s, const char *id)
{
	struct upload *u;

	pthread_rwlock_wrlock(&s->lock);
	u = upload_find(s, id);
	if (u)
		list_del(&u->node);
	pthread_rwlock_unlock(&s->lock);
	if (!u)
		return -ESRCH;
	upload_free(u);
	return 0;
}

void store_uploads(struct store *s, const char *bucket,
		   void (*each)(void *ctx, const char *key, size_t key_len, const char *id), void *ctx)
{
	pthread_rwlock_rdlock(&s->lock);
	list_for_each(n, &s->uploads) {
		struct upload *u = list_entry(n, struct upload, node);

		if (!strcmp(u->bucket, bucket))
			each(ctx, u->key, u->key_len, u->id);
	}
	pthread_rwlock_unlock(&s->lock);
}
