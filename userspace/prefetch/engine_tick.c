// SPDX-License-Identifier: Apache-2.0
/* What the engine does once in a while: losses made good, recordings that are due, plans that are given up. */
#define _GNU_SOURCE
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "prefetch/engine_i.h"

unsigned engine_models_get(struct engine *e, struct engine_model *ret[ENGINE_MODELS_MAX])
{
	unsigned nr = 0;

	list_for_each(n, &e->models) {
		struct engine_model *m = list_entry(n, struct engine_model, link);

		if (m->state != MODEL_RUNNING)
			continue;
		m->refs++;
		ret[nr++] = m;
	}
	return nr;
}

/* Under the model's lock: what was fetched and is gone unread is fetched again, if anybody reads at all. */
static void model_losses(struct engine_model *m)
{
	for (uint32_t i = 0; i < m->nr_objects; i++) {
		uint32_t lost = cache_object_lost(m->object[i]);
		uint64_t nr = (cache_object_size(m->object[i]) + CACHE_CHUNK_BYTES - 1) / CACHE_CHUNK_BYTES;

		if (lost == m->lost[i])
			continue;
		m->lost[i] = lost;
		for (uint32_t chunk = 0; chunk < nr; chunk++)
			sched_lost(m->sched, i, chunk * CACHE_CHUNK_BLOCKS, ~cache_object_blocks(m->object[i], chunk));
	}
}

static void model_tick(struct engine *e, struct engine_model *m)
{
	struct sched_stats st;
	bool due, closed;

	pthread_mutex_lock(&e->lock);
	closed = !m->nr_open;
	pthread_mutex_unlock(&e->lock);
	pthread_mutex_lock(&m->lock);
	if (m->accessed)
		model_losses(m);
	m->accessed = false;
	sched_stats(m->sched, &st);
	due = engine_record_due(m, closed);
	pthread_mutex_unlock(&m->lock);
	engine_model_pump(m);
	pthread_mutex_lock(&e->lock);
	if (due && list_empty(&m->job)) {
		m->refs++;
		list_push_back(&e->jobs, &m->job);
		pthread_cond_signal(&e->cond);
	}
	if (st.wrong && m->state == MODEL_RUNNING) {
		m->state = MODEL_ENDED;
		m->ended_ns = clock_mono_ns();
		log_info("prefetch", "key=%s: the plan is given up, its readers skip most of it", m->name);
	}
	engine_model_put(m);
	pthread_mutex_unlock(&e->lock);
}

void engine_tick(struct engine *e)
{
	struct engine_model *m[ENGINE_MODELS_MAX];
	unsigned nr;

	pthread_mutex_lock(&e->lock);
	nr = engine_models_get(e, m);
	pthread_mutex_unlock(&e->lock);
	while (nr)
		model_tick(e, m[--nr]);
}
