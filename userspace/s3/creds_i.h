/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the credential chain: one fetch walks the sources, each of which answers in one of three ways.
 *
 *   CREDS_FOUND   here they are
 *   CREDS_ABSENT  this source is not set up on this machine; a clause in fetch->looked says what was missing
 *   -errno        it is set up and does not work: the sentence names it, and no other identity is tried
 */
#ifndef PENSTOCK_S3_CREDS_I_H
#define PENSTOCK_S3_CREDS_I_H

#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "s3/creds.h"

#define CREDS_ABSENT 0
#define CREDS_FOUND 1

#define CREDS_REPLY_MAX_BYTES (64 * 1024)
#define CREDS_TOKEN_MAX_BYTES 20000 /* what STS accepts */
#define CREDS_FILE_MAX_BYTES (1024 * 1024)
#define CREDS_PATH_MAX 1024
#define CREDS_WATCH_MAX 4

/* Text that may hold a secret: one allocation, so that growing leaves no copies, wiped before it is freed. */
struct creds_text {
	char *data; /* always NUL-terminated */
	size_t len;
	size_t max;
};

int creds_text_init(struct creds_text *t, size_t max_bytes);
void creds_text_wipe(struct creds_text *t);
/* -E2BIG above the maximum; the content is then unchanged. */
int creds_text_add(struct creds_text *t, const void *bytes, size_t len);
int creds_text_add_str(struct creds_text *t, const char *s);
/* Percent-encoded, as in a form. */
int creds_text_add_encoded(struct creds_text *t, const char *s);

#define _cleanup_text_ _cleanup_(creds_text_wipe)

/* A file that the credentials came from, as it was just before it was read. */
struct creds_watch {
	char path[CREDS_PATH_MAX];
	bool exists;
	struct timespec mtime;
	off_t size;
	ino_t inode;
};

struct creds_fetch {
	const struct s3_creds_config *cfg;
	int stop_fd;          /* readable = give up now; -1 = none */
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; no source may outlive it */
	struct creds_watch watch[CREDS_WATCH_MAX];
	unsigned nr_watch;
	char looked[512];
};

/* The variable's value, NULL when it is unset or empty. */
const char *creds_env(const struct creds_fetch *f, const char *name);
void creds_looked(struct creds_fetch *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
long creds_left_ms(const struct creds_fetch *f);
/* Waits at most <ms>, the deadline or a stop; -ECANCELED, -ETIMEDOUT or 0. */
int creds_sleep(const struct creds_fetch *f, long ms);

/*
 * Reads a whole regular file of at most <max_bytes> and remembers it for creds_files_changed().
 * -ENOENT carries no sentence: a missing file is for the caller to judge.
 */
int creds_file_read(struct creds_fetch *f, const char *path, size_t max_bytes, struct creds_text *ret, struct err *e);
/* A token file: trailing white space removed, one line of printable ASCII, never empty; <what> names its setting. */
int creds_token_read(struct creds_fetch *f, const char *what, const char *path, struct creds_text *ret, struct err *e);
bool creds_files_changed(const struct creds_watch *watch, unsigned nr);

struct creds_header {
	const char *name, *value;
};

struct creds_request {
	const char *url;
	const char *method; /* NULL = GET, or POST where there is a body */
	struct creds_header headers[2];
	unsigned nr_headers;
	const struct creds_text *body; /* NULL = none; sent as a form */
	const char *ca_bundle;         /* NULL = the system's */
	bool local;                    /* link-local or loopback: never through a proxy */
	long connect_ms, total_ms;     /* of one try */
	unsigned tries;                /* more than one: again after 429, 5xx and a broken connection */
};

/* 0 = the server answered, whatever the status; -ECANCELED, -ETIMEDOUT, -ECONNREFUSED (no contact), -E2BIG, -EIO. */
int creds_http(struct creds_fetch *f, const struct creds_request *req, struct creds_text *ret_body, long *ret_status,
	       struct err *e);

int creds_container(struct creds_fetch *f, struct s3_creds *ret, struct err *e);
int creds_imds(struct creds_fetch *f, struct s3_creds *ret, struct err *e);

struct creds_web_identity {
	const char *what; /* names the setting in messages */
	const char *token_file, *role_arn;
	const char *session_name; /* NULL = our own */
	const char *region;       /* NULL = none known */
	const char *endpoint_url; /* the profile's; the environment comes first. NULL = none */
	const char *ca_bundle;    /* the profile's; NULL = none */
};
int creds_sts(struct creds_fetch *f, const struct creds_web_identity *w, struct s3_creds *ret, struct err *e);

/* Runs <command>, split as a shell would but without one. */
int creds_process(struct creds_fetch *f, const char *command, struct s3_creds *ret, struct err *e);

int creds_profile_fetch(struct creds_fetch *f, struct s3_creds *ret, struct err *e);
/* The region of the profile in use, "" = none; files that cannot be read have none. */
void creds_profile_region(struct creds_fetch *f, char *ret, size_t room);
/* AWS_REGION, AWS_DEFAULT_REGION; NULL = neither. */
const char *creds_env_region(const struct creds_fetch *f);

/* As s3_creds_json_parse(); a credential_process must also say "Version": 1. */
int creds_json_parse(const char *bytes, size_t len, bool need_version, struct s3_creds *ret, struct err *e);

/* Walks the chain, or asks the one source <source>; never CREDS_ABSENT. *ret_source is where they came from. */
int creds_chain(struct creds_fetch *f, enum s3_creds_source source, struct s3_creds *ret,
		enum s3_creds_source *ret_source, struct err *e);

/* Times of a provider; tests shorten them. */
struct creds_times {
	long start_bound_ms, refresh_bound_ms;
	long poll_ms;        /* how often files are looked at */
	long renew_before_s; /* of a life at least twice as long; half of the life otherwise */
	long retry_min_ms, retry_max_ms;
	long invalidate_gap_ms;
};
int creds_provider_start(const struct s3_creds_config *cfg, const struct creds_times *times, struct s3_provider **ret,
			 struct err *e);

#endif
