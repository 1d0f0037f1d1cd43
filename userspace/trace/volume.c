// SPDX-License-Identifier: Apache-2.0
/*
 * Volumes in the tracer's maps: registered, judged stale, removed with what was counted for them.
 *
 * Owns nothing: all calls happen under the lock of the pins, on descriptors that the caller opened.
 */
#define _GNU_SOURCE
#include "trace/trace_i.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <bpf/bpf.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "trace/util.h"

#define RING_BYTES_DEFAULT (1u << 20)
#define RING_BYTES_MAX (1u << 28)
#define KEY_BYTES_MAX 32

uint32_t trace_dev(dev_t dev)
{
	return (uint32_t)(major(dev) << 20 | minor(dev));
}

int volumes_open(struct volumes *v, const struct pins *p)
{
	v->volume_fd = pins_open(p, "maps", "volumes");
	v->filter_fd = pins_open(p, "maps", "filter");
	v->rings_fd = pins_open(p, "maps", "rings");
	v->drops_fd = pins_open(p, "maps", "drops");
	if (v->volume_fd >= 0 && v->filter_fd >= 0 && v->rings_fd >= 0 && v->drops_fd >= 0)
		return 0;
	volumes_close(v);
	return -ENOENT;
}

void volumes_close(struct volumes *v)
{
	cleanup_close(&v->volume_fd);
	cleanup_close(&v->filter_fd);
	cleanup_close(&v->rings_fd);
	cleanup_close(&v->drops_fd);
	*v = (struct volumes)VOLUMES_INIT;
}

int volumes_count(const struct volumes *v)
{
	uint32_t key, *prev = NULL;
	int nr = 0;

	for (; bpf_map_get_next_key(v->volume_fd, prev, &key) == 0; prev = &key)
		nr++;
	return nr;
}

/* Says how many volumes have a device with these low bits. */
static int filter_write(const struct volumes *v, uint32_t dev)
{
	uint32_t slot = dev % TRACE_FILTER_SLOTS, nr = 0, key, *prev = NULL;

	for (; bpf_map_get_next_key(v->volume_fd, prev, &key) == 0; prev = &key)
		nr += key % TRACE_FILTER_SLOTS == slot;
	return bpf_map_update_elem(v->filter_fd, &slot, &nr, BPF_ANY) < 0 ? -errno : 0;
}

/* Start time of a process in clock ticks, field 22 of its stat; 0: it does not live. */
static uint64_t process_start(pid_t pid)
{
	_cleanup_fclose_ FILE *f = NULL;
	unsigned long long start;
	char path[64], line[1024];
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return 0;
	/* The name, in brackets, may hold anything. */
	p = strrchr(line, ')');
	if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
			 &start) != 1)
		return 0;
	return start;
}

static uint64_t namespace_inode(pid_t pid, const char *kind)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kind);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

int volumes_owner(pid_t pid, struct trace_volume *ret)
{
	ret->owner_pid = (uint32_t)pid;
	ret->owner_start = process_start(pid);
	ret->pid_ns = namespace_inode(pid, "pid");
	ret->mnt_ns = namespace_inode(pid, "mnt");
	return ret->owner_start ? 0 : -ESRCH;
}

static bool device_is_mounted(uint32_t dev)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	unsigned int major_nr, minor_nr;
	size_t room = 0;

	while (f && getline(&line, &room, f) > 0) {
		if (sscanf(line, "%*d %*d %u:%u", &major_nr, &minor_nr) == 2 && (major_nr << 20 | minor_nr) == dev)
			return true;
	}
	return !f;
}

/* Only those who see the owner's processes and mounts may say that they have gone. */
static bool volume_is_stale(uint32_t dev, const struct trace_volume *v)
{
	if (v->pid_ns == namespace_inode(getpid(), "pid") && process_start((pid_t)v->owner_pid) != v->owner_start)
		return true;
	return v->mnt_ns == namespace_inode(getpid(), "mnt") && !device_is_mounted(dev);
}

/* Removes all entries of a map whose key starts with this device. */
static void map_purge(const struct pins *p, const char *pin, uint32_t dev)
{
	_cleanup_close_ int fd = pins_open(p, "maps", pin);
	unsigned char key[KEY_BYTES_MAX], next[KEY_BYTES_MAX];
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	bool more;

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) < 0 || info.key_size > sizeof(key))
		return;
	more = bpf_map_get_next_key(fd, NULL, next) == 0;
	while (more) {
		memcpy(key, next, sizeof(key));
		more = bpf_map_get_next_key(fd, key, next) == 0;
		if (memcmp(key, &dev, sizeof(dev)) == 0)
			(void)bpf_map_delete_elem(fd, key);
	}
}

void volumes_remove(struct volumes *v, const struct pins *p, uint32_t dev)
{
	static const char *const counted[] = { "files", "cgroups", "latency", "flights", "blocks" };
	_cleanup_close_ int flush_fd = pins_open(p, "links", "penstock_flush");
	struct trace_volume volume;

	if (bpf_map_lookup_elem(v->volume_fd, &dev, &volume) < 0)
		return;
	/* Another mount may get this number: nothing that threads still hold may reach it. */
	if (flush_fd >= 0)
		(void)util_flush(flush_fd);
	(void)bpf_map_delete_elem(v->volume_fd, &dev);
	(void)filter_write(v, dev);
	(void)bpf_map_delete_elem(v->rings_fd, &volume.index);
	for (size_t i = 0; i < array_len(counted); i++)
		map_purge(p, counted[i], dev);
}

void volumes_sweep(struct volumes *v, const struct pins *p)
{
	uint32_t key, next;
	bool more = bpf_map_get_next_key(v->volume_fd, NULL, &next) == 0;
	struct trace_volume volume;

	while (more) {
		key = next;
		more = bpf_map_get_next_key(v->volume_fd, &key, &next) == 0;
		if (bpf_map_lookup_elem(v->volume_fd, &key, &volume) < 0 || !volume_is_stale(key, &volume))
			continue;
		log_info("trace", "volume %.*s has gone without a word: removed from the tracer", TRACE_ID_BYTES,
			 volume.id);
		volumes_remove(v, p, key);
	}
}

/* Removes what the new volume replaces and finds a free index. */
static int volumes_make_room(struct volumes *v, const struct pins *p, uint32_t dev, const char *id, uint32_t *ret_index)
{
	bool used[TRACE_VOLUMES_MAX] = { false }, more;
	struct trace_volume volume;
	uint32_t key, next;

	more = bpf_map_get_next_key(v->volume_fd, NULL, &next) == 0;
	while (more) {
		key = next;
		more = bpf_map_get_next_key(v->volume_fd, &key, &next) == 0;
		if (bpf_map_lookup_elem(v->volume_fd, &key, &volume) < 0)
			continue;
		if (key == dev || strncmp(volume.id, id, sizeof(volume.id)) == 0)
			volumes_remove(v, p, key);
		else if (volume.index < TRACE_VOLUMES_MAX)
			used[volume.index] = true;
	}
	for (uint32_t i = 0; i < TRACE_VOLUMES_MAX; i++) {
		if (!used[i]) {
			*ret_index = i;
			return 0;
		}
	}
	return -ENOSPC;
}

static int ring_create(uint32_t wanted_bytes)
{
	uint32_t bytes = (uint32_t)sysconf(_SC_PAGESIZE);
	int fd;

	wanted_bytes = wanted_bytes ? min_of(wanted_bytes, RING_BYTES_MAX) : RING_BYTES_DEFAULT;
	while (bytes < wanted_bytes)
		bytes <<= 1;
	fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "penstock_ring", 0, 0, bytes, NULL);
	return fd < 0 ? -errno : fd;
}

int volumes_add(struct volumes *v, const struct pins *p, const struct trace_volume_config *c,
		const struct trace_volume *owner, uint32_t *ret_index, int *ret_ring_fd, struct err *e)
{
	struct trace_volume volume = *owner;
	struct trace_drops drops = { 0 };
	_cleanup_close_ int ring_fd = -1;
	uint32_t dev = trace_dev(c->dev);
	int rc;

	if (!c->id || !*c->id || strlen(c->id) >= sizeof(volume.id))
		return err_set(e, -EINVAL, "the tracer takes volume ids of 1 to %zu bytes: \"%s\"",
			       sizeof(volume.id) - 1, c->id ? c->id : "");
	snprintf(volume.id, sizeof(volume.id), "%s", c->id);
	volume.record = c->record;
	rc = volumes_make_room(v, p, dev, c->id, &volume.index);
	if (rc < 0)
		return err_set(e, rc, "the tracer has no room for more than %d volumes", TRACE_VOLUMES_MAX);
	rc = ring_fd = ring_create(c->ring_bytes);
	if (rc < 0)
		return err_set(e, rc, "cannot make a ring buffer of %u bytes: %s", c->ring_bytes, strerror(-rc));

	if (bpf_map_update_elem(v->drops_fd, &volume.index, &drops, BPF_ANY) < 0 ||
	    bpf_map_update_elem(v->rings_fd, &volume.index, &ring_fd, BPF_ANY) < 0 ||
	    bpf_map_update_elem(v->volume_fd, &dev, &volume, BPF_ANY) < 0 || filter_write(v, dev) < 0) {
		rc = -errno;
		volumes_remove(v, p, dev);
		return err_set(e, rc, "cannot register the volume with the tracer: %s", strerror(-rc));
	}
	*ret_index = volume.index;
	*ret_ring_fd = take_fd(&ring_fd);
	return 0;
}

/* The ring buffers go on where they are: their readers notice nothing. */
static int ring_move(const struct volumes *from, struct volumes *to, uint32_t index)
{
	_cleanup_close_ int fd = -1;
	uint32_t id;

	if (bpf_map_lookup_elem(from->rings_fd, &index, &id) < 0)
		return -errno;
	fd = bpf_map_get_fd_by_id(id);
	if (fd < 0 || bpf_map_update_elem(to->rings_fd, &index, &fd, BPF_ANY) < 0)
		return -errno;
	return 0;
}

static int map_is_other(int a, int b, struct bpf_map_info *ret_from, struct bpf_map_info *ret_to)
{
	uint32_t from_len = sizeof(*ret_from), to_len = sizeof(*ret_to);

	*ret_from = *ret_to = (struct bpf_map_info){ 0 };
	if (bpf_obj_get_info_by_fd(a, ret_from, &from_len) < 0 || bpf_obj_get_info_by_fd(b, ret_to, &to_len) < 0)
		return -errno;
	return ret_from->id != ret_to->id;
}

/* Members are only ever added to the end of struct trace_volume, so what both have is copied. */
int volumes_move(const struct volumes *from, struct volumes *to)
{
	struct bpf_map_info from_info, to_info;
	_cleanup_free_ void *value = NULL;
	uint32_t key, *prev = NULL;
	int moved, rc = 0;

	moved = map_is_other(from->volume_fd, to->volume_fd, &from_info, &to_info);
	if (moved < 0)
		return moved;
	value = calloc(1, max_of(from_info.value_size, to_info.value_size));
	if (!value)
		return -ENOMEM;
	for (; rc == 0 && bpf_map_get_next_key(from->volume_fd, prev, &key) == 0; prev = &key) {
		if (bpf_map_lookup_elem(from->volume_fd, &key, value) < 0 ||
		    (moved && bpf_map_update_elem(to->volume_fd, &key, value, BPF_ANY) < 0))
			return -errno;
		rc = ring_move(from, to, ((const struct trace_volume *)value)->index);
		if (rc == 0)
			rc = filter_write(to, key);
	}
	return rc;
}
