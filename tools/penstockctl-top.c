// SPDX-License-Identifier: Apache-2.0
/* penstockctl top: what the volumes do, by the difference of two looks. */
#include "penstockctl.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/size.h"

#define INTERVAL_MIN_NS (100 * NSEC_PER_MSEC)
#define INTERVAL_MAX_NS (3600 * NSEC_PER_SEC)

struct seen {
	struct volume v;
	struct snapshot *now, *before; /* before: NULL at its first look */
};

struct look {
	size_t nr;
	struct seen *all;
};

static void look_free(struct look *l)
{
	for (size_t i = 0; i < l->nr; i++) {
		snapshot_free(l->all[i].now);
		snapshot_free(l->all[i].before);
	}
	free(l->all);
	*l = (struct look){ 0 };
}

/* The volumes named in <argv>, or all. */
static int look_volumes(int argc, char **argv, struct volumes *ret, struct err *e)
{
	int rc = 0;

	if (argc == 0)
		return volumes_list(ret, e);
	*ret = (struct volumes){ .all = calloc((size_t)argc, sizeof(*ret->all)) };
	if (!ret->all)
		return err_set(e, -ENOMEM, "out of memory");
	for (int i = 0; i < argc && rc == 0; i++)
		rc = volume_find(argv[i], &ret->all[ret->nr++], e);
	if (rc < 0)
		volumes_free(ret);
	return rc;
}

static int look_take(int argc, char **argv, struct look *last, struct look *ret, struct err *e)
{
	struct volumes all;
	int rc = look_volumes(argc, argv, &all, e);

	if (rc < 0)
		return rc;
	*ret = (struct look){ .all = calloc(all.nr + 1, sizeof(*ret->all)) };
	for (; ret->all && ret->nr < all.nr; ret->nr++) {
		struct seen *s = &ret->all[ret->nr];

		s->v = all.all[ret->nr];
		s->now = snapshot_new();
		if (!s->now)
			break;
		snapshot_take(&s->v, s->now);
		for (size_t i = 0; i < last->nr; i++) {
			if (strcmp(last->all[i].v.id, s->v.id) == 0)
				s->before = take_ptr(last->all[i].now);
		}
	}
	rc = ret->all && ret->nr == all.nr ? 0 : err_set(e, -ENOMEM, "out of memory");
	volumes_free(&all);
	return rc;
}

/* Growth of a counter in a second; false where it is not known. One that went back has started again. */
static bool seen_rate(const struct seen *s, enum ctl_value which, double *ret)
{
	uint64_t a, b;

	if (!s->before || !snapshot_number(s->before, which, &a) || !snapshot_number(s->now, which, &b) ||
	    s->now->taken_ns <= s->before->taken_ns)
		return false;
	*ret = (double)(b >= a ? b - a : b) * (double)NSEC_PER_SEC / (double)(s->now->taken_ns - s->before->taken_ns);
	return true;
}

struct rates {
	double s3, read, hit, faults, stall;
	bool has_s3, has_read, has_hit, has_faults, has_stall;
};

static struct rates seen_rates(const struct seen *s)
{
	double hit, miss;
	struct rates r = { 0 };

	r.has_s3 = seen_rate(s, CTL_S3_BYTES, &r.s3);
	r.has_faults = seen_rate(s, CTL_LOAD_FAULTS, &r.faults);
	r.has_stall = seen_rate(s, CTL_LOAD_FAULT_STALL, &r.stall);
	r.has_read = seen_rate(s, CTL_CACHE_HIT, &hit) && seen_rate(s, CTL_CACHE_MISS, &miss);
	if (!r.has_read)
		return r;
	r.read = hit + miss;
	r.has_hit = r.read > 0;
	if (r.has_hit)
		r.hit = 100 * hit / r.read;
	return r;
}

static const char *cell(bool has, const char *format_1, double v, char ret[32])
{
	if (!has)
		return "-";
	snprintf(ret, 32, strcmp(format_1, "0") == 0 ? "%.0f" : "%.1f", v);
	return ret;
}

static void look_table(const struct look *l)
{
	static const char *const headings[] = { "VOLUME",  ">S3 MB/s",  ">READ MB/s",  ">HIT %", ">WINDOW",
						">MEMORY", ">FAULTS/s", ">STALL ms/s", "STATE" };
	struct table t = { 0 };

	table_row(&t, headings, array_len(headings));
	for (size_t i = 0; i < l->nr; i++) {
		const struct seen *s = &l->all[i];
		struct rates r = seen_rates(s);
		char text[7][32];
		uint64_t window, memory;
		bool has_window = snapshot_number(s->now, CTL_PREFETCH_WINDOW, &window);
		bool has_memory = snapshot_number(s->now, CTL_CACHE_MEMORY_USED, &memory);

		table_row(&t,
			  (const char *[]){ s->v.id, cell(r.has_s3, "1", r.s3 / 1e6, text[0]),
					    cell(r.has_read, "1", r.read / 1e6, text[1]),
					    cell(r.has_hit, "0", r.hit, text[2]),
					    has_window ? human_bytes(window, text[3]) : "-",
					    has_memory ? human_bytes(memory, text[4]) : "-",
					    cell(r.has_faults, "0", r.faults, text[5]),
					    cell(r.has_stall, "1", r.stall / 1000, text[6]), snapshot_state(s->now) },
			  array_len(headings));
	}
	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[2J", stdout);
	table_print(&t, stdout);
	table_done(&t);
}

static json_t *rate_json(bool has, double v)
{
	return has ? json_real(v) : json_null();
}

static void look_json(const struct look *l)
{
	json_t *list = json_array();

	for (size_t i = 0; i < l->nr; i++) {
		const struct seen *s = &l->all[i];
		struct rates r = seen_rates(s);

		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", s->v.id, "state",
						snapshot_state(s->now), "s3_bytes_per_s", rate_json(r.has_s3, r.s3),
						"read_bytes_per_s", rate_json(r.has_read, r.read), "hit_percent",
						rate_json(r.has_hit, r.hit), "window_bytes",
						snapshot_json(s->now, CTL_PREFETCH_WINDOW), "memory_used",
						snapshot_json(s->now, CTL_CACHE_MEMORY_USED), "faults_per_s",
						rate_json(r.has_faults, r.faults), "stall_us_per_s",
						rate_json(r.has_stall, r.stall)));
	}
	json_out(json_pack("{s:I, s:o}", "time", (json_int_t)time(NULL), "volumes", list), JSON_COMPACT);
}

static void interval_wait(uint64_t ns)
{
	struct timespec t = { .tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC) };

	nanosleep(&t, NULL);
}

int verb_top(int argc, char **argv)
{
	struct look last = { 0 }, now = { 0 };
	struct err e = { 0 };
	const char *interval = "1";
	bool json = false, once = false;
	const struct opt opts[] = {
		{ .name = "json", .flag = &json },
		{ .name = "once", .flag = &once },
		{ .name = "interval", .value = &interval },
	};
	uint64_t ns;
	int rc;

	if (opts_parse(opts, array_len(opts), &argc, argv, &e) < 0)
		return tool_fail(&e, EXIT_USAGE);
	if (duration_parse(interval, &ns) < 0 || ns < INTERVAL_MIN_NS || ns > INTERVAL_MAX_NS) {
		err_set(&e, -EINVAL, "--interval %s: give 0.1 to 3600 seconds", interval);
		return tool_fail(&e, EXIT_USAGE);
	}
	for (int looks = 0;; looks++) {
		rc = look_take(argc, argv, &last, &now, &e);
		look_free(&last);
		if (rc < 0)
			break;
		/* The first look has no rates yet. */
		if (looks > 0 && json)
			look_json(&now);
		else if (looks > 0)
			look_table(&now);
		if (looks > 0 && once)
			break;
		last = now;
		now = (struct look){ 0 };
		interval_wait(ns);
	}
	look_free(&now);
	return rc < 0 ? tool_fail(&e, EXIT_FAILED) : EXIT_FINE;
}
