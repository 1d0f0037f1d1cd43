// SPDX-License-Identifier: Apache-2.0
/* S3's small XML documents (errors, STS replies) and the values that XML and headers share: dates, ETags, classes. */
#define _GNU_SOURCE
#include "s3/xml.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "s3/xml_i.h"

#define SMALL_DOCUMENT_MAX_BYTES (1024 * 1024)

enum overflow { OVERFLOW_CUTS = 0, OVERFLOW_FAILS };

struct flat_field {
	const char *name;
	char *dst;
	size_t room;
	enum overflow overflow;
	size_t len;
};

/* A document whose wanted fields are the children of one element, the root itself or one below it. */
struct flat {
	struct xml_guard xml;
	const char *root, *other_root; /* what the root may be called; other_root may be NULL */
	const char *parent;
	unsigned parent_depth; /* 0 = not inside */
	bool parent_seen;
	struct flat_field *fields;
	size_t nr_fields;
	struct flat_field *field; /* being read */
};

enum s3_storage_class s3_storage_class_parse(const char *text)
{
	if (!*text || !strcmp(text, "STANDARD"))
		return S3_CLASS_STANDARD;
	if (!strcmp(text, "GLACIER"))
		return S3_CLASS_GLACIER;
	if (!strcmp(text, "DEEP_ARCHIVE"))
		return S3_CLASS_DEEP_ARCHIVE;
	return S3_CLASS_OTHER;
}

bool s3_storage_class_archived(enum s3_storage_class c)
{
	return c == S3_CLASS_GLACIER || c == S3_CLASS_DEEP_ARCHIVE || c == S3_CLASS_INTELLIGENT_ARCHIVE;
}

int s3_etag_parse(const char *text, size_t len, char ret[S3_ETAG_MAX + 1])
{
	if (len >= 2 && text[0] == 'W' && text[1] == '/') {
		text += 2;
		len -= 2;
	}
	if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
		text++;
		len -= 2;
	}
	if (len > S3_ETAG_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f || text[i] == '"')
			return -EBADMSG;
	memcpy(ret, text, len);
	ret[len] = '\0';
	return 0;
}

void s3_text_copy(char *dst, size_t room, const char *src, size_t len)
{
	len = min_of(len, room - 1);
	for (size_t i = 0; i < len; i++)
		dst[i] = (unsigned char)src[i] < 0x20 || src[i] == 0x7f ? '?' : src[i];
	dst[len] = '\0';
}

static bool digits_parse(const char **p, int nr, int *ret)
{
	int v = 0;

	for (; nr; nr--, (*p)++) {
		if (**p < '0' || **p > '9')
			return false;
		v = v * 10 + (**p - '0');
	}
	*ret = v;
	return true;
}

static bool literal_parse(const char **p, char c)
{
	return *(*p)++ == c;
}

struct date {
	int year, month, day, hour, minute, second;
};

/* Days since 1970-01-01 of the Gregorian calendar; years begin in March so that the leap day comes last. */
static int64_t date_days(const struct date *d)
{
	int64_t y = d->year - (d->month <= 2);
	int64_t month = (d->month + 9) % 12;

	return y * 365 + y / 4 - y / 100 + y / 400 + (month * 153 + 2) / 5 + d->day - 1 - 719468;
}

static int date_seconds(const struct date *d, time_t *ret)
{
	static const int month_days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (d->year % 4 == 0 && d->year % 100) || d->year % 400 == 0;

	if (d->year < 1 || d->month < 1 || d->month > 12 || d->day < 1 || d->day > month_days[d->month - 1])
		return -EINVAL;
	if ((d->month == 2 && d->day == 29 && !leap) || d->hour > 23 || d->minute > 59 || d->second > 60)
		return -EINVAL;
	*ret = date_days(d) * 86400 + d->hour * 3600 + d->minute * 60 + d->second;
	return 0;
}

static bool clock_parse(const char **p, struct date *d)
{
	return digits_parse(p, 2, &d->hour) && literal_parse(p, ':') && digits_parse(p, 2, &d->minute) &&
	       literal_parse(p, ':') && digits_parse(p, 2, &d->second);
}

int s3_time_parse_iso(const char *text, time_t *ret)
{
	const char *p = text;
	struct date d;

	if (!digits_parse(&p, 4, &d.year) || !literal_parse(&p, '-') || !digits_parse(&p, 2, &d.month) ||
	    !literal_parse(&p, '-') || !digits_parse(&p, 2, &d.day) || !literal_parse(&p, 'T') || !clock_parse(&p, &d))
		return -EINVAL;
	if (*p == '.') {
		size_t digits = strspn(p + 1, "0123456789");

		if (!digits)
			return -EINVAL;
		p += 1 + digits;
	}
	return strcmp(p, "Z") ? -EINVAL : date_seconds(&d, ret);
}

int s3_time_parse_http(const char *text, time_t *ret)
{
	static const char days[] = "Sun,Mon,Tue,Wed,Thu,Fri,Sat,";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	const char *p = text;
	struct date d;

	for (d.day = 0; d.day < 7 && strncmp(p, days + d.day * 4, 4); d.day++)
		;
	if (d.day == 7)
		return -EINVAL;
	p += 4;
	if (!literal_parse(&p, ' ') || !digits_parse(&p, 2, &d.day) || !literal_parse(&p, ' '))
		return -EINVAL;
	for (d.month = 1; d.month <= 12 && strncmp(p, months + (d.month - 1) * 3, 3); d.month++)
		;
	if (d.month > 12)
		return -EINVAL;
	p += 3;
	if (!literal_parse(&p, ' ') || !digits_parse(&p, 4, &d.year) || !literal_parse(&p, ' ') || !clock_parse(&p, &d))
		return -EINVAL;
	return strcmp(p, " GMT") ? -EINVAL : date_seconds(&d, ret);
}

static void flat_start(void *ctx, const char *name, unsigned depth)
{
	struct flat *f = ctx;

	if (f->field || (depth == 1 && strcmp(name, f->root) && (!f->other_root || strcmp(name, f->other_root)))) {
		xml_guard_fail(&f->xml, -EBADMSG);
		return;
	}
	if (!f->parent_depth && !f->parent_seen && !strcmp(name, f->parent)) {
		f->parent_depth = depth;
		f->parent_seen = true;
		return;
	}
	if (!f->parent_depth || depth != f->parent_depth + 1)
		return;
	for (size_t i = 0; i < f->nr_fields; i++)
		if (!strcmp(f->fields[i].name, name))
			f->field = &f->fields[i];
	if (f->field)
		f->field->len = 0;
}

static void flat_text(void *ctx, const char *s, size_t len, unsigned depth)
{
	struct flat *f = ctx;
	struct flat_field *field = f->field;

	if (!field)
		return;
	if (len >= field->room - field->len) {
		if (field->overflow == OVERFLOW_FAILS) {
			xml_guard_fail(&f->xml, -EBADMSG);
			return;
		}
		len = field->room - field->len - 1;
	}
	memcpy(field->dst + field->len, s, len);
	field->len += len;
}

static void flat_end(void *ctx, unsigned depth)
{
	struct flat *f = ctx;

	if (f->field)
		f->field->dst[f->field->len] = '\0';
	f->field = NULL;
	if (depth == f->parent_depth)
		f->parent_depth = 0;
}

/* Every dst must hold "" before. */
static int flat_parse(struct flat *f, const void *bytes, size_t len)
{
	int rc;

	f->xml = (struct xml_guard){
		.ctx = f,
		.max_bytes = SMALL_DOCUMENT_MAX_BYTES,
		.start = flat_start,
		.text = flat_text,
		.end = flat_end,
	};
	rc = xml_guard_init(&f->xml);
	if (rc < 0)
		return rc;
	rc = xml_guard_feed(&f->xml, bytes, len);
	if (!rc)
		rc = xml_guard_finish(&f->xml);
	xml_guard_done(&f->xml);
	if (!rc && !f->parent_seen)
		rc = -EBADMSG;
	return rc;
}

int s3_error_parse(const void *bytes, size_t len, struct s3_error_body *ret)
{
	struct s3_error_body body = { 0 };
	struct flat_field fields[] = {
		{ "Code", body.code, sizeof(body.code), OVERFLOW_CUTS, 0 },
		{ "Message", body.message, sizeof(body.message), OVERFLOW_CUTS, 0 },
		{ "Region", body.region, sizeof(body.region), OVERFLOW_FAILS, 0 },
		{ "Endpoint", body.endpoint, sizeof(body.endpoint), OVERFLOW_FAILS, 0 },
		{ "RequestId", body.request_id, sizeof(body.request_id), OVERFLOW_CUTS, 0 },
	};
	struct flat f = {
		.root = "Error",
		.other_root = "ErrorResponse", /* STS */
		.parent = "Error",
		.fields = fields,
		.nr_fields = array_len(fields),
	};
	int rc;

	*ret = (struct s3_error_body){ 0 };
	rc = flat_parse(&f, bytes, len);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < array_len(fields); i++)
		s3_text_copy(fields[i].dst, fields[i].room, fields[i].dst, fields[i].len);
	*ret = body;
	return 0;
}

struct sts_reply {
	struct s3_creds creds;
	char secret_key[256];
	char session_token[SECRET_MAX_BYTES + 1];
	char expiration[64];
};

static int sts_reply_take(struct sts_reply *r, struct s3_creds *ret)
{
	struct s3_creds *c = &r->creds;
	int rc;

	if (!c->access_key_id[0] || !r->secret_key[0] || !r->session_token[0] ||
	    s3_time_parse_iso(r->expiration, &c->expires) < 0)
		return -EBADMSG;
	rc = secret_set(&c->secret_key, r->secret_key, strlen(r->secret_key));
	if (!rc)
		rc = secret_set(&c->session_token, r->session_token, strlen(r->session_token));
	if (!rc)
		rc = s3_creds_copy(ret, c);
	s3_creds_wipe(c);
	return rc;
}

int s3_sts_parse(const void *bytes, size_t len, struct s3_creds *ret)
{
	struct sts_reply r = { 0 };
	struct flat_field fields[] = {
		{ "AccessKeyId", r.creds.access_key_id, sizeof(r.creds.access_key_id), OVERFLOW_FAILS, 0 },
		{ "SecretAccessKey", r.secret_key, sizeof(r.secret_key), OVERFLOW_FAILS, 0 },
		{ "SessionToken", r.session_token, sizeof(r.session_token), OVERFLOW_FAILS, 0 },
		{ "Expiration", r.expiration, sizeof(r.expiration), OVERFLOW_FAILS, 0 },
	};
	struct flat f = {
		.root = "AssumeRoleWithWebIdentityResponse",
		.parent = "Credentials",
		.fields = fields,
		.nr_fields = array_len(fields),
	};
	int rc;

	rc = flat_parse(&f, bytes, len);
	if (!rc)
		rc = sts_reply_take(&r, ret);
	explicit_bzero(&r, sizeof(r));
	return rc;
}
