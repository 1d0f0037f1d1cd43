// SPDX-License-Identifier: Apache-2.0
/* Counters and the ring of the last requests. */
#include "stats.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define STATUS_MAX 600

struct stats {
	uint64_t started_ns;                     /* constant */
	FILE *log;                               /* constant; written under the lock */
	pthread_mutex_t lock;                    /* guards everything below */
	uint64_t requests[OP_COUNT][STATUS_MAX]; /* status 0 = no reply was sent */
	uint64_t bytes_sent, connections, connections_now;
	uint64_t now, now_max; /* requests being answered */
	uint64_t nr_lines;     /* ever; also the ids */
	struct stats_line lines[STATS_LOG_LINES];
};

struct stats *stats_new(FILE *log)
{
	struct stats *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->started_ns = clock_mono_ns();
	s->log = log;
	pthread_mutex_init(&s->lock, NULL);
	return s;
}

struct stats *stats_free(struct stats *s)
{
	if (s)
		pthread_mutex_destroy(&s->lock);
	free(s);
	return NULL;
}

uint64_t stats_ms(const struct stats *s)
{
	return (clock_mono_ns() - s->started_ns) / NSEC_PER_MSEC;
}

static json_t *line_json(const struct stats_line *l)
{
	json_t *j = json_pack("{s:I,s:I,s:I,s:I,s:s,s:s,s:i,s:I,s:s}", "id", (json_int_t)l->id, "connection",
			      (json_int_t)l->conn, "t_ms", (json_int_t)l->t_ms, "took_ms", (json_int_t)l->ms, "method",
			      l->method, "op", op_name(l->op), "status", l->status, "bytes", (json_int_t)l->bytes,
			      "fault", l->fault ? fault_name(l->fault) : "");

	/* names need not be UTF-8, and json_pack would refuse the whole line */
	if (j) {
		json_object_set_new(j, "bucket", json_string(l->bucket) ?: json_string("?"));
		json_object_set_new(j, "key", json_string(l->key) ?: json_string("?"));
		json_object_set_new(j, "range", json_string(l->range) ?: json_string("?"));
	}
	return j;
}

static char *line_text(const struct stats_line *l)
{
	json_t *j = line_json(l);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

	json_decref(j);
	return text;
}

void stats_begin(struct stats *s)
{
	pthread_mutex_lock(&s->lock);
	s->now++;
	s->now_max = max_of(s->now_max, s->now);
	pthread_mutex_unlock(&s->lock);
}

void stats_end(struct stats *s)
{
	pthread_mutex_lock(&s->lock);
	s->now--;
	pthread_mutex_unlock(&s->lock);
}

void stats_add(struct stats *s, const struct stats_line *line)
{
	struct stats_line *kept;

	pthread_mutex_lock(&s->lock);
	s->requests[line->op][line->status < STATUS_MAX ? line->status : 0]++;
	s->bytes_sent += line->bytes;
	kept = &s->lines[s->nr_lines % STATS_LOG_LINES];
	*kept = *line;
	kept->id = ++s->nr_lines;
	if (s->log) {
		_cleanup_free_ char *text = line_text(kept);

		fprintf(s->log, "%s\n", text ? text : "");
		fflush(s->log);
	}
	pthread_mutex_unlock(&s->lock);
}

void stats_connection(struct stats *s, int change)
{
	pthread_mutex_lock(&s->lock);
	s->connections += change > 0;
	s->connections_now += (uint64_t)change;
	pthread_mutex_unlock(&s->lock);
}

void stats_reset(struct stats *s)
{
	pthread_mutex_lock(&s->lock);
	memset(s->requests, 0, sizeof(s->requests));
	s->bytes_sent = 0;
	s->connections = s->connections_now;
	s->now_max = s->now;
	s->nr_lines = 0;
	pthread_mutex_unlock(&s->lock);
}

static json_t *requests_json(const struct stats *s, uint64_t *ret_total)
{
	json_t *ops = json_object();

	*ret_total = 0;
	for (int op = 0; op < OP_COUNT; op++) {
		json_t *by_status = NULL;

		for (int status = 0; status < STATUS_MAX; status++) {
			uint64_t n = s->requests[op][status];
			char name[8];

			if (!n)
				continue;
			if (!by_status)
				by_status = json_object();
			snprintf(name, sizeof(name), "%d", status);
			json_object_set_new(by_status, name, json_integer((json_int_t)n));
			*ret_total += n;
		}
		if (by_status)
			json_object_set_new(ops, op_name((enum op)op), by_status);
	}
	return ops;
}

json_t *stats_json(struct stats *s)
{
	json_t *ops, *j;
	uint64_t total;

	pthread_mutex_lock(&s->lock);
	ops = requests_json(s, &total);
	j = json_pack("{s:o,s:I,s:I,s:I,s:I,s:I,s:I}", "requests", ops, "requests_total", (json_int_t)total,
		      "body_bytes_sent", (json_int_t)s->bytes_sent, "connections", (json_int_t)s->connections,
		      "connections_now", (json_int_t)s->connections_now, "concurrent", (json_int_t)s->now,
		      "concurrent_max", (json_int_t)s->now_max);
	pthread_mutex_unlock(&s->lock);
	return j;
}

int stats_log(struct stats *s, struct buf *out)
{
	uint64_t first;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	first = s->nr_lines > STATS_LOG_LINES ? s->nr_lines - STATS_LOG_LINES : 0;
	for (uint64_t i = first; i < s->nr_lines && !rc; i++) {
		_cleanup_free_ char *text = line_text(&s->lines[i % STATS_LOG_LINES]);

		rc = buf_addf(out, "%s\n", text ? text : "");
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}
