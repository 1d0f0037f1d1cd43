/* SPDX-License-Identifier: Apache-2.0 */
/* AWS Signature Version 4 on OpenSSL. Pure: the clock is the caller's. */
#ifndef PENSTOCK_S3_SIGV4_H
#define PENSTOCK_S3_SIGV4_H

#include <stddef.h>
#include <time.h>

#include "base/buf.h"
#include "base/secret.h"

#define SIGV4_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
#define SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3_creds {
	char access_key_id[256]; /* "" = anonymous */
	struct secret secret_key;
	struct secret session_token; /* empty = none */
	time_t expires;              /* unix seconds; 0 = never */
};

void s3_creds_wipe(struct s3_creds *c);
int s3_creds_copy(struct s3_creds *dst, const struct s3_creds *src);

struct sigv4_header {
	const char *name;  /* any case */
	const char *value; /* trimmed and folded by the signer as the specification says */
};

struct sigv4_query {
	const char *name, *value; /* raw, not encoded; value "" for a sub-resource such as "uploads" */
};

struct sigv4_request {
	const char *method;       /* "GET" */
	const char *encoded_path; /* as on the wire, already encoded once (S3 does not encode twice) */
	const struct sigv4_query *query;
	size_t nr_query;
	/* must hold host; x-amz-date, x-amz-content-sha256, x-amz-security-token are added */
	const struct sigv4_header *headers;
	size_t nr_headers;
	const char *payload_sha256; /* hex, SIGV4_EMPTY_SHA256 or SIGV4_UNSIGNED_PAYLOAD */
	const char *region;
	const char *service; /* "s3", "sts" */
	time_t now;
};

/*
 * Writes the Authorization header's value to <ret_auth> and the date ("20150830T123600Z") to <ret_date>. The
 * caller sends exactly <headers> + x-amz-date, x-amz-content-sha256 (service s3 only) and, with a session token,
 * x-amz-security-token; all of them are signed. <ret_canonical> (may be NULL) gets the canonical request,
 * for tests. -E2BIG if a buffer's maximum is too small, -EIO if OpenSSL fails, -EINVAL on a bad request.
 */
int sigv4_sign(const struct sigv4_request *req, const struct s3_creds *creds, struct buf *ret_auth, char ret_date[17],
	       struct buf *ret_canonical);

/* Appends "a=b&c=d", encoded and sorted as in the canonical request: also what goes on the wire. */
int sigv4_query_encode(struct buf *b, const struct sigv4_query *query, size_t nr);

/*
 * A signer remembers the derived key of (secret, date, region, service), so that a signature costs one HMAC
 * instead of five. Threads: one per owner.
 */
struct sigv4_cache {
	unsigned char key[32];
	char scope[128];
	unsigned char secret_digest[32];
	int valid;
};
int sigv4_sign_cached(struct sigv4_cache *cache, const struct sigv4_request *req, const struct s3_creds *creds,
		      struct buf *ret_auth, char ret_date[17], struct buf *ret_canonical);

#endif
