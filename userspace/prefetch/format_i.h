/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the parsers of weight formats. */
#ifndef PENSTOCK_PREFETCH_FORMAT_I_H
#define PENSTOCK_PREFETCH_FORMAT_I_H

#include "prefetch/format.h"

#define FORMAT_FIRST_PIECE_BYTES (128u << 10)
#define GGUF_DEPTH_MAX 8
/* A tensor of a type that is not known: it ends where the next one begins. */
#define FORMAT_LEN_UNKNOWN UINT64_MAX

struct format_item {
	uint64_t offset, len;
	uint32_t name; /* where it begins in names */
};

/* Tensors while they are collected. Names are NUL-terminated, one after the other. */
struct format_list {
	struct format_item *item;
	uint32_t nr, cap;
	char *names;
	size_t names_len, names_cap;
};

struct format_parser {
	enum format_kind kind;
	uint64_t file_bytes;
	uint64_t pos;   /* the next step begins here */
	uint64_t limit; /* the part that is parsed ends here */
	uint64_t piece; /* bytes to ask for */
	int state;      /* the format's own */
	uint64_t left;  /* entries to come */
	struct format_list list;
	struct format_plan *plan;
	union {
		struct {
			bool seen_metadata;
		} safetensors;
		struct {
			uint32_t version;
			bool big_endian, seen_alignment;
			uint32_t alignment;
			uint64_t nr_tensors;
			unsigned depth; /* of nested arrays */
			struct {
				uint64_t left;
				uint32_t type;
			} array[GGUF_DEPTH_MAX];
		} gguf;
		struct {
			uint64_t directory; /* where it begins: the records are before it */
			uint64_t end64;     /* where the 64-bit end record begins: the directory is before it */
			bool is_torch;
		} zip;
	};
};

/*
 * One step of a format: <bytes> lie at p->pos. Moves p->pos and returns 0, or 1 when the list is whole, or -EAGAIN
 * when the bytes end too early.
 */
int safetensors_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e);
int gguf_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e);
int zip_step(struct format_parser *p, const uint8_t *bytes, size_t len, struct err *e);
void zip_begin(struct format_parser *p);

/* Adds a tensor. The name is bounded and has no NUL. */
int format_list_add(struct format_list *l, const void *name, size_t name_len, uint64_t offset, uint64_t len,
		    struct err *e);
/* In file order: by offset, empty tensors before the one that they share it with. */
void format_list_sort(struct format_list *l);
/*
 * From a sorted list to the parser's plan. -EBADMSG for tensors that overlap or end past <end>, and for a name that
 * comes twice. The data ends at <end>.
 */
int format_list_finish(struct format_parser *p, struct format_range head, uint64_t end, struct err *e);
/* *ret_order = places in the list in name order, to be freed; *ret_twice = a name that comes twice, or NULL. */
int format_list_order(const struct format_list *l, int (*compare)(const char *, const char *), uint32_t **ret_order,
		      const char **ret_twice);
void format_list_done(struct format_list *l);

static inline uint32_t get_le16(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get_le32(const uint8_t *p)
{
	return get_le16(p) | get_le16(p + 2) << 16;
}

static inline uint64_t get_le64(const uint8_t *p)
{
	return get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}

#endif
