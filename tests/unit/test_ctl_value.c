// SPDX-License-Identifier: Apache-2.0
/* Values of the tuning tree as text, the table of them, and what a write to an attribute does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "ctl/table.h"

static void accepts(enum ctl_value which, const char *text, uint64_t number)
{
	struct ctl_cell v = { .number = 77 };

	assert_int_equal(ctl_value_parse(&ctl_specs[which], text, &v), 0);
	assert_int_equal(v.number, number);
}

static void refuses(enum ctl_value which, const char *text)
{
	struct ctl_cell v = { .number = 77, .text = "as it was" };

	if (ctl_value_parse(&ctl_specs[which], text, &v) != -EINVAL)
		fail_msg("%s/%s accepts \"%s\"", ctl_specs[which].dir, ctl_specs[which].name, text);
	assert_int_equal(v.number, 77);
	assert_string_equal(v.text, "as it was");
}

static void sizes_take_units_within_their_range(void **state)
{
	accepts(CTL_CACHE_MEMORY, "33554432", 32 << 20);
	accepts(CTL_CACHE_MEMORY, "32MiB", 32 << 20);
	accepts(CTL_CACHE_MEMORY, "1.5GiB", 3ull << 29);
	accepts(CTL_CACHE_MEMORY, "65536KiB", 64 << 20);
	accepts(CTL_CACHE_DISK, "0", 0);
	refuses(CTL_CACHE_MEMORY, "33554431");
	refuses(CTL_CACHE_MEMORY, "9999TiB");
	refuses(CTL_CACHE_MEMORY, "99999999999999999999999");
	refuses(CTL_CACHE_MEMORY, "64 MiB");
	refuses(CTL_CACHE_MEMORY, "64MiBs");
	refuses(CTL_CACHE_MEMORY, "-1");
	refuses(CTL_CACHE_MEMORY, "1e9");
}

static void numbers_are_whole_and_within_their_range(void **state)
{
	accepts(CTL_S3_MAX_CONNECTIONS, "1", 1);
	accepts(CTL_S3_MAX_CONNECTIONS, "1024", 1024);
	refuses(CTL_S3_MAX_CONNECTIONS, "0");
	refuses(CTL_S3_MAX_CONNECTIONS, "1025");
	refuses(CTL_S3_MAX_CONNECTIONS, "1K");
	refuses(CTL_S3_MAX_CONNECTIONS, "0x10");
	accepts(CTL_S3_HEDGE_PERCENT, "0", 0);
	accepts(CTL_S3_HEDGE_PERCENT, "100", 100);
	refuses(CTL_S3_HEDGE_PERCENT, "101");
	refuses(CTL_S3_HEDGE_PERCENT, "5%");
	refuses(CTL_S3_HEDGE_PERCENT, "2.5");
	accepts(CTL_FUSE_READ_AHEAD, "4096", 4096);
	accepts(CTL_FUSE_READ_AHEAD, "0", 0);
	refuses(CTL_FUSE_READ_AHEAD, "1048577");
}

static void booleans_are_0_and_1_only(void **state)
{
	accepts(CTL_PREFETCH_RECORD, "0", 0);
	accepts(CTL_PREFETCH_RECORD, "1", 1);
	refuses(CTL_PREFETCH_RECORD, "2");
	refuses(CTL_PREFETCH_RECORD, "01");
	refuses(CTL_PREFETCH_RECORD, "true");
	refuses(CTL_PREFETCH_RECORD, "Y");
}

static void words_are_taken_whole_and_as_they_are(void **state)
{
	accepts(CTL_PREFETCH_MODE, "off", CTL_PREFETCH_OFF);
	accepts(CTL_PREFETCH_MODE, "auto", CTL_PREFETCH_AUTO);
	accepts(CTL_PREFETCH_MODE, "eager", CTL_PREFETCH_EAGER);
	refuses(CTL_PREFETCH_MODE, "eage");
	refuses(CTL_PREFETCH_MODE, "eagerly");
	refuses(CTL_PREFETCH_MODE, "Auto");
	refuses(CTL_PREFETCH_MODE, "1");
}

static void garbage_is_refused_by_every_value(void **state)
{
	static const char *const garbage[] = { "",    " ",    "\n",       "1 ",       " 1",        "1\n",   "1\n1",
					       "--1", "+1",   "0x",       "nan",      "inf",       "1,000", "off ",
					       "\t1", "\x7f", "\xff\xfe", "1;reboot", "$(reboot)", "%s%n",  "KiB" };
	char longest[CTL_STORE_MAX_BYTES + 1];

	memset(longest, '9', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (int which = 0; which < CTL_NR_VALUES; which++) {
		for (size_t i = 0; i < array_len(garbage); i++)
			refuses((enum ctl_value)which, garbage[i]);
		refuses((enum ctl_value)which, longest);
	}
}

static void read_only_values_accept_nothing(void **state)
{
	refuses(CTL_SOURCE, "s3://bucket/prefix");
	refuses(CTL_S3_REQUESTS, "1");
	refuses(CTL_CACHE_MEMORY_USED, "1");
}

static void writable_values_accept_what_they_print(void **state)
{
	const struct ctl_spec *s = ctl_specs;

	for (; s < ctl_specs + CTL_NR_VALUES; s++) {
		const uint64_t numbers[] = { s->min, s->min + (s->max - s->min) / 3, s->max };

		for (size_t i = 0; ctl_kind_writable(s->kind) && i < array_len(numbers); i++) {
			_cleanup_buf_ struct buf out;
			struct ctl_cell v = { .number = numbers[i] };

			buf_init(&out, CTL_SHOW_MAX_BYTES);
			assert_int_equal(ctl_value_print(s, &v, &out), 0);
			assert_int_equal(out.data[out.len - 1], '\n');
			out.data[--out.len] = '\0';
			accepts(s->which, buf_str(&out), numbers[i]);
		}
	}
}

static void a_text_stays_one_line(void **state)
{
	struct ctl_cell v = { .text = "degraded: a\nb\r\x01" };
	_cleanup_buf_ struct buf out;

	buf_init(&out, CTL_SHOW_MAX_BYTES);
	assert_int_equal(ctl_value_print(&ctl_specs[CTL_STATE], &v, &out), 0);
	assert_string_equal(buf_str(&out), "degraded: a b  \n");
}

static void a_word_that_is_none_is_not_printed(void **state)
{
	struct ctl_cell v = { .number = 3 };
	_cleanup_buf_ struct buf out;

	buf_init(&out, CTL_SHOW_MAX_BYTES);
	assert_int_equal(ctl_value_print(&ctl_specs[CTL_PREFETCH_MODE], &v, &out), -EINVAL);
	assert_int_equal(out.len, 0);
}

static void the_table_has_the_names_that_are_promised(void **state)
{
	static const char *const promised[] = {
		"/source",
		"/state",
		"/transport",
		"prefetch/mode",
		"prefetch/window_bytes",
		"prefetch/max_inflight",
		"prefetch/chunk_bytes",
		"prefetch/profile",
		"prefetch/record",
		"cache/memory_bytes",
		"cache/disk_bytes",
		"cache/memory_used",
		"cache/disk_used",
		"cache/hit_bytes",
		"cache/miss_bytes",
		"cache/evicted_bytes",
		"s3/max_connections",
		"s3/hedge_percent",
		"s3/requests",
		"s3/retries",
		"s3/throttled",
		"s3/bytes",
		"s3/p50_us",
		"s3/p99_us",
		"fuse/queue_depth",
		"fuse/read_ahead_kb",
		"fuse/requests",
		"trace/events",
		"trace/dropped",
		"trace/enabled",
		"trace/gpu",
		"load/started",
		"load/first_read_us",
		"load/last_read_us",
		"load/bytes_wanted",
		"load/bytes_fetched",
		"load/fault_stall_us",
		"load/gpu_copy_bytes",
	};
	static const char writable[] =
		" prefetch/mode prefetch/window_bytes prefetch/max_inflight prefetch/record "
		"cache/memory_bytes cache/disk_bytes s3/max_connections s3/hedge_percent "
		"fuse/read_ahead_kb trace/enabled trace/gpu ";
	char name[64];
	size_t found = 0;

	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *s = &ctl_specs[i];

		assert_int_equal(s->which, i);
		snprintf(name, sizeof(name), "%s/%s", s->dir, s->name);
		for (size_t j = 0; j < array_len(promised); j++)
			found += strcmp(promised[j], name) == 0;
		snprintf(name, sizeof(name), " %s/%s ", s->dir, s->name);
		assert_int_equal(ctl_kind_writable(s->kind), strstr(writable, name) != NULL);
	}
	assert_int_equal(found, array_len(promised));
}

static int text_store(void *ctx, const struct ctl_attr *a, const char *text)
{
	snprintf(ctx, CTL_STORE_MAX_BYTES + 1, "%s", text);
	return 0;
}

static void a_write_is_one_value_without_its_newline(void **state)
{
	const struct ctl_attr a = { .dir = "", .name = "a", .mode = 0644, .store = text_store };
	char stored[CTL_STORE_MAX_BYTES + 1] = "before", big[CTL_STORE_MAX_BYTES + 1];

	assert_int_equal(ctl_attr_write(&a, stored, "", 0), -EINVAL);
	assert_int_equal(ctl_attr_write(&a, stored, "\n", 1), -EINVAL);
	assert_int_equal(ctl_attr_write(&a, stored, "a\0b", 3), -EINVAL);
	memset(big, 'x', sizeof(big));
	assert_int_equal(ctl_attr_write(&a, stored, big, sizeof(big)), -EINVAL);
	assert_string_equal(stored, "before");
	assert_int_equal(ctl_attr_write(&a, stored, "value\n", 6), 0);
	assert_string_equal(stored, "value");
	assert_int_equal(ctl_attr_write(&a, stored, "two\n\n", 5), 0);
	assert_string_equal(stored, "two\n");
	assert_int_equal(ctl_attr_write(&a, stored, big, CTL_STORE_MAX_BYTES), 0);
	assert_int_equal(strlen(stored), CTL_STORE_MAX_BYTES);
}

static void an_attribute_without_store_is_not_written(void **state)
{
	const struct ctl_attr a = { .dir = "", .name = "a", .mode = 0444 };

	assert_int_equal(ctl_attr_write(&a, NULL, "1\n", 2), -EACCES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_take_units_within_their_range),
		cmocka_unit_test(numbers_are_whole_and_within_their_range),
		cmocka_unit_test(booleans_are_0_and_1_only),
		cmocka_unit_test(words_are_taken_whole_and_as_they_are),
		cmocka_unit_test(garbage_is_refused_by_every_value),
		cmocka_unit_test(read_only_values_accept_nothing),
		cmocka_unit_test(writable_values_accept_what_they_print),
		cmocka_unit_test(a_text_stays_one_line),
		cmocka_unit_test(a_word_that_is_none_is_not_printed),
		cmocka_unit_test(the_table_has_the_names_that_are_promised),
		cmocka_unit_test(a_write_is_one_value_without_its_newline),
		cmocka_unit_test(an_attribute_without_store_is_not_written),
	};

	return cmocka_run_group_tests_name("ctl_value", tests, NULL, NULL);
}
