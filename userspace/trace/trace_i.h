/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the privileged half of this room. */
#ifndef PENSTOCK_TRACE_TRACE_I_H
#define PENSTOCK_TRACE_TRACE_I_H

#include <limits.h>

#include <bpf/libbpf.h>

#include "trace/load.h"

/* pins.c: directories and files below the BPF file system, under the lock. */
struct pins {
	int lock_fd;  /* -1: not held */
	int bpffs_fd; /* its root, locked too; -1: it is not mounted */
	bool bpffs_made;
	char bpffs[PATH_MAX / 4];
	char root[PATH_MAX / 2];
};

/* Every map of the programs and the name of its pin. */
struct pin_map {
	const char *map;
	const char *pin;
};
extern const struct pin_map pin_maps[];
extern const size_t nr_pin_maps;

/* Takes the lock; with <create> the BPF file system and our directories are made. */
int pins_lock(struct pins *p, const struct trace_config *c, bool create, struct err *e);
void pins_unlock(struct pins *p);
int pins_path(const struct pins *p, const char *directory, const char *name, char *ret, size_t room);
/* A descriptor of a pinned map or link. */
int pins_open(const struct pins *p, const char *directory, const char *name);
/* Unlinks all files of one of the directories. */
void pins_clear(const struct pins *p, const char *directory);
int pins_unlink(const struct pins *p, const char *directory, const char *name);
/* Everything of ours goes, the BPF file system too when we mounted it and nobody else pinned anything. */
void pins_remove(struct pins *p);
/* -ENOENT: no tracer; its state otherwise. */
int pins_state(const struct pins *p, struct trace_state *ret);

/* object.c: the compiled programs. */
void object_builtin(const void **ret_data, size_t *ret_bytes);
void object_gpu(const void **ret_data, size_t *ret_bytes);

/* program.c: from the object to programs in the kernel. */
struct programs {
	struct bpf_object *object;
	int nr;
	struct trace_program verdict[TRACE_PROGRAMS_MAX];
};

/*
 * Opens and loads the object; programs that the kernel refuses are left out and noted. Maps are taken from <pins> where
 * one of the same shape is pinned; NULL: all are new.
 */
int programs_load(struct programs *p, const struct trace_config *c, const struct pins *pins, struct err *e);
/* Attaches and pins what was loaded. */
int programs_attach(struct programs *p, const struct pins *pins, struct err *e);
void programs_done(struct programs *p);

/* volume.c: entries of the maps. */
struct volumes {
	int volume_fd, filter_fd, rings_fd, drops_fd;
};

#define VOLUMES_INIT                                                              \
	{                                                                         \
		.volume_fd = -1, .filter_fd = -1, .rings_fd = -1, .drops_fd = -1, \
	}

int volumes_open(struct volumes *v, const struct pins *p);
void volumes_close(struct volumes *v);
int volumes_count(const struct volumes *v);
int volumes_add(struct volumes *v, const struct pins *p, const struct trace_volume_config *c,
		const struct trace_volume *owner, uint32_t *ret_index, int *ret_ring_fd, struct err *e);
/* Removes the volume and all that was counted for its device. */
void volumes_remove(struct volumes *v, const struct pins *p, uint32_t dev);
/* Removes those whose owner or mount has gone. */
void volumes_sweep(struct volumes *v, const struct pins *p);
/* Copies what is registered in maps of another shape. */
int volumes_move(const struct volumes *from, struct volumes *to);
/* What tells a process from a later one with its pid; -ESRCH. */
int volumes_owner(pid_t pid, struct trace_volume *ret);

#endif
