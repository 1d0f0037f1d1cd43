/* SPDX-License-Identifier: Apache-2.0 */
/* What this build has and what this machine offers: "penstock --version -v", and the memory there is. */
#ifndef PENSTOCK_DAEMON_FEATURES_H
#define PENSTOCK_DAEMON_FEATURES_H

#include <stdint.h>
#include <stdio.h>

/*
 * Versions, then what the kernel offers; where something is missing, the one command that gives more.
 * 0, or -EIO.
 */
int features_print(FILE *out);

/* min(RAM, limit of the control groups this process is in); 0 when neither can be read. */
uint64_t features_memory_limit_bytes(void);

/*
 * The smallest memory limit on the way from the root to the group named in <proc_cgroup> (text of
 * /proc/self/cgroup), below <root> (as /sys/fs/cgroup; both cgroup versions); UINT64_MAX when there is
 * none.
 */
uint64_t features_cgroup_limit_bytes(const char *proc_cgroup, const char *root);

#endif
