// SPDX-License-Identifier: Apache-2.0
/* The order of the credential sources, and those that are on this machine: environment and profile files. */
#include "s3/creds_i.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* Both files' view of one profile. What the credentials file says comes first. */
struct profile {
	struct s3_profile_values credentials, config;
	char name[256];
	bool named; /* by the user: it has to exist */
	char where[512];
};

static void profile_wipe(struct profile *p)
{
	s3_profile_values_wipe(&p->credentials);
	s3_profile_values_wipe(&p->config);
}

static int creds_set(struct s3_creds *c, const char *id, const char *secret, const char *token)
{
	int rc;

	if (strlen(id) >= sizeof(c->access_key_id))
		return -E2BIG;
	memcpy(c->access_key_id, id, strlen(id) + 1);
	rc = secret_set(&c->secret_key, secret, strlen(secret));
	return rc < 0 || !token ? rc : secret_set(&c->session_token, token, strlen(token));
}

static int from_env(struct creds_fetch *f, struct s3_creds *ret, struct err *e)
{
	const char *id = creds_env(f, "AWS_ACCESS_KEY_ID"), *secret = creds_env(f, "AWS_SECRET_ACCESS_KEY");
	int rc;

	*ret = (struct s3_creds){ 0 };
	if (!id && !secret) {
		creds_looked(f, "env (AWS_ACCESS_KEY_ID is not set)");
		return CREDS_ABSENT;
	}
	if (!id || !secret)
		return err_set(e, -EINVAL, "%s is set, but %s is not",
			       id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
			       id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
	rc = creds_set(ret, id, secret, creds_env(f, "AWS_SESSION_TOKEN"));
	if (rc < 0)
		return err_set(e, rc, "the AWS_ variables cannot be kept: %s", strerror(-rc));
	return CREDS_FOUND;
}

static int from_web_identity(struct creds_fetch *f, struct s3_creds *ret, struct err *e)
{
	struct creds_web_identity w = {
		.what = "AWS_WEB_IDENTITY_TOKEN_FILE",
		.token_file = creds_env(f, "AWS_WEB_IDENTITY_TOKEN_FILE"),
		.role_arn = creds_env(f, "AWS_ROLE_ARN"),
		.session_name = creds_env(f, "AWS_ROLE_SESSION_NAME"),
		.region = f->cfg->region ? f->cfg->region : creds_env_region(f),
	};

	*ret = (struct s3_creds){ 0 };
	if (!w.token_file) {
		creds_looked(f, "web-identity (AWS_WEB_IDENTITY_TOKEN_FILE is not set)");
		return CREDS_ABSENT;
	}
	if (!w.role_arn)
		return err_set(e, -EINVAL, "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not");
	return creds_sts(f, &w, ret, e);
}

/* A path with "~/" at its front, or <leaf> in the home directory. "" = there is no home. */
static int profile_path(const struct creds_fetch *f, const char *given, const char *leaf, char *ret, size_t room)
{
	const char *home = creds_env(f, "HOME");
	bool in_home = !given || strncmp(given, "~/", 2) == 0;
	int n;

	ret[0] = '\0';
	if (in_home && !home)
		return 0;
	if (!given)
		n = snprintf(ret, room, "%s/.aws/%s", home, leaf);
	else
		n = snprintf(ret, room, "%s%s", in_home ? home : "", in_home ? given + 1 : given);
	return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

static int profile_read(struct creds_fetch *f, struct profile *p, bool is_config, struct err *e)
{
	const char *variable = is_config ? "AWS_CONFIG_FILE" : "AWS_SHARED_CREDENTIALS_FILE";
	struct s3_profile_values *v = is_config ? &p->config : &p->credentials;
	const char *given = creds_env(f, variable);
	_cleanup_text_ struct creds_text text = { 0 };
	char path[CREDS_PATH_MAX];
	struct err why = { 0 };
	size_t used = strlen(p->where);
	int rc;

	rc = profile_path(f, given, is_config ? "config" : "credentials", path, sizeof(path));
	if (rc < 0)
		return err_set(e, rc, "the path of the %s file is too long", is_config ? "config" : "credentials");
	if (!path[0])
		return 0;
	snprintf(p->where + used, sizeof(p->where) - used, "%s%s", used ? ", " : "", path);
	rc = creds_file_read(f, path, CREDS_FILE_MAX_BYTES, &text, &why);
	if (rc < 0 && !given && access(path, F_OK) < 0)
		return 0;
	if (rc == -ENOENT)
		return err_set(e, rc, "%s names %s, which does not exist; unset it or set it to /dev/null", variable,
			       path);
	if (rc < 0)
		return err_set(e, rc, "%s", why.msg);
	rc = s3_profile_parse(text.data, text.len, p->name, is_config, v, &why);
	return rc < 0 ? err_set(e, rc, "%s: %s", path, why.msg) : 0;
}

static int profile_load(struct creds_fetch *f, struct profile *p, struct err *e)
{
	const char *name = f->cfg->profile ? f->cfg->profile : creds_env(f, "AWS_PROFILE");
	int rc;

	p->named = name != NULL;
	if (!name)
		name = "default";
	if (strlen(name) >= sizeof(p->name))
		return err_set(e, -ENAMETOOLONG, "the profile's name is longer than %zu bytes", sizeof(p->name) - 1);
	memcpy(p->name, name, strlen(name) + 1);
	rc = profile_read(f, p, false, e);
	return rc < 0 ? rc : profile_read(f, p, true, e);
}

/* The credentials file's value, else the config file's, else NULL. */
#define PROFILE_VALUE(p, member) \
	((p)->credentials.member[0] ? (p)->credentials.member : (p)->config.member[0] ? (p)->config.member : NULL)

/* Keys are never mixed from two files. */
static int profile_static(const struct profile *p, const struct s3_profile_values *v, struct s3_creds *ret,
			  struct err *e)
{
	int rc;

	if (!v->access_key_id[0] && !v->secret_key.len)
		return CREDS_ABSENT;
	if (!v->access_key_id[0] || !v->secret_key.len)
		return err_set(e, -EINVAL, "profile %s has an %s but no %s", p->name,
			       v->secret_key.len ? "aws_secret_access_key" : "aws_access_key_id",
			       v->secret_key.len ? "aws_access_key_id" : "aws_secret_access_key");
	rc = creds_set(ret, v->access_key_id, secret_bytes(&v->secret_key),
		       v->session_token.len ? secret_bytes(&v->session_token) : NULL);
	return rc < 0 ? err_set(e, rc, "profile %s cannot be kept: %s", p->name, strerror(-rc)) : CREDS_FOUND;
}

static int profile_role(struct creds_fetch *f, const struct profile *p, struct s3_creds *ret, struct err *e)
{
	struct creds_web_identity w = {
		.what = "web_identity_token_file",
		.token_file = PROFILE_VALUE(p, web_identity_token_file),
		.role_arn = PROFILE_VALUE(p, role_arn),
		.session_name = PROFILE_VALUE(p, role_session_name),
		.region = f->cfg->region ? f->cfg->region : creds_env_region(f),
		.endpoint_url = PROFILE_VALUE(p, endpoint_url),
		.ca_bundle = PROFILE_VALUE(p, ca_bundle),
	};
	struct err why = { 0 };
	int rc;

	if (!w.token_file && !w.role_arn)
		return CREDS_ABSENT;
	if (!w.role_arn)
		return err_set(e, -EINVAL, "profile %s has a web_identity_token_file but no role_arn", p->name);
	if (!w.token_file)
		return err_set(e, -EOPNOTSUPP,
			       "profile %s assumes a role through source_profile or credential_source, which is not "
			       "supported; name a profile whose credential_process is "
			       "\"aws configure export-credentials --profile %s\"",
			       p->name, p->name);
	if (!w.region)
		w.region = PROFILE_VALUE(p, region);
	rc = creds_sts(f, &w, ret, &why);
	return rc < 0 ? err_set(e, rc, "profile %s: %s", p->name, why.msg) : rc;
}

static int profile_pick(struct creds_fetch *f, const struct profile *p, struct s3_creds *ret, struct err *e)
{
	const char *login = PROFILE_VALUE(p, login_key), *process = PROFILE_VALUE(p, credential_process);
	struct err why = { 0 };
	int rc;

	rc = profile_role(f, p, ret, e);
	if (rc != CREDS_ABSENT)
		return rc;
	if (login)
		return err_set(e, -EOPNOTSUPP,
			       "profile %s logs in through %s, which is not supported; name a profile whose "
			       "credential_process is \"aws configure export-credentials --profile %s\"",
			       p->name, login, p->name);
	rc = profile_static(p, &p->credentials, ret, e);
	if (rc != CREDS_ABSENT)
		return rc;
	if (!process)
		return profile_static(p, &p->config, ret, e);
	rc = creds_process(f, process, ret, &why);
	return rc < 0 ? err_set(e, rc, "profile %s: %s", p->name, why.msg) : rc;
}

int creds_profile_fetch(struct creds_fetch *f, struct s3_creds *ret, struct err *e)
{
	_cleanup_(profile_wipe) struct profile p = { 0 };
	int rc;

	*ret = (struct s3_creds){ 0 };
	rc = profile_load(f, &p, e);
	if (rc < 0)
		return rc;
	if (!p.credentials.found && !p.config.found) {
		if (p.named)
			return err_set(e, -ENOENT, "there is no profile %s in %s", p.name,
				       p.where[0] ? p.where : "any file: HOME is not set");
		creds_looked(f, "profile default (not in %s)", p.where[0] ? p.where : "any file: HOME is not set");
		return CREDS_ABSENT;
	}
	rc = profile_pick(f, &p, ret, e);
	if (rc == CREDS_ABSENT)
		creds_looked(f, "profile %s (holds no credentials)", p.name);
	return rc;
}

void creds_profile_region(struct creds_fetch *f, char *ret, size_t room)
{
	_cleanup_(profile_wipe) struct profile p = { 0 };
	struct err why = { 0 };
	const char *region;

	ret[0] = '\0';
	if (profile_load(f, &p, &why) < 0)
		return;
	region = PROFILE_VALUE(&p, region);
	snprintf(ret, room, "%s", region ? region : "");
}

/* What is sent in headers must not be able to end one; a stray newline is also the commonest mistake in a key. */
static int creds_check(const struct s3_creds *c, struct err *e)
{
	for (const char *t = c->access_key_id; *t; t++)
		if (*t <= 0x20 || *t > 0x7e)
			return err_set(e, -EINVAL, "the access key id holds white space or a byte that is not ASCII");
	for (const char *t = secret_bytes(&c->session_token); *t; t++)
		if (*t <= 0x20 || *t > 0x7e)
			return err_set(e, -EINVAL, "the session token holds white space or a byte that is not ASCII");
	for (const char *t = secret_bytes(&c->secret_key); *t; t++)
		if (iscntrl((unsigned char)*t))
			return err_set(e, -EINVAL, "the secret access key holds a line end or a control character");
	return 0;
}

static const struct {
	enum s3_creds_source source;
	int (*fetch)(struct creds_fetch *f, struct s3_creds *ret, struct err *e);
} sources[] = {
	{ S3_CREDS_ENV, from_env },
	{ S3_CREDS_WEB_IDENTITY, from_web_identity },
	{ S3_CREDS_PROFILE, creds_profile_fetch },
	{ S3_CREDS_CONTAINER, creds_container },
	{ S3_CREDS_IMDS, creds_imds },
};

/* A profile chosen on the command line comes before the environment, as in the AWS CLI. */
static bool skipped(const struct creds_fetch *f, enum s3_creds_source want, enum s3_creds_source source)
{
	if (want != S3_CREDS_CHAIN)
		return want != source;
	return f->cfg->profile && (source == S3_CREDS_ENV || source == S3_CREDS_WEB_IDENTITY);
}

int creds_chain(struct creds_fetch *f, enum s3_creds_source want, struct s3_creds *ret,
		enum s3_creds_source *ret_source, struct err *e)
{
	struct err why = { 0 };

	f->looked[0] = '\0';
	for (size_t i = 0; i < array_len(sources); i++) {
		int rc;

		if (skipped(f, want, sources[i].source))
			continue;
		f->nr_watch = 0;
		rc = sources[i].fetch(f, ret, &why);
		if (rc == CREDS_FOUND)
			rc = creds_check(ret, &why) ?: CREDS_FOUND;
		if (rc < 0) {
			s3_creds_wipe(ret);
			return err_set(e, rc, "credentials from %s: %s", s3_creds_source_name(sources[i].source),
				       why.msg);
		}
		if (rc == CREDS_FOUND) {
			*ret_source = sources[i].source;
			return rc;
		}
	}
	if (want != S3_CREDS_CHAIN)
		return err_set(e, -ENOKEY, "the credentials asked for are not there: %s", f->looked);
	return err_set(e, -ENOKEY, "no credentials were found; looked at %s. For a public bucket use --no-sign-request",
		       f->looked);
}
