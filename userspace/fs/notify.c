// SPDX-License-Identifier: Apache-2.0
/*
 * Telling the kernel that a name means another object now.
 *
 * Threads: a thread of its own, since a notification may wait for locks that a request in progress holds. The queue is
 * bounded; what does not fit is dropped, and the name is then looked up again when its TTL ends.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "fs/fs_i.h"

struct fs_notice {
	struct list link;
	char path[];
};

static void notice_send(struct fs *fs, const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[S3_KEY_MAX + 1];
	const char *name = slash ? slash + 1 : path;
	uint64_t parent;

	snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 0, path);
	parent = node_dir_id(fs->nodes, dir);
	if (parent)
		fuse_lowlevel_notify_inval_entry(fs->session, parent, name, strlen(name));
}

static void *notifier_main(void *arg)
{
	struct fs *fs = arg;
	struct fs_notifier *nf = &fs->notifier;

	pthread_mutex_lock(&nf->lock);
	while (!nf->stopping) {
		struct list *n = list_pop_front(&nf->queue);

		if (!n) {
			pthread_cond_wait(&nf->cond, &nf->lock);
			continue;
		}
		nf->nr--;
		pthread_mutex_unlock(&nf->lock);
		notice_send(fs, list_entry(n, struct fs_notice, link)->path);
		free(list_entry(n, struct fs_notice, link));
		pthread_mutex_lock(&nf->lock);
	}
	pthread_mutex_unlock(&nf->lock);
	return NULL;
}

int fs_notifier_start(struct fs *fs)
{
	struct fs_notifier *nf = &fs->notifier;

	*nf = (struct fs_notifier){ 0 };
	list_init(&nf->queue);
	pthread_mutex_init(&nf->lock, NULL);
	pthread_cond_init(&nf->cond, NULL);
	if (pthread_create(&nf->thread, NULL, notifier_main, fs) != 0)
		return -EAGAIN;
	pthread_setname_np(nf->thread, "notify");
	nf->running = true;
	return 0;
}

void fs_notifier_stop(struct fs *fs)
{
	struct fs_notifier *nf = &fs->notifier;

	if (!nf->running)
		return;
	pthread_mutex_lock(&nf->lock);
	nf->stopping = true;
	pthread_cond_signal(&nf->cond);
	pthread_mutex_unlock(&nf->lock);
	pthread_join(nf->thread, NULL);
	nf->running = false;
}

void fs_notifier_done(struct fs *fs)
{
	struct fs_notifier *nf = &fs->notifier;
	struct list *n;

	while ((n = list_pop_front(&nf->queue)))
		free(list_entry(n, struct fs_notice, link));
	pthread_cond_destroy(&nf->cond);
	pthread_mutex_destroy(&nf->lock);
}

void fs_notify_replaced(struct fs *fs, const char *path)
{
	struct fs_notifier *nf = &fs->notifier;
	size_t len = strlen(path) + 1;
	struct fs_notice *notice = malloc(sizeof(*notice) + len);

	meta_drop(fs->meta, path);
	if (!notice)
		return;
	memcpy(notice->path, path, len);
	pthread_mutex_lock(&nf->lock);
	if (nf->nr < FS_NOTIFY_MAX && !nf->stopping) {
		nf->nr++;
		list_push_back(&nf->queue, &notice->link);
		notice = NULL;
		pthread_cond_signal(&nf->cond);
	}
	pthread_mutex_unlock(&nf->lock);
	free(notice);
}
