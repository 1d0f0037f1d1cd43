// SPDX-License-Identifier: Apache-2.0
/*
 * Torch archives: zip files of stored records, each aligned to 64 bytes by an extra field, a pickle that names them,
 * and the directory at the end. Below 4 GiB and 65,535 records, so that no record needs zip64.
 */
#include <endian.h>
#include <string.h>

#include "base/buf.h"
#include "penstock-load-format.h"

#define ZIP_ALIGN_BYTES 64u
#define ZIP_RECORDS_MAX 65535u
#define ZIP_BYTES_MAX UINT32_MAX
#define ZIP_TAIL_MAX_BYTES (65535u + sizeof(struct zip_end))
#define PICKLE_MAX_BYTES (64u << 20)
#define FLAGS_STREAMED_UTF8 0x0808u /* sums follow the data; names are UTF-8 */
#define EXTRA_ID 0x4246u

struct zip_local {
	uint32_t magic; /* ZIP_LOCAL_MAGIC */
	uint16_t version, flags, method, time, date;
	uint32_t crc, packed_bytes, len_bytes;
	uint16_t name_len, extra_len;
} __attribute__((packed));

struct zip_sums {
	uint32_t magic, crc, packed_bytes, len_bytes;
} __attribute__((packed));

struct zip_entry {
	uint32_t magic;
	uint16_t version_made, version, flags, method, time, date;
	uint32_t crc, packed_bytes, len_bytes;
	uint16_t name_len, extra_len, comment_len, disk, attributes;
	uint32_t external, header_offset;
} __attribute__((packed));

struct zip_end {
	uint32_t magic;
	uint16_t disk, start_disk, here, nr;
	uint32_t directory_bytes, directory_offset;
	uint16_t comment_len;
} __attribute__((packed));

#define ZIP_LOCAL_MAGIC 0x04034b50u
#define ZIP_SUMS_MAGIC 0x08074b50u
#define ZIP_ENTRY_MAGIC 0x02014b50u
#define ZIP_END_MAGIC 0x06054b50u

/* --- reading --- */

void torch_records_done(struct torch_records *r)
{
	for (size_t i = 0; i < r->nr; i++)
		free(r->item[i].name);
	free(r->item);
	*r = (struct torch_records){};
}

bool torch_record_is_data(const struct torch_record *r)
{
	return strstr(r->name, "/data/") != NULL;
}

static int directory_parse(const unsigned char *bytes, size_t len, unsigned nr, struct torch_records *ret)
{
	struct zip_entry entry;

	ret->item = calloc(nr ? nr : 1, sizeof(*ret->item));
	if (!ret->item)
		return -ENOMEM;
	for (; ret->nr < nr; ret->nr++) {
		size_t name_len, all;

		if (len < sizeof(entry))
			return -EBADMSG;
		memcpy(&entry, bytes, sizeof(entry));
		name_len = le16toh(entry.name_len);
		all = sizeof(entry) + name_len + le16toh(entry.extra_len) + le16toh(entry.comment_len);
		if (le32toh(entry.magic) != ZIP_ENTRY_MAGIC || len < all || entry.method)
			return -EBADMSG;
		ret->item[ret->nr].name = strndup((const char *)bytes + sizeof(entry), name_len);
		if (!ret->item[ret->nr].name)
			return -ENOMEM;
		ret->item[ret->nr].header_offset = le32toh(entry.header_offset);
		ret->item[ret->nr].len_bytes = le32toh(entry.len_bytes);
		bytes += all;
		len -= all;
	}
	return 0;
}

int torch_directory_read(struct load_worker *w, struct load_file *f, struct torch_records *ret)
{
	size_t tail_len = (size_t)min_of(f->size_bytes, ZIP_TAIL_MAX_BYTES), at, len;
	_cleanup_free_ unsigned char *tail = malloc(tail_len), *directory = NULL;
	struct zip_end end = {};
	uint64_t offset;
	int rc;

	*ret = (struct torch_records){};
	if (!tail)
		return -ENOMEM;
	rc = tail_len < sizeof(end) ? -EBADMSG : load_bytes(w, f, f->size_bytes - tail_len, tail_len, tail);
	if (rc)
		return rc;
	for (at = tail_len - sizeof(end) + 1; at-- && le32toh(end.magic) != ZIP_END_MAGIC;)
		memcpy(&end, tail + at, sizeof(end));
	if (le32toh(end.magic) != ZIP_END_MAGIC)
		return -EBADMSG;
	offset = le32toh(end.directory_offset);
	len = le32toh(end.directory_bytes);
	if (offset > f->size_bytes || len > f->size_bytes - offset)
		return -EBADMSG;
	directory = malloc(len + 1);
	rc = directory ? load_bytes(w, f, offset, len, directory) : -ENOMEM;
	if (!rc)
		rc = directory_parse(directory, len, le16toh(end.nr), ret);
	if (rc)
		torch_records_done(ret);
	return rc;
}

int torch_record_locate(struct load_worker *w, struct load_file *f, const struct torch_record *r, uint64_t *ret_offset)
{
	struct zip_local local;
	int rc = load_bytes(w, f, r->header_offset, sizeof(local), &local);

	if (rc)
		return rc;
	*ret_offset = r->header_offset + sizeof(local) + le16toh(local.name_len) + le16toh(local.extra_len);
	if (le32toh(local.magic) != ZIP_LOCAL_MAGIC || *ret_offset > f->size_bytes ||
	    r->len_bytes > f->size_bytes - *ret_offset)
		return -EBADMSG;
	return 0;
}

int torch_read(struct load_worker *w, struct load_file *f, struct tensors *ret)
{
	struct torch_records records;
	int rc = torch_directory_read(w, f, &records);

	for (size_t i = 0; i < records.nr && !rc; i++) {
		const struct torch_record *r = &records.item[i];
		struct tensor t = { .name = r->name, .rows = r->len_bytes, .len_bytes = r->len_bytes };

		if (!torch_record_is_data(r))
			continue;
		rc = torch_record_locate(w, f, r, &t.offset);
		if (!rc)
			rc = tensors_add(ret, &t);
	}
	torch_records_done(&records);
	return rc;
}

/* --- the pickle: an OrderedDict of tensors, each rebuilt from a storage that is a record --- */

static void text_add(struct buf *b, const char *s, int *rc)
{
	uint32_t len = htole32((uint32_t)strlen(s));

	if (!*rc)
		*rc = buf_add(b, "X", 1);
	if (!*rc)
		*rc = buf_add(b, &len, sizeof(len));
	if (!*rc)
		*rc = buf_add_str(b, s);
}

static void code_add(struct buf *b, const char *code, int *rc)
{
	if (!*rc)
		*rc = buf_add_str(b, code);
}

static void number_add(struct buf *b, uint64_t v, int *rc)
{
	v = htole64(v);
	code_add(b, "\x8a\x08", rc);
	if (!*rc)
		*rc = buf_add(b, &v, sizeof(v));
}

static void tensor_pickle(struct buf *b, const struct tensor *t, size_t number, int *rc)
{
	char text[64];

	text_add(b, t->name, rc);
	code_add(b, "ctorch._utils\n_rebuild_tensor_v2\n((", rc);
	text_add(b, "storage", rc);
	snprintf(text, sizeof(text), "ctorch\n%s\n", dtypes[t->dtype].torch);
	code_add(b, text, rc);
	snprintf(text, sizeof(text), "%zu", number);
	text_add(b, text, rc);
	text_add(b, "cpu", rc);
	number_add(b, t->rows * max_of(t->columns, 1), rc);
	code_add(b, "tQ", rc);
	number_add(b, 0, rc);
	code_add(b, "(", rc);
	number_add(b, t->rows, rc);
	if (t->columns)
		number_add(b, t->columns, rc);
	code_add(b, "t(", rc);
	if (t->columns)
		number_add(b, t->columns, rc);
	number_add(b, 1, rc);
	code_add(b,
		 "t\x89"
		 "ccollections\nOrderedDict\n)RtR",
		 rc);
}

static int pickle_make(struct buf *b, const struct tensors *t)
{
	int rc = buf_add_str(b,
			     "\x80\x02"
			     "ccollections\nOrderedDict\n)R(");

	for (size_t i = 0; i < t->nr; i++)
		tensor_pickle(b, &t->item[i], i, &rc);
	code_add(b, "u.", &rc);
	return rc;
}

/* --- writing --- */

/* The header, padded so that the data that follows is aligned. */
static int record_begin(struct sink *s, const char *name, uint64_t len)
{
	size_t name_len = strlen(name), head = sizeof(struct zip_local) + name_len + 2 * sizeof(uint16_t);
	uint64_t data = (s->offset + head + ZIP_ALIGN_BYTES - 1) & ~(uint64_t)(ZIP_ALIGN_BYTES - 1);
	uint16_t extra[2] = { htole16(EXTRA_ID), htole16((uint16_t)(data - s->offset - head)) };
	struct zip_local local = {
		.magic = htole32(ZIP_LOCAL_MAGIC),
		.flags = htole16(FLAGS_STREAMED_UTF8),
		.packed_bytes = htole32((uint32_t)len),
		.len_bytes = htole32((uint32_t)len),
		.name_len = htole16((uint16_t)name_len),
		.extra_len = htole16((uint16_t)(data - s->offset - head + sizeof(extra))),
	};
	int rc;

	if (len > ZIP_BYTES_MAX || data + len > ZIP_BYTES_MAX)
		return -EFBIG;
	rc = sink_bytes(s, &local, sizeof(local));
	if (!rc)
		rc = sink_bytes(s, name, name_len);
	if (!rc)
		rc = sink_bytes(s, extra, sizeof(extra));
	return rc ? rc : sink_pad(s, 'Z', data);
}

/* Behind the data its sums, and an entry for the directory. */
static int record_end(struct sink *s, struct buf *directory, const char *name, uint64_t header_offset, uint64_t len)
{
	struct zip_sums sums = {
		.magic = htole32(ZIP_SUMS_MAGIC),
		.crc = htole32(s->crc),
		.packed_bytes = htole32((uint32_t)len),
		.len_bytes = htole32((uint32_t)len),
	};
	struct zip_entry entry = {
		.magic = htole32(ZIP_ENTRY_MAGIC),
		.flags = htole16(FLAGS_STREAMED_UTF8),
		.crc = sums.crc,
		.packed_bytes = sums.packed_bytes,
		.len_bytes = sums.len_bytes,
		.name_len = htole16((uint16_t)strlen(name)),
		.header_offset = htole32((uint32_t)header_offset),
	};
	int rc = sink_bytes(s, &sums, sizeof(sums));

	if (!rc)
		rc = buf_add(directory, &entry, sizeof(entry));
	return rc ? rc : buf_add_str(directory, name);
}

/* <bytes> NULL: the file's contents at that offset. */
static int record_write(struct sink *s, struct buf *directory, const char *name, const void *bytes, uint64_t len,
			uint64_t *ret_offset)
{
	uint64_t header_offset = s->offset;
	int rc = record_begin(s, name, len);

	if (rc)
		return rc;
	*ret_offset = s->offset;
	s->crc = 0;
	rc = bytes ? sink_bytes(s, bytes, (size_t)len) : sink_content(s, len);
	return rc ? rc : record_end(s, directory, name, header_offset, len);
}

static int directory_write(struct sink *s, const struct buf *directory, size_t nr)
{
	struct zip_end end = {
		.magic = htole32(ZIP_END_MAGIC),
		.here = htole16((uint16_t)nr),
		.nr = htole16((uint16_t)nr),
		.directory_bytes = htole32((uint32_t)directory->len),
		.directory_offset = htole32((uint32_t)s->offset),
	};
	int rc = s->offset + directory->len > ZIP_BYTES_MAX ? -EFBIG : sink_bytes(s, directory->data, directory->len);

	return rc ? rc : sink_bytes(s, &end, sizeof(end));
}

int torch_write(struct sink *s, struct tensors *t)
{
	_cleanup_buf_ struct buf directory, pickle;
	char name[64];
	uint64_t offset;
	int rc;

	buf_init(&directory, PICKLE_MAX_BYTES);
	buf_init(&pickle, PICKLE_MAX_BYTES);
	if (t->nr + 3 > ZIP_RECORDS_MAX)
		return -E2BIG;
	s->with_crc = true;
	rc = pickle_make(&pickle, t);
	if (!rc)
		rc = record_write(s, &directory, "archive/data.pkl", pickle.data, pickle.len, &offset);
	if (!rc)
		rc = record_write(s, &directory, "archive/byteorder", "little", 6, &offset);
	for (size_t i = 0; i < t->nr && !rc; i++) {
		snprintf(name, sizeof(name), "archive/data/%zu", i);
		rc = record_write(s, &directory, name, NULL, t->item[i].len_bytes, &t->item[i].offset);
	}
	if (!rc)
		rc = record_write(s, &directory, "archive/version", "3\n", 2, &offset);
	return rc ? rc : directory_write(s, &directory, t->nr + 3);
}
