/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Weight files: what "generate" writes, and where their tensors lie for the replays and for the check of contents.
 * Written and parsed here once more, apart from the mount's own parsers, so that no mistake of those can hide.
 */
#ifndef PENSTOCK_LOAD_FORMAT_H
#define PENSTOCK_LOAD_FORMAT_H

#include "penstock-load.h"

/* In the order in which safetensors are written: alignment descending. */
enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F8, DTYPE_U8, DTYPE_COUNT };

struct dtype_info {
	const char *safetensors, *torch; /* torch: the class of its storage */
	unsigned bytes, gguf;
};
extern const struct dtype_info dtypes[DTYPE_COUNT];

struct tensor {
	char *name; /* of a torch archive that was read: the record's */
	enum dtype dtype;
	uint64_t rows, columns; /* columns 0: one dimension, or not known */
	uint64_t offset, len_bytes;
};

struct tensors {
	struct tensor *item;
	size_t nr;
};

/* Keeps a copy of the name. */
int tensors_add(struct tensors *t, const struct tensor *item);
void tensors_done(struct tensors *t);
void tensors_sort_by_offset(struct tensors *t);
/* As Python sorts keys. */
void tensors_sort_by_name(struct tensors *t);

/* --- reading --- */

/* Told from the name; -ENOEXEC for others. */
int format_kind_of(const char *path, enum load_kind *ret);

/* A file of plain contents may have any name: such a one does not begin as its format does. */
bool format_is_plain(struct load_file *f, enum load_kind kind);

/* The tensors of an open file, by rising offset; -ENOEXEC: no such file. Counted as <w>'s reads, unless it is NULL. */
int format_tensors_read(struct load_worker *w, struct load_file *f, struct tensors *ret, struct err *e);
int safetensors_read(struct load_worker *w, struct load_file *f, struct tensors *ret);
int gguf_read(struct load_worker *w, struct load_file *f, struct tensors *ret);

/* A torch archive in the steps of torch.load: the directory at the end, then each record's header before its bytes. */
struct torch_record {
	char *name;
	uint64_t header_offset, len_bytes;
};

struct torch_records {
	struct torch_record *item;
	size_t nr;
};

int torch_directory_read(struct load_worker *w, struct load_file *f, struct torch_records *ret);
int torch_record_locate(struct load_worker *w, struct load_file *f, const struct torch_record *r, uint64_t *ret_offset);
bool torch_record_is_data(const struct torch_record *r);
void torch_records_done(struct torch_records *r);
int torch_read(struct load_worker *w, struct load_file *f, struct tensors *ret);

/* --- writing --- */

struct sink {
	int fd;
	uint64_t offset, key;
	uint32_t crc; /* of everything since it was set to 0, if <with_crc> */
	bool with_crc;
};

int sink_bytes(struct sink *s, const void *bytes, size_t len);
/* The file's contents at this offset, a function of seed and name. */
int sink_content(struct sink *s, uint64_t len);
int sink_pad(struct sink *s, unsigned char byte, uint64_t to_offset);

/* Each writes a whole file and sets the tensors' offsets; they may be reordered. */
int safetensors_write(struct sink *s, struct tensors *t);
int gguf_write(struct sink *s, struct tensors *t, unsigned shard, unsigned nr_shards);
int torch_write(struct sink *s, struct tensors *t);

/* What a generated model is made of. */
struct shape {
	const struct load_options *opt;
	unsigned hidden, layer, expert; /* the next ones' numbers */
};

void shape_init(struct shape *s, const struct load_options *opt);
/* The tensors of the next shard, in the order of the model, <data_bytes> in all. */
int shape_shard(struct shape *s, unsigned shard, uint64_t data_bytes, struct tensors *ret);

#endif
