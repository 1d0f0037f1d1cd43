// SPDX-License-Identifier: Apache-2.0
/*
 * The tracer of a volume: what tasks get from the page cache moves the plans on.
 *
 * Threads: start, stop and tick by the main thread; accesses come on the reader's, settings on the tree's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "base/hash.h"
#include "base/log.h"
#include "daemon/mount_point.h"
#include "daemon/runstate.h"
#include "daemon/volume_i.h"

static void tracing_access(void *ctx, const struct trace_access *a)
{
	struct volume *v = ctx;
	struct engine_access access = {
		.offset = a->offset, .len = a->len_bytes, .ns = a->ns, .pid = a->pid, .cached = !a->miss
	};

	v->traced++;
	if (a->kind == TRACE_FAULT && a->miss)
		v->trace_faults++;
	v->readers[(unsigned)a->pid % VOLUME_READERS_MAX] = a->pid;
	fs_accessed(v->fs, a->ino, &access);
}

/* Long ids are cut, and told apart by a hash of the whole. */
static void tracing_id(const char *id, char ret[TRACE_ID_BYTES])
{
	if (snprintf(ret, TRACE_ID_BYTES, "%s", id) < TRACE_ID_BYTES)
		return;
	snprintf(ret, TRACE_ID_BYTES, "%.46s-%016" PRIx64, id, hash_add(HASH_INIT, id, strlen(id)));
}

static struct trace *tracing_open(struct volume *v, struct mount_probe *probe)
{
	char run_dir[RUNSTATE_DIR_MAX], id[TRACE_ID_BYTES];
	struct trace_config tc = { .run_dir = run_dir };
	struct trace_volume_config vc = { .id = id, .record = true };
	struct trace_reader_config rc = { .access = tracing_access, .ctx = v };
	struct mount_entry m;
	struct err e = { 0 };
	struct trace *t;

	if (mount_entry_find(v->o.mount_point, NULL, &m) < 0 || runstate_dir(run_dir, sizeof(run_dir), &e) < 0)
		return NULL;
	vc.dev = makedev(m.dev_major, m.dev_minor);
	tracing_id(v->o.volume_id, id);
	/* Loading takes some 30 MiB for the kernel's types: not of a daemon that has a budget. We join then. */
	mount_probe_trace(probe, vc.dev, id);
	if (trace_start(&tc, &vc, &t, &e) < 0) {
		log_info("trace", "accesses are not seen, prefetch goes by requests alone: %s", e.msg);
		return NULL;
	}
	rc.ring_fd = trace_ring_fd(t);
	rc.flush_fd = trace_flush_fd(t);
	if (trace_reader_start(&rc, &v->accesses, &e) < 0) {
		log_info("trace", "accesses are not seen, prefetch goes by requests alone: %s", e.msg);
		trace_stop(t);
		return NULL;
	}
	return t;
}

/* Under the lock: processes that have libcuda mapped by now. */
static void gpu_look(struct volume *v)
{
	struct trace_gpu sum;

	for (unsigned i = 0; i < VOLUME_READERS_MAX; i++) {
		if (v->readers[i])
			trace_gpu_add(v->gpu, v->readers[i]);
	}
	trace_gpu_sweep(v->gpu);
	if (trace_gpu_sum(v->gpu, &sum) == 0)
		v->gpu_bytes = sum.bytes;
}

/* Under the lock. */
static int gpu_switch(struct volume *v, bool on)
{
	char run_dir[RUNSTATE_DIR_MAX];
	struct trace_config tc = { .run_dir = run_dir };
	struct err e = { 0 };
	int rc = runstate_dir(run_dir, sizeof(run_dir), &e);

	if (!on) {
		trace_gpu_free(v->gpu);
		v->gpu = NULL;
		return 0;
	}
	if (rc == 0 && !v->gpu)
		rc = v->trace ? trace_gpu_new(&tc, VOLUME_READERS_MAX, &v->gpu, &e)
			      : err_set(&e, -EOPNOTSUPP, "there is no tracer");
	if (rc < 0)
		log_warn("trace", "copies to GPUs are not counted: %s", e.msg);
	return rc < 0 ? -EOPNOTSUPP : 0;
}

void volume_tracing_start(struct volume *v, struct mount_probe *probe)
{
	struct trace *t = tracing_open(v, probe);
	bool on;

	pthread_mutex_lock(&v->trace_lock);
	v->trace = t;
	v->trace_tried = true;
	/* It may have been switched off meanwhile. */
	on = t && v->trace_enabled;
	if (t && !on)
		trace_record_set(t, false);
	v->trace_enabled = on;
	engine_traced_set(v->engine, on);
	if (v->gpu_on)
		v->gpu_on = gpu_switch(v, true) == 0;
	pthread_mutex_unlock(&v->trace_lock);
}

int volume_gpu_set(struct volume *v, bool on)
{
	int rc;

	pthread_mutex_lock(&v->trace_lock);
	/* Before the tracer runs it is a wish. */
	rc = v->trace_tried ? gpu_switch(v, on) : 0;
	if (rc == 0)
		v->gpu_on = on;
	if (v->gpu)
		gpu_look(v);
	pthread_mutex_unlock(&v->trace_lock);
	return rc;
}

void volume_tracing_stop(struct volume *v)
{
	/* The tree's thread has ended. */
	trace_reader_stop(v->accesses);
	v->accesses = NULL;
	trace_gpu_free(v->gpu);
	v->gpu = NULL;
	trace_stop(v->trace);
	v->trace = NULL;
}

int volume_tracing_set(struct volume *v, bool on)
{
	int rc = 0;

	pthread_mutex_lock(&v->trace_lock);
	if (v->trace)
		rc = trace_record_set(v->trace, on);
	else if (v->trace_tried && on)
		rc = -EOPNOTSUPP;
	if (rc == 0)
		v->trace_enabled = on;
	if (rc == 0 && v->trace)
		engine_traced_set(v->engine, on);
	pthread_mutex_unlock(&v->trace_lock);
	return rc;
}

void volume_tracing_tick(struct volume *v)
{
	struct trace_counts counts;
	struct trace_drops drops;

	pthread_mutex_lock(&v->trace_lock);
	if (v->trace && trace_drops_get(v->trace, &drops) == 0)
		v->trace_dropped = drops.dropped;
	if (v->trace && trace_counts_get(v->trace, &counts) == 0)
		v->trace_stall_ns = counts.stall_ns;
	if (v->gpu)
		gpu_look(v);
	pthread_mutex_unlock(&v->trace_lock);
}
