// SPDX-License-Identifier: Apache-2.0
/*
 * Replays that read(): blocks of all files in turn or in shares, whole files, and the records of torch archives.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "penstock-load-replay.h"

/* The n-th block of all weight files. */
static bool block_locate(const struct replay *r, uint64_t n, struct load_file **ret_f, uint64_t *ret_offset)
{
	uint64_t block = r->pattern->block_bytes;

	for (size_t i = r->nr_small; i < r->run.nr_files; i++) {
		uint64_t blocks = (r->run.files[i].size_bytes + block - 1) / block;

		if (n < blocks) {
			*ret_f = &r->run.files[i];
			*ret_offset = n * block;
			return true;
		}
		n -= blocks;
	}
	return false;
}

static uint64_t blocks_count(const struct replay *r)
{
	uint64_t block = r->pattern->block_bytes, nr = 0;

	for (size_t i = r->nr_small; i < r->run.nr_files; i++)
		nr += (r->run.files[i].size_bytes + block - 1) / block;
	return nr;
}

/* <fd> may be another than the file's. O_DIRECT wants whole sectors; the end of the file cuts the last one short. */
static void block_read(struct load_worker *w, struct load_file *f, int fd, uint64_t offset, size_t len)
{
	size_t want = (len + LOAD_ALIGN_BYTES - 1) & ~(LOAD_ALIGN_BYTES - 1), done = 0;
	uint64_t started = clock_mono_ns();
	ssize_t n;
	int rc = 0;

	for (; done < len && !rc; done += n > 0 ? (size_t)n : 0) {
		n = pread(fd, w->buf + done, want - done, (off_t)(offset + done));
		rc = n < 0 ? -errno : n ? 0 : -ENODATA;
	}
	load_op_done(w, f, offset, len, started, rc);
	if (!rc)
		load_op_compare(w, f, offset, w->buf, len);
}

void body_blocks(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	const struct load_options *opt = w->run->opt;
	uint64_t nr = blocks_count(r), at = nr * w->index / opt->jobs, last = nr * (w->index + 1) / opt->jobs, offset;
	enum replay_turn turn = r->pattern->turn;
	struct load_file *f;

	for (; !load_time_is_up(w); at++) {
		uint64_t n = turn == TURN_SHARE ? at : load_unit_next(w);

		if (turn == TURN_PROCESS)
			n = n * opt->processes + w->run->process;
		if (n >= (turn == TURN_SHARE ? last : nr) || !block_locate(r, n, &f, &offset))
			return;
		block_read(w, f, f->fd, offset, (size_t)min_of(r->pattern->block_bytes, f->size_bytes - offset));
		load_tensor_done(w);
	}
}

void blocks_read_ahead(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	uint64_t n;

	while ((n = load_unit_next(w) * w->run->opt->processes + w->run->process) < replay_nr_weights(r)) {
		struct load_file *f = &r->run.files[r->nr_small + n];
		_cleanup_close_ int fd = open(f->path, O_RDONLY | O_CLOEXEC);
		uint64_t block = r->pattern->block_bytes;

		if (fd < 0)
			load_op_done(w, f, 0, 0, clock_mono_ns(), -errno);
		for (uint64_t at = 0; fd >= 0 && at < f->size_bytes && !load_time_is_up(w); at += block)
			block_read(w, f, fd, at, (size_t)min_of(block, f->size_bytes - at));
	}
}

/* One buffer for a whole file and, as far as the kernel goes along, one read(). */
void body_whole(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < replay_nr_weights(r) && !load_time_is_up(w)) {
		struct load_file *f = &r->run.files[r->nr_small + unit];
		_cleanup_free_ unsigned char *all = malloc((size_t)f->size_bytes + 1);
		int rc = all ? load_file_reopen(f, w->run->opt, NULL) : -ENOMEM;

		if (rc)
			load_op_done(w, f, 0, 0, clock_mono_ns(), rc);
		else
			load_bytes(w, f, 0, (size_t)f->size_bytes, all);
		load_tensor_done(w);
	}
}

/* --- torch: the directory at the end, then each record, whose header is read just before it --- */

static bool record_read(struct load_worker *w, struct load_file *f, const struct torch_record *record)
{
	uint64_t offset, block = replay_of(w)->pattern->block_bytes;
	int rc = torch_record_locate(w, f, record, &offset);

	if (rc)
		load_op_done(w, f, record->header_offset, 0, clock_mono_ns(), rc);
	for (uint64_t done = 0; !rc && done < record->len_bytes && !load_time_is_up(w); done += block)
		block_read(w, f, f->fd, offset + done, (size_t)min_of(block, record->len_bytes - done));
	return !load_time_is_up(w);
}

void body_torch(struct load_worker *w)
{
	struct replay *r = replay_of(w);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < replay_nr_weights(r)) {
		struct load_file *f = &r->run.files[r->nr_small + unit];
		struct torch_records records = {};
		char magic[4];
		int rc = replay_file_open(w, r->nr_small + unit);

		if (rc)
			continue;
		rc = load_bytes(w, f, 0, sizeof(magic), magic);
		if (!rc)
			rc = torch_directory_read(w, f, &records);
		if (rc)
			load_op_done(w, f, 0, 0, clock_mono_ns(), rc);
		for (size_t i = 0; i < records.nr && record_read(w, f, &records.item[i]); i++)
			if (torch_record_is_data(&records.item[i]))
				load_tensor_done(w);
		torch_records_done(&records);
	}
}
