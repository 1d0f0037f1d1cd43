// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a recorded profile, as they are and under a frame that is right: refused, or the same after a round. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc32c.h"
#include "prefetch/profile.h"

#define BODY_AT 24

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_walk(const struct profile *p)
{
	struct walk_cursor c = { 0 };
	struct profile_range r;

	while (profile_next(p, &c, 8 << 20, &r) == 1) {
		if (!r.len || r.file >= p->nr_files || r.offset >= p->file[r.file].size_bytes ||
		    r.len > p->file[r.file].size_bytes - r.offset)
			abort();
	}
}

static void check_profile(const struct profile *p)
{
	struct profile *again = NULL, *merged = NULL;
	struct profile_summary s;
	uint32_t left_out;
	struct err e = { 0 };
	struct buf out;
	int rc;

	check_walk(p);
	profile_summarize(p, &s);
	if (s.aged_bytes > s.read_bytes)
		abort();
	buf_init(&out, PROFILE_ENCODED_MAX_BYTES);
	if (profile_encode(p, &out, &left_out) != 0 || left_out || profile_decode(out.data, out.len, &again, &e) != 0)
		abort();
	if (again->nr_accesses != p->nr_accesses || again->nr_files != p->nr_files ||
	    memcmp(again->access, p->access, p->nr_accesses * sizeof(*p->access)) != 0)
		abort();
	buf_done(&out);
	rc = profile_merge(again, p, &merged);
	if (rc != 0 || merged->nr_files != p->nr_files || merged->nr_accesses < p->nr_accesses)
		abort();
	check_walk(merged);
	buf_init(&out, 1 << 20);
	rc = profile_svg(merged, NULL, 0, &out);
	if (rc != 0 && rc != -E2BIG)
		abort();
	buf_done(&out);
	profile_free(merged);
	profile_free(again);
}

static void check_bytes(const uint8_t *data, size_t size)
{
	struct profile *p = NULL;
	struct err e = { 0 };
	int rc = profile_decode(data, size, &p, &e);

	if (rc < 0 ? p || !e.msg[0] || e.code != rc : !p)
		abort();
	if (p)
		check_profile(p);
	profile_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint64_t body = size - BODY_AT;
	uint8_t *fixed;
	uint32_t crc;

	check_bytes(data, size);
	if (size < BODY_AT)
		return 0;
	fixed = malloc(size);
	if (!fixed)
		abort();
	memcpy(fixed, data, size);
	memcpy(fixed, "PSTKPROF\1\0\0", 12);
	memcpy(fixed + 16, &body, sizeof(body));
	crc = crc32c(0, fixed + 16, size - 16);
	memcpy(fixed + 12, &crc, sizeof(crc));
	check_bytes(fixed, size);
	free(fixed);
	return 0;
}
