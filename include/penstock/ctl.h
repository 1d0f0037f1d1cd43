/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tuning tree's names, as the daemon serves them below $PENSTOCK_RUN_DIR/volumes/ID/ and as penstockctl reads
 * them: DIR/NAME, the root's without a directory.
 *
 * A kind says how a value is written, who may write it and what it is as a metric. Counters only grow, until the
 * daemon starts again; those of load/ also start again with the next load. Times are microseconds (_us), sizes bytes.
 */
#ifndef PENSTOCK_CTL_H
#define PENSTOCK_CTL_H

#define CTL_FSTYPE "fuse.penstock-ctl"

enum ctl_kind {
	/* 0444 */
	CTL_TEXT = 0, /* one line; no metric */
	CTL_GAUGE,    /* a whole number */
	CTL_COUNTER,  /* a whole number that grows */
	/* 0644 */
	CTL_BOOL,   /* 0 or 1 */
	CTL_NUMBER, /* a whole number in [min, max] */
	CTL_SIZE,   /* as a number, and with a unit when written: 512MiB */
	CTL_WORD,   /* one of the words of its value; no metric */
};

enum ctl_unit { CTL_PLAIN = 0, CTL_BYTES, CTL_KB, CTL_US, CTL_PERCENT };

/* prefetch/mode as a number. */
enum ctl_prefetch_mode { CTL_PREFETCH_OFF = 0, CTL_PREFETCH_AUTO, CTL_PREFETCH_EAGER };

/* clang-format off */
/* X(id, directory, name, kind, unit, min, max, meaning) in the order of listings */
#define CTL_VALUES(X) \
	X(SOURCE, "", "source", TEXT, PLAIN, 0, 0, "what is mounted") \
	X(STATE, "", "state", TEXT, PLAIN, 0, 0, "starting, ready, degraded: REASON, or stopping") \
	X(TRANSPORT, "", "transport", TEXT, PLAIN, 0, 0, "io_uring or dev, and why") \
	X(PREFETCH_MODE, "prefetch", "mode", WORD, PLAIN, 0, 2, "when prefetch starts by itself: off, auto or eager") \
	X(PREFETCH_WINDOW, "prefetch", "window_bytes", SIZE, BYTES, 1 << 20, 1ull << 50, "most that is read ahead") \
	X(PREFETCH_MAX_INFLIGHT, "prefetch", "max_inflight", NUMBER, PLAIN, 1, 1024, "most prefetch requests at once") \
	X(PREFETCH_CHUNK, "prefetch", "chunk_bytes", GAUGE, BYTES, 0, 0, "size of a chunk") \
	X(PREFETCH_PROFILE, "prefetch", "profile", TEXT, PLAIN, 0, 0, "none, or version and age of the one in use") \
	X(PREFETCH_RECORD, "prefetch", "record", BOOL, PLAIN, 0, 1, "whether a profile is being recorded") \
	X(CACHE_MEMORY, "cache", "memory_bytes", SIZE, BYTES, 32 << 20, 1ull << 50, "budget of memory for data") \
	X(CACHE_DISK, "cache", "disk_bytes", SIZE, BYTES, 0, 1ull << 60, "budget of disk for data, 0 = none") \
	X(CACHE_MEMORY_USED, "cache", "memory_used", GAUGE, BYTES, 0, 0, "memory that holds data now") \
	X(CACHE_DISK_USED, "cache", "disk_used", GAUGE, BYTES, 0, 0, "disk that holds data now") \
	X(CACHE_HIT, "cache", "hit_bytes", COUNTER, BYTES, 0, 0, "bytes read that were here already") \
	X(CACHE_MISS, "cache", "miss_bytes", COUNTER, BYTES, 0, 0, "bytes read that had to be waited for") \
	X(CACHE_EVICTED, "cache", "evicted_bytes", COUNTER, BYTES, 0, 0, "bytes dropped to make room") \
	X(S3_MAX_CONNECTIONS, "s3", "max_connections", NUMBER, PLAIN, 1, 1024, "most requests at once") \
	X(S3_HEDGE_PERCENT, "s3", "hedge_percent", NUMBER, PERCENT, 0, 100, "most hedges of slow requests, 0 = off") \
	X(S3_REQUESTS, "s3", "requests", COUNTER, PLAIN, 0, 0, "requests sent, with retries") \
	X(S3_RETRIES, "s3", "retries", COUNTER, PLAIN, 0, 0, "requests repeated") \
	X(S3_THROTTLED, "s3", "throttled", COUNTER, PLAIN, 0, 0, "replies that asked to slow down") \
	X(S3_BYTES, "s3", "bytes", COUNTER, BYTES, 0, 0, "bytes of objects received") \
	X(S3_P50, "s3", "p50_us", GAUGE, US, 0, 0, "median time to the first byte") \
	X(S3_P99, "s3", "p99_us", GAUGE, US, 0, 0, "99th percentile of the time to the first byte") \
	X(FUSE_QUEUE_DEPTH, "fuse", "queue_depth", GAUGE, PLAIN, 0, 0, "requests a queue holds, 0 with dev") \
	X(FUSE_READ_AHEAD, "fuse", "read_ahead_kb", NUMBER, KB, 0, 1 << 20, "the kernel's read-ahead on this mount") \
	X(FUSE_REQUESTS, "fuse", "requests", COUNTER, PLAIN, 0, 0, "requests of the kernel") \
	X(TRACE_EVENTS, "trace", "events", COUNTER, PLAIN, 0, 0, "accesses seen by the tracer") \
	X(TRACE_DROPPED, "trace", "dropped", COUNTER, PLAIN, 0, 0, "accesses lost because nobody took them in time") \
	X(TRACE_ENABLED, "trace", "enabled", BOOL, PLAIN, 0, 1, "whether accesses of this volume are traced") \
	X(TRACE_GPU, "trace", "gpu", BOOL, PLAIN, 0, 1, "whether copies to a GPU are counted") \
	X(LOAD_STARTED, "load", "started", GAUGE, PLAIN, 0, 0, "when this load began, Unix time, 0 = no load yet") \
	X(LOAD_FIRST_READ, "load", "first_read_us", GAUGE, US, 0, 0, "from its begin to the first byte read") \
	X(LOAD_LAST_READ, "load", "last_read_us", GAUGE, US, 0, 0, "from its begin to the last byte read so far") \
	X(LOAD_WANTED, "load", "bytes_wanted", COUNTER, BYTES, 0, 0, "bytes its readers asked for") \
	X(LOAD_FETCHED, "load", "bytes_fetched", COUNTER, BYTES, 0, 0, "bytes fetched for it") \
	X(LOAD_FAULTS, "load", "faults", COUNTER, PLAIN, 0, 0, "page faults that waited for data") \
	X(LOAD_FAULT_STALL, "load", "fault_stall_us", COUNTER, US, 0, 0, "time that readers and faults waited") \
	X(LOAD_GPU_COPY, "load", "gpu_copy_bytes", COUNTER, BYTES, 0, 0, "bytes copied to GPUs")
/* clang-format on */

enum ctl_value {
#define CTL_VALUE_ID(id, ...) CTL_##id,
	CTL_VALUES(CTL_VALUE_ID)
#undef CTL_VALUE_ID
		CTL_NR_VALUES
};

#endif
