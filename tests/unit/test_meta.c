// SPDX-License-Identifier: Apache-2.0
/* The table of path metadata: what is known, for how long, and how much of it. */
#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "fs/meta.h"

static struct meta_record file(uint64_t size, const char *etag)
{
	struct meta_record r = { .kind = META_FILE, .size_bytes = size, .mtime = 1000 + (time_t)size };

	snprintf(r.etag, sizeof(r.etag), "%s", etag);
	snprintf(r.storage_class, sizeof(r.storage_class), "STANDARD");
	return r;
}

static void what_was_put_is_found(void **state)
{
	struct meta_record in = file(5, "e1"), out;
	struct meta *m = meta_new(1 << 20);

	assert_false(meta_get(m, "a/b", 0, &out));
	meta_put(m, "a/b", &in, 100);
	assert_true(meta_get(m, "a/b", 99, &out));
	assert_int_equal(out.kind, META_FILE);
	assert_int_equal(out.size_bytes, 5);
	assert_int_equal(out.mtime, 1005);
	assert_string_equal(out.etag, "e1");
	assert_string_equal(out.storage_class, "STANDARD");
	assert_false(meta_get(m, "a", 99, &out));
	assert_false(meta_get(m, "a/b/", 99, &out));
	assert_false(meta_get(m, "", 99, &out));
	assert_null(meta_free(m));
	assert_null(meta_free(NULL));
}

static void nothing_there_and_a_directory_are_knowledge_too(void **state)
{
	struct meta_record none = { .kind = META_NONE }, dir = { .kind = META_DIR }, out;
	struct meta *m = meta_new(1 << 20);

	meta_put(m, "gone", &none, 100);
	meta_put(m, "", &dir, 100);
	assert_true(meta_get(m, "gone", 1, &out));
	assert_int_equal(out.kind, META_NONE);
	assert_true(meta_get(m, "", 1, &out));
	assert_int_equal(out.kind, META_DIR);
	assert_string_equal(out.etag, "");
	meta_free(m);
}

static void knowledge_ends_with_its_time(void **state)
{
	struct meta_record in = file(5, "e"), out;
	struct meta *m = meta_new(1 << 20);

	meta_put(m, "k", &in, 100);
	assert_true(meta_get(m, "k", 99, &out));
	assert_false(meta_get(m, "k", 100, &out));
	assert_false(meta_get(m, "k", 101, &out));
	meta_put(m, "k", &in, 200);
	assert_true(meta_get(m, "k", 199, &out));
	meta_put(m, "k", &in, 50);
	assert_false(meta_get(m, "k", 60, &out));
	meta_free(m);
}

static void the_newer_record_replaces_the_older(void **state)
{
	struct meta_record a = file(1, "first"), b = file(2, "a much longer second one"), none = { .kind = META_NONE },
			   out;
	struct meta *m = meta_new(1 << 20);

	meta_put(m, "k", &a, 100);
	meta_put(m, "k", &b, 100);
	assert_true(meta_get(m, "k", 0, &out));
	assert_int_equal(out.size_bytes, 2);
	assert_string_equal(out.etag, "a much longer second one");
	meta_put(m, "k", &none, 100);
	assert_true(meta_get(m, "k", 0, &out));
	assert_int_equal(out.kind, META_NONE);
	assert_string_equal(out.etag, "");
	meta_drop(m, "k");
	assert_false(meta_get(m, "k", 0, &out));
	meta_drop(m, "k");
	meta_free(m);
}

static void the_oldest_go_first_when_it_is_full(void **state)
{
	struct meta_record in = file(1, "0123456789abcdef0123456789abcdef"), out;
	struct meta *m = meta_new(100000);
	unsigned oldest = 0;
	char path[32];

	for (unsigned i = 0; i < 10000; i++) {
		snprintf(path, sizeof(path), "dir/%06u", i);
		in.size_bytes = i;
		meta_put(m, path, &in, 100);
	}
	while (snprintf(path, sizeof(path), "dir/%06u", oldest), !meta_get(m, path, 0, &out))
		oldest++;
	/* Between 70 and 400 bytes each. */
	assert_in_range(10000 - oldest, 250, 1400);
	for (unsigned i = oldest; i < 10000; i++) {
		snprintf(path, sizeof(path), "dir/%06u", i);
		assert_true(meta_get(m, path, 0, &out));
		assert_int_equal(out.size_bytes, i);
	}
	/* Put again, it is young again. */
	snprintf(path, sizeof(path), "dir/%06u", oldest);
	meta_put(m, path, &in, 100);
	meta_put(m, "one more", &in, 100);
	assert_true(meta_get(m, path, 0, &out));
	snprintf(path, sizeof(path), "dir/%06u", oldest + 1);
	assert_false(meta_get(m, path, 0, &out));
	meta_free(m);
}

static void one_record_fits_into_the_smallest_table(void **state)
{
	struct meta_record in = file(1, "e"), out;
	struct meta *m = meta_new(1);

	meta_put(m, "a", &in, 100);
	assert_true(meta_get(m, "a", 0, &out));
	meta_put(m, "b", &in, 100);
	assert_false(meta_get(m, "a", 0, &out));
	assert_true(meta_get(m, "b", 0, &out));
	meta_free(m);
}

static void the_longest_names_fit(void **state)
{
	struct meta_record in = file(1, ""), out;
	struct meta *m = meta_new(1 << 20);
	char path[1025];

	memset(path, 'p', 1024);
	path[1024] = '\0';
	memset(in.etag, 'e', sizeof(in.etag) - 1);
	memset(in.storage_class, 'c', sizeof(in.storage_class) - 1);
	meta_put(m, path, &in, 100);
	assert_true(meta_get(m, path, 0, &out));
	assert_string_equal(out.etag, in.etag);
	assert_string_equal(out.storage_class, in.storage_class);
	path[1023] = 'q';
	assert_false(meta_get(m, path, 0, &out));
	meta_free(m);
}

static void *use(void *arg)
{
	struct meta *m = *(struct meta **)arg;
	struct meta_record in, out;
	char path[16];

	for (unsigned i = 0; i < 20000; i++) {
		unsigned n = i * 7919 % 100;

		snprintf(path, sizeof(path), "%u", n);
		in = file(n, path);
		if (i % 5 == 0)
			meta_put(m, path, &in, 100);
		else if (i % 97 == 0)
			meta_drop(m, path);
		else if (meta_get(m, path, 0, &out) && (out.size_bytes != n || strcmp(out.etag, path) != 0))
			return m;
	}
	return NULL;
}

static void threads_see_whole_records(void **state)
{
	struct meta *m = meta_new(4000);
	pthread_t thread[4];
	void *bad;

	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, use, &m);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], &bad);
		assert_null(bad);
	}
	meta_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_found),
		cmocka_unit_test(nothing_there_and_a_directory_are_knowledge_too),
		cmocka_unit_test(knowledge_ends_with_its_time),
		cmocka_unit_test(the_newer_record_replaces_the_older),
		cmocka_unit_test(the_oldest_go_first_when_it_is_full),
		cmocka_unit_test(one_record_fits_into_the_smallest_table),
		cmocka_unit_test(the_longest_names_fit),
		cmocka_unit_test(threads_see_whole_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
