/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetches models ahead of their readers: finds out what belongs to a model and in which order it is read, and keeps a
 * window of it in the cache.
 *
 * A plan covers one model: a directory with an index file or with weight files that belong together; else a single
 * weight file. Plans start at the mount, where its root is one model, and else when a weight or index file is opened
 * for the first time. A plan whose readers skip most of it ends.
 * Threads: any; plans are made on a thread of the engine's own.
 */
#ifndef PENSTOCK_PREFETCH_ENGINE_H
#define PENSTOCK_PREFETCH_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "cache/cache.h"
#include "s3/client.h"

/* EAGER: everything below the mount, whatever it is. */
enum engine_mode { ENGINE_OFF = 0, ENGINE_AUTO, ENGINE_EAGER };

/* Beside the data: profiles that came with it. */
#define ENGINE_PRIVATE_DIR ".penstock"
#define ENGINE_PROFILES_DIR ENGINE_PRIVATE_DIR "/profiles/"

struct engine;
struct engine_file;

struct engine_config {
	struct s3_client *client; /* borrowed, as the cache */
	struct cache *cache;
	const char *prefix; /* of all keys: "" or with a trailing slash */
	enum engine_mode mode;
	uint64_t window_bytes; /* most that is fetched and not yet read */
	uint64_t read_deadline_ns;
	const char *profile_dir; /* of recorded loads; "" = none are kept */
};

/* Somebody got bytes of a file. */
struct engine_access {
	uint64_t offset, len;
	uint64_t ns;  /* monotonic */
	int32_t pid;  /* of the process; 0 = not known */
	bool request; /* a READ told of it: it came through the cache */
	bool cached;  /* it waited for no READ */
};

int engine_start(const struct engine_config *cfg, struct engine **ret, struct err *e);
/* After the client has stopped, and before the cache goes; every file is put back. Returns NULL. */
struct engine *engine_stop(struct engine *e);

/* The mount stands: starts what is to start with it. */
void engine_mounted(struct engine *e);

/*
 * A file is opened: <object> has that key. NULL when nothing is ever planned for such a file, or without memory; the
 * object is held until the file is put.
 */
struct engine_file *engine_file_get(struct engine *e, const char *key, struct cache_object *object);
void engine_file_put(struct engine_file *f);
struct engine_file *engine_file_ref(struct engine_file *f);
/* The first open while nobody had it open, and the last close. An open asks for a plan where there is none yet. */
void engine_file_opened(struct engine_file *f);
void engine_file_closed(struct engine_file *f);
/* Does a plan take care of this file? */
bool engine_file_planned(struct engine_file *f);
void engine_file_access(struct engine_file *f, const struct engine_access *a);
/* A tracer tells of all accesses: only what it tells is recorded from now on. */
void engine_traced_set(struct engine *e, bool traced);

/* Once in a while: goes on where memory was short. */
void engine_tick(struct engine *e);

void engine_mode_set(struct engine *e, enum engine_mode mode);
enum engine_mode engine_mode(const struct engine *e);
void engine_window_set(struct engine *e, uint64_t window_bytes);
uint64_t engine_window(const struct engine *e);
/* Whether loads are recorded; those under way are from their next plan on. */
void engine_record_set(struct engine *e, bool record);
bool engine_record(const struct engine *e);

/* Of the profile that a running plan follows: how many loads it was made from; 0 = none does. */
unsigned engine_profile_loads(struct engine *e);

#endif
