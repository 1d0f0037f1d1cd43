// SPDX-License-Identifier: Apache-2.0
/*
 * BPF programs into the kernel, one by one where it does not take them all.
 *
 * Design: libbpf loads an object as a whole or not at all. So all preferred programs are tried together; only when that
 * fails is each one tried alone, then its stand-in, and at last all that passed are loaded together.
 */
#include "trace/trace_i.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "trace/util.h"

#define LOG_BYTES (64 << 10)

/* Programs that are only tried when the first of the pair is refused. */
static const struct {
	const char *name, *stand_in;
} pairs[] = {
	{ "penstock_read", "penstock_rread" }, { "penstock_fault", "penstock_rfault" },
	{ "penstock_map", "penstock_rmap" },   { "penstock_send", "penstock_tsend" },
	{ "penstock_end", "penstock_tend" },
};

static const char *stand_in_of(const char *name)
{
	for (size_t i = 0; i < array_len(pairs); i++) {
		if (strcmp(pairs[i].name, name) == 0)
			return pairs[i].stand_in;
	}
	return NULL;
}

static bool is_stand_in(const char *name)
{
	for (size_t i = 0; i < array_len(pairs); i++) {
		if (strcmp(pairs[i].stand_in, name) == 0)
			return true;
	}
	return false;
}

static int object_open(const struct trace_config *c, struct bpf_object **ret)
{
	const void *data = c->object;
	size_t bytes = c->object_bytes;
	struct bpf_object_open_opts opts = { .sz = sizeof(opts), .object_name = "penstock" };

	if (!data)
		object_builtin(&data, &bytes);
	util_libbpf_log();
	*ret = bpf_object__open_mem(data, bytes, &opts);
	return *ret ? 0 : -errno;
}

/* A pinned map of the same shape goes on being used; the kernel's view of the shape decides. */
static int maps_reuse(struct bpf_object *object, const struct pins *pins)
{
	for (size_t i = 0; i < nr_pin_maps; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(object, pin_maps[i].map);
		_cleanup_close_ int fd = map ? pins_open(pins, "maps", pin_maps[i].pin) : -1;
		struct bpf_map_info info = { 0 };
		uint32_t len = sizeof(info);

		if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0)
			continue;
		if (info.type != bpf_map__type(map) || info.key_size != bpf_map__key_size(map) ||
		    info.value_size != bpf_map__value_size(map) || info.max_entries != bpf_map__max_entries(map) ||
		    info.map_flags != bpf_map__map_flags(map))
			continue;
		if (bpf_map__reuse_fd(map, fd) < 0)
			return -errno;
	}
	return 0;
}

/* The verifier's last word: the line before its statistics. */
static void reason_set(struct trace_program *v, int error, char *log)
{
	char *end = strstr(log, "\nprocessed "), *line;

	v->error = error;
	if (error == -ESRCH) {
		snprintf(v->reason, sizeof(v->reason), "the kernel has no such tracepoint");
		return;
	}
	if (end) {
		*end = '\0';
		line = strrchr(log, '\n');
		line = line ? line + 1 : log;
		if (*line) {
			snprintf(v->reason, sizeof(v->reason), "%.*s", (int)sizeof(v->reason) - 1, line);
			return;
		}
	}
	snprintf(v->reason, sizeof(v->reason), "%s", strerror(-error));
}

/* Tries one program in an object of its own. */
static int program_try(const struct trace_config *c, const char *name, struct trace_program *ret)
{
	_cleanup_free_ char *log = calloc(1, LOG_BYTES);
	struct bpf_program *prog;
	struct bpf_object *object;
	int rc;

	if (!log)
		return -ENOMEM;
	*ret = (struct trace_program){ 0 };
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	rc = object_open(c, &object);
	if (rc < 0)
		return rc;
	bpf_object__for_each_program(prog, object)
	{
		bool wanted = strcmp(bpf_program__name(prog), name) == 0;

		bpf_program__set_autoload(prog, wanted);
		if (wanted)
			bpf_program__set_log_buf(prog, log, LOG_BYTES);
	}
	rc = bpf_object__load(object);
	if (rc < 0)
		reason_set(ret, rc, log);
	bpf_object__close(object);
	return 0;
}

static void verdict_add(struct programs *p, const struct trace_program *v)
{
	if (p->nr < TRACE_PROGRAMS_MAX)
		p->verdict[p->nr++] = *v;
}

static bool verdict_runs(const struct programs *p, const char *name)
{
	for (int i = 0; i < p->nr; i++) {
		if (strcmp(p->verdict[i].name, name) == 0)
			return p->verdict[i].error == 0;
	}
	return false;
}

static int programs_judge(struct programs *p, const struct trace_config *c)
{
	struct trace_program v;
	struct bpf_program *prog;
	int rc = 0;

	p->nr = 0;
	bpf_object__for_each_program(prog, p->object)
	{
		const char *name = bpf_program__name(prog), *stand_in = stand_in_of(name);

		if (is_stand_in(name))
			continue;
		rc = program_try(c, name, &v);
		if (rc < 0)
			return rc;
		verdict_add(p, &v);
		if (v.error == 0 || !stand_in)
			continue;
		rc = program_try(c, stand_in, &v);
		if (rc < 0)
			return rc;
		v.stands_in = 1;
		verdict_add(p, &v);
	}
	return rc;
}

/* One attempt with the programs that the verdicts allow. */
static int programs_load_once(struct programs *p, const struct trace_config *c, const struct pins *pins)
{
	struct bpf_program *prog;
	int rc;

	if (p->object)
		bpf_object__close(p->object);
	p->object = NULL;
	rc = object_open(c, &p->object);
	if (rc == 0 && pins)
		rc = maps_reuse(p->object, pins);
	if (rc < 0)
		return rc;
	bpf_object__for_each_program(prog, p->object)
	{
		bpf_program__set_autoload(prog, verdict_runs(p, bpf_program__name(prog)));
	}
	return bpf_object__load(p->object);
}

static int programs_running(const struct programs *p)
{
	int nr = 0;

	for (int i = 0; i < p->nr; i++)
		nr += p->verdict[i].error == 0;
	return nr;
}

int programs_load(struct programs *p, const struct trace_config *c, const struct pins *pins, struct err *e)
{
	struct trace_program v = { 0 };
	struct bpf_program *prog;
	int rc;

	*p = (struct programs){ 0 };
	rc = object_open(c, &p->object);
	if (rc < 0)
		return err_set(e, rc, "the tracer's BPF object cannot be read: %s", strerror(-rc));
	bpf_object__for_each_program(prog, p->object)
	{
		if (is_stand_in(bpf_program__name(prog)))
			continue;
		snprintf(v.name, sizeof(v.name), "%s", bpf_program__name(prog));
		verdict_add(p, &v);
	}
	rc = programs_load_once(p, c, pins);
	if (rc == 0)
		return 0;
	rc = programs_judge(p, c);
	if (rc == 0 && programs_running(p) == 0)
		rc = -ENOTSUP;
	if (rc == 0)
		rc = programs_load_once(p, c, pins);
	if (rc < 0)
		err_set(e, rc, "the kernel takes none of the tracer's programs: %s: %s",
			p->nr ? p->verdict[0].name : "object", p->nr ? p->verdict[0].reason : strerror(-rc));
	return rc;
}

/*
 * A plain tracepoint, by its number in tracefs. libbpf's own link would switch the event off when it is closed, pinned
 * or not.
 */
static int tracepoint_attach(const char *category_name)
{
	static const char *const roots[] = { "/sys/kernel/tracing", "/sys/kernel/debug/tracing" };
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr), .sample_period = 1 };
	_cleanup_fclose_ FILE *f = NULL;
	unsigned long long id;
	char path[256];
	long fd;

	for (size_t i = 0; !f && i < array_len(roots); i++) {
		snprintf(path, sizeof(path), "%s/events/%s/id", roots[i], category_name);
		f = fopen(path, "re");
	}
	if (!f || fscanf(f, "%llu", &id) != 1)
		return -ENOENT;
	attr.config = id;
	fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : (int)fd;
}

/* A descriptor of the link; it lives on in its pin. */
static int program_link(struct bpf_program *prog)
{
	const char *section = bpf_program__section_name(prog);
	struct bpf_link *link;
	int fd;

	if (strncmp(section, "tp/", 3) == 0) {
		_cleanup_close_ int event_fd = tracepoint_attach(section + 3);

		if (event_fd < 0)
			return event_fd;
		fd = bpf_link_create(bpf_program__fd(prog), event_fd, BPF_PERF_EVENT, NULL);
		return fd < 0 ? -errno : fd;
	}
	link = bpf_program__attach(prog);
	if (!link)
		return -errno;
	fd = fcntl(bpf_link__fd(link), F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		fd = -errno;
	bpf_link__destroy(link);
	return fd;
}

static int program_attach(struct bpf_program *prog, const struct pins *pins)
{
	_cleanup_close_ int fd = program_link(prog);
	const char *name = bpf_program__name(prog);
	char path[PATH_MAX];
	int rc;

	if (fd < 0)
		return fd;
	rc = pins_path(pins, "progs", name, path, sizeof(path));
	if (rc == 0 && bpf_obj_pin(bpf_program__fd(prog), path) < 0)
		rc = -errno;
	if (rc == 0)
		rc = pins_path(pins, "links", name, path, sizeof(path));
	if (rc == 0 && bpf_obj_pin(fd, path) < 0)
		rc = -errno;
	return rc;
}

int programs_attach(struct programs *p, const struct pins *pins, struct err *e)
{
	struct bpf_program *prog;
	int rc;

	bpf_object__for_each_program(prog, p->object)
	{
		for (int i = 0; i < p->nr; i++) {
			struct trace_program *v = &p->verdict[i];

			if (v->error || strcmp(v->name, bpf_program__name(prog)) != 0)
				continue;
			rc = program_attach(prog, pins);
			if (rc < 0) {
				v->error = rc;
				snprintf(v->reason, sizeof(v->reason), "cannot be attached: %s", strerror(-rc));
			}
		}
	}
	for (int i = 0; i < p->nr; i++) {
		if (p->verdict[i].error)
			log_warn("trace", "the kernel refuses %s: %s", p->verdict[i].name, p->verdict[i].reason);
	}
	if (programs_running(p) == 0)
		return err_set(e, -ENOTSUP, "none of the tracer's programs can be attached: %s", p->verdict[0].reason);
	return 0;
}

void programs_done(struct programs *p)
{
	if (p->object)
		bpf_object__close(p->object);
	p->object = NULL;
}
