// SPDX-License-Identifier: Apache-2.0
/*
 * What a generated model is made of: the tensors of a decoder-only language model, dense or with experts.
 *
 * Design: the hidden size is the largest power of two that gives each shard a few whole layers; what is left of a
 * shard is one flat tensor, so that all tensors together hold exactly the size asked for. Matrices are BF16 and norms
 * F32; mixed models have an F8 MLP with F32 scales, as 128 x 128 quantization leaves them, and BF16 elsewhere.
 */
#include <string.h>

#include "penstock-load-format.h"

#define HIDDEN_MIN 64u
#define HIDDEN_MAX 8192u
#define LAYERS_OF_SHARD 3u
#define SCALE_BLOCK 128u
#define EXPERTS_OF_LAYER 128u
#define EXPERT_MATRICES 3u
#define EXPERT_PARTS 8u /* all but one of so many parts of a shard are experts */

struct part {
	const char *name, *gguf;
	unsigned rows, columns; /* in hidden sizes; columns 0 = a norm */
	bool mlp;
};

static const struct part parts[] = {
	{ "input_layernorm", "attn_norm", 1, 0, false },    { "self_attn.q_proj", "attn_q", 1, 1, false },
	{ "self_attn.k_proj", "attn_k", 1, 1, false },      { "self_attn.v_proj", "attn_v", 1, 1, false },
	{ "self_attn.o_proj", "attn_output", 1, 1, false }, { "post_attention_layernorm", "ffn_norm", 1, 0, false },
	{ "mlp.gate_proj", "ffn_gate", 4, 1, true },        { "mlp.up_proj", "ffn_up", 4, 1, true },
	{ "mlp.down_proj", "ffn_down", 1, 4, true },
};

static uint64_t blocks(uint64_t n)
{
	return (n + SCALE_BLOCK - 1) / SCALE_BLOCK;
}

static void part_describe(const struct part *p, bool mixed, uint64_t hidden, struct tensor *ret)
{
	ret->rows = p->rows * hidden;
	ret->columns = p->columns * hidden;
	ret->dtype = mixed ? p->mlp ? DTYPE_F8 : DTYPE_BF16 : p->columns ? DTYPE_BF16 : DTYPE_F32;
	ret->len_bytes = ret->rows * max_of(ret->columns, 1) * dtypes[ret->dtype].bytes;
}

static void scale_describe(const struct tensor *of, struct tensor *ret)
{
	ret->rows = blocks(of->rows);
	ret->columns = blocks(of->columns);
	ret->dtype = DTYPE_F32;
	ret->len_bytes = ret->rows * ret->columns * dtypes[DTYPE_F32].bytes;
}

static uint64_t layer_bytes(bool mixed, uint64_t hidden)
{
	struct tensor t, scale;
	uint64_t sum = 0;

	for (size_t i = 0; i < array_len(parts); i++) {
		part_describe(&parts[i], mixed, hidden, &t);
		sum += t.len_bytes;
		scale_describe(&t, &scale);
		if (t.dtype == DTYPE_F8)
			sum += scale.len_bytes;
	}
	return sum;
}

static int layer_add(struct shape *s, struct tensors *ret)
{
	bool gguf = s->opt->kind == KIND_GGUF;
	char name[128];
	int rc = 0;

	for (size_t i = 0; i < array_len(parts) && !rc; i++) {
		const struct part *p = &parts[i];
		struct tensor t = { .name = name }, scale = { .name = name };

		part_describe(p, s->opt->mixed, s->hidden, &t);
		if (gguf)
			snprintf(name, sizeof(name), "blk.%u.%s.weight", s->layer, p->gguf);
		else
			snprintf(name, sizeof(name), "model.layers.%u.%s.weight", s->layer, p->name);
		rc = tensors_add(ret, &t);
		if (rc || t.dtype != DTYPE_F8)
			continue;
		scale_describe(&t, &scale);
		strncat(name, "_scale_inv", sizeof(name) - strlen(name) - 1);
		rc = tensors_add(ret, &scale);
	}
	s->layer++;
	return rc;
}

/* The experts of a shard, all of one size; *left_bytes goes down by what they hold. */
static int experts_add(struct shape *s, unsigned shard, uint64_t *left_bytes, struct tensors *ret)
{
	static const char *const names[] = { "gate_proj", "up_proj", "down_proj" };
	static const char *const gguf_names[] = { "ffn_gate", "ffn_up", "ffn_down" };
	uint64_t experts = s->opt->experts, last = experts * (shard + 1) / s->opt->shards;
	uint64_t nr = last - s->expert, each = nr ? *left_bytes / EXPERT_PARTS * (EXPERT_PARTS - 1) / nr : 0;
	struct tensor t = { .dtype = s->opt->mixed ? DTYPE_F8 : DTYPE_BF16, .columns = 1 };
	unsigned width = dtypes[t.dtype].bytes;
	char name[128];
	int rc = 0;

	if (nr && each < width)
		return -ERANGE;
	while (4 * t.columns * t.columns * width <= each)
		t.columns *= 2;
	t.rows = each / (width * t.columns);
	t.len_bytes = t.rows * t.columns * width;
	t.name = name;
	for (; s->expert < last && !rc; s->expert++) {
		unsigned matrix = s->expert % EXPERT_MATRICES, n = s->expert / EXPERT_MATRICES;
		unsigned layer = n / EXPERTS_OF_LAYER, expert = n % EXPERTS_OF_LAYER;

		if (s->opt->kind == KIND_GGUF)
			snprintf(name, sizeof(name), "blk.%u.%s.%u.weight", layer, gguf_names[matrix], expert);
		else
			snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.%u.%s.weight", layer, expert,
				 names[matrix]);
		rc = tensors_add(ret, &t);
		*left_bytes -= t.len_bytes;
	}
	return rc;
}

void shape_init(struct shape *s, const struct load_options *opt)
{
	uint64_t shard_bytes = opt->size_bytes / opt->shards;

	*s = (struct shape){ .opt = opt, .hidden = HIDDEN_MIN };
	if (opt->experts)
		shard_bytes /= EXPERT_PARTS;
	while (s->hidden < HIDDEN_MAX && layer_bytes(opt->mixed, 2 * s->hidden) * LAYERS_OF_SHARD <= shard_bytes)
		s->hidden *= 2;
}

int shape_shard(struct shape *s, unsigned shard, uint64_t data_bytes, struct tensors *ret)
{
	const char *embed = s->opt->kind == KIND_GGUF ? "token_embd" : "model.embed_tokens";
	uint64_t left = data_bytes, layer = layer_bytes(s->opt->mixed, s->hidden);
	struct tensor t = { .dtype = DTYPE_BF16 };
	char name[64];
	int rc = s->opt->experts ? experts_add(s, shard, &left, ret) : 0;

	for (; left >= layer && !rc; left -= layer)
		rc = layer_add(s, ret);
	t.name = name;
	t.rows = left / 2;
	t.len_bytes = t.rows * 2;
	snprintf(name, sizeof(name), "%s.%u.weight", embed, shard);
	if (!rc && t.rows)
		rc = tensors_add(ret, &t);
	snprintf(name, sizeof(name), "model.padding.%u", shard);
	if (!rc && left % 2)
		rc = tensors_add(ret, &(struct tensor){ .name = name, .dtype = DTYPE_U8, .rows = 1, .len_bytes = 1 });
	return rc;
}
