// SPDX-License-Identifier: Apache-2.0
/* s3d: a small S3 server for tests. The command line; README.md tells the rest. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "server.h"

static const char usage[] =
	"usage: s3d --root DIR | --memory  [--listen 127.0.0.1:0] [--port-file F] [--tls-cert C --tls-key K]\n"
	"           [--access-key A --secret-key S [--session-token T] | --anonymous] [--region R]\n"
	"           [--virtual-domain D] [--threads N] [--latency-ms N] [--conn-rate BYTES_PER_S] [--log F]\n";

enum {
	OPT_ROOT = 256,
	OPT_MEMORY,
	OPT_LISTEN,
	OPT_PORT_FILE,
	OPT_TLS_CERT,
	OPT_TLS_KEY,
	OPT_ACCESS_KEY,
	OPT_SECRET_KEY,
	OPT_SESSION_TOKEN,
	OPT_ANONYMOUS,
	OPT_REGION,
	OPT_VIRTUAL_DOMAIN,
	OPT_THREADS,
	OPT_LATENCY_MS,
	OPT_CONN_RATE,
	OPT_LOG,
};

static const struct option options[] = {
	{ "root", required_argument, NULL, OPT_ROOT },
	{ "memory", no_argument, NULL, OPT_MEMORY },
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "port-file", required_argument, NULL, OPT_PORT_FILE },
	{ "tls-cert", required_argument, NULL, OPT_TLS_CERT },
	{ "tls-key", required_argument, NULL, OPT_TLS_KEY },
	{ "access-key", required_argument, NULL, OPT_ACCESS_KEY },
	{ "secret-key", required_argument, NULL, OPT_SECRET_KEY },
	{ "session-token", required_argument, NULL, OPT_SESSION_TOKEN },
	{ "anonymous", no_argument, NULL, OPT_ANONYMOUS },
	{ "region", required_argument, NULL, OPT_REGION },
	{ "virtual-domain", required_argument, NULL, OPT_VIRTUAL_DOMAIN },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "latency-ms", required_argument, NULL, OPT_LATENCY_MS },
	{ "conn-rate", required_argument, NULL, OPT_CONN_RATE },
	{ "log", required_argument, NULL, OPT_LOG },
	{ NULL, 0, NULL, 0 },
};

static int number(const char *text, uint64_t *ret)
{
	char *end;

	errno = 0;
	*ret = strtoull(text, &end, 10);
	return errno || end == text || *end || *text == '-' ? -EINVAL : 0;
}

struct choice {
	bool memory, anonymous;
	uint64_t threads;
};

static int config_set(struct config *cfg, struct choice *choice, int option)
{
	switch (option) {
	case OPT_ROOT:
		cfg->root = optarg;
		return 0;
	case OPT_MEMORY:
		choice->memory = true;
		return 0;
	case OPT_LISTEN:
		cfg->listen = optarg;
		return 0;
	case OPT_PORT_FILE:
		cfg->port_file = optarg;
		return 0;
	case OPT_TLS_CERT:
		cfg->tls_cert = optarg;
		return 0;
	case OPT_TLS_KEY:
		cfg->tls_key = optarg;
		return 0;
	case OPT_ACCESS_KEY:
		cfg->access_key = optarg;
		return 0;
	case OPT_SECRET_KEY:
		cfg->secret_key = optarg;
		return 0;
	case OPT_SESSION_TOKEN:
		cfg->session_token = optarg;
		return 0;
	case OPT_ANONYMOUS:
		choice->anonymous = true;
		return 0;
	case OPT_REGION:
		cfg->region = optarg;
		return 0;
	case OPT_VIRTUAL_DOMAIN:
		cfg->virtual_domain = optarg;
		return 0;
	case OPT_THREADS:
		return number(optarg, &choice->threads);
	case OPT_LATENCY_MS:
		return number(optarg, &cfg->latency_ms);
	case OPT_CONN_RATE:
		return number(optarg, &cfg->conn_rate);
	case OPT_LOG:
		cfg->log_file = optarg;
		return 0;
	default:
		return -EINVAL;
	}
}

static int config_parse(int argc, char **argv, struct config *cfg)
{
	struct choice choice = { .threads = 2 };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (config_set(cfg, &choice, option) < 0)
			return -EINVAL;
	if (optind != argc || choice.memory == (cfg->root != NULL) || choice.anonymous == (cfg->access_key != NULL) ||
	    !cfg->access_key != !cfg->secret_key || !cfg->tls_cert != !cfg->tls_key || choice.threads < 1 ||
	    choice.threads > SERVER_THREADS_MAX)
		return -EINVAL;
	cfg->threads = (unsigned)choice.threads;
	return 0;
}

/* Written under another name first: who waits for the file finds it whole. */
static int port_file_write(const char *path, unsigned port)
{
	_cleanup_fclose_ FILE *f = NULL;
	_cleanup_free_ char *temporary = malloc(strlen(path) + 5);

	if (!temporary)
		return -ENOMEM;
	sprintf(temporary, "%s.new", path);
	f = fopen(temporary, "we");
	if (!f || fprintf(f, "%u\n", port) < 0 || fflush(f) || rename(temporary, path))
		return -errno;
	return 0;
}

int main(int argc, char **argv)
{
	struct config cfg = { .listen = "127.0.0.1:0", .region = "us-east-1" };
	struct rlimit files;
	struct server *s;
	struct err e = { 0 };
	sigset_t stop;
	int which, rc;

	if (config_parse(argc, argv, &cfg) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&stop);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGINT);
	pthread_sigmask(SIG_BLOCK, &stop, NULL);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max; /* each body in a file holds a descriptor */
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (server_start(&cfg, &s, &e) < 0) {
		fprintf(stderr, "s3d: %s\n", e.msg);
		return 1;
	}
	rc = cfg.port_file ? port_file_write(cfg.port_file, server_port(s)) : 0;
	if (rc < 0)
		fprintf(stderr, "s3d: cannot write %s: %s\n", cfg.port_file, strerror(-rc));
	else
		sigwait(&stop, &which);
	server_stop(s);
	return rc < 0;
}
