/* SPDX-License-Identifier: Apache-2.0 */
/* Counters and the log of the last requests. Threads: any. */
#ifndef S3D_STATS_H
#define S3D_STATS_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "fault.h"
#include "op.h"

#define STATS_LOG_LINES 10000

struct stats_line {
	uint64_t id, conn, t_ms, ms; /* since start; taken by the reply */
	char method[8];
	enum op op;
	int status;     /* 0 = none was sent */
	uint64_t bytes; /* of the body */
	enum fault_kind fault;
	char bucket[64], key[192], range[64];
};

struct stats;

struct stats *stats_new(FILE *log); /* <log> may be NULL; not owned */
struct stats *stats_free(struct stats *s);
void stats_begin(struct stats *s); /* a request arrived */
void stats_end(struct stats *s);   /* it is done with */
void stats_add(struct stats *s, const struct stats_line *line);
void stats_connection(struct stats *s, int change); /* +1 one more that has sent a request, -1 closed */
void stats_reset(struct stats *s);
json_t *stats_json(struct stats *s);
/* One JSON object a line, oldest first. */
int stats_log(struct stats *s, struct buf *out);
uint64_t stats_ms(const struct stats *s);

#endif
