/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system: a bucket's keys as files and directories, spoken over FUSE messages that a transport carries.
 *
 * Threads: fs_session_process() and fs_session_work() from any transport thread, several at once. A request is
 * replied to exactly once, always from a transport thread while it runs that request's message or work.
 */
#ifndef PENSTOCK_FS_FS_H
#define PENSTOCK_FS_FS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "cache/cache.h"
#include "prefetch/engine.h"
#include "s3/client.h"

struct fs;

/* Something to do for one request later, on a thread that may reply. */
struct fs_work {
	struct list link;
	struct fs_io *io;
	void (*fn)(struct fs_work *w);
};

/* One request's way out. The transport's, from the message until the reply. */
struct fs_io {
	void *payload; /* where the reply's data may be put beforehand; NULL = none */
	size_t payload_bytes;
};

struct fs_transport_ops {
	/*
	 * Sends a whole FUSE message. <io> is the request's, NULL for the reply to INIT and for notifications.
	 * Vectors may point into io->payload. Returns the bytes sent, or -1 with errno.
	 */
	ssize_t (*reply)(void *ctx, struct fs_io *io, struct iovec *iov, int n);
	/* Has fs_session_work(fs, w) called soon on a transport thread. From any thread, also a transport's own. */
	void (*wake)(void *ctx, struct fs_work *w);
};

struct fs_config {
	struct s3_client *client; /* borrowed, as the cache */
	struct cache *cache;
	const char *bucket, *prefix; /* prefix "" or with a trailing slash */
	uid_t uid;
	gid_t gid;
	mode_t file_mode, dir_mode;
	uint64_t metadata_ttl_ns, read_deadline_ns;
	uint64_t window_bytes; /* most that is read ahead and not consumed, over all files */
	struct engine *engine; /* of plans; NULL = none */
	bool read_ahead;       /* false: fetch what is asked and nothing else */
	unsigned max_background;
	bool debug;
};

int fs_new(const struct fs_config *cfg, struct fs **ret, struct err *e);
/* After the session's transport and the S3 client have stopped; returns NULL. */
struct fs *fs_free(struct fs *fs);

/* Speaks over <fd> from now on; the descriptor is borrowed and only named to the FUSE library. */
int fs_session_start(struct fs *fs, int fd, const struct fs_transport_ops *ops, void *ctx, struct err *e);
/* No notification is sent any more; before the transport's threads end. */
void fs_session_quiet(struct fs *fs);
void fs_session_stop(struct fs *fs);
void fs_session_process(struct fs *fs, struct fs_io *io, void *msg, size_t len);
void fs_session_work(struct fs *fs, struct fs_work *w);
/* The request of that number is not waited for any more, if its task is being killed. From any thread. */
void fs_session_interrupt(struct fs *fs, uint64_t unique);

/* A tracer tells of an access to the file with this inode number. From any thread. */
void fs_accessed(struct fs *fs, uint64_t ino, const struct engine_access *a);

/* Switches reading ahead on and off; the most that is read ahead over all files. Effective at once. */
void fs_read_ahead_set(struct fs *fs, bool on);
void fs_window_set(struct fs *fs, uint64_t window_bytes);

/* The present load: it began with the first open after a while without any. All 0 before the first. */
struct fs_load {
	uint64_t started;                     /* Unix time */
	uint64_t first_read_us, last_read_us; /* after its begin */
	uint64_t bytes_wanted;
	uint64_t fetched_before; /* the cache's fetched bytes when it began */
};
void fs_load_get(struct fs *fs, struct fs_load *ret);

struct fs_stats {
	uint64_t lookups, opens, reads, readdirs, nodes, bytes_read;
};
void fs_stats(struct fs *fs, struct fs_stats *ret);

#endif
