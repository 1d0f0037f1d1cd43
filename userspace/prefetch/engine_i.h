/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine's own files share. */
#ifndef PENSTOCK_PREFETCH_ENGINE_I_H
#define PENSTOCK_PREFETCH_ENGINE_I_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "prefetch/engine.h"
#include "prefetch/format.h"
#include "prefetch/profile.h"
#include "prefetch/sched.h"

#define ENGINE_MODELS_MAX 64
#define ENGINE_EARLY_MAX 32
#define ENGINE_LISTED_MAX 16384

_Static_assert(SCHED_BLOCK_BYTES == CACHE_BLOCK_BYTES && WALK_BLOCK_BYTES == CACHE_BLOCK_BYTES, "one size of blocks");
_Static_assert(SCHED_UNIT_BYTES == CACHE_CHUNK_BYTES && WALK_CHUNK_BYTES == CACHE_CHUNK_BYTES, "one size of chunks");

enum model_state {
	MODEL_QUEUED = 0,
	MODEL_RUNNING,
	MODEL_NONE,  /* the directory is not one model: its files have plans of their own */
	MODEL_ENDED, /* wrong, or not to be made */
};

/* An object a directory's listing showed. */
struct listed {
	char *name; /* below the directory */
	char etag[S3_ETAG_MAX + 1];
	uint64_t size_bytes;
	time_t mtime;
};

struct listing {
	char dir[S3_KEY_MAX + 1]; /* key prefix */
	struct listed *item;
	size_t nr, room;
};

struct engine_model {
	struct list link; /* the engine's, newest use first */
	struct engine *engine;
	_Atomic(enum model_state) state; /* changed under the engine's lock, which guards the next ones too */
	uint64_t ended_ns;
	unsigned nr_open; /* files */
	unsigned refs;    /* one of the engine's list, one of each file that is open, one while it is made */
	bool whole;       /* a directory, or everything; else one file */
	bool confident;   /* nobody had to read for it to start */
	bool has_digest, profiled;
	uint8_t digest[PROFILE_DATASET_BYTES]; /* of the version; set with the plan, as the next */
	atomic_uint profile_loads;             /* of the profile on disk */
	pthread_mutex_t lock;                  /* guards what follows */
	struct sched *sched;
	uint32_t *pass, *lost; /* of each file, as it was last seen: cache_object_pass(), cache_object_lost() */
	uint64_t access_ns;    /* the last one; 0 = none yet */
	bool accessed;         /* since the last tick */
	struct profile_builder *builder; /* NULL: not recorded */
	uint64_t recorded_ns;            /* the last access recorded; 0 = none */
	struct cache_object **object;    /* of the plan's files, in its order; set before RUNNING */
	size_t nr_objects;
	struct list job;
	char name[]; /* key prefix of a directory, or a key */
};

struct engine_file {
	struct list link; /* the engine's */
	struct engine *engine;
	struct cache_object *object; /* held by the file */
	struct engine_model *model;  /* NULL until there is a plan; guard: the engine's lock */
	uint32_t index;              /* in its plan */
	bool open;
	atomic_uint refs;
	pthread_mutex_t lock;                         /* guards what follows; the last one to be taken */
	struct engine_access early[ENGINE_EARLY_MAX]; /* while there was no plan */
	unsigned nr_early;
};

struct engine {
	struct engine_config cfg;
	char prefix[S3_KEY_MAX + 1];
	char profile_dir[PATH_MAX];
	_Atomic(enum engine_mode) mode;
	atomic_bool record, traced;
	atomic_uint_fast64_t window_bytes;
	pthread_mutex_t lock; /* tables; before a model's lock */
	pthread_cond_t cond;
	atomic_bool again; /* a pump ended because enough was queued */
	struct list models, files, jobs;
	unsigned nr_models;
	pthread_t thread;
	bool running, stopping;
};

/* engine.c */
/* Under the engine's lock. The last one frees it. */
void engine_model_put(struct engine_model *m);
/* Asks for what the plan wants now, and no more than is soon sent. Without locks. */
void engine_model_pump(struct engine_model *m);
/* engine_tick.c: under the engine's lock; each is held for the caller. Returns how many. */
unsigned engine_models_get(struct engine *e, struct engine_model *ret[ENGINE_MODELS_MAX]);

/* engine_plan.c: on the engine's thread; may wait for S3. */
/* Makes the model's plan: 0, -ENOENT when there is nothing to plan, or another error. */
int engine_plan_make(struct engine *e, struct engine_model *m);

/* engine_record.c: recorded profiles. */
int engine_dataset_digest(const struct listing *l, const uint32_t *file, size_t nr, uint8_t ret[PROFILE_DATASET_BYTES]);
/* Plans what the profile of this version says; the plan's files are those of the listing. -ENOENT: there is none. */
int engine_profile_plan(struct engine *e, struct engine_model *m, const struct listing *l, const uint32_t *file,
			size_t nr);
/* The next three under the model's lock. */
void engine_record_start(struct engine *e, struct engine_model *m);
void engine_record_access(struct engine_model *m, uint32_t file, const struct engine_access *a);
/* Has the load ended? <closed>: nobody has a file of the model open. */
bool engine_record_due(const struct engine_model *m, bool closed);
bool engine_record_any(const struct engine_model *m);
/* Merges what was recorded with the profile on disk, and begins anew. */
void engine_record_write(struct engine *e, struct engine_model *m);

/* engine_source.c: as engine_plan.c. */
int engine_list(struct engine *e, const char *dir, bool recursive, struct listing *ret);
void listing_done(struct listing *l);
/* The version of an object that the listing showed; NULL: no memory, or no key can be that long. */
struct cache_object *engine_listed_object(struct engine *e, const struct listing *l, const struct listed *item);
/* All of it, to be freed: 0, -E2BIG above <max_bytes>, or another error. */
int engine_listed_bytes(struct engine *e, const struct listing *l, const struct listed *item, uint64_t max_bytes,
			char **ret);
/* Reads [offset, offset + len) of an object through the cache. */
int engine_bytes(struct engine *e, struct cache_object *o, uint64_t offset, size_t len, void *ret);

#endif
