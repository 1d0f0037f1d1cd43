// SPDX-License-Identifier: Apache-2.0
/*
 * The slab of data blocks.
 *
 * Design: a trim sorts the free slots, highest first, and returns their memory from the bottom of the stack upwards, a
 * few slots at a time. Those already returned stay at the bottom, so what is handed out meanwhile still has memory.
 */
#define _GNU_SOURCE
#include "cache/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"

#define HUGE_BYTES (2u << 20)

int slab_init(struct slab *s, uint64_t budget_bytes, uint32_t slot_bytes)
{
	uint64_t nr = budget_bytes / slot_bytes;
	unsigned char *map;

	*s = (struct slab){ .slot_bytes = slot_bytes };
	if (nr == 0 || nr > UINT32_MAX)
		return -EINVAL;
	s->nr_slots = (uint32_t)nr;
	s->map_bytes = (size_t)(nr * slot_bytes) + HUGE_BYTES;
	s->stack = malloc(nr * sizeof(*s->stack));
	s->bitmap = calloc((nr + 63) / 64, sizeof(*s->bitmap));
	if (!s->stack || !s->bitmap) {
		slab_done(s);
		return -ENOMEM;
	}
	map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		slab_done(s);
		return -ENOMEM;
	}
	/*
	 * Data of the bucket has no place in a core dump, and one fault a 2 MiB page is 500 times cheaper than 4
	 * KiB ones.
	 */
	(void)madvise(map, s->map_bytes, MADV_DONTDUMP);
	(void)madvise(map, s->map_bytes, MADV_HUGEPAGE);
	s->base = (unsigned char *)(((uintptr_t)map + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
	s->map_bytes = (size_t)(map + s->map_bytes - s->base);
	if (s->base != map)
		munmap(map, (size_t)(s->base - map));
	return 0;
}

void slab_done(struct slab *s)
{
	if (s->base)
		munmap(s->base, s->map_bytes);
	free(s->stack);
	free(s->bitmap);
	*s = (struct slab){ 0 };
}

uint32_t slab_take(struct slab *s)
{
	s->nr_reserved--;
	if (!s->nr_free)
		return s->fresh++;
	s->nr_free--;
	s->nr_trimmed = min_of(s->nr_trimmed, s->nr_free);
	return s->stack[s->nr_free];
}

void slab_give(struct slab *s, uint32_t slot)
{
	s->stack[s->nr_free++] = slot;
}

bool slab_populate(const struct slab *s, uint32_t first, uint32_t nr)
{
#ifdef MADV_POPULATE_WRITE
	return madvise(slab_at(s, first), (size_t)nr * s->slot_bytes, MADV_POPULATE_WRITE) == 0;
#else
	return false;
#endif
}

void slab_warm(struct slab *s, uint64_t bytes)
{
	uint64_t slots = bytes / s->slot_bytes;

	s->keep = slots < s->nr_slots ? (uint32_t)slots : s->nr_slots;
	if (slab_populate(s, 0, s->keep))
		s->warm = s->keep;
}

/* Highest first, in one pass: the lowest addresses are then handed out first. */
static void stack_sort(struct slab *s)
{
	for (uint32_t i = 0; i < s->nr_free; i++)
		s->bitmap[s->stack[i] / 64] |= 1ull << (s->stack[i] % 64);
	s->nr_free = 0;
	for (uint32_t word = (s->fresh + 63) / 64; word--;) {
		for (; s->bitmap[word]; s->bitmap[word] &= ~(1ull << 63 >> __builtin_clzll(s->bitmap[word])))
			s->stack[s->nr_free++] = word * 64 + 63 - (uint32_t)__builtin_clzll(s->bitmap[word]);
	}
}

void slab_trim_start(struct slab *s, bool keep_warm)
{
	s->nr_trimmed = 0;
	s->trim_keep = keep_warm ? s->keep : 0;
	/* Slots made ready and never used are free ones like the others now. */
	while (s->fresh < s->warm)
		s->stack[s->nr_free++] = s->fresh++;
	stack_sort(s);
}

bool slab_trim_take(struct slab *s)
{
	uint32_t *from = s->stack + s->nr_trimmed, slot, most;

	/* A promise holds during a trim as well; what is withheld is the first to go. */
	most = min_of(s->nr_free - s->nr_trimmed, s->nr_free + (s->nr_slots - s->fresh) - s->nr_reserved);
	most = min_of(most, (uint32_t)SLAB_TRIM_SLOTS);
	while (s->nr_out < most && from[s->nr_out] >= s->trim_keep) {
		slot = from[s->nr_out];
		s->out[s->nr_out++] = slot;
		/* No huge page is cut in two. */
		if (slot % SLAB_TRIM_SLOTS == 0)
			break;
	}
	s->nr_free -= s->nr_out;
	memmove(from, from + s->nr_out, (s->nr_free - s->nr_trimmed) * sizeof(*from));
	return s->nr_out > 0;
}

void slab_trim_release(const struct slab *s)
{
	for (uint32_t i = 0, run; i < s->nr_out; i += run) {
		for (run = 1; i + run < s->nr_out && s->out[i + run] == s->out[i] - run; run++)
			;
		(void)madvise(slab_at(s, s->out[i] - run + 1), (size_t)run * s->slot_bytes, MADV_DONTNEED);
	}
}

void slab_trim_give(struct slab *s)
{
	uint32_t *to = s->stack + s->nr_trimmed;

	memmove(to + s->nr_out, to, (s->nr_free - s->nr_trimmed) * sizeof(*to));
	memcpy(to, s->out, s->nr_out * sizeof(*to));
	s->nr_trimmed += s->nr_out;
	s->nr_free += s->nr_out;
	s->nr_out = 0;
}

void slab_trim_end(struct slab *s)
{
	uint32_t nr = 0;

	/* Made ready meanwhile: somebody is at work, and the mark can come down at the next trim. */
	if (s->warm > s->fresh)
		return;
	s->nr_trims++;
	while (nr < s->nr_free && s->stack[nr] == s->fresh - 1 && (nr < s->nr_trimmed || s->stack[nr] < s->trim_keep)) {
		nr++;
		s->fresh--;
	}
	s->nr_free -= nr;
	memmove(s->stack, s->stack + nr, s->nr_free * sizeof(*s->stack));
	s->warm = s->fresh > s->trim_keep ? s->fresh : s->trim_keep;
}
