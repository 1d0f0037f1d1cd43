/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that must never be printed. There is no formatter on purpose: only the signer and the
 * request builder call secret_bytes(), and nothing else may.
 */
#ifndef PENSTOCK_BASE_SECRET_H
#define PENSTOCK_BASE_SECRET_H

#include <stddef.h>

#define SECRET_MAX_BYTES 8192

struct secret {
	size_t len;
	unsigned char *opaque; /* owned; kept out of core dumps where the kernel allows it */
};

/* Replaces the content with a copy of <len> bytes. -E2BIG above SECRET_MAX_BYTES, -ENOMEM. */
int secret_set(struct secret *s, const void *bytes, size_t len);
int secret_copy(struct secret *dst, const struct secret *src);
/* NUL-terminated view, valid until the next set or wipe; "" when empty. */
const char *secret_bytes(const struct secret *s);
/* Overwrites and frees. Safe on a zeroed or already wiped secret. */
void secret_wipe(struct secret *s);

#endif
