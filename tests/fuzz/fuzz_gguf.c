// SPDX-License-Identifier: Apache-2.0
/* Any bytes as a GGUF file. */
#include "fuzz_format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_format(FORMAT_GGUF, data, size);
}
