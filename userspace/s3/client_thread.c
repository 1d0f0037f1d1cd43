// SPDX-License-Identifier: Apache-2.0
/*
 * The S3 client's threads: each drives one curl multi with epoll, judges finished tries and decides on the next.
 *
 * Design: an operation is tried until it succeeds, fails for good or its deadline passes. A try that makes no progress
 * is given up and the next one, on a fresh connection, goes on where the data stopped. A demand GET whose first byte
 * is later than the live p95 gets a second try beside the first (a hedge); whichever is ahead delivers.
 * Threads: everything here runs in the S3 thread that owns the operation.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "s3/client_i.h"

#define NR_EVENTS 64
#define BACKOFF_BASE_NS (50 * NSEC_PER_MSEC)
#define BACKOFF_CAP_NS (2 * NSEC_PER_SEC)
/* As a number of tries: what follows an empty retry budget. */
#define BACKOFF_LONG 5
/* Credentials are renewed at most once a second. */
#define CREDS_TRIES 4u
#define CREDS_WAIT_NS (700 * NSEC_PER_MSEC)
#define FIRST_BYTE_MIN_NS (3 * NSEC_PER_SEC)
#define FIRST_BYTE_MAX_NS (15 * NSEC_PER_SEC)
#define STALL_NS (3 * NSEC_PER_SEC)
/* Below this a try counts as stalled; what it brought is kept, so giving it up loses a connection and no data. */
#define STALL_BYTES (64u << 10)
#define TICK_NS (100 * NSEC_PER_MSEC)
#define HEDGE_TICK_NS (10 * NSEC_PER_MSEC)
#define HEDGE_FLOOR_NS (20 * NSEC_PER_MSEC)

void s3_thread_wake(struct s3_thread *t)
{
	uint64_t one = 1;

	if (write(t->wake_fd, &one, sizeof(one)) < 0) {
		/* The counter is full: it is awake. */
	}
}

static uint32_t thread_random(struct s3_thread *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 17;
	t->random ^= t->random << 5;
	return t->random;
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct s3_thread *t = arg;
	struct epoll_event ev = { .data.fd = fd };

	if (what == CURL_POLL_REMOVE) {
		epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return 0;
	}
	if (what & CURL_POLL_IN)
		ev.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		ev.events |= EPOLLOUT;
	if (epoll_ctl(t->epoll_fd, EPOLL_CTL_MOD, fd, &ev) < 0 && errno == ENOENT)
		epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
	return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct s3_thread *t = arg;

	t->curl_timer_ns = timeout_ms < 0 ? 0 : clock_mono_ns() + (uint64_t)timeout_ms * NSEC_PER_MSEC + 1;
	return 0;
}

static void op_finish(struct s3_thread *t, struct s3_op *op, int error, const char *message)
{
	struct s3_client *c = t->client;

	if (error < 0)
		c->errors++;
	s3_client_finished(c, op);
	s3_op_done(op, error, message);
}

static void attempt_release(struct s3_thread *t, struct s3_attempt *a)
{
	struct s3_op *op = a->op;

	if (op) {
		op->attempt[a->hedge ? 1 : 0] = NULL;
		op->nr_active--;
		atomic_fetch_sub(&t->nr_attempts, 1);
	}
	s3_attempt_reset(a);
	list_del(&a->link);
	list_push_back(&t->idle, &a->link);
}

static int attempt_start(struct s3_thread *t, struct s3_op *op, bool hedge)
{
	struct list *n = list_pop_front(&t->idle);
	struct s3_attempt *a = n ? list_entry(n, struct s3_attempt, link) : calloc(1, sizeof(*a));
	int rc;

	if (!a)
		return -ENOMEM;
	list_init(&a->link);
	list_push_back(&t->active, &a->link);
	a->op = op;
	a->hedge = hedge;
	op->attempt[hedge ? 1 : 0] = a;
	op->nr_active++;
	atomic_fetch_add(&t->nr_attempts, 1);
	rc = s3_attempt_prepare(t, a);
	if (rc == 0 && curl_multi_add_handle(t->multi, a->easy) != CURLM_OK)
		rc = -ENOMEM;
	if (rc < 0) {
		attempt_release(t, a);
		return rc;
	}
	t->client->requests++;
	if (op->kind == S3_OP_GET && t->client->hedge_percent)
		t->next_tick_ns = min_of(t->next_tick_ns, a->start_ns + HEDGE_TICK_NS);
	return 0;
}

/* Gives a try up without judging it; its half-read connection is closed by curl. */
static void attempt_cancel(struct s3_thread *t, struct s3_attempt *a)
{
	curl_multi_remove_handle(t->multi, a->easy);
	attempt_release(t, a);
}

static void op_cancel_others(struct s3_thread *t, struct s3_op *op)
{
	for (int i = 0; i < 2; i++) {
		if (op->attempt[i])
			attempt_cancel(t, op->attempt[i]);
	}
}

/* Waits for the next try; past the deadline the operation ends instead. */
static void op_wait(struct s3_thread *t, struct s3_op *op, const struct s3_failure *f)
{
	struct s3_client *c = t->client;
	uint64_t now = clock_mono_ns(), wait_ns;
	bool have_budget = s3_client_rest(c, op, f->verdict == S3_RETRY_SLOWER, now);

	wait_ns = f->wait_ns + s3_backoff_ns(have_budget ? op->nr_tries : BACKOFF_LONG, BACKOFF_BASE_NS, BACKOFF_CAP_NS,
					     thread_random(t));
	op->nr_tries++;
	if (now + wait_ns >= op->deadline_ns) {
		char text[512], what[1024];

		s3_op_describe(c, op, what, sizeof(what));
		snprintf(text, sizeof(text), "no answer in time after %u tries, last: %s", op->nr_tries, f->message);
		log_error("s3", "%s: %s", what, text);
		op_finish(t, op, -ETIMEDOUT, text);
		return;
	}
	c->retries++;
	op->not_before_ns = now + wait_ns;
	list_push_back(&t->waiting, &op->link);
}

static void op_start(struct s3_thread *t, struct s3_op *op)
{
	static const struct s3_failure f = { .verdict = S3_RETRY, .message = "cannot build the request" };
	int rc = attempt_start(t, op, false);

	if (rc == -EACCES || rc == -ENOKEY)
		op_finish(t, op, -EACCES, "no credentials");
	else if (rc < 0)
		op_wait(t, op, &f);
}

static void op_succeed(struct s3_thread *t, struct s3_op *op)
{
	op_cancel_others(t, op);
	op_finish(t, op, 0, "");
}

/* Follows the bucket to its region where the user did not name one. */
static bool client_move_region(struct s3_client *c, const char *region)
{
	struct s3_endpoint ep;
	bool moved = false;

	if (!region[0])
		return false;
	pthread_mutex_lock(&c->lock);
	if (!c->cfg.region_pinned && strlen(region) < sizeof(c->region)) {
		if (!c->endpoint.is_aws) {
			moved = true;
		} else if (s3_endpoint_aws(region, &ep, NULL) == 0) {
			c->endpoint = ep;
			moved = true;
		}
		if (moved)
			snprintf(c->region, sizeof(c->region), "%s", region);
	}
	pthread_mutex_unlock(&c->lock);
	if (moved)
		log_info("s3", "bucket=%s is in region %s: using it", c->cfg.bucket, region);
	return moved;
}

/* A mistake of ours that another try may avoid: old credentials, the wrong region, a skewed clock. */
static bool op_correct(struct s3_thread *t, struct s3_op *op, struct s3_failure *f)
{
	struct s3_client *c = t->client;
	bool settled = s3_client_settled(c);

	if (f->verdict == S3_RETRY_CREDS && op->nr_creds_tries < (settled ? CREDS_TRIES : 1)) {
		op->nr_creds_tries++;
		s3_provider_invalidate(c->cfg.provider);
		f->wait_ns = settled ? CREDS_WAIT_NS : 0;
		op_wait(t, op, f);
		return true;
	}
	if (f->verdict == S3_RETRY_REGION && !op->region_retried && client_move_region(c, f->region)) {
		op->region_retried = true;
		op_start(t, op);
		return true;
	}
	if (f->verdict == S3_RETRY_CLOCK && !op->clock_retried && settled && f->date) {
		op->clock_retried = true;
		c->clock_offset_s = f->date - time(NULL);
		log_warn("s3", "this machine's clock is %ld s off the server's: corrected in requests",
			 -(long)c->clock_offset_s);
		op_wait(t, op, f);
		return true;
	}
	return false;
}

static void attempt_failed(struct s3_thread *t, struct s3_op *op, struct s3_failure *f)
{
	static struct log_gate gate;
	uint64_t now = clock_mono_ns();
	char what[1024];
	unsigned long held;

	/* A hedge failed, or was the faster one to fail: the other try goes on, unless the answer is final. */
	if (op->nr_active && f->verdict != S3_FAIL)
		return;
	op_cancel_others(t, op);
	if (op_correct(t, op, f))
		return;
	s3_op_describe(t->client, op, what, sizeof(what));
	if (f->verdict == S3_RETRY || f->verdict == S3_RETRY_SLOWER) {
		if (log_gate_open(&gate, &held))
			log_warn("s3", "%s: %s; trying again (%lu like it not shown)", what, f->message, held);
		/* A server that wants us to wait beyond the deadline is asked once more before it. */
		f->wait_ns = min_of(f->wait_ns, op->deadline_ns > now ? (op->deadline_ns - now) / 2 : 0);
		op_wait(t, op, f);
		return;
	}
	if (f->error != -ENOENT || op->kind == S3_OP_GET)
		log_error("s3", "%s: %s", what, f->message);
	op_finish(t, op, f->error, f->message);
}

static void attempt_finished(struct s3_thread *t, struct s3_attempt *a, CURLcode rc)
{
	struct s3_op *op = a->op;
	struct s3_failure f = { 0 };
	bool whole;
	int err = 0;

	curl_multi_remove_handle(t->multi, a->easy);
	/* What goes wrong after the last byte that was asked for does not matter any more. */
	whole = op->kind == S3_OP_GET && s3_op_get(op)->delivered == s3_op_get(op)->len;
	if (rc != CURLE_OK && !whole) {
		s3_failure_of_curl(a, rc, &f);
	} else if (a->reply.status == 200 || (a->reply.status == 206 && op->kind == S3_OP_GET)) {
		switch (op->kind) {
		case S3_OP_GET:
			err = whole ? 0 : -EBADMSG;
			break;
		case S3_OP_LIST:
			err = s3_list_page(s3_op_list(op), &a->body);
			break;
		case S3_OP_HEAD:
			s3_op_head(op)->reply = a->reply;
			break;
		}
		if (err == 0) {
			s3_client_sample(t->client, a, clock_mono_ns());
			attempt_release(t, a);
			op_succeed(t, op);
			return;
		}
		s3_failure_of_body(a, err, &f);
	} else {
		s3_failure_of_reply(a, &f);
	}
	t->client->bytes += a->received;
	attempt_release(t, a);
	attempt_failed(t, op, &f);
}

static void thread_reap(struct s3_thread *t)
{
	CURLMsg *m;
	int left;

	while ((m = curl_multi_info_read(t->multi, &left))) {
		struct s3_attempt *a = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&a);
		attempt_finished(t, a, m->data.result);
	}
}

/* Starts the next tries that are due; where the limit does not allow one now, it is looked at again soon. */
static void thread_resume(struct s3_thread *t, uint64_t now)
{
	list_for_each_safe(n, tmp, &t->waiting) {
		struct s3_op *op = list_entry(n, struct s3_op, link);

		if (now < op->not_before_ns)
			continue;
		if (now >= op->deadline_ns) {
			list_del(n);
			op_finish(t, op, -ETIMEDOUT, "no connection was free in time");
		} else if (s3_client_resume(t->client, t, op)) {
			list_del(n);
			op_start(t, op);
		} else {
			op->not_before_ns = now + s3_backoff_ns(0, BACKOFF_BASE_NS, BACKOFF_CAP_NS, thread_random(t));
		}
	}
}

static void thread_pull(struct s3_thread *t)
{
	unsigned share = atomic_load(&t->share);
	struct s3_op *op;

	if (t->pool_max != share)
		curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)share);
	t->pool_max = share;
	thread_resume(t, clock_mono_ns());
	while ((op = s3_client_next(t->client, t)))
		op_start(t, op);
}

static bool attempt_stuck(const struct s3_attempt *a, uint64_t now, uint64_t first_byte_limit_ns)
{
	/* More patience with each try: a server that is always slower than the first limit is read as well. */
	unsigned nr_tries = min_of(a->op->nr_tries, 3u);

	if (!a->received)
		return now > a->start_ns &&
		       now - a->start_ns > min_of(first_byte_limit_ns << nr_tries, FIRST_BYTE_MAX_NS);
	return now > a->progress_ns && now - a->progress_ns > STALL_NS;
}

/* Watches progress; true if a GET still waits for its first byte (then ticks are short). */
static bool thread_tick(struct s3_thread *t, uint64_t now)
{
	struct s3_client *c = t->client;
	uint64_t p95, p99, first_byte_limit_ns, hedge_ns;
	bool watch = false;

	pthread_mutex_lock(&c->lock);
	p95 = s3_latency_quantile_ns(&c->first_byte, 950);
	p99 = s3_latency_quantile_ns(&c->first_byte, 990);
	pthread_mutex_unlock(&c->lock);
	first_byte_limit_ns = min_of(max_of(p99 * 4, (uint64_t)FIRST_BYTE_MIN_NS), (uint64_t)FIRST_BYTE_MAX_NS);
	hedge_ns = p95 ? max_of(p95, (uint64_t)HEDGE_FLOOR_NS) : 0;

	list_for_each_safe(n, tmp, &t->active) {
		struct s3_attempt *a = list_entry(n, struct s3_attempt, link);
		struct s3_op *op = a->op;
		struct s3_failure f = { .error = -EIO, .verdict = S3_RETRY };
		bool take;

		if (a->received - a->progress_bytes >= STALL_BYTES) {
			a->progress_bytes = a->received;
			a->progress_ns = now;
		}
		if (now >= op->deadline_ns || attempt_stuck(a, now, first_byte_limit_ns)) {
			/* All bytes came; only the end of the reply is missing. */
			if (op->kind == S3_OP_GET && s3_op_get(op)->delivered == s3_op_get(op)->len) {
				op_succeed(t, op);
				return true;
			}
			snprintf(f.message, sizeof(f.message), "%s", a->received ? "the reply stalled" : "no reply");
			t->client->bytes += a->received;
			attempt_cancel(t, a);
			attempt_failed(t, op, &f);
			/* The list may have changed under us: the rest is looked at in the next tick. */
			return true;
		}
		if (a->received || a->hedge || op->kind != S3_OP_GET || op->attempt[1] || !hedge_ns)
			continue;
		watch = true;
		if (!op->demand && !op->wanted)
			continue;
		if (now - a->start_ns < hedge_ns || !s3_thread_has_room(t))
			continue;
		pthread_mutex_lock(&c->lock);
		take = s3_hedge_take(&c->hedge);
		pthread_mutex_unlock(&c->lock);
		if (take && attempt_start(t, op, true) == 0)
			c->hedges++;
	}
	return watch;
}

static int thread_timeout_ms(struct s3_thread *t, uint64_t now)
{
	uint64_t until = UINT64_MAX;

	if (t->curl_timer_ns)
		until = t->curl_timer_ns;
	/* Ticks also end what is in the queue past its deadline. */
	if (!list_empty(&t->active) || !list_empty(&t->waiting))
		until = min_of(until, t->next_tick_ns);
	list_for_each(n, &t->waiting)
		until = min_of(until, list_entry(n, struct s3_op, link)->not_before_ns);
	if (until == UINT64_MAX)
		return -1;
	return until <= now ? 0 : (int)min_of((until - now) / NSEC_PER_MSEC + 1, (uint64_t)60000);
}

static void thread_wait(struct s3_thread *t)
{
	struct epoll_event ev[NR_EVENTS];
	uint64_t count;
	int n, running, timeout;

	timeout = thread_timeout_ms(t, clock_mono_ns());
	n = epoll_wait(t->epoll_fd, ev, NR_EVENTS, timeout);
	for (int i = 0; i < n; i++) {
		int mask = 0;

		if (ev[i].data.fd == t->wake_fd) {
			(void)!read(t->wake_fd, &count, sizeof(count));
			continue;
		}
		if (ev[i].events & (EPOLLIN | EPOLLHUP))
			mask |= CURL_CSELECT_IN;
		if (ev[i].events & EPOLLOUT)
			mask |= CURL_CSELECT_OUT;
		if (ev[i].events & EPOLLERR)
			mask |= CURL_CSELECT_ERR;
		curl_multi_socket_action(t->multi, ev[i].data.fd, mask, &running);
	}
	if (t->curl_timer_ns && clock_mono_ns() >= t->curl_timer_ns) {
		t->curl_timer_ns = 0;
		curl_multi_socket_action(t->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
}

static void thread_drain(struct s3_thread *t)
{
	struct list *n;

	while (!list_empty(&t->active)) {
		struct s3_op *op = list_entry(t->active.next, struct s3_attempt, link)->op;

		op_cancel_others(t, op);
		op_finish(t, op, -ECANCELED, "the client is stopping");
	}
	while ((n = list_pop_front(&t->waiting)))
		op_finish(t, list_entry(n, struct s3_op, link), -ECANCELED, "the client is stopping");
	while ((n = list_pop_front(&t->idle))) {
		struct s3_attempt *a = list_entry(n, struct s3_attempt, link);

		curl_easy_cleanup(a->easy);
		free(a);
	}
}

static bool client_stopping(struct s3_client *c)
{
	bool stopping;

	pthread_mutex_lock(&c->lock);
	stopping = c->stopping;
	pthread_mutex_unlock(&c->lock);
	return stopping;
}

void *s3_thread_main(void *arg)
{
	struct s3_thread *t = arg;
	uint64_t now;

	curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, (void *)t);
	curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, (void *)t);
	while (!client_stopping(t->client)) {
		atomic_store(&t->asleep, true);
		thread_pull(t);
		thread_wait(t);
		atomic_store(&t->asleep, false);
		thread_reap(t);
		now = clock_mono_ns();
		if (now >= t->next_tick_ns) {
			s3_client_expire(t->client, now);
			t->next_tick_ns = now + (thread_tick(t, now) ? HEDGE_TICK_NS : TICK_NS);
		}
	}
	thread_drain(t);
	return NULL;
}
