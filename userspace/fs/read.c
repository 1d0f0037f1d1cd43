// SPDX-License-Identifier: Apache-2.0
/*
 * Open, read and release of files.
 *
 * Design: an open costs no S3 request; its node is one version already. A read asks the cache, then lets the
 * inode's streams plan what to fetch ahead. With a payload (io_uring) the data is put there, partly by the S3
 * thread as it arrives; without (/dev/fuse) the reply is written from the slab.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/fs_i.h"

/*
 * Least window, whatever the measure says: on a near wire the requests in the kernel's flight nearly suffice, and
 * data read too early costs a copy; on a far one, and until one is measured, too small a window would also measure
 * too low a rate.
 */
#define WINDOW_NEAR_BYTES (24ull << 20)
#define WINDOW_FAR_BYTES (64ull << 20)
#define NEAR_CHUNK_NS (30 * NSEC_PER_MSEC)
/* Of the bandwidth-delay product: requests of a stream end one after another, not all at once. */
#define WINDOW_PRODUCT_FACTOR 3

struct read_op {
	struct fs_work work;
	struct fs *fs;
	fuse_req_t req;
	struct node *node;
	struct fs_wait wait;
	struct cache_read read;
	atomic_bool met; /* set by the first of planning and arrival; the second one replies */
};

static void open_end(struct fs *fs, struct node *n)
{
	struct engine_file *plan = engine_file_ref(atomic_load(&n->plan));

	/* The node may be gone after this. */
	if (node_close(fs->nodes, n) == 0) {
		fs->nr_readers--;
		if (plan)
			engine_file_closed(plan);
	}
	engine_file_put(plan);
}

static void open_plan(struct fs *fs, struct node *n, const char *key)
{
	struct engine_file *none = NULL, *plan;

	if (!fs->cfg.engine)
		return;
	if (!atomic_load(&n->plan)) {
		plan = engine_file_get(fs->cfg.engine, key, n->object);
		if (!atomic_compare_exchange_strong(&n->plan, &none, plan))
			engine_file_put(plan);
	}
	if (atomic_load(&n->plan))
		engine_file_opened(atomic_load(&n->plan));
}

void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_get(fs->nodes, ino);
	char key[S3_KEY_MAX + 1];
	int before;

	if (!n || n->kind != META_FILE) {
		fuse_reply_err(req, n ? EISDIR : ESTALE);
		return;
	}
	if ((fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	before = fs_key(fs, node_path(n), key);
	if (before == 0)
		before = node_open(fs->nodes, n, key);
	if (before < 0) {
		fuse_reply_err(req, -before);
		return;
	}
	if (before == 0) {
		if (fs->nr_readers++ == 0)
			fs_load_open(fs);
		open_plan(fs, n, key);
	}
	if (cache_object_stale(n->object)) {
		/* The kernel looks the name up again and finds the new version. */
		open_end(fs, n);
		fuse_reply_err(req, ESTALE);
		return;
	}
	fs->opens++;
	fi->keep_cache = 1;
	fi->noflush = 1;
	/* Interrupted meanwhile: no RELEASE will come. */
	if (fuse_reply_open(req, fi) < 0)
		open_end(fs, n);
}

void fs_accessed(struct fs *fs, uint64_t ino, const struct engine_access *a)
{
	struct engine_file *plan = node_plan_get(fs->nodes, ino);

	if (plan)
		engine_file_access(plan, a);
	engine_file_put(plan);
}

void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_get(fs->nodes, ino);

	if (n)
		open_end(fs, n);
	fuse_reply_err(req, 0);
}

/* What one stream may have in flight and unread: the wire's bandwidth-delay product, shared by the open files. */
static uint64_t window_max(struct fs *fs)
{
	uint64_t now = clock_mono_ns(), window;
	struct s3_client_stats st;

	if (now < fs->limits_until_ns)
		return fs->window_max_bytes;
	s3_client_stats(fs->cfg.client, &st);
	window = (uint64_t)((double)st.bytes_per_s * (double)st.chunk_ns / 1e9 * WINDOW_PRODUCT_FACTOR);
	window = max_of(window, st.chunk_ns && st.chunk_ns < NEAR_CHUNK_NS ? WINDOW_NEAR_BYTES : WINDOW_FAR_BYTES);
	window = min_of(window, (uint64_t)fs->window_bytes);
	if (fs->nr_readers > 1)
		window /= fs->nr_readers;
	window = max_of(window, (uint64_t)CACHE_CHUNK_BYTES);
	fs->window_max_bytes = window;
	fs->limits_until_ns = now + FS_LIMITS_LIFE_NS;
	return window;
}

static void read_limits(struct read_op *op, struct stream_limits *lim)
{
	*lim = (struct stream_limits){
		.file_bytes = op->node->size_bytes,
		.unit_bytes = CACHE_CHUNK_BYTES,
		.window_max_bytes = window_max(op->fs),
		.waiting_bytes = op->node->waiting_bytes,
		.sweep_max_bytes = op->fs->window_bytes,
	};
}

/* Called before the reply: after it, the node may be forgotten. */
static void read_plan(struct read_op *op, const struct stream_limits *lim)
{
	struct node *n = op->node;
	pthread_mutex_t *lock = &op->fs->stream_lock[n->id % FS_STREAM_LOCKS];
	struct stream_plan plan;
	bool planned = engine_file_planned(atomic_load(&n->plan));

	pthread_mutex_lock(lock);
	stream_observe(n->streams, lim, op->read.offset, op->read.len, op->read.missed, &plan);
	for (unsigned i = 0; i < plan.nr; i++) {
		struct stream_range *r = &plan.range[i];
		uint64_t accepted = planned && !op->read.missed
					  ? 0
					  : cache_prefetch(op->fs->cfg.cache, n->object, r->offset, r->len, true);

		if (accepted < r->len)
			stream_cut(n->streams, r, accepted);
	}
	pthread_mutex_unlock(lock);
	if (atomic_load(&n->plan)) {
		struct engine_access a = {
			.offset = op->read.offset, .len = op->read.len, .ns = clock_mono_ns(), .request = true
		};

		engine_file_access(atomic_load(&n->plan), &a);
	}
}

static void read_first_touch(struct read_op *op, const struct stream_limits *lim)
{
	struct node *n = op->node;
	pthread_mutex_t *lock = &op->fs->stream_lock[n->id % FS_STREAM_LOCKS];
	struct stream_range r;

	pthread_mutex_lock(lock);
	r = stream_first_touch(n->streams, lim, op->read.offset, op->read.len);
	pthread_mutex_unlock(lock);
	if (r.len)
		cache_prefetch(op->fs->cfg.cache, n->object, r.offset, r.len, false);
}

static void read_reply(struct read_op *op, int error)
{
	struct cache_read *r = &op->read;

	fs_wait_end(op->fs, &op->wait);
	op->node->waiting_bytes -= r->len;
	if (error < 0) {
		if (error == -ESTALE)
			fs_notify_replaced(op->fs, node_path(op->node));
		fuse_reply_err(op->req, fs_errno(error));
		free(op);
		return;
	}
	op->fs->bytes_read += r->len;
	fs_load_read(op->fs);
	if (r->payload) {
		cache_read_fill(r);
		cache_read_end(op->fs->cfg.cache, r);
		fuse_reply_buf(op->req, r->payload, r->len);
	} else {
		struct iovec iov[CACHE_READ_IOV_MAX];
		int nr = cache_read_iov(r, iov);

		fuse_reply_iov(op->req, iov, nr);
		cache_read_end(op->fs->cfg.cache, r);
	}
	free(op);
}

static void read_work(struct fs_work *w)
{
	struct read_op *op = list_entry(w, struct read_op, work);

	read_reply(op, op->read.error);
}

/* In the S3 thread, or wherever the deadline is watched. */
static void read_done(struct cache_read *r, int error)
{
	struct read_op *op = list_entry(r, struct read_op, read);

	if (atomic_exchange(&op->met, true))
		fs_defer(op->fs, &op->work, op->work.io, read_work);
}

static void read_killed(struct fs_wait *w)
{
	struct read_op *op = list_entry(w, struct read_op, wait);

	cache_read_cancel(op->fs->cfg.cache, &op->read, -EINTR);
}

static void read_run(struct read_op *op)
{
	uint64_t unique = fs_current_unique;
	struct stream_limits lim;
	int rc;

	if (op->fs->read_ahead) {
		read_limits(op, &lim);
		read_first_touch(op, &lim);
	}
	rc = cache_read_start(op->fs->cfg.cache, &op->read);
	if (op->fs->read_ahead && (rc == 0 || rc == -EINPROGRESS))
		read_plan(op, &lim);
	if (rc == -EINPROGRESS)
		fs_wait_begin(op->fs, &op->wait, unique, fuse_req_ctx(op->req)->pid, read_killed);
	if (rc != -EINPROGRESS)
		read_reply(op, rc);
	else if (atomic_exchange(&op->met, true))
		read_reply(op, op->read.error);
}

void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_get(fs->nodes, ino);
	struct read_op *op;

	fs->reads++;
	if (!n || !n->object) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if ((uint64_t)off >= n->size_bytes || size == 0) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	op = calloc(1, sizeof(*op));
	if (!op) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	size = min_of(size, (size_t)CACHE_READ_MAX_BYTES);
	op->fs = fs;
	op->req = req;
	op->node = n;
	op->work.io = fs_current_io;
	op->read.object = n->object;
	op->read.offset = (uint64_t)off;
	op->read.len = (uint32_t)min_of((uint64_t)size, n->size_bytes - (uint64_t)off);
	op->read.keep = fi && (fi->flags & O_DIRECT);
	op->read.done = read_done;
	n->waiting_bytes += op->read.len;
	if (fs_current_io->payload && fs_current_io->payload_bytes >= op->read.len)
		op->read.payload = fs_current_io->payload;

	read_run(op);
}
