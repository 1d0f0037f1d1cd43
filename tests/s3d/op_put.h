/* SPDX-License-Identifier: Apache-2.0 */
/* What whole uploads, parts and declared objects share. */
#ifndef S3D_OP_PUT_H
#define S3D_OP_PUT_H

#include "request.h"

struct put_sums {
	unsigned char md5[DIGEST_MAX_BYTES];
	enum digest_kind kind; /* of the checksum that was sent and found right */
	char checksum[DIGEST_BASE64_MAX];
};

/* Takes off aws-chunked, compares every checksum that came with the body. 0, or the error has been recorded. */
int put_checks(struct request *rq, struct put_sums *ret);
/* The headers that stay with the object. */
int put_attrs(struct request *rq, struct attrs **ret);
void attrs_set_class(struct attrs *a, const char *name);
/* ETag of <o> (may be NULL) and the checksum. */
void put_reply_headers(struct request *rq, const struct put_sums *sums, const struct object *o);

#endif
