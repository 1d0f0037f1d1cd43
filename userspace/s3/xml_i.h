/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guts shared by the XML parsers: expat behind bounds. A document type, depth, size, the number of different names and
 * the size of one token all have a maximum, so that no input can grow memory or time without bound.
 */
#ifndef PENSTOCK_S3_XML_I_H
#define PENSTOCK_S3_XML_I_H

#include <expat.h>
#include <stddef.h>
#include <stdint.h>

#define XML_NAME_SLOTS 128

struct xml_guard {
	XML_Parser expat;
	void *ctx; /* the owner, for its handlers */
	int rc;    /* 0, or the first error: it sticks */
	unsigned depth;
	size_t total_bytes, max_bytes;
	size_t quiet_bytes; /* fed since expat last reported anything */
	uint32_t names[XML_NAME_SLOTS];
	unsigned nr_names;
	void (*start)(void *ctx, const char *name, unsigned depth); /* local name; the root has depth 1 */
	void (*text)(void *ctx, const char *s, size_t len, unsigned depth);
	void (*end)(void *ctx, unsigned depth);
};

/* <ctx>, the three handlers and max_bytes are set by the caller. */
int xml_guard_init(struct xml_guard *g);
void xml_guard_done(struct xml_guard *g);
/* Ends the parse: handlers are not called again, and feed and finish return <rc>. */
void xml_guard_fail(struct xml_guard *g, int rc);
int xml_guard_feed(struct xml_guard *g, const void *bytes, size_t len);
int xml_guard_finish(struct xml_guard *g);

#endif
