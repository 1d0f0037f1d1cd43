/* SPDX-License-Identifier: Apache-2.0 */
/* penstock unmount: takes a mount of ours away, whether its daemon lives, is stuck or is gone. */
#ifndef PENSTOCK_DAEMON_UNMOUNT_H
#define PENSTOCK_DAEMON_UNMOUNT_H

#include <stdbool.h>

#include "base/err.h"

/*
 * Unmounts the topmost mount on <dir> and waits up to 10 s until its daemon has gone. With <lazy> a
 * mount in use leaves the tree at once, its daemon when the last user is done. -EINVAL: no mount of
 * ours; -EBUSY: in use, the sentence says by whom; -EPERM; -ETIMEDOUT: unmounted, but the daemon still
 * runs.
 */
int unmount_run(const char *dir, bool lazy, struct err *e);

#endif
