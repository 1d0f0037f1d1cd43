// SPDX-License-Identifier: Apache-2.0
/* s3:// names, endpoint URLs, percent-encoding and the address of a request. */
#define _GNU_SOURCE
#include "s3/uri.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "base/size.h"

#define BUCKET_MIN 3
#define DNS_LABEL_MAX 63

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_unreserved(char c)
{
	return is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

/* A name that may go into the path or the host as it is, whatever the server's own rules add to it. */
static bool bucket_is_valid(const char *name, size_t len)
{
	if (len < BUCKET_MIN || len > S3_BUCKET_MAX || name[0] == '.' || name[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!is_unreserved(name[i]) || name[i] == '~')
			return false;
		if (name[i] == '.' && name[i + 1] == '.')
			return false;
	}
	return true;
}

static int prefix_parse(const char *text, struct s3_uri *u, struct err *e)
{
	size_t len = strlen(text);

	if (len && text[len - 1] != '/')
		len++;
	if (len > S3_KEY_MAX)
		return err_set(e, -EINVAL, "the prefix in the s3:// name is longer than %d bytes: S3 has no such keys",
			       S3_KEY_MAX);
	if (text[0] == '/' || strstr(text, "//"))
		return err_set(e, -EINVAL, "the prefix \"%s\" holds \"//\": write each directory name once, as in a/b/",
			       text);
	memcpy(u->prefix, text, strlen(text));
	if (len)
		u->prefix[len - 1] = '/';
	return 0;
}

int s3_uri_parse(const char *text, struct s3_uri *ret, struct err *e)
{
	struct s3_uri u = { 0 };
	const char *slash;
	size_t len;
	int rc;

	if (strncasecmp(text, "s3://", 5))
		return err_set(e, -EINVAL, "\"%.200s\" is not an s3:// name: write s3://BUCKET or s3://BUCKET/PREFIX",
			       text);
	text += 5;
	slash = strchrnul(text, '/');
	len = (size_t)(slash - text);
	if (!len)
		return err_set(e, -EINVAL, "the s3:// name has no bucket: write s3://BUCKET or s3://BUCKET/PREFIX");
	if (!bucket_is_valid(text, len))
		return err_set(e, -EINVAL,
			       "\"%.*s\" cannot be a bucket: a name is made of 3 to 63 of a-z 0-9 - . and no \"..\"",
			       (int)min_of(len, (size_t)S3_BUCKET_MAX), text);
	memcpy(u.bucket, text, len);
	if (*slash) {
		rc = prefix_parse(slash + 1, &u, e);
		if (rc < 0)
			return rc;
	}
	*ret = u;
	return 0;
}

static bool is_host_byte(char c, bool v6)
{
	if (v6)
		return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':' ||
		       c == '.';
	return is_alnum(c) || c == '-' || c == '.' || c == '_';
}

/* Returns the length of the host at <text>, brackets included, or -EINVAL. */
static int host_parse(const char *text, struct s3_endpoint *ep)
{
	bool v6 = text[0] == '[';
	size_t len = v6;

	while (is_host_byte(text[len], v6))
		len++;
	if (len == (size_t)v6 || (v6 && text[len] != ']'))
		return -EINVAL;
	len += v6;
	if (len > S3_HOST_MAX)
		return -EINVAL;
	memcpy(ep->host, text, len);
	return (int)len;
}

/* Returns the length of the digits after ':', or -EINVAL. The scheme's own port is left out of the Host header. */
static int port_parse(const char *text, struct s3_endpoint *ep)
{
	size_t len = strspn(text, "0123456789");
	char digits[6] = "";
	uint64_t port;

	if (!len || len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, text, len);
	if (number_parse(digits, 1, 65535, &port) < 0)
		return -EINVAL;
	ep->port = port == (ep->https ? 443 : 80) ? 0 : (unsigned)port;
	return (int)len;
}

/* Only bytes that nobody on the way encodes, decodes or folds: anything else would break the signature. */
static int base_path_parse(const char *text, struct s3_endpoint *ep)
{
	size_t len = strlen(text);

	while (len && text[len - 1] == '/')
		len--;
	if (len >= sizeof(ep->base_path))
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] != '/' && !is_unreserved(text[i]))
			return -EINVAL;
		if (text[i] == '/' && (text[i + 1] == '/' || text[i + 1] == '.'))
			return -EINVAL;
	}
	memcpy(ep->base_path, text, len);
	return 0;
}

int s3_endpoint_parse(const char *url, struct s3_endpoint *ret, struct err *e)
{
	struct s3_endpoint ep = { 0 };
	const char *p = url;
	int n;

	ep.https = !strncasecmp(url, "https://", 8);
	if (!ep.https && strncasecmp(url, "http://", 7))
		return err_set(e, -EINVAL, "the endpoint \"%.200s\" has no scheme: write http://HOST or https://HOST",
			       url);
	p += ep.https ? 8 : 7;
	if (p[strcspn(p, "@?#")] != '\0')
		return err_set(e, -EINVAL,
			       "the endpoint URL holds a user name, a query or a fragment: "
			       "write only http[s]://HOST[:PORT][/PATH], credentials go elsewhere");
	n = host_parse(p, &ep);
	if (n < 0)
		return err_set(e, -EINVAL,
			       "the endpoint \"%.200s\" has no valid host: write http[s]://HOST[:PORT][/PATH]", url);
	p += n;
	if (*p == ':') {
		n = port_parse(p + 1, &ep);
		if (n < 0)
			return err_set(e, -EINVAL,
				       "the endpoint \"%.200s\" has no valid port: give a number of 1 to 65535", url);
		p += n + 1;
	}
	if ((*p && *p != '/') || base_path_parse(p, &ep) < 0)
		return err_set(e, -EINVAL,
			       "the endpoint \"%.200s\" has a path or port that cannot be used: "
			       "a path is made of /, letters, digits and - _ ~ .",
			       url);
	*ret = ep;
	return 0;
}

int s3_endpoint_aws(const char *region, struct s3_endpoint *ret, struct err *e)
{
	size_t len = strlen(region);
	struct s3_endpoint ep = { .https = true, .is_aws = true };

	if (!len || len > S3_REGION_MAX || strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
		return err_set(e, -EINVAL, "\"%.80s\" is not a region: it looks like us-east-1", region);
	snprintf(ep.host, sizeof(ep.host), "s3.%s.amazonaws.com%s", region, strncmp(region, "cn-", 3) ? "" : ".cn");
	*ret = ep;
	return 0;
}

int s3_uri_encode(struct buf *b, const char *text, bool keep_slash)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t run;
	int rc;

	for (; *text; text += run) {
		for (run = 0; is_unreserved(text[run]) || (keep_slash && text[run] == '/'); run++)
			;
		if (run) {
			rc = buf_add(b, text, run);
		} else {
			unsigned char c = (unsigned char)*text;

			run = 1;
			rc = buf_add(b, (char[]){ '%', hex[c >> 4], hex[c & 15] }, 3);
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -EINVAL;
}

int s3_uri_decode(const char *src, size_t len, char *dst, size_t room, size_t *ret_len)
{
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		char c = src[i];

		if (c == '%') {
			int high = i + 2 < len ? hex_value(src[i + 1]) : -EINVAL;
			int low = i + 2 < len ? hex_value(src[i + 2]) : -EINVAL;

			if (high < 0 || low < 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		} else if (c == '+') {
			c = ' ';
		}
		if (out == room)
			return -E2BIG;
		dst[out++] = c;
	}
	*ret_len = out;
	return 0;
}

/* Whether http[s]://BUCKET.HOST can name the bucket: DNS folds case, and certificates cover one label. */
static bool bucket_fits_host(const struct s3_endpoint *ep, const char *bucket)
{
	const char *allowed = "abcdefghijklmnopqrstuvwxyz0123456789-.";
	struct in_addr v4;

	if (ep->host[0] == '[' || inet_pton(AF_INET, ep->host, &v4) == 1)
		return false;
	if (strlen(bucket) > DNS_LABEL_MAX || strspn(bucket, allowed) != strlen(bucket))
		return false;
	return !ep->https || !strchr(bucket, '.');
}

static int target_path_build(const struct s3_endpoint *ep, bool path_style, const char *bucket, const char *key,
			     struct buf *b)
{
	int rc;

	buf_clear(b);
	rc = buf_add_str(b, ep->base_path);
	if (!rc && path_style)
		rc = buf_add_str(b, "/");
	if (!rc && path_style)
		rc = s3_uri_encode(b, bucket, false);
	if (!rc && (*key || !path_style))
		rc = buf_add_str(b, "/");
	return rc ? rc : s3_uri_encode(b, key, true);
}

int s3_target_build(const struct s3_endpoint *ep, bool path_style, const char *bucket, const char *key,
		    struct buf *ret_path, char *ret_host, size_t host_room)
{
	char port[16] = "";
	int n;

	path_style = path_style || !bucket_fits_host(ep, bucket);
	if (ep->port)
		snprintf(port, sizeof(port), ":%u", ep->port);
	n = snprintf(ret_host, host_room, "%s%s%s%s", path_style ? "" : bucket, path_style ? "" : ".", ep->host, port);
	if (n < 0 || (size_t)n >= host_room)
		return -E2BIG;
	return target_path_build(ep, path_style, bucket, key, ret_path);
}
