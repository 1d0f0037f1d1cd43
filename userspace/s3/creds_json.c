// SPDX-License-Identifier: Apache-2.0
/*
 * Credentials as JSON: what a credential_process prints and what the container endpoint and IMDS answer.
 *
 * jansson copies the text it parses. Its memory functions are replaced once, for the whole process, by ones that
 * wipe what they free, so that no copy of a secret outlives the parse.
 */
#include "s3/creds_i.h"

#include <jansson.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/xml.h"

static void wiping_free(void *p)
{
	if (p)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

static void json_memory_setup(void)
{
	json_set_alloc_funcs(malloc, wiping_free);
}

static void cleanup_json(json_t **j)
{
	json_decref(*j);
}

/* NULL = absent or empty; *ret_rc = -EBADMSG for anything but a string. */
static const char *field(const json_t *doc, const char *name, int *ret_rc, struct err *e)
{
	const json_t *v = json_object_get(doc, name);

	if (!v || json_is_null(v))
		return NULL;
	if (!json_is_string(v) || strlen(json_string_value(v)) != json_string_length(v)) {
		*ret_rc = err_set(e, -EBADMSG, "\"%s\" is not a string", name);
		return NULL;
	}
	return json_string_length(v) ? json_string_value(v) : NULL;
}

static int creds_fill(const json_t *doc, struct s3_creds *ret, struct err *e)
{
	int rc = 0;
	const char *id = field(doc, "AccessKeyId", &rc, e);
	const char *secret = field(doc, "SecretAccessKey", &rc, e);
	const char *token = field(doc, "SessionToken", &rc, e);
	const char *other = field(doc, "Token", &rc, e);
	const char *expires = field(doc, "Expiration", &rc, e);

	if (rc < 0)
		return rc;
	if (!id || !secret)
		return err_set(e, -EBADMSG, "\"%s\" is missing", id ? "SecretAccessKey" : "AccessKeyId");
	if (strlen(id) >= sizeof(ret->access_key_id))
		return err_set(e, -EBADMSG, "\"AccessKeyId\" is longer than %zu bytes", sizeof(ret->access_key_id) - 1);
	if (!token)
		token = other;
	if (expires && s3_time_parse_iso(expires, &ret->expires) < 0)
		return err_set(e, -EBADMSG, "\"Expiration\" is not a time such as 2030-01-31T12:00:00Z");
	memcpy(ret->access_key_id, id, strlen(id) + 1);
	rc = secret_set(&ret->secret_key, secret, strlen(secret));
	if (rc == 0 && token)
		rc = secret_set(&ret->session_token, token, strlen(token));
	if (rc == -E2BIG)
		return err_set(e, -EBADMSG, "a secret is longer than %d bytes", SECRET_MAX_BYTES);
	return rc < 0 ? err_set(e, rc, "no memory for the credentials") : 0;
}

static int refused(const json_t *doc, struct err *e)
{
	const char *code = json_string_value(json_object_get(doc, "Code"));

	if (!code || strcmp(code, "Success") == 0)
		return 0;
	/* Only a plain word is repeated: anything else could be anything. */
	if (strlen(code) > 64 || code[strspn(code, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")])
		code = "an error";
	return err_set(e, -EACCES, "it answers %s instead of credentials", code);
}

int creds_json_parse(const char *bytes, size_t len, bool need_version, struct s3_creds *ret, struct err *e)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	_cleanup_(cleanup_json) json_t *doc = NULL;
	const json_t *version;
	json_error_t where;
	int rc;

	*ret = (struct s3_creds){ 0 };
	pthread_once(&once, json_memory_setup);
	if (len > CREDS_REPLY_MAX_BYTES)
		return err_set(e, -EBADMSG, "the JSON is larger than %d bytes", CREDS_REPLY_MAX_BYTES);
	doc = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &where);
	/* jansson's own text quotes what it stumbled over, which may be a secret. */
	if (!doc)
		return err_set(e, -EBADMSG, "it is not JSON (line %d, column %d)", where.line, where.column);
	if (!json_is_object(doc))
		return err_set(e, -EBADMSG, "it is JSON, but not an object");
	version = json_object_get(doc, "Version");
	if ((need_version && !version) || (version && json_integer_value(version) != 1))
		return err_set(e, -EBADMSG, "\"Version\" is not 1");
	rc = refused(doc, e);
	if (rc == 0)
		rc = creds_fill(doc, ret, e);
	if (rc < 0)
		s3_creds_wipe(ret);
	return rc;
}

int s3_creds_json_parse(const char *bytes, size_t len, struct s3_creds *ret, struct err *e)
{
	return creds_json_parse(bytes, len, false, ret, e);
}
