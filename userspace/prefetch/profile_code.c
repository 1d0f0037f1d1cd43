// SPDX-License-Identifier: Apache-2.0
/*
 * A profile as bytes.
 *
 *	 0  "PSTKPROF"
 *	 8  version, 32 bits
 *	12  CRC-32C of all that follows
 *	16  length of all that follows these 8 bytes, 64 bits
 *	24  dataset, 32 bytes
 *	56  loads; files (key, ETag, size); ranks (first block, span, blocks); accesses
 *
 * Fixed numbers are little endian, the rest are 7 bits a byte, low ones first. Strings and lists begin with their
 * length. An access begins with flags; what they do not name is as in the access before, and its first block follows
 * the one before in the same file.
 */
#include "prefetch/profile.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/crc32c.h"

#define MAGIC "PSTKPROF"
#define CRC_AT 12
#define LENGTH_AT 16
#define BODY_AT 24
#define ACCESS_MAX_BYTES 32

enum flag { FLAG_FILE = 1, FLAG_RANK = 2, FLAG_SEEK = 4, FLAG_TIME = 8, FLAG_AGE_SHIFT = 4, FLAG_ALL = 0x3f };

/* What the next access is a difference to. */
struct before {
	uint32_t file, time_ms;
	uint8_t rank;
	uint32_t *end; /* of each file: where its last access ended */
};

static void put_le(uint8_t *p, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get_le(const uint8_t *p, int bytes)
{
	uint64_t v = 0;

	for (int i = 0; i < bytes; i++)
		v |= (uint64_t)p[i] << 8 * i;
	return v;
}

static size_t put_number(uint8_t *p, uint64_t v)
{
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		p[n++] = (uint8_t)(v | 0x80);
	p[n++] = (uint8_t)v;
	return n;
}

static int add_number(struct buf *out, uint64_t v)
{
	uint8_t bytes[10];

	return buf_add(out, bytes, put_number(bytes, v));
}

static int add_string(struct buf *out, const char *s)
{
	int rc = add_number(out, strlen(s));

	return rc < 0 ? rc : buf_add_str(out, s);
}

static int encode_tables(const struct profile *p, struct buf *out)
{
	int rc = buf_add(out, p->dataset, sizeof(p->dataset));

	if (rc == 0)
		rc = add_number(out, p->nr_loads);
	if (rc == 0)
		rc = add_number(out, p->nr_files);
	for (uint32_t i = 0; rc == 0 && i < p->nr_files; i++) {
		rc = add_string(out, p->file[i].key);
		if (rc == 0)
			rc = add_string(out, p->file[i].etag);
		if (rc == 0)
			rc = add_number(out, p->file[i].size_bytes);
	}
	if (rc == 0)
		rc = add_number(out, p->nr_ranks);
	for (uint32_t i = 0; rc == 0 && i < p->nr_ranks; i++) {
		rc = add_number(out, p->rank[i].lo);
		if (rc == 0)
			rc = add_number(out, p->rank[i].hi - p->rank[i].lo);
		if (rc == 0)
			rc = add_number(out, p->rank[i].nr_blocks);
	}
	return rc;
}

static size_t encode_access(const struct profile_access *a, struct before *b, uint8_t *bytes)
{
	int64_t jump = (int64_t)a->block - b->end[a->file];
	uint8_t flags = (uint8_t)(a->age << FLAG_AGE_SHIFT);
	size_t n = 1;

	if (a->file != b->file) {
		flags |= FLAG_FILE;
		n += put_number(bytes + n, a->file);
	}
	if (a->rank != b->rank) {
		flags |= FLAG_RANK;
		n += put_number(bytes + n, a->rank);
	}
	if (jump) {
		flags |= FLAG_SEEK;
		n += put_number(bytes + n, jump < 0 ? (uint64_t)-jump * 2 - 1 : (uint64_t)jump * 2);
	}
	if (a->time_ms != b->time_ms) {
		flags |= FLAG_TIME;
		n += put_number(bytes + n, a->time_ms - b->time_ms);
	}
	n += put_number(bytes + n, a->nr_blocks);
	bytes[0] = flags;
	b->file = a->file;
	b->rank = a->rank;
	b->time_ms = a->time_ms;
	b->end[a->file] = a->block + a->nr_blocks;
	return n;
}

/* As many accesses as fit in <max_bytes>. */
static int encode_accesses(const struct profile *p, size_t max_bytes, struct buf *out, uint32_t *ret_nr)
{
	_cleanup_free_ uint32_t *end = calloc(p->nr_files, sizeof(*end));
	struct before before = { .end = end };
	uint8_t bytes[ACCESS_MAX_BYTES];
	uint32_t i = 0;

	if (!end)
		return -ENOMEM;
	for (; i < p->nr_accesses; i++) {
		size_t n = encode_access(&p->access[i], &before, bytes);
		int rc = n > max_bytes - out->len ? -E2BIG : buf_add(out, bytes, n);

		if (rc == -E2BIG)
			break;
		if (rc < 0)
			return rc;
	}
	*ret_nr = i;
	return 0;
}

int profile_encode(const struct profile *p, struct buf *out, uint32_t *ret_left_out)
{
	size_t max_bytes = min_of(out->max, (size_t)PROFILE_ENCODED_MAX_BYTES), room;
	_cleanup_buf_ struct buf accesses = { 0 };
	uint8_t head[BODY_AT] = MAGIC;
	uint32_t nr = 0;
	int rc = buf_add(out, head, sizeof(head));

	if (rc == 0)
		rc = encode_tables(p, out);
	if (rc < 0)
		return rc;
	if (out->len + sizeof(uint32_t) + 1 > max_bytes)
		return -E2BIG;
	room = max_bytes - out->len - sizeof(uint32_t) - 1;
	buf_init(&accesses, room);
	rc = encode_accesses(p, room, &accesses, &nr);
	if (rc == 0)
		rc = add_number(out, nr);
	if (rc == 0)
		rc = buf_add(out, accesses.data, accesses.len);
	if (rc < 0)
		return rc;
	put_le((uint8_t *)out->data + 8, PROFILE_VERSION, 4);
	put_le((uint8_t *)out->data + LENGTH_AT, out->len - BODY_AT, 8);
	put_le((uint8_t *)out->data + CRC_AT, crc32c(0, out->data + LENGTH_AT, out->len - LENGTH_AT), 4);
	*ret_left_out = p->nr_accesses - nr;
	return 0;
}

/* Bytes still to be decoded; <bad> once they end early or a number does not fit. */
struct in {
	const uint8_t *at, *end;
	bool bad;
};

static uint64_t in_number(struct in *in, uint64_t max)
{
	uint64_t v = 0;

	for (unsigned shift = 0; in->at < in->end && shift < 64; shift += 7) {
		uint8_t byte = *in->at++;

		if (shift == 63 && byte > 1)
			break;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (byte & 0x80)
			continue;
		if (v > max)
			break;
		return v;
	}
	in->bad = true;
	return 0;
}

/* NULL for a bad string, or when there is no memory, which is not told apart: both end the decoding. */
static char *in_string(struct in *in, size_t max)
{
	size_t len = (size_t)in_number(in, max);
	char *s;

	if (in->bad || (size_t)(in->end - in->at) < len || memchr(in->at, 0, len)) {
		in->bad = true;
		return NULL;
	}
	s = strndup((const char *)in->at, len);
	in->at += len;
	return s;
}

static int decode_files(struct in *in, struct profile *p, struct err *e)
{
	uint32_t nr = (uint32_t)in_number(in, PROFILE_FILES_MAX);

	if (in->bad || !nr || (size_t)(in->end - in->at) < nr)
		return err_set(e, -EBADMSG, "its table of files is damaged");
	p->file = calloc(nr, sizeof(*p->file));
	if (!p->file)
		return err_set(e, -ENOMEM, "no memory for a profile of %u files", nr);
	for (uint32_t i = 0; i < nr; i++) {
		struct profile_file *f = &p->file[p->nr_files++];

		f->key = in_string(in, PROFILE_KEY_MAX_BYTES);
		f->etag = in->bad ? NULL : in_string(in, PROFILE_ETAG_MAX_BYTES);
		f->size_bytes = in_number(in, PROFILE_FILE_MAX_BYTES);
		if (!in->bad && (!f->key || !f->etag))
			return err_set(e, -ENOMEM, "no memory for a profile of %u files", nr);
		if (in->bad || !*f->key || (i && strcmp(f[-1].key, f->key) >= 0))
			return err_set(e, -EBADMSG, "file %u of its table is damaged or out of order", i);
	}
	return 0;
}

static int decode_ranks(struct in *in, struct profile *p, struct err *e)
{
	p->nr_ranks = (uint32_t)in_number(in, PROFILE_RANKS_MAX);
	for (uint32_t i = 0; i < p->nr_ranks; i++) {
		struct profile_rank *r = &p->rank[i];

		r->lo = in_number(in, INT64_MAX);
		r->hi = r->lo + in_number(in, INT64_MAX);
		r->nr_blocks = in_number(in, r->hi - r->lo);
	}
	return in->bad || !p->nr_ranks ? err_set(e, -EBADMSG, "its table of readers is damaged") : 0;
}

static void decode_access(struct in *in, const struct profile *p, struct before *b, struct profile_access *ret)
{
	uint8_t flags = (uint8_t)in_number(in, FLAG_ALL);
	struct profile_access a = { .file = b->file, .time_ms = b->time_ms, .rank = b->rank };
	uint64_t blocks, jump, block;

	if (flags & FLAG_FILE)
		a.file = (uint32_t)in_number(in, p->nr_files - 1);
	if (flags & FLAG_RANK)
		a.rank = (uint8_t)in_number(in, p->nr_ranks - 1);
	block = b->end[a.file];
	if (flags & FLAG_SEEK) {
		jump = in_number(in, UINT64_MAX);
		/* What a jump before the start wraps to is past any end. */
		block += jump & 1 ? -(jump / 2) - 1 : jump / 2;
	}
	if (flags & FLAG_TIME)
		a.time_ms += (uint32_t)in_number(in, UINT32_MAX - a.time_ms);
	a.nr_blocks = (uint16_t)in_number(in, PROFILE_RUN_BLOCKS_MAX);
	a.age = flags >> FLAG_AGE_SHIFT;
	blocks = (p->file[a.file].size_bytes + PROFILE_BLOCK_BYTES - 1) / PROFILE_BLOCK_BYTES;
	if (!a.nr_blocks || a.age >= PROFILE_LOADS_KEPT || block >= blocks || a.nr_blocks > blocks - block)
		in->bad = true;
	if (in->bad)
		return;
	a.block = (uint32_t)block;
	b->file = a.file;
	b->rank = a.rank;
	b->time_ms = a.time_ms;
	b->end[a.file] = a.block + a.nr_blocks;
	*ret = a;
}

static int decode_accesses(struct in *in, struct profile *p, struct err *e)
{
	_cleanup_free_ uint32_t *end = calloc(p->nr_files, sizeof(*end));
	struct before before = { .end = end };
	uint32_t nr = (uint32_t)in_number(in, PROFILE_ACCESSES_MAX);

	/* The shortest access has two bytes. */
	if (in->bad || !nr || (size_t)(in->end - in->at) / 2 < nr)
		return err_set(e, -EBADMSG, "its list of accesses is damaged");
	p->access = calloc(nr, sizeof(*p->access));
	if (!end || !p->access)
		return err_set(e, -ENOMEM, "no memory for a profile of %u accesses", nr);
	for (; p->nr_accesses < nr; p->nr_accesses++) {
		decode_access(in, p, &before, &p->access[p->nr_accesses]);
		if (in->bad)
			return err_set(e, -EBADMSG, "access %u of its list is damaged", p->nr_accesses);
	}
	return in->at == in->end ? 0 : err_set(e, -EBADMSG, "something follows its list of accesses");
}

static int check_frame(const uint8_t *bytes, size_t len, struct err *e)
{
	if (len < BODY_AT || memcmp(bytes, MAGIC, strlen(MAGIC)) != 0)
		return err_set(e, -ENOEXEC, "it is no profile");
	if (get_le(bytes + 8, 4) != PROFILE_VERSION)
		return err_set(e, -ENOTSUP, "it is a profile of version %u, this program reads version %d",
			       (unsigned)get_le(bytes + 8, 4), PROFILE_VERSION);
	if (len > PROFILE_ENCODED_MAX_BYTES)
		return err_set(e, -EBADMSG, "it is larger than %u bytes", PROFILE_ENCODED_MAX_BYTES);
	if (get_le(bytes + LENGTH_AT, 8) != len - BODY_AT)
		return err_set(e, -EBADMSG, "it is truncated, or has something at its end");
	if (get_le(bytes + CRC_AT, 4) != crc32c(0, bytes + LENGTH_AT, len - LENGTH_AT))
		return err_set(e, -EBADMSG, "its checksum is wrong");
	return 0;
}

static void cleanup_profile(struct profile **p)
{
	profile_free(*p);
}

int profile_decode(const void *bytes, size_t len, struct profile **ret_profile, struct err *e)
{
	_cleanup_(cleanup_profile) struct profile *p = NULL;
	struct in in = { .at = bytes, .end = (const uint8_t *)bytes + len };
	int rc = check_frame(bytes, len, e);

	if (rc < 0)
		return rc;
	in.at += BODY_AT;
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, "no memory for a profile");
	if (in.end - in.at < PROFILE_DATASET_BYTES)
		return err_set(e, -EBADMSG, "it is too short");
	memcpy(p->dataset, in.at, PROFILE_DATASET_BYTES);
	in.at += PROFILE_DATASET_BYTES;
	p->nr_loads = (uint32_t)in_number(&in, UINT32_MAX);
	rc = decode_files(&in, p, e);
	if (rc == 0)
		rc = decode_ranks(&in, p, e);
	if (rc == 0)
		rc = decode_accesses(&in, p, e);
	if (rc < 0)
		return rc;
	*ret_profile = take_ptr(p);
	return 0;
}

void profile_name(const uint8_t dataset[PROFILE_DATASET_BYTES], char ret[PROFILE_NAME_BYTES])
{
	for (unsigned i = 0; i < PROFILE_DATASET_BYTES / 2; i++)
		snprintf(ret + i * 2, 3, "%02x", dataset[i]);
	memcpy(ret + PROFILE_DATASET_BYTES, PROFILE_SUFFIX, sizeof(PROFILE_SUFFIX));
}
