// SPDX-License-Identifier: Apache-2.0
/* GGUF headers of all versions and byte orders, and hostile ones. */
#include "test_format.h"

enum { U8 = 0, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

/* A header being written. */
struct gguf {
	struct image im;
	int version;
	bool big_endian;
};

static void put(struct gguf *g, uint64_t v, int bytes)
{
	uint8_t b[8];

	for (int i = 0; i < bytes; i++)
		b[i] = (uint8_t)(v >> 8 * (g->big_endian ? bytes - 1 - i : i));
	add(&g->im.head, b, (size_t)bytes);
}

static void put_count(struct gguf *g, uint64_t v)
{
	put(g, v, g->version == 1 ? 4 : 8);
}

static void put_string(struct gguf *g, const char *s)
{
	put_count(g, strlen(s));
	add(&g->im.head, s, strlen(s));
}

static void begin(struct gguf *g, int version, bool big_endian, uint64_t nr_tensors, uint64_t nr_pairs)
{
	image_init(&g->im);
	g->version = version;
	g->big_endian = big_endian;
	add(&g->im.head, "GGUF", 4);
	put(g, (uint64_t)version, 4);
	put_count(g, nr_tensors);
	put_count(g, nr_pairs);
}

static void put_tensor(struct gguf *g, const char *name, uint64_t a, uint64_t b, uint32_t type, uint64_t offset)
{
	put_string(g, name);
	put(g, b ? 2 : 1, 4);
	put_count(g, a);
	if (b)
		put_count(g, b);
	put(g, type, 4);
	put(g, offset, 8);
}

static void put_pair_u32(struct gguf *g, const char *key, uint32_t v)
{
	put_string(g, key);
	put(g, U32, 4);
	put(g, v, 4);
}

/* Pads to <alignment> and parses with so many bytes of data. */
static int end(struct gguf *g, unsigned alignment, uint64_t data_bytes, struct parsed *ret)
{
	int rc;

	while (g->im.head.len % alignment)
		add(&g->im.head, "", 1);
	g->im.middle_bytes = data_bytes;
	rc = parse(FORMAT_GGUF, &g->im, SIZE_MAX, ret);
	image_done(&g->im);
	return rc;
}

/* Every type of value, arrays of every kind, and arrays in arrays. */
static void put_all_pairs(struct gguf *g)
{
	static const int sizes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

	for (uint32_t type = U8; type <= F64; type++) {
		if (!sizes[type])
			continue;
		put_string(g, "scalar");
		put(g, type, 4);
		put(g, 1, sizes[type]);
		put_string(g, "array");
		put(g, ARRAY, 4);
		put(g, type, 4);
		put_count(g, 3);
		for (int i = 0; i < 3; i++)
			put(g, 1, sizes[type]);
	}
	put_string(g, "text");
	put(g, STRING, 4);
	put_string(g, "general.alignment");
	put_string(g, "words");
	put(g, ARRAY, 4);
	put(g, STRING, 4);
	put_count(g, 3);
	put_string(g, "a");
	put_string(g, "");
	put_string(g, "bc");
	put_string(g, "nested");
	put(g, ARRAY, 4);
	put(g, ARRAY, 4);
	put_count(g, 3);
	put(g, STRING, 4);
	put_count(g, 1);
	put_string(g, "x");
	put(g, U16, 4);
	put_count(g, 0);
	put(g, ARRAY, 4);
	put_count(g, 1);
	put(g, U64, 4);
	put_count(g, 2);
	put(g, 1, 8);
	put(g, 2, 8);
	put_string(g, "none");
	put(g, ARRAY, 4);
	put(g, ARRAY, 4);
	put_count(g, 0);
}

#define NR_ALL_PAIRS (11 * 2 + 4)

static void make_model(struct gguf *g, int version, bool big_endian)
{
	begin(g, version, big_endian, 4, NR_ALL_PAIRS + 1);
	put_all_pairs(g);
	put_pair_u32(g, "general.alignment", 64);
	put_tensor(g, "blk.10.q", 256, 2, 12, 128); /* Q4_K: 288 bytes */
	put_tensor(g, "blk.2.q", 8, 4, 0, 0);       /* F32: 128 bytes */
	put_tensor(g, "norm", 32, 0, 8, 512);       /* Q8_0: 34 bytes */
	put_tensor(g, "odd", 5, 0, 200, 448);       /* not known: up to the next */
}

static void all_versions_and_byte_orders_give_the_same_tensors(void **state)
{
	static const struct {
		int version;
		bool big_endian;
	} rows[] = { { 1, false }, { 2, false }, { 3, false }, { 3, true } };
	static const struct format_range want[] = { { 0, 128 }, { 128, 288 }, { 448, 64 }, { 512, 34 } };
	static const uint32_t by_name[] = { 1, 0, 3, 2 };

	for (size_t i = 0; i < array_len(rows); i++) {
		struct parsed r;
		struct gguf g;

		make_model(&g, rows[i].version, rows[i].big_endian);
		assert_int_equal(end(&g, 64, 546, &r), 0);
		assert_int_equal(r.plan->nr, 4);
		assert_int_equal(r.plan->head.len % 64, 0);
		for (uint32_t t = 0; t < 4; t++) {
			assert_int_equal(r.plan->tensor[t].offset - r.plan->head.len, want[t].offset);
			assert_int_equal(r.plan->tensor[t].len, want[t].len);
		}
		assert_memory_equal(r.plan->by_name, by_name, sizeof(by_name));
		parsed_done(&r);
	}
}

static void every_size_of_piece_gives_the_same_plan(void **state)
{
	struct parsed whole, pieces;
	struct gguf g;

	make_model(&g, 3, false);
	while (g.im.head.len % 64)
		add(&g.im.head, "", 1);
	g.im.middle_bytes = 546;
	assert_int_equal(parse(FORMAT_GGUF, &g.im, SIZE_MAX, &whole), 0);
	for (size_t piece = 64; piece < 512; piece++) {
		assert_int_equal(parse(FORMAT_GGUF, &g.im, piece, &pieces), 0);
		assert_plans_equal(whole.plan, pieces.plan);
		parsed_done(&pieces);
	}
	parsed_done(&whole);
	image_done(&g.im);
}

static void a_large_vocabulary_is_passed_in_growing_pieces_and_arrays_of_numbers_without_any(void **state)
{
	struct parsed r;
	struct gguf g;

	begin(&g, 3, false, 1, 2);
	put_string(&g, "tokenizer.ggml.tokens");
	put(&g, ARRAY, 4);
	put(&g, STRING, 4);
	put_count(&g, 1000000);
	for (unsigned i = 0; i < 1000000; i++)
		put_string(&g, "a token");
	put_string(&g, "tokenizer.ggml.scores");
	put(&g, ARRAY, 4);
	put(&g, F32, 4);
	put_count(&g, 8000000);
	for (unsigned i = 0; i < 8000000 / 16; i++)
		add(&g.im.head, (char[64]){ 0 }, 64);
	put_tensor(&g, "t", 16, 0, 0, 0);
	assert_int_equal(end(&g, 32, 64, &r), 0);
	assert_in_range(r.nr_needs, 1, 8);
	assert_true(r.asked_bytes < 32 * MIB);
	parsed_done(&r);
}

static void a_model_without_tensors_is_an_empty_plan(void **state)
{
	struct parsed r;
	struct gguf g;

	begin(&g, 3, false, 0, 0);
	assert_int_equal(end(&g, 1, 0, &r), 0);
	assert_int_equal(r.plan->nr, 0);
	assert_int_equal(r.plan->head.len, 24);
	parsed_done(&r);
	begin(&g, 3, false, 0, 1);
	put_pair_u32(&g, "general.alignment", 4096);
	assert_int_equal(end(&g, 1, 0, &r), 0);
	assert_int_equal(r.plan->head.len, r.plan->file_bytes);
	parsed_done(&r);
}

/* One header for each lie; returns what parsing it says. */
static int lie(int which, struct parsed *r)
{
	struct gguf g;

	begin(&g, 3, false, which == 0 ? 1ull << 40 : 1, which == 1 ? 1ull << 62 : which == 2 || which == 19 ? 2 : 1);
	switch (which) {
	case 3: /* a string as long as the address space */
		put_string(&g, "k");
		put(&g, STRING, 4);
		put(&g, UINT64_MAX, 8);
		break;
	case 4: /* so many numbers that their size wraps */
		put_string(&g, "k");
		put(&g, ARRAY, 4);
		put(&g, U64, 4);
		put(&g, (1ull << 61) + 1, 8);
		break;
	case 5:
		put_string(&g, "k");
		put(&g, 13, 4);
		break;
	case 6:
		put_string(&g, "k");
		put(&g, ARRAY, 4);
		put(&g, 99, 4);
		put(&g, 1, 8);
		break;
	case 7: /* arrays in arrays without end */
		put_string(&g, "k");
		put(&g, ARRAY, 4);
		for (int i = 0; i < 100; i++) {
			put(&g, ARRAY, 4);
			put(&g, 1, 8);
		}
		break;
	case 8:
		put_pair_u32(&g, "general.alignment", 0);
		break;
	case 9:
		put_pair_u32(&g, "general.alignment", 48);
		break;
	case 19:
		put_pair_u32(&g, "general.alignment", 32);
		put_pair_u32(&g, "general.alignment", 32);
		break;
	case 10:
		put(&g, 1ull << 63, 8); /* the key's length */
		break;
	default:
		put_pair_u32(&g, "k", 1);
		break;
	}
	if (which == 2)
		put_pair_u32(&g, "k", 2);
	switch (which) {
	case 11: /* past the end */
		put_tensor(&g, "t", 17, 0, 0, 0);
		break;
	case 12:
		put_tensor(&g, "t", 16, 0, 0, UINT64_MAX - 31);
		break;
	case 20:
		put_tensor(&g, "t", 16, 0, 0, 1 << 20);
		break;
	case 13: /* not aligned */
		put_tensor(&g, "t", 4, 0, 0, 8);
		break;
	case 14: /* half a block */
		put_tensor(&g, "t", 16, 0, 8, 0);
		break;
	case 15:
		put_tensor(&g, "t", 1ull << 33, 1ull << 33, 0, 0);
		break;
	case 16:
		put_tensor(&g, "t", 1ull << 62, 1, 0, 0);
		break;
	case 17:
		put_string(&g, "t");
		put(&g, 9, 4);
		break;
	default:
		put_tensor(&g, "t", 16, 0, 0, 0);
		break;
	}
	return end(&g, 32, 64, r);
}

static void lies_are_refused(void **state)
{
	for (int which = 0; which <= 20; which++) {
		struct parsed r;

		assert_int_equal(lie(which, &r), which == 0 ? -E2BIG : which == 2 || which == 18 ? 0 : -EBADMSG);
		parsed_done(&r);
	}
}

static void tensors_that_overlap_or_share_a_name_are_refused(void **state)
{
	struct parsed r;
	struct gguf g;

	begin(&g, 3, false, 2, 0);
	put_tensor(&g, "a", 16, 0, 0, 0);
	put_tensor(&g, "b", 16, 0, 0, 32);
	assert_int_equal(end(&g, 32, 96, &r), -EBADMSG);
	begin(&g, 3, false, 2, 0);
	put_tensor(&g, "a", 16, 0, 0, 0);
	put_tensor(&g, "a", 16, 0, 0, 64);
	assert_int_equal(end(&g, 32, 128, &r), -EBADMSG);
	begin(&g, 3, false, 2, 0);
	put_tensor(&g, "a", 16, 0, 0, 0);
	put_tensor(&g, "b", 16, 0, 0, 64);
	assert_int_equal(end(&g, 32, 128, &r), 0);
	parsed_done(&r);
}

static void a_header_cut_anywhere_is_refused(void **state)
{
	struct gguf g;
	size_t whole;

	make_model(&g, 3, false);
	whole = g.im.head.len;
	for (size_t len = 0; len < whole; len++) {
		struct parsed r;
		int rc;

		g.im.head.len = len;
		rc = parse(FORMAT_GGUF, &g.im, SIZE_MAX, &r);
		assert_true(rc == -EBADMSG || (len < 10 && rc == -ENOEXEC));
	}
	image_done(&g.im);
}

static void another_format_or_version_is_told(void **state)
{
	struct parsed r;
	struct gguf g;

	begin(&g, 4, false, 0, 0);
	assert_int_equal(end(&g, 32, 0, &r), -ENOEXEC);
	begin(&g, 0, false, 0, 0);
	assert_int_equal(end(&g, 32, 0, &r), -ENOEXEC);
	begin(&g, 3, false, 0, 0);
	g.im.head.data[3] = 'f';
	assert_int_equal(end(&g, 32, 0, &r), -ENOEXEC);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_versions_and_byte_orders_give_the_same_tensors),
		cmocka_unit_test(every_size_of_piece_gives_the_same_plan),
		cmocka_unit_test(a_large_vocabulary_is_passed_in_growing_pieces_and_arrays_of_numbers_without_any),
		cmocka_unit_test(a_model_without_tensors_is_an_empty_plan),
		cmocka_unit_test(lies_are_refused),
		cmocka_unit_test(tensors_that_overlap_or_share_a_name_are_refused),
		cmocka_unit_test(a_header_cut_anywhere_is_refused),
		cmocka_unit_test(another_format_or_version_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
