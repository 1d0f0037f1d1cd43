// SPDX-License-Identifier: Apache-2.0
/*
 * "generate": a sharded safetensors model of any size, shaped like a decoder-only language model.
 *
 * Design: the hidden size is the largest power of two that gives each shard a few whole layers; what is left of a
 * shard is one flat tensor, so that all tensors together hold exactly the size asked for. Layers are BF16, norms F32.
 */
#include <endian.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "penstock-load.h"

#define HIDDEN_MIN 64u
#define HIDDEN_MAX 8192u
#define LAYERS_OF_SHARD 3u
#define WRITE_BYTES (8ul << 20)

struct writer {
	const struct load_options *opt;
	const char *dir;
	json_t *weight_map;
	unsigned hidden, layer; /* layer: the next one's number */
	/* of the shard being made */
	char name[64];
	json_t *header;
	uint64_t offset;
};

/* q, k, v, o and an MLP of three matrices four times as wide, in BF16; two norms in F32. */
static uint64_t layer_bytes(uint64_t hidden)
{
	return 2 * (4 * hidden * hidden + 3 * 4 * hidden * hidden) + 2 * 4 * hidden;
}

static int tensor_add(struct writer *w, const char *name, const char *dtype, uint64_t rows, uint64_t columns,
		      uint64_t len_bytes)
{
	json_t *shape = columns ? json_pack("[I,I]", (json_int_t)rows, (json_int_t)columns)
				: json_pack("[I]", (json_int_t)rows);
	json_t *t = json_pack("{s:s, s:o, s:[I,I]}", "dtype", dtype, "shape", shape, "data_offsets",
			      (json_int_t)w->offset, (json_int_t)(w->offset + len_bytes));

	w->offset += len_bytes;
	if (!t || json_object_set_new(w->header, name, t) ||
	    json_object_set_new(w->weight_map, name, json_string(w->name)))
		return -ENOMEM;
	return 0;
}

static int layer_add(struct writer *w)
{
	static const struct {
		const char *name;
		unsigned rows, columns; /* in hidden sizes; columns 0 = a norm */
	} tensors[] = {
		{ "input_layernorm", 1, 0 },  { "self_attn.q_proj", 1, 1 }, { "self_attn.k_proj", 1, 1 },
		{ "self_attn.v_proj", 1, 1 }, { "self_attn.o_proj", 1, 1 }, { "post_attention_layernorm", 1, 0 },
		{ "mlp.gate_proj", 4, 1 },    { "mlp.up_proj", 4, 1 },      { "mlp.down_proj", 1, 4 },
	};
	uint64_t h = w->hidden, rows, columns;
	char name[128];
	int rc = 0;

	for (size_t i = 0; i < array_len(tensors) && !rc; i++) {
		snprintf(name, sizeof(name), "model.layers.%u.%s.weight", w->layer, tensors[i].name);
		rows = tensors[i].rows * h;
		columns = tensors[i].columns * h;
		rc = columns ? tensor_add(w, name, "BF16", rows, columns, 2 * rows * columns)
			     : tensor_add(w, name, "F32", rows, 0, 4 * rows);
	}
	w->layer++;
	return rc;
}

static int shard_plan(struct writer *w, unsigned shard, uint64_t data_bytes)
{
	uint64_t left = data_bytes;
	char name[64];
	int rc = 0;

	w->offset = 0;
	w->header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
	if (!w->header)
		return -ENOMEM;
	for (; left >= layer_bytes(w->hidden) && !rc; left -= layer_bytes(w->hidden))
		rc = layer_add(w);
	snprintf(name, sizeof(name), "model.embed_tokens.%u.weight", shard);
	if (!rc && left >= 2)
		rc = tensor_add(w, name, "BF16", left / 2, 0, left / 2 * 2);
	snprintf(name, sizeof(name), "model.padding.%u", shard);
	if (!rc && left % 2)
		rc = tensor_add(w, name, "U8", 1, 0, 1);
	return rc;
}

static int write_all(int fd, const void *buf, size_t len)
{
	ssize_t n;

	for (size_t done = 0; done < len; done += (size_t)n) {
		n = write(fd, (const char *)buf + done, len - done);
		if (n < 0)
			return -errno;
	}
	return 0;
}

static int content_write(int fd, uint64_t key, uint64_t offset, uint64_t len)
{
	_cleanup_free_ void *buf = malloc(WRITE_BYTES);
	size_t n;
	int rc = buf ? 0 : -ENOMEM;

	for (; len && !rc; offset += n, len -= n) {
		n = (size_t)min_of(len, WRITE_BYTES);
		content_fill(key, offset, buf, n);
		rc = write_all(fd, buf, n);
	}
	return rc;
}

/* 8 bytes of length, the header as JSON padded with spaces to 8 bytes, then the tensors. */
static int shard_write(struct writer *w, int fd)
{
	_cleanup_free_ char *text = json_dumps(w->header, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0, padded = (len + 7) & ~7ul;
	uint64_t le_len = htole64(padded);
	int rc = text ? write_all(fd, &le_len, sizeof(le_len)) : -ENOMEM;

	if (!rc)
		rc = write_all(fd, text, len);
	if (!rc)
		rc = write_all(fd, "       ", padded - len);
	if (!rc)
		rc = content_write(fd, content_key(w->opt->seed, w->name), 8 + padded, w->offset);
	return rc;
}

static int file_create(const char *dir, const char *name, struct err *e)
{
	char path[4096];
	int fd, n = snprintf(path, sizeof(path), "%s/%s", dir, name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(e, -ENAMETOOLONG, "the path %s/%s is too long", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return fd < 0 ? err_set(e, -errno, "cannot create %s: %s", path, strerror(errno)) : fd;
}

static int shard_make(struct writer *w, unsigned shard, uint64_t data_bytes, struct err *e)
{
	_cleanup_close_ int fd = -1;
	int rc;

	snprintf(w->name, sizeof(w->name), "model-%05u-of-%05u.safetensors", shard + 1, w->opt->shards);
	fd = file_create(w->dir, w->name, e);
	if (fd < 0)
		return fd;
	rc = shard_plan(w, shard, data_bytes);
	if (!rc)
		rc = shard_write(w, fd);
	json_decref(w->header);
	w->header = NULL;
	return rc ? err_set(e, rc, "cannot write %s/%s: %s", w->dir, w->name, strerror(-rc)) : 0;
}

static int json_write(const char *dir, const char *name, json_t *json, struct err *e)
{
	_cleanup_close_ int fd = -1;

	if (!json)
		return err_set(e, -ENOMEM, "out of memory");
	fd = file_create(dir, name, e);
	if (fd < 0)
		return fd;
	return json_dumpfd(json, fd, JSON_INDENT(2)) ? err_set(e, -EIO, "cannot write %s/%s", dir, name) : 0;
}

static int model_describe(struct writer *w, struct err *e)
{
	json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)w->opt->size_bytes,
				  "weight_map", w->weight_map);
	json_t *config = json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:s}", "architectures", "LlamaForCausalLM",
				   "model_type", "llama", "hidden_size", (int)w->hidden, "intermediate_size",
				   (int)(4 * w->hidden), "num_hidden_layers", (int)w->layer, "num_attention_heads",
				   (int)(w->hidden / HIDDEN_MIN), "torch_dtype", "bfloat16");
	int rc = json_write(w->dir, "model.safetensors.index.json", index, e);

	if (!rc)
		rc = json_write(w->dir, "config.json", config, e);
	json_decref(index);
	json_decref(config);
	return rc;
}

static int plain_generate(const char *path, const struct load_options *opt, struct err *e)
{
	const char *slash = strrchr(path, '/');
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	int rc;

	if (fd < 0)
		return err_set(e, -errno, "cannot create %s: %s", path, strerror(errno));
	rc = content_write(fd, content_key(opt->seed, slash ? slash + 1 : path), 0, opt->size_bytes);
	return rc ? err_set(e, rc, "cannot write %s: %s", path, strerror(-rc)) : 0;
}

int load_generate(const char *dir, const struct load_options *opt, struct err *e)
{
	struct writer w = { .opt = opt, .dir = dir, .hidden = HIDDEN_MIN };
	uint64_t shard_bytes = opt->size_bytes / opt->shards, extra = opt->size_bytes % opt->shards;
	int rc = 0;

	if (opt->plain)
		return plain_generate(dir, opt, e);
	if (!shard_bytes)
		return err_set(e, -EINVAL, "--size is smaller than the number of shards");
	if (mkdir(dir, 0755) && errno != EEXIST)
		return err_set(e, -errno, "cannot create %s: %s", dir, strerror(errno));
	while (w.hidden < HIDDEN_MAX && layer_bytes(2 * w.hidden) * LAYERS_OF_SHARD <= shard_bytes)
		w.hidden *= 2;
	w.weight_map = json_object();
	if (!w.weight_map)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < opt->shards && !rc; i++)
		rc = shard_make(&w, i, shard_bytes + (i < extra ? 1 : 0), e);
	if (!rc)
		rc = model_describe(&w, e);
	json_decref(w.weight_map);
	return rc;
}
