/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's side of a mount: mount(2), the bdi's read-ahead, and the check that a mount answers. */
#ifndef PENSTOCK_DAEMON_KERNEL_MOUNT_H
#define PENSTOCK_DAEMON_KERNEL_MOUNT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "daemon/options.h"

/* Opens /dev/fuse and mounts; the descriptor, or -errno with a sentence. */
int kernel_mount(const struct options *o, struct err *e);
/* Detaches the mount; readers of open files go on until they close or the daemon ends. */
int kernel_unmount(const char *mount_point);

/*
 * What tells the topmost mount on this path from every other; on kernels before 6.8 a number may come back after an
 * unmount. 0: the kernel has none. Asks nothing of the file system.
 */
int kernel_mount_id(const char *mount_point, uint64_t *ret);

/* Raises the read-ahead of this mount's bdi; INIT can only lower it. */
int kernel_read_ahead_set(const char *mount_point, unsigned kb);

/*
 * A process of its own that asks the mount something on each CPU, and loads the tracer: made before /dev/fuse is opened
 * and before any thread, since a process that holds the descriptor must never wait for its own mount.
 */
struct mount_probe {
	pid_t pid;
	int fd;
};

int mount_probe_start(struct mount_probe *p, struct err *e);
/* 0 = every CPU's queue answered in time. */
int mount_probe_run(struct mount_probe *p, const char *mount_point, struct err *e);
/* Has it load the tracer with this volume in it; what comes of that shows when the daemon starts its own. */
void mount_probe_trace(struct mount_probe *p, dev_t dev, const char *id);
void mount_probe_stop(struct mount_probe *p);

#endif
