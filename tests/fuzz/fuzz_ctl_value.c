// SPDX-License-Identifier: Apache-2.0
/*
 * Any bytes as a write to each value of the tuning tree: refused with EINVAL and nothing changed, or taken and printed
 * as text that means the same. The same bytes as an HTTP request for the metrics.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/metrics.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void value_try(const struct ctl_spec *s, const char *text)
{
	struct ctl_cell v = { .number = 77, .text = "before" }, again = { 0 };
	_cleanup_buf_ struct buf out;
	int rc = ctl_value_parse(s, text, &v);

	buf_init(&out, CTL_SHOW_MAX_BYTES);
	if (rc == -EINVAL) {
		if (v.number != 77 || strcmp(v.text, "before") != 0)
			abort();
		return;
	}
	if (rc != 0 || !text[0] || !ctl_kind_writable(s->kind) || v.number < s->min || v.number > s->max)
		abort();
	if (ctl_value_print(s, &v, &out) < 0 || out.data[out.len - 1] != '\n')
		abort();
	out.data[--out.len] = '\0';
	if (ctl_value_parse(s, out.data, &again) < 0 || again.number != v.number)
		abort();
}

static int text_store(void *ctx, const struct ctl_attr *a, const char *text)
{
	for (size_t i = 0; i < CTL_NR_VALUES; i++)
		value_try(&ctl_specs[i], text);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ctl_attr a = { .dir = "", .name = "fuzz", .mode = 0644, .store = text_store };
	enum metrics_request request = metrics_request_parse((const char *)data, size);
	int rc = ctl_attr_write(&a, NULL, (const char *)data, size);

	if ((rc != 0 && rc != -EINVAL) || request > METRICS_BAD)
		abort();
	return 0;
}
