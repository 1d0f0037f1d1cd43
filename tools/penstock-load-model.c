// SPDX-License-Identifier: Apache-2.0
/*
 * "model": loads a safetensors model as a loader does: the small files and the index by read(), then each shard's
 * header, then the tensors in their order, copied out of a mapping by threads that take the next tensor each.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <jansson.h>
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "penstock-load.h"

#define HEADER_MAX_BYTES (100ull << 20)
#define SMALL_MAX_BYTES (256ull << 20)
#define SHARD_TAIL ".safetensors"

struct tensor {
	struct load_file *file;
	uint64_t offset, len_bytes;
};

/* Lives for one run of one process: children make their own, as each process of a real loader does. */
struct model {
	struct load_run run; /* first: a worker's run is its model's */
	struct tensor *tensors;
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

/* Reads and compares a range through read(); the caller frees. */
static int range_read(struct load_worker *w, struct load_file *f, uint64_t offset, size_t len, char **ret)
{
	_cleanup_free_ char *buf = malloc(len + 1);
	uint64_t started = clock_mono_ns();
	ssize_t n;
	int rc = buf ? 0 : -ENOMEM;

	for (size_t done = 0; done < len && !rc; done += (size_t)n) {
		n = pread(f->fd, buf + done, len - done, (off_t)(offset + done));
		if (n <= 0) {
			rc = n ? -errno : -ENODATA;
			break;
		}
	}
	load_op_done(w, f, offset, len, started, rc);
	if (rc)
		return rc;
	load_op_compare(w, f, offset, buf, len);
	buf[len] = '\0';
	*ret = take_ptr(buf);
	return 0;
}

static int tensor_parse(struct model *m, struct load_file *f, uint64_t data_start, json_t *json)
{
	json_t *range = json_object_get(json, "data_offsets");
	json_int_t first = json_integer_value(json_array_get(range, 0));
	json_int_t last = json_integer_value(json_array_get(range, 1));
	struct tensor *more;

	if (json_array_size(range) != 2 || first < 0 || last < first || (uint64_t)last > f->size_bytes - data_start)
		return -EBADMSG;
	more = reallocarray(m->tensors, m->nr_tensors + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	m->tensors = more;
	m->tensors[m->nr_tensors++] = (struct tensor){ f, data_start + (uint64_t)first, (uint64_t)(last - first) };
	return 0;
}

static int tensor_compare(const void *a, const void *b)
{
	const struct tensor *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static int header_read(struct load_worker *w, struct load_file *f, struct err *e)
{
	struct model *m = model_of(w->run);
	_cleanup_free_ char *len_text = NULL, *text = NULL;
	size_t before = m->nr_tensors;
	json_t *header, *value;
	const char *name;
	uint64_t len;
	int rc;

	if (f->size_bytes < sizeof(len))
		return err_set(e, -EBADMSG, "%s is too short for a safetensors file", f->path);
	rc = range_read(w, f, 0, sizeof(len), &len_text);
	if (rc)
		return err_set(e, rc, "cannot read %s: %s", f->path, strerror(-rc));
	memcpy(&len, len_text, sizeof(len));
	len = le64toh(len);
	if (len > HEADER_MAX_BYTES || len > f->size_bytes - sizeof(len))
		return err_set(e, -EBADMSG, "%s is no safetensors file: its header would have %llu bytes", f->path,
			       (unsigned long long)len);
	rc = range_read(w, f, sizeof(len), (size_t)len, &text);
	if (rc)
		return err_set(e, rc, "cannot read the header of %s: %s", f->path, strerror(-rc));
	header = json_loadb(text, (size_t)len, 0, NULL);
	if (!json_is_object(header))
		rc = -EBADMSG;
	json_object_foreach(header, name, value)
	{
		if (!rc && strcmp(name, "__metadata__"))
			rc = tensor_parse(m, f, sizeof(len) + len, value);
	}
	json_decref(header);
	if (rc)
		return err_set(e, rc, "%s has a broken header: %s", f->path, strerror(-rc));
	if (m->nr_tensors > before)
		qsort(m->tensors + before, m->nr_tensors - before, sizeof(*m->tensors), tensor_compare);
	return 0;
}

/* Everything before the tensors, by one thread. */
static int model_prepare(struct load_run *run, struct err *e)
{
	struct load_worker *w = run->workers + run->process * run->opt->jobs;
	struct model *m = model_of(run);
	_cleanup_free_ void *scratch = malloc(LOAD_COPY_BYTES);
	int rc = scratch ? 0 : err_set(e, -ENOMEM, "out of memory");

	w->scratch = scratch;
	m->nr_tensors = 0;
	for (size_t i = 0; i < run->nr_files && !rc; i++) {
		struct load_file *f = &run->files[i];
		_cleanup_free_ char *text = NULL;

		if (is_shard(f->path)) {
			rc = header_read(w, f, e);
			if (!rc)
				rc = load_file_map(f, run->opt, 0, e);
		} else {
			rc = range_read(w, f, 0, (size_t)f->size_bytes, &text);
			if (rc)
				err_set(e, rc, "cannot read %s: %s", f->path, strerror(-rc));
		}
	}
	w->scratch = NULL;
	return rc;
}

static void body_tensors(struct load_worker *w)
{
	struct model *m = model_of(w->run);
	uint64_t unit;

	while ((unit = load_unit_next(w)) < m->nr_tensors) {
		const struct tensor *t = &m->tensors[unit];
		uint64_t started;
		size_t n;
		int rc;

		for (uint64_t done = 0; done < t->len_bytes; done += n) {
			n = (size_t)min_of(t->len_bytes - done, LOAD_COPY_BYTES);
			started = clock_mono_ns();
			rc = load_copy(w->buf, t->file->map + t->offset + done, n);
			load_op_done(w, t->file, t->offset + done, n, started, rc);
			if (!rc)
				load_op_compare(w, t->file, t->offset + done, w->buf, n);
		}
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

	if (!rc)
		rc = load_run_execute(&m.run, ret, e);
	for (size_t i = 0; i < m.run.nr_files; i++)
		load_file_close(&m.run.files[i]);
	free(m.run.files);
	free(m.tensors);
	return rc;
}
