/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The eBPF tracer of this node: loaded by its first volume, joined by the others, gone with the last.
 *
 * What it is made of is pinned below the BPF file system (<penstock/trace.h>, bpf/README.md), so no process has to stay
 * for it. Locks in the run directory and on that file system let one process at a time change it. All of this needs
 * CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN; reading events does not, see "trace/reader.h".
 *
 * A kernel that refuses a program loses that signal; one that refuses them all is an error, and a volume then runs
 * without tracer.
 *
 * Threads: any, one call at a time on one object.
 */
#ifndef PENSTOCK_TRACE_LOAD_H
#define PENSTOCK_TRACE_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <penstock/trace.h>

#include "base/err.h"

struct trace;

struct trace_config {
	const char *run_dir; /* for the lock; made when missing */
	const char *bpffs;   /* NULL: /sys/fs/bpf; mounted when it is not */
	/* The compiled programs and their TRACE_VERSION; NULL: those built in. */
	const void *object;
	size_t object_bytes;
	uint32_t object_version;
};

struct trace_volume_config {
	dev_t dev;           /* st_dev of the mount */
	const char *id;      /* at most TRACE_ID_BYTES - 1 bytes */
	pid_t owner;         /* 0: this process; when it ends the volume is stale */
	uint32_t ring_bytes; /* 0: 1 MiB; rounded up to a power of two */
	bool record;         /* false: counters only */
};

/*
 * Loads the tracer or joins it, replaces one of another version with its volumes kept, removes stale volumes, and
 * registers this one; one of the same device or id is replaced. -ENOTSUP: the kernel refused every program.
 */
int trace_start(const struct trace_config *c, const struct trace_volume_config *volume, struct trace **ret,
		struct err *e);
/* Takes the volume out, and the tracer with it when it was the last. NULL is allowed. */
void trace_stop(struct trace *t);

/* The volume's ring buffer and what flushes pending ranges into it, for the reader. Owned by <t>; flush may be -1. */
int trace_ring_fd(const struct trace *t);
int trace_flush_fd(const struct trace *t);
/* Whether ranges go to the ring buffer, from now on. */
int trace_record_set(struct trace *t, bool on);
/* What went through the ring buffer, and what found no room. */
int trace_drops_get(struct trace *t, struct trace_drops *ret);

/* All that was counted of the volume's accesses, over all control groups. */
int trace_counts_get(struct trace *t, struct trace_counts *ret);

/* Removes volumes whose process or mount has gone, and the tracer when none is left. Number of volumes left. */
int trace_clean(const struct trace_config *c, struct err *e);
/* Removes the tracer whoever uses it; 0 when there is none. */
int trace_unload(const struct trace_config *c, struct err *e);

/* What became of each program: of the running tracer (-ENOENT: none runs), or by loading one for a moment. Number. */
int trace_programs_get(const struct trace_config *c, struct trace_program ret[TRACE_PROGRAMS_MAX]);
int trace_programs_probe(const struct trace_config *c, struct trace_program ret[TRACE_PROGRAMS_MAX]);

/* The kernel's number of a device that stat() describes in glibc's layout. */
uint32_t trace_dev(dev_t dev);

#endif
