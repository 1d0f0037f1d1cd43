/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for data blocks: one mapping of the whole budget, handed out in slots of one block.
 *
 * Freed slots are handed out again last in, first out: a stream then lives in memory that is warm and already
 * faulted in.
 * Threads: the cache's lock, but where it says otherwise.
 */
#ifndef PENSTOCK_CACHE_SLAB_H
#define PENSTOCK_CACHE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLAB_TRIM_SLOTS 64 /* out at once; whole huge pages */

struct slab {
	unsigned char *base;
	size_t map_bytes;
	uint32_t nr_slots, slot_bytes;
	uint32_t nr_withheld; /* of nr_slots: not to be used for now */
	uint32_t nr_free;     /* on the stack */
	uint32_t fresh;       /* slots from here on were never handed out since the last trim */
	uint32_t warm;        /* slots below have memory already, whether handed out or not */
	uint32_t keep;        /* slots below keep it when idle for a short time */
	uint32_t nr_trims;
	uint32_t nr_reserved; /* promised to fetches that have not taken them yet */
	uint32_t *stack;
	uint64_t *bitmap;    /* for sorting the stack */
	uint32_t nr_trimmed; /* of the stack, from its bottom: their memory is with the system */
	uint32_t trim_keep;  /* slots below are spared */
	uint32_t nr_out;     /* neither free nor used: their memory is being returned */
	uint32_t out[SLAB_TRIM_SLOTS];
};

int slab_init(struct slab *s, uint64_t budget_bytes, uint32_t slot_bytes);
void slab_done(struct slab *s);

/* Slots neither in use nor promised. */
static inline uint32_t slab_available(const struct slab *s)
{
	uint32_t idle = s->nr_free + (s->nr_slots - s->fresh), taken = s->nr_reserved + s->nr_withheld;

	return idle > taken ? idle - taken : 0;
}

static inline uint32_t slab_used(const struct slab *s)
{
	return s->fresh - s->nr_free - s->nr_out;
}

static inline unsigned char *slab_at(const struct slab *s, uint32_t slot)
{
	return s->base + (size_t)slot * s->slot_bytes;
}

/* Takes one of the promised slots. */
uint32_t slab_take(struct slab *s);
void slab_give(struct slab *s, uint32_t slot);
/* Gives slots memory before anybody waits for it; false where the kernel cannot. Touches nothing else of the slab. */
bool slab_populate(const struct slab *s, uint32_t first, uint32_t nr);
/* Gives the first <bytes> memory, to keep for a while. */
void slab_warm(struct slab *s, uint64_t bytes);
/*
 * Returns the memory of free slots to the system, but for those of slab_warm() if <keep_warm>: start; then, while take
 * gives true, release and give; at last end. The slots taken are nobody's until they are given, so release needs no
 * lock, and slots may be taken and given in between. One thread at a time.
 */
void slab_trim_start(struct slab *s, bool keep_warm);
/* Takes some free slots out; false = none is left whose memory could be returned. */
bool slab_trim_take(struct slab *s);
void slab_trim_release(const struct slab *s);
void slab_trim_give(struct slab *s);
void slab_trim_end(struct slab *s);

#endif
