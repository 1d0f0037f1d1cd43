// SPDX-License-Identifier: Apache-2.0
/*
 * Requests that wait, so that a process that is being killed need not wait with them.
 *
 * Design: the kernel tells of any signal that arrives during a request. Only a fatal one ends it: programs that use
 * signals (timers, runtimes that preempt) do not expect EINTR from a file.
 * Threads: any. A bucket's lock is held while a request is told; what it then does must not end it at once.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "fs/fs_i.h"

static struct fs_waits *bucket_of(struct fs *fs, uint64_t unique)
{
	/* The kernel counts in steps of two. */
	return &fs->waits[unique / 2 % FS_WAIT_BUCKETS];
}

void fs_waits_init(struct fs *fs)
{
	for (size_t i = 0; i < FS_WAIT_BUCKETS; i++) {
		list_init(&fs->waits[i].list);
		pthread_mutex_init(&fs->waits[i].lock, NULL);
	}
}

void fs_waits_done(struct fs *fs)
{
	for (size_t i = 0; i < FS_WAIT_BUCKETS; i++)
		pthread_mutex_destroy(&fs->waits[i].lock);
}

void fs_wait_begin(struct fs *fs, struct fs_wait *w, uint64_t unique, pid_t tid, void (*killed)(struct fs_wait *w))
{
	struct fs_waits *b = bucket_of(fs, unique);

	w->unique = unique;
	w->tid = tid;
	w->killed = killed;
	pthread_mutex_lock(&b->lock);
	list_push_back(&b->list, &w->link);
	pthread_mutex_unlock(&b->lock);
}

void fs_wait_end(struct fs *fs, struct fs_wait *w)
{
	struct fs_waits *b = bucket_of(fs, w->unique);

	if (!w->killed)
		return;
	pthread_mutex_lock(&b->lock);
	list_del(&w->link);
	pthread_mutex_unlock(&b->lock);
}

/* A fatal signal makes SIGKILL pending in every thread; so does a fatal one that has another number. */
static bool task_is_dying(pid_t tid)
{
	_cleanup_fclose_ FILE *f = NULL;
	unsigned long long pending = 0, shared = 0;
	char path[48], line[128];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "SigPnd: %llx", &pending) == 1)
			continue;
		if (sscanf(line, "ShdPnd: %llx", &shared) == 1)
			break;
	}
	return (pending | shared) >> (SIGKILL - 1) & 1;
}

void fs_session_interrupt(struct fs *fs, uint64_t unique)
{
	struct fs_waits *b = bucket_of(fs, unique);
	pid_t tid = 0;

	pthread_mutex_lock(&b->lock);
	list_for_each(n, &b->list) {
		if (list_entry(n, struct fs_wait, link)->unique == unique)
			tid = list_entry(n, struct fs_wait, link)->tid;
	}
	pthread_mutex_unlock(&b->lock);
	if (!tid || !task_is_dying(tid))
		return;
	pthread_mutex_lock(&b->lock);
	list_for_each_safe(n, tmp, &b->list) {
		struct fs_wait *w = list_entry(n, struct fs_wait, link);

		if (w->unique == unique)
			w->killed(w);
	}
	pthread_mutex_unlock(&b->lock);
}
