// SPDX-License-Identifier: Apache-2.0
/* penstockctl ls and stat, and how tables and JSON are printed. */
#include "penstockctl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

const char *human_bytes(uint64_t bytes, char ret[32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	size_t unit = 0;

	for (; v >= 1024 && unit + 1 < array_len(units); unit++)
		v /= 1024;
	snprintf(ret, 32, unit ? "%.1f %s" : "%.0f %s", v, units[unit]);
	return ret;
}

void json_out(json_t *j, size_t flags)
{
	if (j)
		json_dumpf(j, stdout, flags | JSON_ENCODE_ANY);
	putchar('\n');
	fflush(stdout);
	json_decref(j);
}

void table_row(struct table *t, const char *const *cells, size_t nr)
{
	if (t->nr_rows == t->room) {
		size_t room = t->room ? t->room * 2 : 16;
		void *grown = realloc(t->cells, room * sizeof(t->cells[0]));

		if (!grown) {
			fprintf(stderr, "penstockctl: no memory for the line of %s\n", cells[0]);
			return;
		}
		t->cells = grown;
		t->room = room;
	}
	t->nr_columns = max_of(t->nr_columns, nr);
	memset(t->cells[t->nr_rows], 0, sizeof(t->cells[0]));
	for (size_t i = 0; i < min_of(nr, (size_t)TABLE_COLUMNS); i++)
		snprintf(t->cells[t->nr_rows][i], TABLE_CELL_BYTES, "%s", cells[i]);
	t->nr_rows++;
}

void table_print(const struct table *t, FILE *out)
{
	for (size_t row = 0; row < t->nr_rows; row++) {
		for (size_t col = 0; col < t->nr_columns; col++) {
			bool right = t->cells[0][col][0] == '>';
			const char *text = t->cells[row][col] + (right && row == 0);
			int width = 0;

			for (size_t i = 0; i < t->nr_rows; i++) {
				const char *cell = t->cells[i][col] + (right && i == 0);

				width = max_of(width, (int)strlen(cell));
			}
			if (col + 1 == t->nr_columns)
				width = right ? width : 0;
			fprintf(out, "%*s%s", right ? width : -width, text, col + 1 < t->nr_columns ? "  " : "\n");
		}
	}
	fflush(out);
}

void table_done(struct table *t)
{
	free(t->cells);
	*t = (struct table){ 0 };
}

static json_t *ls_json(const struct volume *v, const struct snapshot *s)
{
	json_t *j = json_pack("{s:s, s:o, s:s, s:o, s:s}", "id", v->id, "source", snapshot_json(s, CTL_SOURCE), "dir",
			      v->mount_point, "transport", snapshot_json(s, CTL_TRANSPORT), "state", snapshot_state(s));

	if (j && v->pid)
		json_object_set_new(j, "pid", json_integer(v->pid));
	return j;
}

int verb_ls(int argc, char **argv)
{
	static const char *const headings[] = { "ID", "SOURCE", "DIR", "TRANSPORT", "STATE" };
	struct snapshot *s;
	struct table t = { 0 };
	struct volumes all;
	struct err e = { 0 };
	bool json = false;
	const struct opt opts[] = { { .name = "json", .flag = &json } };
	json_t *list;

	if (opts_parse(opts, array_len(opts), &argc, argv, &e) < 0)
		return tool_fail(&e, EXIT_USAGE);
	if (argc) {
		err_set(&e, -EINVAL, "ls takes no argument");
		return tool_fail(&e, EXIT_USAGE);
	}
	if (volumes_list(&all, &e) < 0)
		return tool_fail(&e, EXIT_FAILED);
	s = snapshot_new();
	list = json_array();
	if (!s || !list)
		err_set(&e, -ENOMEM, "out of memory");
	table_row(&t, headings, array_len(headings));
	for (size_t i = 0; e.code == 0 && i < all.nr; i++) {
		const struct volume *v = &all.all[i];
		char transport[32];

		snapshot_take(v, s);
		/* Its first word; why it is that one is in stat. */
		snprintf(transport, sizeof(transport), "%.*s", (int)strcspn(snapshot_text(s, CTL_TRANSPORT), " "),
			 snapshot_text(s, CTL_TRANSPORT));
		table_row(&t,
			  (const char *[]){ v->id, snapshot_text(s, CTL_SOURCE),
					    v->mount_point[0] ? v->mount_point : "-", transport, snapshot_state(s) },
			  array_len(headings));
		json_array_append_new(list, ls_json(v, s));
	}
	if (json)
		json_out(json_incref(list), JSON_INDENT(2));
	else
		table_print(&t, stdout);
	json_decref(list);
	table_done(&t);
	volumes_free(&all);
	snapshot_free(s);
	return e.code < 0 ? tool_fail(&e, EXIT_FAILED) : EXIT_FINE;
}

static void stat_human(const struct snapshot *s, enum ctl_value which, char *ret, size_t room)
{
	const char *text = snapshot_text(s, which);
	char bytes[32];
	uint64_t n;

	snprintf(ret, room, "%s", text);
	if (!snapshot_number(s, which, &n))
		return;
	if (ctl_specs[which].unit == CTL_BYTES && n >= 1024)
		snprintf(ret, room, "%s (%s)", text, human_bytes(n, bytes));
	else if (ctl_specs[which].unit == CTL_US && n >= 1000)
		snprintf(ret, room, "%s (%.1f ms)", text, (double)n / 1000);
}

static void stat_print(const struct snapshot *s)
{
	static const char *const headings[] = { "NAME", "VALUE", "MEANING" };
	struct table t = { 0 };
	char name[64], value[TABLE_CELL_BYTES];

	table_row(&t, headings, array_len(headings));
	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *spec = &ctl_specs[i];

		snprintf(name, sizeof(name), "%s%s%s", spec->dir, spec->dir[0] ? "/" : "", spec->name);
		stat_human(s, spec->which, value, sizeof(value));
		table_row(&t, (const char *[]){ name, value, spec->help }, array_len(headings));
	}
	table_print(&t, stdout);
	table_done(&t);
}

static json_t *stat_json(const struct volume *v, const struct snapshot *s)
{
	json_t *root = json_pack("{s:s, s:s}", "id", v->id, "dir", v->mount_point), *dir;

	for (size_t i = 0; root && i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *spec = &ctl_specs[i];

		dir = spec->dir[0] ? json_object_get(root, spec->dir) : root;
		if (!dir) {
			dir = json_object();
			json_object_set_new(root, spec->dir, dir);
		}
		json_object_set_new(dir, spec->name, snapshot_json(s, spec->which));
	}
	return root;
}

static int snapshot_explain(const struct volume *v, const struct snapshot *s, struct err *e)
{
	switch (s->error) {
	case -ENOTCONN:
		return err_set(e, s->error, "the daemon of %.128s is dead; penstock unmount %.512s", v->id,
			       v->mount_point[0] ? v->mount_point : "its directory");
	case -ETIMEDOUT:
		return err_set(e, s->error, "the daemon of %.128s (process %d) does not answer; is it stopped?", v->id,
			       (int)v->pid);
	case -ENOENT:
		return err_set(e, s->error, "%.128s has no tuning tree; its log says why", v->id);
	default:
		return err_set(e, s->error, "cannot read the tuning tree of %.128s: %s", v->id, strerror(-s->error));
	}
}

int verb_stat(int argc, char **argv)
{
	struct snapshot *s;
	struct err e = { 0 };
	struct volume v;
	bool json = false;
	const struct opt opts[] = { { .name = "json", .flag = &json } };

	if (opts_parse(opts, array_len(opts), &argc, argv, &e) < 0)
		return tool_fail(&e, EXIT_USAGE);
	if (argc != 1) {
		err_set(&e, -EINVAL, "stat takes a volume's id, or a path on a mounted volume");
		return tool_fail(&e, EXIT_USAGE);
	}
	if (volume_find(argv[0], &v, &e) < 0)
		return tool_fail(&e, EXIT_FAILED);
	s = snapshot_new();
	if (!s) {
		err_set(&e, -ENOMEM, "out of memory");
		return tool_fail(&e, EXIT_FAILED);
	}
	snapshot_take(&v, s);
	if (s->error < 0) {
		snapshot_explain(&v, s, &e);
		return tool_fail(&e, EXIT_FAILED);
	}
	if (json)
		json_out(stat_json(&v, s), JSON_INDENT(2));
	else
		stat_print(s);
	snapshot_free(s);
	return EXIT_FINE;
}
