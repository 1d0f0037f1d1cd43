/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The maps. User space pins all of them, so that a new version of the programs finds what the old one knew; the README
 * says which ones are for people. The kernel takes names of 15 characters.
 */
#ifndef PENSTOCK_BPF_MAPS_H
#define PENSTOCK_BPF_MAPS_H

#include <bpf/bpf_helpers.h>
#include <penstock/trace.h>

/* Which volume a device belongs to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRACE_VOLUMES_MAX);
	__type(key, __u32);
	__type(value, struct trace_volume);
} penstock_volume SEC(".maps");

/* How many volumes have a device with these low bits: an array needs no hashing and no call. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACE_FILTER_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} penstock_filter SEC(".maps");

/* One ring buffer for each volume, by its index. Their sizes differ: this one is only a pattern. */
struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, TRACE_VOLUMES_MAX);
	__type(key, __u32);
	__array(values, struct ring);
} penstock_rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACE_VOLUMES_MAX);
	__type(key, __u32);
	__type(value, struct trace_drops);
} penstock_drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TRACE_FILES_MAX);
	__type(key, struct trace_file_key);
	__type(value, struct trace_counts);
} penstock_files SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, TRACE_CGROUPS_MAX);
	__type(key, struct trace_cgroup_key);
	__type(value, struct trace_counts);
} penstock_cgroup SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRACE_VOLUMES_MAX * 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct trace_latency_key);
	__type(value, struct trace_latency);
} penstock_lat SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct trace_state);
} penstock_state SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TRACE_PROGRAMS_MAX);
	__type(key, __u32);
	__type(value, struct trace_program);
} penstock_progs SEC(".maps");

/* FUSE requests on their way. Evicted rather than refused: a request that never ends must not cost a place. */
struct flight_key {
	__u32 dev;
	__u32 reserved;
	__u64 unique;
};

struct flight {
	__u64 send_ns;
	__u64 cgroup;
	__u64 nodeid; /* 0: of no file that is known */
	__u64 offset;
	__u32 len;
	__u32 opcode;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct flight_key);
	__type(value, struct flight);
} penstock_flight SEC(".maps");

/* The last READ of each block of a file: an access finds there whether it had to wait. */
#define BLOCK_SHIFT 17

struct block_key {
	__u32 dev;
	__u32 block; /* of 1 << BLOCK_SHIFT bytes */
	__u64 ino;
};

struct block {
	__u64 send_ns;
	__u64 end_ns;
	__u64 offset;
	__u64 end;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct block_key);
	__type(value, struct block);
} penstock_blocks SEC(".maps");

/* What a thread has accessed and nobody has been told yet, of one file at a time; what every access needs is first. */
struct task {
	__u64 ns;      /* of its last access, or of the READ before its first */
	__u64 nvcsw;   /* how often it had slept then */
	__u64 sent_ns; /* its first READ since then; 0: none */
	__u64 tick;    /* in jiffies, when the clock was looked at, and what it said */
	__u64 tick_ns;
	__u64 fault_page; /* of its last fault, until that page is mapped */
	__u64 first_page; /* of its last read, as the kernel asked for it */
	__u64 last_page;
	__u64 told; /* offset up to which that read is in the ranges, and its end */
	__u64 end;
	__u64 pending_bytes;
	__u32 busy;      /* the thread is at it */
	__u32 taken;     /* the flush iterator is */
	__u8 fault_open; /* a fault whose end has not been seen */
	__u8 missed;     /* the last read has been counted as a miss */
	__u8 settled;    /* the reader rests: it must hear of the next access */
	__u8 reserved[5];
	struct trace_counts add; /* not yet in "files" and "cgroups" */
	struct trace_event event;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task);
} penstock_tasks SEC(".maps");

static __always_inline bool device_wanted(__u32 dev)
{
	__u32 slot = dev % TRACE_FILTER_SLOTS;
	__u32 *nr = bpf_map_lookup_elem(&penstock_filter, &slot);

	return nr && *nr;
}

#endif
