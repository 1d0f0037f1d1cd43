/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel's own types, as far as the programs of bpf/ look into them.
 *
 * Origin: names and members as in the BTF of Linux 6.18 (bpftool btf dump file /sys/kernel/btf/vmlinux format c),
 * cut down by hand to the members that are used. Layouts mean nothing here: every access is relocated to the running
 * kernel's BTF when a program is loaded (CO-RE), and a member that this kernel lacks makes it refuse the program.
 */
#ifndef PENSTOCK_VMLINUX_H
#define PENSTOCK_VMLINUX_H

/* Types and constants of the user-space API: __u32, BPF_MAP_TYPE_..., BPF_ANY. */
#include <linux/bpf.h>

typedef __u8 bool;
typedef __u32 dev_t;
#define true 1
#define false 0

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block {
	dev_t s_dev;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	long long i_size;
};

struct address_space {
	struct inode *host;
};

struct task_struct {
	int on_cpu;
	unsigned long nvcsw;
};

struct fuse_in_header {
	__u32 opcode;
	__u64 unique;
	__u64 nodeid;
};

struct fuse_out_header {
	__s32 error;
};

struct fuse_in_arg {
	unsigned int size;
	const void *value;
};

struct fuse_args {
	struct fuse_in_arg in_args[4];
};

struct fuse_mount {
	struct super_block *sb;
};

struct fuse_req {
	struct fuse_args *args;
	struct {
		struct fuse_in_header h;
	} in;
	struct {
		struct fuse_out_header h;
	} out;
	struct fuse_mount *fm;
};

struct trace_entry {
	unsigned short type;
};

enum fuse_opcode { FUSE_READ = 15 };

struct trace_event_raw_fuse_request_send {
	struct trace_entry ent;
	dev_t connection;
	__u64 unique;
	enum fuse_opcode opcode;
	__u32 len;
};

struct trace_event_raw_fuse_request_end {
	struct trace_entry ent;
	dev_t connection;
	__u64 unique;
	__u32 len;
	__s32 error;
};

struct bpf_iter_meta {
	void *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

#endif
