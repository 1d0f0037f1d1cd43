// SPDX-License-Identifier: Apache-2.0
/*
 * The server that hands out metrics: HTTP/1.1, one reply a connection.
 *
 * Design: a fixed number of slots and a deadline for each connection, so that nobody on the network takes more of the
 * daemon than that. With no slot free, connections wait in the kernel's queue.
 * Threads: one, which owns everything but the stop descriptor's other end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/size.h"
#include "ctl/metrics.h"

#define REQUEST_MAX_BYTES 4096
#define REPLY_MAX_BYTES (METRICS_MAX_BYTES + 512)
#define CLIENT_NS (5 * NSEC_PER_SEC)
#define BACKLOG 64
#define LISTENERS 2
#define ACCEPT_PAUSE_NS (500 * NSEC_PER_MSEC)

struct client {
	int fd; /* -1: free */
	uint64_t until_ns;
	bool drain; /* all is sent: wait until the other end has read it */
	size_t in_len, sent;
	struct buf out;
	char in[REQUEST_MAX_BYTES];
};

struct metrics {
	const struct ctl_ops *ops;
	int stop_fd, listener[LISTENERS]; /* the unix socket, the address; -1 = none */
	uint64_t accept_from_ns;          /* after a failed accept */
	bool running;
	pthread_t thread;
	char socket_path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	char volume_id[256];
	struct client clients[METRICS_CLIENTS_MAX];
};

enum metrics_request metrics_request_parse(const char *bytes, size_t len)
{
	const char *end = memchr(bytes, '\n', len), *path;
	enum metrics_request kind = METRICS_GET;
	size_t method;

	if (!memmem(bytes, len, "\r\n\r\n", 4) && !memmem(bytes, len, "\n\n", 2))
		return METRICS_MORE;
	path = memchr(bytes, ' ', (size_t)(end - bytes));
	if (!path || !memmem(path, (size_t)(end - path), " HTTP/1.", 8))
		return METRICS_BAD;
	method = (size_t)(path++ - bytes);
	if (method == 4 && memcmp(bytes, "HEAD", 4) == 0)
		kind = METRICS_HEAD;
	else if (method != 3 || memcmp(bytes, "GET", 3) != 0)
		return METRICS_NO_METHOD;
	if (end - path < 9 || memcmp(path, "/metrics", 8) != 0 || (path[8] != ' ' && path[8] != '?'))
		return METRICS_NO_PATH;
	return kind;
}

static int reply_make(struct metrics *m, enum metrics_request request, struct buf *out)
{
	static const char *const status[] = {
		[METRICS_GET] = "200 OK",
		[METRICS_HEAD] = "200 OK",
		[METRICS_NO_PATH] = "404 Not Found",
		[METRICS_NO_METHOD] = "405 Method Not Allowed",
		[METRICS_BAD] = "400 Bad Request",
	};
	_cleanup_buf_ struct buf body;
	int rc = 0;

	buf_init(&body, METRICS_MAX_BYTES);
	if (request == METRICS_GET || request == METRICS_HEAD)
		rc = metrics_print(m->ops, m->volume_id, &body);
	else
		rc = buf_addf(&body, "%s: ask for /metrics\n", status[request]);
	if (rc >= 0)
		rc = buf_addf(out,
			      "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
			      "Content-Length: %zu\r\nConnection: close\r\n\r\n",
			      status[request], body.len);
	if (rc >= 0 && request != METRICS_HEAD)
		rc = buf_add(out, body.data, body.len);
	return rc;
}

static void client_close(struct client *c)
{
	close(c->fd);
	c->fd = -1;
	buf_done(&c->out);
}

static void client_send(struct client *c)
{
	ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);

	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			client_close(c);
		return;
	}
	c->sent += (size_t)n;
	if (c->sent < c->out.len)
		return;
	shutdown(c->fd, SHUT_WR);
	c->drain = true;
}

static void client_receive(struct metrics *m, struct client *c)
{
	size_t room = sizeof(c->in) - c->in_len;
	ssize_t n = c->drain ? recv(c->fd, c->in, sizeof(c->in), 0) : recv(c->fd, c->in + c->in_len, room, 0);
	enum metrics_request request;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		client_close(c);
		return;
	}
	if (c->drain)
		return;
	c->in_len += (size_t)n;
	request = metrics_request_parse(c->in, c->in_len);
	if (request == METRICS_MORE && c->in_len == sizeof(c->in))
		request = METRICS_BAD;
	if (request == METRICS_MORE)
		return;
	if (reply_make(m, request, &c->out) < 0)
		client_close(c);
	else
		client_send(c);
}

static void client_accept(struct metrics *m, int listener)
{
	struct client *c = m->clients;
	int fd;

	while (c < m->clients + METRICS_CLIENTS_MAX && c->fd >= 0)
		c++;
	if (c == m->clients + METRICS_CLIENTS_MAX)
		return;
	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		/* Out of descriptors or memory: the connection stays in the queue and would wake us at once. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			m->accept_from_ns = clock_mono_ns() + ACCEPT_PAUSE_NS;
		return;
	}
	*c = (struct client){ .fd = fd, .until_ns = clock_mono_ns() + CLIENT_NS };
	buf_init(&c->out, REPLY_MAX_BYTES);
}

/* Fills <fds>: the stop descriptor, the listeners, the clients. Returns how long poll() may wait, -1 = for ever. */
static int server_watch(struct metrics *m, struct pollfd *fds)
{
	uint64_t now = clock_mono_ns(), until = UINT64_MAX;
	unsigned used = 0;

	*fds++ = (struct pollfd){ .fd = m->stop_fd, .events = POLLIN };
	for (struct client *c = m->clients; c < m->clients + METRICS_CLIENTS_MAX; c++) {
		if (c->fd >= 0 && c->until_ns <= now)
			client_close(c);
		if (c->fd >= 0) {
			used++;
			until = min_of(until, c->until_ns);
		}
		fds[LISTENERS + (c - m->clients)] =
			(struct pollfd){ .fd = c->fd, .events = c->out.len && !c->drain ? POLLOUT : POLLIN };
	}
	if (now < m->accept_from_ns)
		until = min_of(until, m->accept_from_ns);
	for (int i = 0; i < LISTENERS; i++) {
		bool open = used < METRICS_CLIENTS_MAX && now >= m->accept_from_ns;

		fds[i] = (struct pollfd){ .fd = open ? m->listener[i] : -1, .events = POLLIN };
	}
	return until == UINT64_MAX ? -1 : (int)((until - now) / NSEC_PER_MSEC) + 1;
}

static void *server_main(void *arg)
{
	struct pollfd fds[1 + LISTENERS + METRICS_CLIENTS_MAX];
	struct metrics *m = arg;
	int wait_ms;

	prctl(PR_SET_NAME, "penstock-metric");
	for (;;) {
		wait_ms = server_watch(m, fds);
		if (poll(fds, array_len(fds), wait_ms) < 0 && errno != EINTR)
			break;
		if (fds[0].revents)
			break;
		for (int i = 0; i < METRICS_CLIENTS_MAX; i++) {
			struct client *c = &m->clients[i];
			short revents = fds[1 + LISTENERS + i].revents;

			if (revents & POLLOUT)
				client_send(c);
			else if (revents)
				client_receive(m, c);
		}
		for (int i = 0; i < LISTENERS; i++) {
			if (fds[1 + i].revents)
				client_accept(m, m->listener[i]);
		}
	}
	return NULL;
}

static int unix_listen(struct metrics *m, const char *path, struct err *e)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		return err_set(e, -ENAMETOOLONG,
			       "no metrics at %.512s: a socket's path has at most %zu bytes; give a shorter "
			       "--volume-id or --metrics-listen",
			       path, sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return err_set(e, -errno, "cannot make the metrics' socket %s: %s", path, strerror(errno));
	memcpy(m->socket_path, path, strlen(path) + 1);
	if (chmod(path, 0666) < 0 || listen(fd, BACKLOG) < 0)
		return err_set(e, -errno, "cannot listen on %s: %s", path, strerror(errno));
	m->listener[0] = take_fd(&fd);
	return 0;
}

/* "127.0.0.1:9464", "[::1]:9464" */
static int address_parse(const char *text, struct addrinfo **ret)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV };
	const char *colon = strrchr(text, ':');
	char host[64];
	size_t len = colon ? (size_t)(colon - text) : 0;
	bool brackets = len > 2 && text[0] == '[' && text[len - 1] == ']';
	uint64_t port;

	if (brackets) {
		text++;
		len -= 2;
	}
	/* getaddrinfo() would cut a port that is too large. */
	if (len == 0 || len >= sizeof(host) || (!brackets && memchr(text, ':', len)) ||
	    number_parse(colon + 1, 0, UINT16_MAX, &port) < 0)
		return -EINVAL;
	memcpy(host, text, len);
	host[len] = '\0';
	return getaddrinfo(host, colon + 1, &hints, ret) == 0 ? 0 : -EINVAL;
}

static int address_listen(struct metrics *m, const char *text, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct addrinfo *a;
	const int on = 1;
	int rc = address_parse(text, &a);

	if (rc < 0)
		return err_set(e, rc, "--metrics-listen %.128s: give ADDRESS:PORT, such as 127.0.0.1:9464", text);
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		rc = err_set(e, -errno, "--metrics-listen %s: %s; each volume of a host needs a port of its own", text,
			     strerror(errno));
	freeaddrinfo(a);
	if (rc == 0)
		m->listener[1] = take_fd(&fd);
	return rc;
}

int metrics_start(const struct metrics_config *cfg, struct metrics **ret, struct err *e)
{
	struct metrics *m = calloc(1, sizeof(*m));
	int rc = 0;

	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	m->ops = cfg->ops;
	m->listener[0] = m->listener[1] = -1;
	for (int i = 0; i < METRICS_CLIENTS_MAX; i++)
		m->clients[i].fd = -1;
	snprintf(m->volume_id, sizeof(m->volume_id), "%s", cfg->volume_id);
	m->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (m->stop_fd < 0)
		rc = err_set(e, -errno, "cannot make an eventfd: %s", strerror(errno));
	if (rc == 0 && cfg->socket_path && cfg->socket_path[0])
		rc = unix_listen(m, cfg->socket_path, e);
	if (rc == 0 && cfg->listen && cfg->listen[0])
		rc = address_listen(m, cfg->listen, e);
	if (rc == 0) {
		rc = -pthread_create(&m->thread, NULL, server_main, m);
		if (rc < 0)
			err_set(e, rc, "cannot start the metrics' thread: %s", strerror(-rc));
		m->running = rc == 0;
	}
	if (rc < 0) {
		metrics_stop(m);
		return rc;
	}
	*ret = m;
	return 0;
}

unsigned metrics_port(const struct metrics *m)
{
	struct sockaddr_in6 a = { 0 };
	socklen_t len = sizeof(a);

	/* The port is at the same place in both families. */
	return getsockname(m->listener[1], (struct sockaddr *)&a, &len) < 0 ? 0 : ntohs(a.sin6_port);
}

struct metrics *metrics_stop(struct metrics *m)
{
	const uint64_t one = 1;

	if (!m)
		return NULL;
	if (m->running) {
		if (write(m->stop_fd, &one, sizeof(one)) < 0)
			log_warn("ctl", "cannot wake the metrics' thread: %s", strerror(errno));
		pthread_join(m->thread, NULL);
	}
	for (int i = 0; i < METRICS_CLIENTS_MAX; i++) {
		if (m->clients[i].fd >= 0)
			client_close(&m->clients[i]);
	}
	for (int i = 0; i < LISTENERS; i++) {
		if (m->listener[i] >= 0)
			close(m->listener[i]);
	}
	if (m->socket_path[0])
		unlink(m->socket_path);
	if (m->stop_fd >= 0)
		close(m->stop_fd);
	free(m);
	return NULL;
}
