// SPDX-License-Identifier: Apache-2.0
/*
 * Ring buffer to accesses.
 *
 * Design: the programs wake the reader at most every 8 ms, so after each wake-up it looks again every 10 ms until it
 * finds nothing and the threads, asked to hand on what they hold, have nothing either. Then it sleeps until the next
 * wake-up. That one is certain: the first access of each thread after the flush is handed on at once.
 * Threads: start and stop from one thread; the counters are atomic.
 */
#define _GNU_SOURCE
#include "trace/reader.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <bpf/libbpf.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "trace/util.h"

#define BUSY_POLL_MS 10

struct trace_reader {
	struct trace_reader_config c;
	struct ring_buffer *ring;
	int stop_fd;
	pthread_t thread;
	atomic_uint_fast64_t accesses;
	atomic_uint_fast64_t dropped;
	atomic_uint_fast64_t unknown;
};

static int record_take(void *ctx, void *data, size_t bytes)
{
	const struct trace_event *event = data;
	struct trace_reader *r = ctx;
	size_t head = offsetof(struct trace_event, range);
	struct trace_access a;

	if (bytes < head || event->version != TRACE_VERSION || event->nr > TRACE_RANGES_MAX ||
	    bytes < head + event->nr * sizeof(event->range[0])) {
		atomic_fetch_add(&r->unknown, 1);
		return 0;
	}
	a = (struct trace_access){ .dev = event->dev,
				   .ino = event->ino,
				   .cgroup = event->cgroup,
				   .pid = (pid_t)event->pid,
				   .tid = (pid_t)event->tid };
	for (uint32_t i = 0; i < event->nr; i++) {
		a.kind = event->range[i].kind;
		a.miss = event->range[i].flags & TRACE_MISS;
		a.offset = event->range[i].offset;
		a.len_bytes = event->range[i].len;
		a.ns = event->range[i].ns;
		r->c.access(r->c.ctx, &a);
	}
	atomic_fetch_add(&r->accesses, event->nr);
	atomic_store(&r->dropped, event->dropped);
	return 0;
}

static void *reader_main(void *arg)
{
	struct trace_reader *r = arg;
	/* The ring buffer itself: unlike libbpf's epoll it also tells of records that woke nobody. */
	struct pollfd fds[] = { { .fd = r->c.ring_fd, .events = POLLIN }, { .fd = r->stop_fd, .events = POLLIN } };
	bool busy = false;

	while (!(fds[1].revents & POLLIN)) {
		if (poll(fds, array_len(fds), busy ? BUSY_POLL_MS : -1) < 0 && errno != EINTR) {
			log_error("trace", "the reader of the ring buffer ends: %s", strerror(errno));
			return NULL;
		}
		if (ring_buffer__consume(r->ring) > 0) {
			busy = true;
		} else if (busy) {
			if (r->c.flush_fd >= 0)
				(void)util_flush(r->c.flush_fd);
			busy = ring_buffer__consume(r->ring) > 0;
		}
	}
	if (r->c.flush_fd >= 0)
		(void)util_flush(r->c.flush_fd);
	ring_buffer__consume(r->ring);
	return NULL;
}

int trace_reader_start(const struct trace_reader_config *c, struct trace_reader **ret, struct err *e)
{
	struct trace_reader *r = calloc(1, sizeof(*r));
	int rc = -ENOMEM;

	if (!r)
		return err_set(e, rc, "no memory for the tracer's reader");
	r->c = *c;
	util_libbpf_log();
	r->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (r->stop_fd < 0) {
		rc = -errno;
		goto fail;
	}
	r->ring = ring_buffer__new(c->ring_fd, record_take, r, NULL);
	if (!r->ring) {
		rc = -errno;
		goto fail_fd;
	}
	rc = -pthread_create(&r->thread, NULL, reader_main, r);
	if (rc < 0)
		goto fail_ring;
	(void)pthread_setname_np(r->thread, "trace");
	*ret = r;
	return 0;
fail_ring:
	ring_buffer__free(r->ring);
fail_fd:
	close(r->stop_fd);
fail:
	free(r);
	return err_set(e, rc, "cannot read the tracer's ring buffer: %s", strerror(-rc));
}

void trace_reader_stop(struct trace_reader *r)
{
	if (!r)
		return;
	(void)eventfd_write(r->stop_fd, 1);
	pthread_join(r->thread, NULL);
	ring_buffer__free(r->ring);
	close(r->stop_fd);
	free(r);
}

void trace_reader_stats_get(struct trace_reader *r, struct trace_reader_stats *ret)
{
	ret->accesses = atomic_load(&r->accesses);
	ret->dropped = atomic_load(&r->dropped);
	ret->unknown = atomic_load(&r->unknown);
}
