/* SPDX-License-Identifier: Apache-2.0 */
/* What store.c and upload.c share. */
#ifndef S3D_STORE_I_H
#define S3D_STORE_I_H

#include <pthread.h>

#include "base/list.h"
#include "store.h"

struct bucket {
	struct list node;
	char *name;
	int64_t created_s;
	struct bucket_flags flags;
	struct index objects;
};

struct upload {
	struct list node;
	char id[UPLOAD_ID_MAX];
	char *bucket, *key;
	size_t key_len;
	struct attrs *attrs;
	struct upload_info info;
	struct part parts[UPLOAD_PARTS_MAX + 1]; /* by number */
};

struct store {
	pthread_rwlock_t lock; /* guards everything below */
	char *dir;             /* constant */
	struct list buckets;   /* sorted by name */
	struct list uploads;
	uint64_t nr_uploads;  /* ever: ids */
	unsigned nr_replaced; /* ever: generations */
};

/* Under the lock. */
struct bucket *store_bucket_find(struct store *s, const char *name);
void upload_free(struct upload *u);

#endif
