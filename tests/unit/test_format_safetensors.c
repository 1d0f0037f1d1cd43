// SPDX-License-Identifier: Apache-2.0
/* safetensors headers: what a good one tells, and every way in which one may be bad. */
#include "test_format.h"

/* The header's length, the header, and <data_bytes> that are not kept. */
static void make(struct image *im, const char *json, uint64_t data_bytes)
{
	image_init(im);
	add_le(&im->head, strlen(json), 8);
	add(&im->head, json, strlen(json));
	im->middle_bytes = data_bytes;
}

static int parse_json(const char *json, uint64_t data_bytes, struct parsed *ret)
{
	struct image im;
	int rc;

	make(&im, json, data_bytes);
	rc = parse(FORMAT_SAFETENSORS, &im, SIZE_MAX, ret);
	image_done(&im);
	return rc;
}

#define MIXED                                                                      \
	"{\"__metadata__\":{\"format\":\"pt\"},"                                   \
	"\"l.10.w\":{\"dtype\":\"BF16\",\"shape\":[2,4],\"data_offsets\":[8,24]}," \
	"\"l.2.w\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"   \
	"\"l.10.s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"     \
	"\"l.2.s\":{\"shape\":[],\"data_offsets\":[4,8],\"dtype\":\"F32\"},"       \
	"\"e\":{\"dtype\":\"U8\",\"shape\":[0,7],\"data_offsets\":[8,8]}}"

static void tensors_come_in_file_order_and_in_name_order(void **state)
{
	static const uint64_t lens[] = { 4, 4, 0, 16, 8 };
	static const uint32_t by_name[] = { 2, 0, 3, 1, 4 };
	uint64_t at = 8 + strlen(MIXED);
	struct parsed r;

	assert_int_equal(parse_json(MIXED, 32, &r), 0);
	assert_int_equal(r.nr_needs, 1);
	assert_int_equal(r.plan->nr, 5);
	assert_int_equal(r.plan->head.offset, 0);
	assert_int_equal(r.plan->head.len, at);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(r.plan->tensor[i].offset, at);
		assert_int_equal(r.plan->tensor[i].len, lens[i]);
		assert_int_equal(r.plan->by_name[i], by_name[i]);
		assert_int_equal(r.plan->name_rank[r.plan->by_name[i]], i);
		at += lens[i];
	}
	parsed_done(&r);
}

static void every_size_of_piece_gives_the_same_plan(void **state)
{
	struct parsed whole, pieces;
	struct image im;

	make(&im, MIXED "   \n\t ", 32);
	assert_int_equal(parse(FORMAT_SAFETENSORS, &im, SIZE_MAX, &whole), 0);
	/* Smaller pieces than an entry never get past it. */
	for (size_t piece = 80; piece <= im.head.len; piece++) {
		assert_int_equal(parse(FORMAT_SAFETENSORS, &im, piece, &pieces), 0);
		assert_plans_equal(whole.plan, pieces.plan);
		parsed_done(&pieces);
	}
	parsed_done(&whole);
	image_done(&im);
}

static void bytes_elsewhere_change_nothing(void **state)
{
	struct format_parser *p;
	struct image im;

	make(&im, MIXED, 32);
	assert_int_equal(format_parser_new(FORMAT_SAFETENSORS, image_bytes(&im), &p, NULL), 0);
	assert_int_equal(feed_from(p, &im, 100, 50, NULL), 0);
	assert_int_equal(feed_from(p, &im, 0, 0, NULL), 0);
	assert_int_equal(format_parser_need(p).offset, 0);
	assert_int_equal(feed_from(p, &im, 0, 8, NULL), 0);
	assert_int_equal(format_parser_need(p).offset, 8);
	assert_int_equal(format_parser_need(p).len, strlen(MIXED));
	/* More than was asked for is fine. */
	assert_int_equal(feed_from(p, &im, 2, image_bytes(&im) - 2, NULL), 1);
	assert_int_equal(feed_from(p, &im, 0, 8, NULL), 1);
	format_parser_free(p);
	image_done(&im);
}

#define T(dtype, shape, from, to) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static void known_types_must_fit_their_shape_and_others_are_taken_as_they_are(void **state)
{
	static const struct {
		const char *json;
		uint64_t data_bytes;
		int rc;
	} rows[] = {
		{ "{\"a\":" T("F32", "[3]", "0", "12") "}", 12, 0 },
		{ "{\"a\":" T("F32", "[3]", "0", "13") "}", 13, -EBADMSG },
		{ "{\"a\":" T("F8_E4M3", "[3,5]", "0", "15") "}", 15, 0 },
		{ "{\"a\":" T("F4", "[3,2]", "0", "3") "}", 3, 0 },
		{ "{\"a\":" T("F4", "[3]", "0", "2") "}", 2, -EBADMSG },
		{ "{\"a\":" T("F4", "[3]", "0", "1") "}", 1, -EBADMSG },
		{ "{\"a\":" T("F6_E3M2", "[4]", "0", "3") "}", 3, 0 },
		{ "{\"a\":" T("C64", "[2]", "0", "16") "}", 16, 0 },
		{ "{\"a\":" T("BOOL", "[]", "0", "1") "}", 1, 0 },
		{ "{\"a\":" T("Q17", "[3]", "0", "5") "}", 5, 0 },
		{ "{\"a\":" T("I64", "[4294967296,4294967296]", "0", "0") "}", 0, -EBADMSG },
		{ "{\"a\":" T("I64", "[2305843009213693952]", "0", "0") "}", 0, -EBADMSG },
		{ "{\"a\":" T("I64", "[0]", "0", "0") "}", 0, 0 },
		{ "{\"a\":" T("I64", "[-1]", "0", "0") "}", 0, -EBADMSG },
		{ "{\"a\":" T("I64", "[1.0]", "0", "8") "}", 8, -EBADMSG },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		struct parsed r;

		assert_int_equal(parse_json(rows[i].json, rows[i].data_bytes, &r), rows[i].rc);
		parsed_done(&r);
	}
}

static void holes_overlaps_and_another_end_are_refused(void **state)
{
	static const struct {
		const char *json;
		uint64_t data_bytes;
	} rows[] = {
		{ "{\"a\":" T("U8", "[4]", "1", "5") "}", 5 }, /* hole at the start */
		{ "{\"a\":" T("U8", "[4]", "0", "4") "}", 5 }, /* at the end */
		{ "{\"a\":" T("U8", "[4]", "0", "4") "}", 3 }, /* truncated */
		{ "{\"a\":" T("U8", "[4]", "0", "4") ",\"b\":" T("U8", "[4]", "5", "9") "}", 9 }, /* between */
		{ "{\"a\":" T("U8", "[4]", "0", "4") ",\"b\":" T("U8", "[4]", "3", "7") "}", 7 }, /* overlap */
		{ "{\"a\":" T("U8", "[4]", "0", "4") ",\"b\":" T("U8", "[4]", "0", "4") "}", 4 },
		{ "{\"a\":" T("U8", "[4]", "4", "0") "}", 4 },
		{ "{\"a\":" T("X", "[4]", "0", "18446744073709551615") "}", 4 },
		{ "{\"a\":" T("X", "[4]", "0", "18446744073709551616") "}", 4 },
		{ "{\"a\":" T("X", "[4]", "18446744073709551615", "18446744073709551615") "}", 0 },
		{ "{}", 1 },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		struct parsed r;

		assert_int_equal(parse_json(rows[i].json, rows[i].data_bytes, &r), -EBADMSG);
		parsed_done(&r);
	}
}

static void a_header_without_tensors_is_an_empty_plan(void **state)
{
	static const char *const rows[] = { "{}", "{ }  ", "{\"__metadata__\":{}}",
					    "{\"__metadata__\":{\"a\":\"b\",\"c\":\"\"}}" };

	for (size_t i = 0; i < array_len(rows); i++) {
		struct walk_cursor c = { 0 };
		struct format_range range;
		struct parsed r;

		assert_int_equal(parse_json(rows[i], 0, &r), 0);
		assert_int_equal(r.plan->nr, 0);
		assert_int_equal(format_plan_next(r.plan, FORMAT_ORDER_NAME, &c, MIB, &range), 0);
		assert_int_equal(format_plan_locate(r.plan, FORMAT_ORDER_FILE, 0, &c), -ENOENT);
		parsed_done(&r);
	}
}

static void what_is_not_json_or_not_a_tensor_is_refused(void **state)
{
	static const char *const rows[] = {
		"{\"a\":" T("U8", "[1]", "0", "1"), /* ends early */
		"{\"a\":" T("U8", "[1]", "0", "1") ",}",
		"{\"a\":" T("U8", "[1]", "0", "1") "} x",
		"{\"a\":" T("U8", "[1]", "0", "1") "}{}",
		"{\"a\":" T("U8", "[1,]", "0", "1") "}",
		"{\"a\":" T("U8", "[01]", "0", "1") "}",
		"{\"a\":" T("U8", "[1]", "0", "1,2") "}",
		"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}",
		"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
		"{\"a\":{}}",
		"{\"a\":[]}",
		"{\"a\":null}",
		"{a:1}",
		"{\"a\" 1}",
		"{\"__metadata__\":{\"a\":1},\"a\":" T("U8", "[1]", "0", "1") "}",
		"{\"__metadata__\":{},\"__metadata__\":{},\"a\":" T("U8", "[1]", "0", "1") "}",
		"{\"a\\u0000b\":" T("U8", "[1]", "0", "1") "}",
		"{\"\\ud800\":" T("U8", "[1]", "0", "1") "}",
		"{\"\\udc00\\ud800\":" T("U8", "[1]", "0", "1") "}",
		"{\"\\x\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xff\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xc0\x80\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xe0\x9f\xbf\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xf0\x8f\xbf\xbf\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xf4\x90\x80\x80\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xf5\x80\x80\x80\":" T("U8", "[1]", "0", "1") "}",
		"{\"\x80\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xe2\x82\":" T("U8", "[1]", "0", "1") "}",
		"{\"\xed\xa0\x80\":" T("U8", "[1]", "0", "1") "}",
		"{\"a\nb\":" T("U8", "[1]", "0", "1") "}",
		"{\"a\":" T("U8", "[1]", "0", "1") ",\"a\":" T("U8", "[0]", "0", "0") "}", /* twice */
		"{\"a\":" T("U8", "[1]", "0", "1") ",\"\\u0061\":" T("U8", "[0]", "0", "0") "}",
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		struct parsed r;

		assert_int_equal(parse_json(rows[i], 1, &r), -EBADMSG);
		parsed_done(&r);
	}
}

static void unknown_fields_are_skipped_whatever_they_hold(void **state)
{
	static const char json[] =
		"{\"a\":{\"x\":{\"y\":[1,-2.5e+7,{},[],[[\"]}\"]],true,false,null]},\"dtype\":\"U8\","
		"\"a name that is longer than any that is known here\":\"\\\"\\u00e9\\ud83d\\ude00\","
		"\"shape\":[1],\"data_offsets\":[0,1]}}";
	struct parsed r;

	assert_int_equal(parse_json(json, 1, &r), 0);
	assert_int_equal(r.plan->nr, 1);
	parsed_done(&r);
}

static void nesting_is_bounded(void **state)
{
	_cleanup_buf_ struct buf json;
	struct parsed r;

	for (int deep = 0; deep < 2; deep++) {
		int depth = deep ? 1000000 : 60;

		buf_init(&json, 4 * MIB);
		assert_int_equal(buf_add_str(&json, "{\"a\":{\"x\":"), 0);
		for (int i = 0; i < depth; i++)
			add(&json, "[", 1);
		for (int i = 0; i < depth; i++)
			add(&json, "]", 1);
		assert_int_equal(buf_add_str(&json, ",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}"), 0);
		assert_int_equal(parse_json(json.data, 1, &r), deep ? -EBADMSG : 0);
		parsed_done(&r);
		buf_done(&json);
	}
}

static void names_sort_by_code_point(void **state)
{
	/* U+FFFD is before U+1F600 in code points and behind it in UTF-16. */
	static const char json[] = "{\"\\ud83d\\ude00\":" T("U8", "[1]", "0", "1") ",\"\xef\xbf\xbd\":" T(
		"U8", "[1]", "1", "2") ",\"Z\":" T("U8", "[1]", "2", "3") ",\"a\":" T("U8", "[1]", "3", "4") "}";
	static const uint32_t by_name[] = { 2, 3, 1, 0 };
	struct parsed r;

	assert_int_equal(parse_json(json, 4, &r), 0);
	assert_memory_equal(r.plan->by_name, by_name, sizeof(by_name));
	parsed_done(&r);
}

static void another_format_is_told_from_a_damaged_file(void **state)
{
	static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
	static const struct {
		uint64_t len;
		int rc;
	} rows[] = {
		{ 0, -ENOEXEC },    { 1, -ENOEXEC },         { 100000001, -ENOEXEC }, { UINT64_MAX, -ENOEXEC },
		{ 1000, -EBADMSG }, { 100000000, -EBADMSG }, { 93, -EBADMSG },
	};
	struct parsed r;
	struct image im;

	for (size_t i = 0; i < array_len(rows); i++) {
		image_init(&im);
		add_le(&im.head, rows[i].len, 8);
		add(&im.head, "{}", 2);
		im.middle_bytes = 90;
		assert_int_equal(parse(FORMAT_SAFETENSORS, &im, SIZE_MAX, &r), rows[i].rc);
		image_done(&im);
	}
	image_init(&im);
	add(&im.head, pointer, strlen(pointer));
	assert_int_equal(parse(FORMAT_SAFETENSORS, &im, SIZE_MAX, &r), -ENOEXEC);
	image_done(&im);
	make(&im, " {}", 0);
	assert_int_equal(parse(FORMAT_SAFETENSORS, &im, SIZE_MAX, &r), -ENOEXEC);
	image_done(&im);
	make(&im, "", 0);
	assert_int_equal(parse(FORMAT_SAFETENSORS, &im, SIZE_MAX, &r), -ENOEXEC);
	assert_int_equal(parse(FORMAT_ONNX, &im, SIZE_MAX, &r), -ENOEXEC);
	image_done(&im);
}

/* Experts as large models have them: a big weight, a scale, and a scalar each, sorted by type. */
static void tens_of_thousands_of_tensors_take_a_few_requests(void **state)
{
	const unsigned nr = 18867;
	_cleanup_buf_ struct buf json;
	struct parsed r;
	uint64_t at = 0;

	buf_init(&json, 64 * MIB);
	add(&json, "{", 1);
	for (unsigned i = 0; i < nr; i++) {
		uint64_t bytes = i < nr / 2 ? 4 : 2 * MIB + 512 * (i % 7);

		assert_int_equal(buf_addf(&json,
					  "%s\"model.layers.%u.mlp.experts.%u.w\":{\"dtype\":\"U8\",\"shape\":[%llu],"
					  "\"data_offsets\":[%llu,%llu]}",
					  i ? "," : "", i / 300, i, (unsigned long long)bytes, (unsigned long long)at,
					  (unsigned long long)(at + bytes)),
				 0);
		at += bytes;
	}
	assert_int_equal(buf_addf(&json, "}%*s", 4000000, ""), 0);
	assert_int_equal(parse_json(json.data, at, &r), 0);
	assert_int_equal(r.plan->nr, nr);
	assert_in_range(r.nr_needs, 1, 4);
	assert_int_equal(r.plan->tensor[nr - 1].offset + r.plan->tensor[nr - 1].len, r.plan->file_bytes);
	parsed_done(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tensors_come_in_file_order_and_in_name_order),
		cmocka_unit_test(every_size_of_piece_gives_the_same_plan),
		cmocka_unit_test(bytes_elsewhere_change_nothing),
		cmocka_unit_test(known_types_must_fit_their_shape_and_others_are_taken_as_they_are),
		cmocka_unit_test(holes_overlaps_and_another_end_are_refused),
		cmocka_unit_test(a_header_without_tensors_is_an_empty_plan),
		cmocka_unit_test(what_is_not_json_or_not_a_tensor_is_refused),
		cmocka_unit_test(unknown_fields_are_skipped_whatever_they_hold),
		cmocka_unit_test(nesting_is_bounded),
		cmocka_unit_test(names_sort_by_code_point),
		cmocka_unit_test(another_format_is_told_from_a_damaged_file),
		cmocka_unit_test(tens_of_thousands_of_tensors_take_a_few_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
