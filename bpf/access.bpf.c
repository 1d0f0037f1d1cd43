// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Who reads which pages of our volumes, and how long FUSE requests take.
 *
 * The kernel checks the arguments of tp_btf programs when it loads them, and they read through pointers at full speed.
 * Where it refuses one, user space loads its stand-in: a raw tracepoint that reads the same members by copying, or, for
 * FUSE requests, whose structures differ between kernels, the plain tracepoint, which knows neither file nor range.
 *
 * Files of no volume leave after one look into an array.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "fuse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline int access(struct address_space *mapping, __u32 kind, __u64 first, __u64 last)
{
	struct inode *inode = mapping->host;
	struct access a = { .dev = inode->i_sb->s_dev, .kind = kind, .first = first, .last = last };

	if (!device_wanted(a.dev))
		return 0;
	a.ino = inode->i_ino;
	a.size = inode->i_size;
	return task_access(&a);
}

static __always_inline int access_copied(struct address_space *mapping, __u32 kind, __u64 first, __u64 last)
{
	struct inode *inode = BPF_CORE_READ(mapping, host);
	struct access a = { .dev = BPF_CORE_READ(inode, i_sb, s_dev), .kind = kind, .first = first, .last = last };

	if (!device_wanted(a.dev))
		return 0;
	a.ino = BPF_CORE_READ(inode, i_ino);
	a.size = BPF_CORE_READ(inode, i_size);
	return task_access(&a);
}

/* Every buffered read, after its pages are there. */
SEC("tp_btf/mm_filemap_get_pages")
int BPF_PROG(penstock_read, struct address_space *mapping, unsigned long first, unsigned long last)
{
	return access(mapping, TRACE_READ, first, last);
}

/* A page that no mapping shows yet, before it is looked for. */
SEC("tp_btf/mm_filemap_fault")
int BPF_PROG(penstock_fault, struct address_space *mapping, unsigned long page)
{
	return access(mapping, TRACE_FAULT, page, page);
}

/* Present pages around a fault, after they were mapped. */
SEC("tp_btf/mm_filemap_map_pages")
int BPF_PROG(penstock_map, struct address_space *mapping, unsigned long first, unsigned long last)
{
	return access(mapping, TRACE_MAP, first, last);
}

SEC("raw_tp/mm_filemap_get_pages")
int BPF_PROG(penstock_rread, struct address_space *mapping, unsigned long first, unsigned long last)
{
	return access_copied(mapping, TRACE_READ, first, last);
}

SEC("raw_tp/mm_filemap_fault")
int BPF_PROG(penstock_rfault, struct address_space *mapping, unsigned long page)
{
	return access_copied(mapping, TRACE_FAULT, page, page);
}

SEC("raw_tp/mm_filemap_map_pages")
int BPF_PROG(penstock_rmap, struct address_space *mapping, unsigned long first, unsigned long last)
{
	return access_copied(mapping, TRACE_MAP, first, last);
}

/* The first argument of a READ, as in the user-space API of FUSE. */
struct read_in {
	__u64 fh;
	__u64 offset;
	__u32 size;
	__u32 read_flags;
};

SEC("tp_btf/fuse_request_send")
int BPF_PROG(penstock_send, struct fuse_req *req)
{
	struct flight_key key = { .dev = req->fm->sb->s_dev };
	struct flight f = { .opcode = req->in.h.opcode };
	struct read_in in;

	if (!device_wanted(key.dev))
		return 0;
	key.unique = req->in.h.unique;
	if (f.opcode == FUSE_READ && bpf_probe_read_kernel(&in, sizeof(in), req->args->in_args[0].value) == 0) {
		f.nodeid = req->in.h.nodeid;
		f.offset = in.offset;
		f.len = in.size;
	}
	return request_send(&key, &f);
}

SEC("tp_btf/fuse_request_end")
int BPF_PROG(penstock_end, struct fuse_req *req)
{
	struct flight_key key = { .dev = req->fm->sb->s_dev };

	if (!device_wanted(key.dev))
		return 0;
	key.unique = req->in.h.unique;
	return request_end(&key, req->out.h.error != 0);
}

SEC("tp/fuse/fuse_request_send")
int penstock_tsend(struct trace_event_raw_fuse_request_send *ctx)
{
	struct flight_key key = { .dev = ctx->connection, .unique = ctx->unique };
	struct flight f = { .opcode = ctx->opcode };

	return device_wanted(key.dev) ? request_send(&key, &f) : 0;
}

SEC("tp/fuse/fuse_request_end")
int penstock_tend(struct trace_event_raw_fuse_request_end *ctx)
{
	struct flight_key key = { .dev = ctx->connection, .unique = ctx->unique };

	return device_wanted(key.dev) ? request_end(&key, ctx->error != 0) : 0;
}

/* A thread ends: what it accessed last must not be lost. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(penstock_exit, struct task_struct *task)
{
	return task_end(task);
}

/* Hands on what all threads hold, whenever someone reads the iterator. */
SEC("iter/task")
int penstock_flush(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	return task ? task_settle(task) : 0;
}
