/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The numbers of the tuning tree as Prometheus text, and the small HTTP server that hands them out.
 *
 * Threads: start and stop by the daemon's main thread; get() is called from the server's own.
 */
#ifndef PENSTOCK_CTL_METRICS_H
#define PENSTOCK_CTL_METRICS_H

#include "base/err.h"
#include "ctl/table.h"

#define METRICS_MAX_BYTES (64u << 10)
#define METRICS_CLIENTS_MAX 16

/*
 * Appends every number that get() has, as penstock_DIR_NAME{volume="ID"}; counters end in _total. -E2BIG, -ENOMEM.
 */
int metrics_print(const struct ctl_ops *ops, const char *volume_id, struct buf *out);

struct metrics_config {
	const struct ctl_ops *ops; /* borrowed */
	const char *volume_id;     /* copied */
	const char *socket_path;   /* a unix socket, made anew and world-readable; NULL or "" = none */
	const char *listen;        /* ADDR:PORT, [ADDR]:PORT; NULL or "" = none */
};

struct metrics;

/*
 * Serves "GET /metrics" to METRICS_CLIENTS_MAX clients at once, the rest wait. Whoever starts it holds the volume's
 * claim: what lies at <socket_path> belongs to nobody who lives.
 */
int metrics_start(const struct metrics_config *cfg, struct metrics **ret, struct err *e);
/* The port that <listen> came to when it said 0. */
unsigned metrics_port(const struct metrics *m);
/* NULL is fine; returns NULL. */
struct metrics *metrics_stop(struct metrics *m);

enum metrics_request { METRICS_MORE = 0, METRICS_GET, METRICS_HEAD, METRICS_NO_PATH, METRICS_NO_METHOD, METRICS_BAD };

/* What the bytes that have come so far ask for; METRICS_MORE = the request has no end yet. Pure. */
enum metrics_request metrics_request_parse(const char *bytes, size_t len);

#endif
