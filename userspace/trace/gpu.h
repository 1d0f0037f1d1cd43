/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies to GPUs by the processes that read a volume: opt-in, since each call then costs two breakpoints. What was
 * attached ends with the object; the counters stay in the pinned map "gpu" as long.
 *
 * Needs the privileges of "trace/load.h" and a tracer that runs. Threads: any, one call at a time on one object.
 */
#ifndef PENSTOCK_TRACE_GPU_H
#define PENSTOCK_TRACE_GPU_H

#include <sys/types.h>

#include <penstock/trace.h>

#include "base/err.h"
#include "trace/load.h"

struct trace_gpu_watch;

/* At most <processes_max> are looked at. -ENOENT: no tracer runs. */
int trace_gpu_new(const struct trace_config *c, unsigned int processes_max, struct trace_gpu_watch **ret,
		  struct err *e);
/* NULL is allowed. */
void trace_gpu_free(struct trace_gpu_watch *w);

/*
 * Looks at one more process: 1 when its calls are counted from now on, 0 when they are already or it has no libcuda
 * mapped (yet: ask again later), -ENOSPC when there are too many, -errno when it cannot be attached.
 */
int trace_gpu_add(struct trace_gpu_watch *w, pid_t pid);
/* Lets go of processes that have ended. */
void trace_gpu_sweep(struct trace_gpu_watch *w);

/* Of all processes of this object, those that ended too. */
int trace_gpu_sum(struct trace_gpu_watch *w, struct trace_gpu *ret);

#endif
