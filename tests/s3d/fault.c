// SPDX-License-Identifier: Apache-2.0
/* Fault rules: loading, matching, drawing. */
#include "fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "digest.h"

#define RULES_MAX 64

/* Requests that a fault can show on. */
enum scope { ANY, BODY, OBJECT, LISTS, GET_RANGE, GET_ONLY, OBJECT_OR_LIST };

static const struct {
	const char *name;
	enum scope scope;
} kinds[FAULT_COUNT] = {
	[FAULT_NONE] = { "none", ANY },
	[FAULT_STATUS] = { "status", ANY },
	[FAULT_REDIRECT] = { "redirect", ANY },
	[FAULT_RESET_BEFORE] = { "reset_before", ANY },
	[FAULT_RESET_MID] = { "reset_mid", BODY },
	[FAULT_STALL] = { "stall", BODY },
	[FAULT_STALL_FIRST_BYTE] = { "stall_first_byte", ANY },
	[FAULT_TRICKLE] = { "trickle", BODY },
	[FAULT_TRUNCATE] = { "truncate", BODY },
	[FAULT_LIE_LENGTH_LONG] = { "lie_length_long", BODY },
	[FAULT_LIE_LENGTH_SHORT] = { "lie_length_short", BODY },
	[FAULT_GARBAGE] = { "garbage", ANY },
	[FAULT_NO_REPLY] = { "no_reply", ANY },
	[FAULT_REPLACE_BETWEEN] = { "replace_between", GET_ONLY },
	[FAULT_IGNORE_IF_MATCH] = { "ignore_if_match", OBJECT },
	[FAULT_WRONG_RANGE] = { "wrong_range", GET_RANGE },
	[FAULT_WHOLE_200] = { "whole_200", GET_RANGE },
	[FAULT_NO_ETAG] = { "no_etag", OBJECT_OR_LIST },
	[FAULT_FLIP_BODY] = { "flip_body", BODY },
	[FAULT_FLIP_TLS] = { "flip_tls", BODY },
	[FAULT_DROP_KEEPALIVE] = { "drop_keepalive", ANY },
	[FAULT_SLOW_HEADERS] = { "slow_headers", ANY },
	[FAULT_BAD_XML] = { "bad_xml", LISTS },
	[FAULT_LIST_REPEAT] = { "list_repeat", LISTS },
};

struct rule {
	struct fault fault;
	double rate;
	uint64_t skip;  /* matches left to pass by */
	uint64_t count; /* firings left */
	enum op op;     /* OP_UNKNOWN = any */
	char method[8], bucket[64], prefix[1024];
	int has_range; /* -1 = either */
};

struct faults {
	pthread_mutex_t lock; /* guards everything below */
	uint64_t seed, drawn;
	unsigned nr_rules;
	struct rule rules[RULES_MAX];
	uint64_t fired[FAULT_COUNT];
};

struct faults *faults_new(void)
{
	struct faults *f = calloc(1, sizeof(*f));

	if (f)
		pthread_mutex_init(&f->lock, NULL);
	return f;
}

struct faults *faults_free(struct faults *f)
{
	if (f)
		pthread_mutex_destroy(&f->lock);
	free(f);
	return NULL;
}

const char *fault_name(enum fault_kind k)
{
	return kinds[k].name;
}

static enum fault_kind kind_parse(const char *name)
{
	for (int k = 1; name && k < FAULT_COUNT; k++)
		if (!strcmp(name, kinds[k].name))
			return (enum fault_kind)k;
	return FAULT_NONE;
}

static int rule_load_match(struct rule *r, json_t *match, struct err *e)
{
	const char *method = "", *bucket = "", *prefix = "", *op = NULL;
	json_error_t why;
	json_t *has_range = NULL;

	r->has_range = -1;
	if (!match)
		return 0;
	if (json_unpack_ex(match, &why, JSON_STRICT, "{s?s,s?s,s?s,s?s,s?o}", "method", &method, "bucket", &bucket,
			   "prefix", &prefix, "op", &op, "has_range", &has_range))
		return err_set(e, -EINVAL, "match: %s", why.text);
	if (strlen(method) >= sizeof(r->method) || strlen(bucket) >= sizeof(r->bucket) ||
	    strlen(prefix) >= sizeof(r->prefix))
		return err_set(e, -EINVAL, "match: a string is too long");
	strcpy(r->method, method);
	strcpy(r->bucket, bucket);
	strcpy(r->prefix, prefix);
	if (has_range)
		r->has_range = json_is_true(has_range);
	r->op = op ? op_parse(op) : OP_UNKNOWN;
	if (op && r->op == OP_UNKNOWN)
		return err_set(e, -EINVAL, "match: there is no operation \"%s\"", op);
	return 0;
}

/* Members that are there; the defaults of the kind otherwise. */
static int rule_load(struct rule *r, json_t *j, struct err *e)
{
	const char *name = NULL, *code = "", *location = "";
	json_int_t skip = 0, count = -1, ms = 0, bytes_per_s = 0, after = -1, delta = 0;
	json_t *match = NULL;
	struct fault *f = &r->fault;
	json_error_t why;

	*r = (struct rule){ .rate = 1 };
	if (json_unpack_ex(j, &why, JSON_STRICT, "{s:s,s?F,s?I,s?I,s?o,s?i,s?s,s?s,s?I,s?I,s?I,s?I}", "fault", &name,
			   "rate", &r->rate, "skip", &skip, "count", &count, "match", &match, "status", &f->status,
			   "code", &code, "location", &location, "ms", &ms, "bytes_per_s", &bytes_per_s, "after_bytes",
			   &after, "delta", &delta))
		return err_set(e, -EINVAL, "%s", why.text);
	f->kind = kind_parse(name);
	if (!f->kind)
		return err_set(e, -EINVAL, "there is no fault \"%s\"", name);
	if (strlen(code) >= sizeof(f->code) || strlen(location) >= sizeof(f->location) || skip < 0 || ms < 0 ||
	    bytes_per_s < 0 || delta < 0)
		return err_set(e, -EINVAL, "%s: a value is out of its range", name);
	if (!f->status)
		f->status = f->kind == FAULT_REDIRECT ? 307 : 503;
	if (f->status < 200 || f->status > 599)
		return err_set(e, -EINVAL, "%s: %d is no status", name, f->status);
	strcpy(f->code, *code ? code : f->status == 503 ? "SlowDown" : f->status == 500 ? "InternalError" : "Fault");
	strcpy(f->location, location);
	f->ms = (uint64_t)ms;
	f->bytes_per_s = bytes_per_s ? (uint64_t)bytes_per_s : 1024;
	f->after_bytes = after < 0 ? FAULT_MIDDLE : (uint64_t)after;
	f->delta = (uint64_t)delta;
	r->skip = (uint64_t)skip;
	r->count = count < 0 ? UINT64_MAX : (uint64_t)count;
	return rule_load_match(r, match, e);
}

int faults_load(struct faults *f, json_t *doc, struct err *e)
{
	_cleanup_free_ struct rule *rules = calloc(RULES_MAX, sizeof(*rules));
	json_t *list = NULL;
	json_int_t seed = 1;
	json_error_t why;

	if (!rules)
		return err_set(e, -ENOMEM, "out of memory");
	if (json_unpack_ex(doc, &why, JSON_STRICT, "{s?I,s:o}", "seed", &seed, "rules", &list))
		return err_set(e, -EINVAL, "%s", why.text);
	if (!json_is_array(list) || json_array_size(list) > RULES_MAX)
		return err_set(e, -EINVAL, "rules: a list of at most %d is wanted", RULES_MAX);
	for (size_t i = 0; i < json_array_size(list); i++) {
		int rc = rule_load(&rules[i], json_array_get(list, i), e);

		if (rc < 0)
			return err_wrap(e, "rule %zu", i);
	}
	pthread_mutex_lock(&f->lock);
	f->seed = (uint64_t)seed;
	f->drawn = 0;
	f->nr_rules = (unsigned)json_array_size(list);
	memcpy(f->rules, rules, RULES_MAX * sizeof(*rules));
	pthread_mutex_unlock(&f->lock);
	return 0;
}

static bool scope_holds(enum scope scope, const struct fault_target *t)
{
	bool list = t->op == OP_LIST || t->op == OP_LIST_V1;

	switch (scope) {
	case ANY:
		return true;
	case BODY:
		return t->op == OP_GET || list;
	case OBJECT:
		return t->op == OP_GET || t->op == OP_HEAD;
	case LISTS:
		return t->op == OP_LIST;
	case GET_RANGE:
		return t->op == OP_GET && t->has_range;
	case GET_ONLY:
		return t->op == OP_GET;
	case OBJECT_OR_LIST:
		return t->op == OP_GET || t->op == OP_HEAD || list;
	}
	return false;
}

static bool rule_matches(const struct rule *r, const struct fault_target *t)
{
	bool list = t->op == OP_LIST || t->op == OP_LIST_V1;
	const char *name = list ? t->prefix : t->key;

	return scope_holds(kinds[r->fault.kind].scope, t) && (r->fault.kind != FAULT_FLIP_TLS || t->tls) &&
	       (r->op == OP_UNKNOWN || r->op == t->op) && (!r->method[0] || !strcmp(r->method, t->method)) &&
	       (!r->bucket[0] || !strcmp(r->bucket, t->bucket)) && !strncmp(name, r->prefix, strlen(r->prefix)) &&
	       (r->has_range < 0 || r->has_range == t->has_range);
}

void faults_pick(struct faults *f, const struct fault_target *t, struct fault *ret)
{
	*ret = (struct fault){ .kind = FAULT_NONE };
	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < f->nr_rules && !ret->kind; i++) {
		struct rule *r = &f->rules[i];
		uint64_t random;

		if (!r->count || !rule_matches(r, t))
			continue;
		if (r->skip) {
			r->skip--;
			continue;
		}
		random = mix64(f->seed + ++f->drawn * MIX64_STEP);
		if ((double)(random >> 11) * 0x1p-53 >= r->rate)
			continue;
		if (r->count != UINT64_MAX)
			r->count--;
		f->fired[r->fault.kind]++;
		*ret = r->fault;
	}
	pthread_mutex_unlock(&f->lock);
}

json_t *faults_fired(struct faults *f)
{
	json_t *j = json_object();

	pthread_mutex_lock(&f->lock);
	for (int k = 1; k < FAULT_COUNT; k++)
		if (f->fired[k])
			json_object_set_new(j, kinds[k].name, json_integer((json_int_t)f->fired[k]));
	pthread_mutex_unlock(&f->lock);
	return j;
}

void faults_fired_reset(struct faults *f)
{
	pthread_mutex_lock(&f->lock);
	memset(f->fired, 0, sizeof(f->fired));
	pthread_mutex_unlock(&f->lock);
}
