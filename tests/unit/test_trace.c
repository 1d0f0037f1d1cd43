// SPDX-License-Identifier: Apache-2.0
/* The parts of the tracer that need no kernel; tests/bpf/ has the others. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "trace/load.h"
#include "trace/reader.h"

static void device_numbers_are_the_kernels(void **state)
{
	assert_int_equal(trace_dev(makedev(0, 41)), 41);
	assert_int_equal(trace_dev(makedev(7, 2)), 7 << 20 | 2);
	/* Minor numbers beyond 255 lie elsewhere in what stat() says. */
	assert_int_equal(trace_dev(makedev(259, 0x54321)), 259 << 20 | 0x54321);
}

static pid_t dead_process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

static void cgroup_is_one_of_the_process(void **state)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/cgroup", "re");
	char path[4096], line[4096], *group;
	bool found = false;

	assert_non_null(f);
	assert_int_equal(trace_cgroup_path(getpid(), path, sizeof(path)), 0);
	assert_int_equal(path[0], '/');
	while (!found && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		group = strchr(strchr(line, ':') + 1, ':') + 1;
		found = strcmp(group, path) == 0;
	}
	assert_true(found);
}

static void cgroup_of_a_dead_process_is_an_error(void **state)
{
	char path[64];

	assert_int_equal(trace_cgroup_path(dead_process(), path, sizeof(path)), -ENOENT);
}

static void dead_owner_is_refused_before_anything_is_made(void **state)
{
	const struct trace_config c = { .run_dir = "/nowhere/at/all", .bpffs = "/nowhere/bpf" };
	const struct trace_volume_config volume = { .id = "volume", .owner = dead_process() };
	struct trace *t = NULL;
	struct err e = { 0 };

	assert_int_equal(trace_start(&c, &volume, &t, &e), -ESRCH);
	assert_non_null(strstr(e.msg, "does not live"));
	assert_null(t);
}

static void unusable_run_directory_is_an_error_with_its_name(void **state)
{
	const struct trace_config c = { .run_dir = "/proc/nowhere", .bpffs = "/nowhere/bpf" };
	const struct trace_volume_config volume = { .id = "volume" };
	struct trace *t = NULL;
	struct err e = { 0 };

	assert_int_equal(trace_start(&c, &volume, &t, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "/proc/nowhere"));
	assert_int_equal(trace_clean(&c, &e), -ENOENT);
	assert_null(t);
}

static void reader_of_no_ring_buffer_is_an_error(void **state)
{
	const struct trace_reader_config c = { .ring_fd = -1, .flush_fd = -1 };
	struct trace_reader *r = NULL;
	struct err e = { 0 };

	assert_true(trace_reader_start(&c, &r, &e) < 0);
	assert_non_null(strstr(e.msg, "ring buffer"));
	assert_null(r);
	trace_reader_stop(NULL);
	trace_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(device_numbers_are_the_kernels),
		cmocka_unit_test(cgroup_is_one_of_the_process),
		cmocka_unit_test(cgroup_of_a_dead_process_is_an_error),
		cmocka_unit_test(dead_owner_is_refused_before_anything_is_made),
		cmocka_unit_test(unusable_run_directory_is_an_error_with_its_name),
		cmocka_unit_test(reader_of_no_ring_buffer_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
