/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The credential chain: environment, profile files, web identity, container endpoint, IMDSv2.
 *
 * Threads: s3_provider_get() from any thread, never blocks on the network once s3_provider_start() has succeeded: a
 * refresher thread of the provider's own renews before expiry and swaps the result in; readers copy the current one
 * under a lock held for the copy alone.
 */
#ifndef PENSTOCK_S3_CREDS_H
#define PENSTOCK_S3_CREDS_H

#include <stdbool.h>

#include "base/err.h"
#include "s3/sigv4.h"

enum s3_creds_source {
	S3_CREDS_CHAIN = 0,
	S3_CREDS_ENV,
	S3_CREDS_PROFILE,
	S3_CREDS_WEB_IDENTITY,
	S3_CREDS_CONTAINER,
	S3_CREDS_IMDS,
	S3_CREDS_ANONYMOUS,
};

struct s3_creds_config {
	enum s3_creds_source source; /* anything but CHAIN pins: failure is an error, never another identity */
	const char *profile;         /* --profile or profile:NAME; NULL = $AWS_PROFILE or "default" */
	const char *region;          /* for STS; may be NULL */
	const char *ca_bundle;       /* may be NULL */
	/* NULL in production. Tests inject their own. */
	const char *(*getenv_fn)(void *ctx, const char *name);
	void *getenv_ctx;
	const char *imds_endpoint; /* NULL: $AWS_EC2_METADATA_SERVICE_ENDPOINT or the fixed address */
};

/* "chain|env|profile:NAME|web-identity|container|imds|anonymous"; *ret_profile points into <text> or is NULL. */
int s3_creds_source_parse(const char *text, enum s3_creds_source *ret, const char **ret_profile);
const char *s3_creds_source_name(enum s3_creds_source s);

struct s3_provider;

/*
 * Fetches once, in the calling thread, bounded by 8 s, and starts the refresher where the credentials expire or
 * come from files (token files and profile files are read again when they change). No source in the whole chain is
 * -ENOKEY with a sentence naming what was looked at and saying "--no-sign-request" for a public bucket: never
 * anonymous by itself.
 */
int s3_provider_start(const struct s3_creds_config *cfg, struct s3_provider **ret, struct err *e);
struct s3_provider *s3_provider_stop(struct s3_provider *p); /* joins the refresher; returns NULL */

/* Copies the current credentials. Expired ones are still handed out (the server decides) while a refresh is tried. */
int s3_provider_get(struct s3_provider *p, struct s3_creds *ret);
/* The server refused them: refresh soon (at most once a second). */
void s3_provider_invalidate(struct s3_provider *p);
/* What is used now, for the log and for --version: "env", "profile default", "container" ... */
const char *s3_provider_describe(struct s3_provider *p);
/* Region found beside the credentials (profile file, environment), "" if none. */
const char *s3_provider_region(struct s3_provider *p);

/* Pure parts, public for tests and fuzzing. */
struct s3_profile_values {
	char access_key_id[256];
	struct secret secret_key, session_token;
	char region[64];
	char credential_process[2048];
	char role_arn[256], web_identity_token_file[1024], role_session_name[128];
	char endpoint_url[512];
	char ca_bundle[1024];
	char login_key[32]; /* a key seen that asks for an interactive login ("sso_session"), which is not supported */
	bool found;
};
/*
 * An ini file's bytes; <is_config> = sections are "[profile NAME]" but for default. <ret> is overwritten, and wiped on
 * failure. -EBADMSG with the line number in <e>.
 */
int s3_profile_parse(const char *bytes, size_t len, const char *profile, bool is_config, struct s3_profile_values *ret,
		     struct err *e);
void s3_profile_values_wipe(struct s3_profile_values *v);
/* JSON of credential_process ("Version":1), of the container endpoint and of IMDS. */
int s3_creds_json_parse(const char *bytes, size_t len, struct s3_creds *ret, struct err *e);

#endif
