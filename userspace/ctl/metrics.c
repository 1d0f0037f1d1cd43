// SPDX-License-Identifier: Apache-2.0
/* Values as Prometheus text. */
#include "ctl/metrics.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/cleanup.h"

static int label_add(const char *text, struct buf *out)
{
	int rc = 0;

	for (; *text && rc >= 0; text++) {
		if (*text == '\\' || *text == '"')
			rc = buf_addf(out, "\\%c", *text);
		else
			rc = *text == '\n' ? buf_add_str(out, "\\n") : buf_add(out, text, 1);
	}
	return rc;
}

static int value_add(const struct ctl_spec *s, const struct ctl_cell *v, const char *volume_id, struct buf *out)
{
	bool counter = s->kind == CTL_COUNTER;
	char name[128];
	int rc;

	snprintf(name, sizeof(name), "penstock_%s%s%s%s", s->dir, s->dir[0] ? "_" : "", s->name,
		 counter ? "_total" : "");
	rc = buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s{volume=\"", name, s->help, name,
		      counter ? "counter" : "gauge", name);
	if (rc >= 0)
		rc = label_add(volume_id, out);
	return rc < 0 ? rc : buf_addf(out, "\"} %" PRIu64 "\n", v->number);
}

int metrics_print(const struct ctl_ops *ops, const char *volume_id, struct buf *out)
{
	int rc = 0;

	for (size_t i = 0; i < CTL_NR_VALUES && rc >= 0; i++) {
		const struct ctl_spec *s = &ctl_specs[i];
		struct ctl_cell v = { 0 };

		if (s->kind != CTL_TEXT && s->kind != CTL_WORD && ops->get(ops->ctx, s->which, &v) >= 0)
			rc = value_add(s, &v, volume_id, out);
	}
	return min_of(rc, 0);
}
