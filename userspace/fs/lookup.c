// SPDX-License-Identifier: Apache-2.0
/*
 * Looking a name up: is there an object of that key, is there anything below it, or neither?
 *
 * Design: what is known is taken from the metadata table. Else two one-key lists run side by side: the first key at
 * or after KEY tells the object with its size, time and ETag; the first key below KEY/ tells the directory, which
 * wins. Where many names of one directory are asked for, a page of siblings is fetched instead of the first list: a
 * walk over a directory larger than the table then costs a request for a thousand names. A page that ends before the
 * name came tells nothing about it: then the key is asked for alone.
 * Threads: completions in an S3 thread; the reply on a transport thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/fs_i.h"

#define SWEEP_MISSES 8
#define SWEEP_LIFE_NS (10 * NSEC_PER_SEC)
#define SWEEP_KEYS 1000

struct lookup_op {
	struct fs_work work, killed_work;
	struct fs_wait wait;
	bool killed;
	atomic_uint refs; /* the lookup, and its early end */
	atomic_bool replied;
	struct fs *fs;
	fuse_req_t req;
	char path[S3_KEY_MAX + 1];
	char key[S3_KEY_MAX + 1];
	char below[S3_KEY_MAX + 2]; /* key + "/" */
	struct s3_list object_list, below_list;
	struct s3_head head;
	/* A page of siblings: the directory's key, where the page starts, and the object before the present one. */
	bool sweep, passed;
	char dir[S3_KEY_MAX + 2], after[S3_KEY_MAX + 2], held[S3_KEY_MAX + 1];
	struct meta_record held_rec;
	struct meta_record object;
	bool has_object, has_below; /* <passed>: the page went beyond the key */
	uint64_t deadline_ns;
	atomic_int nr_running, error;
};

void fs_entry_fill(struct fs *fs, struct node *n, struct fuse_entry_param *e)
{
	struct meta_record rec;

	memset(e, 0, sizeof(*e));
	node_record(n, &rec);
	e->ino = n->id;
	fs_attr(fs, n->id, &rec, &e->attr);
	e->attr_timeout = e->entry_timeout = fs_seconds(fs->cfg.metadata_ttl_ns);
}

static void reply_record(struct fs *fs, fuse_req_t req, const char *path, const struct meta_record *rec)
{
	struct fuse_entry_param e = { 0 };
	struct node *n;

	if (rec->kind == META_NONE) {
		/* ino 0 is a negative entry that the kernel may keep. */
		e.entry_timeout = fs_seconds(min_of(fs->cfg.metadata_ttl_ns, (uint64_t)FS_NEGATIVE_TTL_NS));
		fuse_reply_entry(req, &e);
		return;
	}
	n = node_lookup(fs->nodes, path, rec);
	if (!n) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	fs_entry_fill(fs, n, &e);
	if (fuse_reply_entry(req, &e) < 0)
		node_forget(fs->nodes, n->id, 1);
}

static void lookup_put(struct lookup_op *op)
{
	if (atomic_fetch_sub(&op->refs, 1) == 1)
		free(op);
}

static void lookup_killed_reply(struct fs_work *w)
{
	struct lookup_op *op = list_entry(w, struct lookup_op, killed_work);

	if (!atomic_exchange(&op->replied, true))
		fuse_reply_err(op->req, EINTR);
	lookup_put(op);
}

static void lookup_killed(struct fs_wait *w)
{
	struct lookup_op *op = list_entry(w, struct lookup_op, wait);

	if (op->killed)
		return;
	op->killed = true;
	atomic_fetch_add(&op->refs, 1);
	fs_defer(op->fs, &op->killed_work, op->work.io, lookup_killed_reply);
}

static void lookup_reply(struct fs_work *w)
{
	struct lookup_op *op = list_entry(w, struct lookup_op, work);
	struct meta_record rec = { .kind = META_NONE };
	struct fs *fs = op->fs;
	uint64_t ttl = fs->cfg.metadata_ttl_ns;

	fs_wait_end(fs, &op->wait);
	if (atomic_exchange(&op->replied, true)) {
		lookup_put(op);
		return;
	}
	if (op->error < 0) {
		fuse_reply_err(op->req, fs_errno(op->error));
		lookup_put(op);
		return;
	}
	if (op->has_below) {
		rec.kind = META_DIR;
		if (op->has_object)
			log_warn("fs", "bucket=%s key=%s: hidden, keys below %s make it a directory", fs->bucket,
				 op->key, op->below);
	} else if (op->has_object) {
		rec = op->object;
	} else {
		ttl = min_of(ttl, (uint64_t)FS_NEGATIVE_TTL_NS);
	}
	if (ttl)
		meta_put(fs->meta, op->path, &rec, clock_mono_ns() + ttl);
	reply_record(fs, op->req, op->path, &rec);
	lookup_put(op);
}

static void lookup_part_done(struct lookup_op *op, int error)
{
	if (error < 0 && error != -ENOENT)
		op->error = error;
	if (atomic_fetch_sub(&op->nr_running, 1) == 1)
		fs_defer(op->fs, &op->work, op->work.io, lookup_reply);
}

static void record_of(const struct s3_list_object *o, struct meta_record *rec)
{
	*rec = (struct meta_record){ .kind = META_FILE, .size_bytes = o->size, .mtime = o->mtime };
	memcpy(rec->etag, o->etag, sizeof(rec->etag));
	memcpy(rec->storage_class, o->storage_class_name, sizeof(rec->storage_class));
}

static int on_object(void *ctx, const struct s3_list_object *o)
{
	struct lookup_op *op = ctx;

	if (o->key_len == strlen(op->key) && memcmp(o->key, op->key, o->key_len) == 0) {
		record_of(o, &op->object);
		op->has_object = true;
	}
	return 0;
}

static void sibling_put(struct lookup_op *op, const char *key, size_t len, const struct meta_record *rec)
{
	size_t skip = strlen(op->fs->prefix);
	char path[S3_KEY_MAX + 1];

	if (len <= skip || len - skip > S3_KEY_MAX || memchr(key, '\0', len))
		return;
	memcpy(path, key + skip, len - skip);
	path[len - skip] = '\0';
	meta_put(op->fs->meta, path, rec, clock_mono_ns() + op->fs->cfg.metadata_ttl_ns);
}

/*
 * An object is known to be a file only when the list is past KEY/, which a key that begins with KEY and goes on
 * below "/" does not tell. Others are left out: a lookup of theirs asks.
 */
static void held_put(struct lookup_op *op, const char *next)
{
	size_t len = strlen(op->held);

	if (len && op->held_rec.etag[0] && !(strncmp(next, op->held, len) == 0 && (unsigned char)next[len] < '/'))
		sibling_put(op, op->held, len, &op->held_rec);
	op->held[0] = '\0';
}

static int on_sibling(void *ctx, const struct s3_list_object *o)
{
	struct lookup_op *op = ctx;

	held_put(op, o->key);
	op->passed |= strcmp(o->key, op->key) > 0;
	if (o->key_len && o->key_len == strlen(o->key) && o->key[o->key_len - 1] != '/') {
		snprintf(op->held, sizeof(op->held), "%s", o->key);
		record_of(o, &op->held_rec);
	}
	return on_object(ctx, o);
}

/* After the objects of the page: where both have a name, the directory stays. */
static int on_sibling_dir(void *ctx, const char *prefix, size_t len)
{
	struct meta_record rec = { .kind = META_DIR };
	struct lookup_op *op = ctx;

	op->passed |= strcmp(prefix, op->key) > 0;
	if (len > 1 && prefix[len - 1] == '/')
		sibling_put(op, prefix, len - 1, &rec);
	return 0;
}

static int on_below(void *ctx, const struct s3_list_object *o)
{
	struct lookup_op *op = ctx;

	if (strncmp(o->key, op->below, strlen(op->below)) == 0)
		op->has_below = true;
	return 0;
}

static int on_prefix(void *ctx, const char *prefix, size_t len)
{
	return 0;
}

/* Lists of some servers carry no ETag: then the version is asked for by name. */
static void head_done(struct s3_head *h, int error)
{
	struct lookup_op *op = list_entry(h, struct lookup_op, head);

	if (error == 0) {
		memcpy(op->object.etag, h->reply.etag, sizeof(op->object.etag));
		if (h->reply.has_length)
			op->object.size_bytes = h->reply.length;
		if (h->reply.has_mtime)
			op->object.mtime = h->reply.mtime;
	}
	lookup_part_done(op, error);
}

static void object_list_submit(struct lookup_op *op);

static void object_done(struct s3_list *l, int error, const char *message)
{
	struct lookup_op *op = list_entry(l, struct lookup_op, object_list);
	bool ended = !l->next_token;

	if (op->sweep && error == 0 && ended)
		held_put(op, "");
	free(take_ptr(l->next_token));
	if (op->sweep && error == 0 && !ended && !op->passed && !op->has_object) {
		op->sweep = false;
		object_list_submit(op);
		return;
	}
	if (error == 0 && op->has_object && !op->object.etag[0]) {
		op->head.key = op->key;
		op->head.done = head_done;
		op->head.op.demand = true;
		op->head.op.deadline_ns = l->op.deadline_ns;
		s3_head_submit(op->fs->cfg.client, &op->head);
		return;
	}
	lookup_part_done(op, error);
}

static void below_done(struct s3_list *l, int error, const char *message)
{
	free(take_ptr(l->next_token));
	lookup_part_done(list_entry(l, struct lookup_op, below_list), error);
}

static void list_setup(struct s3_list *l, struct lookup_op *op, const char *prefix, const struct s3_list_ops *ops)
{
	*l = (struct s3_list){
		.op = { .demand = true, .deadline_ns = op->deadline_ns },
		.prefix = prefix,
		.delimiter = "",
		.start_after = "",
		.token = "",
		.max_keys = 1,
		.ops = ops,
		.ops_ctx = op,
	};
}

/* Are many names of this directory being asked for? */
static bool dir_swept(struct node *dir)
{
	uint64_t now = clock_mono_ns();

	if (now - dir->miss_ns > SWEEP_LIFE_NS)
		dir->nr_misses = 0;
	dir->miss_ns = now;
	return ++dir->nr_misses > SWEEP_MISSES;
}

/* A key just before <op>'s, so that a list after it begins there; false where none can be written. */
static bool sweep_start(struct lookup_op *op, const char *dir_path)
{
	size_t len = strlen(op->key);
	unsigned char last = (unsigned char)op->key[len - 1];

	if (last <= ' ' || last > '~' || len + 1 > S3_KEY_MAX)
		return false;
	snprintf(op->after, sizeof(op->after), "%.*s%c~", (int)len - 1, op->key, last - 1);
	snprintf(op->dir, sizeof(op->dir), "%s%s%s", op->fs->prefix, dir_path, dir_path[0] ? "/" : "");
	return true;
}

static void object_list_submit(struct lookup_op *op)
{
	static const struct s3_list_ops sibling_ops = { .object = on_sibling, .common_prefix = on_sibling_dir };
	static const struct s3_list_ops object_ops = { .object = on_object, .common_prefix = on_prefix };

	list_setup(&op->object_list, op, op->key, &object_ops);
	op->object_list.done = object_done;
	if (op->sweep) {
		op->object_list.ops = &sibling_ops;
		op->object_list.prefix = op->dir;
		op->object_list.delimiter = "/";
		op->object_list.start_after = op->after;
		op->object_list.max_keys = SWEEP_KEYS;
	}
	s3_list_submit(op->fs->cfg.client, &op->object_list);
}

static void below_list_submit(struct lookup_op *op)
{
	static const struct s3_list_ops below_ops = { .object = on_below, .common_prefix = on_prefix };

	list_setup(&op->below_list, op, op->below, &below_ops);
	op->below_list.done = below_done;
	s3_list_submit(op->fs->cfg.client, &op->below_list);
}

static void lookup_ask(struct lookup_op *op)
{
	/* A key of full length has nothing below it. */
	bool ask_below = strlen(op->below) <= S3_KEY_MAX;

	op->deadline_ns = clock_mono_ns() + op->fs->cfg.read_deadline_ns;
	op->nr_running = ask_below ? 2 : 1;
	object_list_submit(op);
	if (ask_below)
		below_list_submit(op);
}

void fs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs *fs = fs_of(req);
	struct node *dir = node_get(fs->nodes, parent);
	struct meta_record rec;
	struct lookup_op *op;

	fs->lookups++;
	if (!dir) {
		fuse_reply_err(req, ESTALE);
		return;
	}
	op = strlen(name) <= FS_NAME_MAX ? calloc(1, sizeof(*op)) : NULL;
	if (!op) {
		fuse_reply_err(req, strlen(name) > FS_NAME_MAX ? ENAMETOOLONG : ENOMEM);
		return;
	}
	if (fs_path_join(node_path(dir), name, op->path) < 0 || fs_key(fs, op->path, op->key) < 0) {
		/* No key can be that long. */
		fuse_reply_err(req, ENAMETOOLONG);
		free(op);
		return;
	}
	rec.kind = META_NONE;
	if (fs_path_hidden(op->path) || meta_get(fs->meta, op->path, clock_mono_ns(), &rec)) {
		reply_record(fs, req, op->path, &rec);
		free(op);
		return;
	}
	op->fs = fs;
	op->req = req;
	op->work.io = fs_current_io;
	op->refs = 1;
	fs_wait_begin(fs, &op->wait, fs_current_unique, fuse_req_ctx(req)->pid, lookup_killed);
	snprintf(op->below, sizeof(op->below), "%s/", op->key);
	op->sweep = fs->cfg.metadata_ttl_ns && dir_swept(dir) && sweep_start(op, node_path(dir));
	lookup_ask(op);
}
