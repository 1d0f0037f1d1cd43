/* SPDX-License-Identifier: Apache-2.0 */
/* What the S3 client's tests share: an HTTP server that answers as the test says, and checked requests. */
#ifndef PENSTOCK_TEST_CLIENT_H
#define PENSTOCK_TEST_CLIENT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "s3/client.h"

#define OBJECT_BYTES 3000017ull
#define CONNS_MAX 128
#define REQUESTS_MAX 1024
#define PATIENCE_S 60 /* nothing takes as long: a test that waits for it has failed */

static inline unsigned char content(uint64_t at)
{
	return (unsigned char)((at * 0x9e3779b97f4a7c15ull) >> 37);
}

static struct s3_client *client;
static struct s3_provider *provider;

/* --- server --- */

struct request {
	char method[8], target[2048], if_match[160], host[64];
	bool has_range;
	uint64_t first, last;
	unsigned nr;   /* in order of arrival, from 0 */
	unsigned conn; /* likewise */
	int fd;
};

/* In the connection's thread; false closes the connection. */
typedef bool answer_fn(struct request *q);

static struct {
	int fd;
	char url[64];
	pthread_t thread;
	answer_fn *answer;
	pthread_mutex_t lock; /* guards the rest */
	pthread_cond_t cond;
	unsigned nr_conns, nr_requests, nr_open_gates;
	bool stopping;
	int conn_fd[CONNS_MAX];
	pthread_t conn_thread[CONNS_MAX];
	struct request request[REQUESTS_MAX];
} srv;

/* Until the test has opened <nr> gates, or the server stops. */
static inline void gate_wait(unsigned nr)
{
	pthread_mutex_lock(&srv.lock);
	while (srv.nr_open_gates < nr && !srv.stopping)
		pthread_cond_wait(&srv.cond, &srv.lock);
	pthread_mutex_unlock(&srv.lock);
}

static inline void gates_open(unsigned nr)
{
	pthread_mutex_lock(&srv.lock);
	srv.nr_open_gates = nr;
	pthread_cond_broadcast(&srv.cond);
	pthread_mutex_unlock(&srv.lock);
}

static inline void patience(struct timespec *ret)
{
	clock_gettime(CLOCK_REALTIME, ret);
	ret->tv_sec += PATIENCE_S;
}

static inline void wait_requests(unsigned nr)
{
	struct timespec until;
	int rc = 0;

	patience(&until);
	pthread_mutex_lock(&srv.lock);
	while (srv.nr_requests < nr && rc == 0)
		rc = pthread_cond_timedwait(&srv.cond, &srv.lock, &until);
	pthread_mutex_unlock(&srv.lock);
	assert_int_equal(rc, 0);
}

static inline unsigned nr_requests(void)
{
	unsigned nr;

	pthread_mutex_lock(&srv.lock);
	nr = srv.nr_requests;
	pthread_mutex_unlock(&srv.lock);
	return nr;
}

static inline struct request request_at(unsigned i)
{
	struct request q;

	pthread_mutex_lock(&srv.lock);
	q = srv.request[i];
	pthread_mutex_unlock(&srv.lock);
	return q;
}

static inline bool send_bytes(const struct request *q, const void *bytes, size_t len)
{
	const char *p = bytes;

	while (len) {
		ssize_t n = send(q->fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool __attribute__((format(printf, 2, 3))) send_text(const struct request *q, const char *fmt, ...)
{
	char text[8192];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return send_bytes(q, text, (size_t)n);
}

static inline bool send_content(const struct request *q, uint64_t first, uint64_t len)
{
	unsigned char *bytes = malloc(len ? len : 1);
	bool ok;

	for (uint64_t i = 0; i < len; i++)
		bytes[i] = content(first + i);
	ok = send_bytes(q, bytes, len);
	free(bytes);
	return ok;
}

static inline bool send_head_206(const struct request *q)
{
	return send_text(q,
			 "HTTP/1.1 206 Partial Content\r\nContent-Length: %" PRIu64
			 "\r\nETag: \"v1\"\r\n"
			 "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%llu\r\n\r\n",
			 q->last - q->first + 1, q->first, q->last, OBJECT_BYTES);
}

static inline bool answer_right(struct request *q)
{
	return send_head_206(q) && send_content(q, q->first, q->last - q->first + 1);
}

static inline bool answer_text(const struct request *q, const char *status, const char *headers, const char *body)
{
	return send_text(q, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s\r\n", status, strlen(body), headers) &&
	       send_bytes(q, body, strlen(body));
}

static inline void request_header(struct request *q, const char *line)
{
	if (sscanf(line, "Range: bytes=%" SCNu64 "-%" SCNu64, &q->first, &q->last) == 2)
		q->has_range = true;
	sscanf(line, "If-Match: %159s", q->if_match);
	sscanf(line, "Host: %63s", q->host);
}

/* False at the end of the connection. */
static inline bool request_read(struct request *q)
{
	char text[16384] = "", *save = NULL, *line;
	size_t len = 0;

	while (len < 4 || memcmp(text + len - 4, "\r\n\r\n", 4)) {
		ssize_t n = len < sizeof(text) - 1 ? recv(q->fd, text + len, sizeof(text) - 1 - len, 0) : -1;

		if (n <= 0)
			return false;
		len += (size_t)n;
	}
	text[len] = '\0';
	line = strtok_r(text, "\r\n", &save);
	if (!line || sscanf(line, "%7s %2047s", q->method, q->target) != 2)
		return false;
	while ((line = strtok_r(NULL, "\r\n", &save)))
		request_header(q, line);
	return true;
}

static inline void *conn_main(void *arg)
{
	unsigned conn = (unsigned)(uintptr_t)arg;
	bool open = true;

	while (open) {
		struct request q = { .conn = conn };
		answer_fn *answer;

		pthread_mutex_lock(&srv.lock);
		q.fd = srv.conn_fd[conn];
		pthread_mutex_unlock(&srv.lock);
		if (!request_read(&q))
			break;
		pthread_mutex_lock(&srv.lock);
		q.nr = srv.nr_requests++;
		srv.request[q.nr % REQUESTS_MAX] = q;
		answer = srv.answer;
		pthread_cond_broadcast(&srv.cond);
		pthread_mutex_unlock(&srv.lock);
		open = answer(&q);
	}
	pthread_mutex_lock(&srv.lock);
	close(srv.conn_fd[conn]);
	srv.conn_fd[conn] = -1;
	pthread_mutex_unlock(&srv.lock);
	return NULL;
}

static inline void *server_main(void *arg)
{
	int fd;

	while ((fd = accept(srv.fd, NULL, NULL)) >= 0) {
		pthread_mutex_lock(&srv.lock);
		if (srv.stopping || srv.nr_conns == CONNS_MAX) {
			close(fd);
		} else {
			uintptr_t conn = srv.nr_conns++;

			srv.conn_fd[conn] = fd;
			pthread_create(&srv.conn_thread[conn], NULL, conn_main, (void *)conn);
		}
		pthread_mutex_unlock(&srv.lock);
	}
	return NULL;
}

static inline void server_start(answer_fn *answer)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);

	if (client) {
		/* The test before has failed, and its threads are still at work on what is gone. */
		fflush(NULL);
		_exit(1);
	}
	memset(&srv, 0, sizeof(srv));
	srv.answer = answer;
	pthread_mutex_init(&srv.lock, NULL);
	pthread_cond_init(&srv.cond, NULL);
	srv.fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(srv.fd >= 0);
	assert_int_equal(bind(srv.fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(srv.fd, CONNS_MAX), 0);
	assert_int_equal(getsockname(srv.fd, (struct sockaddr *)&at, &len), 0);
	snprintf(srv.url, sizeof(srv.url), "http://127.0.0.1:%u", ntohs(at.sin_port));
	assert_int_equal(pthread_create(&srv.thread, NULL, server_main, NULL), 0);
}

static inline void server_answer(answer_fn *answer)
{
	pthread_mutex_lock(&srv.lock);
	srv.answer = answer;
	pthread_mutex_unlock(&srv.lock);
}

static inline void server_stop(void)
{
	pthread_mutex_lock(&srv.lock);
	srv.stopping = true;
	pthread_cond_broadcast(&srv.cond);
	shutdown(srv.fd, SHUT_RDWR);
	for (unsigned i = 0; i < srv.nr_conns; i++) {
		if (srv.conn_fd[i] >= 0)
			shutdown(srv.conn_fd[i], SHUT_RDWR);
	}
	pthread_mutex_unlock(&srv.lock);
	pthread_join(srv.thread, NULL);
	for (unsigned i = 0; i < srv.nr_conns; i++)
		pthread_join(srv.conn_thread[i], NULL);
	close(srv.fd);
	pthread_mutex_destroy(&srv.lock);
	pthread_cond_destroy(&srv.cond);
}

/* --- client --- */

static inline void client_make(unsigned max_connections, unsigned threads, unsigned hedge_percent)
{
	struct s3_creds_config creds = { .source = S3_CREDS_ANONYMOUS };
	struct s3_client_config cfg = {
		.bucket = "b",
		.region = "us-east-1",
		.path_style = true,
		.max_connections = max_connections,
		.threads = threads,
		.hedge_percent = hedge_percent,
	};
	struct err e = { 0 };

	log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT, -1);
	assert_int_equal(s3_provider_start(&creds, &provider, &e), 0);
	cfg.provider = provider;
	assert_int_equal(s3_endpoint_parse(srv.url, &cfg.endpoint, &e), 0);
	assert_int_equal(s3_client_start(&cfg, &client, &e), 0);
}

static inline void client_end(void)
{
	client = s3_client_free(client);
	provider = s3_provider_stop(provider);
	server_stop();
}

static inline struct s3_client_stats client_stats(void)
{
	struct s3_client_stats st;

	s3_client_stats(client, &st);
	return st;
}

/* --- requests; what goes wrong in the client's threads is noted and asserted in the test's --- */

static pthread_mutex_t done_lock = PTHREAD_MUTEX_INITIALIZER; /* guards what the callbacks note */
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;
static unsigned nr_done_total;

struct tget {
	struct s3_get g;
	uint64_t got;
	unsigned nr_done, turn; /* turn: how many were done before */
	int error;
	bool wrong;
};

static inline void tget_data(struct s3_get *g, const void *bytes, size_t len)
{
	struct tget *t = container_of(g, struct tget, g);
	const unsigned char *p = bytes;

	if (g->delivered != t->got + len || g->delivered > g->len || t->nr_done || len == 0)
		t->wrong = true;
	for (size_t i = 0; i < len; i++) {
		if (p[i] != content(g->offset + t->got + i))
			t->wrong = true;
	}
	t->got += len;
}

static inline void tget_done(struct s3_get *g, int error)
{
	struct tget *t = container_of(g, struct tget, g);

	pthread_mutex_lock(&done_lock);
	t->nr_done++;
	t->turn = nr_done_total++;
	t->error = error;
	pthread_cond_broadcast(&done_cond);
	pthread_mutex_unlock(&done_lock);
}

static inline void get_init(struct tget *t, uint64_t offset, uint64_t len, bool demand, uint64_t limit_ns)
{
	*t = (struct tget){
		.g = { .key = "a key", .etag = "v1", .object_bytes = OBJECT_BYTES, .offset = offset, .len = len }
	};
	t->g.op.demand = demand;
	t->g.op.deadline_ns = clock_mono_ns() + limit_ns;
	t->g.data = tget_data;
	t->g.done = tget_done;
}

static inline void get_start(struct tget *t, uint64_t offset, uint64_t len, bool demand, uint64_t limit_ns)
{
	get_init(t, offset, len, demand, limit_ns);
	s3_get_submit(client, &t->g);
}

static inline void wait_flag(const unsigned *nr_done)
{
	struct timespec until;
	int rc = 0;

	patience(&until);
	pthread_mutex_lock(&done_lock);
	while (!*nr_done && rc == 0)
		rc = pthread_cond_timedwait(&done_cond, &done_lock, &until);
	pthread_mutex_unlock(&done_lock);
	assert_int_equal(rc, 0);
}

static inline void get_wait(struct tget *t, int error)
{
	wait_flag(&t->nr_done);
	assert_int_equal(t->nr_done, 1);
	assert_int_equal(t->error, error);
	assert_false(t->wrong);
	if (error == 0)
		assert_true(t->got == t->g.len && t->g.delivered == t->g.len);
}

static inline void get_whole(uint64_t offset, uint64_t len, int error)
{
	struct tget t;

	get_start(&t, offset, len, true, PATIENCE_S * NSEC_PER_SEC);
	get_wait(&t, error);
}

#endif
