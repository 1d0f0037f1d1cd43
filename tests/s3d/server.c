// SPDX-License-Identifier: Apache-2.0
/*
 * Threads, listening sockets, connections and outages.
 *
 * Design: each thread has an event loop, an evhttp and a listening socket of its own; the kernel shares connections
 * out among them (SO_REUSEPORT).
 * Threads: conns and requests belong to their worker. What others want of a worker they write to the server's
 * atomics, and then activate <wake>.
 */
#define _GNU_SOURCE

#include "server.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "request.h"
#include "wire.h"

#define BODY_MAX_BYTES ((ev_ssize_t)5 << 30)
#define SINGLE_IO_BYTES (1 << 20)
#define BACKLOG 1024

/* RST at once, whatever is still in the socket. */
static void socket_reset(int fd)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	connect(fd, &none, sizeof(none));
}

static void conn_gone(struct evhttp_connection *evcon, void *arg)
{
	struct conn *c = arg;
	struct request *rq = c->request;

	wire_flip_forget(c);
	if (rq) {
		struct evhttp_request *http = rq->http;

		/* a request whose reply was under way when the peer went has been handed to us */
		bool ours = !evhttp_request_get_connection(http);

		evhttp_request_set_on_complete_cb(http, NULL, NULL);
		request_done(rq);
		if (ours)
			evhttp_request_free(http);
	}
	stats_connection(c->worker->server->stats, -1);
	list_del(&c->node);
	event_free(c->timer);
	free(c);
}

static void conn_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct conn *c = arg;

	if (c->on_timer)
		c->on_timer(c);
}

struct conn *conn_find(struct worker *w, struct evhttp_connection *evcon)
{
	struct conn *c;

	list_for_each(n, &w->conns) {
		c = list_entry(n, struct conn, node);
		if (c->evcon == evcon)
			return c;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->timer = event_new(w->base, -1, 0, conn_on_timer, c);
	if (!c->timer) {
		free(c);
		return NULL;
	}
	c->worker = w;
	c->evcon = evcon;
	c->bev = evhttp_connection_get_bufferevent(evcon);
	c->id = atomic_fetch_add(&w->server->nr_conns, 1) + 1;
	setsockopt(bufferevent_getfd(c->bev), IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
	list_push_front(&w->conns, &c->node);
	evhttp_connection_set_closecb(evcon, conn_gone, c);
	stats_connection(w->server->stats, 1);
	return c;
}

void conn_timer(struct conn *c, uint64_t ms, void (*fn)(struct conn *c))
{
	struct timeval tv = { .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000) };

	c->on_timer = fn;
	event_add(c->timer, &tv);
}

static void conn_close(struct conn *c)
{
	evhttp_connection_free(c->evcon);
}

static void conn_reset(struct conn *c)
{
	socket_reset(bufferevent_getfd(c->bev));
	evhttp_connection_free(c->evcon);
}

void conn_kill_soon(struct conn *c, bool reset, uint64_t after_ms)
{
	conn_timer(c, after_ms, reset ? conn_reset : conn_close);
}

static struct bufferevent *bufferevent_make(struct event_base *base, void *arg)
{
	struct worker *w = arg;
	struct bufferevent *bev;
	SSL *ssl;

	if (!w->server->tls) {
		bev = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	} else {
		ssl = SSL_new(w->server->tls);
		bev = ssl ? bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
							   BEV_OPT_CLOSE_ON_FREE)
			  : NULL;
		if (!bev)
			SSL_free(ssl);
		else
			bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
	}
	if (bev) {
		bufferevent_set_max_single_read(bev, SINGLE_IO_BYTES);
		bufferevent_set_max_single_write(bev, SINGLE_IO_BYTES);
	}
	return bev;
}

static int listen_socket(struct server *s)
{
	_cleanup_close_ int fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){ 1 }, sizeof(int)) ||
	    bind(fd, (struct sockaddr *)&s->address, s->address_len) || listen(fd, BACKLOG))
		return -errno;
	return take_fd(&fd);
}

static void accept_and_reset(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	socket_reset(fd);
	close(fd);
}

/* Replaces the worker's listening socket: one that serves, one that resets what it accepts, or none. */
static int worker_listen(struct worker *w, bool serve, bool reset)
{
	struct evconnlistener *l;
	int fd;

	if (w->bound)
		evhttp_del_accept_socket(w->http, w->bound);
	w->bound = NULL;
	if (w->resetter)
		evconnlistener_free(w->resetter);
	w->resetter = NULL;
	if (!serve && !reset)
		return 0;
	fd = listen_socket(w->server);
	if (fd < 0)
		return fd;
	l = evconnlistener_new(w->base, reset ? accept_and_reset : NULL, w,
			       LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
	if (!l) {
		close(fd);
		return -ENOMEM;
	}
	if (reset) {
		w->resetter = l;
		return 0;
	}
	w->bound = evhttp_bind_listener(w->http, l);
	return w->bound ? 0 : -ENOMEM;
}

static void worker_outage_end(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;

	worker_listen(w, true, false);
}

/* Runs in the worker's thread. */
static void worker_wake(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	struct server *s = w->server;
	uint64_t until = atomic_load(&s->outage_until_ns), now = clock_mono_ns(), left_us;

	if (atomic_load(&s->stopping)) {
		event_base_loopbreak(w->base);
		return;
	}
	if (until <= now)
		return;
	left_us = (until - now) / 1000;
	worker_listen(w, false, !atomic_load(&s->outage_refuses));
	list_for_each_safe(n, next, &w->conns)
		conn_reset(list_entry(n, struct conn, node));
	event_add(w->outage_end, &(struct timeval){ .tv_sec = (time_t)(left_us / 1000000),
						    .tv_usec = (suseconds_t)(left_us % 1000000) });
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;

	event_base_loop(w->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

/* All but the thread. */
static int worker_init(struct server *s, struct worker *w)
{
	struct event_config *config = event_config_new();

	w->server = s;
	list_init(&w->conns);
	if (!config)
		return -ENOMEM;
	event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
	w->base = event_base_new_with_config(config);
	event_config_free(config);
	w->http = w->base ? evhttp_new(w->base) : NULL;
	if (!w->http)
		return -ENOMEM;
	w->wake = event_new(w->base, -1, EV_PERSIST, worker_wake, w);
	w->outage_end = event_new(w->base, -1, 0, worker_outage_end, w);
	if (!w->wake || !w->outage_end)
		return -ENOMEM;
	evhttp_set_bevcb(w->http, bufferevent_make, w);
	evhttp_set_gencb(w->http, request_handle, w);
	evhttp_set_max_body_size(w->http, BODY_MAX_BYTES);
	evhttp_set_default_content_type(w->http, NULL);
	evhttp_set_allowed_methods(w->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_POST |
						    EVHTTP_REQ_DELETE);
	return worker_listen(w, true, false);
}

static void worker_stop(struct worker *w)
{
	if (w->started) {
		event_active(w->wake, EV_TIMEOUT, 0);
		pthread_join(w->thread, NULL);
	}
	if (w->resetter)
		evconnlistener_free(w->resetter);
	while (w->http && !list_empty(&w->conns))
		evhttp_connection_free(list_entry(w->conns.next, struct conn, node)->evcon);
	if (w->http)
		evhttp_free(w->http);
	if (w->wake)
		event_free(w->wake);
	if (w->outage_end)
		event_free(w->outage_end);
	if (w->base) {
		event_base_loop(w->base, EVLOOP_NONBLOCK); /* connections are freed by deferred callbacks */
		event_base_free(w->base);
	}
}

static int server_tls_init(struct server *s, struct err *e)
{
	SSL_CTX *tls;

	if (!s->cfg.tls_cert)
		return 0;
	tls = SSL_CTX_new(TLS_server_method());
	if (!tls)
		return err_set(e, -ENOMEM, "TLS: out of memory");
	s->tls = tls;
	SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
	if (SSL_CTX_use_certificate_chain_file(tls, s->cfg.tls_cert) != 1 ||
	    SSL_CTX_use_PrivateKey_file(tls, s->cfg.tls_key, SSL_FILETYPE_PEM) != 1)
		return err_set(e, -EINVAL, "TLS: cannot use %s with %s: %s", s->cfg.tls_cert, s->cfg.tls_key,
			       ERR_reason_error_string(ERR_peek_last_error()));
	return 0;
}

/* "127.0.0.1:0" or "[::1]:9000". */
static int server_parse_listen(struct server *s, struct err *e)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
				  .ai_socktype = SOCK_STREAM };
	struct addrinfo *found = NULL;
	char host[64] = "";
	const char *colon = strrchr(s->cfg.listen, ':'), *from = s->cfg.listen;
	size_t len = colon ? (size_t)(colon - from) : 0;

	if (len > 2 && *from == '[' && from[len - 1] == ']') {
		from++;
		len -= 2;
	}
	if (len && len < sizeof(host))
		memcpy(host, from, len);
	if (!host[0] || getaddrinfo(host, colon + 1, &hints, &found))
		return err_set(e, -EINVAL, "--listen %s: ADDRESS:PORT in numbers is wanted", s->cfg.listen);
	memcpy(&s->address, found->ai_addr, found->ai_addrlen);
	s->address_len = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}

static int server_init(struct server *s, struct err *e)
{
	int rc = server_parse_listen(s, e);
	FILE *log = NULL;

	if (!rc)
		rc = server_tls_init(s, e);
	if (rc < 0)
		return rc;
	if (s->cfg.log_file) {
		log = s->log = fopen(s->cfg.log_file, "ae");
		if (!log)
			return err_set(e, -errno, "--log %s: %s", s->cfg.log_file, strerror(errno));
	}
	s->faults = faults_new();
	s->stats = stats_new(log);
	if (!s->faults || !s->stats || store_new(s->cfg.root, &s->store) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

/* The port that the kernel picked is the others' too. */
static int server_learn_port(struct server *s)
{
	socklen_t len = sizeof(s->address);
	int fd = evhttp_bound_socket_get_fd(s->workers[0].bound);

	return getsockname(fd, (struct sockaddr *)&s->address, &len) ? -errno : 0;
}

static int server_start_workers(struct server *s, struct err *e)
{
	int rc = 0;

	for (; !rc && s->nr_workers < s->cfg.threads; s->nr_workers++) {
		rc = worker_init(s, &s->workers[s->nr_workers]);
		if (!rc && !s->nr_workers)
			rc = server_learn_port(s);
	}
	if (rc < 0)
		return err_set(e, rc, "cannot listen on %s: %s", s->cfg.listen, strerror(-rc));
	for (unsigned i = 0; i < s->nr_workers; i++) {
		struct worker *w = &s->workers[i];

		rc = pthread_create(&w->thread, NULL, worker_run, w);
		if (rc)
			return err_set(e, -rc, "cannot start a thread: %s", strerror(rc));
		w->started = true;
	}
	return 0;
}

int server_start(const struct config *cfg, struct server **ret, struct err *e)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->cfg = *cfg;
	atomic_store(&s->latency_ms, cfg->latency_ms);
	atomic_store(&s->conn_rate, cfg->conn_rate);
	rc = evthread_use_pthreads() ? err_set(e, -EIO, "libevent has no threads") : server_init(s, e);
	if (!rc)
		rc = server_start_workers(s, e);
	if (rc < 0)
		s = server_stop(s);
	*ret = s;
	return rc;
}

struct server *server_stop(struct server *s)
{
	if (!s)
		return NULL;
	atomic_store(&s->stopping, true);
	for (unsigned i = 0; i < s->nr_workers; i++)
		worker_stop(&s->workers[i]);
	store_free(s->store);
	faults_free(s->faults);
	stats_free(s->stats);
	if (s->log)
		fclose(s->log);
	SSL_CTX_free(s->tls);
	free(s);
	return NULL;
}

unsigned server_port(const struct server *s)
{
	if (s->address.ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)&s->address)->sin6_port);
	return ntohs(((const struct sockaddr_in *)&s->address)->sin_port);
}

int64_t server_now_s(const struct server *s)
{
	return time(NULL) + atomic_load(&((struct server *)s)->clock_offset_s);
}

void server_outage(struct server *s, uint64_t ms, bool refuse)
{
	atomic_store(&s->outage_refuses, refuse);
	atomic_store(&s->outage_until_ns, clock_mono_ns() + ms * NSEC_PER_MSEC);
	for (unsigned i = 0; i < s->nr_workers; i++)
		event_active(s->workers[i].wake, EV_TIMEOUT, 0);
}
