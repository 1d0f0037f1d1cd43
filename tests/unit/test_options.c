// SPDX-License-Identifier: Apache-2.0
/* The command line: every option, every refusal and its sentence, -o, --config, the environment, precedence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/options.h"
#include "daemon/options_i.h"

#define MOUNT "penstock", "mount", "s3://bucket/p", "/mnt/a"
#define HELPER "/sbin/mount.penstock", "s3://bucket/p", "/mnt/a"

static struct options o;
static struct err e;

static int parse_v(char **argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	memset(&e, 0, sizeof(e));
	return options_parse(argc, argv, &o, &e);
}

#define parse(...) parse_v((char *[]){ __VA_ARGS__, NULL })

/* One line that holds <expected>; the code is -EINVAL. */
static void refused_as(int rc, const char *expected, int line)
{
	if (rc != -EINVAL || !strstr(e.msg, expected) || strchr(e.msg, '\n'))
		fail_msg("line %d: got %d \"%s\", expected \"%s\"", line, rc, e.msg, expected);
}

#define refused(rc, expected) refused_as(rc, expected, __LINE__)

#define accepted(rc)                                                  \
	do {                                                          \
		if ((rc) != 0)                                        \
			fail_msg("line %d: \"%s\"", __LINE__, e.msg); \
	} while (0)

static const char *const variables[] = { "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION",
					 "AWS_DEFAULT_REGION",  "AWS_CA_BUNDLE",    "AWS_PROFILE" };

static int environment_clear(void **state)
{
	for (size_t i = 0; i < array_len(variables); i++)
		unsetenv(variables[i]);
	return 0;
}

/* A --config file with this text; the caller frees the path. */
static char *config_write(const char *text)
{
	char *path = strdup("/tmp/test_options.XXXXXX");
	_cleanup_close_ int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	return path;
}

static void defaults_are_the_documented_ones(void **state)
{
	accepted(parse(MOUNT));
	assert_int_equal(o.verb, VERB_MOUNT);
	assert_string_equal(o.source, "s3://bucket/p");
	assert_string_equal(o.uri.bucket, "bucket");
	assert_string_equal(o.uri.prefix, "p/");
	assert_string_equal(o.mount_point, "/mnt/a");
	assert_string_equal(o.volume_id, "mnt-a");
	assert_string_equal(o.endpoint_url, "");
	assert_true(o.read_only);
	assert_int_equal(o.uid, getuid());
	assert_int_equal(o.gid, getgid());
	assert_int_equal(o.file_mode, 0644);
	assert_int_equal(o.dir_mode, 0755);
	assert_int_equal(o.memory_bytes, 0);
	assert_int_equal(o.metadata_ttl_ns, 60 * NSEC_PER_SEC);
	assert_int_equal(o.read_deadline_ns, 60 * NSEC_PER_SEC);
	assert_int_equal(o.hedge_percent, 5);
	assert_int_equal(o.transport, TRANSPORT_AUTO);
	assert_int_equal(o.prefetch, PREFETCH_AUTO);
	assert_int_equal(o.credentials, S3_CREDS_CHAIN);
	assert_int_equal(o.log_level, LOG_LEVEL_INFO);
	assert_int_equal(o.mount_flags, MS_RDONLY | MS_NODEV | MS_NOSUID);
	assert_false(o.foreground || o.allow_other || o.force_path_style || o.requester_pays || o.check_only);
}

static void every_option_is_stored(void **state)
{
	accepted(parse("penstock", "--endpoint-url", "http://127.0.0.1:9000", "mount", "--region=eu-west-3",
		       "s3://bucket", "--read-only", "--allow-other", "--memory", "64MiB", "/mnt/a/", "--transport",
		       "dev", "--prefetch=off", "--volume-id", "v1", "--read-deadline", "90", "--uid", "7", "--gid=8",
		       "--file-mode", "444", "--dir-mode", "0555", "--ca-bundle", "/etc/ca.pem", "--force-path-style",
		       "--requester-pays", "--credentials", "imds", "--metadata-ttl=250ms", "--max-connections", "32",
		       "--hedge-percent", "0", "--read-ahead-kb", "8192", "-f", "--log-level=warn", "--log-format",
		       "json", "--log-file", "/var/log/p.log"));
	assert_string_equal(o.endpoint_url, "http://127.0.0.1:9000");
	assert_string_equal(o.region, "eu-west-3");
	assert_string_equal(o.uri.bucket, "bucket");
	assert_string_equal(o.mount_point, "/mnt/a");
	assert_int_equal(o.memory_bytes, 64 << 20);
	assert_int_equal(o.transport, TRANSPORT_DEV);
	assert_int_equal(o.prefetch, PREFETCH_OFF);
	assert_string_equal(o.volume_id, "v1");
	assert_true(o.volume_id_given);
	assert_int_equal(o.read_deadline_ns, 90 * NSEC_PER_SEC);
	assert_int_equal(o.uid, 7);
	assert_int_equal(o.gid, 8);
	assert_int_equal(o.file_mode, 0444);
	assert_int_equal(o.dir_mode, 0555);
	assert_string_equal(o.ca_bundle, "/etc/ca.pem");
	assert_true(o.allow_other && o.force_path_style && o.requester_pays && o.foreground);
	assert_int_equal(o.credentials, S3_CREDS_IMDS);
	assert_int_equal(o.metadata_ttl_ns, 250 * NSEC_PER_MSEC);
	assert_int_equal(o.max_connections, 32);
	assert_int_equal(o.hedge_percent, 0);
	assert_int_equal(o.read_ahead_kb, 8192);
	assert_int_equal(o.log_level, LOG_LEVEL_WARN);
	assert_int_equal(o.log_format, LOG_FORMAT_JSON);
	assert_string_equal(o.log_file, "/var/log/p.log");
}

static void enum_words_are_in_the_order_of_their_enums(void **state)
{
	accepted(parse(MOUNT, "--transport", "io_uring", "--prefetch", "eager", "--log-level", "error", "--log-format",
		       "text"));
	assert_int_equal(o.transport, TRANSPORT_IO_URING);
	assert_int_equal(o.prefetch, PREFETCH_EAGER);
	assert_int_equal(o.log_level, LOG_LEVEL_ERROR);
	assert_int_equal(o.log_format, LOG_FORMAT_TEXT);
	accepted(parse(MOUNT, "--log-level", "debug"));
	assert_int_equal(o.log_level, LOG_LEVEL_DEBUG);
}

static void the_last_of_two_wins(void **state)
{
	accepted(parse(MOUNT, "--region", "a", "--region", "b", "--allow-other", "--allow-other=false"));
	assert_string_equal(o.region, "b");
	assert_false(o.allow_other);
}

static void unknown_option_is_named_with_the_nearest(void **state)
{
	refused(parse(MOUNT, "--regoin", "x"), "unknown option --regoin; did you mean --region?");
	refused(parse(MOUNT, "--read_only"), "unknown option --read_only; did you mean --read-only?");
	refused(parse(MOUNT, "--xyzzy=1"), "unknown option --xyzzy; penstock --help lists them");
	refused(parse(MOUNT, "-q"), "unknown option -q; penstock --help lists them");
	refused(parse(MOUNT, "-\n"), "unknown option -\\x0a; penstock --help lists them");
	refused(parse(MOUNT, "-o", "regoin=x"), "-o: unknown option 'regoin=x'; did you mean region?");
	refused(parse(MOUNT, "-o", "xyzzy"), "-o: unknown option 'xyzzy'; penstock --help lists them");
	refused(parse(MOUNT, "--help=1"), "unknown option --help; did you mean --help?");
}

static void options_are_never_abbreviated(void **state)
{
	refused(parse(MOUNT, "--reg", "x"), "unknown option --reg; did you mean --region?");
	refused(parse(MOUNT, "--meta=1"), "unknown option --meta; did you mean --metadata-ttl?");
	refused(parse(MOUNT, "-o", "allow"), "-o: unknown option 'allow'; did you mean allow-other?");
}

static void missing_value_is_an_error(void **state)
{
	refused(parse(MOUNT, "--region"), "--region needs a value");
	refused(parse(MOUNT, "--region="), "--region needs a value");
	refused(parse(MOUNT, "--region", "--read-only"), "--region needs a value");
	refused(parse(MOUNT, "-o"), "-o needs a value");
	refused(parse(MOUNT, "-o", "region"), "-o region needs a value");
}

static void sizes_without_sense_are_refused(void **state)
{
	static char *const bad[] = { "abc", "-5", "", " ", "1 parsec", "64MiBs", "0x40000000" };

	for (size_t i = 0; i < array_len(bad); i++) {
		int rc = parse(MOUNT, "--memory", bad[i]);

		refused(rc, *bad[i] ? "is not a size; give a number with KiB, MiB, GiB or TiB, at least 32MiB"
				    : "needs a value");
	}
	refused(parse(MOUNT, "--memory=1e9T"), "--memory: ");
	refused(parse(MOUNT, "--memory=0"), "--memory: 0 is too small; give at least 32MiB");
	refused(parse(MOUNT, "--memory=31MiB"), "--memory: 31MiB is too small; give at least 32MiB");
	refused(parse(MOUNT, "--memory=2000000TiB"), "--memory: 2000000TiB is more than any machine has");
	refused(parse(MOUNT, "--memory=99999999999999999999"), "is more than any machine has");
	refused(parse(MOUNT, "--memory=1000TiB"), "--memory: 1048576000 MiB is more than the ");
	accepted(parse(MOUNT, "--memory=32MiB"));
	assert_int_equal(o.memory_bytes, OPT_MEMORY_MIN_BYTES);
}

static void numbers_outside_of_their_range_are_refused(void **state)
{
	static const struct {
		char *arg;
		const char *accepted;
	} bad[] = {
		{ "--max-connections=0", "give a whole number from 1 to 1024" },
		{ "--max-connections=1025", "give a whole number from 1 to 1024" },
		{ "--max-connections=ten", "give a whole number from 1 to 1024" },
		{ "--hedge-percent=101", "give a whole number from 0 to 100" },
		{ "--hedge-percent=-1", "give a whole number from 0 to 100" },
		{ "--read-ahead-kb=0", "give a whole number from 4 to 1048576" },
		{ "--uid=root", "give a whole number from 0 to 4294967294" },
		{ "--gid=4294967295", "give a whole number from 0 to 4294967294" },
		{ "--read-deadline=0", "give a time from 1 to 3600 seconds" },
		{ "--read-deadline=2h", "give a time from 1 to 3600 seconds" },
		{ "--read-deadline=soon", "give a time from 1 to 3600 seconds" },
		{ "--metadata-ttl=-1", "give a time from 0 to 31536000 seconds" },
		{ "--file-mode=1777", "is not a mode; give three octal digits" },
		{ "--file-mode=rw", "is not a mode; give three octal digits" },
		{ "--dir-mode=00755", "is not a mode; give three octal digits" },
		{ "--dir-mode=889", "is not a mode; give three octal digits" },
		{ "--transport=ring", "'ring' is not accepted; give one of auto|io_uring|dev" },
		{ "--prefetch=aut", "give one of auto|eager|off" },
		{ "--log-level=loud", "give one of error|warn|info|debug" },
		{ "--log-format=xml", "give one of text|json" },
		{ "--allow-other=maybe", "--allow-other: 'maybe' is neither true nor false" },
		{ "--region=US East", "'US East' is not a region" },
		{ "--endpoint-url=ftp://x", "--endpoint-url: " },
		{ "--credentials=magic", "give chain, env, profile:NAME" },
		{ "--credentials=profile:", "give chain, env, profile:NAME" },
		{ "--volume-id=a/b", "'a/b' cannot name a volume" },
		{ "--volume-id=..", "'..' cannot name a volume" },
		{ "--volume-id=a\nb", "'a?b' cannot name a volume" },
		{ "--read-only=false", "this version mounts for reading only" },
	};

	for (size_t i = 0; i < array_len(bad); i++)
		refused(parse(MOUNT, bad[i].arg), bad[i].accepted);
}

static void too_long_values_are_refused(void **state)
{
	char text[6000];

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	refused(parse(MOUNT, "--region", text), "--region: the value is too long; give at most 63 bytes");
	refused(parse(MOUNT, "--log-file", text), "--log-file: the path cannot be used: File name too long");
	refused(parse(MOUNT, "-o", text), "-o: an option of over 4095 bytes");
	refused(parse("penstock", "mount", "s3://bucket", text), "cannot be used: File name too long");
	refused(parse("penstock", "mount", text, "/mnt"), "the source is over 2047 bytes");
	text[251] = '\0';
	refused(parse(MOUNT, "--volume-id", text), "cannot name a volume; give up to 250 bytes");
	text[250] = '\0';
	accepted(parse(MOUNT, "--volume-id", text));
	refused(parse("penstock", "mount", "s3://bucket", text, "--volume-id="), "--volume-id needs a value");
	text[250] = 'a';
	text[255] = '\0';
	refused(parse("penstock", "mount", "s3://bucket", text),
		"too long to name the volume after it; give --volume-id");
}

static void later_options_are_refused_with_a_reason(void **state)
{
	refused(parse(MOUNT, "--cache-dir", "/c"),
		"--cache-dir is not available in this version: there is no disk cache");
	refused(parse(MOUNT, "--cache-size=1GiB"), "--cache-size is not available in this version");
	refused(parse(MOUNT, "--keeper=unix:///k"), "--keeper is not available in this version: there is no keeper");
	refused(parse(MOUNT, "-o", "cache_dir=/c"), "-o cache-dir is not available in this version");
}

static void wrong_words_say_what_to_write(void **state)
{
	refused(parse("penstock"), "no command; write penstock mount s3://BUCKET DIR");
	refused(parse("penstock", "mout"), "unknown command 'mout'; did you mean penstock mount?");
	refused(parse("penstock", "umount", "/m"), "unknown command 'umount'; did you mean penstock unmount?");
	refused(parse("penstock", "frobnicate"), "unknown command 'frobnicate'; there are mount and unmount");
	refused(parse("penstock", "s3://b", "/m"), "no command; did you mean penstock mount s3://b DIR?");
	refused(parse("penstock", "mount"), "the source is missing; write penstock mount s3://BUCKET[/PREFIX] DIR");
	refused(parse("penstock", "mount", "s3://bucket"), "the directory to mount on is missing");
	refused(parse("mount.penstock"), "the source is missing; write mount.penstock s3://");
	refused(parse("penstock", "mount", "/mnt", "s3://bucket"),
		"the source comes first; write penstock mount s3://bucket /mnt");
	refused(parse(MOUNT, "more"), "unexpected argument 'more' after source and directory");
	refused(parse(MOUNT, "a", "b"), "unexpected argument 'b'");
	refused(parse("penstock", "mount", "http://bucket", "/mnt"), "s3://");
	refused(parse("penstock", "mount", "s3://bucket", "/"), "the directory is /");
	refused(parse("penstock", "mount", "s3://bucket", ""), "the directory '' cannot be used");
	refused(parse(MOUNT, "--lazy"), "--lazy is an option of penstock unmount, not of penstock mount");
	refused(parse("penstock", "unmount"), "the directory is missing; write penstock unmount DIR");
	refused(parse("penstock", "unmount", "/a", "/b"), "one directory at a time");
	refused(parse("penstock", "unmount", "/a", "--region=x"),
		"--region is an option of penstock mount, not of penstock unmount");
	refused(parse("penstock", "unmount", "/a", "-o", "ro"),
		"-o is an option of penstock mount, not of penstock unmount");
}

static void unmount_takes_a_directory_and_lazy(void **state)
{
	accepted(parse("penstock", "unmount", "--lazy", "/mnt//a/./b/"));
	assert_int_equal(o.verb, VERB_UNMOUNT);
	assert_string_equal(o.mount_point, "/mnt/a/b");
	assert_true(o.lazy_unmount);
	accepted(parse("penstock", "unmount", "/mnt/a"));
	assert_false(o.lazy_unmount);
}

static void relative_directory_becomes_absolute(void **state)
{
	assert_int_equal(chdir("/tmp"), 0);
	accepted(parse("penstock", "mount", "s3://bucket", "./m/../n/", "--ca-bundle", "ca.pem"));
	assert_string_equal(o.mount_point, "/tmp/m/../n");
	assert_string_equal(o.ca_bundle, "/tmp/ca.pem");
}

static void words_after_two_dashes_are_no_options(void **state)
{
	accepted(parse("penstock", "mount", "--", "s3://bucket", "/mnt/--region"));
	assert_string_equal(o.mount_point, "/mnt/--region");
	accepted(parse("penstock", "unmount", "--", "-f"));
}

static void help_and_version_need_nothing_else(void **state)
{
	accepted(parse("penstock", "--help"));
	assert_int_equal(o.verb, VERB_HELP);
	accepted(parse("penstock", "mount", "-h"));
	assert_int_equal(o.verb, VERB_HELP);
	accepted(parse("penstock", "--version"));
	assert_int_equal(o.verb, VERB_VERSION);
	assert_false(o.verbose);
	accepted(parse("penstock", "--version", "-v"));
	assert_true(o.verbose);
	accepted(parse("penstock", "-vV"));
	assert_int_equal(o.verb, VERB_VERSION);
	assert_true(o.verbose);
}

static void verbose_mount_logs_debug_unless_told(void **state)
{
	accepted(parse(MOUNT, "-v"));
	assert_int_equal(o.log_level, LOG_LEVEL_DEBUG);
	accepted(parse(MOUNT, "-v", "--log-level=info"));
	assert_int_equal(o.log_level, LOG_LEVEL_INFO);
}

static void dash_o_takes_the_same_names(void **state)
{
	accepted(parse(MOUNT, "-o", "allow_other,file-mode=0400,,dir_mode=0500,region=r-1", "-olog_file=/a\\,b\\\\c"));
	assert_true(o.allow_other);
	assert_int_equal(o.file_mode, 0400);
	assert_int_equal(o.dir_mode, 0500);
	assert_string_equal(o.region, "r-1");
	assert_string_equal(o.log_file, "/a,b\\c");
	refused(parse(MOUNT, "-o", "memory=5"), "-o memory: 5 is too small; give at least 32MiB");
	refused(parse(MOUNT, "-o", "config=/x"), "-o config: give it as --config instead");
}

static void dash_o_takes_the_words_of_mount(void **state)
{
	accepted(parse(
		MOUNT, "-o",
		"ro,rw,defaults,noauto,auto,_netdev,nofail,x-systemd.automount,x-a=b,comment=c d,default_permissions,"
		"nodev,nosuid,noexec,noatime"));
	assert_int_equal(o.mount_flags, MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC | MS_NOATIME);
	accepted(parse(MOUNT, "-o", "noexec,dev,suid,exec"));
	assert_int_equal(o.mount_flags, MS_RDONLY);
	accepted(parse(MOUNT, "-o", "dev,suid,user"));
	assert_int_equal(o.mount_flags, MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC);
	refused(parse(MOUNT, "-o", "remount,ro"), "-o remount is not possible here");
}

static void mount_helper_takes_what_mount_passes(void **state)
{
	accepted(parse(HELPER, "-sfnv", "-t", "penstock", "-o", "rw,whatever=1,region=r"));
	assert_int_equal(o.verb, VERB_MOUNT);
	assert_true(o.check_only && o.verbose);
	assert_false(o.foreground);
	assert_string_equal(o.region, "r");
	assert_string_equal(o.mount_point, "/mnt/a");
	refused(parse(HELPER, "-o", "whatever=1"), "-o: unknown option 'whatever=1'");
	refused(parse(HELPER, "-N", "/proc/1/ns/mnt"), "-N is not possible here");
	refused(parse(HELPER, "-t"), "-t needs a value");
	refused(parse(MOUNT, "-n"), "unknown option -n");
}

static void credentials_that_contradict_are_refused(void **state)
{
	refused(parse(MOUNT, "--no-sign-request", "--profile", "p"),
		"--no-sign-request uses no credentials, but --profile chooses");
	refused(parse(MOUNT, "--no-sign-request", "--credentials", "env"),
		"but --credentials chooses some; give one of them");
	refused(parse(MOUNT, "--no-sign-request", "--credentials", "chain"), "but --credentials chooses some");
	refused(parse(MOUNT, "--profile", "p", "--credentials", "imds"),
		"--credentials imds reads no profile, but --profile");
	refused(parse(MOUNT, "--profile", "p", "--credentials", "anonymous"),
		"--credentials anonymous reads no profile");
	refused(parse(MOUNT, "--profile", "p", "--credentials", "profile:q"),
		"names the profile 'q' but --profile names 'p'");
	refused(parse(MOUNT, "--no-sign-request", "--requester-pays"), "--requester-pays needs credentials");
}

static void credentials_that_agree_are_merged(void **state)
{
	accepted(parse(MOUNT, "--profile", "p"));
	assert_int_equal(o.credentials, S3_CREDS_PROFILE);
	accepted(parse(MOUNT, "--profile", "p", "--credentials", "chain"));
	assert_int_equal(o.credentials, S3_CREDS_CHAIN);
	assert_string_equal(o.profile, "p");
	accepted(parse(MOUNT, "--credentials", "profile:q"));
	assert_int_equal(o.credentials, S3_CREDS_PROFILE);
	assert_string_equal(o.profile, "q");
	accepted(parse(MOUNT, "--no-sign-request", "--credentials", "anonymous"));
	assert_true(o.no_sign_request);
	accepted(parse(MOUNT, "--credentials", "anonymous"));
	assert_true(o.no_sign_request);
	accepted(parse(MOUNT, "--no-sign-request"));
	assert_int_equal(o.credentials, S3_CREDS_ANONYMOUS);
}

static void environment_gives_defaults_that_options_beat(void **state)
{
	setenv("AWS_ENDPOINT_URL", "http://general", 1);
	setenv("AWS_DEFAULT_REGION", "r-default", 1);
	setenv("AWS_CA_BUNDLE", "/ca", 1);
	accepted(parse(MOUNT));
	assert_string_equal(o.endpoint_url, "http://general");
	assert_string_equal(o.region, "r-default");
	assert_string_equal(o.ca_bundle, "/ca");
	setenv("AWS_ENDPOINT_URL_S3", "http://special", 1);
	setenv("AWS_REGION", "r-first", 1);
	accepted(parse(MOUNT));
	assert_string_equal(o.endpoint_url, "http://special");
	assert_string_equal(o.region, "r-first");
	accepted(parse(MOUNT, "--endpoint-url=http://mine", "--region=mine", "--ca-bundle=/mine"));
	assert_string_equal(o.endpoint_url, "http://mine");
	assert_string_equal(o.region, "mine");
	assert_string_equal(o.ca_bundle, "/mine");
	setenv("AWS_REGION", "", 1);
	accepted(parse(MOUNT));
	assert_string_equal(o.region, "r-default");
	setenv("AWS_REGION", "No Region", 1);
	refused(parse(MOUNT), "environment variable AWS_REGION: 'No Region' is not a region");
}

static void config_file_sits_between_environment_and_command_line(void **state)
{
	_cleanup_free_ char *path = config_write(
		"# a comment\r\n\n  region = from-file\r\nmemory=64MiB\nallow-other = yes\n"
		"log-file = /a#x\nprofile = file");

	setenv("AWS_REGION", "from-env", 1);
	accepted(parse(MOUNT, "--config", path));
	assert_string_equal(o.region, "from-file");
	assert_int_equal(o.memory_bytes, 64 << 20);
	assert_string_equal(o.log_file, "/a#x");
	assert_true(o.allow_other);
	assert_string_equal(o.profile, "file");
	assert_int_equal(o.credentials, S3_CREDS_PROFILE);
	accepted(parse(MOUNT, "--region=from-line", "--config", path, "--allow-other=false", "--no-sign-request"));
	assert_string_equal(o.region, "from-line");
	assert_false(o.allow_other);
	assert_string_equal(o.profile, "");
	assert_int_equal(o.credentials, S3_CREDS_ANONYMOUS);
	unlink(path);
}

static void config_errors_name_file_and_line(void **state)
{
	static const struct {
		const char *text, *expected;
	} bad[] = {
		{ "\nread-only\n", ":2: no '='; write 'long-option = value'" },
		{ "regoin = x\n", ":1: unknown option 'regoin'; did you mean region?" },
		{ "#\n#\nxyzzy = x\n", ":3: unknown option 'xyzzy'; penstock --help lists them" },
		{ "region =\n", ":1: region needs a value after '='" },
		{ "memory = 3\n", ":1: memory: 3 is too small; give at least 32MiB" },
		{ "config = /x\n", ":1: config belongs on the command line, not in a file" },
		{ "lazy = true\n", ":1: lazy is not an option of penstock mount" },
		{ "cache-dir = /c\n", ":1: cache-dir is not available in this version" },
		{ "= 3\n", ":1: unknown option ''" },
	};

	for (size_t i = 0; i < array_len(bad); i++) {
		_cleanup_free_ char *path = config_write(bad[i].text);

		refused(parse(MOUNT, "--config", path), bad[i].expected);
		assert_true(strncmp(e.msg, path, strlen(path)) == 0);
		unlink(path);
	}
	refused(parse(MOUNT, "--config", "/no/such/file"), "--config: /no/such/file: No such file or directory");
	refused(parse(MOUNT, "--config", "/dev/null"), "--config: /dev/null is not a regular file");
}

static void config_with_a_nul_byte_is_refused(void **state)
{
	static const char text[] = "region = a\0b\n";
	uint64_t given;

	refused(option_config_apply(text, sizeof(text) - 1, "f", &o, &given, &e), "f:1: the line holds a NUL byte");
}

static void paths_are_escaped_as_systemd_does(void **state)
{
	static const char *const cases[][2] = {
		{ "/", "-" },
		{ "/mnt/a b", "mnt-a\\x20b" },
		{ "//mnt///x/", "mnt-x" },
		{ "/mnt/./x", "mnt-x" },
		{ "/.hidden/.x", "\\x2ehidden-.x" },
		{ "/a-b/c_d:e.f", "a\\x2db-c_d:e.f" },
		{ "/back\\slash", "back\\x5cslash" },
		{ "/\xc3\xa4", "\\xc3\\xa4" },
	};
	char got[64];

	for (size_t i = 0; i < array_len(cases); i++) {
		assert_int_equal(options_path_escape(cases[i][0], got, sizeof(got)), 0);
		assert_string_equal(got, cases[i][1]);
	}
	assert_int_equal(options_path_escape("/0123456789", got, 8), -E2BIG);
	assert_int_equal(options_path_escape("/", got, 1), -E2BIG);
}

static void help_lists_every_available_option_and_no_other(void **state)
{
	const char *help = options_help();
	size_t listed = 0;

	for (size_t i = 0; i < option_rows_count; i++) {
		char dashed[64];
		const char *at;

		snprintf(dashed, sizeof(dashed), "--%s ", option_rows[i].name);
		at = strstr(help, dashed);
		if ((at != NULL) != (option_rows[i].kind != OPTION_LATER))
			fail_msg("%s is %s in --help", dashed, at ? "wrongly" : "not");
		listed += at != NULL;
	}
	assert_true(listed > 25);
	assert_non_null(strstr(help, "--help "));
	assert_non_null(strstr(help, "--version "));
}

#define TEST(name) cmocka_unit_test_setup(name, environment_clear)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(defaults_are_the_documented_ones),
		TEST(every_option_is_stored),
		TEST(enum_words_are_in_the_order_of_their_enums),
		TEST(the_last_of_two_wins),
		TEST(unknown_option_is_named_with_the_nearest),
		TEST(options_are_never_abbreviated),
		TEST(missing_value_is_an_error),
		TEST(sizes_without_sense_are_refused),
		TEST(numbers_outside_of_their_range_are_refused),
		TEST(too_long_values_are_refused),
		TEST(later_options_are_refused_with_a_reason),
		TEST(wrong_words_say_what_to_write),
		TEST(unmount_takes_a_directory_and_lazy),
		TEST(relative_directory_becomes_absolute),
		TEST(words_after_two_dashes_are_no_options),
		TEST(help_and_version_need_nothing_else),
		TEST(verbose_mount_logs_debug_unless_told),
		TEST(dash_o_takes_the_same_names),
		TEST(dash_o_takes_the_words_of_mount),
		TEST(mount_helper_takes_what_mount_passes),
		TEST(credentials_that_contradict_are_refused),
		TEST(credentials_that_agree_are_merged),
		TEST(environment_gives_defaults_that_options_beat),
		TEST(config_file_sits_between_environment_and_command_line),
		TEST(config_errors_name_file_and_line),
		TEST(config_with_a_nul_byte_is_refused),
		TEST(paths_are_escaped_as_systemd_does),
		TEST(help_lists_every_available_option_and_no_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
