// SPDX-License-Identifier: Apache-2.0
/* Natural order, kinds of files, directories that are one model, and index files. */
#include "test_format.h"

static void numbers_compare_as_numbers(void **state)
{
	static const char *const rising[] = {
		"",
		"0",
		"00",
		"1",
		"9",
		"10",
		"a",
		"a01b",
		"a1b",
		"a1c",
		"a2",
		"a10",
		"a99999999999999999999999998",
		"a99999999999999999999999999",
		"b",
		"model-00002-of-00010",
		"model-10-of-2",
		"model-00010-of-00010",
		"\xc3\xa9",
	};

	for (size_t i = 0; i < array_len(rising); i++) {
		for (size_t j = 0; j < array_len(rising); j++) {
			int order = format_name_compare(rising[i], rising[j]);

			assert_int_equal((order > 0) - (order < 0), (i > j) - (i < j));
		}
	}
}

static void kinds_are_told_by_name(void **state)
{
	static const struct {
		const char *name;
		enum format_kind kind;
	} rows[] = {
		{ "model.safetensors", FORMAT_SAFETENSORS },
		{ "MODEL.SAFETENSORS", FORMAT_SAFETENSORS },
		{ "model-Q4_K_M-00001-of-00003.gguf", FORMAT_GGUF },
		{ "pytorch_model.bin", FORMAT_TORCH },
		{ "consolidated.00.pth", FORMAT_TORCH },
		{ "sd.ckpt", FORMAT_TORCH },
		{ "x.pt", FORMAT_TORCH },
		{ "training_args.bin", FORMAT_NONE },
		{ "optimizer.pt", FORMAT_NONE },
		{ "rng_state_0.pth", FORMAT_NONE },
		{ "model.onnx", FORMAT_ONNX },
		{ "model.onnx_data", FORMAT_ONNX },
		{ "model.onnx.data", FORMAT_ONNX },
		{ "model.safetensors.index.json", FORMAT_INDEX },
		{ "pytorch_model.bin.index.json", FORMAT_INDEX },
		{ "diffusion_pytorch_model.safetensors.index.fp16.json", FORMAT_INDEX },
		{ "config.json", FORMAT_NONE },
		{ "index.json", FORMAT_NONE },
		{ ".safetensors", FORMAT_NONE },
		{ "safetensors", FORMAT_NONE },
		{ "README.md", FORMAT_NONE },
		{ "", FORMAT_NONE },
	};

	for (size_t i = 0; i < array_len(rows); i++)
		assert_int_equal(format_kind_of_name(rows[i].name), rows[i].kind);
}

#define DIR(...)                  \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

static void a_directory_is_one_model_or_not(void **state)
{
	const struct {
		const char *const *names;
		const char *index; /* NULL = none */
		const char *files; /* in order; NULL = not one model */
	} rows[] = {
		{ DIR("README.md", "data.csv"), NULL, NULL },
		{ DIR("model.safetensors"), NULL, "model.safetensors " },
		{ DIR("a-00010-of-00010.safetensors", "a-00002-of-00010.safetensors", "x.txt"), NULL,
		  "a-00002-of-00010.safetensors a-00010-of-00010.safetensors " },
		{ DIR("a.safetensors", "b.safetensors"), NULL, NULL },
		{ DIR("b.safetensors", "a.safetensors", "config.json"), NULL, "a.safetensors b.safetensors " },
		{ DIR("llama-7b.gguf", "llama-13b.gguf"), NULL, NULL },
		{ DIR("m-Q4-00001-of-00002.gguf", "m-Q4-00002-of-00002.gguf"), NULL,
		  "m-Q4-00001-of-00002.gguf m-Q4-00002-of-00002.gguf " },
		{ DIR("m-q4-00001-of-00002.gguf", "m-f-00002-of-00002.gguf"), NULL, NULL },
		{ DIR("q4.gguf", "q8.gguf", "config.json"), NULL, NULL },
		{ DIR("consolidated.01.pth", "consolidated.00.pth"), NULL, "consolidated.00.pth consolidated.01.pth " },
		{ DIR("pytorch_model.bin", "model.safetensors", "training_args.bin"), NULL, "model.safetensors " },
		{ DIR("model-1.safetensors", "model.safetensors.index.json", "odd.safetensors"),
		  "model.safetensors.index.json", "model-1.safetensors odd.safetensors " },
		{ DIR("p-1.bin", "pytorch_model.bin.index.json"), "pytorch_model.bin.index.json", "p-1.bin " },
		{ DIR("pytorch_model.bin.index.json", "m.safetensors.index.json", "p.bin", "m.safetensors"),
		  "m.safetensors.index.json", "m.safetensors " },
		{ DIR("m.safetensors.index.json", "pytorch_model.bin.index.json", "p.bin", "m.safetensors"),
		  "m.safetensors.index.json", "m.safetensors " },
		{ DIR("pytorch_model.bin.index.json", "p.bin", "m.safetensors"), NULL, "m.safetensors " },
		{ DIR("model.onnx", "model.onnx_data"), NULL, "model.onnx model.onnx_data " },
		{ DIR("model.onnx", "model_fp16.onnx"), NULL, NULL },
		{ DIR("model.safetensors.index.json"), "model.safetensors.index.json", "" },
	};

	for (size_t i = 0; i < array_len(rows); i++) {
		_cleanup_buf_ struct buf files;
		struct format_model m;
		size_t nr = 0;
		int rc;

		buf_init(&files, KIB);
		while (rows[i].names[nr])
			nr++;
		rc = format_model_find(rows[i].names, nr, &m);
		assert_int_equal(rc, rows[i].files ? 0 : -ENOENT);
		for (size_t f = 0; f < m.nr; f++)
			assert_int_equal(buf_addf(&files, "%s ", rows[i].names[m.file[f]]), 0);
		assert_string_equal(buf_str(&files), rows[i].files ? rows[i].files : "");
		if (rows[i].index)
			assert_string_equal(rows[i].names[m.index], rows[i].index);
		else
			assert_int_equal(m.index, -1);
		format_model_done(&m);
	}
}

/* --- index files --- */

static int parse_index(const char *json, struct format_index *ret)
{
	size_t len = strlen(json);
	char *copy = malloc(len ? len : 1); /* of exactly its size, for the sanitizers */
	struct err e = { 0 };
	int rc;

	assert_non_null(copy);
	memcpy(copy, json, len);
	rc = format_index_parse(copy, len, ret, &e);
	assert_true(rc == 0 || (e.code == rc && e.msg[0]));
	assert_true(rc == 0 || (!ret->nr && !ret->shard));
	free(copy);
	return rc;
}

static void an_index_names_its_shards_once_and_in_natural_order(void **state)
{
	static const char json[] =
		"{\"metadata\":{\"total_size\":5,\"x\":[{}]},\"weight_map\":{"
		"\"a\":\"m-10.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-10.safetensors\","
		"\"d\":\"m-1.safetensors\",\"e\":\"m-2.safetensors\"},\"more\":null}\n";
	struct format_index index;

	assert_int_equal(parse_index(json, &index), 0);
	assert_int_equal(index.nr, 3);
	assert_string_equal(index.shard[0], "m-1.safetensors");
	assert_string_equal(index.shard[1], "m-2.safetensors");
	assert_string_equal(index.shard[2], "m-10.safetensors");
	format_index_done(&index);
}

static void names_that_leave_the_directory_are_refused(void **state)
{
	static const char *const names[] = { "",          "a/b",   "/etc/passwd",   "..", ".", "../x",
					     "a\\u0000b", "a\\/b", "\\u002e\\u002e" };
	char json[1024], name[300];
	struct format_index index;

	for (size_t i = 0; i < array_len(names); i++) {
		snprintf(json, sizeof(json), "{\"weight_map\":{\"ok\":\"m\",\"t\":\"%s\"}}", names[i]);
		assert_int_equal(parse_index(json, &index), -EBADMSG);
	}
	for (size_t len = 255; len <= 256; len++) {
		memset(name, 'n', len);
		name[len] = '\0';
		snprintf(json, sizeof(json), "{\"weight_map\":{\"t\":\"%s\"}}", name);
		assert_int_equal(parse_index(json, &index), len == 255 ? 0 : -EBADMSG);
		format_index_done(&index);
	}
	assert_int_equal(parse_index("{\"weight_map\":{\"t\":\"...\"}}", &index), 0);
	format_index_done(&index);
}

static void what_is_no_index_is_refused(void **state)
{
	static const struct {
		const char *json;
		int rc;
	} rows[] = {
		{ "", -ENOEXEC },
		{ "[]", -ENOEXEC },
		{ "{\"a\":1}", -ENOEXEC },
		{ "{}", -EBADMSG },
		{ "{\"weight_map\":{}}", -EBADMSG },
		{ "{\"weight_map\":[]}", -EBADMSG },
		{ "{\"weight_map\":{\"a\":1}}", -EBADMSG },
		{ "{\"weight_map\":{\"a\":\"b\"}", -EBADMSG },
		{ "{\"weight_map\":{\"a\":\"b\",}}", -EBADMSG },
		{ "{\"weight_map\":{\"a\":\"b\"}} x", -EBADMSG },
		{ "{\"weight_map\":{\"a\":\"b\"},\"weight_map\":{\"a\":\"b\"}}", -EBADMSG },
		{ "{\"weight_map\":{\"a\":\"b\",\"a\":\"b\"}}", -EBADMSG },
	};
	struct format_index index;

	for (size_t i = 0; i < array_len(rows); i++)
		assert_int_equal(parse_index(rows[i].json, &index), rows[i].rc);
}

static void too_many_shards_are_refused_and_as_many_as_allowed_are_not(void **state)
{
	_cleanup_buf_ struct buf json;
	struct format_index index;

	for (unsigned extra = 0; extra < 2; extra++) {
		buf_init(&json, 4 * MIB);
		assert_int_equal(buf_add_str(&json, "{\"weight_map\":{"), 0);
		for (unsigned i = 0; i < FORMAT_SHARDS_MAX + extra; i++)
			assert_int_equal(buf_addf(&json, "%s\"t%u\":\"m-%u\"", i ? "," : "", i, i * 7919 % 100003), 0);
		assert_int_equal(buf_add_str(&json, "}}"), 0);
		assert_int_equal(parse_index(json.data, &index), extra ? -E2BIG : 0);
		for (size_t i = 1; i < index.nr; i++)
			assert_true(format_name_compare(index.shard[i - 1], index.shard[i]) < 0);
		format_index_done(&index);
		buf_done(&json);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_compare_as_numbers),
		cmocka_unit_test(kinds_are_told_by_name),
		cmocka_unit_test(a_directory_is_one_model_or_not),
		cmocka_unit_test(an_index_names_its_shards_once_and_in_natural_order),
		cmocka_unit_test(names_that_leave_the_directory_are_refused),
		cmocka_unit_test(what_is_no_index_is_refused),
		cmocka_unit_test(too_many_shards_are_refused_and_as_many_as_allowed_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
