/* SPDX-License-Identifier: Apache-2.0 */
/* Scope-bound cleanup for locals. Long-lived objects use staged goto instead. */
#ifndef PENSTOCK_BASE_CLEANUP_H
#define PENSTOCK_BASE_CLEANUP_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

/* Keeps errno, so that "return -errno" works beside it. */
static inline void cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_fclose(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	errno = saved;
}

static inline void cleanup_unlock(pthread_mutex_t **m)
{
	if (*m)
		pthread_mutex_unlock(*m);
}

#define _cleanup_free_ _cleanup_(cleanup_free)
#define _cleanup_close_ _cleanup_(cleanup_close)
#define _cleanup_fclose_ _cleanup_(cleanup_fclose)

/* Moves a pointer out of a scope: the local becomes NULL, the value is returned. */
#define take_ptr(p)                     \
	({                              \
		__typeof__(p) _t = (p); \
		(p) = NULL;             \
		_t;                     \
	})

static inline int take_fd(int *fd)
{
	int v = *fd;

	*fd = -1;
	return v;
}

#define array_len(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
/* Names of their own, so that one may stand inside the other. */
#define min_of(a, b)                                              \
	({                                                        \
		__typeof__((a) + (b)) _min_a = (a), _min_b = (b); \
		_min_a < _min_b ? _min_a : _min_b;                \
	})
#define max_of(a, b)                                              \
	({                                                        \
		__typeof__((a) + (b)) _max_a = (a), _max_b = (b); \
		_max_a > _max_b ? _max_a : _max_b;                \
	})

#endif
