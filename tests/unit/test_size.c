// SPDX-License-Identifier: Apache-2.0
/* Sizes, numbers and durations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "base/cleanup.h"
#include "base/size.h"

#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define TIB (1ULL << 40)
#define NSEC 1000000000ULL

struct row {
	const char *text;
	uint64_t want;
};

static void every_unit_has_its_factor(void **state)
{
	static const struct row rows[] = {
		{ "0", 0 },
		{ "512", 512 },
		{ "64KiB", 64 * KIB },
		{ "8MiB", 8 * MIB },
		{ "2GiB", 2 * GIB },
		{ "1TiB", TIB },
		{ "1K", KIB },
		{ "1M", MIB },
		{ "1G", GIB },
		{ "1T", TIB },
		{ "3KB", 3000 },
		{ "3MB", 3000000 },
		{ "3GB", 3000000000 },
		{ "3TB", 3000000000000 },
		{ "007K", 7 * KIB },
	};
	uint64_t v;

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(size_parse(rows[i].text, &v), 0);
		assert_int_equal(v, rows[i].want);
	}
}

static void case_means_nothing(void **state)
{
	static const struct row rows[] = {
		{ "1kib", KIB }, { "1KIB", KIB }, { "1k", KIB }, { "1mb", 1000000 }, { "1tIb", TIB },
	};
	uint64_t v;

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(size_parse(rows[i].text, &v), 0);
		assert_int_equal(v, rows[i].want);
	}
}

static void fractions_round_down_to_bytes(void **state)
{
	static const struct row rows[] = {
		{ "1.5GiB", 3 * GIB / 2 },
		{ "0.5K", 512 },
		{ "0.0KiB", 0 },
		{ "0.3KiB", 307 },
		{ "1.25MB", 1250000 },
		{ "0.0009765625K", 1 },
		{ "0.99999999999999999999999999999999999K", 1023 },
		{ "1.000000000000000000000000000001T", TIB },
	};
	uint64_t v;

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(size_parse(rows[i].text, &v), 0);
		assert_int_equal(v, rows[i].want);
	}
}

static void anything_else_is_refused(void **state)
{
	static const char *const texts[] = {
		"",    " ",   "K",     "-1",     "+1",
		" 1",  "1 ",  "1 K",   "1.5",    "1.",
		"1.K", ".5K", "1..5K", "1,5K",   "0x10",
		"1e3", "1B",  "1KiBs", "1iB",    "1P",
		"1KK", "nan", "1\nK",  "1.5.5K", "18446744073709551616 ",
	};
	uint64_t v = 77;

	for (size_t i = 0; i < array_len(texts); i++)
		assert_int_equal(size_parse(texts[i], &v), -EINVAL);
	assert_int_equal(v, 77);
}

static void overflow_is_erange_and_the_largest_value_fits(void **state)
{
	static const char *const texts[] = {
		"18446744073709551616",    "16777216T", "16777216.5TiB", "17179869184G", "99999999999999999999999999K",
		"18446744073709551.616KB",
	};
	uint64_t v = 77;

	for (size_t i = 0; i < array_len(texts); i++)
		assert_int_equal(size_parse(texts[i], &v), -ERANGE);
	assert_int_equal(v, 77);
	assert_int_equal(size_parse("18446744073709551615", &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(size_parse("16777215.9999999T", &v), 0);
	assert_true(v > 16777215ULL * TIB);
}

static void numbers_keep_to_their_bounds(void **state)
{
	uint64_t v;

	assert_int_equal(number_parse("5", 5, 5, &v), 0);
	assert_int_equal(v, 5);
	assert_int_equal(number_parse("18446744073709551615", 0, UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(number_parse("4", 5, 9, &v), -ERANGE);
	assert_int_equal(number_parse("10", 5, 9, &v), -ERANGE);
	assert_int_equal(number_parse("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
	assert_int_equal(number_parse("", 0, 9, &v), -EINVAL);
	assert_int_equal(number_parse("-1", 0, 9, &v), -EINVAL);
	assert_int_equal(number_parse("1x", 0, 9, &v), -EINVAL);
	assert_int_equal(number_parse("1.0", 0, 9, &v), -EINVAL);
	assert_int_equal(number_parse("99999999999999999999999x", 0, 9, &v), -EINVAL);
}

static void durations_are_seconds_by_default(void **state)
{
	static const struct row rows[] = {
		{ "0", 0 },
		{ "30", 30 * NSEC },
		{ "30s", 30 * NSEC },
		{ "1.5", 3 * NSEC / 2 },
		{ "250ms", NSEC / 4 },
		{ "0.5ms", 500000 },
		{ "2m", 120 * NSEC },
		{ "1h", 3600 * NSEC },
		{ "1.5H", 5400 * NSEC },
		{ "0.000000001", 1 },
		{ "10MS", NSEC / 100 },
	};
	static const char *const bad[] = { "", "s", "-1", "1 s", "1d", "1us", ".5", "1.s", "5sec" };
	uint64_t v;

	for (size_t i = 0; i < array_len(rows); i++) {
		assert_int_equal(duration_parse(rows[i].text, &v), 0);
		assert_int_equal(v, rows[i].want);
	}
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(duration_parse(bad[i], &v), -EINVAL);
	assert_int_equal(duration_parse("18446744074", &v), -ERANGE);
	assert_int_equal(duration_parse("5124096h", &v), -ERANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_unit_has_its_factor),
		cmocka_unit_test(case_means_nothing),
		cmocka_unit_test(fractions_round_down_to_bytes),
		cmocka_unit_test(anything_else_is_refused),
		cmocka_unit_test(overflow_is_erange_and_the_largest_value_fits),
		cmocka_unit_test(numbers_keep_to_their_bounds),
		cmocka_unit_test(durations_are_seconds_by_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
