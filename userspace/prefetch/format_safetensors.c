// SPDX-License-Identifier: Apache-2.0
/*
 * safetensors: eight bytes of header length, a JSON object that names the tensors, and their bytes without a hole.
 * Checked as its reference reader does, except that types which are not known here are taken as they are.
 */
#include "prefetch/format_i.h"

#include <string.h>

#include "base/cleanup.h"
#include "prefetch/format_json.h"

#define LENGTH_BYTES 8
#define HEADER_MAX_BYTES 100000000u
#define SHAPE_MAX 64

enum state { STATE_LENGTH = 0, STATE_OPEN, STATE_ENTRY, STATE_PADDING };

static const struct dtype {
	char name[14];
	uint8_t bits;
} dtypes[] = {
	{ "BOOL", 8 },    { "U8", 8 },          { "I8", 8 },          { "F8_E5M2", 8 }, { "F8_E4M3", 8 },
	{ "F8_E8M0", 8 }, { "F8_E4M3FNUZ", 8 }, { "F8_E5M2FNUZ", 8 }, { "F4", 4 },      { "F6_E2M3", 6 },
	{ "F6_E3M2", 6 }, { "I16", 16 },        { "U16", 16 },        { "F16", 16 },    { "BF16", 16 },
	{ "I32", 32 },    { "U32", 32 },        { "F32", 32 },        { "I64", 64 },    { "U64", 64 },
	{ "F64", 64 },    { "C64", 64 },
};

/* A tensor as its entry describes it. */
struct entry {
	char dtype[32];
	uint64_t nr_elements, from, to;
	bool has_dtype, has_shape, has_offsets, overflow;
};

static int parse_shape(struct format_json *j, struct entry *t)
{
	int rc = format_json_take(j, '['), nr = 0;
	uint64_t v;
	char c;

	t->nr_elements = 1;
	if (rc == 0)
		rc = format_json_peek(j, &c);
	if (rc < 0)
		return rc;
	if (c == ']') {
		j->at++;
		return 0;
	}
	do {
		rc = format_json_u64(j, &v);
		if (rc == 0 && ++nr > SHAPE_MAX)
			rc = -EBADMSG;
		if (rc == 0 && __builtin_mul_overflow(t->nr_elements, v, &t->nr_elements))
			t->overflow = true;
		if (rc == 0)
			rc = format_json_more(j, ']');
	} while (rc == 1);
	return rc;
}

static int parse_offsets(struct format_json *j, struct entry *t)
{
	int rc = format_json_take(j, '[');

	if (rc == 0)
		rc = format_json_u64(j, &t->from);
	if (rc == 0)
		rc = format_json_take(j, ',');
	if (rc == 0)
		rc = format_json_u64(j, &t->to);
	return rc == 0 ? format_json_take(j, ']') : rc;
}

static int parse_field(struct format_json *j, struct entry *t)
{
	char name[32];
	size_t len;
	int rc = format_json_string(j, name, sizeof(name), &len);

	/* A longer name than any that is known is one that is not known. */
	if (rc < 0 && rc != -E2BIG)
		return rc;
	if (rc == -E2BIG)
		len = 0;
	rc = format_json_take(j, ':');
	if (rc < 0)
		return rc;
	if (len == strlen("dtype") && memcmp(name, "dtype", len) == 0) {
		rc = t->has_dtype ? -EBADMSG : format_json_string(j, t->dtype, sizeof(t->dtype), &len);
		t->has_dtype = true;
	} else if (len == strlen("shape") && memcmp(name, "shape", len) == 0) {
		rc = t->has_shape ? -EBADMSG : parse_shape(j, t);
		t->has_shape = true;
	} else if (len == strlen("data_offsets") && memcmp(name, "data_offsets", len) == 0) {
		rc = t->has_offsets ? -EBADMSG : parse_offsets(j, t);
		t->has_offsets = true;
	} else {
		rc = format_json_skip(j);
	}
	return rc;
}

static int parse_entry(struct format_json *j, struct entry *t)
{
	int rc = format_json_take(j, '{');

	while (rc >= 0) {
		rc = parse_field(j, t);
		if (rc == 0)
			rc = format_json_more(j, '}');
		if (rc == 0)
			return t->has_dtype && t->has_shape && t->has_offsets ? 0 : -EBADMSG;
	}
	return rc;
}

/* An object of strings. */
static int parse_metadata(struct format_json *j)
{
	char c;
	int rc = format_json_take(j, '{');

	if (rc == 0)
		rc = format_json_peek(j, &c);
	if (rc == 0 && c == '}') {
		j->at++;
		return 0;
	}
	while (rc >= 0) {
		rc = format_json_string(j, NULL, 0, NULL);
		if (rc == 0)
			rc = format_json_take(j, ':');
		if (rc == 0)
			rc = format_json_string(j, NULL, 0, NULL);
		if (rc == 0)
			rc = format_json_more(j, '}');
		if (rc == 0)
			return 0;
	}
	return rc;
}

static int check_entry(const struct entry *t, struct err *e)
{
	uint64_t bits;

	for (size_t i = 0; i < array_len(dtypes); i++) {
		if (strcmp(t->dtype, dtypes[i].name) != 0)
			continue;
		if (t->overflow || __builtin_mul_overflow(t->nr_elements, (uint64_t)dtypes[i].bits, &bits) ||
		    bits % 8 || bits / 8 != t->to - t->from)
			return err_set(e, -EBADMSG, "the shape of a tensor of type %s does not agree with its bytes",
				       dtypes[i].name);
	}
	return 0;
}

static int finish(struct format_parser *p, struct err *e)
{
	struct format_range head = { .len = p->limit };
	struct format_list *l = &p->list;
	uint64_t sum = 0;

	/* Tensors that do not overlap, which is checked for every format, and fill the data leave no hole. */
	for (uint32_t i = 0; i < l->nr; i++)
		sum += l->item[i].len;
	if (sum != p->file_bytes - p->limit)
		return err_set(e, -EBADMSG, "its tensors have %llu bytes and the file has %llu for them",
			       (unsigned long long)sum, (unsigned long long)(p->file_bytes - p->limit));
	format_list_sort(l);
	return format_list_finish(p, head, p->file_bytes, e);
}

/* Members of the header that end with <rc> from format_json_more(). */
static int after_entry(struct format_parser *p, const struct format_json *j, const uint8_t *bytes, int rc,
		       struct err *e)
{
	p->pos += (uint64_t)(j->at - bytes);
	p->state = rc == 1 ? STATE_ENTRY : STATE_PADDING;
	return p->state == STATE_PADDING && p->pos == p->limit ? finish(p, e) : 0;
}

static int step_entry(struct format_parser *p, struct format_json *j, const uint8_t *bytes, struct err *e)
{
	char name[FORMAT_NAME_MAX_BYTES + 1];
	bool is_metadata;
	struct entry t = { 0 };
	size_t len = 0;
	int rc = format_json_string(j, name, sizeof(name), &len), more;

	is_metadata = rc == 0 && len == strlen("__metadata__") && memcmp(name, "__metadata__", len) == 0;
	if (rc == 0)
		rc = format_json_take(j, ':');
	if (rc == 0)
		rc = is_metadata ? parse_metadata(j) : parse_entry(j, &t);
	if (rc < 0 && rc != -EAGAIN)
		return err_set(e, rc, "the entry at byte %llu of its header is not one of a tensor",
			       (unsigned long long)p->pos);
	more = rc < 0 ? rc : format_json_more(j, '}');
	if (more == -EAGAIN)
		return more;
	if (more < 0)
		return err_set(e, more, "its header is not JSON near byte %llu", (unsigned long long)p->pos);
	if (is_metadata && p->safetensors.seen_metadata)
		return err_set(e, -EBADMSG, "it has __metadata__ twice");
	if (is_metadata) {
		p->safetensors.seen_metadata = true;
		return after_entry(p, j, bytes, more, e);
	}
	rc = check_entry(&t, e);
	if (rc == 0 && (t.from > t.to || t.to > p->file_bytes - p->limit))
		rc = err_set(e, -EBADMSG, "a tensor lies at bytes %llu to %llu of the data, which has %llu",
			     (unsigned long long)t.from, (unsigned long long)t.to,
			     (unsigned long long)(p->file_bytes - p->limit));
	if (rc == 0)
		rc = format_list_add(&p->list, name, len, p->limit + t.from, t.to - t.from, e);
	return rc < 0 ? rc : after_entry(p, j, bytes, more, e);
}

static int step_length(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	uint64_t n;

	if (len < LENGTH_BYTES)
		return -EAGAIN;
	n = get_le64(bytes);
	if (n < 2 || n > HEADER_MAX_BYTES)
		return err_set(e, -ENOEXEC, "it does not begin with the length of a safetensors header");
	if (n > p->file_bytes - LENGTH_BYTES)
		return err_set(e, -EBADMSG, "its header of %llu bytes is longer than the file: is it truncated?",
			       (unsigned long long)n);
	p->pos = LENGTH_BYTES;
	p->limit = LENGTH_BYTES + n;
	p->piece = FORMAT_PIECE_MAX_BYTES;
	p->state = STATE_OPEN;
	return 0;
}

int safetensors_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	struct format_json j = { .at = bytes, .end = bytes + len };
	char c;
	int rc;

	switch (p->state) {
	case STATE_LENGTH:
		return step_length(p, bytes, len, e);
	case STATE_OPEN:
		if (*bytes != '{')
			return err_set(e, -ENOEXEC, "its header is not a JSON object");
		j.at++;
		rc = format_json_peek(&j, &c);
		if (rc < 0)
			return rc;
		if (c != '}') {
			p->pos++;
			p->state = STATE_ENTRY;
			return 0;
		}
		j.at++;
		return after_entry(p, &j, bytes, 0, e);
	case STATE_ENTRY:
		return step_entry(p, &j, bytes, e);
	default:
		if (format_json_peek(&j, &c) == 0)
			return err_set(e, -EBADMSG, "its header goes on after its end");
		p->pos += len;
		return p->pos == p->limit ? finish(p, e) : 0;
	}
}
