// SPDX-License-Identifier: Apache-2.0
/* The slab of data blocks. */
#define _GNU_SOURCE
#include "cache/slab.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

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
	if (!s->stack)
		return -ENOMEM;
	map = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED) {
		free(s->stack);
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
	*s = (struct slab){ 0 };
}

uint32_t slab_take(struct slab *s)
{
	s->nr_reserved--;
	return s->nr_free ? s->stack[--s->nr_free] : s->fresh++;
}

void slab_give(struct slab *s, uint32_t slot)
{
	s->stack[s->nr_free++] = slot;
}

static int slot_compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
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

static void slots_release(struct slab *s, uint32_t first, uint32_t nr)
{
	if (nr)
		(void)madvise(slab_at(s, first), (size_t)nr * s->slot_bytes, MADV_DONTNEED);
}

void slab_trim(struct slab *s, bool keep_warm)
{
	uint32_t keep = keep_warm ? s->keep : 0, first;

	s->nr_trims++;

	/* In order of address: runs are returned in one call, and the fresh mark comes down. */
	qsort(s->stack, s->nr_free, sizeof(*s->stack), slot_compare);
	for (uint32_t i = 0, run; i < s->nr_free; i += run) {
		for (run = 1;
		     i + run < s->nr_free && s->stack[i + run] == s->stack[i] + run && s->stack[i + run] != keep; run++)
			;
		if (s->stack[i] >= keep)
			slots_release(s, s->stack[i], run);
	}
	while (s->nr_free && s->stack[s->nr_free - 1] == s->fresh - 1) {
		s->nr_free--;
		s->fresh--;
	}
	first = s->fresh > keep ? s->fresh : keep;
	if (s->warm > first)
		slots_release(s, first, s->warm - first);
	s->warm = first;
	/* The lowest addresses are handed out first. */
	for (uint32_t i = 0; i < s->nr_free / 2; i++) {
		uint32_t other = s->nr_free - 1 - i, slot = s->stack[i];

		s->stack[i] = s->stack[other];
		s->stack[other] = slot;
	}
}
