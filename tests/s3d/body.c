// SPDX-License-Identifier: Apache-2.0
/* Bytes of uploads: in memory, or in a file that has no name, so nothing is left behind however the server ends. */
#define _GNU_SOURCE

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "base/cleanup.h"
#include "object.h"

#define BODY_SMALL_BYTES 65536 /* kept in memory even with --root: a descriptor each would be too many */

static int body_open_unlinked(const char *dir)
{
	char path[PATH_MAX];
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd < 0 ? -errno : fd;
	if (snprintf(path, sizeof(path), "%s/s3d.XXXXXX", dir) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

static int body_write_file(struct body *b, struct evbuffer *in, const char *dir)
{
	_cleanup_close_ int fd = body_open_unlinked(dir);

	if (fd < 0)
		return fd;
	while (evbuffer_get_length(in))
		if (evbuffer_write(in, fd) < 0)
			return -errno;
	b->segment = evbuffer_file_segment_new(fd, 0, (ev_off_t)b->size, EVBUF_FS_CLOSE_ON_FREE);
	if (!b->segment)
		return -ENOMEM;
	b->fd = take_fd(&fd);
	return 0;
}

int body_new(struct evbuffer *in, const char *dir, struct body **ret)
{
	struct body *b = calloc(1, sizeof(*b));
	int rc = 0;

	if (!b)
		return -ENOMEM;
	b->refs = 1;
	b->fd = -1;
	b->size = evbuffer_get_length(in);
	if (dir && b->size > BODY_SMALL_BYTES) {
		rc = body_write_file(b, in, dir);
	} else {
		b->bytes = malloc(b->size ? b->size : 1);
		if (!b->bytes)
			rc = -ENOMEM;
		/* evbuffer_remove() counts in an int */
		for (uint64_t done = 0; !rc && done < b->size;) {
			int n = evbuffer_remove(in, b->bytes + done, min_of(b->size - done, (uint64_t)1 << 30));

			if (n <= 0)
				rc = -EIO;
			else
				done += (uint64_t)n;
		}
	}
	if (rc < 0) {
		body_put(b);
		return rc;
	}
	*ret = b;
	return 0;
}

struct body *body_get(struct body *b)
{
	atomic_fetch_add(&b->refs, 1);
	return b;
}

void body_put(struct body *b)
{
	if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
		return;
	if (b->segment)
		evbuffer_file_segment_free(b->segment);
	free(b->bytes);
	free(b);
}

struct attrs *attrs_new(void)
{
	struct attrs *a = calloc(1, sizeof(*a));

	if (a)
		a->refs = 1;
	return a;
}

struct attrs *attrs_copy(const struct attrs *from)
{
	struct attrs *a = attrs_new();

	if (!a || !from)
		return a;
	a->archived = from->archived;
	a->restored = from->restored;
	memcpy(a->storage_class, from->storage_class, sizeof(a->storage_class));
	a->checksum_kind = from->checksum_kind;
	a->checksum_composite = from->checksum_composite;
	memcpy(a->checksum, from->checksum, sizeof(a->checksum));
	for (unsigned i = 0; i < from->nr_headers; i++) {
		if (attrs_add(a, from->headers[i].name, from->headers[i].value) < 0) {
			attrs_put(a);
			return NULL;
		}
	}
	return a;
}

struct attrs *attrs_get(struct attrs *a)
{
	if (a)
		atomic_fetch_add(&a->refs, 1);
	return a;
}

void attrs_put(struct attrs *a)
{
	if (!a || atomic_fetch_sub(&a->refs, 1) != 1)
		return;
	for (unsigned i = 0; i < a->nr_headers; i++) {
		free(a->headers[i].name);
		free(a->headers[i].value);
	}
	free(a->headers);
	free(a);
}

int attrs_add(struct attrs *a, const char *name, const char *value)
{
	_cleanup_free_ char *n = strdup(name);
	_cleanup_free_ char *v = strdup(value);
	struct attr_header *grown;

	if (a->nr_headers == ATTRS_HEADERS_MAX)
		return -E2BIG;
	grown = realloc(a->headers, (a->nr_headers + 1) * sizeof(*grown));
	if (grown)
		a->headers = grown;
	if (!grown || !n || !v)
		return -ENOMEM;
	a->headers[a->nr_headers].name = take_ptr(n);
	a->headers[a->nr_headers++].value = take_ptr(v);
	return 0;
}

int evbuffer_digest(struct evbuffer *in, enum digest_kind kind, unsigned char ret[DIGEST_MAX_BYTES], size_t *ret_len)
{
	int nr = evbuffer_peek(in, -1, NULL, NULL, 0);
	_cleanup_free_ struct evbuffer_iovec *iov = calloc(nr > 0 ? (size_t)nr : 1, sizeof(*iov));
	struct digest d;
	int rc;

	if (!iov)
		return -ENOMEM;
	rc = digest_init(&d, kind);
	if (rc < 0)
		return rc;
	nr = evbuffer_peek(in, -1, NULL, iov, nr);
	for (int i = 0; i < nr; i++)
		digest_update(&d, iov[i].iov_base, iov[i].iov_len);
	*ret_len = digest_final(&d, ret);
	return 0;
}
