/* SPDX-License-Identifier: Apache-2.0 */
/* What the file system's own files share. */
#ifndef PENSTOCK_FS_FS_I_H
#define PENSTOCK_FS_FS_I_H

#define FUSE_USE_VERSION 314
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "fs/fs.h"
#include "fs/meta.h"
#include "fs/node.h"
#include "prefetch/stream.h"

#define FS_NAME_MAX 255
#define FS_BLOCK_BYTES 512
/* A name that is missing may be uploaded any moment. */
#define FS_NEGATIVE_TTL_NS (5 * NSEC_PER_SEC)
#define FS_STREAM_LOCKS 64
#define FS_NOTIFY_MAX 256
#define FS_WAIT_BUCKETS 64
#define FS_LIMITS_LIFE_NS (20 * NSEC_PER_MSEC)
/* Without an open file: the load is over. */
#define FS_LOAD_PAUSE_NS (10 * NSEC_PER_SEC)

struct fs_notifier {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct list queue; /* struct fs_notice */
	unsigned nr;
	bool running, stopping;
};

/* A request that waits for S3. */
struct fs_wait {
	struct list link;
	uint64_t unique;
	pid_t tid;
	/* Its task is being killed: begins the request's end; at most once, and not after fs_wait_end(). */
	void (*killed)(struct fs_wait *w);
};

struct fs_waits {
	struct list list;
	pthread_mutex_t lock;
};

struct fs {
	struct fs_config cfg;
	char bucket[S3_BUCKET_MAX + 1], prefix[S3_KEY_MAX + 1];
	struct fuse_session *session;
	const struct fs_transport_ops *ops;
	void *ops_ctx;

	struct node_table *nodes;
	struct meta *meta;
	pthread_mutex_t stream_lock[FS_STREAM_LOCKS]; /* guards a node's streams, by node id */
	struct fs_notifier notifier;
	struct fs_waits waits[FS_WAIT_BUCKETS];
	time_t mounted_at;

	atomic_ullong limits_until_ns, window_max_bytes;
	atomic_uint nr_readers; /* files with an open handle */
	/* the present load; see fs_load_get() */
	atomic_ullong load_started, load_begin_ns, load_first_ns, load_last_ns, load_bytes_before, load_fetched_before;
	atomic_bool read_ahead;
	atomic_ullong window_bytes;
	atomic_ullong lookups, opens, reads, readdirs, bytes_read;
};

/* The request being processed by this thread: what its replies go through. */
extern _Thread_local struct fs_io *fs_current_io;
extern _Thread_local uint64_t fs_current_unique;

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static inline double fs_seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

/* From any thread: <fn> runs later on a transport thread, where it may reply. */
static inline void fs_defer(struct fs *fs, struct fs_work *w, struct fs_io *io, void (*fn)(struct fs_work *w))
{
	w->io = io;
	w->fn = fn;
	fs->ops->wake(fs->ops_ctx, w);
}

/* What a reader may see of an error from below. */
int fs_errno(int error);
void fs_attr(const struct fs *fs, uint64_t id, const struct meta_record *rec, struct stat *st);
/* Key of a path below the mount: prefix + path. -ENAMETOOLONG over S3's limit. */
int fs_key(const struct fs *fs, const char *path, char ret[S3_KEY_MAX + 1]);
int fs_path_join(const char *dir, const char *name, char ret[S3_KEY_MAX + 1]);
/* Is it ours, and not the user's: never shown. */
bool fs_path_hidden(const char *path);
/* Can a directory entry carry these bytes of a key as its name? Logs one line where not. */
bool fs_name_usable(const struct fs *fs, const char *name, size_t len, const char *key, size_t key_len);

/* A file is opened while none was; a read has been answered. */
void fs_load_open(struct fs *fs);
void fs_load_read(struct fs *fs);

/* lookup.c */
void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void fs_entry_fill(struct fs *fs, struct node *n, struct fuse_entry_param *e);
/* readdir.c */
void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* read.c */
void fs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void fs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi);
void fs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
/* interrupt.c */
void fs_waits_init(struct fs *fs);
void fs_waits_done(struct fs *fs);
void fs_wait_begin(struct fs *fs, struct fs_wait *w, uint64_t unique, pid_t tid, void (*killed)(struct fs_wait *w));
void fs_wait_end(struct fs *fs, struct fs_wait *w);
/* notify.c */
int fs_notifier_start(struct fs *fs);
/* Ends the thread; notices that come later are dropped. */
void fs_notifier_stop(struct fs *fs);
void fs_notifier_done(struct fs *fs);
/* The object behind this path was replaced: its name is looked up again at the next open. */
void fs_notify_replaced(struct fs *fs, const char *path);

#endif
