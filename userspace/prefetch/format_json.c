// SPDX-License-Identifier: Apache-2.0
/* A JSON scanner over bytes that may end anywhere. */
#include "prefetch/format_json.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

int format_json_peek(struct format_json *j, char *ret_c)
{
	while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\t' || *j->at == '\r'))
		j->at++;
	if (j->at == j->end)
		return -EAGAIN;
	*ret_c = (char)*j->at;
	return 0;
}

int format_json_take(struct format_json *j, char c)
{
	char found;
	int rc = format_json_peek(j, &found);

	if (rc < 0)
		return rc;
	if (found != c)
		return -EBADMSG;
	j->at++;
	return 0;
}

int format_json_more(struct format_json *j, char close)
{
	char c;
	int rc = format_json_peek(j, &c);

	if (rc < 0)
		return rc;
	if (c != ',' && c != close)
		return -EBADMSG;
	j->at++;
	return c == ',';
}

/* Where a string is decoded to; <buf> may be NULL. */
struct sink {
	char *buf;
	size_t len, cap;
};

static void sink_add(struct sink *s, uint8_t byte)
{
	if (s->buf && s->len + 1 < s->cap)
		s->buf[s->len] = (char)byte;
	s->len++;
}

static void sink_add_code(struct sink *s, uint32_t code)
{
	if (code < 0x80) {
		sink_add(s, (uint8_t)code);
		return;
	}
	if (code < 0x800) {
		sink_add(s, (uint8_t)(0xc0 | code >> 6));
	} else if (code < 0x10000) {
		sink_add(s, (uint8_t)(0xe0 | code >> 12));
		sink_add(s, (uint8_t)(0x80 | (code >> 6 & 0x3f)));
	} else {
		sink_add(s, (uint8_t)(0xf0 | code >> 18));
		sink_add(s, (uint8_t)(0x80 | (code >> 12 & 0x3f)));
		sink_add(s, (uint8_t)(0x80 | (code >> 6 & 0x3f)));
	}
	sink_add(s, (uint8_t)(0x80 | (code & 0x3f)));
}

/* Four hexadecimal digits. */
static int hex4(struct format_json *j, uint32_t *ret_code)
{
	uint32_t code = 0;

	for (int i = 0; i < 4; i++, j->at++) {
		uint8_t c;

		if (j->at == j->end)
			return -EAGAIN;
		c = *j->at | 0x20;
		if (*j->at >= '0' && *j->at <= '9')
			code = code << 4 | (uint32_t)(*j->at - '0');
		else if (c >= 'a' && c <= 'f')
			code = code << 4 | (uint32_t)(c - 'a' + 10);
		else
			return -EBADMSG;
	}
	*ret_code = code;
	return 0;
}

/* What follows "\u": one code, or the two halves of one beyond 16 bits. */
static int escaped_code(struct format_json *j, struct sink *s)
{
	uint32_t code, low;
	int rc = hex4(j, &code);

	if (rc < 0)
		return rc;
	if (code >= 0xdc00 && code < 0xe000)
		return -EBADMSG;
	if (code >= 0xd800 && code < 0xdc00) {
		for (const char *want = "\\u"; *want; want++, j->at++) {
			if (j->at == j->end)
				return -EAGAIN;
			if (*j->at != (uint8_t)*want)
				return -EBADMSG;
		}
		rc = hex4(j, &low);
		if (rc < 0)
			return rc;
		if (low < 0xdc00 || low >= 0xe000)
			return -EBADMSG;
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	}
	sink_add_code(s, code);
	return 0;
}

/* What follows a backslash. */
static int escape(struct format_json *j, struct sink *s)
{
	static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
	const char *found;

	if (j->at == j->end)
		return -EAGAIN;
	if (*j->at == 'u') {
		j->at++;
		return escaped_code(j, s);
	}
	found = *j->at ? strchr(names, *j->at) : NULL;
	if (!found)
		return -EBADMSG;
	sink_add(s, (uint8_t)values[found - names]);
	j->at++;
	return 0;
}

/* One character of two to four bytes: no overlong form, no surrogate, nothing above U+10FFFF. */
static int utf8(struct format_json *j, struct sink *s)
{
	uint8_t first = *j->at;
	int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
	uint32_t code = first & (0x3f >> more);

	if (first < 0xc2 || first > 0xf4)
		return -EBADMSG;
	if (j->end - j->at <= more)
		return -EAGAIN;
	for (int i = 1; i <= more; i++) {
		if ((j->at[i] & 0xc0) != 0x80)
			return -EBADMSG;
		code = code << 6 | (j->at[i] & 0x3f);
	}
	if ((more == 2 && code < 0x800) || (more == 3 && code < 0x10000) || code > 0x10ffff ||
	    (code >= 0xd800 && code < 0xe000))
		return -EBADMSG;
	sink_add_code(s, code);
	j->at += more + 1;
	return 0;
}

int format_json_string(struct format_json *j, char *buf, size_t cap, size_t *ret_len)
{
	struct sink s = { .buf = buf, .cap = cap };
	int rc = format_json_take(j, '"');

	while (rc == 0) {
		if (j->at == j->end)
			return -EAGAIN;
		if (*j->at == '"')
			break;
		if (*j->at < 0x20)
			return -EBADMSG;
		if (*j->at == '\\') {
			j->at++;
			rc = escape(j, &s);
		} else if (*j->at < 0x80) {
			sink_add(&s, *j->at++);
		} else {
			rc = utf8(j, &s);
		}
	}
	if (rc < 0)
		return rc;
	j->at++;
	if (!buf)
		return 0;
	if (s.len + 1 > cap)
		return -E2BIG;
	buf[s.len] = '\0';
	*ret_len = s.len;
	return 0;
}

static bool is_digit(const struct format_json *j)
{
	return j->at < j->end && *j->at >= '0' && *j->at <= '9';
}

int format_json_u64(struct format_json *j, uint64_t *ret_value)
{
	const uint8_t *begin;
	uint64_t v = 0;
	char c;
	int rc = format_json_peek(j, &c);

	if (rc < 0)
		return rc;
	begin = j->at;
	for (; is_digit(j); j->at++) {
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*j->at - '0'), &v))
			return -EBADMSG;
	}
	if (j->at == begin || (*begin == '0' && j->at - begin > 1))
		return -EBADMSG;
	/* It may go on in what is not here yet. */
	if (j->at == j->end)
		return -EAGAIN;
	if (*j->at == '.' || *j->at == 'e' || *j->at == 'E')
		return -EBADMSG;
	*ret_value = v;
	return 0;
}

static int digits(struct format_json *j)
{
	if (j->at == j->end)
		return -EAGAIN;
	if (!is_digit(j))
		return -EBADMSG;
	while (is_digit(j))
		j->at++;
	return j->at == j->end ? -EAGAIN : 0;
}

static int skip_number(struct format_json *j)
{
	const uint8_t *begin;
	int rc;

	if (*j->at == '-')
		j->at++;
	begin = j->at;
	rc = digits(j);
	if (rc == 0 && *begin == '0' && j->at - begin > 1)
		return -EBADMSG;
	if (rc == 0 && *j->at == '.') {
		j->at++;
		rc = digits(j);
	}
	if (rc == 0 && (*j->at == 'e' || *j->at == 'E')) {
		j->at++;
		if (j->at < j->end && (*j->at == '+' || *j->at == '-'))
			j->at++;
		rc = digits(j);
	}
	return rc;
}

static int skip_word(struct format_json *j, const char *word)
{
	for (; *word; word++, j->at++) {
		if (j->at == j->end)
			return -EAGAIN;
		if (*j->at != (uint8_t)*word)
			return -EBADMSG;
	}
	return 0;
}

static int skip_key(struct format_json *j)
{
	int rc = format_json_string(j, NULL, 0, NULL);

	return rc < 0 ? rc : format_json_take(j, ':');
}

static int skip_scalar(struct format_json *j, char c)
{
	switch (c) {
	case '"':
		return format_json_string(j, NULL, 0, NULL);
	case 't':
		return skip_word(j, "true");
	case 'f':
		return skip_word(j, "false");
	case 'n':
		return skip_word(j, "null");
	default:
		return skip_number(j);
	}
}

int format_json_skip(struct format_json *j)
{
	uint64_t objects = 0; /* one bit for each open object or array */
	int depth = 0, rc;
	char c;

	for (;;) {
		bool open, more;

		rc = format_json_peek(j, &c);
		if (rc < 0)
			return rc;
		open = c == '{' || c == '[';
		if (open) {
			if (depth == JSON_DEPTH_MAX)
				return -EBADMSG;
			j->at++;
			objects = objects << 1 | (c == '{');
			depth++;
			rc = format_json_peek(j, &c);
			/* Another value follows, unless it is empty. */
			more = c != (objects & 1 ? '}' : ']');
		} else {
			rc = skip_scalar(j, c);
			more = false;
		}
		while (rc >= 0 && depth && !more) {
			if (open) {
				j->at++;
				open = false;
			} else {
				rc = format_json_more(j, objects & 1 ? '}' : ']');
				more = rc == 1;
			}
			if (rc >= 0 && !more) {
				objects >>= 1;
				depth--;
			}
		}
		if (rc >= 0 && more && (objects & 1))
			rc = skip_key(j);
		if (rc < 0 || !depth)
			return rc < 0 ? rc : 0;
	}
}
