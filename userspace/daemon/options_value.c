// SPDX-License-Identifier: Apache-2.0
/*
 * One value of an option: checked, converted and stored where its row in the table says; and lines of
 * --config files.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/size.h"
#include "daemon/options_i.h"

#define LABEL_BYTES 256
#define CONFIG_BYTES_MAX (64 * 1024)
#define VALUE_BYTES_MAX OPT_PATH_MAX

static void label_build(char *label, const struct option_row *row, const struct option_from *from)
{
	switch (from->kind) {
	case FROM_ARGV:
		snprintf(label, LABEL_BYTES, "--%s", row->name);
		return;
	case FROM_DASH_O:
		snprintf(label, LABEL_BYTES, "-o %s", row->name);
		return;
	case FROM_CONFIG:
		snprintf(label, LABEL_BYTES, "%.160s:%u: %s", from->name, from->line, row->name);
		return;
	case FROM_ENV:
		snprintf(label, LABEL_BYTES, "environment variable %s", from->name);
		return;
	}
}

int option_path_absolute(const char *path, char *ret, size_t room)
{
	char all[2 * OPT_PATH_MAX], cwd[OPT_PATH_MAX];
	size_t n = 0;
	int len;

	if (path[0] == '/') {
		len = snprintf(all, sizeof(all), "%s", path);
	} else {
		if (!getcwd(cwd, sizeof(cwd)))
			return -errno;
		len = snprintf(all, sizeof(all), "%s/%s", cwd, path);
	}
	if (len < 0 || (size_t)len >= sizeof(all))
		return -ENAMETOOLONG;

	for (const char *p = all; *p;) {
		size_t part = strcspn(p, "/");

		if (part && !(part == 1 && *p == '.')) {
			if (n + part + 2 > room)
				return -ENAMETOOLONG;
			ret[n++] = '/';
			memcpy(ret + n, p, part);
			n += part;
		}
		p += part;
		p += strspn(p, "/");
	}
	if (!n)
		ret[n++] = '/';
	ret[n] = '\0';
	return 0;
}

static int flag_set(bool *field, const char *value, const char *label, struct err *e)
{
	static const char *const yes[] = { "true", "yes", "on", "1" }, *const no[] = { "false", "no", "off", "0" };

	*field = true;
	if (!value)
		return 0;
	for (size_t i = 0; i < array_len(yes); i++) {
		if (strcmp(value, yes[i]) == 0)
			return 0;
		if (strcmp(value, no[i]) == 0) {
			*field = false;
			return 0;
		}
	}
	return err_set(e, -EINVAL, "%s: '%.64s' is neither true nor false", label, value);
}

static int choice_set(void *field, const char *words, const char *value, const char *label, struct err *e)
{
	unsigned index = 0;
	size_t len = strlen(value);

	for (const char *p = words; *p; index++) {
		size_t part = strcspn(p, "|");

		if (part == len && memcmp(p, value, len) == 0) {
			memcpy(field, &index, sizeof(index));
			return 0;
		}
		p += part + (p[part] == '|');
	}
	return err_set(e, -EINVAL, "%s: '%.64s' is not accepted; give one of %s", label, value, words);
}

static int size_set(const struct option_row *row, void *field, const char *value, const char *label, struct err *e)
{
	uint64_t min_mib = row->min >> 20, bytes;
	int rc = size_parse(value, &bytes);

	if (rc == -EINVAL)
		return err_set(e, -EINVAL,
			       "%s: '%.64s' is not a size; give a number with KiB, MiB, GiB or TiB, at least %" PRIu64
			       "MiB",
			       label, value, min_mib);
	if (rc < 0 || bytes > row->max)
		return err_set(e, -EINVAL,
			       "%s: %.64s is more than any machine has; give at least %" PRIu64 "MiB, such as 4GiB",
			       label, value, min_mib);
	if (bytes < row->min)
		return err_set(e, -EINVAL, "%s: %.64s is too small; give at least %" PRIu64 "MiB", label, value,
			       min_mib);
	memcpy(field, &bytes, sizeof(bytes));
	return 0;
}

static int duration_set(const struct option_row *row, void *field, const char *value, const char *label, struct err *e)
{
	uint64_t ns;

	if (duration_parse(value, &ns) < 0 || ns < row->min * NSEC_PER_SEC || ns > row->max * NSEC_PER_SEC)
		return err_set(e, -EINVAL,
			       "%s: '%.64s' is not accepted; give a time from %" PRIu64 " to %" PRIu64
			       " seconds, a number alone or with ms, s, m or h",
			       label, value, row->min, row->max);
	memcpy(field, &ns, sizeof(ns));
	return 0;
}

static int number_set(const struct option_row *row, void *field, const char *value, const char *label, struct err *e)
{
	uint64_t n;
	unsigned stored;

	if (number_parse(value, row->min, row->max, &n) < 0)
		return err_set(e, -EINVAL,
			       "%s: '%.64s' is not accepted; give a whole number from %" PRIu64 " to %" PRIu64, label,
			       value, row->min, row->max);
	stored = (unsigned)n;
	memcpy(field, &stored, sizeof(stored));
	return 0;
}

static int mode_set(void *field, const char *value, const char *label, struct err *e)
{
	size_t len = strlen(value);
	mode_t mode = 0;

	if (!len || len > 4 || strspn(value, "01234567") != len)
		goto bad;
	for (const char *p = value; *p; p++)
		mode = mode * 8 + (mode_t)(*p - '0');
	if (mode > 0777)
		goto bad;
	memcpy(field, &mode, sizeof(mode));
	return 0;
bad:
	return err_set(e, -EINVAL, "%s: '%.64s' is not a mode; give three octal digits, such as 0644", label, value);
}

static int text_set(const struct option_row *row, char *field, const char *value, const char *label, struct err *e)
{
	size_t len = strlen(value);
	int rc;

	if (row->kind == OPTION_PATH) {
		rc = option_path_absolute(value, field, row->room);
		if (rc < 0)
			return err_set(e, -EINVAL, "%s: the path cannot be used: %s", label, strerror(-rc));
		return 0;
	}
	if (len >= row->room)
		return err_set(e, -EINVAL, "%s: the value is too long; give at most %zu bytes", label, row->room - 1);
	memcpy(field, value, len + 1);
	return 0;
}

int option_row_set(const struct option_row *row, const char *value, const struct option_from *from, struct options *o,
		   struct err *e)
{
	char label[LABEL_BYTES];
	void *field = (char *)o + row->offset;
	int rc = 0;

	label_build(label, row, from);
	if (row->kind == OPTION_LATER)
		return err_set(e, -EINVAL, "%s is not available in this version: %s; leave it out", label, row->words);
	if (row->kind == OPTION_FLAG)
		return flag_set(field, value, label, e);
	if (!value || !*value)
		return err_set(e, -EINVAL, "%s needs a value; penstock --help says which", label);

	switch (row->kind) {
	case OPTION_TEXT:
	case OPTION_PATH:
		rc = text_set(row, field, value, label, e);
		break;
	case OPTION_CHOICE:
		rc = choice_set(field, row->words, value, label, e);
		break;
	case OPTION_SIZE:
		rc = size_set(row, field, value, label, e);
		break;
	case OPTION_DURATION:
		rc = duration_set(row, field, value, label, e);
		break;
	case OPTION_NUMBER:
		rc = number_set(row, field, value, label, e);
		break;
	case OPTION_MODE:
		rc = mode_set(field, value, label, e);
		break;
	case OPTION_CUSTOM:
	case OPTION_FLAG:
	case OPTION_LATER:
		break;
	}
	if (rc == 0 && row->check)
		rc = row->check(o, value, label, e);
	return rc;
}

static const char *space_skip(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

static const char *space_trim(const char *start, const char *end)
{
	while (end > start && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
		end--;
	return end;
}

static int config_name_error(const char *name, int len, const struct option_from *from, struct err *e)
{
	const struct option_row *row = option_row_find(name, (size_t)len, false);
	const char *meant = option_name_nearest(name, (size_t)len);

	if (row && (row->where & FOR_UNMOUNT) && !(row->where & FOR_MOUNT))
		return err_set(e, -EINVAL, "%.160s:%u: %s is not an option of penstock mount", from->name, from->line,
			       row->name);
	if (row)
		return err_set(e, -EINVAL, "%.160s:%u: %s belongs on the command line, not in a file", from->name,
			       from->line, row->name);
	if (meant)
		return err_set(e, -EINVAL, "%.160s:%u: unknown option '%.*s'; did you mean %s?", from->name, from->line,
			       min_of(len, 64), name, meant);
	return err_set(e, -EINVAL, "%.160s:%u: unknown option '%.*s'; penstock --help lists them", from->name,
		       from->line, min_of(len, 64), name);
}

static int config_line(const char *line, const char *end, const struct option_from *from, struct options *o,
		       uint64_t *given, struct err *e)
{
	const char *name = space_skip(line, end), *name_end, *value, *equals;
	const struct option_row *row;
	char text[VALUE_BYTES_MAX];
	size_t len;

	end = space_trim(name, end);
	if (name == end || *name == '#')
		return 0;
	if (memchr(name, '\0', (size_t)(end - name)))
		return err_set(e, -EINVAL, "%.160s:%u: the line holds a NUL byte; is this a text file?", from->name,
			       from->line);
	equals = memchr(name, '=', (size_t)(end - name));
	if (!equals)
		return err_set(e, -EINVAL, "%.160s:%u: no '='; write 'long-option = value'", from->name, from->line);
	name_end = space_trim(name, equals);
	value = space_skip(equals + 1, end);

	row = option_row_find(name, (size_t)(name_end - name), false);
	if (!row || (row->where & FOR_ARGV))
		return config_name_error(name, (int)(name_end - name), from, e);
	len = (size_t)(end - value);
	if (len >= sizeof(text))
		return err_set(e, -EINVAL, "%.160s:%u: the value is too long", from->name, from->line);
	memcpy(text, value, len);
	text[len] = '\0';
	if (!len)
		return err_set(e, -EINVAL, "%.160s:%u: %s needs a value after '='", from->name, from->line, row->name);
	*given |= 1ull << (row - option_rows);
	return option_row_set(row, text, from, o, e);
}

int option_config_apply(const char *bytes, size_t len, const char *file, struct options *o, uint64_t *ret_given,
			struct err *e)
{
	struct option_from from = { .kind = FROM_CONFIG, .name = file };
	const char *end = bytes + len;
	int rc;

	*ret_given = 0;
	for (const char *line = bytes; line < end;) {
		const char *eol = memchr(line, '\n', (size_t)(end - line));

		if (!eol)
			eol = end;
		from.line++;
		rc = config_line(line, eol, &from, o, ret_given, e);
		if (rc < 0)
			return rc;
		line = eol < end ? eol + 1 : end;
	}
	return 0;
}

int option_config_read(const char *file, struct options *o, uint64_t *ret_given, struct err *e)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	_cleanup_free_ char *bytes = NULL;
	size_t len = 0;
	struct stat st;
	ssize_t n;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(e, -EINVAL, "--config: %.512s: %s", file, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size > CONFIG_BYTES_MAX)
		return err_set(e, -EINVAL, "--config: %.512s is not a regular file of at most %d bytes", file,
			       CONFIG_BYTES_MAX);
	bytes = malloc(CONFIG_BYTES_MAX);
	if (!bytes)
		return err_set(e, -ENOMEM, "--config: no memory to read %.512s", file);
	while (len < CONFIG_BYTES_MAX && (n = read(fd, bytes + len, CONFIG_BYTES_MAX - len)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -EINVAL, "--config: %.512s: %s", file, strerror(errno));
		len += (size_t)n;
	}
	return option_config_apply(bytes, len, file, o, ret_given, e);
}

/* What each word of mount(8) does to the flags; words with a trailing '*' match by their beginning. */
static const struct {
	const char *word;
	unsigned long set, clear;
} mount_words[] = {
	{ "defaults", 0, 0 },
	{ "ro", 0, 0 },
	{ "rw", 0, 0 },
	{ "auto", 0, 0 },
	{ "noauto", 0, 0 },
	{ "nofail", 0, 0 },
	{ "_netdev", 0, 0 },
	{ "default_permissions", 0, 0 },
	{ "async", 0, 0 },
	{ "sync", 0, 0 },
	{ "dirsync", 0, 0 },
	{ "nouser", 0, 0 },
	{ "comment=*", 0, 0 },
	{ "x-*", 0, 0 },
	{ "X-*", 0, 0 },
	{ "dev", 0, MS_NODEV },
	{ "nodev", MS_NODEV, 0 },
	{ "suid", 0, MS_NOSUID },
	{ "nosuid", MS_NOSUID, 0 },
	{ "exec", 0, MS_NOEXEC },
	{ "noexec", MS_NOEXEC, 0 },
	{ "atime", 0, MS_NOATIME },
	{ "noatime", MS_NOATIME, 0 },
	{ "diratime", 0, MS_NODIRATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },
	{ "relatime", MS_RELATIME, MS_NOATIME | MS_STRICTATIME },
	{ "norelatime", 0, MS_RELATIME },
	{ "strictatime", MS_STRICTATIME, MS_NOATIME | MS_RELATIME },
	{ "nostrictatime", 0, MS_STRICTATIME },
	{ "user", MS_NOEXEC | MS_NOSUID | MS_NODEV, 0 },
	{ "user=*", MS_NOEXEC | MS_NOSUID | MS_NODEV, 0 },
	{ "users", MS_NOEXEC | MS_NOSUID | MS_NODEV, 0 },
	{ "owner", MS_NOSUID | MS_NODEV, 0 },
	{ "group", MS_NOSUID | MS_NODEV, 0 },
};

int option_mount_word(const char *word, struct options *o, struct err *e)
{
	if (strcmp(word, "remount") == 0)
		return err_set(e, -EINVAL, "-o remount is not possible here; run penstock unmount and mount again");
	for (size_t i = 0; i < array_len(mount_words); i++) {
		const char *known = mount_words[i].word;
		size_t len = strlen(known);
		bool prefix = known[len - 1] == '*';

		if (prefix ? strncmp(word, known, len - 1) != 0 : strcmp(word, known) != 0)
			continue;
		o->mount_flags = (o->mount_flags & ~mount_words[i].clear) | mount_words[i].set;
		return 0;
	}
	return -ENOENT;
}
