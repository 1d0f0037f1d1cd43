// SPDX-License-Identifier: Apache-2.0
/* What every credential source shares: text that is wiped, files that are watched, waiting with a deadline. */
#include "s3/creds_i.h"

#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"

int creds_text_init(struct creds_text *t, size_t max_bytes)
{
	*t = (struct creds_text){ .data = calloc(1, max_bytes + 1), .max = max_bytes };
	return t->data ? 0 : -ENOMEM;
}

void creds_text_wipe(struct creds_text *t)
{
	if (t->data)
		explicit_bzero(t->data, t->max);
	free(t->data);
	*t = (struct creds_text){ 0 };
}

int creds_text_add(struct creds_text *t, const void *bytes, size_t len)
{
	if (len > t->max - t->len)
		return -E2BIG;
	if (len)
		memcpy(t->data + t->len, bytes, len);
	t->len += len;
	t->data[t->len] = '\0';
	return 0;
}

int creds_text_add_str(struct creds_text *t, const char *s)
{
	return creds_text_add(t, s, strlen(s));
}

int creds_text_add_encoded(struct creds_text *t, const char *s)
{
	static const char hex[] = "0123456789ABCDEF";

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;
		char escaped[3] = { '%', hex[c >> 4], hex[c & 15] };
		bool plain = (c < 0x80 && isalnum(c)) || strchr("-._~", c);
		int rc = creds_text_add(t, plain ? s : escaped, plain ? 1 : 3);

		if (rc < 0)
			return rc;
	}
	return 0;
}

const char *creds_env(const struct creds_fetch *f, const char *name)
{
	const char *v = f->cfg->getenv_fn ? f->cfg->getenv_fn(f->cfg->getenv_ctx, name) : getenv(name);

	return v && *v ? v : NULL;
}

const char *creds_env_region(const struct creds_fetch *f)
{
	const char *v = creds_env(f, "AWS_REGION");

	return v ? v : creds_env(f, "AWS_DEFAULT_REGION");
}

void creds_looked(struct creds_fetch *f, const char *fmt, ...)
{
	size_t used = strlen(f->looked);
	va_list ap;

	if (used && used + 2 < sizeof(f->looked)) {
		memcpy(f->looked + used, "; ", 3);
		used += 2;
	}
	va_start(ap, fmt);
	vsnprintf(f->looked + used, sizeof(f->looked) - used, fmt, ap);
	va_end(ap);
}

long creds_left_ms(const struct creds_fetch *f)
{
	uint64_t now = clock_mono_ns();

	return now >= f->deadline_ns ? 0 : (long)((f->deadline_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

int creds_sleep(const struct creds_fetch *f, long ms)
{
	struct pollfd pfd = { .fd = f->stop_fd, .events = POLLIN };
	long left = creds_left_ms(f);

	if (poll(&pfd, 1, (int)min_of(ms, left)) > 0)
		return -ECANCELED;
	return ms > left ? -ETIMEDOUT : 0;
}

static void watch_set(struct creds_watch *w, const struct stat *st)
{
	w->exists = st != NULL;
	if (st) {
		w->mtime = st->st_mtim;
		w->size = st->st_size;
		w->inode = st->st_ino;
	}
}

static struct creds_watch *watch_add(struct creds_fetch *f, const char *path)
{
	struct creds_watch *w;

	if (f->nr_watch == CREDS_WATCH_MAX || strlen(path) >= sizeof(w->path))
		return NULL;
	w = &f->watch[f->nr_watch++];
	*w = (struct creds_watch){ 0 };
	memcpy(w->path, path, strlen(path) + 1);
	return w;
}

bool creds_files_changed(const struct creds_watch *watch, unsigned nr)
{
	for (const struct creds_watch *w = watch; w < watch + nr; w++) {
		struct stat st;

		if (stat(w->path, &st) < 0) {
			if (w->exists)
				return true;
			continue;
		}
		if (!w->exists || st.st_size != w->size || st.st_ino != w->inode ||
		    st.st_mtim.tv_sec != w->mtime.tv_sec || st.st_mtim.tv_nsec != w->mtime.tv_nsec)
			return true;
	}
	return false;
}

static int read_all(int fd, struct creds_text *t)
{
	while (t->len < t->max) {
		ssize_t n = read(fd, t->data + t->len, t->max - t->len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		t->len += (size_t)n;
	}
	t->data[t->len] = '\0';
	return 0;
}

int creds_file_read(struct creds_fetch *f, const char *path, size_t max_bytes, struct creds_text *ret, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct creds_watch *w = watch_add(f, path);
	struct stat st;
	int rc;

	if (!w)
		return err_set(e, -ENAMETOOLONG, "%.80s...: the path is longer than %d bytes", path,
			       CREDS_PATH_MAX - 1);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0)
		return err_set(e, -errno, "%s: cannot be opened: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "%s: %s", path, strerror(errno));
	/* Watched before it is read: a write in between shows as a change. */
	watch_set(w, &st);
	if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode))
		return err_set(e, -EINVAL, "%s: is not a regular file", path);
	/* One byte of room above the limit tells a file that fits from one that does not. */
	rc = creds_text_init(ret, max_bytes + 1);
	if (rc == 0)
		rc = read_all(fd, ret);
	if (rc < 0)
		return err_set(e, rc, "%s: cannot be read: %s", path, strerror(-rc));
	if (ret->len > max_bytes)
		return err_set(e, -EFBIG, "%s: is larger than %zu bytes", path, max_bytes);
	return 0;
}

int creds_token_read(struct creds_fetch *f, const char *what, const char *path, struct creds_text *ret, struct err *e)
{
	struct err why = { 0 };
	int rc = creds_file_read(f, path, CREDS_TOKEN_MAX_BYTES, ret, &why);

	if (rc == -ENOENT)
		return err_set(e, rc, "%s names %s, which does not exist", what, path);
	if (rc < 0)
		return err_set(e, rc, "%s: %s", what, why.msg);
	while (ret->len && isspace((unsigned char)ret->data[ret->len - 1]))
		ret->data[--ret->len] = '\0';
	if (ret->len == 0)
		return err_set(e, -EINVAL, "%s names %s, which is empty", what, path);
	for (size_t i = 0; i < ret->len; i++)
		if (ret->data[i] < 0x20 || ret->data[i] > 0x7e)
			return err_set(e, -EINVAL, "%s names %s, which does not hold one line of plain text", what,
				       path);
	return 0;
}
