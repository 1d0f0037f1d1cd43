// SPDX-License-Identifier: Apache-2.0
/*
 * Who asks: Signature Version 4 in the Authorization header or in the query, recomputed from what arrived.
 *
 * Design: written apart from the mount's own signer on purpose, so that an error in that one cannot cancel out here.
 * The signatures of single chunks of a streamed upload are not checked.
 */
#define _GNU_SOURCE

#include <errno.h>
#include <event2/keyvalq_struct.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/cleanup.h"
#include "request.h"

#define SKEW_MAX_S (15 * 60)
#define CANONICAL_MAX_BYTES 262144

struct claim {
	char *text; /* what the others point into */
	char *access_key, *day, *region, *service;
	char *signed_headers, *signature;
	const char *date, *token, *payload;
	uint64_t expires_s;
	bool presigned;
};

static void claim_done(struct claim *c)
{
	free(c->text);
}

static int claim_split_credential(struct claim *c, char *credential)
{
	char *save = NULL, *end;

	c->access_key = strtok_r(credential, "/", &save);
	c->day = strtok_r(NULL, "/", &save);
	c->region = strtok_r(NULL, "/", &save);
	c->service = strtok_r(NULL, "/", &save);
	end = strtok_r(NULL, "/", &save);
	return end && !strcmp(end, "aws4_request") ? 0 : -EINVAL;
}

static int claim_parse_header(struct request *rq, const char *header, struct claim *c)
{
	char *save = NULL, *credential = NULL;

	if (strncmp(header, "AWS4-HMAC-SHA256 ", 17))
		return -EINVAL;
	c->text = strdup(header + 17);
	if (!c->text)
		return -ENOMEM;
	for (char *field = strtok_r(c->text, ", ", &save); field; field = strtok_r(NULL, ", ", &save)) {
		if (!strncmp(field, "Credential=", 11))
			credential = field + 11;
		else if (!strncmp(field, "SignedHeaders=", 14))
			c->signed_headers = field + 14;
		else if (!strncmp(field, "Signature=", 10))
			c->signature = field + 10;
	}
	c->date = request_header(rq, "x-amz-date");
	c->token = request_header(rq, "x-amz-security-token");
	c->payload = request_header(rq, "x-amz-content-sha256");
	if (!credential || !c->signed_headers || !c->signature || !c->date || !c->payload)
		return -EINVAL;
	return claim_split_credential(c, credential);
}

static int claim_parse_query(struct request *rq, struct claim *c)
{
	const char *credential = request_param_str(rq, "X-Amz-Credential", NULL);
	const char *headers = request_param_str(rq, "X-Amz-SignedHeaders", NULL);
	const char *signature = request_param_str(rq, "X-Amz-Signature", NULL);

	c->presigned = true;
	c->date = request_param_str(rq, "X-Amz-Date", NULL);
	c->token = request_param_str(rq, "X-Amz-Security-Token", NULL);
	c->payload = "UNSIGNED-PAYLOAD";
	if (!credential || !headers || !signature || !c->date ||
	    request_param_u64(rq, "X-Amz-Expires", 0, &c->expires_s))
		return -EINVAL;
	if (asprintf(&c->text, "%s%c%s%c%s", credential, 0, headers, 0, signature) < 0) {
		c->text = NULL;
		return -ENOMEM;
	}
	c->signed_headers = c->text + strlen(credential) + 1;
	c->signature = c->signed_headers + strlen(headers) + 1;
	return claim_split_credential(c, c->text);
}

static int encode(struct buf *b, const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)p[i];
		int rc;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    (c && strchr("-_.~", c)))
			rc = buf_add(b, p + i, 1);
		else
			rc = buf_addf(b, "%%%02X", c);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The path as S3 wants it signed: encoded once, however the client wrote it. A %2F stays one. */
static int canonical_path(struct buf *b, const char *target)
{
	struct text part;
	int rc = 0;

	while (!rc) {
		size_t len = strcspn(target, "/");

		rc = text_decode(target, len, &part);
		if (rc < 0)
			return rc;
		rc = encode(b, part.bytes, part.len);
		free(part.bytes);
		if (!target[len])
			return rc;
		if (!rc)
			rc = buf_add_str(b, "/");
		target += len + 1;
	}
	return rc;
}

static int pair_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int canonical_query(struct buf *b, const struct request *rq)
{
	char *pairs[REQUEST_PARAMS_MAX];
	unsigned n = 0;
	int rc = 0;

	for (unsigned i = 0; i < rq->nr_params && !rc; i++) {
		const struct param *p = &rq->params[i];
		struct buf pair;

		if (!strcmp(p->name.bytes, "X-Amz-Signature"))
			continue;
		buf_init(&pair, CANONICAL_MAX_BYTES);
		rc = encode(&pair, p->name.bytes, p->name.len);
		/* \1 sorts before every encoded byte, so a name comes before its own extensions */
		if (!rc)
			rc = buf_add_str(&pair, "\1");
		if (!rc)
			rc = encode(&pair, p->value.bytes, p->value.len);
		pairs[n++] = pair.data;
	}
	if (!rc)
		qsort(pairs, n, sizeof(pairs[0]), pair_compare);
	for (unsigned i = 0; i < n; i++) {
		if (!rc) {
			*strchr(pairs[i], '\1') = '=';
			rc = buf_addf(b, "%s%s", i ? "&" : "", pairs[i]);
		}
		free(pairs[i]);
	}
	return rc;
}

/* Blanks at the ends dropped, inner runs folded to one. */
static int add_folded(struct buf *b, const char *value)
{
	bool blank = false, any = false;
	int rc = 0;

	for (; *value && !rc; value++) {
		if (*value == ' ' || *value == '\t') {
			blank = any;
			continue;
		}
		if (blank)
			rc = buf_add_str(b, " ");
		if (!rc)
			rc = buf_add(b, value, 1);
		blank = false;
		any = true;
	}
	return rc;
}

static int canonical_headers(struct buf *b, const struct request *rq, const char *names)
{
	struct evkeyvalq *headers = evhttp_request_get_input_headers(rq->http);
	int rc = 0;

	while (*names && !rc) {
		size_t len = strcspn(names, ";");
		int found = 0;

		rc = buf_add(b, names, len);
		if (!rc)
			rc = buf_add_str(b, ":");
		for (struct evkeyval *h = headers->tqh_first; h; h = h->next.tqe_next) {
			if (rc || strlen(h->key) != len || strncasecmp(h->key, names, len))
				continue;
			if (found++)
				rc = buf_add_str(b, ",");
			if (!rc)
				rc = add_folded(b, h->value);
		}
		if (!rc)
			rc = buf_add_str(b, "\n");
		names += len + (names[len] == ';');
	}
	return rc;
}

static int canonical_request(struct buf *b, const struct request *rq, const struct claim *c)
{
	int rc = buf_addf(b, "%s\n", rq->method);

	if (!rc)
		rc = canonical_path(b, rq->target);
	if (!rc)
		rc = buf_add_str(b, "\n");
	if (!rc)
		rc = canonical_query(b, rq);
	if (!rc)
		rc = buf_add_str(b, "\n");
	if (!rc)
		rc = canonical_headers(b, rq, c->signed_headers);
	return rc ? rc : buf_addf(b, "\n%s\n%s", c->signed_headers, c->payload);
}

static void hmac(const void *key, size_t key_len, const char *text, unsigned char ret[32])
{
	unsigned int len = 32;

	HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), ret, &len);
}

static int signature_of(const struct request *rq, const struct claim *c, char ret_hex[DIGEST_HEX_MAX])
{
	_cleanup_buf_ struct buf canonical, text;
	unsigned char key[32], hash[32];
	char hex[DIGEST_HEX_MAX], secret[512];
	unsigned int len;
	int rc;

	buf_init(&canonical, CANONICAL_MAX_BYTES);
	buf_init(&text, 4096);
	rc = canonical_request(&canonical, rq, c);
	if (rc < 0)
		return rc;
	EVP_Digest(canonical.data, canonical.len, hash, &len, EVP_sha256(), NULL);
	digest_hex(hash, sizeof(hash), hex);
	rc = buf_addf(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", c->date, c->day, c->region, c->service,
		      hex);
	if (rc < 0)
		return rc;
	snprintf(secret, sizeof(secret), "AWS4%s", rq->server->cfg.secret_key);
	hmac(secret, strlen(secret), c->day, key);
	hmac(key, sizeof(key), c->region, hash);
	hmac(hash, sizeof(hash), c->service, key);
	hmac(key, sizeof(key), "aws4_request", hash);
	hmac(hash, sizeof(hash), text.data, key);
	digest_hex(key, sizeof(key), ret_hex);
	return 0;
}

static int refuse(struct request *rq, int status, const char *code, const char *message)
{
	reply_error(rq, status, code, "%s", message);
	return -EACCES;
}

static int check_date(struct request *rq, const struct claim *c)
{
	struct tm tm = { 0 };
	const char *end = strptime(c->date, "%Y%m%dT%H%M%SZ", &tm);
	int64_t then, now = server_now_s(rq->server);

	if (!end || *end || strncmp(c->date, c->day, 8))
		return refuse(rq, 403, "AccessDenied", "The date is malformed or differs from the credential's.");
	then = timegm(&tm);
	if (c->presigned && now > then + (int64_t)c->expires_s)
		return refuse(rq, 403, "AccessDenied", "Request has expired");
	if (!c->presigned && (now > then + SKEW_MAX_S || now < then - SKEW_MAX_S))
		return refuse(rq, 403, "RequestTimeTooSkewed", "The difference between the clocks is too large.");
	return 0;
}

static int check_token(struct request *rq, const struct claim *c)
{
	const char *want = rq->server->cfg.session_token;

	if (want && !c->token)
		return refuse(rq, 403, "InvalidAccessKeyId", "This access key needs its session token.");
	if (c->token && (!want || strcmp(c->token, want)))
		return refuse(rq, 400, "InvalidToken", "The provided token is malformed or otherwise invalid.");
	return 0;
}

static int check_payload(struct request *rq, const struct claim *c)
{
	unsigned char hash[DIGEST_MAX_BYTES];
	char hex[DIGEST_HEX_MAX];
	size_t len;

	if (!strncmp(c->payload, "STREAMING-", 10) || !strcmp(c->payload, "UNSIGNED-PAYLOAD"))
		return 0;
	if (evbuffer_digest(rq->body, DIGEST_SHA256, hash, &len) < 0)
		return refuse(rq, 500, "InternalError", "Out of memory.");
	digest_hex(hash, len, hex);
	if (strcasecmp(hex, c->payload))
		return refuse(rq, 400, "XAmzContentSHA256Mismatch", "The body is not what x-amz-content-sha256 says.");
	return 0;
}

static int check_claim(struct request *rq, const struct claim *c)
{
	const struct config *cfg = &rq->server->cfg;
	char signature[DIGEST_HEX_MAX];
	int rc;

	if (strcmp(c->access_key, cfg->access_key))
		return refuse(rq, 403, "InvalidAccessKeyId", "The access key id is not known here.");
	if (strcmp(c->region, cfg->region) || strcmp(c->service, "s3")) {
		reply_header(rq, "x-amz-bucket-region", "%s", cfg->region);
		return refuse(rq, 400, "AuthorizationHeaderMalformed", "The region or the service is wrong.");
	}
	rc = check_date(rq, c);
	if (!rc)
		rc = check_token(rq, c);
	if (rc)
		return rc;
	if (signature_of(rq, c, signature) < 0 || strlen(c->signature) != strlen(signature) ||
	    CRYPTO_memcmp(signature, c->signature, strlen(signature)))
		return refuse(rq, 403, "SignatureDoesNotMatch", "The signature is not the one that was computed here.");
	return check_payload(rq, c);
}

int auth_check(struct request *rq)
{
	_cleanup_(claim_done) struct claim c = { 0 };
	const char *header = request_header(rq, "Authorization");
	struct bucket_flags flags = { 0 };
	int rc;

	store_bucket_flags(rq->server->store, rq->bucket, &flags);
	if (flags.requester_pays) {
		const char *payer = request_header(rq, "x-amz-request-payer");

		if (!payer || strcasecmp(payer, "requester"))
			return refuse(rq, 403, "AccessDenied", "This bucket is requester pays.");
	}
	if (!rq->server->cfg.access_key)
		return 0;
	if (header)
		rc = claim_parse_header(rq, header, &c);
	else if (request_param(rq, "X-Amz-Algorithm"))
		rc = claim_parse_query(rq, &c);
	else
		return flags.public ? 0 : refuse(rq, 403, "AccessDenied", "Access Denied");
	if (rc < 0)
		return refuse(rq, 400, "AuthorizationHeaderMalformed", "The authorization is malformed.");
	return check_claim(rq, &c);
}
