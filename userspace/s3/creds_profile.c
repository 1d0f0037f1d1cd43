// SPDX-License-Identifier: Apache-2.0
/*
 * The ini dialect of the AWS credentials and config files. Pure: fed with bytes, keeps one profile.
 *
 * Rules: "#" and ";" open a comment at the start of a line, or behind white space in a value. A line indented deeper
 * than the key above it belongs to that key (the nested settings of "s3 ="). Sections of one name are merged and
 * the later value wins; in a config file "[profile default]" wins over "[default]".
 */
#include "s3/creds.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"

#define LINE_MAX_BYTES (2 * SECRET_MAX_BYTES)

struct span {
	const char *at;
	size_t len;
};

struct parser {
	const char *profile;
	bool is_config;
	struct s3_profile_values *v;
	struct err *e;
	unsigned line;
	bool in_section; /* any section has begun */
	bool wanted;     /* ... and it is ours */
	bool prefixed;   /* "[profile default]" was seen: "[default]" no longer counts */
	bool in_key;     /* a key was read in this section */
	bool key_used;   /* ... and its value was kept */
	size_t key_indent;
	char key[64];
};

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static struct span trim(struct span s)
{
	while (s.len && blank(s.at[0])) {
		s.at++;
		s.len--;
	}
	while (s.len && blank(s.at[s.len - 1]))
		s.len--;
	return s;
}

static bool span_is(struct span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static int bad_line(struct parser *p, const char *what)
{
	return err_set(p->e, -EBADMSG, "line %u: %s", p->line, what);
}

static int keep_text(struct parser *p, char *room, size_t size, struct span value)
{
	if (value.len >= size)
		return err_set(p->e, -EBADMSG, "line %u: %s is longer than %zu bytes", p->line, p->key, size - 1);
	memcpy(room, value.at, value.len);
	room[value.len] = '\0';
	return 0;
}

static int keep_secret(struct parser *p, struct secret *s, struct span value)
{
	int rc;

	if (!value.len) {
		secret_wipe(s);
		return 0;
	}
	rc = secret_set(s, value.at, value.len);
	if (rc == -E2BIG)
		return err_set(p->e, -EBADMSG, "line %u: %s is longer than %d bytes", p->line, p->key,
			       SECRET_MAX_BYTES);
	return rc < 0 ? err_set(p->e, rc, "no memory for a secret") : 0;
}

static bool is_login_key(const char *key)
{
	static const char *const keys[] = { "sso_session", "sso_start_url", "sso_account_id", "sso_role_name",
					    "login_session" };

	for (size_t i = 0; i < array_len(keys); i++)
		if (strcmp(key, keys[i]) == 0)
			return true;
	return false;
}

/* Sets key_used where the key is one of ours. */
static int keep_value(struct parser *p, struct span value)
{
	struct s3_profile_values *v = p->v;
	const struct {
		const char *key;
		char *room;
		size_t size;
	} texts[] = {
		{ "aws_access_key_id", v->access_key_id, sizeof(v->access_key_id) },
		{ "region", v->region, sizeof(v->region) },
		{ "credential_process", v->credential_process, sizeof(v->credential_process) },
		{ "role_arn", v->role_arn, sizeof(v->role_arn) },
		{ "web_identity_token_file", v->web_identity_token_file, sizeof(v->web_identity_token_file) },
		{ "role_session_name", v->role_session_name, sizeof(v->role_session_name) },
		{ "endpoint_url", v->endpoint_url, sizeof(v->endpoint_url) },
		{ "ca_bundle", v->ca_bundle, sizeof(v->ca_bundle) },
	};

	p->key_used = true;
	if (strcmp(p->key, "aws_secret_access_key") == 0)
		return keep_secret(p, &v->secret_key, value);
	if (strcmp(p->key, "aws_session_token") == 0)
		return keep_secret(p, &v->session_token, value);
	for (size_t i = 0; i < array_len(texts); i++)
		if (strcmp(p->key, texts[i].key) == 0)
			return keep_text(p, texts[i].room, texts[i].size, value);
	p->key_used = false;
	if (value.len && is_login_key(p->key))
		snprintf(v->login_key, sizeof(v->login_key), "%.31s", p->key);
	return 0;
}

/* "profile NAME" or "profile "NAME"": the name, else an empty span. */
static struct span prefixed_name(struct span s)
{
	static const char word[] = "profile";
	const size_t skip = sizeof(word) - 1;

	if (s.len <= skip || memcmp(s.at, word, skip) != 0 || !blank(s.at[skip]))
		return (struct span){ 0 };
	s = trim((struct span){ s.at + skip, s.len - skip });
	if (s.len >= 2 && (s.at[0] == '"' || s.at[0] == '\'') && s.at[s.len - 1] == s.at[0])
		s = (struct span){ s.at + 1, s.len - 2 };
	return s;
}

static void section_begin(struct parser *p, struct span name)
{
	struct span prefixed = prefixed_name(name);
	bool is_default = strcmp(p->profile, "default") == 0;

	p->in_section = true;
	p->in_key = false;
	p->wanted = span_is(name, p->profile);
	if (p->is_config)
		p->wanted = prefixed.len ? span_is(prefixed, p->profile) : p->wanted && is_default && !p->prefixed;
	if (!p->wanted)
		return;
	if (p->is_config && is_default && prefixed.len && !p->prefixed) {
		p->prefixed = true;
		s3_profile_values_wipe(p->v);
	}
	p->v->found = true;
}

static int section_line(struct parser *p, struct span line)
{
	const char *end = memchr(line.at, ']', line.len);
	struct span rest, name;

	if (!end)
		return bad_line(p, "a section has no closing \"]\"");
	name = trim((struct span){ line.at + 1, (size_t)(end - line.at) - 1 });
	rest = trim((struct span){ end + 1, line.len - (size_t)(end - line.at) - 1 });
	if (!name.len)
		return bad_line(p, "a section has no name");
	if (rest.len && rest.at[0] != '#' && rest.at[0] != ';')
		return bad_line(p, "there is text behind a section's \"]\"");
	section_begin(p, name);
	return 0;
}

static struct span without_comment(struct span s)
{
	for (size_t i = 0; i < s.len; i++)
		if ((s.at[i] == '#' || s.at[i] == ';') && (i == 0 || blank(s.at[i - 1])))
			s.len = i;
	return trim(s);
}

static int key_line(struct parser *p, struct span line)
{
	const char *sign = memchr(line.at, '=', line.len);
	struct span key, value;

	if (!p->in_section)
		return bad_line(p, "a setting stands before the first [section]");
	if (!sign)
		return bad_line(p, "it is neither a [section], nor KEY = VALUE, nor a comment");
	key = trim((struct span){ line.at, (size_t)(sign - line.at) });
	if (!key.len)
		return bad_line(p, "there is no key before \"=\"");
	p->in_key = true;
	p->key_used = false;
	if (!p->wanted || key.len >= sizeof(p->key))
		return 0;
	for (size_t i = 0; i < key.len; i++)
		p->key[i] = key.at[i] >= 'A' && key.at[i] <= 'Z' ? (char)(key.at[i] | 0x20) : key.at[i];
	p->key[key.len] = '\0';
	value = (struct span){ sign + 1, line.len - (size_t)(sign - line.at) - 1 };
	return keep_value(p, without_comment(value));
}

static int parse_line(struct parser *p, struct span raw)
{
	struct span line = trim(raw);
	size_t indent;

	if (raw.len > LINE_MAX_BYTES)
		return bad_line(p, "it is too long");
	if (memchr(raw.at, '\0', raw.len))
		return bad_line(p, "it holds a zero byte");
	if (!line.len || line.at[0] == '#' || line.at[0] == ';')
		return 0;
	indent = (size_t)(line.at - raw.at);
	if (p->in_key && indent > p->key_indent) {
		if (p->key_used)
			return err_set(p->e, -EBADMSG, "line %u: %s must be written on one line", p->line, p->key);
		return 0;
	}
	if (line.at[0] == '[')
		return section_line(p, line);
	p->key_indent = indent;
	return key_line(p, line);
}

int s3_profile_parse(const char *bytes, size_t len, const char *profile, bool is_config, struct s3_profile_values *ret,
		     struct err *e)
{
	struct parser p = { .profile = profile, .is_config = is_config, .v = ret, .e = e };
	const char *at = bytes, *end = bytes + len;

	*ret = (struct s3_profile_values){ 0 };
	if (len >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
		at += 3;
	while (at < end) {
		const char *eol = memchr(at, '\n', (size_t)(end - at));
		const char *stop = eol ? eol : end;
		int rc;

		p.line++;
		rc = parse_line(&p, (struct span){ at, (size_t)(stop - at) });
		if (rc < 0) {
			s3_profile_values_wipe(ret);
			return rc;
		}
		at = eol ? eol + 1 : end;
	}
	return 0;
}

void s3_profile_values_wipe(struct s3_profile_values *v)
{
	secret_wipe(&v->secret_key);
	secret_wipe(&v->session_token);
	explicit_bzero(v, sizeof(*v));
}
