// SPDX-License-Identifier: Apache-2.0
/*
 * The S3 client's front: queues, limits and statistics.
 *
 * Design: operations wait in two queues, demand before prefetch. The client's threads pull from them while the AIMD
 * limit allows; a share of the limit is kept for demand, so that a miss never waits behind a full window of prefetch.
 * An operation between two tries keeps its place in the limit, else each one in the queue would come to knock at a
 * server that is down; only demand passes prefetch that waits so. Each thread has a pool of connections of its own, and
 * its share of the maximum bounds how much it pulls.
 * Threads: any for the public functions; an operation belongs to the thread that pulled it until it is done.
 */
#define _GNU_SOURCE
#include "s3/client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/clock.h"
#include "base/log.h"
#include "s3/client_i.h"

#define RETRY_TOKENS 100
#define RETRY_GAIN_PERMILLE 200
#define PREFETCH_LIMIT_START 16
#define LARGE_GET_BYTES (4u << 20)
#define RATE_PERIOD_NS (100 * NSEC_PER_MSEC)
/* Queued behind those that run. */
#define PREFETCH_QUEUE_FACTOR 2
#define PREFETCH_LIMIT_MIN 4
#define PACE_PERIOD_NS (5 * NSEC_PER_MSEC)
#define ESTIMATE_LIFE_NS (10 * NSEC_PER_SEC)
#define AIMD_HOLD_NS (500 * NSEC_PER_MSEC)

void s3_op_done(struct s3_op *op, int error, const char *message)
{
	switch (op->kind) {
	case S3_OP_GET:
		s3_op_get(op)->done(s3_op_get(op), error);
		break;
	case S3_OP_LIST:
		s3_op_list(op)->done(s3_op_list(op), error, message);
		break;
	case S3_OP_HEAD:
		s3_op_head(op)->done(s3_op_head(op), error);
		break;
	}
}

static void s3_client_wake(struct s3_client *c)
{
	for (unsigned i = 0; i < c->nr_threads; i++) {
		struct s3_thread *t = &c->thread[i];

		if (s3_thread_has_room(t) && atomic_exchange(&t->asleep, false)) {
			s3_thread_wake(t);
			return;
		}
	}
}

static void s3_op_submit(struct s3_client *c, struct s3_op *op, enum s3_op_kind kind)
{
	bool stopping;

	op->kind = kind;
	op->region_retried = op->clock_retried = false;
	op->nr_tries = op->nr_creds_tries = op->nr_active = 0;
	op->not_before_ns = 0;
	op->attempt[0] = op->attempt[1] = NULL;
	op->submitted_ns = clock_mono_ns();

	pthread_mutex_lock(&c->lock);
	stopping = c->stopping;
	if (!stopping) {
		op->state = S3_OP_QUEUED;
		list_push_back(&c->queue[op->demand ? 0 : 1], &op->link);
		c->nr_queued_prefetch += !op->demand;
	}
	pthread_mutex_unlock(&c->lock);
	if (stopping)
		s3_op_done(op, -ECANCELED, "the client is stopping");
	else
		s3_client_wake(c);
}

void s3_get_submit(struct s3_client *c, struct s3_get *g)
{
	g->delivered = 0;
	s3_op_submit(c, &g->op, S3_OP_GET);
}

void s3_list_submit(struct s3_client *c, struct s3_list *l)
{
	l->next_token = NULL;
	s3_op_submit(c, &l->op, S3_OP_LIST);
}

void s3_head_submit(struct s3_client *c, struct s3_head *h)
{
	s3_op_submit(c, &h->op, S3_OP_HEAD);
}

void s3_op_promote(struct s3_client *c, struct s3_op *op)
{
	bool moved = false;

	pthread_mutex_lock(&c->lock);
	if (op->state == S3_OP_RUNNING && !op->demand && !op->wanted) {
		/* It keeps its place in the limits, and may be hedged from now on. */
		op->wanted = true;
		s3_hedge_earn(&c->hedge);
	} else if (op->state != S3_OP_RUNNING && !op->demand) {
		op->demand = true;
		moved = op->state == S3_OP_QUEUED;
		if (op->state == S3_OP_WAITING) {
			c->nr_active[1]--;
			c->nr_active[0]++;
		}
	}
	if (moved) {
		list_del(&op->link);
		list_push_back(&c->queue[0], &op->link);
		c->nr_queued_prefetch--;
	}
	pthread_mutex_unlock(&c->lock);
	if (moved)
		s3_client_wake(c);
}

/* Of the limit, kept for demand. */
static unsigned client_reserve(const struct s3_client *c)
{
	return c->aimd.limit > 1 ? max_of(c->aimd.limit / 4, 1u) : 0;
}

/* The queue whose first operation may start, as far as the limits go; NULL = none. */
static struct list *client_open_queue(struct s3_client *c)
{
	/* Prefetch between two tries is passed, or a server's bad moment would cost demand its turn. */
	if (!list_empty(&c->queue[0]) && c->nr_active[0] + c->nr_trying[1] < c->aimd.limit)
		return &c->queue[0];
	if (!list_empty(&c->queue[1]) && c->nr_active[0] + c->nr_active[1] + client_reserve(c) < c->aimd.limit &&
	    c->nr_active[1] < c->prefetch_limit && (!c->prefetch_max || c->nr_active[1] < c->prefetch_max))
		return &c->queue[1];
	return NULL;
}

struct s3_op *s3_client_next(struct s3_client *c, struct s3_thread *t)
{
	bool room = s3_thread_has_room(t);
	struct s3_op *op = NULL;
	struct list *queue;

	pthread_mutex_lock(&c->lock);
	queue = client_open_queue(c);
	if (queue && room) {
		op = list_entry(list_pop_front(queue), struct s3_op, link);
		c->nr_queued_prefetch -= queue == &c->queue[1];
		op->state = S3_OP_RUNNING;
		c->nr_active[op->demand ? 0 : 1]++;
		c->nr_trying[op->demand ? 0 : 1]++;
		if (op->demand && op->kind == S3_OP_GET)
			s3_hedge_earn(&c->hedge);
	}
	pthread_mutex_unlock(&c->lock);
	if (queue && !room)
		s3_client_wake(c);
	return op;
}

bool s3_client_resume(struct s3_client *c, struct s3_thread *t, struct s3_op *op)
{
	bool may;

	if (!s3_thread_has_room(t))
		return false;
	pthread_mutex_lock(&c->lock);
	may = c->nr_trying[0] + c->nr_trying[1] + (op->demand ? 0 : client_reserve(c)) < c->aimd.limit;
	if (may) {
		op->state = S3_OP_RUNNING;
		c->nr_trying[op->demand ? 0 : 1]++;
	}
	pthread_mutex_unlock(&c->lock);
	return may;
}

bool s3_client_rest(struct s3_client *c, struct s3_op *op, bool slower, uint64_t now)
{
	bool have_budget;

	pthread_mutex_lock(&c->lock);
	op->state = S3_OP_WAITING;
	c->nr_trying[op->demand ? 0 : 1]--;
	if (slower)
		s3_aimd_throttle(&c->aimd, now);
	have_budget = s3_budget_take(&c->budget);
	pthread_mutex_unlock(&c->lock);
	return have_budget;
}

/* Requests in flight are too many when each takes much longer than one alone, and too few while they do not. */
static void client_pace(struct s3_client *c, uint64_t ns, uint64_t now)
{
	if (!c->chunk_ns || ns < c->chunk_ns || now - c->chunk_seen_ns > ESTIMATE_LIFE_NS) {
		c->chunk_ns = ns;
		c->chunk_seen_ns = now;
	}
	c->chunk_usual_ns = c->chunk_usual_ns ? c->chunk_usual_ns - c->chunk_usual_ns / 8 + ns / 8 : ns;
	if (now - c->prefetch_limit_ns < PACE_PERIOD_NS)
		return;
	c->prefetch_limit_ns = now;
	if (c->chunk_usual_ns > c->chunk_ns * 5 / 2 && c->prefetch_limit > PREFETCH_LIMIT_MIN)
		c->prefetch_limit--;
	else if (c->chunk_usual_ns < c->chunk_ns * 7 / 4 && c->nr_active[1] + 2 >= c->prefetch_limit &&
		 c->prefetch_limit < c->aimd.max)
		c->prefetch_limit++;
}

void s3_client_sample(struct s3_client *c, const struct s3_attempt *a, uint64_t now)
{
	pthread_mutex_lock(&c->lock);
	/* Threads read the clock before they wait for the lock: their samples are put in order. */
	now = c->sampled_ns = max_of(now, c->sampled_ns);
	s3_aimd_success(&c->aimd, now);
	s3_budget_success(&c->budget);
	if (a->first_byte_ns)
		s3_latency_add(&c->first_byte, a->first_byte_ns - a->start_ns);
	c->rate_bytes += a->received;
	if (now - c->rate_start_ns > RATE_PERIOD_NS) {
		uint64_t rate = c->rate_bytes * NSEC_PER_SEC / (now - c->rate_start_ns);

		/* The best recent rate, fading, is what the wire can do. */
		c->best_rate = max_of(rate, c->best_rate - c->best_rate / 64);
		c->rate_bytes = 0;
		c->rate_start_ns = now;
	}
	if (a->received >= LARGE_GET_BYTES)
		client_pace(c, (now - a->start_ns) * (8u << 20) / a->received, now);
	pthread_mutex_unlock(&c->lock);
	c->bytes += a->received;
}

void s3_client_expire(struct s3_client *c, uint64_t now)
{
	struct list late;
	struct list *n;

	list_init(&late);
	pthread_mutex_lock(&c->lock);
	for (int i = 0; i < 2; i++) {
		list_for_each_safe(q, tmp, &c->queue[i]) {
			struct s3_op *op = list_entry(q, struct s3_op, link);

			if (now >= op->deadline_ns) {
				op->state = S3_OP_RUNNING;
				list_del(q);
				list_push_back(&late, q);
				c->nr_queued_prefetch -= (unsigned)i;
			}
		}
	}
	pthread_mutex_unlock(&c->lock);
	while ((n = list_pop_front(&late)))
		s3_op_done(list_entry(n, struct s3_op, link), -ETIMEDOUT, "no connection was free in time");
}

void s3_client_finished(struct s3_client *c, struct s3_op *op)
{
	bool more;

	pthread_mutex_lock(&c->lock);
	c->nr_active[op->demand ? 0 : 1]--;
	if (op->state == S3_OP_RUNNING)
		c->nr_trying[op->demand ? 0 : 1]--;
	more = !list_empty(&c->queue[0]) || !list_empty(&c->queue[1]);
	pthread_mutex_unlock(&c->lock);
	if (more && c->nr_threads > 1)
		s3_client_wake(c);
}

/* Divides the connections among the threads: all of them together are the maximum. */
static void client_share(struct s3_client *c, unsigned max)
{
	unsigned nr = c->cfg.threads;

	for (unsigned i = 0; i < nr; i++)
		atomic_store(&c->thread[i].share, max_of(max / nr + (i < max % nr), 1u));
}

static int s3_thread_start(struct s3_client *c, struct s3_thread *t, unsigned index, struct err *e)
{
	struct epoll_event ev = { .events = EPOLLIN };
	char name[16];

	t->client = c;
	list_init(&t->active);
	list_init(&t->idle);
	list_init(&t->waiting);
	t->random = (uint32_t)clock_mono_ns() ^ (index * 2654435761u);
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->multi = curl_multi_init();
	if (t->epoll_fd < 0 || t->wake_fd < 0 || !t->multi)
		return err_set(e, -ENOMEM, "cannot start an S3 thread: out of memory or descriptors");
	ev.data.fd = t->wake_fd;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &ev) < 0)
		return err_set(e, -errno, "cannot start an S3 thread: epoll: %s", strerror(errno));
	if (pthread_create(&t->id, NULL, s3_thread_main, t) != 0)
		return err_set(e, -EAGAIN, "cannot start an S3 thread: the limit on threads is reached");
	snprintf(name, sizeof(name), "s3-%hhu", (unsigned char)index);
	pthread_setname_np(t->id, name);
	return 0;
}

static void s3_thread_done(struct s3_thread *t)
{
	if (t->multi)
		curl_multi_cleanup(t->multi);
	if (t->epoll_fd >= 0)
		close(t->epoll_fd);
	if (t->wake_fd >= 0)
		close(t->wake_fd);
	explicit_bzero(&t->signer, sizeof(t->signer));
}

int s3_client_start(const struct s3_client_config *cfg, struct s3_client **ret, struct err *e)
{
	struct s3_client *c = calloc(1, sizeof(*c));
	unsigned started = 0;
	int rc;

	if (!c || !(c->thread = calloc(max_of(cfg->threads, 1u), sizeof(*c->thread)))) {
		free(c);
		return err_set(e, -ENOMEM, "cannot start the S3 client: out of memory");
	}
	c->cfg = *cfg;
	c->cfg.max_connections = max_of(cfg->max_connections, 1u);
	c->cfg.threads = min_of(max_of(cfg->threads, 1u), c->cfg.max_connections);
	client_share(c, c->cfg.max_connections);
	if (cfg->ca_bundle)
		snprintf(c->ca_bundle, sizeof(c->ca_bundle), "%s", cfg->ca_bundle);
	snprintf(c->region, sizeof(c->region), "%s", cfg->region);
	c->endpoint = cfg->endpoint;
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->queue[0]);
	list_init(&c->queue[1]);
	s3_aimd_init(&c->aimd, c->cfg.max_connections, AIMD_HOLD_NS);
	s3_budget_init(&c->budget, RETRY_TOKENS, RETRY_GAIN_PERMILLE);
	s3_hedge_init(&c->hedge, cfg->hedge_percent);
	c->hedge_percent = cfg->hedge_percent;
	c->prefetch_limit = PREFETCH_LIMIT_START;
	curl_global_init(CURL_GLOBAL_DEFAULT);

	for (; started < c->cfg.threads; started++) {
		struct s3_thread *t = &c->thread[started];

		t->epoll_fd = t->wake_fd = -1;
		rc = s3_thread_start(c, t, started, e);
		if (rc < 0) {
			s3_thread_done(t);
			c->nr_threads = started;
			s3_client_free(c);
			return rc;
		}
		c->nr_threads = started + 1;
	}
	*ret = c;
	return 0;
}

void s3_client_stop(struct s3_client *c)
{
	struct list left;
	struct list *n;

	list_init(&left);
	pthread_mutex_lock(&c->lock);
	c->stopping = true;
	list_splice_back(&left, &c->queue[0]);
	list_splice_back(&left, &c->queue[1]);
	c->nr_queued_prefetch = 0;
	/* No promotion moves them any more. */
	list_for_each(q, &left)
		list_entry(q, struct s3_op, link)->state = S3_OP_RUNNING;
	pthread_mutex_unlock(&c->lock);
	while ((n = list_pop_front(&left)))
		s3_op_done(list_entry(n, struct s3_op, link), -ECANCELED, "the client is stopping");
	for (unsigned i = 0; i < c->nr_threads && !c->joined; i++)
		s3_thread_wake(&c->thread[i]);
	for (unsigned i = 0; i < c->nr_threads && !c->joined; i++)
		pthread_join(c->thread[i].id, NULL);
	c->joined = true;
}

struct s3_client *s3_client_free(struct s3_client *c)
{
	if (!c)
		return NULL;
	s3_client_stop(c);
	/* Only now: who submits while the client stops still wakes a thread. */
	for (unsigned i = 0; i < c->nr_threads; i++)
		s3_thread_done(&c->thread[i]);
	pthread_mutex_destroy(&c->lock);
	free(c->thread);
	free(c);
	return NULL;
}

void s3_client_settle(struct s3_client *c)
{
	pthread_mutex_lock(&c->lock);
	c->settled = true;
	pthread_mutex_unlock(&c->lock);
}

bool s3_client_settled(struct s3_client *c)
{
	bool settled;

	pthread_mutex_lock(&c->lock);
	settled = c->settled;
	pthread_mutex_unlock(&c->lock);
	return settled;
}

const char *s3_client_region(struct s3_client *c, char ret[S3_REGION_MAX])
{
	pthread_mutex_lock(&c->lock);
	memcpy(ret, c->region, S3_REGION_MAX);
	pthread_mutex_unlock(&c->lock);
	return ret;
}

unsigned s3_client_set_max_connections(struct s3_client *c, unsigned n)
{
	pthread_mutex_lock(&c->lock);
	s3_aimd_set_max(&c->aimd, n);
	client_share(c, c->aimd.max);
	pthread_mutex_unlock(&c->lock);
	return n;
}

void s3_client_set_max_prefetch(struct s3_client *c, unsigned n)
{
	pthread_mutex_lock(&c->lock);
	c->prefetch_max = n;
	pthread_mutex_unlock(&c->lock);
	s3_client_wake(c);
}

void s3_client_set_hedge_percent(struct s3_client *c, unsigned percent)
{
	pthread_mutex_lock(&c->lock);
	s3_hedge_init(&c->hedge, percent);
	c->hedge_percent = percent;
	pthread_mutex_unlock(&c->lock);
}

unsigned s3_client_prefetch_room(struct s3_client *c)
{
	unsigned most, room;

	pthread_mutex_lock(&c->lock);
	most = c->prefetch_limit * PREFETCH_QUEUE_FACTOR;
	room = c->stopping || c->nr_queued_prefetch >= most ? 0 : most - c->nr_queued_prefetch;
	pthread_mutex_unlock(&c->lock);
	return room;
}

void s3_client_stats(struct s3_client *c, struct s3_client_stats *ret)
{
	pthread_mutex_lock(&c->lock);
	*ret = (struct s3_client_stats){
		.throttled = c->aimd.throttled,
		.limit = c->aimd.limit,
		.bytes_per_s = c->best_rate,
		.chunk_ns = c->chunk_ns,
		.first_byte_p50_ns = s3_latency_quantile_ns(&c->first_byte, 500),
		.first_byte_p99_ns = s3_latency_quantile_ns(&c->first_byte, 990),
	};
	pthread_mutex_unlock(&c->lock);
	ret->requests = c->requests;
	ret->retries = c->retries;
	ret->hedges = c->hedges;
	ret->bytes = c->bytes;
	ret->errors = c->errors;
}

struct sync_list {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool finished;
	int error;
	struct err *e;
};

static void sync_list_done(struct s3_list *l, int error, const char *message)
{
	struct sync_list *s = (struct sync_list *)l->ops_ctx;

	pthread_mutex_lock(&s->lock);
	s->error = error < 0 ? err_set(s->e, error, "%s", message) : 0;
	s->finished = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

int s3_list_sync(struct s3_client *c, struct s3_list *l, struct err *e)
{
	struct sync_list s = { .e = e };

	pthread_mutex_init(&s.lock, NULL);
	pthread_cond_init(&s.cond, NULL);
	l->ops = NULL;
	l->ops_ctx = &s;
	l->done = sync_list_done;
	s3_list_submit(c, l);
	pthread_mutex_lock(&s.lock);
	while (!s.finished)
		pthread_cond_wait(&s.cond, &s.lock);
	pthread_mutex_unlock(&s.lock);
	pthread_cond_destroy(&s.cond);
	pthread_mutex_destroy(&s.lock);
	return s.error;
}
