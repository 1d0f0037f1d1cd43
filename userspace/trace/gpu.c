// SPDX-License-Identifier: Apache-2.0
/*
 * Uprobes on libcuda, process by process.
 *
 * Design: the entry of a process in the map "gpu" is the claim of whoever looks at it, so that two volumes that it
 * reads do not count it twice. Links are not pinned: they end with this process.
 * Owns: the loaded object, the links and the entries of its processes.
 */
#define _GNU_SOURCE
#include "trace/gpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/cleanup.h"
#include "trace/trace_i.h"
#include "trace/util.h"

static const char *const symbols[] = { "cuMemcpyHtoD_v2",   "cuMemcpyHtoDAsync_v2", "cuMemcpyHtoD",
				       "cuMemcpyHtoDAsync", "cuMemcpyHtoD_v2_ptds", "cuMemcpyHtoDAsync_v2_ptsz" };

struct watched {
	pid_t pid; /* 0: free */
	struct bpf_link *links[2 * array_len(symbols)];
};

struct trace_gpu_watch {
	struct bpf_object *object;
	struct bpf_program *enter, *leave;
	int fd;                 /* of the map */
	struct trace_gpu ended; /* the sum of processes that have been let go */
	unsigned int max;
	struct watched *watched;
};

static int object_load(struct trace_gpu_watch *w, const struct pins *pins)
{
	_cleanup_close_ int pinned = pins_open(pins, "maps", "gpu");
	struct bpf_object_open_opts opts = { .sz = sizeof(opts), .object_name = "penstock_gpu" };
	struct bpf_map *map;
	const void *data;
	char path[PATH_MAX];
	size_t bytes;
	int rc;

	util_libbpf_log();
	object_gpu(&data, &bytes);
	w->object = bpf_object__open_mem(data, bytes, &opts);
	if (!w->object)
		return -errno;
	map = bpf_object__find_map_by_name(w->object, "penstock_gpu");
	w->enter = bpf_object__find_program_by_name(w->object, "penstock_copy");
	w->leave = bpf_object__find_program_by_name(w->object, "penstock_copied");
	if (!map || !w->enter || !w->leave)
		return -EBADMSG;
	if (pinned >= 0 && bpf_map__reuse_fd(map, pinned) < 0)
		return -errno;
	rc = bpf_object__load(w->object);
	if (rc < 0)
		return rc;
	w->fd = bpf_map__fd(map);
	rc = pins_path(pins, "maps", "gpu", path, sizeof(path));
	if (rc == 0 && pinned < 0 && bpf_obj_pin(w->fd, path) < 0)
		rc = -errno;
	return rc;
}

int trace_gpu_new(const struct trace_config *c, unsigned int processes_max, struct trace_gpu_watch **ret, struct err *e)
{
	struct trace_gpu_watch *w = calloc(1, sizeof(*w));
	struct trace_state state;
	struct pins pins;
	int rc = -ENOMEM;

	if (!w)
		return err_set(e, rc, "no memory to look at GPU copies");
	w->max = processes_max;
	w->watched = calloc(processes_max, sizeof(*w->watched));
	if (!w->watched) {
		err_set(e, rc, "no memory to look at GPU copies");
		goto fail;
	}
	rc = pins_lock(&pins, c, false, e);
	if (rc < 0)
		goto fail;
	rc = pins_state(&pins, &state);
	if (rc == 0)
		rc = object_load(w, &pins);
	pins_unlock(&pins);
	if (rc < 0) {
		err_set(e, rc, "cannot look at GPU copies: %s", strerror(-rc));
		goto fail;
	}
	*ret = w;
	return 0;
fail:
	trace_gpu_free(w);
	return rc;
}

static void counts_sum(struct trace_gpu *to, const struct trace_gpu *add)
{
	to->bytes += add->bytes;
	to->calls += add->calls;
	to->ns += add->ns;
	if (add->first_ns && (!to->first_ns || add->first_ns < to->first_ns))
		to->first_ns = add->first_ns;
	to->last_ns = max_of(to->last_ns, add->last_ns);
}

static void watched_release(struct trace_gpu_watch *w, struct watched *p)
{
	uint32_t pid = (uint32_t)p->pid;
	struct trace_gpu gpu;

	for (size_t i = 0; i < array_len(p->links); i++)
		bpf_link__destroy(p->links[i]);
	if (bpf_map_lookup_elem(w->fd, &pid, &gpu) == 0)
		counts_sum(&w->ended, &gpu);
	(void)bpf_map_delete_elem(w->fd, &pid);
	*p = (struct watched){ 0 };
}

void trace_gpu_free(struct trace_gpu_watch *w)
{
	if (!w)
		return;
	for (unsigned int i = 0; w->watched && i < w->max; i++) {
		if (w->watched[i].pid)
			watched_release(w, &w->watched[i]);
	}
	if (w->object)
		bpf_object__close(w->object);
	free(w->watched);
	free(w);
}

/* The process's libcuda, as seen from here. */
static int library_find(pid_t pid, char *ret, size_t room)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t line_room = 0;
	char maps[64];

	snprintf(maps, sizeof(maps), "/proc/%d/maps", (int)pid);
	f = fopen(maps, "re");
	if (!f)
		return -errno;
	while (getline(&line, &line_room, f) > 0) {
		char *path = strchr(line, '/'), *name = path ? strrchr(path, '/') + 1 : NULL;

		if (!path || strncmp(name, "libcuda.so", 10) != 0)
			continue;
		path[strcspn(path, "\n")] = '\0';
		return snprintf(ret, room, "/proc/%d/root%s", (int)pid, path) < (int)room ? 1 : -ENAMETOOLONG;
	}
	return 0;
}

/* Symbols that this libcuda lacks are left out; all of them is an error. */
static int watched_attach(const struct trace_gpu_watch *w, struct watched *p, const char *library)
{
	size_t nr = 0;
	int rc = -ENOENT;

	for (size_t i = 0; i < array_len(symbols); i++) {
		struct bpf_uprobe_opts opts = { .sz = sizeof(opts), .func_name = symbols[i] };
		struct bpf_link *enter, *leave;

		/* The way out first: a call that enters in between is then not seen at all. */
		opts.retprobe = true;
		leave = bpf_program__attach_uprobe_opts(w->leave, p->pid, library, 0, &opts);
		if (!leave) {
			if (errno != ENOENT)
				rc = -errno;
			continue;
		}
		opts.retprobe = false;
		enter = bpf_program__attach_uprobe_opts(w->enter, p->pid, library, 0, &opts);
		if (!enter) {
			rc = -errno;
			bpf_link__destroy(leave);
			continue;
		}
		p->links[nr++] = enter;
		p->links[nr++] = leave;
	}
	return nr ? 0 : rc;
}

int trace_gpu_add(struct trace_gpu_watch *w, pid_t pid)
{
	const struct trace_gpu none = { 0 };
	struct watched *free_place = NULL;
	uint32_t key = (uint32_t)pid;
	char library[PATH_MAX];
	int rc;

	for (unsigned int i = 0; i < w->max; i++) {
		if (w->watched[i].pid == pid)
			return 0;
		if (!w->watched[i].pid && !free_place)
			free_place = &w->watched[i];
	}
	if (!free_place)
		return -ENOSPC;
	rc = library_find(pid, library, sizeof(library));
	if (rc <= 0)
		return rc;
	if (bpf_map_update_elem(w->fd, &key, &none, BPF_NOEXIST) < 0)
		return errno == EEXIST ? 0 : -errno;
	free_place->pid = pid;
	rc = watched_attach(w, free_place, library);
	if (rc < 0) {
		watched_release(w, free_place);
		return rc;
	}
	return 1;
}

void trace_gpu_sweep(struct trace_gpu_watch *w)
{
	for (unsigned int i = 0; i < w->max; i++) {
		if (w->watched[i].pid && kill(w->watched[i].pid, 0) < 0 && errno == ESRCH)
			watched_release(w, &w->watched[i]);
	}
}

int trace_gpu_sum(struct trace_gpu_watch *w, struct trace_gpu *ret)
{
	struct trace_gpu gpu;

	*ret = w->ended;
	for (unsigned int i = 0; i < w->max; i++) {
		uint32_t pid = (uint32_t)w->watched[i].pid;

		if (pid && bpf_map_lookup_elem(w->fd, &pid, &gpu) == 0)
			counts_sum(ret, &gpu);
	}
	return 0;
}
