/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How FUSE requests come and replies go: FUSE-over-io_uring, or /dev/fuse with threads.
 *
 * Threads: start and stop by the daemon's main thread.
 */
#ifndef PENSTOCK_TRANSPORT_TRANSPORT_H
#define PENSTOCK_TRANSPORT_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "fs/fs.h"

enum transport_kind { TRANSPORT_KIND_DEV = 0, TRANSPORT_KIND_IO_URING };

struct transport;

struct transport_config {
	struct fs *fs;
	int fuse_fd; /* borrowed, mounted already: INIT is waiting on it */
	bool try_io_uring;
	const char *why_not;   /* without <try_io_uring>: what transport_why() says then; NULL = not asked for */
	uint64_t memory_bytes; /* most that the entries' buffers may take */
	int end_fd;            /* eventfd, written when the kernel ends the connection */
};

/*
 * Answers INIT and starts serving. Without io_uring in the kernel's offer, or without memory for it, /dev/fuse is
 * used; transport_why() says why. -ENOTRECOVERABLE: io_uring was agreed on and a queue could not be set up: this
 * mount would hang, unmount it and mount again without <try_io_uring>.
 */
int transport_start(const struct transport_config *cfg, struct transport **ret, struct err *e);
/* After the mount is gone or given up; returns NULL. */
struct transport *transport_stop(struct transport *t);

enum transport_kind transport_kind(const struct transport *t);
/* "4 rings on 2 queues, depth 8, 1024 KiB requests", or why it is not io_uring. */
const char *transport_why(const struct transport *t);

struct transport_stats {
	uint64_t requests_io_uring, requests_dev;
	uint64_t buffer_bytes;
	unsigned queue_depth;
};
void transport_stats(const struct transport *t, struct transport_stats *ret);

#endif
