/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstockctl's parts: options, volumes as their tuning trees show them, tables, and the verbs.
 *
 * A verb gets what follows its name on the command line and returns the exit status: 0, 1 = it failed, 2 = wrong use.
 */
#ifndef PENSTOCK_TOOLS_PENSTOCKCTL_H
#define PENSTOCK_TOOLS_PENSTOCKCTL_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/err.h"
#include "ctl/table.h"

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct verb {
	const char *name, *arguments, *help;
	int (*run)(int argc, char **argv);
};

int verb_ls(int argc, char **argv);
int verb_stat(int argc, char **argv);
int verb_top(int argc, char **argv);
int verb_warm(int argc, char **argv);
int verb_doctor(int argc, char **argv);
int verb_profile(int argc, char **argv);
int verb_trace(int argc, char **argv);

/* An option of a verb: a flag (bool), or one with a value (const char *). */
struct opt {
	const char *name; /* without the dashes */
	bool *flag;
	const char **value;
};

/*
 * Takes the options out of argv; what remains are the arguments, *argc of them. -EINVAL with a sentence. Options are
 * never abbreviated; "--name value" and "--name=value" are the same; after "--" all are arguments.
 */
int opts_parse(const struct opt *opts, size_t nr, int *argc, char **argv, struct err *e);

/* Prints "penstockctl: SENTENCE" and returns the exit status. */
int tool_fail(const struct err *e, int status);

struct volume {
	char id[NAME_MAX + 1];
	char mount_point[PATH_MAX]; /* "" = not known */
	pid_t pid;                  /* 0 = not known */
};

struct volumes {
	size_t nr;
	struct volume *all; /* sorted by id */
};

int volumes_list(struct volumes *ret, struct err *e);
void volumes_free(struct volumes *v);
/* By id, or by a path on or below its mount point. -ENOENT with a sentence. */
int volume_find(const char *id_or_path, struct volume *ret, struct err *e);
/* The type of the file system that a path is on is a volume's; *ret_mount_point = where it is mounted. */
bool path_on_volume(const char *path, char ret_mount_point[PATH_MAX]);

struct snapshot_value {
	int error; /* 0 or -errno: there is no text */
	char text[CTL_CELL_TEXT_MAX];
};

/* All values of a volume, read within a limit of time. */
struct snapshot {
	uint64_t taken_ns;
	int error; /* -ENOTCONN: its daemon is dead; -ENOENT: no tree; -ETIMEDOUT: no answer */
	struct snapshot_value value[CTL_NR_VALUES];
};

/* Returns what munmap()s with snapshot_free(), NULL = no memory. */
struct snapshot *snapshot_new(void);
struct snapshot *snapshot_free(struct snapshot *s);
void snapshot_take(const struct volume *v, struct snapshot *s);
/* False where there is no such number. */
bool snapshot_number(const struct snapshot *s, enum ctl_value which, uint64_t *ret);
/* The text, or "-". */
const char *snapshot_text(const struct snapshot *s, enum ctl_value which);
/* The state of its tree, or what is wrong: dead, stuck, no tree. */
const char *snapshot_state(const struct snapshot *s);
json_t *snapshot_json(const struct snapshot *s, enum ctl_value which);

/* Cells of text in columns; <columns> of them a row, a leading '>' in a heading sets the column to the right. */
#define TABLE_COLUMNS 10
#define TABLE_CELL_BYTES 384
struct table {
	size_t nr_columns, nr_rows, room;
	char (*cells)[TABLE_COLUMNS][TABLE_CELL_BYTES];
};
void table_row(struct table *t, const char *const *cells, size_t nr);
void table_print(const struct table *t, FILE *out);
void table_done(struct table *t);

/* "1.5 GiB" */
const char *human_bytes(uint64_t bytes, char ret[32]);
/* Prints and frees. */
void json_out(json_t *j, size_t flags);

#endif
