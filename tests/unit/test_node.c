// SPDX-License-Identifier: Apache-2.0
/* The table of nodes: ids that name a version, and lives that end with FORGET and the last close. */
#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "fs/node.h"

static struct cache *cache;
static struct node_table *t;

static void no_submit(void *ctx, struct s3_get *g)
{
	fail_msg("a node needs no data");
}

static void no_promote(void *ctx, struct s3_op *op)
{
}

static int table_make(void **state)
{
	struct cache_config cfg = {
		.budget_bytes = 1 << 20,
		.read_deadline_ns = NSEC_PER_SEC,
		.source = { .submit = no_submit, .promote = no_promote },
	};

	cache = cache_new(&cfg);
	t = cache ? node_table_new(cache) : NULL;
	return !t;
}

static int table_free(void **state)
{
	t = node_table_free(t);
	cache = cache_free(cache);
	return 0;
}

static struct meta_record file(const char *etag, uint64_t size, time_t mtime)
{
	struct meta_record r = { .kind = META_FILE, .size_bytes = size, .mtime = mtime };

	snprintf(r.etag, sizeof(r.etag), "%s", etag);
	snprintf(r.storage_class, sizeof(r.storage_class), "STANDARD");
	return r;
}

static const struct meta_record dir = { .kind = META_DIR };

/* A restarted daemon must come to the same ids: their values are fixed. */
static void an_id_is_the_same_after_a_restart(void **state)
{
	struct meta_record a = file("e1", 123, 7), no_etag = file("", 123, 7);

	assert_true(node_id("models/a", &a) == 0xe256b172490838e2);
	assert_true(node_id("models", &dir) == 0x2fde313a61637d0e);
	assert_true(node_id("models/a", &no_etag) == 0x6e26f1dc68ed9a8e);
}

static void an_id_names_path_and_version(void **state)
{
	struct meta_record a = file("e1", 123, 7);
	struct meta_record others[] = { file("e2", 123, 7), file("e1", 124, 7), dir };
	struct node *n = node_lookup(t, "models/a", &a), *again, *other;

	assert_non_null(n);
	again = node_lookup(t, "models/a", &a);
	assert_ptr_equal(n, again);
	assert_int_equal(n->nr_lookups, 2);
	a.mtime = 8; /* a copy may say it less precisely */
	assert_ptr_equal(node_lookup(t, "models/a", &a), n);
	assert_ptr_not_equal(node_lookup(t, "models/b", &a), n);
	for (size_t i = 0; i < array_len(others); i++) {
		other = node_lookup(t, "models/a", &others[i]);
		assert_true(other != n && other->id != n->id);
		assert_ptr_equal(node_get(t, other->id), other);
	}
	assert_int_equal(node_count(t), 5);
}

static void without_an_etag_the_time_names_the_version(void **state)
{
	struct meta_record a = file("", 123, 7), b = file("", 123, 8);

	assert_ptr_not_equal(node_lookup(t, "k", &a), node_lookup(t, "k", &b));
	assert_ptr_equal(node_lookup(t, "k", &a), node_lookup(t, "k", &a));
}

static void a_node_gives_back_its_record(void **state)
{
	struct meta_record in = file("e1", 123, 7), out;
	struct node *n = node_lookup(t, "a/b c", &in);

	node_record(n, &out);
	assert_int_equal(out.kind, META_FILE);
	assert_int_equal(out.size_bytes, 123);
	assert_int_equal(out.mtime, 7);
	assert_string_equal(out.etag, "e1");
	assert_string_equal(out.storage_class, "STANDARD");
	assert_string_equal(node_path(n), "a/b c");
	assert_string_equal(node_etag(n), "e1");
	assert_string_equal(node_class(n), "STANDARD");
}

static void the_root_is_always_there(void **state)
{
	struct node *root = node_get(t, NODE_ROOT_ID);

	assert_non_null(root);
	assert_int_equal(root->kind, META_DIR);
	assert_string_equal(node_path(root), "");
	node_forget(t, NODE_ROOT_ID, 100);
	assert_ptr_equal(node_get(t, NODE_ROOT_ID), root);
	assert_int_equal(node_dir_id(t, ""), NODE_ROOT_ID);
	assert_int_equal(node_count(t), 0);
}

static void a_directory_is_found_by_its_path(void **state)
{
	struct meta_record f = file("e", 1, 1);
	struct node *d;

	node_lookup(t, "x", &f);
	assert_int_equal(node_dir_id(t, "x"), 0);
	d = node_lookup(t, "x", &dir);
	assert_true(node_dir_id(t, "x") == d->id);
	node_forget(t, d->id, 1);
	assert_int_equal(node_dir_id(t, "x"), 0);
}

static void a_node_is_gone_when_each_lookup_is_forgotten(void **state)
{
	struct meta_record a = file("e", 1, 1);
	uint64_t id = 0;

	for (int i = 0; i < 5; i++)
		id = node_lookup(t, "k", &a)->id;
	node_forget(t, id, 3);
	assert_non_null(node_get(t, id));
	node_forget(t, id, 2);
	assert_null(node_get(t, id));
	assert_int_equal(node_count(t), 0);
	node_forget(t, id, 1);
	node_forget(t, 12345, 1);
	/* More than there are, from a kernel that counts wrong. */
	id = node_lookup(t, "k", &a)->id;
	node_forget(t, id, ~0ull);
	assert_null(node_get(t, id));
	assert_null(node_get(t, 0));
}

static void an_open_node_outlives_its_forget(void **state)
{
	struct meta_record a = file("e", 1, 1);
	struct node *n = node_lookup(t, "k", &a);
	uint64_t id = n->id;

	assert_int_equal(node_open(t, n, "p/k"), 0);
	assert_int_equal(node_open(t, n, "p/k"), 1);
	node_forget(t, id, 1);
	assert_ptr_equal(node_get(t, id), n);
	assert_int_equal(node_close(t, n), 1);
	assert_ptr_equal(node_get(t, id), n);
	assert_int_equal(node_close(t, n), 0);
	assert_null(node_get(t, id));
	assert_int_equal(node_count(t), 0);
}

static void a_forgotten_open_node_may_be_looked_up_again(void **state)
{
	struct meta_record a = file("e", 1, 1);
	struct node *n = node_lookup(t, "k", &a);
	uint64_t id = n->id;

	node_open(t, n, "p/k");
	node_forget(t, id, 1);
	assert_ptr_equal(node_lookup(t, "k", &a), n);
	node_close(t, n);
	assert_ptr_equal(node_get(t, id), n);
	node_forget(t, id, 1);
	assert_null(node_get(t, id));
}

static void the_first_open_makes_the_object_and_it_stays(void **state)
{
	struct meta_record a = file("e", 5, 1);
	struct node *n = node_lookup(t, "k", &a);
	struct cache_object *o, *same;

	assert_null(n->object);
	node_open(t, n, "p/k");
	o = n->object;
	assert_non_null(o);
	assert_non_null(n->streams);
	same = cache_object_get(cache, "p/k", "e", 5, 1);
	assert_ptr_equal(o, same);
	cache_object_put(cache, same);
	assert_int_equal(node_close(t, n), 0);
	assert_ptr_equal(n->object, o);
	node_open(t, n, "p/k");
	assert_ptr_equal(n->object, o);
	/* Left open: the table's end frees it. */
}

/* Found by search: with these two sizes, one path has one hash. */
#define TWIN_A 5106395515695646170u
#define TWIN_B 16622292244293806272u

static void two_versions_with_one_hash_get_two_ids(void **state)
{
	struct meta_record a = file("e", TWIN_A, 0), b = file("e", TWIN_B, 0);
	struct node *na, *nb;

	assert_true(node_id("f", &a) == node_id("f", &b));
	na = node_lookup(t, "f", &a);
	nb = node_lookup(t, "f", &b);
	assert_true(na != nb && na->id != nb->id);
	assert_ptr_equal(node_lookup(t, "f", &a), na);
	assert_ptr_equal(node_lookup(t, "f", &b), nb);
	assert_ptr_equal(node_get(t, na->id), na);
	assert_ptr_equal(node_get(t, nb->id), nb);
	assert_true(nb->size_bytes == TWIN_B);
	node_forget(t, na->id, 2);
	assert_ptr_equal(node_get(t, nb->id), nb);
	/* Whatever id it gets now: it is the right version. */
	assert_true(node_lookup(t, "f", &b)->size_bytes == TWIN_B);
	assert_true(node_lookup(t, "f", &a)->size_bytes == TWIN_A);
}

static void many_nodes_are_all_found(void **state)
{
	enum { NR = 20000 };
	static uint64_t id[NR];
	char path[32];

	for (unsigned i = 0; i < NR; i++) {
		struct meta_record a = file("e", i, 1);

		snprintf(path, sizeof(path), "d%u/f%u", i % 10, i);
		id[i] = node_lookup(t, path, &a)->id;
	}
	assert_int_equal(node_count(t), NR);
	for (unsigned i = 0; i < NR; i++) {
		snprintf(path, sizeof(path), "d%u/f%u", i % 10, i);
		assert_string_equal(node_path(node_get(t, id[i])), path);
		assert_int_equal(node_get(t, id[i])->size_bytes, i);
	}
	for (unsigned i = 0; i < NR; i++)
		node_forget(t, id[i], 1);
	assert_int_equal(node_count(t), 0);
}

static void *live(void *arg)
{
	struct node *open = NULL;
	char path[16];

	for (unsigned i = 0; i < 20000; i++) {
		struct meta_record a;
		struct node *n;

		snprintf(path, sizeof(path), "%u", i * 7919 % 20);
		a = file(path, 1, 1);
		n = node_lookup(t, path, &a);
		if (!n || strcmp(node_path(n), path) != 0 || node_get(t, n->id) != n)
			return t;
		/* FORGET and the close in either order. */
		if (i % 3 == 0 && !open && node_open(t, n, path) >= 0)
			open = n;
		if (open && i % 2)
			node_close(t, open);
		node_forget(t, n->id, 1);
		if (open && !(i % 2))
			node_close(t, open);
		open = NULL;
	}
	return NULL;
}

static void threads_end_with_an_empty_table(void **state)
{
	pthread_t thread[4];
	void *bad;

	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, live, NULL);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(node_count(t), 0);
}

#define node_test(f) cmocka_unit_test_setup_teardown(f, table_make, table_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		node_test(an_id_is_the_same_after_a_restart),
		node_test(an_id_names_path_and_version),
		node_test(without_an_etag_the_time_names_the_version),
		node_test(a_node_gives_back_its_record),
		node_test(the_root_is_always_there),
		node_test(a_directory_is_found_by_its_path),
		node_test(a_node_is_gone_when_each_lookup_is_forgotten),
		node_test(an_open_node_outlives_its_forget),
		node_test(a_forgotten_open_node_may_be_looked_up_again),
		node_test(the_first_open_makes_the_object_and_it_stays),
		node_test(two_versions_with_one_hash_get_two_ids),
		node_test(many_nodes_are_all_found),
		node_test(threads_end_with_an_empty_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
