// SPDX-License-Identifier: Apache-2.0
/* The control plane under /_s3d/: faults, counters, outages, declared objects. Unsigned, not counted, never faulty. */
#include <errno.h>
#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "op_put.h"

static void reply_json(struct request *rq, int status, json_t *j)
{
	char *text = j ? json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS) : NULL;
	_cleanup_buf_ struct buf b;

	buf_init(&b, REQUEST_XML_MAX);
	buf_addf(&b, "%s\n", text ? text : "null");
	free(text);
	json_decref(j);
	reply_bytes(rq, status, "application/json", &b);
}

static void reply_bad(struct request *rq, const char *why)
{
	reply_json(rq, 400, json_pack("{s:s}", "error", why));
}

/* 0 replies 200, an error its text. */
static void reply_result(struct request *rq, int rc)
{
	if (rc < 0)
		reply_json(rq, rc == -ENXIO || rc == -ENOENT ? 404 : 400,
			   json_pack("{s:s}", "error", rc == -ENXIO ? "no such bucket" : strerror(-rc)));
	else
		reply_json(rq, 200, json_object());
}

static void run_faults(struct request *rq)
{
	size_t len = evbuffer_get_length(rq->body);
	struct err e = { 0 };
	json_error_t why;
	json_t *doc = json_loadb(len ? (const char *)evbuffer_pullup(rq->body, -1) : "", len, 0, &why);

	if (!doc)
		reply_bad(rq, why.text);
	else if (faults_load(rq->server->faults, doc, &e) < 0)
		reply_bad(rq, e.msg);
	else
		reply_result(rq, 0);
	json_decref(doc);
}

static void run_stats(struct request *rq)
{
	json_t *j = stats_json(rq->server->stats);

	if (j)
		json_object_set_new(j, "faults", faults_fired(rq->server->faults));
	reply_json(rq, 200, j);
}

static void run_log(struct request *rq)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, REQUEST_XML_MAX);
	stats_log(rq->server->stats, &b);
	reply_bytes(rq, 200, "application/jsonl", &b);
}

/* Counters, log, faults, latency, rate and clock as at the start; objects stay. */
static void run_reset(struct request *rq)
{
	json_t *none = json_pack("{s:[]}", "rules");
	struct err e;
	int rc = none ? faults_load(rq->server->faults, none, &e) : -ENOMEM;

	json_decref(none);
	faults_fired_reset(rq->server->faults);
	stats_reset(rq->server->stats);
	atomic_store(&rq->server->latency_ms, rq->server->cfg.latency_ms);
	atomic_store(&rq->server->conn_rate, rq->server->cfg.conn_rate);
	atomic_store(&rq->server->clock_offset_s, 0);
	reply_result(rq, rc);
}

static void run_outage(struct request *rq)
{
	const char *mode = request_param_str(rq, "mode", "refuse");
	uint64_t ms;
	int rc = request_param_u64(rq, "ms", 0, &ms);

	if (!rc)
		rq->outage_ms = ms;
	rq->outage_refuses = strcmp(mode, "reset") != 0;
	reply_result(rq, rc);
}

static void run_latency(struct request *rq)
{
	uint64_t ms;
	int rc = request_param_u64(rq, "ms", 0, &ms);

	if (!rc)
		atomic_store(&rq->server->latency_ms, ms);
	reply_result(rq, rc);
}

static void run_rate(struct request *rq)
{
	uint64_t rate;
	int rc = request_param_u64(rq, "bytes_per_s", 0, &rate);

	if (!rc)
		atomic_store(&rq->server->conn_rate, rate);
	reply_result(rq, rc);
}

static void run_clock(struct request *rq)
{
	const char *offset = request_param_str(rq, "offset_s", "0");
	char *end;
	long long s = strtoll(offset, &end, 10);

	if (end == offset || *end) {
		reply_bad(rq, "offset_s: a number is wanted");
		return;
	}
	atomic_store(&rq->server->clock_offset_s, s);
	reply_result(rq, 0);
}

static bool flag_of(const struct request *rq, const char *name)
{
	return !strcmp(request_param_str(rq, name, "0"), "1");
}

static void run_bucket(struct request *rq)
{
	const char *bucket = request_param_str(rq, "bucket", "");
	struct bucket_flags flags = { .public = flag_of(rq, "public"),
				      .requester_pays = flag_of(rq, "requester_pays") };
	int rc = *bucket ? store_bucket_create(rq->server->store, bucket) : -EINVAL;

	if (!rc || rc == -EEXIST)
		rc = store_bucket_flags_set(rq->server->store, bucket, flags);
	reply_result(rq, rc);
}

static void run_generate(struct request *rq)
{
	const char *bucket = request_param_str(rq, "bucket", "");
	uint64_t count, size;
	int rc = request_param_u64(rq, "count", 0, &count);

	if (!rc)
		rc = request_param_u64(rq, "size", 0, &size);
	if (!rc && (!*bucket || count > 100000000))
		rc = -EINVAL;
	if (!rc)
		rc = store_generate(rq->server->store, bucket, request_param_str(rq, "prefix", ""), (unsigned)count,
				    size);
	reply_result(rq, rc);
}

/* Attributes that the query asks for, on top of the object's own. Also its time. */
static int object_adorn(struct request *rq, struct object *o, struct object **ret)
{
	struct attrs *a = attrs_copy(o->attrs);
	const char *class = request_param_str(rq, "storage_class", NULL);
	const char *archive = request_param_str(rq, "archive_status", NULL);
	const char *sum = request_param_str(rq, "checksum", NULL);
	unsigned char value[DIGEST_MAX_BYTES];
	size_t len;
	uint64_t mtime;
	int rc = a ? request_param_u64(rq, "mtime", (uint64_t)o->mtime_s, &mtime) : -ENOMEM;

	if (!rc && class)
		attrs_set_class(a, class);
	if (!rc && archive) {
		a->archived = true;
		rc = attrs_add(a, "x-amz-archive-status", archive);
	}
	if (!rc && request_param(rq, "restored"))
		a->restored = flag_of(rq, "restored");
	if (!rc && sum) {
		a->checksum_kind = digest_kind_parse(sum);
		a->checksum_composite = false;
		rc = a->checksum_kind ? object_digest(o, a->checksum_kind, value, &len) : -EINVAL;
		if (!rc)
			digest_base64(value, len, a->checksum);
	}
	if (!rc)
		rc = object_copy(o, a, ret);
	if (!rc)
		(*ret)->mtime_s = (int64_t)mtime;
	attrs_put(a);
	return rc;
}

/* A declared object: synthetic with size=, else the request's body; with neither, what is there gets new attributes. */
static int object_make(struct request *rq, const char *bucket, const struct text *key, struct object **ret)
{
	struct put_sums sums;
	struct body *body;
	uint64_t size, generation;
	int rc = request_param_u64(rq, "size", 0, &size);

	if (!rc)
		rc = request_param_u64(rq, "generation", 0, &generation);
	if (rc < 0)
		return rc;
	if (request_param(rq, "size"))
		return object_new_synthetic(bucket, key->bytes, key->len, (unsigned)generation, size, ret);
	if (!evbuffer_get_length(rq->body) && !store_get(rq->server->store, bucket, key->bytes, key->len, ret))
		return 0;
	rc = evbuffer_digest(rq->body, DIGEST_MD5, sums.md5, &(size_t){ 0 });
	if (!rc)
		rc = body_new(rq->body, store_dir(rq->server->store), &body);
	if (rc < 0)
		return rc;
	rc = object_new(&body, 1, NULL, ret);
	body_put(body);
	if (!rc)
		memcpy((*ret)->md5, sums.md5, sizeof((*ret)->md5));
	return rc;
}

static void run_object(struct request *rq)
{
	const char *bucket = request_param_str(rq, "bucket", "");
	const struct text *key = request_param(rq, "key");
	struct object *o = NULL, *adorned = NULL;
	int rc = !*bucket || !key || !key->len || key->len > REQUEST_KEY_MAX ? -EINVAL : 0;

	if (!rc) {
		rc = store_bucket_create(rq->server->store, bucket);
		rc = rc == -EEXIST ? 0 : rc;
	}
	if (!rc)
		rc = object_make(rq, bucket, key, &o);
	if (!rc)
		rc = object_adorn(rq, o, &adorned);
	if (!rc)
		rc = store_put(rq->server->store, bucket, key->bytes, key->len, adorned);
	object_put(o);
	object_put(adorned);
	reply_result(rq, rc);
}

static void run_replace(struct request *rq)
{
	const char *bucket = request_param_str(rq, "bucket", "");
	const struct text *key = request_param(rq, "key");
	struct object *o;
	uint64_t size;
	int rc = key ? store_get(rq->server->store, bucket, key->bytes, key->len, &o) : -EINVAL;

	if (!rc) {
		rc = request_param_u64(rq, "size", o->size, &size);
		object_put(o);
	}
	if (!rc)
		rc = store_replace(rq->server->store, bucket, key->bytes, key->len, size);
	reply_result(rq, rc);
}

static void run_delete(struct request *rq)
{
	const char *bucket = request_param_str(rq, "bucket", "");
	const struct text *key = request_param(rq, "key");

	reply_result(rq, key ? store_delete(rq->server->store, bucket, key->bytes, key->len) : -EINVAL);
}

void control_run(struct request *rq)
{
	static const struct {
		const char *method, *name;
		void (*run)(struct request *rq);
	} verbs[] = {
		{ "POST", "faults", run_faults }, { "GET", "stats", run_stats },
		{ "GET", "log", run_log },        { "POST", "reset", run_reset },
		{ "POST", "outage", run_outage }, { "POST", "latency", run_latency },
		{ "POST", "rate", run_rate },     { "POST", "clock", run_clock },
		{ "POST", "bucket", run_bucket }, { "POST", "generate", run_generate },
		{ "PUT", "object", run_object },  { "POST", "replace", run_replace },
		{ "POST", "delete", run_delete },
	};

	for (size_t i = 0; i < array_len(verbs); i++) {
		if (!strcmp(rq->method, verbs[i].method) && !strcmp(rq->key.bytes, verbs[i].name)) {
			verbs[i].run(rq);
			return;
		}
	}
	reply_json(rq, 404, json_pack("{s:s}", "error", "no such verb, or another method is wanted; see README.md"));
}
