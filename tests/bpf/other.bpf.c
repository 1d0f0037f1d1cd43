// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* The tracer in another version, whose maps have another shape. */
#define TRACE_VERSION 99
#define TRACE_VOLUMES_MAX 128

#include "../../bpf/access.bpf.c"
