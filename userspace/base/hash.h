/* SPDX-License-Identifier: Apache-2.0 */
/* FNV-1a of 64 bits: for tables and for names that stay the same over restarts; not against malice. */
#ifndef PENSTOCK_BASE_HASH_H
#define PENSTOCK_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_INIT 14695981039346656037ull

static inline uint64_t hash_add(uint64_t h, const void *bytes, size_t len)
{
	const unsigned char *p = bytes;

	for (; len; len--)
		h = (h ^ *p++) * 1099511628211ull;
	return h;
}

#endif
