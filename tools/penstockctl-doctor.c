// SPDX-License-Identifier: Apache-2.0
/*
 * penstockctl doctor: what this host offers to volumes, what would give more, and which volumes are not well.
 *
 * Design: what "penstock --version -v" says, line by line, then BPF and the volumes. Only --fix changes anything, and
 * says what.
 */
#define _GNU_SOURCE
#include "penstockctl.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/features.h"
#include "daemon/runstate.h"
#include "trace/load.h"

#define FEATURE_COLUMN 21
#define FINDINGS_MAX 256
#define BTF_MAX_BYTES (64u << 20)
#define READ_AHEAD_GOOD_KB 1024

enum level { LEVEL_OK = 0, LEVEL_MORE, LEVEL_BROKEN };

struct finding {
	enum level level;
	char name[128], value[512], advice[512];
};

struct report {
	size_t nr;
	struct finding all[FINDINGS_MAX];
};

/* A host-wide setting, its value when it is too low, and the one that --fix writes. */
struct setting {
	const char *path, *wanted, *meaning;
	bool (*lacks)(const char *value);
};

static bool is_off(const char *value)
{
	return value[0] == 'N' || value[0] == '0';
}

static bool is_not_zero(const char *value)
{
	return value[0] != '0';
}

static bool is_few_pages(const char *value)
{
	return strtoul(value, NULL, 10) < 1024;
}

static const struct setting settings[] = {
	{ "/sys/module/fuse/parameters/enable_uring", "Y", "FUSE over io_uring", is_off },
	{ "/proc/sys/fs/fuse/max_pages_limit", "1024", "requests of 4 MiB", is_few_pages },
	{ "/proc/sys/kernel/io_uring_disabled", "0", "io_uring for all", is_not_zero },
};

static void __attribute__((format(printf, 5, 6)))
report_add(struct report *r, enum level level, const char *name, const char *advice, const char *fmt, ...)
{
	struct finding *f = &r->all[r->nr];
	va_list ap;

	if (r->nr == FINDINGS_MAX)
		return;
	r->nr++;
	*f = (struct finding){ .level = level };
	snprintf(f->name, sizeof(f->name), "%s", name);
	snprintf(f->advice, sizeof(f->advice), "%s", advice);
	va_start(ap, fmt);
	vsnprintf(f->value, sizeof(f->value), fmt, ap);
	va_end(ap);
}

/* "NAME      VALUE", and where something is missing "NAME      VALUE: WHAT TO DO" */
static void feature_add(struct report *r, char *line)
{
	char name[FEATURE_COLUMN + 1], *value, *more, *advice = NULL;
	enum level level = LEVEL_OK;

	if (strlen(line) <= FEATURE_COLUMN)
		return;
	snprintf(name, sizeof(name), "%s", line);
	for (size_t len = strlen(name); len && name[len - 1] == ' '; len--)
		name[len - 1] = '\0';
	value = line + FEATURE_COLUMN;
	for (char *p = strstr(value, ": "); p; p = strstr(p + 1, ": "))
		advice = p;
	if (advice) {
		*advice = '\0';
		advice += 2;
		more = strstr(value, "; for more");
		if (more)
			*more = '\0';
		level = strcmp(name, "/dev/fuse") == 0 || strcmp(name, "privileges") == 0 ? LEVEL_BROKEN : LEVEL_MORE;
	}
	report_add(r, level, name, advice ? advice : "", "%s", value);
}

static int features_add(struct report *r, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	int rc = f ? features_print(f) : -ENOMEM;

	if (f)
		fclose(f);
	if (rc < 0)
		return err_set(e, rc, "cannot look at this machine: %s", strerror(-rc));
	for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		feature_add(r, line);
	}
	return 0;
}

/* Whole file, *ret_len bytes; free() it. NULL = cannot be read. */
static char *file_load(const char *path, size_t *ret_len)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *bytes = NULL;
	struct stat st;
	size_t len = 0;
	ssize_t n = 1;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > (off_t)BTF_MAX_BYTES)
		return NULL;
	bytes = malloc((size_t)st.st_size);
	while (bytes && len < (size_t)st.st_size && (n = read(fd, bytes + len, (size_t)st.st_size - len)) > 0)
		len += (size_t)n;
	*ret_len = len;
	return n > 0 ? take_ptr(bytes) : NULL;
}

static void tracepoints_add(struct report *r)
{
	static const char *const names[] = { "mm_filemap_get_pages", "mm_filemap_fault", "mm_filemap_map_pages",
					     "fuse_request_send", "fuse_request_end" };
	size_t kernel_len = 0, module_len = 0, missing = 0;
	_cleanup_free_ char *kernel = file_load("/sys/kernel/btf/vmlinux", &kernel_len);
	_cleanup_free_ char *module = file_load("/sys/kernel/btf/fuse", &module_len);
	char lacking[256] = "", type[64];

	if (!kernel) {
		report_add(r, LEVEL_MORE, "BPF types", "a kernel with CONFIG_DEBUG_INFO_BTF", "none, so no tracing");
		return;
	}
	report_add(r, LEVEL_OK, "BPF types", "", "%zu KiB", kernel_len >> 10);
	for (size_t i = 0; i < array_len(names); i++) {
		size_t used = strlen(lacking);

		snprintf(type, sizeof(type), "btf_trace_%s", names[i]);
		if (memmem(kernel, kernel_len, type, strlen(type) + 1) ||
		    (module && memmem(module, module_len, type, strlen(type) + 1)))
			continue;
		snprintf(lacking + used, sizeof(lacking) - used, "%s%s", missing++ ? ", " : "", names[i]);
	}
	if (missing)
		report_add(r, LEVEL_MORE, "BPF tracepoints", "kernel 6.12 or newer",
			   "without %s: prefetch sees requests only", lacking);
	else
		report_add(r, LEVEL_OK, "BPF tracepoints", "", "reads, faults and FUSE requests");
}

/* Of the tracer that runs, else of one loaded for a moment. */
static void programs_add(struct report *r)
{
	struct trace_program program[TRACE_PROGRAMS_MAX];
	char run_dir[RUNSTATE_DIR_MAX], name[TRACE_NAME_BYTES + 16];
	struct trace_config tc = { .run_dir = run_dir };
	int nr = runstate_dir(run_dir, sizeof(run_dir), NULL), refused = 0;

	if (nr == 0)
		nr = trace_programs_get(&tc, program);
	if (nr == -ENOENT)
		nr = trace_programs_probe(&tc, program);
	if (nr < 0) {
		report_add(r, LEVEL_MORE, "BPF programs", geteuid() ? "run as root" : "", "%s", strerror(-nr));
		return;
	}
	for (int i = 0; i < nr; i++) {
		if (!program[i].error)
			continue;
		snprintf(name, sizeof(name), "BPF %s", program[i].name);
		report_add(r, LEVEL_MORE, name, "the others run; this signal is lost unless one stands in", "%s",
			   program[i].reason[0] ? program[i].reason : strerror(-program[i].error));
		refused++;
	}
	if (!refused)
		report_add(r, LEVEL_OK, "BPF programs", "", "the kernel takes all of them");
}

static void bpf_add(struct report *r)
{
	struct statfs st;

	tracepoints_add(r);
	programs_add(r);
	if (statfs("/sys/fs/bpf", &st) == 0 && st.f_type == BPF_FS_MAGIC)
		report_add(r, LEVEL_OK, "BPF file system", "", "on /sys/fs/bpf");
	else
		report_add(r, LEVEL_OK, "BPF file system", "", "not mounted; the first volume mounts it");
}

static void limits_add(struct report *r)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	if (lim.rlim_max < 1024)
		report_add(r, LEVEL_MORE, "open files", "ulimit -n 65536", "at most %" PRIu64, (uint64_t)lim.rlim_max);
	else
		report_add(r, LEVEL_OK, "open files", "", "at most %" PRIu64, (uint64_t)lim.rlim_max);
}

static void volume_check(struct report *r, const struct volume *v, struct snapshot *s)
{
	const char *state, *dir = v->mount_point[0] ? v->mount_point : "DIR";
	char name[128], advice[512], run_dir[RUNSTATE_DIR_MAX];
	uint64_t kb;

	snapshot_take(v, s);
	state = snapshot_state(s);
	snprintf(name, sizeof(name), "volume %s", v->id);
	if (s->error == -ENOTCONN) {
		snprintf(advice, sizeof(advice), "penstock unmount %s", dir);
		report_add(r, LEVEL_BROKEN, name, advice, "dead");
	} else if (s->error == -ETIMEDOUT) {
		snprintf(advice, sizeof(advice), "kill -CONT %d, or penstock unmount --lazy %s", (int)v->pid, dir);
		report_add(r, LEVEL_BROKEN, name, advice, "does not answer");
	} else if (s->error < 0) {
		report_add(r, LEVEL_MORE, name, "see its log", "%s", state);
	} else if (strncmp(state, "degraded", 8) == 0) {
		report_add(r, LEVEL_BROKEN, name, "see its log", "%s", state);
	} else if (snapshot_number(s, CTL_FUSE_READ_AHEAD, &kb) && kb < READ_AHEAD_GOOD_KB &&
		   runstate_dir(run_dir, sizeof(run_dir), NULL) == 0) {
		snprintf(advice, sizeof(advice), "echo 4096 > %.256s/volumes/%s/fuse/read_ahead_kb", run_dir, v->id);
		report_add(r, LEVEL_MORE, name, advice, "%s, read-ahead of %" PRIu64 " KiB is little", state, kb);
	} else {
		report_add(r, LEVEL_OK, name, "", "%s, %s", state, snapshot_text(s, CTL_TRANSPORT));
	}
}

static int volumes_check(struct report *r, struct err *e)
{
	struct snapshot *s = snapshot_new();
	struct volumes all;
	int rc = s ? volumes_list(&all, e) : err_set(e, -ENOMEM, "out of memory");

	for (size_t i = 0; rc == 0 && i < all.nr; i++)
		volume_check(r, &all.all[i], s);
	if (rc == 0)
		volumes_free(&all);
	snapshot_free(s);
	return rc;
}

static int setting_fix(const struct setting *s, json_t *fixed, struct err *e)
{
	char before[64];
	FILE *f = fopen(s->path, "r+e");
	int rc = 0;

	/* A kernel without it has nothing to change. */
	if (!f)
		return errno == ENOENT ? 0 : err_set(e, -errno, "%s: %s; run as root", s->path, strerror(errno));
	if (!fgets(before, sizeof(before), f)) {
		fclose(f);
		return err_set(e, -EIO, "cannot read %s", s->path);
	}
	before[strcspn(before, "\n")] = '\0';
	if (!s->lacks(before)) {
		fclose(f);
		return 0;
	}
	rewind(f);
	if (fprintf(f, "%s\n", s->wanted) < 0)
		rc = -EIO;
	if (fclose(f) != 0 || rc < 0)
		return err_set(e, -EIO, "cannot change %s: %s", s->path, strerror(errno));
	json_array_append_new(fixed, json_pack("{s:s, s:s, s:s, s:s}", "path", s->path, "from", before, "to", s->wanted,
					       "for", s->meaning));
	return 0;
}

static int settings_fix(json_t *fixed, struct err *e)
{
	int rc = 0;

	for (size_t i = 0; i < array_len(settings) && rc == 0; i++)
		rc = setting_fix(&settings[i], fixed, e);
	return rc;
}

static const char *const level_names[] = { "ok", "more", "broken" };

static void report_json(const struct report *r, json_t *fixed)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->nr; i++) {
		const struct finding *f = &r->all[i];

		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", f->name, "level",
						      level_names[f->level], "value", f->value, "advice", f->advice));
	}
	json_out(json_pack("{s:O, s:o}", "fixed", fixed, "findings", list), JSON_INDENT(2));
}

static void report_print(const struct report *r, json_t *fixed)
{
	json_t *change;
	size_t at;

	json_array_foreach(fixed, at, change)
	{
		printf("changed %s from %s to %s, until the next boot: %s\n",
		       json_string_value(json_object_get(change, "path")),
		       json_string_value(json_object_get(change, "from")),
		       json_string_value(json_object_get(change, "to")),
		       json_string_value(json_object_get(change, "for")));
	}
	for (size_t i = 0; i < r->nr; i++) {
		const struct finding *f = &r->all[i];

		printf("%-6s  %-*s  %s\n", level_names[f->level], FEATURE_COLUMN, f->name, f->value);
		if (f->advice[0])
			printf("%-6s  %-*s  -> %s\n", "", FEATURE_COLUMN, "", f->advice);
	}
}

int verb_doctor(int argc, char **argv)
{
	_cleanup_free_ struct report *r = calloc(1, sizeof(*r));
	struct err e = { 0 };
	bool json = false, fix = false, broken = false;
	const struct opt opts[] = { { .name = "json", .flag = &json }, { .name = "fix", .flag = &fix } };
	json_t *fixed;
	int rc = 0;

	if (opts_parse(opts, array_len(opts), &argc, argv, &e) < 0)
		return tool_fail(&e, EXIT_USAGE);
	if (argc) {
		err_set(&e, -EINVAL, "doctor takes no argument");
		return tool_fail(&e, EXIT_USAGE);
	}
	fixed = json_array();
	if (!r || !fixed)
		rc = err_set(&e, -ENOMEM, "out of memory");
	if (rc == 0 && fix)
		rc = settings_fix(fixed, &e);
	if (rc == 0)
		rc = features_add(r, &e);
	if (rc == 0) {
		limits_add(r);
		bpf_add(r);
		rc = volumes_check(r, &e);
	}
	for (size_t i = 0; rc == 0 && i < r->nr; i++)
		broken |= r->all[i].level == LEVEL_BROKEN;
	if (rc == 0 && json)
		report_json(r, fixed);
	else if (rc == 0)
		report_print(r, fixed);
	json_decref(fixed);
	return rc < 0 ? tool_fail(&e, EXIT_FAILED) : broken ? EXIT_FAILED : EXIT_FINE;
}
