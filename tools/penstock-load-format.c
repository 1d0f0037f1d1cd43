// SPDX-License-Identifier: Apache-2.0
/*
 * Weight files: lists of tensors, their kinds, and the safetensors format.
 */
#include <endian.h>
#include <jansson.h>
#include <string.h>

#include "penstock-load-format.h"

#define HEADER_MAX_BYTES (100ull << 20)

const struct dtype_info dtypes[DTYPE_COUNT] = {
	[DTYPE_F32] = { "F32", "FloatStorage", 4, 0 },
	[DTYPE_BF16] = { "BF16", "BFloat16Storage", 2, 30 },
	/* Neither of the others has a storage or a plain type for it. */
	[DTYPE_F8] = { "F8_E4M3", "ByteStorage", 1, 24 },
	[DTYPE_U8] = { "U8", "ByteStorage", 1, 24 },
};

/* --- lists --- */

int tensors_add(struct tensors *t, const struct tensor *item)
{
	struct tensor *more = t->item;
	char *name = strdup(item->name);

	/* Room for a power of two. */
	if (name && !(t->nr & (t->nr - 1)))
		more = reallocarray(t->item, t->nr ? 2 * t->nr : 1, sizeof(*more));
	if (!name || !more) {
		free(name);
		return -ENOMEM;
	}
	t->item = more;
	t->item[t->nr] = *item;
	t->item[t->nr++].name = name;
	return 0;
}

void tensors_done(struct tensors *t)
{
	for (size_t i = 0; i < t->nr; i++)
		free(t->item[i].name);
	free(t->item);
	*t = (struct tensors){};
}

static int offset_compare(const void *a, const void *b)
{
	const struct tensor *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int name_compare(const void *a, const void *b)
{
	const struct tensor *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int dtype_compare(const void *a, const void *b)
{
	const struct tensor *x = a, *y = b;

	return x->dtype != y->dtype ? (int)x->dtype - (int)y->dtype : strcmp(x->name, y->name);
}

static void tensors_sort(struct tensors *t, int (*compare)(const void *a, const void *b))
{
	if (t->nr)
		qsort(t->item, t->nr, sizeof(*t->item), compare);
}

void tensors_sort_by_offset(struct tensors *t)
{
	tensors_sort(t, offset_compare);
}

void tensors_sort_by_name(struct tensors *t)
{
	tensors_sort(t, name_compare);
}

/* --- kinds --- */

int format_kind_of(const char *path, enum load_kind *ret)
{
	static const struct {
		const char *tail;
		enum load_kind kind;
	} kinds[] = {
		{ ".safetensors", KIND_SAFETENSORS },
		{ ".gguf", KIND_GGUF },
		{ ".bin", KIND_TORCH },
		{ ".pt", KIND_TORCH },
		{ ".pth", KIND_TORCH },
	};
	size_t len = strlen(path);

	for (size_t i = 0; i < array_len(kinds); i++) {
		size_t n = strlen(kinds[i].tail);

		if (len > n && !strcmp(path + len - n, kinds[i].tail)) {
			*ret = kinds[i].kind;
			return 0;
		}
	}
	return -ENOEXEC;
}

bool format_is_plain(struct load_file *f, enum load_kind kind)
{
	unsigned char head[9];

	if (f->size_bytes < sizeof(head) || load_bytes(NULL, f, 0, sizeof(head), head))
		return true;
	return kind == KIND_SAFETENSORS ? head[8] != '{' : memcmp(head, kind == KIND_GGUF ? "GGUF" : "PK\3\4", 4) != 0;
}

int format_tensors_read(struct load_worker *w, struct load_file *f, struct tensors *ret, struct err *e)
{
	enum load_kind kind;
	int rc = format_kind_of(f->path, &kind);

	*ret = (struct tensors){};
	if (!rc)
		rc = kind == KIND_SAFETENSORS ? safetensors_read(w, f, ret)
		   : kind == KIND_GGUF        ? gguf_read(w, f, ret)
					      : torch_read(w, f, ret);
	if (rc) {
		tensors_done(ret);
		return err_set(e, rc, "cannot find the tensors of %s: %s", f->path,
			       rc == -EBADMSG ? "its header is broken" : strerror(-rc));
	}
	tensors_sort_by_offset(ret);
	return 0;
}

/* --- safetensors --- */

static int tensor_parse(struct tensors *ret, const char *name, json_t *json, uint64_t data_start, uint64_t size_bytes)
{
	json_t *range = json_object_get(json, "data_offsets"), *shape = json_object_get(json, "shape");
	json_int_t first = json_integer_value(json_array_get(range, 0));
	json_int_t last = json_integer_value(json_array_get(range, 1));
	size_t dims = json_array_size(shape);
	struct tensor t = { .name = (char *)name, .rows = 1 };

	if (json_array_size(range) != 2 || first < 0 || last < first || (uint64_t)last > size_bytes - data_start)
		return -EBADMSG;
	t.offset = data_start + (uint64_t)first;
	t.len_bytes = (uint64_t)(last - first);
	if (dims > 1)
		t.columns = (uint64_t)json_integer_value(json_array_get(shape, dims - 1));
	for (size_t i = 0; i + (dims > 1) < dims; i++)
		t.rows *= (uint64_t)json_integer_value(json_array_get(shape, i));
	return tensors_add(ret, &t);
}

int safetensors_read(struct load_worker *w, struct load_file *f, struct tensors *ret)
{
	_cleanup_free_ char *text = NULL;
	json_t *header, *value;
	const char *name;
	uint64_t len = 0;
	int rc = f->size_bytes < sizeof(len) ? -EBADMSG : load_bytes(w, f, 0, sizeof(len), &len);

	len = le64toh(len);
	if (!rc && (len > HEADER_MAX_BYTES || len > f->size_bytes - sizeof(len)))
		rc = -EBADMSG;
	if (rc)
		return rc;
	text = malloc(len + 1);
	rc = text ? load_bytes(w, f, sizeof(len), (size_t)len, text) : -ENOMEM;
	if (rc)
		return rc;
	header = json_loadb(text, (size_t)len, 0, NULL);
	rc = json_is_object(header) ? 0 : -EBADMSG;
	json_object_foreach(header, name, value)
	{
		if (!rc && strcmp(name, "__metadata__"))
			rc = tensor_parse(ret, name, value, sizeof(len) + len, f->size_bytes);
	}
	json_decref(header);
	return rc;
}

/* Offsets count from the end of the header. */
static json_t *header_make(struct tensors *t)
{
	json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
	uint64_t offset = 0;
	int rc = header ? 0 : -ENOMEM;

	for (size_t i = 0; i < t->nr && !rc; i++) {
		struct tensor *x = &t->item[i];
		json_t *shape = x->columns ? json_pack("[I,I]", (json_int_t)x->rows, (json_int_t)x->columns)
					   : json_pack("[I]", (json_int_t)x->rows);

		x->offset = offset;
		offset += x->len_bytes;
		rc = json_object_set_new(header, x->name,
					 json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtypes[x->dtype].safetensors,
						   "shape", shape, "data_offsets", (json_int_t)x->offset,
						   (json_int_t)offset));
	}
	if (!rc)
		return header;
	json_decref(header);
	return NULL;
}

/* 8 bytes of length, the header as JSON padded with spaces to 8 bytes, then the tensors in their writer's order. */
int safetensors_write(struct sink *s, struct tensors *t)
{
	_cleanup_free_ char *text = NULL;
	json_t *header;
	size_t len, padded;
	uint64_t le_len;
	int rc;

	tensors_sort(t, dtype_compare);
	header = header_make(t);
	text = header ? json_dumps(header, JSON_COMPACT) : NULL;
	json_decref(header);
	if (!text)
		return -ENOMEM;
	len = strlen(text);
	padded = (len + 7) & ~7ul;
	le_len = htole64(padded);
	rc = sink_bytes(s, &le_len, sizeof(le_len));
	if (!rc)
		rc = sink_bytes(s, text, len);
	if (!rc)
		rc = sink_pad(s, ' ', 8 + padded);
	for (size_t i = 0; i < t->nr && !rc; i++) {
		t->item[i].offset = s->offset;
		rc = sink_content(s, t->item[i].len_bytes);
	}
	return rc;
}
