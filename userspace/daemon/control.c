// SPDX-License-Identifier: Apache-2.0
/*
 * A volume's values in the tuning tree and the metrics.
 *
 * Threads: get() from the tree's and the metrics' thread, set() from the tree's. Nothing here waits: all below are
 * counters and short locks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/kernel_mount.h"
#include "daemon/runstate.h"
#include "daemon/volume_i.h"
#include "prefetch/profile.h"

#define SOCKET_PATH_MAX 107

/* The words of prefetch/mode are the engine's modes. */
_Static_assert((int)CTL_PREFETCH_OFF == (int)ENGINE_OFF && (int)CTL_PREFETCH_AUTO == (int)ENGINE_AUTO &&
		       (int)CTL_PREFETCH_EAGER == (int)ENGINE_EAGER,
	       "one order of modes");

/* Of --memory, what is not for data. */
static uint64_t other_bytes(const struct volume *v)
{
	return v->memory_bytes - v->cache_bytes;
}

static int get_text(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	unsigned loads = 0;
	const char *text = "none";

	switch (which) {
	case CTL_SOURCE:
		text = v->o.source;
		break;
	case CTL_STATE:
		text = v->stopping ? "stopping" : v->up ? "ready" : "starting";
		break;
	case CTL_TRANSPORT:
		text = v->up ? v->transport_short : "";
		break;
	default: /* prefetch/profile */
		if (v->up)
			loads = engine_profile_loads(v->engine);
		if (loads) {
			snprintf(ret->text, sizeof(ret->text), "version %d, %u loads", PROFILE_VERSION, loads);
			return 0;
		}
	}
	snprintf(ret->text, sizeof(ret->text), "%s", text);
	return 0;
}

static int get_setting(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	struct cache_stats cs;

	switch (which) {
	case CTL_PREFETCH_MODE:
		ret->number = (uint64_t)engine_mode(v->engine);
		return 0;
	case CTL_PREFETCH_WINDOW:
		ret->number = engine_window(v->engine);
		return 0;
	case CTL_PREFETCH_MAX_INFLIGHT:
		ret->number = v->max_inflight;
		return 0;
	case CTL_CACHE_MEMORY:
		cache_stats(v->cache, &cs);
		ret->number = cs.budget_bytes + other_bytes(v);
		return 0;
	case CTL_S3_MAX_CONNECTIONS:
		ret->number = v->max_connections;
		return 0;
	case CTL_S3_HEDGE_PERCENT:
		ret->number = v->hedge_percent;
		return 0;
	case CTL_FUSE_READ_AHEAD:
		ret->number = v->read_ahead_kb;
		return 0;
	case CTL_PREFETCH_RECORD:
		ret->number = engine_record(v->engine);
		return 0;
	case CTL_TRACE_ENABLED:
		ret->number = v->trace_enabled;
		return 0;
	case CTL_TRACE_GPU:
		ret->number = v->gpu_on;
		return 0;
	default: /* cache/disk_bytes: none */
		return 0;
	}
}

static int get_cache(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	struct cache_stats cs;

	cache_stats(v->cache, &cs);
	ret->number = which == CTL_CACHE_MEMORY_USED ? cs.used_bytes
		    : which == CTL_CACHE_HIT         ? cs.hit_bytes
		    : which == CTL_CACHE_MISS        ? cs.miss_bytes
		    : which == CTL_CACHE_EVICTED     ? cs.evicted_bytes
						     : 0;
	return 0;
}

static int get_s3(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	struct s3_client_stats st;

	s3_client_stats(v->client, &st);
	ret->number = which == CTL_S3_REQUESTS  ? st.requests
		    : which == CTL_S3_RETRIES   ? st.retries
		    : which == CTL_S3_THROTTLED ? st.throttled
		    : which == CTL_S3_BYTES     ? st.bytes
		    : which == CTL_S3_P50       ? st.first_byte_p50_ns / 1000
						: st.first_byte_p99_ns / 1000;
	return 0;
}

static int get_fuse(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	struct transport_stats ts;

	transport_stats(v->transport, &ts);
	ret->number = which == CTL_FUSE_QUEUE_DEPTH ? ts.queue_depth : ts.requests_io_uring + ts.requests_dev;
	return 0;
}

static int get_trace(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	ret->number = which == CTL_TRACE_EVENTS ? v->traced : v->trace_dropped;
	return 0;
}

static int get_load(struct volume *v, enum ctl_value which, struct ctl_cell *ret)
{
	struct fs_load load;
	struct cache_stats cs;

	fs_load_get(v->fs, &load);
	switch (which) {
	case CTL_LOAD_STARTED:
		ret->number = load.started;
		break;
	case CTL_LOAD_FIRST_READ:
		ret->number = load.first_read_us;
		break;
	case CTL_LOAD_LAST_READ:
		ret->number = load.last_read_us;
		break;
	case CTL_LOAD_WANTED:
		ret->number = load.bytes_wanted;
		break;
	case CTL_LOAD_FETCHED:
		cache_stats(v->cache, &cs);
		ret->number = cs.fetched_bytes - load.fetched_before;
		break;
	case CTL_LOAD_FAULTS:
		ret->number = v->trace_faults;
		break;
	case CTL_LOAD_FAULT_STALL:
		ret->number = v->trace_stall_ns / 1000;
		break;
	default: /* load/gpu_copy_bytes */
		ret->number = v->gpu_bytes;
	}
	return 0;
}

static int control_get(void *ctx, enum ctl_value which, struct ctl_cell *ret)
{
	struct volume *v = ctx;

	if (ctl_specs[which].kind == CTL_TEXT)
		return get_text(v, which, ret);
	if (which == CTL_PREFETCH_CHUNK) {
		ret->number = CACHE_CHUNK_BYTES;
		return 0;
	}
	if (!v->up)
		return -EAGAIN;
	if (ctl_kind_writable(ctl_specs[which].kind))
		return get_setting(v, which, ret);
	if (strcmp(ctl_specs[which].dir, "cache") == 0)
		return get_cache(v, which, ret);
	if (strcmp(ctl_specs[which].dir, "s3") == 0)
		return get_s3(v, which, ret);
	if (strcmp(ctl_specs[which].dir, "fuse") == 0)
		return get_fuse(v, which, ret);
	if (strcmp(ctl_specs[which].dir, "trace") == 0)
		return get_trace(v, which, ret);
	return get_load(v, which, ret);
}

static int set_mode(struct volume *v, uint64_t word)
{
	engine_mode_set(v->engine, (enum engine_mode)word);
	fs_read_ahead_set(v->fs, word != CTL_PREFETCH_OFF);
	return 0;
}

static void set_window(struct volume *v, uint64_t bytes)
{
	engine_window_set(v->engine, bytes);
	fs_window_set(v->fs, bytes);
}

static int set_memory(struct volume *v, uint64_t bytes)
{
	uint64_t data_bytes = bytes > other_bytes(v) ? bytes - other_bytes(v) : 0;
	int rc = data_bytes ? cache_budget_set(v->cache, data_bytes) : -EINVAL;

	/* What is fetched ahead must find room. */
	if (rc == 0 && engine_window(v->engine) > data_bytes / 2)
		set_window(v, data_bytes / 2);
	return rc;
}

static int control_set(void *ctx, enum ctl_value which, const struct ctl_cell *cell)
{
	struct volume *v = ctx;
	uint64_t n = cell->number;
	int rc = 0;

	if (!v->up)
		return -EAGAIN;
	switch (which) {
	case CTL_PREFETCH_MODE:
		return set_mode(v, n);
	case CTL_PREFETCH_WINDOW:
		set_window(v, n);
		return 0;
	case CTL_PREFETCH_MAX_INFLIGHT:
		s3_client_set_max_prefetch(v->client, (unsigned)n);
		v->max_inflight = (unsigned)n;
		return 0;
	case CTL_CACHE_MEMORY:
		return set_memory(v, n);
	case CTL_S3_MAX_CONNECTIONS:
		s3_client_set_max_connections(v->client, (unsigned)n);
		v->max_connections = (unsigned)n;
		return 0;
	case CTL_S3_HEDGE_PERCENT:
		s3_client_set_hedge_percent(v->client, (unsigned)n);
		v->hedge_percent = (unsigned)n;
		return 0;
	case CTL_FUSE_READ_AHEAD:
		rc = kernel_read_ahead_set(v->o.mount_point, (unsigned)n);
		if (rc == 0)
			v->read_ahead_kb = (unsigned)n;
		return rc;
	case CTL_PREFETCH_RECORD:
		engine_record_set(v->engine, n);
		return 0;
	case CTL_TRACE_ENABLED:
		return volume_tracing_set(v, n);
	case CTL_TRACE_GPU:
		return volume_gpu_set(v, n);
	default:
		/* What this version cannot do is off, and stays off. */
		return n ? -EOPNOTSUPP : 0;
	}
}

int volume_control_start(struct volume *v, struct err *e)
{
	char run_dir[RUNSTATE_DIR_MAX], dir[OPT_PATH_MAX], path[OPT_PATH_MAX + 16];
	struct metrics_config mc = {
		.ops = &v->ctl_ops, .volume_id = v->o.volume_id, .socket_path = path, .listen = v->o.metrics_listen
	};
	struct err why = { 0 };
	int rc = runstate_dir(run_dir, sizeof(run_dir), e);

	if (rc < 0)
		return rc;
	v->ctl_ops = (struct ctl_ops){ .get = control_get, .set = control_set, .ctx = v };
	snprintf(dir, sizeof(dir), "%s/volumes/%s", run_dir, v->o.volume_id);
	snprintf(path, sizeof(path), "%s.metrics.sock", dir);
	v->ctl_tree = ctl_table_tree_new(&v->ctl_ops);
	if (!v->ctl_tree)
		return err_set(e, -ENOMEM, "out of memory");
	if (ctl_mount_start(v->ctl_tree, dir, &v->ctl_mount, &why) < 0)
		log_warn("daemon", "no tuning tree at %s: %s", dir, why.msg);
	if (strlen(path) > SOCKET_PATH_MAX) {
		log_warn("daemon", "no metrics at %s: the path of a socket has at most %d bytes", path,
			 SOCKET_PATH_MAX);
		mc.socket_path = NULL;
	}
	if (!mc.socket_path && !mc.listen[0])
		return 0;
	rc = metrics_start(&mc, &v->metrics, &why);
	if (rc < 0 && v->o.metrics_listen[0])
		return err_set(e, rc, "--metrics-listen %s: %s", v->o.metrics_listen, why.msg);
	if (rc < 0)
		log_warn("daemon", "no metrics at %s: %s", path, why.msg);
	return 0;
}

void volume_control_stop(struct volume *v)
{
	v->metrics = metrics_stop(v->metrics);
	v->ctl_mount = ctl_mount_stop(v->ctl_mount);
	v->ctl_tree = ctl_tree_free(v->ctl_tree);
}
