// SPDX-License-Identifier: Apache-2.0
/*
 * GGUF: a count of tensors and of key-value pairs, the pairs, the tensors' names, shapes, types and offsets, and from
 * the next multiple of the alignment on their bytes. Pairs are jumped over: only general.alignment is looked at.
 */
#include "prefetch/format_i.h"

#include <string.h>

#include "base/cleanup.h"

#define ALIGNMENT_DEFAULT 32
#define ALIGNMENT_MAX (1u << 20)
#define DIMS_MAX 8

enum state { STATE_HEAD = 0, STATE_PAIR, STATE_ARRAY, STATE_TENSOR };

enum value {
	VALUE_U8 = 0,
	VALUE_I8,
	VALUE_U16,
	VALUE_I16,
	VALUE_U32,
	VALUE_I32,
	VALUE_F32,
	VALUE_BOOL,
	VALUE_STRING,
	VALUE_ARRAY,
	VALUE_U64,
	VALUE_I64,
	VALUE_F64,
	VALUE_NR,
};

/* Bytes of a value; 0 = it says so itself. */
static const uint8_t value_bytes[VALUE_NR] = {
	[VALUE_U8] = 1,  [VALUE_I8] = 1,   [VALUE_U16] = 2, [VALUE_I16] = 2, [VALUE_U32] = 4, [VALUE_I32] = 4,
	[VALUE_F32] = 4, [VALUE_BOOL] = 1, [VALUE_U64] = 8, [VALUE_I64] = 8, [VALUE_F64] = 8,
};

/* Elements and bytes of a block of each tensor type; nothing for types that are not known. */
static const struct tensor_type {
	uint16_t elements, bytes;
} tensor_types[] = {
	[0] = { 1, 4 },      /* F32 */
	[1] = { 1, 2 },      /* F16 */
	[2] = { 32, 18 },    /* Q4_0 */
	[3] = { 32, 20 },    /* Q4_1 */
	[6] = { 32, 22 },    /* Q5_0 */
	[7] = { 32, 24 },    /* Q5_1 */
	[8] = { 32, 34 },    /* Q8_0 */
	[10] = { 256, 84 },  /* Q2_K */
	[11] = { 256, 110 }, /* Q3_K */
	[12] = { 256, 144 }, /* Q4_K */
	[13] = { 256, 176 }, /* Q5_K */
	[14] = { 256, 210 }, /* Q6_K */
	[15] = { 256, 292 }, /* Q8_K */
	[16] = { 256, 66 },  /* IQ2_XXS */
	[17] = { 256, 74 },  /* IQ2_XS */
	[18] = { 256, 98 },  /* IQ3_XXS */
	[19] = { 256, 50 },  /* IQ1_S */
	[20] = { 32, 18 },   /* IQ4_NL */
	[21] = { 256, 110 }, /* IQ3_S */
	[22] = { 256, 82 },  /* IQ2_S */
	[23] = { 256, 136 }, /* IQ4_XS */
	[24] = { 1, 1 },     /* I8 */
	[25] = { 1, 2 },     /* I16 */
	[26] = { 1, 4 },     /* I32 */
	[27] = { 1, 8 },     /* I64 */
	[28] = { 1, 8 },     /* F64 */
	[29] = { 256, 56 },  /* IQ1_M */
	[30] = { 1, 2 },     /* BF16 */
	[34] = { 256, 54 },  /* TQ1_0 */
	[35] = { 256, 66 },  /* TQ2_0 */
	[39] = { 32, 17 },   /* MXFP4 */
	[40] = { 64, 36 },   /* NVFP4 */
	[41] = { 128, 18 },  /* Q1_0 */
};

/* Numbers in the file's byte order, one after the other; <short_of> once the bytes end. */
struct in {
	const struct format_parser *p;
	const uint8_t *at, *end;
	bool short_of;
};

static uint32_t in_u32(struct in *in)
{
	uint32_t v;

	if (in->end - in->at < 4) {
		in->short_of = true;
		return 0;
	}
	v = get_le32(in->at);
	in->at += 4;
	return in->p->gguf.big_endian ? __builtin_bswap32(v) : v;
}

static uint64_t in_u64(struct in *in)
{
	uint64_t v;

	if (in->end - in->at < 8) {
		in->short_of = true;
		return 0;
	}
	v = get_le64(in->at);
	in->at += 8;
	return in->p->gguf.big_endian ? __builtin_bswap64(v) : v;
}

/* Counts and lengths were 32 bits in version 1. */
static uint64_t in_count(struct in *in)
{
	return in->p->gguf.version == 1 ? in_u32(in) : in_u64(in);
}

/* A key or a name: -EBADMSG when it is longer than any may be. */
static int in_name(struct in *in, const uint8_t **ret_name, size_t *ret_len, struct err *e)
{
	uint64_t len = in_count(in);

	if (in->short_of)
		return -EAGAIN;
	if (len > FORMAT_NAME_MAX_BYTES)
		return err_set(e, -EBADMSG, "a name in its header is longer than %d bytes", FORMAT_NAME_MAX_BYTES);
	if ((uint64_t)(in->end - in->at) < len)
		return -EAGAIN;
	*ret_name = in->at;
	*ret_len = (size_t)len;
	in->at += len;
	return 0;
}

static int finish(struct format_parser *p, struct err *e)
{
	uint64_t begin = (p->pos + p->gguf.alignment - 1) / p->gguf.alignment * p->gguf.alignment;
	struct format_range head = { .len = min_of(begin, p->file_bytes) };
	struct format_list *l = &p->list;

	for (uint32_t i = 0; i < l->nr; i++) {
		if (l->item[i].offset % p->gguf.alignment)
			return err_set(e, -EBADMSG, "a tensor is not aligned to %u bytes", p->gguf.alignment);
		if (__builtin_add_overflow(l->item[i].offset, begin, &l->item[i].offset))
			return err_set(e, -EBADMSG, "a tensor begins past the end of the file");
	}
	format_list_sort(l);
	return format_list_finish(p, head, p->file_bytes, e);
}

/* Moves over <len> bytes, which may be far away, and to the next state when the entries of this one are done. */
static int advance(struct format_parser *p, uint64_t len, struct err *e)
{
	if (len > p->file_bytes - p->pos)
		return err_set(e, -EBADMSG, "a value of its header is longer than the file: is it truncated?");
	p->pos += len;
	if (p->pos > FORMAT_HEADER_MAX_BYTES)
		return err_set(e, -E2BIG, "its header is larger than %u bytes", FORMAT_HEADER_MAX_BYTES);
	while (p->gguf.depth && !p->gguf.array[p->gguf.depth - 1].left)
		p->gguf.depth--;
	if (p->state == STATE_ARRAY && !p->gguf.depth)
		p->state = STATE_PAIR;
	if (p->state == STATE_PAIR && !p->left) {
		p->state = STATE_TENSOR;
		p->left = p->gguf.nr_tensors;
	}
	return p->state == STATE_TENSOR && !p->left ? finish(p, e) : 0;
}

static int step_head(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	struct in in = { .p = p, .at = bytes, .end = bytes + len };
	uint64_t nr_tensors, nr_pairs;
	uint32_t version;

	if (len < 8)
		return -EAGAIN;
	if (memcmp(bytes, "GGUF", 4) != 0)
		return err_set(e, -ENOEXEC, "it does not begin with \"GGUF\"");
	in.at += 4;
	p->gguf.big_endian = false;
	version = in_u32(&in);
	if (!(version & 0xffff)) {
		p->gguf.big_endian = true;
		version = __builtin_bswap32(version);
	}
	if (version < 1 || version > 3)
		return err_set(e, -ENOEXEC, "version %u of GGUF is not known", version);
	p->gguf.version = version;
	nr_tensors = in_count(&in);
	nr_pairs = in_count(&in);
	if (in.short_of)
		return -EAGAIN;
	if (nr_tensors > FORMAT_TENSORS_MAX)
		return err_set(e, -E2BIG, "it has more than %u tensors", FORMAT_TENSORS_MAX);
	p->gguf.nr_tensors = nr_tensors;
	p->gguf.alignment = ALIGNMENT_DEFAULT;
	p->left = nr_pairs;
	p->state = STATE_PAIR;
	return advance(p, (uint64_t)(in.at - bytes), e);
}

/* The type and count of an array: what follows is its elements. */
static int enter_array(struct format_parser *p, struct in *in, struct err *e)
{
	uint32_t type = in_u32(in);
	uint64_t count = in_count(in);

	if (in->short_of)
		return -EAGAIN;
	if (type >= VALUE_NR)
		return err_set(e, -EBADMSG, "an array in its header is of type %u, which is not known", type);
	if (p->gguf.depth == GGUF_DEPTH_MAX)
		return err_set(e, -EBADMSG, "arrays in its header are nested deeper than %d", GGUF_DEPTH_MAX);
	p->gguf.array[p->gguf.depth].type = type;
	p->gguf.array[p->gguf.depth].left = count;
	p->gguf.depth++;
	p->state = STATE_ARRAY;
	return 0;
}

/*
 * Passes one value of a type that is no array, or <count> numbers of it at once: *ret_len = its bytes, which need not
 * be here.
 */
static int value_len(struct in *in, uint32_t type, uint64_t count, uint64_t *ret_len, struct err *e)
{
	uint64_t len;

	if (type == VALUE_STRING) {
		len = in_count(in);
		if (in->short_of)
			return -EAGAIN;
	} else if (__builtin_mul_overflow(count, (uint64_t)value_bytes[type], &len)) {
		return err_set(e, -EBADMSG, "an array in its header is longer than the file");
	}
	*ret_len = len;
	return 0;
}

/* What was read of the entry, and <len> bytes after it. */
static int advance_over(struct format_parser *p, const struct in *in, const uint8_t *bytes, uint64_t len, struct err *e)
{
	if (len > p->file_bytes)
		return err_set(e, -EBADMSG, "a value of its header is longer than the file: is it truncated?");
	return advance(p, (uint64_t)(in->at - bytes) + len, e);
}

static int step_array(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	struct in in = { .p = p, .at = bytes, .end = bytes + len };
	unsigned top = p->gguf.depth - 1;
	uint32_t type = p->gguf.array[top].type;
	uint64_t skip = 0, taken = value_bytes[type] ? p->gguf.array[top].left : 1;
	int rc;

	if (type == VALUE_ARRAY)
		rc = enter_array(p, &in, e);
	else
		rc = value_len(&in, type, taken, &skip, e);
	if (rc < 0)
		return rc;
	p->gguf.array[top].left -= taken;
	return advance_over(p, &in, bytes, skip, e);
}

static int take_alignment(struct format_parser *p, struct in *in, uint32_t type, struct err *e)
{
	uint32_t v = in_u32(in);

	if (in->short_of)
		return -EAGAIN;
	if (type != VALUE_U32 || !v || v > ALIGNMENT_MAX || (v & (v - 1)) || p->gguf.seen_alignment)
		return err_set(e, -EBADMSG, "its general.alignment is no power of two up to %u, or comes twice",
			       ALIGNMENT_MAX);
	p->gguf.alignment = v;
	p->gguf.seen_alignment = true;
	return 0;
}

static int step_pair(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	struct in in = { .p = p, .at = bytes, .end = bytes + len };
	const uint8_t *name = NULL;
	uint64_t skip = 0;
	size_t name_len = 0;
	uint32_t type;
	int rc = in_name(&in, &name, &name_len, e);

	if (rc < 0)
		return rc;
	type = in_u32(&in);
	if (in.short_of)
		return -EAGAIN;
	if (type >= VALUE_NR)
		return err_set(e, -EBADMSG, "a value in its header is of type %u, which is not known", type);
	if (name_len == strlen("general.alignment") && memcmp(name, "general.alignment", name_len) == 0)
		rc = take_alignment(p, &in, type, e);
	else if (type == VALUE_ARRAY)
		rc = enter_array(p, &in, e);
	else
		rc = value_len(&in, type, 1, &skip, e);
	if (rc < 0)
		return rc;
	p->left--;
	return advance_over(p, &in, bytes, skip, e);
}

/* Bytes of a tensor, or FORMAT_LEN_UNKNOWN for a type that is not known. */
static int tensor_len(uint32_t type, uint64_t row, uint64_t nr_elements, uint64_t *ret_len, struct err *e)
{
	const struct tensor_type *t = type < array_len(tensor_types) ? &tensor_types[type] : NULL;

	*ret_len = FORMAT_LEN_UNKNOWN;
	if (!t || !t->elements)
		return 0;
	if (row % t->elements || __builtin_mul_overflow(nr_elements / t->elements, (uint64_t)t->bytes, ret_len) ||
	    *ret_len > INT64_MAX)
		return err_set(e, -EBADMSG, "the shape of a tensor does not agree with its type %u", type);
	return 0;
}

static int step_tensor(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	struct in in = { .p = p, .at = bytes, .end = bytes + len };
	uint64_t nr_elements = 1, row = 1, offset, tensor_bytes;
	const uint8_t *name = NULL;
	uint32_t nr_dims, type;
	size_t name_len = 0;
	int rc = in_name(&in, &name, &name_len, e);

	if (rc < 0)
		return rc;
	nr_dims = in_u32(&in);
	if (nr_dims > DIMS_MAX)
		return err_set(e, -EBADMSG, "a tensor has %u dimensions", nr_dims);
	for (uint32_t i = 0; i < nr_dims; i++) {
		uint64_t dim = in_count(&in);

		row = i ? row : dim;
		if (__builtin_mul_overflow(nr_elements, dim, &nr_elements))
			return err_set(e, -EBADMSG, "a tensor has more elements than can be counted");
	}
	type = in_u32(&in);
	offset = in_u64(&in);
	if (in.short_of)
		return -EAGAIN;
	rc = tensor_len(type, row, nr_elements, &tensor_bytes, e);
	if (rc == 0)
		rc = format_list_add(&p->list, name, name_len, offset, tensor_bytes, e);
	if (rc < 0)
		return rc;
	p->left--;
	return advance(p, (uint64_t)(in.at - bytes), e);
}

int gguf_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	switch (p->state) {
	case STATE_HEAD:
		return step_head(p, bytes, len, e);
	case STATE_PAIR:
		return step_pair(p, bytes, len, e);
	case STATE_ARRAY:
		return step_array(p, bytes, len, e);
	default:
		return step_tensor(p, bytes, len, e);
	}
}
