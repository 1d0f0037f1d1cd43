// SPDX-License-Identifier: Apache-2.0
/*
 * The frame around the parsers of weight formats: what to ask for, when to give up, and the finished plan.
 *
 * Design: a parser is a position and a list. A step parses one entry (a tensor, a string of an array) from the bytes
 * at the position; when they end too early nothing has changed, and a larger piece is asked for from there. So no
 * header is ever kept, and what is not wanted, such as a vocabulary, is jumped over.
 */
#define _GNU_SOURCE
#include "prefetch/format_i.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define LIST_FIRST_NR 64
#define NAMES_FIRST_BYTES 4096

int format_list_add(struct format_list *l, const void *name, size_t name_len, uint64_t offset, uint64_t len,
		    struct err *e)
{
	if (name_len > FORMAT_NAME_MAX_BYTES || memchr(name, 0, name_len))
		return err_set(e, -EBADMSG, "tensor %u has a name that is longer than %d bytes or holds a zero", l->nr,
			       FORMAT_NAME_MAX_BYTES);
	if (l->nr == FORMAT_TENSORS_MAX)
		return err_set(e, -E2BIG, "it has more than %u tensors", FORMAT_TENSORS_MAX);
	if (l->names_len + name_len + 1 > FORMAT_NAMES_MAX_BYTES)
		return err_set(e, -E2BIG, "the names of its tensors take more than %u bytes", FORMAT_NAMES_MAX_BYTES);
	if (l->nr == l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : LIST_FIRST_NR;
		void *item = realloc(l->item, cap * sizeof(*l->item));

		if (!item)
			return err_set(e, -ENOMEM, "no memory for %u tensors", cap);
		l->item = item;
		l->cap = cap;
	}
	if (l->names_len + name_len + 1 > l->names_cap) {
		size_t cap = max_of(l->names_cap * 2, (size_t)NAMES_FIRST_BYTES);
		char *names = realloc(l->names, max_of(cap, l->names_len + name_len + 1));

		if (!names)
			return err_set(e, -ENOMEM, "no memory for the names of the tensors");
		l->names = names;
		l->names_cap = max_of(cap, l->names_len + name_len + 1);
	}
	l->item[l->nr++] = (struct format_item){ .offset = offset, .len = len, .name = (uint32_t)l->names_len };
	memcpy(l->names + l->names_len, name, name_len);
	l->names_len += name_len;
	l->names[l->names_len++] = '\0';
	return 0;
}

void format_list_done(struct format_list *l)
{
	free(l->item);
	free(l->names);
	*l = (struct format_list){ 0 };
}

static int item_compare(const void *a, const void *b)
{
	const struct format_item *x = a, *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	if (x->len != y->len)
		return x->len < y->len ? -1 : 1;
	return x->name < y->name ? -1 : x->name > y->name;
}

void format_list_sort(struct format_list *l)
{
	if (l->nr)
		qsort(l->item, l->nr, sizeof(*l->item), item_compare);
}

struct name_order {
	const struct format_list *list;
	int (*compare)(const char *, const char *);
};

static int name_compare(const void *a, const void *b, void *arg)
{
	const struct name_order *by = arg;
	const struct format_list *l = by->list;

	return by->compare(l->names + l->item[*(const uint32_t *)a].name,
			   l->names + l->item[*(const uint32_t *)b].name);
}

int format_list_order(const struct format_list *l, int (*compare)(const char *, const char *), uint32_t **ret_order,
		      const char **ret_twice)
{
	struct name_order by = { .list = l, .compare = compare };
	uint32_t *order = calloc(l->nr ? l->nr : 1, sizeof(*order));

	*ret_twice = NULL;
	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->nr; i++)
		order[i] = i;
	qsort_r(order, l->nr, sizeof(*order), name_compare, &by);
	for (uint32_t i = 1; i < l->nr && !*ret_twice; i++) {
		if (compare(l->names + l->item[order[i - 1]].name, l->names + l->item[order[i]].name) == 0)
			*ret_twice = l->names + l->item[order[i]].name;
	}
	*ret_order = order;
	return 0;
}

static void cleanup_plan(struct format_plan **plan)
{
	format_plan_free(*plan);
}

static int plan_new(const struct format_list *l, uint64_t file_bytes, struct format_range head,
		    struct format_plan **ret_plan)
{
	_cleanup_(cleanup_plan) struct format_plan *plan = calloc(1, sizeof(*plan));

	if (!plan)
		return -ENOMEM;
	plan->file_bytes = file_bytes;
	plan->head = head;
	plan->nr = l->nr;
	plan->tensor = calloc(l->nr ? l->nr : 1, sizeof(*plan->tensor));
	plan->name_rank = calloc(l->nr ? l->nr : 1, sizeof(*plan->name_rank));
	if (!plan->tensor || !plan->name_rank)
		return -ENOMEM;
	for (uint32_t i = 0; i < l->nr; i++)
		plan->tensor[i] = (struct format_range){ .offset = l->item[i].offset, .len = l->item[i].len };
	*ret_plan = take_ptr(plan);
	return 0;
}

int format_list_finish(struct format_parser *p, struct format_range head, uint64_t end, struct err *e)
{
	_cleanup_(cleanup_plan) struct format_plan *plan = NULL;
	struct format_list *l = &p->list;
	const char *twice = NULL;
	int rc;

	for (uint32_t i = 0; i < l->nr; i++) {
		struct format_item *it = &l->item[i];
		uint64_t next = i + 1 < l->nr ? l->item[i + 1].offset : end;

		if (it->offset > next)
			return err_set(e, -EBADMSG, "a tensor begins past the end of the file, which may be truncated");
		if (it->len == FORMAT_LEN_UNKNOWN)
			it->len = next - it->offset;
		if (it->len > next - it->offset)
			return err_set(e, -EBADMSG, "a tensor reaches into the next one or past the end of the file");
	}
	rc = plan_new(l, p->file_bytes, head, &plan);
	if (rc == 0)
		rc = format_list_order(l, p->kind == FORMAT_TORCH ? format_name_compare : strcmp, &plan->by_name,
				       &twice);
	if (rc < 0)
		return err_set(e, rc, "no memory for a plan of %u tensors", l->nr);
	if (twice)
		return err_set(e, -EBADMSG, "two tensors have the same name");
	for (uint32_t i = 0; i < plan->nr; i++)
		plan->name_rank[plan->by_name[i]] = i;
	format_list_done(l);
	p->plan = take_ptr(plan);
	return 1;
}

void format_plan_free(struct format_plan *plan)
{
	if (!plan)
		return;
	free(plan->tensor);
	free(plan->by_name);
	free(plan->name_rank);
	free(plan);
}

int format_parser_new(enum format_kind kind, uint64_t file_bytes, struct format_parser **ret_parser, struct err *e)
{
	struct format_parser *p;

	if (kind != FORMAT_SAFETENSORS && kind != FORMAT_GGUF && kind != FORMAT_TORCH)
		return err_set(e, -ENOEXEC, "this kind of file has no plan of its tensors");
	if (file_bytes < 10 || file_bytes > INT64_MAX)
		return err_set(e, -ENOEXEC, "a file of %llu bytes is no weight file", (unsigned long long)file_bytes);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "no memory for a parser");
	p->kind = kind;
	p->file_bytes = p->limit = file_bytes;
	p->piece = FORMAT_FIRST_PIECE_BYTES;
	if (kind == FORMAT_TORCH)
		zip_begin(p);
	*ret_parser = p;
	return 0;
}

void format_parser_free(struct format_parser *p)
{
	if (!p)
		return;
	format_list_done(&p->list);
	format_plan_free(p->plan);
	free(p);
}

struct format_range format_parser_need(const struct format_parser *p)
{
	return (struct format_range){ .offset = p->pos, .len = min_of(p->piece, p->limit - p->pos) };
}

static int parser_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	switch (p->kind) {
	case FORMAT_SAFETENSORS:
		return safetensors_step(p, bytes, len, e);
	case FORMAT_GGUF:
		return gguf_step(p, bytes, len, e);
	default:
		return zip_step(p, bytes, len, e);
	}
}

int format_parser_feed(struct format_parser *p, uint64_t offset, const void *bytes, size_t len, struct err *e)
{
	bool fed = false;

	while (!p->plan && p->pos >= offset && p->pos - offset < len) {
		size_t skip = (size_t)(p->pos - offset);
		size_t avail = (size_t)min_of((uint64_t)(len - skip), p->limit - p->pos);
		int rc = parser_step(p, (const uint8_t *)bytes + skip, avail, e);

		fed = true;
		if (rc == -EAGAIN) {
			if (avail == p->limit - p->pos)
				return err_set(e, -EBADMSG, "its header ends in the middle of an entry");
			if (avail >= FORMAT_PIECE_MAX_BYTES)
				return err_set(e, -E2BIG, "an entry of its header is larger than %u bytes",
					       FORMAT_PIECE_MAX_BYTES);
			break;
		}
		if (rc < 0)
			return rc;
		if (rc == 0 && p->pos >= p->limit)
			return err_set(e, -EBADMSG, "its header ends too early");
	}
	if (fed)
		p->piece = min_of(p->piece * 4, (uint64_t)FORMAT_PIECE_MAX_BYTES);
	return p->plan ? 1 : 0;
}

struct format_plan *format_parser_take(struct format_parser *p)
{
	return take_ptr(p->plan);
}
