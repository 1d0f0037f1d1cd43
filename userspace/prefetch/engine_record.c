// SPDX-License-Identifier: Apache-2.0
/*
 * Recorded profiles of models: made from what readers accessed, kept in the profile directory, followed by the next
 * load of the same version.
 *
 * Design: a profile's file is named by a digest of the model's keys, ETags and sizes, so that one of another version is
 * never found. A load has ended when nobody accessed the model for a while; then its profile is merged with the one
 * that is there and replaces it by rename(). What cannot be read, or is not right, is left out with a line in the log.
 * Threads: accesses from any, under the model's lock; files are read and written on the engine's thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "prefetch/engine_i.h"

#define BUILDER_MAX_BYTES (16u << 20)
/* A load has ended after so long without an access: with all files closed, and with mappings that stay. */
#define CLOSED_END_NS (2 * NSEC_PER_SEC)
#define OPEN_END_NS (60 * NSEC_PER_SEC)
/* Of what an older profile has read: a load of another layout that reads less does not replace it. */
#define REPLACES_PART 8

static int listed_compare(const void *a, const void *b, void *ctx)
{
	const struct listing *l = ctx;

	return strcmp(l->item[*(const uint32_t *)a].name, l->item[*(const uint32_t *)b].name);
}

/* Names, ETags and sizes, each with its end. */
static int digest_update(EVP_MD_CTX *md, const struct listing *l, const uint32_t *file, size_t nr)
{
	int ok = EVP_DigestInit_ex(md, EVP_sha256(), NULL);

	for (size_t i = 0; ok && i < nr; i++) {
		const struct listed *item = &l->item[file[i]];
		char size[32];

		ok = EVP_DigestUpdate(md, item->name, strlen(item->name) + 1) &&
		     EVP_DigestUpdate(md, item->etag, strlen(item->etag) + 1) &&
		     EVP_DigestUpdate(md, size, (size_t)snprintf(size, sizeof(size), "%" PRIu64, item->size_bytes) + 1);
	}
	return ok ? 0 : -EIO;
}

int engine_dataset_digest(const struct listing *l, const uint32_t *file, size_t nr, uint8_t ret[PROFILE_DATASET_BYTES])
{
	_cleanup_free_ uint32_t *sorted = calloc(nr + 1, sizeof(*sorted));
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int rc = -ENOMEM;

	if (sorted && md) {
		memcpy(sorted, file, nr * sizeof(*sorted));
		qsort_r(sorted, nr, sizeof(*sorted), listed_compare, (void *)l);
		rc = digest_update(md, l, sorted, nr);
		if (rc == 0 && !EVP_DigestFinal_ex(md, ret, NULL))
			rc = -EIO;
	}
	EVP_MD_CTX_free(md);
	return rc;
}

static void profile_path(const struct engine *e, const uint8_t digest[PROFILE_DATASET_BYTES], char *ret, size_t room)
{
	char name[PROFILE_NAME_BYTES];

	profile_name(digest, name);
	snprintf(ret, room, "%s/%s", e->profile_dir, name);
}

static int file_read(const char *path, struct buf *out)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char piece[16384];
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		int rc = buf_add(out, piece, (size_t)n);

		if (rc < 0)
			return rc;
	}
	return n < 0 ? -errno : 0;
}

/* Is it a profile of this version? An error has been told. */
static int profile_take(const void *bytes, size_t len, const char *from, const uint8_t digest[PROFILE_DATASET_BYTES],
			struct profile **ret)
{
	struct err why = { 0 };
	int rc = profile_decode(bytes, len, ret, &why);

	if (rc == 0 && memcmp((*ret)->dataset, digest, PROFILE_DATASET_BYTES) != 0) {
		profile_free(take_ptr(*ret));
		rc = err_set(&why, -EBADMSG, "it belongs to another version of the data");
	}
	if (rc < 0)
		log_info("prefetch", "profile %s is not used: %s", from, why.msg[0] ? why.msg : strerror(-rc));
	return rc;
}

/* The profile of this version in our directory: 0, -ENOENT, or an error that has been told. */
static int profile_read(const struct engine *e, const uint8_t digest[PROFILE_DATASET_BYTES], struct profile **ret)
{
	_cleanup_buf_ struct buf bytes;
	char path[PATH_MAX + 80];
	int rc;

	buf_init(&bytes, PROFILE_ENCODED_MAX_BYTES);
	profile_path(e, digest, path, sizeof(path));
	rc = file_read(path, &bytes);
	if (rc < 0 && rc != -ENOENT)
		log_info("prefetch", "profile %s is not used: %s", path, strerror(-rc));
	return rc < 0 ? rc : profile_take(bytes.data, bytes.len, path, digest, ret);
}

/* The one that came with the data. */
static int profile_fetch(struct engine *e, const uint8_t digest[PROFILE_DATASET_BYTES], struct profile **ret)
{
	char dir[S3_KEY_MAX + 1], name[PROFILE_NAME_BYTES], key[sizeof(dir) + sizeof(name)];
	_cleanup_free_ char *bytes = NULL;
	struct listing l;
	int rc = -ENOENT;

	profile_name(digest, name);
	if (snprintf(dir, sizeof(dir), "%s" ENGINE_PROFILES_DIR, e->prefix) >= (int)sizeof(dir) ||
	    engine_list(e, dir, false, &l) < 0)
		return -ENOENT;
	snprintf(key, sizeof(key), "%s%s", dir, name);
	for (size_t i = 0; i < l.nr; i++) {
		if (strcmp(l.item[i].name, name) != 0)
			continue;
		rc = engine_listed_bytes(e, &l, &l.item[i], PROFILE_ENCODED_MAX_BYTES, &bytes);
		if (rc == 0)
			rc = profile_take(bytes, l.item[i].size_bytes, key, digest, ret);
		break;
	}
	listing_done(&l);
	return rc;
}

static int file_write(const char *path, const struct buf *bytes)
{
	char tmp[PATH_MAX + 96];
	int rc = 0, fd;

	snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	(void)fchmod(fd, 0644);
	for (size_t at = 0; at < bytes->len && rc == 0;) {
		ssize_t n = write(fd, bytes->data + at, bytes->len - at);

		if (n < 0)
			rc = -errno;
		else
			at += (size_t)n;
	}
	if (fsync(fd) < 0 && rc == 0)
		rc = -errno;
	close(fd);
	if (rc == 0 && rename(tmp, path) < 0)
		rc = -errno;
	if (rc < 0)
		unlink(tmp);
	return rc;
}

static int profile_write(const struct engine *e, const struct profile *p)
{
	_cleanup_buf_ struct buf bytes;
	char path[PATH_MAX + 80];
	uint32_t left_out;
	int rc;

	buf_init(&bytes, PROFILE_ENCODED_MAX_BYTES);
	profile_path(e, p->dataset, path, sizeof(path));
	rc = profile_encode(p, &bytes, &left_out);
	if (rc == 0 && mkdir(e->profile_dir, 0755) < 0 && errno != EEXIST)
		rc = -errno;
	if (rc == 0)
		rc = file_write(path, &bytes);
	if (rc < 0)
		log_warn("prefetch", "profile %s cannot be written: %s", path, strerror(-rc));
	else
		log_info("prefetch", "profile %s: %u accesses of %u readers, load %u%s", path, p->nr_accesses,
			 p->nr_ranks, p->nr_loads, left_out ? ", cut to size" : "");
	return rc;
}

/* A file of the profile among the plan's files; they were named below the model's directory. */
static int profile_file_find(const struct listing *l, const uint32_t *file, size_t nr, const struct profile_file *f)
{
	for (size_t i = 0; i < nr; i++) {
		const struct listed *item = &l->item[file[i]];

		if (strcmp(item->name, f->key) == 0 && strcmp(item->etag, f->etag) == 0 &&
		    item->size_bytes == f->size_bytes)
			return (int)i;
	}
	return -ENOENT;
}

int engine_profile_plan(struct engine *e, struct engine_model *m, const struct listing *l, const uint32_t *file,
			size_t nr)
{
	_cleanup_free_ int *place = NULL;
	struct walk_cursor cursor = { 0 };
	struct profile *p = NULL;
	struct profile_range r;
	int rc = e->profile_dir[0] ? profile_read(e, m->digest, &p) : -ENOENT;

	if (rc < 0)
		rc = profile_fetch(e, m->digest, &p);
	if (rc < 0)
		return -ENOENT;
	place = calloc(p->nr_files + 1, sizeof(*place));
	rc = place ? 0 : -ENOMEM;
	for (uint32_t i = 0; rc == 0 && i < p->nr_files; i++) {
		place[i] = profile_file_find(l, file, nr, &p->file[i]);
		rc = min_of(place[i], 0);
	}
	for (size_t i = 0; rc == 0 && i < nr; i++)
		rc = min_of(sched_file_add(m->sched, l->item[file[i]].size_bytes), 0);
	while (rc == 0 && profile_next(p, &cursor, CACHE_CHUNK_BYTES, &r) == 1) {
		uint64_t size = l->item[file[place[r.file]]].size_bytes;

		/* Blocks: the last one of a file is shorter. */
		if (r.offset < size)
			rc = sched_range_add(m->sched, (uint32_t)place[r.file], r.offset,
					     min_of(r.len, size - r.offset));
	}
	m->profiled = rc == 0;
	m->profile_loads = p->nr_loads;
	profile_free(p);
	return rc;
}

void engine_record_start(struct engine *e, struct engine_model *m)
{
	struct profile_builder *b = NULL;
	size_t skip = strlen(m->name);
	uint32_t file;

	if (!m->whole || !m->has_digest || !e->profile_dir[0] ||
	    profile_builder_new(m->digest, BUILDER_MAX_BYTES, &b) < 0)
		return;
	for (size_t i = 0; i < m->nr_objects; i++) {
		const struct cache_object *o = m->object[i];

		/* File numbers are those of the plan. */
		if (profile_builder_file(b, cache_object_key(o) + skip, cache_object_etag(o), cache_object_size(o),
					 &file) < 0) {
			profile_builder_free(b);
			return;
		}
	}
	m->builder = b;
}

void engine_record_access(struct engine_model *m, uint32_t file, const struct engine_access *a)
{
	if (m->builder && profile_builder_add(m->builder, a->pid, file, a->offset, a->len, a->ns) == 0)
		m->recorded_ns = clock_mono_ns();
}

bool engine_record_any(const struct engine_model *m)
{
	return m->builder && m->recorded_ns;
}

bool engine_record_due(const struct engine_model *m, bool closed)
{
	return engine_record_any(m) && clock_mono_ns() - m->recorded_ns > (closed ? CLOSED_END_NS : OPEN_END_NS);
}

/* Somebody who only looked around is no load. */
static bool replaces(const struct profile *new, const struct profile *old)
{
	struct profile_summary a, b;

	profile_summarize(new, &a);
	profile_summarize(old, &b);
	return a.read_bytes >= b.read_bytes / REPLACES_PART * (REPLACES_PART - 1);
}

void engine_record_write(struct engine *e, struct engine_model *m)
{
	struct profile *new = NULL, *old = NULL, *merged = NULL;
	struct profile_builder *b;
	int rc;

	pthread_mutex_lock(&m->lock);
	b = take_ptr(m->builder);
	m->recorded_ns = 0;
	engine_record_start(e, m);
	pthread_mutex_unlock(&m->lock);
	rc = profile_builder_finish(b, &new);
	profile_builder_free(b);
	if (rc < 0)
		return;
	rc = profile_read(e, m->digest, &old);
	if (rc == 0 && profile_merge(old, new, &merged) == 0) {
		profile_free(new);
		new = merged;
	} else if (rc == 0 && !replaces(new, old)) {
		goto out;
	}
	if (profile_write(e, new) == 0)
		m->profile_loads = new->nr_loads;
out:
	profile_free(old);
	profile_free(new);
}
