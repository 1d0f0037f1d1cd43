/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated reader: which blocks are here, which were fetched for nothing, which reads had to wait. */
#ifndef PENSTOCK_TEST_STREAM_H
#define PENSTOCK_TEST_STREAM_H

#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/cleanup.h"
#include "prefetch/stream.h"
#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define UNIT (8 * MIB)
#define BLOCK (128 * KIB)

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* --- a reader with the cache reduced to two bits a block --- */

enum { ABSENT = 0, UNREAD, SERVED };

struct sim {
	struct stream_set set;
	struct stream_limits lim;
	unsigned char *block;  /* state of each */
	uint64_t unread_bytes; /* prefetched and not read: bounded as in the cache */
	uint64_t unread_max;   /* the most there ever was */
	uint64_t memory_bytes;
	uint64_t wanted, fetched, sweep_bytes;
	unsigned nr_missed;
	struct stream_plan plan; /* of the last read */
};

static void sim_init(struct sim *m, uint64_t file_bytes)
{
	memset(m, 0, sizeof(*m));
	m->lim = (struct stream_limits){
		.file_bytes = file_bytes,
		.unit_bytes = UNIT,
		.window_max_bytes = 64 * MIB,
		.sweep_max_bytes = 256 * MIB,
	};
	m->memory_bytes = 512 * MIB;
	m->block = calloc(file_bytes / BLOCK + 1, 1);
	assert_non_null(m->block);
}

static void sim_done(struct sim *m)
{
	free(m->block);
}

static uint64_t sim_block_bytes(const struct sim *m, uint64_t b)
{
	return min_of(BLOCK, m->lim.file_bytes - b * BLOCK);
}

/* Returns how much of the range is taken care of, as cache_prefetch() does. */
static uint64_t sim_prefetch(struct sim *m, uint64_t offset, uint64_t len)
{
	for (uint64_t b = offset / BLOCK; b * BLOCK < offset + len; b++) {
		if (m->block[b] != ABSENT)
			continue;
		if (m->unread_bytes + BLOCK > m->memory_bytes)
			return b * BLOCK > offset ? b * BLOCK - offset : 0;
		m->block[b] = UNREAD;
		m->unread_bytes += sim_block_bytes(m, b);
		m->fetched += sim_block_bytes(m, b);
	}
	m->unread_max = max_of(m->unread_max, m->unread_bytes);
	return len;
}

static void check_range(const struct sim *m, const struct stream_range *r)
{
	assert_true(r->len > 0);
	assert_true(r->offset + r->len <= m->lim.file_bytes);
	assert_in_range(r->stream + 2, 0, STREAM_MAX + 1);
}

/* One read: true if it had to wait. */
static bool sim_read(struct sim *m, uint64_t offset, uint64_t len)
{
	struct stream_range first = stream_first_touch(&m->set, &m->lim, offset, len);
	bool missed = false;

	if (first.len)
		sim_prefetch(m, first.offset, first.len);
	for (uint64_t b = offset / BLOCK; b * BLOCK < offset + len; b++) {
		missed = missed || m->block[b] == ABSENT;
		if (m->block[b] == UNREAD)
			m->unread_bytes -= sim_block_bytes(m, b);
		if (m->block[b] == ABSENT)
			m->fetched += sim_block_bytes(m, b);
		m->block[b] = SERVED;
	}
	m->wanted += len;
	m->nr_missed += missed;
	stream_observe(&m->set, &m->lim, offset, len, missed, &m->plan);
	for (unsigned i = 0; i < m->plan.nr; i++) {
		const struct stream_range *r = &m->plan.range[i];
		uint64_t accepted;

		check_range(m, r);
		if (r->stream == -1)
			m->sweep_bytes += r->len;
		accepted = sim_prefetch(m, r->offset, r->len);
		if (accepted < r->len)
			stream_cut(&m->set, r, accepted);
	}
	return missed;
}

/* Times 1000. */
static unsigned sim_amplification(const struct sim *m)
{
	return (unsigned)(m->fetched * 1000 / m->wanted);
}

#endif
