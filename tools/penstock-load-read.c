// SPDX-License-Identifier: Apache-2.0
/*
 * "read": files read in the ways loaders read them.
 *
 * Design: a pattern is a piece size, an order of the pieces and a way to read one. A unit of work is a part of one file
 * (a whole one unless there are more jobs than files); random patterns have no units, each job draws its own pages.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#include "base/clock.h"
#include "penstock-load.h"

#define PIECES_MAX (16u << 20)
#define RANDOM_BYTES 4096u
#define BACKWARD_STEP_BYTES 4096u
#define SECTOR_BYTES 512u
#define HEADER_BYTES (64u << 10)

struct pattern {
	const char *name;
	uint64_t piece_bytes;
	bool mapped, shuffled, random;
	int (*piece)(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len);
};

static int piece_pread(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len);
static int piece_mapped(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len);
static int piece_mapped_backward(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len);
static int piece_sendfile(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len);

static const struct pattern patterns[PATTERN_COUNT] = {
	[PATTERN_SEQ] = { .name = "seq", .piece_bytes = 1 << 20, .piece = piece_pread },
	[PATTERN_PREAD] = { .name = "pread", .piece_bytes = 1 << 20, .shuffled = true, .piece = piece_pread },
	[PATTERN_MMAP] = { .name = "mmap", .piece_bytes = 4 << 20, .mapped = true, .piece = piece_mapped },
	[PATTERN_MMAP_SHUFFLED] = { .name = "mmap-shuffled",
				    .piece_bytes = 4 << 20,
				    .mapped = true,
				    .shuffled = true,
				    .piece = piece_mapped },
	[PATTERN_RANDOM4K] = { .name = "random4k", .piece_bytes = RANDOM_BYTES, .random = true, .piece = piece_pread },
	[PATTERN_RANDOM4K_DIRECT] = { .name = "random4k-direct",
				      .piece_bytes = RANDOM_BYTES,
				      .random = true,
				      .piece = piece_pread },
	[PATTERN_STREAMS] = { .name = "streams", .piece_bytes = 1 << 20, .piece = piece_pread },
	[PATTERN_HEAD] = { .name = "head", .piece_bytes = HEADER_BYTES, .piece = piece_pread },
	[PATTERN_POPULATE] = { .name = "populate", .piece_bytes = 4 << 20, .mapped = true, .piece = piece_mapped },
	[PATTERN_SENDFILE] = { .name = "sendfile", .piece_bytes = 1 << 20, .piece = piece_sendfile },
	[PATTERN_IO_URING_DIRECT] = { .name = "io_uring-direct", .piece_bytes = 1 << 20 },
	[PATTERN_BACKWARD] = { .name = "backward",
			       .piece_bytes = 16 << 20,
			       .mapped = true,
			       .piece = piece_mapped_backward },
};

const char *load_pattern_name(enum load_pattern p)
{
	return patterns[p].name;
}

static uint64_t piece_bytes_of(const struct load_options *opt)
{
	uint64_t bytes = opt->piece_bytes ? opt->piece_bytes : patterns[opt->pattern].piece_bytes;

	if (opt->pattern == PATTERN_IO_URING_DIRECT)
		bytes = (bytes + SECTOR_BYTES - 1) & ~(SECTOR_BYTES - 1ull);
	return bytes;
}

/* --- ways to read one piece; each returns 0 or -errno and compares what it got --- */

static int piece_pread(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	/* O_DIRECT wants whole sectors; the end of the file cuts the last one short. */
	size_t want = (len + LOAD_ALIGN_BYTES - 1) & ~(LOAD_ALIGN_BYTES - 1), done = 0;
	ssize_t n;

	for (; done < len; done += (size_t)n) {
		n = pread(f->fd, w->buf + done, want - done, (off_t)(offset + done));
		if (n < 0)
			return -errno;
		if (!n)
			return -ENODATA;
	}
	load_op_compare(w, f, offset, w->buf, len);
	return 0;
}

static int piece_mapped(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	size_t n;
	int rc;

	for (size_t done = 0; done < len; done += n) {
		n = min_of(len - done, LOAD_COPY_BYTES);
		rc = load_copy(w->buf, f->map + offset + done, n);
		if (rc)
			return rc;
		load_op_compare(w, f, offset + done, w->buf, n);
	}
	return 0;
}

/* As a memcpy() that runs from the end: how some C libraries copy overlapping or large buffers. */
static int piece_mapped_backward(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	size_t n;
	int rc;

	for (size_t left = len; left; left -= n) {
		n = left % BACKWARD_STEP_BYTES ? left % BACKWARD_STEP_BYTES : BACKWARD_STEP_BYTES;
		rc = load_copy(w->buf, f->map + offset + left - n, n);
		if (rc)
			return rc;
		load_op_compare(w, f, offset + left - n, w->buf, n);
	}
	return 0;
}

static int piece_sendfile(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	bool check = f->check.kind != CHECK_NONE;
	_cleanup_close_ int out = check ? memfd_create("piece", MFD_CLOEXEC) : open("/dev/null", O_WRONLY | O_CLOEXEC);
	off_t at = (off_t)offset;
	ssize_t n;

	if (out < 0)
		return -errno;
	for (size_t done = 0; done < len; done += (size_t)n) {
		n = sendfile(out, f->fd, &at, len - done);
		if (n <= 0)
			return n ? -errno : -ENODATA;
	}
	if (!check)
		return 0;
	if (pread(out, w->buf, len, 0) != (ssize_t)len)
		return -EIO;
	load_op_compare(w, f, offset, w->buf, len);
	return 0;
}

/* --- orders --- */

/* Where the pieces of one file lie; <order> is only there for a shuffled pattern. */
struct plan {
	uint64_t piece_bytes, nr;
	uint32_t *order;
};

static int plan_make(struct plan *p, const struct load_options *opt, const struct load_file *f, uint64_t salt)
{
	p->piece_bytes = piece_bytes_of(opt);
	p->nr = (f->size_bytes + p->piece_bytes - 1) / p->piece_bytes;
	if (opt->pattern == PATTERN_HEAD)
		p->nr = min_of(p->nr, 1);
	if (!patterns[opt->pattern].shuffled || p->nr < 2)
		return 0;
	if (p->nr > PIECES_MAX)
		return -E2BIG;
	p->order = malloc(p->nr * sizeof(*p->order));
	if (!p->order)
		return -ENOMEM;
	for (uint64_t i = 0; i < p->nr; i++) {
		uint64_t other = content_mix(opt->seed + salt + i) % (i + 1);

		p->order[i] = p->order[other];
		p->order[other] = (uint32_t)i;
	}
	return 0;
}

/* The i-th piece to read; p->nr = none in this step (streams of unequal length). */
static uint64_t plan_piece(const struct plan *p, const struct load_options *opt, uint64_t i)
{
	uint64_t each;

	if (p->order)
		return p->order[i];
	if (opt->pattern == PATTERN_BACKWARD)
		return p->nr - 1 - i;
	if (opt->pattern != PATTERN_STREAMS)
		return i;
	each = (p->nr + opt->streams - 1) / opt->streams;
	return min_of(i % opt->streams * each + i / opt->streams, p->nr);
}

static uint64_t plan_steps(const struct plan *p, const struct load_options *opt)
{
	if (opt->pattern != PATTERN_STREAMS)
		return p->nr;
	return (p->nr + opt->streams - 1) / opt->streams * opt->streams;
}

/* With streams of unequal length a piece past the end of one would be the first of the next: it is not in this step. */
static bool plan_skips(const struct plan *p, const struct load_options *opt, uint64_t i, uint64_t piece)
{
	uint64_t each;

	if (piece >= p->nr)
		return true;
	if (opt->pattern != PATTERN_STREAMS)
		return false;
	each = (p->nr + opt->streams - 1) / opt->streams;
	return piece >= (i % opt->streams + 1) * each;
}

/* --- bodies of the workers --- */

static unsigned parts_of(const struct load_run *run)
{
	enum load_pattern p = run->opt->pattern;

	if (p == PATTERN_STREAMS || p == PATTERN_HEAD || p == PATTERN_IO_URING_DIRECT)
		return 1;
	return (unsigned)max_of(run->opt->jobs / run->nr_files, 1);
}

static void one_piece(struct load_worker *w, struct load_file *f, uint64_t offset, uint64_t piece_bytes)
{
	size_t len = (size_t)min_of(piece_bytes, f->size_bytes - offset);
	uint64_t started = clock_mono_ns();
	int rc = patterns[w->run->opt->pattern].piece(w, f, offset, len);

	load_op_done(w, f, offset, len, started, rc);
}

static void body_ordered(struct load_worker *w)
{
	const struct load_options *opt = w->run->opt;
	unsigned parts = parts_of(w->run);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < (uint64_t)w->run->nr_files * parts) {
		struct load_file *f = &w->run->files[unit / parts];
		uint64_t part = unit % parts, steps;
		struct plan plan = {};
		int rc = plan_make(&plan, opt, f, unit / parts);

		if (rc) {
			load_op_done(w, f, 0, 0, clock_mono_ns(), rc);
			continue;
		}
		steps = plan_steps(&plan, opt);
		for (uint64_t i = steps * part / parts; i < steps * (part + 1) / parts && !load_time_is_up(w); i++) {
			uint64_t piece = plan_piece(&plan, opt, i);

			if (!plan_skips(&plan, opt, i, piece))
				one_piece(w, f, piece * plan.piece_bytes, plan.piece_bytes);
		}
		free(plan.order);
	}
}

static void body_random(struct load_worker *w)
{
	const struct load_options *opt = w->run->opt;
	uint64_t count = opt->count ? opt->count : opt->limit_ns ? UINT64_MAX : 4096;
	uint64_t salt = content_mix(opt->seed + ((uint64_t)w->run->process << 32) + w->index);

	for (uint64_t i = 0; i < count && !load_time_is_up(w); i++) {
		struct load_file *f = &w->run->files[content_mix(salt + 2 * i) % w->run->nr_files];
		uint64_t pieces = (f->size_bytes + RANDOM_BYTES - 1) / RANDOM_BYTES;

		if (pieces)
			one_piece(w, f, content_mix(salt + 2 * i + 1) % pieces * RANDOM_BYTES, RANDOM_BYTES);
	}
}

/* --- io_uring: a ring of reads in flight that start at 512-byte offsets, as a streaming loader issues them --- */

struct flight {
	uint64_t offset, started_ns;
	size_t len;
	unsigned char *buf;
};

static void flight_submit(struct io_uring *ring, struct load_file *f, struct flight *fl, uint64_t offset, size_t len)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	fl->offset = offset;
	fl->len = len;
	fl->started_ns = clock_mono_ns();
	io_uring_prep_read(sqe, f->fd, fl->buf, (unsigned)((len + SECTOR_BYTES - 1) & ~(SECTOR_BYTES - 1ul)), offset);
	io_uring_sqe_set_data(sqe, fl);
}

static int flight_land(struct load_worker *w, struct load_file *f, struct io_uring *ring, struct flight **ret)
{
	struct io_uring_cqe *cqe;
	int rc = io_uring_wait_cqe(ring, &cqe);
	struct flight *fl;

	if (rc)
		return rc;
	fl = io_uring_cqe_get_data(cqe);
	rc = cqe->res < 0 ? cqe->res : (size_t)cqe->res < fl->len ? -ENODATA : 0;
	io_uring_cqe_seen(ring, cqe);
	if (!rc)
		load_op_compare(w, f, fl->offset, fl->buf, fl->len);
	load_op_done(w, f, fl->offset, fl->len, fl->started_ns, rc);
	*ret = fl;
	return 0;
}

static int file_io_uring(struct load_worker *w, struct load_file *f, struct io_uring *ring)
{
	const struct load_options *opt = w->run->opt;
	uint64_t offset = 0, piece = piece_bytes_of(opt);
	struct flight flights[LOAD_DEPTH_MAX], *idle[LOAD_DEPTH_MAX];
	unsigned nr_idle = opt->depth;
	size_t len;
	int rc;

	for (unsigned i = 0; i < opt->depth; i++) {
		flights[i].buf = w->buf + i * piece;
		idle[i] = &flights[i];
	}
	for (;;) {
		while (nr_idle && offset < f->size_bytes && !load_time_is_up(w)) {
			len = (size_t)min_of(offset ? piece : SECTOR_BYTES, f->size_bytes - offset);
			flight_submit(ring, f, idle[--nr_idle], offset, len);
			offset += len;
		}
		if (nr_idle == opt->depth)
			return 0;
		rc = io_uring_submit(ring);
		if (rc < 0)
			return rc;
		rc = flight_land(w, f, ring, &idle[nr_idle]);
		if (rc)
			return rc;
		nr_idle++;
	}
}

static void body_io_uring(struct load_worker *w)
{
	struct io_uring ring;
	uint64_t unit;
	int rc = io_uring_queue_init(w->run->opt->depth, &ring, 0);

	if (rc) {
		load_op_done(w, &w->run->files[0], 0, 0, clock_mono_ns(), rc);
		return;
	}
	while ((unit = load_unit_next(w)) < w->run->nr_files) {
		rc = file_io_uring(w, &w->run->files[unit], &ring);
		if (rc) {
			load_op_done(w, &w->run->files[unit], 0, 0, clock_mono_ns(), rc);
			break;
		}
	}
	io_uring_queue_exit(&ring);
}

/* --- the verb --- */

static int read_prepare(struct load_run *run, struct err *e)
{
	int flags = run->opt->pattern == PATTERN_POPULATE ? MAP_POPULATE : 0, rc = 0;

	for (size_t i = 0; i < run->nr_files && !rc && patterns[run->opt->pattern].mapped; i++)
		rc = load_file_map(&run->files[i], run->opt, flags, e);
	return rc;
}

static uint64_t bytes_expected(const struct load_run *run)
{
	const struct load_options *opt = run->opt;
	uint64_t sum = 0;

	if (patterns[opt->pattern].random)
		return opt->count * opt->jobs * opt->processes * RANDOM_BYTES;
	for (size_t i = 0; i < run->nr_files; i++)
		sum += opt->pattern == PATTERN_HEAD ? min_of(run->files[i].size_bytes, piece_bytes_of(opt))
						    : run->files[i].size_bytes;
	return sum * opt->processes;
}

int load_read(char **paths, size_t nr_paths, const struct load_options *opt, struct load_result *ret, struct err *e)
{
	struct load_run run = { .opt = opt, .prepare = read_prepare };
	uint64_t buf_bytes = piece_bytes_of(opt);
	int rc = 0;

	run.body = opt->pattern == PATTERN_IO_URING_DIRECT ? body_io_uring
		 : patterns[opt->pattern].random           ? body_random
							   : body_ordered;
	if (patterns[opt->pattern].mapped)
		buf_bytes = LOAD_COPY_BYTES;
	if (opt->pattern == PATTERN_IO_URING_DIRECT)
		buf_bytes *= opt->depth;
	run.buf_bytes = (buf_bytes + LOAD_ALIGN_BYTES - 1) & ~(uint64_t)(LOAD_ALIGN_BYTES - 1);
	run.files = calloc(nr_paths, sizeof(*run.files));
	if (!run.files)
		return err_set(e, -ENOMEM, "out of memory");
	for (; run.nr_files < nr_paths && !rc; run.nr_files++)
		rc = load_file_open(&run.files[run.nr_files], paths[run.nr_files], opt, e);
	run.total_bytes = bytes_expected(&run);
	if (!rc)
		rc = load_run_execute(&run, ret, e);
	for (size_t i = 0; i < run.nr_files; i++)
		load_file_close(&run.files[i]);
	free(run.files);
	return rc;
}
