// SPDX-License-Identifier: Apache-2.0
/*
 * Contents that can be made and checked without keeping a copy: 64-bit words of splitmix64 over a counter,
 * keyed by seed and file name, so that a byte moved to another offset or file is noticed.
 */
#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/size.h"
#include "penstock-load.h"

uint64_t content_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

uint64_t content_key(uint64_t seed, const char *file_name)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (const char *p = file_name; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 0x100000001b3ull;
	return content_mix(content_mix(seed) ^ hash);
}

static uint64_t content_word(uint64_t key, uint64_t index)
{
	return htole64(content_mix(key + index));
}

void content_fill(uint64_t key, uint64_t offset, void *buf, size_t len)
{
	unsigned char *p = buf;
	uint64_t index = offset / 8, word;
	size_t skip = offset % 8, n;

	if (skip && len) {
		word = content_word(key, index++);
		n = min_of(8 - skip, len);
		memcpy(p, (unsigned char *)&word + skip, n);
		p += n;
		len -= n;
	}
	for (; len >= 8; p += 8, len -= 8) {
		word = content_word(key, index++);
		memcpy(p, &word, 8);
	}
	if (len) {
		word = content_word(key, index);
		memcpy(p, &word, len);
	}
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* A safetensors file starts with the length of its header, which is text. */
static int data_start_get(const char *path, uint64_t size_bytes, uint64_t *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t len;

	if (fd < 0)
		return -errno;
	if (pread(fd, &len, sizeof(len), 0) != sizeof(len))
		return -EIO;
	*ret = min_of(8 + le64toh(len), size_bytes);
	return 0;
}

static bool ends_with(const char *s, const char *tail)
{
	size_t len = strlen(s), n = strlen(tail);

	return len >= n && !strcmp(s + len - n, tail);
}

int check_open(struct check *c, const char *spec, const char *path, uint64_t size_bytes, struct err *e)
{
	char source[4096];
	struct stat st;
	uint64_t seed;
	int rc;

	c->source_fd = -1;
	if (!spec)
		return 0;
	if (!number_parse(spec, 0, UINT64_MAX, &seed)) {
		c->kind = CHECK_SEED;
		c->key = content_key(seed, base_name(path));
		rc = ends_with(path, ".safetensors") ? data_start_get(path, size_bytes, &c->data_start_bytes) : 0;
		return rc ? err_set(e, rc, "cannot read the header of %s: %s", path, strerror(-rc)) : 0;
	}
	rc = snprintf(source, sizeof(source), "%s/%s", spec, base_name(path));
	if (rc < 0 || (size_t)rc >= sizeof(source))
		return err_set(e, -ENAMETOOLONG, "the path of the source of %s is too long", path);
	c->kind = CHECK_SOURCE;
	c->source_fd = open(source, O_RDONLY | O_CLOEXEC);
	if (c->source_fd < 0)
		return err_set(e, -errno, "cannot open %s to compare with: %s", source, strerror(errno));
	if (fstat(c->source_fd, &st))
		return err_set(e, -errno, "cannot stat %s: %s", source, strerror(errno));
	if ((uint64_t)st.st_size != size_bytes)
		return err_set(e, -EBADMSG, "%s has %llu bytes and its source %llu", path,
			       (unsigned long long)size_bytes, (unsigned long long)st.st_size);
	return 0;
}

void check_close(struct check *c)
{
	if (c->kind == CHECK_SOURCE && c->source_fd >= 0)
		close(c->source_fd);
	c->kind = CHECK_NONE;
}

static int expected_get(const struct check *c, uint64_t offset, void *buf, size_t len)
{
	ssize_t n;

	if (c->kind == CHECK_SEED) {
		content_fill(c->key, offset, buf, len);
		return 0;
	}
	for (size_t done = 0; done < len; done += (size_t)n) {
		n = pread(c->source_fd, (char *)buf + done, len - done, (off_t)(offset + done));
		if (n <= 0)
			return n ? -errno : -ENODATA;
	}
	return 0;
}

int64_t check_compare(const struct check *c, uint64_t offset, const void *bytes, size_t len, void *scratch,
		      uint64_t *ret_first, uint64_t *ret_compared)
{
	const unsigned char *have = bytes, *want = scratch;
	int64_t wrong = 0;
	size_t n, skip;

	*ret_compared = 0;
	if (c->kind == CHECK_NONE)
		return 0;
	if (c->kind == CHECK_SEED && offset < c->data_start_bytes) {
		skip = (size_t)min_of(c->data_start_bytes - offset, len);
		offset += skip;
		have += skip;
		len -= skip;
	}
	for (; len; offset += n, have += n, len -= n) {
		n = min_of(len, LOAD_COPY_BYTES);
		int rc = expected_get(c, offset, scratch, n);

		if (rc)
			return rc;
		*ret_compared += n;
		if (!memcmp(have, want, n))
			continue;
		for (size_t i = 0; i < n; i++)
			if (have[i] != want[i] && !wrong++)
				*ret_first = offset + i;
	}
	return wrong;
}
