// SPDX-License-Identifier: Apache-2.0
/*
 * Loading, joining, upgrading and removing the node's tracer.
 *
 * Design: the pins are the truth and every call reads them afresh under the lock, since another process may have
 * replaced the tracer in between. A tracer whose state cannot be read is the rest of a crash and is removed.
 * Owns: struct trace has the volume's ring buffer and a link to the flush iterator.
 */
#include "trace/trace_i.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "base/cleanup.h"
#include "base/log.h"

struct trace {
	char *run_dir;
	char *bpffs; /* NULL: the usual place */
	struct trace_volume owner;
	uint32_t dev;
	uint32_t index;
	int ring_fd;
	int flush_fd;
};

static void maps_pin(const struct programs *p, const struct pins *pins, int *rc)
{
	char path[PATH_MAX];

	for (size_t i = 0; *rc == 0 && i < nr_pin_maps; i++) {
		const struct bpf_map *map = bpf_object__find_map_by_name(p->object, pin_maps[i].map);

		if (!map)
			continue;
		*rc = pins_path(pins, "maps", pin_maps[i].pin, path, sizeof(path));
		if (*rc == 0 && bpf_obj_pin(bpf_map__fd(map), path) < 0)
			*rc = -errno;
	}
}

/* The version comes last: without it the pins are the rest of a crash. */
static int state_write(const struct programs *p, const struct pins *pins, uint32_t version, bool bpffs_made)
{
	_cleanup_close_ int programs_fd = pins_open(pins, "maps", "programs");
	_cleanup_close_ int state_fd = pins_open(pins, "maps", "state");
	struct trace_state state = { .version = version, .bpffs_made = bpffs_made };
	struct trace_program none = { 0 };

	for (uint32_t i = 0; i < TRACE_PROGRAMS_MAX; i++) {
		if (bpf_map_update_elem(programs_fd, &i, (int)i < p->nr ? &p->verdict[i] : &none, BPF_ANY) < 0)
			return -errno;
	}
	return bpf_map_update_elem(state_fd, &(uint32_t){ 0 }, &state, BPF_ANY) < 0 ? -errno : 0;
}

static uint32_t version_of(const struct trace_config *c)
{
	return c->object ? c->object_version : TRACE_VERSION;
}

/* Loads our programs; <old> are the volumes of the version before, or NULL. */
static int tracer_load(struct pins *pins, const struct trace_config *c, const struct volumes *old, struct err *e)
{
	struct volumes new = VOLUMES_INIT;
	struct programs p;
	bool bpffs_made = pins->bpffs_made, touched = !old;
	struct trace_state state;
	int rc;

	if (pins_state(pins, &state) == 0)
		bpffs_made = state.bpffs_made;
	rc = programs_load(&p, c, old ? pins : NULL, e);
	if (rc < 0)
		goto out;
	touched = true;
	pins_clear(pins, "links");
	pins_clear(pins, "progs");
	pins_clear(pins, "maps");
	maps_pin(&p, pins, &rc);
	if (rc == 0)
		rc = volumes_open(&new, pins);
	if (rc == 0 && old)
		rc = volumes_move(old, &new);
	if (rc < 0) {
		err_set(e, rc, "cannot pin the tracer's maps: %s", strerror(-rc));
		goto out;
	}
	rc = programs_attach(&p, pins, e);
	if (rc < 0)
		goto out;
	rc = state_write(&p, pins, version_of(c), bpffs_made);
	if (rc < 0)
		err_set(e, rc, "cannot write the tracer's state: %s", strerror(-rc));
out:
	volumes_close(&new);
	programs_done(&p);
	/* A new version that the kernel refuses leaves the old one at work. */
	if (rc < 0 && touched)
		pins_remove(pins);
	return rc;
}

/* A tracer of our version runs after this, and <v> are its volumes. */
static int tracer_ensure(struct pins *pins, const struct trace_config *c, struct volumes *v, struct err *e)
{
	struct volumes old = VOLUMES_INIT;
	struct trace_state state;
	int rc;

	rc = pins_state(pins, &state);
	if (rc == 0)
		rc = volumes_open(&old, pins);
	if (rc < 0) {
		rc = tracer_load(pins, c, NULL, e);
	} else if (state.version != version_of(c)) {
		log_info("trace", "replacing version %u of the tracer by version %u", state.version, version_of(c));
		rc = tracer_load(pins, c, &old, e);
	}
	volumes_close(&old);
	if (rc < 0)
		return rc;
	rc = volumes_open(v, pins);
	return rc < 0 ? err_set(e, rc, "the tracer's maps cannot be opened: %s", strerror(-rc)) : 0;
}

static void trace_free(struct trace *t)
{
	cleanup_close(&t->ring_fd);
	cleanup_close(&t->flush_fd);
	free(t->run_dir);
	free(t->bpffs);
	free(t);
}

static int trace_new(const struct trace_config *c, const struct trace_volume_config *volume, struct trace **ret,
		     struct err *e)
{
	pid_t owner = volume->owner ? volume->owner : getpid();
	struct trace *t = calloc(1, sizeof(*t));
	int rc = -ENOMEM;

	if (!t)
		goto fail;
	t->ring_fd = t->flush_fd = -1;
	t->dev = trace_dev(volume->dev);
	t->run_dir = strdup(c->run_dir);
	t->bpffs = c->bpffs ? strdup(c->bpffs) : NULL;
	if (!t->run_dir || (c->bpffs && !t->bpffs))
		goto fail;
	rc = volumes_owner(owner, &t->owner);
	if (rc < 0)
		goto fail;
	*ret = t;
	return 0;
fail:
	if (t)
		trace_free(t);
	if (rc == -ESRCH)
		return err_set(e, rc, "the volume's process %d does not live", (int)owner);
	return err_set(e, rc, "no memory for the tracer");
}

int trace_start(const struct trace_config *c, const struct trace_volume_config *volume, struct trace **ret,
		struct err *e)
{
	struct volumes v = VOLUMES_INIT;
	struct trace *t = NULL;
	struct pins pins;
	int rc;

	rc = trace_new(c, volume, &t, e);
	if (rc < 0)
		return rc;
	rc = pins_lock(&pins, c, true, e);
	if (rc < 0)
		goto fail;
	rc = tracer_ensure(&pins, c, &v, e);
	if (rc == 0) {
		volumes_sweep(&v, &pins);
		rc = volumes_add(&v, &pins, volume, &t->owner, &t->index, &t->ring_fd, e);
		if (rc < 0 && volumes_count(&v) == 0)
			pins_remove(&pins);
		volumes_close(&v);
	}
	if (rc == 0)
		t->flush_fd = pins_open(&pins, "links", "penstock_flush");
	pins_unlock(&pins);
	if (rc < 0)
		goto fail;
	*ret = t;
	return 0;
fail:
	trace_free(t);
	return rc;
}

static struct trace_config trace_config_of(const struct trace *t)
{
	return (struct trace_config){ .run_dir = t->run_dir, .bpffs = t->bpffs };
}

/* The entry of this volume, unless another one has taken its place. */
static int trace_entry(const struct trace *t, const struct volumes *v, struct trace_volume *ret)
{
	if (bpf_map_lookup_elem(v->volume_fd, &t->dev, ret) < 0)
		return -errno;
	return ret->index == t->index && ret->owner_pid == t->owner.owner_pid &&
			       ret->owner_start == t->owner.owner_start
		     ? 0
		     : -ESTALE;
}

void trace_stop(struct trace *t)
{
	struct volumes v = VOLUMES_INIT;
	struct trace_volume volume;
	struct trace_config c;
	struct pins pins;
	struct err e;

	if (!t)
		return;
	c = trace_config_of(t);
	if (pins_lock(&pins, &c, false, &e) < 0) {
		log_warn("trace", "the volume stays registered with the tracer: %s", e.msg);
	} else {
		if (volumes_open(&v, &pins) == 0) {
			if (trace_entry(t, &v, &volume) == 0)
				volumes_remove(&v, &pins, t->dev);
			if (volumes_count(&v) == 0)
				pins_remove(&pins);
			volumes_close(&v);
		}
		pins_unlock(&pins);
	}
	trace_free(t);
}

int trace_ring_fd(const struct trace *t)
{
	return t->ring_fd;
}

int trace_flush_fd(const struct trace *t)
{
	return t->flush_fd;
}

/* Runs <work> on the maps of this volume, under the lock. */
static int trace_with_entry(struct trace *t,
			    int (*work)(struct trace *t, const struct volumes *v, struct trace_volume *entry,
					void *arg),
			    void *arg)
{
	struct trace_config c = trace_config_of(t);
	struct volumes v = VOLUMES_INIT;
	struct trace_volume entry;
	struct pins pins;
	int rc;

	rc = pins_lock(&pins, &c, false, NULL);
	if (rc < 0)
		return rc;
	rc = volumes_open(&v, &pins);
	if (rc == 0)
		rc = trace_entry(t, &v, &entry);
	if (rc == 0)
		rc = work(t, &v, &entry, arg);
	volumes_close(&v);
	pins_unlock(&pins);
	return rc;
}

static int record_write(struct trace *t, const struct volumes *v, struct trace_volume *entry, void *arg)
{
	entry->record = *(const bool *)arg;
	return bpf_map_update_elem(v->volume_fd, &t->dev, entry, BPF_EXIST) < 0 ? -errno : 0;
}

int trace_record_set(struct trace *t, bool on)
{
	return trace_with_entry(t, record_write, &on);
}

static int drops_read(struct trace *t, const struct volumes *v, struct trace_volume *entry, void *arg)
{
	return bpf_map_lookup_elem(v->drops_fd, &entry->index, arg) < 0 ? -errno : 0;
}

int trace_drops_get(struct trace *t, struct trace_drops *ret)
{
	return trace_with_entry(t, drops_read, ret);
}

static void counts_add(struct trace_counts *sum, const struct trace_counts *one)
{
	sum->bytes += one->bytes;
	sum->map_bytes += one->map_bytes;
	sum->hits += one->hits;
	sum->misses += one->misses;
	sum->faults += one->faults;
	sum->stall_ns += one->stall_ns;
	sum->requests += one->requests;
	sum->request_bytes += one->request_bytes;
	sum->last_ns = max_of(sum->last_ns, one->last_ns);
}

int trace_counts_get(struct trace *t, struct trace_counts *ret)
{
	struct trace_config c = trace_config_of(t);
	struct trace_cgroup_key key, next;
	struct trace_counts one;
	struct pins pins;
	int fd, rc = pins_lock(&pins, &c, false, NULL);

	*ret = (struct trace_counts){ 0 };
	if (rc < 0)
		return rc;
	fd = pins_open(&pins, "maps", "cgroups");
	pins_unlock(&pins);
	if (fd < 0)
		return fd;
	/* A group that goes away meanwhile starts the walk anew: it is bounded by the table's size. */
	rc = bpf_map_get_next_key(fd, NULL, &next);
	for (unsigned i = 0; rc == 0 && i < TRACE_CGROUPS_MAX; i++) {
		key = next;
		if (key.dev == t->dev && bpf_map_lookup_elem(fd, &key, &one) == 0)
			counts_add(ret, &one);
		rc = bpf_map_get_next_key(fd, &key, &next);
	}
	close(fd);
	return 0;
}

int trace_clean(const struct trace_config *c, struct err *e)
{
	struct volumes v = VOLUMES_INIT;
	struct pins pins;
	int rc, left = 0;

	rc = pins_lock(&pins, c, false, e);
	if (rc < 0)
		return rc;
	if (volumes_open(&v, &pins) == 0) {
		volumes_sweep(&v, &pins);
		left = volumes_count(&v);
		volumes_close(&v);
	}
	if (left == 0)
		pins_remove(&pins);
	pins_unlock(&pins);
	return left;
}

int trace_unload(const struct trace_config *c, struct err *e)
{
	struct pins pins;
	int rc;

	rc = pins_lock(&pins, c, false, e);
	if (rc < 0)
		return rc;
	pins_remove(&pins);
	pins_unlock(&pins);
	return 0;
}

int trace_programs_get(const struct trace_config *c, struct trace_program ret[TRACE_PROGRAMS_MAX])
{
	_cleanup_close_ int fd = -1;
	struct pins pins;
	int nr = 0, rc;

	rc = pins_lock(&pins, c, false, NULL);
	if (rc < 0)
		return rc;
	fd = pins_open(&pins, "maps", "programs");
	for (uint32_t i = 0; fd >= 0 && i < TRACE_PROGRAMS_MAX; i++) {
		if (bpf_map_lookup_elem(fd, &i, &ret[nr]) == 0 && ret[nr].name[0])
			nr++;
	}
	pins_unlock(&pins);
	return fd < 0 ? fd : nr;
}

int trace_programs_probe(const struct trace_config *c, struct trace_program ret[TRACE_PROGRAMS_MAX])
{
	struct programs p;

	(void)programs_load(&p, c, NULL, NULL);
	memcpy(ret, p.verdict, (size_t)p.nr * sizeof(*ret));
	programs_done(&p);
	return p.nr;
}
