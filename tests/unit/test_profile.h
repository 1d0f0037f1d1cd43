/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded loads for the tests of profiles. */
#ifndef PENSTOCK_TEST_PROFILE_H
#define PENSTOCK_TEST_PROFILE_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "prefetch/profile.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define BLOCK ((uint64_t)PROFILE_BLOCK_BYTES)
#define MAPS_BYTES (16 * MIB)

static const uint8_t dataset_a[PROFILE_DATASET_BYTES] = "dataset a";

static inline struct profile_builder *builder_new(void)
{
	struct profile_builder *b = NULL;

	assert_int_equal(profile_builder_new(dataset_a, MAPS_BYTES, &b), 0);
	return b;
}

static inline uint32_t builder_file(struct profile_builder *b, const char *key, uint64_t size_bytes)
{
	uint32_t file;

	assert_int_equal(profile_builder_file(b, key, "\"etag\"", size_bytes, &file), 0);
	return file;
}

static inline void builder_add(struct profile_builder *b, int32_t pid, uint32_t file, uint64_t block,
			       uint64_t nr_blocks, uint64_t time_ms)
{
	assert_int_equal(profile_builder_add(b, pid, file, block * BLOCK, nr_blocks * BLOCK, time_ms * NSEC_PER_MSEC),
			 0);
}

/* What was recorded; the builder is gone. */
static inline struct profile *builder_finish(struct profile_builder *b)
{
	struct profile *p = NULL;

	assert_int_equal(profile_builder_finish(b, &p), 0);
	profile_builder_free(b);
	return p;
}

static inline void assert_access(const struct profile *p, uint32_t i, uint32_t file, uint32_t block, uint32_t nr_blocks,
				 uint32_t rank, uint32_t time_ms)
{
	assert_in_range(i, 0, p->nr_accesses - 1);
	assert_int_equal(p->access[i].file, file);
	assert_int_equal(p->access[i].block, block);
	assert_int_equal(p->access[i].nr_blocks, nr_blocks);
	assert_int_equal(p->access[i].rank, rank);
	assert_int_equal(p->access[i].time_ms, time_ms);
}

#endif
