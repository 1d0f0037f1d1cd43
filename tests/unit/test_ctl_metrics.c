// SPDX-License-Identifier: Apache-2.0
/* Prometheus text, and the server that hands it out over a unix socket and TCP. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "ctl/metrics.h"
#include "test_ctl.h"

static char dir[64], path[96];
static struct fake fake;
static struct metrics *m;
static struct err e;

static int server_start(void **state)
{
	struct metrics_config cfg = { .ops = &fake.ops, .volume_id = "v", .socket_path = path };

	snprintf(dir, sizeof(dir), "/tmp/test_ctl_metrics.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/v.metrics.sock", dir);
	fake_init(&fake);
	cfg.listen = "127.0.0.1:0";
	return metrics_start(&cfg, &m, &e);
}

static int server_stop(void **state)
{
	m = metrics_stop(m);
	return rmdir(dir);
}

static int unix_connect(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static int tcp_connect(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_port = htons((uint16_t)metrics_port(m));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static const char *ask(int fd, const char *request)
{
	static char reply[METRICS_MAX_BYTES];
	size_t len = 0;
	ssize_t n;

	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	while ((n = read(fd, reply + len, sizeof(reply) - 1 - len)) > 0)
		len += (size_t)n;
	assert_int_equal(n, 0);
	reply[len] = '\0';
	close(fd);
	return reply;
}

static void numbers_become_metrics_and_texts_do_not(void **state)
{
	_cleanup_buf_ struct buf out;
	const char *text;

	fake_init(&fake);
	fake.number[CTL_S3_BYTES] = UINT64_MAX;
	buf_init(&out, METRICS_MAX_BYTES);
	assert_int_equal(metrics_print(&fake.ops, "a", &out), 0);
	text = buf_str(&out);
	assert_non_null(strstr(text,
			       "\n# TYPE penstock_s3_bytes_total counter\n"
			       "penstock_s3_bytes_total{volume=\"a\"} 18446744073709551615\n"));
	assert_non_null(strstr(text, "\n# TYPE penstock_cache_memory_used gauge\npenstock_cache_memory_used{"));
	assert_non_null(strstr(text, "\npenstock_prefetch_record{volume=\"a\"} 1\n"));
	assert_null(strstr(text, "penstock_source"));
	assert_null(strstr(text, "penstock_prefetch_mode"));
	/* It has no value now. */
	assert_null(strstr(text, "penstock_trace_gpu"));
}

static void labels_are_escaped(void **state)
{
	_cleanup_buf_ struct buf out;

	fake_init(&fake);
	buf_init(&out, METRICS_MAX_BYTES);
	assert_int_equal(metrics_print(&fake.ops, "mnt-a\\x20\"b\nc", &out), 0);
	assert_non_null(strstr(buf_str(&out), "{volume=\"mnt-a\\\\x20\\\"b\\nc\"} "));
}

static void too_much_text_is_an_error(void **state)
{
	_cleanup_buf_ struct buf out;

	fake_init(&fake);
	buf_init(&out, 1000);
	assert_int_equal(metrics_print(&fake.ops, "a", &out), -E2BIG);
}

static void asks(const char *bytes, enum metrics_request what)
{
	assert_int_equal(metrics_request_parse(bytes, strlen(bytes)), what);
}

static void requests_are_understood(void **state)
{
	asks("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", METRICS_GET);
	asks("GET /metrics?a=b HTTP/1.0\n\n", METRICS_GET);
	asks("HEAD /metrics HTTP/1.1\r\n\r\n", METRICS_HEAD);
	asks("GET /metrics HTTP/1.1\r\nHost: x\r\n", METRICS_MORE);
	asks("", METRICS_MORE);
	asks("GET / HTTP/1.1\r\n\r\n", METRICS_NO_PATH);
	asks("GET /metricsx HTTP/1.1\r\n\r\n", METRICS_NO_PATH);
	asks("POST /metrics HTTP/1.1\r\n\r\n", METRICS_NO_METHOD);
	asks("get /metrics HTTP/1.1\r\n\r\n", METRICS_NO_METHOD);
	asks("\r\n\r\n", METRICS_BAD);
	asks("GET /metrics\r\n\r\n", METRICS_BAD);
	asks("GET\n HTTP/1.1\n\n", METRICS_BAD);
}

static void both_listeners_answer(void **state)
{
	const char *reply;
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0666);
	for (int i = 0; i < 2; i++) {
		reply = ask(i ? unix_connect() : tcp_connect(), "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
		assert_memory_equal(reply, "HTTP/1.1 200 OK\r\n", 17);
		assert_non_null(strstr(reply, "\r\nContent-Type: text/plain; version=0.0.4"));
		assert_non_null(strstr(reply, "\npenstock_s3_requests_total{volume=\"v\"} "));
	}
}

static void the_length_is_the_bodys(void **state)
{
	const char *reply = ask(unix_connect(), "GET /metrics HTTP/1.0\r\n\r\n");
	const char *body = strstr(reply, "\r\n\r\n") + 4, *length = strstr(reply, "Content-Length: ") + 16;
	unsigned long bytes = strtoul(length, NULL, 10);

	assert_int_equal(bytes, strlen(body));
	reply = ask(unix_connect(), "HEAD /metrics HTTP/1.0\r\n\r\n");
	assert_int_equal(strtoul(strstr(reply, "Content-Length: ") + 16, NULL, 10), bytes);
	assert_string_equal(strstr(reply, "\r\n\r\n"), "\r\n\r\n");
}

static void wrong_requests_get_their_status(void **state)
{
	char big[8192];

	assert_memory_equal(ask(tcp_connect(), "GET /x HTTP/1.1\r\n\r\n"), "HTTP/1.1 404", 12);
	assert_memory_equal(ask(tcp_connect(), "DELETE /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405", 12);
	assert_memory_equal(ask(tcp_connect(), "\n\n"), "HTTP/1.1 400", 12);
	memset(big, 'x', sizeof(big));
	big[4096] = '\0';
	assert_memory_equal(ask(tcp_connect(), big), "HTTP/1.1 400", 12);
}

static void a_request_may_come_in_pieces(void **state)
{
	int fd = tcp_connect();

	assert_int_equal(write(fd, "GET /metr", 9), 9);
	usleep(20000);
	assert_memory_equal(ask(fd, "ics HTTP/1.1\r\n\r\n"), "HTTP/1.1 200", 12);
}

/* Idle connections take all slots; the next one is served when their time is up, and not dropped. */
static void idle_clients_lose_their_place_in_time(void **state)
{
	int idle[METRICS_CLIENTS_MAX];
	uint64_t from = clock_mono_ns(), ns;
	char byte;

	for (size_t i = 0; i < array_len(idle); i++)
		idle[i] = tcp_connect();
	usleep(50000);
	assert_memory_equal(ask(unix_connect(), "GET /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 200", 12);
	ns = clock_mono_ns() - from;
	assert_in_range(ns / NSEC_PER_MSEC, 4000, 20000);
	for (size_t i = 0; i < array_len(idle); i++) {
		assert_int_equal(read(idle[i], &byte, 1), 0);
		close(idle[i]);
	}
}

static void stopping_drops_who_is_connected(void **state)
{
	int fd = tcp_connect();
	char byte;

	assert_int_equal(write(fd, "GET", 3), 3);
	m = metrics_stop(m);
	assert_true(read(fd, &byte, 1) <= 0);
	close(fd);
	assert_int_equal(access(path, F_OK), -1);
}

static void a_socket_left_behind_is_replaced(void **state)
{
	struct metrics_config cfg = { .ops = &fake.ops, .volume_id = "v", .socket_path = path };
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	m = metrics_stop(m);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	close(fd);
	assert_int_equal(metrics_start(&cfg, &m, &e), 0);
	assert_memory_equal(ask(unix_connect(), "GET /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 200", 12);
}

static void addresses_that_cannot_be_used_are_errors(void **state)
{
	static const char *const bad[] = { "9464",     "127.0.0.1", "127.0.0.1:", ":9464",        "localhost:9464",
					   "::1:9464", "[::1:9464", "1.2.3.4:x",  "1.2.3.4:70000" };
	struct metrics_config cfg = { .ops = &fake.ops, .volume_id = "v" };
	struct metrics *other = NULL;
	char taken[32], long_path[256];

	for (size_t i = 0; i < array_len(bad); i++) {
		cfg.listen = bad[i];
		assert_int_equal(metrics_start(&cfg, &other, &e), -EINVAL);
		assert_non_null(strstr(e.msg, bad[i]));
	}
	snprintf(taken, sizeof(taken), "127.0.0.1:%u", metrics_port(m));
	cfg.listen = taken;
	assert_int_equal(metrics_start(&cfg, &other, &e), -EADDRINUSE);
	memset(long_path, 'x', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	cfg.listen = NULL;
	cfg.socket_path = long_path;
	assert_int_equal(metrics_start(&cfg, &other, &e), -ENAMETOOLONG);
	assert_null(other);
}

int main(void)
{
#define SERVED(f) cmocka_unit_test_setup_teardown(f, server_start, server_stop)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_become_metrics_and_texts_do_not),
		cmocka_unit_test(labels_are_escaped),
		cmocka_unit_test(too_much_text_is_an_error),
		cmocka_unit_test(requests_are_understood),
		SERVED(both_listeners_answer),
		SERVED(the_length_is_the_bodys),
		SERVED(wrong_requests_get_their_status),
		SERVED(a_request_may_come_in_pieces),
		SERVED(idle_clients_lose_their_place_in_time),
		SERVED(stopping_drops_who_is_connected),
		SERVED(a_socket_left_behind_is_replaced),
		SERVED(addresses_that_cannot_be_used_are_errors),
	};

	return cmocka_run_group_tests_name("ctl_metrics", tests, NULL, NULL);
}
