// SPDX-License-Identifier: Apache-2.0
/*
 * The FUSE-over-io_uring transport.
 *
 * Design: the kernel has a queue for each possible CPU and sends a request to the queue of the CPU it was made on.
 * There it takes the entry that has been free longest. Each queue has a home ring, which runs on the queue's CPU and
 * has most of its entries: a small request then wakes nobody on another CPU. A neighbour ring has the others, so that
 * a reader's large requests are served by two threads and no queue hangs on one. An entry's buffers lie in a memfd
 * at a fixed address: header page, then payload. The message for libfuse is put together in front of the payload,
 * where it lies contiguous with what the kernel wrote there; replies are built in the payload itself, or copied to
 * it. Commits are batched to the ring's next turn, large ones go at once.
 * Threads: a ring's entries belong to its thread; replies to them are made there and nowhere else. It never blocks.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/transport_i.h"

#define RINGS_MAX 8
/* Of a ring's entries, the part on queues of the next ring. */
#define FOREIGN_PART 8
#define DEPTH_MAX 8
#define DEPTH_MIN 2
#define WARM_MAX_BYTES (64u << 20)
#define BIG_REPLY_BYTES (256u << 10)

/*
 * Where the buffers go in the address space: the same in every process that serves the mount one after another. The
 * second is for kernels with 39-bit addresses, and for the thread sanitizer, which forbids the first.
 */
static const uintptr_t map_bases[] = {
#if !defined(__SANITIZE_THREAD__)
	0x200000000000,
#endif
	0x2000000000,
};

/* Depth first, then rings, then the size of requests: a single entry of 128 KiB a queue still works. */
static int uring_size(struct transport *t)
{
	struct uring *u = &t->uring;
	uint64_t budget = t->cfg.memory_bytes;
	size_t request = t->max_pages * t->page_bytes;

	u->nr_queues = transport_possible_cpus();
	u->nr_rings = min_of(u->nr_queues, (unsigned)RINGS_MAX);
	u->depth = DEPTH_MAX;
	for (;;) {
		u->payload_bytes = max_of(request, (size_t)PAYLOAD_MIN_BYTES);
		u->entry_bytes = u->payload_bytes + t->page_bytes;
		u->map_bytes = u->entry_bytes * u->nr_queues * u->nr_rings * u->depth;
		if (u->map_bytes <= budget)
			break;
		if (u->depth > DEPTH_MIN)
			u->depth /= 2;
		else if (u->nr_rings > 1)
			u->nr_rings--;
		else if (u->depth > 1)
			u->depth = 1;
		else if (request / 2 >= REQUEST_MIN_BYTES && request / 2 >= t->page_bytes)
			request /= 2;
		else
			return -ENOMEM;
	}
	t->max_pages = (unsigned)(request / t->page_bytes);
	return 0;
}

static int uring_map(struct transport *t)
{
	struct uring *u = &t->uring;

	u->memfd = memfd_create("penstock-entries", MFD_CLOEXEC);
	if (u->memfd < 0 || ftruncate(u->memfd, (off_t)u->map_bytes) < 0)
		return -errno;
	for (size_t i = 0; i < array_len(map_bases); i++) {
		void *at = (void *)map_bases[i];
		void *p = mmap(at, u->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, u->memfd, 0);

		if (p == at) {
			u->map = p;
			(void)madvise(p, u->map_bytes, MADV_DONTDUMP);
#ifdef MADV_POPULATE_WRITE
			/* The first load then does not pay for the first touch. */
			if (u->map_bytes <= WARM_MAX_BYTES)
				(void)madvise(p, u->map_bytes, MADV_POPULATE_WRITE);
#endif
			return 0;
		}
		/* A kernel before 4.17 takes the address as a hint only. */
		if (p != MAP_FAILED)
			munmap(p, u->map_bytes);
	}
	return -ENOMEM;
}

static void uring_complete(void *ctx, void *user_data, int res);
static void uring_receive(void *ctx, struct list *item);

static const struct ring_ops uring_ring_ops = { .complete = uring_complete, .receive = uring_receive };

/* The queues q with q % nr_rings == ring are at home there. */
static uint16_t home_queue(const struct uring *u, unsigned ring, unsigned i)
{
	unsigned nr_homes = (u->nr_queues - ring + u->nr_rings - 1) / u->nr_rings;

	return (uint16_t)(ring + u->nr_rings * (i % nr_homes));
}

static int uring_ring_init(struct transport *t, unsigned index)
{
	struct uring *u = &t->uring;
	struct uring_ring *r = &u->ring[index];
	unsigned n = u->nr_queues * u->depth, nr_foreign = u->nr_rings > 1 ? n / FOREIGN_PART : 0;
	int rc;

	r->entry = calloc(n, sizeof(*r->entry));
	if (!r->entry)
		return -ENOMEM;
	/* One more for the wake-up read. */
	rc = ring_init(&r->ring, n + 1, true, &uring_ring_ops, r);
	if (rc < 0) {
		free(r->entry);
		r->entry = NULL;
		return rc;
	}
	r->transport = t;
	r->nr_entries = n;
	for (unsigned i = 0; i < n; i++) {
		unsigned char *base = u->map + ((size_t)index * n + i) * u->entry_bytes;
		struct uring_entry *en = &r->entry[i];

		en->ring = r;
		en->qid = i < nr_foreign ? home_queue(u, (index + 1) % u->nr_rings, i)
					 : home_queue(u, index, i - nr_foreign);
		en->header = (struct px_fuse_uring_header *)base;
		en->io.payload = base + t->page_bytes;
		en->io.payload_bytes = u->payload_bytes;
	}
	return 0;
}

int uring_prepare(struct transport *t, char *ret_why, size_t room)
{
	struct uring *u = &t->uring;
	unsigned max_pages = t->max_pages;
	int rc = uring_size(t);

	if (rc == 0)
		rc = uring_map(t);
	if (rc == 0 && !(u->ring = calloc(u->nr_rings, sizeof(*u->ring))))
		rc = -ENOMEM;
	for (unsigned i = 0; rc == 0 && i < u->nr_rings; i++)
		rc = uring_ring_init(t, i);
	if (rc < 0) {
		snprintf(ret_why, room,
			 "%u queues need more than the %llu KiB left of --memory, or io_uring is refused (%s)",
			 u->nr_queues, (unsigned long long)t->cfg.memory_bytes >> 10, strerror(-rc));
		uring_free(t);
		t->max_pages = max_pages;
		return rc;
	}
	snprintf(ret_why, room, "%u rings on %u queues, depth %u, %zu KiB requests", u->nr_rings, u->nr_queues,
		 u->depth, u->payload_bytes >> 10);
	return 0;
}

static struct io_uring_sqe *entry_sqe(struct uring_entry *en, uint32_t op)
{
	struct io_uring_sqe *sqe = ring_sqe(&en->ring->ring);
	struct px_fuse_uring_cmd *cmd;

	if (!sqe)
		return NULL;
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = en->ring->transport->cfg.fuse_fd;
	sqe->cmd_op = op;
	io_uring_sqe_set_data(sqe, en);
	cmd = (struct px_fuse_uring_cmd *)sqe->cmd;
	cmd->qid = en->qid;
	cmd->commit_id = en->commit_id;
	return sqe;
}

/* In the ring's thread: the kernel runs an entry's work in the task that submitted it. */
static int ring_register(struct uring_ring *r)
{
	_cleanup_free_ struct iovec *iov = calloc(r->nr_entries * 2, sizeof(*iov));
	struct io_uring_cqe *cqe;
	unsigned head;
	int rc;

	if (!iov)
		return -ENOMEM;
	for (unsigned i = 0; i < r->nr_entries; i++) {
		struct uring_entry *en = &r->entry[i];
		struct io_uring_sqe *sqe = entry_sqe(en, PX_FUSE_URING_REGISTER);

		if (!sqe)
			return -EBUSY;
		iov[i * 2] = (struct iovec){ en->header, sizeof(*en->header) };
		iov[i * 2 + 1] = (struct iovec){ en->io.payload, en->io.payload_bytes };
		sqe->addr = (uint64_t)(uintptr_t)&iov[i * 2];
		sqe->len = 2;
	}
	rc = ring_submit(&r->ring);
	if (rc < 0)
		return rc;
	/* A refusal completes at once; a request that came already has res 0 and stays for the loop. */
	io_uring_for_each_cqe(&r->ring.uring, head, cqe)
	{
		if (cqe->res < 0)
			return cqe->res;
	}
	return rc == (int)r->nr_entries ? 0 : -EBUSY;
}

static bool gate_pass(struct uring_gate *g, int error)
{
	bool go;

	pthread_mutex_lock(&g->lock);
	g->nr_registered++;
	if (error < 0)
		g->error = error;
	pthread_cond_broadcast(&g->cond);
	while (!g->go && !g->abandon)
		pthread_cond_wait(&g->cond, &g->lock);
	go = g->go;
	pthread_mutex_unlock(&g->lock);
	return go;
}

/* On the CPUs whose queues are at home here; where that is not allowed, anywhere. */
static void ring_settle(const struct uring_ring *r)
{
	const struct uring *u = &r->transport->uring;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	for (unsigned q = (unsigned)(r - u->ring); q < u->nr_queues && q < CPU_SETSIZE; q += u->nr_rings)
		CPU_SET(q, &cpus);
	(void)pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);
}

static void *uring_main(void *arg)
{
	struct uring_ring *r = arg;

	ring_settle(r);
	if (gate_pass(&r->transport->uring.gate, ring_register(r)))
		ring_run(&r->ring);
	return NULL;
}

int uring_start(struct transport *t, struct err *e)
{
	struct uring *u = &t->uring;
	struct uring_gate *g = &u->gate;
	unsigned started = 0;
	int rc = 0;

	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->cond, NULL);
	for (; started < u->nr_rings; started++) {
		struct uring_ring *r = &u->ring[started];

		if (pthread_create(&r->thread, NULL, uring_main, r) != 0) {
			rc = -EAGAIN;
			break;
		}
		pthread_setname_np(r->thread, "uring");
		r->started = true;
	}
	pthread_mutex_lock(&g->lock);
	while (g->nr_registered < started)
		pthread_cond_wait(&g->cond, &g->lock);
	if (rc == 0)
		rc = g->error;
	g->go = rc == 0;
	g->abandon = rc < 0;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
	if (rc == 0)
		return 0;
	for (unsigned i = 0; i < started; i++) {
		pthread_join(u->ring[i].thread, NULL);
		u->ring[i].started = false;
	}
	return err_set(e, -ENOTRECOVERABLE, "a FUSE queue could not be registered on io_uring: %s", strerror(-rc));
}

static void uring_complete(void *ctx, void *user_data, int res)
{
	struct uring_ring *r = ctx;
	struct uring_entry *en = user_data;
	struct fuse_in_header *in = (struct fuse_in_header *)en->header->in_out;
	uint32_t op_bytes;
	unsigned char *msg;

	if (res < 0) {
		/* The entry is gone: ENOTCONN at the end, anything else would be news. */
		if (res != -ENOTCONN && res != -ECANCELED && res != -ENOENT && !atomic_load(&r->transport->stopping))
			log_error("transport", "a FUSE io_uring entry of queue %u ended: %s", en->qid, strerror(-res));
		return;
	}
	r->transport->requests_io_uring++;
	en->commit_id = en->header->ent.commit_id;
	op_bytes = in->len - (uint32_t)sizeof(*in) - en->header->ent.payload_sz;
	if (in->len < sizeof(*in) + en->header->ent.payload_sz || op_bytes > PX_FUSE_URING_IN_OUT_BYTES)
		op_bytes = 0; /* cannot be; libfuse refuses the short message */
	msg = (unsigned char *)en->io.payload - op_bytes - sizeof(*in);
	memcpy(msg, in, sizeof(*in));
	memcpy(msg + sizeof(*in), en->header->op_in, op_bytes);
	en->busy = true;
	fs_session_process(r->transport->cfg.fs, &en->io, msg, sizeof(*in) + op_bytes + en->header->ent.payload_sz);
}

static void uring_receive(void *ctx, struct list *item)
{
	struct uring_ring *r = ctx;

	fs_session_work(r->transport->cfg.fs, list_entry(item, struct fs_work, link));
}

ssize_t uring_reply(struct transport *t, struct uring_entry *en, struct iovec *iov, int n)
{
	struct fuse_out_header out = *(const struct fuse_out_header *)iov[0].iov_base;
	unsigned char *payload = en->io.payload;
	size_t used = 0, total = out.len;

	if (!en->busy || out.unique != ((const struct fuse_in_header *)en->header->in_out)->unique) {
		errno = EINVAL;
		return -1;
	}
	for (int i = 1; i < n; i++) {
		if (used + iov[i].iov_len > en->io.payload_bytes) {
			out.error = -EIO;
			used = 0;
			break;
		}
		if (iov[i].iov_base != payload + used)
			memcpy(payload + used, iov[i].iov_base, iov[i].iov_len);
		used += iov[i].iov_len;
	}
	out.len = (uint32_t)(sizeof(out) + used);
	/* Payload first, header last: whoever finds the entry after a crash can tell a finished reply. */
	en->header->ent.payload_sz = (uint32_t)used;
	atomic_thread_fence(memory_order_release);
	memcpy(en->header->in_out, &out, sizeof(out));
	en->busy = false;
	if (!entry_sqe(en, PX_FUSE_URING_COMMIT_AND_FETCH)) {
		errno = EBUSY;
		return -1;
	}
	/* The kernel copies a large payload while it is still in the cache, and the reader goes on. */
	if (used >= BIG_REPLY_BYTES)
		ring_submit(&en->ring->ring);
	return (ssize_t)total;
}

void uring_stop(struct transport *t)
{
	struct uring *u = &t->uring;

	if (!u->ring)
		return;
	for (unsigned i = 0; i < u->nr_rings; i++) {
		if (u->ring[i].started)
			ring_stop(&u->ring[i].ring);
	}
	for (unsigned i = 0; i < u->nr_rings; i++) {
		if (u->ring[i].started)
			pthread_join(u->ring[i].thread, NULL);
		u->ring[i].started = false;
	}
}

void uring_free(struct transport *t)
{
	struct uring *u = &t->uring;

	for (unsigned i = 0; u->ring && i < u->nr_rings; i++) {
		if (u->ring[i].entry)
			ring_done(&u->ring[i].ring);
		free(u->ring[i].entry);
	}
	free(u->ring);
	u->ring = NULL;
	if (u->map)
		munmap(u->map, u->map_bytes);
	u->map = NULL;
	if (u->memfd >= 0)
		close(u->memfd);
	u->memfd = -1;
	u->map_bytes = 0;
}
