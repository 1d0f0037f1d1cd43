// SPDX-License-Identifier: Apache-2.0
/*
 * Reads of pages that are in the page cache: how long one takes.
 *
 * usage: hotread FILE BLOCK_BYTES seq|random
 * Takes lines of milliseconds; reads for so long and prints nanoseconds of CPU time per read: the median over slices of
 * 1 ms, which other processes disturb little. One process for all lines, so that its pages are the same ones.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

#define SLICE_NS 1000000ull
#define SLICES_MAX 100000
#define HUGE_BYTES (2u << 20)

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

struct reader {
	int fd;
	size_t block_bytes;
	uint64_t blocks;
	uint64_t position;
	uint64_t seed;
	bool random;
	char *buffer;
};

static int read_one(struct reader *r)
{
	if (r->random) {
		/* xorshift64 */
		r->seed ^= r->seed << 13;
		r->seed ^= r->seed >> 7;
		r->seed ^= r->seed << 17;
		r->position = r->seed % r->blocks;
	} else {
		r->position = r->position + 1 < r->blocks ? r->position + 1 : 0;
	}
	return pread(r->fd, r->buffer, r->block_bytes, (off_t)(r->position * r->block_bytes)) == (ssize_t)r->block_bytes
		     ? 0
		     : -1;
}

/* Nanoseconds per read of one slice; negative: a read failed. */
static double slice(struct reader *r, uint64_t batch)
{
	uint64_t started = cpu_ns(), now = started, nr = 0;

	for (; now - started < SLICE_NS; now = cpu_ns(), nr += batch) {
		for (uint64_t i = 0; i < batch; i++) {
			if (read_one(r) < 0)
				return -1;
		}
	}
	return (double)(now - started) / (double)nr;
}

/* Median nanoseconds per read over some time; negative: a read failed. */
static double measure(struct reader *r, uint64_t milliseconds)
{
	static double slices[SLICES_MAX];
	uint64_t until = clock_mono_ns() + milliseconds * NSEC_PER_MSEC;
	size_t nr = 0;

	while (nr < SLICES_MAX && (nr == 0 || clock_mono_ns() < until)) {
		slices[nr] = slice(r, r->block_bytes < 65536 ? 64 : 1);
		if (slices[nr++] < 0)
			return -1;
	}
	qsort(slices, nr, sizeof(slices[0]), compare);
	return slices[nr / 2];
}

int main(int argc, char **argv)
{
	struct reader r = { .seed = 88172645463325252ull };
	struct stat st;
	char line[64];
	double ns;

	if (argc != 4)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	r.block_bytes = strtoul(argv[2], NULL, 10);
	r.random = strcmp(argv[3], "random") == 0;
	r.fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	r.buffer = aligned_alloc(HUGE_BYTES, HUGE_BYTES);
	if (r.fd < 0 || !r.buffer || r.block_bytes > HUGE_BYTES || fstat(r.fd, &st) < 0) {
		perror(argv[1]);
		return 1;
	}
	if (madvise(r.buffer, HUGE_BYTES, MADV_HUGEPAGE) == 0)
		memset(r.buffer, 1, HUGE_BYTES);
	r.blocks = (uint64_t)st.st_size / r.block_bytes;
	while (fgets(line, sizeof(line), stdin)) {
		ns = measure(&r, strtoull(line, NULL, 10));
		if (ns < 0) {
			perror(argv[1]);
			return 1;
		}
		printf("%.1f\n", ns);
	}
	return 0;
}
