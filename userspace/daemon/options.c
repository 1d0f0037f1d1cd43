// SPDX-License-Identifier: Apache-2.0
/*
 * The command line: argv, -o lists, the environment, and what must fit together.
 *
 * Design: argv is walked once to find --config; where there is one, the file is applied first and argv
 * a second time, so that the command line wins without a record of who set what.
 */
#include "daemon/options.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/features.h"
#include "daemon/options_i.h"

#define WORDS_MAX 4

struct parse {
	struct options *o;
	struct err *e;
	bool helper; /* run as mount.penstock */
	bool sloppy; /* mount -s: unknown -o words are not an error */
	bool version, help, dash_o;
	uint64_t given; /* rows set, a bit each */
	const char *words[WORDS_MAX];
	int words_count;
};

static bool row_given(const struct parse *p, const char *name)
{
	const struct option_row *row = option_row_find(name, strlen(name), false);

	return row && (p->given & 1ull << (row - option_rows));
}

static int row_set(struct parse *p, const struct option_row *row, const char *value, const struct option_from *from)
{
	p->given |= 1ull << (row - option_rows);
	return option_row_set(row, value, from, p->o, p->e);
}

/* Cuts the next item off a -o list, unescaped: "a=b\,c,d" has two. -E2BIG when it is too long. */
static int dash_o_next(const char **cursor, char *item, size_t room)
{
	const char *p = *cursor;
	size_t n = 0;

	for (; *p && *p != ','; p++) {
		if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
			p++;
		if (n + 1 >= room)
			return -E2BIG;
		item[n++] = *p;
	}
	item[n] = '\0';
	*cursor = *p ? p + 1 : p;
	return 0;
}

static int dash_o_item(struct parse *p, const char *item)
{
	static const struct option_from from = { .kind = FROM_DASH_O };
	size_t len = strcspn(item, "=");
	const struct option_row *row;
	const char *meant;
	int rc = option_mount_word(item, p->o, p->e);

	if (rc != -ENOENT)
		return rc;
	row = option_row_find(item, len, true);
	if (row && !(row->where & FOR_ARGV))
		return row_set(p, row, item[len] ? item + len + 1 : NULL, &from);
	if (row)
		return err_set(p->e, -EINVAL, "-o %s: give it as --%s instead", row->name, row->name);
	if (p->sloppy)
		return 0;
	meant = option_name_nearest(item, len);
	if (meant)
		return err_set(p->e, -EINVAL, "-o: unknown option '%.64s'; did you mean %s?", item, meant);
	return err_set(p->e, -EINVAL, "-o: unknown option '%.64s'; penstock --help lists them", item);
}

static int dash_o_parse(struct parse *p, const char *list)
{
	char item[OPT_PATH_MAX];
	int rc = 0;

	p->dash_o = true;
	while (*list && rc == 0) {
		rc = dash_o_next(&list, item, sizeof(item));
		if (rc < 0)
			return err_set(p->e, -EINVAL, "-o: an option of over %zu bytes", sizeof(item) - 1);
		if (*item)
			rc = dash_o_item(p, item);
	}
	return rc;
}

/* <next> is the argument after; returns 1 when it was used up as the value. */
static int arg_long(struct parse *p, const char *arg, const char *next)
{
	static const struct option_from from = { .kind = FROM_ARGV };
	const char *name = arg + 2, *value = strchr(name, '='), *meant;
	size_t len = value ? (size_t)(value - name) : strlen(name);
	const struct option_row *row = option_row_find(name, len, false);
	int rc;

	if (!row && !value && strcmp(name, "help") == 0) {
		p->help = true;
		return 0;
	}
	if (!row && !value && strcmp(name, "version") == 0) {
		p->version = true;
		return 0;
	}
	if (!row) {
		meant = option_name_nearest(name, len);
		if (meant)
			return err_set(p->e, -EINVAL, "unknown option --%.*s; did you mean --%s?",
				       (int)min_of(len, (size_t)64), name, meant);
		return err_set(p->e, -EINVAL, "unknown option --%.*s; penstock --help lists them",
			       (int)min_of(len, (size_t)64), name);
	}
	if (value || row->kind == OPTION_FLAG || row->kind == OPTION_LATER)
		return row_set(p, row, value ? value + 1 : NULL, &from);
	if (next && strncmp(next, "--", 2) == 0)
		next = NULL;
	rc = row_set(p, row, next, &from);
	return rc < 0 ? rc : 1;
}

static int letter_unknown(struct parse *p, char letter)
{
	if (isprint((unsigned char)letter))
		return err_set(p->e, -EINVAL, "unknown option -%c; penstock --help lists them", letter);
	return err_set(p->e, -EINVAL, "unknown option -\\x%02x; penstock --help lists them", (unsigned char)letter);
}

/* A letter without a value. */
static int letter_set(struct parse *p, char letter)
{
	static const struct option_from from = { .kind = FROM_ARGV };

	if (letter == 'h') {
		p->help = true;
		return 0;
	}
	if (letter == 'V') {
		p->version = true;
		return 0;
	}
	if (p->helper && strchr("fns", letter)) {
		p->o->check_only |= letter == 'f';
		p->sloppy |= letter == 's';
		return 0;
	}
	for (size_t i = 0; i < option_rows_count; i++) {
		if (option_rows[i].letter == letter)
			return row_set(p, &option_rows[i], NULL, &from);
	}
	return letter_unknown(p, letter);
}

/* "-fv", "-o ro", "-oro"; returns 1 when <next> was used up. */
static int arg_short(struct parse *p, const char *arg, const char *next)
{
	for (arg++; *arg; arg++) {
		bool with_value = *arg == 'o' || (p->helper && (*arg == 't' || *arg == 'N'));
		const char *value = arg[1] ? arg + 1 : next;
		int rc;

		if (!with_value) {
			rc = letter_set(p, *arg);
			if (rc < 0)
				return rc;
			continue;
		}
		if (!value)
			return err_set(p->e, -EINVAL, "-%c needs a value", *arg);
		if (*arg == 'N')
			return err_set(p->e, -EINVAL,
				       "-N is not possible here; run penstock mount inside that namespace");
		if (*arg == 'o') {
			rc = dash_o_parse(p, value);
			if (rc < 0)
				return rc;
		}
		return !arg[1];
	}
	return 0;
}

static int argv_walk(struct parse *p, int argc, char **argv)
{
	bool options_over = false;

	for (int i = 1; i < argc && !p->help; i++) {
		const char *arg = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
		int rc = 0;

		if (!options_over && strcmp(arg, "--") == 0) {
			options_over = true;
		} else if (!options_over && strncmp(arg, "--", 2) == 0) {
			rc = arg_long(p, arg, next);
		} else if (!options_over && arg[0] == '-' && arg[1]) {
			rc = arg_short(p, arg, next);
		} else {
			if (p->words_count == WORDS_MAX)
				return err_set(p->e, -EINVAL,
					       "unexpected argument '%.128s'; penstock --help shows how it is written",
					       arg);
			p->words[p->words_count++] = arg;
		}
		if (rc < 0)
			return rc;
		i += rc;
	}
	return 0;
}

static void options_default(struct options *o)
{
	memset(o, 0, sizeof(*o));
	o->read_only = true;
	o->uid = getuid();
	o->gid = getgid();
	o->file_mode = 0644;
	o->dir_mode = 0755;
	o->metadata_ttl_ns = 60 * NSEC_PER_SEC;
	o->read_deadline_ns = 60 * NSEC_PER_SEC;
	o->hedge_percent = 5;
	o->log_level = LOG_LEVEL_INFO;
	o->mount_flags = MS_RDONLY | MS_NODEV | MS_NOSUID;
}

/*
 * Who one is on the server is one decision: what the command line says of it replaces all that the file
 * says.
 */
static void identity_forget(struct parse *p)
{
	p->o->no_sign_request = false;
	p->o->profile[0] = p->o->credentials_profile[0] = '\0';
	p->o->credentials = S3_CREDS_CHAIN;
	for (size_t i = 0; i < option_rows_count; i++) {
		const char *name = option_rows[i].name;

		if (strcmp(name, "no-sign-request") == 0 || strcmp(name, "profile") == 0 ||
		    strcmp(name, "credentials") == 0)
			p->given &= ~(1ull << i);
	}
}

static int config_then_argv(struct parse *first, int argc, char **argv)
{
	struct parse p = { .o = first->o, .e = first->e, .helper = first->helper };
	char file[OPT_PATH_MAX];
	int rc;

	memcpy(file, first->o->config, sizeof(file));
	options_default(p.o);
	rc = option_config_read(file, p.o, &p.given, p.e);
	if (rc < 0)
		return rc;
	if (row_given(first, "no-sign-request") || row_given(first, "profile") || row_given(first, "credentials"))
		identity_forget(&p);
	rc = argv_walk(&p, argc, argv);
	*first = p;
	return rc;
}

static int environment_apply(struct parse *p)
{
	static const struct {
		const char *variable, *option;
	} defaults[] = {
		{ "AWS_ENDPOINT_URL_S3", "endpoint-url" },
		{ "AWS_ENDPOINT_URL", "endpoint-url" },
		{ "AWS_REGION", "region" },
		{ "AWS_DEFAULT_REGION", "region" },
		{ "AWS_CA_BUNDLE", "ca-bundle" },
	};

	for (size_t i = 0; i < array_len(defaults); i++) {
		const char *value = getenv(defaults[i].variable), *name = defaults[i].option;
		struct option_from from = { .kind = FROM_ENV, .name = defaults[i].variable };
		int rc;

		if (!value || !*value || row_given(p, name))
			continue;
		rc = row_set(p, option_row_find(name, strlen(name), false), value, &from);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int identity_check(struct parse *p)
{
	struct options *o = p->o;
	bool chosen = row_given(p, "credentials");
	const char *source = s3_creds_source_name(o->credentials);

	if (o->no_sign_request && (o->profile[0] || (chosen && o->credentials != S3_CREDS_ANONYMOUS)))
		return err_set(p->e, -EINVAL,
			       "--no-sign-request uses no credentials, but %s chooses some; give one of them",
			       o->profile[0] ? "--profile" : "--credentials");
	if (chosen && o->profile[0] && o->credentials != S3_CREDS_CHAIN && o->credentials != S3_CREDS_PROFILE)
		return err_set(p->e, -EINVAL,
			       "--credentials %s reads no profile, but --profile names one; give one of them", source);
	if (o->profile[0] && o->credentials_profile[0] && strcmp(o->profile, o->credentials_profile) != 0)
		return err_set(p->e, -EINVAL,
			       "--credentials names the profile '%.64s' but --profile names '%.64s'; give one of them",
			       o->credentials_profile, o->profile);

	if (o->no_sign_request)
		o->credentials = S3_CREDS_ANONYMOUS;
	else if (!chosen && o->profile[0])
		o->credentials = S3_CREDS_PROFILE;
	o->no_sign_request = o->credentials == S3_CREDS_ANONYMOUS;
	if (o->credentials_profile[0])
		memcpy(o->profile, o->credentials_profile, sizeof(o->profile));
	if (o->requester_pays && o->no_sign_request)
		return err_set(p->e, -EINVAL,
			       "--requester-pays needs credentials to send the bill to; leave out "
			       "--no-sign-request or --requester-pays");
	return 0;
}

static int memory_check(struct parse *p)
{
	uint64_t limit_bytes = features_memory_limit_bytes();

	if (!limit_bytes || p->o->memory_bytes <= limit_bytes)
		return 0;
	return err_set(p->e, -EINVAL,
		       "--memory: %" PRIu64 " MiB is more than the %" PRIu64
		       " MiB that this machine or its control group has; give less",
		       p->o->memory_bytes >> 20, limit_bytes >> 20);
}

/* --lazy for a mount, --region for an unmount. */
static int rows_fit_verb(const struct parse *p, unsigned verb, const char *name, const char *other)
{
	for (size_t i = 0; i < option_rows_count; i++) {
		if ((p->given & 1ull << i) && !(option_rows[i].where & verb))
			return err_set(p->e, -EINVAL, "--%s is an option of penstock %s, not of penstock %s",
				       option_rows[i].name, other, name);
	}
	return 0;
}

int options_volume_id_default(struct options *o, struct err *e)
{
	if (o->volume_id_given)
		return 0;
	/* "ID.pid" must fit a file name. */
	if (options_path_escape(o->mount_point, o->volume_id, sizeof(o->volume_id) - 5) < 0)
		return err_set(e, -EINVAL,
			       "the directory's path is too long to name the volume after it; give --volume-id");
	return 0;
}

static int directory_set(struct parse *p, const char *dir)
{
	int rc = *dir ? option_path_absolute(dir, p->o->mount_point, sizeof(p->o->mount_point)) : -ENOENT;

	if (rc < 0)
		return err_set(p->e, -EINVAL, "the directory '%.128s' cannot be used: %s", dir, strerror(-rc));
	if (strcmp(p->o->mount_point, "/") == 0)
		return err_set(p->e, -EINVAL, "the directory is /, where the root file system is; give another one");
	return 0;
}

static int mount_check(struct parse *p, const char *const *words, int count)
{
	struct options *o = p->o;
	int rc;

	if (count < 2)
		return err_set(p->e, -EINVAL, "%s is missing; write %s s3://BUCKET[/PREFIX] DIR",
			       count ? "the directory to mount on" : "the source",
			       p->helper ? "mount.penstock" : "penstock mount");
	if (count > 2)
		return err_set(p->e, -EINVAL, "unexpected argument '%.128s' after source and directory", words[2]);
	if (strncmp(words[0], "s3://", 5) != 0 && strncmp(words[1], "s3://", 5) == 0)
		return err_set(p->e, -EINVAL, "the source comes first; write penstock mount %.256s %.256s", words[1],
			       words[0]);
	if (strlen(words[0]) >= sizeof(o->source))
		return err_set(p->e, -EINVAL, "the source is over %zu bytes", sizeof(o->source) - 1);
	memcpy(o->source, words[0], strlen(words[0]) + 1);
	if (s3_uri_parse(o->source, &o->uri, p->e) < 0)
		return -EINVAL;

	if (!o->read_only)
		return err_set(p->e, -EINVAL, "--read-only=false: this version mounts for reading only; leave it out");
	rc = directory_set(p, words[1]);
	if (rc == 0)
		rc = environment_apply(p);
	if (rc == 0)
		rc = identity_check(p);
	if (rc == 0)
		rc = memory_check(p);
	if (rc == 0)
		rc = options_volume_id_default(o, p->e);
	if (o->verbose && !row_given(p, "log-level"))
		o->log_level = LOG_LEVEL_DEBUG;
	return rc;
}

static int unmount_check(struct parse *p, const char *const *words, int count)
{
	if (count != 1)
		return err_set(p->e, -EINVAL,
			       count ? "one directory at a time; write penstock unmount DIR"
				     : "the directory is missing; write penstock unmount DIR");
	if (p->dash_o)
		return err_set(p->e, -EINVAL, "-o is an option of penstock mount, not of penstock unmount");
	return directory_set(p, words[0]);
}

static int verb_check(struct parse *p)
{
	static const char *const verbs[] = { "unmount", "mount" };
	const char *verb = p->words[0], *meant;
	int rc;

	if (p->words_count == 0)
		return err_set(p->e, -EINVAL, "no command; write penstock mount s3://BUCKET DIR, or see --help");
	if (strcmp(verb, "mount") == 0) {
		p->o->verb = VERB_MOUNT;
		rc = rows_fit_verb(p, FOR_MOUNT, "mount", "unmount");
		return rc < 0 ? rc : mount_check(p, p->words + 1, p->words_count - 1);
	}
	if (strcmp(verb, "unmount") == 0) {
		p->o->verb = VERB_UNMOUNT;
		rc = rows_fit_verb(p, FOR_UNMOUNT, "unmount", "mount");
		return rc < 0 ? rc : unmount_check(p, p->words + 1, p->words_count - 1);
	}
	if (strncmp(verb, "s3://", 5) == 0)
		return err_set(p->e, -EINVAL, "no command; did you mean penstock mount %.256s DIR?", verb);
	meant = option_word_nearest(verb, strlen(verb), verbs, array_len(verbs));
	if (meant)
		return err_set(p->e, -EINVAL, "unknown command '%.64s'; did you mean penstock %s?", verb, meant);
	return err_set(p->e, -EINVAL, "unknown command '%.64s'; there are mount and unmount, see penstock --help",
		       verb);
}

static int line_parse(struct parse *p, int argc, char **argv)
{
	int rc;

	options_default(p->o);
	rc = argv_walk(p, argc, argv);
	if (rc == 0 && !p->help && p->o->config[0])
		rc = config_then_argv(p, argc, argv);
	if (rc < 0)
		return rc;
	if (p->help || p->version) {
		p->o->verb = p->help ? VERB_HELP : VERB_VERSION;
		return 0;
	}
	if (!p->helper)
		return verb_check(p);
	rc = rows_fit_verb(p, FOR_MOUNT, "mount", "unmount");
	return rc < 0 ? rc : mount_check(p, p->words, p->words_count);
}

int options_parse(int argc, char **argv, struct options *ret, struct err *e)
{
	const char *program = argc > 0 ? argv[0] : "penstock", *slash = strrchr(program, '/');
	struct err own = { 0 };
	struct parse p = { .o = ret, .e = e ? e : &own };
	int rc;

	p.helper = strcmp(slash ? slash + 1 : program, "mount.penstock") == 0;
	rc = line_parse(&p, argc, argv);
	ret->quiet = p.helper && !ret->verbose;
	/* What people typed is quoted in the message, which stays one line. */
	for (char *c = p.e->msg; rc < 0 && *c; c++) {
		if (iscntrl((unsigned char)*c))
			*c = '?';
	}
	return rc;
}

int options_path_escape(const char *path, char *ret, size_t room)
{
	static const char kept[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:_.";
	size_t n = 0;

	while (*path) {
		size_t part;

		path += strspn(path, "/");
		part = strcspn(path, "/");
		if (part == 0)
			break;
		if (part == 1 && *path == '.') {
			path++;
			continue;
		}
		if (n + 5 >= room)
			return -E2BIG;
		if (n)
			ret[n++] = '-';
		for (; part; part--, path++) {
			bool plain = strchr(kept, *path) && !(n == 0 && *path == '.');

			if (n + 5 >= room)
				return -E2BIG;
			if (plain)
				ret[n++] = *path;
			else
				n += (size_t)snprintf(ret + n, room - n, "\\x%02x", (unsigned char)*path);
		}
	}
	if (!n) {
		if (room < 2)
			return -E2BIG;
		ret[n++] = '-';
	}
	ret[n] = '\0';
	return 0;
}
