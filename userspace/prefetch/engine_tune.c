// SPDX-License-Identifier: Apache-2.0
/* What of the engine can be set and seen while it runs. */
#include "prefetch/engine_i.h"

#include "base/cleanup.h"

void engine_mode_set(struct engine *e, enum engine_mode mode)
{
	atomic_store(&e->mode, mode);
}

enum engine_mode engine_mode(const struct engine *e)
{
	return atomic_load(&e->mode);
}

void engine_window_set(struct engine *e, uint64_t window_bytes)
{
	atomic_store(&e->window_bytes, window_bytes);
}

uint64_t engine_window(const struct engine *e)
{
	return atomic_load(&e->window_bytes);
}

void engine_record_set(struct engine *e, bool record)
{
	atomic_store(&e->record, record);
}

bool engine_record(const struct engine *e)
{
	return atomic_load(&e->record);
}

unsigned engine_profile_loads(struct engine *e)
{
	unsigned loads = 0;

	pthread_mutex_lock(&e->lock);
	list_for_each(n, &e->models) {
		struct engine_model *m = list_entry(n, struct engine_model, link);

		if (m->state == MODEL_RUNNING && m->profiled)
			loads = max_of(loads, (unsigned)m->profile_loads);
	}
	pthread_mutex_unlock(&e->lock);
	return loads;
}

void engine_traced_set(struct engine *e, bool traced)
{
	e->traced = traced;
}
