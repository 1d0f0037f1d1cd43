// SPDX-License-Identifier: Apache-2.0
/*
 * The provider: one identity's credentials, renewed in the background and handed out without waiting.
 *
 * Design: the source found at the start stays the source for ever. A source that disappears later is a failed refresh,
 * never a reason to ask the next one, whose identity would be another.
 * Threads: the refresher owns next_*, tries and watch; lock guards creds, refused and stop.
 * Owns: copies of all strings of the configuration.
 */
#include "s3/creds_i.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/log.h"

#define ROOM "s3"

static const struct creds_times default_times = {
	.start_bound_ms = 8000,
	.refresh_bound_ms = 30000,
	.poll_ms = 10000,
	.renew_before_s = 300,
	.retry_min_ms = 1000,
	.retry_max_ms = 60000,
	.invalidate_gap_ms = 1000,
};

struct s3_provider {
	struct s3_creds_config cfg;
	char *profile, *region, *ca_bundle, *imds_endpoint;
	struct creds_times times;
	enum s3_creds_source source; /* never CHAIN */
	char description[300];
	char found_region[64];
	int stop_fd;

	pthread_t thread;
	bool running;
	uint64_t last_try_ns, next_try_ns; /* CLOCK_MONOTONIC */
	time_t renew_at;                   /* wall clock; 0 = when something changes only */
	unsigned failures;
	struct creds_watch watch[CREDS_WATCH_MAX];
	unsigned nr_watch;

	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct s3_creds creds;
	bool refused, stop;
};

static const char *const source_names[] = {
	[S3_CREDS_CHAIN] = "chain",         [S3_CREDS_ENV] = "env",
	[S3_CREDS_PROFILE] = "profile",     [S3_CREDS_WEB_IDENTITY] = "web-identity",
	[S3_CREDS_CONTAINER] = "container", [S3_CREDS_IMDS] = "imds",
	[S3_CREDS_ANONYMOUS] = "anonymous",
};

const char *s3_creds_source_name(enum s3_creds_source s)
{
	return (size_t)s < array_len(source_names) ? source_names[s] : "unknown";
}

int s3_creds_source_parse(const char *text, enum s3_creds_source *ret, const char **ret_profile)
{
	static const char prefix[] = "profile:";

	if (strncmp(text, prefix, sizeof(prefix) - 1) == 0 && text[sizeof(prefix) - 1]) {
		*ret = S3_CREDS_PROFILE;
		*ret_profile = text + sizeof(prefix) - 1;
		return 0;
	}
	for (size_t i = 0; i < array_len(source_names); i++) {
		if (i == S3_CREDS_PROFILE || strcmp(text, source_names[i]) != 0)
			continue;
		*ret = (enum s3_creds_source)i;
		*ret_profile = NULL;
		return 0;
	}
	return -EINVAL;
}

/* Uniform in [0, n). */
static uint64_t random_below(uint64_t n)
{
	uint64_t r = 0;

	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != (ssize_t)sizeof(r))
		r = clock_mono_ns();
	return n ? r % n : 0;
}

/* When credentials that were fetched at <now> are to be renewed; nodes that started together do not renew together. */
static time_t renew_time(const struct s3_provider *p, time_t expires, time_t now)
{
	time_t life = expires - now, before = p->times.renew_before_s;

	if (!expires)
		return 0;
	if (life <= 0)
		return now;
	if (life < 2 * before)
		before = life - life / 2;
	return expires - before - (time_t)random_below((uint64_t)(life - before) / 10 + 1);
}

static int fetch(struct s3_provider *p, struct creds_fetch *f, enum s3_creds_source want, long bound_ms,
		 struct s3_creds *ret, enum s3_creds_source *ret_source, struct err *e)
{
	*f = (struct creds_fetch){
		.cfg = &p->cfg,
		.stop_fd = p->stop_fd,
		.deadline_ns = clock_mono_ns() + (uint64_t)bound_ms * NSEC_PER_MSEC,
	};
	return creds_chain(f, want, ret, ret_source, e);
}

/* After a fetch, of either outcome: what it read is what is watched now. */
static void watch_keep(struct s3_provider *p, const struct creds_fetch *f)
{
	memcpy(p->watch, f->watch, sizeof(p->watch));
	p->nr_watch = f->nr_watch;
}

static void creds_swap_in(struct s3_provider *p, struct s3_creds *fresh)
{
	struct s3_creds old;

	pthread_mutex_lock(&p->lock);
	old = p->creds;
	p->creds = *fresh;
	pthread_mutex_unlock(&p->lock);
	s3_creds_wipe(&old);
}

static void schedule(struct s3_provider *p, bool ok, time_t expires)
{
	time_t now = time(NULL);
	uint64_t wait_ms = (uint64_t)p->times.retry_min_ms;

	p->last_try_ns = clock_mono_ns();
	/* Credentials that arrive expired are a failure too: they must not be asked for in a tight loop. */
	p->failures = ok && (!expires || expires > now) ? 0 : p->failures + 1;
	if (ok)
		p->renew_at = renew_time(p, expires, now);
	for (unsigned i = 1; i < p->failures && wait_ms < (uint64_t)p->times.retry_max_ms; i++)
		wait_ms *= 2;
	wait_ms = min_of(wait_ms, (uint64_t)p->times.retry_max_ms);
	wait_ms = wait_ms / 2 + random_below(wait_ms / 2 + 1);
	p->next_try_ns = p->last_try_ns + wait_ms * NSEC_PER_MSEC;
}

static void refresh(struct s3_provider *p)
{
	struct s3_creds fresh = { 0 };
	enum s3_creds_source source;
	struct creds_fetch f;
	struct err e = { 0 };
	time_t expires;
	int rc;

	rc = fetch(p, &f, p->source, p->times.refresh_bound_ms, &fresh, &source, &e);
	if (rc == -ECANCELED)
		return;
	watch_keep(p, &f);
	if (rc < 0) {
		log_warn(ROOM, "credentials were not renewed, the old ones stay in use: %s", e.msg);
		schedule(p, false, 0);
		return;
	}
	expires = fresh.expires;
	creds_swap_in(p, &fresh);
	schedule(p, true, expires);
	log_debug(ROOM, "credentials renewed from %s, they expire in %jd s", p->description,
		  expires ? (intmax_t)(expires - time(NULL)) : (intmax_t)-1);
}

/* Why a refresh is wanted: a refusal by the server, a file that changed, the clock. */
static bool refresh_is_due(struct s3_provider *p)
{
	uint64_t now_ns = clock_mono_ns();
	bool refused;

	pthread_mutex_lock(&p->lock);
	refused = p->refused && now_ns >= p->last_try_ns + (uint64_t)p->times.invalidate_gap_ms * NSEC_PER_MSEC;
	if (refused)
		p->refused = false;
	pthread_mutex_unlock(&p->lock);
	if (refused)
		return true;
	if (now_ns < p->next_try_ns)
		return false;
	return p->failures || (p->renew_at && time(NULL) >= p->renew_at) || creds_files_changed(p->watch, p->nr_watch);
}

static long wait_ms(const struct s3_provider *p)
{
	uint64_t now_ns = clock_mono_ns(), until_ns = 0;
	long ms = p->times.poll_ms;
	time_t now = time(NULL);

	if (p->refused)
		until_ns = p->last_try_ns + (uint64_t)p->times.invalidate_gap_ms * NSEC_PER_MSEC;
	else if (p->failures)
		until_ns = p->next_try_ns;
	if (until_ns)
		return until_ns <= now_ns ? 1 : min_of(ms, (long)((until_ns - now_ns) / NSEC_PER_MSEC) + 1);
	/* The wall clock may jump and the machine may sleep: it is looked at again at each poll. */
	if (p->renew_at && p->renew_at - now < ms / 1000)
		return max_of((long)(p->renew_at - now) * 1000, 100L);
	return ms;
}

static void *refresher(void *arg)
{
	struct s3_provider *p = arg;

	for (;;) {
		struct timespec until;
		uint64_t at;
		bool stop;

		pthread_mutex_lock(&p->lock);
		at = clock_mono_ns() + (uint64_t)wait_ms(p) * NSEC_PER_MSEC;
		until = (struct timespec){ (time_t)(at / NSEC_PER_SEC), (long)(at % NSEC_PER_SEC) };
		if (!p->stop)
			pthread_cond_timedwait(&p->wake, &p->lock, &until);
		stop = p->stop;
		pthread_mutex_unlock(&p->lock);
		if (stop)
			return NULL;
		if (refresh_is_due(p))
			refresh(p);
	}
}

/* An empty string counts as none. */
static int keep(char **room, const char **value)
{
	if (!*value || !**value) {
		*value = NULL;
		return 0;
	}
	*room = strdup(*value);
	*value = *room;
	return *room ? 0 : -ENOMEM;
}

static int provider_init(struct s3_provider *p, const struct s3_creds_config *cfg, const struct creds_times *times)
{
	pthread_condattr_t attr;
	int rc;

	p->cfg = *cfg;
	p->times = *times;
	rc = keep(&p->profile, &p->cfg.profile) ?: keep(&p->region, &p->cfg.region) ?:
	     keep(&p->ca_bundle, &p->cfg.ca_bundle) ?: keep(&p->imds_endpoint, &p->cfg.imds_endpoint);
	p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (rc == 0 && p->stop_fd < 0)
		rc = -errno;
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->wake, &attr);
	pthread_condattr_destroy(&attr);
	return rc;
}

static struct s3_provider *provider_free(struct s3_provider *p)
{
	s3_creds_wipe(&p->creds);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	free(p->profile);
	free(p->region);
	free(p->ca_bundle);
	free(p->imds_endpoint);
	free(p);
	return NULL;
}

static void describe(struct s3_provider *p)
{
	struct creds_fetch *f = &(struct creds_fetch){ .cfg = &p->cfg, .stop_fd = -1 };
	const char *region = creds_env_region(f);
	const char *name = p->cfg.profile ? p->cfg.profile : creds_env(f, "AWS_PROFILE");

	if (p->source == S3_CREDS_PROFILE)
		snprintf(p->description, sizeof(p->description), "profile %s", name ? name : "default");
	else
		snprintf(p->description, sizeof(p->description), "%s", s3_creds_source_name(p->source));
	if (region)
		snprintf(p->found_region, sizeof(p->found_region), "%s", region);
	else
		creds_profile_region(f, p->found_region, sizeof(p->found_region));
}

static int first_fetch(struct s3_provider *p, struct err *e)
{
	struct creds_fetch f = { .cfg = &p->cfg, .stop_fd = -1 };
	int rc;

	p->source = p->cfg.source;
	if (p->source != S3_CREDS_ANONYMOUS) {
		rc = fetch(p, &f, p->cfg.source, p->times.start_bound_ms, &p->creds, &p->source, e);
		if (rc < 0)
			return rc;
	}
	watch_keep(p, &f);
	schedule(p, true, p->creds.expires);
	describe(p);
	if (p->failures)
		log_warn(ROOM, "credentials from %s have already expired, or this machine's clock is wrong",
			 p->description);
	return 0;
}

/* Without signals: they belong to the program, and libcurl must not be ended by SIGPIPE. */
static int refresher_start(struct s3_provider *p)
{
	sigset_t all, old;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = -pthread_create(&p->thread, NULL, refresher, p);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	p->running = rc == 0;
	return rc;
}

int creds_provider_start(const struct s3_creds_config *cfg, const struct creds_times *times, struct s3_provider **ret,
			 struct err *e)
{
	struct s3_provider *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return err_set(e, -ENOMEM, "no memory for credentials");
	rc = provider_init(p, cfg, times);
	if (rc < 0) {
		err_set(e, rc, "credentials cannot be set up: %s", strerror(-rc));
		goto out_free;
	}
	rc = first_fetch(p, e);
	if (rc < 0)
		goto out_free;
	/* A process's environment does not change, and anonymous requests have nothing to renew. */
	if (p->source != S3_CREDS_ENV && p->source != S3_CREDS_ANONYMOUS) {
		rc = refresher_start(p);
		if (rc < 0) {
			err_set(e, rc, "no thread for renewing credentials: %s", strerror(-rc));
			goto out_free;
		}
	}
	*ret = p;
	return 0;

out_free:
	provider_free(p);
	return rc;
}

int s3_provider_start(const struct s3_creds_config *cfg, struct s3_provider **ret, struct err *e)
{
	return creds_provider_start(cfg, &default_times, ret, e);
}

struct s3_provider *s3_provider_stop(struct s3_provider *p)
{
	if (!p)
		return NULL;
	if (p->running) {
		pthread_mutex_lock(&p->lock);
		p->stop = true;
		pthread_cond_signal(&p->wake);
		pthread_mutex_unlock(&p->lock);
		/* Ends a fetch that is under way. */
		eventfd_write(p->stop_fd, 1);
		pthread_join(p->thread, NULL);
	}
	return provider_free(p);
}

int s3_provider_get(struct s3_provider *p, struct s3_creds *ret)
{
	int rc;

	pthread_mutex_lock(&p->lock);
	rc = s3_creds_copy(ret, &p->creds);
	pthread_mutex_unlock(&p->lock);
	return rc;
}

void s3_provider_invalidate(struct s3_provider *p)
{
	pthread_mutex_lock(&p->lock);
	p->refused = true;
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
}

const char *s3_provider_describe(struct s3_provider *p)
{
	return p->description;
}

const char *s3_provider_region(struct s3_provider *p)
{
	return p->found_region;
}
