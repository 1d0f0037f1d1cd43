// SPDX-License-Identifier: Apache-2.0
/* Sizes, counts and durations as people write them, parsed without rounding surprises or overflow. */
#include "base/size.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <strings.h>

#include "base/cleanup.h"

/* Digits of a fraction that count: more would overflow 64 bits and change nothing a person could mean. */
#define FRACTION_DIGITS 18

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{ "K", 1ULL << 10 },   { "M", 1ULL << 20 },   { "G", 1ULL << 30 },     { "T", 1ULL << 40 },
	{ "KiB", 1ULL << 10 }, { "MiB", 1ULL << 20 }, { "GiB", 1ULL << 30 },   { "TiB", 1ULL << 40 },
	{ "KB", 1000ULL },     { "MB", 1000000ULL },  { "GB", 1000000000ULL }, { "TB", 1000000000000ULL },
};

static const struct unit duration_units[] = {
	{ "", 1000000000ULL },       { "ms", 1000000ULL },          { "s", 1000000000ULL },
	{ "m", 60 * 1000000000ULL }, { "h", 3600 * 1000000000ULL },
};

struct decimal {
	uint64_t whole;
	uint64_t fraction, scale; /* fraction / scale is below 1; scale 1 = none written */
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int whole_parse(const char **p, uint64_t *ret)
{
	uint64_t v = 0;
	int rc = 0;

	if (!is_digit(**p))
		return -EINVAL;
	for (; is_digit(**p); (*p)++)
		if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(**p - '0'), &v))
			rc = -ERANGE;
	*ret = v;
	return rc;
}

/* Reads to the first byte that is not part of the number, also when the number is out of range. */
static int decimal_parse(const char **p, struct decimal *ret)
{
	int digits = 0, rc;

	*ret = (struct decimal){ .scale = 1 };
	rc = whole_parse(p, &ret->whole);
	if (rc == -EINVAL || **p != '.')
		return rc;
	(*p)++;
	if (!is_digit(**p))
		return -EINVAL;
	for (; is_digit(**p); (*p)++) {
		if (digits++ >= FRACTION_DIGITS)
			continue;
		ret->fraction = ret->fraction * 10 + (uint64_t)(**p - '0');
		ret->scale *= 10;
	}
	return rc;
}

static int decimal_scale(const struct decimal *d, uint64_t factor, uint64_t *ret)
{
	unsigned __int128 v = (unsigned __int128)d->whole * factor + (unsigned __int128)d->fraction * factor / d->scale;

	if (v > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

static const struct unit *unit_find(const struct unit *table, size_t nr, const char *name)
{
	for (size_t i = 0; i < nr; i++)
		if (!strcasecmp(table[i].name, name))
			return &table[i];
	return NULL;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	const struct unit *u;
	struct decimal d;
	int rc;

	rc = decimal_parse(&text, &d);
	if (rc == -EINVAL)
		return rc;
	/* Without a unit the number counts bytes, and there is no half a byte. */
	if (*text == '\0')
		return d.scale > 1 ? -EINVAL : rc ? rc : decimal_scale(&d, 1, ret_bytes);
	u = unit_find(size_units, array_len(size_units), text);
	if (!u)
		return -EINVAL;
	return rc ? rc : decimal_scale(&d, u->factor, ret_bytes);
}

int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value)
{
	uint64_t v;
	int rc;

	rc = whole_parse(&text, &v);
	if (rc == -EINVAL || *text != '\0')
		return -EINVAL;
	if (rc < 0 || v < min || v > max)
		return -ERANGE;
	*ret_value = v;
	return 0;
}

int duration_parse(const char *text, uint64_t *ret_ns)
{
	const struct unit *u;
	struct decimal d;
	int rc;

	rc = decimal_parse(&text, &d);
	if (rc == -EINVAL)
		return rc;
	u = unit_find(duration_units, array_len(duration_units), text);
	if (!u)
		return -EINVAL;
	return rc ? rc : decimal_scale(&d, u->factor, ret_ns);
}
