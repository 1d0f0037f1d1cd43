// SPDX-License-Identifier: Apache-2.0
/*
 * torch zip archives: the end record, for large archives its 64-bit forms, then the central directory.
 *
 * Design: where a record's bytes begin stands only in its local header, which is padded to 64 bytes: one request for
 * each. So a record spans from its local header to the next one's, which costs at most a few bytes more than it has.
 * Records are stored as they are; an archive with compressed ones is no checkpoint.
 */
#include "prefetch/format_i.h"

#include <string.h>

#include "base/cleanup.h"

#define END_BYTES 22
#define LOCATOR_BYTES 20
#define END64_BYTES 56
#define ENTRY_BYTES 46
#define LOCAL_BYTES 30
#define END_SIGNATURE 0x06054b50u
#define LOCATOR_SIGNATURE 0x07064b50u
#define END64_SIGNATURE 0x06064b50u
#define ENTRY_SIGNATURE 0x02014b50u
#define EXTRA_ZIP64 1

enum state { STATE_TAIL = 0, STATE_END64, STATE_ENTRY };

void zip_begin(struct format_parser *p)
{
	p->pos = p->file_bytes - min_of(p->file_bytes, (uint64_t)FORMAT_FIRST_PIECE_BYTES);
}

static int set_directory(struct format_parser *p, uint64_t offset, uint64_t len, uint64_t nr, uint64_t end,
			 struct err *e)
{
	if (offset > end || len > end - offset)
		return err_set(e, -EBADMSG, "its directory is not where it says: is it truncated?");
	if (nr > FORMAT_TENSORS_MAX)
		return err_set(e, -E2BIG, "it has more than %u records", FORMAT_TENSORS_MAX);
	if (!nr)
		return err_set(e, -ENOEXEC, "it is an empty zip archive");
	p->pos = p->zip.directory = offset;
	p->limit = offset + len;
	p->piece = FORMAT_PIECE_MAX_BYTES;
	p->left = nr;
	p->state = STATE_ENTRY;
	return 0;
}

/* The end record is the last one whose comment ends where the file ends. */
static const uint8_t *find_end(const uint8_t *bytes, size_t len)
{
	for (size_t back = END_BYTES; back <= len && back <= END_BYTES + UINT16_MAX; back++) {
		const uint8_t *at = bytes + len - back;

		if (get_le32(at) == END_SIGNATURE && get_le16(at + 20) == back - END_BYTES)
			return at;
	}
	return NULL;
}

static int step_tail(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	const uint8_t *end, *locator;
	uint64_t end_at, end64_at;

	if (len < p->file_bytes - p->pos)
		return -EAGAIN;
	end = find_end(bytes, len);
	if (!end)
		return err_set(e, -ENOEXEC, "it does not end as a zip archive does");
	end_at = p->pos + (uint64_t)(end - bytes);
	locator = end - bytes >= LOCATOR_BYTES ? end - LOCATOR_BYTES : NULL;
	if (!locator || get_le32(locator) != LOCATOR_SIGNATURE)
		return set_directory(p, get_le32(end + 16), get_le32(end + 12), get_le16(end + 10), end_at, e);
	end64_at = get_le64(locator + 8);
	if (end64_at > end_at - LOCATOR_BYTES || end_at - LOCATOR_BYTES - end64_at < END64_BYTES)
		return err_set(e, -EBADMSG, "its 64-bit end record is not where it says");
	p->zip.end64 = end64_at;
	p->pos = end64_at;
	p->state = STATE_END64;
	return 0;
}

static int step_end64(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	if (len < END64_BYTES)
		return -EAGAIN;
	if (get_le32(bytes) != END64_SIGNATURE)
		return err_set(e, -EBADMSG, "its 64-bit end record is not where it says");
	return set_directory(p, get_le64(bytes + 48), get_le64(bytes + 40), get_le64(bytes + 32), p->zip.end64, e);
}

/* The 64-bit values that stand in the extra field for those that are all ones. */
static int wide_values(const uint8_t *extra, size_t len, uint64_t *sizes[3])
{
	while (len >= 4) {
		uint32_t id = get_le16(extra), field = get_le16(extra + 2);

		extra += 4;
		len -= 4;
		if (field > len)
			return -EBADMSG;
		for (size_t i = 0, at = 0; id == EXTRA_ZIP64 && i < 3; i++) {
			if (*sizes[i] != UINT32_MAX)
				continue;
			if (field - at < 8)
				return -EBADMSG;
			*sizes[i] = get_le64(extra + at);
			at += 8;
		}
		if (id == EXTRA_ZIP64)
			return 0;
		extra += field;
		len -= field;
	}
	return 0;
}

/* A record of a checkpoint is ARCHIVE/data/NUMBER or ARCHIVE/data.pkl. */
static bool is_torch_name(const char *name, size_t len)
{
	const char *slash = memchr(name, '/', len);
	size_t rest = slash ? len - (size_t)(slash + 1 - name) : 0;

	return (rest > 5 && memcmp(slash + 1, "data/", 5) == 0) || (rest == 8 && memcmp(slash + 1, "data.pkl", 8) == 0);
}

static int finish(struct format_parser *p, struct err *e)
{
	uint64_t directory = p->zip.directory;
	struct format_range head = { .offset = directory, .len = p->file_bytes - directory };
	struct format_list *l = &p->list;

	if (!p->zip.is_torch)
		return err_set(e, -ENOEXEC, "it is a zip archive, but not a checkpoint");
	format_list_sort(l);
	for (uint32_t i = 0; i < l->nr; i++) {
		uint64_t next = i + 1 < l->nr ? l->item[i + 1].offset : directory;

		if (l->item[i].offset > next || next - l->item[i].offset < LOCAL_BYTES ||
		    l->item[i].len > next - l->item[i].offset - LOCAL_BYTES)
			return err_set(e, -EBADMSG, "its records overlap");
		l->item[i].len = next - l->item[i].offset;
	}
	return format_list_finish(p, head, directory, e);
}

static int step_entry(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	uint64_t plain, stored, local;
	size_t name_len, extra_len, entry_len;
	const char *name;
	int rc;

	if (len < ENTRY_BYTES)
		return -EAGAIN;
	if (get_le32(bytes) != ENTRY_SIGNATURE)
		return err_set(e, -EBADMSG, "record %u is missing in its directory", p->list.nr);
	name_len = get_le16(bytes + 28);
	extra_len = get_le16(bytes + 30);
	entry_len = ENTRY_BYTES + name_len + extra_len + get_le16(bytes + 32);
	if (len < entry_len)
		return -EAGAIN;
	stored = get_le32(bytes + 20);
	plain = get_le32(bytes + 24);
	local = get_le32(bytes + 42);
	name = (const char *)bytes + ENTRY_BYTES;
	rc = wide_values(bytes + ENTRY_BYTES + name_len, extra_len, (uint64_t *[]){ &plain, &stored, &local });
	if (rc < 0)
		return err_set(e, rc, "a record of its directory is cut short");
	if (get_le16(bytes + 10) || (get_le16(bytes + 8) & 1) || stored != plain)
		return err_set(e, -ENOEXEC, "its records are compressed or encrypted");
	rc = format_list_add(&p->list, name, name_len, local, stored, e);
	if (rc < 0)
		return rc;
	p->zip.is_torch |= is_torch_name(name, name_len);
	p->pos += entry_len;
	return --p->left ? 0 : finish(p, e);
}

int zip_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e)
{
	switch (p->state) {
	case STATE_TAIL:
		return step_tail(p, bytes, len, e);
	case STATE_END64:
		return step_end64(p, bytes, len, e);
	default:
		return step_entry(p, bytes, len, e);
	}
}
