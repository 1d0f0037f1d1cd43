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

void engine_stats(struct engine *e, struct engine_stats *ret)
{
	struct sched_stats st;

	pthread_mutex_lock(&e->lock);
	*ret = (struct engine_stats){ .nr_started = e->nr_started, .nr_wrong = e->nr_wrong };
	list_for_each(n, &e->models) {
		struct engine_model *m = list_entry(n, struct engine_model, link);

		if (m->state != MODEL_RUNNING)
			continue;
		pthread_mutex_lock(&m->lock);
		sched_stats(m->sched, &st);
		pthread_mutex_unlock(&m->lock);
		ret->nr_plans++;
		ret->profile_loads = max_of(ret->profile_loads, m->profiled ? (unsigned)m->profile_loads : 0u);
		ret->plan_bytes += st.plan_bytes;
		ret->issued_bytes += st.issued_bytes;
		ret->used_bytes += st.used_bytes;
	}
	pthread_mutex_unlock(&e->lock);
}

void engine_traced_set(struct engine *e, bool traced)
{
	e->traced = traced;
}
