// SPDX-License-Identifier: Apache-2.0
/*
 * "generate": a sharded model of any size in one of three formats with its index, or one file of plain contents.
 */
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "penstock-load-format.h"

#define WRITE_BYTES (8ul << 20)
#define HEAD_SIZE 64u /* of an attention head */

struct writer {
	const struct load_options *opt;
	const char *dir;
	struct shape shape;
	json_t *weight_map;
	char name[64]; /* of the shard being made */
};

/* --- sinks --- */

static uint32_t crc32_add(uint32_t crc, const unsigned char *p, size_t len)
{
	static uint32_t table[256];

	for (uint32_t i = 0; i < 256 && !table[255]; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xedb88320u : table[i] >> 1;
	}
	crc = ~crc;
	for (; len; len--)
		crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
	return ~crc;
}

int sink_bytes(struct sink *s, const void *bytes, size_t len)
{
	ssize_t n;

	for (size_t done = 0; done < len; done += (size_t)n) {
		n = write(s->fd, (const char *)bytes + done, len - done);
		if (n < 0)
			return -errno;
	}
	if (s->with_crc)
		s->crc = crc32_add(s->crc, bytes, len);
	s->offset += len;
	return 0;
}

int sink_content(struct sink *s, uint64_t len)
{
	size_t room = (size_t)min_of(len, WRITE_BYTES), n;
	_cleanup_free_ void *buf = malloc(room + 1);
	int rc = buf ? 0 : -ENOMEM;

	for (; len && !rc; len -= n) {
		n = (size_t)min_of(len, room);
		content_fill(s->key, s->offset, buf, n);
		rc = sink_bytes(s, buf, n);
	}
	return rc;
}

int sink_pad(struct sink *s, unsigned char byte, uint64_t to_offset)
{
	unsigned char pad[64];
	int rc = 0;

	memset(pad, byte, sizeof(pad));
	while (s->offset < to_offset && !rc)
		rc = sink_bytes(s, pad, (size_t)min_of(to_offset - s->offset, sizeof(pad)));
	return rc;
}

/* --- files --- */

static int file_create(const char *dir, const char *name, struct err *e)
{
	char path[4096];
	int fd, n = snprintf(path, sizeof(path), "%s/%s", dir, name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return err_set(e, -ENAMETOOLONG, "the path %s/%s is too long", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	return fd < 0 ? err_set(e, -errno, "cannot create %s: %s", path, strerror(errno)) : fd;
}

static void shard_name(struct writer *w, unsigned shard)
{
	static const char *const stems[] = { "model", "model", "pytorch_model" };
	static const char *const tails[] = { "safetensors", "gguf", "bin" };
	const struct load_options *o = w->opt;

	if (o->shards == 1 && o->kind != KIND_SAFETENSORS)
		snprintf(w->name, sizeof(w->name), "%s.%s", stems[o->kind], tails[o->kind]);
	else
		snprintf(w->name, sizeof(w->name), "%s-%05u-of-%05u.%s", stems[o->kind], shard + 1, o->shards,
			 tails[o->kind]);
}

static int shard_write(struct writer *w, unsigned shard, uint64_t data_bytes, int fd, struct tensors *t)
{
	struct sink sink = { .fd = fd, .key = content_key(w->opt->seed, w->name) };
	int rc = shape_shard(&w->shape, shard, data_bytes, t);

	for (size_t i = 0; i < t->nr && !rc; i++)
		rc = json_object_set_new(w->weight_map, t->item[i].name, json_string(w->name)) ? -ENOMEM : 0;
	if (rc)
		return rc;
	return w->opt->kind == KIND_SAFETENSORS ? safetensors_write(&sink, t)
	     : w->opt->kind == KIND_GGUF        ? gguf_write(&sink, t, shard, w->opt->shards)
						: torch_write(&sink, t);
}

static int shard_make(struct writer *w, unsigned shard, uint64_t data_bytes, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct tensors t = {};
	int rc;

	shard_name(w, shard);
	fd = file_create(w->dir, w->name, e);
	if (fd < 0)
		return fd;
	rc = shard_write(w, shard, data_bytes, fd, &t);
	tensors_done(&t);
	if (rc == -ERANGE)
		return err_set(e, -EINVAL, "--size is too small for so many experts");
	if (rc == -EFBIG || rc == -E2BIG)
		return err_set(e, -EINVAL, "%s would be too large for its format: give more --shards", w->name);
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

/* GGUF files describe themselves. */
static int model_describe(struct writer *w, struct err *e)
{
	int hidden = (int)w->shape.hidden;
	json_t *index, *config;
	int rc;

	if (w->opt->kind == KIND_GGUF)
		return 0;
	index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)w->opt->size_bytes, "weight_map",
			  w->weight_map);
	config = json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:s}", "architectures", "LlamaForCausalLM", "model_type",
			   "llama", "hidden_size", hidden, "intermediate_size", 4 * hidden, "num_hidden_layers",
			   (int)w->shape.layer, "num_attention_heads", hidden / (int)HEAD_SIZE, "torch_dtype",
			   "bfloat16");
	rc = json_write(w->dir,
			w->opt->kind == KIND_TORCH ? "pytorch_model.bin.index.json" : "model.safetensors.index.json",
			index, e);
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
	struct sink sink = { .fd = fd, .key = content_key(opt->seed, slash ? slash + 1 : path) };
	int rc;

	if (fd < 0)
		return err_set(e, -errno, "cannot create %s: %s", path, strerror(errno));
	rc = sink_content(&sink, opt->size_bytes);
	return rc ? err_set(e, rc, "cannot write %s: %s", path, strerror(-rc)) : 0;
}

int load_generate(const char *dir, const struct load_options *opt, struct err *e)
{
	struct writer w = { .opt = opt, .dir = dir };
	uint64_t shard_bytes = opt->size_bytes / opt->shards, extra = opt->size_bytes % opt->shards;
	int rc = 0;

	if (opt->plain)
		return plain_generate(dir, opt, e);
	if (!shard_bytes)
		return err_set(e, -EINVAL, "--size is smaller than the number of shards");
	if (mkdir(dir, 0755) && errno != EEXIST)
		return err_set(e, -errno, "cannot create %s: %s", dir, strerror(errno));
	shape_init(&w.shape, opt);
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
