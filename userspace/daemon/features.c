// SPDX-License-Identifier: Apache-2.0
/* What this build has and what this machine offers. Reads /proc and /sys and changes nothing. */
#include "daemon/features.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <liburing.h>
#include <limits.h>
#include <linux/capability.h>
#include <openssl/crypto.h>
#include <penstock/version.h>
#include <stdbool.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "fs/library.h"
#include "s3/library.h"

#define ENABLE_URING "/sys/module/fuse/parameters/enable_uring"
#define MAX_PAGES_LIMIT "/proc/sys/fs/fuse/max_pages_limit"
#define MAX_PAGES_BUILT_IN 256

/* The beginning of a small file as text, without its last newline. Returns the length. */
static int file_read(const char *path, char *ret, size_t room)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, ret, room - 1);
	if (n < 0)
		return -errno;
	while (n > 0 && ret[n - 1] == '\n')
		n--;
	ret[n] = '\0';
	return (int)n;
}

/* The smallest limit in <file> of <group> and of all groups above it. */
static uint64_t hierarchy_limit_bytes(const char *mount, const char *group, size_t group_len, const char *file)
{
	char dir[PATH_MAX], path[PATH_MAX + 64], text[64], *end;
	uint64_t limit = UINT64_MAX;
	size_t top = strlen(mount);

	if ((size_t)snprintf(dir, sizeof(dir), "%s%.*s", mount, (int)group_len, group) >= sizeof(dir))
		return UINT64_MAX;
	for (;;) {
		snprintf(path, sizeof(path), "%s/%s", dir, file);
		/* "max" is no number, and cgroup v1 says about 2^63 for it. */
		if (file_read(path, text, sizeof(text)) > 0 && isdigit((unsigned char)text[0])) {
			uint64_t bytes = strtoull(text, &end, 10);

			if (*end == '\0' && bytes < INT64_MAX / 2)
				limit = min_of(limit, bytes);
		}
		if (strlen(dir) <= top)
			return limit;
		*strrchr(dir, '/') = '\0';
	}
}

uint64_t features_cgroup_limit_bytes(const char *proc_cgroup, const char *root)
{
	uint64_t limit = UINT64_MAX, bytes;
	char v1_root[PATH_MAX];

	snprintf(v1_root, sizeof(v1_root), "%s/memory", root);
	for (const char *line = proc_cgroup; *line;) {
		size_t len = strcspn(line, "\n");
		const char *path = memchr(line, '/', len);
		size_t path_len = path ? (size_t)(line + len - path) : 0;

		/* "0::/a/b" or "4:memory:/a/b", also "4:cpu,memory:/a/b" */
		if (path && strncmp(line, "0::", 3) == 0) {
			bytes = hierarchy_limit_bytes(root, path, path_len, "memory.max");
			limit = min_of(limit, bytes);
		} else if (path && strstr(line, "memory") && strstr(line, "memory") < path) {
			bytes = hierarchy_limit_bytes(v1_root, path, path_len, "memory.limit_in_bytes");
			limit = min_of(limit, bytes);
		}
		line += len + (line[len] == '\n');
	}
	return limit;
}

static uint64_t ram_bytes(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);

	return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : 0;
}

static uint64_t cgroup_limit_bytes(void)
{
	char text[8192];

	if (file_read("/proc/self/cgroup", text, sizeof(text)) < 0)
		return UINT64_MAX;
	return features_cgroup_limit_bytes(text, "/sys/fs/cgroup");
}

uint64_t features_memory_limit_bytes(void)
{
	uint64_t ram = ram_bytes(), cgroup = cgroup_limit_bytes();

	if (!ram)
		return cgroup == UINT64_MAX ? 0 : cgroup;
	return min_of(ram, cgroup);
}

static void versions_print(FILE *out)
{
	fprintf(out, "penstock             %s\n", PENSTOCK_VERSION);
#ifdef __clang__
	fprintf(out, "compiler             %s\n", __VERSION__);
#else
	fprintf(out, "compiler             gcc %s\n", __VERSION__);
#endif
	fprintf(out, "libfuse3             %s\n", fs_library_version());
	fprintf(out, "libcurl              %s\n", s3_library_version());
	fprintf(out, "OpenSSL              %s\n", OpenSSL_version(OPENSSL_VERSION_STRING));
#ifdef IO_URING_VERSION_MAJOR
	fprintf(out, "liburing             %d.%d\n", IO_URING_VERSION_MAJOR, IO_URING_VERSION_MINOR);
#else
	fprintf(out, "liburing             2.3 or older\n");
#endif
}

static bool has_sys_admin(void)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	uint64_t caps;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "CapEff: %" SCNx64, &caps) == 1)
			return caps & (1ull << CAP_SYS_ADMIN);
	}
	return false;
}

static void machine_print(FILE *out)
{
	uint64_t cgroup = cgroup_limit_bytes();
	char cpus[256];
	struct utsname u;

	if (uname(&u) == 0)
		fprintf(out, "kernel               %s %s\n", u.release, u.machine);
	fprintf(out, "page size            %ld bytes\n", sysconf(_SC_PAGESIZE));
	if (file_read("/sys/devices/system/cpu/possible", cpus, sizeof(cpus)) > 0)
		fprintf(out, "possible CPUs        %s\n", cpus);
	fprintf(out, "memory               %" PRIu64 " MiB", ram_bytes() >> 20);
	if (cgroup < ram_bytes())
		fprintf(out, ", of which the control group allows %" PRIu64 " MiB", cgroup >> 20);
	fprintf(out, "\nprivileges           %s, %s\n", geteuid() == 0 ? "root" : "not root",
		has_sys_admin() ? "may mount (CAP_SYS_ADMIN)" : "may not mount (no CAP_SYS_ADMIN): run as root");
}

static void dev_fuse_print(FILE *out)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		fprintf(out, "/dev/fuse            can be opened\n");
	else if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		fprintf(out, "/dev/fuse            missing: modprobe fuse\n");
	else
		fprintf(out, "/dev/fuse            cannot be opened (%s): run as root\n", strerror(errno));
}

/* Returns whether rings as the transport needs them can be made. */
static bool io_uring_print(FILE *out)
{
	struct io_uring ring;
	int rc = io_uring_queue_init(4, &ring, IORING_SETUP_SQE128);

	if (rc == 0) {
		io_uring_queue_exit(&ring);
		fprintf(out, "io_uring             works, with 128-byte entries\n");
		return true;
	}
	if (rc == -EPERM)
		fprintf(out, "io_uring             forbidden, by seccomp or: sysctl -w kernel.io_uring_disabled=0\n");
	else if (rc == -ENOMEM)
		fprintf(out, "io_uring             no memory may be locked: ulimit -l unlimited\n");
	else
		fprintf(out, "io_uring             not usable (%s): needs kernel 5.19 or newer\n", strerror(-rc));
	return false;
}

static void transport_print(FILE *out)
{
	bool rings = io_uring_print(out);
	char value[64];
	int rc = file_read(ENABLE_URING, value, sizeof(value));

	if (rc < 0)
		fprintf(out,
			"FUSE over io_uring   not in this kernel: needs 6.14 or newer with CONFIG_FUSE_IO_URING\n");
	else if (value[0] == 'N' || value[0] == '0')
		fprintf(out, "FUSE over io_uring   off: echo Y > " ENABLE_URING "\n");
	else
		fprintf(out, "FUSE over io_uring   on%s\n", rings ? "" : ", but io_uring is not usable");
	fprintf(out, "transport auto       %s\n",
		rings && rc > 0 && value[0] != 'N' && value[0] != '0' ? "io_uring" : "dev");
}

static void max_pages_print(FILE *out)
{
	long page_bytes = sysconf(_SC_PAGESIZE);
	unsigned long pages = MAX_PAGES_BUILT_IN;
	char value[64];
	int rc = file_read(MAX_PAGES_LIMIT, value, sizeof(value));

	if (rc > 0)
		pages = strtoul(value, NULL, 10);
	fprintf(out, "largest request      %lu KiB (%lu pages)", pages * (unsigned long)page_bytes >> 10, pages);
	if (rc > 0 && pages < 1024)
		fprintf(out, "; for more: sysctl -w fs.fuse.max_pages_limit=1024");
	fputc('\n', out);
}

int features_print(FILE *out)
{
	versions_print(out);
	machine_print(out);
	dev_fuse_print(out);
	transport_print(out);
	max_pages_print(out);
	return ferror(out) || fflush(out) != 0 ? -EIO : 0;
}
