// SPDX-License-Identifier: Apache-2.0
/* A profile as bytes: back to what it was, or an error, never anything else; and as a picture. */
#include "test_profile.h"

#include "base/crc32c.h"

#define BODY_AT 24

static void assert_profiles_equal(const struct profile *a, const struct profile *b)
{
	assert_memory_equal(a->dataset, b->dataset, sizeof(a->dataset));
	assert_int_equal(a->nr_loads, b->nr_loads);
	assert_int_equal(a->nr_files, b->nr_files);
	for (uint32_t i = 0; i < a->nr_files; i++) {
		assert_string_equal(a->file[i].key, b->file[i].key);
		assert_string_equal(a->file[i].etag, b->file[i].etag);
		assert_int_equal(a->file[i].size_bytes, b->file[i].size_bytes);
	}
	assert_int_equal(a->nr_ranks, b->nr_ranks);
	assert_memory_equal(a->rank, b->rank, sizeof(a->rank));
	assert_int_equal(a->nr_accesses, b->nr_accesses);
	assert_memory_equal(a->access, b->access, a->nr_accesses * sizeof(*a->access));
}

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Accesses all over <nr_files> files by four processes. */
static struct profile *record_random(unsigned nr_files, unsigned nr_accesses, uint64_t size_bytes)
{
	struct profile_builder *b = builder_new();
	uint32_t seed = 1;
	char key[64];

	for (unsigned i = 0; i < nr_files; i++) {
		snprintf(key, sizeof(key), "dir/model-%05u-of-%05u.safetensors", i, nr_files);
		builder_file(b, key, size_bytes);
	}
	for (unsigned i = 0; i < nr_accesses; i++)
		builder_add(b, (int32_t)(next_random(&seed) % 4), next_random(&seed) % nr_files,
			    next_random(&seed) % (size_bytes / BLOCK), 1 + next_random(&seed) % 40, i / 3);
	return builder_finish(b);
}

static void encode(const struct profile *p, struct buf *out)
{
	uint32_t left_out = 1;

	buf_init(out, PROFILE_ENCODED_MAX_BYTES);
	assert_int_equal(profile_encode(p, out, &left_out), 0);
	assert_int_equal(left_out, 0);
}

static int decode(const char *bytes, size_t len, struct profile **ret)
{
	char *copy = malloc(len ? len : 1); /* of exactly its size, for the sanitizers */
	struct err e = { 0 };
	int rc;

	assert_non_null(copy);
	memcpy(copy, bytes, len);
	*ret = NULL;
	rc = profile_decode(copy, len, ret, &e);
	free(copy);
	assert_true(rc == 0 ? *ret != NULL : !*ret && e.code == rc && e.msg[0]);
	return rc;
}

/* A damaged body under a frame that is right again. */
static int decode_fixed(struct buf *bytes, struct profile **ret)
{
	uint64_t len = bytes->len - BODY_AT;
	uint32_t crc;

	memcpy(bytes->data + 16, &len, 8);
	crc = crc32c(0, bytes->data + 16, bytes->len - 16);
	memcpy(bytes->data + 12, &crc, 4);
	return decode(bytes->data, bytes->len, ret);
}

static void what_is_encoded_is_decoded(void **state)
{
	static const struct {
		unsigned nr_files, nr_accesses;
		uint64_t size_bytes;
	} rows[] = { { 1, 1, BLOCK }, { 1, 100, GIB }, { 160, 20000, 5 * GIB - 1 } };

	for (size_t i = 0; i < array_len(rows); i++) {
		struct profile *p = record_random(rows[i].nr_files, rows[i].nr_accesses, rows[i].size_bytes), *q;
		struct buf bytes;

		p->access[p->nr_accesses / 2].age = 2;
		p->nr_loads = 77;
		encode(p, &bytes);
		assert_int_equal(decode(bytes.data, bytes.len, &q), 0);
		assert_profiles_equal(p, q);
		buf_done(&bytes);
		profile_free(p);
		profile_free(q);
	}
}

static void a_sequential_load_of_a_large_model_is_a_small_file(void **state)
{
	struct profile_builder *b = builder_new();
	struct profile *p;
	struct buf bytes;

	for (unsigned i = 0; i < 32; i++) {
		char key[32];
		uint32_t f;

		snprintf(key, sizeof(key), "model-%u", i);
		f = builder_file(b, key, 4 * GIB);
		for (unsigned block = 0; block < 4 * GIB / BLOCK; block += 8)
			builder_add(b, 1, f, block, 8, i * 4000ull + block / 8);
	}
	p = builder_finish(b);
	encode(p, &bytes);
	assert_int_equal(p->nr_accesses, 32 * 512);
	assert_true(bytes.len < p->nr_accesses * 4ull);
	buf_done(&bytes);
	profile_free(p);
}

static void what_does_not_fit_is_left_out_from_the_end(void **state)
{
	struct profile *p = record_random(3, 5000, GIB), *q;
	uint32_t left_out;
	struct buf bytes;

	buf_init(&bytes, 4096);
	assert_int_equal(profile_encode(p, &bytes, &left_out), 0);
	assert_in_range(bytes.len, 4000, 4096);
	assert_int_equal(decode(bytes.data, bytes.len, &q), 0);
	assert_int_equal(q->nr_accesses + left_out, p->nr_accesses);
	assert_memory_equal(q->access, p->access, q->nr_accesses * sizeof(*q->access));
	profile_free(q);
	buf_done(&bytes);
	buf_init(&bytes, 100);
	assert_int_equal(profile_encode(p, &bytes, &left_out), -E2BIG);
	buf_done(&bytes);
	profile_free(p);
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct profile *p = record_random(2, 20, GIB), *q;
	struct buf bytes;

	encode(p, &bytes);
	for (size_t bit = 0; bit < bytes.len * 8; bit++) {
		int rc;

		bytes.data[bit / 8] ^= (char)(1 << bit % 8);
		rc = decode(bytes.data, bytes.len, &q);
		assert_int_equal(rc, bit < 64 ? -ENOEXEC : bit < 96 ? -ENOTSUP : -EBADMSG);
		bytes.data[bit / 8] ^= (char)(1 << bit % 8);
	}
	buf_done(&bytes);
	profile_free(p);
}

static void a_file_cut_or_lengthened_anywhere_is_refused(void **state)
{
	struct profile *p = record_random(2, 20, GIB), *q;
	struct buf bytes;
	size_t whole;

	encode(p, &bytes);
	whole = bytes.len;
	for (size_t len = 0; len < whole; len++)
		assert_int_equal(decode(bytes.data, len, &q), len < BODY_AT ? -ENOEXEC : -EBADMSG);
	/* The same with a frame that claims to be whole. */
	for (size_t len = BODY_AT; len < whole; len++) {
		bytes.len = len;
		assert_int_equal(decode_fixed(&bytes, &q), -EBADMSG);
	}
	profile_free(p);
	p = record_random(2, 20, GIB);
	buf_done(&bytes);
	encode(p, &bytes);
	bytes.max++;
	assert_int_equal(buf_add(&bytes, "", 1), 0);
	assert_int_equal(decode(bytes.data, bytes.len, &q), -EBADMSG);
	assert_int_equal(decode_fixed(&bytes, &q), -EBADMSG);
	buf_done(&bytes);
	profile_free(p);
}

/* A body written by hand; nothing in it is right unless it says so. */
static int decode_body(const char *body, size_t len)
{
	static const char head[BODY_AT] = "PSTKPROF\1";
	static const char dataset[PROFILE_DATASET_BYTES];
	struct profile *p;
	struct buf bytes;
	int rc;

	buf_init(&bytes, 4096);
	assert_int_equal(buf_add(&bytes, head, sizeof(head)), 0);
	assert_int_equal(buf_add(&bytes, dataset, sizeof(dataset)), 0);
	assert_int_equal(buf_add(&bytes, body, len), 0);
	rc = decode_fixed(&bytes, &p);
	buf_done(&bytes);
	profile_free(p);
	return rc;
}

static void bodies_that_lie_are_refused(void **state)
{
#define ROW(text, rc)                      \
	{                                  \
		text, sizeof(text) - 1, rc \
	}
#define FILES "\1\1\1k\1e\x80\x80\x20" /* one load, one file of four blocks */
#define RANKS "\1\0\4\4"
	static const struct {
		const char *body;
		size_t len;
		int rc;
	} rows[] = {
		ROW(FILES RANKS "\1\0\4", 0),
		ROW(FILES RANKS "\2\0\2\0\2", 0),
		ROW(FILES RANKS "\2\0\2\4\3\2", 0),  /* jumps two back */
		ROW(FILES RANKS "\1\0\5", -EBADMSG), /* past the end */
		ROW(FILES RANKS "\2\0\4\0\1", -EBADMSG),
		ROW(FILES RANKS "\1\0\0", -EBADMSG),   /* empty */
		ROW(FILES RANKS "\1\4\1\1", -EBADMSG), /* before the start */
		ROW(FILES RANKS "\1\4\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\1", -EBADMSG),
		ROW(FILES RANKS "\1\4\x80\x80\x80\x80\x80\x80\x80\x80\x80\2\1", -EBADMSG),
		ROW(FILES RANKS "\1\4\x81\x80\x80\x80\x80\x80\x80\x80\x80\x80\0\1", -EBADMSG),
		ROW(FILES RANKS "\1\1\1\1", -EBADMSG), /* no such file */
		ROW(FILES RANKS "\1\2\1\1", -EBADMSG), /* no such rank */
		ROW(FILES RANKS "\1\x30\1", -EBADMSG), /* too old */
		ROW(FILES RANKS "\1\x40\1", -EBADMSG), /* a flag that is not known */
		ROW(FILES RANKS "\0", -EBADMSG),       /* no access */
		ROW(FILES RANKS "\1\0\4x", -EBADMSG),  /* more behind it */
		ROW(FILES RANKS "\xff\xff\x3f\0\4", -EBADMSG),
		ROW(FILES RANKS "\2\x8\xff\xff\xff\xff\xf\1\x8\1\1", -EBADMSG), /* time wraps */
		ROW(FILES "\0\1\0\4", -EBADMSG),                                /* no rank */
		ROW(FILES "\x41\1\0\4", -EBADMSG),
		ROW(FILES "\1\0\4\5\1\0\4", -EBADMSG),          /* more blocks than its slice */
		ROW("\1\0" RANKS "\1\0\4", -EBADMSG),           /* no file */
		ROW("\1\1\2k\0\1e\4" RANKS "\1\0\1", -EBADMSG), /* a zero in it */
		ROW("\1\1\0\1e\4" RANKS "\1\0\1", -EBADMSG),    /* no key */
		ROW("\1\1\1\0\1e\4" RANKS "\1\0\1", -EBADMSG),
		ROW("\1\2\1b\0\4\1a\0\4" RANKS "\1\0\1", -EBADMSG), /* not sorted */
		ROW("\1\2\1a\0\4\1a\0\4" RANKS "\1\0\1", -EBADMSG),
		ROW("\1\2\1a\0\4\1b\0\4" RANKS "\1\0\1", 0),
		ROW("\1\1\xff\x7fk\0\4", -EBADMSG),
		ROW("\1\x81\x80\1", -EBADMSG),
		ROW("", -EBADMSG),
	};

	for (size_t i = 0; i < array_len(rows); i++)
		assert_int_equal(decode_body(rows[i].body, rows[i].len), rows[i].rc);
}

/* --- the picture --- */

static unsigned count(const char *text, const char *what)
{
	unsigned nr = 0;

	for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
		nr++;
	return nr;
}

static void the_picture_has_a_mark_for_each_access_and_for_what_was_fetched(void **state)
{
	struct profile_builder *b = builder_new();
	uint32_t f = builder_file(b, "a<b>&\"c\x01\xff", 100 * BLOCK), g = builder_file(b, "b", 100 * BLOCK);
	struct profile_range fetched[] = { { 0, 0, 0, 50 * BLOCK }, { 1, 100, 0, UINT64_MAX }, { 9, 0, 0, 1 } };
	struct profile *p;
	struct buf svg;

	builder_add(b, 1, f, 0, 10, 0);
	builder_add(b, 2, g, 40, 10, 500);
	builder_add(b, 1, f, 80, 10, 900);
	p = builder_finish(b);
	buf_init(&svg, MIB);
	assert_int_equal(profile_svg(p, fetched, array_len(fetched), &svg), 0);
	assert_int_equal(count(svg.data, "<rect class=\"r0\""), 2);
	assert_int_equal(count(svg.data, "<rect class=\"r1\""), 1);
	assert_int_equal(count(svg.data, "<rect class=\"f\""), 2);
	assert_non_null(strstr(svg.data, ">a&lt;b>&amp;\"c?\?</text>"));
	assert_non_null(strstr(svg.data, "</svg>"));
	buf_done(&svg);
	buf_init(&svg, 300);
	assert_int_equal(profile_svg(p, NULL, 0, &svg), -E2BIG);
	buf_done(&svg);
	profile_free(p);
}

static void the_picture_of_a_large_load_stays_small(void **state)
{
	struct profile *p = record_random(500, 100000, 5 * GIB);
	struct buf svg;

	assert_in_range(p->nr_accesses, 50000, UINT32_MAX);
	buf_init(&svg, 16 * MIB);
	assert_int_equal(profile_svg(p, NULL, 0, &svg), 0);
	assert_non_null(strstr(svg.data, "100 more files are not shown"));
	buf_done(&svg);
	profile_free(p);
	/* The same places again and again make no new marks. */
	p = record_random(1, 3000, GIB);
	for (uint32_t i = 0; i < p->nr_accesses; i++)
		p->access[i].time_ms = 0;
	buf_init(&svg, 16 * MIB);
	assert_int_equal(profile_svg(p, NULL, 0, &svg), 0);
	assert_in_range(count(svg.data, "<rect class=\"r"), 100, 420);
	buf_done(&svg);
	profile_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded),
		cmocka_unit_test(a_sequential_load_of_a_large_model_is_a_small_file),
		cmocka_unit_test(what_does_not_fit_is_left_out_from_the_end),
		cmocka_unit_test(every_flipped_bit_is_noticed),
		cmocka_unit_test(a_file_cut_or_lengthened_anywhere_is_refused),
		cmocka_unit_test(bodies_that_lie_are_refused),
		cmocka_unit_test(the_picture_has_a_mark_for_each_access_and_for_what_was_fetched),
		cmocka_unit_test(the_picture_of_a_large_load_stays_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
