// SPDX-License-Identifier: Apache-2.0
/* Stands in for the library of a GPU's driver: host-to-device copies that copy in host memory. */
#include <string.h>
#include <unistd.h>

#define SLOW_US 2000

int cuMemcpyHtoD_v2(void *to, const void *from, size_t bytes)
{
	usleep(SLOW_US);
	memcpy(to, from, bytes);
	return 0;
}

int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream)
{
	(void)stream;
	memcpy(to, from, bytes);
	return 0;
}

/* An older name of the same function, and one that calls another. */
int cuMemcpyHtoD(void *to, const void *from, size_t bytes) __attribute__((alias("cuMemcpyHtoD_v2")));

int cuMemcpyHtoDAsync(void *to, const void *from, size_t bytes, void *stream)
{
	return cuMemcpyHtoDAsync_v2(to, from, bytes, stream);
}

/* CUDA_ERROR_INVALID_VALUE */
int cuMemcpyHtoD_v2_ptds(void *to, const void *from, size_t bytes)
{
	(void)to, (void)from, (void)bytes;
	return 1;
}
