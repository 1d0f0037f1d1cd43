// SPDX-License-Identifier: Apache-2.0
/*
 * Directory listings, streamed page by page from ListObjectsV2.
 *
 * Design: an open directory holds two pages, the one being read and the one before it, and asks for the next one
 * while the present one is read; so a prefix with a million keys costs two pages of memory. An entry's offset is
 * its place in the stream. Going back further than the page before starts the list again. An object whose name is
 * also a prefix is held back until the list has passed the prefix: then the directory wins, or the object is shown.
 * Threads: pages arrive in an S3 thread; a directory's state is guarded by its lock; replies on transport threads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/fs_i.h"

#define PAGE_KEYS 1000
#define BAD_PAGES_MAX 5
/* "." and ".." come first. */
#define NR_DOTS 2
/* Above it, entries carry no attributes and the kernel looks them up: its inodes and ours stay bounded. */
#define NODES_MAX 100000

struct dir_entry {
	struct meta_record rec;
	char name[];
};

struct dir_page {
	uint64_t first; /* place of its first entry in the stream, counted from 0 */
	unsigned nr, cap;
	struct dir_entry **entry;
};

/* What the list hands out for one page before it is put in order. */
struct dir_raw {
	struct dir_entry **object, **prefix;
	unsigned nr_objects, nr_prefixes, cap_objects, cap_prefixes;
};

struct dir_handle {
	struct fs_work work; /* of the request that waits */
	struct fs *fs;
	pthread_mutex_t lock;
	char path[S3_KEY_MAX + 1], prefix[S3_KEY_MAX + 2];
	struct dir_page page[2]; /* [1] is the newer one */
	struct dir_page next;    /* arrived, not read yet */
	struct dir_raw raw;
	struct s3_list list;
	char *token;
	bool running, next_ready, finished, started, closing;
	int error;
	unsigned nr_held;
	struct dir_entry *held[FS_NAME_MAX + 1]; /* each is the beginning of the next one's name */
	char last_prefix[FS_NAME_MAX + 1], last_key[FS_NAME_MAX + 2];
	unsigned nr_bad_pages;
	uint64_t nr_entries;
	/* the request that waits for the next page */
	fuse_req_t req;
	size_t size;
	uint64_t place;
	bool plus;
};

static void page_clear(struct dir_page *p)
{
	for (unsigned i = 0; i < p->nr; i++)
		free(p->entry[i]);
	free(p->entry);
	*p = (struct dir_page){ 0 };
}

static int entries_push(struct dir_entry ***entries, unsigned *nr, unsigned *cap, struct dir_entry *e)
{
	if (*nr == *cap) {
		unsigned want = *cap ? *cap * 2 : 64;
		struct dir_entry **grown = realloc(*entries, want * sizeof(**entries));

		if (!grown)
			return -ENOMEM;
		*entries = grown;
		*cap = want;
	}
	(*entries)[(*nr)++] = e;
	return 0;
}

static void raw_clear(struct dir_raw *raw)
{
	for (unsigned i = 0; i < raw->nr_objects; i++)
		free(raw->object[i]);
	for (unsigned i = 0; i < raw->nr_prefixes; i++)
		free(raw->prefix[i]);
	free(raw->object);
	free(raw->prefix);
	*raw = (struct dir_raw){ 0 };
}

static struct dir_entry *entry_new(const char *name, size_t len, const struct meta_record *rec)
{
	struct dir_entry *e = malloc(sizeof(*e) + len + 1);

	if (e) {
		e->rec = *rec;
		memcpy(e->name, name, len);
		e->name[len] = '\0';
	}
	return e;
}

static int on_object(void *ctx, const struct s3_list_object *o)
{
	struct dir_handle *d = ctx;
	size_t skip = strlen(d->prefix);
	struct meta_record rec = { .kind = META_FILE, .size_bytes = o->size, .mtime = o->mtime };
	struct dir_entry *e;

	/* The directory's own marker, and what a server should not have sent. */
	if (o->key_len <= skip || memcmp(o->key, d->prefix, skip) != 0)
		return 0;
	if (memchr(o->key + skip, '/', o->key_len - skip) ||
	    !fs_name_usable(d->fs, o->key + skip, o->key_len - skip, o->key, o->key_len))
		return 0;
	memcpy(rec.etag, o->etag, sizeof(rec.etag));
	memcpy(rec.storage_class, o->storage_class_name, sizeof(rec.storage_class));
	e = entry_new(o->key + skip, o->key_len - skip, &rec);
	if (!e)
		return -ENOMEM;
	if (entries_push(&d->raw.object, &d->raw.nr_objects, &d->raw.cap_objects, e) < 0) {
		free(e);
		return -ENOMEM;
	}
	return 0;
}

static int on_prefix(void *ctx, const char *prefix, size_t len)
{
	struct dir_handle *d = ctx;
	size_t skip = strlen(d->prefix);
	struct meta_record rec = { .kind = META_DIR };
	struct dir_entry *e;
	size_t name_len;

	if (len <= skip || memcmp(prefix, d->prefix, skip) != 0)
		return 0;
	name_len = len - skip - (prefix[len - 1] == '/');
	if (!fs_name_usable(d->fs, prefix + skip, name_len, prefix, len))
		return 0;
	e = entry_new(prefix + skip, name_len, &rec);
	if (!e)
		return -ENOMEM;
	if (entries_push(&d->raw.prefix, &d->raw.nr_prefixes, &d->raw.cap_prefixes, e) < 0) {
		free(e);
		return -ENOMEM;
	}
	return 0;
}

/* Order of the keys behind the names: a directory's ends with a slash. */
static int entry_compare(const struct dir_entry *object, const struct dir_entry *prefix)
{
	const unsigned char *a = (const unsigned char *)object->name, *b = (const unsigned char *)prefix->name;

	while (*a && *a == *b) {
		a++;
		b++;
	}
	return (int)*a - (*b ? (int)*b : '/');
}

static void emit(struct dir_handle *d, struct dir_entry *e)
{
	if (entries_push(&d->next.entry, &d->next.nr, &d->next.cap, e) < 0) {
		free(e);
		d->error = -ENOMEM;
	}
}

/* Objects held back whose prefix can come no more are shown; one whose prefix is here is hidden. */
static void held_release(struct dir_handle *d, const struct dir_entry *upcoming)
{
	while (d->nr_held) {
		struct dir_entry *h = d->held[d->nr_held - 1];
		size_t len = strlen(h->name);

		if (upcoming && strncmp(upcoming->name, h->name, len) == 0) {
			unsigned char next = (unsigned char)upcoming->name[len];

			if (next == '\0' && upcoming->rec.kind == META_DIR) {
				log_warn("fs", "bucket=%s key=%s%s: hidden, keys below it make it a directory",
					 d->fs->bucket, d->prefix, h->name);
				free(h);
				d->nr_held--;
				continue;
			}
			if (next < '/')
				return;
		}
		emit(d, h);
		d->nr_held--;
	}
}

static void stream_entry(struct dir_handle *d, struct dir_entry *e)
{
	held_release(d, e);
	if (e->rec.kind == META_FILE) {
		if (d->nr_held < FS_NAME_MAX)
			d->held[d->nr_held++] = e;
		else
			emit(d, e);
		return;
	}
	/* Some servers repeat a prefix at the head of the next page. */
	if (strcmp(d->last_prefix, e->name) == 0) {
		free(e);
		return;
	}
	snprintf(d->last_prefix, sizeof(d->last_prefix), "%s", e->name);
	emit(d, e);
}

/* A key as the list is sorted by: a directory's name ends with a slash. */
static const char *entry_key(const struct dir_entry *e, char ret[FS_NAME_MAX + 2])
{
	snprintf(ret, FS_NAME_MAX + 2, "%s%s", e->name, e->rec.kind == META_DIR ? "/" : "");
	return ret;
}

/* Do these go on after <last> in order? A server that repeats the last prefix at the head of a page is forgiven. */
static bool entries_rise(struct dir_entry *const *entry, unsigned nr, const char *last)
{
	char key[2][FS_NAME_MAX + 2];

	for (unsigned i = 0; i < nr; i++) {
		int order = strcmp(entry_key(entry[i], key[i & 1]), i ? key[~i & 1] : last);

		if (order < 0 || (order == 0 && (i > 0 || entry[i]->rec.kind != META_DIR)))
			return false;
	}
	return true;
}

/*
 * A page that does not go on where the one before ended would show names twice, or leave some out: it is asked for
 * again, and in the end the listing fails.
 */
static bool page_follows(const struct dir_handle *d)
{
	return entries_rise(d->raw.object, d->raw.nr_objects, d->last_key) &&
	       entries_rise(d->raw.prefix, d->raw.nr_prefixes, d->last_key);
}

static void page_remember_last(struct dir_handle *d)
{
	const struct dir_raw *raw = &d->raw;
	char key[FS_NAME_MAX + 2];

	if (raw->nr_objects)
		entry_key(raw->object[raw->nr_objects - 1], d->last_key);
	if (raw->nr_prefixes && strcmp(entry_key(raw->prefix[raw->nr_prefixes - 1], key), d->last_key) > 0)
		memcpy(d->last_key, key, sizeof(key));
}

/* Merges the page's two sorted lists into the stream. */
static void page_build(struct dir_handle *d)
{
	struct dir_raw *raw = &d->raw;
	unsigned i = 0, j = 0;

	page_remember_last(d);
	while (i < raw->nr_objects || j < raw->nr_prefixes) {
		if (j == raw->nr_prefixes || (i < raw->nr_objects && entry_compare(raw->object[i], raw->prefix[j]) < 0))
			stream_entry(d, raw->object[i++]);
		else
			stream_entry(d, raw->prefix[j++]);
	}
	raw->nr_objects = raw->nr_prefixes = 0;
	raw_clear(raw);
	if (d->finished)
		held_release(d, NULL);
	d->next.first = d->nr_entries;
	d->nr_entries += d->next.nr;
}

static void list_restart(struct s3_list *l)
{
	raw_clear(&((struct dir_handle *)l->ops_ctx)->raw);
}

static void dir_serve(struct dir_handle *d);
static void dir_free(struct dir_handle *d);

static void dir_work(struct fs_work *w)
{
	struct dir_handle *d = list_entry(w, struct dir_handle, work);

	pthread_mutex_lock(&d->lock);
	dir_serve(d);
}

static void list_done(struct s3_list *l, int error, const char *message)
{
	struct dir_handle *d = l->ops_ctx;
	bool waiting, closing, again;

	pthread_mutex_lock(&d->lock);
	if (error == 0 && !page_follows(d)) {
		log_warn("fs", "LIST bucket=%s prefix=%s: a page does not go on after the one before", d->fs->bucket,
			 d->prefix);
		error = -EBADMSG;
	}
	again = error == -EBADMSG && ++d->nr_bad_pages <= BAD_PAGES_MAX && !d->closing;
	if (again) {
		raw_clear(&d->raw);
		free(take_ptr(l->next_token));
		pthread_mutex_unlock(&d->lock);
		s3_list_submit(d->fs->cfg.client, l);
		return;
	}
	d->running = false;
	if (error < 0) {
		d->error = error;
		raw_clear(&d->raw);
		free(take_ptr(l->next_token));
	} else {
		free(d->token);
		d->token = take_ptr(l->next_token);
		d->nr_bad_pages = 0;
		d->finished = !d->token;
		page_build(d);
	}
	d->next_ready = true;
	waiting = d->req;
	closing = d->closing;
	pthread_mutex_unlock(&d->lock);
	if (closing)
		dir_free(d);
	else if (waiting)
		fs_defer(d->fs, &d->work, d->work.io, dir_work);
}

/* Asks for the next page, unless it is here or on its way. Returns whether a list is to be submitted. */
static bool dir_want_page(struct dir_handle *d)
{
	static const struct s3_list_ops ops = { .object = on_object, .common_prefix = on_prefix };

	if (d->running || d->next_ready || d->finished || d->error < 0)
		return false;
	d->list = (struct s3_list){
		.op = { .demand = true, .deadline_ns = clock_mono_ns() + d->fs->cfg.read_deadline_ns },
		.prefix = d->prefix,
		.delimiter = "/",
		.start_after = "",
		.token = d->token ? d->token : "",
		.max_keys = PAGE_KEYS,
		.ops = &ops,
		.ops_ctx = d,
		.restart = list_restart,
		.done = list_done,
	};
	d->running = d->started = true;
	return true;
}

static void dir_rewind(struct dir_handle *d)
{
	page_clear(&d->page[0]);
	page_clear(&d->page[1]);
	page_clear(&d->next);
	free(take_ptr(d->token));
	while (d->nr_held)
		free(d->held[--d->nr_held]);
	d->last_prefix[0] = d->last_key[0] = '\0';
	d->nr_bad_pages = 0;
	d->nr_entries = 0;
	d->finished = d->next_ready = d->started = false;
	d->error = 0;
}

static void dir_free(struct dir_handle *d)
{
	dir_rewind(d);
	raw_clear(&d->raw);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static const struct dir_entry *dir_at(const struct dir_handle *d, uint64_t place)
{
	for (int i = 0; i < 2; i++) {
		const struct dir_page *p = &d->page[i];

		if (p->nr && place >= p->first && place < p->first + p->nr)
			return p->entry[place - p->first];
	}
	return NULL;
}

static void dir_turn_page(struct dir_handle *d)
{
	page_clear(&d->page[0]);
	d->page[0] = d->page[1];
	d->page[1] = d->next;
	d->next = (struct dir_page){ 0 };
	d->next_ready = false;
}

/* One entry into the reply; 0 when it does not fit any more. */
static size_t add_entry(struct dir_handle *d, char *buf, size_t room, const struct dir_entry *e, uint64_t next_off)
{
	struct fs *fs = d->fs;
	struct fuse_entry_param p = { 0 };
	char path[S3_KEY_MAX + 1];
	struct node *n = NULL;
	size_t need;

	need = d->plus ? fuse_add_direntry_plus(d->req, NULL, 0, e->name, &p, 0)
		       : fuse_add_direntry(d->req, NULL, 0, e->name, &p.attr, 0);
	if (need > room)
		return 0;
	if (fs_path_join(d->path, e->name, path) == 0) {
		/* Lists of some servers carry no ETag: a version cannot be named then, and the lookup asks for it. */
		bool known = e->rec.kind == META_DIR || e->rec.etag[0];

		if (d->plus && known && node_count(fs->nodes) < NODES_MAX)
			n = node_lookup(fs->nodes, path, &e->rec);
		else if (known && fs->cfg.metadata_ttl_ns)
			meta_put(fs->meta, path, &e->rec, clock_mono_ns() + fs->cfg.metadata_ttl_ns);
	}
	if (n) {
		fs_entry_fill(fs, n, &p);
	} else {
		p.attr.st_mode = e->rec.kind == META_DIR ? S_IFDIR : S_IFREG;
		p.attr.st_ino = node_id(path, &e->rec);
	}
	return d->plus ? fuse_add_direntry_plus(d->req, buf, room, e->name, &p, (off_t)next_off)
		       : fuse_add_direntry(d->req, buf, room, e->name, &p.attr, (off_t)next_off);
}

static size_t add_dot(struct dir_handle *d, char *buf, size_t room, const char *name, uint64_t next_off)
{
	struct fuse_entry_param p = { .attr = { .st_ino = ~0ull, .st_mode = S_IFDIR } };
	size_t n = d->plus ? fuse_add_direntry_plus(d->req, buf, room, name, &p, (off_t)next_off)
			   : fuse_add_direntry(d->req, buf, room, name, &p.attr, (off_t)next_off);

	return n > room ? 0 : n;
}

static size_t dir_fill(struct dir_handle *d, char *buf)
{
	size_t used = 0, n;

	for (;; used += n, d->place++) {
		if (d->place < NR_DOTS) {
			n = add_dot(d, buf + used, d->size - used, d->place == 0 ? "." : "..", d->place + 1);
		} else {
			const struct dir_entry *e = dir_at(d, d->place - NR_DOTS);

			n = e ? add_entry(d, buf + used, d->size - used, e, d->place + 1) : 0;
		}
		if (n == 0)
			return used;
	}
}

/* Is the answer to the waiting request known: entries, the end or an error? Turns pages on the way to its place. */
static bool dir_ready(struct dir_handle *d)
{
	uint64_t place = d->place < NR_DOTS ? 0 : d->place - NR_DOTS;

	for (;;) {
		if (d->place < NR_DOTS || dir_at(d, place))
			return true;
		if (d->started && place < d->nr_entries && !d->running && !(d->next_ready && place >= d->next.first)) {
			dir_rewind(d);
			return false;
		}
		if (!d->next_ready)
			return d->finished || d->error < 0;
		if (d->error < 0 && !d->next.nr)
			return true;
		dir_turn_page(d);
	}
}

/*
 * On a transport thread, with the lock held, which it lets go: answers the waiting request, or leaves it waiting
 * for a page.
 */
static void dir_serve(struct dir_handle *d)
{
	_cleanup_free_ char *buf = NULL;
	fuse_req_t req = NULL;
	bool submit;
	size_t used = 0;
	int error = 0;

	if (dir_ready(d)) {
		buf = malloc(d->size);
		used = buf ? dir_fill(d, buf) : 0;
		if (!buf) {
			error = ENOMEM;
		} else if (used == 0 && d->error < 0) {
			/* The next try asks again. */
			error = fs_errno(d->error);
			d->error = 0;
			d->next_ready = false;
		}
		req = take_ptr(d->req);
	}
	submit = error == 0 && dir_want_page(d);
	pthread_mutex_unlock(&d->lock);
	if (submit)
		s3_list_submit(d->fs->cfg.client, &d->list);
	/* After the reply the directory may be closed and gone. */
	if (req && error)
		fuse_reply_err(req, error);
	else if (req)
		fuse_reply_buf(req, buf, used);
}

static void dir_read(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
	struct dir_handle *d = (struct dir_handle *)(uintptr_t)fi->fh;

	d->fs->readdirs++;
	pthread_mutex_lock(&d->lock);
	if (d->req) {
		/* The kernel holds a directory's lock over a readdir, so there is one at a time. */
		pthread_mutex_unlock(&d->lock);
		fuse_reply_err(req, EBUSY);
		return;
	}
	d->req = req;
	d->size = size;
	d->place = (uint64_t)off;
	d->plus = plus;
	d->work.io = fs_current_io;
	dir_serve(d);
}

void fs_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	dir_read(req, size, off, fi, false);
}

void fs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	dir_read(req, size, off, fi, true);
}

void fs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct node *n = node_get(fs->nodes, ino);
	struct dir_handle *d;

	if (!n || n->kind != META_DIR) {
		fuse_reply_err(req, n ? ENOTDIR : ESTALE);
		return;
	}
	d = calloc(1, sizeof(*d));
	if (!d) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	d->fs = fs;
	pthread_mutex_init(&d->lock, NULL);
	snprintf(d->path, sizeof(d->path), "%s", node_path(n));
	if (snprintf(d->prefix, sizeof(d->prefix), "%s%s%s", fs->prefix, d->path, d->path[0] ? "/" : "") >=
	    (int)sizeof(d->prefix)) {
		dir_free(d);
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	fi->fh = (uintptr_t)d;
	if (fuse_reply_open(req, fi) < 0)
		dir_free(d);
}

void fs_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct dir_handle *d = (struct dir_handle *)(uintptr_t)fi->fh;
	bool running;

	pthread_mutex_lock(&d->lock);
	d->closing = true;
	running = d->running;
	pthread_mutex_unlock(&d->lock);
	/* A page on its way frees the handle when it arrives. */
	if (!running)
		dir_free(d);
	fuse_reply_err(req, 0);
}
