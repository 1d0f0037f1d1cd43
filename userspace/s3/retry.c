// SPDX-License-Identifier: Apache-2.0
/* Back-off, retry budget, AIMD limit, latency quantiles and hedging tokens. */
#include "s3/retry.h"

#include "base/cleanup.h"

#define MILLI 1000
#define AIMD_FLOOR 2U
#define AIMD_CALM_NS 10000000000ULL
#define HEDGE_BURST 10 /* hedges saved up in quiet times: a slow server is not met by a storm of them */
#define LATENCY_FIRST_NS 100000ULL
#define LATENCY_HALVE 1024
#define LATENCY_ENOUGH 20

uint64_t s3_backoff_ns(unsigned attempt, uint64_t base_ns, uint64_t cap_ns, uint32_t random)
{
	uint64_t high = cap_ns, low;

	if (attempt < 64 && base_ns <= (UINT64_MAX >> attempt))
		high = min_of(cap_ns, base_ns << attempt);
	low = min_of(base_ns / 2, high);
	low += (uint64_t)((unsigned __int128)(high - low) * random / UINT32_MAX);
	return max_of(low, (uint64_t)1);
}

void s3_budget_init(struct s3_budget *b, unsigned max_tokens, unsigned gain_permille)
{
	b->max_milli_tokens = (int64_t)max_tokens * MILLI;
	b->milli_tokens = b->max_milli_tokens;
	b->gain_milli = gain_permille;
}

void s3_budget_success(struct s3_budget *b)
{
	b->milli_tokens = min_of(b->milli_tokens + b->gain_milli, b->max_milli_tokens);
}

bool s3_budget_take(struct s3_budget *b)
{
	if (b->milli_tokens < MILLI)
		return false;
	b->milli_tokens -= MILLI;
	return true;
}

void s3_aimd_init(struct s3_aimd *a, unsigned max, uint64_t hold_ns)
{
	max = max_of(max, 1U);
	*a = (struct s3_aimd){ .limit = max, .max = max, .hold_ns = hold_ns };
}

static bool aimd_within(const struct s3_aimd *a, uint64_t now_ns, uint64_t span_ns)
{
	if (!a->throttled)
		return false;
	return now_ns < a->last_cut_ns || now_ns - a->last_cut_ns < span_ns;
}

void s3_aimd_success(struct s3_aimd *a, uint64_t now_ns)
{
	if (a->limit >= a->max || ++a->successes < a->limit)
		return;
	a->successes = 0;
	if (aimd_within(a, now_ns, AIMD_CALM_NS))
		a->limit++;
	else
		a->limit = a->limit > a->max / 2 ? a->max : a->limit * 2;
}

void s3_aimd_throttle(struct s3_aimd *a, uint64_t now_ns)
{
	bool hold = aimd_within(a, now_ns, a->hold_ns);

	a->throttled++;
	a->successes = 0;
	if (hold)
		return;
	a->last_cut_ns = now_ns;
	a->limit = max_of(a->limit / 2, min_of(AIMD_FLOOR, a->max));
}

void s3_aimd_set_max(struct s3_aimd *a, unsigned max)
{
	a->max = max_of(max, 1U);
	a->limit = min_of(a->limit, a->max);
}

/* Three buckets an octave: each is 1.26 times the one before, and 64 of them reach beyond 100 s. */
static uint64_t latency_bound_ns(unsigned bucket)
{
	static const uint64_t step_permille[] = { 1000, 1260, 1587 };

	return (LATENCY_FIRST_NS << (bucket / 3)) / 1000 * step_permille[bucket % 3];
}

void s3_latency_add(struct s3_latency *l, uint64_t ns)
{
	unsigned i = 0;

	while (i < array_len(l->bucket) - 1 && ns > latency_bound_ns(i))
		i++;
	l->bucket[i]++;
	if (++l->total < LATENCY_HALVE)
		return;
	l->total = 0;
	for (i = 0; i < array_len(l->bucket); i++) {
		l->bucket[i] /= 2;
		l->total += l->bucket[i];
	}
}

uint64_t s3_latency_quantile_ns(const struct s3_latency *l, unsigned permille)
{
	uint64_t rank, below = 0, low = 0;

	if (l->total < LATENCY_ENOUGH)
		return 0;
	rank = ((uint64_t)l->total * min_of(permille, 1000U) + 999) / 1000;
	rank = max_of(rank, (uint64_t)1);
	for (unsigned i = 0; i < array_len(l->bucket); i++) {
		uint64_t high = latency_bound_ns(i);

		if (below + l->bucket[i] >= rank)
			return low + (high - low) * (rank - below) / l->bucket[i];
		below += l->bucket[i];
		low = high;
	}
	return low;
}

void s3_hedge_init(struct s3_hedge *h, unsigned percent)
{
	h->percent = min_of(percent, 100U);
	h->milli_tokens = 0;
}

void s3_hedge_earn(struct s3_hedge *h)
{
	h->milli_tokens = min_of(h->milli_tokens + (int64_t)h->percent * (MILLI / 100), (int64_t)HEDGE_BURST * MILLI);
}

bool s3_hedge_take(struct s3_hedge *h)
{
	if (h->milli_tokens < MILLI)
		return false;
	h->milli_tokens -= MILLI;
	return true;
}
