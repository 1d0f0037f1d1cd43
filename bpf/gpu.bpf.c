// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * How many bytes a process copies to its GPU, and how long that takes: the end of a weight's way.
 *
 * Uprobes on libcuda's cuMemcpyHtoD* of single processes; each call costs two breakpoints, so this is for those who ask
 * for it. Several of those symbols may be one function, or call each other: only the outermost call of a thread counts.
 */
#include <linux/bpf.h>
#include <linux/ptrace.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include <penstock/trace.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* User space makes the entry of a process; calls of others do not count. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TRACE_GPU_PROCESSES_MAX);
	__type(key, __u32);
	__type(value, struct trace_gpu);
} penstock_gpu SEC(".maps");

struct call {
	__u64 start_ns;
	__u64 bytes;
	__u64 depth;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct call);
} penstock_calls SEC(".maps");

SEC("uprobe")
int BPF_KPROBE(penstock_copy, unsigned long to, const void *from, unsigned long bytes)
{
	struct call call = { .start_ns = bpf_ktime_get_ns(), .bytes = bytes, .depth = 1 };
	__u64 id = bpf_get_current_pid_tgid();
	struct call *outer = bpf_map_lookup_elem(&penstock_calls, &id);

	if (outer)
		outer->depth++;
	else
		bpf_map_update_elem(&penstock_calls, &id, &call, BPF_ANY);
	return 0;
}

SEC("uretprobe")
int BPF_KRETPROBE(penstock_copied, int result)
{
	__u64 id = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
	struct call *call = bpf_map_lookup_elem(&penstock_calls, &id);
	__u32 pid = id >> 32;
	struct trace_gpu *gpu;

	if (!call || --call->depth)
		return 0;
	gpu = bpf_map_lookup_elem(&penstock_gpu, &pid);
	if (gpu && result == 0) {
		__sync_fetch_and_add(&gpu->bytes, call->bytes);
		__sync_fetch_and_add(&gpu->calls, 1);
		__sync_fetch_and_add(&gpu->ns, now - call->start_ns);
		if (gpu->first_ns == 0)
			gpu->first_ns = call->start_ns;
		gpu->last_ns = now;
	}
	bpf_map_delete_elem(&penstock_calls, &id);
	return 0;
}
