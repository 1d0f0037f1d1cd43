/* SPDX-License-Identifier: Apache-2.0 */
/* What the transport's own files share. */
#ifndef PENSTOCK_TRANSPORT_TRANSPORT_I_H
#define PENSTOCK_TRANSPORT_TRANSPORT_I_H

#include <pthread.h>
#include <stdatomic.h>

#include "ring/ring.h"
#include "transport/fuse_uapi.h"
#include "transport/transport.h"

/* Large enough that no fixed cost matters, small enough that a reader does not wait for the rest of it. */
#define REQUEST_BYTES (1u << 20)
#define REQUEST_MIN_BYTES (128u << 10)
/* Kernel's floor for a payload, and for a buffer that reads /dev/fuse. */
#define PAYLOAD_MIN_BYTES 8192u
#define DEV_THREADS_MAX 4
#define DEV_WORKERS_MAX 4

struct uring_entry {
	struct fs_io io; /* its payload */
	struct uring_ring *ring;
	struct px_fuse_uring_header *header;
	uint64_t commit_id;
	uint16_t qid;
	bool busy; /* a request is here and not replied to */
};

struct uring_ring {
	struct transport *transport;
	struct ring ring;
	pthread_t thread;
	bool started;
	struct uring_entry *entry;
	unsigned nr_entries;
};

/* Rings start together: each registers its entries, then all serve, or none. */
struct uring_gate {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned nr_registered;
	int error;
	bool go, abandon;
};

struct uring {
	unsigned nr_queues, nr_rings, depth;
	size_t payload_bytes, entry_bytes, map_bytes;
	int memfd;
	unsigned char *map;
	struct uring_ring *ring;
	struct uring_gate gate;
};

/*
 * Replies that could not be given at once leave through these threads, which readers of /dev/fuse cannot be woken
 * for.
 */
struct dev_workers {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct list queue; /* struct fs_work; at most one for each request in the kernel's flight */
	pthread_t thread[DEV_WORKERS_MAX];
	unsigned nr;
	bool stopping;
};

struct dev_reader {
	struct transport *transport;
	pthread_t thread;
	bool started;
	atomic_bool left;
};

struct transport {
	struct transport_config cfg;
	enum transport_kind kind;
	char why[256];
	size_t page_bytes;
	unsigned max_pages;
	size_t message_bytes; /* of a buffer that reads /dev/fuse */
	/* INIT */
	uint64_t init_unique;
	uint32_t init_minor, init_flags2;
	bool agree_io_uring;
	int init_error;

	struct uring uring;
	struct fs_io dev_io; /* stands for every request that came by /dev/fuse */
	struct dev_reader reader[DEV_THREADS_MAX];
	unsigned nr_readers;
	struct dev_workers workers;
	atomic_bool stopping, ended;
	atomic_ullong requests_io_uring, requests_dev;
};

/* uring.c */
/* Sizes and allocates everything, so that INIT can agree to it. */
int uring_prepare(struct transport *t, char *ret_why, size_t room);
/* After INIT's reply: registers every entry and serves, or -ENOTRECOVERABLE with none of the threads left. */
int uring_start(struct transport *t, struct err *e);
void uring_stop(struct transport *t);
void uring_free(struct transport *t);
ssize_t uring_reply(struct transport *t, struct uring_entry *en, struct iovec *iov, int n);

/* dev.c */
int dev_start(struct transport *t, unsigned nr_readers, struct err *e);
void dev_stop(struct transport *t);
void dev_work(struct transport *t, struct fs_work *w);
/* Possible CPUs, not those online: the kernel makes a queue for each. */
unsigned transport_possible_cpus(void);

#endif
