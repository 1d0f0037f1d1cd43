/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 client: ranged GETs, lists and HEADs over a keep-alive pool, retried until their deadline.
 *
 * Threads: submit and promote from any thread; callbacks come from one of the client's own threads and must not block.
 * Each accepted request ends in exactly one done(), also when the client stops.
 */
#ifndef PENSTOCK_S3_CLIENT_H
#define PENSTOCK_S3_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "s3/creds.h"
#include "s3/reply.h"
#include "s3/uri.h"
#include "s3/xml.h"

struct s3_client;
struct s3_attempt;

struct s3_client_config {
	struct s3_endpoint endpoint;
	char bucket[S3_BUCKET_MAX + 1];
	char region[S3_REGION_MAX];
	bool region_pinned; /* the user named it: a redirect to another one is an error, not followed */
	bool path_style;
	bool requester_pays;
	const char *ca_bundle;        /* NULL or "" = the system's */
	struct s3_provider *provider; /* borrowed */
	unsigned max_connections;     /* of all threads together */
	unsigned threads;             /* more than connections are not started */
	unsigned hedge_percent;
};

enum s3_op_kind { S3_OP_GET, S3_OP_LIST, S3_OP_HEAD };
/* WAITING: between two tries. */
enum s3_op_state { S3_OP_NEW = 0, S3_OP_QUEUED, S3_OP_RUNNING, S3_OP_WAITING };

/* What every request has. The first block is the caller's; the rest belongs to the client until done. */
struct s3_op {
	bool demand;          /* somebody waits for it: goes before prefetch */
	uint64_t deadline_ns; /* monotonic; past it the request ends in -ETIMEDOUT */

	enum s3_op_kind kind;
	struct list link;
	atomic_bool wanted;     /* prefetch that runs, and somebody waits for it now */
	enum s3_op_state state; /* guard: the client's lock; NEW before it is submitted */
	bool region_retried, clock_retried;
	unsigned nr_tries, nr_creds_tries, nr_active;
	uint64_t submitted_ns, not_before_ns;
	struct s3_attempt *attempt[2]; /* the second is a hedge */
};

/* Bytes [offset, offset + len) of one version of an object. */
struct s3_get {
	struct s3_op op;
	const char *key;  /* must stay valid until done, as must etag */
	const char *etag; /* "" = the server names none: size alone is checked */
	uint64_t object_bytes;
	uint64_t offset, len;
	uint64_t delivered; /* bytes handed to data() so far */
	/* In order, each byte once, whatever was retried or hedged below. */
	void (*data)(struct s3_get *g, const void *bytes, size_t len);
	/*
	 * 0 after all <len> bytes, else -errno: -ESTALE when the object is no longer this version, -ETIMEDOUT past
	 * the deadline.
	 */
	void (*done)(struct s3_get *g, int error);
};

/*
 * One page of ListObjectsV2. The entries are handed out once the whole page has arrived, before done(). A page that
 * turns out malformed is fetched again: restart() then tells the caller to forget the entries it got.
 */
struct s3_list {
	struct s3_op op;
	const char *prefix, *delimiter, *start_after, *token; /* "" = absent; valid until done */
	unsigned max_keys;
	const struct s3_list_ops *ops;
	void *ops_ctx;
	void (*restart)(struct s3_list *l); /* may be NULL */
	char *next_token;                   /* result: NULL on the last page; owned by the list, free() it */
	void (*done)(struct s3_list *l, int error, const char *message);
};

struct s3_head {
	struct s3_op op;
	const char *key;
	struct s3_reply reply; /* result */
	void (*done)(struct s3_head *h, int error);
};

int s3_client_start(const struct s3_client_config *cfg, struct s3_client **ret, struct err *e);
/* Cancels what is left with -ECANCELED and joins the threads; requests from now on end at once in the same way. */
void s3_client_stop(struct s3_client *c);
/* Stops it where that has not happened; nobody may submit any more. Returns NULL. */
struct s3_client *s3_client_free(struct s3_client *c);

void s3_get_submit(struct s3_client *c, struct s3_get *g);
void s3_list_submit(struct s3_client *c, struct s3_list *l);
void s3_head_submit(struct s3_client *c, struct s3_head *h);
/* Somebody waits for it now: before prefetch if it has not started. It may be called before the submit. */
void s3_op_promote(struct s3_client *c, struct s3_op *op);

/* One page in the calling thread, for the check before a mount; done and ops are taken over. */
int s3_list_sync(struct s3_client *c, struct s3_list *l, struct err *e);
/*
 * The server is known to serve us: from now on a skewed clock is corrected by its Date, and refused credentials have
 * time to be renewed, where both are errors at once before.
 */
void s3_client_settle(struct s3_client *c);
const char *s3_client_region(struct s3_client *c, char ret[S3_REGION_MAX]);

struct s3_client_stats {
	uint64_t requests, retries, throttled, hedges, bytes, errors;
	uint64_t bytes_per_s; /* recent receive rate at its best */
	uint64_t chunk_ns;    /* recent fastest time of a large GET */
	uint64_t first_byte_p50_ns, first_byte_p99_ns;
	unsigned limit; /* requests in flight allowed now */
};
/* How many more requests ahead of need may be queued now: more would only wait, and some until their deadline. */
unsigned s3_client_prefetch_room(struct s3_client *c);
void s3_client_stats(struct s3_client *c, struct s3_client_stats *ret);
/* Requests in flight at most: all together; of them prefetch (0 = no limit of its own); hedges in percent of demand. */
unsigned s3_client_set_max_connections(struct s3_client *c, unsigned n);
void s3_client_set_max_prefetch(struct s3_client *c, unsigned n);
void s3_client_set_hedge_percent(struct s3_client *c, unsigned percent);

#endif
