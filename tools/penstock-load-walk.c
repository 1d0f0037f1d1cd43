// SPDX-License-Identifier: Apache-2.0
/*
 * Replays that copy tensors out of mappings, in steps that each are one operation.
 *
 * Design: a worker takes the next file, opens it when it gets there, and visits its tensors in the pattern's order;
 * what a visit copies is the pattern. Ranks are processes: each visits every file and takes its own part.
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/size.h"
#include "penstock-load-replay.h"

#define BACKWARD_PIECE_BYTES (16ul << 20)
#define COPY_BYTES 4096ul
#define POPULATE_BYTES (64ul << 20)
#define ROW_MIN_BYTES (16ul << 10) /* shorter rows are taken together, so that small models have large ones' strides */

/* Copies the visit's part of a tensor; false when the time is up. */
typedef bool visit_fn(struct load_worker *w, struct load_file *f, const struct tensor *t);

static bool span_copy(struct load_worker *w, struct load_file *f, uint64_t offset, uint64_t len)
{
	size_t n;

	for (; len && !load_time_is_up(w); offset += n, len -= n) {
		n = (size_t)min_of(len, STEP_BYTES);
		load_bytes(w, f, offset, n, w->buf);
	}
	return !len;
}

static bool visit_whole(struct load_worker *w, struct load_file *f, const struct tensor *t)
{
	return span_copy(w, f, t->offset, t->len_bytes);
}

static bool file_visit(struct load_worker *w, size_t file, visit_fn *visit)
{
	struct replay *r = replay_of(w);
	struct tensors *t = &r->tensors[file];

	if (r->pattern->order == ORDER_NAME)
		tensors_sort_by_name(t);
	for (size_t i = 0; i < t->nr; i++) {
		if (!visit(w, &r->run.files[file], &t->item[i]))
			return false;
		load_tensor_done(w);
	}
	return true;
}

static void files_visit(struct load_worker *w, visit_fn *visit)
{
	struct replay *r = replay_of(w);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < replay_nr_weights(r)) {
		size_t file = r->nr_small + (size_t)unit;

		if (!replay_file_open(w, file) && !file_visit(w, file, visit))
			return;
	}
}

void body_forward(struct load_worker *w)
{
	files_visit(w, visit_whole);
}

/* --- backward: the pieces rise, within one the bytes are copied from its end, as some memcpy() do --- */

static void step_backward(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	uint64_t started = clock_mono_ns();
	size_t n;
	int rc = 0;

	for (size_t left = len; left && !rc; left -= n) {
		n = left % COPY_BYTES ? left % COPY_BYTES : COPY_BYTES;
		rc = load_copy(w->buf + left - n, f->map + offset + left - n, n);
	}
	load_op_done(w, f, offset, len, started, rc);
	if (!rc)
		load_op_compare(w, f, offset, w->buf, len);
}

static bool piece_backward(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	size_t n;

	for (; len && !load_time_is_up(w); len -= n) {
		n = len % STEP_BYTES ? len % STEP_BYTES : STEP_BYTES;
		step_backward(w, f, offset + len - n, n);
	}
	load_tensor_done(w);
	return !len;
}

void body_backward(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < replay_nr_weights(r)) {
		size_t file = r->nr_small + (size_t)unit, n;
		struct load_file *f = &r->run.files[file];
		bool go_on = !replay_file_open(w, file) && r->tensors[file].nr;

		for (uint64_t at = go_on ? r->tensors[file].item[0].offset : 0; go_on && at < f->size_bytes; at += n) {
			n = (size_t)min_of(f->size_bytes - at, BACKWARD_PIECE_BYTES);
			go_on = piece_backward(w, f, at, n);
		}
	}
}

/* --- shuffled: all files open, all tensors of all of them in one order, threads take the next one each --- */

int shuffled_prepare(struct load_run *run, struct err *e)
{
	struct replay *r = container_of(run, struct replay, run);
	size_t nr = 0;

	for (size_t i = r->nr_small; i < run->nr_files; i++)
		nr += r->tensors[i].nr;
	r->units = calloc(nr + 1, sizeof(*r->units));
	if (!r->units)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = r->nr_small; i < run->nr_files; i++) {
		for (size_t n = 0; n < r->tensors[i].nr; n++) {
			size_t other = content_mix(run->opt->seed + r->nr_units) % (r->nr_units + 1);

			r->units[r->nr_units++] = r->units[other];
			r->units[other] = (struct replay_unit){ (uint32_t)i, (uint32_t)n };
		}
	}
	return 0;
}

void body_shuffled(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < r->nr_units) {
		const struct replay_unit *u = &r->units[unit];

		if (!visit_whole(w, &r->run.files[u->file], &r->tensors[u->file].item[u->tensor]))
			return;
		load_tensor_done(w);
	}
}

/* --- parts of ranks; what has one dimension is everybody's --- */

static bool visit_columns(struct load_worker *w, struct load_file *f, const struct tensor *t)
{
	unsigned rank = w->run->process, world = w->run->opt->processes;
	uint64_t first = t->len_bytes * rank / world, last = t->len_bytes * (rank + 1) / world;

	if (!t->columns)
		return visit_whole(w, f, t);
	return span_copy(w, f, t->offset + first, last - first);
}

void body_columns(struct load_worker *w)
{
	files_visit(w, visit_columns);
}

static bool visit_rows(struct load_worker *w, struct load_file *f, const struct tensor *t)
{
	unsigned rank = w->run->process, world = w->run->opt->processes;
	uint64_t row = t->columns && t->rows ? t->len_bytes / t->rows : 0, started = clock_mono_ns(), step = 0;
	int rc = 0;

	if (!row)
		return visit_whole(w, f, t);
	row *= (ROW_MIN_BYTES + row - 1) / row;
	for (uint64_t at = 0; at < t->len_bytes; at += row) {
		uint64_t len = min_of(row, t->len_bytes - at), first = len * rank / world;
		uint64_t last = len * (rank + 1) / world, offset = t->offset + at + first;
		size_t n;

		for (uint64_t done = first; done < last && !rc; done += n, offset += n) {
			n = (size_t)min_of(last - done, STEP_BYTES);
			rc = load_copy(w->buf, f->map + offset, n);
			if (rc)
				break;
			load_op_touch(w, f, offset, n);
			load_op_compare(w, f, offset, w->buf, n);
			step += n;
		}
		if (!rc && step < STEP_BYTES && at + row < t->len_bytes)
			continue;
		load_op_done(w, f, offset, 0, started, rc);
		if (rc || load_time_is_up(w))
			return !load_time_is_up(w);
		started = clock_mono_ns();
		step = 0;
	}
	return true;
}

void body_rows(struct load_worker *w)
{
	files_visit(w, visit_rows);
}

static bool expert_of(const struct tensor *t, uint64_t *ret)
{
	const char *at = strstr(t->name, ".experts.");
	char number[24] = "";

	if (!at)
		return false;
	at += strlen(".experts.");
	snprintf(number, sizeof(number), "%.*s", (int)min_of(strcspn(at, "."), sizeof(number) - 1), at);
	return !number_parse(number, 0, UINT32_MAX, ret);
}

static uint64_t experts_count(const struct tensors *t)
{
	uint64_t expert, nr = 1;

	for (size_t i = 0; i < t->nr; i++)
		if (expert_of(&t->item[i], &expert))
			nr = max_of(nr, expert + 1);
	return nr;
}

/* A rank has its part of the experts, as consecutive numbers, and all that is no expert. */
static bool experts_visit(struct load_worker *w, struct load_file *f, struct tensors *t)
{
	uint64_t expert, nr = experts_count(t);

	tensors_sort_by_name(t);
	for (size_t i = 0; i < t->nr; i++) {
		if (expert_of(&t->item[i], &expert) && expert * w->run->opt->processes / nr != w->run->process)
			continue;
		if (!visit_whole(w, f, &t->item[i]))
			return false;
		load_tensor_done(w);
	}
	return true;
}

void body_experts(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < replay_nr_weights(r)) {
		size_t file = r->nr_small + (size_t)unit;

		if (!replay_file_open(w, file) && !experts_visit(w, &r->run.files[file], &r->tensors[file]))
			return;
	}
}

/* --- populate: each file's pages are asked for in windows, then its tensors are copied --- */

static bool windows_populate(struct load_worker *w, struct load_file *f)
{
	size_t n;

	for (uint64_t at = 0; at < f->size_bytes && !load_time_is_up(w); at += n) {
		uint64_t started = clock_mono_ns();

		n = (size_t)min_of(f->size_bytes - at, POPULATE_BYTES);
		load_op_done(w, f, at, 0, started, madvise((void *)(f->map + at), n, MADV_POPULATE_READ) ? -errno : 0);
	}
	return !load_time_is_up(w);
}

/* A GGUF file was populated with its mapping. */
void body_populate(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	enum load_kind kind;
	uint64_t unit;

	while ((unit = load_unit_next(w)) < replay_nr_weights(r)) {
		size_t file = r->nr_small + (size_t)unit;
		struct load_file *f = &r->run.files[file];

		if (replay_file_open(w, file) || format_kind_of(f->path, &kind))
			continue;
		if (kind != KIND_GGUF && !windows_populate(w, f))
			return;
		if (!file_visit(w, file, visit_whole))
			return;
	}
}

/* --- raced: threads read ahead while one of each process consumes all files --- */

void body_raced(struct load_worker *w)
{
	struct replay *r = replay_of(w);

	if (w->index) {
		blocks_read_ahead(w);
		return;
	}
	for (size_t i = r->nr_small; i < r->run.nr_files; i++)
		if (!replay_file_open(w, i) && !file_visit(w, i, visit_whole))
			return;
}
