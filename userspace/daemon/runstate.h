/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run directory and a pid file for each mount: $PENSTOCK_RUN_DIR or /run/penstock, volumes/ID.pid.
 *
 * A pid file is live while someone holds a flock on it; one that nobody locks is stale and whoever
 * finds it removes it.
 */
#ifndef PENSTOCK_DAEMON_RUNSTATE_H
#define PENSTOCK_DAEMON_RUNSTATE_H

#include <limits.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define RUNSTATE_DIR_MAX 2048

/* Path of the run directory; -EINVAL when $PENSTOCK_RUN_DIR is no usable absolute path. */
int runstate_dir(char *ret, size_t room, struct err *e);

struct runstate {
	int fd; /* -1: not claimed */
	char path[PATH_MAX];
};

#define RUNSTATE_INIT    \
	{                \
		.fd = -1 \
	}

/*
 * Makes the directories (0755) and takes the volume's lock. -EBUSY with a sentence when another process
 * has it. The lock belongs to the open file and goes on in a forked child; a parent that hands it on
 * must exit without releasing.
 */
int runstate_claim(struct runstate *rs, const char *volume_id, struct err *e);
/* Says who holds the claim and where it is mounted; again after a fork. */
int runstate_publish(struct runstate *rs, pid_t pid, const char *mount_point, struct err *e);
/* Removes the pid file and drops the lock. Safe when nothing is claimed. */
void runstate_release(struct runstate *rs);

struct runstate_entry {
	pid_t pid;
	char path[PATH_MAX];
	char mount_point[PATH_MAX];
};

/*
 * The live daemon of a mount point, by its pid file; removes stale ones on the way. -ENOENT: there is
 * none.
 */
int runstate_find(const char *mount_point, struct runstate_entry *ret);
/* Waits until that daemon has let go of its pid file; -ETIMEDOUT. */
int runstate_wait_gone(const struct runstate_entry *entry, uint64_t timeout_ns);

#endif
