// SPDX-License-Identifier: Apache-2.0
/*
 * The io_uring loop: submit what was prepared, wait, complete, receive.
 *
 * Design: an eventfd read is always pending on the ring, so that a post wakes the one wait there is. A post to a
 * ring that is awake costs no system call.
 */
#define _GNU_SOURCE
#include "ring/ring.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define CQ_FACTOR 2

int ring_init(struct ring *r, unsigned nr_entries, bool big_sqe, const struct ring_ops *ops, void *ctx)
{
	unsigned base = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | (big_sqe ? IORING_SETUP_SQE128 : 0u);
	struct io_uring_params p = { .flags = base | IORING_SETUP_COOP_TASKRUN, .cq_entries = nr_entries * CQ_FACTOR };
	int rc;

	memset(r, 0, sizeof(*r));
	r->ops = ops;
	r->ctx = ctx;
	list_init(&r->inbox);
	r->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (r->wake_fd < 0)
		return -errno;
	rc = io_uring_queue_init_params(nr_entries, &r->uring, &p);
	if (rc == -EINVAL) {
		p = (struct io_uring_params){ .flags = base, .cq_entries = nr_entries * CQ_FACTOR };
		rc = io_uring_queue_init_params(nr_entries, &r->uring, &p);
	}
	if (rc < 0) {
		close(r->wake_fd);
		return rc;
	}
	pthread_mutex_init(&r->inbox_lock, NULL);
	return 0;
}

void ring_done(struct ring *r)
{
	io_uring_queue_exit(&r->uring);
	close(r->wake_fd);
	pthread_mutex_destroy(&r->inbox_lock);
}

struct io_uring_sqe *ring_sqe(struct ring *r)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&r->uring);

	if (!sqe) {
		io_uring_submit(&r->uring);
		sqe = io_uring_get_sqe(&r->uring);
	}
	if (sqe)
		memset(sqe, 0, r->uring.flags & IORING_SETUP_SQE128 ? 2 * sizeof(*sqe) : sizeof(*sqe));
	return sqe;
}

int ring_submit(struct ring *r)
{
	return io_uring_submit(&r->uring);
}

static void ring_wake(struct ring *r)
{
	uint64_t one = 1;

	if (atomic_exchange(&r->asleep, false) && write(r->wake_fd, &one, sizeof(one)) < 0) {
		/* The counter is full: the read on it is due. */
	}
}

void ring_post(struct ring *r, struct list *item)
{
	pthread_mutex_lock(&r->inbox_lock);
	list_push_back(&r->inbox, item);
	pthread_mutex_unlock(&r->inbox_lock);
	ring_wake(r);
}

static void ring_arm_wake(struct ring *r)
{
	struct io_uring_sqe *sqe;

	if (r->wake_armed)
		return;
	sqe = ring_sqe(r);
	if (!sqe)
		return;
	io_uring_prep_read(sqe, r->wake_fd, &r->wake_count, sizeof(r->wake_count), 0);
	io_uring_sqe_set_data(sqe, &r->wake_count);
	r->wake_armed = true;
}

static void ring_receive(struct ring *r)
{
	struct list items;
	struct list *n;

	list_init(&items);
	pthread_mutex_lock(&r->inbox_lock);
	list_splice_back(&items, &r->inbox);
	pthread_mutex_unlock(&r->inbox_lock);
	while ((n = list_pop_front(&items)))
		r->ops->receive(r->ctx, n);
}

static bool ring_inbox_empty(struct ring *r)
{
	bool empty;

	pthread_mutex_lock(&r->inbox_lock);
	empty = list_empty(&r->inbox);
	pthread_mutex_unlock(&r->inbox_lock);
	return empty;
}

static unsigned ring_complete(struct ring *r)
{
	unsigned n = io_uring_cq_ready(&r->uring);
	struct io_uring_cqe *cqe;

	/* Each one's place is given back before its owner submits more: no completion is then without a place. */
	for (unsigned i = 0; i < n && io_uring_peek_cqe(&r->uring, &cqe) == 0; i++) {
		void *data = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&r->uring, cqe);
		if (data == &r->wake_count)
			r->wake_armed = false;
		else if (data)
			r->ops->complete(r->ctx, data, res);
	}
	return n;
}

void ring_run(struct ring *r)
{
	unsigned n = 0;

	while (!atomic_load(&r->stopping)) {
		ring_arm_wake(r);
		/*
		 * Those who were just answered run first, and most come back at once: cheaper than to sleep and be
		 * woken.
		 */
		if (n) {
			io_uring_submit(&r->uring);
			sched_yield();
			io_uring_get_events(&r->uring);
			n = ring_complete(r);
			ring_receive(r);
			if (n)
				continue;
		}
		/* Asleep first, then a last look: a post in between either is seen here or writes the eventfd. */
		atomic_store(&r->asleep, true);
		if (ring_inbox_empty(r) && !atomic_load(&r->stopping))
			io_uring_submit_and_wait(&r->uring, 1);
		else
			io_uring_submit(&r->uring);
		atomic_store(&r->asleep, false);
		n = ring_complete(r);
		ring_receive(r);
	}
	ring_receive(r);
	/* The last replies, too. */
	io_uring_submit(&r->uring);
}

void ring_stop(struct ring *r)
{
	uint64_t one = 1;

	atomic_store(&r->stopping, true);
	if (write(r->wake_fd, &one, sizeof(one)) < 0) {
		/* As above. */
	}
}
