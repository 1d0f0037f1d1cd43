// SPDX-License-Identifier: Apache-2.0
/*
 * penstockctl beside this build, over trees that this program mounts: answers, errors, and daemons that are stopped or
 * dead. Takes root and /dev/fuse.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "ctl/mount.h"
#include "test_ctl.h"

#define OUTPUT_BYTES (256 << 10)

static char program[PATH_MAX], root[64];
static struct fake fake;
static struct ctl_tree *tree;
static struct ctl_mount *ctl;
static char out[OUTPUT_BYTES];
static struct err e;

static const char *at(const char *leaf)
{
	static char path[2][PATH_MAX];
	static int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", root, leaf);
	return path[turn];
}

static void file_write(const char *leaf, const char *text)
{
	_cleanup_close_ int fd = open(at(leaf), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void file_read(const char *leaf, char *ret, size_t room)
{
	_cleanup_close_ int fd = open(at(leaf), O_RDONLY);
	ssize_t n = read(fd, ret, room - 1);

	assert_true(fd >= 0 && n >= 0);
	ret[n] = '\0';
}

/* A volume "v" of this process on /data/v, unless <state> says not to mount it. */
static int run_dir_make(void **state)
{
	char text[64];

	snprintf(root, sizeof(root), "/tmp/test_ctl_tool.XXXXXX");
	if (!mkdtemp(root) || mkdir(at("volumes"), 0755) < 0 || setenv("PENSTOCK_RUN_DIR", root, 1) < 0)
		return -1;
	snprintf(text, sizeof(text), "%d\n/data/v\n", (int)getpid());
	file_write("volumes/v.pid", text);
	fake_init(&fake);
	tree = ctl_table_tree_new(&fake.ops);
	return tree ? 0 : -1;
}

static int volume_make(void **state)
{
	return run_dir_make(state) < 0 ? -1 : ctl_mount_start(tree, at("volumes/v"), &ctl, &e);
}

static int run_dir_remove(void **state)
{
	char *argv[] = { "rm", "-rf", "--one-file-system", root, NULL };
	int status = 1;
	pid_t pid;

	ctl = ctl_mount_stop(ctl);
	tree = ctl_tree_free(tree);
	ctl_mount_clear(at("volumes/v"));
	pid = fork();
	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(1);
	}
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

static int settings_bind(void)
{
	static const struct {
		const char *leaf, *path;
	} binds[] = {
		{ "enable_uring", "/sys/module/fuse/parameters/enable_uring" },
		{ "max_pages_limit", "/proc/sys/fs/fuse/max_pages_limit" },
		{ "io_uring_disabled", "/proc/sys/kernel/io_uring_disabled" },
	};

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	for (size_t i = 0; i < array_len(binds); i++) {
		/* A kernel may lack one; what is there must be covered. */
		if (access(binds[i].path, F_OK) == 0 &&
		    mount(at(binds[i].leaf), binds[i].path, NULL, MS_BIND, NULL) < 0)
			return -errno;
	}
	return 0;
}

/* Runs penstockctl; what it prints, also on standard error, is in <out>. Returns its exit status. */
static int ctl_run_in(int (*prepare)(void), char *const *argv)
{
	int fds[2], status;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		if (!prepare || prepare() == 0)
			execv(program, argv);
		_exit(99);
	}
	close(fds[1]);
	while ((n = read(fds[0], out + len, sizeof(out) - 1 - len)) > 0)
		len += (size_t)n;
	out[len] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

#define ctl_run(...) ctl_run_in(NULL, (char *[]){ "penstockctl", __VA_ARGS__, NULL })

static json_t *out_json(void)
{
	json_error_t error;
	json_t *j = json_loads(out, 0, &error);

	if (!j)
		fail_msg("no JSON: %s: %s", error.text, out);
	return j;
}

/* The value at a path of names, as text for strings and a number else. */
static const json_t *json_at(const json_t *j, const char *name, const char *below)
{
	j = json_object_get(j, name);
	return below ? json_object_get(j, below) : j;
}

static void ls_shows_a_volume(void **state)
{
	json_t *j;

	assert_int_equal(ctl_run("ls"), 0);
	assert_non_null(strstr(out, "v   s3://bucket/prefix  /data/v  s3://bucket/prefix  ready\n"));
	assert_int_equal(ctl_run("ls", "--json"), 0);
	j = out_json();
	assert_int_equal(json_array_size(j), 1);
	assert_string_equal(json_string_value(json_at(json_array_get(j, 0), "id", NULL)), "v");
	assert_string_equal(json_string_value(json_at(json_array_get(j, 0), "dir", NULL)), "/data/v");
	assert_string_equal(json_string_value(json_at(json_array_get(j, 0), "state", NULL)), "ready");
	assert_int_equal(json_integer_value(json_at(json_array_get(j, 0), "pid", NULL)), getpid());
	json_decref(j);
}

static void no_volumes_are_an_empty_list(void **state)
{
	json_t *j;

	assert_int_equal(unlink(at("volumes/v.pid")), 0);
	assert_int_equal(rmdir(at("volumes")), 0);
	assert_int_equal(ctl_run("ls", "--json"), 0);
	j = out_json();
	assert_int_equal(json_array_size(j), 0);
	json_decref(j);
}

static void stat_shows_every_value(void **state)
{
	json_t *j;

	fake.number[CTL_CACHE_MEMORY_USED] = 3ull << 29;
	assert_int_equal(ctl_run("stat", "v"), 0);
	assert_non_null(strstr(out, "1610612736 (1.5 GiB)"));
	assert_int_equal(ctl_run("stat", "--json", "v"), 0);
	j = out_json();
	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *s = &ctl_specs[i];
		const json_t *v = s->dir[0] ? json_at(j, s->dir, s->name) : json_at(j, s->name, NULL);

		assert_non_null(v);
		if (i == FAKE_NO_GPU)
			assert_true(json_is_null(v));
		else if (s->kind == CTL_TEXT || s->kind == CTL_WORD)
			assert_true(json_is_string(v));
		else
			assert_int_equal(json_integer_value(v), fake.number[i]);
	}
	assert_string_equal(json_string_value(json_at(j, "prefetch", "mode")), "eager");
	json_decref(j);
}

static void *counters_move(void *arg)
{
	_Atomic bool *stop = arg;

	while (!*stop) {
		fake.number[CTL_S3_BYTES] += 1000000;
		fake.number[CTL_CACHE_HIT] += 3000000;
		fake.number[CTL_CACHE_MISS] += 1000000;
		usleep(1000);
	}
	return NULL;
}

static void top_shows_rates(void **state)
{
	_Atomic bool stop = false;
	const json_t *v;
	double s3, read;
	pthread_t t;
	json_t *j;

	assert_int_equal(pthread_create(&t, NULL, counters_move, (void *)&stop), 0);
	assert_int_equal(ctl_run("top", "--once", "--json", "--interval", "0.3"), 0);
	j = out_json();
	assert_int_equal(ctl_run("top", "--once", "--interval=0.1s", "v"), 0);
	stop = true;
	pthread_join(t, NULL);
	assert_non_null(strstr(out, "STALL ms/s"));
	v = json_array_get(json_at(j, "volumes", NULL), 0);
	s3 = json_real_value(json_at(v, "s3_bytes_per_s", NULL));
	read = json_real_value(json_at(v, "read_bytes_per_s", NULL));
	assert_true(s3 > 1e6 && read > 3.5 * s3 && read < 4.5 * s3);
	assert_int_equal((int)(json_real_value(json_at(v, "hit_percent", NULL)) + 0.5), 75);
	json_decref(j);
}

static void warm_reads_every_byte(void **state)
{
	char pattern[PATH_MAX];
	json_t *j;

	assert_int_equal(mkdir(at("data"), 0755), 0);
	assert_int_equal(mkdir(at("data/sub"), 0755), 0);
	file_write("data/a.bin", "12345");
	file_write("data/sub/b.bin", "1234567");
	assert_int_equal(ctl_run("warm", "--jobs", "3", (char *)at("data")), 0);
	assert_non_null(strstr(out, "read 12 bytes of 2 files"));
	assert_non_null(strstr(out, "is on no volume"));
	snprintf(pattern, sizeof(pattern), "%s/data/*.bin", root);
	assert_int_equal(ctl_run("warm", "--json", pattern), 0);
	j = out_json();
	assert_int_equal(json_integer_value(json_at(j, "bytes", NULL)), 5);
	assert_int_equal(json_integer_value(json_at(j, "errors", NULL)), 0);
	json_decref(j);
}

static void warm_of_a_file_that_fails_says_so(void **state)
{
	/* The tree's file without a value. */
	assert_int_equal(ctl_run("warm", (char *)at("volumes/v/trace")), 1);
	assert_non_null(strstr(out, "trace/gpu: No data available"));
	assert_non_null(strstr(out, "with errors"));
}

static void wrong_use_is_told_in_one_line(void **state)
{
	static const struct {
		char *argv[5];
		int status;
		const char *says;
	} cases[] = {
		{ { "penstockctl", "lss" }, 2, "\"lss\" is no verb" },
		{ { "penstockctl", "stat" }, 2, "stat takes a volume's id" },
		{ { "penstockctl", "stat", "v", "--js" }, 2, "--js is no option" },
		{ { "penstockctl", "ls", "--json=1" }, 2, "--json takes no value" },
		{ { "penstockctl", "ls", "--log-level" }, 2, "--log-level needs a value" },
		{ { "penstockctl", "ls", "--log-level", "all" }, 2, "--log-level all: give error" },
		{ { "penstockctl", "top", "--interval", "0" }, 2, "--interval 0: give" },
		{ { "penstockctl", "warm", "--jobs=0", "x" }, 2, "--jobs 0: give 1 to" },
		{ { "penstockctl", "stat", "nothing" }, 1, "nothing is neither a volume's id" },
		{ { "penstockctl", "stat", "/tmp" }, 1, "/tmp is neither a volume's id" },
		{ { "penstockctl", "warm", "/nothing*" }, 1, "/nothing*: no such file" },
	};

	for (size_t i = 0; i < array_len(cases); i++) {
		assert_int_equal(ctl_run_in(NULL, cases[i].argv), cases[i].status);
		assert_memory_equal(out, "penstockctl: ", 13);
		assert_non_null(strstr(out, cases[i].says));
		assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
	}
}

static void a_relative_run_directory_is_an_error(void **state)
{
	assert_int_equal(setenv("PENSTOCK_RUN_DIR", "relative", 1), 0);
	assert_int_equal(ctl_run("ls"), 1);
	assert_non_null(strstr(out, "PENSTOCK_RUN_DIR"));
}

/* A volume of another process, which then gets the signal. */
static pid_t owner_start(int sig)
{
	int fds[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (ctl_mount_start(tree, at("volumes/v"), &ctl, &e) == 0 && write(fds[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	assert_int_equal(kill(pid, sig), 0);
	if (sig == SIGKILL)
		assert_int_equal(waitpid(pid, NULL, 0), pid);
	return pid;
}

static void a_dead_volume_is_shown_as_dead(void **state)
{
	owner_start(SIGKILL);
	assert_int_equal(ctl_run("ls"), 0);
	assert_non_null(strstr(out, " dead\n"));
	assert_int_equal(ctl_run("stat", "v"), 1);
	assert_non_null(strstr(out, "the daemon of v is dead; penstock unmount /data/v\n"));
	assert_int_equal(ctl_run("doctor"), 1);
	assert_non_null(strstr(out, "-> penstock unmount /data/v\n"));
}

static void a_stopped_daemon_does_not_hang_the_tool(void **state)
{
	pid_t pid = owner_start(SIGSTOP);
	uint64_t from = clock_mono_ns();

	assert_int_equal(ctl_run("ls"), 0);
	assert_non_null(strstr(out, " stuck\n"));
	assert_int_equal(ctl_run("stat", "v"), 1);
	assert_non_null(strstr(out, "does not answer"));
	assert_true(clock_mono_ns() - from < 30 * NSEC_PER_SEC);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_volume_without_a_tree_is_shown(void **state)
{
	assert_int_equal(ctl_run("ls"), 0);
	assert_non_null(strstr(out, " no tree\n"));
	assert_int_equal(ctl_run("stat", "v"), 1);
	assert_non_null(strstr(out, "v has no tuning tree"));
}

static void doctor_looks_and_changes_nothing(void **state)
{
	char text[16];
	json_t *j;

	file_write("enable_uring", "N\n");
	file_write("max_pages_limit", "256\n");
	file_write("io_uring_disabled", "0\n");
	fake.number[CTL_FUSE_READ_AHEAD] = 128;
	assert_int_equal(ctl_run_in(settings_bind, (char *[]){ "penstockctl", "doctor", "--json", NULL }), 0);
	j = out_json();
	assert_int_equal(json_array_size(json_at(j, "fixed", NULL)), 0);
	assert_true(json_array_size(json_at(j, "findings", NULL)) > 10);
	json_decref(j);
	assert_non_null(strstr(out, "echo 4096 > "));
	file_read("enable_uring", text, sizeof(text));
	assert_string_equal(text, "N\n");
}

static void doctor_fix_changes_what_lacks_and_says_so(void **state)
{
	char *const argv[] = { "penstockctl", "doctor", "--fix", NULL };
	char text[16];

	file_write("enable_uring", "N\n");
	file_write("max_pages_limit", "256\n");
	file_write("io_uring_disabled", "0\n");
	assert_int_equal(ctl_run_in(settings_bind, argv), 0);
	if (access("/sys/module/fuse/parameters/enable_uring", F_OK) == 0) {
		assert_non_null(strstr(out, "enable_uring from N to Y, until the next boot"));
		file_read("enable_uring", text, sizeof(text));
		assert_string_equal(text, "Y\n");
	}
	if (access("/proc/sys/fs/fuse/max_pages_limit", F_OK) == 0) {
		file_read("max_pages_limit", text, sizeof(text));
		assert_string_equal(text, "1024\n");
	}
	assert_null(strstr(out, "io_uring_disabled from"));
	assert_int_equal(ctl_run_in(settings_bind, argv), 0);
	assert_null(strstr(out, "changed"));
}

static void help_and_version_are_there(void **state)
{
	assert_int_equal(ctl_run("--help"), 0);
	assert_non_null(strstr(out, "usage: penstockctl"));
	assert_int_equal(ctl_run("stat", "--help"), 0);
	assert_int_equal(ctl_run("--version"), 0);
	assert_memory_equal(out, "penstockctl ", 12);
}

/* build/tests/unit/THIS and build/bin/penstockctl */
static int program_find(void **state)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return -1;
	self[n] = '\0';
	for (int i = 0; i < 3; i++)
		*strrchr(self, '/') = '\0';
	snprintf(program, sizeof(program), "%s/bin/penstockctl", self);
	return access(program, X_OK);
}

int main(void)
{
#define MOUNTED(f) cmocka_unit_test_setup_teardown(f, volume_make, run_dir_remove)
#define PREPARED(f) cmocka_unit_test_setup_teardown(f, run_dir_make, run_dir_remove)
	const struct CMUnitTest tests[] = {
		MOUNTED(ls_shows_a_volume),
		PREPARED(no_volumes_are_an_empty_list),
		MOUNTED(stat_shows_every_value),
		MOUNTED(top_shows_rates),
		MOUNTED(warm_reads_every_byte),
		MOUNTED(warm_of_a_file_that_fails_says_so),
		MOUNTED(wrong_use_is_told_in_one_line),
		PREPARED(a_relative_run_directory_is_an_error),
		PREPARED(a_dead_volume_is_shown_as_dead),
		PREPARED(a_stopped_daemon_does_not_hang_the_tool),
		PREPARED(a_volume_without_a_tree_is_shown),
		MOUNTED(doctor_looks_and_changes_nothing),
		MOUNTED(doctor_fix_changes_what_lacks_and_says_so),
		PREPARED(help_and_version_are_there),
	};

	return cmocka_run_group_tests_name("ctl_tool", tests, program_find, NULL);
}
