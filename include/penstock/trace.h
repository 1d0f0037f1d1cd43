/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs and user space share: events of the ring buffers, keys and values of the pinned maps.
 *
 * Devices are the kernel's dev_t, major << 20 | minor; stat(2) and makedev(3) lay the two numbers out differently, see
 * trace_dev(). Times are CLOCK_MONOTONIC. bpf/README.md shows what bpftool makes of the maps.
 */
#ifndef PENSTOCK_TRACE_H
#define PENSTOCK_TRACE_H

#include <linux/types.h>

/*
 * Of programs and maps together: whoever finds another number pinned replaces the programs. Raise it with every change
 * of this file or of bpf/. The guards let tests build objects of other versions.
 */
#ifndef TRACE_VERSION
#define TRACE_VERSION 1
#endif

#ifndef TRACE_VOLUMES_MAX
#define TRACE_VOLUMES_MAX 256
#endif
#define TRACE_FILES_MAX 16384
#define TRACE_CGROUPS_MAX 2048
#define TRACE_PROGRAMS_MAX 16
#define TRACE_GPU_PROCESSES_MAX 1024
/* Devices by their low bits: the first, cheapest look at an access. */
#define TRACE_FILTER_SLOTS 4096

/* Below the BPF file system: penstock/maps/..., penstock/progs/..., penstock/links/.... */
#define TRACE_PIN_DIR "penstock"
#define TRACE_NAME_BYTES 16
#define TRACE_ID_BYTES 64

enum trace_kind {
	TRACE_READ = 1,  /* read(2) and its kin: what was asked for, in whole pages, within the file */
	TRACE_FAULT = 2, /* a page that a mapping did not find present: one page */
	TRACE_MAP = 3, /* present pages made visible in a mapping: the kernel's window around a fault, or a populate */
};

/* The access waited for a FUSE READ. */
#define TRACE_MISS 0x1

struct trace_range {
	__u64 offset;
	__u64 ns; /* of its first access */
	__u32 len;
	__u8 kind;
	__u8 flags;
	__u16 reserved;
};

#define TRACE_RANGES_MAX 32

/* One record of a ring buffer: ranges of one file that one thread accessed, in order; it ends after <nr> of them. */
struct trace_event {
	__u16 version;
	__u16 nr;
	__u32 dev;
	__u64 ino;
	__u64 cgroup; /* id in the version 2 hierarchy */
	__u32 pid;
	__u32 tid;
	__u64 dropped; /* ranges of this volume that found no room, until now */
	struct trace_range range[TRACE_RANGES_MAX];
};

struct trace_file_key {
	__u32 dev;
	__u32 reserved;
	__u64 ino;
};

struct trace_cgroup_key {
	__u32 dev;
	__u32 reserved;
	__u64 cgroup;
};

/* Value of both "files" and "cgroups". */
struct trace_counts {
	__u64 bytes;     /* asked for by reads, and mapped */
	__u64 map_bytes; /* those of them that came through a mapping */
	__u64 hits;      /* accesses that waited for no READ */
	__u64 misses;
	__u64 faults;
	__u64 stall_ns; /* spent waiting for READs */
	__u64 requests; /* FUSE READs */
	__u64 request_bytes;
	__u64 last_ns; /* of the last access */
};

/* "volumes", by device: only user space writes it. */
struct trace_volume {
	__u32 index;  /* into "rings" and "drops" */
	__u32 record; /* 1: ranges go to the ring buffer; 0: only the counters move */
	__u32 owner_pid;
	__u32 reserved;
	__u64 owner_start; /* start time of that process in clock ticks, as in /proc/PID/stat */
	__u64 pid_ns;      /* inodes of the owner's namespaces: others cannot judge whether it lives */
	__u64 mnt_ns;
	char id[TRACE_ID_BYTES];
};

/* "drops", by the volume's index: what went through its ring buffer, in ranges. */
struct trace_drops {
	__u64 events;
	__u64 dropped;
	__u64 wake_ns; /* when the reader was last woken */
};

struct trace_latency_key {
	__u32 dev;
	__u32 opcode;
};

#define TRACE_BUCKETS 28

/* "latency": bucket i counts requests of 2^i to 2^(i+1) - 1 us, the first those of 0 us too, the last all above. */
struct trace_latency {
	__u64 count;
	__u64 errors;
	__u64 sum_ns;
	__u64 max_ns;
	__u64 bucket[TRACE_BUCKETS];
};

/* "state", one element. */
struct trace_state {
	__u32 version;
	__u32 bpffs_made; /* the BPF file system was mounted by us */
};

/* "programs": what became of each program, for people. */
struct trace_program {
	char name[TRACE_NAME_BYTES];
	__s32 error;     /* 0: runs; -errno: the kernel refused it */
	__u32 stands_in; /* runs because the one before it was refused */
	char reason[104];
};

/* "gpu", by process: copies from host to device memory, where they are looked at. */
struct trace_gpu {
	__u64 bytes;
	__u64 calls;
	__u64 ns;       /* spent in the calls; asynchronous ones only submit */
	__u64 first_ns; /* begin of the first, end of the last */
	__u64 last_ns;
};

#define TRACE_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), "size of struct " #type)
TRACE_ASSERT_SIZE(trace_range, 24);
TRACE_ASSERT_SIZE(trace_event, 40 + 24 * TRACE_RANGES_MAX);
TRACE_ASSERT_SIZE(trace_file_key, 16);
TRACE_ASSERT_SIZE(trace_cgroup_key, 16);
TRACE_ASSERT_SIZE(trace_counts, 72);
TRACE_ASSERT_SIZE(trace_volume, 40 + TRACE_ID_BYTES);
TRACE_ASSERT_SIZE(trace_drops, 24);
TRACE_ASSERT_SIZE(trace_latency_key, 8);
TRACE_ASSERT_SIZE(trace_latency, 32 + 8 * TRACE_BUCKETS);
TRACE_ASSERT_SIZE(trace_state, 8);
TRACE_ASSERT_SIZE(trace_program, 128);
TRACE_ASSERT_SIZE(trace_gpu, 40);

#endif
