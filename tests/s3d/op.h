/* SPDX-License-Identifier: Apache-2.0 */
/* What requests ask for. */
#ifndef S3D_OP_H
#define S3D_OP_H

enum op {
	OP_UNKNOWN = 0,
	OP_GET,
	OP_HEAD,
	OP_PUT,
	OP_COPY,
	OP_DELETE,
	OP_DELETE_MANY,
	OP_LIST,
	OP_LIST_V1,
	OP_BUCKETS,
	OP_BUCKET_CREATE,
	OP_BUCKET_HEAD,
	OP_BUCKET_DELETE,
	OP_BUCKET_LOCATION,
	OP_UPLOAD_CREATE,
	OP_UPLOAD_PART,
	OP_UPLOAD_COMPLETE,
	OP_UPLOAD_ABORT,
	OP_UPLOAD_PARTS,
	OP_UPLOADS,
	OP_COUNT,
};

struct request;

enum op op_of(const struct request *rq);
const char *op_name(enum op op);
enum op op_parse(const char *name); /* OP_UNKNOWN if it is none */

/* Each records a reply. */
void op_run(struct request *rq);
void op_get(struct request *rq);
void op_put(struct request *rq);
void op_copy(struct request *rq);
void op_delete(struct request *rq);
void op_delete_many(struct request *rq);
void op_list(struct request *rq);
void op_buckets(struct request *rq);
void op_bucket(struct request *rq);
void op_upload_create(struct request *rq);
void op_upload_part(struct request *rq);
void op_upload_complete(struct request *rq);
void op_upload_abort(struct request *rq);
void op_upload_parts(struct request *rq);
void op_uploads(struct request *rq);

/* control.c: /_s3d/... */
void control_run(struct request *rq);

#endif
