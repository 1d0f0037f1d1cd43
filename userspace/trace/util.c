// SPDX-License-Identifier: Apache-2.0
/* What both halves of the room need of libbpf. */
#include "trace/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/cleanup.h"
#include "base/log.h"

__attribute__((format(printf, 2, 0))) static int libbpf_say(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	char line[512];

	if (level == LIBBPF_DEBUG || !log_enabled(LOG_LEVEL_DEBUG))
		return 0;
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	log_debug("trace", "libbpf: %s", line);
	return 0;
}

void util_libbpf_log(void)
{
	libbpf_set_print(libbpf_say);
}

int util_flush(int link_fd)
{
	_cleanup_close_ int fd = bpf_iter_create(link_fd);
	char nothing[64];
	ssize_t n;

	if (fd < 0)
		return -errno;
	do
		n = read(fd, nothing, sizeof(nothing));
	while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)));
	return n < 0 ? -errno : 0;
}
