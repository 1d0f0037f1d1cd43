// SPDX-License-Identifier: Apache-2.0
/*
 * The /dev/fuse transport: reader threads, and workers for replies that come later.
 *
 * Design: readers block in read(2) and answer what they can at once; a reply that waited for S3 is written by a
 * worker, since a thread in read(2) cannot be handed anything. With io_uring one reader stays, for FORGET,
 * INTERRUPT and what the kernel sends here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/transport_i.h"

#define KICK_SIGNAL SIGUSR2
#define KICK_PERIOD_NS 2000000

static void reader_end(struct transport *t)
{
	uint64_t one = 1;

	if (!atomic_exchange(&t->ended, true) && write(t->cfg.end_fd, &one, sizeof(one)) < 0)
		log_error("transport", "cannot tell the end of the connection: %s", strerror(errno));
}

static void *reader_main(void *arg)
{
	struct dev_reader *r = arg;
	struct transport *t = r->transport;
	_cleanup_free_ char *msg = NULL;

	if (posix_memalign((void **)&msg, t->page_bytes, t->message_bytes) != 0) {
		log_error("transport", "a reader of /dev/fuse could not start: out of memory");
		msg = NULL;
	}
	while (msg && !atomic_load(&t->stopping)) {
		ssize_t n = read(t->cfg.fuse_fd, msg, t->message_bytes);

		if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (n < (ssize_t)sizeof(struct fuse_in_header)) {
			/* ENODEV: unmounted. Anything else does not happen on a live connection either. */
			if (n < 0 && errno != ENODEV)
				log_error("transport", "reading /dev/fuse: %s", strerror(errno));
			break;
		}
		/* Not for libfuse: it answers one that it cannot place amid another request. */
		if (((const struct fuse_in_header *)msg)->opcode == FUSE_INTERRUPT) {
			const struct fuse_interrupt_in *in = (const void *)(msg + sizeof(struct fuse_in_header));

			if (n >= (ssize_t)(sizeof(struct fuse_in_header) + sizeof(*in)))
				fs_session_interrupt(t->cfg.fs, in->unique);
			continue;
		}
		t->requests_dev++;
		fs_session_process(t->cfg.fs, &t->dev_io, msg, (size_t)n);
	}
	reader_end(t);
	atomic_store(&r->left, true);
	return NULL;
}

static void *worker_main(void *arg)
{
	struct transport *t = arg;
	struct dev_workers *ws = &t->workers;

	pthread_mutex_lock(&ws->lock);
	for (;;) {
		struct list *n = list_pop_front(&ws->queue);

		if (n) {
			pthread_mutex_unlock(&ws->lock);
			fs_session_work(t->cfg.fs, list_entry(n, struct fs_work, link));
			pthread_mutex_lock(&ws->lock);
		} else if (ws->stopping) {
			break;
		} else {
			pthread_cond_wait(&ws->cond, &ws->lock);
		}
	}
	pthread_mutex_unlock(&ws->lock);
	return NULL;
}

void dev_work(struct transport *t, struct fs_work *w)
{
	pthread_mutex_lock(&t->workers.lock);
	list_push_back(&t->workers.queue, &w->link);
	pthread_cond_signal(&t->workers.cond);
	pthread_mutex_unlock(&t->workers.lock);
}

static void kick_handler(int sig)
{
	/* Only there to make read(2) return EINTR. */
}

static int workers_start(struct transport *t, unsigned nr)
{
	struct dev_workers *ws = &t->workers;

	for (; ws->nr < nr; ws->nr++) {
		if (pthread_create(&ws->thread[ws->nr], NULL, worker_main, t) != 0)
			return ws->nr ? 0 : -EAGAIN;
		pthread_setname_np(ws->thread[ws->nr], "dev-reply");
	}
	return 0;
}

int dev_start(struct transport *t, unsigned nr_readers, struct err *e)
{
	struct sigaction sa = { .sa_handler = kick_handler };

	sigaction(KICK_SIGNAL, &sa, NULL);
	list_init(&t->workers.queue);
	pthread_mutex_init(&t->workers.lock, NULL);
	pthread_cond_init(&t->workers.cond, NULL);
	t->nr_readers = nr_readers;
	if (workers_start(t, t->kind == TRANSPORT_KIND_DEV ? 2 : 1) < 0)
		return err_set(e, -EAGAIN, "cannot start a FUSE thread: the limit on threads is reached");
	for (unsigned i = 0; i < nr_readers; i++) {
		struct dev_reader *r = &t->reader[i];

		r->transport = t;
		if (pthread_create(&r->thread, NULL, reader_main, r) != 0)
			return err_set(e, -EAGAIN, "cannot start a FUSE thread: the limit on threads is reached");
		pthread_setname_np(r->thread, "dev-read");
		r->started = true;
	}
	return 0;
}

void dev_stop(struct transport *t)
{
	struct timespec pause = { .tv_nsec = KICK_PERIOD_NS };
	struct dev_workers *ws = &t->workers;

	for (unsigned i = 0; i < t->nr_readers; i++) {
		struct dev_reader *r = &t->reader[i];

		if (!r->started)
			continue;
		/* The signal may come just before the read: again, until the thread has left. */
		while (!atomic_load(&r->left)) {
			pthread_kill(r->thread, KICK_SIGNAL);
			nanosleep(&pause, NULL);
		}
		pthread_join(r->thread, NULL);
		r->started = false;
	}
	if (!ws->nr)
		return;
	pthread_mutex_lock(&ws->lock);
	ws->stopping = true;
	pthread_cond_broadcast(&ws->cond);
	pthread_mutex_unlock(&ws->lock);
	while (ws->nr)
		pthread_join(ws->thread[--ws->nr], NULL);
	pthread_cond_destroy(&ws->cond);
	pthread_mutex_destroy(&ws->lock);
}
