/* SPDX-License-Identifier: Apache-2.0 */
/* Reply headers, and the one table that turns HTTP statuses and S3 codes into errno. Pure. */
#ifndef PENSTOCK_S3_REPLY_H
#define PENSTOCK_S3_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "s3/xml.h"

struct s3_reply {
	int status;
	bool has_length, has_range, has_etag, has_mtime;
	uint64_t length;                               /* Content-Length */
	uint64_t range_first, range_last, range_total; /* Content-Range; total UINT64_MAX for "*" */
	char etag[S3_ETAG_MAX + 1];                    /* quotes and W/ stripped */
	time_t mtime;
	time_t date; /* Date: the server's clock; 0 = none */
	enum s3_storage_class storage_class;
	char storage_class_name[32];
	bool restored;          /* x-amz-restore says a readable copy exists */
	char request_id[128];   /* x-amz-request-id, printable characters only */
	char region[64];        /* x-amz-bucket-region */
	char location[512];     /* Location */
	unsigned retry_after_s; /* 0 = none; capped at 60 */
	/* Whole-object checksums, base64 as sent, "" = none; only meaningful with type FULL_OBJECT */
	char crc32c[16], crc64nvme[24];
	bool checksum_full_object;
};

void s3_reply_reset(struct s3_reply *r);
/*
 * One header line as libcurl gives it ("Name: value\r\n", the status line, or the blank line). A new status line resets
 * the reply. Unknown headers are ignored; a known one that is malformed gives -EBADMSG (a lying reply is not trusted).
 */
int s3_reply_header(struct s3_reply *r, const char *line, size_t len);

/* What to do with a failed request. */
enum s3_verdict {
	S3_FAIL = 0,     /* final */
	S3_RETRY,        /* try again after a back-off */
	S3_RETRY_SLOWER, /* the same, and the whole client slows down (503 SlowDown, 429, 500) */
	S3_RETRY_CREDS,  /* expired or unknown token: refresh the credentials once, then fail */
	S3_RETRY_REGION, /* wrong region: use reply.region or body.region or Location, once */
	S3_RETRY_CLOCK,  /* RequestTimeTooSkewed: correct the clock by the server's Date, once */
};

struct s3_outcome {
	int error; /* -errno that a reader gets if it stays like this */
	enum s3_verdict verdict;
	/* short clause for the log line: "access denied", "no such key", "archived (GLACIER): restore it first" */
	const char *what;
};

/*
 * 404 NoSuchKey -ENOENT; NoSuchBucket -ENOENT; 403 -EACCES; 412 -ESTALE; 416 -ESTALE (the object shrank); 403
 * InvalidObjectState (archived) -EIO final; RequestTimeTooSkewed, ExpiredToken, InvalidToken, 301/307/400
 * AuthorizationHeaderMalformed as above; XAdminUserNotFound (404) is -EACCES; 5xx and 429 -EIO retried, never
 * -ENOENT; a 2xx or a 3xx that should not be is -EIO retried. <body> may be NULL or hold "" (HEAD has none).
 * A 404 whose body is not S3's (no <Error>) on a non-HEAD request is -EIO, retried: a proxy's 404 must not delete a
 * file.
 */
struct s3_outcome s3_outcome_of(const struct s3_reply *r, const struct s3_error_body *body, bool is_head);

#endif
