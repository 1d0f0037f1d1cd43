// SPDX-License-Identifier: Apache-2.0
/*
 * The limit of a benchmark cell: what a bare libcurl receiver gets from the same server at the same moment.
 *
 * Design: one thread, one curl multi, N keep-alive connections, ranged GETs of one block each in the order of the
 * objects given; bytes are counted (--touch: also added up) and dropped. No retry: a failed request ends the run.
 */
#include <curl/curl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/cleanup.h"
#include "base/err.h"
#include "base/size.h"
#include "s3/sigv4.h"
#include "s3/uri.h"

#define CONNECTIONS_MAX 256
#define RECEIVE_BUFFER_BYTES (512l << 10)
#define HEADER_MAX_BYTES 8192

struct object {
	const char *key;
	uint64_t size_bytes;
};

struct slot {
	struct rawget *raw;
	CURL *easy;
	struct curl_slist *headers;
	uint64_t want_bytes, got_bytes;
	const char *key;
};

struct rawget {
	/* options */
	struct s3_endpoint endpoint;
	const char *bucket, *region, *ca_bundle;
	bool sign, touch;
	uint64_t block_bytes, count, seed;
	unsigned connections;
	struct s3_creds creds;

	struct object *objects;
	size_t nr_objects;
	uint64_t nr_blocks; /* of all objects */

	/* progress */
	struct sigv4_cache signer;
	CURLM *multi;
	struct slot slots[CONNECTIONS_MAX];
	uint64_t next, bytes, sum;
	double first_byte_s;
};

static double now_s(void)
{
	return (double)clock_mono_ns() / 1e9;
}

static double cpu_s(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static size_t on_body(char *data, size_t size, size_t nr, void *arg)
{
	struct slot *s = arg;
	uint64_t sum = 0;

	if (s->raw->touch) {
		for (size_t i = 0; i < nr; i++)
			sum += (unsigned char)data[i];
		s->raw->sum += sum;
	}
	s->got_bytes += nr;
	return nr;
}

static int header_add(struct slot *s, const char *name, const char *value)
{
	char line[HEADER_MAX_BYTES];
	struct curl_slist *more;
	int n = snprintf(line, sizeof(line), "%s: %s", name, value);

	if (n < 0 || (size_t)n >= sizeof(line))
		return -E2BIG;
	more = curl_slist_append(s->headers, line);
	if (!more)
		return -ENOMEM;
	s->headers = more;
	return 0;
}

static int request_sign(struct slot *s, const char *method, const char *path, const char *host, const char *range)
{
	struct rawget *raw = s->raw;
	struct sigv4_header headers[] = { { "host", host }, { "range", range } };
	struct sigv4_request req = {
		.method = method,
		.encoded_path = path,
		.headers = headers,
		.nr_headers = range ? 2 : 1,
		.payload_sha256 = SIGV4_UNSIGNED_PAYLOAD,
		.region = raw->region,
		.service = "s3",
		.now = time(NULL),
	};
	_cleanup_buf_ struct buf auth;
	char date[17];
	int rc;

	buf_init(&auth, HEADER_MAX_BYTES);
	rc = sigv4_sign_cached(&raw->signer, &req, &raw->creds, &auth, date, NULL);
	if (!rc)
		rc = header_add(s, "x-amz-date", date);
	if (!rc)
		rc = header_add(s, "x-amz-content-sha256", SIGV4_UNSIGNED_PAYLOAD);
	if (!rc && raw->creds.session_token.len)
		rc = header_add(s, "x-amz-security-token", secret_bytes(&raw->creds.session_token));
	if (!rc)
		rc = header_add(s, "Authorization", buf_str(&auth));
	return rc;
}

/* Makes the slot's handle ready for one request; <range> is NULL for a HEAD. */
static int request_build(struct slot *s, const char *key, const char *range)
{
	struct rawget *raw = s->raw;
	const struct s3_endpoint *ep = &raw->endpoint;
	_cleanup_buf_ struct buf path, url;
	char host[S3_HOST_MAX];
	int rc;

	buf_init(&path, 4 * S3_KEY_MAX);
	buf_init(&url, 8 * S3_KEY_MAX);
	curl_slist_free_all(s->headers);
	s->headers = NULL;
	s->key = key;
	s->got_bytes = 0;
	rc = s3_target_build(ep, !ep->is_aws, raw->bucket, key, &path, host, sizeof(host));
	if (!rc)
		rc = buf_addf(&url, "%s://%s%s", ep->https ? "https" : "http", host, buf_str(&path));
	if (!rc && range)
		rc = header_add(s, "Range", range);
	if (!rc && raw->sign)
		rc = request_sign(s, range ? "GET" : "HEAD", buf_str(&path), host, range);
	if (rc)
		return rc;
	curl_easy_setopt(s->easy, CURLOPT_URL, buf_str(&url));
	curl_easy_setopt(s->easy, CURLOPT_HTTPHEADER, s->headers);
	curl_easy_setopt(s->easy, CURLOPT_NOBODY, range ? 0l : 1l);
	if (range)
		curl_easy_setopt(s->easy, CURLOPT_HTTPGET, 1l);
	return 0;
}

static int slot_init(struct slot *s, struct rawget *raw)
{
	s->raw = raw;
	s->easy = curl_easy_init();
	if (!s->easy)
		return -ENOMEM;
	curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s);
	curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s);
	curl_easy_setopt(s->easy, CURLOPT_BUFFERSIZE, RECEIVE_BUFFER_BYTES);
	curl_easy_setopt(s->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(s->easy, CURLOPT_PATH_AS_IS, 1l);
	curl_easy_setopt(s->easy, CURLOPT_NOSIGNAL, 1l);
	curl_easy_setopt(s->easy, CURLOPT_NOPROXY, "*");
	if (raw->ca_bundle)
		curl_easy_setopt(s->easy, CURLOPT_CAINFO, raw->ca_bundle);
	return 0;
}

static int object_size_get(struct rawget *raw, struct object *o, struct err *e)
{
	struct slot *s = &raw->slots[0];
	curl_off_t length = -1;
	long status = 0;
	CURLcode cc;
	int rc = request_build(s, o->key, NULL);

	if (rc)
		return err_set(e, rc, "cannot build a HEAD request for \"%s\": %s", o->key, strerror(-rc));
	cc = curl_easy_perform(s->easy);
	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(s->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	if (cc != CURLE_OK)
		return err_set(e, -EIO, "HEAD %s: %s", o->key, curl_easy_strerror(cc));
	if (status != 200 || length < 0)
		return err_set(e, -EIO, "HEAD %s: status %ld; check bucket, key and credentials", o->key, status);
	o->size_bytes = (uint64_t)length;
	return 0;
}

/* The n-th block of all objects laid end to end. */
static void block_find(const struct rawget *raw, uint64_t n, const struct object **ret_object, uint64_t *ret_first,
		       uint64_t *ret_len)
{
	const struct object *o = raw->objects;

	for (;; o++) {
		uint64_t blocks = (o->size_bytes + raw->block_bytes - 1) / raw->block_bytes;

		if (n < blocks)
			break;
		n -= blocks;
	}
	*ret_object = o;
	*ret_first = n * raw->block_bytes;
	*ret_len = min_of(raw->block_bytes, o->size_bytes - *ret_first);
}

/* splitmix64: a stateless random number for each index. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

static int slot_start(struct slot *s, struct err *e)
{
	struct rawget *raw = s->raw;
	const struct object *o;
	uint64_t first, n = raw->next++;
	char range[64];
	int rc;

	block_find(raw, raw->seed ? mix(raw->seed + n) % raw->nr_blocks : n, &o, &first, &s->want_bytes);
	snprintf(range, sizeof(range), "bytes=%" PRIu64 "-%" PRIu64, first, first + s->want_bytes - 1);
	rc = request_build(s, o->key, range);
	if (rc)
		return err_set(e, rc, "cannot build a GET request for \"%s\": %s", o->key, strerror(-rc));
	if (curl_multi_add_handle(raw->multi, s->easy) != CURLM_OK)
		return err_set(e, -ENOMEM, "libcurl refused a request");
	return 0;
}

static int slot_finish(struct slot *s, CURLcode cc, struct err *e)
{
	struct rawget *raw = s->raw;
	long status = 0;

	curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_multi_remove_handle(raw->multi, s->easy);
	if (cc != CURLE_OK)
		return err_set(e, -EIO, "GET %s: %s", s->key, curl_easy_strerror(cc));
	if ((status != 206 && status != 200) || s->got_bytes != s->want_bytes)
		return err_set(e, -EIO, "GET %s: status %ld, %" PRIu64 " of %" PRIu64 " bytes", s->key, status,
			       s->got_bytes, s->want_bytes);
	raw->bytes += s->got_bytes;
	return 0;
}

/* Takes what has finished and gives the connections the next blocks; *ret_finished = there was any. */
static int finished_take(struct rawget *raw, unsigned *busy, bool *ret_finished, struct err *e)
{
	int left, rc = 0;
	CURLMsg *msg;

	*ret_finished = false;
	while (!rc && (msg = curl_multi_info_read(raw->multi, &left))) {
		struct slot *s = NULL;

		*ret_finished = true;
		curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&s);
		rc = slot_finish(s, msg->data.result, e);
		if (rc || raw->next >= raw->count)
			--*busy;
		else
			rc = slot_start(s, e);
	}
	return rc;
}

static int rawget_transfer(struct rawget *raw, struct err *e)
{
	unsigned busy = 0;
	bool finished;
	int rc = 0, running;

	for (unsigned i = 0; i < raw->connections && raw->next < raw->count && !rc; i++, busy++)
		rc = slot_start(&raw->slots[i], e);
	while (busy && !rc) {
		if (curl_multi_perform(raw->multi, &running) != CURLM_OK)
			return err_set(e, -EIO, "libcurl failed");
		rc = finished_take(raw, &busy, &finished, e);
		if (!rc && !finished && curl_multi_poll(raw->multi, NULL, 0, 1000, NULL) != CURLM_OK)
			return err_set(e, -EIO, "libcurl failed to wait for the server");
	}
	return rc;
}

static int rawget_run(struct rawget *raw, struct err *e)
{
	double t0, c0, seconds, cpu;
	int rc;

	raw->multi = curl_multi_init();
	if (!raw->multi)
		return err_set(e, -ENOMEM, "out of memory");
	curl_multi_setopt(raw->multi, CURLMOPT_MAXCONNECTS, (long)raw->connections);
	for (unsigned i = 0; i < raw->connections; i++) {
		rc = slot_init(&raw->slots[i], raw);
		if (rc)
			return err_set(e, rc, "out of memory");
	}
	for (size_t i = 0; i < raw->nr_objects; i++) {
		rc = object_size_get(raw, &raw->objects[i], e);
		if (rc)
			return rc;
		raw->nr_blocks += (raw->objects[i].size_bytes + raw->block_bytes - 1) / raw->block_bytes;
	}
	if (!raw->nr_blocks)
		return err_set(e, -EINVAL, "the objects are empty: nothing to measure");
	if (!raw->count || (!raw->seed && raw->count > raw->nr_blocks))
		raw->count = raw->nr_blocks;
	t0 = now_s();
	c0 = cpu_s();
	rc = rawget_transfer(raw, e);
	if (rc)
		return rc;
	seconds = now_s() - t0;
	cpu = cpu_s() - c0;
	printf("{\"bytes\": %" PRIu64 ", \"requests\": %" PRIu64
	       ", \"connections\": %u, \"seconds\": %.6f, "
	       "\"cpu_s\": %.6f, \"mb_per_s\": %.1f, \"sum\": %" PRIu64 "}\n",
	       raw->bytes, raw->count, raw->connections, seconds, cpu, (double)raw->bytes / 1e6 / seconds, raw->sum);
	return 0;
}

static void rawget_done(struct rawget *raw)
{
	for (unsigned i = 0; i < raw->connections; i++) {
		if (raw->slots[i].easy)
			curl_multi_remove_handle(raw->multi, raw->slots[i].easy);
		curl_easy_cleanup(raw->slots[i].easy);
		curl_slist_free_all(raw->slots[i].headers);
	}
	if (raw->multi)
		curl_multi_cleanup(raw->multi);
	s3_creds_wipe(&raw->creds);
	free(raw->objects);
}

static int creds_read(struct rawget *raw, struct err *e)
{
	const char *id = getenv("AWS_ACCESS_KEY_ID"), *key = getenv("AWS_SECRET_ACCESS_KEY");
	const char *token = getenv("AWS_SESSION_TOKEN");
	int rc;

	if (!raw->sign)
		return 0;
	if (!id || !key || strlen(id) >= sizeof(raw->creds.access_key_id))
		return err_set(e, -ENOKEY,
			       "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --no-sign-request");
	memcpy(raw->creds.access_key_id, id, strlen(id) + 1);
	rc = secret_set(&raw->creds.secret_key, key, strlen(key));
	if (!rc && token)
		rc = secret_set(&raw->creds.session_token, token, strlen(token));
	return rc ? err_set(e, rc, "cannot keep the credentials: %s", strerror(-rc)) : 0;
}

static const char usage[] =
	"usage: rawget --endpoint-url URL --bucket B [options] KEY...\n"
	"  --connections N     keep-alive connections (16)\n"
	"  --block SIZE        bytes of a ranged GET (8MiB)\n"
	"  --count N           stop after N requests\n"
	"  --shuffle SEED      blocks at random, with repeats; needs --count\n"
	"  --touch             add up every byte received\n"
	"  --region R          (us-east-1)\n"
	"  --ca-bundle FILE    for https\n"
	"  --no-sign-request   anonymous\n";

static const struct option long_options[] = {
	{ "endpoint-url", required_argument, NULL, 'e' },
	{ "bucket", required_argument, NULL, 'b' },
	{ "connections", required_argument, NULL, 'n' },
	{ "block", required_argument, NULL, 's' },
	{ "count", required_argument, NULL, 'c' },
	{ "shuffle", required_argument, NULL, 'r' },
	{ "touch", no_argument, NULL, 't' },
	{ "region", required_argument, NULL, 'g' },
	{ "ca-bundle", required_argument, NULL, 'a' },
	{ "no-sign-request", no_argument, NULL, 'u' },
	{ "help", no_argument, NULL, 'h' },
	{},
};

static int option_apply(struct rawget *raw, int opt, struct err *e)
{
	uint64_t v = 0;
	int rc = 0;

	switch (opt) {
	case 'e':
		return s3_endpoint_parse(optarg, &raw->endpoint, e);
	case 'b':
		raw->bucket = optarg;
		break;
	case 'n':
		rc = number_parse(optarg, 1, CONNECTIONS_MAX, &v);
		raw->connections = (unsigned)v;
		break;
	case 's':
		rc = size_parse(optarg, &raw->block_bytes);
		if (!rc && !raw->block_bytes)
			rc = -EINVAL;
		break;
	case 'c':
		rc = number_parse(optarg, 1, UINT64_MAX, &raw->count);
		break;
	case 'r':
		rc = number_parse(optarg, 1, UINT64_MAX, &raw->seed);
		break;
	case 't':
		raw->touch = true;
		break;
	case 'g':
		raw->region = optarg;
		break;
	case 'a':
		raw->ca_bundle = optarg;
		break;
	case 'u':
		raw->sign = false;
		break;
	default:
		return err_set(e, -EINVAL, "unknown option; see --help");
	}
	return rc ? err_set(e, rc, "bad value \"%s\"; see --help", optarg) : 0;
}

static int rawget_main(struct rawget *raw, int argc, char **argv, struct err *e)
{
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		rc = option_apply(raw, opt, e);
		if (rc)
			return rc;
	}
	if (!raw->endpoint.host[0] || !raw->bucket || optind == argc)
		return err_set(e, -EINVAL, "--endpoint-url, --bucket and at least one key are needed; see --help");
	if (raw->seed && !raw->count)
		return err_set(e, -EINVAL, "--shuffle needs --count");
	rc = creds_read(raw, e);
	if (rc)
		return rc;
	raw->nr_objects = (size_t)(argc - optind);
	raw->objects = calloc(raw->nr_objects, sizeof(*raw->objects));
	if (!raw->objects)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < raw->nr_objects; i++)
		raw->objects[i].key = argv[optind + (int)i];
	return rawget_run(raw, e);
}

int main(int argc, char **argv)
{
	static struct rawget raw = {
		.region = "us-east-1",
		.sign = true,
		.block_bytes = 8 << 20,
		.connections = 16,
	};
	struct err e = {};
	int rc;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	rc = rawget_main(&raw, argc, argv, &e);
	if (rc)
		fprintf(stderr, "rawget: %s\n", e.msg);
	rawget_done(&raw);
	curl_global_cleanup();
	return rc ? 1 : 0;
}
