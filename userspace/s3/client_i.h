/* SPDX-License-Identifier: Apache-2.0 */
/* What the client's own files share. */
#ifndef PENSTOCK_S3_CLIENT_I_H
#define PENSTOCK_S3_CLIENT_I_H

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "s3/client.h"
#include "s3/retry.h"

/* A page of 1,000 keys of 1,024 bytes, each byte percent-encoded, stays below it. */
#define S3_LIST_BODY_MAX (8u << 20)
#define S3_ERROR_BODY_MAX (64u << 10)

struct s3_attempt {
	struct s3_op *op; /* NULL while idle */
	CURL *easy;
	struct curl_slist *headers;
	struct s3_reply reply;
	struct buf body; /* list pages and error documents */
	uint64_t pos;    /* GET: next byte's offset in the object */
	uint64_t start_ns, first_byte_ns, progress_ns, progress_bytes;
	uint64_t received;
	bool checked; /* the reply's headers were accepted: the body is data */
	bool hedge;
	int refused; /* -errno of our own when the body was refused */
	char curl_error[CURL_ERROR_SIZE];
	struct list link; /* the thread's active or idle list */
};

struct s3_thread {
	struct s3_client *client;
	pthread_t id;
	int epoll_fd, wake_fd;
	CURLM *multi;
	struct list active;     /* attempts in flight */
	struct list idle;       /* attempts with a reusable easy handle */
	struct list waiting;    /* operations between two tries */
	uint64_t curl_timer_ns; /* 0 = none */
	struct sigv4_cache signer;
	uint32_t random;
	atomic_bool asleep;
};

struct s3_client {
	struct s3_client_config cfg;
	char ca_bundle[4096];
	pthread_mutex_t lock; /* guards everything down to stopping */
	struct list queue[2]; /* demand, prefetch */
	char region[S3_REGION_MAX];
	struct s3_endpoint endpoint;
	struct s3_aimd aimd;
	struct s3_budget budget;
	struct s3_hedge hedge;
	struct s3_latency first_byte;
	unsigned nr_active[2];
	uint64_t sampled_ns, rate_start_ns, rate_bytes, best_rate;
	/* Time of an 8 MiB GET: the best of the last seconds, and the usual one now. */
	uint64_t chunk_ns, chunk_seen_ns, chunk_usual_ns;
	/*
	 * Prefetch in flight: as much as fills the wire; more would only make each request, and a demand among
	 * them, slower.
	 */
	unsigned prefetch_limit;
	uint64_t prefetch_limit_ns;
	bool settled;
	bool stopping;

	atomic_long clock_offset_s;
	atomic_ullong requests, retries, hedges, bytes, errors;
	unsigned nr_threads;
	bool joined; /* the stopping thread's */
	struct s3_thread *thread;
};

/* client_request.c: one try of an operation as an easy handle. */
int s3_attempt_prepare(struct s3_thread *t, struct s3_attempt *a);
void s3_attempt_reset(struct s3_attempt *a);
/* How the operation is named in a log line. */
void s3_op_describe(const struct s3_client *c, const struct s3_op *op, char *ret, size_t room);

/* client_thread.c */
void *s3_thread_main(void *arg);
void s3_thread_wake(struct s3_thread *t);

/* client.c */
/* The next operation that may start now, or NULL. */
struct s3_op *s3_client_next(struct s3_client *c);
/* What a finished try tells of the wire. */
void s3_client_sample(struct s3_client *c, const struct s3_attempt *a, uint64_t now);
/* Ends what waited in the queue past its deadline. */
void s3_client_expire(struct s3_client *c, uint64_t now);
void s3_client_finished(struct s3_client *c, struct s3_op *op);
void s3_op_done(struct s3_op *op, int error, const char *message);

static inline struct s3_get *s3_op_get(struct s3_op *op)
{
	return list_entry(op, struct s3_get, op);
}

static inline struct s3_list *s3_op_list(struct s3_op *op)
{
	return list_entry(op, struct s3_list, op);
}

static inline struct s3_head *s3_op_head(struct s3_op *op)
{
	return list_entry(op, struct s3_head, op);
}

#endif
