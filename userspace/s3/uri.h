/* SPDX-License-Identifier: Apache-2.0 */
/* s3:// names, endpoint URLs and the percent-encoding that SigV4 wants. Pure. */
#ifndef PENSTOCK_S3_URI_H
#define PENSTOCK_S3_URI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define S3_BUCKET_MAX 63
#define S3_KEY_MAX 1024
#define S3_HOST_MAX 512
#define S3_REGION_MAX 64

struct s3_uri {
	char bucket[S3_BUCKET_MAX + 1];
	char prefix[S3_KEY_MAX + 1]; /* "" or ends with "/"; never starts with "/" */
};

/*
 * "s3://BUCKET[/PREFIX]". A prefix without a trailing slash gets one. -EINVAL with a sentence for: another
 * scheme, no bucket, a bucket name that S3 does not allow (3-63 characters of [a-z0-9.-], also accepting
 * the older [A-Z_]; never "." or ".."), a prefix over S3_KEY_MAX bytes or holding "//".
 */
int s3_uri_parse(const char *text, struct s3_uri *ret, struct err *e);

struct s3_endpoint {
	bool https;
	bool is_aws;            /* no custom endpoint: virtual-host style by default */
	char host[S3_HOST_MAX]; /* no port, IPv6 with brackets */
	unsigned port;          /* 0 = the scheme's */
	char base_path[256];    /* "" or "/x/y" without a trailing slash */
};

/* "http[s]://host[:port][/path]"; -EINVAL with a sentence otherwise (query, fragment, user info refused). */
int s3_endpoint_parse(const char *url, struct s3_endpoint *ret, struct err *e);
/* AWS' own endpoint of a region: s3.REGION.amazonaws.com (cn- regions: .amazonaws.com.cn). */
int s3_endpoint_aws(const char *region, struct s3_endpoint *ret, struct err *e);

/* Appends <text> with every byte but A-Z a-z 0-9 - . _ ~ percent-encoded (upper-case hex); '/' kept if <keep_slash>. */
int s3_uri_encode(struct buf *b, const char *text, bool keep_slash);
/*
 * Decodes %XX and '+' as ' ' (the url encoding-type of lists); -EINVAL on a broken escape, -E2BIG if <room> is too
 * small. Adds no NUL. dst may be src.
 */
int s3_uri_decode(const char *src, size_t len, char *dst, size_t room, size_t *ret_len);

/*
 * Host header and path of a request: path style puts the bucket in the path, virtual-host style in the host.
 * Always path style where the host could not name the bucket: a numeric host, a bucket name with a dot over https (its
 * certificate would not match) or with characters that DNS folds or lacks.
 * <key> may be "" (bucket requests). Writes the encoded path ("/bucket/a%20b") and "host[:port]".
 */
int s3_target_build(const struct s3_endpoint *ep, bool path_style, const char *bucket, const char *key,
		    struct buf *ret_path, char *ret_host, size_t host_room);

#endif
