// SPDX-License-Identifier: Apache-2.0
/* Any bytes as an index file, and their lines as the names in a directory. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "prefetch/format.h"

#define NAMES_MAX 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_index(const uint8_t *data, size_t size)
{
	struct format_index index;
	struct err e = { 0 };
	int rc = format_index_parse((const char *)data, size, &index, &e);

	if (rc < 0 ? !e.msg[0] || index.nr : !index.nr)
		abort();
	for (size_t i = 0; i < index.nr; i++) {
		const char *name = index.shard[i];

		if (!*name || strlen(name) > 255 || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
			abort();
		if (i && format_name_compare(index.shard[i - 1], name) >= 0)
			abort();
	}
	format_index_done(&index);
}

static void check_model(const char *const *name, size_t nr)
{
	struct format_model m;

	if (format_model_find(name, nr, &m) == 0) {
		if (m.index >= (int64_t)nr || (m.index < 0 && !m.nr))
			abort();
		for (size_t i = 0; i < m.nr; i++) {
			if (m.file[i] >= nr || (i && format_name_compare(name[m.file[i - 1]], name[m.file[i]]) > 0))
				abort();
		}
	}
	format_model_done(&m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *name[NAMES_MAX];
	char *text = malloc(size + 1), *rest = text;
	size_t nr = 0;

	if (!text)
		abort();
	check_index(data, size);
	memcpy(text, data, size);
	text[size] = '\0';
	while (nr < NAMES_MAX && rest)
		name[nr++] = strsep(&rest, "\n");
	for (size_t i = 1; i < nr; i++) {
		int order = format_name_compare(name[i - 1], name[i]), back = format_name_compare(name[i], name[i - 1]);

		if ((order > 0) != (back < 0) || !order != !strcmp(name[i - 1], name[i]))
			abort();
	}
	check_model(name, nr);
	free(text);
	return 0;
}
