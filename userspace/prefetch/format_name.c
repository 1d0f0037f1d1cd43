// SPDX-License-Identifier: Apache-2.0
/* What names tell: their natural order, which files hold weights, and whether a directory is one model. */
#define _GNU_SOURCE
#include "prefetch/format.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Compares two numbers of any length and moves past them. */
static int number_compare(const char **a, const char **b)
{
	size_t len_a, len_b;
	int order;

	while (**a == '0')
		(*a)++;
	while (**b == '0')
		(*b)++;
	len_a = strspn(*a, "0123456789");
	len_b = strspn(*b, "0123456789");
	order = len_a != len_b ? (len_a < len_b ? -1 : 1) : strncmp(*a, *b, len_a);
	*a += len_a;
	*b += len_b;
	return order;
}

int format_name_compare(const char *a, const char *b)
{
	const char *x = a, *y = b;

	while (*x && *y) {
		if (is_digit(*x) && is_digit(*y)) {
			int order = number_compare(&x, &y);

			if (order)
				return order;
		} else if (*x == *y) {
			x++;
			y++;
		} else {
			break;
		}
	}
	if (*x != *y)
		return (unsigned char)*x < (unsigned char)*y ? -1 : 1;
	/* Only their leading zeros differ. */
	return strcmp(a, b);
}

static bool ends_with(const char *name, const char *end)
{
	size_t len = strlen(name), end_len = strlen(end);

	return len > end_len && strcasecmp(name + len - end_len, end) == 0;
}

static const struct {
	const char *end;
	enum format_kind kind;
} endings[] = {
	{ ".safetensors", FORMAT_SAFETENSORS },
	{ ".gguf", FORMAT_GGUF },
	{ ".bin", FORMAT_TORCH },
	{ ".pt", FORMAT_TORCH },
	{ ".pth", FORMAT_TORCH },
	{ ".ckpt", FORMAT_TORCH },
	{ ".onnx", FORMAT_ONNX },
	{ ".onnx_data", FORMAT_ONNX },
	{ ".onnx.data", FORMAT_ONNX },
};

static bool is_training_state(const char *name)
{
	static const char *const begins[] = { "training_args.", "optimizer.", "scheduler.", "rng_state", "scaler." };

	for (size_t i = 0; i < array_len(begins); i++) {
		if (strncmp(name, begins[i], strlen(begins[i])) == 0)
			return true;
	}
	return false;
}

enum format_kind format_kind_of_name(const char *name)
{
	/* The variant may stand in between: "model.safetensors.index.fp16.json". */
	if (ends_with(name, ".json"))
		return strstr(name, ".safetensors.index.") || strstr(name, ".bin.index.") ? FORMAT_INDEX : FORMAT_NONE;
	for (size_t i = 0; i < array_len(endings); i++) {
		if (!ends_with(name, endings[i].end))
			continue;
		return endings[i].kind == FORMAT_TORCH && is_training_state(name) ? FORMAT_NONE : endings[i].kind;
	}
	return FORMAT_NONE;
}

/* Numbers count as one: the files of a set have names that differ in nothing else. */
static bool same_set(const char *a, const char *b)
{
	while (*a && *b) {
		if (is_digit(*a) && is_digit(*b)) {
			a += strspn(a, "0123456789");
			b += strspn(b, "0123456789");
		} else if (*a++ != *b++) {
			return false;
		}
	}
	return *a == *b;
}

/* "X-00001-of-00004.END" and "consolidated.00.pth"; "llama-7b.gguf" and "llama-13b.gguf" are two models. */
static bool is_numbered(const char *name)
{
	const char *of = strstr(name, "-of-"), *dot;

	if (of && of > name && is_digit(of[-1]) && is_digit(of[4]))
		return true;
	dot = strstr(name, "consolidated.");
	return dot == name && is_digit(name[strlen("consolidated.")]);
}

static int place_compare(const void *a, const void *b, void *arg)
{
	const char *const *name = arg;

	return format_name_compare(name[*(const uint32_t *)a], name[*(const uint32_t *)b]);
}

/* The kind of the weights that a loader would take, and the index file of that kind. */
static enum format_kind choose_kind(const char *const *name, size_t nr, int64_t *ret_index, bool *ret_config)
{
	bool has[FORMAT_INDEX + 1] = { false };
	enum format_kind kind = FORMAT_SAFETENSORS, by_index = FORMAT_NONE;

	*ret_index = -1;
	*ret_config = false;
	for (size_t i = 0; i < nr; i++) {
		enum format_kind of = format_kind_of_name(name[i]);
		bool safe = strstr(name[i], ".safetensors.");

		has[of] = true;
		*ret_config |= strcmp(name[i], "config.json") == 0;
		if (of != FORMAT_INDEX || (*ret_index >= 0 && (by_index == FORMAT_SAFETENSORS || !safe)))
			continue;
		*ret_index = (int64_t)i;
		by_index = safe ? FORMAT_SAFETENSORS : FORMAT_TORCH;
	}
	while (kind <= FORMAT_ONNX && !has[kind])
		kind++;
	/* An index of pickles beside whole safetensors is the older copy. */
	if (by_index == FORMAT_SAFETENSORS || (by_index == FORMAT_TORCH && !has[FORMAT_SAFETENSORS]))
		return by_index;
	*ret_index = -1;
	return kind <= FORMAT_ONNX ? kind : FORMAT_NONE;
}

/* Weight files that belong together without an index that says so. */
static bool is_one_set(const char *const *name, const struct format_model *m, enum format_kind kind, bool has_config)
{
	size_t nr_graphs = 0;
	bool one = true;

	if (m->nr == 1)
		return true;
	for (size_t i = 0; i < m->nr; i++) {
		nr_graphs += ends_with(name[m->file[i]], ".onnx");
		one &= is_numbered(name[m->file[i]]) && same_set(name[m->file[0]], name[m->file[i]]);
	}
	/* A graph has its data beside it; several, like several GGUF files, are mostly one model in many sizes. */
	if (kind == FORMAT_ONNX)
		return nr_graphs == 1;
	return one || (has_config && kind != FORMAT_GGUF);
}

int format_model_find(const char *const *name, size_t nr, struct format_model *ret_model)
{
	struct format_model m = { 0 };
	bool has_config;
	enum format_kind kind = choose_kind(name, nr, &m.index, &has_config);

	*ret_model = (struct format_model){ .index = -1 };
	if (kind == FORMAT_NONE || nr > UINT32_MAX)
		return -ENOENT;
	m.file = calloc(nr, sizeof(*m.file));
	if (!m.file)
		return -ENOMEM;
	for (size_t i = 0; i < nr; i++) {
		if (format_kind_of_name(name[i]) == kind)
			m.file[m.nr++] = (uint32_t)i;
	}
	if (m.index < 0 && !is_one_set(name, &m, kind, has_config)) {
		free(m.file);
		return -ENOENT;
	}
	qsort_r(m.file, m.nr, sizeof(*m.file), place_compare, (void *)name);
	*ret_model = m;
	return 0;
}

void format_model_done(struct format_model *m)
{
	free(m->file);
	*m = (struct format_model){ .index = -1 };
}
