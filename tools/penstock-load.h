/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-load's own declarations: options, workers, contents and their check. */
#ifndef PENSTOCK_LOAD_H
#define PENSTOCK_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

#define LOAD_PIECE_MAX_BYTES (1ull << 30)
#define LOAD_COPY_BYTES (1ul << 20) /* mapped bytes are copied in steps of this */
#define LOAD_ALIGN_BYTES 4096ul
#define LOAD_WORKERS_MAX 1024
#define LOAD_DEPTH_MAX 256
#define HIST_SUB 16
#define HIST_BUCKETS (61 * HIST_SUB)

enum load_pattern {
	PATTERN_SEQ,
	PATTERN_PREAD,
	PATTERN_MMAP,
	PATTERN_MMAP_SHUFFLED,
	PATTERN_RANDOM4K,
	PATTERN_RANDOM4K_DIRECT,
	PATTERN_STREAMS,
	PATTERN_HEAD,
	PATTERN_POPULATE,
	PATTERN_SENDFILE,
	PATTERN_IO_URING_DIRECT,
	PATTERN_BACKWARD,
	PATTERN_COUNT,
};

enum load_kind { KIND_SAFETENSORS, KIND_GGUF, KIND_TORCH };

enum load_advice { ADVICE_NONE, ADVICE_SEQUENTIAL, ADVICE_RANDOM, ADVICE_WILLNEED };

struct load_options {
	enum load_pattern pattern;
	enum load_advice advice;
	bool direct, private_write, share_fd, drop, progress, json, plain;
	uint64_t piece_bytes; /* 0 = the pattern's own */
	unsigned jobs, processes, streams, depth;
	uint64_t count;     /* operations of each job, random patterns; 0 = 4096 or until the time is up */
	uint64_t limit_ns;  /* 0 = none */
	const char *verify; /* seed or directory; NULL = none */
	uint64_t seed, size_bytes;
	/* of generate */
	enum load_kind kind;
	bool mixed; /* dtypes */
	unsigned shards, experts;
};

/* --- contents: a fast pseudo-random function of (seed, file name, offset) --- */

uint64_t content_mix(uint64_t x);
uint64_t content_key(uint64_t seed, const char *file_name);
void content_fill(uint64_t key, uint64_t offset, void *buf, size_t len);

struct extent {
	uint64_t offset, len_bytes;
};

/* What a file must hold: a source file, or a seed's contents where its tensors are, since no seed tells a header. */
struct check {
	enum { CHECK_NONE, CHECK_SEED, CHECK_SOURCE } kind;
	int source_fd;
	uint64_t key;
	struct extent *data; /* rising; NULL = the whole file */
	size_t nr_data;
};

int check_open(struct check *c, const char *spec, const char *path, uint64_t size_bytes, struct err *e);
void check_close(struct check *c);
/*
 * Compares; <scratch> has room for LOAD_COPY_BYTES. Returns the number of wrong bytes or -errno of the source; the
 * first wrong offset goes to *ret_first, the number of bytes really compared to *ret_compared.
 */
int64_t check_compare(const struct check *c, uint64_t offset, const void *bytes, size_t len, void *scratch,
		      uint64_t *ret_first, uint64_t *ret_compared);

/* --- files and workers --- */

struct load_file {
	char *path;
	uint64_t size_bytes;
	int fd;
	const unsigned char *map; /* NULL until mapped */
	uint64_t *touched;        /* a bit for each page; shared by all processes */
	struct check check;
};

struct load_run;

/* Lies in shared memory, so that the parent reads a forked worker's counters. */
struct load_worker {
	struct load_run *run;
	unsigned index; /* within its process */
	uint64_t ops, bytes, errors, wrong_bytes, verified_bytes;
	uint64_t first_tensor_ns; /* since the start; 0 = none yet */
	bool cut;                 /* the time was up */
	uint64_t hist[HIST_BUCKETS];
	char first_error[256];
	/* private to the worker */
	unsigned char *buf, *scratch;
};

struct load_run {
	const struct load_options *opt;
	struct load_file *files;
	size_t nr_files;
	uint64_t buf_bytes;   /* of each worker */
	uint64_t total_bytes; /* for the progress bar; 0 = unknown */
	uint64_t started_ns;  /* 0 = with load_run_execute() */
	uint64_t deadline_ns; /* 0 = none */
	bool opens_late;      /* processes open the files themselves */
	uint64_t *next_unit;  /* one counter for each process, shared memory */
	struct load_worker *workers;
	unsigned nr_workers, process; /* process: this process' number */
	/* Called in each process before its threads start, and in each thread. */
	int (*prepare)(struct load_run *run, struct err *e);
	void (*body)(struct load_worker *w);
};

struct load_result {
	uint64_t ops, bytes, errors, wrong_bytes, verified_bytes, wanted_bytes, major_faults;
	double seconds, first_tensor_s, cpu_s, p50_us, p99_us, max_us; /* first_tensor_s 0: not known */
	bool cut;
	char first_error[256];
};

/* Path, size and the pages' bits alone. */
int load_file_stat(struct load_file *f, const char *path, struct err *e);
/* Opens, or opens afresh. */
int load_file_reopen(struct load_file *f, const struct load_options *opt, struct err *e);
int load_file_open(struct load_file *f, const char *path, const struct load_options *opt, struct err *e);
void load_file_close(struct load_file *f);
int load_file_map(struct load_file *f, const struct load_options *opt, int extra_flags, struct err *e);

/* Forks, starts threads, shows progress, adds up. An error here is the tool's own; those of reads are counted. */
int load_run_execute(struct load_run *run, struct load_result *ret, struct err *e);
uint64_t load_unit_next(struct load_worker *w);
bool load_time_is_up(struct load_worker *w);

/* One operation is over: counts it and compares what was read. <error> is 0 or -errno. */
void load_op_done(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len, uint64_t started_ns,
		  int error);
/* What a part of an operation read. */
void load_op_touch(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len);
/* The first call of each worker is what "first tensor" is about. */
void load_tensor_done(struct load_worker *w);
/* A range by the mapping, if there is one, or by pread(); one operation of <w>, unless it is NULL. 0 or -errno. */
int load_bytes(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len, void *buf);
void load_op_compare(struct load_worker *w, struct load_file *f, uint64_t offset, const void *bytes, size_t len);
/* Copies from a mapping, pages in rising order; a failed read gives -EIO instead of SIGBUS. */
int load_copy(void *dst, const void *src, size_t len);

/* The worst-case index and the middle of a bucket, in ns. */
unsigned hist_bucket(uint64_t ns);
double hist_value_ns(unsigned bucket);

/* --- verbs --- */

int load_generate(const char *dir, const struct load_options *opt, struct err *e);
int load_read(char **paths, size_t nr_paths, const struct load_options *opt, struct load_result *ret, struct err *e);
/* Replays the pattern of that name, "P1" to "P14", on a checkpoint. */
int load_replay(const char *name, const char *dir, const struct load_options *opt, struct load_result *ret,
		struct err *e);
/* The patterns' names and what they do, a line each. */
void load_replay_list(FILE *out);
int load_model(const char *dir, const struct load_options *opt, struct load_result *ret, struct err *e);
const char *load_pattern_name(enum load_pattern p);

#endif
