// SPDX-License-Identifier: Apache-2.0
/*
 * "model": loads a safetensors model as a loader does: the small files and the index by read(), then each shard's
 * header, then the tensors in their order, copied out of a mapping by threads that take the next tensor each.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <limits.h>
#include <string.h>

#include "penstock-load-format.h"

#define SMALL_MAX_BYTES (256ull << 20)
#define SHARD_TAIL ".safetensors"

/* Lives for one run of one process: children make their own, as each process of a real loader does. */
struct model {
	struct load_run run;    /* first: a worker's run is its model's */
	struct tensors *shards; /* of each file */
	size_t nr_tensors;
};

static struct model *model_of(struct load_run *run)
{
	return container_of(run, struct model, run);
}

static bool is_shard(const char *path)
{
	size_t len = strlen(path), tail = strlen(SHARD_TAIL);

	return len > tail && !strcmp(path + len - tail, SHARD_TAIL);
}

static int small_read(struct load_worker *w, struct load_file *f, struct err *e)
{
	_cleanup_free_ void *buf = malloc((size_t)f->size_bytes + 1);
	int rc = buf ? load_bytes(w, f, 0, (size_t)f->size_bytes, buf) : -ENOMEM;

	return rc ? err_set(e, rc, "cannot read %s: %s", f->path, strerror(-rc)) : 0;
}

/* Everything before the tensors, by one thread. */
static int model_prepare(struct load_run *run, struct err *e)
{
	struct load_worker *w = run->workers + run->process * run->opt->jobs;
	struct model *m = model_of(run);
	_cleanup_free_ void *scratch = malloc(LOAD_COPY_BYTES);
	int rc = scratch ? 0 : err_set(e, -ENOMEM, "out of memory");

	w->scratch = scratch;
	for (size_t i = 0; i < run->nr_files && !rc; i++) {
		struct load_file *f = &run->files[i];

		if (!is_shard(f->path)) {
			rc = small_read(w, f, e);
			continue;
		}
		rc = format_tensors_read(w, f, &m->shards[i], e);
		m->nr_tensors += m->shards[i].nr;
		if (!rc)
			rc = load_file_map(f, run->opt, 0, e);
	}
	w->scratch = NULL;
	return rc;
}

static void body_tensors(struct load_worker *w)
{
	struct model *m = model_of(w->run);
	uint64_t unit, first = 0; /* first: of the file's tensors */
	size_t n, i = 0;

	while ((unit = load_unit_next(w)) < m->nr_tensors) {
		const struct tensor *t;
		struct load_file *f;

		for (; unit - first >= m->shards[i].nr; i++)
			first += m->shards[i].nr;
		t = &m->shards[i].item[unit - first];
		f = &w->run->files[i];
		for (uint64_t done = 0; done < t->len_bytes; done += n) {
			n = (size_t)min_of(t->len_bytes - done, LOAD_COPY_BYTES);
			load_bytes(w, f, t->offset + done, n, w->buf);
		}
		load_tensor_done(w);
	}
}

static int name_wanted(const struct dirent *d)
{
	return d->d_name[0] != '.' && d->d_type != DT_DIR;
}

/* Small files first, then the shards, both in natural order. */
static int files_open(struct load_run *run, const char *dir, struct err *e)
{
	struct dirent **names;
	char path[PATH_MAX];
	int nr = scandir(dir, &names, name_wanted, versionsort), rc = 0;

	if (nr < 0)
		return err_set(e, -errno, "cannot list %s: %s", dir, strerror(errno));
	run->files = calloc((size_t)nr + 1, sizeof(*run->files));
	if (!run->files)
		rc = err_set(e, -ENOMEM, "out of memory");
	for (int i = 0; i < 2 * nr && !rc; i++) {
		const char *name = names[i % nr]->d_name;
		struct load_file *f = &run->files[run->nr_files];

		if (is_shard(name) != (i >= nr))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, name);
		run->nr_files++;
		rc = load_file_open(f, path, run->opt, e);
		if (!rc && !is_shard(name) && f->size_bytes > SMALL_MAX_BYTES)
			rc = err_set(e, -EFBIG, "%s is no part of a safetensors model: too large", path);
		/* A seed knows the contents of shards only. */
		if (!is_shard(name) && f->check.kind == CHECK_SEED)
			check_close(&f->check);
		run->total_bytes += f->size_bytes * run->opt->processes;
	}
	if (!rc && (!run->nr_files || !is_shard(run->files[run->nr_files - 1].path)))
		rc = err_set(e, -ENOENT, "%s holds no *%s file", dir, SHARD_TAIL);
	while (nr--)
		free(names[nr]);
	free(names);
	return rc;
}

int load_model(const char *dir, const struct load_options *opt, struct load_result *ret, struct err *e)
{
	struct model m = {
		.run = { .opt = opt, .buf_bytes = LOAD_COPY_BYTES, .prepare = model_prepare, .body = body_tensors },
	};
	int rc = files_open(&m.run, dir, e);

	m.shards = calloc(m.run.nr_files + 1, sizeof(*m.shards));
	if (!rc && !m.shards)
		rc = err_set(e, -ENOMEM, "out of memory");
	if (!rc)
		rc = load_run_execute(&m.run, ret, e);
	for (size_t i = 0; i < m.run.nr_files; i++) {
		load_file_close(&m.run.files[i]);
		if (m.shards)
			tensors_done(&m.shards[i]);
	}
	free(m.run.files);
	free(m.shards);
	return rc;
}
