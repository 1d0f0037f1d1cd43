// SPDX-License-Identifier: Apache-2.0
/*
 * The options of penstock: one row each, the text of --help, and names that were probably meant.
 *
 * Design: a row says where a value goes and what is accepted; what no row can say is a check function.
 */
#include <ctype.h>
#include <string.h>

#include "base/cleanup.h"
#include "daemon/options_i.h"
#include "s3/uri.h"

#define ROOM(member) sizeof(((struct options *)0)->member)
#define ROW(NAME, KIND, WHERE, MEMBER, ...)                                                             \
	{                                                                                               \
		.name = NAME, .kind = KIND, .where = WHERE, .offset = offsetof(struct options, MEMBER), \
		.room = ROOM(MEMBER), ##__VA_ARGS__                                                     \
	}
#define LATER(NAME, WHY)                                                             \
	{                                                                            \
		.name = NAME, .kind = OPTION_LATER, .where = FOR_MOUNT, .words = WHY \
	}
#define YEAR_SECONDS (365ull * 86400)

static int endpoint_check(struct options *o, const char *value, const char *label, struct err *e)
{
	struct s3_endpoint endpoint;

	if (s3_endpoint_parse(value, &endpoint, e) == 0)
		return 0;
	err_wrap(e, "%s", label);
	return -EINVAL;
}

static int region_check(struct options *o, const char *value, const char *label, struct err *e)
{
	for (const char *p = value; *p; p++) {
		if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '-')
			return err_set(e, -EINVAL, "%s: '%.64s' is not a region; give one such as us-east-1", label,
				       value);
	}
	return 0;
}

static int credentials_set(struct options *o, const char *value, const char *label, struct err *e)
{
	const char *profile = NULL;

	if (s3_creds_source_parse(value, &o->credentials, &profile) < 0)
		return err_set(
			e, -EINVAL,
			"%s: '%.64s' is not a source of credentials; give chain, env, profile:NAME, web-identity, "
			"container, imds or anonymous",
			label, value);
	if (!profile)
		profile = "";
	if (strlen(profile) >= sizeof(o->credentials_profile))
		return err_set(e, -EINVAL, "%s: the profile's name is too long; give at most %zu bytes", label,
			       sizeof(o->credentials_profile) - 1);
	memcpy(o->credentials_profile, profile, strlen(profile) + 1);
	return 0;
}

/* The id names files and later a directory: "ID.pid" must fit a file name. */
static int volume_id_check(struct options *o, const char *value, const char *label, struct err *e)
{
	bool bad = value[0] == '.' || strchr(value, '/') || strlen(value) > 250;

	for (const char *p = value; *p && !bad; p++)
		bad = iscntrl((unsigned char)*p);
	if (bad)
		return err_set(e, -EINVAL,
			       "%s: '%.64s' cannot name a volume; give up to 250 bytes, no '/', no '.' first", label,
			       value);
	o->volume_id_given = true;
	return 0;
}

/* The order here is the order of --help and of the man page. */
const struct option_row option_rows[] = {
	ROW("endpoint-url", OPTION_TEXT, FOR_MOUNT, endpoint_url, .check = endpoint_check),
	ROW("region", OPTION_TEXT, FOR_MOUNT, region, .check = region_check),
	ROW("force-path-style", OPTION_FLAG, FOR_MOUNT, force_path_style),
	ROW("requester-pays", OPTION_FLAG, FOR_MOUNT, requester_pays),
	ROW("ca-bundle", OPTION_PATH, FOR_MOUNT, ca_bundle),
	ROW("credentials", OPTION_CUSTOM, FOR_MOUNT, credentials, .check = credentials_set),
	ROW("profile", OPTION_TEXT, FOR_MOUNT, profile),
	ROW("no-sign-request", OPTION_FLAG, FOR_MOUNT, no_sign_request),
	ROW("read-only", OPTION_FLAG, FOR_MOUNT, read_only),
	ROW("allow-other", OPTION_FLAG, FOR_MOUNT, allow_other),
	ROW("uid", OPTION_NUMBER, FOR_MOUNT, uid, .min = 0, .max = UINT32_MAX - 1),
	ROW("gid", OPTION_NUMBER, FOR_MOUNT, gid, .min = 0, .max = UINT32_MAX - 1),
	ROW("file-mode", OPTION_MODE, FOR_MOUNT, file_mode),
	ROW("dir-mode", OPTION_MODE, FOR_MOUNT, dir_mode),
	ROW("memory", OPTION_SIZE, FOR_MOUNT, memory_bytes, .min = OPT_MEMORY_MIN_BYTES, .max = 1ull << 50),
	ROW("metadata-ttl", OPTION_DURATION, FOR_MOUNT, metadata_ttl_ns, .min = 0, .max = YEAR_SECONDS),
	ROW("read-deadline", OPTION_DURATION, FOR_MOUNT, read_deadline_ns, .min = 1, .max = 3600),
	ROW("max-connections", OPTION_NUMBER, FOR_MOUNT, max_connections, .min = 1, .max = 1024),
	ROW("hedge-percent", OPTION_NUMBER, FOR_MOUNT, hedge_percent, .min = 0, .max = 100),
	ROW("transport", OPTION_CHOICE, FOR_MOUNT, transport, .words = "auto|io_uring|dev"),
	ROW("prefetch", OPTION_CHOICE, FOR_MOUNT, prefetch, .words = "auto|eager|off"),
	ROW("read-ahead-kb", OPTION_NUMBER, FOR_MOUNT, read_ahead_kb, .min = 4, .max = 1 << 20),
	ROW("volume-id", OPTION_TEXT, FOR_MOUNT, volume_id, .check = volume_id_check),
	ROW("profile-dir", OPTION_PATH, FOR_MOUNT, profile_dir),
	ROW("metrics-listen", OPTION_TEXT, FOR_MOUNT, metrics_listen),
	ROW("config", OPTION_PATH, FOR_MOUNT | FOR_ARGV, config),
	ROW("foreground", OPTION_FLAG, FOR_MOUNT, foreground, .letter = 'f'),
	ROW("log-level", OPTION_CHOICE, FOR_MOUNT, log_level, .words = "error|warn|info|debug"),
	ROW("log-format", OPTION_CHOICE, FOR_MOUNT, log_format, .words = "text|json"),
	ROW("log-file", OPTION_PATH, FOR_MOUNT, log_file),
	ROW("lazy", OPTION_FLAG, FOR_UNMOUNT | FOR_ARGV, lazy_unmount),
	ROW("verbose", OPTION_FLAG, FOR_MOUNT | FOR_UNMOUNT | FOR_ARGV, verbose, .letter = 'v'),

	LATER("cache-dir", "there is no disk cache; --memory sizes the cache in memory"),
	LATER("cache-size", "there is no disk cache; --memory sizes the cache in memory"),
	LATER("keeper", "there is no keeper; each mount lives as long as its daemon"),
};

const size_t option_rows_count = array_len(option_rows);
_Static_assert(array_len(option_rows) <= 64, "a bit of a 64-bit word for each row");

static const char help_text[] =
	"usage: penstock mount s3://BUCKET[/PREFIX] DIR [options]\n"
	"       penstock unmount DIR [--lazy]\n"
	"       penstock --version [-v] | --help\n"
	"\n"
	"Mounts a bucket, or a prefix of it, as a read-only file system.\n"
	"\n"
	"the server\n"
	"  --endpoint-url URL      an S3 server other than AWS: http[s]://HOST[:PORT][/PATH]\n"
	"  --region REGION         the bucket's region, such as us-east-1\n"
	"  --force-path-style      the bucket's name in the path (default for a custom endpoint)\n"
	"  --requester-pays        agree to pay for requests to a requester-pays bucket\n"
	"  --ca-bundle FILE        certificates to trust, in PEM\n"
	"\n"
	"credentials\n"
	"  --credentials SOURCE    chain, env, profile:NAME, web-identity, container, imds or anonymous\n"
	"  --profile NAME          that profile of the AWS files and nothing else\n"
	"  --no-sign-request       anonymous requests, for a public bucket\n"
	"\n"
	"the file system\n"
	"  --read-only             no writes (always so in this version)\n"
	"  --allow-other           let all users in, not only the one who mounts\n"
	"  --uid N, --gid N        owner and group of everything (default: who mounts)\n"
	"  --file-mode MODE        permissions of files, octal (default 0644)\n"
	"  --dir-mode MODE         permissions of directories, octal (default 0755)\n"
	"  -o NAME[=VALUE],...     these options, and those of mount(8), in mount's way\n"
	"\n"
	"speed\n"
	"  --memory SIZE           all memory for data, at least 32MiB (default 25 % of what there is)\n"
	"  --metadata-ttl TIME     how old a size or a listing may be (default 60s)\n"
	"  --read-deadline TIME    when a read gives up with an error (default 60s)\n"
	"  --max-connections N     connections to the server, 1 to 1024\n"
	"  --hedge-percent N       extra requests to get around slow ones (default 5; 0 is off)\n"
	"  --transport WAY         auto, io_uring or dev (default auto)\n"
	"  --prefetch WHEN         auto, eager or off (default auto)\n"
	"  --read-ahead-kb N       the kernel's read-ahead of this mount, 4 to 1048576\n"
	"\n"
	"running it\n"
	"  --config FILE           lines of 'long-option = value'; the command line wins\n"
	"  --profile-dir DIR       where recorded loads are kept (default profiles/ in /run/penstock)\n"
	"  --metrics-listen A:P    serve Prometheus metrics on this address and port\n"
	"  --volume-id ID          name of this mount's files under /run/penstock\n"
	"  -f, --foreground        stay, and log to the terminal\n"
	"  --log-level LEVEL       error, warn, info or debug (default info)\n"
	"  --log-format FORMAT     text or json (default text)\n"
	"  --log-file FILE         where the log goes\n"
	"  --lazy                  unmount: also while in use; it goes when its last user does\n"
	"  -v, --verbose           with --version: what this kernel offers; else debug logs\n"
	"  -V, --version           print the version\n"
	"  -h, --help              print this\n"
	"\n"
	"SIZE takes KiB, MiB, GiB, TiB; TIME takes ms, s, m, h (s without). penstock(1) says more.\n";

const char *options_help(void)
{
	return help_text;
}

const struct option_row *option_row_find(const char *name, size_t len, bool underscores)
{
	for (size_t i = 0; i < option_rows_count; i++) {
		const char *row = option_rows[i].name;
		size_t k = 0;

		if (strlen(row) != len)
			continue;
		while (k < len && (row[k] == name[k] || (underscores && row[k] == '-' && name[k] == '_')))
			k++;
		if (k == len)
			return &option_rows[i];
	}
	return NULL;
}

#define WORD_MAX 40

/*
 * Levenshtein distance with swapped neighbours as one step; words over WORD_MAX bytes are far from
 * everything.
 */
static size_t word_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t d[WORD_MAX + 1][WORD_MAX + 1];

	if (a_len > WORD_MAX || b_len > WORD_MAX)
		return WORD_MAX;
	for (size_t i = 0; i <= a_len; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= b_len; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= a_len; i++) {
		for (size_t j = 1; j <= b_len; j++) {
			size_t best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			best = min_of(best, d[i - 1][j] + 1);
			best = min_of(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				best = min_of(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[a_len][b_len];
}

const char *option_word_nearest(const char *word, size_t len, const char *const *words, size_t n)
{
	const char *nearest = NULL;
	size_t best = max_of((size_t)1, len / 3) + 1;

	for (size_t i = 0; i < n; i++) {
		size_t words_len = strlen(words[i]);
		size_t d = word_distance(word, len, words[i], words_len);

		/* Someone who abbreviates means the whole word. */
		if (len >= 3 && len < words_len && memcmp(word, words[i], len) == 0)
			d = 1;
		if (d < best) {
			best = d;
			nearest = words[i];
		}
	}
	return nearest;
}

const char *option_name_nearest(const char *name, size_t len)
{
	const char *names[array_len(option_rows) + 2];
	char dashed[WORD_MAX];
	size_t n = 0;

	if (len >= sizeof(dashed))
		return NULL;
	for (size_t i = 0; i < len; i++)
		dashed[i] = name[i] == '_' ? '-' : (char)tolower((unsigned char)name[i]);
	for (size_t i = 0; i < option_rows_count; i++) {
		if (option_rows[i].kind != OPTION_LATER)
			names[n++] = option_rows[i].name;
	}
	names[n++] = "help";
	names[n++] = "version";
	return option_word_nearest(dashed, len, names, n);
}
