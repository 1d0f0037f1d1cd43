/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What a thread accesses, merged in its task storage and handed on in batches.
 *
 * Adjacent accesses of one kind become one range; ranges and counters of one file are kept until there is a reason to
 * hand them on: another file, a full batch, 1 MiB, 5 ms, a READ that was waited for, a pause before this access, a
 * reader that rests, the thread's end, or the flush iterator. So a hot 4 KiB read costs a few stores most of the time.
 *
 * Did an access wait for a READ? Reads are seen after they waited, faults before. A thread that has not slept since its
 * last access (nvcsw) did not wait. One that has, did, if the READ of these pages ended since then and just now.
 */
#ifndef PENSTOCK_BPF_TASK_H
#define PENSTOCK_BPF_TASK_H

#include "maps.h"

#define PAGE_SHIFT 12
#define PAGE_BYTES (1ull << PAGE_SHIFT)
/* The kernel takes at most this many pages at once and waits for the last of them only. */
#define BATCH_PAGES 31
#define BATCH_BYTES (BATCH_PAGES * PAGE_BYTES)
#define NO_PAGE (-1ull)

#define RANGE_BYTES_MAX (64ull << 20)
#define PENDING_BYTES (1ull << 20)
#define PENDING_NS 5000000ull
#define PAUSE_NS 20000000ull
/* A thread runs again this long after the end of its READ, at most. */
#define WAKE_NS 10000000ull
/* Readers are woken no more often, unless their ring buffer fills: they look again by themselves after 10 ms. */
#define NOTIFY_NS 8000000ull

struct access {
	__u32 dev;
	__u32 kind;
	__u64 ino;
	__u64 size;  /* of the file */
	__u64 first; /* pages, both included */
	__u64 last;
};

static __always_inline void counts_add(struct trace_counts *to, const struct trace_counts *add)
{
	if (add->bytes)
		__sync_fetch_and_add(&to->bytes, add->bytes);
	if (add->map_bytes)
		__sync_fetch_and_add(&to->map_bytes, add->map_bytes);
	if (add->hits)
		__sync_fetch_and_add(&to->hits, add->hits);
	if (add->misses)
		__sync_fetch_and_add(&to->misses, add->misses);
	if (add->faults)
		__sync_fetch_and_add(&to->faults, add->faults);
	if (add->stall_ns)
		__sync_fetch_and_add(&to->stall_ns, add->stall_ns);
	if (add->requests)
		__sync_fetch_and_add(&to->requests, add->requests);
	if (add->request_bytes)
		__sync_fetch_and_add(&to->request_bytes, add->request_bytes);
	if (to->last_ns < add->last_ns)
		to->last_ns = add->last_ns;
}

static __noinline int counts_flush(__u32 dev, __u64 ino, __u64 cgroup, const struct trace_counts *add)
{
	struct trace_file_key file = { .dev = dev, .ino = ino };
	struct trace_cgroup_key group = { .dev = dev, .cgroup = cgroup };
	struct trace_counts *to;

	if (!add)
		return 0;
	to = bpf_map_lookup_elem(&penstock_files, &file);
	if (to)
		counts_add(to, add);
	else
		bpf_map_update_elem(&penstock_files, &file, add, BPF_NOEXIST);
	to = bpf_map_lookup_elem(&penstock_cgroup, &group);
	if (to)
		counts_add(to, add);
	else
		bpf_map_update_elem(&penstock_cgroup, &group, add, BPF_NOEXIST);
	return 0;
}

static __always_inline void event_emit(struct trace_event *event, __u32 index)
{
	struct trace_drops *drops = bpf_map_lookup_elem(&penstock_drops, &index);
	void *ring = bpf_map_lookup_elem(&penstock_rings, &index);
	__u64 bytes, now = bpf_ktime_get_ns(), flags = BPF_RB_NO_WAKEUP;
	__u32 nr = event->nr;

	if (!drops || nr == 0 || nr > TRACE_RANGES_MAX)
		return;
	bytes = sizeof(*event) - (TRACE_RANGES_MAX - nr) * sizeof(event->range[0]);
	if (ring && (now - drops->wake_ns > NOTIFY_NS ||
		     bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) / 4)) {
		drops->wake_ns = now;
		flags = BPF_RB_FORCE_WAKEUP;
	}
	event->dropped = drops->dropped;
	if (ring && bpf_ringbuf_output(ring, event, bytes, flags) == 0)
		__sync_fetch_and_add(&drops->events, nr);
	else
		__sync_fetch_and_add(&drops->dropped, nr);
}

/* An access that cannot be noted is not hidden either. */
static __noinline int access_lost(__u32 dev)
{
	struct trace_volume *volume = bpf_map_lookup_elem(&penstock_volume, &dev);
	struct trace_drops *drops;
	__u32 index;

	if (!volume)
		return 0;
	index = volume->index;
	drops = bpf_map_lookup_elem(&penstock_drops, &index);
	if (drops)
		__sync_fetch_and_add(&drops->dropped, 1);
	return 0;
}

/* Hands on what the task holds; the caller holds <busy>. A volume that has gone meanwhile takes it with it. */
static __noinline int task_flush(struct task *t)
{
	struct trace_volume *volume;
	__u32 dev;

	if (!t)
		return 0;
	dev = t->event.dev;
	volume = bpf_map_lookup_elem(&penstock_volume, &dev);
	if (volume && (t->event.nr || t->add.last_ns)) {
		counts_flush(dev, t->event.ino, t->event.cgroup, &t->add);
		if (volume->record)
			event_emit(&t->event, volume->index);
	}
	t->event.nr = 0;
	t->settled = 0;
	t->pending_bytes = 0;
	__builtin_memset(&t->add, 0, sizeof(t->add));
	return 0;
}

/* When the READ of this page kept the task waiting until now: for how long. */
static __always_inline __u64 block_stall_ns(const struct task *t, __u32 dev, __u64 ino, __u64 page, __u64 now)
{
	struct block_key key = { .dev = dev, .block = page >> (BLOCK_SHIFT - PAGE_SHIFT), .ino = ino };
	__u64 offset = page << PAGE_SHIFT, from;
	struct block *b = bpf_map_lookup_elem(&penstock_blocks, &key);

	if (!b || offset < b->offset || offset >= b->end || b->end_ns <= t->ns || now - b->end_ns > WAKE_NS)
		return 0;
	from = b->send_ns > t->ns ? b->send_ns : t->ns;
	return b->end_ns > from ? b->end_ns - from : 1;
}

static __noinline __u64 stall_ns(struct task *t, const struct access *a, __u64 now)
{
	__u64 end, first_ns, end_ns;

	if (!t || !a)
		return 0;
	end = a->last - a->first < BATCH_PAGES ? a->last : a->first + BATCH_PAGES - 1;
	first_ns = block_stall_ns(t, a->dev, a->ino, a->first, now);
	end_ns = block_stall_ns(t, a->dev, a->ino, end, now);
	if (first_ns < end_ns)
		first_ns = end_ns;
	/* Where requests cannot be looked into, or small READs share a block, its own READ is the measure. */
	if (first_ns == 0 && t->sent_ns)
		return now - t->sent_ns;
	return first_ns;
}

/* The end of the last fault, whose thread is back after waiting <ns>. */
static __always_inline void fault_close(struct task *t, __u64 ns)
{
	__u32 i = t->event.nr - 1;

	t->fault_open = 0;
	if (ns == 0) {
		t->add.hits++;
		return;
	}
	t->add.misses++;
	t->add.stall_ns += ns;
	if (i < TRACE_RANGES_MAX && t->event.range[i].kind == TRACE_FAULT)
		t->event.range[i].flags |= TRACE_MISS;
}

/* A range, merged with the one before it where they touch. */
static __always_inline void range_add(struct task *t, __u32 kind, __u64 offset, __u64 len, __u8 flags, __u64 now)
{
	__u32 i = t->event.nr - 1;
	struct trace_range *r;

	t->pending_bytes += len;
	if (i < TRACE_RANGES_MAX) {
		r = &t->event.range[i];
		if (r->kind == kind && r->flags == flags && kind != TRACE_FAULT && offset >= r->offset &&
		    offset <= r->offset + r->len && offset + len - r->offset <= RANGE_BYTES_MAX) {
			if (offset + len > r->offset + r->len)
				r->len = offset + len - r->offset;
			return;
		}
	}
	i++;
	if (i >= TRACE_RANGES_MAX) {
		task_flush(t);
		i = 0;
	}
	r = &t->event.range[i];
	r->offset = offset;
	r->ns = now;
	r->len = len > 0xffffffff ? 0xffffffff : len;
	r->kind = kind;
	r->flags = flags;
	t->event.nr = i + 1;
}

/*
 * The thread itself locks without atomics, which would cost it more than all the rest: the iterator takes only the
 * state of threads that do not run, and a thread's way back to a CPU goes through full barriers.
 */
static __always_inline bool task_lock(struct task *t)
{
	*(volatile __u32 *)&t->busy = 1;
	if (!*(volatile __u32 *)&t->taken)
		return true;
	*(volatile __u32 *)&t->busy = 0;
	return false;
}

static __always_inline void task_unlock(struct task *t)
{
	barrier();
	*(volatile __u32 *)&t->busy = 0;
}

/* For the iterator: false when the thread runs, or was interrupted amid an access. */
static __always_inline bool task_take(struct task *t, struct task_struct *task)
{
	if (__sync_lock_test_and_set(&t->taken, 1))
		return false;
	if (!*(volatile int *)&task->on_cpu && !*(volatile __u32 *)&t->busy)
		return true;
	__sync_lock_test_and_set(&t->taken, 0);
	return false;
}

/*
 * One read(2) shows up once for each batch of pages that it takes, with the same end. It is counted once, and told as
 * far as it got: a batch ends where the next one starts, at the latest.
 */
static __always_inline void read_add(struct task *t, const struct access *a, __u64 now, bool slept)
{
	__u64 offset = a->first << PAGE_SHIFT, end = (a->last + 1) << PAGE_SHIFT, stop = offset + BATCH_BYTES;
	bool more = a->last == t->last_page && a->first > t->first_page;
	__u64 ns = slept ? stall_ns(t, a, now) : 0;

	if (end > a->size)
		end = a->size;
	if (!more) {
		t->told = offset;
		t->end = end;
		t->last_page = a->last;
		t->missed = 0;
		t->add.hits++;
		t->add.bytes += end - offset;
	}
	t->first_page = a->first;
	if (ns) {
		t->add.stall_ns += ns;
		if (!t->missed) {
			t->missed = 1;
			t->add.hits--;
			t->add.misses++;
		}
	}
	if (stop > end)
		stop = end;
	if (stop > t->told) {
		range_add(t, TRACE_READ, t->told, stop - t->told, ns ? TRACE_MISS : 0, now);
		t->told = stop;
	}
}

/* Folios may be larger than pages: then the last batch was more than it seemed. */
static __always_inline void read_close(struct task *t, __u64 now)
{
	if (t->told < t->end)
		range_add(t, TRACE_READ, t->told, t->end - t->told, 0, now);
	t->told = t->end = 0;
	t->last_page = NO_PAGE;
}

static __always_inline void map_add(struct task *t, const struct access *a, __u64 now)
{
	__u64 offset = a->first << PAGE_SHIFT, len = ((a->last + 1) << PAGE_SHIFT) - offset, bytes;

	if (len > a->size - offset)
		len = a->size - offset;
	bytes = len;
	if (a->kind == TRACE_FAULT) {
		t->add.faults++;
		t->fault_open = 1;
		t->fault_page = a->first;
	} else if (t->fault_page >= a->first && t->fault_page <= a->last) {
		/* The fault before this has counted its page, and the access. */
		bytes = len > PAGE_BYTES ? len - PAGE_BYTES : 0;
		t->fault_page = NO_PAGE;
	} else {
		t->add.hits++;
	}
	t->add.bytes += bytes;
	t->add.map_bytes += bytes;
	range_add(t, a->kind, offset, len, 0, now);
}

/* Ends what came before this access. False: it is known that the thread has not waited since. */
static __always_inline bool task_turn(struct task *t, const struct access *a, __u64 now, bool slept)
{
	bool other = t->event.dev != a->dev || t->event.ino != a->ino;

	if (t->fault_open) {
		struct access fault = { .dev = t->event.dev, .ino = t->event.ino };

		fault.first = fault.last = t->fault_page;
		fault_close(t, slept ? stall_ns(t, &fault, now) : 0);
		slept = false;
	}
	if (other || a->kind != TRACE_READ || a->last != t->last_page || a->first <= t->first_page)
		read_close(t, now);
	if (other) {
		task_flush(t);
		t->event.version = TRACE_VERSION;
		t->event.dev = a->dev;
		t->event.ino = a->ino;
		t->fault_page = NO_PAGE;
	}
	if (t->event.nr == 0) {
		__u64 id = bpf_get_current_pid_tgid();

		t->event.cgroup = bpf_get_current_cgroup_id();
		t->event.pid = id >> 32;
		t->event.tid = id;
	}
	return slept;
}

/* The time, of which one look a tick is enough where nothing is measured: it costs as much as all the rest. */
static __always_inline __u64 task_clock(struct task *t, bool precise)
{
	__u64 tick = bpf_jiffies64();

	if (precise || tick != t->tick) {
		t->tick = tick;
		t->tick_ns = bpf_ktime_get_ns();
	}
	return t->tick_ns;
}

static __noinline int task_access(const struct access *a)
{
	struct task_struct *me = bpf_get_current_task_btf();
	__u64 now, before, stall, nvcsw = me->nvcsw;
	struct task *t;
	bool slept;

	if (!a)
		return 0;
	t = bpf_task_storage_get(&penstock_tasks, me, NULL, 0);
	if (!t || t->event.dev != a->dev) {
		__u32 dev = a->dev;

		if (!bpf_map_lookup_elem(&penstock_volume, &dev))
			return 0;
		if (!t)
			t = bpf_task_storage_get(&penstock_tasks, me, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (!t)
			return access_lost(dev);
	}
	if (a->last < a->first || a->first << PAGE_SHIFT >= a->size)
		return 0;
	if (!task_lock(t))
		return access_lost(a->dev);

	before = t->ns;
	stall = t->add.stall_ns;
	slept = before && nvcsw != t->nvcsw;
	now = task_clock(t, slept || a->kind == TRACE_FAULT);
	slept = task_turn(t, a, now, slept);
	if (a->kind == TRACE_READ)
		read_add(t, a, now, slept);
	else
		map_add(t, a, now);
	t->add.last_ns = t->ns = now;
	t->nvcsw = nvcsw;
	t->sent_ns = 0;
	/* A fault is not told before it is known how it ended. */
	if (!t->fault_open && (t->add.stall_ns != stall || t->pending_bytes >= PENDING_BYTES || t->settled ||
			       now - before > PAUSE_NS || now - t->event.range[0].ns > PENDING_NS))
		task_flush(t);
	task_unlock(t);
	return 0;
}

/* The thread ends. */
static __always_inline int task_end(struct task_struct *task)
{
	struct task *t = bpf_task_storage_get(&penstock_tasks, task, NULL, 0);

	if (!t || !task_lock(t))
		return 0;
	read_close(t, bpf_ktime_get_ns());
	task_flush(t);
	task_unlock(t);
	return 0;
}

/* Hands on what a thread holds, all but a fault that it is still in. One that runs does so at its next access. */
static __always_inline int task_settle(struct task_struct *task)
{
	struct task *t = bpf_task_storage_get(&penstock_tasks, task, NULL, 0);
	struct trace_range open;
	__u32 i;

	if (!t)
		return 0;
	t->settled = 1;
	if (!task_take(t, task))
		return 0;
	i = t->event.nr - 1;
	if (t->fault_open && i < TRACE_RANGES_MAX && t->event.range[i].kind == TRACE_FAULT) {
		open = t->event.range[i];
		t->event.nr = i;
		task_flush(t);
		t->event.range[0] = open;
		t->event.nr = 1;
	} else {
		task_flush(t);
	}
	t->settled = 1;
	__sync_lock_test_and_set(&t->taken, 0);
	return 0;
}

#endif
