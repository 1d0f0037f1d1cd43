// SPDX-License-Identifier: Apache-2.0
/* The bounded buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/buf.h"

static void an_empty_buffer_reads_as_an_empty_string(void **state)
{
	struct buf b;

	buf_init(&b, 16);
	assert_string_equal(buf_str(&b), "");
	buf_clear(&b);
	assert_int_equal(buf_add(&b, NULL, 0), 0);
	assert_string_equal(buf_str(&b), "");
	buf_done(&b);
}

static void the_maximum_is_reached_but_not_passed(void **state)
{
	struct buf b;

	buf_init(&b, 8);
	assert_int_equal(buf_add(&b, "12345678", 8), 0);
	assert_int_equal(b.len, 8);
	assert_int_equal(buf_add(&b, "9", 1), -E2BIG);
	assert_int_equal(buf_addf(&b, "%d", 9), -E2BIG);
	assert_int_equal(buf_add_str(&b, "9"), -E2BIG);
	assert_string_equal(buf_str(&b), "12345678");
	assert_int_equal(buf_add(&b, NULL, 0), 0);
	buf_done(&b);
}

static void a_length_that_would_wrap_is_refused(void **state)
{
	struct buf b;

	buf_init(&b, 64);
	assert_int_equal(buf_add_str(&b, "abc"), 0);
	assert_int_equal(buf_add(&b, "x", SIZE_MAX), -E2BIG);
	assert_int_equal(buf_add(&b, "x", SIZE_MAX - 2), -E2BIG);
	assert_string_equal(buf_str(&b), "abc");
	buf_done(&b);
}

static void content_survives_growth_and_stays_terminated(void **state)
{
	struct buf b;

	buf_init(&b, 100000);
	for (int i = 0; i < 10000; i++) {
		assert_int_equal(buf_addf(&b, "%04d,", i), 0);
		assert_int_equal(b.data[b.len], '\0');
	}
	assert_int_equal(b.len, 50000);
	assert_memory_equal(b.data, "0000,0001,", 10);
	assert_memory_equal(b.data + 49990, "9998,9999,", 10);
	buf_done(&b);
}

static void bytes_may_be_anything(void **state)
{
	struct buf b;

	buf_init(&b, 8);
	assert_int_equal(buf_add(&b, "\0\xff\0", 3), 0);
	assert_int_equal(b.len, 3);
	assert_memory_equal(b.data, "\0\xff\0", 4);
	buf_done(&b);
}

static void clear_keeps_the_memory_and_done_gives_it_back(void **state)
{
	struct buf b;
	char *data;

	buf_init(&b, 1000);
	assert_int_equal(buf_add_str(&b, "something"), 0);
	data = b.data;
	buf_clear(&b);
	assert_int_equal(b.len, 0);
	assert_string_equal(buf_str(&b), "");
	assert_int_equal(buf_add_str(&b, "else"), 0);
	assert_ptr_equal(b.data, data);
	buf_done(&b);
	assert_null(b.data);
	assert_int_equal(buf_add_str(&b, "again"), 0);
	assert_string_equal(buf_str(&b), "again");
	buf_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_buffer_reads_as_an_empty_string),
		cmocka_unit_test(the_maximum_is_reached_but_not_passed),
		cmocka_unit_test(a_length_that_would_wrap_is_refused),
		cmocka_unit_test(content_survives_growth_and_stays_terminated),
		cmocka_unit_test(bytes_may_be_anything),
		cmocka_unit_test(clear_keeps_the_memory_and_done_gives_it_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
