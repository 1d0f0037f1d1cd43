// SPDX-License-Identifier: Apache-2.0
/* Keys in byte order: a skip list with a quarter of the nodes on each next level. */
#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "digest.h"

static int key_compare(const struct index_node *n, const char *key, size_t key_len)
{
	size_t common = n->key_len < key_len ? n->key_len : key_len;
	int rc = common ? memcmp(n->key, key, common) : 0;

	if (rc)
		return rc;
	return n->key_len < key_len ? -1 : n->key_len > key_len;
}

int index_init(struct index *ix)
{
	*ix = (struct index){ .random = 1 };
	ix->head = calloc(1, sizeof(*ix->head) + INDEX_LEVELS * sizeof(ix->head->next[0]));
	return ix->head ? 0 : -ENOMEM;
}

void index_done(struct index *ix, void (*drop)(void *value))
{
	struct index_node *n = ix->head ? ix->head->next[0] : NULL;

	while (n) {
		struct index_node *next = n->next[0];

		drop(n->value);
		free(n);
		n = next;
	}
	free(ix->head);
	ix->head = NULL;
}

/* The last node before <key> on every level. */
static void index_descend(const struct index *ix, const char *key, size_t key_len, struct index_node *ret[INDEX_LEVELS])
{
	struct index_node *n = ix->head;

	for (int level = INDEX_LEVELS - 1; level >= 0; level--) {
		while (n->next[level] && key_compare(n->next[level], key, key_len) < 0)
			n = n->next[level];
		ret[level] = n;
	}
}

struct index_node *index_first(const struct index *ix)
{
	return ix->head->next[0];
}

struct index_node *index_lower_bound(const struct index *ix, const char *key, size_t key_len)
{
	struct index_node *before[INDEX_LEVELS];

	index_descend(ix, key, key_len, before);
	return before[0]->next[0];
}

struct index_node *index_find(const struct index *ix, const char *key, size_t key_len)
{
	struct index_node *n = index_lower_bound(ix, key, key_len);

	return n && !key_compare(n, key, key_len) ? n : NULL;
}

static int index_random_levels(struct index *ix)
{
	uint64_t r = mix64(ix->random += MIX64_STEP);
	int levels = 1;

	for (; levels < INDEX_LEVELS && !(r & 3); r >>= 2)
		levels++;
	return levels;
}

int index_set(struct index *ix, const char *key, size_t key_len, void *value, void **ret_old)
{
	struct index_node *before[INDEX_LEVELS], *n;
	int levels;

	index_descend(ix, key, key_len, before);
	n = before[0]->next[0];
	if (n && !key_compare(n, key, key_len)) {
		*ret_old = n->value;
		n->value = value;
		return 0;
	}
	levels = index_random_levels(ix);
	n = malloc(sizeof(*n) + (size_t)levels * sizeof(n->next[0]) + key_len + 1);
	if (!n)
		return -ENOMEM;
	n->value = value;
	n->key = (char *)&n->next[levels];
	n->key_len = (uint32_t)key_len;
	memcpy(n->key, key, key_len);
	n->key[key_len] = '\0';
	for (int level = 0; level < levels; level++) {
		n->next[level] = before[level]->next[level];
		before[level]->next[level] = n;
	}
	ix->count++;
	*ret_old = NULL;
	return 0;
}

void *index_remove(struct index *ix, const char *key, size_t key_len)
{
	struct index_node *before[INDEX_LEVELS], *n;
	void *value;

	index_descend(ix, key, key_len, before);
	n = before[0]->next[0];
	if (!n || key_compare(n, key, key_len))
		return NULL;
	for (int level = 0; level < INDEX_LEVELS && before[level]->next[level] == n; level++)
		before[level]->next[level] = n->next[level];
	value = n->value;
	free(n);
	ix->count--;
	return value;
}
