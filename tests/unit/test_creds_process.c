// SPDX-License-Identifier: Apache-2.0
/* credential_process: the command's words, its end, its deadline, and that nothing it says reaches a message. */
#define _GNU_SOURCE
#include "test_creds.h"

#include <signal.h>

static struct dir dir;
static struct s3_creds c;
static struct err e;

#define REPLY "echo '{\"Version\":1,\"AccessKeyId\":\"AKID\",\"SecretAccessKey\":\"" SECRET "\"}'"

static int run_with(const char *command, long bound_ms, int stop_fd)
{
	const struct s3_creds_config cfg = { 0 };
	struct creds_fetch f = {
		.cfg = &cfg,
		.stop_fd = stop_fd,
		.deadline_ns = clock_mono_ns() + (uint64_t)bound_ms * NSEC_PER_MSEC,
	};

	s3_creds_wipe(&c);
	memset(&e, 0, sizeof(e));
	return creds_process(&f, command, &c, &e);
}

static int run(const char *command)
{
	return run_with(command, 5000, -1);
}

/* A script that <body> is, as the command's first word. */
static const char *script(const char *name, const char *body)
{
	static char text[1024];

	snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", body);
	return dir_write(&dir, name, text, 0755);
}

static void its_output_is_used(void **state)
{
	assert_int_equal(run(script("good", REPLY)), CREDS_FOUND);
	assert_string_equal(c.access_key_id, "AKID");
	assert_string_equal(secret_bytes(&c.secret_key), SECRET);
}

static void words_are_split_as_a_shell_does_but_by_no_shell(void **state)
{
	char command[512];

	snprintf(command, sizeof(command), " %s  'a b' \"c \\\" \\x\"d e\\ f '' $HOME ; ",
		 script("args",
			"[ $# = 6 ] && [ \"$1|$2|$3|$4|$5|$6\" = 'a b|c \" \\xd|e f||$HOME|;' ] || exit 9\n" REPLY));
	assert_int_equal(run(command), CREDS_FOUND);
}

static void broken_commands_are_errors(void **state)
{
	char many[512] = "";

	assert_int_equal(run(""), -EINVAL);
	assert_int_equal(run(" \t "), -EINVAL);
	assert_int_equal(run("a 'b"), -EINVAL);
	assert_int_equal(run("a \\"), -EINVAL);
	for (int i = 0; i < 65; i++)
		strcat(many, "a ");
	assert_int_equal(run(many), -E2BIG);
	assert_int_equal(run("/nonexistent/helper --password " SECRET), -ENOENT);
	assert_contains(e.msg, "/nonexistent/helper");
	assert_no_secret(e.msg);
}

static void a_bad_exit_is_an_error_and_nothing_it_printed_is_shown(void **state)
{
	assert_true(run(script("bad", REPLY "; echo " SECRET " >&2; exit 3")) < 0);
	assert_contains(e.msg, "exit status 3");
	assert_no_secret(e.msg);
	assert_int_equal(c.secret_key.len, 0);
	assert_true(run(script("killed", "echo " SECRET "; kill -TERM $$")) < 0);
	assert_contains(e.msg, "signal 15");
	assert_no_secret(e.msg);
}

static void garbage_is_an_error_and_is_not_shown(void **state)
{
	assert_int_equal(run(script("garbage", "echo " SECRET)), -EBADMSG);
	assert_no_secret(e.msg);
	assert_int_equal(run(script("silent", "")), -EBADMSG);
	assert_int_equal(run(script("unversioned", "echo '{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s\"}'")),
			 -EBADMSG);
}

static void endless_output_is_bounded(void **state)
{
	assert_int_equal(run(script("endless", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")), -E2BIG);
}

/* The script's own process id, which it leaves in a file, is gone (or a zombie of init's) after the kill. */
static bool alive(const char *name)
{
	char path[256];
	long pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir.path, name);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld", &pid), 1);
	fclose(f);
	for (int i = 0; i < 100; i++) {
		char state = 0;

		snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
		f = fopen(path, "r");
		if (!f)
			return false;
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(f);
		if (state == 'Z' || state == 'X')
			return false;
		usleep(20000);
	}
	return true;
}

static void a_hang_ends_at_the_deadline_with_all_its_children(void **state)
{
	char body[512];
	uint64_t start = clock_mono_ns(), ms;

	snprintf(body, sizeof(body), "echo $$ > %s/parent; sleep 100 & echo $! > %s/child; wait", dir.path, dir.path);
	assert_int_equal(run_with(script("hang", body), 600, -1), -ETIMEDOUT);
	ms = (clock_mono_ns() - start) / NSEC_PER_MSEC;
	assert_in_range(ms, 500, 4000);
	assert_false(alive("parent"));
	assert_false(alive("child"));
}

static void a_closed_output_does_not_end_the_wait(void **state)
{
	assert_int_equal(run_with(script("closed", "exec >&-; sleep 100"), 600, -1), -ETIMEDOUT);
}

static void what_a_grandchild_holds_open_is_not_waited_for(void **state)
{
	char body[512];
	uint64_t start = clock_mono_ns();
	long pid = 0;
	char path[256];
	FILE *f;

	snprintf(body, sizeof(body), "sleep 30 & echo $! > %s/left; " REPLY, dir.path);
	assert_int_equal(run(script("daemon", body)), CREDS_FOUND);
	assert_true((clock_mono_ns() - start) / NSEC_PER_MSEC < 4000);
	snprintf(path, sizeof(path), "%s/left", dir.path);
	f = fopen(path, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%ld", &pid), 1);
	fclose(f);
	assert_int_equal(kill((pid_t)pid, SIGKILL), 0);
}

static void a_stop_ends_it_at_once(void **state)
{
	int fd = eventfd(1, EFD_CLOEXEC);
	uint64_t start = clock_mono_ns();

	assert_int_equal(run_with(script("stopped", "sleep 100"), 10000, fd), -ECANCELED);
	assert_true((clock_mono_ns() - start) / NSEC_PER_MSEC < 4000);
	close(fd);
}

static void it_inherits_no_descriptors(void **state)
{
	int fd = dup(2);

	assert_true(fd > 2);
	/* The shell itself opens the script on 10 or above; 255 is bash's. */
	assert_int_equal(run(script("fds", "for n in 3 4 5 6 7 8 9; do [ -e /proc/$$/fd/$n ] && exit 9; done\n" REPLY)),
			 CREDS_FOUND);
	close(fd);
}

static int setup(void **state)
{
	dir_new(&dir);
	return 0;
}

static int teardown(void **state)
{
	s3_creds_wipe(&c);
	dir_free(&dir);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(its_output_is_used),
		cmocka_unit_test(words_are_split_as_a_shell_does_but_by_no_shell),
		cmocka_unit_test(broken_commands_are_errors),
		cmocka_unit_test(a_bad_exit_is_an_error_and_nothing_it_printed_is_shown),
		cmocka_unit_test(garbage_is_an_error_and_is_not_shown),
		cmocka_unit_test(endless_output_is_bounded),
		cmocka_unit_test(a_hang_ends_at_the_deadline_with_all_its_children),
		cmocka_unit_test(a_closed_output_does_not_end_the_wait),
		cmocka_unit_test(what_a_grandchild_holds_open_is_not_waited_for),
		cmocka_unit_test(a_stop_ends_it_at_once),
		cmocka_unit_test(it_inherits_no_descriptors),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
