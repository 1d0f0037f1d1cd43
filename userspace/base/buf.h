/* SPDX-License-Identifier: Apache-2.0 */
/* A growing byte buffer with a maximum given at creation. Always NUL-terminated for its readers. */
#ifndef PENSTOCK_BASE_BUF_H
#define PENSTOCK_BASE_BUF_H

#include <stddef.h>

struct buf {
	char *data;
	size_t len;
	size_t cap;
	size_t max; /* bytes; exceeding it is -E2BIG and leaves the content as it was */
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_done(struct buf *b);
void buf_clear(struct buf *b);
int buf_add(struct buf *b, const void *bytes, size_t len);
int buf_add_str(struct buf *b, const char *s);
int buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *buf_str(const struct buf *b);

#define _cleanup_buf_ __attribute__((cleanup(buf_done)))

#endif
