/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accesses of one volume, out of its ring buffer, on a thread of its own. Needs no privilege: the two descriptors are
 * all that it knows of the tracer.
 */
#ifndef PENSTOCK_TRACE_READER_H
#define PENSTOCK_TRACE_READER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <penstock/trace.h>

#include "base/err.h"

/* A range of one file that one thread accessed. Pages that are touched again and again are told once. */
struct trace_access {
	enum trace_kind kind;
	bool miss;    /* it waited for a READ */
	uint32_t dev; /* as trace_dev() */
	uint64_t ino;
	uint64_t offset;
	uint64_t len_bytes;
	uint64_t ns;     /* CLOCK_MONOTONIC, of its first access */
	uint64_t cgroup; /* id in the version 2 hierarchy; 1: its root, see trace_cgroup_path() */
	pid_t pid;
	pid_t tid;
};

struct trace_reader_config {
	int ring_fd;  /* stays the caller's, as the next one */
	int flush_fd; /* -1: none; what threads hold back then comes with their next accesses */
	/* From the reader's thread, in order for each <tid>; must not call trace_reader_stop(). */
	void (*access)(void *ctx, const struct trace_access *a);
	void *ctx;
};

struct trace_reader_stats {
	uint64_t accesses; /* told */
	uint64_t dropped;  /* found no room in the ring buffer, as far as its records say */
	uint64_t unknown;  /* records of another version of the tracer */
};

struct trace_reader;

int trace_reader_start(const struct trace_reader_config *c, struct trace_reader **ret, struct err *e);
/* Ends the thread after what is in the ring buffer now, and in threads' hands, has been told. NULL is allowed. */
void trace_reader_stop(struct trace_reader *r);
void trace_reader_stats_get(struct trace_reader *r, struct trace_reader_stats *ret);

/*
 * The control group of a process for people, where the id of the version 2 hierarchy says nothing because version 1
 * hierarchies hold the containers: its path there, from /proc/PID/cgroup. -ENOENT: the process has gone.
 */
int trace_cgroup_path(pid_t pid, char *ret, size_t room);

#endif
