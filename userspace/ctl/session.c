// SPDX-License-Identifier: Apache-2.0
/*
 * FUSE operations of the tuning tree.
 *
 * Design: names never change, so the kernel keeps them; attributes and values it never keeps. A write is a value, as
 * in sysfs: where it is written to means nothing when appending and must be the begin otherwise.
 * Threads: the mount's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "base/cleanup.h"
#include "ctl/ctl_i.h"

#define NAME_SECONDS 3600.0
#define FILE_BYTES 4096
#define FILES_MAX 1024
/* More than a value may have, so that one which is too long arrives whole and is refused. */
#define WRITE_MAX_BYTES (32u << 10)

static struct ctl_session *session_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static struct ctl_node *node_of(fuse_req_t req, fuse_ino_t ino)
{
	struct ctl_tree *t = session_of(req)->tree;

	return ino >= FUSE_ROOT_ID && ino <= t->nr_nodes ? &t->nodes[ino - 1] : NULL;
}

static void node_stat(const struct ctl_session *s, fuse_ino_t ino, struct stat *st)
{
	const struct ctl_node *n = &s->tree->nodes[ino - 1];

	*st = (struct stat){
		.st_ino = ino,
		.st_mode = n->attr ? S_IFREG | n->attr->mode : S_IFDIR | 0555,
		.st_nlink = n->attr ? 1 : 2,
		.st_size = n->attr ? FILE_BYTES : 0,
		.st_blksize = FILE_BYTES,
		.st_uid = s->uid,
		.st_gid = s->gid,
		.st_atim = n->mtime,
		.st_mtim = n->mtime,
		.st_ctim = n->mtime,
	};
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->max_write = WRITE_MAX_BYTES;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct ctl_session *s = session_of(req);
	struct fuse_entry_param entry = { .entry_timeout = NAME_SECONDS };
	size_t i;

	if (!node_of(req, parent) || ctl_tree_lookup(s->tree, parent - 1, name, &i) < 0) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	entry.ino = i + 1;
	node_stat(s, entry.ino, &entry.attr);
	fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	if (!node_of(req, ino)) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	node_stat(session_of(req), ino, &st);
	fuse_reply_attr(req, &st, 0);
}

/* Truncating is what a shell does before it writes. It changes nothing, and nothing else may be changed here. */
static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	struct ctl_node *n = node_of(req, ino);

	if (!n || !n->attr || !(to_set & FUSE_SET_ATTR_SIZE) ||
	    (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)))
		fuse_reply_err(req, n ? EPERM : ESTALE);
	else if (!n->attr->store)
		fuse_reply_err(req, EACCES);
	else
		op_getattr(req, ino, fi);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct ctl_session *s = session_of(req);
	struct ctl_node *n = node_of(req, ino);
	struct ctl_file *f;

	if (!n || !n->attr) {
		fuse_reply_err(req, n ? EISDIR : ESTALE);
		return;
	}
	/* The kernel lets root pass whatever the mode says. */
	if ((fi->flags & O_ACCMODE) != O_RDONLY && !n->attr->store) {
		fuse_reply_err(req, EACCES);
		return;
	}
	f = s->nr_files < FILES_MAX ? calloc(1, sizeof(*f)) : NULL;
	if (!f) {
		fuse_reply_err(req, s->nr_files < FILES_MAX ? ENOMEM : ENFILE);
		return;
	}
	buf_init(&f->shown, CTL_SHOW_MAX_BYTES);
	list_push_back(&s->files, &f->link);
	s->nr_files++;
	fi->fh = (uintptr_t)f;
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void file_free(struct ctl_session *s, struct ctl_file *f)
{
	list_del(&f->link);
	s->nr_files--;
	buf_done(&f->shown);
	free(f);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	file_free(session_of(req), (struct ctl_file *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct ctl_file *f = (struct ctl_file *)(uintptr_t)fi->fh;
	const struct ctl_attr *a = node_of(req, ino)->attr;
	size_t from;
	int rc = 0;

	if (off == 0 || f->shown.len == 0) {
		buf_clear(&f->shown);
		rc = a->show(session_of(req)->tree->ctx, a, &f->shown);
	}
	if (rc < 0) {
		buf_clear(&f->shown);
		fuse_reply_err(req, -rc);
		return;
	}
	from = min_of((size_t)off, f->shown.len);
	fuse_reply_buf(req, buf_str(&f->shown) + from, min_of(size, f->shown.len - from));
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *bytes, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct ctl_node *n = node_of(req, ino);
	int rc = -EINVAL;

	if (off == 0 || (fi->flags & O_APPEND))
		rc = ctl_attr_write(n->attr, session_of(req)->tree->ctx, bytes, size);
	if (rc < 0) {
		fuse_reply_err(req, -rc);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &n->mtime);
	fuse_reply_write(req, size);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct ctl_session *s = session_of(req);
	const struct ctl_tree *t = s->tree;
	char page[FILE_BYTES];
	size_t room = min_of(size, sizeof(page)), len = 0, need;
	struct stat st;

	/* The offset of an entry is its place in the array, plus three; 1 and 2 are . and .. */
	for (size_t i = (size_t)off; i < t->nr_nodes + 2; i++) {
		const char *name = i == 0 ? "." : i == 1 ? ".." : t->nodes[i - 2].name;
		fuse_ino_t entry = i == 0 ? ino : i == 1 ? t->nodes[ino - 1].parent + 1 : i - 1;

		if (i == 2 || (i > 2 && t->nodes[i - 2].parent != ino - 1))
			continue;
		node_stat(s, entry, &st);
		need = fuse_add_direntry(req, page + len, room - len, name, &st, (off_t)i + 1);
		if (need > room - len)
			break;
		len += need;
	}
	fuse_reply_buf(req, page, len);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = {
		.f_bsize = FILE_BYTES,
		.f_frsize = FILE_BYTES,
		.f_files = session_of(req)->tree->nr_nodes,
		.f_namemax = 255,
	};

	fuse_reply_statfs(req, &st);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	fuse_reply_err(req, EPERM);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	fuse_reply_err(req, EPERM);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fuse_reply_err(req, EPERM);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void op_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name,
		      unsigned flags)
{
	fuse_reply_err(req, EPERM);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	fuse_reply_err(req, EPERM);
}

const struct fuse_lowlevel_ops ctl_session_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.readdir = op_readdir,
	.statfs = op_statfs,
	.create = op_create,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_unlink,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
};

void ctl_session_init(struct ctl_session *s, struct ctl_tree *tree)
{
	*s = (struct ctl_session){ .tree = tree, .uid = getuid(), .gid = getgid() };
	list_init(&s->files);
}

void ctl_session_done(struct ctl_session *s)
{
	list_for_each_safe(l, next, &s->files)
		file_free(s, list_entry(l, struct ctl_file, link));
}
