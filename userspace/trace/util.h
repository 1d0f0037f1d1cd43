/* SPDX-License-Identifier: Apache-2.0 */
/* What both halves of the room need of libbpf. */
#ifndef PENSTOCK_TRACE_UTIL_H
#define PENSTOCK_TRACE_UTIL_H

/* What libbpf has to say goes to the log, at its debug level: our errors say what matters. */
void util_libbpf_log(void);

/*
 * Has the threads that rest hand on what they accessed last. <link_fd> is trace_flush_fd(); no privilege is needed.
 * Visits every thread of the system once, some 100 ns each.
 */
int util_flush(int link_fd);

#endif
