// SPDX-License-Identifier: Apache-2.0
/* Values of the tuning tree as text: strict when read, one line when written. */
#include "ctl/value.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/size.h"

static int word_parse(const struct ctl_spec *s, const char *text, uint64_t *ret)
{
	for (uint64_t i = 0; i <= s->max; i++) {
		if (strcmp(s->words[i], text) == 0) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

/* "01" is no answer to yes or no. */
static int bool_parse(const char *text, uint64_t *ret)
{
	if ((text[0] != '0' && text[0] != '1') || text[1] != '\0')
		return -EINVAL;
	*ret = (uint64_t)(text[0] - '0');
	return 0;
}

int ctl_value_parse(const struct ctl_spec *s, const char *text, struct ctl_cell *ret)
{
	uint64_t number;
	int rc;

	switch (s->kind) {
	case CTL_BOOL:
		rc = bool_parse(text, &number);
		break;
	case CTL_NUMBER:
		rc = number_parse(text, s->min, s->max, &number);
		break;
	case CTL_SIZE:
		rc = size_parse(text, &number);
		break;
	case CTL_WORD:
		rc = word_parse(s, text, &number);
		break;
	default:
		return -EINVAL;
	}
	if (rc < 0 || number < s->min || number > s->max)
		return -EINVAL;
	ret->number = number;
	ret->text[0] = '\0';
	return 0;
}

static int text_print(const char *text, struct buf *out)
{
	size_t from = out->len;
	int rc = buf_addf(out, "%s\n", text);

	if (rc < 0)
		return rc;
	for (char *p = out->data + from; p < out->data + out->len - 1; p++) {
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	}
	return 0;
}

int ctl_value_print(const struct ctl_spec *s, const struct ctl_cell *v, struct buf *out)
{
	if (s->kind == CTL_TEXT)
		return text_print(v->text, out);
	if (s->kind == CTL_WORD)
		return v->number <= s->max ? buf_addf(out, "%s\n", s->words[v->number]) : -EINVAL;
	return buf_addf(out, "%" PRIu64 "\n", v->number);
}
