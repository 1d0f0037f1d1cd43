// SPDX-License-Identifier: Apache-2.0
/* Web identity: a token file is exchanged for credentials with STS' AssumeRoleWithWebIdentity, which is not signed. */
#define _GNU_SOURCE
#include "s3/creds_i.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "s3/uri.h"
#include "s3/xml.h"

#define URL_MAX_BYTES 1024
#define FORM_MAX_BYTES (3 * (CREDS_TOKEN_MAX_BYTES + 1024))
#define CONNECT_MS 3000
#define TOTAL_MS 6000
#define TRIES 3
#define LEAK_BYTES 12

/* The regions that AWS_STS_REGIONAL_ENDPOINTS=legacy sends to the global endpoint. */
static bool region_is_legacy(const char *region)
{
	static const char *const regions[] = {
		"ap-northeast-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1",
		"eu-central-1",   "eu-north-1", "eu-west-1",      "eu-west-2",      "eu-west-3",
		"sa-east-1",      "us-east-1",  "us-east-2",      "us-west-1",      "us-west-2",
	};

	for (size_t i = 0; i < array_len(regions); i++)
		if (strcmp(region, regions[i]) == 0)
			return true;
	return false;
}

static int sts_aws_url(const struct creds_fetch *f, const char *region, char *url, size_t room, struct err *e)
{
	const char *mode = creds_env(f, "AWS_STS_REGIONAL_ENDPOINTS");
	const char *domain = "amazonaws.com";

	if (region && (region[strspn(region, "abcdefghijklmnopqrstuvwxyz0123456789-")] || strlen(region) > 63))
		return err_set(e, -EINVAL, "\"%.64s\" is not the name of a region", region);
	if (!region || (mode && strcasecmp(mode, "legacy") == 0 && region_is_legacy(region))) {
		snprintf(url, room, "https://sts.amazonaws.com/");
		return 0;
	}
	if (strncmp(region, "cn-", 3) == 0)
		domain = "amazonaws.com.cn";
	else if (strncmp(region, "eusc-", 5) == 0)
		domain = "amazonaws.eu";
	snprintf(url, room, "https://sts.%s.%s/", region, domain);
	return 0;
}

static int sts_url(const struct creds_fetch *f, const struct creds_web_identity *w, char *url, size_t room,
		   struct err *e)
{
	const char *custom = creds_env(f, "AWS_ENDPOINT_URL_STS");
	struct s3_endpoint ep;
	struct err why = { 0 };
	char port[16] = "";
	int n, rc;

	if (!custom)
		custom = creds_env(f, "AWS_ENDPOINT_URL");
	if (!custom)
		custom = w->endpoint_url;
	if (!custom)
		return sts_aws_url(f, w->region, url, room, e);
	rc = s3_endpoint_parse(custom, &ep, &why);
	if (rc < 0)
		return err_set(e, rc, "the endpoint of STS: %s", why.msg);
	if (ep.port)
		snprintf(port, sizeof(port), ":%u", ep.port);
	n = snprintf(url, room, "%s://%s%s%s/", ep.https ? "https" : "http", ep.host, port, ep.base_path);
	return n < 0 || (size_t)n >= room ? err_set(e, -ENAMETOOLONG, "the endpoint of STS is too long") : 0;
}

static int sts_form(const struct creds_web_identity *w, const struct creds_text *token, struct creds_text *form)
{
	return creds_text_init(form, FORM_MAX_BYTES) ?:
	       creds_text_add_str(form, "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=") ?:
	       creds_text_add_encoded(form, w->role_arn) ?: creds_text_add_str(form, "&RoleSessionName=") ?:
	       creds_text_add_encoded(form, w->session_name ? w->session_name : "penstock") ?:
	       creds_text_add_str(form, "&WebIdentityToken=") ?: creds_text_add_encoded(form, token->data);
}

/* Whether a message repeats a piece of the token. */
static bool leaks(const char *message, const struct creds_text *token)
{
	size_t len = strlen(message), piece = min_of((size_t)LEAK_BYTES, token->len);

	for (size_t i = 0; i + piece <= len; i++)
		if (memmem(token->data, token->len, message + i, piece))
			return true;
	return false;
}

/* STS wraps the <Error> that S3 sends bare. */
static int sts_refused(const struct creds_web_identity *w, const struct creds_text *token,
		       const struct creds_text *body, long status, struct err *e)
{
	const char *at = strstr(body->data, "<Error>");
	const char *end = at ? strstr(at, "</Error>") : NULL;
	int rc = status >= 500 ? -EIO : -EACCES;
	struct s3_error_body eb;

	if (!end || s3_error_parse(at, (size_t)(end - at) + strlen("</Error>"), &eb) < 0 || leaks(eb.code, token))
		return err_set(e, rc, "STS answers HTTP %ld", status);
	if (leaks(eb.message, token))
		eb.message[0] = '\0';
	return err_set(e, rc, "STS refuses role %s: %s (HTTP %ld)%s%s", w->role_arn, eb.code, status,
		       eb.message[0] ? ": " : "", eb.message);
}

int creds_sts(struct creds_fetch *f, const struct creds_web_identity *w, struct s3_creds *ret, struct err *e)
{
	_cleanup_text_ struct creds_text token = { 0 }, form = { 0 }, body = { 0 };
	struct creds_request req = { .connect_ms = CONNECT_MS, .total_ms = TOTAL_MS, .tries = TRIES };
	char url[URL_MAX_BYTES];
	struct err why = { 0 };
	long status;
	int rc;

	*ret = (struct s3_creds){ 0 };
	rc = creds_token_read(f, w->what, w->token_file, &token, e);
	if (rc == 0)
		rc = sts_url(f, w, url, sizeof(url), e);
	if (rc < 0)
		return rc;
	rc = sts_form(w, &token, &form);
	if (rc < 0)
		return err_set(e, rc, "the request to STS cannot be built: %s", strerror(-rc));
	req.url = url;
	req.body = &form;
	req.ca_bundle = f->cfg->ca_bundle;
	if (!req.ca_bundle)
		req.ca_bundle = creds_env(f, "AWS_CA_BUNDLE");
	if (!req.ca_bundle)
		req.ca_bundle = w->ca_bundle;
	rc = creds_http(f, &req, &body, &status, &why);
	if (rc < 0)
		return err_set(e, rc, "STS at %s: %s", url, why.msg);
	if (status != 200)
		return sts_refused(w, &token, &body, status, e);
	rc = s3_sts_parse(body.data, body.len, ret);
	if (rc < 0) {
		s3_creds_wipe(ret);
		return err_set(e, rc, "STS at %s answers something that is not the reply to AssumeRoleWithWebIdentity",
			       url);
	}
	return CREDS_FOUND;
}
