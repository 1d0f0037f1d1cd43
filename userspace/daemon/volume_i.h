/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of a volume share. */
#ifndef PENSTOCK_DAEMON_VOLUME_I_H
#define PENSTOCK_DAEMON_VOLUME_I_H

#include <stdatomic.h>

#include "cache/cache.h"
#include "ctl/metrics.h"
#include "ctl/mount.h"
#include "ctl/table.h"
#include "daemon/options.h"
#include "daemon/volume.h"
#include "fs/fs.h"
#include "prefetch/engine.h"
#include "s3/client.h"
#include "trace/gpu.h"
#include "trace/load.h"
#include "trace/reader.h"
#include "transport/transport.h"

#define CONNECTIONS_DEFAULT 64
#define READ_AHEAD_DEFAULT_KB 4096
#define VOLUME_READERS_MAX 64

struct volume {
	struct options o;
	struct s3_provider *provider;
	struct s3_client *client;
	struct cache *cache;
	struct engine *engine;
	struct fs *fs;
	struct transport *transport;
	pthread_mutex_t trace_lock; /* of the calls on trace */
	struct trace *trace;        /* NULL: not yet, or the kernel lets us see nothing */
	bool trace_tried;           /* guard: trace_lock */
	struct trace_reader *accesses;
	struct trace_gpu_watch *gpu;            /* NULL: copies are not counted; guard: trace_lock */
	atomic_int readers[VOLUME_READERS_MAX]; /* processes that read lately, placed by their pids */
	int fuse_fd, end_fd;
	bool mounted;
	uint64_t mount_id; /* to tell ours from a later one on the same place */
	uint64_t memory_bytes, cache_bytes;
	char transport_text[320], transport_short[256];
	char why_dev[200]; /* why io_uring was given up */

	/* The tuning tree; its threads look at all above once <up> is set. */
	struct ctl_ops ctl_ops;
	struct ctl_tree *ctl_tree;
	struct ctl_mount *ctl_mount;
	struct metrics *metrics;
	atomic_bool up, stopping;
	/* What was set last, where nothing below keeps it. */
	atomic_uint max_inflight, max_connections, hedge_percent, read_ahead_kb;
	atomic_bool trace_enabled, gpu_on;
	atomic_ullong traced, trace_dropped, trace_faults, trace_stall_ns, gpu_bytes;
};

/* control.c */
/* The tree and the metrics. Without them the volume runs too, unless --metrics-listen was asked for. */
int volume_control_start(struct volume *v, struct err *e);
void volume_control_stop(struct volume *v);
/* tracing.c */
void volume_tracing_start(struct volume *v, struct mount_probe *probe);
void volume_tracing_stop(struct volume *v);
void volume_tracing_tick(struct volume *v);
int volume_tracing_set(struct volume *v, bool on);
/* Whether copies to GPUs by the volume's readers are counted. */
int volume_gpu_set(struct volume *v, bool on);

#endif
