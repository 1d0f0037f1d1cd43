/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One io_uring with one owner thread, and an inbox through which other threads hand it work.
 *
 * Threads: ring_post() from any thread; everything else by the thread that runs ring_run(), or before it starts.
 */
#ifndef PENSTOCK_RING_RING_H
#define PENSTOCK_RING_RING_H

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/list.h"

struct ring_ops {
	/* A completion of a submission that carried <user_data> (never 0). */
	void (*complete)(void *ctx, void *user_data, int res);
	/* Something posted to the inbox. */
	void (*receive)(void *ctx, struct list *item);
};

struct ring {
	struct io_uring uring;
	const struct ring_ops *ops;
	void *ctx;
	int wake_fd;
	uint64_t wake_count;
	bool wake_armed;
	pthread_mutex_t inbox_lock;
	struct list inbox; /* guard: inbox_lock */
	atomic_bool asleep, stopping;
};

/* <big_sqe>: 128-byte entries, as FUSE wants. -errno of io_uring_setup. */
int ring_init(struct ring *r, unsigned nr_entries, bool big_sqe, const struct ring_ops *ops, void *ctx);
void ring_done(struct ring *r);

/* The next submission entry, zeroed; submits the full queue first where it must. NULL when the kernel takes none. */
struct io_uring_sqe *ring_sqe(struct ring *r);
/* Now, instead of at the next turn of the loop. Returns what io_uring_submit returns. */
int ring_submit(struct ring *r);

void ring_post(struct ring *r, struct list *item);
/* Until ring_stop(); what is in the inbox then is still received. */
void ring_run(struct ring *r);
void ring_stop(struct ring *r);

#endif
