/* SPDX-License-Identifier: Apache-2.0 */
/* What the replays share: the patterns' table in -replay.c, tensors out of mappings in -walk.c, reads in -blocks.c. */
#ifndef PENSTOCK_LOAD_REPLAY_H
#define PENSTOCK_LOAD_REPLAY_H

#include "penstock-load-format.h"

#define STEP_BYTES (64ul << 10) /* of a mapping: one operation */

enum replay_order { ORDER_FILE, ORDER_NAME };
/* Which block of all files comes next: the process' next one, one of a worker's share, or one every so many. */
enum replay_turn { TURN_NEXT, TURN_SHARE, TURN_PROCESS };

struct replay_pattern {
	const char *name, *what;
	unsigned processes, jobs; /* if none are given */
	enum load_kind kind;
	bool mapped, opens_all;
	bool divided; /* the processes together read everything once */
	bool direct, share_fd;
	enum replay_order order;
	enum replay_turn turn;
	uint64_t block_bytes; /* 0 for steps of a mapping */
	int (*prepare)(struct load_run *run, struct err *e);
	void (*body)(struct load_worker *w);
};

struct replay_unit {
	uint32_t file, tensor;
};

/* Lives for one run; what a process opens and parses is its own. */
struct replay {
	struct load_run run; /* first: a worker's run is its replay's */
	struct load_options opt;
	const struct replay_pattern *pattern;
	size_t nr_small;           /* the first files: not weights, read whole before anything else */
	struct tensors *tensors;   /* of each file that is open and has been asked for them */
	struct replay_unit *units; /* all tensors, shuffled */
	size_t nr_units;
};

static inline struct replay *replay_of(struct load_worker *w)
{
	return container_of(w->run, struct replay, run);
}

static inline size_t replay_nr_weights(const struct replay *r)
{
	return r->run.nr_files - r->nr_small;
}

/* Opens, maps and parses as the pattern says; 0 or -errno, which is counted as the worker's. */
int replay_file_open(struct load_worker *w, size_t file);

/* -walk.c */
int shuffled_prepare(struct load_run *run, struct err *e);
void body_forward(struct load_worker *w);
void body_backward(struct load_worker *w);
void body_shuffled(struct load_worker *w);
void body_columns(struct load_worker *w);
void body_rows(struct load_worker *w);
void body_experts(struct load_worker *w);
void body_populate(struct load_worker *w);
void body_raced(struct load_worker *w);

/* -blocks.c */
void body_blocks(struct load_worker *w);
void body_whole(struct load_worker *w);
void body_torch(struct load_worker *w);
/* Reads files by large read() calls, every <processes>-th from the process' own number on. */
void blocks_read_ahead(struct load_worker *w);

#endif
