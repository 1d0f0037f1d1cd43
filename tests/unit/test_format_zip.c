// SPDX-License-Identifier: Apache-2.0
/* torch zip archives: records, 64-bit forms, and directories that lie. */
#include "test_format.h"

#define LOCAL_BYTES 30
#define RECORDS_MAX 16

/* An archive being written: the directory and the end go to the image's tail, the records are only counted. */
struct archive {
	struct image im;
	struct buf directory;
	uint64_t at; /* where the next record begins */
	unsigned nr;
	struct format_range record[RECORDS_MAX]; /* from its header to its last byte */
	bool wide, only_place_is_wide;           /* sizes and places in the extra field */
	uint16_t method;
	uint64_t lie_bytes; /* more than are stored */
};

static void begin(struct archive *a)
{
	*a = (struct archive){ 0 };
	image_init(&a->im);
	buf_init(&a->directory, 64 * MIB);
}

/* A record whose bytes begin on a multiple of 64, as torch pads the local header and not the directory's entry. */
static void put(struct archive *a, const char *name, uint64_t bytes)
{
	uint64_t data = (a->at + LOCAL_BYTES + strlen(name) + 4 + 63) / 64 * 64;
	bool wide_sizes = a->wide && !a->only_place_is_wide;
	unsigned extra = wide_sizes ? 24 : 8;
	struct buf *d = &a->directory;

	add_le(d, 0x02014b50, 4);
	add_le(d, 0, 4); /* versions */
	add_le(d, 0x800, 2);
	add_le(d, a->method, 2);
	add_le(d, 0, 8); /* time, date, CRC */
	add_le(d, wide_sizes ? UINT32_MAX : bytes, 4);
	add_le(d, wide_sizes ? UINT32_MAX : bytes + a->lie_bytes, 4);
	add_le(d, strlen(name), 2);
	add_le(d, a->wide ? 3 + 4 + 4 + extra : 0, 2);
	add_le(d, 0, 2 + 2 + 2); /* comment, disk, attributes */
	add_le(d, 0, 4);
	add_le(d, a->wide ? UINT32_MAX : a->at, 4);
	add(d, name, strlen(name));
	if (a->wide) {
		add_le(d, 0x4246, 2); /* another field before it */
		add_le(d, 3, 2);
		add_le(d, 0, 3);
		add_le(d, 1, 2);
		add_le(d, extra, 2);
		if (wide_sizes) {
			add_le(d, bytes, 8);
			add_le(d, bytes, 8);
		}
		add_le(d, a->at, 8);
	}
	a->record[a->nr % RECORDS_MAX] = (struct format_range){ a->at, data + bytes - a->at };
	a->nr++;
	a->at = data + bytes;
}

static void put_end(struct archive *a, uint64_t nr, uint64_t len, uint64_t at, const char *comment)
{
	struct buf *t = &a->im.tail;

	a->im.middle_bytes = a->at;
	add(t, a->directory.data, a->directory.len);
	if (a->wide) {
		uint64_t end64_at = a->at + t->len;

		add_le(t, 0x06064b50, 4);
		add_le(t, 44, 8);
		add_le(t, 0, 4 + 4);
		add_le(t, 0, 4);
		add_le(t, nr, 8);
		add_le(t, nr, 8);
		add_le(t, len, 8);
		add_le(t, at, 8);
		add_le(t, 0x07064b50, 4);
		add_le(t, 0, 4);
		add_le(t, end64_at, 8);
		add_le(t, 1, 4);
	}
	add_le(t, 0x06054b50, 4);
	add_le(t, 0, 4);
	add_le(t, a->wide ? UINT16_MAX : nr, 2);
	add_le(t, a->wide ? UINT16_MAX : nr, 2);
	add_le(t, a->wide ? UINT32_MAX : len, 4);
	add_le(t, a->wide ? UINT32_MAX : at, 4);
	add_le(t, strlen(comment), 2);
	add(t, comment, strlen(comment));
}

static int end(struct archive *a, struct parsed *ret)
{
	int rc;

	put_end(a, a->nr, a->directory.len, a->at, "");
	rc = parse(FORMAT_TORCH, &a->im, SIZE_MAX, ret);
	buf_done(&a->directory);
	image_done(&a->im);
	return rc;
}

static void make_checkpoint(struct archive *a, bool wide)
{
	begin(a);
	a->wide = wide;
	put(a, "archive/data.pkl", 1234);
	put(a, "archive/byteorder", 6);
	put(a, "archive/data/0", wide ? 5 * GIB : 5 * MIB);
	/* As in archives over 4 GiB: small records in far places. */
	a->only_place_is_wide = wide;
	put(a, "archive/data/1", 100);
	put(a, "archive/data/10", 3 * MIB);
	put(a, "archive/data/2", 0);
	put(a, "archive/version", 2);
}

static void records_span_to_the_next_header_and_come_by_number(void **state)
{
	static const uint32_t by_name[] = { 1, 0, 2, 3, 5, 4, 6 };

	for (int wide = 0; wide < 2; wide++) {
		struct archive a;
		struct parsed r;

		make_checkpoint(&a, wide);
		assert_int_equal(end(&a, &r), 0);
		assert_int_equal(r.plan->nr, a.nr);
		for (unsigned i = 0; i < a.nr; i++) {
			assert_int_equal(r.plan->tensor[i].offset, a.record[i].offset);
			assert_int_equal(r.plan->tensor[i].len, a.record[i].len);
		}
		assert_memory_equal(r.plan->by_name, by_name, sizeof(by_name));
		assert_int_equal(r.plan->head.offset, a.at);
		assert_int_equal(r.plan->head.offset + r.plan->head.len, r.plan->file_bytes);
		assert_int_equal(r.nr_needs, 1);
		parsed_done(&r);
	}
}

static void a_long_directory_takes_a_few_more_requests(void **state)
{
	struct archive a;
	struct parsed r;

	begin(&a);
	a.wide = true;
	put(&a, "model/data.pkl", 100);
	for (unsigned i = 0; i < 40000; i++) {
		char name[64];

		snprintf(name, sizeof(name), "model/data/%u", i);
		put(&a, name, 65536);
	}
	assert_int_equal(end(&a, &r), 0);
	assert_int_equal(r.plan->nr, 40001);
	assert_in_range(r.nr_needs, 2, 3);
	parsed_done(&r);
}

static void a_comment_is_no_obstacle(void **state)
{
	char comment[60001];
	struct archive a;
	struct parsed r;

	memset(comment, 'c', sizeof(comment) - 1);
	comment[sizeof(comment) - 1] = '\0';
	memcpy(comment + 100, "PK\5\6", 4); /* looks like an end, but does not end where the file does */
	make_checkpoint(&a, true);
	put_end(&a, a.nr, a.directory.len, a.at, comment);
	assert_int_equal(parse(FORMAT_TORCH, &a.im, SIZE_MAX, &r), 0);
	assert_int_equal(r.plan->nr, a.nr);
	parsed_done(&r);
	buf_done(&a.directory);
	image_done(&a.im);
}

static void other_archives_and_older_pickles_are_another_format(void **state)
{
	struct archive a;
	struct parsed r;

	begin(&a);
	put(&a, "word/document.xml", 100);
	put(&a, "data/0", 100);
	assert_int_equal(end(&a, &r), -ENOEXEC);
	begin(&a);
	a.method = 8;
	put(&a, "archive/data.pkl", 100);
	assert_int_equal(end(&a, &r), -ENOEXEC);
	begin(&a);
	a.lie_bytes = 1;
	put(&a, "archive/data.pkl", 100);
	assert_int_equal(end(&a, &r), -ENOEXEC);
	begin(&a);
	assert_int_equal(end(&a, &r), -ENOEXEC); /* empty */
	begin(&a);
	a.im.middle_bytes = 300 * KIB;
	assert_int_equal(parse(FORMAT_TORCH, &a.im, SIZE_MAX, &r), -ENOEXEC);
}

/* The end says <nr> records in <len> bytes at <at>, each as a difference to the truth. */
static int lie(bool wide, int64_t nr, int64_t len, int64_t at)
{
	struct archive a;
	struct parsed r;
	int rc;

	make_checkpoint(&a, wide);
	put_end(&a, a.nr + (uint64_t)nr, a.directory.len + (uint64_t)len, a.at + (uint64_t)at, "");
	rc = parse(FORMAT_TORCH, &a.im, SIZE_MAX, &r);
	parsed_done(&r);
	buf_done(&a.directory);
	image_done(&a.im);
	return rc;
}

static void a_directory_that_is_not_where_it_should_be_is_refused(void **state)
{
	for (int wide = 0; wide < 2; wide++) {
		assert_int_equal(lie(wide, 0, 0, 0), 0);
		assert_int_equal(lie(wide, 1, 0, 0), -EBADMSG);
		assert_int_equal(lie(wide, 0, -1, 0), -EBADMSG);
		assert_int_equal(lie(wide, 0, 1 << 20, 0), -EBADMSG);
		assert_int_equal(lie(wide, 0, 0, 1), -EBADMSG);
		assert_int_equal(lie(wide, 0, 0, 1 << 20), -EBADMSG);
		assert_int_equal(lie(wide, 0, 0, -64), -EBADMSG);
	}
	assert_int_equal(lie(true, 1ll << 60, 0, 0), -E2BIG);
	assert_int_equal(lie(true, 0, INT64_MAX, 0), -EBADMSG);
	assert_int_equal(lie(true, 0, 0, INT64_MAX), -EBADMSG);
}

static void records_that_overlap_or_share_a_name_are_refused(void **state)
{
	struct archive a;
	struct parsed r;

	begin(&a);
	put(&a, "m/data/0", 1000);
	a.at = 500;
	put(&a, "m/data/1", 1000);
	assert_int_equal(end(&a, &r), -EBADMSG);
	begin(&a);
	put(&a, "m/data/0", 1000);
	put(&a, "m/data/0", 1000);
	assert_int_equal(end(&a, &r), -EBADMSG);
	begin(&a);
	put(&a, "m/data/0", 1000);
	a.at = 20; /* no room for a local header */
	assert_int_equal(end(&a, &r), -EBADMSG);
}

static void an_archive_cut_anywhere_is_refused(void **state)
{
	struct archive a;
	struct parsed r;
	size_t whole;

	make_checkpoint(&a, true);
	put_end(&a, a.nr, a.directory.len, a.at, "");
	whole = a.im.tail.len;
	for (size_t len = 0; len < whole; len += 1) {
		a.im.tail.len = len;
		assert_int_equal(parse(FORMAT_TORCH, &a.im, SIZE_MAX, &r), -ENOEXEC);
	}
	buf_done(&a.directory);
	image_done(&a.im);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_span_to_the_next_header_and_come_by_number),
		cmocka_unit_test(a_long_directory_takes_a_few_more_requests),
		cmocka_unit_test(a_comment_is_no_obstacle),
		cmocka_unit_test(other_archives_and_older_pickles_are_another_format),
		cmocka_unit_test(a_directory_that_is_not_where_it_should_be_is_refused),
		cmocka_unit_test(records_that_overlap_or_share_a_name_are_refused),
		cmocka_unit_test(an_archive_cut_anywhere_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
