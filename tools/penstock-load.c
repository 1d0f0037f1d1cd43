// SPDX-License-Identifier: Apache-2.0
/* penstock-load: makes models and reads them as loaders do: the reader of the benchmark, the demo and the tests. */
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include <penstock/version.h>

#include "base/clock.h"
#include "base/size.h"
#include "penstock-load.h"

static const char usage[] =
	"usage: penstock-load generate DIR --size SIZE [options]       a sharded model\n"
	"       penstock-load generate FILE --plain --size SIZE        one file of pseudo-random bytes\n"
	"       penstock-load read FILE... --pattern P [options]       read files in a loader's way\n"
	"       penstock-load model DIR [options]                      load a safetensors model\n"
	"       penstock-load replay PATTERN DIR [options]             load a model as real loaders do\n"
	"\n"
	"generate\n"
	"  --size SIZE        bytes of all tensors together\n"
	"  --kind K           safetensors, gguf or torch (safetensors)\n"
	"  --shards N         files (1)\n"
	"  --mixed            F8, BF16 and F32 instead of BF16 with F32 norms\n"
	"  --experts N        so many tensors are experts' matrices, most of the bytes\n"
	"  --seed N           what the contents are made from (1)\n"
	"\n"
	"patterns of read: seq, pread (shuffled), mmap, mmap-shuffled, random4k, random4k-direct, populate, sendfile,\n"
	"backward, streams (interleaved on one descriptor), head (first 64 KiB), io_uring-direct (512-byte offsets)\n"
	"\n"
	"  --jobs N           threads (1; model: 4; replay: the pattern's own)\n"
	"  --processes N      processes that all do the whole work (1; replay: the pattern's own ranks)\n"
	"  --share-fd         processes share descriptors instead of opening their own\n"
	"  --piece SIZE       bytes of one operation; --block is the same\n"
	"  --streams N        interleaved streams (4)\n"
	"  --depth N          reads in flight of io_uring-direct (64)\n"
	"  --count N          operations of each job, random patterns\n"
	"  --seconds S        stop after this time\n"
	"  --direct           open with O_DIRECT\n"
	"  --private-write    map MAP_PRIVATE with PROT_WRITE, as some loaders do\n"
	"  --advise A         sequential, random or willneed: madvise() and posix_fadvise()\n"
	"  --drop             drop the files' cached pages first\n"
	"  --verify S         compare every byte: S is the seed of generate, or a directory with the same files\n"
	"  --seed N           of generate and of shuffling (1)\n"
	"  --progress         a bar, if standard error is a terminal\n"
	"  --json             the result as JSON\n"
	"\n"
	"patterns of replay:\n";

static const char usage_end[] =
	"\n"
	"Exit status: 0 all read and right; 1 a read failed or a byte was wrong; 2 wrong use.\n";

enum {
	OPT_FIRST = 256,
	OPT_PATTERN,
	OPT_JOBS,
	OPT_PROCESSES,
	OPT_SHARE_FD,
	OPT_PIECE,
	OPT_STREAMS,
	OPT_DEPTH,
	OPT_COUNT,
	OPT_SECONDS,
	OPT_DIRECT,
	OPT_PRIVATE_WRITE,
	OPT_ADVISE,
	OPT_DROP,
	OPT_VERIFY,
	OPT_SEED,
	OPT_PROGRESS,
	OPT_JSON,
	OPT_SIZE,
	OPT_SHARDS,
	OPT_PLAIN,
	OPT_KIND,
	OPT_MIXED,
	OPT_EXPERTS,
	OPT_HELP,
	OPT_VERSION
};

static const struct option long_options[] = {
	{ "pattern", required_argument, NULL, OPT_PATTERN },
	{ "jobs", required_argument, NULL, OPT_JOBS },
	{ "processes", required_argument, NULL, OPT_PROCESSES },
	{ "share-fd", no_argument, NULL, OPT_SHARE_FD },
	{ "piece", required_argument, NULL, OPT_PIECE },
	{ "block", required_argument, NULL, OPT_PIECE },
	{ "streams", required_argument, NULL, OPT_STREAMS },
	{ "depth", required_argument, NULL, OPT_DEPTH },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "direct", no_argument, NULL, OPT_DIRECT },
	{ "private-write", no_argument, NULL, OPT_PRIVATE_WRITE },
	{ "advise", required_argument, NULL, OPT_ADVISE },
	{ "drop", no_argument, NULL, OPT_DROP },
	{ "verify", required_argument, NULL, OPT_VERIFY },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "progress", no_argument, NULL, OPT_PROGRESS },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "shards", required_argument, NULL, OPT_SHARDS },
	{ "plain", no_argument, NULL, OPT_PLAIN },
	{ "kind", required_argument, NULL, OPT_KIND },
	{ "mixed", no_argument, NULL, OPT_MIXED },
	{ "experts", required_argument, NULL, OPT_EXPERTS },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{},
};

static int unsigned_parse(const char *text, unsigned max, unsigned *ret)
{
	uint64_t v;
	int rc = number_parse(text, 1, max, &v);

	if (!rc)
		*ret = (unsigned)v;
	return rc;
}

static int pattern_parse(const char *text, enum load_pattern *ret)
{
	for (enum load_pattern p = 0; p < PATTERN_COUNT; p++) {
		if (!strcmp(text, load_pattern_name(p))) {
			*ret = p;
			return 0;
		}
	}
	return -EINVAL;
}

static int advice_parse(const char *text, enum load_advice *ret)
{
	static const char *const names[] = { "none", "sequential", "random", "willneed" };

	for (size_t i = 0; i < array_len(names); i++) {
		if (!strcmp(text, names[i])) {
			*ret = (enum load_advice)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int kind_parse(const char *text, enum load_kind *ret)
{
	static const char *const names[] = { "safetensors", "gguf", "torch" };

	for (size_t i = 0; i < array_len(names); i++) {
		if (!strcmp(text, names[i])) {
			*ret = (enum load_kind)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int piece_parse(const char *text, uint64_t *ret)
{
	int rc = size_parse(text, ret);

	return rc ? rc : *ret && *ret <= LOAD_PIECE_MAX_BYTES ? 0 : -ERANGE;
}

static int flag_apply(struct load_options *o, int opt)
{
	bool *flag = opt == OPT_SHARE_FD      ? &o->share_fd
		   : opt == OPT_DIRECT        ? &o->direct
		   : opt == OPT_PRIVATE_WRITE ? &o->private_write
		   : opt == OPT_DROP          ? &o->drop
		   : opt == OPT_PROGRESS      ? &o->progress
		   : opt == OPT_JSON          ? &o->json
		   : opt == OPT_PLAIN         ? &o->plain
		   : opt == OPT_MIXED         ? &o->mixed
					      : NULL;

	if (!flag)
		return -ENOENT;
	*flag = true;
	return 0;
}

static int option_apply(struct load_options *o, int opt)
{
	switch (opt) {
	case OPT_PATTERN:
		return pattern_parse(optarg, &o->pattern);
	case OPT_ADVISE:
		return advice_parse(optarg, &o->advice);
	case OPT_JOBS:
		return unsigned_parse(optarg, LOAD_WORKERS_MAX, &o->jobs);
	case OPT_PROCESSES:
		return unsigned_parse(optarg, LOAD_WORKERS_MAX, &o->processes);
	case OPT_STREAMS:
		return unsigned_parse(optarg, 4096, &o->streams);
	case OPT_DEPTH:
		return unsigned_parse(optarg, LOAD_DEPTH_MAX, &o->depth);
	case OPT_SHARDS:
		return unsigned_parse(optarg, 99999, &o->shards);
	case OPT_EXPERTS:
		return unsigned_parse(optarg, 1u << 20, &o->experts);
	case OPT_KIND:
		return kind_parse(optarg, &o->kind);
	case OPT_PIECE:
		return piece_parse(optarg, &o->piece_bytes);
	case OPT_COUNT:
		return number_parse(optarg, 1, UINT64_MAX / 2, &o->count);
	case OPT_SECONDS:
		return duration_parse(optarg, &o->limit_ns);
	case OPT_SEED:
		return number_parse(optarg, 0, UINT64_MAX, &o->seed);
	case OPT_SIZE:
		return size_parse(optarg, &o->size_bytes);
	case OPT_VERIFY:
		o->verify = optarg;
		return 0;
	default:
		return flag_apply(o, opt);
	}
}

static int options_parse(int argc, char **argv, struct load_options *o, struct err *e)
{
	int opt, index = 0, rc;

	while ((opt = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage, stdout);
			load_replay_list(stdout);
			fputs(usage_end, stdout);
			exit(0);
		}
		if (opt == OPT_VERSION) {
			puts("penstock-load " PENSTOCK_VERSION);
			exit(0);
		}
		if (opt == '?')
			return err_set(e, -EINVAL, "see penstock-load --help");
		rc = option_apply(o, opt);
		if (rc)
			return err_set(e, rc, "--%s: \"%s\" is not accepted; see penstock-load --help",
				       long_options[index].name, optarg);
	}
	return 0;
}

/* A replay brings its own. */
static int workers_default(const char *verb, struct load_options *o, struct err *e)
{
	if (!strcmp(verb, "replay"))
		return 0;
	if (!o->jobs)
		o->jobs = strcmp(verb, "model") ? 1 : 4;
	if (!o->processes)
		o->processes = 1;
	if (o->jobs * o->processes > LOAD_WORKERS_MAX)
		return err_set(e, -ERANGE, "at most %d workers in all", LOAD_WORKERS_MAX);
	return 0;
}

static void result_print_json(const struct load_result *r, const char *what)
{
	json_t *j = json_pack("{s:s, s:I, s:f, s:f, s:I, s:f, s:f, s:f, s:f, s:I, s:f, s:I, s:I, s:I, s:I, s:s}",
			      "what", what, "bytes", (json_int_t)r->bytes, "seconds", r->seconds, "mb_per_s",
			      (double)r->bytes / 1e6 / r->seconds, "ops", (json_int_t)r->ops, "iops",
			      (double)r->ops / r->seconds, "p50_us", r->p50_us, "p99_us", r->p99_us, "max_us",
			      r->max_us, "major_faults", (json_int_t)r->major_faults, "cpu_s", r->cpu_s, "wanted_bytes",
			      (json_int_t)r->wanted_bytes, "verified_bytes", (json_int_t)r->verified_bytes,
			      "wrong_bytes", (json_int_t)r->wrong_bytes, "errors", (json_int_t)r->errors, "first_error",
			      r->first_error);

	if (r->first_tensor_s > 0)
		json_object_set_new(j, "first_tensor_s", json_real(r->first_tensor_s));
	json_object_set_new(j, "cut", json_boolean(r->cut));
	json_dumpf(j, stdout, JSON_REAL_PRECISION(9));
	putchar('\n');
	json_decref(j);
}

static void result_print_text(const struct load_result *r, const char *what)
{
	printf("%s: %" PRIu64 " bytes in %.3f s, %.1f MB/s\n", what, r->bytes, r->seconds,
	       (double)r->bytes / 1e6 / r->seconds);
	printf("  %" PRIu64 " operations, %.0f a second; latency p50 %.0f us, p99 %.0f us, max %.0f us\n", r->ops,
	       (double)r->ops / r->seconds, r->p50_us, r->p99_us, r->max_us);
	printf("  reader: %.2f CPU-s, %" PRIu64 " major faults, %" PRIu64 " bytes wanted\n", r->cpu_s, r->major_faults,
	       r->wanted_bytes);
	if (r->first_tensor_s > 0)
		printf("  the first tensor after %.3f s%s\n", r->first_tensor_s, r->cut ? "; cut short" : "");
	if (r->verified_bytes || r->wrong_bytes)
		printf("  %" PRIu64 " bytes compared and right, %" PRIu64 " WRONG\n", r->verified_bytes,
		       r->wrong_bytes);
	if (r->errors || r->wrong_bytes)
		printf("  %" PRIu64 " errors; the first: %s\n", r->errors, r->first_error);
}

static int result_report(const struct load_result *r, const struct load_options *o, const char *what)
{
	if (o->json)
		result_print_json(r, what);
	else
		result_print_text(r, what);
	return r->errors || r->wrong_bytes ? 1 : 0;
}

static int verb_run(const char *verb, int argc, char **argv, struct load_options *o, struct err *e)
{
	struct load_result result = {};
	int rc;

	if (!argc)
		return err_set(e, -EINVAL, "no path given; see penstock-load --help");
	if (!strcmp(verb, "generate")) {
		if (!o->size_bytes && !o->plain)
			return err_set(e, -EINVAL, "generate needs --size");
		return load_generate(argv[0], o, e);
	}
	if (!strcmp(verb, "read")) {
		rc = load_read(argv, (size_t)argc, o, &result, e);
		return rc ? rc : result_report(&result, o, load_pattern_name(o->pattern));
	}
	if (!strcmp(verb, "replay")) {
		if (argc != 2)
			return err_set(e, -EINVAL, "replay needs a pattern and a directory; see penstock-load --help");
		rc = load_replay(argv[0], argv[1], o, &result, e);
		return rc ? rc : result_report(&result, o, argv[0]);
	}
	if (strcmp(verb, "model"))
		return err_set(e, -EINVAL, "unknown verb \"%s\"; see penstock-load --help", verb);
	rc = load_model(argv[0], o, &result, e);
	return rc ? rc : result_report(&result, o, "model");
}

int main(int argc, char **argv)
{
	struct load_options o = { .streams = 4, .depth = 64, .shards = 1, .seed = 1 };
	const char *verb = NULL;
	struct err e = {};
	int rc = options_parse(argc, argv, &o, &e);

	if (!rc && optind == argc)
		rc = err_set(&e, -EINVAL, "generate, read, model or replay? see penstock-load --help");
	if (!rc) {
		verb = argv[optind++];
		rc = workers_default(verb, &o, &e);
	}
	if (!rc)
		rc = verb_run(verb, argc - optind, argv + optind, &o, &e);
	if (rc < 0)
		fprintf(stderr, "penstock-load: %s\n", e.msg);
	return rc < 0 ? rc == -EINVAL || rc == -ERANGE ? 2 : 1 : rc;
}
