/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes and durations as people write them. */
#ifndef PENSTOCK_BASE_SIZE_H
#define PENSTOCK_BASE_SIZE_H

#include <stdint.h>

/*
 * "512", "64KiB", "8MiB", "2GiB", "1TiB" and, as others accept them, K, M, G, T (powers of 1024) and
 * KB, MB, GB, TB (powers of 1000), with an optional fraction ("1.5GiB"). Case matters only for nothing.
 * -EINVAL for anything else (empty, negative, trailing text), -ERANGE above UINT64_MAX.
 */
int size_parse(const char *text, uint64_t *ret_bytes);

/* Whole decimal number in [min, max]; -EINVAL or -ERANGE. */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value);

/* Seconds with an optional fraction and an optional unit ms, s, m, h; the result is nanoseconds. */
int duration_parse(const char *text, uint64_t *ret_ns);

#endif
