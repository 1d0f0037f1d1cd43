/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to try again and how fast to go: jittered back-off, a retry budget, the AIMD limit on requests in flight,
 * and the hedging threshold. Pure: time and randomness come from the caller. Threads: the owner's lock.
 */
#ifndef PENSTOCK_S3_RETRY_H
#define PENSTOCK_S3_RETRY_H

#include <stdbool.h>
#include <stdint.h>

/* Full jitter: uniform in [base/2, min(cap, base * 2^attempt)], never 0. attempt counts from 0. */
uint64_t s3_backoff_ns(unsigned attempt, uint64_t base_ns, uint64_t cap_ns, uint32_t random);

/*
 * Token bucket for retries: each success gives <gain_permille>/1000 of a token up to max, each retry takes one. While
 * it is empty, retries wait for the long back-off instead (they are not refused: an outage must be survived).
 */
struct s3_budget {
	int64_t milli_tokens, max_milli_tokens;
	int64_t gain_milli;
};
void s3_budget_init(struct s3_budget *b, unsigned max_tokens, unsigned gain_permille);
void s3_budget_success(struct s3_budget *b);
bool s3_budget_take(struct s3_budget *b);

/*
 * AIMD on requests in flight: a throttled reply halves the limit (at most once per <hold_ns>, floor 2), every
 * <limit> successes add one, up to max; after 10 s without a throttle the limit doubles instead of adding, so a
 * client is at full speed again soon after the faults end.
 */
struct s3_aimd {
	unsigned limit, max;
	unsigned successes;
	uint64_t last_cut_ns, hold_ns;
	uint64_t throttled; /* counter */
};
void s3_aimd_init(struct s3_aimd *a, unsigned max, uint64_t hold_ns);
void s3_aimd_success(struct s3_aimd *a, uint64_t now_ns);
void s3_aimd_throttle(struct s3_aimd *a, uint64_t now_ns);
void s3_aimd_set_max(struct s3_aimd *a, unsigned max);

/*
 * Live quantiles of a latency: 64 logarithmic buckets from 0.1 ms to 100 s, halved every 1024 samples so that old
 * times fade.
 */
struct s3_latency {
	uint32_t bucket[64];
	uint32_t total;
};
void s3_latency_add(struct s3_latency *l, uint64_t ns);
uint64_t s3_latency_quantile_ns(const struct s3_latency *l, unsigned permille); /* 0 while fewer than 20 samples */

/* Hedges: at most <percent> of the demand requests; each demand request earns percent/100 of a hedge. */
struct s3_hedge {
	unsigned percent;
	int64_t milli_tokens;
};
void s3_hedge_init(struct s3_hedge *h, unsigned percent);
void s3_hedge_earn(struct s3_hedge *h);
bool s3_hedge_take(struct s3_hedge *h);

#endif
