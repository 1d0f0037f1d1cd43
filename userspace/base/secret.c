// SPDX-License-Identifier: Apache-2.0
/* Secrets in pages of their own, left out of core dumps and wiped before release. */
#define _GNU_SOURCE
#include "base/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static size_t secret_map_bytes(size_t len)
{
	return len + 1;
}

int secret_set(struct secret *s, const void *bytes, size_t len)
{
	unsigned char *p;

	if (len > SECRET_MAX_BYTES)
		return -E2BIG;
	p = mmap(NULL, secret_map_bytes(len), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	(void)madvise(p, secret_map_bytes(len), MADV_DONTDUMP);
	memcpy(p, bytes, len);
	p[len] = '\0';
	secret_wipe(s);
	s->opaque = p;
	s->len = len;
	return 0;
}

int secret_copy(struct secret *dst, const struct secret *src)
{
	if (!src->opaque) {
		secret_wipe(dst);
		return 0;
	}
	return secret_set(dst, src->opaque, src->len);
}

const char *secret_bytes(const struct secret *s)
{
	return s->opaque ? (const char *)s->opaque : "";
}

void secret_wipe(struct secret *s)
{
	if (s->opaque) {
		explicit_bzero(s->opaque, s->len);
		munmap(s->opaque, secret_map_bytes(s->len));
	}
	s->opaque = NULL;
	s->len = 0;
}
