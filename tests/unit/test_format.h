/* SPDX-License-Identifier: Apache-2.0 */
/* Weight files for the tests of their parsers: written into memory, the tensors' bytes left out. */
#ifndef PENSTOCK_TEST_FORMAT_H
#define PENSTOCK_TEST_FORMAT_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "prefetch/format.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* A file of which only the beginning and the end are kept; what lies between them is never asked for. */
struct image {
	struct buf head, tail;
	uint64_t middle_bytes;
};

static inline void image_init(struct image *im)
{
	*im = (struct image){ 0 };
	buf_init(&im->head, 256 * MIB);
	buf_init(&im->tail, 256 * MIB);
}

static inline void image_done(struct image *im)
{
	buf_done(&im->head);
	buf_done(&im->tail);
}

static inline uint64_t image_bytes(const struct image *im)
{
	return im->head.len + im->middle_bytes + im->tail.len;
}

static inline void add(struct buf *b, const void *bytes, size_t len)
{
	assert_int_equal(buf_add(b, bytes, len), 0);
}

static inline void add_le(struct buf *b, uint64_t v, int bytes)
{
	uint8_t le[8];

	for (int i = 0; i < 8; i++)
		le[i] = (uint8_t)(v >> 8 * i);
	add(b, le, (size_t)bytes);
}

struct parsed {
	struct format_plan *plan; /* NULL after an error */
	unsigned nr_needs;
	uint64_t asked_bytes;
	struct err e;
};

/* Hands over a copy of exactly those bytes, so that a sanitizer sees every byte too many. */
static inline int feed_from(struct format_parser *p, const struct image *im, uint64_t offset, size_t len, struct err *e)
{
	char *copy = malloc(len ? len : 1);
	uint64_t tail_at = im->head.len + im->middle_bytes;
	int rc;

	assert_non_null(copy);
	for (size_t i = 0; i < len; i++) {
		uint64_t at = offset + i;

		copy[i] = at < im->head.len ? im->head.data[at] : at < tail_at ? 0 : im->tail.data[at - tail_at];
	}
	rc = format_parser_feed(p, offset, copy, len, e);
	free(copy);
	return rc;
}

/* Parses an image in pieces of at most <max_piece> bytes. */
static inline int parse(enum format_kind kind, const struct image *im, size_t max_piece, struct parsed *ret)
{
	struct format_parser *p = NULL;
	int rc;

	*ret = (struct parsed){ 0 };
	rc = format_parser_new(kind, image_bytes(im), &p, &ret->e);
	while (rc == 0) {
		struct format_range need = format_parser_need(p);

		assert_true(need.len > 0);
		assert_true(need.offset + need.len <= image_bytes(im));
		assert_true(need.len <= FORMAT_PIECE_MAX_BYTES);
		ret->nr_needs++;
		ret->asked_bytes += need.len;
		assert_true(ret->nr_needs < 200000);
		rc = feed_from(p, im, need.offset, min_of(need.len, (uint64_t)max_piece), &ret->e);
	}
	if (rc == 1) {
		ret->plan = format_parser_take(p);
		assert_non_null(ret->plan);
		assert_null(format_parser_take(p));
		rc = 0;
	} else {
		assert_true(ret->e.msg[0] != '\0');
		assert_int_equal(ret->e.code, rc);
	}
	format_parser_free(p);
	return rc;
}

static inline void parsed_done(struct parsed *r)
{
	format_plan_free(r->plan);
	r->plan = NULL;
}

static inline void assert_plans_equal(const struct format_plan *a, const struct format_plan *b)
{
	assert_int_equal(a->nr, b->nr);
	assert_int_equal(a->head.offset, b->head.offset);
	assert_int_equal(a->head.len, b->head.len);
	assert_memory_equal(a->tensor, b->tensor, a->nr * sizeof(*a->tensor));
	assert_memory_equal(a->by_name, b->by_name, a->nr * sizeof(*a->by_name));
}

#endif
