// SPDX-License-Identifier: Apache-2.0
/* Walking a plan: every byte once, in consumption order, in requests of a good size; and telling orders apart. */
#include "test_format.h"

#define BLOCK (128 * KIB)
#define LAYERS 61
#define KINDS 4

/*
 * Layers of four tensors, written by type as safetensors does: all scalars, then all scales, then all norms, then all
 * weights. By name a layer is together. Layers of 3 digits, so that both orders rise.
 */
struct model {
	struct format_plan plan;
	struct format_range tensor[LAYERS * KINDS];
	uint32_t by_name[LAYERS * KINDS], name_rank[LAYERS * KINDS];
};

static void make_model(struct model *m, uint64_t weight_bytes)
{
	const uint64_t bytes[KINDS] = { 4, 300 * KIB + 8, 14336, weight_bytes };
	uint64_t at = 12345;
	uint32_t i = 0;

	for (uint32_t kind = 0; kind < KINDS; kind++) {
		for (uint32_t layer = 0; layer < LAYERS; layer++, i++) {
			m->tensor[i] = (struct format_range){ at, bytes[kind] };
			m->by_name[layer * KINDS + kind] = i;
			m->name_rank[i] = layer * KINDS + kind;
			at += bytes[kind];
		}
	}
	m->plan = (struct format_plan){
		.file_bytes = at,
		.head = { .len = 12345 },
		.nr = LAYERS * KINDS,
		.tensor = m->tensor,
		.by_name = m->by_name,
		.name_rank = m->name_rank,
	};
}

struct walked {
	unsigned nr;
	uint64_t bytes, largest;
	bool is_rising;
};

/* Walks to the end; fails when a block is given twice or a tensor's block never. */
static struct walked walk(const struct format_plan *plan, enum format_order order, uint64_t max_bytes)
{
	size_t nr_blocks = (plan->file_bytes + BLOCK - 1) / BLOCK;
	_cleanup_free_ unsigned char *given = calloc(nr_blocks, 1);
	struct walked w = { .is_rising = true };
	struct walk_cursor c = { 0 };
	uint64_t last = 0;
	struct format_range r;

	assert_non_null(given);
	while (format_plan_next(plan, order, &c, max_bytes, &r) == 1) {
		assert_int_equal(r.offset % BLOCK, 0);
		assert_in_range(r.len, 1, max_of(max_bytes, BLOCK));
		assert_true(r.offset + r.len == plan->file_bytes || r.len % BLOCK == 0);
		for (uint64_t at = r.offset; at < r.offset + r.len; at += BLOCK) {
			assert_int_equal(given[at / BLOCK], 0);
			given[at / BLOCK] = 1;
		}
		w.nr++;
		w.bytes += r.len;
		w.largest = max_of(w.largest, r.len);
		w.is_rising &= r.offset >= last;
		last = r.offset;
	}
	for (uint32_t i = 0; i < plan->nr; i++) {
		const struct format_range *t = &plan->tensor[i];

		for (uint64_t at = t->offset / BLOCK; t->len && at <= (t->offset + t->len - 1) / BLOCK; at++)
			assert_int_equal(given[at], 1);
	}
	return w;
}

static void file_order_is_one_stream_of_whole_chunks(void **state)
{
	struct model m;
	struct walked w;

	make_model(&m, 14 * MIB + 4);
	w = walk(&m.plan, FORMAT_ORDER_FILE, 8 * MIB);
	assert_true(w.is_rising);
	assert_int_equal(w.bytes, m.plan.file_bytes);
	assert_in_range(w.nr, m.plan.file_bytes / (8 * MIB), m.plan.file_bytes / (8 * MIB) + 4);
}

static void name_order_joins_what_lies_together_and_gives_nothing_twice(void **state)
{
	struct model m;
	struct walked w;

	make_model(&m, 14 * MIB + 4);
	w = walk(&m.plan, FORMAT_ORDER_NAME, 8 * MIB);
	assert_false(w.is_rising);
	assert_int_equal(w.bytes, m.plan.file_bytes);
	/* Two or three chunks a layer, and the small tensors of many layers in one request. */
	assert_in_range(w.nr, 1, LAYERS * 3);
	for (uint64_t max_bytes = 1; max_bytes < 40 * MIB; max_bytes = max_bytes * 3 + 1) {
		w = walk(&m.plan, FORMAT_ORDER_NAME, max_bytes);
		assert_int_equal(w.bytes, m.plan.file_bytes);
		w = walk(&m.plan, FORMAT_ORDER_FILE, max_bytes);
		assert_int_equal(w.bytes, m.plan.file_bytes);
	}
}

static void small_tensors_by_name_are_fetched_in_large_requests(void **state)
{
	struct model m;
	struct walked w;

	make_model(&m, 200 * KIB);
	w = walk(&m.plan, FORMAT_ORDER_NAME, 8 * MIB);
	assert_true(w.bytes / w.nr >= 2 * MIB);
}

/* A tensor is complete no later than its turn, apart from what was given out before. */
static void name_order_is_the_order_of_need(void **state)
{
	struct walk_cursor c = { 0 };
	struct format_range r;
	struct model m;
	uint32_t before = 0;

	make_model(&m, 14 * MIB + 4);
	while (format_plan_next(&m.plan, FORMAT_ORDER_NAME, &c, 8 * MIB, &r) == 1) {
		const struct format_range *t = &m.tensor[m.by_name[c.next]];

		assert_true(c.next >= before);
		before = c.next;
		/* The range begins in the tensor whose turn it is. */
		assert_true(r.offset + r.len > t->offset);
		assert_true(r.offset < t->offset + t->len);
	}
	assert_int_equal(c.next, m.plan.nr);
}

static void a_walk_goes_on_from_where_the_reader_is(void **state)
{
	struct walk_cursor c;
	struct format_range r;
	struct model m;

	make_model(&m, 14 * MIB + 4);
	for (uint32_t i = 0; i < m.plan.nr; i += 7) {
		uint64_t inside = m.tensor[i].offset + m.tensor[i].len / 2;

		assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_FILE, inside, &c), 0);
		assert_int_equal(c.next, i);
		assert_int_equal(format_plan_next(&m.plan, FORMAT_ORDER_FILE, &c, 8 * MIB, &r), 1);
		assert_int_equal(r.offset, inside / BLOCK * BLOCK);
		assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_NAME, inside, &c), 0);
		assert_int_equal(c.next, m.name_rank[i]);
		assert_int_equal(format_plan_next(&m.plan, FORMAT_ORDER_NAME, &c, 8 * MIB, &r), 1);
		assert_int_equal(r.offset, inside / BLOCK * BLOCK);
	}
	assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_FILE, 12344, &c), -ENOENT);
	assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_FILE, 12345, &c), 0);
	assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_FILE, m.plan.file_bytes - 1, &c), 0);
	assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_FILE, m.plan.file_bytes, &c), -ENOENT);
	assert_int_equal(format_plan_locate(&m.plan, FORMAT_ORDER_FILE, UINT64_MAX, &c), -ENOENT);
}

static void a_range_cut_to_size_ends_on_a_chunk(void **state)
{
	struct format_range tensor = { 5 * MIB + 7, 100 * MIB };
	uint32_t same = 0;
	struct format_plan plan = {
		.file_bytes = 200 * MIB,
		.nr = 1,
		.tensor = &tensor,
		.by_name = &same,
		.name_rank = &same,
	};
	uint64_t at = 5 * MIB, end = 105 * MIB + BLOCK;
	struct walk_cursor c = { 0 };
	struct format_range r;

	while (format_plan_next(&plan, FORMAT_ORDER_FILE, &c, 12 * MIB, &r) == 1) {
		assert_int_equal(r.offset, at);
		at = r.offset + r.len;
		assert_true(at == end || at % (8 * MIB) == 0);
	}
	assert_int_equal(at, end);
}

static void empty_tensors_and_holes_are_passed(void **state)
{
	struct format_range tensor[] = { { 100, 0 }, { 100, 10 }, { 110, 0 }, { 300 * KIB, 5 }, { 300 * KIB + 5, 0 } };
	uint32_t same[] = { 0, 1, 2, 3, 4 };
	struct format_plan plan = {
		.file_bytes = 300 * KIB + 5,
		.nr = 5,
		.tensor = tensor,
		.by_name = same,
		.name_rank = same,
	};
	struct walk_cursor c = { 0 };
	struct format_range r;

	assert_int_equal(format_plan_next(&plan, FORMAT_ORDER_FILE, &c, MIB, &r), 1);
	assert_int_equal(r.offset, 0);
	assert_int_equal(r.len, BLOCK);
	assert_int_equal(format_plan_next(&plan, FORMAT_ORDER_FILE, &c, MIB, &r), 1);
	assert_int_equal(r.offset, 256 * KIB);
	assert_int_equal(r.len, 44 * KIB + 5);
	assert_int_equal(format_plan_next(&plan, FORMAT_ORDER_FILE, &c, MIB, &r), 0);
	assert_int_equal(format_plan_locate(&plan, FORMAT_ORDER_FILE, 100, &c), 0);
	assert_int_equal(c.next, 1);
	assert_int_equal(format_plan_locate(&plan, FORMAT_ORDER_FILE, 110, &c), -ENOENT);
}

/* --- which order --- */

static int guess(const struct model *m, const uint32_t *tensor, size_t nr, enum format_order *ret)
{
	struct format_range access[64];

	for (size_t i = 0; i < nr; i++)
		access[i] = (struct format_range){ m->tensor[tensor[i]].offset, 4096 };
	return format_order_guess(&m->plan, access, nr, ret);
}

static void both_orders_are_recognised(void **state)
{
	uint32_t by_file[32], by_name[32];
	enum format_order order;
	struct model m;

	make_model(&m, 14 * MIB + 4);
	for (uint32_t i = 0; i < 32; i++) {
		by_file[i] = 3 * LAYERS + i;
		by_name[i] = m.by_name[i];
	}
	assert_int_equal(guess(&m, by_file, 32, &order), 0);
	assert_int_equal(order, FORMAT_ORDER_FILE);
	assert_int_equal(guess(&m, by_name, 32, &order), 0);
	assert_int_equal(order, FORMAT_ORDER_NAME);
	/* A few of them do, and repeats tell nothing. */
	assert_int_equal(guess(&m, by_name, 4, &order), 0);
	assert_int_equal(order, FORMAT_ORDER_NAME);
	assert_int_equal(guess(&m, by_name, 3, &order), -EAGAIN);
	assert_int_equal(guess(&m, (uint32_t[]){ 5, 5, 5, 5, 6, 6 }, 6, &order), -EAGAIN);
	assert_int_equal(guess(&m, NULL, 0, &order), -EAGAIN);
}

static void shuffled_readers_follow_neither_order(void **state)
{
	uint32_t shuffled[32];
	enum format_order order;
	struct model m;

	make_model(&m, 14 * MIB + 4);
	for (uint32_t i = 0; i < 32; i++)
		shuffled[i] = i * 101 % (LAYERS * KINDS);
	assert_int_equal(guess(&m, shuffled, 32, &order), -ENOENT);
	for (uint32_t i = 0; i < 32; i++)
		shuffled[i] = LAYERS * KINDS - 1 - i;
	assert_int_equal(guess(&m, shuffled, 32, &order), -ENOENT);
}

static void accesses_outside_of_tensors_do_not_count(void **state)
{
	struct format_range access[] = { { 0, 8 }, { 8, 4096 }, { 1ull << 62, 1 } };
	enum format_order order;
	struct model m;

	make_model(&m, MIB);
	assert_int_equal(format_order_guess(&m.plan, access, array_len(access), &order), -EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_order_is_one_stream_of_whole_chunks),
		cmocka_unit_test(name_order_joins_what_lies_together_and_gives_nothing_twice),
		cmocka_unit_test(small_tensors_by_name_are_fetched_in_large_requests),
		cmocka_unit_test(name_order_is_the_order_of_need),
		cmocka_unit_test(a_walk_goes_on_from_where_the_reader_is),
		cmocka_unit_test(a_range_cut_to_size_ends_on_a_chunk),
		cmocka_unit_test(empty_tensors_and_holes_are_passed),
		cmocka_unit_test(both_orders_are_recognised),
		cmocka_unit_test(shuffled_readers_follow_neither_order),
		cmocka_unit_test(accesses_outside_of_tensors_do_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
