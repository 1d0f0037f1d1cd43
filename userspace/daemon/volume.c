// SPDX-License-Identifier: Apache-2.0
/* A volume's life. */
#define _GNU_SOURCE
#include "daemon/volume.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/features.h"
#include "daemon/mount_point.h"
#include "daemon/runstate.h"
#include "daemon/volume_i.h"

#define MEMORY_DEFAULT_MAX_BYTES (80ull << 30)
#define MEMORY_MIN_BYTES (32ull << 20)
#define S3_THREADS_MAX 4
#define CHECK_DEADLINE_NS (7 * NSEC_PER_SEC)
#define MAX_BACKGROUND 128
#define ENABLE_URING_PATH "/sys/module/fuse/parameters/enable_uring"
#define REGION_DEFAULT "us-east-1"

static int volume_provider_start(struct volume *v, struct err *e)
{
	struct s3_creds_config cfg = {
		.source = v->o.no_sign_request ? S3_CREDS_ANONYMOUS : v->o.credentials,
		.profile = v->o.profile[0] ? v->o.profile : NULL,
		.region = v->o.region[0] ? v->o.region : NULL,
		.ca_bundle = v->o.ca_bundle[0] ? v->o.ca_bundle : NULL,
	};

	return s3_provider_start(&cfg, &v->provider, e);
}

static int volume_client_start(struct volume *v, struct err *e)
{
	const struct options *o = &v->o;
	const char *found = s3_provider_region(v->provider);
	unsigned cpus = (unsigned)max_of(sysconf(_SC_NPROCESSORS_ONLN), 1l);
	struct s3_client_config cfg = {
		.region_pinned = o->region[0],
		.requester_pays = o->requester_pays,
		.ca_bundle = o->ca_bundle,
		.provider = v->provider,
		.max_connections = v->max_connections,
		.threads = min_of(max_of(cpus / 2, 1u), (unsigned)S3_THREADS_MAX),
		.hedge_percent = o->hedge_percent,
	};
	int rc;

	if (o->ca_bundle[0] && access(o->ca_bundle, R_OK) < 0)
		return err_set(e, -errno, "--ca-bundle %s: %s", o->ca_bundle, strerror(errno));
	snprintf(cfg.region, sizeof(cfg.region), "%s", o->region[0] ? o->region : found[0] ? found : REGION_DEFAULT);
	snprintf(cfg.bucket, sizeof(cfg.bucket), "%s", o->uri.bucket);
	if (o->endpoint_url[0])
		rc = s3_endpoint_parse(o->endpoint_url, &cfg.endpoint, e);
	else
		rc = s3_endpoint_aws(cfg.region, &cfg.endpoint, e);
	if (rc < 0)
		return rc;
	cfg.path_style = o->force_path_style || !cfg.endpoint.is_aws;
	return s3_client_start(&cfg, &v->client, e);
}

/* What a user should try next, by what went wrong. */
static const char *check_advice(int error, const char *message)
{
	if (strstr(message, "skew") || strstr(message, "TooSkewed"))
		return "set this machine's clock (timedatectl, chronyc makestep)";
	if (strstr(message, "NoSuchBucket") || error == -ENOENT)
		return "check the bucket's name, --endpoint-url and --region";
	if (strstr(message, "AuthorizationHeaderMalformed") || strstr(message, "region"))
		return "give the bucket's region with --region";
	if (error == -EACCES)
		return "check the access key, the secret and its permission to list the bucket (s3:ListBucket)";
	if (strstr(message, "certificate") || strstr(message, "SSL"))
		return "give the server's authority with --ca-bundle";
	if (error == -ETIMEDOUT)
		return "check --endpoint-url, the network and any proxy";
	return "check the bucket, --endpoint-url and --region";
}

static int volume_check_bucket(struct volume *v, struct err *e)
{
	struct s3_list l = {
		.op = { .demand = true, .deadline_ns = clock_mono_ns() + CHECK_DEADLINE_NS },
		.prefix = v->o.uri.prefix,
		.delimiter = "/",
		.start_after = "",
		.token = "",
		.max_keys = 1,
	};
	struct err why = { 0 };
	int rc = s3_list_sync(v->client, &l, &why);

	free(l.next_token);
	if (rc < 0)
		return err_set(e, rc, "cannot list s3://%s/%s%s%s: %s; %s", v->o.uri.bucket, v->o.uri.prefix,
			       v->o.endpoint_url[0] ? " at " : "", v->o.endpoint_url, why.msg,
			       check_advice(rc, why.msg));
	s3_client_settle(v->client);
	return 0;
}

static void source_submit(void *ctx, struct s3_get *g)
{
	s3_get_submit(ctx, g);
}

static void source_promote(void *ctx, struct s3_op *op)
{
	s3_op_promote(ctx, op);
}

static const enum engine_mode engine_modes[] = {
	[PREFETCH_AUTO] = ENGINE_AUTO,
	[PREFETCH_EAGER] = ENGINE_EAGER,
	[PREFETCH_OFF] = ENGINE_OFF,
};

static int profile_dir_find(const struct options *o, char *ret, size_t room, struct err *e)
{
	char run_dir[RUNSTATE_DIR_MAX];
	int rc;

	if (o->profile_dir[0]) {
		snprintf(ret, room, "%s", o->profile_dir);
		return 0;
	}
	rc = runstate_dir(run_dir, sizeof(run_dir), e);
	if (rc == 0)
		snprintf(ret, room, "%s/profiles", run_dir);
	return rc;
}

static int volume_fs_start(struct volume *v, struct err *e)
{
	const struct options *o = &v->o;
	struct cache_config cc = {
		.budget_bytes = v->cache_bytes,
		.max_bytes = features_memory_limit_bytes(),
		.read_deadline_ns = o->read_deadline_ns,
		.source = { .submit = source_submit, .promote = source_promote, .ctx = v->client },
	};
	struct fs_config fc = {
		.client = v->client,
		.bucket = o->uri.bucket,
		.prefix = o->uri.prefix,
		.uid = o->uid,
		.gid = o->gid,
		.file_mode = o->file_mode,
		.dir_mode = o->dir_mode,
		.metadata_ttl_ns = o->metadata_ttl_ns,
		.read_deadline_ns = o->read_deadline_ns,
		.window_bytes = v->cache_bytes / 2,
		.read_ahead = o->prefetch != PREFETCH_OFF,
		.max_background = MAX_BACKGROUND,
	};

	char profile_dir[OPT_PATH_MAX];
	struct engine_config ec = {
		.client = v->client,
		.prefix = o->uri.prefix,
		.mode = engine_modes[o->prefetch],
		.profile_dir = profile_dir,
		.window_bytes = v->cache_bytes / 2,
		.read_deadline_ns = o->read_deadline_ns,
	};
	int rc = profile_dir_find(o, profile_dir, sizeof(profile_dir), e);

	if (rc < 0)
		return rc;
	v->cache = cache_new(&cc);
	if (!v->cache)
		return err_set(e, -ENOMEM, "cannot reserve %" PRIu64 " MiB: give a smaller --memory",
			       v->cache_bytes >> 20);
	fc.cache = ec.cache = v->cache;
	rc = engine_start(&ec, &v->engine, e);
	if (rc < 0)
		return rc;
	fc.engine = v->engine;
	return fs_new(&fc, &v->fs, e);
}

static int volume_mount_try(struct volume *v, struct mount_probe *probe, bool try_io_uring, struct err *e)
{
	struct transport_config tc = {
		.fs = v->fs,
		.try_io_uring = try_io_uring,
		.why_not = v->why_dev[0] ? v->why_dev : NULL,
		.memory_bytes = v->memory_bytes / 4,
		.end_fd = v->end_fd,
	};
	int rc;

	v->fuse_fd = kernel_mount(&v->o, e);
	if (v->fuse_fd < 0)
		return v->fuse_fd;
	v->mounted = true;
	if (kernel_mount_id(v->o.mount_point, &v->mount_id) < 0)
		v->mount_id = 0;
	tc.fuse_fd = v->fuse_fd;
	rc = transport_start(&tc, &v->transport, e);
	if (rc == 0 && v->o.transport == TRANSPORT_IO_URING && transport_kind(v->transport) != TRANSPORT_KIND_IO_URING)
		rc = err_set(e, -EOPNOTSUPP, "--transport=io_uring: %s; on kernel 6.14 or newer: echo Y > %s",
			     transport_why(v->transport), ENABLE_URING_PATH);
	if (rc == 0)
		rc = mount_probe_run(probe, v->o.mount_point, e);
	if (rc == 0)
		return 0;
	/* Unmounted before the threads end: the kernel then ends every request itself. */
	volume_detach(v);
	v->transport = transport_stop(v->transport);
	close(v->fuse_fd);
	v->fuse_fd = -1;
	return rc;
}

static int volume_mount(struct volume *v, struct mount_probe *probe, struct err *e)
{
	bool uring = v->o.transport != TRANSPORT_DEV;
	uint64_t count;
	int rc = volume_mount_try(v, probe, uring, e);

	if ((rc == -ENOTRECOVERABLE || rc == -ETIMEDOUT) && v->o.transport == TRANSPORT_AUTO) {
		log_warn("daemon", "%s; mounting again over /dev/fuse", e->msg);
		snprintf(v->why_dev, sizeof(v->why_dev), "%s", e->msg);
		mount_probe_stop(probe);
		if (read(v->end_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			return err_set(e, -errno, "cannot reset the end of the first mount: %s", strerror(errno));
		rc = mount_probe_start(probe, e);
		if (rc == 0)
			rc = volume_mount_try(v, probe, false, e);
	}
	return rc;
}

static void volume_tell(struct volume *v)
{
	bool uring = transport_kind(v->transport) == TRANSPORT_KIND_IO_URING;
	int rc = kernel_read_ahead_set(v->o.mount_point, v->read_ahead_kb);

	if (rc < 0)
		log_warn("daemon", "read-ahead stays at the kernel's default, reads through mmap will be slower: %s",
			 strerror(-rc));
	snprintf(v->transport_text, sizeof(v->transport_text), "%s (%s)", uring ? "io_uring" : "dev",
		 transport_why(v->transport));
	snprintf(v->transport_short, sizeof(v->transport_short), "%s%s%s", uring ? "io_uring" : "dev",
		 !uring && v->o.transport == TRANSPORT_AUTO ? ": " : "",
		 !uring && v->o.transport == TRANSPORT_AUTO ? transport_why(v->transport) : "");
	if (!uring && v->o.transport == TRANSPORT_AUTO)
		log_info("daemon",
			 "io_uring would make small reads and lookups faster: kernel 6.14 or newer, echo Y > %s",
			 ENABLE_URING_PATH);
	log_info("daemon", "ready: %s on %s, transport %s, memory %" PRIu64 " MiB, credentials %s", v->o.source,
		 v->o.mount_point, v->transport_text, v->memory_bytes >> 20, s3_provider_describe(v->provider));
}

int volume_start(const struct options *o, struct mount_probe *probe, struct volume **ret, struct err *e)
{
	struct volume *v = calloc(1, sizeof(*v));
	uint64_t limit = features_memory_limit_bytes();
	int rc;

	if (!v)
		return err_set(e, -ENOMEM, "out of memory");
	v->o = *o;
	v->max_connections = v->max_inflight = o->max_connections ? o->max_connections : CONNECTIONS_DEFAULT;
	v->hedge_percent = o->hedge_percent;
	v->trace_enabled = true;
	v->read_ahead_kb = o->read_ahead_kb ? o->read_ahead_kb : READ_AHEAD_DEFAULT_KB;
	pthread_mutex_init(&v->trace_lock, NULL);
	v->fuse_fd = -1;
	v->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	v->memory_bytes = o->memory_bytes ? o->memory_bytes : min_of(limit / 4, (uint64_t)MEMORY_DEFAULT_MAX_BYTES);
	v->memory_bytes = max_of(v->memory_bytes, (uint64_t)MEMORY_MIN_BYTES);
	v->cache_bytes = o->transport == TRANSPORT_DEV ? v->memory_bytes : v->memory_bytes / 4 * 3;
	rc = v->end_fd < 0 ? err_set(e, -errno, "cannot make an eventfd: %s", strerror(errno)) : 0;
	if (rc == 0)
		rc = volume_control_start(v, e);
	if (rc == 0)
		rc = volume_provider_start(v, e);
	if (rc == 0)
		rc = volume_client_start(v, e);
	if (rc == 0)
		rc = volume_check_bucket(v, e);
	if (rc == 0)
		rc = volume_fs_start(v, e);
	if (rc == 0)
		rc = volume_mount(v, probe, e);
	if (rc < 0) {
		volume_stop(v);
		return rc;
	}
	volume_tell(v);
	v->up = true;
	engine_mounted(v->engine);
	*ret = v;
	return 0;
}

void volume_settle(struct volume *v, struct mount_probe *probe)
{
	volume_tracing_start(v, probe);
}

int volume_end_fd(const struct volume *v)
{
	return v->end_fd;
}

void volume_tick(struct volume *v)
{
	cache_tick(v->cache);
	engine_tick(v->engine);
	volume_tracing_tick(v);
}

const char *volume_transport(struct volume *v)
{
	return v->transport_text;
}

int volume_stats_write(struct volume *v, const char *path)
{
	char tmp[OPT_PATH_MAX + 8];
	_cleanup_fclose_ FILE *f = NULL;
	struct s3_client_stats s3;
	struct cache_stats cs;
	struct fs_stats fs;
	struct transport_stats ts;

	s3_client_stats(v->client, &s3);
	cache_stats(v->cache, &cs);
	fs_stats(v->fs, &fs);
	transport_stats(v->transport, &ts);
	snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "we");
	if (!f)
		return -errno;
	fprintf(f,
		"{\"source\":\"%s\",\"transport\":\"%s\",\"queue_depth\":%u,\"requests_io_uring\":%" PRIu64
		",\"requests_dev\":%" PRIu64 ",\"buffer_bytes\":%" PRIu64 ",\n",
		v->o.source, transport_kind(v->transport) == TRANSPORT_KIND_IO_URING ? "io_uring" : "dev",
		ts.queue_depth, ts.requests_io_uring, ts.requests_dev, ts.buffer_bytes);
	fprintf(f,
		"\"lookups\":%" PRIu64 ",\"opens\":%" PRIu64 ",\"reads\":%" PRIu64 ",\"readdirs\":%" PRIu64
		",\"nodes\":%" PRIu64 ",\"bytes_read\":%" PRIu64 ",\n",
		fs.lookups, fs.opens, fs.reads, fs.readdirs, fs.nodes, fs.bytes_read);
	fprintf(f,
		"\"memory_bytes\":%" PRIu64 ",\"memory_used\":%" PRIu64 ",\"hit_bytes\":%" PRIu64
		",\"miss_bytes\":%" PRIu64 ",\"evicted_bytes\":%" PRIu64 ",\"direct_bytes\":%" PRIu64
		",\"fetched_bytes\":%" PRIu64 ",\n",
		cs.budget_bytes, cs.used_bytes, cs.hit_bytes, cs.miss_bytes, cs.evicted_bytes, cs.direct_bytes,
		cs.fetched_bytes);
	fprintf(f,
		"\"s3_requests\":%" PRIu64 ",\"s3_retries\":%" PRIu64 ",\"s3_throttled\":%" PRIu64
		",\"s3_hedges\":%" PRIu64 ",\"s3_errors\":%" PRIu64 ",\"s3_bytes\":%" PRIu64
		",\"s3_limit\":%u,\"s3_p50_us\":%" PRIu64 ",\"s3_p99_us\":%" PRIu64 ",\"s3_bytes_per_s\":%" PRIu64
		",\"s3_chunk_us\":%" PRIu64 "}\n",
		s3.requests, s3.retries, s3.throttled, s3.hedges, s3.errors, s3.bytes, s3.limit,
		s3.first_byte_p50_ns / 1000, s3.first_byte_p99_ns / 1000, s3.bytes_per_s, s3.chunk_ns / 1000);
	if (fflush(f) != 0 || rename(tmp, path) < 0)
		return -errno;
	return 0;
}

void volume_detach(struct volume *v)
{
	uint64_t now = 0;
	int rc;

	if (!v->mounted)
		return;
	v->mounted = false;
	/* Somebody may have unmounted ours and mounted something else there. */
	rc = kernel_mount_id(v->o.mount_point, &now);
	if (rc == -ENOENT || (rc == 0 && v->mount_id && now != v->mount_id))
		return;
	rc = kernel_unmount(v->o.mount_point);
	if (rc < 0 && rc != -EINVAL && rc != -ENOENT)
		log_warn("daemon", "cannot unmount %s: %s", v->o.mount_point, strerror(-rc));
}

struct volume *volume_stop(struct volume *v)
{
	if (!v)
		return NULL;
	v->stopping = true;
	volume_control_stop(v);
	volume_tracing_stop(v);
	if (v->client)
		s3_client_stop(v->client);
	/* Gone already, but where a reader of /dev/fuse gave up. */
	volume_detach(v);
	/*
	 * Every read has ended by now, and its reply is on its way to a transport thread, which sends it before it
	 * ends.
	 */
	transport_stop(v->transport);
	fs_free(v->fs);
	engine_stop(v->engine);
	cache_free(v->cache);
	s3_client_free(v->client);
	s3_provider_stop(v->provider);
	if (v->fuse_fd >= 0)
		close(v->fuse_fd);
	if (v->end_fd >= 0)
		close(v->end_fd);
	pthread_mutex_destroy(&v->trace_lock);
	free(v);
	return NULL;
}
