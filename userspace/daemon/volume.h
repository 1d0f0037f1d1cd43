/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One volume: credentials, client, cache, file system and transport, started in that order and stopped in the
 * reverse one.
 *
 * Threads: the daemon's main thread.
 */
#ifndef PENSTOCK_DAEMON_VOLUME_H
#define PENSTOCK_DAEMON_VOLUME_H

#include "base/err.h"
#include "daemon/kernel_mount.h"
#include "daemon/options.h"

struct volume;

/*
 * Checks the bucket, mounts, and serves once it returns 0: the mount has answered on every CPU. On an error nothing
 * is left mounted.
 */
int volume_start(const struct options *o, struct mount_probe *probe, struct volume **ret, struct err *e);
/* Readable when the kernel has ended the connection: somebody unmounted it. */
int volume_end_fd(const struct volume *v);
/* What may take its time, once the mount has been told of; the probe lends its memory. */
void volume_settle(struct volume *v, struct mount_probe *probe);
/* Housekeeping, about once a second. */
void volume_tick(struct volume *v);
/* Writes the counters to <path> as JSON, replacing the file. */
int volume_stats_write(struct volume *v, const char *path);
/* "io_uring (...)" or "dev (...)": what is really used. */
const char *volume_transport(struct volume *v);
/* Detaches the mount; requests are still served. */
void volume_detach(struct volume *v);
/* Ends every request and frees all; returns NULL. */
struct volume *volume_stop(struct volume *v);

#endif
