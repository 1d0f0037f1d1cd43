// SPDX-License-Identifier: Apache-2.0
/* Several loads in one profile: the newer order, the union of the ranges, and what is forgotten. */
#include "test_profile.h"

/* A load of "m" by one process: <blocks> one after the other, -1 ends them. */
static struct profile *record(const int *blocks)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "m", 1000 * BLOCK);

	for (unsigned i = 0; blocks[i] >= 0; i++)
		builder_add(b, 1, f, (uint64_t)blocks[i], 1, i * 10);
	return builder_finish(b);
}

#define BLOCKS(...)             \
	(const int[])           \
	{                       \
		__VA_ARGS__, -1 \
	}

static void assert_blocks(const struct profile *p, const int *blocks)
{
	uint32_t at = 0, in = 0;

	for (; blocks[at] >= 0; at++) {
		while (in < p->nr_accesses && !p->access[in].nr_blocks)
			in++;
		assert_true(in < p->nr_accesses);
		assert_int_equal(p->access[in].block, blocks[at]);
		p->access[in].block++;
		p->access[in].nr_blocks--;
	}
	while (in < p->nr_accesses && !p->access[in].nr_blocks)
		in++;
	assert_int_equal(in, p->nr_accesses);
}

static void the_newer_order_is_kept_and_old_ranges_go_behind_what_they_followed(void **state)
{
	struct profile *older = record(BLOCKS(80, 100, 200, 300, 400)), *newer = record(BLOCKS(300, 100, 410)), *p;

	assert_int_equal(profile_merge(older, newer, &p), 0);
	assert_int_equal(p->nr_loads, 2);
	assert_int_equal(p->nr_accesses, 6);
	/* 80 came before all others, 200 after 100, 400 after 300. */
	assert_access(p, 0, 0, 80, 1, 0, 0);
	assert_access(p, 1, 0, 300, 1, 0, 0);
	assert_access(p, 2, 0, 400, 1, 0, 0);
	assert_access(p, 3, 0, 100, 1, 0, 10);
	assert_access(p, 4, 0, 200, 1, 0, 10);
	assert_access(p, 5, 0, 410, 1, 0, 20);
	assert_int_equal(p->access[0].age, 1);
	assert_int_equal(p->access[1].age, 0);
	profile_free(p);
	profile_free(older);
	profile_free(newer);
}

static void only_what_is_missing_is_taken_of_an_older_range(void **state)
{
	struct profile *older = record(BLOCKS(10, 11, 12, 13, 14, 15, 16, 17, 18, 19));
	struct profile *newer = record(BLOCKS(15, 16, 12, 25, 19)), *p;

	assert_int_equal(older->nr_accesses, 1);
	assert_int_equal(profile_merge(older, newer, &p), 0);
	assert_blocks(p, BLOCKS(10, 11, 15, 16, 17, 18, 12, 13, 14, 25, 19));
	profile_free(p);
	profile_free(older);
	profile_free(newer);
}

static void what_three_loads_have_not_read_is_forgotten(void **state)
{
	struct profile *all = record(BLOCKS(1, 5, 9)), *p = all;

	for (unsigned load = 1; load <= PROFILE_LOADS_KEPT; load++) {
		struct profile *newer = record(BLOCKS(1, 9)), *merged;

		assert_int_equal(profile_merge(p, newer, &merged), 0);
		assert_int_equal(merged->nr_loads, load + 1);
		assert_int_equal(merged->nr_accesses, load < PROFILE_LOADS_KEPT ? 3 : 2);
		if (load < PROFILE_LOADS_KEPT)
			assert_int_equal(merged->access[1].age, load);
		profile_free(p);
		profile_free(newer);
		p = merged;
	}
	profile_free(p);
	/* A load that reads it again makes it young. */
	p = record(BLOCKS(1, 5));
	p->access[1].age = 2;
	all = record(BLOCKS(1, 5));
	all->access[0].age = 2;
	{
		struct profile *merged;

		assert_int_equal(profile_merge(p, all, &merged), 0);
		assert_int_equal(merged->nr_accesses, 2);
		assert_int_equal(merged->access[0].age, 0);
		assert_int_equal(merged->access[1].age, 0);
		profile_free(merged);
	}
	profile_free(p);
	profile_free(all);
}

static void merging_a_load_with_itself_changes_only_the_count(void **state)
{
	struct profile *a = record(BLOCKS(7, 3, 900, 4, 5, 6)), *p;

	assert_int_equal(profile_merge(a, a, &p), 0);
	assert_int_equal(p->nr_loads, 2);
	assert_int_equal(p->nr_accesses, a->nr_accesses);
	assert_memory_equal(p->access, a->access, a->nr_accesses * sizeof(*a->access));
	assert_memory_equal(p->rank, a->rank, sizeof(a->rank));
	profile_free(p);
	profile_free(a);
}

/* Files of both loads, and readers that came in another order. */
static struct profile *record_files(const char *const *keys, int first_pid, const char *etag)
{
	struct profile_builder *b = builder_new();

	for (unsigned i = 0; keys[i]; i++) {
		uint32_t f;

		assert_int_equal(profile_builder_file(b, keys[i], etag, 1000 * BLOCK, &f), 0);
		for (int rank = 0; rank < 2; rank++)
			builder_add(b, rank ^ first_pid, f, (uint64_t)(rank ^ first_pid) * 500, 20, i);
	}
	return builder_finish(b);
}

static void files_are_joined_by_key_and_slices_move_with_them(void **state)
{
	struct profile *older = record_files((const char *[]){ "a", "c", NULL }, 0, "e");
	struct profile *newer = record_files((const char *[]){ "c", "b", NULL }, 1, "e"), *p;

	assert_int_equal(profile_merge(older, newer, &p), 0);
	assert_int_equal(p->nr_files, 3);
	assert_string_equal(p->file[0].key, "a");
	assert_string_equal(p->file[1].key, "b");
	assert_string_equal(p->file[2].key, "c");
	assert_int_equal(p->nr_ranks, 2);
	/* The newer load's first reader has the upper half of "b" and "c". */
	assert_int_equal(p->rank[0].lo, 1500);
	assert_int_equal(p->rank[0].hi, 2520);
	assert_int_equal(p->rank[1].lo, 1000);
	assert_int_equal(p->rank[1].hi, 2020);
	/* Of the older one only "a" is left over; its readers have the newer one's numbers. */
	assert_int_equal(p->nr_accesses, 6);
	assert_access(p, 0, 0, 0, 20, 1, 0);
	assert_access(p, 1, 0, 500, 20, 0, 0);
	profile_free(p);
	profile_free(older);
	profile_free(newer);
}

static void another_dataset_layout_or_object_stands_alone(void **state)
{
	struct profile *one = record(BLOCKS(1, 2, 3)), *other = record(BLOCKS(1, 2, 3)), *p = NULL;
	struct profile *two = record_files((const char *[]){ "m", NULL }, 0, "e");
	struct profile *changed = record_files((const char *[]){ "m", NULL }, 0, "f");
	struct profile *far = record(BLOCKS(900, 901, 902));

	other->dataset[31] ^= 1;
	assert_int_equal(profile_merge(one, other, &p), -ESTALE);
	assert_int_equal(profile_merge(one, two, &p), -ESTALE);
	assert_int_equal(profile_merge(two, changed, &p), -ESTALE);
	assert_int_equal(profile_merge(one, far, &p), -ESTALE);
	assert_null(p);
	profile_free(one);
	profile_free(other);
	profile_free(two);
	profile_free(changed);
	profile_free(far);
}

static void layouts_match_in_any_order_of_readers(void **state)
{
	struct profile *a = record_files((const char *[]){ "m", "n", NULL }, 0, "e");
	struct profile *b = record_files((const char *[]){ "m", "n", NULL }, 1, "e");
	uint8_t map[PROFILE_RANKS_MAX];

	assert_true(profile_layout_matches(a, b, map));
	assert_int_equal(map[0], 1);
	assert_int_equal(map[1], 0);
	b->rank[0].nr_blocks *= 2;
	assert_false(profile_layout_matches(a, b, NULL));
	/* Two readers do not match the same one. */
	b->rank[0].nr_blocks /= 2;
	a->rank[1] = a->rank[0];
	assert_false(profile_layout_matches(a, b, NULL));
	profile_free(a);
	profile_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newer_order_is_kept_and_old_ranges_go_behind_what_they_followed),
		cmocka_unit_test(only_what_is_missing_is_taken_of_an_older_range),
		cmocka_unit_test(what_three_loads_have_not_read_is_forgotten),
		cmocka_unit_test(merging_a_load_with_itself_changes_only_the_count),
		cmocka_unit_test(files_are_joined_by_key_and_slices_move_with_them),
		cmocka_unit_test(another_dataset_layout_or_object_stands_alone),
		cmocka_unit_test(layouts_match_in_any_order_of_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
