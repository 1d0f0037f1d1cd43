// SPDX-License-Identifier: Apache-2.0
/*
 * Any bytes as a list, an error or an STS reply. A list must come out the same however its bytes are cut, and nothing
 * may be handed out that breaks the parser's promises. The first byte chooses the cut.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/uri.h"
#include "s3/xml.h"

struct tally {
	uint64_t hash;
	size_t nr;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void tally_add(struct tally *t, const void *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		t->hash = (t->hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211ULL;
	t->nr++;
}

static int on_object(void *ctx, const struct s3_list_object *o)
{
	must(o->key_len && o->key_len <= S3_KEY_MAX && !o->key[o->key_len] && o->size <= INT64_MAX);
	must(!o->etag[strcspn(o->etag, "\" \r\n")]);
	tally_add(ctx, o->key, o->key_len);
	tally_add(ctx, o->etag, strlen(o->etag));
	tally_add(ctx, &o->size, sizeof(o->size));
	return 0;
}

static int on_prefix(void *ctx, const char *prefix, size_t len)
{
	must(len && len <= S3_KEY_MAX && !prefix[len]);
	tally_add(ctx, prefix, len);
	return 0;
}

static int list(const uint8_t *data, size_t size, size_t step, struct tally *ret)
{
	static const struct s3_list_ops ops = { .object = on_object, .common_prefix = on_prefix };
	struct s3_list_parser *p;
	const char *token;
	int rc = 0;

	*ret = (struct tally){ .hash = 14695981039346656037ULL };
	p = s3_list_parser_new(&ops, ret);
	if (!p)
		return 0;
	for (size_t at = 0; at < size && !rc; at += step)
		rc = s3_list_parser_feed(p, data + at, min_of(step, size - at));
	rc = s3_list_parser_finish(p, &token);
	if (!rc)
		tally_add(ret, token, strlen(token));
	s3_list_parser_free(p);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct s3_error_body body;
	struct s3_creds creds = { 0 };
	struct tally whole, cut;
	size_t step;

	if (!size)
		return 0;
	step = data[0] % 64 + 1;
	data++;
	size--;
	must(list(data, size, SIZE_MAX / 2, &whole) == list(data, size, step, &cut));
	must(whole.hash == cut.hash && whole.nr == cut.nr);
	if (s3_error_parse(data, size, &body) == 0)
		must(!body.message[strcspn(body.message, "\n\r\t\x1b")]);
	if (s3_sts_parse(data, size, &creds) == 0)
		must(creds.access_key_id[0] && creds.secret_key.len && creds.session_token.len);
	else
		must(!creds.access_key_id[0] && !creds.secret_key.len);
	s3_creds_wipe(&creds);
	return 0;
}
