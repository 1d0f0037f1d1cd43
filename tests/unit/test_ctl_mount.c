// SPDX-License-Identifier: Apache-2.0
/* The tuning tree as it is mounted: what cat, echo, ls and a killed daemon find. Takes root and /dev/fuse. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "ctl/mount.h"
#include "test_ctl.h"

#define READERS 4

static char root[64], dir[96];
static struct fake fake;
static struct ctl_tree *tree;
static struct ctl_mount *ctl;
static struct err e;

static int root_make(void **state)
{
	snprintf(root, sizeof(root), "/tmp/test_ctl_mount.XXXXXX");
	if (!mkdtemp(root))
		return -1;
	snprintf(dir, sizeof(dir), "%s/volume", root);
	fake_init(&fake);
	tree = ctl_table_tree_new(&fake.ops);
	return tree ? 0 : -1;
}

static int root_remove(void **state)
{
	ctl = ctl_mount_stop(ctl);
	tree = ctl_tree_free(tree);
	ctl_mount_clear(dir);
	rmdir(dir);
	return rmdir(root);
}

static int tree_mount(void **state)
{
	if (root_make(state) < 0)
		return -1;
	if (ctl_mount_start(tree, dir, &ctl, &e) == 0)
		return 0;
	print_message("%s\n", e.msg);
	return -1;
}

static const char *at(const char *name)
{
	static _Thread_local char path[2][PATH_MAX];
	static _Thread_local int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	return path[turn];
}

/* As cat does: until read(2) says the end. */
static const char *cat(const char *name)
{
	static char text[8192];
	_cleanup_close_ int fd = open(at(name), O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	assert_int_equal(n, 0);
	text[len] = '\0';
	return text;
}

/* 0 or -errno of what a shell's redirection does. */
static int put(const char *name, int flags, const char *text, size_t len)
{
	_cleanup_close_ int fd = open(at(name), O_WRONLY | O_CLOEXEC | flags);

	if (fd < 0)
		return -errno;
	return write(fd, text, len) == (ssize_t)len ? 0 : -errno;
}

static int echo(const char *name, const char *text)
{
	return put(name, O_TRUNC, text, strlen(text));
}

static int as_errno(int rc)
{
	return rc < 0 ? -errno : 0;
}

static void every_value_is_one_line(void **state)
{
	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *s = &ctl_specs[i];
		char name[64];
		const char *text;

		if (i == FAKE_NO_GPU)
			continue;
		snprintf(name, sizeof(name), "%s%s%s", s->dir, s->dir[0] ? "/" : "", s->name);
		text = cat(name);
		assert_true(text[0] && strchr(text, '\n') == text + strlen(text) - 1);
	}
	assert_string_equal(cat("state"), "ready\n");
	assert_string_equal(cat("source"), "s3://bucket/prefix\n");
	fake.number[CTL_S3_BYTES] = UINT64_MAX;
	assert_string_equal(cat("s3/bytes"), "18446744073709551615\n");
}

static void a_value_that_is_not_there_is_an_error(void **state)
{
	_cleanup_close_ int fd = open(at("trace/gpu"), O_RDONLY);
	char byte;

	assert_true(fd >= 0);
	assert_int_equal(as_errno((int)read(fd, &byte, 1)), -ENODATA);
	assert_int_equal(echo("trace/gpu", "1\n"), -EOPNOTSUPP);
}

static void echo_changes_a_value_at_once(void **state)
{
	assert_int_equal(echo("prefetch/mode", "eager\n"), 0);
	assert_string_equal(cat("prefetch/mode"), "eager\n");
	assert_int_equal(echo("cache/memory_bytes", "1GiB\n"), 0);
	assert_string_equal(cat("cache/memory_bytes"), "1073741824\n");
	assert_int_equal(echo("s3/hedge_percent", "0"), 0);
	assert_string_equal(cat("s3/hedge_percent"), "0\n");
	assert_int_equal(fake.nr_sets, 3);
}

static void what_is_printed_is_accepted(void **state)
{
	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *s = &ctl_specs[i];
		uint64_t before = fake.number[i];
		char name[64];

		if (i == FAKE_NO_GPU || !ctl_kind_writable(s->kind))
			continue;
		snprintf(name, sizeof(name), "%s/%s", s->dir, s->name);
		assert_int_equal(echo(name, cat(name)), 0);
		assert_int_equal(fake.number[i], before);
	}
}

static void garbage_changes_nothing(void **state)
{
	static const char *const garbage[] = { "\n", " \n", "x\n", "1 1\n", "-1\n", "99999999999999999999\n", "1\n\n" };
	char big[8192];

	memset(big, '1', sizeof(big));
	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		const struct ctl_spec *s = &ctl_specs[i];
		char name[64];

		if (!ctl_kind_writable(s->kind))
			continue;
		snprintf(name, sizeof(name), "%s/%s", s->dir, s->name);
		for (size_t j = 0; j < array_len(garbage); j++)
			assert_int_equal(echo(name, garbage[j]), -EINVAL);
		assert_int_equal(put(name, 0, "1\0", 2), -EINVAL);
		assert_int_equal(put(name, 0, big, 4097), -EINVAL);
		assert_int_equal(put(name, 0, big, sizeof(big)), -EINVAL);
	}
	assert_int_equal(fake.nr_sets, 0);
}

static void truncating_alone_changes_nothing(void **state)
{
	_cleanup_close_ int fd = open(at("s3/max_connections"), O_WRONLY | O_TRUNC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(truncate(at("s3/max_connections"), 0), 0);
	assert_int_equal(fake.nr_sets, 0);
	assert_string_equal(cat("s3/max_connections"), "1024\n");
}

static void a_write_is_whole_or_refused(void **state)
{
	_cleanup_close_ int fd = open(at("s3/max_connections"), O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "12", 2), 2);
	assert_int_equal(as_errno((int)write(fd, "3\n", 2)), -EINVAL);
	assert_int_equal(as_errno((int)pwrite(fd, "3\n", 2, 4096)), -EINVAL);
	assert_int_equal(pwrite(fd, "7\n", 2, 0), 2);
	assert_int_equal(fake.number[CTL_S3_MAX_CONNECTIONS], 7);
	assert_int_equal(fake.nr_sets, 2);
}

static void appending_is_writing(void **state)
{
	assert_int_equal(put("s3/max_connections", O_APPEND, "9\n", 2), 0);
	assert_string_equal(cat("s3/max_connections"), "9\n");
	assert_int_equal(put("s3/max_connections", O_APPEND, "\n", 1), -EINVAL);
	assert_string_equal(cat("s3/max_connections"), "9\n");
}

static void one_read_goes_on_with_what_it_began(void **state)
{
	_cleanup_close_ int fd = open(at("s3/requests"), O_RDONLY);
	char text[32] = { 0 };

	fake.number[CTL_S3_REQUESTS] = 12345;
	assert_int_equal(read(fd, text, 2), 2);
	fake.number[CTL_S3_REQUESTS] = 1000000;
	assert_int_equal(read(fd, text + 2, sizeof(text) - 3), 4);
	assert_string_equal(text, "12345\n");
	assert_int_equal(read(fd, text, sizeof(text)), 0);
	assert_int_equal(pread(fd, text, sizeof(text) - 1, 0), 8);
	assert_string_equal(text, "1000000\n");
}

static void read_only_files_refuse_root(void **state)
{
	struct stat st;

	assert_int_equal(put("state", 0, "1\n", 2), -EACCES);
	assert_int_equal(put("s3/bytes", O_TRUNC, "1\n", 2), -EACCES);
	assert_int_equal(as_errno(open(at("s3/bytes"), O_RDWR)), -EACCES);
	assert_int_equal(as_errno(truncate(at("s3/bytes"), 0)), -EACCES);
	assert_int_equal(as_errno(chmod(at("s3/bytes"), 0666)), -EPERM);
	assert_int_equal(as_errno(chown(at("s3/bytes"), 1, 1)), -EPERM);
	assert_int_equal(stat(at("s3/bytes"), &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0444);
}

static void others_read_and_do_not_write(void **state)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		bool right = setgid(65534) == 0 && setuid(65534) == 0;
		int fd = open(at("state"), O_RDONLY);
		char text[16] = { 0 };

		right = right && read(fd, text, sizeof(text) - 1) == 6 && strcmp(text, "ready\n") == 0;
		right = right && open(at("prefetch/mode"), O_WRONLY) < 0 && errno == EACCES;
		right = right && mkdir(at("x"), 0755) < 0 && errno == EACCES;
		_exit(right ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* Others must reach the tree at all. */
static int tree_mount_public(void **state)
{
	return tree_mount(state) < 0 || chmod(root, 0755) < 0 ? -1 : 0;
}

static void nothing_is_made_or_removed(void **state)
{
	assert_int_equal(as_errno(open(at("nothing"), O_RDONLY)), -ENOENT);
	assert_int_equal(as_errno(open(at("s3/nothing"), O_RDONLY)), -ENOENT);
	assert_int_equal(as_errno(open(at("new"), O_WRONLY | O_CREAT, 0644)), -EPERM);
	assert_int_equal(as_errno(mkdir(at("new"), 0755)), -EPERM);
	assert_int_equal(as_errno(unlink(at("state"))), -EPERM);
	assert_int_equal(as_errno(rmdir(at("s3"))), -EPERM);
	assert_int_equal(as_errno(rename(at("state"), at("estate"))), -EPERM);
	assert_int_equal(as_errno(symlink("x", at("link"))), -EPERM);
	assert_int_equal(as_errno(link(at("state"), at("hard"))), -EPERM);
	assert_int_equal(as_errno(mknod(at("node"), S_IFIFO | 0644, 0)), -EPERM);
	assert_int_equal(as_errno(utimensat(AT_FDCWD, at("state"), NULL, 0)), -EPERM);
}

static size_t dir_count(const char *name)
{
	DIR *d = opendir(at(name));
	size_t nr = 0;

	assert_non_null(d);
	for (struct dirent *de = readdir(d); de; de = readdir(d)) {
		char path[sizeof(de->d_name) + 8];
		struct stat st;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", name, de->d_name);
		assert_int_equal(lstat(at(path), &st), 0);
		assert_int_equal(st.st_ino, de->d_ino);
		assert_true(st.st_mtime > 0);
		if (S_ISREG(st.st_mode))
			assert_int_equal(st.st_size, 4096);
		nr++;
	}
	closedir(d);
	return nr;
}

static void listings_show_every_value_once(void **state)
{
	size_t per_dir = 0, nr_root = 0;
	struct statvfs vfs;

	for (size_t i = 0; i < CTL_NR_VALUES; i++) {
		per_dir += strcmp(ctl_specs[i].dir, "s3") == 0;
		nr_root += !ctl_specs[i].dir[0];
	}
	assert_int_equal(dir_count("s3"), per_dir);
	assert_int_equal(dir_count("."), nr_root + 6);
	assert_int_equal(statvfs(dir, &vfs), 0);
	assert_int_equal(vfs.f_flag & (ST_NOSUID | ST_NODEV | ST_NOEXEC), ST_NOSUID | ST_NODEV | ST_NOEXEC);
}

static void *reader_main(void *arg)
{
	_Atomic bool *stop = arg;
	uintptr_t bad = 0;

	while (!*stop) {
		_cleanup_close_ int fd = open(at("s3/max_connections"), O_RDONLY);
		char text[32] = { 0 }, *end;

		if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 || strtoul(text, &end, 10) == 0 || *end != '\n')
			bad++;
	}
	return (void *)bad;
}

static void a_thousand_random_writes_beside_readers(void **state)
{
	static const char *const texts[] = { "1\n", "17\n",   "1024\n", "0\n", "1025\n", "",
					     "x\n", "1KiB\n", "-5\n",   "9",   "  3\n",  "\n" };
	pthread_t readers[READERS];
	_Atomic bool stop = false;
	unsigned seed = 1, good = 0;
	void *bad;

	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, reader_main, (void *)&stop), 0);
	for (int i = 0; i < 1000; i++) {
		const char *text = texts[(size_t)rand_r(&seed) % array_len(texts)];
		uint64_t value = strtoull(text, NULL, 10);
		bool right = text[0] && text[0] != ' ' && value >= 1 && value <= 1024 && !strchr(text, 'K');
		int rc = echo("s3/max_connections", text);

		/* write(2) of nothing never leaves the kernel. */
		assert_int_equal(rc, right || !text[0] ? 0 : -EINVAL);
		good += right;
		if (right)
			assert_int_equal(fake.number[CTL_S3_MAX_CONNECTIONS], value);
	}
	stop = true;
	for (int i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(readers[i], &bad), 0);
		assert_null(bad);
	}
	assert_int_equal(fake.nr_sets, good);
}

static void open_files_are_limited(void **state)
{
	const struct rlimit many = { .rlim_cur = 4096, .rlim_max = 4096 };
	int fds[1024];

	assert_int_equal(setrlimit(RLIMIT_NOFILE, &many), 0);
	for (size_t i = 0; i < array_len(fds); i++) {
		fds[i] = open(at("state"), O_RDONLY);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(as_errno(open(at("state"), O_RDONLY)), -ENFILE);
	for (size_t i = 0; i < array_len(fds); i++)
		close(fds[i]);
	assert_string_equal(cat("state"), "ready\n");
}

static void stopping_under_an_open_file_removes_the_directory(void **state)
{
	_cleanup_close_ int fd = open(at("state"), O_RDONLY);
	char byte;

	assert_true(fd >= 0);
	assert_int_equal(read(fd, &byte, 1), 1);
	ctl = ctl_mount_stop(ctl);
	assert_int_equal(as_errno((int)pread(fd, &byte, 1, 0)), -ENOTCONN);
	assert_int_equal(as_errno(access(dir, F_OK)), -ENOENT);
}

static void a_directory_that_was_there_stays(void **state)
{
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(ctl_mount_start(tree, dir, &ctl, &e), 0);
	assert_string_equal(cat("state"), "ready\n");
	ctl = ctl_mount_stop(ctl);
	assert_int_equal(access(dir, F_OK), 0);
}

static void an_unmount_by_hand_is_survived(void **state)
{
	assert_int_equal(umount2(dir, MNT_DETACH), 0);
	ctl = ctl_mount_stop(ctl);
	assert_int_equal(as_errno(access(dir, F_OK)), -ENOENT);
}

static void a_missing_parent_is_an_error_that_names_it(void **state)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/missing/volume", root);
	assert_int_equal(ctl_mount_start(tree, path, &ctl, &e), -ENOENT);
	assert_non_null(strstr(e.msg, path));
}

/* A process that mounts and is killed: its tree stays behind, dead. */
static void owner_kill(void)
{
	int fds[2], status;
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		if (ctl_mount_start(tree, dir, &ctl, &e) == 0 && write(fds[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(as_errno(open(at("state"), O_RDONLY)), -ENOTCONN);
}

static void a_killed_owners_tree_is_replaced(void **state)
{
	owner_kill();
	assert_int_equal(ctl_mount_start(tree, dir, &ctl, &e), 0);
	assert_string_equal(cat("state"), "ready\n");
	ctl = ctl_mount_stop(ctl);
	assert_int_equal(as_errno(access(dir, F_OK)), -ENOENT);
}

static void a_killed_owners_tree_is_cleared(void **state)
{
	assert_int_equal(ctl_mount_clear(dir), 0);
	owner_kill();
	assert_int_equal(ctl_mount_clear(dir), 1);
	assert_int_equal(as_errno(access(dir, F_OK)), -ENOENT);
	assert_int_equal(ctl_mount_clear(dir), 0);
}

static void clearing_leaves_other_file_systems_alone(void **state)
{
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(mount("none", dir, "tmpfs", 0, "size=4k"), 0);
	assert_int_equal(ctl_mount_clear(dir), 0);
	assert_int_equal(umount2(dir, 0), 0);
}

int main(void)
{
#define MOUNTED(f) cmocka_unit_test_setup_teardown(f, tree_mount, root_remove)
#define PREPARED(f) cmocka_unit_test_setup_teardown(f, root_make, root_remove)
	const struct CMUnitTest tests[] = {
		MOUNTED(every_value_is_one_line),
		MOUNTED(a_value_that_is_not_there_is_an_error),
		MOUNTED(echo_changes_a_value_at_once),
		MOUNTED(what_is_printed_is_accepted),
		MOUNTED(garbage_changes_nothing),
		MOUNTED(truncating_alone_changes_nothing),
		MOUNTED(a_write_is_whole_or_refused),
		MOUNTED(appending_is_writing),
		MOUNTED(one_read_goes_on_with_what_it_began),
		MOUNTED(read_only_files_refuse_root),
		cmocka_unit_test_setup_teardown(others_read_and_do_not_write, tree_mount_public, root_remove),
		MOUNTED(nothing_is_made_or_removed),
		MOUNTED(listings_show_every_value_once),
		MOUNTED(a_thousand_random_writes_beside_readers),
		MOUNTED(open_files_are_limited),
		MOUNTED(stopping_under_an_open_file_removes_the_directory),
		PREPARED(a_directory_that_was_there_stays),
		MOUNTED(an_unmount_by_hand_is_survived),
		PREPARED(a_missing_parent_is_an_error_that_names_it),
		PREPARED(a_killed_owners_tree_is_replaced),
		PREPARED(a_killed_owners_tree_is_cleared),
		PREPARED(clearing_leaves_other_file_systems_alone),
	};

	return cmocka_run_group_tests_name("ctl_mount", tests, NULL, NULL);
}
