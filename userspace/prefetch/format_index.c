// SPDX-License-Identifier: Apache-2.0
/*
 * Index files: {"metadata": ..., "weight_map": {TENSOR: FILE, ...}}. The files are what is wanted; the names of the
 * tensors are only checked to be different, as in the files themselves.
 */
#include "prefetch/format_i.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "prefetch/format_json.h"

static void cleanup_list(struct format_list *l)
{
	format_list_done(l);
}

static void cleanup_index(struct format_index *index)
{
	format_index_done(index);
}

void format_index_done(struct format_index *index)
{
	for (size_t i = 0; i < index->nr; i++)
		free(index->shard[i]);
	free(index->shard);
	*index = (struct format_index){ 0 };
}

/* A name in the same directory, and nothing else. */
static bool is_plain_name(const char *name, size_t len)
{
	return len && len <= NAME_MAX && !memchr(name, 0, len) && !strchr(name, '/') && strcmp(name, ".") != 0 &&
	       strcmp(name, "..") != 0;
}

/* Keeps the names sorted. The shard of one tensor is mostly that of the tensor before it. */
static int add_shard(struct format_index *index, const char *name, size_t *last, struct err *e)
{
	size_t lo = 0, hi = index->nr;
	char *copy;

	if (*last < index->nr && strcmp(index->shard[*last], name) == 0)
		return 0;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int order = format_name_compare(index->shard[mid], name);

		if (order == 0) {
			*last = mid;
			return 0;
		}
		if (order < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (index->nr == FORMAT_SHARDS_MAX)
		return err_set(e, -E2BIG, "it names more than %d files", FORMAT_SHARDS_MAX);
	if (!(index->nr & (index->nr - 1))) {
		char **shard = realloc(index->shard, (index->nr ? index->nr * 2 : 1) * sizeof(*shard));

		if (!shard)
			return err_set(e, -ENOMEM, "no memory for the names of the files");
		index->shard = shard;
	}
	copy = strdup(name);
	if (!copy)
		return err_set(e, -ENOMEM, "no memory for the names of the files");
	memmove(&index->shard[lo + 1], &index->shard[lo], (index->nr - lo) * sizeof(*index->shard));
	index->shard[lo] = copy;
	index->nr++;
	*last = lo;
	return 0;
}

static int add_entry(struct format_json *j, struct format_list *tensors, struct format_index *index, size_t *last,
		     struct err *e)
{
	char tensor[FORMAT_NAME_MAX_BYTES + 1], shard[NAME_MAX + 1];
	size_t tensor_len = 0, shard_len = 0;
	int rc = format_json_string(j, tensor, sizeof(tensor), &tensor_len);

	if (rc == 0)
		rc = format_json_take(j, ':');
	if (rc == 0)
		rc = format_json_string(j, shard, sizeof(shard), &shard_len);
	if (rc < 0)
		return err_set(e, -EBADMSG, "entry %u of its weight_map is no pair of names", tensors->nr);
	if (!is_plain_name(shard, shard_len))
		return err_set(e, -EBADMSG, "entry %u of its weight_map names no file of its directory", tensors->nr);
	rc = format_list_add(tensors, tensor, tensor_len, 0, 0, e);
	return rc < 0 ? rc : add_shard(index, shard, last, e);
}

static int check_twice(const struct format_list *tensors, struct err *e)
{
	_cleanup_free_ uint32_t *order = NULL;
	const char *twice;
	int rc = format_list_order(tensors, strcmp, &order, &twice);

	if (rc < 0)
		return err_set(e, rc, "no memory for %u names", tensors->nr);
	return twice ? err_set(e, -EBADMSG, "its weight_map has a tensor twice") : 0;
}

static int parse_map(struct format_json *j, struct format_index *index, struct err *e)
{
	_cleanup_(cleanup_list) struct format_list tensors = { 0 };
	size_t last = 0;
	char c = 0;
	int rc = format_json_take(j, '{');

	if (rc == 0)
		rc = format_json_peek(j, &c);
	if (rc < 0 || c == '}')
		return err_set(e, -EBADMSG, "its weight_map is no object, or empty");
	do {
		rc = add_entry(j, &tensors, index, &last, e);
		if (rc < 0)
			return rc;
		rc = format_json_more(j, '}');
	} while (rc == 1);
	if (rc < 0)
		return err_set(e, -EBADMSG, "its weight_map is not JSON after entry %u", tensors.nr);
	return check_twice(&tensors, e);
}

static int parse_member(struct format_json *j, struct format_index *index, struct err *e)
{
	char name[32];
	size_t len = 0;
	int rc = format_json_string(j, name, sizeof(name), &len);

	if (rc == 0 || rc == -E2BIG) {
		bool is_map = rc == 0 && len == strlen("weight_map") && memcmp(name, "weight_map", len) == 0;

		rc = format_json_take(j, ':');
		if (rc == 0 && is_map && index->nr)
			return err_set(e, -EBADMSG, "it has weight_map twice");
		if (rc == 0 && is_map)
			return parse_map(j, index, e);
		if (rc == 0)
			rc = format_json_skip(j);
	}
	return rc < 0 ? err_set(e, -EBADMSG, "it is not JSON, or ends too early") : 0;
}

int format_index_parse(const char *bytes, size_t len, struct format_index *ret_index, struct err *e)
{
	struct format_json j = { .at = (const uint8_t *)bytes, .end = (const uint8_t *)bytes + len };
	_cleanup_(cleanup_index) struct format_index index = { 0 };
	char c;
	int rc;

	*ret_index = (struct format_index){ 0 };
	if (len > FORMAT_INDEX_MAX_BYTES)
		return err_set(e, -E2BIG, "it is larger than %u bytes", FORMAT_INDEX_MAX_BYTES);
	if (format_json_take(&j, '{') < 0)
		return err_set(e, -ENOEXEC, "it is no JSON object");
	do {
		rc = parse_member(&j, &index, e);
		if (rc < 0)
			return rc;
		rc = format_json_more(&j, '}');
	} while (rc == 1);
	if (rc < 0 || format_json_peek(&j, &c) == 0)
		return err_set(e, -EBADMSG, "it is not JSON, or ends too early");
	if (!index.nr)
		return err_set(e, -ENOEXEC, "it has no weight_map");
	*ret_index = index;
	index = (struct format_index){ 0 };
	return 0;
}
