// SPDX-License-Identifier: Apache-2.0
/* Log lines: one each, whatever is in them, and JSON that parses. */
#define _GNU_SOURCE
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
/* clang-format on */

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

static int fd;
static char text[1 << 20];

static int open_log(void **state)
{
	fd = memfd_create("log", MFD_CLOEXEC);
	return fd < 0 || fcntl(fd, F_SETFL, O_APPEND) < 0;
}

static int close_log(void **state)
{
	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, STDERR_FILENO);
	return close(fd);
}

/* All that was logged; checks that each line has its end. */
static const char *logged(void)
{
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	assert_true(n >= 0);
	text[n] = '\0';
	assert_int_equal(strlen(text), n);
	assert_true(n == 0 || text[n - 1] == '\n');
	assert_int_equal(ftruncate(fd, 0), 0);
	return text;
}

static unsigned nr_lines(const char *s)
{
	unsigned n = 0;

	for (; (s = strchr(s, '\n')); s++)
		n++;
	return n;
}

static void a_text_line_says_when_how_bad_where_and_what(void **state)
{
	const char *line;

	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, fd);
	log_warn("s3", "tried %d times", 3);
	line = logged();
	assert_int_equal(nr_lines(line), 1);
	assert_int_equal(line[4], '-');
	assert_int_equal(line[10], 'T');
	assert_int_equal(line[23], 'Z');
	assert_string_equal(line + 24, " warn  s3: tried 3 times\n");
}

static void a_level_hides_what_is_less_bad(void **state)
{
	log_setup(LOG_LEVEL_WARN, LOG_FORMAT_TEXT, fd);
	log_info("x", "no");
	log_debug("x", "no");
	log_error("x", "one");
	log_warn("x", "two");
	assert_int_equal(nr_lines(logged()), 2);
	assert_false(log_enabled(LOG_LEVEL_INFO));
	log_setup(LOG_LEVEL_DEBUG, LOG_FORMAT_TEXT, fd);
	log_debug("x", "yes");
	assert_int_equal(nr_lines(logged()), 1);
}

static void no_text_forges_a_second_line(void **state)
{
	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, fd);
	log_error("fs", "key=%s", "a\n2026-01-01T00:00:00.000Z error fs: forged\r\x1b[2J\x7f\t");
	assert_int_equal(nr_lines(logged()), 1);
	assert_non_null(strstr(text, "key=a?2026"));
	for (const char *p = text; *p != '\n'; p++)
		assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static json_t *logged_json(void)
{
	json_error_t e;
	json_t *j = json_loads(logged(), JSON_DISABLE_EOF_CHECK, &e);

	if (!j)
		fail_msg("%s at %d: %s", e.text, e.position, text);
	assert_int_equal(nr_lines(text), 1);
	return j;
}

static const char *json_text(const json_t *j, const char *name)
{
	const char *s = json_string_value(json_object_get(j, name));

	assert_non_null(s);
	return s;
}

static void a_json_line_has_its_fields(void **state)
{
	json_t *j;

	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON, fd);
	log_info("daemon", "mounted %s", "s3://b");
	j = logged_json();
	assert_string_equal(json_text(j, "level"), "info");
	assert_string_equal(json_text(j, "room"), "daemon");
	assert_string_equal(json_text(j, "msg"), "mounted s3://b");
	assert_int_equal(strlen(json_text(j, "time")), 24);
	json_decref(j);
}

static void every_ascii_character_survives_json(void **state)
{
	char all[128];
	json_t *j;

	for (int i = 1; i < 128; i++)
		all[i - 1] = (char)i;
	all[127] = '\0';
	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON, fd);
	log_info("x", "%s", all);
	j = logged_json();
	assert_string_equal(json_text(j, "msg"), all);
	json_decref(j);
	log_info("x", "%s", "größe 模型 🦙");
	j = logged_json();
	assert_string_equal(json_text(j, "msg"), "größe 模型 🦙");
	json_decref(j);
}

/* A name from a directory may be any bytes. */
static void json_parses_whatever_the_bytes(void **state)
{
	static const char *const names[] = {
		"\xff",
		"a\x80z",
		"\xc3",
		"\xc3(",
		"\xe2\x82",
		"\xf0\x9f\xa6",
		"\xed\xa0\x80",
		"\xc0\xaf",
		"\xf5\x80\x80\x80",
		"\xf4\x90\x80\x80",
		"\xe0\x80\x80",
		"\xf0\x80\x80\x80",
		"ok \xc3\xb6 \xfe no",
	};

	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON, fd);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		log_info("x", "name=%s", names[i]);
		json_decref(logged_json());
	}
}

static void a_line_too_long_is_cut_and_whole(void **state)
{
	static const char *const pieces[] = { "a", "\"", "\x01", "ö", "模", "🦙", "\\n" };
	char name[5010];

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		for (size_t shift = 0; shift < 4; shift++) {
			memset(name, 'x', shift);
			for (size_t n = shift; n < 5000; n += strlen(pieces[i]))
				strcpy(name + n, pieces[i]);
			log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, fd);
			log_info("x", "%s", name);
			assert_int_equal(nr_lines(logged()), 1);
			assert_in_range(strlen(text), 500, 4096);
			log_setup(LOG_LEVEL_INFO, LOG_FORMAT_JSON, fd);
			log_info("x", "%s", name);
			json_decref(logged_json());
			assert_in_range(strlen(text), 500, 4096);
		}
	}
}

static void errno_is_left_alone(void **state)
{
	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, -1);
	errno = ENOTTY;
	log_info("x", "nowhere to go");
	assert_int_equal(errno, ENOTTY);
	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, fd);
	errno = EXDEV;
	log_info("x", "%m");
	assert_non_null(strstr(logged(), strerror(EXDEV)));
}

static void *log_many(void *arg)
{
	char line[200];

	memset(line, *(char *)arg, sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	for (int i = 0; i < 300; i++)
		log_info("x", "<%s>", line);
	return NULL;
}

static void lines_of_several_threads_stay_apart(void **state)
{
	char letters[] = "abcd";
	pthread_t thread[4];
	unsigned nr = 0;

	log_setup(LOG_LEVEL_INFO, LOG_FORMAT_TEXT, fd);
	for (int i = 0; i < 4; i++)
		pthread_create(&thread[i], NULL, log_many, &letters[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	for (const char *p = logged(); (p = strchr(p, '<')); nr++) {
		assert_int_equal(strspn(p + 1, (char[]){ p[1], '\0' }), 199);
		assert_int_equal(p[200], '>');
		p += 200;
	}
	assert_int_equal(nr, 1200);
	assert_int_equal(nr_lines(text), 1200);
}

static void names_of_levels_and_formats_are_read(void **state)
{
	enum log_level level = LOG_LEVEL_ERROR;
	enum log_format format = LOG_FORMAT_TEXT;

	assert_int_equal(log_level_parse("debug", &level), 0);
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_int_equal(log_level_parse("Warn", &level), 0);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(log_level_parse("warning", &level), -EINVAL);
	assert_int_equal(level, LOG_LEVEL_WARN);
	assert_int_equal(log_format_parse("json", &format), 0);
	assert_int_equal(format, LOG_FORMAT_JSON);
	assert_int_equal(log_format_parse("xml", &format), -EINVAL);
}

static void a_gate_lets_one_through_and_counts_the_rest(void **state)
{
	struct log_gate gate = { 0 };
	unsigned long held = 99;

	assert_true(log_gate_open(&gate, &held));
	assert_int_equal(held, 0);
	gate.next_ns = ~0ull;
	for (int i = 0; i < 5; i++)
		assert_false(log_gate_open(&gate, &held));
	gate.next_ns = 0;
	assert_true(log_gate_open(&gate, &held));
	assert_int_equal(held, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_text_line_says_when_how_bad_where_and_what),
		cmocka_unit_test(a_level_hides_what_is_less_bad),
		cmocka_unit_test(no_text_forges_a_second_line),
		cmocka_unit_test(a_json_line_has_its_fields),
		cmocka_unit_test(every_ascii_character_survives_json),
		cmocka_unit_test(json_parses_whatever_the_bytes),
		cmocka_unit_test(a_line_too_long_is_cut_and_whole),
		cmocka_unit_test(errno_is_left_alone),
		cmocka_unit_test(lines_of_several_threads_stay_apart),
		cmocka_unit_test(names_of_levels_and_formats_are_read),
		cmocka_unit_test(a_gate_lets_one_through_and_counts_the_rest),
	};

	return cmocka_run_group_tests(tests, open_log, close_log);
}
