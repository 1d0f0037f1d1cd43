/* SPDX-License-Identifier: Apache-2.0 */
/* Keys in byte order with a value each: a skip list. Threads: the owner's lock. */
#ifndef S3D_INDEX_H
#define S3D_INDEX_H

#include <stddef.h>
#include <stdint.h>

#define INDEX_LEVELS 16

struct index_node {
	void *value;
	char *key; /* NUL-terminated copy; may hold NULs of its own */
	uint32_t key_len;
	struct index_node *next[];
};

struct index {
	struct index_node *head; /* holds INDEX_LEVELS links and no key */
	size_t count;
	uint64_t random;
};

int index_init(struct index *ix);
/* Hands each value to <drop>. */
void index_done(struct index *ix, void (*drop)(void *value));

struct index_node *index_first(const struct index *ix);
/* First node whose key is >= <key>, NULL if there is none. */
struct index_node *index_lower_bound(const struct index *ix, const char *key, size_t key_len);
struct index_node *index_find(const struct index *ix, const char *key, size_t key_len);
/* *ret_old is the value that was there before, or NULL. */
int index_set(struct index *ix, const char *key, size_t key_len, void *value, void **ret_old);
/* Returns the value taken out, or NULL. */
void *index_remove(struct index *ix, const char *key, size_t key_len);

#endif
