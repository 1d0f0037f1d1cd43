// SPDX-License-Identifier: Apache-2.0
/* The slab: slots are apart, counted, and given back to the system. */
#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/slab.h"

#define SLOT (128u << 10)

static uint32_t take(struct slab *s)
{
	assert_true(slab_available(s) > 0);
	s->nr_reserved++;
	return slab_take(s);
}

static void trim(struct slab *s, bool keep_warm)
{
	slab_trim_start(s, keep_warm);
	while (slab_trim_take(s)) {
		slab_trim_release(s);
		slab_trim_give(s);
	}
	slab_trim_end(s);
}

/* Pages of a slot that have memory. */
static unsigned nr_resident(const struct slab *s, uint32_t slot)
{
	long page = sysconf(_SC_PAGESIZE);
	unsigned char there[SLOT / 4096];
	unsigned nr = 0;

	assert_int_equal(mincore(slab_at(s, slot), SLOT, there), 0);
	for (unsigned i = 0; i < SLOT / page; i++)
		nr += there[i] & 1;
	return nr;
}

static void every_slot_is_handed_out_once_and_is_its_own(void **state)
{
	unsigned char seen[37] = { 0 };
	struct slab s;

	assert_int_equal(slab_init(&s, 37 * (uint64_t)SLOT + SLOT - 1, SLOT), 0);
	assert_int_equal(s.nr_slots, 37);
	assert_int_equal((uintptr_t)s.base % (2u << 20), 0);
	for (int i = 0; i < 37; i++) {
		uint32_t slot = take(&s);

		assert_in_range(slot, 0, 36);
		assert_int_equal(seen[slot]++, 0);
		memset(slab_at(&s, slot), (int)slot + 1, SLOT);
		assert_int_equal(slab_used(&s), i + 1);
		assert_int_equal(slab_available(&s), 36 - i);
	}
	for (uint32_t slot = 0; slot < 37; slot++) {
		assert_int_equal(slab_at(&s, slot)[0], slot + 1);
		assert_int_equal(slab_at(&s, slot)[SLOT - 1], slot + 1);
	}
	slab_done(&s);
}

static void promised_slots_are_not_available(void **state)
{
	struct slab s;

	assert_int_equal(slab_init(&s, 4 * SLOT, SLOT), 0);
	s.nr_reserved = 3;
	assert_int_equal(slab_available(&s), 1);
	assert_int_equal(slab_used(&s), 0);
	slab_take(&s);
	assert_int_equal(s.nr_reserved, 2);
	assert_int_equal(slab_available(&s), 1);
	assert_int_equal(slab_used(&s), 1);
	slab_done(&s);
}

static void the_last_slot_given_back_is_the_next(void **state)
{
	uint32_t a, b;
	struct slab s;

	assert_int_equal(slab_init(&s, 4 * SLOT, SLOT), 0);
	a = take(&s);
	b = take(&s);
	slab_give(&s, b);
	slab_give(&s, a);
	assert_int_equal(take(&s), a);
	assert_int_equal(take(&s), b);
	slab_done(&s);
}

static void a_trim_returns_the_memory_of_free_slots_alone(void **state)
{
	uint32_t slot[40];
	struct slab s;

	assert_int_equal(slab_init(&s, 64 * SLOT, SLOT), 0);
	for (int i = 0; i < 40; i++) {
		slot[i] = take(&s);
		memset(slab_at(&s, slot[i]), i + 1, SLOT);
	}
	for (int i = 0; i < 40; i++) {
		if (i % 7 != 3)
			slab_give(&s, slot[i]);
	}
	trim(&s, false);
	assert_int_equal(slab_used(&s), 6);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(nr_resident(&s, slot[i]), i % 7 == 3 ? SLOT / (unsigned)sysconf(_SC_PAGESIZE) : 0);
		if (i % 7 == 3)
			assert_int_equal(slab_at(&s, slot[i])[SLOT / 2], i + 1);
	}
	/* The mark is behind the last slot in use, and the lowest free ones come first. */
	assert_int_equal(s.fresh, slot[38] + 1);
	assert_int_equal(take(&s), slot[0]);
	assert_int_equal(take(&s), slot[1]);
	for (unsigned i = slab_used(&s); i < 64; i++)
		take(&s);
	assert_int_equal(slab_available(&s), 0);
	slab_done(&s);
}

static void a_trim_may_leave_what_was_made_ready(void **state)
{
	unsigned pages = SLOT / (unsigned)sysconf(_SC_PAGESIZE);
	uint32_t slot[32];
	struct slab s;

	assert_int_equal(slab_init(&s, 64 * SLOT, SLOT), 0);
	if (!slab_populate(&s, 0, 1)) {
		slab_done(&s);
		skip();
	}
	slab_warm(&s, 16 * SLOT);
	assert_int_equal(nr_resident(&s, 15), pages);
	for (int i = 0; i < 32; i++) {
		slot[i] = take(&s);
		memset(slab_at(&s, slot[i]), 1, SLOT);
	}
	for (int i = 0; i < 32; i++)
		slab_give(&s, slot[i]);
	trim(&s, true);
	assert_int_equal(s.fresh, 0);
	for (uint32_t i = 0; i < 32; i++)
		assert_int_equal(nr_resident(&s, i), i < 16 ? pages : 0);
	trim(&s, false);
	for (uint32_t i = 0; i < 32; i++)
		assert_int_equal(nr_resident(&s, i), 0);
	slab_done(&s);
}

static void a_slot_handed_out_during_a_trim_keeps_its_bytes(void **state)
{
	uint32_t slot[300], again[300], nr = 0, rounds = 0;
	struct slab s;

	assert_int_equal(slab_init(&s, 300 * SLOT, SLOT), 0);
	for (int i = 0; i < 300; i++) {
		slot[i] = take(&s);
		memset(slab_at(&s, slot[i]), 1, SLOT);
	}
	for (int i = 0; i < 300; i++)
		slab_give(&s, slot[i]);
	slab_trim_start(&s, false);
	while (slab_trim_take(&s)) {
		assert_true(s.nr_out <= SLAB_TRIM_SLOTS);
		assert_int_equal(slab_used(&s), nr);
		assert_int_equal(slab_available(&s), 300 - nr - s.nr_out);
		/* Two are taken and one is given back. */
		for (int i = 0; i < 3 && slab_available(&s); i++) {
			if (i == 2) {
				slab_give(&s, again[--nr]);
				continue;
			}
			again[nr] = take(&s);
			memset(slab_at(&s, again[nr]), 2, SLOT);
			nr++;
		}
		slab_trim_release(&s);
		slab_trim_give(&s);
		rounds++;
	}
	slab_trim_end(&s);
	assert_true(rounds >= 300 / SLAB_TRIM_SLOTS);
	assert_int_equal(slab_used(&s), nr);
	for (uint32_t i = 0; i < nr; i++) {
		assert_int_equal(slab_at(&s, again[i])[0], 2);
		assert_int_equal(slab_at(&s, again[i])[SLOT - 1], 2);
	}
	/* Each of the others is there once more. */
	while (slab_available(&s)) {
		again[nr] = take(&s);
		for (uint32_t i = 0; i < nr; i++)
			assert_int_not_equal(again[i], again[nr]);
		nr++;
	}
	assert_int_equal(nr, 300);
	slab_done(&s);
}

static void a_trim_leaves_what_was_promised(void **state)
{
	struct slab s;

	assert_int_equal(slab_init(&s, 40 * SLOT, SLOT), 0);
	for (int i = 0; i < 40; i++)
		take(&s);
	for (uint32_t i = 0; i < 40; i++)
		slab_give(&s, i);
	s.nr_reserved = 30;
	slab_trim_start(&s, false);
	assert_true(slab_trim_take(&s));
	assert_int_equal(s.nr_out, 10);
	for (int i = 0; i < 30; i++)
		assert_in_range(slab_take(&s), 0, 29);
	slab_trim_release(&s);
	slab_trim_give(&s);
	assert_int_equal(slab_available(&s), 10);
	slab_trim_end(&s);
	assert_int_equal(s.fresh, 30);
	slab_done(&s);
}

static void a_budget_that_cannot_be_is_refused(void **state)
{
	struct slab s;

	assert_int_equal(slab_init(&s, 0, SLOT), -EINVAL);
	assert_int_equal(slab_init(&s, SLOT - 1, SLOT), -EINVAL);
	assert_int_equal(slab_init(&s, UINT64_MAX, SLOT), -EINVAL);
	/* More than the address space holds. */
	assert_int_equal(slab_init(&s, 300ull << 40, SLOT), -ENOMEM);
	assert_int_equal(slab_init(&s, SLOT, SLOT), 0);
	trim(&s, false);
	assert_int_equal(take(&s), 0);
	slab_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_slot_is_handed_out_once_and_is_its_own),
		cmocka_unit_test(promised_slots_are_not_available),
		cmocka_unit_test(the_last_slot_given_back_is_the_next),
		cmocka_unit_test(a_trim_returns_the_memory_of_free_slots_alone),
		cmocka_unit_test(a_trim_may_leave_what_was_made_ready),
		cmocka_unit_test(a_slot_handed_out_during_a_trim_keeps_its_bytes),
		cmocka_unit_test(a_trim_leaves_what_was_promised),
		cmocka_unit_test(a_budget_that_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
