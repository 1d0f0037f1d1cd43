/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The parts of the kernel's FUSE interface that older <linux/fuse.h> lack. Values and layouts are the kernel's (6.14).
 */
#ifndef PENSTOCK_TRANSPORT_FUSE_UAPI_H
#define PENSTOCK_TRANSPORT_FUSE_UAPI_H

#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>

/* Bits of fuse_init_in.flags2 and fuse_init_out.flags2. */
#define PX_FUSE2_HAS_RESEND (1u << (39 - 32))
#define PX_FUSE2_OVER_IO_URING (1u << (41 - 32))

/* Newest minor that this code speaks. */
#define PX_FUSE_MINOR 45

#define PX_FUSE_URING_IN_OUT_BYTES 128

struct px_fuse_uring_ent {
	uint64_t flags;
	uint64_t commit_id;
	uint32_t payload_sz;
	uint32_t padding;
	uint64_t reserved;
};

struct px_fuse_uring_header {
	char in_out[PX_FUSE_URING_IN_OUT_BYTES]; /* struct fuse_in_header, then struct fuse_out_header */
	char op_in[PX_FUSE_URING_IN_OUT_BYTES];
	struct px_fuse_uring_ent ent;
};

/* In the command area of a 128-byte SQE. */
struct px_fuse_uring_cmd {
	uint64_t flags;
	uint64_t commit_id;
	uint16_t qid;
	uint8_t padding[6];
};

enum px_fuse_uring_op { PX_FUSE_URING_REGISTER = 1, PX_FUSE_URING_COMMIT_AND_FETCH = 2 };

_Static_assert(sizeof(struct px_fuse_uring_ent) == 32, "kernel layout");
_Static_assert(sizeof(struct px_fuse_uring_header) == 288, "kernel layout");
_Static_assert(sizeof(struct px_fuse_uring_cmd) == 24, "kernel layout");
_Static_assert(offsetof(struct px_fuse_uring_header, ent) == 256, "kernel layout");
_Static_assert(sizeof(struct fuse_in_header) == 40 && sizeof(struct fuse_out_header) == 16, "kernel layout");
_Static_assert(sizeof(struct fuse_init_out) == 64, "kernel layout");

#endif
