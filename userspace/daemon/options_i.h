/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the option parser: the table of options and how one value gets into struct options. */
#ifndef PENSTOCK_DAEMON_OPTIONS_I_H
#define PENSTOCK_DAEMON_OPTIONS_I_H

#include <stddef.h>

#include "daemon/options.h"

enum option_kind {
	OPTION_FLAG,     /* bool; alone, or =true|false */
	OPTION_TEXT,     /* char[room], not empty */
	OPTION_PATH,     /* char[room], made absolute */
	OPTION_CHOICE,   /* enum: the index in <words> */
	OPTION_SIZE,     /* uint64_t bytes in [min, max] */
	OPTION_DURATION, /* uint64_t ns, [min, max] in seconds */
	OPTION_NUMBER,   /* unsigned in [min, max] */
	OPTION_MODE,     /* mode_t, octal up to 0777 */
	OPTION_CUSTOM,   /* check() stores */
	OPTION_LATER,    /* known and refused; <words> is why */
};

enum {
	FOR_MOUNT = 1 << 0,
	FOR_UNMOUNT = 1 << 1,
	FOR_ARGV = 1 << 2, /* not in -o and not in a --config file */
};

/* Where a value was written: decides how messages name it. */
struct option_from {
	enum { FROM_ARGV, FROM_DASH_O, FROM_CONFIG, FROM_ENV } kind;
	const char *name; /* the file, or the environment variable */
	unsigned line;
};

struct option_row {
	const char *name; /* without the dashes */
	char letter;
	enum option_kind kind;
	unsigned where;
	size_t offset, room;
	uint64_t min, max;
	const char *words; /* "a|b|c" */
	/* After storing; may be NULL. <label> names the option in messages. */
	int (*check)(struct options *o, const char *value, const char *label, struct err *e);
};

extern const struct option_row option_rows[];
extern const size_t option_rows_count; /* at most 64: a bit each in a word */

/* NULL when there is none. <len> bytes of <name>; with <underscores> "file_mode" is "file-mode". */
const struct option_row *option_row_find(const char *name, size_t len, bool underscores);
/* The name in the table that <name> was probably meant to be, or NULL. */
const char *option_name_nearest(const char *name, size_t len);
/* The same among <n> words; "" and wild guesses give NULL. */
const char *option_word_nearest(const char *word, size_t len, const char *const *words, size_t n);

/* Checks and stores one value. <value> NULL is a flag without one. -EINVAL with a sentence. */
int option_row_set(const struct option_row *row, const char *value, const struct option_from *from, struct options *o,
		   struct err *e);

/* Absolute, without "//", "/." and a trailing "/"; ".." stays, since only the kernel knows where it leads. */
int option_path_absolute(const char *path, char *ret, size_t room);

/*
 * Text of a --config file, not NUL-terminated: "long-option = value" lines and # comments. *ret_given
 * gets the bits of the rows it set.
 */
int option_config_apply(const char *bytes, size_t len, const char *file, struct options *o, uint64_t *ret_given,
			struct err *e);
int option_config_read(const char *file, struct options *o, uint64_t *ret_given, struct err *e);

/*
 * What mount(8) passes to every file system: "nosuid", "_netdev", "x-systemd.automount" ... -ENOENT:
 * not one of those.
 */
int option_mount_word(const char *word, struct options *o, struct err *e);

#endif
