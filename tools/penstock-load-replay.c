// SPDX-License-Identifier: Apache-2.0
/*
 * "replay": how inference servers and libraries really read a checkpoint, from the first open() on.
 *
 * Design: a pattern says how files are opened, in which order what is read, and by how many processes and threads;
 * its body runs in each thread. Files are opened by the processes when they get there, as the loaders do it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "penstock-load-replay.h"

#define SMALL_MAX_BYTES (256ull << 20)

static const struct replay_pattern patterns[] = {
	{ .name = "P1",
	  .what = "mapped, tensors in file order",
	  .processes = 1,
	  .jobs = 1,
	  .mapped = true,
	  .body = body_forward },
	{ .name = "P2",
	  .what = "mapped, 16 MiB pieces copied backward",
	  .processes = 1,
	  .jobs = 1,
	  .mapped = true,
	  .body = body_backward },
	{ .name = "P3",
	  .what = "mapped, tensors in name order: a stream for each dtype",
	  .processes = 1,
	  .jobs = 1,
	  .mapped = true,
	  .order = ORDER_NAME,
	  .body = body_forward },
	{ .name = "P4",
	  .what = "mapped, all files opened first, tensors shuffled over 16 threads",
	  .processes = 1,
	  .jobs = 16,
	  .mapped = true,
	  .opens_all = true,
	  .prepare = shuffled_prepare,
	  .body = body_shuffled },
	{ .name = "P5",
	  .what = "mapped, 8 ranks, each a contiguous eighth of each matrix",
	  .processes = 8,
	  .jobs = 1,
	  .mapped = true,
	  .divided = true,
	  .order = ORDER_NAME,
	  .body = body_columns },
	{ .name = "P6",
	  .what = "mapped, 8 ranks, each an eighth of each row",
	  .processes = 8,
	  .jobs = 1,
	  .mapped = true,
	  .divided = true,
	  .order = ORDER_NAME,
	  .body = body_rows },
	{ .name = "P7",
	  .what = "mapped, 8 ranks, each an eighth of the experts",
	  .processes = 8,
	  .jobs = 1,
	  .mapped = true,
	  .divided = true,
	  .order = ORDER_NAME,
	  .body = body_experts },
	{ .name = "P8",
	  .what = "2 ranks, 8 threads read 16 MiB blocks of every second file, one consumes all mapped",
	  .processes = 2,
	  .jobs = 9,
	  .mapped = true,
	  .order = ORDER_NAME,
	  .block_bytes = 16ul << 20,
	  .body = body_raced },
	{ .name = "P9", .what = "whole files, one read() each", .processes = 1, .jobs = 1, .body = body_whole },
	{ .name = "P10",
	  .what = "16 threads, 2 MiB reads, each thread a share of all bytes",
	  .processes = 1,
	  .jobs = 16,
	  .opens_all = true,
	  .turn = TURN_SHARE,
	  .block_bytes = 2ul << 20,
	  .body = body_blocks },
	{ .name = "P11",
	  .what = "O_DIRECT, 32 reads of 8 MiB in flight",
	  .processes = 1,
	  .jobs = 32,
	  .opens_all = true,
	  .direct = true,
	  .block_bytes = 8ul << 20,
	  .body = body_blocks },
	{ .name = "P12",
	  .what = "populated before it is copied: 64 MiB windows by madvise(), GGUF with its mapping",
	  .processes = 1,
	  .jobs = 1,
	  .mapped = true,
	  .body = body_populate },
	{ .name = "P13",
	  .what = "torch archive: end, beginning, then forward with jumps",
	  .processes = 1,
	  .jobs = 1,
	  .kind = KIND_TORCH,
	  .block_bytes = 8ul << 20,
	  .body = body_torch },
	{ .name = "P14",
	  .what = "4 processes share descriptors, each reads every fourth 2 MiB",
	  .processes = 4,
	  .jobs = 1,
	  .divided = true,
	  .share_fd = true,
	  .turn = TURN_PROCESS,
	  .block_bytes = 2ul << 20,
	  .body = body_blocks },
};

void load_replay_list(FILE *out)
{
	for (size_t i = 0; i < array_len(patterns); i++)
		fprintf(out, "  %-4s %s\n", patterns[i].name, patterns[i].what);
}

/* --- in each process --- */

/* As llama.cpp maps: the pages come with the mapping. */
static int map_populated(struct load_file *f, const struct load_options *opt)
{
	struct load_options shared = *opt;
	int rc;

	shared.private_write = false;
	posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	rc = load_file_map(f, &shared, MAP_POPULATE, NULL);
	if (!rc && madvise((void *)f->map, f->size_bytes, MADV_WILLNEED))
		rc = -errno;
	return rc;
}

int replay_file_open(struct load_worker *w, size_t file)
{
	struct replay *r = replay_of(w);
	struct load_file *f = &r->run.files[file];
	uint64_t started = clock_mono_ns();
	enum load_kind kind = KIND_SAFETENSORS;
	int rc = f->fd >= 0 ? 0 : load_file_reopen(f, &r->opt, NULL);

	format_kind_of(f->path, &kind);
	if (!rc && r->pattern->mapped)
		rc = kind == KIND_GGUF && r->pattern->body == body_populate ? map_populated(f, &r->opt)
									    : load_file_map(f, &r->opt, 0, NULL);
	if (!rc && r->pattern->mapped)
		rc = format_tensors_read(w, f, &r->tensors[file], NULL);
	if (rc)
		load_op_done(w, f, 0, 0, started, rc);
	return rc;
}

static int small_read(struct load_worker *w, struct load_file *f)
{
	_cleanup_free_ void *buf = malloc((size_t)f->size_bytes + 1);
	struct load_options plain = *w->run->opt;
	int rc;

	plain.direct = false;
	rc = buf ? load_file_reopen(f, &plain, NULL) : -ENOMEM;
	return rc ? rc : load_bytes(w, f, 0, (size_t)f->size_bytes, buf);
}

/* What comes before the threads: the checks' own files, the small files, and all others where the pattern says so. */
static int replay_prepare(struct load_run *run, struct err *e)
{
	struct replay *r = container_of(run, struct replay, run);
	struct load_worker *w = run->workers + run->process * run->opt->jobs;
	_cleanup_free_ void *scratch = malloc(LOAD_COPY_BYTES);
	int rc = scratch ? 0 : err_set(e, -ENOMEM, "out of memory");

	w->scratch = scratch;
	for (size_t i = 0; i < run->nr_files && !rc; i++) {
		struct load_file *f = &run->files[i];

		rc = check_open(&f->check, run->opt->verify, f->path, f->size_bytes, e);
		/* A seed knows the contents of weights only. */
		if (i < r->nr_small && f->check.kind == CHECK_SEED)
			check_close(&f->check);
	}
	for (size_t i = 0; i < run->nr_files && !rc; i++) {
		struct load_file *f = &run->files[i];

		if (i >= r->nr_small && !r->pattern->opens_all)
			break;
		rc = i < r->nr_small ? small_read(w, f) : replay_file_open(w, i);
		if (rc)
			err_set(e, rc, "cannot read %s: %s", f->path, strerror(-rc));
	}
	if (!rc && r->pattern->prepare)
		rc = r->pattern->prepare(run, e);
	w->scratch = NULL;
	return rc;
}

/* --- the verb --- */

static bool name_ends(const char *name, const char *tail)
{
	size_t len = strlen(name), n = strlen(tail);

	return len > n && !strcmp(name + len - n, tail);
}

/* Does the directory's entry belong to the replay, and is it a weight file? */
static bool entry_taken(const char *name, enum load_kind kind, bool *ret_weight)
{
	enum load_kind of;

	*ret_weight = !format_kind_of(name, &of);
	return *ret_weight ? of == kind : name_ends(name, ".json");
}

/* Torch archives for their own pattern; else safetensors, or GGUF where there are none. */
static int kind_choose(const struct replay *r, struct dirent **names, int nr, enum load_kind *ret)
{
	bool found[KIND_TORCH + 1] = {};
	enum load_kind kind;

	for (int i = 0; i < nr; i++)
		if (!format_kind_of(names[i]->d_name, &kind))
			found[kind] = true;
	*ret = r->pattern->kind == KIND_TORCH               ? KIND_TORCH
	     : !found[KIND_SAFETENSORS] && found[KIND_GGUF] ? KIND_GGUF
							    : KIND_SAFETENSORS;
	return found[*ret] ? 0 : -ENOENT;
}

static int files_add(struct replay *r, const char *dir, struct dirent **names, int nr, struct err *e)
{
	struct load_run *run = &r->run;
	enum load_kind kind;
	char path[PATH_MAX];
	bool weight;
	int rc = kind_choose(r, names, nr, &kind);

	if (rc)
		return err_set(e, rc, "%s holds no weights that %s reads", dir, r->pattern->name);
	for (int i = 0; i < 2 * nr && !rc; i++) {
		struct load_file *f = &run->files[run->nr_files];

		if (!entry_taken(names[i % nr]->d_name, kind, &weight) || weight != (i >= nr))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, names[i % nr]->d_name);
		run->nr_files++;
		r->nr_small += !weight;
		rc = load_file_stat(f, path, e);
		if (!rc && !weight && f->size_bytes > SMALL_MAX_BYTES)
			rc = err_set(e, -EFBIG, "%s is no part of a model: too large", path);
		if (!rc && weight && r->pattern->share_fd)
			rc = load_file_reopen(f, &r->opt, e);
		run->total_bytes += f->size_bytes * (r->pattern->divided ? 1 : r->opt.processes);
	}
	return rc;
}

static int files_find(struct replay *r, const char *dir, struct err *e)
{
	struct dirent **names;
	int nr = scandir(dir, &names, NULL, versionsort), rc = 0;

	if (nr < 0)
		return err_set(e, -errno, "cannot list %s: %s", dir, strerror(errno));
	r->run.files = calloc((size_t)nr + 1, sizeof(*r->run.files));
	r->tensors = calloc((size_t)nr + 1, sizeof(*r->tensors));
	rc = r->run.files && r->tensors ? files_add(r, dir, names, nr, e) : err_set(e, -ENOMEM, "out of memory");
	while (nr--)
		free(names[nr]);
	free(names);
	return rc;
}

static int replay_init(struct replay *r, const char *name, const struct load_options *opt, struct err *e)
{
	for (size_t i = 0; i < array_len(patterns) && !r->pattern; i++)
		if (!strcasecmp(name, patterns[i].name))
			r->pattern = &patterns[i];
	if (!r->pattern)
		return err_set(e, -EINVAL, "there is no pattern \"%s\"; see penstock-load --help", name);
	r->opt = *opt;
	if (!r->opt.processes)
		r->opt.processes = r->pattern->processes;
	if (!r->opt.jobs)
		r->opt.jobs = r->pattern->jobs;
	r->opt.direct |= r->pattern->direct;
	r->opt.share_fd = r->pattern->share_fd;
	r->opt.private_write = true;
	if (r->opt.processes * r->opt.jobs > LOAD_WORKERS_MAX)
		return err_set(e, -ERANGE, "at most %d workers in all", LOAD_WORKERS_MAX);
	r->run = (struct load_run){
		.opt = &r->opt,
		.buf_bytes = max_of(r->pattern->block_bytes, STEP_BYTES),
		.started_ns = clock_mono_ns(),
		.opens_late = true,
		.prepare = replay_prepare,
		.body = r->pattern->body,
	};
	return 0;
}

int load_replay(const char *name, const char *dir, const struct load_options *opt, struct load_result *ret,
		struct err *e)
{
	struct replay r = {};
	int rc = replay_init(&r, name, opt, e);

	if (!rc)
		rc = files_find(&r, dir, e);
	if (!rc)
		rc = load_run_execute(&r.run, ret, e);
	for (size_t i = 0; i < r.run.nr_files; i++) {
		load_file_close(&r.run.files[i]);
		tensors_done(&r.tensors[i]);
	}
	free(r.run.files);
	free(r.tensors);
	free(r.units);
	return rc;
}
