// SPDX-License-Identifier: Apache-2.0
/*
 * Making a plan: which files, and which of their bytes in which order.
 *
 * Design: a recorded profile says it all. Without one the listing tells what is a model, its index file which shards
 * there are, and each file's header its tensors. What cannot be told is left out and never an error: a file whose
 * header says nothing is planned from its first byte to its last. The heads of all files are fetched at once, since
 * loaders open all of them first.
 * Threads: the engine's own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "prefetch/engine_i.h"

#define HEAD_BYTES (256u << 10)
#define HEADS_AT_ONCE 256
#define HEADER_PIECES_MAX 64

/* The tensors of one file, or its bytes as they lie. */
static int file_plan_add(struct sched *s, uint32_t file, const struct format_plan *plan, uint64_t size_bytes,
			 enum format_order order)
{
	struct walk_cursor cursor = { 0 };
	struct format_range r;
	int rc = 0;

	if (plan) {
		rc = sched_range_add(s, file, plan->head.offset, plan->head.len);
		while (rc == 0 && format_plan_next(plan, order, &cursor, CACHE_CHUNK_BYTES, &r) == 1)
			rc = sched_range_add(s, file, r.offset, r.len);
	}
	/* What no tensor holds is read too by those who read whole files. */
	return rc < 0 ? rc : sched_range_add(s, file, 0, size_bytes);
}

static struct format_plan *header_parse(struct engine *e, struct cache_object *o, enum format_kind kind,
					uint64_t size_bytes)
{
	_cleanup_free_ char *bytes = NULL;
	struct format_parser *p = NULL;
	struct format_plan *plan = NULL;
	struct format_range need;
	struct err why = { 0 };
	size_t room = 0;
	int rc = format_parser_new(kind, size_bytes, &p, &why);

	for (unsigned i = 0; rc == 0 && i < HEADER_PIECES_MAX; i++) {
		need = format_parser_need(p);
		if (need.len > room) {
			free(take_ptr(bytes));
			room = (size_t)need.len;
			bytes = malloc(room);
		}
		rc = bytes ? engine_bytes(e, o, need.offset, (size_t)need.len, bytes) : -ENOMEM;
		if (rc == 0)
			rc = format_parser_feed(p, need.offset, bytes, (size_t)need.len, &why);
	}
	if (rc == 1)
		plan = format_parser_take(p);
	else if (rc < 0 && rc != -ECANCELED && kind != FORMAT_NONE)
		log_info("prefetch", "key=%s: read without a plan: %s", cache_object_key(o),
			 why.msg[0] ? why.msg : strerror(-rc));
	format_parser_free(p);
	return plan;
}

static int file_add(struct engine *e, struct engine_model *m, struct cache_object *o, const char *name,
		    uint64_t size_bytes)
{
	enum format_kind kind = format_kind_of_name(name);
	struct format_plan *plan = header_parse(e, o, kind, size_bytes);
	int file = sched_file_add(m->sched, size_bytes);

	if (file >= 0)
		file = file_plan_add(m->sched, (uint32_t)file, plan, size_bytes,
				     kind == FORMAT_SAFETENSORS ? FORMAT_ORDER_NAME : FORMAT_ORDER_FILE);
	format_plan_free(plan);
	return file;
}

/* The index file first, as readers do; then the files it names that are there. */
static int index_read(struct engine *e, const struct listing *l, size_t at, struct format_index *ret)
{
	const struct listed *item = &l->item[at];
	_cleanup_free_ char *bytes = NULL;
	struct err why = { 0 };
	int rc = engine_listed_bytes(e, l, item, FORMAT_INDEX_MAX_BYTES, &bytes);

	if (rc == 0)
		rc = format_index_parse(bytes, item->size_bytes, ret, &why);
	if (rc < 0)
		log_info("prefetch", "key=%s%s: not used as an index: %s", l->dir, item->name,
			 why.msg[0] ? why.msg : strerror(-rc));
	return rc;
}

static bool index_names(const struct format_index *index, const char *name)
{
	for (size_t i = 0; i < index->nr; i++) {
		if (strcmp(index->shard[i], name) == 0)
			return true;
	}
	return false;
}

/* Which entries of the listing are the model, in the order of reading. -ENOENT: it is none. */
static int model_files(struct engine *e, const struct listing *l, uint32_t **ret_file, size_t *ret_nr)
{
	_cleanup_free_ const char **name = calloc(l->nr + 1, sizeof(*name));
	struct format_index index = { 0 };
	struct format_model found;
	size_t nr = 0;
	int rc;

	if (!name)
		return -ENOMEM;
	for (size_t i = 0; i < l->nr; i++)
		name[i] = l->item[i].name;
	rc = format_model_find(name, l->nr, &found);
	if (rc < 0)
		return rc;
	if (found.index >= 0 && index_read(e, l, (size_t)found.index, &index) == 0) {
		for (size_t i = 0; i < found.nr; i++) {
			if (index_names(&index, name[found.file[i]]))
				found.file[nr++] = found.file[i];
		}
		found.nr = nr;
		format_index_done(&index);
	}
	*ret_file = take_ptr(found.file);
	*ret_nr = found.nr;
	format_model_done(&found);
	return *ret_nr ? 0 : -ENOENT;
}

static int files_plan(struct engine *e, struct engine_model *m, const struct listing *l, const uint32_t *file,
		      size_t nr)
{
	int rc = 0;

	m->object = calloc(nr, sizeof(struct cache_object *));
	if (!m->object)
		return -ENOMEM;
	for (; m->nr_objects < nr; m->nr_objects++) {
		m->object[m->nr_objects] = engine_listed_object(e, l, &l->item[file[m->nr_objects]]);
		if (!m->object[m->nr_objects])
			return -ENOMEM;
	}
	m->has_digest = engine_dataset_digest(l, file, nr, m->digest) == 0;
	if (m->has_digest && engine_profile_plan(e, m, l, file, nr) == 0) {
		/* What it leaves out is not wanted. */
		m->confident = true;
		return 0;
	}
	sched_free(m->sched);
	m->sched = sched_new();
	if (!m->sched)
		return -ENOMEM;
	for (size_t i = 0; i < min_of(nr, (size_t)HEADS_AT_ONCE); i++)
		cache_prefetch(e->cfg.cache, m->object[i], 0, HEAD_BYTES, true);
	for (size_t i = 0; i < nr && rc == 0; i++)
		rc = file_add(e, m, m->object[i], l->item[file[i]].name, l->item[file[i]].size_bytes);
	return rc;
}

static int directory_plan(struct engine *e, struct engine_model *m)
{
	_cleanup_free_ uint32_t *file = NULL;
	struct listing l;
	size_t nr = 0;
	int rc = engine_list(e, m->name, false, &l);

	if (rc < 0)
		return rc;
	rc = model_files(e, &l, &file, &nr);
	if (rc == 0)
		rc = files_plan(e, m, &l, file, nr);
	listing_done(&l);
	return rc;
}

static int everything_plan(struct engine *e, struct engine_model *m)
{
	_cleanup_free_ uint32_t *file = NULL;
	struct listing l;
	size_t nr = 0;
	int rc = engine_list(e, m->name, true, &l);

	if (rc < 0)
		return rc;
	file = calloc(l.nr + 1, sizeof(*file));
	for (size_t i = 0; file && i < l.nr; i++) {
		/* What is ours is not read. */
		if (strncmp(l.item[i].name, ENGINE_PRIVATE_DIR "/", sizeof(ENGINE_PRIVATE_DIR)) != 0)
			file[nr++] = (uint32_t)i;
	}
	rc = !file ? -ENOMEM : nr ? files_plan(e, m, &l, file, nr) : -ENOENT;
	listing_done(&l);
	return rc;
}

/* From here on the plan counts what the page cache and ours lose. */
static int losses_note(struct engine_model *m)
{
	m->pass = calloc(m->nr_objects + 1, sizeof(*m->pass));
	m->lost = calloc(m->nr_objects + 1, sizeof(*m->lost));
	for (size_t i = 0; m->pass && m->lost && i < m->nr_objects; i++) {
		m->pass[i] = cache_object_pass(m->object[i]);
		m->lost[i] = cache_object_lost(m->object[i]);
	}
	return m->pass && m->lost ? 0 : -ENOMEM;
}

int engine_plan_make(struct engine *e, struct engine_model *m)
{
	int rc;

	m->sched = sched_new();
	if (!m->sched)
		return -ENOMEM;
	if (!m->whole)
		rc = file_add(e, m, m->object[0], m->name, cache_object_size(m->object[0]));
	else if (m->confident && atomic_load(&e->mode) == ENGINE_EAGER)
		rc = everything_plan(e, m);
	else
		rc = directory_plan(e, m);
	if (rc == 0)
		rc = losses_note(m);
	if (rc < 0)
		return rc;
	if (atomic_load(&e->record))
		engine_record_start(e, m);
	return sched_seal(m->sched);
}
