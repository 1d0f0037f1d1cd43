// SPDX-License-Identifier: Apache-2.0
/*
 * A volume's process as the tracer sees it: registers a device, prints what is read from it, does as it is told.
 *
 * usage: tracer --run-dir DIR --bpffs DIR [--object FILE --version N] COMMAND
 *   start PATH ID [RING_BYTES]   until "stop" or the end of standard input
 *   clean | unload | programs | probe
 *
 * Prints one JSON object a line. start takes lines: "record 0|1", "drops", "gpu PID", "quiet" (accesses are not
 * printed any more), "hold" and "release" (the reader waits in its callback), "stop".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "trace/gpu.h"
#include "trace/load.h"
#include "trace/reader.h"

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool quiet; /* accesses are counted, not printed */

static void access_print(void *ctx, const struct trace_access *a)
{
	static const char *const kinds[] = { "?", "read", "fault", "map" };

	if (quiet)
		return;
	pthread_mutex_lock(&gate);
	printf("{\"kind\": \"%s\", \"miss\": %s, \"dev\": %u, \"ino\": %llu, \"offset\": %llu, \"len\": %llu, "
	       "\"pid\": %d, \"tid\": %d, \"cgroup\": %llu, \"ns\": %llu}\n",
	       kinds[a->kind], a->miss ? "true" : "false", a->dev, (unsigned long long)a->ino,
	       (unsigned long long)a->offset, (unsigned long long)a->len_bytes, a->pid, a->tid,
	       (unsigned long long)a->cgroup, (unsigned long long)a->ns);
	pthread_mutex_unlock(&gate);
}

/* The reader must do without: every capability of its thread goes before it starts. */
static int capabilities_drop(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

struct reader_start {
	struct trace_reader_config config;
	struct trace_reader *reader;
	struct err err;
};

static void *reader_start_bare(void *arg)
{
	struct reader_start *s = arg;
	int rc = capabilities_drop();

	if (rc == 0)
		rc = trace_reader_start(&s->config, &s->reader, &s->err);
	return (void *)(intptr_t)rc;
}

/* Looks at one more process (0: only lets go of those that ended) and prints what has been counted. */
static void gpu_obey(const struct trace_config *c, pid_t pid, struct trace_gpu_watch **w)
{
	struct trace_gpu sum = { 0 };
	int rc = *w ? 0 : trace_gpu_new(c, 4, w, NULL);

	if (rc == 0 && pid)
		rc = trace_gpu_add(*w, pid);
	if (*w) {
		trace_gpu_sweep(*w);
		trace_gpu_sum(*w, &sum);
	}
	printf("{\"gpu\": %d, \"bytes\": %llu, \"calls\": %llu, \"ns\": %llu}\n", rc, (unsigned long long)sum.bytes,
	       (unsigned long long)sum.calls, (unsigned long long)sum.ns);
}

static void obey(const struct trace_config *c, struct trace *t, struct trace_reader *reader)
{
	struct trace_gpu_watch *gpu = NULL;
	struct trace_reader_stats stats;
	struct trace_drops drops;
	char line[128];
	bool held = false;

	while (fgets(line, sizeof(line), stdin) && strcmp(line, "stop\n") != 0) {
		if (strncmp(line, "record ", 7) == 0) {
			printf("{\"record\": %d}\n", trace_record_set(t, line[7] == '1'));
		} else if (strcmp(line, "drops\n") == 0) {
			int rc = trace_drops_get(t, &drops);

			trace_reader_stats_get(reader, &stats);
			printf("{\"rc\": %d, \"events\": %llu, \"dropped\": %llu, \"told\": %llu, \"seen_dropped\": "
			       "%llu, \"unknown\": %llu}\n",
			       rc, (unsigned long long)drops.events, (unsigned long long)drops.dropped,
			       (unsigned long long)stats.accesses, (unsigned long long)stats.dropped,
			       (unsigned long long)stats.unknown);
		} else if (strncmp(line, "gpu ", 4) == 0) {
			gpu_obey(c, (pid_t)strtol(line + 4, NULL, 10), &gpu);
		} else if (strcmp(line, "quiet\n") == 0) {
			quiet = true;
		} else if (strcmp(line, "hold\n") == 0 && !held) {
			pthread_mutex_lock(&gate);
			held = true;
			printf("{\"held\": true}\n");
		} else if (strcmp(line, "release\n") == 0 && held) {
			pthread_mutex_unlock(&gate);
			held = false;
		}
	}
	if (held)
		pthread_mutex_unlock(&gate);
	trace_gpu_free(gpu);
}

static int start(const struct trace_config *c, char **args, struct err *e)
{
	struct trace_volume_config volume = { .id = args[1], .record = true };
	struct reader_start rs = { .config.access = access_print };
	struct trace *t;
	struct stat st;
	pthread_t thread;
	void *rc_thread;
	int rc;

	if (stat(args[0], &st) < 0)
		return err_set(e, -errno, "%s: %s", args[0], strerror(errno));
	volume.dev = st.st_dev;
	volume.ring_bytes = args[2] ? (uint32_t)strtoul(args[2], NULL, 10) : 0;
	rc = trace_start(c, &volume, &t, e);
	if (rc < 0)
		return rc;
	rs.config.ring_fd = trace_ring_fd(t);
	rs.config.flush_fd = trace_flush_fd(t);
	rc = -pthread_create(&thread, NULL, reader_start_bare, &rs);
	if (rc == 0) {
		pthread_join(thread, &rc_thread);
		rc = (int)(intptr_t)rc_thread;
	}
	if (rc < 0) {
		trace_stop(t);
		return err_set(e, rc, "reader: %s: %s", strerror(-rc), rs.err.msg);
	}
	printf("{\"ready\": %u}\n", trace_dev(st.st_dev));
	obey(c, t, rs.reader);
	trace_reader_stop(rs.reader);
	trace_stop(t);
	return 0;
}

static int programs_print(const struct trace_config *c, bool probe)
{
	struct trace_program programs[TRACE_PROGRAMS_MAX];
	int nr = probe ? trace_programs_probe(c, programs) : trace_programs_get(c, programs);

	for (int i = 0; i < nr; i++)
		printf("{\"name\": \"%s\", \"error\": %d, \"stands_in\": %u, \"reason\": \"%s\"}\n", programs[i].name,
		       programs[i].error, programs[i].stands_in, programs[i].reason);
	return nr;
}

static int object_read(const char *path, struct trace_config *c, void **ret_data)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	*ret_data = malloc((size_t)st.st_size);
	if (!*ret_data || read(fd, *ret_data, (size_t)st.st_size) != st.st_size)
		return -EIO;
	c->object = *ret_data;
	c->object_bytes = (size_t)st.st_size;
	return 0;
}

int main(int argc, char **argv)
{
	struct trace_config c = { 0 };
	_cleanup_free_ void *object = NULL;
	struct err e = { 0 };
	int i, rc = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 1; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (strcmp(argv[i], "--run-dir") == 0)
			c.run_dir = argv[i + 1];
		else if (strcmp(argv[i], "--bpffs") == 0)
			c.bpffs = argv[i + 1];
		else if (strcmp(argv[i], "--object") == 0)
			rc = object_read(argv[i + 1], &c, &object);
		else if (strcmp(argv[i], "--version") == 0)
			c.object_version = (uint32_t)strtoul(argv[i + 1], NULL, 10);
	}
	if (i >= argc || !c.run_dir || rc < 0)
		return 2;
	if (strcmp(argv[i], "start") == 0 && i + 2 < argc)
		rc = start(&c, &argv[i + 1], &e);
	else if (strcmp(argv[i], "clean") == 0)
		rc = trace_clean(&c, &e);
	else if (strcmp(argv[i], "unload") == 0)
		rc = trace_unload(&c, &e);
	else if (strcmp(argv[i], "programs") == 0 || strcmp(argv[i], "probe") == 0)
		rc = programs_print(&c, argv[i][2] == 'o' && argv[i][3] == 'b');
	else
		return 2;
	printf("{\"rc\": %d, \"message\": \"%s\"}\n", rc, e.msg);
	return rc < 0;
}
