/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named faults: rules that match requests and fire by rate. Which ones fire depends on the seed and on the order
 * of arrival alone. Threads: any; one lock inside.
 */
#ifndef S3D_FAULT_H
#define S3D_FAULT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "op.h"

enum fault_kind {
	FAULT_NONE = 0,
	FAULT_STATUS,           /* status, code */
	FAULT_REDIRECT,         /* status (307), location ("" = this very URL) */
	FAULT_RESET_BEFORE,     /* RST before any byte */
	FAULT_RESET_MID,        /* RST after after_bytes of the body */
	FAULT_STALL,            /* silence after after_bytes, for ms or for ever */
	FAULT_STALL_FIRST_BYTE, /* silence before the status line, for ms or for ever */
	FAULT_TRICKLE,          /* body at bytes_per_s */
	FAULT_TRUNCATE,         /* orderly close after after_bytes of the body */
	FAULT_LIE_LENGTH_LONG,  /* Content-Length is delta too large; the connection stays */
	FAULT_LIE_LENGTH_SHORT, /* Content-Length is delta too small; the rest comes all the same */
	FAULT_GARBAGE,          /* bytes that are not HTTP */
	FAULT_NO_REPLY,         /* never answers */
	FAULT_REPLACE_BETWEEN,  /* the object becomes another one before this reply */
	FAULT_IGNORE_IF_MATCH,  /* preconditions are not looked at */
	FAULT_WRONG_RANGE,      /* 206 with the bytes and the Content-Range of delta bytes further on */
	FAULT_WHOLE_200,        /* Range is not looked at */
	FAULT_NO_ETAG,
	FAULT_FLIP_BODY,      /* the byte at after_bytes of the body has all its bits flipped */
	FAULT_FLIP_TLS,       /* https: the byte after after_bytes of TLS records is flipped on the wire */
	FAULT_DROP_KEEPALIVE, /* closes after the reply without having said so */
	FAULT_SLOW_HEADERS,   /* one byte of the head each ms (20) */
	FAULT_BAD_XML,        /* 200 with a list cut in the middle, of an honest length */
	FAULT_LIST_REPEAT,    /* the list's next token leads to the same page */
	FAULT_COUNT,
};

#define FAULT_MIDDLE UINT64_MAX

struct fault {
	enum fault_kind kind;
	int status;
	char code[48];
	char location[256];
	uint64_t ms; /* 0 = not given */
	uint64_t bytes_per_s;
	uint64_t after_bytes; /* FAULT_MIDDLE = half of the body */
	uint64_t delta;       /* 0 = not given */
};

/* What rules match. */
struct fault_target {
	enum op op;
	const char *method, *bucket, *key, *prefix; /* prefix: of a list */
	bool has_range, tls;
};

struct faults;

struct faults *faults_new(void);
struct faults *faults_free(struct faults *f);
/* {"seed": N, "rules": [...]}: replaces all rules and starts the random numbers anew. -EINVAL with a sentence. */
int faults_load(struct faults *f, json_t *doc, struct err *e);
/* Always fills <ret>; its kind is FAULT_NONE mostly. */
void faults_pick(struct faults *f, const struct fault_target *t, struct fault *ret);
/* {"reset_mid": 3, ...}: how often each has fired; a new reference. */
json_t *faults_fired(struct faults *f);
void faults_fired_reset(struct faults *f);
const char *fault_name(enum fault_kind k);

#endif
