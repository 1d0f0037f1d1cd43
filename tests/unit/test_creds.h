/* SPDX-License-Identifier: Apache-2.0 */
/* What the credential tests share: an environment of their own, files, and a small HTTP server on the loopback. */
#ifndef PENSTOCK_TEST_CREDS_H
#define PENSTOCK_TEST_CREDS_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "s3/creds.h"
#include "s3/creds_i.h"

#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define TOKEN "eyJhbGciOiJSUzI1NiJ9.the-token-of-a-test.c2lnbmF0dXJl"

/* --- environment --- */

struct env {
	const char *pairs[32][2];
	unsigned nr;
};

static inline const char *env_get(void *ctx, const char *name)
{
	const struct env *env = ctx;

	for (unsigned i = 0; i < env->nr; i++)
		if (strcmp(env->pairs[i][0], name) == 0)
			return env->pairs[i][1];
	return NULL;
}

static inline void env_set(struct env *env, const char *name, const char *value)
{
	assert_true(env->nr < 32);
	env->pairs[env->nr][0] = name;
	env->pairs[env->nr++][1] = value;
}

/* --- files --- */

struct dir {
	char path[64];
};

static inline void dir_new(struct dir *d)
{
	strcpy(d->path, "/tmp/penstock-creds-XXXXXX");
	assert_non_null(mkdtemp(d->path));
}

static inline void dir_free(struct dir *d)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", d->path);
	assert_int_equal(system(command), 0);
}

/* Replaces the file as a rotation does: a new inode under the old name. */
static inline const char *dir_write(struct dir *d, const char *name, const char *text, mode_t mode)
{
	static char path[4][256];
	static unsigned turn;
	char temporary[300];
	char *ret = path[turn++ % 4];
	FILE *f;

	snprintf(ret, sizeof(path[0]), "%s/%s", d->path, name);
	snprintf(temporary, sizeof(temporary), "%s.new", ret);
	f = fopen(temporary, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fchmod(fileno(f), mode), 0);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(rename(temporary, ret), 0);
	return ret;
}

/* --- server --- */

struct answer {
	int status;
	const char *body;
	long delay_ms;
	const char *location; /* of a redirect; NULL = none */
	bool garbage;         /* bytes that are not HTTP */
};

struct server {
	int fd, stop_fd;
	char url[64];
	pthread_t thread;
	void (*answer)(struct server *s, const char *request, struct answer *a); /* in the server's thread */
	pthread_mutex_t lock;                                                    /* guards the rest */
	char last[32768];
	unsigned nr_requests;
	int status; /* for the answer functions' use */
	long delay_ms;
	long life_s;
	const char *location;
	unsigned serial;
	char body[80000];
};

static inline size_t server_read(int fd, char *room, size_t size)
{
	size_t len = 0, want = 0;

	while (len < size - 1) {
		ssize_t n = read(fd, room + len, size - 1 - len);
		const char *end, *length;

		if (n <= 0)
			break;
		len += (size_t)n;
		room[len] = '\0';
		end = strstr(room, "\r\n\r\n");
		if (!end)
			continue;
		length = strcasestr(room, "content-length:");
		want = (size_t)(end - room) + 4 + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
		if (len >= want)
			break;
	}
	room[len] = '\0';
	return len;
}

static inline void server_write(int fd, const char *bytes, size_t len)
{
	while (len) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		bytes += n;
		len -= (size_t)n;
	}
}

static inline void server_serve(struct server *s, int fd, char *request, size_t room)
{
	struct answer a = { .status = 200, .body = "" };
	struct pollfd stop = { .fd = s->stop_fd, .events = POLLIN };
	char head[256];

	if (server_read(fd, request, room) == 0)
		return;
	pthread_mutex_lock(&s->lock);
	s->nr_requests++;
	memcpy(s->last, request, strlen(request) + 1);
	s->answer(s, request, &a);
	pthread_mutex_unlock(&s->lock);
	if (a.delay_ms)
		poll(&stop, 1, (int)a.delay_ms);
	if (a.garbage) {
		server_write(fd, "\x01\x02 garbage\n\n", 13);
		return;
	}
	snprintf(head, sizeof(head), "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n%s%s%sConnection: close\r\n\r\n",
		 a.status, strlen(a.body), a.location ? "Location: " : "", a.location ? a.location : "",
		 a.location ? "\r\n" : "");
	server_write(fd, head, strlen(head));
	server_write(fd, a.body, strlen(a.body));
}

static inline void *server_main(void *arg)
{
	struct server *s = arg;
	struct pollfd pfds[] = { { .fd = s->fd, .events = POLLIN }, { .fd = s->stop_fd, .events = POLLIN } };
	char *request = malloc(sizeof(s->last));

	while (request && poll(pfds, 2, -1) >= 0 && !pfds[1].revents) {
		int fd = accept(s->fd, NULL, NULL);

		if (fd < 0)
			continue;
		server_serve(s, fd, request, sizeof(s->last));
		close(fd);
	}
	free(request);
	return NULL;
}

static inline struct server *server_start(void (*answer)(struct server *s, const char *request, struct answer *a))
{
	struct server *s = calloc(1, sizeof(*s));
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(at);

	assert_non_null(s);
	s->answer = answer;
	s->status = 200;
	s->life_s = 3600;
	pthread_mutex_init(&s->lock, NULL);
	s->stop_fd = eventfd(0, EFD_CLOEXEC);
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(s->fd >= 0 && s->stop_fd >= 0);
	assert_int_equal(bind(s->fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(s->fd, 16), 0);
	assert_int_equal(getsockname(s->fd, (struct sockaddr *)&at, &len), 0);
	snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u", ntohs(at.sin_port));
	assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
	return s;
}

static inline void server_stop(struct server *s)
{
	eventfd_write(s->stop_fd, 1);
	pthread_join(s->thread, NULL);
	close(s->fd);
	close(s->stop_fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static inline unsigned server_requests(struct server *s)
{
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = s->nr_requests;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* Whether the last request holds <text>. */
static inline bool server_saw(struct server *s, const char *text)
{
	bool saw;

	pthread_mutex_lock(&s->lock);
	saw = strstr(s->last, text) != NULL;
	pthread_mutex_unlock(&s->lock);
	return saw;
}

#define server_with(s, statement)                 \
	do {                                      \
		pthread_mutex_lock(&(s)->lock);   \
		statement;                        \
		pthread_mutex_unlock(&(s)->lock); \
	} while (0)

static inline void iso_time(time_t t, char *ret, size_t room)
{
	struct tm tm;

	strftime(ret, room, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
}

/* JSON credentials "AKID<serial>", a new serial for each answer; <life_s> 0 = for ever. */
static inline void answer_creds(struct server *s, const char *request, struct answer *a)
{
	char expires[64] = "", field[128] = "";

	if (s->life_s) {
		iso_time(time(NULL) + s->life_s, expires, sizeof(expires));
		snprintf(field, sizeof(field), ",\"Expiration\":\"%s\"", expires);
	}
	snprintf(s->body, sizeof(s->body),
		 "{\"Code\":\"Success\",\"AccessKeyId\":\"AKID%u\",\"SecretAccessKey\":\"" SECRET
		 "\",\"Token\":\"session\"%s}",
		 ++s->serial, field);
	a->status = s->status;
	a->delay_ms = s->delay_ms;
	a->location = s->location;
	a->body = s->status == 200 ? s->body : "{\"message\":\"" SECRET "\"}";
}

/* --- assertions --- */

static inline void assert_no_secret(const char *text)
{
	assert_null(strstr(text, SECRET));
	assert_null(strstr(text, "K7MDENG"));
	assert_null(strstr(text, "the-token-of-a-test"));
}

#define assert_contains(text, part)                                                 \
	do {                                                                        \
		if (!strstr((text), (part)))                                        \
			fail_msg("\"%s\" does not contain \"%s\"", (text), (part)); \
	} while (0)

#endif
