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
	uint64_t next_tick_ns;
	struct sigv4_cache signer;
	uint32_t random;
	unsigned pool_max; /* connections that curl keeps */
	atomic_uint share; /* of the client's connections: so many attempts at once */
	atomic_uint nr_attempts;
	atomic_bool asleep;
};

struct s3_client {
	struct s3_client_config cfg;
	char ca_bundle[4096];
	pthread_mutex_t lock; /* guards everything down to stopping */
	struct list queue[2]; /* demand, prefetch */
	unsigned nr_queued_prefetch;
	char region[S3_REGION_MAX];
	struct s3_endpoint endpoint;
	struct s3_aimd aimd;
	struct s3_budget budget;
	struct s3_hedge hedge;
	atomic_uint hedge_percent; /* as in hedge, for a look without the lock */
	struct s3_latency first_byte;
	/* Demand, prefetch: operations pulled and not done, and those of them that have a try under way. */
	unsigned nr_active[2], nr_trying[2];
	uint64_t sampled_ns, rate_start_ns, rate_bytes, best_rate;
	/* Time of an 8 MiB GET: the best of the last seconds, and the usual one now. */
	uint64_t chunk_ns, chunk_seen_ns, chunk_usual_ns;
	/*
	 * Prefetch in flight: as much as fills the wire; more would only make each request, and a demand among
	 * them, slower.
	 */
	unsigned prefetch_limit, prefetch_max; /* what the times allow, and the user; 0 = no limit of the user's */
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

struct s3_failure {
	int error;
	enum s3_verdict verdict;
	uint64_t wait_ns;  /* what the next try waits beside its back-off */
	char message[512]; /* what the user reads */
	char region[64];
	time_t date;
};

/* client_reply.c: what came of a try. */
void s3_failure_of_reply(const struct s3_attempt *a, struct s3_failure *f);
void s3_failure_of_curl(const struct s3_attempt *a, CURLcode rc, struct s3_failure *f);
/* A reply of good status whose body is no good; <rc> as from s3_list_page(). */
void s3_failure_of_body(const struct s3_attempt *a, int rc, struct s3_failure *f);
/* Hands out the entries of a whole page; -EOPNOTSUPP when they are out of order. */
int s3_list_page(struct s3_list *l, const struct buf *body);

/* client_thread.c */
void *s3_thread_main(void *arg);
void s3_thread_wake(struct s3_thread *t);

/* client.c */
/* The next operation that this thread may start now, or NULL. */
struct s3_op *s3_client_next(struct s3_client *c, struct s3_thread *t);
/* The operation's next try is due: may it start now? */
bool s3_client_resume(struct s3_client *c, struct s3_thread *t, struct s3_op *op);
/* A try has failed and another one follows; false = the retry budget is used up: it should wait for long. */
bool s3_client_rest(struct s3_client *c, struct s3_op *op, bool slower, uint64_t now);
bool s3_client_settled(struct s3_client *c);
/* What a finished try tells of the wire. */
void s3_client_sample(struct s3_client *c, const struct s3_attempt *a, uint64_t now);
/* Ends what waited in the queue past its deadline. */
void s3_client_expire(struct s3_client *c, uint64_t now);
void s3_client_finished(struct s3_client *c, struct s3_op *op);
void s3_op_done(struct s3_op *op, int error, const char *message);

static inline bool s3_thread_has_room(struct s3_thread *t)
{
	return atomic_load(&t->nr_attempts) < atomic_load(&t->share);
}

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
