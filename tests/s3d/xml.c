// SPDX-License-Identifier: Apache-2.0
/* XML as S3 writes and reads it: escaping, dates, and the flat lists that requests carry. */
#include <errno.h>
#include <event2/buffer.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "request.h"

#define XML_TEXT_MAX 4096

int xml_add_escaped(struct buf *b, const char *bytes, size_t len)
{
	size_t plain = 0;
	int rc = 0;

	for (size_t i = 0; i < len && !rc; i++) {
		unsigned char c = (unsigned char)bytes[i];

		if (c >= 0x20 && c != '&' && c != '<' && c != '>' && c != '"')
			continue;
		rc = buf_add(b, bytes + plain, i - plain);
		plain = i + 1;
		if (rc)
			break;
		switch (c) {
		case '&':
			rc = buf_add_str(b, "&amp;");
			break;
		case '<':
			rc = buf_add_str(b, "&lt;");
			break;
		case '>':
			rc = buf_add_str(b, "&gt;");
			break;
		case '"':
			rc = buf_add_str(b, "&quot;");
			break;
		default:
			rc = buf_addf(b, "&#x%x;", c);
		}
	}
	return rc ? rc : buf_add(b, bytes + plain, len - plain);
}

int xml_add_url(struct buf *b, const char *bytes, size_t len)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)bytes[i];
		char out[3] = { '%', hex[c >> 4], hex[c & 15] };
		int rc;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		    (c && strchr("-_.~/*", c)))
			rc = buf_add(b, bytes + i, 1);
		else if (c == ' ')
			rc = buf_add(b, "+", 1);
		else
			rc = buf_add(b, out, 3);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int xml_add_time(struct buf *b, const char *tag, int64_t unix_s)
{
	time_t t = unix_s;
	char text[32];
	struct tm tm;

	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.000Z", gmtime_r(&t, &tm));
	return buf_addf(b, "<%s>%s</%s>", tag, text, tag);
}

void time_http(int64_t unix_s, char ret[32])
{
	time_t t = unix_s;
	struct tm tm;

	strftime(ret, 32, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&t, &tm));
}

struct items {
	XML_Parser parser;
	const char *item;
	const char *const *fields;
	int (*each)(void *ctx, char *const values[XML_FIELDS]);
	void *ctx;
	bool in_item;
	int field; /* being read, -1 = none */
	size_t len[XML_FIELDS];
	char text[XML_FIELDS][XML_TEXT_MAX];
	int rc;
};

static const char *local_name(const char *name)
{
	const char *colon = strrchr(name, ':');

	return colon ? colon + 1 : name;
}

static void items_open(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct items *it = arg;

	name = local_name(name);
	if (!strcmp(name, it->item)) {
		it->in_item = true;
		for (int i = 0; i < XML_FIELDS; i++)
			it->len[i] = 0;
		return;
	}
	it->field = -1;
	for (int i = 0; it->in_item && i < XML_FIELDS; i++)
		if (it->fields[i] && !strcmp(name, it->fields[i]))
			it->field = i;
}

static void items_text(void *arg, const XML_Char *text, int len)
{
	struct items *it = arg;

	if (it->field < 0)
		return;
	if (it->len[it->field] + (size_t)len >= XML_TEXT_MAX) {
		it->rc = -E2BIG;
		XML_StopParser(it->parser, XML_FALSE);
		return;
	}
	memcpy(it->text[it->field] + it->len[it->field], text, (size_t)len);
	it->len[it->field] += (size_t)len;
}

static void items_close(void *arg, const XML_Char *name)
{
	struct items *it = arg;
	char *values[XML_FIELDS];

	it->field = -1;
	if (strcmp(local_name(name), it->item))
		return;
	it->in_item = false;
	for (int i = 0; i < XML_FIELDS; i++) {
		it->text[i][it->len[i]] = '\0';
		values[i] = it->text[i];
	}
	it->rc = it->each(it->ctx, values);
	if (it->rc)
		XML_StopParser(it->parser, XML_FALSE);
}

int xml_each_item(struct evbuffer *in, const char *item, const char *const fields[XML_FIELDS],
		  int (*each)(void *ctx, char *const values[XML_FIELDS]), void *ctx)
{
	_cleanup_free_ struct items *it = calloc(1, sizeof(*it));
	size_t len = evbuffer_get_length(in);
	int rc = 0;

	if (!it)
		return -ENOMEM;
	if (len > REQUEST_XML_MAX)
		return -E2BIG;
	*it = (struct items){ .item = item, .fields = fields, .each = each, .ctx = ctx, .field = -1 };
	it->parser = XML_ParserCreate(NULL);
	if (!it->parser)
		return -ENOMEM;
	XML_SetUserData(it->parser, it);
	XML_SetElementHandler(it->parser, items_open, items_close);
	XML_SetCharacterDataHandler(it->parser, items_text);
	if (!len || XML_Parse(it->parser, (const char *)evbuffer_pullup(in, -1), (int)len, 1) != XML_STATUS_OK)
		rc = it->rc ? it->rc : -EBADMSG;
	XML_ParserFree(it->parser);
	return rc;
}
