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
#include "penstock-load-format.h"

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

/* Headers are no contents: what a seed tells is where tensors lie, or all of a file of no known format. */
static int extents_get(struct check *c, const char *path, uint64_t size_bytes, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct load_file f = { .path = (char *)path, .size_bytes = size_bytes, .fd = fd };
	struct tensors tensors;
	enum load_kind kind;
	int rc;

	if (format_kind_of(path, &kind))
		return 0;
	if (fd < 0)
		return err_set(e, -errno, "cannot open %s: %s", path, strerror(errno));
	if (!format_is_plain(&f, kind)) {
		rc = format_tensors_read(NULL, &f, &tensors, e);
		if (rc)
			return rc;
		c->data = calloc(tensors.nr + 1, sizeof(*c->data));
		for (size_t i = 0; i < tensors.nr && c->data; i++)
			c->data[c->nr_data++] = (struct extent){ tensors.item[i].offset, tensors.item[i].len_bytes };
		tensors_done(&tensors);
		if (!c->data)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

int check_open(struct check *c, const char *spec, const char *path, uint64_t size_bytes, struct err *e)
{
	char source[4096];
	struct stat st;
	uint64_t seed;
	int rc;

	*c = (struct check){ .source_fd = -1 };
	if (!spec)
		return 0;
	if (!number_parse(spec, 0, UINT64_MAX, &seed)) {
		c->kind = CHECK_SEED;
		c->key = content_key(seed, base_name(path));
		return extents_get(c, path, size_bytes, e);
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
	free(c->data);
	c->data = NULL;
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

/* Compares bytes that are all known; adds to *ret_compared. */
static int64_t range_compare(const struct check *c, uint64_t offset, const unsigned char *have, size_t len,
			     unsigned char *want, uint64_t *ret_first, uint64_t *ret_compared)
{
	int64_t wrong = 0;
	size_t n;

	for (; len; offset += n, have += n, len -= n) {
		n = min_of(len, LOAD_COPY_BYTES);
		int rc = expected_get(c, offset, want, n);

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

/* The first extent that ends behind <offset>. */
static size_t extent_find(const struct check *c, uint64_t offset)
{
	size_t low = 0, high = c->nr_data;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (c->data[mid].offset + c->data[mid].len_bytes > offset)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

int64_t check_compare(const struct check *c, uint64_t offset, const void *bytes, size_t len, void *scratch,
		      uint64_t *ret_first, uint64_t *ret_compared)
{
	int64_t wrong = 0, n;

	*ret_compared = 0;
	if (c->kind == CHECK_NONE)
		return 0;
	if (!c->data)
		return range_compare(c, offset, bytes, len, scratch, ret_first, ret_compared);
	for (size_t i = extent_find(c, offset); i < c->nr_data && c->data[i].offset < offset + len; i++) {
		uint64_t from = max_of(c->data[i].offset, offset), first = 0;
		uint64_t to = min_of(c->data[i].offset + c->data[i].len_bytes, offset + len);

		n = range_compare(c, from, (const unsigned char *)bytes + (from - offset), (size_t)(to - from), scratch,
				  &first, ret_compared);
		if (n < 0)
			return n;
		if (n && !wrong)
			*ret_first = first;
		wrong += n;
	}
	return wrong;
}
