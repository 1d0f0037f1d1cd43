/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is inside a weight file, so that it can be fetched ahead in the order in which a loader wants it: the byte
 * ranges of its tensors, in file order and in name order. Pure: bytes in, plans out.
 *
 * Formats: safetensors, GGUF (versions 1 to 3, both byte orders), torch zip archives, and the index files that name
 * the shards of a model. The content is hostile until proved: counts, names and sizes are bounded, nothing recurses.
 *
 * Errors: -ENOEXEC it is another format; -EBADMSG it is damaged or hostile; -E2BIG it is larger than a limit below;
 * -ENOMEM. Each comes with a sentence. Threads: the caller's lock; a finished plan is never changed and may be shared.
 */
#ifndef PENSTOCK_PREFETCH_FORMAT_H
#define PENSTOCK_PREFETCH_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "prefetch/format_walk.h"

#define FORMAT_TENSORS_MAX (1u << 19)
#define FORMAT_NAME_MAX_BYTES 4096
#define FORMAT_NAMES_MAX_BYTES (64u << 20) /* all names of a file, kept only while it is parsed */
#define FORMAT_HEADER_MAX_BYTES (256u << 20)
#define FORMAT_PIECE_MAX_BYTES (8u << 20) /* of a header, asked for at once */
#define FORMAT_SHARDS_MAX 10000
#define FORMAT_INDEX_MAX_BYTES (128u << 20)

enum format_kind {
	FORMAT_NONE = 0,
	FORMAT_SAFETENSORS,
	FORMAT_GGUF,
	FORMAT_TORCH, /* a zip archive, or an older pickle that has no plan */
	FORMAT_ONNX,  /* .onnx and its external data: weights without a plan */
	FORMAT_INDEX, /* names the shards of a model */
};

/* FILE: rising offsets. NAME: as Python sorts keys; records of a torch zip by their number, as they are unpickled. */
enum format_order { FORMAT_ORDER_FILE = 0, FORMAT_ORDER_NAME };

struct format_range {
	uint64_t offset, len;
};

/* 24 bytes a tensor. The ranges rise and never overlap; a torch record spans up to the next one's header. */
struct format_plan {
	uint64_t file_bytes;
	struct format_range head; /* what a reader reads first: the header, or the directory at the end */
	uint32_t nr;
	struct format_range *tensor;
	uint32_t *by_name;   /* place in name order -> tensor */
	uint32_t *name_rank; /* tensor -> place in name order */
};

void format_plan_free(struct format_plan *plan);

/*
 * An incremental parser: ask for what it needs, hand that over, until feeding it returns 1. It keeps no bytes. Up to
 * 100 bytes a tensor and the names while it runs.
 */
struct format_parser;

/* -ENOEXEC for a kind without a plan and for a file too short to be one. */
int format_parser_new(enum format_kind kind, uint64_t file_bytes, struct format_parser **ret_parser, struct err *e);
void format_parser_free(struct format_parser *p);

/* The range of the file that is needed next; never empty and never past the file's end. */
struct format_range format_parser_need(const struct format_parser *p);

/*
 * Bytes of the file at <offset>. They should hold the needed range, and may hold more; with less the parser goes as
 * far as it can. 1 = complete, 0 = ask again, or an error, after which only freeing is left.
 */
int format_parser_feed(struct format_parser *p, uint64_t offset, const void *bytes, size_t len, struct err *e);

/* The plan of a complete parser, once; the caller frees it. */
struct format_plan *format_parser_take(struct format_parser *p);

/*
 * The next range of a plan in consumption order: 1 and the range, or 0 at the end. Ranges lie on blocks, neighbours
 * are merged up to <max_bytes>, and nothing is given twice. A zeroed cursor begins at the first tensor.
 */
int format_plan_next(const struct format_plan *plan, enum format_order order, struct walk_cursor *cursor,
		     uint64_t max_bytes, struct format_range *ret_range);

/* A cursor for a reader that stands at <offset>. -ENOENT when no tensor holds it, as in the header. */
int format_plan_locate(const struct format_plan *plan, enum format_order order, uint64_t offset,
		       struct walk_cursor *ret_cursor);

/*
 * The order that the accesses follow so far, in the order in which they came; FILE where both would do. -EAGAIN: they
 * touch too few tensors to tell. -ENOENT: neither.
 */
int format_order_guess(const struct format_plan *plan, const struct format_range *access, size_t nr,
		       enum format_order *ret_order);

/* --- names --- */

/* Natural order: runs of digits compare as numbers, so "model-2" is before "model-10". 0 only for equal names. */
int format_name_compare(const char *a, const char *b);

/* What a file is, told from its name without directories. State of a training run is no weight file. */
enum format_kind format_kind_of_name(const char *name);

/*
 * Is a directory one model? <name> are the names in it, without its subdirectories. One model is an index file, or
 * weight files that belong together: one file, one numbered set, or all beside a config.json.
 */
struct format_model {
	int64_t index;  /* which name is the index file, or -1 */
	uint32_t *file; /* which names are the weight files, in natural order; with an index, all of its kind */
	size_t nr;
};

/* -ENOENT when it is not one model, -ENOMEM. */
int format_model_find(const char *const *name, size_t nr, struct format_model *ret_model);
void format_model_done(struct format_model *m);

/* --- index files --- */

struct format_index {
	char **shard; /* plain file names in natural order, each once */
	size_t nr;
};

/* The whole of a *.index.json. A name that is no plain file name makes the whole index -EBADMSG. */
int format_index_parse(const char *bytes, size_t len, struct format_index *ret_index, struct err *e);
void format_index_done(struct format_index *index);

#endif
