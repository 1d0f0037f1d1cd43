// SPDX-License-Identifier: Apache-2.0
/* Log lines as text or JSON, one write(2) each. */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cleanup.h"

#define LINE_BYTES 4096

static atomic_int log_level = LOG_LEVEL_INFO;
static atomic_int log_format = LOG_FORMAT_TEXT;
static atomic_int log_fd = STDERR_FILENO;

static const char *const level_names[] = { "error", "warn", "info", "debug" };

void log_setup(enum log_level level, enum log_format format, int fd)
{
	log_level = level;
	log_format = format;
	log_fd = fd;
}

int log_level_parse(const char *name, enum log_level *ret_level)
{
	for (size_t i = 0; i < array_len(level_names); i++) {
		if (strcasecmp(name, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

int log_format_parse(const char *name, enum log_format *ret_format)
{
	if (strcmp(name, "text") == 0)
		*ret_format = LOG_FORMAT_TEXT;
	else if (strcmp(name, "json") == 0)
		*ret_format = LOG_FORMAT_JSON;
	else
		return -EINVAL;
	return 0;
}

bool log_enabled(enum log_level level)
{
	return (int)level <= log_level;
}

/* Length of the well-formed UTF-8 sequence at <s>, 0 if there is none. */
static size_t utf8_length(const unsigned char *s)
{
	size_t n = s[0] < 0x80                 ? 1
		 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2
		 : (s[0] & 0xf0) == 0xe0       ? 3
		 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
					       : 0;

	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Overlong forms, surrogates, and what is beyond U+10FFFF. */
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

static size_t json_escape(char *dst, size_t room, const char *src)
{
	size_t n = 0;

	while (*src && n + 7 < room) {
		unsigned char c = (unsigned char)*src;
		size_t len = utf8_length((const unsigned char *)src);

		if (c == '"' || c == '\\') {
			dst[n++] = '\\';
			dst[n++] = (char)c;
		} else if (len == 0) {
			/* A key need not be text, and a long message may end inside a character. */
			n += (size_t)snprintf(dst + n, room - n, "\\ufffd");
			len = 1;
		} else if (c < 0x20 || c == 0x7f) {
			n += (size_t)snprintf(dst + n, room - n, "\\u%04x", c);
		} else {
			memcpy(dst + n, src, len);
			n += len;
		}
		src += len;
	}
	dst[n] = '\0';
	return n;
}

/* A key from a bucket may hold control characters: they must not forge a second log line. */
static void text_sanitize(char *s)
{
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
	}
}

void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
	char msg[LINE_BYTES / 2], line[LINE_BYTES], when[40];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	int n, saved = errno;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);

	if (log_format == LOG_FORMAT_JSON) {
		n = snprintf(line, sizeof(line), "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"room\":\"%s\",\"msg\":\"",
			     when, ts.tv_nsec / 1000000, level_names[level], room);
		n += (int)json_escape(line + n, sizeof(line) - (size_t)n - 4, msg);
		memcpy(line + n, "\"}\n", 3);
		n += 3;
	} else {
		text_sanitize(msg);
		n = snprintf(line, sizeof(line), "%s.%03ldZ %-5s %s: %s\n", when, ts.tv_nsec / 1000000,
			     level_names[level], room, msg);
		n = min_of(n, (int)sizeof(line) - 1);
	}
	if (write(log_fd, line, (size_t)n) < 0) {
		/* Nowhere to tell it. */
	}
	errno = saved;
}

bool log_gate_open(struct log_gate *g, unsigned long *ret_suppressed)
{
	unsigned long long now = clock_mono_ns();
	unsigned long long next = __atomic_load_n(&g->next_ns, __ATOMIC_RELAXED);

	if (now < next || !__atomic_compare_exchange_n(&g->next_ns, &next, now + 1000000000ull, false, __ATOMIC_RELAXED,
						       __ATOMIC_RELAXED)) {
		__atomic_fetch_add(&g->suppressed, 1, __ATOMIC_RELAXED);
		return false;
	}
	*ret_suppressed = __atomic_exchange_n(&g->suppressed, 0, __ATOMIC_RELAXED);
	return true;
}
