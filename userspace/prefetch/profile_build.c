// SPDX-License-Identifier: Apache-2.0
/*
 * Recording: access events become runs of blocks.
 *
 * Design: one map of bits for each file says which blocks are recorded, so that every block appears once, where it was
 * first wanted; one for each of its readers says who read it, which is the layout. A process reads in several threads,
 * so a block continues any of the last few runs of its process, upward or downward.
 */
#define _GNU_SOURCE
#include "prefetch/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define OPEN_RUNS 16
#define RUN_MS_MAX 1000
#define WORD_BITS 64

struct seen_file {
	struct profile_file file;
	uint64_t *seen;  /* by anyone */
	uint64_t **rank; /* PROFILE_RANKS_MAX maps, allocated with the first access */
};

struct reader {
	int32_t pid;
	uint32_t nr_open;
	uint32_t open[OPEN_RUNS]; /* accesses that may go on, the latest first */
};

struct profile_builder {
	uint8_t dataset[PROFILE_DATASET_BYTES];
	size_t max_bytes, used_bytes;
	struct seen_file *file;
	uint32_t nr_files, cap_files;
	struct profile_access *access;
	uint32_t nr_accesses, cap_accesses;
	struct reader reader[PROFILE_RANKS_MAX];
	uint32_t nr_readers;
	uint64_t first_ns;
	uint32_t last_ms;
};

static uint32_t file_blocks(uint64_t size_bytes)
{
	return (uint32_t)((size_bytes + PROFILE_BLOCK_BYTES - 1) / PROFILE_BLOCK_BYTES);
}

static size_t file_words(uint64_t size_bytes)
{
	return (file_blocks(size_bytes) + WORD_BITS - 1) / WORD_BITS;
}

static bool bit_test(const uint64_t *map, uint32_t block)
{
	return map[block / WORD_BITS] >> block % WORD_BITS & 1;
}

static void bit_set(uint64_t *map, uint32_t block)
{
	map[block / WORD_BITS] |= (uint64_t)1 << block % WORD_BITS;
}

int profile_builder_new(const uint8_t dataset[PROFILE_DATASET_BYTES], size_t max_bytes,
			struct profile_builder **ret_builder)
{
	struct profile_builder *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	memcpy(b->dataset, dataset, sizeof(b->dataset));
	b->max_bytes = max_bytes;
	*ret_builder = b;
	return 0;
}

void profile_builder_free(struct profile_builder *b)
{
	if (!b)
		return;
	for (uint32_t i = 0; i < b->nr_files; i++) {
		struct seen_file *f = &b->file[i];

		for (uint32_t r = 0; f->rank && r < PROFILE_RANKS_MAX; r++)
			free(f->rank[r]);
		free(f->rank);
		free(f->seen);
		free(f->file.key);
		free(f->file.etag);
	}
	free(b->file);
	free(b->access);
	free(b);
}

int profile_builder_file(struct profile_builder *b, const char *key, const char *etag, uint64_t size_bytes,
			 uint32_t *ret_file)
{
	_cleanup_free_ char *own_key = NULL, *own_etag = NULL;

	if (!*key || strlen(key) > PROFILE_KEY_MAX_BYTES || strlen(etag) > PROFILE_ETAG_MAX_BYTES ||
	    size_bytes > PROFILE_FILE_MAX_BYTES)
		return -EINVAL;
	if (b->nr_files == PROFILE_FILES_MAX)
		return -ENOSPC;
	if (b->nr_files == b->cap_files) {
		uint32_t cap = b->cap_files ? b->cap_files * 2 : 16;
		void *file = realloc(b->file, cap * sizeof(*b->file));

		if (!file)
			return -ENOMEM;
		b->file = file;
		b->cap_files = cap;
	}
	own_key = strdup(key);
	own_etag = strdup(etag);
	if (!own_key || !own_etag)
		return -ENOMEM;
	*ret_file = b->nr_files;
	b->file[b->nr_files++] = (struct seen_file){
		.file = { .key = take_ptr(own_key), .etag = take_ptr(own_etag), .size_bytes = size_bytes },
	};
	return 0;
}

/* Readers beyond the last rank share it. */
static uint32_t rank_of(struct profile_builder *b, int32_t pid)
{
	uint32_t r = 0;

	while (r < b->nr_readers && b->reader[r].pid != pid)
		r++;
	if (r == PROFILE_RANKS_MAX)
		return PROFILE_RANKS_MAX - 1;
	if (r == b->nr_readers)
		b->reader[b->nr_readers++].pid = pid;
	return r;
}

static int charged_calloc(struct profile_builder *b, size_t nr, size_t size, void *ret_ptr)
{
	void *p;

	if (nr * size > b->max_bytes - b->used_bytes)
		return -ENOSPC;
	p = calloc(nr, size);
	if (!p)
		return -ENOMEM;
	b->used_bytes += nr * size;
	memcpy(ret_ptr, &p, sizeof(p));
	return 0;
}

static int maps_ready(struct profile_builder *b, struct seen_file *f, uint32_t rank)
{
	size_t words = file_words(f->file.size_bytes);
	int rc = 0;

	if (!f->rank)
		rc = charged_calloc(b, PROFILE_RANKS_MAX, sizeof(*f->rank), &f->rank);
	if (rc == 0 && !f->seen)
		rc = charged_calloc(b, words, sizeof(*f->seen), &f->seen);
	if (rc == 0 && !f->rank[rank])
		rc = charged_calloc(b, words, sizeof(**f->rank), &f->rank[rank]);
	return rc;
}

/* Puts an access at the front of its reader's open ones; <at> = where it stood, or nr_open. */
static void open_run(struct reader *r, uint32_t at, uint32_t access)
{
	if (at == r->nr_open) {
		if (r->nr_open < OPEN_RUNS)
			r->nr_open++;
		else
			at = OPEN_RUNS - 1;
	}
	memmove(&r->open[1], &r->open[0], at * sizeof(r->open[0]));
	r->open[0] = access;
}

static int record_block(struct profile_builder *b, uint32_t rank, uint32_t file, uint32_t block, uint32_t time_ms)
{
	struct reader *r = &b->reader[rank];

	for (uint32_t i = 0; i < r->nr_open; i++) {
		struct profile_access *a = &b->access[r->open[i]];
		bool up = block == a->block + a->nr_blocks;

		if (a->file != file || a->nr_blocks == PROFILE_RUN_BLOCKS_MAX || time_ms - a->time_ms > RUN_MS_MAX ||
		    (!up && block + 1 != a->block))
			continue;
		a->block -= !up;
		a->nr_blocks++;
		open_run(r, i, r->open[i]);
		return 0;
	}
	if (b->nr_accesses == PROFILE_ACCESSES_MAX)
		return -ENOSPC;
	if (b->nr_accesses == b->cap_accesses) {
		uint32_t cap = b->cap_accesses ? b->cap_accesses * 2 : 256;
		void *access = realloc(b->access, cap * sizeof(*b->access));

		if (!access)
			return -ENOMEM;
		b->access = access;
		b->cap_accesses = cap;
	}
	b->access[b->nr_accesses] = (struct profile_access){
		.file = file,
		.block = block,
		.time_ms = time_ms,
		.nr_blocks = 1,
		.rank = (uint8_t)rank,
	};
	open_run(r, r->nr_open, b->nr_accesses++);
	return 0;
}

/* Events of several processors may come a little out of order: time stands still then. */
static uint32_t time_of(struct profile_builder *b, uint64_t time_ns)
{
	uint64_t ms;

	if (!b->nr_accesses && !b->last_ms)
		b->first_ns = time_ns;
	ms = time_ns > b->first_ns ? (time_ns - b->first_ns) / NSEC_PER_MSEC : 0;
	b->last_ms = max_of(b->last_ms, (uint32_t)min_of(ms, (uint64_t)UINT32_MAX));
	return b->last_ms;
}

int profile_builder_add(struct profile_builder *b, int32_t pid, uint32_t file, uint64_t offset, uint64_t len,
			uint64_t time_ns)
{
	uint32_t rank, time_ms, last;
	struct seen_file *f;
	int rc;

	if (file >= b->nr_files)
		return -EINVAL;
	f = &b->file[file];
	if (!len || offset >= f->file.size_bytes)
		return 0;
	len = min_of(len, f->file.size_bytes - offset);
	rank = rank_of(b, pid);
	time_ms = time_of(b, time_ns);
	rc = maps_ready(b, f, rank);
	if (rc < 0)
		return rc;
	last = (uint32_t)((offset + len - 1) / PROFILE_BLOCK_BYTES);
	for (uint32_t block = (uint32_t)(offset / PROFILE_BLOCK_BYTES); block <= last; block++) {
		if (!bit_test(f->seen, block)) {
			rc = record_block(b, rank, file, block, time_ms);
			if (rc < 0)
				return rc;
			bit_set(f->seen, block);
		}
		bit_set(f->rank[rank], block);
	}
	return 0;
}

/* Adds a reader's blocks of a file that begins at block <base> of all files. */
static void add_slice(struct profile_rank *slice, const uint64_t *map, size_t words, uint64_t base)
{
	for (size_t i = 0; i < words; i++) {
		if (!map[i])
			continue;
		if (!slice->nr_blocks)
			slice->lo = base + i * WORD_BITS + (unsigned)__builtin_ctzll(map[i]);
		slice->hi = base + i * WORD_BITS + WORD_BITS - (unsigned)__builtin_clzll(map[i]);
		slice->nr_blocks += (unsigned)__builtin_popcountll(map[i]);
	}
}

static int key_compare(const void *a, const void *b, void *arg)
{
	const struct profile_builder *builder = arg;

	return strcmp(builder->file[*(const uint32_t *)a].file.key, builder->file[*(const uint32_t *)b].file.key);
}

/* Files that were read from, in the order of their keys. */
static int finish_files(const struct profile_builder *b, struct profile *p, uint32_t *place)
{
	_cleanup_free_ uint32_t *order = calloc(b->nr_files, sizeof(*order));
	uint64_t base = 0;

	p->file = calloc(b->nr_files, sizeof(*p->file));
	if (!order || !p->file)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nr_files; i++)
		order[i] = i;
	qsort_r(order, b->nr_files, sizeof(*order), key_compare, (void *)b);
	for (uint32_t i = 0; i < b->nr_files; i++) {
		const struct seen_file *f = &b->file[order[i]];
		struct profile_file *to = &p->file[p->nr_files];

		if (i && strcmp(b->file[order[i - 1]].file.key, f->file.key) == 0)
			return -EEXIST;
		if (!f->seen)
			continue;
		place[order[i]] = p->nr_files++;
		to->key = strdup(f->file.key);
		to->etag = strdup(f->file.etag);
		to->size_bytes = f->file.size_bytes;
		if (!to->key || !to->etag)
			return -ENOMEM;
		for (uint32_t r = 0; r < b->nr_readers; r++) {
			if (f->rank[r])
				add_slice(&p->rank[r], f->rank[r], file_words(f->file.size_bytes), base);
		}
		base += file_blocks(f->file.size_bytes);
	}
	return 0;
}

static void cleanup_profile(struct profile **p)
{
	profile_free(*p);
}

int profile_builder_finish(const struct profile_builder *b, struct profile **ret_profile)
{
	_cleanup_(cleanup_profile) struct profile *p = NULL;
	_cleanup_free_ uint32_t *place = NULL;
	int rc;

	if (!b->nr_accesses)
		return -ENODATA;
	p = calloc(1, sizeof(*p));
	place = calloc(b->nr_files, sizeof(*place));
	if (!p || !place)
		return -ENOMEM;
	memcpy(p->dataset, b->dataset, sizeof(p->dataset));
	p->nr_loads = 1;
	p->nr_ranks = b->nr_readers;
	rc = finish_files(b, p, place);
	if (rc < 0)
		return rc;
	p->access = calloc(b->nr_accesses, sizeof(*p->access));
	if (!p->access)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nr_accesses; i++) {
		p->access[i] = b->access[i];
		p->access[i].file = place[b->access[i].file];
	}
	p->nr_accesses = b->nr_accesses;
	*ret_profile = take_ptr(p);
	return 0;
}
