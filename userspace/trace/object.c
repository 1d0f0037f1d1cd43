// SPDX-License-Identifier: Apache-2.0
/* The compiled BPF programs, carried in this program. */
#include "trace/trace_i.h"

/* TRACE_OBJECTS is the directory of the object files, from the Makefile. */
#define CARRY(name)                                              \
	__asm__(".pushsection .rodata\n"                         \
		".balign 8\n"                                    \
		"penstock_" #name                                \
		"_start:\n"                                      \
		".incbin \"" TRACE_OBJECTS "/" #name             \
		".bpf.o\"\n"                                     \
		"penstock_" #name                                \
		"_end:\n"                                        \
		".balign 8\n"                                    \
		"penstock_" #name                                \
		"_bytes:\n"                                      \
		".quad penstock_" #name "_end - penstock_" #name \
		"_start\n"                                       \
		".popsection\n");                                \
	extern const char penstock_##name##_start[];             \
	extern const uint64_t penstock_##name##_bytes

CARRY(access);
CARRY(gpu);

void object_builtin(const void **ret_data, size_t *ret_bytes)
{
	*ret_data = penstock_access_start;
	*ret_bytes = penstock_access_bytes;
}

void object_gpu(const void **ret_data, size_t *ret_bytes)
{
	*ret_data = penstock_gpu_start;
	*ret_bytes = penstock_gpu_bytes;
}
