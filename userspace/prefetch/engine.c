// SPDX-License-Identifier: Apache-2.0
/*
 * The engine's tables, its thread, and the pump that turns plans into fetches.
 *
 * Design: whoever opens or reads a file only marks what happened and pumps: asks the plan for ranges and the cache to
 * fetch them, which never waits. Making a plan waits for S3 and is left to the engine's thread.
 * Threads: any. The engine's lock guards the tables, a model's lock its plan; a model's pointer stays valid for whoever
 * has a file of it. Lock order: the engine's, a model's, the cache's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "prefetch/engine_i.h"

/* Before the first read of a plan that an open has started. */
#define START_BYTES (32ull << 20)
/* At once, on the thread of a reader; the engine's own does the rest. */
#define PUMP_MAX 16
#define PUMP_PERIOD_NS (10 * NSEC_PER_MSEC)
/* Without an access: what comes then is another load. */
#define LOAD_PAUSE_NS (10 * NSEC_PER_SEC)
/* A plan that ended may be tried again. */
#define RETRY_NS (30 * NSEC_PER_SEC)

void engine_model_put(struct engine_model *m)
{
	struct engine *e = m->engine;

	if (--m->refs)
		return;
	for (size_t i = 0; i < m->nr_objects; i++)
		cache_object_put(e->cfg.cache, m->object[i]);
	free(m->object);
	free(m->pass);
	free(m->lost);
	profile_builder_free(m->builder);
	sched_free(m->sched);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static void model_unlist(struct engine *e, struct engine_model *m)
{
	list_del(&m->link);
	e->nr_models--;
	engine_model_put(m);
}

static struct engine_model *model_find(struct engine *e, const char *name)
{
	list_for_each(n, &e->models) {
		struct engine_model *m = list_entry(n, struct engine_model, link);

		if (strcmp(m->name, name) == 0) {
			list_del(&m->link);
			list_push_front(&e->models, &m->link);
			return m;
		}
	}
	return NULL;
}

/* Under the lock: a model to be made by the thread. <object>: the one file that it is, NULL for a directory. */
static struct engine_model *model_new(struct engine *e, const char *name, struct cache_object *object, bool confident)
{
	struct engine_model *m;

	for (struct list *n = e->models.prev, *prev; e->nr_models >= ENGINE_MODELS_MAX && n != &e->models; n = prev) {
		prev = n->prev;
		if (list_entry(n, struct engine_model, link)->refs == 1)
			model_unlist(e, list_entry(n, struct engine_model, link));
	}
	if (e->nr_models >= ENGINE_MODELS_MAX)
		return NULL;
	m = calloc(1, sizeof(*m) + strlen(name) + 1);
	if (!m)
		return NULL;
	if (object) {
		m->object = calloc(1, sizeof(struct cache_object *));
		if (!m->object) {
			free(m);
			return NULL;
		}
		m->object[0] = cache_object_ref(object);
		m->nr_objects = 1;
	}
	m->engine = e;
	m->whole = !object;
	m->confident = confident;
	m->refs = 2;
	pthread_mutex_init(&m->lock, NULL);
	memcpy(m->name, name, strlen(name) + 1);
	list_push_front(&e->models, &m->link);
	list_push_back(&e->jobs, &m->job);
	e->nr_models++;
	pthread_cond_signal(&e->cond);
	return m;
}

static void engine_again(struct engine *e)
{
	if (atomic_exchange(&e->again, true))
		return;
	pthread_mutex_lock(&e->lock);
	pthread_cond_signal(&e->cond);
	pthread_mutex_unlock(&e->lock);
}

void engine_model_pump(struct engine_model *m)
{
	struct engine *e = m->engine;
	struct sched_limits lim = { .window_bytes = atomic_load(&e->window_bytes) };
	unsigned room = min_of(s3_client_prefetch_room(e->cfg.client), (unsigned)PUMP_MAX);
	bool on = atomic_load(&e->mode) != ENGINE_OFF;
	struct sched_stats st;
	struct sched_range r;
	uint64_t accepted;

	pthread_mutex_lock(&m->lock);
	/* All that fits before anybody reads; then the readers decide. */
	lim.start_bytes = m->confident && !m->access_ns ? lim.window_bytes : START_BYTES;
	sched_stats(m->sched, &st);
	on = on && !st.wrong;
	while (on && room && sched_next(m->sched, &lim, &r)) {
		accepted = cache_prefetch(e->cfg.cache, m->object[r.file], r.offset, r.len, true);
		if (accepted < r.len) {
			sched_cut(m->sched, &r, accepted);
			break;
		}
		room--;
	}
	pthread_mutex_unlock(&m->lock);
	if (on && !room)
		engine_again(e);
}

/* What was read and is asked for again is wanted again from here on. Under the model's lock. */
static void file_pass(struct engine_model *m, const struct engine_file *f)
{
	uint32_t pass = cache_object_pass(f->object);

	if (pass == m->pass[f->index])
		return;
	m->pass[f->index] = pass;
	sched_file_rewind(m->sched, f->index);
}

/* Under the model's lock. */
static void file_access(struct engine_model *m, const struct engine_file *f, const struct engine_access *a)
{
	m->accessed = true;
	m->access_ns = clock_mono_ns();
	if (a->request)
		file_pass(m, f);
	if (a->request || a->cached)
		sched_consume(m->sched, f->index, a->offset, a->len, a->cached);
	if (a->request != f->engine->traced)
		engine_record_access(m, f->index, a);
}

/* Readers do not wait for the plan: what they got before there was one, as far as it fits. */
static void early_add(struct engine_file *f, const struct engine_access *a)
{
	struct engine_access *last;

	pthread_mutex_lock(&f->lock);
	last = f->nr_early ? &f->early[f->nr_early - 1] : NULL;
	if (last && last->offset + last->len == a->offset && last->request == a->request && last->pid == a->pid)
		last->len += a->len;
	else if (f->nr_early < ENGINE_EARLY_MAX)
		f->early[f->nr_early++] = *a;
	pthread_mutex_unlock(&f->lock);
}

static void early_tell(struct engine_model *m, struct engine_file *f)
{
	pthread_mutex_lock(&m->lock);
	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; i < f->nr_early; i++)
		file_access(m, f, &f->early[i]);
	f->nr_early = 0;
	pthread_mutex_unlock(&f->lock);
	pthread_mutex_unlock(&m->lock);
}

/* Under the lock. */
static void file_attach(struct engine_file *f, struct engine_model *m)
{
	for (size_t i = 0; !f->model && i < m->nr_objects; i++) {
		if (m->object[i] != f->object)
			continue;
		f->index = (uint32_t)i;
		m->refs++;
		m->nr_open += f->open;
		early_tell(m, f);
		__atomic_store_n(&f->model, m, __ATOMIC_RELEASE);
	}
}

/* Under the lock: a plan of its own for a weight file of a directory that is no model. */
static void file_plan_start(struct engine *e, struct engine_file *f)
{
	const char *key = cache_object_key(f->object);
	struct engine_model *m = model_find(e, key);

	if (f->model || format_kind_of_name(key) == FORMAT_INDEX)
		return;
	if (m && (m->state == MODEL_ENDED || m->state == MODEL_RUNNING)) {
		/* Of another version, or given up long ago. */
		model_unlist(e, m);
		m = NULL;
	}
	if (!m)
		model_new(e, key, f->object, false);
}

static void dir_of(const char *key, char ret[S3_KEY_MAX + 1])
{
	const char *slash = strrchr(key, '/');

	snprintf(ret, S3_KEY_MAX + 1, "%.*s", slash ? (int)(slash - key + 1) : 0, key);
}

/* Under the lock. */
static void model_made(struct engine *e, struct engine_model *m, int error)
{
	char dir[S3_KEY_MAX + 1];

	m->state = error == 0 ? MODEL_RUNNING : error == -ENOENT && m->whole ? MODEL_NONE : MODEL_ENDED;
	m->ended_ns = clock_mono_ns();
	list_for_each(n, &e->files) {
		struct engine_file *f = list_entry(n, struct engine_file, link);

		if (m->state == MODEL_RUNNING)
			file_attach(f, m);
		if (m->state != MODEL_NONE)
			continue;
		dir_of(cache_object_key(f->object), dir);
		if (strcmp(dir, m->name) == 0)
			file_plan_start(e, f);
	}
}

/* Under the lock, which is dropped while the plan is made. */
static void model_make(struct engine *e, struct engine_model *m)
{
	int rc;

	pthread_mutex_unlock(&e->lock);
	rc = engine_plan_make(e, m);
	if (rc < 0 && rc != -ENOENT && rc != -ECANCELED)
		log_warn("prefetch", "key=%s: no plan: %s", m->name, strerror(-rc));
	pthread_mutex_lock(&e->lock);
	model_made(e, m, rc);
	pthread_mutex_unlock(&e->lock);
	if (rc == 0)
		engine_model_pump(m);
	pthread_mutex_lock(&e->lock);
}

/* Under the lock, which is dropped: waits for work, and pumps while there is something left to pump. */
static void engine_wait(struct engine *e)
{
	struct engine_model *m[ENGINE_MODELS_MAX];
	struct timespec until;
	unsigned nr;

	if (!atomic_load(&e->again)) {
		pthread_cond_wait(&e->cond, &e->lock);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += PUMP_PERIOD_NS;
	if (until.tv_nsec >= (long)NSEC_PER_SEC) {
		until.tv_nsec -= NSEC_PER_SEC;
		until.tv_sec++;
	}
	if (pthread_cond_timedwait(&e->cond, &e->lock, &until) != ETIMEDOUT || e->stopping)
		return;
	atomic_store(&e->again, false);
	nr = engine_models_get(e, m);
	pthread_mutex_unlock(&e->lock);
	for (unsigned i = 0; i < nr; i++)
		engine_model_pump(m[i]);
	pthread_mutex_lock(&e->lock);
	while (nr)
		engine_model_put(m[--nr]);
}

static void *engine_main(void *arg)
{
	struct engine *e = arg;
	struct engine_model *m;
	struct list *n;

	pthread_mutex_lock(&e->lock);
	while (!e->stopping) {
		n = list_pop_front(&e->jobs);
		if (!n) {
			engine_wait(e);
			continue;
		}
		m = list_entry(n, struct engine_model, job);
		if (m->state == MODEL_QUEUED) {
			model_make(e, m);
		} else {
			pthread_mutex_unlock(&e->lock);
			engine_record_write(e, m);
			pthread_mutex_lock(&e->lock);
		}
		engine_model_put(m);
	}
	while ((n = list_pop_front(&e->jobs)))
		engine_model_put(list_entry(n, struct engine_model, job));
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

int engine_start(const struct engine_config *cfg, struct engine **ret, struct err *err)
{
	struct engine *e = calloc(1, sizeof(*e));
	pthread_condattr_t attr;

	if (!e)
		return err_set(err, -ENOMEM, "out of memory");
	e->cfg = *cfg;
	snprintf(e->prefix, sizeof(e->prefix), "%s", cfg->prefix);
	snprintf(e->profile_dir, sizeof(e->profile_dir), "%s", cfg->profile_dir);
	e->mode = cfg->mode;
	e->record = true;
	e->window_bytes = cfg->window_bytes;
	list_init(&e->models);
	list_init(&e->files);
	list_init(&e->jobs);
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->cond, &attr);
	pthread_condattr_destroy(&attr);
	if (pthread_create(&e->thread, NULL, engine_main, e) != 0) {
		engine_stop(e);
		return err_set(err, -EAGAIN, "cannot start the prefetch thread: the limit on threads is reached");
	}
	pthread_setname_np(e->thread, "prefetch");
	e->running = true;
	*ret = e;
	return 0;
}

struct engine *engine_stop(struct engine *e)
{
	if (!e)
		return NULL;
	pthread_mutex_lock(&e->lock);
	e->stopping = true;
	pthread_cond_signal(&e->cond);
	pthread_mutex_unlock(&e->lock);
	if (e->running)
		pthread_join(e->thread, NULL);
	list_for_each_safe(n, tmp, &e->models) {
		if (engine_record_any(list_entry(n, struct engine_model, link)))
			engine_record_write(e, list_entry(n, struct engine_model, link));
		model_unlist(e, list_entry(n, struct engine_model, link));
	}
	pthread_cond_destroy(&e->cond);
	pthread_mutex_destroy(&e->lock);
	free(e);
	return NULL;
}

void engine_mounted(struct engine *e)
{
	if (atomic_load(&e->mode) == ENGINE_OFF)
		return;
	pthread_mutex_lock(&e->lock);
	if (!model_find(e, e->prefix))
		model_new(e, e->prefix, NULL, true);
	pthread_mutex_unlock(&e->lock);
}

/* Under the lock: is this another version of a file that the model has? */
static bool model_is_old(const struct engine_model *m, const struct engine_file *f)
{
	for (size_t i = 0; i < m->nr_objects; i++) {
		if (strcmp(cache_object_key(m->object[i]), cache_object_key(f->object)) == 0)
			return m->object[i] != f->object;
	}
	return false;
}

/* Under the lock: finds the plan of a file, or has one made. */
static void file_ask(struct engine *e, struct engine_file *f)
{
	char dir[S3_KEY_MAX + 1];
	struct engine_model *m;

	list_for_each(n, &e->models) {
		m = list_entry(n, struct engine_model, link);
		if (m->state == MODEL_RUNNING)
			file_attach(f, m);
	}
	if (f->model || e->stopping || atomic_load(&e->mode) == ENGINE_OFF)
		return;
	dir_of(cache_object_key(f->object), dir);
	m = model_find(e, dir);
	if (m && ((m->state == MODEL_RUNNING && model_is_old(m, f)) ||
		  (m->state == MODEL_ENDED && clock_mono_ns() - m->ended_ns > RETRY_NS))) {
		model_unlist(e, m);
		m = NULL;
	}
	if (!m)
		model_new(e, dir, NULL, false);
	else if (m->state == MODEL_NONE)
		file_plan_start(e, f);
}

struct engine_file *engine_file_get(struct engine *e, const char *key, struct cache_object *object)
{
	enum format_kind kind = format_kind_of_name(strrchr(key, '/') ? strrchr(key, '/') + 1 : key);
	struct engine_file *f;

	if (kind == FORMAT_NONE)
		return NULL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->engine = e;
	f->refs = 1;
	pthread_mutex_init(&f->lock, NULL);
	f->object = cache_object_ref(object);
	pthread_mutex_lock(&e->lock);
	list_push_back(&e->files, &f->link);
	pthread_mutex_unlock(&e->lock);
	return f;
}

/* A load begins: what the one before left unread is nobody's any more. */
static void model_begin(struct engine_model *m)
{
	uint64_t now = clock_mono_ns();

	pthread_mutex_lock(&m->lock);
	if (m->access_ns && now - m->access_ns > LOAD_PAUSE_NS) {
		sched_restart(m->sched);
		m->access_ns = now;
	}
	pthread_mutex_unlock(&m->lock);
}

void engine_file_opened(struct engine_file *f)
{
	struct engine *e = f->engine;
	struct engine_model *m;

	pthread_mutex_lock(&e->lock);
	f->open = true;
	m = f->model;
	if (m && m->state == MODEL_ENDED && clock_mono_ns() - m->ended_ns > RETRY_NS)
		m->state = MODEL_RUNNING;
	if (m)
		m->nr_open++;
	else
		file_ask(e, f);
	pthread_mutex_unlock(&e->lock);
	if (m)
		model_begin(m);
}

void engine_file_closed(struct engine_file *f)
{
	struct engine *e = f->engine;

	pthread_mutex_lock(&e->lock);
	f->open = false;
	if (f->model)
		f->model->nr_open--;
	pthread_mutex_unlock(&e->lock);
}

struct engine_file *engine_file_ref(struct engine_file *f)
{
	if (f)
		atomic_fetch_add(&f->refs, 1);
	return f;
}

void engine_file_put(struct engine_file *f)
{
	struct engine *e;

	if (!f || atomic_fetch_sub(&f->refs, 1) > 1)
		return;
	e = f->engine;
	pthread_mutex_lock(&e->lock);
	list_del(&f->link);
	if (f->model)
		engine_model_put(f->model);
	pthread_mutex_unlock(&e->lock);
	cache_object_put(e->cfg.cache, f->object);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

static struct engine_model *file_model(struct engine_file *f)
{
	return f ? __atomic_load_n(&f->model, __ATOMIC_ACQUIRE) : NULL;
}

bool engine_file_planned(struct engine_file *f)
{
	struct engine_model *m = file_model(f);

	return m && m->state == MODEL_RUNNING;
}

void engine_file_access(struct engine_file *f, const struct engine_access *a)
{
	struct engine_model *m = file_model(f);

	if (!m) {
		early_add(f, a);
		return;
	}
	pthread_mutex_lock(&m->lock);
	file_access(m, f, a);
	pthread_mutex_unlock(&m->lock);
	if (a->request || a->cached)
		engine_model_pump(m);
}
