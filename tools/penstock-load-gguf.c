// SPDX-License-Identifier: Apache-2.0
/*
 * GGUF version 3: typed metadata with a tokenizer's arrays, the tensors' table, and data aligned to 32 bytes.
 */
#include <endian.h>
#include <string.h>

#include "base/buf.h"
#include "penstock-load-format.h"

#define GGUF_ALIGN_BYTES 32u
#define GGUF_VERSION 3u
#define GGUF_DIMS_MAX 4u
#define HEADER_MAX_BYTES (256u << 20)
#define HEADER_FIRST_BYTES (1u << 20)
#define NR_TOKENS 32000u

enum { TYPE_U16 = 2, TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_STRING = 8, TYPE_ARRAY = 9, TYPE_COUNT = 13 };

static uint64_t aligned(uint64_t offset)
{
	return (offset + GGUF_ALIGN_BYTES - 1) & ~(uint64_t)(GGUF_ALIGN_BYTES - 1);
}

/* --- reading --- */

struct cursor {
	const unsigned char *p;
	size_t left;
	bool past_end;
};

static const void *taken(struct cursor *c, uint64_t len)
{
	const void *p = c->p;

	if (len > c->left) {
		c->past_end = true;
		return NULL;
	}
	c->p += len;
	c->left -= (size_t)len;
	return p;
}

static uint32_t u32_take(struct cursor *c)
{
	const void *p = taken(c, sizeof(uint32_t));
	uint32_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t u64_take(struct cursor *c)
{
	const void *p = taken(c, sizeof(uint64_t));
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

static const char *string_take(struct cursor *c, uint64_t *ret_len)
{
	*ret_len = u64_take(c);
	return taken(c, *ret_len);
}

/* An array of arrays is not written here, and refused. */
static int value_skip(struct cursor *c, uint32_t type)
{
	static const unsigned char bytes[TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
	uint64_t count = 1, len;

	if (type == TYPE_ARRAY) {
		type = u32_take(c);
		count = u64_take(c);
	}
	if (type >= TYPE_COUNT || type == TYPE_ARRAY)
		return c->past_end ? 0 : -EBADMSG;
	if (type != TYPE_STRING)
		taken(c, count <= UINT64_MAX / 8 ? count * bytes[type] : UINT64_MAX);
	for (; type == TYPE_STRING && count && !c->past_end; count--)
		string_take(c, &len);
	return 0;
}

static int info_parse(struct cursor *c, struct tensors *ret)
{
	uint64_t len, dims[GGUF_DIMS_MAX] = { 1, 1, 1, 1 };
	const char *name = string_take(c, &len);
	uint32_t nr = u32_take(c), type;
	struct tensor t = {};
	char text[256];

	if (nr > GGUF_DIMS_MAX || (name && len >= sizeof(text)))
		return -EBADMSG;
	for (uint32_t i = 0; i < nr; i++)
		dims[i] = u64_take(c);
	type = u32_take(c);
	t.offset = u64_take(c);
	if (c->past_end)
		return 0;
	while (t.dtype < DTYPE_COUNT && dtypes[t.dtype].gguf != type)
		t.dtype++;
	if (t.dtype == DTYPE_COUNT)
		return -EBADMSG;
	memcpy(text, name, len);
	text[len] = '\0';
	t.name = text;
	t.rows = nr > 1 ? dims[1] * dims[2] * dims[3] : dims[0];
	t.columns = nr > 1 ? dims[0] : 0;
	t.len_bytes = dims[0] * dims[1] * dims[2] * dims[3] * dtypes[t.dtype].bytes;
	return tensors_add(ret, &t);
}

/* -EAGAIN: the header is longer. */
static int header_parse(const unsigned char *bytes, size_t len, uint64_t size_bytes, struct tensors *ret)
{
	struct cursor c = { .p = bytes, .left = len };
	uint64_t nr_tensors, nr_values, key_len, data_start;
	const char *magic = taken(&c, 4);
	int rc = 0;

	if (!magic || memcmp(magic, "GGUF", 4) || u32_take(&c) != GGUF_VERSION)
		return -EBADMSG;
	nr_tensors = u64_take(&c);
	nr_values = u64_take(&c);
	for (; nr_values && !rc && !c.past_end; nr_values--) {
		string_take(&c, &key_len);
		rc = value_skip(&c, u32_take(&c));
	}
	for (; nr_tensors && !rc && !c.past_end; nr_tensors--)
		rc = info_parse(&c, ret);
	if (rc || c.past_end)
		return rc ? rc : -EAGAIN;
	data_start = aligned((uint64_t)(c.p - bytes));
	for (size_t i = 0; i < ret->nr; i++) {
		struct tensor *t = &ret->item[i];

		t->offset += data_start;
		if (t->offset > size_bytes || t->len_bytes > size_bytes - t->offset)
			return -EBADMSG;
	}
	return 0;
}

int gguf_read(struct load_worker *w, struct load_file *f, struct tensors *ret)
{
	_cleanup_free_ unsigned char *buf = NULL;
	size_t len = 0, more;
	int rc = -EAGAIN;

	for (size_t want = HEADER_FIRST_BYTES; rc == -EAGAIN && want <= HEADER_MAX_BYTES; want *= 2) {
		void *grown = realloc(buf, want);

		if (!grown)
			return -ENOMEM;
		buf = grown;
		more = (size_t)min_of(want, f->size_bytes) - len;
		if (!more)
			return -EBADMSG;
		rc = load_bytes(w, f, len, more, buf + len);
		if (rc)
			return rc;
		len += more;
		tensors_done(ret);
		rc = header_parse(buf, len, f->size_bytes, ret);
	}
	return rc == -EAGAIN ? -EBADMSG : rc;
}

/* --- writing --- */

static void u32_add(struct buf *b, uint32_t v, int *rc)
{
	v = htole32(v);
	if (!*rc)
		*rc = buf_add(b, &v, sizeof(v));
}

static void u64_add(struct buf *b, uint64_t v, int *rc)
{
	v = htole64(v);
	if (!*rc)
		*rc = buf_add(b, &v, sizeof(v));
}

static void string_add(struct buf *b, const char *s, int *rc)
{
	u64_add(b, strlen(s), rc);
	if (!*rc)
		*rc = buf_add_str(b, s);
}

static void value_add(struct buf *b, const char *key, uint32_t type, uint32_t v, int *rc)
{
	uint16_t v16 = htole16((uint16_t)v);

	string_add(b, key, rc);
	u32_add(b, type, rc);
	if (type != TYPE_U16)
		u32_add(b, v, rc);
	else if (!*rc)
		*rc = buf_add(b, &v16, sizeof(v16));
}

static void tokens_add(struct buf *b, int *rc)
{
	char token[32];

	string_add(b, "tokenizer.ggml.model", rc);
	u32_add(b, TYPE_STRING, rc);
	string_add(b, "llama", rc);
	string_add(b, "tokenizer.ggml.tokens", rc);
	u32_add(b, TYPE_ARRAY, rc);
	u32_add(b, TYPE_STRING, rc);
	u64_add(b, NR_TOKENS, rc);
	for (unsigned i = 0; i < NR_TOKENS; i++) {
		snprintf(token, sizeof(token), "<token %u>", i);
		string_add(b, token, rc);
	}
	string_add(b, "tokenizer.ggml.scores", rc);
	u32_add(b, TYPE_ARRAY, rc);
	u32_add(b, TYPE_F32, rc);
	u64_add(b, NR_TOKENS, rc);
	for (unsigned i = 0; i < NR_TOKENS; i++)
		u32_add(b, 0, rc);
}

static void infos_add(struct buf *b, struct tensors *t, int *rc)
{
	uint64_t offset = 0;

	for (size_t i = 0; i < t->nr; i++) {
		struct tensor *x = &t->item[i];

		x->offset = aligned(offset);
		offset = x->offset + x->len_bytes;
		string_add(b, x->name, rc);
		u32_add(b, x->columns ? 2 : 1, rc);
		if (x->columns)
			u64_add(b, x->columns, rc);
		u64_add(b, x->rows, rc);
		u32_add(b, dtypes[x->dtype].gguf, rc);
		u64_add(b, x->offset, rc);
	}
}

/* The first shard carries the tokenizer, as llama.cpp splits a model. */
int gguf_write(struct sink *s, struct tensors *t, unsigned shard, unsigned nr_shards)
{
	_cleanup_buf_ struct buf b;
	int rc = 0;

	buf_init(&b, HEADER_MAX_BYTES);
	rc = buf_add_str(&b, "GGUF");
	u32_add(&b, GGUF_VERSION, &rc);
	u64_add(&b, t->nr, &rc);
	u64_add(&b, shard ? 5 : 8, &rc);
	string_add(&b, "general.architecture", &rc);
	u32_add(&b, TYPE_STRING, &rc);
	string_add(&b, "llama", &rc);
	value_add(&b, "general.alignment", TYPE_U32, GGUF_ALIGN_BYTES, &rc);
	value_add(&b, "split.no", TYPE_U16, shard, &rc);
	value_add(&b, "split.count", TYPE_U16, nr_shards, &rc);
	value_add(&b, "split.tensors.count", TYPE_I32, (uint32_t)t->nr, &rc);
	if (!shard)
		tokens_add(&b, &rc);
	infos_add(&b, t, &rc);
	if (!rc)
		rc = sink_bytes(s, b.data, b.len);
	for (size_t i = 0; i < t->nr && !rc; i++) {
		rc = sink_pad(s, 0, aligned(s->offset));
		t->item[i].offset = s->offset;
		if (!rc)
			rc = sink_content(s, t->item[i].len_bytes);
	}
	return rc;
}
