// SPDX-License-Identifier: Apache-2.0
/* The intrusive list. */
#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "base/list.h"

struct item {
	int n;
	struct list link;
};

static struct list head;
static struct item item[8];

static int fresh(void **state)
{
	list_init(&head);
	for (int i = 0; i < 8; i++) {
		item[i].n = i;
		list_init(&item[i].link);
	}
	return 0;
}

/* The list holds exactly the digits of <want>, in both directions. */
static void check_list(const struct list *l, const char *want)
{
	const char *p = want;
	size_t len = strlen(want);
	const struct list *back;

	list_for_each(n, (struct list *)l)
		assert_int_equal(list_entry(n, struct item, link)->n, *p++ - '0');
	assert_int_equal(*p, '\0');
	for (back = l->prev; back != l; back = back->prev)
		assert_int_equal(list_entry(back, struct item, link)->n, want[--len] - '0');
	assert_int_equal(len, 0);
	assert_int_equal(list_empty(l), !want[0]);
}

static void nodes_come_out_in_the_order_of_the_pushes(void **state)
{
	check_list(&head, "");
	assert_null(list_pop_front(&head));
	list_push_back(&head, &item[1].link);
	list_push_back(&head, &item[2].link);
	list_push_front(&head, &item[0].link);
	check_list(&head, "012");
	list_insert_after(&item[1].link, &item[5].link);
	check_list(&head, "0152");
	assert_ptr_equal(list_pop_front(&head), &item[0].link);
	check_list(&head, "152");
}

static void a_deleted_node_is_alone_and_may_be_deleted_again(void **state)
{
	for (int i = 0; i < 4; i++)
		list_push_back(&head, &item[i].link);
	list_del(&item[1].link);
	assert_true(list_empty(&item[1].link));
	list_del(&item[1].link);
	list_del(&item[3].link);
	list_del(&item[0].link);
	check_list(&head, "2");
	list_push_front(&head, &item[1].link);
	check_list(&head, "12");
	while (list_pop_front(&head))
		;
	check_list(&head, "");
}

static void a_splice_moves_all_to_the_end(void **state)
{
	struct list from;

	list_init(&from);
	list_splice_back(&head, &from);
	check_list(&head, "");
	list_push_back(&from, &item[3].link);
	list_push_back(&from, &item[4].link);
	list_splice_back(&head, &from);
	check_list(&from, "");
	check_list(&head, "34");
	list_push_back(&from, &item[5].link);
	list_splice_back(&head, &from);
	list_splice_back(&head, &from);
	check_list(&head, "345");
}

static void a_safe_walk_survives_deletion(void **state)
{
	for (int i = 0; i < 6; i++)
		list_push_back(&head, &item[i].link);
	list_for_each_safe(n, tmp, &head) {
		if (list_entry(n, struct item, link)->n % 2 == 0)
			list_del(n);
	}
	check_list(&head, "135");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(nodes_come_out_in_the_order_of_the_pushes, fresh),
		cmocka_unit_test_setup(a_deleted_node_is_alone_and_may_be_deleted_again, fresh),
		cmocka_unit_test_setup(a_splice_moves_all_to_the_end, fresh),
		cmocka_unit_test_setup(a_safe_walk_survives_deletion, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
