// SPDX-License-Identifier: Apache-2.0
/* The window over a plan: every byte once, in the plan's order, never more ahead than allowed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "prefetch/sched.h"

#define MIB (1ull << 20)
#define BLOCK SCHED_BLOCK_BYTES
#define UNIT SCHED_UNIT_BYTES
#define FILES_MAX 8

static const struct sched_limits wide = { .window_bytes = 1ull << 40, .start_bytes = 1ull << 40 };

/* One file of <size> bytes, planned from its start to its end. */
static struct sched *plan_of(uint64_t size)
{
	struct sched *s = sched_new();

	assert_non_null(s);
	assert_int_equal(sched_file_add(s, size), 0);
	assert_int_equal(sched_range_add(s, 0, 0, size), 0);
	assert_int_equal(sched_seal(s), 0);
	return s;
}

static uint64_t drain(struct sched *s, const struct sched_limits *lim)
{
	struct sched_range r;
	uint64_t sum = 0;

	while (sched_next(s, lim, &r)) {
		assert_true(r.len > 0 && r.len <= UNIT);
		assert_int_equal(r.offset / UNIT, (r.offset + r.len - 1) / UNIT);
		sum += r.len;
	}
	return sum;
}

static void a_plan_is_fetched_in_its_order(void **state)
{
	static const struct sched_range want[] = {
		{ 1, 0, BLOCK },   { 0, 16 * MIB, 8 * MIB }, { 0, 24 * MIB, 8 * MIB },
		{ 0, 0, 4 * MIB }, { 1, 2 * BLOCK, 100 },
	};
	struct sched *s = sched_new();
	struct sched_range r;

	assert_int_equal(sched_file_add(s, 32 * MIB), 0);
	assert_int_equal(sched_file_add(s, 2 * BLOCK + 100), 1);
	assert_int_equal(sched_range_add(s, 1, 8, 4096), 0);
	assert_int_equal(sched_range_add(s, 0, 16 * MIB, 16 * MIB), 0);
	assert_int_equal(sched_range_add(s, 0, 0, 4 * MIB), 0);
	assert_int_equal(sched_range_add(s, 1, 2 * BLOCK + 50, 50), 0);
	assert_int_equal(sched_seal(s), 0);
	for (size_t i = 0; i < array_len(want); i++) {
		assert_true(sched_next(s, &wide, &r));
		assert_int_equal(r.file, want[i].file);
		assert_int_equal(r.offset, want[i].offset);
		assert_int_equal(r.len, want[i].len);
	}
	assert_false(sched_next(s, &wide, &r));
	sched_free(s);
}

static void a_block_of_two_ranges_is_fetched_once(void **state)
{
	struct sched *s = sched_new();

	sched_file_add(s, 10 * BLOCK);
	/* Tensors that are not aligned share blocks; one range lies over all others. */
	assert_int_equal(sched_range_add(s, 0, 3 * BLOCK - 7, 20), 0);
	assert_int_equal(sched_range_add(s, 0, 5 * BLOCK + 1, 2), 0);
	assert_int_equal(sched_range_add(s, 0, 0, 10 * BLOCK), 0);
	assert_int_equal(sched_range_add(s, 0, 1, BLOCK), 0);
	assert_int_equal(sched_seal(s), 0);
	assert_int_equal(drain(s, &wide), 10 * BLOCK);
	sched_free(s);
}

static void ranges_outside_of_their_file_are_refused(void **state)
{
	struct sched *s = sched_new();

	assert_int_equal(sched_range_add(s, 0, 0, 1), -EINVAL);
	assert_int_equal(sched_file_add(s, 1000), 0);
	assert_int_equal(sched_range_add(s, 0, 0, 1001), -EINVAL);
	assert_int_equal(sched_range_add(s, 0, 1001, 0), -EINVAL);
	assert_int_equal(sched_range_add(s, 0, 1, UINT64_MAX), -EINVAL);
	assert_int_equal(sched_range_add(s, 1, 0, 1), -EINVAL);
	assert_int_equal(sched_range_add(s, 0, 0, 0), 0);
	assert_int_equal(sched_file_add(s, UINT64_MAX), -E2BIG);
	assert_int_equal(sched_file_add(s, (uint64_t)SCHED_BLOCKS_MAX * BLOCK), -E2BIG);
	assert_int_equal(sched_seal(s), 0);
	assert_int_equal(drain(s, &wide), 0);
	sched_consume(s, 0, 0, 1000, false);
	sched_consume(s, 7, 0, 1000, false);
	sched_free(s);
}

static void what_is_fetched_and_unread_stays_within_the_window(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 32 * MIB, .start_bytes = 8 * MIB };
	struct sched *s = plan_of(1024 * MIB);
	uint64_t issued = drain(s, &lim);
	struct sched_stats st;

	assert_int_equal(issued, 8 * MIB);
	for (uint64_t read = 0; read < 1024 * MIB; read += MIB) {
		sched_consume(s, 0, read, MIB, false);
		issued += drain(s, &lim);
		assert_true(issued <= read + MIB + 48 * MIB);
		/* The reader never catches up. */
		assert_true(issued > read + MIB || issued == 1024 * MIB);
	}
	sched_stats(s, &st);
	assert_int_equal(issued, 1024 * MIB);
	assert_int_equal(st.used_bytes, 1024 * MIB);
	assert_int_equal(st.read_bytes, 1024 * MIB);
	assert_false(st.wrong);
	sched_free(s);
}

static void readers_far_apart_each_get_their_part(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 128 * MIB, .start_bytes = 0 };
	struct sched *s = plan_of(1024 * MIB);
	uint64_t ahead[4] = { 0 };
	struct sched_range r;

	for (uint64_t read = 0; read < 16 * MIB; read += MIB) {
		for (unsigned i = 0; i < 4; i++)
			sched_consume(s, 0, i * 256 * MIB + read, MIB, false);
	}
	while (sched_next(s, &lim, &r))
		ahead[r.offset / (256 * MIB)] += r.len;
	for (unsigned i = 0; i < 4; i++)
		assert_true(ahead[i] >= 24 * MIB);
	assert_true(ahead[0] + ahead[1] + ahead[2] + ahead[3] <= 192 * MIB);
	sched_free(s);
}

static void a_reader_that_goes_backward_is_served_by_the_base(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 64 * MIB, .start_bytes = 16 * MIB };
	struct sched *s = plan_of(256 * MIB);
	uint64_t issued = drain(s, &lim);
	struct sched_stats st;

	for (uint64_t left = 256 * MIB; left; left -= MIB) {
		sched_consume(s, 0, left - MIB, MIB, false);
		issued += drain(s, &lim);
	}
	sched_stats(s, &st);
	assert_int_equal(st.read_bytes, 256 * MIB);
	assert_true(st.used_bytes == st.issued_bytes);
	assert_false(st.wrong);
	sched_free(s);
}

static void random_small_reads_fetch_little(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 1024 * MIB, .start_bytes = 8 * MIB };
	struct sched *s = plan_of(64 * 1024 * MIB);
	uint64_t issued = drain(s, &lim);

	srand(3);
	for (unsigned i = 0; i < 100; i++) {
		sched_consume(s, 0, (uint64_t)(rand() % (64 * 1024)) * MIB, 4096, false);
		issued += drain(s, &lim);
	}
	assert_true(issued <= 9 * MIB);
	sched_free(s);
}

static void a_reader_that_skips_most_proves_the_plan_wrong(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 256 * MIB, .start_bytes = 8 * MIB };
	struct sched *s = plan_of(1024 * MIB);
	struct sched_stats st = { 0 };
	uint64_t read = 0;

	for (; read < 1024 * MIB && !st.wrong; read += 8 * BLOCK) {
		drain(s, &lim);
		sched_consume(s, 0, read, BLOCK, false);
		sched_stats(s, &st);
	}
	assert_true(st.wrong);
	assert_true(read <= 128 * MIB);
	sched_free(s);
}

/* Else a file in the page cache would be fetched again for whoever maps it. */
static void hits_in_the_page_cache_fetch_nothing_new(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 256 * MIB, .start_bytes = 8 * MIB };
	struct sched *s = plan_of(1024 * MIB);
	uint64_t issued = drain(s, &lim);

	for (uint64_t read = 256 * MIB; read < 512 * MIB; read += MIB) {
		sched_consume(s, 0, read, MIB, true);
		issued += drain(s, &lim);
	}
	assert_int_equal(issued, 8 * MIB);
	/* Of what the plan brought they are as good as any read. */
	for (uint64_t read = 0; read < 8 * MIB; read += MIB)
		sched_consume(s, 0, read, MIB, true);
	assert_true(drain(s, &lim) >= 32 * MIB);
	sched_free(s);
}

static void a_file_read_again_is_fetched_again(void **state)
{
	struct sched *s = sched_new();
	struct sched_stats st;

	for (unsigned i = 0; i < 3; i++)
		sched_file_add(s, 20 * MIB);
	/* Two files share a segment, and one is in two. */
	sched_range_add(s, 1, 10 * MIB, 10 * MIB);
	sched_range_add(s, 2, 0, 20 * MIB);
	sched_range_add(s, 0, 0, 20 * MIB);
	sched_range_add(s, 1, 0, 10 * MIB);
	assert_int_equal(sched_seal(s), 0);
	assert_int_equal(drain(s, &wide), 60 * MIB);
	for (unsigned i = 0; i < 3; i++)
		sched_consume(s, i, 0, 20 * MIB, false);
	sched_file_rewind(s, 1);
	sched_file_rewind(s, 7);
	sched_stats(s, &st);
	assert_int_equal(st.issued_bytes, 40 * MIB);
	assert_int_equal(st.used_bytes, 40 * MIB);
	assert_int_equal(st.read_bytes, 40 * MIB);
	sched_consume(s, 1, 0, 3 * MIB, false);
	sched_consume(s, 1, 10 * MIB, 3 * MIB, false);
	assert_int_equal(drain(s, &wide), 14 * MIB);
	sched_free(s);
}

static void files_read_in_another_order_are_not_skipped(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 1024 * MIB, .start_bytes = 1024 * MIB };
	static const unsigned order[] = { 3, 7, 0, 5, 1, 6, 2, 4 };
	struct sched *s = sched_new();
	struct sched_stats st;

	for (unsigned i = 0; i < 8; i++) {
		sched_file_add(s, 100 * MIB);
		sched_range_add(s, i, 0, 100 * MIB);
	}
	assert_int_equal(sched_seal(s), 0);
	assert_int_equal(drain(s, &lim), 800 * MIB);
	for (unsigned i = 0; i < 8; i++) {
		for (uint64_t at = 0; at < 100 * MIB; at += MIB)
			sched_consume(s, order[i], at, MIB, false);
		sched_stats(s, &st);
		assert_false(st.wrong);
	}
	assert_int_equal(st.used_bytes, 800 * MIB);
	sched_free(s);
}

static void what_nobody_reads_does_not_stop_the_others(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 64 * MIB, .start_bytes = 16 * MIB };
	struct sched *s = plan_of(1024 * MIB);
	uint64_t issued = 0, read;

	/* The base goes on in the first quarter, which is never read; the reader is in the third. */
	for (read = 0; read < 256 * MIB; read += MIB) {
		issued += drain(s, &lim);
		sched_consume(s, 0, 512 * MIB + read, MIB, false);
		assert_true(issued <= read + MIB + 96 * MIB);
	}
	assert_true(issued >= 256 * MIB);
	sched_free(s);
}

static void what_was_lost_is_fetched_again(void **state)
{
	struct sched *s = plan_of(64 * MIB);
	struct sched_stats st;
	struct sched_range r;

	assert_int_equal(drain(s, &wide), 64 * MIB);
	sched_consume(s, 0, 8 * MIB, 2 * BLOCK, false);
	sched_lost(s, 0, 64, 0xff);
	sched_lost(s, 0, 511, ~0ull);
	assert_true(sched_next(s, &wide, &r));
	assert_int_equal(r.offset, 8 * MIB + 2 * BLOCK);
	assert_int_equal(r.len, 6 * BLOCK);
	assert_int_equal(drain(s, &wide), BLOCK);
	sched_restart(s);
	sched_stats(s, &st);
	assert_int_equal(st.issued_bytes, 2 * BLOCK);
	assert_int_equal(drain(s, &wide), 64 * MIB - 2 * BLOCK);
	sched_free(s);
}

static void a_window_beyond_all_memory_is_no_window_at_all(void **state)
{
	static const struct sched_limits lim = { .window_bytes = 1ull << 50, .start_bytes = 1ull << 49 };
	struct sched *s = plan_of(1024 * MIB);

	assert_int_equal(drain(s, &lim), 1024 * MIB);
	sched_free(s);
}

static void what_was_cut_is_given_out_again(void **state)
{
	struct sched *s = plan_of(40 * MIB);
	struct sched_stats st;
	struct sched_range r;

	assert_true(sched_next(s, &wide, &r));
	assert_true(sched_next(s, &wide, &r));
	assert_int_equal(r.offset, 8 * MIB);
	sched_cut(s, &r, MIB);
	sched_stats(s, &st);
	assert_int_equal(st.issued_bytes, 9 * MIB);
	assert_true(sched_next(s, &wide, &r));
	assert_int_equal(r.offset, 9 * MIB);
	assert_int_equal(r.len, 7 * MIB);
	sched_cut(s, &r, 0);
	sched_consume(s, 0, 9 * MIB, MIB, false);
	assert_true(sched_next(s, &wide, &r));
	assert_int_equal(r.offset, 10 * MIB);
	assert_int_equal(drain(s, &wide), 24 * MIB);
	sched_free(s);
}

/* Any plan, any order of reading, any refusal: no byte twice, none left out, the window kept. */
static void every_block_is_fetched_or_read_exactly_once(void **state)
{
	for (unsigned seed = 0; seed < 200; seed++) {
		struct sched_limits lim = { .window_bytes = (1 + seed % 7) * 4 * MIB,
					    .start_bytes = seed % 3 * 8 * MIB };
		unsigned nr_files = 1 + seed % FILES_MAX;
		unsigned char *seen[FILES_MAX];
		uint64_t size[FILES_MAX], waiting = 0;
		struct sched *s = sched_new();
		struct sched_range r;

		srand(seed);
		for (unsigned f = 0; f < nr_files; f++) {
			size[f] = (uint64_t)rand() % (48 * MIB) + 1;
			seen[f] = calloc(size[f] / BLOCK + 1, 1);
			assert_int_equal(sched_file_add(s, size[f]), f);
		}
		for (unsigned i = 0; i < 50; i++) {
			unsigned f = (unsigned)rand() % nr_files;
			uint64_t offset = (uint64_t)rand() % size[f];

			assert_int_equal(sched_range_add(s, f, offset, (uint64_t)rand() % (size[f] - offset + 1)), 0);
		}
		for (unsigned f = 0; f < nr_files; f++)
			assert_int_equal(sched_range_add(s, f, 0, size[f]), 0);
		assert_int_equal(sched_seal(s), 0);
		for (;;) {
			struct sched_stats st;
			unsigned f = (unsigned)rand() % nr_files;
			uint64_t b = (uint64_t)rand() % (size[f] / BLOCK + 1);

			while (sched_next(s, &lim, &r)) {
				uint64_t keep = rand() % 4 ? r.len : (uint64_t)rand() % (r.len / BLOCK + 1) * BLOCK;

				assert_true(r.offset + r.len <= size[r.file]);
				sched_cut(s, &r, min_of(keep, r.len));
				for (uint64_t at = r.offset; at < r.offset + min_of(keep, r.len); at += BLOCK) {
					assert_int_equal(seen[r.file][at / BLOCK]++, 0);
					waiting++;
				}
			}
			assert_true(waiting * BLOCK <= lim.window_bytes / 2 * 3);
			waiting -= seen[f][b] == 1;
			seen[f][b] = 2;
			sched_consume(s, f, b * BLOCK, 1, false);
			sched_stats(s, &st);
			assert_int_equal(st.issued_bytes - st.used_bytes, waiting * BLOCK);
			if (st.read_bytes == st.plan_bytes)
				break;
		}
		for (unsigned f = 0; f < nr_files; f++) {
			for (uint64_t b = 0; b * BLOCK < size[f]; b++)
				assert_int_equal(seen[f][b], 2);
			free(seen[f]);
		}
		sched_free(s);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plan_is_fetched_in_its_order),
		cmocka_unit_test(a_block_of_two_ranges_is_fetched_once),
		cmocka_unit_test(ranges_outside_of_their_file_are_refused),
		cmocka_unit_test(what_is_fetched_and_unread_stays_within_the_window),
		cmocka_unit_test(readers_far_apart_each_get_their_part),
		cmocka_unit_test(a_reader_that_goes_backward_is_served_by_the_base),
		cmocka_unit_test(random_small_reads_fetch_little),
		cmocka_unit_test(a_reader_that_skips_most_proves_the_plan_wrong),
		cmocka_unit_test(hits_in_the_page_cache_fetch_nothing_new),
		cmocka_unit_test(a_file_read_again_is_fetched_again),
		cmocka_unit_test(files_read_in_another_order_are_not_skipped),
		cmocka_unit_test(what_nobody_reads_does_not_stop_the_others),
		cmocka_unit_test(what_was_lost_is_fetched_again),
		cmocka_unit_test(a_window_beyond_all_memory_is_no_window_at_all),
		cmocka_unit_test(what_was_cut_is_given_out_again),
		cmocka_unit_test(every_block_is_fetched_or_read_exactly_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
