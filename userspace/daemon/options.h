/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of penstock, parsed and checked before anything is touched. Pure but for the
 * environment, the working directory and the --config file.
 */
#ifndef PENSTOCK_DAEMON_OPTIONS_H
#define PENSTOCK_DAEMON_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/log.h"
#include "s3/creds.h"
#include "s3/uri.h"

enum options_verb { VERB_MOUNT, VERB_UNMOUNT, VERB_HELP, VERB_VERSION };
enum options_transport { TRANSPORT_AUTO = 0, TRANSPORT_IO_URING, TRANSPORT_DEV };
enum options_prefetch { PREFETCH_AUTO = 0, PREFETCH_EAGER, PREFETCH_OFF };

#define OPT_PATH_MAX 4096
#define OPT_VOLUME_ID_MAX 256
#define OPT_MEMORY_MIN_BYTES (32ull << 20)

struct options {
	enum options_verb verb;
	bool verbose;    /* -v: more of --version; debug logs of a mount unless --log-level says otherwise */
	bool check_only; /* mount.penstock -f: parse and check, mount nothing */
	bool quiet;      /* mount.penstock without -v: says nothing on success */

	char source[2048]; /* s3://BUCKET[/PREFIX] as given */
	struct s3_uri uri;
	char mount_point[OPT_PATH_MAX]; /* absolute; mount_point_prepare() resolves its symlinks */

	char endpoint_url[512];     /* --endpoint-url, else $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL; "" = AWS */
	char region[S3_REGION_MAX]; /* --region, else $AWS_REGION, $AWS_DEFAULT_REGION; "" = not said */
	bool force_path_style, no_sign_request, requester_pays;
	char profile[256];             /* --profile or profile:NAME; $AWS_PROFILE is left to the credential chain */
	char credentials_profile[256]; /* NAME of --credentials profile:NAME, by then also in profile */
	enum s3_creds_source credentials;
	char ca_bundle[OPT_PATH_MAX];

	bool read_only; /* accepted and always true for now */
	bool allow_other, foreground, lazy_unmount;
	uid_t uid;
	gid_t gid;
	mode_t file_mode, dir_mode; /* 0644, 0755 */

	uint64_t memory_bytes;     /* 0 = default: min(25 % of RAM or cgroup, 80 GiB) */
	uint64_t metadata_ttl_ns;  /* default 60 s; 0 = every open asks */
	uint64_t read_deadline_ns; /* default 60 s */
	unsigned max_connections;  /* 0 = default */
	unsigned hedge_percent;    /* default 5; 0 = off */
	enum options_transport transport;
	enum options_prefetch prefetch;
	unsigned read_ahead_kb;            /* bdi; default 0 = ours */
	char profile_dir[OPT_PATH_MAX];    /* "" = in the run directory */
	char metrics_listen[128];          /* ADDR:PORT; "" = the socket in the run directory only */
	char volume_id[OPT_VOLUME_ID_MAX]; /* default: the mount point escaped as systemd does */
	bool volume_id_given;
	char config[OPT_PATH_MAX];

	enum log_level log_level;
	enum log_format log_format;
	char log_file[OPT_PATH_MAX]; /* "": stderr, in the background a file under $PENSTOCK_RUN_DIR */
	unsigned long mount_flags;   /* MS_RDONLY, MS_NODEV, MS_NOSUID; MS_NOEXEC ... from -o */
};

/*
 * argv of "penstock ..." or of "mount.penstock SOURCE DIR -o ..." (chosen by basename of argv[0]). On a
 * bad line: -EINVAL and one sentence with the option's name, what was wrong and what is accepted.
 * Options are never abbreviated. The command line wins over --config, --config over the environment.
 * What a later version will bring (--cache-dir ...) is refused.
 */
int options_parse(int argc, char **argv, struct options *ret, struct err *e);

/* Text of --help; the man page's option list is checked against it by lint. */
const char *options_help(void);

/* A path as systemd escapes it into a unit name ("/mnt/a b" -> "mnt-a\x20b"). -E2BIG when it does not fit. */
int options_path_escape(const char *path, char *ret, size_t room);

/*
 * The default volume id, from <o>'s mount point; for options_parse() and for whoever changes
 * mount_point after it.
 */
int options_volume_id_default(struct options *o, struct err *e);

#endif
