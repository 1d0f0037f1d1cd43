/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* FUSE requests from send to end: latency by opcode, and which READ brought which block when. */
#ifndef PENSTOCK_BPF_FUSE_H
#define PENSTOCK_BPF_FUSE_H

#include "task.h"

/* The largest READ that is followed block by block. */
#define BLOCKS_MAX 33

/* Notes a request that <me> sends; its task may be about to wait for it. */
static __always_inline int request_send(const struct flight_key *key, struct flight *f)
{
	struct task_struct *me = bpf_get_current_task_btf();
	__u32 dev = key->dev;
	struct task *t;

	if (!bpf_map_lookup_elem(&penstock_volume, &dev))
		return 0;
	f->send_ns = bpf_ktime_get_ns();
	f->cgroup = bpf_get_current_cgroup_id();
	bpf_map_update_elem(&penstock_flight, key, f, BPF_ANY);
	if (f->opcode != FUSE_READ)
		return 0;
	t = bpf_task_storage_get(&penstock_tasks, me, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!t)
		return 0;
	if (t->ns == 0) {
		t->ns = f->send_ns;
		t->nvcsw = me->nvcsw;
	}
	if (t->sent_ns == 0)
		t->sent_ns = f->send_ns;
	return 0;
}

/* Out of line, as the one after it: the stack of a program has 512 bytes. */
static __noinline int latency_add(__u32 dev, __u32 opcode, __u64 ns, bool failed)
{
	struct trace_latency_key key = { .dev = dev, .opcode = opcode };
	struct trace_latency *l = bpf_map_lookup_elem(&penstock_lat, &key);
	__u64 us = ns / 1000;
	__u32 bucket = 0;

	if (!l) {
		struct trace_latency none = {};

		bpf_map_update_elem(&penstock_lat, &key, &none, BPF_NOEXIST);
		l = bpf_map_lookup_elem(&penstock_lat, &key);
		if (!l)
			return 0;
	}
	for (int i = 1; i < TRACE_BUCKETS; i++)
		bucket += us >> i != 0;
	__sync_fetch_and_add(&l->count, 1);
	__sync_fetch_and_add(&l->sum_ns, ns);
	if (failed)
		__sync_fetch_and_add(&l->errors, 1);
	if (l->max_ns < ns)
		l->max_ns = ns;
	if (bucket < TRACE_BUCKETS)
		__sync_fetch_and_add(&l->bucket[bucket], 1);
	return 0;
}

/* The pages of a READ are unlocked after this, so whoever waits for them finds it. */
static __noinline int read_end(__u32 dev, const struct flight *f, __u64 now)
{
	struct trace_counts add = { .requests = 1, .request_bytes = f->len };
	struct block_key key = { .dev = dev, .block = f->offset >> BLOCK_SHIFT, .ino = f->nodeid };
	struct block b = { .send_ns = f->send_ns, .end_ns = now, .offset = f->offset, .end = f->offset + f->len };

	for (int i = 0; i < BLOCKS_MAX; i++) {
		if (((__u64)key.block << BLOCK_SHIFT) >= b.end)
			break;
		bpf_map_update_elem(&penstock_blocks, &key, &b, BPF_ANY);
		key.block++;
	}
	return counts_flush(dev, f->nodeid, f->cgroup, &add);
}

static __always_inline int request_end(const struct flight_key *key, bool failed)
{
	struct flight *found = bpf_map_lookup_elem(&penstock_flight, key);
	__u64 now = bpf_ktime_get_ns();
	struct flight f;

	if (!found)
		return 0;
	f = *found;
	bpf_map_delete_elem(&penstock_flight, key);
	latency_add(key->dev, f.opcode, now - f.send_ns, failed);
	if (f.opcode == FUSE_READ && f.nodeid)
		read_end(key->dev, &f, now);
	return 0;
}

#endif
