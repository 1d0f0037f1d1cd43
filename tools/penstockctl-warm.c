// SPDX-License-Identifier: Apache-2.0
/*
 * penstockctl warm: reads files, so that whoever needs them next finds them in memory.
 *
 * Threads: workers take the files in their order and count in atomics; the main thread shows the progress.
 */
#define _GNU_SOURCE
#include "penstockctl.h"

#include <fcntl.h>
#include <fts.h>
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/size.h"

#define JOBS_MAX 256
#define READ_BYTES (4u << 20)
#define ERRORS_SHOWN 10
#define BAR_CELLS 30
#define PROGRESS_NS (200 * NSEC_PER_MSEC)

struct warm_file {
	char *path;
	uint64_t size_bytes;
};

struct warm {
	struct warm_file *files;
	size_t nr_files, room;
	uint64_t size_bytes;
	_Atomic size_t next, nr_done, nr_errors;
	_Atomic uint64_t read_bytes;
};

static int warm_add(struct warm *w, const char *path, uint64_t size_bytes)
{
	struct warm_file *grown;

	if (w->nr_files == w->room) {
		size_t room = w->room ? w->room * 2 : 256;

		grown = realloc(w->files, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		w->files = grown;
		w->room = room;
	}
	w->files[w->nr_files] = (struct warm_file){ .path = strdup(path), .size_bytes = size_bytes };
	if (!w->files[w->nr_files].path)
		return -ENOMEM;
	w->nr_files++;
	w->size_bytes += size_bytes;
	return 0;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int warm_walk(struct warm *w, const char *path, struct err *e)
{
	char *const paths[] = { (char *)(uintptr_t)path, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR | FTS_XDEV, by_name);
	int rc = 0;

	if (!fts)
		return err_set(e, -errno, "%.512s: %s", path, strerror(errno));
	for (FTSENT *f = fts_read(fts); f && rc == 0; f = fts_read(fts)) {
		if (f->fts_info == FTS_F)
			rc = warm_add(w, f->fts_path, (uint64_t)f->fts_statp->st_size);
		else if (f->fts_info == FTS_DNR || f->fts_info == FTS_ERR || f->fts_info == FTS_NS)
			rc = err_set(e, -f->fts_errno, "%.512s: %s", f->fts_path, strerror(f->fts_errno));
	}
	fts_close(fts);
	return rc == -ENOMEM ? err_set(e, rc, "out of memory") : rc;
}

/* A path, else a pattern, else a volume's id. */
static int warm_collect(struct warm *w, const char *argument, struct err *e)
{
	char mount_point[PATH_MAX];
	struct volume v;
	glob_t found;
	int rc = 0;

	if (access(argument, F_OK) == 0) {
		if (!path_on_volume(argument, mount_point))
			fprintf(stderr, "penstockctl: %s is on no volume; it is read all the same\n", argument);
		return warm_walk(w, argument, e);
	}
	if (glob(argument, 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc && rc == 0; i++)
			rc = warm_walk(w, found.gl_pathv[i], e);
		globfree(&found);
		return rc;
	}
	if (volume_find(argument, &v, NULL) == 0 && v.mount_point[0])
		return warm_walk(w, v.mount_point, e);
	return err_set(e, -ENOENT, "%.512s: no such file, no match and no volume's id", argument);
}

static int file_read(struct warm *w, const struct warm_file *f, void *bytes)
{
	_cleanup_close_ int fd = open(f->path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, bytes, READ_BYTES)) != 0) {
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			w->read_bytes += (uint64_t)n;
	}
	return 0;
}

static void *warm_main(void *arg)
{
	struct warm *w = arg;
	_cleanup_free_ void *bytes = malloc(READ_BYTES);
	size_t i;

	while ((i = w->next++) < w->nr_files) {
		int rc = bytes ? file_read(w, &w->files[i], bytes) : -ENOMEM;

		w->nr_done++;
		if (rc < 0 && w->nr_errors++ < ERRORS_SHOWN)
			fprintf(stderr, "penstockctl: %s: %s\n", w->files[i].path, strerror(-rc));
	}
	return NULL;
}

static void progress_show(const struct warm *w, uint64_t ns)
{
	uint64_t done = w->read_bytes;
	double part = w->size_bytes ? min_of((double)done / (double)w->size_bytes, 1.0) : 1.0;
	int cells = (int)(part * BAR_CELLS);
	char of[32], now[32];

	fprintf(stderr, "\r[%.*s%*s] %3.0f %%  %s of %s  %zu of %zu files  %.0f MB/s ", cells,
		"##############################", BAR_CELLS - cells, "", part * 100, human_bytes(done, now),
		human_bytes(w->size_bytes, of), (size_t)w->nr_done, w->nr_files,
		(double)done * 1e3 / (double)max_of(ns, (uint64_t)1));
}

static int warm_run(struct warm *w, size_t jobs, bool progress, uint64_t *ret_ns, struct err *e)
{
	const struct timespec pause = { .tv_nsec = PROGRESS_NS };
	pthread_t threads[JOBS_MAX];
	uint64_t from = clock_mono_ns();
	size_t started = 0;
	int rc = 0;

	for (; started < min_of(jobs, w->nr_files) && rc == 0; started += rc == 0)
		rc = -pthread_create(&threads[started], NULL, warm_main, w);
	if (rc < 0 && started == 0)
		return err_set(e, rc, "cannot start a thread: %s", strerror(-rc));
	while (progress && w->nr_done < w->nr_files) {
		progress_show(w, clock_mono_ns() - from);
		nanosleep(&pause, NULL);
	}
	for (size_t i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	*ret_ns = clock_mono_ns() - from;
	if (progress) {
		progress_show(w, *ret_ns);
		fputc('\n', stderr);
	}
	return 0;
}

/* Bytes of S3 so far, where the first argument is on a volume that tells. */
static bool fetched_bytes(const char *argument, struct snapshot *s, uint64_t *ret)
{
	struct volume v;

	if (!s || volume_find(argument, &v, NULL) < 0)
		return false;
	snapshot_take(&v, s);
	return snapshot_number(s, CTL_S3_BYTES, ret);
}

static void warm_tell(const struct warm *w, uint64_t ns, bool has_fetched, uint64_t fetched, bool json)
{
	double seconds = (double)ns / (double)NSEC_PER_SEC, rate = (double)w->read_bytes / max_of(seconds, 1e-9);
	char bytes[32], s3[32];

	if (json) {
		json_out(json_pack("{s:I, s:I, s:o, s:f, s:f, s:I}", "files", (json_int_t)w->nr_files, "bytes",
				   (json_int_t)w->read_bytes, "s3_bytes",
				   has_fetched ? json_integer((json_int_t)fetched) : json_null(), "seconds", seconds,
				   "bytes_per_s", rate, "errors", (json_int_t)w->nr_errors),
			 JSON_COMPACT);
		return;
	}
	printf("read %s of %zu files in %.2f s, %.0f MB/s", human_bytes(w->read_bytes, bytes), w->nr_files, seconds,
	       rate / 1e6);
	if (has_fetched)
		printf("; %s came from S3, the rest was here", human_bytes(fetched, s3));
	printf("%s\n", w->nr_errors ? "; with errors" : "");
}

static void warm_done(struct warm *w)
{
	for (size_t i = 0; i < w->nr_files; i++)
		free(w->files[i].path);
	free(w->files);
}

int verb_warm(int argc, char **argv)
{
	struct warm w = { 0 };
	struct err e = { 0 };
	const char *jobs_text = "8";
	bool json = false, told;
	const struct opt opts[] = {
		{ .name = "json", .flag = &json },
		{ .name = "jobs", .value = &jobs_text },
	};
	uint64_t jobs, ns = 0, before = 0, after = 0;
	struct snapshot *s;
	int rc = 0;

	if (opts_parse(opts, array_len(opts), &argc, argv, &e) < 0)
		return tool_fail(&e, EXIT_USAGE);
	if (argc < 1)
		rc = err_set(&e, -EINVAL, "warm takes directories, files, patterns or a volume's id");
	else if (number_parse(jobs_text, 1, JOBS_MAX, &jobs) < 0)
		rc = err_set(&e, -EINVAL, "--jobs %s: give 1 to %d", jobs_text, JOBS_MAX);
	if (rc < 0)
		return tool_fail(&e, EXIT_USAGE);
	for (int i = 0; i < argc && rc == 0; i++)
		rc = warm_collect(&w, argv[i], &e);
	if (rc == 0 && w.nr_files == 0)
		rc = err_set(&e, -ENOENT, "%.512s holds no file", argv[0]);
	s = snapshot_new();
	told = rc == 0 && fetched_bytes(argv[0], s, &before);
	if (rc == 0)
		rc = warm_run(&w, jobs, !json && isatty(STDERR_FILENO), &ns, &e);
	if (rc == 0) {
		told = told && fetched_bytes(argv[0], s, &after) && after >= before;
		warm_tell(&w, ns, told, after - before, json);
	}
	snapshot_free(s);
	warm_done(&w);
	return rc < 0 ? tool_fail(&e, EXIT_FAILED) : w.nr_errors ? EXIT_FAILED : EXIT_FINE;
}
