/* SPDX-License-Identifier: Apache-2.0 */
/* The server: its settings, its threads and connections, and what all requests share. */
#ifndef S3D_SERVER_H
#define S3D_SERVER_H

#include <event2/event.h>
#include <event2/http.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/err.h"
#include "base/list.h"
#include "fault.h"
#include "stats.h"
#include "store.h"

#define SERVER_THREADS_MAX 64

struct config {
	const char *root; /* NULL = memory */
	const char *listen, *port_file;
	const char *tls_cert, *tls_key;
	const char *access_key, *secret_key, *session_token; /* access_key NULL = anonymous */
	const char *region;
	const char *virtual_domain; /* NULL = path style only */
	const char *log_file;
	unsigned threads;
	uint64_t latency_ms;
	uint64_t conn_rate; /* bytes/s, 0 = no limit */
};

struct server;
struct request;

struct worker {
	struct server *server;
	struct event_base *base;
	struct evhttp *http;
	struct evhttp_bound_socket *bound; /* NULL during an outage */
	struct event *wake;                /* another thread started an outage or stops the server */
	struct event *outage_end;
	struct evconnlistener *resetter; /* instead of bound, during an outage by RST */
	struct list conns;               /* those that have sent a request */
	pthread_t thread;
	bool started;
};

struct conn {
	struct list node;
	struct worker *worker;
	struct evhttp_connection *evcon;
	struct bufferevent *bev;
	uint64_t id;
	struct request *request; /* being answered, or NULL */
	struct event *timer;
	void (*on_timer)(struct conn *c);
	/* token bucket of --conn-rate and of trickled bodies */
	uint64_t rate, tokens_ns, tokens;
	BIO *flip; /* wire_flip.c; owned by the connection's SSL */
	uint64_t flip_after_bytes;
	bool flip_armed;
};

struct server {
	struct config cfg;
	struct store *store;
	struct faults *faults;
	struct stats *stats;
	SSL_CTX *tls;
	FILE *log;
	struct sockaddr_storage address; /* with the port that was picked */
	socklen_t address_len;
	atomic_ullong latency_ms, conn_rate;
	atomic_llong clock_offset_s;
	atomic_ullong outage_until_ns;
	atomic_bool outage_refuses, stopping;
	atomic_ullong nr_conns, nr_requests; /* ever */
	unsigned nr_workers;
	struct worker workers[SERVER_THREADS_MAX];
};

int server_start(const struct config *cfg, struct server **ret, struct err *e);
struct server *server_stop(struct server *s);
unsigned server_port(const struct server *s);
int64_t server_now_s(const struct server *s);
/* Closes every connection; new ones are refused (or reset when <refuse> is false) for <ms>. */
void server_outage(struct server *s, uint64_t ms, bool refuse);

/* The connection of a request that has just arrived; NULL = no memory. */
struct conn *conn_find(struct worker *w, struct evhttp_connection *evcon);
/* Ends the connection from an event of its own, with RST or with FIN. */
void conn_kill_soon(struct conn *c, bool reset, uint64_t after_ms);
void conn_timer(struct conn *c, uint64_t ms, void (*fn)(struct conn *c));

#endif
