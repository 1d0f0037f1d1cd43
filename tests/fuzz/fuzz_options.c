// SPDX-License-Identifier: Apache-2.0
/*
 * Any command line and any --config text ends in options within their ranges or in one sentence.
 *
 * The first byte chooses: 'c' config text; 'm' arguments of mount.penstock, else of penstock, one a line.
 */
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"
#include "daemon/options.h"
#include "daemon/options_i.h"

#define ARGS_MAX 32

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(int rc, const struct options *o, const struct err *e)
{
	if (rc < 0 && (!e->msg[0] || strchr(e->msg, '\n')))
		__builtin_trap();
	if (rc < 0 || o->verb != VERB_MOUNT)
		return;
	if (o->mount_point[0] != '/' || !o->uri.bucket[0] || !o->volume_id[0] || strlen(o->volume_id) > 251 ||
	    o->file_mode > 0777 || o->dir_mode > 0777 || o->hedge_percent > 100 || o->transport > TRANSPORT_DEV ||
	    (o->memory_bytes && o->memory_bytes < OPT_MEMORY_MIN_BYTES))
		__builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct options o;
	_cleanup_free_ char *text = NULL;
	char *argv[ARGS_MAX + 1] = { "penstock" };
	struct err e = { 0 };
	uint64_t given;
	int argc = 1;

	if (len < 1)
		return 0;
	text = malloc(len);
	if (!text)
		return 0;
	memcpy(text, data + 1, len - 1);
	text[len - 1] = '\0';
	if (data[0] == 'c') {
		memset(&o, 0, sizeof(o));
		if (option_config_apply(text, len - 1, "file", &o, &given, &e) < 0 && !e.msg[0])
			__builtin_trap();
		return 0;
	}
	if (data[0] == 'm')
		argv[0] = "mount.penstock";
	for (char *line = text; line && argc < ARGS_MAX;) {
		argv[argc++] = line;
		line = strchr(line, '\n');
		if (line)
			*line++ = '\0';
	}
	check(options_parse(argc, argv, &o, &e), &o, &e);
	return 0;
}
