/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One log line per event: level, room, message; text or JSON, to stderr or a file descriptor.
 * Threads: any. Lines are written with one write(2), so they never interleave.
 */
#ifndef PENSTOCK_BASE_LOG_H
#define PENSTOCK_BASE_LOG_H

#include <stdbool.h>

struct err;

enum log_level { LOG_LEVEL_ERROR = 0, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT = 0, LOG_FORMAT_JSON };

void log_setup(enum log_level level, enum log_format format, int fd);
int log_level_parse(const char *name, enum log_level *ret_level);
int log_format_parse(const char *name, enum log_format *ret_format);
bool log_enabled(enum log_level level);

void log_line(enum log_level level, const char *room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_error(room, ...) log_line(LOG_LEVEL_ERROR, room, __VA_ARGS__)
#define log_warn(room, ...) log_line(LOG_LEVEL_WARN, room, __VA_ARGS__)
#define log_info(room, ...) log_line(LOG_LEVEL_INFO, room, __VA_ARGS__)
#define log_debug(room, ...)                                          \
	do {                                                          \
		if (log_enabled(LOG_LEVEL_DEBUG))                     \
			log_line(LOG_LEVEL_DEBUG, room, __VA_ARGS__); \
	} while (0)

/*
 * A gate for messages that a fault could repeat for ever: at most one line a second for each gate;
 * true = log now, *ret_suppressed = lines held back since the last one.
 */
struct log_gate {
	unsigned long long next_ns;
	unsigned long suppressed;
};
bool log_gate_open(struct log_gate *g, unsigned long *ret_suppressed);

#endif
