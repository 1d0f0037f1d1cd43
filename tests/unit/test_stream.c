// SPDX-License-Identifier: Apache-2.0
/* Stream detection: what is fetched ahead for which order of reads, and how much too much. */
#include "test_stream.h"

/* --- one stream --- */

static void a_forward_stream_is_fetched_ahead_in_whole_units(void **state)
{
	struct sim m;
	uint64_t ahead = 0;

	sim_init(&m, 1 * GIB + 12345);
	for (uint64_t at = 0; at < m.lim.file_bytes; at += BLOCK) {
		sim_read(&m, at, min_of(BLOCK, m.lim.file_bytes - at));
		assert_in_range(m.plan.nr, 0, 1);
		if (!m.plan.nr)
			continue;
		assert_true(m.plan.range[0].offset >= ahead);
		ahead = m.plan.range[0].offset + m.plan.range[0].len;
		assert_true(ahead <= at + BLOCK + m.lim.window_max_bytes);
		if (at > 64 * MIB && ahead < m.lim.file_bytes)
			assert_int_equal(ahead % UNIT, 0);
	}
	assert_int_equal(ahead, m.lim.file_bytes);
	assert_int_equal(m.fetched, m.lim.file_bytes);
	/* Only before the evidence was there. */
	assert_in_range(m.nr_missed, 1, 8);
	sim_done(&m);
}

static void the_window_grows_with_the_evidence_and_only_while_the_reader_waits(void **state)
{
	struct sim m;
	uint64_t window;

	sim_init(&m, 1 * GIB);
	sim_read(&m, 10 * MIB, BLOCK);
	assert_int_equal(m.plan.nr, 0);
	sim_read(&m, 10 * MIB + BLOCK, BLOCK);
	window = m.set.stream[0].window_bytes;
	assert_in_range(window, 2 * BLOCK, 8 * BLOCK);
	for (int i = 2; i < 64; i++)
		stream_observe(&m.set, &m.lim, 10 * MIB + (uint64_t)i * BLOCK, BLOCK, false, &m.plan);
	assert_int_equal(m.set.stream[0].window_bytes, window);
	stream_observe(&m.set, &m.lim, 10 * MIB + 64 * BLOCK, BLOCK, true, &m.plan);
	assert_in_range(m.set.stream[0].window_bytes, 2 * 65 * BLOCK, 8 * 65 * BLOCK);
	sim_done(&m);
}

static void the_window_ends_at_its_maximum(void **state)
{
	struct sim m;

	sim_init(&m, 1 * GIB);
	m.lim.window_max_bytes = 16 * MIB;
	for (uint64_t at = 0; at < 512 * MIB; at += MIB) {
		stream_observe(&m.set, &m.lim, at, MIB, true, &m.plan);
		for (unsigned i = 0; i < m.plan.nr; i++)
			assert_true(m.plan.range[i].offset + m.plan.range[i].len <= at + MIB + 16 * MIB);
	}
	sim_done(&m);
}

static void nothing_is_planned_past_the_end(void **state)
{
	static const uint64_t sizes[] = { 1,       4096,     BLOCK, 512 * KIB, MIB,
					  MIB + 1, UNIT - 1, UNIT,  UNIT + 1,  100 * MIB - 1 };

	for (size_t i = 0; i < array_len(sizes); i++) {
		struct sim m;

		sim_init(&m, sizes[i]);
		for (uint64_t at = 0; at < sizes[i]; at += 4 * BLOCK)
			sim_read(&m, at, min_of(4 * BLOCK, sizes[i] - at));
		assert_int_equal(m.fetched, sizes[i]);
		sim_done(&m);
	}
}

static void a_large_read_at_the_start_begins_a_stream_at_once(void **state)
{
	struct sim m;

	sim_init(&m, 1 * GIB);
	sim_read(&m, 0, 1 * MIB);
	assert_int_equal(m.plan.nr, 1);
	assert_int_equal(m.plan.range[0].offset, 1 * MIB);
	sim_done(&m);
	sim_init(&m, 1 * GIB);
	sim_read(&m, 100 * MIB, 1 * MIB);
	assert_int_equal(m.plan.nr, 0);
	sim_done(&m);
}

static void a_backward_stream_is_fetched_ahead_too(void **state)
{
	struct sim m;

	sim_init(&m, 512 * MIB);
	for (uint64_t at = 512 * MIB; at > 0; at -= BLOCK)
		sim_read(&m, at - BLOCK, BLOCK);
	assert_int_equal(m.fetched, 512 * MIB);
	assert_in_range(m.nr_missed, 1, 40);
	assert_int_equal(m.sweep_bytes, 0);
	sim_done(&m);
}

static void a_stream_that_turns_round_proves_itself_again(void **state)
{
	struct sim m;

	sim_init(&m, 1 * GIB);
	for (uint64_t at = 500 * MIB; at < 600 * MIB; at += MIB)
		stream_observe(&m.set, &m.lim, at, MIB, true, &m.plan);
	assert_int_equal(m.set.stream[0].window_bytes, 64 * MIB);
	stream_observe(&m.set, &m.lim, 499 * MIB, MIB, true, &m.plan);
	assert_int_equal(m.set.nr, 1);
	assert_int_equal(m.set.stream[0].direction, -1);
	assert_in_range(m.set.stream[0].window_bytes, 0, 8 * MIB);
	for (unsigned i = 0; i < m.plan.nr; i++)
		assert_true(m.plan.range[i].offset + m.plan.range[i].len <= 499 * MIB);
	sim_done(&m);
}

static void reads_in_another_order_within_the_slack_stay_one_stream(void **state)
{
	uint32_t random = 12345;
	struct sim m;

	sim_init(&m, 512 * MIB);
	for (uint64_t at = 0; at < 8 * MIB; at += BLOCK)
		sim_read(&m, at, BLOCK);
	/* The kernel's readahead: 32 reads of 128 KiB at a time, in any order. */
	for (uint64_t at = 8 * MIB; at < 512 * MIB; at += 4 * MIB) {
		unsigned order[32];

		for (unsigned i = 0; i < 32; i++) {
			unsigned other = next_random(&random) % (i + 1);

			order[i] = order[other];
			order[other] = i;
		}
		for (unsigned i = 0; i < 32; i++)
			sim_read(&m, at + order[i] * BLOCK, BLOCK);
	}
	assert_int_equal(m.set.nr, 1);
	assert_int_equal(m.set.stream[0].direction, 1);
	assert_int_equal(m.fetched, 512 * MIB);
	assert_int_equal(m.sweep_bytes, 0);
	assert_in_range(m.nr_missed, 1, 64);
	sim_done(&m);
}

static void reading_something_again_plans_nothing(void **state)
{
	struct sim m;

	sim_init(&m, 512 * MIB);
	for (uint64_t at = 0; at < 32 * MIB; at += MIB)
		sim_read(&m, at, MIB);
	for (uint64_t at = 0; at < 31 * MIB; at += 3 * MIB) {
		sim_read(&m, at, MIB);
		assert_int_equal(m.plan.nr, 0);
	}
	assert_int_equal(m.set.nr, 1);
	sim_done(&m);
}

/* The page cache lost it all: a file larger than the memory, an O_DIRECT reader, the next epoch. */
static void a_second_pass_is_fetched_ahead_too(void **state)
{
	struct sim m;

	sim_init(&m, 256 * MIB);
	for (int pass = 0; pass < 3; pass++) {
		memset(m.block, ABSENT, m.lim.file_bytes / BLOCK);
		m.nr_missed = 0;
		for (uint64_t at = 0; at < m.lim.file_bytes; at += BLOCK)
			sim_read(&m, at, BLOCK);
		assert_in_range(m.nr_missed, 1, 64);
	}
	assert_int_equal(m.sweep_bytes, 0);
	sim_done(&m);
}

/* --- several streams --- */

/* <nr> readers, each with its part of the file, take turns of <len> bytes. */
static void sim_interleave(struct sim *m, unsigned nr, uint64_t len)
{
	uint64_t part = m->lim.file_bytes / nr;

	for (uint64_t at = 0; at < part; at += len) {
		for (unsigned i = 0; i < nr; i++)
			sim_read(m, i * part + at, len);
	}
}

static void interleaved_streams_are_told_apart(void **state)
{
	struct sim m;

	sim_init(&m, 1 * GIB);
	sim_interleave(&m, 4, MIB);
	assert_int_equal(m.set.nr, 4);
	for (int i = 0; i < 4; i++)
		assert_int_equal(m.set.stream[i].direction, 1);
	assert_int_equal(m.sweep_bytes, 0);
	assert_in_range(m.nr_missed, 4, 40);
	assert_in_range(sim_amplification(&m), 1000, 1100);
	assert_true(m.unread_max <= 4 * (m.lim.window_max_bytes + UNIT));
	sim_done(&m);
}

static void a_few_streams_are_no_sweep_and_many_only_a_bounded_one(void **state)
{
	struct sim m;

	sim_init(&m, 1280 * MIB);
	sim_interleave(&m, 5, MIB);
	assert_int_equal(m.sweep_bytes, 0);
	sim_done(&m);

	/* In their first round more streams look like scattered reads; none of it is fetched twice. */
	sim_init(&m, 4 * GIB);
	sim_interleave(&m, STREAM_MAX, MIB);
	assert_int_equal(m.set.nr, STREAM_MAX);
	assert_true(m.sweep_bytes <= m.lim.sweep_max_bytes + STREAM_MAX * MIB);
	assert_in_range(sim_amplification(&m), 1000, 1100);
	sim_done(&m);
}

static void small_reads_between_do_not_end_a_stream(void **state)
{
	uint32_t random = 99;
	struct sim m;
	unsigned missed = 0;

	sim_init(&m, 1 * GIB);
	for (uint64_t at = 0; at < 256 * MIB; at += MIB) {
		missed += sim_read(&m, at, MIB) && at > 32 * MIB;
		sim_read(&m, 512 * MIB + next_random(&random) % (500 * MIB), 4096);
	}
	assert_int_equal(missed, 0);
	sim_done(&m);
}

/* --- random reads and sweeps --- */

static void small_random_reads_never_widen(void **state)
{
	static const uint64_t files[] = { 64 * MIB, 1 * GIB, 64 * GIB };
	uint32_t random = 7;

	for (size_t f = 0; f < array_len(files); f++) {
		struct sim m;

		sim_init(&m, files[f]);
		for (int i = 0; i < 20000; i++) {
			uint64_t page =
				(((uint64_t)next_random(&random) << 20) ^ next_random(&random)) % (files[f] / 4096);

			sim_read(&m, page * 4096, 4096);
			assert_int_equal(m.plan.nr, 0);
		}
		assert_true(sim_amplification(&m) <= 33000);
		sim_done(&m);
	}
}

static void the_first_touch_is_one_mebibyte_once(void **state)
{
	struct stream_limits lim = { .file_bytes = 100 * MIB };
	struct stream_set s = { 0 };
	struct stream_range r = stream_first_touch(&s, &lim, 4096, 4096);

	assert_int_equal(r.offset, 0);
	assert_int_equal(r.len, STREAM_FIRST_TOUCH_BYTES);
	assert_int_equal(stream_first_touch(&s, &lim, 8192, 4096).len, 0);
	s = (struct stream_set){ 0 };
	assert_int_equal(stream_first_touch(&s, &lim, 50 * MIB, 4096).len, 0);
	assert_int_equal(stream_first_touch(&s, &lim, 0, 4096).len, 0);
	s = (struct stream_set){ 0 };
	lim.file_bytes = 5000;
	assert_int_equal(stream_first_touch(&s, &lim, 0, 4096).len, 5000);
}

static void the_first_64_kib_cost_one_mebibyte(void **state)
{
	for (uint64_t len = 4 * KIB; len <= 64 * KIB; len *= 2) {
		struct sim m;

		sim_init(&m, 10 * GIB);
		for (uint64_t at = 0; at < 64 * KIB; at += len)
			sim_read(&m, at, len);
		assert_true(sim_amplification(&m) <= 16000);
		sim_done(&m);
	}
}

/* Pieces of <piece> bytes in random order, each read in order by reads of 1 MiB; <percent> of them. */
static void sim_shuffled(struct sim *m, uint64_t piece, unsigned percent)
{
	unsigned nr = (unsigned)(m->lim.file_bytes / piece), *order = calloc(nr, sizeof(*order));
	uint32_t random = 4711;

	for (unsigned i = 0; i < nr; i++) {
		unsigned other = next_random(&random) % (i + 1);

		order[i] = order[other];
		order[other] = i;
	}
	for (unsigned i = 0; i < nr * percent / 100; i++) {
		for (uint64_t at = 0; at < piece; at += MIB)
			sim_read(m, order[i] * piece + at, MIB);
	}
	free(order);
}

static void scattered_large_reads_become_a_sweep(void **state)
{
	struct sim m;

	sim_init(&m, 2 * GIB);
	sim_shuffled(&m, MIB, 100);
	assert_true(m.sweep_bytes > 1 * GIB);
	assert_int_equal(m.fetched, 2 * GIB);
	assert_true(m.unread_max <= m.memory_bytes);
	sim_done(&m);
}

static void shuffled_pieces_are_fetched_once(void **state)
{
	struct sim m;

	sim_init(&m, 2 * GIB);
	sim_shuffled(&m, 4 * MIB, 100);
	assert_true(m.sweep_bytes > 1 * GIB);
	assert_in_range(sim_amplification(&m), 1000, 1050);
	sim_done(&m);
}

static void a_sweep_ends_on_whole_units(void **state)
{
	struct sim m;
	uint64_t at[] = { 900, 100, 500, 300, 700, 200, 800, 400, 600, 50,
			  950, 150, 850, 250, 750, 350, 650, 450, 550, 75 };
	unsigned nr_ranges = 0;

	sim_init(&m, 1 * GIB);
	for (size_t i = 0; i < array_len(at); i++) {
		stream_observe(&m.set, &m.lim, at[i] * MIB, 3 * MIB, true, &m.plan);
		for (unsigned j = 0; j < m.plan.nr; j++) {
			uint64_t end = m.plan.range[j].offset + m.plan.range[j].len;

			assert_int_equal(m.plan.range[j].stream, -1);
			assert_true(end % UNIT == 0 || end == m.lim.file_bytes);
			nr_ranges++;
		}
	}
	assert_true(nr_ranges > 1);
	sim_done(&m);
}

static void a_few_scattered_reads_are_no_sweep(void **state)
{
	struct sim m;

	sim_init(&m, 2 * GIB);
	for (uint64_t i = 0; i < 5; i++)
		sim_read(&m, (i * 7 % 5) * 300 * MIB + MIB, MIB);
	assert_int_equal(m.sweep_bytes, 0);
	sim_done(&m);
}

/* --- cuts --- */

static void what_was_cut_is_planned_again(void **state)
{
	struct sim m;
	struct stream_range cut;

	sim_init(&m, 1 * GIB);
	for (uint64_t at = 0; at < 16 * MIB; at += MIB)
		stream_observe(&m.set, &m.lim, at, MIB, true, &m.plan);
	do {
		stream_observe(&m.set, &m.lim, m.set.stream[0].hi, MIB, true, &m.plan);
	} while (!m.plan.nr);
	cut = m.plan.range[0];
	stream_cut(&m.set, &cut, BLOCK);
	do {
		stream_observe(&m.set, &m.lim, m.set.stream[0].hi, MIB, false, &m.plan);
	} while (!m.plan.nr);
	assert_int_equal(m.plan.range[0].offset, cut.offset + BLOCK);
	sim_done(&m);
}

static void what_was_cut_of_a_backward_stream_is_planned_again(void **state)
{
	struct sim m;
	struct stream_range cut, again;
	uint64_t at = 1 * GIB;

	sim_init(&m, 1 * GIB);
	do {
		at -= MIB;
		stream_observe(&m.set, &m.lim, at, MIB, true, &m.plan);
	} while (!m.plan.nr || at > 1 * GIB - 16 * MIB);
	cut = m.plan.range[0];
	stream_cut(&m.set, &cut, 0);
	do {
		at -= MIB;
		stream_observe(&m.set, &m.lim, at, MIB, false, &m.plan);
	} while (!m.plan.nr);
	again = m.plan.range[0];
	/* What lies right before the reader was not accepted, so it is wanted again. */
	assert_int_equal(again.offset + again.len, min_of(cut.offset + cut.len, at));
	sim_done(&m);
}

static void what_was_cut_of_a_sweep_is_planned_again(void **state)
{
	struct sim m;
	uint64_t at = 1000;
	struct stream_range cut;

	sim_init(&m, 1 * GIB);
	do {
		at = at * 37 % 1013;
		stream_observe(&m.set, &m.lim, at * MIB, MIB, true, &m.plan);
	} while (!m.plan.nr);
	cut = m.plan.range[0];
	assert_int_equal(cut.stream, -1);
	stream_cut(&m.set, &cut, 2 * UNIT);
	do {
		at = at * 37 % 1013;
		stream_observe(&m.set, &m.lim, at * MIB, MIB, true, &m.plan);
	} while (!m.plan.nr);
	assert_int_equal(m.plan.range[0].offset, cut.offset + 2 * UNIT);
	sim_done(&m);
}

/* Whatever the reads: plans stay inside the file and the bounds hold. */
static void no_order_of_reads_breaks_the_bounds(void **state)
{
	uint32_t random = 31337;

	for (int round = 0; round < 200; round++) {
		uint64_t file = 1 + next_random(&random) % (300 * MIB);
		struct sim m;

		sim_init(&m, file);
		m.memory_bytes = (next_random(&random) % 64 + 1) * MIB;
		m.lim.waiting_bytes = next_random(&random) % 2 * next_random(&random) % (128 * MIB);
		for (int i = 0; i < 300; i++) {
			uint64_t at = next_random(&random) % 3 ? m.set.stream[m.set.last].hi
							       : next_random(&random) % file;
			uint64_t len = 1 + next_random(&random) % (4 * MIB);

			if (at >= file)
				at = 0;
			sim_read(&m, at, min_of(len, file - at));
			assert_true(m.set.nr <= STREAM_MAX);
			assert_true(m.set.sweep_next <= file);
		}
		assert_true(m.fetched <= file);
		sim_done(&m);
	}
}

/* --- strides --- */

/* Slices of rows, as a rank of a tensor-parallel model reads them past the page cache. */
static void reads_at_a_constant_distance_are_fetched_ahead(void **state)
{
	for (int backward = 0; backward < 2; backward++) {
		struct sim m;
		unsigned missed_late = 0;

		sim_init(&m, 1 * GIB);
		sim_read(&m, 512 * MIB, 4 * KIB);
		for (unsigned i = 0; i < 400; i++) {
			uint64_t at = backward ? 1 * GIB - (i + 1) * MIB : i * MIB;
			bool missed = sim_read(&m, at, BLOCK);

			missed_late += i >= 8 && missed;
		}
		assert_int_equal(missed_late, 0);
		assert_int_equal(m.sweep_bytes, 0);
		/* Only what is read, and what is ahead of the last one. */
		assert_true(m.fetched <= m.wanted + 34 * BLOCK + MIB);
		sim_done(&m);
	}
}

static void a_distance_that_changes_is_no_stride(void **state)
{
	uint32_t seed = 7;
	struct sim m;

	sim_init(&m, 1 * GIB);
	for (unsigned i = 0, at = 1; i < 100; i++, at += 1 + next_random(&seed) % 16)
		sim_read(&m, at * MIB, 64 * KIB);
	assert_true(m.fetched <= 2 * m.wanted + 10 * BLOCK);
	sim_done(&m);
}

static void a_stride_ends_with_the_file_and_with_the_memory(void **state)
{
	struct sim m;

	sim_init(&m, 100 * MIB + 1000);
	for (unsigned i = 0; i <= 100; i++)
		sim_read(&m, i * MIB, min_of(BLOCK, m.lim.file_bytes - i * MIB));
	for (int i = 99; i >= 0; i--)
		sim_read(&m, (uint64_t)i * MIB + 2 * BLOCK, 1000);
	sim_done(&m);

	sim_init(&m, 1 * GIB);
	m.memory_bytes = 4 * BLOCK;
	for (unsigned i = 0; i < 500; i++)
		sim_read(&m, i * 2 * MIB, BLOCK);
	assert_in_range(m.nr_missed, 1, 10);
	sim_done(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_at_a_constant_distance_are_fetched_ahead),
		cmocka_unit_test(a_distance_that_changes_is_no_stride),
		cmocka_unit_test(a_stride_ends_with_the_file_and_with_the_memory),
		cmocka_unit_test(a_forward_stream_is_fetched_ahead_in_whole_units),
		cmocka_unit_test(the_window_grows_with_the_evidence_and_only_while_the_reader_waits),
		cmocka_unit_test(the_window_ends_at_its_maximum),
		cmocka_unit_test(nothing_is_planned_past_the_end),
		cmocka_unit_test(a_large_read_at_the_start_begins_a_stream_at_once),
		cmocka_unit_test(a_backward_stream_is_fetched_ahead_too),
		cmocka_unit_test(a_stream_that_turns_round_proves_itself_again),
		cmocka_unit_test(reads_in_another_order_within_the_slack_stay_one_stream),
		cmocka_unit_test(reading_something_again_plans_nothing),
		cmocka_unit_test(a_second_pass_is_fetched_ahead_too),
		cmocka_unit_test(interleaved_streams_are_told_apart),
		cmocka_unit_test(a_few_streams_are_no_sweep_and_many_only_a_bounded_one),
		cmocka_unit_test(small_reads_between_do_not_end_a_stream),
		cmocka_unit_test(small_random_reads_never_widen),
		cmocka_unit_test(the_first_touch_is_one_mebibyte_once),
		cmocka_unit_test(the_first_64_kib_cost_one_mebibyte),
		cmocka_unit_test(scattered_large_reads_become_a_sweep),
		cmocka_unit_test(shuffled_pieces_are_fetched_once),
		cmocka_unit_test(a_sweep_ends_on_whole_units),
		cmocka_unit_test(a_few_scattered_reads_are_no_sweep),
		cmocka_unit_test(what_was_cut_is_planned_again),
		cmocka_unit_test(what_was_cut_of_a_backward_stream_is_planned_again),
		cmocka_unit_test(what_was_cut_of_a_sweep_is_planned_again),
		cmocka_unit_test(no_order_of_reads_breaks_the_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
