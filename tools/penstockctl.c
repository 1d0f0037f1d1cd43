// SPDX-License-Identifier: Apache-2.0
/* penstockctl: what the volumes of this host do, from their tuning trees. */
#include "penstockctl.h"

#include <stdlib.h>
#include <string.h>

#include <penstock/version.h>

#include "base/cleanup.h"
#include "base/log.h"

static const struct verb verbs[] = {
	{ "ls", "[--json]", "the volumes of this host", verb_ls },
	{ "stat", "ID|PATH [--json]", "every value of a volume", verb_stat },
	{ "top", "[ID|PATH...] [--interval S] [--once] [--json]", "what the volumes do, each second", verb_top },
	{ "warm", "DIR|PATTERN... [--jobs N] [--json]", "read files ahead of their readers", verb_warm },
	{ "doctor", "[--fix] [--json]", "what this host offers, and what would give more", verb_doctor },
	{ "profile", "show [NAME]|export NAME FILE|import FILE|drop NAME", "recorded loads", verb_profile },
	{ "trace", "unload", "take the tracer of this host away", verb_trace },
};

static void usage(FILE *out)
{
	fprintf(out, "usage: penstockctl VERB [ARGUMENT...] [OPTION...]\n\n");
	for (size_t i = 0; i < array_len(verbs); i++)
		fprintf(out, "  %-7s %-46s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].help);
	fprintf(out,
		"\nID is a volume's id (penstockctl ls), PATH any path on a mounted volume.\n\n"
		"  --json             print JSON\n"
		"  --interval S       seconds between two looks (1)\n"
		"  --once             one look, then end\n"
		"  --jobs N           files read at once (8)\n"
		"  --profile-dir DIR  where recorded loads are (profiles/ below $PENSTOCK_RUN_DIR)\n"
		"  --svg FILE         profile show: draw it\n"
		"  --fix              change the host-wide settings that doctor advises, and say so\n"
		"  --log-level L      error, warn, info or debug\n"
		"  --log-format F     text or json\n"
		"  --help, --version\n\n"
		"Exit status: 0 fine; 1 it failed, or doctor found what does not work; 2 wrong use.\n"
		"Volumes are looked for below $PENSTOCK_RUN_DIR (/run/penstock).\n");
}

int tool_fail(const struct err *e, int status)
{
	fprintf(stderr, "penstockctl: %s\n", e->msg);
	return status;
}

/* Options that every verb takes. */
static int common_take(const char *name, const char *value, struct err *e)
{
	static enum log_level level = LOG_LEVEL_WARN;
	static enum log_format format = LOG_FORMAT_TEXT;

	if (strcmp(name, "log-level") == 0 && log_level_parse(value, &level) < 0)
		return err_set(e, -EINVAL, "--log-level %s: give error, warn, info or debug", value);
	if (strcmp(name, "log-format") == 0 && log_format_parse(value, &format) < 0)
		return err_set(e, -EINVAL, "--log-format %s: give text or json", value);
	log_setup(level, format, STDERR_FILENO);
	return 0;
}

static int opt_take(const struct opt *o, const char *given, int *i, int argc, char **argv, struct err *e)
{
	const char *value = strchr(given, '=');

	if (o->flag) {
		if (value)
			return err_set(e, -EINVAL, "--%s takes no value", o->name);
		*o->flag = true;
		return 0;
	}
	if (value)
		value++;
	else if (*i + 1 < argc)
		value = argv[++*i];
	else
		return err_set(e, -EINVAL, "--%s needs a value", o->name);
	if (!o->value)
		return common_take(o->name, value, e);
	*o->value = value;
	return 0;
}

static const struct opt *opt_find(const struct opt *opts, size_t nr, const char *given)
{
	size_t len = strcspn(given, "=");

	for (size_t i = 0; i < nr; i++) {
		if (strlen(opts[i].name) == len && strncmp(opts[i].name, given, len) == 0)
			return &opts[i];
	}
	return NULL;
}

int opts_parse(const struct opt *opts, size_t nr, int *argc, char **argv, struct err *e)
{
	static const struct opt common[] = { { .name = "log-level" }, { .name = "log-format" } };
	bool all_arguments = false;
	const struct opt *o;
	int kept = 0, rc;

	for (int i = 0; i < *argc; i++) {
		if (all_arguments || argv[i][0] != '-' || !argv[i][1]) {
			argv[kept++] = argv[i];
			continue;
		}
		if (strcmp(argv[i], "--") == 0) {
			all_arguments = true;
			continue;
		}
		o = NULL;
		if (argv[i][1] == '-') {
			o = opt_find(opts, nr, argv[i] + 2);
			if (!o)
				o = opt_find(common, array_len(common), argv[i] + 2);
		}
		if (!o)
			return err_set(e, -EINVAL, "%s is no option of this verb; see penstockctl --help", argv[i]);
		rc = opt_take(o, argv[i] + 2, &i, *argc, argv, e);
		if (rc < 0)
			return rc;
	}
	*argc = kept;
	return 0;
}

int main(int argc, char **argv)
{
	struct err e = { 0 };

	log_setup(LOG_LEVEL_WARN, LOG_FORMAT_TEXT, STDERR_FILENO);
	for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			usage(stdout);
			return EXIT_FINE;
		}
		if (strcmp(argv[i], "--version") == 0) {
			printf("penstockctl %s\n", PENSTOCK_VERSION);
			return EXIT_FINE;
		}
	}
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < array_len(verbs); i++) {
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].run(argc - 2, argv + 2);
	}
	err_set(&e, -EINVAL, "\"%s\" is no verb; penstockctl --help lists them", argv[1]);
	return tool_fail(&e, EXIT_USAGE);
}
