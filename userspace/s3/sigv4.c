// SPDX-License-Identifier: Apache-2.0
/*
 * AWS Signature Version 4.
 *
 * Design: the canonical request is built in one bounded buffer from sorted views of the caller's strings, hashed, and
 * signed with the key derived from (secret, date, region, service). Values that could end a header line are refused.
 */
#define _GNU_SOURCE
#include "s3/sigv4.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "s3/uri.h"

#define QUERY_MAX 64
#define HEADERS_MAX 32
#define OWN_HEADERS 3 /* x-amz-content-sha256, x-amz-date, x-amz-security-token */
#define HASH_BYTES 32
#define CANONICAL_MAX (64 * 1024)
#define DATE_BYTES 17 /* "20150830T123600Z" and its NUL */
#define DAY_CHARS 8

struct pair {
	size_t name, value; /* offsets of NUL-terminated strings */
};

struct signing {
	const struct sigv4_request *req;
	const struct s3_creds *creds;
	char date[DATE_BYTES];
	char scope[sizeof(((struct sigv4_cache *)0)->scope)];
	struct sigv4_header headers[HEADERS_MAX + OWN_HEADERS];
	size_t nr_headers;
	struct buf signed_names; /* "host;x-amz-date" */
};

void s3_creds_wipe(struct s3_creds *c)
{
	secret_wipe(&c->secret_key);
	secret_wipe(&c->session_token);
	explicit_bzero(c->access_key_id, sizeof(c->access_key_id));
	c->expires = 0;
}

int s3_creds_copy(struct s3_creds *dst, const struct s3_creds *src)
{
	struct s3_creds c = { .expires = src->expires };
	int rc;

	memcpy(c.access_key_id, src->access_key_id, sizeof(c.access_key_id));
	rc = secret_copy(&c.secret_key, &src->secret_key);
	if (!rc)
		rc = secret_copy(&c.session_token, &src->session_token);
	if (rc < 0) {
		s3_creds_wipe(&c);
		return rc;
	}
	s3_creds_wipe(dst);
	*dst = c;
	return 0;
}

static bool has_control(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return true;
	return false;
}

static int sha256(const void *bytes, size_t len, unsigned char ret[HASH_BYTES])
{
	return EVP_Digest(bytes, len, ret, NULL, EVP_sha256(), NULL) == 1 ? 0 : -EIO;
}

static int hmac(const void *key, size_t key_len, const char *text, unsigned char ret[HASH_BYTES])
{
	return HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), ret, NULL) ? 0 : -EIO;
}

static void hex_write(const unsigned char hash[HASH_BYTES], char ret[2 * HASH_BYTES + 1])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < HASH_BYTES; i++) {
		ret[2 * i] = digits[hash[i] >> 4];
		ret[2 * i + 1] = digits[hash[i] & 15];
	}
	ret[2 * HASH_BYTES] = '\0';
}

/* Encodes every pair into <text> and returns their offsets in <pairs>, sorted by name, then value. */
static int query_sort(struct buf *text, const struct sigv4_query *query, size_t nr, struct pair *pairs)
{
	int rc;

	for (size_t i = 0; i < nr; i++) {
		pairs[i].name = text->len;
		rc = s3_uri_encode(text, query[i].name, false);
		if (!rc)
			rc = buf_add(text, "", 1);
		pairs[i].value = text->len;
		if (!rc)
			rc = s3_uri_encode(text, query[i].value, false);
		if (!rc)
			rc = buf_add(text, "", 1);
		if (rc < 0)
			return rc;
	}
	for (size_t i = 1; i < nr; i++) {
		struct pair p = pairs[i];
		size_t k = i;

		for (; k; k--) {
			int order = strcmp(text->data + pairs[k - 1].name, text->data + p.name);

			if (!order)
				order = strcmp(text->data + pairs[k - 1].value, text->data + p.value);
			if (order <= 0)
				break;
			pairs[k] = pairs[k - 1];
		}
		pairs[k] = p;
	}
	return 0;
}

int sigv4_query_encode(struct buf *b, const struct sigv4_query *query, size_t nr)
{
	struct pair pairs[QUERY_MAX];
	_cleanup_buf_ struct buf text;
	int rc;

	buf_init(&text, b->max);
	if (nr > QUERY_MAX)
		return -EINVAL;
	rc = query_sort(&text, query, nr, pairs);
	for (size_t i = 0; i < nr && !rc; i++)
		rc = buf_addf(b, "%s%s=%s", i ? "&" : "", text.data + pairs[i].name, text.data + pairs[i].value);
	return rc;
}

static const char *header_value(const struct signing *s, const char *name)
{
	for (size_t i = 0; i < s->nr_headers; i++)
		if (!strcasecmp(s->headers[i].name, name))
			return s->headers[i].value;
	return NULL;
}

static bool header_is_valid(const struct sigv4_header *h)
{
	if (!*h->name || h->name[strcspn(h->name, " \t:;,\"")] || has_control(h->name))
		return false;
	for (const char *v = h->value; *v; v++)
		if (((unsigned char)*v < 0x20 && *v != '\t') || *v == 0x7f)
			return false;
	return true;
}

/* Keeps the list sorted by lower-case name; headers of one name stay in the caller's order. */
static int header_insert(struct signing *s, const char *name, const char *value)
{
	struct sigv4_header h = { name, value };
	size_t k = s->nr_headers;

	if (k == array_len(s->headers) || !header_is_valid(&h))
		return -EINVAL;
	for (; k && strcasecmp(s->headers[k - 1].name, name) > 0; k--)
		s->headers[k] = s->headers[k - 1];
	s->headers[k] = h;
	s->nr_headers++;
	return 0;
}

static int headers_collect(struct signing *s)
{
	static const char *const own[] = { "x-amz-date", "x-amz-content-sha256", "x-amz-security-token" };
	const struct sigv4_request *req = s->req;
	int rc = 0;

	for (size_t i = 0; i < req->nr_headers && !rc; i++)
		rc = header_insert(s, req->headers[i].name, req->headers[i].value);
	for (size_t i = 0; i < array_len(own) && !rc; i++)
		if (header_value(s, own[i]))
			rc = -EINVAL;
	if (!rc && !header_value(s, "host"))
		rc = -EINVAL;
	if (!rc)
		rc = header_insert(s, "x-amz-date", s->date);
	if (!rc && !strcmp(req->service, "s3"))
		rc = header_insert(s, "x-amz-content-sha256", req->payload_sha256);
	if (!rc && s->creds->session_token.len)
		rc = header_insert(s, "x-amz-security-token", secret_bytes(&s->creds->session_token));
	return rc;
}

static int name_add(struct buf *b, const char *name)
{
	int rc = 0;

	for (; *name && !rc; name++) {
		char c = *name >= 'A' && *name <= 'Z' ? (char)(*name | 0x20) : *name;

		rc = buf_add(b, &c, 1);
	}
	return rc;
}

/* Trimmed at both ends; a run of blanks inside counts as one space. */
static int value_add(struct buf *b, const char *v)
{
	int rc = 0;

	v += strspn(v, " \t");
	while (*v && !rc) {
		size_t word = strcspn(v, " \t");

		rc = buf_add(b, v, word);
		v += word;
		v += strspn(v, " \t");
		if (*v && !rc)
			rc = buf_add(b, " ", 1);
	}
	return rc;
}

static int headers_write(struct signing *s, struct buf *canonical)
{
	int rc = 0;

	for (size_t i = 0; i < s->nr_headers && !rc; i++) {
		const struct sigv4_header *h = &s->headers[i];
		bool same = i && !strcasecmp(s->headers[i - 1].name, h->name);

		if (!same) {
			rc = buf_add_str(&s->signed_names, i ? ";" : "");
			rc = rc ? rc : name_add(&s->signed_names, h->name);
			rc = rc ? rc : buf_add_str(canonical, i ? "\n" : "");
			rc = rc ? rc : name_add(canonical, h->name);
		}
		rc = rc ? rc : buf_add_str(canonical, same ? "," : ":");
		rc = rc ? rc : value_add(canonical, h->value);
	}
	return rc;
}

static int canonical_write(struct signing *s, struct buf *b)
{
	const struct sigv4_request *req = s->req;
	int rc;

	rc = headers_collect(s);
	if (!rc)
		rc = buf_addf(b, "%s\n%s\n", req->method, req->encoded_path);
	if (!rc)
		rc = sigv4_query_encode(b, req->query, req->nr_query);
	if (!rc)
		rc = buf_add_str(b, "\n");
	if (!rc)
		rc = headers_write(s, b);
	if (!rc)
		rc = buf_addf(b, "\n\n%s\n%s", buf_str(&s->signed_names), req->payload_sha256);
	return rc;
}

static int key_derive(const struct signing *s, unsigned char ret[HASH_BYTES])
{
	const struct secret *secret = &s->creds->secret_key;
	char first[4 + SECRET_MAX_BYTES], day[DAY_CHARS + 1] = "";
	unsigned char a[HASH_BYTES], b[HASH_BYTES];
	int rc;

	memcpy(day, s->date, DAY_CHARS);
	memcpy(first, "AWS4", 4);
	memcpy(first + 4, secret_bytes(secret), secret->len);
	rc = hmac(first, 4 + secret->len, day, a);
	if (!rc)
		rc = hmac(a, sizeof(a), s->req->region, b);
	if (!rc)
		rc = hmac(b, sizeof(b), s->req->service, a);
	if (!rc)
		rc = hmac(a, sizeof(a), "aws4_request", ret);
	explicit_bzero(first, 4 + secret->len);
	explicit_bzero(a, sizeof(a));
	explicit_bzero(b, sizeof(b));
	return rc;
}

/* Leaves the key for the request's scope and secret in the cache. */
static int key_get(struct sigv4_cache *cache, const struct signing *s)
{
	const struct secret *secret = &s->creds->secret_key;
	unsigned char digest[HASH_BYTES];
	int rc;

	rc = sha256(secret_bytes(secret), secret->len, digest);
	if (rc < 0)
		return rc;
	if (cache->valid && !strcmp(cache->scope, s->scope) &&
	    !CRYPTO_memcmp(cache->secret_digest, digest, sizeof(digest)))
		return 0;
	cache->valid = 0;
	rc = key_derive(s, cache->key);
	if (rc < 0)
		return rc;
	memcpy(cache->scope, s->scope, sizeof(cache->scope));
	memcpy(cache->secret_digest, digest, sizeof(digest));
	cache->valid = 1;
	return 0;
}

static int signature_write(struct sigv4_cache *cache, const struct signing *s, const struct buf *canonical,
			   struct buf *ret_auth)
{
	char hex[2 * HASH_BYTES + 1], to_sign[sizeof(s->scope) + sizeof(hex) + 64];
	unsigned char hash[HASH_BYTES];
	int rc;

	rc = sha256(buf_str(canonical), canonical->len, hash);
	if (rc < 0)
		return rc;
	hex_write(hash, hex);
	snprintf(to_sign, sizeof(to_sign), "AWS4-HMAC-SHA256\n%s\n%s\n%s", s->date, s->scope, hex);
	rc = key_get(cache, s);
	if (!rc)
		rc = hmac(cache->key, sizeof(cache->key), to_sign, hash);
	if (rc < 0)
		return rc;
	hex_write(hash, hex);
	buf_clear(ret_auth);
	return buf_addf(ret_auth, "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
			s->creds->access_key_id, s->scope, buf_str(&s->signed_names), hex);
}

static int request_check(const struct sigv4_request *req, const struct s3_creds *creds)
{
	const char *const plain[] = { req->method, req->encoded_path, req->payload_sha256, req->region, req->service };

	for (size_t i = 0; i < array_len(plain); i++)
		if (!*plain[i] || has_control(plain[i]) || strchr(plain[i], ' '))
			return -EINVAL;
	if (req->encoded_path[0] != '/' || req->nr_headers > HEADERS_MAX)
		return -EINVAL;
	if (!creds->access_key_id[0] || has_control(creds->access_key_id) || !creds->secret_key.len)
		return -EINVAL;
	return 0;
}

/* The date and the scope: "20130524/us-east-1/s3/aws4_request". */
static int scope_write(struct signing *s)
{
	struct tm tm;
	int n;

	if (!gmtime_r(&s->req->now, &tm) || tm.tm_year + 1900 > 9999 || tm.tm_year < 0)
		return -EINVAL;
	if (strftime(s->date, sizeof(s->date), "%Y%m%dT%H%M%SZ", &tm) != sizeof(s->date) - 1)
		return -EINVAL;
	n = snprintf(s->scope, sizeof(s->scope), "%.*s/%s/%s/aws4_request", DAY_CHARS, s->date, s->req->region,
		     s->req->service);
	return n < 0 || (size_t)n >= sizeof(s->scope) ? -EINVAL : 0;
}

int sigv4_sign_cached(struct sigv4_cache *cache, const struct sigv4_request *req, const struct s3_creds *creds,
		      struct buf *ret_auth, char ret_date[17], struct buf *ret_canonical)
{
	struct signing s = { .req = req, .creds = creds };
	_cleanup_buf_ struct buf own;
	struct buf *canonical = ret_canonical;
	int rc;

	buf_init(&own, CANONICAL_MAX);
	if (!canonical)
		canonical = &own;
	buf_init(&s.signed_names, CANONICAL_MAX);
	rc = request_check(req, creds);
	if (!rc)
		rc = scope_write(&s);
	if (!rc) {
		buf_clear(canonical);
		rc = canonical_write(&s, canonical);
	}
	if (!rc)
		rc = signature_write(cache, &s, canonical, ret_auth);
	if (!rc)
		memcpy(ret_date, s.date, sizeof(s.date));
	buf_done(&s.signed_names);
	/* The canonical request holds the session token. */
	if (own.data)
		explicit_bzero(own.data, own.len);
	return rc;
}

int sigv4_sign(const struct sigv4_request *req, const struct s3_creds *creds, struct buf *ret_auth, char ret_date[17],
	       struct buf *ret_canonical)
{
	struct sigv4_cache cache = { .valid = 0 };
	int rc;

	rc = sigv4_sign_cached(&cache, req, creds, ret_auth, ret_date, ret_canonical);
	explicit_bzero(&cache, sizeof(cache));
	return rc;
}
