// SPDX-License-Identifier: Apache-2.0
/* Recording: what becomes of access events, and the replay of it. */
#include "test_profile.h"

static void neighbours_become_one_access_and_repeats_none(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 100 * BLOCK);
	struct profile *p;

	assert_int_equal(profile_builder_add(b, 7, f, 1000, 10, 5 * NSEC_PER_MSEC), 0);
	assert_int_equal(profile_builder_add(b, 7, f, 2000, BLOCK, 6 * NSEC_PER_MSEC), 0);
	builder_add(b, 7, f, 0, 2, 7);
	builder_add(b, 7, f, 2, 3, 8);
	builder_add(b, 7, f, 0, 5, 9);
	builder_add(b, 7, f, 50, 1, 20);
	p = builder_finish(b);
	assert_int_equal(p->nr_accesses, 2);
	assert_access(p, 0, 0, 0, 5, 0, 0);
	assert_access(p, 1, 0, 50, 1, 0, 15);
	assert_int_equal(p->nr_ranks, 1);
	assert_int_equal(p->rank[0].lo, 0);
	assert_int_equal(p->rank[0].hi, 51);
	assert_int_equal(p->rank[0].nr_blocks, 6);
	assert_memory_equal(p->dataset, dataset_a, sizeof(dataset_a));
	profile_free(p);
}

static void a_backward_copy_becomes_long_accesses(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 1024 * BLOCK);
	struct profile *p;

	for (unsigned block = 1024; block-- > 0;)
		builder_add(b, 1, f, block, 1, 0);
	p = builder_finish(b);
	assert_int_equal(p->nr_accesses, 1024 / PROFILE_RUN_BLOCKS_MAX);
	assert_access(p, 0, 0, 1024 - PROFILE_RUN_BLOCKS_MAX, PROFILE_RUN_BLOCKS_MAX, 0, 0);
	profile_free(p);
}

static void threads_of_one_process_do_not_cut_each_other_up(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 4096 * BLOCK);
	struct profile *p;

	for (unsigned i = 0; i < 64; i++) {
		for (unsigned thread = 0; thread < 16; thread++)
			builder_add(b, 1, f, thread * 256 + i, 1, i);
	}
	p = builder_finish(b);
	assert_int_equal(p->nr_accesses, 16);
	for (uint32_t i = 0; i < 16; i++)
		assert_access(p, i, 0, i * 256, 64, 0, 0);
	profile_free(p);
}

static void a_pause_begins_a_new_access(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 100 * BLOCK);
	struct profile *p;

	builder_add(b, 1, f, 0, 1, 100);
	builder_add(b, 1, f, 1, 1, 1100);
	builder_add(b, 1, f, 2, 1, 1101);
	p = builder_finish(b);
	assert_int_equal(p->nr_accesses, 2);
	assert_access(p, 0, 0, 0, 2, 0, 0);
	assert_access(p, 1, 0, 2, 1, 0, 1001);
	profile_free(p);
}

static void processes_are_ranks_in_the_order_of_their_first_access(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t second = builder_file(b, "z", 10 * BLOCK), first = builder_file(b, "a", 10 * BLOCK - 5);
	struct profile *p;

	builder_file(b, "never read", 5);
	builder_add(b, 900, second, 0, 5, 1);
	builder_add(b, 30, first, 5, 5, 2);
	builder_add(b, 900, first, 5, 5, 3); /* read already, but part of its slice */
	p = builder_finish(b);
	assert_int_equal(p->nr_files, 2);
	assert_string_equal(p->file[0].key, "a");
	assert_string_equal(p->file[1].key, "z");
	assert_int_equal(p->nr_accesses, 2);
	assert_access(p, 0, 1, 0, 5, 0, 0);
	assert_access(p, 1, 0, 5, 5, 1, 1);
	assert_int_equal(p->nr_ranks, 2);
	assert_int_equal(p->rank[0].lo, 5);
	assert_int_equal(p->rank[0].hi, 15);
	assert_int_equal(p->rank[0].nr_blocks, 10);
	assert_int_equal(p->rank[1].lo, 5);
	assert_int_equal(p->rank[1].hi, 10);
	profile_free(p);
}

static void more_readers_than_ranks_share_the_last_one(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 1000 * BLOCK);
	struct profile *p;

	for (int pid = 0; pid < 100; pid++)
		builder_add(b, pid, f, (uint64_t)pid * 2, 1, 0);
	p = builder_finish(b);
	assert_int_equal(p->nr_ranks, PROFILE_RANKS_MAX);
	assert_int_equal(p->rank[PROFILE_RANKS_MAX - 1].nr_blocks, 100 - PROFILE_RANKS_MAX + 1);
	profile_free(p);
}

static void what_does_not_fit_is_refused_and_the_rest_stays(void **state)
{
	static char key[PROFILE_KEY_MAX_BYTES + 2];
	struct profile_builder *b;
	struct profile *p = NULL;
	uint32_t f, large;

	assert_int_equal(profile_builder_new(dataset_a, 2048, &b), 0);
	memset(key, 'k', sizeof(key) - 1);
	assert_int_equal(profile_builder_file(b, key, "", 1, &f), -EINVAL);
	assert_int_equal(profile_builder_file(b, "", "", 1, &f), -EINVAL);
	assert_int_equal(profile_builder_file(b, "m", key, 1, &f), -EINVAL);
	assert_int_equal(profile_builder_file(b, "m", "", UINT64_MAX, &f), -EINVAL);
	assert_int_equal(profile_builder_add(b, 1, 0, 0, 1, 0), -EINVAL);
	assert_int_equal(profile_builder_finish(b, &p), -ENODATA);
	f = builder_file(b, "m", 3 * BLOCK);
	large = builder_file(b, "n", GIB * 1024);
	assert_int_equal(profile_builder_add(b, 1, f, 3 * BLOCK, 1, 0), 0); /* past the end */
	assert_int_equal(profile_builder_finish(b, &p), -ENODATA);
	assert_int_equal(profile_builder_add(b, 1, f, BLOCK, UINT64_MAX, 0), 0);
	assert_int_equal(profile_builder_add(b, 1, large, 0, 1, 0), -ENOSPC);
	assert_int_equal(profile_builder_finish(b, &p), 0);
	assert_int_equal(p->nr_accesses, 1);
	assert_access(p, 0, 0, 1, 2, 0, 0);
	profile_free(p);
	builder_file(b, "m", 1);
	assert_int_equal(profile_builder_finish(b, &p), -EEXIST);
	profile_builder_free(b);
}

static void time_never_goes_back(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 100 * BLOCK);
	struct profile *p;

	builder_add(b, 1, f, 0, 1, 1000);
	builder_add(b, 1, f, 10, 1, 1500);
	builder_add(b, 1, f, 20, 1, 1400);
	builder_add(b, 1, f, 30, 1, 10);
	builder_add(b, 1, f, 40, 1, 1ull << 40);
	p = builder_finish(b);
	assert_access(p, 1, 0, 10, 1, 0, 500);
	assert_access(p, 2, 0, 20, 1, 0, 500);
	assert_access(p, 3, 0, 30, 1, 0, 500);
	assert_access(p, 4, 0, 40, 1, 0, UINT32_MAX);
	profile_free(p);
}

/* --- replay --- */

/* Eight processes that take an eighth of each tensor, in turn. */
static struct profile *record_slices(uint64_t *ret_bytes)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 64 * 64 * BLOCK - 100);

	for (unsigned tensor = 0; tensor < 64; tensor++) {
		for (unsigned rank = 0; rank < 8; rank++)
			builder_add(b, (int32_t)((rank * 3 + tensor) % 8), f, tensor * 64 + (rank * 3 + tensor) % 8 * 8,
				    8, tensor);
	}
	*ret_bytes = 64 * 64 * BLOCK - 100;
	return builder_finish(b);
}

static void a_replay_gives_every_byte_once_in_large_ranges(void **state)
{
	struct walk_cursor c = { 0 };
	struct profile_range r;
	uint64_t bytes, sum = 0;
	struct profile *p = record_slices(&bytes);
	unsigned char *given = calloc(64 * 64, 1);
	uint32_t time_ms = 0;
	unsigned nr = 0;

	assert_non_null(given);
	while (profile_next(p, &c, 8 * MIB, &r) == 1) {
		for (uint64_t at = r.offset; at < r.offset + r.len; at += BLOCK) {
			assert_int_equal(given[at / BLOCK], 0);
			given[at / BLOCK] = 1;
		}
		assert_true(r.time_ms >= time_ms);
		time_ms = r.time_ms;
		sum += r.len;
		nr++;
	}
	assert_int_equal(sum, bytes);
	assert_true(sum / nr >= 2 * MIB);
	free(given);
	profile_free(p);
}

static void the_summary_adds_up(void **state)
{
	struct profile_summary s;
	uint64_t bytes;
	struct profile *p = record_slices(&bytes);

	profile_summarize(p, &s);
	assert_int_equal(s.files_bytes, bytes);
	assert_int_equal(s.read_bytes, bytes);
	assert_int_equal(s.aged_bytes, 0);
	assert_int_equal(s.duration_ms, 63);
	assert_in_range(s.nr_jumps, 1, p->nr_accesses);
	profile_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(neighbours_become_one_access_and_repeats_none),
		cmocka_unit_test(a_backward_copy_becomes_long_accesses),
		cmocka_unit_test(threads_of_one_process_do_not_cut_each_other_up),
		cmocka_unit_test(a_pause_begins_a_new_access),
		cmocka_unit_test(processes_are_ranks_in_the_order_of_their_first_access),
		cmocka_unit_test(more_readers_than_ranks_share_the_last_one),
		cmocka_unit_test(what_does_not_fit_is_refused_and_the_rest_stays),
		cmocka_unit_test(time_never_goes_back),
		cmocka_unit_test(a_replay_gives_every_byte_once_in_large_ranges),
		cmocka_unit_test(the_summary_adds_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
