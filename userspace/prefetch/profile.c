// SPDX-License-Identifier: Apache-2.0
/* Replay and summary of a recorded profile. */
#include "prefetch/profile.h"

#include <stdlib.h>

#include "base/cleanup.h"

void profile_free(struct profile *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; p->file && i < p->nr_files; i++) {
		free(p->file[i].key);
		free(p->file[i].etag);
	}
	free(p->file);
	free(p->access);
	free(p);
}

static uint64_t access_end(const struct profile *p, const struct profile_access *a)
{
	uint64_t end = ((uint64_t)a->block + a->nr_blocks) * PROFILE_BLOCK_BYTES;

	return min_of(end, p->file[a->file].size_bytes);
}

static void access_item(const void *ctx, uint32_t i, struct walk_item *ret_item)
{
	const struct profile *p = ctx;
	const struct profile_access *a = &p->access[i];

	*ret_item = (struct walk_item){
		.offset = (uint64_t)a->block * PROFILE_BLOCK_BYTES,
		.len = (uint64_t)a->nr_blocks * PROFILE_BLOCK_BYTES,
		.file_bytes = p->file[a->file].size_bytes,
		.file = a->file,
	};
}

int profile_next(const struct profile *p, struct walk_cursor *cursor, uint64_t max_bytes,
		 struct profile_range *ret_range)
{
	struct walk_source src = { .item = access_item, .ctx = p, .nr = p->nr_accesses };
	struct walk_item range;
	int rc = walk_next(&src, cursor, max_bytes, &range);

	if (rc == 1)
		*ret_range = (struct profile_range){
			.file = range.file,
			.time_ms = p->access[cursor->next].time_ms,
			.offset = range.offset,
			.len = range.len,
		};
	return rc;
}

void profile_summarize(const struct profile *p, struct profile_summary *ret_summary)
{
	struct profile_summary s = { 0 };

	for (uint32_t i = 0; i < p->nr_files; i++)
		s.files_bytes += p->file[i].size_bytes;
	for (uint32_t i = 0; i < p->nr_accesses; i++) {
		const struct profile_access *a = &p->access[i], *before = i ? a - 1 : NULL;
		uint64_t bytes = access_end(p, a) - (uint64_t)a->block * PROFILE_BLOCK_BYTES;

		s.read_bytes += bytes;
		s.aged_bytes += a->age ? bytes : 0;
		s.duration_ms = a->time_ms;
		s.nr_jumps += before && before->file == a->file && before->block + before->nr_blocks != a->block;
	}
	*ret_summary = s;
}
