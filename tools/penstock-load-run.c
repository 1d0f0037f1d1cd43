// SPDX-License-Identifier: Apache-2.0
/*
 * Files, workers and what they count.
 *
 * Threads: processes x jobs workers; each writes its own struct load_worker, which lies in shared memory so that
 * the parent can show progress and add up after a fork. One atomic counter for each process hands out the work.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "penstock-load.h"

#define PROGRESS_INTERVAL_NS (100 * NSEC_PER_MSEC)
#define PROGRESS_CELLS 30
#define COPY_STEP_BYTES 4096ul

struct progress {
	const struct load_run *run;
	pthread_t thread;
	uint64_t started_ns;
	bool running, stop;
};

/* --- files --- */

static void *shared_alloc(size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static uint64_t page_bytes(void)
{
	static uint64_t bytes;

	if (!bytes)
		bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	return bytes;
}

static size_t touched_words(const struct load_file *f)
{
	return (size_t)((f->size_bytes / page_bytes() + 64) / 64);
}

int load_file_reopen(struct load_file *f, const struct load_options *opt, struct err *e)
{
	int flags = O_RDONLY | O_CLOEXEC;

	if (opt->direct || opt->pattern == PATTERN_RANDOM4K_DIRECT)
		flags |= O_DIRECT;
	if (opt->pattern == PATTERN_IO_URING_DIRECT)
		flags |= O_DIRECT | O_NONBLOCK;
	if (f->fd >= 0)
		close(f->fd);
	f->fd = open(f->path, flags);
	if (f->fd < 0)
		return err_set(e, -errno, "cannot open %s: %s", f->path, strerror(errno));
	if (opt->drop)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (opt->advice == ADVICE_SEQUENTIAL)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	else if (opt->advice == ADVICE_RANDOM)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_RANDOM);
	else if (opt->advice == ADVICE_WILLNEED)
		posix_fadvise(f->fd, 0, 0, POSIX_FADV_WILLNEED);
	return 0;
}

int load_file_stat(struct load_file *f, const char *path, struct err *e)
{
	struct stat st;

	f->fd = -1;
	f->check.source_fd = -1;
	f->path = strdup(path);
	if (!f->path)
		return err_set(e, -ENOMEM, "out of memory");
	if (stat(path, &st))
		return err_set(e, -errno, "cannot stat %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "%s is not a file; name files, or use \"model\" for a directory", path);
	f->size_bytes = (uint64_t)st.st_size;
	f->touched = shared_alloc(touched_words(f) * sizeof(*f->touched));
	return f->touched ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int load_file_open(struct load_file *f, const char *path, const struct load_options *opt, struct err *e)
{
	int rc = load_file_stat(f, path, e);

	if (!rc)
		rc = load_file_reopen(f, opt, e);
	return rc ? rc : check_open(&f->check, opt->verify, path, f->size_bytes, e);
}

void load_file_close(struct load_file *f)
{
	if (f->map)
		munmap((void *)f->map, f->size_bytes);
	if (f->touched)
		munmap(f->touched, touched_words(f) * sizeof(*f->touched));
	if (f->path && f->fd >= 0)
		close(f->fd);
	check_close(&f->check);
	free(f->path);
}

int load_file_map(struct load_file *f, const struct load_options *opt, int extra_flags, struct err *e)
{
	static const int advice[] = { MADV_NORMAL, MADV_SEQUENTIAL, MADV_RANDOM, MADV_WILLNEED };
	int prot = PROT_READ | (opt->private_write ? PROT_WRITE : 0);
	int flags = (opt->private_write ? MAP_PRIVATE : MAP_SHARED) | extra_flags;
	void *p;

	if (!f->size_bytes || f->map)
		return 0;
	p = mmap(NULL, f->size_bytes, prot, flags, f->fd, 0);
	if (p == MAP_FAILED)
		return err_set(e, -errno, "cannot map %s: %s", f->path, strerror(errno));
	f->map = p;
	if (opt->advice && madvise(p, f->size_bytes, advice[opt->advice]))
		return err_set(e, -errno, "madvise on %s: %s", f->path, strerror(errno));
	return 0;
}

/* --- copying from a mapping --- */

static _Thread_local sigjmp_buf *volatile bus_jump;

static void on_sigbus(int sig)
{
	if (bus_jump)
		siglongjmp(*bus_jump, 1);
	signal(sig, SIG_DFL);
	raise(sig);
}

/*
 * In steps, since a C library's memcpy() may well run backward: here the pages are touched in rising order.
 * Not inlined: its variables must not live across the setjmp of its caller.
 */
static __attribute__((noinline)) void copy_rising(unsigned char *dst, const unsigned char *src, size_t len)
{
	size_t n;

	for (; len; dst += n, src += n, len -= n) {
		n = min_of(len, COPY_STEP_BYTES);
		memcpy(dst, src, n);
	}
}

int load_copy(void *dst, const void *src, size_t len)
{
	sigjmp_buf here;

	if (sigsetjmp(here, 0)) {
		bus_jump = NULL;
		return -EIO;
	}
	bus_jump = &here;
	copy_rising(dst, src, len);
	bus_jump = NULL;
	return 0;
}

/* --- counting --- */

unsigned hist_bucket(uint64_t ns)
{
	unsigned e;

	if (ns < HIST_SUB)
		return (unsigned)ns;
	e = 63 - (unsigned)__builtin_clzll(ns);
	return (e - 3) * HIST_SUB + (unsigned)((ns >> (e - 4)) & (HIST_SUB - 1));
}

double hist_value_ns(unsigned bucket)
{
	unsigned e = bucket / HIST_SUB + 3;

	if (bucket < HIST_SUB)
		return bucket;
	return (HIST_SUB + bucket % HIST_SUB + 0.5) * (double)(1ull << (e - 4));
}

static void add(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

void load_op_touch(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len)
{
	uint64_t page = page_bytes(), last = min_of(offset + len, f->size_bytes);

	add(&w->bytes, len);
	for (uint64_t i = offset / page; i * page < last; i++)
		__atomic_fetch_or(&f->touched[i / 64], 1ull << (i % 64), __ATOMIC_RELAXED);
}

static void failure(struct load_worker *w, const struct load_file *f, uint64_t offset, const char *what)
{
	if (!w->first_error[0])
		snprintf(w->first_error, sizeof(w->first_error), "%s at %llu: %s", f->path, (unsigned long long)offset,
			 what);
}

void load_op_compare(struct load_worker *w, struct load_file *f, uint64_t offset, const void *bytes, size_t len)
{
	uint64_t first = 0, compared = 0;
	int64_t wrong = check_compare(&f->check, offset, bytes, len, w->scratch, &first, &compared);

	if (wrong < 0) {
		add(&w->errors, 1);
		failure(w, f, offset, "the source to compare with cannot be read");
		return;
	}
	add(&w->verified_bytes, compared - (uint64_t)wrong);
	if (wrong) {
		add(&w->wrong_bytes, (uint64_t)wrong);
		failure(w, f, first, "wrong byte");
	}
}

void load_op_done(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len, uint64_t started_ns,
		  int error)
{
	w->hist[hist_bucket(clock_mono_ns() - started_ns)]++;
	add(&w->ops, 1);
	if (error) {
		add(&w->errors, 1);
		failure(w, f, offset, strerror(-error));
		return;
	}
	load_op_touch(w, f, offset, len);
}

void load_tensor_done(struct load_worker *w)
{
	if (!w->first_tensor_ns)
		w->first_tensor_ns = clock_mono_ns() - w->run->started_ns;
}

int load_bytes(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len, void *buf)
{
	uint64_t started = clock_mono_ns();
	int rc = 0;
	ssize_t n;

	if (f->map)
		rc = load_copy(buf, f->map + offset, len);
	for (size_t done = 0; !f->map && done < len && !rc; done += (size_t)n) {
		n = pread(f->fd, (char *)buf + done, len - done, (off_t)(offset + done));
		if (n <= 0) {
			rc = n ? -errno : -ENODATA;
			break;
		}
	}
	if (!w)
		return rc;
	load_op_done(w, f, offset, len, started, rc);
	if (!rc)
		load_op_compare(w, f, offset, buf, len);
	return rc;
}

uint64_t load_unit_next(struct load_worker *w)
{
	return __atomic_fetch_add(&w->run->next_unit[w->run->process], 1, __ATOMIC_RELAXED);
}

bool load_time_is_up(struct load_worker *w)
{
	if (w->run->deadline_ns && clock_mono_ns() >= w->run->deadline_ns)
		w->cut = true;
	return w->cut;
}

/* --- progress --- */

static uint64_t run_bytes(const struct load_run *run)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < run->nr_workers; i++)
		sum += __atomic_load_n(&run->workers[i].bytes, __ATOMIC_RELAXED);
	return sum;
}

static void progress_show(const struct progress *p, const char *end)
{
	uint64_t total = p->run->total_bytes, done = run_bytes(p->run);
	double seconds = (double)(clock_mono_ns() - p->started_ns) / 1e9;
	double part = total ? (double)min_of(done, total) / (double)total : 0;
	int cells = (int)(part * PROGRESS_CELLS);
	char bar[PROGRESS_CELLS + 1];

	memset(bar, '.', PROGRESS_CELLS);
	memset(bar, '#', (size_t)cells);
	bar[PROGRESS_CELLS] = '\0';
	fprintf(stderr, "\r[%s] %3.0f %%  %.2f of %.2f GiB  %.0f MB/s  %.1f s ", bar, part * 100,
		(double)done / (1 << 30), (double)total / (1 << 30), (double)done / 1e6 / (seconds + 1e-9), seconds);
	fputs(end, stderr);
}

static void *progress_thread(void *arg)
{
	struct progress *p = arg;
	const struct timespec pause = { .tv_nsec = PROGRESS_INTERVAL_NS };

	while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
		progress_show(p, "");
		nanosleep(&pause, NULL);
	}
	progress_show(p, "\n");
	return NULL;
}

static void progress_start(struct progress *p)
{
	p->started_ns = clock_mono_ns();
	if (p->run->opt->progress && isatty(STDERR_FILENO))
		p->running = !pthread_create(&p->thread, NULL, progress_thread, p);
}

static void progress_stop(struct progress *p)
{
	if (!p->running)
		return;
	__atomic_store_n(&p->stop, true, __ATOMIC_RELEASE);
	pthread_join(p->thread, NULL);
}

/* --- workers --- */

static void *worker_thread(void *arg)
{
	struct load_worker *w = arg;

	w->buf = aligned_alloc(LOAD_ALIGN_BYTES, w->run->buf_bytes);
	w->scratch = malloc(LOAD_COPY_BYTES);
	if (w->buf && w->scratch) {
		w->run->body(w);
	} else {
		add(&w->errors, 1);
		snprintf(w->first_error, sizeof(w->first_error), "out of memory for a worker's buffers");
	}
	free(w->buf);
	free(w->scratch);
	return NULL;
}

/* All of one process' work; its workers are opt->jobs consecutive ones. */
static int process_run(struct load_run *run, struct err *e)
{
	struct load_worker *first = run->workers + run->process * run->opt->jobs;
	_cleanup_free_ pthread_t *threads = calloc(run->opt->jobs, sizeof(*threads));
	unsigned started = 0;
	int rc = threads ? 0 : err_set(e, -ENOMEM, "out of memory");

	if (!rc && run->prepare)
		rc = run->prepare(run, e);
	for (; !rc && started < run->opt->jobs; started++) {
		rc = -pthread_create(&threads[started], NULL, worker_thread, &first[started]);
		if (rc) {
			err_set(e, rc, "cannot start a thread: %s", strerror(-rc));
			break;
		}
	}
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	return rc;
}

static void child_run(struct load_run *run)
{
	struct load_worker *first = run->workers + run->process * run->opt->jobs;
	struct err e = {};
	int rc = 0;

	for (size_t i = 0; i < run->nr_files && !rc && !run->opt->share_fd && !run->opens_late; i++)
		rc = load_file_reopen(&run->files[i], run->opt, &e);
	if (!rc)
		rc = process_run(run, &e);
	if (rc) {
		add(&first->errors, 1);
		snprintf(first->first_error, sizeof(first->first_error), "%.*s", (int)sizeof(first->first_error) - 1,
			 e.msg);
	}
	_exit(rc ? 1 : 0);
}

static void usage_add(struct load_result *r, const struct rusage *after, const struct rusage *before)
{
	r->cpu_s += (double)(after->ru_utime.tv_sec - before->ru_utime.tv_sec + after->ru_stime.tv_sec -
			     before->ru_stime.tv_sec) +
		    (double)(after->ru_utime.tv_usec - before->ru_utime.tv_usec + after->ru_stime.tv_usec -
			     before->ru_stime.tv_usec) /
			    1e6;
	r->major_faults += (uint64_t)(after->ru_majflt - before->ru_majflt);
}

static int processes_run(struct load_run *run, struct progress *p, struct load_result *ret, struct err *e)
{
	const struct rusage zero = {};
	struct rusage usage;
	unsigned started = 0;
	int rc = 0;

	for (; started < run->opt->processes; started++) {
		pid_t pid = fork();

		if (pid < 0) {
			rc = err_set(e, -errno, "cannot fork: %s", strerror(errno));
			break;
		}
		if (!pid) {
			run->process = started;
			child_run(run);
		}
	}
	progress_start(p);
	for (; started; started--) {
		if (wait4(-1, NULL, 0, &usage) > 0)
			usage_add(ret, &usage, &zero);
	}
	return rc;
}

static double percentile_us(const uint64_t *hist, uint64_t ops, double part)
{
	uint64_t rank = (uint64_t)((double)ops * part), seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += hist[i];
		if (seen > rank || (seen == ops && seen))
			return hist_value_ns(i) / 1e3;
	}
	return 0;
}

static void result_add_up(const struct load_run *run, struct load_result *ret)
{
	uint64_t hist[HIST_BUCKETS] = {}, first_ns = UINT64_MAX;

	for (unsigned i = 0; i < run->nr_workers; i++) {
		const struct load_worker *w = &run->workers[i];

		ret->ops += w->ops;
		ret->bytes += w->bytes;
		ret->errors += w->errors;
		ret->wrong_bytes += w->wrong_bytes;
		ret->verified_bytes += w->verified_bytes;
		ret->cut |= w->cut;
		if (w->first_tensor_ns)
			first_ns = min_of(first_ns, w->first_tensor_ns);
		for (unsigned b = 0; b < HIST_BUCKETS; b++)
			hist[b] += w->hist[b];
		if (!ret->first_error[0])
			memcpy(ret->first_error, w->first_error, sizeof(ret->first_error));
	}
	ret->first_tensor_s = first_ns == UINT64_MAX ? 0 : (double)first_ns / 1e9;
	ret->p50_us = percentile_us(hist, ret->ops, 0.50);
	ret->p99_us = percentile_us(hist, ret->ops, 0.99);
	ret->max_us = percentile_us(hist, ret->ops, 1.00);
	for (size_t i = 0; i < run->nr_files; i++) {
		const struct load_file *f = &run->files[i];
		uint64_t page = page_bytes(), last = f->size_bytes / page;

		for (size_t n = 0; n < touched_words(f); n++)
			ret->wanted_bytes += page * (uint64_t)__builtin_popcountll(f->touched[n]);
		if (f->touched[last / 64] & (1ull << (last % 64)))
			ret->wanted_bytes -= page - f->size_bytes % page;
	}
}

int load_run_execute(struct load_run *run, struct load_result *ret, struct err *e)
{
	const struct sigaction bus = { .sa_handler = on_sigbus, .sa_flags = SA_NODEFER };
	const struct load_options *opt = run->opt;
	struct progress progress = { .run = run };
	struct rusage before, after;
	size_t workers_bytes, units_bytes = opt->processes * sizeof(*run->next_unit);
	int rc = 0;

	run->nr_workers = opt->jobs * opt->processes;
	workers_bytes = run->nr_workers * sizeof(*run->workers);
	run->workers = shared_alloc(workers_bytes);
	run->next_unit = shared_alloc(units_bytes);
	if (!run->workers || !run->next_unit) {
		rc = err_set(e, -ENOMEM, "out of memory");
		goto out;
	}
	for (unsigned i = 0; i < run->nr_workers; i++) {
		run->workers[i].run = run;
		run->workers[i].index = i % opt->jobs;
	}
	sigaction(SIGBUS, &bus, NULL);
	getrusage(RUSAGE_SELF, &before);
	if (!run->started_ns)
		run->started_ns = clock_mono_ns();
	run->deadline_ns = opt->limit_ns ? run->started_ns + opt->limit_ns : 0;
	if (opt->processes > 1) {
		rc = processes_run(run, &progress, ret, e);
	} else {
		progress_start(&progress);
		rc = process_run(run, e);
		getrusage(RUSAGE_SELF, &after);
		usage_add(ret, &after, &before);
	}
	ret->seconds = (double)(clock_mono_ns() - run->started_ns) / 1e9;
	progress_stop(&progress);
	result_add_up(run, ret);
out:
	if (run->workers)
		munmap(run->workers, workers_bytes);
	if (run->next_unit)
		munmap(run->next_unit, units_bytes);
	return rc;
}
