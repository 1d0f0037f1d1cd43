// SPDX-License-Identifier: Apache-2.0
/*
 * penstockctl profile: recorded loads, shown, drawn, copied and dropped. penstockctl trace: the tracer taken away.
 *
 * A profile is named by its file's name without ".profile"; the beginning of one is enough where it is the only one.
 */
#include "penstockctl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "daemon/runstate.h"
#include "prefetch/profile.h"
#include "trace/load.h"

#define SVG_MAX_BYTES (64u << 20)

struct kept {
	char name[NAME_MAX + 1]; /* without the suffix */
	char path[PATH_MAX + NAME_MAX + 8];
	time_t mtime;
	struct profile *profile; /* NULL: cannot be used */
	struct err why;
};

static int bytes_read(const char *path, struct buf *out, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char piece[16384];
	ssize_t n = -1;
	int rc = 0;

	if (fd < 0)
		return err_set(e, -errno, "%.512s: %s", path, strerror(errno));
	while (rc == 0 && (n = read(fd, piece, sizeof(piece))) > 0)
		rc = buf_add(out, piece, (size_t)n);
	if (n < 0)
		rc = -errno;
	return rc < 0 ? err_set(e, rc, "%.512s: %s", path, strerror(-rc)) : 0;
}

static int bytes_write(const char *path, const struct buf *bytes, struct err *e)
{
	_cleanup_fclose_ FILE *f = fopen(path, "we");

	if (!f || fwrite(bytes->data, 1, bytes->len, f) != bytes->len || fflush(f) != 0)
		return err_set(e, -EIO, "%.512s cannot be written: %s", path, strerror(errno));
	return 0;
}

static int profile_at(const char *path, struct profile **ret, struct err *e)
{
	_cleanup_buf_ struct buf bytes;
	int rc;

	buf_init(&bytes, PROFILE_ENCODED_MAX_BYTES);
	rc = bytes_read(path, &bytes, e);
	return rc < 0 ? rc : profile_decode(bytes.data, bytes.len, ret, e);
}

static int profiles_dir(const char *given, char ret[PATH_MAX], struct err *e)
{
	char run_dir[RUNSTATE_DIR_MAX];
	int rc = given ? 0 : runstate_dir(run_dir, sizeof(run_dir), e);

	if (rc < 0)
		return rc;
	if (snprintf(ret, PATH_MAX, "%s%s", given ? given : run_dir, given ? "" : "/profiles") >= PATH_MAX)
		return err_set(e, -ENAMETOOLONG, "the profile directory's path is too long");
	return 0;
}

/* Those whose name begins with <name>; the caller frees each one's profile and the array. */
static int profiles_list(const char *dir, const char *name, struct kept **ret, size_t *ret_nr, struct err *e)
{
	struct kept *all = NULL, *more;
	DIR *d = opendir(dir);
	struct stat st;
	size_t nr = 0;

	for (struct dirent *de = d ? readdir(d) : NULL; de; de = readdir(d)) {
		size_t len = strlen(de->d_name);

		if (len <= strlen(PROFILE_SUFFIX) ||
		    strcmp(de->d_name + len - strlen(PROFILE_SUFFIX), PROFILE_SUFFIX) != 0 ||
		    strncmp(de->d_name, name, strlen(name)) != 0)
			continue;
		more = reallocarray(all, nr + 1, sizeof(*all));
		if (!more)
			break;
		all = more;
		all[nr] = (struct kept){ 0 };
		snprintf(all[nr].name, sizeof(all[nr].name), "%.*s", (int)(len - strlen(PROFILE_SUFFIX)), de->d_name);
		snprintf(all[nr].path, sizeof(all[nr].path), "%s/%s", dir, de->d_name);
		all[nr].mtime = stat(all[nr].path, &st) == 0 ? st.st_mtime : 0;
		profile_at(all[nr].path, &all[nr].profile, &all[nr].why);
		nr++;
	}
	if (d)
		closedir(d);
	*ret = all;
	*ret_nr = nr;
	return nr || !name[0] ? 0 : err_set(e, -ENOENT, "no profile in %.512s begins with \"%.128s\"", dir, name);
}

static void profiles_free(struct kept *all, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		profile_free(all[i].profile);
	free(all);
}

static json_t *kept_json(const struct kept *k)
{
	struct profile_summary s;

	if (!k->profile)
		return json_pack("{s:s,s:s}", "profile", k->name, "unusable", k->why.msg);
	profile_summarize(k->profile, &s);
	return json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:I,s:I,s:i,s:i,s:I}", "profile", k->name, "version",
			 PROFILE_VERSION, "loads", (int)k->profile->nr_loads, "files", (int)k->profile->nr_files,
			 "readers", (int)k->profile->nr_ranks, "accesses", (int)k->profile->nr_accesses, "read_bytes",
			 (json_int_t)s.read_bytes, "files_bytes", (json_int_t)s.files_bytes, "duration_ms",
			 (int)s.duration_ms, "jumps", (int)s.nr_jumps, "age_s", (json_int_t)(time(NULL) - k->mtime));
}

static void profiles_print(const struct kept *all, size_t nr)
{
	static const char *const names[] = { "NAME", ">LOADS", ">FILES", ">READERS", ">READ", ">OF", ">TIME", ">AGE" };
	struct table t = { 0 };

	table_row(&t, names, array_len(names));
	for (size_t i = 0; i < nr; i++) {
		const char *cells[] = { all[i].name, "-", "-", "-", all[i].why.msg, "", "", "" };
		char loads[16], files[16], readers[16], took[32], age[32], bytes[32], of[32];
		struct profile_summary s;

		if (all[i].profile) {
			profile_summarize(all[i].profile, &s);
			snprintf(loads, sizeof(loads), "%u", all[i].profile->nr_loads);
			snprintf(files, sizeof(files), "%u", all[i].profile->nr_files);
			snprintf(readers, sizeof(readers), "%u", all[i].profile->nr_ranks);
			snprintf(took, sizeof(took), "%.1f s", s.duration_ms / 1e3);
			snprintf(age, sizeof(age), "%lld s", (long long)(time(NULL) - all[i].mtime));
			cells[1] = loads;
			cells[2] = files;
			cells[3] = readers;
			cells[4] = human_bytes(s.read_bytes, bytes);
			cells[5] = human_bytes(s.files_bytes, of);
			cells[6] = took;
			cells[7] = age;
		}
		table_row(&t, cells, array_len(cells));
	}
	table_print(&t, stdout);
	table_done(&t);
}

static int profile_draw(const struct kept *k, const char *to, struct err *e)
{
	_cleanup_buf_ struct buf svg;
	int rc;

	buf_init(&svg, SVG_MAX_BYTES);
	if (!k->profile)
		return err_set(e, -EBADMSG, "%.128s cannot be drawn: %.512s", k->name, k->why.msg);
	rc = profile_svg(k->profile, NULL, 0, &svg);
	if (rc < 0)
		return err_set(e, rc, "%.128s cannot be drawn: %s", k->name, strerror(-rc));
	return bytes_write(to, &svg, e);
}

static int run_show(const char *dir, const char *name, const char *svg, bool json, struct err *e)
{
	struct kept *all = NULL;
	size_t nr = 0;
	int rc = profiles_list(dir, name, &all, &nr, e);

	if (rc == 0 && svg && nr != 1)
		rc = err_set(e, -EINVAL, "--svg draws one profile, and %zu begin with \"%.128s\"", nr, name);
	if (rc == 0 && svg)
		rc = profile_draw(&all[0], svg, e);
	if (rc == 0 && json) {
		json_t *list = json_array();

		for (size_t i = 0; i < nr; i++)
			json_array_append_new(list, kept_json(&all[i]));
		json_out(list, JSON_INDENT(2));
	} else if (rc == 0 && !svg) {
		profiles_print(all, nr);
	}
	profiles_free(all, nr);
	return rc;
}

static int run_export(const char *dir, const char *name, const char *to, struct err *e)
{
	_cleanup_buf_ struct buf bytes;
	struct kept *all = NULL;
	size_t nr = 0;
	int rc = profiles_list(dir, name, &all, &nr, e);

	buf_init(&bytes, PROFILE_ENCODED_MAX_BYTES);
	if (rc == 0 && nr != 1)
		rc = err_set(e, -EINVAL, "%zu profiles begin with \"%.128s\"; give more of the name", nr, name);
	if (rc == 0)
		rc = bytes_read(all[0].path, &bytes, e);
	if (rc == 0)
		rc = bytes_write(to, &bytes, e);
	profiles_free(all, nr);
	return rc;
}

/* Its name is part of what it says. */
static int run_import(const char *dir, const char *from, struct err *e)
{
	_cleanup_buf_ struct buf bytes;
	char path[PATH_MAX + 64], name[PROFILE_NAME_BYTES];
	struct profile *p = NULL;
	int rc;

	buf_init(&bytes, PROFILE_ENCODED_MAX_BYTES);
	rc = bytes_read(from, &bytes, e);
	if (rc == 0)
		rc = profile_decode(bytes.data, bytes.len, &p, e);
	if (rc < 0)
		return rc;
	profile_name(p->dataset, name);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	profile_free(p);
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return err_set(e, -errno, "%.512s cannot be made: %s", dir, strerror(errno));
	return bytes_write(path, &bytes, e);
}

static int run_drop(const char *dir, const char *name, struct err *e)
{
	struct kept *all = NULL;
	size_t nr = 0;
	int rc = profiles_list(dir, name, &all, &nr, e);

	if (rc == 0 && nr != 1)
		rc = err_set(e, -EINVAL, "%zu profiles begin with \"%.128s\"; give more of the name", nr, name);
	if (rc == 0 && unlink(all[0].path) < 0)
		rc = err_set(e, -errno, "%.512s: %s", all[0].path, strerror(errno));
	profiles_free(all, nr);
	return rc;
}

int verb_profile(int argc, char **argv)
{
	const char *given = NULL, *svg = NULL;
	bool json = false;
	const struct opt opts[] = {
		{ .name = "json", .flag = &json },
		{ .name = "svg", .value = &svg },
		{ .name = "profile-dir", .value = &given },
	};
	char dir[PATH_MAX];
	struct err e = { 0 };
	int rc = opts_parse(opts, array_len(opts), &argc, argv, &e);

	if (rc == 0)
		rc = profiles_dir(given, dir, &e);
	if (rc < 0)
		return tool_fail(&e, EXIT_USAGE);
	if (argc <= 2 && argc >= 1 && strcmp(argv[0], "show") == 0)
		rc = run_show(dir, argc == 2 ? argv[1] : "", svg, json, &e);
	else if (argc == 3 && strcmp(argv[0], "export") == 0)
		rc = run_export(dir, argv[1], argv[2], &e);
	else if (argc == 2 && strcmp(argv[0], "import") == 0)
		rc = run_import(dir, argv[1], &e);
	else if (argc == 2 && strcmp(argv[0], "drop") == 0)
		rc = run_drop(dir, argv[1], &e);
	else
		return tool_fail((err_set(&e, -EINVAL, "give show [NAME], export NAME FILE, import FILE or drop NAME"),
				  &e),
				 EXIT_USAGE);
	return rc < 0 ? tool_fail(&e, EXIT_FAILED) : EXIT_FINE;
}

int verb_trace(int argc, char **argv)
{
	char run_dir[RUNSTATE_DIR_MAX];
	struct trace_config tc = { .run_dir = run_dir };
	struct err e = { 0 };
	int rc = opts_parse(NULL, 0, &argc, argv, &e);

	if (rc == 0 && (argc != 1 || strcmp(argv[0], "unload") != 0))
		rc = err_set(&e, -EINVAL, "give trace unload");
	if (rc < 0)
		return tool_fail(&e, EXIT_USAGE);
	rc = runstate_dir(run_dir, sizeof(run_dir), &e);
	if (rc == 0)
		rc = trace_unload(&tc, &e);
	return rc < 0 ? tool_fail(&e, EXIT_FAILED) : EXIT_FINE;
}
