/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of paths, for the metadata TTL: file, directory or nothing there. Bounded; the oldest go first.
 *
 * Threads: any.
 */
#ifndef PENSTOCK_FS_META_H
#define PENSTOCK_FS_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "s3/xml.h"

enum meta_kind { META_NONE = 0, META_FILE, META_DIR };

struct meta_record {
	enum meta_kind kind;
	uint64_t size_bytes;
	time_t mtime;
	char etag[S3_ETAG_MAX + 1];
	char storage_class[32];
};

struct meta;

struct meta *meta_new(size_t max_bytes); /* NULL = no memory */
struct meta *meta_free(struct meta *m);
/* Path without a leading or trailing slash. False: not known, or too old. */
bool meta_get(struct meta *m, const char *path, uint64_t now_ns, struct meta_record *ret);
void meta_put(struct meta *m, const char *path, const struct meta_record *rec, uint64_t expires_ns);
void meta_drop(struct meta *m, const char *path);

#endif
