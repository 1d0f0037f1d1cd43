// SPDX-License-Identifier: Apache-2.0
/*
 * Several loads become one profile.
 *
 * Design: the newer load is kept as it is. What only the older one has is found by subtracting the newer one's ranges,
 * file by file, and goes behind the access of the newer load that covers what came before it in the older one.
 */
#define _GNU_SOURCE
#include "prefetch/profile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define SLICE_SLACK_BLOCKS 8

static uint64_t distance(uint64_t a, uint64_t b)
{
	return a > b ? a - b : b - a;
}

static bool slice_matches(const struct profile_rank *a, const struct profile_rank *b, uint64_t all)
{
	uint64_t slack = all / 16 + SLICE_SLACK_BLOCKS;

	return distance(a->lo, b->lo) <= slack && distance(a->hi, b->hi) <= slack &&
	       distance(a->nr_blocks, b->nr_blocks) <= max_of(a->nr_blocks, b->nr_blocks) / 8 + SLICE_SLACK_BLOCKS;
}

bool profile_layout_matches(const struct profile *a, const struct profile *b, uint8_t ret_map[PROFILE_RANKS_MAX])
{
	uint64_t taken = 0, all = 0;

	if (a->nr_ranks != b->nr_ranks)
		return false;
	for (uint32_t i = 0; i < a->nr_ranks; i++)
		all = max_of(all, a->rank[i].hi);
	for (uint32_t i = 0; i < b->nr_ranks; i++)
		all = max_of(all, b->rank[i].hi);
	for (uint32_t i = 0; i < a->nr_ranks; i++) {
		uint32_t j = 0;

		while (j < b->nr_ranks && (taken >> j & 1 || !slice_matches(&a->rank[i], &b->rank[j], all)))
			j++;
		if (j == b->nr_ranks)
			return false;
		taken |= (uint64_t)1 << j;
		if (ret_map)
			ret_map[i] = (uint8_t)j;
	}
	return true;
}

/* Blocks that the newer load covers; <access> = the first that does. */
struct cover {
	uint32_t file, lo, hi, access;
};

static int cover_compare(const void *a, const void *b)
{
	const struct cover *x = a, *y = b;

	if (x->file != y->file)
		return x->file < y->file ? -1 : 1;
	if (x->lo != y->lo)
		return x->lo < y->lo ? -1 : 1;
	return x->access < y->access ? -1 : x->access > y->access;
}

/* A range of the older load that goes behind access <behind> - 1 of the newer one; <order> keeps their order. */
struct leftover {
	uint32_t behind, order;
	struct profile_access access;
};

static int leftover_compare(const void *a, const void *b)
{
	const struct leftover *x = a, *y = b;

	if (x->behind != y->behind)
		return x->behind < y->behind ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

struct merge {
	const struct profile *older, *newer;
	struct profile *to;
	uint32_t *from_older, *from_newer; /* places of their files in the merged table */
	uint8_t rank[PROFILE_RANKS_MAX];   /* of the older one's ranks */
	struct cover *cover;
	uint32_t nr_covers;
	struct leftover *left;
	uint32_t nr_left, cap_left;
	uint32_t behind;
};

static int add_file(struct profile *to, const struct profile_file *f)
{
	struct profile_file *n;

	if (to->nr_files == PROFILE_FILES_MAX)
		return -ENOSPC;
	n = &to->file[to->nr_files++];
	n->key = strdup(f->key);
	n->etag = strdup(f->etag);
	n->size_bytes = f->size_bytes;
	return n->key && n->etag ? 0 : -ENOMEM;
}

/* Both tables are sorted. A file of the same dataset that is not the same object is damage. */
static int merge_files(struct merge *m)
{
	const struct profile *a = m->older, *b = m->newer;
	uint32_t i = 0, j = 0;
	int rc = 0;

	m->to->file = calloc((size_t)a->nr_files + b->nr_files, sizeof(*m->to->file));
	m->from_older = calloc(a->nr_files, sizeof(*m->from_older));
	m->from_newer = calloc(b->nr_files, sizeof(*m->from_newer));
	if (!m->to->file || !m->from_older || !m->from_newer)
		return -ENOMEM;
	while (rc == 0 && (i < a->nr_files || j < b->nr_files)) {
		int order = i == a->nr_files ? 1 : j == b->nr_files ? -1 : strcmp(a->file[i].key, b->file[j].key);

		if (order == 0 &&
		    (a->file[i].size_bytes != b->file[j].size_bytes || strcmp(a->file[i].etag, b->file[j].etag) != 0))
			return -ESTALE;
		if (order <= 0)
			m->from_older[i] = m->to->nr_files;
		if (order >= 0)
			m->from_newer[j] = m->to->nr_files;
		rc = add_file(m->to, order <= 0 ? &a->file[i] : &b->file[j]);
		i += order <= 0;
		j += order >= 0;
	}
	return rc;
}

/* Sorted, and without overlaps, so that the ends rise too. */
static int collect_covers(struct merge *m)
{
	const struct profile *b = m->newer;
	uint32_t nr = 0;

	m->cover = calloc(b->nr_accesses, sizeof(*m->cover));
	if (!m->cover)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nr_accesses; i++) {
		m->cover[i] = (struct cover){
			.file = m->from_newer[b->access[i].file],
			.lo = b->access[i].block,
			.hi = b->access[i].block + b->access[i].nr_blocks,
			.access = i,
		};
	}
	qsort(m->cover, b->nr_accesses, sizeof(*m->cover), cover_compare);
	for (uint32_t i = 0; i < b->nr_accesses; i++) {
		struct cover c = m->cover[i];

		if (nr && m->cover[nr - 1].file == c.file)
			c.lo = max_of(c.lo, m->cover[nr - 1].hi);
		if (c.lo < c.hi)
			m->cover[nr++] = c;
	}
	m->nr_covers = nr;
	return 0;
}

/* The first cover that ends behind a place. */
static uint32_t find_cover(const struct merge *m, uint32_t file, uint32_t block)
{
	uint32_t lo = 0, hi = m->nr_covers;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		const struct cover *c = &m->cover[mid];

		if (c->file < file || (c->file == file && c->hi <= block))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int add_leftover(struct merge *m, const struct profile_access *a, uint32_t file, uint32_t lo, uint32_t hi)
{
	if (a->age + 1 >= PROFILE_LOADS_KEPT)
		return 0;
	if (m->nr_left == m->cap_left) {
		uint32_t cap = m->cap_left ? m->cap_left * 2 : 64;
		void *left = realloc(m->left, cap * sizeof(*m->left));

		if (!left)
			return -ENOMEM;
		m->left = left;
		m->cap_left = cap;
	}
	m->left[m->nr_left] = (struct leftover){
		.behind = m->behind,
		.order = m->nr_left,
		.access = {
			.file = file,
			.block = lo,
			.nr_blocks = (uint16_t)(hi - lo),
			.rank = m->rank[a->rank],
			.age = (uint8_t)(a->age + 1),
		},
	};
	m->nr_left++;
	return 0;
}

/* What of an older access the newer load has not; moves the place for what follows. */
static int subtract(struct merge *m, const struct profile_access *a)
{
	uint32_t file = m->from_older[a->file], at = a->block, end = a->block + a->nr_blocks;
	int rc = 0;

	for (uint32_t i = find_cover(m, file, at); rc == 0 && at < end; i++) {
		const struct cover *c = i < m->nr_covers && m->cover[i].file == file ? &m->cover[i] : NULL;
		uint32_t gap = c ? min_of(c->lo, end) : end;

		if (gap > at)
			rc = add_leftover(m, a, file, at, gap);
		if (!c || c->lo >= end)
			break;
		m->behind = c->access + 1;
		at = c->hi;
	}
	return rc;
}

static int merge_accesses(struct merge *m)
{
	const struct profile *b = m->newer;
	struct profile *to = m->to;
	uint32_t left = 0;

	if (m->nr_left)
		qsort(m->left, m->nr_left, sizeof(*m->left), leftover_compare);
	m->nr_left = min_of(m->nr_left, PROFILE_ACCESSES_MAX - b->nr_accesses);
	to->access = calloc((size_t)b->nr_accesses + m->nr_left, sizeof(*to->access));
	if (!to->access)
		return -ENOMEM;
	for (uint32_t i = 0; i <= b->nr_accesses; i++) {
		uint32_t time_ms = i ? b->access[i - 1].time_ms : b->access[0].time_ms;

		for (; left < m->nr_left && m->left[left].behind == i; left++) {
			to->access[to->nr_accesses] = m->left[left].access;
			to->access[to->nr_accesses++].time_ms = time_ms;
		}
		if (i == b->nr_accesses)
			break;
		to->access[to->nr_accesses] = b->access[i];
		to->access[to->nr_accesses].age = 0;
		to->access[to->nr_accesses++].file = m->from_newer[b->access[i].file];
	}
	return 0;
}

/* A reader's slice is counted in the newer load's files; the merged table may have more before them. */
static void move_ranks(const struct merge *m)
{
	const struct profile *b = m->newer;
	struct profile *to = m->to;

	to->nr_ranks = b->nr_ranks;
	for (uint32_t r = 0; r < b->nr_ranks; r++) {
		uint64_t from = 0, base = 0, lo = b->rank[r].lo, hi = b->rank[r].hi, new_lo = lo, new_hi = hi;
		uint32_t at = 0;

		for (uint32_t f = 0; f < b->nr_files; f++) {
			uint64_t blocks = (b->file[f].size_bytes + PROFILE_BLOCK_BYTES - 1) / PROFILE_BLOCK_BYTES;

			for (; at < m->from_newer[f]; at++)
				base += (to->file[at].size_bytes + PROFILE_BLOCK_BYTES - 1) / PROFILE_BLOCK_BYTES;
			if (lo >= from && lo < from + blocks)
				new_lo = base + (lo - from);
			if (hi > from && hi <= from + blocks)
				new_hi = base + (hi - from);
			from += blocks;
		}
		to->rank[r] = (struct profile_rank){ new_lo, new_hi, b->rank[r].nr_blocks };
	}
}

static int merge_all(struct merge *m)
{
	int rc = merge_files(m);

	if (rc == 0)
		rc = collect_covers(m);
	for (uint32_t i = 0; rc == 0 && i < m->older->nr_accesses; i++)
		rc = subtract(m, &m->older->access[i]);
	if (rc == 0)
		rc = merge_accesses(m);
	if (rc == 0)
		move_ranks(m);
	return rc;
}

int profile_merge(const struct profile *older, const struct profile *newer, struct profile **ret_profile)
{
	struct merge m = { .older = older, .newer = newer };
	int rc;

	if (memcmp(older->dataset, newer->dataset, sizeof(newer->dataset)) != 0 ||
	    !profile_layout_matches(older, newer, m.rank))
		return -ESTALE;
	m.to = calloc(1, sizeof(*m.to));
	if (!m.to)
		return -ENOMEM;
	memcpy(m.to->dataset, newer->dataset, sizeof(newer->dataset));
	m.to->nr_loads = older->nr_loads < UINT32_MAX ? older->nr_loads + 1 : UINT32_MAX;
	rc = merge_all(&m);
	free(m.from_older);
	free(m.from_newer);
	free(m.cover);
	free(m.left);
	if (rc < 0)
		profile_free(m.to);
	else
		*ret_profile = m.to;
	return rc;
}
