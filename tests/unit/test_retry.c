// SPDX-License-Identifier: Apache-2.0
/* Back-off, budget, AIMD, latency quantiles and hedging, driven by a clock and randomness of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "s3/retry.h"

#define MS 1000000ULL
#define SEC 1000000000ULL
#define HOLD (1 * SEC)

static uint64_t random_state;

static uint32_t next_random(void)
{
	random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(random_state >> 32);
}

static int seed(void **state)
{
	random_state = 20261123;
	return 0;
}

static void backoff_stays_between_half_the_base_and_the_cap(void **state)
{
	for (int i = 0; i < 100000; i++) {
		unsigned attempt = next_random() % 100;
		uint64_t base = 1 + next_random() % (100 * MS), cap = base + next_random();
		uint64_t ns = s3_backoff_ns(attempt, base, cap, next_random());

		assert_true(ns >= max_of(base / 2, 1ULL));
		assert_true(ns <= cap);
		if (attempt < 20)
			assert_true(ns <= base << attempt);
	}
}

static void backoff_covers_its_whole_range(void **state)
{
	assert_int_equal(s3_backoff_ns(3, 100 * MS, 20 * SEC, 0), 50 * MS);
	assert_int_equal(s3_backoff_ns(3, 100 * MS, 20 * SEC, UINT32_MAX), 800 * MS);
	assert_int_equal(s3_backoff_ns(0, 100 * MS, 20 * SEC, UINT32_MAX), 100 * MS);
	assert_int_equal(s3_backoff_ns(30, 100 * MS, 20 * SEC, UINT32_MAX), 20 * SEC);
}

static void backoff_survives_absurd_arguments(void **state)
{
	assert_int_equal(s3_backoff_ns(UINT32_MAX, 100 * MS, 5 * SEC, UINT32_MAX), 5 * SEC);
	assert_int_equal(s3_backoff_ns(63, UINT64_MAX, UINT64_MAX, UINT32_MAX), UINT64_MAX);
	assert_int_equal(s3_backoff_ns(0, 0, 0, 0), 1);
	assert_int_equal(s3_backoff_ns(5, SEC, 10 * MS, UINT32_MAX), 10 * MS);
}

static void backoff_grows_on_average(void **state)
{
	uint64_t last = 0;

	for (unsigned attempt = 0; attempt < 7; attempt++) {
		uint64_t sum = 0;

		for (int i = 0; i < 2000; i++)
			sum += s3_backoff_ns(attempt, 100 * MS, 20 * SEC, next_random());
		assert_true(sum > last);
		last = sum;
	}
}

static void budget_gives_its_tokens_and_earns_them_back(void **state)
{
	struct s3_budget b;

	s3_budget_init(&b, 3, 100);
	for (int i = 0; i < 3; i++)
		assert_true(s3_budget_take(&b));
	assert_false(s3_budget_take(&b));
	for (int i = 0; i < 9; i++)
		s3_budget_success(&b);
	assert_false(s3_budget_take(&b));
	s3_budget_success(&b);
	assert_true(s3_budget_take(&b));
	assert_false(s3_budget_take(&b));
}

static void budget_never_exceeds_its_maximum(void **state)
{
	struct s3_budget b;
	int taken = 0;

	s3_budget_init(&b, 5, 300);
	for (int i = 0; i < 1000; i++)
		s3_budget_success(&b);
	while (s3_budget_take(&b))
		taken++;
	assert_int_equal(taken, 5);
}

static void budget_bounds_retries_in_the_long_run(void **state)
{
	struct s3_budget b;
	unsigned successes = 0, retries = 0;

	s3_budget_init(&b, 10, 100);
	for (int i = 0; i < 100000; i++) {
		if (next_random() % 2) {
			s3_budget_success(&b);
			successes++;
		} else if (s3_budget_take(&b)) {
			retries++;
		}
		assert_true(retries * 10 <= successes + 100);
	}
	assert_true(retries * 10 > successes / 2);
}

static void a_throttle_halves_the_limit_once_per_hold(void **state)
{
	struct s3_aimd a;

	s3_aimd_init(&a, 64, HOLD);
	for (int i = 0; i < 30; i++)
		s3_aimd_throttle(&a, 5 * SEC + (uint64_t)i * MS);
	assert_int_equal(a.limit, 32);
	assert_int_equal(a.throttled, 30);
	s3_aimd_throttle(&a, 6 * SEC);
	assert_int_equal(a.limit, 16);
}

static void the_first_throttle_counts_even_just_after_boot(void **state)
{
	struct s3_aimd a;

	s3_aimd_init(&a, 64, HOLD);
	s3_aimd_throttle(&a, 1);
	assert_int_equal(a.limit, 32);
}

static void the_limit_has_a_floor(void **state)
{
	struct s3_aimd a;

	s3_aimd_init(&a, 64, HOLD);
	for (uint64_t t = 1; t < 50; t++)
		s3_aimd_throttle(&a, t * HOLD);
	assert_int_equal(a.limit, 2);
	s3_aimd_init(&a, 1, HOLD);
	s3_aimd_throttle(&a, SEC);
	assert_int_equal(a.limit, 1);
	s3_aimd_init(&a, 0, HOLD);
	assert_int_equal(a.limit, 1);
}

static void limit_successes_add_one_soon_after_a_cut(void **state)
{
	struct s3_aimd a;

	s3_aimd_init(&a, 64, HOLD);
	s3_aimd_throttle(&a, SEC);
	for (int i = 0; i < 31; i++)
		s3_aimd_success(&a, 2 * SEC);
	assert_int_equal(a.limit, 32);
	s3_aimd_success(&a, 2 * SEC);
	assert_int_equal(a.limit, 33);
}

static void after_ten_calm_seconds_the_limit_doubles(void **state)
{
	struct s3_aimd a;
	unsigned successes = 0;

	s3_aimd_init(&a, 128, HOLD);
	for (uint64_t t = 1; t <= 10; t++)
		s3_aimd_throttle(&a, t * SEC);
	assert_int_equal(a.limit, 2);
	for (; a.limit < 128; successes++)
		s3_aimd_success(&a, 20 * SEC);
	assert_int_equal(successes, 2 + 4 + 8 + 16 + 32 + 64);
	s3_aimd_success(&a, 20 * SEC);
	assert_int_equal(a.limit, 128);
}

static void the_limit_stays_in_bounds_whatever_happens(void **state)
{
	struct s3_aimd a;
	uint64_t now = 0;

	s3_aimd_init(&a, 50, HOLD);
	for (int i = 0; i < 200000; i++) {
		unsigned dice = next_random() % 1000;

		now += next_random() % (50 * MS);
		if (dice == 0)
			s3_aimd_throttle(&a, now);
		else if (dice == 1)
			s3_aimd_set_max(&a, next_random() % 100);
		else if (dice == 2)
			s3_aimd_success(&a, now - min_of(now, SEC));
		else
			s3_aimd_success(&a, now);
		assert_true(a.limit >= 1 && a.limit <= a.max);
	}
}

static void a_lower_maximum_cuts_and_a_higher_one_is_grown_into(void **state)
{
	struct s3_aimd a;

	s3_aimd_init(&a, 16, HOLD);
	s3_aimd_set_max(&a, 4);
	assert_int_equal(a.limit, 4);
	s3_aimd_set_max(&a, 8);
	for (int i = 0; i < 4; i++)
		s3_aimd_success(&a, 100 * SEC);
	assert_int_equal(a.limit, 8);
}

static void quantiles_need_twenty_samples(void **state)
{
	struct s3_latency l = { 0 };

	for (int i = 0; i < 19; i++)
		s3_latency_add(&l, 10 * MS);
	assert_int_equal(s3_latency_quantile_ns(&l, 500), 0);
	s3_latency_add(&l, 10 * MS);
	assert_true(s3_latency_quantile_ns(&l, 500) > 0);
}

static void quantiles_are_within_a_bucket_of_the_truth(void **state)
{
	struct s3_latency l = { 0 };
	static const unsigned permille[] = { 10, 100, 500, 900, 950, 990 };

	/* 1000 samples, uniform between 1 and 1000 ms: the n-th permille is n ms. */
	for (unsigned i = 0; i < 1000; i++)
		s3_latency_add(&l, (i * 619 % 1000 + 1) * MS);
	for (size_t i = 0; i < array_len(permille); i++) {
		uint64_t q = s3_latency_quantile_ns(&l, permille[i]), truth = permille[i] * MS;

		assert_true(q >= truth * 78 / 100 && q <= truth * 128 / 100);
	}
}

static void quantiles_never_fall_as_the_rank_rises(void **state)
{
	struct s3_latency l = { 0 };
	uint64_t last = 0;

	for (int i = 0; i < 900; i++)
		s3_latency_add(&l, (uint64_t)next_random() * (next_random() % 32));
	for (unsigned p = 0; p <= 1000; p++) {
		uint64_t q = s3_latency_quantile_ns(&l, p);

		assert_true(q >= last && q > 0);
		last = q;
	}
}

static void extreme_latencies_land_in_the_outer_buckets(void **state)
{
	struct s3_latency l = { 0 };

	for (int i = 0; i < 20; i++)
		s3_latency_add(&l, 0);
	assert_true(s3_latency_quantile_ns(&l, 1000) <= 100000);
	for (int i = 0; i < 400; i++)
		s3_latency_add(&l, UINT64_MAX);
	assert_true(s3_latency_quantile_ns(&l, 1000) >= 100 * SEC);
}

static void old_latencies_fade(void **state)
{
	struct s3_latency l = { 0 };

	for (int i = 0; i < 5000; i++)
		s3_latency_add(&l, 1 * MS);
	for (int i = 0; i < 5000; i++)
		s3_latency_add(&l, 100 * MS);
	assert_true(l.total < 1024);
	assert_true(s3_latency_quantile_ns(&l, 500) > 70 * MS);
	assert_true(s3_latency_quantile_ns(&l, 50) > 70 * MS);
}

static void hedges_stay_below_their_share(void **state)
{
	struct s3_hedge h;
	unsigned taken = 0;

	s3_hedge_init(&h, 5);
	assert_false(s3_hedge_take(&h));
	for (unsigned i = 1; i <= 10000; i++) {
		s3_hedge_earn(&h);
		taken += s3_hedge_take(&h);
		assert_true(taken * 20 <= i);
	}
	assert_int_equal(taken, 500);
}

static void quiet_times_save_up_only_a_few_hedges(void **state)
{
	struct s3_hedge h;
	unsigned taken = 0;

	s3_hedge_init(&h, 5);
	for (unsigned i = 0; i < 100000; i++)
		s3_hedge_earn(&h);
	while (s3_hedge_take(&h))
		taken++;
	assert_int_equal(taken, 10);
}

static void zero_percent_never_hedges_and_more_than_all_is_all(void **state)
{
	struct s3_hedge h;

	s3_hedge_init(&h, 0);
	for (int i = 0; i < 1000; i++)
		s3_hedge_earn(&h);
	assert_false(s3_hedge_take(&h));
	s3_hedge_init(&h, 500);
	s3_hedge_earn(&h);
	assert_true(s3_hedge_take(&h));
	assert_false(s3_hedge_take(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(backoff_stays_between_half_the_base_and_the_cap, seed),
		cmocka_unit_test(backoff_covers_its_whole_range),
		cmocka_unit_test(backoff_survives_absurd_arguments),
		cmocka_unit_test_setup(backoff_grows_on_average, seed),
		cmocka_unit_test(budget_gives_its_tokens_and_earns_them_back),
		cmocka_unit_test(budget_never_exceeds_its_maximum),
		cmocka_unit_test_setup(budget_bounds_retries_in_the_long_run, seed),
		cmocka_unit_test(a_throttle_halves_the_limit_once_per_hold),
		cmocka_unit_test(the_first_throttle_counts_even_just_after_boot),
		cmocka_unit_test(the_limit_has_a_floor),
		cmocka_unit_test(limit_successes_add_one_soon_after_a_cut),
		cmocka_unit_test(after_ten_calm_seconds_the_limit_doubles),
		cmocka_unit_test_setup(the_limit_stays_in_bounds_whatever_happens, seed),
		cmocka_unit_test(a_lower_maximum_cuts_and_a_higher_one_is_grown_into),
		cmocka_unit_test(quantiles_need_twenty_samples),
		cmocka_unit_test(quantiles_are_within_a_bucket_of_the_truth),
		cmocka_unit_test_setup(quantiles_never_fall_as_the_rank_rises, seed),
		cmocka_unit_test(extreme_latencies_land_in_the_outer_buckets),
		cmocka_unit_test(old_latencies_fade),
		cmocka_unit_test(hedges_stay_below_their_share),
		cmocka_unit_test(quiet_times_save_up_only_a_few_hedges),
		cmocka_unit_test(zero_percent_never_hedges_and_more_than_all_is_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
