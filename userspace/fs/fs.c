// SPDX-License-Identifier: Apache-2.0
/*
 * The file system's session and the operations that need no request to S3.
 *
 * Design: libfuse parses messages and builds replies; its reads and writes go through the transport by way of
 * fuse_session_custom_io. A request whose answer must be fetched is finished later, in a fs_work on a transport thread.
 */
#define _GNU_SOURCE
#include "fs/fs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/fs_i.h"

#define META_MAX_BYTES (14u << 20)
#define XATTR_ETAG "user.s3.etag"
#define XATTR_CLASS "user.s3.storage_class"

_Thread_local struct fs_io *fs_current_io;
_Thread_local uint64_t fs_current_unique;

int fs_errno(int error)
{
	switch (-error) {
	case ETIMEDOUT:
	case ECANCELED:
	case EBADMSG:
	case EAGAIN:
		return EIO;
	default:
		return -error;
	}
}

void fs_attr(const struct fs *fs, uint64_t id, const struct meta_record *rec, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = id;
	st->st_uid = fs->cfg.uid;
	st->st_gid = fs->cfg.gid;
	if (rec->kind == META_DIR) {
		st->st_mode = S_IFDIR | fs->cfg.dir_mode;
		st->st_nlink = 2;
		st->st_mtime = fs->mounted_at;
	} else {
		st->st_mode = S_IFREG | fs->cfg.file_mode;
		st->st_nlink = 1;
		st->st_size = (off_t)rec->size_bytes;
		st->st_blocks = (blkcnt_t)((rec->size_bytes + FS_BLOCK_BYTES - 1) / FS_BLOCK_BYTES);
		st->st_mtime = rec->mtime;
	}
	st->st_ctime = st->st_atime = st->st_mtime;
}

int fs_path_join(const char *dir, const char *name, char ret[S3_KEY_MAX + 1])
{
	int n = snprintf(ret, S3_KEY_MAX + 1, "%s%s%s", dir, dir[0] ? "/" : "", name);

	return n > S3_KEY_MAX ? -ENAMETOOLONG : 0;
}

int fs_key(const struct fs *fs, const char *path, char ret[S3_KEY_MAX + 1])
{
	int n = snprintf(ret, S3_KEY_MAX + 1, "%s%s", fs->prefix, path);

	return n > S3_KEY_MAX ? -ENAMETOOLONG : 0;
}

bool fs_path_hidden(const char *path)
{
	size_t len = strlen(ENGINE_PRIVATE_DIR);

	return strncmp(path, ENGINE_PRIVATE_DIR, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

bool fs_name_usable(const struct fs *fs, const char *name, size_t len, const char *key, size_t key_len)
{
	size_t skip = strlen(fs->prefix);
	const char *why = NULL;

	if (key_len > skip && fs_path_hidden(key + skip))
		return false;
	if (len == 0)
		why = "it holds an empty component (//)";
	else if (memchr(name, '\0', len))
		why = "it holds a NUL";
	else if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		why = "it holds . or .. as a component";
	else if (len > FS_NAME_MAX)
		why = "a component is longer than 255 bytes";
	if (why)
		log_warn("fs", "bucket=%s key=%.*s: not shown, a path cannot express it: %s", fs->bucket,
			 (int)min_of(key_len, (size_t)S3_KEY_MAX), key, why);
	return !why;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	/* A node is one version: what the page cache holds of it never becomes invalid. */
	conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
				  FUSE_CAP_SPLICE_MOVE);
	/* Attributes always come with a listing: "ls -l" then needs no lookup for each name. */
	conn->want &= ~(unsigned)FUSE_CAP_READDIRPLUS_AUTO;
	conn->want |= conn->capable &
		      (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS);
	conn->max_background = fs->cfg.max_background;
	conn->congestion_threshold = fs->cfg.max_background * 3 / 4;
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	node_forget(fs_of(req)->nodes, ino, nlookup);
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		node_forget(fs_of(req)->nodes, forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_get(fs->nodes, ino);
	struct meta_record rec;
	struct stat st;

	if (!n) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	node_record(n, &rec);
	fs_attr(fs, ino, &rec, &st);
	fuse_reply_attr(req, &st, fs_seconds(fs->cfg.metadata_ttl_ns));
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	/* A bucket has no size; enough to be never "full" for those who look. */
	struct statvfs st = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = 1ull << 38,
		.f_bfree = 1ull << 38,
		.f_bavail = 1ull << 38,
		.f_files = 1ull << 32,
		.f_ffree = 1ull << 32,
		.f_namemax = FS_NAME_MAX,
	};

	fuse_reply_statfs(req, &st);
}

static void reply_xattr(fuse_req_t req, const char *value, size_t len, size_t size)
{
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, value, len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct node *n = node_get(fs_of(req)->nodes, ino);
	const char *value = NULL;

	if (!n) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	if (n->kind == META_FILE && strcmp(name, XATTR_ETAG) == 0)
		value = node_etag(n);
	else if (n->kind == META_FILE && strcmp(name, XATTR_CLASS) == 0)
		value = node_class(n)[0] ? node_class(n) : "STANDARD";
	if (value)
		reply_xattr(req, value, strlen(value), size);
	else
		fuse_reply_err(req, ENODATA);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	static const char names[] = XATTR_ETAG "\0" XATTR_CLASS;
	struct node *n = node_get(fs_of(req)->nodes, ino);

	if (!n)
		fuse_reply_err(req, ESTALE);
	else
		reply_xattr(req, names, n->kind == META_FILE ? sizeof(names) : 0, size);
}

static const struct fuse_lowlevel_ops fs_ops = {
	.init = op_init,
	.lookup = fs_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.open = fs_open,
	.read = fs_read,
	.release = fs_release,
	.opendir = fs_opendir,
	.readdir = fs_readdir,
	.readdirplus = fs_readdirplus,
	.releasedir = fs_releasedir,
	.statfs = op_statfs,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
};

int fs_new(const struct fs_config *cfg, struct fs **ret, struct err *e)
{
	struct fs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return err_set(e, -ENOMEM, "out of memory");
	fs->cfg = *cfg;
	snprintf(fs->bucket, sizeof(fs->bucket), "%s", cfg->bucket);
	snprintf(fs->prefix, sizeof(fs->prefix), "%s", cfg->prefix);
	fs->mounted_at = time(NULL);
	fs->read_ahead = cfg->read_ahead;
	fs->window_bytes = cfg->window_bytes;
	for (size_t i = 0; i < FS_STREAM_LOCKS; i++)
		pthread_mutex_init(&fs->stream_lock[i], NULL);
	fs_waits_init(fs);
	fs->nodes = node_table_new(cfg->cache);
	fs->meta = meta_new(META_MAX_BYTES);
	if (!fs->nodes || !fs->meta) {
		fs_free(fs);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*ret = fs;
	return 0;
}

struct fs *fs_free(struct fs *fs)
{
	if (!fs)
		return NULL;
	node_table_free(fs->nodes);
	meta_free(fs->meta);
	for (size_t i = 0; i < FS_STREAM_LOCKS; i++)
		pthread_mutex_destroy(&fs->stream_lock[i]);
	fs_waits_done(fs);
	free(fs);
	return NULL;
}

static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fs *fs = userdata;

	/* Notifications carry no request: they go out beside whatever this thread is doing. */
	return fs->ops->reply(fs->ops_ctx, fs_current_io, iov, count);
}

static ssize_t session_read(int fd, void *buf, size_t len, void *userdata)
{
	/* The transport reads; libfuse only asks for the callback to be there. */
	errno = ENOSYS;
	return -1;
}

static void __attribute__((format(printf, 2, 0))) session_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof(text), fmt, ap);
	text[strcspn(text, "\n")] = '\0';
	log_line(level <= FUSE_LOG_ERR ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "fuse", "%s", text);
}

int fs_session_start(struct fs *fs, int fd, const struct fs_transport_ops *ops, void *ctx, struct err *e)
{
	static const struct fuse_custom_io io = { .writev = session_writev, .read = session_read };
	char *argv[] = { "penstock", fs->cfg.debug ? "-d" : NULL };
	struct fuse_args args = FUSE_ARGS_INIT(fs->cfg.debug ? 2 : 1, argv);
	int own;

	fs->ops = ops;
	fs->ops_ctx = ctx;
	fuse_set_log_func(session_log);
	fs->session = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
	fuse_opt_free_args(&args);
	if (!fs->session)
		return err_set(e, -ENOMEM, "cannot start a FUSE session: out of memory");
	/* libfuse closes what it is given. */
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0 || fuse_session_custom_io(fs->session, &io, own) != 0) {
		if (own >= 0)
			close(own);
		fuse_session_destroy(fs->session);
		fs->session = NULL;
		return err_set(e, -EIO, "cannot start a FUSE session: the FUSE library refused our transport");
	}
	if (fs_notifier_start(fs) < 0) {
		fs_session_stop(fs);
		return err_set(e, -EAGAIN, "cannot start a FUSE session: the limit on threads is reached");
	}
	return 0;
}

void fs_session_stop(struct fs *fs)
{
	if (!fs->session)
		return;
	fs_notifier_stop(fs);
	fs_notifier_done(fs);
	fuse_session_destroy(fs->session);
	fs->session = NULL;
}

void fs_session_quiet(struct fs *fs)
{
	if (fs->session)
		fs_notifier_stop(fs);
}

void fs_session_process(struct fs *fs, struct fs_io *io, void *msg, size_t len)
{
	struct fuse_buf buf = { .size = len, .mem = msg };

	fs_current_io = io;
	fs_current_unique = ((const struct fuse_in_header *)msg)->unique;
	fuse_session_process_buf(fs->session, &buf);
	fs_current_io = NULL;
}

void fs_session_work(struct fs *fs, struct fs_work *w)
{
	fs_current_io = w->io;
	w->fn(w);
	fs_current_io = NULL;
}

void fs_load_open(struct fs *fs)
{
	uint64_t now = clock_mono_ns(), last = max_of(fs->load_last_ns, fs->load_begin_ns);
	struct cache_stats cs;

	if (last && now - last < FS_LOAD_PAUSE_NS)
		return;
	cache_stats(fs->cfg.cache, &cs);
	fs->load_started = (uint64_t)time(NULL);
	fs->load_first_ns = fs->load_last_ns = 0;
	fs->load_bytes_before = fs->bytes_read;
	fs->load_fetched_before = cs.fetched_bytes;
	fs->load_begin_ns = now;
}

void fs_load_read(struct fs *fs)
{
	uint64_t now = clock_mono_ns();

	if (!fs->load_first_ns)
		fs->load_first_ns = now;
	fs->load_last_ns = now;
}

void fs_load_get(struct fs *fs, struct fs_load *ret)
{
	uint64_t begin = fs->load_begin_ns, first = fs->load_first_ns, last = fs->load_last_ns;

	*ret = (struct fs_load){
		.started = fs->load_started,
		.first_read_us = first > begin ? (first - begin) / 1000 : 0,
		.last_read_us = last > begin ? (last - begin) / 1000 : 0,
		.bytes_wanted = fs->bytes_read - fs->load_bytes_before,
		.fetched_before = fs->load_fetched_before,
	};
}

void fs_read_ahead_set(struct fs *fs, bool on)
{
	fs->read_ahead = on;
}

void fs_window_set(struct fs *fs, uint64_t window_bytes)
{
	fs->window_bytes = window_bytes;
	fs->limits_until_ns = 0;
}

void fs_stats(struct fs *fs, struct fs_stats *ret)
{
	*ret = (struct fs_stats){
		.lookups = fs->lookups,
		.opens = fs->opens,
		.reads = fs->reads,
		.readdirs = fs->readdirs,
		.nodes = node_count(fs->nodes),
		.bytes_read = fs->bytes_read,
	};
}
