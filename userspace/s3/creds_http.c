// SPDX-License-Identifier: Apache-2.0
/*
 * One small HTTP exchange for the credential sources: bounded in time and size, stopped at once when asked to.
 *
 * No redirect is followed, since a reply must never choose where a token is sent.
 */
#include "s3/creds_i.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <penstock/version.h>

#include "base/cleanup.h"

#define HEADER_MAX_BYTES (CREDS_TOKEN_MAX_BYTES + 256)
#define BACKOFF_MS 100

struct exchange {
	CURL *easy;
	CURLM *multi;
	struct curl_slist *headers;
	struct creds_text *body;
	bool too_large;
	char why[CURL_ERROR_SIZE];
};

static void curl_setup(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;

	if (creds_text_add(x->body, bytes, size * n) < 0) {
		x->too_large = true;
		return 0;
	}
	return size * n;
}

static int add_header(struct exchange *x, const char *name, const char *value)
{
	_cleanup_text_ struct creds_text line = { 0 };
	struct curl_slist *list;
	int rc;

	rc = creds_text_init(&line, HEADER_MAX_BYTES) ?: creds_text_add_str(&line, name) ?:
	     creds_text_add_str(&line, *value ? ": " : ":") ?: creds_text_add_str(&line, value);
	if (rc < 0)
		return rc;
	list = curl_slist_append(x->headers, line.data);
	if (!list)
		return -ENOMEM;
	x->headers = list;
	return 0;
}

static void exchange_done(struct exchange *x)
{
	if (x->multi && x->easy)
		curl_multi_remove_handle(x->multi, x->easy);
	curl_easy_cleanup(x->easy);
	curl_multi_cleanup(x->multi);
	for (struct curl_slist *h = x->headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(x->headers);
}

static void set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS);
#endif
}

static void set_options(struct exchange *x, const struct creds_request *req, long total_ms)
{
	curl_easy_setopt(x->easy, CURLOPT_URL, req->url);
	curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(x->easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(x->easy, CURLOPT_USERAGENT, "penstock/" PENSTOCK_VERSION);
	curl_easy_setopt(x->easy, CURLOPT_ERRORBUFFER, x->why);
	curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers);
	curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS, min_of(req->connect_ms, total_ms));
	curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, total_ms);
	set_protocols(x->easy);
	if (req->body) {
		curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE, (long)req->body->len);
		curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, req->body->data);
	}
	if (req->method)
		curl_easy_setopt(x->easy, CURLOPT_CUSTOMREQUEST, req->method);
	if (req->ca_bundle)
		curl_easy_setopt(x->easy, CURLOPT_CAINFO, req->ca_bundle);
	if (req->local)
		curl_easy_setopt(x->easy, CURLOPT_NOPROXY, "*");
}

static int exchange_init(struct exchange *x, const struct creds_request *req, long total_ms)
{
	int rc = 0;

	x->easy = curl_easy_init();
	x->multi = curl_multi_init();
	if (!x->easy || !x->multi)
		return -ENOMEM;
	for (unsigned i = 0; rc == 0 && i < req->nr_headers; i++)
		rc = add_header(x, req->headers[i].name, req->headers[i].value);
	/* Older versions of libcurl would wait a second for "100 Continue". */
	if (rc == 0 && req->body)
		rc = add_header(x, "Expect", "");
	if (rc < 0)
		return rc;
	set_options(x, req, total_ms);
	return curl_multi_add_handle(x->multi, x->easy) == CURLM_OK ? 0 : -ENOMEM;
}

static int exchange_run(struct exchange *x, int stop_fd, CURLcode *ret)
{
	struct curl_waitfd stop = { .fd = stop_fd, .events = CURL_WAIT_POLLIN };
	CURLMsg *msg;
	int running = 1, left;

	for (;;) {
		if (curl_multi_perform(x->multi, &running) != CURLM_OK)
			return -EIO;
		if (!running)
			break;
		if (curl_multi_poll(x->multi, &stop, stop_fd >= 0, 1000, NULL) != CURLM_OK)
			return -EIO;
		if (stop.revents)
			return -ECANCELED;
	}
	msg = curl_multi_info_read(x->multi, &left);
	if (!msg || msg->msg != CURLMSG_DONE)
		return -EIO;
	*ret = msg->data.result;
	return 0;
}

/* libcurl's code as ours; the sentence is libcurl's, which names hosts and times but no content. */
static int explain(const struct exchange *x, CURLcode code, struct err *e)
{
	const char *text = x->why[0] ? x->why : curl_easy_strerror(code);

	if (x->too_large)
		return err_set(e, -E2BIG, "the reply is larger than %zu bytes", x->body->max);
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(e, -ETIMEDOUT, "no answer in time (%s)", text);
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		return err_set(e, -ECONNREFUSED, "no connection (%s)", text);
	default:
		return err_set(e, -EIO, "%s", text);
	}
}

static int http_once(struct creds_fetch *f, const struct creds_request *req, struct creds_text *ret_body,
		     long *ret_status, struct err *e)
{
	_cleanup_(exchange_done) struct exchange x = { .body = ret_body };
	long total_ms = min_of(req->total_ms, creds_left_ms(f));
	CURLcode code = CURLE_OK;
	int rc;

	if (total_ms <= 0)
		return err_set(e, -ETIMEDOUT, "no time is left to ask");
	rc = exchange_init(&x, req, total_ms);
	if (rc == 0)
		rc = exchange_run(&x, f->stop_fd, &code);
	if (rc < 0)
		return err_set(e, rc, "%s", rc == -ECANCELED ? "it was stopped" : strerror(-rc));
	if (code != CURLE_OK)
		return explain(&x, code, e);
	curl_easy_getinfo(x.easy, CURLINFO_RESPONSE_CODE, ret_status);
	return 0;
}

int creds_http(struct creds_fetch *f, const struct creds_request *req, struct creds_text *ret_body, long *ret_status,
	       struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int rc;

	pthread_once(&once, curl_setup);
	for (unsigned try = 1;; try++) {
		bool again;

		creds_text_wipe(ret_body);
		rc = creds_text_init(ret_body, CREDS_REPLY_MAX_BYTES);
		if (rc < 0)
			return err_set(e, rc, "no memory for the reply");
		*ret_status = 0;
		rc = http_once(f, req, ret_body, ret_status, e);
		again = rc == 0 ? *ret_status == 429 || *ret_status >= 500
				: rc == -ETIMEDOUT || rc == -ECONNREFUSED || rc == -EIO;
		if (!again || try >= req->tries || creds_left_ms(f) <= (long)BACKOFF_MS << try)
			return rc;
		if (creds_sleep(f, (long)BACKOFF_MS << try) == -ECANCELED)
			return err_set(e, -ECANCELED, "it was stopped");
	}
}
