/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as a stream of tokens over bytes that may end anywhere: no tree, no recursion, no allocation, since a header
 * may be 100 MB and comes from strangers. Strict: RFC 8259, valid UTF-8.
 *
 * Every function skips white space before its token and returns 0, -EAGAIN when the bytes end too early (nothing is
 * decided then), -EBADMSG for anything else than the token, or -E2BIG for a string longer than its buffer.
 */
#ifndef PENSTOCK_PREFETCH_FORMAT_JSON_H
#define PENSTOCK_PREFETCH_FORMAT_JSON_H

#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 64

struct format_json {
	const uint8_t *at, *end;
};

/* The next character that is no white space, without taking it. */
int format_json_peek(struct format_json *j, char *ret_c);
int format_json_take(struct format_json *j, char c);
/* A string without its quotes, unescaped, NUL-terminated in <buf>; it may hold zeros. */
int format_json_string(struct format_json *j, char *buf, size_t cap, size_t *ret_len);
/* A whole number that is not negative; no fraction, no exponent. */
int format_json_u64(struct format_json *j, uint64_t *ret_value);
/* Any value; -EBADMSG when it is nested deeper than JSON_DEPTH_MAX. */
int format_json_skip(struct format_json *j);
/* After a member or an element: 1 when another one follows, 0 at <close>. */
int format_json_more(struct format_json *j, char close);

#endif
