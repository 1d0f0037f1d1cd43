// SPDX-License-Identifier: Apache-2.0
/* Credentials from the machine around us: the container endpoint (ECS, EKS Pod Identity) and IMDSv2. */
#include "s3/creds_i.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

#define URL_MAX_BYTES 2048
#define CONNECT_MS 1000
#define TOTAL_MS 2000
#define TRIES 3
#define IMDS_TOKEN_TTL_S "21600"

#define CONTAINER_HOST "http://169.254.170.2"
#define CONTAINER_RELATIVE "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
#define CONTAINER_FULL "AWS_CONTAINER_CREDENTIALS_FULL_URI"
#define CONTAINER_TOKEN "AWS_CONTAINER_AUTHORIZATION_TOKEN"
#define CONTAINER_TOKEN_FILE "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"

static void cleanup_url(CURLU **u)
{
	curl_url_cleanup(*u);
}

static void cleanup_curl(char **p)
{
	curl_free(*p);
}

/* Addresses that never leave the machine: plain http is safe there. */
static bool host_is_local(const char *host)
{
	static const char *const v6[] = { "::1", "fd00:ec2::23" };
	char bare[INET6_ADDRSTRLEN + 2];
	struct in6_addr a6, b6;
	struct in_addr a4;
	size_t len = strlen(host);

	if (strcasecmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &a4) == 1) {
		uint32_t a = ntohl(a4.s_addr);

		return a >> 24 == 127 || a == 0xa9feaa02 || a == 0xa9feaa17; /* 169.254.170.2 and .23 */
	}
	if (len < 2 || len >= sizeof(bare) || host[0] != '[' || host[len - 1] != ']')
		return false;
	memcpy(bare, host + 1, len - 2);
	bare[len - 2] = '\0';
	for (size_t i = 0; inet_pton(AF_INET6, bare, &a6) == 1 && i < array_len(v6); i++)
		if (inet_pton(AF_INET6, v6[i], &b6) == 1 && memcmp(&a6, &b6, sizeof(a6)) == 0)
			return true;
	return false;
}

/* Checks what libcurl itself understands the URL to be, so that the check and the connection cannot differ. */
static int container_url_check(const char *url, struct err *e)
{
	_cleanup_(cleanup_url) CURLU *u = curl_url();
	_cleanup_(cleanup_curl) char *scheme = NULL;
	_cleanup_(cleanup_curl) char *host = NULL;
	_cleanup_(cleanup_curl) char *user = NULL;

	if (!u)
		return err_set(e, -ENOMEM, "no memory for a URL");
	if (curl_url_set(u, CURLUPART_URL, url, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
	    curl_url_get(u, CURLUPART_HOST, &host, 0) != CURLUE_OK)
		return err_set(e, -EINVAL, CONTAINER_FULL " is not a URL");
	if (curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_OK)
		return err_set(e, -EINVAL, CONTAINER_FULL " must not hold a user name");
	if (strcmp(scheme, "https") == 0)
		return 0;
	if (strcmp(scheme, "http") != 0)
		return err_set(e, -EINVAL, CONTAINER_FULL " must be an http or https URL");
	if (!host_is_local(host))
		return err_set(e, -EACCES,
			       CONTAINER_FULL
			       " uses plain http to %.80s, which is allowed only to this machine "
			       "(loopback, 169.254.170.2, 169.254.170.23, [fd00:ec2::23]); use https",
			       host);
	return 0;
}

static int container_url(const struct creds_fetch *f, char *url, size_t room, struct err *e)
{
	const char *relative = creds_env(f, CONTAINER_RELATIVE);
	const char *full = creds_env(f, CONTAINER_FULL);
	int n;

	if (relative && relative[0] != '/')
		return err_set(e, -EINVAL, CONTAINER_RELATIVE " does not begin with \"/\"");
	n = snprintf(url, room, "%s%s", relative ? CONTAINER_HOST : "", relative ? relative : full);
	if (n < 0 || (size_t)n >= room)
		return err_set(e, -ENAMETOOLONG, "%s is longer than %zu bytes",
			       relative ? CONTAINER_RELATIVE : CONTAINER_FULL, room - 1);
	return container_url_check(url, e);
}

/* The file is read anew each time: EKS rotates it. An empty result = no token is set. */
static int container_token(struct creds_fetch *f, struct creds_text *ret, struct err *e)
{
	const char *path = creds_env(f, CONTAINER_TOKEN_FILE);
	const char *token = creds_env(f, CONTAINER_TOKEN);
	int rc;

	if (path)
		return creds_token_read(f, CONTAINER_TOKEN_FILE, path, ret, e);
	rc = creds_text_init(ret, CREDS_TOKEN_MAX_BYTES);
	if (rc == 0 && token)
		rc = creds_text_add_str(ret, token);
	if (rc < 0)
		return err_set(e, rc, CONTAINER_TOKEN " cannot be kept: %s", strerror(-rc));
	for (const char *c = ret->data; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			return err_set(e, -EINVAL, CONTAINER_TOKEN " is not one line of plain text");
	return 0;
}

int creds_container(struct creds_fetch *f, struct s3_creds *ret, struct err *e)
{
	_cleanup_text_ struct creds_text token = { 0 }, body = { 0 };
	struct creds_request req = { .local = true, .connect_ms = CONNECT_MS, .total_ms = TOTAL_MS, .tries = TRIES };
	struct err why = { 0 };
	char url[URL_MAX_BYTES];
	long status;
	int rc;

	*ret = (struct s3_creds){ 0 };
	if (!creds_env(f, CONTAINER_RELATIVE) && !creds_env(f, CONTAINER_FULL)) {
		creds_looked(f, "container (neither " CONTAINER_RELATIVE " nor " CONTAINER_FULL " is set)");
		return CREDS_ABSENT;
	}
	rc = container_url(f, url, sizeof(url), e);
	if (rc == 0)
		rc = container_token(f, &token, e);
	if (rc < 0)
		return rc;
	req.url = url;
	req.ca_bundle = f->cfg->ca_bundle ? f->cfg->ca_bundle : creds_env(f, "AWS_CA_BUNDLE");
	if (token.len)
		req.headers[req.nr_headers++] = (struct creds_header){ "Authorization", token.data };
	rc = creds_http(f, &req, &body, &status, &why);
	if (rc < 0)
		return err_set(e, rc, "the container credentials endpoint: %s", why.msg);
	if (status != 200)
		return err_set(e, -EACCES, "the container credentials endpoint answers HTTP %ld", status);
	rc = s3_creds_json_parse(body.data, body.len, ret, &why);
	if (rc < 0)
		return err_set(e, rc, "the container credentials endpoint: %s", why.msg);
	return CREDS_FOUND;
}

static const char *imds_endpoint(const struct creds_fetch *f)
{
	const char *url = f->cfg->imds_endpoint ? f->cfg->imds_endpoint
						: creds_env(f, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
	const char *mode = creds_env(f, "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");

	if (url)
		return url;
	return mode && strcasecmp(mode, "IPv6") == 0 ? "http://[fd00:ec2::254]" : "http://169.254.169.254";
}

static int imds_ask(struct creds_fetch *f, struct creds_request *req, const char *path, const char *leaf,
		    struct creds_text *ret_body, long *ret_status, struct err *e)
{
	const char *base = imds_endpoint(f);
	char url[URL_MAX_BYTES];
	size_t len = strlen(base);
	int n;

	while (len && base[len - 1] == '/')
		len--;
	n = snprintf(url, sizeof(url), "%.*s%s%s", (int)len, base, path, leaf);
	if (n < 0 || (size_t)n >= sizeof(url))
		return err_set(e, -ENAMETOOLONG, "the endpoint's URL is too long");
	req->url = url;
	req->local = true;
	req->connect_ms = CONNECT_MS;
	req->total_ms = TOTAL_MS;
	return creds_http(f, req, ret_body, ret_status, e);
}

/* The session token of IMDSv2. No answer, or one of a service that has no such thing, = there is no IMDS here. */
static int imds_token(struct creds_fetch *f, struct creds_text *ret, struct err *e)
{
	struct creds_request req = {
		.method = "PUT",
		.headers = { { "X-aws-ec2-metadata-token-ttl-seconds", IMDS_TOKEN_TTL_S } },
		.nr_headers = 1,
		.tries = 1,
	};
	struct err why = { 0 };
	long status;
	int rc = imds_ask(f, &req, "/latest/api/token", "", ret, &status, &why);

	if (rc == -ETIMEDOUT || rc == -ECONNREFUSED) {
		creds_looked(f, "imds (%s gives no answer; in a container on EC2 the hop limit must be 2)",
			     imds_endpoint(f));
		return CREDS_ABSENT;
	}
	if (rc < 0)
		return err_set(e, rc, "the instance metadata service: %s", why.msg);
	if (status == 400 || status == 403 || status == 404 || status == 405) {
		creds_looked(f, "imds (%s has no IMDSv2: HTTP %ld)", imds_endpoint(f), status);
		return CREDS_ABSENT;
	}
	if (status != 200)
		return err_set(e, -EIO, "the instance metadata service answers HTTP %ld to the token request", status);
	if (!ret->len || ret->data[strcspn(ret->data, " \t\r\n")] || strlen(ret->data) != ret->len)
		return err_set(e, -EBADMSG, "the instance metadata service's token is not a word");
	return CREDS_FOUND;
}

static int imds_role(struct creds_fetch *f, struct creds_request *req, char *ret, size_t room, struct err *e)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=,.@_-";
	_cleanup_text_ struct creds_text body = { 0 };
	struct err why = { 0 };
	size_t len;
	long status;
	int rc = imds_ask(f, req, "/latest/meta-data/iam/security-credentials/", "", &body, &status, &why);

	if (rc < 0)
		return err_set(e, rc, "the instance metadata service: %s", why.msg);
	if (status == 404) {
		creds_looked(f, "imds (the instance has no role)");
		return CREDS_ABSENT;
	}
	if (status != 200)
		return err_set(e, -EIO, "the instance metadata service answers HTTP %ld when asked for the role",
			       status);
	len = strcspn(body.data, "\r\n");
	if (len == 0 || len >= room || strspn(body.data, allowed) != len)
		return err_set(e, -EBADMSG, "the instance metadata service's answer is not the name of a role");
	memcpy(ret, body.data, len);
	ret[len] = '\0';
	return CREDS_FOUND;
}

int creds_imds(struct creds_fetch *f, struct s3_creds *ret, struct err *e)
{
	_cleanup_text_ struct creds_text token = { 0 }, body = { 0 };
	const char *disabled = creds_env(f, "AWS_EC2_METADATA_DISABLED");
	struct creds_request req = { .tries = TRIES, .nr_headers = 1 };
	struct err why = { 0 };
	char role[129];
	long status;
	int rc;

	*ret = (struct s3_creds){ 0 };
	if (disabled && strcasecmp(disabled, "true") == 0) {
		creds_looked(f, "imds (AWS_EC2_METADATA_DISABLED is true)");
		return CREDS_ABSENT;
	}
	rc = imds_token(f, &token, e);
	if (rc != CREDS_FOUND)
		return rc;
	req.headers[0] = (struct creds_header){ "X-aws-ec2-metadata-token", token.data };
	rc = imds_role(f, &req, role, sizeof(role), e);
	if (rc != CREDS_FOUND)
		return rc;
	rc = imds_ask(f, &req, "/latest/meta-data/iam/security-credentials/", role, &body, &status, &why);
	if (rc < 0)
		return err_set(e, rc, "the instance metadata service: %s", why.msg);
	if (status != 200)
		return err_set(e, -EIO, "the instance metadata service answers HTTP %ld for role %s", status, role);
	rc = s3_creds_json_parse(body.data, body.len, ret, &why);
	if (rc < 0)
		return err_set(e, rc, "the instance metadata service, role %s: %s", role, why.msg);
	return CREDS_FOUND;
}
