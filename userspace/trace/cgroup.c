// SPDX-License-Identifier: Apache-2.0
/* Control groups by process. */
#include "trace/reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* Hierarchies in which container runtimes make a group for each container; the unified one has no name. */
static const char *const controllers[] = { "", "memory", "pids", "cpu,cpuacct", "name=systemd" };

int trace_cgroup_path(pid_t pid, char *ret, size_t room)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *line = NULL;
	size_t line_room = 0, best = array_len(controllers);
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	snprintf(ret, room, "/");
	/* ID:CONTROLLERS:PATH */
	while (getline(&line, &line_room, f) > 0) {
		char *names = strchr(line, ':'), *group = names ? strchr(++names, ':') : NULL;

		if (!group)
			continue;
		*group++ = '\0';
		group[strcspn(group, "\n")] = '\0';
		if (strcmp(group, "/") == 0)
			continue;
		for (size_t i = 0; i < best; i++) {
			if (strcmp(names, controllers[i]) != 0)
				continue;
			best = i;
			if (snprintf(ret, room, "%s", group) >= (int)room)
				return -ENAMETOOLONG;
		}
	}
	return 0;
}
