// SPDX-License-Identifier: Apache-2.0
/* Any text as an s3:// name, an endpoint or a key: what is accepted is safe on the wire; decoding undoes encoding. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%/";
static const char host_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._:[]";

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void check_target(const struct s3_endpoint *ep, const char *bucket, const char *key)
{
	_cleanup_buf_ struct buf path;
	char host[S3_HOST_MAX + S3_BUCKET_MAX + 16];

	buf_init(&path, 64 * 1024);
	for (int path_style = 0; path_style < 2; path_style++) {
		if (s3_target_build(ep, path_style, bucket, key, &path, host, sizeof(host)) < 0)
			continue;
		must(path.data[0] == '/' && strspn(path.data, safe) == path.len);
		must(host[0] && strspn(host, host_safe) == strlen(host));
	}
}

static void check_uri(const char *text)
{
	struct err e = { 0 };
	struct s3_uri u;

	if (s3_uri_parse(text, &u, &e) < 0) {
		must(e.msg[0]);
		return;
	}
	must(strlen(u.bucket) >= 3 && u.prefix[0] != '/' && !strstr(u.prefix, "//"));
	must(!u.prefix[0] || u.prefix[strlen(u.prefix) - 1] == '/');
	check_target(&(struct s3_endpoint){ .host = "h", .port = 9000 }, u.bucket, u.prefix);
}

static void check_endpoint(const char *text)
{
	struct err e = { 0 };
	struct s3_endpoint ep;

	if (s3_endpoint_parse(text, &ep, &e) < 0) {
		must(e.msg[0]);
		return;
	}
	must(ep.host[0] && ep.port <= 65535);
	must(!ep.base_path[0] || (ep.base_path[0] == '/' && ep.base_path[strlen(ep.base_path) - 1] != '/'));
	check_target(&ep, "bucket", "a key");
}

static void check_coding(const char *text, size_t size)
{
	_cleanup_buf_ struct buf b;
	_cleanup_free_ char *back = malloc(size + 1);
	size_t len;

	buf_init(&b, 3 * size + 1);
	if (!back)
		return;
	must(s3_uri_encode(&b, text, false) == 0 && strspn(buf_str(&b), safe) == b.len);
	must(s3_uri_decode(buf_str(&b), b.len, back, size, &len) == 0);
	must(len == strlen(text) && !memcmp(back, text, len));
	if (s3_uri_decode(text, size, back, size, &len) == 0)
		must(len <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	check_uri(text);
	check_endpoint(text);
	check_coding(text, size);
	return 0;
}
