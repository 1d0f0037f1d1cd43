// SPDX-License-Identifier: Apache-2.0
/*
 * The handshake with the kernel, and the choice between io_uring and /dev/fuse.
 *
 * Design: INIT is read here and answered by libfuse; its answer is amended on the way out with what libfuse does
 * not know: the request size, RESEND, io_uring. Everything io_uring needs is allocated before it is agreed to,
 * since from then on each request of the mount waits for the rings.
 */
#define _GNU_SOURCE
#include "transport/transport.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/size.h"
#include "transport/transport_i.h"

#define INIT_TIMEOUT_MS 5000

static uint64_t number_read(const char *path, uint64_t otherwise)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char text[32];
	uint64_t v;

	if (!f || !fgets(text, sizeof(text), f))
		return otherwise;
	text[strcspn(text, "\n")] = '\0';
	return number_parse(text, 1, UINT32_MAX, &v) == 0 ? v : otherwise;
}

unsigned transport_possible_cpus(void)
{
	_cleanup_fclose_ FILE *f = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned first, last, n = 0;
	char text[4096], *at = text;
	int used;

	/* "0-63" or "0,2-3". */
	if (f && fgets(text, sizeof(text), f)) {
		for (; sscanf(at, "%u%n", &first, &used) == 1; at += *at == ',') {
			at += used;
			last = first;
			if (sscanf(at, "-%u%n", &last, &used) == 1)
				at += used;
			n += last >= first ? last - first + 1 : 0;
		}
	}
	return n ? n : (unsigned)max_of(sysconf(_SC_NPROCESSORS_CONF), 1l);
}

/* The reply to INIT, as libfuse built it. */
static void init_amend(struct transport *t, struct fuse_init_out *out)
{
	out->minor = min_of(t->init_minor, (uint32_t)PX_FUSE_MINOR);
	out->flags |= FUSE_INIT_EXT | FUSE_MAX_PAGES;
	out->max_pages = (uint16_t)t->max_pages;
	out->max_write = (uint32_t)(t->max_pages * t->page_bytes);
	out->flags2 |= t->init_flags2 & PX_FUSE2_HAS_RESEND;
	if (t->agree_io_uring)
		out->flags2 |= PX_FUSE2_OVER_IO_URING;
}

static ssize_t transport_reply(void *ctx, struct fs_io *io, struct iovec *iov, int n)
{
	struct transport *t = ctx;
	const struct fuse_out_header *out = iov[0].iov_base;

	if (io && io != &t->dev_io && out->unique)
		return uring_reply(t, list_entry(io, struct uring_entry, io), iov, n);
	if (t->init_unique && out->unique == t->init_unique) {
		t->init_error = out->error;
		if (n == 2 && iov[1].iov_len == sizeof(struct fuse_init_out))
			init_amend(t, iov[1].iov_base);
		t->init_unique = 0;
	}
	return writev(t->cfg.fuse_fd, iov, n);
}

static void transport_wake(void *ctx, struct fs_work *w)
{
	struct transport *t = ctx;

	if (w->io == &t->dev_io)
		dev_work(t, w);
	else
		ring_post(&list_entry(w->io, struct uring_entry, io)->ring->ring, &w->link);
}

static const struct fs_transport_ops transport_fs_ops = { .reply = transport_reply, .wake = transport_wake };

/* Reads INIT, decides, answers. */
static int transport_handshake(struct transport *t, struct err *e)
{
	struct pollfd p = { .fd = t->cfg.fuse_fd, .events = POLLIN };
	_cleanup_free_ char *msg = malloc(t->message_bytes);
	struct fuse_in_header *in = (struct fuse_in_header *)msg;
	struct fuse_init_in *init;
	ssize_t n;

	if (!msg)
		return err_set(e, -ENOMEM, "out of memory");
	if (poll(&p, 1, INIT_TIMEOUT_MS) != 1)
		return err_set(e, -EIO, "the kernel sent no FUSE INIT");
	n = read(t->cfg.fuse_fd, msg, t->message_bytes);
	if (n < (ssize_t)(sizeof(*in) + offsetof(struct fuse_init_in, flags2)) || in->opcode != FUSE_INIT)
		return err_set(e, -EIO, "the kernel's first FUSE message is not INIT");
	init = (struct fuse_init_in *)(msg + sizeof(*in));
	t->init_unique = in->unique;
	t->init_minor = init->minor;
	if ((init->flags & FUSE_INIT_EXT) && n >= (ssize_t)(sizeof(*in) + offsetof(struct fuse_init_in, unused)))
		t->init_flags2 = init->flags2;

	if (!t->cfg.try_io_uring)
		snprintf(t->why, sizeof(t->why), "%s", t->cfg.why_not ? t->cfg.why_not : "not asked for");
	else if (!(t->init_flags2 & PX_FUSE2_OVER_IO_URING))
		snprintf(t->why, sizeof(t->why), "the kernel does not offer FUSE over io_uring");
	else
		t->agree_io_uring = uring_prepare(t, t->why, sizeof(t->why)) == 0;
	fs_session_process(t->cfg.fs, NULL, msg, (size_t)n);
	if (t->init_error)
		return err_set(e, t->init_error, "the kernel and the FUSE library do not agree on a protocol version");
	return 0;
}

int transport_start(const struct transport_config *cfg, struct transport **ret, struct err *e)
{
	struct transport *t = calloc(1, sizeof(*t));
	unsigned nr_cpus = (unsigned)max_of(sysconf(_SC_NPROCESSORS_ONLN), 1l);
	uint64_t limit;
	int rc;

	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	t->cfg = *cfg;
	t->uring.memfd = -1;
	t->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	limit = number_read("/proc/sys/fs/fuse/max_pages_limit", 256);
	t->max_pages = (unsigned)max_of(min_of((uint64_t)REQUEST_BYTES / t->page_bytes, limit), 1ull);
	t->message_bytes = max_of(t->max_pages * t->page_bytes, (size_t)PAYLOAD_MIN_BYTES) + t->page_bytes;

	rc = fs_session_start(cfg->fs, cfg->fuse_fd, &transport_fs_ops, t, e);
	if (rc < 0) {
		free(t);
		return rc;
	}
	rc = transport_handshake(t, e);
	if (rc == 0 && t->agree_io_uring) {
		rc = uring_start(t, e);
		t->kind = TRANSPORT_KIND_IO_URING;
	}
	if (rc == 0)
		rc = dev_start(t, t->agree_io_uring ? 1 : min_of(max_of(nr_cpus, 2u), (unsigned)DEV_THREADS_MAX), e);
	if (rc < 0) {
		transport_stop(t);
		return rc;
	}
	*ret = t;
	return 0;
}

struct transport *transport_stop(struct transport *t)
{
	if (!t)
		return NULL;
	/* It sends through us. */
	fs_session_quiet(t->cfg.fs);
	atomic_store(&t->stopping, true);
	dev_stop(t);
	uring_stop(t);
	fs_session_stop(t->cfg.fs);
	uring_free(t);
	free(t);
	return NULL;
}

enum transport_kind transport_kind(const struct transport *t)
{
	return t->kind;
}

const char *transport_why(const struct transport *t)
{
	return t->why;
}

void transport_stats(const struct transport *t, struct transport_stats *ret)
{
	*ret = (struct transport_stats){
		.requests_io_uring = t->requests_io_uring,
		.requests_dev = t->requests_dev,
		.buffer_bytes = t->uring.map_bytes,
		.queue_depth = t->uring.nr_rings * t->uring.depth,
	};
}
