// SPDX-License-Identifier: Apache-2.0
/* Lines of mountinfo, stacked mounts, paths of mount points, pid files, memory limits of control groups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/features.h"
#include "daemon/mount_point.h"
#include "daemon/runstate.h"
#include "daemon/unmount.h"

static char root[64];
static struct err e;

static int root_make(void **state)
{
	snprintf(root, sizeof(root), "/tmp/test_mount_point.XXXXXX");
	memset(&e, 0, sizeof(e));
	return mkdtemp(root) ? setenv("PENSTOCK_RUN_DIR", root, 1) : -1;
}

static int root_remove(void **state)
{
	char *argv[] = { "rm", "-rf", root, NULL };
	pid_t pid = fork();
	int status = 1;

	if (pid == 0) {
		execvp(argv[0], argv);
		_exit(1);
	}
	return waitpid(pid, &status, 0) == pid && status == 0 ? 0 : -1;
}

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

static void mountinfo_line_is_parsed_with_its_escapes(void **state)
{
	struct mount_entry m;

	assert_int_equal(
		mount_entry_parse("98 30 0:77 / /mnt/a\\040b\\011c\\134d rw,nosuid shared:9 master:3 - fuse.penstock "
				  "s3://x/y\\012z ro,user_id=0\n",
				  &m),
		0);
	assert_int_equal(m.id, 98);
	assert_int_equal(m.parent_id, 30);
	assert_int_equal(m.dev_major, 0);
	assert_int_equal(m.dev_minor, 77);
	assert_string_equal(m.mount_point, "/mnt/a b\tc\\d");
	assert_string_equal(m.fstype, MOUNT_FSTYPE);
	assert_string_equal(m.source, "s3://x/y\nz");
	/* No tags; a source that is empty; a backslash that is no escape. */
	assert_int_equal(mount_entry_parse("1 2 3:4 / /a\\9\\04 rw - tmpfs  rw\n", &m), 0);
	assert_string_equal(m.mount_point, "/a\\9\\04");
	assert_string_equal(m.source, "");
}

static void mountinfo_line_that_is_none_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"\n",
		"x",
		"1 2 3:4",
		"1 2 3:4 /",
		"1 2 3:4 / ",
		"1 2 3:4 / /mnt rw",
		"1 2 3:4 / /mnt rw - ",
		"1 2 34 / /mnt rw - a b c",
	};
	struct mount_entry m;
	char line[PATH_MAX + 100];
	int n = snprintf(line, sizeof(line), "1 2 3:4 / /");

	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(mount_entry_parse(bad[i], &m), -EBADMSG);
	memset(line + n, 'a', PATH_MAX);
	snprintf(line + n + PATH_MAX, 20, " rw - a b c");
	assert_int_equal(mount_entry_parse(line, &m), -ENAMETOOLONG);
}

static void topmost_of_stacked_mounts_is_found(void **state)
{
	struct mount_entry m;

	file_write("mountinfo",
		   "10 1 0:1 / /m rw - ext4 disk rw\n"
		   "12 11 0:3 / /m rw - fuse.penstock top rw\n"
		   "11 10 0:2 / /m rw - fuse.penstock middle rw\n"
		   "13 1 0:4 / /mm rw - tmpfs other rw\n"
		   "14 12 0:5 / /m/sub rw - tmpfs sub rw\n");
	assert_int_equal(mount_entry_find("/m", at("mountinfo"), &m), 0);
	assert_string_equal(m.source, "top");
	assert_int_equal(mount_entry_find("/m/s", at("mountinfo"), &m), -ENOENT);
	assert_int_equal(mount_entry_find_below("/m", at("mountinfo"), &m), 0);
	assert_string_equal(m.source, "sub");
	assert_int_equal(mount_entry_find_below("/mm", at("mountinfo"), &m), -ENOENT);
}

static void path_is_resolved_but_for_what_it_names(void **state)
{
	char real[PATH_MAX], want[PATH_MAX];

	assert_non_null(realpath(root, want));
	assert_int_equal(mkdir(at("d"), 0755), 0);
	assert_int_equal(symlink("d", at("link")), 0);
	assert_int_equal(symlink("link/../link", at("hop")), 0);
	assert_int_equal(symlink("loop", at("loop")), 0);
	snprintf(want + strlen(want), 8, "/d");

	assert_int_equal(mount_point_resolve(at("d//./"), real, sizeof(real), &e), 0);
	assert_string_equal(real, want);
	assert_int_equal(mount_point_resolve(at("hop"), real, sizeof(real), &e), 0);
	assert_string_equal(real, want);
	assert_int_equal(mount_point_resolve("/", real, sizeof(real), &e), 0);
	assert_string_equal(real, "/");
	assert_int_equal(chdir(at("d")), 0);
	assert_int_equal(mount_point_resolve(".", real, sizeof(real), &e), 0);
	assert_string_equal(real, want);
	assert_int_equal(mount_point_resolve("../link", real, sizeof(real), &e), 0);
	assert_string_equal(real, want);
	assert_int_equal(mount_point_resolve("..", real, sizeof(real), &e), 0);
	want[strlen(want) - 2] = '\0';
	assert_string_equal(real, want);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(mount_point_resolve(at("loop"), real, sizeof(real), &e), -ELOOP);
	assert_int_equal(mount_point_resolve(at("no/such"), real, sizeof(real), &e), -ENOENT);
	assert_non_null(strstr(e.msg, "No such file or directory; give a directory that exists"));
}

static void place_for_a_mount_is_checked(void **state)
{
	char path[PATH_MAX];

	file_write("file", "");
	snprintf(path, sizeof(path), "%s", at("file"));
	assert_int_equal(mount_point_prepare(path, &e), -ENOTDIR);
	assert_non_null(strstr(e.msg, "is not a directory"));
	snprintf(path, sizeof(path), "%s", at("missing"));
	assert_int_equal(mount_point_prepare(path, &e), -ENOENT);
	assert_non_null(strstr(e.msg, "give a directory that exists"));
	assert_int_equal(symlink("/tmp", at("to_tmp")), 0);
	snprintf(path, sizeof(path), "%s", at("to_tmp"));
	assert_int_equal(mount_point_prepare(path, &e), 0);
	assert_string_equal(path, "/tmp");
}

static void unmount_refuses_what_is_not_ours(void **state)
{
	assert_int_equal(unmount_run(root, false, &e), -EINVAL);
	assert_non_null(strstr(e.msg, "nothing is mounted on "));
	assert_int_equal(unmount_run("/proc", false, &e), -EINVAL);
	assert_string_equal(e.msg, "/proc is a mount of type proc, not one of penstock; use umount for it");
	assert_int_equal(unmount_run(at("no/such"), true, &e), -ENOENT);
}

static void volume_id_is_claimed_once(void **state)
{
	struct runstate a = RUNSTATE_INIT, b = RUNSTATE_INIT;
	struct runstate_entry found;

	assert_int_equal(runstate_claim(&a, "v", &e), 0);
	assert_int_equal(runstate_claim(&b, "v", &e), -EBUSY);
	assert_string_equal(e.msg, "volume id 'v' is in use; give another --volume-id");
	assert_int_equal(runstate_find("/mnt/v w", &found), -ENOENT);
	assert_int_equal(runstate_publish(&a, 4711, "/mnt/first and longer", &e), 0);
	assert_int_equal(runstate_publish(&a, 4712, "/mnt/v w", &e), 0);
	assert_int_equal(runstate_claim(&b, "v", &e), -EBUSY);
	assert_string_equal(
		e.msg, "volume id 'v' is used by process 4712 for /mnt/v w; unmount that or give another --volume-id");
	assert_int_equal(runstate_claim(&b, "other", &e), 0);

	assert_int_equal(runstate_find("/mnt/v w", &found), 0);
	assert_int_equal(found.pid, 4712);
	assert_int_equal(runstate_wait_gone(&found, 20 * NSEC_PER_MSEC), -ETIMEDOUT);
	runstate_release(&a);
	assert_int_equal(runstate_wait_gone(&found, 0), 0);
	assert_int_equal(runstate_find("/mnt/v w", &found), -ENOENT);
	runstate_release(&a);
	runstate_release(&b);
	assert_int_equal(rmdir(at("volumes")), 0);
}

static void pid_file_of_a_dead_daemon_is_removed(void **state)
{
	struct runstate_entry found;
	struct runstate rs = RUNSTATE_INIT;

	assert_int_equal(mkdir(at("volumes"), 0755), 0);
	file_write("volumes/dead.pid", "77\n/mnt/dead\n");
	assert_int_equal(runstate_find("/mnt/dead", &found), -ENOENT);
	assert_int_equal(access(at("volumes/dead.pid"), F_OK), -1);
	file_write("volumes/dead.pid", "77\n/mnt/dead\n");
	assert_int_equal(runstate_claim(&rs, "dead", &e), 0);
	runstate_release(&rs);
}

static void claim_lives_on_in_a_child_until_it_dies(void **state)
{
	struct runstate rs = RUNSTATE_INIT;
	struct runstate_entry found;
	int status;
	pid_t pid;

	assert_int_equal(runstate_claim(&rs, "v", &e), 0);
	pid = fork();
	if (pid == 0) {
		pause();
		_exit(0);
	}
	assert_int_equal(runstate_publish(&rs, pid, "/mnt/v", &e), 0);
	close(rs.fd);
	assert_int_equal(runstate_find("/mnt/v", &found), 0);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(runstate_wait_gone(&found, 5 * NSEC_PER_SEC), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(access(found.path, F_OK), -1);
}

static void run_directory_must_be_absolute(void **state)
{
	char dir[PATH_MAX];

	setenv("PENSTOCK_RUN_DIR", "relative", 1);
	assert_int_equal(runstate_dir(dir, sizeof(dir), &e), -EINVAL);
	setenv("PENSTOCK_RUN_DIR", "", 1);
	assert_int_equal(runstate_dir(dir, sizeof(dir), &e), 0);
	assert_string_equal(dir, "/run/penstock");
}

static void smallest_limit_of_the_control_groups_counts(void **state)
{
	assert_int_equal(mkdir(at("a"), 0755) | mkdir(at("a/b"), 0755), 0);
	file_write("memory.max", "max\n");
	file_write("a/memory.max", "1000000\n");
	file_write("a/b/memory.max", "max\n");
	assert_int_equal(features_cgroup_limit_bytes("0::/a/b\n", root), 1000000);
	assert_int_equal(features_cgroup_limit_bytes("0::/\n", root), UINT64_MAX);
	/* A group whose directory cannot be seen from here is limited by those above it. */
	assert_int_equal(features_cgroup_limit_bytes("3:cpu:/\n0::/a/b/unseen\n", root), 1000000);

	assert_int_equal(mkdir(at("memory"), 0755) | mkdir(at("memory/k"), 0755), 0);
	file_write("memory/memory.limit_in_bytes", "9223372036854771712\n");
	file_write("memory/k/memory.limit_in_bytes", "500000\n");
	assert_int_equal(features_cgroup_limit_bytes("4:memory:/k\n0::/a\n", root), 500000);
	assert_int_equal(features_cgroup_limit_bytes("4:cpu,memory:/\n", root), UINT64_MAX);
	assert_int_equal(features_cgroup_limit_bytes("5:pids:/memory/k\n", root), UINT64_MAX);
	assert_int_equal(features_cgroup_limit_bytes("", root), UINT64_MAX);
}

static void features_name_versions_and_what_the_kernel_offers(void **state)
{
	static const char *const lines[] = { "penstock  ",  "compiler  ",          "libfuse3  ", "libcurl  ",
					     "OpenSSL  ",   "liburing  ",          "kernel  ",   "memory  ",
					     "/dev/fuse  ", "FUSE over io_uring  " };
	char text[8192] = "";
	FILE *f = fmemopen(text, sizeof(text), "w");

	assert_non_null(f);
	assert_int_equal(features_print(f), 0);
	fclose(f);
	for (size_t i = 0; i < array_len(lines); i++)
		assert_non_null(strstr(text, lines[i]));
	assert_true(features_memory_limit_bytes() > 1 << 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, root_make, root_remove)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(mountinfo_line_is_parsed_with_its_escapes),
		TEST(mountinfo_line_that_is_none_is_refused),
		TEST(topmost_of_stacked_mounts_is_found),
		TEST(path_is_resolved_but_for_what_it_names),
		TEST(place_for_a_mount_is_checked),
		TEST(unmount_refuses_what_is_not_ours),
		TEST(volume_id_is_claimed_once),
		TEST(pid_file_of_a_dead_daemon_is_removed),
		TEST(claim_lives_on_in_a_child_until_it_dies),
		TEST(run_directory_must_be_absolute),
		TEST(smallest_limit_of_the_control_groups_counts),
		TEST(features_name_versions_and_what_the_kernel_offers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
