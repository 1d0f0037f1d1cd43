// SPDX-License-Identifier: Apache-2.0
/* expat behind bounds: what every XML parser of this room is built on. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/xml_i.h"

#define DEPTH_MAX 16
#define NAME_MAX_BYTES 128
#define NAMES_MAX (XML_NAME_SLOTS / 2)
#define ATTRIBUTES_MAX 16
#define SLICE_BYTES (16 * 1024)
#define QUIET_MAX_BYTES (64 * 1024)

void xml_guard_fail(struct xml_guard *g, int rc)
{
	if (g->rc)
		return;
	g->rc = rc;
	XML_StopParser(g->expat, XML_FALSE);
}

/* expat keeps every name that it has met until it is freed, so a document may bring a few dozen and no more. */
static void guard_note_name(struct xml_guard *g, const char *name)
{
	uint32_t hash = 2166136261u;
	size_t len = 0, slot;

	for (; name[len]; len++)
		hash = (hash ^ (unsigned char)name[len]) * 16777619u;
	hash |= 1;
	for (slot = hash / 2 % XML_NAME_SLOTS; g->names[slot]; slot = (slot + 1) % XML_NAME_SLOTS)
		if (g->names[slot] == hash)
			return;
	if (len > NAME_MAX_BYTES || g->nr_names == NAMES_MAX) {
		xml_guard_fail(g, -EBADMSG);
		return;
	}
	g->names[slot] = hash;
	g->nr_names++;
}

static void on_start(void *user, const char *name, const char **attributes)
{
	struct xml_guard *g = user;
	const char *colon = strrchr(name, ':');

	g->quiet_bytes = 0;
	if (g->rc)
		return;
	guard_note_name(g, name);
	for (size_t i = 0; attributes[i]; i += 2) {
		if (i >= (size_t)2 * ATTRIBUTES_MAX)
			xml_guard_fail(g, -EBADMSG);
		guard_note_name(g, attributes[i]);
	}
	if (++g->depth > DEPTH_MAX)
		xml_guard_fail(g, -EBADMSG);
	if (!g->rc)
		g->start(g->ctx, colon ? colon + 1 : name, g->depth);
}

static void on_end(void *user, const char *name)
{
	struct xml_guard *g = user;

	g->quiet_bytes = 0;
	if (!g->rc)
		g->end(g->ctx, g->depth);
	g->depth--;
}

static void on_text(void *user, const char *s, int len)
{
	struct xml_guard *g = user;

	g->quiet_bytes = 0;
	if (!g->rc)
		g->text(g->ctx, s, (size_t)len, g->depth);
}

/* S3 has no document types, and only they bring entities: nothing of them is ever expanded. */
static void on_doctype(void *user, const char *name, const char *sysid, const char *pubid, int has_internal_subset)
{
	xml_guard_fail(user, -EBADMSG);
}

int xml_guard_init(struct xml_guard *g)
{
	g->expat = XML_ParserCreate("UTF-8");
	if (!g->expat)
		return -ENOMEM;
	XML_SetUserData(g->expat, g);
	XML_SetElementHandler(g->expat, on_start, on_end);
	XML_SetCharacterDataHandler(g->expat, on_text);
	XML_SetStartDoctypeDeclHandler(g->expat, on_doctype);
	return 0;
}

void xml_guard_done(struct xml_guard *g)
{
	if (g->expat)
		XML_ParserFree(g->expat);
	g->expat = NULL;
}

static int guard_parse(struct xml_guard *g, const char *bytes, size_t len, bool last)
{
	if (XML_Parse(g->expat, bytes, (int)len, last) == XML_STATUS_OK)
		return g->rc;
	if (!g->rc)
		g->rc = XML_GetErrorCode(g->expat) == XML_ERROR_NO_MEMORY ? -ENOMEM : -EBADMSG;
	return g->rc;
}

int xml_guard_feed(struct xml_guard *g, const void *bytes, size_t len)
{
	const char *p = bytes;

	while (len && !g->rc) {
		size_t n = min_of(len, (size_t)SLICE_BYTES);

		/* expat holds an unfinished token in memory and looks at all of it again each time. */
		if (g->total_bytes + n > g->max_bytes || g->quiet_bytes > QUIET_MAX_BYTES) {
			g->rc = -EBADMSG;
			break;
		}
		g->total_bytes += n;
		g->quiet_bytes += n;
		guard_parse(g, p, n, false);
		p += n;
		len -= n;
	}
	return g->rc;
}

int xml_guard_finish(struct xml_guard *g)
{
	return g->rc ? g->rc : guard_parse(g, "", 0, true);
}
